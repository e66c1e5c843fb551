//! What serves the network's clients, and what unpacks for it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use serde::Deserialize;

use super::{Backend, Forward, START, Shape};
use crate::exec;
use crate::lab::{Binaries, ConfigText, Example, Family, Host, Process, Topology};

/// Where brokers call each other.
const CLUSTER_PORT: u16 = 7883;

/// What a broker says of its cluster.
#[derive(Deserialize)]
struct Cluster {
    members: Vec<Member>,
}

#[derive(Deserialize)]
struct Member {
    synced: bool,
}

/// What a broker of any make needs to serve the network's clients.
const MOSQUITTO: &str = "listener 1883\nallow_anonymous true\nmax_connections -1\n";

/// Who may send tunnelled packets: the network's hosts, of which the balancers are two.
const TUNNEL_SOURCES: [&str; 2] = ["172.16.40.0/24", "fd00:40::/64"];

/// Starts a broker, and waits until it serves.
pub(super) fn start(
    host: &Host,
    shape: Shape,
    settings: &[(&str, &str, &str)],
    topology: &Topology,
    programs: &Binaries,
) -> Result<Process> {
    match shape.backend {
        Backend::Tidegate | Backend::Cluster => {
            let config = ConfigText::example(Example::Broker)?;
            let config = match shape.forward {
                Forward::Dsr => config,
                Forward::Nat => config.without("vip"),
                Forward::Tunnel => unpacking(config),
            };
            let config = match shape.backend {
                Backend::Cluster => clustered(config, host, topology),
                Backend::Tidegate | Backend::Mosquitto => config,
            };
            let node = format!("{:?}", host.name());
            let socket = format!("{:?}", socket_of(host));
            let settings = settings.iter();
            let config = settings.fold(config, |config, (table, key, value)| {
                config.set(table, key, value)
            });
            let config = config
                .set("", "node", &node)
                .set("control", "socket", &socket)
                .write(host, "broker.toml")?;
            let mut command = host.command(&programs.broker)?;
            command.args(["run", "--config"]).arg(config);
            let mut process = host.spawn("tidegate-broker", command)?;
            process.wait_for_line("ready", START)?;
            Ok(process)
        }
        Backend::Mosquitto => {
            let config = ConfigText::from(MOSQUITTO).write(host, "mosquitto.conf")?;
            let mut command = host.command("mosquitto")?;
            command.arg("-c").arg(config);
            let mut process = host.spawn("mosquitto", command)?;
            process.wait_for_line("running", START)?;
            Ok(process)
        }
    }
}

fn socket_of(host: &Host) -> PathBuf {
    host.work_dir().join("broker.sock")
}

/// A broker's configuration, as one of all brokers of the network.
fn clustered(config: ConfigText, host: &Host, topology: &Topology) -> ConfigText {
    let address = |host: &Host| SocketAddr::new(host.address(Family::V4), CLUSTER_PORT);
    let others = topology.brokers().into_iter();
    let others = others.filter(|other| other.name() != host.name());
    let seeds: Vec<_> = others.map(|other| address(other).to_string()).collect();
    config
        .set("cluster", "name", "\"plant\"")
        .set("cluster", "listen", &format!("\"{}\"", address(host)))
        .set("cluster", "seeds", &format!("{seeds:?}"))
        .set("cluster", "key_file", &format!("{:?}", key_of(topology)))
}

fn key_of(topology: &Topology) -> PathBuf {
    topology.work_dir().join("cluster.key")
}

/// Makes the key that brokers of a cluster have in common.
pub(super) fn make_key(topology: &Topology, programs: &Binaries) -> Result<()> {
    let mut command = Command::new(&programs.broker);
    command.args(["cluster", "key"]).arg(key_of(topology));
    exec::run(&mut command)
}

/// How to ask a broker for the others of its cluster.
pub(super) fn status_command(host: &Host, programs: &Binaries) -> Command {
    let mut command = Command::new(&programs.broker);
    let socket = socket_of(host);
    command.args(["cluster", "status", "--socket"]).arg(socket);
    command
}

/// Whether a broker of the cluster is connected to the other one, which knows its subscribers.
pub(super) fn knows_other(host: &Host, programs: &Binaries) -> Result<bool> {
    let text = exec::output(status_command(host, programs).arg("--json"))?;
    let status: Cluster = serde_json::from_str(&text).context("no status of a cluster")?;
    Ok(status.members.iter().any(|member| member.synced))
}

/// A broker's configuration, with tunnelled packets taken from the network's hosts.
#[must_use]
pub fn unpacking(config: ConfigText) -> ConfigText {
    config.set("tunnel", "interface", "\"eth0\"").set(
        "tunnel",
        "from",
        &format!("{TUNNEL_SOURCES:?}"),
    )
}

/// Starts `tidegate decap` beside a broker of another make, which holds the VIPs on lo.
pub(super) fn unpack(host: &Host, programs: &Binaries) -> Result<Process> {
    let mut command = host.command(&programs.tidegate)?;
    command.args(["decap", "--interface", "eth0", "--json"]);
    for source in TUNNEL_SOURCES {
        command.args(["--from", source]);
    }
    for vip in [Family::V4, Family::V6].map(Family::vip) {
        command.args(["--vip", &vip.to_string()]);
    }
    let mut process = host.spawn("decap", command)?;
    process.wait_for_line("unpacks IP in IP and GUE", START)?;
    Ok(process)
}
