//! Who vouches for the clients of a listener, and which clients that are connected they would still
//! vouch for after a reload.
//!
//! Nothing is checked twice here: that somebody vouches for a certificate rustls has found out when it
//! was shown. Who that was it does not tell, so all who may have been count, by their names.

use std::collections::{HashMap, HashSet};

use ring::digest;
use rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;

use super::{TlsError, certificate, certificates, revocations};
use crate::{
    config::{ClientAuthority, Demand},
    peer::{Anchor, ClientCertificate, Issued},
};

/// The authorities that a listener takes certificates of, by a digest of their names.
#[derive(Default)]
pub(super) struct Authorities(HashMap<[u8; 32], Vec<Anchor>>);

impl Authorities {
    pub(super) fn of(roots: &[CertificateDer<'static>]) -> Self {
        let mut authorities = Self::default();
        let read = roots.iter().filter_map(|root| certificate::read(root));
        for root in read {
            let name = certificate::digest_of(root.subject());
            authorities.0.entry(name).or_default().push(anchor(&root));
        }
        authorities
    }

    /// All that may have vouched for what a client has shown: whoever is called like the issuer of
    /// any part of it. Who has vouched is among them; if that cannot be told, it may be any.
    pub(super) fn behind(&self, chain: &[CertificateDer<'_>]) -> Box<[Anchor]> {
        let mut found = Vec::new();
        for shown in chain {
            let Some(shown) = certificate::read(shown) else {
                return self.all();
            };
            let issuer = certificate::digest_of(shown.issuer());
            found.extend(self.0.get(&issuer).into_iter().flatten().copied());
        }
        if found.is_empty() {
            return self.all();
        }
        found.sort_unstable();
        found.dedup();
        found.into()
    }

    fn all(&self) -> Box<[Anchor]> {
        self.0.values().flatten().copied().collect()
    }
}

/// What a listener asks of its clients' certificates.
pub(crate) struct Trust {
    demand: Demand,
    anchors: HashSet<Anchor>,
    revoked: HashSet<Issued>,
}

impl Trust {
    /// Reads the files that say so.
    ///
    /// # Errors
    /// When one of them cannot be used.
    pub(crate) fn load(authority: &ClientAuthority) -> Result<Self, TlsError> {
        let ClientAuthority {
            file,
            demand,
            revoked: lists,
            names: _,
        } = authority;
        let mut revoked = HashSet::new();
        if let Some(path) = lists {
            for list in revocations(path)? {
                let read = certificate::revoked(&list);
                let path = path.clone();
                revoked.extend(read.ok_or(TlsError::NoRevocations { path })?);
            }
        }
        Ok(Self {
            demand: *demand,
            anchors: Authorities::of(&certificates(file)?)
                .all()
                .into_iter()
                .collect(),
            revoked,
        })
    }

    /// Whether a client would be let in with what it has shown, if anything.
    pub(crate) fn covers(&self, shown: Option<&ClientCertificate>) -> bool {
        let Some(shown) = shown else {
            return self.demand == Demand::Optional;
        };
        let is_revoked = |issued| self.revoked.contains(issued);
        shown.anchors.iter().all(|by| self.anchors.contains(by))
            && !shown.issued.as_ref().is_some_and(is_revoked)
    }
}

/// Its name and key: with another number or time it is still the same authority.
fn anchor(root: &X509Certificate<'_>) -> Anchor {
    let mut context = digest::Context::new(&digest::SHA256);
    let name = root.subject().as_raw();
    context.update(&(name.len() as u64).to_be_bytes());
    context.update(name);
    context.update(root.public_key().raw);
    let mut bytes = [0; 32];
    bytes.copy_from_slice(context.finish().as_ref());
    Anchor(bytes)
}
