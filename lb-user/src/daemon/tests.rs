//! The engine over maps that are a plain value.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

mod attacks;
mod draining;
mod inherited;
mod keep_alives;
mod room;
mod scheduling;
mod silence;
mod standby;
mod state;
mod trace;

use anyhow::{Context as _, bail};
use lb_common::{
    abi::{
        Backend, BackendId, Balance, Forward, GuardCounts, MqttPackets, NextHop, Service,
        ServiceId, ServiceKey, Tick, Traffic,
    },
    verdict::Verdict,
};

use super::{engine::Engine, maps::Maps, nat_ports};
use crate::{
    config::{
        self,
        model::{Config, Prefix},
    },
    control::{Change, Health, ServiceState},
    core::{
        admin::AdminState,
        balancer::{Admin, BackendKey},
        health::Question,
        image::{MapOp, Table},
        load::Census,
        trace::RecordedFlow,
    },
    io::probe::ProbeFailure,
    journal::Journal,
};

const A: IpAddr = IpAddr::V4(Ipv4Addr::new(172, 16, 40, 20));
const B: IpAddr = IpAddr::V4(Ipv4Addr::new(172, 16, 40, 21));

const CONFIG: &str = r#"
interface = "eth0"
[[vip]]
address = "172.16.40.24/32"
[[service]]
name = "mqtt"
vip = "172.16.40.24"
port = 1883
balance = "maglev"
forward = "dsr"
check = { type = "tcp", interval = "2s", timeout = "1s", fall = 2, rise = 1 }
backend = [{ name = "a", address = "172.16.40.20" }, { name = "b", address = "172.16.40.21" }]
"#;

/// Maps as a value, whose writes can be made to fail.
#[derive(Default)]
struct FakeMaps {
    services: BTreeMap<ServiceKey, Service>,
    backends: BTreeMap<BackendId, Backend>,
    tables: BTreeMap<(ServiceId, u32), Table>,
    traffic: BTreeMap<BackendId, Traffic>,
    mqtt: MqttPackets,
    access: BTreeSet<(ServiceId, Prefix)>,
    guard: GuardCounts,
    keep_alives: BTreeMap<ServiceId, Duration>,
    flows: Vec<RecordedFlow>,
    now: Tick,
    /// How many steps succeed before all fail.
    good_steps: Option<usize>,
}

impl FakeMaps {
    fn step(&mut self, step: &MapOp) -> anyhow::Result<()> {
        match self.good_steps {
            Some(0) => bail!("no memory"),
            Some(ref mut left) => *left -= 1,
            None => {}
        }
        match step {
            MapOp::SetBackend(id, backend) => drop(self.backends.insert(*id, *backend)),
            MapOp::RemoveBackend(id) => drop(self.backends.remove(id)),
            MapOp::WriteTable {
                service,
                generation,
                table,
            } => {
                let place = (*service, *generation);
                let (balance, forward) = (Balance::Maglev, Forward::Dsr);
                let in_kernel = Service::new(*service, *generation, 1, balance, forward).table();
                let in_force = self
                    .services
                    .values()
                    .any(|entry| entry.has_backends() && entry.table() == in_kernel);
                let is_same = self.tables.get(&place) == Some(&**table);
                assert!(!in_force || is_same, "a table in force is written over");
                self.tables
                    .insert((*service, *generation), (**table).clone());
            }
            MapOp::SetService(key, service) => drop(self.services.insert(*key, *service)),
            MapOp::RemoveService(key) => drop(self.services.remove(key)),
            MapOp::SetAccess(service, entries) => {
                let entries = entries.iter().map(|(prefix, _)| (*service, *prefix));
                self.access.extend(entries);
            }
            MapOp::RemoveAccess(service, prefixes) => {
                for prefix in prefixes {
                    self.access.remove(&(*service, *prefix));
                }
            }
            MapOp::Set(_) | MapOp::AwaitGracePeriod => {}
        }
        Ok(())
    }
}

impl Maps for FakeMaps {
    fn apply(&mut self, steps: &[MapOp]) -> anyhow::Result<()> {
        steps.iter().try_for_each(|step| self.step(step))
    }

    fn correct_load(&mut self, id: BackendId, epoch: u16, census: &Census) -> anyhow::Result<()> {
        let entry = self.backends.get(&id).filter(|it| it.epoch() == epoch);
        let entry = entry.context("no such backend")?;
        let corrected = entry.with_correction(census.correct(entry.correction()));
        self.backends.insert(id, corrected);
        Ok(())
    }

    fn open_flows(&self, id: BackendId) -> anyhow::Result<u64> {
        let entry = self.backends.get(&id).context("no such backend")?;
        Ok(u64::try_from(entry.correction()).unwrap_or(0))
    }

    fn now(&self) -> Tick {
        self.now
    }

    fn verdicts(&self) -> anyhow::Result<BTreeMap<Verdict, u64>> {
        Ok([(Verdict::TxDsr, 1)].into())
    }

    fn backend_traffic(&self, id: BackendId) -> anyhow::Result<Traffic> {
        Ok(self.traffic.get(&id).copied().unwrap_or_default())
    }

    fn service_traffic(&self, _id: ServiceId) -> anyhow::Result<Traffic> {
        Ok(Traffic {
            dropped: 3,
            ..Traffic::default()
        })
    }

    fn mqtt_packets(&self, _id: ServiceId) -> anyhow::Result<MqttPackets> {
        Ok(self.mqtt)
    }

    fn longest_keep_alive(&self, id: ServiceId) -> anyhow::Result<Option<Duration>> {
        Ok(self.keep_alives.get(&id).copied())
    }

    fn raise_keep_alive(&mut self, id: ServiceId, to: Duration) -> anyhow::Result<()> {
        let seen = self.keep_alives.entry(id).or_default();
        *seen = to.max(*seen);
        Ok(())
    }

    fn forget_keep_alive(&mut self, id: ServiceId) -> anyhow::Result<()> {
        let installed = self
            .services
            .values()
            .any(|entry| !entry.is_marker() && entry.id() == id);
        assert!(!installed, "packets are counted for the new user already");
        self.keep_alives.remove(&id);
        Ok(())
    }

    fn guard_counts(&self, _id: ServiceId) -> anyhow::Result<GuardCounts> {
        Ok(self.guard)
    }
}

fn config(text: &str) -> Config {
    config::parse(text, "test.toml").unwrap_or_else(|errors| panic!("{errors}"))
}

fn key(name: &str) -> BackendKey {
    BackendKey::new("mqtt", name)
}

fn next_hop(last: u8) -> NextHop {
    NextHop {
        interface: 2,
        mac: [2, 0, 0, 0, 0, last],
        source_mac: [2; 6],
    }
}

/// An engine whose two backends are up and reachable.
fn running() -> Engine<FakeMaps> {
    up_with(config(CONFIG))
}

fn up_with(config: Config) -> Engine<FakeMaps> {
    let mut engine = Engine::new(
        config,
        AdminState::default(),
        FakeMaps::default(),
        Journal::default(),
    );
    engine.try_reconcile().unwrap();
    for (name, address, last) in [("a", A, 1), ("b", B, 2)] {
        succeed(&mut engine, name);
        engine.handle_next_hop(address, next_hop(last), 1500);
    }
    engine.reconcile();
    engine
}

fn succeed(engine: &mut Engine<FakeMaps>, name: &str) {
    let took = Ok(Duration::from_millis(1));
    engine.handle_probe(&key(name), Question::default(), took);
}

fn refuse(engine: &mut Engine<FakeMaps>, name: &str) {
    let refused = Err(ProbeFailure::ConnectionRefused);
    engine.handle_probe(&key(name), Question::default(), refused);
}

fn fail(engine: &mut Engine<FakeMaps>, name: &str, times: usize) {
    for _ in 0..times {
        refuse(engine, name);
        engine.reconcile();
    }
}

fn id_of(engine: &Engine<FakeMaps>, address: IpAddr) -> BackendId {
    let mut backends = engine.maps.backends.iter();
    let (id, _) = backends
        .find(|(_, backend)| IpAddr::from(*backend.address()) == address)
        .unwrap();
    *id
}

fn count(engine: &mut Engine<FakeMaps>, address: IpAddr, packets: u64) {
    let id = id_of(engine, address);
    engine.maps.traffic.entry(id).or_default().packets += packets;
}

#[test]
fn backend_is_in_the_maps_while_it_is_up() {
    let mut engine = running();
    assert_eq!(engine.maps.backends.len(), 2);
    fail(&mut engine, "a", 1);
    assert_eq!(
        engine.maps.backends.len(),
        2,
        "one failure of two is not a fall"
    );
    fail(&mut engine, "a", 1);
    let left: Vec<_> = engine.maps.backends.values().collect();
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].next_hop(), Some(next_hop(2)));
    let service = &engine.services()[0];
    assert_eq!(service.backends[0].health, Health::Down);
    assert_eq!(
        service.backends[0].reason.as_deref(),
        Some("connection refused")
    );
    assert_eq!(service.state, ServiceState::Up);
}

#[test]
fn service_without_healthy_backend_is_down() {
    let mut engine = running();
    fail(&mut engine, "a", 2);
    fail(&mut engine, "b", 2);
    assert!(
        engine
            .maps
            .services
            .values()
            .all(|service| !service.has_backends())
    );
    assert_eq!(engine.services()[0].state, ServiceState::Down);
    assert_eq!(engine.services_down().collect::<Vec<_>>(), ["mqtt"]);
}

#[test]
fn first_look_ends_when_all_were_asked_and_who_is_up_is_found() {
    let mut engine = Engine::new(
        config(CONFIG),
        AdminState::default(),
        FakeMaps::default(),
        Journal::default(),
    );
    succeed(&mut engine, "a");
    assert!(!engine.has_looked_around(), "b was not asked");
    refuse(&mut engine, "b");
    assert!(!engine.has_looked_around(), "a was not found");
    engine.handle_next_hop(A, next_hop(1), 1500);
    assert!(engine.has_looked_around());
}

#[test]
fn failed_change_is_counted_and_written_anew() {
    let mut engine = running();
    for good_steps in 0..4 {
        engine.maps.good_steps = Some(good_steps);
        fail(&mut engine, "a", 2);
        assert!(engine.counters.apply_errors > 0);
        engine.maps.good_steps = None;
        engine.reconcile();
        assert_eq!(engine.maps.backends.len(), 1, "after {good_steps} steps");
        succeed(&mut engine, "a");
        engine.reconcile();
        assert_eq!(engine.maps.backends.len(), 2);
    }
}

#[test]
fn whoever_asked_for_a_change_is_told_that_it_failed() {
    let mut engine = running();
    engine.maps.good_steps = Some(0);
    engine.handle_change(&key("a"), Change::Admin(Admin::Disabled));
    let error = engine.try_reconcile().unwrap_err();
    assert!(error.to_string().contains("no memory"), "{error:#}");
    assert!(!engine.is_settled());
    engine.maps.good_steps = None;
    engine.try_reconcile().unwrap();
    assert!(engine.is_settled());
}

#[test]
fn table_that_a_failed_change_put_in_force_is_not_written_over() {
    for good_steps in 0..6 {
        let mut engine = running();
        engine.maps.good_steps = Some(good_steps);
        engine.handle_change(&key("a"), Change::Weight(7));
        engine.reconcile();
        engine.maps.good_steps = None;
        // The fake refuses to write over a table in force.
        engine.handle_change(&key("b"), Change::Weight(9));
        engine.reconcile();
        assert!(engine.is_settled());
        let views = engine.services();
        let weights = views[0].backends.iter().map(|backend| backend.weight);
        assert_eq!(weights.collect::<Vec<_>>(), [7, 9]);
        assert_eq!(views[0].state, ServiceState::Up);
    }
}

#[test]
fn service_removed_while_changes_fail_is_gone_in_the_end() {
    let mut engine = running();
    engine.maps.good_steps = Some(1);
    let moved = CONFIG.replace("port = 1883", "port = 1884");
    engine.handle_config(config(&moved));
    engine.reconcile();
    engine.maps.good_steps = None;
    engine.reconcile();
    let ports: Vec<_> = engine.maps.services.keys().map(ServiceKey::port).collect();
    assert_eq!(ports, [0, 1884], "the VIP's marker and the new service");
}

#[test]
fn epoch_of_a_failed_change_is_not_used_again() {
    let mut engine = running();
    engine.handle_change(&key("a"), Change::Admin(Admin::Disabled));
    engine.reconcile();
    let id = BackendId(0);
    let before = engine.image.epochs[&id];
    engine.maps.good_steps = Some(1);
    engine.handle_change(&key("a"), Change::Admin(Admin::Enabled));
    engine.reconcile();
    engine.maps.good_steps = None;
    engine.reconcile();
    assert_eq!(engine.maps.backends[&id].epoch(), before + 2);
    count(&mut engine, A, 4);
    assert_eq!(engine.services()[0].backends[0].traffic.packets, 4);
}

#[test]
fn table_of_a_service_is_written_before_it_is_used() {
    let engine = running();
    for (key, service) in &engine.maps.services {
        if !service.is_marker() {
            let image = &engine.image.services[key];
            let table = &engine.maps.tables[&(image.id, image.generation)];
            assert_eq!(table, &*image.table);
        }
    }
}

#[test]
fn traffic_outlives_the_id_it_was_counted_under() {
    let mut engine = running();
    count(&mut engine, A, 10);
    count(&mut engine, B, 5);
    fail(&mut engine, "a", 2);
    let service = &engine.services()[0];
    assert_eq!((service.traffic.packets, service.dropped), (15, 0));
    succeed(&mut engine, "a");
    engine.reconcile();
    count(&mut engine, A, 1);
    let service = &engine.services()[0];
    let of = |at: usize| service.backends[at].traffic.packets;
    assert_eq!((of(0), of(1), service.traffic.packets), (11, 5, 16));
}

#[test]
fn removed_backends_stay_in_the_sum_and_new_ones_begin_at_zero() {
    let mut engine = running();
    count(&mut engine, A, 10);
    count(&mut engine, B, 5);
    let replaced = CONFIG.replace("172.16.40.20", "172.16.40.30");
    engine.handle_config(config(&replaced));
    engine.reconcile();
    succeed(&mut engine, "a");
    engine.reconcile();
    let service = &engine.services()[0];
    assert_eq!(service.backends[0].traffic.packets, 0);
    assert_eq!(service.traffic.packets, 15);
}

#[test]
fn drained_backend_takes_nothing_new_and_says_so() {
    let mut engine = running();
    engine.handle_change(&key("a"), Change::Admin(Admin::Draining));
    engine.reconcile();
    let status = engine.backend_status(&key("a")).unwrap();
    assert_eq!((status.admin, status.health), (Admin::Draining, Health::Up));
    assert!(status.share < f64::EPSILON);
}

#[test]
fn ports_matter_only_to_nat() {
    assert_eq!(nat_ports(&config(CONFIG)), None);
    let nat = CONFIG.replace("\"dsr\"", "\"nat\"");
    assert_eq!(nat_ports(&config(&nat)), Some(1024..=32_767));
}
