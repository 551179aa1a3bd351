//! A Redis of a test's own: Debian's redis-server on a free port, with a directory that goes with it.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use super::config::ClusterSettings;
use super::{Cluster, RedisUrl};
use crate::telemetry::metrics::ClusterMetrics;

/// Longest that anything may take in a test.
const LONG: Duration = Duration::from_secs(20);

pub(crate) struct Server {
    process: Option<Child>,
    directory: tempfile::TempDir,
    pub(crate) port: u16,
    options: Vec<String>,
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::with(&[])
    }

    /// With more `options` of redis-server.
    pub(crate) fn with(options: &[&str]) -> Self {
        let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
        // Another process may take a port that was free a moment ago.
        for _ in 0..5 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let directory = tempfile::tempdir().unwrap();
            let mut server = Self { process: None, directory, port, options: options.clone() };
            server.launch();
            if server.answers() {
                return server;
            }
        }
        panic!("redis-server does not start");
    }

    fn launch(&mut self) {
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--port", &self.port.to_string(), "--daemonize", "no"]);
        command.args(["--save", "", "--appendonly", "no", "--loglevel", "warning"]);
        command.arg("--dir").arg(self.directory.path()).args(&self.options);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().expect("redis-server is needed: ./test installs it");
        self.process = Some(process);
    }

    /// Whether it comes to answer, rather than end.
    fn answers(&mut self) -> bool {
        let client = redis::Client::open(self.url()).unwrap();
        let until = crate::base::clock::now() + LONG;
        while crate::base::clock::now() < until {
            if let Some(Ok(Some(_))) = self.process.as_mut().map(Child::try_wait) {
                return false;
            }
            let connected = client.get_connection_with_timeout(Duration::from_millis(200));
            if connected.is_ok() {
                return true;
            }
            std::thread::yield_now();
        }
        false
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Starts it again at the same port, with nothing in it.
    pub(crate) fn restart(&mut self) {
        self.kill();
        self.launch();
        assert!(self.answers(), "redis-server does not start again");
    }

    /// Does `command` and gives its answer.
    pub(crate) fn ask<T: redis::FromRedisValue>(&self, command: &[&str]) -> T {
        let client = redis::Client::open(self.url()).unwrap();
        let mut connection = client.get_connection().unwrap();
        let mut asked = redis::cmd(command[0]);
        asked.arg(&command[1..]);
        asked.query(&mut connection).unwrap()
    }

    /// Answers nobody for `how_long`, but takes connections.
    pub(crate) fn pause(&self, how_long: Duration) {
        let () = self.ask(&["CLIENT", "PAUSE", &how_long.as_millis().to_string(), "ALL"]);
    }

    pub(crate) fn settings(&self) -> ClusterSettings {
        settings(&self.url())
    }

    /// An instance that shares over it, started and connected.
    pub(crate) async fn instance(&self) -> Arc<Cluster> {
        started(self.settings()).await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Settings that a busy machine does not upset.
pub(crate) fn settings(url: &str) -> ClusterSettings {
    ClusterSettings {
        redis: RedisUrl::parse(url).unwrap(),
        prefix: "test:".to_owned(),
        ca: None,
        timeout: Duration::from_secs(5),
        lease: Duration::from_millis(10),
    }
}

/// An instance, not started.
pub(crate) fn cluster(settings: ClusterSettings) -> Arc<Cluster> {
    Cluster::new(settings, Arc::new(ClusterMetrics::default()))
}

pub(crate) async fn started(settings: ClusterSettings) -> Arc<Cluster> {
    let cluster = cluster(settings);
    cluster.start(Arc::new(|_| {}));
    assert!(cluster.ready(LONG).await, "{:?}", cluster.status());
    cluster
}

/// Waits until `condition` holds.
pub(crate) async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let until = crate::base::clock::now() + LONG;
    while !condition() {
        assert!(crate::base::clock::now() < until, "{what} did not come about");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A runtime of the test's own: connections end with it.
pub(crate) fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(work)
}

/// Stands between an instance and Redis, and can be shut.
pub(crate) struct Gate {
    pub(crate) port: u16,
    open: tokio::sync::watch::Sender<bool>,
    _task: crate::base::task::AbortOnDrop,
}

impl Gate {
    /// An open one. Needs a runtime.
    pub(crate) async fn before(server: &Server) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (open, is_open) = tokio::sync::watch::channel(true);
        let to = server.port;
        let task = crate::base::task::spawn("gate", async move {
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                let mut is_open = is_open.clone();
                if !*is_open.borrow() {
                    continue;
                }
                drop(crate::base::task::spawn("gate", async move {
                    let Ok(mut server) = tokio::net::TcpStream::connect(("127.0.0.1", to)).await else {
                        return;
                    };
                    tokio::select! {
                        _ = is_open.wait_for(|open| !*open) => {}
                        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                    }
                }));
            }
        });
        Self { port, open, _task: crate::base::task::AbortOnDrop::new(task) }
    }

    /// Ends what passes: nothing does any more when this resolves.
    pub(crate) async fn shut(&self) {
        self.open.send_replace(false);
        // Whoever takes connections has one, too.
        while self.open.receiver_count() > 1 {
            tokio::task::yield_now().await;
        }
    }

    pub(crate) fn open(&self) {
        self.open.send_replace(true);
    }

    pub(crate) fn settings(&self) -> ClusterSettings {
        settings(&format!("redis://127.0.0.1:{}", self.port))
    }
}
