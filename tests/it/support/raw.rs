//! Servers below HTTP: exact bytes in, exact bytes out; ports that refuse; addresses that never answer.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::upstream::bound;

/// A server that is a script over the bytes of a connection.
pub struct RawUpstream {
    address: SocketAddr,
    received: Arc<Mutex<Vec<Vec<u8>>>>,
    accepting: JoinHandle<()>,
    connections: Arc<AtomicUsize>,
}

/// The server's end of one connection. Everything it reads is recorded.
pub struct RawPeer {
    stream: TcpStream,
    pending: Vec<u8>,
    received: Arc<Mutex<Vec<Vec<u8>>>>,
    /// Which connection this is, from 0.
    pub index: usize,
}

impl RawUpstream {
    /// Runs `script` for each connection.
    pub async fn script<F, Fut>(script: F) -> Self
    where
        F: Fn(RawPeer) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let received = Arc::new(Mutex::new(Vec::new()));
        let connections = Arc::new(AtomicUsize::new(0));
        let (record, counted) = (received.clone(), connections.clone());
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let index = counted.fetch_add(1, Ordering::SeqCst);
                record.lock().unwrap().push(Vec::new());
                let peer = RawPeer { stream, pending: Vec::new(), received: record.clone(), index };
                tokio::spawn(script(peer));
            }
        });
        Self { address, received, accepting, connections }
    }

    /// Answers each bodyless request of each connection with these bytes and keeps the connection.
    pub async fn answering(reply: impl Into<Vec<u8>>) -> Self {
        let reply: Arc<[u8]> = reply.into().into();
        Self::script(move |mut peer| {
            let reply = reply.clone();
            async move {
                while peer.head().await.is_some() {
                    peer.write(&reply).await;
                }
            }
        })
        .await
    }

    /// Answers the first request of each connection with these bytes, then closes.
    pub async fn answering_once(reply: impl Into<Vec<u8>>) -> Self {
        let reply: Arc<[u8]> = reply.into().into();
        Self::script(move |mut peer| {
            let reply = reply.clone();
            async move {
                if peer.head().await.is_some() {
                    peer.write(&reply).await;
                }
            }
        })
        .await
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The bytes received so far, one entry a connection.
    pub fn received(&self) -> Vec<Vec<u8>> {
        self.received.lock().unwrap().clone()
    }

    /// All connections' bytes as one text.
    pub fn received_text(&self) -> String {
        String::from_utf8_lossy(&self.received().concat()).into_owned()
    }

    /// How many connections were ever accepted.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for RawUpstream {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl RawPeer {
    /// The next request head with its blank line; `None` at the end of the connection.
    pub async fn head(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.pending.windows(4).position(|window| window == b"\r\n\r\n") {
                let head: Vec<u8> = self.pending.drain(..end + 4).collect();
                return Some(String::from_utf8_lossy(&head).into_owned());
            }
            self.fill().await?;
        }
    }

    /// Exactly this many bytes of body; fewer at the end of the connection.
    pub async fn body(&mut self, length: usize) -> Vec<u8> {
        while self.pending.len() < length && self.fill().await.is_some() {}
        self.pending.drain(..length.min(self.pending.len())).collect()
    }

    /// Waits for the other side to close; gives what came before that.
    pub async fn rest(&mut self) -> Vec<u8> {
        while self.fill().await.is_some() {}
        std::mem::take(&mut self.pending)
    }

    /// Everything received so far.
    pub fn seen(&self) -> Vec<u8> {
        self.received.lock().unwrap()[self.index].clone()
    }

    pub async fn write(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
        let _ = self.stream.flush().await;
    }

    /// Closes with RST.
    pub fn reset(self) {
        socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).unwrap();
    }

    async fn fill(&mut self) -> Option<()> {
        let mut buffer = [0; 16_384];
        let read = self.stream.read(&mut buffer).await.ok().filter(|read| *read > 0)?;
        self.pending.extend_from_slice(&buffer[..read]);
        self.received.lock().unwrap()[self.index].extend_from_slice(&buffer[..read]);
        Some(())
    }
}

/// A port that belongs to us and refuses every connection.
pub struct DeadPort {
    address: SocketAddr,
    _socket: socket2::Socket,
}

impl DeadPort {
    pub fn new() -> Self {
        let socket = bound("127.0.0.1:0".parse().unwrap());
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        Self { address, _socket: socket }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// An address where connecting neither works nor fails: its backlog is full and stays so.
pub struct Unreachable {
    address: SocketAddr,
    _listener: socket2::Socket,
    _filling: Vec<socket2::Socket>,
}

impl Unreachable {
    pub fn new() -> Self {
        let listener = bound("127.0.0.1:0".parse().unwrap());
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        // A backlog of n holds n + 1 connections; further SYNs are dropped.
        let filling = (0..4)
            .map(|_| {
                let socket =
                    socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
                socket.set_nonblocking(true).unwrap();
                let _ = socket.connect(&address.into());
                socket
            })
            .collect();
        Self { address, _listener: listener, _filling: filling }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
}
