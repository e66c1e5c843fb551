//! Calls the peer and tells it of the VIPs that this node is Active for.

use std::{net::SocketAddr, time::Duration};

use channel::{Key, Reader, Writer, call};
use tokio::{
    net::TcpSocket,
    sync::{mpsc, watch},
    task::{block_in_place, yield_now},
    time::{self, Instant},
};

use lb_common::abi::FlowEvent;

use super::{
    BEAT, Begun, PURPOSE, Progress, RETRY, SILENCE, SyncError, events::Events, first_stream,
    note_error,
};
use crate::{
    config::model::Sync,
    control::{FlowLag, SendingStatus},
    core::{
        event::{Direction, Event},
        sync::{
            Answer, Greeting, Hello, Message, Now,
            message::{Standing, decode, encode},
            record::{Key as Name, Record},
            source::Source,
        },
    },
    io::datapath,
    journal::Journal,
};

/// For a call to be taken.
const CALL: Duration = Duration::from_secs(3);

/// The longest answer: a number or two.
const LONGEST_ANSWER: usize = 64;

/// What the peer is told of comes from here.
pub(super) struct Inputs {
    pub(super) walks: mpsc::Receiver<Begun>,
    pub(super) events: Events,
}

/// What has come.
enum Input {
    Walk(Begun),
    Events(std::io::Result<Vec<FlowEvent>>),
    /// Nothing, while there is more of a walk to be taken in.
    Nothing,
}

/// The task.
pub(in crate::daemon) struct Outgoing {
    config: Sync,
    hello: Hello,
    inputs: Inputs,
    progress: watch::Sender<Progress<SendingStatus>>,
    journal: Journal,
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
        inputs: Inputs,
        started: Instant,
        progress: watch::Sender<Progress<SendingStatus>>,
        journal: Journal,
    ) -> Self {
        Self {
            config,
            hello,
            inputs,
            progress,
            journal,
            source: Source::new(first_stream()),
            started,
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
        let peer = self.config.peer().ip();
        let mut event = None;
        self.progress.send_modify(|progress| {
            let place = &mut progress.status.error;
            event = note_error(place, Direction::Sending, peer, error);
            progress.status.connected = false;
            progress.since = None;
        });
        event.into_iter().for_each(|event| self.journal.tell(event));
    }

    /// Takes in what comes until it is time for the next call.
    async fn pause(&mut self) {
        let until = Instant::now() + RETRY;
        while let Ok(input) = time::timeout_at(until, self.inputs.next(&self.source)).await {
            self.handle(input);
        }
    }

    /// Makes a connection, taking in what comes meanwhile: neither sweep nor program wait for a peer.
    async fn call(&mut self) -> Result<Link, SyncError> {
        let dial = dial(self.config.clone(), self.hello);
        tokio::pin!(dial);
        loop {
            tokio::select! {
                link = &mut dial => return link,
                input = self.inputs.next(&self.source) => self.handle(input),
            }
        }
    }

    fn handle(&mut self, input: Input) {
        match input {
            Input::Walk(walk) => self.handle_walk(walk),
            Input::Events(Ok(events)) => {
                let given = self.inputs.events.give(&events, &mut self.source);
                self.count_events(given);
            }
            // The runtime is going, and this task with it.
            Input::Events(Err(_)) => {}
            Input::Nothing => {
                // The last part looks through all that is known, for what has gone.
                block_in_place(|| self.source.continue_walk());
                if !self.source.is_walking() {
                    self.tell();
                    self.tell_lag();
                }
            }
        }
    }

    fn handle_walk(&mut self, (begun, walk): Begun) {
        // What the walk finds new was not reported then.
        self.look_for_events();
        let begun = begun.saturating_duration_since(self.started);
        self.source.begin_walk(walk, begun);
    }

    fn look_for_events(&mut self) {
        let given = self.inputs.events.give_all(&mut self.source);
        self.count_events(given);
    }

    fn count_events(&self, given: u64) {
        self.progress.send_modify(|it| it.status.events += given);
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
                input = self.inputs.next(&self.source) => self.handle(input),
                answer = reader.receive() => {
                    heard = Instant::now();
                    match decode(&answer?)? {
                        Answer::Ack(number) => {
                            self.source.sender.handle_ack(number, self.started.elapsed());
                        }
                        Answer::Beat => {}
                    }
                }
                _ = beat.tick() => {
                    if heard.elapsed() > SILENCE {
                        return Err(SyncError::Silent);
                    }
                    self.tell_lag();
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
            let bytes = writer.send(&encode(&message)?).await?;
            self.progress.send_modify(|progress| {
                progress.status.messages += 1;
                progress.status.bytes += bytes as u64;
                progress.status.snapshots += u64::from(begins);
            });
        }
    }

    /// Says how things are.
    fn tell(&self) {
        let sender = &self.source.sender;
        let (is_in_sync, mut is_news) = (sender.is_in_sync(), false);
        let lag = self.source.lag(self.started.elapsed());
        self.progress.send_modify(|progress| {
            if is_in_sync && progress.since.is_none() {
                is_news = true;
                progress.since = Some(Instant::now());
            } else if !is_in_sync {
                progress.since = None;
            }
            progress.status.lag_seconds = lag.as_secs_f64();
            progress.status.entries = sender.entries() as u64;
            progress.status.pending = sender.pending() as u64;
            progress.status.unacknowledged = sender.unacknowledged() as u64;
        });
        if is_news {
            self.journal.tell(Event::SyncUp {
                direction: Direction::Sending,
                peer: self.config.peer().ip(),
                records: sender.entries() as u64,
            });
        }
    }

    /// Says how long new flows take, which takes some counting.
    fn tell_lag(&self) {
        let lags = self.source.sender.lags(self.started.elapsed());
        let lost = self.inputs.events.lost();
        self.progress.send_modify(|progress| {
            progress.status.events_lost = lost;
            progress.status.flow_lag = FlowLag {
                flows: lags.count,
                p50_seconds: lags.p50.as_secs_f64(),
                p99_seconds: lags.p99.as_secs_f64(),
                max_seconds: lags.max.as_secs_f64(),
            };
        });
    }
}

impl Inputs {
    /// What comes next; the next walk after the end of the one before. May be cancelled.
    async fn next(&mut self, source: &Source) -> Input {
        tokio::select! {
            // Without a sweep the daemon is stopping; what begins meanwhile is reported.
            Some(walk) = self.walks.recv(), if !source.is_walking() => Input::Walk(walk),
            events = self.events.next() => Input::Events(events),
            () = yield_now(), if source.is_walking() => Input::Nothing,
        }
    }
}

/// Makes a connection and asks the peer how far it is.
async fn dial(config: Sync, hello: Hello) -> Result<Link, SyncError> {
    let key = Key::load(config.key_file(), PURPOSE)?;
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
