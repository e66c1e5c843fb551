//! What the daemon says of itself, its peers and its backends.

use super::{
    facts::Facts,
    finding::{Finding, error, ok, warning},
};
use crate::control::{
    BackendStatus, Health, RouterStatus, ServiceState, Status, SyncStatus, VipState, VipStatus,
};

/// All findings about it.
pub(super) fn examine(status: &Status, facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![running(status, facts)];
    findings.extend(status.config.last_error.as_ref().map(|why| {
        let advice =
            "`tidegate check` tells all that is wrong; the configuration before is in force";
        warning(
            "config",
            format!("the last reload changed nothing: {why}"),
            advice,
        )
    }));
    findings.extend(status.vips.iter().map(vip));
    findings.extend(status.vrrp.routers.iter().map(router));
    findings.extend(status.sync.as_ref().map(sync));
    for service in &status.services {
        findings.extend(service.backends.iter().map(|it| backend(&service.name, it)));
        if service.state == ServiceState::Down {
            findings.push(error(
                "service",
                format!("{} has no backend that takes clients", service.name),
                "see to its backends; `tidegate status` says what each lacks",
            ));
        }
    }
    findings
}

fn running(status: &Status, facts: &Facts) -> Finding {
    let (name, uptime) = (&status.interface.name, status.uptime_seconds);
    if *name != facts.interface {
        return warning(
            "daemon",
            format!(
                "it runs on {name}, and the configuration says {}",
                facts.interface
            ),
            "restart it, or give --config the file that it runs with",
        );
    }
    ok("daemon", format!("{} runs for {uptime} s", status.version))
}

fn vip(vip: &VipStatus) -> Finding {
    let message = format!("{} is {}", vip.address, vip.state);
    let why = vip.lack.as_ref();
    let message = why.map_or(message.clone(), |why| format!("{message}: {why}"));
    match vip.state {
        VipState::Absent | VipState::Left | VipState::Withdrawn => error(
            "vip",
            message,
            "`tidegate status` says what it lacks, `tidegate events` since when",
        ),
        VipState::Assigned | VipState::Standby | VipState::Unmanaged => ok("vip", message),
    }
}

fn router(router: &RouterStatus) -> Finding {
    let RouterStatus {
        name,
        role,
        peer,
        held,
        faults,
        adverts,
        ..
    } = router;
    let refused: u64 = adverts.refused.values().sum();
    let lacks: Vec<&str> = held.iter().chain(faults).map(String::as_str).collect();
    if !lacks.is_empty() {
        return error(
            "vrrp",
            format!(
                "{name} is {role} and cannot be Active: {}",
                lacks.join(", ")
            ),
            "`tidegate vrrp status` says more; `tidegate vrrp resume` ends a release",
        );
    }
    match (role.as_str(), peer) {
        // A Backup is silent: an Active cannot know whether there is one.
        ("active", None) if refused == 0 => ok("vrrp", format!("{name} is active")),
        (_, Some(peer)) if role != "active" => ok(
            "vrrp",
            format!("{name} is {role}; {} is active", peer.address),
        ),
        ("active", Some(peer)) => error(
            "vrrp",
            format!("{name} is active, and so is {}", peer.address),
            "two hosts hold the address: see that each hears the other's adverts (IP protocol 112)",
        ),
        ("active", None) => warning(
            "vrrp",
            format!("{name} is active, and has refused {refused} adverts of others"),
            "`tidegate vrrp status` says why: vrid, version, password and addresses have to agree",
        ),
        _ => warning(
            "vrrp",
            format!("{name} is {role}, and hears nobody who is active"),
            "let IP protocol 112 pass between the hosts; `tidegate vrrp status` says more",
        ),
    }
}

fn sync(sync: &SyncStatus) -> Finding {
    let SyncStatus {
        peer,
        sending,
        receiving,
        ..
    } = sync;
    if sending.connected || receiving.connected {
        return ok("sync", format!("{peer} is connected"));
    }
    let why = sending.error.as_ref().or(receiving.error.as_ref());
    let why = why.map_or_else(String::new, |why| format!(": {why}"));
    warning(
        "sync",
        format!("{peer} is not connected{why}"),
        "the peer has to run, have the same key, and be let through to its `[sync] listen`",
    )
}

fn backend(service: &str, backend: &BackendStatus) -> Finding {
    let named = format!(
        "{service}/{} is {}",
        backend.name,
        backend.health_in_words()
    );
    match backend.health {
        Health::Up if !backend.held => ok("backend", named),
        Health::Up | Health::Unknown | Health::Down => {
            let reason = backend.reason.as_deref().unwrap_or("not judged yet");
            warning(
                "backend",
                format!("{named}: {reason}"),
                "see to the broker, and to what is between",
            )
        }
    }
}
