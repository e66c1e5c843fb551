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
    /// To the backend with the fewest flows for its weight; every flow is recorded.
    LeastConn = 2,
    /// By the slot of the client's address, whatever its port; keeps no state.
    Source = 3,
}

impl Balance {
    /// Whether every flow is recorded, whatever the way of forwarding.
    #[must_use]
    pub const fn is_tracked(self) -> bool {
        matches!(self, Self::RoundRobin | Self::LeastConn)
    }
}

/// How a service reaches its backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Forward {
    /// Direct server return: only the MAC addresses change, replies bypass the balancer.
    Dsr = 0,
    /// Full NAT: source and destination change, replies come back.
    Nat = 1,
    /// In an IP packet of ours, see [`Encapsulation`]; replies bypass the balancer.
    Tunnel = 2,
}

/// What a packet is put into on its way through a tunnel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Encapsulation {
    /// IP in IP: RFC 2003 (4 in 4), RFC 2473 (in IPv6), RFC 4213 (6 in 4).
    #[default]
    IpIp = 0,
    /// Generic UDP encapsulation, variant 1: an IP packet right behind the UDP header
    /// (draft-ietf-intarea-gue-09, section 4), UDP source port by flow.
    Gue = 1,
}

/// What a service does besides choosing and forwarding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// Its payload is MQTT: packet types are counted, CONNECT is read, other first bytes refused.
    pub mqtt: bool,
    /// There are prefixes in [`super::ACCESS`] for it.
    pub access_list: bool,
    /// Clients that no prefix names are denied.
    pub default_deny: bool,
    /// New connections are limited as [`super::RATES`] says.
    pub rates: bool,
    /// Sources of new connections must first answer a challenge.
    pub challenge: bool,
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
    encapsulation: u8,
    tunnel_port: [u8; 2],
    padding: u16,
}

impl Service {
    const HAS_BACKENDS: u8 = 1;
    const MARKER: u8 = 1 << 1;
    const MQTT: u8 = 1 << 2;
    const ACCESS_LIST: u8 = 1 << 3;
    const DEFAULT_DENY: u8 = 1 << 4;
    const RATES: u8 = 1 << 5;
    const CHALLENGE: u8 = 1 << 6;
    const GUARDS: u8 = Self::ACCESS_LIST | Self::DEFAULT_DENY | Self::RATES | Self::CHALLENGE;

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
            flags: flag(ring_length > 0, Self::HAS_BACKENDS),
            encapsulation: Encapsulation::IpIp as u8,
            tunnel_port: [0; 2],
            padding: 0,
        }
    }

    /// The same service, whose table says where flows go that are there, but has nobody for new
    /// ones.
    #[must_use]
    pub const fn with_old_flows(self) -> Self {
        Self {
            flags: self.flags | Self::HAS_BACKENDS,
            ..self
        }
    }

    /// The same service, with its tunnel's form; `port` is where GUE is received.
    #[must_use]
    pub const fn with_tunnel(self, encapsulation: Encapsulation, port: u16) -> Self {
        Self {
            encapsulation: encapsulation as u8,
            tunnel_port: port.to_be_bytes(),
            ..self
        }
    }

    /// The same service, with these features and no other.
    #[must_use]
    pub const fn with_features(self, features: Features) -> Self {
        let Features {
            mqtt,
            access_list,
            default_deny,
            rates,
            challenge,
        } = features;
        Self {
            flags: self.flags & (Self::HAS_BACKENDS | Self::MARKER)
                | flag(mqtt, Self::MQTT)
                | flag(access_list, Self::ACCESS_LIST)
                | flag(default_deny, Self::DEFAULT_DENY)
                | flag(rates, Self::RATES)
                | flag(challenge, Self::CHALLENGE),
            ..self
        }
    }

    /// The value behind [`ServiceKey::marker`].
    #[must_use]
    pub const fn marker() -> Self {
        let mut marker = Self::new(ServiceId(0), 0, 0, Balance::Maglev, Forward::Dsr);
        marker.table = 0;
        marker.flags = Self::MARKER;
        marker
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

    /// Which half of its table space is active: 0 or 1.
    #[must_use]
    pub const fn generation(&self) -> u32 {
        self.table / TABLE_LINES % GENERATIONS
    }

    /// How it picks the backend of a new flow.
    #[must_use]
    pub const fn balance(&self) -> Balance {
        if self.is_round_robin() {
            Balance::RoundRobin
        } else if self.is_least_conn() {
            Balance::LeastConn
        } else if self.is_by_source() {
            Balance::Source
        } else {
            Balance::Maglev
        }
    }

    /// How it reaches its backends.
    #[must_use]
    pub const fn forward(&self) -> Forward {
        if self.is_nat() {
            Forward::Nat
        } else if self.is_tunnel() {
            Forward::Tunnel
        } else {
            Forward::Dsr
        }
    }

    /// What its tunnels put packets into.
    #[must_use]
    pub const fn encapsulation(&self) -> Encapsulation {
        if self.is_gue() {
            Encapsulation::Gue
        } else {
            Encapsulation::IpIp
        }
    }

    /// What it does besides choosing and forwarding.
    #[must_use]
    pub const fn features(&self) -> Features {
        Features {
            mqtt: self.is_mqtt(),
            access_list: self.has_access_list(),
            default_deny: self.denies_by_default(),
            rates: self.has_rates(),
            challenge: self.challenges(),
        }
    }

    /// Positions of the ring in use.
    #[inline(always)]
    #[must_use]
    pub const fn ring_length(&self) -> u16 {
        self.ring_length
    }

    /// Whether any backend takes packets: there is a table.
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

    /// Whether the payload is MQTT.
    #[inline(always)]
    #[must_use]
    pub const fn is_mqtt(&self) -> bool {
        self.flags & Self::MQTT != 0
    }

    /// Whether anything is to be checked before a backend is chosen.
    #[inline(always)]
    #[must_use]
    pub const fn is_guarded(&self) -> bool {
        self.flags & Self::GUARDS != 0
    }

    /// See [`Features::access_list`].
    #[inline(always)]
    #[must_use]
    pub const fn has_access_list(&self) -> bool {
        self.flags & Self::ACCESS_LIST != 0
    }

    /// See [`Features::default_deny`].
    #[inline(always)]
    #[must_use]
    pub const fn denies_by_default(&self) -> bool {
        self.flags & Self::DEFAULT_DENY != 0
    }

    /// See [`Features::rates`].
    #[inline(always)]
    #[must_use]
    pub const fn has_rates(&self) -> bool {
        self.flags & Self::RATES != 0
    }

    /// See [`Features::challenge`].
    #[inline(always)]
    #[must_use]
    pub const fn challenges(&self) -> bool {
        self.flags & Self::CHALLENGE != 0
    }

    /// Whether every flow is recorded, whatever the state of its slot.
    #[inline(always)]
    #[must_use]
    pub const fn is_tracked(&self) -> bool {
        self.is_round_robin() || self.is_least_conn()
    }

    /// Whether new flows go to who has the fewest.
    #[inline(always)]
    #[must_use]
    pub const fn is_least_conn(&self) -> bool {
        self.balance == Balance::LeastConn as u8
    }

    /// Whether the slot is the client's address's, not the flow's.
    #[inline(always)]
    #[must_use]
    pub const fn is_by_source(&self) -> bool {
        self.balance == Balance::Source as u8
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

    /// Whether packets go through a tunnel.
    #[inline(always)]
    #[must_use]
    pub const fn is_tunnel(&self) -> bool {
        self.forward == Forward::Tunnel as u8
    }

    /// Whether packets stay as they are but for their MAC addresses.
    #[inline(always)]
    #[must_use]
    pub const fn is_dsr(&self) -> bool {
        self.forward == Forward::Dsr as u8
    }

    /// Whether the tunnel is GUE.
    #[inline(always)]
    #[must_use]
    pub const fn is_gue(&self) -> bool {
        self.encapsulation == Encapsulation::Gue as u8
    }

    /// The UDP port that GUE is sent to.
    #[inline(always)]
    #[must_use]
    pub const fn tunnel_port(&self) -> [u8; 2] {
        self.tunnel_port
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

const fn flag(is_set: bool, flag: u8) -> u8 {
    if is_set { flag } else { 0 }
}

/// Index of a service in the per-service maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct ServiceId(pub u16);
