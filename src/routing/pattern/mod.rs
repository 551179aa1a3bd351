//! Path patterns: exact, template, prefix, regex, as a route's `path` has them.

use std::fmt;
use std::ops::Range;

use regex::bytes::{Regex, RegexBuilder};
use regex_syntax::hir::{HirKind, Literal, Look};
use smallvec::SmallVec;

use super::Mistake;
use super::path::{BadPath, push_normal_segment};

/// Longest pattern. Far more than any path in use, and little enough that 10,000 of them are nothing.
pub const PATTERN_BYTES_MAX: usize = 2048;
/// Most segments of a pattern: the matcher goes as deep.
pub const PATTERN_SEGMENTS_MAX: usize = 64;
/// What one compiled regex may take. A hundred times what a usual one does.
pub const REGEX_BYTES_MAX: usize = 256 * 1024;

/// What a route's `path` asks for. It is compared with the normal form of a request's path ([`super::path::normalise`]),
/// and its literal segments are brought into that form when it is read: `/größe` and `/gr%c3%b6%C3%9Fe` are one pattern.
///
/// - `/a/b`: this path; `/a/b/` is another.
/// - `/a/{id}`: each `{name}` stands for one whole, non-empty segment.
/// - `/a/*`: everything below `/a/`, and `/a` itself; parameters may stand before the `*`. `/*` is every path.
/// - `~^/a/[0-9]+$`: a regex, searched in the path as it is forwarded (percent-encoded, ASCII); it is anchored only if
///   it says so.
#[derive(Debug, Clone)]
pub struct PathPattern {
    text: Box<str>,
    kind: Kind,
    /// Name of each capture in the order of [`Captures`]; numbered groups of a regex have their number.
    names: Box<[Box<str>]>,
}

#[derive(Debug, Clone)]
pub(super) enum Kind {
    Exact(Box<str>),
    Template(Box<[Segment]>),
    Prefix(Box<[Segment]>),
    Regex(PathRegex),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Segment {
    Literal(Box<str>),
    Param,
}

#[derive(Debug, Clone)]
pub(super) struct PathRegex {
    pub(super) regex: Regex,
    /// What every matching path begins with; empty if that is not certain.
    pub(super) literal: Box<str>,
}

/// What a pattern's captures are in one path: ranges of it, in the order of [`PathPattern::capture_names`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Captures {
    ranges: SmallVec<[Option<(u32, u32)>; 4]>,
}

impl Captures {
    /// Capture `index` of `path`, the path that was matched, as it is encoded there. `None` for a group of a regex
    /// that took no part.
    pub fn get<'p>(&self, path: &'p str, index: usize) -> Option<&'p str> {
        let (start, end) = (*self.ranges.get(index)?)?;
        path.get(usize::try_from(start).ok()?..usize::try_from(end).ok()?)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    /// Whether the pattern has none.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    pub(super) fn push(&mut self, range: Option<Range<usize>>) {
        self.ranges.push(
            range.and_then(|range| Some((u32::try_from(range.start).ok()?, u32::try_from(range.end).ok()?))),
        );
    }
}

impl PathPattern {
    /// Reads a pattern.
    pub fn parse(text: &str) -> Result<Self, Mistake> {
        if text.len() > PATTERN_BYTES_MAX {
            return Err(too_long(text));
        }
        match text.strip_prefix('~') {
            Some(source) => Self::parse_regex(text, source).map_err(|mistake| mistake.shifted(1)),
            None => Self::parse_segments(text),
        }
    }

    /// Reads a regex that is written without `~`, as `rewrite.regex` has it.
    pub fn regex(source: &str) -> Result<Self, Mistake> {
        if source.len() > PATTERN_BYTES_MAX {
            return Err(too_long(source));
        }
        Self::parse_regex(source, source)
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The names that `{path.NAME}` may use, in the order of [`Captures`]: parameters, `rest` for a final `*`; of a
    /// regex the names of its groups, or their numbers from 1.
    pub fn capture_names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(AsRef::as_ref)
    }

    /// Where in [`Captures`] `name` is. Named groups of a regex have their number, too.
    pub fn capture_index(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|known| **known == *name).or_else(|| match &self.kind {
            Kind::Regex(_) => group_number(name).filter(|index| *index < self.names.len()),
            _ => None,
        })
    }

    /// Whether `path`, in its normal form, is meant.
    pub fn matches(&self, path: &str) -> bool {
        match &self.kind {
            Kind::Exact(exact) => **exact == *path,
            Kind::Template(segments) => walk(segments, path, |_| ()).is_some_and(|rest| rest == path.len()),
            Kind::Prefix(segments) => walk(segments, path, |_| ()).is_some(),
            Kind::Regex(regex) => regex.matches(path),
        }
    }

    /// The captures of `path`, if it is meant. Allocates only for a regex with groups, and beyond four captures.
    pub fn captures(&self, path: &str) -> Option<Captures> {
        let mut captures = Captures::default();
        match &self.kind {
            Kind::Exact(_) => self.matches(path).then_some(captures),
            Kind::Template(segments) => walk(segments, path, |range| captures.push(Some(range)))
                .filter(|rest| *rest == path.len())
                .map(|_| captures),
            Kind::Prefix(segments) => {
                let end = walk(segments, path, |range| captures.push(Some(range)))?;
                captures.push(Some((end + 1).min(path.len())..path.len()));
                Some(captures)
            }
            Kind::Regex(regex) if self.names.is_empty() => regex.matches(path).then_some(captures),
            Kind::Regex(regex) => {
                let found = regex.regex.captures(path.as_bytes()).filter(|_| path.starts_with('/'))?;
                for group in found.iter().skip(1) {
                    captures.push(group.map(|group| group.range()));
                }
                Some(captures)
            }
        }
    }

    /// Whether both ask for the same paths because they say the same; names of parameters aside.
    pub fn same_paths(&self, other: &Self) -> bool {
        match (&self.kind, &other.kind) {
            (Kind::Exact(one), Kind::Exact(two)) => one == two,
            (Kind::Template(one), Kind::Template(two)) | (Kind::Prefix(one), Kind::Prefix(two)) => one == two,
            (Kind::Regex(one), Kind::Regex(two)) => one.regex.as_str() == two.regex.as_str(),
            _ => false,
        }
    }

    /// Whether a path that matches may still match with a slash at its end: yes when in doubt.
    pub fn may_end_in_slash(&self) -> bool {
        match &self.kind {
            Kind::Exact(path) => path.ends_with('/'),
            Kind::Template(_) => self.text.ends_with('/'),
            Kind::Prefix(_) | Kind::Regex(_) => true,
        }
    }

    pub(super) fn kind(&self) -> &Kind {
        &self.kind
    }

    fn parse_segments(text: &str) -> Result<Self, Mistake> {
        let Some(inner) = text.strip_prefix('/') else {
            return Err(Mistake::new(0..text.len(), format!("path \"{text}\" does not start with `/`"))
                .hint(format!("write \"/{text}\", or \"~{text}\" for a regex")));
        };
        let mut segments = Vec::new();
        let mut names: Vec<Box<str>> = Vec::new();
        let mut prefix = false;
        let mut start = 1;
        for raw in inner.split('/') {
            let at = start..start + raw.len();
            start = at.end + 1;
            let last = at.end == text.len();
            match raw {
                "*" if last => prefix = true,
                "" if !last => {
                    return Err(Mistake::new(
                        at.start - 1..at.start + 1,
                        "`//` is in no path: slashes are merged",
                    )
                    .hint("write one slash"));
                }
                _ => segments.push(parse_segment(raw, at, &mut names)?),
            }
        }
        if segments.len() > PATTERN_SEGMENTS_MAX {
            return Err(Mistake::new(
                0..text.len(),
                format!("pattern has more than {PATTERN_SEGMENTS_MAX} segments"),
            ));
        }
        if prefix {
            if names.iter().any(|name| **name == *"rest") {
                return Err(Mistake::new(
                    0..text.len(),
                    "parameter `rest` is already what the final `*` is called",
                )
                .hint("call the parameter something else"));
            }
            names.push("rest".into());
        }
        let kind = if prefix {
            Kind::Prefix(segments.into())
        } else if names.is_empty() {
            Kind::Exact(
                segments.iter().fold(String::new(), |path, segment| path + "/" + segment.literal()).into(),
            )
        } else {
            Kind::Template(segments.into())
        };
        Ok(Self { text: text.into(), kind, names: names.into() })
    }

    fn parse_regex(text: &str, source: &str) -> Result<Self, Mistake> {
        if let Some((at, other)) = source.char_indices().find(|(_, character)| !character.is_ascii()) {
            let mut encoded = String::new();
            super::escape::push_segment(&mut encoded, other.encode_utf8(&mut [0; 4]).as_bytes());
            return Err(Mistake::new(
                at..at + other.len_utf8(),
                format!("`{other}` is in no path: paths are percent-encoded"),
            )
            .hint(format!("write \"{encoded}\"")));
        }
        let regex = compile_regex(source, false, REGEX_BYTES_MAX)?;
        let names = regex
            .capture_names()
            .enumerate()
            .skip(1)
            .map(|(index, name)| name.map_or_else(|| index.to_string().into(), Into::into))
            .collect();
        let literal = literal_start(source);
        Ok(Self { text: text.into(), kind: Kind::Regex(PathRegex { regex, literal }), names })
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Segment {
    /// The literal text; empty for a parameter.
    pub(super) fn literal(&self) -> &str {
        match self {
            Self::Literal(text) => text,
            Self::Param => "",
        }
    }
}

impl Kind {
    /// The kind's place in the order of precedence; less goes first.
    pub(super) fn rank(&self) -> u8 {
        match self {
            Self::Exact(_) => 0,
            Self::Template(_) => 1,
            Self::Prefix(segments) if !segments.is_empty() => 2,
            Self::Regex(_) => 3,
            Self::Prefix(_) => 4,
        }
    }
}

impl PathRegex {
    /// The whole segments that every matching path begins with, followed by a slash; empty if none are certain.
    pub(super) fn directory(&self) -> &str {
        self.literal.rfind('/').and_then(|slash| self.literal.get(..slash)).unwrap_or_default()
    }

    pub(super) fn matches(&self, path: &str) -> bool {
        path.starts_with('/') && path.starts_with(&*self.literal) && self.regex.is_match(path.as_bytes())
    }
}

fn too_long(text: &str) -> Mistake {
    Mistake::new(
        0..text.len(),
        format!("pattern is {} bytes long, at most {PATTERN_BYTES_MAX} are allowed", text.len()),
    )
}

/// Compiles a regex of the configuration, bounded: neither its text nor what is built from it can take more than
/// `bytes_max`.
pub(super) fn compile_regex(source: &str, unicode: bool, bytes_max: usize) -> Result<Regex, Mistake> {
    let whole = 0..source.len();
    RegexBuilder::new(source)
        .unicode(unicode)
        .size_limit(bytes_max)
        .dfa_size_limit(bytes_max)
        .nest_limit(100)
        .build()
        .map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => Mistake::new(whole, "regex is too large when compiled")
                .hint("use fewer or smaller repetitions such as {1,1000}"),
            // Its own text draws the pattern over several lines; the last says what is wrong.
            other => {
                let text = other.to_string();
                let reason = text.lines().last().unwrap_or_default().trim_start_matches("error: ").trim();
                Mistake::new(whole, format!("regex is not valid: {reason}"))
            }
        })
}

/// The number of a group, counted from 1, as an index.
pub(super) fn group_number(name: &str) -> Option<usize> {
    if !name.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    name.parse::<usize>().ok()?.checked_sub(1)
}

fn parse_segment(raw: &str, at: Range<usize>, names: &mut Vec<Box<str>>) -> Result<Segment, Mistake> {
    if let Some(name) = raw.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
        check_parameter(name, at.start + 1..at.end - 1)?;
        if names.iter().any(|known| **known == *name) {
            return Err(Mistake::new(at, format!("parameter `{name}` stands twice"))
                .hint("give each parameter its own name"));
        }
        names.push(name.into());
        return Ok(Segment::Param);
    }
    if raw.contains(['{', '}']) {
        return Err(Mistake::new(at, format!("`{raw}` is neither a parameter nor a literal segment"))
            .hint("a parameter is a whole segment, such as /{id}/; a literal brace is written %7B or %7D"));
    }
    if raw.contains('*') {
        return Err(Mistake::new(at, "`*` may only be the last segment")
            .hint("use {name} for one segment, a final /* for all that follow, or a regex"));
    }
    let mut literal = String::with_capacity(raw.len());
    push_normal_segment(&mut literal, raw.as_bytes()).map_err(|error| match error {
        BadPath::Delimiter => {
            Mistake::new(at.clone(), format!("`{raw}` holds `?` or `#`, which is in no path"))
                .hint("match parameters with `query`")
        }
        other => Mistake::new(at.clone(), format!("`{raw}` {other}")),
    })?;
    if literal == "." || literal == ".." {
        return Err(Mistake::new(at, format!("`{raw}` is in no path: segments of dots are resolved"))
            .hint("write the path without it"));
    }
    Ok(Segment::Literal(literal.into()))
}

fn check_parameter(name: &str, at: Range<usize>) -> Result<(), Mistake> {
    let mut bytes = name.bytes();
    let head = bytes.next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    if head && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        return Ok(());
    }
    let mistake = Mistake::new(at, format!("`{{{name}}}` is not a parameter"));
    Err(if name == "*" || name.ends_with("...") || name.starts_with('*') {
        mistake.hint("a final /* stands for all that follows, as {path.rest}")
    } else {
        mistake.hint("its name is letters, digits and `_`, and starts with no digit")
    })
}

/// Matches `segments` one by one against the start of `path` and returns where the last of them ends, which is at a
/// slash or the end of the path. Reports what each parameter took.
fn walk(segments: &[Segment], path: &str, mut took: impl FnMut(Range<usize>)) -> Option<usize> {
    let mut at = 0;
    if !path.starts_with('/') {
        return None;
    }
    for segment in segments {
        // `at` is at a slash: one that begins the next segment.
        let start = at + 1;
        let rest = path.get(start..)?;
        let end = start + memchr::memchr(b'/', rest.as_bytes()).unwrap_or(rest.len());
        match segment {
            Segment::Literal(literal) if path.get(start..end) == Some(literal) => {}
            Segment::Param if start < end => took(start..end),
            _ => return None,
        }
        at = end;
    }
    Some(at)
}

/// What every path that `source` matches begins with, as far as that is plain: the literal after `^`.
fn literal_start(source: &str) -> Box<str> {
    let parsed = regex_syntax::ParserBuilder::new().utf8(false).unicode(false).build().parse(source);
    let literal = parsed.ok().and_then(|hir| match hir.kind() {
        HirKind::Concat(parts) => match parts.as_slice() {
            [start, next, ..] if *start.kind() == HirKind::Look(Look::Start) => match next.kind() {
                HirKind::Literal(Literal(bytes)) => String::from_utf8(bytes.to_vec()).ok(),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    });
    literal.unwrap_or_default().into()
}

#[cfg(test)]
mod tests;
