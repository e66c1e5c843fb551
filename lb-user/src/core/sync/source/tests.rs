//! What a walk makes the peer hear of.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use lb_common::abi::{
    BackendId, Balance, Flow, FlowKey, FlowState, Forward, Ip, KeepAlive, PROTOCOL_TCP, ServiceKey,
    Tick,
};

use super::{Established, Source, Walk};
use crate::config::model::Limits;
use crate::core::image::MapImage;
use crate::core::plan::{self, Desired, DesiredBackend, DesiredService, Moment};
use crate::core::sync::message::{Item, Message};
use crate::core::sync::record::{Key, Record};
use crate::core::sync::sender::Now;

fn vip(last: u8) -> IpAddr {
    IpAddr::from([10, 2, 0, last])
}

/// Two services, each with a VIP of its own.
fn image() -> Arc<MapImage> {
    let service = |last: u8| {
        let key = ServiceKey::new(vip(last).into(), 1883, PROTOCOL_TCP);
        let backend = DesiredBackend::new(Ip::from_v4([10, 3, 0, last]), 1883, 1, None);
        DesiredService {
            backends: vec![backend],
            ..DesiredService::new(key, Balance::Maglev, Forward::Dsr)
        }
    };
    let desired = Desired {
        services: vec![service(1), service(2)],
        ..Desired::nothing(Limits {
            services: 2,
            backends: 4,
            flows: 1,
            half_open: 1,
            fragments: 1,
            access_entries: 1,
            sources: 1,
        })
    };
    Arc::new(plan::next(
        &MapImage::empty(),
        &desired,
        Moment::at(Tick(0)),
    ))
}

/// A client's flow to a service, whose backend has the service's number.
fn flow(image: &MapImage, service: u8, port: u16) -> (FlowKey, Flow) {
    let id = BackendId(u16::from(service) - 1);
    let flow = Flow {
        backend: id.0,
        epoch: image.backends[&id].epoch,
        seen: 7,
        middle: [0; 4],
        nat_source: Flow::UNTRANSLATED,
        state: FlowState::Established as u8,
        keep_alive: KeepAlive::NONE,
    };
    let client = Ip::from_v4([10, 1, 0, 1]);
    let key = FlowKey::new(client, vip(service).into(), port, 1883, PROTOCOL_TCP);
    (key, flow)
}

struct Bench {
    source: Source,
    image: Arc<MapImage>,
    /// Seconds.
    clock: u64,
}

/// What was sent, without how it was numbered.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sent {
    snapshots: usize,
    flows: Vec<u16>,
    removed: Vec<u16>,
    others: Vec<Key>,
}

impl Bench {
    fn new() -> Self {
        let mut source = Source::new(1);
        source.sender.link(None);
        Self {
            source,
            image: image(),
            clock: 0,
        }
    }

    fn now(&mut self) -> Duration {
        self.clock += 1;
        Duration::from_secs(self.clock)
    }

    fn establish(&mut self, service: u8, port: u16) -> Sent {
        let (key, flow) = flow(&self.image, service, port);
        let (made, met) = (self.now(), self.now());
        let client = [0; 6];
        let established = Established {
            key,
            flow,
            client,
            made,
            met,
        };
        self.source.handle_established(&self.image, &established);
        self.sent()
    }

    fn walk(&mut self, vips: &[u8], flows: &[(u8, u16)]) -> Sent {
        let vips: BTreeSet<IpAddr> = vips.iter().map(|last| vip(*last)).collect();
        let mut walk = Walk::new(&self.image, &vips);
        for (service, port) in flows {
            let (key, record) = flow(&self.image, *service, *port);
            walk.note(&key, &record);
        }
        let begun = self.now();
        self.source.handle_walk(walk, begun);
        self.sent()
    }

    fn sent(&mut self) -> Sent {
        let now = Now {
            at: Duration::ZERO,
            tick: Tick(0),
        };
        let mut sent = Sent::default();
        while let Some(message) = self.source.sender.poll(now) {
            let (number, items) = match message {
                Message::Begin { number, .. } => {
                    sent.snapshots += 1;
                    (number, Vec::new())
                }
                Message::Items { number, items, .. } => (number, items),
                Message::End { number } => (number, Vec::new()),
                Message::Beat => continue,
            };
            self.source.sender.handle_ack(number, Duration::ZERO);
            for item in items {
                match item {
                    Item::Put(Key::Flow(name), Record::Flow(_)) => sent.flows.push(name.port),
                    Item::Put(key, _) => sent.others.push(key),
                    Item::Remove(Key::Flow(name)) => sent.removed.push(name.port),
                    Item::Remove(key) => sent.others.push(key),
                }
            }
        }
        sent.flows.sort_unstable();
        sent
    }
}

#[test]
fn the_first_walk_is_a_snapshot_and_others_are_what_has_changed() {
    let mut bench = Bench::new();
    let first = bench.walk(&[1], &[(1, 10), (1, 11), (2, 12)]);
    assert_eq!((first.snapshots, &first.flows[..]), (1, &[10, 11][..]));
    // Slots come behind the flows that they depend on.
    assert!(matches!(first.others[..], [Key::Slots(name)] if name.vip == vip(1)));
    assert_eq!(bench.walk(&[1], &[(1, 10), (1, 11)]), Sent::default());
    let third = bench.walk(&[1], &[(1, 11), (1, 13)]);
    assert_eq!(
        (&third.flows[..], &third.removed[..]),
        (&[13][..], &[10][..])
    );
    assert_eq!((third.snapshots, third.others), (0, Vec::new()));
}

#[test]
fn a_flow_that_is_established_is_told_of_without_a_walk() {
    let mut bench = Bench::new();
    let early = bench.establish(1, 10);
    assert_eq!(early.flows, [0_u16; 0], "no walk was for it");
    bench.walk(&[1], &[(1, 10)]);
    assert_eq!(bench.establish(1, 11).flows, [11]);
    assert_eq!(bench.establish(1, 11), Sent::default(), "it is known");
    assert_eq!(bench.establish(2, 12), Sent::default(), "it is the peer's");
    assert_eq!(bench.walk(&[1], &[(1, 10), (1, 11)]), Sent::default());
    // Of a backend that has come since.
    let mut changed = MapImage::clone(&bench.image);
    for backend in changed.backends.values_mut() {
        backend.epoch += 1;
    }
    bench.image = Arc::new(changed);
    assert_eq!(bench.establish(1, 13).flows, [13]);
}

#[test]
fn another_vip_is_another_snapshot() {
    let mut bench = Bench::new();
    bench.walk(&[1], &[(1, 10)]);
    let both = bench.walk(&[1, 2], &[(1, 10), (2, 12)]);
    assert_eq!((both.snapshots, &both.flows[..]), (1, &[10, 12][..]));
    assert_eq!(both.others.len(), 2);
    let none = bench.walk(&[], &[]);
    assert_eq!(
        (none.snapshots, none.flows, none.removed),
        (1, vec![], vec![])
    );
}

#[test]
fn slots_are_told_of_again_when_they_change() {
    let mut bench = Bench::new();
    bench.walk(&[1], &[]);
    // The same, made anew.
    bench.image = Arc::new(MapImage::clone(&bench.image));
    assert_eq!(bench.walk(&[1], &[]), Sent::default());
    let mut changed = MapImage::clone(&bench.image);
    for service in changed.services.values_mut() {
        let table = Arc::make_mut(&mut service.table);
        table.slots[7] = BackendId::NONE;
    }
    bench.image = Arc::new(changed);
    let sent = bench.walk(&[1], &[]);
    assert!(matches!(sent.others[..], [Key::Slots(_)]), "{sent:?}");
}

#[test]
fn what_begins_while_a_walk_is_taken_in_does_not_wait_for_its_end() {
    let mut bench = Bench::new();
    bench.walk(&[1], &[(1, 10)]);
    let mut walk = Walk::new(&bench.image, &[vip(1)].into());
    for port in 100..10_000 {
        let (key, record) = flow(&bench.image, 1, port);
        walk.note(&key, &record);
    }
    let begun = bench.now();
    bench.source.begin_walk(walk, begun);
    bench.source.continue_walk();
    assert!(bench.source.is_walking());
    let sent = bench.establish(1, 20);
    assert!(sent.flows.contains(&20) && !sent.flows.contains(&9_999));
    assert_eq!(sent.removed, [0_u16; 0]);
    while bench.source.is_walking() {
        bench.source.continue_walk();
    }
    let rest = bench.sent();
    assert_eq!(rest.removed, [10], "only what the walk has not met");
    assert_eq!(sent.flows.len() + rest.flows.len(), 9_900 + 1);
}

#[test]
fn flows_of_who_has_gone_are_not_told_of() {
    let mut bench = Bench::new();
    let mut walk = Walk::new(&bench.image, &[vip(1)].into());
    let (key, mut record) = flow(&bench.image, 1, 10);
    record.epoch = record.epoch.wrapping_sub(1);
    walk.note(&key, &record);
    bench.source.handle_walk(walk, Duration::ZERO);
    assert_eq!(bench.sent().flows, [0_u16; 0]);
}

#[test]
fn lag_counts_from_the_last_look_or_from_what_the_peer_lacks() {
    let seconds = Duration::from_secs;
    let mut bench = Bench::new();
    let walk = |bench: &mut Bench, vips: &[IpAddr], at: u64, port: u16| {
        let mut walk = Walk::new(&bench.image, &vips.iter().copied().collect());
        let (key, record) = flow(&bench.image, 1, port);
        walk.note(&key, &record);
        bench.source.handle_walk(walk, seconds(at));
    };
    walk(&mut bench, &[], 10, 1);
    assert_eq!(
        bench.source.lag(seconds(19)),
        seconds(0),
        "it has nothing to tell"
    );
    walk(&mut bench, &[vip(1)], 20, 1);
    bench.sent();
    assert_eq!(bench.source.lag(seconds(22)), seconds(2));
    walk(&mut bench, &[vip(1)], 30, 2);
    // It may be as old as the look before.
    assert_eq!(bench.source.lag(seconds(31)), seconds(11));
    bench.sent();
    assert_eq!(bench.source.lag(seconds(31)), seconds(1));
}
