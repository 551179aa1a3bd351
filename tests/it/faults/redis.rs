//! Redis: limits do as they say, in batches, too; revocations hold where they are known, and are heard later elsewhere.

use edgeward::identity::directory::hash_key;
use edgeward::store::{NewKey, Store, StoreUrl};

use super::*;

const TIMEOUT: Duration = Duration::from_millis(500);

const CONFIG: &str = r#"
[server]
control_socket = "run/control.sock"
[cluster]
redis = "{redis}"
timeout = "500ms"
[store]
url = "sqlite:keys.db"
[rate_limits.local]
key = "ip"
limits = ["100000/h"]
[rate_limits.open]
key = "ip"
limits = ["100000/h"]
on_store_failure = "allow"
[rate_limits.closed]
key = "ip"
limits = ["100000/h"]
on_store_failure = "deny"
[rate_limits.batches]
key = "ip"
limits = ["5000/s"]
[rate_limits.closed_batches]
key = "ip"
limits = ["5000/s"]
on_store_failure = "deny"
[[routes]]
path = "/local"
rate_limits = ["local", "batches"]
respond = { text = "ok" }
[[routes]]
path = "/open"
rate_limits = ["open"]
respond = { text = "ok" }
[[routes]]
path = "/closed"
rate_limits = ["closed"]
respond = { text = "ok" }
[[routes]]
path = "/batches"
rate_limits = ["closed_batches"]
respond = { text = "ok" }
[[routes]]
path = "/plain"
respond = { text = "ok" }
[[routes]]
path = "/keys"
respond = { text = "ok" }
auth = { with = ["api_key"] }
"#;

#[tokio::test]
async fn dead_slow_and_talking_nonsense() {
    let redis = Redis::start().await;
    let chaos = Chaos::before(redis.address()).await;
    chaos.set(Faults::refused());
    let one = gateway(CONFIG).replacing("{redis}", &chaos.instead(&redis.url())).start().await;
    let two = gateway(CONFIG).replacing("{redis}", &redis.url()).start().await;
    let faults = [
        ("dead", Faults::refused()),
        ("silent", Faults::silent()),
        ("slow", Faults::slow(PATIENCE)),
        ("nonsense", Faults::nonsense(NONSENSE)),
    ];
    for gw in [&one, &two] {
        let store = Store::new(StoreUrl::Sqlite(gw.directory().join("keys.db")));
        store.add_consumer("partner", &[], None, 1).await.unwrap();
        for &(id, _) in &faults {
            let hash = hash_key(&format!("{id}_whole"));
            let key = NewKey { id, consumer: "partner", hash: &hash, expires_at: None, plan: None };
            store.add_key(&key, 1).await.unwrap();
        }
    }
    let shows = async |gw: &Gateway, id: &str, status: u16| {
        eventually(&format!("{id} to get {status}"), async || {
            let answer = gw.get("/keys").header("x-api-key", &format!("{id}_whole")).await;
            (answer.status == status).then_some(())
        })
        .await;
    };
    reports(&two, "[+] cluster: ").await;
    for (id, fault) in faults {
        shows(&one, id, 200).await;
        if fault.accept == Accept::Refused {
            chaos.strike(fault);
        } else {
            chaos.set(fault);
        }
        // Whoever asks before it is known waits for as long as a request may.
        eventually("a limit that is closed to refuse", async || {
            let answer = within_ten(TIMEOUT, one.get("/closed")).await;
            (answer.status == 503).then(|| answer.expect_problem(503, "limit.unavailable"))
        })
        .await;
        reports(&one, "[-] cluster: ").await;
        one.metric_is("edgeward_cluster_up", &[], 0.0).await;
        for path in ["/local", "/open", "/plain"] {
            within_ten(TIMEOUT, one.get(path)).await.expect_status(200);
        }
        let refused = within_ten(TIMEOUT, one.get("/closed")).await.expect_problem(503, "limit.unavailable");
        assert_eq!(refused.header("retry-after"), Some("1"), "{id}");
        eventually("permits that were taken before to be used", async || {
            (one.get("/batches").await.status == 503).then_some(())
        })
        .await;
        let ran = two.ran(&["key", "revoke", id, "-c", "edgeward.toml"]).await;
        assert_eq!(ran.status, 0, "{}", ran.stderr);
        shows(&two, id, 401).await;
        let known = one.get("/keys").header("x-api-key", &format!("{id}_whole")).await;
        assert_eq!(known.status, 200, "what is not heard of is not known: {id}");

        chaos.heal();
        reports(&one, "[+] cluster: ").await;
        for path in ["/closed", "/batches"] {
            comes_to(&one, path, 200).await;
        }
        shows(&one, id, 401).await;
    }
    assert!(one.metric("edgeward_rate_limit_store_failures_total", &[]).await.unwrap() > 0.0);
    for gw in [one, two] {
        gw.stop().await;
    }
}
