//! What the cluster's thread has of the store: peers' retained messages are to be in it too.

use std::sync::{Arc, mpsc};

use tokio::sync::watch;

use crate::{
    message::Message,
    store::{Condition, Parcel, Store},
};

/// An account that nothing is noted in: its parcels have the store take what is retained.
pub(crate) struct Ledger {
    store: Arc<Store>,
    /// `None` when the shards are to stop: the store ends with them.
    parcels: Option<mpsc::Sender<Parcel>>,
    stopped: watch::Receiver<bool>,
    sent: u64,
}

impl Ledger {
    pub(crate) fn new(
        store: &Arc<Store>,
        parcels: mpsc::Sender<Parcel>,
        stopped: watch::Receiver<bool>,
    ) -> Self {
        Self {
            store: Arc::clone(store),
            parcels: Some(parcels),
            stopped,
            sent: 0,
        }
    }

    pub(super) fn store(&self) -> &Arc<Store> {
        &self.store
    }

    pub(super) fn stopped(&self) -> watch::Receiver<bool> {
        self.stopped.clone()
    }

    pub(super) fn close(&mut self) {
        self.parcels = None;
    }

    /// The parcel that what is retained by now is stored with.
    pub(super) fn next_parcel(&self) -> u64 {
        self.sent + 1
    }

    /// Has the store take what was retained.
    pub(super) fn send(&mut self) {
        self.sent += 1;
        if let Some(parcels) = &self.parcels {
            // Without a store the node is about to end.
            let _ = parcels.send(Parcel {
                shard: self.store.cluster(),
                number: self.sent,
                changes: Vec::new(),
            });
        }
    }

    /// The last parcel that is stored.
    pub(super) fn stored(&self) -> u64 {
        self.store.stored(self.store.cluster())
    }

    /// As a shard has it: to forget takes no room.
    pub(super) fn can_retain(&self, message: &Message) -> bool {
        match self.store.condition() {
            Condition::Good => true,
            Condition::Full | Condition::LowSpace => message.payload.is_empty(),
            Condition::Failing => false,
        }
    }
}
