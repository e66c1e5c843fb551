//! What is sent, by names that both nodes know.

use std::net::IpAddr;

use lb_common::abi::{BackendId, FlowKey, FlowState, SLOT_COUNT, ServiceKey, Tick};
use serde::{Deserialize, Serialize};

use super::sender::Value;
use crate::core::slots::{Holds, State};

/// By how many ticks a flow has to be younger for the peer to hear of nothing else about it. The peer
/// takes it for so much younger than it was told, or it would forget flows that go on.
pub const REFRESH: u32 = 16;

/// A service: VIP, port, protocol number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ServiceName {
    pub vip: IpAddr,
    pub port: u16,
    pub protocol: u8,
}

impl From<ServiceKey> for ServiceName {
    fn from(key: ServiceKey) -> Self {
        Self {
            vip: key.vip().into(),
            port: key.port(),
            protocol: key.protocol(),
        }
    }
}

impl From<ServiceName> for ServiceKey {
    fn from(name: ServiceName) -> Self {
        Self::new(name.vip.into(), name.port, name.protocol)
    }
}

/// A backend of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BackendName {
    pub address: IpAddr,
    pub port: u16,
}

/// A client's flow to a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FlowName {
    pub service: ServiceName,
    pub client: IpAddr,
    pub port: u16,
}

impl From<&FlowKey> for FlowName {
    fn from(key: &FlowKey) -> Self {
        Self {
            service: key.service().into(),
            client: key.source().into(),
            port: key.source_port(),
        }
    }
}

impl From<&FlowName> for FlowKey {
    fn from(name: &FlowName) -> Self {
        let ServiceName {
            vip,
            port,
            protocol,
        } = name.service;
        Self::new(name.client.into(), vip.into(), name.port, port, protocol)
    }
}

/// What is told of, in the order in which a snapshot does: what depends on others comes after them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Key {
    Flow(FlowName),
    KeepAlive(ServiceName),
    /// It stands for the service as well: of what a snapshot has none of, the receiver keeps its own.
    Slots(ServiceName),
}

/// What is told of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    Flow(FlowRecord),
    /// The longest keep-alive that clients have asked for, in seconds.
    KeepAlive(u32),
    Slots(Box<SlotTable>),
}

/// A recorded flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowRecord {
    pub backend: BackendName,
    /// A [`FlowState`].
    pub state: u8,
    /// As a number.
    pub keep_alive: u16,
    /// Its last packet, by the sender's clock.
    pub seen: u32,
    /// Of a flow that is not translated; see [`lb_common::abi::Flow::sequence`].
    pub sequence: u32,
    pub translation: Option<Box<Translation>>,
}

/// How a flow of `nat` is translated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Translation {
    pub source: IpAddr,
    pub port: u16,
    /// Where the client's packets come from: its MAC address, or its router's.
    pub client: [u8; 6],
}

impl FlowRecord {
    fn outdates(&self, sent: &Self) -> bool {
        let Self {
            backend,
            state,
            keep_alive,
            seen,
            sequence,
            translation,
        } = self;
        let is_over = !FlowState::is_live(*state);
        (*backend, *state, *keep_alive) != (sent.backend, sent.state, sent.keep_alive)
            || *translation != sent.translation
            || is_over && *sequence != sent.sequence
            || Tick(*seen).since(Tick(sent.seen)) >= REFRESH
    }
}

impl Value for Record {
    fn outdates(&self, sent: &Self) -> bool {
        match (self, sent) {
            (Self::Flow(new), Self::Flow(old)) => new.outdates(old),
            (new, old) => new != old,
        }
    }

    fn size(&self) -> usize {
        match self {
            Self::Flow(flow) if flow.translation.is_some() => 80,
            Self::Flow(_) | Self::KeepAlive(_) => 50,
            Self::Slots(table) => 3 * table.owners.len() + 9 * table.holds.len(),
        }
    }

    fn is_measured(&self) -> bool {
        matches!(self, Self::Flow(_))
    }
}

/// Who has the slots of a service, and what is held of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotTable {
    backends: Vec<BackendName>,
    /// By place in `backends`; [`Self::NOBODY`] for none. Empty if nobody takes packets, or if no flow
    /// of the service depends on its slot.
    owners: Vec<u16>,
    /// Slots that are not safe: mixed, or at risk with their previous owner.
    holds: Vec<(u32, Option<u16>)>,
}

impl SlotTable {
    const NOBODY: u16 = u16::MAX;

    /// The table of these owners and states, `name` having a name for each backend that is there.
    #[must_use]
    pub fn new(
        owners: &[BackendId],
        holds: &Holds,
        name: impl Fn(BackendId) -> Option<BackendName>,
    ) -> Self {
        let mut table = Self::default();
        let mut places: Vec<Option<u16>> = Vec::new();
        let mut place = |id: BackendId, backends: &mut Vec<BackendName>| {
            let at = usize::from(id.0);
            if places.len() <= at {
                places.resize(at + 1, None);
            }
            *places[at].get_or_insert_with(|| {
                let Some(name) = name(id) else {
                    return Self::NOBODY;
                };
                backends.push(name);
                // Ids are of 15 bits, so places are.
                u16::try_from(backends.len() - 1).unwrap_or(Self::NOBODY)
            })
        };
        for owner in owners {
            let at = place(*owner, &mut table.backends);
            table.owners.push(at);
        }
        for (slot, state) in holds.iter() {
            let previous = match state {
                State::AtRisk { previous, .. } => Some(place(previous, &mut table.backends)),
                State::Mixed | State::Safe => None,
            };
            table.holds.push((slot, previous));
        }
        table
    }

    /// Whether it is a table at all: it comes from another node.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        let is_known = |at: u16| at == Self::NOBODY || usize::from(at) < self.backends.len();
        let is_whole = self.owners.is_empty() || self.owners.len() == SLOT_COUNT as usize;
        let mut slots = self.holds.iter().map(|(slot, _)| *slot);
        is_whole
            && self.owners.iter().all(|at| is_known(*at))
            && self.holds.iter().all(|(_, at)| at.is_none_or(is_known))
            && slots.clone().is_sorted_by(|a, b| a < b)
            && slots.all(|slot| (slot as usize) < self.owners.len())
    }

    /// The owners and states by the ids that `id` gives to those who are there; each learning window
    /// ends at `until`.
    #[must_use]
    pub fn resolve(
        &self,
        id: impl Fn(&BackendName) -> Option<BackendId>,
        until: Tick,
    ) -> (Vec<BackendId>, Holds) {
        let ids: Vec<BackendId> = self
            .backends
            .iter()
            .map(|name| id(name).unwrap_or(BackendId::NONE))
            .collect();
        let at = |place: u16| {
            let id = ids.get(usize::from(place)).copied();
            id.unwrap_or(BackendId::NONE)
        };
        let owners = self.owners.iter().map(|place| at(*place)).collect();
        let holds = self.holds.iter().map(|&(slot, previous)| {
            let state = previous.map_or(State::Mixed, |previous| State::AtRisk {
                previous: at(previous),
                until,
            });
            (slot, state)
        });
        (owners, holds.collect())
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use lb_common::abi::{BackendId, FlowState, SLOT_COUNT, Tick};

    use super::{BackendName, FlowRecord, REFRESH, Record, SlotTable};
    use crate::core::slots::{Holds, State};
    use crate::core::sync::message::{LONGEST, decode, encode};
    use crate::core::sync::sender::Value as _;

    fn name(id: BackendId) -> BackendName {
        BackendName {
            address: IpAddr::from([10, 0, 0, id.0.to_le_bytes()[0]]),
            port: 1883,
        }
    }

    fn record() -> FlowRecord {
        FlowRecord {
            backend: name(BackendId(1)),
            state: FlowState::Established as u8,
            keep_alive: 30,
            seen: 100,
            sequence: 7,
            translation: None,
        }
    }

    #[test]
    fn a_flow_is_news_if_it_changes_or_grows_much_younger() {
        let news = |change: &dyn Fn(&mut FlowRecord)| {
            let mut new = record();
            change(&mut new);
            Record::Flow(new).outdates(&Record::Flow(record()))
        };
        assert!(!news(&|_| {}));
        assert!(!news(&|new| new.seen += REFRESH - 1));
        assert!(!news(&|new| new.seen -= 50));
        assert!(news(&|new| new.seen += REFRESH));
        assert!(news(&|new| new.backend = name(BackendId(2))));
        assert!(news(&|new| new.state = FlowState::Closing as u8));
        assert!(news(&|new| new.keep_alive = 31));
        assert!(!news(&|new| new.sequence = 8));
    }

    #[test]
    fn slots_are_those_of_whoever_has_the_name() {
        let (x, y, gone) = (BackendId(4), BackendId(9), BackendId(5));
        let mut owners = vec![x; SLOT_COUNT as usize];
        (owners[1], owners[2]) = (y, gone);
        let at_risk = |previous, until| State::AtRisk { previous, until };
        let holds: Holds = [(1, State::Mixed), (3, at_risk(y, Tick(5)))]
            .into_iter()
            .collect();
        let table = SlotTable::new(&owners, &holds, |id| (id != gone).then(|| name(id)));
        assert!(table.is_valid());
        let table: SlotTable = decode(&encode(&table).unwrap()).unwrap();
        // There, they have other ids.
        let id = |wanted: &BackendName| {
            let known = [(x, BackendId(0)), (y, BackendId(1))];
            let found = known.iter().find(|(id, _)| name(*id) == *wanted);
            found.map(|(_, id)| *id)
        };
        let (owners, holds) = table.resolve(id, Tick(70));
        let ids = [0, 1, BackendId::NONE.0, 0].map(BackendId);
        assert_eq!(owners[..4], ids);
        assert_eq!(owners.len(), SLOT_COUNT as usize);
        let expected = [(1, State::Mixed), (3, at_risk(BackendId(1), Tick(70)))];
        assert!(holds.iter().eq(expected));
    }

    #[test]
    fn a_table_that_is_none_is_found_out() {
        let owners = vec![BackendId(0); SLOT_COUNT as usize];
        let good = SlotTable::new(&owners, &Holds::default(), |id| Some(name(id)));
        let spoilt = |spoil: &dyn Fn(&mut SlotTable)| {
            let mut table = good.clone();
            spoil(&mut table);
            table.is_valid()
        };
        assert!(spoilt(&|_| {}));
        assert!(spoilt(&|table| *table = SlotTable::default()));
        assert!(spoilt(
            &|table| table.holds = vec![(0, None), (SLOT_COUNT - 1, Some(0))]
        ));
        assert!(!spoilt(&|table| table.owners[7] = 1));
        assert!(!spoilt(&|table| table.owners.truncate(7)));
        assert!(!spoilt(&|table| table.holds = vec![(SLOT_COUNT, None)]));
        assert!(!spoilt(&|table| table.holds = vec![(2, None), (1, None)]));
        assert!(!spoilt(&|table| table.holds = vec![(1, Some(1))]));
    }

    #[test]
    fn the_largest_table_fits_into_a_message() {
        let owners: Vec<BackendId> = (0..SLOT_COUNT)
            .map(|slot| BackendId(u16::try_from(slot % 32_767).unwrap()))
            .collect();
        let at_risk = |slot| State::AtRisk {
            previous: owners[slot as usize],
            until: Tick(1),
        };
        let holds: Holds = (0..SLOT_COUNT).map(|slot| (slot, at_risk(slot))).collect();
        let table = SlotTable::new(&owners, &holds, |id| {
            Some(BackendName {
                address: IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, id.0]),
                port: u16::MAX,
            })
        });
        assert!(encode(&table).unwrap().len() < LONGEST - 1_000);
    }
}
