//! Slow clients, honest and not: the slow ones are ended on time, the honest ones are served, and nobody else waits.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;

use crate::support::*;

/// A body may owe what it would move in 1.25 s.
const BOUNDS: &str = "[limits]\nbody_timeout = \"1s\"\nmin_body_rate = \"10KiB/s\"\n";
const REASONS: &str = "[log.access]\nformat = '$request_uri $status $reason'\n";
/// Enough for what must be ended to have been.
const LONG: Duration = Duration::from_secs(8);

fn ticks(every: u64) -> tokio::time::Interval {
    tokio::time::interval(Duration::from_millis(every))
}

/// Never silent for long, and always too slow: 2 KiB/s.
#[tokio::test]
async fn a_dripping_body_is_408_and_the_connection_is_closed() {
    let app = upstream().start().await;
    let gw = in_front_of(&app, "").and(BOUNDS).and(REASONS).start().await;
    for (path, head) in
        [("/length", "Content-Length: 1000000\r\n"), ("/chunks", "Transfer-Encoding: chunked\r\n")]
    {
        let mut raw = gw.raw().await;
        raw.send(format!("POST {path} HTTP/1.1\r\nHost: localhost\r\n{head}\r\n")).await;
        let (mut ticks, began) = (ticks(50), Instant::now());
        while began.elapsed() < LONG {
            ticks.tick().await;
            let piece = "x".repeat(100);
            let piece = if path == "/chunks" { format!("64\r\n{piece}\r\n") } else { piece };
            let is_logged = gw.access_log().iter().any(|line| line.starts_with(path));
            if is_logged || !raw.try_send(piece).await {
                break;
            }
        }
        let took = began.elapsed();
        assert!(took > Duration::from_secs(1) && took < LONG, "{path}: {took:?}");
        raw.response_or_close().await.expect("an answer").expect_problem(408, "request.body_too_slow");
        raw.closed().await;
        assert_eq!(gw.logged(path).await, format!("{path} 408 request.body_too_slow"));
        assert!(app.seen_at(path).is_empty());
    }
}

#[tokio::test]
async fn a_dripping_body_is_408_over_http2_too() {
    let app = upstream().start().await;
    let gw = in_front_of(&app, "").and(BOUNDS).start().await;
    let connection = gw.client().http2().connect().await;
    let (sender, pieces) = mpsc::channel(1);
    let dripping = tokio::spawn(async move {
        let mut ticks = ticks(50);
        while sender.send(Ok(Bytes::from_static(&[b'x'; 100]))).await.is_ok() {
            ticks.tick().await;
        }
    });
    let request = connection.request("POST", "/slow").streaming_body(pieces);
    request.await.expect_problem(408, "request.body_too_slow");
    within("the client to be told", dripping).await.unwrap();
    connection.get("/fine").await.expect_status(200);
    assert!(app.seen_at("/slow").is_empty());
}

/// Pauses below `body_timeout` harm nobody who makes up for them.
#[tokio::test]
async fn a_body_in_bursts_is_served() {
    let app = upstream().start().await;
    let gw = in_front_of(&app, "").and(BOUNDS).start().await;
    let bursts = |sender: mpsc::Sender<_>| async move {
        let mut ticks = ticks(800);
        for _ in 0..5 {
            ticks.tick().await;
            sender.send(Ok(Bytes::from_static(&[b'x'; 8 * 1024]))).await.unwrap();
        }
    };
    for client in [gw.client(), gw.client().http2()] {
        let (sender, pieces) = mpsc::channel(1);
        let sending = tokio::spawn(bursts(sender));
        let echo = client.request("POST", "/bursts").streaming_body(pieces).await.expect_status(200).echo();
        assert_eq!(echo.body_len(), 5 * 8 * 1024);
        sending.await.unwrap();
    }
}

/// A server that takes its time to ask for a body uses up its own, not the client's.
#[tokio::test]
async fn a_body_that_is_asked_for_late_is_not_late() {
    const PIECE: usize = 8 * 1024;
    let app = RawUpstream::script(|mut peer| async move {
        peer.head().await;
        let mut ticks = ticks(900);
        ticks.tick().await;
        ticks.tick().await;
        peer.write(b"HTTP/1.1 100 Continue\r\n\r\n").await;
        peer.body(5 * PIECE).await;
        peer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        peer.rest().await;
    })
    .await;
    let gw = in_front_of(&app, "").and(BOUNDS).start().await;
    let mut raw = gw.raw().await;
    let length = 5 * PIECE;
    raw.send(format!(
        "POST /late HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n"
    ))
    .await;
    assert_eq!(raw.read_exactly(25).await, b"HTTP/1.1 100 Continue\r\n\r\n");
    let mut ticks = ticks(800);
    ticks.tick().await;
    for _ in 0..5 {
        ticks.tick().await;
        raw.send(vec![b'x'; PIECE]).await;
    }
    raw.response().await.expect_status(200);
}

/// A stream may move as slowly as it likes, in both directions.
#[tokio::test]
async fn streams_have_no_pace() {
    let (feed, events) = Feed::new("text/event-stream");
    let app = upstream().on("/events", events).start().await;
    let gw = in_front_of(&app, "")
        .and("[[routes]]\npath = \"/stream\"\nupstream = \"app\"\nstream = true\n")
        .and(BOUNDS)
        .start()
        .await;
    for client in [gw.client(), gw.client().http2()] {
        let (sender, pieces) = mpsc::channel(1);
        let sending = tokio::spawn(async move {
            let mut ticks = ticks(100);
            for _ in 0..20 {
                ticks.tick().await;
                sender.send(Ok(Bytes::from_static(b"x"))).await.unwrap();
            }
        });
        let echo = client.request("POST", "/stream").streaming_body(pieces).await.expect_status(200).echo();
        assert_eq!(echo.body_len(), 20);
        sending.await.unwrap();
    }
    let mut answer = gw.get("/events").header("accept", "text/event-stream").stream().await.unwrap();
    let mut ticks = ticks(1000);
    for _ in 0..3 {
        ticks.tick().await;
        feed.send("data: x\n\n").await;
        assert_eq!(answer.next().await.unwrap(), "data: x\n\n");
    }
}

/// A connection whose client has little room for what it did not read.
async fn narrow(address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(8 * 1024).unwrap();
    within("connect", socket.connect(address)).await.unwrap()
}

/// Larger than what the kernel takes of an answer that nobody reads.
const LARGE: u64 = 64 << 20;

fn large() -> Answer {
    Answer::Zeros(LARGE)
}

async fn ask(stream: &mut TcpStream, path: &str) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
}

/// Reads `bytes` every `every` milliseconds until the end; how many in all.
async fn sip(stream: &mut TcpStream, bytes: usize, every: u64) -> u64 {
    let (mut ticks, mut buffer, mut total) = (ticks(every), vec![0; bytes], 0);
    loop {
        ticks.tick().await;
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return total,
            Ok(count) => total += count as u64,
        }
    }
}

/// Not at all, and always a little: both are cut off, and the log says why.
#[tokio::test]
async fn a_slow_reader_is_cut_off() {
    let app = upstream().otherwise(large()).start().await;
    let gw = in_front_of(&app, "").and(BOUNDS).and(REASONS).start().await;
    for (path, every) in [("/silent", 3_600_000), ("/sipping", 50)] {
        let mut stream = narrow(gw.address()).await;
        let began = Instant::now();
        ask(&mut stream, path).await;
        let sipping = tokio::spawn(async move { sip(&mut stream, 20, every).await });
        assert_eq!(gw.logged(path).await, format!("{path} 200 client.too_slow"));
        assert!(began.elapsed() < LONG, "{path}: {:?}", began.elapsed());
        sipping.abort();
    }
    eventually("the service to be let go", async || (app.open_connections() == 0).then_some(())).await;
}

/// The same in the middle of a long answer that it took as fast as could be: what waits in a pipe is let go, too.
#[tokio::test]
async fn a_reader_that_stops_is_cut_off() {
    let app = upstream().otherwise(large()).start().await;
    let gw = in_front_of(&app, "").and(BOUNDS).and(REASONS).start().await;
    for (path, every) in [("/silent", 3_600_000), ("/sipping", 50)] {
        let mut stream = within("connect", TcpStream::connect(gw.address())).await.unwrap();
        ask(&mut stream, path).await;
        within("a part of it", stream.read_exact(&mut vec![0; 8 << 20])).await.unwrap();
        let sipping = tokio::spawn(async move { sip(&mut stream, 20, every).await });
        assert_eq!(gw.logged(path).await, format!("{path} 200 client.too_slow"));
        sipping.abort();
    }
    eventually("the service to be let go", async || (app.open_connections() == 0).then_some(())).await;
}

/// TLS would have a last word, for which there is no room either.
#[tokio::test]
async fn a_slow_reader_of_tls_is_let_go() {
    let authority = Authority::new();
    let app = upstream().otherwise(large()).start().await;
    let gw = in_front_of(&app, "")
        .identity("site", &authority.server(&["localhost"]))
        .tls_listener("main", &["site"])
        .and(BOUNDS)
        .and(REASONS)
        .start()
        .await;
    let connector = tokio_rustls::TlsConnector::from(authority.client_config(&[b"http/1.1"], None));
    let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
    let tcp = narrow(gw.address()).await;
    let mut stream = within("TLS", connector.connect(name, tcp)).await.unwrap();
    let began = Instant::now();
    stream.write_all(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    stream.flush().await.unwrap();
    assert_eq!(gw.logged("/large").await, "/large 200 client.too_slow");
    gw.metric_is("edgeward_connections_open", &["listener=\"main\""], 0.0).await;
    assert!(began.elapsed() < LONG, "{:?}", began.elapsed());
    drop(stream);
}

/// What a client says that it waits for lifts nothing: only an answer that is a stream does.
#[tokio::test]
async fn nobody_lifts_the_pace_by_a_header() {
    let app = upstream().start().await;
    let gw = in_front_of(&app, "").and(BOUNDS).start().await;
    for (path, header) in
        [("/events", "Accept: text/event-stream"), ("/grpc", "Content-Type: application/grpc")]
    {
        let mut raw = gw.raw().await;
        raw.send(format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\n{header}\r\nContent-Length: 1000000\r\n\r\n"
        ))
        .await;
        let (mut ticks, began) = (ticks(50), Instant::now());
        while began.elapsed() < LONG && !gw.access_log().iter().any(|line| line.contains(path)) {
            ticks.tick().await;
            if !raw.try_send("x".repeat(100)).await {
                break;
            }
        }
        raw.response_or_close().await.expect("an answer").expect_problem(408, "request.body_too_slow");
        assert!(app.seen_at(path).is_empty());
    }
}

/// A client that never opens its window is cut off, too, and only its stream is.
#[tokio::test]
async fn a_slow_reader_of_a_stream_is_cut_off() {
    let app = upstream().on("/large", large()).start().await;
    let gw = in_front_of(&app, "").and(BOUNDS).and(REASONS).start().await;
    let connection = gw.client().http2().connect().await;
    let unread = connection.get("/large").stream().await.unwrap();
    assert_eq!(gw.logged("/large").await, "/large 200 client.too_slow");
    connection.get("/fine").await.expect_status(200);
    let mut unread = unread;
    let end = loop {
        match unread.try_next().await {
            Ok(Some(_)) => {}
            end => break end,
        }
    };
    assert!(end.is_err(), "it looks whole");
}

/// The window of a whole connection, closed from the start: nothing of the body can ever go out.
#[tokio::test]
async fn a_window_that_never_opens_ends_its_streams() {
    let app = upstream().otherwise(Answer::text("body")).start().await;
    let gw = in_front_of(&app, "").and(BOUNDS).and(REASONS).start().await;
    let mut raw = gw.raw().await;
    // SETTINGS_INITIAL_WINDOW_SIZE = 0, then GET / as stream 1.
    let settings = [&[0, 0, 6, 4, 0, 0, 0, 0, 0][..], &[0, 4, 0, 0, 0, 0]].concat();
    let head = [&[0x82, 0x86, 0x84, 0x41, 9][..], b"localhost"].concat();
    let headers = [&[0, 0, u8::try_from(head.len()).unwrap(), 1, 5, 0, 0, 0, 1][..], &head].concat();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    raw.send([&preface[..], &settings, &headers].concat()).await;
    let began = Instant::now();
    loop {
        match raw.frame().await.expect("a reset, not the end of the connection") {
            (3, _, 1, _) => break,
            (0, _, 1, payload) => assert!(payload.is_empty(), "{payload:?}"),
            _ => {}
        }
    }
    assert!(began.elapsed() < LONG, "{:?}", began.elapsed());
    assert_eq!(gw.logged("/ ").await, "/ 200 client.too_slow");
}

/// A client that reads steadily, though far more slowly than the kernel's buffers are large, gets all of it.
#[tokio::test]
async fn a_steady_reader_gets_all_of_it() {
    const BODY: u64 = 6 << 20;
    let app = upstream().otherwise(Answer::Zeros(BODY)).start().await;
    let gw = in_front_of(&app, "").and(BOUNDS).start().await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(128 * 1024).unwrap();
    let mut stream = within("connect", socket.connect(gw.address())).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
    // Until a third of a buffer of four megabytes is free takes two seconds at this speed.
    let total = within("all of it", sip(&mut stream, 32 * 1024, 50)).await;
    assert!(total > BODY, "{total}");
}

/// Two hundred clients that drip heads, drip bodies, and hardly read: ended on time, and nobody else waits for them.
#[tokio::test]
async fn slow_clients_do_not_starve_others() {
    const EACH: usize = 67;
    let app = upstream().on("/large", large()).start().await;
    let gw = in_front_of(&app, "")
        .and("[limits]\nheader_timeout = \"1s\"\nbody_timeout = \"800ms\"\nmin_body_rate = \"10KiB/s\"\n")
        .and(REASONS)
        .start()
        .await;
    let address = gw.address();
    let drip = |first: &'static str, piece: &'static str| async move {
        let mut stream = narrow(address).await;
        stream.write_all(first.as_bytes()).await.unwrap();
        let mut ticks = ticks(100);
        while stream.write_all(piece.as_bytes()).await.is_ok() {
            ticks.tick().await;
        }
    };
    let mut slow = Vec::new();
    for _ in 0..EACH {
        slow.push(tokio::spawn(drip("GET /head HTTP/1.1\r\nHost: localhost\r\n", "X-A: b\r\n")));
        let body = "POST /body HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n";
        slow.push(tokio::spawn(drip(body, "a=b&")));
        slow.push(tokio::spawn(async move {
            let mut stream = narrow(address).await;
            ask(&mut stream, "/large").await;
            sip(&mut stream, 10, 100).await;
        }));
    }
    eventually("all to be there", async || {
        let open = gw.metric("edgeward_connections_open", &["listener=\"main\""]).await;
        (open >= Some(2.0 * EACH as f64)).then_some(())
    })
    .await;
    let (began, mut times) = (Instant::now(), Vec::new());
    let connection = gw.client().connect().await;
    while gw.access_log().iter().filter(|line| !line.starts_with("/fine")).count() < 3 * EACH {
        assert!(began.elapsed() < 2 * LONG, "{:?}", gw.access_log().len());
        let asking = Instant::now();
        connection.get("/fine").await.expect_status(200);
        times.push(asking.elapsed());
    }
    times.sort();
    // Generous: a busy machine makes single requests wait, starving would be all of them.
    let p99 = times[times.len() * 99 / 100];
    assert!(times.len() > 50 && p99 < Duration::from_secs(1), "p99 of {} requests: {p99:?}", times.len());
    let log = gw.access_log();
    // Where this process has to wait for the processor, a drip may become a silence: request.body_timeout.
    for line in ["- 408 request.header_timeout", "/body 408 request.body_t", "/large 200 client.too_slow"] {
        let found = log.iter().filter(|found| found.starts_with(line)).count();
        assert_eq!(found, EACH, "{line}: {log:#?}");
    }
    gw.metric_is("edgeward_connections_open", &["listener=\"main\""], 1.0).await;
    slow.iter().for_each(tokio::task::JoinHandle::abort);
}

/// The deadline of a head holds for every request of a connection, and for what comes before there is one: a PROXY header,
/// a TLS handshake, the preface of HTTP/2.
#[tokio::test]
async fn whatever_drips_before_a_request_is_ended() {
    const BOUND: Duration = Duration::from_millis(600);
    let authority = Authority::new();
    let app = upstream().start().await;
    let gw = in_front_of(&app, "")
        .and("[limits]\nheader_timeout = \"600ms\"\n[server]\ntrusted_proxies = [\"127.0.0.1\"]\n")
        .and(REASONS)
        .listener("plain", "127.0.0.1:0")
        .listener("proxied", "127.0.0.1:0")
        .and("proxy_protocol = true\n")
        .tls_listener("tls", &["site"])
        .identity("site", &authority.server(&["localhost"]))
        .start()
        .await;
    // A client's hello that never comes to its end: 512 bytes are announced.
    let hello = [&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], &[7; 500]].concat();
    let later = b"X-Drip: 1\r\n".repeat(100);
    let cases: [(&str, &str, &[u8], &[u8]); 7] = [
        // Nobody waits for `idle_timeout`: that is for those who have asked for something.
        ("plain", "nothing", b"", b""),
        ("plain", "a first head", b"", &[b"GET / HTTP/1.1\r\n", &later[..]].concat()),
        (
            "plain",
            "a later head",
            b"GET /ok HTTP/1.1\r\nHost: h\r\n\r\n",
            &[b"GET / HTTP/1.1\r\n", &later[..]].concat(),
        ),
        ("plain", "a preface", b"", b"PRI * HTTP/2.0\r\n\r\nSM\r"),
        (
            "proxied",
            "a PROXY header",
            b"",
            b"PROXY TCP6 2001:0db8:0000:0000:0000:0000:0000:0007 2001:db8::1 1 ",
        ),
        ("tls", "a TLS handshake", b"", &hello),
        ("tls", "a silent TLS handshake", b"", b""),
    ];
    for (listener, what, first, dripped) in cases {
        let mut stream = TcpStream::connect(gw.listener(listener)).await.unwrap();
        let mut buffer = [0; 4096];
        if !first.is_empty() {
            stream.write_all(first).await.unwrap();
            assert!(within("an answer", stream.read(&mut buffer)).await.unwrap() > 0);
        }
        let (mut reader, mut writer) = stream.into_split();
        let began = Instant::now();
        let drip = async {
            let mut ticks = ticks(40);
            for byte in dripped {
                ticks.tick().await;
                if writer.write_all(&[*byte]).await.is_err() {
                    break;
                }
            }
            std::future::pending::<Vec<u8>>().await
        };
        let end = async {
            let mut told = Vec::new();
            while let Ok(count @ 1..) = reader.read(&mut buffer).await {
                told.extend_from_slice(&buffer[..count]);
            }
            told
        };
        let told = tokio::select! {
            told = within(what, end) => told,
            told = drip => told,
        };
        let took = began.elapsed();
        assert!(took >= BOUND.mul_f32(0.9) && took < LONG, "{what}: {took:?}");
        let told = String::from_utf8_lossy(&told);
        assert_eq!(told.starts_with("HTTP/1.1 408 "), what.ends_with(" head"), "{what}: {told}");
        gw.metric_is("edgeward_connections_open", &[&format!("listener=\"{listener}\"")], 0.0).await;
    }
    let timed_out = ["reason=\"timeout\"", "listener=\"tls\""];
    gw.metric_is("edgeward_tls_handshake_failures_total", &timed_out, 2.0).await;
    gw.metric_is("edgeward_connections_rejected_total", &["reason=\"proxy_timeout\""], 1.0).await;
}

/// The kinds that hold no request: half-open TLS, and HTTP/2 connections whose streams stay silent, in both directions.
#[tokio::test]
async fn half_open_and_silent_connections_cost_little_and_end() {
    const EACH: usize = 100;
    let authority = Authority::new();
    let app = upstream().on("/large", large()).start().await;
    let gw = in_front_of(&app, "")
        .and("[limits]\nheader_timeout = \"3s\"\nbody_timeout = \"3s\"\nidle_timeout = \"3s\"\n")
        .listener("plain", "127.0.0.1:0")
        .tls_listener("tls", &["site"])
        .identity("site", &authority.server(&["localhost"]))
        .start()
        .await;
    let fine = Client::new(gw.listener("plain"));
    fine.get("/fine").await.expect_status(200);
    let before = gw.resident_bytes();
    // A stream whose body never comes; one whose answer is never read, as the windows stay closed; none at all.
    let preface =
        [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &[0, 0, 6, 4, 0, 0, 0, 0, 0], &[0, 4, 0, 0, 0, 0]]
            .concat();
    let head = |method: u8, flags: u8, path: &[u8]| {
        let block =
            [&[method, 0x86, 0x04, u8::try_from(path.len()).unwrap()][..], path, &[0x41, 9], b"localhost"]
                .concat();
        [&[0, 0, u8::try_from(block.len()).unwrap(), 1, flags, 0, 0, 0, 1][..], &block].concat()
    };
    let silent = [preface.clone(), head(0x83, 4, b"/silent")].concat();
    let unread = [preface.clone(), head(0x82, 5, b"/large")].concat();
    let mut held = Vec::new();
    for _ in 0..EACH {
        held.push((gw.listener("tls"), b"\x16\x03\x01\x02\x00\x01".to_vec()));
        held.extend([&preface, &silent, &unread].map(|bytes| (gw.listener("plain"), bytes.clone())));
    }
    let opened = held.into_iter().map(|(address, bytes)| async move {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        stream
    });
    let held = futures_util::future::join_all(opened).await;
    eventually("all to be there", async || {
        let open = gw.metric("edgeward_connections_open", &[]).await;
        (open >= Some(4.0 * EACH as f64)).then_some(())
    })
    .await;
    fine.get("/fine").await.expect_status(200);
    let each = gw.resident_bytes().saturating_sub(before) / (4 * EACH as u64);
    // A development build; load-tests/slow-clients has the figures.
    assert!(each < 128 * 1024, "{each} bytes each");
    // Bounded by itself: some eleven seconds are what these time-outs and a goodbye's add up to.
    for listener in ["plain", "tls"] {
        gw.metric_is("edgeward_connections_open", &[&format!("listener=\"{listener}\"")], 0.0).await;
    }
    fine.get("/fine").await.expect_status(200);
    drop(held);
}

/// What the gateway holds for a client that does not take its answer is a small part of what it read of it.
#[tokio::test]
async fn readers_that_do_not_read_cost_little() {
    const COUNT: usize = 100;
    let app = upstream().otherwise(large()).on("/fine", Answer::text("fine")).start().await;
    let gw = in_front_of(&app, "").start().await;
    let fine = Client::new(gw.address());
    fine.get("/fine").await.expect_status(200);
    let before = gw.resident_bytes();
    let mut held = Vec::new();
    for _ in 0..COUNT {
        let mut stream = narrow(gw.address()).await;
        ask(&mut stream, "/large").await;
        held.push(stream);
    }
    eventually("all to be answered", async || (app.seen_at("/large").len() == COUNT).then_some(())).await;
    for stream in &mut held {
        within("an answer", stream.read_exact(&mut [0; 64])).await.unwrap();
    }
    fine.get("/fine").await.expect_status(200);
    let each = gw.resident_bytes().saturating_sub(before) / COUNT as u64;
    // A development build; load-tests/slow-clients has the figures.
    // Huge pages count whole, a few of them for a hundred.
    assert!(each < 128 * 1024, "{each} bytes each");
}

/// Windows as wide as can be, and nothing is read: what a hundred streams of one connection have to say is not kept for
/// it. And who does read gets all of it.
#[tokio::test]
async fn a_connection_that_reads_nothing_costs_little_whatever_it_asks_for() {
    const STREAMS: u8 = 100;
    let app = upstream().otherwise(large()).on("/some", Answer::Zeros(2 << 20)).start().await;
    let gw = in_front_of(&app, "").start().await;
    let reader = gw.client().http2().connect().await;
    reader.get("/some").await.expect_status(200);
    let before = gw.resident_bytes();
    let mut sent = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    // SETTINGS_INITIAL_WINDOW_SIZE, and the connection's window.
    sent.extend([0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4, 0x7f, 0xff, 0xff, 0xff]);
    sent.extend([0, 0, 4, 8, 0, 0, 0, 0, 0, 0x7f, 0, 0, 0]);
    for stream in 0..STREAMS {
        let block = [&[0x82, 0x86, 0x84, 0x41, 9][..], b"localhost"].concat();
        sent.extend([0, 0, u8::try_from(block.len()).unwrap(), 1, 5, 0, 0, 0, 2 * stream + 1]);
        sent.extend(block);
    }
    let mut stream = narrow(gw.address()).await;
    stream.write_all(&sent).await.unwrap();
    eventually("all to be asked for", async || {
        (app.seen_at("/").len() == usize::from(STREAMS)).then_some(())
    })
    .await;
    for round in 0..4 {
        let gets = (0..16).map(|_| async { reader.get("/some").await });
        for answer in futures_util::future::join_all(gets).await {
            assert_eq!(answer.expect_status(200).body.len(), 2 << 20, "{round}");
        }
    }
    let held = gw.resident_bytes().saturating_sub(before);
    // With the library's 256 KiB for each of them it would be more than 30 MiB.
    assert!(held < 20 << 20, "{held} bytes");
    drop(stream);
}

#[tokio::test]
async fn connections_of_one_address_are_capped() {
    let gw = gateway("[[routes]]\npath = \"/*\"\nrespond = { status = 200, text = \"ok\" }\n")
        .and("[limits]\nconnections_per_address = 3\n")
        .start()
        .await;
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut raw = gw.raw().await;
        raw.get("/").await.expect_status(200);
        held.push(raw);
    }
    for _ in 0..2 {
        gw.raw().await.closed().await;
    }
    let labels = ["reason=\"address\"", "listener=\"main\""];
    gw.metric_is("edgeward_connections_rejected_total", &labels, 2.0).await;
    let said = async || (gw.stderr().matches("connections_per_address are open").count() == 1).then_some(());
    eventually("one word of it", said).await;
    held.pop();
    eventually("a place to be free", async || {
        let mut raw = gw.raw().await;
        raw.try_send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        raw.response_or_close().await
    })
    .await
    .expect_status(200);
}

/// A trusted proxy brings the connections of many.
#[tokio::test]
async fn trusted_proxies_have_no_cap() {
    let gw = gateway("[[routes]]\npath = \"/*\"\nrespond = { status = 200, text = \"ok\" }\n")
        .and("[limits]\nconnections_per_address = 1\n[server]\ntrusted_proxies = [\"127.0.0.1\"]\n")
        .start()
        .await;
    let mut held = Vec::new();
    for _ in 0..5 {
        let mut raw = gw.raw().await;
        raw.get("/").await.expect_status(200);
        held.push(raw);
    }
}
