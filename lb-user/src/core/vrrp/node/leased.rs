//! Going on with a role that an earlier process had.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Instant;

use crate::config::model::Vrrp;

/// The number of no router: whose lease has it, no later process goes on with the role.
pub(super) const NOBODY: u8 = 0;

/// What an earlier process has said of addresses, by router number: until when no peer can have taken
/// them over. See [`Machine::lease`](super::super::machine::Machine::lease).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leased(BTreeMap<IpAddr, (u8, Instant)>);

impl FromIterator<(IpAddr, u8, Instant)> for Leased {
    fn from_iter<T: IntoIterator<Item = (IpAddr, u8, Instant)>>(all: T) -> Self {
        let all = all.into_iter();
        Self(all.map(|(vip, vrid, until)| (vip, (vrid, until))).collect())
    }
}

impl Leased {
    /// Until when a router is Active by them: as long as all its addresses are its own.
    pub(super) fn until(&self, vrrp: &Vrrp) -> Option<Instant> {
        let leases = vrrp.vips().iter().map(|vip| {
            let (vrid, until) = self.0.get(vip)?;
            (*vrid == vrrp.vrid().get()).then_some(*until)
        });
        leases.collect::<Option<Vec<_>>>()?.into_iter().min()
    }

    /// Whether an address is that of a router that may go on.
    #[must_use]
    pub fn has<'a>(&self, vip: IpAddr, vrrps: impl IntoIterator<Item = &'a Vrrp>) -> bool {
        let mut vrrps = vrrps.into_iter();
        vrrps.any(|vrrp| vrrp.vips().contains(&vip) && self.until(vrrp).is_some())
    }
}
