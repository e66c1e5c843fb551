//! A status as Prometheus text.

mod dashboard;
mod sync;
mod vrrp;

use std::fmt::Write as _;

use crate::{
    control::{BackendStatus, Health, ServiceState, ServiceStatus, Status},
    core::presence::Lack,
};

/// Text format 0.0.4.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The whole page.
#[must_use]
pub fn render(status: &Status) -> String {
    let mut page = Page::default();
    daemon(&mut page, status);
    page.family(
        "tidegate_packets_total",
        "counter",
        "Packets by how they ended.",
    );
    for (verdict, count) in &status.verdicts {
        page.sample(&[("verdict", verdict)], count);
    }
    services(&mut page, &status.services);
    backends(&mut page, &status.services);
    vrrp::routers(&mut page, &status.vrrp);
    sync::channel(&mut page, status.sync.as_ref());
    dashboard::door(&mut page, status.dashboard.as_ref());
    page.text
}

fn daemon(page: &mut Page, status: &Status) {
    page.family("tidegate_info", "gauge", "The daemon, always 1.");
    let labels = [
        ("version", status.version.as_str()),
        ("interface", &status.interface.name),
        ("xdp_mode", &status.interface.xdp_mode),
    ];
    page.sample(&labels, 1);
    page.family("tidegate_uptime_seconds", "gauge", "Time since the start.");
    page.sample(&[], status.uptime_seconds);
    page.family(
        "tidegate_config_generation",
        "gauge",
        "Configurations used since the start.",
    );
    page.sample(&[], status.config.generation);
    page.family(
        "tidegate_reloads_total",
        "counter",
        "Reloads by how they ended.",
    );
    page.sample(&[("result", "ok")], status.counters.reloads_ok);
    page.sample(&[("result", "failed")], status.counters.reloads_failed);
    page.family(
        "tidegate_apply_errors_total",
        "counter",
        "Changes that the kernel did not take.",
    );
    page.sample(&[], status.counters.apply_errors);
    page.family("tidegate_events_total", "counter", "Events by kind.");
    for (kind, count) in &status.events {
        page.sample(&[("kind", kind)], count);
    }
    page.family(
        "tidegate_notifications_total",
        "counter",
        "Events that were told, given up, or held back as too many.",
    );
    for notifier in &status.notifiers {
        let results = [
            ("sent", notifier.sent),
            ("failed", notifier.failed),
            ("held_back", notifier.held_back),
        ];
        for (result, count) in results {
            page.sample(&[("notifier", &notifier.name), ("result", result)], count);
        }
    }
    vips(page, status);
    page.family("tidegate_flows", "gauge", "Tracked flows by state.");
    page.sample(&[("state", "tracked")], status.flows.tracked);
    page.sample(&[("state", "half_open")], status.flows.half_open);
}

fn vips(page: &mut Page, status: &Status) {
    let help = "Why an address is withdrawn, or should be: 1 for the reason.";
    page.family("tidegate_vip_withdrawn", "gauge", help);
    for vip in &status.vips {
        for lack in Lack::ALL {
            let is_it = u8::from(vip.lack.as_deref() == Some(lack.label()));
            page.sample(&[("vip", &vip.address), ("reason", lack.label())], is_it);
        }
    }
}

/// A value of each service.
type OfService = fn(&ServiceStatus) -> u64;
/// A value of each backend.
type OfBackend = fn(&BackendStatus) -> f64;

fn services(page: &mut Page, services: &[ServiceStatus]) {
    let families: &[(&str, &str, &str, OfService)] = &[
        (
            "up",
            "gauge",
            "Whether any backend takes new flows.",
            |service| u64::from(service.state == ServiceState::Up),
        ),
        (
            "packets_total",
            "counter",
            "Client packets forwarded.",
            |s| s.traffic.packets,
        ),
        ("bytes_total", "counter", "Client bytes forwarded.", |s| {
            s.traffic.bytes
        }),
        ("new_connections_total", "counter", "Flows started.", |s| {
            s.traffic.new_connections
        }),
        ("dropped_total", "counter", "Client packets dropped.", |s| {
            s.dropped
        }),
        (
            "reply_packets_total",
            "counter",
            "Replies translated.",
            |s| s.traffic.reply_packets,
        ),
        ("reply_bytes_total", "counter", "Bytes of them.", |s| {
            s.traffic.reply_bytes
        }),
        (
            "untracked_total",
            "counter",
            "Packets the flow table had no room for.",
            |s| s.traffic.untracked,
        ),
        ("closed_total", "counter", "Flows seen to close.", |s| {
            s.traffic.closed
        }),
        ("resets_total", "counter", "Flows that were reset.", |s| {
            s.traffic.resets
        }),
        (
            "sessions",
            "gauge",
            "Open flows; see sessions_exact.",
            |s| s.sessions.count,
        ),
        (
            "access_entries",
            "gauge",
            "Prefixes in the access list.",
            |s| s.guard.access_entries,
        ),
        (
            "denied_total",
            "counter",
            "Packets of clients that the access list denies.",
            |s| s.guard.denied,
        ),
        (
            "source_limited_total",
            "counter",
            "New connections beyond the rate of one source.",
            |s| s.guard.source_limited,
        ),
        (
            "service_limited_total",
            "counter",
            "New connections beyond the rate of the service.",
            |s| s.guard.service_limited,
        ),
        (
            "challenging",
            "gauge",
            "Whether new clients are challenged.",
            |s| u64::from(s.guard.is_challenging),
        ),
        (
            "challenged_total",
            "counter",
            "SYNs answered with a challenge.",
            |s| s.guard.challenged,
        ),
        (
            "challenges_answered_total",
            "counter",
            "Good answers to challenges.",
            |s| s.guard.answered,
        ),
    ];
    for (name, kind, help, value) in families {
        page.family(&format!("tidegate_service_{name}"), kind, help);
        for service in services {
            page.sample(&[("service", &service.name)], value(service));
        }
    }
    page.family(
        "tidegate_service_sessions_exact",
        "gauge",
        "Whether open flows are counted, not estimated.",
    );
    for service in services {
        let exact = u8::from(service.sessions.exact);
        page.sample(&[("service", &service.name)], exact);
    }
    slots(page, services);
    mqtt(page, services);
}

fn slots(page: &mut Page, services: &[ServiceStatus]) {
    page.family("tidegate_service_slots", "gauge", "Slots by their state.");
    for service in services {
        let slots = &service.slots;
        let states = [
            ("safe", slots.safe),
            ("mixed", slots.mixed),
            ("at_risk", slots.at_risk),
        ];
        for (state, count) in states {
            page.sample(&[("service", &service.name), ("state", state)], count);
        }
    }
    let families: [(&str, &str, OfService); 2] = [
        (
            "learning_seconds",
            "How long until no slot is at risk.",
            |s| s.slots.learning_seconds,
        ),
        (
            "deferred",
            "Whether slots wait for room to change their backend.",
            |s| u64::from(s.slots.deferred),
        ),
    ];
    for (name, help, value) in families {
        page.family(&format!("tidegate_service_{name}"), "gauge", help);
        for service in services {
            page.sample(&[("service", &service.name)], value(service));
        }
    }
}

fn mqtt(page: &mut Page, services: &[ServiceStatus]) {
    let read = || services.iter().filter_map(|s| Some((s, s.mqtt.as_ref()?)));
    page.family(
        "tidegate_service_mqtt_packets_total",
        "counter",
        "MQTT packets that clients sent, by type.",
    );
    for (service, mqtt) in read() {
        for (name, count) in &mqtt.packets {
            page.sample(&[("service", &service.name), ("type", name)], count);
        }
    }
    page.family(
        "tidegate_service_longest_keep_alive_seconds",
        "gauge",
        "The longest keep-alive that a client has asked for.",
    );
    for (service, mqtt) in read() {
        if let Some(seconds) = mqtt.longest_keep_alive_seconds {
            page.sample(&[("service", &service.name)], seconds);
        }
    }
    page.family(
        "tidegate_service_keep_alive_max_seconds",
        "gauge",
        "The longest keep-alive that learning windows wait for.",
    );
    for (service, mqtt) in read() {
        if let Some(seconds) = mqtt.keep_alive_max_seconds {
            page.sample(&[("service", &service.name)], seconds);
        }
    }
}

fn backends(page: &mut Page, services: &[ServiceStatus]) {
    let families: [(&str, &str, &str, OfBackend); 19] = [
        (
            "up",
            "gauge",
            "Whether the health checks say so.",
            |backend| f64::from(u8::from(backend.health == Health::Up)),
        ),
        (
            "held",
            "gauge",
            "Whether it is silent, and up only because nobody else answers.",
            |b| f64::from(u8::from(b.held)),
        ),
        ("weight", "gauge", "The weight in force.", |b| {
            f64::from(b.weight)
        }),
        (
            "effective_weight",
            "gauge",
            "The weight for new flows: less during a slow start, 0 if it takes none.",
            |b| b.effective_weight,
        ),
        (
            "max_connections",
            "gauge",
            "The most flows that it takes; 0: any number.",
            |b| f64::from(b.max_connections),
        ),
        ("share", "gauge", "Share of new flows, 0 to 1.", |b| b.share),
        (
            "packets_total",
            "counter",
            "Client packets forwarded.",
            |b| b.traffic.packets as f64,
        ),
        ("bytes_total", "counter", "Client bytes forwarded.", |b| {
            b.traffic.bytes as f64
        }),
        ("new_connections_total", "counter", "Flows started.", |b| {
            b.traffic.new_connections as f64
        }),
        ("dropped_total", "counter", "Client packets dropped.", |b| {
            b.dropped as f64
        }),
        (
            "reply_packets_total",
            "counter",
            "Replies translated.",
            |b| b.traffic.reply_packets as f64,
        ),
        ("reply_bytes_total", "counter", "Bytes of them.", |b| {
            b.traffic.reply_bytes as f64
        }),
        ("closed_total", "counter", "Flows seen to close.", |b| {
            b.traffic.closed as f64
        }),
        ("resets_total", "counter", "Flows that were reset.", |b| {
            b.traffic.resets as f64
        }),
        (
            "sessions",
            "gauge",
            "Open flows; see sessions_exact.",
            |b| b.sessions.count as f64,
        ),
        (
            "sessions_exact",
            "gauge",
            "Whether open flows are counted, not estimated.",
            |b| f64::from(u8::from(b.sessions.exact)),
        ),
        (
            "drained",
            "gauge",
            "Whether it is draining and has no session left.",
            |b| f64::from(u8::from(b.drain.is_some_and(|drain| drain.drained))),
        ),
        ("probes_total", "counter", "Health probes.", |b| {
            (b.probe.successes + b.probe.failures) as f64
        }),
        ("probe_failures_total", "counter", "Failed ones.", |b| {
            b.probe.failures as f64
        }),
    ];
    for (name, kind, help, value) in families {
        page.family(&format!("tidegate_backend_{name}"), kind, help);
        for (service, backend) in pairs(services) {
            page.sample(&labels(service, backend), value(backend));
        }
    }
    let help = "How long the last good probe took.";
    page.family("tidegate_backend_probe_seconds", "gauge", help);
    for (service, backend) in pairs(services) {
        if let Some(seconds) = backend.probe.last_seconds {
            page.sample(&labels(service, backend), seconds);
        }
    }
    page.family(
        "tidegate_backend_admin",
        "gauge",
        "Whether it is used, by operators and the file: 1 for what is so.",
    );
    for (service, backend) in pairs(services) {
        let [service, name, address] = labels(service, backend);
        page.sample(&[service, name, address, ("state", &backend.standing())], 1);
    }
}

fn pairs(services: &[ServiceStatus]) -> impl Iterator<Item = (&ServiceStatus, &BackendStatus)> {
    services
        .iter()
        .flat_map(|service| service.backends.iter().map(move |b| (service, b)))
}

fn labels<'a>(service: &'a ServiceStatus, backend: &'a BackendStatus) -> [(&'a str, &'a str); 3] {
    [
        ("service", &service.name),
        ("backend", &backend.name),
        ("address", &backend.address),
    ]
}

/// The text, family by family.
#[derive(Default)]
struct Page {
    text: String,
    family: String,
}

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        name.clone_into(&mut self.family);
        // Writing to a string does not fail.
        let _ = write!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn sample(&mut self, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        self.text.push_str(&self.family);
        for (at, (name, label)) in labels.iter().enumerate() {
            let before = if at == 0 { '{' } else { ',' };
            let _ = write!(self.text, "{before}{name}=\"{}\"", escape(label));
        }
        let after = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.text, "{after} {value}");
    }
}

fn escape(label: &str) -> String {
    label
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}
