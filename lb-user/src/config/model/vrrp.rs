//! Virtual routers, as configured.

use std::net::IpAddr;
use std::num::NonZeroU8;
use std::time::Duration;

use lb_common::abi::VirtualMac;

use super::{Secret, Track};

/// A virtual router on one interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vrrp {
    pub(super) name: String,
    pub(super) interface: String,
    pub(super) vrid: NonZeroU8,
    pub(super) version: VrrpVersion,
    pub(super) priority: NonZeroU8,
    pub(super) advert_interval: Duration,
    pub(super) source: Option<IpAddr>,
    pub(super) peers: Vec<IpAddr>,
    pub(super) password: Option<Secret>,
    pub(super) checksum: VrrpChecksum,
    pub(super) other_addresses: OtherAddresses,
    pub(super) preempt_after: Option<Duration>,
    pub(super) startup_delay: Duration,
    pub(super) without_backends: WithoutBackends,
    pub(super) vips: Vec<IpAddr>,
    pub(super) group: Option<String>,
    pub(super) announce_repeats: NonZeroU8,
    pub(super) announce_interval: Duration,
    pub(super) announce_refresh: Option<Duration>,
    pub(super) has_virtual_mac: bool,
    pub(super) tracks: Vec<Track>,
}

impl Vrrp {
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The interface it speaks on.
    #[must_use]
    pub fn interface(&self) -> &str {
        &self.interface
    }

    #[must_use]
    pub const fn vrid(&self) -> NonZeroU8 {
        self.vrid
    }

    #[must_use]
    pub const fn version(&self) -> VrrpVersion {
        self.version
    }

    /// 255 for who has the addresses as its own.
    #[must_use]
    pub const fn priority(&self) -> NonZeroU8 {
        self.priority
    }

    /// Whole centiseconds, in VRRPv2 whole seconds.
    #[must_use]
    pub const fn advert_interval(&self) -> Duration {
        self.advert_interval
    }

    /// Where adverts come from; else from the primary address of the interface.
    #[must_use]
    pub const fn source(&self) -> Option<IpAddr> {
        self.source
    }

    /// To whom adverts go; to the group, if these are none.
    #[must_use]
    pub fn peers(&self) -> &[IpAddr] {
        &self.peers
    }

    /// The simple password of VRRPv2.
    #[must_use]
    pub const fn password(&self) -> Option<&Secret> {
        self.password.as_ref()
    }

    #[must_use]
    pub const fn checksum(&self) -> VrrpChecksum {
        self.checksum
    }

    #[must_use]
    pub const fn other_addresses(&self) -> OtherAddresses {
        self.other_addresses
    }

    /// After what time an Active of lower priority is preempted; `None` for never.
    #[must_use]
    pub const fn preempt_after(&self) -> Option<Duration> {
        self.preempt_after
    }

    #[must_use]
    pub const fn startup_delay(&self) -> Duration {
        self.startup_delay
    }

    #[must_use]
    pub const fn without_backends(&self) -> WithoutBackends {
        self.without_backends
    }

    /// Its addresses, all of one family, at least one; the first of IPv6 is link-local.
    #[must_use]
    pub fn vips(&self) -> &[IpAddr] {
        &self.vips
    }

    /// The same router with those of its addresses that are wanted; `None` without any.
    #[must_use]
    pub fn retaining(&self, is_wanted: impl Fn(&IpAddr) -> bool) -> Option<Self> {
        let vips: Vec<IpAddr> = self.vips.iter().copied().filter(is_wanted).collect();
        (!vips.is_empty()).then(|| Self {
            vips,
            ..self.clone()
        })
    }

    /// The name of its sync group.
    #[must_use]
    pub fn group(&self) -> Option<&str> {
        self.group.as_deref()
    }

    #[must_use]
    pub const fn announce_repeats(&self) -> NonZeroU8 {
        self.announce_repeats
    }

    #[must_use]
    pub const fn announce_interval(&self) -> Duration {
        self.announce_interval
    }

    /// The MAC address that its addresses are at, if not the interface's own. Then it speaks on the
    /// interface of the VIPs and to the group, and is no owner.
    #[must_use]
    pub fn virtual_mac(&self) -> Option<VirtualMac> {
        let is_ipv4 = self.vips.first().is_some_and(IpAddr::is_ipv4);
        let mac = if is_ipv4 {
            VirtualMac::v4
        } else {
            VirtualMac::v6
        };
        self.has_virtual_mac.then(|| mac(self.vrid.get()))
    }

    /// What it depends on, in the order of the file.
    #[must_use]
    pub fn tracks(&self) -> &[Track] {
        &self.tracks
    }

    #[must_use]
    pub const fn announce_refresh(&self) -> Option<Duration> {
        self.announce_refresh
    }
}

/// Version of VRRP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VrrpVersion {
    V2,
    V3,
}

/// What the checksum of VRRPv3 over IPv4 covers when sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VrrpChecksum {
    /// The message and a pseudo-header, as keepalived has it.
    PseudoHeader,
    /// The message, as RFC 9568 has it.
    Message,
}

/// What a router does while no service of its addresses has a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WithoutBackends {
    /// It leaves the role to a peer that may have one.
    Release,
    Stay,
}

/// What becomes of adverts with other addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtherAddresses {
    Remark,
    Refuse,
}
