//! Who is told of events, as configured.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper::Uri;
use hyper::header::{HeaderName, HeaderValue};
use rustls::pki_types::CertificateDer;

use crate::core::event::ring::Filter;

/// One who is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notify {
    pub(super) name: String,
    pub(super) filter: Filter,
    pub(super) per_minute: u32,
    pub(super) at_once: usize,
    pub(super) timeout: Duration,
    pub(super) retries: u32,
    pub(super) means: Means,
}

/// How they are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Means {
    Exec(Exec),
    Webhook(Webhook),
    Email(Email),
}

/// A program to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exec {
    pub(super) command: Vec<String>,
    pub(super) keepalived_arguments: bool,
}

/// A URL to post to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    pub(super) url: HookUrl,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) token_file: Option<PathBuf>,
    pub(super) allow_plain_token: bool,
    pub(super) authorities: Option<Authorities>,
}

/// Where posts go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HookUrl {
    Given(Uri),
    /// The first line of a file, as whoever knows such a URL can often post to it.
    File(PathBuf),
}

/// Those who vouch for a server, in place of those that the host trusts. There is one at least.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authorities(Vec<CertificateDer<'static>>);

/// People to write to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Email {
    pub(super) server: String,
    pub(super) port: u16,
    pub(super) tls: MailTls,
    pub(super) from: String,
    pub(super) to: Vec<String>,
    pub(super) username: Option<String>,
    pub(super) password_file: Option<PathBuf>,
    pub(super) authorities: Option<Authorities>,
}

/// How a mail server is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MailTls {
    None,
    /// Plainly at first; without TLS after that, nothing is sent.
    StartTls,
    Always,
}

impl Notify {
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Which events.
    #[must_use]
    pub const fn filter(&self) -> &Filter {
        &self.filter
    }

    /// The most events in a minute; the rest is told in one sentence.
    #[must_use]
    pub const fn per_minute(&self) -> u32 {
        self.per_minute
    }

    /// How many may be on their way at a time.
    #[must_use]
    pub const fn at_once(&self) -> usize {
        self.at_once
    }

    /// How long one attempt may take.
    #[must_use]
    pub const fn timeout(&self) -> Duration {
        self.timeout
    }

    /// How often it is tried again.
    #[must_use]
    pub const fn retries(&self) -> u32 {
        self.retries
    }

    #[must_use]
    pub const fn means(&self) -> &Means {
        &self.means
    }
}

impl Means {
    /// The name in the file, status and metrics.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Exec(_) => "exec",
            Self::Webhook(_) => "webhook",
            Self::Email(_) => "email",
        }
    }
}

impl Exec {
    /// The program and its arguments.
    #[must_use]
    pub fn command(&self) -> &[String] {
        &self.command
    }

    /// Whether it gets those that keepalived gives to such programs.
    #[must_use]
    pub const fn keepalived_arguments(&self) -> bool {
        self.keepalived_arguments
    }
}

impl HookUrl {
    /// Whether it is of `http` or `https`, with a host, and without user name and password: these would
    /// be sent as a part of the host's name.
    #[must_use]
    pub fn is_right(url: &Uri) -> bool {
        let authority = url.authority().map(|authority| authority.as_str());
        matches!(url.scheme_str(), Some("http" | "https"))
            && authority.is_some_and(|authority| !authority.contains('@'))
    }

    /// Whether what is sent there can be read on the way. What goes to this host itself is on no wire;
    /// a name may turn out to be anybody's, so that only addresses count.
    #[must_use]
    pub fn is_plain(url: &Uri) -> bool {
        let host = url.host().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let address = host.parse::<IpAddr>();
        url.scheme_str() == Some("http") && !address.is_ok_and(|address| address.is_loopback())
    }
}

impl Authorities {
    pub(in crate::config) const fn new(certificates: Vec<CertificateDer<'static>>) -> Self {
        Self(certificates)
    }

    #[must_use]
    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.0
    }
}

impl Webhook {
    #[must_use]
    pub const fn url(&self) -> &HookUrl {
        &self.url
    }

    #[must_use]
    pub fn headers(&self) -> &[(HeaderName, HeaderValue)] {
        &self.headers
    }

    /// The file with a bearer token.
    #[must_use]
    pub fn token_file(&self) -> Option<&Path> {
        self.token_file.as_deref()
    }

    /// Whether the token may go where others can read it.
    #[must_use]
    pub const fn allows_plain_token(&self) -> bool {
        self.allow_plain_token
    }

    /// Who vouches for the server, if these are not the host's.
    #[must_use]
    pub const fn authorities(&self) -> Option<&Authorities> {
        self.authorities.as_ref()
    }
}

impl Email {
    #[must_use]
    pub fn server(&self) -> &str {
        &self.server
    }

    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    #[must_use]
    pub const fn tls(&self) -> MailTls {
        self.tls
    }

    #[must_use]
    pub fn from(&self) -> &str {
        &self.from
    }

    #[must_use]
    pub fn to(&self) -> &[String] {
        &self.to
    }

    /// User name, and the file with the password.
    #[must_use]
    pub fn login(&self) -> Option<(&str, &Path)> {
        Some((self.username.as_deref()?, self.password_file.as_deref()?))
    }

    /// As for a web hook.
    #[must_use]
    pub const fn authorities(&self) -> Option<&Authorities> {
        self.authorities.as_ref()
    }
}
