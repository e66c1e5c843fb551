//! The brokers that are compared, and how each is started.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;

use crate::lab::{Binaries, ConfigText, Host, Process};

use super::super::listening;

/// The example of the package `broker` that is rumqttd as its users run it.
pub(super) const RUMQTTD: &str = "stock-rumqttd";

const PORT: u16 = 1883;

/// What its repository proposes, with room for more clients.
const RUMQTTD_CONFIG: &str = r#"id = 0
[router]
id = 0
max_connections = 20000
max_outgoing_packet_count = 200
max_segment_size = 104857600
max_segment_count = 10
[v4.1]
name = "v4-1"
listen = "127.0.0.1:1883"
next_connection_delay_ms = 1
[v4.1.connections]
connection_timeout_ms = 60000
max_payload_size = 20480
max_inflight_count = 100
dynamic_filters = true
"#;

/// A broker.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(super) enum Make {
    Tidegate,
    Mosquitto,
    Rumqttd,
}

/// What is run, the load generator included.
pub(super) struct Programs {
    pub(super) broker: PathBuf,
    /// Beside it, if it was built too.
    rumqttd: PathBuf,
}

impl Programs {
    /// Looks for rumqttd beside our own.
    pub(super) fn new(binaries: Binaries) -> Result<Self> {
        let broker = binaries.broker;
        let dir = broker.parent().context("a program is in a directory")?;
        let rumqttd = dir.join("examples").join(RUMQTTD);
        Ok(Self { broker, rumqttd })
    }
}

impl Make {
    /// Starts it, and waits until it listens.
    pub(super) fn start(self, host: &Host, programs: &Programs) -> Result<Process> {
        let mut process = host.spawn("broker", self.command(host, programs)?)?;
        listening::wait(host, &mut process, (Ipv4Addr::LOCALHOST, PORT).into())?;
        Ok(process)
    }

    fn command(self, host: &Host, programs: &Programs) -> Result<Command> {
        match self {
            Self::Tidegate => {
                let text = format!(
                    "node = \"bench\"\naccess.anonymous = true\n[[listener]]\naddress = \"127.0.0.1:{PORT}\"\n\
                     [control]\nsocket = {:?}\n",
                    host.work_dir().join("broker.sock")
                );
                let config = ConfigText::from(&*text).write(host, "broker.toml")?;
                let mut command = host.command(&programs.broker)?;
                command.args(["run", "--config"]).arg(config);
                Ok(command)
            }
            Self::Mosquitto => {
                let text = format!(
                    "listener {PORT} 127.0.0.1\nallow_anonymous true\nmax_connections -1\n"
                );
                let config = ConfigText::from(&*text).write(host, "mosquitto.conf")?;
                let mut command = host.command("mosquitto")?;
                command.arg("-c").arg(config);
                Ok(command)
            }
            Self::Rumqttd => {
                let program = &programs.rumqttd;
                ensure!(program.is_file(), "{} is not built", program.display());
                let config = ConfigText::from(RUMQTTD_CONFIG).write(host, "rumqttd.toml")?;
                let mut command = host.command(program)?;
                command.arg(config);
                Ok(command)
            }
        }
    }
}
