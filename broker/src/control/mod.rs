//! How operators look at a running node and act on it: HTTP on a unix socket.
//!
//! | route | what |
//! |---|---|
//! | `GET /v1/status` | [`view::NodeStatus`] |
//! | `GET /v1/clients` | [`view::ClientView`]s; `?slow=true`: only those that do not keep up |
//! | `GET /v1/sessions` | [`view::SessionView`]s, of absent clients too |
//! | `GET /v1/subscriptions` | [`view::SubscriptionView`]s; `?client=`, `?filter=`, `?topic=` |
//! | `GET /v1/topics` | [`view::TopicView`]s: filters and how many clients have each |
//! | `GET /v1/retained` | [`view::RetainedView`]s; `?filter=`, `?payload=true` |
//! | `GET /v1/events` | what has happened, and happens: `events.rs` has its options |
//! | `GET /v1/cluster` | [`ClusterStatus`](crate::cluster::view::ClusterStatus) |
//! | `GET /v1/cluster/nodes` | [`view::ClusterNodes`] |
//! | `GET /v1/cluster/clients`, `sessions`, .. | [`view::WidePage`]s: the listing of all nodes; `?skip=` |
//! | `POST /v1/cluster/join`, `/v1/cluster/leave` | calls a node, or leaves all of them |
//! | `POST /v1/node/evacuate` | [`view::SendAway`]: sends all clients away |
//! | `POST /v1/node/rebalance` | [`view::Rebalance`]: sends away more than so many, or than others have |
//! | `POST /v1/node/serve` | ends either: clients are welcome again |
//! | `POST /v1/kick` | [`view::KickOrder`]: closes a client's connection, on whatever node |
//! | `POST /v1/reload` | reads the configuration again: [`view::Reloaded`], or 400 and nothing changed |
//! | `GET /metrics`, `/healthz`, `/readyz` | as on the metrics port, see `http.rs` |
//!
//! Listings come in pages ([`view::Page`]), sorted by client id or topic: `?limit=`, `?after=`,
//! `?prefix=`.
//! The shards own what is asked for; they answer between two turns of their clients, and never wait
//! for who asks. Who may use the socket is decided by its file permissions. Errors are
//! `{"error": .., "hint": ..}`.

mod answers;
mod cluster;
mod events;
mod node;
mod pulse;
mod retained;
mod routes;
mod server;
pub(crate) mod shards;
pub mod view;
mod wide;

pub(crate) use answers::answer_others;
pub(crate) use pulse::{Pulse, watch_pulse};
pub(crate) use server::Reload;
pub use server::{ControlError, Server};

/// Where the control socket is unless the configuration says otherwise.
pub(crate) const DEFAULT_SOCKET: &str = "/run/tidegate-broker/control.sock";

/// How users know the broker.
pub(crate) const DAEMON: console::Daemon = console::Daemon {
    program: "tidegate-broker",
    socket_key: "control.socket",
    group_key: "control.group",
};
