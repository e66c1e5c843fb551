//! Brokers that die, hang, are drained and come back.

use anyhow::{Result, ensure};
use lb_user::control::ServiceState;
use rustix::process::Signal;
use tests::balancer::{BOTH, Lab, SOON, config};
use xtask::lab::wait_until;

/// Half of them is on the broker that dies.
const CROWD: u32 = 100;

/// A broker is killed, and comes back; new clients go where they are served.
fn a_broker_dies_and_returns(balance: &str, forward: &str) -> Result<()> {
    let mut lab = Lab::serving(&config(balance, forward, &BOTH))?;
    let crowd = lab.stay("crowd", CROWD)?;
    // In `nat` clients have the balancer's address, which the probes have as well; in `dsr` a SYN
    // that is sent again may count again.
    let victims = if forward == "nat" {
        lab.backend("broker2")?.traffic.new_connections
    } else {
        lab.clients()?[1] as u64
    };
    ensure!(victims > 0, "no client is on broker2");

    lab.kill_broker(1)?;
    lab.wait_for_backends(&[("broker1", "up"), ("broker2", "down")])?;
    ensure!(lab.service()?.state == ServiceState::Up);
    let dead = lab.backend("broker2")?;
    ensure!(dead.reason.is_some() && dead.share == 0.0, "{dead:?}");
    let before = lab.backend("broker1")?.traffic.new_connections;
    let newcomers = lab.stay("newcomers", 50)?;
    let after = lab.backend("broker1")?.traffic.new_connections;
    ensure!(
        after - before >= 50,
        "only {} came to broker1",
        after - before
    );
    ensure!(lab.backend("broker2")?.traffic.new_connections == dead.traffic.new_connections);

    lab.start_broker(1)?;
    lab.wait_for_backends(&BOTH.map(|(name, _)| (name, "up")))?;
    let later = lab.stay("later", 50)?;
    let back = lab.backend("broker2")?.traffic.new_connections;
    ensure!(
        back > dead.traffic.new_connections,
        "broker2 is not used again"
    );

    let later = later.stop()?;
    ensure!((later.failed, later.lost) == (0, 0), "{later:?}");
    let crowd = crowd.stop()?;
    ensure!(
        (crowd.failed, crowd.lost) == (0, victims),
        "{victims} clients were on broker2: {crowd:?}"
    );
    let newcomers = newcomers.stop()?;
    ensure!(
        (newcomers.failed, newcomers.lost) == (0, 0),
        "{newcomers:?}"
    );
    Ok(())
}

#[test]
fn a_killed_broker_is_left_out_and_taken_back_dsr_round_robin() -> Result<()> {
    a_broker_dies_and_returns("round_robin", "dsr")
}

#[test]
fn a_killed_broker_is_left_out_and_taken_back_dsr_maglev() -> Result<()> {
    a_broker_dies_and_returns("maglev", "dsr")
}

#[test]
fn a_killed_broker_is_left_out_and_taken_back_nat_round_robin() -> Result<()> {
    a_broker_dies_and_returns("round_robin", "nat")
}

#[test]
fn a_killed_broker_is_left_out_and_taken_back_nat_maglev() -> Result<()> {
    a_broker_dies_and_returns("maglev", "nat")
}

/// Its kernel still accepts connections; only its silence tells.
#[test]
fn a_broker_that_hangs_is_left_out_until_it_answers() -> Result<()> {
    let mut lab = Lab::serving(&config("round_robin", "dsr", &BOTH))?;
    let broker = lab.brokers[1].as_mut();
    broker.map_or(Ok(()), |broker| broker.signal(Signal::STOP))?;
    lab.wait_for_backends(&[("broker1", "up"), ("broker2", "down")])?;
    let load = lab.stay("clients", 20)?;
    lab.wait_for_clients([20, 0])?;
    let broker = lab.brokers[1].as_mut();
    broker.map_or(Ok(()), |broker| broker.signal(Signal::CONT))?;
    lab.wait_for_backends(&[("broker1", "up"), ("broker2", "up")])?;
    let summary = load.stop()?;
    ensure!((summary.failed, summary.lost) == (0, 0), "{summary:?}");
    Ok(())
}

#[test]
fn without_a_healthy_backend_packets_are_dropped_and_counted() -> Result<()> {
    for forward in ["dsr", "nat"] {
        let mut lab = Lab::serving(&config("maglev", forward, &BOTH))?;
        lab.kill_broker(0)?;
        lab.kill_broker(1)?;
        lab.wait_for_backends(&[("broker1", "down"), ("broker2", "down")])?;
        ensure!(lab.service()?.state == ServiceState::Down);
        let table = lab.ask(&["status"])?;
        let table = String::from_utf8_lossy(&table.stdout).into_owned();
        ensure!(table.contains("down"), "{table}");

        // Nobody answers, not even the balancer's own kernel with a RST: the connect goes on.
        let mut load = lab.load("hopeless", "conn", 1, &["--hold", "10m"])?;
        let dropped = || {
            let status = lab.status().ok()?;
            let counted = *status.verdicts.get("drop_no_backend")?;
            (counted >= 2 && status.services[0].dropped == counted).then_some(())
        };
        wait_until(SOON, "drops being counted", dropped)?;
        ensure!(load.is_running(), "the connect was refused");

        // The client's SYN is sent again, and meets a broker.
        lab.start_broker(0)?;
        load.wait_ready(SOON)?;
        let summary = load.stop()?;
        ensure!((summary.connected, summary.failed) == (1, 0), "{summary:?}");
    }
    Ok(())
}

#[test]
fn a_drained_backend_keeps_its_clients_and_gets_no_new_ones() -> Result<()> {
    let lab = Lab::serving(&config("round_robin", "dsr", &BOTH))?;
    let old = lab.stay("old", 40)?;
    lab.wait_for_clients([20, 20])?;
    let drained = lab.ask(&["backend", "drain", "broker1"])?;
    ensure!(drained.status.success(), "{drained:?}");
    let new = lab.stay("new", 20)?;
    lab.wait_for_clients([20, 40])?;
    let enabled = lab.ask(&["backend", "enable", "broker1"])?;
    ensure!(enabled.status.success(), "{enabled:?}");
    let newer = lab.stay("newer", 20)?;
    lab.wait_for_clients([30, 50])?;
    for load in [old, new, newer] {
        let summary = load.stop()?;
        ensure!((summary.failed, summary.lost) == (0, 0), "{summary:?}");
    }
    Ok(())
}

#[test]
fn a_changed_weight_changes_the_share_of_new_clients() -> Result<()> {
    let lab = Lab::serving(&config("round_robin", "dsr", &BOTH))?;
    let weight = lab.ask(&["backend", "weight", "mqtt/broker1", "3"])?;
    ensure!(weight.status.success(), "{weight:?}");
    let load = lab.stay("clients", 40)?;
    lab.wait_for_clients([30, 10])?;
    let summary = load.stop()?;
    ensure!((summary.failed, summary.lost) == (0, 0), "{summary:?}");
    Ok(())
}
