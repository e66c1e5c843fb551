//! nat, from client to backend: the packet leaves in the balancer's name.

use aya_ebpf::programs::XdpContext;
use lb_common::{
    abi::{FlowState, Service},
    verdict::Verdict,
};

use crate::{conntrack, forward, job::Packet, maps, mqtt, nat, rewrite, select};

/// Translates a packet and sends it to its backend.
#[inline(always)]
pub fn run(context: &XdpContext) -> Result<Verdict, Verdict> {
    let job = maps::job().ok_or(Verdict::DropInternal)?;
    let mut packet = Packet::resume(context, job);
    let service = job.service;
    let outcome = translate(&mut packet, &service);
    maps::count_dropped(&service, outcome)
}

#[inline(always)]
fn translate(packet: &mut Packet<'_>, service: &Service) -> Result<Verdict, Verdict> {
    let signal = packet.signal();
    let now = maps::now();
    let pool = maps::nat_pool().ok_or(Verdict::DropNatNoSource)?;
    let scratch = maps::scratch().ok_or(Verdict::DropInternal)?;
    let arrival =
        forward::arrival(packet.context, &mut packet.frame).ok_or(Verdict::DropInternal)?;
    let (target, translation, first) = if let Some(known) =
        conntrack::find(service, &packet.flow, signal)
            .filter(|known| nat::is_whole(pool, &packet.flow, known, scratch))
    {
        mqtt::known(packet, service, known.record)?;
        let translation = nat::known(pool, &packet.flow, &known, &arrival, scratch);
        let again = signal.starts && !FlowState::is_live(known.record.get().state);
        let mut known = known;
        let revives = nat::revives(packet, &known, &translation, scratch);
        if conntrack::touch(&known, signal, revives, now) {
            match nat::establish(&translation, &packet.flow, &known, scratch) {
                Some(established) => known = established,
                None => packet.count_untracked(&known.target),
            }
        }
        // A segment that is cut short says nothing about the end.
        let _followed = nat::follow_end(packet, &known, &translation, scratch);
        (known.target, translation, again)
    } else if signal.rst {
        return Err(Verdict::DropNatUnknownFlow);
    } else {
        // A flow lost with an earlier table gets a backend too: that one's RST tells the client to
        // connect again at once.
        let first = packet.is_first(signal);
        let keep_alive = mqtt::first(packet, service, first)?;
        let target = select::choose(service, &packet.flow, signal, first)?.target;
        let translation = nat::start(
            pool,
            &packet.flow,
            &target,
            &arrival,
            now,
            keep_alive,
            first,
            scratch,
        )?;
        (target, translation, first)
    };
    let next_hop = target.backend.next_hop().ok_or(Verdict::DropNoNextHop)?;
    rewrite::age(packet)?;
    packet.count(&target, first);
    let ends = translation.ends(&target);
    rewrite::ends(packet, &ends)?;
    forward::send(packet.context, &mut packet.frame, next_hop, forward::NAT)
}
