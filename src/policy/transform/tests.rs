//! What rules come to, and what no value can become.

use std::net::IpAddr;

use http::{HeaderMap, Method};
use proptest::prelude::*;

use super::*;
use crate::base::decode::decode_str;
use crate::base::diagnostic::Diagnostics;
use crate::routing::template::Scope;
use crate::routing::{PathPattern, RequestView};

fn rules(text: &str) -> (Option<RequestRules>, Vec<String>) {
    let (raw, mut out) = decode_str::<RequestRaw>(text);
    let pattern = PathPattern::parse("/a/{id}/*").unwrap();
    let rules =
        raw.and_then(|raw| raw.compile("request", Scope { pattern: &pattern, groups: None }, &mut out));
    (rules, messages(&out))
}

fn messages(out: &Diagnostics) -> Vec<String> {
    out.iter()
        .map(|item| format!("{}: {} | {}", item.path, item.message, item.hint.as_deref().unwrap_or("")))
        .collect()
}

fn with_values<T>(path: &str, query: &str, header: &[u8], look: impl FnOnce(&Values<'_>) -> T) -> T {
    let mut headers = HeaderMap::new();
    headers.insert("x-h", HeaderValue::from_bytes(header).unwrap());
    let request = RequestView {
        listener: 0,
        host: "shop.example",
        path,
        query: Some(query).filter(|query| !query.is_empty()),
        method: &Method::GET,
        headers: &headers,
    };
    let captures = PathPattern::parse("/a/{id}/*").unwrap().captures(path).unwrap();
    let client = Some(IpAddr::from([192, 0, 2, 1]));
    look(&Values {
        request: &request,
        captures: &captures,
        scheme: "https",
        id: "r1",
        client,
        client_cert: None,
        who: Default::default(),
    })
}

/// Each step as `name action value`, `!` where the value was unusable.
fn steps(text: &str, path: &str, query: &str) -> Vec<String> {
    let (rules, problems) = rules(text);
    assert!(problems.is_empty(), "{problems:?}");
    let rules = rules.unwrap();
    with_values(path, query, b"h", |values| {
        let shown = |step: Step<'_>| {
            let unusable = if step.unusable { "!" } else { "" };
            let text = |value: HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
            match step.action {
                Action::Remove => format!("{} remove{unusable}", step.name),
                Action::Set(value) => format!("{} set {}{unusable}", step.name, text(value)),
                Action::Add(value) => format!("{} add {}{unusable}", step.name, text(value)),
                Action::Keep => format!("{} keep{unusable}", step.name),
            }
        };
        rules.headers.steps(Some(values)).map(shown).collect()
    })
}

#[test]
fn removals_come_first_then_values_then_additions() {
    let text = r#"
        add = { X-Add = "{client.ip}", X-None = "{query.none}" }
        set = { X-Set = " fixed ", X-Path = "{path.id}|{path.rest}", X-Missing = "a {header.x-none}" }
        remove = ["X-Debug", "X-Set"]
    "#;
    assert_eq!(
        steps(text, "/a/7%2F8/b/c", "q=1"),
        [
            "x-debug remove",
            "x-set remove",
            "x-set set fixed",
            "x-path set 7/8|b/c",
            "x-missing remove",
            "x-add add 192.0.2.1",
            "x-none keep",
        ]
    );
}

#[test]
fn sources_give_what_was_sent() {
    let text = r#"
        set = { A = "{request.method} {request.scheme}://{request.host}{request.uri}", B = "{request.path}", C = "{header.X-H}{{}}", D = "{query.q}", E = "{request.id}" }
    "#;
    assert_eq!(
        steps(text, "/a/%C3%A4/", "q=x%20y+z&q=2"),
        [
            "a set GET https://shop.example/a/%C3%A4/?q=x%20y+z&q=2",
            "b set /a/%C3%A4/",
            "c set h{}",
            "d set x y z",
            "e set r1"
        ]
    );
    let bare = steps("set = { A = \"{request.uri}\" }", "/a/1/", "");
    assert_eq!(bare, ["a set /a/1/"]);
}

#[test]
fn what_no_header_can_hold_is_not_sent_at_all() {
    let text = "set = { X = \"{query.q}\", Host = \"{query.h}\" }\nadd = { Y = \"{query.q}\" }";
    assert_eq!(steps(text, "/a/1/", "q=a%0D%0AX-Evil:%201&h=a%20b"), ["x remove!", "host keep!", "y keep!"]);
    assert_eq!(steps(text, "/a/1/", "q=%0D%0Aa")[0], "x remove!");
    assert_eq!(steps(text, "/a/1/", "q=+&h=h.example:81"), ["x remove", "host set h.example:81", "y keep"]);
}

#[test]
fn names_that_frame_a_message_or_belong_to_the_gateway_are_refused() {
    for name in [
        "Connection",
        "content-length",
        "Transfer-Encoding",
        "TE",
        "Upgrade",
        "Trailer",
        "Keep-Alive",
        "Expect",
    ] {
        for text in [
            format!("set = {{ {name} = \"1\" }}"),
            format!("add = {{ {name} = \"1\" }}"),
            format!("remove = [\"{name}\"]"),
        ] {
            let (_, problems) = rules(&text);
            assert!(
                problems.iter().any(|text| text.contains("belongs to the connection")),
                "{text}: {problems:?}"
            );
        }
    }
    for (text, expected) in [
        ("set = { X-Request-Id = \"1\" }", "is the gateway's own"),
        ("set = { \"a b\" = \"1\" }", "is not a header name"),
        ("set = { \":path\" = \"1\" }", "is not a header name"),
        ("add = { Host = \"1\" }", "is never added or removed"),
        ("remove = [\"Host\"]", "is never added or removed"),
        ("set = { Host = \"a b\" }", "request.set.host: \"a b\" is not a host"),
        ("set = { X = \"a\\nb\" }", "request.set.x: the value holds a control character"),
        (
            "set = { X = \"\" }",
            "request.set.x: the value is empty | to leave the header out write remove = [\"x\"]",
        ),
        ("set = { X = \"{jtw.sub}\" }", "did you mean `jwt`?"),
        ("set = { X = \"{consumer.nam}\" }", "did you mean `name`?"),
        ("set = { X = \"{path.di}\" }", "did you mean {path.id}?"),
        ("query = { set = { a = \"{request.ur}\" } }", "did you mean `uri`?"),
        ("query = { remove = [\"\"] }", "a parameter has a name"),
        ("envelope = true", "unknown key"),
    ] {
        let (_, problems) = rules(text);
        assert!(problems.len() == 1 && problems[0].contains(expected), "{text}: {problems:?}");
    }
}

fn query(text: &str, query: &str) -> String {
    let (rules, problems) = rules(text);
    assert!(problems.is_empty(), "{problems:?}");
    let edits = rules.unwrap().query.unwrap();
    with_values("/a/7/", query, b"h", |values| edits.apply(values.request.query, values))
}

#[test]
fn only_named_parameters_change() {
    let text = "query = { set = { id = \"{path.id}\", \"a b\" = \"{query.v}\" }, remove = [\"debug\"] }";
    assert_eq!(
        query(text, "x=%2f&debug=1&%64ebug&id=1&&flag&id=2&v=a%26b"),
        "x=%2f&flag&v=a%26b&id=7&a%20b=a%26b"
    );
    assert_eq!(query(text, ""), "id=7");
    assert_eq!(query(text, "a+b=client"), "id=7");
    assert_eq!(query("query = { remove = [\"a\"] }", "a=1&a"), "");
}

#[test]
fn rules_know_whether_they_ask() {
    assert!(rules("").0.is_none() && rules("set = {}\nquery = {}").0.is_none());
    assert!(!rules("set = { A = \"1\" }\nremove = [\"B\"]").0.unwrap().headers.asks());
    assert!(rules("add = { A = \"{client.ip}\" }").0.unwrap().headers.asks());
}

proptest! {
    /// Whatever a client sends: no line break, no control character, at most one header a rule.
    #[test]
    fn a_value_is_one_value(raw in proptest::collection::vec(any::<u8>(), 0..24)) {
        let mut encoded = String::new();
        crate::routing::escape::push_query(&mut encoded, &raw);
        let (rules, _) = rules("set = { X = \"<{query.q}>\" }\nquery = { set = { p = \"{query.q}\" } }");
        let rules = rules.unwrap();
        with_values("/a/1/", &format!("q={encoded}"), b"h", |values| {
            let steps: Vec<_> = rules.headers.steps(Some(values)).collect();
            prop_assert_eq!(steps.len(), 1);
            match &steps[0].action {
                Action::Set(value) => {
                    prop_assert!(!value.as_bytes().iter().any(|byte| (*byte < 32 && *byte != 9) || *byte == 127));
                    prop_assert_eq!(value.as_bytes(), [b"<", raw.as_slice(), b">"].concat());
                }
                Action::Remove => prop_assert!(steps[0].unusable),
                other => prop_assert!(false, "{:?}", other),
            }
            let query = rules.query.as_ref().unwrap().apply(values.request.query, values);
            prop_assert_eq!(query.matches('&').count(), 1);
            Ok(())
        })?;
    }
}
