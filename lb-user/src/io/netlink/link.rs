//! Interfaces.

use std::net::IpAddr;

use futures_util::TryStreamExt as _;
use rtnetlink::packet_route::{
    address::{AddressAttribute, AddressHeaderFlags, AddressMessage},
    link::{LinkAttribute, LinkFlags, LinkMessage, LinkXdp, XdpAttached},
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

/// An interface, as it is judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub mac: [u8; 6],
    pub is_up: bool,
    pub mtu: u32,
    pub receive_queues: u32,
    /// The XDP program on it.
    pub program: Option<LinkProgram>,
    pub addresses: Vec<(IpAddr, u8)>,
}

/// An XDP program on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkProgram {
    /// The kernel's number of it.
    pub id: u32,
    pub is_generic: bool,
}

impl Netlink {
    /// Finds an interface by its name, with what else there is to know of it.
    ///
    /// # Errors
    ///
    /// As [`Netlink::interface`].
    pub async fn link(&self, name: &str) -> Result<Link, NetlinkError> {
        let message = self.link_message(name).await?;
        let Interface {
            index, mac, is_up, ..
        } = describe(&message, name)?;
        let mut link = Link {
            index,
            mac,
            is_up,
            mtu: 0,
            receive_queues: 0,
            program: None,
            addresses: self.addresses(index).await?,
        };
        for attribute in &message.attributes {
            if let LinkAttribute::Mtu(mtu) = attribute {
                link.mtu = *mtu;
            } else if let LinkAttribute::NumRxQueues(queues) = attribute {
                link.receive_queues = *queues;
            } else if let LinkAttribute::Xdp(parts) = attribute {
                link.program = program(parts);
            }
        }
        Ok(link)
    }

    /// Finds an interface by its name.
    ///
    /// # Errors
    ///
    /// If there is none, it has no MAC address, or the kernel does not answer.
    pub async fn interface(&self, name: &str) -> Result<Interface, NetlinkError> {
        let mut interface = describe(&self.link_message(name).await?, name)?;
        interface.addresses = self.addresses(interface.index).await?;
        Ok(interface)
    }

    async fn link_message(&self, name: &str) -> Result<LinkMessage, NetlinkError> {
        let mut links = self
            .handle()?
            .link()
            .get()
            .match_name(name.to_owned())
            .execute();
        let found = ask("find an interface", links.try_next()).await;
        let no_such = || NetlinkError::NoSuchInterface {
            name: name.to_owned(),
        };
        match found {
            Ok(found) => found.ok_or_else(no_such),
            Err(error) if error.errno() == Some(libc::ENODEV) => Err(no_such()),
            Err(error) => Err(error),
        }
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

/// The program of `IFLA_XDP`, if there is one.
fn program(parts: &[LinkXdp]) -> Option<LinkProgram> {
    let mut id = 0;
    let mut is_generic = false;
    for part in parts {
        if let LinkXdp::ProgId(number) = part {
            id = *number;
        } else if let LinkXdp::Attached(XdpAttached::SocketBuffer) = part {
            is_generic = true;
        }
    }
    (id != 0).then_some(LinkProgram { id, is_generic })
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
