//! WebSockets: one message after the other, and each comes back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use super::clients::Run;
use super::tally::{Count, Kind};
use super::wire::{PATIENCE, over};

/// Time between two messages.
const MESSAGE_EVERY: Duration = Duration::from_millis(50);

/// The server's side: sends back what comes, until the other side closes.
pub async fn echo<S: AsyncRead + AsyncWrite + Unpin>(mut socket: WebSocketStream<S>) {
    while let Some(Ok(message)) = socket.next().await {
        if (message.is_text() || message.is_binary()) && socket.send(message).await.is_err() {
            return;
        }
    }
}

/// One client: opens a socket and echoes; `lives` = closes it after a while, else keeps it for the whole run. Opens
/// another when one has ended.
pub async fn client(run: Arc<Run>, tls: bool, lives: Option<Duration>) {
    while !run.stopped() {
        run.tally.add(Kind::WebSocket, Count::Connection);
        let opened = Instant::now();
        if let Err(end) = socket(&run, tls, lives).await {
            if run.grace_is_over(opened) {
                run.tally.add(Kind::WebSocket, Count::Outlived);
            } else {
                let age = opened.elapsed().as_secs_f64();
                run.tally.fail(Kind::WebSocket, &format!("{}, {age:.3} s old: {end}", over(tls)));
                // A gateway that takes nobody in must not make us count millions.
                run.pause(Duration::from_millis(100)).await;
            }
        }
    }
}

/// A socket from its opening to its end; an error is an end that the client did not want.
async fn socket(run: &Run, tls: bool, lives: Option<Duration>) -> Result<(), String> {
    run.tally.add(Kind::WebSocket, Count::Request);
    let stream = run.target.connect(tls, b"http/1.1").await.map_err(|error| format!("connect: {error}"))?;
    let handshake = tokio::time::timeout(PATIENCE, client_async("ws://localhost/socket", stream)).await;
    let (mut socket, _) = handshake
        .map_err(|_| format!("no handshake within {PATIENCE:?}"))?
        .map_err(|error| format!("handshake: {error}"))?;
    run.tally.add(Kind::WebSocket, Count::Answer);
    let until = lives.map(|lives| Instant::now() + lives.mul_f64(0.5 + fastrand::f64()));
    for number in 0_u64.. {
        if run.stopped() || until.is_some_and(|until| Instant::now() >= until) {
            break;
        }
        run.tally.add(Kind::WebSocket, Count::Request);
        let text = format!("message {number}");
        socket.send(Message::text(text.clone())).await.map_err(|error| format!("sending: {error}"))?;
        match next(&mut socket).await? {
            Message::Text(back) if back.as_str() == text => run.tally.add(Kind::WebSocket, Count::Answer),
            Message::Close(frame) => {
                run.tally.add(Kind::WebSocket, Count::Announced);
                return Err(format!("a close frame: {frame:?}"));
            }
            other => return Err(format!("{text:?} came back as {other:?}")),
        }
        tokio::time::sleep(MESSAGE_EVERY).await;
    }
    close(socket).await
}

/// The closing handshake, begun by us.
async fn close<S: AsyncRead + AsyncWrite + Unpin>(mut socket: WebSocketStream<S>) -> Result<(), String> {
    socket.close(None).await.map_err(|error| format!("closing: {error}"))?;
    loop {
        match tokio::time::timeout(PATIENCE, socket.next()).await {
            Ok(None | Some(Err(Error::ConnectionClosed))) => return Ok(()),
            Ok(Some(Ok(_))) => {}
            Ok(Some(Err(error))) => return Err(format!("the closing handshake: {error}")),
            Err(_) => return Err(format!("no answer to the close frame within {PATIENCE:?}")),
        }
    }
}

async fn next<S: AsyncRead + AsyncWrite + Unpin>(socket: &mut WebSocketStream<S>) -> Result<Message, String> {
    match tokio::time::timeout(PATIENCE, socket.next()).await {
        Ok(Some(Ok(message))) => Ok(message),
        Ok(Some(Err(error))) => Err(error.to_string()),
        Ok(None) => Err("the connection ended".to_owned()),
        Err(_) => Err(format!("silence for {PATIENCE:?}")),
    }
}
