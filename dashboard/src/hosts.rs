//! By which names the dashboard may be asked for.
//!
//! A page of somebody else's can have its own name lead to this host's address (DNS rebinding), and would
//! then be one with the dashboard to a browser. But what the browser asks for is still that name.

use std::net::IpAddr;

use axum::http::{HeaderMap, Uri, header, uri::Authority};

/// The names.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hosts {
    names: Vec<String>,
}

impl Hosts {
    pub(crate) fn new(names: &[String]) -> Self {
        let names = names.iter().map(|name| name.to_ascii_lowercase());
        Self {
            names: names.collect(),
        }
    }

    /// Whether a request is for this host: by an address, as localhost, or by one of the names.
    pub(crate) fn admit(&self, uri: &Uri, headers: &HeaderMap) -> bool {
        let Some(asked) = host(headers) else {
            return false;
        };
        // A request line with a whole URL has a host of its own (RFC 9112, 3.2.2).
        let is_same = |in_line: &Authority| in_line.as_str().eq_ignore_ascii_case(asked);
        uri.authority().is_none_or(is_same) && self.is_ours(asked)
    }

    fn is_ours(&self, asked: &str) -> bool {
        let Ok(authority) = asked.parse::<Authority>() else {
            return false;
        };
        if asked.contains('@') {
            return false;
        }
        let host = authority.host().to_ascii_lowercase();
        let bare = host.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
        let is_address = bare.unwrap_or(&host).parse::<IpAddr>().is_ok();
        let name = host.strip_suffix('.').unwrap_or(&host);
        is_address || name == "localhost" || self.names.iter().any(|known| known == name)
    }
}

/// What the one Host header says.
pub(crate) fn host(headers: &HeaderMap) -> Option<&str> {
    let mut all = headers.get_all(header::HOST).iter();
    match (all.next(), all.next()) {
        (Some(host), None) => host.to_str().ok(),
        (_, _) => None,
    }
}

/// Whether a request that says which page it comes from comes from ours. Scheme and port may differ
/// behind a proxy that speaks TLS; the host that it was asked for may not.
pub(crate) fn is_own_origin(headers: &HeaderMap) -> bool {
    let mut all = headers.get_all(header::ORIGIN).iter();
    let origin = match (all.next(), all.next()) {
        (None, _) => return true,
        (Some(origin), None) => origin.to_str().ok(),
        (Some(_), Some(_)) => None,
    };
    let named = origin.and_then(|origin| origin.split_once("://"));
    match (named, host(headers)) {
        (Some((_scheme, named)), Some(host)) => named.eq_ignore_ascii_case(host),
        (_, _) => false,
    }
}

/// Whether a name can stand in `dashboard.names`.
#[must_use]
pub fn is_name(name: &str) -> bool {
    let is_label = |label: &str| {
        let is_right = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        (1..=63).contains(&label.len()) && label.chars().all(is_right)
    };
    name.len() <= 253 && name.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn headers(entries: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in entries {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn admits(host: &str) -> bool {
        let hosts = Hosts::new(&["LB1.example.org".to_owned()]);
        hosts.admit(&Uri::from_static("/"), &headers(&[("host", host)]))
    }

    #[test]
    fn addresses_localhost_and_names_of_ours_are_admitted() {
        for good in [
            "127.0.0.1:8404",
            "10.1.2.3",
            "[::1]:8404",
            "[fe80::1]",
            "localhost:8404",
            "LOCALHOST",
            "lb1.example.org",
            "Lb1.Example.Org:8404",
            "lb1.example.org.:8404",
        ] {
            assert!(admits(good), "{good}");
        }
        for bad in [
            "",
            "evil.example",
            "lb1.example.org.evil.example",
            "xlb1.example.org",
            "localhost.evil.example",
            "127.0.0.1.nip.io",
            "lb1.example.org@evil.example",
            "evil.example@lb1.example.org",
            "127.0.0.1:8404:1",
            "http://127.0.0.1",
            "lb1.example.org/",
        ] {
            assert!(!admits(bad), "{bad}");
        }
    }

    #[test]
    fn request_with_no_host_or_two_is_nobodys() {
        let hosts = Hosts::default();
        let uri = Uri::from_static("/");
        assert!(!hosts.admit(&uri, &HeaderMap::new()));
        let two = headers(&[("host", "localhost"), ("host", "localhost")]);
        assert!(!hosts.admit(&uri, &two));
        let whole = Uri::from_static("http://evil.example/");
        assert!(!hosts.admit(&whole, &headers(&[("host", "localhost")])));
        let whole = Uri::from_static("http://localhost/");
        assert!(hosts.admit(&whole, &headers(&[("host", "localhost")])));
    }

    #[test]
    fn page_of_another_origin_is_told_by_its_host() {
        let host = ("host", "lb1:8404");
        assert!(is_own_origin(&headers(&[host])));
        for (origin, expected) in [
            ("http://lb1:8404", true),
            ("https://LB1:8404", true),
            ("https://lb1", false),
            ("https://evil.example", false),
            ("null", false),
            ("", false),
            ("https://lb1:8404.evil.example", false),
        ] {
            let is_own = is_own_origin(&headers(&[host, ("origin", origin)]));
            assert_eq!(is_own, expected, "{origin}");
        }
        let two = [
            host,
            ("origin", "http://lb1:8404"),
            ("origin", "http://lb1:8404"),
        ];
        assert!(!is_own_origin(&headers(&two)));
    }

    #[test]
    fn names_are_those_of_hosts() {
        for good in ["lb1", "lb1.example.org", "a_b"] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", "a..b", "a b", "http://a", "a:1", ".a", &"a".repeat(64)] {
            assert!(!is_name(bad), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_header_panics(host: Vec<u8>, origin: Vec<u8>) {
            let mut headers = HeaderMap::new();
            if let Ok(host) = HeaderValue::from_bytes(&host) {
                headers.append(header::HOST, host);
            }
            if let Ok(origin) = HeaderValue::from_bytes(&origin) {
                headers.append(header::ORIGIN, origin);
            }
            let _ = Hosts::default().admit(&Uri::from_static("/"), &headers);
            let _ = is_own_origin(&headers);
        }
    }
}
