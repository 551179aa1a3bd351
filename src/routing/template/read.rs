//! Reading templates: every mistake at its place in the text.

use std::ops::Range;

use http::HeaderName;

use super::cert::CertField;
use super::{CONSUMER_FIELDS, ConsumerField, Finder, Land, Part, Scope, Source, Template};
use crate::base::authority::is_authority;
use crate::base::names::nearest;
use crate::routing::Mistake;
use crate::routing::path::{BadPath, check_built, push_normal_segment};
use crate::routing::pattern::PathPattern;

/// Longest template.
const TEMPLATE_BYTES_MAX: usize = 4096;
const SOURCES: [&str; 8] = ["path", "query", "header", "cookie", "jwt", "consumer", "client", "request"];
pub(in crate::routing) const REQUEST_FIELDS: [&str; 6] = ["id", "method", "scheme", "host", "path", "uri"];

impl Template {
    /// Reads a template for a path: it starts with `/` and has no query.
    pub fn path(text: &str, scope: Scope<'_>) -> Result<Self, Mistake> {
        Self::path_of(text, scope, None)
    }

    /// Likewise one that knows more names than the request has.
    pub fn path_with(text: &str, scope: Scope<'_>, others: Finder<'_>) -> Result<Self, Mistake> {
        Self::path_of(text, scope, Some(others))
    }

    fn path_of(text: &str, scope: Scope<'_>, others: Option<Finder<'_>>) -> Result<Self, Mistake> {
        let mut builder = Builder::new(text)?;
        if !text.starts_with('/') {
            return Err(Mistake::new(0..text.len(), format!("\"{text}\" does not start with `/`"))
                .hint("write a path such as \"/v1/{path.id}\""));
        }
        builder.land = Land::Path;
        builder.path_only = true;
        builder.run(scope, others)
    }

    /// Reads a template for a `Location`: a path, or a URL with `http://` or `https://`; either may have a query and a
    /// fragment. In the host only `{request.host}` may stand: anything else would let clients choose where they are sent.
    pub fn location(text: &str, scope: Scope<'_>) -> Result<Self, Mistake> {
        let mut builder = Builder::new(text)?;
        let scheme = ["http://", "https://"].into_iter().find(|scheme| text.starts_with(scheme));
        match scheme {
            Some(scheme) => {
                builder.parts.push(Part::Text(Land::Authority, scheme.into()));
                builder.start = scheme.len();
            }
            None if text.starts_with('/') && !text.starts_with("//") => builder.land = Land::Path,
            None => {
                return Err(Mistake::new(0..text.len(), format!("\"{text}\" is neither a path nor a URL"))
                    .hint("start it with `/`, `http://` or `https://`"));
            }
        }
        builder.run(scope, None)
    }

    /// Reads a template for a value, such as a header's: any text without control characters.
    pub fn value(text: &str, scope: Scope<'_>) -> Result<Self, Mistake> {
        Self::value_of(text, scope, None)
    }

    /// Likewise one that knows more names than the request has.
    pub fn value_with(text: &str, scope: Scope<'_>, others: Finder<'_>) -> Result<Self, Mistake> {
        Self::value_of(text, scope, Some(others))
    }

    fn value_of(text: &str, scope: Scope<'_>, others: Option<Finder<'_>>) -> Result<Self, Mistake> {
        if let Some((at, c)) = text.char_indices().find(|(_, c)| c.is_control() && *c != '\t') {
            return Err(Mistake::new(at..at + c.len_utf8(), "the value holds a control character")
                .hint("a value is one line of text"));
        }
        let mut builder = Builder::new(text)?;
        builder.land = Land::Value;
        builder.run(scope, others)
    }
}

struct Builder<'t> {
    text: &'t str,
    /// Where reading goes on.
    start: usize,
    land: Land,
    path_only: bool,
    parts: Vec<Part>,
    has_query: bool,
}

impl<'t> Builder<'t> {
    fn new(text: &'t str) -> Result<Self, Mistake> {
        if text.len() > TEMPLATE_BYTES_MAX {
            return Err(Mistake::new(
                0..text.len(),
                format!("template is {} bytes long, at most {TEMPLATE_BYTES_MAX} are allowed", text.len()),
            ));
        }
        Ok(Self {
            text,
            start: 0,
            land: Land::Authority,
            path_only: false,
            parts: Vec::new(),
            has_query: false,
        })
    }

    fn run(mut self, scope: Scope<'_>, others: Option<Finder<'_>>) -> Result<Template, Mistake> {
        let mut literal = String::new();
        let mut literal_at = self.start;
        while let Some(rest) = self.text.get(self.start..).filter(|rest| !rest.is_empty()) {
            let at = self.start;
            if let Some(brace) = rest.get(..2).filter(|two| matches!(*two, "{{" | "}}")) {
                literal.extend(brace.chars().take(1));
                self.start += 2;
            } else if rest.starts_with('}') {
                return Err(
                    Mistake::new(at..at + 1, "`}` closes nothing").hint("a literal brace is written }}")
                );
            } else if let Some(inner) = rest.strip_prefix('{') {
                let Some(length) = inner.find(['{', '}']).filter(|end| inner.get(*end..=*end) == Some("}"))
                else {
                    return Err(
                        Mistake::new(at..at + 1, "`{` is not closed").hint("a literal brace is written {{")
                    );
                };
                self.push_text(std::mem::take(&mut literal), literal_at..at)?;
                let name = inner.get(..length).unwrap_or_default();
                let source =
                    parse_reference(name, scope, others).map_err(|mistake| mistake.shifted(at + 1))?;
                self.push_source(source, at..at + length + 2)?;
                self.start += length + 2;
                literal_at = self.start;
            } else {
                let end = rest.find(['{', '}']).unwrap_or(rest.len());
                literal.push_str(rest.get(..end).unwrap_or_default());
                self.start += end;
            }
        }
        self.push_text(literal, literal_at..self.start)?;
        self.check()?;
        Ok(Template { parts: self.parts.into(), has_query: self.has_query })
    }

    /// Adds literal text and moves on to where it leads. `at` is where it stands in the template, in which a brace is two.
    fn push_text(&mut self, text: String, at: Range<usize>) -> Result<(), Mistake> {
        let mut rest = text.as_str();
        while !rest.is_empty() {
            let ends: &[char] = match self.land {
                Land::Authority => &['/', '?', '#'],
                Land::Path => &['?', '#'],
                Land::Query => &['#'],
                Land::Fragment | Land::Value => &[],
            };
            let end = rest.find(ends).unwrap_or(rest.len());
            let (here, after) = rest.split_at_checked(end).unwrap_or((rest, ""));
            if !here.is_empty() {
                let encoded = encode_text(self.land, here)
                    .map_err(|why| Mistake::new(at.clone(), format!("`{here}` {why}")))?;
                self.parts.push(Part::Text(self.land, encoded.into()));
            }
            self.land = match after.chars().next() {
                None => return Ok(()),
                Some('/') => Land::Path,
                Some(_) if self.path_only => {
                    return Err(Mistake::new(at, "a rewritten path has no `?` and no `#`")
                        .hint("the query goes on unchanged; a literal `?` is written %3F"));
                }
                Some('?') => {
                    self.has_query = true;
                    Land::Query
                }
                Some(_) => Land::Fragment,
            };
            // The slash belongs to the path, `?` and `#` to nothing.
            rest = if self.land == Land::Path { after } else { after.get(1..).unwrap_or_default() };
        }
        // An empty fragment or query stays one.
        Ok(())
    }

    fn push_source(&mut self, source: Source, at: Range<usize>) -> Result<(), Mistake> {
        if self.land == Land::Authority {
            match source {
                // The scheme was pushed; a name may not be put together.
                Source::RequestHost if self.parts.len() == 1 => {}
                Source::RequestPath if self.parts.len() > 1 => self.land = Land::Path,
                _ => {
                    return Err(Mistake::new(at, "a host may only be literal or {request.host}")
                        .hint("anything else lets clients choose where they are sent"));
                }
            }
        }
        if matches!(source, Source::RequestUri) && self.land != Land::Value {
            return Err(Mistake::new(at, "`{request.uri}` is for the values of headers and parameters")
                .hint("write {request.path}; the query goes along by itself"));
        }
        self.parts.push(Part::Value(self.land, source));
        Ok(())
    }

    /// What can be said of the whole: the host is one, and the literal path has no segments of dots.
    fn check(&self) -> Result<(), Mistake> {
        let whole = 0..self.text.len();
        let sample = |land: Land| {
            self.parts.iter().filter(|part| part.land() == land).fold(String::new(), |all, part| match part {
                Part::Text(_, text) => all + text,
                Part::Value(_, Source::RequestPath) => all + "/x",
                Part::Value(..) => all + "x",
            })
        };
        let host = sample(Land::Authority);
        if let Some((_, host)) = host.split_once("://")
            && !is_authority(host.as_bytes())
        {
            return Err(Mistake::new(whole, format!("`{host}` is not a host")));
        }
        let path = sample(Land::Path);
        if path.is_empty() {
            return Ok(());
        }
        check_built(path).map(drop).map_err(|why| Mistake::new(whole, format!("the path {why}")))
    }
}

/// Literal text as it has to be where it stands.
fn encode_text(land: Land, text: &str) -> Result<String, BadPath> {
    let mut out = String::with_capacity(text.len());
    match land {
        Land::Authority | Land::Value => out.push_str(text),
        Land::Path => {
            for (index, segment) in text.split('/').enumerate() {
                if index > 0 {
                    out.push('/');
                }
                push_normal_segment(&mut out, segment.as_bytes())?;
            }
        }
        // Both are segments with `/` and `?` between them (RFC 3986 sections 3.4 and 3.5).
        Land::Query | Land::Fragment => {
            for piece in text.split_inclusive(['/', '?']) {
                let (segment, end) = match piece.strip_suffix(['/', '?']) {
                    Some(segment) => (segment, piece.get(segment.len()..).unwrap_or_default()),
                    None => (piece, ""),
                };
                push_normal_segment(&mut out, segment.as_bytes())?;
                out.push_str(end);
            }
        }
    }
    Ok(out)
}

/// Reads what stands between braces.
fn parse_reference(name: &str, scope: Scope<'_>, others: Option<Finder<'_>>) -> Result<Source, Mistake> {
    if let Some(found) = others.and_then(|find| find(name)) {
        return found.map(|number| Source::Other(number, name.into()));
    }
    let whole = 0..name.len();
    if let Some(index) = scope.groups.and_then(|groups| groups.capture_index(name)) {
        return Ok(Source::Group(index));
    }
    let Some((source, field)) = name.split_once('.') else {
        return Err(bare_name(name, scope));
    };
    let field_at = source.len() + 1..name.len();
    let wrong = |message: String| Mistake::new(field_at.clone(), message);
    match source {
        "path" => match scope.pattern.capture_index(field) {
            Some(index) => Ok(Source::Path(index)),
            None => Err(unknown_capture(field, field_at.clone(), scope.pattern)),
        },
        "query" if !field.is_empty() => Ok(Source::Query(field.into())),
        "cookie" if !field.is_empty() => Ok(Source::Cookie(field.into())),
        "query" | "cookie" => Err(Mistake::new(whole, format!("`{{{name}}}` names no {source}"))),
        "header" => match HeaderName::from_bytes(field.as_bytes()) {
            Ok(name) => Ok(Source::Header(name)),
            Err(_) => Err(wrong(format!("`{field}` is not a header name"))),
        },
        "client" if field == "ip" => Ok(Source::ClientIp),
        "client" => match field.strip_prefix("cert.") {
            Some(name) => CertField::named(name).map(Source::ClientCert).ok_or_else(|| {
                suggest(wrong(format!("`{name}` is not known of a certificate")), name, &CertField::NAMES)
            }),
            None => Err(wrong(format!("`{field}` is not known of a client"))
                .hint("write {client.ip}, or {client.cert.subject} and the like")),
        },
        "request" => Source::request(field).ok_or_else(|| {
            suggest(wrong(format!("`{field}` is not known of a request")), field, &REQUEST_FIELDS)
        }),
        "jwt" if !field.is_empty() => Ok(Source::Claim(field.into())),
        "jwt" => Err(Mistake::new(whole, format!("`{{{name}}}` names no claim"))),
        "consumer" => ConsumerField::named(field).map(Source::Consumer).ok_or_else(|| {
            suggest(wrong(format!("`{field}` is not known of a consumer")), field, &CONSUMER_FIELDS)
        }),
        unknown => Err(suggest(
            Mistake::new(0..unknown.len(), format!("`{unknown}` is not a source of values")),
            unknown,
            &SOURCES,
        )),
    }
}

fn suggest(mistake: Mistake, written: &str, known: &[&str]) -> Mistake {
    match nearest(written, known.iter().copied()) {
        Some(near) => mistake.hint(format!("did you mean `{near}`?")),
        None => mistake.hint(format!("one of {}", known.join(", "))),
    }
}

fn bare_name(name: &str, scope: Scope<'_>) -> Mistake {
    let mistake = Mistake::new(0..name.len(), format!("`{{{name}}}` names no source"));
    if let Some(groups) = scope.groups {
        let names: Vec<_> = groups.capture_names().collect();
        return match names.as_slice() {
            [] => mistake.hint("the regex has no groups"),
            names => mistake.hint(format!("groups of the regex: {}", names.join(", "))),
        };
    }
    match scope.pattern.capture_index(name) {
        Some(_) => mistake.hint(format!("write {{path.{name}}}")),
        None => {
            mistake.hint("write {path.NAME}, {query.NAME}, {header.NAME}, {cookie.NAME} or {request.host}")
        }
    }
}

fn unknown_capture(field: &str, at: Range<usize>, pattern: &PathPattern) -> Mistake {
    let mistake = Mistake::new(at, format!("the path \"{pattern}\" declares no `{field}`"));
    let names: Vec<_> = pattern.capture_names().collect();
    match (nearest(field, names.iter().copied()), names.as_slice()) {
        (Some(near), _) => mistake.hint(format!("did you mean {{path.{near}}}?")),
        (None, []) => mistake
            .hint("a path declares names by {NAME} segments, a final /* as `rest`, or groups of a regex"),
        (None, names) => mistake.hint(format!("it declares {}", names.join(", "))),
    }
}
