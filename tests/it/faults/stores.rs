//! The store: whoever is known is known, services are served as they were, quotas do as they say; what has to be asked or
//! written is refused, and soon.

use edgeward::identity::directory::hash_key;
use edgeward::identity::password::{Cost, hash};
use edgeward::store::{NewKey, Store, StoreUrl, User};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::json;
use sqlx::Connection;

use super::*;
use crate::support::postgres::psql;

/// Longest a call may take.
const BOUND: Duration = Duration::from_secs(2);

const CONFIG: &str = r#"
[store]
url = "{store}"
services = true
[identity.providers.local]
issuer = "me"
audience = ["shop"]
algorithms = ["ES256"]
signing_key = "es256.pem"
generate = true
[identity.login]
provider = "local"
refresh_lifetime = "30d"
passwords = { memory = "1MiB", passes = 1 }
failures = { per_address = "100000/s", per_account = "100000/s" }
[plans.local]
quota = "100000/month"
[plans.open]
quota = "100000/month"
on_store_failure = "allow"
[plans.closed]
quota = "100000/month"
on_store_failure = "deny"
[consumers.local]
plan = "local"
api_keys = ["local-0123456789abcdef"]
[consumers.open]
plan = "open"
api_keys = ["open-0123456789abcdef"]
[consumers.closed]
plan = "closed"
api_keys = ["closed-0123456789abcdef"]
[[routes]]
path = "/me"
auth = { with = ["jwt:local"] }
respond = { text = "in" }
[[routes]]
path = "/keys"
auth = { with = ["api_key"] }
respond = { text = "in" }
[[routes]]
path = "/plain"
respond = { text = "ok" }
"#;

fn log_in(gw: &Gateway) -> RequestBuilder {
    let body = json!({ "username": "alice", "password": "alice's password" });
    gw.request("POST", "/login").header("content-type", "application/json").body(body.to_string())
}

fn with_key(gw: &Gateway, key: &str) -> RequestBuilder {
    gw.get("/keys").header("x-api-key", key)
}

/// One user, and a consumer with a key.
async fn fill(store: &Store) {
    let password = hash("alice's password", Cost { memory_kib: 1024, passes: 1 }).unwrap();
    let alice = User { name: "alice".to_owned(), password, roles: Vec::new(), disabled: false };
    store.add_user(&alice, 1).await.unwrap();
    store.add_consumer("partner", &[], None, 1).await.unwrap();
    let hash = hash_key("ew_stored_whole");
    let key = NewKey { id: "ew_stored", consumer: "partner", hash: &hash, expires_at: None, plan: None };
    store.add_key(&key, 1).await.unwrap();
}

/// Logs in, as soon as that works again.
async fn logged_in(gw: &Gateway) -> String {
    eventually("a login", async || {
        let answer = within_ten(BOUND, log_in(gw)).await;
        if answer.status != 200 {
            answer.expect_problem(503, "store.unavailable");
            return None;
        }
        Some(answer.json()["access_token"].as_str().unwrap().to_owned())
    })
    .await
}

#[tokio::test]
async fn postgresql_slow_and_talking_nonsense() {
    let server = tokio::task::spawn_blocking(Postgres::start).await.unwrap();
    let (database, app) = (server.database(), upstream().start().await);
    let store = Store::new(StoreUrl::parse(&database, |_| unreachable!("it is no file")).unwrap());
    fill(&store).await;
    let chaos = Chaos::before(server.address()).await;
    chaos.set(Faults::refused());
    let gw = gateway(CONFIG).replacing("{store}", &chaos.instead(&database)).start().await;

    // Nothing was read yet: what the files say is served, and what only the store knows is nobody's fault.
    gw.get("/plain").await.expect_status(200);
    within_ten(BOUND, log_in(&gw)).await.expect_problem(503, "store.unavailable");
    within_ten(BOUND, with_key(&gw, "ew_stored_whole")).await.expect_problem(503, "store.unavailable");
    with_key(&gw, "local-0123456789abcdef").await.expect_status(200);
    gw.admin().get("/readyz").await.expect_status(503);
    chaos.heal();
    let token = logged_in(&gw).await;
    let bearer = format!("Bearer {token}");
    let endpoint = format!("[{{\"type\":\"http-get\",\"url\":\"http://{}/x\"}}]", app.address());
    let row = format!(
        "INSERT INTO edgeward_services (name, path, endpoints) VALUES ('app', '/service', '{endpoint}')"
    );
    psql(&database, &row).unwrap();
    comes_to(&gw, "/service", 200).await;
    eventually("the stored key", async || {
        (with_key(&gw, "ew_stored_whole").await.status == 200).then_some(())
    })
    .await;
    for fault in [Faults::silent(), Faults::slow(BOUND * 2), Faults::nonsense(NONSENSE)] {
        reports(&gw, "[+] store: up").await;
        chaos.set(fault.clone());
        // A call that is under way while its connection turns bad may still come through.
        eventually("a login to be refused", async || {
            let answer = within_ten(BOUND, log_in(&gw)).await;
            (answer.status != 200).then(|| answer.expect_problem(503, "store.unavailable"))
        })
        .await;
        reports(&gw, "[-] store: down for ").await;
        gw.get("/plain").await.expect_status(200);
        gw.get("/me").header("authorization", &bearer).await.expect_status(200);
        gw.get("/service").await.expect_status(200);
        for (key, status) in [
            ("ew_stored_whole", 200),
            ("ew_unknown_whole", 401),
            ("local-0123456789abcdef", 200),
            ("open-0123456789abcdef", 200),
        ] {
            assert_eq!(with_key(&gw, key).await.status, status, "{key}: {fault:?}");
        }
        let closed = || with_key(&gw, "closed-0123456789abcdef");
        eventually("a quota that is closed", async || (closed().await.status == 503).then_some(())).await;
        closed().await.expect_problem(503, "limit.unavailable");
        let told = within_ten(BOUND, gw.admin().get("/api/v1/services")).await.expect_status(503);
        assert_eq!(told.json()["code"], "store_unavailable");
        chaos.heal();
        logged_in(&gw).await;
        eventually("the quota to be open again", async || (closed().await.status == 200).then_some(())).await;
    }
    // It follows again by itself.
    store.add_consumer("another", &[], None, 2).await.unwrap();
    reports(&gw, "identity: 5 consumers").await;
    gw.stop().await;
}

/// A disk that is full, and a file that is damaged: both until they are not.
#[tokio::test]
async fn sqlite_full_and_damaged() {
    let gw = gateway(CONFIG).replacing("{store}", "sqlite:users.db").start().await;
    let file = gw.directory().join("users.db");
    fill(&Store::new(StoreUrl::Sqlite(file.clone()))).await;
    let bearer = format!("Bearer {}", logged_in(&gw).await);
    eventually("the stored key", async || {
        (with_key(&gw, "ew_stored_whole").await.status == 200).then_some(())
    })
    .await;
    let refuses = async || {
        eventually("a login to be refused", async || {
            let answer = within_ten(BOUND, log_in(&gw)).await;
            (answer.status != 200).then(|| answer.expect_problem(503, "store.unavailable"))
        })
        .await;
        gw.get("/plain").await.expect_status(200);
        gw.get("/me").header("authorization", &bearer).await.expect_status(200);
        with_key(&gw, "ew_stored_whole").await.expect_status(200);
    };
    // The kernel refuses to make any file of this process longer, and sends it a signal besides.
    let pid = Pid::from_raw(i32::try_from(gw.pid()).unwrap()).unwrap();
    let before = prlimit(Some(pid), Resource::Fsize, Rlimit { current: Some(1), maximum: None }).unwrap();
    refuses().await;
    reports(&gw, "[-] store: down for ").await;
    prlimit(Some(pid), Resource::Fsize, before).unwrap();
    logged_in(&gw).await;
    reports(&gw, "[+] store: up").await;

    // Whatever was written stands in the file itself: a copy of it is one of everything.
    let mut connection =
        sqlx::SqliteConnection::connect(&format!("sqlite:{}", file.display())).await.unwrap();
    sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    let good = std::fs::read(&file).unwrap();
    std::fs::write(&file, vec![b'x'; good.len()]).unwrap();
    refuses().await;
    reports(&gw, "[-] store: down for ").await;
    std::fs::write(&file, good).unwrap();
    logged_in(&gw).await;
    // No connection remembers the damage.
    for _ in 0..20 {
        log_in(&gw).await.expect_status(200);
    }
    gw.stop().await;
}

/// A file that is none of SQLite's from the start keeps nothing else from being served, and is used once it is.
#[tokio::test]
async fn sqlite_that_never_was_one() {
    let gw = gateway(CONFIG)
        .replacing("{store}", "sqlite:users.db")
        .file("users.db", &"no database at all, but long enough to be looked at\n".repeat(100))
        .start()
        .await;
    gw.get("/plain").await.expect_status(200);
    log_in(&gw).await.expect_problem(503, "store.unavailable");
    gw.admin().get("/readyz").await.expect_status(503);
    assert!(gw.admin().get("/readyz?verbose").await.text().contains("[-] store: down for "));
    std::fs::remove_file(gw.directory().join("users.db")).unwrap();
    eventually("the next one to be made", async || {
        (gw.admin().get("/readyz").await.status == 200).then_some(())
    })
    .await;
    fill(&Store::new(StoreUrl::Sqlite(gw.directory().join("users.db")))).await;
    logged_in(&gw).await;
    gw.stop().await;
}
