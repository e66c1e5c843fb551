//! How an authenticator that depends on others is: what the log tells, and `status`.

use std::{
    error::Error,
    sync::{Mutex, PoisonError},
    time::Instant,
};

use tracing::{info, warn};

use super::counts::Complaints;

/// What was last heard of a server.
#[derive(Debug, Default)]
pub(super) struct Health {
    /// Why it could not be asked the last time.
    problem: Mutex<Option<String>>,
    complaints: Complaints,
    relief: Complaints,
}

impl Health {
    pub(super) fn note_good(&self) {
        let was_bad = self.lock().take().is_some();
        if was_bad && self.relief.note(Instant::now()).is_some() {
            info!("the server that knows who clients are answers again");
        }
    }

    /// Too many want to ask it at a time, which says nothing of how the server is.
    pub(super) fn note_crowd(&self, problem: &dyn Error) {
        if let Some(failed) = self.complaints.note(Instant::now()) {
            warn!(failed, last = %problem, "clients could not have their login checked");
        }
    }

    pub(super) fn note_bad(&self, problem: &dyn Error) {
        let problem = problem.to_string();
        if let Some(failed) = self.complaints.note(Instant::now()) {
            warn!(
                failed,
                last = problem,
                "cannot ask the server that knows who clients are"
            );
        }
        *self.lock() = Some(problem);
    }

    pub(super) fn problem(&self) -> Option<String> {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
