//! Both ends on a link that may break at any point.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use lb_common::abi::Tick;
use proptest::prelude::*;

use super::message::{Answer, Item, Malformed, Message, decode, encode};
use super::receiver::{Receiver, Step, Violation};
use super::sender::{Now, Sender, Value};

type Wire = Message<u8, u32>;

impl Value for u32 {
    fn outdates(&self, sent: &Self) -> bool {
        self != sent
    }

    fn size(&self) -> usize {
        // Few to a message, so that there are many.
        8_000
    }

    fn is_measured(&self) -> bool {
        true
    }
}

/// Two ends, what is under way between them, and what each has.
struct Link {
    sender: Sender<u8, u32>,
    receiver: Receiver<u8>,
    /// What is on the wire, in each direction.
    forth: VecDeque<Wire>,
    back: VecDeque<Answer>,
    is_up: bool,
    source: BTreeMap<u8, u32>,
    /// What a walk has met that began at a time, and goes on.
    met: Option<(Duration, BTreeMap<u8, u32>)>,
    /// What is left to take in of one.
    taken: Option<(Duration, BTreeMap<u8, u32>)>,
    copy: BTreeMap<u8, u32>,
    clock: u64,
    snapshots: usize,
}

impl Link {
    fn new(backlog: usize) -> Self {
        Self {
            sender: Sender::new(7).with_backlog(backlog),
            receiver: Receiver::new(256),
            forth: VecDeque::new(),
            back: VecDeque::new(),
            is_up: false,
            source: BTreeMap::new(),
            met: None,
            taken: None,
            copy: BTreeMap::new(),
            clock: 0,
            snapshots: 0,
        }
    }

    fn now(&mut self) -> Now {
        self.clock += 1;
        Now {
            at: Duration::from_secs(self.clock),
            tick: Tick(u32::try_from(self.clock).unwrap()),
        }
    }

    fn walk(&mut self) {
        self.begin_walk();
        while self.take_in() {}
    }

    /// Meets everything, but what it was like is told later.
    fn begin_walk(&mut self) {
        let at = self.now().at;
        self.met.get_or_insert_with(|| (at, self.source.clone()));
    }

    /// Takes in a part of what was met; says whether there was any.
    fn take_in(&mut self) -> bool {
        if self.taken.is_none() {
            let begun = self.met.take();
            self.taken = begun.inspect(|(at, _)| self.sender.begin_walk(*at));
        }
        let Some((at, met)) = &mut self.taken else {
            return false;
        };
        for _entry in 0..5 {
            let Some((key, value)) = met.pop_first() else {
                self.sender.end_walk(*at);
                self.taken = None;
                break;
            };
            self.sender.offer(key, value, *at);
        }
        true
    }

    /// Something new is reported at once.
    fn announce(&mut self, key: u8, value: u32) {
        self.source.insert(key, value);
        let (made, met) = (self.now().at, self.now().at);
        self.sender.announce(key, value, made, met);
    }

    fn connect(&mut self) {
        if !self.is_up {
            self.is_up = true;
            self.sender.link(self.receiver.standing());
        }
    }

    /// What is on the wire is lost.
    fn disconnect(&mut self) {
        self.is_up = false;
        self.forth.clear();
        self.back.clear();
        self.sender.unlink();
        self.receiver.unlink();
    }

    fn send(&mut self) -> bool {
        let now = self.now();
        let message = self.sender.poll(now);
        let has_sent = message.is_some();
        self.forth.extend(message);
        has_sent
    }

    fn receive(&mut self) -> bool {
        let Some(message) = self.forth.pop_front() else {
            return false;
        };
        // As its bytes.
        let message: Wire = decode(&encode(&message).unwrap()).unwrap();
        let number = match message {
            Message::Begin { number, .. } => {
                self.snapshots += 1;
                number
            }
            Message::Items { number, .. } | Message::End { number } => number,
            Message::Beat => return true,
        };
        match self.receiver.handle(message).unwrap() {
            Step::Apply(_, items) => {
                for item in items {
                    match item {
                        Item::Put(key, value) => drop(self.copy.insert(key, value)),
                        Item::Remove(key) => drop(self.copy.remove(&key)),
                    }
                }
            }
            Step::Retain(named) => self.copy.retain(|key, _| named.contains(key)),
            Step::Nothing => {}
        }
        self.back.push_back(Answer::Ack(number));
        true
    }

    fn acknowledge(&mut self) -> bool {
        let Some(Answer::Ack(number)) = self.back.pop_front() else {
            return false;
        };
        let at = self.now().at;
        self.sender.handle_ack(number, at);
        true
    }

    /// Until nothing is left to do.
    fn settle(&mut self) {
        self.connect();
        while self.take_in() {}
        self.walk();
        while self.send() || self.receive() || self.acknowledge() {}
    }

    fn assert_equal(&self) {
        assert_eq!(self.copy, self.source);
        assert!(self.sender.is_in_sync() && self.receiver.is_whole());
        assert_eq!(self.sender.pending(), 0);
    }
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Set(u8, u32),
    Unset(u8),
    Announce(u8, u32),
    BeginWalk,
    TakeIn,
    Connect,
    Disconnect,
    Send,
    Receive,
    Acknowledge,
    /// The receiver starts anew, with or without what it had.
    ForgetAll,
    ForgetStream,
    /// The sender is responsible for others.
    Clear,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (0..40_u8, any::<u32>()).prop_map(|(key, value)| Event::Set(key, value)),
        4 => (0..40_u8).prop_map(Event::Unset),
        4 => (0..40_u8, any::<u32>()).prop_map(|(key, value)| Event::Announce(key, value)),
        6 => Just(Event::BeginWalk),
        12 => Just(Event::TakeIn),
        4 => Just(Event::Connect),
        1 => Just(Event::Disconnect),
        12 => Just(Event::Send),
        12 => Just(Event::Receive),
        12 => Just(Event::Acknowledge),
        1 => Just(Event::ForgetAll),
        1 => Just(Event::ForgetStream),
        1 => Just(Event::Clear),
    ]
}

fn carry_out(link: &mut Link, event: Event) {
    match event {
        Event::Set(key, value) => drop(link.source.insert(key, value)),
        Event::Unset(key) => drop(link.source.remove(&key)),
        Event::Announce(key, value) => link.announce(key, value),
        Event::BeginWalk => link.begin_walk(),
        Event::TakeIn => drop(link.take_in()),
        Event::Connect => link.connect(),
        Event::Disconnect => link.disconnect(),
        Event::Send => drop(link.send()),
        Event::Receive => drop(link.receive()),
        Event::Acknowledge => drop(link.acknowledge()),
        Event::ForgetAll => {
            link.disconnect();
            link.receiver.forget();
            link.copy.clear();
        }
        Event::ForgetStream => {
            link.disconnect();
            link.receiver.forget();
        }
        Event::Clear => {
            link.source.clear();
            link.met = None;
            link.taken = None;
            link.sender.clear();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_receiver_ends_equal_whatever_breaks(
        events in proptest::collection::vec(event(), 0..200),
        backlog in prop_oneof![Just(2_usize), Just(1_000)],
    ) {
        let mut link = Link::new(backlog);
        for event in events {
            carry_out(&mut link, event);
        }
        link.settle();
        link.assert_equal();
        // A second walk finds nothing to say.
        link.walk();
        prop_assert!(!link.send());
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut receiver: Receiver<u8> = Receiver::new(4);
        let message: Result<Wire, Malformed> = decode(&bytes);
        if let Ok(message) = message {
            let _verdict = receiver.handle(message);
        }
    }
}

#[test]
fn a_short_break_costs_no_snapshot() {
    let mut link = Link::new(1_000);
    link.source = (0..20).map(|key| (key, 1)).collect();
    link.settle();
    assert_eq!(link.snapshots, 1);
    // Some is under way, some was taken in and its acknowledgement lost.
    link.source.extend((5..15).map(|key| (key, 2)));
    link.source.remove(&3);
    link.walk();
    for _ in 0..3 {
        link.send();
    }
    link.receive();
    link.disconnect();
    link.source.insert(30, 3);
    link.settle();
    link.assert_equal();
    assert_eq!(link.snapshots, 1);
}

#[test]
fn what_is_too_much_for_the_backlog_becomes_a_snapshot() {
    let mut link = Link::new(5);
    link.source = (0..20).map(|key| (key, 1)).collect();
    link.settle();
    link.disconnect();
    link.source = (10..40).map(|key| (key, 2)).collect();
    link.walk();
    assert!(link.sender.queue_length() <= 6);
    link.settle();
    link.assert_equal();
    assert_eq!(link.snapshots, 2);
}

#[test]
fn what_changes_while_it_waits_is_sent_once() {
    let mut link = Link::new(1_000);
    link.settle();
    for value in 0..100 {
        link.source.insert(1, value);
        link.walk();
    }
    let now = link.now();
    let sent = link.sender.poll(now).unwrap();
    let Message::Items { items, .. } = sent else {
        panic!("{sent:?}");
    };
    assert_eq!(items, [Item::Put(1, 99)]);
    let now = link.now();
    assert_eq!(link.sender.poll(now), None);
}

#[test]
fn the_sender_waits_for_acknowledgements() {
    let mut link = Link::new(1_000);
    link.source = (0..100).map(|key| (key, 1)).collect();
    link.connect();
    link.walk();
    let sent = std::iter::from_fn(|| link.send().then_some(())).count();
    assert_eq!(sent, 8);
    assert!(!link.sender.is_in_sync());
    assert!(link.receive() && link.acknowledge());
    assert!(link.send() && !link.send());
}

#[test]
fn lag_is_the_age_of_what_the_peer_is_not_known_to_have() {
    let mut link = Link::new(1_000);
    link.settle();
    let later = |link: &mut Link| {
        link.clock += 10;
        link.sender.lag(Duration::from_secs(link.clock))
    };
    assert_eq!(later(&mut link), Duration::ZERO);
    link.source.insert(1, 1);
    link.walk();
    assert_eq!(later(&mut link), Duration::from_secs(10));
    link.send();
    assert!(later(&mut link) > Duration::from_secs(20));
    assert!(link.receive() && link.acknowledge());
    assert_eq!(later(&mut link), Duration::ZERO);
}

#[test]
fn what_is_announced_goes_before_the_rest() {
    let mut link = Link::new(1_000);
    link.settle();
    link.source = (0..30).map(|key| (key, 1)).collect();
    link.walk();
    link.announce(77, 1);
    link.send();
    link.receive();
    assert!(link.copy.contains_key(&77) && link.copy.len() < 30);
    // In a snapshot as well.
    link.sender.restart();
    assert!(link.send() && link.send());
    link.announce(78, 1);
    link.send();
    while link.receive() {}
    assert!(link.copy.contains_key(&78) && !link.receiver.is_whole());
    link.settle();
    link.assert_equal();
}

#[test]
fn a_walk_takes_back_nothing_that_was_announced_since_it_began() {
    let mut link = Link::new(1_000);
    link.source.insert(2, 1);
    link.settle();
    link.begin_walk();
    link.announce(1, 1);
    link.announce(2, 2);
    while link.take_in() {}
    while link.send() || link.receive() || link.acknowledge() {}
    link.assert_equal();
    // What has gone since is found by the next one.
    link.source.remove(&1);
    link.settle();
    link.assert_equal();
}

#[test]
fn a_snapshot_is_of_a_whole_walk() {
    let mut link = Link::new(1_000);
    link.source = (0..20).map(|key| (key, 1)).collect();
    link.copy = link.source.clone();
    link.connect();
    assert!(!link.send(), "nothing is known yet");
    link.begin_walk();
    for _part in 0..3 {
        link.take_in();
        while link.send() || link.receive() || link.acknowledge() {}
        assert_eq!(link.copy, link.source, "the peer has forgotten some");
    }
    link.settle();
    link.assert_equal();
}

#[test]
fn lags_are_those_of_what_is_new() {
    let mut link = Link::new(1_000);
    link.source = (0..20).map(|key| (key, 1)).collect();
    link.settle();
    link.source.insert(3, 2);
    link.settle();
    let lags = |link: &Link| link.sender.lags(Duration::from_secs(link.clock));
    assert_eq!(lags(&link).count, 0, "a snapshot and changes are not new");
    link.announce(30, 1);
    link.announce(31, 1);
    link.source.insert(32, 1);
    link.walk();
    assert_eq!(link.sender.unacknowledged(), 3);
    link.send();
    assert_eq!(link.sender.unacknowledged(), 3);
    // They are sent again.
    link.disconnect();
    link.connect();
    assert_eq!(link.sender.unacknowledged(), 3);
    let now = link.clock;
    while link.send() || link.receive() || link.acknowledge() {}
    assert_eq!(link.sender.unacknowledged(), 0);
    let found = lags(&link);
    assert_eq!(found.count, 3);
    assert!(
        found.max <= Duration::from_secs(link.clock - now + 8),
        "{found:?}"
    );
    assert!(found.p50 >= Duration::from_secs(3), "{found:?}");
}

#[test]
fn a_message_that_is_not_the_next_one_changes_nothing() {
    let mut receiver: Receiver<u8> = Receiver::new(2);
    let items = |number, keys: &[u8]| Wire::Items {
        number,
        now: 0,
        items: keys.iter().map(|key| Item::Put(*key, 0)).collect(),
    };
    assert_eq!(receiver.handle(items(1, &[1])), Err(Violation::NoSnapshot));
    let begin = Wire::Begin {
        stream: 1,
        number: 4,
    };
    assert_eq!(receiver.handle(begin), Ok(Step::Nothing));
    for found in [4, 6, u64::MAX] {
        let expected = 5;
        assert_eq!(
            receiver.handle(items(found, &[1])),
            Err(Violation::Gap { expected, found })
        );
    }
    assert!(receiver.handle(items(5, &[1])).is_ok());
    assert_eq!(
        receiver.handle(items(6, &[2, 3])),
        Err(Violation::TooMany { limit: 2 })
    );
    let end = Wire::End { number: 6 };
    assert_eq!(receiver.handle(end), Ok(Step::Retain([1].into())));
    assert_eq!(receiver.standing().map(|it| it.applied), Some(6));
    let end = Wire::End { number: 7 };
    assert_eq!(receiver.handle(end), Err(Violation::NoSnapshot));
}

#[test]
fn a_snapshot_that_was_cut_off_is_not_built_on() {
    let mut receiver: Receiver<u8> = Receiver::new(2);
    let begin = Wire::Begin {
        stream: 1,
        number: 1,
    };
    receiver.handle(begin).unwrap();
    receiver.unlink();
    assert_eq!(receiver.standing(), None);
}
