//! Which node has subscribers for which filters, and members of which groups.
//!
//! A node keeps a table of its own filters, each with the number of shards that have it, and tells
//! all others of each filter that is new or gone. They travel in the stream of the pair, as messages
//! do, so they are in order and never lost as long as it lasts. A new stream begins with a copy of
//! all filters, in pages in their order: a page replaces what the other end has between its first and
//! last filter, so that nothing is forgotten meanwhile that is still true. Changes made while the
//! pages are read travel between them; that they are told twice does no harm.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

use super::{
    sized,
    wire::{Change, Page},
};
use crate::{
    shares::Room,
    topic::{self, Wanted},
};

/// Bytes of filters in one item, more or less.
const ITEM_BYTES: usize = sized(64 * 1024);

/// Bytes of changes that wait to be told. When there are more, copies of all filters are sent, which is
/// no more work.
const UNTOLD_BYTES: usize = sized(4 * 1024 * 1024);

/// The filters of this node.
#[derive(Debug, Default)]
pub(crate) struct Table {
    filters: BTreeMap<Box<str>, Holding>,
    /// Not told to anybody.
    changes: Vec<Change>,
    untold_bytes: usize,
    /// The number of the last change.
    version: u64,
}

/// What the node has of a filter.
#[derive(Debug)]
enum Holding {
    /// So many shards with subscribers.
    Shards(u32),
    /// Members of a group, which can take so much.
    Group(Room),
}

impl Holding {
    fn room(&self) -> Option<Room> {
        match self {
            Self::Shards(_) => None,
            Self::Group(room) => Some(*room),
        }
    }
}

impl Table {
    /// Notes that one more shard has the filter; the result is whether it is new to the node.
    pub(crate) fn add(&mut self, filter: &str) -> bool {
        if let Some(Holding::Shards(shards)) = self.filters.get_mut(filter) {
            *shards += 1;
            return false;
        }
        self.filters.insert(filter.into(), Holding::Shards(1));
        self.change(Change::Added(filter.into()));
        true
    }

    /// Notes that one shard less has the filter; the result is whether the node has lost it.
    pub(crate) fn remove(&mut self, filter: &str) -> bool {
        let Some(Holding::Shards(shards)) = self.filters.get_mut(filter) else {
            return false;
        };
        *shards -= 1;
        if *shards > 0 {
            return false;
        }
        self.filters.remove(filter);
        self.change(Change::Removed(filter.into()));
        true
    }

    /// Notes what the members of a group can take, which goes by its filter; `None` when there are none.
    /// The result is whether others are to know.
    pub(crate) fn set_group(&mut self, filter: &str, room: Option<Room>) -> bool {
        let told = self.filters.get(filter).and_then(Holding::room);
        match (room, told) {
            (None, None) => false,
            (None, Some(_)) => {
                self.filters.remove(filter);
                self.change(Change::Removed(filter.into()));
                true
            }
            (Some(room), Some(told)) if room.is_near(told) => false,
            (Some(room), _) => {
                self.filters.insert(filter.into(), Holding::Group(room));
                self.change(Change::Group(filter.into(), room));
                true
            }
        }
    }

    fn change(&mut self, change: Change) {
        self.version += 1;
        self.untold_bytes += weight(change.filter());
        if self.untold_bytes > UNTOLD_BYTES {
            self.changes.clear();
        } else {
            self.changes.push(change);
        }
    }

    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// Takes what is to be told to all, in pieces for one item each; `None` when it is too much.
    pub(super) fn take_changes(&mut self) -> Option<Vec<Vec<Change>>> {
        if std::mem::take(&mut self.untold_bytes) > UNTOLD_BYTES {
            return None;
        }
        let mut pieces = Vec::new();
        let mut piece = Vec::new();
        let mut bytes = 0;
        for change in self.changes.drain(..) {
            bytes += weight(change.filter());
            piece.push(change);
            if bytes >= ITEM_BYTES {
                pieces.push(std::mem::take(&mut piece));
                bytes = 0;
            }
        }
        if !piece.is_empty() {
            pieces.push(piece);
        }
        Some(pieces)
    }

    /// The filters behind `after`, as many as one item takes.
    pub(super) fn page(&self, after: Option<&str>) -> Page {
        let mut filters = Vec::new();
        let mut bytes = 0;
        let mut rest = self.filters.range::<str, _>(behind(after));
        let is_last = loop {
            let Some((filter, holding)) = rest.next() else {
                break true;
            };
            bytes += weight(filter);
            filters.push((filter.clone(), holding.room()));
            if bytes >= ITEM_BYTES {
                break false;
            }
        };
        Page {
            after: after.map(Into::into),
            filters,
            is_last,
        }
    }

    #[cfg(test)]
    pub(super) fn room(&self, filter: &str) -> Option<Room> {
        self.filters.get(filter)?.room()
    }

    #[cfg(test)]
    pub(super) fn filters(&self) -> BTreeSet<Box<str>> {
        self.filters.keys().cloned().collect()
    }
}

/// What a client could have subscribed to by this name.
fn parse(filter: &str) -> Option<Wanted<'_>> {
    topic::parse_filter(filter).filter(|_wanted| filter.len() <= usize::from(u16::MAX))
}

/// Bytes that a filter takes on its way, more or less.
fn weight(filter: &str) -> usize {
    filter.len() + 8
}

impl Change {
    fn filter(&self) -> &str {
        let (Self::Added(filter) | Self::Group(filter, _) | Self::Removed(filter)) = self;
        filter
    }

    fn of(filter: Box<str>, room: Option<Room>) -> Self {
        match room {
            None => Self::Added(filter),
            Some(room) => Self::Group(filter, room),
        }
    }

    /// Whether a node can have said so that keeps to the rules.
    pub(super) fn is_valid(&self) -> bool {
        let wanted = parse(self.filter());
        match self {
            Self::Added(_) => matches!(wanted, Some(Wanted::All(_))),
            Self::Group(..) => matches!(wanted, Some(Wanted::Share(_))),
            Self::Removed(_) => wanted.is_some(),
        }
    }
}

impl Page {
    /// As [`Change::is_valid`].
    pub(super) fn is_valid(&self) -> bool {
        let mut filters = self.filters.iter();
        filters.all(|(filter, room)| match parse(filter) {
            Some(Wanted::All(_)) => room.is_none(),
            Some(Wanted::Share(_)) => room.is_some(),
            None => false,
        })
    }
}

/// The filters of another node, and what its members of groups can take.
#[derive(Debug, Default)]
pub(super) struct Remote(BTreeMap<Box<str>, Option<Room>>);

impl Remote {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// All of them, as they were told when they were new.
    pub(super) fn iter(&self) -> impl Iterator<Item = Change> + '_ {
        let filters = self.0.iter();
        filters.map(|(filter, room)| Change::of(filter.clone(), *room))
    }

    /// All of them, as they are told when they are gone.
    pub(super) fn gone(&self) -> impl Iterator<Item = Change> + '_ {
        self.0.keys().cloned().map(Change::Removed)
    }

    #[cfg(test)]
    pub(super) fn contains(&self, filter: &str) -> bool {
        self.0.contains_key(filter)
    }

    /// Takes changes in; the result is those that are any.
    pub(super) fn handle_changes(&mut self, changes: Vec<Change>) -> Vec<Change> {
        let real = changes.into_iter().filter(|change| match change {
            Change::Added(filter) => self.0.insert(filter.clone(), None) != Some(None),
            Change::Group(filter, room) => {
                let room = Some(*room);
                self.0.insert(filter.clone(), room) != Some(room)
            }
            Change::Removed(filter) => self.0.remove(filter).is_some(),
        });
        real.collect()
    }

    /// Takes a page in; the result is what it changes.
    pub(super) fn handle_page(&mut self, page: Page) -> Vec<Change> {
        let last = if page.is_last {
            Bound::Unbounded
        } else {
            match page.filters.last() {
                Some((last, _room)) => Bound::Included(&**last),
                // An empty page that is not the last one says nothing.
                None => return Vec::new(),
            }
        };
        let (first, _unbounded) = behind(page.after.as_deref());
        let is_empty = match (first, last) {
            (Bound::Excluded(first), Bound::Included(last)) => first >= last,
            _ => false,
        };
        let there = page.filters.iter().map(|(filter, _room)| filter);
        let there: BTreeSet<_> = there.collect();
        let mut changes = Vec::new();
        if !is_empty {
            let had = self.0.range::<str, _>((first, last));
            let gone = had
                .map(|(filter, _room)| filter)
                .filter(|filter| !there.contains(filter));
            changes.extend(gone.cloned().map(Change::Removed));
        }
        let there = page.filters.into_iter();
        changes.extend(there.map(|(filter, room)| Change::of(filter, room)));
        self.handle_changes(changes)
    }
}

fn behind(after: Option<&str>) -> (Bound<&str>, Bound<&str>) {
    let first = after.map_or(Bound::Unbounded, Bound::Excluded);
    (first, Bound::Unbounded)
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn copy(table: &mut Table, remote: &mut Remote) {
        let mut after = None;
        loop {
            let page = table.page(after.as_deref());
            after = page.filters.last().map(|(filter, _room)| filter.clone());
            let is_last = page.is_last;
            remote.handle_page(page);
            if is_last {
                return;
            }
        }
    }

    #[test]
    fn filter_is_told_of_when_the_first_shard_has_it_and_the_last_one_has_not() {
        let mut table = Table::default();
        assert!(table.add("a/#") && !table.add("a/#"));
        assert!(!table.remove("a/#") && table.remove("a/#"));
        assert!(!table.remove("a/#"));
        let told = table.take_changes().unwrap().concat();
        let (added, removed) = (Change::Added("a/#".into()), Change::Removed("a/#".into()));
        assert_eq!(told, [added, removed]);
        assert_eq!(table.version(), 2);
        assert_eq!(table.take_changes(), Some(Vec::new()));
    }

    #[test]
    fn group_is_told_of_when_what_it_can_take_is_other_than_what_others_know() {
        let room = |open| Room {
            open,
            ..Room::default()
        };
        let group: Box<str> = "$share/g/t".into();
        let mut table = Table::default();
        let mut remote = Remote::default();
        for (open, is_told) in [(1, true), (1, false), (100, true), (101, false), (0, true)] {
            assert_eq!(table.set_group(&group, Some(room(open))), is_told, "{open}");
            let told = table.take_changes().unwrap().concat();
            let change = Change::Group(group.clone(), room(open));
            assert_eq!(told, Vec::from_iter(is_told.then_some(change)));
            assert_eq!(remote.handle_changes(told.clone()), told);
            assert!(remote.handle_changes(told).is_empty());
        }
        assert!(table.set_group(&group, None) && !table.set_group(&group, None));
        let told = table.take_changes().unwrap().concat();
        assert_eq!(told, [Change::Removed(group)]);
        assert_eq!(remote.handle_changes(told).len(), 1);
        assert_eq!(remote.len(), 0);
    }

    #[test]
    fn group_and_filter_are_not_taken_for_each_other() {
        let room = Room::default();
        for (filter, is_group) in [("a/#", false), ("$share/g/a", true), ("$queue/a", true)] {
            let group = Change::Group(filter.into(), room);
            assert_eq!(group.is_valid(), is_group);
            assert_eq!(Change::Added(filter.into()).is_valid(), !is_group);
            assert!(Change::Removed(filter.into()).is_valid());
            for is_told in [false, true] {
                let page = Page {
                    after: None,
                    filters: vec![(filter.into(), is_told.then_some(room))],
                    is_last: true,
                };
                assert_eq!(page.is_valid(), is_told == is_group);
            }
        }
        for filter in ["a/#/b", "$share/g", "$share/g/#/b/#/c"] {
            assert!(!Change::Removed(filter.into()).is_valid());
        }
    }

    #[test]
    fn long_lists_come_in_pieces_and_pages() {
        let mut table = Table::default();
        for number in 0..2_000 {
            table.add(&format!("plant/{number}/state"));
        }
        let pieces = table.take_changes().unwrap();
        assert!(pieces.len() > 4 && pieces.iter().map(Vec::len).sum::<usize>() == 2_000);
        let mut remote = Remote::default();
        copy(&mut table, &mut remote);
        assert!(remote.0.into_keys().eq(table.filters()));
    }

    #[test]
    fn changes_that_nobody_takes_are_no_heap() {
        let mut table = Table::default();
        for _ in 0..UNTOLD_BYTES / 8 {
            table.add("a/b/c");
            table.remove("a/b/c");
        }
        assert!(table.changes.len() < UNTOLD_BYTES / 8);
        let version = table.version();
        assert_eq!(table.take_changes(), None);
        table.add("a");
        assert_eq!(table.take_changes().unwrap().concat().len(), 1);
        assert_eq!(table.version(), version + 1);
    }

    #[test]
    fn page_that_ends_before_it_begins_is_no_reason_to_panic() {
        let mut remote = Remote([("b".into(), None)].into());
        for (after, last) in [("z", "a"), ("b", "b")] {
            remote.handle_page(Page {
                after: Some(after.into()),
                filters: vec![(last.into(), None)],
                is_last: false,
            });
        }
        assert!(remote.contains("b"));
    }

    proptest! {
        #[test]
        fn copy_replaces_whatever_was_there(
            before in vec("[a-c]{1,3}", 0..30),
            filters in vec(("[a-c]{1,3}", 0_u32..3), 0..30),
        ) {
            let before = before.into_iter().map(|filter| (filter.into(), None));
            let mut remote = Remote(before.collect());
            let mut table = Table::default();
            for (filter, members) in &filters {
                let room = Room { open: *members, ..Room::default() };
                if *members > 0 {
                    table.set_group(&format!("$queue/{filter}"), Some(room));
                } else {
                    table.add(filter);
                }
            }
            copy(&mut table, &mut remote);
            let rooms = table.filters.iter().map(|(filter, held)| (filter.clone(), held.room()));
            prop_assert_eq!(remote.0, rooms.collect::<BTreeMap<_, _>>());
        }
    }
}
