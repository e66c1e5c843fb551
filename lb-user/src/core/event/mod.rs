//! What happens that somebody may want to know: one type for the log, `tidegate events`, metrics and
//! notifications.
//!
//! An [`Event`] says what happened; [`Kind`] and [`Severity`] are what it is filtered by, its
//! serialized form has its own fields alone, and its words are for people. [`ring`] keeps the last
//! ones. When it happened, and who is told, is the journal's business (`crate::journal`).

pub mod ring;
mod severity;
mod words;

use std::fmt;
use std::net::IpAddr;

use serde::{Serialize, Serializer};

use super::health::HealthState;
use super::presence::Lack;
use super::vrrp::label::labelled;
use super::vrrp::node::{Fault, Handicap};
use super::vrrp::refusal::{Refusal, Remark};
use super::vrrp::role::{Cause, Role};
use super::vrrp::track::TrackState;

labelled! {
    /// What kind of event it is. The names are a promise to scripts.
    Kind {
        RoleChanged = "role_changed",
        RouterFaults = "router_faults",
        RouterPriority = "router_priority",
        RouterUnfit = "router_unfit",
        AdvertRefused = "advert_refused",
        AdvertOdd = "advert_odd",
        AdvertStray = "advert_stray",
        VrrpTrouble = "vrrp_trouble",
        VipMoved = "vip_moved",
        VipRefused = "vip_refused",
        VipWithdrawn = "vip_withdrawn",
        VipAnnounced = "vip_announced",
        BackendHealth = "backend_health",
        BackendOrdered = "backend_ordered",
        BackendEvacuating = "backend_evacuating",
        BackendWelcoming = "backend_welcoming",
        BackendDrained = "backend_drained",
        BackendLeft = "backend_left",
        BackendsSilent = "backends_silent",
        BackendsHeard = "backends_heard",
        ServiceDown = "service_down",
        ServiceUp = "service_up",
        FlowsFull = "flows_full",
        FlowsRoom = "flows_room",
        KeepAliveClaimed = "keep_alive_claimed",
        FloodBegan = "flood_began",
        FloodEnded = "flood_ended",
        MapsFailed = "maps_failed",
        MapsRestored = "maps_restored",
        Started = "started",
        Stopping = "stopping",
        Reloaded = "reloaded",
        ReloadFailed = "reload_failed",
        SyncUp = "sync_up",
        SyncDown = "sync_down",
        TrackChanged = "track_changed",
        NotifyFailed = "notify_failed",
        NotifyTest = "notify_test",
        Login = "login",
        LoginFailed = "login_failed",
        AccountsRefused = "accounts_refused",
        AccountsTaken = "accounts_taken",
    }
}

labelled! {
    /// How much it matters, from least to most.
    Severity {
        /// For the record.
        Info = "info",
        /// Nothing is wrong, but somebody should know.
        Notice = "notice",
        /// Something is wrong, and the service goes on.
        Warning = "warning",
        /// Something that was asked for was not done, or nobody is served.
        Error = "error",
    }
}

labelled! {
    /// What became of an address.
    Moved {
        Assigned = "assigned",
        /// Somebody else had put it there.
        Found = "found",
        /// Somebody else had removed it.
        Restored = "restored",
        Removed = "removed",
        /// Somebody else has put it there, who has to remove it.
        Left = "left",
    }
}

labelled! {
    /// Who tells whom over the channel to the peer.
    Direction {
        Sending = "sending",
        Receiving = "receiving",
    }
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Event {
    /// A virtual router has another role.
    RoleChanged {
        router: String,
        from: Role,
        to: Role,
        cause: Cause,
        /// Its own, in force.
        priority: u8,
    },
    /// What it lacks is not the same any more.
    RouterFaults {
        router: String,
        faults: Vec<Fault>,
    },
    /// Its priority was lowered, or is what is configured again.
    RouterPriority {
        router: String,
        priority: u8,
        lowered_by: Vec<Handicap>,
    },
    /// It cannot be set up with the address that it would speak from.
    RouterUnfit {
        router: String,
        error: String,
    },
    /// `unsaid`: how often it was not told of since it last was, here and below.
    AdvertRefused {
        router: String,
        peer: IpAddr,
        reason: Refusal,
        unsaid: u64,
    },
    AdvertOdd {
        router: String,
        peer: IpAddr,
        remark: Remark,
        unsaid: u64,
    },
    /// It was for no router.
    AdvertStray {
        interface: String,
        peer: IpAddr,
        reason: Refusal,
        unsaid: u64,
    },
    /// Something that is tried again failed.
    VrrpTrouble {
        interface: String,
        error: String,
        unsaid: u64,
    },
    VipMoved {
        vip: IpAddr,
        interface: String,
        what: Moved,
    },
    /// It cannot be put on the interface.
    VipRefused {
        error: String,
    },
    /// Its packets are not served, so it should not be there; `left`: it is, as somebody else's.
    VipWithdrawn {
        vip: IpAddr,
        interface: String,
        lack: Lack,
        left: bool,
    },
    VipAnnounced {
        vip: IpAddr,
        interface: String,
    },
    BackendHealth {
        service: String,
        backend: String,
        #[serde(serialize_with = "in_words")]
        from: HealthState,
        #[serde(serialize_with = "in_words")]
        to: HealthState,
        reason: Option<String>,
    },
    /// An operator has changed it.
    BackendOrdered {
        service: String,
        backend: String,
        change: String,
        /// Whether that survives a restart.
        lasting: bool,
    },
    /// Its check says that it takes no new clients.
    BackendEvacuating {
        service: String,
        backend: String,
        reason: String,
    },
    /// It takes them again.
    BackendWelcoming {
        service: String,
        backend: String,
    },
    /// No session of it is left.
    BackendDrained {
        service: String,
        backend: String,
    },
    /// The same of one that is not in the file any more.
    BackendLeft {
        service: String,
        backend: String,
    },
    /// Nobody answers; this is the first that was noticed.
    BackendsSilent {
        service: String,
        backend: String,
    },
    BackendsHeard {},
    ServiceDown {
        service: String,
    },
    ServiceUp {
        service: String,
    },
    FlowsFull {},
    FlowsRoom {},
    /// A client asks for a longer keep-alive than is waited for.
    KeepAliveClaimed {
        service: String,
        seconds: u64,
    },
    FloodBegan {
        service: String,
        rate: u64,
        above: u64,
    },
    FloodEnded {
        service: String,
        rate: u64,
    },
    MapsFailed {
        error: String,
    },
    MapsRestored {},
    Started {
        version: String,
    },
    Stopping {},
    Reloaded {
        generation: u64,
    },
    ReloadFailed {
        error: String,
    },
    SyncUp {
        direction: Direction,
        peer: IpAddr,
        records: u64,
    },
    SyncDown {
        direction: Direction,
        peer: IpAddr,
        reason: String,
        error: String,
    },
    /// Something that a router depends on is judged differently.
    TrackChanged {
        router: String,
        track: String,
        target: String,
        state: TrackState,
        reason: Option<String>,
    },
    /// Somebody could not be told of an event.
    NotifyFailed {
        notifier: String,
        error: String,
    },
    /// Somebody is told only to see whether that works.
    NotifyTest {
        notifier: String,
    },
    /// Somebody has logged in to the dashboard.
    Login {
        name: String,
        role: String,
        address: IpAddr,
    },
    /// Somebody could not; `name` is told only if there is such an account.
    LoginFailed {
        name: Option<String>,
        address: IpAddr,
        unsaid: u64,
    },
    /// The file of accounts cannot be used, and those from before are in force.
    AccountsRefused {
        error: String,
    },
    /// It can be used again.
    AccountsTaken {
        accounts: u64,
        tokens: u64,
    },
}

impl Kind {
    /// Whether strangers can cause it, or it comes back with each attempt: it is remembered apart, and
    /// only who asks for it by name is notified.
    #[must_use]
    pub const fn is_noise(self) -> bool {
        matches!(
            self,
            Self::AdvertRefused
                | Self::AdvertOdd
                | Self::AdvertStray
                | Self::VrrpTrouble
                | Self::VipRefused
                | Self::NotifyFailed
                | Self::LoginFailed
        )
    }

    /// Whether anybody is notified of it: not of what notifying itself comes to.
    #[must_use]
    pub const fn is_notified(self) -> bool {
        !matches!(self, Self::NotifyFailed | Self::NotifyTest)
    }

    /// Whether events of it are about a service, see [`Event::service`].
    #[must_use]
    pub const fn is_about_a_service(self) -> bool {
        matches!(
            self,
            Self::BackendHealth
                | Self::BackendOrdered
                | Self::BackendEvacuating
                | Self::BackendWelcoming
                | Self::BackendDrained
                | Self::BackendLeft
                | Self::BackendsSilent
                | Self::ServiceDown
                | Self::ServiceUp
                | Self::KeepAliveClaimed
                | Self::FloodBegan
                | Self::FloodEnded
        )
    }

    /// The one of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.label() == name)
    }
}

impl Severity {
    /// The one of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let mut all = Self::ALL.iter().copied();
        all.find(|severity| severity.label() == name)
    }
}

impl Event {
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::RoleChanged { .. } => Kind::RoleChanged,
            Self::RouterFaults { .. } => Kind::RouterFaults,
            Self::RouterPriority { .. } => Kind::RouterPriority,
            Self::RouterUnfit { .. } => Kind::RouterUnfit,
            Self::AdvertRefused { .. } => Kind::AdvertRefused,
            Self::AdvertOdd { .. } => Kind::AdvertOdd,
            Self::AdvertStray { .. } => Kind::AdvertStray,
            Self::VrrpTrouble { .. } => Kind::VrrpTrouble,
            Self::VipMoved { .. } => Kind::VipMoved,
            Self::VipRefused { .. } => Kind::VipRefused,
            Self::VipWithdrawn { .. } => Kind::VipWithdrawn,
            Self::VipAnnounced { .. } => Kind::VipAnnounced,
            Self::BackendHealth { .. } => Kind::BackendHealth,
            Self::BackendOrdered { .. } => Kind::BackendOrdered,
            Self::BackendEvacuating { .. } => Kind::BackendEvacuating,
            Self::BackendWelcoming { .. } => Kind::BackendWelcoming,
            Self::BackendDrained { .. } => Kind::BackendDrained,
            Self::BackendLeft { .. } => Kind::BackendLeft,
            Self::BackendsSilent { .. } => Kind::BackendsSilent,
            Self::BackendsHeard {} => Kind::BackendsHeard,
            Self::ServiceDown { .. } => Kind::ServiceDown,
            Self::ServiceUp { .. } => Kind::ServiceUp,
            Self::FlowsFull {} => Kind::FlowsFull,
            Self::FlowsRoom {} => Kind::FlowsRoom,
            Self::KeepAliveClaimed { .. } => Kind::KeepAliveClaimed,
            Self::FloodBegan { .. } => Kind::FloodBegan,
            Self::FloodEnded { .. } => Kind::FloodEnded,
            Self::MapsFailed { .. } => Kind::MapsFailed,
            Self::MapsRestored {} => Kind::MapsRestored,
            Self::Started { .. } => Kind::Started,
            Self::Stopping {} => Kind::Stopping,
            Self::Reloaded { .. } => Kind::Reloaded,
            Self::ReloadFailed { .. } => Kind::ReloadFailed,
            Self::SyncUp { .. } => Kind::SyncUp,
            Self::SyncDown { .. } => Kind::SyncDown,
            Self::TrackChanged { .. } => Kind::TrackChanged,
            Self::NotifyFailed { .. } => Kind::NotifyFailed,
            Self::NotifyTest { .. } => Kind::NotifyTest,
            Self::Login { .. } => Kind::Login,
            Self::LoginFailed { .. } => Kind::LoginFailed,
            Self::AccountsRefused { .. } => Kind::AccountsRefused,
            Self::AccountsTaken { .. } => Kind::AccountsTaken,
        }
    }

    /// The service that it is about, if it is about one.
    #[must_use]
    pub fn service(&self) -> Option<&str> {
        match self {
            Self::BackendHealth { service, .. }
            | Self::BackendOrdered { service, .. }
            | Self::BackendEvacuating { service, .. }
            | Self::BackendWelcoming { service, .. }
            | Self::BackendDrained { service, .. }
            | Self::BackendLeft { service, .. }
            | Self::BackendsSilent { service, .. }
            | Self::ServiceDown { service }
            | Self::ServiceUp { service }
            | Self::KeepAliveClaimed { service, .. }
            | Self::FloodBegan { service, .. }
            | Self::FloodEnded { service, .. } => Some(service),
            Self::RoleChanged { .. }
            | Self::RouterFaults { .. }
            | Self::RouterPriority { .. }
            | Self::RouterUnfit { .. }
            | Self::AdvertRefused { .. }
            | Self::AdvertOdd { .. }
            | Self::AdvertStray { .. }
            | Self::VrrpTrouble { .. }
            | Self::VipMoved { .. }
            | Self::VipRefused { .. }
            | Self::VipWithdrawn { .. }
            | Self::VipAnnounced { .. }
            | Self::BackendsHeard {}
            | Self::FlowsFull {}
            | Self::FlowsRoom {}
            | Self::MapsFailed { .. }
            | Self::MapsRestored {}
            | Self::Started { .. }
            | Self::Stopping {}
            | Self::Reloaded { .. }
            | Self::ReloadFailed { .. }
            | Self::SyncUp { .. }
            | Self::SyncDown { .. }
            | Self::TrackChanged { .. }
            | Self::NotifyFailed { .. }
            | Self::NotifyTest { .. }
            | Self::Login { .. }
            | Self::LoginFailed { .. }
            | Self::AccountsRefused { .. }
            | Self::AccountsTaken { .. } => None,
        }
    }
}

/// What is serialized as people read it.
fn in_words<S: Serializer>(value: &impl fmt::Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

#[cfg(test)]
mod tests;
