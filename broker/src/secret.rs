//! A password or another thing that no log may show.

use std::path::Path;

pub(crate) use console::secret::{Secret, SecretError};

/// Reads the first line of a file that not everybody may read.
///
/// # Errors
/// When everybody may, or it cannot be read.
pub(crate) fn read(path: &Path) -> Result<Secret, SecretError> {
    console::secret::read(path).map(|line| Secret::new(line.as_bytes()))
}
