//! All that the kernel holds for us, as one value, and the steps between two such values.
//!
//! [`MapImage`] is what the maps should contain. [`super::plan`] makes the next one and turns the
//! difference into [`MapOp`]s in an order in which no packet meets half a change. Start, reload and
//! health changes all take this path. Effects are the datapath's; nothing here touches a map.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use lb_common::abi::{
    Access, Backend, BackendId, Balance, Encapsulation, Features, Forward, Ip, NatPool, NextHop,
    OwnMac, Rates, Service, ServiceId, ServiceKey, Slot, Tick, TunnelSources,
};

use crate::config::model::{AccessList, Prefix};
use crate::core::maglev::Lender;
use crate::core::slots::{Holds, State};

/// What the kernel's maps should contain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapImage {
    pub services: BTreeMap<ServiceKey, ServiceImage>,
    pub backends: BTreeMap<BackendId, BackendImage>,
    pub nat_pool: NatPool,
    pub tunnel_sources: TunnelSources,
    pub own_mac: OwnMac,
    /// The last epoch of every id that was ever used: flows recorded for its former users may still
    /// be there. Not in the maps.
    pub epochs: BTreeMap<BackendId, u16>,
    /// Who gave up an id lately, and gets it back with its epoch and its flows if it returns in time.
    /// Not in the maps.
    pub fallen: BTreeMap<BackendId, Fallen>,
}

impl MapImage {
    /// Maps that nobody has written to.
    #[must_use]
    pub const fn empty() -> Self {
        Self {
            services: BTreeMap::new(),
            backends: BTreeMap::new(),
            nat_pool: NatPool::EMPTY,
            tunnel_sources: TunnelSources::EMPTY,
            own_mac: OwnMac::UNKNOWN,
            epochs: BTreeMap::new(),
            fallen: BTreeMap::new(),
        }
    }

    /// Where each backend is: looking for one after the other would take a look at all for each.
    #[must_use]
    pub fn backend_index(&self) -> BackendIndex {
        let backends = self.backends.iter();
        backends
            .map(|(&id, backend)| ((backend.service, backend.address, backend.port), id))
            .collect()
    }
}

/// The id of every backend by its service, address and port.
pub type BackendIndex = BTreeMap<(ServiceId, Ip, u16), BackendId>;

/// One service with its table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceImage {
    pub id: ServiceId,
    pub balance: Balance,
    pub forward: Forward,
    pub tunnel: Tunnel,
    pub features: Features,
    /// How many connections may start, if [`Features::rates`] is set.
    pub rates: Rates,
    /// Which clients may connect, if [`Features::access_list`] is set.
    pub access: Arc<AccessList>,
    /// How long a live session may be silent. Not in the maps.
    pub window: Duration,
    /// Whether this node stands by for a peer that tells it of flows: these have not passed here. Not
    /// in the maps.
    pub is_standby: bool,
    /// Which half of its table space holds `table`: 0 or 1; flips when the table changes.
    pub generation: u32,
    pub table: Arc<Table>,
}

/// The form of a service's tunnels, if it uses any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tunnel {
    pub encapsulation: Encapsulation,
    /// Where GUE is received.
    pub port: u16,
}

impl ServiceImage {
    /// Whether any backend takes new flows.
    #[must_use]
    pub fn is_up(&self) -> bool {
        !self.table.ring.is_empty()
    }

    /// Whether all its flows are in the flow tables, whatever their slots.
    #[must_use]
    pub const fn records_all(&self) -> bool {
        records_all(self.balance, self.forward)
    }

    /// The share of new flows that each backend of the table takes, 0 to 1.
    #[must_use]
    pub fn shares(&self) -> BTreeMap<BackendId, f64> {
        let places = match self.balance {
            Balance::Maglev | Balance::Source => &self.table.slots,
            Balance::RoundRobin | Balance::LeastConn => &self.table.ring,
        };
        let places = places.iter().filter(|owner| **owner != BackendId::NONE);
        let places: Vec<BackendId> = places.copied().collect();
        let most = places.iter().map(|owner| owner.0).max();
        let mut owned = vec![0_u32; most.map_or(0, |most| usize::from(most) + 1)];
        for owner in &places {
            owned[usize::from(owner.0)] += 1;
        }
        let whole = places.len() as f64;
        (0..)
            .zip(owned)
            .filter(|&(_, owned)| owned > 0)
            .map(|(id, owned)| (BackendId(id), f64::from(owned) / whole))
            .collect()
    }
}

/// Whether all flows of such a service are in the flow tables: mixed slots are as good as safe then.
#[must_use]
pub const fn records_all(balance: Balance, forward: Forward) -> bool {
    balance.is_tracked() || matches!(forward, Forward::Nat)
}

/// Which backend takes which new flow. Empty if none takes any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// What it was made from: who takes new flows, and the weight of each, never 0.
    pub weights: BTreeMap<BackendId, u16>,
    /// What it was made from besides: who is down, so that its slots are lent to the others.
    pub lenders: BTreeSet<Lender>,
    /// The owner of every slot: [`lb_common::abi::SLOT_COUNT`] of them, or none. If nobody takes new
    /// flows while some slots still have old ones, it is [`BackendId::NONE`] of all.
    pub slots: Vec<BackendId>,
    /// The slots that flows are looked up in.
    pub holds: Holds,
    /// Whether some slots have kept an owner that they should not have, for want of room to record
    /// its flows.
    pub deferred: bool,
    /// The order of turns: up to [`lb_common::abi::RING_SIZE`], empty if nobody takes new flows.
    pub ring: Vec<BackendId>,
    /// Who has no turn for being full, so that the program finds the others.
    pub left_out: BTreeSet<BackendId>,
}

impl Table {
    /// All slots as the kernel has them.
    pub fn entries(&self) -> impl Iterator<Item = Slot> + '_ {
        let mut holds = self.holds.iter().peekable();
        (0..).zip(&self.slots).map(move |(slot, &owner)| {
            let held = holds.next_if(|&(at, _)| at == slot);
            held.map_or(State::Safe, |(_, state)| state).slot(owner)
        })
    }
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
    pub weight: u16,
    /// The most flows it takes; 0: any number.
    pub limit: u32,
    /// Whether the program counts its flows.
    pub counted: bool,
    /// The largest IP packet on the way to it, in bytes; 0: not known.
    pub mtu: u16,
    /// Whether it takes no new flows and had no session left: see [`super::settle::settle`].
    pub emptied: bool,
}

/// A backend that packets are not sent to for the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fallen {
    pub address: Ip,
    pub port: u16,
    pub service: ServiceId,
    pub epoch: u16,
    /// How long its flows are kept.
    pub until: Tick,
}

/// What packets find without a way through tables, hence may change at any time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Setting {
    NatPool(Box<NatPool>),
    TunnelSources(Box<TunnelSources>),
    OwnMac(OwnMac),
    Rates(ServiceId, Rates),
}

/// One step of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MapOp {
    Set(Setting),
    SetBackend(BackendId, Backend),
    /// Says of prefixes whether their clients may connect.
    SetAccess(ServiceId, Vec<(Prefix, Access)>),
    /// Takes back what was said of prefixes.
    RemoveAccess(ServiceId, Vec<Prefix>),
    /// Fills the half that no packet reads.
    WriteTable {
        service: ServiceId,
        generation: u32,
        table: Arc<Table>,
    },
    /// Makes a written table the active one.
    SetService(ServiceKey, Service),
    RemoveService(ServiceKey),
    /// Waits until every packet that may have read a replaced entry has left the program.
    AwaitGracePeriod,
    RemoveBackend(BackendId),
}
