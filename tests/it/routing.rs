//! Which route wins, what it does to the path, and what is answered when none does.

use crate::support::*;

/// A gateway whose routes answer with their own names.
fn named(routes: &[(&str, &str)]) -> GatewayBuilder {
    let mut config = String::new();
    for (name, matches) in routes {
        config.push_str(&format!(
            "[[routes]]\nname = \"{name}\"\n{matches}\nrespond = {{ status = 200, text = \"{name}\" }}\n"
        ));
    }
    gateway(&config)
}

async fn wins(gateway: &Gateway, path: &str, name: &str) {
    assert_eq!(gateway.get(path).await.expect_status(200).text(), name, "{path}");
}

#[tokio::test]
async fn an_exact_host_beats_a_wildcard_and_a_wildcard_beats_none() {
    let gw = named(&[
        ("any", r#"path = "/*""#),
        ("wild", "hosts = [\"*.example.com\"]\npath = \"/*\""),
        ("longer", "hosts = [\"*.eu.example.com\"]\npath = \"/*\""),
        ("exact", "hosts = [\"api.example.com\"]\npath = \"/*\""),
    ])
    .start()
    .await;
    for (host, name) in [
        ("api.example.com", "exact"),
        ("API.Example.COM:8080", "exact"),
        ("api.example.com.", "exact"),
        ("www.example.com", "wild"),
        ("a.b.example.com", "wild"),
        ("a.eu.example.com", "longer"),
        ("example.com", "any"),
        ("other.org", "any"),
        ("[::1]:80", "any"),
    ] {
        assert_eq!(gw.get("/x").host(host).await.expect_status(200).text(), name, "{host}");
    }
}

/// Exact, template, longest prefix, regex in file order, and "/*" last of all.
#[tokio::test]
async fn the_most_specific_path_wins() {
    let gw = named(&[
        ("all", r#"path = "/*""#),
        ("digits", "path = '~^/r/[0-9]+$'"),
        ("letters", "path = '~^/r/[0-9a-z]+$'"),
        ("prefix", r#"path = "/a/*""#),
        ("longer", r#"path = "/a/b/*""#),
        ("template", r#"path = "/a/{id}""#),
        ("literal-first", r#"path = "/a/{id}/edit""#),
        ("parameter", r#"path = "/a/{id}/{what}""#),
        ("exact", r#"path = "/a/new""#),
    ])
    .start()
    .await;
    for (path, name) in [
        ("/a/new", "exact"),
        ("/a/7", "template"),
        ("/a/7/edit", "literal-first"),
        ("/a/7/view", "parameter"),
        ("/a", "prefix"),
        ("/a/", "prefix"),
        ("/a/b/c/d", "longer"),
        ("/ab", "all"),
        ("/r/12", "digits"),
        ("/r/1z", "letters"),
        ("/r/1Z", "all"),
        ("/", "all"),
    ] {
        wins(&gw, path, name).await;
    }
}

#[tokio::test]
async fn an_exact_path_is_not_its_neighbour() {
    let gw = named(&[("exact", r#"path = "/a/b""#)]).start().await;
    wins(&gw, "/a/b", "exact").await;
    wins(&gw, "/a/b?x=1", "exact").await;
    for path in ["/a/b/", "/a/B", "/a/bc", "/a"] {
        gw.get(path).await.expect_problem(404, "route.not_found");
    }
}

#[tokio::test]
async fn predicates_choose_among_the_same_path() {
    let gw = named(&[
        ("plain", r#"path = "/p""#),
        ("v2", "path = \"/p\"\nheaders = { x-version = \"2\" }"),
        ("accept", "path = \"/p\"\nheaders = { accept = '~vnd\\.shop\\.v3\\+json' }"),
        ("both", "path = \"/p\"\nheaders = { x-version = \"2\" }\nquery = { beta = true }"),
        ("cookie", "path = \"/p\"\ncookies = { canary = \"yes\" }"),
        ("absent", "path = \"/q\"\nheaders = { x-version = false }"),
        ("query", "path = \"/q\"\nquery = { v = \"2\" }\nheaders = { x-version = true }"),
    ])
    .start()
    .await;
    wins(&gw, "/p", "plain").await;
    for (header, value, name) in [
        ("x-version", "2", "v2"),
        ("X-Version", "2", "v2"),
        ("x-version", "3", "plain"),
        ("accept", "application/vnd.shop.v3+json", "accept"),
        ("cookie", "a=b; canary=yes", "cookie"),
        ("cookie", "a=b; canary=no", "plain"),
    ] {
        let answer = gw.get("/p").header(header, value).await;
        assert_eq!(answer.expect_status(200).text(), name, "{header}: {value}");
    }
    assert_eq!(gw.get("/p?beta").header("x-version", "2").await.text(), "both");
    let repeated = gw.get("/p").header("x-version", "1").header("x-version", "2").await;
    assert_eq!(repeated.text(), "v2", "any of repeated values suffices");
    wins(&gw, "/q", "absent").await;
    assert_eq!(gw.get("/q?v=2").header("x-version", "1").await.text(), "query");
    gw.get("/q").header("x-version", "1").await.expect_problem(404, "route.not_found");
}

/// All predicates must hold, or the request falls to the less specific route.
#[tokio::test]
async fn a_request_falls_through_to_a_less_specific_route() {
    let gw = named(&[
        ("all", r#"path = "/*""#),
        ("exact-post", "path = \"/a/b\"\nmethods = [\"POST\"]"),
        ("prefix-v2", "path = \"/a/*\"\nheaders = { x-version = \"2\" }"),
    ])
    .start()
    .await;
    wins(&gw, "/a/b", "all").await;
    assert_eq!(gw.request("POST", "/a/b").await.text(), "exact-post");
    assert_eq!(gw.get("/a/b").header("x-version", "2").await.text(), "prefix-v2");
}

#[tokio::test]
async fn file_order_decides_between_equals_and_priority_before_everything() {
    let gw = named(&[
        ("first", "path = \"/a/{x}\"\nheaders = { x-a = true }"),
        ("second", "path = \"/a/{y}\"\nheaders = { x-b = true }"),
        ("late", "path = \"/b/*\"\npriority = 1"),
        ("exact", r#"path = "/b/c""#),
    ])
    .start()
    .await;
    assert_eq!(gw.get("/a/1").header("x-a", "").header("x-b", "").await.text(), "first");
    assert_eq!(gw.get("/a/1").header("x-b", "").await.text(), "second");
    wins(&gw, "/b/c", "late").await;
}

#[tokio::test]
async fn methods_are_405_only_when_another_method_would_do() {
    let gw = named(&[
        ("read", "path = \"/x\"\nmethods = [\"GET\"]"),
        ("write", "path = \"/x\"\nmethods = [\"POST\"]\nheaders = { x-key = true }"),
        ("put", "path = \"/y\"\nmethods = [\"PUT\"]"),
    ])
    .start()
    .await;
    let head = gw.request("HEAD", "/x").await.expect_status(200);
    assert_eq!(head.header("content-length"), Some("4"));
    let refused = gw.request("DELETE", "/x").await.expect_problem(405, "route.method_not_allowed");
    let allow: Vec<_> = refused.header("allow").unwrap().split(", ").collect();
    assert!(allow.contains(&"GET") && allow.contains(&"HEAD"), "{allow:?}");
    assert_eq!(
        gw.get("/y").await.expect_problem(405, "route.method_not_allowed").header("allow"),
        Some("PUT")
    );
    gw.get("/z").await.expect_problem(404, "route.not_found");
    gw.request("OPTIONS", "/y").await.expect_problem(405, "route.method_not_allowed");
    gw.request("BREW", "/y").await.expect_problem(405, "route.method_not_allowed");
}

#[tokio::test]
async fn a_route_can_belong_to_one_listener() {
    let gw = named(&[("inside", "path = \"/x\"\nlisteners = [\"inner\"]")])
        .listener("main", "127.0.0.1:0")
        .listener("inner", "127.0.0.1:0")
        .start()
        .await;
    assert_eq!(Client::new(gw.listener("inner")).get("/x").await.text(), "inside");
    Client::new(gw.listener("main")).get("/x").await.expect_problem(404, "route.not_found");
}

/// Spellings of one path are one path, for the match and for the service.
#[tokio::test]
async fn paths_are_normalised_once_and_forwarded_so() {
    let app = upstream().start().await;
    let gw = gateway(
        r#"
        [upstreams.app]
        servers = ["{app}"]
        [[routes]]
        path = "/private/*"
        respond = { status = 403, text = "private" }
        [[routes]]
        path = "/*"
        upstream = "app"
        "#,
    )
    .with("app", &app)
    .start()
    .await;
    let mut raw = gw.raw().await;
    for path in [
        "/private/x",
        "//private/x",
        "/a/../private/x",
        "/./private/x",
        "/%70rivate/x",
        "/a/%2e%2e/private/x",
        "/a/.%2E/private/x",
        "/private/./x",
    ] {
        assert_eq!(raw.get(path).await.status, 403, "{path}");
    }
    for (sent, seen) in [
        ("/a//b/./c/../d", "/a/b/d"),
        ("/a%2Fb", "/a%2Fb"),
        ("/a%2fb", "/a%2Fb"),
        ("/a%20b", "/a%20b"),
        ("/%61?q=%61//..", "/a?q=%61//.."),
        ("/x/", "/x/"),
        ("/x/..", "/"),
        ("/..x/...", "/..x/..."),
    ] {
        assert_eq!(raw.get(sent).await.expect_status(200).json()["target"], seen, "{sent}");
    }
    for path in ["/..", "/a/../../b", "/%zz", "/%", "/a%00b", "/%2e%2e/x"] {
        let mut raw = gw.raw().await;
        raw.get(path).await.expect_problem(400, "request.bad_path");
    }
}

#[tokio::test]
async fn rewrites() {
    let app = upstream().start().await;
    let gw = gateway(
        r#"
        [upstreams.app]
        servers = ["{app}"]
        [[routes]]
        path = "/api/users/*"
        upstream = "app"
        rewrite = { prefix = "/api/users", to = "/api/v1/users" }
        [[routes]]
        path = "/v1/*"
        upstream = "app"
        rewrite = { prefix = "/v1", to = "/" }
        [[routes]]
        path = "/users/{id}/orders/{order}"
        upstream = "app"
        rewrite = { path = "/orders/{path.order}/of/{path.id}" }
        [[routes]]
        path = "/files/{name}/*"
        upstream = "app"
        rewrite = { path = "/{path.name}/data/{path.rest}" }
        [[routes]]
        path = '~^/re/([a-z]+)/(?P<n>[0-9]+)$'
        upstream = "app"
        rewrite = { path = "/{path.1}-{path.n}" }
        [[routes]]
        path = "/old/*"
        upstream = "app"
        rewrite = { regex = '^/old/(.*)$', to = "/new/{1}" }
        "#,
    )
    .with("app", &app)
    .start()
    .await;
    for (path, seen) in [
        ("/api/users/7?full=1&x=%2F", "/api/v1/users/7?full=1&x=%2F"),
        ("/api/users", "/api/v1/users"),
        ("/api/users/", "/api/v1/users/"),
        ("/v1/x", "/x"),
        ("/v1", "/"),
        ("/v1/", "/"),
        ("/users/7/orders/9?a", "/orders/9/of/7?a"),
        ("/users/a%2Fb/orders/c%20d", "/orders/c%20d/of/a%2Fb"),
        ("/files/n/a/b", "/n/data/a/b"),
        ("/re/abc/42", "/abc-42"),
        ("/old/a/b?c", "/new/a/b?c"),
    ] {
        assert_eq!(gw.get(path).await.echo().target(), seen, "{path}");
    }
}

/// A value from the path can never become structure: not a segment, not a parent, not a query.
#[tokio::test]
async fn a_captured_value_stays_one_segment() {
    let app = upstream().start().await;
    let gw = gateway(
        r#"
        [upstreams.app]
        servers = ["{app}"]
        [[routes]]
        path = "/u/{id}"
        upstream = "app"
        rewrite = { path = "/private/{path.id}/view" }
        "#,
    )
    .with("app", &app)
    .start()
    .await;
    for (path, seen) in [
        ("/u/%2E%2E%2Fx", "/private/..%2Fx/view"),
        ("/u/a%3Fb", "/private/a%3Fb/view"),
        ("/u/a%23b", "/private/a%23b/view"),
        ("/u/%25", "/private/%25/view"),
        ("/u/%C3%A9", "/private/%C3%A9/view"),
    ] {
        assert_eq!(gw.get(path).await.echo().target(), seen, "{path}");
    }
}

#[tokio::test]
async fn redirects() {
    let gw = gateway(
        r#"
        [[routes]]
        path = "/old/*"
        redirect = { to = "https://www.example.com/new/{path.rest}", status = 308 }
        [[routes]]
        path = "/here/{id}"
        redirect = { to = "/there?id={path.id}", status = 302 }
        "#,
    )
    .start()
    .await;
    for (path, status, location) in [
        ("/old/a/b", 308, "https://www.example.com/new/a/b"),
        ("/old/a?x=1&y=2", 308, "https://www.example.com/new/a?x=1&y=2"),
        ("/old", 308, "https://www.example.com/new/"),
        ("/here/7?x=1", 302, "/there?id=7"),
        ("/here/a%26b%3Dc", 302, "/there?id=a%26b%3Dc"),
    ] {
        let answer = gw.get(path).await.expect_status(status);
        assert_eq!(answer.header("location"), Some(location), "{path}");
    }
    let mut raw = gw.raw().await;
    raw.send("GET /old/%0d%0aSet-Cookie:x=1 HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    let answer = raw.response().await;
    assert_eq!(answer.header("set-cookie"), None, "{answer:?}");
}

#[tokio::test]
async fn static_answers() {
    let gw = gateway(
        r#"
        [[routes]]
        path = "/text"
        respond = { status = 200, text = "ok" }
        [[routes]]
        path = "/json"
        respond = { status = 418, json = { tea = true, pots = [1, 2] }, headers = { "X-Kind" = "pot" } }
        [[routes]]
        path = "/page"
        respond = { status = 200, file = "page.html" }
        [[routes]]
        path = "/nothing"
        respond = { status = 204 }
        "#,
    )
    .file("page.html", "<h1>Hi</h1>")
    .start()
    .await;
    let connection = gw.client().connect().await;
    let text = connection.get("/text").await.expect_status(200);
    assert_eq!((text.text().as_str(), text.header("content-length")), ("ok", Some("2")));
    assert!(text.header("content-type").unwrap().starts_with("text/plain"));
    assert_eq!(text.header("x-request-id").map(str::len), Some(32));
    let json = gw.request("POST", "/json").body("ignored").await.expect_status(418);
    assert_eq!(json.json(), serde_json::json!({ "tea": true, "pots": [1, 2] }));
    assert_eq!((json.header("x-kind"), json.header("content-type")), (Some("pot"), Some("application/json")));
    let page = connection.get("/page").await.expect_status(200);
    assert!(page.header("content-type").unwrap().starts_with("text/html"));
    assert_eq!(page.text(), "<h1>Hi</h1>");
    assert_eq!(connection.get("/nothing").await.expect_status(204).text(), "");
    let head = connection.request("HEAD", "/page").await.expect_status(200);
    assert_eq!(head.header("content-length"), Some("11"));
}

#[tokio::test]
async fn ip_rules_refuse_before_the_service_is_asked() {
    let app = upstream().start().await;
    let gw = gateway(
        r#"
        [upstreams.app]
        servers = ["{app}"]
        [[routes]]
        path = "/inside/*"
        upstream = "app"
        ip = { allow = ["10.0.0.0/8"] }
        [[routes]]
        path = "/not-you/*"
        upstream = "app"
        ip = { deny = ["127.0.0.0/8"] }
        [[routes]]
        path = "/both/*"
        upstream = "app"
        ip = { allow = ["127.0.0.0/8"], deny = ["127.0.0.1"] }
        [[routes]]
        path = "/you/*"
        upstream = "app"
        ip = { allow = ["127.0.0.1", "::1"] }
        "#,
    )
    .with("app", &app)
    .start()
    .await;
    for path in ["/inside/x", "/not-you/x", "/both/x"] {
        gw.get(path).await.expect_problem(403, "access.ip_denied");
    }
    assert_eq!(app.requests(), 0);
    // Whoever is not trusted does not get in by saying so.
    gw.get("/inside/x").header("x-forwarded-for", "10.1.2.3").await.expect_status(403);
    gw.get("/you/x").await.expect_status(200);
}
