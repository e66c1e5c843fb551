//! What the kernel half and the user-space half of Tidegate must agree on.
//!
//! Owns the layout of every map ([`abi`]), the list of packet outcomes ([`verdict`]), the
//! parsers of packets ([`parse`], over a [`cursor`]) and of MQTT ([`mqtt`]), what both halves must
//! know of ICMP ([`icmp`]), what a backend unpacks ([`decap`]), the flow hash ([`flow`]), challenges to the
//! senders of SYNs ([`challenge`]) and checksum arithmetic ([`checksum`]). It has no state, no I/O and no dependency, so the XDP program, the daemon, the
//! tests and the fuzz targets all run the same code.

#![cfg_attr(not(test), no_std)]

pub mod abi;
pub mod challenge;
pub mod checksum;
pub mod cursor;
pub mod decap;
pub mod flow;
pub mod generator;
pub mod icmp;
pub mod mqtt;
pub mod parse;
pub mod verdict;
