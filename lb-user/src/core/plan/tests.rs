//! Ids, generations and the order of steps; the last on a model of the maps.

mod access;
mod ids;
mod restored;
mod simulation;

use std::net::IpAddr;

use lb_common::abi::{
    BackendId, Balance, Forward, Ip, NextHop, PROTOCOL_TCP, PROTOCOL_UDP, ServiceKey, Tick,
};

use super::{Desired, DesiredBackend, DesiredService, Moment};
use crate::config::model::Limits;
use crate::core::image::MapImage;
use crate::core::maglev::Lender;

fn ip(last: u8) -> Ip {
    Ip::from(IpAddr::from([172, 16, 40, last]))
}

/// Service `n`: two VIPs, both protocols.
fn key(n: u16) -> ServiceKey {
    let vip = if n.is_multiple_of(2) { ip(24) } else { ip(25) };
    let protocol = if n < 2 { PROTOCOL_TCP } else { PROTOCOL_UDP };
    ServiceKey::new(vip, 1883 + n, protocol)
}

fn backend(last: u8, weight: u16) -> DesiredBackend {
    DesiredBackend::new(ip(last), 1883, weight, None)
}

fn lender(last: u8) -> Lender {
    Lender {
        address: ip(last),
        port: 1883,
        weight: 1,
    }
}

fn service(n: u16, backends: &[DesiredBackend]) -> DesiredService {
    DesiredService {
        backends: backends.to_vec(),
        ..DesiredService::new(key(n), Balance::Maglev, Forward::Dsr)
    }
}

fn desired(services: &[DesiredService]) -> Desired {
    Desired {
        services: services.to_vec(),
        ..Desired::nothing(Limits {
            services: 3,
            backends: 6,
            flows: 1,
            half_open: 1,
            access_entries: 1,
            fragments: 1,
            sources: 1_024,
        })
    }
}

fn hop(last: u8) -> Option<NextHop> {
    Some(NextHop {
        interface: 2,
        mac: [last; 6],
        source_mac: [1; 6],
    })
}

/// The image that follows at a time when there is room.
fn next(previous: &MapImage, desired: &Desired) -> MapImage {
    super::next(previous, desired, Moment::at(Tick(0)))
}

/// The image after all of `steps`, each from the one before.
fn after(steps: &[Desired]) -> MapImage {
    let step = |image: MapImage, desired: &Desired| next(&image, desired);
    steps.iter().fold(MapImage::empty(), step)
}

fn ids_of(image: &MapImage, n: u16) -> Vec<BackendId> {
    let id = image.services[&key(n)].id;
    let of_service = image
        .backends
        .iter()
        .filter(|(_, backend)| backend.service == id);
    of_service.map(|(&id, _)| id).collect()
}
