//! keepalived as the other node, in both roles.

use std::net::{IpAddr, Ipv6Addr};

use anyhow::{Context, Result, ensure};
use tests::balancer::SOON;
use tests::pair::{Pair, node, router};
use xtask::lab::{Family, Host, Process, wait_until};

use crate::vrrp_kill::resolve;

/// How both sides are told to talk. `$OURS` and `$THEIRS` stand for the addresses of their hosts.
struct Talk {
    version: u8,
    family: Family,
    /// The router of ours, of a priority.
    ours: fn(u8) -> String,
    /// What keepalived is told besides.
    theirs: &'static str,
    /// The addresses, as keepalived is told.
    vips: &'static str,
}

const V4: Talk = Talk {
    version: 3,
    family: Family::V4,
    ours: |priority| slow(priority, ""),
    theirs: "",
    vips: "172.16.40.24/32",
};

const V4_UNICAST: Talk = Talk {
    ours: |priority| slow(priority, "peers = [\"$THEIRS\"]"),
    theirs: "unicast_src_ip $THEIRS\n unicast_peer {\n $OURS\n }",
    ..V4
};

const PASS: Talk = Talk {
    version: 2,
    ours: |priority| slow(priority, "version = 2\npassword = \"geheim12\""),
    theirs: "authentication {\n auth_type PASS\n auth_pass geheim12\n }",
    ..V4
};

const PASS_UNICAST: Talk = Talk {
    ours: |priority| {
        let more = "version = 2\npassword = \"geheim12\"\npeers = [\"$THEIRS\"]";
        slow(priority, more)
    },
    theirs: "authentication {\n auth_type PASS\n auth_pass geheim12\n }\n \
             unicast_src_ip $THEIRS\n unicast_peer {\n $OURS\n }",
    ..PASS
};

const V6: Talk = Talk {
    version: 3,
    family: Family::V6,
    ours: |priority| v6(priority, ""),
    theirs: "",
    vips: "fe80::40:24/64\n fd00:40::24/128",
};

/// Without `unicast_ttl` its adverts over IPv6 have the hop limit of its host, and may come from anywhere.
const V6_UNICAST: Talk = Talk {
    ours: |priority| v6(priority, "peers = [\"$THEIRS\"]"),
    theirs: "unicast_src_ip $THEIRS\n unicast_ttl 255\n unicast_peer {\n $OURS\n }",
    ..V6
};

const VIRTUAL_MAC: Talk = Talk {
    ours: |priority| slow(priority, "virtual_mac = true"),
    theirs: "use_vmac",
    ..V4
};

const V6_VIRTUAL_MAC: Talk = Talk {
    ours: |priority| v6(priority, "virtual_mac = true"),
    theirs: "use_vmac",
    ..V6
};

/// A router of ours with an advert a second.
fn slow(priority: u8, more: &str) -> String {
    let router = router(priority, more);
    router.replace("advert_interval = \"200ms\"", "advert_interval = \"1s\"")
}

fn v6(priority: u8, more: &str) -> String {
    format!(
        "[[vip]]\naddress = \"fe80::40:24/64\"\n[[vip]]\naddress = \"fd00:40::24/128\"\n\
         [[vrrp]]\nname = \"front\"\nvrid = 51\npriority = {priority}\n\
         vips = [\"fe80::40:24\", \"fd00:40::24\"]\n{more}\n"
    )
}

/// A node of ours, and keepalived on the host of the other.
struct Sides {
    pair: Pair,
    ours: usize,
    theirs: usize,
    talk: Talk,
}

impl Sides {
    /// The network, in which nothing runs yet.
    fn new(ours: usize, talk: Talk) -> Result<Self> {
        Ok(Self {
            pair: Pair::new()?,
            ours,
            theirs: 1 - ours,
            talk,
        })
    }

    fn seated(&self, text: &str) -> String {
        let address = |at: usize| self.pair.host(at).address(self.talk.family).to_string();
        text.replace("$OURS", &address(self.ours))
            .replace("$THEIRS", &address(self.theirs))
    }

    fn config(&self, priority: u8) -> String {
        node(&self.seated(&(self.talk.ours)(priority)))
    }

    fn start(&mut self, priority: u8) -> Result<()> {
        let config = self.config(priority);
        self.pair.start(self.ours, &config)
    }

    /// Waits for our role.
    fn wait_for_role(&self, role: &str) -> Result<()> {
        self.pair.wait_for_role(self.ours, role)
    }

    fn order(&self, order: &[&str]) -> Result<()> {
        self.pair.tell(self.ours, order).map(drop)
    }

    /// keepalived, without the program's help: it only speaks VRRP.
    fn keepalived(&self, priority: u8) -> Result<Process> {
        let Talk {
            version,
            family: _,
            ours: _,
            theirs,
            vips,
        } = self.talk;
        let theirs = self.seated(theirs);
        self.keepalived_with(&format!(
            "global_defs {{\n vrrp_version {version}\n vrrp_garp_master_delay 1\n}}\n\
             vrrp_instance front {{\n state BACKUP\n interface eth0\n virtual_router_id 51\n \
             priority {priority}\n advert_int 1\n {theirs}\n virtual_ipaddress {{\n {vips}\n }}\n}}\n"
        ))
    }

    fn keepalived_with(&self, config: &str) -> Result<Process> {
        keepalived(self.pair.host(self.theirs), config)
    }

    /// Waits until keepalived has the address, or has it no more.
    fn wait_for_keepalived(&self, has_it: bool) -> Result<()> {
        let vip = self.talk.family.vip();
        let what = format!("keepalived having the address: {has_it}");
        wait_until(SOON, &what, || {
            (self.pair.has_vip(self.theirs, vip).ok()? == has_it).then_some(())
        })?;
        Ok(())
    }

    /// Waits for some more of keepalived's adverts, of a priority.
    fn wait_for_adverts(&self, priority: u8) -> Result<()> {
        let heard = || {
            let router = self.pair.router(self.ours).ok()?;
            let is_theirs = router.peer?.priority == priority;
            is_theirs.then_some(router.adverts.received)
        };
        let received = wait_until(SOON, "an advert of keepalived", heard)?;
        wait_until(SOON, "more of keepalived's adverts", || {
            (heard()? > received + 2).then_some(())
        })?;
        Ok(())
    }

    /// What adverts come from at a node's host.
    fn source(&self, at: usize) -> Result<IpAddr> {
        let is_multicast = self.talk.theirs.is_empty();
        if self.talk.family == Family::V4 || !is_multicast {
            return Ok(self.pair.host(at).address(self.talk.family));
        }
        let addresses = self.pair.addresses(at)?.into_iter();
        let addresses = addresses.filter_map(|it| it.split('/').next()?.parse::<Ipv6Addr>().ok());
        // Not the router's, which may be there too.
        let vip = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0x40, 0x24);
        let mut own = addresses.filter(|it| it.is_unicast_link_local() && *it != vip);
        Ok(own.next().context("no link-local address")?.into())
    }
}

/// keepalived on a host, which can be told to read its file again.
pub(crate) fn keepalived(host: &Host, config: &str) -> Result<Process> {
    let directory = host.work_dir().display().to_string();
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

/// Priority, preemption and release, each of either side.
fn get_along(talk: Talk) -> Result<()> {
    let mut sides = Sides::new(0, talk)?;
    // Ours is Active, theirs is behind it, takes a released role over, and yields again.
    sides.start(150)?;
    sides.wait_for_role("active")?;
    let mut process = sides.keepalived(100)?;
    process.wait_for_line("Entering BACKUP STATE", SOON)?;
    sides.order(&["vrrp", "release", "front", "--wait"])?;
    sides.wait_for_role("backup")?;
    sides.wait_for_keepalived(true)?;
    sides.wait_for_adverts(100)?;
    sides.order(&["vrrp", "resume", "front"])?;
    sides.wait_for_role("active")?;
    sides.wait_for_keepalived(false)?;
    // Theirs is Active, ours is behind it, and takes a released role over.
    sides.pair.write(0, &sides.config(50))?;
    sides.order(&["reload"])?;
    sides.wait_for_role("backup")?;
    sides.wait_for_keepalived(true)?;
    sides.wait_for_adverts(100)?;
    process.terminate(SOON)?;
    sides.wait_for_role("active")?;
    let router = sides.pair.router(0)?;
    let cause = router.last_change.map(|change| change.cause);
    ensure!(cause.as_deref() == Some("peer_released"), "{cause:?}");
    let refused: u64 = router.adverts.refused.values().sum();
    ensure!(refused == 0, "{:?}", router.adverts);
    Ok(())
}

#[test]
fn keepalived_is_a_peer_in_version_three() -> Result<()> {
    get_along(V4)
}

#[test]
fn keepalived_is_a_peer_over_ipv6() -> Result<()> {
    get_along(V6)
}

#[test]
fn keepalived_is_a_peer_by_name() -> Result<()> {
    get_along(V4_UNICAST)
}

#[test]
fn keepalived_is_a_peer_by_name_over_ipv6() -> Result<()> {
    get_along(V6_UNICAST)
}

#[test]
fn keepalived_is_a_peer_in_version_two_with_a_password() -> Result<()> {
    get_along(PASS)
}

#[test]
fn keepalived_is_a_peer_by_name_in_version_two_with_a_password() -> Result<()> {
    get_along(PASS_UNICAST)
}

/// The address is at the virtual MAC address on either side. Over IPv4 keepalived's host may tell that of
/// its interface as well, which is for its settings of ARP.
fn share_a_mac(talk: Talk, mac: &str) -> Result<()> {
    let vip = talk.family.vip();
    let mut sides = Sides::new(0, talk)?;
    let check = |sides: &Sides, whose: &str| {
        let found = resolve(&sides.pair, vip)?;
        let hosts = [sides.pair.host(0).mac()?, sides.pair.host(1).mac()?];
        ensure!(found == mac, "{whose} has it at {found}, of {hosts:?}");
        Ok(())
    };
    sides.start(150)?;
    sides.wait_for_role("active")?;
    let mut process = sides.keepalived(100)?;
    process.wait_for_line("Entering BACKUP STATE", SOON)?;
    check(&sides, "tidegate")?;
    sides.order(&["vrrp", "release", "front", "--wait"])?;
    sides.wait_for_role("backup")?;
    sides.wait_for_adverts(100)?;
    if vip.is_ipv6() {
        check(&sides, "keepalived")?;
    }
    sides.order(&["vrrp", "resume", "front"])?;
    sides.wait_for_role("active")?;
    check(&sides, "tidegate")
}

#[test]
fn keepalived_with_use_vmac_shares_the_virtual_mac() -> Result<()> {
    share_a_mac(VIRTUAL_MAC, "00:00:5e:00:01:33")
}

#[test]
fn keepalived_with_use_vmac_shares_the_virtual_mac_over_ipv6() -> Result<()> {
    share_a_mac(V6_VIRTUAL_MAC, "00:00:5e:00:02:33")
}

#[test]
fn keepalived_with_another_password_is_refused_and_counted() -> Result<()> {
    let other = Talk {
        theirs: "authentication {\n auth_type PASS\n auth_pass another1\n }",
        ..PASS
    };
    let mut sides = Sides::new(0, other)?;
    sides.start(150)?;
    sides.wait_for_role("active")?;
    let _keepalived = sides.keepalived(200)?;
    wait_until(SOON, "a refusal", || {
        let refused = sides.pair.router(0).ok()?.adverts.refused;
        (*refused.get("auth_mismatch")? > 0).then_some(())
    })?;
    sides.wait_for_role("active")
}

/// Of two Actives of one priority the one with the higher address stays.
fn are_equal(ours: usize, talk: Talk) -> Result<()> {
    let mut sides = Sides::new(ours, talk)?;
    sides.start(100)?;
    sides.wait_for_role("active")?;
    let mut process = sides.keepalived(100)?;
    process.wait_for_line("Entering BACKUP STATE", SOON)?;
    let stays = sides.source(sides.ours)? > sides.source(sides.theirs)?;
    sides.pair.part(true)?;
    sides.wait_for_keepalived(true)?;
    sides.wait_for_role("active")?;
    sides.pair.part(false)?;
    if stays {
        sides.wait_for_keepalived(false)?;
    } else {
        sides.wait_for_role("backup")?;
        sides.wait_for_adverts(100)?;
        sides.wait_for_keepalived(true)?;
    }
    sides.wait_for_role(if stays { "active" } else { "backup" })
}

#[test]
fn of_equal_priorities_the_higher_address_has_the_role() -> Result<()> {
    are_equal(0, V4)?;
    are_equal(1, V4)
}

#[test]
fn of_equal_priorities_the_higher_address_has_the_role_by_name() -> Result<()> {
    are_equal(0, V4_UNICAST)?;
    are_equal(1, V4_UNICAST)
}

#[test]
fn of_equal_priorities_the_higher_address_has_the_role_over_ipv6() -> Result<()> {
    are_equal(0, V6)?;
    are_equal(1, V6)
}

#[test]
fn of_equal_priorities_the_higher_address_has_the_role_by_name_over_ipv6() -> Result<()> {
    are_equal(0, V6_UNICAST)?;
    are_equal(1, V6_UNICAST)
}

#[test]
fn of_equal_priorities_the_higher_address_has_the_role_in_version_two() -> Result<()> {
    are_equal(0, PASS)?;
    are_equal(1, PASS)
}

/// As operators wrote it years ago: MASTER, of priority 100, on both hosts.
const AS_IT_WAS: &str = "! Configuration File for keepalived
global_defs {
   notification_email {
     ops@example.org
   }
   notification_email_from lb@example.org
   smtp_server 127.0.0.1
   smtp_connect_timeout 30
   router_id LVS_DEVEL
   vrrp_skip_check_adv_addr
   vrrp_garp_interval 0
   vrrp_gna_interval 0
}
vrrp_instance VI_1 {
    state MASTER
    interface eth0
    virtual_router_id 51
    priority 100
    advert_int 1
    mcast_src_ip 172.16.40.23
    authentication {
        auth_type PASS
        auth_pass 1111
    }
    virtual_ipaddress {
        172.16.40.24/24
    }
}
";

/// The first of two hosts with keepalived has got Tidegate in its place.
#[test]
fn keepalived_goes_on_as_it_was_configured_for_another_keepalived() -> Result<()> {
    let as_it_was = Talk {
        version: 2,
        ours: |priority| slow(priority, "version = 2\npassword = \"1111\""),
        ..V4
    };
    let mut sides = Sides::new(0, as_it_was)?;
    let mut process = sides.keepalived_with(AS_IT_WAS)?;
    sides.wait_for_keepalived(true)?;
    let config = sides
        .config(100)
        .replace("172.16.40.24/32", "172.16.40.24/24");
    sides.pair.start(0, &config)?;
    // It is behind its equal, and takes over when that one stops.
    sides.wait_for_adverts(100)?;
    sides.wait_for_role("backup")?;
    process.terminate(SOON)?;
    sides.wait_for_role("active")?;
    let load = sides.pair.stay("clients", tests::balancer::clients(100))?;
    sides.pair.wait_for_client(0)?;
    Pair::end(load)?;
    // The other returns, and if it takes the role, then as the one with the higher address.
    let mut process = sides.keepalived_with(AS_IT_WAS)?;
    process.wait_for_line(" STATE", SOON)?;
    let adverts = || {
        let adverts = sides.pair.router(0).ok()?.adverts;
        Some(adverts.sent + adverts.received)
    };
    let before = adverts().context("no status")?;
    wait_until(SOON, "one of the two having the address for good", || {
        let has = [0, 1].map(|at| sides.pair.has_vip(at, Family::V4.vip()).ok());
        let is_one = has == [Some(true), Some(false)] || has == [Some(false), Some(true)];
        (is_one && adverts()? > before + 6).then_some(())
    })?;
    let router = sides.pair.router(0)?;
    let refused: u64 = router.adverts.refused.values().sum();
    ensure!(refused == 0, "{:?}", router.adverts);
    Ok(())
}
