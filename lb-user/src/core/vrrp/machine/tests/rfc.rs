//! RFC 9568, 6.4 and 8, rule by rule; priorities are those of the virtual router's peers.

use super::bench::{Bench, from, ms, settings, settings_v2, settings_v6};
use crate::core::vrrp::advert::{Advert, Interval, Priority};
use crate::core::vrrp::announce::Presence;
use crate::core::vrrp::machine::Machine;
use crate::core::vrrp::role::{Cause, Change, Role};
use crate::core::vrrp::settings::{AcceptMode, Preemption, Settings};

fn changes(bench: &Bench) -> Vec<(u64, Role, Cause)> {
    let of = |(at, change): &(u64, Change)| (*at, change.to, change.cause);
    bench.log.changes.iter().map(of).collect()
}

fn with_interval(advert: Advert, centiseconds: u16) -> Advert {
    let interval = Interval::centiseconds(centiseconds).unwrap();
    Advert { interval, ..advert }
}

// 5.2.4

#[test]
fn an_owner_has_priority_255_whatever_tracking_finds() {
    let mut bench = Bench::started(settings(255));
    for found in [0, 1, 100, 254] {
        bench.machine.set_priority(Priority(found));
        assert_eq!(bench.machine.priority(), Priority::OWNER);
    }
}

#[test]
fn others_have_priorities_from_1_to_254_whatever_tracking_finds() {
    let mut bench = Bench::started(settings(100));
    for (found, effective) in [(0, 1), (1, 1), (99, 99), (254, 254), (255, 254)] {
        bench.machine.set_priority(Priority(found));
        assert_eq!(bench.machine.priority(), Priority(effective));
    }
}

// 6.1, 6.4.2, 6.4.3: Accept_Mode

#[test]
fn an_active_accepts_if_it_owns_the_addresses_or_accept_mode_says_so() {
    for (priority, accept_mode) in [
        (100, AcceptMode::Accept),
        (255, AcceptMode::Accept),
        (255, AcceptMode::Discard),
    ] {
        let bench = Bench::active(Settings {
            accept_mode,
            ..settings(priority)
        });
        assert!(bench.machine.accepts());
    }
}

#[test]
fn an_active_that_owns_nothing_does_not_accept_without_accept_mode() {
    let bench = Bench::active(Settings {
        accept_mode: AcceptMode::Discard,
        ..settings(100)
    });
    assert!(!bench.machine.accepts());
}

#[test]
fn a_backup_neither_accepts_nor_announces() {
    for settings in [settings(100), settings_v6(100)] {
        let mut bench = Bench::backup(settings, 200);
        for _ in 0..20 {
            bench.wait(1_000);
            assert_eq!(bench.hear(200), Ok(None));
            bench.act(Machine::handle_doubt);
            assert!(bench.role() == Role::Backup && !bench.machine.accepts());
        }
        assert!(bench.log.announcements.is_empty());
        assert_eq!(bench.log.adverts, []);
    }
}

// 6.4.1

#[test]
fn an_owner_starts_as_active() {
    let bench = Bench::started(settings(255));
    assert_eq!(changes(&bench), [(0, Role::Active, Cause::Owner)]);
    assert_eq!(bench.log.adverts, [(0, 255)]);
    assert_eq!(bench.log.announcements, [0]);
}

#[test]
fn others_start_as_backup_with_their_own_interval() {
    let mut bench = Bench::started(settings(128));
    assert_eq!(changes(&bench), [(0, Role::Backup, Cause::Startup)]);
    assert_eq!(bench.log.adverts, []);
    bench.wait(3_499);
    assert_eq!(bench.role(), Role::Backup);
    bench.wait(1);
    assert_eq!(bench.role(), Role::Active);
}

// 6.4.2

#[test]
fn a_backup_that_is_shut_down_is_in_initialize_without_a_timer() {
    let mut bench = Bench::backup(settings(100), 200);
    bench.act(|machine, _| machine.handle_shutdown());
    assert_eq!(changes(&bench), [(0, Role::Initialize, Cause::Shutdown)]);
    assert_eq!(bench.machine.next_deadline(), None);
    bench.wait(60_000);
    assert_eq!(bench.role(), Role::Initialize);
    assert_eq!(bench.log.adverts, []);
}

#[test]
fn a_backup_becomes_active_when_its_timer_fires() {
    for settings in [settings(128), settings_v6(128), settings_v2(128)] {
        let mut bench = Bench::backup(settings, 200);
        bench.wait(3_500);
        assert_eq!(changes(&bench), [(3_500, Role::Active, Cause::Silence)]);
        assert_eq!(bench.log.adverts, [(3_500, 128)]);
        assert_eq!(bench.log.announcements, [3_500]);
        bench.wait(1_000);
        assert_eq!(bench.log.adverts, [(3_500, 128), (4_500, 128)]);
    }
}

#[test]
fn a_backup_stays_backup_until_its_timer_fires() {
    for settings in [settings(128), settings_v6(128), settings_v2(128)] {
        let mut bench = Bench::backup(settings, 200);
        bench.wait(3_499);
        bench.act(Machine::handle_timeout);
        assert_eq!(bench.role(), Role::Backup);
        assert_eq!(bench.log.adverts, []);
    }
}

#[test]
fn a_backup_waits_its_skew_time_after_a_release() {
    for settings in [settings(128), settings_v2(128)] {
        let mut bench = Bench::backup(settings, 200);
        bench.wait(100);
        assert_eq!(bench.hear(0), Ok(None));
        bench.wait(499);
        assert_eq!(bench.role(), Role::Backup);
        bench.wait(1);
        let active = (600, Role::Active, Cause::PeerReleased);
        assert_eq!(changes(&bench), [active]);
    }
}

#[test]
fn a_backup_does_not_wait_its_skew_time_alone_after_other_adverts() {
    let mut bench = Bench::backup(settings(128), 200);
    assert_eq!(bench.hear(0), Ok(None));
    bench.wait(100);
    assert_eq!(bench.hear(200), Ok(None));
    bench.wait(3_499);
    assert_eq!(bench.role(), Role::Backup);
}

#[test]
fn skew_time_after_a_release_is_by_the_interval_of_the_active_before() {
    let mut bench = Bench::started(settings(128));
    let (fast, envelope) = (with_interval(bench.advert(200), 10), bench.envelope());
    assert!(bench.hear_it(&fast, &envelope).is_ok());
    assert_eq!(bench.hear(0), Ok(None));
    bench.wait(49);
    assert_eq!(bench.role(), Role::Backup);
    bench.wait(1);
    assert_eq!(bench.role(), Role::Active);
}

#[test]
fn a_backup_follows_the_interval_of_a_higher_or_equal_active() {
    for priority in [128, 129, 255] {
        let mut bench = Bench::started(settings(128));
        bench.wait(3_000);
        let (slow, envelope) = (with_interval(bench.advert(priority), 200), bench.envelope());
        assert!(bench.hear_it(&slow, &envelope).is_ok());
        assert_eq!(bench.machine.active().unwrap().interval.get(), 200);
        bench.wait(6_999);
        assert_eq!(bench.role(), Role::Backup);
        bench.wait(1);
        assert_eq!(bench.role(), Role::Active);
    }
}

#[test]
fn a_backup_that_does_not_preempt_follows_a_lower_active() {
    let mut bench = Bench::started(Settings {
        preemption: Preemption::Never,
        ..settings(128)
    });
    for _ in 0..20 {
        bench.wait(1_000);
        assert_eq!(bench.hear(1), Ok(None));
    }
    bench.wait(3_499);
    assert_eq!(bench.role(), Role::Backup);
    bench.wait(1);
    assert_eq!(bench.role(), Role::Active);
}

#[test]
fn a_backup_that_preempts_discards_adverts_of_a_lower_active() {
    let mut bench = Bench::started(settings(128));
    for _ in 0..3 {
        bench.wait(1_000);
        assert_eq!(bench.hear(127), Ok(None));
    }
    bench.wait(500);
    let active = (3_500, Role::Active, Cause::Preemption);
    assert_eq!(changes(&bench)[1..], [active]);
}

#[test]
fn a_backup_that_preempts_does_not_discard_adverts_of_an_equal_active() {
    let mut bench = Bench::started(settings(128));
    for _ in 0..20 {
        bench.wait(1_000);
        assert_eq!(bench.hear(128), Ok(None));
    }
    assert_eq!(bench.role(), Role::Backup);
}

#[test]
fn an_owner_preempts_whatever_preempt_mode_says() {
    let mut bench = Bench::new(Settings {
        preemption: Preemption::Never,
        ..settings(255)
    });
    bench.act(|machine, now| {
        machine.release(crate::core::vrrp::role::Hold::Fault, now);
        machine.handle_startup(now);
        machine.resume(crate::core::vrrp::role::Hold::Fault, now);
    });
    for _ in 0..4 {
        bench.wait(999);
        assert_eq!(bench.hear(254), Ok(None));
    }
    assert_eq!(bench.role(), Role::Active);
}

// 6.4.3

#[test]
fn an_active_that_is_shut_down_releases_its_role() {
    let mut bench = Bench::active(settings(100));
    bench.act(|machine, _| machine.handle_shutdown());
    assert_eq!(bench.log.adverts, [(10_000, 0)]);
    let initialize = (10_000, Role::Initialize, Cause::Shutdown);
    assert_eq!(changes(&bench), [initialize]);
    bench.wait(60_000);
    assert_eq!(bench.log.adverts, [(10_000, 0)]);
}

#[test]
fn an_active_that_is_not_shut_down_does_not_release_its_role() {
    let mut bench = Bench::active(settings(100));
    bench.wait(60_000);
    assert!(
        bench
            .log
            .adverts
            .iter()
            .all(|(_, priority)| *priority == 100)
    );
    assert_eq!(bench.role(), Role::Active);
}

#[test]
fn an_active_sends_an_advert_each_interval() {
    for settings in [settings(100), settings_v2(100)] {
        let mut bench = Bench::active(settings);
        bench.wait(3_000);
        let adverts = [(11_000, 100), (12_000, 100), (13_000, 100)];
        assert_eq!(bench.log.adverts, adverts);
    }
}

#[test]
fn an_active_sends_nothing_before_its_interval_is_over() {
    let mut bench = Bench::active(settings(100));
    bench.now += ms(999);
    bench.act(Machine::handle_timeout);
    assert_eq!(bench.log.adverts, []);
}

#[test]
fn an_active_that_is_woken_late_keeps_its_pace() {
    let mut bench = Bench::active(settings(100));
    bench.now += ms(1_300);
    bench.act(Machine::handle_timeout);
    bench.wait(700);
    assert_eq!(bench.log.adverts, [(11_300, 100), (12_000, 100)]);
}

#[test]
fn an_active_answers_a_release_and_starts_its_interval_again() {
    let mut bench = Bench::active(settings(100));
    bench.wait(300);
    assert_eq!(bench.hear(0), Ok(None));
    assert_eq!(bench.log.adverts, [(10_300, 100)]);
    bench.wait(1_000);
    assert_eq!(bench.log.adverts, [(10_300, 100), (11_300, 100)]);
    assert_eq!(bench.role(), Role::Active);
}

#[test]
fn an_active_does_not_start_its_interval_again_for_other_adverts() {
    let mut bench = Bench::active(settings(100));
    bench.wait(300);
    assert_eq!(bench.hear(50), Ok(None));
    bench.wait(700);
    assert_eq!(bench.log.adverts, [(10_300, 100), (11_000, 100)]);
}

#[test]
fn an_active_yields_to_a_higher_priority_and_follows_its_interval() {
    let mut bench = Bench::active(settings(128));
    let (slow, envelope) = (with_interval(bench.advert(129), 200), bench.envelope());
    assert!(bench.hear_it(&slow, &envelope).is_ok());
    let backup = (10_000, Role::Backup, Cause::HigherPriority);
    assert_eq!(changes(&bench), [backup]);
    bench.log.adverts.clear();
    bench.wait(6_999);
    assert_eq!(bench.role(), Role::Backup);
    assert_eq!(bench.log.adverts, [], "Adver_Timer is cancelled");
    bench.wait(1);
    assert_eq!(bench.role(), Role::Active);
}

#[test]
fn an_active_yields_to_an_equal_priority_with_a_higher_address() {
    for (settings, higher) in [
        (settings(128), "10.0.0.6"),
        (settings(128), "200.0.0.1"),
        (settings_v6(128), "fe80::6"),
        (settings_v6(128), "fe80::8000:0:0:0"),
    ] {
        let mut bench = Bench::active(settings);
        let advert = bench.advert(128);
        assert_eq!(bench.hear_it(&advert, &from(higher)), Ok(None));
        let backup = (10_000, Role::Backup, Cause::HigherAddress);
        assert_eq!(changes(&bench), [backup]);
    }
}

#[test]
fn an_active_does_not_yield_to_an_equal_priority_with_a_lower_address() {
    for (settings, lower) in [
        (settings(128), "10.0.0.4"),
        (settings(128), "9.255.255.255"),
        (settings_v6(128), "fe80::4"),
    ] {
        let mut bench = Bench::active(settings);
        let advert = bench.advert(128);
        assert_eq!(bench.hear_it(&advert, &from(lower)), Ok(None));
        assert_eq!(bench.role(), Role::Active);
        assert_eq!(bench.log.adverts, [(10_000, 128)]);
    }
}

#[test]
fn an_active_answers_a_lower_priority_with_an_advert() {
    for priority in [1, 127] {
        let mut bench = Bench::active(settings(128));
        bench.wait(300);
        assert_eq!(bench.hear(priority), Ok(None));
        assert_eq!(bench.role(), Role::Active);
        assert_eq!(bench.log.adverts, [(10_300, 128)]);
    }
}

#[test]
fn an_active_does_not_yield_to_a_lower_priority_with_a_higher_address() {
    let mut bench = Bench::active(settings(128));
    let advert = bench.advert(127);
    assert_eq!(bench.hear_it(&advert, &from("10.0.0.250")), Ok(None));
    assert_eq!(bench.role(), Role::Active);
}

#[test]
fn of_two_owners_the_one_with_the_lower_address_yields() {
    let mut bench = Bench::active(settings(255));
    let advert = bench.advert(255);
    assert!(bench.hear_it(&advert, &from("10.0.0.4")).is_ok());
    assert_eq!(bench.role(), Role::Active);
    assert!(bench.hear_it(&advert, &from("10.0.0.6")).is_ok());
    assert_eq!(bench.role(), Role::Backup);
}

// 8.1.2, 8.2.2

#[test]
fn announcements_wait_until_the_addresses_are_in_place() {
    let mut bench = Bench::new(settings(255));
    bench.act(|machine, now| machine.handle_presence(Presence::Absent, now));
    bench.act(Machine::handle_startup);
    bench.wait(5_000);
    assert!(bench.log.announcements.is_empty());
    assert_eq!(bench.log.adverts.len(), 6, "adverts do not wait");
    bench.act(|machine, now| machine.handle_presence(Presence::Present, now));
    bench.wait(5_000);
    assert_eq!(bench.log.announcements, [5_000, 5_500, 6_000]);
}

#[test]
fn announcements_do_not_wait_if_the_addresses_are_in_place() {
    let mut bench = Bench::started(settings(255));
    bench.wait(5_000);
    assert_eq!(bench.log.announcements, [0, 500, 1_000]);
}
