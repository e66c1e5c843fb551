//! Two nodes and one address: who has it, and what becomes of the clients when that changes.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use lb_user::io::vrrp::{Endpoint, Reach, VrrpSocket};
use rustix::process::Signal;
use tests::balancer::SOON;
use tests::pair::{Pair, both_families, node, router};
use xtask::lab::{Family, Host, wait_until};

const VIP: &str = "172.16.40.24/32";
fn clients() -> u32 {
    tests::balancer::clients(200)
}
/// Several of the times after which a Backup that hears nothing becomes Active.
const FLOOD: Duration = Duration::from_secs(3);

fn path_of(host: &Host, name: &str) -> String {
    host.work_dir().join(name).display().to_string()
}

/// Has a pipe hold no more than the kernel must give it.
fn shrink(pipe: &File) -> Result<()> {
    // SAFETY: the descriptor is open, and the command takes a number.
    let size = unsafe { libc::fcntl(pipe.as_raw_fd(), libc::F_SETPIPE_SZ, 4_096) };
    ensure!(size > 0, "{}", std::io::Error::last_os_error());
    Ok(())
}

#[test]
fn one_of_two_nodes_has_the_address_and_tells_of_it() -> Result<()> {
    let pair = Pair::serving()?;
    let (active, backup) = (pair.router(0)?, pair.router(1)?);
    ensure!(
        active.adverts.sent > 0 && active.peer.is_none(),
        "{active:?}"
    );
    let peer = backup.peer.context("the Backup knows no Active")?;
    ensure!(peer.address == pair.host(0).address(Family::V4));
    ensure!(
        peer.priority == 200 && backup.adverts.received > 0,
        "{backup:?}"
    );
    let states = [0, 1].map(|at| Ok(pair.status(at)?.vips[0].state.to_string()));
    let states = states.into_iter().collect::<Result<Vec<_>>>()?;
    ensure!(states == ["assigned", "standby"], "{states:?}");
    let text = pair.tell(1, &["status"])?;
    ensure!(text.contains("172.16.40.22 (200)"), "{text}");
    // The address answers, and sessions pass.
    let load = pair.stay("clients", clients())?;
    pair.wait_for_traffic(0, clients().into())?;
    Pair::end(load)
}

#[test]
fn a_planned_release_loses_no_session() -> Result<()> {
    let pair = Pair::serving()?;
    let load = pair.stay("clients", clients())?;
    pair.tell(0, &["vrrp", "release", "front", "--wait"])?;
    pair.wait_for_roles(["backup", "active"])?;
    pair.wait_for_client(1)?;
    pair.wait_for_traffic(1, clients().into())?;
    let held = pair.router(0)?;
    ensure!(held.held == ["operator"], "{held:?}");
    let cause = held.last_change.map(|change| change.cause);
    ensure!(cause.as_deref() == Some("operator"), "{cause:?}");

    pair.tell(0, &["vrrp", "resume", "front"])?;
    pair.wait_for_roles(["active", "backup"])?;
    pair.wait_for_client(0)?;
    pair.wait_for_traffic(0, clients().into())?;
    Pair::end(load)?;

    let refused = pair.ask(0, &["vrrp", "release", "nosuch"])?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(refused.status.code() == Some(64), "{refused:?}");
    ensure!(
        said.contains("no virtual router or group named nosuch"),
        "{said}"
    );
    Ok(())
}

#[test]
fn a_dead_host_takes_no_session_along() -> Result<()> {
    let pair = Pair::serving()?;
    let load = pair.stay("clients", clients())?;
    let switch = pair.lab.topology.switch();
    switch.unplug(pair.host(0))?;
    pair.wait_for_roles(["backup", "active"])?;
    pair.wait_for_client(1)?;
    pair.wait_for_traffic(1, clients().into())?;
    let router = pair.router(0)?;
    ensure!(
        router.faults.contains(&"link_down".to_owned()),
        "{router:?}"
    );

    switch.plug(pair.host(0))?;
    pair.wait_for_roles(["active", "backup"])?;
    pair.wait_for_client(0)?;
    pair.wait_for_traffic(0, clients().into())?;
    Pair::end(load)
}

#[test]
fn a_stop_hands_over_first_and_leaves_nothing() -> Result<()> {
    let mut pair = Pair::serving()?;
    let load = pair.stay("clients", clients())?;
    pair.process(0)?.signal(Signal::TERM)?;
    let status = pair.process(0)?.wait(SOON)?;
    ensure!(status.success(), "{status}");
    ensure!(!pair.has(0, VIP)?, "the address is left");
    // It ended when its successor was there: no advert had to be missed.
    pair.wait_for_role(1, "active")?;
    let change = pair.router(1)?.last_change.context("no change is told")?;
    ensure!(change.cause == "peer_released", "{change:?}");
    pair.wait_for_client(1)?;
    pair.wait_for_traffic(1, clients().into())?;
    Pair::end(load)
}

#[test]
fn the_address_goes_with_a_killed_daemon_and_comes_back_with_it() -> Result<()> {
    let mut pair = Pair::serving()?;
    pair.process(0)?.kill()?;
    pair.wait_for_role(1, "active")?;
    wait_until(SOON, "the killed daemon's address being gone", || {
        (!pair.has(0, VIP).ok()?).then_some(())
    })?;
    let load = pair.stay("clients", clients())?;
    pair.wait_for_traffic(1, clients().into())?;
    pair.start(0, &node(&router(200, "")))?;
    pair.wait_for_roles(["active", "backup"])?;
    pair.wait_for_client(0)?;
    pair.wait_for_traffic(0, clients().into())?;
    Pair::end(load)
}

#[test]
fn what_a_killed_daemon_left_is_removed_before_its_router_is_active() -> Result<()> {
    let mut pair = Pair::new()?;
    let alone = node(&router(200, ""));
    // It would not be Active for minutes.
    let late = alone.replace("vips = ", "startup_delay = \"10m\"\nvips = ");
    // As another router it is not the one that was Active.
    let late = late.replace("vrid = 51", "vrid = 52");
    // On a machine that is busy the address may have gone by itself.
    for _ in 0..5 {
        pair.start(0, &alone)?;
        pair.wait_for_role(0, "active")?;
        pair.process(0)?.kill()?;
        pair.start(0, &late)?;
        ensure!(!pair.has(0, VIP)?, "the address is still there");
        ensure!(pair.router(0)?.role == "initialize");
        let said = pair.process(0)?.stderr();
        let before = said.split(" ready").next().unwrap_or_default();
        if before.contains("VIP removed") {
            return Ok(());
        }
        pair.process(0)?.terminate(SOON)?;
    }
    bail!("the daemon removed nothing in five attempts")
}

#[test]
fn who_does_not_preempt_waits_behind_a_lower_active() -> Result<()> {
    let mut pair = Pair::serving()?;
    pair.process(0)?.terminate(SOON)?;
    pair.wait_for_role(1, "active")?;
    pair.start(0, &node(&router(200, "preempt = false")))?;
    let sent = pair.router(1)?.adverts.sent;
    // So long that it would have preempted several times.
    wait_until(SOON, "many adverts", || {
        (pair.router(1).ok()?.adverts.sent > sent + 20).then_some(())
    })?;
    pair.wait_for_roles(["backup", "active"])?;
    // It takes over from a dead one all the same.
    pair.process(1)?.kill()?;
    pair.wait_for_role(0, "active")
}

#[test]
fn a_healed_partition_leaves_one_active_whom_the_clients_follow() -> Result<()> {
    let pair = Pair::serving()?;
    let load = pair.stay("clients", clients())?;
    for _ in 0..3 {
        pair.part(true)?;
        pair.wait_for_roles(["active", "active"])?;
        pair.wait_for_client(1)?;
        pair.part(false)?;
        pair.wait_for_roles(["active", "backup"])?;
        pair.wait_for_client(0)?;
        pair.wait_for_traffic(0, clients().into())?;
    }
    ensure!(pair.router(0)?.adverts.contests > 0);
    Pair::end(load)
}

#[test]
fn who_has_no_backend_leaves_the_role_to_who_has() -> Result<()> {
    let mut pair = Pair::new()?;
    let (first, second) = (node(&router(200, "")), node(&router(100, "")));
    // Nobody listens there.
    let blind = first.replace("type = \"mqtt\"", "type = \"mqtt\"\nport = 1");
    pair.start(0, &blind)?;
    pair.start(1, &second)?;
    pair.wait_for_roles(["backup", "active"])?;
    let router = pair.router(0)?;
    ensure!(router.faults == ["no_backends"], "{router:?}");
    let load = pair.stay("clients", clients())?;
    pair.write(0, &first)?;
    pair.tell(0, &["reload"])?;
    pair.wait_for_roles(["active", "backup"])?;
    pair.wait_for_client(0)?;
    pair.wait_for_traffic(0, clients().into())?;
    Pair::end(load)
}

#[test]
fn a_reload_disturbs_no_router_that_stays_as_it_was() -> Result<()> {
    let pair = Pair::serving()?;
    let load = pair.stay("clients", clients())?;
    let before = pair.router(0)?;
    let first = node(&router(200, ""));
    let second = "[[vip]]\naddress = \"172.16.40.25/32\"\n[[vrrp]]\nname = \"second\"\nvrid = 52\n\
                  advert_interval = \"200ms\"\nvips = [\"172.16.40.25\"]\n";
    pair.write(0, &format!("{first}{second}"))?;
    pair.tell(0, &["reload"])?;
    wait_until(SOON, "the new router's address", || {
        pair.has(0, "172.16.40.25/32").ok()?.then_some(())
    })?;
    let same = |now: &lb_user::control::RouterStatus| {
        (now.changes == before.changes) && now.adverts.sent >= before.adverts.sent
    };
    let now = pair.router(0)?;
    ensure!(same(&now), "{now:?} was {before:?}");

    // One that changes, be it its name, keeps its role, one that goes takes its address along.
    let changed = first.replace("priority = 200", "priority = 210");
    pair.write(0, &changed.replace("name = \"front\"", "name = \"edge\""))?;
    pair.tell(0, &["reload"])?;
    ensure!(!pair.has(0, "172.16.40.25/32")?, "its address is left");
    wait_until(SOON, "the new priority at the peer", || {
        let peer = pair.router(1).ok()?.peer?;
        (peer.priority == 210).then_some(())
    })?;
    pair.wait_for_roles(["active", "backup"])?;
    ensure!(
        !pair.router(1)?.changes.contains_key("active"),
        "the peer was Active"
    );

    // Without a router the address is held like any other.
    pair.write(0, &node(""))?;
    pair.tell(0, &["reload"])?;
    ensure!(pair.has(0, VIP)?);
    ensure!(pair.vrrp(0)?.routers.is_empty());
    pair.write(0, &first)?;
    pair.tell(1, &["vrrp", "release", "front"])?;
    pair.tell(0, &["reload"])?;
    pair.wait_for_role(0, "active")?;
    pair.wait_for_client(0)?;
    pair.wait_for_traffic(0, clients().into())?;
    Pair::end(load)
}

#[test]
fn an_address_gets_another_prefix_and_stays_where_it_is() -> Result<()> {
    let pair = Pair::serving()?;
    let load = pair.stay("clients", clients())?;
    let text = node(&router(200, ""));
    pair.write(0, &text.replace(VIP, "172.16.40.24/24"))?;
    pair.tell(0, &["reload"])?;
    let (vip, wanted) = (Family::V4.vip(), "172.16.40.24/24");
    wait_until(SOON, "the other prefix alone", || {
        let addresses = pair.addresses(0).ok()?.into_iter();
        let mut found = addresses.filter(|it| it.starts_with(&format!("{vip}/")));
        (found.next()? == wanted && found.next().is_none()).then_some(())
    })?;
    pair.wait_for_traffic(0, clients().into())?;
    let changes = pair.router(1)?.changes;
    ensure!(!changes.contains_key("active"), "{changes:?}");
    // It goes as a whole.
    pair.tell(0, &["vrrp", "release", "front", "--wait"])?;
    pair.wait_for_roles(["backup", "active"])?;
    pair.wait_for_client(1)?;
    pair.wait_for_traffic(1, clients().into())?;
    Pair::end(load)
}

/// The names of a process's threads, and how the kernel schedules each: `chrt`'s word for it.
fn threads(pid: u32) -> Result<Vec<(String, String)>> {
    const FIELD: usize = 41;
    let mut threads = Vec::new();
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let stat = std::fs::read_to_string(task?.path().join("stat"))?;
        // The name, which is the second field, may have spaces.
        let (front, back) = stat.rsplit_once(") ").context("no name")?;
        let name = front.split_once(" (").context("no name")?.1;
        let policy = back.split_whitespace().nth(FIELD - 3);
        let policy = match policy.context("no policy")? {
            "0" => "other",
            "1" => "fifo",
            another => another,
        };
        threads.push((name.to_owned(), policy.to_owned()));
    }
    threads.sort();
    Ok(threads)
}

#[test]
fn adverts_have_threads_of_their_own_that_run_before_all_ordinary_ones() -> Result<()> {
    let mut pair = Pair::new()?;
    pair.start(0, &node(&router(200, "")))?;
    pair.wait_for_role(0, "active")?;
    let found = threads(pair.process(0)?.pid())?;
    let is_own = |name: &str| ["vrrp", "vrrp-addresses", "vrrp-sockets"].contains(&name);
    let (own, others): (Vec<_>, Vec<_>) = found.iter().partition(|(name, _)| is_own(name));
    ensure!(own.len() == 3 && !others.is_empty(), "{found:?}");
    ensure!(
        others.iter().all(|(_, policy)| policy == "other"),
        "{found:?}"
    );
    let said = pair.process(0)?.stderr();
    let is_allowed = said.contains("thread runs before ordinary ones");
    let wanted = if is_allowed { "fifo" } else { "other" };
    ensure!(own.iter().all(|(_, policy)| policy == wanted), "{found:?}");
    if !is_allowed {
        println!("skipped: no thread may run before ordinary ones here");
    }
    Ok(())
}

#[test]
fn a_daemon_that_hangs_in_its_log_goes_on_sending_adverts() -> Result<()> {
    let mut pair = Pair::new()?;
    // Nobody reads what it writes, so sooner or later its event loop waits for ever.
    let host = pair.host(0);
    host.output("mkfifo", &[&path_of(host, "stuck")])?;
    let pipe = File::options()
        .read(true)
        .write(true)
        .open(path_of(host, "stuck"))?;
    shrink(&pipe)?;
    pair.write(0, &node(&router(200, "")))?;
    let mut command = pair.host(0).command("sh")?;
    let program = pair.lab.programs.tidegate.display().to_string();
    let line = format!("exec {program} run --config tidegate.toml 2>stuck");
    command.args(["-c", &line]);
    pair.nodes[0] = Some(pair.host(0).spawn("tidegate", command)?);
    pair.wait_for_role(0, "active")?;
    pair.start(1, &node(&router(100, "")))?;
    wait_until(SOON, "the Backup hearing the Active", || {
        pair.router(1).ok()?.peer
    })?;
    while pair.ask(0, &["reload"])?.status.success() {}
    let received = pair.router(1)?.adverts.received;
    wait_until(SOON, "adverts of a daemon that hangs", || {
        (pair.router(1).ok()?.adverts.received > received + 20).then_some(())
    })?;
    pair.wait_for_role(1, "backup")?;
    ensure!(pair.has(0, VIP)?, "the address was not renewed");
    ensure!(
        !pair.ask(0, &["vrrp", "status"])?.status.success(),
        "it did not hang"
    );
    Ok(())
}

#[test]
fn a_flood_of_forged_adverts_is_counted_and_changes_nothing() -> Result<()> {
    let pair = Pair::serving()?;
    let before = [pair.router(0)?, pair.router(1)?];
    let forger = &pair.lab.topology.client;
    let endpoint = Endpoint {
        interface: "eth0".to_owned(),
        index: forger.index()?,
        source: forger.address(Family::V4),
        reach: Reach::Multicast,
    };
    let socket = forger.netns().enter(|| Ok(VrrpSocket::open(&endpoint)?))?;
    // Of priority 255, but for the checksum; and one of nobody's.
    let forged = [0x31, 51, 255, 1, 0, 20, 0xde, 0xad, 172, 16, 40, 24];
    let router = lb_user::core::vrrp::advert::GROUP_V4.into();
    let started = Instant::now();
    while started.elapsed() < FLOOD {
        // The socket is full now and then.
        drop(socket.send(&forged, router));
        drop(socket.send(&forged[..7], router));
    }
    for (at, before) in before.iter().enumerate() {
        let refused = pair.vrrp(at)?.refused;
        let of = |reason| refused.get("eth0").and_then(|all| all.get(reason));
        ensure!(
            of("checksum") > Some(&0) && of("length") > Some(&0),
            "{refused:?}"
        );
        ensure!(pair.router(at)?.changes == before.changes, "a role changed");
    }
    pair.wait_for_roles(["active", "backup"])
}

#[test]
fn an_address_that_somebody_removes_is_put_back_and_announced() -> Result<()> {
    let pair = Pair::serving()?;
    let before = pair.router(0)?.adverts.announcements;
    let netns = pair.host(0).netns();
    netns.ip(&[&format!("address delete {VIP} dev eth0")])?;
    wait_until(SOON, "the address being back and announced", || {
        let router = pair.router(0).ok()?;
        (pair.has(0, VIP).ok()? && router.adverts.announcements > before).then_some(())
    })?;
    pair.wait_for_roles(["active", "backup"])
}

#[test]
fn an_address_of_somebody_else_is_left_there() -> Result<()> {
    let mut pair = Pair::new()?;
    pair.host(0)
        .add_address([172, 16, 40, 24].into(), 32, "eth0")?;
    pair.start(0, &node(&router(200, "")))?;
    pair.wait_for_role(0, "active")?;
    pair.process(0)?.terminate(SOON)?;
    ensure!(pair.has(0, VIP)?, "it was removed");
    Ok(())
}

#[test]
fn both_families_move_together() -> Result<()> {
    let mut pair = Pair::new()?;
    pair.start(0, &both_families(200))?;
    pair.start(1, &both_families(100))?;
    pair.wait_for_roles(["active", "backup"])?;
    let v4 = pair.stay("clients", clients())?;
    let v6 = pair.stay_v6("clients-v6", clients())?;
    pair.tell(0, &["vrrp", "release", "front", "--wait"])?;
    pair.wait_for_roles(["backup", "active"])?;
    pair.wait_for_packets(1, "mqtt", clients().into())?;
    pair.wait_for_packets(1, "mqtt-v6", clients().into())?;
    pair.tell(0, &["vrrp", "resume", "front-v6"])?;
    pair.wait_for_roles(["active", "backup"])?;
    pair.wait_for_packets(0, "mqtt-v6", clients().into())?;
    Pair::end(v4)?;
    Pair::end(v6)?;
    pair.process(0)?.kill()?;
    pair.wait_for_role(1, "active")
}

#[test]
fn peers_that_are_named_need_no_group() -> Result<()> {
    let mut pair = Pair::new()?;
    for (at, priority, peer) in [(0, 200, 23), (1, 100, 22)] {
        let peers = format!("peers = [\"172.16.40.{peer}\"]");
        pair.start(at, &node(&router(priority, &peers)))?;
    }
    pair.wait_for_roles(["active", "backup"])?;
    pair.process(0)?.terminate(SOON)?;
    pair.wait_for_role(1, "active")
}
