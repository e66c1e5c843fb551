//! Makes a Tidegate configuration from the files of HAProxy and keepalived.
//!
//! Pure: texts in, a text and [`Finding`]s out; `cli/import.rs` reads and writes. The two parsers take
//! what these files can say in, and nothing silently: each line that means something and is not carried
//! over as it was has a finding with its place, the reason and what to do. What comes out is a draft
//! first, which drops what no configuration can hold, so that the program's own check finds nothing.

mod draft;
mod finding;
mod haproxy;
mod keepalived;
#[cfg(test)]
mod tests;
mod values;
mod write;

use std::net::IpAddr;

pub use self::draft::Way;
use self::draft::{Draft, Vip};
use self::finding::Findings;
pub use self::finding::{Finding, WEIGHTS, Weight};
pub(crate) use self::values::{host_prefix, is_interface};

/// A file of the old stack.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// What findings call it.
    pub name: &'a str,
    pub text: &'a str,
}

/// What the files do not say, or say wrongly for the host to come.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The interface that carries the VIPs.
    pub interface: Option<String>,
    /// Addresses that clients connect to, with the lengths of their prefixes.
    pub vips: Vec<(IpAddr, u8)>,
    /// How backends of HAProxy are to be reached.
    pub way: Way,
}

/// A configuration, and what is not in it as it was.
#[derive(Clone, Debug)]
pub struct Imported {
    pub config: String,
    /// In the order of files and lines.
    pub findings: Vec<Finding>,
    pub services: usize,
    pub routers: usize,
}

impl Imported {
    /// Whether something has no counterpart.
    #[must_use]
    pub fn has_lost(&self) -> bool {
        let mut findings = self.findings.iter();
        findings.any(|finding| finding.weight == Weight::Lost)
    }
}

/// Why nothing can be made of a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImportError {
    #[error(
        "{0} is neither a configuration of HAProxy nor of keepalived; give haproxy.cfg, keepalived.conf \
         or both"
    )]
    UnknownFormat(String),
    #[error("{0} is longer than 4 MiB; give the configuration itself")]
    TooLong(String),
}

/// No configuration that people wrote is longer, in bytes.
pub const LONGEST: usize = 4 << 20;

/// Whose file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Program {
    Haproxy,
    Keepalived,
}

/// Makes a configuration of the files, in whatever order they come.
///
/// # Errors
///
/// If a file is of neither program.
pub fn import(sources: &[Source<'_>], options: &Options) -> Result<Imported, ImportError> {
    let mut haproxy = Vec::new();
    let mut keepalived = Vec::new();
    for source in sources {
        if source.text.len() > LONGEST {
            return Err(ImportError::TooLong(source.name.to_owned()));
        }
        match program(source.text) {
            Some(Program::Haproxy) => haproxy.push(source),
            Some(Program::Keepalived) => keepalived.push(source),
            None => return Err(ImportError::UnknownFormat(source.name.to_owned())),
        }
    }
    let mut draft = Draft {
        interface: options.interface.clone(),
        ..Draft::default()
    };
    let mut findings = Findings::default();
    // keepalived first: who listens on all addresses is reached by the VIPs.
    for source in keepalived {
        findings.enter(source.name);
        keepalived::read(source.text, &mut draft, &mut findings);
    }
    for &(address, prefix) in &options.vips {
        draft.declare(Vip {
            address,
            prefix,
            is_assigned: true,
        });
    }
    for source in haproxy {
        findings.enter(source.name);
        haproxy::read(source.text, options.way, &mut draft, &mut findings);
    }
    draft.settle(&mut findings);
    Ok(Imported {
        config: write::config(&draft),
        findings: findings.into_sorted(),
        services: draft.services.len(),
        routers: draft.routers.len(),
    })
}

/// By the first line that begins as only one of them does.
fn program(text: &str) -> Option<Program> {
    const HAPROXY: [&str; 5] = ["global", "defaults", "frontend", "backend", "listen"];
    const KEEPALIVED: [&str; 8] = [
        "global_defs",
        "vrrp_instance",
        "vrrp_script",
        "vrrp_sync_group",
        "vrrp_track_process",
        "virtual_server",
        "virtual_server_group",
        "static_ipaddress",
    ];
    text.lines().find_map(|line| {
        let is_end = |c: char| c.is_whitespace() || c == '{' || c == '#';
        let word = line.trim_start().split(is_end).next()?;
        if HAPROXY.contains(&word) {
            Some(Program::Haproxy)
        } else if KEEPALIVED.contains(&word) {
            Some(Program::Keepalived)
        } else {
            None
        }
    })
}
