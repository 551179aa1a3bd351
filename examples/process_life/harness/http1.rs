//! HTTP/1.1 as a client speaks it that counts every answer it does not get.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::wire::{Io, PATIENCE};

/// Most fields of an answer.
const FIELDS_MAX: usize = 64;

/// A connection that is kept between requests.
pub struct Http1 {
    stream: Box<dyn Io>,
    pending: Vec<u8>,
    /// Answers so far.
    pub answers: u64,
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
    /// Whether it said that the connection is closed after it.
    pub last: bool,
}

/// What became of a connection on which nothing was asked.
#[derive(Debug)]
pub enum Idle {
    Open,
    Closed,
    /// Reset, or spoken to without having asked: a client may not be able to tell that from a lost answer.
    Broken(String),
}

impl Http1 {
    pub fn new(stream: Box<dyn Io>) -> Self {
        Self { stream, pending: Vec::new(), answers: 0 }
    }

    /// Asks for nothing for that long.
    pub async fn idle(&mut self, time: Duration) -> Idle {
        let mut byte = [0];
        match tokio::time::timeout(time, self.stream.read(&mut byte)).await {
            Err(_) => Idle::Open,
            Ok(Ok(0)) => Idle::Closed,
            Ok(Ok(_)) => Idle::Broken("the gateway sent what nobody had asked for".to_owned()),
            // The end of TCP without the end of TLS: nothing was under way, so nothing is missing.
            Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => Idle::Closed,
            Ok(Err(error)) => Idle::Broken(format!("{error} while idle")),
        }
    }

    /// Sends a request in one piece and reads its answer.
    ///
    /// # Errors
    /// There was no whole answer, in words.
    pub async fn request(&mut self, method: &str, path: &str, body: &[u8]) -> Result<Answer, String> {
        let mut bytes = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n").into_bytes();
        if method != "GET" {
            bytes.extend_from_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(body);
        self.send(&bytes).await?;
        self.answer().await
    }

    /// Sends these bytes. When they cannot be sent, what the gateway said meanwhile is part of the error.
    pub async fn send(&mut self, bytes: &[u8]) -> Result<(), String> {
        let write = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        match tokio::time::timeout(PATIENCE, write).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                let said = self.answer().await;
                Err(format!("{error} while sending; then {said:?}"))
            }
            Err(_) => Err(format!("nothing was taken for {PATIENCE:?}")),
        }
    }

    /// Reads the next answer.
    pub async fn answer(&mut self) -> Result<Answer, String> {
        let (head_len, status, length, last) = loop {
            if let Some(head) = parse(&self.pending)? {
                break head;
            }
            self.more("in place of an answer").await?;
        };
        self.pending.drain(..head_len);
        let body = match length {
            Length::Bytes(length) => self.take(length).await?,
            Length::Chunked => self.chunks().await?,
        };
        self.answers += 1;
        Ok(Answer { status, body, last })
    }

    async fn chunks(&mut self) -> Result<Vec<u8>, String> {
        let mut body = Vec::new();
        loop {
            let line = loop {
                if let Some(end) = self.pending.windows(2).position(|pair| pair == b"\r\n") {
                    break self.take(end + 2).await?;
                }
                self.more("in a chunked body").await?;
            };
            let text = String::from_utf8_lossy(&line);
            let size =
                usize::from_str_radix(text.trim_end(), 16).map_err(|_| format!("chunk size {text:?}"))?;
            let chunk = self.take(size + 2).await?;
            if size == 0 {
                return Ok(body);
            }
            body.extend_from_slice(&chunk[..size]);
        }
    }

    async fn take(&mut self, length: usize) -> Result<Vec<u8>, String> {
        while self.pending.len() < length {
            self.more("in a body").await?;
        }
        Ok(self.pending.drain(..length).collect())
    }

    async fn more(&mut self, place: &str) -> Result<(), String> {
        match tokio::time::timeout(PATIENCE, self.stream.read_buf(&mut self.pending)).await {
            Ok(Ok(0)) => Err(format!("the connection ended {place}, after {} bytes", self.pending.len())),
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(format!("{error} {place}")),
            Err(_) => Err(format!("silence for {PATIENCE:?} {place}")),
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Length {
    Bytes(usize),
    Chunked,
}

/// Length of the head, status, length of the body, and whether the connection ends with it; `None` = not yet whole.
fn parse(bytes: &[u8]) -> Result<Option<(usize, u16, Length, bool)>, String> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut head = httparse::Response::new(&mut fields);
    let len = match head.parse(bytes).map_err(|error| format!("not an answer: {error}"))? {
        httparse::Status::Partial => return Ok(None),
        httparse::Status::Complete(len) => len,
    };
    let value = |name: &str| {
        let field = head.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name))?;
        Some(String::from_utf8_lossy(field.value).to_ascii_lowercase())
    };
    let length = match (value("transfer-encoding"), value("content-length")) {
        (Some(coding), _) if coding == "chunked" => Length::Chunked,
        (None, Some(length)) => Length::Bytes(length.parse().map_err(|_| format!("length {length:?}"))?),
        other => return Err(format!("an answer without an end: {other:?}")),
    };
    Ok(Some((len, head.code.unwrap_or(0), length, value("connection").as_deref() == Some("close"))))
}
