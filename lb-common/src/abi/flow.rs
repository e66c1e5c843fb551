//! Flows: how packets name them, and what is recorded of those that are tracked.

use super::{Ip, NextHop, ServiceKey};

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

    /// Whether both are the same flow, found with a single branch: the derived comparison has one a
    /// word, and the verifier follows each through all that comes after.
    #[inline(always)]
    #[must_use]
    pub const fn is(&self, other: &Self) -> bool {
        let ([a, b, c, d], [e, f, g, h]) = (self.source.words(), self.destination.words());
        let ([i, j, k, l], [m, n, o, p]) = (other.source.words(), other.destination.words());
        let addresses =
            (a ^ i) | (b ^ j) | (c ^ k) | (d ^ l) | (e ^ m) | (f ^ n) | (g ^ o) | (h ^ p);
        let ports = (self.source_port() ^ other.source_port())
            | (self.destination_port() ^ other.destination_port());
        addresses | ports as u32 | (self.protocol ^ other.protocol) == 0
    }

    /// The other direction.
    #[inline(always)]
    #[must_use]
    pub const fn reversed(&self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            protocol: self.protocol,
        }
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tick(pub u32);

impl Tick {
    /// The tick of a time in nanoseconds.
    #[inline(always)]
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self((nanos >> 30) as u32)
    }

    /// The first tick at which a time has certainly passed.
    #[must_use]
    pub fn after(self, time: core::time::Duration) -> Self {
        let ticks = u32::try_from(time.as_nanos() >> 30).unwrap_or(u32::MAX);
        Self(self.0.saturating_add(ticks).saturating_add(2))
    }

    /// Ticks since an earlier one; 0 if it lies in the future.
    #[inline(always)]
    #[must_use]
    pub const fn since(self, earlier: Self) -> u32 {
        self.0.saturating_sub(earlier.0)
    }
}

/// How far a tracked flow has come.
///
/// Anybody can send a FIN or a RST in a client's name. So what a client's packets say of the end is
/// taken for a hint, and its backend's word for the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum FlowState {
    /// Only SYNs were seen from the client.
    HalfOpen = 0,
    /// The client has sent more.
    Established = 1,
    /// The client has said that it will send no more. Data makes the flow live again.
    Closing = 2,
    /// The client has sent a RST. Data makes the flow live again.
    Reset = 3,
    /// The backend has sent a FIN or a RST, or never heard of the flow (NAT only: elsewhere its
    /// packets do not pass here). Data makes it live again, unless it was met like that.
    Ended = 4,
}

impl FlowState {
    /// Ticks of silence after which a flow that its client seems to have ended is taken for that.
    pub const DOUBTFUL: u32 = 56;

    /// Whether a flow in a state, given as a number, goes on as far as packets tell.
    #[inline(always)]
    #[must_use]
    pub const fn is_live(state: u8) -> bool {
        state < Self::Closing as u8
    }
}

/// How long an MQTT session may be silent, as far as its CONNECT was seen.
///
/// In units of two seconds, rounded up: the bit that this leaves says that the server may have set
/// another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct KeepAlive(u16);

impl KeepAlive {
    /// There is none, or it was not seen: the flow is no MQTT, was met in its middle, or its client
    /// need not send anything (keep-alive 0).
    pub const NONE: Self = Self(0);
    /// The flow was seen to start and has sent no data: what comes next must be a CONNECT.
    pub const AWAITED: Self = Self(u16::MAX);
    /// The longest: half a minute less than what fits into a CONNECT.
    const LONGEST: u16 = (1 << 15) - 16;
    const SERVERS: u16 = 1 << 15;

    /// The keep-alive of a CONNECT, in seconds.
    ///
    /// `may_differ` if the server can tell the client to use another (MQTT 5.0, section 3.2.2.3.14),
    /// which is not seen here.
    #[inline(always)]
    #[must_use]
    pub const fn of(seconds: u16, may_differ: bool) -> Self {
        let units = (seconds >> 1) + (seconds & 1);
        let units = if units > Self::LONGEST {
            Self::LONGEST
        } else {
            units
        };
        if units == 0 || !may_differ {
            Self(units)
        } else {
            Self(units | Self::SERVERS)
        }
    }

    /// As a number, for a peer.
    #[must_use]
    pub const fn to_bits(self) -> u16 {
        self.0
    }

    /// What a peer has made a number of: each means something.
    #[must_use]
    pub const fn from_bits(bits: u16) -> Self {
        Self(bits)
    }

    /// What is known of a flow after one more CONNECT. It may be forged, so it takes nothing back.
    #[inline(always)]
    #[must_use]
    pub const fn or_longer(self, other: Self) -> Self {
        if self.is_awaited() {
            return other;
        }
        if self.0 == 0 || other.0 & !Self::SERVERS <= self.0 & !Self::SERVERS {
            return self;
        }
        Self(other.0 | self.0 & Self::SERVERS)
    }

    /// Whether the flow's first data has not been seen, and will be.
    #[inline(always)]
    #[must_use]
    pub const fn is_awaited(self) -> bool {
        self.0 == Self::AWAITED.0
    }

    /// In seconds, if it is known and not 0.
    #[must_use]
    pub const fn seconds(self) -> Option<u16> {
        if self.0 == 0 || self.is_awaited() {
            None
        } else {
            Some((self.0 & !Self::SERVERS) << 1)
        }
    }

    /// Whether the server may have told the client to use another.
    #[must_use]
    pub const fn may_differ(self) -> bool {
        self.0 & Self::SERVERS != 0 && !self.is_awaited()
    }
}

/// A tracked flow, from client to VIP. Aligned so that one on the stack can be written in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Flow {
    /// Where it goes: a [`super::BackendId`].
    pub backend: u16,
    /// [`super::Backend::epoch`] when it was recorded.
    pub epoch: u16,
    /// [`Tick`] of its last packet.
    pub seen: u32,
    /// NAT: the port at the balancer in network order, then [`Self::client_way`]. Else
    /// [`Self::sequence`].
    pub middle: [u8; 4],
    /// NAT: which source address of the pool; [`Self::UNTRANSLATED`] without NAT.
    pub nat_source: u8,
    /// A [`FlowState`].
    pub state: u8,
    /// What its CONNECT said about how long it may be silent.
    pub keep_alive: KeepAlive,
}

impl Flow {
    /// The [`Self::nat_source`] of a flow that keeps its addresses.
    pub const UNTRANSLATED: u8 = u8::MAX;

    /// The port that a translated flow has at the balancer, in network order.
    #[inline(always)]
    #[must_use]
    pub const fn nat_port(&self) -> [u8; 2] {
        [self.middle[0], self.middle[1]]
    }

    /// Whether the flow is translated.
    #[inline(always)]
    #[must_use]
    pub const fn is_translated(&self) -> bool {
        self.nat_source != Self::UNTRANSLATED
    }

    /// Of a translated flow: tells where the client's packets come from apart from elsewhere; see
    /// [`Reply::next_hop`].
    #[inline(always)]
    #[must_use]
    pub const fn client_way(&self) -> u16 {
        u16::from_ne_bytes([self.middle[2], self.middle[3]])
    }

    /// Of a flow that is not translated: while it is half open the number of its last SYN, when it
    /// seems to be over that behind its last FIN, or of a SYN since.
    #[inline(always)]
    #[must_use]
    pub const fn sequence(&self) -> u32 {
        u32::from_ne_bytes(self.middle)
    }

    /// The same flow, translated.
    #[inline(always)]
    #[must_use]
    pub const fn translated(self, source: u8, port: [u8; 2], client_way: u16) -> Self {
        let ([a, b], [c, d]) = (port, client_way.to_ne_bytes());
        Self {
            middle: [a, b, c, d],
            nat_source: source,
            ..self
        }
    }
}

/// That a flow is recorded as established, for the daemon to read its record and tell a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct FlowEvent {
    /// When that was: `CLOCK_MONOTONIC` in nanoseconds.
    pub at: u64,
    /// From client to VIP.
    pub key: FlowKey,
    /// Of a translated flow, where the client's packets come from.
    pub client: [u8; 6],
    /// Zero.
    pub padding: u16,
}

/// The pieces of one IP packet. Ports are in the first piece only, so what it was sent to is kept for
/// the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct FragmentKey {
    /// Sender of the packet.
    pub source: Ip,
    /// Its receiver.
    pub destination: Ip,
    /// The identification field, in the order of the wire; IPv4's fills the last half.
    pub identification: [u8; 4],
    /// The IP protocol number.
    pub protocol: u32,
}

/// What the first piece of a packet has, and the later ones lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Fragment {
    /// The sender's port, in network order.
    pub source_port: [u8; 2],
    /// The receiver's port, in network order.
    pub destination_port: [u8; 2],
    /// [`Tick`] of the first piece.
    pub seen: u32,
}

impl Fragment {
    /// Ticks for which more pieces may come: a receiver waits for a minute at most (RFC 8200, 4.5;
    /// RFC 1122, 3.3.2).
    pub const LIFE: u32 = 56;
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
    /// Whom to count it for: a [`super::BackendId`].
    pub backend: u16,
    /// [`super::Backend::epoch`] when it was recorded.
    pub epoch: u16,
    /// Where the client's packets come from, hence where replies go.
    pub next_hop: NextHop,
    /// The sequence number behind the client's FIN; 0: it has sent none.
    pub client_end: u32,
    /// That behind the backend's FIN, if it answered the client's; 0: it has sent none such.
    pub backend_end: u32,
}
