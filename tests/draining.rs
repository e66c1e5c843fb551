//! `tidegate backend drain --wait` with real clients: it ends with the last session, not before.

use std::time::Duration;

use anyhow::{Result, ensure};
use tests::balancer::{BOTH, Lab, SOON, config};
use xtask::lab::Process;

/// Clients that are there before the drain, and as many that come after it.
const CLIENTS: u32 = 40;

/// Sessions of slots that changed hands are learnt for one and a half times as long.
const KEEP_ALIVE: &str = "keep_alive = \"4s\"\n[service.check]";

/// The window, on a machine that is busy with other tests.
const LEARNING: Duration = Duration::from_secs(60);

fn drain(lab: &Lab) -> Result<Process> {
    let mut command = lab.host().command(&lab.programs.tidegate)?;
    command.args(["backend", "drain", "mqtt/broker1", "--wait", "--json"]);
    command.args(["--timeout", "10m", "--socket", "tidegate.sock"]);
    lab.host().spawn("drain", command)
}

/// Waits too short a time, and says so.
fn gives_up_at_its_deadline(lab: &Lab) -> Result<()> {
    let wait = ["backend", "drain", "mqtt/broker1", "--wait"];
    let output = lab.ask(&[&wait[..], &["--timeout", "1s"]].concat())?;
    ensure!(output.status.code() == Some(1), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(
        said.contains("gave up waiting: mqtt/broker1: ") && said.contains("left"),
        "{said}"
    );
    let admin = lab.backend("broker1")?.admin.to_string();
    ensure!(admin.starts_with("drain"), "broker1 is {admin}");
    Ok(())
}

fn ends_with_the_last_session(balance: &str, forward: &str) -> Result<()> {
    let text = config(balance, forward, &BOTH).replace("[service.check]", KEEP_ALIVE);
    let lab = Lab::serving(&text)?;
    let old = lab.stay("old", CLIENTS)?;
    let all = CLIENTS as usize;
    let before = lab.wait_for_connections(|[one, two]| one + two == all)?;
    ensure!(before[0] > 0, "broker1 has no client to lose");

    gives_up_at_its_deadline(&lab)?;
    let new = lab.stay("new", CLIENTS)?;
    let [at_broker1, elsewhere] = before;
    lab.wait_for_connections(|now| now == [at_broker1, elsewhere + all])?;

    let mut drain = drain(&lab)?;
    let counted = format!("\"left\":{at_broker1},\"left_exact\":true");
    drain.wait_for_line(&counted, LEARNING)?;
    ensure!(
        drain.is_running(),
        "it ended with {at_broker1} sessions left"
    );
    let summary = old.stop()?;
    ensure!((summary.failed, summary.lost) == (0, 0), "{summary:?}");
    let told = drain.finish(SOON)?;
    let last = told.lines().last().unwrap_or_default();
    ensure!(last.contains("\"drained\":true,\"left\":0"), "{told}");

    lab.wait_for_connections(|now| now == [0, all])?;
    let summary = new.stop()?;
    ensure!((summary.failed, summary.lost) == (0, 0), "{summary:?}");
    Ok(())
}

#[test]
fn a_drain_ends_with_the_last_session_where_all_are_recorded() -> Result<()> {
    ends_with_the_last_session("maglev", "nat")?;
    ends_with_the_last_session("least_conn", "dsr")
}

#[test]
fn a_drain_ends_with_the_last_session_where_sessions_are_learnt() -> Result<()> {
    ends_with_the_last_session("maglev", "dsr")
}
