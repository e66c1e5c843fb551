//! Who answers for the VIPs on the segment, and which backends take them for their own.

use super::{
    facts::{Direct, Facts, VipFacts},
    finding::{Finding, error, ok, warning},
};
use crate::{control::VipState, io::segment::Answer};

/// All findings about it.
pub(super) fn examine(facts: &Facts) -> Vec<Finding> {
    let vips = facts.vips.iter().filter_map(|it| answers(it, facts));
    vips.chain(facts.direct.iter().map(direct)).collect()
}

fn mac(mac: [u8; 6]) -> String {
    let [a, b, c, d, e, f] = mac;
    format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
}

/// The backend with a MAC address, as `SERVICE/BACKEND`.
fn owner(facts: &Facts, wanted: &str) -> Option<String> {
    let status = facts.daemon.as_ref()?.as_ref().ok()?;
    let backends = status
        .services
        .iter()
        .flat_map(|service| service.backends.iter().map(move |it| (service, it)));
    let mut owners = backends.filter(|(_, it)| it.next_hop.as_deref() == Some(wanted));
    let (service, backend) = owners.next()?;
    Some(format!("{}/{}", service.name, backend.name))
}

fn answers(vip: &VipFacts, facts: &Facts) -> Option<Finding> {
    let address = vip.address;
    let answers: Vec<String> = vip.answers.as_ref()?.iter().map(|it| mac(*it)).collect();
    if let Some(owner) = answers.iter().find_map(|it| owner(facts, it)) {
        return Some(error(
            "arp",
            format!("{owner} answers for {address}, so clients go past the balancer"),
            "there: sysctl -w net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2, and for good in \
             /etc/sysctl.d",
        ));
    }
    let status = facts.daemon.as_ref().and_then(|it| it.as_ref().ok());
    let is_away = status.is_some_and(|status| {
        let mut vips = status.vips.iter();
        vips.any(|it| {
            let is_it = it.address.split('/').next() == Some(&address.to_string());
            is_it && matches!(it.state, VipState::Withdrawn)
        })
    });
    Some(match (vip.is_here, answers.as_slice()) {
        (true, []) => ok(
            "arp",
            format!("{address} is here, and nobody else answers for it"),
        ),
        (true, others) => error(
            "arp",
            format!(
                "{address} is here, and {} answers for it, too",
                others.join(", ")
            ),
            "two hosts hold it: find the other by its MAC address, and see why it does not hear this one",
        ),
        (false, [one]) => ok("arp", format!("{address} is at {one}")),
        (false, []) if is_away => ok(
            "arp",
            format!("nobody answers for {address}, which is withdrawn"),
        ),
        (false, []) => warning(
            "arp",
            format!("nobody answers for {address}"),
            "no host has it: start the daemon, or see `tidegate vrrp status` on both",
        ),
        (false, several) => error(
            "arp",
            format!("{} answer for {address}", several.join(" and ")),
            "a backend of `dsr` needs arp_ignore=1 and arp_announce=2; or two hosts are Active",
        ),
    })
}

fn direct(direct: &Direct) -> Finding {
    let Direct { name, vip, answer } = direct;
    match answer {
        Answer::Taken => ok("dsr", format!("{name} takes clients of {vip}")),
        Answer::Refused => error(
            "dsr",
            format!("{name} has {vip}, and nothing listens there"),
            "let the broker listen on all addresses (0.0.0.0), or on the VIP as well",
        ),
        Answer::Silent => error(
            "dsr",
            format!("{name} does not answer a client of {vip}"),
            format!(
                "there: ip addr add {vip}/32 dev lo; and let its firewall take clients of that address"
            ),
        ),
    }
}
