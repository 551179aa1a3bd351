//! The types that configuration values have.

mod collections;
mod net;
mod networks;
mod scalars;
mod secret;
mod units;

use std::fmt::Display;

pub use collections::MapKey;
pub use networks::NetworkList;
pub use scalars::{ConfigPath, ServedDirectory};
pub use units::{ByteRate, Percentage, Rate, Size};

use super::{Decoder, Node};

/// Decodes a string of a certain form.
///
/// `expected` completes "expected …" when it is no string at all; the error of `parse` completes "`text` …".
pub fn text_value<T, E: Display>(
    node: &Node,
    cx: &mut Decoder<'_>,
    expected: &str,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Option<T> {
    let Some(text) = node.as_str() else { return cx.expected(node, expected) };
    match parse(text) {
        Ok(value) => Some(value),
        Err(why) => cx.invalid(node, why),
    }
}
