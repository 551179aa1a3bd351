//! Logging in, refreshing, logging out: over real sockets, against a real store.

use std::time::{Duration, Instant};

use edgeward::identity::password::{Cost, hash};
use edgeward::store::{Store, StoreUrl, User, UserChange};
use serde_json::{Value, json};
use sqlx::{Connection, Executor};

use crate::support::postgres::Postgres;
use crate::support::*;

const CHEAP: Cost = Cost { memory_kib: 1024, passes: 1 };

/// Logins against `users.db`. `{more}` stands in `[identity.login]`.
const CONFIG: &str = r#"
[store]
url = "sqlite:users.db"

[identity.providers.local]
issuer = "https://edge.example.com/"
audience = ["shop"]
algorithms = ["ES256"]
signing_key = "es256.pem"
generate = true
roles_claim = "https://example.com/roles"

[identity.login]
provider = "local"
refresh_lifetime = "30d"
{more}

[[routes]]
name = "open"
path = "/open"
respond = { text = "open" }
"#;

/// One route for users and one for admins.
const PROTECTED: &str = r#"
[[routes]]
name = "me"
path = "/me"
auth = { with = ["jwt:local"] }
respond = { text = "in" }

[[routes]]
name = "admin"
path = "/admin"
auth = { with = ["jwt:local"], roles = ["admin"] }
respond = { text = "in" }
"#;

const CHEAP_PASSWORDS: &str = "passwords = { memory = \"1MiB\", passes = 1 }";
const PATIENT: &str = "failures = { per_address = \"100000/s\", per_account = \"100000/s\" }";

fn edge(more: &str) -> GatewayBuilder {
    gateway(&CONFIG.replace("{more}", more))
}

/// A gateway with the users alice, admin and disabled.
async fn start(more: &str) -> Gateway {
    started(edge(more)).await
}

async fn started(edge: GatewayBuilder) -> Gateway {
    let gw = edge.start().await;
    add_users(&store_of(&gw), CHEAP).await;
    gw
}

fn store_of(gw: &Gateway) -> Store {
    Store::new(StoreUrl::Sqlite(gw.directory().join("users.db")))
}

/// Logins against `database` of a PostgreSQL, and its store.
fn on_postgres(database: &str, more: &str) -> (GatewayBuilder, Store) {
    let store = StoreUrl::parse(database, |_| panic!("it is no file")).unwrap();
    (edge(more).replacing("sqlite:users.db", database), Store::new(store))
}

async fn add_users(store: &Store, cost: Cost) {
    for (name, roles, disabled) in
        [("alice", vec!["user"], false), ("root", vec!["user", "admin"], false), ("mallory", vec![], true)]
    {
        let password = hash(&format!("{name}'s password"), cost).unwrap();
        let roles = roles.into_iter().map(str::to_owned).collect();
        store.add_user(&User { name: name.to_owned(), password, roles, disabled }, 1).await.unwrap();
    }
}

fn post(client: &Client, path: &str, body: &Value) -> RequestBuilder {
    client.request("POST", path).header("content-type", "application/json").body(body.to_string())
}

fn log_in(client: &Client, username: &str) -> RequestBuilder {
    post(client, "/login", &json!({ "username": username, "password": format!("{username}'s password") }))
}

/// Access and refresh token of an answer.
#[track_caller]
fn tokens(answer: Response) -> (String, String) {
    let answer = answer.expect_status(200);
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let answer = answer.json();
    assert_eq!(answer["token_type"], "Bearer");
    assert_eq!(answer["expires_in"], 3600);
    let text = |name: &str| answer[name].as_str().unwrap().to_owned();
    (text("access_token"), text("refresh_token"))
}

fn with(client: &Client, path: &str, token: &str) -> RequestBuilder {
    client.get(path).header("authorization", &format!("Bearer {token}"))
}

#[tokio::test]
async fn from_a_login_to_its_logout() {
    let gw = started(edge(CHEAP_PASSWORDS).and(PROTECTED)).await;
    logs_in_and_out(&gw).await;
}

#[tokio::test]
async fn from_a_login_to_its_logout_on_postgresql() {
    let server = Postgres::start();
    let (edge, store) = on_postgres(&server.database(), CHEAP_PASSWORDS);
    let gw = edge.and(PROTECTED).start().await;
    add_users(&store, CHEAP).await;
    logs_in_and_out(&gw).await;
    ends_sessions_of_changed_users(&gw, &store).await;
    let checked = gw.metric("edgeward_logins_total", &["step=\"login\"", "outcome=\"unavailable\""]).await;
    assert!(checked.is_none_or(|count| count == 0.0), "{checked:?}");
}

/// Twice, by HTTP/1 and HTTP/2: tokens of a second login hold in the very second in which those of the first were revoked.
async fn logs_in_and_out(gw: &Gateway) {
    for client in [gw.client(), gw.client().http2()] {
        client.get("/me").await.expect_problem(401, "auth.credentials_required");
        let (access, refresh) = tokens(log_in(&client, "alice").await);
        with(&client, "/me", &access).await.expect_status(200);
        with(&client, "/admin", &access).await.expect_problem(403, "auth.role_missing");
        let (admin, _) = tokens(log_in(&client, "root").await);
        with(&client, "/admin", &admin).await.expect_status(200);

        let body = json!({ "refresh_token": refresh });
        let (newer, next) = tokens(post(&client, "/refresh", &body).await);
        with(&client, "/me", &newer).await.expect_status(200);
        // The same once more: one of the two has stolen it. Nobody goes on, and what was issued is worth nothing.
        post(&client, "/refresh", &body).await.expect_problem(401, "login.refresh_invalid");
        let stolen = json!({ "refresh_token": next });
        post(&client, "/refresh", &stolen).await.expect_problem(401, "login.refresh_invalid");
        for token in [&access, &newer] {
            with(&client, "/me", token).await.expect_problem(401, "auth.token_revoked");
        }
        with(&client, "/admin", &admin).await.expect_status(200);

        let (admin, refresh) = tokens(log_in(&client, "root").await);
        let out = client.request("POST", "/logout").header("authorization", &format!("Bearer {admin}"));
        let out = out.await.expect_status(204);
        assert_eq!(out.header("content-length"), None);
        with(&client, "/admin", &admin).await.expect_problem(401, "auth.token_revoked");
        let ended = json!({ "refresh_token": refresh });
        post(&client, "/refresh", &ended).await.expect_problem(401, "login.refresh_invalid");
    }
    gw.metric_is("edgeward_logins_total", &["step=\"refresh\"", "outcome=\"reused\""], 2.0).await;
    gw.metric_is("edgeward_logins_total", &["step=\"logout\"", "outcome=\"ok\""], 2.0).await;
}

#[tokio::test]
async fn what_tokens_say_and_who_can_check_it() {
    let gw = started(edge(CHEAP_PASSWORDS).and(PROTECTED)).await;
    let (access, _) = tokens(log_in(&gw.client(), "root").await);
    let payload = access.split('.').nth(1).unwrap();
    let payload = base64::Engine::decode(&base64::prelude::BASE64_URL_SAFE_NO_PAD, payload).unwrap();
    let claims: Value = serde_json::from_slice(&payload).unwrap();
    assert_eq!(claims["sub"], "root");
    assert_eq!(claims["iss"], "https://edge.example.com/");
    assert_eq!(claims["aud"], "shop");
    assert_eq!(claims["https://example.com/roles"], json!(["user", "admin"]));
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 3600);
    assert!(claims["jti"].as_str().unwrap().len() >= 20);

    let keys = gw.get("/.well-known/jwks.json").await.expect_status(200);
    assert_eq!(keys.header("cache-control"), Some("public, max-age=300"));
    let keys = keys.json();
    assert_eq!(keys["keys"].as_array().unwrap().len(), 1);
    assert_eq!(keys["keys"][0]["crv"], "P-256");
    assert_eq!(keys["keys"][0].get("d"), None, "public, not private");
    // Anybody verifies with them alone.
    let set: jsonwebtoken::jwk::JwkSet = serde_json::from_value(keys).unwrap();
    let header = jsonwebtoken::decode_header(&access).unwrap();
    let key = jsonwebtoken::DecodingKey::from_jwk(set.find(&header.kid.unwrap()).unwrap()).unwrap();
    let mut validation = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::ES256);
    validation.set_audience(&["shop"]);
    jsonwebtoken::decode::<Value>(&access, &key, &validation).unwrap();

    let bare = log_in(&gw.client(), "root").header("accept", "text/plain").await.expect_status(200);
    assert_eq!(bare.header("content-type"), Some("text/plain; charset=utf-8"));
    with(&gw.client(), "/admin", &bare.text()).await.expect_status(200);
}

/// One answer for three causes, byte for byte but for the request's id; which it was, the log says.
#[tokio::test]
async fn who_is_wrong_learns_nothing() {
    let edge = edge(&format!("{CHEAP_PASSWORDS}\n{PATIENT}"));
    let gw = started(edge.and("[log.access]\nformat = \"json\"")).await;
    let ask = async |username: &str, password: &str| {
        let body = json!({ "username": username, "password": password });
        let answer = post(&gw.client(), "/login", &body).await.expect_problem(401, "login.failed");
        let id = answer.header("x-request-id").unwrap().to_owned();
        let names: Vec<_> = answer.headers.keys().map(|name| name.to_string()).collect();
        (answer.text().replace(&id, "ID"), names, id)
    };
    let (body, names, id) = ask("nobody", "x").await;
    assert!(gw.logged(&id).await.contains("no such user"));
    for (username, password, told) in [
        ("alice", "x", "another password than that of alice"),
        ("mallory", "mallory's password", "the user mallory is disabled"),
        ("mallory", "x", "the user mallory is disabled"),
    ] {
        let (other_body, other_names, id) = ask(username, password).await;
        assert_eq!((&other_body, &other_names), (&body, &names), "{username}");
        assert!(gw.logged(&id).await.contains(told), "{username}");
    }
    gw.metric_is("edgeward_logins_total", &["step=\"login\"", "outcome=\"failed\""], 4.0).await;
}

/// The medians of many, taken in turn, at a cost at which a difference would show.
#[tokio::test]
async fn who_is_wrong_waits_as_long() {
    let more = format!("passwords = {{ memory = \"8MiB\", passes = 2, workers = 1 }}\n{PATIENT}");
    let gw = edge(&more).start().await;
    let cost = Cost { memory_kib: 8192, passes: 2 };
    add_users(&store_of(&gw), cost).await;
    // Whose hash is from cheaper times.
    let cheap = hash("long ago", CHEAP).unwrap();
    let old = User { name: "old".into(), password: cheap, roles: Vec::new(), disabled: false };
    store_of(&gw).add_user(&old, 1).await.unwrap();
    let connection = gw.client().connect().await;
    let mut times: [Vec<Duration>; 4] = Default::default();
    for _ in 0..21 {
        for (username, times) in ["nobody", "alice", "mallory", "old"].into_iter().zip(&mut times) {
            let body = json!({ "username": username, "password": "wrong" }).to_string();
            let began = Instant::now();
            let request = connection.request("POST", "/login").header("content-type", "application/json");
            request.body(body).await.expect_problem(401, "login.failed");
            times.push(began.elapsed());
        }
    }
    let medians = times.map(|mut times| {
        times.sort();
        times[times.len() / 2].as_secs_f64()
    });
    let (least, most) =
        (medians.iter().copied().fold(f64::MAX, f64::min), medians.iter().copied().fold(0.0, f64::max));
    assert!(least > 0.002, "nothing was computed: {medians:?}");
    assert!(most / least < 1.6, "{medians:?}");
}

/// What is no login is told so, by HTTP/1 and HTTP/2, and costs no password.
#[tokio::test]
async fn bodies_are_read_strictly() {
    let gw = start(CHEAP_PASSWORDS).await;
    let good = r#"{"username":"alice","password":"alice's password"}"#;
    let nested = format!(r#"{{"username":"a","password":{}1{}}}"#, "[".repeat(1500), "]".repeat(1500));
    let long = format!(r#"{{"username":"{}","password":"b"}}"#, "a".repeat(4096));
    let malformed: Vec<(&str, Vec<u8>)> = vec![
        ("", good.into()),
        ("text/plain", good.into()),
        ("application/x-www-form-urlencoded", "username=alice&password=x".into()),
        ("multipart/form-data; boundary=x", good.into()),
        ("application/json; charset=utf-16", good.into()),
        ("application/json", "".into()),
        ("application/json", "{".into()),
        ("application/json", "null".into()),
        ("application/json", "[]".into()),
        ("application/json", vec![0, 159, 146, 150]),
        ("application/json", r#"{"username":"alice"}"#.into()),
        ("application/json", r#"{"username":"alice","password":null}"#.into()),
        ("application/json", r#"{"username":"alice","password":["alice's password"]}"#.into()),
        ("application/json", r#"{"username":{"$ne":""},"password":"x"}"#.into()),
        ("application/json", r#"{"username":"alice","username":"root","password":"x"}"#.into()),
        ("application/json", r#"{"username":"alice","password":"x","admin":true}"#.into()),
        ("application/json", format!("{good}{good}").into()),
        ("application/json", nested.into()),
    ];
    for client in [gw.client(), gw.client().http2()] {
        let connection = client.connect().await;
        let ask = |kind: &str, body: Vec<u8>| {
            let request = connection.request("POST", "/login");
            let request = if kind.is_empty() { request } else { request.header("content-type", kind) };
            request.body(body)
        };
        for (kind, body) in &malformed {
            let answer = ask(kind, body.clone()).await;
            let answer = answer.expect_problem(400, "login.malformed");
            assert!(!answer.text().contains("alice"), "{}", answer.text());
            let detail = answer.json()["detail"].as_str().unwrap().to_owned();
            assert!(detail.starts_with("The request cannot be read: "), "{detail}");
        }
        // The connection is as good as before.
        ask("application/json", good.into()).await.expect_status(200);
        client
            .request("POST", "/login")
            .header("content-type", "application/json")
            .body(long.clone())
            .await
            .expect_problem(413, "request.body_too_large");
        for path in ["/login", "/refresh", "/logout"] {
            let answer = client.get(path).await.expect_problem(405, "route.method_not_allowed");
            assert_eq!(answer.header("allow"), Some("POST"), "{path}");
        }
        post(&client, "/.well-known/jwks.json", &json!({})).await.expect_status(405);
        let empty = post(&client, "/refresh", &json!({})).await.expect_problem(400, "login.malformed");
        assert_eq!(
            empty.json()["detail"],
            "The request cannot be read: `refresh_token` is missing or empty."
        );
        let number = json!({ "username": "alice", "password": 5 });
        let number = post(&client, "/login", &number).await.expect_problem(400, "login.malformed");
        let detail = number.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains("`password` is a number, and has to be a string"), "{detail}");
        post(&client, "/refresh", &json!({ "refresh_token": "x" }))
            .await
            .expect_problem(401, "login.refresh_invalid");
        client.request("POST", "/logout").await.expect_problem(401, "auth.credentials_required");
    }
    let checked = gw.metric("edgeward_password_check_duration_seconds_count", &[]).await;
    assert_eq!(checked, Some(2.0), "one of each protocol");
}

/// In chunks and after `Expect: 100-continue` as well; too long a body is answered as soon as that shows.
#[tokio::test]
async fn bodies_of_unknown_length_are_bounded() {
    let gw = start(CHEAP_PASSWORDS).await;
    let good = r#"{"username":"alice","password":"alice's password"}"#;
    let head = "POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
    let mut raw = gw.raw().await;
    let (one, two) = good.split_at(10);
    raw.send(format!("{head}Transfer-Encoding: chunked\r\n\r\n")).await;
    for piece in [one, two, ""] {
        raw.send(format!("{:x}\r\n{piece}\r\n", piece.len())).await;
    }
    assert_eq!(raw.response().await.status, 200);
    raw.send(format!("{head}Expect: 100-continue\r\nContent-Length: {}\r\n\r\n", good.len())).await;
    assert_eq!(raw.response().await.status, 100);
    raw.send(good).await;
    assert_eq!(raw.response().await.status, 200);
    let mut raw = gw.raw().await;
    raw.send(format!("{head}Transfer-Encoding: chunked\r\n\r\n1000\r\n{}\r\n1\r\n \r\n", " ".repeat(4096)))
        .await;
    assert_eq!(raw.response().await.status, 413);
}

/// Failures are slowed down, of the account wherever they come from; a right password is none, and a reload forgets none.
#[tokio::test]
async fn guessing_is_slowed_down() {
    let failures = "failures = { per_address = \"6/h\", per_account = \"3/h\" }";
    let gw = edge(&format!("{CHEAP_PASSWORDS}\n{failures}"))
        .and("[server]\ntrusted_proxies = [\"127.0.0.1\"]\ncontrol_socket = \"control.sock\"")
        .start()
        .await;
    add_users(&store_of(&gw), CHEAP).await;
    let from = async |address: &str, username: &str, password: &str| {
        let body = json!({ "username": username, "password": password });
        post(&gw.client(), "/login", &body).header("x-forwarded-for", address).await
    };
    from("192.0.2.9", "alice", "alice's password").await.expect_status(200);
    for address in ["192.0.2.1", "192.0.2.2", "192.0.2.3"] {
        from(address, "alice", "x").await.expect_problem(401, "login.failed");
    }
    let checked = gw.metric("edgeward_password_check_duration_seconds_count", &[]).await;
    let slow = from("192.0.2.4", "alice", "alice's password").await.expect_problem(429, "limit.exceeded");
    let wait: u64 = slow.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=1200).contains(&wait), "{wait}");
    assert_eq!(
        gw.metric("edgeward_password_check_duration_seconds_count", &[]).await,
        checked,
        "no password"
    );
    // Nobody can lock alice out where she is known.
    from("192.0.2.9", "alice", "alice's password").await.expect_status(200);
    assert_eq!(gw.order("reload").await.status, 0);
    from("192.0.2.4", "alice", "alice's password").await.expect_problem(429, "limit.exceeded");
    for number in 0..6 {
        from("198.51.100.1", &format!("user{number}"), "x").await.expect_problem(401, "login.failed");
    }
    from("198.51.100.1", "user6", "x").await.expect_problem(429, "limit.exceeded");
    gw.metric_is("edgeward_logins_total", &["step=\"login\"", "outcome=\"throttled\""], 3.0).await;
}

/// Passwords that take long: more than wait may be refused, those who leave cost nothing, and nobody else waits.
#[tokio::test]
async fn a_full_queue_is_told_and_who_left_is_forgotten() {
    let more =
        format!("passwords = {{ memory = \"64MiB\", passes = 64, workers = 1, queue = 2 }}\n{PATIENT}");
    let gw = edge(&more).start().await;
    let body = json!({ "username": "nobody", "password": "x" });
    let first = tokio::spawn(post(&gw.client(), "/login", &body).into_future());
    // It is the one that is worked on.
    gw.metric_is("edgeward_http_requests_in_flight", &["route=\"login\""], 1.0).await;
    let waiting = async |count: f64| gw.metric_is("edgeward_passwords_waiting", &[], count).await;
    // Two more wait, and a third finds no place.
    let mut leaving = Vec::new();
    for count in [1.0, 2.0] {
        let mut raw = gw.raw().await;
        let (length, body) = (body.to_string().len(), body.to_string());
        raw.send(format!(
            "POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        ))
        .await;
        leaving.push(raw);
        if count == 1.0 {
            // The first of all is taken up at some time, which frees its place.
            eventually("one to wait", async || {
                (gw.metric("edgeward_passwords_waiting", &[]).await >= Some(1.0)).then_some(())
            })
            .await;
        }
    }
    waiting(2.0).await;
    // The first may itself have stood among those that were seen to wait: then there was no place for the last of them, and
    // there is one for the next.
    let mut kept = Vec::new();
    let busy = loop {
        let mut asked = Box::pin(post(&gw.client(), "/login", &body).into_future());
        match tokio::time::timeout(Duration::from_millis(500), &mut asked).await {
            Ok(answer) => break answer.expect_problem(503, "login.busy"),
            Err(_) => kept.push(asked),
        }
    };
    assert!(busy.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1);
    let began = Instant::now();
    gw.get("/open").await.expect_status(200);
    assert!(began.elapsed() < Duration::from_secs(1), "others do not wait for passwords");
    drop((leaving, kept));
    first.await.unwrap().expect_problem(401, "login.failed");
    waiting(0.0).await;
    let checked = gw.metric("edgeward_password_check_duration_seconds_count", &[]).await;
    assert_eq!(checked, Some(1.0), "those who left were not computed");
}

/// Without the store nobody logs in; everything else goes on, and so do logins when it is back.
#[tokio::test]
async fn a_store_that_is_down_stops_logins_alone() {
    let gw = started(edge(CHEAP_PASSWORDS).and(PROTECTED)).await;
    let (access, refresh) = tokens(log_in(&gw.client(), "alice").await);
    // Somebody keeps it locked: what has to be written waits in vain.
    let file = format!("sqlite:{}", gw.directory().join("users.db").display());
    let mut lock = sqlx::SqliteConnection::connect(&file).await.unwrap();
    lock.execute("BEGIN EXCLUSIVE").await.unwrap();
    let down = log_in(&gw.client(), "alice").await.expect_problem(503, "store.unavailable");
    assert_eq!(down.header("retry-after"), Some("5"));
    let body = json!({ "refresh_token": refresh });
    post(&gw.client(), "/refresh", &body).await.expect_problem(503, "store.unavailable");
    with(&gw.client(), "/me", &access).await.expect_status(200);
    gw.get("/open").await.expect_status(200);
    lock.execute("ROLLBACK").await.unwrap();
    eventually("the store to be back", async || {
        (log_in(&gw.client(), "alice").await.status == 200).then_some(())
    })
    .await;
}

/// PostgreSQL is pulled out under load, and started again: tokens are verified all the while, logins get 503 and nothing
/// else, readiness says so, and everything goes on by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgresql_may_be_killed_under_load() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    let mut server = Postgres::start();
    let (edge, store) = on_postgres(&server.database(), &format!("{CHEAP_PASSWORDS}\n{PATIENT}"));
    let gw = edge.and(PROTECTED).start().await;
    add_users(&store, CHEAP).await;
    let (access, refresh) = tokens(log_in(&gw.client(), "alice").await);
    let has_ended = Arc::new(AtomicBool::new(false));
    let counts: Arc<[AtomicUsize; 3]> = Arc::default();
    let verifying = (0..4).map(|_| {
        let (client, access) = (gw.client(), access.clone());
        let (has_ended, counts) = (has_ended.clone(), counts.clone());
        tokio::spawn(async move {
            let connection = client.connect().await;
            while !has_ended.load(Ordering::Relaxed) {
                let request = connection.get("/me").header("authorization", &format!("Bearer {access}"));
                assert_eq!(request.await.status, 200);
                counts[0].fetch_add(1, Ordering::Relaxed);
            }
        })
    });
    let logging_in = (0..2).map(|_| {
        let (client, has_ended, counts) = (gw.client(), has_ended.clone(), counts.clone());
        tokio::spawn(async move {
            while !has_ended.load(Ordering::Relaxed) {
                match log_in(&client, "alice").await.status {
                    200 => counts[1].fetch_add(1, Ordering::Relaxed),
                    503 => counts[2].fetch_add(1, Ordering::Relaxed),
                    other => panic!("a login got {other}"),
                };
            }
        })
    });
    let load: Vec<_> = verifying.chain(logging_in).collect();
    let count = |index: usize| counts[index].load(Ordering::Relaxed);
    let more = async |index: usize| {
        let before = count(index);
        eventually("some more", async || (count(index) > before + 3).then_some(())).await;
    };
    let says = async |line: &str| {
        eventually(line, async || {
            gw.admin().get("/readyz?verbose").await.text().contains(line).then_some(())
        })
        .await;
    };
    for _ in 0..2 {
        for index in [0, 1] {
            more(index).await;
        }
        server.stop();
        says("[-] store: down for ").await;
        assert_eq!(gw.admin().get("/readyz").await.status, 200);
        for index in [0, 2] {
            more(index).await;
        }
        let body = json!({ "refresh_token": refresh });
        post(&gw.client(), "/refresh", &body).await.expect_problem(503, "store.unavailable");
        server.go();
        says("[+] store: up").await;
        for index in [0, 1] {
            more(index).await;
        }
    }
    has_ended.store(true, Ordering::Relaxed);
    for task in load {
        task.await.unwrap();
    }
    // What was begun before goes on.
    tokens(post(&gw.client(), "/refresh", &json!({ "refresh_token": refresh })).await);
    println!("verified {}, logged in {}, refused {}", count(0), count(1), count(2));
}

/// The user as he is now: another password, or no right to log in any more, ends what was begun before.
#[tokio::test]
async fn changes_of_a_user_end_his_sessions() {
    let gw = start(CHEAP_PASSWORDS).await;
    ends_sessions_of_changed_users(&gw, &store_of(&gw)).await;
}

async fn ends_sessions_of_changed_users(gw: &Gateway, store: &Store) {
    for change in [UserChange::Password(hash("new", CHEAP).unwrap()), UserChange::Disabled(true)] {
        let name = if matches!(change, UserChange::Disabled(_)) { "root" } else { "alice" };
        let (_, refresh) = tokens(log_in(&gw.client(), name).await);
        assert!(store.change_user(name, &change, None, 2).await.unwrap());
        let body = json!({ "refresh_token": refresh });
        post(&gw.client(), "/refresh", &body).await.expect_problem(401, "login.refresh_invalid");
        log_in(&gw.client(), name).await.expect_problem(401, "login.failed");
    }
}

/// `[defaults]` hold for the paths of logins as for any route, but for `auth`.
#[tokio::test]
async fn defaults_hold_for_logins_but_auth() {
    let defaults = "[defaults]\nauth = { with = [\"jwt:local\"] }\nip = { deny = [\"192.0.2.0/24\"] }\n\
        response = { set = { x-by = \"edge\" } }";
    let gw = edge(&format!("{CHEAP_PASSWORDS}\nhosts = [\"login.example.com\"]"))
        .and(defaults)
        .and("[server]\ntrusted_proxies = [\"127.0.0.1\"]")
        .start()
        .await;
    add_users(&store_of(&gw), CHEAP).await;
    let ask = || log_in(&gw.client(), "alice");
    let answer = ask().host("login.example.com").await.expect_status(200);
    assert_eq!(answer.header("x-by"), Some("edge"));
    ask().host("login.example.com").header("x-forwarded-for", "192.0.2.1").await.expect_status(403);
    ask().host("www.example.com").await.expect_status(401);
    gw.get("/open").await.expect_problem(401, "auth.credentials_required");
}

/// `rate_limits` of logins: by address before anything is read, by the account before the password is worked on; and pages
/// of other origins may log in where `cors` says so.
#[tokio::test]
async fn limits_and_origins_are_those_of_logins() {
    let more = format!(
        "{CHEAP_PASSWORDS}\n{PATIENT}\nrate_limits = [\"tries\", \"names\"]\ncors = {{ origins = [\"https://app.example.com\"] }}"
    );
    let limits = "[rate_limits.tries]\nkey = \"ip\"\nlimits = [\"6/h\"]\n[rate_limits.names]\nkey = \"account\"\n\
        limits = [\"2/h\"]\nmessage = \"One name, two tries.\"\n";
    let gw = started(edge(&more).and(limits)).await;
    let client = gw.client();
    let preflight = client.request("OPTIONS", "/login").header("origin", "https://app.example.com");
    let preflight = preflight.header("access-control-request-method", "POST").await.expect_status(204);
    assert_eq!(preflight.header("access-control-allow-origin"), Some("https://app.example.com"));
    for _ in 0..2 {
        let answer =
            log_in(&client, "alice").header("origin", "https://app.example.com").await.expect_status(200);
        assert_eq!(answer.header("access-control-allow-origin"), Some("https://app.example.com"));
    }
    let checked = gw.metric("edgeward_password_check_duration_seconds_count", &[]).await;
    let refused = log_in(&client, "alice").await.expect_problem(429, "limit.exceeded");
    assert_eq!(refused.json()["detail"], "One name, two tries.");
    assert!(refused.header("retry-after").is_some());
    assert_eq!(gw.metric("edgeward_password_check_duration_seconds_count", &[]).await, checked);
    log_in(&client, "root").await.expect_status(200);
    post(&client, "/refresh", &json!({ "refresh_token": "x" })).await.expect_status(401);
    client.request("POST", "/logout").await.expect_status(401);
    log_in(&client, "root").await.expect_problem(429, "limit.exceeded");
    gw.get("/.well-known/jwks.json").await.expect_status(200);
    gw.get("/open").await.expect_status(200);
}

#[tokio::test]
async fn explain_shows_what_answers_a_login() {
    let ran =
        edge(CHEAP_PASSWORDS).command(&["explain", "-c", "edgeward.toml", "POST", "http://x/login"]).await;
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    assert!(ran.stdout.contains("a token of local, for a username and a password"), "{}", ran.stdout);
    assert!(ran.stdout.contains("login  ("), "{}", ran.stdout);
}
