//! One TCP connection: whole packets in, a buffer of bytes out.
//!
//! Thousands of clients are mostly silent, so a link owns no read buffer: bytes are read into a
//! buffer of the thread and only an incomplete packet is kept.

use std::{
    cell::RefCell,
    io,
    net::{IpAddr, SocketAddr},
    os::fd::AsRawFd,
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    io::{AsyncWriteExt, Interest, Ready},
    net::{TcpSocket, TcpStream},
};

use super::{
    codec::{Packet, Version, decode, disconnect, split},
    plan::Route,
    session::SessionError,
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
    Session(#[from] SessionError),
}

#[derive(Debug)]
pub(super) struct Link {
    stream: TcpStream,
    /// The part of a packet that has arrived.
    partial: Vec<u8>,
    pub(super) out: Vec<u8>,
    written: usize,
}

impl Link {
    /// Connects by the first of `routes` that works.
    pub(super) async fn open(routes: impl Iterator<Item = Route>) -> io::Result<Self> {
        let mut result = Err(io::ErrorKind::AddrNotAvailable.into());
        for route in routes {
            result = connect(route).await;
            if result.is_ok() {
                break;
            }
        }
        let stream = result?;
        Ok(Self {
            stream,
            partial: Vec::new(),
            out: Vec::new(),
            written: 0,
        })
    }

    /// This end's address and port.
    pub(super) fn source(&self) -> Option<SocketAddr> {
        self.stream.local_addr().ok()
    }

    /// Waits until there is something to read, or to write into when there is reason to.
    /// Cancel-safe.
    pub(super) async fn ready(&self, eager: bool) -> io::Result<Ready> {
        let interest = if eager || !self.is_flushed() {
            Interest::READABLE | Interest::WRITABLE
        } else {
            Interest::READABLE
        };
        self.stream.ready(interest).await
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
                let end = match self.stream.try_read(&mut buffer[kept..]) {
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
        while self.written < self.out.len() {
            match self.stream.try_write(&self.out[self.written..]) {
                Ok(written) => self.written += written,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) => return Err(e),
            }
        }
        self.out.clear();
        self.written = 0;
        Ok(())
    }

    pub(super) fn is_flushed(&self) -> bool {
        self.written == self.out.len()
    }

    /// Says DISCONNECT and waits for the server to close, but not for long.
    pub(super) async fn close(mut self) {
        disconnect(&mut self.out);
        let end = async {
            self.stream.write_all(&self.out[self.written..]).await?;
            self.stream.shutdown().await?;
            loop {
                self.stream.readable().await?;
                let read = BUFFER.with_borrow_mut(|buffer| self.stream.try_read(buffer));
                match read {
                    Ok(0) => return Ok(()),
                    Ok(_) => {}
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                    Err(e) => return Err::<(), io::Error>(e),
                }
            }
        };
        // Whatever goes wrong here, the connection is over, as it should be.
        drop(tokio::time::timeout(CLOSE, end).await);
    }
}

async fn connect(route: Route) -> io::Result<TcpStream> {
    let domain = Domain::for_address(route.target);
    let socket = Socket::new(domain, Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    if let Some(source) = route.source {
        bind_without_port(&socket, source)?;
    }
    TcpSocket::from_std_stream(socket.into())
        .connect(route.target)
        .await
}

/// Binds to an address only: the port is chosen at connect, where one port can serve
/// connections to several targets.
fn bind_without_port(socket: &Socket, source: IpAddr) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the descriptor is open for as long as `socket` is borrowed, and the value is an
    // int that lives through the call, its length told beside it.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    socket.bind(&SocketAddr::new(source, 0).into())
}

#[cfg(test)]
mod tests {
    use tokio::{net::TcpListener, runtime::Handle};

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
        let route = Route {
            source: None,
            target: listener.local_addr().unwrap(),
        };
        let link = Link::open([route].into_iter()).await.unwrap();
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
