//! Questions about single clients, and their answers.

use std::{fmt, net::IpAddr};

use serde::{Deserialize, Serialize};

use crate::core::{
    balancer::SelectError,
    trace::{Path, Step},
};

/// What becomes of a client's packets?
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TraceOrder {
    pub client: IpAddr,
    /// The client's port; without it all its recorded flows are told of.
    #[serde(default)]
    pub port: Option<u16>,
    /// One service; without it all of the client's address family.
    #[serde(default)]
    pub service: Option<String>,
    /// What is supposed besides, all at once.
    #[serde(default)]
    pub what_if: Vec<WhatIf>,
}

/// A change that is only thought of. Backends as in [`super::Order`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhatIf {
    /// Its health check fails.
    Down(String),
    /// It is drained.
    Drained(String),
    Weight {
        backend: String,
        weight: u16,
    },
}

impl WhatIf {
    /// The backend it is about.
    #[must_use]
    pub fn backend(&self) -> &str {
        match self {
            Self::Down(backend) | Self::Drained(backend) | Self::Weight { backend, .. } => backend,
        }
    }
}

impl fmt::Display for WhatIf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Down(backend) => write!(f, "{backend} goes down"),
            Self::Drained(backend) => write!(f, "{backend} is drained"),
            Self::Weight { backend, weight } => write!(f, "{backend} gets weight {weight}"),
        }
    }
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    pub client: IpAddr,
    pub port: Option<u16>,
    pub what_if: Vec<WhatIf>,
    pub services: Vec<ServiceTrace>,
    /// Whether the client has more recorded flows than are told of.
    pub truncated: bool,
}

/// What one service does with the client's packets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceTrace {
    pub name: String,
    pub vip: IpAddr,
    pub port: u16,
    pub protocol: String,
    /// Flows that exist, or of which it is asked whether they do.
    pub flows: Vec<FlowTrace>,
    /// A connection that starts now.
    pub new: FlowTrace,
}

/// What becomes of the packets of one flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowTrace {
    /// The client's port; any, for new connections, if none was given.
    pub port: Option<u16>,
    pub recorded: bool,
    #[serde(flatten)]
    pub path: PathTrace,
    /// What the supposed change does.
    pub then: Option<ThenTrace>,
}

/// The way of a packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathTrace {
    pub steps: Vec<StepTrace>,
    /// Who gets it, if that is one.
    pub backend: Option<String>,
    /// Who may get it, if that is several.
    pub candidates: Vec<String>,
    /// How it ends: a label as in the metrics; absent if that depends on the backend.
    pub verdict: Option<String>,
}

/// One step of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepTrace {
    pub stage: String,
    pub finding: String,
}

/// The same after a supposed change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThenTrace {
    /// `stays`, `moves`, `ends`, or `open` where nothing was fixed before.
    pub fate: String,
    #[serde(flatten)]
    pub path: PathTrace,
}

impl From<&Step> for StepTrace {
    fn from(step: &Step) -> Self {
        Self {
            stage: step.stage.to_owned(),
            finding: step.finding.clone(),
        }
    }
}

impl PathTrace {
    /// A way, with the names of whom it may lead to.
    #[must_use]
    pub fn new(path: &Path, mut names: Vec<String>) -> Self {
        Self {
            steps: path.steps.iter().map(StepTrace::from).collect(),
            backend: (names.len() == 1).then(|| names.remove(0)),
            candidates: names,
            verdict: path.verdict.map(|verdict| verdict.label().to_owned()),
        }
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    #[error(transparent)]
    Select(#[from] SelectError),
    #[error("no service is called `{name}`; there are: {}", .known.join(", "))]
    UnknownService { name: String, known: Vec<String> },
    #[error("weight {weight} is out of range: 0 to {max}")]
    Weight { weight: u16, max: u16 },
    #[error("`{backend}` is leaving: it drains already, and has no weight")]
    Leaving { backend: String },
    #[error("the flow tables cannot be read: {0:#}")]
    Tables(#[source] anyhow::Error),
}
