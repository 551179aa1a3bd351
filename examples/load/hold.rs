//! Connections that are used once and then do nothing.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::client::Answers;
use crate::tls::{Client, Kind};

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// Opens `count` connections, asks once over each, says `held`, and when standard input ends, how many are still open.
pub(crate) async fn run(address: &str, count: u64, tls: bool) -> io::Result<()> {
    let at_once = Arc::new(Semaphore::new(16));
    let tls = Arc::new(tls.then(|| Client::new(Kind::Full)).transpose()?);
    let mut opening = JoinSet::new();
    for _ in 0..count {
        let (address, at_once, tls) = (address.to_owned(), at_once.clone(), tls.clone());
        opening.spawn(async move {
            let _turn = at_once.acquire().await.map_err(io::Error::other)?;
            let stream = TcpStream::connect(&address).await?;
            let stream: Box<dyn Stream> = match &*tls {
                Some(client) => Box::new(client.connect(stream).await?),
                None => Box::new(stream),
            };
            let mut connection = Answers::new(stream);
            connection.stream.write_all(b"GET /idle HTTP/1.1\r\nHost: localhost\r\n\r\n").await?;
            connection.answer().await?;
            Ok::<_, io::Error>(connection.stream)
        });
    }
    let mut held = Vec::new();
    while let Some(opened) = opening.join_next().await {
        held.push(opened??);
    }
    crate::say("held");
    io::stdin().read_to_end(&mut Vec::new())?;
    // Until what came meanwhile is known.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let mut open = 0_u64;
    for stream in &mut held {
        // Nothing to read is what a connection has that is open and idle.
        let mut byte = [0];
        tokio::select! {
            biased;
            _ = stream.read(&mut byte) => {}
            () = tokio::task::yield_now() => open += 1,
        }
    }
    crate::say(&format!("{{\"open\":{open}}}"));
    Ok(())
}
