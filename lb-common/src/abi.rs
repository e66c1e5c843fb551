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
mod guard;
mod ip;
mod lease;
mod nat;
mod service;
mod tunnel;

pub use self::{
    backend::{Backend, BackendId, BackendState, Load, NextHop, OwnMac, Slot, SlotLine},
    flow::{Flow, FlowEvent, FlowKey, FlowState, Fragment, FragmentKey, KeepAlive, Reply, Tick},
    guard::{Access, AccessKey, Bucket, GuardCounts, Rate, Rates, SourceKey},
    ip::Ip,
    lease::{Lease, VirtualMac},
    nat::NatPool,
    service::{Balance, Encapsulation, Features, Forward, Service, ServiceId, ServiceKey},
    tunnel::TunnelSources,
};

/// The number of the layout of all that the daemon pins; a version with another number cannot go on
/// with it. Raise it when a key or a value gets another meaning or becomes shorter. A value may grow
/// at its end if zero there means what it meant before: both ways are moved then.
pub const LAYOUT: u32 = 1;

/// Hash: [`ServiceKey`] to [`Service`].
pub const SERVICES: &str = "SERVICES";
/// Array: [`BackendId`] to [`Backend`].
pub const BACKENDS: &str = "BACKENDS";
/// Array of [`SlotLine`]: two tables of [`TABLE_LINES`] a service.
pub const SLOTS: &str = "SLOTS";
/// Array of `u64`, one a service: the next position in the round-robin ring.
pub const RING_POSITIONS: &str = "RING_POSITIONS";
/// Hash: [`FlowKey`] to [`Flow`]: tracked flows whose clients have sent data. Never evicted.
pub const FLOWS: &str = "FLOWS";
/// LRU hash: [`FlowKey`] to [`Flow`]: flows whose clients have sent no data yet.
pub const HALF_OPEN: &str = "HALF_OPEN";
/// Hash: [`FlowKey`] of a backend's reply to [`Reply`], beside [`FLOWS`].
pub const REPLIES: &str = "REPLIES";
/// LRU hash: [`FlowKey`] of a backend's reply to [`Reply`], beside [`HALF_OPEN`].
pub const HALF_OPEN_REPLIES: &str = "HALF_OPEN_REPLIES";
/// Array of one [`NatPool`].
pub const NAT_POOL: &str = "NAT_POOL";
/// Array of [`Load`], one a backend.
pub const LOADS: &str = "LOADS";
/// Array of one [`OwnMac`].
pub const OWN_MAC: &str = "OWN_MAC";
/// Array of one [`TunnelSources`].
pub const TUNNEL_SOURCES: &str = "TUNNEL_SOURCES";
/// LRU hash: [`FragmentKey`] to [`Fragment`]: packets of which a first piece was seen.
pub const FRAGMENTS: &str = "FRAGMENTS";
/// Longest-prefix-match trie: [`AccessKey`] to [`Access`] as `u32`.
pub const ACCESS: &str = "ACCESS";
/// Array of [`Rates`], one a service.
pub const RATES: &str = "RATES";
/// Array of [`Bucket`], one a service.
pub const SERVICE_BUCKETS: &str = "SERVICE_BUCKETS";
/// LRU hash: [`SourceKey`] to [`Bucket`].
pub const SOURCE_BUCKETS: &str = "SOURCE_BUCKETS";
/// LRU hash: [`SourceKey`], of no service in particular, to the [`Tick`] as `u32` at which the source
/// answered a challenge.
pub const ANSWERED: &str = "ANSWERED";
/// Per-CPU array of [`GuardCounts`], one a service.
pub const GUARD_COUNTS: &str = "GUARD_COUNTS";
/// Per-CPU array of [`MqttPackets`], one a service.
pub const MQTT_PACKETS: &str = "MQTT_PACKETS";
/// Array of `u32`, one a service: the longest keep-alive seen in a CONNECT, in seconds.
pub const KEEP_ALIVES: &str = "KEEP_ALIVES";
/// Array of one `u32`: 1 while [`FLOWS`] is too full for flows that can do without.
pub const FLOWS_FULL: &str = "FLOWS_FULL";
/// Hash: [`Ip`] of a virtual router's address to [`Lease`].
pub const LEASES: &str = "LEASES";
/// Array of programs by [`Stage`].
pub const STAGES: &str = "STAGES";
/// Per-CPU array of `u64`, one a [`crate::verdict::Verdict`].
pub const VERDICTS: &str = "VERDICTS";
/// Per-CPU array of [`Traffic`], one a service: what was dropped before a backend was chosen.
pub const SERVICE_TRAFFIC: &str = "SERVICE_TRAFFIC";
/// Per-CPU array of [`Traffic`], one a backend.
pub const BACKEND_TRAFFIC: &str = "BACKEND_TRAFFIC";
/// Ring buffer of [`FlowEvent`]: flows that have come to be in [`FLOWS`], for a daemon with a peer.
pub const FLOW_EVENTS: &str = "FLOW_EVENTS";
/// Per-CPU array of one `u64`: events for which [`FLOW_EVENTS`] had no room.
pub const FLOW_EVENTS_LOST: &str = "FLOW_EVENTS_LOST";
/// Read-only global of type `u32`: 1 if there are to be [`FLOW_EVENTS`].
pub const REPORTS_FLOWS: &str = "REPORTS_FLOWS";
/// Read-only global of type [`crate::flow::HashKeys`].
pub const HASH_KEYS: &str = "HASH_KEYS";
/// Read-only global of type [`crate::challenge::Key`].
pub const CHALLENGE_KEY: &str = "CHALLENGE_KEY";
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
/// Places of the ring that are looked at for a backend that is not full: the verifier follows each.
pub const RING_PROBES: u32 = 64;
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
    /// Flows that the client was seen to close: FIN and RST, as far as they pass here.
    pub closed: u64,
    /// Those of them that were reset, by either side where both are seen.
    pub resets: u64,
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
            closed,
            resets,
        } = self;
        Self {
            packets: with(packets, other.packets),
            bytes: with(bytes, other.bytes),
            new_connections: with(new_connections, other.new_connections),
            dropped: with(dropped, other.dropped),
            reply_packets: with(reply_packets, other.reply_packets),
            reply_bytes: with(reply_bytes, other.reply_bytes),
            untracked: with(untracked, other.untracked),
            closed: with(closed, other.closed),
            resets: with(resets, other.resets),
        }
    }
}

/// MQTT control packets that clients sent, by type: the upper four bits of a segment's first byte
/// (MQTT 5.0, section 2.1.2). A segment that starts inside a packet may be taken for another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct MqttPackets(pub [u64; 16]);

impl MqttPackets {
    /// Both, counter by counter.
    #[must_use]
    pub fn combine(mut self, other: Self, with: impl Fn(u64, u64) -> u64) -> Self {
        for (counter, other) in self.0.iter_mut().zip(other.0) {
            *counter = with(*counter, other);
        }
        self
    }
}

/// The parts of the program that the first one calls, by index into [`STAGES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum Stage {
    /// Checks who may connect.
    Guard = 0,
    /// Looks flows up and records them; dsr and tunnel.
    Track = 1,
    /// nat, from client to backend.
    Translate = 2,
    /// nat, from backend to client.
    Reply = 3,
    /// Puts a packet into another.
    Encapsulate = 4,
    /// ICMP errors about flows.
    Icmp = 5,
    /// Pieces of packets.
    Fragment = 6,
    /// Answers a packet with an ICMP error.
    Answer = 7,
    /// Who asks by ARP who has an address.
    Arp = 8,
}

impl Stage {
    /// Every stage with the name of its program in the object.
    pub const ALL: &[(Self, &str)] = &[
        (Self::Guard, "stage_guard"),
        (Self::Track, "stage_track"),
        (Self::Translate, "stage_translate"),
        (Self::Reply, "stage_reply"),
        (Self::Icmp, "stage_icmp"),
        (Self::Fragment, "stage_fragment"),
        (Self::Answer, "stage_answer"),
        (Self::Arp, "stage_arp"),
        (Self::Encapsulate, "stage_encapsulate"),
    ];
    /// Places in [`STAGES`].
    pub const LIMIT: u32 = 9;
}

const _: () = {
    assert!(size_of::<ServiceKey>() == 20);
    assert!(size_of::<Service>() == 16);
    assert!(size_of::<Ip>() == 16);
    assert!(size_of::<Load>() == 64);
    assert!(size_of::<FragmentKey>() == 40);
    assert!(size_of::<Fragment>() == 8);
    assert!(size_of::<AccessKey>() == 20);
    assert!(size_of::<Rates>() == 32);
    assert!(size_of::<Bucket>() == 8);
    assert!(size_of::<GuardCounts>() == 48);
    assert!(size_of::<SourceKey>() == 20);
    assert!(size_of::<TunnelSources>() == 48);
    assert!(size_of::<MqttPackets>() == 128);
    assert!(size_of::<SlotLine>() == 64);
    assert!(size_of::<Backend>() == 64);
    assert!(size_of::<FlowKey>() == 40);
    // With the kernel's own 48 bytes, its key and a bucket, a session stays below 128.
    assert!(size_of::<Flow>() == 16);
    // With the kernel's own 8 bytes a cache line.
    assert!(size_of::<FlowEvent>() == 56);
    assert!(size_of::<NextHop>() == 16);
    assert!(size_of::<OwnMac>() == 8);
    assert!(size_of::<Reply>() == 64);
    assert!(size_of::<NatPool>() == 272);
    assert!(size_of::<Traffic>() == 72);
    assert!(size_of::<crate::generator::Order>() == 48);
};

#[cfg(feature = "user")]
mod pod {
    use super::{
        AccessKey, Backend, Bucket, Flow, FlowKey, Fragment, FragmentKey, GuardCounts, Ip, Lease,
        Load, MqttPackets, NatPool, OwnMac, Rates, Reply, Service, ServiceKey, SlotLine, SourceKey,
        Traffic, TunnelSources,
    };
    use crate::{challenge, flow::HashKeys, generator::Order};

    macro_rules! pod {
        ($($type:ty),*) => {$(
            // SAFETY: repr(C) of integers and byte arrays; the padding is explicit, as the size
            // asserts above and the field lists show, so every bit pattern is a value.
            unsafe impl aya::Pod for $type {}
        )*};
    }
    pod!(
        AccessKey,
        Backend,
        Bucket,
        challenge::Key,
        Flow,
        FlowKey,
        Fragment,
        FragmentKey,
        GuardCounts,
        HashKeys,
        Ip,
        Lease,
        Load,
        MqttPackets,
        NatPool,
        Order,
        OwnMac,
        Rates,
        Reply,
        Service,
        ServiceKey,
        SlotLine,
        SourceKey,
        Traffic,
        TunnelSources
    );
}

#[cfg(test)]
mod tests {
    use core::net::IpAddr;

    use super::{
        AccessKey, Backend, BackendId, Balance, Encapsulation, Features, Flow, FlowState, Forward,
        Ip, KeepAlive, NatPool, NextHop, SLOT_COUNT, Service, ServiceId, Slot, TABLE_LINES,
        TunnelSources,
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
        assert_eq!(Slot::safe(BackendId::NONE).owner(), BackendId::NONE);
        assert!(slot.is_safe());
    }

    #[test]
    fn a_slot_at_risk_names_both_its_owners() {
        let (owner, previous) = (BackendId(BackendId::LIMIT - 1), BackendId(5));
        let slot = Slot::at_risk(owner, previous);
        assert_eq!((slot.owner(), slot.previous()), (owner, previous));
        assert!(slot.is_at_risk() && !slot.is_safe());
        let swapped = Slot::at_risk(previous, owner);
        assert_eq!((swapped.owner(), swapped.previous()), (previous, owner));
        let mixed = Slot::mixed(owner);
        assert!(!mixed.is_safe() && !mixed.is_at_risk());
        assert_eq!(mixed.owner(), owner);
    }

    #[test]
    fn tunnel_sources_vary_in_their_free_bits_only() {
        let sources = TunnelSources::EMPTY.with(Ip::from_v4([10, 9, 8, 0]), 8);
        let source = sources.source(true, u32::MAX).unwrap();
        assert_eq!(source, Ip::from_v4([10, 9, 8, 255]));
        assert_eq!(sources.source(false, 0), None);
        let fixed = sources.with(Ip::new([0xfd; 16]), 0);
        assert_eq!(fixed.source(false, u32::MAX), Some(Ip::new([0xfd; 16])));
    }

    #[test]
    fn an_entry_says_what_it_was_made_of() {
        let features = Features {
            mqtt: true,
            default_deny: true,
            rates: true,
            ..Features::default()
        };
        for balance in [
            Balance::Maglev,
            Balance::RoundRobin,
            Balance::LeastConn,
            Balance::Source,
        ] {
            for forward in [Forward::Dsr, Forward::Nat, Forward::Tunnel] {
                for generation in [0, 1] {
                    let entry = Service::new(ServiceId(5), generation, 3, balance, forward)
                        .with_tunnel(Encapsulation::Gue, 6_080)
                        .with_features(features);
                    assert_eq!((entry.balance(), entry.forward()), (balance, forward));
                    assert_eq!((entry.id(), entry.generation()), (ServiceId(5), generation));
                    assert_eq!(entry.encapsulation(), Encapsulation::Gue);
                    assert_eq!(entry.features(), features);
                }
            }
        }
    }

    #[test]
    fn a_prefix_is_read_from_its_key() {
        let key = AccessKey::new(ServiceId(700), Ip::from_v4([10, 1, 0, 0]));
        assert_eq!(
            (key.service(), key.address()),
            (ServiceId(700), Ip::from_v4([10, 1, 0, 0]))
        );
        for (is_v4, length) in [(true, 0), (true, 16), (true, 32), (false, 0), (false, 128)] {
            let bits = AccessKey::prefix_bits(is_v4, length);
            assert_eq!(AccessKey::length_of(is_v4, bits), length);
        }
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
    fn a_keep_alive_is_known_or_awaited_or_neither() {
        for may_differ in [false, true] {
            let of = |seconds| KeepAlive::of(seconds, may_differ);
            assert_eq!((of(60).seconds(), of(60).is_awaited()), (Some(60), false));
            assert_eq!((of(5).seconds(), of(5).may_differ()), (Some(6), may_differ));
            assert_eq!((of(0), of(0).seconds()), (KeepAlive::NONE, None));
            let longest = of(u16::MAX).seconds();
            assert!(longest.is_some_and(|seconds| seconds > u16::MAX - 40));
            assert!(!of(u16::MAX).is_awaited());
        }
        let awaited = KeepAlive::AWAITED;
        assert_eq!((awaited.seconds(), awaited.is_awaited()), (None, true));
        assert!(!awaited.may_differ());
    }

    #[test]
    fn another_connect_makes_a_keep_alive_no_shorter() {
        let of = KeepAlive::of;
        let (none, awaited) = (KeepAlive::NONE, KeepAlive::AWAITED);
        assert_eq!(awaited.or_longer(of(60, true)), of(60, true));
        assert_eq!(awaited.or_longer(none), none);
        assert_eq!(of(60, false).or_longer(of(1, true)), of(60, false));
        assert_eq!(of(60, false).or_longer(none), of(60, false));
        assert_eq!(of(60, true).or_longer(of(90, false)), of(90, true));
        // Of nothing it would make less.
        assert_eq!(none.or_longer(of(60, false)), none);
    }

    #[test]
    fn a_flow_has_a_port_or_a_sequence_number() {
        let flow = Flow {
            backend: 1,
            epoch: 2,
            seen: 3,
            middle: 0x0102_0304_u32.to_ne_bytes(),
            nat_source: Flow::UNTRANSLATED,
            state: FlowState::HalfOpen as u8,
            keep_alive: KeepAlive::NONE,
        };
        assert_eq!(
            (flow.sequence(), flow.is_translated()),
            (0x0102_0304, false)
        );
        let translated = flow.translated(7, [0x75, 0x30], 0xabcd);
        assert!(translated.is_translated());
        assert_eq!(translated.nat_port(), 30_000_u16.to_be_bytes());
        assert_eq!(
            (translated.client_way(), translated.nat_source),
            (0xabcd, 7)
        );
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
