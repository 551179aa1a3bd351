//! The PROXY protocol: who a connection is for, told by the proxy in front, and told to the services behind.

use std::net::{Ipv6Addr, SocketAddr};
use std::time::Duration;

use crate::support::*;

const V1: &str = "PROXY TCP4 192.0.2.1 198.51.100.7 12345 443\r\n";
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// A header of version 2: version and command, family, and what follows the length.
fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [SIGNATURE, &[command, family], &length, rest].concat()
}

/// The same client as in [`V1`], with an extension.
fn binary() -> Vec<u8> {
    let addresses = [192, 0, 2, 1, 198, 51, 100, 7, 0x30, 0x39, 0x01, 0xbb];
    v2(0x21, 0x11, &[&addresses[..], &[0x02, 0, 3], b"a.b"].concat())
}

const TRUSTED: &str = "[server]\ntrusted_proxies = [\"127.0.0.1/32\"]\n";
const LISTENER: &str = "[[listeners]]\nname = \"main\"\naddress = \"127.0.0.1:0\"\nproxy_protocol = true\n";
const FORMAT: &str = r#"[log.access]
format = '$request_uri client=$remote_addr:$remote_port peer=$realip_remote_addr header=$proxy_protocol_addr:$proxy_protocol_port to=$proxy_protocol_server_addr:$proxy_protocol_server_port local=$server_addr'
"#;

fn behind_a_proxy(app: &impl Addressed) -> GatewayBuilder {
    in_front_of(app, "").and(TRUSTED).and(LISTENER).and(FORMAT)
}

/// A raw connection that begins with `header`.
async fn introduced(gw: &Gateway, header: impl AsRef<[u8]>) -> RawClient {
    let mut raw = gw.raw().await;
    raw.send(header).await;
    raw
}

#[tokio::test]
async fn both_versions_name_the_client() {
    let app = upstream().start().await;
    let gw = behind_a_proxy(&app).start().await;
    for (path, header) in [("/one", V1.as_bytes().to_vec()), ("/two", binary())] {
        let mut raw = introduced(&gw, &header).await;
        // The header is the connection's: also for what comes later on it.
        for request in [path.to_owned(), format!("{path}/again")] {
            raw.get(&request).await.expect_status(200);
            let seen = app.last();
            assert_eq!(seen.header("x-forwarded-for"), Some("192.0.2.1"));
            assert_eq!(seen.header("x-real-ip"), Some("192.0.2.1"));
            assert_eq!(seen.header("x-forwarded-port"), Some("443"));
            let line = gw.logged(&format!("{request} ")).await;
            let expected = "client=192.0.2.1:12345 peer=127.0.0.1 header=192.0.2.1:12345 to=198.51.100.7:443 local=127.0.0.1";
            assert!(line.ends_with(expected), "{line}");
        }
    }
    let header = v2(
        0x21,
        0x21,
        &[&"2001:db8::7".parse::<Ipv6Addr>().unwrap().octets()[..], &[0; 16], &[0, 80, 0, 81]].concat(),
    );
    introduced(&gw, header).await.get("/six").await.expect_status(200);
    assert_eq!(app.last().header("x-forwarded-for"), Some("2001:db8::7"));
}

#[tokio::test]
async fn the_header_comes_before_tls_and_http2() {
    let authority = Authority::new();
    let app = upstream().start().await;
    let secure = LISTENER.replace("\"main\"", "\"secure\"");
    let gw = behind_a_proxy(&app)
        .and(&secure)
        .and("[[listeners.certificates]]\ncert = \"site.pem\"\nkey = \"site-key.pem\"\n")
        .identity("site", &authority.server(&["localhost"]))
        .start()
        .await;
    let trust = authority.client_config(&[], None);
    for header in [V1.as_bytes().to_vec(), binary()] {
        let plain = Client::new(gw.listener("main")).introduced_by(header.clone());
        let secure = Client::new(gw.listener("secure")).introduced_by(header).tls(&trust, "localhost");
        for client in [plain.clone(), plain.http2(), secure.clone(), secure.http2()] {
            let echo = client.get("/").await.expect_status(200).echo();
            assert_eq!(echo.header("x-forwarded-for").as_deref(), Some("192.0.2.1"));
        }
    }
}

/// A sender of somebody else's making.
#[tokio::test]
async fn curl_is_understood() {
    let app = upstream().start().await;
    let gw = behind_a_proxy(&app).start().await;
    let out = curl(&["--haproxy-protocol", &format!("http://{}/curl", gw.address())]).await;
    assert_eq!(out.status, 0, "{}", out.stderr);
    let line = gw.logged("/curl").await;
    assert!(line.contains(&format!("to=127.0.0.1:{}", gw.address().port())), "{line}");
}

#[tokio::test]
async fn a_header_may_come_in_pieces() {
    let app = upstream().start().await;
    let gw = behind_a_proxy(&app).start().await;
    for header in [V1.as_bytes().to_vec(), binary()] {
        let mut raw = gw.raw().await;
        let request = b"GET /pieces HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec();
        for byte in [header, request].concat() {
            raw.send([byte]).await;
        }
        raw.response().await.expect_status(200);
        assert_eq!(app.last().header("x-forwarded-for"), Some("192.0.2.1"));
    }
}

/// The named client is the client to every policy.
#[tokio::test]
async fn rules_and_hashes_go_by_the_named_client() {
    let (one, two) = (upstream().named("one").start().await, upstream().named("two").start().await);
    let gw = gateway(
        "[upstreams.app]\nservers = [\"{one}\", \"{two}\"]\nbalance = { hash = \"ip\" }\n\
         [[routes]]\npath = \"/*\"\nupstream = \"app\"\nip = { allow = [\"192.0.2.0/24\"] }\n",
    )
    .with("one", &one)
    .with("two", &two)
    .and(TRUSTED)
    .and(LISTENER)
    .start()
    .await;
    for client in 1..=20 {
        let header = format!("PROXY TCP4 192.0.2.{client} 198.51.100.7 1 443\r\n");
        let mut servers = Vec::new();
        for _ in 0..3 {
            let answer = introduced(&gw, &header).await.get("/").await.expect_status(200);
            servers.push(answer.header("x-server").unwrap().to_owned());
        }
        servers.dedup();
        assert_eq!(servers.len(), 1, "{client}: {servers:?}");
    }
    assert!(one.requests() > 0 && two.requests() > 0, "{} and {}", one.requests(), two.requests());
    let stranger = "PROXY TCP4 203.0.113.1 198.51.100.7 1 443\r\n";
    introduced(&gw, stranger).await.get("/").await.expect_problem(403, "access.ip_denied");
}

/// The named address is to forwarding headers what a direct peer's is; and who is not named has no word at all.
#[tokio::test]
async fn forwarding_headers_are_believed_of_the_named_peer_only() {
    let app = upstream().start().await;
    let gw = in_front_of(&app, "")
        .and("[server]\ntrusted_proxies = [\"127.0.0.1/32\", \"198.18.0.0/15\"]\n")
        .and(LISTENER)
        .start()
        .await;
    let request = "GET /x HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 203.0.113.9\r\n\r\n";
    for (header, client, forwarded) in [
        (V1.as_bytes().to_vec(), "192.0.2.1", "192.0.2.1"),
        // A proxy that is trusted, too, behind the one that is connected.
        (b"PROXY TCP4 198.18.0.1 198.51.100.7 1 443\r\n".to_vec(), "203.0.113.9", "203.0.113.9, 198.18.0.1"),
        // The proxy itself asks.
        (v2(0x20, 0x00, b""), "203.0.113.9", "203.0.113.9, 127.0.0.1"),
        // It asks for somebody whom it does not name: what stands in the request is his.
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1", "127.0.0.1"),
        (v2(0x21, 0x00, b""), "127.0.0.1", "127.0.0.1"),
        (v2(0x21, 0x31, &[b'/'; 216]), "127.0.0.1", "127.0.0.1"),
    ] {
        let mut raw = introduced(&gw, &header).await;
        raw.send(request).await;
        raw.response().await.expect_status(200);
        let seen = app.last();
        assert_eq!(seen.header("x-real-ip"), Some(client), "{header:?}");
        assert_eq!(seen.header("x-forwarded-for"), Some(forwarded), "{header:?}");
    }
}

/// Whatever is wrong, the connection is closed without a word, counted, and mentioned once.
#[tokio::test]
async fn others_are_closed_and_counted() {
    let app = upstream().start().await;
    let gw = behind_a_proxy(&app).and("[limits]\nheader_timeout = \"400ms\"\n").start().await;
    let rejected = async |reason: &str, count| {
        let labels = [&*format!("reason=\"{reason}\""), "listener=\"main\""];
        gw.metric_is("edgeward_connections_rejected_total", &labels, count).await;
    };
    for _ in 0..3 {
        introduced(&gw, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.closed().await;
        introduced(&gw, "PROXY TCP4 192.0.2.1 198.51.100.7 012345 443\r\n").await.closed().await;
        introduced(&gw, v2(0x21, 0x12, &[0; 12])).await.closed().await;
    }
    rejected("proxy_missing", 3.0).await;
    rejected("proxy_malformed", 6.0).await;
    // However it drips, and if nothing comes at all.
    let mut silent = gw.raw().await;
    let mut dripping = introduced(&gw, SIGNATURE).await;
    let mut ticks = tokio::time::interval(Duration::from_millis(50));
    for byte in v2(0x21, 0x11, &[0; 40]).into_iter().skip(SIGNATURE.len()) {
        ticks.tick().await;
        if !dripping.try_send([byte]).await {
            break;
        }
    }
    silent.closed().await;
    dripping.closed().await;
    rejected("proxy_timeout", 2.0).await;
    // A probe that only connects is nobody's fault.
    drop(gw.raw().await);
    introduced(&gw, V1).await.get("/fine").await.expect_status(200);
    assert!(app.seen().iter().all(|seen| seen.uri.path() == "/fine"));
    for part in ["something else than a PROXY header", "is malformed", "no PROXY header within"] {
        let said = async || (gw.stderr().matches(part).count() == 1).then_some(());
        eventually(&format!("one word of it: {part}"), said).await;
    }
    assert_eq!(gw.metric("edgeward_connections_rejected_total", &[]).await, Some(11.0));
}

#[tokio::test]
async fn nobody_else_may_name_clients() {
    let app = upstream().start().await;
    let gw = in_front_of(&app, "")
        .and("[server]\ntrusted_proxies = [\"10.0.0.0/8\"]\n")
        .and(LISTENER)
        .start()
        .await;
    for _ in 0..3 {
        introduced(&gw, V1).await.closed().await;
    }
    let labels = ["reason=\"proxy_untrusted\""];
    gw.metric_is("edgeward_connections_rejected_total", &labels, 3.0).await;
    let said = async || (gw.stderr().matches("trusted_proxies does not name").count() == 1).then_some(());
    eventually("one word of it", said).await;
    assert_eq!(app.requests(), 0);
    let gw = in_front_of(&app, "").start().await;
    introduced(&gw, V1).await.response().await.expect_problem(400, "request.malformed");
}

/// A unix socket counts as the loopback address, here as elsewhere.
#[tokio::test]
async fn a_proxy_on_a_unix_socket_is_trusted_as_loopback() {
    let app = upstream().start().await;
    for (trusted, is_trusted) in [("127.0.0.1/32", true), ("10.0.0.0/8", false)] {
        let gw = in_front_of(&app, "")
            .and(&format!("[server]\ntrusted_proxies = [\"{trusted}\"]\n"))
            .and("[[listeners]]\nname = \"main\"\naddress = \"unix:edge.sock\"\nproxy_protocol = true\n")
            .start()
            .await;
        let mut raw = RawClient::connect_unix(&gw.directory().join("edge.sock")).await;
        let request = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
        raw.try_send(format!("{V1}{request}")).await;
        if is_trusted {
            raw.response().await.expect_status(200);
            assert_eq!(app.last().header("x-forwarded-for"), Some("192.0.2.1"));
        } else {
            raw.closed().await;
        }
    }
    assert_eq!(app.requests(), 1);
}

/// The cap of an address is the named client's, not the proxy's.
#[tokio::test]
async fn caps_count_the_named_client() {
    let app = upstream().start().await;
    let gw = behind_a_proxy(&app).and("[limits]\nconnections_per_address = 2\n").start().await;
    let mut held = Vec::new();
    for client in 1..=3 {
        for _ in 0..2 {
            let header = format!("PROXY TCP4 192.0.2.{client} 198.51.100.7 1 443\r\n");
            let mut raw = introduced(&gw, header).await;
            raw.get("/").await.expect_status(200);
            held.push(raw);
        }
    }
    introduced(&gw, V1).await.closed().await;
    gw.metric_is("edgeward_connections_rejected_total", &["reason=\"address\""], 1.0).await;
    held.remove(0);
    eventually("the place to be free again", async || {
        let mut raw = introduced(&gw, V1).await;
        raw.try_send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        raw.response_or_close().await
    })
    .await
    .expect_status(200);
}

/// The header in front of a connection to a service: for whom, and where it was connected to.
fn named(bytes: &[u8]) -> (SocketAddr, SocketAddr) {
    let rest = bytes.strip_prefix(SIGNATURE).unwrap_or_else(|| panic!("{bytes:?}"));
    assert_eq!(rest[..4], [0x21, 0x11, 0, 12]);
    let address = |at: usize, port: usize| {
        let ip: [u8; 4] = rest[at..at + 4].try_into().unwrap();
        SocketAddr::from((ip, u16::from_be_bytes([rest[port], rest[port + 1]])))
    };
    (address(4, 12), address(8, 14))
}

/// A service that reads the header of each connection, then answers.
async fn service() -> RawUpstream {
    RawUpstream::script(|mut peer| async move {
        let fixed = peer.body(16).await;
        let [.., high, low] = fixed[..] else { return };
        peer.body(usize::from(u16::from_be_bytes([high, low]))).await;
        while peer.head().await.is_some() {
            peer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        }
    })
    .await
}

#[tokio::test]
async fn services_are_told_whose_connection_it_is() {
    let app = service().await;
    let gw = in_front_of(&app, "proxy_protocol = true").start().await;
    let mut one = gw.raw().await;
    one.get("/a").await.expect_status(200);
    let (source, destination) = named(&app.received()[0]);
    assert_eq!((source.ip().to_string().as_str(), destination), ("127.0.0.1", gw.address()));
    assert_ne!(source.port(), 0);
    // A connection is used again for the same client, and for nobody else.
    eventually("the connection to be used again", async || {
        let before = app.connections();
        one.get("/a").await.expect_status(200);
        (app.connections() == before).then_some(())
    })
    .await;
    let before = app.connections();
    let mut two = gw.raw().await;
    two.get("/b").await.expect_status(200);
    assert_eq!(app.connections(), before + 1);
    let (other, _) = named(app.received().last().unwrap());
    assert_ne!(source.port(), other.port());
    assert!(app.received()[..before].iter().all(|bytes| !String::from_utf8_lossy(bytes).contains("/b")));
}

/// What a trusted proxy says of the client is passed on, in whichever protocol it said so.
#[tokio::test]
async fn services_are_told_of_the_client_behind_proxies() {
    let app = service().await;
    let plain = "[[listeners]]\nname = \"plain\"\naddress = \"127.0.0.1:0\"\n";
    let gw = in_front_of(&app, "proxy_protocol = true").and(TRUSTED).and(LISTENER).and(plain).start().await;
    RawClient::connect(gw.listener("main")).await.send(V1).await.get("/").await.expect_status(200);
    let told = ("192.0.2.1:12345".parse().unwrap(), "198.51.100.7:443".parse().unwrap());
    assert_eq!(named(&app.received()[0]), told);
    let client = Client::new(gw.listener("plain"));
    client.get("/").header("x-forwarded-for", "203.0.113.9").await.expect_status(200);
    let (source, destination) = named(&app.received()[1]);
    assert_eq!((source, destination), ("203.0.113.9:0".parse().unwrap(), gw.listener("plain")));
    // Nobody knows whose it is.
    let mut raw = RawClient::connect(gw.listener("main")).await;
    raw.send("PROXY UNKNOWN\r\n").await.get("/").await.expect_status(200);
    assert!(app.received()[2].starts_with(&v2(0x21, 0x00, b"")), "{:?}", app.received()[2]);
}

/// One gateway in front of another, with TLS between them.
#[tokio::test]
async fn one_gateway_understands_another() {
    let authority = Authority::new();
    let app = upstream().start().await;
    let back = behind_a_proxy(&app)
        .and("[[listeners.certificates]]\ncert = \"site.pem\"\nkey = \"site-key.pem\"\n")
        .identity("site", &authority.server(&["localhost"]))
        .start()
        .await;
    let front = gateway(&format!(
        "[upstreams.back]\nservers = [\"{}\"]\nproxy_protocol = true\ntls = {{ sni = \"localhost\", ca = \"ca.pem\" }}\n\
         [[routes]]\npath = \"/*\"\nupstream = \"back\"\n",
        back.address()
    ))
    .file("ca.pem", &authority.pem)
    .start()
    .await;
    for _ in 0..2 {
        let mut raw = front.raw().await;
        for _ in 0..3 {
            raw.get("/chain").await.expect_status(200);
        }
    }
    let line = back.logged("/chain").await;
    assert!(line.contains(&format!("to={}", front.address())), "{line}");
}

/// Health checks are the gateway's own connections.
#[tokio::test]
async fn health_checks_speak_for_themselves() {
    for (path, what) in [("", &b""[..]), ("path = \"/health\"\n", b"GET /health HTTP/1.1\r\n")] {
        let app = service().await;
        let settings =
            format!("proxy_protocol = true\n[upstreams.app.health_check]\n{path}interval = \"100ms\"\n");
        let gw = in_front_of(&app, &settings).start().await;
        let local = [&v2(0x20, 0x00, b"")[..], what].concat();
        eventually("a check", async || {
            app.received().iter().any(|bytes| bytes.starts_with(&local)).then_some(())
        })
        .await;
        gw.get("/").await.expect_status(200);
        gw.metric_is("edgeward_upstream_backend_up", &["upstream=\"app\""], 1.0).await;
    }
}

/// Tunnels are introduced as all other connections are.
#[tokio::test]
async fn services_are_told_whose_tunnel_it_is() {
    let app = RawUpstream::script(|mut peer| async move {
        peer.body(16 + 12).await;
        peer.head().await;
        peer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
            .await;
        let said = peer.body(2).await;
        peer.write(&said).await;
        peer.rest().await;
    })
    .await;
    let gw = in_front_of(&app, "proxy_protocol = true").start().await;
    let mut raw = gw.raw().await;
    raw.send(
        "GET /tunnel HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    )
    .await;
    raw.response().await.expect_status(101);
    raw.send("hi").await;
    assert_eq!(raw.read_exactly(2).await, b"hi");
    let (source, destination) = named(&app.received()[0]);
    assert_eq!((source.ip().to_string().as_str(), destination), ("127.0.0.1", gw.address()));
}
