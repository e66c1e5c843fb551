//! The rules of `[[listener]]`.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use lb_decap::Prefix;
use toml::Spanned;

use super::{check::Check, file};

/// One address to listen on, and how clients speak there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    pub address: SocketAddr,
    pub protocol: Protocol,
    /// Who starts connections with a PROXY header. From anybody else it is not taken.
    pub proxies: Vec<Prefix>,
    pub tls: Option<TlsFiles>,
}

/// What is spoken on a connection, within TLS where there is that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Protocol {
    Mqtt,
    WebSocket(Door),
}

/// Where in HTTP the broker is found, and by whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Door {
    pub path: String,
    /// The web pages whose browsers may connect, such as `https://example.org`; all if `None`. Who is
    /// no browser names no page (RFC 6455, 10.2).
    pub origins: Option<Vec<String>>,
}

/// The files that TLS of a listener is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
    pub clients: Option<ClientAuthority>,
}

/// Who vouches for clients, and whether somebody must.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientAuthority {
    pub file: PathBuf,
    pub demand: Demand,
    /// Which of their certificates are good no more.
    pub revoked: Option<PathBuf>,
    /// What in a certificate is its user's name, where certificates tell that.
    pub names: Option<NamedBy>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demand {
    Optional,
    Required,
}

/// What in a client's certificate is the user's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NamedBy {
    /// The subject's.
    CommonName,
    // Those of the subject alternative name (RFC 5280, 4.2.1.6).
    Email,
    Dns,
    Uri,
}

impl NamedBy {
    pub(crate) const ALL: [(&str, Self); 4] = [
        ("common_name", Self::CommonName),
        ("email", Self::Email),
        ("dns", Self::Dns),
        ("uri", Self::Uri),
    ];
}

/// Where MQTT over WebSocket is usually found.
const WS_PATH: &str = "/mqtt";

fn is_path(path: &str) -> bool {
    let is_legal = |c: char| c.is_ascii_graphic() && !matches!(c, '?' | '#');
    path.starts_with('/') && path.chars().all(is_legal)
}

fn is_origin(origin: &str) -> bool {
    let host = origin.split_once("://").map(|(_scheme, host)| host);
    let is_legal = |c: char| c.is_ascii_graphic() && !matches!(c, '/' | '?' | '#' | ',' | '*');
    host.is_some_and(|host| !host.is_empty() && host.chars().all(is_legal))
}

impl Check<'_> {
    pub(super) fn listeners(&mut self, raw: Vec<file::Listener>) -> Vec<Listener> {
        if raw.is_empty() {
            self.refuse("listener", 0..0, "at least one [[listener]] is needed");
        }
        let mut listeners: Vec<Listener> = Vec::with_capacity(raw.len());
        for (index, listener) in raw.into_iter().enumerate() {
            let file::Listener {
                address,
                protocol,
                path,
                origins,
                proxy_protocol,
                tls,
            } = listener;
            let section = format!("listener[{index}]");
            let protocol = self.protocol(&section, protocol.as_ref(), path, origins);
            let proxies = self.proxies(&section, proxy_protocol);
            let tls = tls.map(|tls| self.tls(&section, tls));
            let key = format!("{section}.address");
            let Some(parsed) = self.parse::<SocketAddr>(&key, &address, "an address and port")
            else {
                continue;
            };
            // Port 0 asks the kernel for a free one, so two of them never clash.
            let is_taken = listeners.iter().any(|other| other.address == parsed);
            if parsed.port() != 0 && is_taken {
                self.refuse(&key, address.span(), "listed twice");
            }
            listeners.push(Listener {
                address: parsed,
                protocol,
                proxies,
                tls,
            });
        }
        listeners
    }

    fn protocol(
        &mut self,
        section: &str,
        protocol: Option<&Spanned<String>>,
        path: Option<Spanned<String>>,
        origins: Option<Spanned<Vec<Spanned<String>>>>,
    ) -> Protocol {
        let key = format!("{section}.path");
        match protocol.map(|protocol| protocol.get_ref().as_str()) {
            Some("ws") => {
                if let Some(path) = &path
                    && !is_path(path.get_ref())
                {
                    let message = "a path such as \"/mqtt\": no space, and no query";
                    self.refuse(&key, path.span(), message);
                }
                let path = path.map_or_else(|| WS_PATH.to_owned(), Spanned::into_inner);
                let origins = origins.map(|origins| self.origins(section, origins));
                return Protocol::WebSocket(Door { path, origins });
            }
            None | Some("mqtt") => {
                if let Some(path) = path {
                    let message = "only WebSocket has paths: add protocol = \"ws\"";
                    self.refuse(&key, path.span(), message);
                }
                if let Some(origins) = origins {
                    let key = format!("{section}.origins");
                    let message = "only WebSocket comes from pages: add protocol = \"ws\"";
                    self.refuse(&key, origins.span(), message);
                }
            }
            Some(_) => {
                let span = protocol.map_or(0..0, Spanned::span);
                let key = format!("{section}.protocol");
                let message = "must be \"mqtt\" or \"ws\"; a [listener.tls] section adds TLS";
                self.refuse(&key, span, message);
            }
        }
        Protocol::Mqtt
    }

    fn origins(&mut self, section: &str, origins: Spanned<Vec<Spanned<String>>>) -> Vec<String> {
        for origin in origins.get_ref() {
            if !is_origin(origin.get_ref()) {
                let key = format!("{section}.origins");
                let message = "a scheme, host and port as browsers say it, such as \
                               \"https://example.org\": no path";
                self.refuse(&key, origin.span(), message);
            }
        }
        let origins = origins.into_inner().into_iter();
        origins.map(Spanned::into_inner).collect()
    }

    fn proxies(
        &mut self,
        section: &str,
        list: Option<Spanned<Vec<Spanned<String>>>>,
    ) -> Vec<Prefix> {
        let Some(list) = list else {
            return Vec::new();
        };
        if list.get_ref().is_empty() {
            let key = format!("{section}.proxy_protocol");
            let message = "at least one prefix: where the proxies connect from";
            self.refuse(&key, list.span(), message);
        }
        let mut proxies = Vec::new();
        for (index, text) in list.into_inner().into_iter().enumerate() {
            match text.get_ref().parse() {
                Ok(prefix) => proxies.push(prefix),
                Err(error) => {
                    let key = format!("{section}.proxy_protocol[{index}]");
                    self.refuse(&key, text.span(), format!("{error}"));
                }
            }
        }
        proxies
    }

    fn tls(&mut self, section: &str, raw: file::ListenerTls) -> TlsFiles {
        let file::ListenerTls {
            certificate,
            key,
            client_ca,
            client_certificates,
            client_crl,
            identity,
        } = raw;
        let section = format!("{section}.tls");
        let demand = self.demand(&section, client_certificates.as_ref());
        let dependent = [
            ("client_certificates", &client_certificates),
            ("client_crl", &client_crl),
            ("identity", &identity),
        ];
        for (name, value) in dependent {
            if let (Some(value), None) = (value, &client_ca) {
                let message = "only client_ca can tell which certificates are good: add it";
                self.refuse(&format!("{section}.{name}"), value.span(), message);
            }
        }
        let revoked = client_crl.map(|file| self.file(&section, "client_crl", file));
        let names = identity.and_then(|identity| self.named_by(&section, &identity));
        TlsFiles {
            certificate: self.file(&section, "certificate", certificate),
            key: self.file(&section, "key", key),
            clients: client_ca.map(|file| ClientAuthority {
                file: self.file(&section, "client_ca", file),
                demand,
                revoked,
                names,
            }),
        }
    }

    fn demand(&mut self, section: &str, raw: Option<&Spanned<String>>) -> Demand {
        let Some(raw) = raw else {
            return Demand::Required;
        };
        match raw.get_ref().as_str() {
            "required" => Demand::Required,
            "optional" => Demand::Optional,
            _ => {
                let key = format!("{section}.client_certificates");
                let message = "must be \"optional\" or \"required\"";
                self.refuse(&key, raw.span(), message);
                Demand::Required
            }
        }
    }

    fn named_by(&mut self, section: &str, raw: &Spanned<String>) -> Option<NamedBy> {
        let mut known = NamedBy::ALL.into_iter();
        let found = known.find(|(name, _named_by)| name == raw.get_ref());
        if found.is_none() {
            let key = format!("{section}.identity");
            let message = "must be \"common_name\", \"email\", \"dns\" or \"uri\"";
            self.refuse(&key, raw.span(), message);
        }
        found.map(|(_name, named_by)| named_by)
    }

    /// A file is named from the root, as the directory that the broker is started in is a matter of
    /// chance.
    fn file(&mut self, section: &str, name: &str, path: Spanned<String>) -> PathBuf {
        if !Path::new(path.get_ref()).is_absolute() {
            let key = format!("{section}.{name}");
            self.refuse(&key, path.span(), "the path of a file, from the root");
        }
        path.into_inner().into()
    }
}
