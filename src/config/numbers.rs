//! How many of a kind a configuration may have. Held before anything is decoded: a generator that runs wild must end in a
//! message, not in memory.

use super::files::Files;
use crate::base::decode::{Decoder, Kind, Node};
use crate::base::origin::Origin;

/// Routes. Each takes some kilobytes when it is compiled.
const ROUTES_MAX: usize = 100_000;
/// Routes whose path is a regex: a request may have to try all of them, and each may take 256 KiB.
const REGEX_PATHS_MAX: usize = 4096;
/// Regexes over headers, query parameters and cookies, and in `when`, of all routes together: each may take 1 MiB.
const REGEX_VALUES_MAX: usize = 1024;
/// What all routes together may inherit from `[defaults]`, in keys and values: each route has its own copy.
const INHERITED_MAX: usize = 10_000_000;

/// How many there may be of each table or list, and what it is called. Beyond these nobody wrote it by hand.
pub(super) const NUMBERS: [(&[&str], usize, &str); 8] = [
    (&["routes"], ROUTES_MAX, "routes"),
    (&["listeners"], 1024, "listeners"),
    (&["upstreams"], 20_000, "upstreams"),
    (&["brokers"], 256, "brokers"),
    (&["rate_limits"], 10_000, "limits"),
    (&["plans"], 10_000, "plans"),
    (&["consumers"], 100_000, "consumers"),
    (&["identity", "providers"], 1024, "providers"),
];

/// Reports what there is too much of, and cuts it off, so that the rest can still be checked.
pub(super) fn hold(files: &mut Files, cx: &mut Decoder<'_>) {
    for (path, most, what) in NUMBERS {
        let total: usize = files.roots().filter_map(|root| find(root, path)).map(length).sum();
        if total <= most {
            continue;
        }
        let mut left = most;
        let mut beyond = None;
        for root in files.roots_mut() {
            let Some(node) = find_mut(root, path) else { continue };
            let length = length(node);
            if length > left {
                let place = cut(node, left);
                beyond = beyond.or(place);
            }
            left = left.saturating_sub(length);
        }
        let origin = beyond.unwrap_or(Origin::Default);
        let message = format!("there are {total} {what}, at most {most} are allowed");
        report(path, &origin, &message, cx);
    }
    hold_regexes(files, cx);
    hold_regexes_of_values(files, cx);
    hold_inherited(files, cx);
}

fn report(path: &[&str], origin: &Origin, message: &str, cx: &mut Decoder<'_>) {
    match path {
        [] => {
            cx.error("too-many", origin, message);
        }
        [key, inner @ ..] => cx.key(key, |cx| report(inner, origin, message, cx)),
    }
}

fn hold_regexes(files: &mut Files, cx: &mut Decoder<'_>) {
    let is_regex =
        |route: &Node| route.get("path").and_then(Node::as_str).is_some_and(|path| path.starts_with('~'));
    let mut seen = 0;
    let mut beyond = None;
    for root in files.roots_mut() {
        let Some(Node { kind: Kind::Array(routes), .. }) = find_mut(root, &["routes"]) else { continue };
        routes.retain(|route| {
            let counts = is_regex(route);
            seen += usize::from(counts);
            let stays = !counts || seen <= REGEX_PATHS_MAX;
            if !stays && beyond.is_none() {
                beyond = Some(route.origin.clone());
            }
            stays
        });
    }
    if let Some(origin) = beyond {
        let message =
            format!("there are {seen} routes whose path is a regex, at most {REGEX_PATHS_MAX} are allowed");
        cx.key("routes", |cx| {
            cx.error("too-many", &origin, message)
                .hint("a prefix, a template or a `when` is found without trying them all");
        });
    }
}

fn hold_regexes_of_values(files: &mut Files, cx: &mut Decoder<'_>) {
    let mut seen = 0;
    let mut beyond = None;
    for root in files.roots_mut() {
        let Some(Node { kind: Kind::Array(routes), .. }) = find_mut(root, &["routes"]) else { continue };
        routes.retain(|route| {
            let own = regexes_of_values(route);
            seen += own;
            let stays = own == 0 || seen <= REGEX_VALUES_MAX;
            if !stays && beyond.is_none() {
                beyond = Some(route.origin.clone());
            }
            stays
        });
    }
    if let Some(origin) = beyond {
        let message = format!(
            "routes have {seen} regexes for headers, query parameters and cookies, at most {REGEX_VALUES_MAX} are allowed"
        );
        cx.key("routes", |cx| {
            cx.error("too-many", &origin, message).hint("a value that is written as it is needs no regex");
        });
    }
}

/// How many regexes over values a route has; in expressions, how many there can be at most.
fn regexes_of_values(route: &Node) -> usize {
    let of_table = |key: &str| match route.get(key).map(|node| &node.kind) {
        Some(Kind::Table(table)) => table
            .values()
            .filter(|entry| entry.node.as_str().is_some_and(|value| value.starts_with('~')))
            .count(),
        _ => 0,
    };
    let of_expression =
        |node: Option<&Node>| node.and_then(Node::as_str).map_or(0, |text| text.matches("matches").count());
    ["headers", "query", "cookies"].into_iter().map(of_table).sum::<usize>()
        + of_expression(route.get("when"))
        + of_expression(find(route, &["auth", "when"]))
}

fn hold_inherited(files: &mut Files, cx: &mut Decoder<'_>) {
    for (below, above) in [("defaults", "routes"), ("upstream_defaults", "upstreams")] {
        let of_main = files.main.get(below).map_or(0, size);
        let mut inherited = 0_usize;
        for root in files.roots() {
            let own = root.get(below).filter(|_| !std::ptr::eq(root, &files.main)).map_or(0, size);
            let heirs = root.get(above).map_or(0, length);
            inherited = inherited.saturating_add(heirs.saturating_mul(of_main + own));
        }
        if inherited <= INHERITED_MAX {
            continue;
        }
        let largest = files.roots().filter_map(|root| root.get(below)).max_by_key(|node| size(node));
        let origin = largest.map_or(Origin::Default, |node| node.origin.clone());
        let message = format!(
            "all {above} together inherit {inherited} keys and values from [{below}], at most {INHERITED_MAX} are allowed"
        );
        report(&[below], &origin, &message, cx);
        for root in files.roots_mut() {
            if let Kind::Table(table) = &mut root.kind {
                table.shift_remove(below);
            }
        }
    }
}

fn find<'n>(root: &'n Node, path: &[&str]) -> Option<&'n Node> {
    path.iter().try_fold(root, |node, key| node.get(key))
}

fn find_mut<'n>(root: &'n mut Node, path: &[&str]) -> Option<&'n mut Node> {
    path.iter().try_fold(root, |node, key| match &mut node.kind {
        Kind::Table(table) => table.get_mut(*key).map(|entry| &mut entry.node),
        _ => None,
    })
}

fn length(node: &Node) -> usize {
    match &node.kind {
        Kind::Table(table) => table.len(),
        Kind::Array(nodes) => nodes.len(),
        _ => 0,
    }
}

/// Leaves `most`; says where the first one is that went.
fn cut(node: &mut Node, most: usize) -> Option<Origin> {
    match &mut node.kind {
        Kind::Table(table) => {
            let origin = table.get_index(most).map(|(_, entry)| entry.key.clone());
            table.truncate(most);
            origin
        }
        Kind::Array(nodes) => {
            let origin = nodes.get(most).map(|node| node.origin.clone());
            nodes.truncate(most);
            origin
        }
        _ => None,
    }
}

/// How many keys and values there are in it. Its depth is bounded ([`crate::base::decode::NESTING_MAX`]).
fn size(node: &Node) -> usize {
    1 + match &node.kind {
        Kind::Table(table) => table.values().map(|entry| size(&entry.node)).sum(),
        Kind::Array(nodes) => nodes.iter().map(size).sum(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::decode::{Entry, Surroundings, Table};
    use crate::base::diagnostic::Diagnostics;
    use crate::base::origin::Sources;

    fn table(entries: impl IntoIterator<Item = (String, Node)>) -> Node {
        let entry = |(key, node)| (key, Entry { key: Origin::Default, node });
        Node { kind: Kind::Table(entries.into_iter().map(entry).collect::<Table>()), origin: Origin::Default }
    }

    fn list(nodes: Vec<Node>) -> Node {
        Node { kind: Kind::Array(nodes), origin: Origin::Default }
    }

    fn routes(path: &str, count: usize) -> Node {
        let route = || table([("path".to_owned(), Node::string(path, Origin::Default))]);
        list((0..count).map(|_| route()).collect())
    }

    fn held(main: Node, included: Vec<Node>) -> (Files, Vec<String>) {
        let mut files = Files { main, included };
        let (sources, mut out) = (Sources::default(), Diagnostics::default());
        let surroundings =
            Surroundings { env: &|_| None, read: &|_| Err(std::io::ErrorKind::NotFound.into()) };
        hold(&mut files, &mut Decoder::new(&sources, surroundings, &[], &mut out));
        let told = out.iter().map(|item| format!("{}: {}: {}", item.code, item.path, item.message));
        (files, told.collect())
    }

    #[test]
    fn numbers_count_over_all_files() {
        let of = |count| table([("routes".to_owned(), routes("/a", count))]);
        let (_, told) = held(of(ROUTES_MAX), vec![]);
        assert_eq!(told, Vec::<String>::new());
        let (files, told) = held(of(60_000), vec![of(30_000), of(20_000), of(5)]);
        assert_eq!(told, ["too-many: routes: there are 110005 routes, at most 100000 are allowed"]);
        let left: Vec<usize> = files.roots().map(|root| length(root.get("routes").unwrap())).collect();
        assert_eq!(left, [60_000, 30_000, 10_000, 0]);
    }

    #[test]
    fn tables_are_counted_by_their_names() {
        let providers = table((0..1025).map(|number| (format!("p{number}"), table([]))));
        let identity = table([("providers".to_owned(), providers)]);
        let (files, told) = held(table([("identity".to_owned(), identity)]), vec![]);
        assert_eq!(
            told,
            ["too-many: identity.providers: there are 1025 providers, at most 1024 are allowed"]
        );
        assert_eq!(length(find(&files.main, &["identity", "providers"]).unwrap()), 1024);
    }

    /// Over all files and all places where they may stand; a route without one is left alone.
    #[test]
    fn regexes_of_values_are_counted_over_all_routes() {
        let text = |text: &str| Node::string(text, Origin::Default);
        let entry = |key: &str, node: Node| table([(key.to_owned(), node)]);
        let regexes = |count: usize| table((0..count).map(|at| (format!("x-{at}"), text("~^a$"))));
        let of = |nodes: Vec<Node>| entry("routes", list(nodes));
        let plain = || entry("headers", entry("x", text("a")));
        let most = || entry("headers", regexes(REGEX_VALUES_MAX - 3));
        let three = || {
            let expression = text("header.x.matches('a') && query.x.matches('b')");
            table([("when".to_owned(), expression), ("cookies".to_owned(), regexes(1))])
        };
        let (_, told) = held(of(vec![most(), plain()]), vec![of(vec![three()])]);
        assert_eq!(told, Vec::<String>::new());
        let judged = || entry("auth", entry("when", text("header.x.matches('a')")));
        let asked = || entry("query", regexes(1));
        for one in [judged(), asked()] {
            let (files, told) = held(of(vec![most(), three()]), vec![of(vec![one, plain()])]);
            let expected = "too-many: routes: routes have 1025 regexes for headers, query parameters and cookies, \
                            at most 1024 are allowed";
            assert_eq!(told, [expected]);
            let left: Vec<usize> = files.roots().map(|root| length(root.get("routes").unwrap())).collect();
            assert_eq!(left, [2, 1]);
        }
    }

    #[test]
    fn regexes_are_fewer() {
        let mut nodes = vec![];
        for path in ["~^/a$", "/b"] {
            let Kind::Array(routes) = routes(path, REGEX_PATHS_MAX + 1).kind else { panic!() };
            nodes.extend(routes);
        }
        let (files, told) = held(table([("routes".to_owned(), list(nodes))]), vec![]);
        assert_eq!(
            told,
            ["too-many: routes: there are 4097 routes whose path is a regex, at most 4096 are allowed"]
        );
        assert_eq!(length(files.main.get("routes").unwrap()), 2 * REGEX_PATHS_MAX + 1);
    }

    #[test]
    fn what_is_inherited_is_counted_for_each_heir() {
        let headers = (0..2000).map(|number| (format!("x-{number}"), Node::string("y", Origin::Default)));
        let defaults = table([("request".to_owned(), table(headers))]);
        let (files, told) = held(
            table([("defaults".to_owned(), defaults), ("routes".to_owned(), routes("/a", 6000))]),
            vec![],
        );
        assert_eq!(
            told,
            [
                "too-many: defaults: all routes together inherit 12012000 keys and values from [defaults], at most 10000000 are allowed"
            ]
        );
        assert!(files.main.get("defaults").is_none() && files.main.get("routes").is_some());
    }
}
