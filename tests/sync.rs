//! Two nodes that tell each other of their flows: whoever takes over has them.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lb_user::control::{ServiceStatus, SyncStatus};
use tests::balancer::{BOTH, SOON, config};
use tests::pair::{Pair, SEED, router};
use xtask::lab::{Process, wait_until};

fn clients() -> u32 {
    tests::balancer::clients(200)
}

/// A status tells of a lag that was measured this long ago at most.
const TOLD: Duration = Duration::from_secs(2);

/// What NAT sends from: it goes where the VIP goes.
const NAT_SOURCE: &str = "172.16.40.25";

/// The configuration of a node with a peer.
fn node(at: usize, balance: &str, forward: &str, backends: &[(&str, u8)]) -> String {
    let (ours, peers, priority) = [(22, 23, 200), (23, 22, 100)][at];
    let plain = config(balance, forward, backends);
    let plain = plain.replace("[[vip]]\naddress = \"fd00:40::24/128\"\n", "");
    // No backend is to fall because the machine is busy: that would end sessions too.
    let plain = plain
        .replace("\"200ms\"", "\"1s\"")
        .replace("fall = 2", "fall = 10");
    let sync = format!(
        "[sync]\nlisten = \"172.16.40.{ours}:9464\"\npeer = \"172.16.40.{peers}:9464\"\n\
         key_file = \"$DIR/sync.key\"\n"
    );
    let text = format!("seed = \"{SEED}\"\n{plain}\n{sync}{}", router(priority, ""));
    if forward != "nat" {
        return text;
    }
    let vips = format!("vips = [\"172.16.40.24\", \"{NAT_SOURCE}\"]");
    let text = text.replace("vips = [\"172.16.40.24\"]", &vips);
    format!("{text}\n[[vip]]\naddress = \"{NAT_SOURCE}/32\"\n[nat]\nsources = [\"{NAT_SOURCE}\"]\n")
}

/// Gives a node's host a key.
fn give_key(pair: &Pair, at: usize, digit: char) -> Result<()> {
    let path = pair.host(at).work_dir().join("sync.key");
    fs::write(&path, digit.to_string().repeat(64))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
    Ok(())
}

fn sync(pair: &Pair, at: usize) -> Result<SyncStatus> {
    pair.status(at)?.sync.context("there is no peer")
}

fn service(pair: &Pair, at: usize) -> Result<ServiceStatus> {
    let mut services = pair.status(at)?.services.into_iter();
    services.next().context("there is no service")
}

/// Two nodes with the same key, of which the first has the role.
fn serving(balance: &str, forward: &str, backends: &[(&str, u8)]) -> Result<Pair> {
    let mut pair = Pair::new()?;
    for at in [0, 1] {
        give_key(&pair, at, 'a')?;
        pair.start(at, &node(at, balance, forward, backends))?;
    }
    pair.wait_for_roles(["active", "backup"])?;
    Ok(pair)
}

/// Waits until a node's peer has all that the node has when this is called: `flows` at least.
fn wait_for_sync(pair: &Pair, from: usize, flows: u64) -> Result<()> {
    let (mut last, started) = (None, Instant::now());
    let found = wait_until(SOON, "the peer being in sync", || {
        let (ours, theirs) = (sync(pair, from).ok()?, sync(pair, 1 - from).ok()?);
        let is_told = ours.sending.in_sync_seconds.is_some()
            && started.elapsed() > Duration::from_secs_f64(ours.sending.lag_seconds) + TOLD
            && theirs.receiving.in_sync_seconds.is_some();
        let has = pair.status(1 - from).ok()?.flows.tracked;
        last = Some((ours, theirs, has));
        (is_told && has >= flows).then_some(())
    });
    found.with_context(|| format!("{last:?}"))
}

fn host_dies_with_nobody(balance: &str, forward: &str) -> Result<()> {
    let pair = serving(balance, forward, &BOTH)?;
    let load = pair.stay("clients", clients())?;
    pair.wait_for_packets(0, "mqtt", clients().into())?;
    wait_for_sync(&pair, 0, clients().into())?;
    let refused = sync(&pair, 1)?.receiving.refused;
    pair.lab.topology.switch().unplug(pair.host(0))?;
    pair.wait_for_role(1, "active")?;
    pair.wait_for_client(1)?;
    pair.wait_for_packets(1, "mqtt", clients().into())?;
    Pair::end(load).with_context(|| format!("{refused:?}"))
}

#[test]
fn a_dead_host_takes_no_session_of_round_robin_along() -> Result<()> {
    host_dies_with_nobody("round_robin", "dsr")
}

#[test]
fn a_dead_host_takes_no_session_of_least_conn_along() -> Result<()> {
    host_dies_with_nobody("least_conn", "dsr")
}

#[test]
fn a_dead_host_takes_no_session_of_nat_along() -> Result<()> {
    host_dies_with_nobody("round_robin", "nat")
}

/// Waits until so many new flows were reported to a node, and its peer has acknowledged all of them.
fn wait_for_new_flows(pair: &Pair, from: usize, flows: u64) -> Result<()> {
    let mut last = None;
    let found = wait_until(SOON, "the peer having the new flows", || {
        let sending = sync(pair, from).ok()?.sending;
        let is_told = sending.events >= flows && sending.unacknowledged == 0;
        last = Some(sending);
        is_told.then_some(())
    });
    found.with_context(|| format!("{last:?}"))
}

/// The sweep looks each second, and most of these are younger.
#[test]
fn clients_that_have_just_connected_survive_a_dead_host() -> Result<()> {
    let pair = serving("least_conn", "nat", &BOTH)?;
    wait_for_sync(&pair, 0, 0)?;
    let mut load = pair
        .lab
        .load("clients", "conn", clients(), &["-i", "0", "--hold", "10m"])?;
    load.wait_ready(SOON)?;
    wait_for_new_flows(&pair, 0, clients().into())?;
    pair.lab.topology.switch().unplug(pair.host(0))?;
    pair.wait_for_role(1, "active")?;
    pair.wait_for_client(1)?;
    pair.wait_for_packets(1, "mqtt", clients().into())?;
    Pair::end(load)
}

#[test]
fn sessions_of_a_backend_that_has_just_lost_its_slots_stay() -> Result<()> {
    let pair = serving("maglev", "dsr", &BOTH[..1])?;
    let load = pair.stay("clients", clients())?;
    for at in [1, 0] {
        pair.write(at, &node(at, "maglev", "dsr", &BOTH))?;
        pair.tell(at, &["reload"])?;
    }
    wait_until(SOON, "both nodes having the slots at risk", || {
        let both = [service(&pair, 0).ok()?.slots, service(&pair, 1).ok()?.slots];
        (both[0].at_risk > 0 && both[0].at_risk == both[1].at_risk).then_some(())
    })?;
    // These are the new backend's, in slots whose other sessions are the old one's.
    let late = pair.stay("late", clients())?;
    let [_, newcomers] = pair.lab.clients()?;
    ensure!(newcomers > 0, "nobody went to the new backend");
    pair.wait_for_packets(0, "mqtt", u64::from(2 * clients()))?;
    wait_for_sync(&pair, 0, newcomers as u64)?;
    pair.lab.topology.switch().unplug(pair.host(0))?;
    pair.wait_for_role(1, "active")?;
    pair.wait_for_client(1)?;
    pair.wait_for_packets(1, "mqtt", u64::from(2 * clients()))?;
    Pair::end(load)?;
    Pair::end(late)
}

#[test]
fn roles_that_change_take_the_flows_along_each_time() -> Result<()> {
    let pair = serving("round_robin", "dsr", &BOTH)?;
    let arguments = ["-i", "1", "--hold", "10m", "--events"];
    let mut load = pair.lab.load("clients", "conn", clients(), &arguments)?;
    load.wait_ready(SOON)?;
    for (from, to) in [(0, 1), (1, 0), (0, 1)] {
        wait_for_sync(&pair, from, clients().into())?;
        let order = if from == 0 { "release" } else { "resume" };
        pair.tell(0, &["vrrp", order, "front"])?;
        pair.wait_for_role(to, "active")?;
        pair.wait_for_role(from, "backup")?;
        pair.wait_for_client(to)?;
        pair.wait_for_packets(to, "mqtt", clients().into())?;
        let (here, there) = (sync(&pair, from)?, sync(&pair, to)?);
        let lost = load.losses().len();
        ensure!(lost == 0, "{lost} lost, {from} to {to}: {here:?} {there:?}");
    }
    Pair::end(load)
}

/// The same for a node that waits for nothing but being in sync before it takes its role back.
fn at_once(text: &str) -> String {
    text.replace("preempt_delay = \"2s\"\n", "")
}

/// Waits until a node would tell a peer of so many flows.
fn wait_for_entries(pair: &Pair, at: usize, flows: u64) -> Result<()> {
    Ok(wait_until(SOON, "all flows being met", || {
        (sync(pair, at).ok()?.sending.entries >= flows).then_some(())
    })?)
}

/// The Active's daemon ends, its peer takes over, it comes back to what it has left in the kernel, and
/// has the role again.
fn a_daemon_returns(end: fn(&mut Process) -> Result<()>, forward: &str) -> Result<()> {
    let text = |at| at_once(&node(at, "round_robin", forward, &BOTH));
    let mut pair = Pair::new()?;
    for at in [0, 1] {
        give_key(&pair, at, 'a')?;
        pair.start(at, &text(at))?;
    }
    pair.wait_for_roles(["active", "backup"])?;
    let old = pair.stay("old", clients())?;
    pair.wait_for_packets(0, "mqtt", clients().into())?;
    wait_for_sync(&pair, 0, clients().into())?;
    end(pair.process(0)?)?;
    pair.wait_for_role(1, "active")?;
    pair.wait_for_client(1)?;
    let late = pair.stay("late", clients())?;
    pair.wait_for_packets(1, "mqtt", u64::from(2 * clients()))?;

    wait_for_entries(&pair, 1, u64::from(2 * clients()))?;
    pair.start(0, &text(0))?;
    pair.wait_for_role(0, "active")?;
    pair.wait_for_client(0)?;
    pair.wait_for_packets(0, "mqtt", u64::from(2 * clients()))?;
    Pair::end(old)?;
    Pair::end(late)
}

#[test]
fn a_restart_of_the_active_costs_no_session() -> Result<()> {
    a_daemon_returns(|process| process.terminate(SOON).map(drop), "dsr")
}

#[test]
fn a_killed_active_that_returns_costs_no_session() -> Result<()> {
    a_daemon_returns(|process| process.kill().map(drop), "nat")
}

#[test]
fn a_node_that_is_not_in_sync_takes_no_role_from_a_living_peer() -> Result<()> {
    let mut pair = Pair::new()?;
    let text = |at| at_once(&node(at, "round_robin", "dsr", &BOTH));
    give_key(&pair, 1, 'a')?;
    give_key(&pair, 0, 'b')?;
    pair.start(1, &text(1))?;
    pair.wait_for_role(1, "active")?;
    let load = pair.stay("clients", clients())?;
    pair.wait_for_packets(1, "mqtt", clients().into())?;
    wait_for_entries(&pair, 1, clients().into())?;
    pair.start(0, &text(0))?;
    let heard = |pair: &Pair| {
        let router = pair.router(0).ok()?;
        router.awaits_sync.then_some(router.adverts.received)
    };
    let first = wait_until(SOON, "the node waiting for its peer's sessions", || {
        heard(&pair)
    })?;
    wait_until(SOON, "many adverts of a lower priority", || {
        (heard(&pair)? > first + 20).then_some(())
    })?;
    ensure!(pair.router(0)?.role == "backup", "{:?}", pair.router(0)?);
    let text = pair.tell(0, &["vrrp", "status"])?;
    ensure!(text.contains("sync"), "{text}");

    give_key(&pair, 0, 'a')?;
    pair.wait_for_role(0, "active")?;
    pair.wait_for_client(0)?;
    pair.wait_for_packets(0, "mqtt", clients().into())?;
    ensure!(!pair.router(0)?.awaits_sync);
    Pair::end(load)
}

#[test]
fn another_key_is_told_on_both_nodes_and_stops_nobody() -> Result<()> {
    let mut pair = Pair::new()?;
    give_key(&pair, 0, 'a')?;
    pair.start(0, &node(0, "round_robin", "dsr", &BOTH))?;
    // The peer has no key at all.
    pair.start(1, &node(1, "round_robin", "dsr", &BOTH))?;
    pair.wait_for_roles(["active", "backup"])?;
    let error = |pair: &Pair, at| {
        let now = sync(pair, at).ok()?;
        let errors = [now.sending.error, now.receiving.error];
        let is_out = now.sending.in_sync_seconds.is_none();
        is_out.then(|| errors.into_iter().flatten().collect::<Vec<_>>().join("; "))
    };
    let says = |pair: &Pair, at, text: &str| {
        let what = format!("node {at} saying {text}");
        wait_until(SOON, &what, || {
            error(pair, at).filter(|error| error.contains(text))
        })
    };
    says(&pair, 1, "sync.key")?;
    says(&pair, 0, "key may be another")?;
    give_key(&pair, 1, 'b')?;
    says(&pair, 1, "has another key")?;
    let load = pair.stay("clients", clients())?;
    pair.wait_for_packets(0, "mqtt", clients().into())?;
    let text = pair.tell(0, &["status"])?;
    ensure!(text.contains("NOT IN SYNC"), "{text}");
    let rejected = sync(&pair, 1)?.receiving.rejected;
    ensure!(rejected.get("key") > Some(&0), "{rejected:?}");

    // The right one needs no restart.
    give_key(&pair, 1, 'a')?;
    wait_for_sync(&pair, 0, clients().into())?;
    Pair::end(load)
}

/// A node of two that have an address each: IPv4 is the first one's, IPv6 the second one's.
fn crossed(at: usize) -> String {
    let text = node(at, "round_robin", "dsr", &BOTH);
    let priority = [100, 200][at];
    let v6 = format!(
        "[[vip]]\naddress = \"fe80::40:24/64\"\n[[vip]]\naddress = \"fd00:40::24/128\"\n\
         [[vrrp]]\nname = \"front-v6\"\nvrid = 51\npriority = {priority}\n\
         advert_interval = \"200ms\"\nvips = [\"fe80::40:24\", \"fd00:40::24\"]\n"
    );
    let service = "[[service]]\nname = \"mqtt-v6\"\nvip = \"fd00:40::24\"\nport = 1883\n\
                   balance = \"round_robin\"\nforward = \"dsr\"\n\
                   check = { type = \"mqtt\", interval = \"1s\", timeout = \"1s\", fall = 10 }\n\
                   backend = [{ name = \"broker1\", address = \"fd00:40::20\" },\
                   { name = \"broker2\", address = \"fd00:40::21\" }]\n";
    text + &v6 + service
}

#[test]
fn two_active_nodes_stand_in_for_each_other() -> Result<()> {
    let mut pair = Pair::new()?;
    for at in [0, 1] {
        give_key(&pair, at, 'a')?;
        pair.start(at, &crossed(at))?;
    }
    let wait_for = |pair: &Pair, at, roles: [&str; 2]| {
        let what = format!("node {at} being {roles:?}");
        wait_until(SOON, &what, || {
            let routers = pair.vrrp(at).ok()?.routers;
            let found = routers.iter().map(|router| router.role.as_str());
            found.eq(roles).then_some(())
        })
    };
    wait_for(&pair, 0, ["active", "backup"])?;
    wait_for(&pair, 1, ["backup", "active"])?;
    let v4 = pair.stay("clients", clients())?;
    let v6 = pair.stay_v6("clients-v6", clients())?;
    pair.wait_for_packets(0, "mqtt", clients().into())?;
    pair.wait_for_packets(1, "mqtt-v6", clients().into())?;
    for from in [0, 1] {
        wait_for_sync(&pair, from, u64::from(2 * clients()))?;
    }
    pair.lab.topology.switch().unplug(pair.host(1))?;
    wait_for(&pair, 0, ["active", "active"])?;
    pair.wait_for_packets(0, "mqtt", clients().into())?;
    pair.wait_for_packets(0, "mqtt-v6", clients().into())?;
    Pair::end(v4)?;
    Pair::end(v6)
}
