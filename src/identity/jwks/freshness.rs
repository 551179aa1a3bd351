//! How long an answer may be used (RFC 9111), so far as key sets need it.

use std::time::Duration;

use http::HeaderMap;
use http::header::{AGE, CACHE_CONTROL};

/// `max-age` of `Cache-Control`, less `Age`; zero for `no-store` and `no-cache`; `None` where nothing is said, or nonsense.
pub fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let lines = headers.get_all(CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    let mut found = None;
    for directive in lines.flat_map(|line| line.split(',')) {
        let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
        match name.trim().to_ascii_lowercase().as_str() {
            "no-store" | "no-cache" => return Some(Duration::ZERO),
            // The first counts (RFC 9111 section 4.2.1).
            "max-age" if found.is_none() => found = value.trim().trim_matches('"').parse().ok(),
            _ => {}
        }
    }
    let age = headers.get(AGE).and_then(|age| age.to_str().ok()?.trim().parse().ok()).unwrap_or(0);
    found.map(|seconds: u64| Duration::from_secs(seconds.saturating_sub(age)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_the_answer_says() {
        let of = |lines: &[(&str, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in lines {
                headers
                    .append(http::HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
            }
            max_age(&headers).map(|age| age.as_secs())
        };
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[("cache-control", "public, max-age=300")]), Some(300));
        assert_eq!(of(&[("cache-control", "public, MAX-AGE=\"300\""), ("age", "100")]), Some(200));
        assert_eq!(of(&[("cache-control", "max-age=10"), ("age", "100")]), Some(0));
        assert_eq!(of(&[("cache-control", "public"), ("cache-control", "max-age=7, max-age=9")]), Some(7));
        assert_eq!(of(&[("cache-control", "max-age=300, no-store")]), Some(0));
        assert_eq!(of(&[("cache-control", "no-cache")]), Some(0));
        for nonsense in ["max-age", "max-age=-1", "max-age=1.5", "max-age=99999999999999999999", "s-maxage=5"]
        {
            assert_eq!(of(&[("cache-control", nonsense)]), None, "{nonsense}");
        }
    }
}
