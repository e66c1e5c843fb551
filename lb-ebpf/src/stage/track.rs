//! Flows that are recorded, in services that send packets on as they are.

use aya_ebpf::programs::XdpContext;
use lb_common::{
    abi::{Service, Stage},
    verdict::Verdict,
};

use crate::{
    conntrack, forward,
    job::Packet,
    maps, mqtt,
    select::{self, Target},
};

/// Finds the backend of a recorded flow, or records a new one.
#[inline(always)]
pub fn run(context: &XdpContext) -> Result<Verdict, Verdict> {
    let job = maps::job().ok_or(Verdict::DropInternal)?;
    let mut packet = Packet::resume(context, job);
    let service = job.service;
    let outcome = find(&packet, &service).and_then(|(target, first)| {
        if service.is_tunnel() {
            packet.call_with(Stage::Encapsulate, &service, &target, first)
        } else {
            forward::route(&mut packet, &target, first)
        }
    });
    maps::count_dropped(&service, outcome)
}

/// The first packet's backend keeps the flow. Also says whether this is the first.
#[inline(always)]
fn find(packet: &Packet<'_>, service: &Service) -> Result<(Target, bool), Verdict> {
    let signal = packet.signal();
    if !service.is_tracked() {
        mqtt::glance(packet, service);
        let target = select::by_slot(service, &packet.flow)?;
        packet.count_end(&target);
        return Ok((target, signal.starts));
    }
    let now = maps::now();
    if let Some(known) = conntrack::find(service, &packet.flow, signal) {
        mqtt::known(packet, service, known.record)?;
        if conntrack::touch(&known, signal, now)
            && conntrack::establish(&packet.flow, &known).is_none()
        {
            packet.count_untracked(&known.target);
        }
        return Ok((known.target, false));
    }
    let first = packet.is_first(signal);
    let keep_alive = mqtt::first(packet, service, first)?;
    let target = select::choose(service, &packet.flow, first)?;
    if !first {
        // Its slot gives the same answer to every packet, without a record that a flood of forged
        // packets could fill the table with.
        return Ok((target, false));
    }
    let record = conntrack::new_flow(&target, now, keep_alive);
    maps::remove_flow(maps::Table::Established, &packet.flow);
    if maps::insert_flow(maps::Table::HalfOpen, &packet.flow, &record).is_none() {
        packet.count_untracked(&target);
    }
    Ok((target, true))
}
