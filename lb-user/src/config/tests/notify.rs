//! Who is told of events: what may be written, and what it means.

use std::time::Duration;

use super::{RIGHT, right, wrong as wrong_file};
use crate::config::model::{MailTls, Means, Notify};
use crate::core::event::{Kind, Severity};

fn file(keys: &str) -> String {
    format!("{RIGHT}\n[[notify]]\nname = \"ops\"\n{keys}")
}

fn one(keys: &str) -> Notify {
    right(&file(keys)).notifies()[0].clone()
}

fn wrong(keys: &str) -> String {
    wrong_file(&file(keys))
}

#[test]
fn what_is_left_out_is_what_most_people_want() {
    let notify = one("type = \"exec\"\ncommand = [\"/bin/true\", \"a b\"]");
    assert_eq!(notify.filter().least, Some(Severity::Notice));
    assert_eq!(notify.filter().kinds, []);
    assert_eq!((notify.per_minute(), notify.at_once()), (30, 4));
    assert_eq!(notify.timeout(), Duration::from_secs(30));
    let Means::Exec(exec) = notify.means() else {
        panic!("{notify:?}");
    };
    assert_eq!(exec.command(), ["/bin/true", "a b"]);
    let mail =
        "server = \"mail.example.org\"\nfrom = \"a@example.org\"\nto = [\"Ops <b@example.org>\"]";
    let ports = [("", 587), ("tls = \"none\"", 25), ("tls = \"always\"", 465)];
    for (tls, port) in ports {
        let notify = one(&format!("type = \"email\"\n{mail}\n{tls}"));
        let Means::Email(mail) = notify.means() else {
            panic!("{notify:?}");
        };
        assert_eq!((mail.port(), mail.login()), (port, None));
        assert_eq!(mail.tls() == MailTls::StartTls, tls.is_empty());
    }
}

#[test]
fn who_names_kinds_gets_them_whatever_they_are() {
    let exec = "type = \"exec\"\ncommand = [\"/bin/true\"]\n";
    let named = one(&format!("{exec}events = [\"vip_moved\"]"));
    assert_eq!(named.filter().kinds, [Kind::VipMoved]);
    assert_eq!(named.filter().least, None);
    let roles = one(&format!("{exec}keepalived_arguments = true"));
    assert_eq!(roles.filter().kinds, [Kind::RoleChanged]);
}

#[test]
fn what_is_missing_or_belongs_to_another_type_is_told() {
    let all = wrong("type = \"email\"\nurl = \"http://192.0.2.7/\"");
    for part in [
        "server: missing",
        "from: missing",
        "to: missing",
        "url: only for",
    ] {
        assert!(all.contains(part), "{part}: {all}");
    }
    let all = wrong("type = \"webhook\"\ncommand = [\"/bin/true\"]");
    assert!(all.contains("url: missing"), "{all}");
    assert!(all.contains("command[0]: only for"), "{all}");
    // Who would be told that he could not be told?
    let all = wrong("type = \"exec\"\ncommand = [\"/bin/true\"]\nevents = [\"notify_failed\"]");
    assert!(
        all.contains("is not a kind of event: role_changed"),
        "{all}"
    );
    let all = wrong("type = \"exec\"\ncommand = [\"/bin/true\"]\nevents = [\"nosuch\"]");
    assert!(all.contains("role_changed"), "{all}");
}

#[test]
fn passwords_stay_in_files_and_off_the_wire() {
    let all = wrong("type = \"webhook\"\nurl = \"https://user:secret@192.0.2.7/\"");
    assert!(all.contains("the value is not a URL"), "{all}");
    assert!(!all.contains("secret"), "{all}");
    let two = wrong("type = \"webhook\"\nurl = \"http://192.0.2.7/\"\nurl_file = \"/u\"");
    assert!(two.contains("either `url` or `url_file`"), "{two}");
    let hook = "type = \"webhook\"\nurl = \"https://192.0.2.7/\"\n";
    let all = wrong(&format!(
        "{hook}headers = [\"Authorization: Bearer xyzzy\"]"
    ));
    assert!(all.contains("which `token_file` is for"), "{all}");
    assert!(!all.contains("xyzzy"), "{all}");
    let mail =
        "type = \"email\"\nserver = \"m\"\nfrom = \"a@example.org\"\nto = [\"b@example.org\"]\n";
    let half = wrong(&format!("{mail}username = \"a\""));
    assert!(
        half.contains("both `username` and `password_file`"),
        "{half}"
    );
    let clear = wrong(&format!(
        "{mail}tls = \"none\"\nusername = \"a\"\npassword_file = \"/p\""
    ));
    assert!(clear.contains("in the clear"), "{clear}");
}

#[test]
fn a_token_goes_where_nobody_can_read_it_unless_that_is_allowed() {
    let hook = |url: &str, more: &str| {
        format!("type = \"webhook\"\nurl = \"{url}\"\ntoken_file = \"/t\"\n{more}")
    };
    let plain = [
        "http://192.0.2.7/hook",
        "http://[2001:db8::7]:8080/",
        // Whose address that is, others say.
        "http://localhost/",
        "http://127.0.0.1.example.org/",
    ];
    for url in plain {
        for more in ["", "allow_plain_token = false"] {
            let all = wrong(&hook(url, more));
            assert!(all.contains("notify[0].token_file: over http"), "{all}");
        }
        one(&hook(url, "allow_plain_token = true"));
    }
    for url in [
        "https://192.0.2.7/",
        "http://127.0.0.1:8080/",
        "http://[::1]/",
    ] {
        one(&hook(url, ""));
    }
    let all = wrong("type = \"exec\"\ncommand = [\"/bin/true\"]\nallow_plain_token = true");
    assert!(all.contains("allow_plain_token: only for"), "{all}");
}

#[test]
fn a_file_of_authorities_has_some() {
    let path = std::env::temp_dir().join(format!("tidegate-ca-{}.pem", std::process::id()));
    let hook = format!(
        "type = \"webhook\"\nurl = \"https://192.0.2.7/\"\nca_file = \"{}\"",
        path.display()
    );
    let all = wrong(&hook);
    assert!(all.contains("notify[0].ca_file: /"), "{all}");
    assert!(all.contains("cannot be read: No such file"), "{all}");
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::default().self_signed(&key);
    let right_text = certificate.unwrap().pem();
    let broken = right_text.replace("-----END", "AAAA\n-----END");
    for text in [
        "",
        &key.serialize_pem(),
        "-----BEGIN CERTIFICATE-----\n",
        &broken,
    ] {
        std::fs::write(&path, text).unwrap();
        let all = wrong(&hook);
        assert!(all.contains("notify[0].ca_file: /"), "{all}");
        assert!(all.contains("has no certificate authority: "), "{all}");
    }
    std::fs::write(&path, right_text.repeat(2)).unwrap();
    let notify = one(&hook);
    std::fs::remove_file(&path).unwrap();
    let Means::Webhook(webhook) = notify.means() else {
        panic!("{notify:?}");
    };
    assert_eq!(webhook.authorities().unwrap().certificates().len(), 2);
    let all = wrong("type = \"webhook\"\nurl = \"https://192.0.2.7/\"\nca_file = \"ca.pem\"");
    assert!(all.contains("the path of a file, from the root"), "{all}");
}

#[test]
fn who_asks_for_a_service_asks_for_nothing_else() {
    let exec = "type = \"exec\"\ncommand = [\"/bin/true\"]\nservice = ";
    let notify = one(&format!("{exec}\"mqtt\""));
    assert_eq!(notify.filter().service.as_deref(), Some("mqtt"));
    one(&format!("{exec}\"mqtt\"\nevents = [\"service_down\"]"));
    let all = wrong(&format!("{exec}\"mqt\""));
    assert!(
        all.contains("notify[0].service: there is no [[service]] named mqt"),
        "{all}"
    );
    let more = [
        "events = [\"service_down\", \"role_changed\"]",
        "keepalived_arguments = true",
    ];
    for keys in more {
        let all = wrong(&format!("{exec}\"mqtt\"\n{keys}"));
        assert!(all.contains("role_changed is about no service"), "{all}");
        assert_eq!(all.lines().count(), 1, "{all}");
    }
}
