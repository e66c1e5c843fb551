//! Reading what the program counts.

use std::{collections::BTreeMap, time::Duration};

use lb_common::{
    abi::{self, BackendId, GuardCounts, MqttPackets, ServiceId, Traffic},
    verdict::Verdict,
};

use super::{Datapath, DatapathError, error::failed};

impl Datapath {
    /// How many packets ended in each way since the program was loaded.
    ///
    /// # Errors
    /// If the kernel does not give its counters.
    pub fn verdicts(&self) -> Result<BTreeMap<Verdict, u64>, DatapathError> {
        let read = |verdict: &Verdict| {
            let per_cpu = self.verdicts.get(&verdict.slot(), 0);
            let per_cpu = per_cpu.map_err(failed(abi::VERDICTS, "read"))?;
            Ok((*verdict, per_cpu.iter().sum()))
        };
        Verdict::ALL.iter().map(read).collect()
    }

    /// What went through a backend since the program was loaded, by whomever had its id.
    ///
    /// # Errors
    /// If the kernel does not give its counters.
    pub fn backend_traffic(&self, id: BackendId) -> Result<Traffic, DatapathError> {
        let per_cpu = self.backend_traffic.get(&u32::from(id.0), 0);
        Ok(sum(per_cpu
            .map_err(failed(abi::BACKEND_TRAFFIC, "read"))?
            .iter()))
    }

    /// What of a service's traffic was dropped.
    ///
    /// # Errors
    /// If the kernel does not give its counters.
    pub fn service_traffic(&self, id: ServiceId) -> Result<Traffic, DatapathError> {
        let per_cpu = self.service_traffic.get(&u32::from(id.0), 0);
        Ok(sum(per_cpu
            .map_err(failed(abi::SERVICE_TRAFFIC, "read"))?
            .iter()))
    }

    /// The MQTT packets that clients sent to the users of a service id, by type.
    ///
    /// # Errors
    /// If the kernel does not give its counters.
    pub fn mqtt_packets(&self, id: ServiceId) -> Result<MqttPackets, DatapathError> {
        let per_cpu = self.mqtt_packets.get(&u32::from(id.0), 0);
        let per_cpu = per_cpu.map_err(failed(abi::MQTT_PACKETS, "read"))?;
        let mut total = MqttPackets::default();
        for cpu in per_cpu.iter() {
            total = total.combine(*cpu, u64::wrapping_add);
        }
        Ok(total)
    }

    /// The longest keep-alive that a client of a service id's users has asked for; `None` if none
    /// has.
    ///
    /// # Errors
    /// If the kernel does not let it be read.
    pub fn longest_keep_alive(&self, id: ServiceId) -> Result<Option<Duration>, DatapathError> {
        let seconds = self.keep_alives.get(&u32::from(id.0), 0);
        let seconds = seconds.map_err(failed(abi::KEEP_ALIVES, "read"))?;
        Ok((seconds > 0).then(|| Duration::from_secs(seconds.into())))
    }

    /// Takes in what a client has asked for elsewhere.
    ///
    /// # Errors
    /// If the kernel does not let it be read or written.
    pub fn raise_keep_alive(&mut self, id: ServiceId, to: Duration) -> Result<(), DatapathError> {
        if self.longest_keep_alive(id)? >= Some(to) {
            return Ok(());
        }
        // A CONNECT has two bytes for it.
        let seconds = to.as_secs().min(u16::MAX.into()) as u32;
        let written = self.keep_alives.set(u32::from(id.0), seconds, 0);
        written.map_err(failed(abi::KEEP_ALIVES, "written"))
    }

    /// Forgets the longest keep-alive, before a service id gets another user.
    ///
    /// # Errors
    /// If the kernel does not let it be written.
    pub fn forget_keep_alive(&mut self, id: ServiceId) -> Result<(), DatapathError> {
        let written = self.keep_alives.set(u32::from(id.0), 0, 0);
        written.map_err(failed(abi::KEEP_ALIVES, "written"))
    }

    /// What a service's guard did.
    ///
    /// # Errors
    /// If the kernel does not give its counters.
    pub fn guard_counts(&self, id: ServiceId) -> Result<GuardCounts, DatapathError> {
        let per_cpu = self.guard_counts.get(&u32::from(id.0), 0);
        let per_cpu = per_cpu.map_err(failed(abi::GUARD_COUNTS, "read"))?;
        let add = |total: GuardCounts, cpu: &GuardCounts| total.combine(*cpu, u64::wrapping_add);
        Ok(per_cpu.iter().fold(GuardCounts::default(), add))
    }
}

fn sum<'a>(per_cpu: impl Iterator<Item = &'a Traffic>) -> Traffic {
    per_cpu.fold(Traffic::default(), |total, cpu| {
        total.combine(*cpu, u64::wrapping_add)
    })
}
