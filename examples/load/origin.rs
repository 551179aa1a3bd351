//! Services that do as little as they can: one read and one write an answer.

use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

const HEAD_BYTES: usize = 64 * 1024;
static PIECE: [u8; 64 * 1024] = [b'x'; 64 * 1024];

/// Serves on every address, each as a service of its own (`X-Origin` tells which):
///
/// - `/bytes/N`: N bytes;
/// - what ends in `/echo`: the head of the request, as it came;
/// - with a body: how long that was, as JSON;
/// - anything else: 1 KiB of JSON.
pub(crate) async fn run(addresses: &[&str]) -> io::Result<()> {
    let mut services = JoinSet::new();
    for (index, address) in addresses.iter().enumerate() {
        services.spawn(accept(TcpListener::bind(address).await?, index));
    }
    crate::say("ready");
    while let Some(ended) = services.join_next().await {
        ended??;
    }
    Ok(())
}

async fn accept(listener: TcpListener, index: usize) -> io::Result<()> {
    let body = format!("{{\"data\":\"{}\"}}", "x".repeat(1024 - 11));
    let usual: Bytes = [head(index, "application/json", body.len()), body.into_bytes()].concat().into();
    let usual = Arc::new(usual);
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        while connections.try_join_next().is_some() {}
        connections.spawn(serve(stream, usual.clone(), index));
    }
}

fn head(index: usize, kind: &str, length: usize) -> Vec<u8> {
    let lines = format!("Content-Type: {kind}\r\nContent-Length: {length}\r\nX-Origin: {index}\r\n");
    format!("HTTP/1.1 200 OK\r\n{lines}\r\n").into_bytes()
}

async fn serve(mut stream: TcpStream, usual: Arc<Bytes>, index: usize) -> io::Result<()> {
    let mut held = BytesMut::with_capacity(16 * 1024);
    loop {
        let end = loop {
            if let Some(at) = memchr::memmem::find(&held, b"\r\n\r\n") {
                break at + 4;
            }
            if held.len() > HEAD_BYTES || stream.read_buf(&mut held).await? == 0 {
                return Ok(());
            }
        };
        let request = held.split_to(end).freeze();
        if let Some(length) = announced(&request)? {
            drain(&mut stream, &mut held, length).await?;
            let body = format!("{{\"received\":{length}}}");
            let answer = [head(index, "application/json", body.len()), body.into_bytes()].concat();
            stream.write_all(&answer).await?;
            continue;
        }
        let path = <[u8]>::split(&request, |&byte| byte == b' ').nth(1).unwrap_or_default();
        if let Some(length) = path.strip_prefix(b"/bytes/") {
            let length = std::str::from_utf8(length).ok().and_then(|text| text.parse().ok());
            send(&mut stream, index, length.ok_or(io::ErrorKind::InvalidData)?).await?;
        } else if path.ends_with(b"/echo") {
            let answer = [head(index, "text/plain", request.len()), request.to_vec()].concat();
            stream.write_all(&answer).await?;
        } else {
            stream.write_all(&usual).await?;
        }
    }
}

/// The length of the body; `None` for a GET, which is not searched for one.
fn announced(request: &[u8]) -> io::Result<Option<usize>> {
    if request.starts_with(b"GET ") {
        return Ok(None);
    }
    let text = std::str::from_utf8(request).map_err(io::Error::other)?;
    let mut fields = text.lines().filter_map(|line| line.split_once(':'));
    let length = fields.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let Some((_, length)) = length else { return Err(io::Error::other("a body without a length")) };
    length.trim().parse().map(Some).map_err(io::Error::other)
}

async fn drain(stream: &mut TcpStream, held: &mut BytesMut, length: usize) -> io::Result<()> {
    let mut missing = length.saturating_sub(held.len());
    held.clear();
    let mut piece = vec![0; 256 * 1024];
    while missing > 0 {
        match stream.read(&mut piece).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => missing = missing.saturating_sub(count),
        }
    }
    Ok(())
}

async fn send(stream: &mut TcpStream, index: usize, length: usize) -> io::Result<()> {
    stream.write_all(&head(index, "application/octet-stream", length)).await?;
    let mut left = length;
    while left > 0 {
        let piece = PIECE.get(..left).unwrap_or(&PIECE);
        stream.write_all(piece).await?;
        left -= piece.len();
    }
    Ok(())
}
