//! `Range` (RFC 9110 section 14.2).

use std::ops::Range;

/// More ranges than these are not worth their overhead: the whole is sent instead, as the standard permits.
const RANGES_MAX: usize = 16;

/// Which part of a representation is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Part {
    /// All of it.
    Whole,
    /// These bytes, one range or several, in the order asked for.
    Ranges(Vec<Range<u64>>),
    /// None of what was asked for is there: 416.
    Nothing,
}

/// What `value` asks for of a representation of `size` bytes.
///
/// A header that is no valid list of byte ranges is ignored, and so is one that asks for more ranges, or more bytes in
/// all, than make sense: overlapping ranges would have a small request answered many times over.
pub(crate) fn read(value: &[u8], size: u64) -> Part {
    let Some(ranges) = parse(value) else { return Part::Whole };
    // Of an empty file there are no parts.
    if size == 0 {
        return Part::Whole;
    }
    let there: Vec<Range<u64>> = ranges.into_iter().filter_map(|range| range.of(size)).collect();
    let total = there.iter().try_fold(0_u64, |sum, range| sum.checked_add(range.end - range.start));
    match there.len() {
        0 => Part::Nothing,
        1 => Part::Ranges(there),
        _ if total.is_some_and(|total| total <= size) => Part::Ranges(there),
        _ => Part::Whole,
    }
}

/// As it is written.
#[derive(Debug, Clone, Copy)]
enum Asked {
    /// From this byte, to that one if it is given, both included.
    From(u64, Option<u64>),
    /// The last so many.
    Last(u64),
}

impl Asked {
    /// The bytes of a representation of `size`, or `None` if it has none of them.
    fn of(self, size: u64) -> Option<Range<u64>> {
        match self {
            Self::From(first, last) if first < size => {
                Some(first..last.map_or(size, |last| last.saturating_add(1).min(size)))
            }
            Self::Last(count) if count > 0 => Some(size.saturating_sub(count)..size),
            _ => None,
        }
    }
}

/// `None`: not a list of byte ranges, or more of them than are looked at.
fn parse(value: &[u8]) -> Option<Vec<Asked>> {
    let text = std::str::from_utf8(value).ok()?;
    let (unit, list) = text.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let mut ranges = Vec::new();
    // Empty elements of a list are skipped (RFC 9110 section 5.6.1.2).
    for item in list.split(',').map(|item| item.trim_matches([' ', '\t'])).filter(|item| !item.is_empty()) {
        if ranges.len() == RANGES_MAX {
            return None;
        }
        let (first, last) = item.split_once('-')?;
        ranges.push(match (first, last) {
            ("", last) => Asked::Last(number(last)?),
            (first, "") => Asked::From(number(first)?, None),
            (first, last) => {
                let (first, last) = (number(first)?, number(last)?);
                if last < first {
                    return None;
                }
                Asked::From(first, Some(last))
            }
        });
    }
    (!ranges.is_empty()).then_some(ranges)
}

/// Digits; more than there are bytes in the world count as that many.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}
