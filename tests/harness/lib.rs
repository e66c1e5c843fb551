//! What the privileged tests are written with.
//!
//! [`packet`] builds frames, [`icmp`] errors about them, [`prog_run`] gives them to the loaded program and takes them back,
//! [`world`] fills its maps the way the daemon does. Networks of namespaces and the processes in
//! them are `xtask::lab`'s; [`balancer`] runs one with a configuration that a test writes, [`debian`] a
//! whole system with its own systemd.
//! [`generator`] makes the benchmarks' frames.

pub mod balancer;
pub mod debian;
pub mod generator;
pub mod icmp;
pub mod packet;
pub mod pair;
pub mod pins;
pub mod prog_run;
pub mod synced;
pub mod tunnel;
pub mod world;
