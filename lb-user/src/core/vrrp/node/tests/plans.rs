//! Routers that come, change and go.

use super::{Bench, ONE, Plan, SIX, TWO, and, ip, line, plan};
use crate::core::vrrp::node::{Event, Node};
use crate::core::vrrp::role::{Cause, Role};
use crate::core::vrrp::settings::Reach;

#[test]
fn a_plan_disturbs_nobody_who_stays_as_it_was() {
    let mut bench = Bench::active(&[ONE, TWO]);
    let before = bench.states();
    bench.plan(&[ONE]);
    assert_eq!(bench.states(), before[..1]);
    assert_eq!(bench.priorities(), [(52, 0)], "who goes says goodbye");
    assert_eq!(bench.node.held(), [ip("172.16.40.24")].into());
    bench.plan(&[TWO, ONE]);
    assert_eq!(bench.roles(), [Role::Backup, Role::Active]);
    assert_eq!(bench.states()[1], before[0]);
}

#[test]
fn a_router_that_changes_keeps_its_role() {
    let mut bench = Bench::active(&[ONE, TWO]);
    bench.plan(&[&and(ONE, "priority = 120"), TWO]);
    assert_eq!(bench.roles(), [Role::Active; 2]);
    assert_eq!(bench.cause(), Cause::Adopted);
    assert_eq!(bench.priorities(), [(51, 120)]);
    // What nobody hears of is not the same router.
    bench.plan(&[&ONE.replace("51", "61"), TWO]);
    assert_eq!(bench.roles(), [Role::Backup, Role::Active]);
    assert_eq!(bench.priorities(), [(51, 0)]);
}

#[test]
fn a_router_that_is_renamed_keeps_its_role_and_what_was_said_of_it() {
    let renamed = ONE.replace("\"one\"", "\"uno\"");
    let mut bench = Bench::active(&[ONE]);
    bench.plan(&[&renamed]);
    assert_eq!(bench.roles(), [Role::Active]);
    assert_eq!(bench.priorities(), [(51, 100)], "and no release");
    bench.act(|node, now| node.release("uno", now).unwrap());
    bench.plan(&[ONE]);
    bench.wait(60_000);
    assert_eq!(bench.roles(), [Role::Backup]);
}

#[test]
fn a_router_whose_addresses_were_held_alone_goes_on_holding_them() {
    let mut bench = Bench::new(&[]);
    let mut inherit = |routers: &[&str], vips: &[&str]| {
        let inherited = vips.iter().map(|vip| ip(vip)).collect();
        let plan = Plan {
            inherited,
            ..plan(routers)
        };
        bench.act(|node, now| node.handle_plan(plan, now));
        (bench.roles(), bench.cause())
    };
    let both = ["172.16.40.24", "172.16.40.25"];
    let adopted = (vec![Role::Active], Cause::Adopted);
    assert_eq!(inherit(&[ONE], &both), adopted);
    // What a router has had goes first.
    let other = ONE.replace("51", "61");
    let (roles, _cause) = inherit(&[&other, TWO], &both);
    assert_eq!(roles, [Role::Backup, Role::Active]);
}

#[test]
fn a_router_with_an_address_that_was_not_held_waits() {
    let mut bench = Bench::new(&[]);
    let plan = Plan {
        inherited: [ip("172.16.40.24"), ip("fe80::40:24")].into(),
        ..plan(&[ONE, SIX, TWO])
    };
    bench.act(|node, now| node.handle_plan(plan, now));
    assert_eq!(bench.roles(), [Role::Active, Role::Backup, Role::Backup]);
}

#[test]
fn a_released_router_that_changes_stays_released() {
    let mut bench = Bench::active(&[ONE]);
    bench.act(|node, now| node.release("one", now).unwrap());
    bench.plan(&[&and(ONE, "priority = 120")]);
    bench.wait(60_000);
    assert_eq!(bench.roles(), [Role::Backup]);
    bench.act(|node, now| node.resume("one", now).unwrap());
    bench.wait(4_000);
    assert_eq!(bench.roles(), [Role::Active]);
}

#[test]
fn a_shutdown_says_goodbye_for_all() {
    let mut bench = Bench::active(&[ONE, TWO]);
    bench.act(Node::handle_shutdown);
    assert_eq!(bench.priorities(), [(51, 0), (52, 0)]);
    assert!(bench.node.held().is_empty() && bench.node.lines().is_empty());
    assert_eq!(bench.node.next_deadline(), None);
}

#[test]
fn lines_stay_open_for_what_is_still_to_go() {
    let mut bench = Bench::active(&[ONE]);
    bench.node.handle_shutdown(bench.now);
    assert_eq!(bench.node.lines(), [line(Reach::Multicast)].into());
    assert!(bench.node.poll_outgoing().is_some());
    assert!(bench.node.lines().is_empty());
}

#[test]
fn a_router_that_changes_waits_for_no_start_again() {
    let late = and(ONE, "startup_delay = \"10m\"");
    let mut bench = Bench::new(&[&late]);
    bench.wait(700_000);
    bench.act(|node, now| node.release("one", now).unwrap());
    bench.wait(60_000);
    bench.plan(&[&and(&late, "priority = 120")]);
    assert_eq!(bench.roles(), [Role::Backup]);
}

#[test]
fn who_loses_its_role_with_its_router_is_told_of_all_the_same() {
    let last = |bench: &Bench| {
        let mut changes = bench.events.iter().filter_map(|event| {
            let Event::Changed { change, .. } = event else {
                return None;
            };
            Some((change.from, change.to, change.cause))
        });
        changes.next_back()
    };
    let expected = Some((Role::Active, Role::Initialize, Cause::Shutdown));
    let mut bench = Bench::active(&[ONE]);
    bench.act(Node::handle_shutdown);
    assert_eq!(last(&bench), expected);
    let mut bench = Bench::active(&[ONE]);
    bench.plan(&[]);
    assert_eq!(last(&bench), expected);
}
