//! Errors as clients see them: RFC 9457 problem documents, an HTML page when asked for, gRPC's own form.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};

use super::pressure;
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
    /// Each a `WWW-Authenticate` (RFC 9110 section 11.6.1).
    pub challenges: Vec<String>,
    /// The length in bytes that a 416 tells in `Content-Range` (RFC 9110 section 15.5.17).
    /// Boxed, as it is rare and every refusal carries the room.
    pub complete_length: Option<Box<u64>>,
    /// The limit that refuses, where one does.
    pub quota: Option<Box<Quota>>,
    /// What is rarely to be added.
    pub parts: Option<Box<Parts>>,
}

/// What the answer says of a limit that refuses (draft-ietf-httpapi-ratelimit-headers-10, section on problem types).
#[derive(Debug, Clone)]
pub struct Quota {
    /// The names of the policies that are violated; visible ASCII without quotes and backslashes.
    pub violated: Vec<Box<str>>,
    /// What the client is told instead of the reason's usual words.
    pub message: Option<Arc<str>>,
    /// 429, or 503 where all clients share the limit.
    pub status: u16,
}

/// What the problem of an aggregate says beside why, and that of a body that cannot be read.
#[derive(Debug, Clone, Default)]
pub struct Parts {
    /// The status, where it is not the reason's: what a service said, which is passed on.
    pub status: Option<u16>,
    /// The leg that is to blame, and its word for why. Both need no escaping.
    pub leg: Option<(Arc<str>, &'static str)>,
    /// What exactly is wrong with what the client sent, in place of the reason's usual words. Says nothing of its values.
    pub explanation: Option<Box<str>>,
    /// Further headers.
    pub headers: Vec<(HeaderName, HeaderValue)>,
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
    /// The problem for `reason`. One that passes by itself says when.
    pub fn new(reason: Reason) -> Self {
        let retry_after = (reason == Reason::Overloaded).then_some(pressure::RETRY_AFTER);
        let (allow, challenges) = (None, Vec::new());
        Self { reason, retry_after, allow, challenges, complete_length: None, quota: None, parts: None }
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

    /// The status of the answer.
    pub fn status(&self) -> u16 {
        let passed = self.parts.as_ref().and_then(|parts| parts.status);
        let limited = self.quota.as_ref().map(|quota| quota.status);
        passed.or(limited).unwrap_or(self.reason.status())
    }

    /// What the client is told in words.
    pub fn detail(&self) -> &str {
        let message = self.quota.as_ref().and_then(|quota| quota.message.as_deref());
        let explanation = self.parts.as_ref().and_then(|parts| parts.explanation.as_deref());
        message.or(explanation).unwrap_or_else(|| self.reason.detail())
    }

    /// The body in `form`; empty for gRPC, whose error stands in the header.
    ///
    /// `request_id` is one of ours (32 hex digits) or passed the check for foreign ones: it needs no escaping.
    pub fn body(&self, form: Form, request_id: &str) -> String {
        let (status, code, detail) = (self.status(), self.reason.code(), self.detail());
        let title = phrase(status);
        match form {
            Form::Grpc => String::new(),
            Form::Json => {
                let retry =
                    self.retry_after_seconds().map(|s| format!(",\"retry_after\":{s}")).unwrap_or_default();
                let (kind, violated) = match &self.quota {
                    Some(quota) => (quota.kind(), quota.member()),
                    None => ("about:blank", String::new()),
                };
                // A message is the operator's, and may hold anything.
                let detail = serde_json::Value::from(detail);
                let leg = self.parts.as_ref().and_then(|parts| parts.leg.as_ref());
                let leg = leg.map(|(leg, why)| format!(",\"leg\":\"{leg}\",\"leg_code\":\"{why}\""));
                let leg = leg.unwrap_or_default();
                format!(
                    "{{\"type\":\"{kind}\",\"title\":\"{title}\",\"status\":{status},\"detail\":{detail},\
                     \"instance\":\"urn:request:{request_id}\",\"code\":\"{code}\",\"request_id\":\"{request_id}\"{retry}{violated}{leg}}}\n"
                )
            }
            Form::Html => {
                let detail = detail.replace('&', "&amp;").replace('<', "&lt;");
                format!(
                    "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{status} {title}</title></head>\n\
                     <body><h1>{status} {title}</h1><p>{detail}</p><p><small>{code} &middot; request {request_id}</small></p></body></html>\n"
                )
            }
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

impl Quota {
    /// The problem type that is registered for it.
    fn kind(&self) -> &'static str {
        match self.status {
            503 => "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity",
            _ => "https://iana.org/assignments/http-problem-types#quota-exceeded",
        }
    }

    fn member(&self) -> String {
        let names: Vec<String> = self.violated.iter().map(|name| format!("\"{name}\"")).collect();
        format!(",\"violated-policies\":[{}]", names.join(","))
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
    fn a_limit_says_which_and_in_its_own_words() {
        let quota = |status| Quota {
            violated: vec!["per_client".into(), "per_client/h".into()],
            message: Some("Slow \"down\" <please>\n".into()),
            status,
        };
        let problem = |status| Problem {
            quota: Some(Box::new(quota(status))),
            ..Problem::new(Reason::RateLimited).retry_after(Duration::ZERO)
        };
        let body = |status| -> serde_json::Value {
            serde_json::from_str(&problem(status).body(Form::Json, "ab12")).unwrap()
        };
        assert_eq!(body(429)["type"], "https://iana.org/assignments/http-problem-types#quota-exceeded");
        assert_eq!(body(429)["violated-policies"], serde_json::json!(["per_client", "per_client/h"]));
        assert_eq!(body(429)["detail"], "Slow \"down\" <please>\n");
        assert_eq!(body(429)["retry_after"], 1);
        assert_eq!(body(503)["status"], 503);
        assert_eq!(body(503)["title"], "Service Unavailable");
        assert!(body(503)["type"].as_str().unwrap().ends_with("#temporary-reduced-capacity"));
        assert!(problem(429).body(Form::Html, "ab12").contains("<p>Slow \"down\" &lt;please>"));
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
