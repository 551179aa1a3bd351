//! Conditional requests (RFC 9110 section 13): whether a file is sent at all, and whether parts of it may be.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::open::Facts;

/// What tells one state of a representation from another.
#[derive(Debug, Clone)]
pub(super) struct Validators {
    /// Strong: changes whenever the content does.
    pub(super) etag: HeaderValue,
    /// When it changed last, in whole seconds; none if that is no date that HTTP can write.
    pub(super) modified: Option<SystemTime>,
}

/// What becomes of a conditional request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The conditions hold, or there are none.
    Send,
    /// 304: the client has it.
    NotModified,
    /// 412: it is not what the client thinks.
    Failed,
}

/// The last second that an HTTP date can write: the end of the year 9999.
const SECONDS_MAX: u64 = 253_402_300_799;

impl Validators {
    /// The validators of a file, and of its variant in `coding`.
    ///
    /// The inode is a part of the tag: build tools like to give all files of all releases one time.
    pub(super) fn new(facts: &Facts, coding: &str) -> Self {
        let Facts { size, seconds, nanoseconds, inode } = *facts;
        let dash = if coding.is_empty() { "" } else { "-" };
        let tag = format!("\"{seconds:x}.{nanoseconds:x}-{size:x}-{inode:x}{dash}{coding}\"");
        let modified = u64::try_from(seconds).ok().filter(|seconds| *seconds <= SECONDS_MAX);
        Self {
            etag: HeaderValue::from_str(&tag).unwrap_or_else(|_| HeaderValue::from_static("\"\"")),
            modified: modified.map(|seconds| UNIX_EPOCH + Duration::from_secs(seconds)),
        }
    }

    /// `Last-Modified`.
    pub(super) fn last_modified(&self, now: SystemTime) -> Option<HeaderValue> {
        HeaderValue::try_from(httpdate::fmt_http_date(self.shown(now)?)).ok()
    }

    /// When it changed last, as it is told: never later than now (RFC 9110 section 8.8.2.1), in whole seconds.
    fn shown(&self, now: SystemTime) -> Option<SystemTime> {
        let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Some(self.modified?.min(UNIX_EPOCH + Duration::from_secs(seconds)))
    }

    /// What the conditions of a GET or HEAD come to, in the order of RFC 9110 section 13.2.2.
    pub(super) fn check(&self, headers: &HeaderMap, now: SystemTime) -> Verdict {
        let shown = self.shown(now);
        if headers.contains_key(header::IF_MATCH) {
            if !self.is_listed(headers, &header::IF_MATCH, Comparison::Strong) {
                return Verdict::Failed;
            }
        } else if let (Some(date), Some(modified)) = (date(headers, &header::IF_UNMODIFIED_SINCE), shown)
            && modified > date
        {
            return Verdict::Failed;
        }
        if headers.contains_key(header::IF_NONE_MATCH) {
            if self.is_listed(headers, &header::IF_NONE_MATCH, Comparison::Weak) {
                return Verdict::NotModified;
            }
        } else if let (Some(date), Some(modified)) = (date(headers, &header::IF_MODIFIED_SINCE), shown)
            && modified <= date
        {
            return Verdict::NotModified;
        }
        Verdict::Send
    }

    /// Whether `Range` counts: there is no `If-Range`, or it names this very state (RFC 9110 section 13.1.5).
    pub(super) fn is_range_due(&self, headers: &HeaderMap, now: SystemTime) -> bool {
        let mut lines = headers.get_all(header::IF_RANGE).iter();
        let condition = match (lines.next(), lines.next()) {
            (None, _) => return true,
            (Some(condition), None) => condition,
            (Some(_), Some(_)) => return false,
        };
        if condition.as_bytes().starts_with(b"\"") {
            return condition == self.etag;
        }
        let (Some(date), Some(modified)) = (date(headers, &header::IF_RANGE), self.modified) else {
            return false;
        };
        // Within its own second it may change again (RFC 9110 section 8.8.2.2).
        date == modified && modified + Duration::from_secs(1) <= now
    }

    fn is_listed(&self, headers: &HeaderMap, name: &HeaderName, comparison: Comparison) -> bool {
        let lines = headers.get_all(name).iter();
        lines.flat_map(|line| tags(line.as_bytes())).any(|tag| match tag {
            Tag::Any => true,
            Tag::Strong(tag) => tag == self.etag.as_bytes(),
            Tag::Weak(tag) => comparison == Comparison::Weak && tag == self.etag.as_bytes(),
        })
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Strong,
    Weak,
}

#[derive(Debug, PartialEq, Eq)]
enum Tag<'a> {
    /// `*`
    Any,
    /// With its quotes.
    Strong(&'a [u8]),
    /// With its quotes, without `W/`.
    Weak(&'a [u8]),
}

/// The tags of one line (RFC 9110 section 8.8.3), up to what is none.
fn tags(line: &[u8]) -> impl Iterator<Item = Tag<'_>> {
    let mut rest = line.trim_ascii();
    let mut any = rest == b"*";
    std::iter::from_fn(move || {
        if std::mem::take(&mut any) {
            rest = &[];
            return Some(Tag::Any);
        }
        while let [b',' | b' ' | b'\t', after @ ..] = rest {
            rest = after;
        }
        let (weak, quoted) = match rest {
            [b'W', b'/', quoted @ ..] => (true, quoted),
            quoted => (false, quoted),
        };
        let inner = quoted.strip_prefix(b"\"")?;
        let end = memchr::memchr(b'"', inner)?;
        let (tag, after) = quoted.split_at_checked(end + 2)?;
        rest = after;
        Some(if weak { Tag::Weak(tag) } else { Tag::Strong(tag) })
    })
}

/// The date that `name` holds; none if it is there more than once, or is no date: then it is as if it were not there.
fn date(headers: &HeaderMap, name: &HeaderName) -> Option<SystemTime> {
    let mut lines = headers.get_all(name).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else { return None };
    httpdate::parse_http_date(line.to_str().ok()?.trim()).ok()
}
