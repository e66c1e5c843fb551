//! Whole Ethernet frames out of an interface, for announcements that no other socket can send.

use std::{io, mem::size_of, net::IpAddr};

use lb_common::abi::VirtualMac;
use socket2::{Domain, SockAddr, SockAddrStorage, Socket, Type};

use crate::core::vrrp::frame::{self, NodeKind};

/// Why an announcement could not be sent.
#[derive(Debug, thiserror::Error)]
pub enum AnnounceError {
    #[error("cannot open a packet socket")]
    Open(#[source] io::Error),
    #[error("cannot announce {address}")]
    Send { address: IpAddr, source: io::Error },
}

/// Announces addresses on one interface. It receives nothing.
pub struct Announcer {
    socket: Socket,
    interface: SockAddr,
    name: String,
    mac: [u8; 6],
}

impl Announcer {
    /// Opens a socket for the interface in the namespace of the calling thread.
    ///
    /// # Errors
    ///
    /// If the kernel gives none: it takes CAP_NET_RAW.
    pub fn open(name: &str, index: u32, mac: [u8; 6]) -> Result<Self, AnnounceError> {
        // Protocol 0: nothing is received.
        let socket = Socket::new(Domain::PACKET, Type::RAW, None).map_err(AnnounceError::Open)?;
        socket.set_nonblocking(true).map_err(AnnounceError::Open)?;
        Ok(Self {
            socket,
            interface: link_layer(index),
            name: name.to_owned(),
            mac,
        })
    }

    /// Sends one announcement: a gratuitous ARP, or an unsolicited Neighbor Advertisement; of a virtual
    /// MAC address, if there is one.
    ///
    /// # Errors
    ///
    /// If the interface takes none, be it that it is down.
    pub fn announce(&self, address: IpAddr, mac: Option<VirtualMac>) -> Result<(), AnnounceError> {
        let frame = match mac {
            // As the program says of it in its answers.
            Some(mac) => frame::announcing(address, mac.octets(), NodeKind::Host),
            None => frame::announcing(address, self.mac, self.kind()),
        };
        let sent = self.socket.send_to(&frame, &self.interface);
        sent.map(drop)
            .map_err(|source| AnnounceError::Send { address, source })
    }

    /// Sends an advert of VRRP from a virtual MAC address.
    ///
    /// # Errors
    ///
    /// If the interface does not take it.
    pub fn advertise(
        &self,
        mac: VirtualMac,
        source: IpAddr,
        group: IpAddr,
        message: &[u8],
    ) -> io::Result<()> {
        let frame = frame::advert(mac.octets(), source, group, message);
        let frame = frame.ok_or(io::ErrorKind::InvalidInput)?;
        self.socket.send_to(&frame, &self.interface).map(drop)
    }

    /// What the kernel says of this host in its own advertisements.
    fn kind(&self) -> NodeKind {
        let path = format!("/proc/sys/net/ipv6/conf/{}/forwarding", self.name);
        match std::fs::read_to_string(path) {
            Ok(text) if text.trim() != "0" => NodeKind::Router,
            Ok(_) | Err(_) => NodeKind::Host,
        }
    }
}

/// The address of an interface; who is to receive a frame stands in the frame.
pub(super) fn link_layer(index: u32) -> SockAddr {
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: `sockaddr_ll` is a socket address of 20 bytes, for which the storage has room; it is
    // all integers, for which zero is a value.
    let address: &mut libc::sockaddr_ll = unsafe { storage.view_as() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_ifindex = index.cast_signed();
    let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: `length` bytes of it are a `sockaddr_ll`, as its family says.
    unsafe { SockAddr::new(storage, length) }
}
