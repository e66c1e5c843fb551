//! Answers what becomes of a client's packets, from what the maps hold.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use lb_common::{
    abi::{BackendId, FlowKey, Ip, ServiceId, ServiceKey},
    flow::HashKeys,
};

use super::{engine::Engine, maps::Maps};
use crate::{
    config::model::{Backend, Service},
    control::{
        FlowTrace, PathTrace, ServiceTrace, ThenTrace, Trace, TraceError, TraceOrder, WhatIf,
    },
    core::{
        balancer::{Admin, Balancer},
        image::MapImage,
        plan,
        trace::{self, Client, Fate, Goal, GuardMemory, Path, RecordedFlow, Scene, Segment},
    },
    io::datapath::Datapath,
};

/// Flows of one address that are told of: behind a gateway there may be many.
const MOST: usize = 100;

/// How often the plan may ask for another round.
const ROUNDS: usize = 4;

/// What answers need of the kernel's maps.
pub(super) trait Records {
    /// The secret of the flow hash.
    fn hash_keys(&self) -> HashKeys;
    /// What the guard of a service remembers of a client.
    fn guard_memory(&self, client: Ip, id: ServiceId) -> anyhow::Result<GuardMemory>;
    /// The record of a flow.
    fn flow(&self, key: &FlowKey) -> anyhow::Result<Option<RecordedFlow>>;
    /// Recorded flows of a client, `most` at most.
    fn flows_of(&self, client: Ip, most: usize) -> anyhow::Result<Vec<RecordedFlow>>;
}

impl Records for Datapath {
    fn hash_keys(&self) -> HashKeys {
        Self::hash_keys(self)
    }

    fn guard_memory(&self, client: Ip, id: ServiceId) -> anyhow::Result<GuardMemory> {
        Ok(Self::guard_memory(self, client, id)?)
    }

    fn flow(&self, key: &FlowKey) -> anyhow::Result<Option<RecordedFlow>> {
        Ok(Self::flow(self, key)?)
    }

    fn flows_of(&self, client: Ip, most: usize) -> anyhow::Result<Vec<RecordedFlow>> {
        Ok(Self::flows_of(self, client, most)?)
    }
}

/// What is decided from, and what would be.
struct Outlook<'a> {
    client: IpAddr,
    port: Option<u16>,
    now: Scene<'a>,
    then: Option<Scene<'a>>,
}

impl<M: Maps + Records> Engine<M> {
    /// What becomes of a client's packets on `interface`.
    ///
    /// # Errors
    /// If the order names what there is not, or the flow tables cannot be read.
    pub(super) fn trace(&self, order: &TraceOrder, interface: u32) -> Result<Trace, TraceError> {
        let services = self.traced(order)?;
        let supposed = self.suppose(&order.what_if)?;
        let (records, truncated) = self.records(order, &services)?;
        let (keys, image) = (self.maps.hash_keys(), &self.image);
        let guards = self.guards(order, &services)?;
        let full = self.full().map_err(TraceError::Tables)?;
        let now_names = names(&self.balancer, image);
        let then_names = supposed
            .as_ref()
            .map(|(balancer, image)| names(balancer, image));
        let scene = |image, names| Scene {
            image,
            keys,
            interface,
            names,
            guards: &guards,
            full: &full,
        };
        let outlook = Outlook {
            client: order.client,
            port: order.port,
            now: scene(image, &now_names),
            then: match (&supposed, &then_names) {
                (Some((_, image)), Some(names)) => Some(scene(image, names)),
                _ => None,
            },
        };
        Ok(Trace {
            client: order.client,
            port: order.port,
            what_if: order.what_if.clone(),
            services: services
                .iter()
                .map(|service| outlook.service(service, &records))
                .collect(),
            truncated,
        })
    }

    /// The services that are asked about.
    fn traced(&self, order: &TraceOrder) -> Result<Vec<&Service>, TraceError> {
        let services = self.balancer.config().services();
        let Some(name) = &order.service else {
            let is_v4 = order.client.is_ipv4();
            let of_family = services.iter().filter(|s| s.vip().is_ipv4() == is_v4);
            return Ok(of_family.collect());
        };
        let found = services.iter().find(|service| service.name() == name);
        found.map(|service| vec![service]).ok_or_else(|| {
            let known = services.iter().map(|service| service.name().to_owned());
            TraceError::UnknownService {
                name: name.clone(),
                known: known.collect(),
            }
        })
    }

    /// What would be decided from after the supposed changes, by the planner that makes real ones.
    fn suppose(&self, what_if: &[WhatIf]) -> Result<Option<(Balancer, MapImage)>, TraceError> {
        if what_if.is_empty() {
            return Ok(None);
        }
        let mut balancer = self.balancer.clone();
        for change in what_if {
            let key = balancer.select(change.backend())?;
            match *change {
                WhatIf::Down(_) => balancer.assume_down(&key),
                _ if balancer.is_leaving(&key) => {
                    let backend = key.to_string();
                    return Err(TraceError::Leaving { backend });
                }
                WhatIf::Drained(_) => balancer.set_admin(&key, Admin::Draining),
                WhatIf::Weight { weight, .. } if weight > Backend::MAX_WEIGHT => {
                    let max = Backend::MAX_WEIGHT;
                    return Err(TraceError::Weight { weight, max });
                }
                WhatIf::Weight { weight, .. } => balancer.set_weight(&key, weight),
            }
        }
        let desired = balancer.desired();
        let mut image = self.image.clone();
        for _ in 0..ROUNDS {
            let next = plan::next(&image, &desired, self.moment());
            if next == image {
                break;
            }
            image = next;
        }
        Ok(Some((balancer, image)))
    }

    /// The backends that take no flow more, whatever they are asked.
    fn full(&self) -> anyhow::Result<BTreeSet<BackendId>> {
        let limited = self.image.backends.iter().filter(|(_, it)| it.limit > 0);
        let open = limited.map(|(id, backend)| Ok((*id, backend, self.maps.open_flows(*id)?)));
        let open: Vec<_> = open.collect::<anyhow::Result<_>>()?;
        let full = open
            .into_iter()
            .filter(|(_, it, open)| *open >= u64::from(it.limit));
        Ok(full.map(|(id, ..)| id).collect())
    }

    /// What the guards of services remember of the client.
    fn guards(
        &self,
        order: &TraceOrder,
        services: &[&Service],
    ) -> Result<BTreeMap<ServiceKey, GuardMemory>, TraceError> {
        let client = Ip::from(order.client);
        let installed = services.iter().filter_map(|service| {
            let key = service.key();
            Some((key, self.image.services.get(&key)?.id))
        });
        let memories = installed.map(|(key, id)| Ok((key, self.maps.guard_memory(client, id)?)));
        let memories: anyhow::Result<_> = memories.collect();
        memories.map_err(TraceError::Tables)
    }

    /// What the flow tables hold of the client, and whether they may hold more.
    fn records(
        &self,
        order: &TraceOrder,
        services: &[&Service],
    ) -> Result<(Vec<RecordedFlow>, bool), TraceError> {
        let client = Ip::from(order.client);
        let Some(port) = order.port else {
            let found = self.maps.flows_of(client, MOST);
            let found = found.map_err(TraceError::Tables)?;
            let truncated = found.len() >= MOST;
            return Ok((found, truncated));
        };
        let look = |service: &&Service| {
            let key = trace::key(client, port, &service.key());
            self.maps.flow(&key).transpose()
        };
        let found: anyhow::Result<_> = services.iter().filter_map(look).collect();
        Ok((found.map_err(TraceError::Tables)?, false))
    }
}

impl Outlook<'_> {
    fn service(&self, service: &Service, records: &[RecordedFlow]) -> ServiceTrace {
        let key = service.key();
        let of_service = || records.iter().filter(|record| record.key.service() == key);
        let client = Ip::from(self.client);
        let flows = match self.port {
            Some(port) => {
                let record = of_service().next();
                let flow = Client::Flow(trace::key(client, port, &key));
                vec![self.flow(flow, Some(port), record, Segment::Later)]
            }
            None => of_service()
                .map(|record| {
                    let port = Some(record.key.source_port());
                    self.flow(Client::Flow(record.key), port, Some(record), Segment::Later)
                })
                .collect(),
        };
        let whole = trace::key(client, self.port.unwrap_or_default(), &key);
        let (new, record) = match self.port {
            Some(_) => (Client::Flow(whole), of_service().next()),
            None => (Client::Address(whole), None),
        };
        ServiceTrace {
            name: service.name().to_owned(),
            vip: service.vip(),
            port: service.port(),
            protocol: service.protocol().to_string(),
            flows,
            new: self.flow(new, self.port, record, Segment::First),
        }
    }

    fn flow(
        &self,
        client: Client,
        port: Option<u16>,
        record: Option<&RecordedFlow>,
        segment: Segment,
    ) -> FlowTrace {
        let now = self.now.follow(client, record, segment);
        let then = self.then.map(|scene| {
            let then = scene.follow(client, record, segment);
            ThenTrace {
                fate: Fate::between(&now, &then).label().to_owned(),
                path: told(&scene, &then),
            }
        });
        FlowTrace {
            port,
            recorded: record.is_some(),
            path: told(&self.now, &now),
            then,
        }
    }
}

fn told(scene: &Scene<'_>, path: &Path) -> PathTrace {
    let name = |id: &BackendId| scene.names.get(id).cloned();
    let names = match &path.goal {
        Goal::Backend(id) => name(id).into_iter().collect(),
        Goal::AnyOf(ids) => ids.iter().filter_map(name).collect(),
        Goal::Nobody => Vec::new(),
    };
    PathTrace::new(path, names)
}

/// What the configuration calls the backends of an image.
fn names(balancer: &Balancer, image: &MapImage) -> BTreeMap<BackendId, String> {
    let index = image.backend_index();
    let named = balancer
        .config()
        .backends()
        .filter_map(|(service, backend)| {
            let installed = image.services.get(&service.key())?;
            let address = Ip::from(backend.address());
            let id = index.get(&(installed.id, address, backend.port()))?;
            Some((*id, backend.name().to_owned()))
        });
    named.collect()
}
