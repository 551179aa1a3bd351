//! Redis: a limit that is closed without it refuses, one that is counted here and one that is open let pass.

use super::*;

/// Within a handshake or the first answer, and in the middle of what is said once it is known.
const COLUMNS: Columns = Columns { head: 3, up: 400, down: 60, is_long: false };
/// The same over TLS.
const OVER_TLS: Columns = Columns { head: 3, up: 1200, down: 1500, is_long: false };
/// `cluster.timeout`: a machine that is busy is not to look like a Redis that is slow.
const BOUND: Duration = Duration::from_millis(500);

const CONFIG: &str = r#"
[cluster]
redis = "{redis}"
timeout = "500ms"{ca}
[rate_limits.local]
key = "ip"
limits = ["1000000/h"]
[rate_limits.open]
key = "ip"
limits = ["1000000/h"]
on_store_failure = "allow"
[rate_limits.closed]
key = "ip"
limits = ["1000000/h"]
on_store_failure = "deny"
[[routes]]
path = "/local"
rate_limits = ["local"]
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
path = "/plain"
respond = { text = "ok" }
"#;

/// Answers in its own protocol that answer nothing.
fn resp() -> Vec<Fault> {
    nonsense(&[
        ("a number", b":1\r\n", Sees::Nonsense),
        ("OK", b"+OK\r\n", Sees::Nonsense),
        ("nothing", b"$-1\r\n", Sees::Nonsense),
        ("an error", b"-ERR no such thing\r\n", Sees::Nonsense),
        ("not the master", b"-READONLY You can't write against a read only replica.\r\n", Sees::Nonsense),
        ("out of memory", b"-OOM command not allowed when used memory > 'maxmemory'.\r\n", Sees::Nonsense),
        ("an array that goes on", b"*3\r\n:1\r\n", Sees::Nonsense),
        ("an array of texts", b"*4\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n$1\r\nd\r\n", Sees::Nonsense),
        ("an array of 10^9", b"*1000000000\r\n", Sees::Nonsense),
        ("a text of 512 MiB", b"$536870912\r\nx", Sees::Nonsense),
        ("a text of 10^18", b"$1000000000000000000\r\nx", Sees::Nonsense),
        ("a length below zero", b"*-5\r\n", Sees::Nonsense),
        ("arrays in arrays", &[b'*', b'1', b'\r', b'\n'].repeat(200), Sees::Nonsense),
        ("a push", b">2\r\n+message\r\n+x\r\n", Sees::Nonsense),
    ])
}

#[tokio::test]
async fn redis() {
    let redis = Redis::start().await;
    let faults = [COLUMNS.all(), resp()].concat();
    in_lanes(10, &faults, async |faults| {
        let chaos = Chaos::before(redis.address()).await;
        let gw = gateway(CONFIG).replacing("{ca}", "").replacing("{redis}", &chaos.instead(&redis.url()));
        suffers("Redis", &chaos, gw, &faults).await;
    })
    .await;
}

#[tokio::test]
async fn redis_over_tls() {
    let (redis, authority) = (Redis::start().await, Authority::new());
    let relay = TlsRelay::before(redis.address(), &authority.server(&["127.0.0.1"])).await;
    in_lanes(10, &OVER_TLS.all(), async |faults| {
        let chaos = Chaos::before(relay.address()).await;
        let gw = gateway(CONFIG)
            .replacing("{ca}", "\nca = \"ca.pem\"")
            .file("ca.pem", &authority.pem)
            .replacing("{redis}", &format!("rediss://{}", chaos.address()));
        suffers("Redis over TLS", &chaos, gw, &faults).await;
    })
    .await;
}

async fn suffers(name: &str, chaos: &Chaos, gw: GatewayBuilder, faults: &[Fault]) {
    let gw = gw.start().await;
    let row = Row {
        name: name.to_owned(),
        gw: &gw,
        chaos,
        lasting: true,
        bound: BOUND,
        beside: &["/local", "/open", "/plain"],
        codes: |sees| if sees == Sees::Right { Some(&[]) } else { Some(&["limit.unavailable"]) },
        hears_all: true,
    };
    row.suffers(faults, async |_| judged(gw.get("/closed").send().await, b"ok")).await;
    gw.stop().await;
}
