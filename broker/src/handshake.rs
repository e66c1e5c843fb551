//! The first packet of a connection: which protocol, which client, and is it welcome?

use std::{future::poll_fn, io, pin::Pin, task::Poll, time::Instant};

use bytes::{Bytes, BytesMut};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use crate::{
    codec::{
        self, DecodeError, Frame,
        packet::{ConnAck, Connect, ConnectCode, Recipient, Version},
    },
    evacuation::Referral,
    metrics::Metric,
    proxy::ProxyError,
    transport::Transport,
    websocket::{UpgradeError, Violation},
};

/// Enough for any usual CONNECT in one read.
const FIRST_READ: usize = 1024;

/// What of a CONNECT tells its version at the latest: a fixed header of five bytes, the longest name of
/// the protocol with its length, and the level.
const PREAMBLE: usize = 5 + 2 + 6 + 1;

/// What is thrown away of a refused client in one read, and the most of such reads.
const DISCARD: usize = 1024;
const DISCARDS: usize = 64;

/// Why a client was not let in.
#[derive(Debug, Error)]
pub(crate) enum HandshakeError {
    #[error("no CONNECT in time")]
    Timeout,
    #[error("closed before its CONNECT was answered")]
    Closed,
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    #[error("no TLS")]
    Tls(#[source] rustls::Error),
    #[error(transparent)]
    WebSocket(#[from] UpgradeError),
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error("refused: {0:?}")]
    Refused(ConnectCode),
}

impl HandshakeError {
    /// Tells why a TLS handshake failed: by the client's fault, or because it left.
    pub(crate) fn from_tls(error: io::Error) -> Self {
        match error.downcast() {
            Ok(error) => Self::Tls(error),
            Err(error) => Self::Io(error),
        }
    }

    /// What the client did to its WebSocket, if that is why.
    pub(crate) fn violation(&self) -> Option<Violation> {
        match self {
            Self::Io(error) => Violation::of(error),
            Self::Timeout
            | Self::Closed
            | Self::Proxy(_)
            | Self::Tls(_)
            | Self::WebSocket(_)
            | Self::Decode(_)
            | Self::Refused(_) => None,
        }
    }

    /// What the refusal is counted as.
    pub(crate) fn metric(&self) -> Metric {
        if self.violation().is_some() {
            return Metric::RefusedWebSocket;
        }
        match self {
            Self::Timeout => Metric::RefusedTimeout,
            Self::Closed | Self::Io(_) | Self::Proxy(ProxyError::Closed | ProxyError::Io(_)) => {
                Metric::RefusedClosed
            }
            Self::Proxy(ProxyError::Absent | ProxyError::Malformed | ProxyError::TooLong) => {
                Metric::RefusedProxy
            }
            Self::Tls(_) => Metric::RefusedTls,
            Self::WebSocket(UpgradeError::Closed | UpgradeError::Io(_)) => Metric::RefusedClosed,
            Self::WebSocket(
                UpgradeError::NotHttp(_) | UpgradeError::TooLong | UpgradeError::Refused(_),
            ) => Metric::RefusedWebSocket,
            Self::Refused(ConnectCode::RateExceeded) => Metric::RefusedRate,
            Self::Refused(ConnectCode::ServerBusy) => Metric::RefusedBusy,
            Self::Refused(ConnectCode::UseAnotherServer | ConnectCode::ServerMoved) => {
                Metric::RefusedReferred
            }
            Self::Refused(
                ConnectCode::BadCredentials
                | ConnectCode::NotAuthorized
                | ConnectCode::ServerUnavailable,
            ) => Metric::RefusedAccess,
            Self::Decode(_) | Self::Refused(_) => Metric::RefusedProtocol,
        }
    }
}

/// A CONNECT and what was read behind it.
#[derive(Debug)]
pub(crate) struct Greeting {
    pub(crate) connect: Connect,
    pub(crate) rest: Bytes,
}

/// A client that may have its session.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) connect: Connect,
    /// The client had no id of its own.
    pub(crate) assigned_client_id: bool,
}

/// Reads a connection's first packet, which tells its protocol version; answers it when it cannot
/// be accepted.
///
/// # Errors
/// When it is no CONNECT that this broker understands, or the client leaves.
pub(crate) async fn read_connect<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    limit: usize,
) -> Result<Greeting, HandshakeError> {
    let mut bytes = BytesMut::with_capacity(FIRST_READ);
    let frame = loop {
        // Anything else than a CONNECT is not worth waiting for.
        if bytes.first().is_some_and(|first| *first != 0x10) {
            return Err(DecodeError::Protocol.into());
        }
        match codec::frame(&bytes, limit) {
            Ok(Some(frame)) => break frame,
            Err(DecodeError::TooLarge) if bytes.len() >= PREAMBLE => {
                if long_version(&bytes).is_some_and(Version::is_v5) {
                    let client = Recipient::unknown(Version::V5);
                    refuse(stream, ConnectCode::PacketTooLarge, client).await;
                }
                return Err(DecodeError::TooLarge.into());
            }
            Ok(None) | Err(DecodeError::TooLarge) => {}
            Err(error) => return Err(error.into()),
        }
        bytes.reserve(FIRST_READ);
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(HandshakeError::Closed);
        }
    };
    let packet = bytes.split_to(frame.total);
    let version = match codec::connect_version(&packet, frame) {
        Ok(version) => version,
        Err(error) => {
            // Which answer a client of an unknown version understands is a guess; the old one is
            // what it most likely knows (MQTT 5, 3.1.2.2).
            if error == DecodeError::UnsupportedVersion {
                let client = Recipient::unknown(Version::V311);
                refuse(stream, error.connect_code(), client).await;
            }
            return Err(error.into());
        }
    };
    match codec::decode_connect(&packet, frame, version) {
        Ok(connect) => Ok(Greeting {
            connect,
            // A copy, so that what usually is nothing does not hold the buffer.
            rest: Bytes::copy_from_slice(&bytes),
        }),
        Err(error) => {
            // MQTT 3 closes without an answer.
            if version.is_v5() {
                refuse(stream, error.connect_code(), Recipient::unknown(version)).await;
            }
            Err(error.into())
        }
    }
}

/// The version of a CONNECT whose end is not there and never will be.
fn long_version(bytes: &[u8]) -> Option<Version> {
    let lengths = bytes.get(1..)?;
    let header = lengths.iter().position(|byte| byte & 0x80 == 0)? + 2;
    let total = bytes.len();
    codec::connect_version(bytes, Frame { header, total }).ok()
}

/// Applies the rules that need no session; answers the CONNECT when one is broken.
///
/// # Errors
/// When the client was refused.
pub(crate) async fn check(
    mut connect: Connect,
    transport: &mut Box<dyn Transport>,
    now: Instant,
) -> Result<Accepted, HandshakeError> {
    let is_anonymous = connect.client_id.is_empty();
    let refusal = if connect.authentication_method.is_some() {
        Some(ConnectCode::BadAuthenticationMethod)
    } else if is_anonymous && !may_be_anonymous(&connect) {
        Some(ConnectCode::ClientIdInvalid)
    } else {
        None
    };
    if let Some(code) = refusal {
        refuse(transport, code, connect.recipient()).await;
        return Err(HandshakeError::Refused(code));
    }
    if is_anonymous {
        connect.client_id = assigned_client_id(now);
    }
    Ok(Accepted {
        connect,
        assigned_client_id: is_anonymous,
    })
}

/// 3.1 wants an id; 3.1.1 only for a session that is to be found again (3.1.3-8).
fn may_be_anonymous(connect: &Connect) -> bool {
    match connect.version {
        Version::V31 => false,
        Version::V311 => connect.clean_start,
        Version::V5 => true,
    }
}

/// An id that no client of this node has, and that cannot be guessed.
fn assigned_client_id(now: Instant) -> String {
    use std::hash::{BuildHasher, RandomState};
    // Each `RandomState` has keys of its own from the system's random numbers.
    let half = || RandomState::new().hash_one(now);
    format!("auto-{:016x}{:016x}", half(), half())
}

/// Answers a CONNECT with a refusal and closes the stream.
pub(crate) async fn refuse<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    code: ConnectCode,
    client: Recipient,
) {
    refuse_with(stream, ConnAck::refusal(code), client).await;
}

/// As [`refuse`]; tells the client where it should go.
pub(crate) async fn refer<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    referral: &Referral,
    client: Recipient,
) {
    let refusal = ConnAck {
        servers: referral.servers.clone(),
        ..ConnAck::refusal(referral.code())
    };
    refuse_with(stream, refusal, client).await;
}

async fn refuse_with<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    refusal: ConnAck,
    client: Recipient,
) {
    let mut answer = BytesMut::new();
    let Recipient { version, words } = client;
    codec::encode_connack(refusal, words, version, &mut answer);
    // A packet that is too long for its client is not sent (MQTT 5, 3.1.2-24).
    if client.takes(answer.len()) {
        // The client is sent away; whether it heard why does not matter.
        let _ = stream.write_all(&answer).await;
    }
    let _ = stream.shutdown().await;
    discard(stream).await;
}

/// Throws away what has arrived, and waits for no more: a socket that is closed with bytes unread is
/// reset, and the reset may overtake the answer.
async fn discard<S: AsyncRead + Unpin>(stream: &mut S) {
    poll_fn(|context| {
        let mut room = [0; DISCARD];
        for _ in 0..DISCARDS {
            let mut buffer = ReadBuf::new(&mut room);
            let read = Pin::new(&mut *stream).poll_read(context, &mut buffer);
            if !matches!(read, Poll::Ready(Ok(()))) || buffer.filled().is_empty() {
                break;
            }
        }
        Poll::Ready(())
    })
    .await;
}
