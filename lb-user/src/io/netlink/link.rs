//! Interfaces.

use std::net::IpAddr;

use futures_util::TryStreamExt as _;
use rtnetlink::packet_route::{
    address::{AddressAttribute, AddressHeaderFlags, AddressMessage},
    link::{LinkAttribute, LinkFlags, LinkMessage},
};

use super::{Netlink, NetlinkError, ask};

/// An interface as the kernel describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    pub index: u32,
    pub name: String,
    pub mac: [u8; 6],
    /// Whether it is switched on, and its cable plugged in.
    pub is_up: bool,
    /// Its addresses that can be used, with their prefix lengths.
    pub addresses: Vec<(IpAddr, u8)>,
}

impl Netlink {
    /// Finds an interface by its name.
    ///
    /// # Errors
    ///
    /// If there is none, it has no MAC address, or the kernel does not answer.
    pub async fn interface(&self, name: &str) -> Result<Interface, NetlinkError> {
        let mut links = self
            .handle()?
            .link()
            .get()
            .match_name(name.to_owned())
            .execute();
        let found = ask("find an interface", links.try_next()).await;
        let message = match found {
            Ok(Some(message)) => message,
            Ok(None) => {
                return Err(NetlinkError::NoSuchInterface {
                    name: name.to_owned(),
                });
            }
            Err(error) if error.errno() == Some(libc::ENODEV) => {
                return Err(NetlinkError::NoSuchInterface {
                    name: name.to_owned(),
                });
            }
            Err(error) => return Err(error),
        };
        let mut interface = describe(&message, name)?;
        interface.addresses = self.addresses(interface.index).await?;
        Ok(interface)
    }

    /// The MAC address that frames leaving by an interface have as their source, and the size of the
    /// largest IP packet that fits into one.
    ///
    /// # Errors
    ///
    /// If there is no such interface, it has no MAC address, or the kernel does not answer.
    pub(super) async fn sender(&self, index: u32) -> Result<([u8; 6], u32), NetlinkError> {
        let mut links = self.handle()?.link().get().match_index(index).execute();
        let found = ask("find an interface by its index", links.try_next()).await?;
        let no_interface = || NetlinkError::NoSuchInterface {
            name: format!("index {index}"),
        };
        let message = found.ok_or_else(no_interface)?;
        let mac = describe(&message, &format!("index {index}"))?.mac;
        let mtu = message.attributes.iter().find_map(|attribute| {
            if let LinkAttribute::Mtu(mtu) = attribute {
                Some(*mtu)
            } else {
                None
            }
        });
        Ok((mac, mtu.unwrap_or(0)))
    }

    async fn addresses(&self, index: u32) -> Result<Vec<(IpAddr, u8)>, NetlinkError> {
        let messages = self.address_messages(index).await?;
        Ok(messages
            .iter()
            .filter(|message| !is_tentative(message))
            .filter_map(|message| Some((local(message)?, message.header.prefix_len)))
            .collect())
    }

    pub(super) async fn address_messages(
        &self,
        index: u32,
    ) -> Result<Vec<AddressMessage>, NetlinkError> {
        let request = self.handle()?.address().get().set_link_index_filter(index);
        ask("list addresses", request.execute().try_collect()).await
    }
}

/// The address itself: on a point-to-point interface `Address` is the peer's.
pub(super) fn local(message: &AddressMessage) -> Option<IpAddr> {
    let mut found = None;
    for attribute in &message.attributes {
        if let AddressAttribute::Local(address) = attribute {
            return Some(*address);
        }
        if let AddressAttribute::Address(address) = attribute {
            found = Some(*address);
        }
    }
    found
}

/// Whether duplicate address detection is not over: nothing can be sent from it (RFC 4862, 5.4).
fn is_tentative(message: &AddressMessage) -> bool {
    let flags = message.header.flags;
    flags.contains(AddressHeaderFlags::Tentative)
}

fn describe(message: &LinkMessage, name: &str) -> Result<Interface, NetlinkError> {
    let mut mac = None;
    for attribute in &message.attributes {
        if let LinkAttribute::Address(bytes) = attribute {
            mac = <[u8; 6]>::try_from(bytes.as_slice()).ok();
        }
    }
    let mac = mac.ok_or_else(|| NetlinkError::NotEthernet {
        name: name.to_owned(),
    })?;
    Ok(Interface {
        index: message.header.index,
        name: name.to_owned(),
        mac,
        is_up: message
            .header
            .flags
            .contains(LinkFlags::Up | LinkFlags::LowerUp),
        addresses: Vec::new(),
    })
}
