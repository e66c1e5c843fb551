//! The broker's configuration: one strict TOML file, checked as a whole before anything starts.
//!
//! `file` mirrors the text, `model` holds the rules and the only way to a [`Config`].

mod access;
mod authenticator;
mod check;
mod cluster;
mod control;
mod error;
mod file;
mod limits;
mod listener;
mod model;
mod overload;
mod persistence;
mod tunnel;
mod web;

use std::path::Path;

pub use access::{Access, Acl, Certified};
pub use authenticator::{Authenticator, Jwt, KeySource, TokenField};
pub(crate) use cluster::is_address;
pub use cluster::{Cluster, Sharing};
pub use control::{Control, Stop};
pub use error::{ConfigError, Problem};
pub use limits::Limits;
pub use listener::{ClientAuthority, Demand, Door, Listener, NamedBy, Protocol, TlsFiles};
pub use model::{Config, Log, LogFormat, SessionLimits, Tunnel, Vip};
pub use overload::Overload;
pub use persistence::{Persistence, Sync};
pub use web::WebServer;

impl Config {
    /// Reads and checks a configuration file.
    ///
    /// # Errors
    /// Names every rule that the file breaks, each with its key path and line.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(&text)
    }

    /// Checks a configuration given as text.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let raw: file::Config =
            toml::from_str(text).map_err(|source| ConfigError::Syntax(Box::new(source)))?;
        model::validate(raw, text)
    }
}

#[cfg(test)]
mod tests;
