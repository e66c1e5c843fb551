//! What keeps a router back.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::{Bench, ONE, SIX, TWO, and, ip, line, link};
use crate::core::vrrp::node::{Backing, Closed, Event, Fault, Node, Placement};
use crate::core::vrrp::role::{Cause, Role};
use crate::core::vrrp::settings::Reach;

#[test]
fn nobody_is_active_before_packets_are_balanced() {
    let mut bench = Bench::new(&[ONE]);
    bench.forward(false, &[]);
    bench.wait(60_000);
    assert_eq!(bench.roles(), [Role::Backup]);
    assert_eq!(bench.faults(0), [Fault::NotReady]);
    assert!(bench.sent.is_empty() && bench.node.held().is_empty());
    bench.forward(true, &[]);
    bench.wait(4_000);
    assert_eq!(bench.roles(), [Role::Active]);
    assert_eq!(bench.node.held(), [ip("172.16.40.24")].into());
}

#[test]
fn an_owner_is_no_exception() {
    let owner = and(ONE, "priority = 255");
    let mut bench = Bench {
        node: Node::default(),
        ..Bench::new(&[])
    };
    bench.plan(&[&owner]);
    bench.links(|_| {});
    bench.wait(60_000);
    assert_eq!(bench.roles(), [Role::Backup]);
    bench.forward(true, &[]);
    bench.wait(4_000);
    assert_eq!(bench.roles(), [Role::Active]);
}

#[test]
fn routers_wait_for_the_address_that_they_speak_from() {
    let mut bench = Bench::new(&[ONE, SIX]);
    bench.links(|link| link.addresses.retain(IpAddr::is_ipv6));
    bench.plan(&[ONE, SIX, TWO]);
    bench.wait(60_000);
    assert_eq!(
        bench.roles(),
        [Role::Backup, Role::Active, Role::Initialize]
    );
    assert_eq!(bench.faults(0), [Fault::NoAddress]);
    bench.links(|link| link.addresses.push(ip("172.16.40.29")));
    bench.wait(4_000);
    assert_eq!(bench.roles(), [Role::Active; 3]);
    assert_eq!(bench.states()[0].source, Some(ip("172.16.40.29")));
}

#[test]
fn who_loses_its_address_starts_anew_from_another() {
    let mut bench = Bench::active(&[ONE]);
    bench.links(|link| link.addresses[1] = ip("172.16.40.29"));
    assert_eq!(bench.roles(), [Role::Backup]);
    bench.wait(4_000);
    assert_eq!(bench.roles(), [Role::Active]);
    assert_eq!(bench.states()[0].source, Some(ip("172.16.40.29")));
}

#[test]
fn a_link_that_goes_down_ends_the_role_of_the_whole_group() {
    let (one, six) = (and(ONE, "group = \"g\""), and(SIX, "group = \"g\""));
    let one = and(&one, "interface = \"eth1\"");
    let mut bench = Bench::new(&[]);
    bench.links.insert("eth1".to_owned(), link(&["10.0.0.1"]));
    bench.links(|_| {});
    bench.plan(&[&one, &six]);
    bench.wait(4_000);
    assert_eq!(bench.roles(), [Role::Active; 2]);
    bench.links.get_mut("eth1").unwrap().is_up = false;
    bench.links(|_| {});
    assert_eq!(bench.faults(0), [Fault::LinkDown]);
    assert_eq!((bench.cause(), bench.faults(1)), (Cause::Fault, vec![]));
    assert_eq!(bench.roles()[0], Role::Backup);
    // The other hands over, and gives up when nobody takes over.
    assert!(bench.states()[1].is_leaving);
    bench.wait(5_000);
    assert_eq!(bench.roles(), [Role::Backup; 2]);
    bench.links.remove("eth1");
    bench.links(|_| {});
    assert_eq!(
        bench.faults(0),
        [Fault::LinkDown, Fault::NoAddress],
        "an interface that is gone"
    );
}

#[test]
fn who_serves_nobody_releases_the_role_unless_told_to_stay() {
    let stays = and(TWO, "without_backends = \"stay\"");
    let mut bench = Bench::active(&[ONE, &stays]);
    bench.forward(
        true,
        &[
            ("172.16.40.24", Backing::Nobody),
            ("172.16.40.25", Backing::Nobody),
        ],
    );
    assert_eq!(bench.roles(), [Role::Backup, Role::Active]);
    assert_eq!(bench.faults(0), [Fault::NoBackends]);
    assert_eq!(bench.priorities(), [(51, 0)]);
    bench.forward(
        true,
        &[
            ("172.16.40.24", Backing::Sound),
            ("172.16.40.25", Backing::Nobody),
        ],
    );
    bench.wait(4_000);
    assert_eq!(bench.roles(), [Role::Active; 2]);
}

#[test]
fn a_group_stays_while_one_of_its_addresses_is_served() {
    let (one, six) = (and(ONE, "group = \"g\""), and(SIX, "group = \"g\""));
    let mut bench = Bench::active(&[&one, &six]);
    bench.forward(
        true,
        &[
            ("172.16.40.24", Backing::Sound),
            ("fd00:40::24", Backing::Nobody),
        ],
    );
    assert_eq!(bench.roles(), [Role::Active; 2]);
    bench.forward(
        true,
        &[
            ("172.16.40.24", Backing::Nobody),
            ("fd00:40::24", Backing::Nobody),
        ],
    );
    assert_eq!(bench.roles(), [Role::Backup; 2]);
}

#[test]
fn who_cannot_speak_is_not_active() {
    let mut bench = Bench::active(&[ONE, SIX]);
    let broken = Closed {
        broken: BTreeSet::from([line(Reach::Multicast)]),
        ..Closed::default()
    };
    bench.act(|node, now| node.handle_closed(broken, now));
    assert_eq!(bench.roles(), [Role::Backup, Role::Active]);
    assert_eq!(bench.faults(0), [Fault::NoSocket]);
    bench.act(|node, now| node.handle_closed(Closed::default(), now));
    bench.wait(4_000);
    assert_eq!(bench.roles(), [Role::Active; 2]);
}

/// It would hear no Active.
#[test]
fn nobody_becomes_active_whose_socket_is_being_opened_but_who_is_goes_on() {
    let opening = Closed {
        opening: BTreeSet::from([line(Reach::Multicast)]),
        ..Closed::default()
    };
    let open = |bench: &mut Bench| {
        bench.act(|node, now| node.handle_closed(opening.clone(), now));
        bench.wait(60_000);
    };
    let mut bench = Bench::active(&[ONE]);
    open(&mut bench);
    assert_eq!(bench.roles(), [Role::Active]);
    let mut bench = Bench::new(&[ONE]);
    open(&mut bench);
    assert_eq!(bench.roles(), [Role::Backup]);
    assert_eq!(bench.faults(0), [Fault::NoSocket]);
    bench.act(|node, now| node.handle_closed(Closed::default(), now));
    bench.wait(4_000);
    assert_eq!(bench.roles(), [Role::Active]);
}

#[test]
fn a_router_that_is_its_own_peer_is_told_of_once() {
    let peers = and(ONE, "peers = [\"172.16.40.22\"]");
    let mut bench = Bench::new(&[&peers]);
    bench.links(|_| {});
    bench.wait(60_000);
    assert_eq!(bench.faults(0), [Fault::Unfit]);
    assert_eq!(bench.roles(), [Role::Initialize]);
    let unfits = bench.events.iter();
    let unfits = unfits.filter(|event| matches!(event, Event::Unfit { .. }));
    assert_eq!(unfits.count(), 1);
}

/// An Active whose address cannot be put on the interface, as was just found out.
fn refused() -> Bench {
    let mut bench = Bench::active(&[ONE, TWO]);
    place(&mut bench, Placement::Refused);
    bench
}

/// What became of the address of the first router.
fn place(bench: &mut Bench, placement: Placement) {
    let placed = [(ip("172.16.40.24"), placement)].into();
    bench.act(|node, now| node.handle_placed(placed, now));
}

#[test]
fn who_cannot_have_its_address_leaves_the_role_to_others_for_a_while() {
    let mut bench = refused();
    bench.wait(2_999);
    assert_eq!(bench.roles(), [Role::Active; 2], "it may be there in time");
    bench.sent.clear();
    bench.wait(1);
    assert_eq!(bench.roles(), [Role::Backup, Role::Active]);
    assert_eq!(bench.faults(0), [Fault::NoVip]);
    assert_eq!(bench.priorities()[0], (51, 0));
    // Nobody has to put it there meanwhile.
    bench.act(|node, now| node.handle_placed([].into(), now));
    bench.wait(59_999);
    assert_eq!(bench.roles(), [Role::Backup, Role::Active]);
    bench.wait(4_000);
    assert_eq!(bench.roles(), [Role::Active; 2], "it tries again");
    place(&mut bench, Placement::Done(1));
    bench.wait(60_000);
    assert_eq!(bench.roles(), [Role::Active; 2]);
}

#[test]
fn an_address_that_is_placed_at_another_attempt_costs_no_role() {
    let mut bench = refused();
    bench.wait(2_000);
    place(&mut bench, Placement::Done(1));
    bench.wait(60_000);
    assert_eq!(bench.roles(), [Role::Active; 2]);
}

#[test]
fn an_operator_or_a_change_has_it_try_again_at_once() {
    let resume = |bench: &mut Bench| bench.act(|node, now| node.resume("one", now).unwrap());
    let change = |bench: &mut Bench| bench.plan(&[&and(ONE, "priority = 120"), TWO]);
    for cure in [resume as fn(&mut Bench), change] {
        let mut bench = refused();
        bench.wait(3_000);
        assert_eq!(bench.faults(0), [Fault::NoVip]);
        cure(&mut bench);
        assert!(bench.faults(0).is_empty());
        bench.wait(4_000);
        assert_eq!(bench.roles(), [Role::Active; 2]);
    }
}
