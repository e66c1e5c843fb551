//! MQTT packets without their version: what the rest of the broker speaks.

use std::{
    num::NonZeroU16,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    message::{Message, Qos},
    secret::Secret,
};

/// A packet identifier; zero is not one (MQTT 5, 2.2.1).
pub type PacketId = NonZeroU16;

/// A number that stands for a topic on one connection; zero is not one (MQTT 5, 3.3.2.3.4).
pub type TopicAlias = NonZeroU16;

/// A protocol level that this broker speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// MQTT 3.1, "MQIsdp" level 3.
    V31,
    /// MQTT 3.1.1, level 4.
    V311,
    /// MQTT 5, level 5.
    V5,
}

impl Version {
    pub fn is_v5(self) -> bool {
        self == Self::V5
    }
}

/// The first packet of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connect {
    pub version: Version,
    pub client_id: String,
    pub clean_start: bool,
    /// Seconds; zero switches the keep-alive off.
    pub keep_alive: u16,
    /// MQTT 5's session expiry in seconds; `u32::MAX` means never. Absent is zero.
    pub session_expiry: Option<u32>,
    pub receive_maximum: Option<NonZeroU16>,
    /// The longest packet that the client takes.
    pub maximum_packet: Option<u32>,
    /// How many topic aliases the broker may use; absent is zero.
    pub topic_aliases: u16,
    /// Answers may say in words what went wrong (MQTT 5, 3.1.2.11.7).
    pub problem_information: bool,
    pub will: Option<Will>,
    pub username: Option<String>,
    pub password: Option<Secret>,
    pub authentication_method: Option<String>,
}

impl Connect {
    /// A client that asks for nothing in particular, and starts clean.
    #[cfg(test)]
    pub(crate) fn for_tests(version: Version, client_id: &str) -> Self {
        Self {
            version,
            client_id: client_id.to_owned(),
            clean_start: true,
            keep_alive: 0,
            session_expiry: None,
            receive_maximum: None,
            maximum_packet: None,
            topic_aliases: 0,
            problem_information: true,
            will: None,
            username: None,
            password: None,
            authentication_method: None,
        }
    }

    /// Who reads the answer.
    pub fn recipient(&self) -> Recipient {
        let longest = self.maximum_packet.map(usize::try_from);
        Recipient {
            version: self.version,
            words: Words::Within(longest.and_then(Result::ok).unwrap_or(usize::MAX)),
        }
    }
}

/// Who reads the answer to a CONNECT, and what that may say in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recipient {
    pub version: Version,
    pub words: Words,
}

impl Recipient {
    /// A client whose CONNECT is not understood: how long packets it takes, nobody knows.
    pub fn unknown(version: Version) -> Self {
        Self {
            version,
            words: Words::None,
        }
    }

    /// Whether it takes a packet of this length.
    pub fn takes(self, length: usize) -> bool {
        match self.words {
            Words::None => true,
            Words::Within(longest) => length <= longest,
        }
    }
}

/// What is published for a client whose connection breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Will {
    pub message: Arc<Message>,
    /// Seconds that the message lives, counted from its publication (3.1.3.2.4).
    pub expiry: Option<u32>,
    /// Seconds between the break and the publication.
    pub delay: u32,
}

impl Will {
    /// The message as it is published.
    pub fn publication(self, now: Instant) -> Arc<Message> {
        let Self {
            mut message,
            expiry,
            delay: _,
        } = self;
        if let Some(seconds) = expiry {
            let expires = now + Duration::from_secs(u64::from(seconds));
            Arc::make_mut(&mut message).expires = Some(expires);
        }
        message
    }
}

/// A packet from a client whose CONNECT was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientPacket {
    Publish {
        id: Option<PacketId>,
        /// Stands for the message's topic from now on, or for the one that it stood for when the
        /// message has none.
        alias: Option<TopicAlias>,
        message: Message,
    },
    Ack(Ack),
    Subscribe(Subscribe),
    Unsubscribe {
        id: PacketId,
        filters: Vec<String>,
    },
    PingReq,
    Disconnect {
        reason: u8,
        session_expiry: Option<u32>,
    },
}

/// PUBACK, PUBREC, PUBREL and PUBCOMP, which differ only in their first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    pub kind: AckKind,
    pub id: PacketId,
    pub reason: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AckKind {
    PubAck,
    PubRec,
    PubRel,
    PubComp,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscribe {
    pub id: PacketId,
    pub subscription_id: Option<u32>,
    pub filters: Vec<SubscribeFilter>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscribeFilter {
    pub filter: String,
    pub qos: Qos,
    pub no_local: bool,
    pub retain_as_published: bool,
    pub retain_handling: RetainHandling,
}

/// When a SUBSCRIBE is answered with retained messages (MQTT 5, 3.8.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetainHandling {
    Always,
    IfNew,
    Never,
}

/// A PUBLISH on its way to one client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    pub message: Arc<Message>,
    pub qos: Qos,
    pub retain: bool,
    pub dup: bool,
    pub id: Option<PacketId>,
    pub subscription_ids: Vec<u32>,
}

/// How a PUBLISH tells its topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Naming {
    /// By its name alone.
    Name,
    /// By its name, for which the alias stands from then on.
    NameAndAlias(TopicAlias),
    /// By an alias that the client was told.
    Alias(TopicAlias),
}

/// The answer to CONNECT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnAck {
    pub session_present: bool,
    pub code: ConnectCode,
    pub session_expiry: Option<u32>,
    pub receive_maximum: Option<u16>,
    pub maximum_packet: Option<u32>,
    /// How many topic aliases the client may use.
    pub topic_aliases: u16,
    /// Seconds to use in place of what the client asked for.
    pub keep_alive: Option<u16>,
    pub assigned_client_id: Option<String>,
    /// Where a client that is refused should go.
    pub servers: Option<Box<str>>,
}

impl ConnAck {
    pub fn refusal(code: ConnectCode) -> Self {
        Self {
            session_present: false,
            code,
            session_expiry: None,
            receive_maximum: None,
            maximum_packet: None,
            topic_aliases: 0,
            keep_alive: None,
            assigned_client_id: None,
            servers: None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectCode {
    Accepted,
    UnsupportedVersion,
    ClientIdInvalid,
    QuotaExceeded,
    MalformedPacket,
    ProtocolError,
    BadCredentials,
    NotAuthorized,
    ServerUnavailable,
    BadAuthenticationMethod,
    TopicNameInvalid,
    PacketTooLarge,
    RateExceeded,
    ServerBusy,
    UseAnotherServer,
    ServerMoved,
}

impl ConnectCode {
    /// What a refusal means, for whoever reads a client's log.
    pub fn text(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::UnsupportedVersion => "this broker speaks MQTT 3.1, 3.1.1 and 5",
            Self::ClientIdInvalid => "this client may not have this client id",
            Self::QuotaExceeded => "more than the broker has room for",
            Self::MalformedPacket => "the broker cannot read this CONNECT",
            Self::ProtocolError => "this CONNECT is not allowed",
            Self::BadCredentials => "unknown user or wrong password",
            Self::NotAuthorized => "not authorized",
            Self::ServerUnavailable => "the broker cannot serve this client now: try again later",
            Self::BadAuthenticationMethod => "this broker has no extended authentication",
            Self::TopicNameInvalid => "topic of the will not valid",
            Self::PacketTooLarge => "CONNECT longer than the broker takes",
            Self::RateExceeded => "too many clients connect at once: try again later",
            Self::ServerBusy => "the broker is busy: try again later",
            Self::UseAnotherServer => reason::text(reason::USE_ANOTHER_SERVER),
            Self::ServerMoved => reason::text(reason::SERVER_MOVED),
        }
    }
}

/// Whether a packet says why in words, beside its reason code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Words {
    None,
    /// If it is not longer than this with them.
    Within(usize),
}

/// MQTT 5 reason codes that this broker sends in PUBACK, SUBACK, UNSUBACK and DISCONNECT.
pub mod reason {
    pub const SUCCESS: u8 = 0x00;
    pub const DISCONNECT_WITH_WILL: u8 = 0x04;
    pub const NO_MATCHING_SUBSCRIBERS: u8 = 0x10;
    pub const NO_SUBSCRIPTION_EXISTED: u8 = 0x11;
    pub const FAILURE: u8 = 0x80;
    pub const MALFORMED_PACKET: u8 = 0x81;
    pub const PROTOCOL_ERROR: u8 = 0x82;
    pub const NOT_AUTHORIZED: u8 = 0x87;
    pub const SHUTTING_DOWN: u8 = 0x8B;
    pub const KEEP_ALIVE_TIMEOUT: u8 = 0x8D;
    pub const SESSION_TAKEN_OVER: u8 = 0x8E;
    pub const TOPIC_FILTER_INVALID: u8 = 0x8F;
    pub const TOPIC_NAME_INVALID: u8 = 0x90;
    pub const PACKET_ID_NOT_FOUND: u8 = 0x92;
    pub const RECEIVE_MAXIMUM_EXCEEDED: u8 = 0x93;
    pub const TOPIC_ALIAS_INVALID: u8 = 0x94;
    pub const PACKET_TOO_LARGE: u8 = 0x95;
    pub const QUOTA_EXCEEDED: u8 = 0x97;
    pub const ADMINISTRATIVE_ACTION: u8 = 0x98;
    pub const USE_ANOTHER_SERVER: u8 = 0x9C;
    pub const SERVER_MOVED: u8 = 0x9D;
    pub const MAXIMUM_CONNECT_TIME: u8 = 0xA0;

    /// What a code of a failure means, for whoever reads a client's log.
    pub fn text(code: u8) -> &'static str {
        match code {
            FAILURE => "the broker cannot do this",
            MALFORMED_PACKET => "the broker cannot read this packet",
            PROTOCOL_ERROR => "this packet is not allowed here",
            NOT_AUTHORIZED => "not authorized",
            SHUTTING_DOWN => "the broker stops",
            KEEP_ALIVE_TIMEOUT => "nothing heard within one and a half times the keep-alive",
            SESSION_TAKEN_OVER => "another connection uses this client id",
            TOPIC_FILTER_INVALID => "topic filter not valid",
            TOPIC_NAME_INVALID => "topic name not valid",
            PACKET_ID_NOT_FOUND => "no message has this packet identifier",
            RECEIVE_MAXIMUM_EXCEEDED => "more QoS 2 messages under way than the CONNACK allows",
            TOPIC_ALIAS_INVALID => "topic alias is zero or above the CONNACK's maximum",
            PACKET_TOO_LARGE => "packet longer than its receiver takes",
            QUOTA_EXCEEDED => "more than the broker has room for",
            ADMINISTRATIVE_ACTION => "closed by an operator",
            USE_ANOTHER_SERVER => "the broker sends its clients elsewhere: connect again",
            SERVER_MOVED => "the broker is given up: connect to another one",
            MAXIMUM_CONNECT_TIME => "the login has expired: log in anew",
            _ => "refused by the broker",
        }
    }
}
