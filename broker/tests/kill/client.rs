//! A client of MQTT 3.1.1 whose session outlives its connections: what it has not finished is in
//! its memory, as it is in the broker's store.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

/// A broker that is started again is there within this.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Packet {
    pub first: u8,
    pub body: Vec<u8>,
}

impl Packet {
    pub(crate) fn id(&self) -> u16 {
        u16::from_be_bytes([self.body[0], self.body[1]])
    }
}

/// What becomes of the session that there is, in the flags of CONNECT.
#[derive(Clone, Copy)]
pub(crate) enum Start {
    GoOn = 0,
    Clean = 2,
}

/// One connection.
pub(crate) struct Line {
    stream: TcpStream,
    inbound: Vec<u8>,
}

impl Line {
    /// Connects to a session, as soon as there is a broker; tells whether the broker had it.
    pub(crate) fn open(address: SocketAddr, client_id: &str, start: Start) -> (Self, bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Ok(opened) = Self::try_open(address, client_id, start) {
                return opened;
            }
            assert!(Instant::now() < deadline, "{client_id} finds no broker");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn try_open(address: SocketAddr, client_id: &str, start: Start) -> io::Result<(Self, bool)> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut line = Self {
            stream,
            inbound: Vec::new(),
        };
        let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', 4, start as u8, 0, 60];
        put_str(client_id, &mut body);
        line.send(&packet(0x10, &body))?;
        let answer = line.next(PATIENCE)?.ok_or(ErrorKind::TimedOut)?;
        assert_eq!((answer.first, answer.body[1]), (0x20, 0), "CONNACK");
        Ok((line, answer.body[0] == 1))
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// The next packet, if one comes in time.
    pub(crate) fn next(&mut self, patience: Duration) -> io::Result<Option<Packet>> {
        let mut buffer = [0; 16 * 1024];
        loop {
            if let Some(packet) = take_packet(&mut self.inbound) {
                return Ok(Some(packet));
            }
            self.stream.set_read_timeout(Some(patience))?;
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(ErrorKind::ConnectionReset.into()),
                Ok(length) => self.inbound.extend_from_slice(&buffer[..length]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }
}

fn take_packet(inbound: &mut Vec<u8>) -> Option<Packet> {
    let first = *inbound.first()?;
    let (mut length, mut header) = (0, 1);
    loop {
        let byte = *inbound.get(header)?;
        length |= usize::from(byte & 0x7f) << (7 * (header - 1));
        header += 1;
        if byte < 0x80 {
            break;
        }
    }
    let body = inbound.get(header..header + length)?.to_vec();
    inbound.drain(..header + length);
    Some(Packet { first, body })
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

fn put_str(text: &str, out: &mut Vec<u8>) {
    out.extend(u16::try_from(text.len()).unwrap().to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn answer(first: u8, id: u16) -> [u8; 4] {
    let [high, low] = id.to_be_bytes();
    [first, 2, high, low]
}

/// Messages that one client publishes, and how far each is.
pub(crate) struct Publisher {
    address: SocketAddr,
    client_id: String,
    topic: String,
    qos: u8,
    window: usize,
    line: Option<Line>,
    was_there: bool,
    next: u64,
    last_id: u16,
    /// In order, by identifier: the message, and whether its PUBREL was sent.
    open: VecDeque<(u16, u64, bool)>,
    /// What the broker has taken.
    pub(crate) taken: Vec<u64>,
}

impl Publisher {
    pub(crate) fn new(address: SocketAddr, number: u32, qos: u8, window: usize) -> Self {
        Self {
            address,
            client_id: format!("publisher-{number}"),
            topic: format!("q{qos}/{number}"),
            qos,
            window,
            line: None,
            was_there: false,
            next: 0,
            last_id: 0,
            open: VecDeque::new(),
            taken: Vec::new(),
        }
    }

    pub(crate) fn topic(&self) -> &str {
        &self.topic
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.open.is_empty()
    }

    /// Publishes up to so many more and hears answers; a connection that breaks is made anew.
    pub(crate) fn turn(&mut self, most: usize) {
        if self.line.is_none() {
            let (line, is_present) = Line::open(self.address, &self.client_id, Start::GoOn);
            assert!(is_present || !self.was_there, "{} lost", self.client_id);
            self.was_there = true;
            self.line = Some(line);
            if self.repeat().is_err() {
                self.line = None;
                return;
            }
        }
        if self.exchange(most).is_err() {
            self.line = None;
        }
    }

    fn repeat(&mut self) -> io::Result<()> {
        let open: Vec<_> = self.open.iter().copied().collect();
        for (id, number, is_released) in open {
            if is_released {
                self.send(&answer(0x62, id))?;
            } else {
                self.publish(id, number, 8)?;
            }
        }
        Ok(())
    }

    fn exchange(&mut self, most: usize) -> io::Result<()> {
        for _ in 0..most {
            if self.open.len() >= self.window {
                break;
            }
            self.last_id = self.last_id % 60_000 + 1;
            let (id, number) = (self.last_id, self.next);
            self.next += 1;
            // Before it is sent: whether it arrives is not known if the connection breaks.
            self.open.push_back((id, number, false));
            self.publish(id, number, 0)?;
        }
        let mut patience = Duration::from_millis(2);
        while let Some(packet) = self.line()?.next(patience)? {
            patience = Duration::from_micros(1);
            self.handle(&packet)?;
        }
        Ok(())
    }

    fn handle(&mut self, packet: &Packet) -> io::Result<()> {
        let id = packet.id();
        let Some(at) = self.open.iter().position(|(open, ..)| *open == id) else {
            panic!("{:#x} for {id}, which is not under way", packet.first);
        };
        match packet.first {
            0x40 | 0x70 => {
                let (_id, number, _) = self.open.remove(at).unwrap();
                if packet.first == 0x40 {
                    self.taken.push(number);
                }
                Ok(())
            }
            0x50 => {
                let (_id, number, is_released) = &mut self.open[at];
                if !std::mem::replace(is_released, true) {
                    self.taken.push(*number);
                }
                self.send(&answer(0x62, id))
            }
            other => panic!("packet {other:#x}"),
        }
    }

    fn publish(&mut self, id: u16, number: u64, dup: u8) -> io::Result<()> {
        let mut body = Vec::new();
        put_str(&self.topic, &mut body);
        body.extend(id.to_be_bytes());
        body.extend(number.to_be_bytes());
        let first = 0x30 | self.qos << 1 | dup;
        self.send(&packet(first, &body))
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.line()?.send(bytes)
    }

    fn line(&mut self) -> io::Result<&mut Line> {
        self.line
            .as_mut()
            .ok_or_else(|| ErrorKind::NotConnected.into())
    }
}

/// What was acknowledged, by topic.
pub(crate) type Taken = BTreeMap<String, Vec<u64>>;

/// Which messages have come to none of these subscribers that are for each of them, or for their
/// group.
pub(crate) fn lost(subscribers: &[&Subscriber], taken: &Taken) -> Vec<(String, u64)> {
    let mut lost = Vec::new();
    for (topic, numbers) in taken {
        let wanting = subscribers.iter().filter(|one| one.wants(topic));
        let received: Vec<_> = wanting.map(|one| one.received.get(topic)).collect();
        let has_come = |number: &u64| {
            let all = received.iter().flatten();
            received.is_empty() || all.into_iter().any(|all| all.contains_key(number))
        };
        let numbers = numbers.iter().filter(|number| !has_come(number));
        lost.extend(numbers.map(|number| (topic.clone(), *number)));
    }
    lost
}

/// What one client receives.
pub(crate) struct Subscriber {
    address: SocketAddr,
    client_id: String,
    line: Option<Line>,
    filters: Vec<(&'static str, u8)>,
    is_subscribed: bool,
    /// Messages of QoS 2 that await their PUBREL.
    pending: BTreeSet<u16>,
    /// How often each message came, by topic.
    received: BTreeMap<String, BTreeMap<u64, u32>>,
}

impl Subscriber {
    pub(crate) fn new(address: SocketAddr, name: &str, filters: &[(&'static str, u8)]) -> Self {
        Self {
            address,
            client_id: name.to_owned(),
            line: None,
            filters: filters.to_vec(),
            is_subscribed: false,
            pending: BTreeSet::new(),
            received: BTreeMap::new(),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.client_id
    }

    pub(crate) fn is_subscribed(&self) -> bool {
        self.is_subscribed
    }

    /// Which of these messages are its own and have not come.
    pub(crate) fn lost(&self, taken: &Taken) -> Vec<(String, u64)> {
        lost(&[self], taken)
    }

    fn wants(&self, topic: &str) -> bool {
        let mut filters = self.filters.iter();
        filters.any(|(filter, _qos)| {
            let filter = filter.strip_prefix("$share/g/").unwrap_or(filter);
            match filter.strip_suffix('+') {
                Some(prefix) => topic.starts_with(prefix),
                None => topic == filter,
            }
        })
    }

    /// How many messages of such topics came more than once.
    pub(crate) fn repeats(&self, prefix: &str) -> usize {
        let topics = self
            .received
            .iter()
            .filter(|(topic, _)| topic.starts_with(prefix));
        let counts = topics.flat_map(|(_topic, messages)| messages.values());
        counts.filter(|count| **count > 1).count()
    }

    /// Leaves as if the network had failed.
    pub(crate) fn leave(&mut self) {
        self.line = None;
    }

    /// Ends the session: what waits there is for other members of its groups.
    pub(crate) fn end_session(&mut self) {
        let (_line, is_present) = Line::open(self.address, &self.client_id, Start::Clean);
        assert!(!is_present);
        self.leave();
        self.is_subscribed = false;
        self.pending.clear();
    }

    /// Takes what comes for a while.
    pub(crate) fn turn(&mut self, patience: Duration) {
        if self.line.is_none() {
            let (line, is_present) = Line::open(self.address, &self.client_id, Start::GoOn);
            assert!(is_present || !self.is_subscribed, "{} lost", self.client_id);
            self.line = Some(line);
        }
        if self.exchange(patience).is_err() {
            self.line = None;
        }
    }

    fn exchange(&mut self, patience: Duration) -> io::Result<()> {
        let Some(line) = &mut self.line else {
            return Ok(());
        };
        if !self.is_subscribed {
            let mut body = vec![0, 1];
            for (filter, qos) in &self.filters {
                put_str(filter, &mut body);
                body.push(*qos);
            }
            line.send(&packet(0x82, &body))?;
        }
        let until = Instant::now() + patience;
        while Instant::now() < until {
            let Some(packet) = line.next(Duration::from_millis(2))? else {
                continue;
            };
            match packet.first {
                0x90 => self.is_subscribed = true,
                0x62 => {
                    self.pending.remove(&packet.id());
                    line.send(&answer(0x70, packet.id()))?;
                }
                first if first >> 4 == 3 => {
                    let qos = first >> 1 & 3;
                    let length = usize::from(packet.id());
                    let topic = String::from_utf8(packet.body[2..2 + length].to_vec()).unwrap();
                    let rest = &packet.body[2 + length..];
                    let id = u16::from_be_bytes([rest[0], rest[1]]);
                    let number = u64::from_be_bytes(rest[2..].try_into().unwrap());
                    if qos == 1 || self.pending.insert(id) {
                        let messages = self.received.entry(topic).or_default();
                        *messages.entry(number).or_default() += 1;
                    }
                    line.send(&answer(if qos == 1 { 0x40 } else { 0x50 }, id))?;
                }
                other => panic!("packet {other:#x}"),
            }
        }
        Ok(())
    }
}
