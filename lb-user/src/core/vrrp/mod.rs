//! VRRP, the pure part: adverts as bytes and values, who is Active, and when to announce it.
//!
//! RFC 9568 (VRRPv3, IPv4 and IPv6), RFC 3768 (VRRPv2) and RFC 2338's simple password, to be spoken
//! with keepalived too. No socket, clock, address or task is known here.
//!
//! | file | what it has |
//! |---|---|
//! | [`advert`] | what an advert says, and the values it is made of |
//! | [`packet`] | adverts as bytes |
//! | [`refusal`] | why adverts are refused or remarked on, and how often |
//! | [`settings`] | how a virtual router is set up, and whose adverts that lets through |
//! | [`timers`] | Skew_Time and Active_Down_Interval |
//! | [`machine`] | the state machine of one virtual router |
//! | [`announce`] | when addresses are announced |
//! | [`frame`] | announcements as bytes |
//! | [`group`] | routers that are Active together |
//! | [`node`] | all groups of a node, what they need, and what keeps them back |
//! | [`role`] | roles, causes, reasons, counters |
//! | [`track`] | when a gateway or script that a router depends on is down |
//!
//! # How a driver uses it
//!
//! The driver (`daemon/vrrp/driver.rs`) owns one [`Node`](node::Node), which holds a
//! [`Group`](group::Group) for each sync group, and one for each router without any. For each of the
//! node's lines it has a raw socket of protocol [`PROTOCOL`](advert::PROTOCOL) that tells source,
//! destination and TTL or Hop Limit of what it receives, sends with [`HOPS`](advert::HOPS), and does
//! not loop multicast back.
//!
//! Its loop:
//!
//! 1. It waits for an advert, for a message of the daemon, or until `next_deadline`.
//! 2. It reads all adverts that are there, up to a bound, into `handle_advert`. Those that
//!    [`packet::decode`] refuses are the interface's to count, as nobody knows yet whose they were.
//!    The [`Vrid`](advert::Vrid) names group and member; without one it is [`Refusal::Vrid`].
//! 3. Messages go in: the configuration, what the host is like, what the balancer can do, orders.
//! 4. `handle_timeout`, with the time of now. Adverts go first, or a loop that was held up would take
//!    an Active for dead whose adverts it has not read.
//! 5. It opens and closes lines, calls `settle`, and drains the polls: adverts, announcements, events
//!    for the log. The level `held` is for the applier.
//!
//! The applier makes the addresses match, and what it has placed goes in by `handle_placed`: before
//! that nothing is announced.
//!
//! To stop without a gap: `release_all`, the loop as ever until no role is Active, then
//! `handle_shutdown` and the last drain. To stop at once: only the latter.
//!
//! # How long it can take
//!
//! With a whole network, two routers are Active for at most Active_Down_Interval and the way of an
//! advert, and so long at most is none. The simulation checks that, with loss, delay, partitions,
//! crashes, stalls and changes of priority before.
//!
//! [`Refusal::Vrid`]: refusal::Refusal::Vrid

pub mod advert;
pub mod announce;
mod configured;
pub mod frame;
pub mod group;
pub(in crate::core) mod label;
pub mod machine;
pub mod node;
pub mod packet;
pub mod refusal;
pub mod role;
pub mod settings;
pub mod timers;
pub mod track;

#[cfg(test)]
mod simulation;
