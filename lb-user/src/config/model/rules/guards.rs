//! The rules for who may connect.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use lb_common::abi::{Access, Balance, Forward, Rate, Rates};

use crate::config::error::Problem;
use crate::config::file;
use crate::config::model::{AccessList, Challenge, Guard, Prefix, Protocol};
use crate::config::reader::{Errors, Located, Place};

pub(super) fn check(raw: &file::Guard, service: &file::Service, errors: &Errors) {
    check_contradictions(raw, errors);
    check_bursts(raw, errors);
    if service.protocol.as_ref().map(|given| given.value) == Some(Protocol::Udp) {
        check_udp(raw, service, errors);
    }
}

fn check_bursts(raw: &file::Guard, errors: &Errors) {
    let pairs = [
        (&raw.burst, &raw.new_per_second, "`new_per_second`"),
        (
            &raw.burst_per_source,
            &raw.new_per_second_per_source,
            "`new_per_second_per_source`",
        ),
    ];
    for (burst, given, rate) in pairs {
        if let (Some(burst), None) = (burst, given) {
            errors.add(&burst.place, Problem::BurstWithoutRate { rate });
        }
    }
}

/// UDP has no sign that a flow starts but not being known, and nothing to challenge.
fn check_udp(raw: &file::Guard, service: &file::Service, errors: &Errors) {
    let is_translated = service.forward.as_ref().map(|given| given.value) == Some(Forward::Nat);
    let balance = service.balance.as_ref().map(|given| given.value);
    let is_recorded = is_translated || balance.is_some_and(Balance::is_tracked);
    for rate in [&raw.new_per_second, &raw.new_per_second_per_source] {
        if let (Some(rate), false) = (rate, is_recorded) {
            let needed = "flows that are recorded (TCP, nat, round_robin, ...)";
            errors.add(&rate.place, Problem::NotForService { needed });
        }
    }
    let wanted = raw.challenge.as_ref();
    if let Some(challenge) = wanted.filter(|given| given.value == Challenge::Always) {
        let needed = "TCP";
        errors.add(&challenge.place, Problem::NotForService { needed });
    }
}

/// A prefix that is both allowed and denied would be what comes last: nobody means that.
fn check_contradictions(raw: &file::Guard, errors: &Errors) {
    let mut allowed = BTreeMap::new();
    for said in sayings(raw).filter(|said| said.access == Access::Allow) {
        allowed.entry(said.prefix).or_insert_with(|| said.origin());
    }
    for said in sayings(raw).filter(|said| said.access == Access::Deny) {
        if let Some(origin) = allowed.get(&said.prefix) {
            let problem = Problem::AllowedAndDenied {
                prefix: said.origin_and_prefix(),
                origin: origin.clone(),
            };
            errors.add(said.place, problem);
        }
    }
}

/// One thing that is said about one prefix.
struct Saying<'a> {
    prefix: Prefix,
    access: Access,
    place: &'a Place,
    /// The file and line, if not the configuration's own.
    file: Option<(&'a str, usize)>,
}

impl Saying<'_> {
    fn origin(&self) -> String {
        match self.file {
            Some((path, line)) => format!("{path}:{line}"),
            None => format!("line {}", self.place.line),
        }
    }

    fn origin_and_prefix(&self) -> String {
        match self.file {
            Some((path, line)) => format!("{path}:{line}: {}", self.prefix),
            None => self.prefix.to_string(),
        }
    }
}

fn sayings(raw: &file::Guard) -> impl Iterator<Item = Saying<'_>> {
    let inline = [(&raw.allow, Access::Allow), (&raw.deny, Access::Deny)];
    let inline = inline.into_iter().flat_map(|(list, access)| {
        list.iter().map(move |given| Saying {
            prefix: given.value,
            access,
            place: &given.place,
            file: None,
        })
    });
    let files = [
        (&raw.allow_file, Access::Allow),
        (&raw.deny_file, Access::Deny),
    ];
    let files = files.into_iter().filter_map(|(file, access)| {
        let file = file.as_ref()?;
        Some((file, access))
    });
    let files = files.flat_map(|(file, access)| {
        let prefixes = file.value.prefixes.iter();
        prefixes.map(move |(line, prefix)| Saying {
            prefix: *prefix,
            access,
            place: &file.place,
            file: Some((&file.value.path, *line)),
        })
    });
    inline.chain(files)
}

pub(super) fn build(raw: Option<&file::Guard>, vip: IpAddr, protocol: Protocol) -> Guard {
    let default = Guard {
        challenge: challenge(None, protocol),
        ..Guard::default()
    };
    let Some(raw) = raw else {
        return default;
    };
    let of_family = sayings(raw).filter(|said| said.prefix.is_v4() == vip.is_ipv4());
    let entries = of_family.map(|said| (said.prefix, said.access)).collect();
    let denies_by_default = !raw.allow.is_empty() || raw.allow_file.is_some();
    Guard {
        access: Arc::new(AccessList::new(entries, denies_by_default)),
        rates: Rates {
            service: rate(raw.new_per_second.as_ref(), raw.burst.as_ref()),
            source: rate(
                raw.new_per_second_per_source.as_ref(),
                raw.burst_per_source.as_ref(),
            ),
        },
        challenge: challenge(raw.challenge.as_ref(), protocol),
        challenge_above: raw
            .challenge_above
            .as_ref()
            .map_or(default.challenge_above, |given| given.value),
    }
}

/// A burst is as much as comes in a second, if nothing is said.
fn rate(per_second: Option<&Located<u32>>, burst: Option<&Located<u32>>) -> Rate {
    per_second.map_or(Rate::NONE, |per_second| {
        let burst = burst.map_or(per_second.value, |burst| burst.value);
        Rate::new(per_second.value, burst)
    })
}

/// Only TCP can be challenged.
fn challenge(given: Option<&Located<Challenge>>, protocol: Protocol) -> Challenge {
    match protocol {
        Protocol::Tcp | Protocol::Mqtt => given.map_or(Challenge::Auto, |given| given.value),
        Protocol::Udp => Challenge::Never,
    }
}

/// How many entries the lists of all services take.
pub(super) fn entries(raw: &file::Config) -> usize {
    let guards = raw.services.iter().filter_map(|service| {
        let guard = service.guard.as_ref()?;
        Some(build(
            Some(guard),
            service.vip.as_ref()?.value,
            Protocol::Tcp,
        ))
    });
    guards.map(|guard| guard.access.entries().len()).sum()
}
