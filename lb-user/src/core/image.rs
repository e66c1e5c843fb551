//! All that the kernel holds for us, as one value, and the steps between two such values.
//!
//! [`MapImage`] is what the maps should contain. `diff` turns two of them into [`MapOp`]s in an
//! order in which no packet meets half a change. Start, reload and health changes all take this
//! path. Effects are the datapath's; nothing here touches a map.

use std::{collections::BTreeMap, sync::Arc};

use lb_common::abi::{
    Backend, BackendId, Balance, Forward, Ip, NatPool, NextHop, Service, ServiceId, ServiceKey,
};

/// What the kernel's maps should contain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapImage {
    pub services: BTreeMap<ServiceKey, ServiceImage>,
    pub backends: BTreeMap<BackendId, BackendImage>,
    pub nat_pool: NatPool,
}

/// One service with its table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceImage {
    pub id: ServiceId,
    pub balance: Balance,
    pub forward: Forward,
    /// Which half of its table space holds `table`: 0 or 1; flips when the table changes.
    pub generation: u32,
    pub table: Arc<Table>,
}

/// Which backend takes which new flow. Empty if none takes any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// The owner of every slot: [`lb_common::abi::SLOT_COUNT`] of them, or none.
    pub slots: Vec<BackendId>,
    /// The order of turns: up to [`lb_common::abi::RING_SIZE`], empty only if `slots` is.
    pub ring: Vec<BackendId>,
}

/// One backend of one service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackendImage {
    pub address: Ip,
    pub port: u16,
    pub service: ServiceId,
    /// Differs from that of the id's previous user.
    pub epoch: u16,
    pub next_hop: Option<NextHop>,
}

/// One step of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MapOp {
    SetNatPool(Box<NatPool>),
    SetBackend(BackendId, Backend),
    /// Fills the half that no packet reads.
    WriteTable { service: ServiceId, generation: u32, table: Arc<Table> },
    /// Makes a written table the active one.
    SetService(ServiceKey, Service),
    RemoveService(ServiceKey),
    /// Waits until every packet that may have read a replaced entry has left the program.
    AwaitGracePeriod,
    RemoveBackend(BackendId),
}
