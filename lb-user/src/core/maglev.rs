//! Maglev's look-up table: which backend owns which slot.
//!
//! "Maglev: A Fast and Reliable Software Network Load Balancer" (Eisenbud et al., NSDI '16, section
//! 3.4). Every backend has a preference list, a permutation of all slots; they take turns to claim
//! the first slot on their list that is still free. Weights are honoured by the number of turns.
//!
//! The permutation comes from the backend's address and port and nothing else, and turns are taken
//! in the order of these. So two nodes with the same healthy backends have the same table whatever
//! the order in their files, their ids or their past; and a backend that returns finds its old slots.

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

/// The owner of each slot; empty without members.
#[must_use]
pub fn slots(members: &[Member]) -> Vec<BackendId> {
    let mut claimants: Vec<Claimant> = members.iter().map(Claimant::new).collect();
    claimants.sort_unstable_by_key(|claimant| claimant.identity);
    let Some(heaviest) = claimants.iter().map(|claimant| claimant.weight).max() else {
        return Vec::new();
    };
    let mut owners: Vec<Option<BackendId>> = vec![None; SLOT_COUNT as usize];
    let mut unclaimed = owners.len();
    loop {
        for claimant in &mut claimants {
            if !claimant.has_turn(heaviest) {
                continue;
            }
            claimant.claim(&mut owners);
            unclaimed -= 1;
            if unclaimed == 0 {
                return owners.into_iter().flatten().collect();
            }
        }
    }
}

/// A backend on its way through its preference list: `offset + n * skip`, modulo the slot count.
struct Claimant {
    id: BackendId,
    identity: (IpAddr, u16),
    weight: u32,
    /// Weight gathered towards the next turn.
    credit: u32,
    position: u32,
    skip: u32,
}

impl Claimant {
    fn new(member: &Member) -> Self {
        let identity = member.identity();
        let hash = identity_hash(identity);
        Self {
            id: member.id,
            identity,
            weight: u32::from(member.weight.max(1)),
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
    fn claim(&mut self, owners: &mut [Option<BackendId>]) {
        loop {
            let wanted = &mut owners[self.position as usize];
            self.position = (self.position + self.skip) % SLOT_COUNT;
            if wanted.is_none() {
                *wanted = Some(self.id);
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
