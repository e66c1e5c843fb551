//! Which broker a command talks to.

use std::path::PathBuf;

use console::client::Client;

use crate::control::{DAEMON, DEFAULT_SOCKET};

#[derive(Debug, clap::Args)]
pub(super) struct Target {
    /// The control socket of the broker (`control.socket` of its configuration).
    #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

impl Target {
    pub(super) fn client(&self) -> anyhow::Result<Client> {
        Client::new(DAEMON, &self.socket)
    }
}
