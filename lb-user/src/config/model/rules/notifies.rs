//! The rules for those who are told of events.

use std::path::PathBuf;

use super::{check_unique, or};
use crate::config::error::Problem;
use crate::config::file::{self, NotifyType};
use crate::config::model::{Email, Exec, HookUrl, MailTls, Means, Notify, Webhook, defaults};
use crate::config::reader::{Errors, Located, Place};
use crate::core::event::ring::Filter;
use crate::core::event::{Kind, Severity};

pub(super) fn check(raw: &file::Config, errors: &Errors) {
    let names = raw.notifies.iter().filter_map(|it| it.name.as_ref());
    let names = names.map(|name| (&name.value, &name.place));
    check_unique(names, "choose another name", errors);
    for notify in &raw.notifies {
        let Some(kind) = notify.kind.as_ref().map(|kind| kind.value) else {
            continue;
        };
        check_missing(notify, kind, errors);
        check_types(notify, kind, errors);
        check_login(notify, errors);
        check_token(notify, errors);
        check_service(notify, raw, errors);
        if let (Some(_), Some(file)) = (&notify.url, &notify.url_file) {
            errors.add(&file.place, Problem::TwoUrls);
        }
    }
}

fn check_missing(notify: &file::Notify, kind: NotifyType, errors: &Errors) {
    let needs: &[(&str, bool, &'static str)] = match kind {
        NotifyType::Exec => &[(
            "command",
            !notify.command.is_empty(),
            "command = [\"/usr/local/bin/on-event\"]",
        )],
        NotifyType::Webhook => &[(
            "url",
            notify.url.is_some() || notify.url_file.is_some(),
            "url = \"https://192.0.2.7/hook\"",
        )],
        NotifyType::Email => &[
            (
                "server",
                notify.server.is_some(),
                "server = \"mail.example.org\"",
            ),
            (
                "from",
                notify.from.is_some(),
                "from = \"tidegate@example.org\"",
            ),
            ("to", !notify.to.is_empty(), "to = [\"ops@example.org\"]"),
        ],
    };
    for (key, is_there, example) in needs {
        if !is_there {
            let place = Place {
                path: format!("{}.{key}", notify.place.path),
                line: notify.place.line,
            };
            errors.add(&place, Problem::Missing { example });
        }
    }
}

/// Keys that mean something for one type alone.
fn check_types(notify: &file::Notify, kind: NotifyType, errors: &Errors) {
    fn place<T>(given: Option<&Located<T>>) -> Option<&Place> {
        given.map(|given| &given.place)
    }
    let (exec, hook, mail) = (NotifyType::Exec, NotifyType::Webhook, NotifyType::Email);
    let keys = [
        (place(notify.command.first()), &[exec][..], "exec"),
        (place(notify.keepalived_arguments.as_ref()), &[exec], "exec"),
        (place(notify.url.as_ref()), &[hook], "webhook"),
        (place(notify.url_file.as_ref()), &[hook], "webhook"),
        (place(notify.headers.first()), &[hook], "webhook"),
        (place(notify.token_file.as_ref()), &[hook], "webhook"),
        (place(notify.allow_plain_token.as_ref()), &[hook], "webhook"),
        (
            place(notify.ca_file.as_ref()),
            &[hook, mail],
            "webhook or email",
        ),
        (
            place(notify.retries.as_ref()),
            &[hook, mail],
            "webhook or email",
        ),
        (place(notify.server.as_ref()), &[mail], "email"),
        (place(notify.port.as_ref()), &[mail], "email"),
        (place(notify.tls.as_ref()), &[mail], "email"),
        (place(notify.from.as_ref()), &[mail], "email"),
        (place(notify.to.first()), &[mail], "email"),
        (place(notify.username.as_ref()), &[mail], "email"),
        (place(notify.password_file.as_ref()), &[mail], "email"),
    ];
    for (place, types, needed) in keys {
        if let Some(place) = place
            && !types.contains(&kind)
        {
            errors.add(place, Problem::NotForNotifyType { needed });
        }
    }
}

fn check_login(notify: &file::Notify, errors: &Errors) {
    let place = match (&notify.username, &notify.password_file) {
        (Some(username), None) => &username.place,
        (None, Some(file)) => &file.place,
        (Some(_), Some(file)) => {
            let plain = notify.tls.as_ref().map(|tls| tls.value) == Some(MailTls::None);
            if plain {
                errors.add(&file.place, Problem::PasswordInTheClear);
            }
            return;
        }
        (None, None) => return,
    };
    errors.add(place, Problem::HalfALogin);
}

/// A URL that is in a file is looked at when it is read.
fn check_token(notify: &file::Notify, errors: &Errors) {
    let allowed = notify.allow_plain_token.as_ref();
    let is_allowed = allowed.is_some_and(|given| given.value);
    if let (Some(url), Some(token)) = (&notify.url, &notify.token_file)
        && HookUrl::is_plain(&url.value)
        && !is_allowed
    {
        errors.add(&token.place, Problem::TokenInTheClear);
    }
}

/// What nobody would ever be told is not to be asked for.
fn check_service(notify: &file::Notify, raw: &file::Config, errors: &Errors) {
    let Some(service) = &notify.service else {
        return;
    };
    let names = raw.services.iter().filter_map(|it| it.name.as_ref());
    if names.clone().all(|name| name.value != service.value) {
        let name = service.value.clone();
        errors.add(&service.place, Problem::NoSuchService { name });
    }
    let elsewhere = notify.events.iter();
    for kind in elsewhere.filter(|kind| !kind.value.is_about_a_service()) {
        let label = kind.value.label();
        errors.add(&kind.place, Problem::AboutNoService { kind: label });
    }
    let arguments = notify.keepalived_arguments.as_ref();
    if let Some(given) = arguments.filter(|given| given.value) {
        let kind = Kind::RoleChanged.label();
        errors.add(&given.place, Problem::AboutNoService { kind });
    }
}

pub(super) fn build(raw: file::Notify) -> Option<Notify> {
    let path = |given: Option<Located<String>>| given.map(|given| PathBuf::from(given.value));
    let is_for_roles = raw
        .keepalived_arguments
        .as_ref()
        .is_some_and(|given| given.value);
    let mut kinds: Vec<Kind> = raw.events.into_iter().map(|kind| kind.value).collect();
    if kinds.is_empty() && is_for_roles {
        kinds.push(Kind::RoleChanged);
    }
    // Who names kinds wants them, whatever they are.
    let least = match (raw.severity, kinds.is_empty()) {
        (Some(given), _) => Some(given.value),
        (None, true) => Some(Severity::Notice),
        (None, false) => None,
    };
    let means = match raw.kind?.value {
        NotifyType::Exec => Means::Exec(Exec {
            command: raw.command.into_iter().map(|word| word.value).collect(),
            keepalived_arguments: is_for_roles,
        }),
        NotifyType::Webhook => Means::Webhook(Webhook {
            url: match raw.url {
                Some(url) => HookUrl::Given(url.value),
                None => HookUrl::File(path(raw.url_file)?),
            },
            headers: raw.headers.into_iter().map(|it| it.value).collect(),
            token_file: path(raw.token_file),
            allow_plain_token: or(raw.allow_plain_token, false),
            authorities: raw.ca_file.map(|file| file.value),
        }),
        NotifyType::Email => {
            let tls = or(raw.tls, MailTls::StartTls);
            let port = match tls {
                MailTls::None => defaults::SMTP_PORT,
                MailTls::StartTls => defaults::SUBMISSION_PORT,
                MailTls::Always => defaults::SUBMISSIONS_PORT,
            };
            Means::Email(Email {
                server: raw.server?.value,
                port: or(raw.port, port),
                tls,
                from: raw.from?.value,
                to: raw.to.into_iter().map(|to| to.value).collect(),
                username: raw.username.map(|it| it.value),
                password_file: path(raw.password_file),
                authorities: raw.ca_file.map(|file| file.value),
            })
        }
    };
    Some(Notify {
        name: raw.name?.value,
        filter: Filter {
            kinds,
            least,
            service: raw.service.map(|service| service.value),
        },
        per_minute: or(raw.per_minute, defaults::NOTIFY_PER_MINUTE),
        at_once: or(raw.at_once, defaults::NOTIFY_AT_ONCE) as usize,
        timeout: or(raw.timeout, defaults::NOTIFY_TIMEOUT),
        retries: or(raw.retries, defaults::NOTIFY_RETRIES),
        means,
    })
}
