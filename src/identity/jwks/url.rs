//! Where a key set is published.

use std::fmt;

use http::Uri;

use crate::base::decode::{Decoder, Node, Shape, Value, quote, text_value};

/// The URL of a key set: `https`, or `http` to this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwksUrl(Uri);

impl JwksUrl {
    /// Reads `text`.
    ///
    /// # Errors
    /// Completes "`text` …".
    pub fn parse(text: &str) -> Result<Self, String> {
        let uri: Uri = text.parse().map_err(|_| "is not a URL".to_owned())?;
        let host = uri.host().filter(|host| !host.is_empty()).ok_or("names no host")?;
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err("names a user: key sets are public".to_owned());
        }
        match uri.scheme_str() {
            Some("https") => Ok(Self(uri)),
            Some("http") if is_loopback(host) => Ok(Self(uri)),
            Some("http") => {
                Err("is not https: whoever stands between could bring keys of their own".to_owned())
            }
            _ => Err("is not an https URL".to_owned()),
        }
    }

    /// As `hyper` wants it.
    pub fn uri(&self) -> &Uri {
        &self.0
    }

    /// For logs: without its query, which may hold an API key.
    pub fn shown(&self) -> String {
        let authority = self.0.authority().map(http::uri::Authority::as_str).unwrap_or_default();
        format!("{}://{authority}{}", self.0.scheme_str().unwrap_or_default(), self.0.path())
    }
}

impl fmt::Display for JwksUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Whether `host` of a URL is this machine, whatever names mean here.
fn is_loopback(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host.eq_ignore_ascii_case("localhost") || bare.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
}

impl Value for JwksUrl {
    fn shape() -> Shape {
        Shape::Text {
            pattern: Some("^https?://"),
            examples: &["https://idp.example.com/.well-known/jwks.json"],
        }
    }

    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        text_value(node, cx, "an https URL", Self::parse)
    }

    fn render(&self) -> String {
        quote(&self.0.to_string())
    }
}
