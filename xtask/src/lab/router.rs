//! A router between clients, balancers and brokers: the reference network in three segments.
//!
//! ```text
//!   client .100          lb1 .22, lb2 .23, VIP .24        broker1 .20, broker2 .21
//!        |                           |                                |
//!  172.16.42.0/24              172.16.40.0/24                  172.16.41.0/24
//!   fd00:42::/64                fd00:40::/64                    fd00:41::/64
//!        +--------------------- router .1, ::1 -----------------------+
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Result;

use super::{Family, Host, NetNs, Topology};
use crate::exec;

/// Who is at one side of the router.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Segment {
    Balancers,
    Brokers,
    Clients,
}

impl Segment {
    /// Its number in the addresses, written the same in either family.
    fn number(self) -> u8 {
        match self {
            Self::Balancers => 40,
            Self::Brokers => 41,
            Self::Clients => 42,
        }
    }

    /// Its bridge in the switch's namespace; the balancers' is the one that is there.
    fn bridge(self) -> &'static str {
        match self {
            Self::Balancers => "br0",
            Self::Brokers => "br1",
            Self::Clients => "br2",
        }
    }

    /// Where a host is whose address in the flat network is known.
    fn address(self, flat: IpAddr) -> IpAddr {
        match flat {
            IpAddr::V4(v4) => {
                let [a, b, _, d] = v4.octets();
                Ipv4Addr::new(a, b, self.number(), d).into()
            }
            IpAddr::V6(v6) => {
                let [a, _, rest @ ..] = v6.segments();
                // Its digits are read as hexadecimal ones.
                let number = u16::from(self.number());
                let number = number / 10 * 16 + number % 10;
                let [c, d, e, f, g, h] = rest;
                Ipv6Addr::new(a, number, c, d, e, f, g, h).into()
            }
        }
    }

    /// Makes the router a host's way to everywhere.
    fn route(self, host: &Host) -> Result<()> {
        let number = self.number();
        run(
            host.netns(),
            &[
                format!("route add 0.0.0.0/0 via 172.16.{number}.1"),
                format!("route add ::/0 via fd00:{number}::1"),
            ],
        )
    }

    /// Gives a host an address here instead of the one that it has.
    fn take_in(self, host: &Host) -> Result<()> {
        let [v4, v6] = [Family::V4, Family::V6].map(|family| host.address(family));
        let lines = [
            format!("address del {v4}/24 dev eth0"),
            format!("address del {v6}/64 dev eth0"),
            format!("address add {}/24 dev eth0", self.address(v4)),
            format!("address add {}/64 dev eth0 nodad", self.address(v6)),
        ];
        run(host.netns(), &lines)?;
        self.route(host)
    }
}

/// The router, taken down when dropped.
#[derive(Debug)]
pub struct Router {
    host: Host,
}

impl Router {
    /// Puts a router into a network: brokers and clients move to segments of their own.
    ///
    /// # Errors
    /// When the kernel refuses a change.
    pub fn between(topology: &Topology) -> Result<Self> {
        let host = Host::new("router", 1, 1, topology.work_dir())?;
        for (key, value) in [
            ("net.ipv4.ip_forward", "1"),
            ("net.ipv6.conf.all.forwarding", "1"),
            // A backend's replies come from the VIP, whose segment is another one.
            ("net.ipv4.conf.all.rp_filter", "0"),
            ("net.ipv4.conf.default.rp_filter", "0"),
        ] {
            host.netns().sysctl(key, value)?;
        }
        let router = Self { host };
        router.join(topology, Segment::Balancers, &[])?;
        router.join(topology, Segment::Brokers, &topology.all_brokers())?;
        router.join(topology, Segment::Clients, &[&topology.client])?;
        for host in [&topology.lb1, &topology.lb2] {
            Segment::Balancers.route(host)?;
        }
        Ok(router)
    }

    /// What runs on it, as on any host; its interfaces are `eth40`, `eth41` and `eth42`.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Has packets of a balancer vanish on their way to the brokers, or not.
    ///
    /// # Errors
    /// When the kernel refuses the change.
    pub fn cut_from_brokers(&self, balancer: &Host, is_cut: bool) -> Result<()> {
        let what = if is_cut { "add" } else { "del" };
        let number = Segment::Brokers.number();
        for (family, option, segment) in [
            (Family::V4, "-4", format!("172.16.{number}.0/24")),
            (Family::V6, "-6", format!("fd00:{number}::/64")),
        ] {
            let balancer = balancer.address(family).to_string();
            let rule = ["rule", what, "from", &balancer, "to", &segment, "blackhole"];
            self.host.output("ip", &[&[option], &rule[..]].concat())?;
        }
        Ok(())
    }

    /// Lets no larger packets through to the brokers.
    ///
    /// # Errors
    /// When the kernel refuses the change.
    pub fn narrow(&self, mtu: u16) -> Result<()> {
        let number = Segment::Brokers.number();
        run(
            self.host.netns(),
            &[format!("link set eth{number} mtu {mtu}")],
        )
    }

    /// The address of a broker behind it.
    pub fn broker(&self, host: &Host, family: Family) -> IpAddr {
        Segment::Brokers.address(host.address(family))
    }

    /// The address of a client before it.
    pub fn client(&self, host: &Host, family: Family) -> IpAddr {
        Segment::Clients.address(host.address(family))
    }

    /// Joins a segment, and moves hosts there.
    fn join(&self, topology: &Topology, segment: Segment, hosts: &[&Host]) -> Result<()> {
        let (bridge, number, peer) = (segment.bridge(), segment.number(), self.host.netns().name());
        let mut lines = Vec::new();
        if segment != Segment::Balancers {
            lines.push(format!(
                "link add {bridge} type bridge stp_state 0 mcast_snooping 0"
            ));
            lines.push(format!("link set {bridge} up"));
        }
        lines.push(format!(
            "link add router{number} type veth peer name eth{number} netns {peer}"
        ));
        lines.push(format!("link set router{number} master {bridge} up"));
        let names = hosts.iter().map(|host| host.name());
        lines.extend(names.map(|name| format!("link set {name} master {bridge}")));
        run(topology.switch().netns(), &lines)?;
        run(
            self.host.netns(),
            &[
                format!("address add 172.16.{number}.1/24 dev eth{number}"),
                format!("address add fd00:{number}::1/64 dev eth{number} nodad"),
                format!("link set eth{number} up"),
            ],
        )?;
        // As on hosts.
        let mut offloads = self.host.command("ethtool")?;
        offloads.args(["-K", &format!("eth{number}")]);
        for feature in ["tx", "tso", "gso", "gro"] {
            offloads.args([feature, "off"]);
        }
        exec::run(&mut offloads)?;
        hosts.iter().try_for_each(|host| segment.take_in(host))
    }
}

fn run(netns: &NetNs, lines: &[String]) -> Result<()> {
    netns.ip(&lines.iter().map(String::as_str).collect::<Vec<_>>())
}
