//! Honest forwarding: what a service learns of the client, what it must not learn, and what comes back.

use bytes::Bytes;

use crate::support::*;

const TRUSTING: &str = "[server]\ntrusted_proxies = [\"127.0.0.0/8\", \"10.0.0.0/8\"]\n";

#[tokio::test]
async fn the_service_learns_who_asked_for_what() {
    let app = upstream().start().await;
    let gw = in_front_of(&app, "").start().await;
    let echo = gw.get("/a?b=c").host("api.example.com").await.echo();
    assert_eq!(echo.target(), "/a?b=c");
    assert_eq!(echo.host(), "api.example.com");
    assert_eq!(echo.header("x-forwarded-for").as_deref(), Some("127.0.0.1"));
    assert_eq!(echo.header("x-real-ip").as_deref(), Some("127.0.0.1"));
    assert_eq!(echo.header("x-forwarded-proto").as_deref(), Some("http"));
    assert_eq!(echo.header("x-forwarded-host").as_deref(), Some("api.example.com"));
    let port = gw.address().port().to_string();
    assert_eq!(echo.header("x-forwarded-port").as_deref(), Some(port.as_str()));
    assert!(echo.header("via").is_some_and(|via| via.starts_with("1.1 ")), "{echo:?}");
}

/// A client is not believed what it says about itself.
#[tokio::test]
async fn forged_forwarding_headers_do_not_get_through() {
    let app = upstream().start().await;
    let gw = in_front_of(&app, "").start().await;
    let echo = gw
        .get("/")
        .header("x-forwarded-for", "1.2.3.4, 10.0.0.1")
        .header("x-forwarded-proto", "https")
        .header("x-forwarded-host", "evil.example")
        .header("x-forwarded-port", "1")
        .header("x-forwarded-prefix", "/evil")
        .header("x-real-ip", "1.2.3.4")
        .header("forwarded", "for=1.2.3.4;proto=https")
        .header("x-request-id", "chosen-by-the-client")
        .await
        .echo();
    assert_eq!(echo.header("x-forwarded-for").as_deref(), Some("127.0.0.1"));
    assert_eq!(echo.header("x-forwarded-proto").as_deref(), Some("http"));
    assert_ne!(echo.header("x-forwarded-host").as_deref(), Some("evil.example"));
    assert_ne!(echo.header("x-forwarded-port").as_deref(), Some("1"));
    assert_eq!(echo.header("x-real-ip").as_deref(), Some("127.0.0.1"));
    assert_eq!(echo.header("x-forwarded-prefix"), None);
    assert!(!echo.headers("forwarded").concat().contains("1.2.3.4"));
    assert_ne!(echo.header("x-request-id").as_deref(), Some("chosen-by-the-client"));
}

/// Servers that take dashes for underscores take these for the same.
#[tokio::test]
async fn other_spellings_of_them_do_not_get_through_either() {
    let app = upstream().start().await;
    let gw = in_front_of(&app, "").start().await;
    let forged = [
        "x_forwarded_for",
        "x-forwarded_proto",
        "x_real_ip",
        "x_auth-subject",
        "x-auth-roles",
        "x-auth-claims",
    ];
    let forged = forged.into_iter().chain(["x_auth_roles", "x-consumer", "x_consumer"]);
    for name in forged {
        let echo = gw.get("/").header(name, "1.2.3.4").header("x-consumers", "kept").await.echo();
        assert_eq!(echo.header(name), None, "{name}");
        assert_eq!(echo.header("x-consumers").as_deref(), Some("kept"));
    }
}

/// What is for one hop alone stays there, in interim answers, too.
#[tokio::test]
async fn interim_answers_are_cleaned() {
    let app = RawUpstream::answering(
        "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nConnection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\n\r\n\
         HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    )
    .await;
    let gw = in_front_of(&app, "").start().await;
    let mut raw = gw.raw().await;
    raw.send("GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
    let answers = String::from_utf8(raw.rest().await).unwrap().to_ascii_lowercase();
    let (interim, rest) = answers.split_once("\r\n\r\n").unwrap();
    assert!(interim.starts_with("http/1.1 103") && interim.contains("link: </a.css>"), "{answers}");
    assert!(
        !interim.contains("hop") && !interim.contains("connection") && !interim.contains("keep-alive"),
        "{answers}"
    );
    assert!(rest.starts_with("http/1.1 200") && rest.ends_with("ok"), "{answers}");
}

#[tokio::test]
async fn behind_trusted_proxies_the_client_is_the_first_untrusted_from_the_right() {
    let app = upstream().start().await;
    let gw =
        in_front_of(&app, TRUSTING).and("[log.access]\nformat = '$remote_addr $request_uri'\n").start().await;
    for (path, lines, client) in [
        ("/1", vec!["192.0.2.7"], "192.0.2.7"),
        ("/2", vec!["192.0.2.7, 10.0.0.9"], "192.0.2.7"),
        ("/3", vec!["6.6.6.6, 192.0.2.7", "10.0.0.9"], "192.0.2.7"),
        ("/4", vec!["10.0.0.8, 10.0.0.9"], "10.0.0.8"),
        ("/5", vec!["192.0.2.7, rubbish"], "127.0.0.1"),
        ("/6", vec!["192.0.2.7, rubbish, 10.0.0.9"], "10.0.0.9"),
        ("/7", vec!["2001:db8::1"], "2001:db8::1"),
    ] {
        let mut request = gw.get(path).header("x-forwarded-proto", "https");
        for line in &lines {
            request = request.header("x-forwarded-for", line);
        }
        let echo = request.await.echo();
        let chain = echo.header("x-forwarded-for").unwrap();
        assert!(chain.ends_with("127.0.0.1"), "the peer is appended: {chain}");
        assert_eq!(echo.header("x-real-ip").as_deref(), Some(client), "{lines:?}");
        assert_eq!(echo.header("x-forwarded-proto").as_deref(), Some("https"));
        assert_eq!(gw.logged(path).await, format!("{client} {path}"));
    }
    // Nobody in front said anything: the peer itself is the client.
    assert_eq!(gw.get("/8").await.echo().header("x-real-ip").as_deref(), Some("127.0.0.1"));
}

#[tokio::test]
async fn hop_by_hop_headers_end_here() {
    let app = upstream()
        .otherwise(Answer::with(|seen| {
            let fixed = Fixed::new(200, Bytes::from_static(b"ok"));
            let names: Vec<_> = seen.headers.keys().map(|name| name.as_str().to_owned()).collect();
            fixed
                .with("x-seen", &names.join(" "))
                .with("connection", "x-secret")
                .with("x-secret", "1")
                .with("keep-alive", "timeout=3")
                .with("proxy-authenticate", "Basic")
                .with("x-kept", "1")
        }))
        .start()
        .await;
    let gw = in_front_of(&app, "").start().await;
    let answer = gw
        .get("/")
        .header("connection", "x-drop, keep-alive")
        .header("x-drop", "1")
        .header("keep-alive", "timeout=5")
        .header("proxy-connection", "keep-alive")
        .header("proxy-authorization", "Basic eDp5")
        .header("te", "trailers, deflate")
        .header("x-through", "1")
        .header("authorization", "Bearer abc")
        .await
        .expect_status(200);
    let seen: Vec<_> = answer.header("x-seen").unwrap().split(' ').collect();
    for gone in ["x-drop", "keep-alive", "proxy-connection", "proxy-authorization"] {
        assert!(!seen.contains(&gone), "{gone} reached the service: {seen:?}");
    }
    assert!(seen.contains(&"x-through") && seen.contains(&"authorization"), "{seen:?}");
    for gone in ["x-secret", "keep-alive", "proxy-authenticate"] {
        assert_eq!(answer.header(gone), None, "{gone} reached the client");
    }
    assert_eq!(answer.header("x-kept"), Some("1"));
}

/// `Connection` must not be a way to strip what the gateway says.
#[tokio::test]
async fn connection_cannot_name_what_the_gateway_sets() {
    let app = upstream().start().await;
    let gw = in_front_of(&app, "").start().await;
    let names = ["host", "x-forwarded-for", "x-real-ip", "x-request-id", "x-forwarded-proto"];
    for name in names {
        let answer = gw.get("/").host("h.example").header("connection", &format!("close, {name}")).await;
        // Nobody has a good reason to name these: refusing is as good as protecting.
        if answer.status == 400 {
            continue;
        }
        let echo = answer.echo();
        assert!(names[1..].iter().all(|name| echo.header(name).is_some()), "{name}: {echo:?}");
        assert_eq!(echo.header("x-forwarded-for").as_deref(), Some("127.0.0.1"));
        assert_eq!(echo.host(), "h.example");
    }
}

#[tokio::test]
async fn the_host_sent_is_the_clients_the_servers_or_a_name() {
    let app = upstream().start().await;
    for (setting, expected) in [
        ("host = \"client\"", "api.example.com".to_owned()),
        ("host = \"server\"", app.address().to_string()),
        ("host = \"inner.example\"", "inner.example".to_owned()),
    ] {
        let gw = in_front_of(&app, setting).start().await;
        let echo = gw.get("/").host("api.example.com").await.echo();
        assert_eq!(echo.host(), expected, "{setting}");
        assert_eq!(echo.header("x-forwarded-host").as_deref(), Some("api.example.com"));
    }
}

#[tokio::test]
async fn each_request_has_an_id_that_everybody_sees() {
    let app = upstream().start().await;
    let gw = in_front_of(&app, "").start().await;
    let first = gw.get("/").await;
    let id = first.header("x-request-id").unwrap().to_owned();
    assert!(id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()), "{id}");
    assert_eq!(first.echo().header("x-request-id"), Some(id.clone()));
    assert_ne!(gw.get("/").await.header("x-request-id"), Some(id.as_str()));
    drop(gw);

    let gw = in_front_of(&app, TRUSTING).start().await;
    let kept = gw.get("/").header("x-request-id", "abc-DEF_1.2").await;
    assert_eq!(kept.header("x-request-id"), Some("abc-DEF_1.2"));
    for wrong in ["has space", &"x".repeat(129), "semi;colon", ""] {
        let answer = gw.get("/").header("x-request-id", wrong).await;
        assert_eq!(answer.header("x-request-id").map(str::len), Some(32), "{wrong:?}");
    }
}

#[tokio::test]
async fn traces_are_continued() {
    let app = upstream().start().await;
    let gw = in_front_of(&app, "").start().await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let echo = gw
        .get("/")
        .header("traceparent", &format!("00-{trace}-00f067aa0ba902b7-01"))
        .header("tracestate", "vendor=1")
        .await
        .echo();
    let parent = echo.header("traceparent").unwrap();
    assert!(parent.starts_with(&format!("00-{trace}-")), "{parent}");
    assert_eq!(parent.len(), 55);
    assert_eq!(echo.header("tracestate").as_deref(), Some("vendor=1"));
    let echo = gw.get("/").header("traceparent", "rubbish").await.echo();
    assert!(echo.header("traceparent").is_none_or(|parent| parent.len() == 55 && parent.starts_with("00-")));
}

#[tokio::test]
async fn answers_come_back_as_they_are() {
    let app = upstream()
        .on("/cookies", {
            let fixed = Fixed::new(207, Bytes::from_static(b"body"));
            Answer::Fixed(
                fixed
                    .with("set-cookie", "a=1; Path=/")
                    .with("set-cookie", "b=2")
                    .with("server", "my-server/1")
                    .with("etag", "\"x\"")
                    .with("x-odd", "caf\u{e9}"),
            )
        })
        .on("/304", Answer::status(304).header("etag", "\"x\""))
        .on("/204", Answer::status(204))
        .on("/599", Answer::status(599))
        .start()
        .await;
    let gw = in_front_of(&app, "").start().await;
    let answer = gw.get("/cookies").await.expect_status(207);
    let cookies: Vec<_> = answer.headers.get_all("set-cookie").iter().map(|v| v.to_str().unwrap()).collect();
    assert_eq!(cookies, ["a=1; Path=/", "b=2"]);
    assert_eq!(answer.header("server"), Some("my-server/1"));
    assert_eq!(answer.header("etag"), Some("\"x\""));
    assert_eq!(answer.headers["x-odd"].as_bytes(), "caf\u{e9}".as_bytes());
    assert_eq!(answer.text(), "body");
    let kept = gw.client().connect().await;
    for status in [304, 204, 599] {
        assert_eq!(kept.get(&format!("/{status}")).await.expect_status(status).text(), "");
    }
    assert_eq!(kept.request("HEAD", "/cookies").await.expect_status(207).text(), "");
    kept.get("/cookies").await.expect_status(207);
}

/// The case and order in which a service wrote its headers do not matter, but what the service gets must be one
/// request: the exact bytes.
#[tokio::test]
async fn the_request_on_the_wire_is_one_clean_request() {
    let app = RawUpstream::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    let gw = in_front_of(&app, "").start().await;
    let mut raw = gw.raw().await;
    raw.send("GET /a%20b?x=%20 HTTP/1.1\r\nhOsT: Example.COM\r\nX-Empty:\r\nX-Pad:   v  \r\n\r\n").await;
    assert_eq!(raw.response().await.expect_status(200).text(), "ok");
    let wire = app.received_text();
    assert!(wire.starts_with("GET /a%20b?x=%20 HTTP/1.1\r\n"), "{wire}");
    assert!(wire.ends_with("\r\n\r\n"), "{wire}");
    assert_eq!(wire.to_ascii_lowercase().matches("\r\nhost:").count(), 1, "{wire}");
    assert!(wire.to_ascii_lowercase().contains("\r\nx-pad: v\r\n"), "{wire}");
    assert!(!wire.to_ascii_lowercase().contains("transfer-encoding"), "a GET has no body: {wire}");
    assert!(!wire.to_ascii_lowercase().contains("content-length"), "a GET has no body: {wire}");
}

#[tokio::test]
async fn upstream_connections_are_reused() {
    let app = upstream().start().await;
    let gw = in_front_of(&app, "").start().await;
    for _ in 0..20 {
        gw.get("/").await.expect_status(200);
    }
    assert!(app.connections() <= 3, "{} connections for 20 requests in a row", app.connections());
}

/// HTTP/1.0 has neither chunks nor persistent connections by default.
#[tokio::test]
async fn old_clients_are_served() {
    let app = upstream()
        .on(
            "/chunks",
            Answer::Trailers(Fixed::new(200, Bytes::from_static(b"chunks")), [].into_iter().collect()),
        )
        .start()
        .await;
    let gw = in_front_of(&app, "").start().await;
    let mut raw = gw.raw().await;
    raw.send("GET /echo HTTP/1.0\r\nHost: localhost\r\n\r\n").await;
    let answer = raw.response().await.expect_status(200);
    assert!(!answer.chunked, "{answer:?}");
    raw.closed().await;
    let mut raw = gw.raw().await;
    raw.send("GET /chunks HTTP/1.0\r\nHost: localhost\r\n\r\n").await;
    let answer = raw.response().await.expect_status(200);
    assert_eq!((answer.chunked, answer.text().as_str()), (false, "chunks"));
    raw.closed().await;
    let mut raw = gw.raw().await;
    raw.send("GET /1 HTTP/1.0\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n").await;
    raw.response().await.expect_status(200);
    // Without Host it cannot be routed by host, but HTTP/1.0 may leave it out.
    let mut raw = gw.raw().await;
    raw.send("GET /2 HTTP/1.0\r\n\r\n").await;
    raw.response().await.expect_status(200);
}

/// Interim answers came with HTTP/1.1, and a server of HTTP/1.1 must be told a host even if the client named none.
#[tokio::test]
async fn old_clients_get_one_answer_and_servers_a_host() {
    let reply =
        "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let app = RawUpstream::answering(reply).await;
    let gw = in_front_of(&app, "").start().await;
    let mut raw = gw.raw().await;
    raw.send("GET / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n").await;
    assert_eq!(raw.response().await.expect_status(200).text(), "ok");
    raw.closed().await;
    let head = app.received_text().to_ascii_lowercase();
    assert!(head.contains(&format!("\r\nhost: {}\r\n", app.address())), "{head}");
    assert!(!head.contains("\r\nexpect:"), "{head}");
}

#[tokio::test]
async fn close_counts_wherever_it_stands() {
    let app = upstream().start().await;
    let gw = in_front_of(&app, "").start().await;
    for lines in
        ["Connection: x-a\r\nConnection: close", "Connection: x-a, Close", "Connection: keep-alive, close"]
    {
        let mut raw = gw.raw().await;
        raw.send(format!("GET / HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n\r\n")).await;
        let answer = raw.response().await.expect_status(200);
        assert_eq!(answer.header("connection"), Some("close"), "{lines}");
        raw.closed().await;
    }
}

#[tokio::test]
async fn informational_answers_pass_and_do_not_confuse() {
    let reply =
        "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let app = RawUpstream::answering(reply).await;
    let gw = in_front_of(&app, "").start().await;
    let mut raw = gw.raw().await;
    for _ in 0..2 {
        raw.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        let mut answer = raw.response().await;
        while answer.status < 200 {
            answer = raw.response().await;
        }
        assert_eq!(answer.expect_status(200).text(), "ok");
    }
}

#[tokio::test]
async fn several_requests_in_one_packet_are_answered_in_order() {
    let app = upstream().start().await;
    let gw = in_front_of(&app, "").start().await;
    let mut raw = gw.raw().await;
    let requests: String = (0..5).map(|n| format!("GET /{n} HTTP/1.1\r\nHost: localhost\r\n\r\n")).collect();
    raw.send(requests).await;
    for n in 0..5 {
        assert_eq!(raw.response().await.expect_status(200).json()["target"], format!("/{n}"));
    }
}

#[tokio::test]
async fn listeners_on_unix_sockets_and_ipv6() {
    let app = upstream().start().await;
    let gw =
        in_front_of(&app, "").listener("sock", "unix:run/edge.sock").listener("six", "[::1]:0").start().await;
    let path = gw.url("sock").strip_prefix("unix:").unwrap().to_owned();
    let mut raw = RawClient::connect_unix(&gw.directory().join(path)).await;
    let echo = raw.get("/x").await.expect_status(200).json();
    assert_eq!(echo["target"], "/x");
    let six = Client::new(gw.listener("six")).get("/").await.echo();
    assert_eq!(six.header("x-forwarded-for").as_deref(), Some("::1"));
    gw.stop().await;
}
