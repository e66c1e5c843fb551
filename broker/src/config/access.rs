//! The rules of `[access]`: who is let in.

use std::{net::SocketAddr, path::PathBuf};

use toml::Spanned;

use super::{
    authenticator::Authenticator,
    check::Check,
    file,
    listener::{ClientAuthority, Listener, NamedBy},
};
use crate::access::{ClientIds, Effect};

/// What must be written where nothing says who may connect.
const NOBODY: &str = "nobody could connect: add an [[access.authenticator]], \
                      or identity to a [listener.tls] that has a client_ca, \
                      or [access] with anonymous = true to let in anyone";

/// Who is let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// Whether clients are let in that say nothing of who they are.
    pub anonymous: bool,
    /// What a user's client ids must look like.
    pub client_ids: Option<ClientIds>,
    pub acl: Option<Acl>,
    /// Passwords that are checked at a time; by the number of cores if `None`.
    pub hash_threads: Option<usize>,
    /// The listeners where certificates tell who clients are.
    pub certified: Vec<Certified>,
    /// Who vouches for clients, by listener.
    pub authorities: Vec<(SocketAddr, ClientAuthority)>,
    /// Asked in this order.
    pub authenticators: Vec<Authenticator>,
}

/// A listener where a client's certificate tells who the client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Certified {
    pub listener: SocketAddr,
    pub by: NamedBy,
}

/// Who vouches for the clients of each listener. Of several that ask the kernel for a port none is
/// there: their clients do not tell which of them they have come by.
fn authorities(listeners: &[Listener]) -> Vec<(SocketAddr, ClientAuthority)> {
    let is_one = |address| {
        let mut others = listeners.iter().filter(|other| other.address == address);
        others.nth(1).is_none()
    };
    let listeners = listeners.iter().filter(|it| is_one(it.address));
    listeners
        .filter_map(|listener| {
            let authority = listener.tls.as_ref()?.clients.as_ref()?;
            Some((listener.address, authority.clone()))
        })
        .collect()
}

impl Certified {
    fn of(listener: &Listener) -> Option<Self> {
        let clients = listener.tls.as_ref()?.clients.as_ref()?;
        Some(Self {
            listener: listener.address,
            by: clients.names?,
        })
    }
}

/// Who may publish and subscribe to what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acl {
    pub path: PathBuf,
    /// What no rule decides.
    pub default: Effect,
}

impl Check<'_> {
    pub(super) fn access(&mut self, raw: Option<file::Access>, listeners: &[Listener]) -> Access {
        let file::Access {
            anonymous,
            hash_threads,
            client_id,
            acl,
            authenticator: authenticators,
        } = raw.unwrap_or_default();
        let span = anonymous.as_ref().map_or(0..0, Spanned::span);
        let anonymous = anonymous.is_some_and(Spanned::into_inner);
        let certified: Vec<_> = listeners.iter().filter_map(Certified::of).collect();
        if !anonymous && authenticators.is_empty() && certified.is_empty() {
            self.refuse("access", span, NOBODY);
        }
        let threads = hash_threads
            .map(|threads| self.number("access.hash_threads", Some(threads), 1, 1..1025));
        Access {
            anonymous,
            client_ids: client_id.and_then(|pattern| self.client_ids(&pattern)),
            acl: acl.map(|acl| self.acl(acl)),
            certified,
            authorities: authorities(listeners),
            hash_threads: threads.and_then(|threads| usize::try_from(threads).ok()),
            authenticators: authenticators
                .into_iter()
                .enumerate()
                .filter_map(|(index, raw)| self.authenticator(index, raw))
                .collect(),
        }
    }

    fn client_ids(&mut self, pattern: &Spanned<String>) -> Option<ClientIds> {
        ClientIds::parse(pattern.get_ref())
            .map_err(|error| self.refuse("access.client_id", pattern.span(), error.to_string()))
            .ok()
    }

    fn acl(&mut self, raw: file::Acl) -> Acl {
        let file::Acl { path, default } = raw;
        let default = match default.as_ref().map(|default| default.get_ref().as_str()) {
            None | Some("deny") => Effect::Deny,
            Some("allow") => Effect::Allow,
            Some(_) => {
                let span = default.as_ref().map_or(0..0, Spanned::span);
                let message = "must be \"deny\" or \"allow\"";
                self.refuse("access.acl.default", span, message);
                Effect::Deny
            }
        };
        Acl {
            path: self.absolute("access.acl.path", path),
            default,
        }
    }

    pub(super) fn absolute(&mut self, key: &str, raw: Spanned<String>) -> PathBuf {
        let path = PathBuf::from(raw.get_ref());
        if !path.is_absolute() {
            self.refuse(key, raw.span(), "must be a path that starts with \"/\"");
        }
        path
    }
}
