//! A server that knows who clients are: each login is a question to it.
//!
//! ```text
//! POST {"client_id": "c", "username": "u", "password": "p", "address": "192.0.2.1:50000",
//!       "listener": "0.0.0.0:1883", "certificate": {"common_name": "d1"}}
//! 200  {"result": "allow" | "deny" | "ignore", "user": "u", "acl": {"publish": [], "subscribe": []}}
//! ```
//!
//! Whatever else comes, or does not come in time, lets nobody in.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use thiserror::Error;

use super::{
    Login,
    acl::{Grants, GrantsError},
    authenticator::{Answer, Denial},
    health::Health,
    identity::{Identity, Proof, is_name},
    web::{AskError, Server, WebError},
};
use crate::{config, secret::Secret};

/// Asks a server.
pub(super) struct Oracle {
    settings: Arc<config::WebServer>,
    server: Server,
    pub(super) health: Health,
}

/// Why there is no answer that can be used. Nothing of it but a filter is quoted: it may repeat a
/// password.
#[derive(Debug, Error)]
enum NoAnswer {
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error("the answer is not {{\"result\": \"allow\" | \"deny\" | \"ignore\"}}")]
    Form,
    #[error("the user in the answer is empty, or more than a line")]
    User,
    #[error("acl in the answer: {0}")]
    Grants(GrantsError),
}

/// What the server is asked.
#[derive(Serialize)]
struct Question<'a> {
    client_id: &'a str,
    username: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    password: Option<&'a str>,
    /// Passwords are bytes; this is one that is no text.
    #[serde(skip_serializing_if = "Option::is_none")]
    password_base64: Option<String>,
    address: String,
    listener: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate: Option<Certificate<'a>>,
}

#[derive(Serialize)]
struct Certificate<'a> {
    common_name: Option<&'a str>,
}

/// What it says, but for what the client may do.
#[derive(Deserialize)]
struct Verdict {
    result: Outcome,
    user: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    Allow,
    Deny,
    Ignore,
}

impl<'a> Question<'a> {
    fn of(login: &Login<'a>) -> Self {
        let Login {
            client_id,
            username,
            password,
            peer,
        } = login;
        let bytes = password.map(Secret::expose);
        let text = bytes.map(str::from_utf8).transpose();
        let (password, password_base64) = match text {
            Ok(text) => (text, None),
            Err(_no_text) => (None, bytes.map(|bytes| STANDARD.encode(bytes))),
        };
        Self {
            client_id,
            username: *username,
            password,
            password_base64,
            address: peer.address.to_string(),
            listener: peer.listener.to_string(),
            certificate: peer.certificate.as_ref().map(|shown| Certificate {
                common_name: shown.common_name.as_deref(),
            }),
        }
    }
}

impl Oracle {
    pub(super) fn load(settings: &config::WebServer) -> Result<Self, WebError> {
        Ok(Self {
            settings: Arc::new(settings.clone()),
            server: Server::new(settings)?,
            health: Health::default(),
        })
    }

    /// Whether this is the server that has let a client in.
    pub(super) fn vouches(&self, settings: &config::WebServer) -> bool {
        *self.settings == *settings
    }

    pub(super) async fn judge(&self, login: &Login<'_>) -> Answer {
        // Neither names nor passwords can fail to be JSON.
        let question = || serde_json::to_vec(&Question::of(login)).unwrap_or_default();
        let answered = self.server.post(question).await;
        match answered
            .map_err(NoAnswer::from)
            .and_then(|body| self.read(&body, login))
        {
            Ok(answer) => {
                self.health.note_good();
                answer
            }
            Err(problem) => {
                // That too many ask is no fault of the server's.
                if let NoAnswer::Ask(AskError::Full) = problem {
                    self.health.note_crowd(&problem);
                } else {
                    self.health.note_bad(&problem);
                }
                Answer::Deny(Denial::Unavailable)
            }
        }
    }

    fn read(&self, body: &[u8], login: &Login<'_>) -> Result<Answer, NoAnswer> {
        let form = |_error| NoAnswer::Form;
        // An object: a list with a verdict in it would do for one too.
        let mut object: Map<String, Value> = serde_json::from_slice(body).map_err(form)?;
        // Nothing is no list: with none there the client may do all.
        let acl = object.remove("acl");
        let Verdict { result, user } = Verdict::deserialize(object).map_err(form)?;
        match result {
            Outcome::Ignore => return Ok(Answer::Ignore),
            Outcome::Deny => return Ok(Answer::Deny(Denial::Refused)),
            Outcome::Allow => {}
        }
        if user.as_deref().is_some_and(|user| !is_name(user)) {
            return Err(NoAnswer::User);
        }
        let user = user.as_deref().or(login.username);
        if user.is_some_and(|user| !is_name(user)) {
            return Ok(Answer::Deny(Denial::Unknown));
        }
        let grants = acl.as_ref().map(Grants::read).transpose();
        let grants = grants.map_err(NoAnswer::Grants)?;
        let proof = Proof::Answer(Arc::clone(&self.settings));
        let mut identity = Identity::of(user, proof);
        identity.grants = grants.map(Arc::new);
        Ok(Answer::Allow(identity))
    }
}
