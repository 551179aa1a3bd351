//! Durations, sizes, rates and percentages as people write them.
//!
//! A number without a unit is an error: `30` means seconds to one reader and milliseconds to the next.

use std::time::Duration;

/// Why a text is not the quantity it should be. Displays as a fragment that completes "`x` …".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// A bare number.
    #[error("has no unit")]
    NoUnit,
    /// A size where a size in a time is due.
    #[error("has no `/s`")]
    NoPeriod,
    /// Digits are missing, or something that is not a digit stands in their place.
    #[error("is not a number with a unit")]
    NotANumber,
    /// The letters after the number are no unit of this kind.
    #[error("has the unit `{0}`, which is none of {1}")]
    UnknownUnit(String, &'static str),
    /// Units must get smaller from left to right and stand once.
    #[error("has its units out of order")]
    OutOfOrder,
    /// Does not fit.
    #[error("is too large")]
    TooLarge,
}

const DURATION_UNITS: &[(&str, u64)] =
    &[("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
const SIZE_UNITS: &[(&str, u64)] = &[
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("B", 1),
];

/// Longest duration accepted: about a century. Anything longer is a mistake, and arithmetic on it must not overflow.
const DURATION_MS_MAX: u64 = 100 * 366 * 86_400_000;

/// Parses `250ms`, `5s`, `1m`, `2h`, `1d`, combined `1h30m`. A lone `0` is zero in any unit.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text;
    let mut total_ms: u64 = 0;
    let mut last_scale = u64::MAX;
    while !rest.is_empty() {
        let (number, unit, after) = split_quantity(rest)?;
        let scale = scale_of(unit, DURATION_UNITS, "ms, s, m, h, d")?;
        if scale >= last_scale {
            return Err(UnitError::OutOfOrder);
        }
        last_scale = scale;
        total_ms = number
            .checked_mul(scale)
            .and_then(|ms| total_ms.checked_add(ms))
            .filter(|ms| *ms <= DURATION_MS_MAX)
            .ok_or(UnitError::TooLarge)?;
        rest = after;
    }
    if last_scale == u64::MAX { Err(UnitError::NotANumber) } else { Ok(Duration::from_millis(total_ms)) }
}

/// Parses `64KiB`, `10MiB`, `1GiB`, `64KB`, `10MB`, `512B` into bytes. A lone `0` is zero.
pub fn parse_size(text: &str) -> Result<u64, UnitError> {
    if text == "0" {
        return Ok(0);
    }
    let (number, unit, after) = split_quantity(text)?;
    if !after.is_empty() {
        return Err(UnitError::NotANumber);
    }
    let scale = scale_of(unit, SIZE_UNITS, "B, KiB, MiB, GiB, KB, MB, GB")?;
    // Kept below 2^62, so that sums of two never overflow.
    number.checked_mul(scale).filter(|bytes| *bytes < 1 << 62).ok_or(UnitError::TooLarge)
}

/// Parses `1KiB/s` or `500B/s` into bytes a second. A lone `0` is zero.
pub fn parse_byte_rate(text: &str) -> Result<u64, UnitError> {
    match text.strip_suffix("/s") {
        Some(size) if size != "0" => parse_size(size),
        None if text == "0" => Ok(0),
        Some(_) => Err(UnitError::NoUnit),
        None => match parse_size(text) {
            Ok(_) => Err(UnitError::NoPeriod),
            Err(why) => Err(why),
        },
    }
}

/// Parses `20%` or `12.5%` into a ratio between 0 and 1.
pub fn parse_percentage(text: &str) -> Result<f64, UnitError> {
    let number = text.strip_suffix('%').ok_or(UnitError::NoUnit)?;
    if !number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return Err(UnitError::NotANumber);
    }
    let percent: f64 = number.parse().map_err(|_| UnitError::NotANumber)?;
    if percent <= 100.0 { Ok(percent / 100.0) } else { Err(UnitError::TooLarge) }
}

/// `text` with units as others write them replaced by ours: `5sec` is `5s`, and nginx's `10m` for a size is `10MiB`.
///
/// `None` if one of them is a unit nowhere. The result is a proposal: it need not parse.
pub fn with_known_units(text: &str) -> Option<String> {
    let (number, unit, rest) = split_quantity(text).ok()?;
    let known = match unit.to_ascii_lowercase().as_str() {
        "msec" | "msecs" | "millis" | "milliseconds" | "ms" => "ms",
        "sec" | "secs" | "second" | "seconds" | "s" => "s",
        "min" | "mins" | "minute" | "minutes" => "m",
        "hr" | "hrs" | "hour" | "hours" | "h" => "h",
        "day" | "days" | "d" => "d",
        "byte" | "bytes" | "b" => "B",
        "kb" => "KB",
        "mb" => "MB",
        "gb" => "GB",
        // A letter alone counts in 1024s, to nginx as to most others.
        "k" | "ki" | "kib" => "KiB",
        "m" | "mi" | "mib" => "MiB",
        "g" | "gi" | "gib" => "GiB",
        _ => return None,
    };
    let rest = if rest.is_empty() { String::new() } else { with_known_units(rest)? };
    Some(format!("{number}{known}{rest}"))
}

/// Writes a duration as [`parse_duration`] reads it, in the fewest units.
pub fn format_duration(duration: Duration) -> String {
    let mut ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if ms == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (unit, scale) in DURATION_UNITS {
        // "90s" reads better than "1m30s", but "5m" better than "300s".
        let whole = ms / scale;
        if whole > 0 {
            text.push_str(&format!("{whole}{unit}"));
            ms %= scale;
        }
    }
    text
}

/// Writes a size as [`parse_size`] reads it, in the largest binary unit that divides it.
pub fn format_size(bytes: u64) -> String {
    for (unit, scale) in &[("GiB", 1_u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
        if bytes > 0 && bytes.is_multiple_of(*scale) {
            return format!("{}{unit}", bytes / scale);
        }
    }
    format!("{bytes}B")
}

fn split_quantity(text: &str) -> Result<(u64, &str, &str), UnitError> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, rest) = text.split_at(digits);
    if number.is_empty() {
        return Err(UnitError::NotANumber);
    }
    let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
    let (unit, after) = rest.split_at(letters);
    if unit.is_empty() {
        return Err(if after.is_empty() { UnitError::NoUnit } else { UnitError::NotANumber });
    }
    Ok((number.parse().map_err(|_| UnitError::TooLarge)?, unit, after))
}

fn scale_of(unit: &str, units: &[(&str, u64)], all: &'static str) -> Result<u64, UnitError> {
    units
        .iter()
        .find(|(name, _)| *name == unit)
        .map(|(_, scale)| *scale)
        .ok_or_else(|| UnitError::UnknownUnit(unit.to_owned(), all))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations() {
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(parse_duration("0"), Ok(Duration::ZERO));
        assert_eq!(parse_duration("30"), Err(UnitError::NoUnit));
        assert_eq!(parse_duration("30m1h"), Err(UnitError::OutOfOrder));
        assert_eq!(parse_duration(""), Err(UnitError::NotANumber));
        assert_eq!(parse_duration("-1s"), Err(UnitError::NotANumber));
        assert_eq!(parse_duration("99999999999999999999s"), Err(UnitError::TooLarge));
        assert!(matches!(parse_duration("5sec"), Err(UnitError::UnknownUnit(unit, _)) if unit == "sec"));
    }

    #[test]
    fn units_of_others_are_understood_well_enough_to_propose_ours() {
        for (written, meant) in
            [("5sec", "5s"), ("1min30secs", "1m30s"), ("10mb", "10MB"), ("10m", "10MiB"), ("64K", "64KiB")]
        {
            assert_eq!(with_known_units(written).as_deref(), Some(meant));
        }
        for text in ["3parsec", "", "s", "5s3", "30"] {
            assert_eq!(with_known_units(text), None, "{text}");
        }
    }

    #[test]
    fn sizes_and_percentages() {
        assert_eq!(parse_size("64KiB"), Ok(65_536));
        assert_eq!(parse_size("10MB"), Ok(10_000_000));
        assert_eq!(parse_size("5"), Err(UnitError::NoUnit));
        assert_eq!(parse_size("1KiB1B"), Err(UnitError::NotANumber));
        assert_eq!(parse_byte_rate("1KiB/s"), Ok(1024));
        assert_eq!(parse_byte_rate("0"), Ok(0));
        assert_eq!(parse_byte_rate("5/s"), Err(UnitError::NoUnit));
        assert_eq!(parse_byte_rate("0/s"), Err(UnitError::NoUnit));
        assert_eq!(parse_byte_rate("5KiB"), Err(UnitError::NoPeriod));
        assert_eq!(parse_byte_rate("5"), Err(UnitError::NoUnit));
        assert_eq!(parse_percentage("20%"), Ok(0.2));
        assert_eq!(parse_percentage("101%"), Err(UnitError::TooLarge));
        assert_eq!(parse_percentage("x%"), Err(UnitError::NotANumber));
    }

    proptest! {
        #[test]
        fn durations_survive_writing(ms in 0_u64..DURATION_MS_MAX) {
            let duration = Duration::from_millis(ms);
            prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
        }

        #[test]
        fn sizes_survive_writing(bytes in 0_u64..1 << 40) {
            prop_assert_eq!(parse_size(&format_size(bytes)), Ok(bytes));
        }

        #[test]
        fn no_text_panics(text in ".{0,40}") {
            drop((parse_duration(&text), parse_size(&text), parse_percentage(&text), parse_byte_rate(&text)));
        }
    }
}
