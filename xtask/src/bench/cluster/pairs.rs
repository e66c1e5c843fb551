//! Senders on the first node, each with a receiver of its own.

use std::ops::Range;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::load::{Load, Summary};

use super::nodes::Nodes;

/// Longest wait for a load to end by itself.
const END: Duration = Duration::from_secs(120);

/// So many of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pairs {
    /// Tells those of one cluster from others.
    pub(super) name: &'static str,
    pub(super) count: u32,
    pub(super) qos: &'static str,
}

impl Pairs {
    /// Starts the receivers, which take turns among these nodes.
    pub(super) fn receive(self, nodes: &Nodes, on: Range<usize>) -> Result<Load> {
        let Self { name, count, qos } = self;
        let topic = format!("{name}/%i");
        let arguments = ["-t", &topic, "-q", qos, "-i", "1"];
        nodes.load(&format!("sub-{name}"), "sub", count, on, &arguments)
    }

    /// Starts the senders: so many messages a second from all of them, or as many as it takes; for so
    /// long, or until they are stopped.
    pub(super) fn send(
        self,
        nodes: &Nodes,
        rate: Option<u32>,
        seconds: Option<u32>,
    ) -> Result<Load> {
        let Self { name, count, qos } = self;
        let topic = format!("{name}/%i");
        let interval = rate.map_or(0.0, |rate| 1_000.0 * f64::from(count) / f64::from(rate));
        let interval = interval.to_string();
        let duration = seconds.map(|seconds| format!("{seconds}s"));
        let mut arguments = vec!["-t", &topic, "-q", qos, "-i", "1", "-I", &interval];
        arguments.extend(["-s", "256", "--wait-all"]);
        if let Some(duration) = &duration {
            arguments.extend(["--duration", duration]);
        }
        nodes.load(&format!("pub-{name}"), "pub", count, 0..1, &arguments)
    }
}

/// Waits until senders have ended by themselves.
pub(super) fn finish(senders: Load) -> Result<Summary> {
    let summary = senders.finish(END)?;
    all_stayed(&summary)?;
    Ok(summary)
}

/// Fails unless every client connected and stayed.
pub(super) fn all_stayed(summary: &Summary) -> Result<()> {
    summary.all_connected()?;
    let (lost, errors) = (summary.lost, &summary.errors);
    ensure!(lost == 0, "{lost} clients were lost: {errors:?}");
    Ok(())
}
