//! Templates of values: of a header, of a parameter. What the parts stand for, not how it is written anywhere.

use std::borrow::Cow;

use super::{Lookup, NOTHING_ELSE, Part, Source, Template, Values};
use crate::base::claim;
use crate::routing::escape::{decode_query, decode_segment};
use crate::routing::predicate::{cookie_values, query_values};

impl Template {
    /// The text of a template that refers to nothing.
    pub fn constant(&self) -> Option<String> {
        let text = |part: &Part| match part {
            Part::Text(_, text) => Some(text.to_string()),
            Part::Value(..) => None,
        };
        self.parts.iter().map(text).collect()
    }

    /// The value for a request, as bytes that are safe nowhere yet; `None` if anything it refers to is missing.
    ///
    /// An empty parameter, header or cookie is there; an empty host is not.
    pub fn expand_value(&self, values: &Values<'_>) -> Option<Vec<u8>> {
        self.expand_value_with(values, NOTHING_ELSE)
    }

    /// Likewise for a template that knows more names than the request has.
    pub fn expand_value_with(&self, values: &Values<'_>, others: Lookup<'_>) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        for part in &self.parts {
            match part {
                Part::Text(_, text) => out.extend_from_slice(text.as_bytes()),
                Part::Value(_, Source::Other(number, _)) => out.extend(others(*number)?),
                Part::Value(_, source) => out.extend_from_slice(&source.value(values)?),
            }
        }
        Some(out)
    }
}

impl Template {
    /// The words of a routing key for a request (AMQP 0-9-1 section 3.1.3.3): each value is one, so it can neither add
    /// another nor stand for any. `None` if something it refers to is missing, or is no word.
    pub fn expand_words(&self, values: &Values<'_>) -> Option<String> {
        let mut out = String::new();
        for part in &self.parts {
            match part {
                Part::Text(_, text) => out.push_str(text),
                Part::Value(_, source) => {
                    let value = source.value(values)?;
                    let word = std::str::from_utf8(&value).ok()?;
                    let is_word = |c: char| !c.is_control() && !matches!(c, '.' | '*' | '#');
                    if word.is_empty() || !word.chars().all(is_word) {
                        return None;
                    }
                    out.push_str(word);
                }
            }
        }
        Some(out)
    }
}

impl Values<'_> {
    /// The field `name` of `request`.
    pub(in crate::routing) fn of_request(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        Source::request(name)?.value(self)
    }
}

impl Template {
    /// The number of the one name that it consists of, if that is not the request's: `{order.ids}` and nothing else.
    pub fn sole_other(&self) -> Option<usize> {
        match &*self.parts {
            [Part::Value(_, Source::Other(number, _))] => Some(*number),
            _ => None,
        }
    }
}

impl Source {
    /// The field `name` of `request`.
    pub(super) fn request(name: &str) -> Option<Self> {
        Some(match name {
            "id" => Self::RequestId,
            "method" => Self::RequestMethod,
            "scheme" => Self::RequestScheme,
            "host" => Self::RequestHost,
            "path" => Self::RequestPath,
            "uri" => Self::RequestUri,
            _ => return None,
        })
    }

    /// What it stands for, decoded; whole paths and targets stay as they are written, or `%2F` would become a slash.
    pub(super) fn value<'v>(&self, values: &Values<'v>) -> Option<Cow<'v, [u8]>> {
        let request = values.request;
        match self {
            Self::Path(index) => values.captures.get(request.path, *index).map(decode_segment),
            // Of rewrites only, which know their own groups; and what is asked of others.
            Self::Group(_) | Self::Other(..) => None,
            Self::Query(name) => query_values(request.query, name).next().map(decode_query),
            Self::Header(name) => request.headers.get(name).map(|value| value.as_bytes().into()),
            Self::Cookie(name) => cookie_values(request.headers, name).next().map(Cow::Borrowed),
            Self::ClientIp => values.client.map(|ip| ip.to_string().into_bytes().into()),
            Self::ClientCert(field) => values.client_cert.and_then(|cert| field.of(cert)).map(bytes),
            Self::RequestId => Some(values.id.as_bytes().into()),
            Self::RequestMethod => Some(request.method.as_str().as_bytes().into()),
            Self::RequestScheme => Some(values.scheme.as_bytes().into()),
            Self::RequestHost => Some(request.host.as_bytes().into()).filter(|_| !request.host.is_empty()),
            Self::RequestPath => Some(request.path.as_bytes().into()),
            Self::RequestUri => Some(match request.query {
                Some(query) => [request.path, "?", query].concat().into_bytes().into(),
                None => request.path.as_bytes().into(),
            }),
            Self::Claim(name) => {
                let claim = values.who.claims.and_then(|claims| claim::find(claims, name));
                claim.and_then(claim::text).map(bytes)
            }
            Self::Consumer(field) => values.who.consumer.and_then(|consumer| field.of(&consumer)).map(bytes),
        }
    }
}

fn bytes(text: Cow<'_, str>) -> Cow<'_, [u8]> {
    match text {
        Cow::Borrowed(text) => text.as_bytes().into(),
        Cow::Owned(text) => text.into_bytes().into(),
    }
}
