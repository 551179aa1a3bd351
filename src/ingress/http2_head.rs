//! What the library lets pass in the head of an HTTP/2 request although two servers could read it in two ways. The same
//! rules hold as for HTTP/1, which such a request may be turned into (RFC 9113 sections 8.2 and 8.3).

use http::header::{CONTENT_LENGTH, EXPECT, HOST};
use http::request::Parts;
use http::uri::Scheme;
use http::{HeaderValue, Method};

use super::head::{METHOD_BYTES_MAX, Rule, check_path, length};
use crate::base::authority::{agree, is_authority};
use crate::base::wire::octets::is_token;

/// Fields past which a request is no longer only refused with 431, but counted against its connection: small fields that are
/// said again by a byte each make an answer cost more than the question.
pub(super) const FIELDS_MAX: usize = 500;

/// Checks `head`, behind which comes nothing if it `ends` the stream.
///
/// # Errors
/// The rule that it breaks.
pub(crate) fn check(head: &Parts, ends: bool) -> Result<(), Rule> {
    // Pingora refuses it without asking anybody.
    if head.method == Method::CONNECT {
        return Err(Rule::Connect);
    }
    if head.method.as_str().len() > METHOD_BYTES_MAX {
        return Err(Rule::MethodLength);
    }
    if head.uri.authority().is_some() && !head.uri.scheme_str().is_some_and(is_scheme) {
        return Err(Rule::TargetForm);
    }
    if head.headers.len() > FIELDS_MAX {
        return Err(Rule::FieldLines);
    }
    check_path(head.uri.path_and_query().map_or("", |target| target.as_str()).as_bytes())?;
    let mut hosts = head.headers.get_all(HOST).iter();
    let authority = head.uri.authority().map(|authority| authority.as_str().as_bytes());
    let host = match (hosts.next().map(HeaderValue::as_bytes), hosts.next(), authority) {
        (_, Some(_), _) => return Err(Rule::HostRepeated),
        (None, None, None) => return Err(Rule::HostMissing),
        (Some(host), None, Some(authority)) if !agree(host, authority, default_port(head)) => {
            return Err(Rule::HostDiffers);
        }
        (host, None, authority) => host.or(authority).unwrap_or_default(),
    };
    if !is_authority(host) {
        return Err(Rule::HostInvalid);
    }
    let mut lengths = head.headers.get_all(CONTENT_LENGTH).iter();
    match (lengths.next(), lengths.next()) {
        (_, Some(_)) => return Err(Rule::LengthRepeated),
        // The library takes nothing for a zero.
        (Some(value), None) if length(value.as_bytes()).is_none() => return Err(Rule::LengthInvalid),
        _ => {}
    }
    if head.method == Method::TRACE && !ends {
        return Err(Rule::TraceBody);
    }
    // The library takes a quote for a part of a token.
    if !head.headers.keys().all(|name| is_token(name.as_str().as_bytes())) {
        return Err(Rule::FieldName);
    }
    // It would be whitespace around the value in HTTP/1, which readers take away, or do not (RFC 9113 section 8.2.1).
    let is_space = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    if head.headers.values().any(|value| {
        let value = value.as_bytes();
        is_space(value.first()) || is_space(value.last())
    }) {
        return Err(Rule::FieldSpace);
    }
    let continues = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
    if !head.headers.get_all(EXPECT).iter().all(continues) {
        return Err(Rule::Expectation);
    }
    Ok(())
}

/// What a head that passed says of the length of its body.
pub(super) fn length_of(head: &Parts) -> Option<u64> {
    length(head.headers.get(CONTENT_LENGTH)?.as_bytes())
}

/// Whether `text` is a scheme (RFC 3986 section 3.1).
fn is_scheme(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'))
}

/// The port of an authority without one.
fn default_port(head: &Parts) -> u16 {
    if head.uri.scheme() == Some(&Scheme::HTTPS) { 443 } else { 80 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the library puts it together, which takes paths that `http::Uri` alone does not.
    fn head(uri: &str, fields: &[(&str, &str)]) -> Parts {
        let (authority, path) = match uri.strip_prefix("http://") {
            Some(rest) => rest.split_at(rest.find('/').unwrap()),
            None => ("", uri),
        };
        let mut parts = http::uri::Parts::default();
        if !authority.is_empty() {
            parts.scheme = Some(http::uri::Scheme::HTTP);
            parts.authority = Some(authority.parse().unwrap());
        }
        let path = bytes::Bytes::copy_from_slice(path.as_bytes());
        parts.path_and_query = Some(http::uri::PathAndQuery::from_maybe_shared(path).unwrap());
        let request = http::Request::builder().method("GET").uri(http::Uri::from_parts(parts).unwrap());
        let request = fields.iter().fold(request, |request, (name, value)| {
            request.header(http::HeaderName::from_lowercase(name.as_bytes()).unwrap(), *value)
        });
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn what_two_servers_could_read_in_two_ways() {
        for (uri, fields, expected) in [
            ("http://a/x?y", &[][..], Ok(())),
            ("http://a/x", &[("host", "a")], Ok(())),
            ("/x", &[("host", "a")], Ok(())),
            ("http://a/x", &[("content-length", "3"), ("expect", "100-Continue")], Ok(())),
            ("/x", &[], Err(Rule::HostMissing)),
            ("http://a/x", &[("host", "b")], Err(Rule::HostDiffers)),
            ("http://a/x", &[("host", "A")], Ok(())),
            ("http://a/x", &[("host", "a:80")], Ok(())),
            ("http://a/x", &[("host", "a:443")], Err(Rule::HostDiffers)),
            ("http://u@a/x", &[("host", "u@a")], Err(Rule::HostDiffers)),
            ("http://u@a/x", &[], Err(Rule::HostInvalid)),
            ("/x", &[("host", "a/b")], Err(Rule::HostInvalid)),
            ("/x", &[("host", "")], Err(Rule::HostInvalid)),
            ("http://a/x", &[("content-length", "")], Err(Rule::LengthInvalid)),
            ("http://a/x", &[("content-length", "+3")], Err(Rule::LengthInvalid)),
            ("http://a/x", &[("x", "a b\tc")], Ok(())),
            ("http://a/x", &[("x", " a")], Err(Rule::FieldSpace)),
            ("http://a/x", &[("x\"", "a")], Err(Rule::FieldName)),
            ("http://a/x", &[("x", "a\t")], Err(Rule::FieldSpace)),
            ("http://a/x", &[("host", "a"), ("host", "a")], Err(Rule::HostRepeated)),
            ("http://a/x", &[("content-length", "3"), ("content-length", "3")], Err(Rule::LengthRepeated)),
            ("http://a/x", &[("expect", "x")], Err(Rule::Expectation)),
            ("http://a/x\\y", &[], Err(Rule::PathByte)),
            ("http://a/\u{e9}", &[], Err(Rule::TargetBytes)),
        ] {
            assert_eq!(check(&head(uri, fields), false), expected, "{uri} {fields:?}");
        }
        let mut trace = head("http://a/x", &[]);
        trace.method = Method::TRACE;
        assert_eq!((check(&trace, true), check(&trace, false)), (Ok(()), Err(Rule::TraceBody)));
        let mut connect = head("http://a/x", &[]);
        connect.method = Method::CONNECT;
        assert_eq!(check(&connect, true), Err(Rule::Connect));
    }
}
