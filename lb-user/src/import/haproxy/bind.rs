//! `bind`: the addresses and ports that clients connect to.

use std::net::IpAddr;

use super::words::Line;
use crate::import::draft::{Draft, Vip};
use crate::import::finding::Findings;
use crate::import::values::{is_host, whole};

/// A range of ports makes so many services at most.
const PORTS: u16 = 64;

/// Options that are about the socket.
const SOCKET: [&str; 10] = [
    "backlog",
    "defer-accept",
    "interface",
    "maxconn",
    "mss",
    "namespace",
    "process",
    "tfo",
    "thread",
    "transparent",
];

/// Where a front end listens: at an address, or at all of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    One(IpAddr),
    AllIpv4,
    AllIpv6,
    All,
}

/// The VIPs and ports that `line` stands for; those that are not declared yet are.
pub(super) fn read(line: &Line, draft: &mut Draft, findings: &mut Findings) -> Vec<(IpAddr, u16)> {
    let number = line.number;
    let options = line.words.get(2..).unwrap_or_default();
    let has = |word: &str| options.iter().any(|option| option == word);
    if has("ssl") {
        findings.lost(
            number,
            format!("bind {}", line.word(1)),
            "it ends TLS, and Tidegate passes packets on as they are",
            "give the certificate to the brokers, and add a [[service]] with `protocol = \"tcp\"` for the port",
        );
        return Vec::new();
    }
    if has("accept-proxy") {
        let why = "clients' PROXY headers reach the backends as they are";
        let instead = "let the brokers take them, from who sends them alone";
        findings.changed(number, "bind ... accept-proxy", why, instead);
    }
    for option in options
        .iter()
        .filter(|option| SOCKET.contains(&option.as_str()))
    {
        let why = "there is no socket that it could be about";
        findings.needless(number, format!("bind ... {option}"), why);
    }
    let mut endpoints = Vec::new();
    for text in line.word(1).split(',') {
        let what = format!("bind {text}");
        match endpoint(text, has("v4v6"), has("v6only")) {
            Ok((place, first, last)) => {
                let vips = vips(place, draft);
                if vips.is_empty() {
                    findings.lost(
                        number,
                        &what,
                        "it listens on all addresses, and no file says which are VIPs",
                        "give keepalived.conf too, or `--vip ADDRESS`",
                    );
                }
                for vip in vips {
                    endpoints.extend((first..=last).map(|port| (vip, port)));
                }
                declare(place, number, draft, findings);
            }
            Err(why) => {
                findings.lost(
                    number,
                    what,
                    why,
                    "add a [[service]] for what clients connect to",
                );
            }
        }
    }
    endpoints
}

/// What a place stands for, among VIPs that are declared.
fn vips(place: Place, draft: &Draft) -> Vec<IpAddr> {
    let all = draft.vips.iter().map(|vip| vip.address);
    // Adverts are what these are for.
    let all = all.filter(|vip| !matches!(vip, IpAddr::V6(v6) if v6.is_unicast_link_local()));
    match place {
        Place::One(address) => vec![address],
        Place::AllIpv4 => all.filter(IpAddr::is_ipv4).collect(),
        Place::AllIpv6 => all.filter(IpAddr::is_ipv6).collect(),
        Place::All => all.collect(),
    }
}

/// An address that no router holds is on the host for another reason.
fn declare(place: Place, line: usize, draft: &mut Draft, findings: &mut Findings) {
    let Place::One(address) = place else {
        return;
    };
    if draft.has_vip(address) {
        return;
    }
    findings.changed(
        line,
        format!("bind {address}"),
        "no virtual router has this address, so it is declared with `assign = false`",
        "clients of an address of one host alone lose it with that host; let Tidegate hold it as a VIP",
    );
    draft.declare(Vip {
        address,
        prefix: whole(address),
        is_assigned: false,
    });
}

/// The place, and the first and last port.
fn endpoint(
    text: &str,
    is_both: bool,
    is_ipv6_alone: bool,
) -> Result<(Place, u16, u16), &'static str> {
    const LOCAL: [&str; 7] = [
        "unix@",
        "uxst@",
        "abns@",
        "abnsz@",
        "fd@",
        "sockpair@",
        "rhttp@",
    ];
    if text.starts_with('/') || LOCAL.iter().any(|prefix| text.starts_with(prefix)) {
        return Err("only programs of this host can connect to it");
    }
    if text.starts_with("quic4@") || text.starts_with("quic6@") {
        return Err("QUIC is ended there, and Tidegate passes packets on as they are");
    }
    let (family, text) = match text.split_once('@') {
        Some(("ipv4" | "tcp4", rest)) => (Some(4), rest),
        Some(("ipv6" | "tcp6", rest)) => (Some(6), rest),
        Some(_) => return Err("this kind of address is not known"),
        None => (None, text),
    };
    let (host, ports) = text.rsplit_once(':').ok_or("it has no port")?;
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port != 0);
    let (first, last) = port(first)
        .zip(port(last))
        .ok_or("what should be a port is none")?;
    if last < first || last - first >= PORTS {
        return Err("so many ports would make as many services");
    }
    let host = host
        .strip_prefix('[')
        .and_then(|it| it.strip_suffix(']'))
        .unwrap_or(host);
    let place = match (host, family) {
        ("" | "*", Some(6)) => Place::AllIpv6,
        ("" | "*" | "0.0.0.0", _) => Place::AllIpv4,
        _ => match host.parse::<IpAddr>() {
            Ok(address) if address.is_unspecified() => match (address.is_ipv4(), is_both) {
                (true, _) => Place::AllIpv4,
                (false, true) if !is_ipv6_alone => Place::All,
                (false, _) => Place::AllIpv6,
            },
            Ok(address) if is_host(address) => Place::One(address),
            Ok(_) => return Err("other hosts cannot connect to this address"),
            Err(_) => return Err("it is a name, not an address"),
        },
    };
    Ok((place, first, last))
}

#[cfg(test)]
mod tests {
    use super::{Place, endpoint};

    #[test]
    fn all_forms_of_addresses_are_understood() {
        let place = |text| endpoint(text, false, false).unwrap();
        assert_eq!(place("*:1883"), (Place::AllIpv4, 1883, 1883));
        assert_eq!(place(":1883"), (Place::AllIpv4, 1883, 1883));
        assert_eq!(place(":::1883").0, Place::AllIpv6);
        assert_eq!(place("[::]:1883").0, Place::AllIpv6);
        assert_eq!(endpoint("[::]:1", true, false).unwrap().0, Place::All);
        let one = Place::One("fd00:40::24".parse().unwrap());
        assert_eq!(place("[fd00:40::24]:1883-1885"), (one, 1883, 1885));
        assert_eq!(place("ipv6@fd00:40::24:1883").0, one);
        assert_eq!(place("ipv6@:1883").0, Place::AllIpv6);
    }

    #[test]
    fn what_no_client_elsewhere_reaches_is_refused() {
        for text in [
            "/run/a.sock",
            "abns@a",
            "127.0.0.1:80",
            "a.example:80",
            "*",
            "*:0",
            "*:1-9999",
        ] {
            assert!(endpoint(text, false, false).is_err(), "{text}");
        }
    }
}
