//! A builder of frames: every field can be set, checksums and lengths come out right by themselves.
//!
//! What a test expects to come out is built here too, from the packet that went in; so checksums
//! that the program updates step by step are compared with sums over everything.

use std::net::IpAddr;

use lb_common::{
    abi::{FlowKey, Ip, NextHop, PROTOCOL_TCP, PROTOCOL_UDP},
    checksum::{add, fold},
};

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;

/// Hop-by-hop options (RFC 8200, 4.3).
pub const HOP_BY_HOP: u8 = 0;
/// Routing header (RFC 8200, 4.4).
pub const ROUTING: u8 = 43;
/// Fragment header (RFC 8200, 4.5).
pub const FRAGMENT: u8 = 44;
/// Destination options (RFC 8200, 4.6).
pub const DESTINATION_OPTIONS: u8 = 60;

/// The kind of an IPv6 extension header and its bytes; the first one is filled in.
pub type Extension = (u8, Vec<u8>);

/// What follows the network header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// With these flags.
    Tcp(u8),
    Udp,
    /// Without the checksum that UDP over IPv4 may leave out.
    UdpUnsummed,
    /// Another protocol: the payload follows at once.
    Other(u8),
}

/// An IP packet in its Ethernet frame.
#[derive(Clone, Debug)]
pub struct Packet {
    pub destination_mac: [u8; 6],
    pub source_mac: [u8; 6],
    /// TPID and TCI of each VLAN tag, outermost first.
    pub tags: Vec<[u16; 2]>,
    pub source: IpAddr,
    pub destination: IpAddr,
    pub ttl: u8,
    /// IPv4 type of service or IPv6 traffic class: DSCP and ECN.
    pub service_type: u8,
    /// IPv6 flow label.
    pub flow_label: u32,
    /// IPv4 identification.
    pub identification: u16,
    /// IPv4 options, a multiple of four bytes.
    pub options: Vec<u8>,
    /// IPv4 flags and fragment offset.
    pub fragment: u16,
    pub extensions: Vec<Extension>,
    pub transport: Transport,
    pub source_port: u16,
    pub destination_port: u16,
    /// TCP's numbers.
    pub sequence: u32,
    pub acknowledged: u32,
    pub window: u16,
    /// TCP options, a multiple of four bytes.
    pub tcp_options: Vec<u8>,
    pub payload: Vec<u8>,
    /// What follows the IP packet in the frame.
    pub padding: Vec<u8>,
}

impl Packet {
    /// What frames for the host under test are sent to.
    pub const TO_US: [u8; 6] = [0x02, 0, 0, 0, 0, 0x24];

    /// A packet from one end to another, of the family of the addresses.
    #[must_use]
    pub fn new(transport: Transport, source: (IpAddr, u16), destination: (IpAddr, u16)) -> Self {
        Self {
            destination_mac: Self::TO_US,
            source_mac: [0x02, 0, 0, 0, 0x01, 0x00],
            tags: Vec::new(),
            source: source.0,
            destination: destination.0,
            ttl: 64,
            service_type: 0x10,
            flow_label: 0x2_3456,
            identification: 0x1234,
            options: Vec::new(),
            fragment: 0,
            extensions: Vec::new(),
            transport,
            source_port: source.1,
            destination_port: destination.1,
            sequence: 1,
            acknowledged: 2,
            window: 0x2000,
            tcp_options: Vec::new(),
            payload: b"payload".to_vec(),
            padding: Vec::new(),
        }
    }

    /// The same, changed.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// The packet one hop on: sent to the next hop, with one less to live.
    #[must_use]
    pub fn forwarded(&self, next_hop: NextHop) -> Self {
        self.clone().with(|packet| {
            packet.destination_mac = next_hop.mac;
            packet.source_mac = next_hop.source_mac;
            packet.ttl -= 1;
        })
    }

    /// The packet with other ends.
    #[must_use]
    pub fn between(&self, source: (IpAddr, u16), destination: (IpAddr, u16)) -> Self {
        self.clone().with(|packet| {
            (packet.source, packet.source_port) = source;
            (packet.destination, packet.destination_port) = destination;
        })
    }

    /// A packet the other way, arriving from a neighbour.
    #[must_use]
    pub fn reply(&self, from: NextHop) -> Self {
        self.between(
            (self.destination, self.destination_port),
            (self.source, self.source_port),
        )
        .with(|packet| {
            packet.ttl = 64;
            packet.source_mac = from.mac;
            packet.destination_mac = Self::TO_US;
        })
    }

    /// The key of its flow.
    #[must_use]
    pub fn flow(&self) -> FlowKey {
        FlowKey::new(
            Ip::from(self.source),
            Ip::from(self.destination),
            self.source_port,
            self.destination_port,
            self.protocol(),
        )
    }

    /// IP protocol number of what follows all network headers.
    #[must_use]
    pub fn protocol(&self) -> u8 {
        match self.transport {
            Transport::Tcp(_) => PROTOCOL_TCP,
            Transport::Udp | Transport::UdpUnsummed => PROTOCOL_UDP,
            Transport::Other(protocol) => protocol,
        }
    }

    /// Where the network header starts in the frame.
    #[must_use]
    pub fn network_offset(&self) -> usize {
        14 + 4 * self.tags.len()
    }

    /// Where the transport header starts in the frame.
    #[must_use]
    pub fn transport_offset(&self) -> usize {
        let extensions: usize = self.extensions.iter().map(|(_, bytes)| bytes.len()).sum();
        let network = if self.source.is_ipv4() {
            20 + self.options.len()
        } else {
            40 + extensions
        };
        self.network_offset() + network
    }

    /// The frame.
    #[must_use]
    pub fn build(&self) -> Vec<u8> {
        let mut frame = self.ethernet();
        let transport = self.transport_bytes();
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                frame.extend(self.v4(source.octets(), destination.octets(), transport.len()));
            }
            (source, destination) => {
                frame.extend(self.v6(octets(source), octets(destination), transport.len()));
            }
        }
        frame.extend(transport);
        frame.extend(&self.padding);
        frame
    }

    fn ethernet(&self) -> Vec<u8> {
        let mut frame = [self.destination_mac, self.source_mac].concat();
        for tag in &self.tags {
            frame.extend(tag.iter().flat_map(|word| word.to_be_bytes()));
        }
        let ethertype = if self.source.is_ipv4() {
            ETHERTYPE_IPV4
        } else {
            ETHERTYPE_IPV6
        };
        frame.extend(ethertype.to_be_bytes());
        frame
    }

    /// RFC 791, 3.1.
    fn v4(&self, source: [u8; 4], destination: [u8; 4], payload: usize) -> Vec<u8> {
        let length = 20 + self.options.len();
        let mut header = vec![0x40 | (length / 4) as u8, self.service_type];
        header.extend(((length + payload) as u16).to_be_bytes());
        header.extend(self.identification.to_be_bytes());
        header.extend(self.fragment.to_be_bytes());
        header.extend([self.ttl, self.protocol(), 0, 0]);
        header.extend(source);
        header.extend(destination);
        header.extend(&self.options);
        let sum = !fold(add(0, &header));
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        header
    }

    /// RFC 8200, 3 and 4.
    fn v6(&self, source: [u8; 16], destination: [u8; 16], payload: usize) -> Vec<u8> {
        let kinds = self.extensions.iter().map(|(kind, _)| *kind);
        let mut next = kinds.chain([self.protocol()]);
        let first = 0x6000_0000 | u32::from(self.service_type) << 20 | self.flow_label;
        let mut header = first.to_be_bytes().to_vec();
        header.extend([0, 0]);
        header.extend([next.next().unwrap_or_default(), self.ttl]);
        header.extend(source);
        header.extend(destination);
        for ((_, bytes), next) in self.extensions.iter().zip(next) {
            header.push(next);
            header.extend(&bytes[1..]);
        }
        let length = (header.len() - 40 + payload) as u16;
        header[4..6].copy_from_slice(&length.to_be_bytes());
        header
    }

    fn transport_bytes(&self) -> Vec<u8> {
        let (mut bytes, sum_at) = match self.transport {
            Transport::Tcp(flags) => (self.tcp(flags), Some(16)),
            Transport::Udp => (self.udp(), Some(6)),
            Transport::UdpUnsummed => (self.udp(), None),
            Transport::Other(_) => return self.payload.clone(),
        };
        bytes.extend(&self.payload);
        if let Some(at) = sum_at {
            let sum = match (self.transport, self.transport_sum(&bytes)) {
                // Zero would say that there is none (RFC 768).
                (Transport::Udp, 0) => 0xffff,
                (_, sum) => sum,
            };
            bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        }
        bytes
    }

    /// RFC 9293, 3.1.
    fn tcp(&self, flags: u8) -> Vec<u8> {
        let words = (20 + self.tcp_options.len()) / 4;
        let mut header = self.ports();
        header.extend(self.sequence.to_be_bytes());
        header.extend(self.acknowledged.to_be_bytes());
        header.extend([(words as u8) << 4, flags]);
        header.extend(self.window.to_be_bytes());
        header.extend([0, 0, 0, 0]);
        header.extend(&self.tcp_options);
        header
    }

    /// RFC 768.
    fn udp(&self) -> Vec<u8> {
        let mut header = self.ports();
        header.extend((8 + self.payload.len() as u16).to_be_bytes());
        header.extend([0, 0]);
        header
    }

    fn ports(&self) -> Vec<u8> {
        [
            self.source_port.to_be_bytes(),
            self.destination_port.to_be_bytes(),
        ]
        .concat()
    }

    /// The sum over the pseudo-header and everything behind it.
    fn transport_sum(&self, bytes: &[u8]) -> u16 {
        let addresses = match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                [source.octets(), destination.octets()].concat()
            }
            (source, destination) => [octets(source), octets(destination)].concat(),
        };
        let pseudo = u64::from(self.protocol()) + bytes.len() as u64;
        !fold(add(add(pseudo, &addresses), bytes))
    }
}

fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}
