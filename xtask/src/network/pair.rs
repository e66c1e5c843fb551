//! Two balancers of which one has the VIPs: VRRP moves them, and each tells the other of its flows.
//! Or both have them, for a router that spreads its flows over them.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use super::{Forward, Network, START, socket_of};
use crate::exec;
use crate::lab::{ConfigText, Host, interrupted, wait_until};

/// Both choose the same backend for a client by it.
const SEED: &str = "\"00112233445566778899aabbccddeeff\"";

/// What NAT sends from: it goes where the VIPs go.
const NAT_SOURCES: [&str; 2] = ["172.16.40.25", "fd00:40::25"];

/// VRRP over IPv6 has a link-local address first.
const LINK_LOCAL: &str = "fe80::200:5eff:fe00:233";

/// lb1 has the VIPs while it can.
const PRIORITIES: [u8; 2] = [200, 100];

impl Network {
    /// Starts Tidegate on both hosts: lb1 has the VIPs, lb2 stands by for it.
    ///
    /// # Errors
    /// Names what does not start, with its log.
    pub fn start_pair(&mut self) -> Result<()> {
        for at in [0, 1] {
            let host = self.balancer_host(at);
            let key = host.work_dir().join("sync.key");
            fs::write(&key, "a5".repeat(32))?;
            fs::set_permissions(&key, fs::Permissions::from_mode(0o600))?;
            let config = paired(self.config.clone(), at, self.shape.forward);
            let key = format!("{:?}", key.display().to_string());
            let config = config.set("sync", "key_file", &key);
            let process = self.start_balancer(host, config)?;
            self.balancers.push(process);
        }
        self.is_pair = true;
        self.wait_for_role(0, "active", START)?;
        self.wait_until_brokers_are_up()
    }

    /// Starts Tidegate on both hosts, each of which has the VIPs while it can serve them.
    ///
    /// # Errors
    /// Names what does not start, with its log.
    pub fn start_equals(&mut self) -> Result<()> {
        for at in [0, 1] {
            let config = self.config.clone().set("", "seed", SEED);
            let config = config.set("vip", "without_backends", "\"withdraw\"");
            let process = self.start_balancer(self.balancer_host(at), config)?;
            self.balancers.push(process);
        }
        self.wait_until_brokers_are_up()
    }

    /// Ends a balancer without asking it.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill_balancer(&mut self, at: usize) -> Result<()> {
        let balancer = self.balancers.get_mut(at);
        balancer.context("the balancer does not run")?.kill()?;
        Ok(())
    }

    /// lb1 or lb2.
    pub fn balancer_host(&self, at: usize) -> &Host {
        [&self.topology.lb1, &self.topology.lb2][at]
    }

    /// Who has the VIPs: lb1, unless lb2 says that it has.
    pub(super) fn active(&self) -> &Host {
        let is_moved = self.is_pair && self.role(1).is_ok_and(|role| role == "active");
        self.balancer_host(usize::from(is_moved))
    }

    /// `active` or `backup`.
    ///
    /// # Errors
    /// When the balancer does not answer.
    pub fn role(&self, at: usize) -> Result<String> {
        let status = self.ask(at, &["vrrp", "status"])?;
        let role = status["routers"][0]["role"].as_str();
        Ok(role.context("there is no virtual router")?.to_owned())
    }

    /// Waits until a balancer has a role.
    ///
    /// # Errors
    /// When it has not within that time.
    pub fn wait_for_role(&self, at: usize, role: &str, within: Duration) -> Result<()> {
        let name = self.balancer_host(at).name();
        wait_until(within, &format!("{name} being {role}"), || {
            let is = self.role(at).is_ok_and(|found| found == role);
            (is || interrupted()).then_some(())
        })?;
        Ok(())
    }

    /// Whether lb2 knows what lb1 knows, so many recorded flows at least.
    ///
    /// # Errors
    /// When one of them does not answer.
    pub fn is_in_sync(&self, flows: u64) -> Result<bool> {
        let [ours, theirs] = [self.ask(0, &["status"])?, self.ask(1, &["status"])?];
        let is_told = ours["sync"]["sending"]["in_sync_seconds"].is_u64()
            && theirs["sync"]["receiving"]["in_sync_seconds"].is_u64();
        let has = theirs["flows"]["tracked"].as_u64();
        Ok(is_told && has.is_some_and(|has| has >= flows))
    }

    /// Waits until it does.
    ///
    /// # Errors
    /// When it does not within that time.
    pub fn wait_until_in_sync(&self, flows: u64, within: Duration) -> Result<()> {
        wait_until(within, &format!("lb2 knowing {flows} flows"), || {
            let is = self.is_in_sync(flows).is_ok_and(|is| is);
            (is || interrupted()).then_some(())
        })?;
        Ok(())
    }

    /// Packets that a balancer has sent to brokers.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn packets(&self, at: usize) -> Result<u64> {
        let status = self.ask(at, &["status"])?;
        let services = status["services"].as_array();
        let services = services.context("there are no services")?;
        let packets = services.iter().map(|service| &service["packets"]);
        Ok(packets.filter_map(Value::as_u64).sum())
    }

    /// What a balancer answers to a command, as JSON.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn ask(&self, at: usize, arguments: &[&str]) -> Result<Value> {
        let text = self.tell(at, &[arguments, &["--json"]].concat())?;
        Ok(serde_json::from_str(&text)?)
    }

    /// Runs a command that a balancer carries out, and returns what it says.
    ///
    /// # Errors
    /// When it does not succeed.
    pub fn tell(&self, at: usize, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.programs.tidegate);
        command.args(arguments).arg("--socket");
        exec::output(command.arg(socket_of(self.balancer_host(at))))
    }
}

/// A configuration, with what makes it that of a node of a pair.
fn paired(config: ConfigText, at: usize, forward: Forward) -> ConfigText {
    let [mut v4, mut v6] = [vec!["172.16.40.24"], vec![LINK_LOCAL, "fd00:40::24"]];
    let mut text = format!("[[vip]]\naddress = \"{LINK_LOCAL}/64\"\n");
    let mut config = config.set("", "seed", SEED);
    if forward == Forward::Nat {
        let [nat_v4, nat_v6] = NAT_SOURCES;
        v4.push(nat_v4);
        v6.push(nat_v6);
        for (source, prefix) in [(nat_v4, 32), (nat_v6, 128)] {
            let _ = writeln!(text, "[[vip]]\naddress = \"{source}/{prefix}\"");
        }
        config = config.set("nat", "sources", &format!("{NAT_SOURCES:?}"));
    }
    let priority = PRIORITIES[at];
    for (name, vips) in [("v4", v4), ("v6", v6)] {
        let _ = writeln!(
            text,
            "[[vrrp]]\nname = \"front-{name}\"\ngroup = \"front\"\nvrid = 51\nvips = {vips:?}\n\
             priority = {priority}\nadvert_interval = \"100ms\"\npreempt_delay = \"2s\""
        );
    }
    let [ours, peers] = if at == 0 { [22, 23] } else { [23, 22] };
    let _ = writeln!(
        text,
        "[sync]\nlisten = \"172.16.40.{ours}:9464\"\npeer = \"172.16.40.{peers}:9464\""
    );
    config.append(&text)
}
