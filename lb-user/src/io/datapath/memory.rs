//! How much memory the kernel takes for the maps, known before they are made.
//!
//! As the kernel's own `map_mem_usage` functions have it (kernel/bpf/arraymap.c, hashtab.c): maps
//! take all their memory when they are made, except that of prefixes, which comes and goes with them.

use std::mem::size_of;

use lb_common::abi::{
    self, Backend, Bucket, Flow, FlowKey, Fragment, FragmentKey, GuardCounts, Load, MqttPackets,
    Rates, Reply, Service, ServiceKey, SlotLine, SourceKey, Traffic,
};

use super::Limits;
use crate::config::model;

/// What decides about the size of a map's entry.
#[derive(Clone, Copy)]
enum Shape {
    Array { value: usize },
    PerCpuArray { value: usize },
    Hash { key: usize, value: usize },
    Trie,
}

impl Shape {
    /// The kernel's own part of an entry of a hash map: `struct htab_elem`.
    const ELEMENT: usize = 48;
    /// The head of a list of entries: `struct bucket`.
    const BUCKET: usize = 16;
    /// Of a per-CPU array, one an entry.
    const POINTER: usize = 8;

    const fn array<V>() -> Self {
        let value = size_of::<V>();
        Self::Array { value }
    }

    const fn per_cpu_array<V>() -> Self {
        let value = size_of::<V>();
        Self::PerCpuArray { value }
    }

    const fn hash<K, V>() -> Self {
        let (key, value) = (size_of::<K>(), size_of::<V>());
        Self::Hash { key, value }
    }

    fn bytes(self, entries: u32, cpus: usize) -> u64 {
        let padded = |size: usize| size.next_multiple_of(8);
        let number = entries as usize;
        let bytes = match self {
            Self::Array { value } => number * padded(value),
            Self::PerCpuArray { value } => number * (Self::POINTER + padded(value) * cpus),
            Self::Hash { key, value } => {
                let element = Self::ELEMENT + padded(key) + padded(value);
                number * element + number.next_power_of_two() * Self::BUCKET
            }
            Self::Trie => 0,
        };
        bytes as u64
    }
}

/// Every map whose size is not fixed.
const SHAPES: [(&str, Shape); 21] = [
    (abi::SERVICES, Shape::hash::<ServiceKey, Service>()),
    (abi::BACKENDS, Shape::array::<Backend>()),
    (abi::SLOTS, Shape::array::<SlotLine>()),
    (abi::RING_POSITIONS, Shape::array::<u64>()),
    (abi::LOADS, Shape::array::<Load>()),
    (abi::FLOWS, Shape::hash::<FlowKey, Flow>()),
    (abi::REPLIES, Shape::hash::<FlowKey, Reply>()),
    (abi::HALF_OPEN, Shape::hash::<FlowKey, Flow>()),
    (abi::HALF_OPEN_REPLIES, Shape::hash::<FlowKey, Reply>()),
    (abi::FRAGMENTS, Shape::hash::<FragmentKey, Fragment>()),
    (abi::SERVICE_TRAFFIC, Shape::per_cpu_array::<Traffic>()),
    (abi::BACKEND_TRAFFIC, Shape::per_cpu_array::<Traffic>()),
    (abi::RATES, Shape::array::<Rates>()),
    (abi::MQTT_PACKETS, Shape::per_cpu_array::<MqttPackets>()),
    (abi::KEEP_ALIVES, Shape::array::<u32>()),
    (abi::GUARD_COUNTS, Shape::per_cpu_array::<GuardCounts>()),
    (abi::SERVICE_BUCKETS, Shape::array::<Bucket>()),
    (abi::SOURCE_BUCKETS, Shape::hash::<SourceKey, Bucket>()),
    (abi::ANSWERED, Shape::hash::<SourceKey, u32>()),
    (abi::ACCESS, Shape::Trie),
    (abi::FLOWS_FULL, Shape::array::<u32>()),
];

impl Limits {
    /// Bytes that the kernel takes for the maps on a machine of so many possible CPUs, not counting
    /// prefixes of clients.
    #[must_use]
    pub fn map_memory(self, cpus: usize) -> u64 {
        let bytes = |(name, entries)| Some(shape(name)?.bytes(entries, cpus));
        self.entries().into_iter().filter_map(bytes).sum()
    }

    /// Bytes that the kernel takes for one tracked flow of `flows` that there is room for.
    #[must_use]
    pub fn flow_memory(flows: u32) -> f64 {
        let bytes = Shape::hash::<FlowKey, Flow>().bytes(flows, 1);
        bytes as f64 / f64::from(flows)
    }
}

/// Bytes that the kernel takes for the ring in which so many bytes of new flows are reported: its data,
/// each page of which is mapped twice, so that no report is cut in two, and its head.
#[must_use]
pub fn ring_memory(bytes: u32) -> u64 {
    const PAGE: u64 = 4_096;
    /// What is before the data, and accounted twice (kernel/bpf/ringbuf.c).
    const HEAD: u64 = 3;
    if bytes == 0 {
        return 0;
    }
    let pages = u64::from(bytes).div_ceil(PAGE);
    (pages + 2 * HEAD) * PAGE + (2 * pages + HEAD) * Shape::POINTER as u64
}

/// CPUs that the machine may have: each has its own values of some maps.
#[must_use]
pub fn possible_cpus() -> usize {
    aya::util::nr_cpus().unwrap_or(1)
}

fn shape(name: &str) -> Option<Shape> {
    let mut shapes = SHAPES.into_iter();
    shapes.find_map(|(known, shape)| (known == name).then_some(shape))
}

impl From<model::Limits> for Limits {
    fn from(limits: model::Limits) -> Self {
        let ids = |limit| u16::try_from(limit).unwrap_or(u16::MAX);
        Self {
            services: ids(limits.services),
            backends: ids(limits.backends),
            flows: limits.flows,
            half_open: limits.half_open,
            access_entries: limits.access_entries,
            fragments: limits.fragments,
            sources: limits.sources,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Limits, ring_memory, shape};
    use crate::config;

    const NOTHING: Limits = Limits {
        services: 0,
        backends: 0,
        flows: 0,
        half_open: 0,
        access_entries: 0,
        fragments: 0,
        sources: 0,
    };

    /// What `more` takes on four CPUs beyond nothing.
    fn taken(more: Limits) -> u64 {
        more.map_memory(4) - NOTHING.map_memory(4)
    }

    #[test]
    fn every_map_has_a_shape() {
        for (name, _) in NOTHING.entries() {
            assert!(shape(name).is_some(), "{name} is not counted");
        }
    }

    #[test]
    fn a_million_sessions_take_less_than_128_bytes_each() {
        assert!(Limits::flow_memory(1_000_000) < 121.0);
        // No capacity has more than two buckets an entry.
        assert!(Limits::flow_memory((1 << 20) + 1) < 136.0);
    }

    #[test]
    fn flows_take_a_record_and_room_for_replies() {
        let flows = 1 << 20;
        let million = taken(Limits { flows, ..NOTHING });
        let each = (48 + 40 + 16 + 16) + (48 + 40 + 64 + 16);
        assert_eq!(million, u64::from(flows) * each - 2 * 16);
    }

    #[test]
    fn a_service_takes_two_tables() {
        let services = 100;
        let hundred = taken(Limits {
            services,
            ..NOTHING
        });
        let tables = 100 * 2 * (4_097 + 64) * 64;
        assert!(hundred > tables && hundred < tables * 102 / 100);
    }

    #[test]
    fn prefixes_take_nothing_before_they_are_there() {
        let access_entries = 200_000;
        let limits = Limits {
            access_entries,
            ..NOTHING
        };
        assert_eq!(taken(limits), 0);
    }

    #[test]
    fn a_ring_takes_its_data_and_little_more() {
        assert_eq!(ring_memory(0), 0);
        let ring = ring_memory(1 << 20);
        assert!(ring > 1 << 20 && ring < (1 << 20) * 103 / 100, "{ring}");
    }

    #[test]
    fn the_documentation_has_the_default() {
        let text = include_str!("../../../configs/tidegate-dsr.toml");
        let config = config::parse(text, "t.toml").unwrap();
        let mebibytes = Limits::from(config.limits()).map_memory(2) >> 20;
        let page = include_str!("../../../../docs/configuration.md");
        assert!(
            page.contains(&format!("{mebibytes} MiB")),
            "{mebibytes} MiB"
        );
    }
}
