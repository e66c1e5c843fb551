//! Nodes that could be Active, but for something that they lack.

use anyhow::{Result, ensure};
use rustix::process::Signal;
use tests::balancer::SOON;
use tests::pair::{Pair, node, router};
use xtask::lab::{Family, wait_until};

const VIP: &str = "172.16.40.24/32";
fn clients() -> u32 {
    tests::balancer::clients(200)
}

/// Waits until a node has, or has not, a lower priority because nobody answers it.
fn wait_for_silence(pair: &Pair, at: usize, is_silent: bool) -> Result<()> {
    let wanted: &[&str] = if is_silent { &["silent_backends"] } else { &[] };
    wait_until(
        SOON,
        &format!("node {at} having a lower priority: {is_silent}"),
        || (pair.router(at).ok()?.lowered_by == wanted).then_some(()),
    )?;
    Ok(())
}

#[test]
fn who_is_cut_off_from_the_brokers_leaves_the_role_to_who_is_not() -> Result<()> {
    let pair = Pair::serving()?;
    let load = pair.stay("clients", clients())?;
    pair.cut_from_brokers(0, true)?;
    pair.wait_for_roles(["backup", "active"])?;
    let router = pair.router(0)?;
    ensure!(
        router.faults.is_empty() && router.priority == 12,
        "{router:?}"
    );
    ensure!(router.lowered_by == ["silent_backends"], "{router:?}");
    let cause = router.last_change.map(|change| change.cause);
    ensure!(cause.as_deref() == Some("higher_priority"), "{cause:?}");
    let table = pair.tell(0, &["vrrp", "status"])?;
    ensure!(table.contains("silent_backends"), "{table}");
    pair.wait_for_client(1)?;
    pair.wait_for_traffic(1, clients().into())?;

    pair.cut_from_brokers(0, false)?;
    pair.wait_for_roles(["active", "backup"])?;
    ensure!(pair.router(0)?.priority == 200);
    pair.wait_for_client(0)?;
    pair.wait_for_traffic(0, clients().into())?;
    Pair::end(load)
}

#[test]
fn two_nodes_that_hear_no_broker_stay_what_they_are() -> Result<()> {
    let mut pair = Pair::new()?;
    // Not both find out at the same moment.
    let patient = "preempt_delay = \"20s\"";
    pair.start(0, &node(&router(200, patient)))?;
    pair.wait_for_role(0, "active")?;
    pair.start(1, &node(&router(100, patient)))?;
    wait_until(SOON, "the Backup hearing the Active", || {
        pair.router(1).ok()?.peer
    })?;
    let switch = pair.lab.topology.switch();
    for broker in pair.lab.topology.brokers() {
        switch.unplug(broker)?;
    }
    for at in [0, 1] {
        wait_for_silence(&pair, at, true)?;
    }
    let received = pair.router(1)?.adverts.received;
    wait_until(SOON, "many adverts with the lower priority", || {
        (pair.router(1).ok()?.adverts.received > received + 20).then_some(())
    })?;
    pair.wait_for_roles(["active", "backup"])?;
    ensure!(!pair.router(1)?.changes.contains_key("active"));
    for broker in pair.lab.topology.brokers() {
        switch.plug(broker)?;
    }
    for at in [0, 1] {
        wait_for_silence(&pair, at, false)?;
    }
    pair.wait_for_roles(["active", "backup"])?;
    ensure!(!pair.router(1)?.changes.contains_key("active"));
    let load = pair.stay("clients", clients())?;
    pair.wait_for_traffic(0, clients().into())?;
    Pair::end(load)
}

#[test]
fn who_does_not_preempt_leaves_the_role_with_a_node_that_hears_no_broker() -> Result<()> {
    let mut pair = Pair::new()?;
    pair.start(0, &node(&router(200, "")))?;
    pair.wait_for_role(0, "active")?;
    pair.start(1, &node(&router(100, "preempt = false")))?;
    wait_until(SOON, "the Backup hearing the Active", || {
        pair.router(1).ok()?.peer
    })?;
    pair.cut_from_brokers(0, true)?;
    wait_until(SOON, "the Backup hearing the lower priority", || {
        (pair.router(1).ok()?.peer?.priority == 12).then_some(())
    })?;
    let received = pair.router(1)?.adverts.received;
    wait_until(SOON, "many adverts with the lower priority", || {
        (pair.router(1).ok()?.adverts.received > received + 20).then_some(())
    })?;
    pair.wait_for_roles(["active", "backup"])?;
    // An operator can have it take over.
    pair.tell(0, &["vrrp", "release", "front", "--wait"])?;
    pair.wait_for_roles(["backup", "active"])
}

#[test]
fn an_interface_that_comes_back_under_its_name_gets_no_address() -> Result<()> {
    let mut pair = Pair::new()?;
    pair.start(0, &node(&router(200, "")))?;
    pair.wait_for_role(0, "active")?;
    let (host, switch) = (pair.host(0), pair.lab.topology.switch().netns());
    host.netns().ip(&["link delete eth0"])?;
    let link = format!(
        "link add lb1 type veth peer name eth0 netns {}",
        host.netns().name()
    );
    switch.ip(&[&link, "link set lb1 master br0 up"])?;
    let address = format!("address add {}/24 dev eth0", host.address(Family::V4));
    host.netns().ip(&[&address, "link set eth0 up"])?;
    let ended = wait_until(SOON, "the end of a balancer without a program", || {
        // Nothing but this host would answer the clients.
        let has_it = pair.has(0, VIP).ok()?;
        let is_over = has_it || !pair.process(0).ok()?.is_running();
        is_over.then_some(!has_it)
    })?;
    ensure!(ended, "the address is where no program is");
    ensure!(pair.process(0)?.stderr().contains("was removed"));
    Ok(())
}

/// A router whose address is of IPv6, which speaks on another interface than it has its address on.
const SIDE: &str = "[[vip]]\naddress = \"fe80::40:24/64\"\n\
                    [[vrrp]]\nname = \"side\"\ninterface = \"side\"\nvrid = 60\n\
                    advert_interval = \"200ms\"\nvips = [\"fe80::40:24\"]\n";

#[test]
fn who_cannot_have_its_address_leaves_the_role_until_it_is_to_try_again() -> Result<()> {
    let mut pair = Pair::new()?;
    let netns = pair.host(0).netns();
    netns.ip(&[
        "link add side type veth peer name far",
        "link set side up",
        "link set far up",
    ])?;
    // The kernel takes no address of IPv6 there.
    netns.sysctl("net.ipv6.conf.eth0.disable_ipv6", "1")?;
    pair.start(0, &node(SIDE))?;
    wait_until(SOON, "the address being missed", || {
        let router = pair.router(0).ok()?;
        (router.role == "backup" && router.faults == ["no_vip"]).then_some(())
    })?;
    let router = pair.router(0)?;
    ensure!(router.changes.get("active") == Some(&1), "{router:?}");
    ensure!(router.held == ["fault"], "{router:?}");

    let netns = pair.host(0).netns();
    netns.sysctl("net.ipv6.conf.eth0.disable_ipv6", "0")?;
    pair.tell(0, &["vrrp", "resume", "side"])?;
    pair.wait_for_role(0, "active")
}

#[test]
fn who_has_fewer_backends_than_its_peer_leaves_the_role_to_it() -> Result<()> {
    let mut pair = Pair::new()?;
    let track = "[[vrrp.track]]\nname = \"brokers\"\nbackends_up = 100\nweight = -150\n\
                 interval = \"200ms\"";
    let text = |priority| node(&router(priority, track));
    // Nobody is there.
    let half = text(200).replace("address = \"172.16.40.21\"", "address = \"172.16.40.99\"");
    pair.start(0, &half)?;
    pair.start(1, &text(100))?;
    pair.wait_for_roles(["backup", "active"])?;
    let lowered = pair.router(0)?;
    ensure!(
        (lowered.priority, lowered.faults.len()) == (50, 0),
        "{lowered:?}"
    );
    ensure!(lowered.lowered_by == ["tracked"], "{lowered:?}");
    let states = [0, 1].map(|at| Ok(pair.router(at)?.tracked.remove(0).state));
    let states = states.into_iter().collect::<Result<Vec<_>>>()?;
    ensure!(states == ["down", "up"], "{states:?}");
    let events = pair.tell(0, &["events"])?;
    ensure!(events.contains("1 of 2 backends are up"), "{events}");

    pair.write(0, &text(200))?;
    pair.tell(0, &["reload"])?;
    pair.wait_for_roles(["active", "backup"])
}

/// More than the kernel keeps for who does not read them.
const EVENTS: u32 = 12_000;

/// Events of the kernel that sockets of this namespace had no room for.
fn lost_events(pair: &Pair) -> Result<u64> {
    let sockets = pair.host(0).output("cat", &["/proc/net/netlink"])?;
    let drops = sockets.lines().skip(1);
    let drops = drops.filter_map(|line| line.split_whitespace().nth(8)?.parse::<u64>().ok());
    Ok(drops.sum())
}

#[test]
fn after_more_events_than_can_be_read_everything_is_looked_at() -> Result<()> {
    let mut pair = Pair::new()?;
    let text = node(&router(200, ""));
    let another = "[[vip]]\naddress = \"172.16.40.26/32\"\n";
    pair.start(0, &format!("{text}{another}"))?;
    pair.wait_for_role(0, "active")?;
    let another = "172.16.40.26/32";
    ensure!(pair.has(0, another)?);

    pair.process(0)?.signal(Signal::STOP)?;
    let route = |number: u32| {
        let [.., high, low] = number.to_be_bytes();
        format!("route add 10.9.{high}.{low}/32 dev eth0")
    };
    let mut lines: Vec<String> = (0..EVENTS).map(route).collect();
    lines.push(format!("address delete {another} dev eth0"));
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    pair.host(0).netns().ip(&lines)?;
    ensure!(lost_events(&pair)? > 0, "all were kept");
    pair.process(0)?.signal(Signal::CONT)?;

    wait_until(SOON, "the address being back", || {
        pair.has(0, another).ok()?.then_some(())
    })?;
    pair.wait_for_role(0, "active")?;
    // What is asked is answered.
    pair.write(0, &text)?;
    pair.tell(0, &["reload"])?;
    ensure!(!pair.has(0, another)?, "{another} is still there");
    pair.wait_for_role(0, "active")
}

#[test]
fn an_address_that_leaves_takes_no_other_along() -> Result<()> {
    let mut pair = Pair::new()?;
    // Where they are the only ones of their network, the kernel holds the first for the primary
    // address, and removes the others with it.
    let (first, second) = ("172.16.50.24", "172.16.50.25");
    let routers: String = [(first, 60), (second, 61)]
        .map(|(vip, vrid)| {
            format!(
                "[[vip]]\naddress = \"{vip}/24\"\n\
                 [[vrrp]]\nname = \"router{vrid}\"\nvrid = {vrid}\npriority = 200\n\
                 advert_interval = \"200ms\"\nvips = [\"{vip}\"]\n"
            )
        })
        .concat();
    pair.start(0, &(node(&router(200, "")) + &routers))?;
    pair.wait_for_role(0, "active")?;
    for (leaving, other) in [(60, second), (61, first)] {
        let name = format!("router{leaving}");
        pair.tell(0, &["vrrp", "release", &name, "--wait"])?;
        let addresses = pair.addresses(0)?;
        ensure!(pair.has_vip(0, other.parse()?)?, "{addresses:?}");
        pair.tell(0, &["vrrp", "resume", &name])?;
        pair.wait_for_role(0, "active")?;
    }
    Ok(())
}

#[test]
fn a_host_that_gets_a_router_goes_on_holding_its_address() -> Result<()> {
    let mut pair = Pair::new()?;
    pair.start(0, &node(""))?;
    wait_until(SOON, "the address", || pair.has(0, VIP).ok()?.then_some(()))?;
    let load = pair.stay("clients", 20)?;
    pair.write(0, &node(&router(200, "")))?;
    pair.tell(0, &["reload"])?;
    let status = pair.router(0)?;
    ensure!(pair.has(0, VIP)?, "{:?}", pair.addresses(0)?);
    pair.wait_for_role(0, "active")?;
    pair.wait_for_traffic(0, 20)?;
    let events = pair.tell(0, &["events", "--json"])?;
    ensure!(!events.contains("removed"), "{status:?} {events}");
    ensure!(events.contains("adopted"), "{events}");
    Pair::end(load)
}

#[test]
fn a_host_that_gets_a_router_does_not_go_on_holding_what_it_had_withdrawn() -> Result<()> {
    let mut pair = Pair::new()?;
    let vip = format!("address = \"{VIP}\"\n");
    let alone = node("").replace(&vip, &format!("{vip}without_backends = \"withdraw\"\n"));
    pair.start(0, &alone)?;
    wait_until(SOON, "the address", || pair.has(0, VIP).ok()?.then_some(()))?;
    // Silence is no reason for a router not to be Active: another host may be, for all it knows.
    pair.cut_from_brokers(0, true)?;
    wait_until(SOON, "the address being off", || {
        (!pair.has(0, VIP).ok()?).then_some(())
    })?;
    pair.write(0, &node(&router(200, "")))?;
    pair.tell(0, &["reload"])?;
    pair.wait_for_role(0, "active")?;
    let events = pair.tell(0, &["events", "--json"])?;
    ensure!(!events.contains("adopted"), "{events}");
    Ok(())
}
