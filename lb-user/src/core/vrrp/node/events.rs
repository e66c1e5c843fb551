//! What happens to routers that is worth telling.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::{Fault, Handicap};
use crate::core::vrrp::advert::Priority;
use crate::core::vrrp::refusal::{Refusal, Remark};
use crate::core::vrrp::role::Change;
use crate::core::vrrp::settings::Unfit;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A router has another role.
    Changed {
        router: String,
        change: Change,
        /// The priority in force.
        priority: Priority,
    },
    /// What it lacks is not the same any more.
    Faults {
        router: String,
        faults: BTreeSet<Fault>,
    },
    /// Its priority is lower than configured, or is what is configured again.
    Handicap {
        router: String,
        handicaps: BTreeSet<Handicap>,
        priority: Priority,
    },
    /// An advert for it was refused.
    Refused {
        router: String,
        source: IpAddr,
        refusal: Refusal,
    },
    /// An advert for it was odd.
    Remarked {
        router: String,
        source: IpAddr,
        remark: Remark,
    },
    /// An advert was nobody's.
    Stray {
        interface: String,
        source: IpAddr,
        refusal: Refusal,
    },
    /// It cannot be set up with the address that it would speak from.
    Unfit { router: String, unfit: Unfit },
}
