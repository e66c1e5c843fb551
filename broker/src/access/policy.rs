//! The decision who is let in: authenticators in order, and what becomes of those whom none knows.

use std::{collections::HashMap, fmt, net::SocketAddr, sync::Arc};

use tokio::sync::watch;

use super::{
    AccessError, ClientIds, Identity, Login, Permit,
    acl::Acl,
    authenticator::{Answer, Authenticator, Claim, Denial, warn_if_writable},
    counts::{Answered, Board, Counts},
    hashing::Hashing,
    identity::Proof,
};
use crate::{
    config::{self, Certified},
    control::view::AuthenticatorStatus,
    peer::{Named, Peer},
    tls::Trust,
};

/// Everything that decides who is let in, as it was when the configuration was read.
pub(crate) struct Policy {
    anonymous: bool,
    /// The listeners that go by certificates, and what is counted of them.
    certified: Vec<Certified>,
    /// What listeners ask of their clients' certificates.
    trust: HashMap<SocketAddr, Trust>,
    certificates: Arc<Counts>,
    authenticators: Vec<Authenticator>,
    client_ids: Option<ClientIds>,
    acl: Option<Acl>,
    /// Those whom no authenticator knows.
    strangers: Arc<Counts>,
    /// The first line of the ACL file that goes by client ids, where nothing ties these to users.
    trusts_ids_at: Option<usize>,
}

/// What a policy has for a client that an earlier one let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Good,
    /// It has to say anew who it is, and may then have its session again.
    Unproven,
    /// There is no such user.
    Gone,
}

/// What is legal and may not be what is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Advice {
    /// The first line that goes by client ids.
    ClientIds(usize),
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::ClientIds(line) = self;
        write!(
            f,
            "access.acl: line {line} goes by the client id, and without access.client_id \
             clients choose theirs as they like"
        )
    }
}

impl Policy {
    /// Reads what the configuration names. What `older` knows to be true is kept.
    pub(super) fn load(
        config: &config::Access,
        older: Option<&Self>,
        board: &Board,
    ) -> Result<Self, AccessError> {
        let older = older.map_or(&[][..], |older| &older.authenticators);
        let mut authenticators = Vec::with_capacity(config.authenticators.len());
        for (index, settings) in config.authenticators.iter().enumerate() {
            let next = Authenticator::load(index, settings, older, &authenticators, board)?;
            authenticators.push(next);
        }
        let mut trust = HashMap::new();
        for (listener, authority) in &config.authorities {
            warn_if_writable(&authority.file);
            let loaded = Trust::load(authority).map_err(AccessError::Certificates)?;
            trust.insert(*listener, loaded);
        }
        let acl = config.acl.as_ref().map(load_acl).transpose()?;
        let trusted_at = acl.as_ref().and_then(Acl::trusts_ids_at);
        let policy = Self {
            anonymous: config.anonymous,
            certified: config.certified.clone(),
            trust,
            certificates: board.counts("certificate", 0).1,
            authenticators,
            client_ids: config.client_ids.clone(),
            acl,
            strangers: board.counts("none", 0).1,
            trusts_ids_at: trusted_at.filter(|_line| config.client_ids.is_none()),
        };
        Ok(policy)
    }

    /// Begins what goes on beside the questions; `withdrawn` hears when somebody who was let in may
    /// not be any more. Has to be called within the runtime.
    pub(super) fn follow(&self, withdrawn: &watch::Sender<()>) {
        for authenticator in &self.authenticators {
            authenticator.follow(withdrawn);
        }
    }

    /// How the authenticators are, in their order.
    pub(crate) fn status(&self) -> Vec<AuthenticatorStatus> {
        let authenticators = self.authenticators.iter();
        authenticators.map(Authenticator::status).collect()
    }

    /// What is legal and may not be what is meant.
    pub(crate) fn advice(&self) -> Option<Advice> {
        self.trusts_ids_at.map(Advice::ClientIds)
    }

    /// Goes by the client's certificate, or asks each authenticator until one knows the client.
    pub(super) async fn judge(
        &self,
        login: &Login<'_>,
        hashing: &Hashing,
    ) -> Result<Identity, Denial> {
        if let Some(judged) = self.judge_certificate(login) {
            self.certificates.inc(match judged {
                Ok(_) => Answered::Allowed,
                Err(_) => Answered::Denied,
            });
            return judged;
        }
        for authenticator in &self.authenticators {
            match authenticator.ask(login, hashing).await {
                Answer::Allow(identity) => return Ok(identity),
                Answer::Deny(denial) => return Err(denial),
                Answer::Ignore => {}
            }
        }
        let judged = self.judge_stranger(login);
        self.strangers.inc(match judged {
            Ok(_) => Answered::Allowed,
            Err(_) => Answered::Denied,
        });
        judged
    }

    /// `None` where the listener does not go by certificates, or the client has shown none.
    ///
    /// A user name that differs is refused and not passed over: the client means to be somebody that
    /// it is not.
    fn judge_certificate(&self, login: &Login<'_>) -> Option<Result<Identity, Denial>> {
        let Named { by, user } = login.peer.named()?;
        let certified = Certified {
            listener: login.peer.listener,
            by: *by,
        };
        if !self.certified.contains(&certified) {
            return None;
        }
        Some(match user {
            None => Err(Denial::Nameless),
            Some(user) if login.username.is_some_and(|name| name != &**user) => {
                Err(Denial::OtherName)
            }
            Some(user) => Ok(Identity::of(Some(user), Proof::Certificate(certified))),
        })
    }

    /// Where nobody could vouch for any name, a name makes no difference.
    fn judge_stranger(&self, login: &Login<'_>) -> Result<Identity, Denial> {
        let claims = login.has_credentials();
        if self.anonymous && !claims {
            Ok(Identity::ANONYMOUS)
        } else if self.anonymous && self.authenticators.is_empty() {
            Ok(Identity::UNCHECKED)
        } else if claims {
            Err(Denial::Unknown)
        } else {
            Err(Denial::Anonymous)
        }
    }

    /// Whether the user may have a client id of its own choice.
    pub(crate) fn allows_client_id(&self, identity: &Identity, client_id: &str) -> bool {
        self.client_ids
            .as_ref()
            .is_none_or(|ids| ids.fit(identity.user(), client_id))
    }

    /// What a client may do.
    pub(crate) fn permit(&self, identity: &Identity, client_id: &str) -> Permit {
        self.acl.as_ref().map_or_else(
            || Permit::granted(identity, client_id),
            |acl| acl.permit(identity, client_id),
        )
    }

    /// Whether a client that was let in as this user still would be, with what it has shown if it is
    /// connected.
    pub(crate) fn standing(&self, identity: &Identity, peer: Option<&Peer>) -> Standing {
        let standing = self.standing_of(identity);
        if standing == Standing::Good && peer.is_some_and(|peer| !self.trusts(peer)) {
            Standing::Unproven
        } else {
            standing
        }
    }

    /// Whether the client's listener would still take the certificate that the client has shown, or
    /// do without one.
    fn trusts(&self, peer: &Peer) -> bool {
        let trust = self.trust.get(&peer.listener);
        trust.is_none_or(|trust| trust.covers(peer.certificate.as_deref()))
    }

    fn standing_of(&self, identity: &Identity) -> Standing {
        let or_gone = |is_welcome| {
            if is_welcome {
                Standing::Good
            } else {
                Standing::Gone
            }
        };
        match &identity.proof {
            Proof::Nothing => or_gone(self.anonymous),
            Proof::Unchecked if self.anonymous && !self.authenticators.is_empty() => {
                Standing::Unproven
            }
            Proof::Unchecked => or_gone(self.anonymous),
            Proof::Certificate(certified) => {
                if self.certified.contains(certified) {
                    Standing::Good
                } else {
                    Standing::Unproven
                }
            }
            Proof::Earlier => self.standing_of_earlier(identity),
            Proof::Password(_) => self.standing_by(identity, Standing::Gone),
            Proof::Token { .. } | Proof::Answer(_) => {
                self.standing_by(identity, Standing::Unproven)
            }
        }
    }

    /// What is known of a user from an earlier life of the broker is the name alone.
    fn standing_of_earlier(&self, identity: &Identity) -> Standing {
        let has = |user| self.authenticators.iter().any(|it| it.has(user));
        match identity.user() {
            Some(user) if has(user) => Standing::Good,
            None if self.anonymous => Standing::Good,
            Some(_) if !self.certified.is_empty() => Standing::Unproven,
            Some(_) | None if self.authenticators.iter().any(Authenticator::may_know_more) => {
                Standing::Unproven
            }
            Some(_) | None => Standing::Gone,
        }
    }

    /// What the first authenticator that knows the client says, as it would at the next login.
    fn standing_by(&self, identity: &Identity, otherwise: Standing) -> Standing {
        let claims = self.authenticators.iter().map(|it| it.claim(identity));
        match claims.into_iter().find(|claim| *claim != Claim::None) {
            Some(Claim::Good) => Standing::Good,
            Some(Claim::Changed) => Standing::Unproven,
            Some(Claim::None) | None => otherwise,
        }
    }
}

fn load_acl(settings: &config::Acl) -> Result<Acl, AccessError> {
    let config::Acl { path, default } = settings;
    let acl = Acl::load(path, *default).map_err(|source| AccessError::Acl {
        path: path.clone(),
        source,
    })?;
    warn_if_writable(path);
    Ok(acl)
}
