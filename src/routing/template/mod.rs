//! Templates: `/v1/{path.id}?lang={query.lang}`. References to the request inside a literal text; `{{` and `}}` are
//! literal braces.
//!
//! A value is decoded when it is read and encoded for where it lands, so that it can never add a segment, a parameter or
//! a header. What the path captured is already encoded, and was already several segments where it is; it lands in a path
//! as it is.

mod cert;
mod read;
mod value;
mod who;

use std::fmt;
use std::net::IpAddr;

use http::HeaderName;

pub(super) use self::cert::CertField;
pub(super) use self::read::REQUEST_FIELDS;
pub(super) use self::who::CONSUMER_FIELDS;
use self::who::ConsumerField;
pub use self::who::{ConsumerView, Who};
use super::Mistake;
use super::escape::{decode_segment, push_escaped, push_query, push_segment};
use super::path::{BadPath, check_built};
use super::pattern::{Captures, PathPattern};
use super::table::RequestView;
use crate::base::client_cert::ClientCert;

/// Finds names that are no part of the request, which only some templates know, such as other answers: the number is
/// what [`Lookup`] will be asked for. `None` leaves the name to the request's own sources.
pub type Finder<'a> = &'a dyn Fn(&str) -> Option<Result<usize, Mistake>>;

/// The values of what a [`Finder`] found, as bytes that are safe nowhere yet; `None` = there is none.
pub type Lookup<'a> = &'a dyn Fn(usize) -> Option<Vec<u8>>;

/// Of templates whose names are all the request's.
const NOTHING_ELSE: Lookup<'static> = &|_| None;

/// What templates read.
#[derive(Debug, Clone, Copy)]
pub struct Values<'a> {
    /// The request as the table saw it.
    pub request: &'a RequestView<'a>,
    /// What the route's pattern captured in its path.
    pub captures: &'a Captures,
    /// `http` or `https`.
    pub scheme: &'a str,
    /// The request id.
    pub id: &'a str,
    /// Where the client is; `None` on a unix socket.
    pub client: Option<IpAddr>,
    /// The certificate that the client has proved to own.
    pub client_cert: Option<&'a ClientCert>,
    /// Who it is from.
    pub who: Who<'a>,
}

/// Why a template has no value for a request. The client is to blame: 400.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExpandError {
    /// A reference has no value, or an empty one, where a path needs one.
    #[error("`{{{0}}}` has no value")]
    Missing(Box<str>),
    /// The values make no path.
    #[error("the rewritten path {0}")]
    Path(BadPath),
}

/// A template for a path, a `Location` or a value, compiled.
#[derive(Debug, Clone)]
pub struct Template {
    parts: Box<[Part]>,
    has_query: bool,
}

#[derive(Debug, Clone)]
enum Part {
    /// Scheme and host, path, query or fragment: encoded as it has to be there.
    Text(Land, Box<str>),
    Value(Land, Source),
}

/// Where something lands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Land {
    Authority,
    Path,
    Query,
    Fragment,
    /// A value by itself, such as a header's: encoded by whoever knows where it goes.
    Value,
}

#[derive(Debug, Clone)]
enum Source {
    /// A capture of the route's pattern.
    Path(usize),
    /// A group of the rewrite's own regex.
    Group(usize),
    Query(Box<str>),
    Header(HeaderName),
    Cookie(Box<str>),
    ClientIp,
    ClientCert(CertField),
    RequestId,
    RequestMethod,
    RequestScheme,
    RequestHost,
    RequestPath,
    /// Path and query: of values only.
    RequestUri,
    /// A claim of the token: by its literal name, else along its dots.
    Claim(Box<str>),
    Consumer(ConsumerField),
    /// What a [`Finder`] found, and how it was written.
    Other(usize, Box<str>),
}

/// What a template may refer to.
#[derive(Debug, Clone, Copy)]
pub struct Scope<'a> {
    /// The route's `path`: its captures are `{path.NAME}`.
    pub pattern: &'a PathPattern,
    /// The rewrite's own regex, as a pattern: its groups are `{NAME}` and `{1}`.
    pub groups: Option<&'a PathPattern>,
}

impl Template {
    /// Whether it has a query of its own.
    pub fn has_query(&self) -> bool {
        self.has_query
    }

    /// The path for a request, in its normal form; `groups` are those of the rewrite's own regex in
    /// [`RequestView::path`].
    pub fn expand_path(&self, values: &Values<'_>, groups: &Captures) -> Result<String, ExpandError> {
        check_built(self.expand(Land::Path, values, groups, NOTHING_ELSE)?).map_err(ExpandError::Path)
    }

    /// Likewise for a template that knows more names than the request has.
    pub fn expand_path_with(&self, values: &Values<'_>, others: Lookup<'_>) -> Result<String, ExpandError> {
        let groups = Captures::default();
        check_built(self.expand(Land::Path, values, &groups, others)?).map_err(ExpandError::Path)
    }

    /// The value of `Location` for a request: the request's own query goes along unless the template has one. Visible
    /// ASCII, whatever the request holds.
    pub fn expand_location(&self, values: &Values<'_>) -> Result<String, ExpandError> {
        let groups = Captures::default();
        let mut location = self.expand(Land::Authority, values, &groups, NOTHING_ELSE)?;
        let path = self.expand(Land::Path, values, &groups, NOTHING_ELSE)?;
        if !path.is_empty() {
            location.push_str(&check_built(path).map_err(ExpandError::Path)?);
        }
        if self.has_query {
            location.push('?');
            location.push_str(&self.expand(Land::Query, values, &groups, NOTHING_ELSE)?);
        } else if let Some(query) = values.request.query {
            location.push('?');
            push_visible(&mut location, query);
        }
        if self.parts.iter().any(|part| part.land() == Land::Fragment) {
            location.push('#');
            location.push_str(&self.expand(Land::Fragment, values, &groups, NOTHING_ELSE)?);
        }
        Ok(location)
    }

    fn expand(
        &self,
        land: Land,
        values: &Values<'_>,
        groups: &Captures,
        others: Lookup<'_>,
    ) -> Result<String, ExpandError> {
        let mut out = String::new();
        for part in self.parts.iter().filter(|part| part.land() == land) {
            match part {
                Part::Text(_, text) => out.push_str(text),
                Part::Value(_, source) => source.push(&mut out, land, values, groups, others)?,
            }
        }
        Ok(out)
    }
}

impl Part {
    fn land(&self) -> Land {
        match self {
            Self::Text(land, _) | Self::Value(land, _) => *land,
        }
    }
}

impl Source {
    fn push(
        &self,
        out: &mut String,
        land: Land,
        values: &Values<'_>,
        groups: &Captures,
        others: Lookup<'_>,
    ) -> Result<(), ExpandError> {
        let request = values.request;
        match self {
            // These are path text already: the same segments they were, in normal form.
            Self::Path(index) => push_path(out, land, values.captures.get(request.path, *index)),
            Self::Group(index) => push_path(out, land, groups.get(request.path, *index)),
            Self::RequestPath => push_path(out, land, Some(request.path)),
            Self::RequestHost if land == Land::Authority => {
                // Checked when the request was read; without one there is nowhere to send the client to.
                if request.host.is_empty() {
                    return Err(ExpandError::Missing(self.to_string().into()));
                }
                out.push_str(request.host);
            }
            Self::Other(number, _) => return self.push_value(out, land, others(*number).as_deref()),
            _ => return self.push_value(out, land, self.value(values).as_deref()),
        }
        Ok(())
    }

    /// A value from outside the path. In a path it must be there, or the segment it stands for would vanish; elsewhere
    /// nothing stands for nothing.
    fn push_value(&self, out: &mut String, land: Land, value: Option<&[u8]>) -> Result<(), ExpandError> {
        let value = value.unwrap_or_default();
        if value.is_empty() && land <= Land::Path {
            return Err(ExpandError::Missing(self.to_string().into()));
        }
        if land == Land::Query {
            push_query(out, value)
        } else {
            push_segment(out, value)
        }
        Ok(())
    }
}

/// As it is written, for messages; captures by their number.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(index) => write!(f, "path.{}", index + 1),
            Self::Group(index) => write!(f, "{}", index + 1),
            Self::Query(name) => write!(f, "query.{name}"),
            Self::Header(name) => write!(f, "header.{name}"),
            Self::Cookie(name) => write!(f, "cookie.{name}"),
            Self::ClientIp => f.write_str("client.ip"),
            Self::ClientCert(field) => write!(f, "client.cert.{}", field.name()),
            Self::RequestId => f.write_str("request.id"),
            Self::RequestMethod => f.write_str("request.method"),
            Self::RequestScheme => f.write_str("request.scheme"),
            Self::RequestHost => f.write_str("request.host"),
            Self::RequestPath => f.write_str("request.path"),
            Self::RequestUri => f.write_str("request.uri"),
            Self::Claim(name) => write!(f, "jwt.{name}"),
            Self::Consumer(field) => write!(f, "consumer.{}", field.name()),
            Self::Other(_, written) => f.write_str(written),
        }
    }
}

fn push_path(out: &mut String, land: Land, text: Option<&str>) {
    let text = text.unwrap_or_default();
    match land {
        Land::Path => out.push_str(text),
        Land::Query => push_query(out, &decode_segment(text)),
        Land::Authority | Land::Fragment | Land::Value => push_segment(out, &decode_segment(text)),
    }
}

/// Appends a query as it came, but for what a header must not hold.
pub fn push_visible(out: &mut String, query: &str) {
    for byte in query.bytes() {
        if byte.is_ascii_graphic() { out.push(char::from(byte)) } else { push_escaped(out, byte) }
    }
}

#[cfg(test)]
mod tests;
