//! What forwarding leaves alone: DSCP and ECN, TCP options, and all that is not an end.

use anyhow::Result;
use lb_common::{
    parse::{TCP_ACK, TCP_SYN},
    verdict::Verdict,
};
use tests::packet::Transport;

use super::case::{Case, check};
use super::conversation::Flow;
use super::services::{DSR_MAGLEV, FAMILIES, KINDS, NAT_MAGLEV, world};

const SYN: Transport = Transport::Tcp(TCP_SYN);
const ACK: Transport = Transport::Tcp(TCP_ACK);

fn verdict_of(service: u16) -> Verdict {
    if service < NAT_MAGLEV {
        Verdict::TxDsr
    } else {
        Verdict::TxNat
    }
}

#[test]
fn every_dscp_and_ecn_is_kept() -> Result<()> {
    let mut cases = Vec::new();
    for family in FAMILIES {
        for service in [DSR_MAGLEV, NAT_MAGLEV] {
            for service_type in 0..=u8::MAX {
                let packet = family.packet(SYN, service);
                let packet = packet.with(|packet| packet.service_type = service_type);
                let name = format!("{service_type:#04x}: {family:?} to {service}");
                cases.push(Case::packet(name, &packet, verdict_of(service)));
            }
        }
    }
    check(&*world()?, &cases)
}

/// Congestion is told by either side (RFC 3168, 6.1), and in replies too.
#[test]
fn every_dscp_and_ecn_of_a_reply_is_kept() -> Result<()> {
    let world = world()?;
    for family in FAMILIES {
        let flow = Flow::begin(&world, &family.packet(SYN, NAT_MAGLEV))?;
        for service_type in 0..=u8::MAX {
            let reply = flow.reply(&world, ACK)?;
            let reply = reply.with(|packet| packet.service_type = service_type);
            let out = world.send(&reply)?;
            super::case::same(&out.answer.frame, &flow.inward(&reply).build())?;
        }
    }
    Ok(())
}

#[test]
fn tcp_options_are_kept() -> Result<()> {
    // MSS, SACK permitted, timestamps, window scale; fast open with a cookie; one nobody knows.
    let syn = [
        2, 4, 5, 0xb4, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7,
    ];
    let fast_open = [34, 10, 1, 2, 3, 4, 5, 6, 7, 8, 1, 1];
    let unknown: Vec<u8> = [253, 40].into_iter().chain(0..38).collect();
    let mut cases = Vec::new();
    for family in FAMILIES {
        for service in KINDS {
            for options in [syn.to_vec(), fast_open.to_vec(), unknown.clone()] {
                let packet = family.packet(SYN, service);
                let packet = packet.with(|packet| packet.tcp_options.clone_from(&options));
                let name = format!("{} bytes: {family:?} to {service}", options.len());
                cases.push(Case::packet(name, &packet, verdict_of(service)));
            }
        }
    }
    check(&*world()?, &cases)
}

#[test]
fn flow_labels_and_identifications_are_kept() -> Result<()> {
    let mut cases = Vec::new();
    for family in FAMILIES {
        for service in KINDS {
            for (label, identification) in [(0, 0), (0xf_ffff, 0xffff), (0x8_0001, 1)] {
                let packet = family.packet(SYN, service).with(|packet| {
                    packet.flow_label = label;
                    packet.identification = identification;
                    packet.fragment = 0x4000;
                });
                let name = format!("{label:#x} {identification}: {family:?} to {service}");
                cases.push(Case::packet(name, &packet, verdict_of(service)));
            }
        }
    }
    check(&*world()?, &cases)
}
