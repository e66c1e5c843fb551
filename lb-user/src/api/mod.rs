//! The HTTP API on a unix socket, the metrics page on a loopback port, and the dashboard.
//!
//! | route | on | what |
//! |---|---|---|
//! | `GET /v1/status` | socket, dashboard | [`crate::control::Status`] |
//! | `POST /v1/reload` | socket | reads the configuration again: 200, or 400 and nothing changed |
//! | `POST /v1/trace` | socket, dashboard | [`crate::control::TraceOrder`]: what becomes of a client's packets; changes nothing |
//! | `GET /v1/backends` | socket, dashboard | all backends, each with its service's name |
//! | `POST /v1/backends/{service}/{name}/drain` | socket, dashboard | no new flows |
//! | `POST /v1/backends/{service}/{name}/enable` | socket, dashboard | used as health and weight allow |
//! | `POST /v1/backends/{service}/{name}/disable` | socket, dashboard | no packets |
//! | `POST /v1/backends/{service}/{name}/weight` | socket, dashboard | `{"weight": 0..=256}` |
//! | `POST /v1/stop` | socket | the daemon stops; with `?detach=true` traffic does, too |
//! | `GET /v1/events` | socket, dashboard | [`crate::control::EventsPage`]; see `events.rs` for its options |
//! | `POST /v1/notify/test` | socket | tries all notifications, or the one of `?name=` |
//! | `GET /v1/vrrp` | socket, dashboard | [`crate::control::VrrpStatus`] |
//! | `POST /v1/vrrp/{name}/release` | socket, dashboard | a virtual router or group hands its role over |
//! | `POST /v1/vrrp/{name}/resume` | socket, dashboard | it takes part again |
//! | `GET /metrics` | socket, metrics port | Prometheus text |
//! | `GET /healthz` | all | 200 while the process lives |
//! | `GET /readyz` | socket, metrics port | 200 while packets are balanced, else 503 |
//!
//! The changing routes take `?temporary=true`: then the change is forgotten at the next start.
//! `{service}` may be `-` if only one service has a backend of that name. Who may use the socket is
//! decided by its file permissions, who may use the dashboard by the crate of that name, which has more
//! routes of its own. Errors are `{"error": .., "hint": ..}`. Handlers translate,
//! nothing else.

mod error;
mod events;
pub mod metrics;
mod page;
mod routes;
mod servers;
#[cfg(test)]
mod tests;

pub use console::api::ErrorBody;
pub use page::tls_files;
pub use routes::{BackendEntry, Weight};
pub use servers::{BindError, Servers};

/// How users know the daemon.
pub(crate) const DAEMON: console::Daemon = console::Daemon {
    program: "tidegate",
    socket_key: "api.socket",
    group_key: "api.group",
};
