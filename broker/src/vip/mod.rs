//! Direct server return: holds the virtual addresses on the loopback interface.
//!
//! A backend that answers clients directly must accept packets to the virtual address and must
//! never claim it towards its neighbours. So each address is added to the interface, out of the
//! way of source selection, and before that `arp_ignore` and `arp_announce` are raised. IPv6
//! needs no such setting: the kernel answers a neighbour solicitation only on the interface that
//! holds the address.
//!
//! A [`Lease`] undoes exactly what it did. What it is about to do is written down first
//! (`ledger`), so that after a crash the next lease knows what was ours and how it was before.
//! `netlink` and `sysctl` are the only places that touch the kernel.

mod ledger;
mod netlink;
mod sysctl;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeSet,
    io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use tracing::{info, warn};

use ledger::{Ledger, Record};
use netlink::Netlink;
use sysctl::Raised;

/// Where the ledgers are: a directory that is empty after a reboot, as the settings are.
const STATE_DIR: &str = "/run/tidegate-broker";

/// An address and the length of its prefix.
type Prefix = (IpAddr, u8);

/// Why the addresses could not be held or given back.
#[derive(Debug, thiserror::Error)]
pub enum VipError {
    /// A longer prefix would make the whole subnet local to this host.
    #[error("{address}/{prefix_len} is not one address: use /{}", host_len(.address))]
    NotOneAddress { address: IpAddr, prefix_len: u8 },
    #[error("there is no interface {interface}")]
    NoInterface { interface: String },
    #[error("another process holds the virtual addresses of {interface} (see {})", path.display())]
    Held { interface: String, path: PathBuf },
    #[error("cannot keep {}", path.display())]
    Ledger { path: PathBuf, source: io::Error },
    #[error("cannot set {}", path.display())]
    Sysctl { path: PathBuf, source: io::Error },
    #[error("cannot open a netlink socket")]
    Socket(#[source] io::Error),
    #[error("the kernel refused to {action} {address}")]
    Address {
        action: &'static str,
        address: IpAddr,
        source: io::Error,
    },
    #[error("netlink request failed")]
    Netlink(#[source] rtnetlink::Error),
    #[error("the kernel did not answer a netlink request")]
    Silent,
}

/// The virtual addresses are on the interface for as long as this is held.
///
/// Give it back with [`Lease::release`]. A lease that is only dropped leaves everything in place
/// for the next process, as a crash does.
#[derive(Debug)]
#[must_use = "dropping a lease leaves the addresses behind"]
pub struct Lease {
    interface: String,
    ledger: Ledger,
    record: Record,
}

impl Lease {
    /// Adds `addresses` to `interface`, and raises `arp_ignore` and `arp_announce` if one of them
    /// is an IPv4 address.
    ///
    /// An address that somebody else has put there is used and will be left there; one that a
    /// crashed process of ours left behind is taken over.
    ///
    /// # Errors
    ///
    /// When an address is not a single one, the interface does not exist, another process holds
    /// a lease on it, or the kernel refuses. Nothing is left changed then.
    pub async fn acquire(addresses: &[(IpAddr, u8)], interface: &str) -> Result<Self, VipError> {
        Self::acquire_in(addresses, interface, Path::new(STATE_DIR)).await
    }

    async fn acquire_in(
        addresses: &[Prefix],
        interface: &str,
        state_dir: &Path,
    ) -> Result<Self, VipError> {
        for &(address, prefix_len) in addresses {
            if prefix_len != host_len(&address) {
                return Err(VipError::NotOneAddress {
                    address,
                    prefix_len,
                });
            }
        }
        let netlink = Netlink::open()?;
        let link = netlink.link(interface).await?;
        if !link.up {
            warn!(
                interface,
                "interface is down: its addresses will not be reachable"
            );
        }
        let present = netlink.addresses(&link).await?;
        let (ledger, left) = Ledger::open(state_dir, interface)?;
        let plan = Plan::new(addresses, interface, &present, left)?;
        let mut lease = Self {
            interface: interface.to_owned(),
            ledger,
            record: plan.taken_over(),
        };
        if let Err(error) = lease.apply(&plan, &netlink, &link).await {
            if let Err(e) = lease.release().await {
                warn!(error = %e, "could not undo what was done for the virtual addresses");
            }
            return Err(error);
        }
        Ok(lease)
    }

    /// Removes the addresses and puts the settings back, as far as nobody else has changed them.
    ///
    /// # Errors
    ///
    /// When the kernel refuses. What was done stays written down for the next lease.
    pub async fn release(self) -> Result<(), VipError> {
        let Self {
            interface,
            ledger,
            record,
        } = self;
        let netlink = Netlink::open()?;
        let mut result = Ok(());
        match netlink.link(&interface).await {
            Ok(link) => {
                for address in record.added {
                    let removed = netlink.remove(&link, address).await;
                    if removed.is_ok() {
                        info!(%address, interface, "virtual address removed");
                    }
                    result = result.and(removed);
                }
            }
            // Its addresses have gone with it.
            Err(VipError::NoInterface { .. }) => {}
            Err(error) => result = Err(error),
        }
        for setting in &record.raised {
            result = result.and(setting.restore());
        }
        result.and_then(|()| ledger.remove())
    }

    /// Carries out the plan; what is done so far is in the record, also after an error.
    async fn apply(
        &mut self,
        plan: &Plan,
        netlink: &Netlink,
        link: &netlink::Link,
    ) -> Result<(), VipError> {
        self.ledger.write(&plan.everything())?;
        let interface = &self.interface;
        for &address in &plan.stale {
            netlink.remove(link, address).await?;
            info!(%address, interface, "left-over virtual address removed");
        }
        plan.lower.iter().try_for_each(Raised::restore)?;
        // First the silence, then the address: it must never be claimed in between.
        for setting in &plan.raise {
            setting.raise()?;
            self.record.raised.push(setting.clone());
        }
        for &address in &plan.add {
            netlink.add(link, address).await?;
            self.record.added.insert(address);
            info!(%address, interface, "virtual address added");
        }
        self.ledger.write(&self.record)
    }
}

/// What a new lease has to do, given what is there and what a crashed process has left.
struct Plan {
    add: BTreeSet<IpAddr>,
    /// Ours already.
    keep: BTreeSet<IpAddr>,
    /// Ours, but not wanted any more.
    stale: BTreeSet<IpAddr>,
    raise: Vec<Raised>,
    lower: Vec<Raised>,
}

impl Plan {
    fn new(
        addresses: &[Prefix],
        interface: &str,
        present: &BTreeSet<IpAddr>,
        left: Record,
    ) -> Result<Self, VipError> {
        let wanted: BTreeSet<IpAddr> = addresses.iter().map(|&(address, _)| address).collect();
        let ours: BTreeSet<IpAddr> = left.added.intersection(present).copied().collect();
        let (raise, lower) = if wanted.iter().any(IpAddr::is_ipv4) {
            (sysctl::plan(interface, &left.raised)?, Vec::new())
        } else {
            (Vec::new(), left.raised)
        };
        Ok(Self {
            add: wanted.difference(present).copied().collect(),
            keep: wanted.intersection(&ours).copied().collect(),
            stale: ours.difference(&wanted).copied().collect(),
            raise,
            lower,
        })
    }

    fn taken_over(&self) -> Record {
        Record {
            added: self.keep.clone(),
            raised: Vec::new(),
        }
    }

    /// All that will have to be undone if the process dies at any point of the plan.
    fn everything(&self) -> Record {
        let added = self.add.iter().chain(&self.keep).chain(&self.stale);
        let raised = self.raise.iter().chain(&self.lower);
        Record {
            added: added.copied().collect(),
            raised: raised.cloned().collect(),
        }
    }
}

/// The size in bytes of the largest IP packet that an interface carries.
///
/// # Errors
/// When there is no such interface, or the kernel does not answer.
pub async fn interface_mtu(interface: &str) -> Result<u32, VipError> {
    Ok(Netlink::open()?.link(interface).await?.mtu)
}

/// The prefix length of one address.
fn host_len(address: &IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}
