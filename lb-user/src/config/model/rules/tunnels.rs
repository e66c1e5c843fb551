//! The rules for tunnels.

use lb_common::abi::{Encapsulation, Forward};

use super::{Located, or};
use crate::config::error::Problem;
use crate::config::file;
use crate::config::model::{SourcePrefix, Tunnel, defaults};
use crate::config::reader::Errors;
use std::net::IpAddr;

/// Sources of one family: the packet path knows one prefix.
const PREFIXES: usize = 1;

pub(super) fn check_sources(
    sources: &[Located<(IpAddr, u8)>],
    vips: &[file::Vip],
    errors: &Errors,
) {
    for v4 in [true, false] {
        let of_family = |source: &&Located<(IpAddr, u8)>| source.value.0.is_ipv4() == v4;
        if let Some(excess) = sources.iter().filter(of_family).nth(PREFIXES) {
            let limit = PREFIXES;
            errors.add(&excess.place, Problem::TooManySources { limit });
        }
    }
    for source in sources {
        let prefix = build_source(source);
        let vips = vips.iter().filter_map(|vip| vip.address.as_ref());
        for vip in vips.filter(|vip| prefix.contains(vip.value.0)) {
            let vip = vip.value.0.to_string();
            errors.add(&source.place, Problem::HoldsVip { vip });
        }
    }
}

/// The keys of a service that only mean something to tunnels.
pub(super) fn check(service: &file::Service, errors: &Errors) {
    let Some(forward) = &service.forward else {
        return;
    };
    if forward.value != Forward::Tunnel {
        let needed = "`forward = \"tunnel\"`";
        let places = [
            service.tunnel.as_ref().map(|tunnel| &tunnel.place),
            service.tunnel_port.as_ref().map(|port| &port.place),
        ];
        for place in places.into_iter().flatten() {
            errors.add(place, Problem::NotForService { needed });
        }
    } else if let Some(port) = &service.tunnel_port
        && encapsulation(service) != Encapsulation::Gue
    {
        let needed = "`tunnel = \"gue\"`";
        errors.add(&port.place, Problem::NotForService { needed });
    }
}

pub(super) fn build_sources(sources: &[Located<(IpAddr, u8)>]) -> Vec<SourcePrefix> {
    sources.iter().map(build_source).collect()
}

fn build_source(source: &Located<(IpAddr, u8)>) -> SourcePrefix {
    let (address, length) = source.value;
    SourcePrefix { address, length }
}

fn encapsulation(service: &file::Service) -> Encapsulation {
    service
        .tunnel
        .as_ref()
        .map_or(Encapsulation::IpIp, |tunnel| tunnel.value)
}

/// The tunnel of a service that has one.
pub(super) fn build(service: &mut file::Service) -> Option<Tunnel> {
    let forward = service.forward.as_ref()?.value;
    let encapsulation = encapsulation(service);
    let port = or(service.tunnel_port.take(), defaults::TUNNEL_PORT);
    (forward == Forward::Tunnel).then_some(Tunnel {
        encapsulation,
        port,
    })
}
