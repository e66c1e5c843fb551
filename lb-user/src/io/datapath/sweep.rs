//! Forgetting tracked flows that are over.
//!
//! The program never removes an established flow: only a clock can tell that it has ended. A round
//! looks at every flow, then at every reply translation, and removes those without a flow: that
//! frees their ports. It is
//! one system call an entry, so a million flows take a second or two: the daemon runs rounds on a
//! thread of their own, which is why [`Sweeper`] is separate from the datapath.

use std::time::Duration;

use aya::{
    Ebpf,
    maps::{HashMap, MapData, MapError},
};
use lb_common::abi::{self, Flow, FlowKey, FlowState, PROTOCOL_UDP, Reply, Tick};

use super::{DatapathError, Limits, error::failed, take};

/// A SYN is sent again after 1, 3, 7, 15 and 31 s; by then it has an answer or its sender gave up.
const HALF_OPEN: Duration = Duration::from_secs(60);
/// A closed flow is kept for as long as Linux keeps a connection in TIME-WAIT.
const CLOSED: Duration = Duration::from_secs(60);
/// A flow that was reset is kept for the case that the RST was forged and the flow goes on.
const RESET: Duration = Duration::from_secs(120);
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
    flows: Table<Flow>,
    half_open: Table<Flow>,
    replies: Table<Reply>,
    half_open_replies: Table<Reply>,
}

impl Sweeper {
    pub(super) fn new(ebpf: &mut Ebpf, limits: &Limits) -> Result<Self, DatapathError> {
        Ok(Self {
            flows: Table::take(ebpf, abi::FLOWS, limits.flows)?,
            half_open: Table::take(ebpf, abi::HALF_OPEN, limits.half_open)?,
            replies: Table::take(ebpf, abi::REPLIES, limits.flows)?,
            half_open_replies: Table::take(ebpf, abi::HALF_OPEN_REPLIES, limits.half_open)?,
        })
    }

    /// Removes every flow that was silent for `idle`, was closed long enough ago, or never got past
    /// its first packet; then the replies whose flow is gone, which frees their ports.
    ///
    /// Blocks for as long as the tables are large.
    ///
    /// # Errors
    /// If the kernel does not let a table be read or changed.
    pub fn round(&mut self, idle: Duration) -> Result<FlowCounts, DatapathError> {
        let now = now();
        let (tracked, established) = self
            .flows
            .forget_if(|key, flow| Ok(is_over(key, flow, now, idle)))?;
        let (half_open, begun) = self
            .half_open
            .forget_if(|_, flow| Ok(is_past(flow, now, HALF_OPEN)))?;
        let (flows, half_open_flows) = (&self.flows, &self.half_open);
        let is_orphan = |key: &FlowKey, reply: &Reply| {
            has_flow([flows, half_open_flows, flows], key, reply).map(|has| !has)
        };
        self.replies.forget_if(is_orphan)?;
        self.half_open_replies.forget_if(is_orphan)?;
        Ok(FlowCounts {
            tracked,
            half_open,
            removed: established + begun,
        })
    }
}

/// The program inserts into one table before it removes from the other, so a flow on its way from
/// the second to the first is missed only by looking in that order; hence the third look.
fn has_flow(
    tables: [&Table<Flow>; 3],
    key: &FlowKey,
    reply: &Reply,
) -> Result<bool, DatapathError> {
    let client = FlowKey::new(
        reply.client,
        reply.vip,
        u16::from_be_bytes(reply.client_port),
        u16::from_be_bytes(reply.vip_port),
        key.protocol(),
    );
    for table in tables {
        let flow = table.get(&client)?;
        if flow.is_some_and(|flow| u16::from_be_bytes(flow.nat_port) == key.destination_port()) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// One table, with its name for errors.
#[derive(Debug)]
struct Table<V: aya::Pod> {
    map: HashMap<MapData, FlowKey, V>,
    name: &'static str,
    capacity: u32,
}

impl<V: aya::Pod> Table<V> {
    fn take(ebpf: &mut Ebpf, name: &'static str, capacity: u32) -> Result<Self, DatapathError> {
        let map = take(ebpf, name)?;
        Ok(Self {
            map,
            name,
            capacity,
        })
    }

    fn get(&self, key: &FlowKey) -> Result<Option<V>, DatapathError> {
        match self.map.get(key, 0) {
            Ok(value) => Ok(Some(value)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(failed(self.name, "read")(error)),
        }
    }

    /// Removes what `is_over` says is over; returns how many stay and how many went.
    ///
    /// An entry is looked at again right before it goes: it may have come to life since.
    fn forget_if(
        &mut self,
        is_over: impl Fn(&FlowKey, &V) -> Result<bool, DatapathError>,
    ) -> Result<(u64, u64), DatapathError> {
        let mut over = Vec::new();
        let mut stay = 0;
        // The kernel starts again from the front when the last key was removed meanwhile: without a
        // bound a flood could keep the walk going.
        for entry in self.map.iter().take(self.capacity as usize * 2) {
            let (key, value) = match entry {
                Ok(entry) => entry,
                Err(MapError::KeyNotFound) => continue,
                Err(error) => return Err(failed(self.name, "read")(error)),
            };
            if is_over(&key, &value)? {
                over.push(key);
            } else {
                stay += 1;
            }
        }
        let mut gone = 0;
        for key in over {
            let Some(value) = self.get(&key)? else {
                continue;
            };
            if is_over(&key, &value)? {
                self.forget(&key)?;
                gone += 1;
            } else {
                stay += 1;
            }
        }
        Ok((stay, gone))
    }

    fn forget(&mut self, key: &FlowKey) -> Result<(), DatapathError> {
        match self.map.remove(key) {
            Err(MapError::KeyNotFound) => Ok(()),
            other => other.map_err(failed(self.name, "updated")),
        }
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
    is_past(flow, now, limit)
}

fn is_past(flow: &Flow, now: Tick, limit: Duration) -> bool {
    u64::from(now.since(Tick(flow.seen))) > ticks(limit)
}

/// Rounded down: [`is_past`] asks for more than that.
fn ticks(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos() >> 30).unwrap_or(u64::MAX)
}

/// The kernel's clock of flows.
pub(super) fn now() -> Tick {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let nanos = time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs();
    Tick::from_nanos(nanos)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use lb_common::abi::{
        Flow, FlowKey, FlowState, Ip, KeepAlive, PROTOCOL_TCP, PROTOCOL_UDP, Tick,
    };

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
            client_way: 0,
            keep_alive: KeepAlive::NONE,
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
        assert!(!over(PROTOCOL_TCP, FlowState::Closing, minute / 2));
        assert!(over(PROTOCOL_TCP, FlowState::Closing, 2 * minute));
        assert!(!over(PROTOCOL_TCP, FlowState::Reset, minute + minute / 2));
        assert!(over(PROTOCOL_TCP, FlowState::Reset, 3 * minute));
        assert!(over(PROTOCOL_UDP, FlowState::Established, 3 * minute));
    }

    #[test]
    fn a_time_stamp_from_the_future_is_not_old() {
        assert_eq!(Tick(5).since(Tick(9)), 0);
    }
}
