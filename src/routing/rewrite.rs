//! What becomes of the path on the way to the upstream. The query goes on unchanged.

use std::borrow::Cow;

use super::Mistake;
use super::path::check_built;
use super::pattern::{Captures, Kind, PathPattern, Segment};
use super::template::{ExpandError, Scope, Template, Values};

/// How a route rewrites the path.
#[derive(Debug, Clone)]
pub enum Rewrite {
    /// The start of the path is cut off and something else put before the rest.
    Prefix(Prefix),
    /// The path is made anew.
    Path(Template),
    /// Where the regex is found in the path, the path is made anew from its groups; other paths stay.
    Regex(RegexRewrite),
}

/// `{ prefix = "/v1", to = "/" }`.
#[derive(Debug, Clone)]
pub struct Prefix {
    /// Without a slash at its end: empty for `/`.
    prefix: Box<str>,
    /// With a slash at its end only if it was written so.
    to: Box<str>,
}

/// `{ regex = '^/a/(.*)$', to = "/b/{1}" }`.
#[derive(Debug, Clone)]
pub struct RegexRewrite {
    regex: Box<PathPattern>,
    to: Template,
}

/// Which of the two texts of a rewrite a mistake is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// `prefix`, `regex` or `path`.
    From,
    /// `to`.
    To,
}

impl Rewrite {
    /// Cuts `prefix` off at the boundary of a segment and joins what is left to `to` with exactly one slash. A path that
    /// does not begin with it stays; a prefix that no path of the route can have is a mistake.
    pub fn prefix(prefix: &str, to: &str, route: &PathPattern) -> Result<Self, (Side, Mistake)> {
        let cut = literal_path(prefix).map_err(|mistake| (Side::From, mistake))?;
        let cut = cut.trim_end_matches('/');
        let to = literal_path(to).map_err(|mistake| (Side::To, mistake))?;
        if !can_start_with(route, cut) {
            let mistake =
                Mistake::new(0..prefix.len(), format!("no path of \"{route}\" starts with \"{prefix}\""));
            return Err((Side::From, mistake.hint("the prefix is what the route's own path starts with")));
        }
        Ok(Self::Prefix(Prefix { prefix: cut.into(), to: to.into() }))
    }

    /// Makes the path from a template.
    pub fn path(template: &str, route: &PathPattern) -> Result<Self, (Side, Mistake)> {
        let scope = Scope { pattern: route, groups: None };
        Template::path(template, scope).map(Self::Path).map_err(|mistake| (Side::From, mistake))
    }

    /// Makes the path from a template with the groups of `regex`.
    pub fn regex(regex: &str, to: &str, route: &PathPattern) -> Result<Self, (Side, Mistake)> {
        let regex = PathPattern::regex(regex).map_err(|mistake| (Side::From, mistake))?;
        let scope = Scope { pattern: route, groups: Some(&regex) };
        let to = Template::path(to, scope).map_err(|mistake| (Side::To, mistake))?;
        Ok(Self::Regex(RegexRewrite { regex: Box::new(regex), to }))
    }

    /// The path to forward, in its normal form; borrowed if it stays as it is.
    pub fn apply<'a>(&self, values: &Values<'a>) -> Result<Cow<'a, str>, ExpandError> {
        let path = values.request.path;
        match self {
            Self::Prefix(prefix) => Ok(prefix.apply(path)),
            Self::Path(template) => template.expand_path(values, &Captures::default()).map(Cow::Owned),
            Self::Regex(RegexRewrite { regex, to }) => match regex.captures(path) {
                Some(groups) => to.expand_path(values, &groups).map(Cow::Owned),
                None => Ok(Cow::Borrowed(path)),
            },
        }
    }
}

impl Prefix {
    fn apply<'a>(&self, path: &'a str) -> Cow<'a, str> {
        match path.strip_prefix(&*self.prefix) {
            Some("") => Cow::Owned((*self.to).to_owned()),
            // Both are in normal form, and what joins them is one slash: so is the whole.
            Some(rest) if rest.starts_with('/') => {
                Cow::Owned(self.to.trim_end_matches('/').to_owned() + rest)
            }
            _ => Cow::Borrowed(path),
        }
    }
}

/// A path without references, in its normal form.
fn literal_path(text: &str) -> Result<String, Mistake> {
    if let Some(at) = text.find(['{', '}']) {
        return Err(Mistake::new(at..at + 1, format!("\"{text}\" holds a brace, but a prefix is literal"))
            .hint("use rewrite.path for a template, or rewrite.regex"));
    }
    let wrong = |why| Mistake::new(0..text.len(), format!("\"{text}\" {why}"));
    check_built(text.to_owned()).map_err(wrong)
}

/// Whether some path of the route begins with the segments of `prefix` (no slash at its end). Says yes when in doubt.
fn can_start_with(route: &PathPattern, prefix: &str) -> bool {
    let fits = |segments: &[Segment]| {
        let mut asked = prefix.split('/').skip(1);
        segments.iter().zip(&mut asked).all(|(segment, asked)| match segment {
            Segment::Literal(literal) => **literal == *asked,
            Segment::Param => true,
        })
    };
    match route.kind() {
        Kind::Exact(path) => {
            path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        }
        Kind::Template(segments) => segments.len() >= prefix.matches('/').count() && fits(segments),
        Kind::Prefix(segments) => fits(segments),
        Kind::Regex(regex) => regex.literal.starts_with(prefix) || prefix.starts_with(&*regex.literal),
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Method};
    use proptest::prelude::*;

    use super::super::path::normalise;
    use super::super::table::RequestView;
    use super::*;

    fn pattern(text: &str) -> PathPattern {
        PathPattern::parse(text).unwrap()
    }

    fn apply(rewrite: &Rewrite, route: &str, path: &str) -> String {
        let (method, headers) = (Method::GET, HeaderMap::new());
        let request = RequestView {
            listener: 0,
            host: "",
            path,
            query: Some("q=v/w"),
            method: &method,
            headers: &headers,
        };
        let captures = pattern(route).captures(path).unwrap();
        let values = Values {
            request: &request,
            captures: &captures,
            scheme: "http",
            id: "",
            client: None,
            client_cert: None,
            who: Default::default(),
        };
        rewrite.apply(&values).unwrap().into_owned()
    }

    #[test]
    fn a_prefix_is_cut_at_a_segment_and_joined_with_one_slash() {
        for (prefix, to, path, expected) in [
            ("/v1", "/", "/v1/x", "/x"),
            ("/v1", "/", "/v1", "/"),
            ("/v1", "/", "/v1/", "/"),
            ("/v1/", "/", "/v1/x", "/x"),
            ("/v1", "/", "/v10/x", "/v10/x"),
            ("/v1", "/api", "/v1/x/y/", "/api/x/y/"),
            ("/v1", "/api/", "/v1/x", "/api/x"),
            ("/v1", "/api", "/v1", "/api"),
            ("/v1", "/api", "/v1/", "/api/"),
            ("/", "/api", "/x", "/api/x"),
            ("/", "/api", "/", "/api/"),
            ("/%76%31", "/ä", "/v1/%2F", "/%C3%A4/%2F"),
            ("/v1/a", "/b", "/v1/x", "/v1/x"),
        ] {
            let rewrite = Rewrite::prefix(prefix, to, &pattern("/*")).unwrap();
            assert_eq!(apply(&rewrite, "/*", path), expected, "{prefix} -> {to}: {path}");
        }
    }

    #[test]
    fn a_prefix_that_no_path_has_is_a_mistake() {
        for (route, prefix, possible) in [
            ("/api/users/*", "/api/users", true),
            ("/api/users/*", "/api", true),
            ("/api/users/*", "/api/users/x", true),
            ("/api/users/*", "/api/user", false),
            ("/api/users/*", "/users", false),
            ("/api/users", "/api", true),
            ("/api/users", "/api/users/x", false),
            ("/api/users", "/api/us", false),
            ("/{v}/users/{id}", "/v1/users", true),
            ("/{v}/users/{id}", "/v1/orders", false),
            ("/{v}/users", "/v1/users/1", false),
            ("~^/api/[0-9]+$", "/api", true),
            ("~^/api/[0-9]+$", "/api/1", true),
            ("~^/api/[0-9]+$", "/ape", false),
            ("~api", "/x", true),
            ("/*", "/", true),
        ] {
            let built = Rewrite::prefix(prefix, "/", &pattern(route));
            assert_eq!(built.is_ok(), possible, "{route} {prefix}");
        }
        let side = |prefix, to| Rewrite::prefix(prefix, to, &pattern("/*")).unwrap_err().0;
        assert_eq!((side("v1", "/"), side("/v1", "x")), (Side::From, Side::To));
        assert_eq!((side("/{v}", "/"), side("/v1", "/a?b")), (Side::From, Side::To));
    }

    #[test]
    fn templates_and_regexes_make_the_path_anew() {
        let route = "/v1/users/{id}/*";
        let rewrite = Rewrite::path("/u/{path.id}/{query.q}/{path.rest}", &pattern(route)).unwrap();
        assert_eq!(apply(&rewrite, route, "/v1/users/7%2F8/a/b"), "/u/7%2F8/v%2Fw/a/b");
        let rewrite = Rewrite::regex("^/a/(.*)$", "/b/{1}", &pattern("/*")).unwrap();
        assert_eq!(apply(&rewrite, "/*", "/a/x/y"), "/b/x/y");
        assert_eq!(apply(&rewrite, "/*", "/c/x"), "/c/x");
        let rewrite = Rewrite::regex("^/(?<v>v[0-9])(/.*)?$", "/{path.rest}/{v}{2}", &pattern("/*")).unwrap();
        assert_eq!(apply(&rewrite, "/*", "/v1"), "/v1/v1");
        let side = |regex, to| Rewrite::regex(regex, to, &pattern("/*")).unwrap_err().0;
        assert_eq!((side("(", "/"), side("^/a", "/{1}")), (Side::From, Side::To));
    }

    proptest! {
        #[test]
        fn what_is_forwarded_is_normal(
            prefix in "(/[a-b]{1,2}){0,2}/?",
            to in "(/[a-b]{1,2}){0,2}/?",
            path in "(/[a-b]{1,2}){0,3}/?",
        ) {
            let (prefix, to, path) = (format!("/{prefix}"), format!("/{to}"), format!("/{path}"));
            let path = normalise(path.as_bytes()).unwrap();
            let rewrite = Rewrite::prefix(&prefix, &to, &pattern("/*")).unwrap();
            let forwarded = apply(&rewrite, "/*", &path);
            prop_assert_eq!(normalise(forwarded.as_bytes()), Ok(Cow::Borrowed(forwarded.as_str())));
        }
    }
}
