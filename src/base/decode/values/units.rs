//! Quantities with a unit.

use std::time::Duration;

use super::super::{Decoder, Kind, Node, Shape, Value, quote};
use crate::base::units;

impl Value for Duration {
    fn shape() -> Shape {
        Shape::Text { pattern: Some("^(0|([0-9]+(ms|s|m|h|d))+)$"), examples: &["250ms", "5s", "1h30m"] }
    }

    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        quantity(node, cx, "a duration such as \"5s\"", "s", units::parse_duration)
    }

    fn render(&self) -> String {
        quote(&units::format_duration(*self))
    }
}

/// A number of bytes, written `"64KiB"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Size(pub u64);

impl Value for Size {
    fn shape() -> Shape {
        Shape::Text { pattern: Some("^(0|[0-9]+([KMG]i?)?B)$"), examples: &["64KiB", "10MiB"] }
    }

    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        quantity(node, cx, "a size such as \"64KiB\"", "B", units::parse_size).map(Self)
    }

    fn render(&self) -> String {
        quote(&units::format_size(self.0))
    }
}

/// A number of bytes a second, written `"1KiB/s"`; 0 = no bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct ByteRate(pub u64);

impl Value for ByteRate {
    fn shape() -> Shape {
        Shape::Text { pattern: Some("^(0|[0-9]+([KMG]i?)?B/s)$"), examples: &["1KiB/s", "500B/s"] }
    }

    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        quantity(node, cx, "a rate such as \"1KiB/s\"", "B/s", units::parse_byte_rate).map(Self)
    }

    fn render(&self) -> String {
        match self.0 {
            0 => quote("0"),
            bytes => quote(&format!("{}/s", units::format_size(bytes))),
        }
    }
}

/// A ratio between 0 and 1, written `"20%"`.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Default)]
pub struct Percentage(pub f64);

impl Value for Percentage {
    fn shape() -> Shape {
        Shape::Text { pattern: Some("^[0-9]+(\\.[0-9]+)?%$"), examples: &["20%"] }
    }

    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        quantity(node, cx, "a percentage such as \"20%\"", "%", units::parse_percentage).map(Self)
    }

    fn render(&self) -> String {
        format!("\"{}%\"", (self.0 * 1e6).round() / 1e4)
    }
}

/// So many in so long, written `"10/s"` or `"10/15min"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// How many; never 0.
    pub count: u64,
    /// In how long; never 0.
    pub per: Duration,
}

const PERIODS: &[(&str, u64)] =
    &[("s", 1), ("min", 60), ("h", 3600), ("day", 86_400), ("week", 604_800), ("month", 2_592_000)];

impl Rate {
    fn parse(text: &str) -> Result<Self, String> {
        let wrong = || "is not a rate such as \"10/s\" or \"10/15min\"".to_owned();
        let (count, period) = text.split_once('/').ok_or_else(wrong)?;
        let count: u64 = digits(count.trim()).ok_or_else(wrong)?;
        let period = period.trim();
        let number = period.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = period.split_at(number);
        let number: u64 = if number.is_empty() { 1 } else { digits(number).ok_or_else(wrong)? };
        let seconds = PERIODS.iter().find(|(name, _)| *name == unit).map(|(_, seconds)| *seconds);
        let seconds = seconds.ok_or_else(|| {
            format!("has the period {}, which is none of s, min, h, day, week, month", quote(unit))
        })?;
        // A century: past it arithmetic on instants may overflow.
        let per = number.checked_mul(seconds).filter(|seconds| *seconds <= 100 * 366 * 86_400);
        match per {
            None => Err("is over too long a period".to_owned()),
            Some(0) => Err("is over no time at all".to_owned()),
            Some(_) if count == 0 => Err("lets nothing pass".to_owned()),
            Some(per) => Ok(Self { count, per: Duration::from_secs(per) }),
        }
    }
}

/// Other words for the periods, as other programs and people write them.
const WORDS: &[(&str, &[&str])] = &[
    ("s", &["sec", "secs", "second", "seconds"]),
    ("min", &["m", "mins", "minute", "minutes"]),
    ("h", &["hr", "hrs", "hour", "hours"]),
    ("day", &["d", "days"]),
    ("week", &["w", "weeks"]),
    ("month", &["mo", "months"]),
];

impl Rate {
    /// What whoever wrote `text` will have meant: `100 per minute`, `100/minute`, `100r/m`.
    fn meant(text: &str) -> Option<String> {
        let text = text.trim().to_ascii_lowercase();
        let end = text.find(|c: char| !c.is_ascii_digit())?;
        let (count, rest) = text.split_at(end);
        let rest = rest.trim_start();
        let rest = ["requests", "request", "req", "r"]
            .iter()
            .find_map(|word| rest.strip_prefix(word))
            .unwrap_or(rest);
        let rest = rest.trim_start();
        let rest =
            ["/", "per ", "an ", "a ", "every ", "in "].iter().find_map(|word| rest.strip_prefix(word))?;
        let rest = rest.trim();
        let (number, unit) = rest.split_at(rest.bytes().take_while(u8::is_ascii_digit).count());
        let unit = unit.trim();
        let (unit, _) = WORDS.iter().find(|(unit_, words)| *unit_ == unit || words.contains(&unit))?;
        let near = format!("{count}/{number}{unit}");
        Self::parse(&near).is_ok().then_some(near)
    }
}

fn digits(text: &str) -> Option<u64> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

impl Value for Rate {
    fn shape() -> Shape {
        Shape::Text {
            pattern: Some("^[0-9]+ */ *[0-9]*(s|min|h|day|week|month)$"),
            examples: &["10/s", "5000/h", "10/15min"],
        }
    }

    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        let expected = "a rate such as \"10/s\"";
        let Some(text) = node.as_str() else { return cx.expected(node, expected) };
        match Self::parse(text) {
            Ok(rate) => Some(rate),
            Err(why) => {
                let problem = cx.error("invalid-value", &node.origin, format!("{} {why}", quote(text)));
                if let Some(near) = Self::meant(text) {
                    problem.suggest(Some(&near));
                }
                None
            }
        }
    }

    fn render(&self) -> String {
        let seconds = self.per.as_secs();
        let (unit, scale) = PERIODS
            .iter()
            .rev()
            .find(|(_, scale)| seconds.is_multiple_of(*scale))
            .copied()
            .unwrap_or(("s", 1));
        match seconds / scale {
            1 => format!("\"{}/{unit}\"", self.count),
            number => format!("\"{}/{number}{unit}\"", self.count),
        }
    }
}

/// A text with a unit; a bare number gets the hint to write `unit` behind it.
fn quantity<T>(
    node: &Node,
    cx: &mut Decoder<'_>,
    expected: &str,
    unit: &str,
    parse: impl Fn(&str) -> Result<T, units::UnitError>,
) -> Option<T> {
    match &node.kind {
        Kind::Integer(value) if *value >= 0 => {
            cx.expected_or(node, expected, Some(format!("write \"{value}{unit}\"")))
        }
        Kind::Float(value) if *value >= 0.0 => cx.expected_or(node, expected, None),
        Kind::String { text, .. } => match parse(text.trim()) {
            Ok(value) => Some(value),
            Err(why @ units::UnitError::NoUnit) => {
                let problem = cx.error("invalid-value", &node.origin, format!("{} {why}", quote(text)));
                problem.hint(format!("write \"{}{unit}\"", text.trim()));
                None
            }
            Err(why @ units::UnitError::NoPeriod) => {
                let problem = cx.error("invalid-value", &node.origin, format!("{} {why}", quote(text)));
                problem.hint(format!("write \"{}/s\"", text.trim()));
                None
            }
            Err(why @ units::UnitError::OutOfOrder) => {
                let problem = cx.error("invalid-value", &node.origin, format!("{} {why}", quote(text)));
                problem.hint("larger units stand first, each once: \"1h30m\"");
                None
            }
            Err(why @ units::UnitError::UnknownUnit(..)) => {
                let near = units::with_known_units(text.trim()).filter(|near| parse(near).is_ok());
                let problem = cx.error("invalid-value", &node.origin, format!("{} {why}", quote(text)));
                problem.suggest(near.as_deref());
                None
            }
            Err(units::UnitError::NotANumber) => {
                let near: String = text.split_whitespace().collect();
                let near = Some(near).filter(|near| parse(near).is_ok());
                let message = format!("{} is not {expected}", quote(text));
                cx.error("invalid-value", &node.origin, message).suggest(near.as_deref());
                None
            }
            Err(why) => cx.invalid(node, why),
        },
        _ => cx.expected(node, expected),
    }
}
