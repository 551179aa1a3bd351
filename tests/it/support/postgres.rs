//! PostgreSQL of the system's package, in a directory of its own, on a free port. Ends with the value that holds it.

use std::net::TcpListener;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Longest a server may take to start or to stop on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a server with a certificate is told besides; paths start at its data.
const TLS: [&str; 3] = ["ssl=on", "ssl_cert_file=../server.pem", "ssl_key_file=../server-key.pem"];

/// A server.
pub struct Postgres {
    directory: TempDir,
    port: u16,
    /// Whether it takes TLS, too.
    tls: bool,
    /// `None` while it is stopped.
    server: Option<Child>,
}

impl Postgres {
    /// Makes a cluster and starts its server.
    pub fn start() -> Self {
        Self::begin(None)
    }

    /// The same, of a server that shows a certificate to those who want TLS: both as PEM.
    pub fn start_with_tls(certificate: &str, key: &str) -> Self {
        Self::begin(Some((certificate, key)))
    }

    fn begin(identity: Option<(&str, &str)>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .unwrap();
        let home = directory.path().join("cluster");
        std::fs::create_dir(&home).unwrap();
        if let Some((uid, gid)) = somebody_else() {
            chown(&home, Some(uid), Some(gid)).unwrap();
        }
        let password = directory.path().join("password");
        std::fs::write(&password, "s3cret").unwrap();
        let output = program("initdb", &home)
            .args(["-D", "data", "-U", "edgeward", "-A", "scram-sha-256", "--pwfile", "../password"])
            .args(["-E", "UTF8", "--locale", "C", "--no-sync", "--no-instructions"])
            .output()
            .expect("initdb runs: ./test installs PostgreSQL");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        // Free a moment ago; whoever takes it meanwhile shows in the server's log.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut this = Self { directory, port, tls: identity.is_some(), server: None };
        if let Some((certificate, key)) = identity {
            this.keep(certificate, key);
        }
        this.go();
        this
    }

    /// Starts the server, again after [`Postgres::stop`].
    pub fn go(&mut self) {
        let home = self.home();
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log()).unwrap();
        let settings = [
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            "fsync=off",
            "shared_buffers=16MB",
            "max_connections=60",
            "autovacuum=off",
        ];
        let server = program("postgres", &home)
            .args(["-D", "data", "-p", &self.port.to_string()])
            .args(settings.iter().flat_map(|setting| ["-c", setting]))
            .args(self.tls.then_some(TLS).into_iter().flatten().flat_map(|setting| ["-c", setting]))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("postgres runs: ./test installs it");
        self.server = Some(server);
        let until = Instant::now() + PATIENCE;
        while !self.answers() {
            let ended = self.server.as_mut().and_then(|server| server.try_wait().unwrap());
            let log = || std::fs::read_to_string(self.log()).unwrap_or_default();
            assert!(
                ended.is_none() && Instant::now() < until,
                "PostgreSQL does not start: {ended:?}\n{}",
                log()
            );
            pause();
        }
    }

    /// Stops the server at once, as if it had been pulled out: `SIGQUIT`, without a farewell to its clients.
    pub fn stop(&mut self) {
        let Some(mut server) = self.server.take() else { return };
        let pid = rustix::process::Pid::from_child(&server);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::QUIT);
        let until = Instant::now() + PATIENCE;
        while server.try_wait().is_ok_and(|ended| ended.is_none()) {
            if Instant::now() > until {
                let _ = server.kill();
                let _ = server.wait();
                return;
            }
            pause();
        }
    }

    /// The URL of a new, empty database.
    pub fn database(&self) -> String {
        new_database(&self.url())
    }

    pub fn address(&self) -> std::net::SocketAddr {
        std::net::SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// The server's URL without a database.
    pub fn url(&self) -> String {
        format!("postgres://edgeward:s3cret@127.0.0.1:{}", self.port)
    }

    /// Puts a certificate and its key where the server reads them, which wants the key to be its own.
    fn keep(&self, certificate: &str, key_pem: &str) {
        std::fs::write(self.home().join("server.pem"), certificate).unwrap();
        let key = self.home().join("server-key.pem");
        std::fs::write(&key, key_pem).unwrap();
        std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        if let Some((uid, gid)) = somebody_else() {
            chown(&key, Some(uid), Some(gid)).unwrap();
        }
    }

    fn answers(&self) -> bool {
        psql(&self.url(), "SELECT 1").is_ok()
    }

    fn home(&self) -> PathBuf {
        self.directory.path().join("cluster")
    }

    fn log(&self) -> PathBuf {
        self.directory.path().join("log")
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.stop();
        if std::thread::panicking() {
            eprintln!("--- PostgreSQL\n{}---", std::fs::read_to_string(self.log()).unwrap_or_default());
        }
    }
}

fn new_database(url: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("test_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    psql(url, &format!("CREATE DATABASE {name}")).unwrap_or_else(|error| panic!("{error}"));
    format!("{url}/{name}")
}

/// Runs `sql` in the database of `url`, or in the one that is always there.
pub fn psql(url: &str, sql: &str) -> Result<String, String> {
    let url = if url.matches('/').count() < 3 { format!("{url}/postgres") } else { url.to_owned() };
    let output = program("psql", Path::new("/"))
        .args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-d", &url, "-c", sql])
        .env("PGCONNECT_TIMEOUT", "5")
        .output()
        .map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned());
    }
    Err(String::from_utf8_lossy(&output.stderr).into_owned())
}

/// A program of the newest version there is, run in `directory`; as somebody else if this is root, whom it refuses.
fn program(name: &str, directory: &Path) -> Command {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> =
        versions.map(|version| version.path().join("bin").join(name)).filter(|path| path.exists()).collect();
    found.sort_by_key(|path| path.iter().nth(4).and_then(|version| version.to_str()?.parse::<u32>().ok()));
    let mut command = Command::new(found.pop().unwrap_or_else(|| name.into()));
    command.current_dir(directory).stdin(Stdio::null()).env("LC_ALL", "C");
    if let Some((uid, gid)) = somebody_else() {
        command.uid(uid).gid(gid);
    }
    command
}

/// Whom the server runs as when this is root.
fn somebody_else() -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let found =
        ["postgres", "nobody"].into_iter().find_map(|name| nix::unistd::User::from_name(name).ok()?);
    found.map(|user| (user.uid.as_raw(), user.gid.as_raw()))
}

/// Between two looks at a process.
fn pause() {
    std::thread::park_timeout(Duration::from_millis(20));
}
