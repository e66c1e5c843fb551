//! The rules of servers that the broker asks over HTTP.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use hyper::Uri;
use toml::Spanned;

use super::check::Check;

/// A server to ask, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebServer {
    pub url: Uri,
    /// Who vouches for it; the host's authorities if `None`.
    pub authorities: Option<PathBuf>,
    /// Holds what proves to it who asks.
    pub token_file: Option<PathBuf>,
    /// From the question to the whole answer, the wait for a connection included.
    pub timeout: Duration,
    /// Questions at a time.
    pub connections: usize,
    /// Questions that wait or are being answered.
    pub waiting: usize,
}

/// The keys of a server, as the file has them.
pub(super) struct Raw {
    pub(super) url: Spanned<String>,
    pub(super) ca_file: Option<Spanned<String>>,
    pub(super) token_file: Option<Spanned<String>>,
    pub(super) timeout: Option<Spanned<String>>,
    pub(super) connections: Option<Spanned<i64>>,
    pub(super) waiting: Option<Spanned<i64>>,
}

/// What may happen between the server and this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Anybody may read along, and change what is said.
    Open,
    /// Nobody may change what the server says: over TLS, or within this host.
    Guarded,
    /// Nor may anybody read along.
    Secret,
}

const TIMEOUT: Duration = Duration::from_secs(5);
const MOST_TIMEOUT: Duration = Duration::from_mins(1);

impl Check<'_> {
    /// `name` is the key of the URL.
    pub(super) fn web_server(
        &mut self,
        section: &str,
        name: &str,
        way: Way,
        raw: Raw,
    ) -> Option<WebServer> {
        let Raw {
            url,
            ca_file,
            token_file,
            timeout,
            connections,
            waiting,
        } = raw;
        let key = |name: &str| format!("{section}.{name}");
        let timeout_span = timeout.as_ref().map_or(0..0, Spanned::span);
        let timeout = self.duration(&key("timeout"), timeout, TIMEOUT);
        if timeout.is_zero() || timeout > MOST_TIMEOUT {
            let message = "must be more than nothing, and one minute at most";
            self.refuse(&key("timeout"), timeout_span, message);
        }
        let connections = self.size(&key("connections"), connections, 16, 1..1025);
        let waiting = self.size(&key("waiting"), waiting, 1000, 1..100_001);
        let authorities = ca_file.map(|path| self.absolute(&key("ca_file"), path));
        let token_file = token_file.map(|path| self.absolute(&key("token_file"), path));
        let parsed = self.url(&key(name), &url, way)?;
        Some(WebServer {
            url: parsed,
            authorities,
            token_file,
            timeout,
            connections,
            waiting,
        })
    }

    fn url(&mut self, key: &str, raw: &Spanned<String>, way: Way) -> Option<Uri> {
        let parsed: Option<Uri> = raw.get_ref().parse().ok();
        let url = parsed.filter(|url| {
            let is_web = matches!(url.scheme_str(), Some("http" | "https"));
            let has_login = url.authority().is_none_or(|it| it.as_str().contains('@'));
            is_web && !has_login && url.host().is_some_and(|host| !host.is_empty())
        });
        let Some(url) = url else {
            // Not quoted: it may have a password in it.
            let message = "must be a URL of http or https without a user name or password";
            self.refuse(key, raw.span(), message);
            return None;
        };
        let is_plain = url.scheme_str() == Some("http") && !is_here(&url);
        let message = match way {
            Way::Guarded => {
                "must be https, as anybody on the way could put other keys in; http only for \
                 localhost"
            }
            Way::Secret => {
                "must be https, as anybody on the way could read passwords; http only for \
                 localhost, or with allow_plain = true"
            }
            Way::Open => return Some(url),
        };
        if is_plain {
            self.refuse(key, raw.span(), message);
        }
        Some(url)
    }
}

/// Whether the server is on this host.
fn is_here(url: &Uri) -> bool {
    let host = url.host().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    let is_loopback = address
        .parse()
        .is_ok_and(|address: IpAddr| address.is_loopback());
    is_loopback || host.eq_ignore_ascii_case("localhost")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Authenticator, Config, ConfigError, KeySource};

    fn parse(authenticator: &str) -> Result<Authenticator, String> {
        let text = format!(
            "node = \"n\"\n[[listener]]\naddress = \"127.0.0.1:0\"\n\
             [[access.authenticator]]\n{authenticator}"
        );
        match Config::parse(&text) {
            Ok(config) => Ok(config.access().authenticators[0].clone()),
            Err(ConfigError::Invalid(problems)) => Err(problems[0].to_string()),
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn servers_have_defaults_and_bounds() {
        let url = "type = \"http\"\nurl = \"https://login.example.org/mqtt\"\n";
        let expected = WebServer {
            url: "https://login.example.org/mqtt".parse().unwrap(),
            authorities: None,
            token_file: None,
            timeout: Duration::from_secs(5),
            connections: 16,
            waiting: 1000,
        };
        assert_eq!(parse(url), Ok(Authenticator::Http(expected)));
        for (more, key) in [
            ("timeout = \"0s\"", "timeout"),
            ("timeout = \"2m\"", "timeout"),
            ("connections = 0", "connections"),
            ("waiting = 0", "waiting"),
            ("ca_file = \"ca.pem\"", "ca_file"),
            ("token_file = \"token\"", "token_file"),
            ("refresh = \"1m\"", "refresh"),
            ("path = \"/p\"", "path"),
        ] {
            let told = parse(&format!("{url}{more}\n")).unwrap_err();
            let expected = format!("line 7: access.authenticator[0].{key}: ");
            assert!(told.starts_with(&expected), "{told}");
        }
        let told = parse("type = \"http\"\n").unwrap_err();
        assert!(told.contains("[0].url: needed"), "{told}");
    }

    #[test]
    fn urls_that_cannot_be_asked_are_refused_and_not_quoted() {
        for url in [
            "",
            "login.example.org",
            "ftp://login.example.org/",
            "https://",
            "https:///login",
            "https://me:sesame@login.example.org/",
        ] {
            let told = parse(&format!("type = \"http\"\nurl = {url:?}\n")).unwrap_err();
            assert!(told.contains("must be a URL"), "{url}: {told}");
            assert!(!told.contains("sesame"), "{told}");
        }
    }

    #[test]
    fn keys_come_over_ways_that_nobody_else_can_write_to() {
        let parse = |url: &str| {
            parse(&format!(
                "type = \"jwt\"\nalgorithms = [\"ES256\"]\njwks_url = {url:?}\n"
            ))
        };
        for url in [
            "https://login.example.org/keys",
            "http://localhost:80/",
            "http://127.0.0.2/",
            "http://[::1]:8080/",
        ] {
            let Ok(Authenticator::Jwt(settings)) = parse(url) else {
                panic!("{url} was refused");
            };
            let KeySource::Remote { refresh, .. } = settings.keys else {
                panic!("keys of a server");
            };
            assert_eq!(refresh, Duration::from_mins(5));
        }
        for url in ["http://login.example.org/keys", "http://192.0.2.1/"] {
            let told = parse(url).unwrap_err();
            assert!(told.contains("must be https"), "{told}");
            let asked = format!("type = \"http\"\nurl = {url:?}\n");
            let told = self::parse(&asked).unwrap_err();
            assert!(told.contains("allow_plain"), "{told}");
            assert!(self::parse(&format!("{asked}allow_plain = true\n")).is_ok());
        }
    }
}
