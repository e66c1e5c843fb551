//! The network that is measured: two brokers, two balancers that are a pair, clients.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::Value;

use crate::exec;
use crate::lab::{
    Binaries, ConfigText, Family, Host, Process, cpu_seconds_of, interrupted, memory_of, wait_until,
};
use crate::load::Load;
use crate::network::{Backend, Balance, Forward, Network, PORT, Shape, name_of};

/// How long a program may take to be ready, or to say what is waited for.
const SOON: Duration = Duration::from_secs(180);

/// What both nodes hash by.
const SEED: &str = "00112233445566778899aabbccddeeff";

/// What NAT sends from: it goes where the VIP goes.
const NAT_SOURCE: &str = "172.16.40.25";

/// A file of its own in each node's directory.
const SOCKET: &str = "tidegate.sock";

/// The running network; everything ends when dropped.
pub(super) struct Site {
    // In this order: the programs end before what they run in.
    nodes: Vec<Process>,
    network: Network,
    pub(super) forward: Forward,
    pub(super) balance: Balance,
    /// Room for flows.
    room: u32,
}

/// What a process has taken.
#[derive(Clone, Copy)]
pub(super) struct Spent {
    pub(super) cpu_seconds: f64,
    pub(super) rss_mib: f64,
}

/// What a node says of what it tells its peer.
#[derive(Debug, Deserialize)]
pub(super) struct Sending {
    pub(super) connected: bool,
    pub(super) in_sync_seconds: Option<u64>,
    pub(super) entries: u64,
    pub(super) pending: u64,
    pub(super) unacknowledged: u64,
    pub(super) events: u64,
    pub(super) events_lost: u64,
    pub(super) bytes: u64,
    pub(super) messages: u64,
    pub(super) flow_lag: FlowLag,
}

/// The last minute's.
#[derive(Debug, Deserialize)]
pub(super) struct FlowLag {
    pub(super) flows: u64,
    pub(super) p50_seconds: f64,
    pub(super) p99_seconds: f64,
    pub(super) max_seconds: f64,
}

impl Site {
    /// Starts the brokers, and the node that is to be Active.
    pub(super) fn new(
        forward: Forward,
        balance: Balance,
        room: u32,
        programs: &Binaries,
    ) -> Result<Self> {
        let shape = Shape {
            forward,
            balance,
            backend: Backend::Tidegate,
            family: Family::V4,
        };
        let mut site = Self {
            nodes: Vec::new(),
            network: Network::new(shape, programs)?,
            forward,
            balance,
            room,
        };
        site.start(0)?;
        wait_until(SOON, "the node being Active", || {
            let status = site.status().ok()?;
            let is_up = |backend: &Value| backend["health"] == "up";
            let backends = status["services"][0]["backends"].as_array()?;
            let is_active = status["vrrp"]["routers"][0]["role"] == "active";
            (interrupted() || is_active && backends.iter().all(is_up)).then_some(())
        })?;
        Ok(site)
    }

    /// Starts a node.
    pub(super) fn start(&mut self, at: usize) -> Result<()> {
        let host = self.host(at);
        let key = host.work_dir().join("sync.key");
        fs::write(&key, "a".repeat(64))?;
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600))?;
        self.config(at).write(host, "tidegate.toml")?;
        let mut command = host.command(&self.network.programs().tidegate)?;
        command.current_dir(host.work_dir());
        command.args(["run", "--config", "tidegate.toml"]);
        let mut node = host.spawn("tidegate", command)?;
        node.wait_for_line("ready", SOON)?;
        self.nodes.push(node);
        Ok(())
    }

    fn host(&self, at: usize) -> &Host {
        let topology = self.network.topology();
        [&topology.lb1, &topology.lb2][at]
    }

    fn config(&self, at: usize) -> ConfigText {
        let [(ours, priority), (peers, _)] = if at == 0 {
            [(22, 200), (23, 100)]
        } else {
            [(23, 100), (22, 200)]
        };
        let directory = self.host(at).work_dir().display();
        let (balance, forward) = (name_of(self.balance), name_of(self.forward));
        let room = self.room;
        let mut vips = "\"172.16.40.24\"".to_owned();
        let mut nat = String::new();
        if self.forward == Forward::Nat {
            let _ = write!(vips, ", \"{NAT_SOURCE}\"");
            nat = format!(
                "[[vip]]\naddress = \"{NAT_SOURCE}/32\"\n[nat]\nsources = [\"{NAT_SOURCE}\"]\n"
            );
        }
        let mut text = format!(
            r#"interface = "eth0"
seed = "{SEED}"
state_dir = "{directory}/state"
pin_dir = "{directory}/bpf"
[api]
socket = "{directory}/{SOCKET}"
[limits]
services = 4
backends = 16
flows = {room}
[[vip]]
address = "172.16.40.24/32"
{nat}[sync]
listen = "172.16.40.{ours}:9464"
peer = "172.16.40.{peers}:9464"
key_file = "{directory}/sync.key"
[[vrrp]]
name = "front"
vrid = 51
priority = {priority}
vips = [{vips}]
[[service]]
name = "mqtt"
vip = "172.16.40.24"
port = {PORT}
protocol = "tcp"
balance = "{balance}"
forward = "{forward}"
[service.check]
type = "tcp"
interval = "2s"
timeout = "2s"
fall = 10
rise = 1
"#
        );
        for host in self.network.topology().brokers() {
            let (name, address) = (host.name(), host.address(Family::V4));
            let _ = writeln!(
                text,
                "[[service.backend]]\nname = \"{name}\"\naddress = \"{address}\""
            );
        }
        ConfigText::from(text.as_str())
    }

    /// What the Active says.
    fn status(&self) -> Result<Value> {
        let host = self.host(0);
        let mut command = host.command(&self.network.programs().tidegate)?;
        command.current_dir(host.work_dir());
        command.args(["status", "--json", "--socket", SOCKET]);
        Ok(serde_json::from_str(&exec::output(&mut command)?)?)
    }

    /// What it says of what it tells its peer.
    pub(super) fn sending(&self) -> Result<Sending> {
        let mut status = self.status()?;
        let sending = status["sync"]["sending"].take();
        serde_json::from_value(sending).context("tidegate status --json has changed its form")
    }

    fn wait_for(&self, what: &str, is_so: impl Fn(&Sending) -> bool) -> Result<Sending> {
        let found = wait_until(SOON, what, || {
            if interrupted() {
                return Some(Err(anyhow::anyhow!("interrupted")));
            }
            let sending = self.sending().ok()?;
            is_so(&sending).then_some(Ok(sending))
        });
        found?
    }

    /// Waits until the peer has a whole snapshot; says how many seconds after the connection that was.
    pub(super) fn wait_for_sync(&self) -> Result<f64> {
        self.wait_for("a connection to the peer", |it| it.connected)?;
        let start = Instant::now();
        self.wait_for("the peer being in sync", |it| {
            it.in_sync_seconds.is_some() && it.pending == 0
        })?;
        Ok(start.elapsed().as_secs_f64())
    }

    /// Waits until so many flows are known to the sender.
    pub(super) fn wait_for_entries(&self, flows: u64) -> Result<()> {
        self.wait_for("the sweep having met all flows", |it| it.entries >= flows)
            .map(drop)
    }

    /// Waits until so many new flows were reported and are acknowledged, and until the figures are
    /// those of then.
    pub(super) fn wait_for_flows(&self, events: u64) -> Result<Sending> {
        self.wait_for("the peer having all flows", |it| {
            it.events + it.events_lost >= events && it.unacknowledged == 0
        })?;
        // They are counted each second.
        let start = Instant::now();
        self.wait_for("new figures", |_| start.elapsed() > Duration::from_secs(2))
    }

    /// Puts flows into the Active's table.
    pub(super) fn fill(&self, flows: u32) -> Result<()> {
        let pin = self.host(0).work_dir().join("bpf/eth0/FLOWS");
        let program = self.network.programs().tidegate.with_file_name("fill");
        let mut command = self.host(0).command(program)?;
        exec::run(command.arg(pin).arg(flows.to_string()))
    }

    /// Starts clients that stay, one each so many milliseconds.
    pub(super) fn load(&self, count: u32, interval_ms: f64) -> Result<Load> {
        let (vip, interval) = (Family::V4.vip().to_string(), interval_ms.to_string());
        let name = format!("clients-{count}");
        let arguments = ["-h", &vip, "-i", &interval, "-k", "0", "--hold", "10m"];
        let (client, program) = (
            &self.network.topology().client,
            &self.network.programs().broker,
        );
        Load::start(client, program, &name, "conn", count, &arguments)
    }

    /// What the nodes that run have taken, the Active first.
    pub(super) fn spent(&self) -> Result<Vec<Spent>> {
        self.nodes.iter().map(|node| spent(node.pid())).collect()
    }
}

fn spent(pid: u32) -> Result<Spent> {
    Ok(Spent {
        cpu_seconds: cpu_seconds_of(pid)?,
        rss_mib: memory_of(pid)? as f64 / 1_024.0,
    })
}
