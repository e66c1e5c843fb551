//! A status in words and tables.

use std::time::Duration;

use console::{
    table::{Align, Table},
    units::{duration, size},
};

use super::{remarks::remarks, routers::router_table, sync};
use crate::control::{BackendStatus, ServiceStatus, Sessions, Status, TrafficStatus, VipStatus};

/// An earlier status, and how long ago it was.
type Earlier<'a> = Option<(Duration, &'a Status)>;

/// The whole text; with `rates`, the columns that compare with `earlier`.
pub(super) fn render(status: &Status, rates: bool, earlier: Earlier<'_>) -> String {
    let mut text = headline(status);
    for VipStatus {
        address,
        interface,
        state,
        lack,
    } in &status.vips
    {
        let lack = lack.as_ref().map(|lack| format!(" ({lack})"));
        let lack = lack.unwrap_or_default();
        text += &format!("VIP {address} on {interface}: {state}{lack}\n");
    }
    let routers = router_table(&status.vrrp);
    if !routers.is_empty() {
        text += "\n";
        text += &routers;
    }
    text += &sync::lines(status.sync.as_ref());
    text += "\n";
    text += &services(status, rates, earlier);
    text += "\n";
    let rows = status.services.iter().flat_map(|service| {
        let backends = service.backends.iter();
        backends.map(|backend| (service.name.as_str(), backend))
    });
    text += &backends(rows, rates, earlier);
    text += &remarks(status);
    text
}

/// The backends alone.
pub(in crate::cli) fn backend_table<'a>(
    rows: impl Iterator<Item = (&'a str, &'a BackendStatus)>,
) -> String {
    backends(rows, false, None)
}

fn headline(status: &Status) -> String {
    format!(
        "tidegate {} on {} ({} mode), process {}, up {}\nconfiguration {} of {}\n",
        status.version,
        status.interface.name,
        status.interface.xdp_mode,
        status.pid,
        duration(status.uptime_seconds),
        status.config.generation,
        status.config.path,
    )
}

fn services(status: &Status, rates: bool, earlier: Earlier<'_>) -> String {
    let mut head = vec![
        ("SERVICE", Align::Left),
        ("ADDRESS", Align::Left),
        ("BALANCE", Align::Left),
        ("FORWARD", Align::Left),
        ("STATE", Align::Left),
        ("PACKETS", Align::Right),
        ("BYTES", Align::Right),
        ("NEW", Align::Right),
        ("SESSIONS", Align::Right),
        ("DROPPED", Align::Right),
    ];
    if rates {
        head.extend(RATES);
    }
    let mut table = Table::new(&head);
    for service in &status.services {
        let ServiceStatus {
            name,
            balance,
            forward,
            tunnel,
            state,
            traffic,
            dropped,
            sessions,
            ..
        } = service;
        let form = tunnel.as_deref().map(|form| format!(" {form}"));
        let mut row = vec![
            name.clone(),
            address(service),
            balance.clone(),
            forward.clone() + &form.unwrap_or_default(),
            state.to_string(),
        ];
        row.extend(traffic_cells(*traffic));
        row.push(sessions_cell(*sessions));
        row.push(dropped.to_string());
        if rates {
            let before = earlier.and_then(|(ago, earlier)| {
                let old = earlier.services.iter().find(|old| old.name == *name)?;
                Some((ago, old.traffic))
            });
            row.extend(rate_cells(*traffic, before));
        }
        table.row(row);
    }
    table.render()
}

/// The weight, with what of it is in force while a backend starts slowly.
fn weight_cell(weight: u16, effective: f64) -> String {
    if effective > 0.0 && effective < f64::from(weight) {
        format!("{effective:.1} of {weight}")
    } else {
        weight.to_string()
    }
}

fn backends<'a>(
    rows: impl Iterator<Item = (&'a str, &'a BackendStatus)>,
    rates: bool,
    earlier: Earlier<'_>,
) -> String {
    let mut head = vec![
        ("BACKEND", Align::Left),
        ("ADDRESS", Align::Left),
        ("ADMIN", Align::Left),
        ("HEALTH", Align::Left),
        ("WEIGHT", Align::Right),
        ("SHARE", Align::Right),
        ("PACKETS", Align::Right),
        ("BYTES", Align::Right),
        ("NEW", Align::Right),
        ("SESSIONS", Align::Right),
    ];
    if rates {
        head.extend(RATES);
    }
    head.push(("NEXT HOP", Align::Left));
    head.push(("REASON", Align::Left));
    let mut table = Table::new(&head);
    for (service, backend) in rows {
        let BackendStatus {
            name,
            address,
            port,
            weight,
            effective_weight,
            max_connections,
            admin: _,
            health: _,
            reason,
            next_hop,
            share,
            drain,
            ..
        } = backend;
        let admin = match drain {
            Some(drain) if drain.drained => "drained".to_owned(),
            Some(_) | None => backend.standing(),
        };
        let mut row = vec![
            format!("{service}/{name}"),
            socket(address, *port),
            admin,
            backend.health_in_words(),
            weight_cell(*weight, *effective_weight),
            format!("{:.1}%", share * 100.0),
        ];
        row.extend(traffic_cells(backend.traffic));
        row.push(match max_connections {
            0 => sessions_cell(backend.sessions),
            most => format!("{} of {most}", sessions_cell(backend.sessions)),
        });
        if rates {
            let before = earlier.and_then(|(ago, earlier)| {
                let old = earlier.services.iter().find(|old| old.name == service)?;
                let old = old.backends.iter().find(|old| old.name == *name)?;
                Some((ago, old.traffic))
            });
            row.extend(rate_cells(backend.traffic, before));
        }
        row.push(next_hop.clone().unwrap_or_else(|| "unknown".to_owned()));
        row.push(reason.clone().unwrap_or_default());
        table.row(row);
    }
    table.render()
}

const RATES: [(&str, Align); 3] = [
    ("PACKETS/S", Align::Right),
    ("BYTES/S", Align::Right),
    ("NEW/S", Align::Right),
];

fn traffic_cells(traffic: TrafficStatus) -> [String; 3] {
    let TrafficStatus {
        packets,
        bytes,
        new_connections,
        ..
    } = traffic;
    [
        packets.to_string(),
        size(bytes as f64),
        new_connections.to_string(),
    ]
}

/// An estimate is marked as one.
pub(in crate::cli) fn sessions_cell(sessions: Sessions) -> String {
    let mark = if sessions.exact { "" } else { "~" };
    format!("{mark}{}", sessions.count)
}

fn rate_cells(now: TrafficStatus, before: Option<(Duration, TrafficStatus)>) -> [String; 3] {
    let Some((ago, before)) = before else {
        return ["", "", ""].map(str::to_owned);
    };
    let rate = |now: u64, before: u64| now.saturating_sub(before) as f64 / ago.as_secs_f64();
    [
        format!("{:.0}", rate(now.packets, before.packets)),
        size(rate(now.bytes, before.bytes)),
        format!("{:.0}", rate(now.new_connections, before.new_connections)),
    ]
}

pub(super) fn address(service: &ServiceStatus) -> String {
    format!(
        "{}/{}",
        socket(&service.vip, service.port),
        service.protocol
    )
}

fn socket(address: &str, port: u16) -> String {
    if address.contains(':') {
        format!("[{address}]:{port}")
    } else {
        format!("{address}:{port}")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::render;
    use crate::control::{ServiceState, example};

    #[test]
    fn service_without_backend_is_said_in_words() {
        let mut status = example::status();
        assert!(!render(&status, false, None).contains("no healthy backend"));
        status.services[0].state = ServiceState::Down;
        let text = render(&status, false, None);
        let sentence = "mqtt has no healthy backend: packets to 172.16.40.24:1883/tcp are dropped";
        assert!(text.contains(sentence), "{text}");
    }

    #[test]
    fn held_backend_is_shown_with_why() {
        let mut status = example::status();
        assert!(!render(&status, false, None).contains("nobody answers"));
        let backend = &mut status.services[0].backends[0];
        backend.held = true;
        backend.reason = Some("timed out after 1s in connect".to_owned());
        let text = render(&status, false, None);
        let row = text.lines().find(|line| line.starts_with("mqtt/broker1"));
        let row = row.unwrap();
        assert!(
            row.contains(" held ") && row.ends_with("in connect"),
            "{text}"
        );
        assert!(
            text.contains("nobody answers: backends kept as they are: 1; "),
            "{text}"
        );
    }

    #[test]
    fn a_guard_that_does_something_says_so() {
        let mut status = example::status();
        status.services[0].guard.is_challenging = true;
        status.services[0].guard.challenged = 7;
        let text = render(&status, false, None);
        let line =
            "guard of mqtt: under attack, new clients are challenged; denied 1, challenged 7";
        assert!(text.contains(line), "{text}");
        status.services[0].guard = crate::control::GuardStatus::default();
        assert!(!render(&status, false, None).contains("guard"));
    }

    #[test]
    fn refused_reload_stays_visible() {
        let mut status = example::status();
        status.config.last_error = Some("a.toml:3: limits.flows: too many".to_owned());
        let text = render(&status, false, None);
        assert!(text.contains("the old configuration is in force"), "{text}");
        assert!(text.contains("limits.flows"), "{text}");
    }

    #[test]
    fn rates_are_differences_over_time() {
        let earlier = example::status();
        let mut status = example::status();
        status.services[0].backends[0].traffic.packets += 500;
        let text = render(&status, true, Some((Duration::from_secs(2), &earlier)));
        let line = text
            .lines()
            .find(|line| line.starts_with("mqtt/broker1"))
            .unwrap();
        assert!(line.split_whitespace().any(|cell| cell == "250"), "{line}");
    }

    #[test]
    fn form_of_a_tunnel_stands_beside_it() {
        let mut status = example::status();
        status.services[0].forward = "tunnel".to_owned();
        status.services[0].tunnel = Some("gue:6080".to_owned());
        let text = render(&status, false, None);
        assert!(text.contains("tunnel gue:6080"), "{text}");
    }

    #[test]
    fn what_clients_send_is_said() {
        let text = render(&example::status(), false, None);
        let sentence = "mqtt: clients sent connect 5, pingreq 6; longest keep-alive 1 min 0 s; \
                        first packets are not checked";
        assert!(text.contains(sentence), "{text}");
    }

    #[test]
    fn keep_alives_that_nobody_waits_for_are_told() {
        let mut status = example::status();
        assert!(!render(&status, false, None).contains("keep_alive_max"));
        let mqtt = status.services[0].mqtt.as_mut().unwrap();
        mqtt.longest_keep_alive_seconds = Some(65_535);
        let text = render(&status, false, None);
        let sentence = "mqtt: a CONNECT has asked for a keep-alive of 18 h 12 min, learning windows wait \
                        for 40 min 0 s: raise keep_alive_max if that device is real";
        assert!(text.contains(sentence), "{text}");
    }

    #[test]
    fn slots_are_told_of_while_they_are_not_safe() {
        let mut status = example::status();
        assert!(!render(&status, false, None).contains("slots of"));
        status.services[0].slots.at_risk = 5;
        status.services[0].slots.learning_seconds = 61;
        let text = render(&status, false, None);
        let line = "slots of mqtt: 5 at risk, learning their sessions for 1 min 1 s more";
        assert!(text.contains(line), "{text}");
    }

    #[test]
    fn estimates_are_marked() {
        let mut status = example::status();
        status.services[0].sessions.exact = false;
        let text = render(&status, false, None);
        let cells = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        assert!(cells("mqtt ").contains(&"~4".to_owned()), "{text}");
        assert!(cells("mqtt/broker1").contains(&"4".to_owned()), "{text}");
    }

    #[test]
    fn limits_and_weights_on_their_way_are_shown() {
        let mut status = example::status();
        let backend = &mut status.services[0].backends[0];
        (backend.weight, backend.effective_weight) = (2, 0.6);
        backend.max_connections = 30;
        let text = render(&status, false, None);
        assert!(text.contains(" 0.6 of 2 "), "{text}");
        assert!(text.contains(" 4 of 30 "), "{text}");
    }

    #[test]
    fn addresses_with_colons_are_bracketed() {
        let mut status = example::status();
        status.services[0].vip = "fd00:40::24".to_owned();
        assert!(render(&status, false, None).contains("[fd00:40::24]:1883/tcp"));
    }
}
