//! Carrying out the steps of a change.

use std::{borrow::Borrow, time::Duration};

use aya::{
    Pod,
    maps::{Array, MapData, MapError, lpm_trie::Key},
};
use lb_common::abi::{
    self, Access, AccessKey, Backend, BackendId, GENERATIONS, ServiceId, Slot, SlotLine,
    TABLE_LINES,
};

use super::{Datapath, DatapathError, error::failed};
use crate::config::model::Prefix;
use crate::core::image::{MapOp, Setting, Table};

impl Datapath {
    /// Carries out the steps of a change, in their order.
    ///
    /// # Errors
    /// At the first step that fails; the earlier ones stand. Steps may be repeated.
    pub fn apply(&mut self, ops: &[MapOp]) -> Result<(), DatapathError> {
        ops.iter().try_for_each(|op| self.step(op))?;
        // The next change may give a removed backend's entry to another: packets that still found it
        // serving must have left by then.
        if ops.iter().any(|op| matches!(op, MapOp::RemoveBackend(_))) {
            await_grace_period();
        }
        Ok(())
    }

    fn step(&mut self, op: &MapOp) -> Result<(), DatapathError> {
        match op {
            MapOp::Set(setting) => self.set_setting(setting),
            MapOp::SetBackend(id, backend) => {
                let backend = self.with_correction(*id, *backend)?;
                self.write_backend(*id, backend)
            }
            MapOp::RemoveBackend(id) => self.retire_backend(*id),
            MapOp::SetAccess(service, entries) => self.set_access(*service, entries),
            MapOp::RemoveAccess(service, prefixes) => self.remove_access(*service, prefixes),
            MapOp::WriteTable {
                service,
                generation,
                table,
            } => self.write_table(*service, *generation, table),
            MapOp::SetService(key, service) => self.services.set(key, service),
            MapOp::RemoveService(key) => self.services.remove(key),
            MapOp::AwaitGracePeriod => {
                await_grace_period();
                self.services.note_grace_period();
                Ok(())
            }
        }
    }

    fn set_setting(&mut self, setting: &Setting) -> Result<(), DatapathError> {
        match setting {
            Setting::NatPool(pool) => set(&mut self.nat_pool, abi::NAT_POOL, 0, **pool),
            Setting::TunnelSources(sources) => {
                set(&mut self.tunnel_sources, abi::TUNNEL_SOURCES, 0, **sources)
            }
            Setting::OwnMac(mac) => set(&mut self.own_mac, abi::OWN_MAC, 0, *mac),
            Setting::Rates(id, rates) => set(&mut self.rates, abi::RATES, u32::from(id.0), *rates),
        }
    }

    pub(super) fn write_backend(
        &mut self,
        id: BackendId,
        backend: Backend,
    ) -> Result<(), DatapathError> {
        set(&mut self.backends, abi::BACKENDS, u32::from(id.0), backend)
    }

    pub(super) fn backend_entry(&self, id: BackendId) -> Result<Backend, DatapathError> {
        let entry = self.backends.get(&u32::from(id.0), 0);
        entry.map_err(failed(abi::BACKENDS, "read"))
    }

    fn retire_backend(&mut self, id: BackendId) -> Result<(), DatapathError> {
        let old = self.backend_entry(id)?;
        self.write_backend(id, old.retired())
    }

    fn set_access(
        &mut self,
        service: ServiceId,
        entries: &[(Prefix, Access)],
    ) -> Result<(), DatapathError> {
        for (prefix, access) in entries {
            self.access
                .insert(&access_key(service, prefix), *access as u32, 0)
                .map_err(failed(abi::ACCESS, "updated"))?;
        }
        Ok(())
    }

    fn remove_access(
        &mut self,
        service: ServiceId,
        prefixes: &[Prefix],
    ) -> Result<(), DatapathError> {
        for prefix in prefixes {
            match self.access.remove(&access_key(service, prefix)) {
                Err(error) if is_missing(&error) => {}
                other => other.map_err(failed(abi::ACCESS, "updated"))?,
            }
        }
        Ok(())
    }

    fn write_table(
        &mut self,
        service: ServiceId,
        generation: u32,
        table: &Table,
    ) -> Result<(), DatapathError> {
        if let Some(pinned) = &mut self.pinned {
            pinned.note(service, generation, table.holds.until())?;
        }
        let first = (u32::from(service.0) * GENERATIONS + generation) * TABLE_LINES;
        let ring = first + abi::SLOT_LINES;
        for (line, slots) in (first..).zip(lines(table.entries())) {
            set(&mut self.slots, abi::SLOTS, line, slots)?;
        }
        for (line, slots) in (ring..).zip(lines(table.ring.iter().copied().map(Slot::safe))) {
            set(&mut self.slots, abi::SLOTS, line, slots)?;
        }
        Ok(())
    }
}

fn access_key(service: ServiceId, prefix: &Prefix) -> Key<AccessKey> {
    let bits = AccessKey::prefix_bits(prefix.is_v4(), prefix.length());
    Key::new(bits, AccessKey::new(service, prefix.address()))
}

/// Whether there is no such key: of what is to be removed, aya says so by an error of the system call.
pub(super) fn is_missing(error: &MapError) -> bool {
    matches!(error, MapError::KeyNotFound) || super::errno(error) == Some(libc::ENOENT)
}

fn set<V: Pod>(
    map: &mut Array<MapData, V>,
    name: &'static str,
    index: u32,
    value: impl Borrow<V>,
) -> Result<(), DatapathError> {
    map.set(index, value, 0).map_err(failed(name, "updated"))
}

/// Packs slots into map values; the places behind the last one are never read.
fn lines(mut slots: impl Iterator<Item = Slot>) -> impl Iterator<Item = SlotLine> {
    std::iter::from_fn(move || {
        let mut line = SlotLine::default();
        let mut places = line.0.iter_mut();
        *places.next()? = slots.next()?;
        for (place, slot) in places.zip(&mut slots) {
            *place = slot;
        }
        Some(line)
    })
}

/// Waits until no CPU runs a program that began before the call.
///
/// `MEMBARRIER_CMD_GLOBAL` waits for an RCU grace period, and an XDP program runs inside an RCU
/// read-side section. Kernels that isolate CPUs refuse it; then a pause that is thousands of times
/// a packet's stay has to do.
pub(super) fn await_grace_period() {
    const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;
    // SAFETY: the system call takes integers only and touches no memory of ours.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if result != 0 {
        std::thread::sleep(Duration::from_millis(20));
    }
}
