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

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

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

/// An IP address as 16 bytes in network order; IPv4 as `::ffff:a.b.c.d` (RFC 4291, 2.5.5.2).
///
/// Kept as four words in memory order: bytes would each take a register or a stack slot in the
/// kernel half.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct Ip([u32; 4]);

impl Ip {
    /// The address in IPv6 form.
    #[inline(always)]
    #[must_use]
    pub const fn new(octets: [u8; 16]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = octets;
        Self([
            word([a, b, c, d]),
            word([e, f, g, h]),
            word([i, j, k, l]),
            word([m, n, o, p]),
        ])
    }

    /// The address of four words in memory order.
    #[inline(always)]
    #[must_use]
    pub const fn from_words(words: [u32; 4]) -> Self {
        Self(words)
    }

    /// The mapped form of an IPv4 address.
    #[inline(always)]
    #[must_use]
    pub const fn from_v4(v4: [u8; 4]) -> Self {
        Self([0, 0, word([0, 0, 0xff, 0xff]), word(v4)])
    }

    /// All 16 bytes.
    #[inline(always)]
    #[must_use]
    pub const fn octets(&self) -> [u8; 16] {
        let [first, second, third, fourth] = self.0;
        let ([a, b, c, d], [e, f, g, h]) = (first.to_ne_bytes(), second.to_ne_bytes());
        let ([i, j, k, l], [m, n, o, p]) = (third.to_ne_bytes(), fourth.to_ne_bytes());
        [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
    }

    /// The last four bytes: the IPv4 address, if it is one.
    #[inline(always)]
    #[must_use]
    pub const fn v4_octets(&self) -> [u8; 4] {
        self.0[3].to_ne_bytes()
    }

    /// Whether this is a mapped IPv4 address.
    #[inline(always)]
    #[must_use]
    pub const fn is_v4(&self) -> bool {
        self.0[0] | self.0[1] | (self.0[2] ^ word([0, 0, 0xff, 0xff])) == 0
    }

    /// The address as four words in memory order.
    #[inline(always)]
    #[must_use]
    pub const fn words(&self) -> [u32; 4] {
        self.0
    }
}

const fn word(octets: [u8; 4]) -> u32 {
    u32::from_ne_bytes(octets)
}

impl From<IpAddr> for Ip {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Self::from_v4(v4.octets()),
            IpAddr::V6(v6) => Self::new(v6.octets()),
        }
    }
}

impl From<Ip> for IpAddr {
    fn from(ip: Ip) -> Self {
        if ip.is_v4() {
            Self::V4(Ipv4Addr::from(ip.v4_octets()))
        } else {
            Self::V6(Ipv6Addr::from(ip.octets()))
        }
    }
}

/// What a packet is addressed to.
///
/// Port 0 with a protocol marks a VIP that has a service of that protocol: packets whose ports
/// cannot be read are judged by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct ServiceKey {
    vip: Ip,
    port: [u8; 2],
    protocol: u8,
    padding: u8,
}

impl ServiceKey {
    /// The key of a service.
    #[inline(always)]
    #[must_use]
    pub const fn new(vip: Ip, port: u16, protocol: u8) -> Self {
        Self {
            vip,
            port: port.to_be_bytes(),
            protocol,
            padding: 0,
        }
    }

    /// The marker of a VIP.
    #[inline(always)]
    #[must_use]
    pub const fn marker(vip: Ip, protocol: u8) -> Self {
        Self::new(vip, 0, protocol)
    }

    /// The VIP.
    #[must_use]
    pub const fn vip(&self) -> Ip {
        self.vip
    }

    /// The port, 0 for a marker.
    #[must_use]
    pub const fn port(&self) -> u16 {
        u16::from_be_bytes(self.port)
    }

    /// The IP protocol number.
    #[must_use]
    pub const fn protocol(&self) -> u8 {
        self.protocol
    }
}

/// How a service picks the backend of a new flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Balance {
    /// By the flow's slot; keeps no state.
    Maglev = 0,
    /// By turns; every flow is recorded.
    RoundRobin = 1,
}

/// How a service reaches its backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Forward {
    /// Direct server return: only the MAC addresses change, replies bypass the balancer.
    Dsr = 0,
    /// Full NAT: source and destination change, replies come back.
    Nat = 1,
}

/// One service: where its active table is, and how to use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Service {
    table: u32,
    id: u16,
    ring_length: u16,
    balance: u8,
    forward: u8,
    flags: u8,
    padding: u8,
}

impl Service {
    const HAS_BACKENDS: u8 = 1;
    const MARKER: u8 = 2;

    /// A service with its table in half `generation`, which is 0 or 1.
    ///
    /// `ring_length` is the number of positions in use in its ring, 0 if no backend takes new flows.
    #[must_use]
    pub const fn new(
        id: ServiceId,
        generation: u32,
        ring_length: u16,
        balance: Balance,
        forward: Forward,
    ) -> Self {
        Self {
            table: (id.0 as u32 * GENERATIONS + generation) * TABLE_LINES,
            id: id.0,
            ring_length,
            balance: balance as u8,
            forward: forward as u8,
            flags: if ring_length > 0 {
                Self::HAS_BACKENDS
            } else {
                0
            },
            padding: 0,
        }
    }

    /// The value behind [`ServiceKey::marker`].
    #[must_use]
    pub const fn marker() -> Self {
        Self {
            table: 0,
            id: 0,
            ring_length: 0,
            balance: 0,
            forward: 0,
            flags: Self::MARKER,
            padding: 0,
        }
    }

    /// Index into the per-service maps.
    #[inline(always)]
    #[must_use]
    pub const fn id(&self) -> ServiceId {
        ServiceId(self.id)
    }

    /// First line of the active table.
    #[inline(always)]
    #[must_use]
    pub const fn table(&self) -> u32 {
        self.table
    }

    /// Positions of the ring in use.
    #[inline(always)]
    #[must_use]
    pub const fn ring_length(&self) -> u16 {
        self.ring_length
    }

    /// Whether any backend takes new flows.
    #[inline(always)]
    #[must_use]
    pub const fn has_backends(&self) -> bool {
        self.flags & Self::HAS_BACKENDS != 0
    }

    /// Whether this only marks a VIP.
    #[inline(always)]
    #[must_use]
    pub const fn is_marker(&self) -> bool {
        self.flags & Self::MARKER != 0
    }

    /// Whether new flows go by turns.
    #[inline(always)]
    #[must_use]
    pub const fn is_round_robin(&self) -> bool {
        self.balance == Balance::RoundRobin as u8
    }

    /// Whether addresses are translated.
    #[inline(always)]
    #[must_use]
    pub const fn is_nat(&self) -> bool {
        self.forward == Forward::Nat as u8
    }

    /// The line of the active table that holds a slot, and the slot's place in it.
    #[inline(always)]
    #[must_use]
    pub const fn slot_at(&self, slot: u32) -> (u32, u32) {
        (self.table + slot / SLOTS_PER_LINE, slot % SLOTS_PER_LINE)
    }

    /// The line of the active table that holds a ring position, and its place in the line.
    #[inline(always)]
    #[must_use]
    pub const fn ring_at(&self, position: u32) -> (u32, u32) {
        (
            self.table + SLOT_LINES + position / SLOTS_PER_LINE,
            position % SLOTS_PER_LINE,
        )
    }
}

/// Index of a service in the per-service maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct ServiceId(pub u16);

/// Index of a backend in the per-backend maps; fits the 15 bits of a [`Slot`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct BackendId(pub u16);

impl BackendId {
    /// Backends that a slot can tell apart.
    pub const LIMIT: u16 = 1 << 15;
}

/// One slot of a Maglev table, or one position of a ring.
///
/// ```text
///  31 30 29           15 14            0
/// +-----+---------------+---------------+
/// |flags|   previous    |     owner     |
/// +-----+---------------+---------------+
/// ```
/// The flags and `previous` are for slots at risk: a slot whose old owner lives on. A safe slot has
/// no flag and sends every packet to its owner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Slot(u32);

impl Slot {
    const FLAGS: u32 = 0b11 << 30;

    /// A slot whose every packet goes to `owner`.
    #[must_use]
    pub const fn safe(owner: BackendId) -> Self {
        Self(owner.0 as u32 & 0x7fff)
    }

    /// The backend that new flows go to.
    #[inline(always)]
    #[must_use]
    pub const fn owner(self) -> BackendId {
        BackendId((self.0 & 0x7fff) as u16)
    }

    /// Whether every packet goes to the owner.
    #[inline(always)]
    #[must_use]
    pub const fn is_safe(self) -> bool {
        self.0 & Self::FLAGS == 0
    }
}

/// A cache line of slots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct SlotLine(pub [Slot; SLOTS_PER_LINE as usize]);

/// Which packets a backend takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum BackendState {
    /// No such backend: flows recorded for it are selected anew.
    Absent = 0,
    /// Takes what is selected or recorded for it.
    Serving = 1,
}

/// One backend, with all that forwarding to it needs: one cache line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Backend {
    address: Ip,
    next_hop: [u8; 6],
    source_mac: [u8; 6],
    interface: u32,
    port: [u8; 2],
    service: u16,
    epoch: u16,
    state: u8,
    padding: u8,
    reserved: [u8; 24],
}

/// Where frames to a neighbour go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct NextHop {
    /// Index of the interface they leave by.
    pub interface: u32,
    /// Destination MAC address.
    pub mac: [u8; 6],
    /// Source MAC address: that of the interface.
    pub source_mac: [u8; 6],
}

impl Backend {
    /// No backend.
    pub const ABSENT: Self = Self {
        address: Ip([0; 4]),
        next_hop: [0; 6],
        source_mac: [0; 6],
        interface: 0,
        port: [0; 2],
        service: 0,
        epoch: 0,
        state: BackendState::Absent as u8,
        padding: 0,
        reserved: [0; 24],
    };

    /// A serving backend.
    ///
    /// `epoch` tells users of one [`BackendId`] apart: a recorded flow belongs to the backend only
    /// if the epochs agree. Without a next hop its packets are dropped.
    #[must_use]
    pub fn new(
        address: Ip,
        port: u16,
        service: ServiceId,
        epoch: u16,
        next_hop: Option<NextHop>,
    ) -> Self {
        let mut backend = Self {
            address,
            port: port.to_be_bytes(),
            service: service.0,
            epoch,
            state: BackendState::Serving as u8,
            ..Self::ABSENT
        };
        if let Some(NextHop {
            interface,
            mac,
            source_mac,
        }) = next_hop
        {
            backend.interface = interface;
            backend.next_hop = mac;
            backend.source_mac = source_mac;
        }
        backend
    }

    /// The backend's own address.
    #[inline(always)]
    #[must_use]
    pub const fn address(&self) -> &Ip {
        &self.address
    }

    /// The port it listens on.
    #[inline(always)]
    #[must_use]
    pub const fn port(&self) -> [u8; 2] {
        self.port
    }

    /// The service it belongs to.
    #[inline(always)]
    #[must_use]
    pub const fn service(&self) -> ServiceId {
        ServiceId(self.service)
    }

    /// Tells users of one id apart.
    #[inline(always)]
    #[must_use]
    pub const fn epoch(&self) -> u16 {
        self.epoch
    }

    /// Whether there is a backend that takes packets.
    #[inline(always)]
    #[must_use]
    pub const fn is_serving(&self) -> bool {
        self.state == BackendState::Serving as u8
    }

    /// Where its frames go, if that is known.
    #[inline(always)]
    #[must_use]
    pub fn next_hop(&self) -> Option<NextHop> {
        let Self {
            interface,
            next_hop: mac,
            source_mac,
            ..
        } = *self;
        (interface != 0).then_some(NextHop {
            interface,
            mac,
            source_mac,
        })
    }
}

/// The two ends of a flow as seen in one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct FlowKey {
    source: Ip,
    destination: Ip,
    source_port: [u8; 2],
    destination_port: [u8; 2],
    /// A whole word: the verifier takes only aligned writes to the stack.
    protocol: u32,
}

impl FlowKey {
    /// The flow of a packet.
    #[inline(always)]
    #[must_use]
    pub const fn new(
        source: Ip,
        destination: Ip,
        source_port: u16,
        destination_port: u16,
        protocol: u8,
    ) -> Self {
        Self {
            source,
            destination,
            source_port: source_port.to_be_bytes(),
            destination_port: destination_port.to_be_bytes(),
            protocol: protocol as u32,
        }
    }

    /// Puts another receiver in place.
    #[inline(always)]
    pub const fn set_destination(&mut self, destination: Ip, port: u16) {
        self.destination = destination;
        self.destination_port = port.to_be_bytes();
    }

    /// Where the packet comes from.
    #[inline(always)]
    #[must_use]
    pub const fn source(&self) -> Ip {
        self.source
    }

    /// Where the packet goes to.
    #[inline(always)]
    #[must_use]
    pub const fn destination(&self) -> Ip {
        self.destination
    }

    /// The sender's port.
    #[inline(always)]
    #[must_use]
    pub const fn source_port(&self) -> u16 {
        u16::from_be_bytes(self.source_port)
    }

    /// The receiver's port.
    #[inline(always)]
    #[must_use]
    pub const fn destination_port(&self) -> u16 {
        u16::from_be_bytes(self.destination_port)
    }

    /// The IP protocol number.
    #[inline(always)]
    #[must_use]
    pub const fn protocol(&self) -> u8 {
        self.protocol as u8
    }

    /// The service that the packet is addressed to.
    #[inline(always)]
    #[must_use]
    pub const fn service(&self) -> ServiceKey {
        ServiceKey::new(self.destination, self.destination_port(), self.protocol())
    }
}

/// The clock of tracked flows: `CLOCK_MONOTONIC` in units of 2^30 ns, about a second, which the
/// kernel half can get without a division.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tick(pub u32);

impl Tick {
    /// The tick of a time in nanoseconds.
    #[inline(always)]
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self((nanos >> 30) as u32)
    }

    /// Ticks since an earlier one; 0 if it lies in the future.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u32 {
        self.0.saturating_sub(earlier.0)
    }
}

/// How far a tracked flow has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum FlowState {
    /// Only SYNs were seen from the client.
    HalfOpen = 0,
    /// The client has sent more.
    Established = 1,
    /// A side has said that it will send no more.
    Closing = 2,
    /// A RST was seen. It may be forged, so anything that follows makes the flow live again.
    Reset = 3,
}

/// A tracked flow, from client to VIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Flow {
    /// Where it goes: a [`BackendId`].
    pub backend: u16,
    /// [`Backend::epoch`] when it was recorded.
    pub epoch: u16,
    /// [`Tick`] of its last packet.
    pub seen: u32,
    /// NAT: its port at the balancer, in network order.
    pub nat_port: [u8; 2],
    /// NAT: which source address of the pool.
    pub nat_source: u8,
    /// A [`FlowState`].
    pub state: u8,
    /// NAT: the MAC address the client's packets come from, then zeros.
    pub client_mac: [u8; 8],
    /// NAT: the interface they come in by.
    pub client_interface: u32,
}

/// What a backend's reply is translated to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Reply {
    /// The client.
    pub client: Ip,
    /// The VIP it spoke to.
    pub vip: Ip,
    /// The client's port, in network order.
    pub client_port: [u8; 2],
    /// The VIP's port, in network order.
    pub vip_port: [u8; 2],
    /// Whom to count it for: a [`BackendId`].
    pub backend: u16,
    /// [`Backend::epoch`] when it was recorded.
    pub epoch: u16,
    /// Where the client's packets come from, hence where replies go.
    pub next_hop: NextHop,
}

/// The addresses and ports that NAT sends from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct NatPool {
    v4: [Ip; NAT_SOURCES],
    v6: [Ip; NAT_SOURCES],
    v4_count: u32,
    v6_count: u32,
    first_port: u32,
    port_count: u32,
}

impl NatPool {
    /// A pool without addresses.
    pub const EMPTY: Self = Self {
        v4: [Ip([0; 4]); NAT_SOURCES],
        v6: [Ip([0; 4]); NAT_SOURCES],
        v4_count: 0,
        v6_count: 0,
        first_port: 0,
        port_count: 0,
    };

    /// A pool of `sources` (at most [`NAT_SOURCES`] of each family are used) and a range of ports.
    #[must_use]
    pub fn new(sources: &[Ip], first_port: u16, last_port: u16) -> Self {
        let mut pool = Self {
            first_port: u32::from(first_port),
            port_count: u32::from(last_port.saturating_sub(first_port)) + 1,
            ..Self::EMPTY
        };
        for source in sources {
            let (places, count) = if source.is_v4() {
                (&mut pool.v4, &mut pool.v4_count)
            } else {
                (&mut pool.v6, &mut pool.v6_count)
            };
            if let Some(place) = places.get_mut(*count as usize) {
                *place = *source;
                *count += 1;
            }
        }
        pool
    }

    /// How many source addresses there are for destinations of a family.
    #[inline(always)]
    #[must_use]
    pub const fn source_count(&self, v4: bool) -> u32 {
        if v4 { self.v4_count } else { self.v6_count }
    }

    /// A source address by its number, which wraps.
    #[inline(always)]
    #[must_use]
    pub const fn source(&self, v4: bool, number: u8) -> &Ip {
        let at = number as usize % NAT_SOURCES;
        if v4 { &self.v4[at] } else { &self.v6[at] }
    }

    /// First port of the range.
    #[inline(always)]
    #[must_use]
    pub const fn first_port(&self) -> u32 {
        self.first_port
    }

    /// Length of the range.
    #[inline(always)]
    #[must_use]
    pub const fn port_count(&self) -> u32 {
        self.port_count
    }
}

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
};

#[cfg(feature = "user")]
mod pod {
    use super::{Backend, Flow, FlowKey, NatPool, Reply, Service, ServiceKey, SlotLine, Traffic};
    use crate::flow::HashKeys;

    macro_rules! pod {
        ($($type:ty),*) => {$(
            // SAFETY: repr(C) of integers and byte arrays; the padding is explicit, as the size
            // asserts above and the field lists show, so every bit pattern is a value.
            unsafe impl aya::Pod for $type {}
        )*};
    }
    pod!(
        Backend, Flow, FlowKey, HashKeys, NatPool, Reply, Service, ServiceKey, SlotLine, Traffic
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
