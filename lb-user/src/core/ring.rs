//! The order of turns in which round robin gives out new flows.
//!
//! Smooth weighted round robin, as nginx does it: in each turn every backend gains its weight, the
//! richest is chosen and pays the sum of all weights. A heavy backend's turns are spread over the
//! ring instead of following each other. Equal weights give each backend one turn.

use lb_common::abi::{BackendId, RING_SIZE};

use crate::core::maglev::Member;

/// The order of turns, at most [`RING_SIZE`] of them; empty without members.
///
/// Every member has at least one turn, provided there are no more members than the ring has places.
/// Weights that need more places are rounded.
#[must_use]
pub fn turns(members: &[Member]) -> Vec<BackendId> {
    let mut members = members.to_vec();
    members.sort_unstable_by_key(Member::identity);
    members.truncate(RING_SIZE as usize);
    let shares = shares(&members);
    let total: i64 = shares.iter().sum();
    let mut credits = vec![0_i64; members.len()];
    let turn = |_| {
        for (credit, share) in credits.iter_mut().zip(&shares) {
            *credit += share;
        }
        let richest = first_maximum(&credits)?;
        credits[richest] -= total;
        Some(members[richest].id)
    };
    (0..total).filter_map(turn).collect()
}

/// How many places the ring of such members has.
#[must_use]
pub fn places(members: &[Member]) -> usize {
    let members = &members[..members.len().min(RING_SIZE as usize)];
    let places = shares(members).into_iter().sum::<i64>();
    usize::try_from(places).unwrap_or_default()
}

/// How many turns each member has.
fn shares(members: &[Member]) -> Vec<i64> {
    let weights: Vec<i64> = members.iter().map(|m| i64::from(m.weight.max(1))).collect();
    let reduced = reduce(&weights);
    if reduced.iter().sum::<i64>() <= i64::from(RING_SIZE) {
        return reduced;
    }
    reduce(&scale(&reduced, i64::from(RING_SIZE)))
}

/// Divides by the greatest common divisor.
fn reduce(weights: &[i64]) -> Vec<i64> {
    let divisor = weights.iter().copied().fold(0, gcd).max(1);
    weights.iter().map(|weight| weight / divisor).collect()
}

const fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Scales weights down to a sum of at most `places`, with none below 1.
///
/// The lightest are served first, so that the one place that each is due at least is taken from
/// what is shared by those after them.
fn scale(weights: &[i64], places: i64) -> Vec<i64> {
    let mut lightest_first: Vec<usize> = (0..weights.len()).collect();
    lightest_first.sort_by_key(|&at| weights[at]);
    let mut scaled = weights.to_vec();
    let (mut places, mut total) = (places, weights.iter().sum::<i64>());
    for at in lightest_first {
        scaled[at] = ((weights[at] * places + total / 2) / total).max(1);
        places -= scaled[at];
        total -= weights[at];
    }
    scaled
}

fn first_maximum(credits: &[i64]) -> Option<usize> {
    (0..credits.len()).rev().max_by_key(|&at| credits[at])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use lb_common::abi::{BackendId, Ip, RING_SIZE};
    use proptest::prelude::*;

    use super::{places, turns};
    use crate::core::maglev::Member;

    fn members(weights: &[u16]) -> Vec<Member> {
        let member = |(n, &weight): (u16, &u16)| Member {
            id: BackendId(n),
            address: Ip::from_v4([10, 0, n.to_be_bytes()[0], n.to_be_bytes()[1]]),
            port: 1883,
            weight,
        };
        (0..).zip(weights).map(member).collect()
    }

    fn order(weights: &[u16]) -> Vec<u16> {
        turns(&members(weights)).iter().map(|id| id.0).collect()
    }

    #[test]
    fn equal_weights_take_one_turn_each() {
        assert_eq!(order(&[7, 7, 7]), [0, 1, 2]);
    }

    #[test]
    fn turns_of_a_heavy_member_are_spread() {
        assert_eq!(order(&[5, 1, 1]), [0, 0, 1, 0, 2, 0, 0]);
    }

    #[test]
    fn no_member_gives_no_ring() {
        assert!(order(&[]).is_empty());
    }

    #[test]
    fn full_ring_of_equal_members_has_each_once() {
        let ring = order(&[9; RING_SIZE as usize]);
        assert_eq!(ring, (0..1024).collect::<Vec<u16>>());
    }

    proptest! {
        #[test]
        fn shares_follow_weights(weights in prop::collection::vec(1_u16..=256, 1..60)) {
            let ring = turns(&members(&weights));
            prop_assert!(ring.len() <= RING_SIZE as usize);
            prop_assert_eq!(ring.len(), places(&members(&weights)));
            let mut counts = BTreeMap::new();
            for id in &ring {
                *counts.entry(id.0).or_insert(0.0) += 1.0;
            }
            let total: f64 = weights.iter().map(|&weight| f64::from(weight)).sum();
            for (n, &weight) in (0..).zip(&weights) {
                let due = f64::from(weight) / total * ring.len() as f64;
                let has = counts.get(&n).copied().unwrap_or(0.0);
                prop_assert!(has >= 1.0, "{n} has no turn");
                // Scaling rounds by less than two places.
                prop_assert!((has - due).abs() < 2.0, "{n} has {has} of {due}");
            }
        }

        #[test]
        fn order_of_members_does_not_matter(
            shuffled in Just(members(&[1, 2, 3, 4, 5, 6])).prop_shuffle(),
        ) {
            prop_assert_eq!(turns(&shuffled), turns(&members(&[1, 2, 3, 4, 5, 6])));
        }
    }
}
