//! The last events, numbered, and how many of each kind there were.
//!
//! What strangers can cause is kept apart: it cannot push out what matters. Numbers have no gaps, so
//! whoever asks for all since a number is told how many of them are forgotten.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::{Event, Kind, Severity};

/// Events that are remembered: days of them on most nodes, and less than a megabyte.
pub const DEPTH: usize = 1_024;

/// The same for [noise](Kind::is_noise).
pub const NOISE_DEPTH: usize = 128;

/// An event, its number, and when it happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub seq: u64,
    pub unix_millis: u64,
    pub event: Event,
}

/// Which events are asked for; nothing in it means all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    pub kinds: Vec<Kind>,
    pub least: Option<Severity>,
    pub service: Option<String>,
}

/// Events since a number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    pub records: Vec<Arc<Record>>,
    /// How many more there were, of whatever kind.
    pub missed: u64,
    /// The number of the last event so far: what to ask for next.
    pub last: u64,
    /// How many there were so far but noise.
    pub changes: u64,
}

/// The memory. See the module.
#[derive(Debug)]
pub struct Ring {
    changes: VecDeque<Arc<Record>>,
    noise: VecDeque<Arc<Record>>,
    first: u64,
    next: u64,
    counts: BTreeMap<Kind, u64>,
}

impl Filter {
    /// Whether an event is asked for.
    #[must_use]
    pub fn admits(&self, event: &Event) -> bool {
        let is_of_kind = self.kinds.is_empty() || self.kinds.contains(&event.kind());
        let service = self.service.as_deref();
        is_of_kind
            && self.least.is_none_or(|least| event.severity() >= least)
            && (service.is_none() || event.service() == service)
    }
}

impl Ring {
    /// An empty one, the first event of which gets the number `first`.
    #[must_use]
    pub const fn new(first: u64) -> Self {
        Self {
            changes: VecDeque::new(),
            noise: VecDeque::new(),
            first,
            next: first,
            counts: BTreeMap::new(),
        }
    }

    /// Remembers an event, and returns its number.
    pub fn push(&mut self, event: Event, unix_millis: u64) -> u64 {
        let (seq, kind) = (self.next, event.kind());
        self.next += 1;
        *self.counts.entry(kind).or_default() += 1;
        let (memory, depth) = if kind.is_noise() {
            (&mut self.noise, NOISE_DEPTH)
        } else {
            (&mut self.changes, DEPTH)
        };
        if memory.len() >= depth {
            memory.pop_front();
        }
        memory.push_back(Arc::new(Record {
            seq,
            unix_millis,
            event,
        }));
        seq
    }

    /// The number of the last event, or of the one before the first.
    #[must_use]
    pub const fn last(&self) -> u64 {
        self.next.saturating_sub(1)
    }

    /// All that came after number `since`, in order. Of numbers before the first one nothing is known,
    /// and nothing missed.
    #[must_use]
    pub fn since(&self, since: u64, filter: &Filter) -> Page {
        let wanted = since.saturating_add(1).max(self.first);
        let mut records: Vec<_> = tail(&self.changes, wanted).collect();
        records.extend(tail(&self.noise, wanted));
        records.sort_by_key(|record| record.seq);
        let happened = self.next.saturating_sub(wanted);
        let missed = happened - records.len() as u64;
        records.retain(|record| filter.admits(&record.event));
        Page {
            records,
            missed,
            last: self.last(),
            changes: self.changes(),
        }
    }

    fn changes(&self) -> u64 {
        let changes = self.counts().filter(|(kind, _)| !kind.is_noise());
        changes.map(|(_, count)| count).sum()
    }

    /// How many there were of each kind.
    pub fn counts(&self) -> impl Iterator<Item = (Kind, u64)> {
        let count = |kind: &Kind| (*kind, self.counts.get(kind).copied().unwrap_or_default());
        Kind::ALL.iter().map(count)
    }
}

/// Those of a memory that have number `wanted` or a higher one.
fn tail(memory: &VecDeque<Arc<Record>>, wanted: u64) -> impl Iterator<Item = Arc<Record>> {
    let at = memory.partition_point(|record| record.seq < wanted);
    memory.range(at..).cloned()
}

#[cfg(test)]
mod tests {
    use super::{DEPTH, Filter, NOISE_DEPTH, Ring};
    use crate::core::event::{Event, Kind, Severity};

    fn noise() -> Event {
        Event::VipRefused {
            error: "no".to_owned(),
        }
    }

    #[test]
    fn whoever_asks_too_late_is_told_how_many_are_forgotten() {
        let mut ring = Ring::new(100);
        assert_eq!(ring.since(0, &Filter::default()).missed, 0);
        for _ in 0..DEPTH + 7 {
            ring.push(Event::BackendsHeard {}, 5);
        }
        let page = ring.since(0, &Filter::default());
        assert_eq!((page.records.len(), page.missed), (DEPTH, 7));
        assert_eq!(page.records[0].seq, 107);
        let next = ring.push(Event::Stopping {}, 6);
        let rest = ring.since(page.last, &Filter::default());
        assert_eq!((rest.records.len(), rest.missed), (1, 0));
        assert_eq!((rest.records[0].seq, rest.last), (next, next));
        assert_eq!(ring.since(u64::MAX, &Filter::default()).missed, 0);
    }

    #[test]
    fn a_flood_of_what_strangers_cause_pushes_out_nothing_else() {
        let mut ring = Ring::new(1);
        ring.push(Event::Stopping {}, 0);
        for _ in 0..10 * DEPTH {
            ring.push(noise(), 0);
        }
        ring.push(Event::BackendsHeard {}, 0);
        let page = ring.since(0, &Filter::default());
        assert_eq!(page.records.len(), NOISE_DEPTH + 2);
        assert_eq!(page.missed, (10 * DEPTH - NOISE_DEPTH) as u64);
        assert!(page.records.is_sorted_by_key(|record| record.seq));
        assert_eq!(page.records[0].event, Event::Stopping {});
        assert_eq!(page.changes, 2);
    }

    #[test]
    fn filters_choose_by_kind_severity_and_service() {
        let mut ring = Ring::new(1);
        let down = |service: &str| Event::ServiceDown {
            service: service.to_owned(),
        };
        for event in [down("a"), Event::Stopping {}, down("b"), noise()] {
            ring.push(event, 0);
        }
        let found = |filter: &Filter| -> Vec<u64> {
            let records = ring.since(0, filter).records;
            records.iter().map(|record| record.seq).collect()
        };
        let mut filter = Filter {
            kinds: vec![Kind::ServiceDown, Kind::VipRefused],
            ..Filter::default()
        };
        assert_eq!(found(&filter), [1, 3, 4]);
        filter.least = Some(Severity::Error);
        assert_eq!(found(&filter), [1, 3]);
        filter.service = Some("b".to_owned());
        assert_eq!(found(&filter), [3]);
        let counts: Vec<_> = ring.counts().filter(|(_, count)| *count > 0).collect();
        let expected = [
            (Kind::VipRefused, 1),
            (Kind::ServiceDown, 2),
            (Kind::Stopping, 1),
        ];
        assert_eq!(counts, expected);
    }
}
