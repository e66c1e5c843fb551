//! Links that are down for a while: the balancer's own, and that of one broker.

use anyhow::{Result, ensure};
use lb_user::control::{BackendStatus, Health};
use tests::balancer::{BOTH, Lab, SOON, config};
use xtask::lab::wait_until;
use xtask::load::Load;

/// Some of them on each broker.
const CROWD: u32 = 60;

/// Many more than take a backend down that is silent among others.
const FAILURES: u64 = 10;

/// Starts clients that ask every so often whether the broker is there, and wait long for an answer.
fn patient(lab: &Lab, name: &str, ping_interval: &str) -> Result<Load> {
    let hold = ["-i", "1", "--hold", "10m", "--timeout", "2m"];
    let arguments = [&hold[..], &["--ping-interval", ping_interval]].concat();
    let mut load = lab.load(name, "conn", CROWD, &arguments)?;
    load.wait_ready(SOON)?;
    Ok(load)
}

fn backends(lab: &Lab) -> Result<Vec<BackendStatus>> {
    Ok(lab.service()?.backends)
}

/// Waits until each broker has failed so many more times, and looks at each status in between.
fn wait_for_failures(lab: &Lab, check: impl Fn(&BackendStatus) -> bool) -> Result<()> {
    let before = backends(lab)?;
    let more = |now: &BackendStatus, before: &BackendStatus| {
        now.probe.failures >= before.probe.failures + FAILURES
    };
    let seen = wait_until(SOON, "many failures of probes", || {
        let now = backends(lab).ok()?;
        if let Some(wrong) = now.iter().find(|backend| !check(backend)) {
            return Some(Err(anyhow::anyhow!("{wrong:?}")));
        }
        let all = now
            .iter()
            .zip(&before)
            .all(|(now, before)| more(now, before));
        all.then_some(Ok(()))
    });
    seen?
}

/// Waits until all clients have sent something again, with an answer.
fn wait_for_traffic(lab: &Lab) -> Result<()> {
    let packets = || lab.service().map(|service| service.traffic.packets);
    let before = packets()?;
    // A PINGREQ and the acknowledgement of its answer, three times.
    let enough = before + u64::from(CROWD) * 6;
    wait_until(SOON, "packets of all clients", || {
        (packets().ok()? >= enough).then_some(())
    })?;
    Ok(())
}

/// The balancer hears nobody from `cut` to `mend`.
fn nobody_is_heard(
    lab: &Lab,
    cut: impl Fn(&Lab) -> Result<()>,
    mend: impl Fn(&Lab) -> Result<()>,
) -> Result<()> {
    cut(lab)?;
    wait_until(SOON, "backends being held", || {
        let backends = backends(lab).ok()?;
        backends.iter().all(|backend| backend.held).then_some(())
    })?;
    wait_for_failures(lab, |backend| {
        let is_there = backend.next_hop.is_some() && backend.share > 0.0;
        backend.held && backend.health == Health::Up && backend.reason.is_some() && is_there
    })?;
    let neighbours = lab.host().output("ip", &["neigh", "show", "dev", "eth0"])?;
    let known = |line: &str| line.starts_with("172.16.40.2") && line.contains("lladdr");
    ensure!(!neighbours.lines().any(known), "{neighbours}");
    let table = lab.ask(&["status"])?;
    let table = String::from_utf8_lossy(&table.stdout).into_owned();
    ensure!(
        table.contains("nobody answers") && table.contains(" held "),
        "{table}"
    );

    mend(lab)?;
    wait_until(SOON, "the end of the silence", || {
        let backends = backends(lab).ok()?;
        let is_up = |backend: &BackendStatus| !backend.held && backend.health == Health::Up;
        backends.iter().all(is_up).then_some(())
    })?;
    wait_for_traffic(lab)
}

fn no_session_is_lost(balance: &str, forward: &str) -> Result<()> {
    // Slow enough for a busy machine not to miss answers that come.
    let text = config(balance, forward, &BOTH).replace("\"200ms\"", "\"500ms\"");
    let mut lab = Lab::serving(&text)?;
    let crowd = patient(&lab, "crowd", "1s")?;
    let all = CROWD as usize;
    let before = lab.wait_for_connections(|[one, two]| one + two == all)?;
    ensure!(before.iter().all(|clients| *clients > 0), "{before:?}");

    let pull = |lab: &Lab| lab.topology.switch().unplug(lab.host());
    let plug = |lab: &Lab| lab.topology.switch().plug(lab.host());
    nobody_is_heard(&lab, pull, plug)?;
    let switch_off = |lab: &Lab| lab.host().netns().ip(&["link set eth0 down"]);
    let switch_on = |lab: &Lab| lab.host().netns().ip(&["link set eth0 up"]);
    nobody_is_heard(&lab, switch_off, switch_on)?;

    let now = lab.connections()?;
    let summary = crowd.stop()?;
    let log = lab.balancer()?.stdout() + &lab.balancer()?.stderr();
    ensure!(
        (summary.failed, summary.lost) == (0, 0),
        "{before:?} were there, {now:?} are: {summary:?}\n{log}"
    );
    let count = |part: &str| log.matches(part).count();
    ensure!(count("to=up") == 2 && count("to=down") == 0, "{log}");
    ensure!(count("nobody answers") >= 2, "{log}");
    ensure!(
        count("no backend is kept for want of answers") >= 2,
        "{log}"
    );
    Ok(())
}

#[test]
fn a_link_that_is_down_costs_no_session_nat_round_robin() -> Result<()> {
    no_session_is_lost("round_robin", "nat")
}

#[test]
fn a_link_that_is_down_costs_no_session_dsr_least_conn() -> Result<()> {
    no_session_is_lost("least_conn", "dsr")
}

/// Its silence is its own, as the other one answers. Its sessions go on when it is back: their next
/// packet, a goodbye, reaches it where it holds them.
#[test]
fn a_broker_whose_link_was_down_gets_back_the_sessions_that_were_silent_meanwhile() -> Result<()> {
    let lab = Lab::serving(&config("round_robin", "nat", &BOTH))?;
    let crowd = patient(&lab, "crowd", "10m")?;
    let all = CROWD as usize;
    let before = lab.wait_for_connections(|[one, two]| one + two == all)?;
    ensure!(before[1] > 0, "{before:?}");

    let broker = lab.topology.brokers()[1];
    lab.topology.switch().unplug(broker)?;
    lab.wait_for_backends(&[("broker1", "up"), ("broker2", "down")])?;
    lab.topology.switch().plug(broker)?;
    lab.wait_for_backends(&[("broker1", "up"), ("broker2", "up")])?;
    lab.wait_for_connections(|now| now == before)?;
    let summary = crowd.stop()?;
    ensure!((summary.failed, summary.lost) == (0, 0), "{summary:?}");
    lab.wait_for_connections(|now| now == [0, 0])?;
    Ok(())
}
