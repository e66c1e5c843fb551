//! Two balancers that stand in for each other, or one and somebody else's router.

use std::net::IpAddr;
use std::process::Output;

use anyhow::{Context, Result, ensure};
use lb_user::control::{RouterStatus, Status, VrrpStatus};
use xtask::lab::{ConfigText, Family, Host, Process, wait_until};
use xtask::load::Load;

use crate::balancer::{BOTH, Lab, SOON, check_times, config, soon_for};

/// The same on both nodes, or they would send the same client to different backends.
pub const SEED: &str = "00112233445566778899aabbccddeeff";

/// The reference network with its brokers, and what runs on lb1 and lb2.
pub struct Pair {
    // In this order: the programs end before what they run in.
    pub nodes: [Option<Process>; 2],
    pub lab: Lab,
}

/// The configuration of a node with these virtual routers.
#[must_use]
pub fn node(routers: &str) -> String {
    let plain = config("maglev", "dsr", &BOTH);
    let v6 = "[[vip]]\naddress = \"fd00:40::24/128\"\n";
    format!("seed = \"{SEED}\"\n{}\n{routers}", plain.replace(v6, ""))
}

/// A virtual router of the service's address with fast adverts, which preempts when its node has
/// found the backends.
#[must_use]
pub fn router(priority: u8, more: &str) -> String {
    let delay = if more.contains("preempt") {
        ""
    } else {
        "preempt_delay = \"2s\"\n"
    };
    format!(
        "[[vrrp]]\nname = \"front\"\nvrid = 51\npriority = {priority}\nadvert_interval = \"200ms\"\n\
         announce_interval = \"200ms\"\n{delay}vips = [\"172.16.40.24\"]\n{more}\n"
    )
}

/// The configuration of a node with routers of both families, which move together.
#[must_use]
pub fn both_families(priority: u8) -> String {
    let v6 = format!(
        "[[vip]]\naddress = \"fe80::40:24/64\"\n[[vip]]\naddress = \"fd00:40::24/128\"\n\
         [[vrrp]]\nname = \"front-v6\"\ngroup = \"front\"\nvrid = 51\npriority = {priority}\n\
         advert_interval = \"200ms\"\nvips = [\"fe80::40:24\", \"fd00:40::24\"]\n"
    );
    let v4 = router(priority, "group = \"front\"");
    let v4 = v4.replace("\"front\"\nvrid", "\"front-v4\"\nvrid");
    let (interval, fall) = check_times();
    let check = format!("interval = \"{interval}\", timeout = \"{interval}\", fall = {fall}");
    let service = format!(
        "[[service]]\nname = \"mqtt-v6\"\nvip = \"fd00:40::24\"\nport = 1883\n\
                   balance = \"maglev\"\nforward = \"dsr\"\n\
                   check = {{ type = \"mqtt\", {check} }}\n\
                   backend = [{{ name = \"broker1\", address = \"fd00:40::20\" }},\
                   {{ name = \"broker2\", address = \"fd00:40::21\" }}]\n"
    );
    node(&(v4 + &v6 + &service))
}

impl Pair {
    /// The network with its brokers; no node runs.
    ///
    /// # Errors
    /// Names what does not start.
    pub fn new() -> Result<Self> {
        Ok(Self {
            nodes: [None, None],
            lab: Lab::new()?,
        })
    }

    /// The same with two nodes, of which the first has the higher priority and the role.
    ///
    /// # Errors
    /// Names what does not start.
    pub fn serving() -> Result<Self> {
        let mut pair = Self::new()?;
        pair.start(0, &node(&router(200, "")))?;
        pair.start(1, &node(&router(100, "")))?;
        pair.wait_for_roles(["active", "backup"])?;
        wait_until(SOON, "the Backup hearing the Active", || {
            pair.router(1).ok()?.peer
        })?;
        Ok(pair)
    }

    /// lb1 or lb2.
    #[must_use]
    pub fn host(&self, at: usize) -> &Host {
        let topology = &self.lab.topology;
        [&topology.lb1, &topology.lb2][at]
    }

    /// Writes the configuration of a node, `$DIR` standing for its directory.
    ///
    /// # Errors
    /// When the directory is not writable.
    pub fn write(&self, at: usize, config: &str) -> Result<()> {
        let directory = self.host(at).work_dir().display().to_string();
        let config = config.replace("$DIR", &directory);
        ConfigText::from(config.as_str()).write(self.host(at), "tidegate.toml")?;
        Ok(())
    }

    /// Starts a node and waits until it is ready.
    ///
    /// # Errors
    /// When it is not.
    pub fn start(&mut self, at: usize, config: &str) -> Result<()> {
        self.write(at, config)?;
        let host = self.host(at);
        let mut command = host.command(&self.lab.programs.tidegate)?;
        command.args(["run", "--config", "tidegate.toml"]);
        let mut process = host.spawn("tidegate", command)?;
        process.wait_for_line("ready", SOON)?;
        self.nodes[at] = Some(process);
        Ok(())
    }

    /// The process of a node.
    ///
    /// # Errors
    /// When it was not started.
    pub fn process(&mut self, at: usize) -> Result<&mut Process> {
        self.nodes[at].as_mut().context("the node does not run")
    }

    /// Runs a command of `tidegate` that asks a node, to its end.
    ///
    /// # Errors
    /// When it cannot start.
    pub fn ask(&self, at: usize, arguments: &[&str]) -> Result<Output> {
        let host = self.host(at);
        let mut command = host.command(&self.lab.programs.tidegate)?;
        command.current_dir(host.work_dir()).args(arguments);
        command.args(["--socket", "tidegate.sock"]);
        command.output().context("tidegate cannot be run")
    }

    /// The same for what has to succeed.
    ///
    /// # Errors
    /// When it does not; with what it said.
    pub fn tell(&self, at: usize, arguments: &[&str]) -> Result<String> {
        let output = self.ask(at, arguments)?;
        ensure!(output.status.success(), "{output:?}");
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// What a node says of itself.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn status(&self, at: usize) -> Result<Status> {
        let text = self.tell(at, &["status", "--json"])?;
        serde_json::from_str(&text).with_context(|| format!("no status: {text}"))
    }

    /// What it says of its virtual routers.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn vrrp(&self, at: usize) -> Result<VrrpStatus> {
        let text = self.tell(at, &["vrrp", "status", "--json"])?;
        serde_json::from_str(&text).with_context(|| format!("no status: {text}"))
    }

    /// What it says of its first virtual router.
    ///
    /// # Errors
    /// When it does not answer or has none.
    pub fn router(&self, at: usize) -> Result<RouterStatus> {
        let mut routers = self.vrrp(at)?.routers.into_iter();
        routers.next().context("there is no virtual router")
    }

    /// Whether eth0 of a node's host has an address with this prefix.
    ///
    /// # Errors
    /// When `ip` cannot say.
    pub fn has(&self, at: usize, address: &str) -> Result<bool> {
        let addresses = self.addresses(at)?;
        Ok(addresses.iter().any(|found| found == address))
    }

    /// Whether it has an address, with whatever prefix.
    ///
    /// # Errors
    /// When `ip` cannot say.
    pub fn has_vip(&self, at: usize, vip: IpAddr) -> Result<bool> {
        let vip = format!("{vip}/");
        let addresses = self.addresses(at)?;
        Ok(addresses.iter().any(|found| found.starts_with(&vip)))
    }

    /// The addresses of eth0 of a node's host, each with its prefix.
    ///
    /// # Errors
    /// When `ip` cannot say.
    pub fn addresses(&self, at: usize) -> Result<Vec<String>> {
        let shown = ["-brief", "address", "show", "dev", "eth0"];
        let shown = self.host(at).output("ip", &shown)?;
        let words = shown.split_whitespace().map(str::to_owned);
        Ok(words.filter(|word| word.contains('/')).collect())
    }

    /// Waits until a node has a role, its routers' addresses with it, and no more than these.
    ///
    /// # Errors
    /// When it has not.
    pub fn wait_for_role(&self, at: usize, role: &str) -> Result<()> {
        let mut last = None;
        let found = wait_until(SOON, &format!("node {at} being {role}"), || {
            last = self.vrrp(at).ok();
            let routers = &last.as_ref()?.routers;
            let is_right = |router: &RouterStatus| {
                let holds = |vip: &IpAddr| self.has_vip(at, *vip).ok();
                let wanted = Some(role == "active");
                router.role == role && router.vips.iter().all(|vip| holds(vip) == wanted)
            };
            routers.iter().all(is_right).then_some(())
        });
        found.with_context(|| format!("the last status was {last:?}"))
    }

    /// Waits for the roles of both nodes.
    ///
    /// # Errors
    /// When they do not have them.
    pub fn wait_for_roles(&self, roles: [&str; 2]) -> Result<()> {
        self.wait_for_role(0, roles[0])?;
        self.wait_for_role(1, roles[1])
    }

    /// Waits until the client's packets to the VIP go to a node's host.
    ///
    /// # Errors
    /// When they do not.
    pub fn wait_for_client(&self, at: usize) -> Result<()> {
        let mac = self.host(at).mac()?;
        let client = &self.lab.topology.client;
        let show = ["-json", "neigh", "show", "to", "172.16.40.24"];
        wait_until(SOON, &format!("the client looking to node {at}"), || {
            let json = client.output("ip", &show).ok()?;
            let entries: serde_json::Value = serde_json::from_str(&json).ok()?;
            (entries[0]["lladdr"].as_str()? == mac).then_some(())
        })?;
        Ok(())
    }

    /// Waits until every one of so many clients has had an answer to packets by way of a node, and is
    /// still connected to a broker.
    ///
    /// # Errors
    /// When they have not.
    pub fn wait_for_traffic(&self, at: usize, clients: u64) -> Result<()> {
        self.wait_for_packets(at, "mqtt", clients)?;
        // The kernels' tables, read while they change, have gaps.
        let mut last = None;
        let found = wait_until(SOON, "as many sessions as before", || {
            last = self.lab.clients().ok();
            let [one, two] = last?;
            ((one + two) as u64 == clients).then_some(())
        });
        found.with_context(|| format!("{last:?} are there"))
    }

    /// Waits until every one of so many clients of a service has had an answer to packets by way of
    /// a node.
    ///
    /// # Errors
    /// When they have not.
    pub fn wait_for_packets(&self, at: usize, service: &str, clients: u64) -> Result<()> {
        let packets = || {
            let status = self.status(at).ok()?;
            let found = status.services.iter().find(|found| found.name == service);
            Some(found?.traffic.packets)
        };
        let before = packets().context("no status")?;
        // Each asks once a second, and acknowledges the answer.
        let enough = before + 6 * clients;
        wait_until(SOON, "the sessions being alive", || {
            (packets()? >= enough).then_some(())
        })?;
        Ok(())
    }

    /// Starts clients of the IPv6 VIP that stay, and waits until they are up.
    ///
    /// # Errors
    /// When they do not come up.
    pub fn stay_v6(&self, name: &str, count: u32) -> Result<Load> {
        let vip = Family::V6.vip().to_string();
        let (client, program) = (&self.lab.topology.client, &self.lab.programs.broker);
        let arguments = ["-h", &vip, "-i", "1", "--hold", "10m"];
        let mut load = Load::start(client, program, name, "conn", count, &arguments)?;
        load.wait_ready(soon_for(count))?;
        Ok(load)
    }

    /// Starts clients of the VIP that stay, and waits until they are up.
    ///
    /// # Errors
    /// When they do not come up.
    pub fn stay(&self, name: &str, count: u32) -> Result<Load> {
        self.lab.stay(name, count)
    }

    /// Ends clients, of whom none may have been lost.
    ///
    /// # Errors
    /// When any was.
    pub fn end(load: Load) -> Result<()> {
        let summary = load.stop()?;
        ensure!((summary.failed, summary.lost) == (0, 0), "{summary:?}");
        Ok(())
    }

    /// Has adverts of the nodes reach each other or not; both still reach everybody else.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn part(&self, parted: bool) -> Result<()> {
        self.isolate(&[self.host(0), self.host(1)], parted)
    }

    /// Has a node reach the brokers or not, which reach everybody but each other meanwhile.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn cut_from_brokers(&self, at: usize, is_cut: bool) -> Result<()> {
        let [one, two] = self.lab.topology.brokers();
        self.isolate(&[self.host(at), one, two], is_cut)
    }

    /// Has no two of these hosts reach each other, or all.
    fn isolate(&self, hosts: &[&Host], isolated: bool) -> Result<()> {
        let isolated = if isolated { "on" } else { "off" };
        let switch = self.lab.topology.switch().netns();
        for name in hosts.iter().map(|host| host.name()) {
            let mut command = switch.command("bridge")?;
            command.args(["link", "set", "dev", name, "isolated", isolated]);
            ensure!(command.status()?.success(), "{name} cannot be isolated");
        }
        Ok(())
    }
}
