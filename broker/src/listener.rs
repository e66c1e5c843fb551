//! Listening sockets: accept, read what comes before the CONNECT and the CONNECT itself, hand the
//! client to its shard.

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use thiserror::Error;
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tracing::{debug, warn};

use crate::{
    access::{Login, Policy},
    codec::packet::ConnectCode,
    gate::{Gate, Slot},
    handshake::{self, Accepted, HandshakeError},
    metrics::Metric,
    peer::Peer,
    service::Service,
    shard::Arrival,
    transport::Transport,
};

/// Clients that the kernel holds while they wait to be accepted; a reconnect storm brings
/// thousands in one round trip.
const BACKLOG: i32 = 8192;

/// What is read of a client that waits to have its password checked; most say nothing before they
/// have heard that they are let in.
const SAID_EARLY: usize = 1024;

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
pub(crate) async fn serve(
    listener: TcpListener,
    service: watch::Receiver<Arc<Service>>,
    gate: Arc<Gate>,
) {
    loop {
        match listener.accept().await {
            Ok((stream, address)) => {
                // Before the service: a reload exchanges it behind that.
                let policy = gate.shared.access.policy();
                let service = Arc::clone(&service.borrow());
                welcome(stream, address, service, policy, &gate);
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

fn welcome(
    stream: TcpStream,
    address: SocketAddr,
    service: Arc<Service>,
    policy: Arc<Policy>,
    gate: &Arc<Gate>,
) {
    gate.counters.inc(Metric::Accepted);
    let (slot, pending) = match gate.enter(Instant::now()) {
        Ok(room) => room,
        Err(metric) => {
            gate.counters.inc(metric);
            return;
        }
    };
    if let Err(error) = tune(&stream) {
        debug!(%address, %error, "client left at once");
        return;
    }
    let gate = Arc::clone(gate);
    tokio::spawn(async move {
        if let Err(error) = admit(stream, address, &service, &policy, slot, &gate).await {
            gate.counters.inc(error.metric());
            if let Some(violation) = error.violation() {
                gate.counters.inc(violation.metric());
            }
            let error = &error as &dyn std::error::Error;
            debug!(%address, error, "client refused");
        }
        drop(pending);
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
/// passes the client on.
async fn admit(
    stream: TcpStream,
    address: SocketAddr,
    service: &Service,
    policy: &Policy,
    slot: Slot,
    gate: &Gate,
) -> Result<(), HandshakeError> {
    let limit = gate.shared.limits().connect_timeout;
    let deadline = tokio::time::Instant::now() + limit;
    let greeted = tokio::time::timeout_at(deadline, greet(stream, address, service, gate));
    let Guest {
        mut transport,
        peer,
        accepted,
        rest,
    } = greeted
        .await
        .map_err(|_elapsed| HandshakeError::Timeout)??;
    let login = Login::of(&accepted, &peer);
    // Many may wait to have a password checked; those who waited in vain may come again.
    let admitted = tokio::time::timeout_at(deadline, gate.shared.access.admit(policy, &login));
    let mut said = BytesMut::new();
    let identified = tokio::select! {
        biased;
        admitted = admitted => admitted.unwrap_or(Err(ConnectCode::ServerUnavailable)),
        // Others wait behind it.
        () = hang_up(&mut transport, &mut said) => return Err(HandshakeError::Closed),
    };
    let identity = match identified {
        Ok(identity) => identity,
        Err(code) => {
            let refusal = handshake::refuse(&mut transport, code, accepted.connect.recipient());
            // One that does not read would keep its place for good.
            let _late = tokio::time::timeout(limit, refusal).await;
            return Err(HandshakeError::Refused(code));
        }
    };
    let rest = if said.is_empty() {
        rest
    } else {
        [rest, said.freeze()].concat().into()
    };
    let Accepted {
        connect,
        assigned_client_id,
    } = accepted;
    let arrival = Arrival {
        transport,
        peer,
        connect,
        identity,
        assigned_client_id,
        rest,
        slot,
    };
    gate.hand_over(arrival).await
}

/// Resolves when the client hangs up. What it says meanwhile is kept, as long as that is little:
/// behind more its end is not seen.
async fn hang_up(transport: &mut Box<dyn Transport>, said: &mut BytesMut) {
    while said.len() < SAID_EARLY {
        if !matches!(transport.read_buf(said).await, Ok(1..)) {
            return;
        }
    }
    std::future::pending().await
}

/// A client whose CONNECT was read.
struct Guest {
    transport: Box<dyn Transport>,
    peer: Peer,
    accepted: Accepted,
    /// What came after the CONNECT.
    rest: Bytes,
}

async fn greet(
    stream: TcpStream,
    address: SocketAddr,
    service: &Service,
    gate: &Gate,
) -> Result<Guest, HandshakeError> {
    let (mut transport, peer) = service.open(stream, address).await?;
    let limits = gate.shared.limits();
    let longest = limits.packet_bytes.min(limits.connect_bytes);
    let greeting = handshake::read_connect(&mut transport, longest).await?;
    let connect = greeting.connect;
    if let Some(order) = gate.shared.evacuation.refuses(Instant::now()) {
        handshake::refer(&mut transport, &order.referral, connect.recipient()).await;
        return Err(HandshakeError::Refused(order.referral.code()));
    }
    if let Err(code) = gate.judge(&connect.client_id, Instant::now()) {
        handshake::refuse(&mut transport, code, connect.recipient()).await;
        return Err(HandshakeError::Refused(code));
    }
    let accepted = handshake::check(connect, &mut transport, Instant::now()).await?;
    Ok(Guest {
        transport,
        peer,
        accepted,
        rest: greeting.rest,
    })
}
