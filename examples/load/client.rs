//! Clients that ask again and again until the time is over.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::tally::{Tally, now};
use crate::tls::{self, Kind};

/// Nothing on this machine takes longer.
const PATIENCE: Duration = Duration::from_secs(30);
static PIECE: [u8; 64 * 1024] = [b'x'; 64 * 1024];

/// A new connection for each request, which the server ends; with `kind` over TLS, by such a handshake.
pub(crate) async fn each_its_own(
    address: &str,
    clients: u64,
    time: Duration,
    kind: Option<Kind>,
) -> io::Result<()> {
    let start = now();
    let mut all = JoinSet::new();
    for _ in 0..clients {
        let address = address.to_owned();
        let tls = kind.map(|kind| tls::Client::new(kind).map(|client| (client, kind))).transpose()?;
        all.spawn(async move {
            if let Some((client, Kind::Resumed)) = &tls {
                // The first session is what the others go on with.
                let stream = client.connect(TcpStream::connect(&address).await?).await?;
                once(stream).await?;
            }
            let mut tally = Tally::default();
            while start.elapsed() < time {
                let began = now();
                let outcome = timeout(PATIENCE, async {
                    let stream = TcpStream::connect(&address).await?;
                    stream.set_nodelay(true)?;
                    match &tls {
                        None => once(stream).await,
                        Some((client, kind)) => {
                            let stream = client.connect(stream).await?;
                            tls::is(&stream, *kind)?;
                            once(stream).await
                        }
                    }
                });
                tally.add(outcome.await.map_err(io::Error::from).flatten(), began.elapsed());
            }
            Ok::<_, io::Error>(tally)
        });
    }
    finish(all, start).await
}

/// So many requests in all, over connections that are kept. The file has a line for each, which are taken in turn: a path,
/// and behind it a token, if there is one.
pub(crate) async fn so_many(address: &str, clients: u64, count: u64, file: &str) -> io::Result<()> {
    let request = |line: &str| {
        let (path, token) = line.split_once(' ').unwrap_or((line, ""));
        let token =
            if token.is_empty() { String::new() } else { format!("Authorization: Bearer {token}\r\n") };
        format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{token}\r\n")
    };
    let requests: Arc<[String]> = std::fs::read_to_string(file)?.lines().map(request).collect();
    let (start, next) = (now(), Arc::new(AtomicU64::new(0)));
    let mut all = JoinSet::new();
    for _ in 0..clients {
        let (address, requests, next) = (address.to_owned(), requests.clone(), next.clone());
        all.spawn(async move {
            let mut tally = Tally::default();
            let mut connection = Answers::new(TcpStream::connect(&address).await?);
            connection.stream.set_nodelay(true)?;
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let turn = usize::try_from(index).ok().and_then(|index| index.checked_rem(requests.len()));
                let Some(request) = turn.and_then(|turn| requests.get(turn)).filter(|_| index < count) else {
                    return Ok(tally);
                };
                let began = now();
                connection.stream.write_all(request.as_bytes()).await?;
                tally.add(connection.answer().await, began.elapsed());
            }
        });
    }
    finish(all, start).await
}

/// Bodies of so many bytes, over connections that are kept: from the server, or to it.
pub(crate) async fn transfer(
    address: &str,
    clients: u64,
    time: Duration,
    post: bool,
    bytes: u64,
) -> io::Result<()> {
    let start = now();
    let mut all = JoinSet::new();
    for _ in 0..clients {
        let address = address.to_owned();
        all.spawn(async move {
            let mut tally = Tally::default();
            let mut connection = Answers::new(TcpStream::connect(&address).await?);
            while start.elapsed() < time {
                let began = now();
                let outcome = timeout(PATIENCE, exchange(&mut connection, post, bytes)).await;
                let outcome = outcome.map_err(io::Error::from).flatten();
                let failed = outcome.is_err();
                tally.add(outcome, began.elapsed());
                if failed {
                    connection = Answers::new(TcpStream::connect(&address).await?);
                }
            }
            Ok::<_, io::Error>(tally)
        });
    }
    finish(all, start).await
}

async fn finish(mut all: JoinSet<io::Result<Tally>>, start: Instant) -> io::Result<()> {
    let mut sum = Tally::default();
    while let Some(ended) = all.join_next().await {
        sum.join(ended??);
    }
    sum.report(start.elapsed());
    Ok(())
}

/// One request; the server has to end the connection after it.
async fn once<S: AsyncRead + AsyncWrite + Unpin>(stream: S) -> io::Result<u64> {
    let mut connection = Answers::new(stream);
    let head = b"GET /api/users/42 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    connection.stream.write_all(head).await?;
    let bytes = connection.answer().await?;
    match connection.stream.read(&mut connection.buf).await {
        Ok(0) => Ok(bytes),
        // An end without a close_notify is none to be proud of, but the answer had its length.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(bytes),
        Ok(_) => Err(io::Error::other("more than an answer")),
        Err(error) => Err(error),
    }
}

async fn exchange(connection: &mut Answers<TcpStream>, post: bool, bytes: u64) -> io::Result<u64> {
    if !post {
        let head = format!("GET /bytes/{bytes} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        connection.stream.write_all(head.as_bytes()).await?;
        let read = connection.answer().await?;
        return if read == bytes { Ok(bytes) } else { Err(io::Error::other("a body of another length")) };
    }
    let head = format!("POST /upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: {bytes}\r\n\r\n");
    connection.stream.write_all(head.as_bytes()).await?;
    let mut left = usize::try_from(bytes).map_err(io::Error::other)?;
    while left > 0 {
        let piece = PIECE.get(..left).unwrap_or(&PIECE);
        connection.stream.write_all(piece).await?;
        left -= piece.len();
    }
    let expected = format!("{{\"received\":{bytes}}}").len() as u64;
    if connection.answer().await? == expected { Ok(bytes) } else { Err(io::Error::other("another answer")) }
}

/// A connection and a place for what is read of it.
pub(crate) struct Answers<S> {
    pub(crate) stream: S,
    buf: Vec<u8>,
}

impl<S: AsyncRead + Unpin> Answers<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, buf: vec![0; 16 * 1024] }
    }

    /// Reads an answer, which has to be a 200 with a length, and says how long its body was.
    pub(crate) async fn answer(&mut self) -> io::Result<u64> {
        let mut held = 0;
        let end = loop {
            let read = self.stream.read(self.buf.get_mut(held..).unwrap_or_default()).await?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            held += read;
            let found = self.buf.get(..held).and_then(|held| memchr::memmem::find(held, b"\r\n\r\n"));
            if let Some(at) = found {
                break at + 4;
            }
        };
        let head = std::str::from_utf8(self.buf.get(..end).unwrap_or_default()).map_err(io::Error::other)?;
        if !head.starts_with("HTTP/1.1 200 ") {
            return Err(io::Error::other(head.lines().next().unwrap_or_default().to_owned()));
        }
        let mut fields = head.lines().filter_map(|line| line.split_once(':'));
        let length = fields.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
        let Some((_, length)) = length else { return Err(io::Error::other("an answer without a length")) };
        let length: u64 = length.trim().parse().map_err(io::Error::other)?;
        let mut missing =
            length.checked_sub((held - end) as u64).ok_or_else(|| io::Error::other("more than an answer"))?;
        if missing > 1024 * 1024 / 2 {
            self.buf.resize(256 * 1024, 0);
        }
        while missing > 0 {
            let most = usize::try_from(missing).unwrap_or(usize::MAX).min(self.buf.len());
            match self.stream.read(self.buf.get_mut(..most).unwrap_or_default()).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => missing -= read as u64,
            }
        }
        Ok(length)
    }
}
