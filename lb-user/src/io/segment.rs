//! Questions to the hosts of a segment that a socket of TCP or UDP cannot ask: who answers for an
//! address, and whether a host takes an address for its own. Only `tidegate doctor` asks them.

use std::{
    io::{self, Read as _},
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use lb_common::checksum::{add, fold};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::link_layer::link_layer;

type Mac = [u8; 6];

/// Answers that count: who is asked by thousands has another illness.
const MOST: usize = 16;

/// The longest frame that is of interest; what is longer is cut.
const FRAME: usize = 128;

/// Frames of one interface, in and out.
pub struct Segment {
    socket: Socket,
    interface: SockAddr,
    mac: Mac,
}

/// A host that is asked whether it takes an address for its own, by a SYN to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Knock {
    /// Where the host is.
    pub mac: Mac,
    pub address: Ipv4Addr,
    pub port: u16,
}

/// What it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It listens at that address.
    Taken,
    /// The address is its own, and nothing listens there.
    Refused,
    /// Nothing.
    Silent,
}

impl Segment {
    /// Opens a socket for the interface in the namespace of the calling thread.
    ///
    /// # Errors
    ///
    /// If the kernel gives none: it takes CAP_NET_RAW.
    pub fn open(index: u32, mac: Mac) -> io::Result<Self> {
        let all = u16::try_from(libc::ETH_P_ALL).map_err(|_| io::ErrorKind::InvalidInput)?;
        let protocol = Protocol::from(i32::from(all.to_be()));
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(protocol))?;
        let interface = link_layer(index);
        socket.bind(&interface)?;
        Ok(Self {
            socket,
            interface,
            mac,
        })
    }

    /// The MAC addresses of all hosts that answer for each of these addresses within `wait`, this one
    /// aside.
    ///
    /// # Errors
    ///
    /// If the interface takes no frame.
    pub fn who_has(&self, addresses: &[Ipv4Addr], wait: Duration) -> io::Result<Vec<Vec<Mac>>> {
        for address in addresses {
            self.send(&request(self.mac, *address))?;
        }
        let mut found = vec![Vec::new(); addresses.len()];
        self.receive(wait, |frame| {
            let Some((address, mac)) = reply(frame).filter(|(_, mac)| *mac != self.mac) else {
                return true;
            };
            let asked = addresses.iter().zip(&mut found);
            for (_, hosts) in asked.filter(|(asked, _)| **asked == address) {
                if !hosts.contains(&mac) && hosts.len() < MOST {
                    hosts.push(mac);
                }
            }
            true
        })?;
        Ok(found)
    }

    /// Sends each a SYN from `source`, from ports on from `first_port`, and waits for what they say.
    /// Connections that open are ended at once.
    ///
    /// # Errors
    ///
    /// If the interface takes no frame.
    pub fn knock(
        &self,
        knocks: &[Knock],
        source: Ipv4Addr,
        first_port: u16,
        wait: Duration,
    ) -> io::Result<Vec<Answer>> {
        let own_ports = || (first_port..=u16::MAX).zip(knocks);
        for (own_port, knock) in own_ports() {
            self.send(&self.segment(*knock, (source, own_port), SYN, 0))?;
        }
        let mut answers = vec![Answer::Silent; knocks.len()];
        self.receive(wait, |frame| {
            let Some(said) = said(frame).filter(|said| said.to == source) else {
                return true;
            };
            let at = usize::from(said.own_port.wrapping_sub(first_port));
            let is_asked = |knock: &&Knock| (knock.address, knock.port) == (said.from, said.port);
            let knock = knocks.get(at).filter(is_asked);
            if let (Some(knock), Some(answer)) = (knock, answers.get_mut(at)) {
                *answer = said.answer;
                if said.answer == Answer::Taken {
                    // What the other side says it expects next.
                    let end = self.segment(*knock, (source, said.own_port), RST, said.next);
                    let _ = self.send(&end);
                }
            }
            answers.contains(&Answer::Silent)
        })?;
        Ok(answers)
    }

    fn send(&self, frame: &[u8]) -> io::Result<()> {
        self.socket.send_to(frame, &self.interface).map(drop)
    }

    /// Hands each frame on until that is enough, or the time is over.
    fn receive(&self, wait: Duration, mut take: impl FnMut(&[u8]) -> bool) -> io::Result<()> {
        let end = Instant::now() + wait;
        let mut buffer = [0; FRAME];
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            self.socket.set_read_timeout(Some(left))?;
            match (&self.socket).read(&mut buffer) {
                Ok(length) => {
                    if !take(buffer.get(..length).unwrap_or_default()) {
                        return Ok(());
                    }
                }
                Err(error) if is_over(&error) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn segment(
        &self,
        knock: Knock,
        (source, own_port): (Ipv4Addr, u16),
        flags: u8,
        sequence: u32,
    ) -> Vec<u8> {
        let Knock { mac, address, port } = knock;
        let mut tcp = Vec::with_capacity(20);
        tcp.extend(own_port.to_be_bytes());
        tcp.extend(port.to_be_bytes());
        tcp.extend(sequence.to_be_bytes());
        // No acknowledgement; five words of header; the flags; a window; checksum; no urgent data.
        tcp.extend([0, 0, 0, 0, 5 << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
        let pseudo = [source.octets(), address.octets()].concat();
        let sum = add(add(6 + 20, &pseudo), &tcp);
        put(&mut tcp, 16, (!fold(sum)).to_be_bytes());
        // Version and length of header; 40 bytes in all; not to be fragmented; TTL 64; TCP.
        let mut ip = vec![0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0];
        ip.extend(pseudo);
        let sum = add(0, &ip);
        put(&mut ip, 10, (!fold(sum)).to_be_bytes());
        [&mac[..], &self.mac, &[8, 0], &ip, &tcp].concat()
    }
}

/// Whether the time is over in which something could have been read.
fn is_over(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

fn put(bytes: &mut [u8], at: usize, word: [u8; 2]) {
    if let Some(place) = bytes.get_mut(at..at + 2) {
        place.copy_from_slice(&word);
    }
}

/// A question without an address of its own, which leaves no trace in anybody's table (RFC 5227, 2.1.1).
fn request(mac: Mac, address: Ipv4Addr) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend(mac);
    // ARP of Ethernet and IPv4: a request.
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend(mac);
    frame.extend([0; 4 + 6]);
    frame.extend(address.octets());
    frame
}

/// The address that a frame says is somewhere, if it is an answer by ARP.
fn reply(frame: &[u8]) -> Option<(Ipv4Addr, Mac)> {
    let head = frame.get(12..22)?;
    let body = frame.get(22..32)?;
    let (mac, address) = body.split_first_chunk::<6>()?;
    let address: [u8; 4] = address.try_into().ok()?;
    (head == [8, 6, 0, 1, 8, 0, 6, 4, 0, 2]).then(|| (address.into(), *mac))
}

/// A segment of TCP over IPv4, as far as it answers a SYN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Said {
    from: Ipv4Addr,
    port: u16,
    to: Ipv4Addr,
    own_port: u16,
    answer: Answer,
    /// The sequence number that is expected next.
    next: u32,
}

fn said(frame: &[u8]) -> Option<Said> {
    let packet = frame.get(12..)?.strip_prefix(&[8, 0])?;
    let first = *packet.first()?;
    let is_tcp = first >> 4 == 4 && packet.get(9) == Some(&6);
    let tcp = packet
        .get(usize::from(first & 0xf) * 4..)
        .filter(|_| is_tcp)?;
    let address = |at: usize| {
        let octets: [u8; 4] = packet.get(at..at + 4)?.try_into().ok()?;
        Some(Ipv4Addr::from(octets))
    };
    let port = |at: usize| {
        let bytes: [u8; 2] = tcp.get(at..at + 2)?.try_into().ok()?;
        Some(u16::from_be_bytes(bytes))
    };
    let next: [u8; 4] = tcp.get(8..12)?.try_into().ok()?;
    let flags = *tcp.get(13)?;
    let answer = if flags & RST != 0 {
        Answer::Refused
    } else if flags & (SYN | ACK) == SYN | ACK {
        Answer::Taken
    } else {
        return None;
    };
    Some(Said {
        from: address(12)?,
        port: port(0)?,
        to: address(16)?,
        own_port: port(2)?,
        answer,
        next: u32::from_be_bytes(next),
    })
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::{Answer, reply, request, said};

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];
    const VIP: Ipv4Addr = Ipv4Addr::new(172, 16, 40, 24);

    #[test]
    fn an_answer_is_told_from_a_question() {
        let mut frame = request(MAC, VIP);
        assert_eq!(frame.len(), 42);
        assert_eq!(reply(&frame), None);
        // The other host's answer has its own addresses as the sender's.
        frame[21] = 2;
        frame[28..32].copy_from_slice(&VIP.octets());
        assert_eq!(reply(&frame), Some((VIP, MAC)));
    }

    #[test]
    fn what_a_host_says_to_a_syn_is_read() {
        let mut frame = vec![0; 12];
        frame.extend([8, 0, 0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0]);
        frame.extend(VIP.octets());
        frame.extend([172, 16, 40, 22]);
        frame.extend(1883_u16.to_be_bytes());
        frame.extend(40_001_u16.to_be_bytes());
        frame.extend([0, 0, 0, 9, 0, 0, 0, 1, 0x50, 0x12, 0, 0, 0, 0, 0, 0]);
        let taken = said(&frame).unwrap();
        assert_eq!(
            (taken.from, taken.port, taken.own_port),
            (VIP, 1883, 40_001)
        );
        assert_eq!((taken.answer, taken.next), (Answer::Taken, 1));
        frame[47] = 0x14;
        assert_eq!(said(&frame).map(|it| it.answer), Some(Answer::Refused));
        frame[47] = 0x10;
        assert_eq!(said(&frame), None);
    }

    proptest! {
        #[test]
        fn no_frame_makes_the_readers_panic(frame in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = (reply(&frame), said(&frame));
        }
    }
}
