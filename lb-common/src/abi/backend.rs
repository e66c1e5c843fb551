//! Backends, and the slots that name them.

use super::{Ip, SLOTS_PER_LINE, ServiceId, VirtualMac};

/// Index of a backend in the per-backend maps; fits the 15 bits of a [`Slot`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct BackendId(pub u16);

impl BackendId {
    /// Nobody: the owner of a slot whose new flows no backend takes.
    pub const NONE: Self = Self((1 << 15) - 1);
    /// Backends that a slot can tell apart.
    pub const LIMIT: u16 = Self::NONE.0;
}

/// One slot of a Maglev table, or one position of a ring.
///
/// ```text
///  31 30 29           15 14            0
/// +-----+---------------+---------------+
/// |flags|   previous    |     owner     |
/// +-----+---------------+---------------+
/// ```
/// | state | flags | a flow that is not recorded goes to | and is recorded |
/// |---|---|---|---|
/// | safe | 0 | `owner`; nobody looks for a record | no |
/// | mixed | 1 | `owner` | no |
/// | at risk | 2 | `owner` if it starts here, else `previous` | yes |
///
/// A slot is at risk after a change that leaves its old owner alive, until every live session of
/// that owner has been seen and recorded; then it is mixed for as long as it has recorded flows that
/// belong to another backend than its owner. "Load Balancing with JET: Just Enough Tracking for
/// Connection Consistency" (CoNEXT 2021) has the idea.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Slot(u32);

impl Slot {
    const MIXED: u32 = 1 << 30;
    const AT_RISK: u32 = 2 << 30;
    const FLAGS: u32 = Self::MIXED | Self::AT_RISK;

    /// A slot whose every packet goes to `owner`.
    #[must_use]
    pub const fn safe(owner: BackendId) -> Self {
        Self(owner.0 as u32 & 0x7fff)
    }

    /// A slot with recorded flows that belong to others than `owner`.
    #[must_use]
    pub const fn mixed(owner: BackendId) -> Self {
        Self(Self::safe(owner).0 | Self::MIXED)
    }

    /// A slot that `previous` lost to `owner` and still has flows in, nobody knows which.
    #[must_use]
    pub const fn at_risk(owner: BackendId, previous: BackendId) -> Self {
        Self(Self::safe(owner).0 | Self::safe(previous).0 << 15 | Self::AT_RISK)
    }

    /// The backend that new flows go to.
    #[inline(always)]
    #[must_use]
    pub const fn owner(self) -> BackendId {
        BackendId((self.0 & 0x7fff) as u16)
    }

    /// The backend that flows belong to which are not recorded: of use only at risk.
    #[inline(always)]
    #[must_use]
    pub const fn previous(self) -> BackendId {
        BackendId((self.0 >> 15 & 0x7fff) as u16)
    }

    /// Whether every packet goes to the owner.
    #[inline(always)]
    #[must_use]
    pub const fn is_safe(self) -> bool {
        self.0 & Self::FLAGS == 0
    }

    /// Whether flows that are not recorded may be `previous`'s.
    #[inline(always)]
    #[must_use]
    pub const fn is_at_risk(self) -> bool {
        self.0 & Self::AT_RISK != 0
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
    counted: u8,
    weight: u16,
    mtu: u16,
    limit: u32,
    correction: i32,
    emptied: u8,
    reserved: [u8; 11],
}

/// What the program counts of a backend's tracked flows, over all CPUs; a cache line of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Load {
    /// Flows that were given to it.
    pub opened: u64,
    /// Flows of it that were seen to close.
    pub closed: u64,
    reserved: [u64; 6],
}

impl Load {
    /// Counters that stand there.
    #[must_use]
    pub const fn new(opened: u64, closed: u64) -> Self {
        Self {
            opened,
            closed,
            reserved: [0; 6],
        }
    }

    /// Flows that are open, where `correction` makes up for what packets do not tell.
    ///
    /// Modulo 2^32, which is more than any number of flows: most ends are seen by nobody, so the
    /// counters and the correction drift apart without end.
    #[inline(always)]
    #[must_use]
    pub const fn open(&self, correction: i32) -> i32 {
        (self.opened.wrapping_sub(self.closed) as i32).wrapping_add(correction)
    }
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

/// The MAC address of the interface that the program is attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct OwnMac {
    mac: [u8; 6],
    is_known: u8,
    padding: u8,
}

impl OwnMac {
    /// Every frame may be for this host.
    pub const UNKNOWN: Self = Self {
        mac: [0; 6],
        is_known: 0,
        padding: 0,
    };

    /// That of an interface.
    #[must_use]
    pub const fn new(mac: [u8; 6]) -> Self {
        Self {
            mac,
            is_known: 1,
            padding: 0,
        }
    }

    /// Whether a frame is for this host, by the address that it is known for.
    #[inline(always)]
    #[must_use]
    pub const fn is(&self, destination: &[u8; 6]) -> bool {
        let (own, its) = (Self::words(&self.mac), Self::words(destination));
        self.is_known != 0 && own.0 == its.0 && own.1 == its.1
    }

    /// Whether a frame is for one host, and that is not this one: switches send such frames to all
    /// while they do not know better, and an interface in promiscuous mode lets them through. Not that of
    /// a virtual router, which an interface may have besides: see [`VirtualMac`].
    #[inline(always)]
    #[must_use]
    pub const fn is_others(&self, destination: &[u8; 6]) -> bool {
        let (own, its) = (Self::words(&self.mac), Self::words(destination));
        let is_group = its.0.to_ne_bytes()[0] & 1 != 0;
        let differs = own.0 != its.0 || own.1 != its.1;
        let is_virtual = VirtualMac::read(destination).is_some();
        self.is_known != 0 && differs && !is_group && !is_virtual
    }

    /// That of the interface, if it is known.
    #[inline(always)]
    #[must_use]
    pub const fn get(&self) -> Option<[u8; 6]> {
        if self.is_known == 0 {
            return None;
        }
        Some(self.mac)
    }

    /// By two loads: taken apart, it would be six.
    #[inline(always)]
    const fn words(mac: &[u8; 6]) -> (u32, u16) {
        match (mac.first_chunk(), mac.last_chunk()) {
            (Some(first), Some(last)) => (u32::from_ne_bytes(*first), u16::from_ne_bytes(*last)),
            _ => (0, 0),
        }
    }
}

impl Backend {
    /// No backend.
    pub const ABSENT: Self = Self {
        address: Ip::from_words([0; 4]),
        next_hop: [0; 6],
        source_mac: [0; 6],
        interface: 0,
        port: [0; 2],
        service: 0,
        epoch: 0,
        state: BackendState::Absent as u8,
        counted: 0,
        weight: 0,
        mtu: 0,
        limit: 0,
        correction: 0,
        emptied: 0,
        reserved: [0; 11],
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

    /// The same backend, that takes `weight` times what one of weight 1 does (for
    /// [`super::Balance::LeastConn`]), and at most `limit` flows; 0: any number.
    #[must_use]
    pub const fn with_load(self, weight: u16, limit: u32) -> Self {
        Self {
            weight,
            limit,
            ..self
        }
    }

    /// The same backend, whose flows are counted in [`super::LOADS`].
    #[must_use]
    pub const fn counted(self) -> Self {
        Self { counted: 1, ..self }
    }

    /// The same backend, with the correction that [`super::Load::open`] needs to be the number of its
    /// flows: the daemon counts what the program cannot see.
    #[must_use]
    pub const fn with_correction(self, correction: i32) -> Self {
        Self { correction, ..self }
    }

    /// The same backend, with the size in bytes of the largest IP packet on the way to it.
    #[must_use]
    pub const fn with_mtu(self, mtu: u16) -> Self {
        Self { mtu, ..self }
    }

    /// The same backend, of which no session was found: whoever connects anew is not taken back.
    #[must_use]
    pub const fn emptied(self) -> Self {
        Self { emptied: 1, ..self }
    }

    /// The same backend, which takes no packets any more. The rest stays for a packet that has just
    /// been given to it.
    #[must_use]
    pub const fn retired(self) -> Self {
        Self {
            state: BackendState::Absent as u8,
            ..self
        }
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

    /// Its share relative to the others'; 0 takes no new flows.
    #[inline(always)]
    #[must_use]
    pub const fn weight(&self) -> u16 {
        self.weight
    }

    /// The most flows it takes; 0: any number.
    #[inline(always)]
    #[must_use]
    pub const fn limit(&self) -> u32 {
        self.limit
    }

    /// Whether its flows are counted.
    #[inline(always)]
    #[must_use]
    pub const fn is_counted(&self) -> bool {
        self.counted != 0
    }

    /// See [`Self::with_correction`].
    #[inline(always)]
    #[must_use]
    pub const fn correction(&self) -> i32 {
        self.correction
    }

    /// The largest IP packet that fits on the way to it, in bytes; 0: not known.
    #[inline(always)]
    #[must_use]
    pub const fn mtu(&self) -> u16 {
        self.mtu
    }

    /// Whether it takes no new flows, and no session of it was found: a SYN does not bring one back.
    #[inline(always)]
    #[must_use]
    pub const fn is_emptied(&self) -> bool {
        self.emptied != 0
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
