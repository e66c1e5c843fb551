//! What single values of the file mean: durations, addresses, ports and words.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use toml::de::DeValue;

use super::error::Problem;
use super::reader::invalid;

/// The result of understanding a value.
pub(super) type Meaning<T> = Result<T, Problem>;

pub(super) fn boolean(value: &DeValue<'_>) -> Meaning<bool> {
    value
        .as_bool()
        .ok_or_else(|| invalid("true or false", value))
}

/// A string that is not empty.
pub(super) fn text(value: &DeValue<'_>) -> Meaning<String> {
    match value.as_str() {
        Some(text) if !text.is_empty() => Ok(text.to_owned()),
        Some(_) | None => Err(invalid("a string with something in it", value)),
    }
}

/// A string that passes `is_right`; `expected` describes those that do.
pub(super) fn text_that<'a>(
    expected: &'a str,
    is_right: impl Fn(&str) -> bool + 'a,
) -> impl Fn(&DeValue<'_>) -> Meaning<String> + 'a {
    move |value| match value.as_str() {
        Some(text) if is_right(text) => Ok(text.to_owned()),
        Some(_) | None => Err(invalid(expected, value)),
    }
}

/// The name of a service or backend: safe in a path, a metric's label and a shell.
pub(super) fn name(value: &DeValue<'_>) -> Meaning<String> {
    let name = text(value)?;
    let is_right = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.len() <= 64 && name.chars().all(is_right) {
        Ok(name)
    } else {
        Err(Problem::Name { found: name })
    }
}

/// One of several words.
pub(super) fn word<'a, T: Copy>(
    words: &'a [(&'a str, T)],
) -> impl Fn(&DeValue<'_>) -> Meaning<T> + 'a {
    move |value| {
        let meant = words.iter().find(|(word, _)| value.as_str() == Some(word));
        meant.map(|(_, meaning)| *meaning).ok_or_else(|| {
            let words: Vec<String> = words
                .iter()
                .map(|(word, _)| format!("\"{word}\""))
                .collect();
            invalid(words.join(" or "), value)
        })
    }
}

/// A whole number within `range`.
pub(super) fn number<T>(range: RangeInclusive<T>) -> impl Fn(&DeValue<'_>) -> Meaning<T>
where
    T: Copy + PartialOrd + TryFrom<i64> + std::fmt::Display,
{
    move |value| {
        let number = value
            .as_integer()
            .and_then(|number| i64::from_str_radix(number.as_str(), number.radix()).ok())
            .and_then(|number| T::try_from(number).ok())
            .filter(|number| range.contains(number));
        let (first, last) = (range.start(), range.end());
        number.ok_or_else(|| invalid(format!("a whole number from {first} to {last}"), value))
    }
}

/// A port, which is never 0.
pub(super) fn port(value: &DeValue<'_>) -> Meaning<u16> {
    number(1..=u16::MAX)(value)
}

/// A fraction within `range`.
pub(super) fn fraction(range: RangeInclusive<f64>) -> impl Fn(&DeValue<'_>) -> Meaning<f64> {
    move |value| {
        let number = match value {
            DeValue::Float(number) => number.as_str().parse().ok(),
            DeValue::Integer(number) => number.as_str().parse().ok(),
            DeValue::String(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Array(_)
            | DeValue::Table(_) => None,
        };
        let (first, last) = (range.start(), range.end());
        number
            .filter(|number| range.contains(number))
            .ok_or_else(|| invalid(format!("a number from {first} to {last}"), value))
    }
}

/// A duration above 0 and up to `longest`, written as a whole number and a unit.
pub(super) fn duration(longest: Duration) -> impl Fn(&DeValue<'_>) -> Meaning<Duration> {
    move |value| {
        let duration = value.as_str().and_then(parse_duration);
        duration
            .filter(|duration| !duration.is_zero() && *duration <= longest)
            .ok_or_else(|| {
                let longest = format_duration(longest);
                invalid(
                    format!(
                        "a duration above 0 and up to \"{longest}\", such as \"500ms\" or \"2s\""
                    ),
                    value,
                )
            })
    }
}

const UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// A whole number and a unit.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let (_, milliseconds) = UNITS.iter().find(|(name, _)| *name == unit)?;
    number
        .parse::<u64>()
        .ok()?
        .checked_mul(*milliseconds)
        .map(Duration::from_millis)
}

/// A duration as it would be written in the file, in the largest unit that fits it.
pub(crate) fn format_duration(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    let fits = |(_, unit): &&(&str, u64)| milliseconds.is_multiple_of(u128::from(*unit));
    let (name, unit) = UNITS.iter().find(fits).unwrap_or(&UNITS[4]);
    format!("{}{name}", milliseconds / u128::from(*unit))
}

/// The address of a host: unicast, and not in a form that stands for another.
pub(super) fn host_address(value: &DeValue<'_>) -> Meaning<IpAddr> {
    let parsed = value.as_str().and_then(|text| text.parse().ok());
    let address = parsed.ok_or_else(|| invalid("an IPv4 or IPv6 address", value))?;
    refuse_special(address)?;
    Ok(address)
}

/// An address with the length of its prefix; without one it stands for itself alone.
pub(super) fn host_prefix(value: &DeValue<'_>) -> Meaning<(IpAddr, u8)> {
    let parsed = value.as_str().and_then(|text| match text.split_once('/') {
        Some((address, prefix)) => Some((address.parse().ok()?, Some(prefix.parse().ok()?))),
        None => Some((text.parse().ok()?, None)),
    });
    let is_right = |(address, prefix): &(IpAddr, Option<u8>)| {
        prefix.is_none_or(|prefix| (1..=full_prefix(*address)).contains(&prefix))
    };
    let (address, prefix) = parsed.filter(is_right).ok_or_else(|| {
        invalid(
            "an address with a prefix length, such as \"192.0.2.1/32\"",
            value,
        )
    })?;
    refuse_special(address)?;
    Ok((address, prefix.unwrap_or_else(|| full_prefix(address))))
}

/// Most bits that may vary in what tunnels send from: those of one word.
const FREE_BITS: u8 = 32;

/// The addresses that tunnels may send from: a prefix, the bits behind which vary.
pub(super) fn source_prefix(value: &DeValue<'_>) -> Meaning<(IpAddr, u8)> {
    let (address, prefix) = host_prefix(value)?;
    let free = full_prefix(address) - prefix;
    if free > FREE_BITS {
        return Err(Problem::WidePrefix { limit: FREE_BITS });
    }
    let last_word = match address {
        IpAddr::V4(v4) => v4.to_bits(),
        IpAddr::V6(v6) => v6.to_bits() as u32,
    };
    let mask = u32::MAX.checked_shr(32 - u32::from(free)).unwrap_or(0);
    if last_word & mask != 0 {
        return Err(Problem::BitsBehindPrefix);
    }
    Ok((address, prefix))
}

const fn full_prefix(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

fn refuse_special(address: IpAddr) -> Meaning<()> {
    let kind = match address {
        IpAddr::V4(v4) if v4.is_broadcast() => "the broadcast address",
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => "an IPv4 address in IPv6 form",
        address if address.is_unspecified() => "the unspecified address",
        address if address.is_multicast() => "a multicast address",
        address if address.is_loopback() => "a loopback address",
        IpAddr::V4(_) | IpAddr::V6(_) => return Ok(()),
    };
    let found = address.to_string();
    Err(Problem::Address { found, kind })
}

/// An address and port of the loopback interface.
pub(super) fn loopback_socket(value: &DeValue<'_>) -> Meaning<SocketAddr> {
    let parsed = value
        .as_str()
        .and_then(|text| text.parse::<SocketAddr>().ok());
    let socket = parsed
        .filter(|socket| socket.port() != 0)
        .ok_or_else(|| invalid("an address and port, such as \"127.0.0.1:9463\"", value))?;
    if socket.ip().is_loopback() {
        Ok(socket)
    } else {
        Err(Problem::NotLoopback(socket.ip().to_string()))
    }
}

/// The address of a host with a port.
pub(super) fn host_socket(value: &DeValue<'_>) -> Meaning<SocketAddr> {
    let parsed = value
        .as_str()
        .and_then(|text| text.parse::<SocketAddr>().ok());
    parsed
        .filter(|socket| socket.port() != 0)
        .filter(|socket| !socket.ip().is_unspecified() && !socket.ip().is_multicast())
        .ok_or_else(|| {
            let expected = "the address of a host and a port, such as \"10.0.0.1:9464\"";
            invalid(expected, value)
        })
}

/// Two ports, the lower one first.
pub(super) fn port_range(value: &DeValue<'_>) -> Meaning<(u16, u16)> {
    let parse = |port: &str| port.trim().parse::<u16>().ok().filter(|port| *port != 0);
    let parsed = value.as_str().and_then(|text| text.split_once('-'));
    let range = parsed.and_then(|(first, last)| Some((parse(first)?, parse(last)?)));
    match range {
        Some((first, last)) if first <= last => Ok((first, last)),
        Some(_) => Err(Problem::EmptyPortRange),
        None => Err(invalid("a range of ports, such as \"1024-32767\"", value)),
    }
}

/// 16 bytes in hexadecimal.
pub(super) fn seed(value: &DeValue<'_>) -> Meaning<[u8; 16]> {
    let is_right = |text: &&str| text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
    value
        .as_str()
        .filter(is_right)
        .and_then(|text| u128::from_str_radix(text, 16).ok())
        .map(u128::to_be_bytes)
        // The seed is a secret: what was found is not repeated.
        .ok_or_else(|| Problem::Invalid {
            expected: "32 hexadecimal digits".to_owned(),
            found: "the value".to_owned(),
        })
}

/// Permission bits, as an octal number in a string.
pub(super) fn mode(value: &DeValue<'_>) -> Meaning<u32> {
    let is_octal = |text: &&str| text.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    value
        .as_str()
        .filter(is_octal)
        .and_then(|text| u32::from_str_radix(text, 8).ok())
        .filter(|mode| *mode <= 0o777)
        .ok_or_else(|| {
            invalid(
                "permission bits as an octal string, such as \"0660\"",
                value,
            )
        })
}
