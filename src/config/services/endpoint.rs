//! What the URL of an endpoint says.

use crate::upstream::address::{Target, TargetError};

/// Where an endpoint is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// A server by its address.
    Server {
        /// Whether it is spoken to over TLS.
        tls: bool,
        /// `host:port`.
        authority: String,
        /// What it is asked for.
        ask: Ask,
    },
    /// An upstream of the configuration.
    Upstream {
        /// Its name.
        name: String,
        /// What it is asked for.
        ask: Ask,
    },
    /// A queue of a broker of the configuration.
    Queue {
        /// The broker's name.
        broker: String,
        /// The queue's.
        queue: String,
    },
}

/// Path and query of a URL, templates in both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ask {
    pub(super) path: String,
    pub(super) query: Vec<(String, String)>,
}

/// Why a text is no URL of an endpoint, and what to write instead.
pub(super) type Refusal = (String, Option<&'static str>);

/// Reads the URL of an endpoint that is asked over HTTP.
pub(super) fn http(url: &str) -> Result<Place, Refusal> {
    let Some((scheme, rest)) = url.split_once("://") else {
        return Err((
            "this is not a URL".to_owned(),
            Some("write http://host:port/path, or upstream://NAME/path"),
        ));
    };
    let (authority, ask) = match rest.find(['/', '?', '#']) {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    if authority.contains('@') {
        let hint = "a server that asks for credentials is an upstream or a header of the configuration";
        return Err(("credentials cannot stand in the URL of a service".to_owned(), Some(hint)));
    }
    if ask.contains('#') {
        return Err((
            "a fragment means nothing to a server".to_owned(),
            Some("leave out the part from # on"),
        ));
    }
    let ask = read_ask(ask)?;
    let tls = match scheme.to_ascii_lowercase().as_str() {
        "http" => false,
        "https" => true,
        "upstream" => {
            if authority.is_empty() {
                return Err(("the URL names no upstream".to_owned(), Some("write upstream://NAME/path")));
            }
            return Ok(Place::Upstream { name: authority.to_owned(), ask });
        }
        _ => {
            let hint = "write http://, https:// or upstream://";
            return Err((format!("the scheme {scheme:?} is not one that is spoken here"), Some(hint)));
        }
    };
    if authority.is_empty() {
        return Err(("the URL names no server".to_owned(), Some("write http://host:port/path")));
    }
    let port = if tls { 443 } else { 80 };
    match Target::parse(authority, port) {
        Ok(Target::Address(address)) => Ok(Place::Server { tls, authority: address.to_string(), ask }),
        Ok(target @ Target::Name { .. }) => Ok(Place::Server { tls, authority: target.to_string(), ask }),
        Err(error @ (TargetError::Host | TargetError::Port)) => {
            Err((format!("the server of the URL {error}"), None))
        }
        Err(_) => Err(("the URL names no server".to_owned(), Some("write http://host:port/path"))),
    }
}

/// Reads the URL of an endpoint that is a queue.
pub(super) fn queue(url: &str) -> Result<Place, Refusal> {
    const HINT: &str = "write BROKER/QUEUE: the broker's address and credentials stand in [brokers.BROKER] of the configuration";
    if url.contains("://") {
        return Err(("the place of a queue is not a URL".to_owned(), Some(HINT)));
    }
    match url.split_once('/') {
        Some((broker, queue)) if !broker.is_empty() && !queue.is_empty() => {
            Ok(Place::Queue { broker: broker.to_owned(), queue: queue.to_owned() })
        }
        _ => Err(("this names no queue".to_owned(), Some(HINT))),
    }
}

fn read_ask(text: &str) -> Result<Ask, Refusal> {
    let (path, query) = match text.split_once('?') {
        Some((path, query)) => (path, query),
        None => (text, ""),
    };
    let path = if path.is_empty() { "/" } else { path };
    let mut pairs: Vec<(String, String)> = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (name, value) = (decoded(name)?, decoded(value)?);
        if pairs.iter().any(|(known, _)| *known == name) {
            return Err((format!("the parameter {name:?} stands twice in the query"), None));
        }
        pairs.push((name, value));
    }
    Ok(Ask { path: path.to_owned(), query: pairs })
}

/// A part of a query without its percent-encoding.
fn decoded(text: &str) -> Result<String, Refusal> {
    let refusal = || (format!("{text:?} in the query is not percent-encoded UTF-8"), None);
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
                let (high, low) = (digit(rest.next()), digit(rest.next()));
                let (Some(high), Some(low)) = (high, low) else { return Err(refusal()) };
                u8::try_from(high * 16 + low).map_err(|_| refusal())?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).map_err(|_| refusal())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn urls_name_servers_and_upstreams() {
        let ask = |path: &str, query: &[(&str, &str)]| Ask {
            path: path.to_owned(),
            query: query.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        };
        let server =
            |tls, authority: &str, ask| Ok(Place::Server { tls, authority: authority.to_owned(), ask });
        assert_eq!(http("http://users:3001/api/users"), server(false, "users:3001", ask("/api/users", &[])));
        assert_eq!(http("https://users"), server(true, "users:443", ask("/", &[])));
        assert_eq!(
            http("HTTP://[::1]:80?a=b+c&d=%C3%A4"),
            server(false, "[::1]:80", ask("/", &[("a", "b c"), ("d", "ä")]))
        );
        assert_eq!(
            http("upstream://users/x/{path.id}"),
            Ok(Place::Upstream { name: "users".to_owned(), ask: ask("/x/{path.id}", &[]) })
        );
        for (url, why) in [
            ("users:3001/x", "not a URL"),
            ("http:///x", "names no server"),
            ("http://a:b@users/x", "credentials"),
            ("http://users:99999/", "the server of the URL"),
            ("ftp://users/", "ftp"),
            ("http://users/x#y", "fragment"),
            ("http://users/?a=%zz", "percent"),
            ("http://users/?a=1&a=2", "twice"),
            ("upstream:///x", "no upstream"),
            ("http://{path.host}/", "the server of the URL"),
        ] {
            assert!(http(url).unwrap_err().0.contains(why), "{url}: {:?}", http(url));
        }
    }

    #[test]
    fn queues_are_of_configured_brokers() {
        assert_eq!(
            queue("main/a/b"),
            Ok(Place::Queue { broker: "main".to_owned(), queue: "a/b".to_owned() })
        );
        for wrong in ["amqp://guest:guest@host/queue", "main", "/queue", "main/"] {
            assert!(queue(wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,60}", rest in "[a-z:/@?#%{}&=\\[\\]]{0,30}") {
            drop((http(&text), queue(&text), http(&format!("http://{rest}"))));
        }
    }
}
