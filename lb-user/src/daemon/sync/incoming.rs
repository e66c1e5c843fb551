//! Waits for the peer's call and takes in what it tells of the VIPs that this node stands by for.
//!
//! Anybody can call, so little is spent on who has not shown that it has the key: few at a time, for
//! a few seconds, from the peer's address alone. A caller that has it takes the place of the one
//! before, who may be gone without a word. Having answered a handshake is not enough for that: its
//! first message may be replayed, and only the next one cannot be.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use channel::{Key, Reader, Writer, answer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    task::{JoinSet, spawn_blocking},
    time::{self, Instant},
};

use super::{
    BEAT, Duty, PURPOSE, Progress, RETRY, SILENCE, SyncError, note_error,
    records::{Counts, Records},
};
use crate::{
    config::model::Sync,
    control::ReceivingStatus,
    core::{
        event::{self, Direction},
        flows::Sight,
        sync::{
            Answer, Greeting, Hello, Message, Receiver, Step,
            message::{LONGEST, decode, encode},
            names::Names,
            record::{Key as Name, Record},
        },
    },
    daemon::{engine::Told, vrrp::Roles},
    io::datapath::{self, Recorder},
    journal::Journal,
};

/// Callers that have not shown the key, at a time. The true one tries again.
const STRANGERS: usize = 4;

/// What a snapshot names beside flows: a table and a keep-alive for each service.
const BESIDE_FLOWS: usize = 2 * 1_024;

/// What ties the task to others.
pub(super) struct Ends {
    pub(super) duty: watch::Receiver<Duty>,
    pub(super) roles: Roles,
    pub(super) sights: watch::Receiver<Sight>,
    pub(super) told: mpsc::Sender<Told>,
    pub(super) progress: watch::Sender<Progress<ReceivingStatus>>,
    pub(super) journal: Journal,
}

impl Ends {
    /// The VIPs that the peer tells of. Routers know of a take-over before the event loop does.
    fn standby(&self) -> BTreeSet<IpAddr> {
        let duty = self.duty.borrow();
        let standby = duty.standby.iter();
        let mut standby: BTreeSet<IpAddr> = standby.copied().collect();
        standby.retain(|vip| !self.roles.is_active(*vip));
        standby
    }
}

/// The task.
pub(in crate::daemon) struct Incoming {
    config: Sync,
    hello: Hello,
    ends: Ends,
    receiver: Receiver<Name>,
    /// Not here while it is at work on another thread.
    records: Option<Records>,
    counts: Counts,
    snapshots: u64,
}

/// A caller that has the key.
struct Session {
    writer: Writer,
    reader: Reader,
    heard: Instant,
}

type Handshakes = JoinSet<Result<(Session, Hello), SyncError>>;

/// What happens.
enum Event {
    Called(std::io::Result<(TcpStream, SocketAddr)>),
    Shown(Result<(Session, Hello), SyncError>),
    Said(Result<Vec<u8>, SyncError>),
    Duty,
    Beat,
}

impl Incoming {
    pub(super) fn new(
        config: Sync,
        hello: Hello,
        ends: Ends,
        (recorder, most): (Recorder, usize),
    ) -> Self {
        let names = Arc::new(Names::new(&ends.sights.borrow().image, ends.standby()));
        let (counts, roles) = (Counts::default(), ends.roles.clone());
        Self {
            config,
            hello,
            ends,
            receiver: Receiver::new(most + BESIDE_FLOWS),
            records: Some(Records {
                recorder,
                names,
                roles,
                counts: counts.clone(),
            }),
            counts,
            snapshots: 0,
        }
    }

    /// Listens until the daemon stops.
    pub(in crate::daemon) async fn run(mut self) -> anyhow::Result<()> {
        loop {
            let listen = self.config.listen();
            match TcpListener::bind(listen).await {
                Ok(listener) => self.serve(&listener).await?,
                Err(error) => {
                    self.reject(&SyncError::Listen(listen, error));
                    time::sleep(RETRY).await;
                }
            }
        }
    }

    /// Handles what happens at a listener.
    ///
    /// # Errors
    /// If what it has is lost with a thread.
    async fn serve(&mut self, listener: &TcpListener) -> anyhow::Result<()> {
        let (mut session, mut handshakes): (Option<Session>, Handshakes) = (None, JoinSet::new());
        let mut beat = time::interval(BEAT);
        loop {
            let event = tokio::select! {
                called = accept(listener) => Event::Called(called),
                Some(shown) = handshakes.join_next() => Event::Shown(shown?),
                said = hear(&mut session) => Event::Said(said),
                changed = self.ends.duty.changed() => {
                    changed?;
                    Event::Duty
                }
                changed = self.ends.roles.changed() => {
                    changed?;
                    Event::Duty
                }
                _ = beat.tick() => Event::Beat,
            };
            let outcome = self.handle(event, &mut session, &mut handshakes).await;
            if let Err(error) = outcome {
                self.reject(&error);
                self.receiver.unlink();
                session = None;
                anyhow::ensure!(self.records.is_some(), "the flow tables' writer is gone");
            }
            self.tell(session.is_some());
        }
    }

    async fn handle(
        &mut self,
        event: Event,
        session: &mut Option<Session>,
        handshakes: &mut Handshakes,
    ) -> Result<(), SyncError> {
        match event {
            Event::Called(called) => self.handle_call(called, handshakes),
            Event::Shown(Ok((caller, hello))) => {
                self.receiver.unlink();
                *session = self.greet(caller, hello).await?;
            }
            // Whoever it was, the session that is there may be the peer's.
            Event::Shown(Err(error)) => self.reject(&error),
            Event::Said(said) => {
                let message = decode(&said?)?;
                if let Some(session) = session {
                    session.heard = Instant::now();
                    self.take_in(message, session).await?;
                }
            }
            Event::Duty => {
                if self.is_reassigned() {
                    self.reconsider(session);
                }
            }
            Event::Beat => self.handle_beat(session).await?,
        }
        Ok(())
    }

    fn handle_call(
        &self,
        called: std::io::Result<(TcpStream, SocketAddr)>,
        handshakes: &mut Handshakes,
    ) {
        let Ok((stream, from)) = called else {
            return self.count_rejected("socket");
        };
        if from.ip() != self.config.peer().ip() {
            return self.count_rejected("stranger");
        }
        if handshakes.len() >= STRANGERS {
            return self.count_rejected("too_many");
        }
        let path = self.config.key_file().to_owned();
        handshakes.spawn(async move {
            let key = Key::load(&path, PURPOSE)?;
            let (writer, mut reader) = answer(stream, &key, LONGEST).await?;
            let said = time::timeout(SILENCE, reader.receive()).await;
            let hello = decode(&said.map_err(|_elapsed| SyncError::Silent)??)?;
            let heard = Instant::now();
            let session = Session {
                writer,
                reader,
                heard,
            };
            Ok((session, hello))
        });
    }

    /// Says how far this node is, or why it is of no use to the caller.
    async fn greet(
        &mut self,
        mut caller: Session,
        hello: Hello,
    ) -> Result<Option<Session>, SyncError> {
        if let Some(refusal) = hello.refusal(&self.hello) {
            caller
                .writer
                .send(&encode(&Greeting::Refused(refusal))?)
                .await?;
            return Err(SyncError::Refused(refusal));
        }
        let welcome = Greeting::Welcome(self.receiver.standing());
        caller.writer.send(&encode(&welcome)?).await?;
        let progress = &self.ends.progress;
        progress.send_modify(|progress| progress.status.error = None);
        Ok(Some(caller))
    }

    /// Takes in a message and says so.
    async fn take_in(
        &mut self,
        message: Message<Name, Record>,
        session: &mut Session,
    ) -> Result<(), SyncError> {
        self.snapshots += u64::from(matches!(message, Message::Begin { .. }));
        let step = self.receiver.handle(message)?;
        self.carry_out(step).await?;
        if let Some(standing) = self.receiver.standing() {
            let ack = Answer::Ack(standing.applied);
            session.writer.send(&encode(&ack)?).await?;
        }
        Ok(())
    }

    /// The flow tables are written on another thread: a snapshot's end may take seconds.
    async fn carry_out(&mut self, step: Step<Name, Record>) -> Result<(), SyncError> {
        if step == Step::Nothing {
            return Ok(());
        }
        let mut records = self.records.take().ok_or(SyncError::Stopping)?;
        let work = spawn_blocking(move || {
            let outcome = match step {
                Step::Apply(sent, items) => records.apply(items, (sent, datapath::now())),
                Step::Retain(named) => records.retain(&named).map(|()| Vec::new()),
                Step::Nothing => Ok(Vec::new()),
            };
            (records, outcome)
        });
        let (records, outcome) = work.await.map_err(|_panic| SyncError::Stopping)?;
        self.counts.clone_from(&records.counts);
        self.records = Some(records);
        let told = outcome.inspect_err(|_error| self.receiver.forget())?;
        for told in told {
            let sent = self.ends.told.send(told).await;
            sent.map_err(|_closed| SyncError::Stopping)?;
        }
        Ok(())
    }

    async fn handle_beat(&mut self, session: &mut Option<Session>) -> Result<(), SyncError> {
        if self.ends.sights.has_changed().unwrap_or_default() {
            self.reconsider(session);
        }
        let Some(session) = session else {
            return Ok(());
        };
        if session.heard.elapsed() > SILENCE {
            return Err(SyncError::Silent);
        }
        session.writer.send(&encode(&Answer::Beat)?).await?;
        Ok(())
    }

    /// Goes by what is in force now. If more is taken in by that, the peer has to tell of it again:
    /// what was refused was not, as far as it knows.
    fn reconsider(&mut self, session: &mut Option<Session>) {
        let is_reassigned = self.is_reassigned();
        if self.rename() || is_reassigned {
            self.receiver.forget();
            *session = None;
        }
    }

    /// Whether this node stands by for other VIPs than it did.
    fn is_reassigned(&self) -> bool {
        let standby = self.ends.standby();
        let mut records = self.records.iter();
        records.any(|records| *records.names.standby() != standby)
    }

    /// Takes what is in force now for names; says whether there are more than there were before.
    fn rename(&mut self) -> bool {
        let image = Arc::clone(&self.ends.sights.borrow_and_update().image);
        let names = Names::new(&image, self.ends.standby());
        let Some(records) = &mut self.records else {
            return false;
        };
        let has_more = names.has_more_than(&records.names);
        records.names = Arc::new(names);
        has_more
    }

    fn count_rejected(&self, label: &'static str) {
        self.ends.progress.send_modify(|progress| {
            let rejected = &mut progress.status.rejected;
            *rejected.entry(label.to_owned()).or_default() += 1;
        });
    }

    fn reject(&self, error: &SyncError) {
        self.count_rejected(error.label());
        let peer = self.config.peer().ip();
        let mut event = None;
        self.ends.progress.send_modify(|progress| {
            let place = &mut progress.status.error;
            event = note_error(place, Direction::Receiving, peer, error);
        });
        event
            .into_iter()
            .for_each(|event| self.ends.journal.tell(event));
    }

    /// Says how things are.
    fn tell(&self, is_connected: bool) {
        let is_in_sync = is_connected && self.receiver.is_whole();
        let mut is_news = false;
        self.ends.progress.send_modify(|progress| {
            let Progress { status, since } = progress;
            if !is_in_sync {
                *since = None;
            } else if since.is_none() {
                is_news = true;
                *since = Some(Instant::now());
            }
            status.connected = is_connected;
            status.taken = self.counts.taken;
            status.removed = self.counts.removed;
            status.snapshots = self.snapshots;
            let refused = self.counts.refused.iter();
            status.refused = refused
                .map(|(why, count)| (why.to_string(), *count))
                .collect();
        });
        if is_news {
            self.ends.journal.tell(event::Event::SyncUp {
                direction: Direction::Receiving,
                peer: self.config.peer().ip(),
                records: self.counts.taken,
            });
        }
    }
}

/// Who calls next. Errors, such as too many open files, stay for a while.
async fn accept(listener: &TcpListener) -> std::io::Result<(TcpStream, SocketAddr)> {
    let called = listener.accept().await;
    if called.is_err() {
        time::sleep(RETRY).await;
    }
    called
}

/// What the peer says next; never anything if it is not there.
async fn hear(session: &mut Option<Session>) -> Result<Vec<u8>, SyncError> {
    match session {
        Some(session) => Ok(session.reader.receive().await?),
        None => std::future::pending().await,
    }
}
