//! Why a request is refused, and how that is said.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use console::api::ApiError;

use crate::router::Shared;

/// Why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// Asked for by a name that is not known, or by none.
    Host,
    /// From another page.
    Origin,
    /// The body is too long.
    Body,
    /// It, or the answer, takes too long.
    Time,
    /// Nobody is logged in.
    Session,
    /// Nobody's token.
    Token,
    /// No proof that the page itself has sent it.
    Csrf,
    /// Not for viewers.
    Role,
    /// Too many live streams.
    Streams,
    /// Not to be had here.
    Route,
}

impl Reason {
    pub(crate) const ALL: [Self; 10] = [
        Self::Host,
        Self::Origin,
        Self::Body,
        Self::Time,
        Self::Session,
        Self::Token,
        Self::Csrf,
        Self::Role,
        Self::Streams,
        Self::Route,
    ];

    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Origin => "origin",
            Self::Body => "body",
            Self::Time => "time",
            Self::Session => "session",
            Self::Token => "token",
            Self::Csrf => "csrf",
            Self::Role => "role",
            Self::Streams => "streams",
            Self::Route => "route",
        }
    }

    const fn status(self) -> StatusCode {
        match self {
            Self::Host => StatusCode::MISDIRECTED_REQUEST,
            Self::Origin | Self::Csrf | Self::Role => StatusCode::FORBIDDEN,
            Self::Body => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Time => StatusCode::REQUEST_TIMEOUT,
            Self::Session | Self::Token => StatusCode::UNAUTHORIZED,
            Self::Streams => StatusCode::SERVICE_UNAVAILABLE,
            Self::Route => StatusCode::NOT_FOUND,
        }
    }

    /// What is wrong, and what to do about it.
    fn words(self, program: &str) -> (&'static str, String) {
        let fixed = |error, hint: &str| (error, hint.to_owned());
        match self {
            Self::Host => fixed(
                "the dashboard is not known by this name",
                "add the name to `dashboard.names`, or use an address of the host",
            ),
            Self::Origin => fixed(
                "the request comes from another page",
                "changes are made from the dashboard's own page; a proxy in front of it has to keep \
                 the Host header",
            ),
            Self::Body => fixed("the body is too long", "nothing that can be sent here is"),
            Self::Time => fixed("the request takes too long", "try again"),
            Self::Session => fixed(
                "nobody is logged in",
                "log in, or send a token (Authorization: Bearer ...)",
            ),
            Self::Token => (
                "nobody has this token",
                format!("`{program} account token NAME` makes one"),
            ),
            Self::Csrf => fixed(
                "the request does not prove that it comes from the page",
                "send the value `csrf` of GET /session in the header X-CSRF-Token",
            ),
            Self::Role => (
                "a viewer may change nothing",
                format!("only the role operator may: `{program} account add NAME --role operator`"),
            ),
            Self::Streams => fixed("there are too many live pages", "close some of them"),
            Self::Route => (
                "there is no such route",
                format!(
                    "what there is under /v1/ is read by GET; the rest is for `{program}` itself"
                ),
            ),
        }
    }
}

impl Shared {
    /// Counts a refusal, and says it.
    pub(crate) fn refuse(&self, reason: Reason) -> Response {
        self.counters.count_refused(reason);
        self.say(reason)
    }

    /// Says that nobody is logged in to somebody who only asks whether they are.
    pub(crate) fn say_who(&self) -> Response {
        self.say(Reason::Session)
    }

    fn say(&self, reason: Reason) -> Response {
        let (error, hint) = reason.words(self.daemon.program());
        let refusal = ApiError::new(reason.status(), error.to_owned(), &hint);
        let mut response = refusal.into_response();
        if reason.status() == StatusCode::UNAUTHORIZED {
            self.challenge(&mut response);
        }
        response
    }

    /// A status of 401 names a way to log in (RFC 9110, 11.6.1): the one that browsers do not ask for.
    pub(crate) fn challenge(&self, response: &mut Response) {
        let value = HeaderValue::from_static("Bearer realm=\"tidegate\"");
        response
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, value);
    }

    /// Nobody can log in yet: says who makes the first account.
    pub(crate) fn refuse_without_accounts(&self) -> Response {
        let program = self.daemon.program();
        let hint =
            format!("make the first one on the host: `{program} account add NAME --role operator`");
        let error = "there is no account yet".to_owned();
        let mut response = ApiError::new(StatusCode::UNAUTHORIZED, error, &hint).into_response();
        self.challenge(&mut response);
        response
    }
}
