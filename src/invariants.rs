//! What must hold for any bytes that a client or a file can send: the bodies of the fuzz targets (`fuzz/`), which also
//! run as property tests here, where there is no fuzzer.
//!
//! Each takes bytes and panics if something that is promised does not hold. "No panic" is the least of it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "only tests and fuzzers run this, and a panic is what they look for"
)]

#[cfg(test)]
pub mod mutate;
#[cfg(test)]
mod mutations;
mod peer;
mod request;
pub mod strict;
mod written;

use std::net::IpAddr;
use std::path::Path;

use http::header::{FORWARDED, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Version};

use crate::base::clock::{self, Moment};
use crate::base::decode::Surroundings;
use crate::base::wire::chunked::ChunkScanner;
use crate::config::{self, Runtime};
use crate::identity::jwt::{Algorithm, Rules, algorithm::Algorithms};
use crate::identity::keys::jwk::{Secrets, parse_set};
use crate::identity::keys::{Key, KeySet};
use crate::identity::provider::{Keys, Provider, Providers, Settings, Verified};
use crate::ingress::frames::{Ended, Glance, Watch};
use crate::ingress::head::{Framing, HEADER_LINES_MAX, Head, HeadScanner, Span, Status};
use crate::policy::trusted::TrustedProxies;
use crate::proxy::client::Client;
use crate::proxy::{as_forwarded, as_passed_on};
use crate::routing::explain::Verdict;
use crate::routing::template::{Scope, Template, Values};
use crate::routing::{Around, Outcome, PathPattern, RequestView, RouteId, RouteSpec, Table, path};
use crate::subrequest::json;
use crate::subrequest::read::{self, Filter, Reading};
use crate::subrequest::shape::{Formula, Shape};
use crate::telemetry::access::{AccessRecord, Escape, Field, Format, Stamps};

pub use peer::{broker, client_certificate, proxy_header};
pub use request::{cookies, expression, file_request, login_body, template, trace_context};
pub use written::{nginx, rows, service_rows, shape};

/// Cuts `bytes` into pieces, where its first bytes say: so that a fuzzer chooses them, too.
fn pieces(bytes: &[u8]) -> (Vec<usize>, &[u8]) {
    let Some((count, rest)) = bytes.split_first() else { return (Vec::new(), bytes) };
    let count = usize::from(count % 8).min(rest.len());
    let (cuts, rest) = rest.split_at(count);
    let mut ends: Vec<usize> = cuts.iter().map(|cut| usize::from(*cut) % (rest.len() + 1)).collect();
    ends.push(rest.len());
    ends.sort_unstable();
    (ends, rest)
}

/// Likewise into `N` parts; those that nothing is left for are empty.
fn cut<const N: usize>(bytes: &[u8]) -> [&[u8]; N] {
    let (ends, bytes) = pieces(bytes);
    let mut at = 0;
    std::array::from_fn(|number| {
        let end = ends.get(number).copied().unwrap_or(at);
        let part = &bytes[at..end];
        at = end;
        part
    })
}

/// Longest head in [`head`].
const HEAD_BYTES: usize = 2048;

/// A head gets the same verdict however it comes; an accepted one is what it says, and stays so whatever follows.
pub fn head(bytes: &[u8]) {
    let (ends, bytes) = pieces(bytes);
    let whole = HeadScanner::new(HEAD_BYTES).scan(bytes);
    let mut scanner = HeadScanner::new(HEAD_BYTES);
    for end in ends {
        match scanner.scan(&bytes[..end]) {
            Status::Partial => {}
            verdict => assert_eq!(verdict, whole, "a verdict before the end is the last"),
        }
    }
    assert_eq!(scanner.scan(bytes), whole);
    let Status::Complete(head) = whole else { return };
    assert!(head.len <= bytes.len().min(HEAD_BYTES));
    let alone = &bytes[..head.len];
    assert_eq!(HeadScanner::new(HEAD_BYTES).scan(alone), whole, "what follows does not matter");
    assert!(alone.ends_with(b"\r\n\r\n"));
    assert!(!alone.iter().any(|byte| matches!(byte, 0 | 0x7f)));
    for (at, byte) in alone.iter().enumerate() {
        match byte {
            b'\r' => assert_eq!(alone.get(at + 1), Some(&b'\n')),
            b'\n' => assert_eq!(at.checked_sub(1).map(|before| alone[before]), Some(b'\r')),
            _ => {}
        }
    }
    plain_reading(alone, &head);
}

/// Reads an accepted head as simply as a server behind might: it must see the same message.
fn plain_reading(head: &[u8], found: &Head) {
    let text = head.strip_prefix(b"\r\n").unwrap_or(head);
    let lines: Vec<&[u8]> =
        text.split(|byte| *byte == b'\n').map(|line| &line[..line.len().saturating_sub(1)]).collect();
    let [request, fields @ .., last, rest] = &lines[..] else { panic!("too few lines") };
    assert!(last.is_empty() && rest.is_empty());
    let words: Vec<&[u8]> = request.split(|byte| *byte == b' ').collect();
    let version: &[u8] = if found.version_11 { b"HTTP/1.1" } else { b"HTTP/1.0" };
    let of = |span: Span| span.of(head);
    assert_eq!(words, [of(found.method), of(found.target), version]);
    assert!(fields.len() <= HEADER_LINES_MAX);
    let value = |name: &str| {
        let values = fields.iter().filter_map(|line| {
            let at = line.iter().position(|byte| *byte == b':').unwrap();
            line[..at].eq_ignore_ascii_case(name.as_bytes()).then(|| line[at + 1..].trim_ascii())
        });
        values.collect::<Vec<_>>()
    };
    let (lengths, codings) = (value("content-length"), value("transfer-encoding"));
    match found.body {
        Framing::None => assert!(lengths.is_empty() && codings.is_empty()),
        Framing::Length(length) => {
            assert!(codings.is_empty());
            assert_eq!(lengths.len(), 1);
            assert_eq!(std::str::from_utf8(lengths[0]).unwrap().parse(), Ok(length));
        }
        Framing::Chunked => {
            assert!(lengths.is_empty() && codings.len() == 1 && codings[0].eq_ignore_ascii_case(b"chunked"));
        }
    }
    let hosts = value("host");
    assert!(hosts.len() <= 1 && (hosts.len() == 1 || !found.version_11));
    if let Some(host) = hosts.first() {
        assert_eq!(found.host.map(of), Some(*host));
    }
}

/// A chunked body ends at the same byte however it comes, and where a simple reader sees its end.
pub fn chunked(bytes: &[u8]) {
    let (ends, bytes) = pieces(bytes);
    let whole = ChunkScanner::default().advance(bytes);
    let (mut scanner, mut at, mut split) = (ChunkScanner::default(), 0, Ok((0, false)));
    for end in ends {
        if !matches!(split, Ok((_, false))) {
            break;
        }
        split = scanner.advance(&bytes[at..end]).map(|(count, done)| (at + count, done));
        at = end;
    }
    assert_eq!(split, whole);
    let Ok((length, done)) = whole else { return };
    assert!(length <= bytes.len() && (done || length == bytes.len()));
    if done {
        assert_eq!(end_of_chunks(bytes), Some(length));
    }
}

/// Where a chunked body ends, read without any check.
fn end_of_chunks(bytes: &[u8]) -> Option<usize> {
    let line_end =
        |from: usize| bytes.get(from..)?.windows(2).position(|pair| pair == b"\r\n").map(|at| from + at + 2);
    let mut at = 0;
    loop {
        let next = line_end(at)?;
        let line = std::str::from_utf8(bytes[at..next - 2].split(|byte| *byte == b';').next()?).ok()?;
        let size = usize::from_str_radix(line, 16).ok()?;
        at = next;
        if size == 0 {
            break;
        }
        at += size + 2;
    }
    // Trailers, up to an empty line.
    loop {
        let next = line_end(at)?;
        if next == at + 2 {
            return Some(next);
        }
        at = next;
    }
}

/// What is forwarded of a request is one strictly valid message, the one that a simple reader sees; and so is what is passed
/// on of an answer. The first byte says which of them the rest is.
pub fn framing(bytes: &[u8]) {
    let Some((direction, bytes)) = bytes.split_first() else { return };
    match direction % 4 {
        0 => passed_on(bytes, &Method::GET),
        1 => passed_on(bytes, &Method::HEAD),
        _ => sent_on(bytes),
    }
}

fn sent_on(bytes: &[u8]) {
    let (ends, bytes) = pieces(bytes);
    let Status::Complete(head) = HeadScanner::new(HEAD_BYTES).scan(bytes) else { return };
    if !head.version_11 || head.upgrade {
        return;
    }
    let (text, rest) = bytes.split_at(head.len);
    // As far as the stream lets the body pass: up to its end, and nothing of what breaks its framing.
    let (length, done) = match head.body {
        Framing::None => (0, true),
        Framing::Length(length) => {
            let here = usize::try_from(length).unwrap_or(usize::MAX).min(rest.len());
            (here, here as u64 == length)
        }
        Framing::Chunked => ChunkScanner::default().advance(rest).unwrap_or((0, false)),
    };
    let mut cuts: Vec<usize> = ends.iter().map(|end| end % (length + 1)).chain([length]).collect();
    cuts.sort_unstable();
    cuts.dedup();
    let mut at = 0;
    let mut body = Vec::new();
    for end in cuts {
        if end > at {
            body.push((&rest[at..end], done && end == length));
            at = end;
        }
    }
    let Some(out) = as_forwarded(&text.to_vec().into(), &head, &body) else { return };
    let found = strict::requests(&out).unwrap_or_else(|what| panic!("{what}\n{}", out.escape_ascii()));
    if !done {
        assert!(found.whole.is_empty() && found.cut.is_some(), "half a body is half a message");
        return;
    }
    assert!(found.cut.is_none());
    let [message] = &found.whole[..] else { panic!("{} messages", found.whole.len()) };
    assert_eq!(message.method.as_bytes(), head.method.of(bytes));
    assert_eq!(message.all("host"), [head.host.unwrap().of(bytes)]);
    assert_eq!(message.chunked, head.body == Framing::Chunked);
    let expected = if message.chunked { data_of_chunks(rest) } else { rest[..length].to_vec() };
    assert_eq!(message.body, expected);
}

/// The data of a chunked body, read without any check.
fn data_of_chunks(bytes: &[u8]) -> Vec<u8> {
    let (mut data, mut rest) = (Vec::new(), bytes);
    loop {
        let line = rest.windows(2).position(|pair| pair == b"\r\n").unwrap();
        let digits = rest[..line].iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..digits]).unwrap(), 16).unwrap();
        if size == 0 {
            return data;
        }
        data.extend_from_slice(&rest[line + 2..line + 2 + size]);
        rest = &rest[line + 2 + size + 2..];
    }
}

fn passed_on(bytes: &[u8], method: &Method) {
    let Some((out, done, behind)) = as_passed_on(bytes, method) else { return };
    let found = strict::answers(&out, &[method.as_str()], false);
    let found = found.unwrap_or_else(|what| panic!("{what}\n{}", out.escape_ascii()));
    let finals: Vec<_> = found.whole.iter().filter(|answer| answer.status >= 200).collect();
    assert_eq!(finals.len(), usize::from(done));
    assert!(!done || found.cut.is_none());
    assert!(behind.len() <= bytes.len() && (done || behind.is_empty()));
}

/// Both directions of an HTTP/2 connection: first a byte that says how long the client's is, in eighths.
pub fn frames(bytes: &[u8]) {
    let (ends, bytes) = pieces(bytes);
    let (share, bytes) = bytes.split_first().unwrap_or((&0, &[]));
    let (inbound, outbound) = bytes.split_at(bytes.len() * usize::from(share % 9) / 8);
    watch(inbound, outbound, &ends);
}

/// What the watch tells does not depend on how the bytes were cut; it is bounded, and tells each stream once.
pub fn watch(inbound: &[u8], outbound: &[u8], cuts: &[usize]) {
    let now = clock::now();
    let (mut whole, mut split) = (Watch::new(now), Watch::new(now));
    whole.received(inbound, || now);
    whole.sent(outbound, || now);
    let feed = |bytes: &[u8], take: &mut dyn FnMut(&[u8])| {
        let mut ends: Vec<usize> =
            cuts.iter().map(|cut| cut % (bytes.len() + 1)).chain([bytes.len()]).collect();
        ends.sort_unstable();
        let mut at = 0;
        for end in ends {
            take(&bytes[at..end]);
            at = end;
        }
    };
    feed(inbound, &mut |piece| split.received(piece, || now));
    feed(outbound, &mut |piece| split.sent(piece, || now));
    assert_eq!(whole.undecided(), split.undecided());
    // Nine bytes a frame: no more streams than those can have been opened.
    assert!(whole.undecided() <= inbound.len() / 9);
    let told = |watch: &mut Watch| -> (Vec<Ended>, Glance) {
        let mut told = Vec::new();
        loop {
            match watch.glance() {
                Glance { ended: Some(ended), .. } => told.push(ended),
                last => return (told, last),
            }
        }
    };
    let (ended, last) = told(&mut whole);
    assert_eq!(told(&mut split), (ended.clone(), last));
    let mut streams: Vec<u32> = ended.iter().map(|ended| ended.stream).collect();
    assert!(streams.iter().all(|stream| stream % 2 == 1));
    streams.sort_unstable();
    streams.dedup();
    assert_eq!(streams.len(), ended.len(), "a stream ends once");
    // Some frames cost more than others, and SETTINGS as long as can be all there is; but each has a head of nine bytes.
    assert!(!last.flooded || inbound.len() + outbound.len() >= 9);
}

/// A configuration either has errors or can be run; what is said about it is said every time, and can be shown.
pub fn configuration(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let env = |name: &str| (name == "PORT").then(|| "8080".to_owned());
    let read = |_: &Path| Err(std::io::ErrorKind::NotFound.into());
    let surroundings = Surroundings { env: &env, read: &read };
    let compile = || {
        let loaded = config::load_text(Path::new("/nowhere/edgeward.toml"), &text, surroundings);
        loaded.compile(&Runtime::detached())
    };
    let compiled = compile();
    assert_eq!(compiled.snapshot.is_none(), compiled.diagnostics.has_errors());
    let shown = config::render::text(&compiled.diagnostics, &compiled.sources, false);
    assert_eq!(shown.is_empty(), compiled.diagnostics.is_empty());
    let json = config::render::json(&compiled.diagnostics, &compiled.sources);
    let _: serde_json::Value = serde_json::from_str(&json).expect("the report is JSON");
    let again = compile();
    assert_eq!(config::render::text(&again.diagnostics, &again.sources, false), shown);
}

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

/// What a service answers is read as any reader would read it, and what comes out of it is JSON with the same digits.
pub fn merged(bytes: &[u8]) {
    let (ends, bytes) = pieces(bytes);
    let mut at = 0;
    let mut legs = json::Object::default();
    for (number, end) in ends.into_iter().enumerate() {
        let text = &bytes[at..end];
        at = end;
        let Ok(value) = json::parse(text, 16) else { continue };
        let written = value.to_vec();
        assert_eq!(json::parse(&written, 16).as_ref(), Ok(&value), "what is written is what was read");
        if let Ok(known) =
            serde_json::from_slice::<serde_json::Value>(text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text))
        {
            assert_eq!(serde_json::from_slice::<serde_json::Value>(&written).unwrap(), known);
        }
        let reading = Reading {
            target: read::path("a").unwrap(),
            filter: Some(Filter::Deny([read::path("b.*.c").unwrap(), read::path("d").unwrap()].into())),
            rename: [(read::path("*.e").unwrap(), "f".into())].into(),
        };
        if let Some(part) = reading.apply(value.clone()) {
            assert!(part.get("d").is_none(), "what is denied is gone");
            drop(part.to_vec());
        }
        legs.insert(format!("l{number}").into(), value);
    }
    let legs = json::Json::Object(legs);
    let formulas =
        ["l0", "l1.a[].b", "join(',', keys(l0))", "l0[?a == `1`] | [0]", "[l0, l1, l2].sort(@)", "sum(l0)"];
    let names: Vec<String> = (0..9).map(|number| format!("l{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let formulas =
        formulas.iter().filter_map(|text| Some(((*text).into(), Formula::compile(text, &names).ok()?)));
    let shaped = Shape(formulas.collect()).draw(&legs);
    let written = json::Json::Object(shaped.members).to_vec();
    json::parse(&written, json::DEPTH_MAX).expect("an answer is JSON");
}

/// Whatever a value is, it adds no segment, no parameter and no second text to what a leg is asked.
pub fn leg_request(bytes: &[u8]) {
    let (ends, bytes) = pieces(bytes);
    let mut at = 0;
    let mut parts = ends.into_iter().map(|end| {
        let part = &bytes[at..end];
        at = end;
        part
    });
    let (first, second) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let pattern = PathPattern::parse("/*").unwrap();
    let scope = Scope { pattern: &pattern, groups: None };
    let find = |name: &str| name.strip_prefix("leg.").map(|number| Ok(number.len()));
    let template = Template::path_with("/s/{leg.a}-{leg.bb}/{leg.a}/e", scope, &find).unwrap();
    let headers = HeaderMap::new();
    let request = RequestView {
        listener: 0,
        host: "h",
        path: "/",
        query: None,
        method: &Method::GET,
        headers: &headers,
    };
    let captures = pattern.captures("/").unwrap();
    let values = Values {
        request: &request,
        captures: &captures,
        scheme: "https",
        id: "",
        client: None,
        client_cert: None,
        who: Default::default(),
    };
    let others = |number: usize| Some(if number == 1 { first.to_vec() } else { second.to_vec() });
    if let Ok(path) = template.expand_path_with(&values, &others) {
        assert_eq!(path.matches('/').count(), 4, "{path}");
        assert!(
            path.starts_with("/s/")
                && path.ends_with("/e")
                && path.bytes().all(|byte| byte.is_ascii_graphic())
        );
        assert!(!path.contains(['?', '#', '\\']));
        assert_eq!(
            path::normalise(path.as_bytes()).as_deref(),
            Ok(path.as_str()),
            "it is what any reader makes of it"
        );
    }
    let value = Template::value_with("{leg.a}", scope, &find).unwrap();
    assert_eq!(value.sole_other(), Some(1));
    assert_eq!(value.expand_value_with(&values, &others).as_deref(), Some(first));
}

/// Who a client is: only what trusted proxies wrote counts, and the walk ends where they do.
pub fn forwarded(bytes: &[u8]) {
    let (ends, bytes) = pieces(bytes);
    let mut headers = HeaderMap::new();
    let mut at = 0;
    for end in ends {
        let Ok(value) = HeaderValue::from_bytes(&bytes[at..end]) else { return };
        at = end;
        headers.append("x-forwarded-for", value);
    }
    let trusted = TrustedProxies::new(["10.0.0.0/8".parse().expect("a network")]);
    let (proxy, stranger) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([192, 0, 2, 1]));
    let client = Client::find(&headers, stranger, false, &trusted);
    assert_eq!((client.address, client.peer_trusted), (stranger, false), "a stranger is who he is");
    let client = Client::find(&headers, proxy, false, &trusted);
    // As simply as it can be said: all entries in one list, from its end.
    let list: Vec<u8> = headers
        .get_all("x-forwarded-for")
        .iter()
        .map(HeaderValue::as_bytes)
        .collect::<Vec<_>>()
        .join(&b","[..]);
    let mut expected = proxy;
    for entry in list.split(|byte| *byte == b',').rev().take(crate::proxy::client::FORWARDED_ENTRIES_MAX) {
        let Some(address) = plain_address(entry.trim_ascii()) else { break };
        expected = address;
        if !trusted.contains(address) {
            break;
        }
    }
    assert_eq!(client.address, expected);
    // The same bytes as `Forwarded`: no reference, but the address is one that stands there, or the peer's.
    let mut other = HeaderMap::new();
    for value in headers.get_all("x-forwarded-for") {
        other.append(FORWARDED, value.clone());
    }
    assert_eq!(Client::find(&other, stranger, false, &trusted).address, stranger);
    let client = Client::find(&other, proxy, false, &trusted);
    assert!(client.address == proxy || list.iter().any(u8::is_ascii_hexdigit));
}

/// An address, with or without a port.
fn plain_address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.to_canonical());
    }
    let (address, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, after) = rest.split_once(']')?;
            (IpAddr::V6(address.parse().ok()?), after.strip_prefix(':').or(after.is_empty().then_some("1"))?)
        }
        None => {
            let (address, port) = text.split_once(':')?;
            (IpAddr::V4(address.parse().ok()?), port)
        }
    };
    let is_port = port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit());
    (is_port && port.parse::<u16>().is_ok_and(|port| port > 0)).then(|| address.to_canonical())
}

/// The secret of [`token`]; the seed `good` is signed with it.
const TOKEN_SECRET: &[u8] = b"a secret that fuzzers do not know";

/// A token is refused, or it is signed with our secret and says what it must. A second look sees the same, also by what was
/// kept of the first.
pub fn token(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let all: Algorithms = Algorithm::ALL.iter().copied().collect();
    let provider = Provider::new(Settings {
        name: "local".into(),
        rules: Rules {
            issuer: Some("me".into()),
            audience: ["shop".into()].into(),
            typ: None,
            leeway: 0,
            require: ["exp".into()].into(),
            roles_claim: "roles".into(),
        },
        algorithms: [Algorithm::Hs256].into_iter().collect(),
        keys: Keys::Fixed(KeySet::new([Key::secret(None, TOKEN_SECRET, all)])),
        issuer: None,
        consumer: None,
        generated: None,
    });
    let providers = Providers::new([std::sync::Arc::new(provider)]);
    let wall = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_800_000_000);
    let at = Moment { now: clock::now(), wall };
    let look = || match providers.verify(text, &at) {
        Verified::Ok(token) => Ok(token),
        Verified::Refused(refusal) => Err(refusal),
        Verified::Wait(_) => panic!("there is nothing to wait for"),
    };
    let (first, second) = (look(), look());
    match (first, second) {
        (Err(first), Err(second)) => assert_eq!(first, second),
        (Ok(first), Ok(second)) => {
            assert!(std::sync::Arc::ptr_eq(&first, &second));
            let (signed, signature) = text.rsplit_once('.').unwrap();
            let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, TOKEN_SECRET);
            let engine = &base64::engine::general_purpose::URL_SAFE_NO_PAD;
            let expected = aws_lc_rs::hmac::sign(&key, signed.as_bytes());
            assert_eq!(base64::Engine::encode(engine, expected), signature);
            assert_eq!(first.claims["iss"], "me");
            assert!(first.expires_at.unwrap() > 1_800_000_000);
        }
        (first, second) => panic!("{first:?} and then {second:?}"),
    }
}

/// A set of keys is refused, or each key taken from it is public, serves something, and published again it is the same key.
pub fn key_set(bytes: &[u8]) {
    let Ok(set) = parse_set(bytes, Secrets::Refused, &mut Vec::new()) else { return };
    for key in set.keys() {
        assert!(!key.algorithms().is_empty());
        let public = key.public_half().expect("no secret is taken from a published set");
        let again =
            parse_set(public.members().to_string().as_bytes(), Secrets::Refused, &mut Vec::new()).unwrap();
        assert_eq!(again.keys()[0].public_half(), Some(public));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Bytes put together from `words` and noise, behind bytes that say how to cut them.
    fn made_of(words: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
        let word = prop::sample::select(words).prop_map(|word| word.as_bytes().to_vec());
        let noise = prop::collection::vec(any::<u8>(), 1..4);
        let part = prop_oneof![9 => word, 1 => noise];
        let cuts = prop::collection::vec(any::<u8>(), 0..8);
        (cuts, prop::collection::vec(part, 0..24)).prop_map(|(cuts, parts)| {
            let count = u8::try_from(cuts.len()).unwrap();
            [vec![count], cuts, parts.concat()].concat()
        })
    }

    const HEAD: &[&str] = &[
        "GET / HTTP/1.1\r\n",
        "POST /a?b HTTP/1.0\r\n",
        "GET http://a/ HTTP/1.1\r\n",
        "Host: a\r\n",
        "Host:b:80\r\n",
        "Content-Length: 5\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Connection: close\r\n",
        "X: y\r\n",
        "\r\n",
        "\n",
        "\r",
        " ",
        ":",
        "GET",
        "HTTP/1.1",
        "hello",
    ];
    const MESSAGE: &[&str] = &[
        "\x02\x00GET /a?b=[c]%zz HTTP/1.1\r\nHost: a\r\n",
        "\x02\x00POST http://a/../b HTTP/1.1\r\nHost: A\r\n",
        "\x02\x02\x05\x09TRACE / HTTP/1.1\r\nHost: a:80\r\n",
        "\x00HTTP/1.1 200 OK\r\n",
        "\x01HTTP/1.1 200\r\n",
        "\x00HTTP/1.1 103 Early Hints\r\n",
        "\x00HTTP/1.0 204 No\r\n",
        "HTTP/1.1 304 x\r\n",
        "Content-Length: 5\r\n",
        "Content-Length: 007\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding: CHUNKED\r\n",
        "Connection: close, x\r\n",
        "X: y\r\n",
        "TE: trailers\r\n",
        "Keep-Alive: 5\r\n",
        "Trailer: x\r\n",
        "Cookie: \u{e9}\r\n",
        "\r\n",
        "5\r\nhello\r\n",
        "1 ;x=y\r\nz\r\n",
        "0\r\n\r\n",
        "0\r\nA: b\r\n\r\n",
        "hello",
        "\n",
        "\r",
        " ",
        ":",
    ];
    const CHUNKS: &[&str] = &[
        "5\r\nhello\r\n",
        "1;x=y\r\n",
        "a\r\n",
        "0\r\n\r\n",
        "0\r\n",
        "A: b\r\n",
        "\r\n",
        "\n",
        ";",
        "f",
        "00",
        "GET /",
    ];
    const JSON: &[&str] = &[
        "{",
        "}",
        "[",
        "]",
        ":",
        ",",
        "\"a\"",
        "\"b\"",
        "\"c\"",
        "\"d\"",
        "\"e\"",
        "1",
        "-0.0",
        "1e400",
        "12345678901234567890123",
        "0.10",
        "true",
        "null",
        "\"\\u0000\"",
        "\"\\ud83d\\ude00\"",
        "{\"a\":{\"b\":[{\"c\":1}],\"d\":2}}",
        "[[[]]]",
        " ",
    ];
    const VALUES: &[&str] = &[
        "/", "..", ".", "%2f", "%2e", "%", "?", "#", "&", "=", "\r\n", "\0", "\"", "\\", "a", "\u{e4}", " ",
        "{", "}", "//",
    ];
    const TOML: &[&str] = &[
        "[server]\n",
        "[[listeners]]\n",
        "[[routes]]\n",
        "[upstreams.a]\n",
        "name = \"a\"\n",
        "address = \"127.0.0.1:0\"\n",
        "path = \"/*\"\n",
        "path = \"/a/{x}\"\n",
        "upstream = \"a\"\n",
        "servers = [\"127.0.0.1:1\"]\n",
        "weight = 3\n",
        "respond = { status = 200 }\n",
        "hosts = [\"a.example\", \"*.b\"]\n",
        "\"",
        "[",
        "]",
        "=",
        "{",
        "}",
        "\n",
        "#",
        "${PORT}",
        "include = [\"x*.toml\"]\n",
        "timeout = \"1s\"\n",
        "[limits]\n",
        "header_bytes = \"8KiB\"\n",
        "-1",
        "\u{e9}",
        "'''",
    ];
    const PATHS: &[&str] = &[
        "/", "a", "b", ".", "..", "%2e", "%2F", "%", "%00", "//", "\\", "é", "1", "?", "#", "*", "%61", " ",
    ];
    const LOG: &[&str] = &[
        "$status",
        "$request",
        "${http_user_agent}",
        "$nothing",
        "$",
        "{",
        "\n",
        "\"",
        "\\",
        "é",
        "GET / HTTP/1.1",
        "\r\n",
        "a",
        "$cookie_a",
        "$arg_x",
        "?x=y",
        "Basic YTpi",
    ];
    const TOKEN: &[&str] = &[
        ".",
        "eyJhbGciOiJIUzI1NiJ9",
        "eyJhbGciOiJub25lIn0",
        "eyJpc3MiOiJtZSJ9",
        "e30",
        "eyJ",
        "AAAA",
        "AA",
        "A",
        "-_",
        "=",
        " ",
        "\0",
        "é",
    ];
    const KEYS: &[&str] = &[
        "{\"keys\":[",
        "]}",
        "{",
        "}",
        ",",
        "\"kty\":\"EC\"",
        "\"kty\":\"RSA\"",
        "\"kty\":\"oct\"",
        "\"crv\":\"P-256\"",
        "\"kid\":\"a\"",
        "\"use\":\"sig\"",
        "\"alg\":\"ES256\"",
        "\"x\":\"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU\"",
        "\"y\":\"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0\"",
        "\"n\":\"AQAB\"",
        "\"e\":\"AQAB\"",
        "\"k\":\"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8\"",
    ];
    const NODES: &[&str] = &[
        "10.0.0.2",
        "192.0.2.9",
        "[::1]",
        "::ffff:10.1.1.1",
        ":443",
        ":0",
        ", ",
        ",",
        " ",
        "\t",
        "unknown",
        "for=",
        "\"",
        ";",
        "proto=https",
        "2001:db8::1",
        "\\",
    ];

    const TEMPLATES: &[&str] = &[
        "/",
        "{path.id}",
        "{path.rest}",
        "{query.x}",
        "{header.x}",
        "{cookie.x}",
        "{request.host}",
        "{request.uri}",
        "{request.id}",
        "{client.ip}",
        "{{",
        "}}",
        "{",
        "}",
        "https://",
        "h.example",
        "?",
        "#",
        "&",
        "=",
        "a",
        "..",
        "%2f",
        "\r\n",
        ".",
        "*",
    ];
    const COOKIES: &[&str] = &[
        "a", "session", "__Host-x", "=", "; ", ";", " ", "\t", "\"", "1", "a=1", "b=2", ",", "\u{e9}", "==",
        "a =",
    ];
    const TRACES: &[&str] = &[
        "00",
        "-",
        "0af7651916cd43dd8448eb211c80319c",
        "b7ad6b7169203331",
        "01",
        "ff",
        "cc",
        "0",
        "F",
        "g",
        "--",
        "00000000000000000000000000000000",
        "0000000000000000",
        "\0",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-03",
    ];
    const EXPRESSIONS: &[&str] = &[
        "query.x",
        "header.x",
        "cookie[\"x\"]",
        "path.id",
        "request.method",
        "client.ip",
        " == ",
        " && ",
        " || ",
        "!",
        "\"v\"",
        "'GET'",
        "1",
        "0",
        "-",
        "/",
        "%",
        "+",
        "(",
        ")",
        "[",
        "]",
        ".matches('^v+$')",
        ".startsWith(\"v\")",
        "size(query.x)",
        " in ",
        "has(query.x)",
        " ? ",
        " : ",
        "true",
        "null",
        "[1, 2].exists(i, i == 1)",
        "jwt.sub",
        "int(query.x)",
        "duration('1s')",
        ".",
    ];
    const LOGINS: &[&str] = &[
        "{",
        "}",
        "\"username\":",
        "\"password\":",
        "\"refresh_token\":",
        "\"alice\"",
        "\"\"",
        "\"s3cret\"",
        ",",
        ":",
        "null",
        "1",
        "[]",
        " ",
        "\"\\u0000\"",
        "\\",
        "\"\\ud800\"",
        "\u{feff}",
    ];
    const RANGES: &[&str] = &[
        "bytes=",
        "Bytes =",
        "0",
        "9",
        "-",
        ",",
        " ",
        "18446744073709551616",
        "1-2",
        "0-",
        "-5",
        "/",
        "a",
        ".git",
        "..",
        "%2e",
        "%2f",
        "\\",
        ".well-known",
        "%00",
        "",
    ];
    const PROXIES: &[&str] = &[
        "PROXY ",
        "TCP4",
        "TCP6",
        "UNKNOWN",
        " ",
        "192.0.2.1",
        "::1",
        "80",
        "65536",
        "\r\n",
        "\r",
        "0",
        "GET / HTTP/1.1\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
        "\r\n\r\n\0\r\nQUIT\n",
        "\x21\x11\0\x0c",
        "\x20\0\0\0",
        "\x7f\0\0\x01\x7f\0\0\x01\0\x50\0\x51",
    ];
    const BROKERS: &[&str] = &[
        "amqp",
        "amqps",
        "://",
        "guest",
        ":",
        "@",
        "127.0.0.1",
        "[::1]",
        "5672",
        "/",
        "%2f",
        "%",
        "?",
        "#",
        "x-edgeward-id",
        "\n",
        "{",
        "}",
        "tickets",
    ];
    const SHAPES: &[&str] = &[
        "first",
        "second",
        ".",
        "a",
        "b",
        "[]",
        "[*]",
        "[0]",
        "[-1:]",
        "{",
        "}",
        "x: ",
        ", ",
        "@",
        "&",
        "|",
        "||",
        "`1`",
        "'x'",
        "length(first)",
        "sort_by(first, &a)",
        "to_number('1e999')",
        "map(&a, @)",
        "(",
        ")",
        "[?a == `1`]",
        "*",
        "merge(first, second)",
        "\"a\"",
        "{\"a\":[1,2,{\"b\":null}]}",
        "12345678901234567890123",
        "not_null(@)",
        "!",
    ];
    const ROWS: &[&str] = &[
        "a",
        "/a",
        "/a/{id}",
        "/admin/*",
        "/good",
        "/*",
        "~^/",
        "{",
        "}",
        "[",
        "]",
        "\"",
        ",",
        ":",
        "[\"GET\"]",
        "[{\"type\":\"http-get\",\"url\":\"http://127.0.0.1:3/x\"}]",
        "[{\"type\":\"amqp\",\"url\":\"main/q\"}]",
        "\"type\":\"http-post\"",
        "\"url\":\"upstream://known/x\"",
        "\"group\":\"g\"",
        "\"timeout\":\"1s\"",
        "[\"admin\"]",
        "[\"*.example\"]",
        "null",
        "\0",
        "\n",
    ];
    const NGINX: &[&str] = &[
        "events {}\n",
        "http {\n",
        "server {\n",
        "}\n",
        "listen 8080;\n",
        "listen 443 ssl;\n",
        "server_name a.example *.b;\n",
        "location / {\n",
        "location = /a {\n",
        "location ~* ^/(a|b)$ {\n",
        "location ^~ /s/ {\n",
        "proxy_pass http://u/x/;\n",
        "upstream u {\n",
        "server 127.0.0.1:3001 weight=2;\n",
        "return 301 https://$host$request_uri;\n",
        "root /srv;\n",
        "try_files $uri /index.html =404;\n",
        "rewrite ^/a/(.*)$ /b/$1 last;\n",
        "set $x $1;\n",
        "if ($http_x = \"a\") {\n",
        "map $http_host $y {\n",
        "default 1;\n",
        "add_header X \"$y\" always;\n",
        "error_page 404 /x;\n",
        "proxy_set_header Host $http_host;\n",
        "include none.conf;\n",
        "\"",
        "'",
        "\\",
        ";",
        "{",
        "#x\n",
        "$",
        "client_max_body_size 1m;\n",
        "auth_basic off;\n",
        "deny all;\n",
        "allow 10.0.0.0/8;\n",
        "limit_req zone=z burst=5;\n",
    ];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn of_templates(bytes in made_of(TEMPLATES)) {
            template(&bytes);
        }

        #[test]
        fn of_cookies(bytes in made_of(COOKIES)) {
            cookies(&bytes);
        }

        #[test]
        fn of_trace_contexts(bytes in made_of(TRACES)) {
            trace_context(pieces(&bytes).1);
        }

        #[test]
        fn of_logins(bytes in made_of(LOGINS)) {
            login_body(pieces(&bytes).1);
        }

        #[test]
        fn of_requests_for_files(bytes in made_of(RANGES)) {
            file_request(pieces(&bytes).1);
        }

        #[test]
        fn of_proxy_headers(bytes in made_of(PROXIES)) {
            proxy_header(pieces(&bytes).1);
        }

        #[test]
        fn of_brokers(bytes in made_of(BROKERS)) {
            broker(&bytes);
        }

        #[test]
        fn of_shapes(bytes in made_of(SHAPES)) {
            shape(&bytes);
        }

        #[test]
        fn of_heads(bytes in made_of(HEAD)) {
            head(&bytes);
        }

        #[test]
        fn of_chunked_bodies(bytes in made_of(CHUNKS)) {
            chunked(&bytes);
        }

        #[test]
        fn of_framing(bytes in made_of(MESSAGE)) {
            framing(pieces(&bytes).1);
        }

        #[test]
        fn of_http2_frames(bytes in prop::collection::vec(any::<u8>(), 0..800)) {
            frames(&bytes);
        }

        #[test]
        fn of_paths_and_routes(bytes in made_of(PATHS)) {
            route(pieces(&bytes).1);
        }

        #[test]
        fn of_the_access_log(bytes in made_of(LOG)) {
            access_log(&bytes);
        }

        #[test]
        fn of_tokens(bytes in made_of(TOKEN)) {
            token(&bytes);
        }

        #[test]
        fn of_key_sets(bytes in made_of(KEYS)) {
            key_set(&bytes);
        }

        #[test]
        fn of_merged_answers(bytes in made_of(JSON)) {
            merged(&bytes);
        }

        #[test]
        fn of_requests_of_legs(bytes in made_of(VALUES)) {
            leg_request(&bytes);
        }

        #[test]
        fn of_forwarding_headers(bytes in made_of(NODES)) {
            forwarded(&bytes);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn of_configurations(bytes in made_of(TOML)) {
            configuration(pieces(&bytes).1);
        }

        #[test]
        fn of_expressions(bytes in made_of(EXPRESSIONS)) {
            expression(&bytes);
        }

        #[test]
        fn of_rows_of_services(bytes in made_of(ROWS)) {
            service_rows(&bytes);
        }

        #[test]
        fn of_nginx_configurations(bytes in made_of(NGINX)) {
            nginx(pieces(&bytes).1);
        }
    }

    /// A certificate, whole and with one byte of it changed.
    #[test]
    fn of_client_certificates() {
        let seed = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/client_certificate/usual");
        let good = std::fs::read(seed).unwrap();
        assert!(crate::base::client_cert::ClientCert::read(&good).is_some());
        for at in 0..good.len() {
            for flip in [1, 0x20, 0x80, 0xff] {
                let mut damaged = good.clone();
                damaged[at] ^= flip;
                client_certificate(&damaged);
            }
        }
    }

    /// Every checked-in seed of the fuzzers holds, and so do the configurations that come with the program.
    #[test]
    fn of_the_seeds() {
        type Body = fn(&[u8]);
        let bodies: [(&str, Body); 25] = [
            ("fuzz/seeds/framing", framing),
            ("fuzz/seeds/head", head),
            ("fuzz/seeds/chunked", chunked),
            ("fuzz/seeds/frames", frames),
            ("fuzz/seeds/configuration", configuration),
            ("conf", configuration),
            ("fuzz/seeds/route", route),
            ("fuzz/seeds/access_log", access_log),
            ("fuzz/seeds/forwarded", forwarded),
            ("fuzz/seeds/token", token),
            ("fuzz/seeds/key_set", key_set),
            ("fuzz/seeds/merged", merged),
            ("fuzz/seeds/leg_request", leg_request),
            ("fuzz/seeds/template", template),
            ("fuzz/seeds/cookies", cookies),
            ("fuzz/seeds/trace_context", trace_context),
            ("fuzz/seeds/expression", expression),
            ("fuzz/seeds/login_body", login_body),
            ("fuzz/seeds/file_request", file_request),
            ("fuzz/seeds/proxy_header", proxy_header),
            ("fuzz/seeds/client_certificate", client_certificate),
            ("fuzz/seeds/broker", broker),
            ("fuzz/seeds/shape", shape),
            ("fuzz/seeds/service_rows", service_rows),
            ("fuzz/seeds/nginx", nginx),
        ];
        for (name, body) in bodies {
            let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
            let files = std::fs::read_dir(directory).unwrap_or_else(|error| panic!("{name}: {error}"));
            let files: Vec<_> =
                files.map(|file| file.unwrap().path()).filter(|path| path.is_file()).collect();
            assert!(!files.is_empty(), "{name} is empty");
            for file in files {
                body(&std::fs::read(file).unwrap());
            }
        }
    }
}
