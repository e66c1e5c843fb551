//! The rules between keys, and the way from the file's keys to a [`Config`].
//!
//! Rules look at the keys alone and report; [`Config::build`] then puts the values together and fills in
//! defaults. What it makes of keys that broke a rule is thrown away by the caller.

mod checks;
mod dashboards;
mod guards;
mod notifies;
mod services;
mod syncs;
mod tunnels;
mod vrrps;

use std::collections::BTreeMap;
use std::path::PathBuf;

use lb_common::abi::NAT_SOURCES;

use super::{Api, Config, Limits, Log, LogFormat, Nat, Unserved, Vip, XdpMode, defaults};
use crate::config::error::Problem;
use crate::config::file;
use crate::config::reader::{Errors, Located};

impl Config {
    /// Reports what is wrong with `raw` and makes the best of it; `None` if something essential is
    /// missing.
    pub(in crate::config) fn check(raw: file::Config, errors: &Errors) -> Option<Self> {
        check_vips(&raw, errors);
        check_nat(&raw, errors);
        tunnels::check_sources(&raw.tunnel.sources, &raw.vips, errors);
        services::check(&raw, errors);
        vrrps::check(&raw, errors);
        syncs::check(&raw, errors);
        dashboards::check(&raw, errors);
        notifies::check(&raw, errors);
        check_limits(&raw, errors);
        Self::build(raw)
    }

    fn build(raw: file::Config) -> Option<Self> {
        let interface = raw.interface?.value;
        let services = raw.services.into_iter().map(services::build);
        let vrrps = raw.vrrps.into_iter();
        let vrrps = vrrps.map(|vrrp| vrrps::build(vrrp, &interface));
        let vrrps = vrrps.collect::<Option<_>>()?;
        let sync = match raw.sync {
            Some(sync) => Some(syncs::build(sync)?),
            None => None,
        };
        let dashboard = match raw.dashboard {
            Some(dashboard) => Some(dashboards::build(dashboard)?),
            None => None,
        };
        let notifies = raw.notifies.into_iter().map(notifies::build);
        let (first_port, last_port) = or(raw.nat.ports, defaults::NAT_PORTS);
        Some(Self {
            interface,
            xdp_mode: or(raw.xdp_mode, XdpMode::Auto),
            seed: raw.seed.map(|seed| seed.value),
            state_dir: path(raw.state_dir, defaults::STATE_DIR),
            pin_dir: path(raw.pin_dir, defaults::PIN_DIR),
            log: Log {
                level: raw
                    .log
                    .level
                    .map_or(defaults::LOG_LEVEL.to_owned(), |level| level.value),
                format: or(raw.log.format, LogFormat::Text),
            },
            api: Api {
                socket: path(raw.api.socket, defaults::API_SOCKET),
                mode: or(raw.api.mode, defaults::API_MODE),
                group: raw.api.group.map(|group| group.value),
            },
            metrics: raw.metrics_listen.map(|listen| listen.value),
            dashboard,
            limits: build_limits(&raw.limits),
            tracking_idle: or(raw.tracking.idle, defaults::TRACKING_IDLE),
            tracking_shortest: or(raw.tracking.shortest, defaults::TRACKING_SHORTEST),
            tracking_longest: or(raw.tracking.longest, defaults::TRACKING_LONGEST),
            nat: Nat {
                sources: raw
                    .nat
                    .sources
                    .into_iter()
                    .map(|source| source.value)
                    .collect(),
                first_port,
                last_port,
            },
            tunnel_sources: tunnels::build_sources(&raw.tunnel.sources),
            tunnel_mtu: raw.tunnel.mtu.map(|mtu| mtu.value),
            sync,
            vips: raw.vips.into_iter().map(build_vip).collect::<Option<_>>()?,
            vrrps,
            notifies: notifies.collect::<Option<_>>()?,
            services: services.collect::<Option<_>>()?,
        })
    }
}

/// The value that was given, else `default`.
fn or<T>(given: Option<Located<T>>, default: T) -> T {
    given.map_or(default, |given| given.value)
}

fn path(given: Option<Located<String>>, default: &str) -> PathBuf {
    given.map_or_else(
        || PathBuf::from(default),
        |given| PathBuf::from(given.value),
    )
}

fn build_limits(raw: &file::Limits) -> Limits {
    let file::Limits {
        services,
        backends,
        flows,
        half_open,
        access_entries,
        fragments,
        sources,
    } = raw;
    let or = |given: &Option<Located<u32>>, default| given.as_ref().map_or(default, |g| g.value);
    Limits {
        services: or(services, defaults::LIMITS.services),
        backends: or(backends, defaults::LIMITS.backends),
        flows: or(flows, defaults::LIMITS.flows),
        half_open: or(half_open, defaults::LIMITS.half_open),
        access_entries: or(access_entries, defaults::LIMITS.access_entries),
        fragments: or(fragments, defaults::LIMITS.fragments),
        sources: or(sources, defaults::LIMITS.sources),
    }
}

fn build_vip(raw: file::Vip) -> Option<Vip> {
    let (address, prefix) = raw.address?.value;
    Some(Vip {
        address,
        prefix,
        assign: or(raw.assign, true),
        unserved: or(raw.without_backends, Unserved::Stay),
    })
}

/// Reports every value that was there before.
fn check_unique<'a, T: Ord + 'a>(
    values: impl Iterator<Item = (T, &'a crate::config::reader::Place)>,
    remedy: &'static str,
    errors: &Errors,
) {
    let mut first_lines = BTreeMap::new();
    for (value, place) in values {
        if let Some(&line) = first_lines.get(&value) {
            errors.add(place, Problem::Duplicate { line, remedy });
        } else {
            first_lines.insert(value, place.line);
        }
    }
}

fn check_vips(raw: &file::Config, errors: &Errors) {
    let addresses = raw.vips.iter().filter_map(|vip| vip.address.as_ref());
    let addresses = addresses.map(|address| (address.value.0, &address.place));
    check_unique(addresses, "remove one", errors);
    for vip in &raw.vips {
        check_unserved(vip, &raw.vrrps, errors);
    }
}

/// `without_backends` is about addresses that come and go by it alone.
fn check_unserved(vip: &file::Vip, vrrps: &[file::Vrrp], errors: &Errors) {
    let (Some(unserved), Some(address)) = (&vip.without_backends, &vip.address) else {
        return;
    };
    let (address, _) = address.value;
    if vip.assign.as_ref().is_some_and(|assign| !assign.value) {
        let address = address.to_string();
        errors.add(&unserved.place, Problem::NotAssigned { address });
    }
    let has_it = |vrrp: &&file::Vrrp| vrrp.vips.iter().any(|held| held.value == address);
    if let Some(vrrp) = vrrps.iter().find(has_it) {
        let name = vrrp.name.as_ref().map(|name| name.value.as_str());
        let problem = Problem::OfRouter {
            address: address.to_string(),
            router: name.unwrap_or_default().to_owned(),
        };
        errors.add(&unserved.place, problem);
    }
}

fn check_nat(raw: &file::Config, errors: &Errors) {
    let nat = &raw.nat;
    check_unique(
        nat.sources.iter().map(|s| (s.value, &s.place)),
        "remove one",
        errors,
    );
    for source in &nat.sources {
        let address = source.value;
        // One that has no service may be: then a virtual router takes it to where the flows are.
        let mut vips = raw.services.iter().filter_map(|it| it.vip.as_ref());
        if vips.any(|vip| vip.value == address) {
            errors.add(
                &source.place,
                Problem::IsVip {
                    address: address.to_string(),
                },
            );
        }
    }
    for v4 in [true, false] {
        let mut of_family = nat
            .sources
            .iter()
            .filter(|source| source.value.is_ipv4() == v4);
        if let Some(excess) = of_family.nth(NAT_SOURCES) {
            errors.add(
                &excess.place,
                Problem::TooManySources { limit: NAT_SOURCES },
            );
        }
    }
}

fn check_limits(raw: &file::Config, errors: &Errors) {
    let limits = build_limits(&raw.limits);
    let backends = raw
        .services
        .iter()
        .map(|service| service.backends.len())
        .sum();
    let uses = [
        (
            &raw.limits.services,
            "limits.services",
            limits.services,
            raw.services.len(),
        ),
        (
            &raw.limits.backends,
            "limits.backends",
            limits.backends,
            backends,
        ),
        (
            &raw.limits.access_entries,
            "limits.access_entries",
            limits.access_entries,
            guards::entries(raw),
        ),
    ];
    for (given, path, limit, needed) in uses {
        if needed > limit as usize {
            let default = crate::config::reader::Place {
                path: path.to_owned(),
                line: 1,
            };
            let place = given.as_ref().map_or(&default, |given| &given.place);
            errors.add(place, Problem::Limit { needed });
        }
    }
}
