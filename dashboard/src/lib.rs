//! What the web pages of both daemons have in common: accounts, sessions, roles, TLS, the page itself and
//! the live stream behind it.
//!
//! It names nothing of the balancer or the broker. A daemon gives a [`Door`] the routes under `/v1/` that
//! are to be had there, a [`Page`], and itself as a [`Daemon`]: somebody to ask and to tell.
//!
//! | route | who | what |
//! |---|---|---|
//! | `GET /`, `GET /assets/...` | all | the page |
//! | `GET /healthz` | all | 200 while the process lives |
//! | `POST /session` | all | `{"name", "password"}`: logs in, the answer is [`SessionBody`] |
//! | `GET /session` | who is logged in | the same |
//! | `DELETE /session` | who is logged in | logs out |
//! | `GET /v1/live` | viewer | server-sent events, see `live.rs` |
//! | `GET /v1/...` | viewer | the daemon's |
//! | all else on `/v1/...` | operator | the daemon's |
//!
//! Who is logged in has a cookie, and sends `X-CSRF-Token` with each change. `Authorization: Bearer`
//! does without both. Everything that anybody can make it hold is bounded, and everything that is
//! refused is counted. docs/dashboard.md has the threats that it was made against.

mod accounts;
mod assets;
mod book;
mod check;
pub mod command;
mod counters;
mod door;
mod file;
mod guard;
mod hosts;
mod identity;
mod live;
mod login;
mod random;
mod refusal;
mod router;
mod sessions;
#[cfg(test)]
mod tests;
mod throttle;
mod tls;

use std::net::IpAddr;

use futures_util::future::BoxFuture;

pub use accounts::{AccountsError, EntryProblem, Role};
pub use assets::{Asset, BALANCER, Page};
pub use counters::{Counters, DashboardStatus};
pub use door::{Door, OpenError, Settings};
pub use hosts::is_name;
pub use identity::Who;
pub use login::SessionBody;
pub use tls::{TlsError, TlsFiles, check as check_tls};

/// Whom the page is of.
pub trait Daemon: Send + Sync + 'static {
    /// The program that makes accounts, as advice has to name it.
    fn program(&self) -> &'static str;

    /// The whole status as JSON; `None` when the daemon is stopping.
    fn status(&self) -> BoxFuture<'_, Option<String>>;

    /// The number of the last event.
    fn last_event(&self) -> u64;

    /// What has happened after the event of that number, as soon as that is something; `None` when there
    /// will be no more. Nothing is lost if the answer is not waited for.
    fn events(&self, since: u64) -> BoxFuture<'_, Option<News>>;

    /// Something happened at the door that an operator may want to know.
    fn tell(&self, occurrence: Occurrence);
}

/// Events in the order of their numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct News {
    /// What to ask for next.
    pub last: u64,
    /// Each with its number, as JSON.
    pub events: Vec<(u64, String)>,
}

/// What happens at the door.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Occurrence {
    LoggedIn {
        name: String,
        role: Role,
        address: IpAddr,
    },
    /// `name` only if there is such an account: others may be a password that went into the wrong field.
    /// `unsaid`: how often it was not told of since it last was.
    LoginFailed {
        name: Option<String>,
        address: IpAddr,
        unsaid: u64,
    },
    /// The file of accounts cannot be used; those that were read before stay.
    AccountsRefused { error: String },
    /// It can be used again.
    AccountsTaken { accounts: u64, tokens: u64 },
}
