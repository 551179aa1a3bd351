//! Clients: what is between them and the gateway ends their requests at most, and the gateway waits for nobody for long.

use tokio::sync::Mutex;

use super::servers::{question, right, strict};
use super::*;

/// How long a client waits that hears nothing.
const PATIENCE_OF_CLIENTS: Duration = Duration::from_millis(400);
/// `limits.header_timeout`, `body_timeout` and `idle_timeout`.
const BOUND: Duration = Duration::from_secs(2);

const COLUMNS: Columns = Columns { head: 20, up: 4500, down: 9000, is_long: true };

fn codes(sees: Sees) -> Option<&'static [&'static str]> {
    match sees {
        Sees::Right => Some(&[]),
        // It was cut off in what it said, and may hear of that.
        Sees::Lost | Sees::Silent => {
            Some(&["request.malformed", "request.header_timeout", "request.body_timeout"])
        }
        Sees::Nonsense | Sees::Damaged | Sees::Any => None,
    }
}

async fn suffer(name: &str, client: impl Fn(&Chaos) -> Client, gw: impl Fn() -> GatewayBuilder) {
    let mut faults = COLUMNS.all();
    // Whom a router forgets is silent, and that is looked at in the end.
    faults.retain(|fault| !fault.forgets);
    in_lanes(2, &faults, async |faults| suffers(name, &client, gw(), &faults).await).await;
}

async fn suffers(name: &str, client: impl Fn(&Chaos) -> Client, gw: GatewayBuilder, faults: &[Fault]) {
    let app = strict().start().await;
    let bound = BOUND.as_millis();
    let gw = gw
        .and(&format!(
            "[limits]\nheader_timeout = \"{bound}ms\"\nbody_timeout = \"{bound}ms\"\nidle_timeout = \"{bound}ms\"\n\
             [upstreams.app]\nservers = [\"{}\"]\n\
             [[routes]]\npath = \"/app\"\nupstream = \"app\"\n[[routes]]\npath = \"/plain\"\nrespond = {{ text = \"ok\" }}\n\
             [[listeners]]\nname = \"beside\"\naddress = \"127.0.0.1:0\"\n",
            app.address()
        ))
        .start()
        .await;
    let (main, beside) = (gw.listener("main"), Client::new(gw.listener("beside")));
    let chaos = Chaos::before(main).await;
    let client = client(&chaos);
    let row = Row {
        name: name.to_owned(),
        gw: &gw,
        chaos: &chaos,
        lasting: false,
        bound: BOUND,
        beside: &[],
        codes,
        hears_all: false,
    };
    let standing: Mutex<Option<Connection>> = Mutex::new(None);
    row.suffers(faults, async |how| {
        let mut standing = standing.lock().await;
        let asked = async {
            let connection = match standing.take().filter(|_| how.kept) {
                Some(connection) => connection,
                None => client.try_connect().await.map_err(drop)?,
            };
            let answer = connection.request("POST", "/app").body(question()).send().await.map_err(drop)?;
            Ok::<_, ()>((answer, connection))
        };
        let others = async {
            for path in ["/plain", "/app"] {
                let answer = beside.request("POST", path).body(question()).await;
                assert_eq!(answer.status, 200, "{name}: {answer:?}");
            }
        };
        let limit = if how.hasty { PATIENCE_OF_CLIENTS } else { PATIENCE };
        let (asked, ()) = tokio::join!(tokio::time::timeout(limit, asked), others);
        let Ok(Ok((answer, connection))) = asked else { return Outcome::Nothing };
        let outcome = judged::<()>(Ok(answer), &right());
        if how.kept && outcome == Outcome::Right {
            *standing = Some(connection);
        }
        outcome
    })
    .await;
    // Nobody was asked half of a question as if it were all.
    let asked = app.seen();
    assert!(asked.len() > faults.len());
    for seen in asked {
        let outcome = outcome::compared(&seen.body, &question());
        assert!(!matches!(outcome, Outcome::Wrong(_)) || seen.body.is_empty(), "{name}: {outcome:?}");
    }
    // Who says nothing any more is not waited for; the one that asks for this is open.
    chaos.set(Faults::silent());
    gw.metric_is("edgeward_connections_open", &["main"], 0.0).await;
    gw.stop().await;
}

#[tokio::test]
async fn clients_over_http1() {
    suffer(
        "clients over HTTP/1.1",
        |chaos| Client::new(chaos.address()),
        || gateway("").listener("main", "127.0.0.1:0"),
    )
    .await;
}

#[tokio::test]
async fn clients_over_http2() {
    let gw = || gateway("").listener("main", "127.0.0.1:0");
    suffer("clients over HTTP/2", |chaos| Client::new(chaos.address()).http2(), gw).await;
}

#[tokio::test]
async fn clients_over_http2_and_tls() {
    let authority = Authority::new();
    let trust = authority.client_config(&[], None);
    let identity = authority.server(&["localhost"]);
    let gw = || gateway("").identity("site", &identity).tls_listener("main", &["site"]);
    let client = |chaos: &Chaos| Client::new(chaos.address()).tls(&trust, "localhost").http2();
    suffer("clients over HTTP/2 and TLS", client, gw).await;
}
