//! The configuration that is being made, and what has to hold of it.
//!
//! The parsers put in what they read. [`Draft::settle`] takes out what the program would refuse, each with
//! a finding, so that no parser has to know these rules.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use super::finding::Findings;
use super::values::{is_host, unique};

/// How backends are reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Way {
    /// As a proxy reaches them: nothing has to change there.
    #[default]
    Nat,
    Dsr,
    Tunnel,
}

impl Way {
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Nat => "nat",
            Self::Dsr => "dsr",
            Self::Tunnel => "tunnel",
        }
    }
}

/// How the backend of a new flow is picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pick {
    Maglev,
    Source,
    RoundRobin,
    LeastConn,
}

impl Pick {
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Maglev => "maglev",
            Self::Source => "source",
            Self::RoundRobin => "round_robin",
            Self::LeastConn => "least_conn",
        }
    }

    const fn counts_flows(self) -> bool {
        matches!(self, Self::RoundRobin | Self::LeastConn)
    }
}

/// What a service speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speech {
    Mqtt,
    Tcp,
    Udp,
}

impl Speech {
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Mqtt => "mqtt",
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }

    /// Of a TCP service: MQTT has a port of its own (IANA: mqtt), here or where it is passed on to.
    pub(super) fn of(port: u16, backends: &[Backend]) -> Self {
        const MQTT: u16 = 1_883;
        let is_behind = !backends.is_empty() && backends.iter().all(|it| it.port == MQTT);
        if port == MQTT || is_behind {
            Self::Mqtt
        } else {
            Self::Tcp
        }
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Draft {
    pub(super) interface: Option<String>,
    /// What the files call that interface, which may have another name on the new host.
    pub(super) carrier: Option<String>,
    /// Flows to have room for, if the default is too few.
    pub(super) flows: Option<u32>,
    pub(super) vips: Vec<Vip>,
    pub(super) routers: Vec<Router>,
    pub(super) notifies: Vec<Notify>,
    pub(super) services: Vec<Service>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Vip {
    pub(super) address: IpAddr,
    pub(super) prefix: u8,
    pub(super) is_assigned: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Router {
    pub(super) file: String,
    pub(super) line: usize,
    pub(super) name: String,
    /// What keepalived called it.
    pub(super) instance: String,
    /// Where it speaks, if not where the VIPs are.
    pub(super) interface: Option<String>,
    pub(super) vrid: u8,
    pub(super) version: u8,
    pub(super) priority: u8,
    pub(super) interval: Duration,
    pub(super) source: Option<IpAddr>,
    pub(super) peers: Vec<IpAddr>,
    pub(super) password: Option<String>,
    pub(super) preempts: bool,
    pub(super) preempt_delay: Option<Duration>,
    pub(super) startup_delay: Option<Duration>,
    pub(super) vips: Vec<IpAddr>,
    pub(super) group: Option<String>,
    pub(super) announce_repeats: Option<u8>,
    pub(super) announce_refresh: Option<Duration>,
    pub(super) has_virtual_mac: bool,
    pub(super) tracks: Vec<Track>,
}

#[derive(Clone, Debug)]
pub(super) struct Track {
    pub(super) name: String,
    pub(super) script: Vec<String>,
    pub(super) interval: Duration,
    pub(super) timeout: Duration,
    pub(super) fall: u32,
    pub(super) rise: u32,
    /// What the priority loses; without it the router gives its role up.
    pub(super) cost: Option<u8>,
}

#[derive(Clone, Debug)]
pub(super) struct Notify {
    pub(super) name: String,
    pub(super) means: Means,
}

#[derive(Clone, Debug)]
pub(super) enum Means {
    /// A program that gets keepalived's arguments.
    Exec(Vec<String>),
    Email {
        server: String,
        port: u16,
        from: String,
        to: Vec<String>,
        timeout: Option<Duration>,
    },
}

#[derive(Clone, Debug)]
pub(super) struct Service {
    pub(super) file: String,
    pub(super) line: usize,
    pub(super) name: String,
    pub(super) vip: IpAddr,
    pub(super) port: u16,
    pub(super) speech: Speech,
    pub(super) pick: Pick,
    pub(super) way: Way,
    pub(super) keep_alive: Option<Duration>,
    pub(super) slow_start: Option<Duration>,
    pub(super) check: Check,
    pub(super) backends: Vec<Backend>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Check {
    pub(super) kind: CheckKind,
    pub(super) port: Option<u16>,
    pub(super) interval: Duration,
    pub(super) timeout: Duration,
    pub(super) fall: u32,
    pub(super) rise: u32,
}

impl Check {
    /// Without any.
    pub(super) const NONE: Self = Self {
        kind: CheckKind::None,
        port: None,
        interval: Duration::from_secs(2),
        timeout: Duration::from_secs(1),
        fall: 3,
        rise: 2,
    };

    /// The same with times and counts that a configuration takes.
    pub(super) fn within_bounds(mut self) -> Self {
        const LEAST: Duration = Duration::from_millis(1);
        const MOST: Duration = Duration::from_secs(86_400);
        self.interval = self.interval.clamp(LEAST, MOST);
        self.timeout = self.timeout.clamp(LEAST, self.interval);
        self.fall = self.fall.clamp(1, 1_000);
        self.rise = self.rise.clamp(1, 1_000);
        self
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum CheckKind {
    None,
    Tcp,
    Http {
        path: String,
        host: Option<String>,
        expect: u16,
    },
}

#[derive(Clone, Debug)]
pub(super) struct Backend {
    pub(super) line: usize,
    pub(super) name: String,
    pub(super) address: IpAddr,
    pub(super) port: u16,
    pub(super) weight: u16,
    pub(super) max_connections: Option<u32>,
}

/// What ids can tell apart (`lb_common::abi`), and memory has room for.
const MOST_SERVICES: usize = 1_024;
const MOST_BACKENDS: usize = 4_096;

impl Draft {
    /// Declares a VIP, unless it is.
    pub(super) fn declare(&mut self, vip: Vip) {
        if !self.has_vip(vip.address) {
            self.vips.push(vip);
        }
    }

    pub(super) fn has_vip(&self, address: IpAddr) -> bool {
        self.vips.iter().any(|vip| vip.address == address)
    }

    /// Takes out what a configuration cannot hold, and gives everything a name of its own.
    pub(super) fn settle(&mut self, findings: &mut Findings) {
        self.settle_routers(findings);
        self.settle_services(findings);
        let mut names: BTreeSet<String> = BTreeSet::new();
        for notify in &mut self.notifies {
            notify.name = unique(&notify.name, |name| names.contains(name));
            names.insert(notify.name.clone());
        }
        if self.interface.is_none() {
            findings.enter("the configuration");
            findings.changed(
                1,
                "interface",
                "no file names the interface that carries the VIPs",
                "put it in place of \"eth0\", or give `--interface`",
            );
        }
    }

    fn settle_routers(&mut self, findings: &mut Findings) {
        let mut names: BTreeSet<String> = BTreeSet::new();
        let mut numbers = BTreeSet::new();
        let mut addresses = BTreeSet::new();
        let mut right = Vec::new();
        for mut router in std::mem::take(&mut self.routers) {
            findings.enter(&router.file);
            let what = format!("vrrp_instance {}", router.name);
            router.vips.retain(|vip| {
                let is_new = addresses.insert(*vip);
                if !is_new {
                    let why = format!("{vip} is of an instance before");
                    findings.lost(router.line, &what, why, "a VIP is of one virtual router");
                }
                is_new
            });
            let Some(first) = router.vips.first() else {
                findings.lost(
                    router.line,
                    &what,
                    "it has no address that Tidegate could hold",
                    "",
                );
                continue;
            };
            if matches!(first, IpAddr::V6(v6) if !v6.is_unicast_link_local()) {
                let why = "the link-local address that its adverts would begin with is another's";
                findings.lost(router.line, &what, why, "give it one of its own");
                continue;
            }
            let number = (router.interface.clone(), first.is_ipv4(), router.vrid);
            if !numbers.insert(number) {
                findings.lost(
                    router.line,
                    &what,
                    "another instance has its number on the same interface",
                    "each interface, family and number makes one virtual router",
                );
                continue;
            }
            router.name = unique(&router.name, |name| names.contains(name));
            names.insert(router.name.clone());
            right.push(router);
        }
        self.routers = right;
        self.settle_hosts(findings);
        self.settle_groups(&names);
        let routers = &self.routers;
        // One whose instance is left out stays with whoever has it.
        for vip in &mut self.vips {
            let is_held = routers.iter().any(|it| it.vips.contains(&vip.address));
            vip.is_assigned |= is_held;
        }
    }

    /// Sources and peers are other hosts' addresses, of the family of the VIPs.
    fn settle_hosts(&mut self, findings: &mut Findings) {
        let vips: Vec<IpAddr> = self.vips.iter().map(|vip| vip.address).collect();
        for router in &mut self.routers {
            findings.enter(&router.file);
            let is_ipv4 = router.vips.iter().all(IpAddr::is_ipv4);
            let is_owner = router.priority == u8::MAX;
            let is_right = |host: &IpAddr| {
                host.is_ipv4() == is_ipv4 && is_host(*host) && (is_owner || !vips.contains(host))
            };
            let source = router.source;
            let mut known = BTreeSet::new();
            let line = router.line;
            router.peers.retain(|peer| {
                let is_peer = is_right(peer) && Some(*peer) != source;
                if !is_peer {
                    let why = "it is no other host of the family of the VIPs";
                    findings.lost(line, format!("unicast_peer {peer}"), why, "see `peers`");
                }
                is_peer && known.insert(*peer)
            });
            if let Some(address) = source.filter(|address| !is_right(address)) {
                let why = format!("{address} is a VIP, or of another family than the VIPs");
                let instead = "the interface's first address is used";
                findings.lost(router.line, "unicast_src_ip", why, instead);
                router.source = None;
            }
        }
    }

    /// A group has no name that a router outside of it has.
    fn settle_groups(&mut self, names: &BTreeSet<String>) {
        let groups = self.routers.iter().filter_map(|it| it.group.clone());
        let groups: BTreeSet<String> = groups.collect();
        let mut given: BTreeMap<String, String> = BTreeMap::new();
        for group in groups {
            let is_used = |name: &str| given.values().any(|used| used == name);
            let named = unique(&group, |name| names.contains(name) || is_used(name));
            given.insert(group, named);
        }
        for router in &mut self.routers {
            let named = router.group.as_ref().and_then(|group| given.get(group));
            router.group = named.cloned();
        }
    }

    fn settle_services(&mut self, findings: &mut Findings) {
        let vips: BTreeSet<IpAddr> = self.vips.iter().map(|vip| vip.address).collect();
        let mut names: BTreeSet<String> = BTreeSet::new();
        let mut endpoints = BTreeSet::new();
        let mut backends = 0;
        let mut right = Vec::new();
        for mut service in std::mem::take(&mut self.services) {
            findings.enter(&service.file);
            let Service { vip, port, .. } = service;
            let what = format!("{} ({vip} port {port})", service.name);
            let is_udp = service.speech == Speech::Udp;
            if !endpoints.insert((vip, port, is_udp)) {
                let why = "this address and port are of a service before";
                findings.lost(service.line, what, why, "each makes one service");
                continue;
            }
            service.settle_backends(&vips, findings);
            if service.backends.is_empty() {
                let why = "none of its servers can be a backend";
                findings.lost(service.line, what, why, "add a [[service.backend]]");
                continue;
            }
            backends += service.backends.len();
            if right.len() == MOST_SERVICES || backends > MOST_BACKENDS {
                let why = format!(
                    "more than {MOST_SERVICES} services, or {MOST_BACKENDS} backends of all of them"
                );
                findings.lost(
                    service.line,
                    what,
                    why,
                    "spread them over several pairs of hosts",
                );
                break;
            }
            service.name = unique(&service.name, |name| names.contains(name));
            names.insert(service.name.clone());
            right.push(service);
        }
        self.services = right;
    }
}

impl Service {
    fn settle_backends(&mut self, vips: &BTreeSet<IpAddr>, findings: &mut Findings) {
        let mut names: BTreeSet<String> = BTreeSet::new();
        let mut sockets = BTreeSet::new();
        let (vip, port, way, pick) = (self.vip, self.port, self.way, self.pick);
        self.backends.retain_mut(|backend| {
            let Backend { address, line, .. } = *backend;
            let what = format!("server {}", backend.name);
            let (why, instead) = if !is_host(address) {
                (
                    format!("{address} is no address that other hosts send packets to"),
                    "give the server's address on the network of the VIP; Tidegate's own host \
                     cannot be a backend",
                )
            } else if vips.contains(&address) {
                let why = format!("{address} is a VIP: packets sent there would come back");
                (why, "give the server's own address")
            } else if address.is_ipv4() != vip.is_ipv4() && way != Way::Tunnel {
                let why = format!("{address} and the VIP {vip} are of different families");
                (
                    why,
                    "give its address of that family, or use `forward = \"tunnel\"`",
                )
            } else if backend.port != port && way != Way::Nat {
                let why = format!("`forward = \"{}\"` changes no ports", way.word());
                (
                    why,
                    "let it listen on the service's port, or use `forward = \"nat\"`",
                )
            } else if !sockets.insert((address, backend.port)) {
                let why = format!("{address} port {} is there already", backend.port);
                (why, "a service uses a server once; give that more weight")
            } else {
                if way != Way::Nat && !pick.counts_flows() && backend.max_connections.is_some() {
                    let why = format!("nobody counts the flows of `{}`", pick.word());
                    let instead = "set `balance = \"least_conn\"` to have a limit";
                    findings.lost(line, format!("{what}: limit of connections"), why, instead);
                    backend.max_connections = None;
                }
                backend.name = unique(&backend.name, |name| names.contains(name));
                names.insert(backend.name.clone());
                return true;
            };
            findings.lost(line, what, why, instead);
            false
        });
    }
}

/// A link-local address for a router of IPv6, whose adverts begin with one (RFC 9568, 5.2.9).
pub(super) const fn link_local(vrid: u8) -> Ipv6Addr {
    Ipv6Addr::new(
        0xfe80,
        0,
        0,
        0,
        0x0200,
        0x5eff,
        0xfe00,
        0x0200 | vrid as u16,
    )
}
