//! A password or another thing that no log may show.

use std::{fmt, path::Path};

pub(crate) use console::secret::SecretError;

/// Bytes that `Debug` does not show.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<[u8]>);

impl Secret {
    pub fn new(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }

    /// The bytes themselves, for those who check or hash them.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// Reads the first line of a file that not everybody may read.
///
/// # Errors
/// When everybody may, or it cannot be read.
pub(crate) fn read(path: &Path) -> Result<Secret, SecretError> {
    console::secret::read(path).map(|line| Secret::new(line.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_says_nothing() {
        assert_eq!(format!("{:?}", Secret::new(b"sesame")), "Secret");
    }
}
