//! Steps applied one by one to a model of the maps, with packets under way at any moment.

use std::collections::BTreeMap;
use std::sync::Arc;

use lb_common::abi::{
    Backend, BackendId, Balance, Forward, GENERATIONS, Ip, NatPool, Service, ServiceId, ServiceKey,
    TABLE_LINES,
};
use proptest::prelude::*;

use super::{DesiredBackend, DesiredService, backend, desired, hop, key, lender, next, service};
use crate::core::image::{MapImage, MapOp, Setting, Table};
use crate::core::plan::{Desired, diff};

/// The maps, and what packets that are under way have read from them.
#[derive(Default)]
struct Maps {
    services: BTreeMap<ServiceKey, Service>,
    backends: BTreeMap<BackendId, Backend>,
    tables: BTreeMap<(ServiceId, u32), Arc<Table>>,
    nat_pool: Option<NatPool>,
    /// Service entries that a packet may still be using, with the tables as they were.
    in_use: Vec<(Service, Option<Arc<Table>>)>,
}

impl Maps {
    fn apply(&mut self, op: &MapOp) {
        match op.clone() {
            MapOp::Set(Setting::NatPool(pool)) => self.nat_pool = Some(*pool),
            MapOp::Set(Setting::TunnelSources(_) | Setting::Rates(..) | Setting::OwnMac(_))
            | MapOp::SetAccess(..)
            | MapOp::RemoveAccess(..) => {}
            MapOp::SetBackend(id, backend) => {
                let old = self.backends.insert(id, backend);
                let epoch = old.map(|old| old.epoch());
                assert!(
                    epoch.is_none_or(|old| old == backend.epoch()),
                    "id changed hands"
                );
            }
            MapOp::WriteTable {
                service,
                generation,
                table,
            } => {
                self.tables.insert((service, generation), table);
            }
            MapOp::SetService(key, service) => {
                self.services.insert(key, service);
                self.in_use.push((service, self.table(&service)));
            }
            MapOp::RemoveService(key) => {
                self.services
                    .remove(&key)
                    .expect("only what is there is removed");
            }
            MapOp::AwaitGracePeriod => {
                let current = self.services.values();
                self.in_use = current
                    .map(|service| (*service, self.table(service)))
                    .collect();
            }
            MapOp::RemoveBackend(id) => {
                self.backends
                    .remove(&id)
                    .expect("only what is there is removed");
            }
        }
    }

    fn table(&self, service: &Service) -> Option<Arc<Table>> {
        let generation = service.table() / TABLE_LINES % GENERATIONS;
        self.tables.get(&(service.id(), generation)).cloned()
    }

    /// Whether every packet finds a whole table of backends that are there.
    fn check(&self) {
        for (service, table_when_read) in &self.in_use {
            if !service.has_backends() {
                continue;
            }
            let table = self.table(service).expect("an active table was written");
            let when_read = table_when_read
                .as_ref()
                .expect("an active table was written");
            assert!(
                Arc::ptr_eq(&table, when_read),
                "a table changed while it was read"
            );
            assert_eq!(table.ring.len(), usize::from(service.ring_length()));
            for owner in table.weights.keys() {
                let backend = self.backends.get(owner).expect("an owner is there");
                assert!(backend.is_serving() && backend.service() == service.id());
            }
        }
    }

    /// Whether everything fits into maps of the desired limits, with a marker for each service.
    fn check_room(&self) {
        let limits = desired(&[]).limits;
        assert!(self.services.len() <= 2 * limits.services as usize);
        assert!(
            self.tables
                .keys()
                .all(|(id, _)| u32::from(id.0) < limits.services)
        );
        assert!(
            self.backends
                .keys()
                .all(|id| u32::from(id.0) < limits.backends)
        );
    }

    /// Whether the maps hold what `image` says, and nothing else.
    fn check_equal(&self, image: &MapImage) {
        let markers = image
            .services
            .keys()
            .map(|k| ServiceKey::marker(k.vip(), k.protocol()));
        let mut keys: Vec<ServiceKey> = image.services.keys().copied().chain(markers).collect();
        keys.sort_unstable();
        keys.dedup();
        assert!(self.services.keys().eq(&keys));
        for (key, expected) in &image.services {
            let entry = self.services[key];
            assert_eq!((entry.id(), entry.is_marker()), (expected.id, false));
            assert_eq!(entry.is_nat(), expected.forward == Forward::Nat);
            assert_eq!(
                entry.is_round_robin(),
                expected.balance == Balance::RoundRobin
            );
            if !expected.table.slots.is_empty() {
                assert!(Arc::ptr_eq(&self.table(&entry).unwrap(), &expected.table));
            }
        }
        assert!(self.backends.keys().eq(image.backends.keys()));
        for (id, expected) in &image.backends {
            let entry = &self.backends[id];
            assert_eq!(
                (*entry.address(), entry.epoch()),
                (expected.address, expected.epoch)
            );
            assert_eq!(entry.next_hop(), expected.next_hop);
            assert_eq!(entry.service(), expected.service);
        }
        assert_eq!(self.nat_pool.unwrap_or(NatPool::EMPTY), image.nat_pool);
    }
}

/// Goes from `old` to `new` by steps that are each safe.
fn walk(maps: &mut Maps, old: &MapImage, new: &MapImage) {
    for op in diff(old, new) {
        maps.apply(&op);
        maps.check();
        maps.check_room();
        for key in old
            .services
            .keys()
            .filter(|key| new.services.contains_key(key))
        {
            assert!(maps.services.contains_key(key), "a service went missing");
        }
    }
    maps.check_equal(new);
}

/// Backends that take packets, and some that fell.
fn backends() -> impl Strategy<Value = [Vec<DesiredBackend>; 2]> {
    let candidates: Vec<u8> = (20..24).collect();
    let chosen = prop::sample::subsequence(candidates, 0..=2);
    let details = (
        0_u16..4,
        prop::option::of(1_u8..3),
        prop::bool::weighted(0.3),
    );
    let details = prop::collection::vec(details, 2);
    (chosen, details).prop_map(|(chosen, details)| {
        let mut backends = [Vec::new(), Vec::new()];
        for (last, (weight, mac, fell)) in chosen.into_iter().zip(details) {
            backends[usize::from(fell)].push(DesiredBackend {
                next_hop: mac.and_then(hop),
                ..backend(last, weight)
            });
        }
        backends
    })
}

fn services() -> impl Strategy<Value = Vec<DesiredService>> {
    let chosen = prop::sample::subsequence(vec![0_u16, 1, 2, 3], 0..=3);
    let down = prop::option::of(30_u8..32);
    let details = prop::collection::vec((backends(), down, any::<bool>()), 3);
    (chosen, details).prop_map(|(chosen, details)| {
        let pairs = chosen.into_iter().zip(details);
        let describe =
            |(n, ([backends, fallen], down, flip)): (u16, ([Vec<_>; 2], Option<u8>, bool))| {
                let mut service = service(n, &backends);
                let places = fallen.iter().map(|fell| (fell.address, fell.port));
                service.fallen.extend(places);
                service.lenders.extend(down.map(lender));
                if flip {
                    (service.balance, service.forward) = (Balance::RoundRobin, Forward::Nat);
                }
                service
            };
        pairs.map(describe).collect()
    })
}

pub(super) fn wishes() -> impl Strategy<Value = Vec<Desired>> {
    let wish = (services(), any::<u8>()).prop_map(|(services, port)| Desired {
        nat_pool: NatPool::new(
            &[Ip::from_v4([10, 0, 0, 1])],
            1024 + u16::from(port % 2),
            2048,
        ),
        ..desired(&services)
    });
    prop::collection::vec(wish, 1..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_packet_ever_meets_half_a_change(wishes in wishes()) {
        let mut maps = Maps::default();
        let mut image = MapImage::empty();
        for wish in &wishes {
            let following = next(&image, wish);
            walk(&mut maps, &image, &following);
            image = following;
        }
    }

    #[test]
    fn two_steps_reach_what_is_desired(wishes in wishes()) {
        let mut image = MapImage::empty();
        for wish in &wishes {
            image = next(&next(&image, wish), wish);
            prop_assert_eq!(&next(&image, wish), &image);
            let wanted: usize = wish.services.iter().map(|service| service.backends.len()).sum();
            prop_assert_eq!(image.backends.len(), wanted);
            for service in &wish.services {
                let installed = &image.services[&service.key];
                let takes_none = installed.table.weights.is_empty();
                let takers = service.backends.iter().filter(|backend| backend.weight > 0);
                prop_assert_eq!(installed.table.weights.len(), takers.count());
                let may_own = |o: &BackendId| installed.table.weights.contains_key(o)
                    || (takes_none && *o == BackendId::NONE);
                prop_assert!(installed.table.slots.iter().all(may_own));
                prop_assert!(installed.table.ring.iter().all(|o| installed.table.weights.contains_key(o)));
            }
        }
    }

    #[test]
    fn nothing_desired_leaves_nothing(wishes in wishes()) {
        let mut image = MapImage::empty();
        for wish in &wishes {
            image = next(&image, wish);
        }
        let mut maps = Maps::default();
        walk(&mut maps, &MapImage::empty(), &image);
        let empty = next(&image, &Desired { nat_pool: image.nat_pool, ..desired(&[]) });
        walk(&mut maps, &image, &empty);
        prop_assert!(maps.services.is_empty() && maps.backends.is_empty());
    }

    #[test]
    fn equal_images_need_no_step(wishes in wishes()) {
        let mut image = MapImage::empty();
        for wish in &wishes {
            image = next(&image, wish);
        }
        prop_assert_eq!(diff(&image, &image), []);
    }
}

#[test]
fn marker_goes_with_the_last_service_of_its_vip_and_protocol() {
    let two = desired(&[service(0, &[]), service(2, &[])]);
    let one = desired(&[service(2, &[])]);
    let before = next(&MapImage::empty(), &two);
    let ops = diff(&before, &next(&before, &one));
    let (tcp, udp) = (key(0), key(2));
    assert!(ops.contains(&MapOp::RemoveService(ServiceKey::marker(
        tcp.vip(),
        tcp.protocol()
    ))));
    assert!(!ops.contains(&MapOp::RemoveService(ServiceKey::marker(
        udp.vip(),
        udp.protocol()
    ))));
}
