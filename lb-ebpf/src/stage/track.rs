//! Flows that are recorded, in services that send packets on as they are.

use aya_ebpf::programs::XdpContext;
use lb_common::{
    abi::{FlowState, Service, Stage},
    verdict::Verdict,
};

use crate::{
    conntrack, forward,
    job::Packet,
    maps, mqtt,
    select::{self, Choice, Memory, Target},
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
        // As on the short way, which guarded services cannot take.
        let slot = select::slot(service, &packet.flow)?;
        if slot.is_safe() {
            mqtt::glance(packet, service);
            let target = select::reachable(slot.owner())?;
            packet.count_end(&target);
            return Ok((target, signal.starts));
        }
    }
    let now = maps::now();
    let mut found = conntrack::find(service, &packet.flow, signal);
    if let Some(known) = found
        && !conntrack::is_of(&known, packet, signal)
    {
        if signal.rst {
            // It may be what a SYN's sender answers a backend that has an older connection (RFC
            // 9293, 3.5.1). It says nothing about this one.
            return Ok((known.target, false));
        }
        found = None;
    }
    if let Some(known) = found {
        mqtt::known(packet, service, known.record)?;
        let again = signal.starts && !FlowState::is_live(known.record.get().state);
        let revives = conntrack::follow(&known, packet, signal);
        if conntrack::touch(&known, signal, revives, now)
            && conntrack::establish(&packet.flow, &known, conntrack::UNTRANSLATED).is_none()
        {
            packet.count_untracked(&known.target);
        }
        return Ok((known.target, again));
    }
    let first = packet.is_first(signal);
    let Choice { target, memory } = select::choose(service, &packet.flow, signal, first)?;
    let keep_alive = mqtt::first(packet, service, memory == Memory::Begun)?;
    let recorded = match memory {
        // A flood of forged packets must not fill the table where nothing depends on it.
        Memory::Nothing => {
            if signal.starts {
                conntrack::forget(&packet.flow);
            }
            Some(())
        }
        Memory::NoRoom => {
            conntrack::forget(&packet.flow);
            None
        }
        Memory::Begun => {
            let sequence = packet.numbers().map_or(0, |numbers| numbers.sequence);
            let record = conntrack::new_flow(&target, now, keep_alive, sequence);
            maps::remove_flow(maps::Table::Established, &packet.flow);
            let recorded = maps::insert_flow(maps::Table::HalfOpen, &packet.flow, &record);
            if recorded.is_some() {
                maps::note_opened(&target);
            }
            recorded
        }
        Memory::Learned => conntrack::learn(packet, &target, signal, now),
    };
    if recorded.is_none() {
        packet.count_untracked(&target);
    }
    Ok((target, signal.starts || memory == Memory::Begun))
}
