//! Who may connect, and how often: asked before a backend is chosen.
//!
//! The access list is asked about every packet. Challenges and rates are about packets that start a
//! connection; challenges come first, so that forged SYNs use up nobody's rate.

use aya_ebpf::programs::XdpContext;
use lb_common::{
    abi::{Access, PROTOCOL_UDP, Service, ServiceId, SourceKey, Stage},
    challenge,
    checksum::Delta,
    parse::{Family, Fragmentation},
    verdict::Verdict,
};

use crate::{
    conntrack,
    conntrack::Signal,
    job::{Answer, Packet},
    maps,
};

/// Time to live of a challenge.
const TTL: u8 = 64;

/// What is to become of a packet.
enum Fate {
    GoesOn,
    /// It has done what it was for.
    EndsHere(Verdict),
}

/// Drops what may not pass; sends the rest on to where it would have gone at once.
#[inline(always)]
pub fn run(context: &XdpContext) -> Result<Verdict, Verdict> {
    let job = maps::job().ok_or(Verdict::DropInternal)?;
    let mut packet = Packet::resume(context, job);
    let service = job.service;
    let outcome = match check(&mut packet, &service) {
        Ok(Fate::GoesOn) => go_on(context, &service),
        Ok(Fate::EndsHere(verdict)) => Ok(verdict),
        Err(verdict) => Err(verdict),
    };
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
fn check(packet: &mut Packet<'_>, service: &Service) -> Result<Fate, Verdict> {
    check_access(packet, service)?;
    if packet.ttl <= 1 {
        return packet
            .answer(service, Answer::TimeExceeded)
            .map(Fate::EndsHere);
    }
    let signal = packet.signal();
    if signal.rst {
        return check_answer(packet, service);
    }
    if signal.starts && service.challenges() && !is_known(packet) {
        if !matches!(packet.fragmentation, Fragmentation::None) {
            // Nobody has to send a SYN in pieces, and its answer would look like one.
            return Err(Verdict::DropFragment);
        }
        if !packet.may_be_answered() {
            return Err(Verdict::DropMalformed);
        }
        challenge(packet, service).ok_or(Verdict::DropInternal)?;
        return Ok(Fate::EndsHere(Verdict::TxChallenge));
    }
    if service.has_rates() && starts(packet, service, signal) {
        check_rates(packet, service)?;
    }
    Ok(Fate::GoesOn)
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

/// A RST that answers a challenge ends here: it is about a connection that was never begun. Any
/// other is a session's. Answers are known while no challenges are sent as well.
#[inline(always)]
fn check_answer(packet: &mut Packet<'_>, service: &Service) -> Result<Fate, Verdict> {
    let sequence = packet.frame.bytes::<4>(packet.transport + 4);
    let sequence = u32::from_be_bytes(*sequence.ok_or(Verdict::DropInternal)?);
    let now = maps::now();
    if !maps::challenge_key().is_answer(&packet.flow, sequence, now) {
        return Ok(Fate::GoesOn);
    }
    maps::note_answer(&source(packet), now);
    maps::count_guard(service.id(), |counts| counts.answered += 1);
    Ok(Fate::EndsHere(Verdict::DropChallengeAnswered))
}

/// Whether the client is known to be where it says.
#[inline(always)]
fn is_known(packet: &Packet<'_>) -> bool {
    maps::has_answered(&source(packet), maps::now())
}

/// Who is there is the same for all services.
#[inline(always)]
fn source(packet: &Packet<'_>) -> SourceKey {
    SourceKey::new(packet.flow.source(), ServiceId(0))
}

/// Makes the SYN a SYN-ACK to its sender, which acknowledges a cookie.
///
/// What stood behind the TCP header stays in the frame as padding: a frame never gets too short for
/// a link, nor longer than the SYN was.
#[inline(always)]
fn challenge(packet: &mut Packet<'_>, service: &Service) -> Option<()> {
    let (network, transport) = (packet.network, packet.transport);
    let (flow, frame) = (packet.flow, &mut packet.frame);
    let sequence = u32::from_be_bytes(*frame.bytes::<4>(transport + 4)?);
    let cookie = maps::challenge_key().challenge(&flow, sequence, maps::now());
    *frame.bytes::<{ challenge::HEADER }>(transport)? = challenge::syn_ack(&flow, cookie);
    let length = transport + challenge::HEADER - network;
    match packet.family {
        Family::V4 => {
            let [high, low] = (length as u16).to_be_bytes();
            let header = frame.bytes::<20>(network)?;
            let [_, _, old_high, old_low, _, _, _, _, ttl, protocol, ..] = *header;
            // Addresses that change places change no sum.
            let delta = Delta::new()
                .word([old_high, old_low], [high, low])
                .word([ttl, protocol], [TTL, protocol]);
            let sum = delta.apply([header[10], header[11]]);
            [header[2], header[3], header[8]] = [high, low, TTL];
            [header[10], header[11]] = sum;
            let [a, b, c, d] = flow.destination().v4_octets();
            let [e, f, g, h] = flow.source().v4_octets();
            *frame.bytes::<8>(network + 12)? = [a, b, c, d, e, f, g, h];
        }
        Family::V6 => {
            let [high, low] = ((length - 40) as u16).to_be_bytes();
            let [old_high, old_low, _next, limit] = frame.bytes::<4>(network + 4)?;
            [*old_high, *old_low, *limit] = [high, low, TTL];
            *frame.bytes::<16>(network + 8)? = flow.destination().octets();
            *frame.bytes::<16>(network + 24)? = flow.source().octets();
        }
    }
    let [a, b, c, d, e, f, g, h, i, j, k, l] = *frame.bytes::<12>(0)?;
    *frame.bytes::<12>(0)? = [g, h, i, j, k, l, a, b, c, d, e, f];
    maps::count_guard(service.id(), |counts| counts.challenged += 1);
    Some(())
}

/// Whether the packet starts a connection, as far as can be told.
#[inline(always)]
fn starts(packet: &Packet<'_>, service: &Service, signal: Signal) -> bool {
    if packet.flow.protocol() != PROTOCOL_UDP {
        return signal.starts;
    }
    // Without records, every packet of UDP could be the first.
    let is_recorded = service.is_tracked() || service.is_nat();
    is_recorded && conntrack::find(service, &packet.flow, signal).is_none()
}

/// A source that has had its share takes nothing from the service's.
#[inline(always)]
fn check_rates(packet: &Packet<'_>, service: &Service) -> Result<(), Verdict> {
    let id = service.id();
    let rates = maps::rates(id).ok_or(Verdict::DropInternal)?;
    let now = maps::now_nanos();
    let source = SourceKey::new(packet.flow.source(), id);
    if rates.source.is_some() && maps::take_of_source(&source, rates.source, now).is_none() {
        maps::count_guard(id, |counts| counts.source_limited += 1);
        return Err(Verdict::DropSourceRate);
    }
    if rates.service.is_some() && maps::take_of_service(id, rates.service, now).is_none() {
        maps::count_guard(id, |counts| counts.service_limited += 1);
        return Err(Verdict::DropServiceRate);
    }
    Ok(())
}
