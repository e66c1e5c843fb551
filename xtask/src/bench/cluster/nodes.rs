//! The nodes, on one host without a network of its own but loopback.

use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::lab::{Binaries, ConfigText, Host, NetNs, Process, WorkDir, wait_until};
use crate::load::Load;

use super::super::listening;

/// Where clients come in, of each node's own address.
const PORT: u16 = 1883;

/// Where nodes do.
const PEERS: u16 = 7883;

/// For nodes to know each other, and each other's filters.
const MEET: Duration = Duration::from_secs(60);

/// Filters of each of the clients that have many.
pub(super) const FILTERS_OF_ONE: u32 = 100;

/// A cluster.
pub(super) struct Nodes {
    program: PathBuf,
    /// What all are configured with besides.
    settings: &'static str,
    nodes: Vec<Process>,
    host: Host,
    _work: WorkDir,
}

/// What a node says of the others.
#[derive(Deserialize)]
pub(super) struct Status {
    pub(super) members: Vec<Member>,
    pub(super) copied_sessions: u64,
    pub(super) bare_sessions: u64,
}

#[derive(Deserialize)]
pub(super) struct Member {
    pub(super) alive: bool,
    pub(super) synced: bool,
    pub(super) filters: u32,
}

fn config_of(node: usize) -> String {
    format!("node{node}.toml")
}

fn peer_address(node: usize) -> String {
    format!("{}:{PEERS}", address(node))
}

fn address(node: usize) -> Ipv4Addr {
    // All of 127.0.0.0/8 is loopback's.
    Ipv4Addr::from(u32::from(Ipv4Addr::LOCALHOST) + u32::try_from(node).unwrap_or(0))
}

impl Nodes {
    /// Starts so many, and waits until they know each other.
    pub(super) fn start(count: u8, programs: &Binaries) -> Result<Self> {
        Self::start_with(count, programs, "")
    }

    /// The same with lines for their configurations, that are of no table.
    pub(super) fn start_with(
        count: u8,
        programs: &Binaries,
        settings: &'static str,
    ) -> Result<Self> {
        let work = WorkDir::new()?;
        let host = Host::alone("bench", work.path())?;
        let mut nodes = Self {
            program: programs.broker.clone(),
            settings,
            nodes: Vec::new(),
            host,
            _work: work,
        };
        let mut key = nodes.host.command(&nodes.program)?;
        key.args(["cluster", "key"]).arg(nodes.path("key"));
        let made = key.output().context("cannot make a key")?;
        ensure!(made.status.success(), "no key was made: {made:?}");
        for _ in 0..count {
            nodes.add()?;
        }
        let others = nodes.len() - 1;
        for node in 0..nodes.len() {
            nodes.wait_for(node, "knowing the others", |status| {
                let known = status.members.iter().filter(|member| member.synced);
                known.count() == others
            })?;
        }
        Ok(nodes)
    }

    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Starts one more, which calls all that are there; the result is its number.
    pub(super) fn add(&mut self) -> Result<usize> {
        let seeds: Vec<_> = (0..self.len()).map(peer_address).collect();
        self.add_calling(&seeds)
    }

    /// Starts one more, which calls nobody until [`Nodes::join`]; the result is its number.
    pub(super) fn add_alone(&mut self) -> Result<usize> {
        self.add_calling(&[])
    }

    fn add_calling(&mut self, seeds: &[String]) -> Result<usize> {
        let node = self.nodes.len();
        let ours = address(node);
        let (socket, key, settings) = (self.socket(node), self.path("key"), self.settings);
        let text = format!(
            "node = \"node{node}\"\naccess.anonymous = true\n{settings}\n\
             [[listener]]\naddress = \"{ours}:{PORT}\"\n\
             [control]\nsocket = {socket:?}\n[cluster]\nname = \"bench\"\nlisten = \"{ours}:{PEERS}\"\n\
             seeds = {seeds:?}\nkey_file = {key:?}\n"
        );
        ConfigText::from(&*text).write(&self.host, &config_of(node))?;
        let process = self.spawn(node)?;
        self.nodes.push(process);
        Ok(node)
    }

    fn spawn(&self, node: usize) -> Result<Process> {
        let mut command = self.host.command(&self.program)?;
        let config = self.path(&config_of(node));
        command.args(["run", "--config"]).arg(config);
        let mut process = self.host.spawn(&format!("node{node}"), command)?;
        listening::wait(&self.host, &mut process, self.address(node))?;
        Ok(process)
    }

    /// Has a node call another one.
    pub(super) fn join(&self, node: usize, other: usize) -> Result<()> {
        let socket = self.socket(node);
        let socket = socket.to_str().context("the path of a socket is text")?;
        let called = peer_address(other);
        let arguments = ["cluster", "join", &called, "--socket", socket];
        self.host.output(&self.program, &arguments).map(drop)
    }

    /// Where clients of a node connect.
    pub(super) fn address(&self, node: usize) -> SocketAddr {
        (address(node), PORT).into()
    }

    /// Where the nodes are.
    pub(super) fn netns(&self) -> &NetNs {
        self.host.netns()
    }

    /// Calls a function there.
    pub(super) fn inside<T: Send>(&self, inside: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        self.host.netns().enter(inside)
    }

    /// The process of a node.
    pub(super) fn process(&mut self, node: usize) -> &mut Process {
        &mut self.nodes[node]
    }

    /// Starts a node that has ended.
    pub(super) fn restart(&mut self, node: usize) -> Result<()> {
        self.nodes[node] = self.spawn(node)?;
        Ok(())
    }

    /// Waits until a node has learnt so many filters of one other node.
    pub(super) fn wait_for_filters(&self, node: usize, filters: u32) -> Result<()> {
        self.wait_for(node, "knowing all filters", |status| {
            let mut members = status.members.iter();
            members.any(|member| member.filters >= filters)
        })
    }

    /// Waits until what a node says of the cluster is as it should be.
    pub(super) fn wait_for(
        &self,
        node: usize,
        what: &str,
        is_so: impl Fn(&Status) -> bool,
    ) -> Result<()> {
        let mut last = None;
        let found = wait_until(MEET, &format!("node {node} {what}"), || {
            last = Some(self.status(node));
            let status = last.as_ref()?.as_ref().ok()?;
            is_so(status).then_some(())
        });
        let trouble = || match last {
            Some(Err(error)) => format!("{error:#}"),
            Some(Ok(_)) | None => self.nodes[node].tail(),
        };
        found.with_context(trouble)
    }

    /// What a node says of the cluster.
    pub(super) fn status(&self, node: usize) -> Result<Status> {
        let socket = self.socket(node);
        let socket = socket.to_str().context("the path of a socket is text")?;
        let arguments = ["cluster", "status", "--json", "--socket", socket];
        let text = self.host.output(&self.program, &arguments)?;
        serde_json::from_str(&text).with_context(|| format!("no status: {text}"))
    }

    /// Processor time of each.
    pub(super) fn cpu_seconds(&self) -> Result<Vec<f64>> {
        self.nodes.iter().map(Process::cpu_seconds).collect()
    }

    /// Bytes of memory of a node.
    pub(super) fn memory(&self, node: usize) -> Result<u64> {
        Ok(self.nodes[node].memory()? * 1_024)
    }

    /// Starts clients that take turns among these nodes.
    pub(super) fn load(
        &self,
        name: &str,
        kind: &str,
        count: u32,
        nodes: Range<usize>,
        arguments: &[&str],
    ) -> Result<Load> {
        let hosts: Vec<_> = nodes.map(|node| address(node).to_string()).collect();
        let hosts = hosts.join(",");
        let arguments = [&["-h", &hosts, "--timeout", "60s"], arguments].concat();
        Load::start(&self.host, &self.program, name, kind, count, &arguments)
    }

    /// Starts clients of one node that have so many filters, which are in no other node.
    pub(super) fn load_filters(&self, node: usize, filters: u32) -> Result<Load> {
        let name = format!("many-{node}");
        let topics = (0..FILTERS_OF_ONE).map(|number| format!("{name}/%i/{number}"));
        let topics: Vec<_> = topics.flat_map(|topic| ["-t".to_owned(), topic]).collect();
        let arguments = ["-i", "0", "-q", "0"].into_iter();
        let arguments: Vec<_> = arguments.chain(topics.iter().map(String::as_str)).collect();
        let clients = filters / FILTERS_OF_ONE;
        self.load(&name, "sub", clients, node..node + 1, &arguments)
    }

    fn socket(&self, node: usize) -> PathBuf {
        self.path(&format!("node{node}.sock"))
    }

    fn path(&self, name: &str) -> PathBuf {
        Path::new(self.host.work_dir()).join(name)
    }
}
