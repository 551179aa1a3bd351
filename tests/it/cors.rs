//! CORS over real sockets: preflights, and who may read which answer, the gateway's own included.

use crate::support::*;

const APP: &str = "https://app.example.com";

const CONFIG: &str = r#"
    [upstreams.app]
    servers = ["{app}"]

    [rate_limits.few]
    key = "ip"
    limits = ["2/h"]

    [defaults.cors]
    origins = ["https://app.example.com", "https://*.partner.test"]
    headers = ["Authorization", "Content-Type"]
    expose = ["X-Auth-Token"]
    credentials = true
    max_age = "1h"

    [[routes]]
    name = "users"
    path = "/users/*"
    methods = ["GET", "POST"]
    headers = { x-version = "2" }
    upstream = "app"

    [[routes]]
    name = "closed"
    path = "/closed"
    methods = ["DELETE"]
    respond = { text = "in" }
    ip = { deny = ["127.0.0.0/8"] }

    [[routes]]
    name = "public"
    path = "/public"
    methods = ["GET"]
    upstream = "app"
    cors = { origins = ["*"], credentials = false, expose = [], headers = ["*"] }

    [[routes]]
    name = "limited"
    path = "/limited"
    methods = ["GET"]
    respond = { text = "in" }
    rate_limits = ["few"]

    [[routes]]
    name = "own"
    path = "/own"
    upstream = "app"
    cors = false

    [[routes]]
    name = "options"
    path = "/options"
    methods = ["OPTIONS"]
    respond = { text = "options" }
"#;

fn preflight(gw: &Gateway, path: &str, origin: &str, method: &str) -> RequestBuilder {
    gw.request("OPTIONS", path).header("Origin", origin).header("Access-Control-Request-Method", method)
}

/// A server that has an opinion of its own about who may read.
async fn app() -> Upstream {
    upstream()
        .otherwise(
            Answer::text("app")
                .header("Access-Control-Allow-Origin", "*")
                .header("Access-Control-Allow-Methods", "PURGE")
                .header("Vary", "Accept-Encoding"),
        )
        .start()
        .await
}

#[tokio::test]
async fn preflights_are_answered_for_the_route_they_ask_about() {
    let app = app().await;
    let gw = gateway(CONFIG).with("app", &app).start().await;
    // Headers of the request to come are not there yet: the route's own are not asked for.
    let request = preflight(&gw, "/users/7", APP, "POST");
    let answer = request.header("Access-Control-Request-Headers", "content-type").await.expect_status(204);
    assert_eq!(answer.header("access-control-allow-origin"), Some(APP));
    assert_eq!(answer.header("access-control-allow-credentials"), Some("true"));
    assert_eq!(answer.header("access-control-allow-methods"), Some("GET, HEAD, POST"));
    assert_eq!(answer.header("access-control-allow-headers"), Some("Authorization, Content-Type"));
    assert_eq!(answer.header("access-control-max-age"), Some("3600"));
    assert_eq!(answer.header("access-control-expose-headers"), None);
    assert!(answer.header("vary").unwrap().starts_with("Origin"));
    assert_eq!(answer.text(), "");
    assert_eq!(app.requests(), 0);
    // Below the domain, and nobody else.
    let partner = preflight(&gw, "/users/7", "https://a.partner.test", "GET").await.expect_status(204);
    assert_eq!(partner.header("access-control-allow-origin"), Some("https://a.partner.test"));
    for stranger in ["https://evil.test", "https://partner.test", "http://app.example.com", "null"] {
        let answer = preflight(&gw, "/users/7", stranger, "GET").await.expect_status(204);
        assert_eq!(answer.header("access-control-allow-origin"), None, "{stranger}");
        assert_eq!(answer.header("access-control-allow-methods"), None, "{stranger}");
        assert!(answer.header("vary").unwrap().contains("Origin"));
    }
    // With "*" as headers those that are asked for; without credentials nobody is told apart.
    let request = preflight(&gw, "/public", "https://anybody.test", "GET");
    let answer = request.header("Access-Control-Request-Headers", "x-a, x-b").await.expect_status(204);
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    assert_eq!(answer.header("access-control-allow-headers"), Some("x-a, x-b"));
    assert_eq!(answer.header("access-control-allow-credentials"), None);
    assert_eq!(app.requests(), 0);
}

/// The order: who is kept out by his address is, and a limit that is used up keeps no preflight from being answered.
#[tokio::test]
async fn preflights_come_after_addresses_and_before_limits() {
    let app = app().await;
    let gw = gateway(CONFIG).with("app", &app).start().await;
    preflight(&gw, "/closed", APP, "DELETE").await.expect_problem(403, "access.ip_denied");
    for _ in 0..2 {
        gw.get("/limited").header("Origin", APP).await.expect_status(200);
    }
    let refused = gw.get("/limited").header("Origin", APP).await.expect_problem(429, "limit.exceeded");
    assert_eq!(refused.header("access-control-allow-origin"), Some(APP));
    assert_eq!(preflight(&gw, "/limited", APP, "GET").await.expect_status(204).header("ratelimit"), None);
}

/// Neither does it need a certificate, which no preflight carries.
#[tokio::test]
async fn preflights_come_before_authentication() {
    let authority = Authority::new();
    let gw = gateway("[[routes]]\npath = \"/*\"\nrespond = { text = \"in\" }\nauth = { with = [\"mtls\"] }\ncors = { origins = [\"https://app.example.com\"] }\n")
        .identity("site", &authority.server(&["localhost"]))
        .file("clients.pem", &authority.pem)
        .listener("main", "127.0.0.1:0")
        .and("client_auth = { ca = \"clients.pem\", mode = \"optional\" }")
        .and("[[listeners.certificates]]\ncert = \"site.pem\"\nkey = \"site-key.pem\"")
        .start()
        .await;
    for http2 in [false, true] {
        let client = Client::new(gw.address()).tls(&authority.client_config(&[], None), "localhost");
        let client = if http2 { client.http2() } else { client };
        let asked = client.request("OPTIONS", "/").header("Origin", APP);
        let answer = asked.header("Access-Control-Request-Method", "PUT").await.expect_status(204);
        // The route takes any method, so the one that is announced.
        assert_eq!(answer.header("access-control-allow-methods"), Some("PUT"));
        let refused = client.get("/").header("Origin", APP).await;
        let refused = refused.expect_problem(401, "auth.certificate_required");
        assert_eq!(refused.header("access-control-allow-origin"), Some(APP));
        // A question that is no preflight is a request like any other.
        client.request("OPTIONS", "/").header("Origin", APP).await.expect_status(401);
    }
}

/// Who may read: proxied answers, what the gateway says itself, also where no route or no server is.
#[tokio::test]
async fn every_answer_says_who_may_read_it() {
    let app = app().await;
    let gw = gateway(CONFIG).with("app", &app).start().await;
    let get = |path: &str| gw.get(path).header("X-Version", "2");
    let answer = get("/users/7").header("Origin", APP).await.expect_status(200);
    assert_eq!(answer.header("access-control-allow-origin"), Some(APP));
    assert_eq!(answer.header("access-control-allow-credentials"), Some("true"));
    assert_eq!(answer.header("access-control-expose-headers"), Some("X-Auth-Token"));
    // What the server says under these names is not its business.
    assert_eq!(answer.header("access-control-allow-methods"), None);
    let varies: Vec<_> = answer.headers.get_all("vary").iter().collect();
    assert_eq!(varies, ["Accept-Encoding", "Origin"]);
    // Caches must tell them apart also where nobody asked.
    for request in [get("/users/7"), get("/users/7").header("Origin", "https://evil.test")] {
        let answer = request.await.expect_status(200);
        assert_eq!(answer.header("access-control-allow-origin"), None);
        assert!(answer.headers.get_all("vary").iter().any(|value| value == "Origin"));
    }
    let public = gw.get("/public").header("Origin", "https://evil.test").await.expect_status(200);
    assert_eq!(public.header("access-control-allow-origin"), Some("*"));
    assert_eq!(public.headers.get_all("vary").iter().count(), 1);
    // A cache keeps one answer for all: it says the same to who asks without an origin.
    let plain = gw.get("/public").await.expect_status(200);
    assert_eq!(plain.header("access-control-allow-origin"), Some("*"));
    let absent = gw.get("/absent").header("Origin", APP).await.expect_problem(404, "route.not_found");
    assert_eq!(absent.header("access-control-allow-origin"), Some(APP));
    // A route that takes them away leaves all of it to its server.
    let own = gw.get("/own").header("Origin", APP).await.expect_status(200);
    assert_eq!(own.header("access-control-allow-methods"), Some("PURGE"));
    assert_eq!(preflight(&gw, "/own", APP, "GET").await.expect_status(200).text(), "app");
    // Where no server is: the page learns that.
    drop(app);
    let gone = get("/users/7").header("Origin", APP).await.expect_status(502);
    assert_eq!(gone.header("access-control-allow-origin"), Some(APP));
}

/// A preflight about what no route takes is answered by `[defaults]`, so that the page can read the 404 or 405; a route for
/// OPTIONS itself takes what nobody else announces to.
#[tokio::test]
async fn preflights_about_nothing() {
    let app = app().await;
    let gw = gateway(CONFIG).with("app", &app).start().await;
    for path in ["/absent", "/users/7"] {
        let answer = preflight(&gw, path, APP, "DELETE").await.expect_status(204);
        assert_eq!(answer.header("access-control-allow-origin"), Some(APP));
    }
    let refused = gw.request("DELETE", "/limited").header("Origin", APP).await.expect_status(405);
    assert_eq!(refused.header("access-control-allow-origin"), Some(APP));
    assert_eq!(gw.request("OPTIONS", "/options").await.expect_status(200).text(), "options");
}
