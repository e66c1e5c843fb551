//! What a shard has of the cluster.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use tokio::sync::watch;

use super::{
    Shard, Shared,
    arrivals::{Arrival, Install, Telling},
    barrier::Barriers,
    claims::Ticket,
    cluster::Subacks,
    heal::Meeting,
};
use crate::{
    cluster::claims::{Claims, Fellow},
    message::{Message, Qos},
};

pub(super) struct Clustered {
    pub(super) subacks: Subacks,
    changes: Option<watch::Receiver<Vec<Fellow>>>,
    /// Nodes that are there.
    pub(super) fellows: Vec<Fellow>,
    pub(super) claims: Claims<Ticket>,
    /// How long nothing may happen to a session that moves.
    pub(super) patience: Duration,
    /// Clients whose sessions are on their way, either way.
    pub(super) moving: BTreeSet<Arc<str>>,
    /// Those of which there are more pieces to send.
    pub(super) departures: VecDeque<Arc<str>>,
    pub(super) barriers: Barriers,
    pub(super) meetings: Vec<Meeting>,
    pub(super) arrivals: BTreeMap<Box<str>, Arrival>,
    pub(super) tellings: VecDeque<Telling>,
    /// Sessions that are here, and not in the store yet.
    pub(super) installs: BTreeMap<u64, Install>,
    pub(super) last_install: u64,
    /// Messages that were given ids.
    published: u64,
}

fn patience(shared: &Shared) -> Duration {
    let cluster = shared.cluster.as_ref();
    cluster.map_or(Duration::ZERO, |cluster| 2 * cluster.lease())
}

impl Clustered {
    pub(super) fn new(shared: &Shared) -> Self {
        let cluster = shared.cluster.as_ref();
        let patience = patience(shared);
        Self {
            subacks: Subacks::default(),
            changes: cluster.map(|cluster| cluster.fellows()),
            fellows: Vec::new(),
            claims: Claims::new(shared.node.clone(), patience),
            patience,
            moving: BTreeSet::new(),
            departures: VecDeque::new(),
            barriers: Barriers::default(),
            meetings: Vec::new(),
            arrivals: BTreeMap::new(),
            tellings: VecDeque::new(),
            installs: BTreeMap::new(),
            last_install: 0,
            published: 0,
        }
    }

    /// Whether parts of sessions that leave are to be sent.
    pub(super) fn has_departures(&self) -> bool {
        !self.departures.is_empty()
    }

    /// Takes note of how long nodes wait for each other: it is another time when others are there.
    pub(super) fn follow_lease(&mut self, shared: &Shared) {
        self.patience = patience(shared);
        self.claims.set_patience(self.patience);
    }

    /// Who is there, if that has changed.
    pub(super) fn poll_fellows(&mut self) -> Option<Vec<Fellow>> {
        let changes = self.changes.as_mut()?;
        // The sender lives as long as the shard.
        let has_changed = changes.has_changed().unwrap_or(false);
        has_changed.then(|| changes.borrow_and_update().clone())
    }
}

impl Shard {
    /// Gives a message an id, if it may come to somebody by two ways.
    pub(super) fn name(&mut self, mut message: Arc<Message>) -> Arc<Message> {
        if let Some(cluster) = &self.shared.cluster
            && message.qos > Qos::AtMostOnce
            && message.id.is_none()
        {
            self.clustered.published += 1;
            let number = self.clustered.published;
            Arc::make_mut(&mut message).id = cluster.message_id(self.id, number);
        }
        message
    }
}
