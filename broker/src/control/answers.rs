//! What other nodes of the cluster ask this one: the same as its own control socket is asked.

use std::sync::Arc;

use serde::Serialize;
use tokio::{sync::mpsc, task::JoinSet};

use super::view::{Page, Row};
use crate::{
    cluster::questions::{Asked, Question, Ticket},
    node::Status,
    shard::{Answer, Piece, Query, Request},
};

/// The most rows of an answer: the listing goes on with another question.
pub(super) const ROWS: usize = 1000;

/// Bytes of an answer before rows are left for the next one. Names of users may be long, too.
const BYTES: usize = 4 * 1024 * 1024;

/// Answers for as long as the cluster's thread asks; it bounds how many are worked on.
pub(crate) async fn answer_others(status: Arc<Status>, mut asked: mpsc::Receiver<Asked>) {
    let mut answers = JoinSet::new();
    loop {
        tokio::select! {
            next = asked.recv() => match next {
                Some(Asked { question, ticket }) => {
                    answers.spawn(reply(Arc::clone(&status), question, ticket));
                }
                None => break,
            },
            Some(_answered) = answers.join_next() => {}
        }
    }
    // Of the thread's end the node hears by itself.
    std::future::pending::<()>().await;
}

async fn reply(status: Arc<Status>, question: Question, ticket: Ticket) {
    let answer = answer(&status, question).await;
    if let Some(cluster) = status.cluster() {
        cluster.reply(ticket, answer).await;
    }
}

async fn answer(status: &Status, question: Question) -> Vec<u8> {
    match question {
        Question::Status => encode(&Ok(status.view())),
        Question::Clients(query) => list(status, query, Request::Clients).await,
        Question::Sessions(query) => list(status, query, Request::Sessions).await,
        Question::Subscriptions(query) => list(status, query, Request::Subscriptions).await,
        Question::Topics(query) => list(status, query, Request::Topics).await,
        Question::Kick(kick) => {
            let shards = status.shards();
            let shard = shards.of(&kick.client_id);
            let kicked = shards.ask(shard, |answer| Request::Kick(kick, answer));
            encode(&kicked.await.map_err(|error| error.to_string()))
        }
    }
}

async fn list<T: Row + Serialize>(
    status: &Status,
    query: Query,
    request: fn(Query, Answer<Piece<T>>) -> Request,
) -> Vec<u8> {
    let query = Query {
        limit: query.limit.clamp(1, ROWS),
        ..query
    };
    match status.shards().list(&query, request).await {
        Ok(page) => fit(page, BYTES),
        Err(error) => encode::<Page<T>>(&Err(error.to_string())),
    }
}

/// Leaves rows for the next question until the rest is short enough, or is one row.
fn fit<T: Row + Serialize>(page: Page<T>, most: usize) -> Vec<u8> {
    let Page { mut rows, mut next } = page;
    loop {
        let answer = Ok(Page { rows, next });
        let bytes = encode(&answer);
        let Ok(page) = answer else { return bytes };
        if bytes.len() <= most || page.rows.len() <= 1 {
            return bytes;
        }
        rows = page.rows;
        rows.truncate(rows.len() / 2);
        next = rows.last().map(|row| row.key().into_owned());
    }
}

fn encode<T: Serialize>(answer: &Result<T, String>) -> Vec<u8> {
    // Maps with keys that are no strings have no JSON; there are none.
    serde_json::to_vec(answer).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::view::TopicView;

    #[test]
    fn long_answers_leave_rows_for_the_next_question() {
        let rows = (0..100).map(|number| TopicView {
            filter: format!("{number:03}{}", "x".repeat(100)),
            subscribers: 1,
        });
        let page = Page {
            rows: rows.collect(),
            next: None,
        };
        let read = |bytes: &[u8]| -> Page<TopicView> {
            let answer: Result<_, String> = serde_json::from_slice(bytes).unwrap();
            answer.unwrap()
        };
        assert_eq!(read(&fit(page.clone(), BYTES)), page);
        let bytes = fit(page.clone(), 5000);
        let short = read(&bytes);
        assert!(bytes.len() <= 5000 && short.rows.len() == 25, "{short:?}");
        assert_eq!(
            short.next.as_ref(),
            short.rows.last().map(|row| &row.filter)
        );
        // However little there is room for, the listing goes on.
        assert_eq!(read(&fit(page, 1)).rows.len(), 1);
    }
}
