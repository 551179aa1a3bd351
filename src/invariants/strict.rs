//! Reads HTTP/1.1 as narrowly as RFC 9112 and 9110 allow, to judge what the gateway writes.
//!
//! Written by itself: it knows nothing of the gateway's own parsers and shares no line with them, so that what they get
//! wrong is not wrong here as well. It reads slowly, one byte after another, and takes only what a sender may generate,
//! not what a recipient may forgive. `tests/it` has it judge whole connections, the fuzz target `framing` single messages.

/// One message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    /// The method; empty for an answer.
    pub method: String,
    /// The target; empty for an answer.
    pub target: String,
    /// The status; 0 for a request.
    pub status: u16,
    /// Fields as they stand there, without the whitespace around their values.
    pub fields: Vec<(String, Vec<u8>)>,
    /// The body without its framing.
    pub body: Vec<u8>,
    /// Whether the body came in chunks.
    pub chunked: bool,
    /// All of the head is there.
    pub is_head_whole: bool,
}

/// What the bytes of one direction of a connection are.
#[derive(Debug, Clone, Default)]
pub struct Messages {
    /// Whole messages, one behind the other.
    pub whole: Vec<Message>,
    /// The message that the bytes end in, as far as its head was complete: right so far, and broken off.
    pub cut: Option<Message>,
    /// Bytes of the whole messages.
    pub bytes: usize,
}

/// How a piece of text reads.
enum Read<T> {
    Whole(T),
    /// It is right as far as it goes.
    Cut,
}

type Judged<T> = Result<Read<T>, String>;

macro_rules! whole {
    ($judged:expr) => {
        match $judged? {
            Read::Whole(value) => value,
            Read::Cut => return Ok(Read::Cut),
        }
    };
}

impl Message {
    /// All values of a field.
    pub fn all(&self, name: &str) -> Vec<&[u8]> {
        let found = self.fields.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_slice()).collect()
    }

    /// The value of a field, as text; empty where there is none.
    pub fn text(&self, name: &str) -> String {
        self.all(name).first().map(|value| String::from_utf8_lossy(value).into_owned()).unwrap_or_default()
    }

    /// Whether a list in a field has this element.
    fn lists(&self, name: &str, element: &str) -> bool {
        self.all(name).iter().any(|value| {
            String::from_utf8_lossy(value).split(',').any(|part| part.trim().eq_ignore_ascii_case(element))
        })
    }
}

/// Judges `bytes`, which were sent to a server: whether they are requests as a gateway may forward them, and nothing else.
///
/// # Errors
/// What is wrong, and where.
pub fn requests(bytes: &[u8]) -> Result<Messages, String> {
    let mut found = Messages::default();
    loop {
        let mut reader = Reader { bytes, at: found.bytes };
        if reader.at == bytes.len() {
            return Ok(found);
        }
        let mut message = Message::default();
        match request(&mut reader, &mut message).map_err(|what| reader.tell(&what))? {
            Read::Whole(()) => {
                found.bytes = reader.at;
                found.whole.push(message);
            }
            Read::Cut => {
                found.cut = Some(message);
                return Ok(found);
            }
        }
    }
}

/// Judges `bytes`, which a client got for requests with these `methods`; `ended` says whether the connection is closed.
///
/// Interim answers are among the messages. There may be fewer answers than requests, but none to no request.
///
/// # Errors
/// What is wrong, and where.
pub fn answers(bytes: &[u8], methods: &[&str], ended: bool) -> Result<Messages, String> {
    let mut found = Messages::default();
    let mut methods = methods.iter();
    let mut method = methods.next();
    loop {
        let mut reader = Reader { bytes, at: found.bytes };
        if reader.at == bytes.len() {
            return Ok(found);
        }
        let Some(asked) = method else { return Err(reader.tell("bytes behind the last answer")) };
        let mut message = Message::default();
        match answer(&mut reader, &mut message, asked, ended).map_err(|what| reader.tell(&what))? {
            Read::Whole(()) => {
                found.bytes = reader.at;
                if message.status >= 200 {
                    method = methods.next();
                }
                found.whole.push(message);
            }
            Read::Cut => {
                found.cut = Some(message);
                return Ok(found);
            }
        }
    }
}

struct Reader<'b> {
    bytes: &'b [u8],
    at: usize,
}

impl<'b> Reader<'b> {
    fn tell(&self, what: &str) -> String {
        let from = self.at.saturating_sub(80);
        let until = (self.at + 40).min(self.bytes.len());
        let before = self.bytes[from..self.at.min(until)].escape_ascii();
        format!(
            "{what}, at byte {}: {before}>>>{}",
            self.at,
            self.bytes[self.at.min(until)..until].escape_ascii()
        )
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// Exactly these bytes.
    fn exactly(&mut self, text: &[u8]) -> Judged<()> {
        for byte in text {
            match self.peek() {
                None => return Ok(Read::Cut),
                Some(found) if found == *byte => self.at += 1,
                Some(_) => return Err(format!("{} expected", text.escape_ascii())),
            }
        }
        Ok(Read::Whole(()))
    }

    /// As many bytes as `is` takes, up to one that it does not.
    fn run(&mut self, is: impl Fn(u8) -> bool) -> Judged<&'b [u8]> {
        let from = self.at;
        while let Some(byte) = self.peek() {
            if !is(byte) {
                return Ok(Read::Whole(&self.bytes[from..self.at]));
            }
            self.at += 1;
        }
        Ok(Read::Cut)
    }

    fn take(&mut self, count: usize) -> Judged<&'b [u8]> {
        match self.bytes.get(self.at..self.at.saturating_add(count)) {
            Some(taken) => {
                self.at += count;
                Ok(Read::Whole(taken))
            }
            None => {
                self.at = self.bytes.len();
                Ok(Read::Cut)
            }
        }
    }
}

/// RFC 9110 section 5.6.2.
fn is_tchar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// RFC 3986 section 3.3, but for percent-encoding.
fn is_pchar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&byte)
}

fn request(reader: &mut Reader<'_>, message: &mut Message) -> Judged<()> {
    let method = whole!(reader.run(is_tchar));
    if method.is_empty() {
        return Err("a method expected".into());
    }
    message.method = String::from_utf8_lossy(method).into_owned();
    whole!(reader.exactly(b" "));
    let target = whole!(reader.run(|byte| byte.is_ascii_graphic()));
    check_target(target, method)?;
    message.target = String::from_utf8_lossy(target).into_owned();
    whole!(reader.exactly(b" HTTP/1.1\r\n"));
    whole!(fields(reader, message));
    check_request(message)?;
    message.is_head_whole = true;
    match framing(message)? {
        Some(Framing::Chunked) => chunks(reader, message),
        Some(Framing::Length(length)) => {
            message.body = whole!(reader.take(length)).to_vec();
            Ok(Read::Whole(()))
        }
        None => Ok(Read::Whole(())),
    }
}

/// Origin form, or `*` for OPTIONS (RFC 9112 section 3.2): a gateway sends no other.
fn check_target(target: &[u8], method: &[u8]) -> Result<(), String> {
    if target == b"*" && method == b"OPTIONS" {
        return Ok(());
    }
    if target.first() != Some(&b'/') {
        return Err("a target in origin form expected".into());
    }
    // After the first `?` more of them are part of the query, as slashes are.
    for (at, byte) in target.iter().enumerate() {
        let is_good = match byte {
            b'/' | b'?' => true,
            b'%' => target.get(at + 1..at + 3).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)),
            byte => is_pchar(*byte),
        };
        if !is_good {
            return Err(format!("{:?} in the target", char::from(*byte)));
        }
    }
    Ok(())
}

fn fields(reader: &mut Reader<'_>, message: &mut Message) -> Judged<()> {
    loop {
        if reader.peek() == Some(b'\r') {
            return reader.exactly(b"\r\n");
        }
        let name = whole!(reader.run(is_tchar));
        if name.is_empty() {
            return Err("a field name expected".into());
        }
        whole!(reader.exactly(b":"));
        let value = whole!(reader.run(|byte| byte == b'\t' || (byte >= 0x20 && byte != 0x7f)));
        let is_space = |byte: &u8| matches!(byte, b' ' | b'\t');
        let from = value.iter().position(|byte| !is_space(byte)).unwrap_or(value.len());
        let until = value.iter().rposition(|byte| !is_space(byte)).map_or(from, |last| last + 1);
        whole!(reader.exactly(b"\r\n"));
        message.fields.push((String::from_utf8_lossy(name).into_owned(), value[from..until].to_vec()));
    }
}

/// What a forwarded request must and must not say (RFC 9110 sections 7.2, 7.6.1, 9.3.8 and 10.1.1, RFC 9112 section 3.2).
fn check_request(message: &Message) -> Result<(), String> {
    match message.all("host")[..] {
        [host] if is_host(host) => {}
        [host] => return Err(format!("{} as Host", host.escape_ascii())),
        [] => return Err("no Host".into()),
        _ => return Err("several Hosts".into()),
    }
    for name in [
        "keep-alive",
        "proxy-connection",
        "proxy-authorization",
        "proxy-authenticate",
        "te",
        "trailer",
        "http2-settings",
    ] {
        if !message.all(name).is_empty() {
            return Err(format!("{name} was forwarded"));
        }
    }
    let upgrade = message.all("upgrade");
    match message.all("connection")[..] {
        [] if upgrade.is_empty() => {}
        [option] if upgrade.is_empty() && matches!(option, b"close" | b"keep-alive") => {}
        [option]
            if option.eq_ignore_ascii_case(b"upgrade")
                && upgrade.len() == 1
                && upgrade[0].eq_ignore_ascii_case(b"websocket")
                && message.method == "GET" => {}
        _ => return Err("Connection or Upgrade was forwarded".into()),
    }
    for expectation in message.all("expect") {
        if !expectation.eq_ignore_ascii_case(b"100-continue") {
            return Err("another expectation than 100-continue".into());
        }
        if matches!(framing(message)?, None | Some(Framing::Length(0))) {
            return Err("an expectation without a body".into());
        }
    }
    if message.method == "CONNECT" {
        return Err("CONNECT".into());
    }
    if message.method == "TRACE" && !matches!(framing(message)?, None | Some(Framing::Length(0))) {
        return Err("TRACE with a body".into());
    }
    Ok(())
}

/// `uri-host [ ":" port ]`, the host a name, an IPv4 address or an IPv6 address (RFC 9110 section 7.2).
fn is_host(host: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(host) else { return false };
    let (name, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let Some((address, port)) = rest.split_once(']') else { return false };
            if address.parse::<std::net::Ipv6Addr>().is_err() {
                return false;
            }
            match port.strip_prefix(':') {
                Some(port) => ("address", port),
                None if port.is_empty() => ("address", ""),
                None => return false,
            }
        }
        None => text.split_once(':').unwrap_or((text, "")),
    };
    !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
        && port.bytes().all(|byte| byte.is_ascii_digit())
        && (port.is_empty() || port.parse::<u16>().is_ok())
}

#[derive(Debug, Clone, Copy)]
enum Framing {
    Length(usize),
    Chunked,
}

/// RFC 9112 section 6: one plain length, or chunks, or nothing.
fn framing(message: &Message) -> Result<Option<Framing>, String> {
    match (&message.all("content-length")[..], &message.all("transfer-encoding")[..]) {
        ([], []) => Ok(None),
        ([], [coding]) if *coding == b"chunked" => Ok(Some(Framing::Chunked)),
        ([], codings) => Err(format!("{codings:?} as Transfer-Encoding")),
        ([length], []) => {
            let is_plain = !length.is_empty()
                && length.iter().all(u8::is_ascii_digit)
                && (length.len() == 1 || length[0] != b'0');
            // Within 63 bits, as everybody counts.
            let length = std::str::from_utf8(length).ok().filter(|_| is_plain);
            let length = length.and_then(|text| usize::try_from(text.parse::<i64>().ok()?).ok());
            length.map(|length| Some(Framing::Length(length))).ok_or_else(|| "no plain Content-Length".into())
        }
        (_, []) => Err("several lengths".into()),
        _ => Err("a length and a transfer coding".into()),
    }
}

/// Chunks without extensions and without trailers, as this gateway writes them (RFC 9112 section 7.1).
fn chunks(reader: &mut Reader<'_>, message: &mut Message) -> Judged<()> {
    message.chunked = true;
    loop {
        let digits = whole!(reader.run(|byte| byte.is_ascii_hexdigit()));
        let size = std::str::from_utf8(digits).ok().filter(|digits| digits.len() <= 15);
        let size = size.and_then(|digits| usize::from_str_radix(digits, 16).ok());
        let Some(size) = size else { return Err("a chunk size expected".into()) };
        whole!(reader.exactly(b"\r\n"));
        if size == 0 {
            return reader.exactly(b"\r\n");
        }
        message.body.extend_from_slice(whole!(reader.take(size)));
        whole!(reader.exactly(b"\r\n"));
    }
}

fn answer(reader: &mut Reader<'_>, message: &mut Message, asked: &str, ended: bool) -> Judged<()> {
    whole!(reader.exactly(b"HTTP/1.1 "));
    let digits = whole!(reader.take(3));
    let status =
        std::str::from_utf8(digits).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    message.status = status
        .and_then(|text| text.parse().ok())
        .filter(|status| *status >= 100)
        .ok_or("a status expected")?;
    whole!(reader.exactly(b" "));
    whole!(reader.run(|byte| byte == b'\t' || (byte >= 0x20 && byte != 0x7f)));
    whole!(reader.exactly(b"\r\n"));
    whole!(fields(reader, message));
    message.is_head_whole = true;
    let (status, has_framing) = (message.status, framing(message)?);
    if (status < 200 || status == 204) && has_framing.is_some() {
        return Err(format!("a {status} with a length or a transfer coding"));
    }
    if status == 101 {
        return Err("a switch of protocols".into());
    }
    for name in ["keep-alive", "proxy-connection", "proxy-authenticate", "te", "trailer"] {
        if !message.all(name).is_empty() {
            return Err(format!("{name} was passed on"));
        }
    }
    if !message.all("upgrade").is_empty() && status != 426 {
        return Err("Upgrade was passed on".into());
    }
    for option in message.all("connection") {
        if !matches!(option, b"close" | b"keep-alive") {
            return Err("Connection was passed on".into());
        }
    }
    if status < 200 || matches!(status, 204 | 304) || asked == "HEAD" {
        return Ok(Read::Whole(()));
    }
    match has_framing {
        Some(Framing::Chunked) => chunks(reader, message),
        Some(Framing::Length(length)) => {
            message.body = whole!(reader.take(length)).to_vec();
            Ok(Read::Whole(()))
        }
        None if !message.lists("connection", "close") => {
            Err("a body without an end on a connection that stays".into())
        }
        None => {
            message.body = reader.bytes[reader.at..].to_vec();
            reader.at = reader.bytes.len();
            Ok(if ended { Read::Whole(()) } else { Read::Cut })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "POST /a?b HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nok";

    fn wrong(bytes: &str) -> String {
        requests(bytes.as_bytes()).expect_err(bytes)
    }

    /// A checker that finds nothing wrong is worth nothing: one change after another to what is right.
    #[test]
    fn each_fault_is_found() {
        let two = format!("{GOOD}{GOOD}");
        assert_eq!(requests(two.as_bytes()).unwrap().whole.len(), 2);
        for (part, by) in [
            ("POST ", "PO(T "),
            ("POST ", " POST "),
            ("POST ", "\r\nPOST "),
            ("POST ", "POST  "),
            ("/a?b", "http://h/a"),
            ("/a?b", "*"),
            ("/a?b", "/a#b"),
            ("/a?b", "/%zz"),
            ("/a?b", "/a?b=%f"),
            ("/a?b", "/a\\b"),
            ("/a?b", "/?a[]=1"),
            ("/a?b", "/a\u{e9}"),
            ("HTTP/1.1", "HTTP/1.0"),
            ("HTTP/1.1", "HTTP/1.1 "),
            ("HTTP/1.1\r\n", "HTTP/1.1\n"),
            ("Host: h\r\n", ""),
            ("Host: h\r\n", "Host: h\r\nHost: h\r\n"),
            ("Host: h", "Host: "),
            ("Host: h", "Host: a b"),
            ("Host: h", "Host: u@h"),
            ("Host: h", "Host: h:x"),
            ("Host: h", "Host : h"),
            ("Host: h", "Host: h\r\n X: folded"),
            ("Host: h", "Host: h\r\nX: a\rb"),
            ("Host: h", "Host: h\r\nX: a\0b"),
            ("Host: h", "Host: h\r\nX: a\nb: c"),
            ("Host: h", "Host: h\r\n: b"),
            ("Host: h", "Host: h\r\nTE: trailers"),
            ("Host: h", "Host: h\r\nConnection: x"),
            ("Host: h", "Host: h\r\nUpgrade: h2c"),
            ("Host: h", "Host: h\r\nExpect: nothing"),
            ("Content-Length: 2\r\n\r\nok", "Expect: 100-continue\r\n\r\n"),
            ("Host: h", "Host: h\r\nTransfer-Encoding: chunked"),
            ("Content-Length: 2", "Content-Length: +2"),
            ("Content-Length: 2", "Content-Length: 02"),
            ("Content-Length: 2", "Content-Length: 9223372036854775808"),
            ("Content-Length: 2", "Content-Length: 2, 2"),
            ("Content-Length: 2", "Content-Length: 2\r\nContent-Length: 2"),
            ("Content-Length: 2", "Transfer-Encoding: Chunked"),
            ("Content-Length: 2\r\n\r\nok", "Transfer-Encoding: chunked\r\n\r\n2;x\r\nok\r\n0\r\n\r\n"),
            ("Content-Length: 2\r\n\r\nok", "Transfer-Encoding: chunked\r\n\r\n2\r\nokk\r\n0\r\n\r\n"),
            ("Content-Length: 2\r\n\r\nok", "Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nA: b\r\n\r\n"),
            ("Content-Length: 2\r\n\r\nok", "Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n\r\n0\r\n\r\n"),
        ] {
            assert!(two.contains(part), "{part}");
            wrong(&two.replace(part, by));
        }
        wrong(&two.replace("POST", "TRACE"));
        wrong(&two.replace("POST", "CONNECT"));
        wrong(&format!("{GOOD}\x01"));
    }

    #[test]
    fn what_is_cut_off_is_right_as_far_as_it_goes() {
        let chunked = "PUT /c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n";
        for good in [GOOD, chunked] {
            for end in 1..good.len() {
                let found = requests(&good.as_bytes()[..end]).unwrap();
                assert!(found.whole.is_empty() && found.cut.is_some(), "{end}");
            }
            let found = requests(good.as_bytes()).unwrap();
            assert!(found.cut.is_none() && found.whole.len() == 1 && found.bytes == good.len());
        }
    }

    #[test]
    fn answers_belong_to_requests() {
        let ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        let three = format!("HTTP/1.1 103 Early Hints\r\n\r\n{ok}HTTP/1.1 204 No Content\r\n\r\n{ok}");
        let read = |text: &str, methods: &[&str]| answers(text.as_bytes(), methods, true);
        assert_eq!(read(&three, &["GET"; 3]).unwrap().whole.len(), 4);
        assert!(read(&three, &["GET"; 2]).is_err());
        assert!(read(&format!("{ok}x"), &["GET"]).is_err());
        assert!(read(ok, &["HEAD"]).is_err(), "a body for HEAD");
        for wrong in [
            "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 101 Switching Protocols\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\nno end",
            "HTTP/1.1 200 OK\nContent-Length: 0\n\n",
            "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX: a\r\n b\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nKeep-Alive: 1\r\n\r\n",
        ] {
            assert!(read(wrong, &["GET"]).is_err(), "{wrong}");
        }
        let until_close = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nall of it";
        assert_eq!(read(until_close, &["GET"]).unwrap().whole[0].body, b"all of it");
        assert!(answers(until_close.as_bytes(), &["GET"], false).unwrap().cut.is_some());
    }
}
