//! The process is replaced while it serves: nobody is refused, reset or left without an answer.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::*;

const SERVER: &str = "[server]\ncontrol_socket = \"run/control.sock\"\npid_file = \"run/edgeward.pid\"\n";

async fn in_front(app: &Upstream) -> Gateway {
    in_front_of(app, "").and(SERVER).linked().start().await
}

fn pid_in_file(gw: &Gateway) -> u64 {
    std::fs::read_to_string(gw.directory().join("run/edgeward.pid")).unwrap().trim().parse().unwrap()
}

/// Upgrades, and returns the new process's id.
async fn upgrade(gw: &Gateway) -> u64 {
    let ran = gw.order("upgrade").await;
    assert_eq!(ran.status, 0, "{}{}\n{}", ran.stdout, ran.stderr, gw.stderr());
    let pid = gw.status().await["pid"].as_u64().unwrap();
    assert_eq!(ran.stdout, format!("upgraded: process {pid} serves\n"));
    pid
}

async fn refused(gw: &Gateway, word: &str) -> String {
    let pid = gw.status().await["pid"].clone();
    let ran = gw.order(word).await;
    assert_eq!(ran.status, 1, "{}", ran.stdout);
    assert!(ran.stderr.contains("the process goes on"), "{}", ran.stderr);
    assert_eq!(gw.status().await["pid"], pid);
    assert_eq!(pid_in_file(gw), pid.as_u64().unwrap());
    gw.get("/still").await.expect_status(200);
    ran.stderr
}

#[tokio::test]
async fn the_new_process_serves_and_the_old_one_finishes_what_it_has() {
    let gate = Gate::new();
    let app = upstream().on("/held", gate.then(Answer::text("whole"))).start().await;
    let mut gw = in_front(&app).await;
    let held = tokio::spawn(std::future::IntoFuture::into_future(gw.get("/held")));
    gate.arrived(1).await;
    let pid = upgrade(&gw).await;
    assert_ne!(pid, u64::from(gw.pid()));
    assert_eq!(pid_in_file(&gw), pid);
    gw.get("/new").await.expect_status(200);
    assert!(gw.is_running(), "it has a request to finish");
    gate.open();
    assert_eq!(held.await.unwrap().expect_status(200).text(), "whole");
    assert!(gw.exit().await.success());
    gw.get("/alone").await.expect_status(200);
    gw.admin().get("/readyz").await.expect_status(200);
    assert_eq!(pid_in_file(&gw), pid, "the old process left the pid file alone");
    assert_eq!(gw.order("quit").await.status, 0);
    eventually("the last process to be gone", async || {
        gw.client().try_connect().await.is_err().then_some(())
    })
    .await;
}

/// The next process goes on with the counters of rate limits: an upgrade gives nobody a fresh burst.
#[tokio::test]
async fn counters_of_limits_go_on() {
    let app = upstream().otherwise(Answer::text("ok")).start().await;
    let limit = "[rate_limits.r]\nkey = \"ip\"\nlimits = [\"4/h\"]\nburst = 4\n";
    let mut gw = in_front_of(&app, limit)
        .and(SERVER)
        .and("[defaults]\nrate_limits = [\"r\"]\n")
        .linked()
        .start()
        .await;
    gw.get("/").await.expect_status(200);
    gw.get("/").await.expect_status(200);
    upgrade(&gw).await;
    let third = gw.get("/").await.expect_status(200);
    assert!(third.header("ratelimit").unwrap().starts_with("\"r\";r=1;"), "{:?}", third.header("ratelimit"));
    assert!(gw.exit().await.success());
    // Another burst counts from then on, of what was used before: whoever comes after the answer comes to the next process.
    gw.rewrite("edgeward.toml", |text| text.replace("burst = 4", "burst = 3"));
    assert_eq!(gw.order("upgrade").await.status, 0);
    gw.get("/").await.expect_problem(429, "limit.exceeded");
}

#[tokio::test]
async fn again_and_again_also_by_signal() {
    let app = upstream().start().await;
    let mut gw = in_front(&app).await;
    let mut last = u64::from(gw.pid());
    gw.signal(Signal::USR2);
    assert!(gw.exit().await.success());
    for _ in 0..4 {
        let pid = eventually("another process", async || {
            Some(gw.status().await["pid"].as_u64()?).filter(|pid| *pid != last)
        })
        .await;
        gw.get("/x").await.expect_status(200);
        last = pid;
        upgrade(&gw).await;
    }
}

/// A connection that was idle is answered on once more, and told that it was the last time.
#[tokio::test]
async fn idle_connections_get_their_answer_and_are_told() {
    let app = upstream().start().await;
    let mut gw = in_front(&app).await;
    let (mut first, mut second) = (gw.raw().await, gw.raw().await);
    first.get("/1").await.expect_status(200);
    second.get("/2").await.expect_status(200);
    let h2 = gw.client().http2().connect().await;
    h2.get("/3").await.expect_status(200);
    upgrade(&gw).await;
    for connection in [&mut first, &mut second] {
        connection.send("POST /late HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nok").await;
        let answer = connection.response().await.expect_status(200);
        assert_eq!(answer.header("connection").map(str::to_ascii_lowercase).as_deref(), Some("close"));
        connection.closed().await;
    }
    h2.closed().await;
    assert!(gw.exit().await.success());
}

/// Idle connections that ask for nothing more do not keep the old process for ever.
#[tokio::test]
async fn idle_connections_are_closed_in_the_end() {
    let app = upstream().start().await;
    let mut gw = in_front_of(&app, "").and(SERVER).and("grace_period = \"3s\"\n").linked().start().await;
    let mut idle = gw.raw().await;
    idle.get("/1").await.expect_status(200);
    let began = Instant::now();
    upgrade(&gw).await;
    idle.closed().await;
    assert!(gw.exit().await.success());
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
}

#[tokio::test]
async fn websockets_go_on_in_the_old_process() {
    use futures_util::{SinkExt, StreamExt};
    use tokio_tungstenite::tungstenite::Message;

    let app = upstream().otherwise(Answer::WebSocket).start().await;
    let mut gw = in_front(&app).await;
    let stream = tokio::net::TcpStream::connect(gw.address()).await.unwrap();
    let (mut socket, _) = tokio_tungstenite::client_async("ws://localhost/", stream).await.unwrap();
    upgrade(&gw).await;
    for round in ["1", "2"] {
        socket.send(Message::text(round)).await.unwrap();
        let echoed = within("the echo", socket.next()).await.unwrap().unwrap();
        assert_eq!(echoed.into_text().unwrap().as_str(), round);
    }
    assert!(gw.is_running());
    socket.close(None).await.unwrap();
    assert!(gw.exit().await.success());
}

/// What a reload refuses, an upgrade does: listeners come and go, and the sockets of those that stay are the same.
#[tokio::test]
async fn listeners_come_and_go() {
    let app = upstream().start().await;
    let mut gw = in_front_of(&app, "")
        .listener("main", "127.0.0.1:0")
        .listener("gone", "127.0.0.1:0")
        .listener("socket", "unix:run/edge.sock")
        .and(SERVER)
        .linked()
        .start()
        .await;
    let (kept, gone) = (gw.listener("main"), gw.listener("gone"));
    let free = DeadPort::new().address();
    gw.rewrite("edgeward.toml", |text| {
        text.replace(
            "name = \"gone\"\naddress = \"127.0.0.1:0\"",
            &format!("name = \"new\"\naddress = \"{free}\""),
        )
    });
    assert_eq!(gw.order("reload").await.status, 1);
    upgrade(&gw).await;
    assert!(gw.exit().await.success());
    Client::new(kept).get("/x").await.expect_status(200);
    Client::new(free).get("/x").await.expect_status(200);
    assert!(Client::new(gone).try_connect().await.is_err());
    let mut unix = RawClient::connect_unix(&gw.directory().join("run/edge.sock")).await;
    unix.get("/x").await.expect_status(200);
}

#[tokio::test]
async fn a_broken_configuration_leaves_the_old_process_serving() {
    let app = upstream().start().await;
    let gw = in_front(&app).await;
    gw.rewrite("edgeward.toml", |text| text.replace("upstream =", "upstraem ="));
    let why = refused(&gw, "upgrade").await;
    assert!(why.contains("did you mean \"upstream\""), "{why}");
    gw.rewrite("edgeward.toml", |text| text.replace("upstraem =", "upstream ="));
    // A listener that cannot be bound.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listener =
        format!("[[listeners]]\nname = \"taken\"\naddress = \"{}\"\n", taken.local_addr().unwrap());
    gw.rewrite("edgeward.toml", |text| text + &listener);
    let why = refused(&gw, "upgrade").await;
    assert!(why.contains("cannot listen on"), "{why}");
    gw.rewrite("edgeward.toml", |text| text.replace(&listener, ""));
    upgrade(&gw).await;
    gw.get("/x").await.expect_status(200);
    let mut gw = gw;
    gw.exit().await;
}

#[tokio::test]
async fn a_binary_that_crashes_leaves_the_old_process_serving() {
    let app = upstream().start().await;
    let gw = in_front(&app).await;
    gw.install("exit 3");
    let why = refused(&gw, "upgrade").await;
    assert!(why.contains("ended before it was ready: exit status: 3"), "{why}");
    gw.install("kill -SEGV $$");
    let why = refused(&gw, "upgrade").await;
    assert!(why.contains("signal: 11"), "{why}");
    std::fs::remove_file(gw.directory().join("edgeward")).unwrap();
    let why = refused(&gw, "upgrade").await;
    assert!(why.contains("cannot start"), "{why}");
    assert_eq!(gw.stderr().matches("upgrade failed, this process goes on").count(), 3, "{}", gw.stderr());
    gw.stop().await;
}

/// One at a time: a second upgrade during the first is told so, and changes nothing.
#[tokio::test]
async fn a_second_upgrade_during_the_first_is_refused() {
    let app = upstream().start().await;
    let mut gw = in_front(&app).await;
    let (started, go) = (gw.directory().join("started"), gw.directory().join("go"));
    // Slow to start: waits until it is let go.
    gw.install(&format!(
        "touch started\nwhile ! test -e go; do sleep 0.05; done\nexec {} \"$@\"",
        env!("CARGO_BIN_EXE_edgeward")
    ));
    let directory = gw.directory();
    let first = tokio::spawn(run(command(&directory, &["upgrade", "-c", "edgeward.toml"])));
    eventually("the new process to start", async || started.exists().then_some(())).await;
    let why = refused(&gw, "upgrade").await;
    assert!(why.contains("under way already"), "{why}");
    std::fs::write(&go, "").unwrap();
    let first = first.await.unwrap();
    assert_eq!(first.status, 0, "{}", first.stderr);
    assert!(gw.exit().await.success());
    gw.get("/x").await.expect_status(200);
}

/// Whoever can write to the control socket's directory could take its place.
#[tokio::test]
async fn an_unsafe_directory_is_refused() {
    use std::os::unix::fs::PermissionsExt;

    let app = upstream().start().await;
    let gw = in_front(&app).await;
    let run = gw.directory().join("run");
    std::fs::set_permissions(&run, std::fs::Permissions::from_mode(0o777)).unwrap();
    let why = refused(&gw, "upgrade").await;
    assert!(why.contains("can be written by others"), "{why}");
    std::fs::set_permissions(&run, std::fs::Permissions::from_mode(0o700)).unwrap();
    upgrade(&gw).await;
    let mut gw = gw;
    gw.exit().await;
}

/// What another process listens on stays that process's until it has let go of it: a failed upgrade removes no file.
#[tokio::test]
async fn a_failed_upgrade_leaves_unix_sockets_alone() {
    let app = upstream().start().await;
    let gw = in_front_of(&app, "")
        .listener("main", "127.0.0.1:0")
        .listener("socket", "unix:run/edge.sock")
        .and(SERVER)
        .linked()
        .start()
        .await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let more = format!("[[listeners]]\nname = \"taken\"\naddress = \"{}\"\n", taken.local_addr().unwrap());
    gw.rewrite("edgeward.toml", |text| text + &more);
    let why = refused(&gw, "upgrade").await;
    assert!(why.contains("cannot listen on"), "{why}");
    // After the control socket was taken over, too.
    gw.rewrite("edgeward.toml", |text| {
        text.replace(&more, "").replace("run/edgeward.pid", "edgeward.toml/no.pid")
    });
    let ran = gw.order("upgrade").await;
    assert!(ran.stderr.contains("pid file"), "{}", ran.stderr);
    gw.rewrite("edgeward.toml", |text| text.replace("edgeward.toml/no.pid", "run/edgeward.pid"));
    let socket = gw.directory().join("run/edge.sock");
    RawClient::connect_unix(&socket).await.get("/x").await.expect_status(200);
    upgrade(&gw).await;
    let mut gw = gw;
    assert!(gw.exit().await.success());
    RawClient::connect_unix(&socket).await.get("/x").await.expect_status(200);
    assert_eq!(gw.order("quit").await.status, 0);
    eventually("the socket to be gone", async || (!socket.exists()).then_some(())).await;
}

/// A unix listener that the new configuration does not have leaves no file behind.
#[tokio::test]
async fn sockets_that_nobody_listens_on_are_removed() {
    let app = upstream().start().await;
    let mut gw = in_front_of(&app, "")
        .listener("main", "127.0.0.1:0")
        .listener("socket", "unix:run/edge.sock")
        .and(SERVER)
        .linked()
        .start()
        .await;
    gw.rewrite("edgeward.toml", |text| {
        text.replace("[[listeners]]\nname = \"socket\"\naddress = \"unix:run/edge.sock\"\n", "")
    });
    upgrade(&gw).await;
    assert!(gw.exit().await.success());
    assert!(!gw.directory().join("run/edge.sock").exists());
    gw.get("/x").await.expect_status(200);
}

/// A script that starts the program without becoming it.
#[tokio::test]
async fn a_wrapper_may_stand_between() {
    let app = upstream().start().await;
    let mut gw = in_front(&app).await;
    gw.install(&format!("{} \"$@\"\nexit $?", env!("CARGO_BIN_EXE_edgeward")));
    let pid = upgrade(&gw).await;
    assert_eq!(pid_in_file(&gw), pid);
    assert!(gw.exit().await.success());
    gw.get("/x").await.expect_status(200);
}

/// QUIT during an upgrade: the new process does not get to serve, and nothing keeps the old one from leaving.
#[tokio::test]
async fn a_quit_during_an_upgrade_ends_both() {
    let app = upstream().start().await;
    let mut gw = in_front(&app).await;
    gw.install("touch started\nexec sleep 60");
    let directory = gw.directory();
    let upgrading = tokio::spawn(run(command(&directory, &["upgrade", "-c", "edgeward.toml"])));
    let started = gw.directory().join("started");
    eventually("the new process to start", async || started.exists().then_some(())).await;
    gw.signal(Signal::TERM);
    assert!(gw.exit().await.success());
    let ran = upgrading.await.unwrap();
    assert_eq!(ran.status, 1, "{}", ran.stdout);
    assert!(!gw.directory().join("run/edgeward.pid").exists());
    nobody_is_left(&gw).await;
}

async fn nobody_is_left(gw: &Gateway) {
    let directory = gw.directory().canonicalize().unwrap();
    eventually("all processes to be gone", async || {
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let here = |entry: std::fs::DirEntry| {
            std::fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd == directory)
        };
        (!processes.into_iter().any(here)).then_some(())
    })
    .await;
}

/// INT during an upgrade ends both processes: the new one does not serve yet.
#[tokio::test]
async fn a_stop_during_an_upgrade_leaves_nobody() {
    let app = upstream().start().await;
    let mut gw = in_front(&app).await;
    gw.install("touch started\nexec sleep 60");
    gw.signal(Signal::USR2);
    let started = gw.directory().join("started");
    eventually("the new process to start", async || started.exists().then_some(())).await;
    gw.signal(Signal::INT);
    gw.exit().await;
    nobody_is_left(&gw).await;
}

/// systemd hears who serves (sd_notify(3)).
#[tokio::test]
async fn the_service_manager_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notify");
    let socket = tokio::net::UnixDatagram::bind(&path).unwrap();
    let app = upstream().start().await;
    let mut gw =
        in_front_of(&app, "").and(SERVER).linked().env("NOTIFY_SOCKET", path.to_str().unwrap()).start().await;
    let said = async || {
        let mut bytes = [0; 256];
        let length = within("word to the service manager", socket.recv(&mut bytes)).await.unwrap();
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    };
    assert_eq!(said().await, format!("READY=1\nMAINPID={}\n", gw.pid()));
    let pid = upgrade(&gw).await;
    // The old process for the new one: until then it is the one that systemd believes.
    assert_eq!(said().await, format!("MAINPID={pid}\n"));
    assert!(gw.exit().await.success());
    assert_eq!(gw.order("quit").await.status, 0);
    assert_eq!(said().await, "STOPPING=1\n");
}

/// What root could read and the user cannot would make every reload fail: said at the start instead.
#[tokio::test]
async fn what_the_user_cannot_read_is_said_at_the_start() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    use std::os::unix::fs::PermissionsExt;

    let config = "[server]\nuser = \"nobody\"\n[[routes]]\npath = \"/x\"\nrespond = { status = 200 }\n";
    let hide = |directory: &std::path::Path| {
        let secret = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(directory.join("edgeward.toml"), secret).unwrap();
    };
    let ran = gateway(config).prepare(hide).refused().await;
    assert!(ran.stderr.contains("edgeward.toml cannot be read as that user"), "{}", ran.stderr);
}

/// As root with `user`: the new process is that user, has the sockets, and may still bind a low port.
#[tokio::test]
async fn privileges_stay_dropped() {
    if !rustix::process::geteuid().is_root() {
        // There is nothing to drop: the account of whoever runs the tests is all there is.
        return;
    }
    let app = upstream().start().await;
    let server = format!("{SERVER}user = \"nobody\"\n");
    let builder = in_front_of(&app, "").and(&server).file("run/keep", "");
    let mut gw = builder
        .linked()
        .prepare(|directory| {
            for path in [directory.to_owned(), directory.join("run")] {
                std::os::unix::fs::chown(&path, Some(65534), None).unwrap();
            }
        })
        .start()
        .await;
    let pid = upgrade(&gw).await;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = |name: &str| status.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
    assert!(line("Uid:").split_whitespace().skip(1).all(|uid| uid == "65534"), "{status}");
    // Bit 10 alone: CAP_NET_BIND_SERVICE.
    assert_eq!(line("CapEff:").split_whitespace().nth(1), Some("0000000000000400"));
    assert!(gw.exit().await.success());
    gw.get("/x").await.expect_status(200);
    upgrade(&gw).await;
    gw.get("/x").await.expect_status(200);
}
