//! What goes out and comes in.

use std::collections::BTreeSet;

use super::{Bench, ONE, SIX, TWO, and, ip, line};
use crate::core::vrrp::advert::{Envelope, Family, HOPS, Priority};
use crate::core::vrrp::node::{Incoming, Placement};
use crate::core::vrrp::refusal::Refusal;
use crate::core::vrrp::role::Role;
use crate::core::vrrp::settings::Reach;

#[test]
fn adverts_come_from_an_address_that_is_no_vip() {
    let mut bench = Bench::active(&[ONE, SIX]);
    bench.wait(1_000);
    let sources: BTreeSet<_> = bench.sent.iter().map(|sent| sent.line.source).collect();
    assert_eq!(sources, [ip("172.16.40.22"), ip("fe80::22")].into());
    let to: BTreeSet<_> = bench.sent.iter().map(|sent| sent.to).collect();
    assert_eq!(to, [Family::V4.group(), Family::V6.group()].into());
    // Peers behind a router are not reached from a link-local address.
    let peers = and(SIX, "peers = [\"fd00:41::23\"]");
    let bench = Bench::new(&[&peers]);
    assert_eq!(bench.states()[0].source, Some(ip("fd00:40::22")));
}

#[test]
fn addresses_are_announced_when_they_are_there() {
    let mut bench = Bench::active(&[ONE]);
    assert!(bench.announced.is_empty());
    let vip = ip("172.16.40.24");
    let place = |bench: &mut Bench, times| {
        bench.act(|node, now| node.handle_placed([(vip, Placement::Done(times))].into(), now));
    };
    place(&mut bench, 1);
    assert_eq!(bench.announced, [vip]);
    bench.wait(60_000);
    place(&mut bench, 1);
    assert_eq!(bench.announced, [vip; 5]);
    // Somebody took it away, and it was put back.
    place(&mut bench, 2);
    assert_eq!(bench.announced, [vip; 6]);
}

#[test]
fn adverts_find_their_router_by_number_family_and_line() {
    let mut bench = Bench::active(&[ONE, TWO, SIX]);
    bench.hear(TWO, 200, &line(Reach::Multicast));
    assert_eq!(
        bench.roles(),
        [Role::Active, Role::Backup, Role::Active],
        "only the one that was addressed"
    );
    let active = bench.states()[1].active;
    assert_eq!(active, Some((ip("172.16.40.23"), Priority(200))));
    let other = TWO.replace("52", "53");
    bench.hear(&other, 200, &line(Reach::Multicast));
    let strays = &bench.node.report(bench.now).strays["eth0"];
    assert_eq!(strays.of(Refusal::Vrid), 1);
}

#[test]
fn what_two_lines_hear_counts_once() {
    let unicast = and(TWO, "peers = [\"172.16.40.23\"]");
    let mut bench = Bench::active(&[ONE, &unicast]);
    assert_eq!(bench.node.lines().len(), 2);
    for line in [line(Reach::Multicast), line(Reach::Unicast)] {
        bench.hear(TWO, 200, &line);
        bench.hear(&TWO.replace("52", "53"), 200, &line);
    }
    let states = bench.states();
    assert_eq!(states[1].counters.received, 1);
    assert_eq!(states[0].role, Role::Active);
    let strays = &bench.node.report(bench.now).strays["eth0"];
    assert_eq!(strays.of(Refusal::Vrid), 1);
}

#[test]
fn bytes_that_are_no_advert_change_nothing() {
    let mut bench = Bench::active(&[ONE]);
    let (before, line) = (bench.states(), line(Reach::Multicast));
    let incoming = Incoming {
        line: &line,
        envelope: Envelope {
            source: ip("172.16.40.23"),
            destination: Family::V4.group(),
            hops: HOPS,
        },
        payload: &[0x31, 51],
    };
    bench.act(|node, now| node.handle_advert(&incoming, now));
    assert_eq!(bench.states(), before);
    let strays = &bench.node.report(bench.now).strays["eth0"];
    assert_eq!(strays.of(Refusal::Length), 1);
}

#[test]
fn release_and_resume_go_by_router_or_group() {
    let (one, six) = (and(ONE, "group = \"g\""), and(SIX, "group = \"g\""));
    for name in ["one", "six", "g"] {
        let mut bench = Bench::active(&[&one, &six]);
        bench.act(|node, now| node.release(name, now).unwrap());
        assert!(bench.states().iter().all(|state| state.is_leaving));
        assert_eq!(bench.roles(), [Role::Active; 2], "until another is there");
        bench.wait(5_000);
        assert_eq!(bench.roles(), [Role::Backup; 2]);
        bench.act(|node, now| node.resume(name, now).unwrap());
        bench.wait(4_000);
        assert_eq!(bench.roles(), [Role::Active; 2]);
    }
    let mut bench = Bench::active(&[&one]);
    let error = bench.node.release("nosuch", bench.now).unwrap_err();
    assert_eq!(error.name, "nosuch");
}
