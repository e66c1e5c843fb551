//! One connection: whole packets in, a buffer of bytes out.
//!
//! Thousands of clients are mostly silent, so a link owns no read buffer: bytes are read into a
//! buffer of the thread and only an incomplete packet is kept.

use std::{cell::RefCell, io, net::SocketAddr, time::Duration};

use tokio::io::{Interest, Ready};

use super::{
    codec::{Packet, Version, decode, disconnect, split},
    plan::Route,
    session::SessionError,
    websocket::UpgradeError,
    wire::{Host, Transport, Wire},
};

/// The thread's read buffer; one longer packet makes it longer.
const READ: usize = 128 * 1024;
/// No packet of a load test is longer.
const PACKET_MAX: usize = 16 * 1024 * 1024;
/// Reads in a row before other clients get their turn.
const READS: usize = 8;
/// How long an orderly close may take.
const CLOSE: Duration = Duration::from_secs(1);

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; READ]);
}

/// Why a link is of no more use.
#[derive(Debug, thiserror::Error)]
pub(super) enum LinkError {
    #[error("connection closed by the server")]
    Closed,
    #[error("packet longer than {PACKET_MAX} bytes")]
    PacketTooLong,
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Upgrade(UpgradeError),
    #[error(transparent)]
    Session(#[from] SessionError),
}

impl From<UpgradeError> for LinkError {
    fn from(error: UpgradeError) -> Self {
        match error {
            UpgradeError::Io(error) => Self::Io(error),
            UpgradeError::Refused(_) | UpgradeError::NoWebSocket => Self::Upgrade(error),
        }
    }
}

#[derive(Debug)]
pub(super) struct Link {
    wire: Wire,
    /// The part of a packet that has arrived.
    partial: Vec<u8>,
    pub(super) out: Vec<u8>,
    written: usize,
}

impl Link {
    /// Connects by the first of `routes` that works.
    pub(super) async fn open(
        transport: &Transport,
        host: &Host,
        routes: impl Iterator<Item = Route>,
    ) -> Result<Self, LinkError> {
        let mut result = Err(io::Error::from(io::ErrorKind::AddrNotAvailable).into());
        for route in routes {
            result = Wire::open(transport, host, route).await;
            if result.is_ok() {
                break;
            }
        }
        Ok(Self {
            wire: result?,
            partial: Vec::new(),
            out: Vec::new(),
            written: 0,
        })
    }

    /// This end's address and port.
    pub(super) fn source(&self) -> Option<SocketAddr> {
        self.wire.source()
    }

    /// Waits until there is something to read, or to write into when there is reason to.
    /// Cancel-safe.
    pub(super) async fn ready(&self, eager: bool) -> io::Result<Ready> {
        let interest = if eager || !self.is_flushed() {
            Interest::READABLE | Interest::WRITABLE
        } else {
            Interest::READABLE
        };
        self.wire.ready(interest).await
    }

    /// Hands every packet that has arrived to `take`, with the outgoing bytes to answer into.
    pub(super) fn receive(
        &mut self,
        version: Version,
        mut take: impl FnMut(&Packet<'_>, &mut Vec<u8>) -> Result<(), SessionError>,
    ) -> Result<(), LinkError> {
        BUFFER.with_borrow_mut(|buffer| {
            for _ in 0..READS {
                let kept = self.partial.len();
                // The buffer that was made long enough for this packet may be another thread's.
                if buffer.len() < kept + READ {
                    buffer.resize(kept + READ, 0);
                }
                buffer[..kept].copy_from_slice(&self.partial);
                let end = match self.wire.try_read(&mut buffer[kept..]) {
                    Ok(0) => return Err(LinkError::Closed),
                    Ok(read) => kept + read,
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                    Err(e) => return Err(e.into()),
                };
                let mut rest = &buffer[..end];
                let needed = loop {
                    match split(rest).map_err(SessionError::from)? {
                        Ok((frame, tail)) => {
                            let packet = decode(frame, version).map_err(SessionError::from)?;
                            take(&packet, &mut self.out)?;
                            rest = tail;
                        }
                        Err(needed) => break needed,
                    }
                };
                self.partial.clear();
                self.partial.extend_from_slice(rest);
                if needed > PACKET_MAX {
                    return Err(LinkError::PacketTooLong);
                }
                let drained = end < buffer.len();
                if needed >= buffer.len() {
                    buffer.resize(needed + READ, 0);
                }
                if drained {
                    return Ok(());
                }
            }
            Ok(())
        })
    }

    /// Writes as much as the socket takes.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        match self.write() {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(()),
            result => result,
        }
    }

    /// Writes all, or says that the socket takes no more.
    fn write(&mut self) -> io::Result<()> {
        while self.written < self.out.len() {
            self.written += self.wire.try_write(&self.out[self.written..])?;
        }
        self.wire.try_flush()?;
        self.out.clear();
        self.written = 0;
        Ok(())
    }

    pub(super) fn is_flushed(&self) -> bool {
        self.out.is_empty() && self.wire.is_flushed()
    }

    /// Says DISCONNECT and waits for the server to close, but not for long.
    pub(super) async fn close(mut self) {
        disconnect(&mut self.out);
        let end = async {
            loop {
                match self.write() {
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                        self.wire.ready(Interest::WRITABLE).await?;
                    }
                    Err(e) => return Err(e),
                    Ok(()) => return self.wire.finish().await,
                }
            }
        };
        // Whatever goes wrong here, the connection is over, as it should be.
        drop(tokio::time::timeout(CLOSE, end).await);
    }
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncWriteExt, net::TcpListener, runtime::Handle};

    use super::*;

    /// Receives until `done`.
    async fn receive(mut link: Link, done: impl Fn(&Link, usize) -> bool) -> Link {
        let mut packets = 0;
        while !done(&link, packets) {
            link.ready(false).await.unwrap();
            let count = |_packet: &Packet<'_>, _out: &mut Vec<u8>| {
                packets += 1;
                Ok(())
            };
            link.receive(Version::V311, count).unwrap();
        }
        link
    }

    #[tokio::test]
    async fn packet_longer_than_the_buffer_may_end_on_another_thread() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = listener.local_addr().unwrap();
        let host = Host {
            authority: target.to_string(),
            name: None,
            addresses: vec![target],
        };
        let route = Route {
            source: None,
            target,
        };
        let plain = Transport::default();
        let link = Link::open(&plain, &host, [route].into_iter()).await;
        let link = link.unwrap();
        let (mut peer, _address) = listener.accept().await.unwrap();
        let mut start = vec![0x30, 0x80, 0x80, 0x20, 0, 1, b't'];
        start.resize(3 * READ, 0);
        let end = vec![0; 4 * READ + 4 - start.len()];
        let (whole, first) = (start.len(), peer.write_all(&start));
        let received = receive(link, |link, _packets| link.partial.len() == whole);
        let (sent, link) = tokio::join!(first, received);
        sent.unwrap();
        let here = Handle::current();
        let elsewhere = tokio::task::spawn_blocking(move || {
            here.block_on(receive(link, |_link, packets| packets == 1))
        });
        peer.write_all(&end).await.unwrap();
        elsewhere.await.unwrap();
    }
}
