//! VRRP's sockets: IP protocol 112 on one interface (RFC 9568, 5.1).
//!
//! One socket sends, from the configured source; another receives, as one that is bound to an
//! address would not get what is sent to the group. Neither blocks. Nothing is judged here: what
//! came goes on with what its IP header says.

use std::{
    io,
    mem::MaybeUninit,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6},
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
};

use socket2::{
    Domain, InterfaceIndexOrAddress, MaybeUninitSlice, MsgHdrMut, Protocol, SockAddr, Socket, Type,
};

use tokio::io::{Interest, unix::AsyncFd};

pub use crate::core::vrrp::settings::Reach;

use crate::core::vrrp::advert::{Envelope, GROUP_V4, GROUP_V6, HOPS, PROTOCOL};

/// Network control (RFC 4594, 3.2), as adverts must not be lost in a busy queue: CS6.
const TRAFFIC_CLASS: u32 = 0xc0;

/// Longer than any advert: 255 addresses of IPv6, with the IPv4 header where that is received.
const LONGEST: usize = 8 + 255 * 16 + 60;

/// Two control messages, for destination and hop limit: headers, contents, and padding.
const CONTROL: usize = 128;

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
    /// What the IP header says.
    pub envelope: Envelope,
    /// What stands behind it.
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
        let source = from.as_socket().map(|from| from.ip());
        Ok(Some(Received {
            envelope: read_control(&control, source.unwrap_or(NOBODY)),
            payload: plain,
        }))
    }
}

impl VrrpSocket {
    /// Has the runtime of the calling thread watch for what comes.
    ///
    /// # Errors
    ///
    /// If the runtime cannot watch any more.
    pub fn watched(self) -> io::Result<AsyncFd<Self>> {
        // SAFETY: the receiver owns its descriptor, and nothing replaces or closes it before both end.
        let watched = unsafe { AsyncFd::register_with_interest(self, Interest::READABLE) };
        watched.map_err(io::Error::from)
    }
}

impl AsRawFd for VrrpSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.receiver.as_raw_fd()
    }
}

impl AsFd for VrrpSocket {
    /// What is readable when something came.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.receiver.as_fd()
    }
}

/// Where the kernel did not say.
const NOBODY: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

/// A packet without a whole header: it is refused and counted like an empty one.
const NOTHING: Received<'static> = Received {
    envelope: Envelope {
        source: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        destination: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        hops: 0,
    },
    payload: &[],
};

fn raw(endpoint: &Endpoint) -> io::Result<Socket> {
    let domain = Domain::for_address(SocketAddr::new(endpoint.source, 0));
    Socket::new(domain, Type::RAW, Some(Protocol::from(i32::from(PROTOCOL))))
}

fn sending(socket: &Socket, endpoint: &Endpoint) -> io::Result<()> {
    match endpoint.source {
        IpAddr::V4(source) => {
            socket.set_ttl_v4(HOPS.into())?;
            socket.set_multicast_ttl_v4(HOPS.into())?;
            socket.set_multicast_loop_v4(false)?;
            socket.set_multicast_if_v4(&source)?;
            socket.set_tos_v4(TRAFFIC_CLASS)?;
        }
        IpAddr::V6(_) => {
            socket.set_unicast_hops_v6(HOPS.into())?;
            socket.set_multicast_hops_v6(HOPS.into())?;
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
            tell_destinations(socket)?;
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
    let destination = [header[16], header[17], header[18], header[19]];
    Some(Received {
        envelope: Envelope {
            source: IpAddr::from(source),
            destination: IpAddr::from(destination),
            hops: header[8],
        },
        payload: packet.get(length..)?,
    })
}

/// Has the kernel say where each packet was sent to (RFC 3542, 6.2).
fn tell_destinations(socket: &Socket) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the option takes an `int`, which `on` is, and the kernel only reads it during the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IPV6,
            libc::IPV6_RECVPKTINFO,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Reads control messages: each a length of all, level and type, and its data (cmsg(3)).
fn read_control(mut control: &[u8], source: IpAddr) -> Envelope {
    const HEADER: usize = size_of::<usize>() + 2 * size_of::<i32>();
    let mut envelope = Envelope {
        source,
        destination: NOBODY,
        hops: 0,
    };
    while let Some((length, level, kind)) = read_header(control) {
        let data = control.get(HEADER..).unwrap_or_default();
        match (level, kind) {
            (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) => {
                let hops = data.first_chunk().copied().map(i32::from_ne_bytes);
                envelope.hops = hops.and_then(|hops| u8::try_from(hops).ok()).unwrap_or(0);
            }
            // An address, then the index of the interface.
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                let address = data.first_chunk::<16>().copied();
                envelope.destination = address.map_or(NOBODY, IpAddr::from);
            }
            _ => {}
        }
        let next = length.max(HEADER);
        let next = next.checked_next_multiple_of(size_of::<usize>());
        control = next
            .and_then(|next| control.get(next..))
            .unwrap_or_default();
    }
    envelope
}

/// Length, level and type of the first control message.
fn read_header(control: &[u8]) -> Option<(usize, i32, i32)> {
    let (length, rest) = control.split_first_chunk()?;
    let (level, rest) = rest.split_first_chunk()?;
    let (kind, _) = rest.split_first_chunk()?;
    Some((
        usize::from_ne_bytes(*length),
        i32::from_ne_bytes(*level),
        i32::from_ne_bytes(*kind),
    ))
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv6Addr};

    use super::{Envelope, NOBODY, Received, read_control, read_ipv4};

    const SOURCE: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

    fn message(level: i32, kind: i32, data: &[u8]) -> Vec<u8> {
        let length = size_of::<usize>() + 8 + data.len();
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend([level, kind].into_iter().flat_map(i32::to_ne_bytes));
        bytes.extend(data);
        bytes.resize(length.next_multiple_of(size_of::<usize>()), 0);
        bytes
    }

    #[test]
    fn destination_and_hop_limit_are_found_behind_other_messages() {
        let other = message(libc::SOL_SOCKET, 1, &[7]);
        let hops = message(
            libc::IPPROTO_IPV6,
            libc::IPV6_HOPLIMIT,
            &255_i32.to_ne_bytes(),
        );
        let to: Ipv6Addr = "ff02::12".parse().unwrap();
        let info = [&to.octets()[..], &2_u32.to_ne_bytes()].concat();
        let info = message(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
        let expected = Envelope {
            source: SOURCE,
            destination: to.into(),
            hops: 255,
        };
        for control in [[&other[..], &hops, &info], [&info, &other, &hops]] {
            assert_eq!(read_control(&control.concat(), SOURCE), expected);
        }
    }

    #[test]
    fn what_the_kernel_did_not_say_is_nothing_that_would_pass() {
        let nothing = Envelope {
            source: SOURCE,
            destination: NOBODY,
            hops: 0,
        };
        let short = message(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &[1; 4]);
        for control in [&[][..], &[0; 64], &[0xff; 64], &[1, 2, 3], &short[..20]] {
            assert_eq!(read_control(control, SOURCE), nothing, "{control:?}");
        }
    }

    #[test]
    fn ipv4_header_with_options_is_taken_off() {
        let mut packet = vec![0; 24];
        (packet[0], packet[8]) = (0x46, 254);
        packet[12..16].copy_from_slice(&[172, 16, 40, 22]);
        packet[16..20].copy_from_slice(&[224, 0, 0, 18]);
        packet.extend([0x31, 51]);
        let expected = Received {
            envelope: Envelope {
                source: IpAddr::from([172, 16, 40, 22]),
                destination: IpAddr::from([224, 0, 0, 18]),
                hops: 254,
            },
            payload: &[0x31, 51],
        };
        assert_eq!(read_ipv4(&packet), Some(expected));
    }

    #[test]
    fn header_that_is_longer_than_its_packet_is_nothing() {
        let mut packet = vec![0; 20];
        packet[0] = 0x4f;
        assert_eq!(read_ipv4(&packet), None);
        assert_eq!(read_ipv4(&packet[..19]), None);
    }
}
