//! The kernel's notifications of changes.
//!
//! An event says what to look at again, not what is true: its content may be older than what the
//! request socket says, and may have been lost.

use std::net::IpAddr;

use rtnetlink::{
    MulticastGroup,
    packet_core::{NetlinkMessage, NetlinkPayload},
    packet_route::{
        RouteNetlinkMessage,
        neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage},
    },
    sys::{
        AsyncSocket as _, AsyncSocketExt as _, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE,
    },
};

use super::NetlinkError;

const GROUPS: [MulticastGroup; 6] = [
    MulticastGroup::Link,
    MulticastGroup::Neigh,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
];

/// Holds the bursts of a host with thousands of neighbours; an overrun only costs a full look.
const RECEIVE_BUFFER: usize = 1 << 20;

/// The kernel never sends a longer datagram to a reader of this size (`NLMSG_GOODSIZE` at most).
const DATAGRAM: usize = 32_768;

/// What changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// These neighbours.
    Neighbours(Vec<IpAddr>),
    /// Interfaces, addresses or routes; or events were lost: anything.
    Anything,
}

/// The event socket.
pub struct Events {
    socket: TokioSocket,
    buffer: Vec<u8>,
}

impl Events {
    /// Opens the event socket in the namespace of the calling thread.
    ///
    /// # Errors
    ///
    /// If the kernel gives no socket.
    pub fn open() -> Result<Self, NetlinkError> {
        let mut socket = TokioSocket::new(NETLINK_ROUTE).map_err(NetlinkError::Open)?;
        let groups = GROUPS
            .iter()
            .fold(0, |groups, group| groups | 1 << (*group as u32 - 1));
        let raw = socket.socket_mut();
        raw.bind(&SocketAddr::new(0, groups))
            .map_err(NetlinkError::Open)?;
        // A smaller buffer overruns sooner, which is provided for.
        drop(raw.set_rx_buf_sz(RECEIVE_BUFFER));
        Ok(Self {
            socket,
            buffer: Vec::with_capacity(DATAGRAM),
        })
    }

    /// Waits for the next change. May be cancelled: a datagram is taken whole or not at all.
    ///
    /// # Errors
    ///
    /// If the socket fails for good.
    pub async fn next(&mut self) -> Result<Event, NetlinkError> {
        loop {
            self.buffer.clear();
            match self.socket.recv_from(&mut self.buffer).await {
                Ok(_sender) => {
                    if let Some(event) = read(&self.buffer) {
                        return Ok(event);
                    }
                }
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    return Ok(Event::Anything);
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(NetlinkError::Open(error)),
            }
        }
    }
}

/// What a datagram is about; `None` if about nothing of interest.
fn read(datagram: &[u8]) -> Option<Event> {
    let mut neighbours = Vec::new();
    let mut rest = datagram;
    while !rest.is_empty() {
        let Ok(message) = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest) else {
            // What cannot be read may have been important.
            return Some(Event::Anything);
        };
        match &message.payload {
            NetlinkPayload::InnerMessage(
                RouteNetlinkMessage::NewNeighbour(neighbour)
                | RouteNetlinkMessage::DelNeighbour(neighbour),
            ) => neighbours.extend(address(neighbour)),
            NetlinkPayload::Noop | NetlinkPayload::Done(_) => {}
            _ => return Some(Event::Anything),
        }
        // Messages are aligned to four bytes inside a datagram (RFC 3549, 2.2).
        let length = (message.header.length as usize).next_multiple_of(4).max(4);
        rest = rest.get(length..).unwrap_or_default();
    }
    (!neighbours.is_empty()).then_some(Event::Neighbours(neighbours))
}

fn address(message: &NeighbourMessage) -> Option<IpAddr> {
    message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => Some(IpAddr::V4(*v4)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => Some(IpAddr::V6(*v6)),
            _ => None,
        })
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use rtnetlink::{
        packet_core::NetlinkMessage,
        packet_route::{
            RouteNetlinkMessage,
            link::LinkMessage,
            neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage},
        },
    };

    use super::{Event, read};

    const A: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
    const B: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

    fn bytes(message: RouteNetlinkMessage) -> Vec<u8> {
        let mut message = NetlinkMessage::from(message);
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        bytes
    }

    fn neighbour(address: Ipv4Addr) -> NeighbourMessage {
        let mut message = NeighbourMessage::default();
        message.header.family = rtnetlink::packet_route::AddressFamily::Inet;
        let address = NeighbourAddress::Inet(address);
        message
            .attributes
            .push(NeighbourAttribute::Destination(address));
        message
    }

    #[test]
    fn neighbours_of_one_datagram_are_one_event() {
        let mut datagram = bytes(RouteNetlinkMessage::NewNeighbour(neighbour(A)));
        datagram.extend(bytes(RouteNetlinkMessage::DelNeighbour(neighbour(B))));
        let expected = Event::Neighbours(vec![IpAddr::V4(A), IpAddr::V4(B)]);
        assert_eq!(read(&datagram), Some(expected));
    }

    #[test]
    fn link_change_may_concern_anything() {
        let datagram = bytes(RouteNetlinkMessage::NewLink(LinkMessage::default()));
        assert_eq!(read(&datagram), Some(Event::Anything));
    }

    #[test]
    fn unreadable_datagram_may_concern_anything() {
        assert_eq!(read(&[1, 2, 3]), Some(Event::Anything));
        assert_eq!(read(&[]), None);
    }
}
