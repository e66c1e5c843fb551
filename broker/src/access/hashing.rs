//! What it costs to check a password, and who pays: a few threads, and never the shards.
//!
//! A hash takes tens of milliseconds and 19 MiB on purpose. So only a few are computed at a time,
//! others wait in the order of their arrival, and a password that was right before is known again
//! by a keyed digest that costs a microsecond: clients that come back all at once after an
//! interruption wait for no hash. The key never leaves the process and dies with it.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use blake2::{
    Blake2sMac256,
    digest::{CtOutput, Mac},
};
use console::{password, random};
use tokio::sync::Semaphore;

use crate::secret::Secret;

const KEY_BYTES: usize = 32;

/// Checks passwords.
pub(crate) struct Hashing {
    places: Arc<Semaphore>,
    key: [u8; KEY_BYTES],
}

/// A thread that should have checked a password is gone.
#[derive(Debug)]
pub(super) struct Broken;

/// A user's password as a file has it.
pub(super) struct Hash {
    text: Arc<str>,
    /// The digest of the password that fits.
    proven: Mutex<Option<Digest>>,
}

/// Compares in the same time whatever differs.
type Digest = CtOutput<Blake2sMac256>;

impl Hashing {
    /// `threads` is how many passwords are checked at a time, by default on half of the cores: the
    /// others go on with messages.
    ///
    /// # Errors
    /// When the system gives no random numbers.
    pub(super) fn new(threads: Option<usize>) -> io::Result<Self> {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let threads = threads.unwrap_or((cores / 2).max(1));
        let mut key = [0; KEY_BYTES];
        random::fill(&mut key)?;
        Ok(Self {
            places: Arc::new(Semaphore::new(threads)),
            key,
        })
    }

    /// Whether the password is the hash's.
    ///
    /// # Errors
    /// When it could not be checked.
    pub(super) async fn verify(&self, hash: &Arc<Hash>, password: &Secret) -> Result<bool, Broken> {
        let digest = self.digest(password).ok_or(Broken)?;
        if hash.is_proven_by(&digest) {
            return Ok(true);
        }
        let places = Arc::clone(&self.places);
        let place = places.acquire_owned().await.map_err(|_closed| Broken)?;
        let (hash, password) = (Arc::clone(hash), password.clone());
        let fits = tokio::task::spawn_blocking(move || {
            let fits = hash.fits(&password);
            if fits {
                hash.prove(digest);
            }
            // Here and not in the caller, who may give up while the thread goes on.
            drop(place);
            fits
        });
        fits.await.map_err(|_panicked| Broken)
    }

    fn digest(&self, password: &Secret) -> Option<Digest> {
        let mut mac = <Blake2sMac256 as Mac>::new_from_slice(&self.key).ok()?;
        mac.update(password.expose());
        Some(mac.finalize())
    }
}

impl Hash {
    /// Takes a PHC string that was checked.
    pub(super) fn new(text: &str) -> Self {
        Self {
            text: text.into(),
            proven: Mutex::new(None),
        }
    }

    pub(super) fn text(&self) -> &Arc<str> {
        &self.text
    }

    fn fits(&self, password: &Secret) -> bool {
        password::fits(&self.text, password)
    }

    fn is_proven_by(&self, digest: &Digest) -> bool {
        let proven = self.proven.lock().unwrap_or_else(PoisonError::into_inner);
        proven.as_ref() == Some(digest)
    }

    fn prove(&self, digest: Digest) {
        *self.proven.lock().unwrap_or_else(PoisonError::into_inner) = Some(digest);
    }
}

/// A hash as cheap as Argon2 allows, for tests that are about other things.
#[cfg(test)]
pub(crate) fn cheap(password: &str) -> String {
    use argon2::{Argon2, PasswordHasher as _, password_hash::SaltString};

    let params = argon2::Params::new(8, 1, 1, None).unwrap();
    let argon2 = Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
    let salt = SaltString::encode_b64(b"saltsalt").unwrap();
    let hash = argon2.hash_password(password.as_bytes(), &salt).unwrap();
    hash.to_string()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_password_that_was_right_waits_for_nobody() {
        let hashing = Hashing::new(Some(1)).unwrap();
        let hash = Arc::new(Hash::new(&cheap("sesame")));
        let (right, wrong) = (Secret::new(b"sesame"), Secret::new(b"open"));
        assert!(hashing.verify(&hash, &right).await.unwrap());
        let _place = Arc::clone(&hashing.places).acquire_owned().await.unwrap();
        assert!(hashing.verify(&hash, &right).await.unwrap());
        let waits = hashing.verify(&hash, &wrong);
        let waited = tokio::time::timeout(Duration::from_millis(20), waits).await;
        assert!(waited.is_err());
    }

    #[tokio::test]
    async fn one_password_is_checked_at_a_time_and_all_are_answered() {
        let hashing = Hashing::new(Some(1)).unwrap();
        let hash = Arc::new(Hash::new(&cheap("sesame")));
        let wrong = Secret::new(b"open");
        let all = (0..20).map(|_| hashing.verify(&hash, &wrong));
        for answer in futures_util::future::join_all(all).await {
            assert!(!answer.unwrap());
        }
        assert_eq!(hashing.places.available_permits(), 1);
    }
}
