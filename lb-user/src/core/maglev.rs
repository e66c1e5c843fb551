//! Maglev's look-up table: which backend owns which slot.
//!
//! "Maglev: A Fast and Reliable Software Network Load Balancer" (Eisenbud et al., NSDI '16, section
//! 3.4). Every backend has a preference list, a permutation of all slots; they take turns to claim
//! the first slot on their list that is still free. Weights are honoured by the number of turns.
//!
//! The permutation comes from the backend's address and port and nothing else, and turns are taken
//! in the order of these. So two nodes with the same backends in the same health have the same table
//! whatever the order in their files, their ids or their past.
//!
//! A smaller set of backends would give a table in which also a few slots of those that stay had
//! moved, each with its sessions. So backends that are down take their turns like the others; then
//! those that are up take turns for the slots of those that are down. No death moves a slot from its
//! owner in the full table if that lives, and a backend that returns finds its old slots. Only while
//! some are down may one more death move a few of the slots lent so far.

use std::net::IpAddr;

use lb_common::abi::{BackendId, Ip, SLOT_COUNT};

/// One backend that takes new flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    pub id: BackendId,
    pub address: Ip,
    pub port: u16,
    /// Its share relative to the others'; at least 1.
    pub weight: u16,
}

impl Member {
    /// What it is known by on every node.
    pub(super) fn identity(&self) -> (IpAddr, u16) {
        (IpAddr::from(self.address), self.port)
    }
}

/// One backend that would take new flows if it were up: its slots are lent to the members.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lender {
    pub address: Ip,
    pub port: u16,
    pub weight: u16,
}

/// The owner of each slot; empty without members.
#[must_use]
pub fn slots(members: &[Member], lenders: &[Lender]) -> Vec<BackendId> {
    if members.is_empty() {
        return Vec::new();
    }
    let mut slots = vec![Slot::Free; SLOT_COUNT as usize];
    let all = members.iter().map(Claimant::member);
    deal(&mut slots, all.chain(lenders.iter().map(Claimant::lender)));
    for slot in &mut slots {
        if *slot == Slot::Lent {
            *slot = Slot::Free;
        }
    }
    deal(&mut slots, members.iter().map(Claimant::member));
    let owner = |slot| match slot {
        Slot::Owned(owner) => Some(owner),
        Slot::Free | Slot::Lent => None,
    };
    slots.into_iter().filter_map(owner).collect()
}

/// Lets the claimants, of whom there is one at least, take turns until no slot is free.
fn deal(slots: &mut [Slot], claimants: impl Iterator<Item = Claimant>) {
    let mut claimants: Vec<Claimant> = claimants.collect();
    claimants.sort_unstable_by_key(|claimant| claimant.identity);
    let heaviest = claimants.iter().map(|claimant| claimant.weight).max();
    let mut free = slots.iter().filter(|slot| **slot == Slot::Free).count();
    while free > 0 {
        for claimant in &mut claimants {
            if free > 0 && claimant.has_turn(heaviest.unwrap_or(1)) {
                claimant.claim(slots);
                free -= 1;
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Slot {
    Free,
    Lent,
    Owned(BackendId),
}

/// A backend on its way through its preference list: `offset + n * skip`, modulo the slot count.
struct Claimant {
    /// What a slot becomes that it claims.
    claimed: Slot,
    identity: (IpAddr, u16),
    weight: u32,
    /// Weight gathered towards the next turn.
    credit: u32,
    position: u32,
    skip: u32,
}

impl Claimant {
    fn member(member: &Member) -> Self {
        Self::new(Slot::Owned(member.id), member.identity(), member.weight)
    }

    fn lender(lender: &Lender) -> Self {
        let identity = (IpAddr::from(lender.address), lender.port);
        Self::new(Slot::Lent, identity, lender.weight)
    }

    fn new(claimed: Slot, identity: (IpAddr, u16), weight: u16) -> Self {
        let hash = identity_hash(identity);
        Self {
            claimed,
            identity,
            weight: u32::from(weight.max(1)),
            credit: 0,
            position: fit(hash, SLOT_COUNT),
            // The slot count is prime, so every step from 1 to it visits all slots.
            skip: fit(mix(hash), SLOT_COUNT - 1) + 1,
        }
    }

    /// Whether this round has a turn for it: all rounds for the heaviest, every other for one of
    /// half its weight.
    const fn has_turn(&mut self, heaviest: u32) -> bool {
        self.credit += self.weight;
        if self.credit < heaviest {
            return false;
        }
        self.credit -= heaviest;
        true
    }

    /// Takes the first free slot on its list; there must be one.
    fn claim(&mut self, slots: &mut [Slot]) {
        loop {
            let wanted = &mut slots[self.position as usize];
            self.position = (self.position + self.skip) % SLOT_COUNT;
            if *wanted == Slot::Free {
                *wanted = self.claimed;
                return;
            }
        }
    }
}

/// A hash that must stay the same for ever: nodes of different releases must agree.
fn identity_hash((address, port): (IpAddr, u16)) -> u64 {
    let address = match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    let bits = address.to_bits();
    let words = [(bits >> 64) as u64, bits as u64, u64::from(port)];
    words.into_iter().fold(0, |hash, word| mix(hash ^ word))
}

/// One step of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
const fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

const fn fit(hash: u64, count: u32) -> u32 {
    (hash % count as u64) as u32
}

#[cfg(test)]
mod tests;
