//! Who a request is from.

use std::sync::Arc;

use axum::http::{HeaderMap, Method, header};
use tokio::time::Instant;

use crate::{
    accounts::Role,
    random::{self, Digest},
    refusal::Reason,
    router::Shared,
    sessions::Found,
};

/// The header by which the page proves that it is the page.
pub(crate) const CSRF: &str = "x-csrf-token";

/// Whose request it is, and what they may do. Handlers of a daemon find it among the extensions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Who {
    pub name: String,
    pub role: Role,
    pub(crate) proof: Proof,
}

/// What they have shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Proof {
    Session { key: Digest, csrf: Arc<str> },
    Token(Digest),
}

impl Shared {
    /// Who it is: by a token if there is one, whatever else there is, else by the cookie.
    pub(crate) fn identify(&self, headers: &HeaderMap) -> Result<Who, Reason> {
        if let Some(value) = headers.get(header::AUTHORIZATION) {
            let token = value.to_str().ok().and_then(bearer).ok_or(Reason::Token)?;
            let token = Digest::of(token.as_bytes());
            let known = self.book.known();
            let (name, role) = known.token(token).ok_or(Reason::Token)?.clone();
            let proof = Proof::Token(token);
            return Ok(Who { name, role, proof });
        }
        let Found {
            key,
            name,
            role,
            csrf,
            left: _,
        } = self.find_session(headers).ok_or(Reason::Session)?;
        let proof = Proof::Session { key, csrf };
        Ok(Who { name, role, proof })
    }

    /// Whether what was shown is still good. A session is used by that.
    pub(crate) fn is_good(&self, proof: &Proof) -> bool {
        let known = self.book.known();
        match proof {
            Proof::Session { key, csrf: _ } => {
                let found = self.sessions().resume(*key, &known, Instant::now());
                found.is_some()
            }
            Proof::Token(token) => known.token(*token).is_some(),
        }
    }

    /// The session of the request's cookie.
    pub(crate) fn find_session(&self, headers: &HeaderMap) -> Option<Found> {
        let secret = cookie(headers, self.channel.cookie())?;
        let known = self.book.known();
        self.sessions().find(secret, &known, Instant::now())
    }
}

impl Who {
    /// Whether they may do this.
    pub(crate) fn check(&self, method: &Method, headers: &HeaderMap) -> Result<(), Reason> {
        if !is_change(method) {
            return Ok(());
        }
        self.check_page(headers)?;
        if self.role < Role::Operator {
            return Err(Reason::Role);
        }
        Ok(())
    }

    /// Whether it is the page that asks, and not another one by the browser's cookie.
    pub(crate) fn check_page(&self, headers: &HeaderMap) -> Result<(), Reason> {
        let Proof::Session { key: _, csrf } = &self.proof else {
            return Ok(());
        };
        let sent = headers.get(CSRF).and_then(|value| value.to_str().ok());
        let is_page = sent.is_some_and(|sent| random::is_same(sent, csrf));
        is_page.then_some(()).ok_or(Reason::Csrf)
    }
}

/// Whether a request may change something.
pub(crate) fn is_change(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD)
}

/// The token of `Bearer TOKEN` (RFC 6750, 2.1), the first word in any case.
fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// The value of the cookie of that name.
fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let values = headers.get_all(header::COOKIE).iter();
    let pairs = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'));
    let mut found = pairs.filter_map(|pair| pair.trim().split_once('='));
    found.find_map(|(found, value)| (found == name).then_some(value))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn cookie_is_found_among_others_by_its_whole_name() {
        let mut headers = HeaderMap::new();
        let add = |headers: &mut HeaderMap, value: &'static str| {
            headers.append(header::COOKIE, HeaderValue::from_static(value));
        };
        add(&mut headers, "a=1; tidegate2=x;xtidegate=y");
        assert_eq!(cookie(&headers, "tidegate"), None);
        add(&mut headers, "b; tidegate=secret; c=2");
        assert_eq!(cookie(&headers, "tidegate"), Some("secret"));
    }

    #[test]
    fn tokens_are_bearers_only() {
        assert_eq!(bearer("Bearer abc"), Some("abc"));
        assert_eq!(bearer("bearer  abc "), Some("abc"));
        for bad in ["", "Bearer", "Bearer ", "Basic YTpi", "abc"] {
            assert_eq!(bearer(bad), None, "{bad}");
        }
    }

    #[test]
    fn only_reading_is_no_change() {
        assert!(!is_change(&Method::GET) && !is_change(&Method::HEAD));
        for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "FOO"] {
            assert!(is_change(&method.parse().unwrap()), "{method}");
        }
    }

    proptest! {
        #[test]
        fn no_cookie_or_token_panics(value: Vec<u8>) {
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                let _ = value.to_str().ok().and_then(bearer);
                let mut headers = HeaderMap::new();
                headers.append(header::COOKIE, value);
                let _ = cookie(&headers, "tidegate");
            }
        }
    }
}
