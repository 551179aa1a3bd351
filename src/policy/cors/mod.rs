//! `[routes.cors]`: which pages of other origins may read answers, and send what (Fetch standard, section 3.2).
//!
//! A browser asks before it sends what a form could not (a **preflight**: OPTIONS with `Origin` and
//! `Access-Control-Request-Method`); such a question carries no credentials and is answered here. Every other answer of the
//! route says who may read it, the gateway's own errors included: a page that may not read a 401 cannot know of it.

mod config;
pub mod origin;

pub use config::CorsRaw;

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, HeaderMap, HeaderName, ORIGIN, VARY,
};
use http::{HeaderValue, Method};

use origin::OriginPattern;

/// Who may read the answers of a route, and send what.
#[derive(Debug)]
pub struct Cors {
    origins: Vec<OriginPattern>,
    /// `None` = the one that is announced: the route takes any.
    methods: Option<HeaderValue>,
    headers: Headers,
    expose: Option<HeaderValue>,
    credentials: bool,
    max_age: Option<HeaderValue>,
}

#[derive(Debug)]
enum Headers {
    /// Only those that need no leave.
    None,
    /// Those that are announced.
    Any,
    /// These.
    These(HeaderValue),
}

/// The fields that are the gateway's to set: what a server says under these names is not sent.
pub const FIELDS: [HeaderName; 6] = [
    ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_ALLOW_CREDENTIALS,
    ACCESS_CONTROL_EXPOSE_HEADERS,
    ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_HEADERS,
    ACCESS_CONTROL_MAX_AGE,
];

/// The method that a preflight asks about; `None` for any other request.
pub fn announced(method: &Method, headers: &HeaderMap) -> Option<Method> {
    if method != Method::OPTIONS || !headers.contains_key(ORIGIN) {
        return None;
    }
    Method::from_bytes(headers.get(ACCESS_CONTROL_REQUEST_METHOD)?.as_bytes()).ok()
}

impl Cors {
    /// The fields of any answer to a request with `origin`, if it has one. `*` is said to those without, too.
    pub fn answer(&self, origin: Option<&HeaderValue>, mut set: impl FnMut(HeaderName, HeaderValue)) {
        if let Some(allowed) = self.allowed(origin) {
            set(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
            if self.credentials {
                set(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
            }
            if let Some(expose) = &self.expose {
                set(ACCESS_CONTROL_EXPOSE_HEADERS, expose.clone());
            }
        }
    }

    /// The fields of the answer to a preflight, whose head has `headers`. Whoever may not learns nothing from it, and his
    /// browser asks no further.
    pub fn preflight(&self, headers: &HeaderMap, mut set: impl FnMut(HeaderName, HeaderValue)) {
        set(VARY, HeaderValue::from_static(PREFLIGHT_VARIES));
        let Some(allowed) = self.allowed(headers.get(ORIGIN)) else { return };
        set(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        if self.credentials {
            set(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        let announced = headers.get(ACCESS_CONTROL_REQUEST_METHOD);
        if let Some(methods) = self.methods.as_ref().or(announced) {
            set(ACCESS_CONTROL_ALLOW_METHODS, methods.clone());
        }
        match (&self.headers, headers.get(ACCESS_CONTROL_REQUEST_HEADERS)) {
            (Headers::These(these), _) => set(ACCESS_CONTROL_ALLOW_HEADERS, these.clone()),
            (Headers::Any, Some(announced)) => set(ACCESS_CONTROL_ALLOW_HEADERS, announced.clone()),
            (Headers::Any | Headers::None, _) => {}
        }
        if let Some(max_age) = &self.max_age {
            set(ACCESS_CONTROL_MAX_AGE, max_age.clone());
        }
    }

    /// Whether answers differ by `Origin`, so that caches must tell them apart: also those to requests without.
    pub fn varies(&self) -> bool {
        !self.says_anybody()
    }

    /// What an answer allows for `origin`.
    fn allowed(&self, origin: Option<&HeaderValue>) -> Option<HeaderValue> {
        if self.says_anybody() {
            // Also without an `Origin`: caches keep one answer for all, those who ask from a page among them.
            return Some(HeaderValue::from_static("*"));
        }
        let origin = origin?;
        self.origins.iter().any(|pattern| pattern.matches(origin.as_bytes())).then(|| origin.clone())
    }

    /// Whether the answer is `*`, whoever asks.
    fn says_anybody(&self) -> bool {
        !self.credentials && self.origins.contains(&OriginPattern::Any)
    }
}

const PREFLIGHT_VARIES: &str = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::decode::decode_str;
    use crate::routing::MethodSet;

    fn allowed(config: &str, origin: Option<&'static str>) -> (Option<HeaderValue>, bool) {
        let mut out = Vec::new();
        let cors = decode_str::<CorsRaw>(config).0.unwrap();
        let cors = cors.compile(MethodSet::EMPTY, "cors", &mut Default::default()).unwrap();
        cors.answer(origin.map(HeaderValue::from_static).as_ref(), |name, value| out.push((name, value)));
        let found = out.into_iter().find(|(name, _)| *name == ACCESS_CONTROL_ALLOW_ORIGIN);
        (found.map(|(_, value)| value), cors.varies())
    }

    /// An answer that is kept for all says the same to all.
    #[test]
    fn anybody_is_told_so_with_and_without_an_origin() {
        for origin in [None, Some("https://a.test")] {
            assert_eq!(allowed("origins = [\"*\"]", origin), (Some(HeaderValue::from_static("*")), false));
        }
        assert_eq!(allowed("origins = [\"https://a.test\"]", None), (None, true));
    }
}
