//! The ways to find out who a client is, each an answer to one question: is this client yours?

use std::{fmt, fs, os::unix::fs::MetadataExt, path::Path, sync::Arc};

use tokio::sync::watch;
use tracing::warn;

use super::{
    AccessError, Identity, Login,
    counts::{Answered, Board, Counts},
    hashing::{Hash, Hashing},
    health::Health,
    http::Oracle,
    identity::Proof,
    jwt::{self, Tokens},
    passwords::Passwords,
};
use crate::{
    codec::packet::ConnectCode, config::Authenticator as Settings,
    control::view::AuthenticatorStatus,
};

/// One of those who are asked in turn.
pub(super) struct Authenticator {
    /// As metrics call it.
    name: String,
    method: Method,
    counts: Arc<Counts>,
}

enum Method {
    File(Passwords),
    Jwt(Box<Tokens>),
    Http(Box<Oracle>),
}

/// What an authenticator says of a client.
pub(super) enum Answer {
    Allow(Identity),
    Deny(Denial),
    /// The client is not this authenticator's.
    Ignore,
}

/// What an authenticator has for a client that was let in before a reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Claim {
    /// It would be let in again.
    Good,
    /// It is this one's, and has to say anew who it is.
    Changed,
    /// It is not this one's.
    None,
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
    /// The client says that it is another user than its certificate's, or its token's.
    OtherName,
    Token(jwt::Flaw),
    /// The server that was asked does not let it in.
    Refused,
    /// Who should know cannot be asked.
    Unavailable,
}

impl Denial {
    /// What the client is told. It must not learn from it whether a user exists.
    pub(super) fn code(self) -> ConnectCode {
        match self {
            Self::Anonymous | Self::Nameless => ConnectCode::NotAuthorized,
            Self::Unknown
            | Self::WrongPassword
            | Self::OtherName
            | Self::Token(_)
            | Self::Refused => ConnectCode::BadCredentials,
            Self::Unavailable => ConnectCode::ServerUnavailable,
        }
    }

    fn counted(self) -> Answered {
        match self {
            Self::Unavailable => Answered::Unavailable,
            Self::Anonymous
            | Self::Unknown
            | Self::WrongPassword
            | Self::Nameless
            | Self::OtherName
            | Self::Token(_)
            | Self::Refused => Answered::Denied,
        }
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Anonymous => "no user name, and anonymous clients are not let in",
            Self::Unknown => "unknown user",
            Self::WrongPassword => "wrong password",
            Self::Nameless => "no single name in the certificate of the kind that tells the user",
            Self::OtherName => "the user name is not the certificate's or the token's",
            Self::Token(flaw) => return fmt::Display::fmt(flaw, f),
            Self::Refused => "the server that was asked says no",
            Self::Unavailable => "the login cannot be checked",
        };
        f.write_str(text)
    }
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

impl Authenticator {
    /// Reads what the settings name. What `older` ones know to be true is kept.
    pub(super) fn load(
        index: usize,
        settings: &Settings,
        older: &[Self],
        before: &[Self],
        board: &Board,
    ) -> Result<Self, AccessError> {
        let method = match settings {
            Settings::File { path } => Method::File(load_passwords(index, path, older)?),
            Settings::Jwt(settings) => {
                let older = older.iter().filter_map(Self::tokens);
                let tokens = Tokens::load(settings, older);
                let tokens = tokens.map_err(|source| AccessError::Jwt { index, source })?;
                Method::Jwt(Box::new(tokens))
            }
            Settings::Http(settings) => {
                let oracle = Oracle::load(settings);
                let oracle = oracle.map_err(|source| AccessError::Http { index, source })?;
                Method::Http(Box::new(oracle))
            }
        };
        let of_its_kind = before
            .iter()
            .filter(|other| other.method.kind() == method.kind())
            .count();
        let (name, counts) = board.counts(method.kind(), of_its_kind);
        Ok(Self {
            name,
            method,
            counts,
        })
    }

    pub(super) async fn ask(&self, login: &Login<'_>, hashing: &Hashing) -> Answer {
        let mut asked = Asked::by(&self.counts);
        let answer = match &self.method {
            Method::File(passwords) => look_up(passwords, login, hashing).await,
            Method::Jwt(tokens) => tokens.judge(login).await,
            Method::Http(oracle) => oracle.judge(login).await,
        };
        asked.outcome = match &answer {
            Answer::Allow(_) => Answered::Allowed,
            Answer::Deny(denial) => denial.counted(),
            Answer::Ignore => Answered::Ignored,
        };
        answer
    }

    /// What becomes of a client that was let in before.
    pub(super) fn claim(&self, identity: &Identity) -> Claim {
        let user = identity.user().unwrap_or_default();
        match (&self.method, &identity.proof) {
            (Method::File(passwords), proof) => match (passwords.find(user), proof) {
                (Some(known), Proof::Password(hash)) if known.text() == hash => Claim::Good,
                (Some(_other), _) => Claim::Changed,
                (None, _) => Claim::None,
            },
            (Method::Jwt(tokens), Proof::Token { settings, key })
                if tokens.vouches(settings, key) =>
            {
                Claim::Good
            }
            (Method::Http(oracle), Proof::Answer(settings)) if oracle.vouches(settings) => {
                Claim::Good
            }
            (Method::Jwt(_) | Method::Http(_), _) => Claim::None,
        }
    }

    /// Whether this is a user by name.
    pub(super) fn has(&self, user: &str) -> bool {
        self.passwords()
            .is_some_and(|file| file.find(user).is_some())
    }

    /// Whether there may be clients that are known here and that nobody has heard of yet.
    pub(super) fn may_know_more(&self) -> bool {
        match &self.method {
            Method::File(_) => false,
            Method::Jwt(_) | Method::Http(_) => true,
        }
    }

    fn passwords(&self) -> Option<&Passwords> {
        match &self.method {
            Method::File(passwords) => Some(passwords),
            Method::Jwt(_) | Method::Http(_) => None,
        }
    }

    fn tokens(&self) -> Option<&Tokens> {
        match &self.method {
            Method::Jwt(tokens) => Some(tokens),
            Method::File(_) | Method::Http(_) => None,
        }
    }

    /// Begins what goes on beside the questions; `withdrawn` hears when somebody who was let in may
    /// not be any more. Has to be called within the runtime.
    pub(super) fn follow(&self, withdrawn: &watch::Sender<()>) {
        if let Some(tokens) = self.tokens() {
            tokens.follow(withdrawn);
        }
    }

    /// How it is, for operators.
    pub(super) fn status(&self) -> AuthenticatorStatus {
        let health = match &self.method {
            Method::File(_) => None,
            Method::Jwt(tokens) => tokens.health(),
            Method::Http(oracle) => Some(&oracle.health),
        };
        let [allowed, denied, ignored, unavailable] = self.counts.all();
        AuthenticatorStatus {
            name: self.name.clone(),
            allowed,
            denied,
            ignored,
            unavailable,
            keys: self.tokens().map(Tokens::count_keys),
            problem: health.and_then(Health::problem),
        }
    }
}

impl Method {
    fn kind(&self) -> &'static str {
        match self {
            Self::File(_) => "file",
            Self::Jwt(_) => "jwt",
            Self::Http(_) => "http",
        }
    }
}

fn load_passwords(
    index: usize,
    path: &Path,
    older: &[Authenticator],
) -> Result<Passwords, AccessError> {
    let mut passwords = Passwords::load(path).map_err(|source| AccessError::Passwords {
        index,
        path: path.to_owned(),
        source,
    })?;
    warn_if_readable(path);
    warn_if_writable(path);
    for known in older.iter().filter_map(Authenticator::passwords) {
        passwords.keep_from(known);
    }
    Ok(passwords)
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
    let hash: &Arc<Hash> = known.unwrap_or(passwords.nobody());
    match (hashing.verify(hash, password).await, known) {
        (Err(_broken), _) => Answer::Deny(Denial::Unavailable),
        (Ok(_), None) => Answer::Ignore,
        (Ok(false), Some(_)) => Answer::Deny(Denial::WrongPassword),
        (Ok(true), Some(hash)) => {
            let proof = Proof::Password(Arc::clone(hash.text()));
            Answer::Allow(Identity::of(Some(user), proof))
        }
    }
}

/// Hashes can be tried out by whoever has them.
fn warn_if_readable(path: &Path) {
    if has_mode(path, 0o004) {
        warn!(path = %path.display(), "every user of this host can read the password file");
    }
}

/// Who can write such a file decides who is let in, or may do what.
pub(super) fn warn_if_writable(path: &Path) {
    if has_mode(path, 0o022) {
        warn!(path = %path.display(), "users other than its owner can write the file");
    }
}

fn has_mode(path: &Path, bits: u32) -> bool {
    fs::metadata(path).is_ok_and(|file| file.mode() & bits != 0)
}
