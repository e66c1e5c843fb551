//! Brokers that send their clients away behind a balancer that sees it coming.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use tests::balancer::{BOTH, BROKER_HEALTH, Lab, SOON, clients, config, soon_for};
use xtask::lab::wait_until;

const AVAILABILITY: &str = "/api/v5/load_rebalance/availability_check";

/// The health check asks whether clients are welcome.
fn considerate(balance: &str, forward: &str) -> String {
    let check = format!(
        "type = \"http\"\nport = {BROKER_HEALTH}\npath = \"{AVAILABILITY}\"\ndrain_on = 503\n"
    );
    config(balance, forward, &BOTH).replace("type = \"mqtt\"\n", &check)
}

fn succeed(lab: &Lab, broker: usize, arguments: &[&str]) -> Result<String> {
    let output = lab.ask_broker(broker, arguments)?;
    ensure!(output.status.success(), "{arguments:?}: {output:?}");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether broker1 drains because it says so.
fn wait_for_evacuated(lab: &Lab, wanted: bool) -> Result<()> {
    let mut last = None;
    let found = wait_until(SOON, "broker1 taking clients, or none", || {
        last = lab.backend("broker1").ok();
        let broker = last.as_ref()?;
        let takes_clients = broker.share > 0.0;
        (broker.evacuated == wanted && takes_clients != wanted).then_some(())
    });
    found.with_context(|| format!("the last status was {last:?}"))
}

/// Waits until a broker takes new clients.
fn wait_for_use(lab: &Lab, name: &str) -> Result<()> {
    let mut last = None;
    let found = wait_until(SOON, "the broker taking clients", || {
        last = lab.backend(name).ok();
        let broker = last.as_ref()?;
        (!broker.evacuated && broker.share > 0.0).then_some(())
    });
    found.with_context(|| format!("the last status was {last:?}"))
}

fn every_client_moves_once(balance: &str, forward: &str) -> Result<()> {
    let lab = Lab::serving(&considerate(balance, forward))?;
    let count = clients(60);
    let all = count as usize;
    let arguments = [
        "-V",
        "5",
        "--reconnect",
        "--events",
        "-i",
        "1",
        "--hold",
        "10m",
    ];
    let mut load = lab.load("movers", "conn", count, &arguments)?;
    load.wait_ready(soon_for(count))?;
    let [at_broker1, _] = lab.wait_for_connections(|[one, two]| one + two == all)?;
    ensure!(at_broker1 > 0, "broker1 has no client to send away");

    let rate = (count / 3).to_string();
    let order = [
        "node",
        "evacuate",
        "--rate",
        &rate,
        "--wait-health-check",
        "3s",
    ];
    let told = succeed(
        &lab,
        0,
        &[&order[..], &["--wait", "--timeout", "2m"]].concat(),
    )?;
    ensure!(told.contains("evacuated"), "{told}");
    lab.wait_for_connections(|now| now == [0, all])?;
    wait_for_evacuated(&lab, true)?;
    let broker = lab.backend("broker1")?;
    ensure!(broker.health.to_string() == "up", "{broker:?}");
    let told = lab.ask(&["events"])?;
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    ensure!(told.contains("takes no new clients"), "{told}");

    let losses = load.losses();
    let moved: BTreeSet<u32> = losses.iter().map(|loss| loss.client).collect();
    ensure!(
        moved.len() == at_broker1 && losses.len() == at_broker1,
        "{at_broker1} clients were to move once: {losses:?}"
    );
    let is_told = losses.iter().all(|loss| loss.reason.contains("0x9c"));
    ensure!(is_told, "{losses:?}");

    let served = succeed(&lab, 0, &["node", "evacuate", "--stop"])?;
    ensure!(served.contains("no client is sent away"), "{served}");
    wait_for_evacuated(&lab, false)?;
    let new = lab.stay("new", count)?;
    lab.wait_for_connections(|[one, two]| one > 0 && one + two == 2 * all)?;
    for load in [load, new] {
        let summary = load.stop()?;
        ensure!(
            summary.failed == 0 && summary.up == u64::from(count),
            "{summary:?}"
        );
    }
    Ok(())
}

#[test]
fn clients_of_an_evacuated_broker_move_once_where_slots_decide() -> Result<()> {
    every_client_moves_once("maglev", "dsr")
}

#[test]
fn clients_of_an_evacuated_broker_move_once_where_all_flows_are_recorded() -> Result<()> {
    every_client_moves_once("least_conn", "nat")
}

/// Both brokers are stopped and started again, one after the other, while clients publish to each
/// other.
#[test]
fn rolling_restart_of_a_cluster_loses_no_message_of_qos_1() -> Result<()> {
    let mut lab = Lab::clustered()?;
    lab.start(&considerate("maglev", "dsr"))?;
    lab.wait_for_backends(&[("broker1", "up"), ("broker2", "up")])?;
    let count = clients(20);
    let all = count as usize;
    let stays = [
        "-V",
        "5",
        "-q",
        "1",
        "--reconnect",
        "--events",
        "-C",
        "false",
        "-i",
        "1",
    ];
    let session = ["--session-expiry", "10m", "-t", "roll/%i"];
    let subscribe = [&stays[..], &session, &["--hold", "10m"]].concat();
    let mut readers = lab.load("readers", "sub", count, &subscribe)?;
    readers.wait_ready(soon_for(count))?;
    let publish = [&stays[..], &session, &["-I", "100", "--hold", "10m"]].concat();
    let mut writers = lab.load("writers", "pub", count, &publish)?;
    writers.wait_ready(soon_for(count))?;

    let rate = (count / 2).to_string();
    let order = [
        "node",
        "evacuate",
        "--rate",
        &rate,
        "--wait-health-check",
        "3s",
        "--wait",
    ];
    let mut moves = 0;
    for (number, name) in ["broker1", "broker2"].into_iter().enumerate() {
        let before = lab.wait_for_connections(|[one, two]| one + two == 2 * all)?;
        moves += before[number];
        succeed(&lab, number, &[&order[..], &["--timeout", "2m"]].concat())?;
        lab.wait_for_connections(|now| now[number] == 0 && now[1 - number] == 2 * all)?;
        let broker = lab.brokers[number].take();
        broker.context("the broker does not run")?.terminate(SOON)?;
        lab.start_broker(number)?;
        lab.wait_for_cluster()?;
        wait_for_use(&lab, name)?;
    }
    let losses = [readers.losses(), writers.losses()].concat();
    ensure!(losses.len() == moves, "{moves} moves: {losses:?}");
    let sent = writers.stop()?;
    ensure!(
        sent.up == u64::from(count) && sent.acked == sent.published,
        "{sent:?}"
    );
    // What was acknowledged is on its way to the readers' sockets.
    let quiet = wait_until(SOON, "the readers having it all", || {
        let told = [0, 1].map(|number| {
            let told = lab.ask_broker(number, &["sessions", "--json"]).ok()?;
            let text = String::from_utf8_lossy(&told.stdout).into_owned();
            told.status.success().then_some(text)
        });
        // The broker that was started last may have none.
        let told: String = told.into_iter().collect::<Option<_>>()?;
        let is_idle = |line: &str| line.contains("\"queued\":0") && line.contains("\"inflight\":0");
        (!told.is_empty() && told.lines().all(is_idle)).then_some(())
    });
    quiet?;
    let read = readers.stop()?;
    ensure!(sent.acked > 0, "{sent:?}");
    let is_whole = read.gaps == 0 && read.received - read.duplicates == sent.acked;
    ensure!(
        is_whole && read.up == u64::from(count),
        "{sent:?}, {read:?}"
    );
    Ok(())
}
