//! Who is told of events, as the outside sees them.

use serde::{Deserialize, Serialize};

/// One `[[notify]]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotifierStatus {
    pub name: String,
    /// `exec`, `webhook` or `email`.
    #[serde(rename = "type")]
    pub means: String,
    /// Told, since the start or the last change of its configuration.
    pub sent: u64,
    /// Given up, after all attempts.
    pub failed: u64,
    /// Not told one by one, as there were too many.
    pub held_back: u64,
    /// Waiting for their turn.
    pub waiting: u64,
    pub running: u64,
    /// Why the last one was given up, if it was.
    pub last_error: Option<String>,
}

/// What came of a test.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotifyTest {
    pub name: String,
    /// Why it was not told, if it was not.
    pub error: Option<String>,
}

/// Nobody of that name is told anything.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no [[notify]] named {name}")]
pub struct UnknownNotifier {
    pub name: String,
}
