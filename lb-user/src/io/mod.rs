//! Effects: one interface to the outside a file, no decisions.

pub mod alarm;
pub mod datapath;
pub mod discretion;
pub mod host;
pub mod link_layer;
pub mod netlink;
pub mod notify;
pub mod ping;
pub mod probe;
pub mod segment;
pub mod vrrp;
