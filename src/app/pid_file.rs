//! The pid file: written once the sockets are bound, removed at the end if it is still ours.

use std::io;
use std::path::{Path, PathBuf};

/// A written pid file.
#[derive(Debug)]
pub(super) struct PidFile {
    path: PathBuf,
    content: String,
    /// What stood in it, while this process may still fail to replace the one that wrote it.
    before: Option<String>,
}

impl PidFile {
    /// Writes this process's id to `path`. `replaces` says that this process replaces another one, whose id may stand
    /// there: until [`PidFile::settle`] it is put back when this is dropped.
    ///
    /// # Errors
    /// The file system says no, or the file names another process of this program that is alive.
    pub(super) fn write(path: &Path, replaces: bool) -> io::Result<Self> {
        let before = std::fs::read_to_string(path).ok();
        if let Some(pid) = before.as_ref().and_then(|text| text.trim().parse::<u32>().ok())
            && !replaces
            && pid != std::process::id()
            && is_of_this_program(pid)
        {
            let message = format!("process {pid} is running with it");
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
        }
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            std::fs::create_dir_all(parent)?;
        }
        let content = format!("{}\n", std::process::id());
        put(path, &content)?;
        Ok(Self { path: path.to_owned(), content, before: before.filter(|_| replaces) })
    }

    /// The file stays this process's to its end.
    pub(super) fn settle(&mut self) {
        self.before = None;
    }
}

/// Writes through a neighbour and a rename: a reader never sees half a number. Where only the file itself may be changed,
/// as after root has given it away in a directory of its own, it is written in place.
fn put(path: &Path, content: &str) -> io::Result<()> {
    let draft = path.with_extension(format!("pid.{}", std::process::id()));
    let placed = std::fs::write(&draft, content).and_then(|()| std::fs::rename(&draft, path));
    match placed {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied && path.exists() => {
            std::fs::write(path, content)
        }
        placed => placed,
    }
}

/// Whether `pid` is alive and runs what this process runs: ids are used again, and a crash leaves its file behind.
fn is_of_this_program(pid: u32) -> bool {
    let name = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/comm")).ok();
    name(pid).is_some_and(|other| Some(other) == name(std::process::id()))
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // A successor may have written its own by now.
        if !std::fs::read_to_string(&self.path).is_ok_and(|found| found == self.content) {
            return;
        }
        let done = match &self.before {
            Some(before) => put(&self.path, before),
            None => std::fs::remove_file(&self.path),
        };
        if let Err(error) = done {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the pid file");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_successors_file_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/edgeward.pid");
        let first = PidFile::write(&path, false).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
        std::fs::write(&path, "1\n").unwrap();
        drop(first);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "1\n");
        drop(PidFile::write(&path, false).unwrap());
        assert!(!path.exists());
    }

    /// What a crash left behind is replaced. (That the file of a living process is not: `tests/it/drain.rs`.)
    #[test]
    fn a_dead_processs_file_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("edgeward.pid");
        // No process has this id: it is above the kernel's limit.
        std::fs::write(&path, "4194305\n").unwrap();
        drop(PidFile::write(&path, false).unwrap());
    }

    /// A process that fails to replace another one leaves that one's file as it was.
    #[test]
    fn a_failed_replacement_puts_the_file_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("edgeward.pid");
        std::fs::write(&path, "1\n").unwrap();
        drop(PidFile::write(&path, true).unwrap());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "1\n");
        let mut settled = PidFile::write(&path, true).unwrap();
        settled.settle();
        drop(settled);
        assert!(!path.exists());
    }
}
