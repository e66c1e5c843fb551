//! Retained messages: the last one of each topic, found by filters with wildcards.

mod copy;
mod deleted;
mod notes;
mod sums;

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    ops::{Bound, ControlFlow},
    sync::Arc,
    time::Instant,
};

use crate::{
    config::Limits,
    message::Message,
    topic::{self, split_level},
};
pub(crate) use copy::Copied;
use deleted::Deleted;
pub(crate) use deleted::{Cause, Deletion};
pub(crate) use notes::{Fate, Note, Notes};
use sums::value_of;
pub(crate) use sums::{BUCKETS, Buckets, Sums, mark_of};

/// How many levels of topics one page looks at, so that no filter holds a shard up for long.
const PAGE_NODES: usize = 256;

/// Expired messages that are forgotten at once: others wait for the store meanwhile.
const FORGOTTEN_PER_TURN: usize = 4096;

/// What a level of a topic takes that has no other beside it: a table with room for eleven.
const LEVEL_BYTES: usize = 768;

/// A message, and since when it is its topic's.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    pub(crate) message: Arc<Message>,
    pub(crate) since: Instant,
    /// The same by the cluster's clock, by which all nodes agree on what is last; 0 without one.
    pub(crate) at: u64,
}

/// Some of the messages that a filter matches.
#[derive(Debug, Default)]
pub(crate) struct Page {
    pub(crate) messages: Vec<Kept>,
    /// Where the next page goes on; `None` when there is none.
    pub(crate) next: Option<Box<str>>,
}

/// The node's retained messages.
#[derive(Debug)]
pub(crate) struct Retained {
    root: Node,
    len: usize,
    /// Of the messages, and of the tree that they are in.
    bytes: usize,
    bounds: Bounds,
    /// The topics of messages that expire, by when they do.
    deadlines: BTreeSet<(Instant, Box<str>)>,
    /// Where changes are noted that are to outlive the process.
    notes: Option<Notes>,
    /// What other nodes may have, and should not.
    deleted: Deleted,
    /// How many of these were forgotten for others.
    forgotten: u64,
    sums: Sums,
    /// The last time that is known of.
    latest: u64,
}

/// How much may be retained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) messages: usize,
    pub(crate) bytes: usize,
}

impl Bounds {
    pub(crate) const NONE: Self = Self {
        messages: usize::MAX,
        bytes: usize::MAX,
    };
}

impl From<Limits> for Bounds {
    fn from(limits: Limits) -> Self {
        Self {
            messages: limits.retained,
            bytes: limits.retained_bytes,
        }
    }
}

/// Ordered, so that a subscriber gets retained messages in the order of their topics.
#[derive(Debug, Default)]
struct Node {
    children: BTreeMap<Box<str>, Self>,
    message: Option<Kept>,
}

impl Retained {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self {
            root: Node::default(),
            len: 0,
            bytes: 0,
            bounds,
            deadlines: BTreeSet::new(),
            notes: None,
            deleted: Deleted::default(),
            forgotten: 0,
            sums: Sums::default(),
            latest: 0,
        }
    }

    /// Notes every change from then on.
    pub(crate) fn note_in(&mut self, notes: Notes) {
        self.notes = Some(notes);
    }

    /// Keeps a message as an earlier life of the broker did, whatever the bound is by now.
    pub(crate) fn restore(&mut self, kept: Kept) {
        self.insert(kept);
    }

    /// Other bounds; what is kept already stays.
    pub(crate) fn set_bounds(&mut self, bounds: Bounds) {
        self.bounds = bounds;
    }

    /// Whether there is room for a message in the place of its topic's.
    pub(crate) fn has_room(&self, message: &Message) -> bool {
        let (older, missing) = self.root.find(&message.topic);
        let freed = older.map_or(0, |kept| weight(&kept.message));
        let bytes = self.bytes - freed + missing + weight(message);
        bytes <= self.bounds.bytes && (older.is_some() || self.len < self.bounds.messages)
    }

    /// Keeps the message for its topic, or forgets the topic's when the payload is empty; tells
    /// whether there was room. If not, the topic has none: its last one is not the last any more.
    ///
    /// `at` is when it was published, by the cluster's clock. What is older than what is known of the
    /// topic does not count; without a clock, at 0, whatever comes is the last.
    #[must_use]
    pub(crate) fn store(&mut self, message: &Arc<Message>, at: u64, now: Instant) -> bool {
        if self.is_outdated(message, at) {
            return true;
        }
        if message.payload.is_empty() {
            let cause = self.cause_of_end(&message.topic);
            self.delete(&message.topic, at, cause);
            return true;
        }
        if !self.has_room(message) {
            // Others may have had room; it can come from there when there is some here.
            if !self.is_refused(message, at) {
                let before = at.saturating_sub(1);
                self.delete(&message.topic, before, Cause::Passing);
            }
            return false;
        }
        let kept = Kept {
            message: Arc::clone(message),
            since: now,
            at,
        };
        self.deleted.remove(&message.topic);
        self.note(&message.topic, Fate::Kept(kept.clone()));
        self.insert(kept);
        true
    }

    fn insert(&mut self, kept: Kept) {
        let message = Arc::clone(&kept.message);
        let mut node = &mut self.root;
        for level in message.topic.split('/') {
            node = match node.children.entry(level.into()) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => {
                    self.bytes += level_weight(entry.key());
                    entry.insert(Node::default())
                }
            };
        }
        self.bytes += weight(&message);
        self.latest = self.latest.max(kept.at);
        self.sums.add(&message.topic, value_of(&message, kept.at));
        match node.message.replace(kept) {
            Some(replaced) => {
                self.bytes -= weight(&replaced.message);
                let value = value_of(&replaced.message, replaced.at);
                self.sums.subtract(&message.topic, value);
                self.unschedule(&replaced.message);
            }
            None => self.len += 1,
        }
        if let Some(expires) = message.expires {
            self.deadlines.insert((expires, message.topic.clone()));
        }
    }

    fn forget(&mut self, topic: &str) {
        if self.remove(topic) {
            self.note(topic, Fate::Gone);
        }
    }

    fn remove(&mut self, topic: &str) -> bool {
        let mut freed = 0;
        let Some(kept) = self.root.remove(Some(topic), &mut freed) else {
            return false;
        };
        self.len -= 1;
        self.bytes -= freed + weight(&kept.message);
        self.sums.subtract(topic, value_of(&kept.message, kept.at));
        self.unschedule(&kept.message);
        true
    }

    fn note(&self, topic: &str, fate: Fate) {
        if let Some(notes) = &self.notes {
            notes.note(topic, fate);
        }
    }

    fn unschedule(&mut self, message: &Message) {
        if let Some(expires) = message.expires {
            self.deadlines.remove(&(expires, message.topic.clone()));
        }
    }

    /// One page of the retained messages whose topics the filter matches, without expired ones.
    ///
    /// `after` is where the page before this one ended. A message that is stored or forgotten
    /// between two pages is found or not, as its topic lies ahead or behind.
    pub(crate) fn page(&self, filter: &str, after: Option<&str>, now: Instant) -> Page {
        let walk = Walk {
            now,
            nodes_left: PAGE_NODES,
            bytes_left: usize::MAX,
            buckets: None,
            path: Vec::new(),
            page: Page::default(),
        };
        self.walk(walk, filter, after)
    }

    fn walk<'a>(&'a self, mut walk: Walk<'a>, filter: &str, after: Option<&str>) -> Page {
        let resume = match after {
            None => Resume::Start,
            Some(path) => Resume::Behind(Some(path)),
        };
        let (ControlFlow::Continue(()) | ControlFlow::Break(())) =
            self.root.collect(Some(filter), resume, &mut walk);
        walk.page
    }

    /// Whether [`Retained::handle_timeout`] has something to do.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.deadlines.first().is_some_and(|(due, _)| *due <= now)
    }

    /// Forgets messages that have expired, as many as one turn allows: nobody gets the others either. What
    /// they have replaced does not count any more, on whatever node it is.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        for _ in 0..FORGOTTEN_PER_TURN {
            if !self.is_due(now) {
                return;
            }
            if let Some((_due, topic)) = self.deadlines.pop_first() {
                let at = self.root.find(&topic).0.map_or(0, |kept| kept.at);
                self.delete(&topic, at, Cause::Passing);
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many levels of topics there are, with the root.
    #[cfg(test)]
    pub(crate) fn nodes(&self) -> usize {
        self.root.nodes()
    }
}

/// Bytes that a message takes where it is kept.
fn weight(message: &Message) -> usize {
    // One that expires is in the calendar too.
    let calendar = message.expires.map_or(0, |_expires| message.topic.len());
    message.size() + calendar
}

fn level_weight(level: &str) -> usize {
    LEVEL_BYTES + level.len()
}

/// A walk over the tree in the order of topics, and where it is.
struct Walk<'a> {
    now: Instant,
    nodes_left: usize,
    bytes_left: usize,
    /// Topics that a copy is to have; `None` for what subscribers get.
    buckets: Option<Buckets>,
    /// Empty at the root, which stands for no topic.
    path: Vec<&'a str>,
    page: Page,
}

/// How much of a branch earlier pages have covered.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Resume<'a> {
    Start,
    /// The branch's own node, and what comes before this path below it.
    Behind(Option<&'a str>),
}

impl Walk<'_> {
    fn wants(&self, topic: &str) -> bool {
        self.buckets.is_none_or(|buckets| buckets.have(topic))
    }

    fn visit(&mut self, message: Option<&Kept>) -> ControlFlow<()> {
        if let Some(kept) = message
            && !kept.message.is_expired(self.now)
            && self.wants(&kept.message.topic)
        {
            self.bytes_left = self.bytes_left.saturating_sub(kept.message.size());
            self.page.messages.push(kept.clone());
        }
        self.nodes_left = self.nodes_left.saturating_sub(1);
        if self.nodes_left > 0 && self.bytes_left > 0 {
            return ControlFlow::Continue(());
        }
        self.page.next = Some(self.path.join("/").into());
        ControlFlow::Break(())
    }
}

impl Node {
    #[cfg(test)]
    fn nodes(&self) -> usize {
        1 + self.children.values().map(Self::nodes).sum::<usize>()
    }

    fn is_empty(&self) -> bool {
        self.children.is_empty() && self.message.is_none()
    }

    /// The message of a topic, and what the levels take that there are not.
    fn find(&self, topic: &str) -> (Option<&Kept>, usize) {
        let (mut node, mut missing) = (Some(self), 0);
        for level in topic.split('/') {
            node = node.and_then(|node| node.children.get(level));
            if node.is_none() {
                missing += level_weight(level);
            }
        }
        (node.and_then(|node| node.message.as_ref()), missing)
    }

    /// Adds to `freed` what the levels took that are not needed any more.
    fn remove(&mut self, rest: Option<&str>, freed: &mut usize) -> Option<Kept> {
        let Some(rest) = rest else {
            return self.message.take();
        };
        let (level, below) = split_level(rest);
        let child = self.children.get_mut(level)?;
        let removed = child.remove(below, freed);
        if child.is_empty() {
            self.children.remove(level);
            *freed += level_weight(level);
        }
        removed
    }

    fn collect<'a>(
        &'a self,
        filter: Option<&str>,
        resume: Resume<'_>,
        walk: &mut Walk<'a>,
    ) -> ControlFlow<()> {
        if resume == Resume::Start && !walk.path.is_empty() {
            // `#` includes the level above it (4.7.1.2).
            let matches = matches!(filter, None | Some("#"));
            walk.visit(self.message.as_ref().filter(|_message| matches))?;
        }
        match filter.map(split_level) {
            None => ControlFlow::Continue(()),
            Some(("#", None)) => self.collect_children(filter, resume, walk),
            Some(("+", below)) => self.collect_children(below, resume, walk),
            Some((level, below)) => match self.children.get_key_value(level) {
                Some((level, child)) => child.collect_as(level, below, resume, walk),
                None => ControlFlow::Continue(()),
            },
        }
    }

    fn collect_children<'a>(
        &'a self,
        filter: Option<&str>,
        resume: Resume<'_>,
        walk: &mut Walk<'a>,
    ) -> ControlFlow<()> {
        let first = match resume {
            Resume::Behind(Some(path)) => split_level(path).0,
            Resume::Start | Resume::Behind(None) => "",
        };
        let levels = (Bound::Included(first), Bound::Unbounded);
        for (level, child) in self.children.range::<str, _>(levels) {
            // `#` and `+` at the first level leave out topics that start with `$` (4.7.2).
            let is_hidden = walk.path.is_empty() && topic::hides_from_wildcards(level);
            if !is_hidden || walk.buckets.is_some() {
                child.collect_as(level, filter, resume, walk)?;
            }
        }
        ControlFlow::Continue(())
    }

    /// Collects from this node as the child `level` of one to which `resume` applies.
    fn collect_as<'a>(
        &'a self,
        level: &'a str,
        filter: Option<&str>,
        resume: Resume<'_>,
        walk: &mut Walk<'a>,
    ) -> ControlFlow<()> {
        let resume = match resume {
            Resume::Start | Resume::Behind(None) => Resume::Start,
            Resume::Behind(Some(path)) => {
                let (reached, below) = split_level(path);
                match level.cmp(reached) {
                    Ordering::Less => return ControlFlow::Continue(()),
                    Ordering::Equal => Resume::Behind(below),
                    Ordering::Greater => Resume::Start,
                }
            }
        };
        walk.path.push(level);
        self.collect(filter, resume, walk)?;
        walk.path.pop();
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests;
