//! A new configuration for a running process: all of it or nothing, and no request the worse for it.

use rustix::process::Signal;

use crate::support::*;

const CONTROL: &str = "[server]\ncontrol_socket = \"run/control.sock\"\n";
const FIXED: &str = "[[routes]]\nname = \"x\"\npath = \"/x\"\nrespond = { text = \"old\" }\n";

fn fixed() -> GatewayBuilder {
    gateway(&format!("{CONTROL}{FIXED}"))
}

#[tokio::test]
async fn what_changed_is_in_force_and_said_by_name() {
    let gw = fixed().start().await;
    assert_eq!(gw.get("/x").await.expect_status(200).text(), "old");
    gw.rewrite("edgeward.toml", |text| {
        text.replace("\"old\"", "\"new\"")
            + "[[routes]]\nname = \"y\"\npath = \"/y\"\nrespond = { status = 204 }\n"
    });
    let ran = gw.order("reload").await;
    assert_eq!((ran.status, ran.stderr.as_str()), (0, ""));
    assert!(
        ran.stdout.starts_with("added route y\naltered route x\nreloaded: generation 2"),
        "{}",
        ran.stdout
    );
    assert_eq!(gw.get("/x").await.expect_status(200).text(), "new");
    gw.get("/y").await.expect_status(204);

    gw.rewrite("edgeward.toml", |text| text.split("[[routes]]\nname = \"y\"").next().unwrap().to_owned());
    let ran = gw.order("reload").await;
    assert!(ran.stdout.starts_with("removed route y\nreloaded: generation 3"), "{}", ran.stdout);
    gw.get("/y").await.expect_status(404);
    let again = gw.order("reload").await;
    assert!(again.stdout.starts_with("nothing changed\n"), "{}", again.stdout);
    gw.stop().await;
}

/// A request lives in the generation it began in, also on a connection that goes on in the next.
#[tokio::test]
async fn a_request_ends_on_what_it_began_with() {
    let gate = Gate::new();
    let (old, new) = (
        upstream().named("old").on("/held", gate.then(Answer::text("held"))).start().await,
        upstream().named("new").start().await,
    );
    let gw = in_front_of(&old, "").and(CONTROL).start().await;
    let mut connection = gw.raw().await;
    connection.send("GET /held HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    gate.arrived(1).await;
    gw.rewrite("edgeward.toml", |text| text.replace(&old.address().to_string(), &new.address().to_string()));
    assert_eq!(gw.order("reload").await.stdout.lines().next(), Some("altered upstream app"));
    gate.open();
    assert_eq!(connection.response().await.expect_status(200).text(), "held");
    connection.get("/next").await.expect_status(200);
    assert_eq!((old.requests(), new.requests()), (1, 1));
    gw.stop().await;
}

#[tokio::test]
async fn a_broken_configuration_changes_nothing_and_is_explained() {
    let gw = fixed().start().await;
    gw.rewrite("edgeward.toml", |text| text.replace("respond", "respnd") + "[limits]\nheader_bytes = 7\n");
    let ran = gw.order("reload").await;
    assert_eq!(ran.status, 1);
    for part in [
        "edgeward.toml:6:1",
        "did you mean \"respond\"",
        "such as \"64KiB\"",
        "not reloaded, nothing has changed",
    ] {
        assert!(ran.stderr.contains(part), "{part} in {}", ran.stderr);
    }
    assert_eq!(gw.get("/x").await.expect_status(200).text(), "old");
    gw.metric_is("edgeward_config_reloads_total", &["failure"], 1.0).await;
    gw.metric_is("edgeward_config_last_reload_successful", &[], 0.0).await;
    let ready = gw.admin().get("/readyz?verbose").await.expect_status(200).text();
    assert!(ready.contains("last reload failed at "), "{ready}");
    let complaints = gw.stderr();
    assert_eq!(complaints.matches("configuration not reloaded").count(), 1, "{complaints}");

    gw.rewrite("edgeward.toml", |text| text.replace("respnd", "respond").replace("header_bytes = 7\n", ""));
    assert_eq!(gw.order("reload").await.status, 0);
    gw.metric_is("edgeward_config_last_reload_successful", &[], 1.0).await;
    let ready = gw.admin().get("/readyz?verbose").await.expect_status(200).text();
    assert!(ready.contains("last reload succeeded at ") && ready.contains("generation 2"), "{ready}");
    gw.stop().await;
}

/// A file that is gone, or no longer TOML at all: the process still says so itself.
#[tokio::test]
async fn a_configuration_that_is_gone_changes_nothing() {
    let gw = fixed().start().await;
    gw.rewrite("edgeward.toml", |text| format!("= =\n{text}"));
    let ran = gw.order("reload").await;
    assert_eq!(ran.status, 1);
    assert!(ran.stderr.contains("edgeward.toml:1:1"), "{}", ran.stderr);
    std::fs::remove_file(gw.directory().join("edgeward.toml")).unwrap();
    gw.signal(Signal::HUP);
    gw.metric_is("edgeward_config_reloads_total", &["failure"], 2.0).await;
    assert_eq!(gw.get("/x").await.expect_status(200).text(), "old");
    gw.stop().await;
}

#[tokio::test]
async fn hup_and_nginxs_option_reload() {
    let gw = fixed().start().await;
    gw.rewrite("edgeward.toml", |text| text.replace("\"old\"", "\"new\""));
    gw.signal(Signal::HUP);
    eventually("the new answer", async || (gw.get("/x").await.text() == "new").then_some(())).await;
    gw.rewrite("edgeward.toml", |text| text.replace("\"new\"", "\"newer\""));
    let ran = run(command(&gw.directory(), &["-s", "reload", "-c", "edgeward.toml"])).await;
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    assert_eq!(gw.get("/x").await.text(), "newer");
    gw.stop().await;
}

#[tokio::test]
async fn without_a_control_socket_a_signal_must_do() {
    let gw = gateway(&format!("[server]\npid_file = \"edgeward.pid\"\n{FIXED}")).start().await;
    gw.rewrite("edgeward.toml", |text| text.replace("\"old\"", "\"new\""));
    let ran = gw.order("reload").await;
    assert_eq!(ran.status, 3);
    assert!(
        ran.stderr.contains("HUP was sent to process")
            && ran.stderr.contains("no server.control_socket is configured"),
        "{}",
        ran.stderr
    );
    eventually("the new answer", async || (gw.get("/x").await.text() == "new").then_some(())).await;
    gw.stop().await;
}

#[tokio::test]
async fn what_binds_the_process_is_refused_by_name() {
    let gw = fixed().start().await;
    gw.rewrite("edgeward.toml", |text| {
        text.replace("[server]\n", "[server]\nthreads = 1\n").replace("\"old\"", "\"new\"")
            + "[[listeners]]\nname = \"more\"\naddress = \"127.0.0.1:0\"\n"
    });
    let ran = gw.order("reload").await;
    assert_eq!(ran.status, 1);
    for part in [
        "needs an upgrade: server.threads was 0",
        "needs an upgrade: the listener \"more\" is new",
        "edgeward.toml:2",
    ] {
        assert!(ran.stderr.contains(part), "{part} in {}", ran.stderr);
    }
    assert_eq!(gw.get("/x").await.text(), "old");
    gw.stop().await;
}

/// Listeners are told apart by name: writing them in another order must not exchange them.
#[tokio::test]
async fn listeners_may_change_places_in_the_file() {
    let authority = Authority::new();
    let builder = gateway(CONTROL)
        .identity("site", &authority.server(&["localhost"]))
        .listener("plain", "127.0.0.1:0")
        .tls_listener("secure", &["site"])
        .and("[[routes]]\npath = \"/x\"\nlisteners = [\"secure\"]\nrespond = { text = \"secure\" }\n");
    let gw = builder.start().await;
    let tls = authority.client_config(&[], None);
    let secure = Client::new(gw.listener("secure")).tls(&tls, "localhost");
    secure.get("/x").await.expect_status(200);
    gw.rewrite("edgeward.toml", |text| {
        let (head, listeners) = text.split_at(text.find("[[listeners]]").unwrap());
        let (listeners, rest) = listeners.split_at(listeners.find("[[routes]]").unwrap());
        let second = listeners.rfind("[[listeners]]\n").unwrap();
        let (first, second) = listeners.split_at(second);
        format!("{head}{second}\n{first}\n{rest}")
    });
    let ran = gw.order("reload").await;
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    assert_eq!(secure.get("/x").await.expect_status(200).text(), "secure");
    Client::new(gw.listener("plain")).get("/x").await.expect_status(404);
    gw.stop().await;
}

/// New handshakes get the new certificate; who is connected stays connected.
#[tokio::test]
async fn certificates_are_renewed_without_a_restart() {
    let (authority, next) = (Authority::new(), Authority::new());
    let gw = gateway(&format!("{CONTROL}{FIXED}"))
        .identity("site", &authority.server(&["localhost"]))
        .tls_listener("secure", &["site"])
        .start()
        .await;
    let client = |authority: &Authority| {
        Client::new(gw.listener("secure")).tls(&authority.client_config(&[], None), "localhost")
    };
    let connected = client(&authority).connect().await;
    connected.get("/x").await.expect_status(200);
    next.server(&["localhost"]).write(&gw.directory(), "site");
    let ran = gw.order("reload").await;
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    connected.get("/x").await.expect_status(200);
    client(&next).get("/x").await.expect_status(200);
    assert!(client(&authority).try_connect().await.is_err(), "the old certificate is gone");

    // A key that does not fit leaves the pair in force.
    std::fs::write(gw.directory().join("site-key.pem"), authority.server(&["localhost"]).key_pem).unwrap();
    assert_eq!(gw.order("reload").await.status, 1);
    client(&next).get("/x").await.expect_status(200);
    gw.stop().await;
}

/// What is known of a server, and the connections to it, stay with what did not change.
#[tokio::test]
async fn what_did_not_change_is_kept() {
    let app = upstream().start().await;
    let dead = DeadPort::new();
    let gw = gateway(
        "[upstreams.app]\nservers = [\"{app}\"]\n[upstreams.dead]\nservers = [\"{dead}\"]\n\
         circuit_breaker = { failures = 1, open_for = \"1h\" }\n\
         [[routes]]\npath = \"/app/*\"\nupstream = \"app\"\n[[routes]]\npath = \"/dead\"\nupstream = \"dead\"\n",
    )
    .with("app", &app)
    .with("dead", &dead)
    .and(CONTROL)
    .start()
    .await;
    gw.get("/app/1").await.expect_status(200);
    gw.get("/dead").await.expect_status(502);
    let opened = app.connections();
    for generation in 2..5 {
        gw.rewrite("edgeward.toml", |text| {
            format!("{text}\n[[routes]]\npath = \"/{generation}\"\nrespond = {{ status = 204 }}\n")
        });
        assert_eq!(gw.order("reload").await.status, 0);
        gw.get("/app/2").await.expect_status(200);
        // Still open: no attempt is made.
        gw.get("/dead").await.expect_status(503);
    }
    assert_eq!(app.connections(), opened, "the pooled connection was used");
    gw.metric_is("edgeward_http_requests_total", &["route=\"/app/*\"", "code=\"200\""], 4.0).await;
    gw.stop().await;
}

#[tokio::test]
async fn a_websocket_does_not_notice() {
    use futures_util::{SinkExt, StreamExt};
    use tokio_tungstenite::tungstenite::Message;

    let app = upstream().otherwise(Answer::WebSocket).start().await;
    let gw = in_front_of(&app, "").and(CONTROL).start().await;
    let stream = tokio::net::TcpStream::connect(gw.address()).await.unwrap();
    let (mut socket, _) = tokio_tungstenite::client_async("ws://localhost/", stream).await.unwrap();
    for round in 0..3 {
        gw.rewrite("edgeward.toml", |text| {
            format!("{text}[[routes]]\npath = \"/more/{round}\"\nrespond = {{ status = 204 }}\n")
        });
        assert_eq!(gw.order("reload").await.status, 0);
        // What it needs it holds; not the whole configuration it began with.
        eventually("the old configuration to be gone", async || {
            (gw.status().await["generations_held"] == 1).then_some(())
        })
        .await;
        socket.send(Message::text(format!("{round}"))).await.unwrap();
        let echoed = within("the echo", socket.next()).await.unwrap().unwrap();
        assert_eq!(echoed.into_text().unwrap().as_str(), format!("{round}"));
    }
    socket.close(None).await.unwrap();
    gw.stop().await;
}

#[tokio::test]
async fn limits_and_logs_follow() {
    let gw = gateway(&format!("{CONTROL}{FIXED}[log.access]\noutput = \"a.log\"\n")).start().await;
    gw.get("/x?one").await.expect_status(200);
    let log = |name: &'static str, part: &'static str| {
        let path = gw.directory().join(name);
        eventually("the log line", async move || {
            std::fs::read_to_string(&path).is_ok_and(|text| text.contains(part)).then_some(())
        })
    };
    log("a.log", "/x?one").await;
    gw.rewrite("edgeward.toml", |text| {
        text.replace("a.log", "b.log") + "[limits]\nheader_bytes = \"1KiB\"\n"
    });
    assert_eq!(gw.order("reload").await.status, 0);
    gw.get("/x?two").await.expect_status(200);
    log("b.log", "/x?two").await;
    assert!(!std::fs::read_to_string(gw.directory().join("a.log")).unwrap().contains("two"));
    gw.get("/x").header("x-long", &"x".repeat(2000)).await.expect_status(431);
    gw.stop().await;
}

/// `server.watch`: a changed file is enough, a broken one is said once, and included files count.
#[tokio::test]
async fn a_changed_file_is_enough_where_it_is_wanted() {
    let gw = gateway("include = [\"routes.d/*.toml\"]\n[server]\nwatch = true\n")
        .file("routes.d/x.toml", FIXED)
        .start()
        .await;
    assert_eq!(gw.get("/x").await.text(), "old");
    gw.rewrite("routes.d/x.toml", |text| text.replace("\"old\"", "\"new\""));
    eventually("the new answer", async || (gw.get("/x").await.text() == "new").then_some(())).await;
    gw.rewrite("routes.d/x.toml", |text| text.replace("respond", "respnd"));
    gw.metric_is("edgeward_config_reloads_total", &["failure"], 1.0).await;
    assert_eq!(gw.get("/x").await.text(), "new");
    gw.rewrite("routes.d/x.toml", |text| text.replace("respnd", "respond").replace("\"new\"", "\"newer\""));
    eventually("the newer answer", async || (gw.get("/x").await.text() == "newer").then_some(())).await;
    // A new file that is broken at first, and corrected in place: its directory does not change by that.
    std::fs::write(
        gw.directory().join("routes.d/z.toml"),
        "[[routes]]\npath = \"/z\"\nrespnd = { status = 204 }\n",
    )
    .unwrap();
    gw.metric_is("edgeward_config_reloads_total", &["failure"], 2.0).await;
    std::fs::write(
        gw.directory().join("routes.d/z.toml"),
        "[[routes]]\npath = \"/z\"\nrespond = { status = 204 }\n",
    )
    .unwrap();
    eventually("the corrected file's route", async || (gw.get("/z").await.status == 204).then_some(())).await;
    // A file that was not there when the process started.
    gw.rewrite("routes.d/y.toml", |_| "[[routes]]\npath = \"/y\"\nrespond = { status = 204 }\n".to_owned());
    eventually("the new file's route", async || (gw.get("/y").await.status == 204).then_some(())).await;
    gw.metric_is("edgeward_config_reloads_total", &["failure"], 2.0).await;
    gw.stop().await;
}

/// Who asks for many at once gets an answer to each, and no more reloads than make sense.
#[tokio::test]
async fn many_at_once_are_all_answered() {
    let gw = fixed().start().await;
    let orders = (0..10).map(|_| gw.order("reload"));
    for ran in futures_util::future::join_all(orders).await {
        assert_eq!(ran.status, 0, "{}", ran.stderr);
    }
    gw.stop().await;
}
