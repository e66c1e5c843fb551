//! The keys of a `[[notify]]`.

use std::time::Duration;

use hyper::Uri;
use hyper::header::{AUTHORIZATION, COOKIE, HeaderName, HeaderValue, PROXY_AUTHORIZATION};
use lettre::message::Mailbox;
use toml::de::DeValue;

use crate::config::authorities::authorities;
use crate::config::error::Problem;
use crate::config::model::{Authorities, HookUrl, MailTls};
use crate::config::reader::{Located, Place, Table, invalid};
use crate::config::value::{Meaning, boolean, duration, name, number, port, text, text_that, word};
use crate::core::event::{Kind, Severity};

/// Who waits longer has been told by others.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(600);

/// The `type` of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) enum NotifyType {
    Exec,
    Webhook,
    Email,
}

pub(in crate::config) struct Notify {
    pub(in crate::config) place: Place,
    pub(in crate::config) name: Option<Located<String>>,
    pub(in crate::config) kind: Option<Located<NotifyType>>,
    pub(in crate::config) events: Vec<Located<Kind>>,
    pub(in crate::config) severity: Option<Located<Severity>>,
    pub(in crate::config) service: Option<Located<String>>,
    pub(in crate::config) per_minute: Option<Located<u32>>,
    pub(in crate::config) at_once: Option<Located<u32>>,
    pub(in crate::config) timeout: Option<Located<Duration>>,
    pub(in crate::config) retries: Option<Located<u32>>,
    pub(in crate::config) command: Vec<Located<String>>,
    pub(in crate::config) keepalived_arguments: Option<Located<bool>>,
    pub(in crate::config) url: Option<Located<Uri>>,
    pub(in crate::config) url_file: Option<Located<String>>,
    pub(in crate::config) headers: Vec<Located<(HeaderName, HeaderValue)>>,
    pub(in crate::config) token_file: Option<Located<String>>,
    pub(in crate::config) allow_plain_token: Option<Located<bool>>,
    pub(in crate::config) ca_file: Option<Located<Authorities>>,
    pub(in crate::config) server: Option<Located<String>>,
    pub(in crate::config) port: Option<Located<u16>>,
    pub(in crate::config) tls: Option<Located<MailTls>>,
    pub(in crate::config) from: Option<Located<String>>,
    pub(in crate::config) to: Vec<Located<String>>,
    pub(in crate::config) username: Option<Located<String>>,
    pub(in crate::config) password_file: Option<Located<String>>,
}

impl Notify {
    pub(in crate::config) fn read(table: &mut Table<'_>) -> Self {
        let types = [
            ("exec", NotifyType::Exec),
            ("webhook", NotifyType::Webhook),
            ("email", NotifyType::Email),
        ];
        let ways = [
            ("none", MailTls::None),
            ("starttls", MailTls::StartTls),
            ("always", MailTls::Always),
        ];
        Self {
            place: table.place(),
            name: table.required("name", "name = \"ops\"", name),
            kind: table.required(
                "type",
                "type = \"exec\", \"webhook\" or \"email\"",
                word(&types),
            ),
            events: table.list("events", kind),
            severity: table.optional("severity", severity),
            service: table.optional("service", name),
            per_minute: table.optional("per_minute", number(1..=10_000)),
            at_once: table.optional("at_once", number(1..=64)),
            timeout: table.optional("timeout", duration(LONGEST_TIMEOUT)),
            retries: table.optional("retries", number(0..=20)),
            command: table.list("command", text),
            keepalived_arguments: table.optional("keepalived_arguments", boolean),
            url: table.optional("url", url),
            url_file: table.optional("url_file", text),
            headers: table.list("headers", header),
            token_file: table.optional("token_file", text),
            allow_plain_token: table.optional("allow_plain_token", boolean),
            ca_file: table.optional("ca_file", authorities),
            server: table.optional("server", server),
            port: table.optional("port", port),
            tls: table.optional("tls", word(&ways)),
            from: table.optional("from", mailbox),
            to: table.list("to", mailbox),
            username: table.optional("username", text),
            password_file: table.optional("password_file", text),
        }
    }
}

fn kind(value: &DeValue<'_>) -> Meaning<Kind> {
    let found = value.as_str().and_then(Kind::named);
    found.filter(|kind| kind.is_notified()).ok_or_else(|| {
        let known = Kind::ALL.iter().filter(|kind| kind.is_notified());
        let known: Vec<_> = known.map(|kind| kind.label()).collect();
        invalid(format!("a kind of event: {}", known.join(", ")), value)
    })
}

fn severity(value: &DeValue<'_>) -> Meaning<Severity> {
    let words = Severity::ALL.iter();
    let words: Vec<_> = words.map(|it| (it.label(), *it)).collect();
    word(&words)(value)
}

fn url(value: &DeValue<'_>) -> Meaning<Uri> {
    let expected = "a URL of http or https without a password, such as \"https://192.0.2.7/hook\"";
    let parsed = value.as_str().and_then(|text| text.parse::<Uri>().ok());
    let right = parsed.filter(HookUrl::is_right);
    right.ok_or_else(|| unshown(expected))
}

/// What is wrong may have a password in it.
fn unshown(expected: &str) -> Problem {
    Problem::Invalid {
        expected: expected.to_owned(),
        found: "the value".to_owned(),
    }
}

/// None that is there for a secret: this belongs into a file.
fn header(value: &DeValue<'_>) -> Meaning<(HeaderName, HeaderValue)> {
    let split = value.as_str().and_then(|text| text.split_once(':'));
    let parsed = split
        .and_then(|(name, value)| Some((name.trim().parse().ok()?, value.trim().parse().ok()?)));
    let secret = [AUTHORIZATION, PROXY_AUTHORIZATION, COOKIE];
    let public = parsed.filter(|(name, _)| !secret.contains(name));
    let expected = "a header without a secret, which `token_file` is for, such as \"X-Team: mqtt\"";
    public.ok_or_else(|| unshown(expected))
}

fn server(value: &DeValue<'_>) -> Meaning<String> {
    let is_right = |text: &str| {
        let is_part = |c: char| c.is_ascii_alphanumeric() || ".-:".contains(c);
        !text.is_empty() && text.chars().all(is_part)
    };
    text_that("the name or address of a server", is_right)(value)
}

fn mailbox(value: &DeValue<'_>) -> Meaning<String> {
    let is_right = |text: &str| text.parse::<Mailbox>().is_ok();
    text_that("a mail address, such as \"ops@example.org\"", is_right)(value)
}
