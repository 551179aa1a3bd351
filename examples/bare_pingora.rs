//! The yardstick of `load-tests/request-cost`: the smallest possible proxy on Pingora, and an origin to put behind it.
//!
//! ```text
//! bare_pingora origin 127.0.0.1:3000                        answers everything with 1 KiB of JSON
//! bare_pingora proxy 127.0.0.1:8000 127.0.0.1:3000          forwards everything there
//! ```

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use pingora::modules::http::HttpModules;
use pingora::server::configuration::ServerConf;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Result, server::Server};
use pingora_proxy::{ProxyHttp, Session};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

struct Bare(SocketAddr);

#[async_trait]
impl ProxyHttp for Bare {
    type CTX = ();

    fn new_ctx(&self) {}

    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    async fn upstream_peer(&self, _session: &mut Session, _ctx: &mut ()) -> Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(self.0, false, String::new())))
    }
}

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["origin", address] => origin(address),
        ["proxy", address, origin] => {
            let origin = origin.parse().map_err(io::Error::other)?;
            proxy(address, origin);
            Ok(())
        }
        _ => Err(io::Error::other("usage: bare_pingora origin ADDRESS | proxy ADDRESS ORIGIN")),
    }
}

fn proxy(address: &str, origin: SocketAddr) {
    let conf = ServerConf { threads: 1, upstream_keepalive_pool_size: 1024, ..ServerConf::default() };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let mut service = pingora_proxy::http_proxy_service(&server.configuration, Bare(origin));
    service.add_tcp(address);
    server.add_service(service);
    server.run_forever();
}

/// As little as an origin can do: one read, one write.
fn origin(address: &str) -> io::Result<()> {
    let body = format!("{{\"data\":\"{}\"}}", "x".repeat(1024 - 11));
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let answer: Arc<[u8]> = answer.into_bytes().into();
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let listener = TcpListener::bind(address).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let answer = answer.clone();
            #[expect(clippy::disallowed_methods, reason = "not part of the gateway")]
            drop(tokio::spawn(async move { drop(serve(stream, &answer).await) }));
        }
    })
}

async fn serve(mut stream: TcpStream, answer: &[u8]) -> io::Result<()> {
    let mut buf = [0; 4096];
    let mut held = 0;
    loop {
        let count = stream.read(buf.get_mut(held..).unwrap_or_default()).await?;
        if count == 0 {
            return Ok(());
        }
        held += count;
        if buf.get(..held).is_some_and(|head| head.ends_with(b"\r\n\r\n")) {
            stream.write_all(answer).await?;
            held = 0;
        }
    }
}
