//! The MQTT probe: CONNECT, CONNACK, PINGREQ, PINGRESP, DISCONNECT, as 3.1.1 or 5.
//!
//! The session is clean and the goodbye proper, so that brokers keep no state and log no error.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time,
};

use super::{Exchange, ProbeFailure, Stage};

/// MQTT packet types, with the flags that go with them (MQTT 5, table 2-1).
const CONNECT: u8 = 0x10;
const CONNACK: u8 = 0x20;
const PINGREQ: [u8; 2] = [0xc0, 0];
const PINGRESP: u8 = 0xd0;
const DISCONNECT: [u8; 2] = [0xe0, 0];

/// Use another server, and server moved (MQTT 5, 3.2.2.2); older versions have no such codes.
const ELSEWHERE: [u8; 2] = [0x9c, 0x9d];

/// The bits of the connect flags (MQTT 5, 3.1.2.3).
const CLEAN_START: u8 = 0x02;
const HAS_PASSWORD: u8 = 0x40;
const HAS_USERNAME: u8 = 0x80;

/// Longer than any probe; a broker that forgets the probe's end still drops the client soon.
const KEEP_ALIVE_SECONDS: u16 = 60;

/// A CONNACK may carry properties, but nothing that a health check has to swallow whole.
const MAX_PACKET: usize = 65_536;

/// How long to wait for the broker to close after DISCONNECT. Not part of the verdict: closing first
/// could reach the broker as a reset, which some of them log.
const GOODBYE: Duration = Duration::from_millis(200);

/// Which protocol the probe speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MqttVersion {
    V311,
    V5,
}

/// The client that the probe pretends to be.
#[derive(Clone, PartialEq, Eq)]
pub struct Mqtt {
    pub version: MqttVersion,
    /// Must differ between probes of one broker: a second client of the same name ends the first.
    pub client_id: String,
    pub username: Option<String>,
    pub password: Option<String>,
}

/// Without the password: this ends up in logs.
impl std::fmt::Debug for Mqtt {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Mqtt")
            .field("version", &self.version)
            .field("client_id", &self.client_id)
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

impl Mqtt {
    pub(super) async fn exchange(&self, exchange: &mut Exchange) -> Result<(), ProbeFailure> {
        let stage = Stage::Connack;
        exchange.send(stage, &self.connect_packet()).await?;
        let (kind, body) = exchange.step(stage, read_packet).await?;
        // CONNACK: acknowledge flags, then the code; version 5 has properties after it.
        match (kind, body.get(1)) {
            (CONNACK, Some(0)) => {}
            (CONNACK, Some(&code)) if ELSEWHERE.contains(&code) => {
                return Err(ProbeFailure::ConnackElsewhere { code });
            }
            (CONNACK, Some(&code)) => return Err(ProbeFailure::ConnackRefused { code }),
            _ => return Err(ProbeFailure::Unexpected { stage }),
        }
        let stage = Stage::Pingresp;
        exchange.send(stage, &PINGREQ).await?;
        let (kind, _) = exchange.step(stage, read_packet).await?;
        if kind != PINGRESP {
            return Err(ProbeFailure::Unexpected { stage });
        }
        say_goodbye(&mut exchange.stream).await;
        Ok(())
    }

    fn connect_packet(&self) -> Vec<u8> {
        let mut flags = CLEAN_START;
        flags |= if self.username.is_some() {
            HAS_USERNAME
        } else {
            0
        };
        flags |= if self.password.is_some() {
            HAS_PASSWORD
        } else {
            0
        };
        let mut body = Vec::new();
        put_string(&mut body, "MQTT");
        body.push(match self.version {
            MqttVersion::V311 => 4,
            MqttVersion::V5 => 5,
        });
        body.push(flags);
        body.extend(KEEP_ALIVE_SECONDS.to_be_bytes());
        if self.version == MqttVersion::V5 {
            // No properties: the session then ends with the connection.
            body.push(0);
        }
        put_string(&mut body, &self.client_id);
        for text in [&self.username, &self.password].into_iter().flatten() {
            put_string(&mut body, text);
        }
        let mut packet = vec![CONNECT];
        put_length(&mut packet, body.len());
        packet.extend(body);
        packet
    }
}

async fn say_goodbye(stream: &mut TcpStream) {
    let goodbye = async {
        stream.write_all(&DISCONNECT).await?;
        stream.shutdown().await?;
        let mut rest = [0; 64];
        while stream.read(&mut rest).await? > 0 {}
        io::Result::Ok(())
    };
    // The backend has proved its health before; how it takes the goodbye changes nothing.
    drop(time::timeout(GOODBYE, goodbye).await);
}

/// Reads one packet: its first byte and what follows the length.
async fn read_packet(stream: &mut TcpStream) -> io::Result<(u8, Vec<u8>)> {
    let kind = stream.read_u8().await?;
    let length = read_length(stream).await?;
    if length > MAX_PACKET {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Ok((kind, body))
}

/// The variable byte integer of MQTT 5, 1.5.5: seven bits a byte, four bytes at most.
async fn read_length(stream: &mut TcpStream) -> io::Result<usize> {
    let mut length = 0;
    for shift in [0, 7, 14, 21] {
        let byte = stream.read_u8().await?;
        length |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(length);
        }
    }
    Err(io::ErrorKind::InvalidData.into())
}

fn put_length(packet: &mut Vec<u8>, mut length: usize) {
    loop {
        let low = (length & 0x7f) as u8;
        length >>= 7;
        if length == 0 {
            packet.push(low);
            return;
        }
        packet.push(low | 0x80);
    }
}

/// A string after its length. The configuration bounds all of them far below 64 KiB.
fn put_string(body: &mut Vec<u8>, text: &str) {
    let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
    body.extend(length.to_be_bytes());
    body.extend(&text.as_bytes()[..usize::from(length)]);
}
