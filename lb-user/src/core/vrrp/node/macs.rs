//! Virtual MAC addresses (RFC 9568, 7.3): the addresses stay where neighbours know them, whoever is
//! Active.

use std::collections::BTreeMap;
use std::net::IpAddr;

use lb_common::abi::VirtualMac;

use super::Node;
use super::unit::Unit;

/// Those of a node's routers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Macs {
    /// The number of the router, by address.
    pub vips: BTreeMap<IpAddr, u8>,
    /// Whether each is this node's: its router is Active.
    pub here: BTreeMap<VirtualMac, bool>,
}

impl Macs {
    /// That of an address.
    #[must_use]
    pub fn of(&self, vip: &IpAddr) -> Option<VirtualMac> {
        let number = self.vips.get(vip)?;
        Some(match vip {
            IpAddr::V4(_) => VirtualMac::v4(*number),
            IpAddr::V6(_) => VirtualMac::v6(*number),
        })
    }
}

impl Node {
    /// The virtual MAC addresses of its routers, as far as they have some.
    #[must_use]
    pub fn macs(&self) -> Macs {
        let mut macs = Macs::default();
        for (vrrp, is_active) in self.units.iter().flat_map(Unit::roles) {
            if let Some(mac) = vrrp.virtual_mac() {
                let vips = vrrp.vips().iter().copied();
                macs.vips.extend(vips.map(|vip| (vip, vrrp.vrid().get())));
                macs.here.insert(mac, is_active);
            }
        }
        macs
    }
}
