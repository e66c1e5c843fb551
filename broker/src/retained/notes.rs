//! What became of topics, for who stores it.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::{Deletion, Kept};

/// What a note takes without its topic and message.
const NOTE_BYTES: usize = 128;

/// What became of a topic.
#[derive(Debug)]
pub(crate) struct Note {
    pub(crate) topic: Box<str>,
    pub(crate) fate: Fate,
}

#[derive(Clone, Debug)]
pub(crate) enum Fate {
    Kept(Kept),
    /// Nothing of it up to this time counts any more.
    Deleted(Deletion),
    /// Nothing is known of it.
    Gone,
}

impl Fate {
    fn size(&self) -> usize {
        match self {
            Self::Kept(kept) => kept.message.size(),
            Self::Deleted(_) | Self::Gone => 0,
        }
    }
}

/// What became of topics since it was last asked: one note each, however often they change.
#[derive(Clone, Debug, Default)]
pub(crate) struct Notes(Arc<Topics>);

#[derive(Debug, Default)]
struct Topics {
    notes: Mutex<BTreeMap<Box<str>, Fate>>,
    bytes: AtomicUsize,
}

impl Notes {
    pub(super) fn note(&self, topic: &str, fate: Fate) {
        let bytes = |fate: &Fate| NOTE_BYTES + topic.len() + fate.size();
        let more = bytes(&fate);
        let mut notes = self.lock();
        let older = notes.insert(topic.into(), fate);
        let less = older.as_ref().map_or(0, bytes);
        let before = self.0.bytes.load(Ordering::Relaxed);
        self.0.bytes.store(before + more - less, Ordering::Relaxed);
    }

    pub(crate) fn take(&self) -> Vec<Note> {
        let mut held = self.lock();
        let notes = std::mem::take(&mut *held);
        self.0.bytes.store(0, Ordering::Relaxed);
        drop(held);
        let note = |(topic, fate)| Note { topic, fate };
        notes.into_iter().map(note).collect()
    }

    /// About how much memory they hold.
    pub(crate) fn bytes(&self) -> usize {
        self.0.bytes.load(Ordering::Relaxed)
    }

    /// Whoever has this is the only one to change anything.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Box<str>, Fate>> {
        self.0.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
