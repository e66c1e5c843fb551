//! Questions about clients.

use std::time::Duration;

use lb_common::{
    abi::{BackendId, Flow, FlowKey, FlowState, Ip, KeepAlive, ServiceId},
    flow::HashKeys,
};

use super::{FakeMaps, running};
use crate::{
    control::{TraceError, TraceOrder, WhatIf},
    core::trace::{self, GuardMemory, RecordedFlow},
    daemon::{engine::Engine, trace::Records},
};

impl Records for FakeMaps {
    fn hash_keys(&self) -> HashKeys {
        HashKeys::from_seed([1; 16])
    }

    fn guard_memory(&self, _: Ip, _: ServiceId) -> anyhow::Result<GuardMemory> {
        Ok(GuardMemory::default())
    }

    fn flow(&self, key: &FlowKey) -> anyhow::Result<Option<RecordedFlow>> {
        Ok(self.flows.iter().find(|found| found.key == *key).copied())
    }

    fn flows_of(&self, _client: Ip, most: usize) -> anyhow::Result<Vec<RecordedFlow>> {
        Ok(self.flows.iter().take(most).copied().collect())
    }
}

const CLIENT: [u8; 4] = [10, 0, 0, 1];
const INTERFACE: u32 = 1;

fn order(port: Option<u16>, what_if: &[WhatIf]) -> TraceOrder {
    TraceOrder {
        client: CLIENT.into(),
        port,
        service: None,
        what_if: what_if.to_vec(),
    }
}

/// The backend that a flow goes to, and what supposed changes do to it.
fn asked(engine: &Engine<FakeMaps>, what_if: &[WhatIf]) -> (Option<String>, Option<String>) {
    let answer = engine
        .trace(&order(Some(40_000), what_if), INTERFACE)
        .unwrap();
    let flow = &answer.services[0].flows[0];
    let fate = flow.then.as_ref().map(|then| then.fate.clone());
    (flow.path.backend.clone(), fate)
}

#[test]
fn a_supposed_change_is_planned_and_changes_nothing() {
    let engine = running();
    let image = engine.image.clone();
    let (backend, fate) = asked(&engine, &[]);
    let (here, there) = match backend.as_deref() {
        Some("a") => ("a", "b"),
        Some("b") => ("b", "a"),
        other => panic!("{other:?}"),
    };
    assert_eq!(fate, None);
    let down = |name: &str| WhatIf::Down(name.to_owned());
    let fate = |what_if: &[WhatIf]| asked(&engine, what_if).1.unwrap();
    assert_eq!(fate(&[down(there)]), "stays");
    assert_eq!(fate(&[down(here)]), "moves");
    assert_eq!(fate(&[down(here), down(there)]), "ends");
    let weight = |backend: &str, weight| WhatIf::Weight {
        backend: backend.to_owned(),
        weight,
    };
    assert_eq!(fate(&[weight(there, 0)]), "stays");
    assert!(engine.image == image && asked(&engine, &[]).0.as_deref() == Some(here));
}

#[test]
fn without_a_port_every_recorded_flow_of_the_service_is_told_of() {
    let mut engine = running();
    let service = *engine.image.services.keys().next().unwrap();
    let flow = |port| RecordedFlow {
        key: trace::key(Ip::from_v4(CLIENT), port, &service),
        flow: Flow {
            backend: 1,
            epoch: engine.image.backends[&BackendId(1)].epoch,
            seen: 0,
            middle: [0; 4],
            nat_source: 0,
            state: FlowState::Established as u8,
            keep_alive: KeepAlive::NONE,
        },
        half_open: false,
        silent: Duration::ZERO,
    };
    engine.maps.flows = [40_000, 40_001].map(flow).to_vec();
    let answer = engine.trace(&order(None, &[]), INTERFACE).unwrap();
    let service = &answer.services[0];
    let ports: Vec<Option<u16>> = service.flows.iter().map(|flow| flow.port).collect();
    assert_eq!(ports, [Some(40_000), Some(40_001)]);
    assert_eq!(service.new.path.candidates, ["a", "b"]);
    assert_eq!((service.new.port, answer.truncated), (None, false));
}

#[test]
fn what_is_not_there_is_refused_by_name() {
    let engine = running();
    let mut wrong = order(None, &[]);
    wrong.service = Some("tls".to_owned());
    let error = engine.trace(&wrong, INTERFACE).unwrap_err();
    assert!(error.to_string().contains("there are: mqtt"), "{error}");
    let wrong = order(None, &[WhatIf::Drained("c".to_owned())]);
    let error = engine.trace(&wrong, INTERFACE).unwrap_err();
    assert!(matches!(error, TraceError::Select(_)), "{error}");
    let six = order(None, &[]);
    let six = TraceOrder {
        client: "fd00::1".parse().unwrap(),
        ..six
    };
    assert!(engine.trace(&six, INTERFACE).unwrap().services.is_empty());
}
