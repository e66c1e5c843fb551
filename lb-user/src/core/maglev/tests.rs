//! Balance, weights and disruption of the table.

use std::collections::BTreeMap;

use lb_common::abi::{BackendId, Ip, SLOT_COUNT};
use proptest::prelude::*;

use super::{Member, slots};

/// Backend `n` of a network; its id and its place in the list say nothing about it.
fn member(n: u16, weight: u16) -> Member {
    let [high, low] = n.to_be_bytes();
    Member {
        id: BackendId(n),
        address: Ip::from_v4([172, 16, high, low]),
        port: 1883,
        weight,
    }
}

fn equal_members(count: u16) -> Vec<Member> {
    (0..count).map(|n| member(n, 1)).collect()
}

fn counts(owners: &[BackendId]) -> BTreeMap<BackendId, u32> {
    let mut counts = BTreeMap::new();
    for &owner in owners {
        *counts.entry(owner).or_default() += 1;
    }
    counts
}

/// Slots that moved although their owner stayed.
fn disrupted(before: &[BackendId], after: &[BackendId], lost: BackendId) -> usize {
    let pairs = before.iter().zip(after);
    pairs
        .filter(|(old, new)| **old != lost && old != new)
        .count()
}

#[test]
fn no_member_gives_no_table() {
    assert!(slots(&[], &[]).is_empty());
}

#[test]
fn one_member_owns_all() {
    let owners = slots(&[member(7, 3)], &[]);
    assert_eq!(owners, vec![BackendId(7); SLOT_COUNT as usize]);
}

#[test]
fn table_of_known_backends_never_changes() {
    // Nodes of different releases must agree, or a take-over loses every session.
    let owners = slots(&equal_members(3), &[]);
    let sum = owners.iter().fold(0_u64, |sum, owner| {
        sum.wrapping_mul(31).wrapping_add(u64::from(owner.0))
    });
    assert_eq!(sum, 5_126_564_557_905_752_262);
}

#[test]
fn loss_of_one_of_two_moves_only_its_slots() {
    let before = slots(&equal_members(2), &[]);
    let after = slots(&[member(1, 1)], &[]);
    assert_eq!(disrupted(&before, &after, BackendId(0)), 0);
}

#[test]
fn loss_of_one_of_ten_moves_few_others() {
    let members = equal_members(10);
    let before = slots(&members, &[]);
    for lost in 0..10 {
        let kept: Vec<Member> = members.iter().filter(|m| m.id.0 != lost).copied().collect();
        let moved = disrupted(&before, &slots(&kept, &[]), BackendId(lost));
        assert!(
            moved * 200 < SLOT_COUNT as usize,
            "{moved} slots moved without need"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn equal_members_own_equally_many_slots(count in 1_u16..200) {
        let counts = counts(&slots(&equal_members(count), &[]));
        let even = SLOT_COUNT / u32::from(count);
        prop_assert_eq!(counts.len(), usize::from(count));
        prop_assert!(counts.values().all(|&owned| owned == even || owned == even + 1));
    }

    #[test]
    fn weights_are_honoured_within_a_hundredth_of_the_table(
        weights in prop::collection::vec(1_u16..=256, 1..40),
    ) {
        let members: Vec<Member> =
            (0..).zip(&weights).map(|(n, &weight)| member(n, weight)).collect();
        let total: u32 = weights.iter().map(|&weight| u32::from(weight)).sum();
        let counts = counts(&slots(&members, &[]));
        for (n, &weight) in (0..).zip(&weights) {
            let owned = f64::from(counts.get(&BackendId(n)).copied().unwrap_or(0));
            let due = f64::from(SLOT_COUNT) * f64::from(weight) / f64::from(total);
            // One turn more or less, and a hundredth.
            prop_assert!((owned - due).abs() <= 1.0 + due / 100.0, "{owned} of {due}");
        }
    }

    #[test]
    fn order_and_ids_do_not_matter(
        members in Just(equal_members(12)).prop_shuffle(),
        weights in prop::collection::vec(1_u16..=256, 12),
    ) {
        let weighted = |n: u16| member(n, weights[usize::from(n)]);
        let sorted: Vec<Member> = (0..12).map(weighted).collect();
        let renamed: Vec<Member> = members
            .iter()
            .map(|m| Member { id: BackendId(100 - m.id.0), ..weighted(m.id.0) })
            .collect();
        let expected: Vec<BackendId> =
            slots(&sorted, &[]).iter().map(|owner| BackendId(100 - owner.0)).collect();
        prop_assert_eq!(slots(&renamed, &[]), expected);
    }

    #[test]
    fn returning_member_finds_its_slots(count in 2_u16..30, lost in 0_u16..30) {
        let mut members = equal_members(count);
        let before = slots(&members, &[]);
        let gone = members.remove(usize::from(lost % count));
        prop_assert!(!slots(&members, &[]).contains(&gone.id));
        members.push(gone);
        prop_assert_eq!(slots(&members, &[]), before);
    }
}
