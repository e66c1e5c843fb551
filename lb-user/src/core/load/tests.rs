//! Walks over tables that change meanwhile.

use lb_common::abi::Load;
use proptest::prelude::*;

use super::Census;
use crate::core::settle::Sessions;

/// What becomes of a flow while the tables are walked over.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// One begins, as the program sees.
    Begins,
    /// One that is established closes, as the program sees.
    Closes,
    /// One that is half open sends more.
    Establishes,
    /// The walk comes to one of those that are half open, or to one that is established.
    Meets,
}

/// A model of the tables: which flows are there, and which have been met.
#[derive(Clone, Debug, Default)]
struct Model {
    half_open: Vec<bool>,
    established: Vec<bool>,
    load: Load,
    records: Sessions,
    /// Whether the walk has come to the established flows.
    is_second_half: bool,
}

impl Model {
    /// Tables with so many flows, of which a correction makes up for `unseen`, after any number of
    /// flows that closed.
    fn of((half_open, established): (usize, usize), unseen: i32, closed: u64) -> Self {
        let opened = closed.wrapping_add((half_open + established) as u64);
        Self {
            half_open: vec![false; half_open],
            established: vec![false; established],
            load: Load::new(opened.wrapping_sub(unseen as u64), closed),
            ..Self::default()
        }
    }

    fn count(&self) -> i64 {
        (self.half_open.len() + self.established.len()) as i64
    }

    fn apply(&mut self, event: Event, number: usize) {
        match event {
            Event::Begins => {
                self.half_open.push(false);
                self.load.opened = self.load.opened.wrapping_add(1);
            }
            Event::Closes if !self.established.is_empty() => {
                self.established
                    .swap_remove(number % self.established.len());
                self.load.closed = self.load.closed.wrapping_add(1);
            }
            // It comes into another table, which the walk has not seen it in.
            Event::Establishes if !self.half_open.is_empty() => {
                self.half_open.swap_remove(number % self.half_open.len());
                self.established.push(false);
            }
            Event::Meets => self.meet(),
            Event::Closes | Event::Establishes => {}
        }
    }

    fn meet(&mut self) {
        let next = |flows: &mut Vec<bool>| {
            let unmet = flows.iter_mut().find(|met| !**met);
            unmet.is_some_and(|met| !std::mem::replace(met, true))
        };
        if !self.is_second_half {
            if next(&mut self.half_open) {
                self.records.begun += 1;
                return;
            }
            self.is_second_half = true;
        }
        if next(&mut self.established) {
            self.records.live += 1;
        }
    }

    /// Goes on with the walk to its end, and says what came of all of it.
    fn finish(&mut self, before: Load) -> Census {
        let left = self.half_open.len() + self.established.len() + 1;
        (0..=left).for_each(|_| self.meet());
        Census {
            before,
            after: self.load,
            records: self.records,
        }
    }
}

fn events() -> impl Strategy<Value = Vec<(Event, usize)>> {
    let event = prop_oneof![
        Just(Event::Begins),
        Just(Event::Closes),
        Just(Event::Establishes),
        Just(Event::Meets),
    ];
    prop::collection::vec((event, 0_usize..1_000), 0..200)
}

proptest! {
    #[test]
    fn what_is_right_stays_whatever_happens_during_the_walk(
        flows in (0_usize..40, 0_usize..40),
        unseen in any::<i32>(),
        closed in any::<u64>(),
        events in events(),
    ) {
        let mut model = Model::of(flows, unseen, closed);
        let before = model.load;
        for (event, number) in events {
            model.apply(event, number);
        }
        let census = model.finish(before);
        prop_assert_eq!(census.correct(unseen), unseen);
        prop_assert_eq!(i64::from(model.load.open(unseen)), model.count());
    }

    #[test]
    fn what_is_wrong_becomes_right_by_as_much_as_the_walk_can_tell(
        flows in (0_usize..40, 0_usize..40),
        unseen in any::<i32>(),
        off in -100_i32..100,
        closed in any::<u64>(),
        events in events(),
    ) {
        let mut model = Model::of(flows, unseen, closed);
        let before = model.load;
        for (event, number) in events {
            model.apply(event, number);
        }
        let census = model.finish(before);
        let corrected = census.correct(unseen.wrapping_add(off));
        let left = corrected.wrapping_sub(unseen).unsigned_abs();
        prop_assert!(left <= off.unsigned_abs());
        let began = census.after.opened.wrapping_sub(before.opened);
        let ended = census.after.closed.wrapping_sub(before.closed);
        let doubtful = began + ended + census.records.begun.min(census.records.live);
        prop_assert!(u64::from(left) <= doubtful);
    }
}

#[test]
fn flows_that_nobody_saw_end_are_taken_off_at_once() {
    let before = Load::new(1_000, 200);
    let records = Sessions {
        live: 500,
        begun: 20,
    };
    let census = Census {
        before,
        after: before,
        records,
    };
    assert_eq!(census.correct(0), 520 - 800);
    assert_eq!(before.open(census.correct(0)), 520);
}

/// Each of them counts as opened and is never seen to close: days of it at a rate that is no attack.
#[test]
fn ends_that_nobody_sees_never_add_up_to_a_full_backend() {
    let (mut opened, mut correction) = (0_u64, 0_i32);
    for _walk in 0..40 {
        opened += 1 << 28;
        let load = Load::new(opened, 0);
        let records = Sessions { live: 10, begun: 0 };
        let census = Census {
            before: load,
            after: load,
            records,
        };
        correction = census.correct(correction);
        assert_eq!(load.open(correction), 10, "after {opened} flows");
    }
    assert!(opened > 1 << 33);
}
