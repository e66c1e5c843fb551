//! The nodes, on one host without a network of its own but loopback.

use std::net::{Ipv4Addr, TcpStream};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::lab::{Binaries, ConfigText, Host, Process, WorkDir, wait_until};
use crate::load::Load;

/// Where clients come in, of each node's own address.
const PORT: u16 = 1883;

/// Where nodes do.
const PEERS: u16 = 7883;

/// For a node to listen.
const START: Duration = Duration::from_secs(20);

/// For nodes to know each other, and each other's filters.
const MEET: Duration = Duration::from_secs(60);

/// A cluster.
pub(super) struct Nodes {
    program: PathBuf,
    nodes: Vec<Process>,
    host: Host,
    _work: WorkDir,
}

/// What a node says of the others.
#[derive(Deserialize)]
struct Status {
    members: Vec<Member>,
}

#[derive(Deserialize)]
struct Member {
    synced: bool,
    filters: u32,
}

fn address(node: usize) -> Ipv4Addr {
    // All of 127.0.0.0/8 is loopback's.
    Ipv4Addr::from(u32::from(Ipv4Addr::LOCALHOST) + u32::try_from(node).unwrap_or(0))
}

impl Nodes {
    /// Starts so many, and waits until they know each other.
    pub(super) fn start(count: u8, programs: &Binaries) -> Result<Self> {
        let work = WorkDir::new()?;
        let host = Host::alone("bench", work.path())?;
        let mut nodes = Self {
            program: programs.broker.clone(),
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

    /// Starts one more, which calls the first one; the result is its number.
    pub(super) fn add(&mut self) -> Result<usize> {
        let node = self.nodes.len();
        let (ours, seed) = (address(node), address(0));
        let (socket, key) = (self.socket(node), self.path("key"));
        let text = format!(
            "node = \"node{node}\"\naccess.anonymous = true\n[[listener]]\naddress = \"{ours}:{PORT}\"\n\
             [control]\nsocket = {socket:?}\n[cluster]\nname = \"bench\"\nlisten = \"{ours}:{PEERS}\"\n\
             seeds = [\"{seed}:{PEERS}\"]\nkey_file = {key:?}\n"
        );
        let config = ConfigText::from(&*text).write(&self.host, &format!("node{node}.toml"))?;
        let mut command = self.host.command(&self.program)?;
        command.args(["run", "--config"]).arg(config);
        let mut process = self.host.spawn(&format!("node{node}"), command)?;
        let is_up = || {
            let connect = || Ok(TcpStream::connect((ours, PORT)).is_ok());
            let up = self.host.netns().enter(connect).unwrap_or(false);
            (up || !process.is_running()).then_some(up)
        };
        let up = wait_until(START, "the node listening", is_up);
        let up = up.with_context(|| process.tail())?;
        ensure!(up, "the node has ended: {}", process.tail());
        self.nodes.push(process);
        Ok(node)
    }

    /// Waits until a node has learnt so many filters of one other node.
    pub(super) fn wait_for_filters(&self, node: usize, filters: u32) -> Result<()> {
        self.wait_for(node, "knowing all filters", |status| {
            let mut members = status.members.iter();
            members.any(|member| member.filters >= filters)
        })
    }

    fn wait_for(&self, node: usize, what: &str, is_so: impl Fn(&Status) -> bool) -> Result<()> {
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

    fn status(&self, node: usize) -> Result<Status> {
        let socket = self.socket(node);
        let socket = socket.to_str().context("the path of a socket is text")?;
        let arguments = ["cluster", "status", "--json", "--socket", socket];
        let text = self.host.output(&self.program, &arguments)?;
        serde_json::from_str(&text).with_context(|| format!("no status: {text}"))
    }

    /// Processor time of all.
    pub(super) fn cpu_seconds(&self) -> Result<f64> {
        self.nodes.iter().map(Process::cpu_seconds).sum()
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

    fn socket(&self, node: usize) -> PathBuf {
        self.path(&format!("node{node}.sock"))
    }

    fn path(&self, name: &str) -> PathBuf {
        Path::new(self.host.work_dir()).join(name)
    }
}
