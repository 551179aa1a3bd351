//! The table against a matcher that is too simple to be wrong, and the rules of `config.md` one by one.

use std::cmp::Reverse;

use http::Method;
use http::header::{COOKIE, HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;
use proptest::sample::select;

use super::explain::{Because, Candidate, Verdict};
use super::*;

/// A route as a person would write it.
#[derive(Debug, Clone, Default)]
struct Written {
    hosts: Vec<&'static str>,
    listeners: Option<Vec<u16>>,
    path: &'static str,
    methods: Vec<&'static str>,
    /// Of the header, parameter and cookie that are all called `v`: a text, `"true"` or `"false"`.
    header: Option<&'static str>,
    query: Option<&'static str>,
    cookie: Option<&'static str>,
    priority: i32,
}

#[derive(Debug, Clone)]
struct Asked {
    host: &'static str,
    listener: u16,
    path: &'static str,
    method: Method,
    header: Option<&'static str>,
    query: Option<&'static str>,
    cookie: Option<&'static str>,
}

const V: HeaderName = HeaderName::from_static("v");

fn route(path: &'static str) -> Written {
    Written { path, ..Written::default() }
}

impl Written {
    fn hosts(self, hosts: &[&'static str]) -> Self {
        Self { hosts: hosts.to_vec(), ..self }
    }
    fn methods(self, methods: &[&'static str]) -> Self {
        Self { methods: methods.to_vec(), ..self }
    }
    fn header(self, value: &'static str) -> Self {
        Self { header: Some(value), ..self }
    }
    fn priority(self, priority: i32) -> Self {
        Self { priority, ..self }
    }

    fn spec(&self, id: u32) -> RouteSpec {
        let value = |text: &'static str| match text {
            "true" | "false" => ValueMatch::presence(text == "true"),
            _ => ValueMatch::parse(text).unwrap(),
        };
        let named =
            |text: Option<&'static str>| text.map(|text| ("v".into(), value(text))).into_iter().collect();
        RouteSpec {
            hosts: self.hosts.iter().map(|host| HostPattern::parse(host).unwrap()).collect(),
            listeners: self.listeners.clone().map(ListenerSet::from_iter),
            methods: self.methods.iter().map(|name| MethodSet::named(name).unwrap()).reduce(MethodSet::union),
            headers: self.header.map(|text| (V, value(text))).into_iter().collect(),
            query: named(self.query),
            cookies: named(self.cookie),
            priority: self.priority,
            ..RouteSpec::new(RouteId(id), PathPattern::parse(self.path).unwrap())
        }
    }
}

fn table(routes: &[Written]) -> Table {
    Table::build((0..).zip(routes).map(|(id, route)| route.spec(id)).collect())
}

fn get(host: &'static str, path: &'static str) -> Asked {
    Asked { host, listener: 0, path, method: Method::GET, header: None, query: None, cookie: None }
}

impl Asked {
    fn with<T>(&self, look: impl FnOnce(&RequestView<'_>) -> T) -> T {
        let mut headers = HeaderMap::new();
        if let Some(value) = self.header {
            headers.insert(V, HeaderValue::from_static(value));
        }
        if let Some(value) = self.cookie {
            headers.insert(COOKIE, format!("a=b; v={value}").parse().unwrap());
        }
        let query = self.query.map(|value| format!("x=y&v={value}"));
        look(&RequestView {
            listener: self.listener,
            host: self.host,
            path: self.path,
            query: query.as_deref(),
            method: &self.method,
            headers: &headers,
        })
    }
}

/// Index of the route that takes it.
fn taken(routes: &[Written], asked: &Asked) -> Option<u32> {
    match asked.with(|view| table(routes).find(view)) {
        Outcome::Found { route, .. } => Some(route.0),
        _ => None,
    }
}

// ---- The reference: written from `config.md` alone; sorts all routes and tests one by one.

fn reference(routes: &[Written], asked: &Asked) -> Result<usize, Vec<&'static str>> {
    let mut order: Vec<_> = (0..routes.len()).filter_map(|at| Some((key(routes, at, asked)?, at))).collect();
    order.sort();
    let fitting = order.iter().map(|(_, at)| *at).filter(|at| holds(&routes[*at], asked));
    let allows = |route: &Written| {
        let method = asked.method.as_str();
        route.methods.is_empty()
            || route.methods.contains(&method)
            || (method == "HEAD" && route.methods.contains(&"GET"))
    };
    if let Some(winner) = fitting.clone().find(|at| allows(&routes[*at])) {
        return Ok(winner);
    }
    let mut allow: Vec<_> = fitting.flat_map(|at| routes[at].methods.clone()).collect();
    if allow.contains(&"GET") {
        allow.push("HEAD");
    }
    allow.sort();
    allow.dedup();
    Err(allow)
}

type Key = (usize, Reverse<i32>, u8, Reverse<usize>, Vec<bool>, usize, Reverse<usize>, usize);

/// Where a route stands for this request, if its host and path are as asked.
fn key(routes: &[Written], at: usize, asked: &Asked) -> Option<Key> {
    let route = &routes[at];
    let class = host_class(route, asked.host)?;
    let (kind, length, params) = path_rank(route.path, asked.path)?;
    let same_regex = |other: &Written| {
        other.path == route.path && other.priority == route.priority && shares_host(route, other, asked.host)
    };
    let place = if kind == 3 { routes.iter().position(same_regex)? } else { 0 };
    let predicates = usize::from(!route.methods.is_empty())
        + [route.header, route.query, route.cookie].iter().flatten().count();
    Some((class, Reverse(route.priority), kind, Reverse(length), params, place, Reverse(predicates), at))
}

fn host_class(route: &Written, host: &str) -> Option<usize> {
    if route.hosts.is_empty() {
        return Some(usize::MAX);
    }
    route.hosts.iter().filter_map(|pattern| one_host_class(pattern, host)).min()
}

fn one_host_class(pattern: &str, host: &str) -> Option<usize> {
    match pattern.strip_prefix('*') {
        None => (pattern == host).then_some(0),
        Some(dotted) => (host.ends_with(dotted) && host != dotted && !host.starts_with('['))
            .then_some(1000 - dotted.len()),
    }
}

/// Whether both are in the host class that the first has for this request.
fn shares_host(route: &Written, other: &Written, host: &str) -> bool {
    let class = host_class(route, host);
    if class == Some(usize::MAX) {
        return other.hosts.is_empty();
    }
    other.hosts.iter().any(|pattern| one_host_class(pattern, host) == class)
}

/// Kind, length of a prefix, and which segments are parameters.
fn path_rank(pattern: &str, path: &str) -> Option<(u8, usize, Vec<bool>)> {
    if path == "*" {
        return None;
    }
    if let Some(source) = pattern.strip_prefix('~') {
        return regex::Regex::new(source).unwrap().is_match(path).then_some((3, 0, vec![]));
    }
    if pattern == "/*" {
        return Some((4, 0, vec![]));
    }
    let (asked, open) = match pattern.strip_suffix("/*") {
        Some(base) => (base, true),
        None => (pattern, false),
    };
    let (asked, given): (Vec<_>, Vec<_>) =
        (asked.split('/').skip(1).collect(), path.split('/').skip(1).collect());
    let enough = if open { given.len() >= asked.len() } else { given.len() == asked.len() };
    let fits = |(asked, given): (&&str, &&str)| {
        if asked.starts_with('{') { !given.is_empty() } else { asked == given }
    };
    if !enough || !asked.iter().zip(&given).all(fits) {
        return None;
    }
    let params: Vec<_> = asked.iter().map(|segment| segment.starts_with('{')).collect();
    Some(match (open, params.contains(&true)) {
        (true, _) => (2, asked.len(), params),
        (false, true) => (1, 0, params),
        (false, false) => (0, 0, vec![]),
    })
}

fn holds(route: &Written, asked: &Asked) -> bool {
    let fits = |wanted: Option<&str>, found: Option<&str>| match wanted {
        None => true,
        Some("true") => found.is_some(),
        Some("false") => found.is_none(),
        Some(wanted) => match wanted.strip_prefix('~') {
            Some(source) => found.is_some_and(|found| regex::Regex::new(source).unwrap().is_match(found)),
            None => found == Some(wanted),
        },
    };
    route.listeners.as_ref().is_none_or(|listeners| listeners.contains(&asked.listener))
        && fits(route.header, asked.header)
        && fits(route.query, asked.query)
        && fits(route.cookie, asked.cookie)
}

// ---- Random tables and requests out of few parts, so that they meet.

fn written() -> impl Strategy<Value = Written> {
    let hosts = select(vec![
        vec![],
        vec![],
        vec!["a.x"],
        vec!["*.x"],
        vec!["*.a.x"],
        vec!["b.a.x", "*.x"],
        vec!["*.x", "*.a.x", "y"],
    ]);
    let path = select(vec![
        "/",
        "/a",
        "/a/",
        "/a/b",
        "/b/b",
        "/{p}",
        "/a/{p}",
        "/{p}/b",
        "/{p}/{q}",
        "/{p}/{q}/",
        "/a/{p}/c",
        "/{p}/b/c",
        "/a/b/{p}",
        "/*",
        "/a/*",
        "/a/b/*",
        "/{p}/*",
        "/a/{p}/*",
        "/{p}/b/*",
        "~^/a/[0-9]+$",
        "~^/a",
        "~b$",
        "~.",
        "~^/(a|b)/",
        "~^/a/b?",
        "~^/a/b/",
    ]);
    let value = || select(vec![None, None, None, Some("1"), Some("~[12]"), Some("true"), Some("false")]);
    let methods =
        select(vec![vec![], vec![], vec!["GET"], vec!["POST"], vec!["GET", "DELETE"], vec!["HEAD"]]);
    let listeners = select(vec![None, None, None, Some(vec![0]), Some(vec![1, 70])]);
    let priority = select(vec![0, 0, 0, 0, 1, -1, 2]);
    (hosts, listeners, path, methods, value(), value(), value(), priority).prop_map(
        |(hosts, listeners, path, methods, header, query, cookie, priority)| Written {
            hosts,
            listeners,
            path,
            methods,
            header,
            query,
            cookie,
            priority,
        },
    )
}

fn asked() -> impl Strategy<Value = Asked> {
    let host = select(vec!["a.x", "b.a.x", "c.b.a.x", "x", "c.x", "y", "", "[::1]"]);
    let path = select(vec![
        "/",
        "/a",
        "/a/",
        "/a/b",
        "/a/b/",
        "/a/1",
        "/b/b",
        "/b",
        "/a/b/c",
        "/a/1/c",
        "/c/d/e",
        "/b/b/",
        "/c/",
        "*",
        "/a/b/c/d/e/f",
    ]);
    let method =
        select(vec![Method::GET, Method::GET, Method::HEAD, Method::POST, Method::DELETE, Method::PUT]);
    let value = || select(vec![None, None, Some("1"), Some("2"), Some("")]);
    (host, 0_u16..2, path, method, value(), value(), value()).prop_map(
        |(host, listener, path, method, header, query, cookie)| Asked {
            host,
            listener,
            path,
            method,
            header,
            query,
            cookie,
        },
    )
}

fn tables() -> impl Strategy<Value = (Vec<Written>, Vec<Asked>)> {
    (prop::collection::vec(written(), 0..24), prop::collection::vec(asked(), 1..24))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// The key test of this module.
    #[test]
    fn the_table_agrees_with_the_written_precedence((routes, requests) in tables()) {
        let table = table(&routes);
        for asked in requests {
            let outcome = asked.with(|view| table.find(view));
            match (reference(&routes, &asked), &outcome) {
                (Ok(winner), Outcome::Found { route, captures }) => {
                    prop_assert_eq!(winner, route.0 as usize, "{:?}", asked);
                    let expected = PathPattern::parse(routes[winner].path).unwrap().captures(asked.path);
                    prop_assert_eq!(Some(captures), expected.as_ref());
                }
                (Err(methods), Outcome::MethodNotAllowed { allow }) => {
                    let mut names: Vec<_> = allow.iter().collect();
                    names.sort_unstable();
                    prop_assert_eq!(methods, names);
                }
                (Err(methods), Outcome::NotFound) => prop_assert!(methods.is_empty(), "{:?} {:?}", asked, methods),
                (expected, _) => prop_assert!(false, "{:?}: {:?}, not {:?}", asked, outcome, expected),
            }
        }
    }

    #[test]
    fn explanations_agree_with_the_table((routes, requests) in tables()) {
        let table = table(&routes);
        for asked in requests {
            let (outcome, told) = asked.with(|view| (table.find(view), table.explain(view, &Around::default())));
            let winners: Vec<_> =
                told.iter().filter(|told| told.verdict == Verdict::Wins).map(|told| told.route).collect();
            let other_methods = told.iter().any(|told| matches!(told.verdict, Verdict::MethodDiffers { .. }));
            match outcome {
                Outcome::Found { route, .. } => prop_assert_eq!(&winners, &[route]),
                Outcome::MethodNotAllowed { .. } => prop_assert!(winners.is_empty() && other_methods),
                Outcome::NotFound => prop_assert!(winners.is_empty() && !other_methods),
                Outcome::Undecided { .. } => prop_assert!(false, "nothing was asked that could fail"),
            }
            let mut met = std::collections::HashSet::new();
            let mut after_winner = false;
            for Candidate { route, verdict } in &told {
                prop_assert!(met.insert(*route), "told twice");
                after_winner |= *verdict == Verdict::Wins;
                if let Verdict::LessSpecific { than, .. } | Verdict::LaterInFile { than } = verdict {
                    prop_assert!(after_winner && winners == [*than]);
                }
            }
        }
    }

    /// A warning must never be wrong.
    #[test]
    fn shadowed_routes_are_never_taken((routes, requests) in tables()) {
        let table = table(&routes);
        let shadowed = table.shadowed();
        for asked in requests {
            if let Outcome::Found { route, .. } = asked.with(|view| table.find(view)) {
                prop_assert!(!shadowed.iter().any(|(hidden, _)| *hidden == route), "{:?} {:?}", asked, shadowed);
            }
        }
    }
}

// ---- The rules, one by one.

#[test]
fn hosts_go_from_exact_over_wildcards_to_any() {
    let routes = [
        route("/a"),
        route("/a").hosts(&["*.x"]),
        route("/*").hosts(&["*.a.x"]),
        route("/*").hosts(&["b.a.x"]),
        route("/b").hosts(&["b.a.x"]).methods(&["POST"]),
    ];
    assert_eq!(taken(&routes, &get("b.a.x", "/a")), Some(3), "the exact host, though its path is `/*`");
    assert_eq!(taken(&routes, &get("c.a.x", "/a")), Some(2));
    assert_eq!(taken(&routes, &get("c.x", "/a")), Some(1));
    assert_eq!(taken(&routes, &get("x", "/a")), Some(0), "`*.x` is not `x`");
    assert_eq!(taken(&routes, &get("", "/a")), Some(0));
    assert_eq!(taken(&routes, &get("c.x", "/b")), None);
}

#[test]
fn paths_go_from_exact_to_everything() {
    let routes = [
        route("/*"),
        route("~^/a/b"),
        route("~^/a/"),
        route("/a/*"),
        route("/a/b/*"),
        route("/{x}/c"),
        route("/a/{y}"),
        route("/a/b"),
    ];
    for (path, winner) in
        [("/a/b", 7), ("/a/c", 6), ("/b/c", 5), ("/a/b/c", 4), ("/a/c/d", 3), ("/a", 3), ("/b", 0)]
    {
        assert_eq!(taken(&routes, &get("", path)), Some(winner), "{path}");
    }
    assert_eq!(taken(&routes[..3], &get("", "/a/b")), Some(1), "regexes in the order of the file");
}

/// A route with a version beside the one without: the predicate wins wherever it stands.
#[test]
fn more_predicates_go_first_and_fall_through() {
    let routes = [route("/v"), route("/v").header("2"), route("/v").header("2").methods(&["GET"])];
    let asked = |header, method| Asked { header, method, ..get("", "/v") };
    assert_eq!(taken(&routes, &asked(None, Method::GET)), Some(0));
    assert_eq!(taken(&routes, &asked(Some("2"), Method::POST)), Some(1));
    assert_eq!(taken(&routes, &asked(Some("2"), Method::HEAD)), Some(2));
    assert_eq!(taken(&routes, &asked(Some("3"), Method::GET)), Some(0));
    let regexes = [route("~^/v"), route("~^/.$"), route("~^/v").header("2")];
    assert_eq!(taken(&regexes, &asked(Some("2"), Method::GET)), Some(2), "the same regex is one path");
    assert_eq!(taken(&regexes, &asked(None, Method::GET)), Some(0));
}

#[test]
fn priority_counts_within_a_host_class() {
    let routes = [
        route("/a").hosts(&["a.x"]),
        route("/*").hosts(&["a.x"]).priority(1),
        route("/a").priority(9),
        route("/a").hosts(&["a.x"]).priority(-1).methods(&["POST"]),
    ];
    assert_eq!(taken(&routes, &get("a.x", "/a")), Some(1));
    assert_eq!(taken(&routes, &get("b.x", "/a")), Some(2));
}

#[test]
fn another_method_is_405_only_if_nothing_matches() {
    let routes = [
        route("/a").methods(&["GET"]),
        route("/{x}").methods(&["POST"]).header("1"),
        route("/*").methods(&["DELETE"]).hosts(&["a.x"]),
    ];
    let put = |host, header| Asked { method: Method::PUT, header, ..get(host, "/a") };
    let allow = |asked: &Asked| match asked.with(|view| table(&routes).find(view)) {
        Outcome::MethodNotAllowed { allow } => allow.to_string(),
        other => format!("{other:?}"),
    };
    assert_eq!(allow(&put("", None)), "GET, HEAD");
    assert_eq!(allow(&put("a.x", Some("1"))), "GET, HEAD, POST, DELETE");
    assert_eq!(allow(&Asked { path: "/b", ..put("", None) }), "NotFound");
    let custom = Asked { method: Method::from_bytes(b"BREW").unwrap(), ..get("", "/a") };
    assert_eq!(allow(&custom), "GET, HEAD");
}

#[test]
fn explain_says_why_each_route_lost() {
    let routes = [
        route("/a/*"),
        route("/a/{id}").methods(&["POST"]),
        route("/a/{id}").header("2"),
        route("/a/{id}"),
        route("/a/{other}"),
        route("/a/{id}").hosts(&["b.x"]),
        route("/A/{id}/"),
        route("/z"),
        Written { listeners: Some(vec![3]), ..route("/a/1") },
    ];
    let asked = Asked { header: Some("1"), ..get("a.x", "/a/1") };
    let told = asked.with(|view| table(&routes).explain(view, &Around::default()));
    let verdicts: Vec<_> = told.into_iter().map(|told| (told.route.0, told.verdict)).collect();
    let than = RouteId(3);
    let difference =
        explain::Difference { name: "v".to_owned(), wanted: "\"2\"".to_owned(), found: Some("1".to_owned()) };
    assert_eq!(
        verdicts,
        [
            (8, Verdict::ListenerDiffers),
            (1, Verdict::MethodDiffers { allowed: MethodSet::named("POST").unwrap() }),
            (2, Verdict::HeaderDiffers(difference)),
            (3, Verdict::Wins),
            (4, Verdict::LaterInFile { than }),
            (0, Verdict::LessSpecific { than, because: Because::PathKind }),
            (5, Verdict::HostDiffers),
            (6, Verdict::PathDiffers),
        ]
    );
}

#[test]
fn credentials_are_not_explained() {
    let mut spec = route("/").spec(0);
    spec.headers.push((http::header::AUTHORIZATION, ValueMatch::parse("~^Basic").unwrap()));
    let headers = HeaderMap::from_iter([(http::header::AUTHORIZATION, HeaderValue::from_static("Bearer x"))]);
    let method = Method::GET;
    let view =
        RequestView { listener: 0, host: "", path: "/", query: None, method: &method, headers: &headers };
    let told = Table::build(vec![spec]).explain(&view, &Around::default());
    assert!(format!("{told:?}").contains("***") && !format!("{told:?}").contains("Bearer"));
}

#[test]
fn routes_out_of_reach_are_named_with_what_hides_them() {
    for (routes, expected) in [
        (vec![route("/a"), route("/a").methods(&["GET"])], vec![]),
        (vec![route("/a"), route("/a")], vec![(1, 0)]),
        (vec![route("/a/{x}"), route("/a/{y}")], vec![(1, 0)]),
        (vec![route("/a").methods(&["GET", "POST"]), route("/a").methods(&["POST"])], vec![(1, 0)]),
        (vec![route("/a").methods(&["POST"]), route("/a").methods(&["GET", "POST"])], vec![]),
        (vec![route("/a").header("true"), route("/a").header("2")], vec![(1, 0)]),
        (vec![route("/a").header("2"), route("/a").header("true")], vec![]),
        (vec![route("/a").hosts(&["a.x"]), route("/a")], vec![]),
        (vec![route("/a"), route("/a").hosts(&["a.x"])], vec![]),
        (vec![route("/a").hosts(&["a.x", "*.x"]), route("/a").hosts(&["*.x"])], vec![(1, 0)]),
        (vec![route("/a").hosts(&["*.x"]), route("/a").hosts(&["a.x"])], vec![]),
        (vec![route("/a/b"), route("/*").priority(1)], vec![(0, 1)]),
        (vec![route("/a/b"), route("/a/*").priority(1)], vec![(0, 1)]),
        (vec![route("/a/{x}/c"), route("/{y}/{z}/*").priority(1)], vec![(0, 1)]),
        (vec![route("/a/*"), route("/a/{x}").priority(1)], vec![]),
        (vec![route("/a/"), route("/a/{x}").priority(1)], vec![]),
        (vec![route("/a/b"), route("/a/*").priority(1).methods(&["GET"])], vec![]),
        (vec![route("~^/a/[0-9]+$"), route("/a/*")], vec![(0, 1)]),
        (vec![route("~^/a[0-9]+$"), route("/a/*")], vec![]),
        (vec![route("~^/a"), route("~^/b"), route("~^/a")], vec![(2, 0)]),
        (vec![route("~^/a"), route("~^/a").header("1")], vec![]),
    ] {
        let shadowed: Vec<_> =
            table(&routes).shadowed().into_iter().map(|(hidden, by)| (hidden.0, by.0)).collect();
        assert_eq!(shadowed, expected, "{routes:?}");
    }
}

/// Ten thousand routes that hide each other must not keep anyone waiting for the warning.
#[test]
fn many_alike_routes_compile_and_are_checked() {
    let routes: Vec<_> = (0..10_000).map(|id| route("/a/{x}").header("true").spec(id)).collect();
    let table = Table::build(routes);
    assert_eq!((table.len(), table.shadowed().len()), (10_000, 9_999));
}

/// The route with this `when`, under `/a/{id}`.
fn asking(id: u32, when: &str) -> RouteSpec {
    let mut spec = route("/a/{id}").spec(id);
    let scope = template::Scope { pattern: &spec.path.clone(), groups: None };
    spec.when = Some(Box::new(Expression::parse(when, scope, expression::Stage::Routing).unwrap()));
    spec
}

#[test]
fn an_expression_counts_as_a_predicate() {
    let others = || [route("/a/{id}").spec(1), route("/a/*").spec(2)];
    let find = |when: &str, asked: &Asked| {
        let table = Table::build([others().to_vec(), vec![asking(3, when)]].concat());
        asked.with(|view| {
            match table.find_for(view, &Around { scheme: "https", ..Around::default() }, None) {
                Outcome::Found { route, .. } => Ok(route.0),
                Outcome::Undecided { route, failed, .. } => {
                    let told = table.explain(view, &Around { scheme: "https", ..Around::default() });
                    let failing =
                        |told: &&Candidate| matches!(told.verdict, Verdict::ExpressionFailed { .. });
                    assert!(told.iter().find(failing).is_some_and(|told| told.route == route));
                    assert!(!told.iter().any(|told| told.verdict == Verdict::Wins));
                    Err(failed)
                }
                other => panic!("{other:?}"),
            }
        })
    };
    let asked = Asked { header: Some("2"), ..get("a.x", "/a/7") };
    assert_eq!(find("path.id == '7' && header.v == '2' && request.scheme == 'https'", &asked), Ok(3));
    assert_eq!(find("path.id == '8'", &asked), Ok(1));
    // A route that may be the one is never passed over for one that asks for less.
    assert!(find("header.w == '2'", &asked).is_err());
    assert_eq!(find("header.w == '2'", &get("a.x", "/a/7/8")), Ok(2));
}

#[test]
fn an_expression_is_asked_last() {
    let posts = |when: &str| RouteSpec { methods: MethodSet::named("POST").ok(), ..asking(0, when) };
    let find = |spec: RouteSpec| get("a.x", "/a/7").with(|view| Table::build(vec![spec]).find(view));
    let named = |name: &str| MethodSet::named(name).unwrap();
    assert_eq!(find(posts("path.id == '7'")), Outcome::MethodNotAllowed { allow: named("POST") });
    assert_eq!(find(posts("path.id == '8'")), Outcome::NotFound);
    assert_eq!(find(posts("header.w == '8'")), Outcome::NotFound);
    assert!(matches!(find(asking(0, "header.w == '8'")), Outcome::Undecided { .. }));
}

#[test]
fn a_higher_priority_decides_before_an_expression_that_fails() {
    let failing = RouteSpec { priority: -1, ..asking(0, "header.w == '1'") };
    let table = Table::build(vec![failing, route("/a/*").spec(1)]);
    let found = get("a.x", "/a/7").with(|view| table.find(view));
    assert!(matches!(found, Outcome::Found { route: RouteId(1), .. }), "{found:?}");
    let shadowed = |specs: Vec<RouteSpec>| Table::build(specs).shadowed();
    assert_eq!(
        shadowed(vec![asking(0, "path.id == '1'"), asking(1, "path.id == '1'")]),
        [(RouteId(1), RouteId(0))]
    );
    assert_eq!(shadowed(vec![asking(0, "path.id == '1'"), asking(1, "path.id == '2'")]), []);
    assert_eq!(shadowed(vec![asking(0, "path.id == '1'"), route("/a/{id}").spec(1)]), []);
}
