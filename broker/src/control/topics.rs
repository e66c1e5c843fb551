//! Filters and how many clients have each, counted over all shards.
//!
//! No part of the node knows these numbers, and they are not worth keeping: all subscriptions are
//! looked through for each page. What is held meanwhile is one page.

use std::{collections::BTreeMap, ops::Bound};

use super::{
    shards::{Shards, Unanswered},
    view::{Page, SubscriptionView, TopicView},
};
use crate::shard::{Piece, Query, Request, Selection};

/// Subscriptions that a shard is asked for at once.
const PIECE: usize = 512;

/// Lists the filters that begin so, as far as the query's limit.
///
/// # Errors
/// When a shard does not answer.
pub(super) async fn list(shards: &Shards, query: &Query) -> Result<Page<TopicView>, Unanswered> {
    let mut tally = Tally::new(query);
    for shard in shards.ids() {
        let mut after = None;
        loop {
            let query = Query {
                after,
                limit: PIECE,
                filter: Selection::default(),
            };
            let question = |answer| Request::Subscriptions(query, answer);
            let Piece { rows, reached } = shards.ask(shard, question).await?;
            rows.iter().for_each(|row| tally.note(row));
            if reached.is_none() {
                break;
            }
            after = reached;
        }
    }
    Ok(tally.page())
}

/// Counts the lowest filters. One that is dropped for lower ones never comes back: there are only
/// ever more of these.
struct Tally<'a> {
    query: &'a Query,
    counts: BTreeMap<String, u64>,
}

impl<'a> Tally<'a> {
    fn new(query: &'a Query) -> Self {
        Self {
            query,
            counts: BTreeMap::new(),
        }
    }

    fn note(&mut self, row: &SubscriptionView) {
        let Query {
            after,
            limit,
            filter: Selection { prefix, .. },
        } = self.query;
        let is_had = after.as_deref().is_some_and(|after| *row.filter <= *after);
        if is_had || !row.filter.starts_with(&**prefix) {
            return;
        }
        if let Some(count) = self.counts.get_mut(&row.filter) {
            *count += 1;
            return;
        }
        self.counts.insert(row.filter.clone(), 1);
        // One more than fits tells that there is a next page.
        if self.counts.len() > limit + 1 {
            self.counts.pop_last();
        }
    }

    fn page(mut self) -> Page<TopicView> {
        let is_more = self.counts.len() > self.query.limit;
        if is_more {
            self.counts.pop_last();
        }
        let last = self
            .counts
            .range::<str, _>((Bound::Unbounded, Bound::Unbounded));
        let next = last.last().map(|(filter, _count)| filter.clone());
        let rows = self
            .counts
            .into_iter()
            .map(|(filter, subscribers)| TopicView {
                filter,
                subscribers,
            });
        Page {
            rows: rows.collect(),
            next: next.filter(|_last| is_more),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(filter: &str) -> SubscriptionView {
        SubscriptionView {
            client_id: String::new(),
            filter: filter.to_owned(),
            qos: 0,
            no_local: false,
            retain_as_published: false,
            subscription_id: None,
        }
    }

    fn page(rows: &[&str], query: &Query) -> (Vec<(String, u64)>, Option<String>) {
        let mut tally = Tally::new(query);
        rows.iter().for_each(|filter| tally.note(&row(filter)));
        let Page { rows, next } = tally.page();
        let rows = rows.into_iter().map(|row| (row.filter, row.subscribers));
        (rows.collect(), next)
    }

    #[test]
    fn lowest_filters_are_counted_in_any_order_of_arrival() {
        let rows = ["e", "b", "a", "e", "d", "b", "c", "a", "b"];
        let mut query = Query {
            limit: 2,
            ..Query::default()
        };
        let counted = |pairs: &[(&str, u64)]| -> Vec<_> {
            pairs.iter().map(|(f, n)| ((*f).to_owned(), *n)).collect()
        };
        let (first, next) = page(&rows, &query);
        assert_eq!(first, counted(&[("a", 2), ("b", 3)]));
        assert_eq!(next.as_deref(), Some("b"));
        query.after = next.map(Into::into);
        let (second, next) = page(&rows, &query);
        assert_eq!(second, counted(&[("c", 1), ("d", 1)]));
        query.after = next.map(Into::into);
        let (third, next) = page(&rows, &query);
        assert_eq!((third, next), (counted(&[("e", 2)]), None));
    }

    #[test]
    fn filters_that_begin_otherwise_are_left_out() {
        let mut query = Query {
            limit: 10,
            ..Query::default()
        };
        query.filter.prefix = "a/".into();
        let (rows, next) = page(&["a", "a/b", "a/#", "b"], &query);
        assert_eq!(rows.len(), 2);
        assert_eq!(next, None);
    }
}
