//! Gateways and scripts that routers depend on.

use proptest::prelude::*;

use super::{Bench, ONE, SIX, and, line};
use crate::core::vrrp::node::{Backing, Event, Fault, Handicap};
use crate::core::vrrp::role::{Cause, Role};
use crate::core::vrrp::settings::Reach;
use crate::core::vrrp::track::TrackState;

const SOUND: [(&str, Backing); 1] = [("172.16.40.24", Backing::Sound)];
const SILENT: [(&str, Backing); 1] = [("172.16.40.24", Backing::Silent)];
const GATEWAY: &str = "priority = 200\ntrack = [{ name = \"gw\", gateway = \"172.16.40.1\" }]";
const WEIGHED: &str = "priority = 200\ntrack = [\
    { name = \"gw\", gateway = \"172.16.40.1\", weight = -50 }, \
    { name = \"it\", script = [\"/bin/true\"], weight = -120 }]";

impl Bench {
    fn track(&mut self, router: &str, name: &str, state: TrackState) {
        self.tracked
            .insert((router.to_owned(), name.to_owned()), state);
        self.forward(true, &SOUND);
    }
}

#[test]
fn nobody_becomes_active_before_what_it_depends_on_was_tried() {
    // With a weight too: it might turn out to have less priority than the one that it would replace.
    let weighed = GATEWAY.replace(" }]", ", weight = -50 }]");
    let mut bench = Bench::new(&[&and(ONE, &weighed)]);
    bench.wait(20_000);
    assert_ne!(bench.roles(), [Role::Active]);
    bench.track("one", "gw", TrackState::Down);
    bench.wait(5_000);
    assert_eq!(bench.roles(), [Role::Active]);

    let mut bench = Bench::new(&[&and(ONE, GATEWAY)]);
    bench.wait(20_000);
    assert_eq!(bench.faults(0), [Fault::Tracked]);
    assert_ne!(bench.roles(), [Role::Active]);
    bench.track("one", "gw", TrackState::Up);
    bench.wait(5_000);
    assert_eq!(bench.roles(), [Role::Active]);
    assert_eq!(
        bench.states()[0].tracked,
        [("gw".to_owned(), TrackState::Up)]
    );
}

#[test]
fn who_is_active_when_it_is_configured_stays_so_until_it_is_known_to_be_down() {
    let mut bench = Bench::active(&[&and(ONE, "priority = 200")]);
    bench.plan(&[&and(ONE, GATEWAY)]);
    bench.wait(2_000);
    assert_eq!(bench.roles(), [Role::Active]);
    bench.track("one", "gw", TrackState::Down);
    bench.wait(5_000);
    assert_ne!(bench.roles(), [Role::Active]);
    assert_eq!(
        (bench.faults(0), bench.cause()),
        (vec![Fault::Tracked], Cause::Fault)
    );
    bench.track("one", "gw", TrackState::Up);
    bench.wait(5_000);
    assert_eq!(bench.roles(), [Role::Active]);
}

#[test]
fn what_has_a_weight_costs_priority_and_not_the_role() {
    let mut bench = Bench::active(&[&and(ONE, "priority = 200")]);
    bench.plan(&[&and(ONE, WEIGHED)]);
    let priority = |bench: &Bench| bench.states()[0].priority.0;
    bench.track("one", "gw", TrackState::Down);
    assert_eq!(priority(&bench), 150);
    assert_eq!(bench.states()[0].handicaps, [Handicap::Tracked].into());
    bench.track("one", "it", TrackState::Down);
    assert_eq!(priority(&bench), 30);
    bench.wait(5_000);
    assert_eq!(bench.roles(), [Role::Active], "nobody else may be there");
    bench.forward(true, &SILENT);
    assert_eq!(priority(&bench), 1);
    bench.forward(true, &SOUND);
    bench.hear(ONE, 100, &line(Reach::Multicast));
    assert_eq!(
        (bench.roles(), bench.cause()),
        (vec![Role::Backup], Cause::HigherPriority)
    );
    bench.track("one", "gw", TrackState::Up);
    bench.track("one", "it", TrackState::Up);
    assert_eq!(priority(&bench), 200);
    let told = bench.events.iter();
    let told = told.filter(|event| matches!(event, Event::Handicap { .. }));
    assert_eq!(told.count(), 6);
}

#[test]
fn routers_of_a_group_lose_the_same() {
    let (one, six) = (and(ONE, "group = \"g\"\n"), and(SIX, "group = \"g\""));
    let mut bench = Bench::active(&[&and(&one, "priority = 200"), &six]);
    bench.plan(&[&and(&one, WEIGHED), &six]);
    let priorities = |bench: &Bench| -> Vec<u8> {
        bench
            .states()
            .iter()
            .map(|state| state.priority.0)
            .collect()
    };
    let before = priorities(&bench);
    bench.track("one", "gw", TrackState::Down);
    let after = priorities(&bench);
    assert_eq!(after[0], before[0] - 50);
    assert_eq!(after[1], before[1].saturating_sub(50).max(1));
}

proptest! {
    #[test]
    fn a_priority_is_what_is_left_and_never_none(
        states in proptest::collection::vec((any::<bool>(), 0..3_u8), 1..40),
        configured in 1..255_u8,
    ) {
        let priority = format!("priority = {configured}");
        let keys = WEIGHED.replace("priority = 200", &priority);
        let mut bench = Bench::active(&[&and(ONE, &priority)]);
        bench.plan(&[&and(ONE, &keys)]);
        let mut down = [false; 2];
        for (which, state) in states {
            let state = [TrackState::Unknown, TrackState::Up, TrackState::Down][usize::from(state)];
            bench.track("one", if which { "gw" } else { "it" }, state);
            down[usize::from(!which)] = state == TrackState::Down;
            let cost = if down[0] { 50 } else { 0 } + if down[1] { 120 } else { 0 };
            let left = configured.saturating_sub(cost).max(1);
            prop_assert_eq!(bench.states()[0].priority.0, left);
            prop_assert_eq!(bench.roles(), [Role::Active]);
        }
    }
}
