//! Signed tokens (RFC 7519) in place of passwords.
//!
//! A token that this authenticator's keys have signed is its own, and is judged here; any other
//! password is not, and the next authenticator is asked. Which algorithms count is the
//! configuration's to say. Checking a signature takes less than a millisecond, so it is done where
//! clients are accepted, away from messages. Anybody can send tokens, so what is done before one is
//! found to be signed is little and bounded (`token`).

mod keys;
mod provider;
mod remote;
mod token;

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use jsonwebtoken::{
    Validation, decode,
    errors::{Error as DecodeError, ErrorKind},
};
use serde_json::{Map, Value};
use thiserror::Error;
use tokio::sync::watch;

use super::{
    Login,
    acl::Grants,
    authenticator::{Answer, Denial, warn_if_writable},
    health::Health,
    identity::{Identity, Proof, is_name},
    web::WebError,
};
use crate::{
    config::{self, KeySource, TokenField},
    secret::{self, Secret, SecretError},
};
pub(super) use keys::KeyId;
pub use keys::KeysError;
use keys::{Key, Keys};
use remote::Remote;
use token::Token;

type Claims = Map<String, Value>;

/// What a token that one of the keys has signed says, and which key, or what is wrong with it.
type Checked = Result<(Claims, KeyId), Flaw>;

/// Why tokens cannot be checked as the configuration says.
#[derive(Debug, Error)]
pub enum JwtError {
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error(transparent)]
    Web(#[from] WebError),
    #[error("cannot read {path}", path = path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot use {path}", path = path.display())]
    Keys {
        path: PathBuf,
        #[source]
        source: KeysError,
    },
}

/// What is wrong with a token that was signed as it should be. Says nothing of what is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    Expired,
    NotYet,
    Issuer,
    Audience,
    Missing,
    User,
    Grants,
    Other,
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Expired => "the token has expired",
            Self::NotYet => "the token is not good yet",
            Self::Issuer => "the token is of another issuer",
            Self::Audience => "the token is for another audience",
            Self::Missing => "the token lacks exp, or a claim that the configuration asks for",
            Self::User => "the token names no user",
            Self::Grants => "the list of topics in the token cannot be used",
            Self::Other => "the token has a claim that cannot be used",
        })
    }
}

/// Lets in who has a token.
pub(super) struct Tokens {
    settings: Arc<config::Jwt>,
    keys: Source,
    rules: Validation,
}

enum Source {
    Fixed(Arc<Keys>),
    Remote(Remote),
}

impl Source {
    /// `None` when there are none yet.
    fn keys(&self) -> Option<Arc<Keys>> {
        match self {
            Self::Fixed(keys) => Some(Arc::clone(keys)),
            Self::Remote(remote) => remote.keys(),
        }
    }
}

impl Tokens {
    /// Keys that an older one has fetched by the same settings are kept.
    pub(super) fn load<'a>(
        settings: &config::Jwt,
        mut older: impl Iterator<Item = &'a Self>,
    ) -> Result<Self, JwtError> {
        provider::install();
        let algorithms = &settings.algorithms;
        let keys = match &settings.keys {
            KeySource::Remote { server, refresh } => {
                let older = older.find(|older| *older.settings == *settings);
                let known = older.and_then(|older| older.keys.keys());
                Source::Remote(Remote::new(server, *refresh, algorithms, known)?)
            }
            source @ (KeySource::Secret(_) | KeySource::Public(_) | KeySource::Set(_)) => {
                Source::Fixed(Arc::new(load_keys(source, algorithms)?))
            }
        };
        Ok(Self {
            settings: Arc::new(settings.clone()),
            keys,
            rules: rules(settings),
        })
    }

    /// Whether a client that a token has let in would be by the same token.
    pub(super) fn vouches(&self, settings: &config::Jwt, key: &KeyId) -> bool {
        *self.settings == *settings && self.keys.keys().is_some_and(|keys| keys.has(key))
    }

    /// Begins to fetch keys, where a server has them; `withdrawn` hears when one of them is gone. Has
    /// to be called within the runtime.
    pub(super) fn follow(&self, withdrawn: &watch::Sender<()>) {
        match &self.keys {
            Source::Fixed(_) => {}
            Source::Remote(remote) => remote.follow(withdrawn),
        }
    }

    /// How many there are to check tokens by.
    pub(super) fn count_keys(&self) -> usize {
        self.keys.keys().map_or(0, |keys| keys.count())
    }

    pub(super) fn health(&self) -> Option<&Health> {
        match &self.keys {
            Source::Fixed(_) => None,
            Source::Remote(remote) => Some(remote.health()),
        }
    }

    pub(super) async fn judge(&self, login: &Login<'_>) -> Answer {
        let field = match self.settings.field {
            TokenField::Username => login.username.map(str::as_bytes),
            TokenField::Password => login.password.map(Secret::expose),
        };
        let Some(token) = field.and_then(Token::read) else {
            return Answer::Ignore;
        };
        let mut keys = self.keys.keys();
        let mut checked = keys.as_deref().and_then(|keys| self.check(&token, keys));
        if let (Source::Remote(remote), None) = (&self.keys, &checked) {
            remote.renew().await;
            let renewed = remote.keys();
            // The same ones would say the same.
            let is_same = match (&keys, &renewed) {
                (Some(keys), Some(renewed)) => Arc::ptr_eq(keys, renewed),
                (None, None) => true,
                (Some(_), None) | (None, Some(_)) => false,
            };
            if !is_same {
                checked = renewed.as_deref().and_then(|keys| self.check(&token, keys));
            }
            keys = renewed;
        }
        match checked {
            Some(Ok((claims, key))) => self.admit(&claims, key, login),
            Some(Err(flaw)) => Answer::Deny(Denial::Token(flaw)),
            // Without any keys there is nothing to say.
            None if keys.is_none() => Answer::Deny(Denial::Unavailable),
            None => Answer::Ignore,
        }
    }

    /// Tries the keys that may have signed a token: what it says, `None` if none of them has.
    fn check(&self, token: &Token<'_>, keys: &Keys) -> Option<Checked> {
        let mut fitting = keys.for_token(token.header());
        let key = fitting.find(|key| token.is_signed_by(key))?;
        Some(self.read(token, key))
    }

    /// Reads what a token says that this key has signed.
    fn read(&self, token: &Token<'_>, key: &Key) -> Checked {
        let rules = Validation {
            algorithms: key.algorithms.clone(),
            ..self.rules.clone()
        };
        let data = decode::<Claims>(token.text(), &key.key, &rules);
        let claims = data.map_err(|error| flaw(&error))?.claims;
        // The library takes a list of issuers, which there is not (RFC 7519, 4.1.1).
        if self.settings.issuer.is_some() && !claims.get("iss").is_some_and(Value::is_string) {
            return Err(Flaw::Issuer);
        }
        // And it takes one that is for nobody that it can read.
        let is_for_all = claims.get("aud").is_none_or(Value::is_null);
        if self.settings.audience.is_none() && !is_for_all {
            return Err(Flaw::Audience);
        }
        Ok((claims, key.id))
    }

    fn admit(&self, claims: &Claims, key: KeyId, login: &Login<'_>) -> Answer {
        let deny = |flaw| Answer::Deny(Denial::Token(flaw));
        let user = claims.get(&self.settings.user_claim);
        let user = user.and_then(Value::as_str).filter(|user| is_name(user));
        let Some(user) = user else {
            return deny(Flaw::User);
        };
        if self.settings.same_user_name && login.username != Some(user) {
            return Answer::Deny(Denial::OtherName);
        }
        let grants = self.settings.acl_claim.as_ref();
        let grants = grants.and_then(|claim| claims.get(claim)).map(Grants::read);
        let grants = match grants.transpose() {
            Ok(grants) => grants.map(Arc::new),
            Err(_problem) => return deny(Flaw::Grants),
        };
        let until = self
            .settings
            .disconnect_expired
            .then(|| self.end_of(claims));
        Answer::Allow(Identity {
            user: Some(user.into()),
            proof: Proof::Token {
                settings: Arc::clone(&self.settings),
                key,
            },
            until: until.flatten(),
            grants,
        })
    }

    /// When a token expires, by this host's clock as it is; `None` for a time beyond all others.
    fn end_of(&self, claims: &Claims) -> Option<Instant> {
        let seconds = claims.get("exp")?.as_f64()?;
        let end = Duration::try_from_secs_f64(seconds).ok()?;
        let end = end.checked_add(self.settings.leeway)?;
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let left = end.saturating_sub(since_epoch.unwrap_or_default());
        Instant::now().checked_add(left)
    }
}

/// What a token must be like, whatever its algorithm.
fn rules(settings: &config::Jwt) -> Validation {
    let mut rules = Validation::default();
    let mut needed = vec!["exp"];
    if let Some(issuer) = &settings.issuer {
        rules.set_issuer(&[issuer]);
        needed.push("iss");
    }
    // A token that is for somebody in particular is not for a broker that has no such name.
    if let Some(audience) = &settings.audience {
        rules.set_audience(&[audience]);
        needed.push("aud");
    }
    rules.set_required_spec_claims(&needed);
    rules.leeway = settings.leeway.as_secs();
    rules.validate_nbf = true;
    rules
}

/// What is wrong with a token that is signed.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the library's errors; all others are of claims that cannot be read"
)]
fn flaw(error: &DecodeError) -> Flaw {
    match error.kind() {
        ErrorKind::ExpiredSignature => Flaw::Expired,
        ErrorKind::ImmatureSignature => Flaw::NotYet,
        ErrorKind::InvalidIssuer => Flaw::Issuer,
        ErrorKind::InvalidAudience => Flaw::Audience,
        ErrorKind::MissingRequiredClaim(_) => Flaw::Missing,
        _ => Flaw::Other,
    }
}

fn load_keys(source: &KeySource, algorithms: &[jsonwebtoken::Algorithm]) -> Result<Keys, JwtError> {
    if let KeySource::Secret(path) | KeySource::Public(path) | KeySource::Set(path) = source {
        warn_if_writable(path);
    }
    let (path, keys) = match source {
        KeySource::Secret(path) => {
            let secret = secret::read(path)?;
            (path, Keys::of_secret(secret.expose(), algorithms))
        }
        KeySource::Public(path) => (path, Keys::of_pem(&read(path)?, algorithms)),
        KeySource::Set(path) => (path, Keys::of_set(&read(path)?, algorithms)),
        // None of its keys are here.
        KeySource::Remote { .. } => return Ok(Keys::default()),
    };
    keys.map_err(|source| JwtError::Keys {
        path: path.clone(),
        source,
    })
}

fn read(path: &Path) -> Result<Vec<u8>, JwtError> {
    fs::read(path).map_err(|source| JwtError::Read {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
pub(crate) mod tests;
