//! nginx's units.

use std::time::Duration;

/// A duration: `30`, `30s`, `1m`, `1h 30m`, `500ms`, `1d`, `1w`, `1M`, `1y`; without a unit seconds.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let mut total: u64 = 0;
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = rest.get(..digits)?.parse().ok()?;
        rest = rest.get(digits..)?;
        let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        let scale: u64 = match rest.get(..letters)? {
            "ms" => 1,
            "s" | "" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 7 * 86_400_000,
            "M" => 30 * 86_400_000,
            "y" => 365 * 86_400_000,
            _ => return None,
        };
        rest = rest.get(letters..)?.trim_start();
        total = total.checked_add(number.checked_mul(scale)?)?;
    }
    // A century, as elsewhere.
    (total <= 100 * 366 * 86_400_000).then(|| Duration::from_millis(total))
}

/// A size in bytes: `512`, `8k`, `10m`, `1g`.
pub(super) fn size(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let number: u64 = text.get(..digits)?.parse().ok()?;
    let scale = match text.get(digits..)? {
        "" => 1,
        "k" | "K" => 1 << 10,
        "m" | "M" => 1 << 20,
        "g" | "G" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(scale).filter(|bytes| *bytes < 1 << 62)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_nginx_own() {
        for (text, ms) in [
            ("30", 30_000),
            ("1m", 60_000),
            ("1h 30m", 5_400_000),
            ("1h30m", 5_400_000),
            ("500ms", 500),
            ("0", 0),
        ] {
            assert_eq!(duration(text), Some(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "x", "5q", "99999999999y"] {
            assert_eq!(duration(text), None, "{text}");
        }
        assert_eq!(
            (size("10m"), size("8k"), size("0"), size("1t")),
            (Some(10 << 20), Some(8192), Some(0), None)
        );
    }
}
