//! Which node has subscribers for which filters.
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

/// Bytes of filters in one item, more or less.
const ITEM_BYTES: usize = sized(64 * 1024);

/// Bytes of changes that wait to be told. When there are more, copies of all filters are sent, which is
/// no more work.
const UNTOLD_BYTES: usize = sized(4 * 1024 * 1024);

/// The filters of this node.
#[derive(Debug, Default)]
pub(crate) struct Table {
    filters: BTreeMap<Box<str>, u32>,
    /// Not told to anybody.
    changes: Vec<Change>,
    untold_bytes: usize,
    /// The number of the last change.
    version: u64,
}

impl Table {
    /// Notes that one more shard has the filter; the result is whether it is new to the node.
    pub(crate) fn add(&mut self, filter: &str) -> bool {
        if let Some(shards) = self.filters.get_mut(filter) {
            *shards += 1;
            return false;
        }
        self.filters.insert(filter.into(), 1);
        self.change(Change::Added(filter.into()));
        true
    }

    /// Notes that one shard less has the filter; the result is whether the node has lost it.
    pub(crate) fn remove(&mut self, filter: &str) -> bool {
        let Some(shards) = self.filters.get_mut(filter) else {
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

    fn change(&mut self, change: Change) {
        self.version += 1;
        self.untold_bytes += weight(&change);
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
            bytes += weight(&change);
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
            let Some((filter, _shards)) = rest.next() else {
                break true;
            };
            bytes += filter.len() + 4;
            filters.push(filter.clone());
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
    pub(super) fn filters(&self) -> BTreeSet<Box<str>> {
        self.filters.keys().cloned().collect()
    }
}

/// The filters of another node.
#[derive(Debug, Default)]
pub(super) struct Remote(BTreeSet<Box<str>>);

impl Remote {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Box<str>> {
        self.0.iter()
    }

    #[cfg(test)]
    pub(super) fn contains(&self, filter: &str) -> bool {
        self.0.contains(filter)
    }

    /// Takes changes in; the result is those that are any.
    pub(super) fn handle_changes(&mut self, changes: Vec<Change>) -> Vec<Change> {
        let real = changes.into_iter().filter(|change| match change {
            Change::Added(filter) => self.0.insert(filter.clone()),
            Change::Removed(filter) => self.0.remove(filter),
        });
        real.collect()
    }

    /// Takes a page in; the result is what it changes.
    pub(super) fn handle_page(&mut self, page: Page) -> Vec<Change> {
        let last = if page.is_last {
            Bound::Unbounded
        } else {
            match page.filters.last() {
                Some(last) => Bound::Included(&**last),
                // An empty page that is not the last one says nothing.
                None => return Vec::new(),
            }
        };
        let (first, _unbounded) = behind(page.after.as_deref());
        let is_empty = match (first, last) {
            (Bound::Excluded(first), Bound::Included(last)) => first >= last,
            _ => false,
        };
        let there: BTreeSet<_> = page.filters.iter().collect();
        let mut changes = Vec::new();
        if !is_empty {
            let had = self.0.range::<str, _>((first, last));
            let gone = had.filter(|filter| !there.contains(filter));
            changes.extend(gone.cloned().map(Change::Removed));
        }
        changes.extend(page.filters.into_iter().map(Change::Added));
        self.handle_changes(changes)
    }
}

fn weight(change: &Change) -> usize {
    let (Change::Added(filter) | Change::Removed(filter)) = change;
    filter.len() + 4
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
            after = page.filters.last().cloned();
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
    fn long_lists_come_in_pieces_and_pages() {
        let mut table = Table::default();
        for number in 0..2_000 {
            table.add(&format!("plant/{number}/state"));
        }
        let pieces = table.take_changes().unwrap();
        assert!(pieces.len() > 4 && pieces.iter().map(Vec::len).sum::<usize>() == 2_000);
        let mut remote = Remote::default();
        copy(&mut table, &mut remote);
        assert_eq!(remote.0, table.filters());
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
        let mut remote = Remote(["b".into()].into());
        for (after, last) in [("z", "a"), ("b", "b")] {
            remote.handle_page(Page {
                after: Some(after.into()),
                filters: vec![last.into()],
                is_last: false,
            });
        }
        assert!(remote.contains("b"));
    }

    proptest! {
        #[test]
        fn copy_replaces_whatever_was_there(
            before in vec("[a-c]{1,3}", 0..30),
            filters in vec("[a-c]{1,3}", 0..30),
        ) {
            let mut remote = Remote(before.into_iter().map(Into::into).collect());
            let mut table = Table::default();
            for filter in &filters {
                table.add(filter);
            }
            copy(&mut table, &mut remote);
            prop_assert_eq!(remote.0, table.filters());
        }
    }
}
