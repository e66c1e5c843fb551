//! Frames that tell a link which MAC address has an IP address now.
//!
//! A switch learns the port from the Ethernet source, neighbours learn the address from the content.
//! RFC 9568, 6.4.1: whoever becomes Active sends one for each address.
//!
//! ```text
//! IPv4  Ethernet | ARP request: sender = target = the address        (RFC 5227, section 3)
//! IPv6  Ethernet | IPv6 | Neighbor Advertisement, override | MAC     (RFC 4861, 4.4 and 7.2.6)
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lb_common::checksum::{add, fold};

use super::advert::{HOPS, PROTOCOL};

const BROADCAST: [u8; 6] = [0xff; 6];
/// All nodes of the link: where an unsolicited advertisement goes (RFC 4861, 7.2.6).
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// The MAC address of that group (RFC 2464, section 7).
const ALL_NODES_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];

const IPV4: [u8; 2] = [0x08, 0x00];
const ARP: [u8; 2] = [0x08, 0x06];
const IPV6: [u8; 2] = [0x86, 0xdd];
const ICMPV6: u8 = 58;
const NEIGHBOR_ADVERTISEMENT: u8 = 136;
const TARGET_LINK_LAYER_ADDRESS: u8 = 2;
/// Flag O: entries that have another MAC address are to be overridden.
const OVERRIDE: u8 = 0x20;
/// Flag R: the sender is a router.
const ROUTER: u8 = 0x80;
/// The length of an advertisement with its option.
const ADVERTISEMENT: u16 = 32;

/// Network control (RFC 4594, 3.2): CS6, as all adverts have.
const CONTROL: u8 = 0xc0;

/// What a host is to its IPv6 neighbours. They stop routing through one that says it is no router
/// (RFC 4861, 7.2.5), so it must be what the kernel says in its own advertisements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeKind {
    /// Does not forward.
    Host,
    /// Forwards.
    Router,
}

/// The whole frame that announces `address` at `mac`.
#[must_use]
pub fn announcing(address: IpAddr, mac: [u8; 6], kind: NodeKind) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => gratuitous_arp(address, mac),
        IpAddr::V6(address) => neighbor_advertisement(address, mac, kind),
    }
}

/// A request, not a reply: the form that all neighbours must take (RFC 5227, section 3).
fn gratuitous_arp(address: Ipv4Addr, mac: [u8; 6]) -> Vec<u8> {
    // Ethernet, IPv4, address lengths 6 and 4, request.
    const HEADER: [u8; 8] = [0, 1, 0x08, 0x00, 6, 4, 0, 1];
    let address = address.octets();
    let parts: [&[u8]; 8] = [
        &BROADCAST, &mac, &ARP, &HEADER, &mac, &address, &[0; 6], &address,
    ];
    parts.concat()
}

fn neighbor_advertisement(address: Ipv6Addr, mac: [u8; 6], kind: NodeKind) -> Vec<u8> {
    let flags = match kind {
        NodeKind::Host => OVERRIDE,
        NodeKind::Router => OVERRIDE | ROUTER,
    };
    let (source, group) = (address.octets(), ALL_NODES.octets());
    let [high, low] = ADVERTISEMENT.to_be_bytes();
    let mut message = [
        &[NEIGHBOR_ADVERTISEMENT, 0, 0, 0, flags, 0, 0, 0][..],
        &source,
        &[TARGET_LINK_LAYER_ADDRESS, 1],
        &mac,
    ]
    .concat();
    // RFC 8200, 8.1: addresses, length and next header are summed as well.
    let pseudo = [&source[..], &group, &[0, 0, high, low, 0, 0, 0, ICMPV6]].concat();
    let checksum = !fold(add(add(0, &pseudo), &message));
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    // Version 6; a hop limit of 255 is what tells that it comes from the link (RFC 4861, 7.1.2).
    let header = [0x60, 0, 0, 0, high, low, ICMPV6, 255];
    let parts: [&[u8]; 7] = [
        &ALL_NODES_MAC,
        &mac,
        &IPV6,
        &header,
        &source,
        &group,
        &message,
    ];
    parts.concat()
}

/// The whole frame of an advert from a virtual MAC address (RFC 9568, 7.2), to the group; `None` if the
/// addresses are not of one family, or the message is too long.
///
/// ```text
/// Ethernet | IPv4 or IPv6, of network control and with the hops that prove the link | VRRP
/// ```
#[must_use]
pub fn advert(mac: [u8; 6], source: IpAddr, group: IpAddr, message: &[u8]) -> Option<Vec<u8>> {
    match (source, group) {
        (IpAddr::V4(source), IpAddr::V4(group)) => advert_v4(mac, source, group, message),
        (IpAddr::V6(source), IpAddr::V6(group)) => advert_v6(mac, source, group, message),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => None,
    }
}

fn advert_v4(mac: [u8; 6], source: Ipv4Addr, group: Ipv4Addr, message: &[u8]) -> Option<Vec<u8>> {
    const HEADER: usize = 20;
    let [high, low] = u16::try_from(HEADER + message.len()).ok()?.to_be_bytes();
    // Never in fragments, so without an identification (RFC 6864, 4.1).
    let mut header = [
        0x45, CONTROL, high, low, 0, 0, 0x40, 0, HOPS, PROTOCOL, 0, 0,
    ]
    .to_vec();
    header.extend([source.octets(), group.octets()].concat());
    let checksum = !fold(add(0, &header));
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
    // RFC 1112, 6.4.
    let [_, a, b, c] = group.octets();
    let to = [1, 0, 0x5e, a & 0x7f, b, c];
    Some([&to[..], &mac, &IPV4, &header, message].concat())
}

fn advert_v6(mac: [u8; 6], source: Ipv6Addr, group: Ipv6Addr, message: &[u8]) -> Option<Vec<u8>> {
    let [high, low] = u16::try_from(message.len()).ok()?.to_be_bytes();
    let class = [0x60 | CONTROL >> 4, CONTROL << 4, 0, 0];
    let header = [&class[..], &[high, low, PROTOCOL, HOPS]].concat();
    let (source, group) = (source.octets(), group.octets());
    // RFC 2464, 7.
    let [.., a, b, c, d] = group;
    let to = [0x33, 0x33, a, b, c, d];
    Some([&to[..], &mac, &IPV6, &header, &source, &group, message].concat())
}

#[cfg(test)]
mod tests {
    use super::{NodeKind, add, advert, announcing, fold};

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x16];

    #[test]
    fn gratuitous_arp_asks_everybody_for_the_address_itself() {
        let frame = announcing("172.16.40.24".parse().unwrap(), MAC, NodeKind::Host);
        let expected = [
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 0x16, 0x08, 0x06, // Ethernet
            0, 1, 0x08, 0, 6, 4, 0, 1, // a request
            2, 0, 0, 0, 0, 0x16, 172, 16, 40, 24, // the sender
            0, 0, 0, 0, 0, 0, 172, 16, 40, 24, // the target
        ];
        assert_eq!(frame, expected);
    }

    #[test]
    fn neighbor_advertisement_overrides_and_its_checksum_is_right() {
        let address: std::net::Ipv6Addr = "fd00:40::24".parse().unwrap();
        let frame = announcing(address.into(), MAC, NodeKind::Host);
        let (ethernet, packet) = frame.split_at(14);
        assert_eq!(
            ethernet,
            [0x33, 0x33, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0x16, 0x86, 0xdd]
        );
        let (header, message) = packet.split_at(40);
        assert_eq!(header[4..8], [0, 32, 58, 255]);
        assert_eq!(header[8..24], address.octets());
        assert_eq!(message[..2], [136, 0]);
        assert_eq!(message[4], 0x20, "override, neither router nor solicited");
        assert_eq!(message[8..24], address.octets());
        assert_eq!(message[24..], [2, 1, 2, 0, 0, 0, 0, 0x16]);
        let pseudo = [&header[8..40], &[0, 0, 0, 32, 0, 0, 0, 58]].concat();
        assert_eq!(fold(add(add(0, &pseudo), message)), 0xffff);
    }

    #[test]
    fn an_advert_from_a_virtual_mac_is_a_whole_frame() {
        let mac = [0, 0, 0x5e, 0, 1, 51];
        let [source, group] = ["172.16.40.22", "224.0.0.18"].map(|text| text.parse().unwrap());
        let frame = advert(mac, source, group, &[0x31, 51]).unwrap();
        assert_eq!(frame[..6], [1, 0, 0x5e, 0, 0, 0x12]);
        assert_eq!(frame[6..14], [0, 0, 0x5e, 0, 1, 51, 0x08, 0]);
        assert_eq!(frame[14..18], [0x45, 0xc0, 0, 22]);
        assert_eq!(frame[22..24], [255, 112]);
        assert_eq!(fold(add(0, &frame[14..34])), 0xffff);
        assert_eq!(frame[26..], [172, 16, 40, 22, 224, 0, 0, 18, 0x31, 51]);

        let [source, to] = ["fe80::22", "ff02::12"].map(|text| text.parse().unwrap());
        let frame = advert(mac, source, to, &[0x31, 51]).unwrap();
        assert_eq!(frame[..6], [0x33, 0x33, 0, 0, 0, 0x12]);
        assert_eq!(frame[12..22], [0x86, 0xdd, 0x6c, 0, 0, 0, 0, 2, 112, 255]);
        assert_eq!(frame.len(), 14 + 40 + 2);
        assert_eq!(advert(mac, source, group, &[]), None);
        assert_eq!(advert(mac, source, to, &[0; 70_000]), None);
    }

    #[test]
    fn a_router_says_that_it_is_one() {
        let frame = announcing("fd00:40::24".parse().unwrap(), MAC, NodeKind::Router);
        assert_eq!(frame[14 + 40 + 4], 0xa0);
    }
}
