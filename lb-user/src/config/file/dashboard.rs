//! The keys of `[dashboard]`.

use std::net::SocketAddr;

use toml::de::DeValue;

use crate::config::reader::{Located, Table, invalid};
use crate::config::value::{Meaning, boolean, text, text_that};

pub(in crate::config) struct Dashboard {
    pub(in crate::config) listen: Option<Located<Vec<SocketAddr>>>,
    pub(in crate::config) accounts: Option<Located<String>>,
    pub(in crate::config) certificate: Option<Located<String>>,
    pub(in crate::config) key: Option<Located<String>>,
    pub(in crate::config) names: Vec<Located<String>>,
    pub(in crate::config) insecure: Option<Located<bool>>,
}

impl Dashboard {
    pub(super) fn read(table: &mut Table<'_>) -> Self {
        let name = text_that("the name of a host, without a port", dashboard::is_name);
        Self {
            listen: table.required("listen", "listen = \"127.0.0.1:8404\"", sockets),
            accounts: table.optional("accounts", text),
            certificate: table.optional("certificate", text),
            key: table.optional("key", text),
            names: table.list("names", name),
            insecure: table.optional("insecure", boolean),
        }
    }
}

/// One address with a port, or several.
fn sockets(value: &DeValue<'_>) -> Meaning<Vec<SocketAddr>> {
    let expected = "an address and port, such as \"127.0.0.1:8404\", or an array of them";
    let sockets = match value.as_array() {
        Some(values) => values.iter().map(|value| socket(value.get_ref())).collect(),
        None => socket(value).map(|socket| vec![socket]),
    };
    sockets
        .filter(|sockets: &Vec<_>| !sockets.is_empty())
        .ok_or_else(|| invalid(expected, value))
}

fn socket(value: &DeValue<'_>) -> Option<SocketAddr> {
    let socket: SocketAddr = value.as_str()?.parse().ok()?;
    (socket.port() != 0 && !socket.ip().is_multicast()).then_some(socket)
}
