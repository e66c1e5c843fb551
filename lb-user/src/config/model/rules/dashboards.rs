//! The rules for the dashboard.

use std::path::PathBuf;

use crate::config::error::Problem;
use crate::config::file;
use crate::config::model::Dashboard;
use crate::config::reader::Errors;

pub(super) fn check(raw: &file::Config, errors: &Errors) {
    let Some(dashboard) = &raw.dashboard else {
        return;
    };
    for (given, missing) in [
        (&dashboard.certificate, &dashboard.key),
        (&dashboard.key, &dashboard.certificate),
    ] {
        if let (Some(given), None) = (given, missing) {
            errors.add(&given.place, Problem::HalfACertificate);
        }
    }
    let Some(listen) = &dashboard.listen else {
        return;
    };
    let is_insecure = dashboard.insecure.as_ref().is_some_and(|it| it.value);
    let is_plain = dashboard.certificate.is_none() && !is_insecure;
    for (at, socket) in listen.value.iter().enumerate() {
        if is_plain && !socket.ip().is_loopback() {
            let address = socket.ip().to_string();
            errors.add(&listen.place, Problem::LoginsInTheClear { address });
        }
        let metrics = raw.metrics_listen.as_ref();
        let line = match metrics.filter(|metrics| metrics.value == *socket) {
            Some(metrics) => Some(metrics.place.line),
            None => listen.value[..at]
                .contains(socket)
                .then_some(listen.place.line),
        };
        if let Some(line) = line {
            let remedy = "give it another port";
            errors.add(&listen.place, Problem::Duplicate { line, remedy });
        }
    }
}

pub(super) fn build(raw: file::Dashboard) -> Option<Dashboard> {
    let tls = raw.certificate.zip(raw.key);
    let tls = tls.map(|(certificate, key)| (certificate.value.into(), key.value.into()));
    let accounts = raw.accounts.map(|accounts| PathBuf::from(accounts.value));
    Some(Dashboard {
        listen: raw.listen?.value,
        accounts: accounts.unwrap_or_else(|| PathBuf::from(Dashboard::ACCOUNTS)),
        tls,
        names: raw.names.into_iter().map(|name| name.value).collect(),
    })
}
