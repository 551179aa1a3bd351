//! Which server gets a request.

use std::collections::BTreeMap;

use crate::support::*;

/// Servers named a, b, c, … and a gateway in front of them. `{0}`, `{1}` … in `servers` are their addresses.
async fn farm(count: usize, servers: &str, settings: &str) -> (Vec<Upstream>, Gateway) {
    let mut farm = Vec::new();
    for index in 0..count {
        farm.push(upstream().named(&char::from(b'a' + index as u8).to_string()).start().await);
    }
    let mut builder = gateway(&format!(
        "[upstreams.app]\nservers = [{servers}]\n{settings}\n[[routes]]\npath = \"/*\"\nupstream = \"app\"\n"
    ));
    for (index, server) in farm.iter().enumerate() {
        builder = builder.with(&index.to_string(), server);
    }
    (farm, builder.start().await)
}

/// The servers that answer so many requests, in order.
async fn order(gw: &Gateway, requests: usize) -> String {
    let connection = gw.client().connect().await;
    let mut order = String::new();
    for _ in 0..requests {
        order.push_str(connection.get("/").await.expect_status(200).header("x-server").unwrap());
    }
    order
}

fn counts(order: &str) -> BTreeMap<char, usize> {
    let mut counts = BTreeMap::new();
    for server in order.chars() {
        *counts.entry(server).or_default() += 1;
    }
    counts
}

#[tokio::test]
async fn round_robin_takes_turns() {
    let (_farm, gw) = farm(3, r#""{0}", "{1}", "{2}""#, "").await;
    let order = order(&gw, 30).await;
    assert_eq!(counts(&order), BTreeMap::from([('a', 10), ('b', 10), ('c', 10)]));
    for turn in order.as_bytes().windows(3) {
        assert!(turn[0] != turn[1] && turn[1] != turn[2] && turn[0] != turn[2], "{order}");
    }
}

/// Smooth: a weight of 5 does not mean five in a row.
#[tokio::test]
async fn weights_are_kept_smoothly() {
    let servers = r#"{ address = "{0}", weight = 5 }, "{1}", "{2}""#;
    let (_farm, gw) = farm(3, servers, "").await;
    let order = order(&gw, 70).await;
    assert_eq!(counts(&order), BTreeMap::from([('a', 50), ('b', 10), ('c', 10)]));
    assert!(!order.contains("aaaaaa"), "{order}");
    for turn in order.as_bytes().chunks(7) {
        assert_eq!(turn.iter().filter(|server| **server == b'a').count(), 5, "{order}");
    }
}

#[tokio::test]
async fn least_connections_avoids_the_busy() {
    let (farm, gw) = farm(2, r#""{0}", "{1}""#, "balance = \"least_connections\"").await;
    let gate = Gate::new();
    for server in &farm {
        server.on("/held", gate.then(Answer::text("late")));
    }
    let held: Vec<_> =
        (0..3).map(|_| tokio::spawn(std::future::IntoFuture::into_future(gw.get("/held")))).collect();
    gate.arrived(3).await;
    // Two are held by one server and one by the other: the next goes where fewer are.
    let (busy, free) = if farm[0].requests() > farm[1].requests() { ("a", "b") } else { ("b", "a") };
    assert_eq!(order(&gw, 5).await, free.repeat(5), "{busy} holds two");
    gate.open();
    for request in held {
        request.await.unwrap().expect_status(200);
    }
}

#[tokio::test]
async fn a_hash_keeps_a_key_on_its_server() {
    let (farm, gw) = farm(3, r#""{0}", "{1}", "{2}""#, "balance = { hash = \"header:x-user\" }").await;
    let mut home = BTreeMap::new();
    for round in 0..3 {
        for user in 0..60 {
            let answer = gw.get("/").header("x-user", &format!("user-{user}")).await.expect_status(200);
            let server = answer.header("x-server").unwrap().to_owned();
            if round == 0 {
                home.insert(user, server);
            } else {
                assert_eq!(home[&user], server, "user-{user} moved");
            }
        }
    }
    for server in &farm {
        assert!(server.requests() >= 9, "one of three servers got {} of 180", server.requests());
    }
    let (_farm, gw) = self::farm(3, r#""{0}", "{1}", "{2}""#, "balance = { hash = \"ip\" }").await;
    assert_eq!(counts(&order(&gw, 12).await).len(), 1);
}

/// Consistent: the loss of one server moves only its own keys.
#[tokio::test]
async fn losing_a_server_moves_only_its_keys() {
    let settings = "balance = { hash = \"header:x-user\" }\n\
                    [upstreams.app.health_check]\ninterval = \"100ms\"\nunhealthy_after = 1\n";
    let (mut farm, gw) = farm(3, r#""{0}", "{1}", "{2}""#, settings).await;
    let mut before = Vec::new();
    for user in 0..60 {
        let answer = gw.get("/").header("x-user", &user.to_string()).await;
        before.push(answer.header("x-server").unwrap().to_owned());
    }
    farm[2].stop().await;
    gw.metric_is("edgeward_upstream_backend_up", &[&farm[2].address().to_string()], 0.0).await;
    for (user, server) in before.iter().enumerate().filter(|(_, server)| *server != "c") {
        let answer = gw.get("/").header("x-user", &user.to_string()).await.expect_status(200);
        assert_eq!(answer.header("x-server"), Some(server.as_str()), "user {user} moved");
    }
}

#[tokio::test]
async fn backups_serve_only_when_nobody_else_can() {
    let servers = r#""{0}", { address = "{1}", backup = true }"#;
    let check = "[upstreams.app.health_check]\ninterval = \"100ms\"\nunhealthy_after = 1\n";
    let (mut farm, gw) = farm(2, servers, check).await;
    assert_eq!(order(&gw, 5).await, "aaaaa");
    farm[0].stop().await;
    assert_eq!(order(&gw, 5).await, "bbbbb", "from the first request on");
    farm[0].restart().await;
    eventually("the primary to be used again", async || (order(&gw, 3).await == "aaa").then_some(())).await;
}
