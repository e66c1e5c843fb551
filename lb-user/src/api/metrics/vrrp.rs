//! Virtual routers as families.

use super::Page;
use crate::{
    control::{RouterStatus, VrrpStatus},
    core::vrrp::role::Role,
};

/// A value of each router.
type OfRouter = fn(&RouterStatus) -> u64;

pub(super) fn routers(page: &mut Page, status: &VrrpStatus) {
    let routers = &status.routers;
    roles(page, routers);
    let families: [(&str, &str, &str, OfRouter); 5] = [
        ("priority", "gauge", "The priority in force.", |router| {
            router.priority.into()
        }),
        ("adverts_sent_total", "counter", "Adverts sent.", |router| {
            router.adverts.sent
        }),
        (
            "adverts_received_total",
            "counter",
            "Adverts that were not refused.",
            |router| router.adverts.received,
        ),
        (
            "contests_total",
            "counter",
            "Adverts of others while it was Active.",
            |router| router.adverts.contests,
        ),
        (
            "announcements_total",
            "counter",
            "Rounds of gratuitous ARP or neighbour advertisements.",
            |router| router.adverts.announcements,
        ),
    ];
    for (name, kind, help, value) in families {
        page.family(&format!("tidegate_vrrp_{name}"), kind, help);
        for router in routers {
            page.sample(&[("router", &router.name)], value(router));
        }
    }
    reasons(page, status);
}

fn roles(page: &mut Page, routers: &[RouterStatus]) {
    let help = "Its role: 1 for what it is.";
    page.family("tidegate_vrrp_role", "gauge", help);
    for router in routers {
        for role in Role::ALL {
            let is_it = u8::from(router.role == role.label());
            page.sample(&[("router", &router.name), ("role", role.label())], is_it);
        }
    }
    let help = "Changes, by the role that they led to.";
    page.family("tidegate_vrrp_changes_total", "counter", help);
    for router in routers {
        for role in Role::ALL {
            let count = router.changes.get(role.label()).copied().unwrap_or(0);
            page.sample(&[("router", &router.name), ("role", role.label())], count);
        }
    }
    let help = "What it lacks to be Active: 1 for what is so.";
    page.family("tidegate_vrrp_fault", "gauge", help);
    for router in routers {
        for fault in &router.faults {
            page.sample(&[("router", &router.name), ("fault", fault)], 1);
        }
    }
    let help = "What it depends on: 1 for what is up.";
    page.family("tidegate_vrrp_tracked_up", "gauge", help);
    for router in routers {
        for track in &router.tracked {
            let is_up = u8::from(track.state == "up");
            page.sample(&[("router", &router.name), ("track", &track.name)], is_up);
        }
    }
    let help = "Why its priority is lower than configured: 1 for what is so.";
    page.family("tidegate_vrrp_priority_lowered", "gauge", help);
    for router in routers {
        for cause in &router.lowered_by {
            page.sample(&[("router", &router.name), ("cause", cause)], 1);
        }
    }
    let help = "Whether it leaves an Active of lower priority alone until it is in sync with it.";
    page.family("tidegate_vrrp_awaits_sync", "gauge", help);
    for router in routers {
        let labels = [("router", router.name.as_str())];
        page.sample(&labels, u64::from(router.awaits_sync));
    }
}

fn reasons(page: &mut Page, status: &VrrpStatus) {
    let help = "Adverts that were refused.";
    page.family("tidegate_vrrp_refused_total", "counter", help);
    for router in &status.routers {
        for (reason, count) in &router.adverts.refused {
            page.sample(&[("router", &router.name), ("reason", reason)], count);
        }
    }
    let help = "Adverts that count but are odd.";
    page.family("tidegate_vrrp_remarked_total", "counter", help);
    for router in &status.routers {
        for (remark, count) in &router.adverts.remarked {
            page.sample(&[("router", &router.name), ("remark", remark)], count);
        }
    }
    let help = "Adverts that were refused before it was clear whose they are.";
    page.family("tidegate_vrrp_strays_total", "counter", help);
    for (interface, reasons) in &status.refused {
        for (reason, count) in reasons {
            page.sample(&[("interface", interface), ("reason", reason)], count);
        }
    }
}
