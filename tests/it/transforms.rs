//! `request` and `response` of routes: headers and parameters that change on the way, in every protocol and for every
//! kind of answer, and what nobody can make of them.

use bytes::Bytes;

use crate::support::*;

const RULES: &str = r#"
    [upstreams.app]
    servers = ["{app}"]
    host = "app.internal"

    [defaults.request]
    set = { "X-Everywhere" = "yes", "X-Inherited" = "default" }
    remove = ["X-Debug"]

    [defaults.response]
    set = { "X-Frame-Options" = "DENY", "X-Content-Type-Options" = "nosniff" }

    [[routes]]
    name = "tenants"
    path = "/tenants/{id}/*"
    upstream = "app"
    [routes.request]
    set = { "X-Tenant" = "{path.id}", "X-Uri" = "{request.uri}", "X-Lang" = "{cookie.lang}", "X-Inherited" = "own", "X-Who" = "{client.ip} {request.scheme} {request.host}" }
    add = { "X-List" = "last" }
    [routes.request.query]
    set = { tenant = "{path.id}", lang = "{cookie.lang}" }
    remove = ["debug"]
    [routes.response]
    set = { "x-frame-options" = false, "X-Rid" = "{request.id}", "Cache-Control" = "no-store" }
    add = { "Set-Cookie" = "gw=1" }
    remove = ["X-Powered-By", "Server"]

    [[routes]]
    name = "host"
    path = "/host/*"
    upstream = "app"
    [routes.request]
    set = { Host = "{query.host}", "X-Inherited" = false }

    [[routes]]
    name = "forwarded"
    path = "/forwarded"
    upstream = "app"
    [routes.request]
    set = { "X-Forwarded-For" = "{client.ip}", "X-Forwarded-Proto" = "https", "X-Claimed" = "{header.x-real-ip}", "X-Ours" = "{header.x-forwarded-port}" }
    remove = ["X-Real-IP", "Authorization", "Via"]

    [[routes]]
    name = "values"
    path = "/values"
    upstream = "app"
    [routes.request]
    set = { "X-Value" = "{query.v}", "Connection-Id" = "{header.x-c}" }
    [routes.response]
    set = { "X-Value" = "{query.v}" }

    [[routes]]
    name = "moved"
    path = "/moved/{id}"
    redirect = { to = "/tenants/{path.id}/x" }
    [routes.response]
    set = { "X-Id" = "{path.id}" }

    [[routes]]
    name = "fixed"
    path = "/fixed"
    respond = { text = "hello", headers = { "X-Powered-By" = "toml" } }
    [routes.response]
    remove = ["X-Powered-By"]
"#;

#[tokio::test]
async fn a_service_gets_what_the_route_says() {
    let app = upstream().start().await;
    let gw = gateway(RULES).with("app", &app).start().await;
    for client in [gw.client(), gw.client().http2()] {
        let echo = client
            .get("/tenants/4%2F2/a?x=%2f&debug=1&lang=client")
            .host("shop.example:81")
            .header("cookie", "a=b; lang=de")
            .header("x-tenant", "forged")
            .header("x-debug", "1")
            .header("x-list", "first")
            .header("x-everywhere", "no")
            .await
            .echo();
        assert_eq!(echo.target(), "/tenants/4%2F2/a?x=%2f&tenant=4%2F2&lang=de");
        assert_eq!(echo.headers("x-tenant"), ["4/2"]);
        assert_eq!(echo.headers("x-uri"), ["/tenants/4%2F2/a?x=%2f&debug=1&lang=client"]);
        assert_eq!(echo.headers("x-lang"), ["de"]);
        assert_eq!(echo.headers("x-who"), ["127.0.0.1 http shop.example"]);
        assert_eq!(echo.headers("x-list"), ["first", "last"]);
        assert_eq!(echo.headers("x-inherited"), ["own"]);
        assert_eq!(echo.headers("x-everywhere"), ["yes"]);
        assert_eq!(echo.header("x-debug"), None);
        assert_eq!(echo.host(), "app.internal");
    }
    // A value that is missing: neither ours nor the client's.
    let echo =
        gw.get("/tenants/1/a?lang=client").header("x-lang", "client").header("cookie", "a=b").await.echo();
    assert_eq!((echo.header("x-lang"), echo.target()), (None, "/tenants/1/a?tenant=1"));
    // A query that nothing is left of leaves no question mark behind.
    let gw = gateway(
        "[upstreams.app]\nservers = [\"{app}\"]\n[[routes]]\npath = \"/*\"\nupstream = \"app\"\nrequest = { query = { remove = [\"a\"] } }",
    )
    .with("app", &app)
    .start()
    .await;
    assert_eq!(gw.get("/x?a=1&%61=2").await.echo().target(), "/x");
    assert_eq!(gw.get("/x?b=1").await.echo().target(), "/x?b=1");
    assert_eq!(gw.get("/x").await.echo().target(), "/x");
}

#[tokio::test]
async fn a_client_gets_what_the_route_says() {
    let answer = Answer::text("hi")
        .header("x-powered-by", "php")
        .header("server", "app/1")
        .header("set-cookie", "app=1")
        .header("cache-control", "public")
        .header("cache-control", "max-age=60");
    let app = upstream().otherwise(answer).start().await;
    let gw = gateway(RULES).with("app", &app).start().await;
    for client in [gw.client(), gw.client().http2()] {
        let answer = client.get("/tenants/1/a").await.expect_status(200);
        assert_eq!(answer.text(), "hi");
        for gone in ["x-powered-by", "server", "x-frame-options"] {
            assert_eq!(answer.header(gone), None, "{gone}");
        }
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert_eq!(answer.header("x-rid"), answer.header("x-request-id"));
        assert_eq!(answer.headers.get_all("set-cookie").iter().collect::<Vec<_>>(), ["app=1", "gw=1"]);
        let other = client.get("/forwarded").await.expect_status(200);
        assert_eq!(other.header("x-frame-options"), Some("DENY"), "inherited");
        assert_eq!(other.header("x-powered-by"), Some("php"));
    }
}

/// Errors, redirects and static answers of the gateway, and what matches no route.
#[tokio::test]
async fn answers_of_the_gateway_itself_follow_the_rules() {
    let dead = DeadPort::new();
    let gw = gateway(RULES).with("app", &dead).start().await;
    for client in [gw.client(), gw.client().http2()] {
        let failed = client.get("/tenants/1/a").await;
        let id = failed.header("x-request-id").unwrap().to_owned();
        assert_eq!(failed.header("x-rid"), Some(id.as_str()));
        assert_eq!(failed.header("cache-control"), Some("no-store"));
        assert_eq!(failed.header("x-frame-options"), None);
        assert_eq!(failed.header("set-cookie"), Some("gw=1"));
        failed.expect_problem(502, "upstream.connect_failed");
        let moved = client.get("/moved/a%0D%0Ab?x=1").await.expect_status(308);
        assert_eq!(moved.header("x-id"), None, "it cannot stand in a header");
        let moved = client.get("/moved/7").await.expect_status(308);
        assert_eq!((moved.header("x-id"), moved.header("x-frame-options")), (Some("7"), Some("DENY")));
        let fixed = client.get("/fixed").await.expect_status(200);
        assert_eq!((fixed.header("x-powered-by"), fixed.header("x-frame-options")), (None, Some("DENY")));
        let nowhere = client.get("/nowhere").await;
        assert_eq!(nowhere.header("x-frame-options"), Some("DENY"), "[defaults] hold without a route, too");
        nowhere.expect_problem(404, "route.not_found");
        let head = client.request("HEAD", "/fixed").await.expect_status(200);
        assert_eq!(
            (head.header("content-length"), head.header("x-frame-options")),
            (Some("5"), Some("DENY"))
        );
    }
}

#[tokio::test]
async fn host_can_be_set_but_never_lost() {
    let app = upstream().start().await;
    let gw = gateway(RULES).with("app", &app).start().await;
    for client in [gw.client(), gw.client().http2()] {
        let host = async |path: &str| client.get(path).await.echo();
        let echo = host("/host/a?host=other.example:8080").await;
        assert_eq!((echo.host().as_str(), echo.header("x-inherited")), ("other.example:8080", None));
        for bad in
            ["/host/a", "/host/a?host=", "/host/a?host=a%20b", "/host/a?host=a%0D%0AX:1", "/host/a?host=a/b"]
        {
            assert_eq!(host(bad).await.host(), "app.internal", "{bad}");
        }
    }
    // Over HTTP/2 to the server, too, where it becomes the authority.
    let gw =
        gateway(&RULES.replace("host = \"app.internal\"", "http2 = true")).with("app", &app).start().await;
    let echo = gw.get("/host/a?host=other.example").await.echo();
    assert_eq!((echo.version(), echo.host().as_str()), ("HTTP/2.0", "other.example"));
}

/// Rules come after the gateway's own headers, so that they may change those; what belongs to the hop is gone for good.
#[tokio::test]
async fn forwarding_headers_may_be_changed() {
    let app = upstream().start().await;
    let gw = gateway(&format!("[server]\ntrusted_proxies = [\"127.0.0.1\"]\n{RULES}"))
        .with("app", &app)
        .start()
        .await;
    let echo = gw
        .get("/forwarded")
        .header("x-forwarded-for", "192.0.2.7")
        .header("x-real-ip", "192.0.2.8")
        .header("authorization", "Bearer x")
        .header("connection", "x-drop")
        .header("x-drop", "1")
        .await
        .echo();
    assert_eq!(echo.headers("x-forwarded-for"), ["192.0.2.7"], "as nginx users write it");
    assert_eq!(echo.headers("x-forwarded-proto"), ["https"]);
    assert_eq!(echo.headers("x-claimed"), ["192.0.2.8"], "what the client sent, not what the gateway says");
    assert_eq!(echo.header("x-ours"), None, "the client sent none");
    for gone in ["x-real-ip", "authorization", "x-drop", "via"] {
        assert_eq!(echo.header(gone), None, "{gone}");
    }
}

/// What a client sends becomes one value or none: no line, no header, no half of one.
#[tokio::test]
async fn values_cannot_add_headers_or_lines() {
    let app = upstream().start().await;
    let gw = gateway(RULES)
        .with("app", &app)
        .and("[log.access]\nformat = '$request_uri $status $error_detail'\n")
        .start()
        .await;
    for client in [gw.client(), gw.client().http2()] {
        for evil in ["a%0D%0AX-Evil:%201", "a%0AX-Evil:1", "%00", "a%7F", "%0D%0A%0D%0AGET%20/%20HTTP/1.1"] {
            let path = format!("/values?v={evil}");
            let answer = client.get(&path).header("x-value", "client").await;
            assert_eq!(answer.header("x-value"), None, "{evil}");
            assert_eq!(answer.header("x-evil"), None, "{evil}");
            let echo = answer.echo();
            assert_eq!((echo.header("x-value"), echo.header("x-evil")), (None, None), "{evil}");
            assert_eq!(echo.target(), path);
            let line = gw.logged(&format!("{path} 200 the value for x-value")).await;
            assert!(line.contains("cannot stand in a header"), "{line}");
        }
        for (sent, value) in [("%20a%20b%09", "a b"), ("%C3%A4", "ä"), ("a,%20b", "a, b")] {
            let echo = client.get(&format!("/values?v={sent}")).await.echo();
            assert_eq!(echo.headers("x-value"), [value], "{sent}");
        }
    }
    assert!(app.seen().iter().all(|seen| seen.uri.path() == "/values"));
}

/// Every attempt gets the same head.
#[tokio::test]
async fn retries_are_edited_like_the_first_attempt() {
    let app = upstream().otherwise(Answer::sequence([Answer::status(503), Answer::Echo])).start().await;
    let gw = gateway(RULES).with("app", &app).start().await;
    let echo = gw.get("/tenants/7/a").header("x-list", "first").await.echo();
    assert_eq!(
        (echo.headers("x-tenant"), echo.headers("x-list")),
        (vec!["7".to_owned()], vec!["first".to_owned(), "last".to_owned()])
    );
    let first = &app.seen()[0];
    assert_eq!(first.header("x-tenant"), Some("7"));
}

#[tokio::test]
async fn a_handshake_is_edited_without_harm() {
    let app = upstream().on("/tenants/1/ws", Answer::WebSocket).start().await;
    let gw = gateway(RULES).with("app", &app).start().await;
    let mut raw = gw.raw().await;
    raw.send(
        "GET /tenants/1/ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    )
    .await;
    let answer = raw.response().await.expect_status(101);
    assert_eq!(answer.header("upgrade"), Some("websocket"));
    assert!(answer.header("x-rid").is_some());
    assert_eq!(app.seen()[0].header("x-tenant"), Some("1"));
}

#[tokio::test]
async fn explain_shows_what_the_rules_come_to() {
    let dead = DeadPort::new();
    let arguments =
        ["explain", "-H", "Cookie: lang=de", "GET", "http://shop.example/tenants/7/a?debug=1&x=%0A"];
    let ran = gateway(RULES).with("app", &dead).command(&arguments).await;
    assert_eq!((ran.status, ran.stderr.as_str()), (0, ""));
    for part in [
        "asked for   /tenants/7/a?x=%0A&tenant=7&lang=de\n",
        "request     x-debug is removed\n",
        "request     x-tenant: 7\n",
        "request     x-list: last (one more)\n",
        "response    cache-control: no-store\n",
        "response    x-powered-by is removed\n",
        "request     request.set.x-tenant = \"{path.id}\"  (edgeward.toml:",
        "response.set.x-content-type-options = \"nosniff\"  (edgeward.toml:",
    ] {
        assert!(ran.stdout.contains(part), "{part:?} is not in\n{}", ran.stdout);
    }
    assert!(!ran.stdout.contains("x-frame-options"), "{}", ran.stdout);
}

/// Bodies and their framing are nobody's business here: what is set never changes a length.
#[tokio::test]
async fn bodies_pass_untouched() {
    let app = upstream().otherwise(Answer::EchoBody).start().await;
    let gw = gateway(RULES).with("app", &app).start().await;
    let body = Bytes::from(vec![b'x'; 200_000]);
    for client in [gw.client(), gw.client().http2()] {
        let answer = client.request("POST", "/tenants/1/a").body(body.clone()).await.expect_status(200);
        assert_eq!(answer.body, body);
    }
}
