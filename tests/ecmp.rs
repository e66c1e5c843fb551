//! Hosts that are all at work: each has the VIP while it can serve it, BIRD announces what is there,
//! and a router spreads its flows over them.
//!
//! The example configs of BIRD are what runs here, on the hosts and on the router.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lb_user::control::VipState;
use serde_json::Value;
use tests::balancer::{BOTH, Lab, SOON, config};
use xtask::lab::{Binaries, Family, Host, Process, Router, wait_until};
use xtask::load::Load;
use xtask::network::{Backend, Balance, Forward, Network, Shape};

/// Clients that stay, each of which pings every second.
const STAYING: u32 = 400;

/// Longest wait for anything, on a slow and busy machine: BGP begins anew within seconds.
const LONG: Duration = Duration::from_secs(90);

const NODE: &str = include_str!("../lb-user/configs/bird-node.conf");
const ROUTER: &str = include_str!("../lb-user/configs/bird-router.conf");

/// A router, and two balancers behind it with BIRD.
struct Site {
    // In this order: the programs end before what they run in.
    _birds: Vec<Process>,
    network: Network,
    router: Router,
}

impl Site {
    /// Clients use the VIP of that family, and both hosts announce it.
    fn new(family: Family) -> Result<Self> {
        let shape = Shape {
            forward: Forward::Tunnel,
            balance: Balance::Maglev,
            backend: Backend::Tidegate,
            family,
        };
        let mut network = Network::new(shape, &Binaries::find()?)?;
        let router = Router::between(network.topology())?;
        for family in ["ipv4", "ipv6"] {
            let key = format!("net.{family}.fib_multipath_hash_policy");
            router.host().netns().sysctl(&key, "1")?;
        }
        let addresses: Vec<(IpAddr, IpAddr)> = [Family::V4, Family::V6]
            .into_iter()
            .flat_map(|family| {
                let brokers = network.topology().brokers();
                brokers.map(|host| (host.address(family), router.broker(host, family)))
            })
            .collect();
        network.edit_config(|config| {
            let quick = [("interval", "\"500ms\""), ("timeout", "\"500ms\"")];
            let config = quick.into_iter().fold(config, |config, (key, value)| {
                config.set("service.check", key, value)
            });
            addresses.iter().fold(config, |config, (flat, address)| {
                config.replace(&format!("\"{flat}\""), &format!("\"{address}\""))
            })
        });
        network.start_equals()?;
        let topology = network.topology();
        let mut birds = vec![bird(router.host(), ROUTER)?];
        for host in [&topology.lb1, &topology.lb2] {
            let id = format!("router id {}", host.address(Family::V4));
            birds.push(bird(host, &NODE.replace("router id 172.16.40.22", &id))?);
        }
        let site = Self {
            _birds: birds,
            network,
            router,
        };
        site.wait_for_ways(&[0, 1])?;
        Ok(site)
    }

    /// Waits until the router sends packets to these hosts, in either family.
    fn wait_for_ways(&self, at: &[usize]) -> Result<()> {
        let mut last = Vec::new();
        let found = wait_until(LONG, &format!("ways to {at:?} alone"), || {
            last = [Family::V4, Family::V6]
                .map(|family| self.ways(family).unwrap_or_default())
                .to_vec();
            last.iter().all(|ways| ways == at).then_some(())
        });
        found.with_context(|| format!("the ways are {last:?}"))
    }

    /// The hosts that the router sends packets to a VIP to.
    fn ways(&self, family: Family) -> Result<Vec<usize>> {
        let option = match family {
            Family::V4 => "-4",
            Family::V6 => "-6",
        };
        let vip = family.vip().to_string();
        let show = [option, "route", "show", &vip, "proto", "bird"];
        let text = self.router.host().output("ip", &show)?;
        let words: Vec<&str> = text.split_whitespace().collect();
        let pairs = words.windows(2).filter(|pair| pair[0] == "via");
        let gateways: Vec<&str> = pairs.map(|pair| pair[1]).collect();
        let mut ways = Vec::new();
        for at in [0, 1] {
            // In IPv6 neighbours are known by their link-local addresses.
            let own = addresses(self.network.balancer_host(at))?;
            if own.iter().any(|own| gateways.contains(&own.as_str())) {
                ways.push(at);
            }
        }
        ensure!(ways.len() == gateways.len(), "{text}");
        Ok(ways)
    }

    /// Clients that stay until [`end`], spread over both hosts.
    fn stay(&self) -> Result<Load> {
        let load = self.load("staying", STAYING)?;
        for at in [0, 1] {
            self.wait_for_packets(at, self.network.packets(at)? + u64::from(STAYING))?;
        }
        Ok(load)
    }

    /// Clients that connect, and stay until they are stopped.
    fn load(&self, name: &str, count: u32) -> Result<Load> {
        let vip = self.network.vip().to_string();
        let client = &self.network.topology().client;
        let program = &self.network.programs().broker;
        let arguments = ["-h", &vip, "-i", "1", "--hold", "10m"];
        let mut load = Load::start(client, program, name, "conn", count, &arguments)?;
        load.wait_ready(LONG)?;
        Ok(load)
    }

    /// Waits until so many packets have passed a host.
    fn wait_for_packets(&self, at: usize, packets: u64) -> Result<()> {
        let mut last = None;
        let found = wait_until(LONG, &format!("{packets} packets by {at}"), || {
            last = self.network.packets(at).ok();
            (last? >= packets).then_some(())
        });
        found.with_context(|| format!("{last:?} packets have passed"))
    }

    /// Waits until this host has passed on so many packets that each of its clients has sent some: one
    /// that the wrong broker gets ends the session.
    fn wait_for_clients(&self, at: usize) -> Result<()> {
        let packets = self.network.packets(at)?;
        self.wait_for_packets(at, packets + 3 * u64::from(STAYING))
    }

    /// What a host says of the VIP: its state, and what it lacks.
    fn vip(&self, at: usize) -> Result<(String, Option<String>)> {
        let status = self.network.ask(at, &["status"])?;
        let vips = status["vips"].as_array().context("no VIPs")?;
        let vip = self.network.vip().to_string();
        let is_it = |it: &&Value| {
            let address = it["address"].as_str().unwrap_or_default();
            address.split('/').next() == Some(vip.as_str())
        };
        let it = vips.iter().find(is_it).context("no such VIP")?;
        let text = |key: &str| it[key].as_str().map(str::to_owned);
        Ok((text("state").context("no state")?, text("lack")))
    }

    /// Waits until a host has withdrawn the VIP for this reason.
    fn wait_until_withdrawn(&self, at: usize, lack: &str) -> Result<()> {
        let wanted = ("withdrawn".to_owned(), Some(lack.to_owned()));
        let mut last = None;
        let found = wait_until(LONG, &format!("{wanted:?}"), || {
            last = self.vip(at).ok();
            (last.as_ref() == Some(&wanted)).then_some(())
        });
        found.with_context(|| format!("the VIP is {last:?}"))?;
        let there = addresses(self.network.balancer_host(at))?;
        let vip = self.network.vip().to_string();
        ensure!(!there.contains(&vip), "{there:?}");
        Ok(())
    }

    /// Has the router refuse connections of a host to brokers, or not; what is tunnelled passes.
    fn refuse(&self, at: usize, is_refused: bool) -> Result<()> {
        let host = self.network.balancer_host(at);
        let [v4, v6] = [Family::V4, Family::V6].map(|family| host.address(family));
        let rules = format!(
            "table inet refuse {{\nchain forward {{\ntype filter hook forward priority 0\n\
             ip saddr {v4} tcp dport 1883 reject with tcp reset\n\
             ip6 saddr {v6} tcp dport 1883 reject with tcp reset\n}}\n}}"
        );
        let rules = if is_refused {
            rules
        } else {
            "delete table inet refuse".to_owned()
        };
        self.router.host().output("nft", &[&rules])?;
        Ok(())
    }
}

/// The addresses of a host's eth0.
fn addresses(host: &Host) -> Result<Vec<String>> {
    let text = host.output("ip", &["-brief", "address", "show", "dev", "eth0"])?;
    let fields = text.split_whitespace().skip(2);
    let addresses = fields.filter_map(|field| field.split('/').next());
    Ok(addresses.map(str::to_owned).collect())
}

/// Starts BIRD on a host, in the foreground.
fn bird(host: &Host, config: &str) -> Result<Process> {
    let config = config.replace("log syslog all;", "log stderr all;");
    std::fs::write(host.work_dir().join("bird.conf"), config)?;
    let mut command = host.command("bird")?;
    command.args(["-f", "-c", "bird.conf", "-s", "bird.ctl", "-P", "bird.pid"]);
    let mut process = host.spawn("bird", command)?;
    process.wait_for_line("Started", SOON)?;
    Ok(process)
}

/// Ends clients, of whom none may have been lost.
fn end(load: Load) -> Result<()> {
    let summary = load.stop()?;
    ensure!(
        (summary.connected, summary.failed, summary.lost) == (u64::from(STAYING), 0, 0),
        "{summary:?}"
    );
    Ok(())
}

fn a_host_dies_and_returns(family: Family) -> Result<()> {
    let site = Site::new(family)?;
    let load = site.stay()?;
    let topology = site.network.topology();
    topology.switch().unplug(&topology.lb1)?;
    site.wait_for_ways(&[1])?;
    site.wait_for_clients(1)?;
    topology.switch().plug(&topology.lb1)?;
    site.wait_for_ways(&[0, 1])?;
    site.wait_for_clients(0)?;
    end(load)
}

#[test]
fn no_session_is_lost_when_a_host_dies_and_returns_ipv4() -> Result<()> {
    a_host_dies_and_returns(Family::V4)
}

#[test]
fn no_session_is_lost_when_a_host_dies_and_returns_ipv6() -> Result<()> {
    a_host_dies_and_returns(Family::V6)
}

/// First its way to them is cut, and it keeps them as they were. Then they refuse it and go down for it
/// alone, which moves sessions; after that it must choose as the other host does, whose backends have
/// been there all the time.
fn a_host_without_backends_withdraws(family: Family) -> Result<()> {
    let site = Site::new(family)?;
    let load = site.stay()?;
    let lb1 = &site.network.topology().lb1;
    site.router.cut_from_brokers(lb1, true)?;
    site.wait_for_ways(&[1])?;
    site.wait_until_withdrawn(0, "silent_backends")?;
    site.wait_for_clients(1)?;
    site.router.cut_from_brokers(lb1, false)?;
    site.wait_for_ways(&[0, 1])?;
    ensure!(site.vip(0)? == ("assigned".to_owned(), None));
    site.wait_for_clients(0)?;

    end(load)?;
    site.refuse(0, true)?;
    site.wait_for_ways(&[1])?;
    site.wait_until_withdrawn(0, "no_backends")?;
    site.refuse(0, false)?;
    site.wait_for_ways(&[0, 1])?;
    let load = site.stay()?;
    let topology = site.network.topology();
    topology.switch().unplug(&topology.lb2)?;
    site.wait_for_ways(&[0])?;
    site.wait_for_clients(0)?;
    end(load)?;

    let told = site
        .network
        .tell(0, &["events", "--kind", "vip_withdrawn,vip_announced"])?;
    for cause in [
        "no backend of it answers",
        "no service of it has a healthy backend",
    ] {
        ensure!(told.contains(cause), "{told}");
    }
    ensure!(told.contains("again"), "{told}");
    Ok(())
}

#[test]
fn a_host_without_backends_withdraws_and_returns_and_no_session_is_lost_ipv4() -> Result<()> {
    a_host_without_backends_withdraws(Family::V4)
}

#[test]
fn a_host_without_backends_withdraws_and_returns_and_no_session_is_lost_ipv6() -> Result<()> {
    a_host_without_backends_withdraws(Family::V6)
}

/// What a killed daemon leaves is announced, and its packets are forwarded.
#[test]
fn a_host_whose_daemon_was_killed_goes_on() -> Result<()> {
    let mut site = Site::new(Family::V4)?;
    let load = site.stay()?;
    site.network.kill_balancer(0)?;
    let topology = site.network.topology();
    topology.switch().unplug(&topology.lb2)?;
    site.wait_for_ways(&[0])?;
    let newcomers = site.load("newcomers", 50)?.stop()?;
    ensure!(
        (newcomers.failed, newcomers.lost) == (0, 0),
        "{newcomers:?}"
    );
    end(load)
}

/// The configuration of a host alone, whose IPv4 address is there while it is served.
fn alone() -> String {
    let vip = "address = \"172.16.40.24/32\"\n";
    config("maglev", "dsr", &BOTH).replace(vip, &format!("{vip}without_backends = \"withdraw\"\n"))
}

fn wait_for_state(lab: &Lab, state: VipState) -> Result<()> {
    let mut last = None;
    let found = wait_until(SOON, &format!("a VIP that is {state}"), || {
        last = lab.status().ok().map(|status| status.vips);
        (last.as_ref()?.first()?.state == state).then_some(())
    });
    found.with_context(|| format!("VIPs are {last:?}"))
}

/// Somebody else's address stays, which is told, and is not taken for withdrawn.
#[test]
fn an_address_that_somebody_else_has_put_there_is_left_there() -> Result<()> {
    let mut lab = Lab::new()?;
    let host = &lab.topology.lb1;
    host.add_address(Family::V4.vip(), 32, "eth0")?;
    lab.start(&alone())?;
    wait_for_state(&lab, VipState::Assigned)?;
    for broker in ["broker1", "broker2"] {
        let output = lab.ask(&["backend", "disable", broker])?;
        ensure!(output.status.success(), "{output:?}");
    }
    wait_for_state(&lab, VipState::Left)?;
    ensure!(lab.addresses()?.contains("172.16.40.24/32"));
    let vips = lab.status()?.vips;
    ensure!(vips[0].lack.as_deref() == Some("no_backends"), "{vips:?}");
    let told = lab.ask(&["events", "--kind", "vip_withdrawn"])?;
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    ensure!(told.contains("somebody else has put it on eth0"), "{told}");
    Ok(())
}

/// A stop leaves the address to a program that goes on, and `--detach` takes both off; a start
/// without backends waits for them.
#[test]
fn an_address_comes_with_the_first_backends_and_goes_with_the_program() -> Result<()> {
    let mut lab = Lab::new()?;
    lab.kill_broker(0)?;
    lab.kill_broker(1)?;
    lab.start(&alone())?;
    wait_for_state(&lab, VipState::Withdrawn)?;
    ensure!(!lab.addresses()?.contains("172.16.40.24/"));
    lab.start_broker(0)?;
    lab.start_broker(1)?;
    wait_for_state(&lab, VipState::Assigned)?;
    ensure!(lab.addresses()?.contains("172.16.40.24/32"));
    lab.balancer()?.terminate(SOON)?;
    ensure!(lab.addresses()?.contains("172.16.40.24/32"));
    let output = lab.tidegate(&["stop", "--detach", "--config", "tidegate.toml"])?;
    ensure!(output.status.success(), "{output:?}");
    ensure!(!lab.addresses()?.contains("172.16.40.24/"));
    Ok(())
}
