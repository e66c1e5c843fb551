//! A token, as far as it is looked at before it is known that one of the keys has signed it.

use jsonwebtoken::{Header, crypto, decode_header};

use super::keys::Key;

/// Longer ones are nobody's: all of a token is hashed for each key that may have signed it. There is
/// room for as many filters as a token may have.
const LONGEST: usize = 16 * 1024;

/// Of the part that says how it is signed, which is read whoever has written it. There is room for a
/// few certificates, which some put there.
const LONGEST_HEADER: usize = 8 * 1024;

pub(super) struct Token<'a> {
    text: &'a [u8],
    header: Header,
    /// What is signed.
    message: &'a [u8],
    signature: &'a str,
}

impl<'a> Token<'a> {
    /// `None` if it is no token, or none that anybody here could have signed.
    pub(super) fn read(text: &'a [u8]) -> Option<Self> {
        if text.len() > LONGEST {
            return None;
        }
        let mut parts = text.rsplitn(2, |byte| *byte == b'.');
        let (signature, message) = (parts.next()?, parts.next()?);
        let header = message.split(|byte| *byte == b'.').next()?;
        if header.len() > LONGEST_HEADER {
            return None;
        }
        let header = decode_header(text).ok()?;
        // What it says must be understood is not (RFC 7515, 4.1.11).
        if header.crit.is_some() {
            return None;
        }
        Some(Self {
            text,
            header,
            message,
            signature: str::from_utf8(signature).ok()?,
        })
    }

    pub(super) fn text(&self) -> &'a [u8] {
        self.text
    }

    pub(super) fn header(&self) -> &Header {
        &self.header
    }

    /// Whether this key has signed it, which has to be one that may have.
    pub(super) fn is_signed_by(&self, key: &Key) -> bool {
        crypto::verify(self.signature, self.message, &key.key, self.header.alg).unwrap_or(false)
    }
}
