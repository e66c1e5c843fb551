//! ICMP errors about flows go where the flow's packets go.
//!
//! A router that cannot deliver a packet tells the packet's source. For a backend's packet in the
//! VIP's name that is the VIP, hence the balancer; for one that was translated it is an address of
//! the balancer's own. The error quotes the packet, and by that the flow.

use aya_ebpf::programs::XdpContext;
use lb_common::{
    abi::{FlowKey, PROTOCOL_TCP, PROTOCOL_UDP, Service, ServiceKey, Stage},
    parse::{NoQuote, Quote},
    verdict::Verdict,
};

use crate::{
    conntrack::{self, Signal},
    forward,
    job::Packet,
    maps::{self, Scratch},
    nat, quote, rewrite,
    stage::{echo, neighbour},
};

/// Finds the flow that the packet is about, and sends it there; passes what is about none.
#[inline(always)]
pub fn run(context: &XdpContext) -> Result<Verdict, Verdict> {
    let job = maps::job().ok_or(Verdict::DropInternal)?;
    let mut packet = Packet::resume(context, job);
    neighbour::admit(&mut packet)?;
    echo::admit(&mut packet)?;
    let quote = quote::read(&packet).map_err(|reason| no_flow(&packet, reason))?;
    // After reading, which has the scratch for itself.
    let scratch = maps::scratch().ok_or(Verdict::DropInternal)?;
    // An error goes to who sent what it quotes.
    if !quote.flow.source().is(&packet.flow.destination()) {
        return Err(no_flow(&packet, NoQuote::Unreadable));
    }
    // As the client's packets have it, or as the backend's have it in nat.
    scratch.reply_key = quote.flow.reversed();
    match maps::service(&scratch.reply_key.service()) {
        Some(service) => {
            let outcome = to_backend(&mut packet, &quote, &service, scratch);
            maps::count_dropped(&service, outcome)
        }
        None => to_client(&mut packet, &quote, scratch),
    }
}

/// What names a VIP and no flow can only be an attempt on one. The rest is the host's.
#[inline(always)]
fn no_flow(packet: &Packet<'_>, reason: NoQuote) -> Verdict {
    let marked = |protocol| {
        let marker = ServiceKey::marker(packet.flow.destination(), protocol);
        maps::service(&marker).is_some()
    };
    match reason {
        NoQuote::Unreadable if marked(PROTOCOL_TCP) || marked(PROTOCOL_UDP) => {
            Verdict::DropIcmpUnknownFlow
        }
        NoQuote::Unreadable | NoQuote::NoError | NoQuote::OtherProtocol => Verdict::PassNotOurs,
    }
}

#[inline(always)]
fn to_backend(
    packet: &mut Packet<'_>,
    quote: &Quote,
    service: &Service,
    scratch: &mut Scratch,
) -> Result<Verdict, Verdict> {
    if service.is_marker() {
        // Quoted with port 0.
        return Err(Verdict::DropIcmpUnknownFlow);
    }
    let flow: &FlowKey = &scratch.reply_key;
    let signal = Signal::MIDDLE;
    if service.is_nat() {
        let known = conntrack::find(service, flow, signal).ok_or(Verdict::DropIcmpUnknownFlow)?;
        let pool = maps::nat_pool().ok_or(Verdict::DropNatNoSource)?;
        let next_hop = known
            .target
            .backend
            .next_hop()
            .ok_or(Verdict::DropNoNextHop)?;
        let ends = nat::Translation::of_known(pool, &known).ends(&known.target);
        rewrite::age(packet)?;
        quote::translate(packet, quote, &ends)?;
        return forward::send(packet.context, &mut packet.frame, next_hop, forward::ICMP);
    }
    let target = conntrack::target_of(service, flow, signal)?;
    if service.is_tunnel() {
        return packet.call_with(Stage::Encapsulate, service, &target, false);
    }
    let next_hop = target.backend.next_hop().ok_or(Verdict::DropNoNextHop)?;
    rewrite::age(packet)?;
    forward::send(packet.context, &mut packet.frame, next_hop, forward::ICMP)
}

#[inline(always)]
fn to_client(
    packet: &mut Packet<'_>,
    quote: &Quote,
    scratch: &mut Scratch,
) -> Result<Verdict, Verdict> {
    // The host's own connections have errors too.
    nat::load_reply(&scratch.reply_key, &mut scratch.reply).ok_or(Verdict::PassNotOurs)?;
    let ends = nat::reply_ends(&scratch.reply);
    let next_hop = scratch.reply.next_hop;
    rewrite::age(packet)?;
    quote::translate(packet, quote, &ends)?;
    forward::send(
        packet.context,
        &mut packet.frame,
        next_hop,
        forward::ICMP_REPLY,
    )
}
