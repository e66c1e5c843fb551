//! Layout of every map that the daemon and the XDP program share.
//!
//! All types are `repr(C)` with explicit padding, so that keys compare bytewise; addresses and ports
//! are in network byte order. Map names are the constants below; capacities that the configuration
//! sets are given to the loader, the others stand here.
//!
//! How the tables hang together: a packet's `(VIP, port, protocol)` finds a [`Service`], which names
//! the active half of its slot table; the flow hash picks a [`Slot`] there; the slot names a
//! [`Backend`], which holds all that forwarding needs. Changing a service writes the inactive half
//! and then replaces the [`Service`]: one update switches all of it.

mod backend;
mod flow;
mod ip;
mod nat;
mod service;

pub use self::{
    backend::{Backend, BackendId, BackendState, NextHop, Slot, SlotLine},
    flow::{Flow, FlowKey, FlowState, Reply, Tick},
    ip::Ip,
    nat::NatPool,
    service::{Balance, Forward, Service, ServiceId, ServiceKey},
};

/// Hash: [`ServiceKey`] to [`Service`].
pub const SERVICES: &str = "SERVICES";
/// Array: [`BackendId`] to [`Backend`].
pub const BACKENDS: &str = "BACKENDS";
/// Array of [`SlotLine`]: two tables of [`TABLE_LINES`] a service.
pub const SLOTS: &str = "SLOTS";
/// Array of `u64`, one a service: the next position in the round-robin ring.
pub const RING_POSITIONS: &str = "RING_POSITIONS";
/// Hash: [`FlowKey`] to [`Flow`]: tracked flows that have sent data. Never evicted.
pub const FLOWS: &str = "FLOWS";
/// LRU hash: [`FlowKey`] to [`Flow`]: flows that have only sent a SYN.
pub const HALF_OPEN: &str = "HALF_OPEN";
/// Hash: [`FlowKey`] of a backend's reply to [`Reply`], beside [`FLOWS`].
pub const REPLIES: &str = "REPLIES";
/// LRU hash: [`FlowKey`] of a backend's reply to [`Reply`], beside [`HALF_OPEN`].
pub const HALF_OPEN_REPLIES: &str = "HALF_OPEN_REPLIES";
/// Array of one [`NatPool`].
pub const NAT_POOL: &str = "NAT_POOL";
/// Per-CPU array of `u64`, one a [`crate::verdict::Verdict`].
pub const VERDICTS: &str = "VERDICTS";
/// Per-CPU array of [`Traffic`], one a service: what was dropped before a backend was chosen.
pub const SERVICE_TRAFFIC: &str = "SERVICE_TRAFFIC";
/// Per-CPU array of [`Traffic`], one a backend.
pub const BACKEND_TRAFFIC: &str = "BACKEND_TRAFFIC";
/// Read-only global of type [`crate::flow::HashKeys`].
pub const HASH_KEYS: &str = "HASH_KEYS";
/// The name of the balancer program in the object.
pub const PROGRAM: &str = "tidegate";

/// IP protocol number of TCP.
pub const PROTOCOL_TCP: u8 = 6;
/// IP protocol number of UDP.
pub const PROTOCOL_UDP: u8 = 17;

/// Slots of a Maglev table: a prime, and over 100 times the usual number of backends, which keeps
/// the imbalance below 1 % (Maglev, NSDI '16, section 5.3).
pub const SLOT_COUNT: u32 = 65_537;
/// Positions of a round-robin ring at most: bounds how finely weights are honoured.
pub const RING_SIZE: u32 = 1_024;
/// Slots in one map value: array values are padded to eight bytes, so single slots would take
/// twice their size; a cache line of them wastes nothing and takes few updates to write.
pub const SLOTS_PER_LINE: u32 = 16;
/// Lines of one table: its slots, then its ring.
pub const TABLE_LINES: u32 = SLOT_LINES + RING_SIZE / SLOTS_PER_LINE;
/// Lines of one table that hold slots.
pub const SLOT_LINES: u32 = SLOT_COUNT.div_ceil(SLOTS_PER_LINE);
/// Tables of one service: the active one and the one being written.
pub const GENERATIONS: u32 = 2;
/// Source addresses of one family that NAT can use.
pub const NAT_SOURCES: usize = 8;

/// What went through one service or backend on one CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Traffic {
    /// Packets from clients that were forwarded.
    pub packets: u64,
    /// Their bytes, from the Ethernet header on.
    pub bytes: u64,
    /// SYNs among them that started a flow; for UDP, 0 where flows are not tracked.
    pub new_connections: u64,
    /// Packets from clients that were dropped.
    pub dropped: u64,
    /// Replies that were translated (NAT only).
    pub reply_packets: u64,
    /// Their bytes.
    pub reply_bytes: u64,
    /// Packets of tracked flows for which the flow table had no room.
    pub untracked: u64,
}

impl Traffic {
    /// Both, counter by counter.
    #[must_use]
    pub fn combine(self, other: Self, with: impl Fn(u64, u64) -> u64) -> Self {
        let Self {
            packets,
            bytes,
            new_connections,
            dropped,
            reply_packets,
            reply_bytes,
            untracked,
        } = self;
        Self {
            packets: with(packets, other.packets),
            bytes: with(bytes, other.bytes),
            new_connections: with(new_connections, other.new_connections),
            dropped: with(dropped, other.dropped),
            reply_packets: with(reply_packets, other.reply_packets),
            reply_bytes: with(reply_bytes, other.reply_bytes),
            untracked: with(untracked, other.untracked),
        }
    }
}

const _: () = {
    assert!(size_of::<ServiceKey>() == 20);
    assert!(size_of::<Service>() == 12);
    assert!(size_of::<SlotLine>() == 64);
    assert!(size_of::<Backend>() == 64);
    assert!(size_of::<FlowKey>() == 40);
    assert!(size_of::<Flow>() == 24);
    assert!(size_of::<NextHop>() == 16);
    assert!(size_of::<Reply>() == 56);
    assert!(size_of::<NatPool>() == 272);
    assert!(size_of::<Traffic>() == 56);
    assert!(size_of::<crate::generator::Order>() == 40);
};

#[cfg(feature = "user")]
mod pod {
    use super::{Backend, Flow, FlowKey, NatPool, Reply, Service, ServiceKey, SlotLine, Traffic};
    use crate::{flow::HashKeys, generator::Order};

    macro_rules! pod {
        ($($type:ty),*) => {$(
            // SAFETY: repr(C) of integers and byte arrays; the padding is explicit, as the size
            // asserts above and the field lists show, so every bit pattern is a value.
            unsafe impl aya::Pod for $type {}
        )*};
    }
    pod!(
        Backend, Flow, FlowKey, HashKeys, NatPool, Order, Reply, Service, ServiceKey, SlotLine,
        Traffic
    );
}

#[cfg(test)]
mod tests {
    use core::net::IpAddr;

    use super::{
        Backend, BackendId, Balance, Forward, Ip, NatPool, NextHop, SLOT_COUNT, Service, ServiceId,
        Slot, TABLE_LINES,
    };

    #[test]
    fn addresses_survive_the_round_trip() {
        for text in ["172.16.40.24", "0.0.0.0", "fd00:40::24", "::1", "::"] {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(IpAddr::from(Ip::from(address)), address);
            assert_eq!(Ip::from(address).is_v4(), address.is_ipv4());
        }
    }

    #[test]
    fn a_safe_slot_names_its_owner() {
        let slot = Slot::safe(BackendId(BackendId::LIMIT - 1));
        assert_eq!(slot.owner(), BackendId(BackendId::LIMIT - 1));
        assert!(slot.is_safe());
    }

    #[test]
    fn tables_of_neighbouring_services_do_not_overlap() {
        let service = |id, generation| {
            Service::new(ServiceId(id), generation, 1, Balance::Maglev, Forward::Dsr)
        };
        let (last_slot, _) = service(3, 0).slot_at(SLOT_COUNT - 1);
        let (first_ring, _) = service(3, 0).ring_at(0);
        let (last_ring, place) = service(3, 0).ring_at(super::RING_SIZE - 1);
        assert_eq!(first_ring, last_slot + 1);
        assert_eq!((last_ring + 1, place), (service(3, 1).table(), 15));
        assert_eq!(
            service(4, 0).table() - service(3, 0).table(),
            2 * TABLE_LINES
        );
    }

    #[test]
    fn a_backend_without_next_hop_has_none() {
        let address = Ip::from_v4([10, 0, 0, 1]);
        let hop = NextHop {
            interface: 3,
            mac: [1; 6],
            source_mac: [2; 6],
        };
        let backend = Backend::new(address, 1883, ServiceId(0), 1, Some(hop));
        assert_eq!(backend.next_hop(), Some(hop));
        assert_eq!(
            Backend::new(address, 1883, ServiceId(0), 1, None).next_hop(),
            None
        );
        assert!(!Backend::ABSENT.is_serving());
    }

    #[test]
    fn a_nat_pool_keeps_families_apart() {
        let v4 = Ip::from_v4([10, 0, 0, 1]);
        let v6 = Ip::new([0xfd; 16]);
        let pool = NatPool::new(&[v6, v4], 1024, 32_767);
        assert_eq!((pool.source_count(true), pool.source_count(false)), (1, 1));
        assert_eq!((*pool.source(true, 0), *pool.source(false, 0)), (v4, v6));
        assert_eq!((pool.first_port(), pool.port_count()), (1024, 31_744));
    }
}
