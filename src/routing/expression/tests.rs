//! What expressions see, what they must not cost, and that nothing makes them say yes by accident.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;
use crate::routing::template::{ConsumerView, Who};
use crate::routing::{PathPattern, RequestView};

fn pattern() -> PathPattern {
    PathPattern::parse("/a/{id}/*").unwrap()
}

fn parse_at(stage: Stage, text: &str) -> Result<Expression, Mistake> {
    Expression::parse(text, Scope { pattern: &pattern(), groups: None }, stage)
}

fn parse(text: &str) -> Result<Expression, Mistake> {
    parse_at(Stage::Authorization, text)
}

fn claims() -> Map<String, Value> {
    let claims = json!({
        "sub": "alice", "tenant": "acme", "level": 3, "ratio": 2.5, "admin": true, "none": null,
        "groups": ["a", "b"], "https://example.com/roles": ["editor"], "deep": { "er": { "x": "y" } },
        "huge": 18_446_744_073_709_551_615_u64,
    });
    claims.as_object().unwrap().clone()
}

/// Asks a request for `/a/7%2F8/b?q=x+y&q=2&n=1` by a client at 192.0.2.1.
fn ask(text: &str, claims: Option<&Map<String, Value>>, headers: &HeaderMap) -> Result<bool, Failed> {
    let expression = parse(text).unwrap_or_else(|wrong| panic!("{text}: {wrong}"));
    of_request(claims, headers, |values| expression.holds(values))
}

fn of_request<T>(
    claims: Option<&Map<String, Value>>,
    headers: &HeaderMap,
    ask: impl FnOnce(&Values<'_>) -> T,
) -> T {
    let groups = ["gold".into(), "beta".into()];
    let path = "/a/7%2F8/b";
    let request = RequestView {
        listener: 0,
        host: "shop.example",
        path,
        query: Some("q=x+y&q=2&n=1"),
        method: &Method::POST,
        headers,
    };
    let consumer = claims.map(|_| ConsumerView { name: "mobile", groups: &groups, plan: None });
    ask(&Values {
        request: &request,
        captures: &pattern().captures(path).unwrap(),
        scheme: "https",
        id: "r1",
        client: Some(IpAddr::from([192, 0, 2, 1])),
        client_cert: None,
        who: Who { claims, consumer },
    })
}

fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    headers
}

#[test]
fn every_source_can_be_asked() {
    let headers =
        headers(&[("x-v", "2"), ("x-l", "a"), ("x-l", "b"), ("cookie", "t=1; s=x=y"), ("cookie", "t=3")]);
    let claims = claims();
    for (text, expected) in [
        ("jwt.tenant == \"acme\"", true),
        ("jwt.tenant == 'other'", false),
        ("jwt.level >= 3 && jwt.level < 4 && jwt.ratio > 2", true),
        ("jwt.admin", true),
        ("jwt.none == null && jwt.huge > 1", true),
        ("'b' in jwt.groups && !('c' in jwt.groups)", true),
        ("jwt['https://example.com/roles'].exists(r, r == 'editor')", true),
        ("jwt.deep.er.x == 'y'", true),
        ("has(jwt.tenant) && !has(jwt.missing)", true),
        ("'tenant' in jwt && !('x' in jwt) && size(jwt) == 10", true),
        ("consumer.name == 'mobile' && 'gold' in consumer.groups && !has(consumer.plan)", true),
        ("path.id == '7/8' && path.rest == 'b'", true),
        ("path.all(name, path[name] != '')", true),
        ("query.q == 'x y' && query['n'] == '1' && !('m' in query)", true),
        ("query.exists(name, name == 'n') && size(query) == 2", true),
        ("header['x-v'] == '2' && header['X-V'] == '2' && header['x-l'] == 'a, b'", true),
        ("'x-v' in header && !('x-w' in header) && header.exists(name, name == 'x-l')", true),
        ("cookie.t == '1' && cookie.s == 'x=y' && size(cookie) == 2", true),
        ("client.ip == '192.0.2.1' && client.ip.startsWith('192.') && !has(client.cert)", true),
        ("request.method == 'POST' && request.scheme + '://' + request.host == 'https://shop.example'", true),
        (
            "request.uri == '/a/7%2F8/b?q=x+y&q=2&n=1' && request.path.endsWith('/b') && request.id == 'r1'",
            true,
        ),
        ("request.path.matches('^/a/[^/]+/b$') && matches(jwt.sub, 'ali.*') && !jwt.sub.matches('^b')", true),
        ("type(jwt.sub) == string && int('7') == 7", true),
        ("jwt.tenant in ['acme', 'umbrella'] ? true : false", true),
    ] {
        assert_eq!(ask(text, Some(&claims), &headers), Ok(expected), "{text}");
    }
}

/// What cannot be said is not true.
#[test]
fn what_is_missing_or_of_another_type_fails() {
    let claims = claims();
    for text in [
        "jwt.missing == 'x'",
        "jwt.tenant > 3",
        "jwt.tenant",
        "jwt.level",
        "jwt.deep.missing.x == 1",
        "client.cert.subject == 'CN=a'",
        "header['x-v'] == '2'",
        "consumer.plan == 'gold'",
        "1 / 0 == 1",
        "int(jwt.tenant) == 1",
        "jwt.groups[7] == 'a'",
        "9223372036854775807 + 1 > 0",
        "'a' in jwt.level",
        "[jwt.tenant].all(x, x > 1)",
    ] {
        assert!(ask(text, Some(&claims), &HeaderMap::new()).is_err(), "{text}");
    }
    for text in ["jwt.tenant == 'acme'", "consumer.name == 'mobile'", "'a' in jwt.groups"] {
        assert!(ask(text, None, &HeaderMap::new()).is_err(), "{text}");
    }
    assert_eq!(ask("jwt == null && consumer == null", None, &HeaderMap::new()), Ok(true));
    let story = ask("jwt.tenant == 'x' || jwt.missing", Some(&claims), &HeaderMap::new()).unwrap_err();
    assert!(!story.to_string().is_empty() && story.to_string().len() <= STORY_BYTES_MAX + 4);
}

#[test]
fn mistakes_are_told_when_it_is_read() {
    let long = format!("jwt.a == '{}'", "x".repeat(TEXT_BYTES_MAX));
    let many = (0..90).map(|n| format!("jwt.a == {n}")).collect::<Vec<_>>().join(" || ");
    let deep = format!("{}true{}", "(".repeat(200), ")".repeat(200));
    let wide_loop =
        format!("jwt.a.all(x, {})", (0..40).map(|n| format!("x != {n}")).collect::<Vec<_>>().join(" && "));
    for (text, expected) in [
        ("", "the expression is empty"),
        ("jwt.a ==", "the expression cannot be read"),
        ("jwt.a = 1", "the expression cannot be read"),
        ("\"open", "the expression cannot be read"),
        ("jtw.a == 1", "`jtw` is not a source of values | did you mean `jwt`?"),
        ("tenant == 'a'", "`tenant` is not a source of values"),
        ("request.verb == 'GET'", "`verb` is not known of a request"),
        ("client.addr == 'x'", "`addr` is not known of a client | one of ip, cert"),
        ("client.cert.subj == 'x'", "`subj` is not known of a certificate"),
        ("consumer.group == 'x'", "`group` is not known of a consumer | did you mean `groups`?"),
        ("path.di == '1'", "the path \"/a/{id}/*\" declares no `di` | did you mean `id`?"),
        ("jwt.a.uppercase() == 'A'", "`uppercase` is not a function"),
        ("lists.range(1000000000).exists(x, x == 1)", "`range` is not a function"),
        ("jwt.sub.matches(header.x)", "the regex of `matches` is not a literal text"),
        ("jwt.sub.matches('(')", "regex is not valid"),
        ("jwt.sub.matches('(a{1000}){1000}')", "regex is too large when compiled"),
        ("jwt.a.exists(x, jwt.b.exists(y, x == y))", "asks of every element twice"),
        ("jwt.a.filter(x, x > 1).exists(y, y == 1)", "asks of every element twice"),
        ("Account{name: 'x'}.name == 'x'", "is not a type that can be made here"),
        (long.as_str(), "bytes long, at most 2048 are allowed"),
        (many.as_str(), "parts, at most 256 are allowed"),
        (wide_loop.as_str(), "parts, at most 96 are allowed"),
        (deep.as_str(), "the expression is nested more than 32 levels deep | parentheses, lists,"),
    ] {
        let wrong = match parse(text) {
            Err(wrong) => format!("{} | {}", wrong.message, wrong.hint.unwrap_or_default()),
            Ok(_) => panic!("{text}"),
        };
        assert!(wrong.contains(expected), "{text}: {wrong}");
    }
    assert_eq!(parse("true && jtw.a").unwrap_err().at, 8..11);
}

/// At the first that is one too many; what stands in texts and comments opens nothing.
#[test]
fn what_is_nested_too_deeply_is_told_at_its_place() {
    let (open, close) = ("(".repeat(40), ")".repeat(40));
    let wrong = parse(&format!("header.x == 'a' && {open}true{close}")).unwrap_err();
    assert_eq!(wrong.at, 19 + 32..19 + 33);
    for fine in [
        format!("{}true{}", &open[..32], &close[..32]),
        format!("header.x == '{open}'"),
        format!("header.x == \"'{open}\" && header.y == '{open}'"),
        format!("header.x == '\\'{open}'"),
        format!("header.x == r'\\' && header.y == \"{open}\""),
        format!("header.x == \"\"\"a \"b\" {open}\"\"\""),
        format!("true // {open}\n && true"),
        (0..100).map(|_| "(true)").collect::<Vec<_>>().join(" && "),
    ] {
        assert!(parse(&fine).is_ok(), "{fine}: {:?}", parse(&fine));
    }
    // Levels without brackets count, too.
    let mixed = format!("{}true", "true ? true : ".repeat(90));
    let wrong = parse(&mixed).unwrap_err();
    assert!(wrong.message.contains("nested more than 32 levels"), "{}", wrong.message);
}

#[test]
fn nobody_is_known_while_a_route_is_looked_for() {
    for text in ["jwt.a == 1", "'x' in consumer.groups", "size(jwt) > 0", "'a' in jwt"] {
        let wrong = parse_at(Stage::Routing, text).unwrap_err();
        assert!(wrong.hint.is_some_and(|hint| hint.contains("auth.when")), "{text}");
    }
    assert!(parse_at(Stage::Routing, "header['x'] == '1' && [1].exists(jwt, jwt == 1)").is_ok());
}

/// A list of a thousand elements is looked at, a longer one is refused: what one request costs has a bound.
#[test]
fn there_is_a_bound_to_what_is_looked_at() {
    let list = |length: usize| json!({ "l": vec![1; length] }).as_object().unwrap().clone();
    let none = HeaderMap::new();
    assert_eq!(ask("jwt.l.all(x, x == 1)", Some(&list(1000)), &none), Ok(true));
    assert!(ask("jwt.l.all(x, x == 1)", Some(&list(2000)), &none).is_err());
    assert!(ask("!('x' in jwt.l)", Some(&list(2000)), &none).is_err());
    assert_eq!(ask("client.ip != ''", Some(&list(2000)), &none), Ok(true));
}

proptest! {
    /// Whatever is written: a mistake or an expression, never a panic.
    #[test]
    fn any_text_is_read_or_refused(text in "[a-z.'\"()\\[\\]{}!=<>&|+*/%?: 0-9-]{0,40}") {
        if let Ok(expression) = parse(&text) {
            let claims = claims();
            let request = RequestView {
                listener: 0, host: "", path: "/a/1/", query: None, method: &Method::GET, headers: &HeaderMap::new(),
            };
            drop(expression.holds(&Values {
                request: &request,
                captures: &pattern().captures("/a/1/").unwrap(),
                scheme: "http", id: "", client: None, client_cert: None,
                who: Who { claims: Some(&claims), consumer: None },
            }));
        }
    }

    /// A claim is a value: nothing in it is read as an expression.
    #[test]
    fn a_claim_is_only_a_value(text in ".{0,40}") {
        let claims = json!({ "tenant": text }).as_object().unwrap().clone();
        prop_assert_eq!(ask("jwt.tenant == 'acme'", Some(&claims), &HeaderMap::new()), Ok(text == "acme"));
    }
}

fn number(text: &str) -> Result<u64, Failed> {
    let stage = Stage::Counting { knows_who: true };
    let expression =
        Expression::parse_number(text, stage, 100).unwrap_or_else(|wrong| panic!("{text}: {wrong}"));
    of_request(Some(&claims()), &HeaderMap::new(), |values| expression.number(values))
}

#[test]
fn numbers_are_whole_and_not_negative() {
    assert_eq!(number("request.path.startsWith(\"/a/\") ? 10 : 1"), Ok(10));
    assert_eq!(number("request.method == \"GET\" ? 10 : jwt.level"), Ok(3));
    assert_eq!(number("int(query.n) + 1"), Ok(2));
    assert_eq!(number("jwt.huge"), Ok(u64::MAX));
    assert_eq!(number("0"), Ok(0));
    for text in
        ["0 - jwt.level", "jwt.ratio", "jwt.sub", "jwt.absent", "int(header.absent)", "1 / 0", "jwt.none"]
    {
        assert!(number(text).is_err(), "{text}");
    }
}

#[test]
fn what_cannot_be_a_number_is_said_beforehand() {
    let parse = |text, knows_who| Expression::parse_number(text, Stage::Counting { knows_who }, 100);
    for (text, part) in [
        ("request.path == \"/\"", "true or false"),
        ("request.path.startsWith(\"/\") ? 1 : \"2\"", "a text"),
        ("1.5", "a fraction"),
        ("true ? 1 : 101", "101 is more than the 100"),
        ("-1", "-1 is less than 0"),
        ("path.id == \"1\" ? 1 : 2", "no one route's"),
        ("jwt.level", "is not known yet"),
        ("consumer.name == \"a\" ? 1 : 2", "is not known yet"),
    ] {
        let wrong = parse(text, false).unwrap_err();
        assert!(wrong.message.contains(part), "{text}: {wrong}");
    }
    assert!(parse("jwt.level", true).is_ok());
}
