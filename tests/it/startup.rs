//! The process starts with everything away that it depends on, serves what needs none of it, and takes each up when it
//! comes.

use std::time::Instant;

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
