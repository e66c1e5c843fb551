//! One health probe: connects to a backend's own address and finds out whether it serves.
//!
//! A probe is one call of [`run`] with a deadline for all of it. When and how often is the prober
//! task's business, what follows from the result is `core::health`'s. Nothing is retried here.

mod http;
mod mqtt;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    io::{self, ErrorKind},
    net::SocketAddr,
    time::{Duration, Instant},
};

use tokio::{io::AsyncWriteExt, net::TcpStream, time};

pub use http::Http;
pub use mqtt::{Mqtt, MqttVersion};

/// What to ask a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// Whether it accepts a connection.
    Tcp,
    /// Whether it answers a request with the expected status.
    Http(Http),
    /// Whether it accepts an MQTT client and answers its ping.
    Mqtt(Mqtt),
}

/// A probe's outcome: how long it took, or why it failed.
pub type ProbeResult = Result<Duration, ProbeFailure>;

/// Why a backend is not considered to serve.
#[derive(Debug, thiserror::Error)]
pub enum ProbeFailure {
    #[error("connection refused")]
    ConnectionRefused,
    #[error("cannot connect: {0}")]
    Connect(#[source] io::Error),
    #[error("timed out after {} in {stage}", Seconds(*.after))]
    TimedOut { after: Duration, stage: Stage },
    #[error("connection closed in {stage}")]
    Closed { stage: Stage },
    #[error("connection failed in {stage}: {source}")]
    Io { stage: Stage, source: io::Error },
    #[error("CONNACK refused: {code:#04x}")]
    ConnackRefused { code: u8 },
    #[error("unexpected answer in {stage}")]
    Unexpected { stage: Stage },
    /// It serves those that it has.
    #[error("HTTP status {status}: it takes no new clients")]
    HttpDrain { status: u16 },
    #[error("CONNACK {code:#04x}: it sends clients elsewhere")]
    ConnackElsewhere { code: u8 },
    #[error("HTTP status {status} instead of {expected}")]
    HttpStatus { status: u16, expected: u16 },
}

impl ProbeFailure {
    /// Whether the backend is well, and only takes no new clients.
    #[must_use]
    pub const fn is_farewell(&self) -> bool {
        matches!(self, Self::HttpDrain { .. } | Self::ConnackElsewhere { .. })
    }

    /// Whether anything came from the backend's host. If not, the way to it may be at fault, or this
    /// host: it may have no route, no link, or no socket left.
    #[must_use]
    pub fn was_answered(&self) -> bool {
        match self {
            Self::Connect(error) => error.kind() == ErrorKind::ConnectionReset,
            Self::TimedOut { stage, .. } => *stage != Stage::Connect,
            Self::ConnectionRefused
            | Self::Closed { .. }
            | Self::Io { .. }
            | Self::ConnackRefused { .. }
            | Self::ConnackElsewhere { .. }
            | Self::HttpDrain { .. }
            | Self::Unexpected { .. }
            | Self::HttpStatus { .. } => true,
        }
    }
}

/// The step in which a probe failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Connect,
    Connack,
    Pingresp,
    HttpResponse,
}

impl fmt::Display for Stage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Connect => "connect",
            Self::Connack => "CONNACK",
            Self::Pingresp => "PINGRESP",
            Self::HttpResponse => "HTTP response",
        })
    }
}

/// A duration as an operator would write it.
struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}s", self.0.as_secs_f64())
    }
}

/// Probes `target` once; the whole of it takes at most `timeout`.
///
/// # Errors
///
/// The reason, if the backend does not answer as it should.
pub async fn run(probe: &Probe, target: SocketAddr, timeout: Duration) -> ProbeResult {
    let started = Instant::now();
    let mut exchange = Exchange::connect(target, timeout).await?;
    match probe {
        Probe::Tcp => {}
        Probe::Http(http) => http.exchange(&mut exchange).await?,
        Probe::Mqtt(mqtt) => mqtt.exchange(&mut exchange).await?,
    }
    Ok(started.elapsed())
}

/// A connection with a deadline for everything done on it.
struct Exchange {
    stream: TcpStream,
    timeout: Duration,
    deadline: time::Instant,
}

impl Exchange {
    async fn connect(target: SocketAddr, timeout: Duration) -> Result<Self, ProbeFailure> {
        let deadline = time::Instant::now() + timeout;
        let connect = time::timeout_at(deadline, TcpStream::connect(target));
        let stage = Stage::Connect;
        let stream = connect
            .await
            .map_err(|_elapsed| ProbeFailure::TimedOut {
                after: timeout,
                stage,
            })?
            .map_err(|error| {
                if error.kind() == ErrorKind::ConnectionRefused {
                    ProbeFailure::ConnectionRefused
                } else {
                    ProbeFailure::Connect(error)
                }
            })?;
        Ok(Self {
            stream,
            timeout,
            deadline,
        })
    }

    /// Does one step of the exchange before the deadline.
    async fn step<T>(
        &mut self,
        stage: Stage,
        step: impl AsyncFnOnce(&mut TcpStream) -> io::Result<T>,
    ) -> Result<T, ProbeFailure> {
        match time::timeout_at(self.deadline, step(&mut self.stream)).await {
            Ok(Ok(outcome)) => Ok(outcome),
            Ok(Err(error)) => Err(failure(stage, error)),
            Err(_elapsed) => Err(ProbeFailure::TimedOut {
                after: self.timeout,
                stage,
            }),
        }
    }

    async fn send(&mut self, stage: Stage, bytes: &[u8]) -> Result<(), ProbeFailure> {
        self.step(stage, async |stream| stream.write_all(bytes).await)
            .await
    }
}

/// What an error on the connection says of the backend.
fn failure(stage: Stage, source: io::Error) -> ProbeFailure {
    const CLOSED: [ErrorKind; 3] = [
        ErrorKind::UnexpectedEof,
        ErrorKind::ConnectionReset,
        ErrorKind::BrokenPipe,
    ];
    if CLOSED.contains(&source.kind()) {
        ProbeFailure::Closed { stage }
    } else if source.kind() == ErrorKind::InvalidData {
        ProbeFailure::Unexpected { stage }
    } else {
        ProbeFailure::Io { stage, source }
    }
}
