//! What tunnels need to know beside the way to their backends.

use std::net::IpAddr;

use lb_common::abi::{Forward, Ip, TunnelSources};

use super::Balancer;
use crate::config::model::{Backend, Service};
use crate::core::image::Tunnel;

impl Balancer {
    /// Says how large an IP packet to `address` may be, in bytes.
    pub fn set_mtu(&mut self, address: IpAddr, mtu: u16) {
        self.mtus.insert(address, mtu);
    }

    /// The largest IP packet on the way to `address`, in bytes; 0: not known.
    #[must_use]
    pub fn mtu(&self, address: IpAddr) -> u16 {
        self.mtus.get(&address).copied().unwrap_or(0)
    }

    /// The largest IP packet that all of the way of a service to `backend` carries, in bytes; 0: not
    /// known. The kernel knows of the first hop, the configuration may know of others.
    #[must_use]
    pub(super) fn path_mtu(&self, service: &Service, backend: &Backend) -> u16 {
        let given = self.config().tunnel_mtu();
        let given = given.filter(|_| service.forward() == Forward::Tunnel);
        match (self.mtu(backend.address()), given) {
            (first_hop, None) => first_hop,
            (0, Some(given)) => given,
            (first_hop, Some(given)) => first_hop.min(given),
        }
    }

    /// The tunnels that cannot carry all packets of their clients, and the size of those that they do.
    pub fn narrow_tunnels(&self) -> impl Iterator<Item = (&Service, &Backend, u16)> {
        let backends = self.config().backends();
        backends.filter_map(|(service, backend)| match self.path_mtu(service, backend) {
            0 => None,
            mtu => Some((service, backend, service.too_little_room(backend, mtu)?)),
        })
    }

    /// The backends that no tunnel has an address to send to from.
    pub fn without_tunnel_source(&self) -> impl Iterator<Item = (&Service, &Backend)> {
        let backends = self.config().backends();
        backends.filter(|(service, backend)| {
            service.forward() == Forward::Tunnel && !self.has_tunnel_source(backend.address())
        })
    }

    /// Says what tunnels send from to backends of `source`'s family, where neither the configuration
    /// nor an earlier call has.
    pub fn add_tunnel_source(&mut self, source: IpAddr) {
        if !self.has_tunnel_source(source) {
            self.tunnel_sources.push(source);
        }
    }

    fn has_tunnel_source(&self, destination: IpAddr) -> bool {
        let given = self.config().tunnel_sources().iter();
        let mut sources = given
            .map(|prefix| prefix.address())
            .chain(self.tunnel_sources.iter().copied());
        sources.any(|source| source.is_ipv4() == destination.is_ipv4())
    }

    /// What tunnels send from: the host's own addresses where no prefix is given.
    pub(super) fn tunnel_sources(&self) -> TunnelSources {
        let own = self.tunnel_sources.iter().filter(|own| !self.is_vip(**own));
        let own = own.fold(TunnelSources::EMPTY, |sources, own| {
            sources.with(Ip::from(*own), 0)
        });
        let given = self.config().tunnel_sources().iter();
        given.fold(own, |sources, prefix| prefix.join(sources))
    }
}

/// The form of a service's tunnels.
pub(super) fn form(service: &Service) -> Tunnel {
    service
        .tunnel()
        .map_or_else(Tunnel::default, |tunnel| Tunnel {
            encapsulation: tunnel.encapsulation(),
            port: tunnel.port(),
        })
}
