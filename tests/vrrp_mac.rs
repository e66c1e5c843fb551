//! Addresses at a virtual MAC address: clients know it wherever the role goes.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use lb_user::io::ping::ping;
use tests::balancer::SOON;
use tests::pair::{Pair, both_families};
use tokio::runtime::Builder;
use xtask::lab::{Family, wait_until};

use crate::vrrp_kill::resolve;

fn clients() -> u32 {
    tests::balancer::clients(100)
}

const FAMILIES: [(Family, &str); 2] = [
    (Family::V4, "00:00:5e:00:01:33"),
    (Family::V6, "00:00:5e:00:02:33"),
];

/// A node of both families that takes no backend out, however late a busy machine lets it answer.
fn plain(priority: u8) -> String {
    both_families(priority).replace("fall = 2", "fall = 50")
}

/// The same whose routers have virtual MAC addresses.
fn node(priority: u8) -> String {
    plain(priority).replace("vrid = 51", "vrid = 51\nvirtual_mac = true")
}

/// Two of them, of which the first has the role.
fn serving() -> Result<Pair> {
    let mut pair = Pair::new()?;
    pair.start(0, &node(200))?;
    pair.start(1, &node(100))?;
    pair.wait_for_roles(["active", "backup"])?;
    wait_until(SOON, "the Backup hearing the Active", || {
        pair.router(1).ok()?.peer
    })?;
    Ok(pair)
}

/// What the client knows of an address, without asking.
fn known(pair: &Pair, vip: IpAddr) -> Result<String> {
    let show = ["-json", "neigh", "show", "to", &vip.to_string()];
    let json = pair.lab.topology.client.output("ip", &show)?;
    let entries: serde_json::Value = serde_json::from_str(&json)?;
    Ok(entries[0]["lladdr"].as_str().unwrap_or_default().to_owned())
}

/// The client knows both addresses where they were, and nothing else when it asks anew.
fn check_macs(pair: &Pair) -> Result<()> {
    for (family, mac) in FAMILIES {
        let vip = family.vip();
        let found = known(pair, vip)?;
        ensure!(found == mac, "{vip} was at {found}");
        let found = resolve(pair, vip)?;
        ensure!(found == mac, "{vip} is at {found}");
    }
    Ok(())
}

/// The client gets an answer to a ping of both addresses.
fn ping_both(pair: &Pair) -> Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let netns = pair.lab.topology.client.netns();
    for (family, _) in FAMILIES {
        let vip = family.vip();
        let answered = netns.enter(|| Ok(runtime.block_on(ping(vip, SOON))?));
        answered.with_context(|| format!("{vip} was pinged"))?;
    }
    Ok(())
}

/// Whether the interface of a node's host lets in frames to both.
fn lets_in(pair: &Pair, at: usize) -> Result<bool> {
    let shown = ["fdb", "show", "dev", "eth0"];
    let shown = pair.host(at).output("bridge", &shown)?;
    let found = FAMILIES.map(|(_, mac)| shown.contains(mac));
    ensure!(found[0] == found[1], "{shown}");
    Ok(found[0])
}

fn wait_for_filters(pair: &Pair, expected: [bool; 2]) -> Result<()> {
    wait_until(
        SOON,
        &format!("the interfaces letting in {expected:?}"),
        || {
            let found = [lets_in(pair, 0).ok()?, lets_in(pair, 1).ok()?];
            (found == expected).then_some(())
        },
    )?;
    Ok(())
}

fn arp_announce(pair: &Pair, at: usize) -> Result<String> {
    let path = "/proc/sys/net/ipv4/conf/eth0/arp_announce";
    Ok(pair.host(at).output("cat", &[path])?.trim().to_owned())
}

/// All clients of both families are served by a node.
fn wait_for_sessions(pair: &Pair, at: usize) -> Result<()> {
    for service in ["mqtt", "mqtt-v6"] {
        pair.wait_for_packets(at, service, clients().into())?;
    }
    Ok(())
}

#[test]
fn clients_know_one_mac_wherever_the_role_goes() -> Result<()> {
    let mut pair = serving()?;
    let status = pair.router(1)?.virtual_mac;
    ensure!(status.as_deref() == Some(FAMILIES[0].1), "{status:?}");
    let loads = [
        pair.stay("clients", clients())?,
        pair.stay_v6("clients-v6", clients())?,
    ];
    let check = |pair: &Pair, at: usize| {
        wait_for_sessions(pair, at)?;
        check_macs(pair)?;
        // The host looks for the client in turn, in nobody's name.
        pair.host(at).netns().ip(&["neighbour flush dev eth0"])?;
        ping_both(pair)?;
        check_macs(pair)?;
        wait_for_filters(pair, [at == 0, at == 1])
    };
    check(&pair, 0)?;
    pair.tell(0, &["vrrp", "release", "front", "--wait"])?;
    pair.wait_for_roles(["backup", "active"])?;
    check(&pair, 1)?;
    pair.tell(0, &["vrrp", "resume", "front-v6"])?;
    pair.wait_for_roles(["active", "backup"])?;
    check(&pair, 0)?;
    pair.process(0)?.kill()?;
    pair.wait_for_role(1, "active")?;
    wait_for_sessions(&pair, 1)?;
    check_macs(&pair)?;
    ping_both(&pair)?;
    for load in loads {
        Pair::end(load)?;
    }
    Ok(())
}

#[test]
fn clients_that_hear_no_announcement_follow_the_role() -> Result<()> {
    let mut pair = serving()?;
    for (family, mac) in FAMILIES {
        let fixed = format!(
            "neighbour replace {} lladdr {mac} nud permanent dev eth0",
            family.vip()
        );
        pair.lab.topology.client.netns().ip(&[&fixed])?;
    }
    let loads = [
        pair.stay("clients", clients())?,
        pair.stay_v6("clients-v6", clients())?,
    ];
    wait_for_sessions(&pair, 0)?;
    pair.process(0)?.kill()?;
    pair.wait_for_role(1, "active")?;
    wait_for_sessions(&pair, 1)?;
    pair.start(0, &node(200))?;
    pair.wait_for_roles(["active", "backup"])?;
    wait_for_sessions(&pair, 0)?;
    wait_for_filters(&pair, [true, false])?;
    pair.process(0)?.terminate(SOON)?;
    pair.wait_for_role(1, "active")?;
    wait_for_sessions(&pair, 1)?;
    ping_both(&pair)?;
    for load in loads {
        Pair::end(load)?;
    }
    Ok(())
}

#[test]
fn sessions_outlive_a_daemon_that_is_killed_and_started() -> Result<()> {
    let mut pair = Pair::new()?;
    let before = arp_announce(&pair, 0)?;
    ensure!(before != "2", "nothing would have to be put back");
    // Adverts so far apart that the daemon is back before anybody misses three of them.
    let slow = node(200).replace("advert_interval = \"200ms\"", "advert_interval = \"5s\"");
    pair.start(0, &slow)?;
    pair.wait_for_role(0, "active")?;
    let loads = [
        pair.stay("clients", clients())?,
        pair.stay_v6("clients-v6", clients())?,
    ];
    for _ in 0..2 {
        pair.process(0)?.kill()?;
        ensure!(lets_in(&pair, 0)?, "what the clients send is kept out");
        ensure!(arp_announce(&pair, 0)? == "2");
        // The program answers meanwhile.
        check_macs(&pair)?;
        ping_both(&pair)?;
        pair.start(0, &slow)?;
        pair.wait_for_role(0, "active")?;
        let change = pair.router(0)?.last_change.context("no change is told")?;
        ensure!(change.cause == "adopted", "{change:?}");
        wait_for_sessions(&pair, 0)?;
        ensure!(lets_in(&pair, 0)?);
    }
    for load in loads {
        Pair::end(load)?;
    }
    pair.process(0)?.terminate(SOON)?;
    ensure!(arp_announce(&pair, 0)? == before, "arp_announce stayed");
    ensure!(!lets_in(&pair, 0)?, "the addresses stayed");
    Ok(())
}

#[test]
fn the_next_daemon_puts_back_what_a_virtual_mac_took() -> Result<()> {
    let mut pair = Pair::new()?;
    let before = arp_announce(&pair, 0)?;
    pair.start(0, &node(200))?;
    pair.wait_for_role(0, "active")?;
    wait_until(SOON, "the interface letting in frames", || {
        lets_in(&pair, 0).ok()?.then_some(())
    })?;
    ensure!(arp_announce(&pair, 0)? == "2");
    // With routers, and without.
    for next in [plain(200), tests::pair::node("")] {
        pair.process(0)?.kill()?;
        pair.start(0, &next)?;
        wait_until(SOON, "everything being as it was", || {
            let is_back = arp_announce(&pair, 0).ok()? == before && !lets_in(&pair, 0).ok()?;
            is_back.then_some(())
        })?;
        pair.process(0)?.terminate(SOON)?;
        pair.start(0, &node(200))?;
        pair.wait_for_role(0, "active")?;
        wait_until(SOON, "the interface letting in frames", || {
            lets_in(&pair, 0).ok()?.then_some(())
        })?;
    }
    resolve(&pair, Family::V4.vip())?;
    pair.write(0, &plain(200))?;
    pair.tell(0, &["reload"])?;
    // Whom it had told of the virtual one.
    pair.wait_for_client(0)?;
    wait_until(SOON, "everything being as it was", || {
        let is_back = arp_announce(&pair, 0).ok()? == before && !lets_in(&pair, 0).ok()?;
        is_back.then_some(())
    })?;
    Ok(())
}
