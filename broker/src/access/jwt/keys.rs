//! The keys that tokens are signed with: a shared secret, public keys in PEM, or a JSON Web Key Set
//! (RFC 7517).
//!
//! What a key may be used for is found when it is read, from its kind and the configuration. What a
//! token says of its algorithm only picks among that.

use std::fmt;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{
    Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind, Header,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse},
};
use ring::digest;
use rustls::pki_types::{SubjectPublicKeyInfoDer, pem::PemObject};
use serde::Deserialize;
use thiserror::Error;
use x509_parser::{
    oid_registry::{
        OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_PKCS1_RSAENCRYPTION,
        OID_SIG_ED25519,
    },
    prelude::FromDer,
    public_key::PublicKey,
    x509::SubjectPublicKeyInfo,
};

/// A token that names no key may be tried with all of them.
const MOST_KEYS: usize = 32;

/// In bits; what ring checks signatures with.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// Why keys cannot be used.
#[derive(Debug, Error)]
pub enum KeysError {
    #[error("it is shorter than the hash of {algorithm:?}: {needed} bytes are needed")]
    ShortSecret { algorithm: Algorithm, needed: usize },
    #[error("nothing between BEGIN PUBLIC KEY and END in it")]
    NoPublicKey,
    #[error("it is no PEM file, or a key in it is damaged")]
    Damaged,
    #[error("a key in it is none of RSA with 2048 to 8192 bits, P-256, P-384 or Ed25519")]
    UnknownKind,
    #[error("a key in it suits none of the configured algorithms")]
    Unsuitable,
    /// Not in the reader's own words, which quote what is there.
    #[error("it is no JSON Web Key Set: line {line}, column {column} is none of one")]
    NoSet { line: usize, column: usize },
    #[error("none of its keys suits the configured algorithms, or it has none")]
    NoneSuitable,
    #[error("it has more than {MOST_KEYS} keys that suit the configured algorithms")]
    TooMany,
}

/// What a key is known by after a reload.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::access) struct KeyId([u8; 32]);

impl fmt::Debug for KeyId {
    /// The digest of a secret could be tried out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyId")
    }
}

/// A key and what it is good for.
pub(super) struct Key {
    pub(super) id: KeyId,
    /// How tokens call it.
    name: Option<String>,
    /// All of one family.
    pub(super) algorithms: Vec<Algorithm>,
    pub(super) key: DecodingKey,
}

/// All keys of one issuer.
#[derive(Default)]
pub(super) struct Keys(Vec<Key>);

/// The kinds of keys, as far as algorithms differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Secret,
    Rsa,
    P256,
    P384,
    Ed25519,
}

impl Kind {
    fn suits(self, algorithm: Algorithm) -> bool {
        match self {
            Self::Secret => algorithm.family() == AlgorithmFamily::Hmac,
            Self::Rsa => algorithm.family() == AlgorithmFamily::Rsa,
            Self::P256 => algorithm == Algorithm::ES256,
            Self::P384 => algorithm == Algorithm::ES384,
            Self::Ed25519 => algorithm == Algorithm::EdDSA,
        }
    }

    fn pick(self, algorithms: &[Algorithm]) -> Vec<Algorithm> {
        let algorithms = algorithms.iter().copied();
        algorithms.filter(|it| self.suits(*it)).collect()
    }
}

impl Key {
    fn new(kind: Kind, key: DecodingKey, algorithms: &[Algorithm], name: Option<String>) -> Self {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(format!("{kind:?}").as_bytes());
        match key.kind() {
            DecodingKeyKind::SecretOrDer(bytes) => context.update(bytes),
            DecodingKeyKind::RsaModulusExponent { n, e } => {
                context.update(&(n.len() as u64).to_be_bytes());
                context.update(n);
                context.update(e);
            }
        }
        let mut id = [0; 32];
        id.copy_from_slice(context.finish().as_ref());
        Self {
            id: KeyId(id),
            name,
            algorithms: kind.pick(algorithms),
            key,
        }
    }

    fn may_have_signed(&self, header: &Header) -> bool {
        let is_named = match (&self.name, &header.kid) {
            (Some(own), Some(named)) => own == named,
            (None, _) | (_, None) => true,
        };
        is_named && self.algorithms.contains(&header.alg)
    }
}

impl Keys {
    /// A secret that the issuer has too. Its length is what RFC 7518, 3.2, asks for.
    pub(super) fn of_secret(secret: &[u8], algorithms: &[Algorithm]) -> Result<Self, KeysError> {
        for algorithm in algorithms {
            let longer = [(Algorithm::HS384, 48), (Algorithm::HS512, 64)];
            let found = longer.iter().find(|(longer, _bytes)| longer == algorithm);
            let needed = found.map_or(32, |(_algorithm, bytes)| *bytes);
            if secret.len() < needed {
                let algorithm = *algorithm;
                return Err(KeysError::ShortSecret { algorithm, needed });
            }
        }
        let key = DecodingKey::from_secret(secret);
        Ok(Self(vec![Key::new(Kind::Secret, key, algorithms, None)]))
    }

    /// Public keys as PEM; several while one takes the place of another.
    pub(super) fn of_pem(text: &[u8], algorithms: &[Algorithm]) -> Result<Self, KeysError> {
        let found: Result<Vec<_>, _> = SubjectPublicKeyInfoDer::pem_slice_iter(text).collect();
        let found = found.map_err(|_error| KeysError::Damaged)?;
        if found.is_empty() {
            return Err(KeysError::NoPublicKey);
        }
        let keys = found.iter().map(|info| public_key(info, algorithms));
        Self::bounded(keys.collect::<Result<_, _>>()?)
    }

    /// The keys of a set that are of use; those of other kinds, or for other ends, are left out.
    pub(super) fn of_set(text: &[u8], algorithms: &[Algorithm]) -> Result<Self, KeysError> {
        let keys = suitable(text, algorithms)?;
        if keys.is_empty() {
            return Err(KeysError::NoneSuitable);
        }
        Self::bounded(keys)
    }

    /// As [`Self::of_set`], of a set that takes the place of another: keys that are not in it are good
    /// no more, whatever else is wrong with it.
    pub(super) fn of_answer(
        text: &[u8],
        algorithms: &[Algorithm],
    ) -> Result<(Self, Option<KeysError>), KeysError> {
        let mut keys = suitable(text, algorithms)?;
        let problem = if keys.is_empty() {
            Some(KeysError::NoneSuitable)
        } else {
            (keys.len() > MOST_KEYS).then_some(KeysError::TooMany)
        };
        keys.truncate(MOST_KEYS);
        Ok((Self(keys), problem))
    }

    fn bounded(keys: Vec<Key>) -> Result<Self, KeysError> {
        if keys.len() > MOST_KEYS {
            return Err(KeysError::TooMany);
        }
        Ok(Self(keys))
    }

    /// Those by which a token may have been signed.
    pub(super) fn for_token(&self, header: &Header) -> impl Iterator<Item = &Key> {
        self.0.iter().filter(|key| key.may_have_signed(header))
    }

    pub(super) fn has(&self, id: &KeyId) -> bool {
        self.0.iter().any(|key| key.id == *id)
    }

    pub(super) fn has_all_of(&self, others: &Self) -> bool {
        others.0.iter().all(|other| self.has(&other.id))
    }

    pub(super) fn count(&self) -> usize {
        self.0.len()
    }
}

fn suitable(text: &[u8], algorithms: &[Algorithm]) -> Result<Vec<Key>, KeysError> {
    #[derive(Deserialize)]
    struct Set {
        keys: Vec<serde_json::Value>,
    }
    let set: Set = serde_json::from_slice(text).map_err(|error| KeysError::NoSet {
        line: error.line(),
        column: error.column(),
    })?;
    let keys = set.keys.into_iter();
    Ok(keys
        .filter_map(|key| from_set(serde_json::from_value(key).ok()?, algorithms))
        .collect())
}

fn public_key(info: &[u8], algorithms: &[Algorithm]) -> Result<Key, KeysError> {
    let (_rest, info) =
        SubjectPublicKeyInfo::from_der(info).map_err(|_error| KeysError::Damaged)?;
    let content = &*info.subject_public_key.data;
    let kind = kind_of(&info).ok_or(KeysError::UnknownKind)?;
    let key = match kind {
        Kind::Rsa => DecodingKey::from_rsa_der(content),
        Kind::P256 | Kind::P384 => DecodingKey::from_ec_der(content),
        Kind::Ed25519 => DecodingKey::from_ed_der(content),
        Kind::Secret => return Err(KeysError::UnknownKind),
    };
    let key = Key::new(kind, key, algorithms, None);
    if key.algorithms.is_empty() {
        return Err(KeysError::Unsuitable);
    }
    Ok(key)
}

fn kind_of(info: &SubjectPublicKeyInfo<'_>) -> Option<Kind> {
    let algorithm = &info.algorithm.algorithm;
    if *algorithm == OID_PKCS1_RSAENCRYPTION {
        let Ok(PublicKey::RSA(key)) = info.parsed() else {
            return None;
        };
        RSA_BITS.contains(&key.key_size()).then_some(Kind::Rsa)
    } else if *algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY {
        let curve = info.algorithm.parameters.as_ref()?.as_oid().ok()?;
        if curve == OID_EC_P256 {
            Some(Kind::P256)
        } else if curve == OID_NIST_EC_P384 {
            Some(Kind::P384)
        } else {
            None
        }
    } else {
        (*algorithm == OID_SIG_ED25519).then_some(Kind::Ed25519)
    }
}

/// A key of a set, if it is for checking signatures by a configured algorithm.
fn from_set(jwk: Jwk, algorithms: &[Algorithm]) -> Option<Key> {
    let common = &jwk.common;
    let is_for_signatures = common
        .public_key_use
        .as_ref()
        .is_none_or(|it| *it == PublicKeyUse::Signature);
    let may_verify = common
        .key_operations
        .as_ref()
        .is_none_or(|operations| operations.contains(&KeyOperations::Verify));
    if !is_for_signatures || !may_verify {
        return None;
    }
    let kind = match &jwk.algorithm {
        AlgorithmParameters::RSA(key) => {
            let modulus = URL_SAFE_NO_PAD.decode(&key.n).ok()?;
            let bits = modulus.len() * 8;
            RSA_BITS.contains(&bits).then_some(Kind::Rsa)?
        }
        AlgorithmParameters::EllipticCurve(key) => match key.curve {
            EllipticCurve::P256 => Kind::P256,
            EllipticCurve::P384 => Kind::P384,
            EllipticCurve::P521 | EllipticCurve::Ed25519 | _ => return None,
        },
        AlgorithmParameters::OctetKeyPair(key) => {
            (key.curve == EllipticCurve::Ed25519).then_some(Kind::Ed25519)?
        }
        // A set is not secret, so no key in it may be.
        AlgorithmParameters::OctetKey(_) | AlgorithmParameters::Other(_) | _ => return None,
    };
    let own: Vec<_> = match common.key_algorithm {
        Some(own) => vec![Algorithm::try_from(own).ok()?],
        None => algorithms.to_vec(),
    };
    let algorithms: Vec<_> = algorithms
        .iter()
        .copied()
        .filter(|algorithm| own.contains(algorithm))
        .collect();
    let key = DecodingKey::from_jwk(&jwk).ok()?;
    let key = Key::new(kind, key, &algorithms, jwk.common.key_id);
    (!key.algorithms.is_empty()).then_some(key)
}
