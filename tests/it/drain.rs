//! The end of the process: nothing that is open is cut short, and nothing holds it up for longer than it may.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::*;

async fn with_one_held(
    more: &str,
) -> (std::sync::Arc<Gate>, Upstream, Gateway, tokio::task::JoinHandle<Response>) {
    let gate = Gate::new();
    let app = upstream().on("/held", gate.then(Answer::text("whole"))).start().await;
    let gw = in_front_of(&app, "").and(more).start().await;
    let held = tokio::spawn(std::future::IntoFuture::into_future(gw.get("/held")));
    gate.arrived(1).await;
    (gate, app, gw, held)
}

async fn refuses_connections(gw: &Gateway) {
    eventually("new connections to be refused", async || {
        gw.client().try_connect().await.is_err().then_some(())
    })
    .await;
}

#[tokio::test]
async fn term_and_quit_finish_what_is_open_then_exit() {
    for signal in [Signal::TERM, Signal::QUIT] {
        let (gate, _app, mut gw, held) = with_one_held("").await;
        gw.signal(signal);
        refuses_connections(&gw).await;
        assert!(gw.is_running());
        gate.open();
        assert_eq!(held.await.unwrap().expect_status(200).text(), "whole");
        let began = Instant::now();
        assert!(gw.exit().await.success());
        assert!(began.elapsed() < Duration::from_secs(5), "it waited for nothing: {:?}", began.elapsed());
    }
}

/// As soon as nothing is open: idle connections are nothing.
#[tokio::test]
async fn idle_connections_do_not_hold_it_up() {
    let app = upstream().start().await;
    let mut gw = in_front_of(&app, "").and("[server]\ngrace_period = \"1h\"\n").start().await;
    let mut idle = gw.raw().await;
    idle.get("/1").await.expect_status(200);
    let silent = gw.raw().await;
    let h2 = gw.client().http2().connect().await;
    h2.get("/2").await.expect_status(200);
    gw.signal(Signal::TERM);
    assert!(gw.exit().await.success());
    idle.closed().await;
    h2.closed().await;
    drop(silent);
}

/// While draining, a connection is told that this was its last answer.
#[tokio::test]
async fn the_last_answer_says_close() {
    let gate = Gate::new();
    let app = upstream().on("/held", gate.then(Answer::text("whole"))).start().await;
    let mut gw = in_front_of(&app, "").start().await;
    let mut raw = gw.raw().await;
    raw.send("GET /held HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    gate.arrived(1).await;
    gw.signal(Signal::TERM);
    refuses_connections(&gw).await;
    gate.open();
    let answer = raw.response().await.expect_status(200);
    assert_eq!(answer.text(), "whole");
    assert_eq!(answer.header("connection").map(str::to_ascii_lowercase).as_deref(), Some("close"));
    raw.closed().await;
    assert!(gw.exit().await.success());
}

#[tokio::test]
async fn http2_streams_are_finished() {
    let gate = Gate::new();
    let app = upstream().on("/held", gate.then(Answer::text("whole"))).start().await;
    let mut gw = in_front_of(&app, "").start().await;
    let connection = gw.client().http2().connect().await;
    let held: Vec<_> = (0..3)
        .map(|_| {
            let connection = connection.clone();
            tokio::spawn(async move { connection.get("/held").await })
        })
        .collect();
    gate.arrived(3).await;
    gw.signal(Signal::TERM);
    refuses_connections(&gw).await;
    gate.open();
    for request in held {
        assert_eq!(request.await.unwrap().expect_status(200).text(), "whole");
    }
    connection.closed().await;
    assert!(gw.exit().await.success());
}

#[tokio::test]
async fn the_grace_period_is_the_longest_it_waits() {
    let (_gate, _app, mut gw, held) = with_one_held("[server]\ngrace_period = \"1s\"\n").await;
    let began = Instant::now();
    gw.signal(Signal::TERM);
    gw.exit().await;
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(900) && took < Duration::from_secs(8), "{took:?}");
    assert!(held.await.is_err(), "there was no answer to give");
}

/// The last records are written although nobody waits for what they are about.
#[tokio::test]
async fn what_the_end_cuts_off_is_logged() {
    for signal in [Signal::TERM, Signal::INT] {
        let (_gate, _app, mut gw, held) = with_one_held("[server]\ngrace_period = \"200ms\"\n").await;
        gw.signal(signal);
        gw.exit().await;
        assert!(held.await.is_err());
        gw.logged("/held").await;
    }
}

#[tokio::test]
async fn int_stops_at_once() {
    let (_gate, _app, mut gw, held) = with_one_held("[server]\ngrace_period = \"1h\"\n").await;
    let began = Instant::now();
    gw.signal(Signal::INT);
    gw.exit().await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert!(held.await.is_err());
}

/// An operator who has waited enough says INT.
#[tokio::test]
async fn int_ends_a_drain() {
    let (_gate, _app, mut gw, _held) = with_one_held("[server]\ngrace_period = \"1h\"\n").await;
    gw.signal(Signal::TERM);
    refuses_connections(&gw).await;
    gw.signal(Signal::TERM);
    assert!(gw.is_running());
    gw.signal(Signal::INT);
    gw.exit().await;
}

/// Load balancers in front look at /readyz: they are told before anything is refused.
#[tokio::test]
async fn drain_delay_keeps_accepting_while_not_ready() {
    let app = upstream().start().await;
    let mut gw = in_front_of(&app, "").and("[server]\ndrain_delay = \"1500ms\"\n").start().await;
    gw.admin().get("/readyz").await.expect_status(200);
    let began = Instant::now();
    gw.signal(Signal::TERM);
    eventually("/readyz to be 503", async || (gw.admin().get("/readyz").await.status == 503).then_some(()))
        .await;
    if began.elapsed() < Duration::from_millis(1000) {
        gw.get("/still").await.expect_status(200);
    }
    assert!(gw.exit().await.success());
    assert!(began.elapsed() >= Duration::from_millis(1400), "{:?}", began.elapsed());
}

/// Probes are answered to the end, on new connections and kept ones.
#[tokio::test]
async fn readyz_answers_while_it_drains() {
    let (gate, _app, mut gw, held) = with_one_held("").await;
    let kept = gw.admin().connect().await;
    kept.get("/livez").await.expect_status(200);
    gw.signal(Signal::TERM);
    refuses_connections(&gw).await;
    for _ in 0..20 {
        gw.admin().get("/readyz").await.expect_status(503);
        gw.admin().get("/livez").await.expect_status(200);
    }
    gate.open();
    held.await.unwrap().expect_status(200);
    assert!(gw.exit().await.success());
}

#[tokio::test]
async fn the_pid_file_comes_and_goes() {
    let mut gw = gateway(
        "[server]\npid_file = \"run/it.pid\"\n[[routes]]\npath = \"/x\"\nrespond = { status = 200 }\n",
    )
    .start()
    .await;
    let file = gw.directory().join("run/it.pid");
    assert_eq!(std::fs::read_to_string(&file).unwrap().trim(), gw.pid().to_string());
    gw.signal(Signal::TERM);
    assert!(gw.exit().await.success());
    assert!(!file.exists());
}

#[tokio::test]
async fn a_websocket_does_not_outlive_the_grace_period() {
    let app = upstream().otherwise(Answer::WebSocket).start().await;
    let mut gw = in_front_of(&app, "").and("[server]\ngrace_period = \"500ms\"\n").start().await;
    let stream = tokio::net::TcpStream::connect(gw.address()).await.unwrap();
    let (_socket, _) = tokio_tungstenite::client_async("ws://localhost/", stream).await.unwrap();
    let began = Instant::now();
    gw.signal(Signal::TERM);
    gw.exit().await;
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
}

#[tokio::test]
async fn what_is_taken_is_said_and_nothing_starts() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let refused = gateway("[[routes]]\npath = \"/x\"\nrespond = { status = 200 }\n")
        .listener("main", &address)
        .refused()
        .await;
    assert!(refused.stderr.contains(&address), "{}", refused.stderr);
    assert!(!refused.stdout.contains("ready"));
}

#[tokio::test]
async fn the_banner_says_what_listens_where() {
    let app = upstream().start().await;
    let mut gw = in_front_of(&app, "").start().await;
    let banner = gw.banner().unwrap();
    assert_eq!(banner[0], format!("edgeward {}: 1 route, 1 upstream", env!("CARGO_PKG_VERSION")));
    assert!(banner.contains(&format!("listening main http://{}", gw.address())), "{banner:?}");
    assert_eq!(banner.last().map(String::as_str), Some("ready"));
}

/// The same over the control socket, for scripts: what was asked is answered, and then done.
#[tokio::test]
async fn a_running_process_takes_orders() {
    let app = upstream().start().await;
    let server = "[server]\ncontrol_socket = \"run/control.sock\"\npid_file = \"run/edgeward.pid\"\n";
    let mut gw = in_front_of(&app, "").and(server).start().await;
    let order = |word: &'static str| {
        let directory = gw.directory();
        async move { run(command(&directory, &[word, "-c", "edgeward.toml"])).await }
    };
    let status = order("status").await;
    assert_eq!(status.status, 0, "{}", status.stderr);
    let status: serde_json::Value = serde_json::from_str(&status.stdout).unwrap();
    assert_eq!(status["routes"], 1);
    let pid = std::fs::read_to_string(gw.directory().join("run/edgeward.pid")).unwrap();
    assert_eq!(status["pid"].to_string(), pid.trim());
    assert_eq!(order("reopen").await.status, 0);
    let quit = order("quit").await;
    assert_eq!((quit.status, quit.stderr.as_str()), (0, ""));
    // Quit returns when the process has ended, so another can start at once, where the first one was.
    let (late, address) = (gw.directory(), gw.address().to_string());
    let next = gateway("[[routes]]\npath = \"/x\"\nrespond = {}\n").listener("main", &address).start().await;
    assert_eq!(next.get("/x").await.status, 200);
    next.stop().await;
    assert!(!late.join("run/edgeward.pid").exists() && !late.join("run/control.sock").exists());
    assert!(gw.exit().await.success());
    assert!(!late.join("run/edgeward.pid").exists() && !late.join("run/control.sock").exists());
    let nobody = run(command(&late, &["quit", "-c", "edgeward.toml"])).await;
    assert_eq!(nobody.status, 1);
    for part in [
        format!("edgeward does not run with {}", late.join("edgeward.toml").display()),
        format!("there is no {}", late.join("run/control.sock").display()),
        "HUP (reload) or USR2 (upgrade)".to_owned(),
    ] {
        assert!(nobody.stderr.contains(&part), "{part} is not in {}", nobody.stderr);
    }
    drop(std::os::unix::net::UnixListener::bind(late.join("run/control.sock")).unwrap());
    let gone = run(command(&late, &["quit", "-c", "edgeward.toml"])).await;
    assert!(gone.status == 1 && gone.stderr.contains("left behind by a process that is gone"), "{gone:?}");
}

/// One that is still serving somebody is waited for, as long as it takes.
#[tokio::test]
async fn quit_returns_when_the_last_answer_is_out() {
    let (gate, _app, mut gw, held) = with_one_held("[server]\ncontrol_socket = \"run/control.sock\"\n").await;
    let directory = gw.directory();
    let quit = tokio::spawn(run(command(&directory, &["quit", "-c", "edgeward.toml"])));
    refuses_connections(&gw).await;
    assert!(gw.is_running() && !quit.is_finished());
    gate.open();
    held.await.unwrap().expect_status(200);
    let quit = quit.await.unwrap();
    assert_eq!((quit.status, quit.stderr.as_str()), (0, ""));
    assert!(gw.exit().await.success());
}

/// Also one that is to end at once.
#[tokio::test]
async fn stop_returns_when_the_process_has_ended() {
    let (_gate, _app, mut gw, _held) =
        with_one_held("[server]\ncontrol_socket = \"run/control.sock\"\n").await;
    let address = gw.address().to_string();
    let stop = gw.order("stop").await;
    assert_eq!((stop.status, stop.stderr.as_str()), (0, ""));
    assert!(gw.exit().await.success());
    gateway("").listener("main", &address).start().await.stop().await;
}

/// Without a socket a signal must do, and nobody can say what came of it.
#[tokio::test]
async fn without_a_control_socket_the_outcome_is_unknown() {
    let app = upstream().start().await;
    let mut gw = in_front_of(&app, "").and("[server]\npid_file = \"edgeward.pid\"\n").start().await;
    let quit = run(command(&gw.directory(), &["quit", "-c", "edgeward.toml"])).await;
    assert_eq!(quit.status, 3);
    assert!(quit.stderr.contains("QUIT was sent to process"), "{}", quit.stderr);
    assert!(gw.exit().await.success());
}

/// Two processes with one pid file: the second would take the first one's, and remove it at its end.
#[tokio::test]
async fn a_second_process_does_not_take_the_pid_file() {
    let app = upstream().start().await;
    let gw = in_front_of(&app, "").and("[server]\npid_file = \"edgeward.pid\"\n").start().await;
    let directory = gw.directory();
    let pid = std::fs::read_to_string(directory.join("edgeward.pid")).unwrap();
    let second =
        "[server]\npid_file = \"edgeward.pid\"\n[[listeners]]\nname = \"x\"\naddress = \"127.0.0.1:0\"\n";
    std::fs::write(directory.join("second.toml"), second).unwrap();
    let ran = run(command(&directory, &["run", "-c", "second.toml"])).await;
    assert_eq!(ran.status, 1);
    assert!(ran.stderr.contains("is running with it"), "{}", ran.stderr);
    assert_eq!(std::fs::read_to_string(directory.join("edgeward.pid")).unwrap(), pid);
}
