//! Frames from a client: headers are taken out, payload is unmasked, both in place.
//!
//! ```text
//!  0                 1               2 ...       + 4
//! | fin, opcode (4) | mask, length | more length | masking key | payload
//! ```

use super::violation::Violation;

/// Codes of close frames (RFC 6455, 7.4.1).
pub(super) mod close {
    pub(in super::super) const NORMAL: u16 = 1000;
    pub(in super::super) const PROTOCOL_ERROR: u16 = 1002;
    pub(in super::super) const UNSUPPORTED: u16 = 1003;
}

const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
const MASKED: u8 = 0x80;

/// Two bytes, eight of length, four of mask.
const LONGEST_HEADER: usize = 14;

/// The longest payload of a control frame (5.5).
const LONGEST_CONTROL: u64 = 125;

/// What the next byte from the client is.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    header: Header,
    /// What is left of the frame whose header is complete.
    frame: Option<Frame>,
    /// More frames of the same message are to come.
    is_fragmented: bool,
    /// The payload of a control frame that has not ended.
    control: Vec<u8>,
    /// The last ping that was not answered.
    ping: Option<Vec<u8>>,
    /// Nothing more is read.
    closed: Option<Closed>,
}

/// Why a WebSocket is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Closed {
    /// By the client, with this code or none.
    Ordered(u16),
    Violated(Violation),
}

impl Closed {
    /// The code to close with.
    pub(super) fn code(self) -> u16 {
        match self {
            Self::Ordered(code) => code,
            Self::Violated(violation) => violation.code(),
        }
    }
}

/// As much as has arrived.
#[derive(Debug, Default)]
struct Header {
    bytes: [u8; LONGEST_HEADER],
    length: usize,
}

#[derive(Debug)]
struct Frame {
    kind: Kind,
    left: u64,
    /// Turned so that its first byte is for the next byte of the payload.
    mask: [u8; 4],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Data,
    Ping,
    Pong,
    Close,
}

impl Decoder {
    /// Handles what was read. Payload that it holds is moved to its start; the result is how much.
    pub(super) fn decode(&mut self, bytes: &mut [u8]) -> usize {
        let (mut at, mut payload) = (0, 0);
        while self.closed.is_none() {
            if let Some(frame) = &mut self.frame {
                let rest = bytes.len() - at;
                let taken = usize::try_from(frame.left).map_or(rest, |left| left.min(rest));
                frame.unmask(&mut bytes[at..at + taken]);
                if frame.kind == Kind::Data {
                    bytes.copy_within(at..at + taken, payload);
                    payload += taken;
                } else {
                    self.control.extend_from_slice(&bytes[at..at + taken]);
                }
                at += taken;
                if frame.left > 0 {
                    break;
                }
                self.end_frame();
            } else {
                let Some(byte) = bytes.get(at) else { break };
                at += 1;
                self.push_header(*byte);
            }
        }
        payload
    }

    /// Set once there is no more to read.
    pub(super) fn closed(&self) -> Option<Closed> {
        self.closed
    }

    /// The payload of a ping that is to be answered.
    pub(super) fn take_ping(&mut self) -> Option<Vec<u8>> {
        self.ping.take()
    }

    fn push_header(&mut self, byte: u8) {
        let header = &mut self.header;
        if let Some(place) = header.bytes.get_mut(header.length) {
            *place = byte;
            header.length += 1;
        }
        let [first, second, ..] = header.bytes;
        if header.length == 1 {
            if let Err(violation) = kind(first, self.is_fragmented) {
                self.closed = Some(Closed::Violated(violation));
            }
            return;
        }
        let extended = match second & !MASKED {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        if second & MASKED == 0 {
            self.closed = Some(Closed::Violated(Violation::Unmasked));
        } else if header.length == 2 + extended + 4 {
            self.begin_frame(extended);
        }
    }

    fn begin_frame(&mut self, extended: usize) {
        let Header { bytes, length } = std::mem::take(&mut self.header);
        let [first, second, ..] = bytes;
        let left = match extended {
            0 => u64::from(second & !MASKED),
            _ => bytes[2..2 + extended]
                .iter()
                .fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
        };
        let mut mask = [0; 4];
        mask.copy_from_slice(&bytes[length - 4..length]);
        match kind(first, self.is_fragmented) {
            Ok(Kind::Data) if left <= i64::MAX.unsigned_abs() => {
                self.is_fragmented = first & FIN == 0;
                self.frame = Some(Frame {
                    kind: Kind::Data,
                    left,
                    mask,
                });
            }
            Ok(kind) if kind != Kind::Data && left <= LONGEST_CONTROL => {
                self.frame = Some(Frame { kind, left, mask });
            }
            Ok(Kind::Data) => self.closed = Some(Closed::Violated(Violation::Length)),
            Ok(_) => self.closed = Some(Closed::Violated(Violation::Control)),
            Err(violation) => self.closed = Some(Closed::Violated(violation)),
        }
    }

    fn end_frame(&mut self) {
        let Some(frame) = self.frame.take() else {
            return;
        };
        match frame.kind {
            Kind::Data => {}
            Kind::Ping => self.ping = Some(std::mem::take(&mut self.control)),
            Kind::Pong => self.control = Vec::new(),
            Kind::Close => {
                let payload = std::mem::take(&mut self.control);
                self.closed = Some(match payload.as_slice() {
                    [] => Closed::Ordered(close::NORMAL),
                    [high, low, ..] => answer(u16::from_be_bytes([*high, *low])),
                    _ => Closed::Violated(Violation::Close),
                });
            }
        }
    }
}

impl Frame {
    fn unmask(&mut self, bytes: &mut [u8]) {
        let [a, b, c, d] = self.mask;
        let key = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
        let mut chunks = bytes.chunks_exact_mut(8);
        for chunk in &mut chunks {
            let mut word = [0; 8];
            word.copy_from_slice(chunk);
            chunk.copy_from_slice(&(u64::from_ne_bytes(word) ^ key).to_ne_bytes());
        }
        let rest = chunks.into_remainder();
        for (byte, key) in rest.iter_mut().zip(self.mask.iter().cycle()) {
            *byte ^= key;
        }
        self.mask.rotate_left(bytes.len() % 4);
        self.left -= bytes.len() as u64;
    }
}

/// What a frame with this first byte is.
fn kind(first: u8, is_fragmented: bool) -> Result<Kind, Violation> {
    let opcode = first & 0x0f;
    if first & RESERVED != 0 {
        return Err(Violation::Extension);
    }
    match (opcode, is_fragmented) {
        (0x0, true) | (0x2, false) => Ok(Kind::Data),
        (0x1, false) => Err(Violation::Text),
        (0x0, false) | (0x1 | 0x2, true) => Err(Violation::Sequence),
        (0x8..=0xa, _) if first & FIN == 0 => Err(Violation::Control),
        (0x8, _) => Ok(Kind::Close),
        (0x9, _) => Ok(Kind::Ping),
        (0xa, _) => Ok(Kind::Pong),
        _ => Err(Violation::Opcode),
    }
}

/// A client's code comes back to it, unless it is none that may be sent (7.4.1).
fn answer(code: u16) -> Closed {
    match code {
        1000..=1003 | 1007..=1014 | 3000..=4999 => Closed::Ordered(code),
        _ => Closed::Violated(Violation::Close),
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::any, prop_assert_eq, proptest};

    use super::*;

    const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![first];
        match payload.len() {
            length @ ..126 => bytes.push(MASKED | length as u8),
            length @ ..65_536 => {
                bytes.push(MASKED | 126);
                bytes.extend((length as u16).to_be_bytes());
            }
            length => {
                bytes.push(MASKED | 127);
                bytes.extend((length as u64).to_be_bytes());
            }
        }
        bytes.extend(KEY);
        bytes.extend(payload.iter().zip(KEY.iter().cycle()).map(|(a, b)| a ^ b));
        bytes
    }

    /// Decodes in pieces of this size.
    fn decode(decoder: &mut Decoder, bytes: &[u8], piece: usize) -> Vec<u8> {
        let mut payload = Vec::new();
        for piece in bytes.chunks(piece) {
            let mut piece = piece.to_vec();
            let length = decoder.decode(&mut piece);
            payload.extend_from_slice(&piece[..length]);
        }
        payload
    }

    #[test]
    fn payload_comes_out_whole_however_it_arrives() {
        let sent: Vec<u8> = (0..70_000_u32).map(|byte| byte as u8).collect();
        let (short, medium, long) = (&sent[..5], &sent[..300], &sent[..]);
        let bytes = [
            frame(0x82, short),
            frame(0x02, medium),
            frame(0x89, b"are you there?"),
            frame(0x00, &[]),
            frame(0x8a, b""),
            frame(0x80, long),
            frame(0x82, &[]),
        ]
        .concat();
        for piece in [1, 2, 3, 7, 64, 1000, bytes.len()] {
            let mut decoder = Decoder::default();
            let payload = decode(&mut decoder, &bytes, piece);
            assert!(
                payload == [short, medium, long].concat(),
                "pieces of {piece}"
            );
            assert_eq!(decoder.take_ping().as_deref(), Some(&b"are you there?"[..]));
            assert_eq!(decoder.take_ping(), None);
            assert_eq!(decoder.closed(), None);
            assert_eq!(decoder.control.capacity(), 0);
        }
    }

    #[test]
    fn what_clients_may_not_send_closes() {
        let long = frame(0x89, &[0; 126]);
        let unmasked = [0x82, 1, b'a'];
        let endless = [0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4];
        let mixed = [frame(0x02, b"a"), frame(0x82, b"b")].concat();
        use Closed::{Ordered, Violated};
        use Violation::*;
        for (bytes, closed, code) in [
            (frame(0x81, b"text"), Violated(Text), 1003),
            (frame(0x80, b"of nothing"), Violated(Sequence), 1002),
            (frame(0xc2, b"reserved bit"), Violated(Extension), 1002),
            (frame(0x83, b"reserved opcode"), Violated(Opcode), 1002),
            (frame(0x8b, b"reserved opcode"), Violated(Opcode), 1002),
            (frame(0x09, b"part of a ping"), Violated(Control), 1002),
            (mixed, Violated(Sequence), 1002),
            (long, Violated(Control), 1002),
            (unmasked.to_vec(), Violated(Unmasked), 1002),
            (endless.to_vec(), Violated(Length), 1002),
            (frame(0x88, &[]), Ordered(1000), 1000),
            (frame(0x88, &[3]), Violated(Close), 1002),
            (frame(0x88, &1001_u16.to_be_bytes()), Ordered(1001), 1001),
            (frame(0x88, &1005_u16.to_be_bytes()), Violated(Close), 1002),
            (frame(0x88, b"\x0f\xa0reason"), Ordered(4000), 4000),
        ] {
            let mut decoder = Decoder::default();
            let rest = frame(0x82, b"rest");
            let payload = decode(&mut decoder, &[bytes.clone(), rest].concat(), 3);
            assert_eq!(decoder.closed(), Some(closed), "{bytes:?}");
            assert_eq!(closed.code(), code);
            assert!(!payload.ends_with(b"rest"));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_give_the_same_in_any_pieces(
            bytes in vec(any::<u8>(), 0..400),
            piece in 1_usize..20,
        ) {
            let mut whole = Decoder::default();
            let expected = decode(&mut whole, &bytes, bytes.len().max(1));
            let mut pieces = Decoder::default();
            prop_assert_eq!(decode(&mut pieces, &bytes, piece), expected);
            prop_assert_eq!(pieces.closed(), whole.closed());
        }
    }
}
