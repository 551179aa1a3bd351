//! Caps on connections count connections, of every kind and one each, and give every place back, whatever ends them.

use std::time::Duration;

use futures_util::future::BoxFuture;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::*;

const OK: &str = "[[routes]]\npath = \"/ok\"\nrespond = { status = 200, text = \"ok\" }\n";
const UPGRADE: &str = "GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// What holds a connection until it is dropped.
type Held = Box<dyn Send>;
/// Opens a connection of a kind; `None` if it was closed unheard.
type Open = Box<dyn Fn() -> BoxFuture<'static, Option<Held>> + Send>;

fn kind<F>(open: impl Fn() -> F + Send + 'static) -> Open
where
    F: Future<Output = Option<Held>> + Send + 'static,
{
    Box::new(move || Box::pin(open()))
}

/// Over HTTP/1.1 or HTTP/2, with as many streams at once as a connection may have.
fn client(client: Client, streams: usize) -> Open {
    kind(move || {
        let client = client.clone();
        async move {
            let connection = client.try_connect().await.ok()?;
            let asked: Vec<_> = (0..streams).map(|_| connection.get("/ok").send()).collect();
            for answer in futures_util::future::join_all(asked).await {
                answer.ok()?.expect_status(200);
            }
            Some(Box::new(connection) as Held)
        }
    })
}

fn tunnel(address: std::net::SocketAddr) -> Open {
    kind(move || async move {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(UPGRADE.as_bytes()).await.ok()?;
        let mut head = [0; 12];
        within("the tunnel to open", stream.read_exact(&mut head)).await.ok()?;
        assert_eq!(&head, b"HTTP/1.1 101");
        Some(Box::new(stream) as Held)
    })
}

/// Three of each kind are let in, a fourth is not; once they are gone there is room for three again.
async fn holds_three(gw: &Gateway, listener: &str, reason: &str, open: &Open) {
    let (open_now, label) = ("edgeward_connections_open", format!("listener=\"{listener}\""));
    let rejected = async || {
        let labels = [&*format!("reason=\"{reason}\""), &*label];
        gw.metric("edgeward_connections_rejected_total", &labels).await.unwrap_or(0.0)
    };
    for _ in 0..2 {
        let mut held = Vec::new();
        for number in 0..3 {
            let opened = open().await;
            held.push(opened.unwrap_or_else(|| panic!("{listener}: number {number} was closed")));
        }
        gw.metric_is(open_now, &[&label], 3.0).await;
        let before = rejected().await;
        assert!(open().await.is_none(), "{listener}: a fourth was let in");
        eventually("it to be counted", async || (rejected().await == before + 1.0).then_some(())).await;
        gw.metric_is(open_now, &[&label], 3.0).await;
        drop(held);
        gw.metric_is(open_now, &[&label], 0.0).await;
    }
}

#[tokio::test]
async fn connections_count_once_whatever_they_carry() {
    let authority = Authority::new();
    let app = upstream().otherwise(Answer::WebSocket).start().await;
    let header = |address: u8| format!("PROXY TCP4 192.0.2.{address} 198.51.100.7 1 443\r\n");
    for (limit, reason) in [("connections", "connections"), ("connections_per_address", "address")] {
        for proxied in [false, true] {
            let trust = if proxied { "[server]\ntrusted_proxies = [\"127.0.0.1\"]\n" } else { "" };
            let builder = in_front_of(&app, "").and(OK).and(trust).listener("plain", "127.0.0.1:0");
            let builder = if proxied { builder.and("proxy_protocol = true\n") } else { builder };
            let builder = builder.tls_listener("tls", &["site"]);
            let builder = if proxied {
                builder.replacing(
                    "[[listeners]]\nname = \"tls\"\n",
                    "[[listeners]]\nname = \"tls\"\nproxy_protocol = true\n",
                )
            } else {
                builder
            };
            let gw = builder
                .identity("site", &authority.server(&["localhost"]))
                .and(&format!("[limits]\n{limit} = 3\n"))
                .start()
                .await;
            let introduced = |client: Client| if proxied { client.introduced_by(header(1)) } else { client };
            let plain = introduced(Client::new(gw.listener("plain")));
            let tls = introduced(Client::new(gw.listener("tls")));
            let tls = tls.tls(&authority.client_config(&[], None), "localhost");
            let mut kinds = vec![
                ("plain", client(plain.clone(), 1)),
                ("plain", client(plain.http2(), 50)),
                ("tls", client(tls.clone(), 1)),
                ("tls", client(tls.http2(), 50)),
            ];
            if !proxied {
                kinds.push(("plain", tunnel(gw.listener("plain"))));
            }
            for (listener, open) in &kinds {
                holds_three(&gw, listener, reason, open).await;
            }
        }
    }
}

/// Every way in which a connection ends gives its place back, in all and of its address.
#[tokio::test]
async fn every_end_gives_the_place_back() {
    let authority = Authority::new();
    let app = upstream().on("/hang", Answer::Hang).on("/large", Answer::Zeros(64 << 20)).start().await;
    let gw = in_front_of(&app, "timeouts = { read = \"10s\" }")
        .and(OK)
        .and("[[routes]]\npath = \"/boom\"\nrespond = { text = \"\" }\n")
        .and(
            "[limits]\nconnections = 1\nconnections_per_address = 1\nheader_timeout = \"300ms\"\nidle_timeout = \"300ms\"\n\
             body_timeout = \"300ms\"\nmin_body_rate = \"10KiB/s\"\n[server]\ncontrol_socket = \"control.sock\"\n",
        )
        .listener("plain", "127.0.0.1:0")
        .tls_listener("tls", &["site"])
        .identity("site", &authority.server(&["localhost"]))
        .env("EDGEWARD_FAULT", "panic:request=/boom")
        .start()
        .await;
    let (plain, tls) = (gw.listener("plain"), gw.listener("tls"));
    let free = async |what: &str| {
        let asked = async || {
            let answer = Client::new(plain).get("/ok").send().await.ok()?;
            (answer.status == 200).then_some(())
        };
        eventually(&format!("the place to be free after: {what}"), asked).await;
        for listener in ["plain", "tls"] {
            gw.metric_is("edgeward_connections_open", &[&format!("listener=\"{listener}\"")], 0.0).await;
        }
    };
    // With one connection in all, each step finds out whether the one before gave its place back.
    let ends: [(&str, &str, bool); 9] = [
        ("nothing, until it has idled", "", false),
        ("half a head", "GET /ok HTTP/1.1\r\nHos", false),
        ("what is no request", "nonsense\r\n\r\n", false),
        ("a last request", "GET /ok HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", false),
        ("a request that panics", "GET /boom HTTP/1.1\r\nHost: h\r\n\r\n", false),
        ("half a body", "POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nhalf", false),
        ("an answer that is not read", "GET /large HTTP/1.1\r\nHost: h\r\n\r\n", false),
        ("half an HTTP/2 preface", "PRI * HTTP/2.0\r\n", false),
        ("a TLS handshake that stops", "\u{16}\u{3}\u{1}", true),
    ];
    for (what, sent, over_tls) in ends {
        let mut stream = TcpStream::connect(if over_tls { tls } else { plain }).await.unwrap();
        SockRef::from(&stream).set_recv_buffer_size(4096).unwrap();
        stream.write_all(sent.as_bytes()).await.unwrap();
        free(what).await;
        drop(stream);
    }
    // Ended by the client: with a FIN or a reset, while it idles, waits for an answer, or is told of a stream.
    for (sent, resets) in [
        ("GET /ok HTTP/1.1\r\nHost: h\r\n\r\n", false),
        ("GET /ok HTTP/1.1\r\nHost: h\r\n\r\n", true),
        ("GET /hang HTTP/1.1\r\nHost: h\r\n\r\n", false),
        ("GET /hang HTTP/1.1\r\nHost: h\r\n\r\n", true),
        ("GET /large HTTP/1.1\r\nHost: h\r\n\r\n", true),
    ] {
        let mut stream = TcpStream::connect(plain).await.unwrap();
        stream.write_all(sent.as_bytes()).await.unwrap();
        if resets {
            SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
        }
        drop(stream);
        free(sent).await;
    }
    let two = Client::new(plain).http2().connect().await;
    two.get("/ok").await.expect_status(200);
    two.get("/boom").await.expect_status(500);
    two.closed().await;
    free("an HTTP/2 connection that idles").await;
    let status = gw.status().await;
    assert_eq!(status["connections"], 0, "{status}");
}
