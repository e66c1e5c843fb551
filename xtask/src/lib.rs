//! What `cargo xtask` is made of: the laboratory network, shared with the `tests` crate, and the tasks.

pub mod exec;
pub mod lab;
#[path = "../../lb-ebpf/toolchain.rs"]
pub mod toolchain;
