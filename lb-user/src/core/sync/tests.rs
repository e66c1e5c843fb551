//! Both ends on a link that may break at any point.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use lb_common::abi::Tick;
use proptest::prelude::*;

use super::message::{Answer, Hello, Item, Malformed, Message, Refusal, VERSION, decode, encode};
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
        let at = self.now().at;
        self.sender.begin_walk();
        for (&key, &value) in &self.source {
            self.sender.offer(key, value, at);
        }
        self.sender.end_walk(at);
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
        self.sender.handle_ack(number);
        true
    }

    /// Until nothing is left to do.
    fn settle(&mut self) {
        self.connect();
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
    Walk,
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
        6 => Just(Event::Walk),
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
        Event::Walk => link.walk(),
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

#[test]
fn nodes_that_do_not_fit_together_say_why() {
    let hello = Hello {
        version: VERSION,
        seed: 5,
        node: 1,
    };
    let other = Hello { node: 2, ..hello };
    assert_eq!(hello.refusal(&other), None);
    assert_eq!(hello.refusal(&hello), Some(Refusal::Itself));
    let sown = Hello { seed: 6, ..other };
    assert_eq!(hello.refusal(&sown), Some(Refusal::Seed));
    let newer = Hello {
        version: VERSION + 1,
        ..other
    };
    let refusal = newer.refusal(&hello).unwrap();
    assert_eq!(refusal, Refusal::Version(VERSION));
    assert!(refusal.to_string().contains("same release"));
}

#[test]
fn bytes_behind_a_message_are_an_error() {
    let mut bytes = encode(&Wire::Beat).unwrap();
    assert!(decode::<Wire>(&bytes).is_ok());
    bytes.push(0);
    assert!(decode::<Wire>(&bytes).is_err());
    // A length that no message has takes no memory.
    let claims_much = [1, 1, 1, 0xff, 0xff, 0xff, 0xff, 0x0f];
    assert!(decode::<Message<u8, HashMap<u8, u8>>>(&claims_much).is_err());
}
