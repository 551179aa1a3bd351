//! What a swap of the snapshot means for TLS: the next handshake is the new one's, open connections stay, tickets hold
//! for as long as the certificates do.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Empty;
use hyper_util::rt::{TokioExecutor, TokioIo};
use pingora::server::configuration::ServerConf;
use pingora_proxy::HttpProxy;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, HandshakeKind, RootCertStore};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::config::snapshot::{Current, Snapshot};
use crate::config::{Runtime, load, surroundings};
use crate::ingress::connection::Connections;
use crate::ingress::listen::Bound;
use crate::ingress::{self, Edge, Rules};
use crate::proxy::{Gateway, Tunnels};

/// A gateway in this process whose snapshot can be swapped, and the authority of both sides.
struct Served {
    directory: TempDir,
    authority: Issuer<'static, KeyPair>,
    runtime: Runtime,
    current: Arc<Current>,
    address: SocketAddr,
    _told: watch::Sender<bool>,
}

impl Served {
    async fn start(mode: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        let authority = Issuer::new(params, key);
        let runtime = Runtime::detached();
        renew(&directory, &authority);
        let snapshot = compile(&directory, &runtime, mode);
        let bound = Bound::bind(&snapshot.listeners[0].address).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], bound.port()));
        let current = Arc::new(Current::new(Arc::new(snapshot)));
        let told = watch::Sender::new(false);
        let metrics = runtime.metrics.clone();
        let tunnels = Tunnels::new(runtime.identity.directory().clone());
        let gateway = Gateway::new(current.clone(), metrics.clone(), told.subscribe(), tunnels);
        let mut app = HttpProxy::new(gateway.clone(), Arc::new(ServerConf::default()));
        app.handle_init_modules();
        let edge = Arc::new(Edge {
            app: Arc::new(app),
            direct: Some(Arc::new(gateway)),
            rules: Rules::Current(current.clone()),
            metrics,
            threads: Arc::default(),
            connections: Arc::new(Connections::default()),
            draining: told.subscribe(),
        });
        drop(crate::base::task::spawn("listener", {
            let stop = told.subscribe();
            async move { ingress::serve(edge, 0, bound, stop).await.unwrap() }
        }));
        Self { directory, authority, runtime, current, address, _told: told }
    }

    /// Compiles the files as they are now and swaps.
    fn swap(&self, mode: &str) {
        self.current.swap(Arc::new(compile(&self.directory, &self.runtime, mode)));
    }

    /// A client with a certificate of its own.
    fn alice(&self, protocol: &[u8]) -> Arc<ClientConfig> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "alice");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.authority).unwrap();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.directory.path().join("ca.pem")).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap();
        config.alpn_protocols = vec![protocol.to_vec()];
        Arc::new(config)
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }
}

/// A new certificate for the listener.
fn renew(directory: &TempDir, authority: &Issuer<'static, KeyPair>) {
    let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, authority).unwrap();
    std::fs::write(directory.path().join("site.pem"), certificate.pem()).unwrap();
    std::fs::write(directory.path().join("site-key.pem"), key.serialize_pem()).unwrap();
}

fn compile(directory: &TempDir, runtime: &Runtime, mode: &str) -> Snapshot {
    let (client_auth, auth) = match mode {
        "none" => (String::new(), ""),
        mode => (
            format!("client_auth = {{ ca = \"ca.pem\", mode = \"{mode}\" }}\n"),
            "auth = { with = [\"mtls\"] }\n",
        ),
    };
    let text = format!(
        "[log.access]\noutput = \"off\"\n[[listeners]]\nname = \"main\"\naddress = \"127.0.0.1:0\"\n{client_auth}\
         [[listeners.certificates]]\ncert = \"site.pem\"\nkey = \"site-key.pem\"\n\
         [[routes]]\npath = \"/*\"\n{auth}respond = {{ text = \"ok\" }}\n"
    );
    let file = directory.path().join("edgeward.toml");
    std::fs::write(&file, text).unwrap();
    let compiled = load(&file, surroundings()).compile(runtime);
    compiled.snapshot.unwrap_or_else(|| panic!("{:?}", compiled.diagnostics))
}

type Tls = TlsStream<TcpStream>;

async fn shake(tcp: TcpStream, config: &Arc<ClientConfig>) -> Tls {
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(config.clone()).connect(name, tcp).await.unwrap()
}

fn certificate(tls: &Tls) -> CertificateDer<'static> {
    tls.get_ref().1.peer_certificates().unwrap()[0].clone()
}

/// The status of one answer with a short body, read whole.
async fn get(tls: &mut Tls) -> u16 {
    tls.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&answer).to_ascii_lowercase();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
            if body.len() >= length.parse::<usize>().unwrap() {
                return text.split(' ').nth(1).unwrap().parse().unwrap();
            }
        }
        assert!(tls.read_buf(&mut answer).await.unwrap() > 0, "{text}");
    }
}

#[tokio::test]
async fn renewed_certificates_are_used_and_connections_kept() {
    let served = Served::start("optional").await;
    let client = served.alice(b"http/1.1");
    let mut open = shake(served.connect().await, &client).await;
    assert_eq!(get(&mut open).await, 200);
    // Connected before the swap, silent until after it.
    let waiting = served.connect().await;
    renew(&served.directory, &served.authority);
    served.swap("optional");
    let mut waited = shake(waiting, &client).await;
    assert_ne!(certificate(&waited), certificate(&open));
    assert_eq!(waited.get_ref().1.handshake_kind(), Some(HandshakeKind::Full), "no session of the old one");
    assert_eq!(get(&mut waited).await, 200);
    assert_eq!(get(&mut open).await, 200, "what was open is served on");
}

#[tokio::test]
async fn tickets_survive_a_swap_that_changes_no_rules() {
    let served = Served::start("none").await;
    let client = served.alice(b"http/1.1");
    let visit = async || {
        let mut tls = shake(served.connect().await, &client).await;
        // Tickets come with the answer.
        assert_eq!(get(&mut tls).await, 200);
        tls.get_ref().1.handshake_kind().unwrap()
    };
    assert_eq!(visit().await, HandshakeKind::Full);
    assert_eq!(visit().await, HandshakeKind::Resumed);
    served.swap("none");
    assert_eq!(visit().await, HandshakeKind::Resumed);
    served.swap("optional");
    assert_eq!(visit().await, HandshakeKind::Full, "who it is is asked each time");
    assert_eq!(visit().await, HandshakeKind::Full);
}

/// What was let in by other rules is asked to come again, and its connection ends.
#[tokio::test]
async fn connections_do_not_outlive_the_rules_they_were_let_in_by() {
    let served = Served::start("optional").await;
    let client = served.alice(b"http/1.1");
    let mut one = shake(served.connect().await, &client).await;
    assert_eq!(get(&mut one).await, 200);
    let h2 = shake(served.connect().await, &served.alice(b"h2")).await;
    let (mut two, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(h2)).await.unwrap();
    let connection = crate::base::task::spawn("client", async move { connection.await.unwrap() });
    let mut ask = async || {
        two.ready().await.unwrap();
        let request = http::Request::get("https://localhost/").body(Empty::<bytes::Bytes>::new()).unwrap();
        two.send_request(request).await.unwrap().status().as_u16()
    };
    assert_eq!(ask().await, 200);
    served.swap("required");
    assert_eq!(get(&mut one).await, 421);
    assert_eq!(one.read(&mut [0; 16]).await.unwrap_or(0), 0, "closed behind the answer");
    assert_eq!(ask().await, 421);
    // The server ends it (GOAWAY): the client would go on, its handle is held.
    tokio::time::timeout(Duration::from_secs(10), connection).await.unwrap().unwrap();
    assert!(two.ready().await.is_err());
    assert_eq!(get(&mut shake(served.connect().await, &client).await).await, 200);
}
