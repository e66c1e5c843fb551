//! The ways from the clients to the brokers that are compared.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::exec;
use crate::lab::{Binaries, ConfigText, Family, Host, Process, cpu_seconds_of, wait_until};
use crate::network::{Backend, Balance, Forward, Network, PORT, Shape};

/// Longest wait for a balancer to listen.
const START: std::time::Duration = std::time::Duration::from_secs(30);

/// One way.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(super) enum Route {
    /// No balancer: clients take turns with the brokers' own addresses.
    Direct,
    /// The least that an XDP program can do: a floor for those that follow.
    Sketch,
    /// Tidegate, direct server return, by hash.
    TidegateDsr,
    /// Tidegate, direct server return in turn, with a record of each flow.
    TidegateTracked,
    /// Tidegate, full NAT in turn.
    TidegateNat,
    /// HAProxy in TCP mode.
    Haproxy,
    /// nftables: DNAT and masquerading.
    Nftables,
}

impl Route {
    fn shape(self) -> Shape {
        Shape {
            forward: match self {
                Self::Sketch | Self::TidegateDsr | Self::TidegateTracked => Forward::Dsr,
                Self::Direct | Self::TidegateNat | Self::Haproxy | Self::Nftables => Forward::Nat,
            },
            balance: match self {
                Self::TidegateDsr => Balance::Maglev,
                Self::Direct
                | Self::Sketch
                | Self::TidegateTracked
                | Self::TidegateNat
                | Self::Haproxy
                | Self::Nftables => Balance::RoundRobin,
            },
            backend: Backend::Tidegate,
            family: Family::V4,
        }
    }
}

/// A way that is open, with everything it takes.
pub(super) struct Path {
    proxy: Option<Process>,
    network: Network,
    target: String,
    /// Processor time of what balances when it was ready.
    spent_before: f64,
}

impl Path {
    /// Builds the network and starts what balances on lb1.
    pub(super) fn open(route: Route, programs: &Binaries) -> Result<Self> {
        let mut network = Network::new(route.shape(), programs)?;
        let vip = network.vip();
        let mut target = vip.to_string();
        let mut proxy = None;
        let brokers = network
            .topology()
            .brokers()
            .map(|host| host.address(Family::V4));
        match route {
            Route::Direct => target = brokers.map(|address| address.to_string()).join(","),
            Route::Sketch => proxy = Some(sketch(&network, vip)?),
            Route::TidegateDsr | Route::TidegateTracked | Route::TidegateNat => {
                network.start_tidegate()?;
            }
            Route::Haproxy => proxy = Some(haproxy(&network.topology().lb1, vip, brokers)?),
            Route::Nftables => nftables(&network.topology().lb1, vip, brokers)?,
        }
        let mut path = Self {
            proxy,
            network,
            target,
            spent_before: 0.0,
        };
        path.spent_before = path.balancer_cpu_seconds()?;
        Ok(path)
    }

    /// What the clients connect to: one address, or several that they take turns with.
    pub(super) fn target(&self) -> &str {
        &self.target
    }

    pub(super) fn client(&self) -> &Host {
        &self.network.topology().client
    }

    pub(super) fn load_generator(&self) -> &std::path::Path {
        &self.network.programs().broker
    }

    /// Packets that Tidegate dropped, by why; none where it does not run.
    pub(super) fn drops(&self) -> Result<BTreeMap<String, u64>> {
        if self.network.balancer_pids().is_empty() {
            return Ok(BTreeMap::new());
        }
        let mut drops = self.network.status()?.verdicts;
        drops.retain(|verdict, count| verdict.starts_with("drop_") && *count > 0);
        Ok(drops)
    }

    /// User and system time of what balances, since it was ready.
    pub(super) fn balancer_cpu_seconds(&self) -> Result<f64> {
        let mut pids = self.network.balancer_pids();
        pids.truncate(1);
        pids.extend(self.proxy.as_ref().map(Process::pid));
        let mut sum = 0.0;
        for pid in pids {
            sum += cpu_seconds_of(pid)?;
        }
        Ok(sum - self.spent_before)
    }
}

/// A program that rewrites MAC addresses and no more.
fn sketch(network: &Network, vip: IpAddr) -> Result<Process> {
    let topology = network.topology();
    let host = &topology.lb1;
    host.add_address(vip, 24, "eth0")?;
    let program = network.programs().tidegate.with_file_name("sketch");
    let mut command = host.command(program)?;
    command.args(["eth0", &vip.to_string()]);
    for broker in topology.brokers() {
        command.arg(broker.mac()?);
    }
    let mut process = host.spawn("sketch", command)?;
    process.wait_for_line("ready", START)?;
    Ok(process)
}

/// HAProxy as the reference stack has it: TCP mode, round robin, checks.
fn haproxy(host: &Host, vip: IpAddr, brokers: [IpAddr; 2]) -> Result<Process> {
    host.add_address(vip, 24, "eth0")?;
    let mut config = format!(
        "global\n  maxconn 9000\ndefaults\n  mode tcp\n  retries 3\n  timeout connect 60s\n  timeout client 2m\n  \
         timeout server 2m\n  timeout check 10s\nlisten mqtt\n  bind {vip}:{PORT}\n  balance roundrobin\n"
    );
    for (number, broker) in brokers.iter().enumerate() {
        config +=
            &format!("  server broker{number} {broker}:{PORT} check inter 2s fall 2 rise 5\n");
    }
    let path = ConfigText::from(config.as_str()).write(host, "haproxy.cfg")?;
    let mut command = host.command("haproxy")?;
    // In the foreground, one process whose time is counted.
    command.arg("-db").arg("-f").arg(path);
    let process = host.spawn("haproxy", command)?;
    wait_until(START, "haproxy listening", || {
        let sockets = host.output("ss", &["-Htnl"]).ok()?;
        sockets.contains(&format!("{vip}:{PORT}")).then_some(())
    })
    .with_context(|| process.tail())?;
    Ok(process)
}

/// DNAT in turn, and masquerading so that replies come back this way.
fn nftables(host: &Host, vip: IpAddr, brokers: [IpAddr; 2]) -> Result<()> {
    host.add_address(vip, 24, "eth0")?;
    host.netns().sysctl("net.ipv4.ip_forward", "1")?;
    let [one, two] = brokers;
    let rules = format!(
        "table ip nat {{\n\
           chain in {{ type nat hook prerouting priority dstnat;\n\
             ip daddr {vip} tcp dport {PORT} dnat to numgen inc mod 2 map {{ 0 : {one}, 1 : {two} }}\n  }}\n\
           chain out {{ type nat hook postrouting priority srcnat;\n\
             tcp dport {PORT} masquerade\n  }}\n}}\n"
    );
    let mut command = host.command("nft")?;
    exec::run_with_input(command.args(["-f", "-"]), &rules)
}
