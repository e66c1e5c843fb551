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
//! | [`role`] | roles, causes, reasons, counters |
//!
//! # How a driver uses it
//!
//! The sockets are there (`io/vrrp.rs`, `io/link_layer.rs`), the driver is not yet: nothing of the
//! daemon speaks VRRP so far. The driver holds one [`Group`](group::Group) for each sync group, and one for each router without any, and
//! is the only one to touch them. For each interface and family it has a raw socket of protocol
//! [`PROTOCOL`](advert::PROTOCOL) that tells source, destination and TTL or Hop Limit of what it
//! receives, sends with [`HOPS`](advert::HOPS), and does not loop multicast back.
//!
//! Its loop, after `handle_startup`, or `update` with [`adopt`](machine::Machine::adopt) where the
//! process before it was Active until just now:
//!
//! 1. It waits for an advert, for a message of the daemon, or until the earliest `next_deadline`.
//! 2. It reads all adverts that are there. Each goes through [`packet::decode`], whose refusals are
//!    the interface's to count, as nobody knows yet whose they were. The [`Vrid`](advert::Vrid)
//!    names group and member for `handle_advert`; without one it is [`Refusal::Vrid`]. What comes back
//!    is for the log, at a limited rate; the router has counted it.
//! 3. Messages go in by `update` and the verbs of [`Machine`](machine::Machine): `release` and
//!    `resume`, `set_priority`, `set_permission`, `handle_presence`, `handle_doubt`.
//! 4. `handle_timeout`, with the time of now. Adverts go first, or a loop that was held up would take
//!    an Active for dead whose adverts it has not read.
//! 5. It drains `poll_change` (log, hooks, metrics, and the level `role` and `accepts` for the
//!    applier), then `poll_advert`, encoded once for each of
//!    [`envelopes`](settings::Settings::envelopes), then `poll_announce`.
//!
//! The applier makes the addresses match the role, and says by `handle_presence` whether they are
//! there: before that nothing is announced. Whoever sees that another host may have answered for them
//! (a carrier that came back, somebody's ARP for one of them) calls `handle_doubt`.
//!
//! To stop without a gap: `release` with [`Hold::Operator`](role::Hold), the loop as ever until no
//! role is Active, then `handle_shutdown` and the last drain. To stop at once: only the latter.
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
pub mod frame;
pub mod group;
mod label;
pub mod machine;
pub mod packet;
pub mod refusal;
pub mod role;
pub mod settings;
pub mod timers;

#[cfg(test)]
mod simulation;
