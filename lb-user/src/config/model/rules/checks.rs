//! The rules for health checks.

use std::time::Duration;

use super::or;
use crate::config::error::Problem;
use crate::config::file::{self, CheckType};
use crate::config::model::{
    Check, HttpCheck, MqttCheck, MqttVersion, Probe, Protocol, Secret, defaults,
};
use crate::config::reader::{Errors, Located, Place};
use crate::config::value::format_duration;

pub(super) fn check(raw: &file::Check, protocol: Protocol, errors: &Errors) {
    check_timeout(raw, errors);
    let Some(kind) = &raw.kind else {
        return;
    };
    for (place, needed, types) in bound_keys(raw) {
        if !types.contains(&kind.value) {
            errors.add(place, Problem::NotForType { needed });
        }
    }
    if protocol == Protocol::Udp && kind.value != CheckType::None && raw.port.is_none() {
        errors.add(&kind.place, Problem::UdpCheck);
    }
    let expect = raw
        .expect
        .as_ref()
        .map_or(defaults::HTTP_EXPECT, |given| given.value);
    if let Some(drain_on) = raw
        .drain_on
        .as_ref()
        .filter(|status| status.value == expect)
    {
        errors.add(
            &drain_on.place,
            Problem::Invalid {
                expected: "another status than that of health".to_owned(),
                found: expect.to_string(),
            },
        );
    }
    let speaks_5 = raw
        .version
        .as_ref()
        .is_some_and(|v| v.value == MqttVersion::V5);
    if let (Some(password), None, false) = (&raw.password, &raw.username, speaks_5) {
        errors.add(&password.place, Problem::PasswordWithoutUser);
    }
}

/// The keys that only mean something to some types of check, with the name of these types.
fn bound_keys(raw: &file::Check) -> Vec<(&Place, &'static str, &'static [CheckType])> {
    const MQTT: (&str, &[CheckType]) = ("mqtt", &[CheckType::Mqtt]);
    const HTTP: (&str, &[CheckType]) = ("http", &[CheckType::Http]);
    const ANY: (&str, &[CheckType]) = (
        "mqtt, tcp or http",
        &[CheckType::Mqtt, CheckType::Tcp, CheckType::Http],
    );
    let file::Check {
        kind: _,
        port,
        interval,
        timeout,
        fall,
        rise,
        jitter,
        version,
        username,
        password,
        client_id,
        path,
        host,
        expect,
        drain_on,
    } = raw;
    let keys = [
        (place(port), ANY),
        (place(interval), ANY),
        (place(timeout), ANY),
        (place(fall), ANY),
        (place(rise), ANY),
        (place(jitter), ANY),
        (place(version), MQTT),
        (place(username), MQTT),
        (place(password), MQTT),
        (place(client_id), MQTT),
        (place(path), HTTP),
        (place(host), HTTP),
        (place(expect), HTTP),
        (place(drain_on), HTTP),
    ];
    let given = keys
        .into_iter()
        .filter_map(|(place, types)| Some((place?, types)));
    given
        .map(|(place, (needed, types))| (place, needed, types))
        .collect()
}

fn place<T>(given: &Option<Located<T>>) -> Option<&Place> {
    given.as_ref().map(|given| &given.place)
}

fn check_timeout(raw: &file::Check, errors: &Errors) {
    let interval = raw
        .interval
        .as_ref()
        .map_or(defaults::CHECK_INTERVAL, |given| given.value);
    if let Some(timeout) = &raw.timeout
        && timeout.value > interval
    {
        let interval = format_duration(interval);
        errors.add(&timeout.place, Problem::TimeoutTooLong { interval });
    }
}

/// The check that `raw` describes: none, if it says so.
///
/// Where nothing is said, backends are asked for a TCP connection; of UDP nothing can be asked.
/// Without a type the outer option is `None`.
#[allow(clippy::option_option, reason = "the outer one is for what is missing")]
pub(super) fn build(raw: Option<file::Check>, protocol: Protocol) -> Option<Option<Check>> {
    let Some(raw) = raw else {
        return Some((protocol != Protocol::Udp).then(default_check));
    };
    let probe = match raw.kind?.value {
        CheckType::None => return Some(None),
        CheckType::Tcp => Probe::Tcp,
        CheckType::Mqtt => Probe::Mqtt(MqttCheck {
            version: or(raw.version, MqttVersion::V311),
            username: raw.username.map(|username| username.value),
            password: raw.password.map(|password| Secret(password.value)),
            client_id: raw.client_id.map(|client_id| client_id.value),
        }),
        CheckType::Http => Probe::Http(HttpCheck {
            path: raw
                .path
                .map_or(defaults::HTTP_PATH.to_owned(), |path| path.value),
            host: raw.host.map(|host| host.value),
            expect: or(raw.expect, defaults::HTTP_EXPECT),
            drain_on: raw.drain_on.map(|status| status.value),
        }),
    };
    let interval = or(raw.interval, defaults::CHECK_INTERVAL);
    Some(Some(Check {
        probe,
        port: raw.port.map(|port| port.value),
        interval,
        timeout: or(raw.timeout, default_timeout(interval)),
        fall: or(raw.fall, defaults::CHECK_FALL),
        rise: or(raw.rise, defaults::CHECK_RISE),
        jitter: or(raw.jitter, defaults::CHECK_JITTER),
    }))
}

fn default_check() -> Check {
    Check {
        probe: Probe::Tcp,
        port: None,
        interval: defaults::CHECK_INTERVAL,
        timeout: default_timeout(defaults::CHECK_INTERVAL),
        fall: defaults::CHECK_FALL,
        rise: defaults::CHECK_RISE,
        jitter: defaults::CHECK_JITTER,
    }
}

fn default_timeout(interval: Duration) -> Duration {
    defaults::CHECK_TIMEOUT.min(interval)
}
