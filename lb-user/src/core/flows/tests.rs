//! Records of one service with two backends.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use lb_common::abi::{
    BackendId, Balance, Flow, FlowKey, FlowState, Forward, Ip, KeepAlive, PROTOCOL_TCP,
    PROTOCOL_UDP, SLOT_COUNT, ServiceKey, Tick,
};
use lb_common::flow::{HashKeys, slot};

use super::{Expiry, Fate, Judge, Place, Sight, ticks};
use crate::config::model::Limits;
use crate::core::image::MapImage;
use crate::core::plan::{self, Desired, DesiredBackend, DesiredService, Moment};
use crate::core::settle::Sessions;
use crate::core::slots::State;

const HOUR: Duration = Duration::from_secs(3_600);
const MINUTE: Duration = Duration::from_secs(60);
const START: u32 = 100_000;
const EXPIRY: Expiry = Expiry {
    idle: HOUR,
    shortest: Duration::from_secs(30),
    longest: Duration::from_secs(86_400),
};

fn desired(balance: Balance, weights: [u16; 2]) -> Desired {
    let backend =
        |(last, weight)| DesiredBackend::new(Ip::from_v4([10, 0, 0, last]), 1, weight, None);
    let service = DesiredService {
        backends: (1..).zip(weights).map(backend).collect(),
        window: 10 * MINUTE,
        ..DesiredService::new(key(PROTOCOL_TCP).service(), balance, Forward::Dsr)
    };
    Desired {
        services: vec![service],
        ..Desired::nothing(Limits {
            services: 1,
            backends: 4,
            flows: 1,
            half_open: 1,
            fragments: 1,
            access_entries: 1,
            sources: 1,
        })
    }
}

/// The image after the backends had these weights, one after the other.
fn image(balance: Balance, weights: &[[u16; 2]]) -> MapImage {
    weights.iter().fold(MapImage::empty(), |image, weights| {
        plan::next(&image, &desired(balance, *weights), Moment::at(Tick(START)))
    })
}

fn key(protocol: u8) -> FlowKey {
    let (client, vip) = (Ip::from_v4([10, 1, 0, 1]), Ip::from_v4([10, 2, 0, 1]));
    FlowKey::new(client, vip, 40_000, 1883, protocol)
}

fn flow(backend: u16, state: FlowState) -> Flow {
    Flow {
        backend,
        epoch: 1,
        seen: START,
        middle: [0; 4],
        nat_source: 0,
        state: state as u8,
        keep_alive: KeepAlive::NONE,
    }
}

fn judge(image: &MapImage, silent: Duration) -> Judge {
    let sight = Sight {
        image: Arc::new(image.clone()),
        expiry: EXPIRY,
    };
    let now = START + u32::try_from(ticks(silent)).unwrap();
    Judge::new(&sight, HashKeys::zero(), Tick(now), true)
}

/// Whether a flow of a tracked service is over.
fn over(protocol: u8, state: FlowState, silent: Duration) -> bool {
    let image = image(Balance::RoundRobin, &[[1, 1]]);
    let mut judge = judge(&image, silent);
    judge.judge(Place::Established, &key(protocol), &flow(0, state)) == Fate::Over
}

#[test]
fn an_established_flow_is_over_when_it_was_idle_too_long() {
    assert!(!over(PROTOCOL_TCP, FlowState::Established, HOUR / 2));
    assert!(over(PROTOCOL_TCP, FlowState::Established, HOUR + HOUR / 10));
}

#[test]
fn closed_and_reset_flows_are_over_sooner() {
    assert!(!over(PROTOCOL_TCP, FlowState::Closing, MINUTE / 2));
    assert!(over(PROTOCOL_TCP, FlowState::Closing, 2 * MINUTE));
    assert!(!over(PROTOCOL_TCP, FlowState::Reset, MINUTE + MINUTE / 2));
    assert!(over(PROTOCOL_TCP, FlowState::Reset, 3 * MINUTE));
    assert!(over(PROTOCOL_UDP, FlowState::Established, 3 * MINUTE));
}

#[test]
fn a_flow_whose_keep_alive_is_known_is_over_after_one_and_a_half_times_that() {
    let image = image(Balance::RoundRobin, &[[1, 1]]);
    let over = |keep_alive, silent| {
        let record = Flow {
            keep_alive: KeepAlive::of(keep_alive, false),
            ..flow(0, FlowState::Established)
        };
        let mut judge = judge(&image, silent);
        judge.judge(Place::Established, &key(PROTOCOL_TCP), &record) == Fate::Over
    };
    assert!(!over(60, 80 * MINUTE / 60));
    assert!(over(60, 2 * MINUTE));
    assert!(!over(5, MINUTE / 3));
    assert!(over(5, MINUTE));
    assert!(!over(7_200, 2 * HOUR));
}

/// Whether a flow of an MQTT service by turns is over, whose window is ten minutes.
fn mqtt_over(keep_alive: KeepAlive, state: FlowState, silent: Duration) -> bool {
    let mut desired = desired(Balance::RoundRobin, [1, 1]);
    desired.services[0].features.mqtt = true;
    let image = plan::next(&MapImage::empty(), &desired, Moment::at(Tick(START)));
    let record = Flow {
        keep_alive,
        ..flow(0, state)
    };
    let mut judge = judge(&image, silent);
    judge.judge(Place::Established, &key(PROTOCOL_TCP), &record) == Fate::Over
}

/// Or clients that come and go would fill it, as an MQTT 5 session that closed is waited for longest.
#[test]
fn a_session_that_seems_to_be_over_goes_soon_when_the_table_fills() {
    let mut desired = desired(Balance::RoundRobin, [1, 1]);
    desired.services[0].features.mqtt = true;
    let image = plan::next(&MapImage::empty(), &desired, Moment::at(Tick(START)));
    let fate = |state, is_roomy| {
        let record = Flow {
            keep_alive: KeepAlive::of(240, true),
            ..flow(0, state)
        };
        let judge = Judge {
            is_roomy,
            ..judge(&image, 3 * MINUTE)
        };
        judge
            .fate(Place::Established, &key(PROTOCOL_TCP), &record)
            .0
    };
    for state in [FlowState::Closing, FlowState::Reset] {
        assert_eq!(
            (fate(state, true), fate(state, false)),
            (Fate::Stays, Fate::Over)
        );
    }
    assert_eq!(fate(FlowState::Established, false), Fate::Stays);
}

/// Where only some flows are recorded, a CONNECT may have been seen by nobody.
#[test]
fn a_record_of_a_slot_lives_no_shorter_than_its_window() {
    let mut desired = desired(Balance::Maglev, [1, 1]);
    desired.services[0].features.mqtt = true;
    let first = plan::next(&MapImage::empty(), &desired, Moment::at(Tick(START)));
    desired.services[0].backends[0].weight = 0;
    let image = plan::next(&first, &desired, Moment::at(Tick(START)));
    let over = |keep_alive, silent| {
        let record = Flow {
            keep_alive,
            ..flow(0, FlowState::Established)
        };
        let judge = judge(&image, silent);
        judge
            .fate(Place::Established, &key(PROTOCOL_TCP), &record)
            .0
            == Fate::Over
    };
    for keep_alive in [KeepAlive::NONE, KeepAlive::of(10, false)] {
        assert!(!over(keep_alive, 9 * MINUTE));
        assert!(over(keep_alive, 11 * MINUTE));
    }
    assert!(!over(KeepAlive::of(1_200, false), 29 * MINUTE));
}

/// A FIN or RST may be forged: its session has as long as any to be heard of.
#[test]
fn a_session_that_seems_to_be_over_lives_as_long_as_any() {
    use FlowState::{Closing, Ended, Reset};
    let six_minutes = KeepAlive::of(240, false);
    for state in [Closing, Reset] {
        assert!(!mqtt_over(six_minutes, state, 5 * MINUTE));
        assert!(mqtt_over(six_minutes, state, 7 * MINUTE));
        // As long as the operator says that any session may be silent.
        assert!(!mqtt_over(KeepAlive::NONE, state, 9 * MINUTE));
        assert!(mqtt_over(KeepAlive::NONE, state, 11 * MINUTE));
        assert!(mqtt_over(KeepAlive::of(5, false), state, 3 * MINUTE));
    }
    assert!(!mqtt_over(
        KeepAlive::of(5, false),
        Closing,
        MINUTE - MINUTE / 10
    ));
    // The backend's own word is no guess.
    assert!(!mqtt_over(six_minutes, Ended, MINUTE - MINUTE / 10));
    assert!(mqtt_over(six_minutes, Ended, MINUTE + MINUTE / 10));
}

#[test]
fn a_flow_whose_connect_has_not_come_is_over_soon() {
    let awaited = KeepAlive::AWAITED;
    let state = FlowState::Established;
    assert!(!mqtt_over(awaited, state, MINUTE - MINUTE / 10));
    assert!(mqtt_over(awaited, state, MINUTE + MINUTE / 10));
}

/// MQTT 5.0, section 3.2.2.3.14.
#[test]
fn where_the_server_may_have_set_the_keep_alive_the_operators_counts_too() {
    let state = FlowState::Established;
    assert!(mqtt_over(KeepAlive::of(60, false), state, 2 * MINUTE));
    assert!(!mqtt_over(KeepAlive::of(60, true), state, 9 * MINUTE));
    assert!(mqtt_over(KeepAlive::of(60, true), state, 11 * MINUTE));
    assert!(!mqtt_over(KeepAlive::of(1_200, true), state, 29 * MINUTE));
}

/// A port is given out again when Linux has forgotten the old connection, and not before.
#[test]
fn no_limit_is_shorter_than_it_says() {
    let tick = Duration::from_nanos(1 << 30);
    let limit = u32::try_from(ticks(MINUTE)).unwrap();
    // What is over is one tick more apart, of which the first and the last may hardly count.
    assert!(tick * limit >= MINUTE);
    assert!(tick * (limit - 1) < MINUTE);
    assert_eq!(ticks(tick), 1);
    assert_eq!(ticks(Duration::ZERO), 0);
}

#[test]
fn a_time_stamp_from_the_future_is_not_old() {
    assert_eq!(Tick(5).since(Tick(9)), 0);
}

#[test]
fn records_of_a_backend_that_went_are_over_and_younger_ones_stay() {
    let image = image(Balance::Maglev, &[[1, 1]]);
    let fate = |backend, epoch| {
        let record = Flow {
            epoch,
            ..flow(backend, FlowState::Established)
        };
        let mut judge = judge(&image, MINUTE);
        let fate = judge.judge(Place::Established, &key(PROTOCOL_TCP), &record);
        (fate, judge.is_behind)
    };
    assert_eq!(fate(0, 0), (Fate::Over, false));
    assert_eq!(fate(0, u16::MAX), (Fate::Over, false));
    assert_eq!(fate(0, 2), (Fate::Stays, true));
    assert_eq!(fate(3, 1), (Fate::Stays, true));
}

#[test]
fn records_of_a_backend_that_fell_stay_for_a_minute() {
    let both = image(Balance::RoundRobin, &[[1, 1]]);
    let mut one_fell = desired(Balance::RoundRobin, [1, 1]);
    let fell = one_fell.services[0].backends.remove(0);
    one_fell.services[0].fallen.push((fell.address, fell.port));
    let image = plan::next(&both, &one_fell, Moment::at(Tick(START)));
    assert_eq!(image.backends.len(), 1);
    let fate = |epoch, silent| {
        let record = Flow {
            epoch,
            ..flow(0, FlowState::Established)
        };
        let mut judge = judge(&image, silent);
        let fate = judge.judge(Place::Established, &key(PROTOCOL_TCP), &record);
        (fate, judge.is_behind)
    };
    assert_eq!(fate(1, MINUTE / 2), (Fate::Stays, false));
    assert_eq!(fate(0, MINUTE / 2), (Fate::Over, false));
    assert_eq!(fate(1, MINUTE + MINUTE / 10), (Fate::Over, false));
}

#[test]
fn a_record_that_its_slot_makes_needless_goes_only_if_that_is_not_at_risk() {
    let slot = slot(HashKeys::zero().hash(&key(PROTOCOL_TCP)));
    let owner =
        |image: &MapImage| image.services.values().next().unwrap().table.slots[slot as usize];
    let fate = |image: &MapImage, backend: BackendId| {
        let record = flow(backend.0, FlowState::Established);
        let mut judge = judge(image, MINUTE);
        let fate = judge.judge(Place::Established, &key(PROTOCOL_TCP), &record);
        let (strays, sessions) = judge.finish();
        let is_stray = strays.values().any(|strays| strays.contains(slot));
        (fate, is_stray, sessions[&(backend, 1)])
    };
    let (none, one) = (Sessions::default(), Sessions { live: 1, begun: 0 });
    let other = |owner: BackendId| BackendId(1 - owner.0);

    let safe = image(Balance::Maglev, &[[1, 1]]);
    assert_eq!(fate(&safe, owner(&safe)), (Fate::Needless, false, none));
    assert_eq!(fate(&safe, other(owner(&safe))), (Fate::Stays, true, one));

    // Whoever has the slot loses it.
    let weights = if owner(&safe).0 == 0 { [0, 1] } else { [1, 0] };
    let at_risk = image(Balance::Maglev, &[[1, 1], weights]);
    assert_ne!(owner(&safe), owner(&at_risk));
    let table = &at_risk.services.values().next().unwrap().table;
    assert!(matches!(table.holds.get(slot), State::AtRisk { .. }));
    assert_eq!(table.slots.len(), SLOT_COUNT as usize);
    assert_eq!(fate(&at_risk, owner(&at_risk)), (Fate::Stays, false, one));
    assert_eq!(fate(&at_risk, owner(&safe)), (Fate::Stays, true, one));

    let tracked = image(Balance::RoundRobin, &[[1, 1]]);
    assert_eq!(fate(&tracked, owner(&tracked)), (Fate::Stays, false, one));
    let by_key: BTreeMap<ServiceKey, _> = judge(&tracked, MINUTE).finish().0;
    assert!(by_key.contains_key(&key(PROTOCOL_TCP).service()));
}
