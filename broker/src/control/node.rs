//! Routes by which clients are sent away from the node.

use std::{
    num::NonZeroU32,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Json,
    extract::{State, rejection::JsonRejection},
    http::StatusCode,
};
use console::api::ApiError;
use tracing::info;

use super::{
    cluster::cluster,
    view::{EvacuationView, NodeStatus, Rebalance, SendAway},
};
use crate::{
    cluster::view::Tally,
    config,
    evacuation::{Aim, NoShare, Order, Other, Referral, Stopping, Term, Wills, fair_share},
    events::Event,
    metrics::Metric,
    node::Status,
};

/// Faster than that is not sending away but stopping.
const FASTEST: u32 = 100_000;

const LONGEST_WAIT: Duration = Duration::from_hours(1);

/// Servers that clients may be told of: they are in each goodbye.
const MOST_SERVERS: usize = 8;

pub(super) async fn evacuate(
    State(status): State<Arc<Status>>,
    order: Result<Json<SendAway>, JsonRejection>,
) -> Result<Json<EvacuationView>, ApiError> {
    let Json(terms) = order.map_err(unreadable)?;
    start(&status, Aim::Empty, terms)
}

pub(super) async fn rebalance(
    State(status): State<Arc<Status>>,
    order: Result<Json<Rebalance>, JsonRejection>,
) -> Result<Json<EvacuationView>, ApiError> {
    let Json(Rebalance { keep, terms }) = order.map_err(unreadable)?;
    let keep = match keep {
        Some(keep) => keep,
        None => share(&status)?,
    };
    start(&status, Aim::Keep(keep), terms)
}

/// How many clients are this node's part of the cluster's.
fn share(status: &Status) -> Result<u64, ApiError> {
    let cluster = cluster(status)?;
    if !cluster.is_settled() {
        return Err(ApiError::new(
            StatusCode::CONFLICT,
            "this node waits for what others have retained".to_owned(),
            "`/readyz` says 200 when it has it: try again then",
        ));
    }
    let view = cluster.view();
    let of = |tally: Tally| Other {
        clients: tally.clients,
        welcomes: tally.welcomes,
    };
    // A rebalance that is under way is another order.
    let own = of(status.shards().shared().tally());
    let members = view.borrow();
    let alive = members.members.iter().filter(|member| member.alive);
    let others = alive.map(|member| member.tally.map(of));
    fair_share(own, others).map_err(|error| {
        let hint = match error {
            NoShare::Alone => "`tidegate-broker cluster status` tells which nodes there are",
            NoShare::Untold => "they do within seconds: try again, or name a number with --keep",
            NoShare::Evacuating => "`tidegate-broker node evacuate --stop` ends that",
        };
        ApiError::new(StatusCode::CONFLICT, error.to_string(), hint)
    })
}

/// Clients are welcome again.
pub(super) async fn serve(State(status): State<Arc<Status>>) -> Result<Json<NodeStatus>, ApiError> {
    if status.evacuation().stop().map_err(stopping)? {
        info!("nobody is sent away any more: new clients are welcome");
        status.events().tell(&Event::Welcoming {});
    }
    Ok(Json(status.view()))
}

fn start(status: &Status, aim: Aim, terms: SendAway) -> Result<Json<EvacuationView>, ApiError> {
    let order = order(aim, terms)?;
    let connected = status.metrics().get(Metric::SessionsConnected);
    let now = Instant::now();
    let (rate, wait) = (order.rate, order.wait);
    status.evacuation().ready_for_orders().map_err(stopping)?;
    info!(?aim, connected, rate, ?wait, "sending clients away");
    // Told first: where few are too many the end may come at once.
    status.events().tell(&match aim {
        Aim::Empty => Event::Evacuating {
            clients: connected,
            rate: rate.get(),
        },
        Aim::Keep(keep) => Event::Rebalancing {
            clients: connected,
            keep,
            rate: rate.get(),
        },
    });
    let begun = status.evacuation().start(order, connected, now);
    begun.map(Json).map_err(stopping)
}

fn order(aim: Aim, terms: SendAway) -> Result<Order, ApiError> {
    let SendAway {
        rate,
        wait_seconds,
        servers,
        permanent,
        publish_wills,
    } = terms;
    let refused = |error, hint| Err(ApiError::new(StatusCode::BAD_REQUEST, error, hint));
    let Some(rate) = NonZeroU32::new(rate).filter(|rate| rate.get() <= FASTEST) else {
        let error = format!("the rate is {rate}, and must be 1 to {FASTEST}");
        return refused(error, "it is clients a second");
    };
    let wait = Duration::from_secs(wait_seconds);
    if wait > LONGEST_WAIT {
        let error = format!("{wait_seconds} seconds are longer than an hour");
        return refused(
            error,
            "the time is for balancers to see that the node is not ready",
        );
    }
    if servers.len() > MOST_SERVERS {
        let error = format!("{} servers are named", servers.len());
        let hint = "name 8 at most: clients are told all of them";
        return refused(error, hint);
    }
    if let Some(server) = servers.iter().find(|server| !config::is_address(server)) {
        let error = format!("{server:?} is not a host and port");
        let hint = "name what clients connect to, such as broker2.example.org:1883";
        return refused(error, hint);
    }
    Ok(Order {
        aim,
        rate,
        wait,
        referral: Referral {
            term: if permanent {
                Term::Permanent
            } else {
                Term::Temporary
            },
            servers: (!servers.is_empty()).then(|| servers.join(" ").into()),
        },
        wills: if publish_wills {
            Wills::Published
        } else {
            Wills::Held
        },
    })
}

fn unreadable(error: JsonRejection) -> ApiError {
    let hint = r#"the body is JSON, such as {"rate": 500, "wait_seconds": 10}"#;
    ApiError::new(StatusCode::BAD_REQUEST, error.body_text(), hint)
}

fn stopping(stopping: Stopping) -> ApiError {
    let hint = "it cannot be taken back: start the node again when it has stopped";
    ApiError::new(StatusCode::CONFLICT, stopping.to_string(), hint)
}
