//! A WebSocket server that sends back what it is sent: what `load-tests/websocket-suite` asks directly and through the gateway.
//!
//! Prints its address, and serves until its standard input ends.
#![allow(clippy::print_stdout, reason = "its output is its address")]

use std::io::Read;

use futures_util::{SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::accept_async;

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    let ended = tokio::task::spawn_blocking(|| std::io::stdin().lock().read_to_end(&mut Vec::new()));
    let serve = async {
        loop {
            if let Ok((stream, _)) = listener.accept().await {
                #[expect(
                    clippy::disallowed_methods,
                    reason = "a program of its own, which nobody waits for"
                )]
                drop(tokio::spawn(echo(stream)));
            }
        }
    };
    tokio::select! {
        _ = ended => Ok(()),
        never = serve => never,
    }
}

async fn echo(stream: TcpStream) {
    let Ok(mut socket) = accept_async(stream).await else { return };
    while let Some(Ok(message)) = socket.next().await {
        if (message.is_text() || message.is_binary()) && socket.send(message).await.is_err() {
            return;
        }
    }
}
