//! What `cargo xtask` is made of: the laboratory network, shared with the `tests` crate, and the tasks.

pub mod bench;
pub mod build;
#[allow(
    dead_code,
    clippy::panic,
    reason = "tests have more to do with clients, and what is unexpected ends a measurement too"
)]
#[path = "../../broker/tests/client/mod.rs"]
mod client;
pub mod dist;
pub mod elevate;
pub mod exec;
pub mod kernel;
pub mod lab;
pub mod lint;
pub mod load;
pub mod network;
mod pages;
pub mod setup;
mod steps;
pub mod test;
#[path = "../../lb-ebpf/toolchain.rs"]
pub mod toolchain;
pub mod up;
