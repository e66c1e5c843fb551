//! VRRP's sockets: IP protocol 112 on one interface (RFC 9568, 5.1).
//!
//! One socket sends, from the configured source; another receives, as one that is bound to an
//! address would not get what is sent to the group. Neither blocks. Nothing is judged here: what
//! came goes on with its source and hop limit.

use std::{
    io,
    mem::MaybeUninit,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6},
    os::fd::{AsFd, BorrowedFd},
};

use socket2::{
    Domain, InterfaceIndexOrAddress, MaybeUninitSlice, MsgHdrMut, Protocol, SockAddr, Socket, Type,
};

/// VRRP's number among the protocols over IP (RFC 9568, 5.1.1.4).
const VRRP: i32 = 112;

/// Where IPv4 adverts go (RFC 9568, 5.1.1.2).
pub const GROUP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);

/// Where IPv6 adverts go (RFC 9568, 5.1.2.2).
pub const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x12);

/// An advert that has crossed a router is refused; this tells that it has not (RFC 9568, 5.1.1.3).
const HOPS: u32 = 255;

/// Network control (RFC 4594, 3.2), as adverts must not be lost in a busy queue: CS6.
const TRAFFIC_CLASS: u32 = 0xc0;

/// Longer than any advert: 255 addresses of IPv6, with the IPv4 header where that is received.
const LONGEST: usize = 8 + 255 * 16 + 60;

/// A control message for the hop limit: its header, an `int`, and padding.
const CONTROL: usize = 64;

/// Where one instance sends and listens.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// The interface's name.
    pub interface: String,
    /// The interface's index.
    pub index: u32,
    /// What is sent from; its family is the instance's.
    pub source: IpAddr,
    /// Whether the group is joined.
    pub reach: Reach,
}

/// Who hears an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// All routers of the group.
    Multicast,
    /// Named peers.
    Unicast,
}

/// Why there are no sockets for an instance.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} for VRRP on {interface} from {source_address}")]
pub struct OpenError {
    action: &'static str,
    interface: String,
    source_address: IpAddr,
    source: io::Error,
}

/// The sockets of an instance.
pub struct VrrpSocket {
    sender: Socket,
    receiver: Socket,
    index: u32,
    is_ipv4: bool,
}

/// Something that came by protocol 112.
#[derive(Debug, PartialEq, Eq)]
pub struct Received<'a> {
    /// Who sent it.
    pub source: IpAddr,
    /// TTL or hop limit; `None` if the kernel did not say.
    pub hop_limit: Option<u8>,
    /// What stands behind the IP header.
    pub payload: &'a [u8],
}

/// Room for what is received.
pub struct Buffer {
    bytes: [MaybeUninit<u8>; LONGEST],
    plain: Vec<u8>,
}

impl Default for Buffer {
    fn default() -> Self {
        Self {
            bytes: [MaybeUninit::new(0); LONGEST],
            plain: Vec::with_capacity(LONGEST),
        }
    }
}

impl VrrpSocket {
    /// Opens the sockets in the namespace of the calling thread.
    ///
    /// # Errors
    ///
    /// Without CAP_NET_RAW, interface, or source address.
    pub fn open(endpoint: &Endpoint) -> Result<Self, OpenError> {
        let error = |action| {
            move |source| OpenError {
                action,
                interface: endpoint.interface.clone(),
                source_address: endpoint.source,
                source,
            }
        };
        let socket = || {
            let socket = raw(endpoint)?;
            socket.set_nonblocking(true)?;
            socket.bind_device(Some(endpoint.interface.as_bytes()))?;
            Ok(socket)
        };
        let (sender, receiver) = (
            socket().map_err(error("open a socket"))?,
            socket().map_err(error("open a socket"))?,
        );
        sending(&sender, endpoint).map_err(error("send"))?;
        receiving(&receiver, endpoint).map_err(error("listen"))?;
        Ok(Self {
            sender,
            receiver,
            index: endpoint.index,
            is_ipv4: endpoint.source.is_ipv4(),
        })
    }

    /// Sends an advert: to the group, or to one peer.
    ///
    /// # Errors
    ///
    /// If the interface does not take it. Adverts follow each other: none is sent again.
    pub fn send(&self, advert: &[u8], to: IpAddr) -> io::Result<()> {
        let to = socket_address(to, self.index);
        self.sender.send_to(advert, &to).map(drop)
    }

    /// The next packet that came, if there is one.
    ///
    /// # Errors
    ///
    /// If the socket fails, be it that the interface went down.
    pub fn receive<'a>(&self, buffer: &'a mut Buffer) -> io::Result<Option<Received<'a>>> {
        let Buffer { bytes, plain } = buffer;
        let mut control = [MaybeUninit::new(0); CONTROL];
        // A source of either family fits; the kernel overwrites it.
        let mut from = SockAddr::from(SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)));
        let mut slices = [MaybeUninitSlice::new(bytes)];
        let mut message = MsgHdrMut::new()
            .with_addr(&mut from)
            .with_buffers(&mut slices)
            .with_control(&mut control);
        let length = match self.receiver.recvmsg(&mut message, 0) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        };
        let control_length = message.control_len();
        plain.clear();
        plain.extend(initialised(bytes.get(..length).unwrap_or(bytes)));
        if self.is_ipv4 {
            return Ok(Some(read_ipv4(plain).unwrap_or(NOTHING)));
        }
        let control: Vec<u8> =
            initialised(control.get(..control_length).unwrap_or(&control)).collect();
        Ok(Some(Received {
            source: from
                .as_socket()
                .map_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED), |from| from.ip()),
            hop_limit: hop_limit(&control),
            payload: plain,
        }))
    }
}

impl AsFd for VrrpSocket {
    /// What is readable when something came.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.receiver.as_fd()
    }
}

/// A packet that cannot be told apart from an empty one: it is refused and counted like that.
const NOTHING: Received<'static> = Received {
    source: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    hop_limit: None,
    payload: &[],
};

fn raw(endpoint: &Endpoint) -> io::Result<Socket> {
    let domain = Domain::for_address(SocketAddr::new(endpoint.source, 0));
    Socket::new(domain, Type::RAW, Some(Protocol::from(VRRP)))
}

fn sending(socket: &Socket, endpoint: &Endpoint) -> io::Result<()> {
    match endpoint.source {
        IpAddr::V4(source) => {
            socket.set_ttl_v4(HOPS)?;
            socket.set_multicast_ttl_v4(HOPS)?;
            socket.set_multicast_loop_v4(false)?;
            socket.set_multicast_if_v4(&source)?;
            socket.set_tos_v4(TRAFFIC_CLASS)?;
        }
        IpAddr::V6(_) => {
            socket.set_unicast_hops_v6(HOPS)?;
            socket.set_multicast_hops_v6(HOPS)?;
            socket.set_multicast_loop_v6(false)?;
            socket.set_multicast_if_v6(endpoint.index)?;
            socket.set_tclass_v6(TRAFFIC_CLASS)?;
        }
    }
    // It would pile up what the other socket receives.
    socket.set_recv_buffer_size(1)?;
    socket.bind(&socket_address(endpoint.source, endpoint.index))
}

fn receiving(socket: &Socket, endpoint: &Endpoint) -> io::Result<()> {
    match endpoint.source {
        IpAddr::V4(_) => {
            // Groups that other programs joined are none of ours.
            socket.set_multicast_all_v4(false)?;
            if endpoint.reach == Reach::Multicast {
                let interface = InterfaceIndexOrAddress::Index(endpoint.index);
                socket.join_multicast_v4_n(&GROUP_V4, &interface)?;
            }
        }
        IpAddr::V6(_) => {
            socket.set_multicast_all_v6(false)?;
            socket.set_recv_hoplimit_v6(true)?;
            if endpoint.reach == Reach::Multicast {
                socket.join_multicast_v6(&GROUP_V6, endpoint.index)?;
            }
        }
    }
    Ok(())
}

/// Link-local addresses mean nothing without their link.
fn socket_address(address: IpAddr, index: u32) -> SockAddr {
    match address {
        IpAddr::V4(v4) => SocketAddr::from((v4, 0)).into(),
        IpAddr::V6(v6) => SocketAddr::V6(SocketAddrV6::new(v6, 0, 0, index)).into(),
    }
}

fn initialised(bytes: &[MaybeUninit<u8>]) -> impl Iterator<Item = u8> {
    // SAFETY: all bytes were made zero before the kernel wrote some of them.
    bytes.iter().map(|byte| unsafe { byte.assume_init() })
}

/// A raw IPv4 socket hands over the header too (raw(7)).
fn read_ipv4(packet: &[u8]) -> Option<Received<'_>> {
    let (header, _) = packet.split_first_chunk::<20>()?;
    let length = usize::from(header[0] & 0x0f) * 4;
    let source = [header[12], header[13], header[14], header[15]];
    Some(Received {
        source: IpAddr::from(source),
        hop_limit: Some(header[8]),
        payload: packet.get(length..)?,
    })
}

/// Finds the hop limit among control messages: each a length of all, level and type, and its data
/// (cmsg(3)).
fn hop_limit(mut control: &[u8]) -> Option<u8> {
    const HEADER: usize = size_of::<usize>() + 2 * size_of::<i32>();
    while let Some((header, _)) = control.split_at_checked(HEADER) {
        let (length, kind) = header.split_at(size_of::<usize>());
        let length = usize::from_ne_bytes(length.try_into().ok()?);
        let (level, kind) = kind.split_at(size_of::<i32>());
        let level = i32::from_ne_bytes(level.try_into().ok()?);
        let kind = i32::from_ne_bytes(kind.try_into().ok()?);
        if (level, kind) == (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) {
            let value = control.get(HEADER..HEADER + size_of::<i32>())?;
            return u8::try_from(i32::from_ne_bytes(value.try_into().ok()?)).ok();
        }
        let next = length.next_multiple_of(size_of::<usize>());
        control = control.get(next.max(HEADER)..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::{Received, hop_limit, read_ipv4};

    fn message(level: i32, kind: i32, value: i32) -> Vec<u8> {
        let length = size_of::<usize>() + 12;
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend([level, kind, value].into_iter().flat_map(i32::to_ne_bytes));
        bytes.resize(length.next_multiple_of(size_of::<usize>()), 0);
        bytes
    }

    #[test]
    fn hop_limit_is_found_behind_other_messages() {
        let other = message(libc::SOL_SOCKET, 1, 7);
        let ours = message(libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT, 255);
        assert_eq!(hop_limit(&[other.clone(), ours].concat()), Some(255));
        assert_eq!(hop_limit(&other), None);
        assert_eq!(hop_limit(&[]), None);
    }

    #[test]
    fn message_that_says_it_has_no_length_ends_the_search() {
        assert_eq!(hop_limit(&[0; 64]), None);
    }

    #[test]
    fn ipv4_header_with_options_is_taken_off() {
        let mut packet = vec![0; 24];
        (packet[0], packet[8]) = (0x46, 254);
        packet[12..16].copy_from_slice(&[172, 16, 40, 22]);
        packet.extend([0x31, 51]);
        let received = read_ipv4(&packet).unwrap();
        let expected = Received {
            source: IpAddr::from([172, 16, 40, 22]),
            hop_limit: Some(254),
            payload: &[0x31, 51],
        };
        assert_eq!(received, expected);
    }

    #[test]
    fn header_that_is_longer_than_its_packet_is_nothing() {
        let mut packet = vec![0; 20];
        packet[0] = 0x4f;
        assert_eq!(read_ipv4(&packet), None);
        assert_eq!(read_ipv4(&packet[..19]), None);
    }
}
