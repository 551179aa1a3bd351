//! gRPC's interoperability cases through the gateway, cleartext and TLS, with gRPC's own C implementation on both ends.

use std::io::{BufRead, BufReader, Lines, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::support::*;

/// The fourteen cases that need no accounts of others, and one with compressed messages.
const CASES: usize = 15;

/// `peer.py`: the service, and the client of all cases.
struct Peer {
    process: Child,
    orders: ChildStdin,
    told: Lines<BufReader<ChildStdout>>,
    address: SocketAddr,
}

impl Peer {
    fn start() -> Self {
        // The system's own: its packages are what ./test installs.
        let mut process = Command::new("/usr/bin/python3")
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/grpc_interop/peer.py"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3");
        let orders = process.stdin.take().unwrap();
        let mut told = BufReader::new(process.stdout.take().unwrap()).lines();
        let port = told.next().expect("a port: is python3-grpcio installed? ./test does it").unwrap();
        Self { process, orders, told, address: SocketAddr::from(([127, 0, 0, 1], port.parse().unwrap())) }
    }

    /// Runs all cases against `target`: a line for each.
    fn run(mut self, target: &str) -> (Self, Vec<String>) {
        writeln!(self.orders, "{target}").unwrap();
        let mut lines = Vec::new();
        loop {
            let line = self.told.next().expect("it goes on").unwrap();
            if line == "done" {
                return (self, lines);
            }
            lines.push(line);
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Addressed for Peer {
    fn socket_address(&self) -> SocketAddr {
        self.address
    }
}

#[tokio::test]
async fn all_cases_pass_over_cleartext_and_tls() {
    let mut peer = tokio::task::spawn_blocking(Peer::start).await.unwrap();
    let authority = Authority::new();
    let gw = in_front_of(&peer, "http2 = true")
        .identity("site", &authority.server(&["localhost"]))
        .listener("plain", "127.0.0.1:0")
        .tls_listener("main", &["site"])
        .start()
        .await;
    let trusted = authority.write(&gw.directory(), "authority.pem");
    let mut failed = Vec::new();
    for target in [gw.listener("plain").to_string(), format!("{} {}", gw.listener("main"), trusted.display())]
    {
        let lines;
        (peer, lines) =
            within("all cases", tokio::task::spawn_blocking(move || peer.run(&target))).await.unwrap();
        assert_eq!(lines.len(), CASES, "{lines:#?}");
        failed.extend(lines.into_iter().filter(|line| !line.ends_with(" ok")));
    }
    assert!(failed.is_empty(), "{failed:#?}");
}
