//! Legs of an aggregate: one that is needed, one that may be missing, one that another value stands for.

use serde_json::{Value, json};

use super::servers::HASTY;
use super::*;

/// Where a leg's answer is long enough to end early or later.
const COLUMNS: Columns = Columns { head: 20, up: 60, down: 9000, is_long: false };

fn value() -> Value {
    json!({ "numbers": (0..3000).collect::<Vec<_>>() })
}

fn routes() -> String {
    let mut config = String::new();
    for (pace, timeout) in [("patient", 5000), ("hasty", HASTY.as_millis())] {
        for (kind, more) in
            [("needed", "required = true"), ("extra", ""), ("filled", "fallback = { is = \"spare\" }")]
        {
            config.push_str(&format!(
                "[[routes]]\npath = \"/{pace}/{kind}\"\n[routes.aggregate]\ntimeout = \"{timeout}ms\"\n\
                 [[routes.aggregate.legs]]\nname = \"beside\"\nupstream = \"beside\"\npath = \"/beside\"\ngroup = \"beside\"\n\
                 [[routes.aggregate.legs]]\nname = \"leg\"\nupstream = \"app\"\npath = \"/leg\"\ngroup = \"leg\"\n{more}\n"
            ));
        }
    }
    config
}

async fn suffer(name: &str, more: &str, faults: &[Fault]) {
    in_lanes(2, faults, async |faults| suffers(name, more, &faults).await).await;
}

async fn suffers(name: &str, more: &str, faults: &[Fault]) {
    let app = upstream().on("/leg", Answer::json(value())).start().await;
    let beside = upstream().on("/beside", Answer::json(json!({ "is": "well" }))).start().await;
    let chaos = Chaos::before(app.address()).await;
    let gw = gateway(&format!(
        "[upstream_defaults]\nretry = {{ attempts = 1 }}\n\
         [upstreams.app]\nservers = [\"{{app}}\"]\n{more}\n[upstreams.beside]\nservers = [\"{{beside}}\"]\n{}\
         [[routes]]\npath = \"/beside\"\nupstream = \"beside\"\n[[routes]]\npath = \"/plain\"\nrespond = {{ text = \"ok\" }}\n",
        routes()
    ))
    .with("app", &chaos)
    .with("beside", &beside)
    .start()
    .await;
    let row = Row {
        name: name.to_owned(),
        gw: &gw,
        chaos: &chaos,
        lasting: false,
        bound: HASTY,
        beside: &["/plain", "/beside"],
        codes: |sees| match sees {
            Sees::Right => Some(&[]),
            // Whatever a service says to what is no question of ours.
            Sees::Damaged => None,
            _ => Some(&["aggregate.leg_failed", "aggregate.leg_unavailable", "aggregate.leg_timeout"]),
        },
        hears_all: true,
    };
    let whole = json!({ "beside": { "is": "well" }, "leg": value() });
    let filled = json!({ "beside": { "is": "well" }, "leg": { "is": "spare" } });
    let part = json!({ "beside": { "is": "well" } });
    row.suffers(faults, async |how| {
        let pace = if how.hasty { "hasty" } else { "patient" };
        let path = |kind: &str| format!("/{pace}/{kind}");
        let (needed, extra, spare) = (path("needed"), path("extra"), path("filled"));
        let (needed, extra, spare) = tokio::join!(
            Box::pin(gw.get(&needed).send()),
            Box::pin(gw.get(&extra).send()),
            Box::pin(gw.get(&spare).send())
        );
        for (answer, other) in [(extra, &part), (spare, &filled)] {
            let answer = answer.unwrap();
            let is_known =
                answer.status == 200 && answer.broken.is_none() && [&whole, other].contains(&&answer.json());
            // A number that was damaged may be a number.
            if !is_known && !answer.text().contains("numbers") {
                return Outcome::Wrong(format!("{answer:?}"));
            }
        }
        let needed = needed.unwrap();
        judged::<()>(Ok(needed), whole.to_string().as_bytes())
    })
    .await;
    gw.stop().await;
}

#[tokio::test]
async fn legs_over_http1() {
    let answers = nonsense(&[
        (
            "a length of twenty digits",
            b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n{}",
            Sees::Nonsense,
        ),
        ("half of a value", b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n{\"numbers\":[", Sees::Nonsense),
        ("a number of no size", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{\"x\":1e+}", Sees::Nonsense),
        (
            "a chunk without end",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFFF\r\n{}",
            Sees::Nonsense,
        ),
    ]);
    suffer("a leg over HTTP/1.1", "", &[COLUMNS.all(), answers].concat()).await;
}

#[tokio::test]
async fn legs_over_http2() {
    suffer("a leg over HTTP/2", "http2 = true", &COLUMNS.all()).await;
}
