//! How a control socket says no.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};

/// What a request that failed is answered with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    pub error: String,
    /// What to do about it.
    pub hint: String,
}

/// An error on its way out: JSON, with the status that fits.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    body: ErrorBody,
}

impl ApiError {
    #[must_use]
    pub fn new(status: StatusCode, error: String, hint: &str) -> Self {
        let hint = hint.to_owned();
        Self {
            status,
            body: ErrorBody { error, hint },
        }
    }

    /// For a route that there is not.
    #[must_use]
    pub fn not_found(hint: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "there is no such route".to_owned(),
            hint,
        )
    }

    /// For a route that is not asked in this way.
    #[must_use]
    pub fn not_allowed() -> Self {
        let error = "the route does not take this method".to_owned();
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            error,
            "reading is GET, changing is POST",
        )
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.status, Json(self.body)).into_response()
    }
}
