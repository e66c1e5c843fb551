//! The seam between those who ask (API, metrics) and the daemon's event loop.
//!
//! A [`Handle`] sends [`Request`]s, each with a way back for its answer. [`Status`] is all that the
//! outside can know, taken at one moment; its serialized form is the API's and a promise to scripts:
//! fields are added, not renamed.

mod events;
#[cfg(test)]
pub(crate) mod example;
mod insight;
mod notify;
mod status;
mod sync;
mod trace;
mod vrrp;

use std::fmt;

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    config::{
        ConfigErrors,
        model::{NoRoomToLeave, ReloadBlockers},
    },
    core::balancer::{Admin, BackendKey, SelectError},
    journal::Journal,
};

pub use events::{EventRecord, EventsPage};
pub use insight::{DrainStatus, MqttStatus, Sessions, SlotsStatus};
pub use notify::{NotifierStatus, NotifyTest, UnknownNotifier};
pub use status::{
    BackendStatus, ConfigStatus, Counters, Flows, GuardStatus, Health, InterfaceStatus,
    ProbeStatus, ServiceState, ServiceStatus, Status, TrafficStatus, VipState, VipStatus,
};
pub use sync::{FlowLag, ReceivingStatus, SendingStatus, SyncStatus};
pub use trace::{
    FlowTrace, PathTrace, ServiceTrace, StepTrace, ThenTrace, Trace, TraceError, TraceOrder, WhatIf,
};

pub use vrrp::{
    AdvertsStatus, PeerStatus, RoleChange, RouterChange, RouterChangeError, RouterOrder,
    RouterStatus, TrackStatus, VrrpStatus,
};

/// Requests that may wait: more askers than this at once wait at the door.
const DEPTH: usize = 16;

/// Asks the daemon.
#[derive(Clone, Debug)]
pub struct Handle {
    requests: mpsc::Sender<Request>,
    ready: watch::Receiver<bool>,
    journal: Journal,
}

/// The daemon's end.
#[derive(Debug)]
pub struct Requests {
    pub receiver: mpsc::Receiver<Request>,
    /// Whether packets are being balanced.
    pub ready: watch::Sender<bool>,
}

/// One question or order, with the way back.
#[derive(Debug)]
pub enum Request {
    Status(oneshot::Sender<Status>),
    Reload(oneshot::Sender<Result<Reloaded, ReloadError>>),
    Change(Order, oneshot::Sender<Result<BackendStatus, ChangeError>>),
    Trace(TraceOrder, oneshot::Sender<Result<Trace, TraceError>>),
    Router(
        RouterOrder,
        oneshot::Sender<Result<VrrpStatus, RouterChangeError>>,
    ),
    /// Tries a notification, or all of them.
    Notify(
        Option<String>,
        oneshot::Sender<Result<Vec<NotifyTest>, UnknownNotifier>>,
    ),
    Stop(Departure, oneshot::Sender<Leaving>),
}

/// What becomes of traffic when the daemon stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Departure {
    /// The program goes on by the tables as they are, if it is pinned.
    Keep,
    /// The program is taken off, after the addresses.
    Detach,
}

/// The daemon's word that it is about to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaving {
    /// The process that ends.
    pub pid: u32,
    /// Whether the program goes on without it.
    pub forwards: bool,
}

/// What an operator wants of a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// `SERVICE/BACKEND`, or `BACKEND` if only one service has it.
    pub backend: String,
    pub change: Change,
    pub lasting: Lasting,
}

/// A change to a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Admin(Admin),
    Weight(u16),
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Admin(admin) => admin.fmt(f),
            Self::Weight(weight) => write!(f, "weight {weight}"),
        }
    }
}

/// Whether a change survives a restart of the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lasting {
    Kept,
    Temporary,
}

/// A reload that was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reloaded {
    /// How many configurations this process has used.
    pub generation: u64,
}

/// Why a reload changed nothing, or not yet all that it should.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    #[error("{0}")]
    Config(#[source] ConfigErrors),
    #[error("{0}")]
    NeedsRestart(#[source] ReloadBlockers),
    #[error("{0}")]
    NoRoom(#[source] NoRoomToLeave),
    #[error("{0}")]
    Ports(#[source] crate::io::host::PortsOverlap),
    #[error("the addresses of virtual routers that go cannot be removed")]
    Routers,
    #[error("the addresses of the old configuration cannot be removed: {0}")]
    Addresses(#[source] crate::io::netlink::NetlinkError),
    #[error(
        "the configuration was taken, but the maps could not be changed, will be tried again: {0:#}"
    )]
    Maps(#[source] anyhow::Error),
    #[error(
        "the configuration is in force, but a VIP cannot be assigned, will be tried again: {0}"
    )]
    Vips(#[source] crate::io::netlink::NetlinkError),
}

/// Why a backend was not changed, or not wholly.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    #[error(transparent)]
    Select(#[from] SelectError),
    #[error("weight {weight} is out of range: 0 to {max}")]
    Weight { weight: u16, max: u16 },
    #[error("{backend} is not in the configuration any more and only keeps its sessions")]
    Leaving { backend: BackendKey },
    #[error("the change is in force but could not be kept for the next start: {0}")]
    NotKept(#[source] std::io::Error),
    #[error("the change was taken, but the maps could not be changed, will be tried again: {0:#}")]
    Maps(#[source] anyhow::Error),
}

/// The daemon is on its way out and answers no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the daemon is stopping")]
pub struct Stopping;

/// Makes the two ends; events are read without asking anybody.
#[must_use]
pub fn channel(journal: Journal) -> (Handle, Requests) {
    let (sender, receiver) = mpsc::channel(DEPTH);
    let (ready, is_ready) = watch::channel(false);
    let handle = Handle {
        requests: sender,
        ready: is_ready,
        journal,
    };
    (handle, Requests { receiver, ready })
}

impl Handle {
    /// Asks how things are.
    ///
    /// # Errors
    ///
    /// If the daemon is stopping.
    pub async fn status(&self) -> Result<Status, Stopping> {
        self.ask(Request::Status).await
    }

    /// Has the configuration file read again.
    ///
    /// # Errors
    ///
    /// If the daemon is stopping; inside, why nothing was changed, or not all.
    pub async fn reload(&self) -> Result<Result<Reloaded, ReloadError>, Stopping> {
        self.ask(Request::Reload).await
    }

    /// Has a backend changed.
    ///
    /// # Errors
    ///
    /// If the daemon is stopping; inside, what was wrong with the order.
    pub async fn change(
        &self,
        order: Order,
    ) -> Result<Result<BackendStatus, ChangeError>, Stopping> {
        self.ask(|answer| Request::Change(order, answer)).await
    }

    /// What becomes of a client's packets.
    ///
    /// # Errors
    ///
    /// If the daemon is stopping; inside, what was wrong with the order.
    pub async fn trace(&self, order: TraceOrder) -> Result<Result<Trace, TraceError>, Stopping> {
        self.ask(|answer| Request::Trace(order, answer)).await
    }

    /// Has a virtual router release its role, or end that.
    ///
    /// # Errors
    ///
    /// If the daemon is stopping; inside, what was wrong with the order.
    pub async fn router(
        &self,
        order: RouterOrder,
    ) -> Result<Result<VrrpStatus, RouterChangeError>, Stopping> {
        self.ask(|answer| Request::Router(order, answer)).await
    }

    /// Has the notification of that name tried, or all.
    ///
    /// # Errors
    ///
    /// If the daemon is stopping; inside, if there is none of that name.
    pub async fn test_notification(
        &self,
        name: Option<String>,
    ) -> Result<Result<Vec<NotifyTest>, UnknownNotifier>, Stopping> {
        self.ask(|answer| Request::Notify(name, answer)).await
    }

    /// Has the daemon stop.
    ///
    /// # Errors
    ///
    /// If it does already.
    pub async fn stop(&self, departure: Departure) -> Result<Leaving, Stopping> {
        self.ask(|answer| Request::Stop(departure, answer)).await
    }

    /// Where events are.
    #[must_use]
    pub const fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Whether packets are being balanced.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        *self.ready.borrow()
    }

    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<T>) -> Request,
    ) -> Result<T, Stopping> {
        let (answer, answered) = oneshot::channel();
        let sent = self.requests.send(request(answer)).await;
        sent.map_err(|_closed| Stopping)?;
        answered.await.map_err(|_dropped| Stopping)
    }
}
