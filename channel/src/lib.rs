//! The channel between two nodes: TCP, with Noise on it. Carries messages of bytes, knows none.
//!
//! Balancers keep each other up to date over it, and the brokers of a cluster.
//!
//! The handshake is `Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s` (noiseprotocol.org, revision 34): both
//! ends show that they have the key before anything is said, and each connection has secrets of its
//! own that the key alone does not give away later. A first message that is replayed gets an answer
//! that nobody can use. From then on every frame is numbered by its nonce: what is forged, replayed,
//! left out or put elsewhere ends the connection.
//!
//! ```text
//!   0        2                        2 + length
//!   +--------+------------------------+
//!   | length | frame, encrypted       |      frame: 1 for "more follows" or 0, then bytes
//!   +--------+------------------------+
//! ```
//! Each direction gets a new key after so many (`REKEY`) frames (section 11.3).

mod key;
#[cfg(test)]
mod tests;

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use snow::{HandshakeState, TransportState};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    time,
};

pub use key::{Key, KeyError, Purpose};

const PATTERN: &str = "Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s";

/// For the peer to say its part of the handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// For the peer to take what is sent.
const WRITE: Duration = Duration::from_secs(5);

/// The longest frame of Noise (section 3).
const FRAME: usize = 65_535;

/// What the encryption adds to one.
const TAG: usize = 16;

/// The frames in one direction after which its key changes.
const REKEY: u64 = 4_096;

/// Why a channel is of no use, or never was.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    #[error("the peer ended the handshake: its key may be another one, see its log")]
    Refused,
    #[error("the peer has another key, or is no peer")]
    OtherKey,
    #[error("the peer did not finish the handshake in time")]
    Slow,
    #[error("the peer has closed the connection")]
    Closed,
    #[error("the peer takes nothing")]
    Stuck,
    #[error("a frame was forged, replayed or damaged")]
    Forged,
    #[error("a message is longer than {limit} bytes")]
    TooLong { limit: usize },
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    #[error("the encryption failed: {0}")]
    Noise(#[source] snow::Error),
}

/// The end that sends bytes.
pub struct Writer {
    stream: OwnedWriteHalf,
    secrets: Arc<Mutex<TransportState>>,
    frames: u64,
}

/// The end that receives them.
pub struct Reader {
    stream: OwnedReadHalf,
    secrets: Arc<Mutex<TransportState>>,
    frames: u64,
    limit: usize,
    /// What has come and is no whole frame yet.
    raw: Vec<u8>,
    /// What has come of a message.
    message: Vec<u8>,
}

/// Does the handshake with whom was called. Messages of up to `limit` bytes will be received.
///
/// # Errors
/// If the peer is none, or does not answer in time.
pub async fn call(
    stream: TcpStream,
    key: &Key,
    limit: usize,
) -> Result<(Writer, Reader), ChannelError> {
    let handshake = builder(key)?.build_initiator();
    let handshake = handshake.map_err(ChannelError::Noise)?;
    shake(stream, handshake, limit).await
}

/// Does the handshake with who has called.
///
/// # Errors
/// As [`call`].
pub async fn answer(
    stream: TcpStream,
    key: &Key,
    limit: usize,
) -> Result<(Writer, Reader), ChannelError> {
    let handshake = builder(key)?.build_responder();
    let handshake = handshake.map_err(ChannelError::Noise)?;
    shake(stream, handshake, limit).await
}

fn builder(key: &Key) -> Result<snow::Builder<'_>, ChannelError> {
    let pattern = PATTERN.parse().map_err(ChannelError::Noise)?;
    snow::Builder::new(pattern)
        .prologue(key.purpose().prologue.as_bytes())
        .and_then(|builder| builder.psk(0, key.bytes()))
        .map_err(ChannelError::Noise)
}

async fn shake(
    mut stream: TcpStream,
    mut handshake: HandshakeState,
    limit: usize,
) -> Result<(Writer, Reader), ChannelError> {
    stream.set_nodelay(true)?;
    let done = time::timeout(HANDSHAKE, exchange(&mut stream, &mut handshake)).await;
    done.map_err(|_elapsed| ChannelError::Slow)??;
    let secrets = handshake.into_transport_mode();
    let secrets = Arc::new(Mutex::new(secrets.map_err(ChannelError::Noise)?));
    let (read, write) = stream.into_split();
    let writer = Writer {
        stream: write,
        secrets: Arc::clone(&secrets),
        frames: 0,
    };
    let reader = Reader {
        stream: read,
        secrets,
        frames: 0,
        limit,
        raw: Vec::new(),
        message: Vec::new(),
    };
    Ok((writer, reader))
}

/// One message each way.
async fn exchange(
    stream: &mut TcpStream,
    handshake: &mut HandshakeState,
) -> Result<(), ChannelError> {
    let mut frame = vec![0; FRAME];
    while !handshake.is_handshake_finished() {
        if handshake.is_my_turn() {
            let written = handshake.write_message(&[], &mut frame);
            let length = written.map_err(ChannelError::Noise)?;
            write_frame(stream, &frame[..length]).await?;
        } else {
            let received = read_handshake(stream).await?;
            let read = handshake.read_message(&received, &mut frame);
            read.map_err(|_error| ChannelError::OtherKey)?;
        }
    }
    Ok(())
}

/// A message of the handshake is short: who announces more is no peer.
async fn read_handshake(stream: &mut TcpStream) -> Result<Vec<u8>, ChannelError> {
    const LONGEST: usize = 96;
    let length = stream.read_u16().await.map_err(ended)?;
    let length = usize::from(length);
    if length > LONGEST {
        return Err(ChannelError::OtherKey);
    }
    let mut message = vec![0; length];
    stream.read_exact(&mut message).await.map_err(ended)?;
    Ok(message)
}

fn ended(error: io::Error) -> ChannelError {
    let is_end = matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
    );
    if is_end {
        ChannelError::Refused
    } else {
        ChannelError::Io(error)
    }
}

async fn write_frame(
    stream: &mut (impl tokio::io::AsyncWrite + Unpin),
    frame: &[u8],
) -> Result<usize, ChannelError> {
    // As large as a frame can be.
    let length = u16::try_from(frame.len()).map_err(|_error| ChannelError::Forged)?;
    let bytes = [&length.to_be_bytes(), frame].concat();
    stream.write_all(&bytes).await?;
    Ok(bytes.len())
}

impl Writer {
    /// Sends a message, and says in how many bytes. What is cancelled half way leaves the channel of no
    /// use.
    ///
    /// # Errors
    /// If the peer has gone, or takes nothing.
    pub async fn send(&mut self, message: &[u8]) -> Result<usize, ChannelError> {
        let mut chunks = message.chunks(FRAME - TAG - 1).peekable();
        let mut sent = 0;
        loop {
            let chunk = chunks.next().unwrap_or_default();
            let more = chunks.peek().is_some();
            let frame = self.encrypt(chunk, more)?;
            let written = time::timeout(WRITE, write_frame(&mut self.stream, &frame)).await;
            sent += written.map_err(|_elapsed| ChannelError::Stuck)??;
            if !more {
                return Ok(sent);
            }
        }
    }

    fn encrypt(&mut self, chunk: &[u8], more: bool) -> Result<Vec<u8>, ChannelError> {
        let plain = [&[u8::from(more)], chunk].concat();
        let mut frame = vec![0; plain.len() + TAG];
        let mut secrets = self.secrets.lock().unwrap_or_else(PoisonError::into_inner);
        let written = secrets.write_message(&plain, &mut frame);
        frame.truncate(written.map_err(ChannelError::Noise)?);
        self.frames += 1;
        if self.frames.is_multiple_of(REKEY) {
            secrets.rekey_outgoing();
        }
        Ok(frame)
    }
}

impl Reader {
    /// Waits for the next message. May be cancelled: what has come is kept.
    ///
    /// # Errors
    /// If the peer has gone, or what has come is not from it.
    pub async fn receive(&mut self) -> Result<Vec<u8>, ChannelError> {
        loop {
            if let Some(message) = self.receive_part().await? {
                return Ok(message);
            }
        }
    }

    /// Waits for the next message, or some bytes of it: `None` says that there is more to come. Who
    /// judges a peer by its silence hears it in the midst of a long message too. May be cancelled.
    ///
    /// # Errors
    /// As [`Reader::receive`].
    pub async fn receive_part(&mut self) -> Result<Option<Vec<u8>>, ChannelError> {
        if let Some(message) = self.whole_message()? {
            return Ok(Some(message));
        }
        self.raw.reserve(FRAME);
        if self.stream.read_buf(&mut self.raw).await? == 0 {
            return Err(ChannelError::Closed);
        }
        self.whole_message()
    }

    fn whole_message(&mut self) -> Result<Option<Vec<u8>>, ChannelError> {
        while let Some(length) = self.whole_frame() {
            if self.decrypt(length)? {
                return Ok(Some(std::mem::take(&mut self.message)));
            }
        }
        Ok(None)
    }

    /// The length of the frame in front, if all of it is here.
    fn whole_frame(&self) -> Option<usize> {
        let (head, rest) = self.raw.split_first_chunk::<2>()?;
        let length = usize::from(u16::from_be_bytes(*head));
        (rest.len() >= length).then_some(length)
    }

    /// Adds the frame in front to the message; says whether that is all of it.
    fn decrypt(&mut self, length: usize) -> Result<bool, ChannelError> {
        let mut plain = vec![0; length];
        let mut secrets = self.secrets.lock().unwrap_or_else(PoisonError::into_inner);
        let read = secrets.read_message(&self.raw[2..2 + length], &mut plain);
        plain.truncate(read.map_err(|_error| ChannelError::Forged)?);
        self.frames += 1;
        if self.frames.is_multiple_of(REKEY) {
            secrets.rekey_incoming();
        }
        drop(secrets);
        self.raw.drain(..2 + length);
        let (more, chunk) = plain.split_first().ok_or(ChannelError::Forged)?;
        if self.message.len() + chunk.len() > self.limit {
            return Err(ChannelError::TooLong { limit: self.limit });
        }
        self.message.extend_from_slice(chunk);
        Ok(*more == 0)
    }
}
