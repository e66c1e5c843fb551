//! Sequences of outcomes, and a network whose link goes down.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::{Health, HealthState, ProbeOutcome, Question, Questions, Thresholds, Transition};

const THRESHOLDS: Thresholds = Thresholds { fall: 3, rise: 2 };

fn outcome(success: bool) -> ProbeOutcome {
    if success {
        ProbeOutcome::Success
    } else {
        ProbeOutcome::Refusal {
            reason: "connection refused".to_owned(),
        }
    }
}

fn run(health: &mut Health, outcomes: &[bool]) -> Vec<Option<Transition>> {
    let observe = |&success| health.observe(outcome(success), THRESHOLDS);
    outcomes.iter().map(observe).collect()
}

fn transition(from: HealthState, to: HealthState) -> Option<Transition> {
    Some(Transition { from, to })
}

#[test]
fn first_success_brings_an_unknown_backend_up() {
    let mut health = Health::unknown();
    let seen = run(&mut health, &[true]);
    assert_eq!(seen, [transition(HealthState::Unknown, HealthState::Up)]);
}

#[test]
fn unknown_backend_comes_up_although_it_failed_first() {
    let mut health = Health::unknown();
    run(&mut health, &[false, false, true]);
    assert_eq!(health.state(), HealthState::Up);
}

#[test]
fn unknown_backend_goes_down_after_fall_failures() {
    let mut health = Health::unknown();
    let seen = run(&mut health, &[false, false, false]);
    let down = transition(HealthState::Unknown, HealthState::Down);
    assert_eq!(seen, [None, None, down]);
    assert_eq!(health.reason(), Some("connection refused"));
}

fn drain() -> ProbeOutcome {
    ProbeOutcome::Drain {
        reason: "HTTP status 503".to_owned(),
    }
}

#[test]
fn backend_that_takes_no_new_clients_is_up_and_drains_after_fall_answers() {
    let mut health = Health::assumed_up();
    for _ in 0..2 {
        assert_eq!(health.observe(drain(), THRESHOLDS), None);
        assert!(!health.wants_drain());
    }
    health.observe(outcome(true), THRESHOLDS);
    for wants in [false, false, true] {
        assert_eq!(health.observe(drain(), THRESHOLDS), None);
        assert_eq!(health.wants_drain(), wants);
    }
    assert_eq!(health.state(), HealthState::Up);
    assert_eq!(health.reason(), Some("HTTP status 503"));
    for wants in [true, false] {
        health.observe(outcome(true), THRESHOLDS);
        assert_eq!(health.wants_drain(), wants);
    }
}

#[test]
fn wish_that_nobody_has_heard_yet_is_what_the_first_answer_says() {
    for (answer, wants) in [(drain(), true), (outcome(true), false)] {
        let mut health = Health::assumed_draining();
        health.observe(outcome(false), THRESHOLDS);
        assert_eq!(
            (health.state(), health.wants_drain()),
            (HealthState::Up, true)
        );
        health.observe(answer, THRESHOLDS);
        assert_eq!(health.wants_drain(), wants);
    }
    // From then on it takes as many answers as ever.
    let mut health = Health::assumed_draining();
    health.observe(drain(), THRESHOLDS);
    for wants in [true, false] {
        health.observe(outcome(true), THRESHOLDS);
        assert_eq!(health.wants_drain(), wants);
    }
}

#[test]
fn answer_that_it_drains_is_no_failure_and_a_failure_is_no_change_of_mind() {
    let mut health = Health::assumed_up();
    for _ in 0..3 {
        health.observe(drain(), THRESHOLDS);
    }
    for success in [false, false] {
        health.observe(outcome(success), THRESHOLDS);
        assert!(health.wants_drain());
    }
    health.observe(drain(), THRESHOLDS);
    run(&mut health, &[false, false]);
    assert_eq!(
        (health.state(), health.wants_drain()),
        (HealthState::Up, true)
    );
    let seen = run(&mut health, &[false]);
    assert_eq!(seen, [transition(HealthState::Up, HealthState::Down)]);
    assert!(!health.wants_drain());
}

#[test]
fn backend_comes_up_as_its_last_answer_says() {
    let mut health = Health::unknown();
    let seen = health.observe(drain(), THRESHOLDS);
    assert_eq!(seen, transition(HealthState::Unknown, HealthState::Up));
    assert!(health.wants_drain());
    let mut health = Health::assumed_down();
    health.observe(drain(), THRESHOLDS);
    assert_eq!(
        (health.state(), health.wants_drain()),
        (HealthState::Down, false)
    );
    health.observe(outcome(true), THRESHOLDS);
    assert_eq!(
        (health.state(), health.wants_drain()),
        (HealthState::Up, false)
    );
}

#[test]
fn one_success_between_failures_keeps_a_backend_up() {
    let mut health = Health::assumed_up();
    run(&mut health, &[false, false, true, false, false]);
    assert_eq!(health.state(), HealthState::Up);
}

#[test]
fn backend_that_was_down_needs_rise_successes_in_a_row() {
    let mut health = Health::assumed_up();
    run(&mut health, &[false, false, false, true, false, true]);
    assert_eq!(health.state(), HealthState::Down);
    let seen = run(&mut health, &[true]);
    assert_eq!(seen, [transition(HealthState::Down, HealthState::Up)]);
    assert_eq!(health.reason(), None);
}

proptest! {
    #[test]
    fn state_only_changes_after_enough_outcomes_in_a_row(
        outcomes in prop::collection::vec(any::<bool>(), 0..60),
    ) {
        let mut health = Health::unknown();
        for at in 0..outcomes.len() {
            let before = health.state();
            let change = run(&mut health, &outcomes[at..=at])[0];
            let needed = match (before, outcomes[at]) {
                (HealthState::Unknown, true) => 1,
                (_, true) => 2,
                (_, false) => 3,
            };
            let row = outcomes[..=at].iter().rev().take_while(|&&o| o == outcomes[at]).count();
            if let Some(Transition { from, to }) = change {
                prop_assert!(from == before && to == health.state() && from != to);
                prop_assert!(row >= needed);
            } else {
                prop_assert_eq!(health.state(), before);
                let settled = (before == HealthState::Up) == outcomes[at]
                    && before != HealthState::Unknown;
                prop_assert!(settled || row < needed);
            }
        }
    }
}

fn silence(question: Question) -> ProbeOutcome {
    ProbeOutcome::Silence {
        reason: "timed out".to_owned(),
        question,
    }
}

/// Fails in silence once for each of the numbers, which are those of the last answers by then.
fn fall_silent(health: &mut Health, thresholds: Thresholds, answered: &[u64]) {
    for (at, &answered) in (1..).zip(answered) {
        let number = 10 * at;
        health.observe(silence(Question { number, answered }), thresholds);
    }
}

#[test]
fn silence_among_answers_takes_a_backend_down_as_soon_as_refusals_do() {
    let mut health = Health::assumed_up();
    fall_silent(&mut health, THRESHOLDS, &[9, 19]);
    assert_eq!((health.state(), health.is_held()), (HealthState::Up, false));
    fall_silent(&mut health, THRESHOLDS, &[29]);
    assert_eq!(health.state(), HealthState::Down);
}

#[test]
fn silence_of_all_holds_a_backend_until_others_are_heard_and_it_fails_again() {
    let mut health = Health::assumed_up();
    fall_silent(&mut health, THRESHOLDS, &[5; 100]);
    assert_eq!((health.state(), health.is_held()), (HealthState::Up, true));
    assert_eq!(health.reason(), Some("timed out"));
    let mut back = health.clone();
    back.observe(ProbeOutcome::Success, THRESHOLDS);
    assert_eq!(back, Health::assumed_up());

    let next = |number, answered| silence(Question { number, answered });
    assert_eq!(health.observe(next(2_000, 1_999), THRESHOLDS), None);
    assert!(!health.is_held());
    let down = transition(HealthState::Up, HealthState::Down);
    assert_eq!(health.observe(next(2_010, 2_009), THRESHOLDS), down);
}

#[test]
fn silence_counts_only_if_an_answer_was_there_when_it_was_asked() {
    let thresholds = Thresholds { fall: 1, rise: 1 };
    let mut health = Health::assumed_up();
    // The answer to 15 came when 20 was asked already, and that to 35 when 40 was.
    fall_silent(&mut health, thresholds, &[9, 9]);
    assert!(health.is_held());
    let mut later = Health::assumed_up();
    fall_silent(&mut later, thresholds, &[9, 9, 15, 25]);
    assert!(later.is_held());
    let mut last = Health::assumed_up();
    fall_silent(&mut last, thresholds, &[9, 9, 15, 25, 35]);
    assert_eq!(last.state(), HealthState::Down);
}

#[test]
fn refusals_count_whoever_is_silent() {
    let mut health = Health::assumed_up();
    fall_silent(&mut health, THRESHOLDS, &[5; 7]);
    run(&mut health, &[false]);
    assert_eq!((health.state(), health.is_held()), (HealthState::Up, false));
    run(&mut health, &[false]);
    assert_eq!(health.state(), HealthState::Down);
    let mut hasty = Health::assumed_up();
    hasty.observe(outcome(false), Thresholds { fall: 1, rise: 1 });
    assert_eq!(hasty.state(), HealthState::Down);
    let mut hasty = Health::assumed_up();
    fall_silent(&mut hasty, Thresholds { fall: 1, rise: 1 }, &[5; 7]);
    hasty.observe(outcome(false), Thresholds { fall: 1, rise: 1 });
    assert_eq!(hasty.state(), HealthState::Down);
}

#[test]
fn backend_that_was_never_up_is_not_held() {
    let mut health = Health::unknown();
    fall_silent(&mut health, THRESHOLDS, &[0; 3]);
    assert_eq!(
        (health.state(), health.is_held()),
        (HealthState::Down, false)
    );
}

/// Backends that are asked over and over, by a clock of milliseconds.
#[derive(Clone, Debug)]
struct Network {
    asked: Vec<Asked>,
    /// From when to when nothing gets through.
    outage: [u64; 2],
    /// From when on the first backend is dead.
    death: u64,
}

/// How one backend is asked.
#[derive(Clone, Copy, Debug)]
struct Asked {
    first: u64,
    interval: u64,
    timeout: u64,
    /// How long an answer takes: not as long as the timeout.
    delay: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Ask,
    Answer { number: u64, answered: u64 },
    TimeOut { number: u64, answered: u64 },
}

impl Network {
    /// Asks until `end`; tells who goes down and when, and what is known of each in the end.
    fn run(&self, fall: u32, end: u64) -> (Vec<(u64, usize)>, Vec<Health>) {
        let thresholds = Thresholds { fall, rise: 2 };
        let questions = Questions::default();
        let mut health = vec![Health::assumed_up(); self.asked.len()];
        let first = |(who, asked): (usize, &Asked)| (asked.first, who, Event::Ask);
        let mut events: BTreeSet<_> = self.asked.iter().enumerate().map(first).collect();
        let mut down = Vec::new();
        while let Some((now, who, event)) = events.pop_first().filter(|next| next.0 < end) {
            let asked = self.asked[who];
            let outcome = match event {
                Event::Ask => {
                    let Question { number, answered } = questions.ask();
                    events.insert(self.sequel(now, who, number, answered));
                    continue;
                }
                Event::Answer { number, answered } => {
                    questions.note_answer(Question { number, answered });
                    events.insert((now + asked.interval - asked.delay, who, Event::Ask));
                    ProbeOutcome::Success
                }
                Event::TimeOut { number, answered } => {
                    events.insert((now + asked.interval - asked.timeout, who, Event::Ask));
                    silence(Question { number, answered })
                }
            };
            let change = health[who].observe(outcome, thresholds);
            if change.is_some_and(|change| change.to == HealthState::Down) {
                down.push((now, who));
            }
        }
        (down, health)
    }

    fn sequel(&self, now: u64, who: usize, number: u64, answered: u64) -> (u64, usize, Event) {
        let Asked { timeout, delay, .. } = self.asked[who];
        let [from, to] = self.outage;
        let is_lost = now < to && now + delay >= from;
        let is_dead = who == 0 && now + delay >= self.death;
        if is_lost || is_dead {
            (now + timeout, who, Event::TimeOut { number, answered })
        } else {
            (now + delay, who, Event::Answer { number, answered })
        }
    }
}

/// At least two backends, which are asked in turns of about two seconds.
fn network() -> impl Strategy<Value = Network> {
    let asked = (0_u64..2_000, 1_800_u64..2_200, 200_u64..1_800, 0_u64..100);
    let asked = asked.prop_map(|(first, interval, timeout, delay)| Asked {
        first,
        interval,
        timeout,
        delay: timeout * delay / 100,
    });
    prop::collection::vec(asked, 2..8).prop_map(|asked| Network {
        asked,
        outage: [0; 2],
        death: u64::MAX,
    })
}

proptest! {
    #[test]
    fn link_that_was_down_for_however_long_takes_nobody_down(
        network in network(),
        fall in 1_u32..6,
        from in 5_000_u64..10_000,
        length in 0_u64..60_000,
    ) {
        let outage = [from, from + length];
        let (down, health) = Network { outage, ..network }.run(fall, from + length + 10_000);
        prop_assert_eq!(down, []);
        prop_assert!(health.iter().all(|health| *health == Health::assumed_up()));
    }

    #[test]
    fn dead_backend_goes_down_soon_and_takes_nobody_along(
        network in network(),
        fall in 1_u32..6,
        death in 5_000_u64..10_000,
    ) {
        let (down, health) = Network { death, ..network.clone() }.run(fall, 60_000);
        prop_assert!(matches!(down[..], [(_, 0)]), "{down:?}");
        prop_assert!(health[1..].iter().all(|health| *health == Health::assumed_up()));
        // An answer may take so long that only every second question finds one.
        let questions = 2 * u64::from(fall.max(3)) + 2;
        prop_assert!(down[0].0 < death + questions * network.asked[0].interval, "{down:?}");
    }
}
