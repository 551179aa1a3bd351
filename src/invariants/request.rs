//! Of what a client sends: paths, values in templates and in the log, cookies, trace context, expressions, logins, ranges.

use http::header::{COOKIE, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Version};

use super::{cut, lines, pieces};
use crate::files::path::{FilePath, is_served};
use crate::files::range::{self, Part};
use crate::identity::login::body;
use crate::routing::explain::Verdict;
use crate::routing::expression::{Expression, Stage};
use crate::routing::template::{Scope, Template, Values};
use crate::routing::{
    Around, Outcome, PathPattern, RequestView, RouteId, RouteSpec, Table, ValueMatch, path,
};
use crate::telemetry::access::{AccessRecord, Escape, Field, Format, Stamps};
use crate::telemetry::request_id::RequestId;
use crate::telemetry::trace::{RANDOM, SAMPLED, SpanId, TraceContext};

/// A path has one form, which is its own form, and the route that takes it is the one that `explain` names.
pub fn route(bytes: &[u8]) {
    let Ok(normal) = path::normalise(bytes) else { return };
    assert_eq!(path::normalise(normal.as_bytes()).as_deref(), Ok(&*normal), "the one form is its own");
    assert!(normal.is_ascii() && !normal.bytes().any(|byte| byte.is_ascii_control() || byte == b' '));
    if normal == "*" {
        return;
    }
    assert!(normal.starts_with('/') && !normal.contains("//"));
    assert!(!normal.split('/').any(|segment| segment == "." || segment == ".."));
    let patterns = ["/", "/*", "/a", "/a/*", "/a/b", "/a/{x}", "/a/{x}/b", "/{x}/b", "~^/[0-9]+$"];
    let routes = patterns
        .iter()
        .zip(0..)
        .map(|(pattern, id)| RouteSpec::new(RouteId(id), PathPattern::parse(pattern).expect("a pattern")));
    let table = Table::build(routes.collect());
    let headers = HeaderMap::new();
    let view = RequestView {
        listener: 0,
        host: "a",
        path: &normal,
        query: None,
        method: &Method::GET,
        headers: &headers,
    };
    let explained = table.explain(&view, &Around::default());
    let winner = explained
        .iter()
        .find(|candidate| candidate.verdict == Verdict::Wins)
        .map(|candidate| candidate.route);
    match table.find(&view) {
        Outcome::Found { route, .. } => {
            assert_eq!(winner, Some(route));
            if let Some(exact) = ["/", "/a", "/a/b"].iter().find(|exact| **exact == normal) {
                assert_eq!(patterns[route.0 as usize], *exact, "an exact path comes first");
            }
        }
        _ => panic!("/* takes every path"),
    }
}

/// A line of the access log is one line, whatever a client sent: nobody can write a second one into it.
pub fn access_log(bytes: &[u8]) {
    let (ends, bytes) = pieces(bytes);
    let mut at = 0;
    let mut parts = ends.iter().map(|end| {
        let part = &bytes[at..*end];
        at = *end;
        part
    });
    let mut next = || parts.next().unwrap_or_default();
    let mut record = AccessRecord::new();
    record.version = Some(Version::HTTP_11);
    let (format, method, target, line, agent) = (next(), next(), next(), next(), next());
    record.set(Field::Method, method);
    record.set(Field::Target, target);
    record.set(Field::RequestLine, line);
    record.set(Field::Detail, agent);
    let mut headers = HeaderMap::new();
    for name in ["user-agent", "referer", "cookie", "authorization"] {
        if let Ok(value) = HeaderValue::from_bytes(agent) {
            headers.append(name.parse::<HeaderName>().unwrap(), value);
        }
    }
    let text = String::from_utf8_lossy(format);
    for (text, escape) in [("combined", Escape::Default), ("json", Escape::Json), (&text, Escape::Default)] {
        let format = match Format::compile(text, escape) {
            Ok(format) => format,
            Err(errors) => {
                assert!(!errors.is_empty());
                assert!(
                    errors.iter().all(|error| text.get(error.at.clone()).is_some()),
                    "they point into the text"
                );
                continue;
            }
        };
        format.collect_request(&mut record, &headers);
        let mut out = Vec::new();
        format.write(&record, &mut Stamps::new(jiff::tz::TimeZone::UTC), &mut out);
        let (end, line) = out.split_last().expect("a line");
        assert_eq!(*end, b'\n');
        if text == "json" {
            let value: serde_json::Value = serde_json::from_slice(line).expect("a line of JSON");
            assert!(value.is_object());
        }
        // The literal parts of a format are the operator's.
        if matches!(text, "json" | "combined") {
            assert!(line.iter().all(|byte| *byte >= 0x20), "no control byte is left as it is");
        }
    }
}

/// The path of every request below, and what takes it.
const PATH: &str = "/a/7%2F8/b/c";
const PATTERN: &str = "/a/{id}/*";

/// What a request says in the places that templates and expressions read.
#[derive(Debug, Clone)]
struct Said {
    query: String,
    headers: HeaderMap,
    id: String,
}

impl Said {
    /// The same value everywhere.
    fn all(value: &[u8]) -> Self {
        let plain = HeaderValue::from_bytes(value);
        let mut headers = HeaderMap::new();
        if let Ok(value) = plain {
            headers.insert(HeaderName::from_static("x"), value);
        }
        if let Ok(cookie) = HeaderValue::from_bytes(&[b"x=", value].concat()) {
            headers.insert(COOKIE, cookie);
        }
        let query: String = value.iter().map(|byte| format!("%{byte:02x}")).collect();
        Self { query: format!("x={query}"), headers, id: String::from_utf8_lossy(value).into_owned() }
    }

    fn ask<T>(&self, ask: impl FnOnce(&Values<'_>) -> T) -> T {
        let request = RequestView {
            listener: 0,
            host: "h.example",
            path: PATH,
            query: Some(&self.query),
            method: &Method::GET,
            headers: &self.headers,
        };
        ask(&Values {
            request: &request,
            captures: &PathPattern::parse(PATTERN).unwrap().captures(PATH).unwrap(),
            scheme: "https",
            id: &self.id,
            client: Some([192, 0, 2, 1].into()),
            client_cert: None,
            who: Default::default(),
        })
    }
}

/// A URL's parts up to its query, its query and its fragment (RFC 3986 section 3).
fn parts(url: &str) -> (&str, Option<&str>, Option<&str>) {
    let (url, fragment) = url.split_once('#').map_or((url, None), |(url, fragment)| (url, Some(fragment)));
    let (url, query) = url.split_once('?').map_or((url, None), |(url, query)| (url, Some(query)));
    (url, query, fragment)
}

/// A template and a value: whatever the value is, what comes out has as many segments, parameters and parts as with a
/// plain one, and is what any reader makes of it.
pub fn template(bytes: &[u8]) {
    let [text, value] = cut(bytes);
    let text = String::from_utf8_lossy(text);
    let pattern = PathPattern::parse(PATTERN).unwrap();
    let scope = Scope { pattern: &pattern, groups: None };
    let (wild, plain) = (Said::all(value), Said::all(b"v"));
    let read =
        [Template::path(&text, scope), Template::location(&text, scope), Template::value(&text, scope)];
    for mistake in read.iter().filter_map(|read| read.as_ref().err()) {
        assert!(text.get(mistake.at.clone()).is_some(), "it points into the text");
    }
    let [at_path, location, as_value] = read.map(Result::ok);
    if let Some(template) = at_path {
        let expand = |said: &Said| said.ask(|values| template.expand_path(values, &Default::default()));
        if let (Ok(made), Ok(usual)) = (expand(&wild), expand(&plain)) {
            assert_eq!(path::normalise(made.as_bytes()).as_deref(), Ok(&*made), "any reader reads the same");
            assert!(made.starts_with('/') && made.bytes().all(|byte| byte.is_ascii_graphic()), "{made}");
            assert_eq!(made.matches(['/', '?', '#']).count(), usual.matches(['/', '?', '#']).count());
        }
    }
    if let Some(template) = location {
        let expand = |said: &Said| said.ask(|values| template.expand_location(values));
        if let (Ok(made), Ok(usual)) = (expand(&wild), expand(&plain)) {
            assert!(made.bytes().all(|byte| byte.is_ascii_graphic()), "{made}");
            let ((path, query, fragment), (usual_path, usual_query, usual_fragment)) =
                (parts(&made), parts(&usual));
            assert_eq!(path.matches('/').count(), usual_path.matches('/').count(), "{made} and {usual}");
            assert_eq!(
                (query.is_some(), fragment.is_some()),
                (usual_query.is_some(), usual_fragment.is_some())
            );
            // The request's own query goes along otherwise.
            if template.has_query() {
                let pairs = |query: Option<&str>| query.unwrap_or_default().matches(['&', '=']).count();
                assert_eq!(pairs(query), pairs(usual_query), "{made} and {usual}");
            }
            if path.starts_with("http") {
                let authority = |url: &str| url.split('/').nth(2).map(str::to_owned);
                assert_eq!(authority(path), authority(usual_path), "nobody chooses where others are sent");
            }
        }
    }
    if let Some(template) = as_value {
        let made = wild.ask(|values| template.expand_value(values));
        if let Some(constant) = template.constant() {
            assert_eq!(made.as_deref(), Some(constant.as_bytes()));
        }
        let words = wild.ask(|values| template.expand_words(values));
        let usual = plain.ask(|values| template.expand_words(values));
        if let (Some(words), Some(usual)) = (words, usual) {
            let stops = |text: &str| text.matches(['.', '*', '#']).count();
            assert_eq!(stops(&words), stops(&usual), "a value is one word");
        }
    }
}

/// Lines of `Cookie`: the route, the template and a simple reader find the same one.
pub fn cookies(bytes: &[u8]) {
    let Some(headers) = lines(&COOKIE, bytes) else { return };
    let said = Said { query: String::new(), headers, id: String::new() };
    let pattern = PathPattern::parse(PATTERN).unwrap();
    let scope = Scope { pattern: &pattern, groups: None };
    for name in ["a", "session", "__Host-x"] {
        let expected = said.headers.get_all(COOKIE).iter().find_map(|line| {
            line.as_bytes().split(|byte| *byte == b';').find_map(|pair| {
                let pair = pair.trim_ascii();
                let at = pair.iter().position(|byte| *byte == b'=')?;
                (&pair[..at] == name.as_bytes()).then(|| pair[at + 1..].to_vec())
            })
        });
        let template = Template::value(&format!("{{cookie.{name}}}"), scope).unwrap();
        assert_eq!(said.ask(|values| template.expand_value(values)), expected);
        let mut spec = RouteSpec::new(RouteId(0), PathPattern::parse("/*").unwrap());
        spec.cookies = vec![(name.into(), ValueMatch::presence(true))];
        let table = Table::build(vec![spec]);
        let found = said.ask(|values| matches!(table.find(values.request), Outcome::Found { .. }));
        assert_eq!(found, expected.is_some());
    }
}

/// `traceparent` and `X-Request-Id`: taken as a simple reader reads it, or made anew; what goes on is valid.
pub fn trace_context(bytes: &[u8]) {
    let context = TraceContext::accept(Some(bytes));
    let hex = |range: std::ops::Range<usize>| {
        let digits = bytes.get(range)?;
        let is_hex = |byte: &u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte);
        digits.iter().all(is_hex).then(|| std::str::from_utf8(digits).unwrap())
    };
    let plain = || {
        let [version, trace, span, flags] = [hex(0..2)?, hex(3..35)?, hex(36..52)?, hex(53..55)?];
        let dashed = [2, 35, 52].iter().all(|at| bytes.get(*at) == Some(&b'-'));
        let ended = bytes.len() == 55 || (version != "00" && bytes.get(55) == Some(&b'-'));
        let named = trace.bytes().any(|digit| digit != b'0') && span.bytes().any(|digit| digit != b'0');
        (dashed && ended && named && version != "ff").then_some((trace, span, flags))
    };
    let sent = context.traceparent(context.span);
    let sent = std::str::from_utf8(&sent).unwrap();
    match (context.parent, plain()) {
        (Some(parent), Some((trace, span, flags))) => {
            assert_eq!((&context.trace_id.hex()[..], &parent.hex()[..]), (trace.as_bytes(), span.as_bytes()));
            let known = u8::from_str_radix(flags, 16).unwrap() & (SAMPLED | RANDOM);
            assert_eq!(context.flags, known);
            assert_eq!(&sent[3..35], trace);
        }
        (None, None) => assert_ne!(&sent[3..35], "00000000000000000000000000000000"),
        (taken, expected) => panic!("{taken:?} where {expected:?} was sent"),
    }
    let behind = TraceContext::accept(Some(sent.as_bytes()));
    assert_eq!((behind.trace_id, behind.parent), (context.trace_id, Some(context.span)));
    assert_ne!(SpanId::random(), context.span);
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-".contains(byte);
    let fits = (1..=128).contains(&bytes.len()) && bytes.iter().all(is_word);
    let id = RequestId::foreign(bytes);
    assert_eq!(id.as_ref().map(RequestId::as_bytes), fits.then_some(bytes));
}

/// An expression and a value: read or refused with a place; asked twice it says the same, and a `when` that has no value
/// lets nobody through.
pub fn expression(bytes: &[u8]) {
    let [text, value] = cut(bytes);
    let text = String::from_utf8_lossy(text);
    let pattern = PathPattern::parse(PATTERN).unwrap();
    let scope = Scope { pattern: &pattern, groups: None };
    let said = Said::all(value);
    for stage in [Stage::Routing, Stage::Authorization] {
        let expression = match Expression::parse(&text, scope, stage) {
            Ok(expression) => expression,
            Err(mistake) => {
                assert!(text.get(mistake.at.clone()).is_some(), "it points into the text: {mistake:?}");
                continue;
            }
        };
        assert_eq!(expression.text(), text);
        let first = said.ask(|values| expression.holds(values));
        let second = said.ask(|values| expression.holds(values));
        assert_eq!(first.as_ref().ok(), second.as_ref().ok());
        if stage == Stage::Routing {
            let mut spec = RouteSpec::new(RouteId(0), PathPattern::parse(PATTERN).unwrap());
            spec.when = Some(Box::new(expression));
            let open = RouteSpec::new(RouteId(1), PathPattern::parse("/*").unwrap());
            let table = Table::build(vec![spec, open]);
            let around = Around {
                scheme: "https",
                id: &said.id,
                client: Some([192, 0, 2, 1].into()),
                client_cert: None,
            };
            let outcome = said.ask(|values| table.find_for(values.request, &around, None));
            let expected = match first {
                Ok(true) => Some(RouteId(0)),
                Ok(false) => Some(RouteId(1)),
                Err(_) => None,
            };
            let found = match outcome {
                Outcome::Found { route, .. } => Some(route),
                _ => None,
            };
            assert_eq!(found, expected, "{text}");
        }
    }
    if let Ok(number) = Expression::parse_number(&text, Stage::Counting { knows_who: true }, 1000) {
        said.ask(|values| assert_eq!(number.number(values).ok(), number.number(values).ok()));
    }
}

/// The body of a login or a refresh: what is taken is read alike by a known reader, and has no other members.
pub fn login_body(bytes: &[u8]) {
    let known = || serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(bytes).unwrap();
    if let Ok(read) = body::credentials(bytes) {
        let known = known();
        assert_eq!(known.len(), 2);
        assert_eq!(known["username"], *read.username);
        assert_eq!(known["password"], *read.password);
        assert!(!read.username.chars().any(char::is_control));
        assert!(
            !format!("{read:?}").contains(&format!("\"{}\"", read.password))
                || read.password == read.username
        );
    }
    if let Ok(token) = body::refresh_token(bytes) {
        assert_eq!(known()["refresh_token"], *token);
        assert_eq!(known().len(), 1);
    }
    let Err(why) = body::credentials(bytes) else { return };
    assert!(!why.chars().any(char::is_control), "it is one line of a log");
}

/// `Range` and a path of files: what is sent lies within the file and is never more than all of it; what is opened lies
/// below the root.
pub fn file_request(bytes: &[u8]) {
    for size in [0, 1, 10, 1 << 40] {
        if let Part::Ranges(ranges) = range::read(bytes, size) {
            assert!(!ranges.is_empty() && ranges.len() <= 16);
            assert!(ranges.iter().all(|range| range.start < range.end && range.end <= size));
            assert!(ranges.iter().map(|range| range.end - range.start).sum::<u64>() <= size);
        }
    }
    let Ok(path) = path::normalise(bytes) else { return };
    let Some(found) = FilePath::below_root(&path) else { return };
    assert!(!found.relative.starts_with(b"/") && !found.relative.ends_with(b"/"));
    if !found.relative.is_empty() {
        for name in found.relative.split(|byte| *byte == b'/') {
            assert!(is_served(name) && name != b".." && name != b".");
        }
    }
}
