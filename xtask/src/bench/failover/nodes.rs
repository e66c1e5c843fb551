//! The two hosts that stand in for each other: with Tidegate, or with keepalived.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use rustix::process::{Pid, Signal};
use serde::Serialize;

use crate::exec;
use crate::lab::{
    Answers, Binaries, ConfigText, Example, Family, Host, Process, Topology, wait_until,
};
use crate::network::PORT;

/// Longest wait for anything that happens at once on an idle machine.
pub(super) const SOON: Duration = Duration::from_secs(30);

/// Answers in a row by which a host is known to have the address.
const STEADY: usize = 100;

/// Whose priority is higher. The lower one is close to it, so that its skew is short.
pub(super) const ACTIVE: usize = 0;
pub(super) const BACKUP: usize = 1;
const PRIORITIES: [u8; 2] = [250, 240];

/// A lower priority than the Backup's.
const LOWERED: u8 = 230;

/// Hop limits by which answers of the two hosts are told apart.
pub(super) const TTLS: [u8; 2] = [201, 202];

/// Who speaks VRRP.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(super) enum Speaker {
    Tidegate,
    Keepalived,
}

/// Both hosts; everything ends when dropped.
pub(super) struct Nodes {
    // In this order: the programs end before what they run in.
    processes: [Option<Process>; 2],
    _brokers: Vec<Process>,
    speaker: Speaker,
    interval: Duration,
    programs: Binaries,
    pub(super) topology: Topology,
}

impl Nodes {
    /// Starts both, and waits until the first is Active.
    pub(super) fn new(speaker: Speaker, interval: Duration, programs: &Binaries) -> Result<Self> {
        let topology = Topology::new()?;
        let mut brokers = Vec::new();
        if speaker == Speaker::Tidegate {
            for host in topology.brokers() {
                brokers.push(start_broker(host, programs)?);
            }
        }
        let mut nodes = Self {
            processes: [None, None],
            _brokers: brokers,
            speaker,
            interval,
            programs: programs.clone(),
            topology,
        };
        for (at, ttl) in TTLS.iter().enumerate() {
            let netns = nodes.host(at).netns();
            netns.sysctl("net.ipv4.ip_default_ttl", &ttl.to_string())?;
        }
        nodes.flood_to_active_first()?;
        nodes.start(ACTIVE)?;
        nodes.start(BACKUP)?;
        Ok(nodes)
    }

    /// Has a broadcast reach the first host before the second: of two that answer for an address the
    /// first to do so is believed. A bridge floods to its latest port first.
    fn flood_to_active_first(&self) -> Result<()> {
        let name = self.host(ACTIVE).name();
        let [out, back] = ["nomaster", "master br0"].map(|to| format!("link set {name} {to}"));
        self.topology.switch().netns().ip(&[&out, &back])
    }

    /// lb1 or lb2.
    pub(super) fn host(&self, at: usize) -> &Host {
        [&self.topology.lb1, &self.topology.lb2][at]
    }

    /// Its own address.
    pub(super) fn address(&self, at: usize) -> Ipv4Addr {
        v4(self.host(at).address(Family::V4))
    }

    /// Starts what is not running.
    pub(super) fn start(&mut self, at: usize) -> Result<()> {
        if self.processes[at].as_mut().is_some_and(Process::is_running) {
            return Ok(());
        }
        self.configure(at, PRIORITIES[at])?;
        let host = self.host(at);
        let process = match self.speaker {
            Speaker::Tidegate => {
                let mut command = host.command(&self.programs.tidegate)?;
                command.args(["run", "--config", "tidegate.toml"]);
                let mut process = host.spawn("tidegate", command)?;
                process.wait_for_line("ready", SOON)?;
                process
            }
            Speaker::Keepalived => {
                let directory = host.work_dir().display().to_string();
                // One that was killed leaves them, and their number may still be somebody's.
                for file in ["keepalived.pid", "vrrp.pid"] {
                    // Most of the time there is none.
                    let _ = fs::remove_file(host.work_dir().join(file));
                }
                let mut command = host.command("keepalived")?;
                command.args(["--dont-fork", "--log-console", "--no-syslog", "--vrrp"]);
                command.args(["--use-file", &format!("{directory}/keepalived.conf")]);
                command.arg(format!("--pid={directory}/keepalived.pid"));
                command.arg(format!("--vrrp_pid={directory}/vrrp.pid"));
                let mut process = host.spawn("keepalived", command)?;
                process.wait_for_line("BACKUP STATE", SOON)?;
                process
            }
        };
        self.processes[at] = Some(process);
        Ok(())
    }

    /// Ends both and starts them again, in a network that is whole.
    pub(super) fn begin_anew(&mut self) -> Result<()> {
        self.part(false)?;
        self.plug(ACTIVE)?;
        self.processes = [None, None];
        self.start(ACTIVE)?;
        self.start(BACKUP)
    }

    /// Ends a daemon as a crash would, with all that it has started.
    pub(super) fn kill(&mut self, at: usize) -> Result<Instant> {
        let process = self.process(at)?;
        let children = children_of(process.pid());
        let event = Instant::now();
        for child in children.into_iter().filter_map(Pid::from_raw) {
            rustix::process::kill_process(child, Signal::KILL)?;
        }
        process.kill()?;
        Ok(event)
    }

    /// Asks a daemon to end, and does not wait for that.
    pub(super) fn stop(&mut self, at: usize) -> Result<Instant> {
        let event = Instant::now();
        self.process(at)?.signal(Signal::TERM)?;
        Ok(event)
    }

    /// Waits for a daemon's end.
    pub(super) fn wait_for_end(&mut self, at: usize) -> Result<()> {
        self.process(at)?.wait(SOON).map(drop)
    }

    /// Has a host hand its role over while its daemon goes on: as an operator would.
    pub(super) fn release(&mut self, at: usize) -> Result<Instant> {
        match self.speaker {
            Speaker::Tidegate => {
                let event = Instant::now();
                self.ask(at, &["vrrp", "release", "front"])?;
                Ok(event)
            }
            Speaker::Keepalived => {
                self.configure(at, LOWERED)?;
                let event = Instant::now();
                self.process(at)?.signal(Signal::HUP)?;
                Ok(event)
            }
        }
    }

    /// Undoes [`Self::release`].
    pub(super) fn resume(&mut self, at: usize) -> Result<()> {
        match self.speaker {
            Speaker::Tidegate => self.ask(at, &["vrrp", "resume", "front"]),
            Speaker::Keepalived => {
                self.configure(at, PRIORITIES[at])?;
                self.process(at)?.signal(Signal::HUP)
            }
        }
    }

    /// Pulls a host's cable, by a process that has started before: only the change itself takes time.
    pub(super) fn unplug(&self, at: usize) -> Result<Instant> {
        let netns = self.topology.switch().netns();
        let mut command = netns.command("ip")?;
        command.args(["-batch", "-"]);
        self.change(
            command,
            &[format!("link set {} down", self.host(at).name())],
        )
    }

    /// Puts it back.
    pub(super) fn plug(&self, at: usize) -> Result<()> {
        self.topology.switch().plug(self.host(at))
    }

    /// Has the two hosts reach each other or not; both still reach everybody else.
    pub(super) fn part(&self, is_parted: bool) -> Result<Instant> {
        let netns = self.topology.switch().netns();
        let mut command = netns.command("bridge")?;
        command.args(["-batch", "-"]);
        let isolated = if is_parted { "on" } else { "off" };
        let line = |at: usize| {
            let name = self.host(at).name();
            format!("link set dev {name} isolated {isolated}")
        };
        self.change(command, &[line(ACTIVE), line(BACKUP)])
    }

    /// Tells a running program of iproute2 to do something.
    fn change(&self, mut command: Command, lines: &[String]) -> Result<Instant> {
        use std::io::Write as _;
        let mut child = command.stdin(Stdio::piped()).spawn()?;
        let mut input = child.stdin.take().context("no input")?;
        // For it to have started.
        std::thread::sleep(Duration::from_millis(50));
        let event = Instant::now();
        writeln!(input, "{}", lines.join("\n"))?;
        drop(input);
        let status = child.wait()?;
        ensure!(status.success(), "`{}`: {status}", exec::show(&command));
        Ok(event)
    }

    /// Has the client ask again who has the address.
    pub(super) fn forget_neighbour(&self) -> Result<()> {
        let vip = Family::V4.vip();
        let line = format!("neighbour flush to {vip} dev eth0");
        self.topology.client.netns().ip(&[&line])
    }

    /// Waits until one host alone answers, the latest so many questions in a row.
    pub(super) fn wait_for_answers(&self, answers: &Answers, at: usize) -> Result<()> {
        let what = format!("steady answers of {}", self.host(at).name());
        let begun = Instant::now();
        let found = wait_until(2 * SOON, &what, || {
            let is_his = answers.are_steady(TTLS[at], STEADY, begun);
            is_his.then_some(())
        });
        found.with_context(|| self.logs())
    }

    fn logs(&self) -> String {
        let logs = self.processes.iter().flatten().map(Process::tail);
        logs.collect::<Vec<_>>().join("\n---\n")
    }

    fn process(&mut self, at: usize) -> Result<&mut Process> {
        self.processes[at].as_mut().context("the node does not run")
    }

    fn ask(&self, at: usize, arguments: &[&str]) -> Result<()> {
        let host = self.host(at);
        let mut command = host.command(&self.programs.tidegate)?;
        command.current_dir(host.work_dir()).args(arguments);
        command.args(["--socket", "tidegate.sock"]);
        exec::run(&mut command)
    }

    fn configure(&self, at: usize, priority: u8) -> Result<()> {
        let host = self.host(at);
        let (name, text) = match self.speaker {
            Speaker::Tidegate => (
                "tidegate.toml",
                tidegate_config(host, priority, self.interval),
            ),
            Speaker::Keepalived => (
                "keepalived.conf",
                keepalived_config(priority, self.interval),
            ),
        };
        ConfigText::from(text.as_str()).write(host, name).map(drop)
    }
}

fn start_broker(host: &Host, programs: &Binaries) -> Result<Process> {
    let node = format!("{:?}", host.name());
    let config = ConfigText::example(Example::Broker)?.set("", "node", &node);
    let config = config.write(host, "broker.toml")?;
    let mut command = host.command(&programs.broker)?;
    command.args(["run", "--config"]).arg(config);
    let mut process = host.spawn("tidegate-broker", command)?;
    process.wait_for_line("ready", SOON)?;
    Ok(process)
}

fn tidegate_config(host: &Host, priority: u8, interval: Duration) -> String {
    let directory = host.work_dir().display();
    let interval = interval.as_millis();
    format!(
        r#"interface = "eth0"
seed = "00112233445566778899aabbccddeeff"
state_dir = "state"
pin_dir = "{directory}/bpf"
[api]
socket = "tidegate.sock"
[limits]
services = 4
backends = 16
flows = 10000
half_open = 1024
[[vip]]
address = "172.16.40.24/32"
[[vrrp]]
name = "front"
vrid = 51
vips = ["172.16.40.24"]
priority = {priority}
advert_interval = "{interval}ms"
[[service]]
name = "mqtt"
vip = "172.16.40.24"
port = {PORT}
protocol = "mqtt"
balance = "maglev"
forward = "dsr"
[service.check]
type = "mqtt"
[[service.backend]]
name = "broker1"
address = "172.16.40.20"
[[service.backend]]
name = "broker2"
address = "172.16.40.21"
"#
    )
}

/// Its threads run before ordinary ones, as Tidegate's do.
fn keepalived_config(priority: u8, interval: Duration) -> String {
    let interval = interval.as_secs_f64();
    format!(
        "global_defs {{\n vrrp_version 3\n vrrp_rt_priority 1\n}}\n\
         vrrp_instance front {{\n state BACKUP\n interface eth0\n virtual_router_id 51\n \
         priority {priority}\n advert_int {interval}\n virtual_ipaddress {{\n 172.16.40.24/32\n }}\n}}\n"
    )
}

pub(super) fn v4(address: IpAddr) -> Ipv4Addr {
    match address {
        IpAddr::V4(v4) => v4,
        IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
    }
}

fn children_of(pid: u32) -> Vec<i32> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let list = list.unwrap_or_default();
    list.split_whitespace()
        .filter_map(|child| child.parse().ok())
        .collect()
}
