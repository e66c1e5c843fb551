//! The dashboard as families; none without one.

use dashboard::DashboardStatus;

use super::Page;

/// A value of it.
type Value = fn(&DashboardStatus) -> u64;

pub(super) fn door(page: &mut Page, status: Option<&DashboardStatus>) {
    let Some(status) = status else {
        return;
    };
    let families: &[(&str, &str, &str, Value)] = &[
        ("accounts", "gauge", "Accounts that may log in.", |it| {
            it.accounts
        }),
        ("tokens", "gauge", "Tokens that are known.", |it| it.tokens),
        (
            "accounts_valid",
            "gauge",
            "Whether the file of accounts can be used as it is.",
            |it| u64::from(it.accounts_error.is_none()),
        ),
        ("sessions", "gauge", "Who is logged in.", |it| it.sessions),
        ("connections", "gauge", "Open connections.", |it| {
            it.connections
        }),
        (
            "connections_refused_total",
            "counter",
            "Connections that were one too many.",
            |it| it.connections_refused,
        ),
        ("live_streams", "gauge", "Pages that are fed.", |it| {
            it.live_streams
        }),
    ];
    for (name, kind, help, value) in families {
        page.family(&format!("tidegate_dashboard_{name}"), kind, help);
        page.sample(&[], value(status));
    }
    page.family(
        "tidegate_dashboard_logins_total",
        "counter",
        "Attempts to log in by how they ended.",
    );
    for (result, count) in &status.logins {
        page.sample(&[("result", result)], count);
    }
    page.family(
        "tidegate_dashboard_refused_total",
        "counter",
        "Requests that were refused by why.",
    );
    for (reason, count) in &status.refused {
        page.sample(&[("reason", reason)], count);
    }
}
