//! Errors as clients see them: RFC 9457 problem documents, an HTML page when asked for, gRPC's own form.

use std::borrow::Cow;
use std::time::Duration;

use super::reason::{Reason, phrase};

/// One error answer, before it is written in a form.
#[derive(Debug, Clone)]
pub struct Problem {
    /// Why; gives status, code and the default detail.
    pub reason: Reason,
    /// Sent as `Retry-After`, rounded up to whole seconds, at least 1.
    pub retry_after: Option<Duration>,
    /// The methods a 405 lists in `Allow`.
    pub allow: Option<Cow<'static, str>>,
    /// The length in bytes that a 416 tells in `Content-Range` (RFC 9110 section 15.5.17).
    pub complete_length: Option<u64>,
}

/// How an error is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `application/problem+json`.
    Json,
    /// A small page, for browsers.
    Html,
    /// HTTP 200 with `grpc-status` and `grpc-message` and no body ("trailers-only").
    Grpc,
}

impl Problem {
    /// The problem for `reason`.
    pub fn new(reason: Reason) -> Self {
        Self { reason, retry_after: None, allow: None, complete_length: None }
    }

    /// Adds when to try again.
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// Whole seconds for `Retry-After` (RFC 9110 section 10.2.3): rounded up, at least 1.
    pub fn retry_after_seconds(&self) -> Option<u64> {
        self.retry_after.map(|after| (after.as_secs() + u64::from(after.subsec_nanos() > 0)).max(1))
    }

    /// The body in `form`; empty for gRPC, whose error stands in the header.
    ///
    /// `request_id` is one of ours (32 hex digits) or passed the check for foreign ones: it needs no escaping.
    pub fn body(&self, form: Form, request_id: &str) -> String {
        let (status, code, detail) = (self.reason.status(), self.reason.code(), self.reason.detail());
        let title = phrase(status);
        match form {
            Form::Grpc => String::new(),
            Form::Json => {
                let retry =
                    self.retry_after_seconds().map(|s| format!(",\"retry_after\":{s}")).unwrap_or_default();
                format!(
                    "{{\"type\":\"about:blank\",\"title\":\"{title}\",\"status\":{status},\"detail\":\"{detail}\",\
                     \"instance\":\"urn:request:{request_id}\",\"code\":\"{code}\",\"request_id\":\"{request_id}\"{retry}}}\n"
                )
            }
            Form::Html => format!(
                "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{status} {title}</title></head>\n\
                 <body><h1>{status} {title}</h1><p>{detail}</p><p><small>{code} &middot; request {request_id}</small></p></body></html>\n"
            ),
        }
    }

    /// The media type of [`Problem::body`] in `form`.
    pub fn content_type(form: Form) -> &'static str {
        match form {
            Form::Json => "application/problem+json",
            Form::Html => "text/html; charset=utf-8",
            Form::Grpc => "application/grpc",
        }
    }
}

/// The form a client asked for: gRPC by the request's content type, HTML only when `Accept` prefers it to JSON.
pub fn negotiate(content_type: Option<&[u8]>, accept: Option<&[u8]>) -> Form {
    if content_type.is_some_and(|value| value.starts_with(b"application/grpc")) {
        return Form::Grpc;
    }
    let Some(accept) = accept.and_then(|value| std::str::from_utf8(value).ok()) else {
        return Form::Json;
    };
    let (mut html, mut json) = (0.0_f32, None::<f32>);
    for item in accept.split(',').take(ACCEPT_ITEMS_MAX) {
        let mut parts = item.split(';').map(str::trim);
        let media = parts.next().unwrap_or("");
        let quality = parts
            .find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")))
            .and_then(|quality| quality.parse().ok())
            .unwrap_or(1.0);
        if media.eq_ignore_ascii_case("text/html") || media.eq_ignore_ascii_case("application/xhtml+xml") {
            html = f32::max(html, quality);
        } else if ["application/problem+json", "application/json"]
            .iter()
            .any(|name| media.eq_ignore_ascii_case(name))
        {
            json = Some(json.unwrap_or(0.0).max(quality));
        }
    }
    if html > json.unwrap_or(0.0) { Form::Html } else { Form::Json }
}

/// Items of an `Accept` header looked at; browsers send fewer than ten.
const ACCEPT_ITEMS_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_is_json() {
        for reason in Reason::ALL {
            let body =
                Problem::new(*reason).retry_after(Duration::from_millis(1500)).body(Form::Json, "ab12");
            let value: serde_json::Value = serde_json::from_str(&body).unwrap();
            assert_eq!(value["status"], reason.status());
            assert_eq!(value["code"], reason.code());
            assert_eq!(value["retry_after"], 2);
        }
    }

    #[test]
    fn html_only_when_preferred() {
        let browser = b"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
        assert_eq!(negotiate(None, Some(browser)), Form::Html);
        assert_eq!(negotiate(None, Some(b"*/*")), Form::Json);
        assert_eq!(negotiate(None, None), Form::Json);
        assert_eq!(negotiate(None, Some(b"application/json, text/html;q=0.5")), Form::Json);
        assert_eq!(negotiate(None, Some(b"text/html;q=0")), Form::Json);
        assert_eq!(negotiate(Some(b"application/grpc+proto"), Some(browser)), Form::Grpc);
    }
}
