//! An origin that keeps every byte that was sent to it, judges it strictly, and answers as scripted.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::Addressed;
use super::recorder_h2::Streams;
use super::strict::{self, Message};

/// What the recorder answers.
#[derive(Debug, Clone, Default)]
pub struct Reply {
    /// Exactly these bytes.
    pub bytes: Vec<u8>,
    /// They are written as soon as the head of the request is there, whatever of its body is still to come.
    pub early: bool,
    /// The connection is closed behind them.
    pub close: bool,
}

impl Reply {
    /// A plain answer whose body is `text`.
    pub fn ok(text: &str) -> Self {
        Self::exactly(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len()))
    }

    pub fn exactly(bytes: impl Into<Vec<u8>>) -> Self {
        Self { bytes: bytes.into(), ..Self::default() }
    }

    pub fn early(mut self) -> Self {
        self.early = true;
        self
    }

    pub fn closing(mut self) -> Self {
        self.close = true;
        self
    }
}

/// Everything that came on one connection.
#[derive(Debug, Clone, Default)]
pub struct Recorded {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// The gateway has closed it, or the recorder has.
    pub ended: bool,
    /// What came over HTTP/2 is judged as it comes.
    pub streams: Option<Streams>,
}

impl Recorded {
    /// The whole requests on it, and what it was cut off in.
    ///
    /// # Errors
    /// If the bytes are anything else.
    pub fn requests(&self) -> Result<strict::Messages, String> {
        match &self.streams {
            Some(streams) => streams.judged(),
            None => strict::requests(&self.bytes),
        }
    }

    /// Requests over HTTP/2 that were reset before they were whole.
    pub fn broken(&self) -> &[Message] {
        self.streams.as_ref().map_or(&[], |streams| &streams.broken)
    }
}

type Script = Arc<dyn Fn(&Message) -> Reply + Send + Sync>;

/// The origin.
pub struct Recorder {
    address: SocketAddr,
    connections: Arc<Mutex<Vec<Recorded>>>,
    accepting: JoinHandle<()>,
}

impl Recorder {
    /// Answers each request with its own target.
    pub async fn echoing() -> Self {
        Self::start(None, |request| Reply::ok(&request.target)).await
    }

    /// Answers as `script` says; over TLS with `tls`.
    pub async fn start(
        tls: Option<Arc<rustls::ServerConfig>>,
        script: impl Fn(&Message) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(Mutex::new(Vec::new()));
        let (all, script): (_, Script) = (connections.clone(), Arc::new(script));
        let acceptor = tls.map(tokio_rustls::TlsAcceptor::from);
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                let (all, script, acceptor) = (all.clone(), script.clone(), acceptor.clone());
                tokio::spawn(async move {
                    match acceptor {
                        None => serve(stream, &all, &script).await,
                        Some(acceptor) => {
                            if let Ok(stream) = acceptor.accept(stream).await {
                                serve(stream, &all, &script).await;
                            }
                        }
                    }
                });
            }
        });
        Self { address, connections, accepting }
    }

    /// What has come so far, one entry a connection.
    pub fn connections(&self) -> Vec<Recorded> {
        self.connections.lock().unwrap().clone()
    }
}

impl Addressed for Recorder {
    fn socket_address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, all: &Mutex<Vec<Recorded>>, script: &Script) {
    let index = {
        let mut all = all.lock().unwrap();
        all.push(Recorded::default());
        all.len() - 1
    };
    let mut pending = Vec::new();
    // The request under way was answered already.
    let mut answered = false;
    let mut buffer = vec![0; 64 * 1024];
    'connection: while let Ok(read @ 1..) = stream.read(&mut buffer).await {
        pending.extend_from_slice(&buffer[..read]);
        all.lock().unwrap()[index].bytes.extend_from_slice(&buffer[..read]);
        // What is no request is for the test to find; nobody answers it.
        let Ok(found) = strict::requests(&pending) else { continue };
        pending.drain(..found.bytes);
        let cut = found.cut.filter(|message| message.is_head_whole);
        for (message, is_whole) in found
            .whole
            .iter()
            .map(|message| (message, true))
            .chain(cut.iter().map(|message| (message, false)))
        {
            let reply = script(message);
            if !answered && (is_whole || reply.early) {
                if stream.write_all(&reply.bytes).await.is_err() || stream.flush().await.is_err() {
                    break 'connection;
                }
                if reply.close {
                    let _closed = stream.shutdown().await;
                    break 'connection;
                }
                answered = true;
            }
            if is_whole {
                answered = false;
            }
        }
    }
    all.lock().unwrap()[index].ended = true;
}
