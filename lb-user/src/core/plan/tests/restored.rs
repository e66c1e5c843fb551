//! What another process makes of the maps, after any history, and after half of a change.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use lb_common::abi::{
    Access, Backend, BackendId, Features, GENERATIONS, Ip, NatPool, Rate, Rates, Service,
    ServiceId, ServiceKey, TABLE_LINES, Tick, TunnelSources,
};
use proptest::prelude::*;

use super::simulation::wishes;
use super::{backend, desired, hop, key, lender, service};
use crate::config::model::{AccessList, Prefix};
use crate::core::image::{MapImage, MapOp, ServiceImage, Setting, Table};
use crate::core::plan::{self, Desired, Moment, diff};
use crate::core::restore::{self, Contents, Entries};
use crate::core::slots::State;

/// The maps, as the kernel has them.
#[derive(Clone, Default)]
struct Maps {
    services: BTreeMap<ServiceKey, Service>,
    backends: BTreeMap<BackendId, Backend>,
    tables: BTreeMap<(ServiceId, u32), Arc<Table>>,
    notes: BTreeMap<(ServiceId, u32), Tick>,
    rates: BTreeMap<ServiceId, Rates>,
    access: BTreeMap<ServiceId, BTreeMap<Prefix, Access>>,
    nat_pool: Option<NatPool>,
}

impl Maps {
    fn apply(&mut self, op: MapOp) {
        match op {
            MapOp::Set(Setting::NatPool(pool)) => self.nat_pool = Some(*pool),
            MapOp::Set(Setting::Rates(id, rates)) => drop(self.rates.insert(id, rates)),
            MapOp::Set(Setting::TunnelSources(_) | Setting::OwnMac(_))
            | MapOp::AwaitGracePeriod => {}
            MapOp::SetAccess(id, entries) => self.access.entry(id).or_default().extend(entries),
            MapOp::RemoveAccess(id, prefixes) => {
                let list = self.access.entry(id).or_default();
                list.retain(|prefix, _| !prefixes.contains(prefix));
            }
            MapOp::SetBackend(id, backend) => drop(self.backends.insert(id, backend)),
            MapOp::RemoveBackend(id) => {
                let entry = self.backends[&id];
                self.backends.insert(id, entry.retired());
            }
            MapOp::WriteTable {
                service,
                generation,
                table,
            } => {
                let until = table.holds.until();
                let at = (service, generation);
                self.notes.remove(&at);
                self.notes.extend(until.map(|until| (at, until)));
                self.tables.insert((service, generation), table);
            }
            MapOp::SetService(key, service) => drop(self.services.insert(key, service)),
            MapOp::RemoveService(key) => drop(self.services.remove(&key)),
        }
    }

    /// Goes from one image to the next.
    fn walk(&mut self, old: &MapImage, new: &MapImage) {
        diff(old, new).into_iter().for_each(|op| self.apply(op));
    }

    fn contents(&self) -> Contents {
        let active = |entry: &Service| {
            let generation = entry.table() / TABLE_LINES % GENERATIONS;
            let table = self.tables.get(&(entry.id(), generation))?;
            let slots = table.entries().collect();
            let ring = table.ring.clone();
            Some((entry.id(), Entries { slots, ring }))
        };
        let own = self.services.values().filter(|entry| !entry.is_marker());
        let noted = |entry: &Service| {
            let until = self.notes.get(&(entry.id(), entry.generation()))?;
            Some((entry.id(), *until))
        };
        Contents {
            services: self.services.clone(),
            backends: self.backends.clone(),
            tables: own.clone().filter_map(active).collect(),
            learning: own.filter_map(noted).collect(),
            rates: self.rates.clone(),
            access: self.access.clone(),
            nat_pool: self.nat_pool.unwrap_or(NatPool::EMPTY),
            tunnel_sources: TunnelSources::EMPTY,
        }
    }

    /// What another process begins with.
    fn restore(&mut self, now: Tick) -> MapImage {
        let contents = self.contents();
        let (missing, stray) = restore::markers(&contents.services);
        for key in missing {
            self.apply(MapOp::SetService(key, Service::marker()));
        }
        for key in stray {
            self.apply(MapOp::RemoveService(key));
        }
        for (id, prefixes) in restore::unheard(&contents) {
            self.apply(MapOp::RemoveAccess(id, prefixes));
        }
        restore::image(&contents, now)
    }
}

/// A slot by addresses: its owner, whom unknown flows are taken for if that is somebody else, and
/// whether it is safe.
type SlotBy = (Option<Ip>, Option<Option<Ip>>, bool);

fn owners(image: &MapImage, service: &ServiceImage) -> Vec<SlotBy> {
    let address = |id: BackendId| Some(image.backends.get(&id)?.address);
    let slots = (0..).zip(&service.table.slots);
    slots
        .map(|(slot, &owner)| match service.table.holds.get(slot) {
            State::Safe => (address(owner), None, true),
            State::Mixed => (address(owner), None, false),
            State::AtRisk { previous, .. } => (address(owner), Some(address(previous)), false),
        })
        .collect()
}

/// The slots of all services; none where all are safe and nobody's, which is what no table means.
fn all_owners(image: &MapImage) -> BTreeMap<ServiceKey, Vec<SlotBy>> {
    let services = image.services.iter();
    let slots = services.map(|(&key, service)| (key, owners(image, service)));
    slots
        .map(|(key, mut slots)| {
            if slots.iter().all(|slot| *slot == (None, None, true)) {
                slots.clear();
            }
            (key, slots)
        })
        .collect()
}

const SECOND: u64 = 1_000_000_000;

/// The same wishes with windows, each some seconds after the one before.
fn in_time(wishes: &[Desired]) -> Vec<(Desired, Moment)> {
    let moments = (1..).map(|at| Moment::at(Tick::from_nanos(at * 40 * SECOND)));
    let windowed = wishes.iter().cloned().map(|mut wish| {
        for service in &mut wish.services {
            service.window = Duration::from_secs(90);
        }
        wish
    });
    windowed.zip(moments).collect()
}

/// The same wishes with more ids than are ever in use or kept. What was read back keeps ids for
/// backends that will not return, so with few of them new ones may have to wait for a step.
fn with_spare_ids(mut wishes: Vec<(Desired, Moment)>) -> Vec<(Desired, Moment)> {
    for (wish, _) in &mut wishes {
        wish.limits.backends = 1000;
    }
    wishes
}

/// What follows, when it has converged.
fn settled(image: &MapImage, (wish, moment): &(Desired, Moment)) -> MapImage {
    (0..4).fold(image.clone(), |image, _| plan::next(&image, wish, *moment))
}

/// Goes on to what is wanted, step by step; returns what is there then.
fn go_on(maps: &mut Maps, image: &MapImage, (wish, moment): &(Desired, Moment)) -> MapImage {
    (0..4).fold(image.clone(), |image, _| {
        let next = plan::next(&image, wish, *moment);
        maps.walk(&image, &next);
        next
    })
}

/// Whether the maps hold what `image` says.
fn check_equal(maps: &Maps, image: &MapImage) {
    let markers = image.services.keys();
    let markers = markers.map(|key| ServiceKey::marker(key.vip(), key.protocol()));
    let mut keys: Vec<ServiceKey> = image.services.keys().copied().chain(markers).collect();
    keys.sort_unstable();
    keys.dedup();
    assert!(
        maps.services.keys().eq(&keys),
        "a service or marker too many"
    );
    for (key, service) in &image.services {
        let entry = maps.services[key];
        assert_eq!(
            (entry.id(), entry.generation()),
            (service.id, service.generation)
        );
        if !service.table.slots.is_empty() {
            assert_eq!(
                maps.tables[&(service.id, service.generation)],
                service.table
            );
        }
    }
    let serving = maps.backends.iter().filter(|(_, entry)| entry.is_serving());
    assert!(serving.map(|(id, _)| id).eq(image.backends.keys()));
    for (id, backend) in &image.backends {
        assert_eq!(maps.backends[id].epoch(), backend.epoch);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn the_picture_is_the_one_that_was(wishes in wishes()) {
        let (mut maps, mut image) = (Maps::default(), MapImage::empty());
        for wish in &in_time(&wishes) {
            image = go_on(&mut maps, &image, wish);
            let restored = maps.restore(wish.1.now);
            prop_assert_eq!(&restored.backends, &image.backends);
            prop_assert_eq!(&restored.epochs, &image.epochs);
            prop_assert_eq!(restored.nat_pool, image.nat_pool);
            prop_assert_eq!(all_owners(&restored), all_owners(&image));
            for (key, service) in &image.services {
                let restored = &restored.services[key];
                prop_assert_eq!(restored.table.holds.until(), service.table.holds.until());
                prop_assert_eq!(&restored.table.ring, &service.table.ring);
                prop_assert_eq!(&restored.table.weights, &service.table.weights);
                let of = |it: &ServiceImage| (it.id, it.generation, it.balance, it.forward, it.features);
                prop_assert_eq!(of(restored), of(service));
            }
            for (id, fallen) in &image.fallen {
                let kept = restored.fallen[id];
                prop_assert_eq!((kept.address, kept.epoch), (fallen.address, fallen.epoch));
                prop_assert!(kept.until >= fallen.until);
            }
        }
    }

    #[test]
    fn going_on_from_it_is_going_on(wishes in wishes()) {
        let (mut maps, mut image) = (Maps::default(), MapImage::empty());
        for wish in &with_spare_ids(in_time(&wishes)) {
            let restored = maps.restore(wish.1.now);
            let other = settled(&restored, wish);
            image = go_on(&mut maps, &image, wish);
            prop_assert_eq!(all_owners(&other), all_owners(&image));
        }
    }

    #[test]
    fn half_a_change_moves_no_session(wishes in wishes(), done in any::<prop::sample::Index>()) {
        let wishes = in_time(&wishes);
        let (last, before) = wishes.split_last().unwrap();
        let (mut maps, mut image) = (Maps::default(), MapImage::empty());
        for wish in before {
            image = go_on(&mut maps, &image, wish);
        }
        let steps = diff(&image, &plan::next(&image, &last.0, last.1));
        let done = done.index(steps.len() + 1);
        steps.into_iter().take(done).for_each(|step| maps.apply(step));

        let found = maps.restore(last.1.now);
        let end = go_on(&mut maps, &found, last);
        check_equal(&maps, &end);
        prop_assert_eq!(all_owners(&settled(&end, last)), all_owners(&end));
        for (key, service) in &end.services {
            let Some(was) = found.services.get(key) else { continue };
            // What records every flow needs no slot to find it.
            if service.records_all() || was.records_all() {
                continue;
            }
            let pairs = owners(&found, was).into_iter().zip(owners(&end, service));
            for ((owner, waits, _), (new_owner, new_waits, is_safe)) in pairs {
                let unknown = waits.unwrap_or(owner);
                let lives = |address: &Ip| {
                    end.backends.values().any(|it| it.service == service.id && it.address == *address)
                };
                if let Some(unknown) = unknown.filter(lives) {
                    let goes_to = new_waits.unwrap_or(new_owner);
                    prop_assert_eq!(goes_to, Some(unknown), "unknown flows moved");
                }
                if waits.is_some() && owner != new_owner {
                    prop_assert!(!is_safe, "records are not looked for");
                }
            }
        }
    }
}

#[test]
fn what_a_service_does_besides_is_read_back() {
    let prefix = Prefix::new([10, 0, 0, 0].into(), 8).unwrap();
    let guarded = super::DesiredService {
        features: Features {
            mqtt: true,
            access_list: true,
            default_deny: true,
            rates: true,
            challenge: false,
        },
        rates: Rates {
            service: Rate::new(100, 10),
            source: Rate::NONE,
        },
        access: Arc::new(AccessList::new([(prefix, Access::Allow)].into(), true)),
        ..service(0, &[backend(20, 1)])
    };
    let wish = (desired(std::slice::from_ref(&guarded)), Moment::at(Tick(5)));
    let mut maps = Maps::default();
    let image = go_on(&mut maps, &MapImage::empty(), &wish);
    let restored = maps.restore(Tick(5));
    let found = &restored.services[&key(0)];
    assert_eq!(found.access, guarded.access);
    assert_eq!(
        (found.rates, found.features),
        (guarded.rates, guarded.features)
    );
    let next = plan::next(&restored, &wish.0, wish.1);
    let needed = diff(&restored, &next);
    assert!(
        !needed
            .iter()
            .any(|op| matches!(op, MapOp::SetAccess(..) | MapOp::Set(_))),
        "{needed:?}"
    );
    assert_eq!(restored.backends, image.backends);
}

#[test]
fn a_window_runs_on() {
    let two = |weights: [u16; 2]| {
        let mut service = service(0, &[backend(20, weights[0]), backend(21, weights[1])]);
        service.window = Duration::from_secs(60);
        desired(&[service])
    };
    let mut maps = Maps::default();
    let first = (two([1, 1]), Moment::at(Tick(100)));
    let image = go_on(&mut maps, &MapImage::empty(), &first);
    let second = (two([1, 0]), Moment::at(Tick(200)));
    let image = go_on(&mut maps, &image, &second);
    let until = image.services[&key(0)].table.holds.until().unwrap();
    // A minute that has nearly gone by, and a configuration that asks for less.
    let restored = maps.restore(Tick(250));
    assert_eq!(restored.services[&key(0)].table.holds.until(), Some(until));
    let mut shorter = two([1, 0]);
    shorter.services[0].window = Duration::from_secs(1);
    let next = plan::next(&restored, &shorter, Moment::at(Tick(250)));
    assert_eq!(next.services[&key(0)].table.holds.until(), Some(until));
}

/// Killed in the middle of writing one that has nothing at risk.
#[test]
fn a_table_that_is_not_in_force_yet_ends_no_window() {
    let two = |weights: [u16; 2]| {
        let mut service = service(0, &[backend(20, weights[0]), backend(21, weights[1])]);
        service.window = Duration::from_secs(60);
        desired(&[service])
    };
    let mut maps = Maps::default();
    let image = go_on(
        &mut maps,
        &MapImage::empty(),
        &(two([1, 1]), Moment::at(Tick(100))),
    );
    let image = go_on(&mut maps, &image, &(two([1, 0]), Moment::at(Tick(200))));
    let until = image.services[&key(0)].table.holds.until();
    assert!(until.is_some());
    let back = plan::next(&image, &two([1, 1]), Moment::at(Tick(210)));
    let steps = diff(&image, &back).into_iter();
    let written = steps.take_while(|step| !matches!(step, MapOp::SetService(..)));
    written.for_each(|step| maps.apply(step));
    let restored = maps.restore(Tick(220));
    assert_eq!(restored.services[&key(0)].table.holds.until(), until);
}

#[test]
fn an_access_list_that_is_nobodys_is_taken_back() {
    let prefix = Prefix::new([10, 0, 0, 0].into(), 8).unwrap();
    let mut maps = Maps::default();
    let wish = (
        desired(&[service(0, &[backend(20, 1)])]),
        Moment::at(Tick(5)),
    );
    let image = go_on(&mut maps, &MapImage::empty(), &wish);
    let (own, nobodys) = (image.services[&key(0)].id, ServiceId(9));
    for id in [own, nobodys] {
        maps.apply(MapOp::SetAccess(id, vec![(prefix, Access::Allow)]));
    }
    maps.restore(Tick(6));
    assert!(maps.access[&nobodys].is_empty());
    assert_eq!(maps.access[&own].len(), 1, "the next image takes it back");
}

#[test]
fn windows_that_stood_still_begin_when_the_node_does_not_stand_by_any_more() {
    let two = |weights: [u16; 2], is_standby| {
        let mut service = service(0, &[backend(20, weights[0]), backend(21, weights[1])]);
        (service.window, service.is_standby) = (Duration::from_secs(60), is_standby);
        desired(&[service])
    };
    let mut maps = Maps::default();
    let first = (two([1, 1], true), Moment::at(Tick(100)));
    let image = go_on(&mut maps, &MapImage::empty(), &first);
    let second = (two([1, 0], true), Moment::at(Tick(200)));
    go_on(&mut maps, &image, &second);
    let restored = maps.restore(Tick(300));
    assert!(restored.services[&key(0)].is_standby);
    let next = plan::next(&restored, &two([1, 0], false), Moment::at(Tick(300)));
    let until = next.services[&key(0)].table.holds.until();
    assert_eq!(until, Some(Tick(300).after(Duration::from_secs(60))));
}

#[test]
fn who_fell_gets_back_what_is_recorded_for_it() {
    let up = desired(&[service(
        0,
        &[super::DesiredBackend {
            next_hop: hop(1),
            ..backend(20, 1)
        }],
    )]);
    let mut fell = service(0, &[]);
    fell.fallen.push((super::ip(20), 1883));
    fell.lenders.push(lender(20));
    let down = (desired(&[fell]), Moment::at(Tick(3)));
    let mut maps = Maps::default();
    let before = go_on(
        &mut maps,
        &MapImage::empty(),
        &(up.clone(), Moment::at(Tick(2))),
    );
    go_on(&mut maps, &before, &down);
    let restored = maps.restore(Tick(4));
    assert!(restored.backends.is_empty());
    let now = Moment::at(Tick(5));
    let waiting = plan::next(&restored, &down.0, now);
    let returned = plan::next(&waiting, &up, now);
    assert_eq!(returned.backends, before.backends);
}

#[test]
fn markers_follow_their_services() {
    let entry = |id| {
        let (balance, forward) = (super::Balance::Maglev, super::Forward::Dsr);
        Service::new(ServiceId(id), 0, 1, balance, forward)
    };
    let (tcp, udp) = (key(0), key(2));
    let marker = |key: ServiceKey| ServiceKey::marker(key.vip(), key.protocol());
    let services = [(tcp, entry(0)), (marker(udp), Service::marker())].into();
    assert_eq!(
        restore::markers(&services),
        (vec![marker(tcp)], vec![marker(udp)])
    );
}
