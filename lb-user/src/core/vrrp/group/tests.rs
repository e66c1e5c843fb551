//! Groups of two, with peers that are made up. What whole nodes do is in the simulation.

use std::time::{Duration, Instant};

use super::Group;
use crate::core::vrrp::advert::{Priority, Vrid};
use crate::core::vrrp::announce::Presence;
use crate::core::vrrp::machine::Machine;
use crate::core::vrrp::machine::tests::bench::{epoch, from, ms, settings};
use crate::core::vrrp::refusal::Refusal;
use crate::core::vrrp::role::{Cause, Change, Hold, Role};
use crate::core::vrrp::settings::Settings;

struct Pair {
    group: Group,
    start: Instant,
    now: Instant,
    /// Milliseconds, member, priority.
    adverts: Vec<(u128, usize, u8)>,
    changes: Vec<(u128, usize, Role, Cause)>,
}

impl Pair {
    /// Two routers of this priority that have been started.
    fn started(priority: u8) -> Self {
        let start = epoch();
        let machine = |vrid| {
            let settings = Settings {
                vrid: Vrid::new(vrid).unwrap(),
                ..settings(priority)
            };
            let mut machine = Machine::new(settings).unwrap();
            machine.handle_presence(Presence::Present, start);
            machine
        };
        let mut pair = Self {
            group: Group::new(vec![machine(1), machine(2)]),
            start,
            now: start,
            adverts: Vec::new(),
            changes: Vec::new(),
        };
        pair.act(|group, now| group.handle_startup(now));
        pair
    }

    /// Two that are Active.
    fn active(priority: u8) -> Self {
        let mut pair = Self::started(priority);
        pair.wait(4_000);
        assert_eq!(pair.roles(), [Role::Active; 2]);
        pair.adverts.clear();
        pair.changes.clear();
        pair
    }

    fn act<T>(&mut self, action: impl FnOnce(&mut Group, Instant) -> T) -> T {
        let result = action(&mut self.group, self.now);
        let at = self.now.duration_since(self.start).as_millis();
        while let Some((member, advert)) = self.group.poll_advert() {
            self.adverts.push((at, member, advert.priority.0));
        }
        while let Some((member, Change { to, cause, .. })) = self.group.poll_change() {
            self.changes.push((at, member, to, cause));
        }
        while self.group.poll_announce(self.now).is_some() {}
        result
    }

    fn wait(&mut self, millis: u64) {
        let end = self.now + ms(millis);
        while let Some(at) = self.group.next_deadline().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.act(Group::handle_timeout);
        }
        self.now = end;
    }

    fn hear(&mut self, member: usize, priority: u8) {
        let settings = self.group.machines().nth(member).unwrap().settings();
        let advert = settings.advert(Priority(priority));
        let heard =
            self.act(|group, now| group.handle_advert(member, &advert, &from("10.0.0.9"), now));
        assert_eq!(heard, Ok(None));
    }

    fn release(&mut self, member: usize, hold: Hold) {
        self.act(|group, now| group.update(member, now, |machine| machine.release(hold, now)));
    }

    fn resume(&mut self, member: usize, hold: Hold) {
        self.act(|group, now| group.update(member, now, |machine| machine.resume(hold, now)));
    }

    fn roles(&self) -> Vec<Role> {
        self.group.machines().map(Machine::role).collect()
    }

    fn holds(&self) -> Vec<Vec<Hold>> {
        let holds = |machine: &Machine| machine.holds().collect();
        self.group.machines().map(holds).collect()
    }
}

#[test]
fn one_that_becomes_active_takes_the_other_along() {
    let mut pair = Pair::started(128);
    pair.hear(0, 200);
    pair.wait(400);
    pair.hear(1, 200);
    pair.changes.clear();
    pair.wait(4_000);
    let expected = [
        (3_500, 0, Role::Active, Cause::Silence),
        (3_500, 1, Role::Active, Cause::Group),
    ];
    assert_eq!(pair.changes, expected);
    assert_eq!(pair.adverts[..2], [(3_500, 0, 128), (3_500, 1, 128)]);
}

#[test]
fn one_that_hears_nobody_waits_while_the_other_follows_an_active() {
    let mut pair = Pair::started(128);
    for _ in 0..30 {
        pair.hear(1, 200);
        pair.wait(1_000);
    }
    assert_eq!(pair.roles(), [Role::Backup; 2]);
    pair.changes.clear();
    pair.wait(10_000);
    let of_both = [29_000 + 3_500; 2];
    let times: Vec<u128> = pair.changes.iter().map(|(at, ..)| *at).collect();
    assert_eq!(times, of_both, "when the Active falls silent");
    assert_eq!(pair.roles(), [Role::Active; 2]);
}

#[test]
fn one_that_missed_a_single_advert_more_does_not_take_over_alone() {
    let mut pair = Pair::started(128);
    pair.hear(0, 200);
    pair.wait(1_000);
    pair.hear(1, 200);
    pair.wait(1);
    pair.hear(1, 200);
    pair.wait(2_600);
    assert_eq!(pair.roles(), [Role::Backup; 2]);
}

#[test]
fn one_that_preempts_takes_along_one_that_would() {
    let mut pair = Pair::started(128);
    for _ in 0..4 {
        pair.wait(999);
        pair.hear(0, 100);
        pair.hear(1, 100);
    }
    assert_eq!(pair.roles(), [Role::Active; 2]);
}

#[test]
fn one_that_would_preempt_waits_while_the_other_follows_a_higher_active() {
    let mut pair = Pair::started(128);
    for _ in 0..30 {
        pair.hear(0, 100);
        pair.hear(1, 200);
        pair.wait(1_000);
    }
    assert_eq!(pair.roles(), [Role::Backup; 2]);
}

#[test]
fn one_that_yields_takes_the_other_along_when_its_successor_is_there() {
    let mut pair = Pair::active(128);
    pair.hear(0, 200);
    assert_eq!(pair.roles(), [Role::Backup, Role::Active]);
    assert_eq!(pair.adverts, [(4_000, 0, 128), (4_000, 1, 0)]);
    pair.wait(100);
    pair.hear(1, 200);
    let expected = [
        (4_000, 0, Role::Backup, Cause::HigherPriority),
        (4_100, 1, Role::Backup, Cause::Group),
    ];
    assert_eq!(pair.changes, expected);
}

#[test]
fn a_fault_of_one_makes_both_leave_and_stay_away() {
    let mut pair = Pair::active(128);
    pair.release(0, Hold::Fault);
    assert_eq!(pair.holds(), [vec![Hold::Fault], vec![Hold::Group]]);
    assert_eq!(pair.adverts, [(4_000, 0, 0), (4_000, 1, 0)]);
    assert_eq!(pair.roles(), [Role::Backup, Role::Active]);
    pair.hear(1, 100);
    assert_eq!(pair.roles(), [Role::Backup; 2]);
    pair.wait(60_000);
    assert_eq!(pair.roles(), [Role::Backup; 2]);
    pair.resume(0, Hold::Fault);
    assert_eq!(pair.holds(), [vec![], vec![]]);
    pair.wait(3_500);
    assert_eq!(pair.roles(), [Role::Active; 2]);
}

#[test]
fn two_faults_are_over_when_both_are() {
    let mut pair = Pair::active(128);
    pair.release(0, Hold::Fault);
    pair.release(1, Hold::Fault);
    assert_eq!(pair.roles(), [Role::Backup; 2]);
    pair.resume(0, Hold::Fault);
    assert_eq!(pair.holds(), [vec![Hold::Group], vec![Hold::Fault]]);
    pair.wait(60_000);
    assert_eq!(pair.roles(), [Role::Backup; 2]);
    pair.resume(1, Hold::Fault);
    pair.wait(3_500);
    assert_eq!(pair.roles(), [Role::Active; 2]);
}

#[test]
fn an_operators_release_of_one_is_one_of_both() {
    let mut pair = Pair::active(128);
    pair.release(1, Hold::Operator);
    assert_eq!(
        pair.roles(),
        [Role::Active; 2],
        "until successors are there"
    );
    pair.hear(0, 100);
    pair.hear(1, 100);
    assert_eq!(pair.roles(), [Role::Backup; 2]);
}

#[test]
fn both_stay_active_if_the_release_is_taken_back() {
    let mut pair = Pair::active(128);
    pair.release(0, Hold::Operator);
    pair.resume(0, Hold::Operator);
    pair.wait(60_000);
    assert_eq!(pair.roles(), [Role::Active; 2]);
    assert!(pair.changes.is_empty());
}

#[test]
fn one_that_is_shut_down_takes_nobody_along() {
    let mut pair = Pair::active(128);
    pair.act(|group, now| group.update(0, now, Machine::handle_shutdown));
    assert_eq!(pair.roles(), [Role::Initialize, Role::Active]);
    pair.wait(60_000);
    assert_eq!(pair.roles(), [Role::Initialize, Role::Active]);
}

#[test]
fn all_are_started_and_shut_down_together() {
    let mut pair = Pair::active(255);
    pair.act(|group, now| group.handle_shutdown(now));
    assert_eq!(pair.roles(), [Role::Initialize; 2]);
    assert_eq!(pair.adverts, [(4_000, 0, 0), (4_000, 1, 0)]);
    assert_eq!(pair.group.next_deadline(), None);
}

#[test]
fn adverts_for_a_member_that_is_not_there_are_refused() {
    let mut pair = Pair::started(128);
    let before = pair.group.clone();
    let advert = settings(128).advert(Priority(1));
    let now = pair.now + Duration::from_secs(1);
    let refused = pair.group.handle_advert(2, &advert, &from("10.0.0.9"), now);
    assert_eq!(refused, Err(Refusal::Vrid));
    assert_eq!(pair.group, before);
}
