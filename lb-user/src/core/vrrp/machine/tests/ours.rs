//! What the RFCs leave open, or do not know.

use super::bench::{Bench, from, ms, settings, settings_v2};
use crate::core::vrrp::advert::{Addresses, Priority};
use crate::core::vrrp::announce::Presence;
use crate::core::vrrp::machine::Machine;
use crate::core::vrrp::refusal::{Refusal, Remark};
use crate::core::vrrp::role::{Cause, Change, Hold, Role};
use crate::core::vrrp::settings::{Announcements, Peers, Preemption, Settings};

/// The last change of role, and when.
fn last(bench: &Bench) -> (u64, Role, Cause) {
    let (at, Change { to, cause, .. }) = *bench.log.changes.last().unwrap();
    (at, to, cause)
}

fn release(bench: &mut Bench, hold: Hold) {
    bench.act(|machine, now| machine.release(hold, now));
}

fn resume(bench: &mut Bench, hold: Hold) {
    bench.act(|machine, now| machine.resume(hold, now));
}

fn preempts_after(millis: u64, priority: u8) -> Settings {
    Settings {
        preemption: Preemption::After(ms(millis)),
        ..settings(priority)
    }
}

/// A lower Active is heard for so many seconds.
fn hear_for(bench: &mut Bench, seconds: usize, priority: u8) {
    for _ in 0..seconds {
        bench.wait(1_000);
        assert_eq!(bench.hear(priority), Ok(None));
    }
}

// Start

#[test]
fn nothing_happens_before_the_start_up_delay_is_over() {
    for priority in [100, 255] {
        let mut bench = Bench::started(Settings {
            startup_delay: ms(5_000),
            ..settings(priority)
        });
        bench.wait(4_999);
        assert_eq!(bench.hear(1), Ok(None));
        assert_eq!(bench.role(), Role::Initialize);
        assert!(bench.log.adverts.is_empty());
        bench.wait(1);
        assert_ne!(bench.role(), Role::Initialize);
    }
}

#[test]
fn a_router_that_runs_is_not_started_again() {
    let mut bench = Bench::active(settings(100));
    let before = bench.machine.clone();
    bench.act(Machine::handle_startup);
    bench.act(Machine::adopt);
    assert_eq!(bench.machine, before);
}

#[test]
fn a_router_takes_up_the_role_of_the_process_before_it() {
    let mut bench = Bench::new(settings(100));
    bench.act(Machine::adopt);
    assert_eq!(last(&bench), (0, Role::Active, Cause::Adopted));
    assert_eq!(bench.log.adverts, [(0, 100)]);
}

#[test]
fn a_held_router_does_not_take_up_the_role_of_the_process_before_it() {
    let mut bench = Bench::new(settings(100));
    release(&mut bench, Hold::Fault);
    bench.act(Machine::adopt);
    assert_eq!(bench.role(), Role::Initialize);
}

// Preemption

#[test]
fn preemption_waits_for_its_delay() {
    let mut bench = Bench::backup(preempts_after(10_000, 200), 100);
    hear_for(&mut bench, 12, 100);
    // Accepted up to 9 s; then 3 intervals and Skew_Time.
    assert_eq!(bench.role(), Role::Backup);
    hear_for(&mut bench, 1, 100);
    assert_eq!(last(&bench), (12_218, Role::Active, Cause::Preemption));
}

#[test]
fn preemption_delay_begins_anew_with_each_higher_active() {
    let mut bench = Bench::backup(preempts_after(10_000, 200), 100);
    hear_for(&mut bench, 8, 100);
    hear_for(&mut bench, 1, 200);
    hear_for(&mut bench, 12, 100);
    assert_eq!(bench.role(), Role::Backup);
}

#[test]
fn preemption_delay_does_not_hold_up_who_hears_nobody() {
    let mut bench = Bench::backup(preempts_after(3_600_000, 128), 100);
    bench.wait(3_500);
    assert_eq!(last(&bench), (3_500, Role::Active, Cause::Silence));
}

#[test]
fn preemption_delay_does_not_hold_up_who_hears_a_release() {
    let mut bench = Bench::backup(preempts_after(3_600_000, 128), 100);
    assert_eq!(bench.hear(0), Ok(None));
    bench.wait(500);
    assert_eq!(last(&bench), (500, Role::Active, Cause::PeerReleased));
}

#[test]
fn one_that_is_behind_leaves_a_living_active_alone() {
    let mut bench = Bench::started(settings(128));
    bench.machine.set_behind(true);
    hear_for(&mut bench, 60, 1);
    assert_eq!(bench.role(), Role::Backup);
    assert!(bench.machine.awaits_sync());
    bench.machine.set_behind(false);
    assert!(!bench.machine.awaits_sync());
    hear_for(&mut bench, 4, 1);
    assert_eq!(last(&bench), (63_500, Role::Active, Cause::Preemption));
}

#[test]
fn one_that_is_behind_takes_over_from_an_active_whose_priority_has_fallen() {
    let mut bench = Bench::started(settings(128));
    bench.machine.set_behind(true);
    hear_for(&mut bench, 60, 100);
    assert_eq!(bench.role(), Role::Backup);
    hear_for(&mut bench, 4, 6);
    assert_eq!(last(&bench), (63_500, Role::Active, Cause::Preemption));
}

#[test]
fn one_that_is_behind_replaces_a_dead_active_all_the_same() {
    let mut bench = Bench::backup(settings(128), 1);
    bench.machine.set_behind(true);
    bench.wait(3_500);
    assert_eq!(bench.role(), Role::Active);
}

#[test]
fn an_owner_that_is_behind_starts_as_backup() {
    let mut bench = Bench::new(settings(255));
    bench.machine.set_behind(true);
    bench.act(Machine::handle_startup);
    assert_eq!(last(&bench), (0, Role::Backup, Cause::Startup));
}

// Priority

#[test]
fn a_lowered_priority_is_sent_and_counts() {
    let mut bench = Bench::active(settings(200));
    bench.machine.set_priority(Priority(50));
    bench.wait(1_000);
    assert_eq!(bench.log.adverts, [(11_000, 50)]);
    assert_eq!(bench.hear(51), Ok(None));
    assert_eq!(bench.role(), Role::Backup);
}

#[test]
fn a_backup_waits_by_its_priority_of_the_moment() {
    let mut bench = Bench::backup(settings(200), 250);
    bench.machine.set_priority(Priority(64));
    bench.wait(3_749);
    assert_eq!(bench.role(), Role::Backup);
    bench.wait(1);
    assert_eq!(bench.role(), Role::Active);
}

#[test]
fn a_backup_whose_priority_was_raised_preempts() {
    let mut bench = Bench::backup(settings(100), 150);
    bench.machine.set_priority(Priority(192));
    hear_for(&mut bench, 4, 150);
    assert_eq!(last(&bench), (3_250, Role::Active, Cause::Preemption));
}

// Releases

#[test]
fn a_fault_ends_the_role_at_once() {
    let mut bench = Bench::active(settings(100));
    release(&mut bench, Hold::Fault);
    assert_eq!(last(&bench), (10_000, Role::Backup, Cause::Fault));
    assert_eq!(bench.log.adverts, [(10_000, 0)]);
}

#[test]
fn an_operators_release_waits_for_the_successor() {
    let mut bench = Bench::active(settings(100));
    release(&mut bench, Hold::Operator);
    assert_eq!(bench.log.adverts, [(10_000, 0)]);
    bench.wait(300);
    assert!(bench.role() == Role::Active && bench.machine.is_leaving());
    assert_eq!(bench.hear(1), Ok(None));
    assert_eq!(last(&bench), (10_300, Role::Backup, Cause::Operator));
    assert_eq!(bench.machine.active().unwrap().priority, Priority(1));
    assert_eq!(bench.log.adverts, [(10_000, 0)]);
}

#[test]
fn who_hands_over_keeps_the_addresses_until_the_successor_has_had_time_to_place_them() {
    let higher = |bench: &mut Bench| assert_eq!(bench.hear(200), Ok(None));
    let released = |bench: &mut Bench| {
        release(bench, Hold::Operator);
        assert_eq!(bench.hear(1), Ok(None));
    };
    for hand_over in [higher, released] {
        let mut bench = Bench::active(settings(100));
        hand_over(&mut bench);
        assert!(bench.role() == Role::Backup && bench.machine.accepts());
        assert_eq!(bench.machine.lease(), None, "neighbours are not told so");
        bench.wait(199);
        assert!(bench.machine.accepts());
        bench.wait(1);
        assert!(!bench.machine.accepts());
        bench.log.announcements.clear();
        bench.wait(3_000);
        assert!(bench.log.announcements.is_empty());
    }
}

#[test]
fn a_fault_takes_the_addresses_of_who_has_handed_over() {
    let mut bench = Bench::active(settings(100));
    assert_eq!(bench.hear(200), Ok(None));
    release(&mut bench, Hold::Fault);
    assert!(!bench.machine.accepts());
}

#[test]
fn a_lease_ends_before_any_peer_takes_over() {
    let mut bench = Bench::active(settings(100));
    bench.wait(999);
    let (last, before) = (bench.now - ms(999), bench.machine.lease().unwrap());
    assert!(before > last + ms(3_000) && before < last + ms(3_000 + 1_000 * 2 / 256));
    bench.wait(1);
    assert_eq!(bench.machine.lease().unwrap(), before + ms(1_000));
    release(&mut bench, Hold::Fault);
    assert_eq!(bench.machine.lease(), None);
}

#[test]
fn an_operators_release_is_said_again_and_ends_without_a_successor() {
    let mut bench = Bench::active(settings(100));
    release(&mut bench, Hold::Operator);
    assert_eq!(bench.hear(0), Ok(None));
    bench.wait(20_000);
    assert_eq!(last(&bench), (13_996, Role::Backup, Cause::Operator));
    let releases = [10_000, 11_000, 12_000, 13_000].map(|at| (at, 0));
    assert_eq!(bench.log.adverts, releases);
}

#[test]
fn a_fault_ends_the_role_of_who_waits_for_a_successor() {
    let mut bench = Bench::active(settings(100));
    release(&mut bench, Hold::Operator);
    release(&mut bench, Hold::Fault);
    assert_eq!(last(&bench), (10_000, Role::Backup, Cause::Fault));
}

#[test]
fn who_resumes_before_a_successor_is_there_stays_active() {
    let mut bench = Bench::active(settings(100));
    release(&mut bench, Hold::Operator);
    bench.wait(300);
    resume(&mut bench, Hold::Operator);
    bench.wait(1_000);
    assert_eq!(
        bench.log.adverts,
        [(10_000, 0), (10_300, 100), (11_300, 100)]
    );
    assert!(bench.log.changes.is_empty());
}

#[test]
fn a_held_router_stays_backup_until_all_reasons_are_gone() {
    let mut bench = Bench::backup(settings(128), 200);
    release(&mut bench, Hold::Operator);
    release(&mut bench, Hold::Fault);
    bench.wait(60_000);
    assert_eq!(
        bench.machine.active(),
        None,
        "the Active is known to be dead"
    );
    resume(&mut bench, Hold::Operator);
    bench.wait(60_000);
    assert_eq!(bench.role(), Role::Backup);
    resume(&mut bench, Hold::Fault);
    bench.wait(3_499);
    assert_eq!(bench.role(), Role::Backup);
    bench.wait(1);
    assert_eq!(last(&bench), (123_500, Role::Active, Cause::Silence));
}

#[test]
fn a_held_owner_starts_as_backup() {
    let mut bench = Bench::new(settings(255));
    release(&mut bench, Hold::Fault);
    bench.act(Machine::handle_startup);
    bench.wait(60_000);
    assert_eq!(bench.role(), Role::Backup);
    assert!(bench.log.adverts.is_empty());
}

#[test]
fn a_held_router_knows_the_active_whatever_its_priority() {
    let mut bench = Bench::started(settings(128));
    release(&mut bench, Hold::Operator);
    hear_for(&mut bench, 60, 1);
    assert_eq!(bench.machine.active().unwrap().priority, Priority(1));
    resume(&mut bench, Hold::Operator);
    hear_for(&mut bench, 4, 1);
    assert_eq!(last(&bench), (63_500, Role::Active, Cause::Preemption));
}

// Announcements

#[test]
fn addresses_are_announced_again_when_a_peer_was_active() {
    for priority in [0, 99, 100] {
        let mut bench = Bench::active(settings(100));
        bench.wait(700);
        let advert = bench.advert(priority);
        assert_eq!(bench.hear_it(&advert, &from("10.0.0.4")), Ok(None));
        bench.wait(60_000);
        assert_eq!(bench.log.announcements, [10_700, 11_200, 11_700]);
    }
}

#[test]
fn who_yields_says_so_once() {
    let mut bench = Bench::active(settings(100));
    assert_eq!(bench.hear(150), Ok(None));
    assert_eq!(bench.log.adverts, [(10_000, 100)]);
    assert_eq!(bench.hear(150), Ok(None));
    bench.wait(3_000);
    assert_eq!(bench.log.adverts, [(10_000, 100)]);
}

#[test]
fn addresses_are_announced_again_after_a_stall() {
    let mut bench = Bench::active(settings(100));
    bench.now += ms(3_004);
    bench.act(Machine::handle_timeout);
    assert_eq!(bench.log.announcements, [13_004]);
}

#[test]
fn addresses_are_not_announced_again_after_a_short_stall() {
    let mut bench = Bench::active(settings(100));
    bench.now += ms(3_000);
    bench.act(Machine::handle_timeout);
    bench.wait(60_000);
    assert!(bench.log.announcements.is_empty());
}

#[test]
fn a_peer_that_goes_on_does_not_hasten_announcements() {
    let mut bench = Bench::active(settings(100));
    for _ in 0..20 {
        assert_eq!(bench.hear(50), Ok(None));
        bench.wait(100);
    }
    assert_eq!(
        bench.log.announcements,
        [10_000, 10_500, 11_000, 11_500, 12_000]
    );
}

#[test]
fn the_first_sign_after_a_pause_is_answered_at_once() {
    let mut bench = Bench::active(settings(100));
    bench.act(Machine::handle_doubt);
    bench.wait(4_100);
    bench.act(Machine::handle_doubt);
    assert_eq!(bench.log.announcements.last(), Some(&14_100));
}

#[test]
fn a_block_in_progress_is_begun_anew_for_the_first_sign() {
    let mut bench = Bench::new(settings(100));
    bench.act(Machine::adopt);
    bench.wait(1_200);
    bench.act(Machine::handle_doubt);
    bench.wait(10_000);
    let announced = [0, 500, 1_000, 1_200, 1_700, 2_200];
    assert_eq!(bench.log.announcements, announced);
}

#[test]
fn announcements_are_refreshed_if_asked_for() {
    let plain = settings(100);
    let mut bench = Bench::new(Settings {
        announcements: Announcements {
            refresh: Some(ms(4_000)),
            ..plain.announcements
        },
        ..plain
    });
    bench.act(Machine::adopt);
    bench.wait(9_000);
    assert_eq!(bench.log.announcements, [0, 500, 1_000, 5_000, 9_000]);
}

#[test]
fn addresses_that_were_lost_and_are_back_are_announced() {
    let mut bench = Bench::active(settings(100));
    bench.act(|machine, now| machine.handle_presence(Presence::Absent, now));
    bench.wait(250);
    bench.act(|machine, now| machine.handle_presence(Presence::Present, now));
    assert_eq!(bench.log.announcements, [10_250]);
}

#[test]
fn nothing_is_announced_after_the_role_is_gone() {
    let mut bench = Bench::new(settings(100));
    bench.act(Machine::adopt);
    assert_eq!(bench.hear(200), Ok(None));
    bench.wait(3_000);
    assert_eq!(bench.log.announcements, [0]);
}

// Refusals

#[test]
fn a_refused_advert_changes_nothing_but_its_counter() {
    let unicast = Settings {
        peers: Peers::Unicast(vec!["10.0.0.9".parse().unwrap()]),
        ..settings(100)
    };
    for mut bench in [Bench::active(unicast.clone()), Bench::backup(unicast, 200)] {
        let mut expected = bench.machine.clone();
        expected.counters.refused.count(Refusal::Stranger);
        let advert = bench.advert(255);
        let refused = bench.hear_it(&advert, &from("10.0.0.10"));
        assert_eq!(refused, Err(Refusal::Stranger));
        assert_eq!(bench.machine, expected);
    }
}

#[test]
fn other_addresses_are_a_remark_and_do_not_make_two_actives() {
    for settings in [settings(100), settings_v2(100)] {
        let mut bench = Bench::active(settings);
        let mut advert = bench.advert(200);
        advert.addresses = Addresses::new(["10.0.0.200".parse().unwrap()]).unwrap();
        let heard = bench.hear_it(&advert, &from("10.0.0.9"));
        assert_eq!(heard, Ok(Some(Remark::AddressesDiffer)));
        assert_eq!(bench.role(), Role::Backup);
        let remarks = &bench.machine.counters().remarks;
        assert_eq!(remarks.of(Remark::AddressesDiffer), 1);
    }
}

// Counters

#[test]
fn what_happens_is_counted() {
    let mut bench = Bench::active(settings(100));
    assert_eq!(bench.hear(0), Ok(None));
    assert_eq!(bench.hear(50), Ok(None));
    release(&mut bench, Hold::Fault);
    let counters = bench.machine.counters();
    assert_eq!((counters.received, counters.releases_received), (2, 1));
    assert_eq!((counters.contests, counters.takeovers), (2, 1));
    // One at the start and ten after it; the answers to both; the release.
    assert_eq!((counters.sent, counters.releases_sent), (14, 1));
    assert_eq!(counters.announcements, 4);
}

#[test]
fn changes_that_nobody_asked_about_are_one() {
    let mut bench = Bench::new(settings(100));
    let now = bench.now;
    bench.machine.adopt(now);
    bench.machine.release(Hold::Fault, now);
    let change = Change {
        from: Role::Initialize,
        to: Role::Backup,
        cause: Cause::Fault,
    };
    assert_eq!(bench.machine.poll_change(), Some(change));
    assert_eq!(bench.machine.poll_change(), None);
}
