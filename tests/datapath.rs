//! Frames in, frames out: the loaded XDP program on one frame at a time.
//!
//! Cases are data: a name, a frame, the verdict that must be counted, and by that whether the frame
//! must come out untouched, dropped or rebuilt. [`case`] runs them, [`services`] is the world that
//! they happen in.

mod answers;
mod case;
mod challenge;
mod change;
mod conversation;
mod counters;
mod decap;
mod entries;
mod events;
mod fixtures;
mod forged;
mod forwarding;
mod fragments;
mod guard;
mod icmp;
mod kept;
mod malformed;
mod model;
mod mqtt;
mod nat;
mod nat_close;
mod nat_ports;
mod neighbours;
mod not_ours;
mod rates;
mod refused;
mod replica;
mod scheduling;
mod services;
mod slots;
mod smoke;
mod trace;
mod tracking;
mod tunnel;
mod tunnel_rest;
mod verifier;
mod virtual_mac;
