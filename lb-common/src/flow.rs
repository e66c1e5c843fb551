//! The flow hash, identical in the kernel, the planner and the tests.
//!
//! NH, the universal hash of UMAC (Black, Halevi, Krawczyk, Krovetz, Rogaway, CRYPTO '99), over the
//! client's address and port, then a mixing step. NH bounds the chance that two chosen inputs
//! collide under a secret key by 2^-32, so nobody who does not know the seed can aim flows at one
//! slot. It costs one multiplication per eight bytes and no rotation, which the packet path can
//! afford; a SipHash costs five times as many instructions.

use crate::abi::{Balance, FlowKey, SLOT_COUNT, Service};

/// The secret of the hash, expanded from the configured seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct HashKeys {
    words: [u32; 6],
}

impl HashKeys {
    /// Expands a seed. Both nodes of a pair must use the same one.
    #[must_use]
    pub fn from_seed(seed: [u8; 16]) -> Self {
        let seed = u128::from_be_bytes(seed);
        let mut state = (seed as u64) ^ split_mix((seed >> 64) as u64);
        let mut next = || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            split_mix(state ^ (seed >> 64) as u64)
        };
        let pairs = [next(), next(), next()];
        Self {
            words: core::array::from_fn(|at| (pairs[at / 2] >> (32 * (at % 2))) as u32),
        }
    }

    /// Keys that hash alike everywhere: the initial value of the program's constant, which the
    /// loader always replaces.
    #[must_use]
    pub const fn zero() -> Self {
        Self { words: [0; 6] }
    }

    /// Hashes the client's side of a flow; the other side is the same for the whole service.
    #[inline(always)]
    #[must_use]
    pub fn hash(&self, flow: &FlowKey) -> u32 {
        self.masked(flow, u32::MAX)
    }

    /// Hashes the client's address alone, so that all that it sends to a VIP has one hash.
    #[inline(always)]
    #[must_use]
    pub fn hash_source(&self, flow: &FlowKey) -> u32 {
        self.masked(flow, 0)
    }

    /// The hash that picks a flow's slot in a service.
    #[inline(always)]
    #[must_use]
    pub fn hash_for(&self, service: &Service, flow: &FlowKey) -> u32 {
        self.masked(flow, if service.is_by_source() { 0 } else { u32::MAX })
    }

    /// As [`Self::hash_for`], where only the service's way of balancing is at hand.
    #[must_use]
    pub fn hash_by(&self, balance: Balance, flow: &FlowKey) -> u32 {
        match balance {
            Balance::Source => self.hash_source(flow),
            Balance::Maglev | Balance::RoundRobin | Balance::LeastConn => self.hash(flow),
        }
    }

    /// `mask` says which bits count of what is beside the address. A mask, not two ways: the kernel
    /// half has one computation to check and no branch to miss.
    #[inline(always)]
    fn masked(&self, flow: &FlowKey, mask: u32) -> u32 {
        let [a, b, c, d] = flow.source().words().map(u32::from_be);
        let ports = (u32::from(flow.source_port()) << 16) | u32::from(flow.destination_port());
        let (ports, protocol) = (ports & mask, u32::from(flow.protocol()) & mask);
        let words = &self.words;
        let sum = pair(a, words[0], b, words[1])
            .wrapping_add(pair(c, words[2], d, words[3]))
            .wrapping_add(pair(ports, words[4], protocol, words[5]));
        (split_mix_tail(sum) >> 32) as u32
    }
}

#[inline(always)]
fn pair(low: u32, low_key: u32, high: u32, high_key: u32) -> u64 {
    u64::from(low.wrapping_add(low_key)) * u64::from(high.wrapping_add(high_key))
}

/// The finalizer of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
#[inline(always)]
const fn split_mix(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// Half of [`split_mix`]: enough to spread the sum of NH over its upper 32 bits.
#[inline(always)]
const fn split_mix_tail(mut value: u64) -> u64 {
    value = (value ^ (value >> 32)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value ^= value >> 29;
    value.wrapping_mul(0x94d0_49bb_1331_11eb)
}

/// Maps a hash to `0..count` without a division (Lemire, "Fast Random Integer Generation in an
/// Interval", 2019).
#[inline(always)]
#[must_use]
pub const fn reduce(hash: u32, count: u32) -> u32 {
    ((hash as u64 * count as u64) >> 32) as u32
}

/// The slot of a flow in its service's Maglev table.
#[inline(always)]
#[must_use]
pub const fn slot(hash: u32) -> u32 {
    reduce(hash, SLOT_COUNT)
}

#[cfg(test)]
mod tests {
    use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    use super::{HashKeys, slot};
    use crate::abi::{Balance, FlowKey, Forward, Ip, PROTOCOL_TCP, SLOT_COUNT, Service, ServiceId};

    fn keys() -> HashKeys {
        HashKeys::from_seed(*b"a seed for tests")
    }

    fn flow(address: IpAddr, port: u16) -> FlowKey {
        let vip = Ip::from(IpAddr::from([172, 16, 40, 24]));
        FlowKey::new(Ip::from(address), vip, port, 1883, PROTOCOL_TCP)
    }

    fn worst_share(flows: impl Iterator<Item = FlowKey>) -> f64 {
        const BINS: u32 = 16;
        let mut bins = [0_u32; BINS as usize];
        let mut total = 0;
        for flow in flows {
            let at = slot(keys().hash(&flow)) * BINS / SLOT_COUNT;
            bins[at as usize] += 1;
            total += 1;
        }
        let even = f64::from(total) / f64::from(BINS);
        bins.iter()
            .map(|&bin| (f64::from(bin) - even).abs() / even)
            .fold(0.0, f64::max)
    }

    #[test]
    fn neighbouring_ports_of_one_client_spread_evenly() {
        let client = IpAddr::from([172, 16, 40, 100]);
        assert!(worst_share((1024..=65535).map(|port| flow(client, port))) < 0.06);
    }

    #[test]
    fn neighbouring_addresses_spread_evenly() {
        let v4 = (0..65536_u32).map(|n| flow(IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + n)), 40_000));
        assert!(worst_share(v4) < 0.06);
        let v6 = (0..65536_u128).map(|n| {
            flow(
                IpAddr::V6(Ipv6Addr::from((0x2001_0db8_u128 << 96) + (n << 64))),
                40_000,
            )
        });
        assert!(worst_share(v6) < 0.06);
    }

    #[test]
    fn another_seed_gives_another_slot() {
        let other = HashKeys::from_seed(*b"another seed ...");
        let client = IpAddr::from([10, 0, 0, 1]);
        let same = (0..1000)
            .filter(|&port| keys().hash(&flow(client, port)) == other.hash(&flow(client, port)))
            .count();
        assert!(same <= 1);
    }

    #[test]
    fn by_source_every_port_of_a_client_has_one_slot() {
        let hash = |address, port| keys().hash_by(Balance::Source, &flow(address, port));
        for address in [IpAddr::from([10, 0, 0, 1]), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
            assert!((0..1000).all(|port| hash(address, port) == hash(address, 40_000)));
        }
    }

    #[test]
    fn by_source_neighbouring_addresses_spread_evenly() {
        let mut bins = [0_u32; 16];
        for n in 0..65_536 {
            let flow = flow(IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + n)), 40_000);
            bins[(slot(keys().hash_source(&flow)) * 16 / SLOT_COUNT) as usize] += 1;
        }
        assert!(
            bins.iter().all(|&bin| bin.abs_diff(4_096) < 246),
            "{bins:?}"
        );
    }

    #[test]
    fn a_service_and_its_balance_give_the_same_hash() {
        let flow = flow(IpAddr::from([10, 0, 0, 1]), 40_000);
        for balance in [Balance::Maglev, Balance::RoundRobin, Balance::Source] {
            let service = Service::new(ServiceId(0), 0, 1, balance, Forward::Dsr);
            assert_eq!(
                keys().hash_for(&service, &flow),
                keys().hash_by(balance, &flow)
            );
        }
    }

    #[test]
    fn the_hash_of_a_known_flow_never_changes() {
        // Nodes of different releases must agree, or a take-over loses every session.
        let hash = keys().hash(&flow(IpAddr::from([172, 16, 40, 100]), 40_000));
        assert_eq!(hash, 139_890_436);
    }
}
