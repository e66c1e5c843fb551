//! What is between a client's packets and its socket: nothing, TLS, WebSocket frames, or both.
//!
//! Thousands of clients are mostly silent, so no layer has a task, a thread or a read buffer of
//! its own: each takes bytes off the one below when the socket has some, as far as it goes.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, SocketAddr},
    os::fd::AsRawFd,
};

use rustls::{ClientConnection, pki_types::ServerName};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    io::{AsyncWriteExt, Interest, Ready},
    net::{TcpSocket, TcpStream},
};
use tokio_rustls::TlsConnector;

use super::{
    plan::Route,
    websocket::{self, Frames, Request, UpgradeError},
};

/// What all clients of a run put between.
#[derive(Default)]
pub(super) struct Transport {
    pub(super) tls: Option<TlsConnector>,
    pub(super) websocket: Option<WebSocket>,
}

/// What an HTTP request for a WebSocket asks for.
#[derive(Debug)]
pub(super) struct WebSocket {
    pub(super) path: String,
    pub(super) subprotocol: &'static str,
}

/// A server, as it is called and as it is found.
#[derive(Debug)]
pub(super) struct Host {
    /// With its port.
    pub(super) authority: String,
    /// Who its certificate has to be for.
    pub(super) name: Option<ServerName<'static>>,
    pub(super) addresses: Vec<SocketAddr>,
}

/// A connection whose layers have been agreed upon.
#[derive(Debug)]
pub(super) struct Wire {
    pipe: Pipe,
    frames: Option<Box<Frames>>,
}

/// The socket, and TLS over it.
#[derive(Debug)]
struct Pipe {
    stream: TcpStream,
    tls: Option<Box<ClientConnection>>,
}

impl std::fmt::Debug for Transport {
    /// Without what TLS is made with: the client's key is in it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transport")
            .field("tls", &self.tls.is_some())
            .field("websocket", &self.websocket)
            .finish()
    }
}

impl Wire {
    /// Connects, shakes hands and asks for a WebSocket, whichever there is to be.
    pub(super) async fn open(
        transport: &Transport,
        host: &Host,
        route: Route,
    ) -> Result<Self, UpgradeError> {
        let mut stream = connect(route).await?;
        let request = transport.websocket.as_ref().map(|websocket| Request {
            authority: &host.authority,
            path: &websocket.path,
            subprotocol: websocket.subprotocol,
        });
        let frames = request.is_some().then(Box::default);
        let (Some(connector), Some(name)) = (&transport.tls, &host.name) else {
            if let Some(request) = request {
                websocket::upgrade(&mut stream, &request).await?;
            }
            let pipe = Pipe { stream, tls: None };
            return Ok(Self { pipe, frames });
        };
        let mut stream = connector.connect(name.clone(), stream).await?;
        if let Some(request) = request {
            websocket::upgrade(&mut stream, &request).await?;
        }
        let (stream, tls) = stream.into_inner();
        let tls = Some(Box::new(tls));
        let pipe = Pipe { stream, tls };
        Ok(Self { pipe, frames })
    }

    /// This end's address and port.
    pub(super) fn source(&self) -> Option<SocketAddr> {
        self.pipe.stream.local_addr().ok()
    }

    /// Waits for the socket. Cancel-safe.
    pub(super) async fn ready(&self, interest: Interest) -> io::Result<Ready> {
        self.pipe.stream.ready(interest).await
    }

    /// Reads payload; nothing is its end. No layer holds any back when it says
    /// [`io::ErrorKind::WouldBlock`].
    pub(super) fn try_read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let Some(frames) = &mut self.frames else {
            return self.pipe.try_read(room);
        };
        while !frames.is_closed() {
            let read = self.pipe.try_read(room)?;
            if read == 0 {
                break;
            }
            let payload = frames.decode(&mut room[..read]).map_err(invalid)?;
            if payload > 0 {
                return Ok(payload);
            }
        }
        Ok(0)
    }

    /// Takes payload; how much of it has left shows [`Self::try_flush`].
    pub(super) fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.frames.is_none() {
            return self.pipe.try_write(bytes);
        }
        self.try_flush()?;
        let frames = self.frames.as_mut();
        frames.map_or(Ok(0), |frames| frames.push(bytes))
    }

    /// Hands on what the layers hold; fine if nothing is left.
    pub(super) fn try_flush(&mut self) -> io::Result<()> {
        if let Some(frames) = &mut self.frames {
            while !frames.outgoing().is_empty() {
                let taken = self.pipe.try_write(frames.outgoing())?;
                frames.advance(taken);
            }
        }
        self.pipe.try_flush()
    }

    /// Whether a layer holds something that the socket has not taken.
    pub(super) fn is_flushed(&self) -> bool {
        let framed = self.frames.as_ref();
        framed.is_none_or(|frames| frames.outgoing().is_empty())
            && !self.pipe.tls.as_ref().is_some_and(|tls| tls.wants_write())
    }

    /// Says that nothing will follow, on every layer, and waits until the server has said so too.
    pub(super) async fn finish(&mut self) -> io::Result<()> {
        if let Some(frames) = &mut self.frames {
            frames.close()?;
        }
        self.flush().await?;
        if let Some(tls) = &mut self.pipe.tls {
            tls.send_close_notify();
        }
        self.flush().await?;
        self.pipe.stream.shutdown().await?;
        let mut rest = [0; 4096];
        loop {
            self.ready(Interest::READABLE).await?;
            match self.pipe.stream.try_read(&mut rest) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
        }
    }

    async fn flush(&mut self) -> io::Result<()> {
        loop {
            match self.try_flush() {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    self.ready(Interest::WRITABLE).await?;
                }
                result => return result,
            }
        }
    }
}

impl Pipe {
    fn try_read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else {
            return self.stream.try_read(room);
        };
        loop {
            match tls.reader().read(room) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                result => return result,
            }
            if tls.read_tls(&mut Direct(&self.stream))? == 0 {
                return Ok(0);
            }
            tls.process_new_packets().map_err(invalid)?;
        }
    }

    fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.try_flush()?;
        match &mut self.tls {
            Some(tls) => tls.writer().write(bytes),
            None => self.stream.try_write(bytes),
        }
    }

    fn try_flush(&mut self) -> io::Result<()> {
        if let Some(tls) = &mut self.tls {
            while tls.wants_write() {
                tls.write_tls(&mut Direct(&self.stream))?;
            }
        }
        Ok(())
    }
}

/// A socket that takes and gives what it can at once.
struct Direct<'a>(&'a TcpStream);

impl Read for Direct<'_> {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(room)
    }
}

impl Write for Direct<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
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
