//! Two nodes that tell each other of their flows: whoever takes over has them.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};

use anyhow::{Context, Result, ensure};
use tests::balancer::{BOTH, SOON};
use tests::pair::Pair;
use tests::synced::{Way, node};
use xtask::lab::{Process, wait_until};

const fn way(balance: &'static str, forward: &'static str) -> Way {
    Way { balance, forward }
}

fn clients() -> u32 {
    tests::balancer::clients(200)
}

#[test]
fn a_dead_host_takes_no_session_of_least_conn_along() -> Result<()> {
    let pair = Pair::synced(way("least_conn", "dsr"), &BOTH)?;
    let load = pair.stay("clients", clients())?;
    pair.wait_for_packets(0, "mqtt", clients().into())?;
    pair.wait_for_sync(0, clients().into())?;
    let refused = pair.sync(1)?.receiving.refused;
    pair.lab.topology.switch().unplug(pair.host(0))?;
    pair.wait_for_role(1, "active")?;
    pair.wait_for_client(1)?;
    pair.wait_for_packets(1, "mqtt", clients().into())?;
    Pair::end(load).with_context(|| format!("{refused:?}"))
}

/// The sweep looks each second, and most of these are younger.
#[test]
fn clients_that_have_just_connected_survive_a_dead_host() -> Result<()> {
    let pair = Pair::synced(way("least_conn", "nat"), &BOTH)?;
    pair.wait_for_sync(0, 0)?;
    let mut load = pair
        .lab
        .load("clients", "conn", clients(), &["-i", "0", "--hold", "10m"])?;
    load.wait_ready(SOON)?;
    pair.wait_for_new_flows(0, clients().into())?;
    pair.lab.topology.switch().unplug(pair.host(0))?;
    pair.wait_for_role(1, "active")?;
    pair.wait_for_client(1)?;
    pair.wait_for_packets(1, "mqtt", clients().into())?;
    Pair::end(load)
}

#[test]
fn sessions_of_a_backend_that_has_just_lost_its_slots_stay() -> Result<()> {
    let pair = Pair::synced(way("maglev", "dsr"), &BOTH[..1])?;
    let load = pair.stay("clients", clients())?;
    for at in [1, 0] {
        pair.write(at, &node(at, way("maglev", "dsr"), &BOTH))?;
        pair.tell(at, &["reload"])?;
    }
    wait_until(SOON, "both nodes having the slots at risk", || {
        let both = [pair.service(0).ok()?.slots, pair.service(1).ok()?.slots];
        (both[0].at_risk > 0 && both[0].at_risk == both[1].at_risk).then_some(())
    })?;
    // These are the new backend's, in slots whose other sessions are the old one's.
    let late = pair.stay("late", clients())?;
    let [_, newcomers] = pair.lab.clients()?;
    ensure!(newcomers > 0, "nobody went to the new backend");
    pair.wait_for_packets(0, "mqtt", u64::from(2 * clients()))?;
    pair.wait_for_sync(0, newcomers as u64)?;
    pair.lab.topology.switch().unplug(pair.host(0))?;
    pair.wait_for_role(1, "active")?;
    pair.wait_for_client(1)?;
    pair.wait_for_packets(1, "mqtt", u64::from(2 * clients()))?;
    Pair::end(load)?;
    Pair::end(late)
}

/// The same for a node that waits for nothing but being in sync before it takes its role back.
fn at_once(text: &str) -> String {
    text.replace("preempt_delay = \"2s\"\n", "")
}

/// The Active's daemon ends, its peer takes over, it comes back to what it has left in the kernel, and
/// has the role again.
fn a_daemon_returns(end: fn(&mut Process) -> Result<()>, forward: &'static str) -> Result<()> {
    let text = |at| at_once(&node(at, way("round_robin", forward), &BOTH));
    let mut pair = Pair::new()?;
    for at in [0, 1] {
        pair.give_key(at, 'a')?;
        pair.start(at, &text(at))?;
    }
    pair.wait_for_roles(["active", "backup"])?;
    let old = pair.stay("old", clients())?;
    pair.wait_for_packets(0, "mqtt", clients().into())?;
    pair.wait_for_sync(0, clients().into())?;
    end(pair.process(0)?)?;
    pair.wait_for_role(1, "active")?;
    pair.wait_for_client(1)?;
    let late = pair.stay("late", clients())?;
    pair.wait_for_packets(1, "mqtt", u64::from(2 * clients()))?;

    pair.wait_for_entries(1, u64::from(2 * clients()))?;
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
    let text = |at| at_once(&node(at, way("round_robin", "dsr"), &BOTH));
    pair.give_key(1, 'a')?;
    pair.give_key(0, 'b')?;
    pair.start(1, &text(1))?;
    pair.wait_for_role(1, "active")?;
    let load = pair.stay("clients", clients())?;
    pair.wait_for_packets(1, "mqtt", clients().into())?;
    pair.wait_for_entries(1, clients().into())?;
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

    pair.give_key(0, 'a')?;
    pair.wait_for_role(0, "active")?;
    pair.wait_for_client(0)?;
    pair.wait_for_packets(0, "mqtt", clients().into())?;
    ensure!(!pair.router(0)?.awaits_sync);
    Pair::end(load)
}

#[test]
fn another_key_is_told_on_both_nodes_and_stops_nobody() -> Result<()> {
    let mut pair = Pair::new()?;
    pair.give_key(0, 'a')?;
    pair.start(0, &node(0, way("round_robin", "dsr"), &BOTH))?;
    // The peer has no key at all.
    pair.start(1, &node(1, way("round_robin", "dsr"), &BOTH))?;
    pair.wait_for_roles(["active", "backup"])?;
    let error = |pair: &Pair, at| {
        let now = pair.sync(at).ok()?;
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
    pair.give_key(1, 'b')?;
    says(&pair, 1, "has another key")?;
    let load = pair.stay("clients", clients())?;
    pair.wait_for_packets(0, "mqtt", clients().into())?;
    let text = pair.tell(0, &["status"])?;
    ensure!(text.contains("NOT IN SYNC"), "{text}");
    let rejected = pair.sync(1)?.receiving.rejected;
    ensure!(rejected.get("key") > Some(&0), "{rejected:?}");

    // The right one needs no restart.
    pair.give_key(1, 'a')?;
    pair.wait_for_sync(0, clients().into())?;
    Pair::end(load)
}

/// How many callers without the key there are.
const CALLERS: u32 = 2_000;

/// What a daemon's memory may grow by meanwhile, in KiB.
const FLAT: u64 = 4_096;

#[test]
fn callers_without_the_key_change_nothing() -> Result<()> {
    let mut pair = Pair::synced(way("round_robin", "dsr"), &BOTH)?;
    let load = pair.stay("clients", clients())?;
    pair.wait_for_packets(0, "mqtt", clients().into())?;
    pair.wait_for_sync(0, clients().into())?;
    // Who listens is who has to be kept from believing them, and only the peer's address is heard.
    let call = |pair: &Pair, said: &[u8]| {
        let forger = pair.host(0).netns();
        forger.enter(|| {
            let mut stream = TcpStream::connect("172.16.40.23:9464")?;
            stream.set_read_timeout(Some(SOON))?;
            // It may have hung up by then.
            let _ = stream.write_all(said);
            let _ = stream.shutdown(Shutdown::Write);
            let _ = stream.read_to_end(&mut Vec::new());
            Ok(())
        })
    };
    // As long as a true one is, and longer than any.
    let handshake = [&[0, 48][..], &[7; 48]].concat();
    let said: [&[u8]; 4] = [b"", &handshake, b"GET / HTTP/1.1\r\n\r\n", &[0xff; 70_000]];
    for said in said.into_iter().cycle().take(100) {
        call(&pair, said)?;
    }
    let before = pair.process(1)?.memory()?;
    let frames = pair
        .sync(1)?
        .receiving
        .in_sync_seconds
        .context("not in sync")?;
    for said in said.into_iter().cycle().take(CALLERS as usize) {
        call(&pair, said)?;
    }
    let grown = pair.process(1)?.memory()?.saturating_sub(before);
    ensure!(grown < FLAT, "the daemon has grown by {grown} KiB");
    let now = pair.sync(1)?.receiving;
    let rejected: u64 = now.rejected.values().sum();
    ensure!(rejected >= CALLERS.into(), "{now:?}");
    let since = now.in_sync_seconds.context("not in sync any more")?;
    ensure!(since >= frames, "it has lost its peer meanwhile: {now:?}");
    // And what they were not believed about.
    pair.lab.topology.switch().unplug(pair.host(0))?;
    pair.wait_for_role(1, "active")?;
    pair.wait_for_client(1)?;
    pair.wait_for_packets(1, "mqtt", clients().into())?;
    Pair::end(load)
}

/// A node of two that have an address each: IPv4 is the first one's, IPv6 the second one's.
fn crossed(at: usize) -> String {
    let text = node(at, way("round_robin", "dsr"), &BOTH);
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
        pair.give_key(at, 'a')?;
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
        pair.wait_for_sync(from, u64::from(2 * clients()))?;
    }
    pair.lab.topology.switch().unplug(pair.host(1))?;
    wait_for(&pair, 0, ["active", "active"])?;
    pair.wait_for_packets(0, "mqtt", clients().into())?;
    pair.wait_for_packets(0, "mqtt-v6", clients().into())?;
    Pair::end(v4)?;
    Pair::end(v6)
}
