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
    pub(super) fn shared(&self) -> &Shared {
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

    pub(super) fn ids(&self) -> impl Iterator<Item = ShardId> {
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
        let first = self.ids().map(async |shard| {
            let piece = ask(shard, query.after.clone()).await?;
            Ok(Source::new(shard, piece))
        });
        let mut sources = future::try_join_all(first).await?;
        let mut rows: Vec<T> = Vec::new();
        while rows.len() < query.limit {
            for source in &mut sources {
                while source.rows.peek().is_none()
                    && let Some(reached) = source.reached.take()
                {
                    *source = Source::new(source.shard, ask(source.shard, Some(reached)).await?);
                }
            }
            let Some(row) = next_row(&mut sources) else {
                return Ok(Page { rows, next: None });
            };
            rows.push(row);
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
}

/// Rows of one shard that are not in the page yet.
struct Source<T> {
    shard: ShardId,
    rows: std::iter::Peekable<std::vec::IntoIter<T>>,
    reached: Option<Box<str>>,
}

impl<T> Source<T> {
    fn new(shard: ShardId, piece: Piece<T>) -> Self {
        Self {
            shard,
            rows: piece.rows.into_iter().peekable(),
            reached: piece.reached,
        }
    }
}

/// Takes the row with the lowest key.
fn next_row<T: Row>(sources: &mut [Source<T>]) -> Option<T> {
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
    sources.get_mut(first?.0)?.rows.next()
}
