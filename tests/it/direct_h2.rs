//! The gateway's own forwarder for streams of HTTP/2, before services that speak HTTP/1 byte by byte.

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::support::*;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const ONCE: &str = "retry = { attempts = 1 }";

/// Whatever the client speaks, the connections to a service are the same ones.
#[tokio::test]
async fn both_protocols_use_the_same_connections() {
    let app = RawUpstream::answering(OK).await;
    let gw = in_front_of(&app, "").start().await;
    let connection = gw.client().http2().connect().await;
    for _ in 0..5 {
        assert_eq!(connection.get("/two").await.expect_status(200).text(), "ok");
        assert_eq!(gw.get("/one").await.expect_status(200).text(), "ok");
    }
    assert_eq!(app.connections(), 1);
}

/// A head as HTTP/1 has it: one host, one line of cookies, nothing of this hop, no framing that is not needed.
#[tokio::test]
async fn the_head_is_one_of_http1() {
    let app = RawUpstream::answering(OK).await;
    let gw = in_front_of(&app, "").start().await;
    let request = gw.client().http2().get("/a/./b?c=%20d").host("api.example.com:8443");
    let request = request.header("cookie", "a=1").header("cookie", "b=2").header("x-other", "c");
    request.await.expect_status(200);
    gw.client().http2().get("/te").header("te", "trailers").await.expect_status(200);
    let wire = app.received_text().to_ascii_lowercase();
    let (first, second) = wire.split_once("\r\n\r\n").unwrap();
    assert!(first.starts_with("get /a/b?c=%20d http/1.1\r\n"), "{first}");
    for line in ["host: api.example.com:8443", "cookie: a=1; b=2", "x-other: c", "via: 2 edgeward"] {
        assert_eq!(first.matches(&format!("\r\n{line}")).count(), 1, "{line}: {first}");
    }
    for name in [":authority", "content-length", "transfer-encoding", "connection", "\r\nte:"] {
        assert!(!first.contains(name) && !second.contains(name), "{name}: {wire}");
    }
    assert_eq!(second.matches("\r\nhost: ").count(), 1, "{second}");
}

/// However an answer's bytes come, it is the same answer, and the connection is good for the next one.
#[tokio::test]
async fn an_answer_may_come_byte_by_byte() {
    for reply in [
        OK,
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;x=y\r\no\r\n1\r\nk\r\n0\r\nTrailer: x\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    ] {
        let app = RawUpstream::script(move |mut peer| async move {
            while peer.head().await.is_some() {
                for byte in reply.as_bytes() {
                    peer.write(std::slice::from_ref(byte)).await;
                    tokio::task::yield_now().await;
                }
            }
        })
        .await;
        let gw = in_front_of(&app, "").start().await;
        let connection = gw.client().http2().connect().await;
        for _ in 0..3 {
            let answer = connection.get("/").await.expect_status(200);
            assert_eq!((answer.text().as_str(), answer.broken.as_deref()), ("ok", None), "{reply:?}");
            assert!(answer.header("transfer-encoding").is_none() && answer.header("date").is_some());
        }
        assert_eq!(app.connections(), 1, "{reply:?}");
    }
}

/// Wherever an answer breaks off: a 502 before its head is whole, a reset behind that, never half of it taken for all.
/// Other streams of the connection notice nothing.
#[tokio::test]
async fn an_answer_that_breaks_off_at_any_byte_is_never_whole() {
    for reply in [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ] {
        let app = RawUpstream::script(move |mut peer| async move {
            let Some(head) = peer.head().await else { return };
            let path = head.split(' ').nth(1).unwrap_or_default();
            let cut: usize = path.trim_start_matches('/').parse().unwrap_or(reply.len());
            peer.write(&reply.as_bytes()[..cut.min(reply.len())]).await;
        })
        .await;
        let gw = in_front_of(&app, ONCE).start().await;
        let connection = gw.client().http2().connect().await;
        let head_end = reply.find("\r\n\r\n").unwrap() + 4;
        for cut in 0..reply.len() {
            match connection.get(&format!("/{cut}")).send().await {
                Ok(answer) if cut < head_end => drop(answer.expect_problem(502, "upstream.reset")),
                Ok(answer) => assert!(answer.broken.is_some(), "cut at {cut}: {answer:?}"),
                Err(error) => assert!(cut >= head_end, "cut at {cut}: {error}"),
            }
        }
        let whole = connection.get(&format!("/{}", reply.len())).await.expect_status(200);
        assert_eq!((whole.text().as_str(), whole.broken.as_deref()), ("hello", None));
    }
}

/// What has no body ends with its head, whatever that announces.
#[tokio::test]
async fn answers_without_a_body() {
    for (method, reply, status) in [
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\n", 200),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n", 204),
        ("GET", "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n", 304),
        ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200),
        ("GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 200),
    ] {
        let app = RawUpstream::answering(reply).await;
        let gw = in_front_of(&app, "").start().await;
        let connection = gw.client().http2().connect().await;
        for _ in 0..3 {
            let answer = connection.request(method, "/").await.expect_status(status);
            assert!(answer.body.is_empty() && answer.broken.is_none(), "{reply:?}: {answer:?}");
        }
        assert_eq!(app.connections(), 1, "{reply:?}");
    }
}

/// What ends with its connection is whole for the client.
#[tokio::test]
async fn an_answer_without_a_length() {
    let app = RawUpstream::answering_once("HTTP/1.0 200 OK\r\n\r\nuntil the end").await;
    let gw = in_front_of(&app, "").start().await;
    let connection = gw.client().http2().connect().await;
    for _ in 0..3 {
        let answer = connection.get("/").await.expect_status(200);
        assert_eq!((answer.text().as_str(), answer.header("via")), ("until the end", Some("1.0 edgeward")));
        assert!(answer.broken.is_none());
    }
}

/// A service that reads a request of chunks to its end, and answers.
async fn reads_chunks() -> RawUpstream {
    RawUpstream::script(|mut peer| async move {
        peer.head().await;
        while !peer.body(1).await.is_empty() {
            // Read to the end of the body, however it is cut.
            if String::from_utf8(peer.seen()).unwrap().ends_with("\r\n0\r\n\r\n") {
                return peer.write(OK.as_bytes()).await;
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_body_without_a_length_goes_by_chunks() {
    let app = reads_chunks().await;
    let gw = in_front_of(&app, "").start().await;
    let (sender, pieces) = mpsc::channel(4);
    for piece in ["hello", " ", "world"] {
        sender.send(Ok(Bytes::from_static(piece.as_bytes()))).await.unwrap();
    }
    drop(sender);
    gw.client().http2().request("POST", "/").streaming_body(pieces).await.expect_status(200);
    let wire = app.received_text();
    let (head, body) = wire.split_once("\r\n\r\n").unwrap();
    assert!(head.to_ascii_lowercase().contains("\r\ntransfer-encoding: chunked"), "{head}");
    let data: String = body.split("\r\n").skip(1).step_by(2).collect();
    assert_eq!(data, "hello world");
}

/// What was read of a body goes to the next server, too, and what comes behind it.
#[tokio::test]
async fn a_retried_body_is_sent_from_its_start() {
    let (told, mut got_half) = mpsc::channel(1);
    let broken = RawUpstream::script(move |mut peer| {
        let told = told.clone();
        async move {
            peer.head().await;
            peer.body(5).await;
            told.send(()).await.unwrap();
        }
    })
    .await;
    let app = upstream().start().await;
    let gw = gateway(
        r#"
        [upstreams.app]
        servers = ["{broken}", { address = "{app}", backup = true }]
        [[routes]]
        path = "/*"
        upstream = "app"
        "#,
    )
    .with("broken", &broken)
    .with("app", &app)
    .start()
    .await;
    let (sender, pieces) = mpsc::channel(4);
    sender.send(Ok(Bytes::from_static(b"hello"))).await.unwrap();
    let request = gw.client().http2().request("PUT", "/put").streaming_body(pieces);
    let answer = tokio::spawn(async move { request.await });
    within("the first server to get a half", got_half.recv()).await.unwrap();
    sender.send(Ok(Bytes::from_static(b" world"))).await.unwrap();
    drop(sender);
    answer.await.unwrap().expect_status(200);
    assert_eq!(app.last().body, "hello world");
}

/// An early answer ends the stream, and the connection to the service, on which half of a request lies; not the
/// client's.
#[tokio::test]
async fn half_a_request_ends_the_services_connection_alone() {
    let app = RawUpstream::answering("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno").await;
    let gw = in_front_of(&app, "").start().await;
    let connection = gw.client().http2().connect().await;
    let mut senders = Vec::new();
    for _ in 0..2 {
        let (sender, pieces) = mpsc::channel(4);
        sender.send(Ok(Bytes::from_static(b"half"))).await.unwrap();
        senders.push(sender);
        let mut answer = connection.request("POST", "/up").streaming_body(pieces).stream().await.unwrap();
        assert_eq!((answer.status, answer.next().await.as_deref()), (403, Some(b"no".as_slice())));
    }
    connection.get("/").await.expect_status(403);
    assert_eq!(app.connections(), 3);
    for bytes in app.received() {
        assert_eq!(String::from_utf8_lossy(&bytes).matches(" HTTP/1.1\r\n").count(), 1, "{bytes:?}");
    }
}

/// Answers of all sizes at once, around the sizes of frames, buffers and windows, each whole and its own.
#[tokio::test]
async fn answers_of_all_sizes_at_once() {
    const SIZES: [usize; 14] =
        [0, 1, 255, 1023, 1024, 8191, 8192, 16_383, 16_384, 16_385, 65_535, 65_536, 300_000, 5_000_000];
    let bytes = |size: usize| (0..size).map(|at| (at * 7 + size) as u8).collect::<Vec<_>>();
    let app = RawUpstream::script(move |mut peer| async move {
        while let Some(head) = peer.head().await {
            let path = head.split(' ').nth(1).unwrap_or_default().trim_start_matches('/').to_owned();
            let (kind, size) = path.split_once('/').unwrap();
            let body = bytes(size.parse().unwrap());
            if kind == "chunked" {
                let mut reply = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
                for piece in body.chunks(10_000) {
                    reply.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
                    reply.extend_from_slice(piece);
                    reply.extend_from_slice(b"\r\n");
                }
                reply.extend_from_slice(b"0\r\n\r\n");
                peer.write(&reply).await;
            } else {
                peer.write(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes())
                    .await;
                peer.write(&body).await;
            }
        }
    })
    .await;
    let gw = in_front_of(&app, "").start().await;
    let connection = gw.client().http2().connect().await;
    let asked = SIZES.iter().flat_map(|size| ["length", "chunked"].map(|kind| (kind, *size)));
    let answers = asked.map(|(kind, size)| {
        let request = connection.get(&format!("/{kind}/{size}"));
        async move {
            let answer = request.await.expect_status(200);
            assert!(answer.broken.is_none(), "{kind} {size}: {:?}", answer.broken);
            assert!(answer.body == bytes(size), "{kind} {size}: {} bytes", answer.body.len());
        }
    });
    futures_util::future::join_all(answers).await;
}

/// A client that leaves a body open on one stream gets what it asks for on others.
#[tokio::test]
async fn an_open_body_holds_nobody_up() {
    let app = upstream().start().await;
    let gw = in_front_of(&app, "").start().await;
    let connection = gw.client().http2().connect().await;
    let (sender, pieces) = mpsc::channel(1);
    let open = connection.request("POST", "/open").streaming_body(pieces);
    let open = tokio::spawn(async move { open.await });
    for n in 0..50 {
        assert_eq!(connection.get(&format!("/{n}")).await.echo().target(), format!("/{n}"));
    }
    sender.send(Ok(Bytes::from_static(b"late"))).await.unwrap();
    drop(sender);
    open.await.unwrap().expect_status(200);
    assert_eq!(app.last().body, "late");
}

/// Streams of the gateway's own forwarder and of Pingora's on one connection.
#[tokio::test]
async fn streams_of_both_kinds_share_a_connection() {
    let app = upstream().start().await;
    let gw = gateway(
        r#"
        [upstreams.plain]
        servers = ["{app}"]
        [upstreams.two]
        servers = ["{app}"]
        http2 = true
        [[routes]]
        path = "/plain/*"
        upstream = "plain"
        [[routes]]
        path = "/two/*"
        upstream = "two"
        [[routes]]
        path = "/here"
        respond = { text = "here" }
        "#,
    )
    .with("app", &app)
    .start()
    .await;
    let connection = gw.client().http2().connect().await;
    let requests = (0..30).map(|n| {
        let connection = connection.clone();
        async move {
            let (path, version) = [("/plain/x", "HTTP/1.1"), ("/two/x", "HTTP/2.0"), ("/here", "")][n % 3];
            let answer = connection.request("POST", path).body(format!("{n}")).await.expect_status(200);
            match version {
                "" => assert_eq!(answer.text(), "here"),
                version => assert_eq!(answer.echo().version(), version),
            }
        }
    });
    futures_util::future::join_all(requests).await;
    connection.get("/nowhere").await.expect_problem(404, "route.not_found");
    connection.get("/here").await.expect_status(200);
}
