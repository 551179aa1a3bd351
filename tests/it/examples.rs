//! The examples of `conf/examples`: each is read from there, with the addresses of the test in place of its own, and does
//! what the gateway it stands for did.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use edgeward::identity::password::{Cost, hash};
use edgeward::store::{Store, StoreUrl, User};
use serde_json::{Value, json};

use crate::support::*;

/// The example `name` with other addresses: its listener's and its servers'.
fn example(name: &str, servers: &[(&str, &Upstream)]) -> GatewayBuilder {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/examples").join(name);
    let mut text = std::fs::read_to_string(path).unwrap();
    for (address, server) in servers {
        assert!(text.contains(address), "{name} has no {address}");
        text = text.replace(address, &server.address().to_string());
    }
    let listener = regex::Regex::new(r#"address = "0\.0\.0\.0:\d+""#).unwrap();
    gateway(&listener.replace(&text, "address = \"127.0.0.1:0\""))
}

#[tokio::test]
async fn the_node_gateway_asks_for_all_roles_and_passes_the_payload_on() {
    let (users, more, reports) =
        (upstream().start().await, upstream().start().await, upstream().start().await);
    let servers = [("10.0.0.1:3001", &users), ("10.0.0.2:3001", &more), ("10.0.0.3:3002", &reports)];
    let gw = example("node-gateway.toml", &servers).env("JWT_SECRET", SECRET).start().await;
    let bearer = |roles: Value| {
        let claims = json!({ "iss": "https://gateway.example.com/", "aud": "services", "sub": "u1", "jti": "t1", "roles": roles });
        Signer::secret().bearer(claims)
    };
    let get = |path: &str, roles: Value| gw.get(path).header("authorization", &bearer(roles));
    let echo = get("/users", json!(["user"])).header("gatewayauth", "forged").await.expect_status(200).echo();
    assert_eq!(echo.target(), "/api/users");
    let payload: Value =
        serde_json::from_slice(&STANDARD.decode(echo.header("gatewayauth").unwrap()).unwrap()).unwrap();
    assert_eq!((&payload["jti"], &payload["roles"]), (&json!("t1"), &json!(["user"])));
    assert_eq!(echo.header("x-auth-subject"), None);
    get("/reports/7", json!(["user"])).await.expect_problem(403, "auth.role_missing");
    get("/reports/7", json!(["auditor", "user"])).await.expect_status(200);
    gw.get("/users").await.expect_problem(401, "auth.credentials_required");
    gw.get("/status").await.expect_status(200);

    // Its login: a name and a password for the bare token.
    let store = Store::new(StoreUrl::Sqlite(gw.directory().join("run/users.db")));
    let password = hash("secret", Cost { memory_kib: 1024, passes: 1 }).unwrap();
    let user = User { name: "ada".into(), password, roles: vec!["user".into()], disabled: false };
    store.add_user(&user, 1).await.unwrap();
    let log_in = |password: &str| {
        let body = json!({ "username": "ada", "password": password }).to_string();
        let request = gw.request("POST", "/login").header("content-type", "application/json");
        request.header("accept", "text/plain").body(body)
    };
    log_in("wrong").await.expect_problem(401, "login.failed");
    let token = format!("Bearer {}", log_in("secret").await.expect_status(200).text());
    let echo = gw.get("/users").header("authorization", &token).await.expect_status(200).echo();
    let payload: Value =
        serde_json::from_slice(&STANDARD.decode(echo.header("gatewayauth").unwrap()).unwrap()).unwrap();
    assert_eq!((&payload["sub"], &payload["roles"]), (&json!("ada"), &json!(["user"])));
    gw.get("/reports/7").header("authorization", &token).await.expect_problem(403, "auth.role_missing");
}

#[tokio::test]
async fn express_gateway_verifies_with_a_public_key_file() {
    let (customers, public) =
        (upstream().named("customers").start().await, upstream().named("public").start().await);
    let (signer, stranger) = (Signer::rsa("k1"), Signer::rsa("k1"));
    let servers = [("10.0.0.1:3001", &customers), ("10.0.0.2:3002", &public)];
    let gw = example("express-gateway.toml", &servers).file("key.pub.pem", signer.public_pem()).start().await;
    let claims = json!({ "iss": "https://auth.example.com/", "aud": "api", "sub": "alice" });
    let get = |host: &str| gw.get("/v1/customers").host(host);
    get("customers.example.com").await.expect_problem(401, "auth.credentials_required");
    let good = signer.bearer(claims.clone());
    let echo = get("customers.example.com").header("authorization", &good).await.expect_status(200).echo();
    assert_eq!((echo.server(), echo.header("x-auth-subject").as_deref()), ("customers", Some("alice")));
    let forged = stranger.bearer(claims);
    get("customers.example.com")
        .header("authorization", &forged)
        .await
        .expect_problem(401, "auth.token_invalid");
    assert_eq!(get("www.example.com").await.expect_status(200).echo().server(), "public");
}

#[tokio::test]
async fn the_express_js_gateway_reads_namespaced_roles() {
    let signer = Signer::rsa("k1");
    let keys = upstream().on("/.well-known/jwks.json", Answer::json(key_set(&[&signer]))).start().await;
    let (users, orders) = (upstream().start().await, upstream().start().await);
    let servers = [("10.0.0.1:3001", &users), ("10.0.0.2:3002", &orders)];
    let mut gw = example("express-js.toml", &servers);
    let url = format!("http://{}/.well-known/jwks.json", keys.address());
    gw = gw.replacing("https://tenant.example.auth0.com/.well-known/jwks.json", &url);
    let gw = gw.start().await;
    let get = |path: &str, roles: Value| {
        let claims = json!({
            "iss": "https://tenant.example.auth0.com/", "aud": ["https://api.example.com", "other"],
            "sub": "auth0|7", "https://example.com/roles": roles, "roles": ["admin"],
        });
        gw.get(path).header("authorization", &signer.bearer(claims))
    };
    eventually("the keys to be there", async || {
        (get("/api/users/1", json!([])).await.status == 200).then_some(())
    })
    .await;
    let echo = get("/api/users/1?full=1", json!([])).await.expect_status(200).echo();
    assert_eq!(
        (echo.target(), echo.header("x-auth-subject").as_deref()),
        ("/api/v1/users/1?full=1", Some("auth0|7"))
    );
    get("/api/users/admin/1", json!(["editor"])).await.expect_problem(403, "auth.role_missing");
    get("/api/users/admin/1", json!(["editor", "admin"])).await.expect_status(200);
    get("/api/orders/1", json!(null)).await.expect_problem(403, "auth.role_missing");
    get("/api/orders/1", json!("customer")).await.expect_status(200);
    gw.get("/api/users/1").await.expect_problem(401, "auth.credentials_required");
}

#[tokio::test]
async fn kongs_consumers_have_keys_and_groups() {
    const KEY: &str = "mobile-0123456789abcdef";
    let (first, second, stranger) =
        (Signer::rsa("partner-2025"), Signer::rsa("partner-2026"), Signer::rsa("partner-2026"));
    let shop = upstream().start().await;
    let gw = example("kong-consumers.toml", &[("10.0.0.1:8080", &shop)])
        .file("partner.jwks.json", &key_set(&[&first, &second]).to_string())
        .env("MOBILE_KEY", KEY)
        .start()
        .await;
    let claims = json!({ "iss": "partner", "aud": "shop", "sub": "p" });
    for signer in [&first, &second] {
        let echo = gw
            .get("/wholesale/1")
            .header("authorization", &signer.bearer(claims.clone()))
            .await
            .expect_status(200)
            .echo();
        let told = (echo.header("x-consumer-username"), echo.header("x-consumer-groups"));
        assert_eq!(told, (Some("partner".to_owned()), Some("gold".to_owned())));
    }
    gw.get("/wholesale/1")
        .header("authorization", &stranger.bearer(claims))
        .await
        .expect_problem(401, "auth.token_invalid");
    gw.get("/wholesale/1").header("apikey", KEY).await.expect_problem(403, "auth.role_missing");
    let echo = gw
        .get("/catalogue/1")
        .header("apikey", KEY)
        .header("x-consumer-username", "partner")
        .await
        .expect_status(200)
        .echo();
    assert_eq!(
        (echo.header("x-consumer-username").as_deref(), echo.header("apikey")),
        (Some("mobile"), None)
    );
    let echo = gw.get(&format!("/catalogue/2?a=1&apikey={KEY}&b=2")).await.expect_status(200).echo();
    assert_eq!(echo.target(), "/catalogue/2?a=1&b=2");
    assert!(gw.logged("/catalogue/2").await.contains("/catalogue/2?a=1&apikey=***&b=2 HTTP/1.1"));
    gw.get("/catalogue/1").header("apikey", "wrong").await.expect_problem(401, "auth.api_key_invalid");
}

/// AWS's usage plan: five at once, ten a second, a quota a month, and no way in without a key.
#[tokio::test]
async fn the_example_of_aws_bounds_by_plan_and_wants_a_key() {
    const KEY: &str = "shop-0123456789abcdef";
    let orders = upstream().otherwise(Answer::text("ok")).start().await;
    let builder = example("aws.toml", &[("10.0.0.1:3001", &orders)]).env("SHOP_KEY", KEY);
    let gw = builder.replacing("quota = 100000", "quota = 30").start().await;
    let ask = || gw.get("/orders/1").header("x-api-key", KEY);
    let missing = gw.get("/orders/1").await.expect_problem(401, "auth.credentials_required");
    assert!(missing.header("www-authenticate").is_some());
    gw.get("/orders/1")
        .header("x-api-key", "wrong-0123456789")
        .await
        .expect_problem(401, "auth.api_key_invalid");
    let began = std::time::Instant::now();
    let mut throttled = None;
    for number in 0..25 {
        let answer = ask().await;
        if answer.status != 200 {
            assert!(number >= 5, "five pass at once");
            throttled = Some(answer.expect_problem(429, "limit.exceeded"));
            break;
        }
        let told = answer.header("ratelimit-policy").unwrap().to_owned();
        assert!(told.starts_with("\"plan basic\";q=10;w=1, \"plan basic/month\";q=30;w=2"), "{told}");
    }
    if began.elapsed() < std::time::Duration::from_millis(90) {
        assert_eq!(orders.requests(), 5);
    }
    let throttled = throttled.expect("more than ten a second");
    assert_eq!(throttled.header("retry-after"), Some("1"));
    assert_eq!(throttled.json()["violated-policies"], json!(["plan basic"]));
    // What was throttled used up nothing of the month.
    let over = eventually("the month to be used up", async || {
        let answer = ask().await;
        (answer.status == 429 && answer.json()["code"] == "limit.quota_exceeded").then_some(answer)
    })
    .await;
    assert_eq!(orders.requests(), 30);
    assert!(over.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1);
}
