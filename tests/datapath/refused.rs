//! Packets to services that cannot be served: dropped, counted, and leaving no trace.

use anyhow::Result;
use lb_common::{
    parse::{TCP_ACK, TCP_RST, TCP_SYN},
    verdict::Verdict,
};
use tests::packet::Transport;

use super::case::{Case, check};
use super::services::{
    EMPTY, EMPTY_NAT, EMPTY_ROUND_ROBIN, FAMILIES, NAT_MAGLEV, NAT_ROUND_ROBIN, NO_NEXT_HOP,
    NO_NEXT_HOP_NAT, NO_NEXT_HOP_ROUND_ROBIN, WEIGHTLESS, world,
};

const SYN: Transport = Transport::Tcp(TCP_SYN);
const ACK: Transport = Transport::Tcp(TCP_ACK);
const RST: Transport = Transport::Tcp(TCP_RST);

fn each(services: &[u16], transports: &[Transport], verdict: Verdict) -> Vec<Case> {
    let mut cases = Vec::new();
    for family in FAMILIES {
        for service in services {
            for transport in transports {
                let packet = family.packet(*transport, *service);
                let name = format!("{family:?} {transport:?} to {service}");
                cases.push(Case::bytes(name, packet.build(), verdict));
            }
        }
    }
    cases
}

#[test]
fn a_service_without_backends_drops() -> Result<()> {
    let services = [EMPTY, EMPTY_NAT, EMPTY_ROUND_ROBIN, WEIGHTLESS];
    let cases = each(
        &services,
        &[SYN, ACK, Transport::Udp],
        Verdict::DropNoBackend,
    );
    check(&*world()?, &cases)
}

#[test]
fn a_backend_whose_mac_address_is_unknown_gets_nothing() -> Result<()> {
    let services = [NO_NEXT_HOP, NO_NEXT_HOP_NAT, NO_NEXT_HOP_ROUND_ROBIN];
    let cases = each(
        &services,
        &[SYN, ACK, Transport::Udp],
        Verdict::DropNoNextHop,
    );
    check(&*world()?, &cases)
}

/// Nothing can start with it, and answering it would be an attack on whoever it names.
#[test]
fn a_reset_of_no_known_flow_is_dropped_by_nat() -> Result<()> {
    let services = [NAT_MAGLEV, NAT_ROUND_ROBIN];
    let transports = [RST, Transport::Tcp(TCP_RST | TCP_ACK)];
    let cases = each(&services, &transports, Verdict::DropNatUnknownFlow);
    check(&*world()?, &cases)
}

/// A flow that is given to a backend would stay there when the other could serve it.
#[test]
fn what_is_dropped_is_not_recorded() -> Result<()> {
    let mut world = world()?;
    let before = world.sweep(std::time::Duration::MAX)?;
    let mut cases = each(
        &[NO_NEXT_HOP_NAT, NO_NEXT_HOP_ROUND_ROBIN],
        &[SYN, ACK],
        Verdict::DropNoNextHop,
    );
    cases.extend(each(
        &[EMPTY_ROUND_ROBIN, EMPTY_NAT],
        &[SYN, ACK],
        Verdict::DropNoBackend,
    ));
    check(&world, &cases)?;
    let after = world.sweep(std::time::Duration::MAX)?;
    // Flows of other tests may have been over by then.
    let left = after.tracked + after.half_open + after.removed;
    assert_eq!(left, before.tracked + before.half_open);
    Ok(())
}
