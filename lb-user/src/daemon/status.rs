//! Puts together what there is to tell.

use std::collections::BTreeMap;

use lb_common::abi::{Balance, Forward, Ip, NextHop};
use tracing::warn;

use super::{
    engine::{Engine, longest_waited_for},
    ledger::Account,
    maps::Maps,
    running::Running,
    sync::Syncer,
};
use crate::{
    config::model::{Protocol, Service},
    control::{
        BackendStatus, ConfigStatus, GuardStatus, InterfaceStatus, MqttStatus, ServiceState,
        ServiceStatus, Sessions, Status,
    },
    core::{
        balancer::{Admin, BackendKey, BackendView, ServiceView},
        image::records_all,
    },
};

impl Running {
    /// All that the outside can know.
    pub(super) fn status(&self) -> Status {
        let config = self.engine.balancer.config();
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_seconds: self.started.elapsed().as_secs(),
            config: ConfigStatus {
                path: self.path.display().to_string(),
                generation: self.generation,
                last_error: self.last_error.clone(),
            },
            interface: InterfaceStatus {
                name: config.interface().to_owned(),
                xdp_mode: self.mode.label().to_owned(),
            },
            vips: self.vips.status(config, &self.routers),
            vrrp: self.routers.status(),
            sync: self.syncer.as_ref().map(Syncer::status),
            services: self.engine.services(),
            verdicts: self.engine.verdicts(),
            flows: *self.flows.borrow(),
            counters: self.engine.counters,
            notifiers: self.notifiers.status(),
            dashboard: self.dashboard.as_ref().map(|it| it.status()),
            events: self
                .engine
                .journal
                .counts()
                .into_iter()
                .map(|(kind, count)| (kind.to_string(), count))
                .collect(),
        }
    }
}

impl<M: Maps> Engine<M> {
    /// Every service with its backends. Without the kernel's counters they read 0.
    pub(super) fn services(&self) -> Vec<ServiceStatus> {
        let views = self.balancer.view(&self.image);
        views.iter().map(|view| self.service(view)).collect()
    }

    /// One backend; `None` if there is none of that name.
    pub(super) fn backend_status(&self, key: &BackendKey) -> Option<BackendStatus> {
        self.balancer.view(&self.image).iter().find_map(|view| {
            let backend = view.backends.iter().find(|backend| backend.key == *key)?;
            Some(self.backend(view, backend))
        })
    }

    /// Packets by how they ended.
    pub(super) fn verdicts(&self) -> BTreeMap<String, u64> {
        let verdicts = readable(self.maps.verdicts());
        verdicts
            .into_iter()
            .map(|(verdict, count)| (verdict.label().to_owned(), count))
            .collect()
    }

    fn service(&self, view: &ServiceView<'_>) -> ServiceStatus {
        let service = view.service;
        let traffic = readable(self.ledger.service(service.key(), &self.maps));
        let backends: Vec<_> = view
            .backends
            .iter()
            .map(|backend| self.backend(view, backend))
            .collect();
        let is_counted = backends.iter().all(|backend| backend.sessions.exact);
        ServiceStatus {
            name: service.name().to_owned(),
            vip: service.vip().to_string(),
            port: service.port(),
            protocol: service.protocol().to_string(),
            balance: balance(service.balance()).to_owned(),
            forward: forward(service.forward()).to_owned(),
            tunnel: service.tunnel().map(ToString::to_string),
            state: if view.up {
                ServiceState::Up
            } else {
                ServiceState::Down
            },
            traffic: traffic.into(),
            dropped: traffic.dropped,
            sessions: if is_counted {
                Sessions::counted(backends.iter().map(|backend| backend.sessions.count).sum())
            } else {
                Sessions::estimated(traffic.into())
            },
            slots: self.slots(&service.key()),
            mqtt: self.mqtt(service),
            guard: self.guard(service),
            backends,
        }
    }

    /// What was read of the payload, if any is.
    fn mqtt(&self, service: &Service) -> Option<MqttStatus> {
        let id = self.image.services.get(&service.key())?.id;
        (service.protocol() == Protocol::Mqtt).then(|| {
            let packets = readable(self.ledger.mqtt_packets(id, &self.maps));
            let longest = readable(self.maps.longest_keep_alive(id));
            MqttStatus::new(
                packets,
                longest,
                longest_waited_for(service),
                records_all(service.balance(), service.forward()),
            )
        })
    }

    fn guard(&self, service: &Service) -> GuardStatus {
        let counts = readable(self.ledger.guard(service.key(), &self.maps));
        let access = service.guard().access();
        let image = self.image.services.get(&service.key());
        GuardStatus {
            access_entries: access.entries().len() as u64,
            denied: counts.denied,
            source_limited: counts.source_limited,
            service_limited: counts.service_limited,
            challenge: service.guard().challenge().to_string(),
            is_challenging: image.is_some_and(|image| image.features.challenge),
            challenged: counts.challenged,
            answered: counts.answered,
        }
    }

    fn backend(&self, service: &ServiceView<'_>, view: &BackendView<'_>) -> BackendStatus {
        let BackendView {
            backend,
            key,
            id,
            admin,
            weight,
            effective_weight,
            health,
            held,
            evacuated,
            reason,
            next_hop,
            share,
        } = view;
        let account = Account {
            service: service.service.key(),
            address: Ip::from(backend.address()),
            port: backend.port(),
        };
        let traffic = readable(self.ledger.backend(account, &self.maps));
        let drain = (*admin == Admin::Draining).then(|| self.drain(&service.service.key(), *id));
        let counted = match drain {
            Some(drain) if drain.left_exact => self.recorded(*id).map(|sessions| sessions.live),
            Some(_) => None,
            None => self.counted(&service.service.key(), *id),
        };
        BackendStatus {
            name: backend.name().to_owned(),
            address: backend.address().to_string(),
            port: backend.port(),
            weight: *weight,
            effective_weight: *effective_weight,
            max_connections: backend.max_connections(),
            admin: *admin,
            leaving: backend.is_leaving(),
            health: (*health).into(),
            held: *held,
            evacuated: *evacuated,
            reason: reason.map(str::to_owned),
            next_hop: next_hop.map(mac),
            share: *share,
            traffic: traffic.into(),
            dropped: traffic.dropped,
            sessions: counted
                .map_or_else(|| Sessions::estimated(traffic.into()), Sessions::counted),
            drain,
            probe: self.probes.get(key).copied().unwrap_or_default(),
        }
    }
}

/// A status without counters still tells the rest.
fn readable<T: Default>(counters: anyhow::Result<T>) -> T {
    counters.unwrap_or_else(|error| {
        warn!(error = format!("{error:#}"), "counters cannot be read");
        T::default()
    })
}

fn mac(next_hop: NextHop) -> String {
    let [a, b, c, d, e, f] = next_hop.mac;
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
}

const fn balance(balance: Balance) -> &'static str {
    match balance {
        Balance::Maglev => "maglev",
        Balance::RoundRobin => "round_robin",
        Balance::LeastConn => "least_conn",
        Balance::Source => "source",
    }
}

const fn forward(forward: Forward) -> &'static str {
    match forward {
        Forward::Dsr => "dsr",
        Forward::Nat => "nat",
        Forward::Tunnel => "tunnel",
    }
}
