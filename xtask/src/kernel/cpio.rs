//! The archive that a kernel unpacks into its first file system (Documentation/driver-api/early-userspace).

use std::collections::BTreeSet;
use std::path::{Component, Path};

use anyhow::{Context, Result};

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;

/// An archive in the "newc" format.
#[derive(Debug, Default)]
pub(super) struct Archive {
    bytes: Vec<u8>,
    entries: u32,
    directories: BTreeSet<String>,
}

impl Archive {
    /// Adds a directory and those above it.
    pub(super) fn directory(&mut self, path: &str) -> Result<()> {
        let mut above = String::new();
        for part in Path::new(path).components() {
            let Component::Normal(part) = part else {
                continue;
            };
            if !above.is_empty() {
                above.push('/');
            }
            above.push_str(part.to_str().context("a path is not UTF-8")?);
            if self.directories.insert(above.clone()) {
                self.entry(&above, DIRECTORY, &[])?;
            }
        }
        Ok(())
    }

    /// Adds a file that may be executed, and the directories above it.
    pub(super) fn program(&mut self, path: &str, content: &[u8]) -> Result<()> {
        let path = path.trim_start_matches('/');
        if let Some((above, _)) = path.rsplit_once('/') {
            self.directory(above)?;
        }
        self.entry(path, PROGRAM, content)
    }

    /// The whole archive.
    pub(super) fn finish(mut self) -> Result<Vec<u8>> {
        self.entry("TRAILER!!!", 0, &[])?;
        Ok(self.bytes)
    }

    /// A header of fourteen numbers, the name with a NUL, the content; each padded to four bytes.
    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) -> Result<()> {
        self.entries += 1;
        let length = u32::try_from(content.len()).context("a file is too long")?;
        let name_length = u32::try_from(name.len() + 1)?;
        let header = [
            self.entries,
            mode,
            0,
            0,
            1,
            0,
            length,
            0,
            0,
            0,
            0,
            name_length,
            0,
        ];
        self.bytes.extend(b"070701");
        for number in header {
            self.bytes.extend(format!("{number:08x}").bytes());
        }
        self.bytes.extend(name.bytes().chain([0]));
        self.pad();
        self.bytes.extend(content);
        self.pad();
        Ok(())
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_start_at_multiples_of_four_and_directories_come_once() {
        let mut archive = Archive::default();
        archive.program("/usr/bin/a", b"12345").unwrap();
        archive.program("/usr/bin/b", b"").unwrap();
        let bytes = archive.finish().unwrap();
        let starts: Vec<usize> = (0..bytes.len())
            .filter(|at| bytes[*at..].starts_with(b"070701"))
            .collect();
        // usr, usr/bin, a, b and the trailer.
        assert_eq!(starts.len(), 5);
        assert!(starts.iter().all(|start| start % 4 == 0));
        assert_eq!(&bytes[starts[0] + 110..starts[0] + 114], b"usr\0");
    }
}
