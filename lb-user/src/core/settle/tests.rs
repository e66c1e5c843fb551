//! Histories of one service, with a model of what the program does to its packets.

use std::collections::{BTreeMap, BTreeSet};

use lb_common::abi::{BackendId, Tick};
use proptest::prelude::*;

use super::{SlotSet, settle_slots};
use crate::core::slots::{Slots, State, Terms, change};

const SLOTS: u32 = 12;
const BACKENDS: u16 = 5;
/// The longest silence of a live flow, in ticks.
const WINDOW: u32 = 4;
/// Records there is room for.
const ROOM: usize = 40;

#[derive(Clone, Debug)]
enum Event {
    /// Slots are wanted for others: the n-th for the n-th of these, over and over.
    Want(Vec<u16>),
    /// A backend's sessions are gone, whoever wants it.
    Die(u16),
    /// A backend is taken out if it is drained, as one that a reload has left out.
    Dismiss(u16),
    Open(u32),
    Close(usize),
    /// A client that has closed connects again, from the same port.
    Return(usize),
    /// A tick passes; flows send whose turn it is.
    Wait,
    Sweep,
    /// Packets of flows that are none, one a slot.
    Forge(u8),
}

#[derive(Clone, Copy, Debug)]
struct Flow {
    slot: u32,
    backend: BackendId,
    sent: u32,
}

/// What is recorded of a flow.
#[derive(Clone, Copy, Debug)]
struct Record {
    slot: u32,
    backend: BackendId,
    /// The time of the last packet.
    seen: u32,
    /// Whether it has not been seen to close.
    live: bool,
}

/// What the last walk has found.
#[derive(Default)]
struct Walk {
    /// What it went by: the table, and how many had been wanted before.
    slots: Slots,
    changes: u32,
    emptied: BTreeSet<BackendId>,
    /// Whose sessions it met.
    live: BTreeSet<BackendId>,
}

/// The service with its flows. Backends get a new id at each return.
#[derive(Default)]
struct Sim {
    now: u32,
    slots: Slots,
    alive: BTreeMap<u16, BackendId>,
    next_id: u16,
    flows: BTreeMap<usize, Flow>,
    next_flow: usize,
    records: BTreeMap<usize, Record>,
    full: bool,
    /// The slots of flows that have closed.
    closed: BTreeMap<usize, u32>,
    /// Backends that nobody is taken back to.
    emptied: BTreeSet<BackendId>,
    walk: Walk,
    /// How many tables have been wanted.
    changes: u32,
}

impl Sim {
    fn id(&mut self, backend: u16) -> BackendId {
        let next_id = &mut self.next_id;
        *self.alive.entry(backend).or_insert_with(|| {
            *next_id += 1;
            BackendId(*next_id)
        })
    }

    fn is_alive(&self, id: BackendId) -> bool {
        self.alive.values().any(|alive| *alive == id)
    }

    fn want(&mut self, wanted: &[BackendId]) {
        let alive: BTreeSet<BackendId> = self.alive.values().copied().collect();
        let terms = Terms {
            is_alive: |id| alive.contains(&id),
            until: Tick(self.now + WINDOW + 1),
            has_room: !self.full,
        };
        self.slots = change((&self.slots.owners, &self.slots.holds), wanted, &terms);
        self.emptied.retain(|id| !wanted.contains(id));
        self.changes += 1;
    }

    /// As the program does it: the backend of a packet.
    fn packet(&mut self, number: usize, slot: u32, starts: bool) -> Option<BackendId> {
        let owner = *self.slots.owners.get(slot as usize)?;
        let state = self.slots.holds.get(slot);
        if state == State::Safe {
            return Some(owner);
        }
        let recorded = |backend| Record {
            slot,
            backend,
            seen: self.now,
            live: true,
        };
        let known = self.records.get(&number).copied();
        let is_over =
            |known: &Record| starts && !known.live && self.emptied.contains(&known.backend);
        if let Some(known) = known.filter(|known| self.is_alive(known.backend) && !is_over(known)) {
            self.records.insert(number, recorded(known.backend));
            return Some(known.backend);
        }
        let (backend, record) = match state {
            State::Safe | State::Mixed => (owner, false),
            State::AtRisk { previous, .. } if starts && self.full => (previous, false),
            State::AtRisk { .. } if starts => (owner, true),
            State::AtRisk { previous, .. } => (previous, true),
        };
        if record {
            if self.records.len() < ROOM || starts {
                self.records.insert(number, recorded(backend));
            } else {
                self.full = true;
            }
        } else if starts {
            self.records.remove(&number);
        }
        Some(backend)
    }

    fn open(&mut self, slot: u32) {
        self.next_flow += 1;
        self.connect(self.next_flow - 1, slot);
    }

    fn close(&mut self, number: usize) {
        let Some(flow) = self.flows.remove(&number) else {
            return;
        };
        self.closed.insert(number, flow.slot);
        if self.packet(number, flow.slot, false).is_some()
            && let Some(record) = self.records.get_mut(&number)
        {
            record.live = false;
        }
    }

    fn connect(&mut self, number: usize, slot: u32) {
        let backend = self.packet(number, slot, true);
        if let Some(backend) = backend.filter(|id| self.is_alive(*id)) {
            let sent = self.now;
            self.flows.insert(
                number,
                Flow {
                    slot,
                    backend,
                    sent,
                },
            );
        }
    }

    fn wait(&mut self) {
        self.now += 1;
        let due: Vec<(usize, Flow)> = self
            .flows
            .iter()
            .filter(|(number, flow)| self.now - flow.sent > (**number as u32) % WINDOW)
            .map(|(number, flow)| (*number, *flow))
            .collect();
        for (number, flow) in due {
            if !self.is_alive(flow.backend) {
                self.flows.remove(&number);
                continue;
            }
            let got = self.packet(number, flow.slot, false);
            assert_eq!(got, Some(flow.backend), "{flow:?} was sent elsewhere");
            let sent = self.now;
            self.flows.insert(number, Flow { sent, ..flow });
        }
    }

    fn sweep(&mut self) {
        let (owners, holds) = (&self.slots.owners, &self.slots.holds);
        let alive: BTreeSet<BackendId> = self.alive.values().copied().collect();
        let now = self.now;
        self.walk = Walk {
            slots: self.slots.clone(),
            changes: self.changes,
            emptied: self.emptied.clone(),
            live: BTreeSet::new(),
        };
        self.records.retain(|_, record| {
            let is_equal = owners.get(record.slot as usize) == Some(&record.backend);
            let may_go = match holds.get(record.slot) {
                State::Safe | State::Mixed => is_equal,
                State::AtRisk { .. } => false,
            };
            !may_go && alive.contains(&record.backend) && now - record.seen <= WINDOW
        });
        let live = self.records.values().filter(|record| record.live);
        self.walk.live = live.map(|record| record.backend).collect();
        let all: Vec<BackendId> = self.alive.values().copied().collect();
        for id in all {
            if self.has_all(id) && !self.walk.live.contains(&id) {
                self.emptied.insert(id);
            }
        }
        let holds = &self.slots.holds;
        if self.full {
            self.full = self.records.len() > ROOM / 2;
            if !self.full {
                self.slots.holds = holds.beginning(Tick(now + WINDOW + 1));
            }
        }
        let holds = &self.slots.holds;
        let mut strays = SlotSet::default();
        for record in self.records.values() {
            strays.insert(record.slot);
        }
        let full = self.full;
        let has_learned = |until: Tick| !full && now >= until.0;
        self.slots.holds = settle_slots(holds, has_learned, Some(&strays));
    }

    /// Whether the last walk has found all sessions of a backend that gets no more.
    fn has_all(&self, id: BackendId) -> bool {
        let gets_more = self.slots.owners.contains(&id);
        let is_at_risk = self.slots.holds.has_previous(id);
        let is_current = (self.walk.changes, &self.walk.slots) == (self.changes, &self.slots);
        is_current && !(gets_more || is_at_risk || self.full)
    }

    /// Whether no session of a backend is left, as far as is known after a walk.
    fn is_drained(&self, id: BackendId) -> bool {
        let was_emptied = self.walk.emptied.contains(&id);
        self.has_all(id) && was_emptied && !self.walk.live.contains(&id)
    }

    fn dismiss(&mut self, backend: u16) {
        let Some(&id) = self.alive.get(&backend) else {
            return;
        };
        if !self.is_drained(id) {
            return;
        }
        // One that is silent for longer than any may be is over, and does not know yet.
        let now = self.now;
        let left = |flow: &&Flow| flow.backend == id && now - flow.sent <= WINDOW;
        assert_eq!(self.flows.values().find(left).map(|f| f.slot), None);
        self.alive.remove(&backend);
    }

    fn handle(&mut self, event: &Event) {
        match event {
            Event::Want(members) => {
                let ids: Vec<BackendId> = members.iter().map(|n| self.id(*n)).collect();
                let wanted: Vec<BackendId> =
                    ids.iter().cycle().take(SLOTS as usize).copied().collect();
                self.want(&wanted);
            }
            Event::Die(backend) => {
                let Some(id) = self.alive.remove(backend) else {
                    return;
                };
                let mut others = self.alive.values().copied();
                let heir = others.next().unwrap_or(BackendId::NONE);
                let owners = self.slots.owners.clone();
                let replace = |owner| if owner == id { heir } else { owner };
                self.want(&owners.into_iter().map(replace).collect::<Vec<_>>());
            }
            Event::Dismiss(backend) => self.dismiss(*backend),
            Event::Open(slot) => self.open(*slot),
            Event::Close(at) => {
                if let Some(&number) = self.flows.keys().nth(*at) {
                    self.close(number);
                }
            }
            Event::Return(at) => {
                if let Some((&number, &slot)) = self.closed.iter().nth(*at) {
                    self.closed.remove(&number);
                    self.connect(number, slot);
                }
            }
            Event::Wait => self.wait(),
            Event::Sweep => self.sweep(),
            Event::Forge(count) => {
                for _packet in 0..*count {
                    self.next_flow += 1;
                    let slot = self.next_flow as u32 % SLOTS;
                    self.packet(self.next_flow, slot, false);
                    self.next_flow += 1;
                }
            }
        }
    }
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => prop::collection::vec(0..BACKENDS, 0..4).prop_map(Event::Want),
        1 => (0..BACKENDS).prop_map(Event::Die),
        3 => (0..BACKENDS).prop_map(Event::Dismiss),
        6 => (0..SLOTS).prop_map(Event::Open),
        2 => (0_usize..20).prop_map(Event::Close),
        2 => (0_usize..20).prop_map(Event::Return),
        8 => Just(Event::Wait),
        6 => Just(Event::Sweep),
        1 => (1_u8..30).prop_map(Event::Forge),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn no_flow_changes_its_backend_while_that_lives(
        events in prop::collection::vec(event(), 1..150),
    ) {
        let mut sim = Sim::default();
        for event in &events {
            sim.handle(event);
        }
        for _tick in 0..4 * WINDOW {
            sim.handle(&Event::Wait);
            sim.handle(&Event::Sweep);
        }
        let at_risk = sim.slots.holds.count().1;
        // Without room they wait for it.
        prop_assert!(sim.full || at_risk == 0, "{} at risk", at_risk);
        sim.flows.clear();
        for _tick in 0..4 * WINDOW {
            sim.handle(&Event::Wait);
            sim.handle(&Event::Sweep);
        }
        prop_assert!(sim.slots.holds.is_empty() && sim.records.is_empty());
    }
}
