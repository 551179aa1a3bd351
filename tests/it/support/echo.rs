//! The echo: what a server received, as the client reads it.

use serde_json::{Value, json};

use super::answer::Fixed;
use super::upstream::Seen;

/// What arrived at a server, read back by the client.
#[derive(Debug, Clone)]
pub struct Echoed(Value);

pub(super) fn echo(seen: &Seen) -> Fixed {
    let headers: Vec<Value> = seen
        .headers
        .iter()
        .map(|(name, value)| json!([name.as_str(), String::from_utf8_lossy(value.as_bytes())]))
        .collect();
    let body = json!({
        "server": seen.server,
        "method": seen.method.as_str(),
        "target": seen.uri.path_and_query().map_or("", |target| target.as_str()),
        "authority": seen.uri.authority().map(http::uri::Authority::as_str),
        "version": format!("{:?}", seen.version),
        "headers": headers,
        "body": String::from_utf8_lossy(&seen.body),
        "body_len": seen.body_len,
        "peer": seen.peer.to_string(),
    });
    Fixed::new(200, body.to_string().into()).with("content-type", "application/json")
}

impl Echoed {
    pub(super) fn new(value: Value) -> Self {
        assert!(value["method"].is_string(), "not an echo: {value}");
        Self(value)
    }

    /// Which server answered.
    pub fn server(&self) -> &str {
        self.0["server"].as_str().unwrap()
    }

    pub fn method(&self) -> &str {
        self.0["method"].as_str().unwrap()
    }

    /// Path and query as they arrived.
    pub fn target(&self) -> &str {
        self.0["target"].as_str().unwrap()
    }

    pub fn version(&self) -> &str {
        self.0["version"].as_str().unwrap()
    }

    pub fn body(&self) -> &str {
        self.0["body"].as_str().unwrap()
    }

    pub fn body_len(&self) -> u64 {
        self.0["body_len"].as_u64().unwrap()
    }

    /// All values of a header, in order.
    pub fn headers(&self, name: &str) -> Vec<String> {
        let all = self.0["headers"].as_array().unwrap().iter();
        all.filter(|pair| pair[0].as_str().unwrap().eq_ignore_ascii_case(name))
            .map(|pair| pair[1].as_str().unwrap().to_owned())
            .collect()
    }

    /// The header's only value; panics when there are several.
    pub fn header(&self, name: &str) -> Option<String> {
        let mut values = self.headers(name);
        assert!(values.len() <= 1, "{name} arrived more than once: {values:?}");
        values.pop()
    }

    /// The Host: header or authority.
    pub fn host(&self) -> String {
        self.0["authority"].as_str().map(str::to_owned).or_else(|| self.header("host")).expect("a host")
    }
}
