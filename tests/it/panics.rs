//! A panic is a defect, and costs what it happens in: one request, one leg, one round of a background task. It is counted,
//! told with the request's id, and leaves every count right. The gateway is made to panic by `EDGEWARD_FAULT`, which only
//! builds for tests know (`base::fault`).

use bytes::Bytes;
use edgeward::identity::password::{Cost, hash};
use edgeward::store::{Store, StoreUrl, User};

use crate::support::*;

const LOG: &str = "[log.access]\nformat = '$request_uri $status $reason $request_id'\n";

/// What the gateway says of a request that ended with `id`, once it has been told everywhere.
async fn told(gw: &Gateway, path: &str, id: &str) {
    assert_eq!(gw.logged(path).await, format!("{path} 500 gateway.internal {id}"));
    let said = async || {
        let lines = gw.stderr();
        lines.lines().any(|line| line.contains(id) && line.contains("on purpose")).then_some(())
    };
    eventually("the process log to say it", said).await;
}

async fn panics(gw: &Gateway) -> f64 {
    gw.metric("edgeward_panics_total", &[]).await.unwrap()
}

/// Served as if nothing had been, once the request before has given its place at the limit back.
async fn is_served(connection: &Connection, path: &str) {
    let served = async || (connection.get(path).await.status == 200).then_some(());
    eventually(&format!("{path} to be served"), served).await;
}

/// Nothing is under way any more.
async fn nothing_held(gw: &Gateway) {
    gw.metric_is("edgeward_http_requests_in_flight", &[], 0.0).await;
    let free = async || {
        let report = gw.admin().get("/readyz?verbose").await.text();
        (report.contains(" 0 in flight") && !report.contains(" 1 in flight")).then_some(())
    };
    eventually("no server to have a request", free).await;
}

/// Before anything was sent: over HTTP/1 and HTTP/2, where the request is decided, and where the answer is passed on.
#[tokio::test]
async fn a_panic_costs_one_request() {
    for (fault, http2_server) in
        [("request=/boom", false), ("answer=broken", false), ("request=/boom", true), ("answer=broken", true)]
    {
        let app = upstream().start().await;
        let gw = gateway(&format!(
            "[upstreams.app]\nservers = [\"{{app}}\"]\nmax_requests = 1\nhttp2 = {http2_server}\n\
             retry = {{ attempts = 1 }}\n\
             [upstreams.app.circuit_breaker]\nfailures = 1\nopen_for = \"1h\"\n\
             [rate_limits.once]\nkey = \"route\"\nconcurrent = 1\n\
             [defaults]\nrate_limits = [\"once\"]\n\
             [[routes]]\nname = \"broken\"\npath = \"/boom\"\nupstream = \"app\"\n\
             [[routes]]\nname = \"fine\"\npath = \"/*\"\nupstream = \"app\"\n{LOG}"
        ))
        .with("app", &app)
        .env("EDGEWARD_FAULT", &format!("panic:{fault}"))
        .start()
        .await;
        let before = panics(&gw).await;
        for (number, client) in [gw.client(), gw.client().http2()].into_iter().enumerate() {
            let (innocent, victim) = (client.connect().await, client.connect().await);
            is_served(&innocent, "/fine").await;
            // The places at the limit and at the server are free a moment after the answer is there.
            let tries = std::cell::Cell::new(0);
            let asked = async || {
                tries.set(tries.get() + 1);
                let path = format!("/boom?{number}.{}", tries.get());
                let answer = victim.get(&path).await;
                (!matches!(answer.status, 429 | 503)).then_some((path, answer))
            };
            let (path, answer) = eventually("the limit and the server to have room", asked).await;
            let answer = answer.expect_problem(500, "gateway.internal");
            told(&gw, &path, answer.header("x-request-id").unwrap()).await;
            is_served(&innocent, "/fine").await;
            if answer.version == http::Version::HTTP_2 {
                is_served(&victim, "/fine").await;
            } else {
                assert_eq!(answer.header("connection"), Some("close"));
                victim.closed().await;
            }
            nothing_held(&gw).await;
            // Neither the place at the upstream nor that of the limit is lost, and nobody holds it against the server.
            is_served(&innocent, "/fine").await;
        }
        assert_eq!(panics(&gw).await, before + 2.0, "{fault}, {http2_server}");
        gw.metric_is("edgeward_http_requests_rejected_total", &["gateway.internal"], 2.0).await;
    }
}

/// A body that is still on its way does not take the answer along, and HEAD is answered without one.
#[tokio::test]
async fn who_is_still_sending_gets_the_answer_too() {
    let app = upstream().start().await;
    let gw = in_front_of(&app, "").env("EDGEWARD_FAULT", "panic:request=/boom").start().await;
    let mut raw = gw.raw().await;
    raw.send("POST /boom HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\nsome of it").await;
    raw.response_or_close().await.unwrap().expect_problem(500, "gateway.internal");
    raw.send("HEAD /boom HTTP/1.1\r\nHost: h\r\n\r\n").await;
    raw.closed().await;
    let mut raw = gw.raw().await;
    raw.send("HEAD /boom HTTP/1.1\r\nHost: h\r\n\r\n").await;
    raw.head_response().await.expect_status(500);
    raw.closed().await;
    // A second request that was sent ahead must not be answered by what is left of the first.
    let mut raw = gw.raw().await;
    raw.send("GET /boom HTTP/1.1\r\nHost: h\r\n\r\nGET /ahead HTTP/1.1\r\nHost: h\r\n\r\n").await;
    raw.response().await.expect_problem(500, "gateway.internal");
    raw.closed().await;
    assert!(app.seen().is_empty());
}

/// An answer that has begun is cut off: it must not look whole.
#[tokio::test]
async fn an_answer_that_has_begun_is_cut_off() {
    let app = upstream().start().await;
    let gw =
        in_front_of(&app, "").and(LOG).env("EDGEWARD_FAULT", "panic:more of the answer=all").start().await;
    for client in [gw.client(), gw.client().http2()] {
        let (feed, answer) = Feed::new("text/plain");
        app.on("/fed", answer);
        let connection = client.connect().await;
        let mut answer = connection.get("/fed").stream().await.unwrap();
        assert_eq!(answer.status, 200);
        feed.send("one").await;
        assert_eq!(answer.next().await.unwrap(), Bytes::from_static(b"one"));
        feed.send("two").await;
        assert!(answer.try_next().await.is_err(), "it looks whole");
        feed.abandoned().await;
        nothing_held(&gw).await;
        if answer.version == http::Version::HTTP_2 {
            connection.get("/fine").await.expect_status(200);
        }
        gw.get("/fine").await.expect_status(200);
    }
    let ended = |line: &String| line.starts_with("/fed 200 gateway.internal ");
    let both = async || (gw.access_log().into_iter().filter(ended).count() == 2).then_some(());
    eventually("the lines of both", both).await;
}

/// A leg that panics has failed; the others go on.
#[tokio::test]
async fn a_panic_in_a_leg_is_its_failure() {
    let app = upstream().otherwise(Answer::json(serde_json::json!({ "x": 1 }))).start().await;
    let leg = |name: &str, more: &str| {
        format!(
            "[[routes.aggregate.legs]]\nname = \"{name}\"\nupstream = \"app\"\npath = \"/{name}\"\ngroup = \"{name}\"\n{more}"
        )
    };
    let route =
        |name: &str| format!("[[routes]]\nname = \"{name}\"\npath = \"/{name}\"\n[routes.aggregate]\n");
    let gw = gateway(&format!(
        "[upstreams.app]\nservers = [\"{{app}}\"]\n{}{}{}{}{}{}",
        route("some"),
        leg("good", ""),
        leg("bad", "fallback = { x = 0 }\n"),
        route("none"),
        leg("bad", "required = true\n"),
        leg("good", ""),
    ))
    .with("app", &app)
    .env("EDGEWARD_FAULT", "panic:leg=bad")
    .start()
    .await;
    for client in [gw.client(), gw.client().http2()] {
        let connection = client.connect().await;
        let answer = connection.get("/some").await.expect_status(200);
        assert_eq!(answer.json(), serde_json::json!({ "good": { "x": 1 }, "bad": { "x": 0 } }));
        let refused = connection.get("/none").await.expect_problem(502, "aggregate.leg_failed");
        assert_eq!(refused.json()["leg_code"], "leg.panicked");
    }
    assert_eq!(panics(&gw).await, 4.0);
    assert!(gw.stderr().contains("leg=bad leg ended by a panic"), "{}", gw.stderr());
    nothing_held(&gw).await;
}

/// Before a request is one: the connection is lost, and nothing else.
#[tokio::test]
async fn a_panic_while_a_connection_is_accepted_costs_that_one() {
    let app = upstream().start().await;
    let gw = in_front_of(&app, "").env("EDGEWARD_FAULT", "panic:accept=main").start().await;
    gw.raw().await.closed().await;
    // It strikes at every one, and the listener goes on accepting.
    gw.raw().await.closed().await;
    assert_eq!(panics(&gw).await, 2.0);
    gw.metric_is("edgeward_connections_open", &["listener=\"main\""], 0.0).await;
    gw.stop().await;
}

#[tokio::test]
async fn a_panic_of_the_admin_listener_costs_one_request() {
    let gw = gateway("[[routes]]\npath = \"/*\"\nrespond = { status = 200, text = \"ok\" }\n")
        .env("EDGEWARD_FAULT", "panic:plain service=/livez")
        .start()
        .await;
    let admin = gw.admin().connect().await;
    admin.get("/livez").await.expect_problem(500, "gateway.internal");
    admin.closed().await;
    gw.admin().get("/readyz").await.expect_status(200);
    assert_eq!(panics(&gw).await, 1.0);
}

/// A password whose check panics is not checked, and that is all: the thread goes on with the next.
#[tokio::test]
async fn a_panic_in_a_check_of_a_password_costs_that_login() {
    let gw = gateway(
        "[store]\nurl = \"sqlite:users.db\"\n\
         [identity.providers.local]\nissuer = \"https://edge.example.com/\"\naudience = [\"shop\"]\n\
         algorithms = [\"ES256\"]\nsigning_key = \"es256.pem\"\ngenerate = true\n\
         [identity.login]\nprovider = \"local\"\npasswords = { memory = \"1MiB\", passes = 1, workers = 1 }\n\
         [[routes]]\nname = \"open\"\npath = \"/open\"\nrespond = { text = \"open\" }\n",
    )
    .and(LOG)
    .env("EDGEWARD_FAULT", "panic:password")
    .start()
    .await;
    let store = Store::new(StoreUrl::Sqlite(gw.directory().join("users.db")));
    let password = hash("alice's password", Cost { memory_kib: 1024, passes: 1 }).unwrap();
    let alice = User { name: "alice".to_owned(), password, roles: Vec::new(), disabled: false };
    store.add_user(&alice, 1).await.unwrap();
    let connection = gw.client().connect().await;
    let log_in = async |client: &Connection| {
        let body = r#"{"username":"alice","password":"alice's password"}"#;
        client.request("POST", "/login").header("content-type", "application/json").body(body).await
    };
    log_in(&connection).await.expect_problem(500, "gateway.internal");
    assert!(gw.logged("/login").await.starts_with("/login 500 gateway.internal "));
    assert!(gw.stderr().contains("a check of a password panicked: a fault at \"password\", on purpose"));
    connection.get("/open").await.expect_status(200);
    // It strikes once; whoever asks again is checked, on either version.
    log_in(&connection).await.expect_status(200);
    log_in(&gw.client().http2().connect().await).await.expect_status(200);
    assert_eq!(panics(&gw).await, 1.0);
    gw.metric_is("edgeward_passwords_waiting", &[], 0.0).await;
    gw.metric_is("edgeward_http_requests_in_flight", &[], 0.0).await;
}

/// The task of an AMQP channel takes what waits on it along; the connection is made anew, and calls are answered again.
#[tokio::test]
async fn a_panic_in_the_task_of_a_channel_costs_what_waits_on_it() {
    let rabbit = RabbitMq::start().await;
    let service = Amqp::connect(&rabbit.url()).await;
    let _served = service.serve("tickets", |letter| vec![Told::json(&letter.json())]).await;
    let gw = gateway(&format!(
        "[brokers.main]\nurl = \"{}\"\nchannels = 1\n\
         [[routes]]\nname = \"ask\"\npath = \"/ask/{{id}}\"\n\
         amqp = {{ broker = \"main\", queue = \"tickets\", timeout = \"5s\" }}\n\
         [[routes]]\nname = \"fine\"\npath = \"/fine\"\nrespond = {{ text = \"fine\" }}\n",
        rabbit.url()
    ))
    .env("EDGEWARD_FAULT", "panic:amqp channel")
    .start()
    .await;
    let said = async || {
        gw.stderr()
            .contains("the driver of an AMQP channel panicked: a fault at \"amqp channel\"")
            .then_some(())
    };
    eventually("the panic to be told", said).await;
    gw.get("/fine").await.expect_status(200);
    let answered = async || (gw.get("/ask/7").await.status == 200).then_some(());
    eventually("calls to be answered", answered).await;
    assert_eq!(gw.get("/ask/8").await.expect_status(200).json()["path"]["id"], "8");
    assert_eq!(panics(&gw).await, 1.0);
    gw.metric_is("edgeward_broker_up", &["broker=\"main\""], 1.0).await;
    gw.metric_is("edgeward_http_requests_in_flight", &[], 0.0).await;
    gw.stop().await;
}

/// What goes on beside requests begins anew: each of these panics once.
#[tokio::test]
async fn background_tasks_begin_anew() {
    let mut app = upstream().start().await;
    let dead = DeadPort::new();
    let gw = gateway(
        "[store]\nurl = \"sqlite:edgeward.db\"\n\
         [cluster]\nredis = \"redis://{dead}\"\n\
         [brokers.main]\nurl = \"amqp://{dead}\"\n\
         [log.bus]\nbroker = \"main\"\nexchange = \"log\"\nrouting_key = \"x\"\n\
         [identity.providers.idp]\nissuer = \"idp\"\naudience = [\"x\"]\nalgorithms = [\"RS256\"]\n\
         jwks_url = \"http://{dead}/keys\"\n\
         [upstreams.named]\nservers = [\"localhost:9\"]\n\
         [upstreams.app]\nservers = [\"{app}\"]\n\
         [upstreams.app.health_check]\ninterval = \"100ms\"\nunhealthy_after = 1\n\
         [[routes]]\npath = \"/*\"\nupstream = \"app\"\n\
         [[routes]]\npath = \"/tickets\"\namqp = { broker = \"main\", queue = \"q\" }\n",
    )
    .with("app", &app)
    .with("dead", &dead)
    .env(
        "EDGEWARD_FAULT",
        "panic:dns,panic:health check,panic:key set,panic:store,panic:access log,panic:redis,panic:broker,\
         panic:log bus",
    )
    .start()
    .await;
    // Seven tasks, and the thread of the access log, which is no task.
    gw.metric_is("edgeward_task_restarts_total", &[], 7.0).await;
    assert_eq!(panics(&gw).await, 8.0);
    gw.get("/logged").await.expect_status(200);
    gw.logged("/logged").await;
    // Servers are checked again, names looked up, keys asked for.
    app.stop().await;
    gw.metric_is("edgeward_upstream_backend_up", &[&app.address().to_string()], 0.0).await;
    let well = async || {
        let report = gw.admin().get("/readyz?verbose").await.text();
        let parts = ["name localhost: ", "[+] store: up", "[-] broker main: ", "away for"];
        (parts.iter().all(|part| report.contains(part)) && !report.contains("being looked up")).then_some(())
    };
    eventually("all of it to be under way", well).await;
    for task in ["dns", "health check", "key set", "store", "redis", "broker", "log bus"] {
        let name = if task.contains(' ') { format!("\"{task}\"") } else { task.to_owned() };
        let line = format!("task={name} task panicked, and is started again");
        assert!(gw.stderr().contains(&line), "{line}\n{}", gw.stderr());
    }
    gw.stop().await;
}
