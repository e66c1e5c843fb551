//! Tells people and programs of events, as configured: each `[[notify]]` has a task.
//!
//! ```text
//!   journal --records--> Worker: Outbox --Delivery--> program, web hook, e-mail
//! ```
//! A worker reads the journal at its own pace, so nobody who tells waits for it; what the journal has
//! forgotten by then counts as held back. What is chosen and how often is [`Outbox`]'s to say; here are
//! the clock, the attempts and their outcomes. Each attempt ends at its `timeout`, so whatever waits for
//! one has its turn. Failures are events too, which nobody is notified of.

mod message;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{
    sync::{oneshot, watch},
    task::{self, JoinError, JoinHandle, JoinSet},
    time::{self, Instant},
};

use self::message::Message;
use crate::{
    config::model::{Config, Means, Notify},
    control::{NotifierStatus, NotifyTest, UnknownNotifier},
    core::{
        event::{
            Event,
            ring::{Filter, Record},
        },
        notify::{Delivery, Outbox, changed_router},
    },
    io::notify::{email, exec, webhook},
    journal::Journal,
};

/// How soon something is tried again at first; each time twice as late.
const RETRY: Duration = Duration::from_secs(1);

/// How late at most.
const LONGEST_RETRY: Duration = Duration::from_secs(60);

/// For what a stop has to tell to be told.
const FAREWELL: Duration = Duration::from_secs(5);

/// For a test: whoever asked waits for ten seconds.
const TEST: Duration = Duration::from_secs(8);

/// All who are told. See the module.
pub(super) struct Notifiers {
    journal: Journal,
    all: Vec<Notifier>,
    /// Those that were taken out of the file, and tell what they know.
    leaving: JoinSet<()>,
}

struct Notifier {
    config: Notify,
    status: watch::Receiver<NotifierStatus>,
    end: watch::Sender<Option<u64>>,
    task: JoinHandle<()>,
}

impl Notifiers {
    /// Nobody so far.
    pub(super) fn new(journal: Journal) -> Self {
        Self {
            journal,
            all: Vec::new(),
            leaving: JoinSet::new(),
        }
    }

    /// Has those be told whom `config` names. Who stays as they were is not disturbed, and who goes is
    /// told what has happened by now.
    pub(super) fn follow(&mut self, config: &Config) {
        let mut before: BTreeMap<String, Notifier> = std::mem::take(&mut self.all)
            .into_iter()
            .map(|it| (it.config.name().to_owned(), it))
            .collect();
        for config in config.notifies() {
            let notifier = match before.remove(config.name()) {
                Some(same) if same.config == *config => same,
                Some(other) => self.replace(other, config),
                None => self.start(config).0,
            };
            self.all.push(notifier);
        }
        let end = self.journal.last();
        for (_, gone) in before {
            self.dismiss(gone, end);
        }
        while self.leaving.try_join_next().is_some() {}
    }

    /// Has what happens from now on be told as `config` says, and what has happened by now as before.
    fn replace(&mut self, notifier: Notifier, config: &Notify) -> Notifier {
        let (successor, begins_behind) = self.start(config);
        self.dismiss(notifier, begins_behind);
        successor
    }

    /// One who tells what happens from now on, and the number of the last event before that.
    fn start(&self, config: &Notify) -> (Notifier, u64) {
        let status = NotifierStatus {
            name: config.name().to_owned(),
            means: config.means().label().to_owned(),
            ..NotifierStatus::default()
        };
        let (end, told) = watch::channel(None);
        let worker = Worker::new(config, &self.journal, status, told);
        let begins_behind = worker.seen;
        let notifier = Notifier {
            config: config.clone(),
            status: worker.status.subscribe(),
            end,
            task: tokio::spawn(worker.run()),
        };
        (notifier, begins_behind)
    }

    /// Has one end when it has told of the event of that number, and of those before it.
    fn dismiss(&mut self, notifier: Notifier, end: u64) {
        notifier.end.send_replace(Some(end));
        let abort = Abort(notifier.task);
        self.leaving.spawn(async move {
            abort.finish().await;
        });
    }

    /// How they are, in the order of the file.
    pub(super) fn status(&self) -> Vec<NotifierStatus> {
        let all = self.all.iter();
        all.map(|it| it.status.borrow().clone()).collect()
    }

    /// Tells one, or all, that this is a test, and answers what came of it.
    pub(super) fn test(
        &self,
        name: Option<&str>,
        answer: oneshot::Sender<Result<Vec<NotifyTest>, UnknownNotifier>>,
    ) {
        let chosen = self.all.iter().map(|it| it.config.clone());
        let chosen: Vec<_> = chosen
            .filter(|it| name.is_none_or(|name| it.name() == name))
            .collect();
        if let Some(name) = name
            && chosen.is_empty()
        {
            let name = name.to_owned();
            return drop(answer.send(Err(UnknownNotifier { name })));
        }
        tokio::spawn(async move {
            let mut tests = JoinSet::new();
            for (at, config) in chosen.into_iter().enumerate() {
                tests.spawn(async move { (at, test(&config).await) });
            }
            let mut done = tests.join_all().await;
            done.sort_by_key(|(at, _)| *at);
            let done = done.into_iter().map(|(_, test)| test);
            // Who has asked may have gone.
            drop(answer.send(Ok(done.collect())));
        });
    }

    /// Tells what there is to tell, for a few seconds at most.
    pub(super) async fn stop(mut self) {
        for notifier in std::mem::take(&mut self.all) {
            // What is told while they end is told by nobody else.
            self.dismiss(notifier, u64::MAX);
        }
        let all = async { while self.leaving.join_next().await.is_some() {} };
        if time::timeout(FAREWELL, all).await.is_err() {
            tracing::warn!("not all that happened could be told in time");
        }
    }
}

/// A task that ends with who waits for it.
struct Abort(JoinHandle<()>);

impl Abort {
    async fn finish(mut self) {
        drop((&mut self.0).await);
    }
}

impl Drop for Abort {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Who tells one.
struct Worker {
    config: Arc<Notify>,
    journal: Journal,
    /// The number of the last event that was taken in.
    seen: u64,
    /// How many there were by then but noise.
    seen_changes: u64,
    outbox: Outbox,
    status: watch::Sender<NotifierStatus>,
    /// The number of the last event that is to be told, once there is one.
    end: watch::Receiver<Option<u64>>,
    started: Instant,
    flights: JoinSet<Result<(), String>>,
    /// Which of them tell of which router's change of role.
    routers: HashMap<task::Id, String>,
}

impl Worker {
    /// One who tells what happens from now on.
    fn new(
        config: &Notify,
        journal: &Journal,
        status: NotifierStatus,
        end: watch::Receiver<Option<u64>>,
    ) -> Self {
        let start = journal.since(u64::MAX, &Filter::default());
        Self {
            outbox: Outbox::new(config.filter().clone(), config.per_minute()),
            config: Arc::new(config.clone()),
            seen: start.last,
            seen_changes: start.changes,
            journal: journal.clone(),
            status: watch::Sender::new(status),
            end,
            started: Instant::now(),
            flights: JoinSet::new(),
            routers: HashMap::new(),
        }
    }

    async fn run(mut self) {
        let (mut news, mut ended) = (self.journal.news(), self.end.clone());
        let mut has_all = false;
        loop {
            // In this order: what is told before the end is in the journal.
            let end = *self.end.borrow();
            let is_last = end.is_some();
            // What comes after that is for a successor to tell.
            if !has_all {
                self.take_in(end.unwrap_or(u64::MAX));
            }
            has_all = is_last;
            self.depart(is_last);
            self.show();
            if is_last && self.flights.is_empty() {
                return;
            }
            let departure = self.next_departure();
            let seen = self.seen;
            // Each may be cancelled: levels, sets of tasks and clocks lose nothing.
            tokio::select! {
                Some(landed) = self.flights.join_next_with_id() => self.handle_landed(landed),
                // A journal is never without a teller here: this one has a handle of it.
                Ok(_) = news.wait_for(|news| news.last > seen), if !is_last => {}
                () = sleep_until(departure) => {}
                // Who would say so is there as long as this task is.
                Ok(_) = ended.wait_for(Option::is_some), if !is_last => {}
            }
        }
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// When there may be something to send although nothing came in. With enough under way it has to
    /// wait for one of these to end, however long ago it was due.
    fn next_departure(&self) -> Option<Instant> {
        let has_room = self.flights.len() < self.config.at_once();
        let due = self.outbox.next_deadline().filter(|_| has_room);
        due.map(|at| self.started + at)
    }

    /// Takes in what there is up to the event of that number.
    fn take_in(&mut self, end: u64) {
        let page = self.journal.since(self.seen, &Filter::default());
        let now = self.now();
        let found = page.records.iter();
        let found = found
            .filter(|record| !record.event.kind().is_noise())
            .count() as u64;
        // What strangers can cause is nothing to miss.
        let missed = (page.changes - self.seen_changes).saturating_sub(found);
        self.outbox.handle_missed(missed);
        for record in page.records.iter().filter(|record| record.seq <= end) {
            self.outbox.handle(record, now);
        }
        (self.seen, self.seen_changes) = (page.last, page.changes);
    }

    /// Sends what may be sent by now.
    fn depart(&mut self, is_last: bool) {
        while self.flights.len() < self.config.at_once() {
            let next = if is_last {
                self.outbox.poll_last()
            } else {
                self.outbox.poll(self.now())
            };
            let Some(delivery) = next else {
                return;
            };
            if let Delivery::HeldBack(count) = delivery {
                self.status.send_modify(|status| status.held_back += count);
            }
            let config = Arc::clone(&self.config);
            let message = Message::of(&delivery);
            let deliver = async move { deliver(&config, &message).await };
            let flight = self.flights.spawn(deliver).id();
            if let Delivery::Event(record) = &delivery
                && let Some(router) = changed_router(record)
            {
                self.routers.insert(flight, router.to_owned());
            }
        }
    }

    fn handle_landed(&mut self, landed: Result<(task::Id, Result<(), String>), JoinError>) {
        let (flight, outcome) = landed.unwrap_or_else(|panic| {
            let broken = "the attempt was broken off".to_owned();
            (panic.id(), Err(broken))
        });
        if let Some(router) = self.routers.remove(&flight) {
            self.outbox.handle_done(&router);
        }
        self.note(outcome);
    }

    fn note(&self, outcome: Result<(), String>) {
        let failure = outcome.err();
        self.status.send_modify(|status| {
            let count = match failure {
                Some(_) => &mut status.failed,
                None => &mut status.sent,
            };
            *count += 1;
            status.last_error.clone_from(&failure);
        });
        if let Some(error) = failure {
            let notifier = self.config.name().to_owned();
            self.journal.tell(Event::NotifyFailed { notifier, error });
        }
    }

    fn show(&self) {
        let (waiting, running) = (self.outbox.waiting() as u64, self.flights.len() as u64);
        self.status.send_modify(|status| {
            status.waiting = waiting;
            status.running = running;
        });
    }
}

/// Tells, and tries again what may go better another time.
async fn deliver(config: &Notify, message: &Message) -> Result<(), String> {
    let mut pause = RETRY;
    let mut left = config.retries();
    loop {
        let Err(failure) = attempt(config, message, config.timeout()).await else {
            return Ok(());
        };
        if !failure.is_transient || left == 0 {
            return Err(failure.reason);
        }
        left -= 1;
        time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_RETRY);
    }
}

/// Why an attempt was in vain.
struct Failure {
    reason: String,
    is_transient: bool,
}

async fn attempt(config: &Notify, message: &Message, limit: Duration) -> Result<(), Failure> {
    match config.means() {
        Means::Exec(program) => {
            let mut command = program.command().to_vec();
            if program.keepalived_arguments() {
                // Such programs know of nothing that could be held back.
                if matches!(message, Message::HeldBack(_)) {
                    return Ok(());
                }
                command.extend(message.keepalived_arguments());
            }
            let input = message.json() + "\n";
            let environment = message.environment();
            let run = exec::run(&command, &environment, input.as_bytes(), limit);
            run.await.map_err(|error| Failure {
                reason: error.to_string(),
                // It may have done a part of what it does.
                is_transient: false,
            })
        }
        Means::Webhook(hook) => {
            let posted = webhook::post(hook, message.json(), limit).await;
            posted.map_err(|error| Failure {
                is_transient: error.is_transient(),
                reason: error.to_string(),
            })
        }
        Means::Email(mail) => {
            let sent = email::send(mail, &message.subject(), message.body(), limit).await;
            sent.map_err(|error| Failure {
                is_transient: error.is_transient(),
                reason: error.to_string(),
            })
        }
    }
}

async fn test(config: &Notify) -> NotifyTest {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let millis = since.unwrap_or_default().as_millis();
    let record = Record {
        seq: 0,
        unix_millis: u64::try_from(millis).unwrap_or_default(),
        event: Event::NotifyTest {
            notifier: config.name().to_owned(),
        },
    };
    let message = Message::of(&Delivery::Event(Arc::new(record)));
    let outcome = attempt(config, &message, config.timeout().min(TEST)).await;
    NotifyTest {
        name: config.name().to_owned(),
        error: outcome.err().map(|failure| failure.reason),
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
