//! Limits of backends and slow starts, with real clients.

use anyhow::{Context, Result, ensure};
use tests::balancer::{BOTH, Lab, SOON, config};
use xtask::lab::wait_until;

/// What broker1 takes.
const LIMIT: usize = 10;

/// What broker2 takes where it is limited as well.
const OTHER_LIMIT: usize = 20;

/// Gives a backend of a configuration one more line.
fn with(config: &str, backend: &str, line: &str) -> String {
    let name = format!("name = \"{backend}\"\n");
    config.replace(&name, &format!("{name}{line}\n"))
}

fn limited(balance: &str, forward: &str) -> String {
    let text = config(balance, forward, &BOTH);
    with(&text, "broker1", &format!("max_connections = {LIMIT}"))
}

fn drops(lab: &Lab) -> Option<u64> {
    let status = lab.status().ok()?;
    status.verdicts.get("drop_backends_full").copied()
}

#[test]
fn a_full_backend_is_passed_over() -> Result<()> {
    for (balance, forward) in [
        ("round_robin", "dsr"),
        ("least_conn", "dsr"),
        ("least_conn", "nat"),
        ("maglev", "nat"),
    ] {
        let lab = Lab::serving(&limited(balance, forward))?;
        let load = lab.stay("clients", 60)?;
        lab.wait_for_connections(|now| now == [LIMIT, 60 - LIMIT])
            .with_context(|| format!("{balance} {forward}"))?;
        ensure!(drops(&lab) == Some(0), "somebody was turned away");
        let summary = load.stop()?;
        ensure!((summary.failed, summary.lost) == (0, 0), "{summary:?}");
    }
    Ok(())
}

#[test]
fn when_all_are_full_newcomers_wait_for_somebody_to_leave() -> Result<()> {
    let line = format!("max_connections = {OTHER_LIMIT}");
    let lab = Lab::serving(&with(&limited("round_robin", "dsr"), "broker2", &line))?;
    let leavers = lab.stay("leavers", 5)?;
    let stayers = lab.stay("stayers", (LIMIT + OTHER_LIMIT - 5) as u32)?;
    lab.wait_for_connections(|now| now == [LIMIT, OTHER_LIMIT])?;

    let patient = ["--timeout", "5m", "--hold", "10m"];
    let mut late = lab.load("late", "conn", 5, &patient)?;
    wait_until(SOON, "somebody being turned away", || {
        drops(&lab).filter(|drops| *drops > 0)
    })?;
    lab.wait_for_connections(|now| now == [LIMIT, OTHER_LIMIT])?;
    ensure!(late.is_running(), "those who came late did not wait");
    let summary = leavers.stop()?;
    ensure!((summary.failed, summary.lost) == (0, 0), "{summary:?}");

    // Their SYNs are sent again, at growing intervals.
    late.wait_ready(SOON * 2)?;
    lab.wait_for_connections(|now| now == [LIMIT, OTHER_LIMIT])?;
    for load in [stayers, late] {
        let summary = load.stop()?;
        ensure!((summary.failed, summary.lost) == (0, 0), "{summary:?}");
    }
    Ok(())
}

/// The steps of the ramp move slots, under sessions that stay where they are.
#[test]
fn a_backend_that_returns_starts_slowly_and_nobody_is_moved() -> Result<()> {
    let settings = "keep_alive = \"2s\"\nslow_start = \"6s\"\n[service.check]";
    let text = config("maglev", "dsr", &BOTH).replace("[service.check]", settings);
    let mut lab = Lab::serving(&text)?;
    lab.kill_broker(1)?;
    lab.wait_for_backends(&[("broker1", "up"), ("broker2", "down")])?;
    let crowd = lab.stay("crowd", 100)?;
    lab.wait_for_connections(|now| now == [100, 0])?;

    lab.start_broker(1)?;
    let mut weights: Vec<f64> = Vec::new();
    wait_until(SOON * 2, "broker2 having its whole weight", || {
        let weight = lab.backend("broker2").ok()?.effective_weight;
        if weight > 0.0 && weights.last() != Some(&weight) {
            weights.push(weight);
        }
        (weight >= 1.0).then_some(())
    })
    .with_context(|| format!("{weights:?}"))?;
    ensure!(weights[0] < 0.5, "it began with {weights:?}");
    ensure!(weights.is_sorted() && weights.len() > 2, "{weights:?}");
    // Until then a session of the crowd may be one that has not been heard of.
    wait_until(SOON, "all slots having been learnt", || {
        let slots = lab.service().ok()?.slots;
        (slots.at_risk == 0).then_some(())
    })?;
    let newcomers = lab.stay("newcomers", 100)?;
    let [_, at_broker2] = lab.connections()?;
    ensure!(at_broker2 > 0, "broker2 has its weight and no clients");
    for load in [crowd, newcomers] {
        let summary = load.stop()?;
        ensure!((summary.failed, summary.lost) == (0, 0), "{summary:?}");
    }
    Ok(())
}
