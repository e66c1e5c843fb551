//! XDP_PASS on the switch's ports.
//!
//! A veth that answers with XDP_TX hands the frame to its peer, which is woken only if it runs an XDP
//! program itself; real switches need no such thing.

use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result};

use super::netns::NetNs;
use super::sys;

/// `r0 = XDP_PASS; exit`, as the instruction words of `struct bpf_insn`.
const PASS: [u64; 2] = [0x0000_0002_0000_00b7, 0x0000_0000_0000_0095];

/// Attaches the program to every named interface of the namespace, as long as the links are held.
pub(super) fn attach(netns: &NetNs, interfaces: &[&str]) -> Result<Vec<OwnedFd>> {
    netns.enter(|| {
        let program = sys::load_xdp(&PASS).context("cannot load an XDP program")?;
        interfaces
            .iter()
            .map(|name| {
                let index = interface_index(name)?;
                sys::attach_xdp(program.as_fd(), index)
                    .with_context(|| format!("cannot attach an XDP program to {name}"))
            })
            .collect()
    })
}

fn interface_index(name: &str) -> Result<u32> {
    let socket = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        None,
    )?;
    rustix::net::netdevice::name_to_index(&socket, name)
        .with_context(|| format!("no interface {name}"))
}
