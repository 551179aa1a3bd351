//! The gateway: the real binary with a configuration of the test's, in a directory of its own.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};

use tempfile::TempDir;

use super::client::{Ran, run};
use super::requests::{Client, RequestBuilder};
use super::{DeadPort, RawClient, RawUpstream, Unreachable, Upstream, eventually};

/// Starts describing a gateway. `{name}` in `config` becomes the address given by [`GatewayBuilder::with`].
///
/// Without a listener, one named `main` on a free port is added; likewise an admin listener.
pub fn gateway(config: &str) -> GatewayBuilder {
    GatewayBuilder {
        config: config.to_owned(),
        files: Vec::new(),
        environment: Vec::new(),
        linked: false,
        limit: None,
        prepare: None,
        reader: Reader::Reads,
        reads_complaints: true,
    }
}

/// A gateway that passes everything to one server, `app`. `more` is added to the upstream's table and after it.
pub fn in_front_of(app: &impl Addressed, more: &str) -> GatewayBuilder {
    let routes = "[[routes]]\nname = \"all\"\npath = \"/*\"\nupstream = \"app\"\n";
    gateway(&format!("[upstreams.app]\nservers = [\"{{app}}\"]\n{more}\n{routes}")).with("app", app)
}

pub struct GatewayBuilder {
    config: String,
    files: Vec<(String, String)>,
    environment: Vec<(String, String)>,
    linked: bool,
    limit: Option<String>,
    prepare: Option<Prepare>,
    reader: Reader,
    reads_complaints: bool,
}

/// What whoever reads the gateway's standard output does once it says that it is ready.
#[derive(Clone, Copy, PartialEq)]
pub enum Reader {
    /// Goes on reading.
    Reads,
    /// Keeps the pipe, and reads nothing from it.
    Sleeps,
    /// Closes it.
    Leaves,
}

type Prepare = Box<dyn FnOnce(&Path) + Send>;

/// What has an address to put into a configuration.
pub trait Addressed {
    fn socket_address(&self) -> SocketAddr;
}

impl Addressed for Upstream {
    fn socket_address(&self) -> SocketAddr {
        self.address()
    }
}
impl Addressed for RawUpstream {
    fn socket_address(&self) -> SocketAddr {
        self.address()
    }
}
impl Addressed for DeadPort {
    fn socket_address(&self) -> SocketAddr {
        self.address()
    }
}
impl Addressed for Unreachable {
    fn socket_address(&self) -> SocketAddr {
        self.address()
    }
}

impl GatewayBuilder {
    /// Replaces `{name}` by the server's address.
    pub fn with(mut self, name: &str, server: &impl Addressed) -> Self {
        self.config = self.config.replace(&format!("{{{name}}}"), &server.socket_address().to_string());
        self
    }

    /// Replaces a text in the configuration, which has it.
    pub fn replacing(mut self, text: &str, by: &str) -> Self {
        assert!(self.config.contains(text), "the configuration has no {text}");
        self.config = self.config.replace(text, by);
        self
    }

    /// Adds to the end of the configuration.
    pub fn and(mut self, more: &str) -> Self {
        self.config.push('\n');
        self.config.push_str(more);
        self
    }

    /// Adds a listener without TLS.
    pub fn listener(self, name: &str, address: &str) -> Self {
        self.and(&format!("[[listeners]]\nname = \"{name}\"\naddress = \"{address}\"\n"))
    }

    /// Adds a listener on a free port with these certificates: names given to [`GatewayBuilder::identity`].
    pub fn tls_listener(mut self, name: &str, certificates: &[&str]) -> Self {
        self = self.listener(name, "127.0.0.1:0");
        for certificate in certificates {
            self = self.and(&format!(
                "[[listeners.certificates]]\ncert = \"{certificate}.pem\"\nkey = \"{certificate}-key.pem\""
            ));
        }
        self
    }

    /// Puts a file beside the configuration.
    pub fn file(mut self, name: &str, contents: &str) -> Self {
        self.files.push((name.to_owned(), contents.to_owned()));
        self
    }

    /// Puts `NAME.pem` and `NAME-key.pem` beside the configuration.
    pub fn identity(self, name: &str, identity: &super::Identity) -> Self {
        self.file(&format!("{name}.pem"), &identity.cert_pem)
            .file(&format!("{name}-key.pem"), &identity.key_pem)
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts it through a link in its directory, which [`Gateway::install`] can point to something else.
    pub fn linked(mut self) -> Self {
        self.linked = true;
        self
    }

    /// Has its standard output treated so.
    pub fn reader(mut self, reader: Reader) -> Self {
        self.reader = reader;
        self
    }

    /// Has nobody read its standard error.
    pub fn nobody_reads_complaints(mut self) -> Self {
        self.reads_complaints = false;
        self
    }

    /// Starts it under a limit, as the shell's `ulimit` is told.
    pub fn under_limit(mut self, limit: &str) -> Self {
        self.limit = Some(limit.to_owned());
        self
    }

    /// Does something to its directory before it starts.
    pub fn prepare(mut self, prepare: impl FnOnce(&Path) + Send + 'static) -> Self {
        self.prepare = Some(Box::new(prepare));
        self
    }

    /// Starts it and waits until it says that it is ready.
    pub async fn start(self) -> Gateway {
        let directory = self.write();
        if let Some(prepare) = self.prepare {
            prepare(directory.path());
        }
        let mut command = command(directory.path(), &["run", "-c", "edgeward.toml"]);
        if self.linked {
            let link = directory.path().join("edgeward");
            std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_edgeward"), &link).unwrap();
            let given: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
            command = Command::new(link);
            command.args(given).current_dir(directory.path()).env_remove("RUST_LOG").env("NO_COLOR", "1");
        }
        if let Some(limit) = self.limit {
            let mut limited = Command::new("sh");
            limited.args(["-c", &format!("ulimit {limit} && exec \"$0\" \"$@\"")]).arg(command.get_program());
            limited
                .args(command.get_args())
                .current_dir(directory.path())
                .env_remove("RUST_LOG")
                .env("NO_COLOR", "1");
            command = limited;
        }
        command.envs(self.environment).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary starts");
        let stdout = Lines::read_as(child.stdout.take().unwrap(), self.reader);
        let unread = if self.reads_complaints { None } else { child.stderr.take() };
        let stderr = child.stderr.take().map_or_else(Lines::default, Lines::read);
        let mut gateway = Gateway {
            child,
            directory,
            stdout,
            stderr,
            listeners: BTreeMap::new(),
            admin: None,
            ended: None,
            forgiven: &[],
            _unread: unread,
        };
        let banner = eventually("the gateway to be ready", async || gateway.banner()).await;
        gateway.learn(&banner);
        gateway
    }

    /// Starts it expecting that it refuses its configuration.
    pub async fn refused(self) -> Ran {
        let directory = self.write();
        if let Some(prepare) = self.prepare {
            prepare(directory.path());
        }
        let mut command = command(directory.path(), &["run", "-c", "edgeward.toml"]);
        command.envs(self.environment);
        let ran = run(command).await;
        assert_ne!(ran.status, 0, "it started: {}", ran.stdout);
        assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
        ran
    }

    /// Runs another command of the binary on this configuration.
    pub async fn command(mut self, arguments: &[&str]) -> Ran {
        if !self.config.contains("[limits]") {
            // So few that every machine lets us open the files for them: `check` would warn.
            self = self.and("[limits]\nconnections = 100\nupstream_idle = 100\n");
        }
        let directory = self.write();
        let mut command = command(directory.path(), arguments);
        command.envs(self.environment);
        run(command).await
    }

    fn write(&self) -> TempDir {
        let directory = tempfile::tempdir().unwrap();
        for (name, contents) in &self.files {
            let path = directory.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, contents).unwrap();
        }
        let mut config = self.config.clone();
        if !config.contains("[[listeners]]") {
            config.push_str("\n[[listeners]]\nname = \"main\"\naddress = \"127.0.0.1:0\"\n");
        }
        if !config.contains("[admin]") {
            config.push_str("\n[admin]\naddress = \"127.0.0.1:0\"\n");
        }
        std::fs::write(directory.path().join("edgeward.toml"), config).unwrap();
        directory
    }
}

/// The binary under test, to be run in `directory` with an environment that decides nothing.
pub fn command(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_edgeward"));
    command.args(arguments).current_dir(directory).env_remove("RUST_LOG").env("NO_COLOR", "1");
    command
}

/// A running gateway. Killed when dropped.
pub struct Gateway {
    child: Child,
    directory: TempDir,
    stdout: Lines,
    stderr: Lines,
    listeners: BTreeMap<String, String>,
    admin: Option<SocketAddr>,
    ended: Option<ExitStatus>,
    /// Where panics may be: see [`Gateway::forgiving`].
    forgiven: &'static [&'static str],
    _unread: Option<std::process::ChildStderr>,
}

impl Gateway {
    /// The first listener's client, cleartext HTTP/1.1.
    pub fn client(&self) -> Client {
        Client::new(self.address())
    }

    pub fn get(&self, path: &str) -> RequestBuilder {
        self.client().get(path)
    }

    pub fn request(&self, method: &str, path: &str) -> RequestBuilder {
        self.client().request(method, path)
    }

    /// A connection for exact bytes.
    pub async fn raw(&self) -> RawClient {
        RawClient::connect(self.address()).await
    }

    /// The address of the only listener, or of `main` where there are several.
    pub fn address(&self) -> SocketAddr {
        if let [url] = self.listeners.values().collect::<Vec<_>>()[..] {
            return host_of(url);
        }
        self.listener("main")
    }

    /// The address of a listener.
    pub fn listener(&self, name: &str) -> SocketAddr {
        host_of(self.url(name))
    }

    /// A listener as it was printed: `http://…`, `https://…` or `unix:…`.
    pub fn url(&self, name: &str) -> &str {
        self.listeners.get(name).unwrap_or_else(|| panic!("no listener {name} in {:?}", self.listeners))
    }

    /// A client of the admin listener.
    pub fn admin(&self) -> Client {
        Client::new(self.admin.expect("an admin listener"))
    }

    /// Replaces the text of a file beside the configuration, or the configuration itself.
    pub fn rewrite(&self, name: &str, change: impl FnOnce(String) -> String) {
        let path = self.directory().join(name);
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        // As editors and deployments do: a reader never sees half of it.
        let draft = self.directory().join(format!("{name}.draft"));
        std::fs::write(&draft, change(text)).unwrap();
        std::fs::rename(&draft, &path).unwrap();
    }

    /// Runs another command of the binary on its configuration: `reload`, `status`, …
    pub async fn order(&self, word: &str) -> Ran {
        run(command(&self.directory(), &[word, "-c", "edgeward.toml"])).await
    }

    /// Runs the binary in its directory, where its configuration is `edgeward.toml`.
    pub async fn ran(&self, arguments: &[&str]) -> Ran {
        run(command(&self.directory(), arguments)).await
    }

    /// What the process that serves now tells of itself over the control socket.
    pub async fn status(&self) -> serde_json::Value {
        let ran = self.order("status").await;
        assert_eq!(ran.status, 0, "{}", ran.stderr);
        serde_json::from_str(&ran.stdout).unwrap()
    }

    /// Puts a shell script in place of the binary that the next process is started from.
    pub fn install(&self, script: &str) {
        let draft = self.directory().join("edgeward.next");
        std::fs::write(&draft, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&draft, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        std::fs::rename(&draft, self.directory().join("edgeward")).unwrap();
    }

    /// Panics in these places (parts of the paths of files) are known, and the gateway's business is what becomes of them.
    pub fn forgiving(mut self, places: &'static [&'static str]) -> Self {
        self.forgiven = places;
        self
    }

    /// How many of those there were.
    pub fn panics_forgiven(&self) -> usize {
        let stderr = self.stderr.all();
        let panics = stderr.iter().filter(|line| line.contains("panicked at"));
        panics.filter(|line| self.forgiven.iter().any(|place| line.contains(place))).count()
    }

    /// The lines printed at the start, up to `ready`.
    pub fn banner(&mut self) -> Option<Vec<String>> {
        let lines = self.stdout.all();
        let end = lines.iter().position(|line| line == "ready");
        if end.is_none()
            && let Some(status) = self.child.try_wait().unwrap()
        {
            self.ended = Some(status);
            panic!(
                "the gateway ended before it was ready: {status}\n{}\n{}",
                lines.join("\n"),
                self.stderr.all().join("\n")
            );
        }
        end.map(|end| lines[..=end].to_vec())
    }

    fn learn(&mut self, banner: &[String]) {
        for line in banner {
            match line.split_whitespace().collect::<Vec<_>>()[..] {
                ["listening", name, url] => {
                    self.listeners.insert(name.to_owned(), url.to_owned());
                }
                ["admin", url] => self.admin = Some(host_of(url)),
                _ => {}
            }
        }
    }

    /// Lines of the access log, when it goes to standard output: what comes after `ready`.
    pub fn access_log(&self) -> Vec<String> {
        let lines = self.stdout.all();
        let start = lines.iter().position(|line| line == "ready").map_or(lines.len(), |ready| ready + 1);
        lines[start..].to_vec()
    }

    /// Waits for the line of the access log that holds `part`.
    pub async fn logged(&self, part: &str) -> String {
        let found = async || self.access_log().into_iter().find(|line| line.contains(part));
        eventually(&format!("{part:?} in the access log"), found).await
    }

    pub fn stderr(&self) -> String {
        self.stderr.all().join("\n")
    }

    /// The directory of the configuration.
    pub fn directory(&self) -> PathBuf {
        self.directory.path().to_path_buf()
    }

    /// The metrics page.
    pub async fn metrics(&self) -> String {
        self.admin().get("/metrics").await.expect_status(200).text()
    }

    /// The sum of the samples of `name` whose labels contain all of `labels`; `None` when there is none.
    pub async fn metric(&self, name: &str, labels: &[&str]) -> Option<f64> {
        let page = self.metrics().await;
        let mut samples = page
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter(|line| line.split(['{', ' ']).next() == Some(name))
            .filter(|line| labels.iter().all(|label| line.contains(label)))
            .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
            .peekable();
        samples.peek()?;
        Some(samples.sum())
    }

    /// Waits until that metric is `value`.
    pub async fn metric_is(&self, name: &str, labels: &[&str], value: f64) {
        let probe = async || (self.metric(name, labels).await == Some(value)).then_some(());
        eventually(&format!("{name}{labels:?} = {value}"), probe).await;
    }

    /// Resident memory in bytes.
    pub fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Whether the process is there.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for the process to end by itself.
    pub async fn exit(&mut self) -> ExitStatus {
        let status = eventually("the gateway to exit", async || self.child.try_wait().unwrap()).await;
        self.ended = Some(status);
        status
    }

    /// Its end is no accident from here on: another process takes its place.
    pub fn is_replaced(&mut self) {
        self.ended = Some(ExitStatus::default());
    }

    /// Asks it to leave, and asserts that it does so cleanly.
    pub async fn stop(mut self) {
        self.signal(rustix::process::Signal::TERM);
        let status = self.exit().await;
        assert!(status.success(), "{status}\n{}", self.stderr());
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let ended_by_itself = self.ended.is_none() && self.child.try_wait().ok().flatten().is_some();
        let _ = self.child.kill();
        let _ = self.child.wait();
        end_processes_in(self.directory.path());
        let stderr = self.stderr();
        if std::thread::panicking() {
            eprintln!("--- gateway, standard output\n{}", self.stdout.all().join("\n"));
            eprintln!("--- gateway, standard error\n{stderr}\n---");
            return;
        }
        assert!(!ended_by_itself, "the gateway ended during the test:\n{stderr}");
        let on_purpose = |line: &&str| line.starts_with("a fault at ") && line.ends_with(", on purpose");
        let (all, asked_for) =
            (stderr.matches("panicked at").count(), stderr.lines().filter(on_purpose).count());
        let forgiven = self.panics_forgiven();
        assert_eq!(all - forgiven, asked_for, "something panicked in the gateway:\n{stderr}");
    }
}

/// Ends what an upgrade left: processes that are no children of ours.
fn end_processes_in(directory: &Path) {
    let Ok(directory) = directory.canonicalize() else { return };
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
            .and_then(rustix::process::Pid::from_raw);
        let here = std::fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd == directory);
        if let (Some(pid), true) = (pid, here) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}

fn host_of(url: &str) -> SocketAddr {
    let (_, host) = url.split_once("://").unwrap_or_else(|| panic!("{url} is not a TCP listener"));
    host.trim_end_matches('/').parse().unwrap()
}

/// Lines read by a thread of their own, so that a full pipe never stops the process.
#[derive(Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

impl Lines {
    fn read(from: impl std::io::Read + Send + 'static) -> Self {
        Self::read_as(from, Reader::Reads)
    }

    fn read_as(from: impl std::io::Read + Send + 'static, reader: Reader) -> Self {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::downgrade(&lines);
        std::thread::spawn(move || {
            let mut from = BufReader::new(from);
            for line in from.by_ref().split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).into_owned();
                let is_ready = line == "ready";
                let Some(sink) = sink.upgrade() else { return };
                sink.lock().unwrap().push(line);
                if is_ready && reader != Reader::Reads {
                    break;
                }
            }
            while reader == Reader::Sleeps && sink.strong_count() > 0 {
                std::thread::park_timeout(std::time::Duration::from_millis(50));
            }
        });
        Self(lines)
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}
