//! The client's half of WebSocket (RFC 6455): a byte stream in binary frames.
//!
//! What arrives is unpacked where it was read to; what is sent is copied once, as it has to be
//! masked. MQTT packets may cross frames as they like (MQTT 5, 6).

use std::io;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use rustix::rand::{GetRandomFlags, getrandom};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Payload of the longest frame that is sent: the longest whose length has two bytes.
const LONGEST_FRAME: usize = u16::MAX as usize;
/// The longest payload of a control frame (5.5).
const LONGEST_CONTROL: u64 = 125;
/// Two bytes and eight of length: a server masks nothing (5.1).
const LONGEST_HEADER: usize = 10;
/// A server that sends pings and reads no answers gets no more of them than this.
const PONGS: usize = 64 * 1024;
/// No answer of a server is longer, unless it speaks something else.
const LONGEST_HEAD: usize = 8 * 1024;

/// What the key is hashed with, so that only who means it answers so (1.3).
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
const MASKED: u8 = 0x80;
const BINARY: u8 = 0x82;
const CLOSE: u8 = 0x88;
const PONG: u8 = 0x8a;
/// Of a close frame (7.4.1).
const NORMAL: u16 = 1000;

/// Why there is no WebSocket.
#[derive(Debug, thiserror::Error)]
pub(super) enum UpgradeError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("no WebSocket: the server answered with HTTP status {0}")]
    Refused(u16),
    #[error("no WebSocket: the server's answer is none to a request for one")]
    NoWebSocket,
}

/// Frames that no server may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FrameError {
    #[error("WebSocket frame against the rules")]
    Malformed,
    #[error("WebSocket message that is text, where MQTT is binary")]
    Text,
}

/// A request for a WebSocket.
#[derive(Debug)]
pub(super) struct Request<'a> {
    pub(super) authority: &'a str,
    pub(super) path: &'a str,
    pub(super) subprotocol: &'a str,
}

/// Asks for a WebSocket and expects to get one.
pub(super) async fn upgrade<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    request: &Request<'_>,
) -> Result<(), UpgradeError> {
    let mut nonce = [0; 16];
    getrandom(&mut nonce, GetRandomFlags::empty()).map_err(io::Error::from)?;
    let key = STANDARD.encode(nonce);
    let Request {
        authority,
        path,
        subprotocol,
    } = request;
    let text = format!(
        "GET {path} HTTP/1.1\r\nHost: {authority}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Protocol: {subprotocol}\r\n\r\n"
    );
    stream.write_all(text.as_bytes()).await?;
    stream.flush().await?;
    // The server says nothing more before it has heard a CONNECT.
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() > LONGEST_HEAD {
            return Err(UpgradeError::NoWebSocket);
        }
        if stream.read_buf(&mut head).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        if let Some(status) = refusal(&head) {
            return Err(UpgradeError::Refused(status));
        }
    }
    let is_granted = is_granted(&head, &key).unwrap_or(false);
    is_granted.then_some(()).ok_or(UpgradeError::NoWebSocket)
}

/// The status of an answer that is no consent. Its length is anything.
fn refusal(head: &[u8]) -> Option<u16> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    // What is no HTTP is found out at its end.
    response.parse(head).ok()?;
    response.code.filter(|code| *code != 101)
}

fn is_granted(head: &[u8], key: &str) -> Option<bool> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    response.parse(head).ok()?;
    let mut headers = response.headers.iter();
    let accept = headers.find(|header| header.name.eq_ignore_ascii_case("Sec-WebSocket-Accept"))?;
    let hashed = digest(&SHA1_FOR_LEGACY_USE_ONLY, format!("{key}{GUID}").as_bytes());
    Some(accept.value == STANDARD.encode(hashed).as_bytes())
}

/// The frames of one connection, both ways.
#[derive(Debug, Default)]
pub(super) struct Frames {
    header: [u8; LONGEST_HEADER],
    /// How much of the header has arrived.
    known: usize,
    frame: Option<Frame>,
    /// More frames of the same message are to come.
    is_fragmented: bool,
    /// The payload of a control frame that has not ended.
    control: Vec<u8>,
    is_closed: bool,
    /// Whole frames to be sent, and how much of them has been.
    outgoing: Vec<u8>,
    sent: usize,
}

#[derive(Clone, Copy, Debug)]
struct Frame {
    kind: Kind,
    left: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Data,
    Ping,
    Pong,
    Close,
}

impl Frames {
    /// Whether the server has said that nothing follows.
    pub(super) fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// Handles what was read. Payload that it holds is moved to its start; the result is how much.
    pub(super) fn decode(&mut self, bytes: &mut [u8]) -> Result<usize, FrameError> {
        let (mut at, mut payload) = (0, 0);
        while !self.is_closed {
            let Some(frame) = &mut self.frame else {
                let Some(byte) = bytes.get(at) else { break };
                at += 1;
                self.push_header(*byte)?;
                continue;
            };
            let rest = bytes.len() - at;
            let taken = usize::try_from(frame.left).map_or(rest, |left| left.min(rest));
            if frame.kind == Kind::Data {
                bytes.copy_within(at..at + taken, payload);
                payload += taken;
            } else {
                self.control.extend_from_slice(&bytes[at..at + taken]);
            }
            at += taken;
            frame.left -= taken as u64;
            if frame.left > 0 {
                break;
            }
            self.end_frame();
        }
        Ok(payload)
    }

    fn push_header(&mut self, byte: u8) -> Result<(), FrameError> {
        if let Some(place) = self.header.get_mut(self.known) {
            *place = byte;
            self.known += 1;
        }
        let [first, second, more @ ..] = self.header;
        let (extended, short) = match second {
            126 => (2, None),
            127 => (8, None),
            length => (0, Some(u64::from(length))),
        };
        if self.known < 2 || self.known < 2 + extended {
            return Ok(());
        }
        self.known = 0;
        let long = || {
            more[..extended]
                .iter()
                .fold(0, |sum, byte| sum << 8 | u64::from(*byte))
        };
        let left = short.unwrap_or_else(long);
        let kind = kind(first, self.is_fragmented)?;
        let is_legal = match kind {
            Kind::Data => left <= i64::MAX.unsigned_abs(),
            Kind::Ping | Kind::Pong | Kind::Close => left <= LONGEST_CONTROL,
        };
        if !is_legal || second & MASKED != 0 {
            return Err(FrameError::Malformed);
        }
        if kind == Kind::Data {
            self.is_fragmented = first & FIN == 0;
        }
        self.frame = Some(Frame { kind, left });
        if left == 0 {
            self.end_frame();
        }
        Ok(())
    }

    fn end_frame(&mut self) {
        let Some(Frame { kind, .. }) = self.frame.take() else {
            return;
        };
        let payload = std::mem::take(&mut self.control);
        match kind {
            Kind::Data | Kind::Pong => {}
            Kind::Ping if self.outgoing.len() < PONGS => {
                // Without a key there is no answer, which a server may take or not.
                let _ = self.put(PONG, &payload);
            }
            Kind::Ping => {}
            Kind::Close => self.is_closed = true,
        }
    }

    /// Takes payload to be sent; the result is how much.
    pub(super) fn push(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(LONGEST_FRAME);
        self.put(BINARY, &bytes[..taken])?;
        Ok(taken)
    }

    /// Tells the server that nothing follows.
    pub(super) fn close(&mut self) -> io::Result<()> {
        self.put(CLOSE, &NORMAL.to_be_bytes())
    }

    fn put(&mut self, first: u8, payload: &[u8]) -> io::Result<()> {
        let mut key = [0; 4];
        getrandom(&mut key, GetRandomFlags::empty())?;
        let out = &mut self.outgoing;
        out.push(first);
        match u16::try_from(payload.len())
            .unwrap_or(u16::MAX)
            .to_be_bytes()
        {
            [0, short @ ..126] => out.push(MASKED | short),
            [high, low] => out.extend([MASKED | 126, high, low]),
        }
        out.extend(key);
        let masked = payload.iter().zip(key.iter().cycle());
        out.extend(masked.map(|(byte, key)| byte ^ key));
        Ok(())
    }

    /// What is to be sent next.
    pub(super) fn outgoing(&self) -> &[u8] {
        self.outgoing.get(self.sent..).unwrap_or_default()
    }

    /// Notes that so many bytes of it were sent.
    pub(super) fn advance(&mut self, sent: usize) {
        self.sent += sent;
        if self.outgoing().is_empty() {
            self.outgoing.clear();
            self.sent = 0;
        }
    }
}

fn kind(first: u8, is_fragmented: bool) -> Result<Kind, FrameError> {
    let opcode = first & 0x0f;
    let is_control = opcode & 0x08 != 0;
    if first & RESERVED != 0 || (is_control && first & FIN == 0) {
        return Err(FrameError::Malformed);
    }
    match (opcode, is_fragmented) {
        (0x0, true) | (0x2, false) => Ok(Kind::Data),
        (0x1, false) => Err(FrameError::Text),
        (0x8, _) => Ok(Kind::Close),
        (0x9, _) => Ok(Kind::Ping),
        (0xa, _) => Ok(Kind::Pong),
        _ => Err(FrameError::Malformed),
    }
}

#[cfg(test)]
mod tests;
