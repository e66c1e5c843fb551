//! What an operator cares for.

use std::net::IpAddr;

use crate::cluster::{peer::Loss, wire::Refusal};

/// What an operator cares for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cluster) enum Notice {
    Joined {
        node: Box<str>,
        address: String,
    },
    Lost {
        node: Box<str>,
        loss: Loss,
    },
    /// It had held this node for gone, and is back.
    Forsaken {
        node: Box<str>,
    },
    /// A caller was sent away.
    Refused {
        host: IpAddr,
        refusal: Refusal,
    },
    /// A call came to nothing, by another cause than the last one.
    Trouble {
        address: Box<str>,
        trouble: Box<str>,
    },
}
