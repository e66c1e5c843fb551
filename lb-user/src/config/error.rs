//! What can be wrong with a configuration file, and how it is said.

use std::fmt;

/// Everything that is wrong with a file, in the order of its lines.
#[derive(Debug)]
pub struct ConfigErrors {
    file: String,
    errors: Vec<ConfigError>,
}

impl ConfigErrors {
    pub(super) fn new(file: &str, mut errors: Vec<ConfigError>) -> Self {
        errors.sort_by_key(ConfigError::line);
        Self {
            file: file.to_owned(),
            errors,
        }
    }

    pub(super) fn unreadable(file: &str, cause: std::io::Error) -> Self {
        let error = ConfigError {
            path: String::new(),
            line: None,
            problem: Problem::Unreadable(cause),
        };
        Self::new(file, vec![error])
    }

    /// The name of the file.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.file
    }
}

impl std::ops::Deref for ConfigErrors {
    type Target = [ConfigError];

    fn deref(&self) -> &[ConfigError] {
        &self.errors
    }
}

/// One line for each error, the way compilers do.
impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, error) in self.errors.iter().enumerate() {
            let newline = if at == 0 { "" } else { "\n" };
            write!(f, "{newline}{}:", self.file)?;
            if let Some(line) = error.line {
                write!(f, "{line}:")?;
            }
            if !error.path.is_empty() {
                write!(f, " {}:", error.path)?;
            }
            write!(f, " {}", error.problem)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// One thing that is wrong.
#[derive(Debug)]
pub struct ConfigError {
    pub(super) path: String,
    pub(super) line: Option<usize>,
    pub(super) problem: Problem,
}

impl ConfigError {
    /// The key it is about, such as `service[0].port`; empty if it is about no key.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The line, from 1, unless it is about the whole file.
    #[must_use]
    pub const fn line(&self) -> Option<usize> {
        self.line
    }

    /// What is wrong.
    #[must_use]
    pub const fn problem(&self) -> &Problem {
        &self.problem
    }
}

/// What is wrong, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    #[error("cannot be read: {0}")]
    Unreadable(#[source] std::io::Error),
    #[error("not TOML: {0}")]
    Syntax(String),
    #[error("unknown key; {hint}")]
    UnknownKey { hint: String },
    #[error("missing; add {example}")]
    Missing { example: &'static str },
    #[error("{found} is not {expected}")]
    Invalid { expected: String, found: String },
    #[error("`{found}` is not a name; use up to 64 letters, digits, `-`, `_` and `.`")]
    Name { found: String },
    #[error("{found} is {kind} and cannot stand here; give a unicast address of a host")]
    Address { found: String, kind: &'static str },
    #[error("also given at line {line}; {remedy}")]
    Duplicate { line: usize, remedy: &'static str },
    #[error("{address} is not declared; add a [[vip]] with this address")]
    UndeclaredVip { address: String },
    #[error(
        "{address} and the VIP {vip} must both be IPv4 or both be IPv6, but with `forward = \"tunnel\"`"
    )]
    Family { address: String, vip: String },
    #[error("{address} is a VIP; packets sent there would come back; give the host's own address")]
    IsVip { address: String },
    #[error(
        "nobody counts flows that are not recorded: set `balance = \"round_robin\"` or \"least_conn\", or \
         `forward = \"nat\"`, or remove it"
    )]
    NotCounted,
    #[error("{forward} cannot change ports: make it {port}, or set `forward = \"nat\"`")]
    FixedPort { forward: &'static str, port: u16 },
    #[error("only for services with {needed}; remove it, or change the service")]
    NotForService { needed: &'static str },
    #[error("more than {limit} bits behind the prefix; make it longer")]
    WidePrefix { limit: u8 },
    #[error("bits behind the prefix are set; they vary by flow, so write them as 0")]
    BitsBehindPrefix,
    #[error("it holds the VIP {vip}; backends take no packets from a VIP")]
    HoldsVip { vip: String },
    #[error("{0}")]
    Prefix(String),
    #[error("{0}")]
    List(String),
    #[error("{file} cannot be read: {cause}")]
    FileUnreadable {
        file: String,
        #[source]
        cause: std::io::Error,
    },
    #[error("there is no such rate; add {rate}, or remove it")]
    BurstWithoutRate { rate: &'static str },
    #[error("{prefix} is denied here and allowed at {origin}; remove one")]
    AllowedAndDenied { prefix: String, origin: String },
    #[error("no backends; add a [[service.backend]] with `name` and `address`")]
    NoBackends,
    #[error("{count} backends are too many for one service; at most {limit} fit in a table")]
    TooManyBackends { count: usize, limit: u32 },
    #[error("{needed} are configured; raise it to that at least")]
    Limit { needed: usize },
    #[error("shorter than `keep_alive`; make it {least} at least")]
    MostBelowKeepAlive { least: String },
    #[error("longer than the interval; make it {interval} at most")]
    TimeoutTooLong { interval: String },
    #[error("only for checks of type {needed}; remove it, or change `type`")]
    NotForType { needed: &'static str },
    #[error(
        "checks speak TCP, the service is UDP; add the `port` of a TCP listener, or set `type = \"none\"`"
    )]
    UdpCheck,
    #[error("MQTT 3.1.1 allows no password without a user name; add `username`")]
    PasswordWithoutUser,
    #[error(
        "{0} is not a loopback address; metrics have no access control, so use 127.0.0.1 or [::1]"
    )]
    NotLoopback(String),
    #[error("the range is empty; give the lower port first")]
    EmptyPortRange,
    #[error("more than {limit} addresses of one family; remove some")]
    TooManySources { limit: usize },
    #[error("only with {needed}; remove it, or change that")]
    NotForRouter { needed: &'static str },
    #[error("{address} is not of the family of the virtual router's VIPs")]
    OtherFamily { address: String },
    #[error("the VIPs of a virtual router are of one family; make another [[vrrp]] of this one")]
    TwoFamilies,
    #[error(
        "the first must be link-local (RFC 9568, 5.2.9); add a [[vip]] such as {example}/64, and \
         put it before this one"
    )]
    NotLinkLocal { example: String },
    #[error("the address of another host, of the family of `listen`, has to be here")]
    NoPeer,
    #[error("only for notifications of type {needed}; remove it, or change `type`")]
    NotForNotifyType { needed: &'static str },
    #[error("give either `url` or `url_file`")]
    TwoUrls,
    #[error("{file} has no certificate authority: {reason}; give a PEM file")]
    NoAuthorities { file: String, reason: String },
    #[error("there is no [[service]] named {name}")]
    NoSuchService { name: String },
    #[error(
        "{kind} is about no service, so with `service` it would never be told; remove one, or make \
         another [[notify]]"
    )]
    AboutNoService { kind: &'static str },
    #[error("a login takes both `username` and `password_file`")]
    HalfALogin,
    #[error(
        "over http the token would travel in the clear; use an https URL, or say `allow_plain_token = \
         true` if nobody listens on the way"
    )]
    TokenInTheClear,
    #[error(
        "without TLS the password would travel in the clear; set `tls = \"starttls\"` or \"always\""
    )]
    PasswordInTheClear,
    #[error("`certificate` and `key` go together; add the other one")]
    HalfACertificate,
    #[error(
        "{address} is not a loopback address, and without TLS passwords would travel in the clear; add \
         `certificate` and `key`, or say `insecure = true` if nobody listens on the way"
    )]
    LoginsInTheClear { address: String },
    #[error("give one of `gateway`, `script` and `backends_up`")]
    NotOneTarget,
    #[error(
        "missing: if most backends are dead, all nodes find that, and one must keep the role; add, say, \
         `weight = -50`"
    )]
    ShareWithoutWeight,
    #[error(
        "{address} is link-local, which does not say on which link: name another address of it"
    )]
    LinkLocal { address: String },
    #[error("{address} is assigned by somebody else; remove `assign = false`, or this")]
    NotAssigned { address: String },
    #[error(
        "{address} comes and goes with the virtual router {router}, which has a `without_backends` of its \
         own; remove this, or take the VIP out of the router's `vips`"
    )]
    OfRouter { address: String, router: String },
}
