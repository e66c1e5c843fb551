//! VRRP, the pure part: adverts as bytes and values, timers, and who is Active.

pub mod advert;
pub mod announce;
mod label;
pub mod machine;
pub mod packet;
pub mod refusal;
pub mod role;
pub mod settings;
pub mod timers;
