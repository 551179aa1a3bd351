//! The control socket: how commands of the same binary reach the running process, and get an answer.
//!
//! One line in, one line of JSON out, then closed. The socket is 0600 in a directory that others cannot write to, and the
//! peer's user is checked besides: whoever reaches it owns the gateway.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot, watch};

use super::lifecycle::{self, Command, Order};
use super::user::Account;
use crate::base::task;
use crate::ingress::listen::SocketFile;
use crate::policy::rate_limit::Question;

/// Longest command line: a question about limits holds what they count by, such as a header.
const LINE_BYTES_MAX: u64 = 256 * 1024;
/// Longest answer: a configuration may have a thousand problems.
const ANSWER_BYTES_MAX: u64 = 16 << 20;
/// Time a peer has to say its command, and later to take the answer.
const PEER_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest that carrying out a command may take: an upgrade waits for the new process.
const OUTCOME_TIMEOUT: Duration = Duration::from_secs(120);

/// A bound control socket, with its file.
#[derive(Debug)]
pub struct Control {
    listener: std::os::unix::net::UnixListener,
    file: SocketFile,
}

/// What the process tells of itself.
pub type Status = Arc<dyn Fn() -> serde_json::Value + Send + Sync>;

/// Brings what the process knows of the store up to date, and says whether that worked.
pub type Synchronise = Arc<dyn Fn() -> BoxFuture<'static, serde_json::Value> + Send + Sync>;

/// Says what is left of rate limits, to questions in JSON.
pub type Limits = Arc<dyn Fn(String) -> BoxFuture<'static, serde_json::Value> + Send + Sync>;

/// What is answered without an order.
#[derive(Clone)]
pub struct Answers {
    /// `status`.
    pub status: Status,
    /// `sync`: a command changed the store.
    pub sync: Synchronise,
    /// `limits`, and a list of [`Question`]s.
    pub limits: Limits,
}

impl std::fmt::Debug for Answers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Answers")
    }
}

impl Control {
    /// Binds the socket at `path`, making its directory if there is none; both belong to `account` then.
    ///
    /// # Errors
    /// The directory is open to others, another process answers there, or the file system says no.
    pub(super) fn bind(path: &Path, account: &Account) -> io::Result<Self> {
        let directory = directory_of(path);
        if !directory.exists() {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
            account.own(directory)?;
        }
        check_directory(directory, account)?;
        if let Ok(found) = std::fs::symlink_metadata(path) {
            if !found.file_type().is_socket() {
                return Err(io::Error::new(
                    io::ErrorKind::AlreadyExists,
                    "the file exists and is not a socket",
                ));
            }
            if std::os::unix::net::UnixStream::connect(path).is_ok() {
                return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process is running with it"));
            }
            std::fs::remove_file(path)?;
        }
        let listener = std::os::unix::net::UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        account.own(path)?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener, file: SocketFile::of(path)? })
    }

    /// Takes over the socket of another process, which was bound to `path`; as a listener's: see
    /// [`crate::ingress::listen::Bound::inherit`].
    ///
    /// # Errors
    /// The directory has been opened to others since.
    pub(super) fn inherit(path: &Path, socket: OwnedFd, account: &Account) -> io::Result<Self> {
        check_directory(directory_of(path), account)?;
        let file = match SocketFile::of_another(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Self::bind(path, account),
            file => file?,
        };
        let listener = std::os::unix::net::UnixListener::from(socket);
        listener.set_nonblocking(true)?;
        Ok(Self { listener, file })
    }

    /// The socket.
    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// True while another process has the socket, and with it the file.
    pub(super) fn handed_over(&self) -> Arc<AtomicBool> {
        self.file.handed_over()
    }

    /// Answers commands for as long as the returned future is polled, or until `stop` turns true.
    pub async fn serve(
        self,
        orders: mpsc::Sender<Order>,
        answers: Answers,
        mut stop: watch::Receiver<bool>,
    ) -> io::Result<()> {
        let listener = UnixListener::from_std(self.listener.try_clone()?)?;
        loop {
            let accepted = tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return Ok(()),
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    let (orders, answers) = (orders.clone(), answers.clone());
                    drop(task::spawn("control", async move {
                        if let Err(error) = answer(stream, &orders, &answers).await {
                            tracing::debug!(%error, "control connection");
                        }
                    }));
                }
                Err(error) => {
                    tracing::error!(%error, "cannot accept on the control socket");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Others who can write there, or whose it is, could put their own socket in place of ours.
fn check_directory(directory: &Path, account: &Account) -> io::Result<()> {
    let found = std::fs::metadata(directory)?;
    let is_ours = |uid: u32| uid == 0 || uid == rustix::process::geteuid().as_raw() || account.is(uid);
    if !is_ours(found.uid()) {
        let message = format!("{} belongs to user {}", directory.display(), found.uid());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
    }
    if found.mode() & 0o022 != 0 && found.mode() & 0o1000 == 0 {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("{} can be written by others", directory.display()),
        ));
    }
    Ok(())
}

async fn answer(mut stream: UnixStream, orders: &mpsc::Sender<Order>, answers: &Answers) -> io::Result<()> {
    let peer = stream.peer_cred()?.uid();
    let own = rustix::process::geteuid().as_raw();
    if peer != own && peer != 0 {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("user {peer} is not ours")));
    }
    let (read, mut write) = stream.split();
    let mut line = String::new();
    let mut read = BufReader::new(read.take(LINE_BYTES_MAX));
    tokio::time::timeout(PEER_TIMEOUT, read.read_line(&mut line)).await??;
    let reply = match line.trim_end() {
        "status" => serde_json::json!({ "ok": true, "status": (answers.status)() }),
        "sync" => (answers.sync)().await,
        "quit" => carry_out(Command::Quit, orders).await,
        // Answered before: nothing comes after a stop.
        "stop" => lifecycle::ending(Duration::ZERO),
        "reopen" => carry_out(Command::Reopen, orders).await,
        "reload" => carry_out(Command::Reload, orders).await,
        "upgrade" => carry_out(Command::Upgrade, orders).await,
        other if other.starts_with(LIMITS) => {
            (answers.limits)(other.trim_start_matches(LIMITS).to_owned()).await
        }
        other => serde_json::json!({ "ok": false, "error": format!("there is no command {other:?}") }),
    };
    tokio::time::timeout(PEER_TIMEOUT, async {
        write.write_all(format!("{reply}\n").as_bytes()).await?;
        write.shutdown().await
    })
    .await??;
    if line.trim_end() == "stop" && orders.send(Order::unanswered(Command::Stop)).await.is_err() {
        tracing::debug!("a command came too late");
    }
    Ok(())
}

/// Orders `command` and waits for what comes of it.
async fn carry_out(command: Command, orders: &mpsc::Sender<Order>) -> serde_json::Value {
    let (answer, outcome) = oneshot::channel();
    let refused = |why: &str| serde_json::json!({ "ok": false, "error": why });
    if orders.send(Order { command, answer: Some(answer) }).await.is_err() {
        return refused("the process is ending");
    }
    match tokio::time::timeout(OUTCOME_TIMEOUT, outcome).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_)) => refused("the process is ending"),
        Err(_) => serde_json::json!({ "ok": false, "pending": true }),
    }
}

/// Sends `command` to the process behind `path` and returns its answer.
///
/// # Errors
/// Nobody answers there, or not with JSON.
pub fn ask(path: &Path, command: &str) -> io::Result<serde_json::Value> {
    ask_within(OUTCOME_TIMEOUT + PEER_TIMEOUT, path, command)
}

/// Has the process behind `path` take what changed in the store; false if there is none, or it cannot.
pub fn synchronise(path: &Path) -> bool {
    ask_within(PEER_TIMEOUT, path, "sync").is_ok_and(|answer| answer.get("ok") == Some(&true.into()))
}

/// What the command for questions about limits begins with.
const LIMITS: &str = "limits ";

/// What is left, as the process behind `path` says to `questions`: `{"left": {NAME: TEXT}, "unknown": {NAME: WHY}}`.
///
/// # Errors
/// Nobody answers there, or not with JSON.
pub fn limits(path: &Path, questions: &[Question]) -> io::Result<serde_json::Value> {
    let command = format!("{LIMITS}{}", serde_json::to_string(questions)?);
    if command.len() as u64 >= LINE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the request is too long to be asked about"));
    }
    ask_within(PEER_TIMEOUT, path, &command)
}

/// The process that answers at `path`.
pub(super) fn running(path: &Path) -> Option<u64> {
    ask_within(PEER_TIMEOUT, path, "status").ok()?.pointer("/status/pid")?.as_u64()
}

fn ask_within(timeout: Duration, path: &Path, command: &str) -> io::Result<serde_json::Value> {
    use std::io::{Read, Write};
    let mut stream = std::os::unix::net::UnixStream::connect(path)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(PEER_TIMEOUT))?;
    stream.write_all(format!("{command}\n").as_bytes())?;
    let mut reply = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut reply)?;
    serde_json::from_str(&reply).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nobody() -> Account {
        Account::find(None, None).unwrap()
    }

    #[tokio::test]
    async fn a_command_is_answered_and_carried_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/control.sock");
        let control = Control::bind(&path, &nobody()).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert!(Control::bind(&path, &nobody()).is_err(), "a second process must not take the socket");
        let (sender, mut commands) = mpsc::channel(1);
        let (_running, stop) = watch::channel(false);
        let answers = Answers {
            status: Arc::new(|| serde_json::json!({ "routes": 3 })),
            sync: Arc::new(|| Box::pin(std::future::ready(serde_json::json!({ "ok": true })))),
            limits: Arc::new(|asked| Box::pin(std::future::ready(serde_json::json!({ "left": asked })))),
        };
        let serving = control.serve(sender, answers, stop);
        let carrying_out = async {
            let order = commands.recv().await.unwrap();
            order.answer.unwrap().send(serde_json::json!({ "ok": true })).unwrap();
            assert_eq!(order.command, Command::Quit);
            std::future::pending::<()>().await
        };
        let asking = tokio::task::spawn_blocking(move || {
            assert!(synchronise(&path) && !synchronise(&path.with_extension("not")));
            let question = Question { limit: "l".into(), kind: "ip".into(), values: "00".repeat(40_000) };
            let left = limits(&path, std::slice::from_ref(&question)).unwrap()["left"].to_string();
            assert!(left.len() > 80_000 && left.contains("ip"), "{} bytes", left.len());
            let longer = Question { values: "00".repeat(200_000), ..question };
            assert_eq!(limits(&path, &[longer]).unwrap_err().kind(), io::ErrorKind::InvalidInput);
            (ask(&path, "status").unwrap(), ask(&path, "fly").unwrap(), ask(&path, "quit").unwrap())
        });
        tokio::select! {
            ended = serving => panic!("control ended: {ended:?}"),
            () = carrying_out => {}
            answers = asking => {
                let (status, unknown, quit) = answers.unwrap();
                assert_eq!(status["status"]["routes"], 3);
                assert_eq!(unknown["ok"], false);
                assert_eq!(quit["ok"], true);
            }
        }
    }

    #[test]
    fn a_directory_open_to_others_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let open = dir.path().join("open");
        std::fs::create_dir(&open).unwrap();
        std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!(
            Control::bind(&open.join("c.sock"), &nobody()).unwrap_err().kind(),
            io::ErrorKind::PermissionDenied
        );
    }
}
