//! The rules of `[[access.authenticator]]`: each way to find out who a client is, with its keys.

use std::{path::PathBuf, time::Duration};

use jsonwebtoken::{Algorithm, AlgorithmFamily};
use toml::Spanned;

use super::{
    check::Check,
    file,
    web::{Raw, Way, WebServer},
};

/// One way to find out who a client is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Authenticator {
    /// A file of users and hashes of their passwords.
    File { path: PathBuf },
    /// Tokens that somebody else has signed.
    Jwt(Jwt),
    /// A server that is asked about each client.
    Http(WebServer),
}

/// Which tokens are good, and what they tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Jwt {
    pub keys: KeySource,
    /// What tokens may be signed by, whatever they say; all suit the keys.
    pub algorithms: Vec<Algorithm>,
    pub issuer: Option<String>,
    pub audience: Option<String>,
    /// How far clocks may be apart.
    pub leeway: Duration,
    /// Where in a CONNECT the token is.
    pub field: TokenField,
    /// The claim with the user's name.
    pub user_claim: String,
    /// The claim with what the client may do.
    pub acl_claim: Option<String>,
    /// Whether the user name of the CONNECT has to be the token's.
    pub same_user_name: bool,
    /// Whether a connection ends with its token.
    pub disconnect_expired: bool,
}

/// Where the keys are that tokens are signed with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// A secret that the issuer has too.
    Secret(PathBuf),
    /// Public keys in PEM.
    Public(PathBuf),
    /// A JSON Web Key Set.
    Set(PathBuf),
    /// The same from a server, fetched anew from time to time.
    Remote {
        server: WebServer,
        refresh: Duration,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenField {
    Username,
    Password,
}

/// How far clocks are apart at most, unless the file says otherwise.
const LEEWAY: Duration = Duration::from_secs(10);

/// More would make a token good that should not be.
const MOST_LEEWAY: Duration = Duration::from_mins(10);

/// How often keys are fetched from a server, unless the file says otherwise.
const REFRESH: Duration = Duration::from_mins(5);

type Make = fn(PathBuf) -> KeySource;

const KEY_SOURCES: &str = "needed for type = \"jwt\": one of secret_file, public_key_file, \
                           jwks_file, jwks_url";

impl Check<'_> {
    pub(super) fn authenticator(
        &mut self,
        index: usize,
        raw: file::Authenticator,
    ) -> Option<Authenticator> {
        let section = format!("access.authenticator[{index}]");
        let kind = raw.kind.get_ref().clone();
        self.refuse_foreign_keys(&section, &kind, &raw);
        match kind.as_str() {
            "file" => {
                let path = self.required(&format!("{section}.path"), raw.path, &raw.kind)?;
                let path = self.absolute(&format!("{section}.path"), path);
                Some(Authenticator::File { path })
            }
            "jwt" => self.jwt(&section, raw).map(Authenticator::Jwt),
            "http" => self.http(&section, raw).map(Authenticator::Http),
            _ => {
                let message = "must be \"file\", \"jwt\" or \"http\"";
                self.refuse(&format!("{section}.type"), raw.kind.span(), message);
                None
            }
        }
    }

    /// A key of another type would be without effect.
    fn refuse_foreign_keys(&mut self, section: &str, kind: &str, raw: &file::Authenticator) {
        let file::Authenticator {
            kind: _,
            path,
            secret_file,
            public_key_file,
            jwks_file,
            jwks_url,
            refresh,
            algorithms,
            issuer,
            audience,
            leeway,
            from,
            user_claim,
            acl_claim,
            same_user_name,
            disconnect_expired,
            url,
            allow_plain,
            ca_file,
            token_file,
            timeout,
            connections,
            waiting,
        } = raw;
        let text = |key: &Option<Spanned<String>>| key.as_ref().map(Spanned::span);
        let flag = |key: &Option<Spanned<bool>>| key.as_ref().map(Spanned::span);
        let number = |key: &Option<Spanned<i64>>| key.as_ref().map(Spanned::span);
        let (file, jwt, http, both): (&[_], &[_], &[_], &[_]) =
            (&["file"], &["jwt"], &["http"], &["jwt", "http"]);
        let keys = [
            ("path", file, text(path)),
            ("secret_file", jwt, text(secret_file)),
            ("public_key_file", jwt, text(public_key_file)),
            ("jwks_file", jwt, text(jwks_file)),
            ("jwks_url", jwt, text(jwks_url)),
            ("refresh", jwt, text(refresh)),
            ("algorithms", jwt, algorithms.as_ref().map(Spanned::span)),
            ("issuer", jwt, text(issuer)),
            ("audience", jwt, text(audience)),
            ("leeway", jwt, text(leeway)),
            ("from", jwt, text(from)),
            ("user_claim", jwt, text(user_claim)),
            ("acl_claim", jwt, text(acl_claim)),
            ("same_user_name", jwt, flag(same_user_name)),
            ("disconnect_expired", jwt, flag(disconnect_expired)),
            ("url", http, text(url)),
            ("allow_plain", http, flag(allow_plain)),
            ("ca_file", both, text(ca_file)),
            ("token_file", both, text(token_file)),
            ("timeout", both, text(timeout)),
            ("connections", http, number(connections)),
            ("waiting", http, number(waiting)),
        ];
        if !["file", "jwt", "http"].contains(&kind) {
            return;
        }
        for (name, owners, span) in keys {
            if let Some(span) = span
                && !owners.contains(&kind)
            {
                let message = format!("is a key of type = {:?}", owners[0]);
                self.refuse(&format!("{section}.{name}"), span, message);
            }
        }
    }

    fn http(&mut self, section: &str, raw: file::Authenticator) -> Option<WebServer> {
        let url = self.required(&format!("{section}.url"), raw.url, &raw.kind)?;
        let is_open = raw.allow_plain.is_some_and(Spanned::into_inner);
        let way = if is_open { Way::Open } else { Way::Secret };
        let raw = Raw {
            url,
            ca_file: raw.ca_file,
            token_file: raw.token_file,
            timeout: raw.timeout,
            connections: raw.connections,
            waiting: raw.waiting,
        };
        self.web_server(section, "url", way, raw)
    }

    fn jwt(&mut self, section: &str, raw: file::Authenticator) -> Option<Jwt> {
        let file::Authenticator {
            kind,
            path: _,
            secret_file,
            public_key_file,
            jwks_file,
            jwks_url,
            refresh,
            algorithms,
            issuer,
            audience,
            leeway,
            from,
            user_claim,
            acl_claim,
            same_user_name,
            disconnect_expired,
            url: _,
            allow_plain: _,
            ca_file,
            token_file,
            timeout,
            connections: _,
            waiting: _,
        } = raw;
        let named: [(&str, Make, _); 3] = [
            ("secret_file", KeySource::Secret, secret_file),
            ("public_key_file", KeySource::Public, public_key_file),
            ("jwks_file", KeySource::Set, jwks_file),
        ];
        let mut sources = Vec::new();
        for (name, source, path) in named {
            let Some(path) = path else { continue };
            let (key, span) = (format!("{section}.{name}"), path.span());
            sources.push((key.clone(), span, source(self.absolute(&key, path))));
        }
        let dependent = [
            ("refresh", &refresh),
            ("ca_file", &ca_file),
            ("token_file", &token_file),
            ("timeout", &timeout),
        ];
        if jwks_url.is_none() {
            for (name, value) in dependent {
                if let Some(value) = value {
                    let message = "is for a jwks_url";
                    self.refuse(&format!("{section}.{name}"), value.span(), message);
                }
            }
        }
        if let Some(url) = jwks_url {
            let (key, span) = (format!("{section}.jwks_url"), url.span());
            let refresh = self.refresh(section, refresh);
            let raw = Raw {
                url,
                ca_file,
                token_file,
                timeout,
                connections: None,
                waiting: None,
            };
            let server = self.web_server(section, "jwks_url", Way::Guarded, raw)?;
            sources.push((key, span, KeySource::Remote { server, refresh }));
        }
        for (key, span, _source) in sources.iter().skip(1) {
            let message = "the keys come from elsewhere already";
            self.refuse(key, span.clone(), message);
        }
        let Some((_key, _span, keys)) = sources.into_iter().next() else {
            self.refuse(section, kind.span(), KEY_SOURCES);
            return None;
        };
        let key = format!("{section}.algorithms");
        let algorithms = self.required(&key, algorithms, &kind)?;
        let algorithms = self.algorithms(&key, algorithms, &keys);
        let leeway_span = leeway.as_ref().map_or(0..0, Spanned::span);
        let leeway_key = format!("{section}.leeway");
        let leeway = self.duration(&leeway_key, leeway, LEEWAY);
        if leeway > MOST_LEEWAY || leeway.subsec_nanos() != 0 {
            let message = "must be whole seconds, ten minutes at most";
            self.refuse(&leeway_key, leeway_span, message);
        }
        let field = self.token_field(section, from.as_ref());
        let same_span = same_user_name.as_ref().map_or(0..0, Spanned::span);
        let same_user_name = same_user_name.is_some_and(Spanned::into_inner);
        if same_user_name && field == TokenField::Username {
            let message = "the user name is the token, so it cannot be the user's name too";
            self.refuse(&format!("{section}.same_user_name"), same_span, message);
        }
        let mut text = |name: &str, value: Option<Spanned<String>>| {
            let value = value?;
            if value.get_ref().is_empty() {
                let message = "must not be empty; leave it out";
                self.refuse(&format!("{section}.{name}"), value.span(), message);
            }
            Some(value.into_inner())
        };
        Some(Jwt {
            keys,
            algorithms,
            issuer: text("issuer", issuer),
            audience: text("audience", audience),
            user_claim: text("user_claim", user_claim).unwrap_or_else(|| "sub".to_owned()),
            acl_claim: text("acl_claim", acl_claim),
            leeway,
            field,
            same_user_name,
            disconnect_expired: disconnect_expired.is_none_or(Spanned::into_inner),
        })
    }

    fn refresh(&mut self, section: &str, raw: Option<Spanned<String>>) -> Duration {
        let span = raw.as_ref().map_or(0..0, Spanned::span);
        let key = format!("{section}.refresh");
        let refresh = self.duration(&key, raw, REFRESH);
        if refresh < Duration::from_secs(10) || refresh > Duration::from_hours(24) {
            self.refuse(&key, span, "must be 10 seconds to 24 hours");
        }
        refresh
    }

    /// A public key that is taken for a secret would be one that everybody knows: the kind of key
    /// decides which algorithms there can be.
    fn algorithms(
        &mut self,
        key: &str,
        raw: Spanned<Vec<Spanned<String>>>,
        keys: &KeySource,
    ) -> Vec<Algorithm> {
        if raw.get_ref().is_empty() {
            self.refuse(key, raw.span(), "at least one, such as \"ES256\"");
        }
        let is_secret = matches!(keys, KeySource::Secret(_));
        let mut algorithms = Vec::new();
        for (index, name) in raw.into_inner().into_iter().enumerate() {
            let key = format!("{key}[{index}]");
            let Ok(algorithm) = name.get_ref().parse::<Algorithm>() else {
                let message = "must be HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, \
                               PS512, ES256, ES384 or EdDSA";
                self.refuse(&key, name.span(), message);
                continue;
            };
            if (algorithm.family() == AlgorithmFamily::Hmac) != is_secret {
                let message = if is_secret {
                    "not for a secret: those are HS256, HS384 and HS512"
                } else {
                    "only for a secret_file: public keys are known to everybody"
                };
                self.refuse(&key, name.span(), message);
            }
            algorithms.push(algorithm);
        }
        algorithms
    }

    fn token_field(&mut self, section: &str, from: Option<&Spanned<String>>) -> TokenField {
        match from.map(|from| (from.get_ref().as_str(), from.span())) {
            None | Some(("password", _)) => TokenField::Password,
            Some(("username", _)) => TokenField::Username,
            Some((_, span)) => {
                let message = "must be \"password\" or \"username\"";
                self.refuse(&format!("{section}.from"), span, message);
                TokenField::Password
            }
        }
    }

    /// A key that this type of authenticator cannot do without.
    fn required<T>(
        &mut self,
        key: &str,
        value: Option<Spanned<T>>,
        kind: &Spanned<String>,
    ) -> Option<Spanned<T>> {
        if value.is_none() {
            let message = format!("needed for type = {:?}", kind.get_ref());
            self.refuse(key, kind.span(), message);
        }
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, ConfigError};

    fn parse(authenticator: &str) -> Result<Authenticator, Vec<(usize, String)>> {
        let text = format!(
            "node = \"n\"\n[[listener]]\naddress = \"127.0.0.1:0\"\n\
             [[access.authenticator]]\n{authenticator}"
        );
        match Config::parse(&text) {
            Ok(config) => Ok(config.access().authenticators[0].clone()),
            Err(ConfigError::Invalid(problems)) => {
                let problems = problems.into_iter();
                let key = |key: String| key.replace("access.authenticator[0]", "");
                Err(problems.map(|it| (it.line, key(it.key))).collect())
            }
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn tokens_have_defaults() {
        let text =
            "type = \"jwt\"\npublic_key_file = \"/k\"\nalgorithms = [\"ES256\", \"EdDSA\"]\n";
        let expected = Jwt {
            keys: KeySource::Public("/k".into()),
            algorithms: vec![Algorithm::ES256, Algorithm::EdDSA],
            issuer: None,
            audience: None,
            leeway: Duration::from_secs(10),
            field: TokenField::Password,
            user_claim: "sub".to_owned(),
            acl_claim: None,
            same_user_name: false,
            disconnect_expired: true,
        };
        assert_eq!(parse(text), Ok(Authenticator::Jwt(expected)));
    }

    #[test]
    fn broken_rules_of_tokens_are_reported() {
        let text = r#"type = "jwt"
secret_file = "/k"
jwks_file = "keys"
algorithms = ["HS256", "RS256", "none"]
issuer = ""
leeway = "1h"
from = "cookie"
path = "/p"
"#;
        let expected = [
            (7, ".jwks_file"),
            (7, ".jwks_file"),
            (8, ".algorithms[1]"),
            (8, ".algorithms[2]"),
            (9, ".issuer"),
            (10, ".leeway"),
            (11, ".from"),
            (12, ".path"),
        ];
        assert_eq!(
            parse(text),
            Err(expected.map(|(line, key)| (line, key.to_owned())).to_vec())
        );
        for (text, key) in [
            ("type = \"jwt\"\nalgorithms = [\"ES256\"]\n", ""),
            ("type = \"jwt\"\nsecret_file = \"/k\"\n", ".algorithms"),
            (
                "type = \"jwt\"\nsecret_file = \"/k\"\nalgorithms = []\n",
                ".algorithms",
            ),
            (
                "type = \"jwt\"\njwks_file = \"/k\"\nalgorithms = [\"HS256\"]\n",
                ".algorithms[0]",
            ),
            (
                "type = \"jwt\"\njwks_file = \"/k\"\nalgorithms = [\"ES256\"]\n\
                 from = \"username\"\nsame_user_name = true\n",
                ".same_user_name",
            ),
            (
                "type = \"file\"\npath = \"/p\"\nissuer = \"x\"\n",
                ".issuer",
            ),
        ] {
            let problems = parse(text).unwrap_err();
            let keys: Vec<_> = problems.iter().map(|(_line, key)| key.as_str()).collect();
            assert_eq!(keys, [key], "{text}");
        }
    }
}
