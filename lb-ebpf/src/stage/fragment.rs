//! Pieces of packets: all go where the first one goes.
//!
//! Only the first piece has the ports. They are kept for a while, so that each later piece finds the
//! flow, and by that the way. A piece that overtakes the first one is dropped.

use aya_ebpf::programs::XdpContext;
use lb_common::{
    abi::{BackendId, FlowKey, Fragment, FragmentKey, Service, Stage, Tick},
    cursor::Cursor,
    parse::{Fragmentation, Network, Transport},
    verdict::Verdict,
};

use super::guard;
use crate::{
    conntrack::{self, Signal},
    forward,
    job::Packet,
    maps::{self, Scratch},
    nat, pipeline, rewrite,
    rewrite::Ends,
};

/// Notes a first piece and treats it as a packet; sends a later one after it.
#[inline(always)]
pub fn run(context: &XdpContext) -> Result<Verdict, Verdict> {
    let job = maps::job().ok_or(Verdict::DropInternal)?;
    let mut packet = Packet::resume(context, job);
    let is_first = matches!(packet.fragmentation, Fragmentation::First);
    let service = job.service;
    let key = key(&packet).ok_or(Verdict::DropInternal)?;
    let now = maps::now();
    if is_first {
        note(&packet, &key, now);
        return if service.is_marker() {
            packet.call(Stage::Reply, &service)
        } else {
            pipeline::serve(packet, &service)
        };
    }
    let first = maps::fragment(&key)
        .filter(|first| now.since(Tick(first.seen)) <= Fragment::LIFE)
        .ok_or_else(|| orphan(&packet))?;
    packet.flow = FlowKey::new(
        packet.flow.source(),
        packet.flow.destination(),
        u16::from_be_bytes(first.source_port),
        u16::from_be_bytes(first.destination_port),
        packet.flow.protocol(),
    );
    let scratch = maps::scratch().ok_or(Verdict::DropInternal)?;
    match maps::service(&packet.flow.service()) {
        Some(service) => {
            let outcome = to_backend(&mut packet, &service);
            maps::count_dropped(&service, outcome)
        }
        None => to_client(&mut packet, scratch),
    }
}

/// What all pieces have in common. The first program has no use for it, so it is read here.
#[inline(always)]
fn key(packet: &Packet<'_>) -> Option<FragmentKey> {
    let mut cursor = packet.frame.cursor();
    cursor.skip(packet.network)?;
    let network = Network::parse(&mut cursor, packet.family).ok()?;
    let transport = Transport::parse(&mut cursor, &network, packet.family).ok()?;
    Some(FragmentKey {
        source: packet.flow.source(),
        destination: packet.flow.destination(),
        identification: transport.identification,
        protocol: u32::from(packet.flow.protocol()),
    })
}

#[inline(always)]
fn note(packet: &Packet<'_>, key: &FragmentKey, now: Tick) {
    let fragment = Fragment {
        source_port: packet.flow.source_port().to_be_bytes(),
        destination_port: packet.flow.destination_port().to_be_bytes(),
        seen: now.0,
    };
    maps::insert_fragment(key, &fragment);
}

/// Nobody knows what it is of: it is not for the host, if it is for a VIP.
#[inline(always)]
fn orphan(packet: &Packet<'_>) -> Verdict {
    match maps::service(&packet.flow.service()) {
        Some(_marker) => Verdict::DropFragment,
        None => Verdict::PassNotOurs,
    }
}

#[inline(always)]
fn to_backend(packet: &mut Packet<'_>, service: &Service) -> Result<Verdict, Verdict> {
    if packet.ttl <= 1 {
        return Err(Verdict::DropTtlExpired);
    }
    guard::check_access(packet, service)?;
    let signal = Signal::MIDDLE;
    if service.is_nat() {
        // The first piece was not sent on.
        let known = conntrack::find(service, &packet.flow, signal).ok_or(Verdict::DropFragment)?;
        let pool = maps::nat_pool().ok_or(Verdict::DropNatNoSource)?;
        let target = known.target;
        let next_hop = target.backend.next_hop().ok_or(Verdict::DropNoNextHop)?;
        let ends = nat::Translation::of_known(pool, &known).ends(&target);
        packet.count(&target, false);
        translate(packet, &ends)?;
        return forward::send(packet.context, &mut packet.frame, next_hop, forward::NAT);
    }
    let target = conntrack::target_of(service, &packet.flow, signal)?;
    if service.is_tunnel() {
        packet.call_with(Stage::Encapsulate, service, &target, false)
    } else {
        forward::route(packet, &target, false)
    }
}

#[inline(always)]
fn to_client(packet: &mut Packet<'_>, scratch: &mut Scratch) -> Result<Verdict, Verdict> {
    nat::load_reply(&packet.flow, &mut scratch.reply).ok_or(Verdict::PassNotOurs)?;
    let reply = &scratch.reply;
    let length = packet.frame.length();
    maps::count_backend(BackendId(reply.backend), |traffic| {
        traffic.reply_packets += 1;
        traffic.reply_bytes += length;
    });
    let (ends, next_hop) = (nat::reply_ends(reply), reply.next_hop);
    translate(packet, &ends)?;
    forward::send(
        packet.context,
        &mut packet.frame,
        next_hop,
        forward::NAT_REPLY,
    )
}

/// Addresses alone: ports and the sum over them are in the first piece.
#[inline(always)]
fn translate(packet: &mut Packet<'_>, ends: &Ends) -> Result<(), Verdict> {
    rewrite::age(packet)?;
    rewrite::addresses(packet, ends).ok_or(Verdict::DropInternal)?;
    Ok(())
}
