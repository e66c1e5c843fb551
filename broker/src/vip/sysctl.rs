//! `arp_ignore` and `arp_announce`: raised to what direct server return needs, and put back.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::VipError;

/// Answer ARP only for addresses of the interface the request came in on; never announce an
/// address of another interface.
const WANTED: [(&str, u8); 2] = [("arp_ignore", 1), ("arp_announce", 2)];

/// A setting that is ours to raise, and how it was before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Raised {
    path: PathBuf,
    before: u8,
    after: u8,
}

/// The settings that are too low.
///
/// One that a crashed process has raised (`left`) counts as it was before that, unless somebody
/// has changed it since. A setting that is high enough is left alone.
pub(super) fn plan(interface: &str, left: &[Raised]) -> Result<Vec<Raised>, VipError> {
    let mut raised = Vec::new();
    for scope in ["all", interface] {
        for (name, after) in WANTED {
            let path = Path::new("/proc/sys/net/ipv4/conf").join(scope).join(name);
            let now = read(&path)?;
            let known = left.iter().find(|old| old.path == path && old.after == now);
            if let Some(old) = known {
                raised.push(old.clone());
            } else if now < after {
                raised.push(Raised {
                    path,
                    before: now,
                    after,
                });
            }
        }
    }
    Ok(raised)
}

impl Raised {
    pub(super) fn raise(&self) -> Result<(), VipError> {
        if read(&self.path)? == self.after {
            return Ok(());
        }
        write(&self.path, self.after)
    }

    /// Puts back the value from before, unless somebody has changed it or the interface is gone.
    pub(super) fn restore(&self) -> Result<(), VipError> {
        match read(&self.path) {
            Ok(now) if now == self.after => write(&self.path, self.before),
            Ok(_) => Ok(()),
            Err(VipError::Sysctl { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

fn read(path: &Path) -> Result<u8, VipError> {
    let text = fs::read_to_string(path).map_err(|source| failed(path, source))?;
    text.trim()
        .parse()
        .map_err(|e| failed(path, io::Error::new(io::ErrorKind::InvalidData, e)))
}

fn write(path: &Path, value: u8) -> Result<(), VipError> {
    fs::write(path, value.to_string()).map_err(|source| failed(path, source))
}

fn failed(path: &Path, source: io::Error) -> VipError {
    VipError::Sysctl {
        path: path.to_owned(),
        source,
    }
}
