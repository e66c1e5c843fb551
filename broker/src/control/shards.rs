//! Asking the shards.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future;
use thiserror::Error;
use tokio::{
    sync::{mpsc, oneshot},
    time,
};

use super::view::{Page, Row};
use crate::{
    routes::ShardId,
    shard::{Answer, Piece, Query, Request, Shared},
};

/// A shard answers between two turns of its clients; one that takes this long is stuck.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Rounds of questions that find nothing before a page is cut short: few of many are wanted.
const BARREN_ROUNDS: usize = 64;

/// Bytes of keys in a page before it is cut short. A client id or filter may be 64 KB.
const PAGE_BYTES: usize = 1024 * 1024;

/// A shard did not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("shard {} of this node does not answer", .0.0)]
pub(crate) struct Unanswered(pub(crate) ShardId);

/// All shards of the node.
#[derive(Clone)]
pub(crate) struct Shards {
    shared: Arc<Shared>,
    requests: Vec<mpsc::Sender<Request>>,
}

impl Shards {
    pub(crate) fn new(shared: Arc<Shared>, requests: Vec<mpsc::Sender<Request>>) -> Self {
        Self { shared, requests }
    }

    /// What the shards have in common.
    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// The shard that a client belongs to.
    pub(crate) fn of(&self, client_id: &str) -> ShardId {
        self.shared.shard_of(client_id)
    }

    /// Asks one shard.
    ///
    /// # Errors
    /// When it has ended, or is stuck.
    pub(crate) async fn ask<T>(
        &self,
        shard: ShardId,
        question: impl FnOnce(Answer<T>) -> Request,
    ) -> Result<T, Unanswered> {
        let unanswered = Unanswered(shard);
        let requests = self.requests.get(usize::from(shard.0)).ok_or(unanswered)?;
        let (answer, answered) = oneshot::channel();
        let asked = async {
            requests.send(question(answer)).await.ok()?;
            answered.await.ok()
        };
        let answer = time::timeout(ANSWER_TIMEOUT, asked).await;
        answer.ok().flatten().ok_or(unanswered)
    }

    /// Asks all shards at once; each answer comes with the time that it took.
    pub(crate) async fn ask_all<T>(
        &self,
        question: impl Fn(Answer<T>) -> Request,
    ) -> Vec<(Result<T, Unanswered>, Duration)> {
        let asked = self.ids().map(async |shard| {
            let start = Instant::now();
            let answer = self.ask(shard, &question).await;
            (answer, start.elapsed())
        });
        future::join_all(asked).await
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = ShardId> {
        (0..self.shared.shards).map(ShardId)
    }

    /// Merges the shards' listings up to the query's limit.
    ///
    /// # Errors
    /// When a shard does not answer.
    pub(crate) async fn list<T: Row>(
        &self,
        query: &Query,
        question: impl Fn(Query, Answer<Piece<T>>) -> Request,
    ) -> Result<Page<T>, Unanswered> {
        // Clients are spread evenly; who has more of these is asked again.
        let share = query.limit.div_ceil(usize::from(self.shared.shards)) + 8;
        let ask = async |shard, after| {
            let query = Query {
                after,
                limit: share,
                ..query.clone()
            };
            self.ask(shard, |answer| question(query, answer)).await
        };
        merge(self.ids(), query, ask).await
    }
}

/// Merges pieces of listings, of shards or of nodes, into one page.
///
/// A page is cut short where little is found: who asks goes on from there, and nobody waits for
/// long.
pub(super) async fn merge<T: Row, S: Copy, E, F>(
    sources: impl Iterator<Item = S>,
    query: &Query,
    ask: impl Fn(S, Option<Box<str>>) -> F,
) -> Result<Page<T>, E>
where
    F: Future<Output = Result<Piece<T>, E>>,
{
    let mut sources: Vec<_> = sources
        .map(|id| Source {
            id,
            rows: Vec::new().into_iter().peekable(),
            reached: Some(query.after.clone()),
        })
        .collect();
    let mut rows: Vec<T> = Vec::new();
    let (mut bytes, mut barren) = (0, 0);
    loop {
        let is_full = rows.len() >= query.limit || bytes >= PAGE_BYTES;
        if is_full && !T::HAS_PARTS {
            break;
        }
        while barren < BARREN_ROUNDS && sources.iter_mut().any(|source| source.is_starved()) {
            let found = refill(&mut sources, &ask).await?;
            barren += usize::from(!found);
        }
        // Behind the place that a source has come to it may have rows that go before the others'.
        let mut starved = Vec::new();
        for source in &mut sources {
            if source.is_starved() {
                starved.extend(source.reached.clone());
            }
        }
        let bound = starved.into_iter().min();
        let Some(row) = next_row(&mut sources, bound.as_ref()) else {
            let next = bound.flatten().map(Into::into);
            return Ok(Page { rows, next });
        };
        match rows.last_mut() {
            Some(last) if T::HAS_PARTS && last.key() == row.key() => last.add(row),
            // All parts of the last row are there.
            Some(last) if is_full => {
                let next = Some(last.key().into_owned());
                return Ok(Page { rows, next });
            }
            Some(_) | None => {
                bytes += row.key().len();
                rows.push(row);
            }
        }
    }
    let is_more = sources
        .iter_mut()
        .any(|source| source.reached.is_some() || source.rows.peek().is_some());
    let next = rows.last().map(|row| row.key().into_owned());
    Ok(Page {
        next: next.filter(|_key| is_more),
        rows,
    })
}

/// Asks those whose rows are used up for more, all at once; tells whether there are any.
async fn refill<T, S: Copy, E, F>(
    sources: &mut [Source<T, S>],
    ask: &impl Fn(S, Option<Box<str>>) -> F,
) -> Result<bool, E>
where
    F: Future<Output = Result<Piece<T>, E>>,
{
    let mut asked = Vec::new();
    for source in sources {
        if source.is_starved()
            && let Some(after) = source.reached.take()
        {
            let answer = ask(source.id, after);
            asked.push(async move {
                let piece = answer.await?;
                let found = !piece.rows.is_empty();
                source.rows = piece.rows.into_iter().peekable();
                source.reached = piece.reached.map(Some);
                Ok::<_, E>(found)
            });
        }
    }
    let found = future::try_join_all(asked).await?;
    Ok(found.into_iter().any(|found| found))
}

/// Rows of one shard or node that are not in the page yet.
struct Source<T, S> {
    id: S,
    rows: std::iter::Peekable<std::vec::IntoIter<T>>,
    /// Where to go on: behind a key, or at the beginning. `None` when there are no more.
    reached: Option<Option<Box<str>>>,
}

impl<T, S> Source<T, S> {
    fn is_starved(&mut self) -> bool {
        self.reached.is_some() && self.rows.peek().is_none()
    }
}

/// Takes the row with the lowest key, if that is not behind the bound.
fn next_row<T: Row, S>(
    sources: &mut [Source<T, S>],
    bound: Option<&Option<Box<str>>>,
) -> Option<T> {
    let mut first: Option<(usize, Box<str>)> = None;
    for (index, source) in sources.iter_mut().enumerate() {
        let Some(row) = source.rows.peek() else {
            continue;
        };
        let key = row.key();
        if first.as_ref().is_none_or(|(_, lowest)| *key < **lowest) {
            first = Some((index, key.into()));
        }
    }
    let (index, lowest) = first?;
    let is_safe = bound.is_none_or(|bound| bound.as_ref().is_some_and(|bound| lowest <= *bound));
    is_safe.then(|| sources.get_mut(index)?.rows.next())?
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::control::view::TopicView;

    fn row(filter: String) -> TopicView {
        TopicView {
            filter,
            subscribers: 1,
        }
    }

    /// Lists what a shard finds among the numbers from 0 to 1,000,000, a hundred at a look.
    async fn list(
        limit: usize,
        after: Option<Box<str>>,
        wanted: impl Fn(u16, u32) -> Option<String>,
    ) -> (Page<TopicView>, usize) {
        let asked = Cell::new(0);
        let ask = async |shard: ShardId, after: Option<Box<str>>| {
            asked.set(asked.get() + 1);
            let first = after.map_or(0, |after| after[..7].parse::<u32>().unwrap() + 1);
            let last = first + 99;
            let rows = (first..=last).filter_map(|number| wanted(shard.0, number));
            Ok::<_, Unanswered>(Piece {
                rows: rows.map(row).collect(),
                reached: (last < 999_999).then(|| format!("{last:07}").into()),
            })
        };
        let query = Query {
            after,
            limit,
            filter: crate::shard::Selection::default(),
        };
        let shards = (0..2).map(ShardId);
        let page = merge(shards, &query, ask).await;
        (page.unwrap(), asked.get())
    }

    #[tokio::test]
    async fn parts_of_a_row_are_added_up_wherever_a_page_ends() {
        // Of the numbers that 3 divides both shards have some.
        let wanted = |shard: u16, number: u32| {
            let is_it =
                number < 500 && (number.is_multiple_of(3) || number % 2 == u32::from(shard));
            is_it.then(|| format!("{number:07}"))
        };
        for limit in [1, 7, 100, 499, 500, 1000] {
            let mut found = Vec::new();
            let mut after = None;
            loop {
                let (page, _asked) = list(limit, after, wanted).await;
                assert!(page.rows.len() <= limit);
                found.extend(page.rows);
                let Some(next) = page.next else { break };
                after = Some(next.into());
            }
            let expected = (0..500_u32).map(|number| TopicView {
                filter: format!("{number:07}"),
                subscribers: 1 + u64::from(number.is_multiple_of(3)),
            });
            assert_eq!(found, expected.collect::<Vec<_>>(), "{limit}");
        }
    }

    #[tokio::test]
    async fn listing_of_few_among_many_comes_in_short_pages() {
        // Each shard has its own.
        let wanted = |shard: u16, number: u32| {
            let is_it = number % 100_000 == 7 && number / 100_000 % 2 == u32::from(shard);
            is_it.then(|| format!("{number:07}"))
        };
        let mut found = Vec::new();
        let mut after = None;
        let mut pages = 0;
        loop {
            let (page, asked) = list(100, after, wanted).await;
            assert!(asked <= 3 * BARREN_ROUNDS, "{asked}");
            found.extend(page.rows.into_iter().map(|row| row.filter));
            pages += 1;
            let Some(next) = page.next else { break };
            after = Some(next.into());
        }
        let expected: Vec<_> = (0..10).map(|n| format!("{:07}", n * 100_000 + 7)).collect();
        assert_eq!(found, expected);
        assert!(pages > 10);
    }

    #[tokio::test]
    async fn page_of_long_keys_is_cut_short() {
        let long = "x".repeat(60_000);
        let wanted = |_shard: u16, number: u32| Some(format!("{number:07}{long}"));
        let (page, _asked) = list(1000, None, wanted).await;
        assert!(page.rows.len() < 20 && page.next.is_some());
    }
}
