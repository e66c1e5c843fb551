//! The first program's way: parse, find the service, and take the short way if there is one.
//!
//! The short way is a slot that sends every packet to its owner: no record, no call. Everything else
//! goes on in a stage of its own, see [`Stage`].

use aya_ebpf::programs::XdpContext;
use lb_common::{
    abi::{FlowKey, PROTOCOL_TCP, PROTOCOL_UDP, Service, ServiceKey, Stage},
    cursor::Cursor,
    icmp,
    parse::{
        self, Family, Fragmentation, Network, Reject, TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN, Transport,
    },
    verdict::Verdict,
};

use crate::{
    forward,
    job::{Answer, Packet},
    maps, mqtt,
    packet::Frame,
    select,
};

/// Where an Ethernet header has the type of what follows, and that of ARP (RFC 826).
const ETHERTYPE: usize = 12;
const ARP: [u8; 2] = [0x08, 0x06];

/// Parses the frame, finds its service, and sends it on.
#[inline(always)]
pub fn run(context: &XdpContext) -> Result<Verdict, Verdict> {
    let mut frame = Frame::new(context);
    if maps::is_for_another(frame.bytes(0).ok_or(Verdict::PassNotOurs)?) {
        // The kernel drops it. Forwarded, it would be there twice, and with NAT from two balancers.
        return Err(Verdict::PassNotOurs);
    }
    let mut cursor = frame.cursor();
    let family = parse::ethernet(&mut cursor).ok_or_else(|| not_ip(context, frame))?;
    let network = Network::parse(&mut cursor, family).map_err(|_damaged| Verdict::PassMalformed)?;
    let transport =
        Transport::parse(&mut cursor, &network, family).map_err(|reject| match reject {
            Reject::Icmp => about_a_flow(context, frame, family, &network, cursor.offset()),
            Reject::OtherProtocol | Reject::BadNetwork | Reject::BadTransport => {
                rejected(reject, &network)
            }
        })?;
    let packet = Packet {
        context,
        frame,
        family,
        network: network.offset,
        transport: transport.offset,
        payload: transport.payload,
        end: transport.end,
        ttl: network.ttl,
        tcp_flags: transport.tcp_flags,
        fragmentation: transport.fragmentation,
        flow: transport.flow(&network),
    };
    match maps::service(&packet.flow.service()) {
        Some(service) => to_service(packet, &service),
        None => to_host(&packet),
    }
}

/// What is not IP is left to the host, but for questions that it must not answer.
#[inline(always)]
fn not_ip(context: &XdpContext, mut frame: Frame) -> Verdict {
    match frame.bytes::<2>(ETHERTYPE) {
        Some(&mut ARP) => maps::call(context, Stage::Arp),
        Some(_) | None => Verdict::PassNotOurs,
    }
}

/// A packet for a VIP must not reach the host's own TCP, not even a damaged one.
#[inline(always)]
fn rejected(reject: Reject, network: &Network) -> Verdict {
    match reject {
        Reject::Icmp | Reject::OtherProtocol => Verdict::PassNotOurs,
        Reject::BadNetwork => Verdict::PassMalformed,
        Reject::BadTransport => {
            let marked = |protocol| {
                maps::service(&ServiceKey::marker(network.destination, protocol)).is_some()
            };
            if marked(PROTOCOL_TCP) || marked(PROTOCOL_UDP) {
                Verdict::DropMalformed
            } else {
                Verdict::PassMalformed
            }
        }
    }
}

/// ICMP, which may be an error about a flow.
#[inline(always)]
fn about_a_flow(
    context: &XdpContext,
    frame: Frame,
    family: Family,
    network: &Network,
    header: usize,
) -> Verdict {
    let packet = Packet {
        context,
        frame,
        family,
        network: network.offset,
        transport: header,
        payload: header,
        end: network.end,
        ttl: network.ttl,
        tcp_flags: 0,
        fragmentation: Fragmentation::None,
        flow: FlowKey::new(
            network.source,
            network.destination,
            0,
            0,
            icmp::protocol(family),
        ),
    };
    let (Ok(verdict) | Err(verdict)) = packet.call(Stage::Icmp, &Service::marker());
    verdict
}

#[inline(always)]
fn to_service(packet: Packet<'_>, service: &Service) -> Result<Verdict, Verdict> {
    if service.is_marker() {
        // Only a later fragment or port 0 finds a marker.
        return match packet.fragmentation {
            Fragmentation::Later => packet.call(Stage::Fragment, service),
            Fragmentation::None | Fragmentation::First => Err(Verdict::PassNotOurs),
        };
    }
    if !matches!(packet.fragmentation, Fragmentation::None) {
        return packet.call(Stage::Fragment, service);
    }
    serve(packet, service)
}

/// A packet for a service, with its ports.
#[inline(always)]
pub fn serve(mut packet: Packet<'_>, service: &Service) -> Result<Verdict, Verdict> {
    if packet.flow.protocol() == PROTOCOL_TCP && packet.tcp_flags & (TCP_ACK | TCP_RST) == 0 {
        // Nothing that a connection sends but a SYN (RFC 9293, 3.10.7): a listener ignores it in
        // silence, so nobody would tell that its flow is none.
        if packet.tcp_flags & (TCP_SYN | TCP_FIN) != TCP_SYN {
            return maps::count_dropped(service, Err(Verdict::DropMalformed));
        }
        maps::count_guard(service.id(), |counts| counts.syns += 1);
    }
    let outcome = if service.is_guarded() {
        packet.call(Stage::Guard, service)
    } else if packet.ttl <= 1 {
        // Before a flow is recorded for it.
        packet.answer(service, Answer::TimeExceeded)
    } else if service.is_nat() {
        packet.call(Stage::Translate, service)
    } else if service.is_tracked() {
        packet.call(Stage::Track, service)
    } else {
        short_way(&mut packet, service)
    };
    maps::count_dropped(service, outcome)
}

/// The short way, if the flow's slot is safe.
#[inline(always)]
fn short_way(packet: &mut Packet<'_>, service: &Service) -> Result<Verdict, Verdict> {
    let slot = select::slot(service, &packet.flow)?;
    if !slot.is_safe() {
        return packet.call(Stage::Track, service);
    }
    let target = select::reachable(slot.owner())?;
    mqtt::glance(packet, service);
    let first = packet.signal().starts;
    packet.count_end(&target);
    if service.is_tunnel() {
        packet.call_with(Stage::Encapsulate, service, &target, first)
    } else {
        forward::route(packet, &target, first)
    }
}

/// Not for a service: a backend's reply to a translated flow, or the host's own.
#[inline(always)]
fn to_host(packet: &Packet<'_>) -> Result<Verdict, Verdict> {
    let pool = maps::nat_pool().ok_or(Verdict::PassNotOurs)?;
    if matches!(packet.fragmentation, Fragmentation::Later) {
        return packet.call(Stage::Fragment, &Service::marker());
    }
    let port = u32::from(packet.flow.destination_port());
    if port.wrapping_sub(pool.first_port()) >= pool.port_count() {
        return Err(Verdict::PassNotOurs);
    }
    match packet.fragmentation {
        Fragmentation::None => packet.call(Stage::Reply, &Service::marker()),
        Fragmentation::First | Fragmentation::Later => {
            packet.call(Stage::Fragment, &Service::marker())
        }
    }
}
