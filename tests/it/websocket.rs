//! WebSockets: passed after all policies, as tunnels, logged at their end.

use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::support::*;

async fn open(gw: &Gateway, path: &str) -> Result<WebSocketStream<TcpStream>, Error> {
    let stream = TcpStream::connect(gw.address()).await.unwrap();
    let request = format!("ws://localhost{path}").into_client_request().unwrap();
    Ok(within("the handshake", client_async(request, stream)).await?.0)
}

#[tokio::test]
async fn messages_go_both_ways() {
    let app = upstream().otherwise(Answer::WebSocket).start().await;
    let gw = in_front_of(&app, "").start().await;
    let mut socket = open(&gw, "/chat").await.unwrap();
    for text in ["hello", "", "wörld"] {
        socket.send(text.into()).await.unwrap();
        let back = within("an echo", socket.next()).await.unwrap().unwrap();
        assert_eq!(back.into_text().unwrap(), text);
    }
    let big = vec![7_u8; 1 << 20];
    socket.send(Message::binary(big.clone())).await.unwrap();
    assert_eq!(within("an echo", socket.next()).await.unwrap().unwrap().into_data(), big);
    let seen = app.last();
    assert_eq!(seen.header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(seen.header("upgrade").map(str::to_ascii_lowercase).as_deref(), Some("websocket"));
    socket.close(None).await.unwrap();
    while let Some(Ok(_)) = within("the end", socket.next()).await {}
    let line = gw.logged("/chat").await;
    assert!(line.contains("\" 101 "), "{line}");
}

#[tokio::test]
async fn the_subprotocol_is_agreed_end_to_end() {
    let app = upstream().otherwise(Answer::WebSocket).start().await;
    let gw = in_front_of(&app, "").start().await;
    let stream = TcpStream::connect(gw.address()).await.unwrap();
    let mut request = "ws://localhost/".into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", "chat, other".parse().unwrap());
    let (_socket, response) = within("the handshake", client_async(request, stream)).await.unwrap();
    assert_eq!(response.headers()["sec-websocket-protocol"], "chat");
}

#[tokio::test]
async fn policies_come_first() {
    let app = upstream().otherwise(Answer::WebSocket).start().await;
    let gw = in_front_of(&app, "").and("ip = { deny = [\"127.0.0.1\"] }\n").start().await;
    match open(&gw, "/chat").await {
        Err(Error::Http(answer)) => assert_eq!(answer.status(), 403),
        other => panic!("{other:?}"),
    }
    assert_eq!(app.requests(), 0);
}

#[tokio::test]
async fn a_service_may_refuse() {
    let app = upstream().otherwise(Answer::status(403)).start().await;
    let gw = in_front_of(&app, "").start().await;
    match open(&gw, "/chat").await {
        Err(Error::Http(answer)) => assert_eq!(answer.status(), 403),
        other => panic!("{other:?}"),
    }
    let dead = DeadPort::new();
    let gw = in_front_of(&dead, "").start().await;
    match open(&gw, "/chat").await {
        Err(Error::Http(answer)) => assert!([502, 503].contains(&answer.status().as_u16())),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_end_of_either_side_is_the_end_of_both() {
    let mut app = upstream().otherwise(Answer::WebSocket).start().await;
    let gw = in_front_of(&app, "").start().await;
    let socket = open(&gw, "/1").await.unwrap();
    assert_eq!(app.open_connections(), 1);
    drop(socket);
    eventually("the service's side to close", async || (app.open_connections() == 0).then_some(())).await;
    let mut socket = open(&gw, "/2").await.unwrap();
    app.stop().await;
    let end = within("the end", socket.next()).await;
    assert!(matches!(end, None | Some(Err(_))), "{end:?}");
}

/// Silence ends a tunnel after `stream_idle`, and nothing earlier does: neither the route's time nor `read`.
#[tokio::test]
async fn a_silent_tunnel_ends_after_stream_idle() {
    let app = upstream().otherwise(Answer::WebSocket).start().await;
    let gw = in_front_of(&app, "timeouts = { read = \"300ms\" }")
        .and("timeout = \"300ms\"\n[limits]\nstream_idle = \"1s\"\nbody_timeout = \"200ms\"\nrequest_timeout = \"300ms\"\n")
        .start()
        .await;
    let mut socket = open(&gw, "/").await.unwrap();
    let began = std::time::Instant::now();
    // Kept alive across every other bound by a message now and then.
    let mut ticks = tokio::time::interval(std::time::Duration::from_millis(150));
    for _ in 0..6 {
        ticks.tick().await;
        socket.send("tick".into()).await.unwrap();
        within("an echo", socket.next()).await.unwrap().unwrap();
    }
    assert!(began.elapsed() >= std::time::Duration::from_millis(700));
    let end = within("the tunnel to end", socket.next()).await;
    assert!(matches!(end, None | Some(Err(_)) | Some(Ok(Message::Close(_)))), "{end:?}");
}

/// HTTP/2 has no upgrade. A server that is asked in it otherwise is asked for this in HTTP/1.1.
#[tokio::test]
async fn servers_of_http2_are_asked_in_http1() {
    let app = upstream().otherwise(Answer::WebSocket).start().await;
    let gw = in_front_of(&app, "http2 = true").start().await;
    let mut socket = open(&gw, "/chat").await.unwrap();
    socket.send("hello".into()).await.unwrap();
    let back = within("an echo", socket.next()).await.unwrap().unwrap();
    assert_eq!(back.into_text().unwrap(), "hello");
}

const HANDSHAKE: &str = "GET /tunnel HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
const SWITCHED: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

/// A tunnel that breaks is over. It is not opened again elsewhere, and no error document is written into it.
#[tokio::test]
async fn a_broken_tunnel_is_not_retried() {
    let app = RawUpstream::script(|mut peer| async move {
        peer.head().await;
        peer.write(SWITCHED).await;
        peer.body(2).await;
        peer.reset();
    })
    .await;
    let gw = in_front_of(&app, "retry = { attempts = 3, on = [\"connect\", \"reset\"] }").start().await;
    let mut raw = gw.raw().await;
    raw.send(HANDSHAKE).await;
    raw.response().await.expect_status(101);
    raw.send("hi").await;
    assert_eq!(String::from_utf8_lossy(&raw.rest().await), "");
    let line = gw.logged("/tunnel").await;
    assert!(line.contains("\" 101 "), "{line}");
    assert_eq!(app.connections(), 1);
}

/// Nobody is to blame for a tunnel in which nothing was said.
#[tokio::test]
async fn a_silent_tunnel_does_not_count_against_the_server() {
    let app = RawUpstream::script(|mut peer| async move {
        peer.head().await;
        peer.write(SWITCHED).await;
        peer.rest().await;
    })
    .await;
    let settings =
        "retry = { attempts = 3, on = [\"timeout\"] }\n[upstreams.app.circuit_breaker]\nfailures = 1";
    let gw = in_front_of(&app, settings).and("[limits]\nstream_idle = \"300ms\"\n").start().await;
    for _ in 0..3 {
        let mut raw = gw.raw().await;
        raw.send(HANDSHAKE).await;
        raw.response().await.expect_status(101);
        raw.closed().await;
    }
    assert_eq!(app.connections(), 3);
}

/// A 101 that nobody asked for would turn the rest of the connection into something else.
#[tokio::test]
async fn a_switch_that_nobody_asked_for_is_502() {
    let app = RawUpstream::answering(SWITCHED).await;
    let gw = in_front_of(&app, "retry = { attempts = 1 }").start().await;
    let mut raw = gw.raw().await;
    raw.get("/").await.expect_problem(502, "upstream.bad_response");
    let h2 = gw.client().http2().connect().await;
    h2.get("/").await.expect_problem(502, "upstream.bad_response");
}

/// Whatever follows a 101 that is no WebSocket's, nobody knows what it is.
#[tokio::test]
async fn a_switch_to_something_else_is_502() {
    for fields in [
        "",
        "Upgrade: websocket\r\n",
        "Connection: Upgrade\r\n",
        "Connection: Upgrade\r\nUpgrade: h2c\r\n",
        "Connection: close\r\nUpgrade: websocket\r\n",
        "Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n",
    ] {
        let app =
            RawUpstream::answering(format!("HTTP/1.1 101 Switching Protocols\r\n{fields}\r\nhello")).await;
        let gw = in_front_of(&app, "retry = { attempts = 1 }").start().await;
        let mut raw = gw.raw().await;
        raw.send(HANDSHAKE).await;
        raw.response().await.expect_problem(502, "upstream.bad_response");
    }
    // One that is passed on has no body to come.
    let app = RawUpstream::answering(
        [b"HTTP/1.1 101 Switching Protocols\r\nContent-Length: 5\r\n", &SWITCHED[34..]].concat(),
    )
    .await;
    let gw = in_front_of(&app, "").start().await;
    let mut raw = gw.raw().await;
    raw.send(HANDSHAKE).await;
    let answer = raw.response().await.expect_status(101);
    assert!(answer.header("content-length").is_none(), "{answer:?}");
}

/// A client that says `Upgrade` has no more time of a server's that does not take it up than others.
#[tokio::test]
async fn a_refused_upgrade_has_the_bounds_of_any_answer() {
    let app = RawUpstream::script(|mut peer| async move {
        peer.head().await;
        peer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhello").await;
        peer.rest().await;
    })
    .await;
    let gw = in_front_of(
        &app,
        "timeouts = { read = \"1s\" }\nretry = { attempts = 1 }\n[limits]\nbody_timeout = \"500ms\"",
    )
    .start()
    .await;
    let mut raw = gw.raw().await;
    raw.send(HANDSHAKE).await;
    let said = within("the end", raw.rest()).await;
    assert!(said.ends_with(b"hello"), "{}", String::from_utf8_lossy(&said));
    let line = gw.logged("/").await;
    assert!(line.contains("\" 200 "), "{line}");
}

/// An offer of HTTP/2 on a cleartext connection may be ignored, and curl makes it with `--http2`.
#[tokio::test]
async fn other_upgrades() {
    let app = upstream().start().await;
    let gw = in_front_of(&app, "").start().await;
    let out =
        curl(&["--http2", "-o", "/dev/null", "-w", "%{http_code}", &format!("http://{}/", gw.address())])
            .await;
    assert_eq!((out.status, out.stdout.as_str()), (0, "200"), "{}", out.stderr);
    let mut raw = gw.raw().await;
    raw.send("GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: something-else\r\n\r\n")
        .await;
    let answer = raw.response().await;
    assert!(matches!(answer.status, 200 | 501), "{answer:?}");
    assert!(app.seen().iter().all(|seen| !seen.headers.contains_key("upgrade")), "{:?}", app.seen());
}

/// Pingora's issue 946: an answer that is there before the proxy has looked for it ended the tunnel at once. A server
/// that answers before it is asked is as fast as one can be; without care it cost every other tunnel.
#[tokio::test]
async fn tunnels_survive_the_fastest_servers() {
    const TUNNELS: usize = 2_000;
    const AT_ONCE: usize = 8;
    let app = RawUpstream::script(|mut peer| async move {
        peer.write(SWITCHED).await;
        peer.head().await;
        let said = peer.body(2).await;
        peer.write(&said).await;
        peer.rest().await;
    })
    .await;
    let gw = in_front_of(&app, "retry = { attempts = 1 }").start().await;
    let clients = (0..AT_ONCE).map(|_| async {
        for _ in 0..TUNNELS / AT_ONCE {
            let mut raw = gw.raw().await;
            raw.send(HANDSHAKE).await;
            raw.response().await.expect_status(101);
            raw.send("hi").await;
            assert_eq!(raw.read_exactly(2).await, b"hi");
        }
    });
    futures_util::future::join_all(clients).await;
    assert_eq!(app.connections(), TUNNELS);
}

/// A server that refuses leaves nothing behind that the next request could meet.
#[tokio::test]
async fn a_refused_upgrade_leaves_the_server_usable() {
    let app = upstream().on("/no", Answer::status(403)).otherwise(Answer::WebSocket).start().await;
    let gw = in_front_of(&app, "").start().await;
    for _ in 0..20 {
        match open(&gw, "/no").await {
            Err(Error::Http(answer)) => assert_eq!(answer.status(), 403),
            other => panic!("{other:?}"),
        }
        gw.get("/no").await.expect_status(403);
        let mut socket = open(&gw, "/yes").await.unwrap();
        socket.send("hello".into()).await.unwrap();
        assert_eq!(within("an echo", socket.next()).await.unwrap().unwrap().into_text().unwrap(), "hello");
    }
}

/// A server that takes nothing for a while has the time of every write, not what was left of the request's.
#[tokio::test]
async fn a_server_may_be_slow_to_read_a_tunnel() {
    const SAID: usize = 32 << 20;
    let app = RawUpstream::script(|mut peer| async move {
        peer.head().await;
        peer.write(SWITCHED).await;
        let mut ticks = tokio::time::interval(std::time::Duration::from_millis(1500));
        ticks.tick().await;
        ticks.tick().await;
        peer.body(SAID).await;
        peer.write(b"all").await;
        peer.rest().await;
    })
    .await;
    let gw = in_front_of(&app, "").and("[limits]\nrequest_timeout = \"500ms\"\n").start().await;
    let mut raw = gw.raw().await;
    raw.send(HANDSHAKE).await;
    raw.response().await.expect_status(101);
    for _ in 0..SAID >> 16 {
        raw.send(vec![b'x'; 1 << 16]).await;
    }
    assert_eq!(raw.read_exactly(3).await, b"all");
}

/// The route's time is for answers: no tunnel ends because of it.
#[tokio::test]
async fn the_end_of_a_tunnel_is_never_late() {
    let app = RawUpstream::script(|mut peer| async move {
        peer.head().await;
        peer.write(SWITCHED).await;
        peer.body(2).await;
        peer.reset();
    })
    .await;
    let gw = in_front_of(&app, "")
        .and("timeout = \"200ms\"\n[log.access]\nformat = '$request_uri $status $reason'\n")
        .start()
        .await;
    let mut raw = gw.raw().await;
    raw.send(HANDSHAKE).await;
    raw.response().await.expect_status(101);
    let mut ticks = tokio::time::interval(std::time::Duration::from_millis(500));
    ticks.tick().await;
    ticks.tick().await;
    raw.send("hi").await;
    raw.rest().await;
    assert_eq!(gw.logged("/tunnel").await, "/tunnel 101 upstream.reset");
}
