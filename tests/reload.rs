//! Another configuration for a running balancer.

use anyhow::{Context, Result, ensure};
use lb_user::control::Status;
use rustix::process::Signal;
use tests::balancer::{BOTH, Lab, SOON, config, flow_room};
use xtask::lab::wait_until;

/// Exit code for what is wrong with the configuration or the command line.
const USAGE: i32 = 64;

/// All of a status that a reload without effect may not change.
fn lasting(status: &Status) -> serde_json::Value {
    let services = status.services.iter().map(|service| {
        let backends = service.backends.iter();
        let names = backends.map(|b| format!("{} {} {} {}", b.name, b.address, b.weight, b.share));
        (service.name.clone(), names.collect::<Vec<_>>())
    });
    serde_json::json!({
        "generation": status.config.generation,
        "vips": status.vips,
        "services": services.collect::<Vec<_>>(),
    })
}

#[test]
fn a_broken_file_is_refused_and_changes_nothing() -> Result<()> {
    let good = config("round_robin", "dsr", &BOTH);
    let mut lab = Lab::serving(&good)?;
    let load = lab.stay("clients", 20)?;
    let (before, addresses) = (lasting(&lab.status()?), lab.addresses()?);
    for (from, to, key) in [
        ("fall = 2", "fall = \"often\"", "service[0].check.fall"),
        (
            "port = 1883",
            "port = 1883\ncolour = \"red\"",
            "service[0].colour",
        ),
        (
            "172.16.40.21",
            "172.16.40.300",
            "service[0].backend[1].address",
        ),
        ("[[vip]]", "[[vip", "tidegate.toml:11: not TOML"),
    ] {
        lab.write(&good.replace(from, to))?;
        let output = lab.ask(&["reload"])?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.code() == Some(USAGE), "{output:?}");
        ensure!(said.contains(key), "{key} is not in: {said}");
        let status = lab.status()?;
        ensure!(lasting(&status) == before, "the reload changed {status:?}");
        let error = status.config.last_error.context("no error is kept")?;
        ensure!(error.contains(key), "{error}");

        let check = lab.tidegate(&["check", "--config", "tidegate.toml"])?;
        ensure!(check.status.code() == Some(USAGE), "{check:?}");
        ensure!(
            String::from_utf8_lossy(&check.stderr).contains(key),
            "{check:?}"
        );
    }
    let failed = lab.status()?.counters.reloads_failed;
    lab.signal(Signal::HUP)?;
    wait_until(SOON, "the refusal of a reload by SIGHUP", || {
        (lab.status().ok()?.counters.reloads_failed == failed + 1).then_some(())
    })?;
    ensure!(lasting(&lab.status()?) == before && lab.addresses()? == addresses);
    let summary = load.stop()?;
    ensure!((summary.failed, summary.lost) == (0, 0), "{summary:?}");
    Ok(())
}

#[test]
fn a_good_file_adds_a_backend_and_disturbs_nobody() -> Result<()> {
    for (balance, forward) in [("round_robin", "dsr"), ("maglev", "nat")] {
        let mut lab = Lab::new()?;
        lab.start(&config(balance, forward, &BOTH[..1]))?;
        lab.wait_for_backends(&[("broker1", "up")])?;
        let old = lab.stay("old", 40)?;
        lab.write(&config(balance, forward, &BOTH))?;
        let reload = lab.ask(&["reload"])?;
        ensure!(reload.status.success(), "{reload:?}");
        ensure!(lab.status()?.config.generation == 2);
        lab.wait_for_backends(&[("broker1", "up"), ("broker2", "up")])?;
        let new = lab.stay("new", 40)?;
        let gained = lab.backend("broker2")?.traffic.new_connections;
        if balance == "round_robin" {
            ensure!(gained == 20, "broker2 got {gained} of 40");
        } else {
            ensure!(gained > 0, "broker2 got none");
        }
        for load in [old, new] {
            let summary = load.stop()?;
            ensure!((summary.failed, summary.lost) == (0, 0), "{summary:?}");
        }
    }
    Ok(())
}

#[test]
fn a_reload_by_sighup_removes_a_backend() -> Result<()> {
    let mut lab = Lab::serving(&config("round_robin", "dsr", &BOTH))?;
    lab.write(&config("round_robin", "dsr", &BOTH[..1]))?;
    lab.signal(Signal::HUP)?;
    wait_until(SOON, "the reload", || {
        (lab.status().ok()?.config.generation == 2).then_some(())
    })?;
    let load = lab.stay("clients", 20)?;
    lab.wait_for_clients([20, 0])?;
    let summary = load.stop()?;
    ensure!((summary.failed, summary.lost) == (0, 0), "{summary:?}");
    Ok(())
}

#[test]
fn a_backend_that_is_taken_out_keeps_its_sessions_and_leaves_with_the_last() -> Result<()> {
    for (balance, forward) in [("maglev", "dsr"), ("least_conn", "nat")] {
        let learnt = "keep_alive = \"4s\"\n[service.check]";
        let text = |backends| config(balance, forward, backends).replace("[service.check]", learnt);
        let lab = Lab::serving(&text(&BOTH))?;
        let old = lab.stay("old", 40)?;
        let before = lab.wait_for_connections(|[one, two]| one + two == 40)?;
        ensure!(before[1] > 0, "broker2 has no client to lose");

        lab.write(&text(&BOTH[..1]))?;
        let reload = lab.ask(&["reload"])?;
        ensure!(reload.status.success(), "{reload:?}");
        let leaving = lab.backend("broker2")?;
        ensure!(leaving.leaving && leaving.share == 0.0, "{leaving:?}");
        let list = lab.ask(&["backend", "list"])?;
        let list = String::from_utf8_lossy(&list.stdout).into_owned();
        ensure!(list.contains("leaving"), "{list}");
        let enable = lab.ask(&["backend", "enable", "mqtt/broker2"])?;
        ensure!(enable.status.code() == Some(USAGE), "{enable:?}");

        let new = lab.stay("new", 20)?;
        lab.wait_for_connections(|now| now == [before[0] + 20, before[1]])?;
        // Every session is heard of in this time, and all slots are safe or mixed after it.
        wait_until(SOON, "all sessions being known", || {
            let drain = lab.backend("broker2").ok()?.drain?;
            (drain.left_exact && drain.left == before[1] as u64).then_some(())
        })?;
        let summary = old.stop()?;
        ensure!((summary.failed, summary.lost) == (0, 0), "{summary:?}");
        wait_until(SOON, "broker2 having left", || {
            lab.backend("broker2").is_err().then_some(())
        })?;
        let summary = new.stop()?;
        ensure!((summary.failed, summary.lost) == (0, 0), "{summary:?}");
    }
    Ok(())
}

#[test]
fn what_takes_a_restart_is_refused_by_name() -> Result<()> {
    let good = config("round_robin", "dsr", &BOTH);
    let lab = Lab::serving(&good)?;
    let room = format!("\nflows = {}", flow_room());
    lab.write(&good.replace(&room, &format!("{room}0")))?;
    let output = lab.ask(&["reload"])?;
    ensure!(output.status.code() == Some(USAGE), "{output:?}");
    ensure!(
        String::from_utf8_lossy(&output.stderr).contains("limits"),
        "{output:?}"
    );
    ensure!(lab.status()?.config.generation == 1);
    Ok(())
}

#[test]
fn a_vip_that_is_no_longer_wanted_is_removed() -> Result<()> {
    let good = config("round_robin", "dsr", &BOTH);
    let lab = Lab::serving(&good)?;
    ensure!(lab.addresses()?.contains("fd00:40::24/128"));
    let vip = "[[vip]]\naddress = \"fd00:40::24/128\"\n";
    lab.write(&good.replace(vip, ""))?;
    let reload = lab.ask(&["reload"])?;
    ensure!(reload.status.success(), "{reload:?}");
    wait_until(SOON, "the removal of the VIP", || {
        let addresses = lab.addresses().ok()?;
        (!addresses.contains("fd00:40::24") && addresses.contains("172.16.40.24/32")).then_some(())
    })?;
    Ok(())
}

/// The addresses of eth0 that are a VIP, whatever their prefixes.
fn assigned(lab: &Lab, vip: &str) -> Option<Vec<String>> {
    let addresses = lab.addresses().ok()?;
    let words = addresses.split_whitespace();
    let assigned = words.filter(|word| word.split('/').next() == Some(vip));
    Some(assigned.map(str::to_owned).collect())
}

#[test]
fn a_vip_gets_another_prefix_and_nobody_notices() -> Result<()> {
    let good = config("maglev", "dsr", &BOTH);
    let lab = Lab::serving(&good)?;
    let load = lab.stay("clients", 40)?;
    for [v4, v6] in [["24", "64"], ["32", "128"], ["28", "64"]] {
        let text = good.replace("172.16.40.24/32", &format!("172.16.40.24/{v4}"));
        let text = text.replace("fd00:40::24/128", &format!("fd00:40::24/{v6}"));
        lab.write(&text)?;
        let reload = lab.ask(&["reload"])?;
        ensure!(reload.status.success(), "{reload:?}");
        for (vip, prefix) in [("172.16.40.24", v4), ("fd00:40::24", v6)] {
            let found = assigned(&lab, vip).unwrap_or_default();
            ensure!(found == [format!("{vip}/{prefix}")], "{found:?}");
        }
    }
    // What goes goes as a whole.
    let vip = "[[vip]]\naddress = \"fd00:40::24/128\"\n";
    lab.write(&good.replace(vip, ""))?;
    let reload = lab.ask(&["reload"])?;
    ensure!(reload.status.success(), "{reload:?}");
    ensure!(assigned(&lab, "fd00:40::24") == Some(Vec::new()));
    let summary = load.stop()?;
    ensure!((summary.failed, summary.lost) == (0, 0), "{summary:?}");
    Ok(())
}

#[test]
fn a_reload_of_which_the_kernel_refuses_an_address_does_the_rest_and_goes_on_trying() -> Result<()>
{
    let both = config("maglev", "dsr", &BOTH);
    let v6 = "[[vip]]\naddress = \"fd00:40::24/128\"\n";
    let lab = Lab::serving(&both.replace(v6, ""))?;
    let load = lab.stay("clients", 40)?;
    // The kernel takes no address of IPv6 there.
    lab.host()
        .netns()
        .sysctl("net.ipv6.conf.eth0.disable_ipv6", "1")?;
    // The one that is refused is in the middle.
    let another = "[[vip]]\naddress = \"172.16.40.25/32\"\n[[service]]\nname";
    lab.write(&both.replacen("[[service]]\nname", another, 1))?;
    let reload = lab.ask(&["reload"])?;
    ensure!(reload.status.code() == Some(1), "{reload:?}");
    let said = String::from_utf8_lossy(&reload.stderr).into_owned();
    ensure!(said.contains("a VIP cannot be assigned"), "{said}");
    let status = lab.status()?;
    ensure!(status.config.generation == 2, "{:?}", status.config);
    let states: Vec<_> = status
        .vips
        .iter()
        .map(|vip| vip.state.to_string())
        .collect();
    ensure!(states == ["assigned", "absent", "assigned"], "{states:?}");
    ensure!(assigned(&lab, "172.16.40.25").is_some_and(|found| found.len() == 1));

    lab.host()
        .netns()
        .sysctl("net.ipv6.conf.eth0.disable_ipv6", "0")?;
    wait_until(SOON, "the address that was refused", || {
        let there = assigned(&lab, "fd00:40::24")?;
        let state = lab.status().ok()?.vips[1].state.to_string();
        (there.len() == 1 && state == "assigned").then_some(())
    })?;
    let summary = load.stop()?;
    ensure!((summary.failed, summary.lost) == (0, 0), "{summary:?}");
    Ok(())
}
