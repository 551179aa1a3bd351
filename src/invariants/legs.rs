//! Of one request that becomes several: what the legs are asked, and what is made of their answers.

use http::Method;
use http::header::HeaderMap;

use super::pieces;
use crate::routing::template::{Scope, Template, Values};
use crate::routing::{PathPattern, RequestView, path};
use crate::subrequest::json;
use crate::subrequest::read::{self, Filter, Reading};
use crate::subrequest::shape::{Formula, Shape};

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
