//! Flows that the program has just established, as it reports them.

use std::{
    io,
    os::fd::{AsRawFd, RawFd},
};

use aya::{
    Ebpf,
    maps::{HashMap, MapData, PerCpuArray, RingBuf},
};
use lb_common::abi::{self, Flow, FlowEvent, FlowKey};
use tokio::io::{Interest, unix::AsyncFd};

use super::{
    DatapathError,
    error::failed,
    lookup::{get, second},
    take,
};

/// Bytes of the ring where there is a peer to tell, 64 a flow: what 10,000 a second need while this
/// process has to wait for a CPU for a second.
pub const EVENTS: u32 = 1 << 20;

/// The ring of reports, and the table that they are about.
///
/// Not pinned: what the program of a daemon before has reported, the first walk over the table finds.
pub struct FlowEvents {
    ring: RingBuf<MapData>,
    lost: PerCpuArray<MapData, u64>,
    flows: HashMap<MapData, FlowKey, Flow>,
}

impl FlowEvents {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, DatapathError> {
        Ok(Self {
            ring: take(ebpf, abi::FLOW_EVENTS)?,
            lost: take(ebpf, abi::FLOW_EVENTS_LOST)?,
            flows: second(ebpf, abi::FLOWS)?,
        })
    }

    /// The same, to be waited for: it is readable when something comes into a ring that was empty.
    ///
    /// # Errors
    /// If the runtime does not take it.
    pub fn watched(self) -> io::Result<AsyncFd<Self>> {
        // SAFETY: the descriptor is the ring's own, which stays open and the same for as long as `self`.
        let watched = unsafe { AsyncFd::register_with_interest(self, Interest::READABLE) };
        Ok(watched?)
    }

    /// The next report, if there is one. Does not block.
    pub fn pop(&mut self) -> Option<FlowEvent> {
        loop {
            let entry = self.ring.next()?;
            if entry.len() == size_of::<FlowEvent>() {
                // SAFETY: `entry` is as long as a `FlowEvent`, whose every bit pattern is a value.
                return Some(unsafe { entry.as_ptr().cast::<FlowEvent>().read_unaligned() });
            }
        }
    }

    /// The record of an established flow, if there still is one.
    ///
    /// # Errors
    /// If the kernel does not let the table be read.
    pub fn record(&self, key: &FlowKey) -> Result<Option<Flow>, DatapathError> {
        get(&self.flows, abi::FLOWS, key)
    }

    /// How many flows the ring had no room for, since the program was loaded.
    ///
    /// # Errors
    /// If the kernel does not let the counter be read.
    pub fn lost(&self) -> Result<u64, DatapathError> {
        let lost = self.lost.get(&0, 0);
        let lost = lost.map_err(failed(abi::FLOW_EVENTS_LOST, "read"))?;
        Ok(lost.iter().sum())
    }
}

impl AsRawFd for FlowEvents {
    fn as_raw_fd(&self) -> RawFd {
        self.ring.as_raw_fd()
    }
}
