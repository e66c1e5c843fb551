//! What `tidegate status --json` says, as far as it is of interest here.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Context, Result};
use serde::Deserialize;

/// What Tidegate says of the MQTT service that the clients use.
#[derive(Clone, Debug)]
pub struct Status {
    /// `native` or `generic`.
    pub xdp_mode: String,
    /// The service's backends.
    pub backends: Vec<BackendStatus>,
    /// Packets by outcome.
    pub verdicts: BTreeMap<String, u64>,
}

/// `tidegate status --json`, as far as it is of interest here.
#[derive(Debug, Deserialize)]
pub(super) struct StatusJson {
    pub(super) interface: Interface,
    pub(super) services: Vec<Service>,
    pub(super) verdicts: BTreeMap<String, u64>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Interface {
    pub(super) xdp_mode: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Service {
    pub(super) vip: IpAddr,
    pub(super) port: u16,
    pub(super) backends: Vec<BackendStatus>,
}

/// One backend of the MQTT service.
#[derive(Clone, Debug, Deserialize)]
pub struct BackendStatus {
    /// `broker1`, ...
    pub name: String,
    /// `up`, `down` or `unknown`.
    pub health: String,
    /// Why it is not up.
    pub reason: Option<String>,
    /// Of the new flows, 0 to 1.
    pub share: f64,
    /// Packets sent to it.
    pub packets: u64,
    /// Flows begun.
    pub new_connections: u64,
}

impl Status {
    /// One of them.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn backend(&self, name: &str) -> Result<&BackendStatus> {
        let mut backends = self.backends.iter();
        backends
            .find(|backend| backend.name == name)
            .with_context(|| format!("tidegate knows no backend {name}"))
    }
}
