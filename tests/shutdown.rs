//! How a balancer ends, and what it leaves: all that traffic needs, or nothing.

use std::time::Duration;

use anyhow::{Result, ensure};
use rustix::process::Signal;
use tests::balancer::{BOTH, Lab, SOON, config};
use xtask::lab::{Process, wait_until};

const VIP_V4: &str = "172.16.40.24/32";
const VIP_V6: &str = "fd00:40::24/128";

/// Waits until the program is off the interface: the kernel is done with a link a moment after the
/// process that held it.
fn wait_for_no_program(lab: &Lab) -> Result<()> {
    wait_until(SOON, "the program being gone", || {
        (!lab.has_program().ok()?).then_some(())
    })?;
    Ok(())
}

/// Takes off what a balancer has left that does not run any more.
fn take_off(lab: &Lab) -> Result<()> {
    let output = lab.tidegate(&["stop", "--detach", "--config", "tidegate.toml"])?;
    ensure!(output.status.success(), "{output:?}");
    wait_for_no_program(lab)
}

#[test]
fn a_signal_to_end_stops_control_and_no_traffic() -> Result<()> {
    let mut lab = Lab::new()?;
    let before = lab.addresses()?;
    for signal in [Signal::TERM, Signal::INT] {
        lab.start(&config("maglev", "dsr", &BOTH))?;
        lab.wait_for_backends(&[("broker1", "up"), ("broker2", "up")])?;
        let addresses = lab.addresses()?;
        ensure!(
            addresses.contains(VIP_V4) && addresses.contains(VIP_V6),
            "{addresses}"
        );
        ensure!(lab.has_program()?);
        lab.signal(signal)?;
        let status = lab.balancer()?.wait(SOON)?;
        ensure!(status.success(), "{status}");
        ensure!(lab.has_program()? && lab.addresses()? == addresses);
        ensure!(!lab.host().work_dir().join("tidegate.sock").exists());
        take_off(&lab)?;
        ensure!(lab.addresses()? == before);
    }
    Ok(())
}

#[test]
fn an_address_that_was_there_before_is_left_there() -> Result<()> {
    let mut lab = Lab::new()?;
    lab.host()
        .add_address([172, 16, 40, 24].into(), 32, "eth0")?;
    let before = lab.addresses()?;
    lab.start(&config("maglev", "dsr", &BOTH))?;
    ensure!(lab.balancer()?.terminate(SOON)?.success());
    take_off(&lab)?;
    ensure!(lab.addresses()? == before, "{} is left", lab.addresses()?);
    Ok(())
}

#[test]
fn a_restart_takes_over_what_a_killed_balancer_left() -> Result<()> {
    let mut lab = Lab::new()?;
    let before = lab.addresses()?;
    let both = config("maglev", "dsr", &BOTH);
    lab.start(&both)?;
    lab.balancer()?.kill()?;
    ensure!(lab.has_program()? && lab.addresses()?.contains(VIP_V6));

    let without_v6 = both.replace(&format!("[[vip]]\naddress = \"{VIP_V6}\"\n"), "");
    lab.start(&without_v6)?;
    wait_until(SOON, "the removal of a VIP that nobody wants", || {
        (!lab.addresses().ok()?.contains(VIP_V6)).then_some(())
    })?;
    ensure!(lab.addresses()?.contains(VIP_V4));
    lab.wait_for_backends(&[("broker1", "up"), ("broker2", "up")])?;
    let load = lab.stay("clients", 20)?;
    let summary = load.stop()?;
    ensure!((summary.failed, summary.lost) == (0, 0), "{summary:?}");
    ensure!(lab.balancer()?.terminate(SOON)?.success());
    take_off(&lab)?;
    ensure!(lab.addresses()? == before, "{} is left", lab.addresses()?);
    Ok(())
}

/// Waits for the end of a balancer that cannot start, and checks what it says.
fn refused(mut process: Process, part: &str) -> Result<()> {
    let status = process.wait(SOON)?;
    let said = process.stderr();
    ensure!(status.code() == Some(1), "{status}: {said}");
    ensure!(said.contains(part), "{part:?} is not in: {said}");
    Ok(())
}

#[test]
fn a_first_start_that_fails_leaves_no_program() -> Result<()> {
    let lab = Lab::new()?;
    let before = lab.addresses()?;
    let both = config("maglev", "dsr", &BOTH);
    // The address of a VIP is refused, after the program was attached.
    let netns = lab.host().netns();
    netns.sysctl("net.ipv6.conf.eth0.disable_ipv6", "1")?;
    refused(lab.spawn("first", &both)?, "a VIP cannot be assigned")?;
    ensure!(!lab.has_program()?);
    netns.sysctl("net.ipv6.conf.eth0.disable_ipv6", "0")?;
    let addresses = lab.addresses()?;
    ensure!(!addresses.contains(VIP_V4), "{addresses}, {before} before");
    let output = lab.tidegate(&["stop", "--detach", "--config", "tidegate.toml"])?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success() && said.contains("no program of its own"),
        "{output:?}"
    );
    Ok(())
}

#[test]
fn a_second_balancer_on_the_interface_is_refused() -> Result<()> {
    let both = config("maglev", "dsr", &BOTH);
    let mut lab = Lab::serving(&both)?;
    let addresses = lab.addresses()?;
    refused(lab.spawn("second", &both)?, "another tidegate")?;
    // One that does not even share a directory with the first.
    let elsewhere = both
        .replace("$DIR/state", "$DIR/state2")
        .replace("$DIR/tidegate.sock", "$DIR/second.sock");
    refused(
        lab.spawn("third", &elsewhere)?,
        "bpf/eth0 is in use by another tidegate",
    )?;

    ensure!(lab.balancer()?.is_running());
    ensure!(lab.addresses()? == addresses && lab.has_program()?);
    let load = lab.stay("clients", 20)?;
    let summary = load.stop()?;
    ensure!((summary.failed, summary.lost) == (0, 0), "{summary:?}");
    Ok(())
}

#[test]
fn a_balancer_whose_interface_goes_ends_by_itself() -> Result<()> {
    let mut lab = Lab::new()?;
    lab.start(&config("maglev", "dsr", &BOTH))?;
    lab.host().netns().ip(&["link delete eth0"])?;
    let status = lab.balancer()?.wait(Duration::from_secs(60))?;
    ensure!(status.code() == Some(1), "{status}");
    ensure!(lab.balancer()?.stderr().contains("was removed"));
    Ok(())
}
