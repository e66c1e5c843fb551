//! The command line: emqtt_benchmark's flags, and ours.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use clap::{ArgAction, Subcommand};

use super::codec::Version;

/// Load generator: many MQTT clients that connect, publish or subscribe.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    pub(super) kind: Box<Kind>,
}

#[derive(Debug, Subcommand)]
#[command(disable_help_subcommand = true)]
pub(super) enum Kind {
    /// Connect many clients and hold them, measuring PINGREQ round trips
    ///
    /// Example: bench conn -h 172.16.40.24 -c 10000 -i 1 --hold 60s
    ///
    /// Example: bench conn -h mqtt.example.org -c 1000 -R 200 --tls --ca-file ca.pem
    #[command(disable_help_flag = true, verbatim_doc_comment)]
    Conn(ConnArgs),
    /// Connect many clients that each publish to a topic
    ///
    /// Example: bench pub -h 172.16.40.24 -c 35000 -i 1 -I 1000 -t bench21/%i -s 256 -q 1
    ///
    /// Example: bench pub -h mqtt.example.org -c 100 -I 0 -L 1000000 -q 1 --ws --tls --json
    #[command(disable_help_flag = true, verbatim_doc_comment)]
    Pub(PubArgs),
    /// Connect many clients that each subscribe, counting gaps, duplicates and latency
    ///
    /// Example: bench sub -h 172.16.40.24 -c 10 -t 'bench21/#' -q 1 --duration 60s
    ///
    /// Example: bench sub -h 172.16.40.24 -c 4 -t '$share/g/bench21/+' -q 1 --idle 3s
    #[command(disable_help_flag = true, verbatim_doc_comment)]
    Sub(SubArgs),
}

impl Kind {
    pub(super) fn common(&self) -> &CommonArgs {
        match self {
            Self::Conn(args) => &args.common,
            Self::Pub(args) => &args.common,
            Self::Sub(args) => &args.common,
        }
    }
}

#[derive(Debug, clap::Args)]
pub(super) struct ConnArgs {
    #[command(flatten)]
    pub(super) common: CommonArgs,
    /// Read clients' numbers from standard input, one a line: each says DISCONNECT and connects anew
    #[arg(long, requires = "reconnect")]
    pub(super) moves: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct PubArgs {
    #[command(flatten)]
    pub(super) common: CommonArgs,
    /// Milliseconds between two messages of one client; 0: as fast as the window allows
    #[arg(
        short = 'I',
        long = "interval-of-msg",
        visible_alias = "interval_of_msg",
        value_name = "MS",
        default_value = "1000",
        value_parser = milliseconds
    )]
    pub(super) message_interval: Duration,
    /// Topic; %i is the client's number, %c its id, %u its user name
    #[arg(short, long, default_value = "bench/%i")]
    pub(super) topic: String,
    /// Payload bytes; from 24 on it carries a number and a time that `bench sub` reads
    #[arg(short, long, value_name = "BYTES", default_value_t = 256)]
    pub(super) size: usize,
    /// This text as payload, in which `bench sub` finds no number and no time
    #[arg(short, long, value_name = "TEXT", conflicts_with = "size")]
    pub(super) message: Option<String>,
    /// Quality of service: 0, 1 or 2
    #[arg(short, long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=2))]
    pub(super) qos: u8,
    /// Publish with the retain flag
    #[arg(short, long)]
    pub(super) retain: bool,
    /// Messages in all, taken by whichever client is ready; without it until --duration or a signal
    #[arg(short = 'L', long, value_name = "N")]
    pub(super) limit: Option<u64>,
    /// Most messages of one client that wait for their acknowledgement (QoS 1 and 2)
    #[arg(short = 'F', long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) inflight: u16,
    /// Publish only when all clients are connected
    #[arg(short, long, visible_alias = "wait-before-publishing")]
    pub(super) wait_all: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct SubArgs {
    #[command(flatten)]
    pub(super) common: CommonArgs,
    /// Topic filter, may be repeated; %i is the client's number, %c its id, %u its user name
    #[arg(short, long = "topic", default_value = "bench/%i")]
    pub(super) topics: Vec<String>,
    /// Quality of service: 0, 1 or 2
    #[arg(short, long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=2))]
    pub(super) qos: u8,
    /// End after so many messages, over all clients
    #[arg(short = 'L', long, value_name = "N")]
    pub(super) limit: Option<u64>,
    /// End when nothing has come for so long since the last message
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(super) idle: Option<Duration>,
}

/// What is between a client and its server.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Transport")]
pub(super) struct TransportArgs {
    /// Over TLS
    #[arg(
        short = 'S',
        long,
        visible_alias = "ssl",
        value_name = "BOOL",
        default_value_t = false,
        default_missing_value = "true",
        num_args = 0..=1,
        action = ArgAction::Set
    )]
    pub(super) tls: bool,
    /// Trust servers that an authority in this file vouches for, and no others [default: the system's
    /// authorities]
    #[arg(long, visible_alias = "cacertfile", value_name = "PATH")]
    pub(super) ca_file: Option<PathBuf>,
    /// Trust whoever answers
    #[arg(long, conflicts_with = "ca_file")]
    pub(super) insecure: bool,
    /// Certificate that the clients show, with what vouches for it
    #[arg(
        long,
        visible_alias = "certfile",
        value_name = "PATH",
        requires = "key_file"
    )]
    pub(super) cert_file: Option<PathBuf>,
    /// Its private key
    #[arg(
        long,
        visible_alias = "keyfile",
        value_name = "PATH",
        requires = "cert_file"
    )]
    pub(super) key_file: Option<PathBuf>,
    /// Name that a server's certificate has to be for [default: the host's]
    #[arg(long, value_name = "NAME")]
    pub(super) server_name: Option<String>,
    /// Over WebSocket
    #[arg(long)]
    pub(super) ws: bool,
    /// Path that a WebSocket is asked for at
    #[arg(long, value_name = "PATH", default_value = "/mqtt")]
    pub(super) ws_path: String,
}

#[derive(Debug, clap::Args)]
pub(super) struct CommonArgs {
    /// Server, may be repeated or a comma list: clients take turns
    #[arg(
        short = 'h',
        long = "host",
        value_delimiter = ',',
        default_value = "localhost"
    )]
    pub(super) hosts: Vec<String>,
    /// Port of the server [default: 1883; TLS 8883, WebSocket 8083, both 8084]
    #[arg(short, long)]
    pub(super) port: Option<u16>,
    /// Number of clients
    #[arg(short, long, default_value_t = 200)]
    pub(super) count: u32,
    /// Number of the first client
    #[arg(
        short = 'n',
        long,
        visible_alias = "start-number",
        value_name = "N",
        default_value_t = 0
    )]
    pub(super) startnumber: u32,
    /// Milliseconds between two connects, also a fraction; 0: as fast as possible
    #[arg(short, long, value_name = "MS", default_value = "10", value_parser = milliseconds)]
    pub(super) interval: Duration,
    /// The same as clients a second
    #[arg(
        short = 'R',
        long = "connrate",
        visible_alias = "conn-rate",
        value_name = "N",
        conflicts_with = "interval",
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub(super) rate: Option<u32>,
    /// Most clients that are connecting at the same moment
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) connecting: u32,
    /// Client id; %i is the client's number [default: unique to this run]
    #[arg(long, value_name = "ID")]
    pub(super) client_id: Option<String>,
    /// What client ids unique to this run begin with
    #[arg(long, value_name = "TEXT", conflicts_with = "client_id")]
    pub(super) prefix: Option<String>,
    /// User name; %i is the client's number, %c its id
    #[arg(short, long)]
    pub(super) username: Option<String>,
    /// Password; %i, %c and %u as elsewhere
    #[arg(short = 'P', long)]
    pub(super) password: Option<String>,
    /// Keep-alive in seconds; 0: none
    #[arg(short, long, value_name = "SECONDS", default_value_t = 300)]
    pub(super) keepalive: u16,
    /// Start with a clean session, or (false) resume the one kept
    #[arg(
        short = 'C',
        long,
        value_name = "BOOL",
        default_value_t = true,
        default_missing_value = "true",
        num_args = 0..=1,
        action = ArgAction::Set
    )]
    pub(super) clean: bool,
    /// How long the server keeps a session that is not clean (MQTT 5); a bare number is seconds
    #[arg(short = 'x', long, value_name = "DURATION", default_value = "1h", value_parser = expiry)]
    pub(super) session_expiry: Duration,
    /// MQTT version
    #[arg(
        short = 'V',
        long = "version-mqtt",
        value_enum,
        default_value = "3.1.1"
    )]
    pub(super) version: Version,
    #[command(flatten)]
    pub(super) transport: TransportArgs,
    /// Source addresses, comma list: clients take turns
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    pub(super) ifaddr: Vec<IpAddr>,
    /// Time between PINGREQs [default: half the keep-alive; `conn`: 1s if that is less]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(super) ping_interval: Option<Duration>,
    /// Longest wait for CONNACK, SUBACK and PINGRESP
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    pub(super) timeout: Duration,
    /// End so long after all clients are up; without it at a signal
    #[arg(long, visible_alias = "duration", value_name = "DURATION", value_parser = duration)]
    pub(super) hold: Option<Duration>,
    /// Clients that lost their connection come back
    #[arg(long)]
    pub(super) reconnect: bool,
    /// Write a line of JSON to standard output for each connection that is lost, when it is
    #[arg(long)]
    pub(super) events: bool,
    /// Exit 0 even if clients failed or were lost
    #[arg(long)]
    pub(super) allow_loss: bool,
    /// Write {"event":"up",..} to this file when every client is up or has failed
    #[arg(long, value_name = "PATH")]
    pub(super) ready_file: Option<PathBuf>,
    /// Threads [default: one per core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) threads: Option<u16>,
    /// One line of JSON as summary; events on stderr as JSON too
    #[arg(long)]
    pub(super) json: bool,
    /// No live rates
    #[arg(long)]
    pub(super) quiet: bool,
    /// Print help
    #[arg(long, action = ArgAction::HelpLong)]
    pub(super) help: Option<bool>,
}

impl CommonArgs {
    /// Time between two connects.
    pub(super) fn pace(&self) -> Duration {
        self.rate
            .map_or(self.interval, |rate| Duration::from_secs(1) / rate)
    }

    /// The one that is given, or the one that is usual.
    pub(super) fn port(&self) -> u16 {
        let TransportArgs { tls, ws, .. } = self.transport;
        self.port.unwrap_or(match (ws, tls) {
            (false, false) => 1883,
            (false, true) => 8883,
            (true, false) => 8083,
            (true, true) => 8084,
        })
    }
}

/// What is wrong with a number or a duration on the command line.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum DurationError {
    #[error("expected a number of milliseconds, such as 10 or 0.5")]
    Milliseconds,
    #[error("expected a duration, such as 500ms, 2s, 10m, 3h or 7d")]
    Duration,
}

fn milliseconds(text: &str) -> Result<Duration, DurationError> {
    let number: f64 = text.parse().map_err(|_| DurationError::Milliseconds)?;
    Duration::try_from_secs_f64(number / 1000.0).map_err(|_| DurationError::Milliseconds)
}

fn duration(text: &str) -> Result<Duration, DurationError> {
    crate::duration::parse(text).ok_or(DurationError::Duration)
}

fn expiry(text: &str) -> Result<Duration, DurationError> {
    match text.parse() {
        Ok(seconds) => Ok(Duration::from_secs(seconds)),
        Err(_) => duration(text),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::{CommandFactory, Parser};

    use super::{Args, DurationError, Kind, milliseconds};
    use crate::bench::codec::Version;

    #[derive(Debug, Parser)]
    #[command(name = "bench")]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn parse(line: &str) -> Kind {
        *Cli::try_parse_from(format!("bench {line}").split(' '))
            .unwrap()
            .args
            .kind
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_of_the_classic_load_test_are_understood() {
        let line = "pub -h 172.16.40.24 -p 1884 -c 35000 -n 7 -i 2 -I 10 -t bench21/%i -s 512 \
                    -q 1 -r -k 60 -C false -u ann -P secret -L 1000 -V 5";
        let Kind::Pub(args) = parse(line) else {
            panic!("not pub")
        };
        let common = &args.common;
        assert_eq!(common.hosts, ["172.16.40.24"]);
        assert_eq!(
            (common.port, common.count, common.startnumber),
            (Some(1884), 35_000, 7)
        );
        assert_eq!(common.interval, Duration::from_millis(2));
        assert_eq!(args.message_interval, Duration::from_millis(10));
        assert_eq!(
            (args.topic.as_str(), args.size, args.qos),
            ("bench21/%i", 512, 1)
        );
        assert!(args.retain && !common.clean);
        assert_eq!((common.keepalive, args.limit), (60, Some(1000)));
        assert_eq!(common.username.as_deref(), Some("ann"));
        assert_eq!(common.password.as_deref(), Some("secret"));
        assert_eq!(common.version, Version::V5);
    }

    #[test]
    fn flags_of_the_classic_load_test_for_tls_and_pace_are_understood() {
        let line = "pub -S --cacertfile ca --certfile cert --keyfile key --ws -R 200 --prefix dev \
                    -x 300 -w -m hello";
        let Kind::Pub(args) = parse(line) else {
            panic!("not pub")
        };
        let (common, transport) = (&args.common, &args.common.transport);
        assert!(transport.tls && transport.ws && args.wait_all);
        assert_eq!((common.port(), transport.ws_path.as_str()), (8084, "/mqtt"));
        assert_eq!(common.pace(), Duration::from_millis(5));
        assert_eq!(common.session_expiry, Duration::from_secs(300));
        assert_eq!(args.message.as_deref(), Some("hello"));
        for (line, port) in [
            ("conn", 1883),
            ("conn --tls", 8883),
            ("conn --ssl true", 8883),
            ("conn --ws", 8083),
            ("conn -S -p 1", 1),
        ] {
            assert_eq!(parse(line).common().port(), port, "{line}");
        }
    }

    #[test]
    fn hosts_and_source_addresses_are_lists() {
        let Kind::Conn(args) = parse("conn -h a,b -h [::1] --ifaddr 127.0.0.2,::1") else {
            panic!("not conn")
        };
        assert_eq!(args.common.hosts, ["a", "b", "[::1]"]);
        assert_eq!(args.common.ifaddr.len(), 2);
    }

    #[test]
    fn the_clean_flag_needs_no_value() {
        let Kind::Sub(args) = parse("sub -C -t a -t b/%i") else {
            panic!("not sub")
        };
        assert!(args.common.clean);
        assert_eq!(args.topics, ["a", "b/%i"]);
    }

    #[test]
    fn intervals_are_milliseconds() {
        assert_eq!(milliseconds("0.5"), Ok(Duration::from_micros(500)));
        assert_eq!(milliseconds("0"), Ok(Duration::ZERO));
        for wrong in ["", "-1", "x", "nan", "inf"] {
            assert_eq!(
                milliseconds(wrong),
                Err(DurationError::Milliseconds),
                "{wrong}"
            );
        }
    }
}
