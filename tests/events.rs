//! What a node tells of what happens to it.

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;
use tests::balancer::SOON;
use tests::pair::Pair;
use xtask::lab::{Process, wait_until};

/// `tidegate events --follow --json` of a node.
fn follow(pair: &Pair, at: usize) -> Result<Process> {
    let host = pair.host(at);
    let mut command = host.command(&pair.lab.programs.tidegate)?;
    command.args(["events", "--follow", "--json", "--socket", "tidegate.sock"]);
    host.spawn("events", command)
}

/// Waits for an event that is as asked, and returns it.
fn wait_for(events: &Process, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
    let found = wait_until(SOON, what, || {
        let text = events.stdout();
        // The last line may not be whole yet.
        let mut lines = text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok());
        lines.find(&wanted)
    });
    found.with_context(|| events.tail())
}

fn is_role(event: &Value, from: &str, to: &str, cause: &str) -> bool {
    event["kind"] == "role_changed"
        && event["router"] == "front"
        && (&event["from"], &event["to"]) == (&from.into(), &to.into())
        && event["cause"] == cause
}

#[test]
fn who_follows_is_told_of_roles_and_backends_with_their_causes() -> Result<()> {
    let mut pair = Pair::serving()?;
    let followers = [follow(&pair, 0)?, follow(&pair, 1)?];
    wait_for(&followers[0], "the first role", |event| {
        is_role(event, "backup", "active", "silence")
    })?;
    pair.lab.topology.switch().unplug(pair.host(0))?;
    let lost = wait_for(&followers[0], "the role being lost", |event| {
        is_role(event, "active", "backup", "fault")
    })?;
    ensure!(
        lost["severity"] == "notice" && lost["priority"] == 200,
        "{lost}"
    );
    wait_for(&followers[0], "what the node lacks", |event| {
        event["kind"] == "router_faults" && event["faults"][0] == "link_down"
    })?;
    let taken = wait_for(&followers[1], "the role being taken", |event| {
        event["kind"] == "role_changed" && event["to"] == "active"
    })?;
    ensure!(taken["seq"].as_u64() > Some(1_700_000_000_000), "{taken}");
    pair.lab.topology.switch().plug(pair.host(0))?;
    pair.lab.kill_broker(1)?;
    let down = wait_for(&followers[1], "a backend's end", |event| {
        event["kind"] == "backend_health" && event["to"] == "down"
    })?;
    ensure!(
        down["backend"] == "broker2" && down["service"] == "mqtt",
        "{down}"
    );

    // The same, asked for later: chosen by kind, service and number.
    let options = ["--json", "--kind", "backend_health", "--service", "mqtt"];
    let listed = pair.tell(1, &[&["events"], &options[..]].concat())?;
    ensure!(listed.contains(&down["seq"].to_string()), "{listed}");
    let since = down["seq"].to_string();
    let later = pair.tell(1, &[&["events", "--since", &since], &options[..]].concat())?;
    ensure!(!later.contains(&format!("\"seq\":{since},")), "{later}");
    let metrics = pair.status(1)?.events;
    ensure!(metrics.get("backend_health") >= Some(&1), "{metrics:?}");

    // A stop waits for nobody who follows.
    pair.process(1)?.signal(Signal::TERM)?;
    let status = pair.process(1)?.wait(SOON)?;
    let said = pair.process(1)?.stderr();
    ensure!(status.success() && !said.contains("did not end"), "{said}");
    wait_for(&followers[1], "the stop", |event| {
        event["kind"] == "stopping"
    })?;
    Ok(())
}
