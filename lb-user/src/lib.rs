//! Tidegate: the daemon that runs an XDP load balancer, and its command line.
//!
//! The XDP program moves packets; this crate decides where to. What must hold in the kernel is
//! computed without effects in [`core`] from a [`config`]uration and what is observed; [`daemon`]
//! owns that state and applies it through [`io`]; [`api`] and [`cli`] let operators look and act.

pub mod api;
pub mod cli;
pub mod config;
pub mod control;
pub mod core;
pub mod daemon;
pub mod import;
pub mod io;
pub mod journal;
