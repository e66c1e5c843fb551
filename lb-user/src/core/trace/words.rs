//! The steps of a packet's way, in words.

use std::net::{IpAddr, SocketAddr};

use lb_common::abi::{
    Balance, Encapsulation, FlowState, Forward, PROTOCOL_UDP, SLOT_COUNT, ServiceKey, Slot,
};
use lb_common::verdict::{Action, Verdict};

use super::{RecordedFlow, Step};
use crate::core::image::{BackendImage, ServiceImage};

pub(super) fn step(stage: &'static str, finding: impl Into<String>) -> Step {
    Step {
        stage,
        finding: finding.into(),
    }
}

pub(super) fn no_service(key: &ServiceKey) -> Step {
    let finding = format!("none at {}: the host gets the packet", end(key));
    step("service", finding)
}

pub(super) fn service(key: &ServiceKey, service: &ServiceImage) -> Step {
    let (id, generation) = (service.id.0, service.generation);
    let finding = format!("number {id} at {}, table {generation} of 0 and 1", end(key));
    step("service", finding)
}

fn end(key: &ServiceKey) -> String {
    let protocol = if key.protocol() == PROTOCOL_UDP {
        "UDP"
    } else {
        "TCP"
    };
    let address = SocketAddr::new(IpAddr::from(key.vip()), key.port());
    format!("{address} ({protocol})")
}

pub(super) fn not_looked_for() -> Step {
    step(
        "record",
        "none is looked for: a safe slot sends every packet to its owner",
    )
}

pub(super) fn record(record: Option<&RecordedFlow>, holder: Option<&str>) -> Step {
    let Some(found) = record else {
        return step("record", "none: the flow is not in the flow tables");
    };
    let what = describe(found);
    step(
        "record",
        match holder {
            Some(name) => format!("{what}; it keeps the flow at {name}"),
            None if !FlowState::is_live(found.flow.state) => {
                format!("{what}; it is over, so a new connection is chosen for anew")
            }
            None => format!("{what}; its backend takes no packets any more, so it does not count"),
        },
    )
}

fn describe(record: &RecordedFlow) -> String {
    let flow = &record.flow;
    let states = [
        (FlowState::HalfOpen, "half open"),
        (FlowState::Established, "established"),
        (FlowState::Closing, "closing"),
        (FlowState::Reset, "reset"),
        (FlowState::Ended, "ended by its backend"),
    ];
    let state = states.iter().find(|(state, _)| *state as u8 == flow.state);
    let state = state.map_or("in a state unknown to this release", |(_, name)| *name);
    let mut text = format!("{state}, silent for {} s", record.silent.as_secs());
    if let Some(seconds) = flow.keep_alive.seconds() {
        text += &format!(", keep-alive {seconds} s");
        if flow.keep_alive.may_differ() {
            text += " or what its broker has set";
        }
    } else if flow.keep_alive.is_awaited() {
        text += ", its CONNECT has not come";
    }
    if flow.state == FlowState::HalfOpen as u8 {
        text += ", so only segments whose numbers follow its SYN's belong to it";
    }
    if flow.is_translated() {
        text += &format!(
            ", port {} at the balancer",
            u16::from_be_bytes(flow.nat_port())
        );
    }
    text
}

pub(super) fn turn(service: &ServiceImage, members: String) -> Step {
    if members.is_empty() {
        return step("slot", "no backend takes new flows");
    }
    let how = if service.balance == Balance::LeastConn {
        "goes to the least loaded for its weight of four drawn at random"
    } else {
        "goes by turns"
    };
    step("slot", format!("none: a new flow {how}, among {members}"))
}

pub(super) fn full(full: String, rest: String) -> Step {
    let rest = if rest.is_empty() {
        "no other has room".to_owned()
    } else {
        format!("a new flow goes to {rest} instead")
    };
    let finding = format!("max_connections is reached by {full}: {rest}");
    step("slot", finding)
}

pub(super) fn no_table() -> Step {
    step("slot", "none: no backend takes new flows")
}

pub(super) fn any_slot(owners: String) -> Step {
    let finding = format!("depends on the client's port; their owners are {owners}");
    step("slot", finding)
}

pub(super) fn slot(
    service: &ServiceImage,
    number: u32,
    slot: Slot,
    owner: &str,
    previous: &str,
) -> Step {
    let of = if service.balance == Balance::Source {
        "the client's address"
    } else {
        "the flow"
    };
    let state = if slot.is_safe() {
        format!("safe: all that is not recorded goes to {owner}")
    } else if slot.is_at_risk() {
        format!(
            "at risk: new flows go to {owner}, unknown ones to {previous}, which it was taken from"
        )
    } else {
        format!("mixed: recorded flows go where they belong, all others to {owner}")
    };
    let finding = format!("{number} of {SLOT_COUNT} by the hash of {of}; {state}");
    step("slot", finding)
}

pub(super) fn backend_gone() -> Step {
    step("backend", "none: the one that the slot names has gone")
}

pub(super) fn backend(name: &str, backend: &BackendImage) -> Step {
    let address = SocketAddr::new(IpAddr::from(backend.address), backend.port);
    let hop = match backend.next_hop {
        None => "the way to it is not known".to_owned(),
        Some(hop) => {
            let [a, b, c, d, e, f] = hop.mac;
            format!(
                "next hop {a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x} on interface {}",
                hop.interface
            )
        }
    };
    step("backend", format!("{name} at {address}, {hop}"))
}

pub(super) fn forward(service: &ServiceImage, verdict: Verdict) -> Step {
    let how = match (service.forward, service.tunnel.encapsulation) {
        (Forward::Dsr, _) => "dsr: with a new MAC address",
        (Forward::Nat, _) => "nat: with the balancer's address and a port of the flow's own",
        (Forward::Tunnel, Encapsulation::IpIp) => "tunnel: inside an IP packet",
        (Forward::Tunnel, Encapsulation::Gue) => "tunnel: inside a UDP packet (GUE)",
    };
    let out = match verdict.action() {
        Action::Transmit => "back out of the interface it came in by",
        Action::Redirect => "out of another interface",
        Action::Pass | Action::Drop => "nowhere",
    };
    step("forward", format!("{how}, {out}"))
}

pub(super) fn stuck(verdict: Verdict) -> Step {
    let whys = [
        (
            Verdict::DropNoNextHop,
            "the backend's MAC address is not known",
        ),
        (
            Verdict::DropNatNoSource,
            "nat has no source address of the backend's family",
        ),
        (
            Verdict::DropTunnelNoSource,
            "tunnels have no source address of the backend's family",
        ),
    ];
    let why = whys.iter().find(|(reason, _)| *reason == verdict);
    step("forward", why.map_or("it cannot be sent", |(_, why)| why))
}
