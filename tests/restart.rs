//! A daemon that ends is not the end of traffic: its program goes on, and the next daemon takes over
//! from there.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lb_common::abi;
use rustix::process::Signal;
use tests::balancer::{BOTH, Lab, SOON, config, flow_room};
use tests::pins::Other;
use xtask::lab::wait_until;
use xtask::load::Load;

/// Clients that are there before the daemon ends, and as many that come after it is back.
fn clients() -> u32 {
    tests::balancer::clients(40)
}

/// Sessions of slots that changed hands are learnt for one and a half times as long.
const KEEP_ALIVE: &str = "keep_alive = \"4s\"\n[service.check]";

/// The ways to forward that differ in what has to outlive the daemon: slots, or records.
const WAYS: [(&str, &str); 2] = [("maglev", "dsr"), ("least_conn", "nat")];

fn text((balance, forward): (&str, &str), backends: &[(&str, u8)]) -> String {
    config(balance, forward, backends).replace("[service.check]", KEEP_ALIVE)
}

/// Ends the daemon, and nothing else.
fn end(lab: &mut Lab, signal: Signal) -> Result<()> {
    lab.signal(signal)?;
    let status = lab.balancer()?.wait(SOON)?;
    ensure!(status.success() == (signal == Signal::TERM), "{status}");
    lab.balancer = None;
    ensure!(lab.has_program()?, "the program went with the daemon");
    Ok(())
}

/// Clients that come and go while no daemon runs: each hears from its broker.
fn come_and_go(lab: &Lab) -> Result<()> {
    ensure!(lab.balancer.is_none());
    let arguments = ["-i", "1", "--hold", "2s", "--ping-interval", "200ms"];
    let load = lab.load("between", "conn", 10, &arguments)?;
    let summary = load.finish(SOON)?;
    let (failed, lost) = (summary.failed, summary.lost);
    ensure!((failed, lost, summary.up) == (0, 0, 10), "{summary:?}");
    ensure!(
        summary.rtt_ms.is_some(),
        "no ping was answered: {summary:?}"
    );
    Ok(())
}

fn nobody_is_lost(loads: impl IntoIterator<Item = Load>) -> Result<()> {
    for load in loads {
        let summary = load.stop()?;
        ensure!((summary.failed, summary.lost) == (0, 0), "{summary:?}");
    }
    Ok(())
}

fn all_clients(lab: &Lab, number: u32) -> Result<[usize; 2]> {
    lab.wait_for_connections(|[one, two]| one + two == number as usize)
}

fn pins(lab: &Lab) -> PathBuf {
    lab.host().work_dir().join("bpf/eth0")
}

fn goes_on_after(way: (&str, &str), signal: Signal) -> Result<()> {
    let text = text(way, &BOTH);
    let mut lab = Lab::serving(&text)?;
    let old = lab.stay("old", clients())?;
    let before = all_clients(&lab, clients())?;
    let addresses = lab.addresses()?;
    end(&mut lab, signal)?;
    come_and_go(&lab)?;
    ensure!(lab.addresses()? == addresses, "the VIPs have gone");

    lab.start(&text)?;
    lab.wait_for_backends(&[("broker1", "up"), ("broker2", "up")])?;
    let said = lab.balancer()?.stderr();
    ensure!(said.contains("program replaced"), "{said}");
    let slots = lab.service()?.slots;
    ensure!(slots.at_risk == 0, "nothing has changed, but {slots:?}");
    let new = lab.stay("new", clients())?;
    let after = all_clients(&lab, 2 * clients())?;
    ensure!(after.iter().zip(before).all(|(now, then)| *now >= then));
    nobody_is_lost([old, new])
}

#[test]
fn sessions_outlive_a_daemon_that_is_killed() -> Result<()> {
    WAYS.into_iter()
        .try_for_each(|way| goes_on_after(way, Signal::KILL))
}

#[test]
fn sessions_outlive_a_daemon_that_is_stopped() -> Result<()> {
    WAYS.into_iter()
        .try_for_each(|way| goes_on_after(way, Signal::TERM))
}

#[test]
fn who_is_taken_out_of_the_file_meanwhile_leaves() -> Result<()> {
    for way in WAYS {
        let mut lab = Lab::serving(&text(way, &BOTH))?;
        let old = lab.stay("old", clients())?;
        let before = all_clients(&lab, clients())?;
        ensure!(before[1] > 0, "broker2 has no client to lose");
        end(&mut lab, Signal::KILL)?;

        lab.start(&text(way, &BOTH[..1]))?;
        let leaving = lab.backend("broker2")?;
        ensure!(leaving.leaving && leaving.share == 0.0, "{leaving:?}");
        let new = lab.stay("new", clients())?;
        let all = clients() as usize;
        lab.wait_for_connections(|now| now == [before[0] + all, before[1]])?;

        // And once more, while it leaves.
        end(&mut lab, Signal::TERM)?;
        lab.start(&text(way, &BOTH[..1]))?;
        let leaving = lab.backend("broker2")?;
        ensure!(leaving.leaving, "{leaving:?}");
        wait_until(SOON, "all sessions being known", || {
            let drain = lab.backend("broker2").ok()?.drain?;
            (drain.left_exact && drain.left == before[1] as u64).then_some(())
        })?;
        nobody_is_lost([old])?;
        wait_until(SOON, "broker2 having left", || {
            lab.backend("broker2").is_err().then_some(())
        })?;
        nobody_is_lost([new])?;
    }
    Ok(())
}

#[test]
fn who_comes_into_the_file_meanwhile_gets_new_clients() -> Result<()> {
    for way in WAYS {
        let mut lab = Lab::new()?;
        lab.start(&text(way, &BOTH[..1]))?;
        lab.wait_for_backends(&[("broker1", "up")])?;
        let old = lab.stay("old", clients())?;
        end(&mut lab, Signal::KILL)?;
        let weights = "address = \"172.16.40.21\"\nweight = 3";
        let heavier = text(way, &BOTH).replace("address = \"172.16.40.21\"", weights);
        lab.start(&heavier)?;
        lab.wait_for_backends(&[("broker1", "up"), ("broker2", "up")])?;
        let new = lab.stay("new", clients())?;
        let all = clients() as usize;
        lab.wait_for_connections(|[one, two]| one >= all && two > 0 && one + two == 2 * all)?;
        nobody_is_lost([old, new])?;
    }
    Ok(())
}

#[test]
fn a_drain_goes_on_under_the_next_daemon() -> Result<()> {
    let text = text(WAYS[0], &BOTH);
    let mut lab = Lab::serving(&text)?;
    let old = lab.stay("old", clients())?;
    let before = all_clients(&lab, clients())?;
    let drain = lab.ask(&["backend", "drain", "mqtt/broker1"])?;
    ensure!(drain.status.success(), "{drain:?}");
    end(&mut lab, Signal::KILL)?;
    come_and_go(&lab)?;
    lab.start(&text)?;
    let admin = lab.backend("broker1")?.admin.to_string();
    ensure!(admin.starts_with("drain"), "broker1 is {admin}");
    let new = lab.stay("new", clients())?;
    let [at_broker1, elsewhere] = before;
    let all = clients() as usize;
    lab.wait_for_connections(|now| now == [at_broker1, elsewhere + all])?;
    wait_until(SOON, "all sessions being known", || {
        let drain = lab.backend("broker1").ok()?.drain?;
        (drain.left_exact && drain.left == at_broker1 as u64).then_some(())
    })?;
    nobody_is_lost([old, new])
}

#[test]
fn a_daemon_that_is_killed_in_the_middle_of_changes_costs_nobody() -> Result<()> {
    for way in WAYS {
        let text = text(way, &BOTH);
        let mut lab = Lab::serving(&text)?;
        let old = lab.stay("old", clients())?;
        for round in 0..5_u64 {
            let mut changes = lab.host().command("sh")?;
            let tidegate = lab.programs.tidegate.display();
            let loop_of = format!(
                "for w in 1 2 3 4 5 6 7 8 9; do {tidegate} backend weight mqtt/broker1 $w --temporary \
                 --socket tidegate.sock || exit 0; done"
            );
            changes.args(["-c", &loop_of]);
            let mut changes = lab.host().spawn("changes", changes)?;
            // Whatever it is at, then.
            std::thread::sleep(Duration::from_millis(40 + 30 * round));
            end(&mut lab, Signal::KILL)?;
            changes.wait(SOON)?;
            lab.start(&text)?;
        }
        lab.wait_for_backends(&[("broker1", "up"), ("broker2", "up")])?;
        let new = lab.stay("new", clients())?;
        nobody_is_lost([old, new])?;
    }
    Ok(())
}

/// The same with room for other numbers of everything.
fn with_other_limits(text: &str, flows: u32) -> String {
    let room = flow_room();
    text.replace("services = 4", "services = 6")
        .replace("backends = 16", "backends = 12")
        .replace(&format!("\nflows = {room}"), &format!("\nflows = {flows}"))
        .replace(
            &format!("half_open = {room}"),
            &format!("half_open = {}", room - 2000),
        )
}

fn nothing_is_left_of_a_move(lab: &Lab) -> Result<()> {
    for entry in fs::read_dir(pins(lab))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        ensure!(!name.ends_with("-next"), "{name} is left");
    }
    Ok(())
}

#[test]
fn sessions_move_to_maps_of_other_sizes() -> Result<()> {
    for way in WAYS {
        let good = text(way, &BOTH);
        let mut lab = Lab::serving(&good)?;
        let old = lab.stay("old", clients())?;
        end(&mut lab, Signal::TERM)?;
        let other = with_other_limits(&good, 2 * flow_room());
        lab.start(&other)?;
        nothing_is_left_of_a_move(&lab)?;
        lab.wait_for_backends(&[("broker1", "up"), ("broker2", "up")])?;
        let slots = lab.service()?.slots;
        ensure!(slots.at_risk == 0, "nothing has changed, but {slots:?}");
        let new = lab.stay("new", clients())?;
        // What is there then is as good as what was there before.
        end(&mut lab, Signal::KILL)?;
        come_and_go(&lab)?;
        lab.start(&other)?;
        lab.wait_for_backends(&[("broker1", "up"), ("broker2", "up")])?;
        nobody_is_lost([old, new])?;
    }
    Ok(())
}

/// Neither an upgrade nor a downgrade to a version whose records are longer or shorter.
#[test]
fn sessions_move_to_maps_of_another_version() -> Result<()> {
    for way in WAYS {
        for other in [Other::Newer, Other::Older] {
            let good = text(way, &BOTH);
            let mut lab = Lab::serving(&good)?;
            let old = lab.stay("old", clients())?;
            let before = all_clients(&lab, clients())?;
            end(&mut lab, Signal::TERM)?;
            tests::pins::leave(&pins(&lab), other)?;
            lab.start(&good)?;
            nothing_is_left_of_a_move(&lab)?;
            lab.wait_for_backends(&[("broker1", "up"), ("broker2", "up")])?;
            let slots = lab.service()?.slots;
            ensure!(slots.at_risk == 0, "nothing has changed, but {slots:?}");
            let new = lab.stay("new", clients())?;
            let after = all_clients(&lab, 2 * clients())?;
            ensure!(after.iter().zip(before).all(|(now, then)| *now >= then));
            nobody_is_lost([old, new])?;
        }
    }
    Ok(())
}

#[test]
fn limits_without_room_are_refused_and_traffic_goes_on() -> Result<()> {
    let good = text(WAYS[1], &BOTH);
    let mut lab = Lab::serving(&good)?;
    let old = lab.stay("old", clients())?;
    end(&mut lab, Signal::TERM)?;
    let mut refused = lab.spawn("refused", &with_other_limits(&good, 10))?;
    ensure!(refused.wait(SOON)?.code() == Some(1));
    let said = refused.stderr();
    ensure!(said.contains("`limits` have no room"), "{said}");
    ensure!(said.contains("tidegate stop --detach"), "{said}");
    nothing_is_left_of_a_move(&lab)?;
    come_and_go(&lab)?;

    lab.start(&good)?;
    lab.wait_for_backends(&[("broker1", "up"), ("broker2", "up")])?;
    nobody_is_lost([old])
}

#[test]
fn another_seed_is_refused_until_traffic_has_ended() -> Result<()> {
    let good = text(WAYS[0], &BOTH);
    let mut lab = Lab::serving(&good)?;
    end(&mut lab, Signal::TERM)?;
    let other = format!("seed = \"00112233445566778899aabbccddeeff\"\n{good}");
    let mut refused = lab.spawn("refused", &other)?;
    ensure!(refused.wait(SOON)?.code() == Some(1));
    let said = refused.stderr();
    ensure!(said.contains("`seed` has changed"), "{said}");
    ensure!(said.contains("tidegate stop --detach"), "{said}");
    come_and_go(&lab)?;
    // As it was told: then all begins anew.
    let off = lab.tidegate(&["stop", "--detach", "--config", "tidegate.toml"])?;
    ensure!(off.status.success(), "{off:?}");
    lab.start(&other)?;
    lab.wait_for_backends(&[("broker1", "up"), ("broker2", "up")])?;
    nobody_is_lost([lab.stay("new", clients())?])
}

#[test]
fn a_move_that_is_killed_half_way_costs_nobody() -> Result<()> {
    let good = text(WAYS[1], &BOTH);
    let mut lab = Lab::serving(&good)?;
    let old = lab.stay("old", clients())?;
    end(&mut lab, Signal::TERM)?;
    for round in 0..6 {
        let other = with_other_limits(&good, flow_room() + 1000 + round);
        let mut process = lab.spawn("half", &other)?;
        // Whatever it is at, then: loading takes most of the time.
        std::thread::sleep(Duration::from_millis(100 + 150 * u64::from(round)));
        process.kill()?;
        ensure!(lab.has_program()?, "the program went with the daemon");
    }
    come_and_go(&lab)?;
    lab.start(&good)?;
    nothing_is_left_of_a_move(&lab)?;
    lab.wait_for_backends(&[("broker1", "up"), ("broker2", "up")])?;
    let new = lab.stay("new", clients())?;
    nobody_is_lost([old, new])
}

/// An older version had fewer maps.
#[test]
fn a_map_that_no_session_depends_on_is_made_anew() -> Result<()> {
    let good = text(WAYS[1], &BOTH);
    let mut lab = Lab::serving(&good)?;
    let old = lab.stay("old", clients())?;
    let leases = pins(&lab).join(abi::LEASES);
    for limits in [good.clone(), with_other_limits(&good, 2 * flow_room())] {
        end(&mut lab, Signal::KILL)?;
        fs::remove_file(&leases)?;
        lab.start(&limits)?;
        ensure!(leases.exists(), "the next daemon would not find it");
        lab.wait_for_backends(&[("broker1", "up"), ("broker2", "up")])?;
    }
    nobody_is_lost([old, lab.stay("new", clients())?])
}

#[test]
fn a_start_without_a_map_that_sessions_need_is_refused() -> Result<()> {
    let good = text(WAYS[1], &BOTH);
    let mut lab = Lab::serving(&good)?;
    let old = lab.stay("old", clients())?;
    end(&mut lab, Signal::TERM)?;
    fs::remove_file(pins(&lab).join(abi::FLOWS))?;
    let mut refused = lab.spawn("refused", &good)?;
    ensure!(refused.wait(SOON)?.code() == Some(1));
    let said = refused.stderr();
    ensure!(said.contains("not pinned any more"), "{said}");
    come_and_go(&lab)?;
    nobody_is_lost([old])
}

#[test]
fn addresses_that_no_program_serves_are_taken_off_and_no_others() -> Result<()> {
    let mut lab = Lab::new()?;
    let before = lab.addresses()?;
    lab.start(&config("maglev", "dsr", &BOTH))?;
    lab.wait_for_backends(&[("broker1", "up"), ("broker2", "up")])?;
    let look = |lab: &Lab| lab.tidegate(&["stop", "--orphans", "--config", "tidegate.toml"]);
    let refused = look(&lab)?;
    ensure!(
        refused.status.code() == Some(1),
        "a daemon runs: {refused:?}"
    );
    end(&mut lab, Signal::KILL)?;
    let kept = look(&lab)?;
    let said = String::from_utf8_lossy(&kept.stdout).into_owned();
    ensure!(said.contains("goes on forwarding"), "{kept:?}");
    come_and_go(&lab)?;
    // As on a host where nothing could be pinned: the program went with its daemon.
    fs::remove_file(pins(&lab).join("link"))?;
    wait_until(SOON, "the program being gone", || {
        (!lab.has_program().ok()?).then_some(())
    })?;
    ensure!(lab.addresses()? != before, "the VIPs went with the program");
    let taken = look(&lab)?;
    ensure!(taken.status.success(), "{taken:?}");
    ensure!(lab.addresses()? == before, "{} is left", lab.addresses()?);
    Ok(())
}

#[test]
fn a_stop_that_detaches_leaves_the_host_as_it_was() -> Result<()> {
    let mut lab = Lab::new()?;
    let before = lab.addresses()?;
    for runs in [true, false] {
        lab.start(&config("maglev", "dsr", &BOTH))?;
        lab.wait_for_backends(&[("broker1", "up"), ("broker2", "up")])?;
        ensure!(lab.has_program()? && pins(&lab).join("link").exists());
        if runs {
            let stop = lab.ask(&["stop", "--detach"])?;
            ensure!(stop.status.success(), "{stop:?}");
            let said = String::from_utf8_lossy(&stop.stdout).into_owned();
            ensure!(said.contains("taken off"), "{said}");
            ensure!(lab.balancer()?.wait(SOON)?.success());
        } else {
            end(&mut lab, Signal::KILL)?;
            let refused = lab.ask(&["stop", "--detach"])?;
            let said = String::from_utf8_lossy(&refused.stderr).into_owned();
            ensure!(refused.status.code() == Some(1), "{refused:?}");
            ensure!(said.contains("no daemon answers"), "{said}");
            let stop = lab.tidegate(&["stop", "--detach", "--config", "tidegate.toml"])?;
            ensure!(stop.status.success(), "{stop:?}");
        }
        wait_until(SOON, "the program being gone", || {
            (!lab.has_program().ok()?).then_some(())
        })?;
        ensure!(lab.addresses()? == before, "{} is left", lab.addresses()?);
        ensure!(!pins(&lab).exists(), "pins are left");
    }
    Ok(())
}

#[test]
fn a_start_that_fails_leaves_no_pins() -> Result<()> {
    let mut lab = Lab::new()?;
    let good = config("maglev", "dsr", &BOTH);
    lab.start(&good)?;
    let elsewhere = good
        .replace("$DIR/state", "$DIR/state2")
        .replace("$DIR/bpf", "$DIR/bpf2")
        .replace("$DIR/tidegate.sock", "$DIR/second.sock");
    let mut second = lab.spawn("second", &elsewhere)?;
    ensure!(second.wait(SOON)?.code() == Some(1));
    let said = second.stderr();
    ensure!(said.contains("already has an XDP program"), "{said}");
    let left = fs::read_dir(lab.host().work_dir().join("bpf2/eth0"));
    let left = left.context("the directory has gone")?.count();
    ensure!(left == 0, "{left} pins are left");
    Ok(())
}
