//! Answers of the API.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use serde_json::Value;

use crate::config::services::Problem;
use crate::store::StoreError;

/// An answer, or why there is none.
pub(super) type Answer = Result<Response<Bytes>, Refusal>;

/// An RFC 9457 problem. (Boxed: it is rare, and every call carries the room.)
#[derive(Debug)]
pub(super) struct Refusal(Box<Inner>);

#[derive(Debug)]
struct Inner {
    status: StatusCode,
    code: &'static str,
    detail: String,
    problems: Vec<Problem>,
    further: HeaderMap,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        let (detail, problems, further) = (detail.into(), Vec::new(), HeaderMap::new());
        Self(Box::new(Inner { status, code, detail, problems, further }))
    }

    /// What is wrong with a service.
    pub(super) fn invalid(problems: Vec<Problem>) -> Self {
        let mut refusal =
            Self::new(StatusCode::UNPROCESSABLE_ENTITY, "service_invalid", "the service cannot be served");
        refusal.0.problems = problems;
        refusal
    }

    pub(super) fn header(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.0.further.insert(name, value);
        }
        self
    }

    #[cfg(test)]
    pub(super) fn status(&self) -> StatusCode {
        self.0.status
    }

    pub(super) fn response(self) -> Response<Bytes> {
        let Inner { status, code, detail, problems, further } = *self.0;
        let mut body = serde_json::json!({
            "type": "about:blank",
            "title": status.canonical_reason().unwrap_or_default(),
            "status": status.as_u16(),
            "detail": detail,
            "code": code,
        });
        if let (false, Some(body)) = (problems.is_empty(), body.as_object_mut()) {
            body.insert("problems".to_owned(), serde_json::json!(problems));
        }
        let mut response = json(status, &body);
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        response.headers_mut().extend(further);
        response
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(_) => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "store_unavailable", error.to_string())
                    .header(header::RETRY_AFTER, "1")
            }
            StoreError::Broken(_) => {
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "store_failed", error.to_string())
            }
            StoreError::Conflict(_) => Self::new(StatusCode::CONFLICT, "conflict", error.to_string()),
        }
    }
}

/// An answer with a body of JSON.
pub(super) fn json(status: StatusCode, value: &Value) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(format!("{value}\n")));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
