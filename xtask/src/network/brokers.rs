//! What serves the network's clients, and what unpacks for it.

use anyhow::Result;

use super::{Backend, Forward, START, Shape};
use crate::lab::{Binaries, ConfigText, Example, Family, Host, Process};

/// What a broker of any make needs to serve the network's clients.
const MOSQUITTO: &str = "listener 1883\nallow_anonymous true\nmax_connections -1\n";

/// Who may send tunnelled packets: the network's hosts, of which the balancers are two.
const TUNNEL_SOURCES: [&str; 2] = ["172.16.40.0/24", "fd00:40::/64"];

/// Starts a broker, and waits until it serves.
pub(super) fn start(host: &Host, shape: Shape, programs: &Binaries) -> Result<Process> {
    match shape.backend {
        Backend::Tidegate => {
            let config = ConfigText::example(Example::Broker)?;
            let config = match shape.forward {
                Forward::Dsr => config,
                Forward::Nat => config.without("vip"),
                Forward::Tunnel => unpacking(config),
            };
            let node = format!("{:?}", host.name());
            let socket = format!("{:?}", host.work_dir().join("broker.sock"));
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
