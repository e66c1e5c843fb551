//! What the rules are made of: collecting problems, and reading single values.

use std::{net::IpAddr, ops::Range, str::FromStr, time::Duration};

use toml::Spanned;

use super::Problem;
use crate::duration;

/// Collects problems; each rule returns a usable value even when it is broken.
pub(super) struct Check<'a> {
    text: &'a str,
    pub(super) problems: Vec<Problem>,
}

impl<'a> Check<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self {
            text,
            problems: Vec::new(),
        }
    }

    pub(super) fn refuse(&mut self, key: &str, span: Range<usize>, message: impl Into<String>) {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        self.problems.push(Problem {
            key: key.to_owned(),
            line,
            message: message.into(),
        });
    }

    pub(super) fn parse<T: FromStr>(
        &mut self,
        key: &str,
        raw: &Spanned<String>,
        what: &str,
    ) -> Option<T> {
        let parsed = raw.get_ref().parse().ok();
        if parsed.is_none() {
            self.refuse(
                key,
                raw.span(),
                format!("{:?} is not {what}", raw.get_ref()),
            );
        }
        parsed
    }

    pub(super) fn number(
        &mut self,
        key: &str,
        raw: Option<Spanned<i64>>,
        default: i64,
        legal: Range<i64>,
    ) -> i64 {
        let Some(raw) = raw else { return default };
        if !legal.contains(raw.get_ref()) {
            let message = format!("must be {} to {}", legal.start, legal.end - 1);
            self.refuse(key, raw.span(), message);
        }
        raw.into_inner()
    }

    /// As [`Self::number`], for what memory has or connections count.
    pub(super) fn size(
        &mut self,
        key: &str,
        raw: Option<Spanned<i64>>,
        default: i64,
        legal: Range<i64>,
    ) -> usize {
        let value = self.number(key, raw, default, legal);
        usize::try_from(value).unwrap_or(usize::MAX)
    }

    /// As [`Self::number`], for what has 16 bits in MQTT.
    pub(super) fn short(
        &mut self,
        key: &str,
        raw: Option<Spanned<i64>>,
        default: i64,
        legal: Range<i64>,
    ) -> u16 {
        let value = self.number(key, raw, default, legal);
        u16::try_from(value).unwrap_or(u16::MAX)
    }

    pub(super) fn interface(&mut self, key: &str, name: Spanned<String>) -> String {
        // IFNAMSIZ is 16 with the terminating zero.
        if name.get_ref().is_empty() || name.get_ref().len() > 15 {
            self.refuse(key, name.span(), "1 to 15 characters");
        }
        name.into_inner()
    }

    pub(super) fn duration(
        &mut self,
        key: &str,
        raw: Option<Spanned<String>>,
        default: Duration,
    ) -> Duration {
        let Some(raw) = raw else { return default };
        duration::parse(raw.get_ref()).unwrap_or_else(|| {
            self.refuse(
                key,
                raw.span(),
                "not a duration such as \"500ms\", \"10s\", \"3h\", \"7d\"",
            );
            default
        })
    }
}

pub(super) fn parse_prefix(text: &str) -> Option<(IpAddr, u8)> {
    let (address, length) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let length: u8 = length.parse().ok()?;
    let longest = if address.is_ipv4() { 32 } else { 128 };
    (length <= longest).then_some((address, length))
}
