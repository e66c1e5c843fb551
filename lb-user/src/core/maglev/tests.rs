//! Balance, weights and disruption of the table.

use std::collections::BTreeMap;

use lb_common::abi::{BackendId, Ip, SLOT_COUNT};
use proptest::prelude::*;

use super::{Lender, Member, slots};

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

/// The members and lenders of a service whose backends are up or down as `up` says.
fn split(all: &[Member], up: &[bool]) -> (Vec<Member>, Vec<Lender>) {
    let (members, down): (Vec<_>, Vec<_>) = all.iter().zip(up).partition(|(_, up)| **up);
    let lender = |member: &Member| Lender {
        address: member.address,
        port: member.port,
        weight: member.weight,
    };
    (
        members.into_iter().map(|(member, _)| *member).collect(),
        down.into_iter().map(|(member, _)| lender(member)).collect(),
    )
}

fn slots_when(all: &[Member], up: &[bool]) -> Vec<BackendId> {
    let (members, lenders) = split(all, up);
    slots(&members, &lenders)
}

/// Backends of any weight, some of them up, one at least.
fn fleet() -> impl Strategy<Value = (Vec<Member>, Vec<bool>)> {
    prop::collection::vec((1_u16..=8, any::<bool>()), 1..24).prop_map(|backends| {
        let members = (0..)
            .zip(&backends)
            .map(|(n, &(weight, _))| member(n, weight));
        let mut up: Vec<bool> = backends.iter().map(|&(_, up)| up).collect();
        up[0] |= !up.contains(&true);
        (members.collect(), up)
    })
}

fn checksum(owners: &[BackendId]) -> u64 {
    let add = |sum: u64, owner: &BackendId| sum.wrapping_mul(31).wrapping_add(u64::from(owner.0));
    owners.iter().fold(0, add)
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
    assert_eq!(checksum(&owners), 5_126_564_557_905_752_262);
}

#[test]
fn lenders_alone_give_no_table() {
    assert!(slots_when(&equal_members(3), &[false; 3]).is_empty());
}

#[test]
fn table_with_a_lender_never_changes() {
    let owners = slots_when(&equal_members(3), &[true, false, true]);
    assert_eq!(checksum(&owners), 10_190_967_173_780_201_464);
}

#[test]
fn removal_of_a_dead_backend_from_the_config_moves_few_slots() {
    let all = equal_members(10);
    for dead in 0..10 {
        let mut up = [true; 10];
        up[dead] = false;
        let (members, lenders) = split(&all, &up);
        let lent = slots(&members, &lenders);
        let removed = slots(&members, &[]);
        let moved = lent
            .iter()
            .zip(&removed)
            .filter(|(lent, removed)| lent != removed);
        let moved = moved.count();
        assert!(
            moved * 100 < SLOT_COUNT as usize,
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
    fn death_of_any_moves_no_slot_of_a_survivor((all, up) in fleet()) {
        let full = slots(&all, &[]);
        let lent = slots_when(&all, &up);
        prop_assert_eq!(lent.len(), full.len());
        for (&owner, &before) in lent.iter().zip(&full) {
            prop_assert!(up[usize::from(owner.0)], "a dead backend owns a slot");
            prop_assert!(owner == before || !up[usize::from(before.0)], "a survivor's slot moved");
        }
    }

    #[test]
    fn order_of_lenders_does_not_matter((all, up) in fleet()) {
        let (members, mut lenders) = split(&all, &up);
        let expected = slots(&members, &lenders);
        lenders.reverse();
        prop_assert_eq!(slots(&members, &lenders), expected);
    }

    #[test]
    fn lent_slots_are_spread_by_weight((all, up) in fleet()) {
        let full = slots(&all, &[]);
        let lent = slots_when(&all, &up);
        let moved = lent.iter().zip(&full).filter(|(owner, before)| owner != before);
        let gained: Vec<BackendId> = moved.map(|(owner, _)| *owner).collect();
        let counts = counts(&gained);
        let (members, _) = split(&all, &up);
        let total: u32 = members.iter().map(|member| u32::from(member.weight)).sum();
        for member in &members {
            let has = f64::from(counts.get(&member.id).copied().unwrap_or(0));
            let due = gained.len() as f64 * f64::from(member.weight) / f64::from(total);
            // One turn more or less, and what a round that is not whole leaves uneven.
            prop_assert!((has - due).abs() <= 1.0 + due / 50.0, "{has} of {due}");
        }
    }
}
