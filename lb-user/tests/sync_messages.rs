//! Two million damaged messages of the sync channel, the same in every run: none panics, what is
//! understood reads the same when it is sent again, what cannot be next changes nothing, what is taken
//! in is of this node: its services, backends, and NAT ports; and memory does not grow.
//!
//! Such bytes come only from a peer that has the key; who has none does not get so far
//! (tests of `channel`).

#[path = "support/memory.rs"]
mod memory;
#[path = "../../lb-common/tests/fuzz/mutate.rs"]
mod mutate;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::thread;

use lb_common::abi::{
    Balance, FlowKey, FlowState, Forward, Ip, NatPool, NextHop, PROTOCOL_TCP, ServiceKey, Tick,
};
use lb_user::config::model::Limits;
use lb_user::core::image::MapImage;
use lb_user::core::plan::{self, Desired, DesiredBackend, DesiredService, Moment};
use lb_user::core::sync::message::{decode, encode};
use lb_user::core::sync::names::{Names, Refused};
use lb_user::core::sync::record::{
    BackendName, FlowName, FlowRecord, Key, REFRESH, Record, ServiceName, SlotTable, Translation,
};
use lb_user::core::sync::{Item, Message, Receiver, Step};

use mutate::Mutator;

const INPUTS: u32 = 2_000_000;
/// The most that a snapshot may name: few, so that some name more.
const LIMIT: usize = 24;
/// The ports of NAT.
const PORTS: std::ops::RangeInclusive<u16> = 1_024..=2_047;

type Wire = Message<Key, Record>;

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn service(vip: &str) -> ServiceName {
    ServiceName {
        vip: ip(vip),
        port: 1883,
        protocol: PROTOCOL_TCP,
    }
}

/// A node that stands by for the first two of these services.
fn names() -> (MapImage, Names) {
    let hop = NextHop {
        interface: 3,
        mac: [1; 6],
        source_mac: [2; 6],
    };
    let services = [
        ("10.2.0.1", "10.3.0.7", Forward::Dsr),
        ("10.2.0.2", "10.3.0.8", Forward::Nat),
        ("10.2.0.3", "10.3.0.9", Forward::Dsr),
    ];
    let services = services.map(|(vip, backend, forward)| {
        let key = ServiceKey::from(service(vip));
        let backend = DesiredBackend::new(ip(backend).into(), 1883, 1, Some(hop));
        DesiredService {
            backends: vec![backend],
            ..DesiredService::new(key, Balance::RoundRobin, forward)
        }
    });
    let desired = Desired {
        services: services.into(),
        nat_pool: NatPool::new(&[Ip::from(ip("10.2.1.1"))], *PORTS.start(), *PORTS.end()),
        ..Desired::nothing(Limits {
            services: 4,
            backends: 8,
            flows: 64,
            half_open: 64,
            fragments: 1,
            access_entries: 1,
            sources: 1,
        })
    };
    let image = plan::next(&MapImage::empty(), &desired, Moment::at(Tick(0)));
    let standby = ["10.2.0.1", "10.2.0.2"].map(ip).into();
    let names = Names::new(&image, standby);
    (image, names)
}

fn flow(
    vip: &str,
    client: u8,
    backend: &str,
    translation: Option<Translation>,
) -> Item<Key, Record> {
    let name = FlowName {
        service: service(vip),
        client: IpAddr::from([10, 1, 0, client]),
        port: 40_000,
    };
    let record = FlowRecord {
        backend: BackendName {
            address: ip(backend),
            port: 1883,
        },
        state: FlowState::Established as u8,
        keep_alive: 60,
        seen: 500,
        sequence: 77,
        translation: translation.map(Box::new),
    };
    Item::Put(Key::Flow(name), Record::Flow(record))
}

/// What a peer says.
fn corpus() -> Vec<Vec<u8>> {
    let translation = Translation {
        source: ip("10.2.1.1"),
        port: 1_500,
        client: [2; 6],
    };
    let translated = |client| flow("10.2.0.2", client, "10.3.0.8", Some(translation.clone()));
    let plain = |client| flow("10.2.0.1", client, "10.3.0.7", None);
    let unknown = |client| flow("10.2.0.3", client, "10.3.0.9", None);
    let slots = Key::Slots(service("10.2.0.1"));
    let keep_alive = Key::KeepAlive(service("10.2.0.1"));
    let gone = Key::Flow(FlowName {
        service: service("10.2.0.1"),
        client: ip("10.1.0.1"),
        port: 40_000,
    });
    let batches = [
        vec![plain(1)],
        vec![plain(1), translated(2), Item::Remove(gone)],
        vec![
            translated(1),
            unknown(2),
            flow("10.2.0.2", 3, "10.3.0.8", None),
        ],
        vec![
            Item::Put(keep_alive, Record::KeepAlive(60)),
            Item::Put(slots, Record::Slots(Box::default())),
        ],
    ];
    let items = batches.map(|items| Wire::Items {
        number: 2,
        now: 510,
        items,
    });
    let others = [
        Wire::Begin {
            stream: 1,
            number: 1,
        },
        Wire::End { number: 2 },
        Wire::Beat,
    ];
    let all = items.into_iter().chain(others);
    all.map(|message| encode(&message).expect("a message"))
        .collect()
}

/// Gives a message the number that is due, for most would be refused for theirs.
fn renumber(message: &mut Wire, due: u64) {
    match message {
        Message::Items { number, .. } | Message::End { number } => *number = due,
        Message::Begin { .. } | Message::Beat => {}
    }
}

/// What came of the inputs.
#[derive(Default)]
struct Outcome {
    understood: u32,
    refused: u32,
    snapshots: u32,
    flows: u32,
    left_out: BTreeMap<Refused, u32>,
}

/// Checks that what is taken in is of this node.
fn check(names: &Names, image: &MapImage, item: &Item<Key, Record>, outcome: &mut Outcome) {
    let clocks = (Tick(510), Tick(90_000));
    let Item::Put(Key::Flow(name), Record::Flow(record)) = item else {
        return;
    };
    let local = match names.flow(name, record, clocks) {
        Ok(local) => local,
        Err(refusal) => {
            *outcome.left_out.entry(refusal).or_default() += 1;
            return;
        }
    };
    outcome.flows += 1;
    let key = FlowKey::from(name);
    let service = image
        .services
        .get(&key.service())
        .expect("a service of this node");
    let mut backends = image.backends.iter();
    let (_, backend) = backends
        .find(|(id, it)| id.0 == local.flow.backend && it.epoch == local.flow.epoch)
        .expect("a backend of this node");
    assert_eq!(backend.service, service.id);
    assert!(local.flow.seen <= clocks.1.0 + REFRESH);
    assert!(local.flow.state <= FlowState::Ended as u8);
    assert_eq!(local.reply.is_some(), service.forward == Forward::Nat);
    if let Some((reply, _)) = local.reply {
        assert_eq!(IpAddr::from(reply.destination()), ip("10.2.1.1"));
        assert!(PORTS.contains(&reply.destination_port()));
    }
}

/// Damaged messages for one receiver.
fn run(seed: u64, corpus: &[Vec<u8>], inputs: u32) -> Outcome {
    let mut outcome = Outcome::default();
    let (image, names) = names();
    let mut receiver: Receiver<Key> = Receiver::new(LIMIT);
    let mut mutator = Mutator::new(seed);
    let mut input = Vec::new();
    for number in 0..inputs {
        mutator.next(corpus, &mut input);
        let Ok(mut message) = decode::<Wire>(&input) else {
            continue;
        };
        outcome.understood += 1;
        let again = encode(&message).expect("what was understood");
        assert_eq!(decode::<Wire>(&again).as_ref().ok(), Some(&message));
        let before = (receiver.standing(), receiver.is_whole());
        if number % 4 != 0 {
            let applied = before.0.map_or(0, |standing| standing.applied);
            renumber(&mut message, applied.saturating_add(1));
        }
        match receiver.handle(message) {
            Ok(Step::Apply(_, items)) => {
                for item in &items {
                    check(&names, &image, item, &mut outcome);
                }
            }
            Ok(Step::Retain(named)) => {
                assert!(named.len() <= LIMIT);
                outcome.snapshots += 1;
            }
            Ok(Step::Nothing) => {}
            Err(_) => {
                outcome.refused += 1;
                assert_eq!((receiver.standing(), receiver.is_whole()), before);
            }
        }
    }
    outcome
}

#[test]
fn damaged_messages_are_taken_for_what_they_are_or_not_at_all() {
    let corpus = corpus();
    let both = |inputs| {
        thread::scope(|scope| {
            let other = scope.spawn(|| run(1, &corpus, inputs / 2));
            let one = run(2, &corpus, inputs / 2);
            [other.join().expect("no panic"), one]
        })
    };
    let _first_touch = both(INPUTS / 100);
    let before = memory::resident();
    let outcomes = both(INPUTS);
    let grown = memory::resident().saturating_sub(before);
    println!("memory has grown by {grown} KiB");
    assert!(grown < memory::FLAT, "{grown} KiB");
    let sum = |count: fn(&Outcome) -> u32| outcomes.iter().map(count).sum::<u32>();
    let (understood, refused) = (sum(|it| it.understood), sum(|it| it.refused));
    let (flows, snapshots) = (sum(|it| it.flows), sum(|it| it.snapshots));
    println!(
        "{understood} of {INPUTS} understood, {refused} refused, {flows} flows, {snapshots} snapshots"
    );
    let left_out: BTreeSet<Refused> = outcomes
        .iter()
        .flat_map(|outcome| outcome.left_out.keys().copied())
        .collect();
    for refusal in [
        Refused::UnknownService,
        Refused::UnknownBackend,
        Refused::NotStandby,
        Refused::OtherForward,
        Refused::NatSource,
        Refused::Invalid,
    ] {
        assert!(
            left_out.contains(&refusal),
            "nothing was left out as {refusal}"
        );
    }
    assert!(understood > INPUTS / 10, "{understood}");
    assert!(refused > INPUTS / 100, "{refused}");
    assert!(flows > INPUTS / 100, "{flows}");
    assert!(snapshots > INPUTS / 1_000, "{snapshots}");
}

#[test]
fn a_table_of_slots_that_is_none_is_found_out() {
    let table = SlotTable::default();
    let corpus = [encode(&table).expect("a table")];
    let mut mutator = Mutator::new(3);
    let (mut input, mut invalid) = (Vec::new(), 0);
    for _ in 0..INPUTS / 10 {
        mutator.next(&corpus, &mut input);
        if let Ok(table) = decode::<SlotTable>(&input) {
            invalid += u32::from(!table.is_valid());
        }
    }
    assert!(invalid > 0);
}
