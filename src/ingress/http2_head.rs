//! What the library lets pass in the head of an HTTP/2 request although two servers could read it in two ways. The same
//! rules hold as for HTTP/1, which such a request may be turned into (RFC 9113 sections 8.2 and 8.3).

use http::header::{CONTENT_LENGTH, EXPECT, HOST};
use http::request::Parts;
use http::{HeaderValue, Method};

use super::head::{Rule, check_path};

/// Fields past which a request is no longer only refused with 431, but counted against its connection: small fields that are
/// said again by a byte each make an answer cost more than the question.
const FIELDS_MAX: usize = 500;

/// Checks `head`.
///
/// # Errors
/// The rule that it breaks.
pub(super) fn check(head: &Parts) -> Result<(), Rule> {
    // Pingora refuses it without asking anybody.
    if head.method == Method::CONNECT {
        return Err(Rule::Connect);
    }
    if head.headers.len() > FIELDS_MAX {
        return Err(Rule::FieldLines);
    }
    check_path(head.uri.path_and_query().map_or("", |target| target.as_str()).as_bytes())?;
    let mut hosts = head.headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next(), head.uri.authority()) {
        (_, Some(_), _) => return Err(Rule::HostRepeated),
        (None, None, None) => return Err(Rule::HostMissing),
        (Some(host), None, Some(authority)) if host.as_bytes() != authority.as_str().as_bytes() => {
            return Err(Rule::HostDiffers);
        }
        _ => {}
    }
    if head.headers.get_all(CONTENT_LENGTH).iter().nth(1).is_some() {
        return Err(Rule::LengthRepeated);
    }
    let continues = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
    if !head.headers.get_all(EXPECT).iter().all(continues) {
        return Err(Rule::Expectation);
    }
    Ok(())
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
        let request = fields.iter().fold(request, |request, (name, value)| request.header(*name, *value));
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
            ("http://a/x", &[("host", "A")], Err(Rule::HostDiffers)),
            ("http://a/x", &[("host", "a"), ("host", "a")], Err(Rule::HostRepeated)),
            ("http://a/x", &[("content-length", "3"), ("content-length", "3")], Err(Rule::LengthRepeated)),
            ("http://a/x", &[("expect", "x")], Err(Rule::Expectation)),
            ("http://a/x\\y", &[], Err(Rule::PathByte)),
            ("http://a/\u{e9}", &[], Err(Rule::TargetBytes)),
        ] {
            assert_eq!(check(&head(uri, fields)), expected, "{uri} {fields:?}");
        }
        let mut connect = head("http://a/x", &[]);
        connect.method = Method::CONNECT;
        assert_eq!(check(&connect), Err(Rule::Connect));
    }
}
