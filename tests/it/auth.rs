//! Who gets in, with what; what the others are told; and what services, logs and metrics learn of it.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::support::*;

/// A provider `local` of tokens signed with [`SECRET`], and one server `app`.
const LOCAL: &str = r#"
    [identity.providers.local]
    issuer = "local"
    audience = ["shop"]
    algorithms = ["HS256"]
    secret = { env = "SECRET" }
    leeway = "2s"

    [upstreams.app]
    servers = ["{app}"]
"#;

fn with_local(app: &Upstream, config: &str) -> GatewayBuilder {
    gateway(&format!("{LOCAL}\n{config}")).with("app", app).env("SECRET", SECRET)
}

/// Claims of alice, with `more` over them.
fn alice(more: Value) -> Value {
    let mut claims = json!({ "iss": "local", "aud": "shop", "sub": "alice", "roles": ["admin", "staff"], "scope": "users:read" });
    claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    claims
}

const PROTECTED: &str = r#"
    [[routes]]
    name = "protected"
    path = "/*"
    upstream = "app"
    [routes.auth]
    with = ["jwt:local"]
"#;

#[tokio::test]
async fn services_are_told_who_it_is_and_nobody_else_says_so() {
    let app = upstream().start().await;
    let gw = with_local(&app, PROTECTED).start().await;
    let token = Signer::secret().sign(alice(json!({ "jti": "t1" })));
    for (client, is_http1) in [(gw.client(), true), (gw.client().http2(), false)] {
        let mut request = client
            .get("/users?q=1")
            .header("authorization", &format!("bearer {token}"))
            .header("x-auth-subject", "root")
            .header("x_auth_subject", "root")
            .header("x-auth-roles", "root")
            .header("x-auth_roles", "root")
            .header("x-auth-claims", "eyJzdWIiOiJyb290In0")
            .header("x-consumer", "root");
        if is_http1 {
            request = request.header("connection", "x-auth-subject, x-auth-roles, x-auth-claims");
        }
        let echo = request.await.expect_status(200).echo();
        assert_eq!(echo.headers("x-auth-subject"), ["alice"]);
        assert_eq!(echo.headers("x-auth-roles"), ["admin,staff"]);
        let claims = URL_SAFE_NO_PAD.decode(echo.header("x-auth-claims").unwrap()).unwrap();
        let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
        assert_eq!(claims, payload, "byte for byte");
        for gone in ["x_auth_subject", "x-auth_roles", "x-consumer"] {
            assert_eq!(echo.headers(gone), [""; 0], "{gone}");
        }
        assert_eq!(echo.header("authorization"), Some(format!("bearer {token}")));
    }
    assert!(gw.logged("/users").await.starts_with("127.0.0.1 - alice ["));
}

#[tokio::test]
async fn what_is_refused_is_refused_in_the_words_of_the_standard() {
    let app = upstream().start().await;
    let gw = with_local(&app, PROTECTED)
        .and("[routes.response]\nset = { \"X-Frame-Options\" = \"DENY\" }")
        .and("[[routes]]\npath = \"/admin\"\nupstream = \"app\"\n[routes.auth]\nwith = [\"jwt:local\"]\nroles = [\"admin\", \"root\"]\n")
        .and("[[routes]]\npath = \"/scoped\"\nupstream = \"app\"\n[routes.auth]\nwith = [\"jwt:local\"]\nscopes = [\"users:read\", \"users:write\"]\n")
        .and("[identity]\nrealm = \"shop\"\ntoken_cookie = \"session\"\n[log.access]\nformat = \"json\"\n")
        .start()
        .await;
    let signer = Signer::secret();
    let good = signer.bearer(alice(json!({})));
    let now = unix_now();
    let invalid =
        |text: &str| format!("Bearer realm=\"shop\", error=\"invalid_token\", error_description=\"{text}\"");
    let two = "Bearer realm=\"shop\", error=\"invalid_request\", error_description=\"several tokens\"";
    let less = "Bearer realm=\"shop\", error=\"insufficient_scope\"";
    #[expect(clippy::type_complexity, reason = "a table: path, headers, status, code, challenge, detail")]
    let cases: &[(&str, &[(&str, &str)], u16, &str, &str, &str)] = &[
        ("/1", &[], 401, "auth.credentials_required", "Bearer realm=\"shop\"", "nothing was shown of jwt"),
        (
            "/2",
            &[("authorization", "Basic YTpi")],
            401,
            "auth.credentials_required",
            "Bearer realm=\"shop\"",
            "nothing was shown of jwt; Authorization is of the scheme \\\"Basic\\\"",
        ),
        (
            "/2b",
            &[("authorization", &good.replacen("Bearer", "Token", 1))],
            401,
            "auth.credentials_required",
            "Bearer realm=\"shop\"",
            "Authorization is of the scheme \\\"Token\\\"",
        ),
        (
            "/2c",
            &[("authorization", good.strip_prefix("Bearer ").unwrap_or_default())],
            401,
            "auth.credentials_required",
            "Bearer realm=\"shop\"",
            "Authorization is a single word",
        ),
        (
            "/3",
            &[("authorization", "Bearer x")],
            401,
            "auth.token_malformed",
            &invalid("malformed token"),
            "instead of three",
        ),
        (
            "/4",
            &[("authorization", &signer.bearer(alice(json!({ "exp": now - 60 }))))],
            401,
            "auth.token_expired",
            &invalid("token expired"),
            "exp was 6",
        ),
        (
            "/5",
            &[("authorization", &signer.bearer(alice(json!({ "nbf": now + 60 }))))],
            401,
            "auth.token_not_yet_valid",
            &invalid("token not valid yet"),
            "nbf is in",
        ),
        (
            "/6",
            &[("authorization", &signer.bearer(alice(json!({ "aud": "other" }))))],
            401,
            "auth.token_invalid",
            &invalid("token not valid"),
            "aud",
        ),
        (
            "/7",
            &[("authorization", &format!("{good}x"))],
            401,
            "auth.token_invalid",
            &invalid("token not valid"),
            "provider local",
        ),
        (
            "/8",
            &[("authorization", &good), ("cookie", "session=x")],
            400,
            "auth.credentials_ambiguous",
            two,
            "cookies",
        ),
        (
            "/9",
            &[("authorization", &good), ("authorization", &good)],
            400,
            "auth.credentials_ambiguous",
            two,
            "several Authorization headers",
        ),
        (
            "/admin",
            &[("authorization", &good)],
            403,
            "auth.role_missing",
            less,
            "the role \\\"root\\\" is missing",
        ),
        (
            "/scoped",
            &[("authorization", &good)],
            403,
            "auth.scope_missing",
            &format!("{less}, scope=\"users:read users:write\""),
            "users:write",
        ),
    ];
    for (path, headers, status, code, challenge, detail) in cases {
        let request = headers.iter().fold(gw.get(path), |request, (name, value)| request.header(name, value));
        let answer = request.await.expect_problem(*status, code);
        assert_eq!(answer.header("www-authenticate"), Some(*challenge), "{path}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{path}");
        // Nothing of why, by how much or by whom.
        assert!(!answer.text().contains("local") && !answer.text().contains(" s ago"), "{}", answer.text());
        let line = gw.logged(&format!("\"uri\":\"{path}\"")).await;
        assert!(line.contains(detail), "{path}: {line}");
        let who = if *status == 403 { "\"user\":\"alice\"" } else { "\"user\":null" };
        assert!(line.contains(who) || path == &"/2", "{line}");
    }
    assert_eq!(app.requests(), 0);
    let answer = gw.get("/").header("accept", "text/html").await;
    assert_eq!((answer.status, answer.header("x-frame-options")), (401, Some("DENY")));
    assert!(
        answer.text().starts_with("<!doctype html>") && answer.text().contains("auth.credentials_required")
    );
    gw.metric_is(
        "edgeward_auth_failures_total",
        &["route=\"protected\"", "scheme=\"jwt\"", "reason=\"auth.token_expired\""],
        1.0,
    )
    .await;
    gw.metric_is(
        "edgeward_auth_failures_total",
        &["route=\"protected\"", "scheme=\"none\"", "reason=\"auth.credentials_required\""],
        5.0,
    )
    .await;
}

#[tokio::test]
async fn grpc_is_refused_in_its_own_words() {
    let app = upstream().start().await;
    let gw = with_local(&app, PROTECTED).and("roles = [\"root\"]").start().await;
    let call = |token: Option<String>| {
        let request = gw
            .client()
            .http2()
            .request("POST", "/shop.Inventory/Get")
            .header("content-type", "application/grpc");
        token.iter().fold(request, |request, token| request.header("authorization", token))
    };
    for (token, status) in [(None, "16"), (Some(Signer::secret().bearer(alice(json!({})))), "7")] {
        let answer = call(token).await.expect_status(200);
        assert_eq!(answer.header("grpc-status"), Some(status));
    }
    assert_eq!(app.requests(), 0);
}

/// A stranger learns nothing of what comes after the question who it is, and of that nothing who may not come at all.
#[tokio::test]
async fn policies_run_in_their_order() {
    let app = upstream().start().await;
    let gw = with_local(&app, "[[routes]]\npath = \"/*\"\nupstream = \"app\"\nbody_bytes = \"1KiB\"\nauth = { with = [\"jwt:local\"] }\n")
        .and("[[routes]]\npath = \"/closed\"\nupstream = \"app\"\nauth = { with = [\"jwt:local\"] }\nip = { deny = [\"127.0.0.0/8\"] }\n")
        .and("[defaults.auth]\nwith = [\"jwt:local\"]\n")
        .start()
        .await;
    gw.get("/closed").await.expect_problem(403, "access.ip_denied");
    let large = "x".repeat(2000);
    gw.request("POST", "/").body(large.clone()).await.expect_problem(401, "auth.credentials_required");
    let good = Signer::secret().bearer(alice(json!({})));
    let known = || gw.request("POST", "/").header("authorization", &good);
    known().body(large).await.expect_problem(413, "request.body_too_large");
    known().body("small").await.expect_status(200);
    // `[defaults]` govern what matches no route.
    let gw = with_local(
        &app,
        "[defaults.auth]\nwith = [\"jwt:local\"]\n[[routes]]\npath = \"/a\"\nupstream = \"app\"\n",
    )
    .start()
    .await;
    gw.get("/nowhere").await.expect_problem(401, "auth.credentials_required");
    gw.get("/nowhere").header("authorization", &good).await.expect_problem(404, "route.not_found");
}

#[tokio::test]
async fn a_token_may_come_in_a_cookie_and_need_not_go_on() {
    let app = upstream().start().await;
    let gw = with_local(&app, PROTECTED)
        .and("[identity]\ntoken_cookie = \"session\"\nkeep_authorization = false\nclaims_header = \"GatewayAuth\"\nclaims_encoding = \"base64\"\nroles_header = \"\"\n")
        .start()
        .await;
    let token = Signer::secret().sign(alice(json!({ "x": "?>~" })));
    let echo =
        gw.get("/").header("cookie", &format!("a=1; session={token}; b=2")).await.expect_status(200).echo();
    assert_eq!(echo.headers("cookie"), ["a=1; b=2"]);
    assert_eq!(echo.header("x-auth-subject").as_deref(), Some("alice"));
    let claims: Value =
        serde_json::from_slice(&STANDARD.decode(echo.header("gatewayauth").unwrap()).unwrap()).unwrap();
    assert_eq!(claims["x"], "?>~");
    assert_eq!(echo.header("x-auth-roles"), None);
    let bearer = format!("Bearer {token}");
    let echo = gw.get("/").header("authorization", &bearer).header("cookie", "a=1").await.echo();
    assert_eq!((echo.header("authorization"), echo.header("cookie").as_deref()), (None, Some("a=1")));
}

#[tokio::test]
async fn an_expression_has_the_last_word() {
    let app = upstream().start().await;
    let gw = with_local(
        &app,
        r#"
        [[routes]]
        name = "tenants"
        path = "/tenants/{id}"
        upstream = "app"
        [routes.auth]
        with = ["jwt:local", "none"]
        when = 'jwt != null && (jwt.tenant == path.id || "root" in jwt.roles) && request.method == "GET"'
        [routes.request]
        set = { "X-Tenant" = "{jwt.tenant}", "X-Deep" = "{jwt.realm.name}", "X-Url" = "{jwt.https://example.com/id}", "X-None" = "{jwt.none}", "X-Consumer-Plan" = "{consumer.plan}" }

        [[routes]]
        name = "redirected"
        path = "/me"
        redirect = { to = "/users/{jwt.sub}" }
        auth = { with = ["jwt:local"] }
        "#,
    )
    .start()
    .await;
    let signer = Signer::secret();
    let claims =
        json!({ "tenant": "acme", "realm": { "name": "r" }, "https://example.com/id": 7, "none": null });
    let get = |path: &str, claims: Value| gw.get(path).header("authorization", &signer.bearer(alice(claims)));
    let echo = get("/tenants/acme", claims).header("x-none", "forged").await.expect_status(200).echo();
    let told = ["x-tenant", "x-deep", "x-url", "x-none", "x-consumer-plan"].map(|name| echo.header(name));
    assert_eq!(told, [Some("acme".to_owned()), Some("r".to_owned()), Some("7".to_owned()), None, None]);
    get("/tenants/other", json!({ "tenant": "acme" })).await.expect_problem(403, "auth.denied");
    // One side of `||` decides although the other has no value; without a side that holds there is none.
    get("/tenants/other", json!({ "roles": ["root"] })).await.expect_status(200);
    get("/tenants/other", json!({})).await.expect_problem(403, "auth.denied");
    gw.get("/tenants/acme").await.expect_problem(403, "auth.denied");
    let moved = get("/me", json!({ "sub": "a/b?c" })).await.expect_status(308);
    assert_eq!(moved.header("location"), Some("/users/a%2Fb%3Fc"));
    get("/me", json!({ "sub": null })).await.expect_problem(400, "request.bad_path");
}

/// What cannot be decided is refused: never answered by a route that asks for less.
#[tokio::test]
async fn an_expression_finds_the_route() {
    let app = upstream().start().await;
    let gw = with_local(
        &app,
        r#"
        [[routes]]
        name = "beta"
        path = "/a/*"
        when = 'cookie.group == "beta" && client.ip == "127.0.0.1"'
        respond = { text = "beta" }

        [[routes]]
        name = "all"
        path = "/a/*"
        respond = { text = "all" }
        "#,
    )
    .and("[log.access]\nformat = \"json\"\n[defaults.auth]\nwith = [\"jwt:local\", \"none\"]")
    .start()
    .await;
    assert_eq!(gw.get("/a/1").header("cookie", "group=beta").await.text(), "beta");
    assert_eq!(gw.get("/a/2").header("cookie", "group=other").await.text(), "all");
    gw.get("/a/3").await.expect_problem(400, "route.expression_failed");
    let line = gw.logged("\"uri\":\"/a/3\"").await;
    assert!(line.contains("\"route\":\"beta\"") && line.contains("cannot be evaluated"), "{line}");
}

/// Values that no header can hold are not sent at all, and counted.
#[tokio::test]
async fn a_claim_adds_no_header() {
    let app = upstream().start().await;
    let gw = with_local(&app, PROTECTED).start().await;
    let claims = alice(json!({ "sub": "a\r\nX-Auth-Roles: root", "roles": ["a,root", "b"] }));
    let echo =
        gw.get("/").header("authorization", &Signer::secret().bearer(claims)).await.expect_status(200).echo();
    assert_eq!((echo.header("x-auth-subject"), echo.header("x-auth-roles")), (None, None));
    assert!(echo.header("x-auth-claims").is_some());
    gw.metric_is("edgeward_identity_values_dropped_total", &[], 2.0).await;
}

#[tokio::test]
async fn a_tunnel_ends_with_its_token() {
    let app = upstream().otherwise(Answer::WebSocket).start().await;
    let gw = with_local(&app, PROTECTED).start().await;
    let open = async |token: Option<String>| {
        let stream = tokio::net::TcpStream::connect(gw.address()).await.unwrap();
        let mut request = "ws://localhost/chat".into_client_request().unwrap();
        if let Some(token) = token {
            request.headers_mut().insert("authorization", token.parse().unwrap());
        }
        within("the handshake", tokio_tungstenite::client_async(request, stream))
            .await
            .map(|(socket, _)| socket)
    };
    match open(None).await {
        Err(Error::Http(answer)) => assert_eq!(answer.status(), 401),
        other => panic!("{other:?}"),
    }
    let began = std::time::Instant::now();
    let mut socket =
        open(Some(Signer::secret().bearer(alice(json!({ "exp": unix_now() + 1 }))))).await.unwrap();
    let end = within("the end", socket.next()).await;
    assert!(matches!(end, None | Some(Err(_)) | Some(Ok(Message::Close(_)))), "{end:?}");
    // One second, and two of leeway.
    assert!(began.elapsed() >= std::time::Duration::from_millis(1500), "{:?}", began.elapsed());
    assert!(gw.logged("/chat HTTP/1.1\" 101").await.contains("alice"));
    gw.metric_is("edgeward_http_requests_rejected_total", &["reason=\"auth.token_expired\""], 1.0).await;
}

/// Revoked by whoever may, closed at once: long before its end.
#[tokio::test]
async fn a_tunnel_ends_when_its_token_is_revoked() {
    let app = upstream().otherwise(Answer::WebSocket).start().await;
    let gw = with_local(&app, PROTECTED)
        .and("[store]\nurl = \"sqlite:edgeward.db\"\n[server]\ncontrol_socket = \"run/control.sock\"\n")
        .start()
        .await;
    let open = async |id: &str| {
        let stream = tokio::net::TcpStream::connect(gw.address()).await.unwrap();
        let mut request = format!("ws://localhost/{id}").into_client_request().unwrap();
        let token = Signer::secret().bearer(alice(json!({ "jti": id })));
        request.headers_mut().insert("authorization", token.parse().unwrap());
        within("the handshake", tokio_tungstenite::client_async(request, stream)).await.unwrap().0
    };
    let (mut revoked, mut kept) = (open("t1").await, open("t2").await);
    let mut revoke = command(&gw.directory(), &["token", "revoke", "--jti", "t1", "-c", "edgeward.toml"]);
    revoke.env("SECRET", SECRET);
    let ran = run(revoke).await;
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    let end = within("the end", revoked.next()).await;
    assert!(matches!(end, None | Some(Err(_)) | Some(Ok(Message::Close(_)))), "{end:?}");
    gw.metric_is("edgeward_http_requests_rejected_total", &["reason=\"auth.token_revoked\""], 1.0).await;
    kept.send("still here".into()).await.unwrap();
    assert_eq!(within("an echo", kept.next()).await.unwrap().unwrap().into_text().unwrap(), "still here");
}

/// Rotating a key brings its end forward: what was opened with it ends then, long before the end it had.
#[tokio::test]
async fn a_tunnel_ends_when_its_key_was_rotated() {
    let app = upstream().otherwise(Answer::WebSocket).start().await;
    let config = PROTECTED.replace("jwt:local", "api_key");
    let gw = with_local(&app, &config)
        .and("[store]\nurl = \"sqlite:edgeward.db\"\n[server]\ncontrol_socket = \"run/control.sock\"\n")
        .start()
        .await;
    let edgeward = async |arguments: &[&str]| {
        let mut asked = command(&gw.directory(), &[arguments, &["--json", "-c", "edgeward.toml"]].concat());
        asked.env("SECRET", SECRET);
        let ran = run(asked).await;
        assert_eq!(ran.status, 0, "{}", ran.stderr);
        serde_json::from_str::<Value>(&ran.stdout).unwrap()
    };
    edgeward(&["consumer", "add", "mobile"]).await;
    let made = edgeward(&["key", "create", "--consumer", "mobile"]).await;
    let (id, key) = (made["id"].as_str().unwrap(), made["key"].as_str().unwrap());
    let stream = tokio::net::TcpStream::connect(gw.address()).await.unwrap();
    let mut request = "ws://localhost/chat".into_client_request().unwrap();
    request.headers_mut().insert("x-api-key", key.parse().unwrap());
    let (mut socket, _) =
        within("the handshake", tokio_tungstenite::client_async(request, stream)).await.unwrap();
    edgeward(&["key", "rotate", id, "--overlap", "2s"]).await;
    socket.send("still here".into()).await.unwrap();
    assert!(within("an echo", socket.next()).await.unwrap().is_ok());
    let end = within("the end", socket.next()).await;
    assert!(matches!(end, None | Some(Err(_)) | Some(Ok(Message::Close(_)))), "{end:?}");
    gw.metric_is("edgeward_http_requests_rejected_total", &["reason=\"auth.api_key_invalid\""], 1.0).await;
}

#[tokio::test]
async fn explain_says_by_how_much() {
    let app = upstream().start().await;
    let signer = Signer::secret();
    let explain = async |header: String| {
        let config = with_local(&app, PROTECTED)
            .and("roles = [\"admin\"]\n[routes.request]\nset = { \"X-T\" = \"{jwt.tenant}\" }");
        config.command(&["explain", "-H", &header, "GET", "http://localhost/a"]).await.stdout
    };
    let line = |claims: Value| format!("Authorization: {}", signer.bearer(alice(claims)));
    let passes = explain(line(json!({ "tenant": "acme" }))).await;
    assert!(passes.contains("passes as alice (jwt:local), roles: admin, staff"), "{passes}");
    assert!(
        passes.contains("x-t: acme") && passes.contains("auth.roles = [\"admin\"]  (edgeward.toml:"),
        "{passes}"
    );
    let expired = explain(line(json!({ "exp": unix_now() - 60 }))).await;
    assert!(expired.contains("401 auth.token_expired: provider local: exp was 6"), "{expired}");
    let poor = explain(line(json!({ "roles": "none" }))).await;
    assert!(
        poor.contains("403 auth.role_missing: the role \"admin\" is missing; held: [\"none\"]"),
        "{poor}"
    );
    let nobody = explain("X: y".to_owned()).await;
    assert!(nobody.contains("401 auth.credentials_required: nothing was shown of jwt"), "{nobody}");
}

/// The first token of a new key has it fetched, while the request waits.
#[tokio::test]
async fn a_new_key_is_waited_for() {
    let (old, new) = (Signer::rsa("old"), Signer::rsa("new"));
    let gate = Gate::new();
    let keys = upstream().on("/keys", Answer::json(key_set(&[&old]))).start().await;
    let app = upstream().start().await;
    let gw = gateway(
        r#"
        [identity.providers.idp]
        issuer = "idp"
        audience = ["shop"]
        algorithms = ["RS256"]
        jwks_url = "http://{keys}/keys"
        roles_claim = "https://example.com/roles"
        [upstreams.app]
        servers = ["{app}"]
        [[routes]]
        path = "/*"
        upstream = "app"
        auth = { with = ["jwt:idp"], roles = ["editor"] }
        "#,
    )
    .with("keys", &keys)
    .with("app", &app)
    .start()
    .await;
    let claims =
        json!({ "iss": "idp", "aud": ["x", "shop"], "sub": "bob", "https://example.com/roles": ["editor"] });
    let get = |signer: &Signer| gw.get("/").header("authorization", &signer.bearer(claims.clone()));
    eventually("the keys to be there", async || (get(&old).await.status == 200).then_some(())).await;
    keys.on("/keys", gate.then(Answer::json(key_set(&[&old, &new]))));
    let waiting = tokio::spawn({
        let (client, bearer) = (gw.client(), new.bearer(claims.clone()));
        async move { client.get("/").header("authorization", &bearer).await }
    });
    gate.arrived(1).await;
    // Those whose key is known are not kept waiting.
    get(&old).await.expect_status(200);
    assert!(!waiting.is_finished());
    gate.open();
    let echo = within("the answer", waiting).await.unwrap().expect_status(200).echo();
    assert_eq!(
        (echo.header("x-auth-subject").as_deref(), echo.header("x-auth-roles").as_deref()),
        (Some("bob"), Some("editor"))
    );
    let stranger = Signer::rsa("stranger");
    get(&stranger).await.expect_problem(401, "auth.token_invalid");
}
