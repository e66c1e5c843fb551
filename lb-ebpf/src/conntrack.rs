//! Tracked flows: which backend a flow was given, and whether the flow still lives.
//!
//! A flow starts in an LRU table of half-open flows, so that a flood of SYNs evicts only other
//! SYNs. Its first data moves it to a table that never evicts; the daemon's sweep empties that one.
//! If there is no room the flow stays where it is, and is counted.
//!
//! Whoever knows the ends of a flow can forge its packets, and no sequence number is followed here.
//! So nothing that a client's packet says moves a flow that is recorded: a SYN keeps the record of a
//! flow that seems to be over, data makes it live again, and a half-open record is of no use to
//! packets whose numbers do not follow its SYN.

use lb_common::{
    abi::{BackendId, Flow, FlowKey, FlowState, KeepAlive, PROTOCOL_TCP, Service, Tick},
    parse::{TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN},
    verdict::Verdict,
};

use crate::{
    job::{Numbers, Packet},
    maps::{self, FlowRef, Table},
    select::{self, Target},
};

/// How far behind its SYN a client can be before its flow is more than half open, in bytes: it has
/// sent no data that passed here, and a window without scaling is what it may have sent.
const FIRST_WINDOW: u32 = 1 << 16;
/// Data that ends so little before a FIN was sent before it, and came late. In bytes: less than
/// one in 4,096 forged FINs lies so that a session's next data is taken for that.
const LATE: u32 = 1 << 20;

/// Where the packets of a flow that is not translated come from is of no interest.
pub const UNTRANSLATED: [u8; 6] = [0; 6];

/// What a packet says about its flow.
#[derive(Clone, Copy)]
pub struct Signal {
    /// A SYN, and nothing else. A SYN that is a RST or a FIN as well starts nothing (RFC 9293,
    /// 3.10.7.2).
    pub starts: bool,
    pub fin: bool,
    pub rst: bool,
    /// Has a payload; each packet of UDP counts as having one.
    pub data: bool,
    tcp: bool,
}

impl Signal {
    /// Of a packet that only belongs to its flow.
    pub const MIDDLE: Self = Self {
        starts: false,
        fin: false,
        rst: false,
        data: false,
        tcp: true,
    };

    #[inline(always)]
    pub fn new(protocol: u8, tcp_flags: u8, has_payload: bool) -> Self {
        let tcp = protocol == PROTOCOL_TCP;
        Self {
            starts: tcp_flags & (TCP_SYN | TCP_ACK | TCP_RST | TCP_FIN) == TCP_SYN,
            fin: tcp_flags & TCP_FIN != 0,
            rst: tcp_flags & TCP_RST != 0,
            data: has_payload || !tcp,
            tcp,
        }
    }

    /// The state of a flow after such a packet of its client; `revives` if its data is new.
    #[inline(always)]
    fn next(self, state: u8, revives: bool) -> u8 {
        let ended = state == FlowState::Ended as u8;
        if ended && !revives || ended && (self.rst || self.fin) {
            state
        } else if self.rst {
            FlowState::Reset as u8
        } else if self.fin {
            FlowState::Closing as u8
        } else if FlowState::is_live(state) || revives {
            FlowState::Established as u8
        } else {
            state
        }
    }
}

/// A recorded flow and its backend.
#[derive(Clone, Copy)]
pub struct Known {
    pub table: Table,
    pub record: FlowRef,
    pub target: Target,
}

/// Finds the record of a flow whose backend still takes packets.
///
/// A SYN on a flow that is over starts a new one, so it finds nothing, if its backend has said so, or
/// takes no new flows and has no session left or was not sent anything of this one for a while. Else
/// it finds the record: the old connection, should there be one, is that backend's to judge, as
/// without a balancer (RFC 9293, 3.6.1).
#[inline(always)]
pub fn find(service: &Service, key: &FlowKey, signal: Signal) -> Option<Known> {
    let (table, record) = locate(key, signal)?;
    let flow = record.get();
    let target = Target::find(BackendId(flow.backend))?;
    let same = target.backend.epoch() == flow.epoch && target.backend.service() == service.id();
    (same && !(signal.starts && is_over(&flow, &target))).then_some(Known {
        table,
        record,
        target,
    })
}

/// Whether a SYN may start its flow anew at another backend.
#[inline(always)]
fn is_over(flow: &Flow, target: &Target) -> bool {
    if FlowState::is_live(flow.state) {
        return false;
    }
    let takes_new = target.backend.weight() != 0 && select::has_room(target);
    let is_silent = || maps::now().since(Tick(flow.seen)) > FlowState::DOUBTFUL;
    let ended = flow.state == FlowState::Ended as u8;
    ended || !takes_new && (target.backend.is_emptied() || is_silent())
}

/// Whether a record is of use to a packet: a half-open one only if the packet's number follows its
/// SYN's. Else a forged SYN would move a session that has no record.
///
/// For flows that are not translated.
#[inline(always)]
pub fn is_of(known: &Known, packet: &Packet<'_>, signal: Signal) -> bool {
    let flow = known.record.get();
    if flow.state != FlowState::HalfOpen as u8 || signal.starts || !signal.tcp {
        return true;
    }
    let numbers = packet.numbers();
    numbers.is_some_and(|now| now.sequence.wrapping_sub(flow.sequence()) <= FIRST_WINDOW)
}

/// The backend of a flow that something is sent after: a packet of the flow goes there too, if it
/// starts none. Nothing is recorded.
#[inline(always)]
pub fn target_of(service: &Service, key: &FlowKey, signal: Signal) -> Result<Target, Verdict> {
    // As on the short way: in a safe slot nobody looks for records.
    let is_safe = !service.is_tracked() && select::slot(service, key)?.is_safe();
    if !is_safe && let Some(known) = find(service, key, signal) {
        return Ok(known.target);
    }
    select::unrecorded(service, key)
}

/// A flow moves from the second table to the first, inserted before it is removed: between the two
/// looks it can be missed, hence the third. What would be missed by a SYN is another SYN's.
#[inline(always)]
fn locate(key: &FlowKey, signal: Signal) -> Option<(Table, FlowRef)> {
    if let Some(record) = maps::flow(Table::Established, key) {
        return Some((Table::Established, record));
    }
    if let Some(record) = maps::flow(Table::HalfOpen, key) {
        return Some((Table::HalfOpen, record));
    }
    if signal.starts {
        return None;
    }
    maps::flow(Table::Established, key).map(|record| (Table::Established, record))
}

/// Notes a packet of a recorded flow, and says whether the flow should move to the established
/// table. `revives` if the packet shows that the flow goes on.
#[inline(always)]
pub fn touch(known: &Known, signal: Signal, revives: bool, now: Tick) -> bool {
    let state = known.record.get().state;
    if signal.starts {
        known.record.touch(now, state);
        return false;
    }
    let next = signal.next(state, revives);
    known.record.touch(now, next);
    let reset = next == FlowState::Reset as u8;
    maps::count_end(known.target.id, state, next, reset);
    maps::note_change(&known.target, state, next);
    signal.data && FlowState::is_live(next) && matches!(known.table, Table::HalfOpen)
}

/// Keeps the numbers of a flow that is not translated, and says whether a packet revives it.
#[inline(always)]
pub fn follow(known: &Known, packet: &Packet<'_>, signal: Signal) -> bool {
    let flow = known.record.get();
    let begins = signal.starts && flow.state != FlowState::Established as u8;
    let is_live = FlowState::is_live(flow.state);
    if is_live && !begins && !signal.fin || !signal.tcp {
        return signal.data;
    }
    let Some(numbers) = packet.numbers() else {
        return false;
    };
    if begins {
        known.record.set_sequence(numbers.sequence);
    }
    if signal.fin {
        known.record.set_sequence(numbers.end);
    }
    // What comes right behind a SYN is of the connection that it began, data or not.
    let is_next = numbers.sequence == flow.sequence().wrapping_add(1);
    let closing = flow.state == FlowState::Closing as u8;
    is_next || signal.data && !(closing && is_late(flow.sequence(), &numbers))
}

/// Whether data was sent before the FIN that ends at `fin`, and came after it.
#[inline(always)]
pub fn is_late(fin: u32, numbers: &Numbers) -> bool {
    fin.wrapping_sub(numbers.end) < LATE
}

/// The record of a new flow that is not translated; `sequence` is its SYN's.
#[inline(always)]
pub fn new_flow(target: &Target, now: Tick, keep_alive: KeepAlive, sequence: u32) -> Flow {
    Flow {
        backend: target.id.0,
        epoch: target.backend.epoch(),
        seen: now.0,
        middle: sequence.to_ne_bytes(),
        nat_source: Flow::UNTRANSLATED,
        state: FlowState::HalfOpen as u8,
        keep_alive,
    }
}

/// Moves a flow to the established table, if there is room; says where it is then. `client` is where
/// a translated one's packets come from.
#[inline(always)]
pub fn establish(key: &FlowKey, known: &Known, client: [u8; 6]) -> Option<Known> {
    let flow = known.record.get();
    let inserted = maps::insert_flow(Table::Established, key, &flow);
    if inserted.is_none() {
        maps::set_full();
        return None;
    }
    let record = maps::flow(Table::Established, key)?;
    maps::report(key, client);
    maps::remove_flow(Table::HalfOpen, key);
    Some(Known {
        table: Table::Established,
        record,
        target: known.target,
    })
}

/// Records a flow that began before there was need to.
///
/// Not one that a RST belongs to: it is over, and a flood of forged ones would fill the table.
#[inline(always)]
pub fn learn(packet: &Packet<'_>, target: &Target, signal: Signal, now: Tick) -> Option<()> {
    if signal.rst {
        return Some(());
    }
    let key = &packet.flow;
    let end = if signal.fin { packet.numbers()?.end } else { 0 };
    let mut flow = new_flow(target, now, KeepAlive::NONE, end);
    flow.state = signal.next(FlowState::Established as u8, false);
    if maps::add_flow(key, &flow).is_some() {
        return note_learned(key, target, &flow);
    }
    match maps::flow(Table::Established, key) {
        // Recorded meanwhile, or for a backend that is no more.
        Some(record) if holder(&record.get()).is_some() => Some(()),
        Some(_) => {
            maps::insert_flow(Table::Established, key, &flow)?;
            note_learned(key, target, &flow)
        }
        None => {
            maps::set_full();
            None
        }
    }
}

#[inline(always)]
fn note_learned(key: &FlowKey, target: &Target, flow: &Flow) -> Option<()> {
    maps::report(key, UNTRANSLATED);
    if FlowState::is_live(flow.state) {
        maps::note_opened(target);
    }
    Some(())
}

/// A record's backend, if it still takes packets.
#[inline(always)]
fn holder(flow: &Flow) -> Option<Target> {
    let target = Target::find(BackendId(flow.backend))?;
    (target.backend.epoch() == flow.epoch).then_some(target)
}

/// Forgets a flow that has started anew and needs no record.
#[inline(always)]
pub fn forget(key: &FlowKey) {
    maps::remove_flow(Table::Established, key);
    maps::remove_flow(Table::HalfOpen, key);
}

/// Notes a FIN or RST that a backend sent.
#[inline(always)]
pub fn backend_closed(table: Table, key: &FlowKey, signal: Signal, now: Tick) {
    if !(signal.fin || signal.rst) {
        return;
    }
    if let Some(record) = maps::flow(table, key) {
        let flow = record.get();
        let next = FlowState::Ended as u8;
        record.touch(now, next);
        maps::count_end(BackendId(flow.backend), flow.state, next, signal.rst);
        if let Some(target) = holder(&flow) {
            maps::note_change(&target, flow.state, next);
        }
    }
}
