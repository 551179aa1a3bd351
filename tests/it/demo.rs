//! `edgeward demo`: every line of its tour works as printed and shows what it says.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use edgeward::demo::tour;
use rustix::process::{Pid, Signal, kill_process};

use crate::support::*;

/// A running demo on free ports, in a directory of its own.
struct Demo {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    directory: tempfile::TempDir,
}

impl Demo {
    async fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap()).await
    }

    async fn start_in(directory: tempfile::TempDir) -> Self {
        let mut command = command(directory.path(), &["demo", "--free-ports"]);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (sink, stdout) = (lines.clone(), child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                sink.lock().unwrap().push(line);
            }
        });
        let mut demo = Self { child, lines, directory };
        eventually("the tour", async || {
            assert!(demo.child.try_wait().unwrap().is_none(), "the demo ended: {:?}", demo.lines());
            demo.lines().iter().any(|line| line.starts_with("Press Ctrl-C")).then_some(())
        })
        .await;
        demo
    }

    fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn every_line_of_the_tour_shows_what_it_says() {
    let mut demo = Demo::start().await;
    let lines = demo.lines();
    let printed: Vec<_> = lines
        .windows(2)
        .filter(|pair| pair[0].starts_with("# ") && pair[1].starts_with("curl "))
        .map(|pair| (pair[0].trim_start_matches("# ").to_owned(), pair[1].clone()))
        .collect();
    let nowhere = "127.0.0.1:1".parse().unwrap();
    let places = tour::Places {
        gateway: nowhere,
        secure: nowhere,
        admin: nowhere,
        users: nowhere,
        orders: nowhere,
        payments: nowhere,
        authority: "ca.pem".into(),
    };
    let stops = tour::stops(&places);
    assert_eq!(printed.len(), stops.len(), "{lines:#?}");
    for ((shows, command), stop) in printed.iter().zip(&stops) {
        assert_eq!(shows, stop.shows);
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(command);
        let ran = run(shell).await;
        assert_eq!(ran.status, 0, "{command}: {}", ran.stderr);
        for outcome in stop.outcome {
            assert!(ran.stdout.contains(outcome), "{shows}\n{command}\n{:?} lacks {outcome:?}", ran.stdout);
        }
    }
    kill_process(Pid::from_child(&demo.child), Signal::INT).unwrap();
    let status = eventually("the demo to end", async || demo.child.try_wait().unwrap()).await;
    assert!(status.success(), "{status}");
}

/// The lines for a broker at the end of its configuration are true: without their `#` a message goes to a queue, in the demo
/// that runs.
#[tokio::test]
async fn with_a_broker_a_route_publishes() {
    let rabbit = RabbitMq::start().await;
    let amqp = Amqp::connect(&rabbit.url()).await;
    let directory = tempfile::tempdir().unwrap();
    let checkout = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    for file in ["conf/demo.toml", "certs/localhost.pem", "certs/localhost-key.pem", "certs/ca.pem"] {
        let place = directory.path().join(file);
        std::fs::create_dir_all(place.parent().unwrap()).unwrap();
        std::fs::copy(checkout.join(file), place).unwrap();
    }
    let demo = Demo::start_in(directory).await;
    let gateway =
        demo.lines().iter().find_map(|line| line.strip_prefix("listening plain http://")?.parse().ok());
    let client = Client::new(gateway.expect("the gateway's address"));
    let post = || {
        let request = client.request("POST", "/api/order-messages");
        request.header("content-type", "application/json").body("{\"productId\":1}")
    };
    post().await.expect_status(404);

    let path = demo.directory.path().join("conf/demo.toml");
    let config = std::fs::read_to_string(&path).unwrap();
    let (before, lines) = config.split_once("\n#[brokers.main]").unwrap();
    let lines = lines.replace("\n#", "\n");
    let theirs = "amqp://guest:guest@127.0.0.1:5672/%2f";
    assert!(lines.contains(theirs), "{lines}");
    let changed = format!("{before}\n[brokers.main]{}", lines.replace(theirs, &rabbit.url()));
    std::fs::write(path.with_extension("draft"), changed).unwrap();
    std::fs::rename(path.with_extension("draft"), &path).unwrap();
    let away = async || (post().await.json()["code"] == "broker.no_queue").then_some(());
    eventually("the broker to miss the queue", away).await;
    amqp.queue("orders").await;
    let mut letters = amqp.take("orders").await;
    post().await.expect_status(202);
    assert_eq!(letters.next().await.text(), "{\"productId\":1}");
}
