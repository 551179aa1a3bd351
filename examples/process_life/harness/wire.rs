//! Connections to the gateway: TCP, and TLS over it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Longest a client waits for anything. A whole run is slow on a busy machine, but not as slow as this.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// How a client reaches the gateway.
#[derive(Debug, Clone)]
pub struct Target {
    pub plain: SocketAddr,
    pub secure: SocketAddr,
    pub roots: Arc<RootCertStore>,
}

impl Target {
    /// A new connection; with TLS, offering `protocol` by ALPN.
    pub async fn connect(&self, tls: bool, protocol: &[u8]) -> io::Result<Box<dyn Io>> {
        let dial = async {
            let address = if tls { self.secure } else { self.plain };
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            if !tls {
                return Ok(Box::new(stream) as Box<dyn Io>);
            }
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
            let builder = builder.map_err(io::Error::other)?.with_root_certificates(self.roots.clone());
            let mut config = builder.with_no_client_auth();
            config.alpn_protocols = vec![protocol.to_vec()];
            let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
            let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
            Ok(Box::new(stream) as Box<dyn Io>)
        };
        tokio::time::timeout(PATIENCE, dial).await?
    }
}

/// Over what a client speaks, for messages.
pub fn over(tls: bool) -> &'static str {
    if tls { "over TLS" } else { "in cleartext" }
}
