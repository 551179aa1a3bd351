//! The gateway's own forwarder before services that speak HTTP/1 byte by byte: what it takes for an answer, which
//! connections it uses again, and what it does with bodies.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::support::*;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const ONCE: &str = "retry = { attempts = 1 }";

/// Each request's path says how many bytes of `reply` are sent before the connection ends.
async fn cut_where_the_path_says(reply: &'static str) -> RawUpstream {
    RawUpstream::script(move |mut peer| async move {
        let Some(head) = peer.head().await else { return };
        let path = head.split(' ').nth(1).unwrap_or_default();
        let cut: usize = path.trim_start_matches('/').parse().unwrap_or(reply.len());
        peer.write(&reply.as_bytes()[..cut.min(reply.len())]).await;
    })
    .await
}

/// However an answer's bytes come, it is the same answer.
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
        for _ in 0..3 {
            assert_eq!(gw.get("/").await.expect_status(200).text(), "ok", "{reply:?}");
        }
        assert_eq!(app.connections(), 1, "{reply:?}: the connection is good for the next request");
    }
}

/// Two readers could read these in two ways, and none of them gets through; nor is the connection used again.
#[tokio::test]
async fn an_ambiguous_answer_is_none() {
    for wrong in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nX: a\rSet-Cookie: b\r\nContent-Length: 2\r\n\r\nok",
        "\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/2 200 OK\r\nContent-Length: 2\r\n\r\nok",
    ] {
        let app = RawUpstream::script(move |mut peer| async move {
            let mut reply = if peer.index == 0 { wrong } else { OK };
            while peer.head().await.is_some() {
                peer.write(reply.as_bytes()).await;
                reply = OK;
            }
        })
        .await;
        let gw = in_front_of(&app, ONCE).start().await;
        gw.get("/").await.expect_problem(502, "upstream.bad_response");
        assert_eq!(gw.get("/").await.expect_status(200).text(), "ok", "{wrong:?}");
        assert_eq!(app.connections(), 2, "{wrong:?}");
    }
}

/// A chunk that is none ends the answer where the client sees that it is not whole.
#[tokio::test]
async fn a_broken_chunk_breaks_the_answer_off() {
    for body in [
        "2\r\nok0\r\n\r\n",
        "2\nok\r\n0\r\n\r\n",
        "-2\r\nok\r\n0\r\n\r\n",
        "2\r\nok\r\n0\r\nBad Trailer\r\n\r\n",
    ] {
        let reply = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
        let app = RawUpstream::answering(reply).await;
        let gw = in_front_of(&app, ONCE).start().await;
        let mut raw = gw.raw().await;
        raw.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        let seen = String::from_utf8(raw.rest().await).unwrap();
        assert!(!seen.ends_with("\r\n0\r\n\r\n"), "{body:?}: {seen:?}");
        let line = gw.logged("GET / ").await;
        assert!(line.contains("\" 200 ") || line.contains("\" 502 "), "{line}");
    }
}

/// Wherever an answer breaks off: never a clean end, never half of it taken for all.
#[tokio::test]
async fn an_answer_that_breaks_off_at_any_byte_is_never_whole() {
    for reply in [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ] {
        let app = cut_where_the_path_says(reply).await;
        let gw = in_front_of(&app, ONCE).start().await;
        let head_end = reply.find("\r\n\r\n").unwrap() + 4;
        for cut in 0..reply.len() {
            let mut raw = gw.raw().await;
            raw.send(format!("GET /{cut} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")).await;
            let seen = String::from_utf8(raw.rest().await).unwrap();
            if cut < head_end {
                assert!(seen.starts_with("HTTP/1.1 502 "), "cut at {cut}: {seen}");
                continue;
            }
            let (head, body) = seen.split_once("\r\n\r\n").unwrap_or((&seen, ""));
            assert!(head.starts_with("HTTP/1.1 200 ") || head.is_empty(), "cut at {cut}: {seen}");
            let is_whole =
                if reply.contains("chunked") { body.ends_with("0\r\n\r\n") } else { body.len() == 5 };
            assert!(!is_whole, "cut at {cut}: {seen}");
        }
        gw.get(&format!("/{}", reply.len())).await.expect_status(200);
    }
}

#[tokio::test]
async fn connections_are_kept_and_used_again() {
    let app = RawUpstream::answering(OK).await;
    let gw = in_front_of(&app, "").start().await;
    for _ in 0..20 {
        gw.get("/").await.expect_status(200);
    }
    assert_eq!(app.connections(), 1);
    assert_eq!(app.received_text().matches("GET / HTTP/1.1\r\n").count(), 20);
}

/// Clients are spread over threads; a connection to a service is of use to whichever thread needs one.
#[tokio::test]
async fn threads_use_each_others_connections() {
    let app = RawUpstream::answering(OK).await;
    let gw = in_front_of(&app, "").and("[server]\nthreads = 4\n").start().await;
    let mut clients = Vec::new();
    for _ in 0..8 {
        clients.push(RawClient::connect(gw.address()).await);
    }
    for _ in 0..3 {
        for client in &mut clients {
            client.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
            assert_eq!(client.response().await.expect_status(200).text(), "ok");
        }
    }
    assert_eq!(app.connections(), 1);
    assert_eq!(app.received_text().matches("GET / HTTP/1.1\r\n").count(), 24);
}

/// Behind the answer there is nothing, or the connection is not used again.
#[tokio::test]
async fn bytes_behind_an_answer_end_the_connection() {
    for first in [
        format!("{OK}x"),
        "HTTP/1.1 204 No Content\r\nContent-Length: 1\r\n\r\nx".to_owned(),
        format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n{OK}"),
        format!("{OK}{OK}").replacen("\r\n", "\r\nConnection: close\r\n", 1),
    ] {
        let app = RawUpstream::answering(first.clone()).await;
        let gw = in_front_of(&app, "").start().await;
        for _ in 0..3 {
            let answer = gw.get("/").await;
            assert!(matches!(answer.text().as_str(), "ok" | ""), "{first:?}: {answer:?}");
        }
        assert_eq!(app.connections(), 3, "{first:?}");
    }
}

/// A service that speaks, or goes, while nobody asks it anything: its connection is let go within seconds, and nobody
/// gets what it said.
#[tokio::test]
async fn what_comes_unasked_is_nobodys_answer() {
    let (told, mut noticed) = mpsc::channel(8);
    let app = RawUpstream::script(move |mut peer| {
        let told = told.clone();
        async move {
            peer.head().await;
            peer.write(OK.as_bytes()).await;
            if peer.index == 0 {
                peer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil").await;
                peer.rest().await;
                told.send(()).await.unwrap();
            }
        }
    })
    .await;
    let gw = in_front_of(&app, "").start().await;
    gw.get("/").await.expect_status(200);
    within("the connection to be let go", noticed.recv()).await.unwrap();
    assert_eq!(gw.get("/").await.expect_status(200).text(), "ok");
    assert_eq!(app.connections(), 2);
}

/// What must not be sent twice is not sent on a connection that its service has closed.
#[tokio::test]
async fn a_post_finds_an_open_connection() {
    let (closed, mut is_closed) = mpsc::channel(64);
    let app = RawUpstream::script(move |peer| {
        let closed = closed.clone();
        async move {
            let mut peer = peer;
            if peer.head().await.is_some() {
                peer.write(OK.as_bytes()).await;
            }
            drop(peer);
            closed.send(()).await.unwrap();
        }
    })
    .await;
    let gw = in_front_of(&app, ONCE).start().await;
    for _ in 0..20 {
        gw.request("POST", "/").body("").await.expect_status(200);
        within("the service to close", is_closed.recv()).await.unwrap();
    }
}

/// An early answer leaves half of a request on the connection to the service: no other request goes out behind it.
#[tokio::test]
async fn half_a_request_ends_the_connection() {
    let app = RawUpstream::answering("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno").await;
    let gw = in_front_of(&app, "").start().await;
    for _ in 0..2 {
        let mut raw = gw.raw().await;
        raw.send("POST /up HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nhalf").await;
        raw.response().await.expect_status(403);
        raw.closed().await;
    }
    gw.get("/").await.expect_status(403);
    assert_eq!(app.connections(), 3);
    for bytes in app.received() {
        assert_eq!(String::from_utf8_lossy(&bytes).matches(" HTTP/1.1\r\n").count(), 1, "{bytes:?}");
    }
}

/// A service that answers early and reads on gets the whole body.
#[tokio::test]
async fn a_body_goes_on_behind_an_early_answer() {
    let (sender, mut bodies) = mpsc::channel(1);
    let app = RawUpstream::script(move |mut peer| {
        let sender = sender.clone();
        async move {
            peer.head().await;
            peer.write(OK.as_bytes()).await;
            sender.send(peer.body(8).await).await.unwrap();
        }
    })
    .await;
    let gw = in_front_of(&app, "").start().await;
    let mut raw = gw.raw().await;
    raw.send("POST /up HTTP/1.1\r\nHost: localhost\r\nContent-Length: 8\r\n\r\nhalf").await;
    let answer = raw.response().await.expect_status(200);
    assert_eq!(answer.header("connection"), Some("close"));
    raw.send("half").await;
    assert_eq!(within("the body", bodies.recv()).await.unwrap(), b"halfhalf");
    raw.closed().await;
}

#[tokio::test]
async fn interim_answers_come_to_an_end() {
    let app = RawUpstream::answering("HTTP/1.1 103 Early Hints\r\n\r\n".repeat(100) + OK).await;
    let gw = in_front_of(&app, ONCE).start().await;
    let mut raw = gw.raw().await;
    raw.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let mut answer = raw.response().await;
    while answer.status == 103 {
        answer = raw.response().await;
    }
    answer.expect_problem(502, "upstream.bad_response");
}

/// What ends with its connection ends by chunks for the client, whose connection goes on.
#[tokio::test]
async fn an_answer_without_a_length_does_not_end_the_clients_connection() {
    let app = RawUpstream::answering_once("HTTP/1.0 200 OK\r\n\r\nuntil the end").await;
    let gw = in_front_of(&app, "").start().await;
    let mut raw = gw.raw().await;
    for _ in 0..3 {
        let answer = raw.get("/").await.expect_status(200);
        assert!(answer.chunked);
        assert_eq!((answer.text().as_str(), answer.header("via")), ("until the end", Some("1.0 edgeward")));
    }
}

/// A body of chunks is written anew: its extensions and trailers were for the gateway.
#[tokio::test]
async fn chunks_of_a_request_are_written_anew() {
    let app = RawUpstream::script(|mut peer| async move {
        peer.head().await;
        while !peer.body(1).await.is_empty() {
            // Read to the end of the body, however it is cut.
            let seen = String::from_utf8(peer.seen()).unwrap();
            if seen.ends_with("\r\n0\r\n\r\n") {
                return peer.write(OK.as_bytes()).await;
            }
        }
    })
    .await;
    let gw = in_front_of(&app, "").start().await;
    let mut raw = gw.raw().await;
    raw.send(
        "POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n\
         005;secret=\"x\"\r\nhello\r\n1\r\n \r\n5\r\nworld\r\n0\r\nX-Trailer: y\r\n\r\n",
    )
    .await;
    raw.response().await.expect_status(200);
    let wire = app.received_text();
    let (head, body) = wire.split_once("\r\n\r\n").unwrap();
    assert!(head.to_ascii_lowercase().contains("\r\ntransfer-encoding: chunked"), "{head}");
    assert!(!body.contains("secret") && !body.contains("Trailer") && !body.contains("005"), "{body}");
    let data: String = body.split("\r\n").skip(1).step_by(2).collect();
    assert_eq!(data, "hello world");
}

/// What was read of a body goes to the next server, too.
#[tokio::test]
async fn a_retried_body_is_sent_from_its_start() {
    for (head, half, rest) in [
        ("Content-Length: 11", "hello", " world"),
        ("Transfer-Encoding: chunked", "5\r\nhello\r\n", "6\r\n world\r\n0\r\n\r\n"),
    ] {
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
        let mut raw = gw.raw().await;
        raw.send(format!("PUT /put HTTP/1.1\r\nHost: localhost\r\n{head}\r\n\r\n{half}")).await;
        within("the first server to get a half", got_half.recv()).await.unwrap();
        raw.send(rest).await;
        raw.response().await.expect_status(200);
        assert_eq!(app.last().body, "hello world", "{head}");
    }
}

/// Idle connections go when their time is over, and when there are too many.
#[tokio::test]
async fn idle_connections_are_bounded() {
    let app = Arc::new(upstream().start().await);
    let gw = in_front_of(&*app, "").and("[limits]\nupstream_idle = 1\n").start().await;
    let requests = (0..8).map(|_| gw.get("/").send());
    for answer in futures_util::future::join_all(requests).await {
        assert_eq!(answer.unwrap().status, 200);
    }
    eventually("all but one to be closed", async || (app.open_connections() <= 1).then_some(())).await;
    let gw = in_front_of(&*app, "timeouts = { idle = \"100ms\" }").start().await;
    gw.get("/").await.expect_status(200);
    let before = app.open_connections();
    eventually("the idle one to be closed", async || (app.open_connections() < before).then_some(())).await;
}

/// What looks like a request, and is the body of one.
const SMUGGLED: &str = "GET /evil HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// A service that answers at the head and does not read bodies as such would take one for the next request. Its answer
/// must not reach the next client.
#[tokio::test]
async fn a_body_is_never_somebody_elses_request() {
    for (expect, at_once) in
        [("", false), ("Expect: 100-continue\r\n", false), ("Expect: 100-continue\r\n", true)]
    {
        let app = RawUpstream::script(|mut peer| async move {
            peer.head().await;
            peer.write(OK.as_bytes()).await;
            if peer.head().await.is_some() && peer.head().await.is_some() {
                peer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil").await;
            }
        })
        .await;
        let gw = in_front_of(&app, "").start().await;
        let mut raw = gw.raw().await;
        let length = SMUGGLED.len();
        let head = format!("POST / HTTP/1.1\r\nHost: localhost\r\n{expect}Content-Length: {length}\r\n\r\n");
        if at_once {
            raw.send(head + SMUGGLED).await;
            raw.response().await.expect_status(200);
        } else {
            raw.send(head).await;
            raw.response().await.expect_status(200);
            raw.send(SMUGGLED).await;
            raw.closed().await;
        }
        assert_eq!(gw.get("/next").await.expect_status(200).text(), "ok", "{expect:?} {at_once}");
        assert_eq!(app.connections(), 2, "{expect:?} {at_once}");
        if !expect.is_empty() && !at_once {
            assert!(!app.received_text().contains("/evil"), "nobody asked for it");
        }
    }
}

/// A service that asks for a body and reads it keeps its connection.
#[tokio::test]
async fn a_body_that_was_asked_for_leaves_the_connection_as_it_was() {
    let app = RawUpstream::script(|mut peer| async move {
        while let Some(head) = peer.head().await {
            if head.starts_with("POST") {
                peer.write(b"HTTP/1.1 100 Continue\r\n\r\n").await;
                peer.body(5).await;
            }
            peer.write(OK.as_bytes()).await;
        }
    })
    .await;
    let gw = in_front_of(&app, "").start().await;
    let mut raw = gw.raw().await;
    for length in [5, 5] {
        raw.send(format!(
            "POST / HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n"
        ))
        .await;
        raw.response().await.expect_status(100);
        raw.send("hello").await;
        raw.response().await.expect_status(200);
    }
    raw.get("/").await.expect_status(200);
    assert_eq!(app.connections(), 1);
}

/// A server that says nothing for a while: here time is the subject, not a condition that is waited for.
async fn silence(time: Duration) {
    tokio::time::interval_at(tokio::time::Instant::now() + time, time).tick().await;
}

/// Events may pause for longer than a body may, whether or not the client has said all.
#[tokio::test]
async fn a_stream_goes_on_beside_an_open_body() {
    let app = RawUpstream::script(|mut peer| async move {
        peer.head().await;
        peer.body(4).await;
        peer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 6\r\n\r\none")
            .await;
        silence(Duration::from_millis(900)).await;
        peer.write(b"two").await;
        peer.rest().await;
    })
    .await;
    let gw = in_front_of(&app, "").and("[limits]\nbody_timeout = \"300ms\"\n").start().await;
    let mut raw = gw.raw().await;
    raw.send("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nhalf").await;
    assert_eq!(raw.response().await.expect_status(200).text(), "onetwo");
}

/// A service that answers and takes no more of the request is not to blame, and its answer is whole.
#[tokio::test]
async fn an_answer_goes_on_when_its_request_does_not() {
    let app = RawUpstream::script(|mut peer| async move {
        peer.head().await;
        peer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\none").await;
        silence(Duration::from_millis(1500)).await;
        peer.write(b"two").await;
        peer.rest().await;
    })
    .await;
    let gw = in_front_of(&app, "timeouts = { write = \"300ms\" }")
        .and("[defaults]\nbody_bytes = \"1GiB\"\n")
        .start()
        .await;
    let body = vec![b'x'; 64 << 20];
    let mut answer = gw.request("POST", "/").body(body).stream().await.unwrap();
    let mut seen = Vec::new();
    while let Some(piece) = answer.next().await {
        seen.extend_from_slice(&piece);
        if seen.len() == 6 {
            break;
        }
    }
    assert_eq!(seen, b"onetwo");
    assert_eq!(app.connections(), 1);
}

/// A service that sends a body where none can be: what it is, whenever it comes, is not the next answer.
#[tokio::test]
async fn a_body_behind_a_bodiless_answer_is_nobodys() {
    for (method, head) in [
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\n"),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", "HTTP/1.1 304 Not Modified\r\n\r\n"),
    ] {
        let (told, mut is_sent) = mpsc::channel(8);
        let app = RawUpstream::script(move |mut peer| {
            let told = told.clone();
            async move {
                peer.head().await;
                if peer.index > 0 {
                    return peer.write(OK.as_bytes()).await;
                }
                peer.write(head.as_bytes()).await;
                peer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil").await;
                told.send(()).await.unwrap();
                peer.rest().await;
            }
        })
        .await;
        let gw = in_front_of(&app, "").start().await;
        let _bodiless = gw.request(method, "/").await;
        within("all of it to be sent", is_sent.recv()).await.unwrap();
        assert_eq!(gw.get("/").await.expect_status(200).text(), "ok", "{method} {head:?}");
    }
}

/// Nothing follows an interim answer, whatever it says of a body.
#[tokio::test]
async fn interim_answers_announce_no_body() {
    let app = RawUpstream::answering(
        "HTTP/1.1 103 Early Hints\r\nTransfer-Encoding: chunked\r\n\r\n\
         HTTP/1.1 103 Early Hints\r\nContent-Length: 5\r\nLink: </x>\r\n\r\n"
            .to_owned()
            + OK,
    )
    .await;
    let gw = in_front_of(&app, "").start().await;
    let mut raw = gw.raw().await;
    raw.send("GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
    let seen = String::from_utf8(raw.rest().await).unwrap().to_ascii_lowercase();
    let (interim, last) = seen.rsplit_once("http/1.1 200 ok").unwrap();
    assert!(interim.contains("link: </x>"), "{interim}");
    assert!(!interim.contains("transfer-encoding") && !interim.contains("content-length"), "{interim}");
    assert!(last.ends_with("\r\n\r\nok"), "{last}");
}

/// A long body, none of whose bytes is like those beside it.
fn long_body() -> Vec<u8> {
    (0..6_u32 << 18).flat_map(|n| n.wrapping_mul(0x9e37_79b9).to_be_bytes()).collect()
}

/// Pipes that the gateway has open, by their ends.
fn pipes(gw: &Gateway) -> usize {
    let open = std::fs::read_dir(format!("/proc/{}/fd", gw.pid())).unwrap();
    open.filter(|end| {
        let to = end.as_ref().ok().and_then(|end| std::fs::read_link(end.path()).ok());
        to.is_some_and(|to| to.to_string_lossy().starts_with("pipe:"))
    })
    .count()
}

/// Long bodies go through pipes in the kernel: whole, in order, one behind the other on the same connections, and more of
/// them at once than there are pipes.
#[tokio::test]
async fn long_bodies_arrive_as_they_were_sent() {
    const AT_ONCE: usize = 150;
    let body = Arc::new(long_body());
    let sent =
        [format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes(), &body].concat();
    let app = RawUpstream::answering(sent).await;
    let gw = in_front_of(&app, "").start().await;
    let before = pipes(&gw);
    let mut raw = gw.raw().await;
    for _ in 0..3 {
        assert!(raw.get("/").await.expect_status(200).body == *body);
    }
    assert!(pipes(&gw) > before, "it was copied");
    assert_eq!(app.connections(), 1);
    let gets = (0..AT_ONCE).map(|_| async { gw.client().get("/").await.expect_status(200).body == *body });
    assert!(futures_util::future::join_all(gets).await.into_iter().all(|is_whole| is_whole));
    // One for each thread.
    let kept = 2 * std::thread::available_parallelism().unwrap().get();
    eventually("the pipes to be few", async || (pipes(&gw) <= before + kept).then_some(())).await;
}

/// So do those of requests, also to a service that answers before it has read them, or closes.
#[tokio::test]
async fn long_bodies_arrive_at_the_service_as_they_were_sent() {
    let body = Arc::new(long_body());
    let app = RawUpstream::script(|mut peer| async move {
        while let Some(head) = peer.head().await {
            if head.starts_with("POST /early ") {
                peer.write(OK.as_bytes()).await;
            }
            let length = head.to_ascii_lowercase().split_once("content-length: ").unwrap().1.to_owned();
            let length: usize = length.split("\r\n").next().unwrap().parse().unwrap();
            if head.starts_with("POST /closing ") {
                peer.body(length / 2).await;
                return;
            }
            let taken = peer.body(length).await;
            if !head.starts_with("POST /early ") {
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", taken.len());
                peer.write(&[answer.as_bytes(), &taken].concat()).await;
            }
        }
    })
    .await;
    let gw = in_front_of(&app, ONCE).start().await;
    let before = pipes(&gw);
    let post = async |path: &str| gw.request("POST", path).body(body.to_vec()).await;
    for _ in 0..2 {
        assert!(post("/").await.expect_status(200).body == *body);
    }
    assert!(pipes(&gw) > before, "it was copied");
    post("/closing").await.expect_status(502);
    let posts = (0..20).map(|_| async { post("/").await.expect_status(200).body == *body });
    assert!(futures_util::future::join_all(posts).await.into_iter().all(|is_whole| is_whole));
    assert_eq!(post("/early").await.expect_status(200).text(), "ok");
    let mut raw = gw.raw().await;
    // Half of one is none.
    raw.send(format!("POST /half HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", body.len()))
        .await;
    raw.send(&body[..body.len() / 2]).await;
    drop(raw);
    assert!(post("/").await.expect_status(200).body == *body);
    let kept = 2 * std::thread::available_parallelism().unwrap().get();
    eventually("the pipes to be few", async || (pipes(&gw) <= before + kept).then_some(())).await;
}

/// A long body that breaks off is never whole, and what follows one belongs to nobody.
#[tokio::test]
async fn a_long_body_ends_where_its_length_says() {
    let body = long_body();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    let behind = [head.as_bytes(), &body, OK.as_bytes()].concat();
    let cut = &behind[..head.len() + body.len() - 1];
    for (app, is_whole) in
        [(RawUpstream::answering(&*behind).await, true), (RawUpstream::answering_once(cut).await, false)]
    {
        let gw = in_front_of(&app, ONCE).start().await;
        for requests in 1..=3 {
            let mut raw = gw.raw().await;
            raw.send("GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
            let seen = raw.rest().await;
            let start = seen.windows(4).position(|part| part == b"\r\n\r\n").unwrap() + 4;
            assert!(body.starts_with(&seen[start..]));
            assert_eq!(seen.len() - start == body.len(), is_whole);
            assert_eq!(app.connections(), requests);
        }
    }
}
