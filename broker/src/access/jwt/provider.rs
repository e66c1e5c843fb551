//! The cryptography of signed tokens: ring's, which TLS is made of too.

use std::sync::Once;

use jsonwebtoken::{
    Algorithm, DecodingKey, DecodingKeyKind, EncodingKey,
    crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils},
    errors::{Error, ErrorKind},
    signature::{self, Verifier},
};
use ring::{
    hmac,
    signature::{RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm},
};

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: no_signer,
    verifier_factory: verifier,
    key_utils: KeyUtils {
        rsa_pub_components_from_private_key: |_key| Err(unsupported()),
        rsa_pub_components_from_public_key: |_key| Err(unsupported()),
        ec_pub_components_from_private_key: |_key, _algorithm| Err(unsupported()),
        ed_pub_components_from_private_key: |_key, _curve| Err(unsupported()),
        compute_digest: |_bytes, _hash| Err(unsupported()),
    },
};

/// Has to come before any token is read.
pub(super) fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Nobody else in this process installs one.
        let _ = PROVIDER.install_default();
    });
}

fn unsupported() -> Error {
    ErrorKind::UnsupportedAlgorithm.into()
}

/// The broker issues no tokens.
fn no_signer(_algorithm: &Algorithm, _key: &EncodingKey) -> Result<Box<dyn JwtSigner>, Error> {
    Err(unsupported())
}

/// A key with the one algorithm that it is used for.
struct Checker {
    algorithm: Algorithm,
    key: Key,
}

enum Key {
    Secret(hmac::Key),
    Public(UnparsedPublicKey<Vec<u8>>),
    Components {
        key: RsaPublicKeyComponents<Vec<u8>>,
        parameters: &'static RsaParameters,
    },
}

/// What a key of the family is checked by.
enum Means {
    Secret(hmac::Algorithm),
    Rsa(&'static RsaParameters),
    Public(&'static dyn VerificationAlgorithm),
}

fn means(algorithm: Algorithm) -> Result<Means, Error> {
    use ring::signature as by;
    Ok(match algorithm {
        Algorithm::HS256 => Means::Secret(hmac::HMAC_SHA256),
        Algorithm::HS384 => Means::Secret(hmac::HMAC_SHA384),
        Algorithm::HS512 => Means::Secret(hmac::HMAC_SHA512),
        Algorithm::RS256 => Means::Rsa(&by::RSA_PKCS1_2048_8192_SHA256),
        Algorithm::RS384 => Means::Rsa(&by::RSA_PKCS1_2048_8192_SHA384),
        Algorithm::RS512 => Means::Rsa(&by::RSA_PKCS1_2048_8192_SHA512),
        Algorithm::PS256 => Means::Rsa(&by::RSA_PSS_2048_8192_SHA256),
        Algorithm::PS384 => Means::Rsa(&by::RSA_PSS_2048_8192_SHA384),
        Algorithm::PS512 => Means::Rsa(&by::RSA_PSS_2048_8192_SHA512),
        Algorithm::ES256 => Means::Public(&by::ECDSA_P256_SHA256_FIXED),
        Algorithm::ES384 => Means::Public(&by::ECDSA_P384_SHA384_FIXED),
        Algorithm::EdDSA => Means::Public(&by::ED25519),
        _ => return Err(unsupported()),
    })
}

fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>, Error> {
    let algorithm = *algorithm;
    // A public key must never serve as a secret, whatever the token says.
    if key.family() != algorithm.family() {
        return Err(ErrorKind::InvalidKeyFormat.into());
    }
    let key = match (means(algorithm)?, key.kind()) {
        (Means::Secret(hash), DecodingKeyKind::SecretOrDer(bytes)) => {
            Key::Secret(hmac::Key::new(hash, bytes))
        }
        (Means::Public(by), DecodingKeyKind::SecretOrDer(bytes)) => {
            Key::Public(UnparsedPublicKey::new(by, bytes.clone()))
        }
        (Means::Rsa(by), DecodingKeyKind::SecretOrDer(bytes)) => {
            Key::Public(UnparsedPublicKey::new(by, bytes.clone()))
        }
        (Means::Rsa(parameters), DecodingKeyKind::RsaModulusExponent { n, e }) => {
            let (n, e) = (n.clone(), e.clone());
            let key = RsaPublicKeyComponents { n, e };
            Key::Components { key, parameters }
        }
        (Means::Secret(_) | Means::Public(_), DecodingKeyKind::RsaModulusExponent { .. }) => {
            return Err(ErrorKind::InvalidKeyFormat.into());
        }
    };
    Ok(Box::new(Checker { algorithm, key }))
}

impl Verifier<Vec<u8>> for Checker {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), signature::Error> {
        let checked = match &self.key {
            Key::Secret(key) => hmac::verify(key, message, signature),
            Key::Public(key) => key.verify(message, signature),
            Key::Components { key, parameters } => key.verify(parameters, message, signature),
        };
        checked.map_err(|_wrong| signature::Error::new())
    }
}

impl JwtVerifier for Checker {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}
