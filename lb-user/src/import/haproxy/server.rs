//! `server`: who stands behind a front end, and where.

use std::net::IpAddr;
use std::time::Duration;

use super::parameters::Parameters;
use super::words::Line;
use crate::import::finding::Findings;

/// A server, with what its proxy says of all.
#[derive(Clone, Debug)]
pub(super) struct Server {
    pub(super) line: usize,
    pub(super) name: String,
    pub(super) address: IpAddr,
    pub(super) port: Port,
    pub(super) parameters: Parameters,
}

/// A port of its own, or so far from the one that clients connect to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Port {
    Fixed(u16),
    Same(i32),
}

impl Port {
    /// The port for clients of `port`, if there is one.
    pub(super) fn of(self, port: u16) -> Option<u16> {
        let found = match self {
            Self::Fixed(own) => own,
            Self::Same(offset) => u16::try_from(i32::from(port) + offset).ok()?,
        };
        (found != 0).then_some(found)
    }
}

/// The server of a line, with `defaults` where it says nothing.
pub(super) fn read(line: &Line, defaults: &Parameters, findings: &mut Findings) -> Option<Server> {
    let name = line.word(1).to_owned();
    let (address, port) = match address(line.word(2)) {
        Ok(found) => found,
        Err(why) => {
            let what = format!("server {name}");
            findings.lost(
                line.number,
                what,
                why,
                "add a [[service.backend]] with its address",
            );
            return None;
        }
    };
    let mut parameters = defaults.clone();
    let words = line.words.get(3..).unwrap_or_default();
    parameters.read(words, line.number, findings);
    if parameters.ends_tls {
        findings.lost(
            line.number,
            format!("server {name} ... ssl"),
            "no TLS is begun towards backends: packets are passed on as they are",
            "let the server listen without TLS, or clients speak TLS to it",
        );
        return None;
    }
    Some(Server {
        line: line.number,
        name,
        address,
        port,
        parameters,
    })
}

fn address(text: &str) -> Result<(IpAddr, Port), &'static str> {
    let text = match text.split_once('@') {
        Some(("ipv4" | "ipv6" | "tcp4" | "tcp6", rest)) => rest,
        Some(_) => return Err("it is no address of IPv4 or IPv6"),
        None => text,
    };
    let is_path = text.starts_with('/');
    let whole = |text: &str| {
        let inner = text.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
        inner.unwrap_or(text).parse::<IpAddr>().ok()
    };
    // A lone IPv6 address has to stand in brackets: its last part would be a port.
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !text.ends_with(']') => (host, port),
        Some(_) | None => (text, ""),
    };
    let Some(address) = whole(host) else {
        return Err(if is_path {
            "it is a socket of this host"
        } else {
            "it is a name, and backends have addresses"
        });
    };
    let offset = |text: &str| text.parse::<u16>().ok().map(i32::from);
    let port = match port.chars().next() {
        None => Some(Port::Same(0)),
        Some('+') => offset(port.trim_start_matches('+')).map(Port::Same),
        Some('-') => offset(port.trim_start_matches('-')).map(|offset| Port::Same(-offset)),
        Some(_) => offset(port).filter(|port| *port != 0).and_then(|port| {
            let port = u16::try_from(port).ok()?;
            Some(Port::Fixed(port))
        }),
    };
    let port = port.ok_or("what should be its port is none")?;
    Ok((address, port))
}

/// A number and a unit, milliseconds without one.
pub(super) fn time(text: &str) -> Option<Duration> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let microseconds: u64 = match unit {
        "us" => 1,
        "" | "ms" => 1_000,
        "s" => 1_000_000,
        "m" => 60_000_000,
        "h" => 3_600_000_000,
        "d" => 86_400_000_000,
        _ => return None,
    };
    let number: u64 = number.parse().ok()?;
    let duration = Duration::from_micros(number.checked_mul(microseconds)?);
    // Files have milliseconds.
    Some(Duration::from_millis(
        u64::try_from(duration.as_millis()).ok()?,
    ))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Port, address, time};

    #[test]
    fn addresses_have_a_port_an_offset_or_none() {
        let found = |text| address(text).unwrap();
        assert_eq!(found("172.16.40.20:1883").1, Port::Fixed(1883));
        assert_eq!(found("172.16.40.20").1, Port::Same(0));
        assert_eq!(found("172.16.40.20:+10").1.of(1883), Some(1893));
        assert_eq!(found("172.16.40.20:-1883").1.of(1883), None);
        assert_eq!(found("[fd00::1]").1, Port::Same(0));
        assert_eq!(
            found("fd00::1:1883"),
            ("fd00::1".parse().unwrap(), Port::Fixed(1883))
        );
        assert_eq!(found("ipv6@[fd00::1]:1883").1, Port::Fixed(1883));
        for text in [
            "",
            "a:1883",
            "/run/a",
            "unix@/run/a",
            "172.16.40.20:0",
            "1.2.3.4:+-1",
            "1.2.3.4:70000",
        ] {
            assert!(address(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times_are_in_milliseconds_unless_they_have_a_unit() {
        assert_eq!(time("2000"), Some(Duration::from_secs(2)));
        assert_eq!(time("10s"), Some(Duration::from_secs(10)));
        assert_eq!(time("1d"), Some(Duration::from_secs(86_400)));
        for text in [
            "",
            "s",
            "1w",
            "-1",
            "99999999999999999999",
            "18446744073709551615d",
        ] {
            assert_eq!(time(text), None, "{text}");
        }
    }
}
