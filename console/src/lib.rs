//! Control sockets, connections to servers, secrets, and the output of commands: what Tidegate's programs have in common.
//!
//! It knows neither the balancer nor the broker; what differs between them is in [`Daemon`].

pub mod api;
pub mod client;
pub mod events;
pub mod https;
pub mod lock;
pub mod output;
pub mod password;
pub mod pem;
pub mod random;
pub mod reference;
pub mod replace;
pub mod secret;
pub mod service;
pub mod socket;
pub mod table;
pub mod terminal;
pub mod time;
pub mod tune;
pub mod units;

/// A daemon as its users know it: what advice has to name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Daemon {
    /// The program that runs it, and talks to it.
    pub program: &'static str,
    /// The configuration's key for the path of the control socket.
    pub socket_key: &'static str,
    /// The key for the group that may use it.
    pub group_key: &'static str,
}
