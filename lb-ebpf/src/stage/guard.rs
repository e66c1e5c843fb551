//! Who may connect, and how often: asked before a backend is chosen.

use aya_ebpf::programs::XdpContext;
use lb_common::{
    abi::{Access, Service, Stage},
    verdict::Verdict,
};

use crate::{job::Packet, maps};

/// Drops what may not pass; sends the rest on to where it would have gone at once.
#[inline(always)]
pub fn run(context: &XdpContext) -> Result<Verdict, Verdict> {
    let job = maps::job().ok_or(Verdict::DropInternal)?;
    let packet = Packet::resume(context, job);
    let service = job.service;
    let outcome = check(&packet, &service).and_then(|()| go_on(context, &service));
    maps::count_dropped(&service, outcome)
}

/// The job stands as the first program left it; a call that succeeds does not come back.
#[inline(always)]
fn go_on(context: &XdpContext, service: &Service) -> Result<Verdict, Verdict> {
    let stage = if service.is_nat() {
        Stage::Translate
    } else {
        Stage::Track
    };
    Err(maps::call(context, stage))
}

#[inline(always)]
fn check(packet: &Packet<'_>, service: &Service) -> Result<(), Verdict> {
    check_access(packet, service)
}

/// Asks the service's access list.
#[inline(always)]
pub fn check_access(packet: &Packet<'_>, service: &Service) -> Result<(), Verdict> {
    if !(service.has_access_list() || service.denies_by_default()) {
        return Ok(());
    }
    let allowed = match maps::access(service.id(), packet.flow.source()) {
        Some(access) => access == Access::Allow as u32,
        None => !service.denies_by_default(),
    };
    if !allowed {
        maps::count_guard(service.id(), |counts| counts.denied += 1);
        return Err(Verdict::DropDenied);
    }
    Ok(())
}
