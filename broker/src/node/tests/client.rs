//! A small MQTT client that says exactly the bytes it is told to.

use std::{net::SocketAddr, time::Duration};

use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};

use crate::codec::{self, packet::Version};

/// Longer than anything here takes; a test that waits this long has failed.
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) struct Client<S = TcpStream> {
    pub(super) stream: S,
    inbound: BytesMut,
    version: Version,
}

/// What a client says in its CONNECT.
#[derive(Clone)]
pub(super) struct Hello {
    pub(super) version: Version,
    pub(super) id: String,
    pub(super) clean: bool,
    pub(super) keep_alive: u16,
    pub(super) properties: Vec<u8>,
    pub(super) will: Option<Testament>,
    pub(super) username: Option<String>,
    pub(super) password: Option<String>,
}

#[derive(Clone)]
pub(super) struct Testament {
    pub(super) topic: &'static str,
    pub(super) payload: &'static str,
    pub(super) retain: bool,
    pub(super) properties: Vec<u8>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Welcome {
    pub(super) session_present: bool,
    pub(super) code: u8,
    pub(super) properties: Vec<u8>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Received {
    pub(super) topic: String,
    pub(super) payload: String,
    pub(super) qos: u8,
    pub(super) retain: bool,
    pub(super) dup: bool,
    pub(super) id: u16,
    pub(super) properties: Vec<u8>,
}

impl Hello {
    pub(super) fn new(version: Version, id: &str) -> Self {
        Self {
            version,
            id: id.to_owned(),
            clean: true,
            keep_alive: 60,
            properties: Vec::new(),
            will: None,
            username: None,
            password: None,
        }
    }

    pub(super) fn with_login(mut self, username: &str, password: &str) -> Self {
        self.username = Some(username.to_owned());
        self.password = Some(password.to_owned());
        self
    }

    /// A session that outlives its connection.
    pub(super) fn persistent(version: Version, id: &str) -> Self {
        let mut hello = Self::new(version, id);
        hello.clean = false;
        if version.is_v5() {
            hello.properties = vec![0x11, 0, 0, 0x0e, 0x10];
        }
        hello
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let (name, level) = match self.version {
            Version::V31 => ("MQIsdp", 3),
            Version::V311 => ("MQTT", 4),
            Version::V5 => ("MQTT", 5),
        };
        let mut flags = if self.clean { 2 } else { 0 };
        if let Some(will) = &self.will {
            flags |= 4 | (u8::from(will.retain) << 5);
        }
        flags |= u8::from(self.username.is_some()) << 7;
        flags |= u8::from(self.password.is_some()) << 6;
        let mut body = string(name);
        body.extend([level, flags]);
        body.extend(self.keep_alive.to_be_bytes());
        self.put_properties(&self.properties, &mut body);
        body.extend(string(&self.id));
        if let Some(will) = &self.will {
            self.put_properties(&will.properties, &mut body);
            body.extend(string(will.topic));
            body.extend(string(will.payload));
        }
        for text in self.username.iter().chain(&self.password) {
            body.extend(string(text));
        }
        packet(0x10, &body)
    }

    fn put_properties(&self, properties: &[u8], body: &mut Vec<u8>) {
        if self.version.is_v5() {
            body.push(u8::try_from(properties.len()).unwrap());
            body.extend(properties);
        }
    }
}

impl Client {
    pub(super) async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self::over(stream)
    }

    pub(super) async fn connect(address: SocketAddr, hello: &Hello) -> (Self, Welcome) {
        let mut client = Self::open(address).await;
        let welcome = client.greet(hello).await;
        (client, welcome)
    }

    /// Connects with a clean session and expects success.
    pub(super) async fn join(address: SocketAddr, version: Version, id: &str) -> Self {
        let (client, welcome) = Self::connect(address, &Hello::new(version, id)).await;
        assert_eq!(welcome.code, 0);
        client
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub(super) fn over(stream: S) -> Self {
        Self {
            stream,
            inbound: BytesMut::new(),
            version: Version::V311,
        }
    }

    /// Sends a CONNECT and expects an answer.
    pub(super) async fn greet(&mut self, hello: &Hello) -> Welcome {
        self.version = hello.version;
        self.send(&hello.encode()).await;
        let (first, body) = self.recv().await;
        assert_eq!(first, 0x20, "CONNACK");
        Welcome {
            session_present: body[0] == 1,
            code: body[1],
            properties: body[2..].to_vec(),
        }
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// The next packet: its first byte and what follows the length.
    pub(super) async fn recv(&mut self) -> (u8, Vec<u8>) {
        self.try_recv().await.expect("a packet")
    }

    /// The next packet; `None` when the broker has closed the connection.
    pub(super) async fn try_recv(&mut self) -> Option<(u8, Vec<u8>)> {
        tokio::time::timeout(PATIENCE, self.read_packet())
            .await
            .expect("an answer in time")
    }

    pub(super) async fn read_packet(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            if let Some(frame) = codec::frame(&self.inbound, 1 << 28).unwrap() {
                let mut packet = self.inbound.split_to(frame.total);
                let first = packet[0];
                packet.advance(frame.header);
                return Some((first, packet.to_vec()));
            }
            // A connection that is closed with bytes unread ends with a reset.
            match self.stream.read_buf(&mut self.inbound).await {
                Ok(0) | Err(_) => return None,
                Ok(_bytes) => {}
            }
        }
    }

    pub(super) async fn expect(&mut self, first: u8, body: &[u8]) {
        let (got, mut rest) = self.recv().await;
        // Failures may go on with the reason in words.
        let fields = match got {
            0xe0 => 1,
            0x40 | 0x50 | 0x62 | 0x70 => 3,
            _ => rest.len(),
        };
        if rest.get(fields + 1) == Some(&0x1f) {
            rest.truncate(fields);
        }
        assert_eq!((got, rest), (first, body.to_vec()));
    }

    pub(super) async fn expect_close(&mut self) {
        assert_eq!(self.try_recv().await, None);
    }

    /// Subscribes to one filter and returns the SUBACK's code.
    pub(super) async fn subscribe(&mut self, filter: &str, options: u8) -> u8 {
        let mut body = vec![0, 9];
        self.put_no_properties(&mut body);
        body.extend(string(filter));
        body.push(options);
        self.send(&packet(0x82, &body)).await;
        let (first, body) = self.recv().await;
        assert_eq!(first, 0x90, "SUBACK");
        *body.last().unwrap()
    }

    pub(super) async fn unsubscribe(&mut self, filter: &str) -> Vec<u8> {
        let mut body = vec![0, 8];
        self.put_no_properties(&mut body);
        body.extend(string(filter));
        self.send(&packet(0xa2, &body)).await;
        let (first, body) = self.recv().await;
        assert_eq!(first, 0xb0, "UNSUBACK");
        body
    }

    /// Sends a PUBLISH without waiting for its acknowledgement; `flags` are its low four bits.
    pub(super) async fn publish(&mut self, topic: &str, payload: &str, flags: u8, id: u16) {
        let mut body = string(topic);
        if flags & 0b0110 != 0 {
            body.extend(id.to_be_bytes());
        }
        self.put_no_properties(&mut body);
        body.extend(payload.as_bytes());
        self.send(&packet(0x30 | flags, &body)).await;
    }

    /// As [`Client::publish`], with MQTT 5 properties.
    pub(super) async fn publish_with(
        &mut self,
        topic: &str,
        properties: &[u8],
        payload: &str,
        flags: u8,
        id: u16,
    ) {
        let mut body = string(topic);
        if flags & 0b0110 != 0 {
            body.extend(id.to_be_bytes());
        }
        body.push(u8::try_from(properties.len()).unwrap());
        body.extend(properties);
        body.extend(payload.as_bytes());
        self.send(&packet(0x30 | flags, &body)).await;
    }

    /// Publishes and completes the exchange of packets that the QoS asks for.
    pub(super) async fn deliver(&mut self, topic: &str, payload: &str, qos: u8) {
        self.publish(topic, payload, qos << 1, 77).await;
        match qos {
            0 => {}
            1 => self.expect_ack(0x40).await,
            _ => {
                self.expect_ack(0x50).await;
                self.send(&[0x62, 2, 0, 77]).await;
                self.expect(0x70, &[0, 77]).await;
            }
        }
    }

    /// The reason code may tell that nobody subscribes.
    async fn expect_ack(&mut self, kind: u8) {
        let (first, body) = self.recv().await;
        assert_eq!((first, &body[..2]), (kind, &[0, 77][..]));
    }

    /// Receives a PUBLISH and acknowledges it.
    pub(super) async fn receive(&mut self) -> Received {
        let received = self.receive_silently().await;
        let [high, low] = received.id.to_be_bytes();
        match received.qos {
            0 => {}
            1 => self.send(&[0x40, 2, high, low]).await,
            _ => {
                self.send(&[0x50, 2, high, low]).await;
                self.expect(0x62, &[high, low]).await;
                self.send(&[0x70, 2, high, low]).await;
            }
        }
        received
    }

    /// Receives a PUBLISH without acknowledging it.
    pub(super) async fn receive_silently(&mut self) -> Received {
        let (first, body) = self.recv().await;
        assert_eq!(first >> 4, 3, "PUBLISH, not {first:#x} {body:?}");
        let mut rest = &body[..];
        let length = usize::from(rest.get_u16());
        let topic = String::from_utf8(rest[..length].to_vec()).unwrap();
        rest.advance(length);
        let qos = (first >> 1) & 3;
        let id = if qos > 0 { rest.get_u16() } else { 0 };
        let mut properties = Vec::new();
        if self.version.is_v5() {
            let length = usize::from(rest.get_u8());
            properties = rest[..length].to_vec();
            rest.advance(length);
        }
        Received {
            topic,
            payload: String::from_utf8(rest.to_vec()).unwrap(),
            qos,
            retain: first & 1 != 0,
            dup: first & 8 != 0,
            id,
            properties,
        }
    }

    pub(super) async fn ping(&mut self) {
        self.send(&[0xc0, 0]).await;
        self.expect(0xd0, &[]).await;
    }

    /// Says goodbye and waits until the broker has heard it.
    pub(super) async fn leave(mut self) {
        self.send(&[0xe0, 0]).await;
        self.expect_close().await;
    }

    fn put_no_properties(&self, body: &mut Vec<u8>) {
        if self.version.is_v5() {
            body.push(0);
        }
    }
}

pub(super) fn packet(first: u8, body: &[u8]) -> Vec<u8> {
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
    packet.extend(body);
    packet
}

fn string(text: &str) -> Vec<u8> {
    let mut bytes = u16::try_from(text.len()).unwrap().to_be_bytes().to_vec();
    bytes.extend(text.as_bytes());
    bytes
}
