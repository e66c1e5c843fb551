//! What two nodes tell each other, so that the one that stands by can take over with every session.
//!
//! Each node calls its peer to *send*, and is called to *receive*: two streams that have nothing to
//! do with each other. A node sends what decides where the flows of those services go whose VIP it
//! is Active for, and takes in the same of those whose VIP it stands by for. A [`Sender`] and a
//! [`Receiver`] know nothing of sockets, maps or clocks.
//!
//! ```text
//!   sender                                              receiver
//!      |--- Hello (version, fingerprint of the seed) ------>|
//!      |<-- Welcome (stream, last number applied) ----------|    or Refused (why)
//!      |--- Begin (stream, 1) ----------------------------->|  \
//!      |--- Items (2), Items (3) .. ----------------------->|   > a snapshot, if there is need
//!      |<-- Ack (1), Ack (2) .. ----------------------------|   |
//!      |--- End (n) --------------------------------------->|  /   what was not named goes
//!      |--- Items (n + 1) .. ------------------------------>|    increments
//!      |--- Beat, when there is nothing to say ------------>|
//!      |<-- Ack (n + 1) .. ---------------------------------|
//! ```
//! What is sent is numbered without gaps, and what is not acknowledged is bounded: the sender waits.
//! What waits to be sent are the *keys* of what has changed, each once, however often it changes; so
//! an increment always has the newest value, and nothing is sent twice that changed twice.
//!
//! What is to be sent is found by walks over the tables, which have all of it and take their time; and
//! the program reports flows that were just established, which are sent before anything else. What a
//! report says is never more than what a walk would: if one is lost, the next walk has the flow.
//!
//! When a connection breaks, both ends keep what they have. The receiver says in its Welcome how far
//! it came in which stream; if the sender still knows the rest, that is what it sends. If it does
//! not (it is another stream, a snapshot was cut off, or too much has changed meanwhile), it begins
//! a new snapshot under a new number of stream. So at any point at which the network fails, the
//! receiver has what the sender had at some moment, give or take items under way, and it ends equal
//! to the sender when the network is back. A property test has it so.
//!
//! Ids and epochs of backends and services are each node's own. On the wire everything has the name
//! that both know: VIP, port and protocol, address and port ([`record`]); [`names`] turns these into
//! the receiver's own ids, and refuses what the receiver does not have.

mod lags;
pub mod message;
pub mod names;
mod queue;
pub mod receiver;
pub mod record;
pub mod sender;
pub mod source;
#[cfg(test)]
mod tests;

pub use lags::Quantiles;
pub use message::{Answer, Greeting, Hello, Item, Message, Refusal, VERSION};
pub use receiver::{Receiver, Step, Violation};
pub use sender::{Now, Sender};
