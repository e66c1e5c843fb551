//! All clients of a run: starts them at their pace, watches them, ends them.

use std::{
    io::{self, Write},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Context;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::Semaphore,
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    client::Client,
    codec::Qos,
    live::{Live, up_event},
    moves::Moves,
    plan::{Plan, Task},
    publisher::Tickets,
    subscriber::Sequences,
    tally::Tally,
};

/// How often the supervisor looks whether the run is up or done.
const LOOK: Duration = Duration::from_millis(20);

/// What all clients share.
pub(super) struct Swarm {
    pub(super) plan: Plan,
    pub(super) tally: Arc<Tally>,
    pub(super) tickets: Arc<Tickets>,
    pub(super) group: Arc<Mutex<Sequences>>,
    pub(super) connecting: Semaphore,
    pub(super) moves: Moves,
    /// Publishers may begin.
    pub(super) go: CancellationToken,
    /// Everybody ends.
    pub(super) stop: CancellationToken,
}

impl Swarm {
    pub(super) fn new(plan: Plan) -> Arc<Self> {
        let limit = match &plan.task {
            Task::Publish(task) => task.limit,
            Task::Hold | Task::Subscribe(_) => None,
        };
        Arc::new(Self {
            tally: Arc::new(Tally::new(Instant::now())),
            tickets: Arc::new(Tickets::new(limit)),
            group: Arc::default(),
            connecting: Semaphore::new(plan.common.connecting as usize),
            moves: if plan.moves {
                Moves::new(plan.common.startnumber, plan.common.count)
            } else {
                Moves::default()
            },
            go: CancellationToken::new(),
            stop: CancellationToken::new(),
            plan,
        })
    }

    /// Notes what is missing of what the members of a group were to have together.
    pub(super) fn tell_missing(&self) {
        let group = self.group.lock().unwrap_or_else(PoisonError::into_inner);
        self.tally.missing.note(None, &group);
    }

    /// Every client has come up or failed.
    fn is_settled(&self) -> bool {
        self.tally.settled() >= u64::from(self.plan.common.count)
    }

    /// The messages asked for are through, as far as they can be.
    fn is_complete(&self) -> bool {
        let tally = &self.tally;
        match &self.plan.task {
            Task::Hold => false,
            Task::Publish(task) => {
                let done = match task.qos {
                    Qos::Zero => tally.published.get(),
                    Qos::One | Qos::Two => tally.acked.get() + tally.refused.get(),
                };
                let done = done + tally.abandoned.get();
                task.limit.is_some_and(|limit| done >= limit)
            }
            Task::Subscribe(task) => {
                let limit = task.limit;
                let silence = tally.messages.silence(Instant::now());
                limit.is_some_and(|limit| tally.received.get() >= limit)
                    || task
                        .idle
                        .zip(silence)
                        .is_some_and(|(idle, silence)| silence >= idle)
            }
        }
    }
}

/// Runs until the work or the time is over, or a signal comes; then ends all clients.
///
/// Returns how many clients were up at the end.
pub(super) async fn run(swarm: &Arc<Swarm>) -> anyhow::Result<u64> {
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot catch SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot catch SIGTERM")?;
    if !matches!(&swarm.plan.task, Task::Publish(task) if task.wait_all) {
        swarm.go.cancel();
    }
    let mut clients = tokio::spawn(launch(Arc::clone(swarm)));
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut live = Live::new(swarm);
    let mut settled: Option<Instant> = None;
    let mut up = 0;
    loop {
        tokio::select! {
            ended = &mut clients => {
                ended.context("a client task failed")??;
                // Without a stop they all ended by themselves.
                return Ok(if swarm.stop.is_cancelled() { up } else { 0 });
            }
            _ = interrupt.recv() => swarm.stop.cancel(),
            _ = terminate.recv() => swarm.stop.cancel(),
            _ = look.tick() => {}
        }
        let now = Instant::now();
        if !swarm.stop.is_cancelled() {
            up = swarm.tally.up.get();
        }
        if settled.is_none() && swarm.is_settled() {
            settled = Some(now);
            announce(swarm)?;
            swarm.go.cancel();
        }
        let hold = settled.zip(swarm.plan.common.hold);
        let overdue = hold.is_some_and(|(since, hold)| now >= since + hold);
        if overdue || swarm.is_complete() {
            swarm.stop.cancel();
        }
        live.poll(now);
    }
}

/// Starts the clients one by one and waits for them all.
async fn launch(swarm: Arc<Swarm>) -> anyhow::Result<()> {
    let common = &swarm.plan.common;
    let start = Instant::now();
    let mut clients = JoinSet::new();
    for turn in 0..common.count {
        let due = start + common.pace() * turn;
        if due > Instant::now() {
            tokio::select! {
                () = sleep_until(due.into()) => {}
                () = swarm.stop.cancelled() => {}
            }
        } else if turn % 64 == 0 {
            tokio::task::yield_now().await;
        }
        if swarm.stop.is_cancelled() {
            break;
        }
        clients.spawn(Client::new(Arc::clone(&swarm), common.startnumber + turn).live());
    }
    while let Some(ended) = clients.join_next().await {
        ended?;
    }
    Ok(())
}

/// Tells scripts that every client is up.
fn announce(swarm: &Swarm) -> anyhow::Result<()> {
    let event = up_event(&swarm.tally);
    if swarm.plan.common.json {
        // A closed stderr must not end a run.
        drop(writeln!(io::stderr(), "{event}"));
    }
    if let Some(path) = &swarm.plan.common.ready_file {
        write_whole(path, &format!("{event}\n"))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// A reader sees the whole file or none.
fn write_whole(path: &Path, text: &str) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    std::fs::write(&beside, text)?;
    std::fs::rename(&beside, path)
}
