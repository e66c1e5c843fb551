//! Calls the peer and tells it of the VIPs that this node is Active for.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    net::TcpSocket,
    sync::{mpsc, watch},
    task::block_in_place,
    time::{self, Instant},
};
use tracing::info;

use super::{BEAT, Begun, Progress, RETRY, SILENCE, SyncError, first_stream, note_error};
use crate::{
    config::model::Sync,
    control::SendingStatus,
    core::sync::{
        Answer, Greeting, Hello, Message, Now,
        message::{Standing, decode, encode},
        record::{Key as Name, Record},
        source::Source,
    },
    io::{
        datapath,
        sync::{Key, Reader, Writer, call},
    },
};

/// For a call to be taken.
const CALL: Duration = Duration::from_secs(3);

/// The longest answer: a number or two.
const LONGEST_ANSWER: usize = 64;

/// The task.
pub(in crate::daemon) struct Outgoing {
    config: Sync,
    hello: Hello,
    walks: mpsc::Receiver<Begun>,
    progress: watch::Sender<Progress<SendingStatus>>,
    source: Source,
    started: Instant,
}

/// A connection on which the peer has said how far it is.
struct Link {
    writer: Writer,
    reader: Reader,
    standing: Option<Standing>,
}

impl Outgoing {
    pub(super) fn new(
        config: Sync,
        hello: Hello,
        walks: mpsc::Receiver<Begun>,
        progress: watch::Sender<Progress<SendingStatus>>,
    ) -> Self {
        Self {
            config,
            hello,
            walks,
            progress,
            source: Source::new(first_stream()),
            started: Instant::now(),
        }
    }

    /// Calls, tells, and calls again, until the daemon stops.
    pub(in crate::daemon) async fn run(mut self) -> anyhow::Result<()> {
        loop {
            let outcome = self.call().await;
            let error = match outcome {
                Ok(link) => {
                    let Err(error) = self.serve(link).await;
                    self.source.sender.unlink();
                    error
                }
                Err(error) => error,
            };
            self.note(&error);
            self.pause().await;
        }
    }

    fn note(&self, error: &SyncError) {
        self.progress.send_modify(|progress| {
            note_error(&mut progress.status.error, "sending", error);
            progress.status.connected = false;
            progress.since = None;
        });
    }

    /// Takes in walks until it is time for the next call.
    async fn pause(&mut self) {
        let until = Instant::now() + RETRY;
        while let Ok(walk) = time::timeout_at(until, self.walks.recv()).await {
            match walk {
                Some(walk) => self.handle_walk(walk),
                // The daemon is stopping.
                None => return time::sleep_until(until).await,
            }
        }
    }

    /// Makes a connection, taking in walks meanwhile: the sweep does not wait for a peer.
    async fn call(&mut self) -> Result<Link, SyncError> {
        let dial = dial(self.config.clone(), self.hello);
        tokio::pin!(dial);
        loop {
            tokio::select! {
                link = &mut dial => return link,
                Some(walk) = self.walks.recv() => self.handle_walk(walk),
            }
        }
    }

    fn handle_walk(&mut self, (begun, walk): Begun) {
        let begun = begun.saturating_duration_since(self.started);
        // Of a million flows it takes a second.
        block_in_place(|| self.source.handle_walk(walk, begun));
        self.tell();
    }

    /// Tells the peer what is new for as long as it is there.
    async fn serve(&mut self, link: Link) -> Result<std::convert::Infallible, SyncError> {
        let Link {
            mut writer,
            mut reader,
            standing,
        } = link;
        self.source.sender.link(standing);
        self.progress.send_modify(|progress| {
            progress.status.connected = true;
            progress.status.error = None;
        });
        let (mut beat, mut heard) = (time::interval(BEAT), Instant::now());
        loop {
            self.send(&mut writer).await?;
            self.tell();
            tokio::select! {
                Some(walk) = self.walks.recv() => self.handle_walk(walk),
                answer = reader.receive() => {
                    heard = Instant::now();
                    match decode(&answer?)? {
                        Answer::Ack(number) => self.source.sender.handle_ack(number),
                        Answer::Beat => {}
                    }
                }
                _ = beat.tick() => {
                    if heard.elapsed() > SILENCE {
                        return Err(SyncError::Silent);
                    }
                    let nothing: Message<Name, Record> = Message::Beat;
                    writer.send(&encode(&nothing)?).await?;
                }
            }
        }
    }

    /// Sends all that may be sent.
    async fn send(&mut self, writer: &mut Writer) -> Result<(), SyncError> {
        loop {
            let now = Now {
                at: self.started.elapsed(),
                tick: datapath::now(),
            };
            let Some(message) = self.source.sender.poll(now) else {
                return Ok(());
            };
            let begins = matches!(message, Message::Begin { .. });
            writer.send(&encode(&message)?).await?;
            self.progress.send_modify(|progress| {
                progress.status.messages += 1;
                progress.status.snapshots += u64::from(begins);
            });
        }
    }

    /// Says how things are.
    fn tell(&self) {
        let sender = &self.source.sender;
        let (is_in_sync, peer) = (sender.is_in_sync(), self.config.peer());
        let lag = self.source.lag(self.started.elapsed());
        self.progress.send_modify(|progress| {
            if is_in_sync && progress.since.is_none() {
                info!(%peer, entries = sender.entries(), "the peer is in sync with this node");
                progress.since = Some(Instant::now());
            } else if !is_in_sync {
                progress.since = None;
            }
            progress.status.lag_seconds = lag.as_secs_f64();
            progress.status.entries = sender.entries() as u64;
            progress.status.pending = sender.pending() as u64;
        });
    }
}

/// Makes a connection and asks the peer how far it is.
async fn dial(config: Sync, hello: Hello) -> Result<Link, SyncError> {
    let key = Key::load(config.key_file())?;
    let called = time::timeout(CALL, connect(config.listen(), config.peer())).await;
    let stream = called.map_err(|_elapsed| SyncError::NoAnswer)?;
    let stream = stream.map_err(SyncError::Call)?;
    let (mut writer, mut reader) = call(stream, &key, LONGEST_ANSWER).await?;
    writer.send(&encode(&hello)?).await?;
    let greeting = time::timeout(SILENCE, reader.receive()).await;
    match decode(&greeting.map_err(|_elapsed| SyncError::NoAnswer)??)? {
        Greeting::Welcome(standing) => Ok(Link {
            writer,
            reader,
            standing,
        }),
        Greeting::Refused(refusal) => Err(SyncError::Refused(refusal)),
    }
}

/// Calls from the address that the peer knows this node by.
async fn connect(from: SocketAddr, to: SocketAddr) -> std::io::Result<tokio::net::TcpStream> {
    let socket = if to.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    socket.bind(SocketAddr::new(from.ip(), 0))?;
    socket.connect(to).await
}
