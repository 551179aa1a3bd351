//! How hosts, paths, methods, predicates and rewrites are written in a file.

use http::HeaderName;
use indexmap::IndexMap;

use super::method::MethodSet;
use super::pattern::PathPattern;
use super::predicate::ValueMatch;
use super::rewrite::{Rewrite, Side};
use super::{HostPattern, Mistake};
use crate::base::decode::{Decoder, Kind, MapKey, Node, Shape, Value, quote};
use crate::base::diagnostic::Diagnostics;
use crate::base::origin::{At, Origin};
use crate::keys;

/// `headers` of a route: names in any case, each once.
pub type HeadersRaw = IndexMap<HeaderName, At<ValueMatch>>;
/// `query` of a route.
pub type QueryRaw = IndexMap<String, At<ValueMatch>>;
/// `cookies` of a route.
pub type CookiesRaw = IndexMap<CookieName, At<ValueMatch>>;

keys! {
    /// What becomes of the path on the way to the upstream: one of `prefix`, `path`, `regex`. The query goes on unchanged.
    pub struct RewriteRaw {
        /// Cut off the start of the path, at the boundary of a segment; `to` takes its place.
        prefix: optional Written,
        /// The new path: a template such as "/v1/{path.id}".
        path: optional Written,
        /// Where this is found in the path, `to` is the new path; other paths stay.
        regex: optional Written,
        /// With `prefix` what is put before the rest; with `regex` a template with its groups, such as "/b/{1}".
        to: optional Written,
    }
}

impl RewriteRaw {
    /// Compiles it for a route with the path `route`; `table` is where it is written, `path` what it is called.
    pub fn compile(
        &self,
        path: &str,
        table: &Origin,
        route: &PathPattern,
        out: &mut Diagnostics,
    ) -> Option<Rewrite> {
        let kinds = [("prefix", &self.prefix), ("path", &self.path), ("regex", &self.regex)];
        let mut given = kinds.into_iter().filter_map(|(name, text)| Some((name, text.as_ref()?)));
        let Some((kind, from)) = given.next() else {
            out.error("missing-key", table, path, "the rewrite has neither `prefix`, `path` nor `regex`")
                .hint("write { prefix = \"/api\", to = \"/\" }, { path = \"/v1/{path.id}\" } or { regex = '^/a/(.*)$', to = \"/b/{1}\" }");
            return None;
        };
        if let Some((other, text)) = given.next() {
            out.error(
                "conflicting-keys",
                &text.origin,
                format!("{path}.{other}"),
                format!("`{other}` does not go with `{kind}`"),
            )
            .hint("a rewrite has one of prefix, path and regex")
            .related(&from.origin, format!("`{kind}` stands here"));
            return None;
        }
        for (name, text) in [("path", &self.path), ("to", &self.to)] {
            if let Some(text) = text {
                text.warn_of_variables(&text.origin, &format!("{path}.{name}"), out);
            }
        }
        let rewrite = match (kind, &self.to) {
            ("path", None) => Rewrite::path(from.text(), route),
            ("path", Some(to)) => {
                out.error(
                    "conflicting-keys",
                    &to.origin,
                    format!("{path}.to"),
                    "`to` does not go with `path`",
                )
                .hint("`path` is the new path itself");
                return None;
            }
            (_, None) => {
                out.error("missing-key", &from.origin, format!("{path}.to"), format!("`{kind}` needs `to`"))
                    .hint("`to` is what the path becomes");
                return None;
            }
            ("prefix", Some(to)) => Rewrite::prefix(from.text(), to.text(), route),
            (_, Some(to)) => Rewrite::regex(from.text(), to.text(), route),
        };
        let (side, mistake) = match rewrite {
            Ok(rewrite) => return Some(rewrite),
            Err(wrong) => wrong,
        };
        match (&self.to, side) {
            (Some(to), Side::To) => to.report(&to.origin, &format!("{path}.to"), mistake, out),
            _ => from.report(&from.origin, &format!("{path}.{kind}"), mistake, out),
        }
        None
    }
}

/// A text that is read later, with what it takes to point inside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    text: String,
    /// Whether it stands in the file letter by letter: no escapes, no variables.
    verbatim: bool,
}

impl Written {
    /// A text that was written in no file.
    pub fn plain(text: &str) -> Self {
        Self { text: text.to_owned(), verbatim: false }
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Reports a mistake in it at its place, if it was written at `origin`; `path` is what it is called.
    pub fn report(&self, origin: &Origin, path: &str, mistake: Mistake, out: &mut Diagnostics) {
        let place = self.place(origin, &mistake);
        out.error("invalid-value", &place, path, mistake.message).hint = mistake.hint;
    }

    /// Warns of variables as nginx writes them: here they are plain text, and would be sent as such.
    pub fn warn_of_variables(&self, origin: &Origin, path: &str, out: &mut Diagnostics) {
        for (at, _) in self.text.match_indices('$') {
            let after = self.text.get(at + 1..).unwrap_or_default();
            // `${name}` has been replaced long ago, or is an error.
            let end = after.find(|c: char| c != '_' && !c.is_ascii_alphanumeric()).unwrap_or(after.len());
            let name = after.get(..end).unwrap_or_default();
            let Some(reference) = reference_for(name) else { continue };
            let message = format!("\"${name}\" means nothing here, and is sent as it stands");
            let place = self.place(origin, &Mistake::new(at..at + 1 + end, String::new()));
            out.warning("foreign-variable", &place, path, message).hint(reference);
        }
    }

    fn place(&self, origin: &Origin, mistake: &Mistake) -> Origin {
        match origin {
            // One byte for the quote.
            Origin::File { file, span } if self.verbatim && !mistake.at.is_empty() => {
                let inner = span.start + 1;
                Origin::file(*file, inner + mistake.at.start..inner + mistake.at.end)
            }
            other => other.clone(),
        }
    }
}

/// What to write here for nginx's variable `name`; `None` if it has none of that name.
fn reference_for(name: &str) -> Option<String> {
    let known = match name {
        "host" | "http_host" => "request.host",
        "remote_addr" => "client.ip",
        "request_uri" => "request.uri",
        "uri" | "document_uri" => "request.path",
        "scheme" => "request.scheme",
        "request_method" => "request.method",
        "request_id" => "request.id",
        "args" | "query_string" => {
            return Some("no reference is the whole query: {query.NAME} is a parameter of it".to_owned());
        }
        _ => {
            let (kind, rest) = name.split_once('_').filter(|(_, rest)| !rest.is_empty())?;
            return match kind {
                "http" => Some(format!("write {{header.{}}}", rest.replace('_', "-"))),
                "cookie" => Some(format!("write {{cookie.{rest}}}")),
                "arg" => Some(format!("write {{query.{rest}}}")),
                _ => None,
            };
        }
    };
    Some(format!("write {{{known}}}"))
}

impl Value for Written {
    fn shape() -> Shape {
        String::shape()
    }

    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        let text = String::decode(node, cx)?;
        let verbatim = match &node.origin {
            Origin::File { file, span } => {
                let source = cx.sources().get(*file).and_then(|source| source.text.get(span.clone()));
                let inner = source.and_then(|source| source.get(1..source.len().checked_sub(1)?));
                inner == Some(text.as_str()) && !text.contains('\n')
            }
            _ => false,
        };
        Some(Self { text, verbatim })
    }

    fn render(&self) -> String {
        self.text.render()
    }
}

/// Reads a text that `parse` understands, and points inside it where it does not.
fn pointed<T>(
    node: &Node,
    cx: &mut Decoder<'_>,
    parse: impl FnOnce(&str) -> Result<T, Mistake>,
) -> Option<T> {
    let written = Written::decode(node, cx)?;
    match parse(&written.text) {
        Ok(value) => Some(value),
        Err(mistake) => {
            let place = written.place(&node.origin, &mistake);
            cx.error("invalid-value", &place, mistake.message).hint = mistake.hint;
            None
        }
    }
}

impl Value for HostPattern {
    fn shape() -> Shape {
        Shape::Text { pattern: None, examples: &["api.example.com", "*.example.com"] }
    }

    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        let pattern = pointed(node, cx, Self::parse)?;
        if node.as_str().is_some_and(Self::has_port) {
            cx.warning("ignored", &node.origin, "the port of a host is ignored")
                .hint("`listeners` says where requests come in");
        }
        Some(pattern)
    }

    fn render(&self) -> String {
        quote(&self.to_string())
    }
}

impl Value for PathPattern {
    fn shape() -> Shape {
        Shape::Text { pattern: Some("^[/~]"), examples: &["/a/b", "/a/{id}", "/a/*", "~^/a/[0-9]+$"] }
    }

    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        pointed(node, cx, Self::parse)
    }

    fn render(&self) -> String {
        quote(self.as_str())
    }
}

/// One method, as an element of [`MethodSet`].
struct OneMethod(MethodSet);

impl Value for OneMethod {
    fn shape() -> Shape {
        Shape::Text { pattern: Some("^[A-Z-]+$"), examples: &["GET", "POST"] }
    }

    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        pointed(node, cx, |name| MethodSet::named(name).map(Self))
    }

    fn render(&self) -> String {
        self.0.render()
    }
}

/// A list of methods; an empty one takes an inherited one away and stands for all.
impl Value for MethodSet {
    fn shape() -> Shape {
        Vec::<OneMethod>::shape()
    }

    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        let methods = Vec::<OneMethod>::decode(node, cx)?;
        Some(methods.into_iter().fold(Self::EMPTY, |all, OneMethod(one)| all.union(one)))
    }

    fn render(&self) -> String {
        format!("[{}]", self.iter().map(quote).collect::<Vec<_>>().join(", "))
    }
}

/// A value or `"~regex"`, or whether the name is there at all.
impl Value for ValueMatch {
    fn shape() -> Shape {
        let text = Shape::Text { pattern: None, examples: &["2", "~^v[0-9]+$"] };
        Shape::OneOf(vec![text, Shape::Boolean])
    }

    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        const EXPECTED: &str = "a value, a \"~regex\", or true (present) or false (absent)";
        match &node.kind {
            Kind::Boolean(present) => Some(Self::presence(*present)),
            Kind::String { .. } => pointed(node, cx, Self::parse),
            Kind::Integer(value) => cx.expected_or(node, EXPECTED, Some(format!("write \"{value}\""))),
            Kind::Float(value) => cx.expected_or(node, EXPECTED, Some(format!("write \"{value}\""))),
            _ => cx.expected(node, EXPECTED),
        }
    }

    fn render(&self) -> String {
        match self {
            Self::Exact(text) => quote(text),
            Self::Regex(regex) => quote(&format!("~{}", regex.as_str())),
            Self::Present => "true".to_owned(),
            Self::Absent => "false".to_owned(),
        }
    }
}

/// The name of a cookie: a token (RFC 6265 section 4.1.1), case-sensitive.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CookieName(Box<str>);

impl CookieName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl MapKey for CookieName {
    fn from_key(key: &str) -> Result<Self, String> {
        let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if key.is_empty() || !key.bytes().all(token) {
            return Err("is not a cookie's name".to_owned());
        }
        Ok(Self(key.into()))
    }

    fn as_key(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::decode::decode_str;

    keys! {
        /// A route.
        struct RouteRaw {
            /// Hosts.
            hosts: Vec<At<HostPattern>> = Vec::new(),
            /// Path.
            path: required PathPattern,
            /// Methods.
            methods: MethodSet = MethodSet::EMPTY,
            /// Headers.
            headers: HeadersRaw = HeadersRaw::new(),
            /// Parameters.
            query: QueryRaw = QueryRaw::new(),
            /// Cookies.
            cookies: CookiesRaw = CookiesRaw::new(),
            /// Rewrite.
            rewrite: optional RewriteRaw,
        }
    }

    /// Each problem as `marked text: message | hint`.
    fn problems(text: &str) -> Vec<String> {
        let (route, mut out) = decode_str::<RouteRaw>(text);
        if let Some(RouteRaw { path, rewrite: Some(rewrite), .. }) = &route {
            rewrite.compile("rewrite", &rewrite.origin, path, &mut out);
        }
        let shown = |origin: &Origin| match origin {
            Origin::File { span, .. } => text[span.clone()].to_owned(),
            other => format!("{other:?}"),
        };
        out.iter()
            .map(|item| {
                let hint = item.hint.as_deref().unwrap_or_default();
                format!("{}: {} | {hint}", shown(&item.origin), item.message)
            })
            .collect()
    }

    #[test]
    fn a_route_is_read_as_the_documentation_writes_it() {
        let (route, out) = decode_str::<RouteRaw>(
            r#"
            hosts = ["api.example.com", "*.example.com"]
            path = "/api/users/*"
            methods = ["GET", "POST"]
            headers = { "X-Version" = "2", accept = '~vnd\.shop\.v2\+json' }
            query = { v = "2", debug = false }
            cookies = { beta = true }
            rewrite = { prefix = "/api/users", to = "/api/v1/users" }
            "#,
        );
        assert!(out.is_empty(), "{out:?}");
        let route = route.unwrap();
        assert_eq!(route.hosts.render(), r#"["api.example.com", "*.example.com"]"#);
        assert_eq!(route.methods.render(), r#"["GET", "HEAD", "POST"]"#);
        assert_eq!(route.headers.render(), r#"{ "x-version" = "2", "accept" = "~vnd\\.shop\\.v2\\+json" }"#);
        assert_eq!(route.query.render(), r#"{ "v" = "2", "debug" = false }"#);
        assert_eq!(route.cookies.render(), r#"{ "beta" = true }"#);
        assert_eq!(route.path.render(), r#""/api/users/*""#);
        let mut out = Diagnostics::default();
        let rewrite = route.rewrite.unwrap();
        assert!(
            rewrite.compile("rewrite", &rewrite.origin, &route.path, &mut out).is_some() && out.is_empty()
        );
    }

    #[test]
    fn mistakes_are_marked_where_they_are() {
        for (text, expected) in [
            (
                "path = \"/a/{id\"",
                "{id: `{id` is neither a parameter nor a literal segment | a parameter is a whole",
            ),
            ("path = \"a\"", "a: path \"a\" does not start with `/` | write \"/a\""),
            ("path = \"/\\u0061//b\"", "\"/\\u0061//b\": `//` is in no path"),
            ("path = '~^/a/[0-9'", "^/a/[0-9: regex is not valid"),
            ("path = 1", "1: expected "),
            (
                "path = \"/a\"\nmethods = [\"GET\", \"PSOT\"]",
                "PSOT: \"PSOT\" is not a known method | did you mean \"POST\"?",
            ),
            (
                "path = \"/a\"\nmethods = \"GET\"",
                "\"GET\": expected a list, found a string | write [\"GET\"]",
            ),
            ("path = \"/a\"\nhosts = [\"a:80\"]", "\"a:80\": the port of a host is ignored | `listeners`"),
            ("path = \"/a\"\nhosts = [\"*\"]", "*: \"*\" is not a host | leave `hosts` out"),
            (
                "path = \"/a\"\nquery = { v = 2 }",
                "2: expected a value, a \"~regex\", or true (present) or false (absent), found an integer | write \"2\"",
            ),
            ("path = \"/a\"\nheaders = { x = \"~(\" }", "(: regex is not valid: unclosed group"),
            (
                "path = \"/a\"\nheaders = { \"X-A\" = \"1\", \"x-a\" = \"2\" }",
                "\"x-a\": \"x-a\" is given twice",
            ),
            ("path = \"/a\"\ncookies = { \"a b\" = true }", "\"a b\": \"a b\" is not a cookie's name"),
            (
                "path = \"/a/{id}\"\nrewrite = { path = \"/b/{path.di}\" }",
                "di: the path \"/a/{id}\" declares no `di` | did you mean {path.id}?",
            ),
            (
                "path = \"/a/*\"\nrewrite = { prefix = \"/b\", to = \"/\" }",
                "/b: no path of \"/a/*\" starts with \"/b\" | ",
            ),
            (
                "path = \"/a/*\"\nrewrite = { regex = '^/a/(.*)$', to = \"/b/{2}\" }",
                "2: `{2}` names no source | groups of the regex: 1",
            ),
            ("path = \"/a/*\"\nrewrite = { to = \"/\" }", "{ to = \"/\" }: the rewrite has neither"),
            ("path = \"/a/*\"\nrewrite = { prefix = \"/a\" }", "\"/a\": `prefix` needs `to`"),
            (
                "path = \"/a/*\"\nrewrite = { path = \"/b\", to = \"/\" }",
                "\"/\": `to` does not go with `path`",
            ),
            (
                "path = \"/a/*\"\nrewrite = { path = \"/b\", regex = \"/\", to = \"/\" }",
                "\"/\": `regex` does not go with `path`",
            ),
        ] {
            let found = problems(text);
            assert_eq!(found.len(), 1, "{text}: {found:?}");
            assert!(found[0].starts_with(expected), "{text}\n{}", found[0]);
        }
    }
}
