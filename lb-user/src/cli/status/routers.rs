//! Virtual routers as a table.

use console::{
    table::{Align, Table},
    units::duration,
};

use crate::control::{RouterStatus, TrackStatus, VrrpStatus};

/// All of them; empty if there are none.
pub(in crate::cli) fn router_table(status: &VrrpStatus) -> String {
    if status.routers.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&[
        ("ROUTER", Align::Left),
        ("VRID", Align::Right),
        ("VIPS", Align::Left),
        ("ROLE", Align::Left),
        ("PRIORITY", Align::Right),
        ("ACTIVE", Align::Left),
        ("SINCE", Align::Left),
        ("CAUSE", Align::Left),
        ("SENT", Align::Right),
        ("RECEIVED", Align::Right),
        ("REFUSED", Align::Right),
        ("KEPT BACK BY", Align::Left),
    ]);
    for router in &status.routers {
        table.row(row(router));
    }
    table.render() + &virtual_macs(status) + &tracked(status)
}

/// Where the addresses of routers are, a line for each that has a MAC address of its own.
fn virtual_macs(status: &VrrpStatus) -> String {
    let routers = status.routers.iter();
    let lines = routers.filter_map(|router| {
        let mac = router.virtual_mac.as_ref()?;
        Some(format!(
            "{} has the virtual MAC address {mac}\n",
            router.name
        ))
    });
    lines.collect()
}

/// What routers depend on, a line each.
fn tracked(status: &VrrpStatus) -> String {
    let routers = status.routers.iter();
    let tracks = routers.flat_map(|router| router.tracked.iter().map(move |it| (router, it)));
    let lines = tracks.map(|(router, track)| {
        let TrackStatus {
            name,
            target,
            state,
            cost,
        } = track;
        let cost = match cost {
            Some(cost) => format!("-{cost} when down"),
            None => "gives its role up when down".to_owned(),
        };
        format!(
            "{} depends on {name} ({target}): {state}; {cost}\n",
            router.name
        )
    });
    lines.collect()
}

fn row(router: &RouterStatus) -> Vec<String> {
    let vips: Vec<String> = router.vips.iter().map(ToString::to_string).collect();
    let role = if router.leaving {
        "leaving"
    } else {
        &router.role
    };
    let active = match router.peer {
        Some(peer) => format!("{} ({})", peer.address, peer.priority),
        None if router.role == "active" => "this node".to_owned(),
        None => "unknown".to_owned(),
    };
    let last = router.last_change.as_ref();
    let refused: u64 = router.adverts.refused.values().sum();
    vec![
        router.name.clone(),
        router.vrid.to_string(),
        vips.join(" "),
        role.to_owned(),
        router.priority.to_string(),
        active,
        last.map(|change| duration(change.seconds_ago))
            .unwrap_or_default(),
        last.map(|change| change.cause.clone()).unwrap_or_default(),
        router.adverts.sent.to_string(),
        router.adverts.received.to_string(),
        refused.to_string(),
        kept_back_by(router),
    ]
}

/// What keeps it from the role, or has others go first: a fault says more than that there is one.
fn kept_back_by(router: &RouterStatus) -> String {
    let holds = router.held.iter().filter(|hold| *hold != "fault");
    let all = holds.chain(&router.faults).chain(&router.lowered_by);
    let all = all.map(String::as_str);
    let all: Vec<&str> = all.chain(router.awaits_sync.then_some("sync")).collect();
    all.join(" ")
}

#[cfg(test)]
mod tests {
    use super::router_table;
    use crate::control::{VrrpStatus, example};

    #[test]
    fn a_backup_names_the_active_and_what_keeps_it_back() {
        let text = router_table(&example::vrrp());
        let line = text.lines().nth(1).unwrap();
        assert!(text.contains("\nfront has the virtual MAC address 00:00:5e:00:01:33\n"));
        assert!(text.ends_with("front depends on gw (gateway 172.16.40.1): down; -50 when down\n"));
        for part in [
            "front",
            "backup",
            "172.16.40.23 (200)",
            "1 min 1 s",
            "no_backends",
        ] {
            assert!(line.contains(part), "{part} is not in {line}");
        }
    }

    #[test]
    fn an_active_on_its_way_out_is_called_so() {
        let mut status = example::vrrp();
        let router = &mut status.routers[0];
        (router.leaving, router.peer) = (true, None);
        "active".clone_into(&mut router.role);
        router.faults.clear();
        router.held = vec!["operator".to_owned()];
        let text = router_table(&status);
        let line = text.lines().nth(1).unwrap();
        assert!(
            line.contains("leaving") && line.contains("this node"),
            "{line}"
        );
        assert!(line.ends_with("operator"), "{line}");
    }

    #[test]
    fn a_lowered_priority_has_its_cause_beside_it() {
        let mut status = example::vrrp();
        let router = &mut status.routers[0];
        (router.priority, router.peer) = (6, None);
        "active".clone_into(&mut router.role);
        (router.faults, router.held) = (Vec::new(), Vec::new());
        router.lowered_by = vec!["silent_backends".to_owned()];
        let text = router_table(&status);
        let line = text.lines().nth(1).unwrap();
        assert!(line.contains("active         6  this node"), "{line}");
        assert!(line.ends_with("silent_backends"), "{line}");
    }

    #[test]
    fn one_that_waits_for_its_peers_sessions_says_so() {
        let mut status = example::vrrp();
        let router = &mut status.routers[0];
        (router.faults, router.held) = (Vec::new(), Vec::new());
        router.awaits_sync = true;
        let text = router_table(&status);
        assert!(text.lines().nth(1).unwrap().ends_with("sync"), "{text}");
    }

    #[test]
    fn without_routers_there_is_no_table() {
        assert_eq!(router_table(&VrrpStatus::default()), "");
    }
}
