//! The reference network: which hosts there are and how they are joined.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;

use anyhow::{Context, Result};

use super::{Host, NetNs, WorkDir, clean_leftovers, pass, unique_name};

/// Address family.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Family {
    /// 172.16.40.0/24
    V4,
    /// fd00:40::/64
    V6,
}

impl Family {
    /// The address that clients use.
    pub fn vip(self) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::new(172, 16, 40, 24).into(),
            Self::V6 => Ipv6Addr::new(0xfd00, 0x40, 0, 0, 0, 0, 0, 0x24).into(),
        }
    }
}

/// Name and last parts of the addresses of the brokers beyond two.
const SPARES: [(&str, u8, u16); 4] = [
    ("broker3", 30, 0x30),
    ("broker4", 31, 0x31),
    ("broker5", 32, 0x32),
    ("broker6", 33, 0x33),
];

/// The bridge that joins the hosts, in a namespace of its own.
#[derive(Debug)]
pub struct Switch {
    // Before the namespace: links first, then what they hang on.
    _pass: Vec<OwnedFd>,
    netns: NetNs,
}

/// The whole network, taken down when dropped.
#[derive(Debug)]
pub struct Topology {
    /// .100
    pub client: Host,
    /// .22
    pub lb1: Host,
    /// .23
    pub lb2: Host,
    /// .20
    pub broker1: Host,
    /// .21
    pub broker2: Host,
    /// More brokers, .30 and up, where they were asked for.
    pub spares: Vec<Host>,
    switch: Switch,
    work: WorkDir,
}

impl Topology {
    /// Builds the network, after removing what dead runs left.
    ///
    /// # Errors
    /// Needs root, iproute2 and ethtool.
    pub fn new() -> Result<Self> {
        Self::with_spares(0)
    }

    /// The same with more brokers, four at most.
    ///
    /// # Errors
    /// As [`Topology::new`].
    pub fn with_spares(count: usize) -> Result<Self> {
        clean_leftovers().context("cannot remove what an earlier run left")?;
        let work = WorkDir::new()?;
        let host = |name, last, last6| Host::new(name, last, last6, work.path());
        let client = host("client", 100, 0x100)?;
        let lb1 = host("lb1", 22, 0x22)?;
        let lb2 = host("lb2", 23, 0x23)?;
        let broker1 = host("broker1", 20, 0x20)?;
        let broker2 = host("broker2", 21, 0x21)?;
        let spares = SPARES.iter().take(count);
        let spares = spares.map(|(name, last, last6)| host(name, *last, *last6));
        let spares = spares.collect::<Result<Vec<_>>>()?;
        let mut hosts = vec![&client, &lb1, &lb2, &broker1, &broker2];
        hosts.extend(&spares);
        let switch = Switch::joining(&hosts)?;
        Ok(Self {
            client,
            lb1,
            lb2,
            broker1,
            broker2,
            spares,
            switch,
            work,
        })
    }

    /// Every host but the spare brokers.
    pub fn hosts(&self) -> [&Host; 5] {
        let Self {
            client,
            lb1,
            lb2,
            broker1,
            broker2,
            spares: _,
            switch: _,
            work: _,
        } = self;
        [client, lb1, lb2, broker1, broker2]
    }

    /// The two brokers.
    pub fn brokers(&self) -> [&Host; 2] {
        [&self.broker1, &self.broker2]
    }

    /// The two brokers, and the spare ones.
    pub fn all_brokers(&self) -> Vec<&Host> {
        self.brokers().into_iter().chain(&self.spares).collect()
    }

    /// The switch.
    pub fn switch(&self) -> &Switch {
        &self.switch
    }

    /// The directory that holds the hosts' own.
    pub fn work_dir(&self) -> &std::path::Path {
        self.work.path()
    }
}

impl Switch {
    fn joining(hosts: &[&Host]) -> Result<Self> {
        let netns = NetNs::new(format!("{}-switch", unique_name()))?;
        netns.sysctl("net.ipv6.conf.default.disable_ipv6", "1")?;
        let mut lines = vec!["link add br0 type bridge stp_state 0 mcast_snooping 0".to_owned()];
        for host in hosts {
            let (name, peer) = (host.name(), host.netns().name());
            lines.push(format!(
                "link add {name} type veth peer name eth0 netns {peer}"
            ));
            lines.push(format!("link set {name} master br0 up"));
        }
        lines.push("link set br0 up".to_owned());
        netns.ip(&lines.iter().map(String::as_str).collect::<Vec<_>>())?;
        for host in hosts {
            host.configure()?;
        }
        let ports: Vec<&str> = hosts.iter().map(|host| host.name()).collect();
        let pass = pass::attach(&netns, &ports)?;
        Ok(Self { _pass: pass, netns })
    }

    /// Its namespace, where each port has its host's name.
    pub fn netns(&self) -> &NetNs {
        &self.netns
    }

    /// Pulls a host's cable.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn unplug(&self, host: &Host) -> Result<()> {
        self.netns.ip(&[&format!("link set {} down", host.name())])
    }

    /// Puts a host's cable back.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn plug(&self, host: &Host) -> Result<()> {
        self.netns.ip(&[&format!("link set {} up", host.name())])
    }
}
