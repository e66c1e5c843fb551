//! Full NAT: a flow gets a source address and a port of the balancer towards its backend.
//!
//! Two records make a flow: one from the client's side, in the flow tables, and one that says what
//! the backend's replies become. The second is the claim on the port: its key holds the backend's
//! address and port, so every backend has the whole range of ports to itself.

use aya_ebpf::helpers::generated::bpf_get_prandom_u32;
use lb_common::{
    abi::{Flow, FlowKey, FlowState, Ip, KeepAlive, NatPool, NextHop, Reply, Tick},
    flow::reduce,
    verdict::Verdict,
};

use crate::{
    conntrack::{self, Known},
    forward::Arrival,
    job::Packet,
    maps::{self, Scratch, Table},
    rewrite::Ends,
    select::Target,
};

/// Ports tried for a new flow. Each try starts at random, so a client's next SYN tries others.
const ATTEMPTS: u32 = 24;
/// Ports tried after that of which a flow that has not come further than a SYN is driven away: of
/// those that a flood of SYNs has taken, the first will do.
const LAST_ATTEMPTS: u32 = 8;

/// What a packet to the backend gets.
#[derive(Clone, Copy)]
pub struct Translation {
    source: Ip,
    port: [u8; 2],
}

impl Translation {
    #[inline(always)]
    fn of(pool: &NatPool, target: &Target, flow: &Flow) -> Self {
        let v4 = target.backend.address().is_v4();
        Self {
            source: maps::load_ip(pool.source(v4, flow.nat_source)),
            port: flow.nat_port(),
        }
    }

    /// That of a recorded flow.
    #[inline(always)]
    pub fn of_known(pool: &NatPool, known: &Known) -> Self {
        Self::of(pool, &known.target, &known.record.get())
    }

    /// The ends of a packet to the backend.
    #[inline(always)]
    pub fn ends(&self, target: &Target) -> Ends {
        Ends {
            source: self.source,
            destination: maps::load_ip(target.backend.address()),
            source_port: self.port,
            destination_port: target.backend.port(),
        }
    }

    /// The flow of the backend's replies.
    #[inline(always)]
    fn reply_key(&self, target: &Target, protocol: u8) -> FlowKey {
        FlowKey::new(
            maps::load_ip(target.backend.address()),
            self.source,
            u16::from_be_bytes(target.backend.port()),
            u16::from_be_bytes(self.port),
            protocol,
        )
    }
}

/// The translation of a recorded flow, with the client's whereabouts brought up to date.
#[inline(always)]
pub fn known(
    pool: &NatPool,
    key: &FlowKey,
    known: &Known,
    arrival: &Arrival,
    scratch: &mut Scratch,
) -> Translation {
    let flow = known.record.get();
    let translation = Translation::of(pool, &known.target, &flow);
    let way = arrival.way();
    if flow.client_way() != way {
        known.record.set_client_way(way);
        scratch.reply_key = translation.reply_key(&known.target, key.protocol());
        maps::set_reply_next_hop(known.table, &scratch.reply_key, back(arrival));
    }
    translation
}

/// Whether replies to a recorded flow find their way: of two half-open records either may have been
/// evicted, and the port claimed by another client since.
#[inline(always)]
pub fn is_whole(pool: &NatPool, key: &FlowKey, known: &Known, scratch: &mut Scratch) -> bool {
    match known.table {
        Table::Established => true,
        Table::HalfOpen => {
            let translation = Translation::of(pool, &known.target, &known.record.get());
            scratch.reply_key = translation.reply_key(&known.target, key.protocol());
            maps::load_reply(Table::HalfOpen, &scratch.reply_key, &mut scratch.reply).is_some()
                && client_key(&scratch.reply, key.protocol()).is(key)
        }
    }
}

/// Moves both records of a flow to the established tables, if there is room in both; says where the
/// flow is then.
#[inline(always)]
pub fn establish(
    translation: &Translation,
    key: &FlowKey,
    known: &Known,
    scratch: &mut Scratch,
) -> Option<Known> {
    scratch.reply_key = translation.reply_key(&known.target, key.protocol());
    maps::load_reply(Table::HalfOpen, &scratch.reply_key, &mut scratch.reply)?;
    // It may have been driven from its port just now.
    if !client_key(&scratch.reply, key.protocol()).is(key) {
        return None;
    }
    if maps::claim_reply(Table::Established, &scratch.reply_key, &scratch.reply).is_none() {
        // No room, or another packet of the flow has done it.
        if !maps::has_reply(Table::Established, &scratch.reply_key) {
            maps::set_full();
        }
        return None;
    }
    let Some(established) = conntrack::establish(key, known, scratch.reply.next_hop.mac) else {
        maps::remove_reply(Table::Established, &scratch.reply_key);
        return None;
    };
    maps::remove_reply(Table::HalfOpen, &scratch.reply_key);
    Some(established)
}

/// Records a new flow; `begins` if it does. One that is met in its middle is unknown to the backend
/// too, whose RST tells the client so: it is recorded as over, for the way back.
///
/// # Errors
/// [`Verdict::DropNatNoSource`], [`Verdict::DropNatPortsExhausted`] or [`Verdict::DropFlowTableFull`].
#[inline(always)]
pub fn start(
    pool: &NatPool,
    key: &FlowKey,
    target: &Target,
    arrival: &Arrival,
    now: Tick,
    keep_alive: KeepAlive,
    begins: bool,
    scratch: &mut Scratch,
) -> Result<Translation, Verdict> {
    scratch.reply = Reply {
        client: key.source(),
        vip: key.destination(),
        client_port: key.source_port().to_be_bytes(),
        vip_port: key.destination_port().to_be_bytes(),
        backend: target.id.0,
        epoch: target.backend.epoch(),
        next_hop: back(arrival),
        client_end: 0,
        backend_end: 0,
    };
    let (translation, number) = claim(pool, key, target, scratch)?;
    let flow = conntrack::new_flow(target, now, keep_alive, 0);
    scratch.flow = flow.translated(number, translation.port, arrival.way());
    if !begins {
        scratch.flow.state = FlowState::Ended as u8;
    }
    maps::insert_flow(Table::HalfOpen, key, &scratch.flow).ok_or(Verdict::DropFlowTableFull)?;
    if begins {
        maps::note_opened(target);
    }
    // The flow that had the same ends and was closing; the sweep frees its port.
    maps::remove_flow(Table::Established, key);
    Ok(translation)
}

/// Finds a free port by trying: the reply table is the only book of what is taken.
#[inline(always)]
fn claim(
    pool: &NatPool,
    key: &FlowKey,
    target: &Target,
    scratch: &mut Scratch,
) -> Result<(Translation, u8), Verdict> {
    let v4 = target.backend.address().is_v4();
    let sources = pool.source_count(v4);
    if sources == 0 {
        return Err(Verdict::DropNatNoSource);
    }
    let unset = Translation {
        source: key.source(),
        port: [0; 2],
    };
    scratch.reply_key = unset.reply_key(target, key.protocol());
    for attempt in 0..ATTEMPTS + LAST_ATTEMPTS {
        // SAFETY: the helper has no preconditions.
        let random = unsafe { bpf_get_prandom_u32() };
        let number = reduce(random << 16, sources) as u8;
        let port = (pool.first_port() + reduce(random, pool.port_count())) as u16;
        let source = maps::load_ip(pool.source(v4, number));
        scratch.reply_key.set_destination(source, port);
        if take(attempt >= ATTEMPTS, key.protocol(), scratch).is_some() {
            return Ok((
                Translation {
                    source,
                    port: port.to_be_bytes(),
                },
                number,
            ));
        }
    }
    Err(Verdict::DropNatPortsExhausted)
}

/// Takes the port of the reply key under construction, if it is free, or if whoever has it has not
/// come further than a SYN and is to be driven away. A flow that lost its port gets another with its next packet,
/// see [`is_whole`].
#[inline(always)]
fn take(drive_away: bool, protocol: u8, scratch: &mut Scratch) -> Option<()> {
    let Scratch {
        reply_key,
        reply,
        other,
        ..
    } = scratch;
    if maps::has_reply(Table::Established, reply_key) {
        return None;
    }
    if maps::claim_reply(Table::HalfOpen, reply_key, reply).is_none() {
        if !drive_away {
            return None;
        }
        maps::load_reply(Table::HalfOpen, reply_key, other)?;
        let has_begun = maps::flow(Table::HalfOpen, &client_key(other, protocol));
        // Of those in this table none has sent data, unless there is no room in the other.
        if has_begun.is_some_and(|flow| flow.get().state == FlowState::Established as u8) {
            return None;
        }
        maps::replace_reply(Table::HalfOpen, reply_key, reply)?;
    }
    // Whoever had it may have sent data just now, which takes it from one table to the other, in
    // this order.
    if maps::has_reply(Table::Established, reply_key) {
        maps::remove_reply(Table::HalfOpen, reply_key);
        return None;
    }
    Some(())
}

/// Looks up what a backend's packet is translated to; says in which table that was.
///
/// A record moves from the second table to the first, inserted before it is removed: between the two
/// looks it can be missed, hence the third.
#[inline(always)]
pub fn load_reply(key: &FlowKey, reply: &mut Reply) -> Option<Table> {
    if maps::load_reply(Table::Established, key, reply).is_some() {
        Some(Table::Established)
    } else if maps::load_reply(Table::HalfOpen, key, reply).is_some() {
        Some(Table::HalfOpen)
    } else {
        maps::load_reply(Table::Established, key, reply)?;
        Some(Table::Established)
    }
}

/// The ends of a packet to the client.
#[inline(always)]
pub fn reply_ends(reply: &Reply) -> Ends {
    Ends {
        source: reply.vip,
        destination: reply.client,
        source_port: reply.vip_port,
        destination_port: reply.client_port,
    }
}

/// The client's side of the flow that a reply belongs to.
#[inline(always)]
pub fn client_key(reply: &Reply, protocol: u8) -> FlowKey {
    FlowKey::new(
        reply.client,
        reply.vip,
        u16::from_be_bytes(reply.client_port),
        u16::from_be_bytes(reply.vip_port),
        protocol,
    )
}

/// Forgets a half-open flow that its backend refused, so that its port is free at once.
#[inline(always)]
pub fn refused(table: Table, client: &FlowKey, reply_key: &FlowKey) {
    if matches!(table, Table::HalfOpen) {
        maps::remove_flow(table, client);
        maps::remove_reply(table, reply_key);
    }
}

/// Whether a client's packet shows that its flow goes on.
#[inline(always)]
pub fn revives(
    packet: &Packet<'_>,
    known: &Known,
    translation: &Translation,
    scratch: &mut Scratch,
) -> bool {
    let signal = packet.signal();
    let state = known.record.get().state;
    if state == FlowState::Ended as u8 && matches!(known.table, Table::HalfOpen) {
        // It was over when it was met.
        return false;
    }
    let closes = state == FlowState::Closing as u8 || state == FlowState::Ended as u8;
    if !(signal.data && closes) {
        return signal.data;
    }
    let Some(numbers) = packet.numbers() else {
        return false;
    };
    scratch.reply_key = translation.reply_key(&known.target, packet.flow.protocol());
    let end = maps::client_end(known.table, &scratch.reply_key);
    !conntrack::is_late(end, &numbers)
}

/// Follows a client's packet through the end of its connection; forgets the flow with the last one,
/// which frees its port.
///
/// Who closes first remembers the connection for a while (RFC 9293, 3.6). If that is the client, the
/// backend forgets it with this acknowledgement of its FIN, so the next connection with the same
/// ends cannot meet the old one there. If it is the backend, the port is kept until it has
/// forgotten too.
#[inline(always)]
pub fn follow_end(
    packet: &Packet<'_>,
    known: &Known,
    translation: &Translation,
    scratch: &mut Scratch,
) -> Option<()> {
    let signal = packet.signal();
    let state = known.record.get().state;
    let closes = state == FlowState::Closing as u8 || state == FlowState::Ended as u8;
    // A segment of a flow that is not closing ends nothing.
    if signal.starts || signal.rst || !closes {
        return None;
    }
    scratch.reply_key = translation.reply_key(&known.target, packet.flow.protocol());
    let numbers = packet.numbers()?;
    if signal.fin {
        maps::note_client_end(known.table, &scratch.reply_key, numbers.end);
    }
    if maps::is_last(known.table, &scratch.reply_key, numbers.acknowledged) {
        maps::remove_flow(known.table, &packet.flow);
        maps::remove_reply(known.table, &scratch.reply_key);
    }
    Some(())
}

/// Follows a backend's packet through the end of its connection.
#[inline(always)]
pub fn follow_reply_end(packet: &Packet<'_>, table: Table) -> Option<()> {
    if packet.signal().fin {
        let numbers = packet.numbers()?;
        maps::note_backend_end(table, &packet.flow, numbers.acknowledged, numbers.end);
    }
    Some(())
}

/// Replies go back the way the client's packets came.
#[inline(always)]
fn back(arrival: &Arrival) -> NextHop {
    NextHop {
        interface: arrival.interface,
        mac: arrival.source,
        source_mac: arrival.destination,
    }
}
