//! What a client says of who it is, and who it is found to be.

use std::{sync::Arc, time::Instant};

use super::{acl::Grants, jwt::KeyId};
use crate::{
    config::{self, Certified},
    handshake::Accepted,
    peer::Peer,
    secret::Secret,
};

/// What a client brings to be let in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Login<'a> {
    pub(crate) client_id: &'a str,
    pub(crate) username: Option<&'a str>,
    pub(crate) password: Option<&'a Secret>,
    /// Where it comes from, and what it has shown there.
    pub(crate) peer: &'a Peer,
}

impl<'a> Login<'a> {
    pub(crate) fn of(accepted: &'a Accepted, peer: &'a Peer) -> Self {
        let connect = &accepted.connect;
        Self {
            client_id: &connect.client_id,
            username: connect.username.as_deref(),
            password: connect.password.as_ref(),
            peer,
        }
    }

    /// Whether the client claims to be anyone.
    pub(super) fn has_credentials(&self) -> bool {
        self.username.is_some() || self.password.is_some()
    }
}

/// Who a client is found to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// Nobody in particular if `None`: a name that nobody vouches for is not one.
    pub(super) user: Option<Arc<str>>,
    pub(super) proof: Proof,
    /// When the proof is one no longer.
    pub(super) until: Option<Instant>,
    /// What the client may do by its proof, where that says so.
    pub(super) grants: Option<Arc<Grants>>,
}

/// Why that is believed, and until when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    /// Anyone may connect.
    Nothing,
    /// Nobody could check what the client said of who it is.
    Unchecked,
    /// It was found out in an earlier life of the broker.
    Earlier,
    /// A password file has this hash for the user.
    Password(Arc<str>),
    /// The client has shown a certificate to a listener that goes by that.
    Certificate(Certified),
    /// A token was signed by this key.
    Token {
        settings: Arc<config::Jwt>,
        key: KeyId,
    },
    /// A server has said so.
    Answer(Arc<config::WebServer>),
}

impl Identity {
    pub(crate) const ANONYMOUS: Self = Self::nobody(Proof::Nothing);

    pub(super) const UNCHECKED: Self = Self::nobody(Proof::Unchecked);

    const fn nobody(proof: Proof) -> Self {
        Self {
            user: None,
            proof,
            until: None,
            grants: None,
        }
    }

    pub(super) fn of(user: Option<&str>, proof: Proof) -> Self {
        Self {
            user: user.map(Into::into),
            ..Self::nobody(proof)
        }
    }

    /// When the client has to say anew who it is.
    pub(crate) fn until(&self) -> Option<Instant> {
        self.until
    }

    /// Whose session it is that was stored in an earlier life of the broker, and what its client may
    /// do until it comes back.
    pub(crate) fn of_earlier(user: Option<Arc<str>>, grants: Option<Arc<Grants>>) -> Self {
        Self {
            user,
            grants,
            ..Self::nobody(Proof::Earlier)
        }
    }

    /// What the client may do by its login, where that says so.
    pub(crate) fn grants(&self) -> Option<&Arc<Grants>> {
        self.grants.as_ref()
    }

    /// Whether the login is one that tells what its client may do, and does not.
    pub(crate) fn lacks_grants(&self) -> bool {
        let Proof::Token { settings, .. } = &self.proof else {
            return false;
        };
        settings.acl_claim.is_some() && self.grants.is_none()
    }

    /// Whether both logins say the same of what their client may do.
    pub(crate) fn has_same_grants(&self, other: &Self) -> bool {
        self.grants == other.grants
    }

    /// The user's name for logs and rules.
    pub(crate) fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// Whether both are the same user; all anonymous clients are.
    pub(crate) fn is_same_user(&self, other: &Self) -> bool {
        self.user == other.user
    }
}

/// Whether a text that others vouch for can be a user's name: one line of text, which looks like what
/// it is, and is no longer than one in a CONNECT.
pub(crate) fn is_name(text: &str) -> bool {
    let misleads = |c: char| {
        let is_separator = matches!(c, '\u{2028}' | '\u{2029}');
        // These have what comes behind them shown in another order.
        let is_order = matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        c.is_control() || is_separator || is_order
    };
    !text.is_empty() && text.len() <= usize::from(u16::MAX) && !text.contains(misleads)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_they_look_like_and_fit_into_a_record() {
        for name in ["alice", "Jo Doe", "dëvice-1", "شركة", "$x/#", " "] {
            assert!(is_name(name), "{name}");
        }
        let longest = "x".repeat(65_535);
        assert!(is_name(&longest));
        assert!(!is_name(&format!("{longest}x")));
        for odd in [
            "",
            "a\nb",
            "a\0",
            "a\u{7f}",
            "a\u{2028}b",
            "a\u{202e}b",
            "\u{2066}",
        ] {
            assert!(!is_name(odd), "{odd:?}");
        }
    }
}
