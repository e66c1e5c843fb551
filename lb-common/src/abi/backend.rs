//! Backends, and the slots that name them.

use super::{Ip, SLOTS_PER_LINE, ServiceId};

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
        address: Ip::from_words([0; 4]),
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
