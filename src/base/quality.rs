//! Lists with weights: `Accept`, `Accept-Encoding` (RFC 9110 section 12.4.2).

use http::HeaderValue;

/// Items looked at; browsers send fewer than ten.
const ITEMS_MAX: usize = 32;

/// The items of such a list and their weights in thousandths. What is no text is no item; a weight that is none is 0.
pub fn weights<'v>(lines: impl Iterator<Item = &'v HeaderValue>) -> impl Iterator<Item = (&'v str, u16)> {
    lines
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .take(ITEMS_MAX)
        .map(|item| {
            let mut parts = item.split(';').map(str::trim);
            let name = parts.next().unwrap_or_default();
            let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
            (name, weight.map_or(1000, thousandths))
        })
        .filter(|(name, _)| !name.is_empty())
}

/// `0.25` is 250.
fn thousandths(text: &str) -> u16 {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.len() <= 3 && text.bytes().all(|byte| byte.is_ascii_digit());
    if !matches!(whole, "0" | "1") || !digits(fraction) {
        return 0;
    }
    let fraction: u16 = format!("{fraction:0<3}").parse().unwrap_or(0);
    (if whole == "1" { 1000 } else { fraction }).min(1000)
}
