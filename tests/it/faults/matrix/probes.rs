//! Health checks: a server whose checks fail gets nothing, and another one all; with the next good check it is back.

use super::*;

const COLUMNS: Columns = Columns { head: 10, up: 40, down: 60, is_long: false };

fn answers() -> Vec<Fault> {
    nonsense(&[
        (
            "a length of twenty digits",
            b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nok",
            Sees::Nonsense,
        ),
        ("a status of four digits", b"HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nok", Sees::Nonsense),
        ("a version of the future", b"HTTP/9.9 200 OK\r\nContent-Length: 2\r\n\r\nok", Sees::Nonsense),
        ("always to be continued", b"HTTP/1.1 100 Continue\r\n\r\n", Sees::Nonsense),
        ("an error", b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", Sees::Nonsense),
    ])
}

#[tokio::test]
async fn health_checks() {
    let (first, second) = (upstream().named("first").start().await, upstream().named("second").start().await);
    let (mut config, mut cells) = (String::new(), Vec::new());
    for (number, fault) in [COLUMNS.all(), answers()].concat().into_iter().enumerate() {
        let chaos = Chaos::before(first.address()).await;
        config.push_str(&format!(
            "[upstreams.u{number}]\nservers = [\"{}\", \"{{second}}\"]\n\
             health_check = {{ path = \"/health\", interval = \"200ms\", timeout = \"1s\", unhealthy_after = 2 }}\n\
             [[routes]]\npath = \"/{number}\"\nupstream = \"u{number}\"\n",
            chaos.address()
        ));
        cells.push((number, chaos, fault));
    }
    let gw = gateway(&config).with("second", &second).start().await;
    // Each keeps a connection or two to both of its servers.
    let before = Held::of(&gw).and(4 * cells.len());
    let tried = cells.iter().map(async |(number, chaos, fault)| {
        let address = chaos.address().to_string();
        let is_up = async |up: f64| gw.metric_is("edgeward_upstream_backend_up", &[&address], up).await;
        is_up(1.0).await;
        let checks = chaos.connections();
        chaos.strike(fault.faults.clone());
        eventually("some checks", async || (chaos.connections() >= checks + 4).then_some(())).await;
        let what = &fault.what;
        match fault.sees {
            Sees::Damaged | Sees::Any => {}
            Sees::Right => is_up(1.0).await,
            Sees::Lost | Sees::Silent | Sees::Nonsense => {
                is_up(0.0).await;
                for _ in 0..3 {
                    let answer = gw.get(&format!("/{number}")).await.expect_status(200);
                    assert_eq!(answer.header("x-server"), Some("second"), "{what}");
                }
            }
        }
        if fault.sees == Sees::Right {
            for _ in 0..3 {
                gw.get(&format!("/{number}")).await.expect_status(200);
            }
        }
        chaos.heal();
        is_up(1.0).await;
        let is_back = async || {
            let answer = gw.get(&format!("/{number}")).await;
            (answer.status == 200 && answer.header("x-server") == Some("first")).then_some(())
        };
        eventually(&format!("requests to go there again after {what}"), is_back).await;
    });
    futures_util::future::join_all(tried).await;
    before.is_all(&gw).await;
    gw.stop().await;
}
