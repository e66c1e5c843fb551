//! Addresses on an interface; the only file of the broker that names rtnetlink.

use std::{collections::BTreeSet, io, net::IpAddr, time::Duration};

use futures_util::TryStreamExt as _;
use rtnetlink::{
    Handle,
    packet_route::{
        address::{AddressAttribute, AddressFlags, AddressScope, CacheInfo},
        link::{LinkAttribute, LinkFlags},
    },
};
use tokio::{task::JoinHandle, time::timeout};

use super::{VipError, host_len};

/// The kernel answers at once; a lost answer must not hang the broker's start or end.
const ANSWER: Duration = Duration::from_secs(5);
const FOREVER: u32 = u32::MAX;

/// A netlink socket for a few requests.
pub(super) struct Netlink {
    handle: Handle,
    connection: JoinHandle<()>,
}

/// An interface as it was when it was looked up.
#[derive(Debug)]
pub(super) struct Link {
    index: u32,
    pub(super) up: bool,
    /// In bytes.
    pub(super) mtu: u32,
}

impl Netlink {
    pub(super) fn open() -> Result<Self, VipError> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(VipError::Socket)?;
        Ok(Self {
            handle,
            connection: tokio::spawn(connection),
        })
    }

    pub(super) async fn link(&self, interface: &str) -> Result<Link, VipError> {
        let mut links = self.handle.link().get().match_name(interface).execute();
        let missing = || VipError::NoInterface {
            interface: interface.to_owned(),
        };
        match answer(links.try_next()).await? {
            Ok(Some(link)) => Ok(Link {
                index: link.header.index,
                up: link.header.flags.contains(LinkFlags::Up),
                mtu: mtu(&link.attributes),
            }),
            Ok(None) => Err(missing()),
            Err(e) if errno(&e) == Some(libc::ENODEV) => Err(missing()),
            Err(e) => Err(VipError::Netlink(e)),
        }
    }

    pub(super) async fn addresses(&self, link: &Link) -> Result<BTreeSet<IpAddr>, VipError> {
        let request = self
            .handle
            .address()
            .get()
            .set_link_index_filter(link.index);
        let messages: Vec<_> = answer(request.execute().try_collect())
            .await?
            .map_err(VipError::Netlink)?;
        let attributes = messages.into_iter().flat_map(|message| message.attributes);
        Ok(attributes
            .filter_map(|attribute| {
                let AddressAttribute::Address(address) = attribute else {
                    return None;
                };
                Some(address)
            })
            .collect())
    }

    /// Adds one address that no connection of this host chooses as its source by itself.
    pub(super) async fn add(&self, link: &Link, address: IpAddr) -> Result<(), VipError> {
        let mut request = self
            .handle
            .address()
            .add(link.index, address, host_len(&address));
        let message = request.message_mut();
        match address {
            IpAddr::V4(_) => message.header.scope = AddressScope::Host,
            IpAddr::V6(_) => {
                // An address whose preferred time is over is deprecated (RFC 4862, 5.5.4). There
                // is nobody on the loopback interface to detect a duplicate.
                let mut lifetime = CacheInfo::default();
                lifetime.ifa_preferred = 0;
                lifetime.ifa_valid = FOREVER;
                message
                    .attributes
                    .push(AddressAttribute::CacheInfo(lifetime));
                message
                    .attributes
                    .push(AddressAttribute::Flags(AddressFlags::Nodad));
            }
        }
        done(
            answer(request.execute()).await?,
            "add",
            address,
            &[libc::EEXIST],
        )
    }

    pub(super) async fn remove(&self, link: &Link, address: IpAddr) -> Result<(), VipError> {
        // The kernel compares index, prefix and address; the rest of the message may differ.
        let mut like = self
            .handle
            .address()
            .add(link.index, address, host_len(&address));
        let message = like.message_mut().clone();
        let request = self.handle.address().del(message);
        done(
            answer(request.execute()).await?,
            "remove",
            address,
            &[libc::EADDRNOTAVAIL],
        )
    }
}

impl Drop for Netlink {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// Every interface has one.
fn mtu(attributes: &[LinkAttribute]) -> u32 {
    let mtu = attributes.iter().find_map(|attribute| {
        let LinkAttribute::Mtu(mtu) = attribute else {
            return None;
        };
        Some(*mtu)
    });
    mtu.unwrap_or_default()
}

/// Some refusals mean that it is already as it should be.
fn done(
    result: Result<(), rtnetlink::Error>,
    action: &'static str,
    address: IpAddr,
    fine: &[i32],
) -> Result<(), VipError> {
    let Err(error) = result else { return Ok(()) };
    match errno(&error) {
        Some(code) if fine.contains(&code) => Ok(()),
        Some(code) => Err(VipError::Address {
            action,
            address,
            source: io::Error::from_raw_os_error(code),
        }),
        None => Err(VipError::Netlink(error)),
    }
}

fn errno(error: &rtnetlink::Error) -> Option<i32> {
    let rtnetlink::Error::NetlinkError(message) = error else {
        return None;
    };
    Some(-message.raw_code())
}

async fn answer<T>(request: impl Future<Output = T>) -> Result<T, VipError> {
    timeout(ANSWER, request).await.map_err(|_| VipError::Silent)
}
