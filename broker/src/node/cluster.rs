//! A node's part in its cluster, from the start to the stop.

use std::sync::Arc;

use tokio::sync::mpsc;
use tracing::warn;

use super::{JOIN_TIMEOUT, NodeError, Status, join};
use crate::{
    cluster::{Cluster, Handle, Ledger, Prospect, questions::Asked, spawn},
    config::Config,
    metrics::{Counters, render_head, render_value},
    shard::Shared,
};

impl Status {
    /// The cluster that the node is one of.
    pub(crate) fn cluster(&self) -> Option<&Cluster> {
        self.shared.cluster.as_deref()
    }

    /// Appends what is told of it in Prometheus's text format.
    pub(super) fn render_cluster(&self, out: &mut String) {
        if let Some(cluster) = self.cluster() {
            cluster.view().borrow().render(out);
            let (name, help) = (
                "cluster_clock_ahead_seconds",
                "How far some node's clock is, or was, ahead of this one's.",
            );
            render_head(out, name, "gauge", help);
            render_value(out, name, "", cluster.clock_ahead().as_secs());
        }
    }
}

/// Opens the port that other nodes call, if the node is to be one of several.
pub(super) fn open(config: &Config, shards: u16) -> Result<Option<Prospect>, NodeError> {
    let open = |cluster| Prospect::open(config.node(), cluster, shards);
    Ok(config.cluster().map(open).transpose()?)
}

/// Starts the thread; the counters are its own. What other nodes ask comes out of the receiver.
pub(super) fn start(
    prospect: Option<Prospect>,
    shared: &Arc<Shared>,
    ledger: Option<Ledger>,
    counters: Option<&Arc<Counters>>,
    alive: mpsc::Sender<()>,
) -> Result<Option<(Handle, mpsc::Receiver<Asked>)>, NodeError> {
    let start = |(prospect, counters)| {
        let (shared, counters) = (Arc::clone(shared), Arc::clone(counters));
        spawn(prospect, shared, ledger, counters, alive)
    };
    Ok(prospect.zip(counters).map(start).transpose()?)
}

/// Says goodbye to the other nodes, and ends the thread: after the shards, whose last words it takes.
pub(super) async fn stop(cluster: Option<Handle>) {
    let Some(Handle { thread, stop }) = cluster else {
        return;
    };
    // It may have ended.
    let _ = stop.send(());
    if join(vec![thread], JOIN_TIMEOUT).await != Some(0) {
        warn!("the cluster's thread does not end in order");
    }
}
