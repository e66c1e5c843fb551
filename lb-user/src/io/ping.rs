//! Asks a host whether it is there, by ICMP echo (RFC 792, RFC 4443).
//!
//! The question takes the way that packets to the host take: route, neighbour entry, link. So an answer
//! shows more than one to ARP would, it is the same for both families, and the host may be behind a
//! router. Hosts that answer no echo are for a script to try.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::{net::UdpSocket, time};

/// Tells questions of this process apart.
static NEXT: AtomicU16 = AtomicU16::new(1);

/// Types of ICMP and ICMPv6.
const V4: (u8, u8) = (8, 0);
const V6: (u8, u8) = (128, 129);

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
pub enum PingError {
    #[error("no socket to ask by: {0}")]
    Socket(#[source] io::Error),
    #[error("it cannot be asked: {0}")]
    Send(#[source] io::Error),
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
}

/// Asks once.
///
/// # Errors
///
/// If no answer comes by then.
pub async fn ping(host: IpAddr, limit: Duration) -> Result<(), PingError> {
    let asked = time::timeout(limit, ask(host)).await;
    asked.unwrap_or(Err(PingError::TimedOut(limit)))
}

async fn ask(host: IpAddr) -> Result<(), PingError> {
    let socket = open(host).map_err(PingError::Socket)?;
    let question = question(host);
    socket.send(&question).await.map_err(PingError::Send)?;
    let mut buffer = [0; 1_024];
    loop {
        let count = socket.recv(&mut buffer).await.map_err(PingError::Send)?;
        if is_answer(host, &question, buffer.get(..count).unwrap_or_default()) {
            return Ok(());
        }
    }
}

/// A raw socket; to the runtime all sockets of datagrams are alike.
fn open(host: IpAddr) -> io::Result<UdpSocket> {
    let (domain, protocol) = match host {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
    };
    let socket = Socket::new(domain, Type::RAW, Some(protocol))?;
    socket.set_nonblocking(true)?;
    // Only what comes from there is received.
    socket.connect(&SocketAddr::new(host, 0).into())?;
    UdpSocket::from_std(socket.into())
}

/// An echo request with a number of its own; the kernel adds the sum of ICMPv6.
fn question(host: IpAddr) -> [u8; 16] {
    let sequence = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    let [.., high, low] = std::process::id().to_be_bytes();
    let kind = if host.is_ipv4() { V4.0 } else { V6.0 };
    let mut message = [0; 16];
    message[0] = kind;
    message[4..6].copy_from_slice(&[high, low]);
    message[6..8].copy_from_slice(&sequence);
    message[8..].copy_from_slice(b"tidegate");
    if host.is_ipv4() {
        let sum = internet_checksum(&message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    message
}

/// Whether it is the echo of that question.
fn is_answer(host: IpAddr, question: &[u8; 16], received: &[u8]) -> bool {
    // Raw sockets of IPv4 get the header too.
    let (header, kind) = match host {
        IpAddr::V4(_) => {
            let words = received.first().map_or(0, |first| first & 0xf);
            (usize::from(words) * 4, V4.1)
        }
        IpAddr::V6(_) => (0, V6.1),
    };
    let message = received.get(header..).unwrap_or_default();
    message.first() == Some(&kind) && message.get(4..16) == question.get(4..16)
}

/// RFC 1071.
fn internet_checksum(message: &[u8]) -> u16 {
    let words = message.chunks(2).map(|pair| {
        let high = pair.first().copied().unwrap_or_default();
        u32::from(u16::from_be_bytes([
            high,
            pair.get(1).copied().unwrap_or_default(),
        ]))
    });
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::{internet_checksum, is_answer, question};

    #[test]
    fn an_answer_is_the_echo_of_the_question_alone() {
        for host in ["192.0.2.1", "2001:db8::1"] {
            let host: IpAddr = host.parse().unwrap();
            let (asked, other) = (question(host), question(host));
            let wrap = |message: [u8; 16]| {
                let mut packet = Vec::new();
                if host.is_ipv4() {
                    packet = vec![0; 20];
                    packet[0] = 0x45;
                }
                packet.extend(message);
                packet
            };
            let answer = |mut message: [u8; 16]| {
                message[0] = if host.is_ipv4() { 0 } else { 129 };
                message
            };
            assert!(is_answer(host, &asked, &wrap(answer(asked))));
            assert!(!is_answer(host, &asked, &wrap(answer(other))));
            assert!(!is_answer(host, &asked, &wrap(asked)));
            for length in 0..20 {
                assert!(!is_answer(
                    host,
                    &asked,
                    &wrap(answer(asked))[..length.min(15)]
                ));
            }
        }
    }

    #[test]
    fn a_question_of_ipv4_has_its_sum() {
        let asked = question("192.0.2.1".parse().unwrap());
        assert_eq!(internet_checksum(&asked), 0);
    }
}
