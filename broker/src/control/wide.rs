//! Listings of all nodes of the cluster, and orders for whichever node has a client.
//!
//! Each node is asked for what its own control socket shows, and rows are merged by their keys, as those
//! of shards are. A node that does not answer is named, and the others are listed.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::{Json, extract::State, http::StatusCode};
use console::api::ApiError;
use futures_util::future;
use serde::de::DeserializeOwned;
use thiserror::Error;

use super::{
    answers::ROWS,
    cluster::cluster,
    routes::{Asked, options},
    shards::merge,
    view::{
        ClientView, ClusterNodes, Kicked, NodeRow, NodeStatus, Page, Row, SessionView, SilentNode,
        SubscriptionView, TopicView, WidePage,
    },
};
use crate::{
    cluster::{
        Cluster,
        questions::{Question, Unheard},
        view::ClusterStatus,
    },
    node::Status,
    shard::{Answer, Kick, Piece, Query, Request},
};

/// How long all nodes together may take for a page: more than one of their shards may, and less than
/// who asks waits.
const PATIENCE: Duration = Duration::from_secs(8);

/// Why a node's part is missing.
#[derive(Debug, Error)]
enum Silence {
    #[error(transparent)]
    Unheard(#[from] Unheard),
    #[error("it answers what makes no sense")]
    Nonsense(#[from] serde_json::Error),
    /// What it has said itself.
    #[error("{0}")]
    Refused(String),
}

type Wide<T> = Result<Json<WidePage<T>>, ApiError>;

pub(super) async fn clients(State(status): State<Arc<Status>>, asked: Asked) -> Wide<ClientView> {
    list(&status, asked, Request::Clients, Question::Clients).await
}

pub(super) async fn sessions(State(status): State<Arc<Status>>, asked: Asked) -> Wide<SessionView> {
    list(&status, asked, Request::Sessions, Question::Sessions).await
}

pub(super) async fn subscriptions(
    State(status): State<Arc<Status>>,
    asked: Asked,
) -> Wide<SubscriptionView> {
    let (request, question) = (Request::Subscriptions, Question::Subscriptions);
    list(&status, asked, request, question).await
}

pub(super) async fn topics(State(status): State<Arc<Status>>, asked: Asked) -> Wide<TopicView> {
    list(&status, asked, Request::Topics, Question::Topics).await
}

/// How all nodes are.
pub(super) async fn nodes(
    State(status): State<Arc<Status>>,
) -> Result<Json<ClusterNodes>, ApiError> {
    let cluster = cluster(&status)?;
    let until = Instant::now() + PATIENCE;
    let members = members(&cluster.view().borrow(), "");
    let asked = members.iter().map(|(node, standing)| {
        let status = &status;
        async move {
            match standing {
                Standing::Here => Ok(status.view()),
                Standing::There => ask(cluster, node, Question::Status, until).await,
                Standing::Gone(why) => Err(Silence::Refused(why.clone())),
            }
        }
    });
    let answers: Vec<Result<NodeStatus, Silence>> = future::join_all(asked).await;
    let (mut nodes, mut silent) = (Vec::new(), Vec::new());
    for ((node, _standing), answer) in members.into_iter().zip(answers) {
        match answer {
            Ok(status) => nodes.push(status),
            Err(silence) => silent.push(SilentNode {
                node,
                trouble: silence.to_string(),
            }),
        }
    }
    Ok(Json(ClusterNodes { nodes, silent }))
}

/// Has the other nodes close a client's connection; `None` when none of them has it.
pub(super) async fn kick_elsewhere(
    cluster: &Cluster,
    kick: &Kick,
) -> Result<Option<Kicked>, ApiError> {
    let until = Instant::now() + PATIENCE;
    let mut members = members(&cluster.view().borrow(), "");
    members.retain(|(_node, standing)| *standing != Standing::Here);
    let asked = members.iter().map(|(node, standing)| async move {
        match standing {
            Standing::Here => Ok(None),
            Standing::There => {
                let question = Question::Kick(kick.clone());
                ask::<Option<Kicked>>(cluster, node, question, until).await
            }
            Standing::Gone(why) => Err(Silence::Refused(why.clone())),
        }
    });
    let answers = future::join_all(asked).await;
    let mut silent = Vec::new();
    let mut found = None;
    for ((node, _standing), answer) in members.into_iter().zip(answers) {
        match answer {
            Ok(Some(kicked)) => {
                found = Some(Kicked {
                    node: Some(node),
                    ..kicked
                });
            }
            Ok(None) => {}
            Err(silence) => silent.push(format!("{node}: {silence}")),
        }
    }
    if found.is_none() && !silent.is_empty() {
        let silent = silent.join("; ");
        let error = format!("no node that answers has the client, and some do not: {silent}");
        let hint = "try again; `tidegate-broker cluster status` tells how the nodes are";
        return Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, error, hint));
    }
    Ok(found)
}

/// How a node can be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Standing {
    Here,
    There,
    /// Not at all.
    Gone(String),
}

/// The nodes of the cluster, but for those that are to be skipped: names with commas between.
fn members(view: &ClusterStatus, skip: &str) -> Vec<(String, Standing)> {
    let here = (view.node.clone(), Standing::Here);
    let others = view.members.iter().map(|member| {
        let standing = match &member.loss {
            None if member.alive => Standing::There,
            None => Standing::Gone("it has not joined yet".to_owned()),
            Some(loss) => Standing::Gone(format!("gone: {loss}")),
        };
        (member.node.clone(), standing)
    });
    let is_wanted = |(node, _): &(String, Standing)| skip.split(',').all(|skip| skip != node);
    std::iter::once(here)
        .chain(others)
        .filter(is_wanted)
        .collect()
}

async fn ask<T: DeserializeOwned>(
    cluster: &Cluster,
    node: &str,
    question: Question,
    until: Instant,
) -> Result<T, Silence> {
    let answer = cluster.ask(node, question, until).await?;
    let answer: Result<T, String> = serde_json::from_slice(&answer)?;
    answer.map_err(Silence::Refused)
}

async fn list<T: Row + DeserializeOwned>(
    status: &Status,
    asked: Asked,
    request: fn(Query, Answer<Piece<T>>) -> Request,
    question: fn(Query) -> Question,
) -> Wide<T> {
    let cluster = cluster(status)?;
    let options = options(asked)?;
    let members = members(&cluster.view().borrow(), options.skip());
    let query = options.query()?;
    // As with shards: who has more of the rows is asked again.
    let share = (query.limit.div_ceil(members.len().max(1)) + 8).min(ROWS);
    let until = Instant::now() + PATIENCE;
    let silent = Mutex::new(BTreeMap::new());
    let piece = |index: usize, after: Option<Box<str>>| {
        let query = Query {
            after,
            limit: share,
            ..query.clone()
        };
        let (members, silent) = (&members, &silent);
        async move {
            let Some((node, standing)) = members.get(index) else {
                return Ok::<_, Infallible>(nothing());
            };
            let page = match standing {
                Standing::Here => {
                    let page = status.shards().list(&query, request).await;
                    page.map_err(|error| Silence::Refused(error.to_string()))
                }
                Standing::There => ask(cluster, node, question(query), until).await,
                Standing::Gone(why) => Err(Silence::Refused(why.clone())),
            };
            Ok(page.map_or_else(
                |silence| {
                    let mut silent = silent.lock().unwrap_or_else(PoisonError::into_inner);
                    silent.insert(node.clone(), silence.to_string());
                    nothing()
                },
                |page| named(node, page),
            ))
        }
    };
    let Ok(Page { rows, next }) = merge(0..members.len(), &query, piece).await;
    let silent = silent.into_inner().unwrap_or_else(PoisonError::into_inner);
    let silent = silent.into_iter();
    Ok(Json(WidePage {
        rows: rows.into_iter().flat_map(|group| group.0).collect(),
        next,
        silent: silent
            .map(|(node, trouble)| SilentNode { node, trouble })
            .collect(),
    }))
}

/// Rows of one key, of several nodes: a page does not end between them.
struct Group<T>(Vec<NodeRow<T>>);

impl<T: Row> Row for Group<T> {
    const HAS_PARTS: bool = true;

    fn key(&self) -> std::borrow::Cow<'_, str> {
        let first = self.0.first();
        first.map_or("".into(), |first| first.row.key())
    }

    fn add(&mut self, part: Self) {
        self.0.extend(part.0);
    }
}

fn nothing<T>() -> Piece<Group<T>> {
    Piece {
        rows: Vec::new(),
        reached: None,
    }
}

fn named<T>(node: &str, page: Page<T>) -> Piece<Group<T>> {
    let group = |row| {
        let node = node.to_owned();
        Group(vec![NodeRow { node, row }])
    };
    Piece {
        rows: page.rows.into_iter().map(group).collect(),
        reached: page.next.map(Into::into),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(names: &[(&str, bool, Option<&str>)]) -> ClusterStatus {
        let members = names.iter().map(|(node, alive, loss)| {
            serde_json::json!({
                "node": node, "address": "10.0.0.2:7883", "alive": alive, "connected": alive,
                "synced": alive, "since_seconds": 1, "loss": loss, "filters": 0, "queued_bytes": 0,
            })
        });
        let view = serde_json::json!({
            "cluster": "c", "node": "b", "listen": "10.0.0.1:7883", "acknowledge": "local",
            "left": false, "members": members.collect::<Vec<_>>(), "met": [], "troubles": [],
            "copied_sessions": 0, "bare_sessions": 0, "copies": 0, "copy_bytes": 0,
        });
        serde_json::from_value(view).unwrap()
    }

    #[test]
    fn nodes_that_are_gone_are_not_asked_and_say_why() {
        let view = view(&[
            ("a", true, None),
            ("c", false, None),
            ("d", false, Some("it takes no messages")),
        ]);
        let gone = |why: &str| Standing::Gone(why.to_owned());
        let all = [
            ("b".to_owned(), Standing::Here),
            ("a".to_owned(), Standing::There),
            ("c".to_owned(), gone("it has not joined yet")),
            ("d".to_owned(), gone("gone: it takes no messages")),
        ];
        assert_eq!(members(&view, ""), all);
        assert_eq!(members(&view, "c,d,b"), all[1..2]);
    }

    #[tokio::test]
    async fn pages_end_between_keys_and_not_between_nodes() {
        // Every node has every filter.
        let piece = |node: usize, after: Option<Box<str>>| async move {
            let first = after.map_or(0, |after| after.parse::<u32>().unwrap() + 1);
            let rows = (first..30).take(3).map(|number| TopicView {
                filter: format!("{number:02}"),
                subscribers: node as u64,
            });
            let rows: Vec<_> = rows.collect();
            let last = rows.last().map(|row| row.filter.clone());
            let next = last.filter(|last| last != "29");
            Ok::<_, Infallible>(named(&format!("n{node}"), Page { rows, next }))
        };
        let mut after = None;
        let mut listed = Vec::new();
        loop {
            let query = Query {
                after,
                limit: 7,
                ..Query::default()
            };
            let Ok(page) = merge(0..3, &query, piece).await;
            assert!(page.rows.len() <= 7);
            for Group(rows) in page.rows {
                let nodes: Vec<_> = rows.iter().map(|row| &*row.node).collect();
                assert_eq!(nodes, ["n0", "n1", "n2"]);
                listed.extend(rows.into_iter().next().map(|row| row.row.filter));
            }
            let Some(next) = page.next else { break };
            after = Some(next.into());
        }
        let expected: Vec<_> = (0..30).map(|number| format!("{number:02}")).collect();
        assert_eq!(listed, expected);
    }
}
