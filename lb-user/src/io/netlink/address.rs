//! Virtual addresses on an interface.
//!
//! The kernel keeps a note with every address saying who added it (`IFA_PROTO`, Linux 5.18). Ours is
//! [`OWNER`]: so an address left behind by a run that was killed is known as ours, and one that the
//! operator had put there is left alone. An older kernel drops the note: then only this process knows
//! what it added, as [`Unmarked`].
//!
//! Our addresses have a lifetime, and go by themselves when nobody renews it: where the program goes
//! with the daemon, the host would answer for the VIP, resetting every session; and those of a virtual
//! router are another node's by then.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use rtnetlink::packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressProtocol, CacheInfo,
};

use super::{Netlink, NetlinkError, ask, link::local};

/// Marks an address as added by Tidegate. No well-known daemon uses this number.
const OWNER: AddressProtocol = AddressProtocol::Other(0x54);

/// Who put a VIP where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VipOrigin {
    /// This daemon, or a run of it that could not clean up.
    Ours,
    /// Somebody else: it stays when we go.
    Foreign,
}

/// What this process added where the kernel keeps no note of it.
#[derive(Debug, Default)]
pub struct Unmarked(BTreeSet<IpAddr>);

impl Netlink {
    /// Puts an address on an interface by one question, and says whether it was not there before. On
    /// Linux before 5.18 it is ours only after [`Self::note_vip`].
    ///
    /// # Errors
    ///
    /// If the kernel refuses or does not answer.
    pub async fn add_vip(
        &self,
        interface: u32,
        address: IpAddr,
        prefix_length: u8,
        lifetime: Duration,
    ) -> Result<bool, NetlinkError> {
        let addresses = self.handle()?.address();
        let mut request = addresses.add(interface, address, prefix_length);
        describe(request.message_mut(), address, lifetime);
        match ask("add an address", request.execute()).await {
            Ok(()) => Ok(true),
            Err(error) if error.errno() == Some(libc::EEXIST) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Remembers an address that was added just now where the kernel does not.
    ///
    /// # Errors
    ///
    /// If the kernel does not answer.
    pub async fn note_vip(
        &self,
        interface: u32,
        address: IpAddr,
        unmarked: &mut Unmarked,
    ) -> Result<(), NetlinkError> {
        let (ours, others) = self.holders(interface, address, unmarked).await?;
        // Where the kernel keeps a note, what has none is somebody else's.
        if ours.is_empty() {
            others.iter().for_each(|added| unmarked.note(added));
        }
        Ok(())
    }

    /// Puts an address on an interface, unless it is there; if it is and is ours, has it have this
    /// prefix, and renews its lifetime: how many whole seconds it stays when nobody renews it; it stays for good if these do not
    /// fit into 32 bits.
    ///
    /// # Errors
    ///
    /// If the kernel refuses or does not answer.
    pub async fn ensure_vip(
        &self,
        interface: u32,
        address: IpAddr,
        prefix_length: u8,
        lifetime: Duration,
        unmarked: &mut Unmarked,
    ) -> Result<VipOrigin, NetlinkError> {
        let (ours, theirs) = self.holders(interface, address, unmarked).await?;
        if ours.is_empty() && !theirs.is_empty() {
            return Ok(VipOrigin::Foreign);
        }
        let is_right = |message: &AddressMessage| message.header.prefix_len == prefix_length;
        let (right, stale): (Vec<_>, Vec<_>) = ours.into_iter().partition(is_right);
        // IPv4 has the same address with several prefixes, so that it need not go in between.
        let (before, after) = match address {
            IpAddr::V4(_) => (Vec::new(), stale),
            IpAddr::V6(_) => (stale, Vec::new()),
        };
        self.remove_all(before).await?;
        if right.is_empty() {
            // Somebody may have been faster.
            if !self
                .add_vip(interface, address, prefix_length, lifetime)
                .await?
            {
                return Ok(VipOrigin::Foreign);
            }
            self.note_vip(interface, address, unmarked).await?;
        } else {
            let addresses = self.handle()?.address();
            let mut request = addresses.add(interface, address, prefix_length).replace();
            describe(request.message_mut(), address, lifetime);
            ask("renew an address", request.execute()).await?;
        }
        self.remove_all(after).await?;
        Ok(VipOrigin::Ours)
    }

    /// Takes an address off an interface if it is there and ours; says whether somebody else's is there,
    /// and stays.
    ///
    /// # Errors
    ///
    /// If the kernel refuses or does not answer.
    pub async fn remove_vip(
        &self,
        interface: u32,
        address: IpAddr,
        unmarked: &mut Unmarked,
    ) -> Result<bool, NetlinkError> {
        let (ours, theirs) = self.holders(interface, address, unmarked).await?;
        self.remove_all(ours).await?;
        unmarked.0.remove(&address);
        Ok(!theirs.is_empty())
    }

    async fn remove_all(&self, messages: Vec<AddressMessage>) -> Result<(), NetlinkError> {
        for message in messages {
            let request = self.handle()?.address().del(message);
            match ask("remove an address", request.execute()).await {
                Ok(()) => {}
                // Gone already, or gone with its interface.
                Err(error) if matches!(error.errno(), Some(libc::EADDRNOTAVAIL | libc::ENODEV)) => {
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The addresses on an interface that are ours.
    ///
    /// # Errors
    ///
    /// If the kernel does not answer.
    pub async fn our_vips(
        &self,
        interface: u32,
        unmarked: &Unmarked,
    ) -> Result<BTreeSet<IpAddr>, NetlinkError> {
        let messages = self.address_messages(interface).await?;
        let ours = messages
            .iter()
            .filter(|message| origin(message, unmarked) == VipOrigin::Ours);
        Ok(ours.filter_map(local).collect())
    }

    /// An address as it is on an interface, with each prefix that it has there: what is ours, and what
    /// is not.
    async fn holders(
        &self,
        interface: u32,
        address: IpAddr,
        unmarked: &Unmarked,
    ) -> Result<(Vec<AddressMessage>, Vec<AddressMessage>), NetlinkError> {
        let messages = self.address_messages(interface).await?.into_iter();
        let found = messages.filter(|message| local(message) == Some(address));
        Ok(found.partition(|message| origin(message, unmarked) == VipOrigin::Ours))
    }
}

/// Says what an address of ours has beside its prefix.
fn describe(message: &mut AddressMessage, address: IpAddr, lifetime: Duration) {
    let lifetime = u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX);
    let mut lifetimes = CacheInfo::default();
    lifetimes.ifa_valid = lifetime;
    lifetimes.ifa_preferred = lifetime;
    if address.is_ipv6() {
        // Keeps the host from choosing the VIP as the source of connections of its own, health
        // probes among them: answers to it would go through the program (RFC 6724, section 5,
        // rule 3). IPv4 picks by the route.
        lifetimes.ifa_preferred = 0;
        // The backends in DSR hold the address too: duplicate address detection would find them
        // and disable it here.
        message.header.flags |= AddressHeaderFlags::Nodad;
        let flags = AddressAttribute::Flags(AddressFlags::Nodad);
        message.attributes.push(flags);
    }
    let attributes = &mut message.attributes;
    attributes.push(AddressAttribute::Protocol(OWNER));
    attributes.push(AddressAttribute::CacheInfo(lifetimes));
}

impl Unmarked {
    /// Whether the kernel keeps a note of all that this process has added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes in what the kernel says of an address that was added just now.
    fn note(&mut self, added: &AddressMessage) {
        if let Some(address) = local(added)
            && !is_marked(added)
        {
            self.0.insert(address);
        }
    }
}

fn origin(message: &AddressMessage, unmarked: &Unmarked) -> VipOrigin {
    let is_known = local(message).is_some_and(|address| unmarked.0.contains(&address));
    if is_marked(message) || is_known {
        VipOrigin::Ours
    } else {
        VipOrigin::Foreign
    }
}

fn is_marked(message: &AddressMessage) -> bool {
    let mark = AddressAttribute::Protocol(OWNER);
    message.attributes.contains(&mark)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::{AddressAttribute, AddressMessage, OWNER, Unmarked, VipOrigin, origin};

    fn message(last: u8, mark: Option<AddressAttribute>) -> AddressMessage {
        let mut message = AddressMessage::default();
        let address = IpAddr::from([172, 16, 40, last]);
        message.attributes.push(AddressAttribute::Local(address));
        message.attributes.extend(mark);
        message
    }

    #[test]
    fn address_is_ours_by_its_mark_or_where_none_is_kept_by_memory() {
        let mut unmarked = Unmarked::default();
        let marked = message(24, Some(AddressAttribute::Protocol(OWNER)));
        let bare = message(25, None);
        assert_eq!(origin(&marked, &unmarked), VipOrigin::Ours);
        assert_eq!(origin(&bare, &unmarked), VipOrigin::Foreign);
        unmarked.note(&marked);
        unmarked.note(&bare);
        assert_eq!(origin(&bare, &unmarked), VipOrigin::Ours);
        // Whoever puts it there without the mark is somebody else.
        assert_eq!(origin(&message(24, None), &unmarked), VipOrigin::Foreign);
    }
}
