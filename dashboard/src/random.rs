//! Secrets that this program makes, and what it keeps in their place.

use std::io;

use console::random;
use ring::digest;

/// Nobody guesses so many.
const BYTES: usize = 32;

/// What is kept of a secret that was chosen by chance, and has to be known again: it tells nothing of it,
/// and finding it in a table takes the same time whatever is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Digest([u8; digest::SHA256_OUTPUT_LEN]);

impl Digest {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let mut own = [0; digest::SHA256_OUTPUT_LEN];
        let made = digest::digest(&digest::SHA256, bytes);
        for (to, from) in own.iter_mut().zip(made.as_ref()) {
            *to = *from;
        }
        Self(own)
    }

    /// Reads what [`Self::hex`] has written.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        if digits.len() != 2 * digest::SHA256_OUTPUT_LEN {
            return None;
        }
        let mut own = [0; digest::SHA256_OUTPUT_LEN];
        for (to, pair) in own.iter_mut().zip(digits.chunks_exact(2)) {
            let [high, low] = pair else { return None };
            *to = nibble(*high)? << 4 | nibble(*low)?;
        }
        Some(Self(own))
    }

    pub(crate) fn hex(&self) -> String {
        hex(&self.0)
    }
}

const fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A new secret, as text that fits into a header.
///
/// # Errors
///
/// When the system gives no random numbers.
pub(crate) fn secret() -> io::Result<String> {
    let mut bytes = [0; BYTES];
    random::fill(&mut bytes)?;
    Ok(hex(&bytes))
}

/// Whether two texts are the same, in the same time wherever they differ.
pub(crate) fn is_same(one: &str, other: &str) -> bool {
    // Of digests an observer of the time learns nothing that can be aimed at.
    Digest::of(one.as_bytes()) == Digest::of(other.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_read_as_they_are_written() {
        let digest = Digest::of(b"sesame");
        assert_eq!(Digest::parse(&digest.hex()), Some(digest));
        for bad in ["", "00", &digest.hex().to_uppercase(), &"ä".repeat(32)] {
            assert_eq!(Digest::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn secrets_are_long_and_never_the_same() {
        let (one, other) = (secret().unwrap(), secret().unwrap());
        assert_eq!(one.len(), 64);
        assert!(is_same(&one, &one));
        assert!(!is_same(&one, &other));
    }
}
