//! The reference network with its programs running: two brokers, two balancers.

mod brokers;
mod pair;
mod status;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use rustix::process::Signal;

pub use brokers::unpacking;
pub use status::{BackendStatus, Status};

use crate::exec;
use crate::lab::{Binaries, ConfigText, Example, Family, Host, Process, Topology, wait_until};
use status::StatusJson;

/// MQTT.
pub const PORT: u16 = 1883;

/// How long a program may take to be ready, on a slow and busy machine.
const START: Duration = Duration::from_secs(30);

/// First port of the kernel's own choice: health checks come from there and up, `nat` flows from below.
const FIRST_EPHEMERAL: u16 = 32768;

/// How packets reach the backends.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Forward {
    /// Direct server return: replies bypass the balancer.
    Dsr,
    /// Full NAT: works with any backend.
    Nat,
    /// Tunnels: replies bypass the balancer, and routers may be in between.
    Tunnel,
}

/// How a backend is chosen.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Balance {
    /// By hash, without state per flow.
    Maglev,
    /// By hash of the client's address.
    Source,
    /// In turn.
    RoundRobin,
    /// To who has the fewest flows.
    LeastConn,
}

impl Balance {
    /// How far one of two backends may be from its half of so many clients that came at once from one
    /// address.
    pub fn slack(self, clients: u32) -> usize {
        let clients = clients as usize;
        match self {
            // Exact but for connects that overtake each other.
            Self::RoundRobin => 2,
            // The draw leaves a few flows, and connects that overtake each other as many more.
            Self::LeastConn => (clients / 100).max(8),
            // Four standard deviations, and what the table itself is uneven.
            Self::Maglev => (clients / 20).max(2 * clients.isqrt()),
            // All of them are one source.
            Self::Source => clients.div_ceil(2),
        }
    }

    /// Whether every flow is recorded, and so counted once however often its SYN comes.
    pub fn records(self, forward: Forward) -> bool {
        match self {
            Self::RoundRobin | Self::LeastConn => true,
            Self::Maglev | Self::Source => forward == Forward::Nat,
        }
    }
}

/// What serves the clients.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Backend {
    /// Our brokers, each by itself.
    Tidegate,
    /// Our brokers, as one.
    Cluster,
    /// An unmodified third-party broker.
    Mosquitto,
}

/// What the network is to be like.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// How packets reach the backends.
    pub forward: Forward,
    /// How a backend is chosen.
    pub balance: Balance,
    /// What serves the clients.
    pub backend: Backend,
    /// Of the VIP and the backends.
    pub family: Family,
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let family = match self.family {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        };
        let names = [
            name_of(self.forward),
            name_of(self.balance),
            name_of(self.backend),
        ];
        write!(f, "{} {family}", names.join(" "))
    }
}

/// A value as it is written on the command line and in configs.
pub fn name_of(value: impl ValueEnum) -> String {
    let value = value.to_possible_value();
    value
        .map(|value| value.get_name().to_owned())
        .unwrap_or_default()
}

/// The running network; everything ends when dropped.
#[derive(Debug)]
pub struct Network {
    // In this order: the programs end before what they run in.
    balancers: Vec<Process>,
    brokers: Vec<Process>,
    /// What unpacks for brokers that do not do so themselves.
    unpackers: Vec<Process>,
    shape: Shape,
    programs: Binaries,
    /// What our brokers are configured with besides: table, key, value.
    settings: &'static [(&'static str, &'static str, &'static str)],
    config: ConfigText,
    /// Whether VRRP says which balancer has the VIPs.
    is_pair: bool,
    topology: Topology,
}

impl Network {
    /// Builds the network with its brokers; balancers follow with [`Network::start_tidegate`].
    ///
    /// # Errors
    /// Needs root, and names what does not start.
    pub fn new(shape: Shape, programs: &Binaries) -> Result<Self> {
        Self::with_settings(shape, programs, &[])
    }

    /// The same with keys for the configuration of our brokers: table, key and value of each.
    ///
    /// # Errors
    /// As [`Network::new`].
    pub fn with_settings(
        shape: Shape,
        programs: &Binaries,
        settings: &'static [(&'static str, &'static str, &'static str)],
    ) -> Result<Self> {
        let topology = Topology::new()?;
        // The clients' side of one address: as many source ports as there are.
        let ports = "1024 65535";
        let client = topology.client.netns();
        client.sysctl("net.ipv4.ip_local_port_range", ports)?;
        for host in topology.hosts() {
            host.netns().sysctl("net.core.somaxconn", "32768")?;
            host.netns()
                .sysctl("net.ipv4.tcp_max_syn_backlog", "16384")?;
        }
        let mut network = Self {
            balancers: Vec::new(),
            brokers: Vec::new(),
            unpackers: Vec::new(),
            shape,
            programs: programs.clone(),
            settings,
            config: tidegate_config(shape)?,
            is_pair: false,
            topology,
        };
        if shape.backend == Backend::Cluster {
            brokers::make_key(&network.topology, programs)?;
        }
        for host in network.topology.brokers() {
            if shape.backend == Backend::Mosquitto && shape.forward != Forward::Nat {
                host.hold_vip(Family::V4.vip())?;
                host.hold_vip(Family::V6.vip())?;
            }
            if shape.backend == Backend::Mosquitto && shape.forward == Forward::Tunnel {
                network.unpackers.push(brokers::unpack(host, programs)?);
            }
            let broker = network.start_broker(host)?;
            network.brokers.push(broker);
        }
        network.wait_until_brokers_are_one()?;
        Ok(network)
    }

    /// Starts Tidegate: lb1 holds the VIP, lb2 has the same tables and waits.
    ///
    /// # Errors
    /// Names what does not start, with its log.
    pub fn start_tidegate(&mut self) -> Result<()> {
        for (host, assign) in [(&self.topology.lb1, "true"), (&self.topology.lb2, "false")] {
            let config = self.config.clone().set("vip", "assign", assign);
            let process = self.start_balancer(host, config)?;
            self.balancers.push(process);
        }
        self.wait_until_brokers_are_up()
    }

    /// Ends what unpacks for brokers that do not do so themselves, and returns what each has counted.
    ///
    /// # Errors
    /// When one does not end as it should.
    pub fn end_unpackers(&mut self) -> Result<Vec<String>> {
        let ended = self.unpackers.iter_mut().map(|unpacker| {
            unpacker.signal(Signal::TERM)?;
            unpacker.finish(START)
        });
        ended.collect()
    }

    fn start_balancer(&self, host: &Host, config: ConfigText) -> Result<Process> {
        let socket = format!("{:?}", socket_of(host));
        let state = format!("{:?}", host.work_dir().join("state"));
        let pins = format!("{:?}", host.work_dir().join("bpf"));
        let config = config
            .set("", "state_dir", &state)
            .set("", "pin_dir", &pins)
            .set("api", "socket", &socket)
            .write(host, "tidegate.toml")?;
        let mut command = host.command(&self.programs.tidegate)?;
        command.args(["run", "--config"]).arg(config);
        let mut process = host.spawn("tidegate", command)?;
        process.wait_for_line("ready", START)?;
        Ok(process)
    }

    /// Waits until the active balancer sends clients to both brokers.
    ///
    /// # Errors
    /// When it does not.
    pub fn wait_until_brokers_are_up(&self) -> Result<()> {
        wait_until(START, "both brokers being up", || {
            let status = self.status().ok()?;
            let is_up = |backend: &BackendStatus| backend.health == "up";
            status.backends.iter().all(is_up).then_some(())
        })?;
        Ok(())
    }

    /// Changes the configuration that the balancers start with.
    pub fn edit_config(&mut self, edit: impl FnOnce(ConfigText) -> ConfigText) {
        self.config = edit(self.config.clone());
    }

    /// What runs where.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// What it was made like.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// The programs in use.
    pub fn programs(&self) -> &Binaries {
        &self.programs
    }

    /// The address that clients use.
    pub fn vip(&self) -> IpAddr {
        self.shape.family.vip()
    }

    /// The brokers' processes.
    pub fn brokers(&mut self) -> &mut [Process] {
        &mut self.brokers
    }

    /// Ids of the balancers' processes, lb1's first.
    pub fn balancer_pids(&self) -> Vec<u32> {
        self.balancers.iter().map(Process::pid).collect()
    }

    /// Starts a broker that ended.
    ///
    /// # Errors
    /// When it does not start.
    pub fn restart_broker(&mut self, index: usize) -> Result<()> {
        let broker = self.start_broker(self.topology.brokers()[index])?;
        self.brokers[index] = broker;
        Ok(())
    }

    fn start_broker(&self, host: &Host) -> Result<Process> {
        let (shape, settings) = (self.shape, self.settings);
        brokers::start(host, shape, settings, &self.topology, &self.programs)
    }

    /// What a broker of a cluster says of it, as JSON.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn cluster_status(&self, index: usize) -> Result<String> {
        let host = self.topology.brokers()[index];
        exec::output(brokers::status_command(host, &self.programs).arg("--json"))
    }

    /// Waits until brokers of a cluster know each other, and each other's subscribers.
    ///
    /// # Errors
    /// When they do not.
    pub fn wait_until_brokers_are_one(&self) -> Result<()> {
        if self.shape.backend != Backend::Cluster {
            return Ok(());
        }
        wait_until(START, "both brokers knowing each other", || {
            let hosts = self.topology.brokers().into_iter();
            let mut knowing = hosts.map(|host| brokers::knows_other(host, &self.programs));
            knowing.all(|knows| matches!(knows, Ok(true))).then_some(())
        })?;
        Ok(())
    }

    /// How to ask the active balancer, as one would type it in another terminal.
    pub fn status_command(&self) -> Command {
        let mut command = Command::new(&self.programs.tidegate);
        command
            .args(["status", "--socket"])
            .arg(socket_of(self.active()));
        command
    }

    /// How to ask a broker of a cluster for the others, likewise; `None` where brokers are no cluster.
    pub fn cluster_command(&self) -> Option<Command> {
        let [host, _] = self.topology.brokers();
        let is_cluster = self.shape.backend == Backend::Cluster;
        is_cluster.then(|| brokers::status_command(host, &self.programs))
    }

    /// What the active balancer says.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn status(&self) -> Result<Status> {
        let json = exec::output(self.status_command().arg("--json"))?;
        let StatusJson {
            interface,
            services,
            verdicts,
        } = serde_json::from_str(&json).context("tidegate status --json has changed its form")?;
        let vip = self.vip();
        let service = services
            .into_iter()
            .find(|service| service.vip == vip && service.port == PORT)
            .with_context(|| format!("tidegate has no service {vip}:{PORT}"))?;
        Ok(Status {
            xdp_mode: interface.xdp_mode,
            backends: service.backends,
            verdicts,
        })
    }

    /// Connections of clients at each broker: those of health checks are left out.
    ///
    /// # Errors
    /// When the kernel's tables cannot be read.
    pub fn clients(&self) -> Result<[usize; 2]> {
        // The example configs check both families, whichever the clients use.
        let balancers = [&self.topology.lb1, &self.topology.lb2]
            .map(|host| [Family::V4, Family::V6].map(|family| host.address(family)));
        let is_client = |far: &SocketAddr| {
            !balancers.as_flattened().contains(&far.ip()) || far.port() < FIRST_EPHEMERAL
        };
        let count = |host: &Host| -> Result<usize> {
            let far_ends = host.connections(PORT)?;
            Ok(far_ends.iter().filter(|far| is_client(far)).count())
        };
        let [one, two] = self.topology.brokers();
        Ok([count(one)?, count(two)?])
    }

    /// By when a dead broker gets no new connection: fall x interval + timeout.
    ///
    /// # Errors
    /// When the example config does not say.
    pub fn detection_limit(&self) -> Result<Duration> {
        let fall = self.check_key("fall")?;
        Ok(self.check_interval()? * fall.parse()? + duration(&self.check_key("timeout")?)?)
    }

    /// By when a returned broker is used again: rise x interval + timeout.
    ///
    /// # Errors
    /// When the example config does not say.
    pub fn return_limit(&self) -> Result<Duration> {
        let rise = self.check_key("rise")?;
        Ok(self.check_interval()? * rise.parse()? + duration(&self.check_key("timeout")?)?)
    }

    fn check_interval(&self) -> Result<Duration> {
        duration(&self.check_key("interval")?)
    }

    fn check_key(&self, key: &str) -> Result<String> {
        let value = self.config.get("service.check", key);
        let value = value.with_context(|| format!("the example config sets no check {key}"))?;
        Ok(value.trim_matches('"').to_owned())
    }
}

fn tidegate_config(shape: Shape) -> Result<ConfigText> {
    let example = match shape.forward {
        Forward::Dsr => Example::TidegateDsr,
        Forward::Nat => Example::TidegateNat,
        Forward::Tunnel => Example::TidegateTunnel,
    };
    let balance = format!("{:?}", name_of(shape.balance));
    Ok(ConfigText::example(example)?.set("service", "balance", &balance))
}

fn socket_of(host: &Host) -> PathBuf {
    host.work_dir().join("tidegate.sock")
}

/// Reads the durations that our configs use.
fn duration(text: &str) -> Result<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit());
    let (number, unit) = text.split_at(digits.unwrap_or(text.len()));
    let number: u64 = number
        .parse()
        .with_context(|| format!("no duration: {text}"))?;
    ensure!(["ms", "s"].contains(&unit), "no duration: {text}");
    Ok(if unit == "ms" {
        Duration::from_millis(number)
    } else {
        Duration::from_secs(number)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_configs_write_them() {
        assert_eq!(duration("2s").unwrap(), Duration::from_secs(2));
        assert_eq!(duration("500ms").unwrap(), Duration::from_millis(500));
        assert!(duration("2").is_err());
    }

    #[test]
    fn names_are_those_of_the_config() {
        assert_eq!(name_of(Balance::RoundRobin), "round_robin");
        assert_eq!(name_of(Forward::Nat), "nat");
    }
}
