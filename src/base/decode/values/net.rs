//! Addresses, HTTP words, regular expressions.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderName, HeaderValue, Method, StatusCode};
use ipnet::IpNet;
use regex::Regex;

use super::super::{Decoder, Kind, Node, Shape, Value, quote};
use super::text_value;

impl Value for IpAddr {
    fn shape() -> Shape {
        Shape::Text { pattern: None, examples: &["10.0.0.1", "::1"] }
    }

    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        text_value(node, cx, "an IP address such as \"10.0.0.1\"", |text| {
            text.parse().map_err(|_| "is not an IP address")
        })
    }

    fn render(&self) -> String {
        quote(&self.to_string())
    }
}

impl Value for SocketAddr {
    fn shape() -> Shape {
        Shape::Text { pattern: None, examples: &["127.0.0.1:8080", "[::1]:8080"] }
    }

    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        let expected = "an address with a port such as \"127.0.0.1:8080\"";
        text_value(node, cx, expected, |text| text.parse().map_err(|_| format!("is not {expected}")))
    }

    fn render(&self) -> String {
        quote(&self.to_string())
    }
}

/// A network; a bare address is the network of that one address. Bits after the prefix must be zero.
impl Value for IpNet {
    fn shape() -> Shape {
        Shape::Text { pattern: None, examples: &["10.0.0.0/8", "2001:db8::/32", "192.0.2.7"] }
    }

    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        let expected = "a network such as \"10.0.0.0/8\"";
        let Some(text) = node.as_str() else { return cx.expected(node, expected) };
        if let Ok(address) = text.parse::<IpAddr>() {
            return Some(Self::from(address));
        }
        match text.parse::<Self>() {
            Err(_) => cx.invalid(node, format!("is not {expected}")),
            Ok(network) if network.addr() != network.network() => {
                let problem = cx.error(
                    "invalid-value",
                    &node.origin,
                    format!("{} has bits set after its prefix", quote(text)),
                );
                problem.hint(format!(
                    "the network is \"{}\", the address alone \"{}\"",
                    network.trunc(),
                    network.addr()
                ));
                None
            }
            Ok(network) => Some(network),
        }
    }

    fn render(&self) -> String {
        quote(&self.to_string())
    }
}

impl Value for Method {
    fn shape() -> Shape {
        Shape::Text { pattern: Some("^[A-Z][A-Z0-9_-]*$"), examples: &["GET", "POST"] }
    }

    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        let Some(text) = node.as_str() else { return cx.expected(node, "a method such as \"GET\"") };
        let upper = text.to_ascii_uppercase();
        match Self::from_bytes(text.as_bytes()) {
            // Methods are case-sensitive: `get` is a method that no client ever sends.
            Ok(method) if upper == text => Some(method),
            Ok(_) => {
                let problem =
                    cx.error("invalid-value", &node.origin, format!("{} is no method", quote(text)));
                problem.hint(format!("did you mean \"{upper}\"?"));
                None
            }
            Err(_) => cx.invalid(node, "is no method"),
        }
    }

    fn render(&self) -> String {
        quote(self.as_str())
    }
}

impl Value for HeaderName {
    fn shape() -> Shape {
        Shape::Text { pattern: Some("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$"), examples: &["X-Request-Id"] }
    }

    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        text_value(node, cx, "a header name", |text| text.parse().map_err(|_| "is not a header name"))
    }

    fn render(&self) -> String {
        quote(self.as_str())
    }
}

impl Value for HeaderValue {
    fn shape() -> Shape {
        Shape::Text { pattern: Some("^[^\\u0000-\\u0008\\u000A-\\u001F\\u007F]*$"), examples: &[] }
    }

    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        text_value(node, cx, "a header value", |text| {
            Self::from_bytes(text.as_bytes()).map_err(|_| "holds a character no header value can")
        })
    }

    fn render(&self) -> String {
        quote(&String::from_utf8_lossy(self.as_bytes()))
    }
}

impl Value for StatusCode {
    fn shape() -> Shape {
        Shape::Integer { min: 200, max: 599 }
    }

    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        let number = match &node.kind {
            Kind::Integer(number) => Some(*number),
            Kind::String { text, substituted: true } => text.trim().parse().ok(),
            Kind::String { text, .. } => {
                let hint = text.parse::<u16>().ok().map(|status| format!("write {status} without quotes"));
                return cx.expected_or(node, "a status such as 200", hint);
            }
            _ => return cx.expected(node, "a status such as 200"),
        };
        let number =
            number.and_then(|number| u16::try_from(number).ok()).filter(|number| (200..600).contains(number));
        match number.and_then(|number| Self::from_u16(number).ok()) {
            Some(status) => Some(status),
            None => cx.invalid(node, "is no final status: they go from 200 to 599"),
        }
    }

    fn render(&self) -> String {
        self.as_u16().to_string()
    }
}

/// Largest compiled size of one regular expression, in bytes.
const REGEX_BYTES_MAX: usize = 1 << 20;

impl Value for Regex {
    fn shape() -> Shape {
        Shape::Text { pattern: None, examples: &["^/a/[0-9]+$"] }
    }

    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        let Some(text) = node.as_str() else { return cx.expected(node, "a regular expression") };
        match regex::RegexBuilder::new(text).size_limit(REGEX_BYTES_MAX).build() {
            Ok(regex) => Some(regex),
            Err(error) => cx.invalid(node, format!("is not a regular expression: {}", regex_reason(&error))),
        }
    }

    fn render(&self) -> String {
        quote(self.as_str())
    }
}

/// The one line of a regex error that says what is wrong.
fn regex_reason(error: &regex::Error) -> String {
    match error {
        regex::Error::Syntax(text) => {
            let line = text.lines().rev().find_map(|line| line.trim().strip_prefix("error: "));
            line.unwrap_or("syntax error").to_owned()
        }
        regex::Error::CompiledTooBig(_) => "it is too large".to_owned(),
        _ => "it cannot be compiled".to_owned(),
    }
}
