//! What a client gets for a login: tokens as JSON (RFC 6749 section 5.1), or the bare token.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue, PRAGMA};
use http::{Response, StatusCode};
use serde_json::json;

use crate::base::quality;

/// What was issued.
pub(super) struct Tokens {
    pub(super) access: String,
    pub(super) lifetime: Duration,
    pub(super) refresh: Option<String>,
}

/// The answer with `tokens`, bare or as JSON. Nobody may keep it.
pub(super) fn tokens(tokens: Tokens, as_text: bool) -> Response<Bytes> {
    let (body, content_type) = if as_text {
        (tokens.access, "text/plain; charset=utf-8")
    } else {
        let mut body = json!({
            "access_token": tokens.access,
            "token_type": "Bearer",
            "expires_in": tokens.lifetime.as_secs(),
        });
        if let (Some(refresh), Some(members)) = (tokens.refresh, body.as_object_mut()) {
            members.insert("refresh_token".to_owned(), refresh.into());
        }
        (body.to_string(), "application/json")
    };
    let mut response = Response::new(Bytes::from(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(PRAGMA, HeaderValue::from_static("no-cache"));
    response
}

/// There is nothing more to say.
pub(super) fn done() -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Public keys, which may be kept for `max_age`.
pub(super) fn keys(jwks: Bytes, max_age: Duration) -> Response<Bytes> {
    let mut response = Response::new(jwks);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/jwk-set+json"));
    if let Ok(value) = HeaderValue::from_str(&format!("public, max-age={}", max_age.as_secs())) {
        headers.insert(CACHE_CONTROL, value);
    }
    response
}

/// Whether `Accept` asks for `text/plain` rather than for JSON (RFC 9110 section 12.5.1); `*/*` takes JSON.
pub(super) fn prefers_text(request: &HeaderMap) -> bool {
    let weight = |wanted: &str| {
        let of = |name: &str| {
            quality::weights(request.get_all(ACCEPT).iter())
                .find(|(item, _)| item.eq_ignore_ascii_case(name))
                .map(|(_, weight)| weight)
        };
        let family = wanted.split('/').next().map(|family| format!("{family}/*")).unwrap_or_default();
        of(wanted).or_else(|| of(&family)).or_else(|| of("*/*")).unwrap_or(0)
    };
    weight("text/plain") > weight("application/json")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(accept: &[&'static str]) -> String {
        let mut request = HeaderMap::new();
        for line in accept {
            request.append(ACCEPT, HeaderValue::from_static(line));
        }
        let made = Tokens { access: "a.b.c".into(), lifetime: Duration::from_secs(60), refresh: None };
        let response = tokens(made, prefers_text(&request));
        assert_eq!(response.headers()["cache-control"], "no-store");
        String::from_utf8(response.into_body().to_vec()).unwrap()
    }

    #[test]
    fn the_bare_token_only_when_asked_for() {
        let json = r#"{"access_token":"a.b.c","token_type":"Bearer","expires_in":60}"#;
        for accept in [
            &[][..],
            &["*/*"],
            &["application/json"],
            &["application/json, text/plain, */*"],
            &["text/plain;q=0.5, application/json"],
            &["text/html"],
            &["text/plain;q=0"],
            &["application/*, text/plain;q=0.9"],
        ] {
            assert_eq!(form(accept), json, "{accept:?}");
        }
        for accept in [
            &["text/plain"][..],
            &["Text/Plain; charset=utf-8"],
            &["text/plain, */*;q=0.1"],
            &["application/json;q=0.1", "text/plain"],
            &["text/*"],
        ] {
            assert_eq!(form(accept), "a.b.c", "{accept:?}");
        }
    }
}
