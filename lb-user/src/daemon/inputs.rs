//! All that can happen to the event loop.

use std::io;

use anyhow::anyhow;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
};

use super::{Tasks, engine::Told, neighbours::Found, prober::Answer};
use crate::{
    control::{Request, Requests},
    core::settle::Findings,
};

/// All that the loop waits for.
pub(super) struct Inputs {
    pub(super) requests: Requests,
    pub(super) answers: mpsc::Receiver<Answer>,
    pub(super) found: mpsc::Receiver<Found>,
    pub(super) findings: mpsc::Receiver<Findings>,
    /// What the peer says; nothing without one.
    pub(super) told: mpsc::Receiver<Told>,
    /// That something that routers depend on is judged differently.
    pub(super) tracked: mpsc::Receiver<()>,
    pub(super) signals: Signals,
    pub(super) tasks: Tasks,
    /// Why a thread of the virtual routers ended.
    pub(super) ended: mpsc::Receiver<anyhow::Error>,
}

/// The signals that mean something.
pub(super) struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

/// What happened.
pub(super) enum Event {
    Request(Request),
    Answer(Answer),
    Found(Found),
    /// The flow tables were looked through.
    Swept(Box<Findings>),
    /// The peer has said something.
    Told(Told),
    /// Something that routers depend on is judged differently.
    Tracked,
    Hangup,
    Stop,
    /// A task or thread ended that must not.
    Ended(anyhow::Error),
}

impl Signals {
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }
}

impl Inputs {
    /// Waits for what happens next. May be cancelled, as every arm may: channels, signals and task
    /// sets lose nothing. Nothing is handled in here, where handling could be cancelled half way.
    pub(super) async fn next(&mut self) -> Event {
        tokio::select! {
            _ = self.signals.terminate.recv() => Event::Stop,
            _ = self.signals.interrupt.recv() => Event::Stop,
            _ = self.signals.hangup.recv() => Event::Hangup,
            Some(request) = self.requests.receiver.recv() => Event::Request(request),
            Some(answer) = self.answers.recv() => Event::Answer(answer),
            Some(found) = self.found.recv() => Event::Found(found),
            Some(findings) = self.findings.recv() => Event::Swept(Box::new(findings)),
            Some(told) = self.told.recv() => Event::Told(told),
            Some(()) = self.tracked.recv() => Event::Tracked,
            Some(ended) = self.ended.recv() => Event::Ended(ended),
            Some(ended) = self.tasks.join_next() => Event::Ended(match ended {
                Ok((name, Ok(()))) => anyhow!("task {name} ended"),
                Ok((name, Err(error))) => error.context(format!("task {name} failed")),
                Err(error) => anyhow!(error).context("a task failed"),
            }),
        }
    }
}
