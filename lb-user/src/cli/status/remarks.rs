//! Sentences below the tables of a status: only what deserves one.

use console::units::duration;

use super::view::address;
use crate::control::{MqttStatus, ServiceState, ServiceStatus, Status};

/// What deserves a sentence.
pub(super) fn remarks(status: &Status) -> String {
    let mut remarks = Vec::new();
    for service in &status.services {
        if service.state == ServiceState::Down {
            remarks.push(format!(
                "{} has no healthy backend: packets to {} are dropped ({} so far)",
                service.name,
                address(service),
                service.dropped
            ));
        }
    }
    remarks.extend(held_remark(status));
    remarks.extend(status.services.iter().filter_map(slots_remark));
    remarks.extend(status.services.iter().filter_map(mqtt_remark));
    remarks.extend(status.services.iter().filter_map(keep_alive_remark));
    remarks.extend(status.services.iter().filter_map(guard_remark));
    let dropped = status.verdicts.iter();
    let dropped = dropped.filter(|(verdict, count)| verdict.starts_with("drop_") && **count > 0);
    let dropped: Vec<String> = dropped
        .map(|(verdict, count)| format!("{verdict} {count}"))
        .collect();
    if !dropped.is_empty() {
        remarks.push(format!("dropped packets by reason: {}", dropped.join(", ")));
    }
    if status.flows.tracked + status.flows.half_open > 0 {
        let (tracked, half_open) = (status.flows.tracked, status.flows.half_open);
        remarks.push(format!("tracked flows: {tracked}, half open: {half_open}"));
    }
    if let Some(error) = &status.config.last_error {
        remarks.push(format!(
            "the last reload was refused, the old configuration is in force:\n{error}"
        ));
    }
    for notifier in &status.notifiers {
        if let Some(error) = &notifier.last_error {
            let (name, failed) = (&notifier.name, notifier.failed);
            remarks.push(format!(
                "{name} could not be notified, {failed} so far: {error}"
            ));
        }
    }
    let dashboard = status.dashboard.as_ref();
    if let Some(error) = dashboard.and_then(|it| it.accounts_error.as_ref()) {
        remarks.push(format!(
            "the accounts of the dashboard cannot be used, those from before are in force: {error}"
        ));
    }
    if status.counters.apply_errors > 0 {
        let count = status.counters.apply_errors;
        remarks.push(format!(
            "changes that the kernel did not take at once: {count}; see the log"
        ));
    }
    remarks
        .iter()
        .map(|remark| format!("\n{remark}\n"))
        .collect()
}

/// How many backends are held, if any: the table says which.
fn held_remark(status: &Status) -> Option<String> {
    let backends = status.services.iter().flat_map(|service| &service.backends);
    let held = backends.filter(|backend| backend.held).count();
    (held > 0).then(|| {
        format!("nobody answers: backends kept as they are: {held}; look at this host's link")
    })
}

/// Which slots of a service are not safe, if any.
fn slots_remark(service: &ServiceStatus) -> Option<String> {
    let (name, slots) = (&service.name, &service.slots);
    let mut told = Vec::new();
    if slots.at_risk > 0 {
        let more = duration(slots.learning_seconds);
        let count = slots.at_risk;
        told.push(format!(
            "{count} at risk, learning their sessions for {more} more"
        ));
    }
    if slots.mixed > 0 {
        told.push(format!("{} with sessions of other backends", slots.mixed));
    }
    if slots.deferred {
        told.push("some wait for room in the flow table to change their backend".to_owned());
    }
    (!told.is_empty()).then(|| format!("slots of {name}: {}", told.join("; ")))
}

/// Whether a client may be silent for longer than is waited for.
fn keep_alive_remark(service: &ServiceStatus) -> Option<String> {
    let mqtt = service.mqtt.as_ref()?;
    let claimed = duration(mqtt.excessive_keep_alive_seconds()?);
    let most = duration(mqtt.keep_alive_max_seconds?);
    let name = &service.name;
    Some(format!(
        "{name}: a CONNECT has asked for a keep-alive of {claimed}, learning windows wait for {most}: raise \
         keep_alive_max if that device is real"
    ))
}

/// What clients of a service have sent.
fn mqtt_remark(service: &ServiceStatus) -> Option<String> {
    let MqttStatus {
        packets,
        longest_keep_alive_seconds,
        keep_alive_max_seconds: _,
        checks_first_packets,
    } = service.mqtt.as_ref()?;
    let seen = packets.iter().filter(|(_, count)| **count > 0);
    let seen: Vec<String> = seen
        .map(|(name, count)| format!("{name} {count}"))
        .collect();
    if seen.is_empty() {
        return None;
    }
    let (name, seen) = (&service.name, seen.join(", "));
    let longest = longest_keep_alive_seconds
        .map(|seconds| format!("; longest keep-alive {}", duration(seconds)))
        .unwrap_or_default();
    let unchecked = if *checks_first_packets {
        ""
    } else {
        "; first packets are not checked (that takes a record of each flow)"
    };
    Some(format!("{name}: clients sent {seen}{longest}{unchecked}"))
}

/// What a service's guard does at the moment, or has done, if anything.
fn guard_remark(service: &ServiceStatus) -> Option<String> {
    let guard = &service.guard;
    let counts = [
        ("denied", guard.denied),
        ("beyond a source's rate", guard.source_limited),
        ("beyond the service's rate", guard.service_limited),
        ("challenged", guard.challenged),
        ("answers", guard.answered),
    ];
    let counts = counts.iter().filter(|(_, count)| *count > 0);
    let counts: Vec<String> = counts
        .map(|(what, count)| format!("{what} {count}"))
        .collect();
    let state = match (guard.is_challenging, guard.challenge.as_str()) {
        (true, "auto") => "under attack, new clients are challenged",
        (true, _) => "new clients are challenged",
        (false, _) => "",
    };
    let told = [state.to_owned(), counts.join(", ")];
    let told: Vec<String> = told.into_iter().filter(|part| !part.is_empty()).collect();
    (!told.is_empty()).then(|| format!("guard of {}: {}", service.name, told.join("; ")))
}
