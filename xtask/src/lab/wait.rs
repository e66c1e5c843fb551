//! Waiting for a fact with a deadline.

use std::time::{Duration, Instant};

/// Between two looks: short against everything waited for, long enough to leave a small machine to the
/// processes under test.
const PAUSE: Duration = Duration::from_millis(10);

/// The deadline passed and the fact was still none.
#[derive(Debug)]
pub struct Expired {
    what: String,
    within: Duration,
}

impl std::fmt::Display for Expired {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} did not happen within {:?}", self.what, self.within)
    }
}

impl std::error::Error for Expired {}

/// Looks until `look` finds something, at least once.
///
/// # Errors
/// [`Expired`], naming `what`, once `within` has passed.
pub fn wait_until<T>(
    within: Duration,
    what: &str,
    mut look: impl FnMut() -> Option<T>,
) -> Result<T, Expired> {
    let deadline = Instant::now() + within;
    loop {
        if let Some(found) = look() {
            return Ok(found);
        }
        if Instant::now() >= deadline {
            let what = what.to_owned();
            return Err(Expired { what, within });
        }
        std::thread::sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fact_that_holds_at_once_needs_no_time() {
        assert_eq!(wait_until(Duration::ZERO, "now", || Some(7)).unwrap(), 7);
    }

    #[test]
    fn what_never_happens_is_named() {
        let expired = wait_until(Duration::ZERO, "a miracle", || None::<()>).unwrap_err();
        assert!(expired.to_string().starts_with("a miracle did not happen"));
    }
}
