//! A daemon that is killed: who answers for the address, and what a restart goes on with.

use std::net::{IpAddr, UdpSocket};

use anyhow::{Context, Result, ensure};
use tests::balancer::{SOON, flow_room};
use tests::pair::{Pair, both_families, node, router};
use xtask::lab::{Family, wait_until};

fn clients() -> u32 {
    tests::balancer::clients(100)
}

/// How often the client asks anew who has the address.
const QUESTIONS: usize = 20;

/// Adverts so far apart that a daemon is back before a peer misses three of them.
fn slow(priority: u8) -> String {
    let router = router(priority, "");
    node(&router.replace("advert_interval = \"200ms\"", "advert_interval = \"5s\""))
}

/// Has the switch hand a broadcast to lb1 before lb2: of two that answer the first one is believed.
fn ask_first_host_first(pair: &Pair) -> Result<()> {
    let switch = pair.lab.topology.switch().netns();
    switch.ip(&["link set lb1 nomaster", "link set lb1 master br0"])
}

/// Has the client ask anew who has an address, and says which MAC address it was told.
pub(crate) fn resolve(pair: &Pair, vip: IpAddr) -> Result<String> {
    let client = &pair.lab.topology.client;
    let flush = format!("neighbour flush to {vip} dev eth0");
    client.netns().ip(&[&flush])?;
    let vip = vip.to_string();
    let show = ["-json", "neigh", "show", "to", &vip];
    let mac = wait_until(SOON, &format!("the client having resolved {vip}"), || {
        // Whatever is sent there has the kernel ask.
        client.netns().enter(|| Ok(knock(&vip)?)).ok()?;
        let json = client.output("ip", &show).ok()?;
        let entries: serde_json::Value = serde_json::from_str(&json).ok()?;
        Some(entries[0]["lladdr"].as_str()?.to_owned())
    })?;
    Ok(mac)
}

/// Sends a packet to an address, at the discard service.
fn knock(vip: &str) -> std::io::Result<()> {
    let any = if vip.contains(':') {
        "[::]:0"
    } else {
        "0.0.0.0:0"
    };
    let socket = UdpSocket::bind(any)?;
    socket.send_to(&[0], (vip, 9)).map(drop)
}

#[test]
fn a_killed_daemons_host_tells_nobody_that_it_has_the_address() -> Result<()> {
    let mut pair = Pair::new()?;
    pair.start(0, &both_families(200))?;
    pair.start(1, &both_families(100))?;
    pair.wait_for_roles(["active", "backup"])?;
    wait_until(SOON, "the Backup hearing the Active", || {
        pair.router(1).ok()?.peer
    })?;
    ask_first_host_first(&pair)?;
    let own = pair.host(0).mac()?;
    let vips = [(Family::V4.vip(), 32), (Family::V6.vip(), 128)];
    for (vip, _) in vips {
        ensure!(resolve(&pair, vip)? == own, "the Active is not believed");
    }
    pair.process(0)?.kill()?;
    // For the addresses to be there throughout: they would go by themselves.
    for (vip, prefix) in vips {
        let forever = "dev eth0 nodad valid_lft forever preferred_lft forever";
        let forever = format!("address replace {vip}/{prefix} {forever}");
        pair.host(0).netns().ip(&[&forever])?;
    }
    pair.wait_for_role(1, "active")?;
    let peer = pair.host(1).mac()?;
    for (vip, prefix) in vips {
        for _ in 0..QUESTIONS {
            let mac = resolve(&pair, vip)?;
            ensure!(mac == peer, "{mac} has answered for {vip}, not {peer}");
        }
        let vip = format!("{vip}/{prefix}");
        ensure!(pair.has(0, &vip)?, "{vip} had gone by itself");
    }
    Ok(())
}

#[test]
fn a_stopped_daemons_host_tells_nobody_that_it_has_the_address() -> Result<()> {
    let mut pair = Pair::new()?;
    pair.start(0, &both_families(200))?;
    pair.start(1, &both_families(100))?;
    pair.wait_for_roles(["active", "backup"])?;
    wait_until(SOON, "the Backup hearing the Active", || {
        pair.router(1).ok()?.peer
    })?;
    ask_first_host_first(&pair)?;
    pair.process(0)?.terminate(SOON)?;
    pair.wait_for_role(1, "active")?;
    let peer = pair.host(1).mac()?;
    for (vip, prefix) in [(Family::V4.vip(), 32), (Family::V6.vip(), 128)] {
        // As if it had not been removed, whoever was to do it: the program is still there.
        let address = format!("address add {vip}/{prefix} dev eth0 nodad");
        pair.host(0).netns().ip(&[&address])?;
        for _ in 0..QUESTIONS {
            let mac = resolve(&pair, vip)?;
            ensure!(mac == peer, "{mac} has answered for {vip}, not {peer}");
        }
        let address = format!("address delete {vip}/{prefix} dev eth0");
        pair.host(0).netns().ip(&[&address])?;
    }
    // Without a router the address is the host's, which answers for it.
    pair.process(1)?.terminate(SOON)?;
    pair.start(0, &node(""))?;
    let own = pair.host(0).mac()?;
    ensure!(resolve(&pair, Family::V4.vip())? == own);
    Ok(())
}

#[test]
fn a_daemon_that_is_killed_and_started_at_once_keeps_role_and_address() -> Result<()> {
    let mut pair = Pair::new()?;
    pair.start(0, &slow(200))?;
    pair.wait_for_role(0, "active")?;
    pair.start(1, &slow(100))?;
    wait_until(SOON, "the Backup hearing the Active", || {
        pair.router(1).ok()?.peer
    })?;
    let load = pair.stay("clients", clients())?;
    let same = slow(200);
    let more_room = same.replace(
        &format!("\nflows = {}", flow_room()),
        &format!("\nflows = {}", 2 * flow_room()),
    );
    for next in [&same, &more_room] {
        pair.process(0)?.kill()?;
        pair.start(0, next)?;
        pair.wait_for_role(0, "active")?;
        let change = pair.router(0)?.last_change.context("no change is told")?;
        ensure!(change.cause == "adopted", "{change:?}");
        let changes = pair.router(1)?.changes;
        ensure!(!changes.contains_key("active"), "{changes:?}");
        let said = pair.process(0)?.stderr();
        ensure!(!said.contains("VIP removed"), "{said}");
    }
    pair.wait_for_traffic(0, clients().into())?;
    Pair::end(load)
}

#[test]
fn a_daemon_that_comes_back_too_late_takes_its_leftovers_away() -> Result<()> {
    let mut pair = Pair::serving()?;
    pair.process(0)?.kill()?;
    pair.wait_for_role(1, "active")?;
    pair.start(0, &node(&router(200, "preempt = false")))?;
    pair.wait_for_roles(["backup", "active"])?;
    let change = pair.router(0)?.last_change.context("no change is told")?;
    ensure!(change.cause == "startup", "{change:?}");
    Ok(())
}
