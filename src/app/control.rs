//! The control socket: how commands of the same binary reach the running process, and get an answer.
//!
//! One line in, one line of JSON out, then closed. The socket is 0600 in a directory of 0700, and the peer's user is
//! checked besides: whoever reaches it owns the gateway. The hand-over of listeners to a new process goes through it.

use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;

use super::Command;
use crate::base::task;

/// Longest command line.
const LINE_BYTES_MAX: u64 = 4096;
/// Time a peer has to say its command and take the answer.
const PEER_TIMEOUT: Duration = Duration::from_secs(5);

/// A bound control socket; removed when dropped.
#[derive(Debug)]
pub struct Control {
    listener: std::os::unix::net::UnixListener,
    path: PathBuf,
}

/// What the process tells of itself.
pub type Status = Arc<dyn Fn() -> serde_json::Value + Send + Sync>;

impl Control {
    /// Binds the socket at `path`, making its directory if there is none.
    ///
    /// # Errors
    /// The directory is open to others, another process answers there, or the file system says no.
    pub fn bind(path: &Path) -> io::Result<Self> {
        let directory =
            path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if !directory.exists() {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        }
        let found = std::fs::metadata(directory)?;
        // Others who can write here could put their own socket in place of ours.
        if found.mode() & 0o022 != 0 && found.mode() & 0o1000 == 0 {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!("{} can be written by others", directory.display()),
            ));
        }
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
        listener.set_nonblocking(true)?;
        Ok(Self { listener, path: path.to_owned() })
    }

    /// Answers commands for as long as the returned future is polled.
    pub async fn serve(self, commands: mpsc::Sender<Command>, status: Status) -> io::Result<()> {
        let listener = UnixListener::from_std(self.listener.try_clone()?)?;
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let (commands, status) = (commands.clone(), status.clone());
                    drop(task::spawn("control", async move {
                        let served =
                            tokio::time::timeout(PEER_TIMEOUT, answer(stream, &commands, &status)).await;
                        if let Ok(Err(error)) = served {
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

impl Drop for Control {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(path = %self.path.display(), %error, "cannot remove the control socket");
        }
    }
}

async fn answer(mut stream: UnixStream, commands: &mpsc::Sender<Command>, status: &Status) -> io::Result<()> {
    let peer = stream.peer_cred()?.uid();
    let own = rustix::process::geteuid().as_raw();
    if peer != own && peer != 0 {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("user {peer} is not ours")));
    }
    let (read, mut write) = stream.split();
    let mut line = String::new();
    BufReader::new(read.take(LINE_BYTES_MAX)).read_line(&mut line).await?;
    let command = match line.trim_end() {
        "status" => None,
        "quit" => Some(Command::Quit),
        "stop" => Some(Command::Stop),
        "reopen" => Some(Command::Reopen),
        other => {
            let reply = serde_json::json!({ "ok": false, "error": format!("there is no command {other:?}") });
            return write.write_all(format!("{reply}\n").as_bytes()).await;
        }
    };
    let reply = match command {
        None => serde_json::json!({ "ok": true, "status": status() }),
        Some(_) => serde_json::json!({ "ok": true }),
    };
    write.write_all(format!("{reply}\n").as_bytes()).await?;
    write.shutdown().await?;
    // After the answer: a stop would take it with it.
    if let Some(command) = command
        && commands.send(command).await.is_err()
    {
        tracing::debug!("a command came too late");
    }
    Ok(())
}

/// Sends `command` to the process behind `path` and returns its answer.
///
/// # Errors
/// Nobody answers there, or not with JSON.
pub fn ask(path: &Path, command: &str) -> io::Result<serde_json::Value> {
    use std::io::{Read, Write};
    let mut stream = std::os::unix::net::UnixStream::connect(path)?;
    stream.set_read_timeout(Some(PEER_TIMEOUT))?;
    stream.set_write_timeout(Some(PEER_TIMEOUT))?;
    stream.write_all(format!("{command}\n").as_bytes())?;
    let mut reply = String::new();
    stream.take(1 << 20).read_to_string(&mut reply)?;
    serde_json::from_str(&reply).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_command_is_answered_and_carried_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/control.sock");
        let control = Control::bind(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert!(Control::bind(&path).is_err(), "a second process must not take the socket");
        let (sender, mut commands) = mpsc::channel(1);
        let serving = control.serve(sender, Arc::new(|| serde_json::json!({ "routes": 3 })));
        let asking = tokio::task::spawn_blocking(move || {
            (ask(&path, "status").unwrap(), ask(&path, "fly").unwrap(), ask(&path, "quit").unwrap())
        });
        tokio::select! {
            ended = serving => panic!("control ended: {ended:?}"),
            answers = asking => {
                let (status, unknown, quit) = answers.unwrap();
                assert_eq!(status["status"]["routes"], 3);
                assert_eq!(unknown["ok"], false);
                assert_eq!(quit["ok"], true);
            }
        }
        assert_eq!(commands.recv().await, Some(Command::Quit));
    }

    #[test]
    fn a_directory_open_to_others_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let open = dir.path().join("open");
        std::fs::create_dir(&open).unwrap();
        std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!(Control::bind(&open.join("c.sock")).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    }
}
