//! Every rule, by a file that breaks it; and the examples, which break none.

mod checks;
mod dashboard;
mod examples;
mod guard;
mod keep_alives;
mod notify;
mod reload;
mod rules;
mod sync;
mod tunnels;
mod vrrp;

use super::error::ConfigErrors;
use super::model::Config;

/// A small file that is right.
const RIGHT: &str = r#"
interface = "eth0"

[[vip]]
address = "172.16.40.24/32"

[[vip]]
address = "fd00:40::24/128"

[[service]]
name = "mqtt"
vip = "172.16.40.24"
port = 1883
forward = "dsr"

[service.check]
type = "mqtt"

[[service.backend]]
name = "a"
address = "172.16.40.20"

[[service.backend]]
name = "b"
address = "172.16.40.21"
"#;

fn parse(text: &str) -> Result<Config, ConfigErrors> {
    super::parse(text, "test.toml")
}

/// The right file with `from`, which must be there, replaced by `to`.
fn changed(from: &str, to: &str) -> String {
    assert!(RIGHT.contains(from), "{from} is not in the file");
    RIGHT.replacen(from, to, 1)
}

fn right(text: &str) -> Config {
    parse(text).unwrap_or_else(|errors| panic!("{errors}"))
}

/// The messages about a wrong file.
fn wrong(text: &str) -> String {
    parse(text).expect_err("the file breaks a rule").to_string()
}
