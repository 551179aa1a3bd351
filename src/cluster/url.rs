//! Where Redis is: `redis://…`, `rediss://…` with TLS, `redis+unix:///…`.

use std::fmt;

use redis::io::tcp::TcpSettings;
use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo};

use crate::base::decode::{Decoder, Node, Shape, Value, quote};
use crate::base::secret::Secret;
use crate::base::veil;

/// Schemes that are understood; Valkey's are the same by another name.
const SCHEMES: &[&str] = &["redis", "rediss", "valkey", "valkeys", "redis+unix"];

/// Where Redis is, and who asks. Shown without its password.
#[derive(Clone)]
pub struct RedisUrl {
    text: Secret,
    info: ConnectionInfo,
}

impl RedisUrl {
    /// Reads `text`.
    ///
    /// # Errors
    /// What is wrong with it, as the end of a sentence that begins with it. Never says what stands in it: a typing error
    /// must not show the password.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (scheme, rest) =
            text.split_once("://").ok_or_else(|| "is not of the form redis://HOST:PORT".to_owned())?;
        if !SCHEMES.contains(&scheme) {
            return Err("begins with none of redis://, rediss:// and redis+unix://".to_owned());
        }
        // Above all `#insecure`, which would take the server's word for who it is.
        if rest.contains(['?', '#']) {
            return Err(
                "takes no parameters: only user, password, host, port and number of the database".to_owned()
            );
        }
        let info = text.into_connection_info().map_err(|_| "is not understood".to_owned())?;
        let is_usable = match info.addr() {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
                !host.is_empty() && *port != 0
            }
            ConnectionAddr::Unix(path) => path.is_absolute(),
            _ => false,
        };
        if !is_usable || info.redis_settings().db() < 0 {
            return Err("names no server that could be reached".to_owned());
        }
        // Calls are small, and each is waited for.
        let info = info.set_tcp_settings(TcpSettings::default().set_nodelay(true));
        Ok(Self { text: Secret::new(text.to_owned()), info })
    }

    /// The whole of it.
    pub(super) fn exposed(&self) -> &str {
        self.text.expose()
    }

    /// What a client is made from.
    pub(super) fn info(&self) -> ConnectionInfo {
        self.info.clone()
    }

    /// Whether the connection is encrypted.
    pub fn is_tls(&self) -> bool {
        matches!(self.info.addr(), ConnectionAddr::TcpTls { .. })
    }
}

impl PartialEq for RedisUrl {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for RedisUrl {}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&veil::url(self.text.expose()))
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A URL as written: read when it is compiled, where what is wrong with it can be said without showing it.
#[derive(Debug, Clone)]
pub struct RedisText(pub(super) Secret);

impl Value for RedisText {
    fn shape() -> Shape {
        Secret::shape()
    }

    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        Secret::decode_url(node, cx).map(Self)
    }

    fn render(&self) -> String {
        quote(&RedisUrl::parse(self.0.expose()).map_or_else(|_| "***".to_owned(), |url| url.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_not_shown() {
        for (url, shown) in [
            ("redis://127.0.0.1:6379", "redis://127.0.0.1:6379"),
            ("redis://:s3cret@cache:6380/2", "redis://:***@cache:6380/2"),
            ("rediss://me:s3%40cret@cache", "rediss://me:***@cache"),
            ("redis://s3cret@cache", "redis://***@cache"),
            ("valkey://me:a:b@[::1]:6379", "valkey://me:***@[::1]:6379"),
            ("redis+unix:///run/redis.sock", "redis+unix:///run/redis.sock"),
        ] {
            let parsed = RedisUrl::parse(url).unwrap_or_else(|why| panic!("{url} {why}"));
            assert_eq!(parsed.to_string(), shown);
            assert_eq!(format!("{parsed:?}"), shown);
        }
    }

    #[test]
    fn what_is_wrong_is_said_without_the_url() {
        for wrong in [
            "",
            "cache:6379",
            "http://s3cret@cache",
            "redis://",
            "redis://:s3cret@cache:0",
            "redis://:s3cret@cache/x",
            "redis://:s3cret@cache/-1",
            "redis://:s3cret@cache:99999",
            "rediss://:s3cret@cache/#insecure",
            "redis://:s3cret@cache/?protocol=resp3",
            "unix:///run/redis.sock",
        ] {
            let why = RedisUrl::parse(wrong).expect_err(wrong);
            assert!(!why.contains("s3cret"), "{why}");
        }
    }
}
