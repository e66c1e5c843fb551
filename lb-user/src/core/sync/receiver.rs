//! The receiving end: what comes next, and what is to be done about it.

use std::collections::BTreeSet;

use lb_common::abi::Tick;

use super::message::{Item, Message, Standing};

/// What is to be done about a message; then its number is acknowledged.
#[derive(Debug, PartialEq, Eq)]
pub enum Step<K, V> {
    /// What is new, by the sender's clock.
    Apply(Tick, Vec<Item<K, V>>),
    /// What is not named here and could have been has gone.
    Retain(BTreeSet<K>),
    Nothing,
}

/// Why a message cannot be the next one: the connection is of no use then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    #[error("message {found} came where {expected} was due")]
    Gap { expected: u64, found: u64 },
    #[error("increments came without a snapshot")]
    NoSnapshot,
    #[error(
        "a snapshot names more than {limit} entries: give both nodes the same `[limits] flows`"
    )]
    TooMany { limit: usize },
}

/// The receiving end of a stream.
pub struct Receiver<K> {
    standing: Option<Standing>,
    /// What the snapshot that goes on has named.
    named: Option<BTreeSet<K>>,
    /// The most that one may name.
    limit: usize,
}

impl<K: Clone + Ord> Receiver<K> {
    /// A receiver that has nothing, and takes snapshots of up to `limit` entries.
    #[must_use]
    pub const fn new(limit: usize) -> Self {
        Self {
            standing: None,
            named: None,
            limit,
        }
    }

    /// How far it came.
    #[must_use]
    pub const fn standing(&self) -> Option<Standing> {
        self.standing
    }

    /// Whether it has had a whole snapshot.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        self.standing.is_some() && self.named.is_none()
    }

    /// Takes in the next message.
    ///
    /// # Errors
    /// If it cannot be the next one; nothing has changed then.
    pub fn handle<V>(&mut self, message: Message<K, V>) -> Result<Step<K, V>, Violation> {
        match message {
            Message::Beat => Ok(Step::Nothing),
            Message::Begin { stream, number } => {
                self.standing = Some(Standing {
                    stream,
                    applied: number,
                });
                self.named = Some(BTreeSet::new());
                Ok(Step::Nothing)
            }
            Message::Items { number, now, items } => {
                self.expect(number)?;
                self.note(&items)?;
                self.advance(number);
                Ok(Step::Apply(Tick(now), items))
            }
            Message::End { number } => {
                self.expect(number)?;
                let named = self.named.take().ok_or(Violation::NoSnapshot)?;
                self.advance(number);
                Ok(Step::Retain(named))
            }
        }
    }

    fn expect(&self, found: u64) -> Result<(), Violation> {
        let standing = self.standing.ok_or(Violation::NoSnapshot)?;
        let expected = standing.applied.saturating_add(1);
        if found == expected {
            Ok(())
        } else {
            Err(Violation::Gap { expected, found })
        }
    }

    fn note<V>(&mut self, items: &[Item<K, V>]) -> Result<(), Violation> {
        let Some(named) = &mut self.named else {
            return Ok(());
        };
        if named.len() + items.len() > self.limit {
            return Err(Violation::TooMany { limit: self.limit });
        }
        for item in items {
            match item {
                Item::Put(key, _) => named.insert(key.clone()),
                Item::Remove(key) => named.remove(key),
            };
        }
        Ok(())
    }

    const fn advance(&mut self, number: u64) {
        if let Some(standing) = &mut self.standing {
            standing.applied = number;
        }
    }

    /// The connection has gone; what was sent of a snapshot is of no use.
    pub fn unlink(&mut self) {
        if self.named.take().is_some() {
            self.standing = None;
        }
    }

    /// What is here is no longer what was sent: only a snapshot helps.
    pub fn forget(&mut self) {
        self.named = None;
        self.standing = None;
    }
}
