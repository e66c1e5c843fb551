//! Nodes whose host, balancer and peers are made up.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Instant;

use super::{Event, Fault, Forwarding, Incoming, Line, Link, Node, Outgoing, Plan, RouterState};
use crate::config;
use crate::core::vrrp::advert::{Advert, Envelope, Family, HOPS, Priority};
use crate::core::vrrp::machine::tests::bench::{epoch, ms};
use crate::core::vrrp::packet;
use crate::core::vrrp::refusal::Refusal;
use crate::core::vrrp::role::{Cause, Role};
use crate::core::vrrp::settings::{Reach, Settings};

const HEAD: &str = r#"
interface = "eth0"
[[vip]]
address = "172.16.40.24/32"
[[vip]]
address = "172.16.40.25/32"
[[vip]]
address = "fe80::40:24/64"
[[vip]]
address = "fd00:40::24/128"
"#;

const ONE: &str = r#"
[[vrrp]]
name = "one"
vrid = 51
vips = ["172.16.40.24"]
"#;

const TWO: &str = r#"
[[vrrp]]
name = "two"
vrid = 52
vips = ["172.16.40.25"]
"#;

const SIX: &str = r#"
[[vrrp]]
name = "six"
vrid = 51
vips = ["fe80::40:24", "fd00:40::24"]
"#;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn plan(routers: &[&str]) -> Plan {
    let text = format!("{HEAD}{}", routers.concat());
    Plan::of(&config::parse(&text, "test.toml").unwrap_or_else(|errors| panic!("{errors}")))
}

/// The same with more keys.
fn and(router: &str, keys: &str) -> String {
    format!("{router}{keys}\n")
}

fn link(addresses: &[&str]) -> Link {
    Link {
        is_up: true,
        addresses: addresses.iter().map(|address| ip(address)).collect(),
    }
}

const ADDRESSES: [&str; 4] = ["172.16.40.24", "172.16.40.22", "fd00:40::22", "fe80::22"];

struct Bench {
    node: Node,
    now: Instant,
    links: BTreeMap<String, Link>,
    sent: Vec<Outgoing>,
    announced: Vec<IpAddr>,
    events: Vec<Event>,
}

impl Bench {
    /// A node whose interface is there, and which can forward.
    fn new(routers: &[&str]) -> Self {
        let mut bench = Self {
            node: Node::default(),
            now: epoch(),
            links: [("eth0".to_owned(), link(&ADDRESSES))].into(),
            sent: Vec::new(),
            announced: Vec::new(),
            events: Vec::new(),
        };
        bench.act(|node, now| node.handle_plan(plan(routers), now));
        let links = bench.links.clone();
        bench.act(|node, now| node.handle_links(links, now));
        bench.forward(true, &[]);
        bench
    }

    /// The same, having waited until its routers are Active.
    fn active(routers: &[&str]) -> Self {
        let mut bench = Self::new(routers);
        bench.wait(4_000);
        assert!(bench.roles().iter().all(|role| *role == Role::Active));
        bench.sent.clear();
        bench.events.clear();
        bench
    }

    fn act(&mut self, action: impl FnOnce(&mut Node, Instant)) {
        action(&mut self.node, self.now);
        self.node.settle(self.now);
        self.sent
            .extend(std::iter::from_fn(|| self.node.poll_outgoing()));
        self.announced
            .extend(std::iter::from_fn(|| self.node.poll_announcement()));
        self.events
            .extend(std::iter::from_fn(|| self.node.poll_event()));
    }

    fn wait(&mut self, millis: u64) {
        let end = self.now + ms(millis);
        while let Some(at) = self.node.next_deadline().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.act(Node::handle_timeout);
        }
        self.now = end;
    }

    fn plan(&mut self, routers: &[&str]) {
        self.act(|node, now| node.handle_plan(plan(routers), now));
    }

    fn forward(&mut self, is_ready: bool, serving: &[(&str, bool)]) {
        let serving = serving.iter().map(|(vip, is_up)| (ip(vip), *is_up));
        let forwarding = Forwarding {
            is_ready,
            serving: serving.collect(),
        };
        self.act(|node, now| node.handle_forwarding(forwarding, now));
    }

    fn links(&mut self, change: impl FnOnce(&mut Link)) {
        change(self.links.get_mut("eth0").unwrap());
        let links = self.links.clone();
        self.act(|node, now| node.handle_links(links, now));
    }

    fn states(&self) -> Vec<RouterState> {
        self.node.report(self.now).routers
    }

    fn roles(&self) -> Vec<Role> {
        self.states().iter().map(|state| state.role).collect()
    }

    fn faults(&self, at: usize) -> Vec<Fault> {
        self.states()[at].faults.iter().copied().collect()
    }

    /// Priorities of what was sent since the last call, with the VRID.
    fn priorities(&mut self) -> Vec<(u8, u8)> {
        let sent = std::mem::take(&mut self.sent);
        sent.iter().map(|o| (o.message[1], o.message[2])).collect()
    }

    /// The last cause of the first router.
    fn cause(&self) -> Cause {
        self.states()[0].last.unwrap().0.cause
    }

    /// An advert for the first router of `plan`, as it is heard on `line`.
    fn hear(&mut self, router: &str, priority: u8, line: &Line) {
        let other = Settings::of(&plan(&[router]).routers[0], ip("172.16.40.23")).unwrap();
        let envelope = other.envelopes().next().unwrap();
        self.hear_as(&other.advert(Priority(priority)), envelope, line);
    }

    fn hear_as(&mut self, advert: &Advert, envelope: Envelope, line: &Line) {
        let mut payload = Vec::new();
        let dialect = crate::core::vrrp::advert::Dialect::Message;
        packet::encode(advert, &envelope, dialect, &mut payload);
        let incoming = Incoming {
            line,
            envelope,
            payload: &payload,
        };
        self.act(|node, now| node.handle_advert(&incoming, now));
    }
}

fn line(reach: Reach) -> Line {
    Line {
        interface: "eth0".to_owned(),
        source: ip("172.16.40.22"),
        reach,
    }
}

#[test]
fn nobody_is_active_before_packets_are_balanced() {
    let mut bench = Bench::new(&[ONE]);
    bench.forward(false, &[]);
    bench.wait(60_000);
    assert_eq!(bench.roles(), [Role::Backup]);
    assert_eq!(bench.faults(0), [Fault::NotReady]);
    assert!(bench.sent.is_empty() && bench.node.held().is_empty());
    bench.forward(true, &[]);
    bench.wait(4_000);
    assert_eq!(bench.roles(), [Role::Active]);
    assert_eq!(bench.node.held(), [ip("172.16.40.24")].into());
}

#[test]
fn an_owner_is_no_exception() {
    let owner = and(ONE, "priority = 255");
    let mut bench = Bench {
        node: Node::default(),
        ..Bench::new(&[])
    };
    bench.plan(&[&owner]);
    bench.links(|_| {});
    bench.wait(60_000);
    assert_eq!(bench.roles(), [Role::Backup]);
    bench.forward(true, &[]);
    bench.wait(4_000);
    assert_eq!(bench.roles(), [Role::Active]);
}

#[test]
fn adverts_come_from_an_address_that_is_no_vip() {
    let mut bench = Bench::active(&[ONE, SIX]);
    bench.wait(1_000);
    let sources: BTreeSet<_> = bench.sent.iter().map(|sent| sent.line.source).collect();
    assert_eq!(sources, [ip("172.16.40.22"), ip("fe80::22")].into());
    let to: BTreeSet<_> = bench.sent.iter().map(|sent| sent.to).collect();
    assert_eq!(to, [Family::V4.group(), Family::V6.group()].into());
    // Peers behind a router are not reached from a link-local address.
    let peers = and(SIX, "peers = [\"fd00:41::23\"]");
    let bench = Bench::new(&[&peers]);
    assert_eq!(bench.states()[0].source, Some(ip("fd00:40::22")));
}

#[test]
fn routers_wait_for_the_address_that_they_speak_from() {
    let mut bench = Bench::new(&[ONE, SIX]);
    bench.links(|link| link.addresses.retain(IpAddr::is_ipv6));
    bench.plan(&[ONE, SIX, TWO]);
    bench.wait(60_000);
    assert_eq!(
        bench.roles(),
        [Role::Backup, Role::Active, Role::Initialize]
    );
    assert_eq!(bench.faults(0), [Fault::NoAddress]);
    bench.links(|link| link.addresses.push(ip("172.16.40.29")));
    bench.wait(4_000);
    assert_eq!(bench.roles(), [Role::Active; 3]);
    assert_eq!(bench.states()[0].source, Some(ip("172.16.40.29")));
}

#[test]
fn who_loses_its_address_starts_anew_from_another() {
    let mut bench = Bench::active(&[ONE]);
    bench.links(|link| link.addresses[1] = ip("172.16.40.29"));
    assert_eq!(bench.roles(), [Role::Backup]);
    bench.wait(4_000);
    assert_eq!(bench.roles(), [Role::Active]);
    assert_eq!(bench.states()[0].source, Some(ip("172.16.40.29")));
}

#[test]
fn a_link_that_goes_down_ends_the_role_of_the_whole_group() {
    let (one, six) = (and(ONE, "group = \"g\""), and(SIX, "group = \"g\""));
    let one = and(&one, "interface = \"eth1\"");
    let mut bench = Bench::new(&[]);
    bench.links.insert("eth1".to_owned(), link(&["10.0.0.1"]));
    bench.links(|_| {});
    bench.plan(&[&one, &six]);
    bench.wait(4_000);
    assert_eq!(bench.roles(), [Role::Active; 2]);
    bench.links.get_mut("eth1").unwrap().is_up = false;
    bench.links(|_| {});
    assert_eq!(bench.faults(0), [Fault::LinkDown]);
    assert_eq!((bench.cause(), bench.faults(1)), (Cause::Fault, vec![]));
    assert_eq!(bench.roles()[0], Role::Backup);
    // The other hands over, and gives up when nobody takes over.
    assert!(bench.states()[1].is_leaving);
    bench.wait(5_000);
    assert_eq!(bench.roles(), [Role::Backup; 2]);
    bench.links.remove("eth1");
    bench.links(|_| {});
    assert_eq!(
        bench.faults(0),
        [Fault::LinkDown, Fault::NoAddress],
        "an interface that is gone"
    );
}

#[test]
fn who_serves_nobody_releases_the_role_unless_told_to_stay() {
    let stays = and(TWO, "without_backends = \"stay\"");
    let mut bench = Bench::active(&[ONE, &stays]);
    bench.forward(true, &[("172.16.40.24", false), ("172.16.40.25", false)]);
    assert_eq!(bench.roles(), [Role::Backup, Role::Active]);
    assert_eq!(bench.faults(0), [Fault::NoBackends]);
    assert_eq!(bench.priorities(), [(51, 0)]);
    bench.forward(true, &[("172.16.40.24", true), ("172.16.40.25", false)]);
    bench.wait(4_000);
    assert_eq!(bench.roles(), [Role::Active; 2]);
}

#[test]
fn a_group_stays_while_one_of_its_addresses_is_served() {
    let (one, six) = (and(ONE, "group = \"g\""), and(SIX, "group = \"g\""));
    let mut bench = Bench::active(&[&one, &six]);
    bench.forward(true, &[("172.16.40.24", true), ("fd00:40::24", false)]);
    assert_eq!(bench.roles(), [Role::Active; 2]);
    bench.forward(true, &[("172.16.40.24", false), ("fd00:40::24", false)]);
    assert_eq!(bench.roles(), [Role::Backup; 2]);
}

#[test]
fn who_cannot_speak_is_not_active() {
    let mut bench = Bench::active(&[ONE, SIX]);
    let broken = BTreeSet::from([line(Reach::Multicast)]);
    bench.act(|node, now| node.handle_broken(broken, now));
    assert_eq!(bench.roles(), [Role::Backup, Role::Active]);
    assert_eq!(bench.faults(0), [Fault::NoSocket]);
    bench.act(|node, now| node.handle_broken(BTreeSet::new(), now));
    bench.wait(4_000);
    assert_eq!(bench.roles(), [Role::Active; 2]);
}

#[test]
fn a_router_that_is_its_own_peer_is_told_of_once() {
    let peers = and(ONE, "peers = [\"172.16.40.22\"]");
    let mut bench = Bench::new(&[&peers]);
    bench.links(|_| {});
    bench.wait(60_000);
    assert_eq!(bench.faults(0), [Fault::Unfit]);
    assert_eq!(bench.roles(), [Role::Initialize]);
    let unfits = bench.events.iter();
    let unfits = unfits.filter(|event| matches!(event, Event::Unfit { .. }));
    assert_eq!(unfits.count(), 1);
}

#[test]
fn addresses_are_announced_when_they_are_there() {
    let mut bench = Bench::active(&[ONE]);
    assert!(bench.announced.is_empty());
    let vip = ip("172.16.40.24");
    let place = |bench: &mut Bench, times| {
        bench.act(|node, now| node.handle_placed([(vip, times)].into(), now));
    };
    place(&mut bench, 1);
    assert_eq!(bench.announced, [vip]);
    bench.wait(60_000);
    place(&mut bench, 1);
    assert_eq!(bench.announced, [vip; 5]);
    // Somebody took it away, and it was put back.
    place(&mut bench, 2);
    assert_eq!(bench.announced, [vip; 6]);
}

#[test]
fn adverts_find_their_router_by_number_family_and_line() {
    let mut bench = Bench::active(&[ONE, TWO, SIX]);
    bench.hear(TWO, 200, &line(Reach::Multicast));
    assert_eq!(
        bench.roles(),
        [Role::Active, Role::Backup, Role::Active],
        "only the one that was addressed"
    );
    let active = bench.states()[1].active;
    assert_eq!(active, Some((ip("172.16.40.23"), Priority(200))));
    let other = TWO.replace("52", "53");
    bench.hear(&other, 200, &line(Reach::Multicast));
    let strays = &bench.node.report(bench.now).strays["eth0"];
    assert_eq!(strays.of(Refusal::Vrid), 1);
}

#[test]
fn what_two_lines_hear_counts_once() {
    let unicast = and(TWO, "peers = [\"172.16.40.23\"]");
    let mut bench = Bench::active(&[ONE, &unicast]);
    assert_eq!(bench.node.lines().len(), 2);
    for line in [line(Reach::Multicast), line(Reach::Unicast)] {
        bench.hear(TWO, 200, &line);
        bench.hear(&TWO.replace("52", "53"), 200, &line);
    }
    let states = bench.states();
    assert_eq!(states[1].counters.received, 1);
    assert_eq!(states[0].role, Role::Active);
    let strays = &bench.node.report(bench.now).strays["eth0"];
    assert_eq!(strays.of(Refusal::Vrid), 1);
}

#[test]
fn bytes_that_are_no_advert_change_nothing() {
    let mut bench = Bench::active(&[ONE]);
    let (before, line) = (bench.states(), line(Reach::Multicast));
    let incoming = Incoming {
        line: &line,
        envelope: Envelope {
            source: ip("172.16.40.23"),
            destination: Family::V4.group(),
            hops: HOPS,
        },
        payload: &[0x31, 51],
    };
    bench.act(|node, now| node.handle_advert(&incoming, now));
    assert_eq!(bench.states(), before);
    let strays = &bench.node.report(bench.now).strays["eth0"];
    assert_eq!(strays.of(Refusal::Length), 1);
}

#[test]
fn release_and_resume_go_by_router_or_group() {
    let (one, six) = (and(ONE, "group = \"g\""), and(SIX, "group = \"g\""));
    for name in ["one", "six", "g"] {
        let mut bench = Bench::active(&[&one, &six]);
        bench.act(|node, now| node.release(name, now).unwrap());
        assert!(bench.states().iter().all(|state| state.is_leaving));
        assert_eq!(bench.roles(), [Role::Active; 2], "until another is there");
        bench.wait(5_000);
        assert_eq!(bench.roles(), [Role::Backup; 2]);
        bench.act(|node, now| node.resume(name, now).unwrap());
        bench.wait(4_000);
        assert_eq!(bench.roles(), [Role::Active; 2]);
    }
    let mut bench = Bench::active(&[&one]);
    let error = bench.node.release("nosuch", bench.now).unwrap_err();
    assert_eq!(error.name, "nosuch");
}

#[test]
fn a_plan_disturbs_nobody_who_stays_as_it_was() {
    let mut bench = Bench::active(&[ONE, TWO]);
    let before = bench.states();
    bench.plan(&[ONE]);
    assert_eq!(bench.states(), before[..1]);
    assert_eq!(bench.priorities(), [(52, 0)], "who goes says goodbye");
    assert_eq!(bench.node.held(), [ip("172.16.40.24")].into());
    bench.plan(&[TWO, ONE]);
    assert_eq!(bench.roles(), [Role::Backup, Role::Active]);
    assert_eq!(bench.states()[1], before[0]);
}

#[test]
fn a_router_that_changes_keeps_its_role() {
    let mut bench = Bench::active(&[ONE, TWO]);
    bench.plan(&[&and(ONE, "priority = 120"), TWO]);
    assert_eq!(bench.roles(), [Role::Active; 2]);
    assert_eq!(bench.cause(), Cause::Adopted);
    assert_eq!(bench.priorities(), [(51, 120)]);
    // What nobody hears of is not the same router.
    bench.plan(&[&ONE.replace("51", "61"), TWO]);
    assert_eq!(bench.roles(), [Role::Backup, Role::Active]);
    assert_eq!(bench.priorities(), [(51, 0)]);
}

#[test]
fn a_released_router_that_changes_stays_released() {
    let mut bench = Bench::active(&[ONE]);
    bench.act(|node, now| node.release("one", now).unwrap());
    bench.plan(&[&and(ONE, "priority = 120")]);
    bench.wait(60_000);
    assert_eq!(bench.roles(), [Role::Backup]);
    bench.act(|node, now| node.resume("one", now).unwrap());
    bench.wait(4_000);
    assert_eq!(bench.roles(), [Role::Active]);
}

#[test]
fn a_shutdown_says_goodbye_for_all() {
    let mut bench = Bench::active(&[ONE, TWO]);
    bench.act(Node::handle_shutdown);
    assert_eq!(bench.priorities(), [(51, 0), (52, 0)]);
    assert!(bench.node.held().is_empty() && bench.node.lines().is_empty());
    assert_eq!(bench.node.next_deadline(), None);
}

#[test]
fn lines_stay_open_for_what_is_still_to_go() {
    let mut bench = Bench::active(&[ONE]);
    bench.node.handle_shutdown(bench.now);
    assert_eq!(bench.node.lines(), [line(Reach::Multicast)].into());
    assert!(bench.node.poll_outgoing().is_some());
    assert!(bench.node.lines().is_empty());
}

#[test]
fn a_router_that_changes_waits_for_no_start_again() {
    let late = and(ONE, "startup_delay = \"10m\"");
    let mut bench = Bench::new(&[&late]);
    bench.wait(700_000);
    bench.act(|node, now| node.release("one", now).unwrap());
    bench.wait(60_000);
    bench.plan(&[&and(&late, "priority = 120")]);
    assert_eq!(bench.roles(), [Role::Backup]);
}
