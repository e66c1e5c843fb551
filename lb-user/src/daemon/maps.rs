//! What the event loop needs of the kernel's maps: the datapath's, or a test's.

use std::{collections::BTreeMap, time::Duration};

use lb_common::{
    abi::{BackendId, GuardCounts, MqttPackets, ServiceId, Tick, Traffic},
    verdict::Verdict,
};

use crate::{
    core::{image::MapOp, load::Census},
    io::datapath::{self, Datapath},
};

/// The kernel's maps. Calls are short, so the loop makes them in line.
pub(super) trait Maps: Send + 'static {
    /// Takes the steps of a change, in order, up to the first that fails.
    fn apply(&mut self, steps: &[MapOp]) -> anyhow::Result<()>;
    /// Corrects what the program counts of the flows of an id's user, by its epoch.
    fn correct_load(&mut self, id: BackendId, epoch: u16, census: &Census) -> anyhow::Result<()>;
    /// The flows of an id's user, as the program counts them, where it does.
    fn open_flows(&self, id: BackendId) -> anyhow::Result<u64>;
    /// The longest keep-alive that a client of a service id's users has asked for.
    fn longest_keep_alive(&self, id: ServiceId) -> anyhow::Result<Option<Duration>>;
    /// Takes in what a client has asked for at another node.
    fn raise_keep_alive(&mut self, id: ServiceId, to: Duration) -> anyhow::Result<()>;
    /// Forgets that, before the id gets another user.
    fn forget_keep_alive(&mut self, id: ServiceId) -> anyhow::Result<()>;
    /// The clock of flows.
    fn now(&self) -> Tick;
    /// Packets by how they ended, since the program was loaded.
    fn verdicts(&self) -> anyhow::Result<BTreeMap<Verdict, u64>>;
    /// What went through the users of a backend id.
    fn backend_traffic(&self, id: BackendId) -> anyhow::Result<Traffic>;
    /// What was dropped for the users of a service id before a backend was chosen.
    fn service_traffic(&self, id: ServiceId) -> anyhow::Result<Traffic>;
    /// MQTT packets that clients sent to the users of a service id.
    fn mqtt_packets(&self, id: ServiceId) -> anyhow::Result<MqttPackets>;
    /// What the guard did for the users of a service id.
    fn guard_counts(&self, id: ServiceId) -> anyhow::Result<GuardCounts>;
}

impl Maps for Datapath {
    fn apply(&mut self, steps: &[MapOp]) -> anyhow::Result<()> {
        Ok(Self::apply(self, steps)?)
    }

    fn correct_load(&mut self, id: BackendId, epoch: u16, census: &Census) -> anyhow::Result<()> {
        Ok(Self::correct_load(self, id, epoch, census)?)
    }

    fn open_flows(&self, id: BackendId) -> anyhow::Result<u64> {
        Ok(Self::open_flows(self, id)?)
    }

    fn longest_keep_alive(&self, id: ServiceId) -> anyhow::Result<Option<Duration>> {
        Ok(Self::longest_keep_alive(self, id)?)
    }

    fn raise_keep_alive(&mut self, id: ServiceId, to: Duration) -> anyhow::Result<()> {
        Ok(Self::raise_keep_alive(self, id, to)?)
    }

    fn forget_keep_alive(&mut self, id: ServiceId) -> anyhow::Result<()> {
        Ok(Self::forget_keep_alive(self, id)?)
    }

    fn now(&self) -> Tick {
        datapath::now()
    }

    fn verdicts(&self) -> anyhow::Result<BTreeMap<Verdict, u64>> {
        Ok(Self::verdicts(self)?)
    }

    fn backend_traffic(&self, id: BackendId) -> anyhow::Result<Traffic> {
        Ok(Self::backend_traffic(self, id)?)
    }

    fn service_traffic(&self, id: ServiceId) -> anyhow::Result<Traffic> {
        Ok(Self::service_traffic(self, id)?)
    }

    fn mqtt_packets(&self, id: ServiceId) -> anyhow::Result<MqttPackets> {
        Ok(Self::mqtt_packets(self, id)?)
    }

    fn guard_counts(&self, id: ServiceId) -> anyhow::Result<GuardCounts> {
        Ok(Self::guard_counts(self, id)?)
    }
}
