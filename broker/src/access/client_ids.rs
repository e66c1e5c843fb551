//! Which client ids a user may have.

use thiserror::Error;

/// What a user's client ids must look like: text with `%u` for the user, and any end after a `*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientIds {
    parts: Vec<Part>,
    is_open: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(Box<str>),
    User,
}

/// Why a pattern of client ids cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ClientIdsError {
    #[error("without %u, which is the user, it ties no client id to a user")]
    NoUser,
    #[error("%u is the user, %% a percent sign, and there is nothing else")]
    Percent,
    #[error("\"*\" is any end of a client id, and stands at the end")]
    Star,
}

impl ClientIds {
    /// # Errors
    /// When the text is no such pattern.
    pub fn parse(text: &str) -> Result<Self, ClientIdsError> {
        let (text, is_open) = match text.strip_suffix('*') {
            Some(text) => (text, true),
            None => (text, false),
        };
        if text.contains('*') {
            return Err(ClientIdsError::Star);
        }
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut letters = text.chars();
        while let Some(letter) = letters.next() {
            if letter != '%' {
                plain.push(letter);
                continue;
            }
            match letters.next() {
                Some('%') => plain.push('%'),
                Some('u') => {
                    parts.push(Part::Text(std::mem::take(&mut plain).into()));
                    parts.push(Part::User);
                }
                Some(_) | None => return Err(ClientIdsError::Percent),
            }
        }
        if !parts.contains(&Part::User) {
            return Err(ClientIdsError::NoUser);
        }
        parts.push(Part::Text(plain.into()));
        Ok(Self { parts, is_open })
    }

    /// Whether a user may have this client id. Who is nobody may have none of a user's.
    pub(super) fn fit(&self, user: Option<&str>, client_id: &str) -> bool {
        let Some(user) = user else { return false };
        let mut rest = client_id;
        for part in &self.parts {
            let expected = match part {
                Part::Text(text) => text,
                Part::User => user,
            };
            match rest.strip_prefix(expected) {
                Some(behind) => rest = behind,
                None => return false,
            }
        }
        self.is_open || rest.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_id_is_tied_to_the_user() {
        let exact = ClientIds::parse("%u").unwrap();
        assert!(exact.fit(Some("alice"), "alice"));
        assert!(!exact.fit(Some("alice"), "alice2"));
        assert!(!exact.fit(Some("alice"), "bob"));
        assert!(!exact.fit(None, ""));
        let several = ClientIds::parse("100%%-%u-*").unwrap();
        assert!(several.fit(Some("alice"), "100%-alice-"));
        assert!(several.fit(Some("alice"), "100%-alice-phone"));
        assert!(!several.fit(Some("alice"), "100%-alicia-phone"));
        assert!(!several.fit(None, "100%-alice-phone"));
    }

    #[test]
    fn patterns_that_tie_nothing_are_refused() {
        for (text, expected) in [
            ("", ClientIdsError::NoUser),
            ("*", ClientIdsError::NoUser),
            ("%%u", ClientIdsError::NoUser),
            ("%u%", ClientIdsError::Percent),
            ("%c-%u", ClientIdsError::Percent),
            ("*%u", ClientIdsError::Star),
            ("%u**", ClientIdsError::Star),
        ] {
            assert_eq!(ClientIds::parse(text), Err(expected), "{text}");
        }
    }
}
