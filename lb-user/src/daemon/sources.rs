//! Finds what NAT and tunnels send from where the configuration does not say: what the host would.
//!
//! One address a family, for as long as the daemon runs: to that of NAT come replies to live flows.

use std::net::IpAddr;

use tracing::{debug, warn};

use super::{engine::Engine, maps::Maps, vips::Vips};
use crate::core::balancer::BackendKey;

/// A tunnel that cannot carry all packets of its clients.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Narrow {
    /// Its service and backend.
    pub(super) tunnel: BackendKey,
    /// The largest packet that it carries, in bytes.
    pub(super) room: u16,
}

impl Narrow {
    pub(super) fn warn(&self) {
        let Self { tunnel, room } = self;
        warn!(
            backend = %tunnel, room,
            "a tunnel has less room than the 1280 bytes that clients over IPv6 may send: larger packets are lost, \
             use links with a larger MTU, or outer IPv4"
        );
    }
}

/// Finds what is missing, if it can be found yet.
pub(super) async fn find<M: Maps>(engine: &mut Engine<M>, vips: &Vips) {
    find_for_nat(engine, vips).await;
    find_for_tunnels(engine, vips).await;
}

async fn find_for_nat<M: Maps>(engine: &mut Engine<M>, vips: &Vips) {
    let lacking = engine.balancer.without_source();
    let backends: Vec<IpAddr> = lacking.map(|(_, backend)| backend.address()).collect();
    for backend in backends {
        match vips.source_towards(backend).await {
            Ok(Some(source)) if !engine.balancer.is_vip(source) => {
                debug!(%source, %backend, "NAT source found");
                engine.handle_default_source(source);
            }
            Ok(_) => debug!(%backend, "host has no source of its own for a backend"),
            Err(error) => debug!(%backend, %error, "no route to a backend"),
        }
    }
}

/// Tunnels may leave by any interface.
async fn find_for_tunnels<M: Maps>(engine: &mut Engine<M>, vips: &Vips) {
    let lacking = engine.balancer.without_tunnel_source();
    let backends: Vec<IpAddr> = lacking.map(|(_, backend)| backend.address()).collect();
    for backend in backends {
        match vips.any_source_towards(backend).await {
            Ok(Some(source)) if !engine.balancer.is_vip(source) => {
                debug!(%source, %backend, "tunnel source found");
                engine.handle_tunnel_source(source);
            }
            Ok(_) => debug!(%backend, "host has no address of its own for a tunnel"),
            Err(error) => debug!(%backend, %error, "no route to a backend"),
        }
    }
}

/// Warns of what makes NAT or tunnels fail.
pub(super) fn warn_of_trouble<M: Maps>(engine: &Engine<M>) {
    for source in engine.foreign_sources() {
        warn!(%source, "the interface has no such address to send NAT from, replies may not come");
    }
    for (service, backend) in engine.balancer.without_source() {
        warn!(
            service = service.name(),
            backend = backend.name(),
            "no address to send NAT to this backend from: give nat.sources one of its family"
        );
    }
    for (service, backend) in engine.balancer.without_tunnel_source() {
        warn!(
            service = service.name(),
            backend = backend.name(),
            "no address to tunnel to this backend from: give tunnel.sources a prefix of its family"
        );
    }
    for narrow in engine.narrow_tunnels() {
        narrow.warn();
    }
}
