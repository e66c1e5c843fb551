//! The decision who is let in: authenticators in order, and what becomes of those whom none knows.

use std::{fmt, fs, os::unix::fs::MetadataExt, path::Path, sync::Arc};

use tracing::warn;

use super::{
    AccessError, ClientIds, Identity, Login, Permit,
    acl::Acl,
    counts::{Answered, Board, Counts},
    hashing::Hashing,
    identity::Proof,
    passwords::Passwords,
};
use crate::{
    codec::packet::ConnectCode,
    config::{self, Authenticator as Settings, Certified},
    peer::Named,
};

/// Everything that decides who is let in, as it was when the configuration was read.
pub(crate) struct Policy {
    anonymous: bool,
    /// The listeners that go by certificates, and what is counted of them.
    certified: Vec<Certified>,
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

struct Authenticator {
    method: Method,
    counts: Arc<Counts>,
}

enum Method {
    File(Passwords),
}

/// A question to an authenticator, counted when it is over: also when nobody waits for the answer any
/// more.
struct Asked<'a> {
    counts: &'a Counts,
    outcome: Answered,
}

impl<'a> Asked<'a> {
    fn by(counts: &'a Counts) -> Self {
        let outcome = Answered::Unavailable;
        Self { counts, outcome }
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.counts.inc(self.outcome);
    }
}

/// What an authenticator says of a client.
enum Answer {
    Allow(Identity),
    Deny(Denial),
    /// The client is not this authenticator's.
    Ignore,
}

/// Why a client is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Denial {
    /// It says nothing of who it is, and has to.
    Anonymous,
    /// No authenticator knows it.
    Unknown,
    WrongPassword,
    /// The certificate does not tell whose it is.
    Nameless,
    /// The client says that it is another user than its certificate's.
    OtherName,
    /// Who should know cannot be asked.
    Unavailable,
}

impl Denial {
    /// What the client is told. It must not learn from it whether a user exists.
    pub(super) fn code(self) -> ConnectCode {
        match self {
            Self::Anonymous | Self::Nameless => ConnectCode::NotAuthorized,
            Self::Unknown | Self::WrongPassword | Self::OtherName => ConnectCode::BadCredentials,
            Self::Unavailable => ConnectCode::ServerUnavailable,
        }
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Anonymous => "no user name, and anonymous clients are not let in",
            Self::Unknown => "unknown user",
            Self::WrongPassword => "wrong password",
            Self::Nameless => "no single name in the certificate of the kind that tells the user",
            Self::OtherName => "the user name is not the certificate's",
            Self::Unavailable => "the login cannot be checked",
        })
    }
}

impl Policy {
    /// Reads what the configuration names. What `older` knows to be true is kept.
    pub(super) fn load(
        config: &config::Access,
        older: Option<&Self>,
        board: &Board,
    ) -> Result<Self, AccessError> {
        let mut authenticators = Vec::with_capacity(config.authenticators.len());
        for (index, settings) in config.authenticators.iter().enumerate() {
            let method = Method::load(index, settings, older)?;
            let of_its_kind = authenticators
                .iter()
                .filter(|other: &&Authenticator| other.method.kind() == method.kind())
                .count();
            let counts = board.counts(method.kind(), of_its_kind);
            authenticators.push(Authenticator { method, counts });
        }
        let acl = config.acl.as_ref().map(load_acl).transpose()?;
        let trusted_at = acl.as_ref().and_then(Acl::trusts_ids_at);
        let policy = Self {
            anonymous: config.anonymous,
            certified: config.certified.clone(),
            certificates: board.counts("certificate", 0),
            authenticators,
            client_ids: config.client_ids.clone(),
            acl,
            strangers: board.counts("none", 0),
            trusts_ids_at: trusted_at.filter(|_line| config.client_ids.is_none()),
        };
        Ok(policy)
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
        for Authenticator { method, counts } in &self.authenticators {
            let mut asked = Asked::by(counts);
            match method.answer(login, hashing).await {
                Answer::Allow(identity) => {
                    asked.outcome = Answered::Allowed;
                    return Ok(identity);
                }
                Answer::Deny(denial) => {
                    asked.outcome = match denial {
                        Denial::Unavailable => Answered::Unavailable,
                        Denial::Anonymous
                        | Denial::Unknown
                        | Denial::WrongPassword
                        | Denial::Nameless
                        | Denial::OtherName => Answered::Denied,
                    };
                    return Err(denial);
                }
                Answer::Ignore => asked.outcome = Answered::Ignored,
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
            Some(user) => Ok(Identity {
                user: Some(Arc::clone(user)),
                proof: Proof::Certificate(certified),
            }),
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
        self.acl
            .as_ref()
            .map_or_else(Permit::everything, |acl| acl.permit(identity, client_id))
    }

    /// Whether a client that was let in as this user still would be.
    pub(crate) fn standing(&self, identity: &Identity) -> Standing {
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
            Proof::Certificate(certified) if self.certified.contains(certified) => Standing::Good,
            Proof::Certificate(_) => Standing::Unproven,
            Proof::Earlier => {
                let user = identity.user().unwrap_or_default();
                if self.password_files().any(|file| file.find(user).is_some()) {
                    Standing::Good
                } else if self.names_all_users() {
                    Standing::Gone
                } else {
                    Standing::Unproven
                }
            }
            Proof::Password(hash) => {
                let user = identity.user().unwrap_or_default();
                // The first that knows the user decides, as it would at the next login.
                match self.password_files().find_map(|file| file.find(user)) {
                    Some(known) if known.text() == hash => Standing::Good,
                    Some(_changed) => Standing::Unproven,
                    None => Standing::Gone,
                }
            }
        }
    }

    /// Whether there is no user but those in password files.
    fn names_all_users(&self) -> bool {
        let is_file =
            |authenticator: &Authenticator| matches!(authenticator.method, Method::File(_));
        self.certified.is_empty() && self.authenticators.iter().all(is_file)
    }

    fn password_files(&self) -> impl Iterator<Item = &Passwords> {
        self.authenticators
            .iter()
            .map(|authenticator| match &authenticator.method {
                Method::File(passwords) => passwords,
            })
    }
}

/// Hashes can be tried out by whoever has them.
fn warn_if_readable(path: &Path) {
    if has_mode(path, 0o004) {
        warn!(path = %path.display(), "every user of this host can read the password file");
    }
}

/// Who can write such a file decides who may do what.
fn warn_if_writable(path: &Path) {
    if has_mode(path, 0o022) {
        warn!(path = %path.display(), "users other than its owner can write the file");
    }
}

fn has_mode(path: &Path, bits: u32) -> bool {
    fs::metadata(path).is_ok_and(|file| file.mode() & bits != 0)
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

impl Method {
    fn load(
        index: usize,
        settings: &Settings,
        older: Option<&Policy>,
    ) -> Result<Self, AccessError> {
        match settings {
            Settings::File { path } => {
                let mut passwords =
                    Passwords::load(path).map_err(|source| AccessError::Passwords {
                        index,
                        path: path.clone(),
                        source,
                    })?;
                warn_if_readable(path);
                warn_if_writable(path);
                for known in older.iter().flat_map(|older| older.password_files()) {
                    passwords.keep_from(known);
                }
                Ok(Self::File(passwords))
            }
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::File(_) => "file",
        }
    }

    async fn answer(&self, login: &Login<'_>, hashing: &Hashing) -> Answer {
        match self {
            Self::File(passwords) => look_up(passwords, login, hashing).await,
        }
    }
}

/// Looks the user up in a password file.
///
/// An unknown user's password is hashed all the same: the time is not to tell who exists. It does
/// where hashes differ in their cost, or another file knows the user.
async fn look_up(passwords: &Passwords, login: &Login<'_>, hashing: &Hashing) -> Answer {
    let Some(user) = login.username else {
        return Answer::Ignore;
    };
    let known = passwords.find(user);
    let Some(password) = login.password else {
        return known.map_or(Answer::Ignore, |_hash| Answer::Deny(Denial::WrongPassword));
    };
    let hash = known.unwrap_or(passwords.nobody());
    match (hashing.verify(hash, password).await, known) {
        (Err(_broken), _) => Answer::Deny(Denial::Unavailable),
        (Ok(_), None) => Answer::Ignore,
        (Ok(false), Some(_)) => Answer::Deny(Denial::WrongPassword),
        (Ok(true), Some(hash)) => Answer::Allow(Identity {
            user: Some(user.into()),
            proof: Proof::Password(Arc::clone(hash.text())),
        }),
    }
}
