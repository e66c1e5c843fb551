//! What happens to the node that an operator may want to know. The last of it is remembered, for
//! `tidegate-broker events`; the log has it too, in the words of where it happens.
//!
//! What strangers can cause is kept apart: it cannot push out what matters. Numbers have no gaps, and
//! go on where those of an earlier process ended, so whoever asks for all since a number is told how
//! many of them are forgotten.

use std::{
    collections::VecDeque,
    fmt,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use console::{
    events::{EventRecord, EventsPage},
    time::rfc3339,
};
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::sync::watch;

/// Events that are remembered: weeks of them on most nodes, and less than a megabyte.
const DEPTH: usize = 1024;

/// The same for what strangers can cause.
const NOISE_DEPTH: usize = 128;

/// What has happened. As JSON it is its fields alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(crate) enum Event {
    Started {
        version: &'static str,
    },
    Stopping {},
    Reloaded {
        needs_restart: Vec<String>,
    },
    ReloadRefused {
        error: String,
    },
    NodeJoined {
        node: Box<str>,
        address: String,
    },
    /// It has said goodbye, or this node has.
    NodeLeft {
        node: Box<str>,
        cause: String,
    },
    NodeLost {
        node: Box<str>,
        cause: String,
    },
    NodeUnreachable {
        address: Box<str>,
        trouble: Box<str>,
    },
    /// One that has the key, and does not fit.
    NodeRefused {
        host: IpAddr,
        cause: String,
    },
    /// A caller that has not shown that it has the key.
    StrangerRefused {
        host: IpAddr,
        cause: String,
    },
    ClusterLeft {},
    Evacuating {
        clients: u64,
        rate: u32,
    },
    Rebalancing {
        clients: u64,
        keep: u64,
        rate: u32,
    },
    Evacuated {
        sent: u64,
    },
    Rebalanced {
        sent: u64,
    },
    /// An operator has ended either.
    Welcoming {},
}

/// How much an event matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Severity {
    Info,
    Notice,
    Warning,
    Error,
}

impl Severity {
    pub(crate) const ALL: [Self; 4] = [Self::Info, Self::Notice, Self::Warning, Self::Error];

    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Notice => "notice",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// The names of all kinds.
pub(crate) const KINDS: [&str; 16] = [
    "started",
    "stopping",
    "reloaded",
    "reload_refused",
    "node_joined",
    "node_left",
    "node_lost",
    "node_unreachable",
    "node_refused",
    "stranger_refused",
    "cluster_left",
    "evacuating",
    "rebalancing",
    "evacuated",
    "rebalanced",
    "welcoming",
];

impl Event {
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Started { .. } => "started",
            Self::Stopping {} => "stopping",
            Self::Reloaded { .. } => "reloaded",
            Self::ReloadRefused { .. } => "reload_refused",
            Self::NodeJoined { .. } => "node_joined",
            Self::NodeLeft { .. } => "node_left",
            Self::NodeLost { .. } => "node_lost",
            Self::NodeUnreachable { .. } => "node_unreachable",
            Self::NodeRefused { .. } => "node_refused",
            Self::StrangerRefused { .. } => "stranger_refused",
            Self::ClusterLeft {} => "cluster_left",
            Self::Evacuating { .. } => "evacuating",
            Self::Rebalancing { .. } => "rebalancing",
            Self::Evacuated { .. } => "evacuated",
            Self::Rebalanced { .. } => "rebalanced",
            Self::Welcoming {} => "welcoming",
        }
    }

    fn severity(&self) -> Severity {
        match self {
            Self::StrangerRefused { .. } => Severity::Info,
            Self::Started { .. }
            | Self::Stopping {}
            | Self::Reloaded { .. }
            | Self::NodeJoined { .. }
            | Self::NodeLeft { .. }
            | Self::ClusterLeft {}
            | Self::Evacuating { .. }
            | Self::Rebalancing { .. }
            | Self::Evacuated { .. }
            | Self::Rebalanced { .. }
            | Self::Welcoming {} => Severity::Notice,
            Self::NodeUnreachable { .. } | Self::NodeRefused { .. } => Severity::Warning,
            Self::ReloadRefused { .. } | Self::NodeLost { .. } => Severity::Error,
        }
    }

    /// Whether strangers can cause it.
    fn is_noise(&self) -> bool {
        matches!(self, Self::StrangerRefused { .. })
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started { version } => write!(f, "tidegate-broker {version} has started"),
            Self::Stopping {} => f.write_str("the broker stops"),
            Self::Reloaded { needs_restart } if needs_restart.is_empty() => {
                f.write_str("the configuration was read again")
            }
            Self::Reloaded { needs_restart } => write!(
                f,
                "the configuration was read again; these take a restart: {}",
                needs_restart.join(", ")
            ),
            Self::ReloadRefused { error } => {
                write!(f, "the configuration was not taken: {error}")
            }
            Self::NodeJoined { node, address } => write!(f, "node {node} at {address} is there"),
            Self::NodeLeft { node, cause } | Self::NodeLost { node, cause } => {
                write!(f, "node {node} is gone: {cause}")
            }
            Self::NodeUnreachable { address, trouble } => {
                write!(f, "no connection to the node at {address}: {trouble}")
            }
            Self::NodeRefused { host, cause } => {
                write!(f, "a node on {host} was not let in: {cause}")
            }
            Self::StrangerRefused { host, cause } => {
                write!(
                    f,
                    "a caller of the cluster's port, {host}, was not let in: {cause}"
                )
            }
            Self::ClusterLeft {} => f.write_str("this node has left its cluster"),
            Self::Evacuating { clients, rate } => {
                write!(f, "all {clients} clients are sent away, {rate} a second")
            }
            Self::Rebalancing {
                clients,
                keep,
                rate,
            } => write!(
                f,
                "of {clients} clients {keep} are to stay, the others are sent away, {rate} a second"
            ),
            Self::Evacuated { sent } => {
                write!(f, "evacuated: {sent} clients were sent away, none is left")
            }
            Self::Rebalanced { sent } => {
                write!(f, "rebalanced: {sent} clients were sent away")
            }
            Self::Welcoming {} => f.write_str("nobody is sent away any more"),
        }
    }
}

/// Which events are asked for; nothing in it means all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) kinds: Vec<String>,
    pub(crate) least: Option<Severity>,
    /// Since then, in milliseconds since 1970.
    pub(crate) from: u64,
}

/// The memory, which all threads of the node tell.
#[derive(Debug)]
pub(crate) struct Events {
    ring: Mutex<Ring>,
    /// The number of the last event.
    last: watch::Sender<u64>,
}

impl Default for Events {
    fn default() -> Self {
        // More than one event in a millisecond, all the time, is not to be expected.
        let first = unix_millis();
        Self {
            ring: Mutex::new(Ring::new(first)),
            last: watch::Sender::new(first.saturating_sub(1)),
        }
    }
}

impl Events {
    pub(crate) fn tell(&self, event: &Event) {
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let last = ring.push(event, unix_millis());
        drop(ring);
        self.last.send_modify(|known| *known = last.max(*known));
    }

    /// All that happened after the event of number `since`.
    pub(crate) fn since(&self, since: u64, wanted: &Wanted) -> EventsPage {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        ring.since(since, wanted)
    }

    /// What wakes those who wait for events: the number of the last one.
    pub(crate) fn last(&self) -> watch::Receiver<u64> {
        self.last.subscribe()
    }
}

#[derive(Debug)]
struct Ring {
    changes: VecDeque<Arc<Record>>,
    noise: VecDeque<Arc<Record>>,
    first: u64,
    next: u64,
}

#[derive(Debug)]
struct Record {
    unix_millis: u64,
    severity: Severity,
    told: EventRecord,
}

impl Ring {
    fn new(first: u64) -> Self {
        Self {
            changes: VecDeque::new(),
            noise: VecDeque::new(),
            first,
            next: first,
        }
    }

    fn push(&mut self, event: &Event, unix_millis: u64) -> u64 {
        let seq = self.next;
        self.next += 1;
        let (memory, depth) = if event.is_noise() {
            (&mut self.noise, NOISE_DEPTH)
        } else {
            (&mut self.changes, DEPTH)
        };
        if memory.len() >= depth {
            memory.pop_front();
        }
        let fields = match serde_json::to_value(event) {
            Ok(Value::Object(fields)) => fields,
            // Events are structs of plain values.
            Ok(_) | Err(_) => Map::new(),
        };
        let severity = event.severity();
        memory.push_back(Arc::new(Record {
            unix_millis,
            severity,
            told: EventRecord {
                seq,
                time: rfc3339(unix_millis),
                kind: event.kind().to_owned(),
                severity: severity.label().to_owned(),
                message: event.to_string(),
                fields,
            },
        }));
        seq
    }

    /// Of numbers before the first one nothing is known, and nothing missed.
    fn since(&self, since: u64, wanted: &Wanted) -> EventsPage {
        let next = since.saturating_add(1).max(self.first);
        let known = [&self.changes, &self.noise];
        let mut records: Vec<_> = known
            .into_iter()
            .flatten()
            .filter(|record| record.told.seq >= next)
            .collect();
        records.sort_by_key(|record| record.told.seq);
        let happened = self.next.saturating_sub(next);
        let mut missed = happened.saturating_sub(records.len() as u64);
        // What is forgotten is older than what is remembered.
        if records
            .first()
            .is_some_and(|first| first.unix_millis < wanted.from)
        {
            missed = 0;
        }
        let records = records.into_iter().filter(|record| wanted.admits(record));
        EventsPage {
            events: records.map(|record| record.told.clone()).collect(),
            missed,
            last: self.next.saturating_sub(1),
        }
    }
}

impl Wanted {
    fn admits(&self, record: &Record) -> bool {
        let is_of_kind = self.kinds.is_empty() || self.kinds.contains(&record.told.kind);
        is_of_kind
            && self.least.is_none_or(|least| record.severity >= least)
            && record.unix_millis >= self.from
    }
}

fn unix_millis() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
