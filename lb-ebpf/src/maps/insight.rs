//! What is learned from payloads. The daemon reads both maps.

use aya_ebpf::{
    macros::map,
    maps::{Array, PerCpuArray},
};
use lb_common::abi::{BackendId, FlowState, KeepAlive, MqttPackets, ServiceId};

use super::{FlowRef, count_backend};

#[map]
static MQTT_PACKETS: PerCpuArray<MqttPackets> = PerCpuArray::with_max_entries(1, 0);
#[map]
static KEEP_ALIVES: Array<u32> = Array::with_max_entries(1, 0);

/// Counts a packet of a type on this CPU.
#[inline(always)]
pub fn count_mqtt(service: ServiceId, packet_type: usize) {
    let Some(counters) = MQTT_PACKETS.get_ptr_mut(u32::from(service.0)) else {
        return;
    };
    // SAFETY: the counters are this CPU's own, and the program is not preempted by itself.
    if let Some(counter) = unsafe { &mut *counters }.0.get_mut(packet_type) {
        *counter += 1;
    }
}

/// Notes a keep-alive, in seconds, if it is the longest of a service.
#[inline(always)]
pub fn note_keep_alive(service: ServiceId, seconds: u16) {
    let Some(longest) = KEEP_ALIVES.get_ptr_mut(u32::from(service.0)) else {
        return;
    };
    let seconds = u32::from(seconds);
    // SAFETY: `longest` points to an aligned value of an array map. Two CPUs may both find theirs
    // longer, and the shorter one win: the next CONNECT of the longer one sets it right.
    unsafe {
        if longest.read_volatile() < seconds {
            longest.write_volatile(seconds);
        }
    }
}

/// Counts for a backend that a recorded flow went from one state to another, if that ends it: each
/// flow once, unless it goes on after all. `reset` if that was by a RST.
#[inline(always)]
pub fn count_end(backend: BackendId, before: u8, after: u8, reset: bool) {
    if FlowState::is_live(after) || after == before {
        return;
    }
    count_backend(backend, |traffic| {
        traffic.closed += u64::from(FlowState::is_live(before));
        traffic.resets += u64::from(reset);
    });
}

impl FlowRef {
    /// Notes what a CONNECT said.
    #[inline(always)]
    pub fn set_keep_alive(self, keep_alive: KeepAlive) {
        // SAFETY: as in `touch`. Should the entry have been handed out again, another flow has a
        // keep-alive that is not its own, or lacks one.
        unsafe { (*self.0).keep_alive = keep_alive };
    }
}
