//! `vrrp_instance` and `vrrp_sync_group`: virtual routers and their addresses.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use super::addresses::{Address, addresses, beside, free, held, with_link_local};
use super::others::other;
use super::tracks::{Named, Scripts};
use super::tree::Node;
use super::{Globals, is_on, notify};
use crate::import::draft::{Draft, Router};
use crate::import::finding::Findings;
use crate::import::values::{is_interface, name, seconds};

const LONGEST_DELAY: Duration = Duration::from_secs(3_600);

/// What instances of a file share.
pub(super) struct Context<'a> {
    pub(super) globals: &'a Globals,
    pub(super) scripts: &'a Scripts,
    /// The numbers of all of them.
    pub(super) numbers: BTreeSet<u8>,
    pub(super) is_one: bool,
}

/// What an instance says, as far as it is not a router's setting.
#[derive(Debug, Default)]
struct Rest {
    interface: Option<String>,
    addresses: Vec<Address>,
    excluded: Vec<Address>,
    /// The line of `auth_type`, and what it says.
    authentication: Option<(usize, String)>,
    virtual_mac: Option<usize>,
    /// The line of `nopreempt`.
    no_preempt: Option<usize>,
    begins_as_master: bool,
    has_priority: bool,
    is_strict: bool,
    bonus: u32,
}

/// 2 or 3.
pub(super) fn version(text: &str) -> Option<u8> {
    let version = text.parse::<u8>().ok();
    version.filter(|version| matches!(version, 2 | 3))
}

/// Puts the router of `node` into `draft`, with those that its excluded addresses need.
pub(super) fn read(
    node: &Node,
    context: &mut Context<'_>,
    draft: &mut Draft,
    findings: &mut Findings,
) {
    let instance = node.word(1).to_owned();
    let what = format!("vrrp_instance {instance}");
    let mut router = router(&instance, node.line, context.globals, findings);
    let mut rest = Rest {
        is_strict: context.globals.is_strict,
        ..Rest::default()
    };
    for setting in &node.block {
        if !take(setting, &mut router, &mut rest, findings)
            && !notify::is_setting(setting)
            && !tracked(setting, &mut router, &mut rest, context.scripts, findings)
        {
            other(setting, findings);
        }
    }
    let number = |it: &&Node| it.word(0) == "virtual_router_id";
    let given = node.block.iter().find(number);
    let given = given.and_then(|it| it.word(1).parse::<u8>().ok());
    let Some(vrid) = given.filter(|vrid| *vrid > 0) else {
        let why = "it has no virtual_router_id from 1 to 255";
        return findings.lost(node.line, what, why, "add a [[vrrp]] with a `vrid`");
    };
    router.vrid = vrid;
    let is_ipv4 = rest
        .addresses
        .first()
        .is_none_or(|first| first.vip.address.is_ipv4());
    if !is_ipv4 {
        // keepalived has no other for IPv6, either.
        router.version = 3;
    }
    let is_here = |address: &Address| address.vip.address.is_ipv4() == is_ipv4;
    let (own, others): (Vec<_>, Vec<_>) = std::mem::take(&mut rest.addresses)
        .into_iter()
        .partition(is_here);
    rest.excluded.extend(others);
    let interface = rest.interface.clone();
    router.vips = held(own, interface.as_deref(), draft, findings);
    router.interface = rest
        .interface
        .take()
        .filter(|own| draft.carrier.as_ref() != Some(own));
    settle(&mut router, &rest, draft, findings);
    let excluded = held(rest.excluded, interface.as_deref(), draft, findings);
    let (ipv4, ipv6): (Vec<_>, Vec<_>) = excluded.into_iter().partition(IpAddr::is_ipv4);
    for vips in [ipv4, ipv6] {
        if let Some(first) = vips.first() {
            let is_same = first.is_ipv4() == is_ipv4;
            let vrid = if is_same {
                free(&mut context.numbers, vrid)
            } else {
                vrid
            };
            let beside = beside(&mut router, vips, vrid);
            let why = format!(
                "all that a router holds is advertised, so these addresses have a router of their own, {} with \
                 number {vrid}, in a group with it",
                beside.name
            );
            let instead = "see that no other router of the segment has the number";
            findings.changed(
                node.line,
                format!("{what}: excluded addresses"),
                why,
                instead,
            );
            let beside = with_link_local(beside, draft, findings);
            draft.routers.push(beside);
        }
    }
    let is_alone = context.is_one && router.group.is_none();
    notify::read(node, &router.name, is_alone, draft);
    let router = with_link_local(router, draft, findings);
    draft.routers.push(router);
}

/// keepalived's own defaults.
fn router(instance: &str, line: usize, globals: &Globals, findings: &Findings) -> Router {
    Router {
        file: findings.file().to_owned(),
        line,
        instance: instance.to_owned(),
        name: name(instance),
        interface: None,
        vrid: 0,
        version: globals.version.unwrap_or(2),
        priority: 100,
        interval: Duration::from_secs(1),
        source: None,
        peers: Vec::new(),
        password: None,
        preempts: true,
        preempt_delay: None,
        startup_delay: globals.startup_delay.map(|delay| delay.min(LONGEST_DELAY)),
        vips: Vec::new(),
        group: None,
        announce_repeats: None,
        announce_refresh: None,
        has_virtual_mac: false,
        tracks: Vec::new(),
    }
}

/// Takes in a setting; whether it is one of those that are.
fn take(node: &Node, router: &mut Router, rest: &mut Rest, findings: &mut Findings) -> bool {
    let value = node.word(1);
    let delay = || {
        let delay = seconds(value).map(|delay| delay.min(LONGEST_DELAY));
        delay.filter(|delay| !delay.is_zero())
    };
    let mut is_right = true;
    match node.word(0) {
        // Read first.
        "virtual_router_id" => {}
        "interface" => {
            is_right = is_interface(value);
            rest.interface = is_right.then(|| value.to_owned());
        }
        "version" => match version(value) {
            Some(version) => router.version = version,
            None => is_right = false,
        },
        "priority" => {
            rest.has_priority = true;
            match value.parse().ok().filter(|priority: &u8| *priority > 0) {
                Some(priority) => router.priority = priority,
                None => is_right = false,
            }
        }
        "state" => {
            rest.begins_as_master = value == "MASTER";
            let why = "each begins as Backup, and `priority` decides";
            findings.needless(node.line, "state", why);
        }
        "strict_mode" => rest.is_strict = is_on(node),
        "advert_int" => match delay() {
            Some(interval) => router.interval = interval,
            None => is_right = false,
        },
        "nopreempt" => {
            router.preempts = false;
            rest.no_preempt = Some(node.line);
        }
        "preempt" => router.preempts = true,
        "preempt_delay" => router.preempt_delay = delay(),
        "unicast_src_ip" | "mcast_src_ip" => {
            router.source = value.parse().ok();
            is_right = router.source.is_some();
        }
        "unicast_peer" => {
            let peers = node
                .block
                .iter()
                .map(|peer| (peer, peer.word(0).parse::<IpAddr>()));
            for (peer, address) in peers {
                match address {
                    Ok(address) => router.peers.push(address),
                    Err(_) => {
                        let why = "it is no address";
                        findings.lost(peer.line, format!("unicast_peer {}", peer.word(0)), why, "");
                    }
                }
            }
        }
        "authentication" => {
            for node in &node.block {
                match node.word(0) {
                    "auth_type" => {
                        rest.authentication = Some((node.line, node.word(1).to_owned()));
                    }
                    "auth_pass" => router.password = Some(node.word(1).to_owned()),
                    _ => {}
                }
            }
        }
        "virtual_ipaddress" => rest.addresses.extend(addresses(node, findings)),
        "virtual_ipaddress_excluded" => rest.excluded.extend(addresses(node, findings)),
        "garp_master_repeat" => {
            router.announce_repeats = value.parse().ok().filter(|repeats: &u8| *repeats > 0);
        }
        "garp_master_refresh" => router.announce_refresh = delay(),
        "use_vmac" => rest.virtual_mac = Some(node.line),
        _ => return false,
    }
    if !is_right {
        let what = format!("{} {value}", node.word(0));
        findings.lost(
            node.line,
            what,
            "its value is not understood",
            "set it by hand",
        );
    }
    true
}

/// What depends on several settings.
fn settle(router: &mut Router, rest: &Rest, draft: &Draft, findings: &mut Findings) {
    authentication(router, rest, findings);
    interval(router, findings);
    if rest.begins_as_master {
        role(router, rest, findings);
    }
    let is_owner = router.priority == u8::MAX;
    if is_owner {
        // An owner never lowers its priority.
        for track in &mut router.tracks {
            track.cost = None;
        }
    } else {
        let raised = (u32::from(router.priority) + rest.bonus).min(254);
        router.priority = u8::try_from(raised).unwrap_or(254);
    }
    if let Some(line) = rest.virtual_mac {
        let is_carrier = router.interface.is_none() || router.interface == draft.carrier;
        if is_carrier && router.peers.is_empty() && !is_owner {
            router.has_virtual_mac = true;
        } else {
            let why = "a virtual MAC address is for the interface of the VIPs, multicast, and priorities below 255";
            findings.lost(line, "use_vmac", why, "");
        }
    }
}

/// What keepalived makes of `state MASTER`, but that it begins so.
fn role(router: &mut Router, rest: &Rest, findings: &mut Findings) {
    if !rest.has_priority {
        router.priority = u8::MAX;
        let why = "with `state MASTER` and no priority, keepalived speaks with 255, as an owner of addresses";
        let instead = "give it a priority below 255, as one that is held with the other host";
        findings.changed(
            router.line,
            format!("vrrp_instance {}", router.instance),
            why,
            instead,
        );
    }
    if let Some(line) = rest.no_preempt {
        let why = "keepalived does not heed it with `state MASTER`, and Tidegate does";
        findings.changed(
            line,
            "nopreempt",
            why,
            "set `preempt = true` to have it as it was",
        );
    }
}

fn authentication(router: &mut Router, rest: &Rest, findings: &mut Findings) {
    const NONE: &str = "VRRPv3 (RFC 9568) has no authentication";
    let Some((line, kind)) = &rest.authentication else {
        router.password = None;
        return;
    };
    let what = format!("authentication: {kind}");
    if router.version == 3 {
        router.password = None;
        findings.needless(
            *line,
            what,
            format!("{NONE}, and keepalived sends none with it"),
        );
    } else if rest.is_strict {
        router.password = None;
        findings.needless(*line, what, "keepalived sends none in strict mode");
    } else if kind == "PASS" {
        let mut password = router.password.take().unwrap_or_default();
        let end = (0..=8).rev().find(|end| password.is_char_boundary(*end));
        // keepalived, too, sends the first eight bytes.
        password.truncate(end.unwrap_or_default().min(password.len()));
        router.password = (!password.is_empty() && !password.contains('\0')).then_some(password);
        let why = format!("VRRPv2 sends it in the clear, and {NONE}");
        let instead = "when both hosts run Tidegate, set `version = 3` and remove `password`";
        findings.changed(*line, what, why, instead);
    } else {
        router.password = None;
        let why = format!("adverts are not signed, and {NONE}");
        let instead = "keep others off the segment, and take it out of keepalived first: it ignores \
                       adverts without it";
        findings.lost(*line, what, why, instead);
    }
}

/// RFC 9568, 5.2.7; RFC 3768, 5.3.7.
fn interval(router: &mut Router, findings: &mut Findings) {
    let millis = u64::try_from(router.interval.as_millis()).unwrap_or(u64::MAX);
    let right = match router.version {
        2 => millis.div_ceil(1_000).clamp(1, 255).saturating_mul(1_000),
        _ => (millis / 10).clamp(1, 4_095) * 10,
    };
    if right != millis {
        let why = format!("this version of VRRP can say {right} ms");
        findings.changed(router.line, format!("advert_int of {millis} ms"), why, "");
    }
    router.interval = Duration::from_millis(right);
}

/// `track_script` and `track_interface`; whether it is one.
fn tracked(
    node: &Node,
    router: &mut Router,
    rest: &mut Rest,
    scripts: &Scripts,
    findings: &mut Findings,
) -> bool {
    match node.word(0) {
        "track_script" => {
            for node in &node.block {
                match scripts.named(node, findings) {
                    Named::Nothing => {}
                    Named::Track(track) => router.tracks.push(track),
                    Named::Bonus(track, weight) => {
                        let why = "a priority is lowered and never raised: it begins with the weight, and loses it \
                                   while the script fails";
                        let what = format!("track_script {}", node.word(0));
                        findings.changed(node.line, what, why, "");
                        rest.bonus += u32::from(weight);
                        router.tracks.push(track);
                    }
                }
            }
            let mut known = BTreeSet::new();
            router
                .tracks
                .retain(|track| known.insert(track.name.clone()));
        }
        "track_interface" => {
            let others = node
                .block
                .iter()
                .filter(|it| rest.interface.as_deref() != Some(it.word(0)));
            for node in others {
                let why = "only the interface that it speaks on, and that of the VIPs, are watched";
                let instead = "name a `gateway` behind it in a [[vrrp.track]]";
                findings.lost(
                    node.line,
                    format!("track_interface {}", node.word(0)),
                    why,
                    instead,
                );
            }
        }
        _ => return false,
    }
    true
}

/// Makes a group of the instances that `node` names.
pub(super) fn read_group(node: &Node, draft: &mut Draft, findings: &mut Findings) {
    let what = format!("vrrp_sync_group {}", node.word(1));
    for setting in &node.block {
        match setting.word(0) {
            "group" => {
                let listed = setting.block.iter().flat_map(|it| &it.words);
                let members: BTreeSet<&str> = listed.map(String::as_str).collect();
                for router in &mut draft.routers {
                    if members.contains(router.instance.as_str()) {
                        router.group = Some(name(node.word(1)));
                    }
                }
            }
            word if word.starts_with("notify") || word == "smtp_alert" => {
                let why = "changes are told for each router, not for a group";
                let instead = "see [[notify]]; its programs are told the router's name";
                findings.lost(setting.line, format!("{what}: {word}"), why, instead);
            }
            "global_tracking" | "sync_group_tracking_weight" => {
                let why = "what holds one router of a group holds all";
                findings.needless(setting.line, format!("{what}: {}", setting.word(0)), why);
            }
            word => {
                let why = "a group has no settings of its own";
                let instead = "give it to one of its routers: what holds one holds all";
                findings.lost(setting.line, format!("{what}: {word}"), why, instead);
            }
        }
    }
}
