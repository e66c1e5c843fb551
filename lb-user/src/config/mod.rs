//! The configuration file: read, checked against every rule, and turned into [`model::Config`].
//!
//! `reader` takes the TOML apart and remembers where everything stood, `value` says what single
//! values mean, `file` mirrors the keys, [`model`] holds what passed. Nothing stops at the first
//! mistake: all of them are reported together, each with its key path, its line and what to do.

mod authorities;
pub mod error;
mod file;
pub mod model;
mod prefixes;
mod reader;
#[cfg(test)]
mod tests;
mod value;

use std::path::Path;

pub use self::error::{ConfigError, ConfigErrors};
use self::model::Config;
use self::reader::{Errors, read_document};
pub(crate) use self::value::{format_duration, parse_duration};

/// Reads and checks the file at `path`.
///
/// # Errors
///
/// If it cannot be read, or with everything that is wrong with it.
pub fn load(path: &Path) -> Result<Config, ConfigErrors> {
    let name = path.display().to_string();
    match std::fs::read_to_string(path) {
        Ok(text) => parse(&text, &name),
        Err(cause) => Err(ConfigErrors::unreadable(&name, cause)),
    }
}

/// Checks `text`, which errors call `name`.
///
/// # Errors
///
/// With everything that is wrong with it.
pub fn parse(text: &str, name: &str) -> Result<Config, ConfigErrors> {
    let errors = Errors::default();
    let config = read_document(text, &errors, file::Config::read)
        .and_then(|raw| Config::check(raw, &errors));
    match config {
        Some(config) if errors.is_empty() => Ok(config),
        Some(_) | None => Err(ConfigErrors::new(name, errors.into_inner())),
    }
}
