//! What a running balancer tells of its clients.

use anyhow::{Context, Result, ensure};
use lb_user::control::{ServiceStatus, Trace};
use serde_json::Value;
use tests::balancer::{BOTH, Lab, SOON, config};
use xtask::lab::{Family, wait_until};

const CLIENTS: u32 = 20;

fn mqtt(balance: &str, forward: &str) -> String {
    config(balance, forward, &BOTH).replace("protocol = \"tcp\"", "protocol = \"mqtt\"")
}

/// A status in which all clients are seen, and have said CONNECT.
fn connected(lab: &Lab) -> Result<ServiceStatus> {
    let seen = wait_until(SOON, "all clients' CONNECTs", || {
        let service = lab.service().ok()?;
        let connects = *service.mqtt.as_ref()?.packets.get("connect")?;
        (connects >= CLIENTS.into()).then_some(service)
    });
    Ok(seen?)
}

fn trace(lab: &Lab, arguments: &[&str]) -> Result<Trace> {
    let output = lab.ask(&[&["trace", "--json"], arguments].concat())?;
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text).with_context(|| format!("no trace: {output:?}"))
}

#[test]
fn clients_are_counted_traced_and_shown() -> Result<()> {
    let lab = Lab::serving(&mqtt("round_robin", "dsr"))?;
    let load = lab.stay("clients", CLIENTS)?;
    let service = connected(&lab)?;
    let mqtt = service.mqtt.context("the service is MQTT")?;
    ensure!(mqtt.longest_keep_alive_seconds.is_some(), "{mqtt:?}");
    ensure!(
        service.sessions.count == u64::from(CLIENTS),
        "{:?}",
        service.sessions
    );
    ensure!(lab.status()?.verdicts["drop_not_mqtt"] == 0);

    let client = lab.topology.client.address(Family::V4).to_string();
    let all = trace(&lab, &[&client])?;
    let flows = &all.services[0].flows;
    ensure!(flows.len() == CLIENTS as usize, "{} flows", flows.len());
    let [one, two] = ["broker1", "broker2"].map(|name| {
        let is_there = |flow: &&_| -> bool {
            let flow: &lb_user::control::FlowTrace = flow;
            flow.path.backend.as_deref() == Some(name)
        };
        flows.iter().filter(is_there).count()
    });
    ensure!(lab.clients()? == [one, two], "{one} and {two}");

    let port = flows[0].port.context("a recorded flow has a port")?;
    let here = flows[0].path.backend.clone().context("it has a backend")?;
    let socket = format!("{client}:{port}");
    for (what_if, fate) in [("--if-drained", "stays"), ("--if-down", "moves")] {
        let answer = trace(&lab, &[&socket, what_if, &here])?;
        let then = answer.services[0].flows[0]
            .then
            .clone()
            .context("a what-if")?;
        ensure!(then.fate == fate, "{what_if}: {then:?}");
    }
    // The kernel's table is read in pieces: one look may miss a connection or see a probe's.
    let unchanged = wait_until(SOON, "the clients being where they were", || {
        (lab.clients().ok()? == [one, two]).then_some(())
    });
    ensure!(unchanged.is_ok(), "a question has changed something");
    let words = lab.ask(&["trace", &socket])?;
    let words = String::from_utf8_lossy(&words.stdout).into_owned();
    ensure!(words.contains("it keeps the flow at"), "{words}");

    let top = lab.ask(&["top", "--json", "--count", "2", "--interval", "0.2"])?;
    let lines: Vec<Value> = String::from_utf8_lossy(&top.stdout)
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    ensure!(lines.len() == 2, "{top:?}");
    ensure!(lines[1]["services"][0]["name"] == "mqtt", "{top:?}");
    load.stop()?;
    wait_until(SOON, "all clients' ends", || {
        let service = lab.service().ok()?;
        (service.sessions.count == 0).then_some(())
    })?;
    Ok(())
}
