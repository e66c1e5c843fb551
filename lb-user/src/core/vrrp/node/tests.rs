//! Nodes whose host, balancer and peers are made up.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Instant;

mod adverts;
mod faults;
mod leased;
mod plans;
mod priorities;
mod tracked;

use super::{
    Backing, Event, Fault, Forwarding, Incoming, Line, Link, Node, Outgoing, Plan, RouterState,
};
use crate::config;
use crate::core::vrrp::advert::{Advert, Envelope, Priority};
use crate::core::vrrp::machine::tests::bench::{epoch, ms};
use crate::core::vrrp::packet;
use crate::core::vrrp::role::{Cause, Role};
use crate::core::vrrp::settings::{Reach, Settings};
use crate::core::vrrp::track::TrackState;

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
    tracked: BTreeMap<(String, String), TrackState>,
}

impl Bench {
    /// A node whose interface is there, and which can forward.
    fn new(routers: &[&str]) -> Self {
        Self::with(Node::default(), routers)
    }

    /// The same with a node that knows something before. What is known of host and balancer comes
    /// first, as in the daemon.
    fn with(node: Node, routers: &[&str]) -> Self {
        let mut bench = Self {
            node,
            now: epoch(),
            links: [("eth0".to_owned(), link(&ADDRESSES))].into(),
            sent: Vec::new(),
            announced: Vec::new(),
            events: Vec::new(),
            tracked: BTreeMap::new(),
        };
        let links = bench.links.clone();
        bench.act(|node, now| node.handle_links(links, now));
        bench.forward(true, &[]);
        bench.plan(routers);
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

    fn forward(&mut self, is_ready: bool, backing: &[(&str, Backing)]) {
        let backing = backing.iter().map(|(vip, backing)| (ip(vip), *backing));
        let forwarding = Forwarding {
            is_ready,
            is_behind: false,
            backing: backing.collect(),
            tracked: self.tracked.clone(),
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
