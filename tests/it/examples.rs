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
pub fn example(name: &str, servers: &[(&str, &Upstream)]) -> GatewayBuilder {
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
    // No broker is there, and what needs none does not notice. With one: `node_gateway`.
    let nowhere = DeadPort::new();
    let broker = format!("amqp://guest:guest@{}/%2f", nowhere.address());
    let gw = example("node-gateway.toml", &servers)
        .env("JWT_SECRET", SECRET)
        .env("BROKER_URL", &broker)
        .start()
        .await;
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

    // Several services, one answer: merged in order, what fails is left out and logged.
    users.on("/api/users/7", Answer::json(json!({ "id": 7, "name": "Ada", "state": "old" })));
    more.on("/api/users/7", Answer::json(json!({ "id": 7, "name": "Ada", "state": "old" })));
    reports.on("/usage/7", Answer::status(500));
    reports.on("/score", Answer::json(json!({ "score": 3, "state": "new" })));
    let together = gw.request("POST", "/overview/7").header("authorization", &bearer(json!(["user"])));
    let together = together.header("content-type", "application/json").body("{\"since\":1}").await;
    let together = together.expect_status(200);
    assert_eq!(together.text(), r#"{"id":7,"name":"Ada","state":"new","score":3}"#);
    assert_eq!(together.header("x-edgeward-completed"), Some("false"));
    let score = reports.seen_at("/score").pop().unwrap();
    assert_eq!(score.body, "{\"since\":1}");
    assert!(score.header("gatewayauth").is_some(), "each of them learns who it is from");
    let without = gw.request("POST", "/overview/7").header("authorization", &bearer(json!([]))).body("{}");
    without.await.expect_problem(403, "auth.role_missing");

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
    let products = upstream().otherwise(Answer::status(404)).start().await;
    let servers = [("10.0.0.1:3001", &users), ("10.0.0.2:3002", &orders), ("10.0.0.3:3003", &products)];
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

    // What it put together by hand, in its envelope.
    let order = json!({
        "id": 7, "userId": "u1", "createdAt": "2026-01-02", "total": 30.5,
        "items": [{ "productId": 1, "quantity": 2 }, { "productId": 2, "quantity": 1 }, { "productId": 1, "quantity": 3 }],
    });
    orders.on("/api/v1/orders/7", Answer::json(order));
    orders.on("/api/v1/orders", Answer::json(json!([{ "id": 7 }])));
    orders.on("/api/v1/orders/8", Answer::status(404));
    let user = json!({ "id": "u1", "firstName": "Ada", "lastName": "L", "email": "a@x", "password": "p" });
    users.on("/api/v1/users/u1", Answer::json(user.clone()));
    users.on("/api/v1/users/me", Answer::json(user.clone()));
    products.on("/api/v1/products/1", Answer::json(json!({ "name": "Cup", "price": 1.50 })));
    products.on("/api/v1/products/2", Answer::json(json!({ "name": "Pot", "price": 27.5 })));
    let details = get("/api/order-details/7", json!([])).await.expect_status(200);
    let envelope = details.json();
    let expected = json!({
        "orderId": 7, "orderDate": "2026-01-02",
        "customer": { "email": "a@x", "id": "u1", "name": "Ada L" },
        "items": [
            { "productId": 1, "name": "Cup", "price": 1.5, "quantity": 2 },
            { "productId": 2, "name": "Pot", "price": 27.5, "quantity": 1 },
            { "productId": 1, "name": "Cup", "price": 1.5, "quantity": 3 },
        ],
        "total": 30.5,
    });
    assert_eq!((&envelope["status"], &envelope["data"]), (&json!(200), &expected));
    assert_eq!(
        (&envelope["path"], envelope["timestamp"].is_string()),
        (&json!("/api/order-details/7"), true)
    );
    assert_eq!(details.header("x-edgeward-completed"), Some("true"));
    assert_eq!(products.seen_at("/api/v1/products/1").len(), 1, "asked once");
    let refused = get("/api/order-details/8", json!([])).await.expect_problem(404, "aggregate.leg_refused");
    assert_eq!(refused.json()["leg"], "order");
    gw.get("/api/order-details/7").await.expect_problem(401, "auth.credentials_required");
    // The dashboard shows what there is.
    let dashboard = get("/api/dashboard", json!([])).await.expect_status(200);
    assert_eq!(
        dashboard.json()["data"],
        json!({ "profile": user, "orders": [{ "id": 7 }], "recommended": [] })
    );
    assert_eq!(dashboard.header("x-edgeward-completed"), Some("false"));
    // A product is needed, and nothing but the product.
    let product = gw.get("/api/product-details/1").await.expect_status(200).json();
    let stood_in = json!({ "name": "Cup", "price": 1.5, "reviews": [], "inventory": { "inStock": false, "quantity": 0 } });
    assert_eq!(product["data"], stood_in);
    products.on("/api/v1/reviews", Answer::json(json!([{ "stars": 5 }])));
    products.on("/api/v1/inventory/1", Answer::json(json!({ "inStock": true, "quantity": 4 })));
    let product = gw.get("/api/product-details/1").await.expect_status(200);
    assert_eq!(product.json()["data"]["reviews"], json!([{ "stars": 5 }]));
    assert_eq!(product.json()["data"]["inventory"]["quantity"], 4);
    assert_eq!(product.header("x-edgeward-completed"), Some("true"));
    products.on("/api/v1/products/3", Answer::status(500));
    gw.get("/api/product-details/3").await.expect_problem(502, "aggregate.leg_failed");
}

/// KrakenD's typical endpoint.
#[tokio::test]
async fn krakends_endpoint_is_put_together() {
    let users = upstream()
        .on(
            "/users/7",
            Answer::json(json!({ "data": { "id": 7, "email": "a@x", "password": "p", "company": "acme" } })),
        )
        .on("/users/8", Answer::json(json!({ "data": { "id": 8, "email": "b@x", "password": "p" } })))
        .on(
            "/companies/acme",
            Answer::json(json!({ "name": "Acme", "tax": 1, "address": { "city": "B", "zip": "1" } })),
        )
        .start()
        .await;
    let shop = upstream()
        .on("/orders/of/7", Answer::json(json!({ "id": 70, "total": 9.99, "lines": [1, 2] })))
        .on("/orders/of/8", Answer::status(500))
        .start()
        .await;
    let gw = example("krakend.toml", &[("10.0.0.1:8000", &users), ("10.0.0.2:8000", &shop)]).start().await;
    let request =
        gw.get("/v1/users/7?lang=de&debug=1").header("accept-language", "de").header("x-secret", "s");
    let answer = request.await.expect_status(200);
    assert_eq!(
        answer.text(),
        r#"{"id":7,"contact":"a@x","company":"acme","last_order":{"id":70,"total":9.99},"employer":{"name":"Acme","address":{"city":"B"}}}"#
    );
    assert_eq!(answer.header("x-krakend-completed"), Some("true"));
    assert_eq!((answer.header("x-edgeward-completed"), answer.header("server-timing")), (None, None));
    let seen = users.seen_at("/users/7").pop().unwrap();
    assert_eq!((seen.uri.query(), seen.header("accept-language")), (Some("lang=de"), Some("de")));
    assert_eq!(seen.header("x-secret"), None);
    // What the sequence needs is not there, and another fails: what there is.
    let partial = gw.get("/v1/users/8").await.expect_status(200);
    assert_eq!(partial.json(), json!({ "id": 8, "contact": "b@x" }));
    assert_eq!(partial.header("x-krakend-completed"), Some("false"));
    assert_eq!(partial.header("cache-control"), Some("no-store"));
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
