//! Passwords as files hold them: PHC strings of Argon2, with their own salt and cost.
//!
//! When they are checked, and how many at a time, is for those who are asked for them to say.

use std::{io, ops::RangeInclusive};

use argon2::{
    ARGON2ID_IDENT, Algorithm, Argon2, MIN_SALT_LEN, Params, PasswordHasher as _,
    PasswordVerifier as _, Version,
    password_hash::{self, Output, ParamsString, PasswordHash, SaltString},
};

use crate::{random, secret::Secret};

/// What Argon2's authors recommend.
const NEW_SALT_BYTES: usize = 16;

/// What Argon2 takes as a salt (RFC 9106, 3.1, allows more), and how long PHC strings' are at most.
const SALT_BYTES: RangeInclusive<usize> = MIN_SALT_LEN..=64;

/// What one check may take, in KiB: a mistyped cost must not take a node down.
const MAX_MEMORY: u32 = 1024 * 1024;
const MAX_PASSES: u32 = 100;

/// What is wrong with a hash. Says nothing of the hash itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HashProblem {
    #[error("not a hash of Argon2")]
    NoHash,
    #[error("a hash that costs more than 1 GiB or 100 passes")]
    TooDear,
}

/// Why a password cannot be hashed.
#[derive(Debug, thiserror::Error)]
pub enum HashError {
    #[error("the system gives no random numbers")]
    Random(#[from] io::Error),
    #[error("the password cannot be hashed: {0}")]
    Hash(#[from] password_hash::Error),
}

/// Hashes a password for a file.
///
/// # Errors
///
/// When the system gives no random numbers, or the password is longer than Argon2 takes.
pub fn hash(password: &Secret) -> Result<String, HashError> {
    let mut salt = [0; NEW_SALT_BYTES];
    random::fill(&mut salt)?;
    let salt = SaltString::encode_b64(&salt)?;
    let hash = Argon2::default().hash_password(password.expose(), &salt)?;
    Ok(hash.to_string())
}

/// Whether the password is the hash's, at the cost that the hash says.
#[must_use]
pub fn fits(hash: &str, password: &Secret) -> bool {
    PasswordHash::new(hash).is_ok_and(|hash| {
        Argon2::default()
            .verify_password(password.expose(), &hash)
            .is_ok()
    })
}

/// Whether a text is the whole of a hash, and no dearer than a check may be.
///
/// # Errors
///
/// What is wrong with it.
pub fn check(text: &str) -> Result<(), HashProblem> {
    let hash = PasswordHash::new(text).map_err(|_other| HashProblem::NoHash)?;
    let mut salt = [0; *SALT_BYTES.end()];
    let has_salt = hash
        .salt
        .and_then(|text| text.decode_b64(&mut salt).ok())
        .is_some_and(|salt| SALT_BYTES.contains(&salt.len()));
    let is_whole = has_salt && hash.hash.is_some();
    let is_argon2 = Algorithm::try_from(hash.algorithm).is_ok()
        && hash
            .version
            .is_none_or(|version| Version::try_from(version).is_ok());
    let params = Params::try_from(&hash).map_err(|_other| HashProblem::NoHash)?;
    if !is_whole || !is_argon2 {
        Err(HashProblem::NoHash)
    } else if params.m_cost() > MAX_MEMORY || params.t_cost() > MAX_PASSES {
        Err(HashProblem::TooDear)
    } else {
        Ok(())
    }
}

/// A hash that costs what `model` does, and that no password fits, as its output is all zeros: for the
/// names of nobody, which must take as long.
#[must_use]
pub fn unreachable(model: Option<&str>) -> String {
    let zeros = Output::new(&[0; Params::DEFAULT_OUTPUT_LEN]).ok();
    let mut hash = model
        .and_then(|model| PasswordHash::new(model).ok())
        .unwrap_or(PasswordHash {
            algorithm: ARGON2ID_IDENT,
            version: Some(Version::V0x13.into()),
            params: ParamsString::try_from(&Params::default()).unwrap_or_default(),
            salt: None,
            hash: None,
        });
    let salt = SaltString::encode_b64(&[0; 16]).ok();
    if hash.salt.is_none() {
        hash.salt = salt.as_ref().map(SaltString::as_salt);
    }
    hash.hash = zeros;
    hash.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_has_another_hash_each_time_and_the_usual_cost() {
        let password = Secret::new(b"sesame");
        let (first, second) = (hash(&password).unwrap(), hash(&password).unwrap());
        assert_ne!(first, second);
        assert!(first.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
        assert!(fits(&first, &password));
        assert!(!fits(&first, &Secret::new(b"Sesame")));
        check(&first).unwrap();
    }

    #[test]
    fn what_is_no_hash_or_too_dear_is_told_apart() {
        let good = hash(&Secret::new(b"sesame")).unwrap();
        let dear = good.replace("m=19456,", "m=1048577,");
        assert_eq!(check(&dear), Err(HashProblem::TooDear));
        for bad in [
            "",
            "sesame",
            "$2y$10$abcdefghijk",
            "$argon2id$v=19$m=8,t=1,p=1",
        ] {
            assert_eq!(check(bad), Err(HashProblem::NoHash), "{bad}");
            assert!(!fits(bad, &Secret::new(bad.as_bytes())));
        }
    }

    #[test]
    fn hash_of_nobody_costs_what_its_model_does() {
        let usual = hash(&Secret::new(b"sesame")).unwrap();
        let model = usual.replace("m=19456,t=2", "m=8,t=1");
        let cheap = unreachable(Some(&model));
        assert!(cheap.starts_with("$argon2id$v=19$m=8,t=1,p=1$"), "{cheap}");
        check(&cheap).unwrap();
        let usual = unreachable(None);
        assert!(
            usual.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"),
            "{usual}"
        );
        check(&usual).unwrap();
    }
}
