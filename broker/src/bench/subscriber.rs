//! One subscribing client: acknowledges, counts and times what arrives.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::{
    codec::{Ack, AckKind, Publish, Qos, Version, ack, subscribe},
    payload::{Source, Stamp, wall_clock},
    plan::{Identity, Plan, SubscribeTask},
    sequence::{Seen, Sequence},
    tally::Tally,
    template::expand,
};

/// The packet id of the one SUBSCRIBE a client sends.
const SUBSCRIBE_ID: u16 = 1;

/// What has arrived from each publisher.
pub(super) type Sequences = HashMap<Source, Sequence>;

/// A client's subscriptions and what they brought, across all its connections.
#[derive(Debug)]
pub(super) struct Subscriber {
    tally: Arc<Tally>,
    number: u32,
    version: Version,
    filters: Vec<String>,
    qos: Qos,
    seen: Seens,
    /// QoS 2 messages received and not yet released.
    unreleased: BTreeSet<u16>,
}

#[derive(Debug)]
enum Seens {
    Own(Sequences),
    /// Members of a shared subscription each get a part of a publisher's messages.
    Group(Arc<Mutex<Sequences>>),
}

impl Subscriber {
    pub(super) fn new(
        plan: &Plan,
        task: &SubscribeTask,
        identity: &Identity,
        tally: Arc<Tally>,
        group: &Arc<Mutex<Sequences>>,
    ) -> Self {
        let filters: Vec<String> = task
            .topics
            .iter()
            .map(|filter| expand(filter, identity.names()))
            .collect();
        let shared = filters
            .iter()
            .any(|f| f.starts_with("$share/") || f.starts_with("$queue/"));
        Self {
            tally,
            number: identity.number,
            version: plan.version(),
            filters,
            qos: task.qos,
            seen: if shared {
                Seens::Group(Arc::clone(group))
            } else {
                Seens::Own(Sequences::new())
            },
            unreleased: BTreeSet::new(),
        }
    }

    pub(super) fn resume(&mut self, out: &mut Vec<u8>, session_present: bool) {
        if !session_present {
            self.unreleased.clear();
        }
        subscribe(out, self.version, SUBSCRIBE_ID, &self.filters, self.qos);
    }

    pub(super) fn handle_publish(&mut self, packet: &Publish<'_>, out: &mut Vec<u8>, now: Instant) {
        match packet.qos {
            Qos::Zero => {}
            Qos::One => ack(out, AckKind::Ack, packet.packet_id),
            Qos::Two => {
                ack(out, AckKind::Rec, packet.packet_id);
                if !self.unreleased.insert(packet.packet_id) {
                    // Sent again because the server missed our PUBREC: the same message.
                    return;
                }
            }
        }
        self.tally.received.add(1);
        self.tally.messages.touch(now);
        // A retained message is from before the subscription: it says nothing about gaps.
        if packet.retain {
            return;
        }
        if let Some(stamp) = Stamp::read(packet.payload) {
            let took = Duration::from_nanos(wall_clock().saturating_sub(stamp.sent));
            self.tally.latency.record(self.number, took);
            self.observe(&stamp);
        }
    }

    pub(super) fn handle_pubrel(&mut self, packet: Ack, out: &mut Vec<u8>) {
        self.unreleased.remove(&packet.packet_id);
        ack(out, AckKind::Comp, packet.packet_id);
    }

    /// Notes what this client did not get, once it gets nothing more. Of a group's messages nobody
    /// knows before all have ended.
    pub(super) fn tell_missing(&self) {
        if let Seens::Own(sequences) = &self.seen {
            self.tally.missing.note(Some(self.number), sequences);
        }
    }

    fn observe(&mut self, stamp: &Stamp) {
        let seen = match &mut self.seen {
            Seens::Own(sequences) => observe(sequences, stamp),
            Seens::Group(group) => observe(
                &mut group.lock().unwrap_or_else(PoisonError::into_inner),
                stamp,
            ),
        };
        match seen {
            Seen::InOrder => {}
            Seen::Skipped(count) => self.tally.gaps.add(count),
            Seen::Late => self.tally.gaps.subtract(1),
            Seen::Duplicate => self.tally.duplicates.add(1),
        }
    }
}

fn observe(sequences: &mut Sequences, stamp: &Stamp) -> Seen {
    sequences
        .entry(stamp.source)
        .or_default()
        .observe(stamp.sequence)
}
