//! From TOML text to typed values: every problem reported with its place, nothing accepted and ignored.
//!
//! # Declaring a table
//!
//! A feature declares its table once, in its own `config.rs`; struct, decoding, defaults, JSON Schema and the check of the
//! reference file all come from that:
//!
//! ```
//! use std::time::Duration;
//! use edgeward::base::decode::Secret;
//! use edgeward::{enum_value, keys};
//!
//! enum_value! {
//!     /// Who gets the next request.
//!     pub enum Balance {
//!         /// In turn.
//!         RoundRobin = "round_robin",
//!         /// By chance.
//!         Random = "random",
//!     }
//! }
//!
//! keys! {
//!     /// Active checks of every server.
//!     pub struct HealthCheckRaw {
//!         /// Path asked; absent = TCP connect.
//!         path: optional String,                          // Option<At<String>>
//!         /// How often each server is asked.
//!         interval: Duration = Duration::from_secs(5),    // At<Duration>
//!         /// What it is called.
//!         name: required String,                          // At<String>
//!         /// How servers are chosen.
//!         balance: Balance = Balance::RoundRobin,
//!         /// Never shown.                                // `secret` and `upgrade` stand before the presence or type
//!         token: secret optional Secret,
//!         /// Changing it needs an upgrade, a reload refuses it.
//!         threads: upgrade u16 = 0,
//!     }
//! }
//! ```
//!
//! A struct without `required` keys also gets `Default` (all keys absent), so a table inside a table is
//! `limits: LimitsRaw = LimitsRaw::default()`. Lists of tables are `Vec<At<XRaw>>`, named tables
//! `IndexMap<String, At<XRaw>>`. Fields are [`At`](crate::base::origin::At): the value derefs, `.origin` says where it was
//! written ([`Origin::Default`](crate::base::origin::Origin) when it was not). A Rust keyword is written `r#type`.
//!
//! # From raw to compiled
//!
//! `impl XRaw { pub fn compile(&self, path: &str, …, out: &mut Diagnostics) -> Option<X> }` checks what one value alone
//! cannot say: `out.error("code", &self.name.origin, format!("{path}.name"), "message").hint("what to do")`. Go on after an
//! error; `None` only where there is nothing to go on with. The same problem at the same place is kept once.
//!
//! # Values of several forms
//!
//! `"round_robin" | { hash = "ip" }` is an enum with a hand-written [`Value`]:
//!
//! ```
//! use edgeward::base::decode::{Decoder, Kind, Node, Shape, Value, quote};
//! # use edgeward::keys;
//! # keys! { /// One server.
//! # pub struct ServerTable { /// Host and port.
//! #   address: required String } }
//! #[derive(Debug, Clone)]
//! pub enum ServerRaw { Address(String), Table(ServerTable) }
//!
//! impl Value for ServerRaw {
//!     fn shape() -> Shape { Shape::OneOf(vec![String::shape(), ServerTable::shape()]) }
//!     fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
//!         match &node.kind {
//!             Kind::String { .. } => String::decode(node, cx).map(Self::Address),
//!             Kind::Table(_) => ServerTable::decode(node, cx).map(Self::Table),
//!             _ => cx.expected(node, "an address such as \"10.0.0.1:80\" or a table"),
//!         }
//!     }
//!     fn render(&self) -> String {
//!         match self { Self::Address(address) => quote(address), Self::Table(table) => table.render() }
//!     }
//! }
//! ```
//!
//! A text of a certain form: [`text_value`] does type check, message and substitution in one call. Other helpers:
//! [`Decoder::expected`], [`Decoder::invalid`], [`Decoder::none_of`] (all report and return `None`), [`Decoder::resolve`]
//! for paths. Any TOML value at all: `serde_json::Value` (as `json = {…}`), or [`Node`].
//!
//! # In tests
//!
//! [`decode_str`] decodes a text without files or environment.

mod decoder;
mod foreign;
mod path;
mod pending;
mod shape;
mod substitute;
mod syntax;
mod table;
pub mod tree;
mod values;

#[cfg(test)]
mod tests;

pub use decoder::{Decoder, Surroundings};
pub use path::{push_index, push_key};
pub use shape::{Key, Keys, Presence, Shape, TablePlace, TableShape, doc_text, tables};
pub use substitute::substitute;
pub use table::{TableReader, check, check_partial, decode_at, render_table};
pub use tree::{Entry, FILE_BYTES_MAX, Kind, NESTING_MAX, Node, Table, parse};
pub use values::{
    ByteRate, ConfigPath, MapKey, NetworkList, Percentage, Rate, ServedDirectory, Size, text_value,
};

pub use crate::base::secret::Secret;
pub use crate::{enum_value, keys};

use crate::base::diagnostic::Diagnostics;
use crate::base::origin::{Origin, Sources};

/// A type that can be written in a configuration file.
pub trait Value: Sized {
    /// What it looks like in a file.
    fn shape() -> Shape;

    /// Reads it from `node`. `None` means that it cannot be read and that `cx` has been told why.
    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self>;

    /// Writes it as TOML text that decodes to the same value: defaults in the schema and the reference are made by it.
    fn render(&self) -> String;

    /// Lists the effective settings in it, `key` before each: one by default, those of its keys for a table.
    fn settings(&self, key: &str, origin: &Origin, out: &mut Vec<Setting>) {
        out.push(Setting {
            key: key.to_owned(),
            value: self.render(),
            origin: origin.clone(),
            needs_upgrade: false,
        });
    }
}

/// One effective setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The key, such as `ip.allow`.
    pub key: String,
    /// The value as TOML; secrets as `"***"`.
    pub value: String,
    /// Where it was written.
    pub origin: Origin,
    /// Whether a reload cannot change it.
    pub needs_upgrade: bool,
}

/// The path of a key of the table at `path`, which may be empty.
pub fn join_key(path: &str, key: &str) -> String {
    let mut joined = path.to_owned();
    push_key(&mut joined, key);
    joined
}

/// Decodes a whole TOML text without files or environment: for tests and tools.
pub fn decode_str<T: Value>(text: &str) -> (Option<T>, Diagnostics) {
    let mut out = Diagnostics::default();
    let mut sources = Sources::default();
    let file = sources.add("config.toml".into(), text.to_owned());
    let mut node = parse(file, text, &mut out);
    let surroundings =
        Surroundings { env: &|_| None, read: &|_| Err(std::io::Error::from(std::io::ErrorKind::NotFound)) };
    substitute(&mut node, surroundings.env, &mut out);
    let value = T::decode(&node, &mut Decoder::new(&sources, surroundings, &[], &mut out));
    (value, out)
}

/// `text` as a TOML basic string, quoted and escaped.
pub fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// `one of "a", "b"`: for type errors of [`enum_value!`](crate::enum_value).
pub fn one_of_words(words: &[&str]) -> String {
    format!("one of {}", words.iter().map(|word| quote(word)).collect::<Vec<_>>().join(", "))
}

/// The key of a field: its name without `r#`.
#[doc(hidden)]
pub const fn key_name(field: &'static str) -> &'static str {
    match field.as_bytes() {
        [b'r', b'#', ..] => field.split_at(2).1,
        _ => field,
    }
}
