//! What the guard does with a packet, in the order of the program's stage.

use std::net::IpAddr;

use lb_common::abi::Access;
use lb_common::verdict::Verdict;

use super::{GuardMemory, Step, words::step};
use crate::core::image::ServiceImage;

/// A packet before the guard of a service.
pub(super) struct Guard<'a> {
    pub(super) service: &'a ServiceImage,
    pub(super) memory: GuardMemory,
    pub(super) client: IpAddr,
    /// Whether it counts as the start of a connection.
    pub(super) starts: bool,
    pub(super) is_udp: bool,
}

impl Guard<'_> {
    /// Whether the packet may go on.
    ///
    /// # Errors
    /// How it ends if not.
    pub(super) fn check(&self) -> Result<(), Verdict> {
        let features = self.service.features;
        if self.has_list() && !self.service.access.allows(self.client) {
            return Err(Verdict::DropDenied);
        }
        if !self.starts {
            return Ok(());
        }
        if features.challenge && !self.is_udp && !self.memory.answered {
            return Err(Verdict::TxChallenge);
        }
        let (source, service) = self.limits();
        if source {
            Err(Verdict::DropSourceRate)
        } else if service {
            Err(Verdict::DropServiceRate)
        } else {
            Ok(())
        }
    }

    /// What was looked at, and why it was decided so.
    pub(super) fn step(&self) -> Step {
        let features = self.service.features;
        let mut findings = Vec::new();
        if self.has_list() {
            findings.push(self.access());
        }
        if features.challenge && self.starts && !self.is_udp {
            findings.push(if self.memory.answered {
                "the client has answered a challenge".to_owned()
            } else {
                "the client is challenged: it has to show that it is there".to_owned()
            });
        }
        if features.rates && self.starts {
            findings.push(self.rates().to_owned());
        }
        if findings.is_empty() {
            findings.push("nothing is checked".to_owned());
        }
        step("guard", findings.join("; "))
    }

    fn has_list(&self) -> bool {
        self.service.features.access_list || self.service.features.default_deny
    }

    /// Whether the source, and the service, have had their rate.
    fn limits(&self) -> (bool, bool) {
        let (rates, now) = (self.service.rates, self.memory.now);
        let is_on = self.service.features.rates;
        let is_empty = |rate: lb_common::abi::Rate, bucket| {
            is_on && rate.is_some() && rate.take(bucket, now).is_none()
        };
        (
            is_empty(rates.source, self.memory.source),
            is_empty(rates.service, self.memory.service),
        )
    }

    fn rates(&self) -> &'static str {
        match self.limits() {
            (true, _) => "the client has had its rate of new connections",
            (false, true) => "the service has had its rate of new connections",
            (false, false) => "within the rates of new connections",
        }
    }

    fn access(&self) -> String {
        let list = &self.service.access;
        match list.longest(self.client) {
            Some((prefix, Access::Allow)) => format!("{prefix} is allowed"),
            Some((prefix, Access::Deny)) => format!("{prefix} is denied"),
            None if list.denies_by_default() => {
                "denied, as no prefix of the access list has the client".to_owned()
            }
            None => "allowed, as no prefix of the access list has the client".to_owned(),
        }
    }
}
