//! The filters that sessions of a shard have, in order, and how many have each.
//!
//! Matching needs no order, so the tree of subscribers has none. Operators list what is subscribed to,
//! and a page of that must not cost what there is in all.

use std::{collections::BTreeMap, ops::Bound};

#[derive(Debug, Default)]
pub(super) struct Filters(BTreeMap<Box<str>, usize>);

impl Filters {
    /// Counts one more session that has the filter.
    pub(super) fn add(&mut self, filter: &str) {
        match self.0.get_mut(filter) {
            Some(count) => *count += 1,
            None => {
                self.0.insert(filter.into(), 1);
            }
        }
    }

    pub(super) fn remove(&mut self, filter: &str) {
        if let Some(count) = self.0.get_mut(filter) {
            *count -= 1;
            if *count == 0 {
                self.0.remove(filter);
            }
        }
    }

    pub(super) fn range(&self, from: Bound<&str>) -> impl Iterator<Item = (&str, usize)> {
        let range = self.0.range::<str, _>((from, Bound::Unbounded));
        range.map(|(filter, count)| (&**filter, *count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_counted_in_order_and_forgotten_with_their_last_session() {
        let mut filters = Filters::default();
        for filter in ["b", "$share/g/a", "a/#", "b", "+"] {
            filters.add(filter);
        }
        let list = |filters: &Filters, from: Bound<&str>| -> Vec<_> {
            let rows = filters.range(from);
            rows.map(|(filter, count)| (filter.to_owned(), count))
                .collect()
        };
        let all = [("$share/g/a", 1), ("+", 1), ("a/#", 1), ("b", 2)];
        let all = all.map(|(filter, count)| (filter.to_owned(), count));
        assert_eq!(list(&filters, Bound::Unbounded), all);
        assert_eq!(list(&filters, Bound::Excluded("+")), all[2..]);
        filters.remove("b");
        filters.remove("a/#");
        filters.remove("never there");
        let left = [("b".to_owned(), 1)];
        assert_eq!(list(&filters, Bound::Included("a")), left);
    }
}
