use std::collections::BTreeSet;

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::codec::packet::{AckKind, PacketId};

fn frame(to: u16, sequence: u64) -> Need {
    Need::Frame {
        to: ShardId(to),
        sequence,
    }
}

fn needs(list: &[Need]) -> Needs {
    let mut needs = Needs::default();
    list.iter().for_each(|need| needs.add(*need));
    needs
}

fn ack(id: u16) -> Ack {
    Ack {
        kind: AckKind::PubAck,
        id: PacketId::new(id).unwrap(),
        reason: 0,
    }
}

const ME: Waiter = Waiter::Session(7);

#[test]
fn message_that_needs_nobody_has_no_receipt() {
    let mut ledger = Ledger::default();
    assert!(ledger.open(&Needs::default()).is_none());
    assert!(!Acks::default().must_wait(None));
}

#[test]
fn receipt_is_complete_when_the_last_need_is_met() {
    let mut ledger = Ledger::default();
    let (one, two) = (frame(1, 5), frame(2, 1));
    let receipt = ledger.open(&needs(&[one, two, one])).unwrap();
    receipt.tell(ME);
    assert!(ledger.confirm(frame(1, 4)).is_empty());
    assert!(ledger.confirm(one).is_empty());
    assert!(ledger.confirm(one).is_empty());
    assert!(!receipt.is_complete());
    assert_eq!(ledger.confirm(two), [ME]);
    assert!(receipt.is_complete() && ledger.is_empty());
}

#[test]
fn messages_of_the_same_frames_share_a_receipt() {
    let mut ledger = Ledger::default();
    let first = ledger.open(&needs(&[frame(1, 1), frame(2, 1)])).unwrap();
    let second = ledger.open(&needs(&[frame(1, 1), frame(2, 1)])).unwrap();
    let third = ledger.open(&needs(&[frame(1, 2), frame(2, 1)])).unwrap();
    assert!(Rc::ptr_eq(&first, &second) && !Rc::ptr_eq(&second, &third));
    ledger.confirm(frame(2, 1));
    ledger.confirm(frame(1, 1));
    assert!(first.is_complete() && !third.is_complete());
}

#[test]
fn frames_are_confirmed_in_any_order() {
    let mut ledger = Ledger::default();
    let earlier = ledger.open(&needs(&[frame(1, 1)])).unwrap();
    let later = ledger.open(&needs(&[frame(1, 2)])).unwrap();
    ledger.confirm(frame(1, 2));
    assert!(later.is_complete() && !earlier.is_complete());
}

#[test]
fn answer_that_could_be_given_waits_for_those_before_it() {
    let mut ledger = Ledger::default();
    let mut acks = Acks::default();
    let receipt = ledger.open(&needs(&[frame(1, 1)]));
    assert!(acks.must_wait(receipt.as_ref()));
    acks.push(ack(1), receipt, ME);
    assert!(acks.must_wait(None));
    acks.push(ack(2), None, ME);
    assert_eq!(acks.pop(ME), None);
    assert_eq!(ledger.confirm(frame(1, 1)), [ME]);
    assert_eq!([acks.pop(ME), acks.pop(ME)], [Some(ack(1)), Some(ack(2))]);
    assert_eq!(acks.pop(ME), None);
    assert!(!acks.must_wait(None));
}

/// What happens to one connection, whose messages leave for three shards.
#[derive(Clone, Debug)]
enum Event {
    /// A message for the shards in this set.
    Publish(u8),
    /// The open frame for this shard leaves.
    Flush(usize),
    /// One of the frames that left is taken, not always the oldest.
    Take(prop::sample::Index),
    /// The connection is told though there is nothing new, as a session's number is used again.
    Tell,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (0..8_u8).prop_map(Event::Publish),
        2 => (0..3_usize).prop_map(Event::Flush),
        3 => any::<prop::sample::Index>().prop_map(Event::Take),
        1 => Just(Event::Tell),
    ]
}

#[derive(Default)]
struct World {
    ledger: Ledger,
    acks: Acks,
    open: [u64; 3],
    on_their_way: Vec<Need>,
    confirmed: BTreeSet<Need>,
    published: Vec<Vec<Need>>,
    answered: usize,
}

impl World {
    fn publish(&mut self, shards: u8) {
        let to = (0..3).filter(|shard| shards & (1 << shard) != 0);
        let list: Vec<_> = to
            .map(|shard| frame(shard, self.open[usize::from(shard)]))
            .collect();
        self.published.push(list.clone());
        let receipt = self.ledger.open(&needs(&list));
        let id = u16::try_from(self.published.len()).unwrap();
        if self.acks.must_wait(receipt.as_ref()) {
            self.acks.push(ack(id), receipt, ME);
        } else {
            self.answer(ack(id));
        }
    }

    fn flush(&mut self, shard: usize) {
        let to = u16::try_from(shard).unwrap();
        self.on_their_way.push(frame(to, self.open[shard]));
        self.open[shard] += 1;
    }

    fn take(&mut self, need: Need) {
        self.confirmed.insert(need);
        for waiter in self.ledger.confirm(need) {
            assert_eq!(waiter, ME);
            self.release();
        }
    }

    fn release(&mut self) {
        while let Some(ack) = self.acks.pop(ME) {
            self.answer(ack);
        }
    }

    /// In order, and not before everyone has confirmed.
    fn answer(&mut self, ack: Ack) {
        assert_eq!(usize::from(ack.id.get()), self.answered + 1);
        let needs = &self.published[self.answered];
        assert!(needs.iter().all(|need| self.confirmed.contains(need)));
        self.answered += 1;
    }
}

proptest! {
    #[test]
    fn each_message_is_answered_once_in_order_and_when_all_have_it(events in vec(event(), 0..200)) {
        let mut world = World::default();
        for event in events {
            match event {
                Event::Publish(shards) => world.publish(shards),
                Event::Flush(shard) => world.flush(shard),
                Event::Take(index) if !world.on_their_way.is_empty() => {
                    let need = world.on_their_way.swap_remove(index.index(world.on_their_way.len()));
                    world.take(need);
                }
                Event::Take(_) => {}
                Event::Tell => world.release(),
            }
        }
        (0..3).for_each(|shard| world.flush(shard));
        for need in std::mem::take(&mut world.on_their_way) {
            world.take(need);
        }
        prop_assert_eq!(world.answered, world.published.len());
        prop_assert!(world.ledger.is_empty() && world.acks.is_empty());
    }
}
