//! Short of descriptors, of memory, of room on disk: the process sheds what it has no room for, says so, and recovers.

use std::net::TcpStream as Blocking;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

use crate::support::*;

const OK: &str = "[[routes]]\nname = \"ok\"\npath = \"/ok\"\nrespond = { status = 200, text = \"ok\" }\n";

/// Sets a soft limit of the running gateway; `None` takes it away.
fn limit(gw: &Gateway, resource: Resource, to: Option<u64>) {
    let pid = Pid::from_raw(i32::try_from(gw.pid()).unwrap()).unwrap();
    let maximum = getrlimit(resource).maximum;
    prlimit(Some(pid), resource, Rlimit { current: to.or(maximum), maximum }).unwrap();
}

/// Descriptors that the gateway has open.
fn descriptors(gw: &Gateway) -> u64 {
    std::fs::read_dir(format!("/proc/{}/fd", gw.pid())).unwrap().count() as u64
}

/// Processor time that the gateway has used, in ticks of 10 ms.
fn ticks(gw: &Gateway) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", gw.pid())).unwrap();
    let fields: Vec<_> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

async fn readiness(gw: &Gateway) -> (u16, String) {
    let answer = gw.admin().get("/readyz?verbose").await;
    (answer.status, answer.text())
}

/// New connections are told to come back later, what is open is served on, those that idle make room.
#[tokio::test]
async fn the_last_descriptors_are_for_telling_so() {
    let app = upstream().start().await;
    let limits = "[limits]\nconnections = 1000\nidle_timeout = \"1h\"\n";
    let mut gw = in_front_of(&app, "").and(OK).and(limits).under_limit("-n 128").start().await;
    let busy = gw.client().http2().connect().await;
    busy.get("/ok").await.expect_status(200);
    let (feed, fed) = Feed::new("text/plain");
    app.on("/fed", fed);
    let mut streaming = busy.get("/fed").stream().await.unwrap();

    // Idle ones until there is no more room: then they make some, those first that have idled longest.
    let mut idle = Vec::new();
    let shed = loop {
        let mut raw = gw.raw().await;
        raw.send("GET /ok HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        let answer = raw.response().await;
        if answer.status != 200 {
            break answer;
        }
        idle.push(raw);
        assert!(idle.len() < 128, "there are not so many descriptors");
    };
    assert_eq!((shed.header("retry-after"), shed.header("connection")), (Some("2"), Some("close")));
    shed.expect_problem(503, "gateway.overloaded");
    idle.first_mut().unwrap().closed().await;
    assert!(gw.logged("503").await.contains("/ok"));
    gw.metric_is("edgeward_pressure", &["resource=\"descriptors\""], 1.0).await;
    assert!(gw.metric("edgeward_requests_shed_total", &[]).await >= Some(1.0));
    let (status, report) = readiness(&gw).await;
    assert_eq!(status, 503);
    assert!(report.contains("[-] pressure: file descriptors are short\n"), "{report}");

    // What is open goes on.
    feed.send("a").await;
    assert_eq!(streaming.next().await.unwrap(), "a");
    busy.get("/ok").await.expect_status(200);
    // Whoever comes later finds room again, and so does the process.
    eventually("room", async || {
        let mut raw = gw.raw().await;
        raw.send("GET /ok HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        (raw.response().await.status == 200).then_some(())
    })
    .await;
    gw.metric_is("edgeward_pressure", &["resource=\"descriptors\""], 0.0).await;
    assert_eq!(readiness(&gw).await.0, 200);
    assert!(gw.is_running());
    drop(idle);
}

/// Not even one of the reserve is left: nothing spins, nothing is lost but time.
#[tokio::test]
async fn no_descriptor_at_all_is_waited_for() {
    let app = upstream().start().await;
    let limits = "[limits]\nconnections = 1000\nheader_timeout = \"1h\"\n";
    let mut gw = in_front_of(&app, "").and(OK).and(limits).under_limit("-n 96").start().await;
    // Half a head on each: none of them idles.
    let mut held = Vec::new();
    let full = async || (descriptors(&gw) >= 95).then_some(());
    for _ in 0..120 {
        let mut half = Blocking::connect(gw.address()).unwrap();
        std::io::Write::write_all(&mut half, b"GET /ok HTTP/1.1\r\n").unwrap();
        held.push(half);
    }
    eventually("all descriptors to be taken", full).await;
    let (before, began) = (ticks(&gw), Instant::now());
    let mut looks = tokio::time::interval(Duration::from_millis(100));
    while began.elapsed() < Duration::from_secs(2) {
        looks.tick().await;
    }
    let spent = ticks(&gw) - before;
    assert!(spent < 50, "{spent} ticks in two seconds: it spins");
    assert!(gw.is_running());
    let said = gw.stderr().matches("cannot accept connections").count();
    assert!(said <= 2, "{said} lines");
    drop(held);
    eventually("connections to be served again", async || {
        let answer = gw.get("/ok").send().await.ok()?;
        (answer.status == 200).then_some(())
    })
    .await;
    assert!(gw.metric("edgeward_accept_failures_total", &[]).await >= Some(1.0));
    gw.metric_is("edgeward_pressure", &["resource=\"descriptors\""], 0.0).await;
}

/// A server that cannot be connected to for want of a descriptor has done nothing wrong.
#[tokio::test]
async fn a_connection_to_a_server_without_a_descriptor_is_not_its_failure() {
    let app = upstream().start().await;
    let settings = "retry = { attempts = 1 }\n[upstreams.app.circuit_breaker]\nfailures = 1\nopen_for = \"1h\"\n\
                    [upstreams.app.health_check]\ninterval = \"50ms\"\nunhealthy_after = 1\n";
    let gw = in_front_of(&app, settings).and(OK).start().await;
    let (one, two) = (gw.client().connect().await, gw.client().http2().connect().await);
    one.get("/ok").await.expect_status(200);
    two.get("/ok").await.expect_status(200);
    let admin = gw.admin().connect().await;
    admin.get("/livez").await.expect_status(200);
    // Below what it has: every new one fails.
    limit(&gw, Resource::Nofile, Some(8));
    for connection in [&one, &two] {
        let answer = connection.get("/x").await.expect_problem(503, "gateway.overloaded");
        assert_eq!(answer.header("retry-after"), Some("2"));
    }
    let page = admin.get("/readyz?verbose").await.text();
    assert!(page.contains("1 of 1 servers available"), "{page}");
    assert!(page.contains("[-] pressure: file descriptors are short"), "{page}");
    limit(&gw, Resource::Nofile, None);
    two.get("/x").await.expect_status(200);
    eventually("it to be over", async || (readiness(&gw).await.0 == 200).then_some(())).await;
}

/// The same over the connector of TLS and HTTP/2 servers.
#[tokio::test]
async fn nor_is_it_that_of_a_server_over_tls_or_http2() {
    let authority = Authority::new();
    let (secure, multiplexed) =
        (upstream().tls(&authority.server(&["localhost"])).start().await, upstream().start().await);
    let upstream = |name: &str, settings: &str| {
        format!(
            "[upstreams.{name}]\n{settings}\nretry = {{ attempts = 1 }}\n\
             [upstreams.{name}.circuit_breaker]\nfailures = 1\nopen_for = \"1h\"\n\
             [[routes]]\nname = \"{name}\"\npath = \"/{name}\"\nupstream = \"{name}\"\n"
        )
    };
    let (feed, fed) = Feed::new("text/plain");
    let app = self::upstream().on("/fed", fed).start().await;
    let gw = gateway(&upstream(
        "secure",
        "servers = [\"{secure}\"]\ntls = { ca = \"ca.pem\", sni = \"localhost\" }",
    ))
    .and(&upstream("multiplexed", "servers = [\"{multiplexed}\"]\nhttp2 = true"))
    .and("[upstreams.app]\nservers = [\"{app}\"]\n[[routes]]\npath = \"/fed\"\nupstream = \"app\"\n")
    .with("app", &app)
    .with("secure", &secure)
    .with("multiplexed", &multiplexed)
    .file("ca.pem", &authority.pem)
    .start()
    .await;
    // It never idles: what does is closed while descriptors are short.
    let busy = gw.client().http2().connect().await;
    let mut streaming = busy.get("/fed").stream().await.unwrap();
    limit(&gw, Resource::Nofile, Some(8));
    for path in ["/secure", "/multiplexed"] {
        let answer = busy.get(path).await.expect_problem(503, "gateway.overloaded");
        assert_eq!(answer.header("retry-after"), Some("2"), "{path}");
    }
    assert_eq!((secure.requests(), multiplexed.requests()), (0, 0));
    limit(&gw, Resource::Nofile, None);
    // At once: neither a breaker nor a pause stands between.
    for path in ["/secure", "/multiplexed"] {
        busy.get(path).await.expect_status(200);
    }
    feed.send("a").await;
    assert_eq!(streaming.next().await.unwrap(), "a");
    eventually("it to be over", async || (readiness(&gw).await.0 == 200).then_some(())).await;
}

/// Above the limit new requests are refused and idle connections closed; below it all is as before.
#[tokio::test]
async fn memory_above_its_limit_sheds_requests() {
    let app = upstream().start().await;
    let config = in_front_of(&app, "").and(OK).and(
        "[server]\ncontrol_socket = \"control.sock\"\n[limits]\nidle_timeout = \"1h\"\nmemory = \"1GiB\"\n",
    );
    let gw = config.start().await;
    let mut idle = gw.raw().await;
    idle.get("/ok").await.expect_status(200);
    let busy = gw.client().http2().connect().await;
    let (feed, fed) = Feed::new("text/plain");
    app.on("/fed", fed);
    let mut streaming = busy.get("/fed").stream().await.unwrap();

    gw.rewrite("edgeward.toml", |text| text.replace("memory = \"1GiB\"", "memory = \"1MiB\""));
    assert_eq!(gw.order("reload").await.status, 0);
    gw.metric_is("edgeward_pressure", &["resource=\"memory\""], 1.0).await;
    idle.closed().await;
    let shed = gw.get("/ok").await.expect_problem(503, "gateway.overloaded");
    assert_eq!((shed.header("retry-after"), shed.header("connection")), (Some("2"), Some("close")));
    let shed = gw.client().http2().get("/ok").await.expect_problem(503, "gateway.overloaded");
    assert_eq!(shed.json()["retry_after"], 2);
    let (status, report) = readiness(&gw).await;
    assert_eq!(status, 503);
    assert!(report.contains("[-] pressure: memory is short\n"), "{report}");
    assert!(gw.stderr().contains("memory is short"), "{}", gw.stderr());
    gw.metric_is("edgeward_requests_shed_total", &[], 2.0).await;
    gw.metric_is("edgeward_http_requests_rejected_total", &["gateway.overloaded"], 2.0).await;
    feed.send("a").await;
    assert_eq!(streaming.next().await.unwrap(), "a");

    gw.rewrite("edgeward.toml", |text| text.replace("memory = \"1MiB\"", "memory = \"0\""));
    assert_eq!(gw.order("reload").await.status, 0);
    gw.metric_is("edgeward_pressure", &["resource=\"memory\""], 0.0).await;
    gw.get("/ok").await.expect_status(200);
    assert_eq!(readiness(&gw).await.0, 200);
}

/// A log that may not grow costs lines, each counted, and no request; once there is room again they are written again.
#[tokio::test]
async fn a_full_disk_costs_lines_of_the_log_only() {
    let gw = gateway(OK).and("[log.access]\noutput = \"access.log\"\n").start().await;
    gw.get("/ok?first").await.expect_status(200);
    let log = gw.directory().join("access.log");
    let size = async || std::fs::metadata(&log).ok().map(|found| found.len()).filter(|size| *size > 0);
    let size = eventually("the first line", size).await;
    limit(&gw, Resource::Fsize, Some(size));
    for _ in 0..5 {
        gw.get("/ok?lost").await.expect_status(200);
    }
    gw.metric_is("edgeward_access_log_failed_total", &[], 5.0).await;
    limit(&gw, Resource::Fsize, None);
    eventually("the log to be written again", async || {
        gw.get("/ok?later").await.expect_status(200);
        std::fs::read_to_string(&log).unwrap().contains("/ok?later").then_some(())
    })
    .await;
    assert!(!std::fs::read_to_string(&log).unwrap().contains("/ok?lost"));
}

/// A store that may not grow keeps nothing; requests go on, and what they have used is kept once there is room.
#[tokio::test]
async fn a_full_disk_under_the_store_costs_no_request() {
    let gw = gateway(
        "[server]\ncontrol_socket = \"control.sock\"\n\
         [store]\nurl = \"sqlite:edgeward.db\"\n\
         [plans.all]\nquota = \"1000000/month\"\n\
         [consumers.partner]\nplan = \"all\"\napi_keys = [\"partner-0123456789abcdef\"]\n\
         [[routes]]\npath = \"/counted\"\nauth = { with = [\"api_key\"] }\nrespond = { text = \"ok\" }\n",
    )
    .start()
    .await;
    let ask = async || {
        let request = gw.get("/counted").header("x-api-key", "partner-0123456789abcdef");
        request.await.expect_status(200);
    };
    let used = async || {
        let told = gw.ran(&["consumer", "usage", "partner", "--json", "-c", "edgeward.toml"]).await;
        serde_json::from_str::<serde_json::Value>(&told.stdout).ok()?["used"].as_u64()
    };
    ask().await;
    eventually("the first to be kept", async || (used().await == Some(1)).then_some(())).await;
    limit(&gw, Resource::Fsize, Some(1));
    for _ in 0..20 {
        ask().await;
    }
    let told = async || gw.admin().get("/readyz?verbose").await.text().contains("[-] store").then_some(());
    eventually("the store's trouble to be told", told).await;
    ask().await;
    limit(&gw, Resource::Fsize, None);
    eventually("all of them to be kept", async || (used().await == Some(22)).then_some(())).await;
    gw.stop().await;
}
