//! Guarded services in a real network: what access lists, rates and challenges do to clients of
//! Linux' own TCP.

use anyhow::{Context, Result, ensure};
use lb_user::control::GuardStatus;
use tests::balancer::{BOTH, Lab, SOON, config};
use xtask::lab::{Family, wait_until};
use xtask::load::Load;

/// Clients of one load.
const CLIENTS: u32 = 20;

/// A configuration whose service has these lines in its guard.
fn guarded(forward: &str, lines: &str) -> String {
    let section = format!("[service.guard]\n{lines}\n[service.check]");
    config("maglev", forward, &BOTH).replacen("[service.check]", &section, 1)
}

fn reload(lab: &Lab, config: &str) -> Result<()> {
    lab.write(config)?;
    let output = lab.ask(&["reload"])?;
    ensure!(output.status.success(), "{output:?}");
    Ok(())
}

/// Waits until the guard has done what `has_done` looks for.
fn wait_for(lab: &Lab, what: &str, has_done: impl Fn(&GuardStatus) -> bool) -> Result<GuardStatus> {
    let mut last = None;
    let found = wait_until(SOON, what, || {
        last = lab.service().ok().map(|service| service.guard);
        last.clone().filter(&has_done)
    });
    found.with_context(|| format!("the guard has done {last:?}"))
}

/// Clients that go on trying until they are let in.
fn try_to_connect(lab: &Lab, name: &str, count: u32) -> Result<Load> {
    lab.load(name, "conn", count, &["-i", "1", "--hold", "10m"])
}

fn all_is_well(load: Load) -> Result<()> {
    let summary = load.stop()?;
    ensure!((summary.failed, summary.lost) == (0, 0), "{summary:?}");
    Ok(())
}

#[test]
fn clients_answer_challenges_by_themselves() -> Result<()> {
    for forward in ["dsr", "nat"] {
        let lab = Lab::serving(&guarded(forward, "challenge = \"always\""))?;
        let load = lab.stay("clients", CLIENTS)?;
        let guard = lab.service()?.guard;
        ensure!(guard.is_challenging, "{guard:?}");
        ensure!(guard.challenged > 0 && guard.answered > 0, "{guard:?}");
        // One address, so those that come later are known.
        let more = lab.stay("more", CLIENTS)?;
        let later = lab.service()?.guard;
        let expected = guard.answered + u64::from(CLIENTS);
        ensure!(later.answered < expected, "{forward}: {later:?}");
        let told = String::from_utf8(lab.ask(&["status"])?.stdout)?;
        ensure!(told.contains("new clients are challenged"), "{told}");
        all_is_well(load)?;
        all_is_well(more)?;
    }
    Ok(())
}

#[test]
fn clients_of_ipv6_answer_challenges_too() -> Result<()> {
    let v6 = |text: &str| text.replace("172.16.40.2", "fd00:40::2");
    for forward in ["dsr", "nat"] {
        let text = guarded(forward, "challenge = \"always\"");
        let (head, service) = text.split_once("[[service]]").context("a service")?;
        let lab = Lab::serving(&format!("{head}[[service]]{}", v6(service)))?;
        let vip = Family::V6.vip().to_string();
        let arguments = ["-h", &vip, "-i", "1", "--hold", "10m"];
        let (client, program) = (&lab.topology.client, &lab.programs.broker);
        let mut load = Load::start(client, program, "clients", "conn", CLIENTS, &arguments)?;
        load.wait_ready(SOON)?;
        let guard = lab.service()?.guard;
        ensure!(guard.challenged > 0 && guard.answered > 0, "{guard:?}");
        all_is_well(load)?;
    }
    Ok(())
}

#[test]
fn a_flood_begins_challenges_which_cost_no_client_its_connection() -> Result<()> {
    let lab = Lab::serving(&guarded("dsr", "challenge_above = 1"))?;
    ensure!(!lab.service()?.guard.is_challenging);
    let load = lab.stay("flood", 200)?;
    wait_for(&lab, "the flood being noticed", |guard| {
        guard.is_challenging
    })?;
    let more = lab.stay("more", CLIENTS)?;
    all_is_well(load)?;
    all_is_well(more)?;
    wait_for(&lab, "the end of the flood", |guard| !guard.is_challenging)?;
    Ok(())
}

#[test]
fn a_denied_client_is_cut_off_until_it_is_allowed_again() -> Result<()> {
    let open = config("maglev", "dsr", &BOTH);
    let lab = Lab::serving(&open)?;
    let old = lab.stay("old", CLIENTS)?;
    let client = lab.topology.client.address(Family::V4);
    let list = lab.host().work_dir().join("deny.txt");
    std::fs::write(&list, format!("# Noisy.\n{client}\n"))?;
    reload(
        &lab,
        &guarded(
            "dsr",
            &format!("deny_file = {:?}", list.display().to_string()),
        ),
    )?;
    let mut new = try_to_connect(&lab, "new", CLIENTS)?;
    let guard = wait_for(&lab, "packets being denied", |guard| guard.denied > 0)?;
    ensure!(guard.access_entries == 1, "{guard:?}");
    let held: usize = lab.clients()?.iter().sum();
    ensure!(held == CLIENTS as usize, "{held} clients are connected");
    std::fs::write(&list, "# Nobody.\n")?;
    lab.ask(&["reload"])?;
    // Their SYNs are sent again.
    new.wait_ready(SOON)?;
    all_is_well(new)?;
    all_is_well(old)
}

#[test]
fn a_list_with_a_mistake_is_refused_by_file_and_line() -> Result<()> {
    let open = config("maglev", "dsr", &BOTH);
    let lab = Lab::serving(&open)?;
    let list = lab.host().work_dir().join("deny.txt");
    std::fs::write(&list, "203.0.113.0/24\nnobody\n")?;
    let path = list.display().to_string();
    lab.write(&guarded("dsr", &format!("deny_file = {path:?}")))?;
    let output = lab.ask(&["reload"])?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(
        said.contains(&format!("{path}:2: \"nobody\" is not a prefix")),
        "{said}"
    );
    ensure!(lab.service()?.guard.access_entries == 0);
    Ok(())
}

#[test]
fn a_source_beyond_its_rate_waits() -> Result<()> {
    let lines = "new_per_second_per_source = 1\nburst_per_source = 5";
    let lab = Lab::serving(&guarded("nat", lines))?;
    let mut load = try_to_connect(&lab, "clients", CLIENTS)?;
    wait_for(&lab, "SYNs beyond the rate", |guard| {
        guard.source_limited > 0
    })?;
    reload(&lab, &config("maglev", "nat", &BOTH))?;
    load.wait_ready(SOON)?;
    all_is_well(load)
}
