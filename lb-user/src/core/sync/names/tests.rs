//! A node that is told of flows by names, and one that tells.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use lb_common::abi::{
    Balance, Flow, FlowKey, FlowState, Forward, Ip, KeepAlive, NatPool, NextHop, PROTOCOL_TCP,
    ServiceKey, Tick,
};

use super::{Names, Refused};
use crate::config::model::Limits;
use crate::core::image::MapImage;
use crate::core::plan::{self, Desired, DesiredBackend, DesiredService, Moment};
use crate::core::sync::message::{Item, Message};
use crate::core::sync::record::{BackendName, FlowName, FlowRecord, Key, REFRESH, Record};
use crate::core::sync::sender::Now;
use crate::core::sync::source::{Source, Walk};

const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];

fn vip() -> IpAddr {
    IpAddr::from([10, 2, 0, 1])
}

fn source(last: u8) -> IpAddr {
    IpAddr::from([10, 2, 1, last])
}

fn hop() -> NextHop {
    NextHop {
        interface: 3,
        mac: [1; 6],
        source_mac: [2; 6],
    }
}

/// A node with these backends in this order, so that ids differ.
fn image(forward: Forward, backends: &[u8], sources: &[IpAddr]) -> MapImage {
    let service = ServiceKey::new(vip().into(), 1883, PROTOCOL_TCP);
    let backends = backends
        .iter()
        .map(|last| DesiredBackend::new(Ip::from_v4([10, 3, 0, *last]), 1883, 1, Some(hop())));
    let sources: Vec<Ip> = sources.iter().map(|it| Ip::from(*it)).collect();
    let desired = Desired {
        services: vec![DesiredService {
            backends: backends.collect(),
            window: Duration::from_secs(60),
            ..DesiredService::new(service, Balance::RoundRobin, forward)
        }],
        nat_pool: NatPool::new(&sources, 1_024, 2_047),
        ..Desired::nothing(Limits {
            services: 1,
            backends: 4,
            flows: 1,
            half_open: 1,
            fragments: 1,
            access_entries: 1,
            sources: 1,
        })
    };
    plan::next(&MapImage::empty(), &desired, Moment::at(Tick(0)))
}

fn standby() -> BTreeSet<IpAddr> {
    [vip()].into()
}

fn key() -> FlowKey {
    let client = Ip::from_v4([10, 1, 0, 1]);
    FlowKey::new(client, vip().into(), 40_000, 1883, PROTOCOL_TCP)
}

/// The flow of a client at a backend of an image.
fn flow(image: &MapImage, last: u8) -> Flow {
    let address = Ip::from_v4([10, 3, 0, last]);
    let mut backends = image.backends.iter();
    let (id, backend) = backends.find(|(_, it)| it.address == address).unwrap();
    Flow {
        backend: id.0,
        epoch: backend.epoch,
        seen: 500,
        middle: 77_u32.to_ne_bytes(),
        nat_source: Flow::UNTRANSLATED,
        state: FlowState::Established as u8,
        keep_alive: KeepAlive::of(60, false),
    }
}

/// What a node with this image tells of a flow.
fn told(image: MapImage, flow: Flow) -> (FlowName, FlowRecord) {
    let image = Arc::new(image);
    let mut walk = Walk::new(&image, &standby());
    walk.note(&key(), &flow);
    walk.note_client(key(), CLIENT_MAC);
    let mut source = Source::new(1);
    source.handle_walk(walk, Duration::ZERO);
    source.sender.link(None);
    let now = Now {
        at: Duration::ZERO,
        tick: Tick(510),
    };
    let messages = std::iter::from_fn(|| source.sender.poll(now));
    let items = messages.filter_map(|message| match message {
        Message::Items { items, .. } => Some(items),
        Message::Begin { .. } | Message::End { .. } | Message::Beat => None,
    });
    let mut flows = items.flatten().filter_map(|item| match item {
        Item::Put(Key::Flow(name), Record::Flow(record)) => Some((name, record)),
        Item::Put(..) | Item::Remove(_) => None,
    });
    flows.next().unwrap()
}

const CLOCKS: (Tick, Tick) = (Tick(510), Tick(90_000));

#[test]
fn a_flow_goes_to_the_same_backend_whatever_its_id() {
    let ours = image(Forward::Dsr, &[8, 7], &[]);
    let (name, record) = told(image(Forward::Dsr, &[7, 8], &[]), {
        let theirs = image(Forward::Dsr, &[7, 8], &[]);
        flow(&theirs, 8)
    });
    let local = Names::new(&ours, standby())
        .flow(&name, &record, CLOCKS)
        .unwrap();
    assert_eq!(FlowKey::from(&name), key());
    let expected = Flow {
        seen: 90_000 - 10 + REFRESH,
        ..flow(&ours, 8)
    };
    assert_eq!((local.flow, local.reply), (expected, None));
    assert_ne!(
        flow(&ours, 8).backend,
        flow(&image(Forward::Dsr, &[7, 8], &[]), 8).backend
    );
}

#[test]
fn a_translated_flow_keeps_its_source_and_port_whatever_their_numbers() {
    let theirs = image(Forward::Nat, &[7], &[source(1), source(2)]);
    let ours = image(Forward::Nat, &[7], &[source(2), source(3)]);
    let port = 1_500_u16;
    let translated = flow(&theirs, 7).translated(1, port.to_be_bytes(), 0xabcd);
    let (name, record) = told(theirs, translated);
    let names = Names::new(&ours, standby());
    let local = names.flow(&name, &record, CLOCKS).unwrap();
    assert_eq!((local.flow.nat_source, local.flow.client_way()), (0, 0));
    assert_eq!(local.flow.nat_port(), port.to_be_bytes());
    let (reply_key, reply) = local.reply.unwrap();
    let backend = Ip::from_v4([10, 3, 0, 7]);
    let expected = FlowKey::new(backend, source(2).into(), 1883, port, PROTOCOL_TCP);
    assert_eq!(reply_key, expected);
    assert_eq!(
        (reply.client, reply.vip),
        (key().source(), key().destination())
    );
    assert_eq!(reply.client_port, 40_000_u16.to_be_bytes());
    let way = NextHop {
        mac: CLIENT_MAC,
        ..hop()
    };
    assert_eq!((reply.next_hop, reply.backend), (way, local.flow.backend));
}

#[test]
fn what_this_node_does_not_have_is_refused_with_its_reason() {
    let theirs = image(Forward::Dsr, &[7, 8], &[]);
    let (name, record) = told(theirs.clone(), flow(&theirs, 8));
    let ours = Names::new(&theirs, standby());
    let refused = |change: &dyn Fn(&mut FlowName, &mut FlowRecord)| {
        let (mut name, mut record) = (name, record.clone());
        change(&mut name, &mut record);
        ours.flow(&name, &record, CLOCKS).unwrap_err()
    };
    let other_port = refused(&|name, _| name.service.port = 1884);
    assert_eq!(other_port, Refused::UnknownService);
    let stranger = BackendName {
        address: [10, 3, 0, 9].into(),
        port: 1883,
    };
    let backend = refused(&|_, record| record.backend = stranger);
    assert_eq!(backend, Refused::UnknownBackend);
    assert_eq!(refused(&|_, record| record.state = 5), Refused::Invalid);
    let family = refused(&|name, _| name.client = IpAddr::from([0xfd, 0, 0, 0, 0, 0, 0, 1]));
    assert_eq!(family, Refused::Invalid);

    let active = Names::new(&theirs, BTreeSet::new());
    let refusal = active.flow(&name, &record, CLOCKS);
    assert_eq!(refusal, Err(Refused::NotStandby));
    let nat = image(Forward::Nat, &[7, 8], &[source(1)]);
    let refusal = Names::new(&nat, standby()).flow(&name, &record, CLOCKS);
    assert_eq!(refusal, Err(Refused::OtherForward));
}

#[test]
fn a_source_or_port_that_this_node_does_not_send_from_is_refused() {
    let theirs = image(Forward::Nat, &[7], &[source(1)]);
    let translated = |port: u16| flow(&theirs, 7).translated(0, port.to_be_bytes(), 0);
    let (name, record) = told(theirs.clone(), translated(1_500));
    let elsewhere = image(Forward::Nat, &[7], &[source(2)]);
    let refusal = Names::new(&elsewhere, standby()).flow(&name, &record, CLOCKS);
    assert_eq!(refusal, Err(Refused::NatSource));
    let (name, record) = told(theirs.clone(), translated(2_048));
    let refusal = Names::new(&theirs, standby()).flow(&name, &record, CLOCKS);
    assert_eq!(refusal, Err(Refused::NatSource));
}

#[test]
fn a_backend_that_is_new_or_another_is_noticed() {
    let (one, two) = (
        image(Forward::Dsr, &[7], &[]),
        image(Forward::Dsr, &[7, 8], &[]),
    );
    let names = |image: &MapImage| Names::new(image, standby());
    assert!(names(&two).has_more_than(&names(&one)));
    assert!(!names(&one).has_more_than(&names(&two)));
    let mut again = one.clone();
    for backend in again.backends.values_mut() {
        backend.epoch += 1;
    }
    assert!(names(&again).has_more_than(&names(&one)));
    let nat = image(Forward::Nat, &[7], &[source(1)]);
    assert!(names(&nat).has_more_than(&names(&one)));
    let other_source = image(Forward::Nat, &[7], &[source(2)]);
    assert!(names(&other_source).has_more_than(&names(&nat)));
    assert!(!names(&nat).has_more_than(&names(&nat)));
}
