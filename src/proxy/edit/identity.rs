//! Who a request is from, as heads say it: what clients said, and what they showed to prove it, goes; what was verified comes.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::Names;
use crate::proxy::names::is_alike;

/// The headers that tell servers who a request is from.
#[derive(Debug, Clone, Copy, Default)]
pub struct Identity<'a> {
    /// Their names: what the client sent under them never arrives, nor under names that servers may take for them, as
    /// many write dashes as underscores.
    pub names: &'a [Option<HeaderName>],
    /// What was verified, in the same order; `None` = nothing.
    pub values: &'a [Option<HeaderValue>],
}

impl<'a> Identity<'a> {
    pub(in crate::proxy) fn told(self) -> impl Iterator<Item = (&'a HeaderName, &'a HeaderValue)> {
        self.names.iter().zip(self.values).filter_map(|(name, value)| name.as_ref().zip(value.as_ref()))
    }
}

/// What a client showed to prove who it is, as far as servers do not get it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Credentials<'a> {
    /// `Authorization`.
    pub authorization: bool,
    /// The header of an API key.
    pub header: Option<&'a HeaderName>,
    /// The cookie of a token.
    pub cookie: Option<&'a str>,
}

impl Credentials<'_> {
    pub(super) fn remove(self, headers: &mut HeaderMap) {
        if self.authorization {
            headers.remove(header::AUTHORIZATION);
        }
        if let Some(name) = self.header {
            headers.remove(name);
        }
        if let Some(name) = self.cookie {
            remove_cookie(headers, name);
        }
    }
}

/// Takes one cookie out of all `Cookie` lines; the others stay as they are.
fn remove_cookie(headers: &mut HeaderMap, name: &str) {
    let is_it = |pair: &[u8]| {
        pair.trim_ascii().strip_prefix(name.as_bytes()).is_some_and(|rest| rest.starts_with(b"="))
    };
    if !headers.get_all(header::COOKIE).iter().flat_map(cookie_pairs).any(is_it) {
        return;
    }
    let kept: Vec<_> = headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|line| {
            let kept: Vec<_> =
                cookie_pairs(line).filter(|pair| !is_it(pair)).map(<[u8]>::trim_ascii).collect();
            if kept.is_empty() { None } else { HeaderValue::from_bytes(&kept.join(&b"; "[..])).ok() }
        })
        .collect();
    headers.remove(header::COOKIE);
    for line in kept {
        headers.append(header::COOKIE, line);
    }
}

fn cookie_pairs(line: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    line.as_bytes().split(|byte| *byte == b';')
}

/// What there is that a server may take for one of `names`; usually nothing.
pub(super) fn alike(headers: &HeaderMap, names: &[Option<HeaderName>]) -> Names {
    let alike = |other: &&HeaderName| {
        let mut names = names.iter().flatten();
        names.any(|name| is_alike(name.as_str().as_bytes(), other.as_str().as_bytes()))
    };
    headers.keys().filter(alike).cloned().collect()
}
