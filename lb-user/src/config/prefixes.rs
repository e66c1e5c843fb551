//! Prefixes of clients: in the configuration, and in files of their own, one a line.

use std::net::IpAddr;
use std::path::Path;

use toml::de::DeValue;

use super::error::Problem;
use super::model::Prefix;
use super::reader::invalid;
use super::value::Meaning;

/// Mistakes in one file that are told; operators fix the cause, not each line.
const TOLD: usize = 3;

/// A file of prefixes.
#[derive(Debug)]
pub(super) struct List {
    pub(super) path: String,
    /// With their lines, from 1.
    pub(super) prefixes: Vec<(usize, Prefix)>,
}

/// A prefix, or an address that stands for itself alone.
pub(super) fn prefix(value: &DeValue<'_>) -> Meaning<Prefix> {
    let Some(text) = value.as_str() else {
        return Err(invalid(EXPECTED, value));
    };
    parse(text).map_err(Problem::Prefix)
}

/// The content of the file that the value names.
pub(super) fn list(value: &DeValue<'_>) -> Meaning<List> {
    let path = value.as_str().filter(|path| Path::new(path).is_absolute());
    let Some(path) = path else {
        return Err(invalid("the path of a file, from the root", value));
    };
    let text = std::fs::read_to_string(path).map_err(|cause| Problem::FileUnreadable {
        file: path.to_owned(),
        cause,
    })?;
    read(path, &text)
}

/// Takes a file apart: one prefix a line, with `#` before comments.
fn read(path: &str, text: &str) -> Meaning<List> {
    let mut prefixes = Vec::new();
    let mut mistakes = Vec::new();
    for (line, content) in (1..).zip(text.lines()) {
        let content = content.split('#').next().unwrap_or_default().trim();
        if content.is_empty() {
            continue;
        }
        match parse(content) {
            Ok(prefix) => prefixes.push((line, prefix)),
            Err(mistake) => mistakes.push(format!("{path}:{line}: {mistake}")),
        }
    }
    if mistakes.is_empty() {
        let path = path.to_owned();
        return Ok(List { path, prefixes });
    }
    let more = mistakes.len().saturating_sub(TOLD);
    mistakes.truncate(TOLD);
    if more > 0 {
        mistakes.push(format!("{more} more"));
    }
    Err(Problem::List(mistakes.join("; ")))
}

const EXPECTED: &str = "a prefix, such as \"10.0.0.0/8\" or \"2001:db8::/32\"";

fn parse(text: &str) -> Result<Prefix, String> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    let wrong = || format!("\"{}\" is not {EXPECTED}", text.escape_debug());
    let address: IpAddr = address.parse().map_err(|_| wrong())?;
    if let IpAddr::V6(v6) = address
        && let Some(v4) = v6.to_ipv4_mapped()
    {
        return Err(format!("{text} is IPv4 in IPv6 form; write {v4}"));
    }
    let whole = if address.is_ipv4() { 32 } else { 128 };
    let length = match length {
        Some(length) => length.parse().map_err(|_| wrong())?,
        None => whole,
    };
    let around = Prefix::around(address, length).ok_or_else(wrong)?;
    Prefix::new(address, length)
        .ok_or_else(|| format!("{text} has bits set behind its prefix; write {around}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{parse, read};
    use crate::config::model::Prefix;

    #[test]
    fn a_file_has_a_prefix_a_line_and_comments() {
        let text = "# Ours.\n10.0.0.0/8\n\n  2001:db8::/32 # lab\n192.0.2.1\n";
        let list = read("/a", text).unwrap();
        let found: Vec<String> = list
            .prefixes
            .iter()
            .map(|(line, prefix)| format!("{line} {prefix}"))
            .collect();
        assert_eq!(found, ["2 10.0.0.0/8", "4 2001:db8::/32", "5 192.0.2.1/32"]);
    }

    #[test]
    fn a_wrong_file_is_told_by_line() {
        let text = "10.0.0.0/8\n10.0.0.1/8\nfoo\n1.2.3.4/33\n::ffff:1.2.3.4\n";
        let error = read("/a", text).unwrap_err().to_string();
        assert!(
            error.starts_with("/a:2: 10.0.0.1/8 has bits set behind its prefix; write 10.0.0.0/8;"),
            "{error}"
        );
        assert!(error.contains("/a:3: \"foo\" is not a prefix"), "{error}");
        assert!(error.ends_with("; 1 more"), "{error}");
    }

    #[test]
    fn nothing_is_a_prefix_of_everything() {
        for text in ["0.0.0.0/0", "::/0"] {
            assert_eq!(parse(text).unwrap().to_string(), text);
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_is_understood(address: std::net::IpAddr, length in 0_u8..=128) {
            if let Some(prefix) = Prefix::around(address, length) {
                prop_assert_eq!(parse(&prefix.to_string()), Ok(prefix));
            }
        }

        #[test]
        fn any_text_is_understood_or_refused(text in ".{0,60}") {
            let _ = read("/a", &text);
        }
    }
}
