//! From `http://` to `https://`, and staying there.

use crate::support::*;

const ROUTES: &str = "[[routes]]\nname = \"all\"\npath = \"/*\"\nrespond = { text = \"ok\" }\n\
     [[routes]]\nname = \"challenge\"\nlisteners = [\"plain\", \"main\"]\npath = \"/.well-known/acme-challenge/*\"\nrespond = { text = \"token\" }\n\
     [[routes]]\nname = \"strict\"\npath = \"/own\"\nrespond = { headers = { Strict-Transport-Security = \"max-age=1\" } }\n\
     [[routes]]\nname = \"elsewhere\"\nhosts = [\"only.example\"]\nlisteners = [\"main\"]\npath = \"/only\"\nrespond = {}\n";

fn both(config: &str, authority: &Authority, port: u16) -> GatewayBuilder {
    gateway(config)
        .identity("site", &authority.server(&["localhost"]))
        .listener("plain", "127.0.0.1:0")
        .and(&format!("redirect_https = {port}"))
        .listener("main", "127.0.0.1:0")
        .and("hsts = \"1h\"\n[[listeners.certificates]]\ncert = \"site.pem\"\nkey = \"site-key.pem\"")
}

#[tokio::test]
async fn cleartext_is_sent_to_https() {
    let authority = Authority::new();
    let gw = both(ROUTES, &authority, 8443).start().await;
    let plain = Client::new(gw.listener("plain"));
    for (host, target, location) in [
        ("localhost", "/", "https://localhost:8443/"),
        ("LocalHost:8080", "/a/../b//c%20d?x=1&y=%0A", "https://localhost:8443/b/c%20d?x=1&y=%0A"),
        ("only.example", "/only", "https://only.example:8443/only"),
        ("[2001:DB8::1]:80", "/no/such/route?", "https://[2001:db8::1]:8443/no/such/route"),
    ] {
        for method in ["GET", "HEAD", "DELETE"] {
            let answer = plain.request(method, target).host(host).await.expect_status(308);
            assert_eq!(answer.header("location"), Some(location), "{method} {host} {target}");
            assert_eq!(answer.header("strict-transport-security"), None, "in cleartext it says nothing");
        }
    }
    let post = plain.request("POST", "/form").host("localhost").body("x=1").await.expect_status(308);
    assert_eq!(post.header("location"), Some("https://localhost:8443/form"));
    assert_eq!(
        plain.http2().get("/h2").host("localhost").await.expect_status(308).header("location"),
        Some("https://localhost:8443/h2")
    );
    let challenge = Client::new(gw.listener("plain")).get("/.well-known/acme-challenge/x").await;
    assert_eq!(challenge.expect_status(200).text(), "token");

    let mut raw = RawClient::connect(gw.listener("plain")).await;
    raw.send("OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!(raw.response().await.expect_status(308).header("location"), Some("https://localhost:8443/"));
    raw.send("GET /again HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!(
        raw.response().await.expect_status(308).header("location"),
        Some("https://localhost:8443/again")
    );
    let mut old = RawClient::connect(gw.listener("plain")).await;
    old.send("GET / HTTP/1.0\r\n\r\n").await;
    old.response().await.expect_problem(400, "request.bad_host");
    let line = gw.logged("/again").await;
    assert!(line.contains(" 308 "), "{line}");
}

#[tokio::test]
async fn the_usual_port_is_not_written() {
    let authority = Authority::new();
    let trusting = "[server]\ntrusted_proxies = [\"127.0.0.0/8\"]\n".to_owned() + ROUTES;
    let gw = both(&trusting, &authority, 443).start().await;
    assert!(gw.stderr().contains("redirect-nowhere"), "{}", gw.stderr());
    let plain = Client::new(gw.listener("plain"));
    let answer = plain.get("/x?y").host("example.com").await.expect_status(308);
    assert_eq!(answer.header("location"), Some("https://example.com/x?y"));
    // The client came to the proxy in front by HTTPS: sent there, it would come back here for ever.
    let proxied = plain.get("/x").header("X-Forwarded-Proto", "https").await.expect_status(200);
    assert_eq!(proxied.text(), "ok");
    plain.get("/x").header("X-Forwarded-Proto", "http").await.expect_status(308);
}

#[tokio::test]
async fn explain_knows_where_cleartext_goes() {
    let authority = Authority::new();
    let ask = async |url: &str| {
        let gw = both(ROUTES, &authority, 8443);
        let out = gw.command(&["explain", "-c", "edgeward.toml", "GET", url]).await;
        assert_eq!(out.status, 0, "{}", out.stderr);
        out.stdout
    };
    let told = ask("http://localhost/a?b").await;
    assert!(told.contains("308 to https://localhost:8443/a?b (redirect_https)"), "{told}");
    assert!(ask("http://localhost/.well-known/acme-challenge/x").await.contains("route       challenge"));
    assert!(ask("https://localhost/a").await.contains("route       all"));
}

/// Every answer of the listener says it: the gateway's, its errors, those of servers that do not say it themselves.
#[tokio::test]
async fn browsers_are_told_to_stay() {
    let authority = Authority::new();
    let (app, dead) = (upstream().start().await, DeadPort::new());
    app.on(
        "/app/own",
        Answer::Fixed(Fixed::new(200, "x".into()).with("strict-transport-security", "max-age=2")),
    );
    let more = "[upstreams.app]\nservers = [\"{app}\"]\n[upstreams.dead]\nservers = [\"{dead}\"]\n\
         [[routes]]\npath = \"/app/*\"\nupstream = \"app\"\n[[routes]]\npath = \"/dead\"\nupstream = \"dead\"\n\
         [[routes]]\npath = \"/moved\"\nredirect = { to = \"/\" }\n";
    let gw =
        both(&(ROUTES.to_owned() + more), &authority, 0).with("app", &app).with("dead", &dead).start().await;
    let client = Client::new(gw.listener("main")).tls(&authority.client_config(&[], None), "localhost");
    for client in [client.clone(), client.http2()] {
        for (path, status, value) in [
            ("/", 200, "max-age=3600"),
            ("/own", 200, "max-age=1"),
            ("/moved", 308, "max-age=3600"),
            ("/app/x", 200, "max-age=3600"),
            ("/app/own", 200, "max-age=2"),
            ("/dead", 502, "max-age=3600"),
            ("/a/%zz", 400, "max-age=3600"),
        ] {
            let answer = client.get(path).host("localhost").await.expect_status(status);
            assert_eq!(answer.header("strict-transport-security"), Some(value), "{path}");
        }
    }
    // What is no HTTP at all is answered before any route is looked for.
    let url = format!("https://{}/", gw.listener("main"));
    let out = curl(&["-k", "-i", "--http1.1", "-H", "Content-Length: x", &url]).await;
    assert!(
        out.stdout.starts_with("HTTP/1.1 400")
            && out.stdout.contains("Strict-Transport-Security: max-age=3600\r\n"),
        "{}",
        out.stdout
    );
    let plain = Client::new(gw.listener("plain")).get("/").await.expect_status(200);
    assert_eq!(plain.header("strict-transport-security"), None);
}
