//! The rules for services and their backends.

use std::net::IpAddr;

use lb_common::abi::{Balance, Forward, RING_SIZE};

use super::{check_unique, checks, guards, or, tunnels};
use crate::config::error::Problem;
use crate::config::file;
use crate::config::model::{Backend, Protocol, Service, defaults};
use crate::config::reader::{Errors, Located, Place};
use crate::config::value::format_duration;

pub(super) fn check(raw: &file::Config, errors: &Errors) {
    let vips: Vec<IpAddr> = raw
        .vips
        .iter()
        .filter_map(|vip| vip.address.as_ref())
        .map(|address| address.value.0)
        .collect();
    check_unique(
        located(raw.services.iter().map(|s| &s.name)),
        "choose another name",
        errors,
    );
    check_unique(
        raw.services.iter().filter_map(endpoint),
        "each VIP, port and protocol makes one service",
        errors,
    );
    for service in &raw.services {
        check_vip(service, raw, &vips, errors);
        check_keep_alives(service, errors);
        check_backends(service, &vips, errors);
        tunnels::check(service, errors);
        if let Some(check) = &service.check {
            checks::check(check, protocol(service), errors);
        }
        if let Some(guard) = &service.guard {
            guards::check(guard, service, errors);
        }
    }
}

/// What clients connect to; its place is that of the port.
fn endpoint(service: &file::Service) -> Option<((IpAddr, u16, u8), &Place)> {
    let (vip, port) = (service.vip.as_ref()?, service.port.as_ref()?);
    let protocol = protocol(service).number();
    Some(((vip.value, port.value, protocol), &port.place))
}

fn protocol(service: &file::Service) -> Protocol {
    service
        .protocol
        .as_ref()
        .map_or(Protocol::Tcp, |protocol| protocol.value)
}

fn located<'a, T: 'a>(
    values: impl Iterator<Item = &'a Option<Located<T>>>,
) -> impl Iterator<Item = (&'a T, &'a Place)> {
    values
        .flatten()
        .map(|located| (&located.value, &located.place))
}

/// A VIP that could not be read may be the one that is meant, so nothing is missed among them.
fn check_vip(service: &file::Service, raw: &file::Config, vips: &[IpAddr], errors: &Errors) {
    if let Some(vip) = &service.vip
        && vips.len() == raw.vips.len()
        && !vips.contains(&vip.value)
    {
        let address = vip.value.to_string();
        errors.add(&vip.place, Problem::UndeclaredVip { address });
    }
}

/// Where nothing is read of the payload, no client says how long it may be silent.
fn check_keep_alives(service: &file::Service, errors: &Errors) {
    let Some(most) = &service.keep_alive_max else {
        return;
    };
    let least = service.keep_alive.as_ref();
    let least = least.map_or(defaults::KEEP_ALIVE, |least| least.value);
    if protocol(service) != Protocol::Mqtt {
        let needed = "`protocol = \"mqtt\"`";
        errors.add(&most.place, Problem::NotForService { needed });
    } else if most.value < least {
        let least = format_duration(least);
        errors.add(&most.place, Problem::MostBelowKeepAlive { least });
    }
}

fn check_backends(service: &file::Service, vips: &[IpAddr], errors: &Errors) {
    let backends = &service.backends;
    if backends.is_empty() {
        errors.add(&service.place, Problem::NoBackends);
    }
    if backends.len() > RING_SIZE as usize {
        let (count, limit) = (backends.len(), RING_SIZE);
        errors.add(&service.place, Problem::TooManyBackends { count, limit });
    }
    check_unique(
        located(backends.iter().map(|b| &b.name)),
        "choose another name",
        errors,
    );
    let sockets = backends.iter().filter_map(|backend| {
        let address = backend.address.as_ref()?;
        Some(((address.value, port(service, backend)?), &address.place))
    });
    check_unique(
        sockets,
        "a service uses a server once; give it more weight",
        errors,
    );
    for backend in backends {
        check_address(service, backend, vips, errors);
        check_port(service, backend, errors);
        check_limit(service, backend, errors);
    }
}

/// Flows are counted where all of them are recorded.
fn check_limit(service: &file::Service, backend: &file::Server, errors: &Errors) {
    let balance = service.balance.as_ref();
    let balance = balance.map_or(Balance::Maglev, |balance| balance.value);
    if let Some(limit) = &backend.max_connections
        && limit.value > 0
        && forward(service).is_some_and(|forward| forward != Forward::Nat && !balance.is_tracked())
    {
        errors.add(&limit.place, Problem::NotCounted);
    }
}

/// The backend's port: its own, else the service's.
fn port(service: &file::Service, backend: &file::Server) -> Option<u16> {
    let port = backend.port.as_ref().or(service.port.as_ref());
    port.map(|port| port.value)
}

fn check_address(
    service: &file::Service,
    backend: &file::Server,
    vips: &[IpAddr],
    errors: &Errors,
) {
    let Some(Located { place, value }) = &backend.address else {
        return;
    };
    let address = value.to_string();
    if vips.contains(value) {
        errors.add(place, Problem::IsVip { address });
    } else if let Some(vip) = &service.vip
        && forward(service) != Some(Forward::Tunnel)
        && vip.value.is_ipv4() != value.is_ipv4()
    {
        let vip = vip.value.to_string();
        errors.add(place, Problem::Family { address, vip });
    }
}

/// Only a translated packet gets another port.
fn check_port(service: &file::Service, backend: &file::Server, errors: &Errors) {
    let forward = match forward(service) {
        Some(Forward::Dsr) => "dsr",
        Some(Forward::Tunnel) => "tunnel",
        Some(Forward::Nat) | None => return,
    };
    if let (Some(own), Some(port)) = (&backend.port, &service.port)
        && own.value != port.value
    {
        let port = port.value;
        errors.add(&own.place, Problem::FixedPort { forward, port });
    }
}

fn forward(service: &file::Service) -> Option<Forward> {
    service.forward.as_ref().map(|forward| forward.value)
}

pub(super) fn build(mut raw: file::Service) -> Option<Service> {
    let tunnel = tunnels::build(&mut raw);
    let (vip, port) = (raw.vip?.value, raw.port?.value);
    let protocol = or(raw.protocol, Protocol::Tcp);
    let keep_alive = or(raw.keep_alive, defaults::KEEP_ALIVE);
    let backends = raw
        .backends
        .into_iter()
        .map(|backend| build_backend(backend, port));
    Some(Service {
        name: raw.name?.value,
        vip,
        port,
        protocol,
        balance: or(raw.balance, Balance::Maglev),
        forward: raw.forward?.value,
        tunnel,
        keep_alive,
        keep_alive_max: or(raw.keep_alive_max, keep_alive * defaults::KEEP_ALIVE_MAX),
        slow_start: raw.slow_start.map(|time| time.value),
        check: checks::build(raw.check, protocol)?,
        guard: guards::build(raw.guard.as_ref(), vip, protocol),
        backends: backends.collect::<Option<_>>()?,
    })
}

fn build_backend(raw: file::Server, service_port: u16) -> Option<Backend> {
    Some(Backend {
        name: raw.name?.value,
        address: raw.address?.value,
        port: or(raw.port, service_port),
        weight: or(raw.weight, defaults::WEIGHT),
        max_connections: or(raw.max_connections, 0),
        leaving: false,
    })
}
