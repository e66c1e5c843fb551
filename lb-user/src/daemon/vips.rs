//! Keeps the VIPs on the interface: level-triggered, and only those that are ours. Those of virtual
//! routers come and go with their roles, which is `vrrp`'s business; those with `without_backends =
//! "withdraw"` are there as far as `lead` finds nothing that they lack. A routing daemon announces what
//! is there: that is all that it is told.
//!
//! The program is attached and filled before an address is added and stays until after it is
//! removed: a packet that met the host's own TCP stack on the VIP would end its session. So where the
//! program outlives the daemon, the addresses do, too. Where it does not, they go when their lifetime
//! ends, unless a restart renews it first.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use anyhow::Context as _;
use tokio::time;
use tracing::warn;

use super::vrrp::Routers;
use crate::{
    config::model::{Config, Vip},
    control::{VipState, VipStatus},
    core::{
        event::{Event, Moved},
        presence::Lack,
    },
    io::netlink::{Interface, Netlink, NetlinkError, Unmarked, VipOrigin},
    journal::Journal,
};

/// How long a VIP stays when nobody renews it, unless it is to outlive the daemon: time for a restart
/// to find it still there, and for a few renewals to fail.
const LIFETIME: Duration = Duration::from_secs(30);

/// For all removals of a stop together; an address that takes longer is left, and said to be.
const RELEASE_DEADLINE: Duration = Duration::from_secs(3);

/// The interface that the program was attached to is no more.
#[derive(Debug, thiserror::Error)]
#[error(
    "interface {name} was removed, and the program with it: start tidegate again when it is back"
)]
pub(super) struct InterfaceGone {
    name: String,
}

/// What is to become of VIPs that were not assigned before.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Newcomers {
    Assign,
    /// Packets to them would meet maps that do not know them.
    Hold,
}

/// The VIPs of the configuration in force, and where they are.
pub(super) struct Vips {
    netlink: Netlink,
    interface: Interface,
    states: BTreeMap<IpAddr, VipState>,
    /// What is not to be there, and why.
    lacks: BTreeMap<IpAddr, Lack>,
    unmarked: Unmarked,
    lifetime: Duration,
    journal: Journal,
}

impl Vips {
    pub(super) fn new(netlink: Netlink, interface: Interface, journal: Journal) -> Self {
        Self {
            netlink,
            interface,
            states: BTreeMap::new(),
            lacks: BTreeMap::new(),
            unmarked: Unmarked::default(),
            lifetime: LIFETIME,
            journal,
        }
    }

    /// Whether whoever looks at the interface sees which addresses are ours.
    pub(super) fn marks_are_kept(&self) -> bool {
        self.unmarked.is_empty()
    }

    /// Has the addresses stay when nobody renews them any more, as the program does.
    pub(super) const fn outlive(&mut self) {
        self.lifetime = Duration::MAX;
    }

    /// The interface that the program is attached to.
    pub(super) const fn interface_index(&self) -> u32 {
        self.interface.index
    }

    /// The index of that interface, and what frames for it are sent to.
    pub(super) const fn carrier(&self) -> (u32, [u8; 6]) {
        (self.interface.index, self.interface.mac)
    }

    /// Addresses of the interface that a connection can be made from.
    pub(super) fn own_addresses(&self) -> Vec<IpAddr> {
        let addresses = self.interface.addresses.iter().map(|(address, _)| *address);
        addresses
            .filter(|address| !is_link_local(*address))
            .collect()
    }

    /// The interface's own address that the host itself would reach `destination` from; `None` if it
    /// would leave by another interface.
    ///
    /// # Errors
    ///
    /// If there is no route, or the kernel does not answer.
    pub(super) async fn source_towards(
        &self,
        destination: IpAddr,
    ) -> Result<Option<IpAddr>, NetlinkError> {
        let route = self.netlink.route(destination).await?;
        let is_here = route.interface == self.interface.index;
        let own = self.own_addresses();
        Ok(route
            .source
            .filter(|source| is_here && own.contains(source)))
    }

    /// The address that the host itself would reach `destination` from, by whatever interface.
    ///
    /// # Errors
    ///
    /// If there is no route, or the kernel does not answer.
    pub(super) async fn any_source_towards(
        &self,
        destination: IpAddr,
    ) -> Result<Option<IpAddr>, NetlinkError> {
        Ok(self.netlink.route(destination).await?.source)
    }

    /// Looks at the interface again: its addresses may have changed.
    ///
    /// # Errors
    ///
    /// If it is gone, be it that another has its name: the program went with it.
    pub(super) async fn refresh(&mut self) -> Result<(), InterfaceGone> {
        let name = &self.interface.name;
        match self.netlink.interface(name).await {
            Ok(found) if found.index == self.interface.index => self.interface = found,
            Ok(_) | Err(NetlinkError::NoSuchInterface { .. }) => {
                return Err(InterfaceGone { name: name.clone() });
            }
            // Nothing that the next look could not mend.
            Err(error) => warn!(%error, "interface cannot be looked at"),
        }
        Ok(())
    }

    /// Takes in which addresses are not to be there; says whether these are others than before, so that
    /// [`Self::ensure`] has something to do.
    pub(super) fn withhold(&mut self, lacks: BTreeMap<IpAddr, Lack>) -> bool {
        let is_news = !lacks.keys().eq(self.lacks.keys());
        self.lacks = lacks;
        is_news
    }

    /// Whether an address is there, whoever has put it there.
    pub(super) fn has(&self, address: IpAddr) -> bool {
        let state = self.states.get(&address);
        matches!(state, Some(VipState::Assigned | VipState::Left))
    }

    /// The addresses that this host is to have without a router, and has.
    pub(super) fn held(&self, config: &Config) -> impl Iterator<Item = IpAddr> {
        let vips = config.held_alone().map(Vip::address);
        vips.filter(|vip| self.has(*vip))
    }

    /// The addresses that are there only while their packets are served, and are not.
    pub(super) fn withdrawn(&self, config: &Config) -> impl Iterator<Item = IpAddr> {
        let vips = config.own_vips().filter(|vip| vip.is_withdrawn_unserved());
        vips.map(Vip::address).filter(|vip| !self.has(*vip))
    }

    /// Assigns what `config` wants assigned and is not, and renews what is; takes off what lacks
    /// something.
    ///
    /// # Errors
    ///
    /// With the first address that the kernel refuses to move; the others are tried all the same.
    pub(super) async fn ensure(
        &mut self,
        config: &Config,
        newcomers: Newcomers,
    ) -> Result<(), NetlinkError> {
        let mut outcome = Ok(());
        for vip in config.own_vips() {
            let state = match self.ensure_one(vip, newcomers).await {
                Ok(state) => state,
                Err(error) => {
                    outcome = outcome.and(Err(error));
                    let before = self.states.get(&vip.address()).copied();
                    // One that cannot be taken off is where it was.
                    let stays = before.filter(|_| self.lacks.contains_key(&vip.address()));
                    stays.unwrap_or(VipState::Absent)
                }
            };
            self.states.insert(vip.address(), state);
        }
        self.states
            .retain(|address, _| config.own_vips().any(|vip| vip.address() == *address));
        outcome
    }

    async fn ensure_one(
        &mut self,
        vip: &Vip,
        newcomers: Newcomers,
    ) -> Result<VipState, NetlinkError> {
        if !vip.assign() {
            return Ok(VipState::Unmanaged);
        }
        let (index, address) = (self.interface.index, vip.address());
        if let Some(lack) = self.lacks.get(&address) {
            return self.withdraw(address, *lack).await;
        }
        let before = self.states.get(&address).copied();
        let is_new = before != Some(VipState::Assigned);
        if is_new && newcomers == Newcomers::Hold {
            return Ok(VipState::Absent);
        }
        // One that no later process could know as ours must go by itself.
        let lifetime = if is_new || !self.unmarked.is_empty() {
            LIFETIME
        } else {
            self.lifetime
        };
        let origin = self
            .netlink
            .ensure_vip(index, address, vip.prefix(), lifetime, &mut self.unmarked)
            .await?;
        match before {
            Some(VipState::Assigned) => {}
            Some(VipState::Withdrawn | VipState::Left) => {
                let (vip, interface) = (address, self.interface.name.clone());
                self.journal.tell(Event::VipAnnounced { vip, interface });
            }
            Some(VipState::Absent | VipState::Standby | VipState::Unmanaged) | None => self.tell(
                address,
                match origin {
                    VipOrigin::Ours => Moved::Assigned,
                    VipOrigin::Foreign => Moved::Found,
                },
            ),
        }
        Ok(VipState::Assigned)
    }

    /// Takes an address off, if it is ours, and tells of it once.
    async fn withdraw(&mut self, vip: IpAddr, lack: Lack) -> Result<VipState, NetlinkError> {
        let left = self
            .netlink
            .remove_vip(self.interface.index, vip, &mut self.unmarked)
            .await?;
        let state = if left {
            VipState::Left
        } else {
            VipState::Withdrawn
        };
        if self.states.get(&vip) != Some(&state) {
            let interface = self.interface.name.clone();
            self.journal.tell(Event::VipWithdrawn {
                vip,
                interface,
                lack,
                left,
            });
        }
        Ok(state)
    }

    /// Removes every address that carries our mark and that `config` does not want assigned: what
    /// an earlier configuration, or a run that was killed, has left. What a router holds, or is to hold,
    /// is its own: `is_routers`.
    ///
    /// # Errors
    ///
    /// If the kernel does not answer, or refuses.
    pub(super) async fn remove_unwanted(
        &mut self,
        config: &Config,
        is_routers: impl Fn(IpAddr) -> bool,
    ) -> Result<(), NetlinkError> {
        let ours = self
            .netlink
            .our_vips(self.interface.index, &self.unmarked)
            .await?;
        for address in ours {
            let mut wanted = config.held_alone();
            let is_wanted = wanted.any(|vip| vip.address() == address);
            if !is_wanted && !is_routers(address) {
                self.netlink
                    .remove_vip(self.interface.index, address, &mut self.unmarked)
                    .await?;
                self.states.remove(&address);
                self.tell(address, Moved::Removed);
            }
        }
        Ok(())
    }

    /// Removes all that is ours, at the end.
    ///
    /// # Errors
    ///
    /// If an address may still be there: without the program the host itself would answer for it.
    pub(super) async fn release(&mut self) -> anyhow::Result<()> {
        let removal = async {
            for address in self
                .netlink
                .our_vips(self.interface.index, &self.unmarked)
                .await?
            {
                self.netlink
                    .remove_vip(self.interface.index, address, &mut self.unmarked)
                    .await?;
                self.tell(address, Moved::Removed);
            }
            Ok::<(), NetlinkError>(())
        };
        let outcome = time::timeout(RELEASE_DEADLINE, removal).await;
        outcome
            .context("the kernel did not answer in time")
            .and_then(|removed| Ok(removed?))
            .context("VIPs could not be removed, check `ip address`")
    }

    fn tell(&self, vip: IpAddr, what: Moved) {
        let interface = self.interface.name.clone();
        self.journal.tell(Event::VipMoved {
            vip,
            interface,
            what,
        });
    }

    /// What there is to tell, in the order of the file.
    pub(super) fn status(&self, config: &Config, routers: &Routers) -> Vec<VipStatus> {
        let status = |vip: &Vip| VipStatus {
            address: format!("{}/{}", vip.address(), vip.prefix()),
            interface: self.interface.name.clone(),
            state: routers
                .vip_state(vip.address())
                .or_else(|| self.states.get(&vip.address()).copied())
                .unwrap_or(VipState::Absent),
            lack: self.lacks.get(&vip.address()).map(ToString::to_string),
        };
        config.vips().iter().map(status).collect()
    }
}

const fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}
