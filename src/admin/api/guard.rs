//! Who may use the API.

use std::time::{Duration, Instant};

use aws_lc_rs::{constant_time, digest};
use http::{HeaderMap, StatusCode, header};
use parking_lot::Mutex;

use super::reply::Refusal;
use crate::base::clock;
use crate::base::secret::Secret;

/// Wrong tokens in a second, whoever sends them; beyond it guesses are not even looked at. Who has the right one never
/// notices.
const WRONG_MAX: u32 = 10;
const WINDOW: Duration = Duration::from_secs(1);

/// Compares tokens, and counts wrong ones.
#[derive(Debug, Default)]
pub(super) struct Guard {
    wrong: Mutex<Option<(Instant, u32)>>,
}

impl Guard {
    /// Refuses whoever may not ask this. `asks`: nothing would be changed.
    pub(super) fn check(
        &self,
        token: Option<&Secret>,
        headers: &HeaderMap,
        asks: bool,
    ) -> Result<(), Refusal> {
        let Some(token) = token else {
            if asks {
                return Ok(());
            }
            let detail =
                "without a token in the configuration nothing can be changed: set `token` in [admin]";
            return Err(Refusal::new(StatusCode::FORBIDDEN, "read_only", detail));
        };
        let shown = headers.get(header::AUTHORIZATION).map(|value| value.as_bytes());
        let Some(shown) = shown else {
            let refusal = Refusal::new(StatusCode::UNAUTHORIZED, "token_missing", "a bearer token is needed");
            return Err(refusal.header(header::WWW_AUTHENTICATE, "Bearer realm=\"edgeward\""));
        };
        if bearer(shown).is_some_and(|shown| is_same(shown, token.expose().as_bytes())) {
            return Ok(());
        }
        if self.is_too_much() {
            let refusal =
                Refusal::new(StatusCode::TOO_MANY_REQUESTS, "too_many_attempts", "too many wrong tokens");
            return Err(refusal.header(header::RETRY_AFTER, "1"));
        }
        let refusal = Refusal::new(StatusCode::UNAUTHORIZED, "token_wrong", "this is not the token");
        Err(refusal.header(header::WWW_AUTHENTICATE, "Bearer realm=\"edgeward\", error=\"invalid_token\""))
    }

    fn is_too_much(&self) -> bool {
        let now = clock::now();
        let mut wrong = self.wrong.lock();
        let (since, count) = match *wrong {
            Some((since, count)) if now.saturating_duration_since(since) < WINDOW => (since, count),
            _ => (now, 0),
        };
        *wrong = Some((since, count.saturating_add(1)));
        count >= WRONG_MAX
    }
}

/// The token of `Authorization: Bearer …`; the scheme's case does not matter (RFC 9110 section 11.1).
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
}

/// Takes as long for a good beginning as for a bad one, and tells nothing of lengths.
fn is_same(one: &[u8], two: &[u8]) -> bool {
    let hash = |bytes| digest::digest(&digest::SHA256, bytes);
    constant_time::verify_slices_are_equal(hash(one).as_ref(), hash(two).as_ref()).is_ok()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn shown(text: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::from_str(text).unwrap())])
    }

    #[test]
    fn the_token_opens_and_nothing_else_does() {
        let (guard, token) = (Guard::default(), Secret::new("0123456789abcdef".to_owned()));
        let check = |headers: &HeaderMap, asks| {
            guard.check(Some(&token), headers, asks).map_err(|refusal| refusal.status().as_u16())
        };
        assert_eq!(check(&shown("Bearer 0123456789abcdef"), false), Ok(()));
        assert_eq!(check(&shown("bearer  0123456789abcdef "), true), Ok(()));
        assert_eq!(check(&HeaderMap::new(), true), Err(401));
        for wrong in
            ["Bearer", "Bearer ", "Bearer 0123456789abcdeF", "Basic 0123456789abcdef", "0123456789abcdef"]
        {
            assert_eq!(check(&shown(wrong), true), Err(401), "{wrong}");
        }
        for _more in 0..5 {
            assert_eq!(check(&shown("Bearer x"), true), Err(401));
        }
        assert_eq!(check(&shown("Bearer x"), true), Err(429));
        assert_eq!(check(&shown("Bearer 0123456789abcdef"), true), Ok(()), "who has it never notices");
    }

    #[test]
    fn without_a_token_it_only_tells() {
        let guard = Guard::default();
        assert!(guard.check(None, &HeaderMap::new(), true).is_ok());
        let refused = guard.check(None, &shown("Bearer x"), false).unwrap_err();
        assert_eq!(refused.status(), StatusCode::FORBIDDEN);
    }
}
