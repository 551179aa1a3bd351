//! Where clients show who they are. One place each: what two readers could read in two ways is refused
//! (RFC 6750 section 2).

use std::borrow::Cow;
use std::fmt;

use http::header::{AUTHORIZATION, HeaderMap, HeaderName};

use crate::identity::token::in_cookies;
use crate::routing::escape::{decode_query, query_means, query_pairs};

/// Where to look, and what the protected part is called.
#[derive(Debug, Clone, Default)]
pub struct Places {
    /// The realm of challenges: visible ASCII without quotes and backslashes.
    pub realm: Box<str>,
    /// The cookie of tokens, beside `Authorization: Bearer`.
    pub cookie: Option<Box<str>>,
    /// The header of API keys, beside `Authorization: ApiKey`.
    pub key_header: Option<HeaderName>,
    /// The parameter of API keys.
    pub key_query: Option<Box<str>>,
}

/// What was found of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found<'a> {
    /// Nothing.
    Nothing,
    /// One. What is no text is not one that anybody issued: an empty one stands for it.
    One(Cow<'a, str>),
    /// More than one, there.
    Several(&'static str),
}

/// More than one `Authorization`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ambiguous;

/// An `Authorization`, taken apart (RFC 9110 section 11.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Authorization<'a> {
    scheme: &'a [u8],
    credentials: &'a [u8],
}

/// Completes "Authorization …" where it is of no use, and shows nothing of what may be secret in it.
impl fmt::Display for Authorization<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// Longest scheme that is shown: those that are registered have less.
        const SCHEME_BYTES_MAX: usize = 24;
        let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'-';
        let name = std::str::from_utf8(self.scheme).ok().filter(|name| {
            name.len() <= SCHEME_BYTES_MAX && !name.is_empty() && name.bytes().all(|byte| is_name(&byte))
        });
        match name {
            // Without a space it may be the credential itself.
            _ if self.credentials.is_empty() => {
                f.write_str("is a single word, where a scheme such as \"Bearer\" and a space come first")
            }
            Some(name) => write!(f, "is of the scheme \"{name}\""),
            None => f.write_str("is of a scheme that is no name"),
        }
    }
}

/// The one `Authorization` of a request.
pub fn authorization(headers: &HeaderMap) -> Result<Option<Authorization<'_>>, Ambiguous> {
    let mut lines = headers.get_all(AUTHORIZATION).iter();
    let Some(line) = lines.next() else { return Ok(None) };
    if lines.next().is_some() {
        return Err(Ambiguous);
    }
    let line = line.as_bytes().trim_ascii();
    let end = memchr::memchr(b' ', line).unwrap_or(line.len());
    let (scheme, rest) = line.split_at_checked(end).unwrap_or((line, b""));
    Ok(Some(Authorization { scheme, credentials: rest.trim_ascii() }))
}

impl Authorization<'_> {
    fn is(&self, scheme: &[u8]) -> bool {
        self.scheme.eq_ignore_ascii_case(scheme)
    }

    /// Whether it is an API key.
    pub fn is_key(&self) -> bool {
        self.is(b"apikey")
    }
}

/// What was found so far, and where it was when that is too much.
struct Search<'a> {
    found: Found<'a>,
    places: &'static str,
}

impl<'a> Search<'a> {
    fn add(&mut self, value: Cow<'a, [u8]>) {
        self.found = match self.found {
            Found::Nothing => Found::One(text(value)),
            _ => Found::Several(self.places),
        };
    }
}

impl Places {
    /// The token of a request.
    pub fn token<'a>(&self, authorization: Option<Authorization<'a>>, headers: &'a HeaderMap) -> Found<'a> {
        let mut search = Search { found: Found::Nothing, places: "the Authorization header and cookies" };
        if let Some(authorization) = authorization.filter(|authorization| authorization.is(b"bearer")) {
            search.add(authorization.credentials.into());
        }
        if let Some(name) = &self.cookie {
            in_cookies(headers, name).for_each(|value| search.add(value.into()));
        }
        search.found
    }

    /// The API key of a request.
    pub fn key<'a>(
        &self,
        authorization: Option<Authorization<'a>>,
        headers: &'a HeaderMap,
        query: Option<&'a str>,
    ) -> Found<'a> {
        let places = "the header of API keys, the Authorization header and the query";
        let mut search = Search { found: Found::Nothing, places };
        if let Some(authorization) = authorization.filter(Authorization::is_key) {
            search.add(authorization.credentials.into());
        }
        if let Some(name) = &self.key_header {
            headers.get_all(name).iter().for_each(|value| search.add(value.as_bytes().into()));
        }
        if let (Some(name), Some(query)) = (&self.key_query, query) {
            let values = query_pairs(query).filter(|(found, _)| query_means(found, name.as_bytes()));
            values.for_each(|(_, value)| search.add(decode_query(value)));
        }
        search.found
    }
}

fn text(bytes: Cow<'_, [u8]>) -> Cow<'_, str> {
    match bytes {
        Cow::Borrowed(bytes) => std::str::from_utf8(bytes).map(Cow::Borrowed).unwrap_or_default(),
        Cow::Owned(bytes) => String::from_utf8(bytes).map(Cow::Owned).unwrap_or_default(),
    }
}

/// `query` without the parameter `name`; `None` if it is not there.
pub fn without(query: &str, name: &str) -> Option<String> {
    let means = |pair: &str| {
        let found = pair.split_once('=').map_or(pair, |(found, _)| found);
        query_means(found, name.as_bytes())
    };
    if !query.split('&').any(means) {
        return None;
    }
    let kept: Vec<_> = query.split('&').filter(|pair| !means(pair)).collect();
    Some(kept.join("&"))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        headers
    }

    fn places() -> Places {
        Places {
            realm: "edgeward".into(),
            cookie: Some("session".into()),
            key_header: Some(HeaderName::from_static("x-api-key")),
            key_query: Some("key".into()),
        }
    }

    fn token(lines: &[(&'static str, &'static str)]) -> Result<Option<String>, &'static str> {
        let headers = headers(lines);
        let authorization = authorization(&headers).map_err(|_| "repeated")?;
        match places().token(authorization, &headers) {
            Found::Nothing => Ok(None),
            Found::One(token) => Ok(Some(token.into_owned())),
            Found::Several(_) => Err("several"),
        }
    }

    #[test]
    fn a_token_stands_in_one_place() {
        let one = |text: &str| Ok(Some(text.to_owned()));
        assert_eq!(token(&[("authorization", "Bearer a.b.c")]), one("a.b.c"));
        assert_eq!(token(&[("authorization", "bEARER   a.b.c ")]), one("a.b.c"));
        assert_eq!(token(&[("authorization", "Bearer")]), one(""));
        assert_eq!(token(&[("authorization", "Bearer a b")]), one("a b"));
        assert_eq!(token(&[("authorization", "Bearer\ta")]), Ok(None));
        assert_eq!(token(&[("authorization", "BearerX a")]), Ok(None));
        assert_eq!(token(&[("authorization", "Basic a")]), Ok(None));
        assert_eq!(token(&[("cookie", "a=1; session=t; xsession=u")]), one("t"));
        assert_eq!(token(&[("cookie", "session=\"t\"")]), one("t"));
        assert_eq!(token(&[("cookie", "sessions=t; Session=u")]), Ok(None));
        assert_eq!(token(&[("authorization", "Basic a"), ("cookie", "session=t")]), one("t"));
        assert_eq!(token(&[("authorization", "Bearer a"), ("cookie", "session=t")]), Err("several"));
        assert_eq!(token(&[("cookie", "session=t; session=t")]), Err("several"));
        assert_eq!(token(&[("cookie", "session=t"), ("cookie", "session=u")]), Err("several"));
        assert_eq!(token(&[("authorization", "Bearer a"), ("authorization", "Bearer a")]), Err("repeated"));
        assert_eq!(token(&[("authorization", "Basic a"), ("authorization", "Bearer a")]), Err("repeated"));
    }

    #[test]
    fn a_key_stands_in_one_place() {
        let key = |lines: &[(&'static str, &'static str)], query: Option<&str>| {
            let headers = headers(lines);
            match places().key(authorization(&headers).unwrap(), &headers, query) {
                Found::Nothing => Ok(None),
                Found::One(key) => Ok(Some(key.into_owned())),
                Found::Several(_) => Err(()),
            }
        };
        let one = |text: &str| Ok(Some(text.to_owned()));
        assert_eq!(key(&[("x-api-key", "k")], None), one("k"));
        assert_eq!(key(&[("authorization", "ApiKey k")], Some("a=b")), one("k"));
        assert_eq!(key(&[("authorization", "APIKEY k")], None), one("k"));
        assert_eq!(key(&[("authorization", "Bearer k")], None), Ok(None));
        assert_eq!(key(&[], Some("a=b&k%65y=a%2Bb+c")), one("a+b c"));
        assert_eq!(key(&[], Some("keys=1&Key=2")), Ok(None));
        assert_eq!(key(&[("x-api-key", "k")], Some("key=k")), Err(()));
        assert_eq!(key(&[("x-api-key", "k"), ("x-api-key", "k")], None), Err(()));
        assert_eq!(key(&[("x-api-key", "k"), ("authorization", "ApiKey k")], None), Err(()));
        assert_eq!(key(&[], Some("key=1&key=1")), Err(()));
        assert_eq!(key(&[], Some("key=%ff")), one(""));
    }

    #[test]
    fn a_parameter_is_taken_out_however_it_is_spelt() {
        assert_eq!(without("a=1&b=2", "key"), None);
        assert_eq!(without("a=1&k%65y=2&b&key", "key").as_deref(), Some("a=1&b"));
        assert_eq!(without("key=2", "key").as_deref(), Some(""));
    }
}
