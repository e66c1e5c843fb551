//! A balancer on the reference network with a configuration that a test writes: `tidegate run` on
//! lb1, its file, and what its command line says.
//!
//! Where the example configs will do, `xtask::network` is the shorter way.

use std::net::SocketAddr;
use std::process::Output;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lb_user::control::{BackendStatus, ServiceStatus, Status};
use rustix::process::Signal;
use xtask::lab::{Binaries, ConfigText, Example, Family, Host, Process, Topology, wait_until};
use xtask::load::Load;

/// How long anything may take that happens at once on an idle machine.
pub const SOON: Duration = Duration::from_secs(30);

/// How many clients a test should have: as many as it says, or as many as it is told by
/// `TIDEGATE_TEST_CLIENTS`, for a run at full size.
///
/// # Panics
/// If that is no number.
#[must_use]
pub fn clients(usual: u32) -> u32 {
    let told = std::env::var("TIDEGATE_TEST_CLIENTS");
    told.map_or(usual, |told| {
        told.parse().expect("TIDEGATE_TEST_CLIENTS is a number")
    })
}

/// How long so many clients may take to be up where the machine is busy with other things too.
#[must_use]
pub fn soon_for(count: u32) -> Duration {
    SOON + Duration::from_millis(10) * count
}

/// Flows that a balancer under test has room for: several times as many as a test has clients.
#[must_use]
pub fn flow_room() -> u32 {
    clients(0).saturating_mul(4).max(10_000)
}

/// Where a broker's control socket is in its host's directory.
const BROKER_SOCKET: &str = "broker.sock";

/// The port where brokers say whether new clients are welcome.
pub const BROKER_HEALTH: u16 = 18080;

/// First port of the kernel's own choice: `nat` sends clients' flows from below.
const FIRST_EPHEMERAL: u16 = 32_768;

/// How quickly checks must notice, and after how many: much faster than anybody would want it to be,
/// but patient when a run at full size keeps the machine busy. A backend that fell for it would end
/// sessions.
#[must_use]
pub fn check_times() -> (&'static str, u8) {
    if clients(0) == 0 {
        ("200ms", 2)
    } else {
        ("1s", 10)
    }
}

/// The network, its brokers, and a balancer that a test starts and stops.
pub struct Lab {
    // In this order: the programs end before what they run in.
    pub balancer: Option<Process>,
    pub brokers: [Option<Process>; 2],
    pub programs: Binaries,
    pub topology: Topology,
    /// Added to the brokers' configurations when they start.
    broker_settings: [String; 2],
}

impl Lab {
    /// The network with both brokers, which hold the VIPs.
    ///
    /// # Errors
    /// Names what does not start.
    pub fn new() -> Result<Self> {
        Self::with_brokers(|_lab, _number| Ok(String::new()))
    }

    /// The same with brokers that are one.
    ///
    /// # Errors
    /// Names what does not start.
    pub fn clustered() -> Result<Self> {
        let lab = Self::with_brokers(|lab, number| {
            let key = lab.topology.work_dir().join("cluster.key");
            if !key.exists() {
                let mut command = lab.topology.brokers()[number].command(&lab.programs.broker)?;
                let made = command.args(["cluster", "key"]).arg(&key).output()?;
                ensure!(made.status.success(), "no key: {made:?}");
            }
            let [own, other] = [number, 1 - number].map(|number| {
                let address = lab.topology.brokers()[number].address(Family::V4);
                SocketAddr::new(address, 7883).to_string()
            });
            Ok(format!(
                "[cluster]\nname = \"plant\"\nlisten = {own:?}\nseeds = [{other:?}]\n\
                 key_file = {key:?}\n"
            ))
        })?;
        lab.wait_for_cluster()?;
        Ok(lab)
    }

    fn with_brokers(settings: impl Fn(&Self, usize) -> Result<String>) -> Result<Self> {
        let mut lab = Self {
            balancer: None,
            brokers: [None, None],
            programs: Binaries::find()?,
            topology: Topology::new()?,
            broker_settings: Default::default(),
        };
        for number in 0..2 {
            lab.broker_settings[number] = settings(&lab, number)?;
            lab.start_broker(number)?;
        }
        Ok(lab)
    }

    /// Waits until both brokers of a cluster know each other's subscribers.
    ///
    /// # Errors
    /// When they do not.
    pub fn wait_for_cluster(&self) -> Result<()> {
        let is_whole = |number: usize| {
            let told = self.ask_broker(number, &["cluster", "status", "--json"]);
            told.is_ok_and(|told| String::from_utf8_lossy(&told.stdout).contains("\"synced\":true"))
        };
        Ok(wait_until(SOON, "the brokers being one", || {
            (is_whole(0) && is_whole(1)).then_some(())
        })?)
    }

    /// The same with a balancer that serves the given configuration, both backends being up.
    ///
    /// # Errors
    /// Names what does not start.
    pub fn serving(config: &str) -> Result<Self> {
        let mut lab = Self::new()?;
        lab.start(config)?;
        lab.wait_for_backends(&[("broker1", "up"), ("broker2", "up")])?;
        Ok(lab)
    }

    /// Starts a broker, again if need be.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start_broker(&mut self, number: usize) -> Result<()> {
        let host = self.topology.brokers()[number];
        let node = format!("{:?}", host.name());
        let socket = format!("{:?}", host.work_dir().join(BROKER_SOCKET));
        let config = ConfigText::example(Example::Broker)?
            .set("", "node", &node)
            .set("control", "socket", &socket)
            .set("health", "listen", &format!("\"0.0.0.0:{BROKER_HEALTH}\""));
        let config = config.append(&self.broker_settings[number]);
        let config = config.write(host, "broker.toml")?;
        let mut command = host.command(&self.programs.broker)?;
        command.args(["run", "--config"]).arg(config);
        let mut process = host.spawn("tidegate-broker", command)?;
        process.wait_for_line("ready", SOON)?;
        self.brokers[number] = Some(process);
        Ok(())
    }

    /// Runs a command of `tidegate-broker` that asks a broker, to its end.
    ///
    /// # Errors
    /// When it cannot start.
    pub fn ask_broker(&self, number: usize, arguments: &[&str]) -> Result<Output> {
        let host = self.topology.brokers()[number];
        let mut command = host.command(&self.programs.broker)?;
        let socket = host.work_dir().join(BROKER_SOCKET);
        command.args(arguments).arg("--socket").arg(socket);
        command.output().context("tidegate-broker cannot be run")
    }

    /// Ends a broker without asking it.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill_broker(&mut self, number: usize) -> Result<()> {
        let broker = self.brokers[number].take();
        broker.context("the broker does not run")?.kill()?;
        Ok(())
    }

    /// The host that the balancer runs on.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.topology.lb1
    }

    /// Writes the balancer's configuration, `$DIR` standing for the host's directory.
    ///
    /// # Errors
    /// When the directory is not writable.
    pub fn write(&self, config: &str) -> Result<()> {
        let directory = self.host().work_dir().display().to_string();
        let config = config.replace("$DIR", &directory);
        ConfigText::from(config.as_str()).write(self.host(), "tidegate.toml")?;
        Ok(())
    }

    /// Starts the balancer and waits until it is ready.
    ///
    /// # Errors
    /// When it is not.
    pub fn start(&mut self, config: &str) -> Result<()> {
        let mut balancer = self.spawn("tidegate", config)?;
        balancer.wait_for_line("ready", SOON)?;
        self.balancer = Some(balancer);
        Ok(())
    }

    /// Starts a balancer; `name` names its log.
    ///
    /// # Errors
    /// When it cannot start.
    pub fn spawn(&self, name: &str, config: &str) -> Result<Process> {
        self.write(config)?;
        let mut command = self.host().command(&self.programs.tidegate)?;
        command.args(["run", "--config", "tidegate.toml"]);
        self.host().spawn(name, command)
    }

    /// The running balancer.
    ///
    /// # Errors
    /// When it was not started.
    pub fn balancer(&mut self) -> Result<&mut Process> {
        self.balancer.as_mut().context("no balancer was started")
    }

    /// Sends the balancer a signal.
    ///
    /// # Errors
    /// When it does not run.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        self.balancer()?.signal(signal)
    }

    /// Runs a command of `tidegate` that asks the daemon, to its end.
    ///
    /// # Errors
    /// When it cannot start.
    pub fn ask(&self, arguments: &[&str]) -> Result<Output> {
        self.tidegate(&[arguments, &["--socket", "tidegate.sock"]].concat())
    }

    /// Runs a command of `tidegate` on the balancer's host, to its end.
    ///
    /// # Errors
    /// When it cannot start.
    pub fn tidegate(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = self.host().command(&self.programs.tidegate)?;
        command.current_dir(self.host().work_dir()).args(arguments);
        command.output().context("tidegate cannot be run")
    }

    /// What the balancer says of itself.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn status(&self) -> Result<Status> {
        let output = self.ask(&["status", "--json"])?;
        let text = String::from_utf8_lossy(&output.stdout);
        serde_json::from_str(&text).with_context(|| format!("no status: {output:?}"))
    }

    /// What it says of the first service.
    ///
    /// # Errors
    /// When it does not answer or has none.
    pub fn service(&self) -> Result<ServiceStatus> {
        let mut services = self.status()?.services.into_iter();
        services.next().context("there is no service")
    }

    /// What it says of one backend of the first service.
    ///
    /// # Errors
    /// When it does not answer or has none of that name.
    pub fn backend(&self, name: &str) -> Result<BackendStatus> {
        let mut backends = self.service()?.backends.into_iter();
        let backend = backends.find(|backend| backend.name == name);
        backend.with_context(|| format!("there is no backend {name}"))
    }

    /// Waits until backends have the given health, and get new clients if that is "up".
    ///
    /// # Errors
    /// When they do not.
    pub fn wait_for_backends(&self, wanted: &[(&str, &str)]) -> Result<()> {
        let mut last = None;
        let found = wait_until(SOON, &format!("{wanted:?}"), || {
            last = self.service().ok();
            let backends = &last.as_ref()?.backends;
            let is = |(name, health): &(&str, &str)| {
                let mut backends = backends.iter();
                let found = backends.find(|b| b.name == *name && b.health.to_string() == *health);
                found.is_some_and(|b| *health != "up" || (b.share > 0.0 && b.next_hop.is_some()))
            };
            wanted.iter().all(is).then_some(())
        });
        found.with_context(|| format!("the last status was {last:?}"))
    }

    /// Starts clients of the VIP.
    ///
    /// # Errors
    /// When they cannot start.
    pub fn load(&self, name: &str, kind: &str, count: u32, arguments: &[&str]) -> Result<Load> {
        let vip = Family::V4.vip().to_string();
        let mut all = vec!["-h", &vip];
        all.extend(arguments);
        let client = &self.topology.client;
        Load::start(client, &self.programs.broker, name, kind, count, &all)
    }

    /// Starts clients of the VIP that stay, and waits until they are up.
    ///
    /// # Errors
    /// When they do not come up.
    pub fn stay(&self, name: &str, count: u32) -> Result<Load> {
        let mut load = self.load(name, "conn", count, &["-i", "1", "--hold", "10m"])?;
        load.wait_ready(soon_for(count))?;
        Ok(load)
    }

    /// Clients that are connected to each broker, by the brokers' kernels, whatever is done to their
    /// addresses on the way: the balancer's own health checks are short, and come from higher ports.
    ///
    /// # Errors
    /// When these cannot be asked.
    pub fn connections(&self) -> Result<[usize; 2]> {
        let balancer = self.host().address(Family::V4);
        let is_client = |far: &&SocketAddr| far.ip() != balancer || far.port() < FIRST_EPHEMERAL;
        let count = |host: &Host| -> Result<usize> {
            Ok(host.connections(1883)?.iter().filter(is_client).count())
        };
        let [one, two] = self.topology.brokers();
        Ok([count(one)?, count(two)?])
    }

    /// Waits for connections as they are wanted: the kernels' tables, read while they change, have gaps.
    ///
    /// # Errors
    /// When they do not become so.
    pub fn wait_for_connections(&self, wanted: impl Fn([usize; 2]) -> bool) -> Result<[usize; 2]> {
        let mut last = None;
        let found = wait_until(SOON, "as many connections as there should be", || {
            last = self.connections().ok();
            last.filter(|now| wanted(*now))
        });
        found.with_context(|| format!("{last:?} are there"))
    }

    /// Clients that are connected to each broker with their own address, by the brokers' kernels.
    ///
    /// # Errors
    /// When these cannot be asked.
    pub fn clients(&self) -> Result<[usize; 2]> {
        let client = self.topology.client.address(Family::V4);
        let count = |host: &Host| -> Result<usize> {
            let far_ends = host.connections(1883)?;
            Ok(far_ends.iter().filter(|far| far.ip() == client).count())
        };
        let [one, two] = self.topology.brokers();
        Ok([count(one)?, count(two)?])
    }

    /// Waits until clients are connected to each broker in the given numbers.
    ///
    /// # Errors
    /// When they are not.
    pub fn wait_for_clients(&self, wanted: [usize; 2]) -> Result<()> {
        let mut last = None;
        let found = wait_until(SOON, &format!("{wanted:?} clients"), || {
            last = self.clients().ok();
            (last? == wanted).then_some(())
        });
        found.with_context(|| format!("{last:?} clients are there"))
    }

    /// The addresses of eth0 on the balancer's host, one a line.
    ///
    /// # Errors
    /// When `ip` cannot say.
    pub fn addresses(&self) -> Result<String> {
        self.host()
            .output("ip", &["-brief", "address", "show", "dev", "eth0"])
    }

    /// Whether the balancer's eth0 has an XDP program.
    ///
    /// # Errors
    /// When `ip` cannot say.
    pub fn has_program(&self) -> Result<bool> {
        let link = self.host().output("ip", &["link", "show", "dev", "eth0"])?;
        Ok(link.contains("xdp"))
    }
}

/// A configuration with one service and the given backends: names and last bytes of addresses.
#[must_use]
pub fn config(balance: &str, forward: &str, backends: &[(&str, u8)]) -> String {
    let room = flow_room();
    let (interval, fall) = check_times();
    let mut text = format!(
        r#"interface = "eth0"
state_dir = "$DIR/state"
pin_dir = "$DIR/bpf"
[api]
socket = "$DIR/tidegate.sock"
[limits]
services = 4
backends = 16
flows = {room}
half_open = {room}
[[vip]]
address = "172.16.40.24/32"
[[vip]]
address = "fd00:40::24/128"
[[service]]
name = "mqtt"
vip = "172.16.40.24"
port = 1883
protocol = "tcp"
balance = "{balance}"
forward = "{forward}"

[service.check]
type = "mqtt"
interval = "{interval}"
timeout = "{interval}"
fall = {fall}
rise = 2
jitter = 0.0
"#
    );
    for (name, last) in backends {
        text +=
            &format!("[[service.backend]]\nname = \"{name}\"\naddress = \"172.16.40.{last}\"\n");
    }
    text
}

/// Both brokers.
pub const BOTH: [(&str, u8); 2] = [("broker1", 20), ("broker2", 21)];
