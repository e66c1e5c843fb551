//! The PROXY protocol, versions 1 and 2: a proxy says first whom it connects for.
//!
//! The header is all that is read here: what follows it belongs to TLS or MQTT.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    str::{self, FromStr},
};

use thiserror::Error;
use tokio::{io::AsyncReadExt, net::TcpStream};

/// Version 2 announces up to 64 KB of extensions; what proxies send fits into one segment.
const LONGEST: usize = 2048;

/// Version 1's longest line, with its end.
const LONGEST_LINE: usize = 107;

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// Signature, version and command, family, length of the rest.
const FIXED: usize = 16;

/// Why a connection from a proxy is closed.
#[derive(Debug, Error)]
pub(crate) enum ProxyError {
    #[error("connection from a proxy does not start with a PROXY header")]
    Absent,
    #[error("malformed PROXY header")]
    Malformed,
    #[error("PROXY header longer than {LONGEST} bytes")]
    TooLong,
    #[error("closed within its PROXY header")]
    Closed,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A header at the start of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Header {
    /// The client; `None` where the proxy speaks for itself, as in its health checks, or does not
    /// know.
    source: Option<SocketAddr>,
    length: usize,
}

/// Reads the header that a connection starts with. The result is the client's address, unless the
/// proxy connects for itself.
///
/// # Errors
/// When there is no header, or one that makes no sense.
pub(crate) async fn read_header(stream: &mut TcpStream) -> Result<Option<SocketAddr>, ProxyError> {
    let mut bytes = vec![0; LONGEST];
    let mut read = 0;
    loop {
        // All that is seen belongs to the header as long as its end is not, and is then taken, so
        // that the next look waits for more.
        let seen = match bytes.get_mut(read..) {
            Some(room) if !room.is_empty() => stream.peek(room).await?,
            _ => return Err(ProxyError::TooLong),
        };
        if seen == 0 {
            return Err(ProxyError::Closed);
        }
        let header = parse(bytes.get(..read + seen).unwrap_or_default())?;
        let end = header.map_or(read + seen, |header| header.length);
        let taken = bytes.get_mut(read..end).ok_or(ProxyError::Malformed)?;
        stream.read_exact(taken).await?;
        read = end;
        if let Some(header) = header {
            return Ok(header.source);
        }
    }
}

/// Finds the header at the start of `bytes`; `None` while its end has not arrived.
fn parse(bytes: &[u8]) -> Result<Option<Header>, ProxyError> {
    if starts_like(bytes, SIGNATURE) {
        parse_binary(bytes)
    } else if starts_like(bytes, b"PROXY ") {
        parse_line(bytes)
    } else {
        Err(ProxyError::Absent)
    }
}

/// Whether `bytes` and `start` are the same as far as both go.
fn starts_like(bytes: &[u8], start: &[u8]) -> bool {
    bytes.iter().zip(start).all(|(a, b)| a == b)
}

/// Version 1: `PROXY TCP4 192.0.2.1 192.0.2.9 50000 1883\r\n`.
fn parse_line(bytes: &[u8]) -> Result<Option<Header>, ProxyError> {
    let start = bytes.get(..LONGEST_LINE).unwrap_or(bytes);
    let Some(end) = start.windows(2).position(|pair| pair == b"\r\n") else {
        return if bytes.len() < LONGEST_LINE {
            Ok(None)
        } else {
            Err(ProxyError::Malformed)
        };
    };
    let line = start.get(..end).and_then(|line| str::from_utf8(line).ok());
    let mut words = line.ok_or(ProxyError::Malformed)?.split(' ').skip(1);
    let source = match words.next() {
        // Whatever follows on the line is to be ignored.
        Some("UNKNOWN") => None,
        Some("TCP4") => Some(addresses(words, IpAddr::is_ipv4)?),
        Some("TCP6") => Some(addresses(words, IpAddr::is_ipv6)?),
        _ => return Err(ProxyError::Malformed),
    };
    Ok(Some(Header {
        source,
        length: end + 2,
    }))
}

/// Reads version 1's source and destination, and keeps the source.
fn addresses<'a>(
    words: impl Iterator<Item = &'a str>,
    is_of_family: impl Fn(&IpAddr) -> bool,
) -> Result<SocketAddr, ProxyError> {
    let words: Vec<_> = words.collect();
    let &[source, destination, source_port, destination_port] = words.as_slice() else {
        return Err(ProxyError::Malformed);
    };
    let address = |text: &str| -> Result<IpAddr, ProxyError> {
        let address = read(text)?;
        is_of_family(&address)
            .then_some(address)
            .ok_or(ProxyError::Malformed)
    };
    address(destination)?;
    read::<u16>(destination_port)?;
    Ok(socket_address(address(source)?, read(source_port)?))
}

fn read<T: FromStr>(text: &str) -> Result<T, ProxyError> {
    text.parse().map_err(|_| ProxyError::Malformed)
}

/// Version 2:
///
/// ```text
///  0          12              13               14      16
/// | signature | version, cmd | family, socket | length | addresses, extensions
/// ```
fn parse_binary(bytes: &[u8]) -> Result<Option<Header>, ProxyError> {
    let Some((fixed, rest)) = bytes.split_first_chunk::<FIXED>() else {
        return Ok(None);
    };
    let [.., command, family, high, low] = *fixed;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if FIXED + length > LONGEST {
        return Err(ProxyError::TooLong);
    }
    let Some(rest) = rest.get(..length) else {
        return Ok(None);
    };
    let source = match (command, family) {
        // LOCAL: the proxy's own connection, whatever addresses it gives.
        (0x20, _) => None,
        (0x21, 0x11) => Some(binary_source::<4>(rest)?),
        (0x21, 0x21) => Some(binary_source::<16>(rest)?),
        // A family that has no address for us, such as Unix sockets.
        (0x21, 0x00 | 0x31 | 0x32) => None,
        _ => return Err(ProxyError::Malformed),
    };
    Ok(Some(Header {
        source,
        length: FIXED + length,
    }))
}

/// Reads the source of `source, destination, source port, destination port`.
fn binary_source<const N: usize>(bytes: &[u8]) -> Result<SocketAddr, ProxyError>
where
    IpAddr: From<[u8; N]>,
{
    let (source, rest) = bytes
        .split_first_chunk::<N>()
        .ok_or(ProxyError::Malformed)?;
    let (_destination, rest) = rest.split_first_chunk::<N>().ok_or(ProxyError::Malformed)?;
    let &[high, low, _, _, ..] = rest else {
        return Err(ProxyError::Malformed);
    };
    Ok(socket_address(
        IpAddr::from(*source),
        u16::from_be_bytes([high, low]),
    ))
}

fn socket_address(address: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(address.to_canonical(), port)
}

#[cfg(test)]
mod tests;
