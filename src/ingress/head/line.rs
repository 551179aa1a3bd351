//! The request line (RFC 9112 section 3).

use super::{Rule, Span};
use crate::base::authority::is_authority;
use crate::base::wire::octets::{PATH, QUERY, VISIBLE, all, is, is_token};

/// Longest method looked at. The longest registered one has 17 letters (`UPDATEREDIRECTREF`).
pub const METHOD_BYTES_MAX: usize = 32;

/// Longest target: the `http` crate, on which everything behind stands, counts its bytes in 16 bits.
const TARGET_BYTES_MAX: usize = 65_534;

/// A request line that passed.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct RequestLine {
    pub(super) version_11: bool,
    pub(super) is_get: bool,
    pub(super) is_trace: bool,
    pub(super) method: Span,
    pub(super) target: Span,
    /// The authority of an absolute target, and the port that its scheme has where none is written.
    pub(super) authority: Option<(Span, u16)>,
}

impl RequestLine {
    /// Reads `line` of `buf`: `method SP target SP HTTP/1.x`, each exactly once and nothing else. Minor versions that are to
    /// come mean what 1.1 does (RFC 9110 section 2.5).
    pub(super) fn parse(buf: &[u8], line: Span) -> Result<Self, Rule> {
        let text = line.of(buf);
        let version =
            text.split_last().and_then(|(minor, rest)| Some((rest.strip_suffix(b" HTTP/1.")?, *minor)));
        let (rest, version_11) = match version {
            Some((rest, b'0')) => (rest, false),
            Some((rest, b'1'..=b'9')) => (rest, true),
            _ => return Err(Rule::Version),
        };
        let method_len = rest.iter().position(|byte| *byte == b' ').ok_or(Rule::RequestLineWords)?;
        let method = Span { start: line.start, end: line.start + method_len };
        let target = Span { start: method.end + 1, end: line.start + rest.len() };
        let (method_text, target_text) = (method.of(buf), target.of(buf));
        // The common case, a path alone, is looked at once: what may stand in it is visible.
        let is_path = target_text.starts_with(b"/") && all(target_text, PATH);
        if !is_token(method_text) {
            return Err(Rule::MethodToken);
        }
        if target_text.is_empty() || !(is_path || all(target_text, VISIBLE)) {
            return Err(Rule::TargetBytes);
        }
        // There is no tunnel through this gateway, and no server knows a method that long.
        if method_text == b"CONNECT" {
            return Err(Rule::Connect);
        }
        if method_text.len() > METHOD_BYTES_MAX {
            return Err(Rule::MethodLength);
        }
        if target_text.len() > TARGET_BYTES_MAX {
            return Err(Rule::TargetLength);
        }
        let authority = if is_path { None } else { check_target(target_text, target.start, method_text)? };
        let (is_get, is_trace) = (method_text == b"GET", method_text == b"TRACE");
        Ok(Self { version_11, is_get, is_trace, method, target, authority })
    }
}

/// Checks the form of `target`, which starts at `offset`; the place of its authority, if it has one, and its scheme's port.
fn check_target(target: &[u8], offset: usize, method: &[u8]) -> Result<Option<(Span, u16)>, Rule> {
    match target {
        [b'/', ..] => check_path_and_query(target).map(|()| None),
        b"*" if method == b"OPTIONS" => Ok(None),
        _ => {
            let (scheme_len, port) = absolute_scheme(target).ok_or(Rule::TargetForm)?;
            let rest = target.get(scheme_len..).unwrap_or_default();
            let len = rest.iter().position(|byte| matches!(byte, b'/' | b'?' | b'#')).unwrap_or(rest.len());
            let (authority, path_and_query) = rest.split_at_checked(len).unwrap_or_default();
            if !is_authority(authority) {
                return Err(Rule::TargetAuthority);
            }
            check_path_and_query(path_and_query)?;
            let start = offset + scheme_len;
            Ok(Some((Span { start, end: start + len }, port)))
        }
    }
}

/// Length of `http://` or `https://` at the start of `target`, and the port it stands for.
fn absolute_scheme(target: &[u8]) -> Option<(usize, u16)> {
    let starts = |scheme: &[u8]| target.get(..scheme.len()).is_some_and(|at| at.eq_ignore_ascii_case(scheme));
    if starts(b"http://") {
        Some((7, 80))
    } else if starts(b"https://") {
        Some((8, 443))
    } else {
        None
    }
}

/// Refuses a fragment, which has no place in a request, and bytes that parsers further on disagree about.
/// Percent-encoding and dot segments are left to the normalisation of paths.
pub(super) fn check_path_and_query(target: &[u8]) -> Result<(), Rule> {
    let Some(end) = target.iter().position(|byte| !is(*byte, PATH)) else {
        return Ok(());
    };
    match target.get(end..).and_then(|rest| rest.split_first()) {
        Some((b'?', query)) if all(query, QUERY) => Ok(()),
        Some((b'?' | b'#', _)) => Err(Rule::QueryByte),
        _ => Err(Rule::PathByte),
    }
}
