//! `tidegate-broker`: an MQTT broker node built round rumqttd.
//!
//! rumqttd gives the packet codecs and the Router that moves batches between threads. The listener,
//! sessions, topic tree, retained messages and wills are here. [`mod@bench`] is a load generator that
//! shares nothing with the broker but how durations are written and the limit on open files.
//!
//! ```text
//! listener (accepts; PROXY header, TLS, WebSocket; reads CONNECT, tells the protocol version)
//!   -> access (who is that, and may it connect?)
//!   -> connection (bytes to packets and back, keep-alive)
//!   -> shard (sessions of one thread: subscriptions, windows, queues, wills)
//!   -> routes -> lanes through rumqttd's Router -> the other shards
//!                                              \-> cluster -> the other nodes
//! ```

pub mod access;
mod aliases;
pub mod bench;
pub mod cli;
pub mod cluster;
pub mod codec;
pub mod config;
mod connection;
pub mod control;
mod duration;
mod evacuation;
mod events;
mod gate;
mod handshake;
mod herald;
mod http;
pub mod lanes;
mod link;
pub mod listener;
mod load;
pub mod message;
pub mod metrics;
pub mod node;
mod open_files;
mod output;
pub mod peer;
mod proxy;
pub mod rate;
pub mod receipts;
mod reload;
pub mod replica;
mod retained;
pub mod routes;
mod secret;
pub mod service;
pub mod session;
pub mod shard;
pub mod shares;
mod store;
mod sys;
#[cfg(test)]
mod testing;
mod throttle;
pub mod tls;
pub mod topic;
mod transport;
pub mod trie;
pub mod tunnel;
pub mod vip;
mod websocket;
