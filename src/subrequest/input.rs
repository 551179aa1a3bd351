//! What a leg is asked with: templates over the request, its body, and other legs' answers. Pure.
//!
//! A value is encoded for where it lands. What has no text form (`null`, an array, an object) is as good as missing in a
//! path, a query or a header.

use std::sync::OnceLock;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method};

use super::json::{Json, Object};
use super::outcome::Failure;
use super::read::Path;
use super::run::{Settled, State};
use crate::routing::escape::{decode_query, decode_segment, push_query, query_pairs};
use crate::routing::template::{Lookup, Template, Values};

/// Longest path and query of a leg: what servers commonly take.
const TARGET_BYTES_MAX: usize = 8 * 1024;
/// Most bytes of the headers of a leg that are put together for it.
const HEADER_BYTES_MAX: usize = 32 * 1024;

/// A leg's request, with what is not known yet.
#[derive(Debug)]
pub struct RequestTemplate {
    /// The method.
    pub method: Method,
    /// The path; `None` where the service has none.
    pub path: Option<Template>,
    /// Parameters, their names encoded.
    pub query: Box<[(Box<str>, Template)]>,
    /// Headers.
    pub headers: Box<[(HeaderName, Template)]>,
    /// Headers of the client's that go along.
    pub forward: Box<[HeaderName]>,
    /// The body.
    pub body: BodyTemplate,
    /// What the templates refer to by number.
    pub references: Box<[Reference]>,
}

/// What a template refers to beside the request's head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// In what.
    pub root: Root,
    /// Where in it.
    pub path: Path,
}

/// In what a reference looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Root {
    /// A leg's answer.
    Leg(usize),
    /// The client's body.
    Body,
    /// The element of `for_each`.
    Item,
}

/// The body of a leg.
#[derive(Debug)]
pub enum BodyTemplate {
    /// None.
    None,
    /// The client's, as it came.
    Client,
    /// JSON.
    Json(Piece),
    /// The parameters of path and query: see [`parameters`]. With the names of the path's.
    Parameters(Box<[Box<str>]>),
}

/// A part of a body.
#[derive(Debug)]
pub enum Piece {
    /// The same for all.
    Fixed(Json),
    /// A reference alone, which keeps its type.
    Alone(usize),
    /// A text.
    Text(Template),
    /// An array.
    Array(Vec<Piece>),
    /// An object.
    Object(Vec<(Box<str>, Piece)>),
}

/// What templates read.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// The request's head.
    pub values: &'a Values<'a>,
    /// Its body, where it is read as JSON.
    pub body: Option<&'a ClientBody>,
    /// The parameter of the query that held a key of the client's, which services do not get unless a template says so.
    pub hidden_parameter: Option<&'a str>,
}

/// A client's body.
#[derive(Debug)]
pub struct ClientBody {
    /// As it came.
    pub bytes: Bytes,
    /// What it says.
    pub json: Json,
}

/// A leg's request, complete but for what every one has. Equal ones ask the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Made {
    /// The method.
    pub method: Method,
    /// Path and query, ASCII; empty where the service has none.
    pub target: String,
    /// Headers that are its own.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The body.
    pub body: Option<Bytes>,
}

impl Made {
    /// Bytes of path, headers and body.
    pub(super) fn bytes(&self) -> usize {
        let headers = self.headers.iter().map(|(name, value)| name.as_str().len() + value.len());
        self.target.len() + headers.sum::<usize>() + self.body.as_ref().map_or(0, Bytes::len)
    }
}

/// Why a leg cannot be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unmade {
    /// Something that its path or body needs is missing, or makes no path.
    Missing {
        /// Whether the client should have sent it; otherwise another leg's answer should have it.
        of_client: bool,
    },
    /// It would be too large.
    TooLarge,
}

/// What references are looked up in.
#[derive(Clone, Copy)]
pub(super) struct Sight<'a> {
    pub(super) inputs: Inputs<'a>,
    pub(super) settled: &'a [OnceLock<Settled>],
    pub(super) item: Option<&'a Json>,
    /// Most bytes of a body.
    pub(super) body_bytes: usize,
}

impl<'a> Sight<'a> {
    fn find(&self, reference: &Reference) -> Option<&'a Json> {
        let root = match reference.root {
            Root::Leg(leg) => self.settled.get(leg)?.get()?.value.as_ref()?,
            Root::Body => &self.inputs.body?.json,
            Root::Item => self.item?,
        };
        root.at(&reference.path)
    }

    fn text(&self, reference: &Reference) -> Option<Vec<u8>> {
        Some(self.find(reference)?.as_text()?.as_bytes().to_vec())
    }

    /// Whether it is the client who has to send what `reference` names. A leg that was not asked for want of something of
    /// the client's counts as that.
    fn is_of_client(&self, reference: &Reference) -> bool {
        match reference.root {
            Root::Body => true,
            Root::Item => false,
            Root::Leg(leg) => self.settled.get(leg).and_then(OnceLock::get).is_some_and(|settled| {
                settled.value.is_none()
                    && settled.state == State::Skipped(Failure::InputMissing { of_client: true })
            }),
        }
    }
}

impl RequestTemplate {
    pub(super) fn make(&self, sight: &Sight<'_>) -> Result<Made, Unmade> {
        let others = |number: usize| sight.text(self.references.get(number)?);
        let values = sight.inputs.values;
        let path =
            |with: Lookup<'_>| self.path.as_ref().map(|path| path.expand_path_with(values, with)).transpose();
        let made = path(&others).map_err(|_| self.missing(sight, |with| path(with).is_ok()))?;
        let mut target = made.unwrap_or_default();
        let mut separator = '?';
        for (name, value) in &self.query {
            let Some(value) = value.expand_value_with(values, &others) else { continue };
            target.push(separator);
            separator = '&';
            target.push_str(name);
            target.push('=');
            push_query(&mut target, &value);
            if target.len() > TARGET_BYTES_MAX {
                break;
            }
        }
        if target.len() > TARGET_BYTES_MAX {
            return Err(Unmade::TooLarge);
        }
        Ok(Made {
            method: self.method.clone(),
            target,
            headers: self.headers(sight, &others)?,
            body: self.body(sight, &others)?,
        })
    }

    /// Why nothing was made with what there is: for want of something of the client's, if nothing is `made` with anything
    /// in the place of what other legs should have, either.
    fn missing(&self, sight: &Sight<'_>, made: impl Fn(Lookup<'_>) -> bool) -> Unmade {
        let with_anything = |number: usize| {
            let reference = self.references.get(number)?;
            if sight.is_of_client(reference) { sight.text(reference) } else { Some(b"x".to_vec()) }
        };
        Unmade::Missing { of_client: !made(&with_anything) }
    }

    fn headers(
        &self,
        sight: &Sight<'_>,
        others: Lookup<'_>,
    ) -> Result<Vec<(HeaderName, HeaderValue)>, Unmade> {
        let values = sight.inputs.values;
        let mut headers = Vec::with_capacity(self.headers.len() + self.forward.len());
        for name in &self.forward {
            let lines = values.request.headers.get_all(name);
            headers.extend(lines.iter().map(|value| (name.clone(), value.clone())));
        }
        for (name, template) in &self.headers {
            let value = template.expand_value_with(values, others);
            // What a header cannot hold is no value for one.
            let Some(value) = value.and_then(|value| HeaderValue::from_bytes(&value).ok()) else { continue };
            headers.retain(|(other, _)| other != name);
            headers.push((name.clone(), value));
        }
        let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        if bytes > HEADER_BYTES_MAX { Err(Unmade::TooLarge) } else { Ok(headers) }
    }

    fn body(&self, sight: &Sight<'_>, others: Lookup<'_>) -> Result<Option<Bytes>, Unmade> {
        match &self.body {
            BodyTemplate::None => Ok(None),
            BodyTemplate::Client => Ok(Some(
                sight
                    .inputs
                    .body
                    .map(|body| body.bytes.clone())
                    .ok_or(Unmade::Missing { of_client: true })?,
            )),
            BodyTemplate::Parameters(names) => {
                let inputs = sight.inputs;
                let told = parameters(inputs.values, names, inputs.hidden_parameter);
                Ok(Some(told.ok_or(Unmade::Missing { of_client: true })?.into()))
            }
            BodyTemplate::Json(piece) => {
                let mut out = Vec::new();
                self.piece(piece, sight, others, &mut out)?;
                Ok(Some(out.into()))
            }
        }
    }

    fn piece(
        &self,
        piece: &Piece,
        sight: &Sight<'_>,
        others: Lookup<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), Unmade> {
        match piece {
            Piece::Fixed(value) => value.write(out),
            Piece::Alone(number) => {
                let reference = self.references.get(*number);
                let found = reference.and_then(|reference| sight.find(reference));
                let of_client = || reference.is_some_and(|reference| sight.is_of_client(reference));
                found.ok_or_else(|| Unmade::Missing { of_client: of_client() })?.write(out);
            }
            Piece::Text(template) => {
                // What is no text cannot be said in JSON.
                let text = |with: Lookup<'_>| {
                    String::from_utf8(template.expand_value_with(sight.inputs.values, with)?).ok()
                };
                let made = text(others).ok_or_else(|| self.missing(sight, |with| text(with).is_some()))?;
                super::json::push_string(out, &made);
            }
            Piece::Array(elements) => {
                out.push(b'[');
                for (index, element) in elements.iter().enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    self.piece(element, sight, others, out)?;
                }
                out.push(b']');
            }
            Piece::Object(members) => {
                out.push(b'{');
                for (index, (key, member)) in members.iter().enumerate() {
                    if index > 0 {
                        out.push(b',');
                    }
                    super::json::push_string(out, key);
                    out.push(b':');
                    self.piece(member, sight, others, out)?;
                }
                out.push(b'}');
            }
        }
        if out.len() > sight.body_bytes { Err(Unmade::TooLarge) } else { Ok(()) }
    }
}

/// What path and query of a request say, as JSON: `{"path":{"id":"7"},"query":{"lang":"de","tag":["a","b"]}}`. A parameter of
/// the query that comes twice is an array; `hidden` is left out. `names` are those of the path's captures, in their order.
/// `None` where a value is no text.
pub fn parameters(values: &Values<'_>, names: &[Box<str>], hidden: Option<&str>) -> Option<Vec<u8>> {
    let text = |bytes: &[u8]| Some(Json::string(std::str::from_utf8(bytes).ok()?));
    let (mut path, mut query) = (Object::default(), Object::default());
    for (index, name) in names.iter().enumerate() {
        // A group of a regex may have taken no part.
        let Some(value) = values.captures.get(values.request.path, index) else { continue };
        path.insert(name.clone(), text(&decode_segment(value))?);
    }
    for (name, value) in query_pairs(values.request.query.unwrap_or_default()) {
        let name = decode_query(name);
        let name = std::str::from_utf8(&name).ok()?;
        if Some(name) == hidden {
            continue;
        }
        let value = text(&decode_query(value))?;
        match query.get_mut(name) {
            None => drop(query.insert(name.into(), value)),
            Some(Json::Array(all)) => all.push(value),
            Some(first) => {
                let before = std::mem::replace(first, Json::Null);
                *first = Json::Array(vec![before, value]);
            }
        }
    }
    let mut all = Object::default();
    all.insert("path".into(), Json::Object(path));
    all.insert("query".into(), Json::Object(query));
    Some(Json::Object(all).to_vec())
}
