//! Ways of packets over images that the planner made.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use lb_common::abi::{
    Access, BackendId, Balance, Flow, FlowKey, FlowState, Forward, Ip, KeepAlive, NatPool, NextHop,
    PROTOCOL_TCP, Rate, ServiceKey, Tick,
};
use lb_common::flow::HashKeys;
use lb_common::verdict::Verdict;

use super::{Client, Fate, Goal, GuardMemory, Path, RecordedFlow, Scene, Segment, key};
use crate::config::model::{AccessList, Limits, Prefix};
use crate::core::image::MapImage;
use crate::core::plan::{self, Desired, DesiredBackend, DesiredService, Moment};

const VIP: Ip = Ip::from_v4([172, 16, 40, 24]);
const INTERFACE: u32 = 2;

/// A service with two backends, numbered 0 and 1.
struct Setting {
    desired: Desired,
    image: MapImage,
    names: BTreeMap<BackendId, String>,
    guards: BTreeMap<ServiceKey, GuardMemory>,
    full: BTreeSet<BackendId>,
}

impl Setting {
    fn new(balance: Balance, forward: Forward) -> Self {
        let limits = Limits {
            services: 1,
            backends: 4,
            flows: 1,
            half_open: 1,
            access_entries: 8,
            sources: 1_024,
            fragments: 1,
        };
        let backend = |last| {
            let hop = NextHop {
                interface: INTERFACE,
                mac: [last; 6],
                source_mac: [1; 6],
            };
            DesiredBackend::new(Ip::from_v4([172, 16, 40, last]), 1883, 1, Some(hop))
        };
        let mut desired = Desired::nothing(limits);
        desired.nat_pool = NatPool::new(&[Ip::from_v4([172, 16, 40, 22])], 2000, 2999);
        desired.services = vec![DesiredService {
            backends: vec![backend(20), backend(21)],
            ..DesiredService::new(service(), balance, forward)
        }];
        let mut setting = Self {
            desired,
            image: MapImage::empty(),
            names: BTreeMap::new(),
            guards: BTreeMap::new(),
            full: BTreeSet::new(),
        };
        setting.change(|_| {});
        setting.names = (0..)
            .map(BackendId)
            .zip(["a", "b"].map(str::to_owned))
            .collect();
        setting
    }

    fn change(&mut self, change: impl FnOnce(&mut Desired)) {
        change(&mut self.desired);
        self.image = plan::next(&self.image, &self.desired, Moment::at(Tick(0)));
    }

    fn follow(&self, client: Client, record: Option<&RecordedFlow>, segment: Segment) -> Path {
        let scene = Scene {
            image: &self.image,
            keys: HashKeys::from_seed([7; 16]),
            interface: INTERFACE,
            names: &self.names,
            guards: &self.guards,
            full: &self.full,
        };
        scene.follow(client, record, segment)
    }
}

fn service() -> ServiceKey {
    ServiceKey::new(VIP, 1883, PROTOCOL_TCP)
}

fn flow(port: u16) -> FlowKey {
    key(Ip::from_v4([172, 16, 40, 100]), port, &service())
}

fn recorded(backend: u16, epoch: u16, state: FlowState) -> RecordedFlow {
    RecordedFlow {
        key: flow(40_000),
        flow: Flow {
            backend,
            epoch,
            seen: 0,
            middle: [0; 4],
            nat_source: 0,
            state: state as u8,
            keep_alive: KeepAlive::of(60, false),
        },
        half_open: false,
        silent: Duration::from_secs(5),
    }
}

fn finding<'a>(path: &'a Path, stage: &str) -> &'a str {
    let step = path.steps.iter().find(|step| step.stage == stage);
    step.map_or("", |step| &step.finding)
}

#[test]
fn a_safe_slot_sends_all_packets_of_a_flow_to_its_owner() {
    let setting = Setting::new(Balance::Maglev, Forward::Dsr);
    let mut seen = BTreeMap::new();
    for port in 40_000..40_050 {
        let client = Client::Flow(flow(port));
        let first = setting.follow(client, None, Segment::First);
        let later = setting.follow(client, None, Segment::Later);
        assert_eq!(
            (&first.goal, first.verdict),
            (&later.goal, Some(Verdict::TxDsr))
        );
        assert!(finding(&first, "slot").contains("safe"), "{first:?}");
        assert!(finding(&first, "record").contains("none is looked for"));
        *seen.entry(format!("{:?}", first.goal)).or_insert(0) += 1;
    }
    assert_eq!(seen.len(), 2, "{seen:?}");
}

#[test]
fn a_record_keeps_its_flow_where_it_is() {
    let setting = Setting::new(Balance::RoundRobin, Forward::Dsr);
    for id in [0, 1] {
        let epoch = setting.image.backends[&BackendId(id)].epoch;
        let record = recorded(id, epoch, FlowState::Established);
        let client = Client::Flow(record.key);
        let path = setting.follow(client, Some(&record), Segment::Later);
        assert_eq!(path.goal, Goal::Backend(BackendId(id)));
        let words = finding(&path, "record");
        assert!(
            words.contains("established") && words.contains("keep-alive 60 s"),
            "{words}"
        );
    }
}

#[test]
fn a_record_of_somebody_else_or_of_a_flow_that_is_over_does_not_count() {
    let setting = Setting::new(Balance::RoundRobin, Forward::Nat);
    let epoch = setting.image.backends[&BackendId(0)].epoch;
    let client = Client::Flow(flow(40_000));
    let strange = recorded(0, epoch + 1, FlowState::Established);
    let path = setting.follow(client, Some(&strange), Segment::Later);
    assert!(
        finding(&path, "record").contains("does not count"),
        "{path:?}"
    );
    assert!(finding(&path, "slot").contains("65537"), "{path:?}");
    let over = recorded(0, epoch, FlowState::Ended);
    let path = setting.follow(client, Some(&over), Segment::First);
    assert!(matches!(path.goal, Goal::AnyOf(_)), "{path:?}");
    let path = setting.follow(client, Some(&over), Segment::Later);
    assert_eq!(path.goal, Goal::Backend(BackendId(0)));
}

#[test]
fn a_record_of_a_flow_that_seems_over_counts_unless_its_backend_takes_no_new_ones() {
    let mut setting = Setting::new(Balance::RoundRobin, Forward::Nat);
    let epoch = setting.image.backends[&BackendId(0)].epoch;
    let client = Client::Flow(flow(40_000));
    for state in [FlowState::Closing, FlowState::Reset] {
        let over = recorded(0, epoch, state);
        let path = setting.follow(client, Some(&over), Segment::First);
        assert_eq!(path.goal, Goal::Backend(BackendId(0)), "{state:?}");
    }
    setting.change(|desired| desired.services[0].backends[0].weight = 0);
    for state in [FlowState::Closing, FlowState::Reset] {
        for (silent, first) in [(5, 0), (70, 1)] {
            let over = RecordedFlow {
                silent: Duration::from_secs(silent),
                ..recorded(0, epoch, state)
            };
            let path = setting.follow(client, Some(&over), Segment::First);
            assert_eq!(path.goal, Goal::Backend(BackendId(first)), "{state:?}");
            let path = setting.follow(client, Some(&over), Segment::Later);
            assert_eq!(path.goal, Goal::Backend(BackendId(0)), "{state:?}");
        }
    }
}

#[test]
fn without_a_port_only_the_address_decides() {
    let address = Client::Address(flow(0));
    let maglev = Setting::new(Balance::Maglev, Forward::Dsr);
    let path = maglev.follow(address, None, Segment::First);
    assert!(
        matches!(&path.goal, Goal::AnyOf(ids) if ids.len() == 2),
        "{path:?}"
    );
    assert_eq!(path.verdict, None);
    let source = Setting::new(Balance::Source, Forward::Dsr);
    let path = source.follow(address, None, Segment::First);
    let with_port = source.follow(Client::Flow(flow(40_000)), None, Segment::First);
    assert!(matches!(path.goal, Goal::Backend(_)), "{path:?}");
    assert_eq!(path.goal, with_port.goal);
}

#[test]
fn what_is_in_the_way_is_named() {
    let client = Client::Flow(flow(40_000));
    let mut setting = Setting::new(Balance::Maglev, Forward::Dsr);
    setting.change(|desired| {
        for backend in &mut desired.services[0].backends {
            backend.next_hop = None;
        }
    });
    let path = setting.follow(client, None, Segment::Later);
    assert_eq!(path.verdict, Some(Verdict::DropNoNextHop));
    assert!(finding(&path, "forward").contains("MAC address is not known"));
    setting.change(|desired| desired.services[0].backends.clear());
    let path = setting.follow(client, None, Segment::First);
    assert_eq!(
        (&path.goal, path.verdict),
        (&Goal::Nobody, Some(Verdict::DropNoBackend))
    );
    let stranger = key(
        Ip::from_v4([10, 0, 0, 1]),
        1,
        &ServiceKey::new(VIP, 1, PROTOCOL_TCP),
    );
    let path = setting.follow(Client::Flow(stranger), None, Segment::First);
    assert_eq!(path.verdict, Some(Verdict::PassNotOurs));
    let mut nat = Setting::new(Balance::Maglev, Forward::Nat);
    nat.change(|desired| desired.nat_pool = NatPool::EMPTY);
    let path = nat.follow(client, None, Segment::First);
    assert_eq!(path.verdict, Some(Verdict::DropNatNoSource));
}

#[test]
fn the_longest_prefix_decides_who_may_connect() {
    let prefix = |last, length| Prefix::new([172, 16, 40, last].into(), length).unwrap();
    let list = |entries: &[(Prefix, Access)], deny| {
        Arc::new(AccessList::new(entries.iter().copied().collect(), deny))
    };
    let cases = [
        (
            list(&[(prefix(0, 24), Access::Deny)], false),
            "/24 is denied",
            false,
        ),
        (
            list(
                &[
                    (prefix(0, 24), Access::Deny),
                    (prefix(100, 32), Access::Allow),
                ],
                true,
            ),
            "172.16.40.100/32 is allowed",
            true,
        ),
        (
            list(&[(prefix(101, 32), Access::Allow)], true),
            "denied, as no prefix",
            false,
        ),
        (
            list(&[(prefix(101, 32), Access::Deny)], false),
            "allowed, as no prefix",
            true,
        ),
    ];
    for (list, words, passes) in cases {
        let mut setting = Setting::new(Balance::Maglev, Forward::Dsr);
        setting.change(|desired| {
            desired.services[0].features.access_list = true;
            desired.services[0].access = list;
        });
        let path = setting.follow(Client::Flow(flow(40_000)), None, Segment::First);
        assert!(finding(&path, "guard").contains(words), "{path:?}");
        assert_eq!(path.verdict == Some(Verdict::DropDenied), !passes);
    }
}

#[test]
fn the_guard_tells_who_is_challenged_and_who_has_had_their_rate() {
    let mut setting = Setting::new(Balance::Maglev, Forward::Dsr);
    setting.change(|desired| {
        let service = &mut desired.services[0];
        (service.features.challenge, service.features.rates) = (true, true);
        service.rates.source = Rate::new(1, 1);
    });
    let client = Client::Flow(flow(40_000));
    let verdict = |setting: &Setting, segment| setting.follow(client, None, segment).verdict;
    assert_eq!(
        verdict(&setting, Segment::First),
        Some(Verdict::TxChallenge)
    );
    assert_eq!(verdict(&setting, Segment::Later), Some(Verdict::TxDsr));
    let mut memory = GuardMemory {
        answered: true,
        ..GuardMemory::default()
    };
    setting.guards.insert(service(), memory);
    assert_eq!(verdict(&setting, Segment::First), Some(Verdict::TxDsr));
    memory.source = 500;
    setting.guards.insert(service(), memory);
    let path = setting.follow(client, None, Segment::First);
    assert_eq!(path.verdict, Some(Verdict::DropSourceRate));
    assert!(
        finding(&path, "guard").contains("has had its rate"),
        "{path:?}"
    );
}

#[test]
fn a_fate_compares_who_gets_the_packets() {
    let path = |goal| Path {
        steps: Vec::new(),
        goal,
        verdict: None,
    };
    let [a, b] = [0, 1].map(|id| path(Goal::Backend(BackendId(id))));
    let any = path(Goal::AnyOf([BackendId(0), BackendId(1)].into()));
    let nobody = path(Goal::Nobody);
    assert_eq!(Fate::between(&a, &a), Fate::Stays);
    assert_eq!(Fate::between(&a, &b), Fate::Moves);
    assert_eq!(Fate::between(&a, &nobody), Fate::Ends);
    assert_eq!(Fate::between(&any, &a), Fate::Open);
    assert_eq!(Fate::between(&nobody, &a), Fate::Open);
}
