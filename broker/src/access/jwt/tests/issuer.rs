//! One that issues tokens.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf, time::SystemTime};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    hmac,
    rand::SystemRandom,
    signature::{
        self, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RsaKeyPair, RsaPublicKeyComponents,
    },
};
use serde_json::{Value, json};

use crate::testing::Dir;

/// ring makes no RSA keys. Nobody trusts this one.
const RSA: &str = include_str!("../testdata/rsa.pem");

pub(crate) const ALGORITHMS: [&str; 12] = [
    "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256",
    "ES384", "EdDSA",
];

/// One that signs tokens.
pub(crate) struct Issuer {
    algorithm: &'static str,
    signer: Signer,
    /// The public key, or the secret.
    key: String,
}

enum Signer {
    Secret(hmac::Key),
    Rsa(Box<RsaKeyPair>, &'static dyn signature::RsaEncoding),
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

impl Issuer {
    pub(crate) fn new(algorithm: &'static str) -> Self {
        let random = SystemRandom::new();
        let secret = |algorithm| {
            let secret = "0123456789abcdef".repeat(4);
            let key = hmac::Key::new(algorithm, secret.as_bytes());
            (Signer::Secret(key), secret)
        };
        let rsa = |encoding: &'static dyn signature::RsaEncoding| {
            let pair = rcgen::KeyPair::from_pem(RSA).unwrap();
            let signer = RsaKeyPair::from_pkcs8(&pair.serialize_der()).unwrap();
            let signer = Signer::Rsa(Box::new(signer), encoding);
            (signer, pair.public_key_pem())
        };
        let ec = |kind, algorithm| {
            let pair = rcgen::KeyPair::generate_for(kind).unwrap();
            let signer = EcdsaKeyPair::from_pkcs8(algorithm, &pair.serialize_der(), &random);
            (Signer::Ec(signer.unwrap()), pair.public_key_pem())
        };
        let (signer, key) = match algorithm {
            "HS256" => secret(hmac::HMAC_SHA256),
            "HS384" => secret(hmac::HMAC_SHA384),
            "HS512" => secret(hmac::HMAC_SHA512),
            "RS256" => rsa(&signature::RSA_PKCS1_SHA256),
            "RS384" => rsa(&signature::RSA_PKCS1_SHA384),
            "RS512" => rsa(&signature::RSA_PKCS1_SHA512),
            "PS256" => rsa(&signature::RSA_PSS_SHA256),
            "PS384" => rsa(&signature::RSA_PSS_SHA384),
            "PS512" => rsa(&signature::RSA_PSS_SHA512),
            "ES256" => ec(
                &rcgen::PKCS_ECDSA_P256_SHA256,
                &signature::ECDSA_P256_SHA256_FIXED_SIGNING,
            ),
            "ES384" => ec(
                &rcgen::PKCS_ECDSA_P384_SHA384,
                &signature::ECDSA_P384_SHA384_FIXED_SIGNING,
            ),
            _ => {
                let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
                let signer = Ed25519KeyPair::from_pkcs8(&pair.serialize_der()).unwrap();
                (Signer::Ed(signer), pair.public_key_pem())
            }
        };
        Self {
            algorithm,
            signer,
            key,
        }
    }

    /// One that signs by HS256 with any secret.
    pub(crate) fn of_secret(secret: &[u8]) -> Self {
        Self {
            algorithm: "HS256",
            signer: Signer::Secret(hmac::Key::new(hmac::HMAC_SHA256, secret)),
            key: String::new(),
        }
    }

    pub(crate) fn algorithm(&self) -> &'static str {
        self.algorithm
    }

    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    /// Writes the key; the result is the section of an authenticator that goes by it.
    pub(crate) fn settings(&self, dir: &Dir) -> String {
        let kind = match self.signer {
            Signer::Secret(_) => "secret_file",
            Signer::Rsa(..) | Signer::Ec(_) | Signer::Ed(_) => "public_key_file",
        };
        format!(
            "[[access.authenticator]]\ntype = \"jwt\"\n{kind} = {:?}\nalgorithms = [{:?}]\n",
            self.write(dir, "key"),
            self.algorithm
        )
    }

    pub(crate) fn write(&self, dir: &Dir, name: &str) -> PathBuf {
        private(dir, name, &self.key)
    }

    /// The public key as a set has it.
    pub(crate) fn jwk(&self, name: &str) -> Value {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let mut key = match &self.signer {
            Signer::Secret(_) => json!({"kty": "oct", "k": text(self.key.as_bytes())}),
            Signer::Rsa(pair, _) => {
                let key: RsaPublicKeyComponents<Vec<u8>> = pair.public().into();
                json!({"kty": "RSA", "n": text(&key.n), "e": text(&key.e)})
            }
            Signer::Ec(pair) => {
                let point = &pair.public_key().as_ref()[1..];
                let (x, y) = point.split_at(point.len() / 2);
                let curve = if x.len() == 32 { "P-256" } else { "P-384" };
                json!({"kty": "EC", "crv": curve, "x": text(x), "y": text(y)})
            }
            Signer::Ed(pair) => {
                json!({"kty": "OKP", "crv": "Ed25519", "x": text(pair.public_key().as_ref())})
            }
        };
        key["kid"] = name.into();
        key
    }

    pub(crate) fn token(&self, claims: &Value) -> String {
        self.token_with(&json!({"alg": self.algorithm, "typ": "JWT"}), claims)
    }

    pub(crate) fn token_with(&self, header: &Value, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(header), part(claims));
        let random = SystemRandom::new();
        let bytes = message.as_bytes();
        let signature = match &self.signer {
            Signer::Secret(key) => hmac::sign(key, bytes).as_ref().to_vec(),
            Signer::Rsa(pair, encoding) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(*encoding, &random, bytes, &mut signature)
                    .unwrap();
                signature
            }
            Signer::Ec(pair) => pair.sign(&random, bytes).unwrap().as_ref().to_vec(),
            Signer::Ed(pair) => pair.sign(bytes).as_ref().to_vec(),
        };
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// A file that not everybody may read.
pub(crate) fn private(dir: &Dir, name: &str, text: &str) -> PathBuf {
    let path = dir.write(name, text);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}

/// Unix time in so many seconds.
pub(crate) fn seconds_from_now(seconds: i64) -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    i64::try_from(now.unwrap().as_secs()).unwrap() + seconds
}

pub(crate) fn claims() -> Value {
    json!({"sub": "alice", "exp": seconds_from_now(3600)})
}
