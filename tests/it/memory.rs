//! Memory: what an idle connection costs.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::support::*;

const KIB: u64 = 1024;

/// How many connections this machine lets us open, up to `wanted`.
fn possible(wanted: u64) -> u64 {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
    limit.maximum.map_or(wanted, |maximum| wanted.min(maximum.saturating_sub(500)))
}

/// 10,000 idle keep-alive connections in less than 200 MiB.
#[tokio::test]
async fn idle_connections_cost_less_than_20_kib() {
    let gw = gateway("[[routes]]\npath = \"/*\"\nrespond = { status = 200, text = \"ok\" }\n[log.access]\noutput = \"off\"\n")
        .start()
        .await;
    let count = possible(10_000);
    let before = gw.resident_bytes();
    let mut idle = Vec::new();
    for _ in 0..count {
        let mut raw = gw.raw().await;
        raw.get("/").await.expect_status(200);
        idle.push(raw);
    }
    let each = gw.resident_bytes().saturating_sub(before) / count;
    assert!(each < 20 * KIB, "{count} idle connections take {each} bytes each");
    assert!(gw.resident_bytes() < 200 * KIB * KIB, "{} MiB in all", gw.resident_bytes() / KIB / KIB);
    idle.last_mut().unwrap().get("/").await.expect_status(200);
}

/// With TLS: 10,000 in less than 400 MiB. Fewer here, because each costs a handshake on both sides.
#[tokio::test]
async fn idle_tls_connections_cost_less_than_40_kib() {
    let authority = Authority::new();
    let gw = gateway("[[routes]]\npath = \"/*\"\nrespond = { status = 200, text = \"ok\" }\n[log.access]\noutput = \"off\"\n")
        .identity("site", &authority.server(&["localhost"]))
        .tls_listener("main", &["site"])
        .start()
        .await;
    let client = Client::new(gw.address()).tls(&authority.client_config(&[], None), "localhost");
    client.get("/").await.expect_status(200);
    let count = possible(1_000);
    let before = gw.resident_bytes();
    let mut idle = Vec::new();
    for _ in 0..count {
        let connection = client.connect().await;
        connection.get("/").await.expect_status(200);
        idle.push(connection);
    }
    let each = gw.resident_bytes().saturating_sub(before) / count;
    assert!(each < 40 * KIB, "{count} idle TLS connections take {each} bytes each");
}
