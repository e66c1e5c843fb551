//! Forgetting tracked flows that are over.
//!
//! The program never removes an established flow: only a clock can tell that it has ended. A round
//! looks at every flow, then at every reply translation, and removes those without a flow. It is
//! one system call an entry, so a million flows take a second or two: the daemon runs rounds on a
//! thread of their own, which is why [`Sweeper`] is separate from the datapath.

use std::time::Duration;

use aya::{
    Ebpf,
    maps::{HashMap, MapData, MapError},
};
use lb_common::abi::{self, Flow, FlowKey, FlowState, PROTOCOL_UDP, Reply, Tick};

use super::{DatapathError, failed, take};

/// A closed flow is kept for as long as stray segments of it may come: twice the 60 s that Linux
/// keeps a connection in TIME-WAIT.
const CLOSED: Duration = Duration::from_secs(120);
/// A flow that was reset is kept for the case that the RST was forged and the flow goes on.
const RESET: Duration = Duration::from_secs(240);
/// UDP says no goodbye; two minutes is what RFC 4787, REQ-5 asks for.
const UDP_IDLE: Duration = Duration::from_secs(120);

/// What a round found and did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowCounts {
    /// Flows that have sent data, and are not over.
    pub tracked: u64,
    /// Flows that have only sent a SYN.
    pub half_open: u64,
    /// Flows that were over, hence removed.
    pub removed: u64,
}

/// The flow tables.
#[derive(Debug)]
pub struct Sweeper {
    flows: HashMap<MapData, FlowKey, Flow>,
    half_open: HashMap<MapData, FlowKey, Flow>,
    replies: HashMap<MapData, FlowKey, Reply>,
}

impl Sweeper {
    pub(super) fn new(ebpf: &mut Ebpf) -> Result<Self, DatapathError> {
        Ok(Self {
            flows: take(ebpf, abi::FLOWS)?,
            half_open: take(ebpf, abi::HALF_OPEN)?,
            replies: take(ebpf, abi::REPLIES)?,
        })
    }

    /// Removes every flow that was silent for `idle`, or was closed long enough ago.
    ///
    /// Blocks for as long as the tables are large.
    ///
    /// # Errors
    /// If the kernel does not let a table be read or changed.
    pub fn round(&mut self, idle: Duration) -> Result<FlowCounts, DatapathError> {
        let now = now();
        let mut counts = FlowCounts::default();
        let mut over = Vec::new();
        for entry in self.flows.iter() {
            let (key, flow) = entry.map_err(failed(abi::FLOWS, "read"))?;
            if is_over(&key, &flow, now, idle) {
                over.push(key);
            } else {
                counts.tracked += 1;
            }
        }
        for key in &over {
            forget(&mut self.flows, abi::FLOWS, key)?;
        }
        counts.removed = over.len() as u64;
        for key in self.half_open.keys() {
            key.map_err(failed(abi::HALF_OPEN, "read"))?;
            counts.half_open += 1;
        }
        self.forget_orphans()?;
        Ok(counts)
    }

    /// Removes the replies whose flow is gone or was given another port.
    fn forget_orphans(&mut self) -> Result<(), DatapathError> {
        let mut orphans = Vec::new();
        for entry in self.replies.iter() {
            let (key, reply) = entry.map_err(failed(abi::REPLIES, "read"))?;
            if !self.has_flow(&key, &reply)? {
                orphans.push(key);
            }
        }
        orphans
            .iter()
            .try_for_each(|key| forget(&mut self.replies, abi::REPLIES, key))
    }

    /// The program inserts into one table before it removes from the other, so a flow on its way
    /// from the second to the first is missed only by looking in that order; hence the third look.
    fn has_flow(&self, key: &FlowKey, reply: &Reply) -> Result<bool, DatapathError> {
        let client = FlowKey::new(
            reply.client,
            reply.vip,
            u16::from_be_bytes(reply.client_port),
            u16::from_be_bytes(reply.vip_port),
            key.protocol(),
        );
        for (table, name) in [
            (&self.flows, abi::FLOWS),
            (&self.half_open, abi::HALF_OPEN),
            (&self.flows, abi::FLOWS),
        ] {
            match table.get(&client, 0) {
                Ok(flow) if u16::from_be_bytes(flow.nat_port) == key.destination_port() => {
                    return Ok(true);
                }
                Ok(_) | Err(MapError::KeyNotFound) => {}
                Err(error) => return Err(failed(name, "read")(error)),
            }
        }
        Ok(false)
    }
}

fn forget<V: aya::Pod>(
    map: &mut HashMap<MapData, FlowKey, V>,
    name: &'static str,
    key: &FlowKey,
) -> Result<(), DatapathError> {
    match map.remove(key) {
        Err(MapError::KeyNotFound) => Ok(()),
        other => other.map_err(failed(name, "updated")),
    }
}

fn is_over(key: &FlowKey, flow: &Flow, now: Tick, idle: Duration) -> bool {
    let limit = if flow.state == FlowState::Closing as u8 {
        CLOSED.min(idle)
    } else if flow.state == FlowState::Reset as u8 {
        RESET.min(idle)
    } else if key.protocol() == PROTOCOL_UDP {
        UDP_IDLE.min(idle)
    } else {
        idle
    };
    u64::from(now.since(Tick(flow.seen))) > ticks(limit)
}

/// Rounded down: [`is_over`] asks for more than that.
fn ticks(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos() >> 30).unwrap_or(u64::MAX)
}

/// The kernel's clock of flows.
fn now() -> Tick {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let nanos = time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs();
    Tick::from_nanos(nanos)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use lb_common::abi::{Flow, FlowKey, FlowState, Ip, PROTOCOL_TCP, PROTOCOL_UDP, Tick};

    use super::{is_over, ticks};

    const HOUR: Duration = Duration::from_secs(3600);

    fn over(protocol: u8, state: FlowState, silent: Duration) -> bool {
        let ip = Ip::from_v4([10, 0, 0, 1]);
        let key = FlowKey::new(ip, ip, 1, 2, protocol);
        let flow = Flow {
            backend: 0,
            epoch: 0,
            seen: 1000,
            nat_port: [0; 2],
            nat_source: 0,
            state: state as u8,
            client_mac: [0; 8],
            client_interface: 0,
        };
        let now = 1000 + u32::try_from(ticks(silent)).unwrap();
        is_over(&key, &flow, Tick(now), HOUR)
    }

    #[test]
    fn an_established_flow_is_over_when_it_was_idle_too_long() {
        assert!(!over(PROTOCOL_TCP, FlowState::Established, HOUR / 2));
        assert!(over(PROTOCOL_TCP, FlowState::Established, HOUR + HOUR / 10));
    }

    #[test]
    fn closed_and_reset_flows_are_over_sooner() {
        let minute = Duration::from_secs(60);
        assert!(!over(PROTOCOL_TCP, FlowState::Closing, minute));
        assert!(over(PROTOCOL_TCP, FlowState::Closing, 3 * minute));
        assert!(!over(PROTOCOL_TCP, FlowState::Reset, 3 * minute));
        assert!(over(PROTOCOL_TCP, FlowState::Reset, 5 * minute));
        assert!(over(PROTOCOL_UDP, FlowState::Established, 3 * minute));
    }

    #[test]
    fn a_time_stamp_from_the_future_is_not_old() {
        assert_eq!(Tick(5).since(Tick(9)), 0);
    }
}
