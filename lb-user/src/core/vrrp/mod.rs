//! VRRP, the pure part: adverts as values and bytes, timers, and who is Active.

pub mod advert;
mod label;
pub mod packet;
pub mod refusal;
pub mod timers;
