//! Two nodes, and how clients get to them.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::Signal;

use crate::client::Way;
use crate::lab::{Binaries, Door, Family, Process, wait_until};
use crate::network::{Backend, Balance, Forward, Network, PORT, Shape};

use super::super::nodes::{Nodes, Status};
use super::End;

/// For nodes to know, or copy, or miss each other.
const CHANGE: Duration = Duration::from_secs(60);

/// Clients are let in however busy a node is, and what waits for one that is away is kept.
const SETTINGS: [(&str, &str, &str); 2] = [
    ("overload", "lag", "\"1h\""),
    ("limits", "queue_messages", "10000000"),
];
const LINES: &str = "overload.lag = \"1h\"\nlimits.queue_messages = 10000000";

/// Where it happens.
pub(super) enum Site {
    /// Clients know both nodes, on one loopback.
    Direct(Nodes),
    /// They know the address that a balancer has.
    Behind(Box<Network>),
}

impl Site {
    pub(super) fn new(is_direct: bool, programs: &Binaries) -> Result<Self> {
        if is_direct {
            return Ok(Self::Direct(Nodes::start_with(2, programs, LINES)?));
        }
        let shape = Shape {
            forward: Forward::Dsr,
            balance: Balance::Maglev,
            backend: Backend::Cluster,
            family: Family::V4,
        };
        let mut network = Network::with_settings(shape, programs, &SETTINGS)?;
        network.start_tidegate()?;
        Ok(Self::Behind(Box::new(network)))
    }

    /// How clients connect.
    pub(super) fn way(&self, patience: Duration) -> Way {
        let addresses = match self {
            Self::Direct(nodes) => vec![nodes.address(0), nodes.address(1)],
            Self::Behind(network) => vec![(network.vip(), PORT).into()],
        };
        Way {
            addresses,
            patience,
        }
    }

    /// A node's own address.
    pub(super) fn address(&self, node: usize) -> SocketAddr {
        match self {
            Self::Direct(nodes) => nodes.address(node),
            Self::Behind(network) => {
                let host = network.topology().brokers()[node];
                (host.address(Family::V4), PORT).into()
            }
        }
    }

    /// Where clients are.
    pub(super) fn door(&self) -> Result<Door> {
        let netns = match self {
            Self::Direct(nodes) => nodes.netns(),
            Self::Behind(network) => network.topology().client.netns(),
        };
        netns.door()
    }

    pub(super) fn end(&mut self, node: usize, end: End) -> Result<()> {
        let process = self.process(node);
        match end {
            End::Kill => process.kill().map(drop),
            End::Freeze => process.signal(Signal::STOP),
        }
    }

    /// Has a frozen node go on.
    pub(super) fn thaw(&mut self, node: usize) -> Result<()> {
        self.process(node).signal(Signal::CONT)
    }

    /// Starts a node anew, dead or frozen.
    pub(super) fn restart(&mut self, node: usize) -> Result<()> {
        self.process(node).kill()?;
        match self {
            Self::Direct(nodes) => nodes.restart(node),
            Self::Behind(network) => network.restart_broker(node),
        }
    }

    fn process(&mut self, node: usize) -> &mut Process {
        match self {
            Self::Direct(nodes) => nodes.process(node),
            Self::Behind(network) => &mut network.brokers()[node],
        }
    }

    /// Waits until a node holds the other one for gone.
    pub(super) fn wait_until_alone(&self, node: usize) -> Result<()> {
        self.wait(&format!("node {node} missing the other"), || {
            let members = self.status(node)?.members;
            Ok(members.iter().all(|member| !member.alive))
        })
    }

    /// Waits until clients that lose either node find the other one. A balancer takes seconds to trust a
    /// node again that was frozen: until then all its clients go to the one that it holds for up, and
    /// where that dies, to what is started in its place.
    pub(super) fn wait_until_reached(&self) -> Result<()> {
        match self {
            Self::Direct(_) => Ok(()),
            Self::Behind(network) => network.wait_until_brokers_are_up(),
        }
    }

    /// Waits until both know each other, and so many sessions have a copy, and no other has none.
    pub(super) fn wait_until_safe(&self, sessions: u64) -> Result<()> {
        self.wait("each session having a copy", || {
            let statuses = [self.status(0)?, self.status(1)?];
            let is_one = |status: &Status| {
                status.bare_sessions == 0 && status.members.iter().any(|member| member.synced)
            };
            let copied = statuses.iter().map(|status| status.copied_sessions);
            Ok(statuses.iter().all(is_one) && copied.sum::<u64>() >= sessions)
        })
    }

    fn wait(&self, what: &str, is_so: impl Fn() -> Result<bool>) -> Result<()> {
        let mut last = None;
        let waited = wait_until(CHANGE, what, || {
            let is = is_so();
            let found = matches!(is, Ok(true)).then_some(());
            last = is.err();
            found
        });
        waited.with_context(|| last.map_or_else(String::new, |error| format!("{error:#}")))
    }

    fn status(&self, node: usize) -> Result<Status> {
        match self {
            Self::Direct(nodes) => nodes.status(node),
            Self::Behind(network) => {
                let text = network.cluster_status(node)?;
                serde_json::from_str(&text).with_context(|| format!("no status: {text}"))
            }
        }
    }
}
