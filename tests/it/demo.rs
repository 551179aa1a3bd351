//! `edgeward demo`: every line of its tour works as printed and shows what it says.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use edgeward::demo::tour;
use rustix::process::{Pid, Signal, kill_process};

use crate::support::*;

/// A running demo on free ports, in an empty directory.
struct Demo {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    _directory: tempfile::TempDir,
}

impl Demo {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut command = command(directory.path(), &["demo", "--free-ports"]);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (sink, stdout) = (lines.clone(), child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                sink.lock().unwrap().push(line);
            }
        });
        let mut demo = Self { child, lines, _directory: directory };
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
