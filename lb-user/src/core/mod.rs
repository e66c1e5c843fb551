//! Decisions, without effects: no clock, socket, map or runtime is named below here.

pub mod image;
