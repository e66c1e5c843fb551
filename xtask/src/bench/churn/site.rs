//! The network that the changes happen on: a client, a balancer, six brokers.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

use super::sessions::{Incarnation, Session, Sessions};
use crate::exec;
use crate::lab::{Binaries, ConfigText, Example, Family, Host, Process, Topology, wait_until};
use crate::load::Load;
use crate::network::{Balance, Forward, PORT, name_of, unpacking};

/// Brokers beyond the reference network's two.
const SPARES: usize = 4;

/// How long a program may take to be ready, on a slow and busy machine.
const START: Duration = Duration::from_secs(30);

/// Broker logs tell which client connected where.
const BROKER_LOG: &str = "\"info,broker::shard=debug\"";

/// Clients' keep-alive in seconds; also the longest that the balancer has to expect.
pub(super) const KEEP_ALIVE: u32 = 10;

/// A file of its own in the balancer's directory.
const SOCKET: &str = "tidegate.sock";

/// How the balancer forwards and chooses.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mode {
    pub(super) forward: Forward,
    pub(super) balance: Balance,
}

/// The running network; everything ends when dropped.
pub(super) struct Site {
    // In this order: the programs end before what they run in.
    balancer: Option<Process>,
    brokers: Vec<Broker>,
    mode: Mode,
    programs: Binaries,
    /// Of each backend: whether it is configured.
    members: Vec<bool>,
    topology: Topology,
}

/// One process of a broker, running or ended.
struct Broker {
    process: Process,
    incarnation: Incarnation,
}

impl Site {
    /// Starts all brokers, and a balancer that knows the first `serving` of them.
    pub(super) fn new(mode: Mode, serving: usize, programs: &Binaries) -> Result<Self> {
        let topology = Topology::with_spares(SPARES)?;
        let client = topology.client.netns();
        client.sysctl("net.ipv4.ip_local_port_range", "1024 65535")?;
        for host in topology.hosts().into_iter().chain(&topology.spares) {
            host.netns().sysctl("net.core.somaxconn", "32768")?;
            host.netns()
                .sysctl("net.ipv4.tcp_max_syn_backlog", "16384")?;
        }
        let backends = topology.all_brokers().len();
        let mut site = Self {
            balancer: None,
            brokers: Vec::new(),
            mode,
            programs: programs.clone(),
            members: (0..backends).map(|backend| backend < serving).collect(),
            topology,
        };
        for backend in 0..backends {
            site.start_broker(backend)?;
        }
        for broker in &mut site.brokers {
            broker.process.wait_for_line("ready", START)?;
        }
        site.start_balancer(serving)?;
        Ok(site)
    }

    /// How many brokers there are.
    pub(super) fn backends(&self) -> usize {
        self.members.len()
    }

    fn start_balancer(&mut self, serving: usize) -> Result<()> {
        self.write_config()?;
        let host = &self.topology.lb1;
        let mut command = host.command(&self.programs.tidegate)?;
        command.args(["run", "--config", "tidegate.toml"]);
        let mut balancer = host.spawn("tidegate", command)?;
        balancer.wait_for_line("ready", START)?;
        self.balancer = Some(balancer);
        wait_until(START, "all backends being up", || {
            let status = self.ask(&["status", "--json"]).ok()?;
            let status: serde_json::Value = serde_json::from_str(&status).ok()?;
            let backends = status["services"][0]["backends"].as_array()?;
            let up = backends.iter().filter(|backend| backend["health"] == "up");
            (up.count() == serving).then_some(())
        })?;
        Ok(())
    }

    /// Starts a broker, again if it ended, and does not wait for it.
    pub(super) fn start_broker(&mut self, backend: usize) -> Result<()> {
        let host = self.topology.all_brokers()[backend];
        let mut config = ConfigText::example(Example::Broker)?
            .set("", "node", &format!("{:?}", host.name()))
            .set("log", "level", BROKER_LOG);
        config = match self.mode.forward {
            Forward::Dsr => config,
            Forward::Nat => config.without("vip"),
            Forward::Tunnel => unpacking(config),
        };
        let config = config.write(host, "broker.toml")?;
        let mut command = host.command(&self.programs.broker)?;
        command.args(["run", "--config"]).arg(config);
        let number = self.brokers.len();
        let process = host.spawn(&format!("tidegate-broker-{number}"), command)?;
        let incarnation = Incarnation {
            backend,
            ended: None,
        };
        self.brokers.push(Broker {
            process,
            incarnation,
        });
        Ok(())
    }

    /// Ends a broker as a crash would.
    pub(super) fn kill_broker(&mut self, backend: usize) -> Result<()> {
        let running = self.running(backend)?;
        let broker = &mut self.brokers[running];
        broker.incarnation.ended = Some(unix_now());
        broker.process.kill()?;
        Ok(())
    }

    fn running(&self, backend: usize) -> Result<usize> {
        let runs = |broker: &Broker| {
            broker.incarnation.backend == backend && broker.incarnation.ended.is_none()
        };
        let found = self.brokers.iter().position(runs);
        found.with_context(|| format!("{} does not run", self.name(backend)))
    }

    /// Takes a backend into the configuration, or out of it.
    pub(super) fn set_member(&mut self, backend: usize, member: bool) -> Result<()> {
        self.members[backend] = member;
        self.write_config()?;
        self.ask(&["reload"]).map(drop)
    }

    /// Says something of a backend to the balancer: `drain`, `enable` or `weight N`.
    pub(super) fn order(&self, backend: usize, verb: &str, arguments: &[&str]) -> Result<()> {
        let name = format!("mqtt/{}", self.name(backend));
        let mut all = vec!["backend", verb, &name];
        all.extend(arguments);
        self.ask(&all).map(drop)
    }

    /// Starts waiting for a backend's last session to end, as an operator would.
    pub(super) fn drain_and_wait(&self, backend: usize) -> Result<Process> {
        let mut command = self.tidegate()?;
        let name = format!("mqtt/{}", self.name(backend));
        command.args(["backend", "drain", &name, "--wait", "--timeout", "1h"]);
        command.args(["--json", "--socket", SOCKET]);
        self.topology
            .lb1
            .spawn(&format!("drain-{}", self.name(backend)), command)
    }

    /// Clients of a backend, by its kernel.
    pub(super) fn clients_at(&self, backend: usize) -> Result<usize> {
        let balancer = self.topology.lb1.address(Family::V4);
        let far_ends = self.topology.all_brokers()[backend].connections(PORT)?;
        // Health checks come from the balancer's own ports, translated clients from below them.
        let is_client = |far: &&std::net::SocketAddr| far.ip() != balancer || far.port() < 32_768;
        Ok(far_ends.iter().filter(is_client).count())
    }

    /// Starts clients that stay.
    pub(super) fn load(&self, count: u32, ping: Duration) -> Result<Load> {
        let vip = Family::V4.vip().to_string();
        let keep_alive = KEEP_ALIVE.to_string();
        let ping = format!("{}ms", ping.as_millis());
        #[rustfmt::skip]
        let arguments = [
            "-h", &vip, "-k", &keep_alive, "--ping-interval", &ping, "-i", "0", "--connecting", "100",
            "--client-id", "c%i", "--reconnect", "--events", "--moves",
        ];
        let client = &self.topology.client;
        Load::start(
            client,
            &self.programs.broker,
            "clients",
            "conn",
            count,
            &arguments,
        )
    }

    /// Where every session is and was.
    pub(super) fn sessions(&self) -> Sessions {
        let mut sessions = Sessions::default();
        for (number, broker) in self.brokers.iter().enumerate() {
            sessions.read(number, &broker.process.stderr());
        }
        sessions
    }

    /// Every process of a broker that there was.
    pub(super) fn incarnations(&self) -> Vec<Incarnation> {
        self.brokers
            .iter()
            .map(|broker| broker.incarnation)
            .collect()
    }

    /// The sessions of a backend, by its log.
    pub(super) fn sessions_of(&self, backend: usize) -> Result<Vec<Session>> {
        Ok(self.sessions().of(self.running(backend)?))
    }

    /// `broker1`, ...
    pub(super) fn name(&self, backend: usize) -> &'static str {
        self.topology.all_brokers()[backend].name()
    }

    /// What the balancer wrote.
    pub(super) fn balancer_log(&self) -> String {
        self.balancer
            .as_ref()
            .map(Process::stderr)
            .unwrap_or_default()
    }

    /// Runs a command of `tidegate` that asks the daemon.
    pub(super) fn ask(&self, arguments: &[&str]) -> Result<String> {
        let mut command = self.tidegate()?;
        exec::output(command.args(arguments).args(["--socket", SOCKET]))
    }

    /// Packets that the program has dropped, by verdict.
    pub(super) fn drops(&self) -> Result<BTreeMap<String, u64>> {
        let mut status: serde_json::Value =
            serde_json::from_str(&self.ask(&["status", "--json"])?)?;
        let mut verdicts: BTreeMap<String, u64> =
            serde_json::from_value(status["verdicts"].take())?;
        verdicts.retain(|verdict, packets| verdict.starts_with("drop_") && *packets > 0);
        Ok(verdicts)
    }

    fn tidegate(&self) -> Result<Command> {
        let host: &Host = &self.topology.lb1;
        let mut command = host.command(&self.programs.tidegate)?;
        command.current_dir(host.work_dir());
        Ok(command)
    }

    fn write_config(&self) -> Result<()> {
        let Mode { forward, balance } = self.mode;
        let mut text = format!(
            r#"interface = "eth0"
state_dir = "state"
pin_dir = "{}"
[api]
socket = "{SOCKET}"
[limits]
services = 4
backends = 64
flows = 100000
half_open = 65536
[[vip]]
address = "172.16.40.24/32"
[[service]]
name = "mqtt"
vip = "172.16.40.24"
port = {PORT}
protocol = "mqtt"
balance = "{}"
forward = "{}"
keep_alive = "{KEEP_ALIVE}s"
[service.check]
type = "mqtt"
interval = "2s"
timeout = "2s"
fall = 2
rise = 1
"#,
            self.topology.lb1.work_dir().join("bpf").display(),
            name_of(balance),
            name_of(forward),
        );
        for (backend, host) in self.topology.all_brokers().into_iter().enumerate() {
            if self.members[backend] {
                let (name, address) = (host.name(), host.address(Family::V4));
                let _ = writeln!(
                    text,
                    "[[service.backend]]\nname = \"{name}\"\naddress = \"{address}\""
                );
            }
        }
        ConfigText::from(text.as_str())
            .write(&self.topology.lb1, "tidegate.toml")
            .map(drop)
    }
}

/// Unix time in seconds, as logs and events have it.
pub(super) fn unix_now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs_f64()
}
