//! The process starts with everything away that it depends on, serves what needs none of it, and takes each up when it
//! comes.

use std::time::Instant;

use edgeward::identity::directory::hash_key;
use edgeward::store::{NewKey, Store, StoreUrl};
use serde_json::json;

use crate::support::*;

#[tokio::test]
async fn everything_may_come_later() {
    let (mut app, dead) = (upstream().start().await, DeadPort::new());
    app.stop().await;
    let began = Instant::now();
    let gw = gateway(
        "[store]\nurl = \"postgres://edge:s3cret@{dead}/edge\"\n\
         [cluster]\nredis = \"redis://{dead}\"\n\
         [brokers.main]\nurl = \"amqp://{dead}\"\n\
         [log.bus]\nbroker = \"main\"\nexchange = \"log\"\nrouting_key = \"x\"\n\
         [identity.providers.idp]\nissuer = \"idp\"\naudience = [\"x\"]\nalgorithms = [\"RS256\"]\n\
         jwks_url = \"http://{dead}/keys\"\n\
         [rate_limits.shared]\nkey = \"route\"\nlimits = [\"1000/s\"]\n\
         [upstreams.app]\nservers = [\"{app}\"]\n\
         [upstreams.app.health_check]\ninterval = \"100ms\"\n\
         [upstreams.named]\nservers = [\"no-such-host.invalid:80\"]\n\
         [[routes]]\npath = \"/fixed\"\nrespond = { text = \"ok\" }\nrate_limits = [\"shared\"]\n\
         [[routes]]\npath = \"/app\"\nupstream = \"app\"\n\
         [[routes]]\npath = \"/named\"\nupstream = \"named\"\n\
         [[routes]]\npath = \"/token\"\nauth = { with = [\"jwt:idp\"] }\nrespond = { text = \"ok\" }\n\
         [[routes]]\npath = \"/queue\"\namqp = { broker = \"main\", queue = \"q\" }\n",
    )
    .with("app", &app)
    .with("dead", &dead)
    .start()
    .await;
    // Each has its own bound at the start; together they stay below a service manager's.
    assert!(began.elapsed().as_secs() < 20, "{:?}", began.elapsed());
    gw.get("/fixed").await.expect_status(200);
    assert_eq!(gw.admin().get("/readyz").await.status, 200);
    gw.get("/queue").await.expect_problem(503, "broker.down");
    gw.get("/named").await.expect_problem(503, "upstream.not_ready");
    gw.get("/token").await.expect_problem(401, "auth.credentials_required");
    let bad = gw.get("/app").await;
    assert!(matches!(bad.status, 502 | 503), "{bad:?}");
    let report = gw.admin().get("/readyz?verbose").await.text();
    for part in [
        "[-] store: down",
        "[-] cluster: ",
        "[-] broker main: ",
        "keys were never fetched",
        "named: not ready",
    ] {
        assert!(report.contains(part), "{part}: {report}");
    }
    assert!(!gw.stderr().contains("s3cret") && !report.contains("s3cret"));
    app.restart().await;
    eventually("the service to be found", async || (gw.get("/app").await.status == 200).then_some(())).await;
    gw.stop().await;
}

/// Each is away at the start and comes later; what needs it works from then on, and what needs another one still says why
/// not. (Brokers take long to start: this name keeps few of such tests running at a time.)
#[tokio::test]
async fn brokers_and_all_else_may_come_one_by_one() {
    let postgres = tokio::task::spawn_blocking(Postgres::start).await.unwrap();
    let (database, redis, broker) = (postgres.database(), Redis::start().await, RabbitMq::start().await);
    let signer = Signer::rsa("known");
    let idp = upstream().on("/keys", Answer::json(key_set(&[&signer]))).start().await;
    let amqp = Amqp::connect(&broker.url()).await;
    amqp.queue("q").await;
    let store = Store::new(StoreUrl::parse(&database, |_| unreachable!("it is no file")).unwrap());
    store.add_consumer("partner", &[], None, 1).await.unwrap();
    let hash = hash_key("ew_stored_whole");
    let key = NewKey { id: "ew_stored", consumer: "partner", hash: &hash, expires_at: None, plan: None };
    store.add_key(&key, 1).await.unwrap();

    let mut ways = Vec::new();
    for server in [idp.address(), redis.address(), broker.address(), postgres.address()] {
        let chaos = Chaos::before(server).await;
        chaos.set(Faults::refused());
        ways.push(chaos);
    }
    let gw = gateway(
        "[store]\nurl = \"{store}\"\nservices = true\n\
         [cluster]\nredis = \"{redis}\"\ntimeout = \"2s\"\n\
         [brokers.main]\nurl = \"{broker}\"\n\
         [identity.providers.idp]\nissuer = \"idp\"\naudience = [\"x\"]\nalgorithms = [\"RS256\"]\n\
         jwks_url = \"http://{idp}/keys\"\n\
         [rate_limits.shared]\nkey = \"route\"\nlimits = [\"100000/h\"]\non_store_failure = \"deny\"\n\
         [[routes]]\npath = \"/plain\"\nrespond = { text = \"ok\" }\n\
         [[routes]]\npath = \"/limited\"\nrespond = { text = \"ok\" }\nrate_limits = [\"shared\"]\n\
         [[routes]]\npath = \"/token\"\nauth = { with = [\"jwt:idp\"] }\nrespond = { text = \"ok\" }\n\
         [[routes]]\npath = \"/key\"\nauth = { with = [\"api_key\"] }\nrespond = { text = \"ok\" }\n\
         [[routes]]\npath = \"/queue\"\namqp = { broker = \"main\", queue = \"q\", publish = true }\n",
    )
    .with("idp", &ways[0])
    .replacing("{redis}", &ways[1].instead(&redis.url()))
    .replacing("{broker}", &ways[2].instead(&broker.url()))
    .replacing("{store}", &ways[3].instead(&database))
    .start()
    .await;

    let bearer = signer.bearer(json!({ "iss": "idp", "aud": "x", "sub": "alice" }));
    let needs = [
        ("/token", 200, (503, "auth.keys_unavailable")),
        ("/limited", 200, (503, "limit.unavailable")),
        ("/queue", 202, (503, "broker.down")),
        ("/key", 200, (503, "store.unavailable")),
    ];
    let asked = async |path: &str| {
        let request = match path {
            "/token" => gw.get(path).header("authorization", &bearer),
            "/key" => gw.get(path).header("x-api-key", "ew_stored_whole"),
            _ => gw.get(path),
        };
        request.await
    };
    for (come, way) in ways.iter().enumerate() {
        for (path, _, (status, code)) in &needs[come..] {
            asked(path).await.expect_problem(*status, code);
        }
        gw.get("/plain").await.expect_status(200);
        // Services that were never read are no services: others do better.
        gw.admin().get("/readyz").await.expect_status(503);
        way.heal();
        let (path, status, _) = needs[come];
        let works = async || (asked(path).await.status == status).then_some(());
        eventually(&format!("{path} to work"), works).await;
        for (path, status, _) in &needs[..come] {
            asked(path).await.expect_status(*status);
        }
    }
    let is_ready = async || (gw.admin().get("/readyz").await.status == 200).then_some(());
    eventually("the process to be ready", is_ready).await;
    let report = gw.admin().get("/readyz?verbose").await.text();
    assert!(!report.contains("[-]"), "{report}");
    gw.stop().await;
}
