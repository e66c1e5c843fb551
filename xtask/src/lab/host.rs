//! One host of the network: a namespace with addresses on eth0, and a directory of its own.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::{Family, NetNs, Process, unique_name};
use crate::exec;

/// TCP state `ESTABLISHED` in `/proc/net/tcp`.
const ESTABLISHED: &str = "01";

/// A host.
#[derive(Debug)]
pub struct Host {
    name: &'static str,
    netns: NetNs,
    work: PathBuf,
    v4: Ipv4Addr,
    v6: Ipv6Addr,
}

impl Host {
    /// Makes the namespace and the directory; [`Host::configure`] follows once eth0 is there.
    pub(super) fn new(name: &'static str, last: u8, last6: u16, work: &Path) -> Result<Self> {
        let work = work.join(name);
        std::fs::create_dir_all(&work)
            .with_context(|| format!("cannot make {}", work.display()))?;
        Ok(Self {
            name,
            netns: NetNs::new(format!("{}-{name}", unique_name()))?,
            work,
            v4: Ipv4Addr::new(172, 16, 40, last),
            v6: Ipv6Addr::new(0xfd00, 0x40, 0, 0, 0, 0, 0, last6),
        })
    }

    /// A host without a network: it has its loopback alone.
    ///
    /// # Errors
    /// When there can be no namespace or directory.
    pub fn alone(name: &'static str, work: &Path) -> Result<Self> {
        Self::new(name, 0, 0, work)
    }

    /// Gives eth0 its addresses and switches off what a veth leaves to hardware it does not have: after
    /// XDP_TX nobody would fill in the checksums.
    pub(super) fn configure(&self) -> Result<()> {
        self.netns.ip(&[
            &format!("address add {}/24 dev eth0", self.v4),
            &format!("address add {}/64 dev eth0 nodad", self.v6),
            "link set eth0 up",
        ])?;
        let mut offloads = self.command("ethtool")?;
        offloads.args(["-K", "eth0"]);
        for feature in ["tx", "tso", "gso", "gro"] {
            offloads.args([feature, "off"]);
        }
        exec::run(&mut offloads)
    }

    /// `client`, `lb1`, ...
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Its namespace.
    pub fn netns(&self) -> &NetNs {
        &self.netns
    }

    /// A directory for its files alone.
    pub fn work_dir(&self) -> &Path {
        &self.work
    }

    /// Its address on eth0.
    pub fn address(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => self.v4.into(),
            Family::V6 => self.v6.into(),
        }
    }

    /// A command that will run on this host.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Result<Command> {
        self.netns.command(program)
    }

    /// Runs a program on this host to its end and returns its output.
    ///
    /// # Errors
    /// When it cannot start or fails; the error carries what it wrote.
    pub fn output(&self, program: impl AsRef<std::ffi::OsStr>, args: &[&str]) -> Result<String> {
        exec::output(self.command(program)?.args(args)).with_context(|| format!("on {}", self.name))
    }

    /// Starts a program that goes on running; `name` names its log file.
    ///
    /// # Errors
    /// When it cannot start.
    pub fn spawn(&self, name: &str, command: Command) -> Result<Process> {
        Process::spawn(self, name, command)
    }

    /// The same for a program that is told things while it runs, by [`Process::tell`].
    ///
    /// # Errors
    /// When it cannot start.
    pub fn spawn_listening(&self, name: &str, command: Command) -> Result<Process> {
        Process::spawn_listening(self, name, command)
    }

    /// Adds an address to an interface.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn add_address(&self, address: IpAddr, prefix: u8, interface: &str) -> Result<()> {
        let nodad = if address.is_ipv6() { " nodad" } else { "" };
        self.netns.ip(&[&format!(
            "address add {address}/{prefix} dev {interface}{nodad}"
        )])
    }

    /// Makes an unmodified broker fit for DSR: the VIP on lo, unanswered on the wire.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn hold_vip(&self, vip: IpAddr) -> Result<()> {
        self.netns.sysctl("net.ipv4.conf.all.arp_ignore", "1")?;
        self.netns.sysctl("net.ipv4.conf.all.arp_announce", "2")?;
        let prefix = if vip.is_ipv4() { 32 } else { 128 };
        self.add_address(vip, prefix, "lo")
    }

    /// The index of eth0.
    ///
    /// # Errors
    /// When `ip` cannot say.
    pub fn index(&self) -> Result<u32> {
        let json = self.output("ip", &["-json", "link", "show", "dev", "eth0"])?;
        let links: serde_json::Value = serde_json::from_str(&json)?;
        let index = links[0]["ifindex"].as_u64().context("eth0 has no index")?;
        Ok(u32::try_from(index)?)
    }

    /// The MAC address of eth0.
    ///
    /// # Errors
    /// When `ip` cannot say.
    pub fn mac(&self) -> Result<String> {
        let json = self.output("ip", &["-json", "link", "show", "dev", "eth0"])?;
        let links: serde_json::Value = serde_json::from_str(&json)?;
        let mac = links[0]["address"].as_str();
        mac.map(str::to_owned).context("eth0 has no MAC address")
    }

    /// The far ends of the TCP connections that are up on a local port.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn connections(&self, port: u16) -> Result<Vec<SocketAddr>> {
        self.netns.enter(|| {
            let mut far_ends = Vec::new();
            for file in ["tcp", "tcp6"] {
                // Through the thread: `/proc/net` is the namespace of the process.
                let table = std::fs::read_to_string(format!("/proc/thread-self/net/{file}"))?;
                far_ends.extend(far_ends_of(&table, port));
            }
            // The kernel gives a table piece by piece, in which one that moves is met twice.
            far_ends.sort_unstable();
            far_ends.dedup();
            Ok(far_ends)
        })
    }
}

fn far_ends_of(table: &str, port: u16) -> impl Iterator<Item = SocketAddr> {
    let local_port = format!(":{port:04X}");
    table.lines().skip(1).filter_map(move |line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let (local, remote, state) = (fields.next()?, fields.next()?, fields.next()?);
        (local.ends_with(&local_port) && state == ESTABLISHED).then(|| socket_address(remote))?
    })
}

/// Reads `0100007F:075B`: words of the address in the machine's byte order, then the port.
fn socket_address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut bytes = Vec::with_capacity(16);
    for start in (0..address.len()).step_by(8) {
        let word = u32::from_str_radix(address.get(start..start + 8)?, 16).ok()?;
        bytes.extend(word.to_ne_bytes());
    }
    let address = match <[u8; 16]>::try_from(bytes.as_slice()) {
        Ok(octets) => IpAddr::from(octets).to_canonical(),
        Err(_) => IpAddr::from(<[u8; 4]>::try_from(bytes.as_slice()).ok()?),
    };
    Some(SocketAddr::new(address, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_established_connections_of_the_port_count() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue\n\
            0: 1428A8C0:075B 00000000:0000 0A 00000000:00000000\n\
            1: 1828A8C0:075B 6428A8C0:A3F0 01 00000000:00000000\n\
            2: 1828A8C0:075C 6428A8C0:075B 01 00000000:00000000\n\
            3: 1828A8C0:075B 6428A8C0:A3F1 06 00000000:00000000\n";
        let far: Vec<_> = far_ends_of(table, 1883).collect();
        assert_eq!(far, ["192.168.40.100:41968".parse().unwrap()]);
    }

    #[test]
    fn an_ipv4_client_of_a_dual_stack_listener_is_ipv4() {
        let far = socket_address("0000000000000000FFFF00006428A8C0:0050");
        assert_eq!(far, Some("192.168.40.100:80".parse().unwrap()));
        let far = socket_address("400000FD000000000000000000010000:0050");
        assert_eq!(far, Some("[fd00:40::100]:80".parse().unwrap()));
    }
}
