//! Where a broker is: `amqp://USER:PASSWORD@HOST:PORT/VHOST`, `amqps://…` with TLS.

use std::fmt;

use lapin::uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo};

use super::frames::PAYLOAD_BYTES_MAX;
use crate::base::authority;
use crate::base::decode::{Decoder, Node, Shape, Value, quote};
use crate::base::secret::Secret;
use crate::base::veil;
use crate::routing::escape::decode_segment;

/// Seconds between signs of life: a broker that shows none for about twice as long is gone.
const HEARTBEAT: u16 = 10;
/// What a name may have in AMQP.
const SHORT_BYTES_MAX: usize = 255;

/// Where a broker is, and who asks. Shown without its password.
#[derive(Clone, PartialEq, Eq)]
pub struct BrokerUrl {
    text: Secret,
    scheme: AMQPScheme,
    user: String,
    password: Secret,
    /// Without the brackets of an address.
    host: String,
    port: u16,
    vhost: String,
}

impl BrokerUrl {
    /// Reads `text`.
    ///
    /// # Errors
    /// What is wrong with it, as the end of a sentence that begins with it. Never says what stands in it: a typing error
    /// must not show the password.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (scheme, rest) =
            text.split_once("://").ok_or_else(|| "is not of the form amqp://HOST:PORT/VHOST".to_owned())?;
        let scheme = match scheme {
            "amqp" => AMQPScheme::AMQP,
            "amqps" => AMQPScheme::AMQPS,
            _ => return Err("begins with neither amqp:// nor amqps://".to_owned()),
        };
        // The library knows some that would undo bounds; and a `?` may belong to a password.
        if rest.contains(['?', '#']) {
            return Err("takes no parameters (a \"?\" of a password is written %3F)".to_owned());
        }
        let (authority, vhost) = match rest.split_once('/') {
            Some((authority, vhost)) => (authority, Some(vhost)),
            None => (rest, None),
        };
        let (who, place) = match authority.rsplit_once('@') {
            Some((who, place)) => (Some(who), place),
            None => (None, authority),
        };
        let (user, password) = match who.map(|who| who.split_once(':').unwrap_or((who, ""))) {
            Some((user, password)) => (decoded(user)?, decoded(password)?),
            None => ("guest".to_owned(), "guest".to_owned()),
        };
        let read = authority::read(place.as_bytes()).ok_or("names no server that could be reached")?;
        let host = std::str::from_utf8(read.host).map_err(|_| "names no server that could be reached")?;
        let host = host.trim_matches(['[', ']']).to_owned();
        let port = read.port.unwrap_or_else(|| scheme.default_port());
        let vhost = match vhost {
            None => "/".to_owned(),
            Some("") => {
                return Err(
                    "names the virtual host without a name: write `/%2f` for the default one".to_owned()
                );
            }
            // It may be the rest of a password.
            Some(vhost) if vhost.contains(['/', '@']) => {
                return Err("has a `/` in a name or a password: write it %2f".to_owned());
            }
            Some(vhost) => decoded(vhost)?,
        };
        if port == 0 || vhost.len() > SHORT_BYTES_MAX || user.is_empty() {
            return Err("names no server, user and virtual host that could be meant".to_owned());
        }
        let text = Secret::new(text.to_owned());
        Ok(Self { text, scheme, user, password: Secret::new(password), host, port, vhost })
    }

    /// The whole of it.
    pub(super) fn exposed(&self) -> &str {
        self.text.expose()
    }

    /// What the library is told.
    pub(super) fn uri(&self) -> AMQPUri {
        AMQPUri {
            scheme: self.scheme.clone(),
            authority: AMQPAuthority {
                userinfo: AMQPUserInfo {
                    username: self.user.clone(),
                    password: self.password.expose().to_owned(),
                },
                host: self.host.clone(),
                port: self.port,
            },
            vhost: self.vhost.clone(),
            query: AMQPQueryString {
                heartbeat: Some(HEARTBEAT),
                frame_max: Some(PAYLOAD_BYTES_MAX),
                ..AMQPQueryString::default()
            },
        }
    }

    /// Its host and port.
    pub(super) fn place(&self) -> (&str, u16) {
        (&self.host, self.port)
    }

    /// Whether the connection is encrypted.
    pub fn is_tls(&self) -> bool {
        self.scheme == AMQPScheme::AMQPS
    }
}

fn decoded(text: &str) -> Result<String, String> {
    String::from_utf8(decode_segment(text).into_owned())
        .ok()
        .filter(|text| !text.chars().any(char::is_control))
        .ok_or_else(|| "has something in it that is no text".to_owned())
}

impl fmt::Display for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&veil::url(self.text.expose()))
    }
}

impl fmt::Debug for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A URL as written: read when it is compiled, where what is wrong with it can be said without showing it.
#[derive(Debug, Clone)]
pub struct BrokerText(pub(super) Secret);

impl Value for BrokerText {
    fn shape() -> Shape {
        Secret::shape()
    }

    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        Secret::decode_url(node, cx).map(Self)
    }

    fn render(&self) -> String {
        quote(&BrokerUrl::parse(self.0.expose()).map_or_else(|_| "***".to_owned(), |url| url.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_url_says() {
        let parse = |text: &str| BrokerUrl::parse(text).unwrap_or_else(|why| panic!("{text} {why}")).uri();
        let uri = parse("amqp://me:s3%40cret@rabbit:5673/shop%2fa");
        assert_eq!((&*uri.authority.host, uri.authority.port, &*uri.vhost), ("rabbit", 5673, "shop/a"));
        assert_eq!(uri.authority.userinfo.username, "me");
        assert_eq!(uri.authority.userinfo.password, "s3@cret");
        for default in ["amqp://rabbit", "amqp://guest:guest@rabbit:5672/%2f"] {
            let uri = parse(default);
            assert_eq!((uri.authority.port, &*uri.vhost), (5672, "/"));
            assert_eq!(uri.authority.userinfo.password, "guest");
        }
        let uri = parse("amqps://[::1]/x");
        assert_eq!((uri.scheme, &*uri.authority.host, uri.authority.port), (AMQPScheme::AMQPS, "::1", 5671));
        assert_eq!(uri.query.heartbeat, Some(HEARTBEAT));
    }

    #[test]
    fn passwords_are_not_shown() {
        for (url, shown) in [
            ("amqp://127.0.0.1:5672", "amqp://127.0.0.1:5672"),
            ("amqp://me:s3cret@rabbit/%2f", "amqp://me:***@rabbit/%2f"),
            ("amqps://me:s3%2fcret@rabbit:5671/shop", "amqps://me:***@rabbit:5671/shop"),
            ("amqp://me:a:s3cret@[::1]:5672/shop", "amqp://me:***@[::1]:5672/shop"),
            ("amqp://me@rabbit/shop", "amqp://***@rabbit/shop"),
        ] {
            let parsed = BrokerUrl::parse(url).unwrap_or_else(|why| panic!("{url} {why}"));
            assert_eq!(parsed.to_string(), shown);
            assert_eq!(format!("{parsed:?}"), shown);
        }
    }

    #[test]
    fn what_is_wrong_is_said_without_the_url() {
        for wrong in [
            "",
            "rabbit:5672",
            "http://me:s3cret@rabbit",
            "amqp://",
            "amqp://me:s3cret@",
            "amqp://me:s3cret@rabbit:0",
            "amqp://me:s3cret@rabbit:99999",
            "amqp://me:s3cret@rabbit/",
            "amqp://me:s3cret@rabbit/a/b",
            "amqp://me:s3/cret@rabbit/x",
            "amqp://me:33/cret@rabbit",
            "amqp://me:s3cret%00@rabbit/x",
            "amqp://me:%ffs3cret@rabbit/x",
            "amqp://:s3cret@rabbit/x",
            "amqp://me:s3cret@rabbit/x?heartbeat=0",
            "amqp://me:s3cret@rabbit/x#y",
        ] {
            let why = BrokerUrl::parse(wrong).expect_err(wrong);
            assert!(!why.contains("cret"), "{why}");
        }
    }

    proptest::proptest! {
        /// Whatever stands there, what is wrong with it does not repeat it, and what is right is shown without it.
        #[test]
        fn a_password_is_never_told(password in "[a-zA-Z0-9!$&'()*+,;=:_.~%-]{8,40}", tail in "[a-z/:@?#%0-9]{0,12}") {
            match BrokerUrl::parse(&format!("amqp://me:{password}@rabbit{tail}")) {
                Ok(url) => proptest::prop_assert!(!url.to_string().contains(&password)),
                Err(why) => proptest::prop_assert!(!why.contains(&password)),
            }
        }
    }
}
