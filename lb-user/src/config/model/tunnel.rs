//! Tunnels: the form they take, and what they send from.

use std::fmt;
use std::net::IpAddr;

use lb_common::abi::{Encapsulation, Ip, TunnelSources};

/// The form of a service's tunnels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tunnel {
    pub(super) encapsulation: Encapsulation,
    pub(super) port: u16,
}

impl Tunnel {
    /// What packets are put into.
    #[must_use]
    pub const fn encapsulation(&self) -> Encapsulation {
        self.encapsulation
    }

    /// Where GUE is received; of no meaning to IP in IP.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The word in the file, in status and in metrics.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self.encapsulation {
            Encapsulation::IpIp => "ipip",
            Encapsulation::Gue => "gue",
        }
    }
}

impl Tunnel {
    /// Bytes that it adds to a packet to `backend`: an IP header, and a UDP header if it is GUE.
    #[must_use]
    pub const fn overhead(&self, backend: IpAddr) -> u16 {
        let network = if backend.is_ipv4() { 20 } else { 40 };
        match self.encapsulation {
            Encapsulation::IpIp => network,
            Encapsulation::Gue => network + 8,
        }
    }
}

impl fmt::Display for Tunnel {
    /// `ipip`, or `gue:6080`: with the port where it means something.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.encapsulation {
            Encapsulation::IpIp => f.write_str(self.label()),
            Encapsulation::Gue => write!(f, "{}:{}", self.label(), self.port),
        }
    }
}

/// Addresses that tunnels send from: which one, the flow says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourcePrefix {
    pub(super) address: IpAddr,
    pub(super) length: u8,
}

impl SourcePrefix {
    /// The first of the addresses.
    #[must_use]
    pub const fn address(&self) -> IpAddr {
        self.address
    }

    /// Whether an address is one of them.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let differing = match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => u128::from(own.to_bits() ^ other.to_bits()),
            (IpAddr::V6(own), IpAddr::V6(other)) => own.to_bits() ^ other.to_bits(),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return false,
        };
        differing.checked_shr(self.free_bits()).unwrap_or(0) == 0
    }

    /// The same sources, with these.
    #[must_use]
    pub fn join(&self, sources: TunnelSources) -> TunnelSources {
        sources.with(Ip::from(self.address), self.free_bits())
    }

    fn free_bits(&self) -> u32 {
        let full = if self.address.is_ipv4() { 32 } else { 128 };
        full - u32::from(self.length)
    }
}
