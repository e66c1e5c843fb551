//! Well-formed packets to services: of every kind, in every dress.

use anyhow::Result;
use lb_common::{
    parse::{TCP_ACK, TCP_SYN},
    verdict::Verdict,
};
use tests::packet::{
    DESTINATION_OPTIONS, Extension, FRAGMENT, HOP_BY_HOP, Packet, ROUTING, Transport,
};

use super::case::{Case, check};
use super::services::{
    BEHIND, BEHIND_NAT, BEHIND_ROUND_ROBIN, DSR_MAGLEV, DSR_ROUND_ROBIN, FAMILIES, Family, KINDS,
    NAT_MAGLEV, NAT_ROUND_ROBIN, world,
};

const SYN: Transport = Transport::Tcp(TCP_SYN);

/// IEEE 802.1Q, 802.1ad and the pre-standard double tag.
const TAGS: [[u16; 2]; 3] = [[0x8100, 0x6007], [0x88a8, 0x0064], [0x9100, 0x1fff]];

fn verdict(service: u16) -> Verdict {
    match service {
        DSR_MAGLEV | DSR_ROUND_ROBIN => Verdict::TxDsr,
        BEHIND | BEHIND_ROUND_ROBIN => Verdict::RedirectDsr,
        BEHIND_NAT => Verdict::RedirectNat,
        _ => Verdict::TxNat,
    }
}

#[derive(Default)]
struct Cases(Vec<Case>);

impl Cases {
    fn add(
        &mut self,
        name: &str,
        family: Family,
        transport: Transport,
        service: u16,
        dress: impl FnOnce(&mut Packet),
    ) {
        let packet = family.packet(transport, service);
        let name = format!("{name}: {family:?} {transport:?} to {service}");
        let packet = packet.with(dress);
        self.0.push(Case::packet(name, &packet, verdict(service)));
    }

    fn check(self) -> Result<()> {
        check(&*world()?, &self.0)
    }
}

#[test]
fn every_kind_of_service_forwards_with_every_number_of_tags() -> Result<()> {
    let mut cases = Cases::default();
    for family in FAMILIES {
        for transport in [SYN, Transport::Udp] {
            for service in KINDS {
                for tags in [&TAGS[..0], &TAGS[..1], &TAGS[1..2], &TAGS[..2], &TAGS[1..3]] {
                    let name = format!("{} tags", tags.len());
                    cases.add(&name, family, transport, service, |packet| {
                        packet.tags = tags.to_vec();
                    });
                }
            }
        }
    }
    cases.check()
}

#[test]
fn backends_behind_another_interface_are_reached_by_redirect() -> Result<()> {
    let mut cases = Cases::default();
    for family in FAMILIES {
        for transport in [SYN, Transport::Udp] {
            for service in [BEHIND, BEHIND_NAT, BEHIND_ROUND_ROBIN] {
                cases.add("behind", family, transport, service, |_| {});
            }
        }
    }
    cases.check()
}

#[test]
fn ipv4_options_and_tcp_options_are_left_alone() -> Result<()> {
    let mut cases = Cases::default();
    for service in KINDS {
        for length in [4, 12, 40] {
            // No operation (RFC 791, 3.1).
            let name = format!("{length} bytes of IPv4 options");
            cases.add(&name, Family::V4, SYN, service, |packet| {
                packet.options = vec![1; length];
            });
            cases.add(&name, Family::V4, Transport::Udp, service, |packet| {
                packet.options = vec![1; length];
            });
        }
        for family in FAMILIES {
            cases.add("40 bytes of TCP options", family, SYN, service, |packet| {
                packet.tcp_options = vec![1; 40];
            });
        }
    }
    cases.check()
}

#[test]
fn ipv6_extension_headers_are_followed() -> Result<()> {
    let options = |length: usize| {
        let mut header = vec![0; 8 + 8 * length];
        header[1] = length as u8;
        header
    };
    // No segments left.
    let routing = vec![
        0, 2, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 9, 9, 9, 9, 9,
    ];
    // Neither an offset nor more to come (RFC 6946).
    let atomic = vec![0, 0, 0, 0, 0xaa, 0xbb, 0xcc, 0xdd];
    let chains: [(&str, Vec<Extension>); 9] = [
        ("hop-by-hop of no length", vec![(HOP_BY_HOP, options(0))]),
        ("hop-by-hop of 2", vec![(HOP_BY_HOP, options(2))]),
        (
            "destination options of no length",
            vec![(DESTINATION_OPTIONS, options(0))],
        ),
        (
            "destination options of 100",
            vec![(DESTINATION_OPTIONS, options(100))],
        ),
        ("used-up routing", vec![(ROUTING, routing.clone())]),
        ("routing of no length", vec![(ROUTING, vec![0; 8])]),
        ("atomic fragment", vec![(FRAGMENT, atomic.clone())]),
        (
            "one of each",
            vec![
                (HOP_BY_HOP, options(1)),
                (DESTINATION_OPTIONS, options(0)),
                (ROUTING, routing),
                (FRAGMENT, atomic),
                (DESTINATION_OPTIONS, options(3)),
            ],
        ),
        ("eight of them", vec![(DESTINATION_OPTIONS, options(0)); 8]),
    ];
    let mut cases = Cases::default();
    for (name, chain) in chains {
        for transport in [SYN, Transport::Udp] {
            for service in [DSR_MAGLEV, NAT_ROUND_ROBIN] {
                let chain = chain.clone();
                cases.add(name, Family::V6, transport, service, |packet| {
                    packet.extensions = chain;
                });
            }
        }
    }
    cases.check()
}

#[test]
fn padding_after_the_packet_goes_along_and_changes_nothing() -> Result<()> {
    let mut cases = Cases::default();
    for family in FAMILIES {
        for transport in [SYN, Transport::Udp] {
            for service in KINDS {
                cases.add("padding", family, transport, service, |packet| {
                    packet.payload.clear();
                    packet.padding = vec![0xee; 46];
                });
            }
        }
    }
    cases.check()
}

#[test]
fn payloads_of_all_parities_keep_their_checksums() -> Result<()> {
    let mut cases = Cases::default();
    for family in FAMILIES {
        for transport in [SYN, Transport::Udp] {
            for length in [0, 1, 2, 3, 1399, 1400] {
                let name = format!("{length} bytes");
                cases.add(&name, family, transport, NAT_MAGLEV, |packet| {
                    packet.payload = (0..length).map(|byte| byte as u8).collect();
                });
            }
        }
    }
    cases.check()
}

#[test]
fn udp_without_a_checksum_stays_without() -> Result<()> {
    let mut cases = Cases::default();
    for service in KINDS {
        cases.add(
            "unsummed",
            Family::V4,
            Transport::UdpUnsummed,
            service,
            |_| {},
        );
    }
    cases.check()
}

#[test]
fn any_last_hop_but_one_is_forwarded() -> Result<()> {
    let mut cases = Cases::default();
    for family in FAMILIES {
        for service in KINDS {
            for ttl in [2, 3, 255] {
                let name = format!("TTL {ttl}");
                cases.add(&name, family, SYN, service, |packet| packet.ttl = ttl);
            }
        }
    }
    cases.check()
}

#[test]
fn packets_in_the_middle_of_a_flow_that_nobody_knows_are_forwarded() -> Result<()> {
    let mut cases = Cases::default();
    for family in FAMILIES {
        for service in KINDS {
            cases.add("ACK", family, Transport::Tcp(TCP_ACK), service, |_| {});
        }
    }
    cases.check()
}
