//! Checks passwords: a few at a time, as each takes 19 MiB and tens of milliseconds of a core, on
//! threads that nothing else waits for.

use std::sync::Arc;

use console::{password, secret::Secret};
use tokio::sync::Semaphore;

/// A daemon that has packets to forward has no more cores for this.
const AT_A_TIME: usize = 2;

/// Those that are being checked and those that wait for that.
pub(crate) const MOST: usize = 16;

/// The places.
#[derive(Clone)]
pub(crate) struct Checker {
    running: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

/// Too many are waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Busy;

impl Default for Checker {
    fn default() -> Self {
        Self {
            running: Arc::new(Semaphore::new(AT_A_TIME)),
            waiting: Arc::new(Semaphore::new(MOST)),
        }
    }
}

impl Checker {
    /// Whether the password is the hash's.
    ///
    /// # Errors
    ///
    /// If it was not looked at.
    pub(crate) async fn fits(&self, hash: Arc<str>, password: Secret) -> Result<bool, Busy> {
        let queued = Arc::clone(&self.waiting).try_acquire_owned();
        let queued = queued.map_err(|_full| Busy)?;
        let place = Arc::clone(&self.running).acquire_owned().await;
        let place = place.map_err(|_closed| Busy)?;
        let checked = tokio::task::spawn_blocking(move || {
            let fits = password::fits(&hash, &password);
            // Here and not in the caller, who may give up while the thread goes on.
            drop((place, queued));
            fits
        });
        checked.await.map_err(|_panicked| Busy)
    }

    /// Takes all places, for tests.
    #[cfg(test)]
    pub(crate) fn fill(&self) -> tokio::sync::OwnedSemaphorePermit {
        let all = u32::try_from(MOST).unwrap();
        Arc::clone(&self.waiting)
            .try_acquire_many_owned(all)
            .unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::cheap;

    #[tokio::test]
    async fn passwords_are_right_or_wrong_or_too_many() {
        let checker = Checker::default();
        let hash: Arc<str> = cheap("sesame").into();
        let check =
            |password: &str| checker.fits(Arc::clone(&hash), Secret::new(password.as_bytes()));
        assert_eq!(check("sesame").await, Ok(true));
        assert_eq!(check("Sesame").await, Ok(false));
        let all = checker.fill();
        assert_eq!(check("sesame").await, Err(Busy));
        drop(all);
        let many = (0..MOST).map(|_| check("sesame"));
        for fits in futures_util::future::join_all(many).await {
            assert_eq!(fits, Ok(true));
        }
        assert_eq!(checker.running.available_permits(), AT_A_TIME);
        assert_eq!(checker.waiting.available_permits(), MOST);
    }
}
