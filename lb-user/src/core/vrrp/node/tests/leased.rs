//! Roles that go on with the next process.

use super::*;
use crate::core::vrrp::node::Leased;
use lb_common::abi::VirtualMac;

/// A node that finds what an earlier one has left, which ends in so many milliseconds.
fn successor(routers: &[&str], leases: &[(&str, u8, u64)]) -> Bench {
    let now = epoch();
    let leases = leases.iter();
    let leases = leases.map(|(vip, vrid, millis)| (ip(vip), *vrid, now + ms(*millis)));
    let mut node = Node::default();
    node.handle_leased(leases.collect());
    Bench::with(node, routers)
}

#[test]
fn a_role_goes_on_and_is_said_at_once() {
    let mut bench = successor(&[ONE], &[("172.16.40.24", 51, 1)]);
    assert_eq!(
        (bench.roles(), bench.cause()),
        (vec![Role::Active], Cause::Adopted)
    );
    assert_eq!(bench.priorities(), [(51, 100)]);
    assert_eq!(bench.node.held(), [ip("172.16.40.24")].into());
}

#[test]
fn a_role_goes_on_before_what_it_depends_on_was_tried() {
    for weight in ["", ", weight = -50"] {
        let track = format!("track = [{{ name = \"gw\", gateway = \"172.16.40.1\"{weight} }}]");
        let one = and(ONE, &track);
        let mut bench = successor(&[&one], &[("172.16.40.24", 51, 1)]);
        bench.wait(5_000);
        assert_eq!(
            (bench.roles(), bench.cause()),
            (vec![Role::Active], Cause::Adopted)
        );
    }
}

#[test]
fn a_role_of_which_nobody_was_told_in_time_does_not() {
    for leases in [
        &[("172.16.40.24", 51, 0)][..],
        &[("172.16.40.24", 52, 1_000)],
        &[("172.16.40.25", 51, 1_000)],
        &[],
    ] {
        let bench = successor(&[ONE], leases);
        assert_eq!(bench.roles(), [Role::Backup], "{leases:?}");
    }
}

#[test]
fn a_role_that_is_being_handed_over_does_not_go_on() {
    let mut bench = successor(&[ONE], &[("172.16.40.24", 51, 1)]);
    let heirs = |bench: &Bench| {
        bench
            .node
            .leases()
            .into_values()
            .map(|it| it.0)
            .collect::<Vec<_>>()
    };
    assert_eq!(heirs(&bench), [51]);
    bench.act(|node, now| node.release("one", now).unwrap());
    assert_eq!(
        (bench.roles(), heirs(&bench)),
        (vec![Role::Active], vec![0])
    );
    bench.act(|node, now| node.resume("one", now).unwrap());
    assert_eq!(heirs(&bench), [51]);
}

#[test]
fn a_router_whose_addresses_were_not_all_there_starts_as_any() {
    let bench = successor(&[SIX], &[("fd00:40::24", 51, 1_000)]);
    assert_eq!(bench.roles(), [Role::Backup]);
}

#[test]
fn a_role_that_went_on_is_no_claim_of_a_later_router() {
    let mut bench = successor(&[ONE], &[("172.16.40.24", 51, 10_000)]);
    bench.plan(&[]);
    bench.plan(&[ONE]);
    assert_eq!(bench.roles(), [Role::Backup]);
}

#[test]
fn addresses_are_kept_for_a_router_that_has_all_its_own() {
    let until = epoch() + ms(1);
    let of = |vips: &[&str]| -> Leased {
        let leases = vips.iter().map(|vip| (ip(vip), 51, until));
        leases.collect()
    };
    let six = plan(&[SIX]).routers;
    assert!(of(&["fd00:40::24", "fe80::40:24"]).has(ip("fd00:40::24"), &six));
    assert!(!of(&["fd00:40::24"]).has(ip("fd00:40::24"), &six));
    assert!(!of(&["172.16.40.24"]).has(ip("172.16.40.24"), &six));
}

#[test]
fn an_address_is_leased_while_its_router_is_active() {
    let mut bench = successor(&[ONE], &[("172.16.40.24", 51, 1)]);
    let vip = ip("172.16.40.24");
    assert!(
        bench.node.leases()[&vip]
            .1
            .is_some_and(|until| until > bench.now)
    );
    bench.hear(ONE, 200, &line(Reach::Multicast));
    assert_eq!(bench.node.leases()[&vip], (51, None));
}

#[test]
fn an_address_whose_router_is_gone_is_not_here_until_it_is_off_the_interface() {
    let vip = ip("172.16.40.24");
    let mut bench = Bench::active(&[ONE, TWO]);
    bench.plan(&[TWO]);
    let other = bench.node.leases()[&ip("172.16.40.25")];
    assert!(other.1.is_some(), "{other:?}");
    assert_eq!(bench.node.leases()[&vip], (0, None));
    // Another change meanwhile is no news of it.
    bench.plan(&[TWO, SIX]);
    bench.act(|node, _| node.handle_removed(|left| *left == vip));
    assert_eq!(bench.node.leases()[&vip], (0, None));
    bench.act(|node, _| node.handle_removed(|_| false));
    assert!(!bench.node.leases().contains_key(&vip));
    assert!(bench.node.leases()[&ip("172.16.40.25")].1.is_some());
}

#[test]
fn an_address_that_gets_another_router_is_that_ones() {
    let vip = ip("172.16.40.24");
    let mut bench = Bench::active(&[ONE]);
    bench.plan(&[]);
    assert_eq!(bench.node.leases()[&vip], (0, None));
    bench.plan(&[&ONE.replace("51", "53")]);
    assert_eq!(bench.node.leases()[&vip], (53, None));
    bench.act(|node, _| node.handle_removed(|_| false));
    assert_eq!(bench.node.leases()[&vip], (53, None));
    // An owner's host answers for the address whatever becomes of routers.
    bench.plan(&[&ONE.replace("vips", "priority = 255\nvips")]);
    assert!(bench.node.leases().is_empty());
}

#[test]
fn after_the_end_no_address_is_here() {
    let mut bench = Bench::active(&[ONE, TWO]);
    bench.act(|node, now| node.handle_shutdown(now));
    let leases = bench.node.leases();
    assert_eq!(leases.len(), 2);
    assert!(leases.values().all(|lease| *lease == (0, None)));
}

#[test]
fn an_owner_has_no_lease_of_its_own_address() {
    let owner = ONE.replace("vips", "priority = 255\nvips");
    let bench = successor(&[&owner], &[]);
    assert_eq!(bench.roles(), [Role::Active]);
    assert!(bench.node.leases().is_empty());
}

#[test]
fn a_virtual_mac_is_here_while_its_router_is_active() {
    let one = and(ONE, "virtual_mac = true");
    let mac = VirtualMac::v4(51);
    let mut bench = Bench::active(&[&one, TWO]);
    let macs = bench.node.macs();
    assert_eq!(macs.here, [(mac, true)].into());
    assert_eq!(macs.of(&ip("172.16.40.24")), Some(mac));
    assert_eq!(macs.of(&ip("172.16.40.25")), None);
    bench.wait(1_500);
    assert!(bench.sent.iter().any(|outgoing| outgoing.mac == Some(mac)));
    assert!(bench.sent.iter().any(|outgoing| outgoing.mac.is_none()));
    bench.hear(&one, 200, &line(Reach::Multicast));
    assert_eq!(bench.node.macs().here, [(mac, false)].into());
}
