//! From names to this node's own ids: what a receiver makes of what it is told.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::net::IpAddr;

use lb_common::abi::{
    BackendId, Flow, FlowKey, FlowState, Forward, Ip, KeepAlive, NAT_SOURCES, NatPool, NextHop,
    Reply, ServiceId, ServiceKey, Tick,
};
use lb_common::flow::HashKeys;

use super::record::{BackendName, FlowName, FlowRecord, REFRESH, ServiceName, Translation};
use crate::core::image::MapImage;

/// Why something is not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refused {
    /// This node has no such service.
    UnknownService,
    /// Its service has no such backend.
    UnknownBackend,
    /// This node does not stand by for the VIP.
    NotStandby,
    /// The service is `nat` on one of the nodes only.
    OtherForward,
    /// This node does not send from that address, or not from that port.
    NatSource,
    /// It is none of what there can be.
    Invalid,
    /// The flow table is full.
    NoRoom,
}

impl Refused {
    /// The name in metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::UnknownService => "unknown_service",
            Self::UnknownBackend => "unknown_backend",
            Self::NotStandby => "not_standby",
            Self::OtherForward => "other_forward",
            Self::NatSource => "nat_source",
            Self::Invalid => "invalid",
            Self::NoRoom => "no_room",
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// A flow as this node records it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Local {
    pub flow: Flow,
    /// Of `nat`: what the backend's replies become.
    pub reply: Option<(FlowKey, Reply)>,
}

/// What this node has, by the names that both know.
pub struct Names {
    services: HashMap<ServiceName, (ServiceId, Forward)>,
    backends: HashMap<(ServiceId, Ip, u16), Holder>,
    pool: NatPool,
    standby: BTreeSet<IpAddr>,
}

#[derive(Clone, Copy)]
struct Holder {
    id: BackendId,
    epoch: u16,
    next_hop: Option<NextHop>,
}

impl Names {
    /// The names of an image, on a node that stands by for these VIPs.
    #[must_use]
    pub fn new(image: &MapImage, standby: BTreeSet<IpAddr>) -> Self {
        let services = image.services.iter();
        let fallen = image.fallen.iter().map(|(&id, it)| {
            let holder = Holder {
                id,
                epoch: it.epoch,
                next_hop: None,
            };
            ((it.service, it.address, it.port), holder)
        });
        let backends = image.backends.iter().map(|(&id, it)| {
            let holder = Holder {
                id,
                epoch: it.epoch,
                next_hop: it.next_hop,
            };
            ((it.service, it.address, it.port), holder)
        });
        Self {
            services: services
                .map(|(key, it)| (ServiceName::from(*key), (it.id, it.forward)))
                .collect(),
            backends: fallen.chain(backends).collect(),
            pool: image.nat_pool,
            standby,
        }
    }

    /// The VIPs that it was made for.
    #[must_use]
    pub const fn standby(&self) -> &BTreeSet<IpAddr> {
        &self.standby
    }

    /// Whether there is anything that flows could need and was not there `before`, or is another now.
    #[must_use]
    pub fn has_more_than(&self, before: &Self) -> bool {
        let backends = self.backends.iter();
        let mut backends = backends.map(|(place, it)| {
            let known = before.backends.get(place);
            known.is_some_and(|known| (known.id, known.epoch) == (it.id, it.epoch))
        });
        let mut services = self.services.iter();
        !backends.all(|is_known| is_known)
            || !services.all(|(name, it)| before.services.get(name) == Some(it))
            || self.pool != before.pool
    }

    /// Whether this node takes in what concerns a service.
    ///
    /// # Errors
    /// Why not.
    pub fn service(&self, name: &ServiceName) -> Result<ServiceKey, Refused> {
        if !self.services.contains_key(name) {
            return Err(Refused::UnknownService);
        }
        if !self.standby.contains(&name.vip) {
            return Err(Refused::NotStandby);
        }
        Ok((*name).into())
    }

    /// What this node records of a flow; `sent` is the sender's clock at that, `now` its own.
    ///
    /// # Errors
    /// Why nothing.
    pub fn flow(
        &self,
        name: &FlowName,
        record: &FlowRecord,
        (sent, now): (Tick, Tick),
    ) -> Result<Local, Refused> {
        self.service(&name.service)?;
        let is_known = record.state <= FlowState::Ended as u8;
        if !is_known || name.client.is_ipv4() != name.service.vip.is_ipv4() {
            return Err(Refused::Invalid);
        }
        let &(service, forward) = self
            .services
            .get(&name.service)
            .ok_or(Refused::UnknownService)?;
        let BackendName { address, port } = record.backend;
        let backend = self.backends.get(&(service, address.into(), port));
        let holder = *backend.ok_or(Refused::UnknownBackend)?;
        let silence = sent.since(Tick(record.seen));
        let flow = Flow {
            backend: holder.id.0,
            epoch: holder.epoch,
            seen: now.0.saturating_sub(silence).saturating_add(REFRESH),
            middle: record.sequence.to_ne_bytes(),
            nat_source: Flow::UNTRANSLATED,
            state: record.state,
            keep_alive: KeepAlive::from_bits(record.keep_alive),
        };
        match (&record.translation, forward) {
            (None, Forward::Dsr | Forward::Tunnel) => Ok(Local { flow, reply: None }),
            (Some(translation), Forward::Nat) => {
                self.translated(name, record.backend, flow, translation, holder)
            }
            (None, Forward::Nat) | (Some(_), Forward::Dsr | Forward::Tunnel) => {
                Err(Refused::OtherForward)
            }
        }
    }

    fn translated(
        &self,
        name: &FlowName,
        backend: BackendName,
        flow: Flow,
        translation: &Translation,
        holder: Holder,
    ) -> Result<Local, Refused> {
        let &Translation {
            source,
            port,
            client,
        } = translation;
        let number = self.source(source).ok_or(Refused::NatSource)?;
        let first = self.pool.first_port();
        if !(first..first + self.pool.port_count()).contains(&port.into()) {
            return Err(Refused::NatSource);
        }
        let key = FlowKey::new(
            backend.address.into(),
            source.into(),
            backend.port,
            port,
            name.service.protocol,
        );
        // Clients are met by the interface that the backends are behind. If they are not where they
        // were, their next packet says so: a way of 0 is nobody's.
        let ours = holder.next_hop.unwrap_or(NextHop {
            interface: 0,
            mac: [0; 6],
            source_mac: [0; 6],
        });
        let reply = Reply {
            client: name.client.into(),
            vip: name.service.vip.into(),
            client_port: name.port.to_be_bytes(),
            vip_port: name.service.port.to_be_bytes(),
            backend: holder.id.0,
            epoch: holder.epoch,
            next_hop: NextHop {
                mac: client,
                ..ours
            },
            client_end: 0,
            backend_end: 0,
        };
        Ok(Local {
            flow: flow.translated(number, port.to_be_bytes(), 0),
            reply: Some((key, reply)),
        })
    }

    /// The number of an address that NAT sends from.
    fn source(&self, source: IpAddr) -> Option<u8> {
        let (v4, source) = (source.is_ipv4(), Ip::from(source));
        let numbers = 0..self.pool.source_count(v4).min(NAT_SOURCES as u32);
        let mut numbers = numbers.filter_map(|number| u8::try_from(number).ok());
        numbers.find(|number| *self.pool.source(v4, *number) == source)
    }
}

/// The backends of an image by their ids, for a sender.
#[must_use]
pub fn backends(image: &MapImage) -> BTreeMap<BackendId, (BackendName, u16)> {
    let fallen = image.fallen.iter();
    let fallen = fallen.map(|(id, it)| (*id, (it.address, it.port, it.epoch)));
    let backends = image.backends.iter();
    let backends = backends.map(|(id, it)| (*id, (it.address, it.port, it.epoch)));
    fallen
        .chain(backends)
        .map(|(id, (address, port, epoch))| {
            let address = address.into();
            (id, (BackendName { address, port }, epoch))
        })
        .collect()
}

/// Tells the seeds of two nodes apart, and nothing else of them.
#[must_use]
pub fn fingerprint(keys: &HashKeys) -> u64 {
    let hash = |byte| {
        let end = Ip::new([byte; 16]);
        keys.hash(&FlowKey::new(end, end, 0x5454, 0x4747, byte))
    };
    u64::from(hash(0x5a)) << 32 | u64::from(hash(0xa5))
}

#[cfg(test)]
mod tests;
