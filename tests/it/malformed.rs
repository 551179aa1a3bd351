//! Bad input: every malformed request gets its 4xx, is logged and counted, and leaves the process in a known state.

use edgeward::ingress::head::{HEADER_LINES_MAX, Rule};

use crate::support::*;

async fn strict() -> (Upstream, Gateway) {
    let app = upstream().start().await;
    let gw = in_front_of(&app, "")
        .and("[limits]\nheader_bytes = \"8KiB\"\nheader_timeout = \"2s\"\n")
        .start()
        .await;
    (app, gw)
}

/// A request that is right, behind one that is not.
const BEHIND: &str = "GET /behind HTTP/1.1\r\nHost: x\r\n\r\n";

/// What becomes of the connection on which a request was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    /// The gateway says that it closes it, and does, although the client has not: where a next request would begin is not
    /// known (RFC 9112 section 9.6).
    Closed,
    /// It stays, since it is known where the request ended; the next one is answered.
    Kept,
}

/// Sends each with a good request behind it. Asserts its status and code, what becomes of the connection, and what reached
/// the service: nothing, or the good ones alone.
async fn refused_and(after: After, cases: &[(&str, u16, &str)]) {
    let (app, gw) = strict().await;
    for (bytes, status, code) in cases {
        let mut raw = gw.raw().await;
        raw.try_send(format!("{bytes}{BEHIND}")).await;
        let answer = raw.response_or_close().await.unwrap_or_else(|| panic!("no answer to {bytes:?}"));
        assert_eq!(answer.status, *status, "{bytes:?}: {}", answer.text());
        assert_eq!(answer.json()["code"], *code, "{bytes:?}");
        let closes = answer.header("connection") == Some("close");
        assert_eq!(closes, after == After::Closed, "{bytes:?}: {:?}", answer.headers);
        match after {
            // By itself: nothing here has said that nothing more will come.
            After::Closed => raw.closed().await,
            After::Kept => {
                assert_eq!(raw.response().await.expect_status(200).json()["target"], "/behind", "{bytes:?}");
                assert_eq!(raw.still_open("/later").await.expect_status(200).json()["target"], "/later");
            }
        }
    }
    let seen: Vec<_> = app.seen().iter().map(|seen| format!("{} {}", seen.method, seen.uri)).collect();
    let expected: Vec<&str> = match after {
        After::Closed => Vec::new(),
        After::Kept => ["GET /behind", "GET /later"].repeat(cases.len()),
    };
    assert_eq!(seen, expected, "what reached the service");
    let logged = cases.len() + expected.len();
    eventually("each to be logged", async || (gw.access_log().len() >= logged).then_some(())).await;
    assert_eq!(gw.access_log().len(), logged, "{:#?}", gw.access_log());
    gw.get("/fine").await.expect_status(200);
    gw.stop().await;
}

/// Those that end the connection.
async fn refused(cases: &[(&str, u16, &str)]) {
    refused_and(After::Closed, cases).await;
}

/// Requests whose end two parsers could see in different places (RFC 9112 section 6.3).
#[tokio::test]
async fn ambiguous_framing() {
    let malformed = "request.malformed";
    refused(&[
        ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", 400, malformed),
        ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5, 6\r\n\r\nhello!", 400, malformed),
        (
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n",
            400,
            malformed,
        ),
        ("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", 400, malformed),
        ("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400, malformed),
        ("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, malformed),
        ("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400, malformed),
        ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +5\r\n\r\nhello", 400, malformed),
        ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\nhello", 400, malformed),
        ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0x5\r\n\r\nhello", 400, malformed),
        ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: \r\n\r\nhello", 400, malformed),
        ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\nhello", 400, malformed),
        ("POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, malformed),
    ])
    .await;
}

#[tokio::test]
async fn broken_heads() {
    let malformed = "request.malformed";
    refused(&[
        ("\x00\x01\x02\x03\r\n\r\n", 400, malformed),
        ("GET\r\n\r\n", 400, malformed),
        ("GET /\r\n\r\n", 400, malformed),
        ("GET  / HTTP/1.1\r\nHost: x\r\n\r\n", 400, malformed),
        ("GET / HTTP/1.1 \r\nHost: x\r\n\r\n", 400, malformed),
        ("GET / HTTP/2.0\r\nHost: x\r\n\r\n", 400, malformed),
        ("GET / http/1.1\r\nHost: x\r\n\r\n", 400, malformed),
        ("G(T / HTTP/1.1\r\nHost: x\r\n\r\n", 400, malformed),
        ("GET / HTTP/1.1\r\nHost: x\r\nNo colon\r\n\r\n", 400, malformed),
        ("GET / HTTP/1.1\r\nHost: x\r\n: empty\r\n\r\n", 400, malformed),
        ("GET / HTTP/1.1\r\nHost: x\r\nBad name: 1\r\n\r\n", 400, malformed),
        ("GET / HTTP/1.1\r\nHost: x\r\nX: a\r\n folded\r\n\r\n", 400, malformed),
        ("GET / HTTP/1.1\r\nHost: x\r\nX: a\0b\r\n\r\n", 400, malformed),
        ("GET / HTTP/1.1\r\nHost: x\r\nX: a\rb\r\n\r\n", 400, malformed),
        ("GET / HTTP/1.1\nHost: x\n\n", 400, malformed),
        ("GET / HTTP/1.1\r\nHost: x\nX: y\r\n\r\n", 400, malformed),
        (" GET / HTTP/1.1\r\nHost: x\r\n\r\n", 400, malformed),
        ("GET /\x7f HTTP/1.1\r\nHost: x\r\n\r\n", 400, malformed),
    ])
    .await;
}

#[tokio::test]
async fn hosts_that_are_missing_repeated_or_nonsense() {
    let host = "request.bad_host";
    refused(&[
        ("GET / HTTP/1.1\r\n\r\n", 400, host),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400, host),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400, host),
        ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400, host),
        ("GET / HTTP/1.1\r\nHost: user@a\r\n\r\n", 400, host),
        ("GET / HTTP/1.1\r\nHost: a:port\r\n\r\n", 400, host),
        ("GET / HTTP/1.1\r\nHost: a:99999\r\n\r\n", 400, host),
        ("GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", 400, host),
        ("GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400, host),
        ("GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n", 400, host),
    ])
    .await;
}

#[tokio::test]
async fn paths_that_mean_nothing() {
    let path = "request.bad_path";
    refused_and(
        After::Kept,
        &[
            ("GET /%zz HTTP/1.1\r\nHost: x\r\n\r\n", 400, path),
            ("GET /% HTTP/1.1\r\nHost: x\r\n\r\n", 400, path),
            ("GET /%00 HTTP/1.1\r\nHost: x\r\n\r\n", 400, path),
            ("GET /../x HTTP/1.1\r\nHost: x\r\n\r\n", 400, path),
        ],
    )
    .await;
}

/// A head, without the empty line at its end, that breaks each rule of the scanner.
fn heads() -> Vec<(Rule, String)> {
    let with = |lines: &str| format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}");
    let line = |line: &str| format!("{line}\r\nHost: a\r\n");
    vec![
        (Rule::BareLf, with("X: a\nY: b\r\n")),
        (Rule::BareCr, with("X: a\rb\r\n")),
        (Rule::Nul, with("X: a\0b\r\n")),
        (Rule::ControlByte, with("X: a\u{7f}b\r\n")),
        (Rule::Version, line("GET / HTTP/3.0")),
        (Rule::RequestLineWords, line("GET HTTP/1.1")),
        (Rule::MethodToken, line("G(T / HTTP/1.1")),
        (Rule::Connect, line("CONNECT a:1 HTTP/1.1")),
        (Rule::MethodLength, line(&format!("{} / HTTP/1.1", "M".repeat(33)))),
        (Rule::TargetBytes, line("GET /\u{e9} HTTP/1.1")),
        (Rule::TargetLength, line(&format!("GET /{} HTTP/1.1", "x".repeat(65_534)))),
        (Rule::TargetForm, line("GET a HTTP/1.1")),
        (Rule::TargetAuthority, line("GET http://u@a/ HTTP/1.1")),
        (Rule::PathByte, line("GET /a\\b HTTP/1.1")),
        (Rule::QueryByte, line("GET /?a#b HTTP/1.1")),
        (Rule::LineLength, line(&format!("GET /{} HTTP/1.1", "x".repeat(90_000)))),
        (Rule::HeadLength, with(&format!("X: {}\r\n", "x".repeat(90_000)))),
        (Rule::FieldLines, with(&"X: y\r\n".repeat(HEADER_LINES_MAX))),
        (Rule::Folded, with("X: a\r\n b\r\n")),
        (Rule::NoColon, with("X\r\n")),
        (Rule::FieldName, with("X : a\r\n")),
        (Rule::HostMissing, "GET / HTTP/1.1\r\nX: y\r\n".to_owned()),
        (Rule::HostRepeated, with("Host: a\r\n")),
        (Rule::HostInvalid, "GET / HTTP/1.1\r\nHost: a b\r\n".to_owned()),
        (Rule::HostDiffers, line("GET http://b/ HTTP/1.1")),
        (Rule::Expectation, with("Expect: x\r\n")),
        (Rule::LengthRepeated, with("Content-Length: 0\r\nContent-Length: 0\r\n")),
        (Rule::LengthInvalid, with("Content-Length: +0\r\n")),
        (Rule::LengthAndChunked, with("Content-Length: 0\r\nTransfer-Encoding: chunked\r\n")),
        (Rule::CodingRepeated, with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n")),
        (Rule::Coding, with("Transfer-Encoding: gzip\r\n")),
        (Rule::CodingIn10, "GET / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n".to_owned()),
        (Rule::TraceBody, "TRACE / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n".to_owned()),
        (Rule::ConnectionOptions, with("Connection: a,b,c,d,e,f,g,h,i,j\r\n")),
        (Rule::ConnectionToken, with("Connection: a b\r\n")),
        (Rule::ConnectionProtected, with("Connection: host\r\n")),
    ]
}

/// Whatever rule a head breaks, on a new connection and behind a good request: it is refused by that rule, the gateway
/// ends the connection by itself, and what comes behind is nobody's request.
#[tokio::test]
async fn each_rule_of_the_scanner_ends_the_connection() {
    let app = upstream().start().await;
    let limits = "[log.access]\nformat = \"json\"\n[limits]\nheader_bytes = \"80KiB\"\nheader_timeout = \"60s\"\nidle_timeout = \"60s\"\n";
    let gw = in_front_of(&app, "").and(limits).start().await;
    let heads = heads();
    let shown: Vec<&str> = heads.iter().map(|(rule, _)| rule.text()).collect();
    // What HTTP/1 trims is a fault in HTTP/2 alone.
    let all = Rule::ALL.iter().filter(|rule| **rule != Rule::FieldSpace);
    assert_eq!(shown, all.map(|rule| rule.text()).collect::<Vec<_>>(), "every rule has a head");
    for (rule, head) in &heads {
        for is_first in [true, false] {
            let show = format!("{} (first: {is_first})", rule.text());
            let mut raw = gw.raw().await;
            if !is_first {
                raw.get("/good").await.expect_status(200);
            }
            raw.try_send(format!("{head}\r\n{BEHIND}{BEHIND}")).await;
            let answer = raw.response_or_close().await.unwrap_or_else(|| panic!("no answer: {show}"));
            assert_eq!(answer.status, rule.reason().status(), "{show}: {}", answer.text());
            assert_eq!(answer.json()["code"], rule.reason().code(), "{show}");
            assert_eq!(answer.header("connection"), Some("close"), "{show}");
            // By itself: nothing here has said that nothing more will come.
            raw.closed().await;
        }
    }
    assert_eq!(app.requests(), heads.len(), "only the good ones reached the service");
    assert!(app.seen_at("/behind").is_empty());
    // As a whole value: the text of one rule may be in that of another.
    let told = |rule: &Rule| {
        let part = format!("\"{}\"", rule.text());
        gw.access_log().iter().filter(|line| line.contains(&part)).count()
    };
    for (rule, _) in &heads {
        eventually("the log to say which rule it was", async || (told(rule) == 2).then_some(())).await;
    }
    gw.stop().await;
}

/// A head that never ends is answered when its time is over, and its connection is closed, although the client still could
/// go on.
#[tokio::test]
async fn a_head_that_never_ends_ends_the_connection() {
    let app = upstream().start().await;
    let gw = in_front_of(&app, "").and("[limits]\nheader_timeout = \"300ms\"\n").start().await;
    for begun in
        ["G", "GET / HTTP/1.1", "GET / HTTP/1.1\r\nHost: x\r\n", "\r\nGET / HTTP/1.1\r\nHost: x\r\nX: "]
    {
        let mut raw = gw.raw().await;
        raw.send(begun).await;
        let answer = raw.response().await.expect_problem(408, "request.header_timeout");
        assert_eq!(answer.header("connection"), Some("close"), "{begun:?}");
        raw.try_send(format!("\r\n\r\n{BEHIND}")).await;
        raw.closed().await;
    }
    assert_eq!(app.requests(), 0);
    gw.stop().await;
}

/// Nobody hides behind empty lines: the log says what was asked, and HEAD is answered as such.
#[tokio::test]
async fn what_is_refused_behind_empty_lines_is_logged() {
    let (app, gw) = strict().await;
    let mut raw = gw.raw().await;
    raw.send("\r\n\r\nHEAD /hidden HTTP/1.1\r\nHost: x\r\nX : y\r\n\r\n").await;
    let told = String::from_utf8(raw.rest().await).unwrap();
    assert!(told.starts_with("HTTP/1.1 400 ") && told.ends_with("\r\n\r\n"), "{told}");
    gw.logged("HEAD /hidden").await;
    assert_eq!(app.requests(), 0);
    gw.stop().await;
}

/// A few empty lines are nothing; more of them than a head may have bytes are one that never ends.
#[tokio::test]
async fn empty_lines_are_bounded_like_a_head() {
    let app = upstream().start().await;
    let gw = in_front_of(&app, "").and("[limits]\nheader_bytes = \"4KiB\"\n").start().await;
    let mut raw = gw.raw().await;
    for _ in 0..3 {
        raw.send("\r\n".repeat(1000)).await;
        raw.get("/fine").await.expect_status(200);
    }
    let mut raw = gw.raw().await;
    raw.send("\r\n".repeat(8 << 10)).await;
    raw.response().await.expect_problem(431, "request.header_too_large");
    raw.closed().await;
    gw.logged("\"\" 431 ").await;
    assert_eq!(app.requests(), 3);
    gw.stop().await;
}

#[tokio::test]
async fn heads_that_are_too_large() {
    let long = "x".repeat(9000);
    let many: String = (0..2000).map(|n| format!("X{n}: y\r\n")).collect();
    refused(&[
        (&format!("GET /{long} HTTP/1.1\r\nHost: x\r\n\r\n"), 414, "request.uri_too_long"),
        (&format!("GET / HTTP/1.1\r\nHost: x\r\nX-Long: {long}\r\n\r\n"), 431, "request.header_too_large"),
        (&format!("GET / HTTP/1.1\r\nHost: x\r\n{many}\r\n"), 431, "request.header_too_large"),
    ])
    .await;
}

#[tokio::test]
async fn methods_that_are_not_for_a_gateway() {
    refused(&[(
        "CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n",
        501,
        "request.method_unsupported",
    )])
    .await;
}

/// Bodies that stop making sense after a good head: the request fails, and nothing after it is taken for a request.
#[tokio::test]
async fn broken_chunks_end_the_connection() {
    for body in [
        "zz\r\nhello\r\n0\r\n\r\n",
        "5\r\nhelloX\r\n0\r\n\r\n",
        "5\nhello\n0\n\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "ffffffffffffffffff\r\nhello\r\n0\r\n\r\n",
        "5 ;\r\nhello\r\n0\r\nBad Trailer\r\n\r\n",
    ] {
        let (app, gw) = strict().await;
        let mut raw = gw.raw().await;
        let after = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n";
        raw.try_send(format!(
            "POST /chunks HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{body}{after}"
        ))
        .await;
        if let Some(answer) = raw.response_or_close().await {
            assert_eq!(answer.status, 400, "{body:?}: {}", answer.text());
            assert_eq!(answer.header("connection"), Some("close"), "{body:?}");
        }
        raw.rest().await;
        eventually("the service's connections to end", async || (app.open_connections() == 0).then_some(()))
            .await;
        assert!(app.seen().is_empty(), "{body:?}: {:?}", app.seen());
        gw.get("/fine").await.expect_status(200);
    }
}

/// A body that was answered without being read must not be read as the next request.
#[tokio::test]
async fn an_unread_body_is_not_the_next_request() {
    let (app, gw) = strict().await;
    let gw2 = in_front_of(&app, "").and("body_bytes = \"10B\"\n").start().await;
    let inner = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n";
    let outer = |more: usize| {
        format!("POST /outer HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{inner}", inner.len() + more)
    };
    let next = "GET /next HTTP/1.1\r\nHost: x\r\n\r\n";
    // All of it is there: the next one begins behind it.
    let mut raw = gw.raw().await;
    raw.send(format!("{}{next}", outer(0))).await;
    raw.response().await.expect_status(200);
    assert_eq!(raw.response().await.expect_status(200).json()["target"], "/next");
    // Too large, and all there: where it ends is known, and what comes behind is the next one.
    let mut raw = gw2.raw().await;
    raw.send(format!("{}{next}", outer(0))).await;
    raw.response().await.expect_problem(413, "request.body_too_large");
    assert_eq!(raw.response().await.expect_status(200).json()["target"], "/next");
    raw.still_open("/later").await.expect_status(200);
    // Too large, and the rest does not come: the gateway ends the connection by itself.
    let mut raw = gw2.raw().await;
    raw.send(outer(1000)).await;
    raw.response().await.expect_problem(413, "request.body_too_large");
    raw.closed().await;
    // What the rest would be longer than it is said to be is no request either.
    let mut raw = gw2.raw().await;
    raw.send(format!("POST /outer HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n{inner}"))
        .await;
    let answer = raw.response().await;
    assert!(matches!(answer.status, 400 | 413), "{}", answer.text());
    raw.closed().await;
    assert_eq!(app.seen_at("/next").len(), 2);
    assert!(app.seen_at("/smuggled").is_empty());
}

/// These are odd but right, and must work.
#[tokio::test]
async fn odd_requests_that_are_valid() {
    let (app, gw) = strict().await;
    for (bytes, target) in [
        ("\r\nGET /blank-line-before HTTP/1.1\r\nHost: x\r\n\r\n", "/blank-line-before"),
        ("GET http://x/absolute?q HTTP/1.1\r\nHost: x\r\n\r\n", "/absolute?q"),
        ("GET /empty-host HTTP/1.1\r\nHost:x\r\nX:\r\n\r\n", "/empty-host"),
        ("GET /same-lengths HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", "/same-lengths"),
        ("GET /query?a[]=1&b={}|\\^` HTTP/1.1\r\nHost: x\r\n\r\n", ""),
        ("M-SEARCH /method HTTP/1.1\r\nHost: x\r\n\r\n", "/method"),
    ] {
        let mut raw = gw.raw().await;
        raw.send(bytes).await;
        let answer = raw.response().await;
        if target.is_empty() {
            assert!([200, 400].contains(&answer.status), "{bytes:?}");
        } else {
            assert_eq!(answer.expect_status(200).json()["target"], target, "{bytes:?}");
        }
    }
    assert!(app.requests() >= 5);
}

/// Anything at all on a connection: the process lives, and serves the next one.
#[tokio::test]
async fn rubbish_harms_nobody() {
    let (_app, gw) = strict().await;
    // A fixed generator: the same rubbish every time.
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    for round in 0..120 {
        let length = (next() % 300) as usize + 1;
        let mut bytes: Vec<u8> = (0..length).map(|_| next() as u8).collect();
        match round % 4 {
            0 => {}
            1 => bytes = [b"GET / HTTP/1.1\r\n".to_vec(), bytes].concat(),
            2 => bytes = [preface.clone(), bytes].concat(),
            _ => bytes = [preface.clone(), b"\0\0\0\x04\0\0\0\0\0".to_vec(), bytes].concat(),
        }
        let mut raw = gw.raw().await;
        raw.try_send(&bytes).await;
        drop(raw);
    }
    gw.get("/fine").await.expect_status(200);
    gw.stop().await;
}

/// More connections than allowed wait or are refused; those that are in are served.
#[tokio::test]
async fn the_number_of_connections_is_bounded() {
    let app = upstream().start().await;
    let gw = in_front_of(&app, "").and("[limits]\nconnections = 10\n").start().await;
    let mut inside = Vec::new();
    for _ in 0..10 {
        let mut raw = gw.raw().await;
        raw.get("/in").await.expect_status(200);
        inside.push(raw);
    }
    let mut extra = gw.raw().await;
    extra.try_send("GET /extra HTTP/1.1\r\nHost: x\r\n\r\n").await;
    for raw in &mut inside {
        raw.get("/still").await.expect_status(200);
    }
    assert!(app.seen_at("/extra").is_empty(), "the eleventh was let in");
    drop(inside);
    eventually("room again", async || {
        gw.get("/room").send().await.is_ok_and(|answer| answer.status == 200).then_some(())
    })
    .await;
}
