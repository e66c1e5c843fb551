//! Finds what NAT sends from where the configuration does not say: what the host itself would.
//!
//! One address a family, for as long as the daemon runs: replies to live flows come to it.

use std::net::IpAddr;

use tracing::{debug, warn};

use super::{engine::Engine, maps::Maps, vips::Vips};

/// Finds what is missing, if it can be found yet.
pub(super) async fn find<M: Maps>(engine: &mut Engine<M>, vips: &Vips) {
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

/// Warns of what makes NAT fail.
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
}
