//! What a verified token says (RFC 7519 section 4), and whether that holds for a provider at a moment.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::compact::shown;
use crate::base::reason::Reason;
use crate::identity::forms::Forms;
use crate::identity::token::{Refusal, Token};

/// What a provider demands of the claims of its tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// `iss`, exactly; `None` = not checked.
    pub issuer: Option<Box<str>>,
    /// One of these has to be in `aud`; empty = not checked.
    pub audience: Box<[Box<str>]>,
    /// The header's `typ`, without the prefix `application/`; `None` = one of [`USUAL_TYPES`], or none.
    pub typ: Option<Box<str>>,
    /// How far clocks may be apart, in seconds.
    pub leeway: i64,
    /// Claims that have to be there.
    pub require: Box<[Box<str>]>,
    /// Where roles stand: the name of a claim, else a path with dots.
    pub roles_claim: Box<str>,
}

/// Types of tokens that are meant for services (RFC 7519 section 5.1, RFC 9068 section 2.1). One that says to be something
/// else, such as a logout token, must not pass for one (RFC 8725 section 3.11).
pub const USUAL_TYPES: &[&str] = &["JWT", "at+jwt"];

/// The last second of the year 9999. Times past it, and before its mirror, are mistakes of a unit, not times.
const SECONDS_MAX: f64 = 253_402_300_799.0;

impl Rules {
    /// Whether the header's `typ` is one of those demanded.
    ///
    /// # Errors
    /// [`Reason::TokenInvalid`].
    pub fn check_type(&self, typ: Option<&str>) -> Result<(), Refusal> {
        let fits = match (&self.typ, typ.map(without_prefix)) {
            (Some(wanted), Some(typ)) => wanted.eq_ignore_ascii_case(typ),
            (Some(_), None) => false,
            (None, Some(typ)) => USUAL_TYPES.iter().any(|usual| usual.eq_ignore_ascii_case(typ)),
            (None, None) => true,
        };
        if fits {
            return Ok(());
        }
        Err(invalid(match typ {
            Some(typ) => format!("a token of the type {}", shown(typ)),
            None => "a token without a type".to_owned(),
        }))
    }

    /// The token that `claims` make, if they hold at `now` (Unix seconds). `payload` is what they were read from.
    ///
    /// # Errors
    /// [`Reason::TokenExpired`] and [`Reason::TokenNotYetValid`] for times alone, [`Reason::TokenInvalid`] for the rest.
    pub fn check(
        &self,
        provider: &Arc<str>,
        claims: Map<String, Value>,
        payload: Vec<u8>,
        now: i64,
    ) -> Result<Token, Refusal> {
        let issuer = text_of(&claims, "iss")?;
        let subject = text_of(&claims, "sub")?;
        let id = text_of(&claims, "jti")?;
        if let Some(wanted) = self.issuer.as_deref()
            && issuer != Some(wanted)
        {
            return Err(invalid(match issuer {
                Some(issuer) => format!("iss is {}", shown(issuer)),
                None => "iss is missing".to_owned(),
            }));
        }
        self.check_audience(&claims)?;
        for name in &self.require {
            if claims.get(&**name).is_none_or(Value::is_null) {
                return Err(invalid(format!("{name} is missing")));
            }
        }
        let (issued_at, expires_at) = self.check_times(&claims, now)?;
        Ok(Token {
            provider: provider.clone(),
            subject: subject.map(Into::into),
            id: id.map(Into::into),
            issued_at,
            expires_at,
            roles: names(find(&claims, &self.roles_claim)),
            scopes: names(claims.get("scope").or_else(|| claims.get("scp"))),
            claims,
            payload: payload.into(),
            forms: Forms::default(),
        })
    }

    /// The same of a token that may have ended before `now`: all else has to hold at its end.
    ///
    /// # Errors
    /// As of [`Rules::check`].
    pub fn check_ended(
        &self,
        provider: &Arc<str>,
        claims: Map<String, Value>,
        payload: Vec<u8>,
        now: i64,
    ) -> Result<Token, Refusal> {
        let end = time_of(&claims, "exp", f64::floor)?;
        self.check(provider, claims, payload, end.map_or(now, |end| now.min(end.saturating_sub(1))))
    }

    fn check_audience(&self, claims: &Map<String, Value>) -> Result<(), Refusal> {
        let audience: Vec<&str> = match claims.get("aud") {
            None => Vec::new(),
            Some(Value::String(one)) => vec![one],
            Some(Value::Array(several)) => several
                .iter()
                .map(Value::as_str)
                .collect::<Option<_>>()
                .ok_or_else(|| invalid("aud is not a list of strings".to_owned()))?,
            Some(_) => return Err(invalid("aud is neither a string nor a list".to_owned())),
        };
        if self.audience.is_empty()
            || audience.iter().any(|aud| self.audience.iter().any(|own| **own == **aud))
        {
            return Ok(());
        }
        Err(invalid(match audience.first() {
            None => "aud is missing".to_owned(),
            Some(first) if audience.len() == 1 => format!("aud is {}", shown(first)),
            Some(first) => format!("aud is {} and {} more", shown(first), audience.len() - 1),
        }))
    }

    /// `iat` and `exp`, if the token holds at `now`.
    fn check_times(
        &self,
        claims: &Map<String, Value>,
        now: i64,
    ) -> Result<(Option<i64>, Option<i64>), Refusal> {
        let expires_at = time_of(claims, "exp", f64::floor)?;
        let not_before = time_of(claims, "nbf", f64::ceil)?;
        let issued_at = time_of(claims, "iat", f64::floor)?;
        let leeway = self.leeway;
        if let Some(expires_at) = expires_at
            && now >= expires_at.saturating_add(leeway)
        {
            let detail =
                format!("exp was {} s ago, with a leeway of {leeway} s", now.saturating_sub(expires_at));
            return Err(Refusal::new(Reason::TokenExpired, detail));
        }
        for (name, at) in [("nbf", not_before), ("iat", issued_at)] {
            if let Some(at) = at
                && now.saturating_add(leeway) < at
            {
                let detail =
                    format!("{name} is in {} s, with a leeway of {leeway} s", at.saturating_sub(now));
                return Err(Refusal::new(Reason::TokenNotYetValid, detail));
            }
        }
        Ok((issued_at, expires_at))
    }
}

/// `typ` without the prefix that may be left out (RFC 7515 section 4.1.9).
pub(in crate::identity) fn without_prefix(typ: &str) -> &str {
    const PREFIX: &str = "application/";
    let has_prefix = typ.get(..PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(PREFIX));
    if has_prefix { typ.get(PREFIX.len()..).unwrap_or_default() } else { typ }
}

/// The string under `name`; another type, null too, is wrong.
fn text_of<'c>(claims: &'c Map<String, Value>, name: &str) -> Result<Option<&'c str>, Refusal> {
    match claims.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(invalid(format!("{name} is not a string"))),
    }
}

/// The NumericDate (RFC 7519 section 2) under `name`, `round`ed to seconds; another type, null too, is wrong.
fn time_of(claims: &Map<String, Value>, name: &str, round: fn(f64) -> f64) -> Result<Option<i64>, Refusal> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    let Value::Number(number) = value else { return Err(invalid(format!("{name} is not a number"))) };
    let seconds = number.as_f64().filter(|seconds| seconds.abs() <= SECONDS_MAX);
    let Some(seconds) = seconds else { return Err(invalid(format!("{name} is not a time"))) };
    #[expect(
        clippy::cast_possible_truncation,
        reason = "bounded above, and whole numbers of this size are exact"
    )]
    Ok(Some(round(seconds) as i64))
}

/// The claim called `name`; without one, what the path `name` leads to.
fn find<'c>(claims: &'c Map<String, Value>, name: &str) -> Option<&'c Value> {
    if let Some(literal) = claims.get(name) {
        return Some(literal);
    }
    let (first, rest) = name.split_once('.')?;
    rest.split('.').try_fold(claims.get(first)?, |value, step| value.as_object()?.get(step))
}

/// The names in a list of strings, or in a string with spaces between them. Whatever else stands there names nothing.
fn names(value: Option<&Value>) -> Box<[Box<str>]> {
    match value {
        Some(Value::String(text)) => {
            text.split(' ').filter(|name| !name.is_empty()).map(Into::into).collect()
        }
        Some(Value::Array(items)) => items.iter().filter_map(Value::as_str).map(Into::into).collect(),
        _ => Box::default(),
    }
}

fn invalid(detail: String) -> Refusal {
    Refusal::new(Reason::TokenInvalid, detail)
}
