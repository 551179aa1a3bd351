//! JSON as it came: numbers keep their digits, objects the order of their keys.
//!
//! A tree of its own, since `serde_json::Value` turns what does not fit 64 bits into floats. What is read is bounded in
//! depth, has no key twice in one object (two readers would see two objects: RFC 8259 section 4), and is UTF-8.

mod parse;
mod write;

use indexmap::IndexMap;

pub use self::parse::{DEPTH_MAX, Fault, parse};
pub use self::write::push_string;

/// A JSON value.
#[derive(Debug, Clone, PartialEq)]
pub enum Json {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number, as it was written.
    Number(Box<str>),
    /// A string, decoded.
    String(Box<str>),
    /// An array.
    Array(Vec<Json>),
    /// An object, its members in the order they came.
    Object(Object),
}

/// The members of an object. Hashed with keys of this process: what a service sends cannot make them collide by design.
pub type Object = IndexMap<Box<str>, Json, foldhash::fast::RandomState>;

impl Json {
    /// An object without members.
    pub fn object() -> Self {
        Self::Object(Object::default())
    }

    /// A string.
    pub fn string(text: &str) -> Self {
        Self::String(text.into())
    }

    /// A whole number.
    pub fn integer(number: u64) -> Self {
        Self::Number(itoa::Buffer::new().format(number).into())
    }

    /// What it is where it lands as text: in a path, a query, a header. `None` for `null`, arrays and objects, which are
    /// no text.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Bool(true) => Some("true"),
            Self::Bool(false) => Some("false"),
            Self::Number(text) | Self::String(text) => Some(text),
            Self::Null | Self::Array(_) | Self::Object(_) => None,
        }
    }

    /// The member `key`, or the element whose number it is.
    pub fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Object(members) => members.get(key),
            Self::Array(elements) => elements.get(key.parse::<usize>().ok()?),
            _ => None,
        }
    }

    /// What stands at the end of `path`.
    pub fn at(&self, path: &[Box<str>]) -> Option<&Self> {
        path.iter().try_fold(self, |value, key| value.get(key))
    }

    /// Likewise, to be changed.
    pub fn at_mut(&mut self, path: &[Box<str>]) -> Option<&mut Self> {
        path.iter().try_fold(self, |value, key| match value {
            Self::Object(members) => members.get_mut(&**key),
            Self::Array(elements) => elements.get_mut(key.parse::<usize>().ok()?),
            _ => None,
        })
    }

    /// As text.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(TEXT_BYTES_COMMON);
        self.write(&mut out);
        out
    }
}

/// What a text commonly takes.
const TEXT_BYTES_COMMON: usize = 2 * 1024;

impl From<&serde_json::Value> for Json {
    fn from(value: &serde_json::Value) -> Self {
        match value {
            serde_json::Value::Null => Self::Null,
            serde_json::Value::Bool(value) => Self::Bool(*value),
            serde_json::Value::Number(number) => Self::Number(number.to_string().into()),
            serde_json::Value::String(text) => Self::string(text),
            serde_json::Value::Array(elements) => Self::Array(elements.iter().map(Self::from).collect()),
            serde_json::Value::Object(members) => Self::Object(
                members.iter().map(|(key, value)| (key.as_str().into(), Self::from(value))).collect(),
            ),
        }
    }
}

#[cfg(test)]
mod tests;
