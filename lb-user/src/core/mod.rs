//! Decisions, without effects: no clock, socket, map or runtime is named below here.

pub mod admin;
pub mod attack;
pub mod balancer;
pub mod event;
pub mod flows;
pub mod health;
pub mod image;
pub mod load;
pub mod maglev;
pub mod notify;
pub mod plan;
pub mod presence;
pub mod restore;
pub mod ring;
pub mod settle;
pub mod slots;
pub mod sync;
pub mod trace;
pub mod vrrp;
