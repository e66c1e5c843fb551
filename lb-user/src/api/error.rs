//! Errors as JSON, with the status that fits.

use axum::http::StatusCode;
pub(super) use console::api::ApiError;

use crate::{
    control::{ChangeError, ReloadError, RouterChangeError, Stopping, TraceError, UnknownNotifier},
    core::balancer::SelectError,
};

impl From<Stopping> for ApiError {
    fn from(error: Stopping) -> Self {
        let hint = "wait until it is up again";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string(), hint)
    }
}

impl From<UnknownNotifier> for ApiError {
    fn from(error: UnknownNotifier) -> Self {
        let hint = "`tidegate status --json` lists those that there are, under `notifiers`";
        Self::new(StatusCode::NOT_FOUND, error.to_string(), hint)
    }
}

impl From<ReloadError> for ApiError {
    fn from(error: ReloadError) -> Self {
        let (status, hint) = match error {
            ReloadError::Config(_) => (
                StatusCode::BAD_REQUEST,
                "nothing was changed: correct the file and reload again",
            ),
            ReloadError::NeedsRestart(_) => (
                StatusCode::BAD_REQUEST,
                "nothing was changed: restart the daemon for these",
            ),
            ReloadError::NoRoom(_) => (
                StatusCode::CONFLICT,
                "nothing was changed: `tidegate backend list` shows who is leaving",
            ),
            ReloadError::Ports(_) => (
                StatusCode::BAD_REQUEST,
                "nothing was changed: correct the ports and reload again",
            ),
            ReloadError::Addresses(_) => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "nothing was changed: see the daemon's log",
            ),
            ReloadError::Routers => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "no service was changed: see the daemon's log, and reload again",
            ),
            ReloadError::Maps(_) | ReloadError::Vips(_) => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "the daemon goes on trying: see its log and `tidegate status`",
            ),
        };
        Self::new(status, error.to_string(), hint)
    }
}

impl From<RouterChangeError> for ApiError {
    fn from(error: RouterChangeError) -> Self {
        let (status, hint) = match error {
            RouterChangeError::Unknown { .. } => (
                StatusCode::NOT_FOUND,
                "`tidegate vrrp status` shows all virtual routers",
            ),
            RouterChangeError::Busy => (StatusCode::SERVICE_UNAVAILABLE, "try again"),
        };
        Self::new(status, error.to_string(), hint)
    }
}

impl From<TraceError> for ApiError {
    fn from(error: TraceError) -> Self {
        let (status, hint) = match error {
            TraceError::Select(_) | TraceError::UnknownService { .. } => (
                StatusCode::NOT_FOUND,
                "`tidegate status` shows all services and backends",
            ),
            TraceError::Weight { .. } => (
                StatusCode::BAD_REQUEST,
                "a backend of weight 0 takes no new flows",
            ),
            TraceError::Leaving { .. } => (
                StatusCode::CONFLICT,
                "only that it goes down can be supposed of it",
            ),
            TraceError::Tables(_) => (StatusCode::INTERNAL_SERVER_ERROR, "see the daemon's log"),
        };
        Self::new(status, error.to_string(), hint)
    }
}

impl From<ChangeError> for ApiError {
    fn from(error: ChangeError) -> Self {
        let (status, hint) = match error {
            ChangeError::Select(SelectError::Unknown { .. }) => (
                StatusCode::NOT_FOUND,
                "`tidegate backend list` shows all backends",
            ),
            ChangeError::Select(SelectError::Ambiguous { .. }) => (
                StatusCode::CONFLICT,
                "give the service's name too: SERVICE/BACKEND",
            ),
            ChangeError::Weight { .. } => (
                StatusCode::BAD_REQUEST,
                "a backend of weight 0 takes no new flows",
            ),
            ChangeError::Leaving { .. } => (
                StatusCode::CONFLICT,
                "put it back into the file and reload; `disable` would end its sessions",
            ),
            ChangeError::NotKept(_) => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "check the daemon's state_dir, then repeat it",
            ),
            ChangeError::Maps(_) => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "the daemon goes on trying: see its log and `tidegate status`",
            ),
        };
        Self::new(status, error.to_string(), hint)
    }
}
