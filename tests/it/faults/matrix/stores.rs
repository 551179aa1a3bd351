//! PostgreSQL: logins are refused while it is of no use, and what is known from it holds on.

use edgeward::identity::directory::hash_key;
use edgeward::identity::password::{Cost, hash};
use edgeward::store::{NewKey, Store, StoreUrl, User};
use serde_json::json;

use super::*;

/// Within what is said before a login, or in a row; and after some rows.
const COLUMNS: Columns = Columns { head: 20, up: 900, down: 900, is_long: false };
/// The same over TLS.
const OVER_TLS: Columns = Columns { head: 20, up: 2000, down: 2500, is_long: false };
/// Longest a call may take.
const BOUND: Duration = Duration::from_secs(2);

const CONFIG: &str = r#"
[store]
url = "{store}"
[identity.providers.local]
issuer = "me"
audience = ["shop"]
algorithms = ["ES256"]
signing_key = "es256.pem"
generate = true
[identity.login]
provider = "local"
passwords = { memory = "1MiB", passes = 1 }
failures = { per_address = "100000/s", per_account = "100000/s" }
[[routes]]
path = "/keys"
auth = { with = ["api_key"] }
respond = { text = "in" }
[[routes]]
path = "/plain"
respond = { text = "ok" }
"#;

/// Frames of its own protocol, in their order or out of it.
fn messages() -> Vec<Fault> {
    nonsense(&[
        ("a message of 2 GiB", b"R\x7f\xff\xff\xff\0\0\0\0", Sees::Nonsense),
        ("a length that does not count itself", b"Z\0\0\0\x01I", Sees::Nonsense),
        ("a length below zero", b"D\xff\xff\xff\xff", Sees::Nonsense),
        ("a login nobody knows", b"R\0\0\0\x08\0\0\0\x63", Sees::Nonsense),
        // Whoever says that there is no such row is believed.
        ("ready at once", b"Z\0\0\0\x05I", Sees::Damaged),
        ("a row of 65,535 columns", b"D\0\0\0\x06\xff\xff", Sees::Nonsense),
        ("a row of a column of 2 GiB", b"D\0\0\0\x0a\0\x01\x7f\xff\xff\xff", Sees::Nonsense),
        ("a message of no type", b"\0\0\0\0\x04", Sees::Nonsense),
        ("an error without an end", b"E\0\0\0\x0aSFATAL", Sees::Nonsense),
        ("too many connections", b"E\0\0\0\x1bSFATAL\0C53300\0Mtoo many\0\0", Sees::Nonsense),
        ("a notice for ever", b"N\0\0\0\x0dSNOTICE\0\0", Sees::Nonsense),
    ])
}

#[tokio::test]
async fn postgresql() {
    let server = tokio::task::spawn_blocking(Postgres::start).await.unwrap();
    let database = filled(&server).await;
    let faults = [COLUMNS.all(), messages()].concat();
    in_lanes(13, &faults, async |faults| {
        let chaos = Chaos::before(server.address()).await;
        suffers("PostgreSQL", &chaos, &chaos.instead(&database), faults).await;
    })
    .await;
}

#[tokio::test]
async fn postgresql_over_tls() {
    let (authority, directory) = (Authority::new(), tempfile::tempdir().unwrap());
    let identity = authority.server(&["127.0.0.1"]);
    let start = move || Postgres::start_with_tls(&identity.cert_pem, &identity.key_pem);
    let server = tokio::task::spawn_blocking(start).await.unwrap();
    let database = filled(&server).await;
    let ca = authority.write(directory.path(), "ca.pem");
    in_lanes(10, &OVER_TLS.all(), async |faults| {
        let chaos = Chaos::before(server.address()).await;
        let url = format!("{}?sslmode=verify-full&sslrootcert={}", chaos.instead(&database), ca.display());
        suffers("PostgreSQL over TLS", &chaos, &url, faults).await;
    })
    .await;
}

/// The URL of a database with what the row asks for.
async fn filled(server: &Postgres) -> String {
    let database = server.database();
    let store = Store::new(StoreUrl::parse(&database, |_| unreachable!("it is no file")).unwrap());
    let password = hash("alice's password", Cost { memory_kib: 1024, passes: 1 }).unwrap();
    let alice = User { name: "alice".to_owned(), password, roles: Vec::new(), disabled: false };
    store.add_user(&alice, 1).await.unwrap();
    store.add_consumer("partner", &[], None, 1).await.unwrap();
    let hash = hash_key("ew_stored_whole");
    let key = NewKey { id: "ew_stored", consumer: "partner", hash: &hash, expires_at: None, plan: None };
    store.add_key(&key, 1).await.unwrap();
    database
}

async fn suffers(name: &str, chaos: &Chaos, url: &str, faults: Vec<Fault>) {
    let gw = gateway(CONFIG).replacing("{store}", url).start().await;
    // The driver believes lengths, and panics in what it makes of them.
    let gw = gw.forgiving(&["/sqlx-", "/bytes-"]);
    let row = Row {
        name: name.to_owned(),
        gw: &gw,
        chaos,
        lasting: true,
        bound: BOUND,
        beside: &["/plain"],
        codes: |sees| match sees {
            Sees::Right => Some(&[]),
            Sees::Damaged => None,
            _ => Some(&["store.unavailable"]),
        },
        hears_all: true,
    };
    let with_key = || gw.get("/keys").header("x-api-key", "ew_stored_whole");
    eventually("the stored key", async || (with_key().await.status == 200).then_some(())).await;
    let body = json!({ "username": "alice", "password": "alice's password" }).to_string();
    row.suffers(&faults, async |_| {
        let known = with_key().await;
        if known.status != 200 {
            return Outcome::Wrong(format!("a key that is known: {known:?}"));
        }
        let login =
            gw.request("POST", "/login").header("content-type", "application/json").body(body.clone());
        match login.send().await {
            Ok(answer) if answer.status == 200 && answer.json()["access_token"].is_string() => Outcome::Right,
            other => judged(other, b""),
        }
    })
    .await;
    gw.stop().await;
}
