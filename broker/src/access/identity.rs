//! What a client says of who it is, and who it is found to be.

use std::sync::Arc;

use crate::{config::Certified, handshake::Accepted, peer::Peer, secret::Secret};

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
}

impl Identity {
    pub(crate) const ANONYMOUS: Self = Self {
        user: None,
        proof: Proof::Nothing,
    };

    pub(super) const UNCHECKED: Self = Self {
        user: None,
        proof: Proof::Unchecked,
    };

    /// Whose session it is that was stored in an earlier life of the broker.
    pub(crate) fn of_earlier(user: Option<Arc<str>>) -> Self {
        let proof = match user {
            Some(_) => Proof::Earlier,
            None => Proof::Nothing,
        };
        Self { user, proof }
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
