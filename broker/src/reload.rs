//! Takes a changed configuration file into use while the node runs.
//!
//! All of it is taken or nothing: what cannot be used is told, and the node works on with what it
//! has. What is decided once at the start is told too when it has changed in the file.

use std::{
    error::Error,
    fmt::{self, Write},
    path::Path,
};

use tracing::{info, warn};

use crate::{
    config::{Config, ConfigError},
    control::view::Reloaded,
    events::Event,
    node::{Node, Unusable},
};

/// Why a configuration was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReloadError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Parts(#[from] Parts),
}

/// What cannot be as the configuration says; a line each, with its causes.
#[derive(Debug, thiserror::Error)]
pub(crate) struct Parts(Vec<Unusable>);

impl fmt::Display for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{}", in_full(error))?;
        }
        Ok(())
    }
}

/// Reads the file again; `started` is what the node was started with.
///
/// # Errors
/// When the file breaks a rule, or one that it names cannot be used; nothing has changed then.
pub(crate) fn reload(path: &Path, started: &Config, node: &Node) -> Result<Reloaded, ReloadError> {
    let events = node.status().events();
    let outcome = try_reload(path, started, node).inspect_err(|error| {
        let error = error as &dyn Error;
        warn!(error, "configuration not reloaded");
    });
    events.tell(&match &outcome {
        Ok(Reloaded { needs_restart }) => Event::Reloaded {
            needs_restart: needs_restart.clone(),
        },
        Err(error) => Event::ReloadRefused {
            error: in_full(error),
        },
    });
    outcome
}

fn try_reload(path: &Path, started: &Config, node: &Node) -> Result<Reloaded, ReloadError> {
    let config = Config::load(path)?;
    node.reload(&config).map_err(Parts)?;
    let needs_restart = started.fixed_changes(&config);
    for key in &needs_restart {
        warn!(key, "changed in the file; takes a restart");
    }
    info!("configuration reloaded");
    Ok(Reloaded {
        needs_restart: needs_restart.into_iter().map(str::to_owned).collect(),
    })
}

/// An error with its causes.
fn in_full(error: &dyn Error) -> String {
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
