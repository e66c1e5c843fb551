//! Settings of the routers that the configuration has.

use std::net::IpAddr;

use super::advert::{Addresses, Dialect, Interval, Password, Priority, Version, Vrid};
use super::settings::{
    AcceptMode, Announcements, OtherAddresses, Peers, Preemption, Settings, Unfit,
};
use crate::config::model::{self, VrrpChecksum, VrrpVersion};

impl Settings {
    /// Those of a configured router; `primary` is the primary address of its interface.
    ///
    /// # Errors
    /// A rule that they break with this address, as the configuration alone breaks none.
    pub fn of(vrrp: &model::Vrrp, primary: IpAddr) -> Result<Self, Unfit> {
        let version = match vrrp.version() {
            VrrpVersion::V2 => Version::V2,
            VrrpVersion::V3 => Version::V3,
        };
        let interval = Interval::from_duration(vrrp.advert_interval());
        let password = vrrp.password().map(|password| password.expose());
        let peers = match vrrp.peers() {
            [] => Peers::Multicast,
            peers => Peers::Unicast(peers.to_vec()),
        };
        let settings = Self {
            version,
            vrid: Vrid::from(vrrp.vrid()),
            priority: Priority(vrrp.priority().get()),
            interval: interval.ok_or(Unfit::IntervalV3)?,
            source: vrrp.source().unwrap_or(primary),
            addresses: Addresses::new(vrrp.vips()).ok_or(Unfit::Family)?,
            peers,
            password: password.and_then(Password::new),
            dialect: match vrrp.checksum() {
                VrrpChecksum::PseudoHeader => Dialect::PseudoHeader,
                VrrpChecksum::Message => Dialect::Message,
            },
            other_addresses: match vrrp.other_addresses() {
                model::OtherAddresses::Remark => OtherAddresses::Remark,
                model::OtherAddresses::Refuse => OtherAddresses::Refuse,
            },
            preemption: vrrp
                .preempt_after()
                .map_or(Preemption::Never, Preemption::After),
            startup_delay: vrrp.startup_delay(),
            // The host answers for its addresses; the services' packets never reach it.
            accept_mode: AcceptMode::Accept,
            announcements: Announcements {
                repeats: vrrp.announce_repeats(),
                interval: vrrp.announce_interval(),
                refresh: vrrp.announce_refresh(),
            },
        };
        settings.check()?;
        Ok(settings)
    }
}

#[cfg(test)]
mod tests;
