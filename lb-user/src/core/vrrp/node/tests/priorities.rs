//! Priorities that are lower than configured.

use super::{Bench, ONE, SIX, and, line};
use crate::core::vrrp::node::{Backing, Event, Handicap};
use crate::core::vrrp::role::{Cause, Role};
use crate::core::vrrp::settings::Reach;

const SILENT: [(&str, Backing); 1] = [("172.16.40.24", Backing::Silent)];
const SOUND: [(&str, Backing); 1] = [("172.16.40.24", Backing::Sound)];

/// The priority that is left of 200.
const LOWERED: u8 = 12;

/// A lower Active is heard for so many seconds.
fn hear_for(bench: &mut Bench, seconds: usize, router: &str, priority: u8) {
    for _ in 0..seconds {
        bench.wait(1_000);
        bench.hear(router, priority, &line(Reach::Multicast));
    }
}

#[test]
fn an_active_that_hears_no_backend_goes_on_with_a_lower_priority() {
    let mut bench = Bench::active(&[&and(ONE, "priority = 200")]);
    bench.forward(true, &SILENT);
    bench.wait(1_000);
    assert_eq!(bench.roles(), [Role::Active], "nobody else may be there");
    assert_eq!(bench.priorities(), [(51, LOWERED)]);
    assert!(bench.faults(0).is_empty());
    assert_eq!(
        bench.states()[0].handicaps,
        [Handicap::SilentBackends].into()
    );
    bench.forward(true, &SOUND);
    bench.wait(1_000);
    assert_eq!(bench.priorities(), [(51, 200)]);
    assert_eq!(bench.states()[0].handicaps, [].into());
    let told = bench.events.iter();
    let told = told.filter(|event| matches!(event, Event::Handicap { .. }));
    assert_eq!(told.count(), 2);
}

#[test]
fn a_peer_that_hears_its_backends_takes_the_role_of_who_does_not() {
    let mut bench = Bench::active(&[&and(ONE, "priority = 200")]);
    bench.forward(true, &SILENT);
    bench.hear(ONE, 100, &line(Reach::Multicast));
    assert_eq!(bench.roles(), [Role::Backup]);
    assert_eq!(bench.cause(), Cause::HigherPriority);
    // It is back when it hears somebody.
    hear_for(&mut bench, 60, ONE, 100);
    assert_eq!(bench.roles(), [Role::Backup]);
    bench.forward(true, &SOUND);
    hear_for(&mut bench, 5, ONE, 100);
    assert_eq!(bench.roles(), [Role::Active]);
}

#[test]
fn a_backup_takes_over_from_an_active_that_hears_no_backend() {
    let mut bench = Bench::new(&[ONE]);
    hear_for(&mut bench, 10, ONE, 200);
    assert_eq!(bench.roles(), [Role::Backup]);
    hear_for(&mut bench, 5, ONE, LOWERED);
    assert_eq!(bench.roles(), [Role::Active]);
}

#[test]
fn of_two_nodes_that_hear_no_backend_both_stay_what_they_are() {
    let mut backup = Bench::new(&[ONE]);
    backup.forward(true, &SILENT);
    hear_for(&mut backup, 60, ONE, LOWERED);
    assert_eq!(backup.roles(), [Role::Backup]);
    // The same if they have not heard each other meanwhile.
    let mut active = Bench::active(&[&and(ONE, "priority = 200")]);
    active.forward(true, &SILENT);
    let lowered = backup.states()[0].priority.0;
    active.hear(ONE, lowered, &line(Reach::Multicast));
    assert_eq!(active.roles(), [Role::Active]);
}

#[test]
fn a_priority_is_never_lowered_to_none() {
    let mut bench = Bench::active(&[&and(ONE, "priority = 1")]);
    bench.forward(true, &SILENT);
    bench.wait(1_000);
    assert_eq!(bench.priorities(), [(51, 1)]);
    assert_eq!(bench.roles(), [Role::Active]);
}

#[test]
fn who_is_to_stay_without_backends_and_who_owns_the_addresses_keep_their_priority() {
    for keys in [
        "priority = 200\nwithout_backends = \"stay\"",
        "priority = 255",
    ] {
        let mut bench = Bench::active(&[&and(ONE, keys)]);
        let before = bench.states()[0].priority;
        bench.forward(true, &SILENT);
        assert_eq!(bench.states()[0].priority, before);
        assert_eq!(bench.states()[0].handicaps, [].into());
    }
}

#[test]
fn a_group_keeps_its_priority_while_one_of_its_addresses_is_served() {
    let (one, six) = (and(ONE, "group = \"g\""), and(SIX, "group = \"g\""));
    let mut bench = Bench::active(&[&one, &six]);
    let lowered = |bench: &Bench| {
        let states = bench.states();
        states
            .iter()
            .filter(|state| !state.handicaps.is_empty())
            .count()
    };
    let v6 = |backing| [SILENT[0], ("fd00:40::24", backing)];
    bench.forward(true, &v6(Backing::Sound));
    assert_eq!(lowered(&bench), 0);
    for backing in [Backing::Silent, Backing::Nobody] {
        bench.forward(true, &v6(backing));
        assert_eq!(lowered(&bench), 2);
    }
}

#[test]
fn a_router_that_changes_keeps_its_lower_priority() {
    let mut bench = Bench::active(&[ONE]);
    bench.forward(true, &SILENT);
    bench.wait(1_000);
    bench.sent.clear();
    bench.plan(&[&and(ONE, "priority = 200")]);
    assert_eq!(bench.roles(), [Role::Active]);
    assert_eq!(bench.priorities(), [(51, LOWERED)]);
}
