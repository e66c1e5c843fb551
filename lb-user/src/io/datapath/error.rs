//! What can go wrong with the kernel.

use super::PinError;
use aya::{EbpfError, maps::MapError, programs::ProgramError};

/// Why something could not be done to the kernel.
#[derive(Debug, thiserror::Error)]
pub enum DatapathError {
    #[error(
        "this tidegate was built without its XDP program: run `cargo xtask setup`, then build again"
    )]
    NoObject,
    #[error(
        "interface {interface:?} already has an XDP program: stop the other tidegate or program that holds it (`ip link show {interface}` names it)"
    )]
    InterfaceBusy { interface: String },
    #[error("there is no interface {interface:?}: `ip link` lists those of this host")]
    NoInterface { interface: String },
    #[error(
        "the kernel refused the XDP program or its maps; tidegate needs root or CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN, and Linux 5.15 or newer"
    )]
    Load(#[source] Box<EbpfError>),
    #[error("the kernel's verifier refused the XDP program")]
    Verify(#[source] Box<ProgramError>),
    #[error("the XDP program could not be attached to {interface:?} in {mode} mode")]
    Attach {
        interface: String,
        mode: &'static str,
        source: Box<ProgramError>,
    },
    #[error(transparent)]
    Pins(#[from] PinError),
    #[error("the kernel does not tell this network namespace")]
    Namespace { source: std::io::Error },
    #[error("the object has no {name:?}")]
    Missing { name: &'static str },
    #[cfg(feature = "trace")]
    #[error("the ring of traced packets cannot be read")]
    Trace { source: std::io::Error },
    #[error("map {name} could not be walked")]
    Walk {
        name: &'static str,
        source: std::io::Error,
    },
    #[error("map {name} could not be {action}")]
    Map {
        name: &'static str,
        action: &'static str,
        source: Box<MapError>,
    },
}

pub(super) fn failed(
    name: &'static str,
    action: &'static str,
) -> impl Fn(MapError) -> DatapathError {
    move |source| DatapathError::Map {
        name,
        action,
        source: Box::new(source),
    }
}
