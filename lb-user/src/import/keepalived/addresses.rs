//! The addresses of virtual routers, and the routers that excluded ones need.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use super::tree::Node;
use crate::import::draft::{Draft, Router, Vip, link_local};
use crate::import::finding::Findings;
use crate::import::values::{host_prefix, is_interface, name};

/// Of VRRPv3 (RFC 9568, 5.2.7).
const LONGEST_INTERVAL: Duration = Duration::from_millis(40_950);

/// An address with the interface that it is to be on.
#[derive(Clone, Debug)]
pub(super) struct Address {
    line: usize,
    pub(super) vip: Vip,
    device: Option<String>,
}

/// The addresses of a block.
pub(super) fn addresses(node: &Node, findings: &mut Findings) -> Vec<Address> {
    let mut found = Vec::new();
    for node in &node.block {
        let (line, text) = (node.line, node.word(0));
        let Some((address, prefix)) = host_prefix(text) else {
            let why = "it is no address that a host can have";
            findings.lost(line, format!("virtual_ipaddress {text}"), why, "");
            continue;
        };
        let at = node.words.iter().position(|word| word == "dev");
        let device = at.and_then(|at| node.words.get(at + 1)).cloned();
        let unread = [
            "label",
            "scope",
            "peer",
            "home",
            "mngtmpaddr",
            "noprefixroute",
            "no_track",
        ];
        if let Some(word) = node
            .rest()
            .iter()
            .find(|word| unread.contains(&word.as_str()))
        {
            let why = "the address itself is carried over";
            findings.changed(line, format!("virtual_ipaddress ... {word}"), why, "");
        }
        found.push(Address {
            line,
            vip: Vip {
                address,
                prefix,
                is_assigned: false,
            },
            device,
        });
    }
    found
}

/// Declares these addresses; those of another interface than the first one's are left out.
pub(super) fn held(
    addresses: Vec<Address>,
    interface: Option<&str>,
    draft: &mut Draft,
    findings: &mut Findings,
) -> Vec<IpAddr> {
    let mut held = Vec::new();
    for Address { line, vip, device } in addresses {
        let device = device.or_else(|| interface.map(str::to_owned));
        if let Some(device) = device.filter(|device| is_interface(device)) {
            let carrier = draft.carrier.get_or_insert_with(|| device.clone());
            if *carrier != device {
                let what = format!("virtual_ipaddress {}", vip.address);
                let why =
                    format!("it is for {device}, and one interface carries all VIPs: {carrier}");
                let instead =
                    "put these services on that interface, or keep keepalived for this address";
                findings.lost(line, what, why, instead);
                continue;
            }
            draft.interface.get_or_insert(device);
        }
        draft.declare(vip);
        held.push(vip.address);
    }
    held
}

/// A number that no instance has, after `vrid`.
pub(super) fn free(numbers: &mut BTreeSet<u8>, vrid: u8) -> u8 {
    let mut wanted = (vrid..=u8::MAX).chain(1..vrid);
    let free = wanted
        .find(|number| !numbers.contains(number))
        .unwrap_or(vrid);
    numbers.insert(free);
    free
}

/// A router like `router` for other addresses, in a group with it.
pub(super) fn beside(router: &mut Router, vips: Vec<IpAddr>, vrid: u8) -> Router {
    let is_ipv4 = vips.iter().all(IpAddr::is_ipv4);
    let group = router
        .group
        .get_or_insert_with(|| name(&format!("{}-group", router.instance)));
    let group = Some(group.clone());
    let is_same = router.vips.first().is_none_or(IpAddr::is_ipv4) == is_ipv4;
    let suffix = if is_same { "more" } else { "v6" };
    let suffix = if !is_same && is_ipv4 { "v4" } else { suffix };
    let mut beside = Router {
        name: name(&format!("{}-{suffix}", router.name)),
        vrid,
        vips,
        group,
        ..router.clone()
    };
    if !is_same {
        // Its peers have no addresses of this family.
        beside.source = None;
        beside.peers = Vec::new();
        beside.password = None;
        beside.version = if is_ipv4 { router.version } else { 3 };
        beside.interval = beside.interval.min(LONGEST_INTERVAL);
    }
    beside
}

/// Adverts over IPv6 begin with a link-local address (RFC 9568, 5.2.9).
pub(super) fn with_link_local(
    mut router: Router,
    draft: &mut Draft,
    findings: &mut Findings,
) -> Router {
    let is_link_local = |vip: &IpAddr| matches!(vip, IpAddr::V6(v6) if v6.is_unicast_link_local());
    if router.vips.first().is_none_or(IpAddr::is_ipv4) {
        return router;
    }
    if let Some(at) = router.vips.iter().position(is_link_local) {
        router.vips.swap(0, at);
    } else {
        let address = IpAddr::V6(link_local(router.vrid));
        let why = format!("adverts over IPv6 begin with a link-local address: {address} is added");
        let instead = "add it to keepalived's, too, while both are in use";
        findings.changed(
            router.line,
            format!("vrrp_instance {}", router.instance),
            why,
            instead,
        );
        draft.declare(Vip {
            address,
            prefix: 64,
            is_assigned: false,
        });
        router.vips.insert(0, address);
    }
    router
}
