//! Active checks, over real sockets.

use std::sync::atomic::AtomicBool;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::upstream::health::Thresholds;

fn check_every(interval: Duration, path: Option<&str>) -> Option<CheckSettings> {
    Some(CheckSettings {
        path: path.map(str::to_owned),
        interval,
        timeout: SECOND,
        thresholds: Thresholds { healthy_after: 1, unhealthy_after: 2 },
    })
}

/// A server on a free port that answers every request with 200, or with 503 while `failing`. Sends back what it was asked.
async fn http_server(failing: Arc<AtomicBool>) -> (String, tokio::sync::mpsc::Receiver<String>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (asked, heads) = tokio::sync::mpsc::channel(1024);
    task::spawn("test server", async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = vec![0; 4096];
            let Ok(read) = stream.read(&mut head).await else { continue };
            let status = if failing.load(Ordering::Relaxed) { "503 Service Unavailable" } else { "200 OK" };
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
            if stream.write_all(answer.as_bytes()).await.is_ok() && read > 0 {
                asked.try_send(String::from_utf8_lossy(&head[..read]).into_owned()).ok();
            }
        }
    });
    (address, heads)
}

/// Checks find out that a server is unwell and that it is well again; with all servers down nothing is sent.
#[tokio::test]
async fn http_checks_take_servers_out_and_back() {
    let failing = Arc::new(AtomicBool::new(false));
    let (address, mut heads) = http_server(failing.clone()).await;
    let settings = Settings {
        check: check_every(Duration::from_millis(10), Some("/health?deep=1")),
        host: HostSent::Name(HeaderValue::from_static("users.example")),
        ..settings(&[&address])
    };
    let upstream = upstream(settings);
    assert_eq!(states(&upstream, clock::now()), ["warming"]);
    upstream.start();
    upstream.warm().await;
    assert_eq!(states(&upstream, clock::now()), ["up"]);
    let head = heads.recv().await.unwrap();
    assert!(head.starts_with("GET /health?deep=1 HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("Host: users.example\r\n") || head.contains("host: users.example\r\n"), "{head}");

    failing.store(true, Ordering::Relaxed);
    eventually("unhealthy", || states(&upstream, clock::now()) == ["unhealthy"]).await;
    assert_eq!(first(&upstream, clock::now()).unwrap_err().reason, Reason::NoServer);
    let status = upstream.status(clock::now());
    assert_eq!(status.servers[0].last_error.as_ref().unwrap().0, "status 503");
    assert!(!status.is_ready());

    failing.store(false, Ordering::Relaxed);
    eventually("healthy", || states(&upstream, clock::now()) == ["up"]).await;
}

/// Without a path a connection is enough; a server that is down at the start is known as such after one check.
#[tokio::test]
async fn tcp_checks_only_connect() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let open = listener.local_addr().unwrap().to_string();
    let closed = {
        let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        gone.local_addr().unwrap().to_string()
    };
    let check = check_every(60 * SECOND, None);
    let upstream = upstream(Settings { check, ..settings(&[&open, &closed]) });
    upstream.start();
    upstream.warm().await;
    assert_eq!(states(&upstream, clock::now()), ["up", "unhealthy"]);
}

/// Background work ends with its upstream, and holds nothing of it any longer.
#[tokio::test]
async fn checks_end_with_the_upstream() {
    let (address, _heads) = http_server(Arc::default()).await;
    let check = check_every(Duration::from_millis(5), Some("/"));
    let upstream = upstream(Settings { check, ..settings(&[&address]) });
    upstream.start();
    upstream.warm().await;
    let server = Arc::downgrade(&upstream.servers()[0]);
    drop(upstream);
    eventually("gone", || server.upgrade().is_none()).await;
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

#[tokio::test]
async fn unix_sockets_are_checked_like_any_server() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("app.sock");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    task::spawn("test server", async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = [0; 4096];
            if stream.read(&mut head).await.is_ok() {
                stream.write_all(OK).await.ok();
            }
        }
    });
    let check = check_every(60 * SECOND, Some("/"));
    let upstream = upstream(Settings { check, ..settings(&[&format!("unix:{}", path.display())]) });
    upstream.start();
    upstream.warm().await;
    assert_eq!(states(&upstream, clock::now()), ["up"]);
}

/// Cleartext HTTP/2 cannot be negotiated: it is spoken at once.
#[tokio::test]
async fn http2_is_spoken_by_prior_knowledge() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    task::spawn("test server", async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut connection) = h2::server::handshake(stream).await else { continue };
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                assert_eq!(request.uri().path(), "/grpc");
                respond.send_response(http::Response::new(()), true).ok();
            }
        }
    });
    let check = check_every(60 * SECOND, Some("/grpc"));
    let upstream = upstream(Settings { check, http2: true, ..settings(&[&address]) });
    upstream.start();
    upstream.warm().await;
    assert_eq!(states(&upstream, clock::now()), ["up"]);
}

/// An authority and a certificate it signed for `name`, as files.
struct Pki {
    directory: tempfile::TempDir,
    server: Arc<rustls::ServerConfig>,
}

impl Pki {
    /// A server that proves `name` and wants a client certificate of the same authority.
    fn new(name: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().unwrap();
        let ca = params.self_signed(&key).unwrap();
        let issuer = rcgen::Issuer::new(params, key);
        let leaf_key = rcgen::KeyPair::generate().unwrap();
        let leaf =
            rcgen::CertificateParams::new([name.to_owned()]).unwrap().signed_by(&leaf_key, &issuer).unwrap();
        for (file, pem) in
            [("ca.pem", ca.pem()), ("leaf.pem", leaf.pem()), ("leaf-key.pem", leaf_key.serialize_pem())]
        {
            std::fs::write(directory.path().join(file), pem).unwrap();
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        roots.add(ca.der().clone()).unwrap();
        let verifier =
            rustls::server::WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone());
        let key = rustls::pki_types::PrivateKeyDer::try_from(leaf_key.serialize_der()).unwrap();
        let server = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(vec![leaf.der().clone()], key)
            .unwrap();
        Self { directory, server: server.into() }
    }

    async fn serve(&self) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let acceptor = tokio_rustls::TlsAcceptor::from(self.server.clone());
        task::spawn("test server", async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let mut head = [0; 4096];
                if stream.read(&mut head).await.is_ok() {
                    stream.write_all(OK).await.ok();
                }
            }
        });
        address
    }

    fn policy(&self, sni: &str, with_client: bool) -> TlsPolicy {
        let file = |name| self.directory.path().join(name);
        let client = with_client.then(|| tls::load_client(&file("leaf.pem"), &file("leaf-key.pem")).unwrap());
        TlsPolicy::new(Some(sni.into()), Some(tls::load_ca(&file("ca.pem")).unwrap()), client)
    }
}

/// Servers must prove the configured name to the configured authority; the gateway proves itself with its certificate.
#[tokio::test]
async fn tls_is_verified_both_ways() {
    let (pki, stranger) = (Pki::new("users.internal"), Pki::new("users.internal"));
    let address = pki.serve().await;
    for (policy, expected) in [
        (pki.policy("users.internal", true), "up"),
        (pki.policy("orders.internal", true), "unhealthy"),
        (pki.policy("users.internal", false), "unhealthy"),
        (stranger.policy("users.internal", true), "unhealthy"),
    ] {
        let check = check_every(60 * SECOND, Some("/"));
        let described = format!("{policy:?}");
        let upstream = upstream(Settings { check, tls: Some(policy), ..settings(&[&address]) });
        upstream.start();
        upstream.warm().await;
        let status = upstream.status(clock::now());
        assert_eq!(status.servers[0].state, expected, "{described}: {:?}", status.servers[0].last_error);
    }
}
