//! The life of one client: connect, do its task, come back if it was lost and may.

use std::{
    io,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::time::sleep_until;

use super::{
    link::{Link, LinkError},
    live::Lost,
    plan::{Identity, Task},
    publisher::Publisher,
    session::{Role, Session, share},
    subscriber::Subscriber,
    swarm::Swarm,
};

/// Waits before a client tries again: the first, doubled up to the last.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_LAST: Duration = Duration::from_secs(5);
/// A deadline for when there is none.
const FAR: Duration = Duration::from_secs(86_400 * 365);

pub(super) struct Client {
    swarm: Arc<Swarm>,
    identity: Identity,
    role: Role,
    /// When the last connection was lost; `None` before the first was up.
    history: History,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum History {
    New,
    Failed,
    WasUp { lost: Instant },
    Moving,
}

enum End {
    Stopped,
    Moved,
    Failed(LinkError),
    Lost(LinkError),
}

impl Client {
    pub(super) fn new(swarm: Arc<Swarm>, number: u32) -> Self {
        let plan = &swarm.plan;
        let identity = plan.identity(number);
        let tally = Arc::clone(&swarm.tally);
        let role = match &plan.task {
            Task::Hold => Role::Hold,
            Task::Publish(task) => {
                let tickets = Arc::clone(&swarm.tickets);
                Role::Publish(Publisher::new(plan, task, &identity, tally, tickets))
            }
            Task::Subscribe(task) => {
                Role::Subscribe(Subscriber::new(plan, task, &identity, tally, &swarm.group))
            }
        };
        Self {
            swarm,
            identity,
            role,
            history: History::New,
        }
    }

    /// Lives until the run ends or the connection does.
    pub(super) async fn live(mut self) {
        let swarm = Arc::clone(&self.swarm);
        let mut backoff = BACKOFF_FIRST;
        loop {
            match self.connection().await {
                End::Stopped => break,
                End::Moved => {
                    self.history = History::Moving;
                    backoff = BACKOFF_FIRST;
                    continue;
                }
                End::Failed(error) => {
                    swarm.tally.error(describe(&error));
                    if self.history == History::New {
                        self.history = History::Failed;
                        swarm.tally.failed.add(1);
                    }
                }
                End::Lost(error) => {
                    swarm.tally.error(describe(&error));
                    swarm.tally.lost.add(1);
                    self.history = History::WasUp {
                        lost: Instant::now(),
                    };
                    backoff = BACKOFF_FIRST;
                }
            }
            if !swarm.plan.common.reconnect {
                break;
            }
            let wait = backoff.mul_f64(0.5 + share(self.identity.number));
            backoff = (backoff * 2).min(BACKOFF_LAST);
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = swarm.stop.cancelled() => break,
            }
        }
        match &mut self.role {
            Role::Publish(publisher) => publisher.abandon(),
            Role::Subscribe(subscriber) => subscriber.tell_missing(),
            Role::Hold => {}
        }
    }

    /// One connection from its first packet to its end.
    async fn connection(&mut self) -> End {
        let swarm = Arc::clone(&self.swarm);
        let turn = tokio::select! {
            biased;
            () = swarm.stop.cancelled() => return End::Stopped,
            turn = swarm.connecting.acquire() => turn.ok(),
        };
        let opened = Instant::now();
        swarm.tally.connecting.touch(opened);
        let routes = swarm.plan.routes(self.identity.number);
        let host = swarm.plan.host(self.identity.number);
        let open = Link::open(&swarm.plan.transport, host, routes);
        let open = tokio::time::timeout(swarm.plan.common.timeout, open);
        let mut link = tokio::select! {
            biased;
            link = open => match link {
                Ok(Ok(link)) => link,
                Ok(Err(error)) => return End::Failed(error),
                Err(_) => return End::Failed(io::Error::from(io::ErrorKind::TimedOut).into()),
            },
            () = swarm.stop.cancelled() => return End::Stopped,
        };
        let session = Session::open(
            &swarm.plan,
            &self.identity,
            &mut self.role,
            &swarm.tally,
            &mut link.out,
            opened,
        );
        let mut driver = Driver {
            swarm: &swarm,
            number: self.identity.number,
            history: self.history,
            link,
            session,
            turn,
            is_moving: false,
            heard: opened,
        };
        let result = driver.drive().await;
        let was_up = driver.session.is_up();
        if was_up {
            swarm.tally.up.subtract(1);
        }
        match result {
            Ok(()) => {
                let is_moving = driver.is_moving && !swarm.stop.is_cancelled();
                driver.link.close().await;
                if is_moving { End::Moved } else { End::Stopped }
            }
            Err(_) if swarm.stop.is_cancelled() => End::Stopped,
            Err(error) if was_up => {
                driver.tell(&error);
                End::Lost(error)
            }
            Err(error) => End::Failed(error),
        }
    }
}

/// A link and a session that run together.
struct Driver<'a> {
    swarm: &'a Swarm,
    number: u32,
    history: History,
    link: Link,
    session: Session<'a>,
    /// Held while connecting, so that not all clients connect at the same moment.
    turn: Option<tokio::sync::SemaphorePermit<'a>>,
    /// Told to connect anew.
    is_moving: bool,
    /// When the server said something last.
    heard: Instant,
}

impl Driver<'_> {
    /// Runs until the orderly end, or an error.
    async fn drive(&mut self) -> Result<(), LinkError> {
        let mut stop = pin!(self.swarm.stop.cancelled());
        let mut go = pin!(self.swarm.go.cancelled());
        let mut timer = pin!(sleep_until((Instant::now() + FAR).into()));
        let (mut stopping, mut going) = (false, false);
        let mut armed = None;
        loop {
            let now = Instant::now();
            self.session.poll(&mut self.link.out, now)?;
            self.link.flush()?;
            if self.link.is_flushed() {
                self.session.handle_flushed(now);
            }
            if self.session.may_close(now) && (self.link.is_flushed() || !self.session.is_up()) {
                return Ok(());
            }
            if let Some(deadline) = self.session.deadline()
                // A timer that fires too early costs less than setting it anew each time.
                && armed.is_none_or(|armed| deadline < armed)
            {
                timer.as_mut().reset(deadline.into());
                armed = Some(deadline);
            }
            tokio::select! {
                biased;
                () = &mut stop, if !stopping => {
                    stopping = true;
                    self.session.stop(Instant::now());
                }
                () = self.swarm.moves.rung(self.number), if !stopping && self.session.is_up() => {
                    stopping = true;
                    self.is_moving = true;
                    self.session.stop(Instant::now());
                }
                ready = self.link.ready(self.session.is_eager()) => {
                    if ready?.is_readable() {
                        self.receive()?;
                    }
                }
                () = &mut timer, if armed.is_some() => armed = None,
                () = &mut go, if !going => {
                    going = true;
                    self.session.start_publishing(self.first_message());
                }
            }
        }
    }

    fn receive(&mut self) -> Result<(), LinkError> {
        let now = Instant::now();
        let was_up = self.session.is_up();
        let session = &mut self.session;
        let version = session.version();
        let result = self
            .link
            .receive(version, |packet, out| session.handle(packet, out, now));
        if result.is_ok() {
            self.heard = now;
        }
        if !was_up && self.session.is_up() {
            self.come_up(now);
        }
        result
    }

    fn come_up(&mut self, now: Instant) {
        let tally = &self.swarm.tally;
        self.turn = None;
        tally.up.add(1);
        match self.history {
            History::New => {
                tally.connected.add(1);
                tally.connecting.touch(now);
            }
            History::Failed => {
                // In this order nobody ever sees the client counted twice.
                tally.failed.subtract(1);
                tally.connected.add(1);
                tally.connecting.touch(now);
            }
            History::Moving => tally.moved.add(1),
            History::WasUp { lost } => {
                tally.reconnected.add(1);
                tally
                    .outage
                    .record(self.number, now.saturating_duration_since(lost));
            }
        }
    }

    /// Says how the connection was lost, if anybody wants to know of each.
    fn tell(&self, error: &LinkError) {
        if self.swarm.plan.common.events {
            let silent = self.heard.elapsed().as_millis();
            let lost = Lost {
                client: self.number,
                source: self.link.source(),
                silent_ms: u64::try_from(silent).unwrap_or(u64::MAX),
                reason: &describe(error),
            };
            lost.tell();
        }
    }

    /// Clients that all begin at once spread their messages over the interval.
    fn first_message(&self) -> Instant {
        let now = Instant::now();
        match &self.swarm.plan.task {
            Task::Publish(task) if task.wait_all => now + task.interval.mul_f64(share(self.number)),
            Task::Publish(_) | Task::Hold | Task::Subscribe(_) => now,
        }
    }
}

/// One short line per kind of error, whatever the client.
fn describe(error: &LinkError) -> String {
    match error {
        LinkError::Io(error) => match error.raw_os_error() {
            Some(libc::EADDRNOTAVAIL) => "no source port left".to_owned(),
            Some(libc::EMFILE | libc::ENFILE) => "too many open files".to_owned(),
            // What TLS or WebSocket has to say.
            _ => error
                .get_ref()
                .map_or_else(|| error.kind().to_string(), |inner| inner.to_string()),
        },
        LinkError::Upgrade(_)
        | LinkError::Closed
        | LinkError::PacketTooLong
        | LinkError::Session(_) => error.to_string(),
    }
}
