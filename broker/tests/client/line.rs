//! One connection of an MQTT client, of version 3.1.1 or 5, packet by packet.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    os::fd::{AsFd, BorrowedFd},
    time::{Duration, Instant},
};

/// Seconds that a session outlives its connection (MQTT 5); others do for as long as brokers keep them.
const EXPIRY: u32 = 3_600;

/// A DISCONNECT with a session expiry of zero (MQTT 5): the session ends.
pub(crate) const LAST_FAREWELL: [u8; 9] = [0xe0, 7, 0, 5, 0x11, 0, 0, 0, 0];

/// Why a connection ends when its client has another one (MQTT 5).
pub(crate) const TAKEN_OVER: u8 = 0x8e;

/// MQTT's, as CONNECT has it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    V311 = 4,
    V5 = 5,
}

/// What becomes of the session that there is, in the flags of CONNECT.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    GoOn = 0,
    Clean = 2,
}

/// What a client says in its CONNECT.
#[derive(Clone, Copy)]
pub(crate) struct Hello<'a> {
    pub(crate) version: Version,
    pub(crate) client_id: &'a str,
    pub(crate) start: Start,
    /// Topic and payload, of QoS 1.
    pub(crate) will: Option<(&'a str, &'a [u8])>,
}

impl<'a> Hello<'a> {
    /// Of a session that goes on.
    pub(crate) fn again(version: Version, client_id: &'a str) -> Self {
        Self {
            version,
            client_id,
            start: Start::GoOn,
            will: None,
        }
    }

    fn encode(&self) -> Vec<u8> {
        let will_flags = if self.will.is_some() { 0x0c } else { 0 };
        let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', self.version as u8];
        body.extend([self.start as u8 | will_flags, 0, 60]);
        if self.version == Version::V5 {
            if self.start == Start::GoOn {
                body.extend([5, 0x11]);
                body.extend(EXPIRY.to_be_bytes());
            } else {
                body.push(0);
            }
        }
        put_bytes(self.client_id.as_bytes(), &mut body);
        if let Some((topic, payload)) = self.will {
            put_no_properties(self.version, &mut body);
            put_bytes(topic.as_bytes(), &mut body);
            put_bytes(payload, &mut body);
        }
        packet(0x10, &body)
    }
}

/// A packet: its first byte, and what follows the length.
pub(crate) struct Packet {
    pub(crate) first: u8,
    pub(crate) body: Vec<u8>,
}

impl Packet {
    /// The identifier that it begins with.
    pub(crate) fn id(&self) -> u16 {
        self.body
            .first_chunk()
            .copied()
            .map_or(0, u16::from_be_bytes)
    }

    /// The reason of a DISCONNECT.
    pub(crate) fn farewell(&self) -> Option<u8> {
        (self.first == 0xe0).then(|| self.body.first().copied().unwrap_or(0))
    }
}

/// A PUBLISH.
#[derive(Clone, Copy)]
pub(crate) struct Message<'a> {
    pub(crate) topic: &'a str,
    pub(crate) payload: &'a [u8],
    pub(crate) qos: u8,
    pub(crate) is_repeated: bool,
    /// None (zero) with QoS 0.
    pub(crate) id: u16,
}

/// A connection.
pub(crate) struct Line {
    stream: TcpStream,
    version: Version,
    inbound: Vec<u8>,
    patience: Option<Duration>,
}

impl Line {
    /// Connects and greets; tells whether the broker had the session.
    pub(crate) fn connect(
        address: SocketAddr,
        hello: &Hello<'_>,
        patience: Duration,
    ) -> io::Result<(Self, bool)> {
        let mut line = Self::open(address, patience)?;
        let is_present = line.greet(hello, patience)?;
        Ok((line, is_present))
    }

    /// Connects without a word.
    pub(crate) fn open(address: SocketAddr, patience: Duration) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, patience)?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            version: Version::V311,
            inbound: Vec::new(),
            patience: None,
        })
    }

    /// Says CONNECT and waits for the answer: whether the broker had the session.
    pub(crate) fn greet(&mut self, hello: &Hello<'_>, patience: Duration) -> io::Result<bool> {
        self.hail(hello)?;
        self.hear_welcome(patience)
    }

    /// Says CONNECT.
    pub(crate) fn hail(&mut self, hello: &Hello<'_>) -> io::Result<()> {
        self.version = hello.version;
        self.send(&hello.encode())
    }

    /// Waits for the answer to CONNECT: whether the broker had the session.
    pub(crate) fn hear_welcome(&mut self, patience: Duration) -> io::Result<bool> {
        let answer = self.next(patience)?.ok_or(ErrorKind::TimedOut)?;
        match (answer.first, answer.body.as_slice()) {
            (0x20, [present, 0, ..]) => Ok(*present == 1),
            (first, body) => {
                let text = format!("CONNECT was answered by {first:#x} {body:x?}");
                Err(io::Error::other(text))
            }
        }
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Asks for filters, each with its QoS.
    pub(crate) fn subscribe<'a>(
        &mut self,
        id: u16,
        filters: impl IntoIterator<Item = (&'a str, u8)>,
    ) -> io::Result<()> {
        let mut body = id.to_be_bytes().to_vec();
        put_no_properties(self.version, &mut body);
        for (filter, qos) in filters {
            put_bytes(filter.as_bytes(), &mut body);
            body.push(qos);
        }
        self.send(&packet(0x82, &body))
    }

    pub(crate) fn unsubscribe(&mut self, id: u16, filter: &str) -> io::Result<()> {
        let mut body = id.to_be_bytes().to_vec();
        put_no_properties(self.version, &mut body);
        put_bytes(filter.as_bytes(), &mut body);
        self.send(&packet(0xa2, &body))
    }

    /// A message as this connection has it.
    pub(crate) fn encode(&self, message: &Message<'_>) -> Vec<u8> {
        let mut body = Vec::new();
        put_bytes(message.topic.as_bytes(), &mut body);
        if message.qos > 0 {
            body.extend(message.id.to_be_bytes());
        }
        put_no_properties(self.version, &mut body);
        body.extend_from_slice(message.payload);
        let dup = u8::from(message.is_repeated) << 3;
        packet(0x30 | message.qos << 1 | dup, &body)
    }

    /// What a PUBLISH says; `None` when it is none.
    pub(crate) fn decode<'a>(&self, packet: &'a Packet) -> Option<Message<'a>> {
        if packet.first >> 4 != 3 {
            return None;
        }
        let qos = packet.first >> 1 & 3;
        let (topic, mut rest) = take_bytes(&packet.body)?;
        let mut id = 0;
        if qos > 0 {
            let (head, behind) = rest.split_first_chunk()?;
            (id, rest) = (u16::from_be_bytes(*head), behind);
        }
        if self.version == Version::V5 {
            let (length, size) = take_length(rest)?;
            rest = rest.get(size + length..)?;
        }
        Some(Message {
            topic: std::str::from_utf8(topic).ok()?,
            payload: rest,
            qos,
            is_repeated: packet.first & 8 != 0,
            id,
        })
    }

    /// The next packet, if one comes in time.
    pub(crate) fn next(&mut self, patience: Duration) -> io::Result<Option<Packet>> {
        loop {
            if let Some(packet) = take_packet(&mut self.inbound) {
                return Ok(Some(packet));
            }
            if self.patience != Some(patience) {
                self.stream.set_read_timeout(Some(patience))?;
                self.patience = Some(patience);
            }
            if !self.read()? {
                return Ok(None);
            }
        }
    }

    /// The next packet of this kind, with what comes before it given to `other`.
    pub(crate) fn expect(
        &mut self,
        first: u8,
        patience: Duration,
        mut other: impl FnMut(&mut Self, Packet) -> io::Result<()>,
    ) -> io::Result<Packet> {
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            match self.next(patience)? {
                Some(packet) if packet.first == first => return Ok(packet),
                Some(packet) => other(self, packet)?,
                None => {}
            }
        }
        Err(ErrorKind::TimedOut.into())
    }

    /// The next packet that is there.
    pub(crate) fn next_here(&mut self) -> io::Result<Option<Packet>> {
        if let Some(packet) = take_packet(&mut self.inbound) {
            return Ok(Some(packet));
        }
        self.stream.set_nonblocking(true)?;
        let read = self.read();
        self.stream.set_nonblocking(false)?;
        read.map(|_has_come| take_packet(&mut self.inbound))
    }

    /// Whether anything has come.
    fn read(&mut self) -> io::Result<bool> {
        let mut buffer = [0; 16 * 1024];
        match self.stream.read(&mut buffer) {
            Ok(0) => Err(ErrorKind::ConnectionReset.into()),
            Ok(length) => {
                let come = buffer.get(..length).unwrap_or_default();
                self.inbound.extend_from_slice(come);
                Ok(true)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl AsFd for Line {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// For [`Line::expect`]: nothing else is to come.
pub(crate) fn unexpected(_line: &mut Line, packet: Packet) -> io::Result<()> {
    let text = format!("packet {:#x} {:x?}", packet.first, packet.body);
    Err(io::Error::other(text))
}

/// For [`Line::expect`]: messages may come, and are acknowledged.
pub(crate) fn acknowledge(line: &mut Line, packet: Packet) -> io::Result<()> {
    match line
        .decode(&packet)
        .map(|message| (message.qos, message.id))
    {
        Some((1, id)) => line.send(&answer(0x40, id)),
        Some((0, _id)) => Ok(()),
        _ => unexpected(line, packet),
    }
}

/// An acknowledgement.
pub(crate) fn answer(first: u8, id: u16) -> [u8; 4] {
    let [high, low] = id.to_be_bytes();
    [first, 2, high, low]
}

fn take_packet(inbound: &mut Vec<u8>) -> Option<Packet> {
    let first = *inbound.first()?;
    let (length, size) = take_length(inbound.get(1..)?)?;
    let header = 1 + size;
    let body = inbound.get(header..header + length)?.to_vec();
    inbound.drain(..header + length);
    Some(Packet { first, body })
}

/// A number of variable length, and how many bytes it takes.
fn take_length(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut length = 0;
    for (index, byte) in bytes.iter().enumerate().take(4) {
        length |= usize::from(byte & 0x7f) << (7 * index);
        if *byte < 0x80 {
            return Some((length, index + 1));
        }
    }
    None
}

fn take_bytes(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![first];
    let mut length = body.len();
    loop {
        let more = if length > 127 { 0x80 } else { 0 };
        packet.push((length % 128) as u8 | more);
        length /= 128;
        if length == 0 {
            break;
        }
    }
    packet.extend_from_slice(body);
    packet
}

fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend((bytes.len() as u16).to_be_bytes());
    out.extend_from_slice(bytes);
}

fn put_no_properties(version: Version, out: &mut Vec<u8>) {
    if version == Version::V5 {
        out.push(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(version: Version) -> Line {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let mut line = Line::open(address, Duration::from_secs(5)).expect("somebody listens");
        line.version = version;
        line
    }

    #[test]
    fn messages_are_read_as_they_were_written_and_nothing_shorter_is_one() {
        for version in [Version::V311, Version::V5] {
            let line = line(version);
            for (qos, id) in [(0, 0), (1, 7)] {
                let mut inbound = line.encode(&Message {
                    topic: "a/b",
                    payload: &[9; 200],
                    qos,
                    is_repeated: qos > 0,
                    id,
                });
                let mut short = inbound[..inbound.len() - 1].to_vec();
                assert!(take_packet(&mut short).is_none());
                let packet = take_packet(&mut inbound).expect("a packet");
                assert!(inbound.is_empty());
                let message = line.decode(&packet).expect("a message");
                assert_eq!((message.topic, message.payload), ("a/b", &[9; 200][..]));
                assert_eq!((message.qos, message.id), (qos, id));
                assert_eq!(message.is_repeated, qos > 0);
                for length in 0..7 {
                    let body = packet.body[..length].to_vec();
                    let first = packet.first;
                    // A topic, an identifier, and properties are not all there.
                    let needed = 5 + 2 * usize::from(qos) + usize::from(version == Version::V5);
                    if length < needed {
                        assert!(line.decode(&Packet { first, body }).is_none());
                    }
                }
            }
        }
    }

    #[test]
    fn farewells_have_reasons() {
        let farewell = |body: &[u8]| {
            let body = body.to_vec();
            Packet { first: 0xe0, body }.farewell()
        };
        assert_eq!(farewell(&[TAKEN_OVER, 0]), Some(TAKEN_OVER));
        assert_eq!(farewell(&[]), Some(0));
        let first = 0xd0;
        let body = Vec::new();
        assert_eq!(Packet { first, body }.farewell(), None);
    }
}
