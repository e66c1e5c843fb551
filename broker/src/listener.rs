//! Listening sockets: accept, read the CONNECT, hand the client to its shard.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use thiserror::Error;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tracing::{debug, warn};

use crate::{
    handshake::{self, HandshakeError},
    metrics::{Counters, Metric},
    shard::{Arrival, Shared},
    transport::Transport,
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

/// What all listeners hand their clients to.
pub(crate) struct Gate {
    pub(crate) shared: Arc<Shared>,
    pub(crate) shards: Vec<mpsc::Sender<Arrival>>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) open: Arc<AtomicUsize>,
}

/// An accepted connection's share of the limit; given back on drop.
pub(crate) struct Slot {
    counters: Arc<Counters>,
    open: Arc<AtomicUsize>,
}

impl Slot {
    fn take(gate: &Gate) -> Option<Self> {
        let before = gate.open.fetch_add(1, Ordering::AcqRel);
        gate.counters.inc(Metric::Connections);
        let slot = Self {
            counters: Arc::clone(&gate.counters),
            open: Arc::clone(&gate.open),
        };
        (before < gate.shared.limits.connections).then_some(slot)
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
        Some(Protocol::TCP),
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
pub(crate) async fn serve(listener: TcpListener, gate: Arc<Gate>) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => welcome(stream, peer, &gate),
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

fn welcome(stream: TcpStream, peer: SocketAddr, gate: &Arc<Gate>) {
    gate.counters.inc(Metric::Accepted);
    let Some(slot) = Slot::take(gate) else {
        gate.counters.inc(Metric::RefusedFull);
        return;
    };
    if let Err(error) = tune(&stream) {
        debug!(%peer, %error, "client left at once");
        return;
    }
    let gate = Arc::clone(gate);
    tokio::spawn(async move {
        if let Err(error) = admit(Box::new(stream), slot, &gate).await {
            gate.counters.inc(error.metric());
            debug!(%peer, %error, "client refused");
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

/// Reads the CONNECT and passes the client on to the shard that owns its session.
async fn admit(
    mut transport: Box<dyn Transport>,
    slot: Slot,
    gate: &Gate,
) -> Result<(), HandshakeError> {
    let limits = gate.shared.limits;
    let greeting = tokio::time::timeout(
        limits.connect_timeout,
        handshake::read_connect(&mut transport, limits.packet_bytes),
    )
    .await
    .map_err(|_elapsed| HandshakeError::Timeout)??;
    let accepted = handshake::check(greeting.connect, &mut transport, Instant::now()).await?;
    let shard = gate.shared.shard_of(&accepted.connect.client_id);
    let arrival = Arrival {
        transport,
        connect: accepted.connect,
        assigned_client_id: accepted.assigned_client_id,
        rest: greeting.rest,
        slot,
    };
    let arrivals = gate
        .shards
        .get(usize::from(shard.0))
        .ok_or(HandshakeError::Closed)?;
    arrivals
        .send(arrival)
        .await
        .map_err(|_stopped| HandshakeError::Closed)
}
