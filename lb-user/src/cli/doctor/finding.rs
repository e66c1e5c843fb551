//! One thing that was looked at.

use serde::Serialize;

/// How bad it is, the worst last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Level {
    Ok,
    Warning,
    Error,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) level: Level,
    pub(super) subject: &'static str,
    pub(super) message: String,
    /// What to do, if it is not well.
    pub(super) advice: Option<String>,
}

pub(super) fn ok(subject: &'static str, message: impl Into<String>) -> Finding {
    Finding {
        level: Level::Ok,
        subject,
        message: message.into(),
        advice: None,
    }
}

/// It works, and not as well as it could, or may not for long.
pub(super) fn warning(
    subject: &'static str,
    message: impl Into<String>,
    advice: impl Into<String>,
) -> Finding {
    bad(Level::Warning, subject, message.into(), advice.into())
}

/// Clients are not served, or will not be.
pub(super) fn error(
    subject: &'static str,
    message: impl Into<String>,
    advice: impl Into<String>,
) -> Finding {
    bad(Level::Error, subject, message.into(), advice.into())
}

fn bad(level: Level, subject: &'static str, message: String, advice: String) -> Finding {
    Finding {
        level,
        subject,
        message,
        advice: Some(advice),
    }
}
