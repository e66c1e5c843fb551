//! Mistakes that tests have the core make, to see that its simulation finds them.

/// A mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cluster) enum Mutant {
    /// Says that it has taken what its sessions do not have.
    TakesUnseen,
    /// Counts what is delivered of an older stream for the one that goes on.
    MixesStreams,
    /// Leaves an item out when a stream goes on.
    SkipsOne,
    /// Holds filters for known when they are sent.
    KnowsEarly,
    /// Does not tell changes for which there is no room.
    DropsChanges,
    /// Goes on with copies on a node that has lost this one.
    KeepsLife,
    /// Takes new streams while older ones do not move.
    TakesAll,
    /// Holds who is silent for gone when its own lease is over, though the other one's is not.
    JudgesAlone,
    /// Does not tell others what a peer has told of retained messages.
    KeepsNews,
    /// Does not compare what it has with others when a third one is lost.
    KeepsLastWords,
    /// Takes what is on its way to all for news.
    TakesAllForNews,
}

#[cfg(test)]
thread_local! {
    static CHOSEN: std::cell::Cell<Option<Mutant>> = const { std::cell::Cell::new(None) };
}

/// Has this thread's cores make a mistake, or none.
#[cfg(test)]
pub(in crate::cluster) fn set(mutant: Option<Mutant>) {
    CHOSEN.set(mutant);
}

impl Mutant {
    /// Whether the mistake is to be made.
    #[cfg(test)]
    pub(in crate::cluster) fn is_on(self) -> bool {
        CHOSEN.get() == Some(self)
    }

    #[cfg(not(test))]
    pub(in crate::cluster) const fn is_on(self) -> bool {
        let _ = self;
        false
    }
}
