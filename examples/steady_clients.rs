//! Well-behaved clients for `load-tests/slow-clients`, and an origin for them.
//!
//! ```text
//! steady_clients origin 127.0.0.1:3000                       1 KiB for everything, 8 MiB for /large; reads bodies
//! steady_clients load 127.0.0.1:8080 50 500 6                50 connections, 500 requests a second in all, 6 seconds
//! ```
//! Prints `requests errors p50 p99 max`, times in microseconds. Each request has its moment, and its time counts from
//! then: one that had to wait for the one before it does not look fast.

use std::io;
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["origin", address] => origin(address).await,
        ["load", address, connections, rate, seconds] => {
            let number = |text: &str| text.parse::<u32>().map_err(io::Error::other);
            load(address, number(connections)?, number(rate)?, number(seconds)?).await
        }
        _ => Err(io::Error::other(
            "usage: steady_clients origin ADDRESS | load ADDRESS CONNECTIONS RATE SECONDS",
        )),
    }
}

const PIECE_BYTES: usize = 64 * 1024;
static PIECE: &[u8] = &[b'x'; PIECE_BYTES];

async fn origin(address: &str) -> io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        #[expect(clippy::disallowed_methods, reason = "not the gateway")]
        tokio::spawn(async move {
            // A connection that breaks is the load's doing.
            let _ended = answer(stream).await;
        });
    }
}

async fn answer(stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    // A thousand answers that nobody reads must not fill the memory that this machine has for sockets: on the loopback
    // interface each would take megabytes of it.
    socket2::SockRef::from(&stream).set_send_buffer_size(PIECE_BYTES)?;
    let mut stream = BufReader::new(stream);
    while let Some((first, length)) = head(&mut stream).await? {
        tokio::io::copy(&mut (&mut stream).take(length), &mut tokio::io::sink()).await?;
        let (size, pieces) = if first.contains(" /large") { (PIECE_BYTES, 128) } else { (1024, 1) };
        let mut answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", size * pieces).into_bytes();
        answer.extend_from_slice(PIECE.get(..size).unwrap_or(PIECE));
        stream.get_mut().write_all(&answer).await?;
        for _ in 1..pieces {
            stream.get_mut().write_all(PIECE).await?;
        }
    }
    Ok(())
}

/// The first line of a head and the length of the body it announces; `None` at the end of the connection.
async fn head(stream: &mut BufReader<TcpStream>) -> io::Result<Option<(String, u64)>> {
    let (mut first, mut length) = (String::new(), 0);
    if stream.read_line(&mut first).await? == 0 {
        return Ok(None);
    }
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(None);
        }
        if line == "\r\n" {
            return Ok(Some((first, length)));
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().map_err(io::Error::other)?;
        }
    }
}

async fn load(address: &str, connections: u32, rate: u32, seconds: u32) -> io::Result<()> {
    let each = Duration::from_secs(1) * connections / rate;
    let end = now() + Duration::from_secs(seconds.into());
    let clients: Vec<_> = (0..connections)
        .map(|index| {
            let (address, start) = (address.to_owned(), now() + each * index / connections);
            #[expect(clippy::disallowed_methods, reason = "not the gateway")]
            tokio::spawn(async move { client(&address, start, each, end).await })
        })
        .collect();
    let (mut times, mut errors) = (Vec::new(), 0);
    for client in clients {
        let (measured, failed) = client.await?;
        times.extend(measured);
        errors += failed;
    }
    times.sort_unstable();
    let at = |share: f64| {
        let index = (times.len() as f64 * share) as usize;
        times.get(index.min(times.len().saturating_sub(1))).map_or(0, Duration::as_micros)
    };
    #[expect(clippy::print_stdout, reason = "what it is for")]
    {
        println!("{} {errors} {} {} {}", times.len(), at(0.5), at(0.99), at(1.0));
    }
    Ok(())
}

async fn client(address: &str, mut due: Instant, each: Duration, end: Instant) -> (Vec<Duration>, u32) {
    let (mut times, mut errors, mut connection) = (Vec::new(), 0, None);
    while due < end {
        tokio::time::sleep_until(due.into()).await;
        match request(&mut connection, address).await {
            Ok(()) => times.push(due.elapsed()),
            Err(_) => {
                errors += 1;
                connection = None;
            }
        }
        due += each;
    }
    (times, errors)
}

async fn request(connection: &mut Option<BufReader<TcpStream>>, address: &str) -> io::Result<()> {
    if connection.is_none() {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        *connection = Some(BufReader::new(stream));
    }
    let Some(stream) = connection else { return Err(io::ErrorKind::NotConnected.into()) };
    stream.get_mut().write_all(b"GET /small HTTP/1.1\r\nHost: localhost\r\n\r\n").await?;
    let Some((first, length)) = head(stream).await? else { return Err(io::ErrorKind::UnexpectedEof.into()) };
    let copied = tokio::io::copy(&mut stream.take(length), &mut tokio::io::sink()).await?;
    if copied == length && first.starts_with("HTTP/1.1 200 ") { Ok(()) } else { Err(io::Error::other(first)) }
}

fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "not the gateway")]
    Instant::now()
}
