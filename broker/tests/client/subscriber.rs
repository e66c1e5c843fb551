//! What one client receives.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, ErrorKind},
    time::{Duration, Instant},
};

use super::{
    Story, Taken, Tie, Way,
    line::{Line, Packet, Start, answer},
};

/// What one client receives.
pub(crate) struct Subscriber {
    tie: Tie,
    filters: Vec<(String, u8)>,
    /// When it last asked whether the broker is there.
    asked: Instant,
    inbox: Inbox,
}

#[derive(Default)]
struct Inbox {
    is_subscribed: bool,
    /// Messages of QoS 2 that await their PUBREL.
    pending: BTreeSet<u16>,
    /// How often each message came, by topic.
    received: BTreeMap<String, BTreeMap<u64, u32>>,
}

impl Subscriber {
    pub(crate) fn new(way: impl Into<Way>, name: &str, filters: &[(&str, u8)]) -> Self {
        let filters = filters.iter();
        let filters = filters.map(|(filter, qos)| ((*filter).to_owned(), *qos));
        Self {
            tie: Tie::new(way, name),
            filters: filters.collect(),
            asked: Instant::now(),
            inbox: Inbox::default(),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.tie.client_id
    }

    pub(crate) fn is_subscribed(&self) -> bool {
        self.inbox.is_subscribed
    }

    pub(crate) fn story(&self) -> &Story {
        &self.tie.story
    }

    /// Which messages have come to none of these subscribers that are for each of them, or for their
    /// group.
    pub(crate) fn lost_by_all(subscribers: &[&Self], taken: &Taken) -> Vec<(String, u64)> {
        let mut lost = Vec::new();
        for (topic, numbers) in taken {
            let wanting = subscribers.iter().filter(|one| one.wants(topic));
            let received: Vec<_> = wanting.map(|one| one.inbox.received.get(topic)).collect();
            let has_come = |number: &u64| {
                let all = received.iter().flatten();
                received.is_empty() || all.into_iter().any(|all| all.contains_key(number))
            };
            let numbers = numbers.iter().filter(|number| !has_come(number));
            lost.extend(numbers.map(|number| (topic.clone(), *number)));
        }
        lost
    }

    /// Which of these messages are its own and have not come.
    pub(crate) fn lost(&self, taken: &Taken) -> Vec<(String, u64)> {
        Self::lost_by_all(&[self], taken)
    }

    fn wants(&self, topic: &str) -> bool {
        let mut filters = self.filters.iter();
        filters.any(|(filter, _qos)| {
            let filter = filter.strip_prefix("$share/g/").unwrap_or(filter);
            match filter.strip_suffix('+') {
                Some(prefix) => topic.starts_with(prefix),
                None => topic == filter,
            }
        })
    }

    /// How many messages of this topic have come.
    pub(crate) fn count(&self, topic: &str) -> usize {
        self.inbox.received.get(topic).map_or(0, BTreeMap::len)
    }

    /// How many messages of such topics came more than once.
    pub(crate) fn repeats(&self, prefix: &str) -> usize {
        let topics = self.inbox.received.iter();
        let topics = topics.filter(|(topic, _)| topic.starts_with(prefix));
        let counts = topics.flat_map(|(_topic, messages)| messages.values());
        counts.filter(|count| **count > 1).count()
    }

    /// Leaves as if the network had failed.
    pub(crate) fn leave(&mut self) {
        self.tie.leave();
    }

    /// Ends the session: what waits there is for other members of its groups.
    pub(crate) fn end_session(&mut self) {
        let is_present = self.tie.open(Start::Clean);
        assert!(!is_present);
        self.leave();
        self.tie.has_session = false;
        self.inbox.is_subscribed = false;
        self.inbox.pending.clear();
    }

    /// Takes what comes for a while.
    pub(crate) fn turn(&mut self, patience: Duration) {
        self.tie.renew();
        if self.exchange(patience).is_err() {
            self.tie.line = None;
        }
    }

    fn exchange(&mut self, patience: Duration) -> io::Result<()> {
        let until = Instant::now() + patience;
        let Some(line) = &mut self.tie.line else {
            return Ok(());
        };
        if !self.inbox.is_subscribed {
            let filters = self.filters.iter();
            line.subscribe(1, filters.map(|(filter, qos)| (&**filter, *qos)))?;
        }
        let limit = self.tie.way.patience;
        while Instant::now() < until {
            let Some(line) = &mut self.tie.line else {
                break;
            };
            if let Some(packet) = line.next(Duration::from_millis(2))? {
                self.inbox.take(line, &packet)?;
                self.tie.hear();
                continue;
            }
            let silence = self
                .tie
                .heard
                .map_or(Duration::ZERO, |heard| heard.elapsed());
            if silence > limit {
                return Err(ErrorKind::TimedOut.into());
            }
            if silence > limit / 4 && self.asked.elapsed() > limit / 4 {
                self.asked = Instant::now();
                line.send(&[0xc0, 0])?;
            }
        }
        Ok(())
    }
}

impl Inbox {
    fn take(&mut self, line: &mut Line, packet: &Packet) -> io::Result<()> {
        match packet.first {
            0x90 => self.is_subscribed = true,
            0xd0 => {}
            0x62 => {
                self.pending.remove(&packet.id());
                line.send(&answer(0x70, packet.id()))?;
            }
            other => {
                let Some(message) = line.decode(packet) else {
                    panic!("packet {other:#x}");
                };
                let number = message.payload.try_into().map(u64::from_be_bytes);
                let number = number.expect("a message is a number");
                if message.qos == 1 || self.pending.insert(message.id) {
                    let messages = self.received.entry(message.topic.to_owned());
                    *messages.or_default().entry(number).or_default() += 1;
                }
                let first = if message.qos == 1 { 0x40 } else { 0x50 };
                line.send(&answer(first, message.id))?;
            }
        }
        Ok(())
    }
}
