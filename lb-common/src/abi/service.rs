//! Services: what packets are addressed to, and where the table of their backends is.

use super::{GENERATIONS, Ip, SLOT_LINES, SLOTS_PER_LINE, TABLE_LINES};

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
