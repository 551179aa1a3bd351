//! The gateway: the real binary, across its own upgrades. Whoever it has become, it is found by the control socket.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, set_child_subreaper, waitpid};
use serde_json::Value;
use tempfile::TempDir;

use super::wire::PATIENCE;

/// Interval at which conditions are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A running gateway. All its processes are gone when it is dropped.
pub struct Gateway {
    binary: PathBuf,
    directory: TempDir,
    /// All processes it has been.
    pids: BTreeSet<i32>,
    current: i32,
}

/// What a command of the binary said.
#[derive(Debug)]
pub struct Ran {
    pub status: i32,
    pub output: String,
}

/// What the kernel says about a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    pub resident_bytes: u64,
    pub descriptors: usize,
    pub threads: usize,
}

impl Gateway {
    /// A directory with `files` in it, to run `binary` in.
    pub fn new(binary: &Path, files: &[(&str, &str)]) -> io::Result<Self> {
        let directory = tempfile::Builder::new().prefix("edgeward-").tempdir()?;
        for (name, text) in files {
            std::fs::write(directory.path().join(name), text)?;
        }
        let gateway = Self { binary: binary.to_owned(), directory, pids: BTreeSet::new(), current: 0 };
        gateway.install()?;
        Ok(gateway)
    }

    /// Puts the binary in place of the one that may be running, as package managers do: by a rename.
    pub fn install(&self) -> io::Result<()> {
        let draft = self.path().join("edgeward.new");
        std::fs::copy(&self.binary, &draft)?;
        std::fs::rename(draft, self.installed())
    }

    fn installed(&self) -> PathBuf {
        self.path().join("edgeward")
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The process that takes new connections.
    pub fn pid(&self) -> i32 {
        self.current
    }

    /// What it is to run with, from its next start, reload or upgrade on. Swapped in whole, as editors do.
    pub fn configure(&self, text: &str) -> io::Result<()> {
        let draft = self.path().join("edgeward.toml.new");
        std::fs::write(&draft, text)?;
        std::fs::rename(draft, self.path().join("edgeward.toml"))
    }

    /// Starts it and waits until it is ready.
    ///
    /// # Errors
    /// It ended, or took too long.
    pub async fn start(&mut self) -> Result<(), String> {
        // The successor of a process whose parent has ended becomes our child: we are told how it ends.
        set_child_subreaper(Some(rustix::process::getpid())).map_err(|error| error.to_string())?;
        let (output, log) = (self.create("stdout.log")?, self.create("stderr.log")?);
        let mut command = self.command(&["run", "-c", "edgeward.toml"]);
        command.stdin(Stdio::null()).stdout(output).stderr(log);
        let child = command.spawn().map_err(|error| format!("{}: {error}", self.binary.display()))?;
        let pid = i32::try_from(child.id()).unwrap_or(i32::MAX);
        self.pids.insert(pid);
        self.current = pid;
        let ready = async |_: &Self| {
            let printed = std::fs::read_to_string(self.path().join("stdout.log")).unwrap_or_default();
            printed.lines().any(|line| line == "ready")
        };
        self.until("the gateway to be ready", ready).await
    }

    fn create(&self, name: &str) -> Result<File, String> {
        File::create(self.path().join(name)).map_err(|error| format!("{name}: {error}"))
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.installed());
        command.args(arguments).current_dir(self.path()).env_remove("RUST_LOG").env("NO_COLOR", "1");
        command
    }

    /// Runs a command of the binary on the configuration.
    pub async fn order(&self, word: &str) -> Result<Ran, String> {
        let mut command = self.command(&[word, "-c", "edgeward.toml"]);
        let run = tokio::task::spawn_blocking(move || command.stdin(Stdio::null()).output());
        let ran = tokio::time::timeout(PATIENCE, run).await;
        let output = ran
            .map_err(|_| format!("`edgeward {word}` did not end within {PATIENCE:?}"))?
            .map_err(|error| error.to_string())?
            .map_err(|error| format!("`edgeward {word}`: {error}"))?;
        let text = [output.stdout, output.stderr].concat();
        Ok(Ran { status: output.status.code().unwrap_or(-1), output: String::from_utf8_lossy(&text).into() })
    }

    /// What `edgeward status` says.
    pub async fn status(&self) -> Result<Value, String> {
        let ran = self.order("status").await?;
        if ran.status != 0 {
            return Err(format!("`edgeward status`: {}", ran.output));
        }
        serde_json::from_str(&ran.output)
            .map_err(|error| format!("`edgeward status`: {error}: {}", ran.output))
    }

    /// Sends a signal to the process that takes new connections.
    pub fn signal(&self, signal: Signal) -> Result<(), String> {
        let pid = Pid::from_raw(self.current).ok_or("no process")?;
        kill_process(pid, signal).map_err(|error| format!("{signal:?}: {error}"))
    }

    /// Waits until another process answers as the gateway, and takes it for it.
    pub async fn succeeded(&mut self) -> Result<(), String> {
        let began = Instant::now();
        loop {
            // While the socket changes hands, nobody may answer: only that it stays so is a failure.
            let pid = match self.status().await {
                Ok(status) => {
                    status.get("pid").and_then(Value::as_i64).and_then(|pid| i32::try_from(pid).ok())
                }
                Err(_) => None,
            };
            if let Some(pid) = pid.filter(|pid| *pid != self.current) {
                self.pids.insert(pid);
                self.current = pid;
                return Ok(());
            }
            if began.elapsed() > PATIENCE {
                return Err(format!("after {PATIENCE:?} the process is still {}", self.current));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until `done`.
    ///
    /// # Errors
    /// A process died meanwhile that should live, or it never came.
    pub async fn until(&self, what: &str, mut done: impl AsyncFnMut(&Self) -> bool) -> Result<(), String> {
        let began = Instant::now();
        while !done(self).await {
            if !is_alive(self.current) {
                return Err(format!("the gateway ended, waiting for {what}:\n{}", self.log()));
            }
            if began.elapsed() > PATIENCE {
                return Err(format!("waited {PATIENCE:?} in vain: {what}\n{}", self.log()));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// What the process that takes new connections holds.
    pub fn held(&self) -> io::Result<Held> {
        let process = PathBuf::from(format!("/proc/{}", self.current));
        let status = std::fs::read_to_string(process.join("status"))?;
        let number = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            line.trim_start_matches(':').split_whitespace().next().and_then(|text| text.parse::<u64>().ok())
        };
        let (Some(resident_kib), Some(threads)) = (number("VmRSS"), number("Threads")) else {
            return Err(io::Error::other("VmRSS or Threads is missing"));
        };
        let descriptors = std::fs::read_dir(process.join("fd"))?.count();
        Ok(Held { resident_bytes: resident_kib * 1024, descriptors, threads: threads as usize })
    }

    /// The end of what its processes wrote about themselves.
    pub fn log(&self) -> String {
        let text = std::fs::read_to_string(self.path().join("stderr.log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// Whether something in it panicked.
    pub fn panicked(&self) -> bool {
        let text = std::fs::read_to_string(self.path().join("stderr.log")).unwrap_or_default();
        text.contains("panicked at")
    }

    /// Processes that were left by an upgrade and are still there.
    pub fn leaving(&self) -> usize {
        self.pids.iter().filter(|pid| **pid != self.current && is_alive(**pid)).count()
    }

    /// Has the current process finish and leave; waits for all to be gone, and returns those that did not end well.
    pub async fn quit(mut self) -> Result<Vec<String>, String> {
        self.signal(Signal::TERM)?;
        let began = Instant::now();
        let mut faults = Vec::new();
        loop {
            self.pids.retain(|pid| match ended(*pid) {
                None => true,
                Some(Some(0)) => false,
                Some(status) => {
                    faults.push(format!("process {pid} ended with {status:?}"));
                    false
                }
            });
            if self.pids.is_empty() {
                return Ok(faults);
            }
            if began.elapsed() > 2 * PATIENCE {
                return Err(format!("processes {:?} do not end\n{}", self.pids, self.log()));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // Also those that we have not been told of: what runs in our directory is ours.
        let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let ours = all.filter(|process| {
            std::fs::read_link(process.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(self.path()))
        });
        let found = ours.filter_map(|process| process.file_name().to_str()?.parse().ok());
        for pid in self.pids.iter().copied().filter(|pid| is_alive(*pid)).chain(found) {
            if let Some(pid) = Pid::from_raw(pid) {
                let _gone = kill_process(pid, Signal::KILL);
                let _not_ours = waitpid(Some(pid), WaitOptions::empty());
            }
        }
    }
}

/// How a process ended: `None` = it has not, `Some(None)` = nobody can say.
fn ended(pid: i32) -> Option<Option<i32>> {
    let known = Pid::from_raw(pid)?;
    match waitpid(Some(known), WaitOptions::NOHANG) {
        Ok(Some((_, status))) => Some(Some(status.exit_status().unwrap_or(-1))),
        Ok(None) => None,
        // Not our child: its parent still lives, or has taken its end.
        Err(_) => (!is_alive(pid)).then_some(Some(0)),
    }
}

/// Whether a process runs: what has ended and waits for its parent does not.
fn is_alive(pid: i32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

/// An address that nobody else takes while it is held, free to be listened on.
pub struct Reserved {
    pub address: SocketAddr,
    _held: socket2::Socket,
}

impl Reserved {
    pub fn new() -> io::Result<Self> {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
        // As the gateway does: the two may then share an address on which only one of them listens.
        socket.set_reuse_address(true)?;
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())?;
        let address = socket.local_addr()?.as_socket().ok_or_else(|| io::Error::other("no address"))?;
        Ok(Self { address, _held: socket })
    }
}
