//! Rate limits over real sockets: the law, the order, what clients are told, and what a reload leaves alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::support::*;

/// `n` seconds of a header, as a number.
fn seconds(response: &Response, name: &str) -> u64 {
    response.header(name).unwrap_or_else(|| panic!("no {name}")).parse().unwrap()
}

const TWO_A_MINUTE: &str = "[rate_limits.two]\nkey = \"ip\"\nlimits = [\"2/min\"]\n";

/// What every answer says: proxied, local, refused; in place of what a server says of limits of its own.
#[tokio::test]
async fn every_answer_tells_how_the_limit_stands() {
    let app =
        upstream().otherwise(Answer::text("ok").header("RateLimit", "\"theirs\";r=1;t=1")).start().await;
    let gw = in_front_of(&app, "")
        .and(TWO_A_MINUTE)
        .and("message = \"Too many requests, please try again later.\"\n")
        .and("[defaults]\nrate_limits = [\"two\"]\n")
        .start()
        .await;
    let first = gw.get("/").await.expect_status(200);
    assert_eq!(first.header("ratelimit-policy"), Some("\"two\";q=2;w=60"));
    assert_eq!(first.header("ratelimit"), Some("\"two\";r=1;t=30"));
    assert_eq!(first.header("retry-after"), None);
    assert_eq!(gw.get("/").await.expect_status(200).header("ratelimit"), Some("\"two\";r=0;t=60"));
    let refused = gw.get("/").await.expect_problem(429, "limit.exceeded");
    let retry_after = seconds(&refused, "retry-after");
    assert!((29..=30).contains(&retry_after), "{retry_after}");
    assert_eq!(refused.header("ratelimit"), Some(&*format!("\"two\";r=0;t={retry_after}")));
    let problem = refused.json();
    assert_eq!(problem["detail"], "Too many requests, please try again later.");
    assert_eq!(problem["type"], "https://iana.org/assignments/http-problem-types#quota-exceeded");
    assert_eq!(problem["violated-policies"], serde_json::json!(["two"]));
    assert_eq!(problem["retry_after"], retry_after);
    assert_eq!(app.requests(), 2);
    gw.metric_is("edgeward_rate_limited_total", &["policy=\"two\""], 1.0).await;
    gw.metric_is("edgeward_http_requests_rejected_total", &["limit.exceeded"], 1.0).await;
    assert!(gw.logged(" 429 ").await.contains("GET / "));
}

/// Also where no route matches, which `[defaults]` govern; but in no redirect.
#[tokio::test]
async fn what_no_route_takes_is_counted_and_redirects_say_nothing() {
    let gw = gateway(TWO_A_MINUTE)
        .and("[defaults]\nrate_limits = [\"two\"]\n")
        .and("[[routes]]\npath = \"/moved\"\nredirect = { to = \"/new\" }\n")
        .start()
        .await;
    assert_eq!(gw.get("/moved").await.expect_status(308).header("ratelimit"), None);
    let absent = gw.get("/absent").await.expect_problem(404, "route.not_found");
    assert!(absent.header("ratelimit").unwrap().starts_with("\"two\";r=0;t="));
    gw.get("/absent").await.expect_problem(429, "limit.exceeded");
}

/// Express Gateway's: with one request a second, two without credentials at once are one 401 and one 429.
#[tokio::test]
async fn limits_by_address_come_before_authentication() {
    let authority = Authority::new();
    let gw = gateway("[rate_limits.one]\nkey = \"ip\"\nlimits = [\"1/s\"]\n")
        .and("[rate_limits.own]\nkey = \"subject\"\nlimits = [\"1/h\"]\n")
        .and("[[routes]]\npath = \"/*\"\nrespond = { text = \"in\" }\nauth = { with = [\"mtls\"] }\nrate_limits = [\"one\", \"own\"]\n")
        .identity("site", &authority.server(&["localhost"]))
        .file("clients.pem", &authority.pem)
        .listener("main", "127.0.0.1:0")
        .and("client_auth = { ca = \"clients.pem\", mode = \"optional\" }")
        .and("[[listeners.certificates]]\ncert = \"site.pem\"\nkey = \"site-key.pem\"")
        .start()
        .await;
    let client = Client::new(gw.address()).tls(&authority.client_config(&[], None), "localhost");
    let connection = client.connect().await;
    let (one, two) = tokio::join!(async { client.get("/").await }, async { connection.get("/").await });
    let mut statuses = [one.status, two.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [401, 429]);
    // What was refused for want of a certificate used up nothing of the other limit.
    let refused = [&one, &two].into_iter().find(|answer| answer.status == 401).unwrap();
    assert!(!refused.header("ratelimit-policy").unwrap().contains("own"));
}

/// Kong's second and hour, in its own words.
#[tokio::test]
async fn several_windows_hold_together() {
    let gw = gateway(
        "[rate_limits.kong]\nkey = \"ip\"\nlimits = [\"5/s\", \"7/h\"]\nheaders = [\"kong\", \"legacy\"]\n",
    )
    .and("[[routes]]\npath = \"/*\"\nrespond = { text = \"ok\" }\nrate_limits = [\"kong\"]\n")
    .start()
    .await;
    let began = Instant::now();
    let mut statuses = Vec::new();
    for _ in 0..6 {
        statuses.push(gw.get("/").await);
    }
    if began.elapsed() < Duration::from_millis(150) {
        assert_eq!(statuses[5].status, 429);
        assert_eq!(statuses[5].header("x-ratelimit-remaining-second"), Some("0"));
    }
    assert_eq!(statuses[0].header("x-ratelimit-limit-second"), Some("5"));
    assert_eq!(statuses[0].header("x-ratelimit-limit-hour"), Some("7"));
    assert_eq!(statuses[0].header("x-ratelimit-remaining-hour"), Some("6"));
    assert_eq!(statuses[0].header("ratelimit-limit"), Some("5"));
    let reset = seconds(&statuses[0], "x-ratelimit-reset");
    assert!(reset > 1_700_000_000, "seconds since 1970: {reset}");
    // The hour holds what the seconds would let through.
    let refused = eventually("the hour to be used up", async || {
        let answer = gw.get("/").await;
        let violated = (answer.status == 429).then(|| answer.json()["violated-policies"].clone());
        (violated == Some(serde_json::json!(["kong/h"]))).then_some(answer)
    })
    .await;
    assert!(seconds(&refused, "retry-after") > 3000);
    assert_eq!(refused.header("x-ratelimit-remaining-hour"), Some("0"));
}

/// 64 clients as fast as they can against 100 a second and a burst of 20: what passes is within one of the law.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_clients_are_held_to_the_law() {
    let gw = gateway("[rate_limits.all]\nkey = \"ip\"\nlimits = [\"100/s\"]\nburst = 20\n")
        .and("[[routes]]\npath = \"/*\"\nrespond = { text = \"ok\" }\nrate_limits = [\"all\"]\naccess_log = false\n")
        .start()
        .await;
    let (passed, asked) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut connections = Vec::new();
    for _ in 0..64 {
        connections.push(gw.client().connect().await);
    }
    let began = Instant::now();
    let clients = connections.into_iter().map(|connection| {
        let (passed, asked) = (passed.clone(), asked.clone());
        tokio::spawn(async move {
            while began.elapsed() < Duration::from_secs(3) {
                let answer = connection.get("/").await;
                asked.fetch_add(1, Ordering::Relaxed);
                passed.fetch_add(u64::from(answer.status == 200), Ordering::Relaxed);
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.unwrap();
    }
    let (most, passed) = (began.elapsed(), passed.load(Ordering::Relaxed));
    let law = |time: Duration| 20 + u64::try_from(time.as_millis()).unwrap() / 10;
    assert!(passed <= law(most), "{passed} in {most:?}");
    // Nobody stopped asking before three seconds were over.
    assert!(passed + 1 >= law(Duration::from_secs(3)), "{passed} in {most:?}");
    assert!(asked.load(Ordering::Relaxed) > passed, "{passed} of {asked:?}");
}

/// In flight: the third is refused while two are under way, whichever way they end.
#[tokio::test]
async fn requests_under_way_are_limited_and_given_back() {
    let gate = Gate::new();
    let app =
        upstream().on("/slow", gate.then(Answer::text("late"))).otherwise(Answer::text("ok")).start().await;
    let gw = in_front_of(&app, "")
        .and("[rate_limits.two]\nkey = \"route\"\nconcurrent = 2\n")
        .and("[defaults]\nrate_limits = [\"two\"]\n")
        .start()
        .await;
    let waiting = tokio::spawn(gw.get("/slow").into_future());
    let leaving = tokio::spawn(gw.get("/slow").into_future());
    gate.arrived(2).await;
    let refused = gw.get("/").await.expect_problem(429, "limit.concurrency_exceeded");
    assert_eq!(refused.header("ratelimit-policy"), Some("\"two\";q=2;qu=\"concurrent-requests\""));
    assert_eq!(refused.header("ratelimit"), Some("\"two\";r=0"));
    assert_eq!(refused.header("retry-after"), Some("1"));
    // A client that leaves gives its place back.
    leaving.abort();
    let passed = eventually("a place", async || {
        let answer = gw.get("/").await;
        (answer.status == 200).then_some(answer)
    })
    .await;
    assert_eq!(passed.header("ratelimit"), Some("\"two\";r=0"));
    gate.open();
    waiting.await.unwrap().expect_status(200);
    eventually("both places", async || {
        (gw.get("/").await.header("ratelimit") == Some("\"two\";r=1")).then_some(())
    })
    .await;
}

/// With a queue, who comes too early goes on when his place is there, and is not refused.
#[tokio::test]
async fn a_queue_delays_before_it_refuses() {
    let gw = gateway("[rate_limits.slow]\nkey = \"global\"\nlimits = [\"10/s\"]\nburst = 1\nqueue = \"300ms\"\nstatus = 503\n")
        .and("[[routes]]\npath = \"/*\"\nrespond = { text = \"ok\" }\nrate_limits = [\"slow\"]\n")
        .start()
        .await;
    let began = Instant::now();
    let requests: Vec<_> = (0..12).map(|_| tokio::spawn(gw.get("/").into_future())).collect();
    let (mut passed, mut refused) = (0, None);
    for request in requests {
        let answer = request.await.unwrap();
        if answer.status == 200 { passed += 1 } else { refused = Some(answer) }
    }
    let took = began.elapsed();
    // One at once, and one for each tenth of a second since.
    let most = 1 + u128::from(u32::try_from(took.as_millis() / 100).unwrap());
    assert!(passed >= 4 && passed <= most, "{passed} in {took:?}");
    let refused = refused.expect("not all of them").expect_problem(503, "limit.exceeded");
    let kind = refused.json()["type"].as_str().unwrap().to_owned();
    assert!(kind.ends_with("#temporary-reduced-capacity"), "{kind}");
}

/// Who would wait longer than his request may take is refused at once.
#[tokio::test]
async fn nobody_waits_for_a_limit_past_his_deadline() {
    let gw = gateway("[rate_limits.slow]\nkey = \"global\"\nlimits = [\"6/min\"]\nburst = 1\nqueue = \"10s\"\n")
        .and("[[routes]]\npath = \"/*\"\nrespond = { text = \"ok\" }\nrate_limits = [\"slow\"]\ntimeout = \"2s\"\n")
        .start()
        .await;
    gw.get("/").await.expect_status(200);
    let began = Instant::now();
    let refused = gw.get("/").await.expect_problem(429, "limit.exceeded");
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert!(refused.header("retry-after").is_some());
}

/// Counters go on over a reload, clamped to what the new one allows.
#[tokio::test]
async fn a_reload_keeps_counters() {
    let config = "[rate_limits.r]\nkey = \"ip\"\nlimits = [\"5/h\"]\n\
        [[routes]]\npath = \"/*\"\nrespond = { text = \"one\" }\nrate_limits = [\"r\"]\n";
    let gw = gateway(config).and("[server]\ncontrol_socket = \"control.sock\"\n").start().await;
    for _ in 0..5 {
        gw.get("/").await.expect_status(200);
    }
    gw.rewrite("edgeward.toml", |text| text.replace("\"one\"", "\"two\"").replace("5/h", "6/h"));
    let ran = gw.order("reload").await;
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    assert!(ran.stdout.contains("altered rate limit r"), "{}", ran.stdout);
    assert_eq!(gw.get("/").await.expect_status(200).text(), "two");
    gw.get("/").await.expect_problem(429, "limit.exceeded");
    // Another window is another counter, but the hour goes on.
    gw.rewrite("edgeward.toml", |text| text.replace("[\"6/h\"]", "[\"3/s\", \"7/h\"]"));
    assert_eq!(gw.order("reload").await.status, 0);
    let last = gw.get("/").await.expect_status(200);
    assert!(last.header("ratelimit").unwrap().contains("\"r/h\";r=0;"), "{:?}", last.header("ratelimit"));
    assert_eq!(gw.get("/").await.expect_status(429).json()["violated-policies"], serde_json::json!(["r/h"]));
}

/// Only what fails counts: a client that knows what it is doing may go on.
#[tokio::test]
async fn successes_can_be_skipped() {
    let app = upstream().on("/fails", Answer::status(401)).otherwise(Answer::text("ok")).start().await;
    let gw = in_front_of(&app, "")
        .and("[rate_limits.tries]\nkey = \"ip\"\nlimits = [\"2/h\"]\nskip_successful = true\n")
        .and("[defaults]\nrate_limits = [\"tries\"]\n")
        .start()
        .await;
    let connection = gw.client().connect().await;
    for _ in 0..5 {
        connection.get("/").await.expect_status(200);
    }
    connection.get("/fails").await.expect_status(401);
    connection.get("/fails").await.expect_status(401);
    connection.get("/fails").await.expect_problem(429, "limit.exceeded");
    connection.get("/").await.expect_problem(429, "limit.exceeded");
}

/// Headers count what they name; whoever has none counts by the address; networks that are allowed do not count.
#[tokio::test]
async fn keys_and_exemptions() {
    // More than a mebibyte, of which the last line counts like the first.
    let others = (0..90_000_u32).map(|n| format!("198.{}.{}.{}\n", 18 + n / 65_536, n / 256 % 256, n % 256));
    let friends = format!("# ours\n{}203.0.113.0/24\n", others.collect::<String>());
    let gw = gateway("[server]\ntrusted_proxies = [\"127.0.0.1\"]\n")
        .and("[rate_limits.tenants]\nkey = \"header:X-Tenant\"\nlimits = [\"1/h\"]\nallow = [\"file:friends.txt\"]\n")
        .and("[[routes]]\npath = \"/*\"\nrespond = { text = \"ok\" }\nrate_limits = [\"tenants\"]\n")
        .file("friends.txt", &friends)
        .start()
        .await;
    let from = async |client: &str, tenant: &str| {
        let request = gw.get("/").header("X-Forwarded-For", client);
        let request = if tenant.is_empty() { request } else { request.header("X-Tenant", tenant) };
        request.await.status
    };
    assert_eq!(from("192.0.2.1", "a").await, 200);
    assert_eq!(from("192.0.2.2", "a").await, 429);
    assert_eq!(from("192.0.2.2", "b").await, 200);
    assert_eq!(from("192.0.2.2", "").await, 200);
    assert_eq!(from("192.0.2.2", "").await, 429);
    assert_eq!(from("192.0.2.3", "").await, 200);
    for _ in 0..3 {
        assert_eq!(from("203.0.113.9", "a").await, 200);
    }
}

/// An example we ship, with free ports and `app` behind it.
async fn example(name: &str, app: &Upstream) -> Gateway {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/examples").join(name);
    let text = std::fs::read_to_string(path).unwrap();
    let app = app.address().to_string();
    let text = text.replace("127.0.0.1:8080", "127.0.0.1:0").replace("127.0.0.1:8000", "127.0.0.1:0");
    gateway(&text.replace("127.0.0.1:3001", &app).replace("127.0.0.1:3000", &app)).start().await
}

/// The Express.js gateway: 100 a minute, the standard headers, the text, and a page that can read the refusal.
#[tokio::test]
async fn the_example_of_express_holds() {
    let app = upstream().otherwise(Answer::text("users")).start().await;
    let gw = example("express.toml", &app).await;
    let connection = gw.client().connect().await;
    let first = connection.get("/api/users/7").await.expect_status(200);
    assert_eq!(first.header("ratelimit-policy"), Some("100;w=60"));
    assert_eq!(first.header("ratelimit-limit"), Some("100"));
    assert_eq!(first.header("ratelimit-remaining"), Some("99"));
    assert_eq!(seconds(&first, "ratelimit-reset"), 1);
    assert_eq!(first.header("x-ratelimit-limit"), None);
    assert_eq!(app.last().uri.path(), "/api/v1/users/7");
    let origin = "https://app.example.com";
    let refused = eventually("the limit", async || {
        let answer = connection.get("/api/users/7").header("Origin", origin).await;
        (answer.status == 429).then_some(answer)
    })
    .await;
    assert!(app.requests() >= 100, "{}", app.requests());
    let problem = refused.json();
    assert_eq!(problem["detail"], "Too many requests from this address, please try again after a minute.");
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(refused.header("access-control-allow-origin"), Some(origin));
    assert!(refused.header("access-control-expose-headers").unwrap().contains("Retry-After"));
}

/// Kong's second and hour, with its headers.
#[tokio::test]
async fn the_example_of_kong_holds() {
    let app = upstream().otherwise(Answer::text("ok")).start().await;
    let gw = example("kong.toml", &app).await;
    let first = gw.get("/api/x").await.expect_status(200);
    for (name, value) in [
        ("x-ratelimit-limit-second", "5"),
        ("x-ratelimit-remaining-second", "4"),
        ("x-ratelimit-limit-hour", "10000"),
        ("x-ratelimit-remaining-hour", "9999"),
        ("ratelimit-limit", "5"),
        ("ratelimit-remaining", "4"),
        ("ratelimit-reset", "1"),
    ] {
        assert_eq!(first.header(name), Some(value), "{name}");
    }
    let preflight = gw
        .request("OPTIONS", "/api/x")
        .header("Origin", "https://app.example.com")
        .header("Access-Control-Request-Method", "POST")
        .await
        .expect_status(204);
    assert_eq!(preflight.header("access-control-allow-headers"), Some("Accept, Authorization, Content-Type"));
}

/// A server that may have so many requests at once gets no more, whoever asks; its fallback answers instead.
#[tokio::test]
async fn an_upstream_has_a_bound_of_its_own() {
    let gate = Gate::new();
    let app =
        upstream().on("/slow", gate.then(Answer::text("late"))).otherwise(Answer::text("ok")).start().await;
    let gw = in_front_of(&app, "max_requests = 2\n")
        .and("[upstreams.kind]\nservers = [\"{app}\"]\nmax_requests = 1\nfallback = { status = 200, text = \"instead\" }\n")
        .and("[[routes]]\npath = \"/kind/*\"\nupstream = \"kind\"\nrewrite = { prefix = \"/kind\", to = \"/\" }\n")
        .with("app", &app)
        .start()
        .await;
    let waiting: Vec<_> = (0..2).map(|_| tokio::spawn(gw.get("/slow").into_future())).collect();
    gate.arrived(2).await;
    let refused = gw.get("/").await.expect_problem(503, "upstream.full");
    assert_eq!(refused.header("retry-after"), Some("1"));
    let kind = tokio::spawn(gw.get("/kind/slow").into_future());
    gate.arrived(3).await;
    assert_eq!(gw.get("/kind/").await.expect_status(200).text(), "instead");
    gate.open();
    for request in waiting {
        request.await.unwrap().expect_status(200);
    }
    kind.await.unwrap().expect_status(200);
    eventually("a place", async || (gw.get("/").await.status == 200).then_some(())).await;
    eventually("a place", async || (gw.get("/kind/").await.text() == "ok").then_some(())).await;
}

/// `explain` says which limits a request meets, each in its place, and where they are written.
#[tokio::test]
async fn explain_shows_the_limits_that_a_request_meets() {
    let ran = gateway("[rate_limits.address]\nkey = \"ip\"\nlimits = [\"5/s\", \"100/h\"]\nburst = 9\n")
        .and("[rate_limits.own]\nkey = [\"subject\", \"route\"]\nconcurrent = 3\n")
        .and("[[routes]]\npath = \"/a\"\nrespond = { text = \"in\" }\nrate_limits = [\"own\", \"address\"]\n")
        .and("[routes.cors]\norigins = [\"https://app.example.com\"]\n")
        .command(&["explain", "-c", "edgeward.toml", "GET", "http://localhost/a"])
        .await;
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    let order = ran.stdout.split("policies, in the order they run").nth(1).unwrap();
    let address = order.find("address: 5/s and 100/h by ip, 9 after a rest  (edgeward.toml:1)").unwrap();
    let own = order.find("own: 3 at once by subject + route  (edgeward.toml:6)").unwrap();
    let cors = order.find("cors.origins").unwrap();
    assert!(cors < address && address < own, "{}", ran.stdout);
}

/// What a request costs, an expression says; one that has no value for it counts for as much as ever passes.
#[tokio::test]
async fn an_expression_says_what_a_request_costs() {
    let gw = gateway("[rate_limits.weighed]\nkey = \"ip\"\nlimits = [\"12/h\"]\n")
        .and("cost = \"request.path.startsWith('/export') ? 10 : 1\"\n")
        .and("[rate_limits.told]\nkey = \"global\"\nlimits = [\"5/h\"]\ncost = \"int(header['x-cost'])\"\n")
        .and("[[routes]]\npath = \"/told\"\nrespond = { text = \"ok\" }\nrate_limits = [\"told\"]\n")
        .and("[[routes]]\npath = \"/*\"\nrespond = { text = \"ok\" }\nrate_limits = [\"weighed\"]\n")
        .start()
        .await;
    let left = |answer: &Response| {
        let field = answer.header("ratelimit").unwrap().to_owned();
        field.split("r=").nth(1).unwrap().split(';').next().unwrap().parse::<u64>().unwrap()
    };
    assert_eq!(left(&gw.get("/export/all").await.expect_status(200)), 2);
    assert_eq!(left(&gw.get("/").await.expect_status(200)), 1);
    gw.get("/export/all").await.expect_problem(429, "limit.exceeded");
    assert_eq!(left(&gw.get("/").await.expect_status(200)), 0);
    // Nothing is counted for nothing; what cannot be worked out counts for the whole burst.
    let told = async |cost: &str| gw.get("/told").header("X-Cost", cost).await;
    assert_eq!(told("0").await.expect_status(200).header("ratelimit"), None);
    assert_eq!(left(&told("1").await.expect_status(200)), 4);
    for cost in ["-1", "many", "6", "99999999999999999999"] {
        told(cost).await.expect_problem(429, "limit.exceeded");
    }
    gw.get("/told").await.expect_problem(429, "limit.exceeded");
    assert_eq!(left(&told("4").await.expect_status(200)), 0);
    gw.metric_is("edgeward_rate_limit_cost_failures_total", &["policy=\"told\""], 4.0).await;
    gw.metric_is("edgeward_rate_limit_requests_total", &["policy=\"told\"", "outcome=\"passed\""], 2.0).await;
    gw.metric_is("edgeward_rate_limit_requests_total", &["policy=\"told\"", "outcome=\"limited\""], 5.0)
        .await;
}

/// `explain` asks the running process what is left, for whom and for how much, and counts nothing by that.
#[tokio::test]
async fn explain_says_what_is_left() {
    let mut gw = gateway("[server]\ncontrol_socket = \"run/control.sock\"\n")
        .and("[rate_limits.address]\nkey = \"ip\"\nlimits = [\"5/h\"]\nallow = [\"192.0.2.9\"]\n")
        .and("[rate_limits.tenants]\nkey = \"header:X-Tenant\"\nlimits = [\"2/min\", \"9/h\"]\nconcurrent = 3\n")
        .and("cost = \"request.method == 'POST' ? 2 : 1\"\n")
        .and("[[routes]]\npath = \"/*\"\nrespond = { text = \"ok\" }\nrate_limits = [\"address\", \"tenants\"]\n")
        .start()
        .await;
    gw.get("/").header("X-Tenant", "acme").await.expect_status(200);
    gw.get("/").header("X-Tenant", "acme").await.expect_status(200);
    let url = "http://localhost/";
    for _ in 0..2 {
        let told = gw.ran(&["explain", "-H", "X-Tenant: acme", "POST", url]).await.stdout;
        for part in [
            "counts 127.0.0.1\n",
            "left: 3 of 5 (5/h; all in ",
            "counts its header:x-tenant, and this request for 2\n",
            "left: 0 of 2 (2/min; all in ",
            "7 of 9 (9/h; all in ",
            "3 of 3 at once",
        ] {
            assert!(told.contains(part), "{part}: {told}");
        }
        assert!(!told.contains("acme"), "{told}");
    }
    let told = gw.ran(&["explain", "--client", "192.0.2.7", "GET", url]).await.stdout;
    assert!(told.contains("counts 192.0.2.7, having no header:x-tenant\n"), "{told}");
    assert!(told.contains("left: 5 of 5 (5/h)\n") && told.contains("left: 2 of 2 (2/min), 9 of 9"), "{told}");
    let told = gw.ran(&["explain", "--client", "192.0.2.9", "GET", url]).await.stdout;
    assert!(told.contains("does not count this one"), "{told}");
    // Written, and not in force yet.
    gw.rewrite("edgeward.toml", |text| {
        text.replace("\"ip\"", "[\"ip\", \"route\"]").replace("tenants", "renters")
    });
    let told = gw.ran(&["explain", "GET", url]).await.stdout;
    assert!(told.contains("the running process counts it by something else"), "{told}");
    assert!(told.contains("the running process has no such limit"), "{told}");
    assert_eq!(gw.order("stop").await.status, 0);
    gw.exit().await;
    let ran = gw.ran(&["explain", "GET", url]).await;
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    assert!(ran.stdout.contains("what is left is not known: no process answers on "), "{}", ran.stdout);
}

/// The Express.js gateway's second limiter: ten logins a minute, whoever they are for; others go on.
#[tokio::test]
async fn the_logins_of_the_example_of_express_are_limited() {
    let app = upstream().otherwise(Answer::text("ok")).start().await;
    let gw = example("express.toml", &app).await;
    let connection = gw.client().connect().await;
    let login = async || connection.request("POST", "/api/auth/login").body("{}").await;
    let first = login().await.expect_status(200);
    assert_eq!(app.last().uri.path(), "/api/v1/auth/login");
    assert_eq!(first.header("ratelimit-remaining"), Some("9"));
    let refused = eventually("the limit", async || {
        let answer = login().await;
        (answer.status == 429).then_some(answer)
    })
    .await;
    assert!((10..=11).contains(&app.requests()), "{}", app.requests());
    assert_eq!(refused.json()["detail"], "Too many attempts to log in, please try again after a minute.");
    assert_eq!(refused.json()["violated-policies"], serde_json::json!(["logins"]));
    connection.get("/api/users/7").await.expect_status(200);
}
