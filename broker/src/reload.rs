//! Takes a changed configuration file into use while the node runs.
//!
//! Each part of the node is given its section and takes all of it or nothing: what a part cannot use
//! is told, and it works on with what it has, whatever becomes of the other parts. What is decided
//! once at the start is told too when it has changed in the file.

use std::{error::Error, fmt::Write, path::Path};

use tracing::{info, warn};

use crate::{
    config::{Config, ConfigError},
    control::view::Reloaded,
    node::{Kept, Node},
};

/// Reads the file again; `started` is what the node was started with.
///
/// # Errors
/// When the file breaks a rule; nothing has changed then.
pub(crate) fn reload(path: &Path, started: &Config, node: &Node) -> Result<Reloaded, ConfigError> {
    let config = Config::load(path).inspect_err(|error| {
        let error = error as &dyn Error;
        warn!(error, "configuration not reloaded");
    })?;
    let needs_restart = started.fixed_changes(&config);
    for key in &needs_restart {
        warn!(key, "changed in the file; takes a restart");
    }
    let kept = node.reload(&config);
    for error in &kept {
        let error = error as &dyn Error;
        warn!(error, "not reloaded");
    }
    info!(kept = kept.len(), "configuration reloaded");
    Ok(Reloaded {
        needs_restart: needs_restart.into_iter().map(str::to_owned).collect(),
        kept: kept.iter().map(in_full).collect(),
    })
}

/// An error with its causes.
fn in_full(error: &Kept) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        // Writing to a String does not fail.
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(listener: &str, rest: &str) -> Config {
        let text = format!(
            "node = \"n\"\naccess.anonymous = true\n[[listener]]\naddress = \"127.0.0.1:1\"\n{listener}{rest}"
        );
        Config::parse(&text).unwrap()
    }

    #[test]
    fn what_takes_a_restart_is_told() {
        let started = config("", "");
        assert!(started.fixed_changes(&started).is_empty());
        let proxied = config("proxy_protocol = [\"10.0.0.0/8\"]\n", "");
        assert!(started.fixed_changes(&proxied).is_empty());
        let another = config("[[listener]]\naddress = \"127.0.0.1:2\"\n", "");
        assert_eq!(started.fixed_changes(&another), ["listener.address"]);
        let limited = config("", "[limits]\ninflight = 7\n[log]\nlevel = \"debug\"\n");
        assert_eq!(started.fixed_changes(&limited), ["log"]);
    }
}
