//! An origin that speaks HTTP/2 in cleartext: it judges strictly every frame and field that is sent to it, and answers with
//! frames as scripted, right or wrong.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::h2::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, INITIAL_WINDOW, PADDED, PING, PREFACE,
    PRIORITY, PUSH_PROMISE, RST_STREAM, SETTINGS, WINDOW_UPDATE, WITH_PRIORITY, block, frame, settings,
    window_update,
};
use super::hpack::{Decoder, Field};
use super::strict::{self, Message, Messages};
use super::{Addressed, Recorded, Reply};

/// Largest frame where nothing else was offered.
const FRAME_BYTES: usize = 16_384;

/// The streams of one connection.
#[derive(Debug, Clone, Default)]
pub struct Streams {
    /// Requests that came to their end, in the order of their ends.
    pub whole: Vec<Message>,
    /// Those that were reset, as far as they came.
    pub broken: Vec<Message>,
    /// Those under way.
    open: BTreeMap<u32, Open>,
    /// What was wrong: nothing is read behind it.
    fault: Option<String>,
}

#[derive(Debug, Clone)]
struct Open {
    message: Message,
    /// What `content-length` says.
    length: Option<usize>,
    answered: bool,
}

impl Streams {
    /// As of a connection of HTTP/1.1.
    pub fn judged(&self) -> Result<Messages, String> {
        match &self.fault {
            Some(fault) => Err(fault.clone()),
            None => Ok(Messages {
                whole: self.whole.clone(),
                cut: self.open.values().next().map(|open| open.message.clone()),
                bytes: 0,
            }),
        }
    }
}

/// What became known of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Head(u32),
    Whole(u32),
}

/// A connection as it is read.
#[derive(Default)]
struct Reading {
    input: Vec<u8>,
    is_greeted: bool,
    decoder: Decoder,
    /// A header block that is not over: its stream, whether that ends with it, and what came of it.
    block: Option<(u32, bool, Vec<u8>)>,
    last: u32,
    streams: Streams,
    told: Vec<(Told, Message)>,
    /// What the connection itself has to be answered.
    due: Vec<u8>,
}

impl Reading {
    /// Takes in what came.
    fn take(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.input.extend_from_slice(bytes);
        if !self.is_greeted {
            let count = self.input.len().min(PREFACE.len());
            if self.input[..count] != PREFACE[..count] {
                return Err("another beginning than the preface".into());
            }
            if count < PREFACE.len() {
                return Ok(());
            }
            self.input.drain(..count);
            self.is_greeted = true;
        }
        while let [a, b, c, kind, flags, w, x, y, z, ..] = self.input[..] {
            let length = u32::from_be_bytes([0, a, b, c]) as usize;
            if length > FRAME_BYTES {
                return Err(format!("a frame of {length} bytes"));
            }
            if self.input.len() < 9 + length {
                break;
            }
            let frame: Vec<u8> = self.input.drain(..9 + length).collect();
            self.frame(kind, flags, u32::from_be_bytes([w, x, y, z]), &frame[9..])?;
        }
        Ok(())
    }

    fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Result<(), String> {
        if self.block.is_some() != (kind == CONTINUATION) {
            return Err(format!("a frame of kind {kind} beside a header block"));
        }
        match kind {
            HEADERS | DATA => {
                let payload = unpadded(kind, flags, payload)?;
                if kind == DATA {
                    return self.data(stream, flags & END_STREAM != 0, payload);
                }
                self.block = Some((stream, flags & END_STREAM != 0, payload.to_vec()));
                if flags & END_HEADERS != 0 { self.head() } else { Ok(()) }
            }
            CONTINUATION => {
                let Some((of, _, bytes)) = self.block.as_mut().filter(|(of, ..)| *of == stream) else {
                    return Err("CONTINUATION of another stream".into());
                };
                debug_assert_eq!(*of, stream);
                bytes.extend_from_slice(payload);
                if flags & END_HEADERS != 0 { self.head() } else { Ok(()) }
            }
            RST_STREAM if stream > 0 && stream <= self.last && payload.len() == 4 => {
                self.streams.broken.extend(self.streams.open.remove(&stream).map(|open| open.message));
                Ok(())
            }
            SETTINGS if stream == 0 && payload.len().is_multiple_of(6) => {
                if flags & ACK == 0 {
                    self.due.extend(frame(SETTINGS, ACK, 0, &[]));
                }
                Ok(())
            }
            PING if stream == 0 && payload.len() == 8 => {
                if flags & ACK == 0 {
                    self.due.extend(frame(PING, ACK, 0, payload));
                }
                Ok(())
            }
            WINDOW_UPDATE if stream <= self.last && payload.len() == 4 && payload != [0; 4] => Ok(()),
            GOAWAY if stream == 0 && payload.len() >= 8 => Ok(()),
            PRIORITY if stream > 0 && payload.len() == 5 => Ok(()),
            PUSH_PROMISE => Err("a push from a client".into()),
            _ => Err(format!("a frame of kind {kind} on stream {stream} of {} bytes", payload.len())),
        }
    }

    /// A header block is complete: it opens a stream, or ends it.
    fn head(&mut self) -> Result<(), String> {
        let Some((stream, ends, bytes)) = self.block.take() else { return Err("no block".into()) };
        let fields = self.decoder.block(&bytes)?;
        if self.streams.open.contains_key(&stream) {
            if !ends {
                return Err("a head within a stream".into());
            }
            trailers(&fields)?;
            return self.end(stream);
        }
        if stream.is_multiple_of(2) || stream <= self.last {
            return Err(format!("a head on stream {stream} behind {}", self.last));
        }
        self.last = stream;
        let (message, length) = request(&fields, ends)?;
        self.told.push((Told::Head(stream), message.clone()));
        self.streams.open.insert(stream, Open { message, length, answered: false });
        if ends { self.end(stream) } else { Ok(()) }
    }

    fn data(&mut self, stream: u32, ends: bool, payload: &[u8]) -> Result<(), String> {
        let Some(open) = self.streams.open.get_mut(&stream) else {
            return Err(format!("DATA on stream {stream}, which is not open"));
        };
        open.message.body.extend_from_slice(payload);
        if open.length.is_some_and(|length| open.message.body.len() > length) {
            return Err("a body longer than its content-length".into());
        }
        if !payload.is_empty() {
            self.due.extend(window_update(stream, u32::try_from(payload.len()).unwrap()));
        }
        if ends { self.end(stream) } else { Ok(()) }
    }

    fn end(&mut self, stream: u32) -> Result<(), String> {
        let Some(open) = self.streams.open.remove(&stream) else { return Err("no such stream".into()) };
        if open.length.is_some_and(|length| open.message.body.len() != length) {
            return Err("a body shorter than its content-length".into());
        }
        self.streams.whole.push(open.message.clone());
        if !open.answered {
            self.told.push((Told::Whole(stream), open.message));
        }
        Ok(())
    }
}

/// What of the payload of HEADERS or DATA is neither padding nor priority.
fn unpadded(kind: u8, flags: u8, mut payload: &[u8]) -> Result<&[u8], String> {
    if flags & PADDED != 0 {
        let (padding, rest) = payload.split_first().ok_or("no padding")?;
        payload = rest
            .get(..rest.len().wrapping_sub(usize::from(*padding)))
            .ok_or("padding of more than there is")?;
    }
    if kind == HEADERS && flags & WITH_PRIORITY != 0 {
        payload = payload.get(5..).ok_or("no priority")?;
    }
    Ok(payload)
}

/// Fields that say something about one connection of HTTP/1.1, or are none that a gateway passes on.
const NOT_IN_HTTP2: &[&str] = &[
    "connection",
    "keep-alive",
    "proxy-connection",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
    "proxy-authorization",
    "proxy-authenticate",
    "trailer",
];

/// RFC 9113 section 8.2.1 and RFC 9110 section 5.
fn check_field((name, value): &Field) -> Result<(), String> {
    let show = || format!("{}: {}", name.escape_ascii(), value.escape_ascii());
    let is_name =
        |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(byte);
    if name.is_empty() || !name.iter().all(is_name) {
        return Err(format!("a name that is none in {}", show()));
    }
    if value.iter().any(|byte| (*byte < 0x20 && *byte != b'\t') || *byte == 0x7f) {
        return Err(format!("a control byte in {}", show()));
    }
    if [value.first(), value.last()].iter().flatten().any(|byte| matches!(byte, b' ' | b'\t')) {
        return Err(format!("a space at an end of {}", show()));
    }
    if NOT_IN_HTTP2.iter().any(|no| no.as_bytes() == name) || (name == b"te" && value != b"trailers") {
        return Err(format!("{} was forwarded", show()));
    }
    Ok(())
}

/// The request that `fields` open, and its `content-length`: its pseudo-header fields once each and before all others (RFC
/// 9113 section 8.3.1), and the rest as strict as in HTTP/1.1.
fn request(fields: &[Field], ends: bool) -> Result<(Message, Option<usize>), String> {
    let pseudo_count = fields.iter().take_while(|(name, _)| name.starts_with(b":")).count();
    let (pseudo, regular) = fields.split_at(pseudo_count);
    let of = |wanted: &str| -> Result<String, String> {
        let mut found = pseudo.iter().filter(|(name, _)| name == wanted.as_bytes());
        match (found.next(), found.next()) {
            (Some((_, value)), None) => {
                String::from_utf8(value.clone()).map_err(|_| format!("{wanted} is no text"))
            }
            (None, _) => Err(format!("no {wanted}")),
            _ => Err(format!("{wanted} twice")),
        }
    };
    let (method, scheme) = (of(":method")?, of(":scheme")?);
    let (path, authority) = (of(":path")?, of(":authority")?);
    if pseudo.len() != 4 {
        return Err(format!("another pseudo-header field: {pseudo:?}"));
    }
    if !matches!(scheme.as_str(), "http" | "https") {
        return Err(format!("{scheme:?} as :scheme"));
    }
    regular.iter().try_for_each(check_field)?;
    // The rest is what it is in HTTP/1.1.
    let mut text = format!("{method} {path} HTTP/1.1\r\nHost: {authority}\r\n").into_bytes();
    for (name, value) in regular {
        if name == b"host" {
            if *value != authority.as_bytes() {
                return Err(format!("host {} beside :authority {authority}", value.escape_ascii()));
            }
        } else if name != b"te" {
            text.extend([name, b": ".as_slice(), value, b"\r\n"].concat());
        }
    }
    let is_open = !ends && !regular.iter().any(|(name, _)| name == b"content-length");
    text.extend_from_slice(if is_open { b"Transfer-Encoding: chunked\r\n\r\n" } else { b"\r\n" });
    let found = strict::requests(&text)?;
    let mut message = match (found.whole.into_iter().next(), found.cut) {
        (Some(message), _) | (None, Some(message)) if message.is_head_whole => message,
        _ => return Err("half a head".into()),
    };
    message.fields.retain(|(name, _)| !name.eq_ignore_ascii_case("transfer-encoding"));
    message.chunked = false;
    let length = message.text("content-length").parse().ok();
    Ok((message, length))
}

/// What stands behind a body: no pseudo-header field, and nothing that says where the message ends or to whom it goes.
fn trailers(fields: &[Field]) -> Result<(), String> {
    for field in fields {
        check_field(field)?;
        if ["content-length", "host", "te", "authorization", "expect"]
            .iter()
            .any(|no| no.as_bytes() == field.0)
        {
            return Err(format!("a trailer {}", field.0.escape_ascii()));
        }
    }
    Ok(())
}

type Script = Arc<dyn Fn(&Message, u32) -> Reply + Send + Sync>;

/// The origin.
pub struct Http2Recorder {
    address: SocketAddr,
    connections: Arc<Mutex<Vec<Recorded>>>,
    accepting: JoinHandle<()>,
}

impl Http2Recorder {
    /// Answers each request as `script` says: with the frames that it makes for the number of its stream.
    pub async fn start(script: impl Fn(&Message, u32) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(Mutex::new(Vec::new()));
        let (all, script): (_, Script) = (connections.clone(), Arc::new(script));
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                let (all, script) = (all.clone(), script.clone());
                tokio::spawn(async move { serve(stream, &all, &script).await });
            }
        });
        Self { address, connections, accepting }
    }

    /// What has come so far, one entry a connection.
    pub fn connections(&self) -> Vec<Recorded> {
        self.connections.lock().unwrap().clone()
    }
}

impl Addressed for Http2Recorder {
    fn socket_address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Http2Recorder {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// A plain answer to a request with `method`, whose body is `text`.
pub fn http2_ok(stream: u32, method: &str, text: &str) -> Reply {
    let fields = block(&[(":status", "200"), ("content-length", &text.len().to_string())]);
    if method == "HEAD" {
        return Reply::exactly(frame(HEADERS, END_HEADERS | END_STREAM, stream, &fields));
    }
    Reply::exactly(
        [frame(HEADERS, END_HEADERS, stream, &fields), frame(DATA, END_STREAM, stream, text.as_bytes())]
            .concat(),
    )
}

async fn serve(mut stream: TcpStream, all: &Mutex<Vec<Recorded>>, script: &Script) {
    let index = {
        let mut all = all.lock().unwrap();
        all.push(Recorded { streams: Some(Streams::default()), ..Recorded::default() });
        all.len() - 1
    };
    // Only who speaks HTTP/2 gets these. Room for any body of a test on the whole connection.
    let due = [settings(&[(INITIAL_WINDOW, 1 << 20)]), window_update(0, 1 << 30)].concat();
    let mut reading = Reading { due, ..Reading::default() };
    let mut is_open = true;
    let mut buffer = vec![0; 64 * 1024];
    while is_open && let Ok(read @ 1..) = stream.read(&mut buffer).await {
        if !reading.is_greeted && reading.input.is_empty() && buffer.starts_with(b"GET ") {
            handshake(&mut stream, &mut buffer, read, all, index).await;
            break;
        }
        let taken = reading.take(&buffer[..read]);
        reading.streams.fault = taken.err();
        let mut out = std::mem::take(&mut reading.due);
        for (told, message) in std::mem::take(&mut reading.told) {
            let (Told::Head(id) | Told::Whole(id)) = told;
            let reply = script(&message, id);
            // Early ones come with the head, all others behind the whole.
            if reply.early != matches!(told, Told::Head(_)) {
                continue;
            }
            out.extend(&reply.bytes);
            is_open &= !reply.close;
            if let Some(open) = reading.streams.open.get_mut(&id) {
                open.answered = true;
            }
        }
        // Whoever is answered finds what it sent recorded.
        all.lock().unwrap()[index].streams = Some(reading.streams.clone());
        is_open &= reading.streams.fault.is_none() && stream.write_all(&out).await.is_ok();
    }
    // So that what was written arrives before the end does.
    let _closed = stream.shutdown().await;
    all.lock().unwrap()[index].ended = true;
}

/// What asks for an upgrade comes over HTTP/1.1, which alone has one. It is judged like that, and not granted.
async fn handshake(
    stream: &mut TcpStream,
    buffer: &mut [u8],
    read: usize,
    all: &Mutex<Vec<Recorded>>,
    index: usize,
) {
    let mut bytes = buffer[..read].to_vec();
    let judged = loop {
        match strict::requests(&bytes) {
            Ok(found) if found.whole.is_empty() => match stream.read(buffer).await {
                Ok(read @ 1..) => bytes.extend_from_slice(&buffer[..read]),
                _ => break Ok(found),
            },
            judged => break judged,
        }
    };
    let fault = match judged {
        Ok(found) if found.whole.iter().all(|message| !message.all("upgrade").is_empty()) => None,
        Ok(found) => Some(format!("HTTP/1.1 without an upgrade: {found:?}")),
        Err(what) => Some(what),
    };
    let streams = fault.map(|fault| Streams { fault: Some(fault), ..Streams::default() });
    {
        let mut all = all.lock().unwrap();
        (all[index].bytes, all[index].streams) = (bytes, streams);
    }
    let _sent = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await;
}

#[cfg(test)]
mod tests {
    use super::super::h2::{GET, POST, data, get_with, headers, last_data, open, post_with, priority, reset};
    use super::*;

    fn read(bytes: &[u8]) -> Result<Messages, String> {
        let mut reading = Reading::default();
        let taken = reading.take(&[PREFACE, bytes].concat());
        taken.and_then(|()| reading.streams.judged())
    }

    fn block_of(fields: &[(&str, &str)]) -> Vec<u8> {
        headers(1, &block(fields))
    }

    const FIELDS: [(&str, &str); 4] =
        [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "x")];

    /// A checker that finds nothing wrong is worth nothing.
    #[test]
    fn each_fault_of_http2_is_found() {
        assert_eq!(read(&[headers(1, GET), headers(3, GET)].concat()).unwrap().whole.len(), 2);
        assert_eq!(read(&block_of(&FIELDS)).unwrap().whole.len(), 1);
        let body =
            [open(1, &post_with(&[("content-length", "5")])), data(1, b"hel"), last_data(1, b"lo")].concat();
        assert_eq!(read(&body).unwrap().whole[0].body, b"hello");
        assert!(read(&[open(1, POST), data(1, b"x"), reset(1, 8)].concat()).unwrap().whole.is_empty());
        assert!(read(&[open(1, POST), data(1, b"x")].concat()).unwrap().cut.is_some());
        for at in 0..FIELDS.len() {
            let mut fields = FIELDS.to_vec();
            let field = fields.remove(at);
            read(&block_of(&fields)).expect_err("one is missing");
            fields.push(("x", "y"));
            fields.push(field);
            read(&block_of(&fields)).expect_err("one is behind a field");
            read(&block_of(&[FIELDS.as_slice(), &[field]].concat())).expect_err("one is there twice");
            let mut fields = FIELDS.to_vec();
            fields[at].1 = "a b";
            read(&block_of(&fields)).expect_err("a space");
        }
        for (name, value) in [
            (":x", "y"),
            ("X", "y"),
            ("", "y"),
            ("x y", "y"),
            ("x", " y"),
            ("x", "y "),
            ("x", "a\r\nb: c"),
            ("x", "\0"),
            ("connection", "close"),
            ("keep-alive", "1"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("proxy-connection", "x"),
            ("te", "gzip"),
            ("host", "y"),
            ("content-length", "5"),
            ("content-length", "+0"),
            ("expect", "100-continue"),
        ] {
            read(&headers(1, &get_with(&[(name, value)]))).expect_err(name);
        }
        let long = post_with(&[("content-length", "5")]);
        for (what, bytes) in [
            ("a body too long", [open(1, &long), last_data(1, b"hello!")].concat()),
            ("a body too short", [open(1, &long), last_data(1, b"hell")].concat()),
            ("two lengths", headers(1, &get_with(&[("content-length", "0"), ("content-length", "0")]))),
            ("DATA on no stream", last_data(1, b"x")),
            ("DATA behind the end", [headers(1, GET), last_data(1, b"x")].concat()),
            ("a stream of the server's", headers(2, GET)),
            ("a stream that was", [headers(3, GET), headers(1, GET)].concat()),
            ("a head within", [open(1, POST), open(1, POST)].concat()),
            (
                "a pseudo-header field in trailers",
                [open(1, POST), headers(1, &block(&[(":path", "/")]))].concat(),
            ),
            (
                "a length in trailers",
                [open(1, POST), headers(1, &block(&[("content-length", "0")]))].concat(),
            ),
            ("a frame within a block", [frame(HEADERS, 0, 1, GET), priority(1, 0, 0)].concat()),
            ("too large a frame", [open(1, POST), data(1, &[0; FRAME_BYTES + 1])].concat()),
            ("a window of nothing more", window_update(0, 0)),
            ("a broken block", headers(1, b"\x80")),
            ("a reset of no stream", reset(1, 8)),
        ] {
            read(&bytes).expect_err(what);
        }
        assert!(Reading::default().take(b"GET / HTTP/1.1\r\n").is_err());
    }
}
