//! ICMP errors: a header, and as much of a packet as it is about.

use std::net::IpAddr;

use lb_common::{
    checksum::{add, fold},
    icmp,
};

use crate::packet::{Packet, Transport};

/// An ICMP or ICMPv6 error; the family is that of its ends.
#[derive(Clone, Debug)]
pub struct Error {
    pub kind: u8,
    pub code: u8,
    /// What follows the checksum.
    pub rest: u32,
    /// What it is about, from the IP header on.
    pub quote: Vec<u8>,
}

impl Error {
    /// The packet that carries the error.
    #[must_use]
    pub fn packet(&self, source: IpAddr, destination: IpAddr) -> Packet {
        let mut bytes = vec![self.kind, self.code, 0, 0];
        bytes.extend(self.rest.to_be_bytes());
        bytes.extend(&self.quote);
        let (protocol, pseudo) = match (source, destination) {
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let addresses = [source.octets(), destination.octets()].concat();
                let ends = u64::from(icmp::PROTOCOL_V6) + bytes.len() as u64;
                (icmp::PROTOCOL_V6, add(ends, &addresses))
            }
            _ => (icmp::PROTOCOL_V4, 0),
        };
        let sum = !fold(add(pseudo, &bytes));
        bytes[2..4].copy_from_slice(&sum.to_be_bytes());
        Packet::new(Transport::Other(protocol), (source, 0), (destination, 0))
            .with(|packet| packet.payload = bytes)
    }
}
