//! A client that sends exact bytes and reads strictly, and curl.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use super::within;

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// One connection on which the test writes bytes.
pub struct RawClient {
    stream: Box<dyn Stream>,
    pending: Vec<u8>,
    over: bool,
    /// Whether that was no orderly end: a reset, or TLS without a goodbye.
    broke: bool,
}

/// One HTTP/1 answer, read strictly: anything unclear about its framing is a panic.
#[derive(Debug, Clone)]
pub struct RawResponse {
    pub status: u16,
    pub version: String,
    /// In the order and case received.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Whether the body was in chunks.
    pub chunked: bool,
    /// Trailer fields after a chunked body.
    pub trailers: Vec<(String, String)>,
}

impl RawClient {
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = within("connect", TcpStream::connect(address)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream: Box::new(stream), pending: Vec::new(), over: false, broke: false }
    }

    /// A connection with TLS to "localhost".
    pub async fn connect_tls(address: SocketAddr, config: Arc<ClientConfig>) -> Self {
        let stream = within("connect", TcpStream::connect(address)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let stream = within("TLS", TlsConnector::from(config).connect(name, stream)).await.unwrap();
        Self { stream: Box::new(stream), pending: Vec::new(), over: false, broke: false }
    }

    pub async fn connect_unix(path: &Path) -> Self {
        let stream = within("connect", UnixStream::connect(path)).await.unwrap();
        Self { stream: Box::new(stream), pending: Vec::new(), over: false, broke: false }
    }

    /// Sends these bytes as they are.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        assert!(self.try_send(bytes).await, "the connection was closed while sending");
        self
    }

    /// Sends these bytes; false when the other side is gone.
    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        let write = async {
            self.stream.write_all(bytes.as_ref()).await?;
            self.stream.flush().await
        };
        within("send", write).await.is_ok()
    }

    /// The next answer to a request that was not HEAD.
    pub async fn response(&mut self) -> RawResponse {
        within("an answer", self.read_response(false))
            .await
            .expect("an answer, not the end of the connection")
    }

    /// The next answer to a HEAD request.
    pub async fn head_response(&mut self) -> RawResponse {
        within("an answer", self.read_response(true)).await.expect("an answer, not the end of the connection")
    }

    /// The next answer, or `None` when the connection ends first.
    pub async fn response_or_close(&mut self) -> Option<RawResponse> {
        within("an answer or the end", self.read_response(false)).await
    }

    /// Sends a bodyless GET that keeps the connection, and reads the answer.
    pub async fn get(&mut self, path: &str) -> RawResponse {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
        self.response().await
    }

    /// Waits for the other side to close; panics when more bytes come.
    pub async fn closed(&mut self) {
        let rest = within("the connection to be closed", self.read_rest()).await;
        assert!(rest.is_empty(), "bytes after the last answer: {:?}", String::from_utf8_lossy(&rest));
    }

    /// Everything until the other side closes.
    pub async fn rest(&mut self) -> Vec<u8> {
        within("the connection to be closed", self.read_rest()).await
    }

    /// Proves that the connection is open by using it.
    pub async fn still_open(&mut self, path: &str) -> RawResponse {
        self.get(path).await
    }

    /// The next HTTP/2 frame as (type, flags, stream, payload); `None` at the end of the connection.
    pub async fn frame(&mut self) -> Option<(u8, u8, u32, Vec<u8>)> {
        let read = async {
            while self.pending.len() < 9 {
                if !self.fill().await {
                    return None;
                }
            }
            let head: [u8; 9] = self.pending[..9].try_into().unwrap();
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            let payload = self.exactly(9 + length).await.split_off(9);
            Some((head[3], head[4], stream, payload))
        };
        within("a frame", read).await
    }

    /// As [`RawClient::frame`], but a frame that the end of the connection cuts off is no failure: it was reset.
    pub async fn frame_or_end(&mut self) -> Option<(u8, u8, u32, Vec<u8>)> {
        let whole = async {
            loop {
                if let [a, b, c, ..] = self.pending[..]
                    && self.pending.len() >= 9 + u32::from_be_bytes([0, a, b, c]) as usize
                {
                    return true;
                }
                if !self.fill().await {
                    return false;
                }
            }
        };
        if within("a frame", whole).await { self.frame().await } else { None }
    }

    /// Whether the end of the connection was read.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// Whether the connection is over, and did not end in order: by a reset, or without TLS's goodbye.
    pub fn is_broken(&self) -> bool {
        self.broke
    }

    /// Says that nothing more will be sent (FIN), and goes on reading.
    pub async fn finish_sending(&mut self) {
        self.stream.shutdown().await.unwrap();
    }

    async fn read_rest(&mut self) -> Vec<u8> {
        while self.fill().await {}
        std::mem::take(&mut self.pending)
    }

    async fn read_response(&mut self, bodyless: bool) -> Option<RawResponse> {
        let mut response = RawResponse {
            status: 0,
            version: String::new(),
            headers: Vec::new(),
            body: Vec::new(),
            chunked: false,
            trailers: Vec::new(),
        };
        let first = self.line().await?;
        let mut words = first.splitn(3, ' ');
        response.version = words.next().unwrap().to_owned();
        assert!(matches!(response.version.as_str(), "HTTP/1.0" | "HTTP/1.1"), "not a status line: {first:?}");
        response.status = words.next().unwrap().parse().unwrap();
        response.headers = self.fields().await;
        self.read_body(&mut response, bodyless).await;
        Some(response)
    }

    async fn read_body(&mut self, response: &mut RawResponse, bodyless: bool) {
        let lengths = response.all("content-length");
        let codings = response.all("transfer-encoding");
        assert!(lengths.len() <= 1, "several lengths: {lengths:?}");
        assert!(lengths.is_empty() || codings.is_empty(), "a length and a transfer coding");
        if bodyless || response.status < 200 || matches!(response.status, 204 | 304) {
            assert!(response.status >= 200 || lengths.is_empty(), "a 1xx with a length");
            return;
        }
        if let [coding] = codings[..] {
            assert_eq!(coding, "chunked");
            response.chunked = true;
            loop {
                let size = self.line().await.expect("a chunk, not the end of the connection");
                let size = usize::from_str_radix(size.split(';').next().unwrap(), 16).unwrap();
                if size == 0 {
                    response.trailers = self.fields().await;
                    return;
                }
                response.body.extend(self.exactly(size).await);
                assert_eq!(self.exactly(2).await, b"\r\n");
            }
        } else if let [length] = lengths[..] {
            let length = length.parse().unwrap();
            response.body = self.exactly(length).await;
        } else {
            response.body = self.read_rest().await;
        }
    }

    async fn fields(&mut self) -> Vec<(String, String)> {
        let mut fields = Vec::new();
        loop {
            let line = self.line().await.expect("a header, not the end of the connection");
            if line.is_empty() {
                return fields;
            }
            let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("not a header: {line:?}"));
            assert!(!name.is_empty() && !name.contains(' '), "not a header: {line:?}");
            fields.push((name.to_owned(), value.trim().to_owned()));
        }
    }

    /// One line without its CRLF; `None` when the connection ends before its first byte.
    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.pending.drain(..=end).collect();
                let line = line.strip_suffix(b"\r\n").expect("CRLF, not a bare LF");
                return Some(String::from_utf8(line.to_vec()).unwrap());
            }
            if !self.fill().await {
                assert!(self.pending.is_empty(), "the connection ended within a line");
                return None;
            }
        }
    }

    /// The next `length` bytes.
    pub async fn read_exactly(&mut self, length: usize) -> Vec<u8> {
        within("bytes", self.exactly(length)).await
    }

    async fn exactly(&mut self, length: usize) -> Vec<u8> {
        while self.pending.len() < length {
            assert!(self.fill().await, "{} of {length} bytes came before the end", self.pending.len());
        }
        self.pending.drain(..length).collect()
    }

    /// False at the end of the connection. A reset is an end too: what matters is what came before it.
    async fn fill(&mut self) -> bool {
        let mut buffer = [0; 16_384];
        match self.stream.read(&mut buffer).await {
            ended @ (Ok(0) | Err(_)) => {
                self.over = true;
                self.broke = ended.is_err();
                false
            }
            Ok(read) => {
                self.pending.extend_from_slice(&buffer[..read]);
                true
            }
        }
    }
}

impl RawResponse {
    /// The header's only value; panics when there are several.
    pub fn header(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(all.len() <= 1, "{name} came more than once: {all:?}");
        all.first().copied()
    }

    fn all(&self, name: &str) -> Vec<&str> {
        let found = self.headers.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str()).collect()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    #[track_caller]
    pub fn expect_status(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{:?}\n{}", self.headers, self.text());
        self
    }

    /// Asserts a problem document with this status and code.
    #[track_caller]
    pub fn expect_problem(self, status: u16, code: &str) -> Self {
        let this = self.expect_status(status);
        assert_eq!(this.header("content-type"), Some("application/problem+json"), "{}", this.text());
        assert_eq!(this.json()["code"], code, "{}", this.text());
        assert_eq!(this.json()["status"], status, "{}", this.text());
        this
    }
}

/// What a command printed and how it ended.
#[derive(Debug)]
pub struct Ran {
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    /// What it complained of, without the warning that the machine would not let it open enough files.
    pub fn complaints(&self) -> &str {
        let end = self.stderr.find("warning[descriptor-limit]").unwrap_or(self.stderr.len());
        &self.stderr[..end]
    }
}

/// Runs a program to its end without blocking the servers of the test.
pub async fn run(mut command: std::process::Command) -> Ran {
    command.stdin(std::process::Stdio::null());
    let shown = format!("{command:?}");
    let work = tokio::task::spawn_blocking(move || command.output());
    let output = within(&shown, work).await.unwrap().unwrap_or_else(|error| panic!("{shown}: {error}"));
    Ran {
        status: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Runs curl with these arguments.
pub async fn curl(arguments: &[&str]) -> Ran {
    let mut command = std::process::Command::new("curl");
    command.arg("-sS").arg("--max-time").arg("15").args(arguments);
    run(command).await
}
