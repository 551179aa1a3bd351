//! What templates become, and what they must never become.

use http::{HeaderMap, Method};
use proptest::prelude::*;

use super::*;
use crate::routing::Mistake;

fn pattern(text: &str) -> PathPattern {
    PathPattern::parse(text).unwrap()
}

fn path_mistake(text: &str) -> Mistake {
    let route = pattern("/a/{id}/*");
    Template::path(text, Scope { pattern: &route, groups: None }).unwrap_err()
}

struct Sent {
    path: &'static str,
    query: String,
    header: String,
    cookie: String,
}

impl Default for Sent {
    fn default() -> Self {
        Self { path: "/a/7/b/c", query: String::new(), header: "h".to_owned(), cookie: "k".to_owned() }
    }
}

fn expand<T>(sent: &Sent, look: impl FnOnce(&Values<'_>) -> T) -> T {
    let mut headers = HeaderMap::new();
    headers.insert("x-h", sent.header.parse().unwrap());
    headers.insert("cookie", format!("k={}", sent.cookie).parse().unwrap());
    let request = RequestView {
        listener: 0,
        host: "shop.example",
        path: sent.path,
        query: Some(&sent.query).filter(|query| !query.is_empty()).map(String::as_str),
        method: &Method::GET,
        headers: &headers,
    };
    let captures = pattern("/a/{id}/*").captures(sent.path).unwrap();
    let client = Some(IpAddr::from([192, 0, 2, 1]));
    look(&Values {
        request: &request,
        captures: &captures,
        scheme: "https",
        id: "r1",
        client,
        client_cert: None,
        who: Who::default(),
    })
}

fn to_path(text: &str, sent: &Sent) -> Result<String, ExpandError> {
    let route = pattern("/a/{id}/*");
    let template = Template::path(text, Scope { pattern: &route, groups: None }).unwrap();
    expand(sent, |values| template.expand_path(values, &Captures::default()))
}

fn to_location(text: &str, sent: &Sent) -> Result<String, ExpandError> {
    let route = pattern("/a/{id}/*");
    let template = Template::location(text, Scope { pattern: &route, groups: None }).unwrap();
    expand(sent, |values| template.expand_location(values))
}

#[test]
fn values_land_encoded() {
    let sent = Sent { query: "v=x%2F..%3F+y&w=1".to_owned(), header: "a/b".to_owned(), ..Sent::default() };
    for (text, expected) in [
        ("/v1/{path.id}/{path.rest}", "/v1/7/b/c"),
        ("/{query.v}", "/x%2F..%3F%20y"),
        ("/{header.X-H}-{cookie.k}", "/a%2Fb-k"),
        ("/{client.ip}/{request.id}/{request.method}/{request.scheme}", "/192.0.2.1/r1/GET/https"),
        ("/{{{path.id}}}", "/%7B7%7D"),
        ("/p{request.path}", "/p/a/7/b/c"),
        ("/ä/%7e{path.id}", "/%C3%A4/~7"),
    ] {
        assert_eq!(to_path(text, &sent).as_deref(), Ok(expected), "{text}");
    }
}

fn to_words(text: &str, sent: &Sent) -> Option<String> {
    let route = pattern("/a/{id}/*");
    let template = Template::value(text, Scope { pattern: &route, groups: None }).unwrap();
    expand(sent, |values| template.expand_words(values))
}

#[test]
fn a_value_is_one_word_of_a_routing_key() {
    let sent = Sent { query: "v=x+y&dots=a.b&any=%23&some=*&line=a%0Ab&none=".to_owned(), ..Sent::default() };
    assert_eq!(to_words("shop.{path.id}.{query.v}.#", &sent).as_deref(), Some("shop.7.x y.#"));
    for no_word in ["dots", "any", "some", "line", "none", "missing"] {
        assert_eq!(to_words(&format!("shop.{{query.{no_word}}}"), &sent), None, "{no_word}");
    }
}

#[test]
fn a_value_that_is_missing_or_climbs_makes_no_path() {
    let query = |query: &str| Sent { query: query.to_owned(), ..Sent::default() };
    assert_eq!(to_path("/{query.v}/x", &query("w=1")), Err(ExpandError::Missing("query.v".into())));
    assert_eq!(to_path("/{query.v}/x", &query("v=")), Err(ExpandError::Missing("query.v".into())));
    assert_eq!(to_path("/a/{query.v}/x", &query("v=..")), Err(ExpandError::Path(BadPath::Dots)));
    assert_eq!(to_path("/a/.{query.v}", &query("v=%2e")), Err(ExpandError::Path(BadPath::Dots)));
    assert_eq!(to_path("/a/{query.v}", &query("v=%00")), Err(ExpandError::Path(BadPath::Control)));
}

#[test]
fn locations_keep_the_query_unless_they_have_one() {
    let sent = Sent { query: "v=1&w=a b".to_owned(), ..Sent::default() };
    for (text, expected) in [
        ("https://www.example.com/new/{path.rest}", "https://www.example.com/new/b/c?v=1&w=a%20b"),
        ("/new/{path.id}?x={query.w}&y={query.z}", "/new/7?x=a%20b&y="),
        ("https://{request.host}{request.path}", "https://shop.example/a/7/b/c?v=1&w=a%20b"),
        ("https://{request.host}:8443/x?", "https://shop.example:8443/x?"),
        ("https://example.com", "https://example.com?v=1&w=a%20b"),
        ("/x?r={request.path}#{path.id}/y", "/x?r=%2Fa%2F7%2Fb%2Fc#7/y"),
    ] {
        assert_eq!(to_location(text, &sent).as_deref(), Ok(expected), "{text}");
    }
}

#[test]
fn clients_cannot_choose_the_host() {
    let route = pattern("/a/{id}/*");
    let scope = Scope { pattern: &route, groups: None };
    for text in [
        "https://{path.id}/x",
        "https://{header.host}/x",
        "https://a.{request.host}/x",
        "https://example.com{path.id}/",
        "https://{request.host}{query.x}",
        "https://user@example.com/",
        "https:///x",
        "//example.com/",
        "ftp://example.com/",
        "{query.to}",
        "new",
        "",
    ] {
        assert!(Template::location(text, scope).is_err(), "{text}");
    }
    let sent = Sent { path: "/a/1//evil.example", ..Sent::default() };
    assert_eq!(to_location("/{path.rest}", &sent).as_deref(), Ok("/evil.example"));
}

#[test]
fn mistakes_are_pointed_at() {
    for (text, at, message, hint) in [
        ("/x/{path.idd}", 9..12, "declares no `idd`", "{path.id}"),
        ("/x/{path.zzzz}", 9..13, "declares no `zzzz`", "it declares id, rest"),
        ("/x/{pth.id}", 4..7, "not a source", "did you mean `path`?"),
        ("/x/{jwt.}", 4..8, "`{jwt.}` names no claim", ""),
        ("/x/{consumer.group}", 13..18, "`group` is not known of a consumer", "did you mean `groups`?"),
        ("/x/{id}", 4..6, "names no source", "{path.id}"),
        ("/x/{1}", 4..5, "names no source", "{path.NAME}"),
        ("/x/{request.hst}", 12..15, "not known of a request", "did you mean `host`?"),
        ("/x/{client.port}", 11..15, "not known of a client", "{client.ip}"),
        (
            "/x/{client.cert.subjct}",
            11..22,
            "`subjct` is not known of a certificate",
            "did you mean `subject`?",
        ),
        ("/x/{client.cert.}", 11..16, "is not known of a certificate", "one of subject, issuer"),
        ("/x/{header.a b}", 11..14, "not a header name", ""),
        ("/x/{query.}", 4..10, "names no query", ""),
        ("/x/{path.id", 3..4, "is not closed", "{{"),
        ("/x/{path{.id}", 3..4, "is not closed", "{{"),
        ("/x/}", 3..4, "closes nothing", "}}"),
        ("/x?y={path.id}", 0..5, "no `?`", "%3F"),
        ("/x/../{path.id}", 0..15, "dots", ""),
        ("/x/%zz", 0..6, "hex digits", ""),
        ("x/{path.id}", 0..11, "does not start", "/v1/{path.id}"),
    ] {
        let mistake = path_mistake(text);
        assert!(mistake.message.contains(message), "{text}: {mistake}");
        assert_eq!(mistake.at, at, "{text}: {mistake}");
        assert!(mistake.hint.clone().unwrap_or_default().contains(hint), "{text}: {:?}", mistake.hint);
    }
}

proptest! {
    /// Whatever a client sends, it adds no segment, no parameter, no line.
    #[test]
    fn values_stay_where_they_land(
        query in "[ -~]{0,12}",
        header in "[!-~ä]{1,12}",
        cookie in "[!-:<-~]{0,12}",
    ) {
        let mut encoded = String::new();
        push_query(&mut encoded, query.as_bytes());
        let sent = Sent { query: format!("v={encoded}"), header, cookie, ..Sent::default() };
        if let Ok(path) = to_path("/s/{query.v}/{header.x-h}/{cookie.k}/e", &sent) {
            prop_assert_eq!(path.split('/').count(), 6, "{}", path);
            prop_assert!(path.starts_with("/s/") && path.ends_with("/e") && path.is_ascii());
        }
        let text = "https://e.x/s/{header.x-h}?a={query.v}&b={header.x-h}&c={cookie.k}";
        if let Ok(location) = to_location(text, &sent) {
            let (path, query) = location.split_once('?').unwrap();
            prop_assert_eq!(path.split('/').count(), 5);
            prop_assert_eq!(query.split('&').count(), 3);
            prop_assert_eq!(query.matches('=').count(), 3);
            prop_assert!(location.bytes().all(|byte| byte.is_ascii_graphic()));
        }
    }

    #[test]
    fn no_template_panics(text in "[/a{}.?#:]{0,6}(\\{(path\\.id|request\\.host|query\\.a)\\}|/|http://){0,3}[/a{}.?#]{0,4}") {
        let route = pattern("/a/{id}/*");
        let scope = Scope { pattern: &route, groups: None };
        if let Ok(template) = Template::path(&text, scope) {
            drop(expand(&Sent::default(), |values| template.expand_path(values, &Captures::default())));
        }
        if let Ok(template) = Template::location(&text, scope) {
            drop(expand(&Sent::default(), |values| template.expand_location(values)));
        }
    }
}

/// What a certificate says is a value like any other: it cannot add a segment, and where it is missing there is no path.
#[test]
fn certificates_of_clients() {
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(rcgen::DnType::CommonName, "a/../b");
    params.subject_alt_names = vec![rcgen::SanType::URI("spiffe://example/a".try_into().unwrap())];
    params.serial_number = Some(vec![1, 0xab].into());
    params.not_after = rcgen::date_time_ymd(2035, 1, 1);
    let key = rcgen::KeyPair::generate().unwrap();
    let cert = ClientCert::read(params.self_signed(&key).unwrap().der()).unwrap();
    let route = pattern("/*");
    let expand = |text: &str, client_cert: Option<&ClientCert>| {
        let template = Template::path(text, Scope { pattern: &route, groups: None }).unwrap();
        let headers = http::HeaderMap::new();
        let request = RequestView {
            listener: 0,
            host: "h",
            path: "/",
            query: None,
            method: &http::Method::GET,
            headers: &headers,
        };
        let (captures, scheme, id) = (Captures::default(), "https", "");
        let values = Values {
            request: &request,
            captures: &captures,
            scheme,
            id,
            client: None,
            client_cert,
            who: Who::default(),
        };
        template.expand_path(&values, &Captures::default())
    };
    for (text, path) in [
        ("/{client.cert.subject}", "/CN=a%2F..%2Fb"),
        ("/{client.cert.issuer}", "/CN=a%2F..%2Fb"),
        ("/{client.cert.serial}", "/01AB"),
        ("/{client.cert.uri}", "/spiffe:%2F%2Fexample%2Fa"),
        ("/{client.cert.not_after}", "/2035-01-01T00:00:00Z"),
    ] {
        assert_eq!(expand(text, Some(&cert)).as_deref(), Ok(path), "{text}");
        assert!(matches!(expand(text, None), Err(ExpandError::Missing(_))), "{text}");
    }
    assert_eq!(expand("/{client.cert.fingerprint}", Some(&cert)).unwrap().len(), 65);
    assert!(expand("/{client.cert.email}", Some(&cert)).is_err());
    assert!(expand("/{client.cert.dns}", Some(&cert)).is_err());
}
