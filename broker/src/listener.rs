//! Listening sockets: accept, read what comes before the CONNECT and the CONNECT itself, hand the
//! client to its shard.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use socket2::{Domain, SockRef, Socket, TcpKeepalive, Type};
use thiserror::Error;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
};
use tracing::{debug, warn};

use crate::{
    config::{self, Protocol},
    handshake::{self, Accepted, HandshakeError},
    metrics::{Counters, Metric, render_head, render_value},
    peer::Peer,
    proxy,
    shard::{Arrival, Shared},
    tls::{self, Identity, TlsError},
    transport::{self, Transport},
    websocket::{WebSocket, upgrade},
};

/// Clients that the kernel holds while they wait to be accepted; a reconnect storm brings
/// thousands in one round trip.
const BACKLOG: i32 = 8192;

/// TCP's own keep-alive finds dead peers whose MQTT keep-alive is off, and makes idle clients send
/// an ACK through the balancer in front, which learns from it.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
const KEEPALIVE_RETRIES: u32 = 4;

/// How long accepting rests when the process has no file descriptor left.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Why a listener cannot be opened.
#[derive(Debug, Error)]
#[error("cannot listen on {address}")]
pub struct ListenError {
    address: SocketAddr,
    #[source]
    source: io::Error,
}

/// What a listener keeps when it is given a new configuration.
#[derive(Debug, Error)]
#[error("listener {address} keeps its certificates")]
pub struct Kept {
    address: SocketAddr,
    #[source]
    source: TlsError,
}

/// What all listeners hand their clients to.
pub(crate) struct Gate {
    pub(crate) shared: Arc<Shared>,
    pub(crate) shards: Vec<mpsc::Sender<Arrival>>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) open: Arc<AtomicUsize>,
}

/// How a listener speaks with the clients that it accepts; a reload gives it another.
pub(crate) struct Service {
    config: config::Listener,
    identity: Option<Identity>,
}

impl Service {
    /// Reads the files that the configuration names.
    ///
    /// # Errors
    /// When one of them cannot be used.
    pub(crate) fn new(config: &config::Listener) -> Result<Self, TlsError> {
        let identity = match &config.tls {
            Some(files) => {
                let identity = Identity::load(files)?;
                if let Err(error) = identity.check_time(files) {
                    // Clients that do not check may still come.
                    warn!(%error, "certificate is of no use");
                }
                Some(identity)
            }
            None => None,
        };
        Ok(Self {
            config: config.clone(),
            identity,
        })
    }

    /// When clients will take the certificate no more, in seconds of Unix time.
    fn not_after(&self) -> Option<u64> {
        self.identity.as_ref()?.not_after
    }

    /// Reads what comes before MQTT; tells who the client is.
    async fn open(
        &self,
        mut stream: TcpStream,
        mut address: SocketAddr,
    ) -> Result<(Box<dyn Transport>, Peer), HandshakeError> {
        let is_proxy = |prefix: &lb_decap::Prefix| prefix.contains(address.ip());
        if self.config.proxies.iter().any(is_proxy)
            && let Some(client) = proxy::read_header(&mut stream).await?
        {
            address = client;
        }
        let socket = transport::Socket::from(stream);
        let mut peer = Peer {
            address,
            certificate: None,
        };
        let transport = match &self.identity {
            Some(identity) => {
                let accepted = identity.accept(socket).await;
                let stream = accepted.map_err(HandshakeError::from_tls)?;
                let (_socket, session) = stream.get_ref();
                peer.certificate = tls::client_certificate(session).map(Arc::new);
                self.wrap(stream).await?
            }
            None => self.wrap(socket).await?,
        };
        Ok((transport, peer))
    }

    /// Makes a byte stream for MQTT of what the network gives.
    async fn wrap<S: Transport>(
        &self,
        mut stream: S,
    ) -> Result<Box<dyn Transport>, HandshakeError> {
        Ok(match &self.config.protocol {
            Protocol::Mqtt => Box::new(stream),
            Protocol::WebSocket { path } => {
                let ahead = upgrade(&mut stream, path).await?;
                Box::new(WebSocket::new(stream, ahead))
            }
        })
    }
}

/// The services of all listeners, to exchange while they run.
pub(crate) struct Services(Vec<watch::Sender<Arc<Service>>>);

impl Services {
    pub(crate) fn new(services: Vec<Service>) -> Self {
        let channel = |service| watch::Sender::new(Arc::new(service));
        Self(services.into_iter().map(channel).collect())
    }

    /// For each listener, in order, its service and what becomes of it.
    pub(crate) fn subscribe(&self) -> Vec<watch::Receiver<Arc<Service>>> {
        self.0.iter().map(watch::Sender::subscribe).collect()
    }

    /// Reads all files anew and gives them to listeners with the same address; connections that are
    /// there stay as they are. The result is which listeners keep what they have.
    pub(crate) fn reload(&self, listeners: &[config::Listener]) -> Vec<Kept> {
        let mut listeners: Vec<_> = listeners.iter().collect();
        let mut kept = Vec::new();
        for current in &self.0 {
            let address = current.borrow().config.address;
            // Each is taken once: several may ask the kernel for a port.
            let found = listeners.iter().position(|new| new.address == address);
            let Some(found) = found else { continue };
            match Service::new(listeners.remove(found)) {
                Ok(service) => drop(current.send_replace(Arc::new(service))),
                Err(source) => kept.push(Kept { address, source }),
            }
        }
        kept
    }

    /// Appends how long certificates are good in Prometheus's text format.
    pub(crate) fn render(&self, out: &mut String) {
        let name = "certificate_not_after_seconds";
        let help = "When clients will take the certificate no more, in Unix time.";
        render_head(out, name, "gauge", help);
        for service in &self.0 {
            let service = service.borrow();
            if let Some(not_after) = service.not_after() {
                let label = format!("listener=\"{}\"", service.config.address);
                render_value(out, name, &label, not_after);
            }
        }
    }
}

/// An accepted connection's share of the limit; given back on drop.
pub(crate) struct Slot {
    since: Instant,
    counters: Arc<Counters>,
    open: Arc<AtomicUsize>,
}

impl Slot {
    fn take(gate: &Gate) -> Option<Self> {
        let before = gate.open.fetch_add(1, Ordering::AcqRel);
        gate.counters.inc(Metric::Connections);
        let slot = Self {
            since: Instant::now(),
            counters: Arc::clone(&gate.counters),
            open: Arc::clone(&gate.open),
        };
        (before < gate.shared.limits.connections).then_some(slot)
    }
}

impl Slot {
    /// When the connection was accepted.
    pub(crate) fn since(&self) -> Instant {
        self.since
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::AcqRel);
        self.counters.sub(Metric::Connections, 1);
    }
}

/// Opens a listening socket. IPv6 ones take IPv6 only, so that `0.0.0.0` and `[::]` can have the
/// same port. `mss` is the largest segment that clients are to send, in bytes.
///
/// # Errors
/// When the address is taken or not this host's.
pub(crate) fn bind(address: SocketAddr, mss: Option<u16>) -> Result<TcpListener, ListenError> {
    open(address, mss).map_err(|source| ListenError { address, source })
}

fn open(address: SocketAddr, mss: Option<u16>) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(socket2::Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if let Some(mss) = mss {
        // Accepted connections inherit it; it goes out with the SYN-ACK.
        socket.set_tcp_mss(mss.into())?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Accepts clients until the task is dropped.
pub(crate) async fn serve(
    listener: TcpListener,
    service: watch::Receiver<Arc<Service>>,
    gate: Arc<Gate>,
) {
    loop {
        match listener.accept().await {
            Ok((stream, address)) => {
                let service = Arc::clone(&service.borrow());
                welcome(stream, address, service, &gate);
            }
            Err(error) if is_peers_fault(&error) => {}
            Err(error) => {
                warn!(%error, "cannot accept");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

/// The client was gone before it was accepted.
fn is_peers_fault(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
    )
}

fn welcome(stream: TcpStream, address: SocketAddr, service: Arc<Service>, gate: &Arc<Gate>) {
    gate.counters.inc(Metric::Accepted);
    let Some(slot) = Slot::take(gate) else {
        gate.counters.inc(Metric::RefusedFull);
        return;
    };
    if let Err(error) = tune(&stream) {
        debug!(%address, %error, "client left at once");
        return;
    }
    let gate = Arc::clone(gate);
    tokio::spawn(async move {
        if let Err(error) = admit(stream, address, &service, slot, &gate).await {
            gate.counters.inc(error.metric());
            let error = &error as &dyn std::error::Error;
            debug!(%address, error, "client refused");
        }
    });
}

fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_RETRIES);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

/// Reads all that comes before the client has a session, in the time that there is for it, and
/// passes the client on to the shard that owns its session.
async fn admit(
    stream: TcpStream,
    address: SocketAddr,
    service: &Service,
    slot: Slot,
    gate: &Gate,
) -> Result<(), HandshakeError> {
    let limit = gate.shared.limits.connect_timeout;
    let greeting = tokio::time::timeout(limit, greet(stream, address, service, slot, gate));
    let arrival = greeting
        .await
        .map_err(|_elapsed| HandshakeError::Timeout)??;
    let shard = gate.shared.shard_of(&arrival.connect.client_id);
    let arrivals = gate
        .shards
        .get(usize::from(shard.0))
        .ok_or(HandshakeError::Closed)?;
    arrivals
        .send(arrival)
        .await
        .map_err(|_stopped| HandshakeError::Closed)
}

async fn greet(
    stream: TcpStream,
    address: SocketAddr,
    service: &Service,
    slot: Slot,
    gate: &Gate,
) -> Result<Arrival, HandshakeError> {
    let (mut transport, peer) = service.open(stream, address).await?;
    let longest = gate.shared.limits.packet_bytes;
    let greeting = handshake::read_connect(&mut transport, longest).await?;
    let accepted = handshake::check(greeting.connect, &mut transport, Instant::now()).await?;
    let Accepted {
        connect,
        assigned_client_id,
    } = accepted;
    Ok(Arrival {
        transport,
        peer,
        connect,
        assigned_client_id,
        rest: greeting.rest,
        slot,
    })
}
