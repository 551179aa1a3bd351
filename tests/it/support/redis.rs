//! Debian's redis-server, on a free port, with a directory of its own.

use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::{DeadPort, eventually};

pub struct Redis {
    process: Option<Child>,
    directory: TempDir,
    port: u16,
}

impl Redis {
    pub async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        // Released for redis-server to take.
        let port = DeadPort::new().address().port();
        let mut redis = Self { process: None, directory, port };
        redis.again().await;
        redis
    }

    /// Starts it once more, with nothing in it.
    pub async fn again(&mut self) {
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--port", &self.port.to_string(), "--daemonize", "no"]);
        command.args(["--save", "", "--appendonly", "no"]).arg("--dir").arg(self.directory.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.process = Some(command.spawn().expect("redis-server is needed: ./test installs it"));
        let address = SocketAddr::from(([127, 0, 0, 1], self.port));
        eventually("redis-server answers", async || {
            TcpStream::connect_timeout(&address, Duration::from_millis(100)).ok()
        })
        .await;
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}
