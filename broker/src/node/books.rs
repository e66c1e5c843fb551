//! What was stored, on its way to the shards.

use std::{
    sync::{Arc, mpsc},
    thread,
};

use tokio::sync::watch;

use crate::{
    cluster::Ledger,
    config::Config,
    retained::{Kept, Retained},
    routes::ShardId,
    session::{Restored, journal::Origin},
    shard::{Alive, Inheritance, Shared},
    shares::Shares,
    store::{Opened, Parcel, Saved, Store, StoreError},
};

/// An open store whose sessions wait for their shards.
pub(super) struct Books {
    pub(super) store: Arc<Store>,
    parcels: mpsc::Sender<Parcel>,
    sessions: Vec<Restored>,
    taken: Vec<(ShardId, Origin)>,
    thread: thread::JoinHandle<()>,
}

impl Books {
    /// Opens the store, if there is to be one, and takes retained messages back; `alive` hears when
    /// its thread ends.
    pub(super) fn open(
        config: &Config,
        shards: u16,
        shares: &Arc<Shares>,
        retained: &mut Retained,
        alive: &tokio::sync::mpsc::Sender<()>,
    ) -> Result<Option<Self>, StoreError> {
        let Some(persistence) = config.persistence() else {
            return Ok(None);
        };
        let Opened {
            store,
            saved,
            notes,
            parcels,
            thread,
        } = Store::open(
            persistence,
            config.node(),
            shards,
            Arc::clone(shares),
            Alive(alive.clone()),
        )?;
        let Saved {
            sessions,
            retained: stored,
            deleted,
            taken,
        } = saved;
        // A node by itself has no clock, and whatever comes is the last.
        let has_clock = config.cluster().is_some();
        for kept in stored {
            let at = if has_clock { kept.at } else { 0 };
            retained.restore(Kept { at, ..kept });
        }
        for (topic, deletion) in deleted.into_iter().filter(|_deleted| has_clock) {
            retained.restore_deleted(&topic, deletion);
        }
        retained.note_in(notes);
        Ok(Some(Self {
            store,
            parcels,
            sessions,
            taken,
            thread,
        }))
    }

    /// A shard's part.
    pub(super) fn inheritance(&mut self, shared: &Shared, shard: ShardId) -> Inheritance {
        let stored = std::mem::take(&mut self.sessions).into_iter();
        // The number of shards may have been another.
        let is_its = |restored: &Restored| shared.shard_of(&restored.profile.client_id) == shard;
        let (sessions, others) = stored.partition(is_its);
        self.sessions = others;
        let taken = self.taken.iter().filter(|(by, _origin)| *by == shard);
        Inheritance {
            store: Arc::clone(&self.store),
            parcels: self.parcels.clone(),
            sessions,
            taken: taken.map(|(_shard, origin)| *origin).collect(),
        }
    }

    /// The part of the cluster's thread, which goes without once the shards are told to stop.
    pub(super) fn ledger(&self, stopped: &watch::Receiver<bool>) -> Ledger {
        Ledger::new(&self.store, self.parcels.clone(), stopped.clone())
    }

    /// The store's thread, which ends when the last shard has.
    pub(super) fn into_thread(self) -> thread::JoinHandle<()> {
        self.thread
    }
}
