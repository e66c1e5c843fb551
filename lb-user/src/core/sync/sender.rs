//! The sending end: what the peer should have, and what it does not have yet.
//!
//! Driven by walks over the flow tables: [`Sender::begin_walk`], an [`Sender::offer`] for each entry,
//! [`Sender::end_walk`]; and by what was just made, [`Sender::announce`]. What differs from what was
//! offered before waits in a queue of keys, and [`Sender::poll`] makes messages of it, as many as may
//! be under way without an acknowledgement. What was announced goes before the rest.
//!
//! A walk takes its time, and what is announced meanwhile it may have met before that, or not at all.
//! So each entry has the time at which it was last seen, and a walk that began before that says
//! nothing about it.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::time::Duration;

use lb_common::abi::Tick;

use super::lags::{Lags, Quantiles};
use super::message::{Item, Message, Standing};
use super::queue::{Queue, Turn, Waiting};

/// Messages under way without an acknowledgement: enough to fill the way to a neighbour.
const WINDOW: usize = 8;
/// Bytes of items after which a message is long enough.
const ENOUGH: usize = 32 << 10;
/// Keys that may wait while nobody is there to take them; then a snapshot is the shorter way.
const BACKLOG: usize = 100_000;

/// What can be sent.
pub trait Value: Clone {
    /// Whether the peer should hear of it that has `sent`.
    fn outdates(&self, sent: &Self) -> bool;
    /// How many bytes it takes, about.
    fn size(&self) -> usize;
    /// Whether it matters how long a new one takes to be at the peer.
    fn is_measured(&self) -> bool;
}

/// The moment: since any fixed one, and on the clock of flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    pub at: Duration,
    pub tick: Tick,
}

/// The sending end of a stream.
pub struct Sender<K, V> {
    entries: HashMap<K, Entry<V>>,
    /// When the walk began that goes on, or was the last.
    walk: Duration,
    /// Whether what is here is all that a walk has met: a snapshot of less would have the peer forget
    /// the rest.
    is_whole: bool,
    /// What is to be sent.
    waiting: Queue<K>,
    /// What was sent and is not acknowledged.
    flight: VecDeque<Sent<K>>,
    stream: u64,
    /// The number of the next message.
    next: u64,
    is_linked: bool,
    snapshot: Snapshot,
    most_waiting: usize,
    lags: Lags,
}

struct Entry<V> {
    /// `None`: it has gone, and the peer is to hear of it.
    value: Option<V>,
    /// When it was last seen: a time after that, or when the walk began that met it.
    met: Duration,
    is_queued: bool,
}

struct Sent<K> {
    number: u64,
    keys: Vec<Waiting<K>>,
    since: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Snapshot {
    /// One has to be sent before increments are of use.
    Needed,
    /// It goes on; so many of the keys in the queue belong to it.
    Running { left: usize },
    /// Its end has this number.
    Ended { number: u64, acknowledged: bool },
}

impl<K: Clone + Eq + Hash + Ord, V: Value> Sender<K, V> {
    /// A sender that has nothing, whose streams have numbers from `stream` on: one that no receiver
    /// can know from an earlier run.
    #[must_use]
    pub fn new(stream: u64) -> Self {
        Self {
            entries: HashMap::new(),
            walk: Duration::ZERO,
            is_whole: false,
            waiting: Queue::new(),
            flight: VecDeque::new(),
            stream,
            next: 1,
            is_linked: false,
            snapshot: Snapshot::Needed,
            most_waiting: BACKLOG,
            lags: Lags::default(),
        }
    }

    /// Another bound of what may wait while nobody is there, for tests.
    #[cfg(test)]
    pub(super) const fn with_backlog(mut self, most: usize) -> Self {
        self.most_waiting = most;
        self
    }

    /// A walk over everything is taken in, which began at some time. No snapshot begins before its
    /// end.
    pub const fn begin_walk(&mut self, begun: Duration) {
        self.walk = begun;
        self.is_whole = false;
    }

    /// Takes in what the walk has met, and what may have been like that since `at`.
    pub fn offer(&mut self, key: K, value: V, at: Duration) {
        let is_newer = |entry: &Entry<V>| entry.met > self.walk;
        if !self.entries.get(&key).is_some_and(is_newer) {
            let made = value.is_measured().then_some(at);
            self.take_in(key, value, self.walk, Turn::Last { since: at, made });
        }
    }

    /// Takes in what was made at a time, and was there at a later one, `met`: it is sent first.
    pub fn announce(&mut self, key: K, value: V, made: Duration, met: Duration) {
        self.take_in(key, value, met, Turn::First { made });
    }

    /// Has a value sent, if it is news.
    fn take_in(&mut self, key: K, value: V, met: Duration, turn: Turn) {
        let Some(entry) = self.entries.get_mut(&key) else {
            let entry = Entry {
                value: Some(value),
                met,
                is_queued: false,
            };
            self.entries.insert(key.clone(), entry);
            return self.enqueue(key, turn);
        };
        entry.met = met;
        let is_known = entry.value.is_some();
        let is_news = entry.value.as_ref().is_none_or(|old| value.outdates(old));
        // What is not worth a message does not count as sent either.
        if is_news || entry.is_queued {
            entry.value = Some(value);
        }
        if is_news {
            self.enqueue(key, if is_known { turn.of_known() } else { turn });
        }
    }

    /// Takes in that the walk has met something as it was; says whether it is known.
    pub fn keep(&mut self, key: &K) -> bool {
        let Some(entry) = self.entries.get_mut(key) else {
            return false;
        };
        entry.met = entry.met.max(self.walk);
        entry.value.is_some()
    }

    /// The walk has met everything: what was there before, and it has not met, has gone.
    pub fn end_walk(&mut self, at: Duration) {
        let walk = self.walk;
        self.is_whole = true;
        let gone = self.entries.iter();
        let gone = gone.filter(|(_, entry)| entry.met < walk && entry.value.is_some());
        let gone: Vec<K> = gone.map(|(key, _)| key.clone()).collect();
        let (since, made) = (at, None);
        for key in gone {
            self.remove(&key);
            self.enqueue(key, Turn::Last { since, made });
        }
    }

    fn remove(&mut self, key: &K) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.value = None;
        }
    }

    fn enqueue(&mut self, key: K, turn: Turn) {
        if self.snapshot == Snapshot::Needed {
            self.forget_gone(&key);
            return;
        }
        let Some(entry) = self.entries.get_mut(&key) else {
            return;
        };
        if !entry.is_queued {
            entry.is_queued = true;
            self.waiting.push(key, turn);
        }
        if !self.is_linked && self.waiting.len() > self.most_waiting {
            self.restart();
        }
    }

    /// A snapshot does not name what has gone.
    fn forget_gone(&mut self, key: &K) {
        if self.entries.get(key).is_some_and(|it| it.value.is_none()) {
            self.entries.remove(key);
        }
    }

    /// Has the next thing that is sent be a snapshot: increments would not do.
    pub fn restart(&mut self) {
        self.snapshot = Snapshot::Needed;
        self.waiting.clear();
        self.flight.clear();
        self.entries.retain(|_, entry| {
            entry.is_queued = false;
            entry.value.is_some()
        });
    }

    /// The same with nothing that the peer should have, until a walk has ended.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.is_whole = false;
        self.restart();
    }

    /// A connection is there, whose receiver has come so far.
    pub fn link(&mut self, standing: Option<Standing>) {
        self.is_linked = true;
        let Some(applied) = standing.and_then(|standing| self.resumable(standing)) else {
            return self.restart();
        };
        if let Snapshot::Ended { acknowledged, .. } = &mut self.snapshot {
            *acknowledged = true;
        }
        self.next = applied + 1;
        for sent in std::mem::take(&mut self.flight).into_iter().rev() {
            if sent.number > applied {
                self.send_again(sent);
            }
        }
    }

    /// The number of the last message that was taken in, if what follows it is known.
    fn resumable(&self, standing: Standing) -> Option<u64> {
        let Snapshot::Ended { number, .. } = self.snapshot else {
            return None;
        };
        let first = self.flight.front().map_or(self.next, |sent| sent.number);
        let is_known = standing.stream == self.stream
            && standing.applied >= number
            && (first..=self.next).contains(&(standing.applied + 1));
        is_known.then_some(standing.applied)
    }

    fn send_again(&mut self, sent: Sent<K>) {
        for waiting in sent.keys.into_iter().rev() {
            let gone = Entry {
                value: None,
                met: self.walk,
                is_queued: false,
            };
            let entry = self.entries.entry(waiting.key.clone()).or_insert(gone);
            if !entry.is_queued {
                entry.is_queued = true;
                self.waiting.push_back_in_front(waiting);
            }
        }
    }

    /// The connection has gone.
    pub fn unlink(&mut self) {
        self.is_linked = false;
        if let Snapshot::Running { .. } = self.snapshot {
            self.restart();
        }
        if self.waiting.len() > self.most_waiting {
            self.restart();
        }
    }

    /// The next message, if there is one and it may be sent.
    pub fn poll(&mut self, now: Now) -> Option<Message<K, V>> {
        if !self.is_linked || self.flight.len() >= WINDOW {
            return None;
        }
        match self.snapshot {
            Snapshot::Needed if !self.is_whole => None,
            Snapshot::Needed => Some(self.begin(now.at)),
            Snapshot::Running { left: 0 } => Some(self.end(now.at)),
            Snapshot::Running { .. } | Snapshot::Ended { .. } => self.items(now),
        }
    }

    fn begin(&mut self, at: Duration) -> Message<K, V> {
        // Numbers go on: acknowledgements of the stream before may be under way.
        self.stream = self.stream.wrapping_add(1);
        // Slots depend on the records of their flows, so these come first: keys sort so.
        let mut keys: Vec<K> = self.entries.keys().cloned().collect();
        keys.sort_unstable();
        for entry in self.entries.values_mut() {
            entry.is_queued = true;
        }
        self.snapshot = Snapshot::Running { left: keys.len() };
        self.waiting = Queue::of_all(keys, at);
        let number = self.number(Vec::new(), at);
        Message::Begin {
            stream: self.stream,
            number,
        }
    }

    fn end(&mut self, at: Duration) -> Message<K, V> {
        let number = self.number(Vec::new(), at);
        self.snapshot = Snapshot::Ended {
            number,
            acknowledged: false,
        };
        Message::End { number }
    }

    fn items(&mut self, now: Now) -> Option<Message<K, V>> {
        if !self.has_more() {
            return None;
        }
        let (mut items, mut keys, mut size) = (Vec::new(), Vec::new(), 0);
        while size < ENOUGH {
            let Some(waiting) = self.next_waiting() else {
                break;
            };
            size += size_of::<K>();
            let key = &waiting.key;
            let Some(entry) = self.entries.get_mut(key) else {
                continue;
            };
            entry.is_queued = false;
            if let Some(value) = &entry.value {
                size += value.size();
                items.push(Item::Put(key.clone(), value.clone()));
            } else {
                self.entries.remove(key);
                items.push(Item::Remove(key.clone()));
            }
            keys.push(waiting);
        }
        let since = keys.iter().map(|waiting| waiting.since).min();
        let number = self.number(keys, since.unwrap_or(now.at));
        Some(Message::Items {
            number,
            now: now.tick.0,
            items,
        })
    }

    /// Takes what is to be sent next, before the end of a snapshot or at all.
    fn next_waiting(&mut self) -> Option<Waiting<K>> {
        if let Some(urgent) = self.waiting.pop_urgent() {
            return Some(urgent);
        }
        if let Snapshot::Running { left } = &mut self.snapshot {
            *left = left.checked_sub(1)?;
        }
        self.waiting.pop()
    }

    /// Whether anything is to be sent before the end of a snapshot, or at all.
    fn has_more(&self) -> bool {
        match self.snapshot {
            Snapshot::Running { left } => left > 0,
            Snapshot::Needed | Snapshot::Ended { .. } => self.waiting.len() > 0,
        }
    }

    fn number(&mut self, keys: Vec<Waiting<K>>, since: Duration) -> u64 {
        let number = self.next;
        self.next += 1;
        self.flight.push_back(Sent {
            number,
            keys,
            since,
        });
        number
    }

    /// Takes in that the peer has taken in everything up to a number.
    pub fn handle_ack(&mut self, number: u64, at: Duration) {
        while self
            .flight
            .front()
            .is_some_and(|sent| sent.number <= number)
        {
            let keys = self.flight.pop_front().map(|sent| sent.keys);
            for made in keys.iter().flatten().filter_map(|waiting| waiting.made) {
                self.lags.note(at, at.saturating_sub(made));
            }
        }
        if let Snapshot::Ended {
            number: end,
            acknowledged,
        } = &mut self.snapshot
        {
            *acknowledged |= number >= *end;
        }
    }

    /// Whether the peer is there and has all but what is under way.
    #[must_use]
    pub const fn is_in_sync(&self) -> bool {
        let has_all = matches!(
            self.snapshot,
            Snapshot::Ended {
                acknowledged: true,
                ..
            }
        );
        self.is_linked && has_all
    }

    /// For how long the oldest thing is known here that the peer is not known to have.
    #[must_use]
    pub fn lag(&self, at: Duration) -> Duration {
        let sent = self.flight.iter().map(|sent| sent.since).min();
        let oldest = sent.into_iter().chain(self.waiting.oldest()).min();
        oldest.map_or(Duration::ZERO, |since| at.saturating_sub(since))
    }

    /// How long those that are measured have taken to be at the peer, over the last minute.
    #[must_use]
    pub fn lags(&self, at: Duration) -> Quantiles {
        self.lags.quantiles(at)
    }

    /// How many of those wait or are under way.
    #[must_use]
    pub fn unacknowledged(&self) -> usize {
        let sent = self.flight.iter().flat_map(|sent| &sent.keys);
        let sent = sent.filter(|waiting| waiting.made.is_some()).count();
        sent + self.waiting.measured()
    }

    /// How many entries the peer is not known to have as they are.
    #[must_use]
    pub fn pending(&self) -> usize {
        let under_way: usize = self.flight.iter().map(|sent| sent.keys.len()).sum();
        match self.snapshot {
            Snapshot::Needed => self.entries.len(),
            Snapshot::Running { .. } | Snapshot::Ended { .. } => self.waiting.len() + under_way,
        }
    }

    #[cfg(test)]
    pub(super) fn queue_length(&self) -> usize {
        self.waiting.len()
    }

    /// How many entries the peer should have.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.entries.len()
    }
}
