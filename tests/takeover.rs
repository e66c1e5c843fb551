//! Whatever befalls one of two nodes, or is done to it: no session is lost. Each case in each of the
//! ways that differ in what the other node has to know.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use lb_user::control::Status;
use tests::balancer::{BOTH, SOON};
use tests::pair::Pair;
use tests::pins::{self, Other};
use tests::synced::{Way, node};
use xtask::lab::wait_until;
use xtask::load::Load;

/// Nothing has to be known but the seed.
const MAGLEV: Way = Way {
    balance: "maglev",
    forward: "dsr",
};
/// Which backend each session has.
const ROUND_ROBIN: Way = Way {
    balance: "round_robin",
    forward: "dsr",
};
/// And which port it is sent from.
const NAT: Way = Way {
    balance: "round_robin",
    forward: "nat",
};

/// Longer than clients wait for the answer to a ping: who is lost without a word is lost by then.
const ANSWERED: Duration = Duration::from_secs(11);

fn clients() -> u32 {
    tests::balancer::clients(200)
}

/// Clients of two nodes, some of whom may have come later than others.
struct Sessions {
    pair: Pair,
    way: Way,
    loads: Vec<Load>,
}

impl Sessions {
    fn of(way: Way) -> Result<Self> {
        Self::with(way, &BOTH)
    }

    /// Sessions at the first node, which the second knows of.
    fn with(way: Way, backends: &[(&str, u8)]) -> Result<Self> {
        let mut sessions = Self {
            pair: Pair::synced(way, backends)?,
            way,
            loads: Vec::new(),
        };
        sessions.join(0)?;
        sessions.are_known(0)?;
        Ok(sessions)
    }

    /// Has more clients come, while a node has the role.
    fn join(&mut self, at: usize) -> Result<()> {
        let name = format!("clients-{}", self.loads.len());
        self.loads.push(self.pair.stay(&name, clients())?);
        self.go_on_at(at)
    }

    fn number(&self) -> u64 {
        u64::from(clients()) * self.loads.len() as u64
    }

    /// Waits until a node's peer knows of all.
    fn are_known(&self, from: usize) -> Result<()> {
        let records = if self.way.is_recorded() {
            self.number()
        } else {
            0
        };
        self.pair.wait_for_sync(from, records)
    }

    /// Waits until a node has the role, and all go on by way of it.
    fn go_on_at(&self, at: usize) -> Result<()> {
        self.pair.wait_for_role(at, "active")?;
        self.pair.wait_for_client(at)?;
        self.pair.wait_for_packets(at, "mqtt", self.number())
    }

    /// Waits until each must have had an answer by way of a node, and ends them: none may be lost.
    fn end_at(self, at: usize) -> Result<()> {
        let since = Instant::now();
        while since.elapsed() < ANSWERED {
            self.go_on_at(at)?;
        }
        let what = format!("{:?}, {:?}", self.way, self.pair.sync(at)?);
        for load in self.loads {
            let summary = load.stop()?;
            let (failed, lost, up) = (summary.failed, summary.lost, summary.up);
            ensure!(
                (failed, lost, up) == (0, 0, clients().into()),
                "{summary:?} {what}"
            );
        }
        Ok(())
    }
}

/// Its cable is pulled, and put back: it takes its role back.
fn host_dies_and_returns(way: Way) -> Result<()> {
    let mut sessions = Sessions::of(way)?;
    let switch = sessions.pair.lab.topology.switch();
    switch.unplug(sessions.pair.host(0))?;
    sessions.go_on_at(1)?;
    sessions.join(1)?;
    let switch = sessions.pair.lab.topology.switch();
    switch.plug(sessions.pair.host(0))?;
    sessions.go_on_at(0)?;
    sessions.pair.wait_for_role(1, "backup")?;
    sessions.end_at(0)
}

#[test]
fn a_host_that_dies_and_returns_costs_no_session_maglev() -> Result<()> {
    host_dies_and_returns(MAGLEV)
}

#[test]
fn a_host_that_dies_and_returns_costs_no_session_round_robin() -> Result<()> {
    host_dies_and_returns(ROUND_ROBIN)
}

#[test]
fn a_host_that_dies_and_returns_costs_no_session_nat() -> Result<()> {
    host_dies_and_returns(NAT)
}

/// Its daemon is killed, and started again when the peer has the role.
fn daemon_is_killed(way: Way) -> Result<()> {
    let mut sessions = Sessions::of(way)?;
    sessions.pair.process(0)?.kill()?;
    sessions.go_on_at(1)?;
    sessions.join(1)?;
    sessions.pair.start(0, &node(0, way, &BOTH))?;
    sessions.go_on_at(0)?;
    sessions.pair.wait_for_role(1, "backup")?;
    sessions.end_at(0)
}

#[test]
fn a_daemon_that_is_killed_costs_no_session_maglev() -> Result<()> {
    daemon_is_killed(MAGLEV)
}

#[test]
fn a_daemon_that_is_killed_costs_no_session_round_robin() -> Result<()> {
    daemon_is_killed(ROUND_ROBIN)
}

#[test]
fn a_daemon_that_is_killed_costs_no_session_nat() -> Result<()> {
    daemon_is_killed(NAT)
}

/// Both nodes get another version, the one that stands by first, and then the older one again.
fn versions_change(way: Way) -> Result<()> {
    let mut sessions = Sessions::of(way)?;
    for (at, other) in [(1, Other::Older), (0, Other::Older), (0, Other::Newer)] {
        sessions.pair.process(at)?.terminate(SOON)?;
        if at == 0 {
            sessions.go_on_at(1)?;
        }
        let left = sessions.pair.host(at).work_dir().join("bpf/eth0");
        pins::leave(&left, other)?;
        sessions.pair.start(at, &node(at, way, &BOTH))?;
        sessions.go_on_at(0)?;
        sessions.are_known(0)?;
    }
    sessions.join(0)?;
    sessions.end_at(0)
}

#[test]
fn another_version_costs_no_session_maglev() -> Result<()> {
    versions_change(MAGLEV)
}

#[test]
fn another_version_costs_no_session_round_robin() -> Result<()> {
    versions_change(ROUND_ROBIN)
}

#[test]
fn another_version_costs_no_session_nat() -> Result<()> {
    versions_change(NAT)
}

/// An operator moves the role there and back.
fn role_is_moved(way: Way) -> Result<()> {
    let mut sessions = Sessions::of(way)?;
    for is_first in [true, false] {
        sessions
            .pair
            .tell(0, &["vrrp", "release", "front", "--wait"])?;
        sessions.go_on_at(1)?;
        if is_first {
            sessions.join(1)?;
        }
        sessions.pair.tell(0, &["vrrp", "resume", "front"])?;
        sessions.go_on_at(0)?;
        sessions.are_known(0)?;
    }
    sessions.end_at(0)
}

#[test]
fn a_planned_switch_costs_no_session_maglev() -> Result<()> {
    role_is_moved(MAGLEV)
}

#[test]
fn a_planned_switch_costs_no_session_round_robin() -> Result<()> {
    role_is_moved(ROUND_ROBIN)
}

#[test]
fn a_planned_switch_costs_no_session_nat() -> Result<()> {
    role_is_moved(NAT)
}

/// How much of the new clients a node gives to a backend.
fn share(status: &Status, backend: &str) -> f64 {
    let backends = status.services.iter().flat_map(|service| &service.backends);
    let mut shares = backends.filter(|it| it.name == backend).map(|it| it.share);
    shares.next().unwrap_or_default()
}

/// A second after there is another backend, its host dies: half of the slots have just changed hands.
fn host_dies_after_a_change(way: Way) -> Result<()> {
    let mut sessions = Sessions::with(way, &BOTH[..1])?;
    for at in [1, 0] {
        sessions.pair.write(at, &node(at, way, &BOTH))?;
        sessions.pair.tell(at, &["reload"])?;
    }
    for at in [1, 0] {
        wait_until(SOON, "the new backend getting clients", || {
            (share(&sessions.pair.status(at).ok()?, "broker2") > 0.0).then_some(())
        })?;
    }
    // That is the case, not a wait for anything.
    thread::sleep(Duration::from_secs(1));
    sessions
        .pair
        .lab
        .topology
        .switch()
        .unplug(sessions.pair.host(0))?;
    sessions.go_on_at(1)?;
    sessions.join(1)?;
    let [_, newcomers] = sessions.pair.lab.connections()?;
    // Health checks are among them.
    ensure!(
        newcomers >= clients() as usize / 4,
        "{newcomers} are at the new backend"
    );
    sessions.end_at(1)
}

#[test]
fn a_host_that_dies_after_a_backend_came_costs_no_session_maglev() -> Result<()> {
    host_dies_after_a_change(MAGLEV)
}

#[test]
fn a_host_that_dies_after_a_backend_came_costs_no_session_round_robin() -> Result<()> {
    host_dies_after_a_change(ROUND_ROBIN)
}

#[test]
fn a_host_that_dies_after_a_backend_came_costs_no_session_nat() -> Result<()> {
    host_dies_after_a_change(NAT)
}
