//! The programs that the first one calls, each for what a few packets need.

pub mod answer;
pub mod echo;
pub mod encapsulate;
pub mod fragment;
pub mod guard;
pub mod icmp;
pub mod neighbour;
pub mod reply;
pub mod track;
pub mod translate;
