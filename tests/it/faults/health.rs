//! Health checks of servers that are there and of no use: each is a failed check, and the next good one brings it back.

use super::*;

#[tokio::test]
async fn checks_that_find_nobody_nothing_and_nonsense() {
    let (first, second) = (upstream().named("first").start().await, upstream().named("second").start().await);
    let chaos = Chaos::before(first.address()).await;
    let gw = gateway(
        "[upstreams.app]\nservers = [\"{first}\", \"{second}\"]\n\
         health_check = { path = \"/health\", interval = \"100ms\", timeout = \"1s\", unhealthy_after = 1 }\n\
         [[routes]]\npath = \"/*\"\nupstream = \"app\"\n",
    )
    .with("first", &chaos)
    .with("second", &second)
    .start()
    .await;
    let address = chaos.address().to_string();
    let is_up = async |up: f64| gw.metric_is("edgeward_upstream_backend_up", &[&address], up).await;
    let faults = [
        (Faults::both(Way::slices(3)), 1.0),
        (Faults::refused(), 0.0),
        (Faults::silent(), 0.0),
        (Faults::slow(Duration::from_secs(4)), 0.0),
        (Faults::nonsense(NONSENSE), 0.0),
        (Faults::down(Way::end(10, End::Reset)), 0.0),
    ];
    for (fault, up) in faults {
        is_up(1.0).await;
        let before = chaos.connections();
        chaos.strike(fault.clone());
        eventually("another check", async || (chaos.connections() > before).then_some(())).await;
        is_up(up).await;
        for _ in 0..4 {
            let answer = gw.get("/x").await.expect_status(200);
            assert!(up > 0.0 || answer.header("x-server") == Some("second"), "{fault:?}");
        }
        chaos.heal();
    }
    is_up(1.0).await;
    gw.stop().await;
}
