//! What is sent, and what may come of it.

use std::collections::BTreeMap;

/// Bytes for one connection.
#[derive(Debug, Clone)]
pub struct Payload {
    /// What it tries, for messages.
    pub name: String,
    pub way: Way,
    pub bytes: Vec<u8>,
    /// Its requests, in their order: those that may be forwarded, by their paths.
    pub marks: Vec<String>,
    /// It is right: all of it has to be forwarded, with this body first.
    pub valid: Option<Vec<u8>>,
    /// The methods of its requests, for who reads the answers; GET where it has fewer.
    pub methods: Vec<&'static str>,
    /// Where it is cut into pieces that are sent by themselves.
    pub cuts: Vec<usize>,
    /// Before each piece but the first it waits until something comes, or nothing does for a while.
    pub waits: bool,
    /// The client ends its side behind it.
    pub ends: bool,
    /// The path of what is asked for behind it, if the connection is to be of further use.
    pub again: String,
    /// So many answers are waited for, with patience.
    pub wants: Option<usize>,
}

/// The way that requests take through the gateway, by the first segment of their paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// The gateway's own forwarder, to a server in cleartext.
    Direct,
    /// Pingora's, to a server over TLS.
    Pingora,
    /// The leg of an aggregate.
    Leg,
    /// Pingora's, to a server of HTTP/2 in cleartext.
    Http2,
}

impl Way {
    /// Those to servers of HTTP/1.1.
    pub const HTTP1: [Self; 3] = [Self::Direct, Self::Pingora, Self::Leg];
    pub const ALL: [Self; 4] = [Self::Direct, Self::Pingora, Self::Leg, Self::Http2];

    pub fn prefix(self) -> &'static str {
        match self {
            Self::Direct => "/d",
            Self::Pingora => "/t",
            Self::Leg => "/a",
            Self::Http2 => "/h",
        }
    }
}

/// Payloads under construction.
///
/// In their text `<0>`, `<1>` … stand for the paths of requests that may be forwarded, and `<E>` for that of one that never
/// may: it is hidden in something else. Each payload has its own.
pub struct Corpus {
    way: Way,
    from: usize,
    pub payloads: Vec<Payload>,
}

/// A request hidden behind something that ends earlier for one reader than for another.
pub const HIDDEN: &str = "GET <E> HTTP/1.1\r\nHost: x\r\nX-Evil: 1\r\n\r\n";
/// A plain request that may follow.
pub const NEXT: &str = "GET <1> HTTP/1.1\r\nHost: x\r\n\r\n";

impl Corpus {
    /// For requests that go this way, numbered from `from`.
    pub fn new(way: Way, from: usize) -> Self {
        Self { way, from, payloads: Vec::new() }
    }

    /// Adds one, its marks put in. The length of a text does not depend on where it stands: paths have five digits.
    pub fn add(&mut self, name: impl Into<String>, text: impl AsRef<[u8]>) -> &mut Payload {
        let id = self.from + self.payloads.len();
        let (bytes, marks) = self.fill(id, text.as_ref());
        self.payloads.push(Payload {
            name: name.into(),
            way: self.way,
            bytes,
            marks,
            valid: None,
            methods: Vec::new(),
            cuts: Vec::new(),
            waits: false,
            ends: false,
            again: mark(self.way, id, 'A'),
            wants: None,
        });
        self.payloads.last_mut().unwrap()
    }

    /// One that is right, with the body of its first request.
    pub fn right(&mut self, name: &str, text: impl AsRef<[u8]>, body: impl AsRef<[u8]>) -> &mut Payload {
        let body = self.filled(body.as_ref());
        let payload = self.add(name, text);
        payload.wants = Some(payload.marks.len());
        payload.valid = Some(body);
        payload
    }

    /// `text` as it stands in the next payload.
    pub fn filled(&self, text: &[u8]) -> Vec<u8> {
        self.fill(self.from + self.payloads.len(), text).0
    }

    fn fill(&self, id: usize, text: &[u8]) -> (Vec<u8>, Vec<String>) {
        let (mut bytes, mut marks, mut at) = (Vec::with_capacity(text.len() + 64), BTreeMap::new(), 0);
        while at < text.len() {
            match text[at..] {
                [b'<', what @ (b'0'..=b'9' | b'E'), b'>', ..] => {
                    let path = mark(self.way, id, char::from(what));
                    bytes.extend_from_slice(path.as_bytes());
                    if what != b'E' {
                        marks.insert(what, path);
                    }
                    at += 3;
                }
                _ => {
                    bytes.push(text[at]);
                    at += 1;
                }
            }
        }
        (bytes, marks.into_values().collect())
    }
}

/// The path of a request.
pub fn mark(way: Way, id: usize, what: char) -> String {
    format!("{}/{id:05}/{what}", way.prefix())
}

/// How long `text` is once its marks are put in.
pub fn length(text: &str) -> usize {
    let marks =
        text.matches("<E>").count() + (0..9).map(|n| text.matches(&format!("<{n}>")).count()).sum::<usize>();
    text.len() + marks * ("/d/00000/0".len() - 3)
}

/// `text` as one chunk and the last.
pub fn chunked(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n0\r\n\r\n", length(text))
}
