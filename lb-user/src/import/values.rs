//! What both formats have in common: addresses, names, commands and times, as Tidegate takes them.

use std::net::IpAddr;
use std::time::Duration;

/// The longest name that a configuration takes.
const NAME: usize = 64;

/// Whether a configuration takes it for the address of a host.
pub(super) fn is_host(address: IpAddr) -> bool {
    let is_special = match address {
        IpAddr::V4(v4) => v4.is_broadcast(),
        IpAddr::V6(v6) => v6.to_ipv4_mapped().is_some(),
    };
    let is_many = address.is_unspecified() || address.is_multicast();
    !is_special && !is_many && !address.is_loopback()
}

/// The length of a prefix that is one address.
pub(super) const fn whole(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

/// An address of a host, with or without the length of a prefix.
pub(crate) fn host_prefix(text: &str) -> Option<(IpAddr, u8)> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length.parse::<u8>().ok()?)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let length = length.unwrap_or(whole(address));
    (is_host(address) && (1..=whole(address)).contains(&length)).then_some((address, length))
}

/// `text` with what no name may have replaced.
pub(super) fn name(text: &str) -> String {
    let right = |c: char| {
        if c.is_ascii_alphanumeric() || "-_.".contains(c) {
            c
        } else {
            '-'
        }
    };
    let name: String = text.chars().take(NAME).map(right).collect();
    if name.is_empty() {
        "unnamed".to_owned()
    } else {
        name
    }
}

/// `wanted`, or with a number behind it if that is taken.
pub(super) fn unique(wanted: &str, is_taken: impl Fn(&str) -> bool) -> String {
    let wanted = name(wanted);
    if !is_taken(&wanted) {
        return wanted;
    }
    let numbered = (2_u32..).map(|number| {
        let number = format!("-{number}");
        let start: String = wanted.chars().take(NAME - number.len()).collect();
        start + &number
    });
    let mut free = numbered.filter(|name| !is_taken(name));
    free.next().unwrap_or(wanted)
}

/// Whether a configuration takes it for the name of an interface.
pub(crate) fn is_interface(text: &str) -> bool {
    let is_right = |c: char| c != '/' && !c.is_whitespace() && !c.is_control();
    (1..16).contains(&text.len()) && text.chars().all(is_right)
}

/// Seconds, perhaps with a fraction.
pub(super) fn seconds(text: &str) -> Option<Duration> {
    const LONGEST: f64 = 86_400.0 * 365.0;
    let seconds: f64 = text.parse().ok()?;
    let is_right = (0.0..=LONGEST).contains(&seconds);
    is_right.then(|| Duration::from_millis((seconds * 1_000.0).round() as u64))
}

/// Words as a shell reads them back.
pub(super) fn shell(words: &[String]) -> String {
    let quoted: Vec<String> = words
        .iter()
        .map(|word| format!("'{}'", word.replace('\'', "'\\''")))
        .collect();
    quoted.join(" ")
}

/// A command in one text, as words; with a shell around it if only that understands it.
pub(super) fn command(text: &str) -> Vec<String> {
    if text.contains(|c: char| "|&;<>()$`\\\"'*?[]~#".contains(c)) {
        return vec!["/bin/sh".to_owned(), "-c".to_owned(), text.to_owned()];
    }
    text.split_whitespace().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::{command, host_prefix, name, seconds, shell, unique};

    #[test]
    fn names_are_such_as_a_configuration_takes() {
        assert_eq!(name("mqtt front/1"), "mqtt-front-1");
        assert_eq!(name(""), "unnamed");
        assert_eq!(name(&"a".repeat(100)).len(), 64);
        assert_eq!(unique("a", |name| name == "a"), "a-2");
        let long = "a".repeat(64);
        assert_eq!(unique(&long, |name| name == long).len(), 64);
    }

    #[test]
    fn addresses_that_no_host_has_are_none() {
        assert!(host_prefix("172.16.40.24/24").is_some());
        assert!(host_prefix("fd00::24").is_some_and(|(_, length)| length == 128));
        for text in [
            "0.0.0.0",
            "127.0.0.1",
            "::1",
            "224.0.0.18",
            "1.2.3.4/33",
            "1.2.3.4/0",
            "x",
        ] {
            assert!(host_prefix(text).is_none(), "{text}");
        }
    }

    #[test]
    fn commands_get_a_shell_only_where_they_need_one() {
        assert_eq!(command("/bin/check -a 1"), ["/bin/check", "-a", "1"]);
        assert_eq!(command("pidof a || exit 1")[..2], ["/bin/sh", "-c"]);
        let words = ["/bin/a".to_owned(), "it's".to_owned()];
        assert_eq!(shell(&words), "'/bin/a' 'it'\\''s'");
    }

    #[test]
    fn seconds_may_have_a_fraction_and_are_finite() {
        assert_eq!(seconds("0.25").map(|time| time.as_millis()), Some(250));
        for text in ["-1", "NaN", "inf", "1e300", "x"] {
            assert_eq!(seconds(text), None, "{text}");
        }
    }
}
