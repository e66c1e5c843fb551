//! keepalived as the other node, in both roles.

use anyhow::{Result, ensure};
use tests::balancer::SOON;
use tests::pair::{Pair, node, router};
use xtask::lab::{Process, wait_until};

const VIP: &str = "172.16.40.24/32";

/// How both sides are told to talk.
struct Talk {
    version: u8,
    /// The router of ours, of a priority.
    ours: fn(u8) -> String,
    /// What keepalived is told besides.
    theirs: &'static str,
    /// The addresses, as keepalived is told; the first is looked for.
    vips: &'static str,
    /// As `ip` shows it.
    vip: &'static str,
}

const V4: Talk = Talk {
    version: 3,
    ours: |priority| slow(priority, ""),
    theirs: "",
    vips: VIP,
    vip: VIP,
};

const PASS: Talk = Talk {
    version: 2,
    ours: |priority| slow(priority, "version = 2\npassword = \"geheim12\""),
    theirs: "authentication {\n auth_type PASS\n auth_pass geheim12\n }",
    ..V4
};

const UNICAST: Talk = Talk {
    ours: |priority| slow(priority, "peers = [\"172.16.40.23\"]"),
    theirs: "unicast_src_ip 172.16.40.23\n unicast_peer {\n 172.16.40.22\n }",
    ..V4
};

const V6: Talk = Talk {
    version: 3,
    ours: |priority| {
        format!(
            "[[vip]]\naddress = \"fe80::40:24/64\"\n[[vip]]\naddress = \"fd00:40::24/128\"\n\
             [[vrrp]]\nname = \"front\"\nvrid = 51\npriority = {priority}\n\
             vips = [\"fe80::40:24\", \"fd00:40::24\"]\n"
        )
    },
    theirs: "",
    vips: "fe80::40:24/64\n fd00:40::24/128",
    vip: "fd00:40::24/128",
};

/// A router of ours with an advert a second.
fn slow(priority: u8, more: &str) -> String {
    let router = router(priority, more);
    router.replace("advert_interval = \"200ms\"", "advert_interval = \"1s\"")
}

/// keepalived on lb2, without the program's help: it only speaks VRRP.
fn keepalived(pair: &Pair, priority: u8, talk: &Talk) -> Result<Process> {
    let host = pair.host(1);
    let directory = host.work_dir().display().to_string();
    let Talk {
        version,
        theirs,
        vips,
        ..
    } = talk;
    let config = format!(
        "global_defs {{\n vrrp_version {version}\n vrrp_garp_master_delay 1\n}}\n\
         vrrp_instance front {{\n state BACKUP\n interface eth0\n virtual_router_id 51\n \
         priority {priority}\n advert_int 1\n {theirs}\n virtual_ipaddress {{\n {vips}\n }}\n}}\n"
    );
    let path = host.work_dir().join("keepalived.conf");
    std::fs::write(&path, config)?;
    let mut command = host.command("keepalived")?;
    command.args([
        "--dont-fork",
        "--log-console",
        "--no-syslog",
        "--log-detail",
        "--vrrp",
    ]);
    command.arg("--use-file").arg(&path);
    for (flag, file) in [("--pid", "keepalived.pid"), ("--vrrp_pid", "vrrp.pid")] {
        command.arg(format!("{flag}={directory}/{file}"));
    }
    host.spawn("keepalived", command)
}

/// Waits until keepalived has the address, or has it no more.
fn wait_for_keepalived(pair: &Pair, talk: &Talk, has_it: bool) -> Result<()> {
    let what = format!("keepalived having the address: {has_it}");
    wait_until(SOON, &what, || {
        (pair.has(1, talk.vip).ok()? == has_it).then_some(())
    })?;
    Ok(())
}

fn get_along(talk: &Talk) -> Result<()> {
    let mut pair = Pair::new()?;
    // Ours is Active, theirs is behind it, takes a released role over, and yields again.
    pair.start(0, &node(&(talk.ours)(150)))?;
    pair.wait_for_role(0, "active")?;
    let mut process = keepalived(&pair, 100, talk)?;
    process.wait_for_line("Entering BACKUP STATE", SOON)?;
    pair.tell(0, &["vrrp", "release", "front", "--wait"])?;
    pair.wait_for_role(0, "backup")?;
    wait_for_keepalived(&pair, talk, true)?;
    wait_until(SOON, "keepalived's adverts", || {
        (pair.router(0).ok()?.peer?.priority == 100).then_some(())
    })?;
    pair.tell(0, &["vrrp", "resume", "front"])?;
    pair.wait_for_role(0, "active")?;
    wait_for_keepalived(&pair, talk, false)?;
    // Theirs is Active, ours is behind it, and takes a released role over.
    pair.write(0, &node(&(talk.ours)(50)))?;
    pair.tell(0, &["reload"])?;
    pair.wait_for_role(0, "backup")?;
    wait_for_keepalived(&pair, talk, true)?;
    let received = pair.router(0)?.adverts.received;
    wait_until(SOON, "more of keepalived's adverts", || {
        (pair.router(0).ok()?.adverts.received > received + 2).then_some(())
    })?;
    process.terminate(SOON)?;
    pair.wait_for_role(0, "active")?;
    let router = pair.router(0)?;
    let cause = router.last_change.map(|change| change.cause);
    ensure!(cause.as_deref() == Some("peer_released"), "{cause:?}");
    let refused: u64 = router.adverts.refused.values().sum();
    ensure!(refused == 0, "{:?}", router.adverts);
    Ok(())
}

#[test]
fn keepalived_is_a_peer_in_version_three() -> Result<()> {
    get_along(&V4)
}

#[test]
fn keepalived_is_a_peer_over_ipv6() -> Result<()> {
    get_along(&V6)
}

#[test]
fn keepalived_is_a_peer_by_name() -> Result<()> {
    get_along(&UNICAST)
}

#[test]
fn keepalived_is_a_peer_in_version_two_with_a_password() -> Result<()> {
    get_along(&PASS)
}

#[test]
fn keepalived_with_another_password_is_refused_and_counted() -> Result<()> {
    let mut pair = Pair::new()?;
    pair.start(0, &node(&(PASS.ours)(150)))?;
    pair.wait_for_role(0, "active")?;
    let other = Talk {
        theirs: "authentication {\n auth_type PASS\n auth_pass another1\n }",
        ..PASS
    };
    let _keepalived = keepalived(&pair, 200, &other)?;
    wait_until(SOON, "a refusal", || {
        let refused = pair.router(0).ok()?.adverts.refused;
        (*refused.get("auth_mismatch")? > 0).then_some(())
    })?;
    pair.wait_for_role(0, "active")
}

#[test]
fn of_equal_priorities_the_higher_address_has_the_role() -> Result<()> {
    let mut pair = Pair::new()?;
    pair.start(0, &node(&(V4.ours)(100)))?;
    pair.wait_for_role(0, "active")?;
    let mut process = keepalived(&pair, 100, &V4)?;
    process.wait_for_line("Entering BACKUP STATE", SOON)?;
    // Both become Active, and .23 is above .22.
    pair.part(true)?;
    wait_for_keepalived(&pair, &V4, true)?;
    pair.wait_for_role(0, "active")?;
    pair.part(false)?;
    pair.wait_for_role(0, "backup")?;
    wait_for_keepalived(&pair, &V4, true)
}
