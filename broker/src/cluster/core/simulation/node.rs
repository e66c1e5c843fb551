//! One simulated node: what its driver, its shards and its clients' sessions would have.

use super::{groups, keeping::Keeping, users::Parcel, *};

/// By sender and its run: the numbers of what was delivered.
pub(super) type Delivered = BTreeMap<(usize, u64), BTreeSet<u64>>;

pub(super) struct Node {
    pub(super) core: Core,
    pub(super) table: Table,
    pub(super) run: u64,
    /// Its retained messages outlive it.
    pub(super) has_disk: bool,
    pub(super) frozen_until: Duration,
    /// Until when each of the two shards takes nothing.
    pub(super) hung_until: [Duration; 2],
    /// What the driver would have in the tree of routes.
    pub(super) routes: BTreeMap<u16, BTreeSet<Box<str>>>,
    /// Frames of this run, by number.
    pub(super) sent: Vec<Sent>,
    /// How often each other node was lost.
    pub(super) losses: BTreeMap<usize, u64>,
    /// What peers have passed on and shards have not taken, by slot, whoever has it now.
    slots: BTreeMap<u16, VecDeque<Given>>,
    /// What they weigh.
    pub(super) held: BTreeMap<u16, usize>,
    /// Who was to take an item, and hung.
    postponed: Vec<(u16, u64)>,
    /// What this run's subscribers were given.
    pub(super) delivered: Delivered,
    /// The last of each sender's run, as long as that held this node for alive, for each shard.
    last: BTreeMap<(usize, u64, u64, u64), u64>,
    pub(super) retained: Keeping,
    /// In which life of this node's each sender's run has told of its sessions last.
    told: BTreeMap<(usize, u64), u64>,
    /// In which of them what was told has become sessions here: there is no copy any more.
    pub(super) void: BTreeMap<(usize, u64), u64>,
    /// Frames that were confirmed as gone, until the loss is told.
    pub(super) gone: Vec<u64>,
    /// With which version each of the filters was added.
    pub(super) added: BTreeMap<Box<str>, u64>,
    /// The version that others know.
    pub(super) known: u64,
    pub(super) group: groups::Group,
}

pub(super) struct Sent {
    pub(super) to: usize,
    pub(super) to_run: u64,
    pub(super) lost_before: u64,
    /// It was said that it is, which is not said of all.
    pub(super) is_taken: bool,
    pub(super) outcome: Option<Outcome>,
    /// If it has a message for the group.
    pub(super) passed: Option<groups::Passed>,
}

/// An item of a peer.
struct Given {
    epoch: u64,
    number: u64,
    /// `None` when nobody waits for it.
    parcel: Option<Parcel>,
    weight: usize,
    is_taken: bool,
}

impl Given {
    fn shard(&self) -> u64 {
        self.parcel.as_ref().map_or(0, Parcel::shard)
    }
}

impl Node {
    pub(super) fn new(number: usize, run: u64, retained: Keeping, now: Instant) -> Self {
        let me = Me {
            cluster: "c".into(),
            node: name(number),
            // Each time that it leaves it is another one.
            incarnation: RUN * run,
            port: 7883,
        };
        let seeds = [address(0), address(1)];
        // Of two that differ the longer one counts, so one that is short makes no difference.
        let lease = if number == 1 { LEASE / 4 } else { LEASE };
        let mut core = Core::new(me, Acknowledge::Replicated, lease, &seeds, now);
        if retained.is_empty() {
            core.want_retained();
        }
        Self {
            core,
            table: Table::default(),
            run,
            has_disk: false,
            frozen_until: Duration::ZERO,
            hung_until: [Duration::ZERO; 2],
            routes: BTreeMap::new(),
            sent: Vec::new(),
            losses: BTreeMap::new(),
            slots: BTreeMap::new(),
            held: BTreeMap::new(),
            postponed: Vec::new(),
            delivered: BTreeMap::new(),
            last: BTreeMap::new(),
            retained,
            told: BTreeMap::new(),
            void: BTreeMap::new(),
            gone: Vec::new(),
            added: BTreeMap::new(),
            known: 0,
            group: groups::Group::default(),
        }
    }

    /// The node after it has died and started again.
    pub(super) fn next_run(&mut self, number: usize, now: Instant) -> Self {
        let retained = self.retained.restart(self.has_disk);
        let next = Self::new(number, self.run + 1, retained, now);
        Self {
            has_disk: self.has_disk,
            ..next
        }
    }

    /// Takes in one message of a peer.
    fn have(&mut self, parcel: &Parcel) {
        let Parcel {
            from,
            run,
            period,
            sequence,
            ..
        } = *parcel;
        let had = self.delivered.entry((from, run)).or_default();
        assert!(had.insert(sequence), "twice");
        let last = self.last.entry((from, run, period, parcel.shard()));
        let last = last.or_default();
        assert!(*last <= sequence, "out of order");
        *last = sequence;
    }
}

impl World {
    /// Does what the core wants done.
    pub(super) fn settle(&mut self, node: usize) {
        let now = self.start + self.now;
        loop {
            let Node { core, table, .. } = &mut self.nodes[node];
            core.pump(table, now);
            let mut is_idle = true;
            while let Some(action) = self.nodes[node].core.poll_action() {
                is_idle = false;
                self.perform(node, action);
            }
            if is_idle {
                break;
            }
        }
        self.check_settled(node);
    }

    fn perform(&mut self, node: usize, action: Action) {
        let state = &mut self.nodes[node];
        match action {
            Action::Call(address) => self.call(node, address),
            Action::Send(LinkId(link), bytes) => self.send(link, bytes),
            Action::Close(LinkId(link)) => self.hang_up(link),
            Action::Deliver {
                slot,
                epoch,
                number,
                messages,
            } => {
                let weight = messages.len();
                let parcel = Parcel::read(&messages);
                state.told.insert((parcel.from, parcel.run), parcel.life);
                if let Some(stamp) = parcel.retained() {
                    state.retained.hear(stamp, self.now);
                }
                self.give(node, slot, (epoch, number), Some(parcel), weight);
            }
            Action::Keep {
                slot,
                epoch,
                number,
                messages,
            } => {
                if state.retained.keep_page(&messages, self.now) {
                    state.core.handle_news(slot);
                }
                self.give(node, slot, (epoch, number), None, messages.len());
            }
            Action::ReadRetained {
                slot,
                buckets,
                after,
            } => {
                let after = after.as_deref();
                let (page, next) = state.retained.page(buckets, after, self.now);
                state.core.handle_retained(slot, page, next);
            }
            Action::SumRetained { slot } => {
                // Sometimes there is something to wait for.
                if !self.dice.hits(4) {
                    state.core.handle_sums(slot, state.retained.sums());
                }
            }
            Action::CompareRetained { slot, turn, sums } => {
                self.comparisons += 1;
                let buckets = state.retained.differing(turn, &sums);
                state.core.handle_compared(slot, turn, buckets);
            }
            Action::Route { slot, change } => {
                state.group.follow(slot, &change);
                let routes = state.routes.entry(slot).or_default();
                match change {
                    Change::Added(filter) => assert!(routes.insert(filter), "added twice"),
                    Change::Group(filter, _room) => drop(routes.insert(filter)),
                    Change::Removed(filter) => assert!(routes.remove(&filter), "not there"),
                }
            }
            Action::Confirm { frame, level, .. } => match level {
                Level::Safe => self.confirm(node, frame.sequence, Outcome::Taken),
                Level::Taken => {
                    let frame = usize::try_from(frame.sequence).unwrap();
                    state.sent[frame].is_taken = true;
                }
                Level::Passed => {}
            },
            Action::Orphan { frame, .. } => self.confirm(node, frame.sequence, Outcome::Gone),
            Action::Bury {
                node: other,
                fate: Fate::Promoted,
                ..
            } => {
                let all = (number(&other), 0)..=(number(&other), u64::MAX);
                let told = state.told.range(all).map(|(run, life)| (*run, *life));
                state.void.extend(told);
            }
            Action::SeeTime(time) => state.retained.see_time(time),
            Action::Bury { .. } | Action::Forsaken { .. } | Action::Aside(..) => {}
            Action::Note(Notice::Lost { node: other, .. }) => {
                *state.losses.entry(number(&other)).or_default() += 1;
            }
            Action::Note(_) => {}
        }
    }

    /// Hands an item to the shard that it is for.
    fn give(
        &mut self,
        node: usize,
        slot: u16,
        (epoch, number): (u64, u64),
        parcel: Option<Parcel>,
        weight: usize,
    ) {
        let given = Given {
            epoch,
            number,
            parcel,
            weight,
            is_taken: false,
        };
        let shard = given.shard();
        let state = &mut self.nodes[node];
        *state.held.entry(slot).or_default() += weight;
        state.slots.entry(slot).or_default().push_back(given);
        let later = self.now + self.dice.millis(20);
        self.at(later, node, Event::Taken { slot, shard });
    }

    /// What came to a shard while it hung comes again.
    pub(super) fn go_on(&mut self, node: usize) {
        let postponed = std::mem::take(&mut self.nodes[node].postponed);
        for (slot, shard) in postponed {
            self.take(node, slot, shard);
        }
    }

    /// A shard takes its next item of a slot.
    pub(super) fn take(&mut self, node: usize, slot: u16, shard: u64) {
        let now = self.start + self.now;
        let state = &mut self.nodes[node];
        if state.hung_until[usize::try_from(shard).unwrap()] > self.now {
            state.postponed.push((slot, shard));
            return;
        }
        let items = state.slots.entry(slot).or_default();
        let mut open = items.iter_mut();
        let given = open.find(|given| !given.is_taken && given.shard() == shard);
        let given = given.expect("there is an event for each item");
        given.is_taken = true;
        let item = (slot, given.epoch, given.number);
        let parcel = given.parcel.take();
        let mut delivered = None;
        while let Some(given) = items.pop_front_if(|given| given.is_taken) {
            delivered = Some((given.epoch, given.number));
            *state.held.entry(slot).or_default() -= given.weight;
        }
        if let Some(parcel) = &parcel {
            state.have(parcel);
        }
        if let Some((epoch, number)) = delivered {
            state.core.handle_delivered(slot, epoch, number, now);
            let later = self.now + self.dice.millis(50);
            self.at(later, node, Event::Safe(slot, epoch, number));
        }
        if let Some(parcel) = parcel {
            self.take_job(node, item, &parcel);
        }
    }
}
