//! Tracked flows: which backend a flow was given, and whether the flow still lives.
//!
//! A flow starts in an LRU table of half-open flows, so that a flood of SYNs evicts only other
//! SYNs. Its first packet that is not a SYN moves it to a table that never evicts; the daemon's
//! sweep empties that one. If there is no room the flow stays where it is, and is counted.

use lb_common::{
    abi::{BackendId, Flow, FlowKey, FlowState, KeepAlive, PROTOCOL_TCP, Service, Tick},
    parse::{TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN},
    verdict::Verdict,
};

use crate::{
    maps::{self, FlowRef, Table},
    select::{self, Target},
};

/// What a packet says about its flow.
#[derive(Clone, Copy)]
pub struct Signal {
    pub starts: bool,
    pub fin: bool,
    pub rst: bool,
    tcp: bool,
}

impl Signal {
    #[inline(always)]
    pub fn new(protocol: u8, tcp_flags: u8) -> Self {
        Self {
            starts: tcp_flags & (TCP_SYN | TCP_ACK) == TCP_SYN,
            fin: tcp_flags & TCP_FIN != 0,
            rst: tcp_flags & TCP_RST != 0,
            tcp: protocol == PROTOCOL_TCP,
        }
    }

    /// The state of a flow after such a packet.
    #[inline(always)]
    fn next(self, state: u8) -> u8 {
        let closing = state == FlowState::Closing as u8;
        if self.rst {
            FlowState::Reset as u8
        } else if self.fin || closing {
            FlowState::Closing as u8
        } else {
            FlowState::Established as u8
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
/// A SYN on a flow that was closing starts a new one, so it finds nothing.
#[inline(always)]
pub fn find(service: &Service, key: &FlowKey, signal: Signal) -> Option<Known> {
    let (table, record) = locate(key, signal)?;
    let flow = record.get();
    if signal.starts && flow.state >= FlowState::Closing as u8 {
        return None;
    }
    let target = Target::find(BackendId(flow.backend))?;
    let same = target.backend.epoch() == flow.epoch && target.backend.service() == service.id();
    same.then_some(Known {
        table,
        record,
        target,
    })
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
/// table.
#[inline(always)]
pub fn touch(known: &Known, signal: Signal, now: Tick) -> bool {
    let state = known.record.get().state;
    if signal.starts {
        known.record.touch(now, state);
        return false;
    }
    let next = signal.next(state);
    known.record.touch(now, next);
    maps::count_end(known.target.id, state, next);
    maps::note_change(&known.target, state, next);
    matches!(known.table, Table::HalfOpen)
}

/// The record of a new flow.
#[inline(always)]
pub fn new_flow(target: &Target, now: Tick, keep_alive: KeepAlive) -> Flow {
    Flow {
        backend: target.id.0,
        epoch: target.backend.epoch(),
        seen: now.0,
        nat_port: [0; 2],
        nat_source: 0,
        state: FlowState::HalfOpen as u8,
        client_way: 0,
        keep_alive,
    }
}

/// Moves a flow to the established table, if there is room.
#[inline(always)]
pub fn establish(key: &FlowKey, known: &Known) -> Option<()> {
    let flow = known.record.get();
    let inserted = maps::insert_flow(Table::Established, key, &flow);
    if inserted.is_none() {
        maps::set_full();
        return None;
    }
    maps::remove_flow(Table::HalfOpen, key);
    Some(())
}

/// Records a flow that began before there was need to.
///
/// Not one that a RST belongs to: it is over, and a flood of forged ones would fill the table.
#[inline(always)]
pub fn learn(key: &FlowKey, target: &Target, signal: Signal, now: Tick) -> Option<()> {
    if signal.rst {
        return Some(());
    }
    let mut flow = new_flow(target, now, KeepAlive::NONE);
    flow.state = signal.next(FlowState::Established as u8);
    if maps::add_flow(key, &flow).is_some() {
        return note_learned(target, &flow);
    }
    match maps::flow(Table::Established, key) {
        // Recorded meanwhile, or for a backend that is no more.
        Some(record) if holder(&record.get()).is_some() => Some(()),
        Some(_) => {
            maps::insert_flow(Table::Established, key, &flow)?;
            note_learned(target, &flow)
        }
        None => {
            maps::set_full();
            None
        }
    }
}

#[inline(always)]
fn note_learned(target: &Target, flow: &Flow) -> Option<()> {
    if flow.state < FlowState::Closing as u8 {
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

/// Notes that a flow is going to be forgotten before it has ended.
#[inline(always)]
pub fn note_forgotten(table: Table, key: &FlowKey) {
    let Some(record) = maps::flow(table, key) else {
        return;
    };
    let flow = record.get();
    if let Some(target) = holder(&flow) {
        maps::note_change(&target, flow.state, FlowState::Reset as u8);
    }
}

/// Forgets a flow that has started anew and needs no record.
#[inline(always)]
pub fn forget(key: &FlowKey) {
    maps::remove_flow(Table::Established, key);
    maps::remove_flow(Table::HalfOpen, key);
}

/// Notes a FIN or RST that a backend sent.
#[inline(always)]
pub fn backend_closed(key: &FlowKey, signal: Signal, now: Tick) {
    if !(signal.tcp && (signal.fin || signal.rst)) {
        return;
    }
    if let Some(record) = maps::flow(Table::Established, key) {
        let flow = record.get();
        let next = signal.next(flow.state);
        record.touch(now, next);
        maps::count_end(BackendId(flow.backend), flow.state, next);
        if let Some(target) = holder(&flow) {
            maps::note_change(&target, flow.state, next);
        }
    }
}
