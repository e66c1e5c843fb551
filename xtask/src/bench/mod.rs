//! `cargo xtask bench`: measures against a floor and against what users would pick instead.

mod broker;
pub mod churn;
mod cluster;
mod failover;
mod figures;
mod flood;
mod listening;
mod path;
mod soak;
mod sync;
mod verdict;

use anyhow::Result;
use clap::Subcommand;

use crate::build::cargo;
use crate::elevate;
use crate::exec;
use crate::setup::{self, Purpose};

/// What to measure.
#[derive(Debug, Subcommand)]
pub enum Args {
    /// The XDP program alone: nanoseconds a packet of each mode beside a bare MAC swap.
    Datapath {
        /// One line of JSON.
        #[arg(long)]
        json: bool,
        /// Only this mode; may be repeated.
        #[arg(long = "mode", value_name = "NAME")]
        modes: Vec<String>,
    },
    /// MQTT end to end: direct, through Tidegate, through HAProxy, through nftables.
    Path(path::Args),
    /// Held sessions while backends are added, drained, removed, re-weighted, killed and started again.
    Churn(churn::Args),
    /// SYNs from random sources while sessions are held and clients connect.
    Flood(flood::Args),
    /// How long the VIP is silent when its host dies, stops or hands over: Tidegate and keepalived.
    Failover(failover::Args),
    /// The broker beside mosquitto and rumqttd: idle memory, connects, messages, fan-out, latency.
    Broker(broker::Args),
    /// Brokers of a cluster: what one more costs, takeovers, subscriptions, deaths, joining.
    Cluster(cluster::Args),
    /// One broker with many clients, and some that come and go, for minutes: is all of it steady?
    Soak(soak::Args),
    /// Two nodes that tell each other of their flows: lag, bytes, CPU, memory.
    Sync(sync::Args),
}

/// Measures.
///
/// # Errors
/// Names what could not be measured.
pub fn run(args: &Args) -> Result<()> {
    match args {
        Args::Datapath { json, modes } => {
            setup::ensure(Purpose::Lab)?;
            let mut command = cargo();
            command.args(["run", "--release", "--package", "tests"]);
            command.args(["--bin", "datapath-bench", "--"]);
            elevate::run_as_root(&mut command)?;
            command.args(json.then_some("--json"));
            command.args(modes.iter().flat_map(|mode| ["--mode", mode]));
            exec::show_run(&mut command)
        }
        Args::Path(args) => path::run(args),
        Args::Churn(args) => churn::run(args),
        Args::Flood(args) => flood::run(args),
        Args::Failover(args) => failover::run(args),
        Args::Broker(args) => broker::run(args),
        Args::Cluster(args) => cluster::run(args),
        Args::Soak(args) => soak::run(args),
        Args::Sync(args) => sync::run(args),
    }
}
