//! What a packet looks like inside another: outer headers built from nothing.

use std::net::IpAddr;

use lb_common::{
    abi::NextHop,
    checksum::{add, fold},
};

use crate::packet::Packet;

const PROTOCOL_IPV4: u8 = 4;
const PROTOCOL_IPV6: u8 = 41;
const PROTOCOL_UDP: u8 = 17;

/// Outer headers.
#[derive(Clone, Copy, Debug)]
pub struct Outer {
    pub source: IpAddr,
    pub destination: IpAddr,
    /// UDP source and destination port of GUE; without them it is IP in IP.
    pub gue: Option<(u16, u16)>,
    /// Bytes of a GUE header of variant 0 between UDP and the inner packet; 0 for variant 1.
    pub gue_header: usize,
    pub flow_label: u32,
    /// DSCP and ECN.
    pub traffic_class: u8,
    pub ttl: u8,
}

impl Outer {
    /// IP in IP between two addresses, for a packet as the harness builds them.
    #[must_use]
    pub fn new(source: IpAddr, destination: IpAddr, inner: &Packet) -> Self {
        Self {
            source,
            destination,
            gue: None,
            gue_header: 0,
            flow_label: 0,
            traffic_class: traffic_class(inner),
            ttl: 64,
        }
    }

    /// Bytes that the tunnel adds.
    #[must_use]
    pub fn overhead(&self) -> usize {
        let network = if self.source.is_ipv4() { 20 } else { 40 };
        let udp = self.gue.map_or(0, |_| 8 + self.gue_header);
        network + udp
    }

    /// The frame of `inner` inside these headers, sent to a next hop.
    #[must_use]
    pub fn wrap(&self, inner: &Packet, hop: NextHop) -> Vec<u8> {
        let frame = inner.build();
        let at = inner.network_offset();
        let length = frame.len() - at - inner.padding.len();
        let mut out = [hop.mac, hop.source_mac].concat();
        out.extend(&frame[12..at - 2]);
        out.extend(if self.source.is_ipv4() {
            [0x08, 0x00]
        } else {
            [0x86, 0xdd]
        });
        out.extend(self.headers(inner, length));
        out.extend(&frame[at..]);
        out
    }

    /// Everything between Ethernet and the inner packet of `length` bytes.
    fn headers(&self, inner: &Packet, length: usize) -> Vec<u8> {
        let ip_protocol = if inner.source.is_ipv4() {
            PROTOCOL_IPV4
        } else {
            PROTOCOL_IPV6
        };
        let mut udp = Vec::new();
        if let Some((from, to)) = self.gue {
            udp.extend(from.to_be_bytes());
            udp.extend(to.to_be_bytes());
            udp.extend(((8 + self.gue_header + length) as u16).to_be_bytes());
            udp.extend([0, 0]);
            let mut header = vec![0; self.gue_header];
            if self.gue_header > 0 {
                // Version 0, data, length in words behind the first; the protocol inside.
                header[0] = (self.gue_header / 4 - 1) as u8;
                header[1] = ip_protocol;
            }
            udp.extend(header);
        }
        let protocol = if self.gue.is_some() {
            PROTOCOL_UDP
        } else {
            ip_protocol
        };
        let mut headers = match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let mut header = vec![0x45, self.traffic_class];
                header.extend(((20 + udp.len() + length) as u16).to_be_bytes());
                header.extend([0, 0, 0x40, 0, self.ttl, protocol, 0, 0]);
                header.extend(source.octets());
                header.extend(destination.octets());
                let sum = !fold(add(0, &header));
                header[10..12].copy_from_slice(&sum.to_be_bytes());
                header
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let first = 0x6000_0000 | (u32::from(self.traffic_class) << 20) | self.flow_label;
                let mut header = first.to_be_bytes().to_vec();
                header.extend(((udp.len() + length) as u16).to_be_bytes());
                header.extend([protocol, self.ttl]);
                header.extend(source.octets());
                header.extend(destination.octets());
                header
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => Vec::new(),
        };
        headers.extend(udp);
        headers
    }
}

/// DSCP and ECN of a packet as the harness builds it.
#[must_use]
pub fn traffic_class(packet: &Packet) -> u8 {
    let frame = packet.build();
    let at = packet.network_offset();
    if packet.source.is_ipv4() {
        frame[at + 1]
    } else {
        (frame[at] << 4) | (frame[at + 1] >> 4)
    }
}
