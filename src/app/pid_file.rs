//! The pid file: written once the sockets are bound, removed at the end if it is still ours.

use std::io;
use std::path::{Path, PathBuf};

/// A written pid file.
#[derive(Debug)]
pub(super) struct PidFile {
    path: PathBuf,
    content: String,
}

impl PidFile {
    /// Writes this process's id to `path`, through a neighbour and a rename: a reader never sees half a number.
    ///
    /// # Errors
    /// The file system says no, or the file names another process of this program that is alive.
    pub(super) fn write(path: &Path) -> io::Result<Self> {
        if let Some(pid) = std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<u32>().ok())
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
        let draft = path.with_extension(format!("pid.{}", std::process::id()));
        std::fs::write(&draft, &content)?;
        std::fs::rename(&draft, path)?;
        Ok(Self { path: path.to_owned(), content })
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
        if std::fs::read_to_string(&self.path).is_ok_and(|found| found == self.content)
            && let Err(error) = std::fs::remove_file(&self.path)
        {
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
        let first = PidFile::write(&path).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
        std::fs::write(&path, "1\n").unwrap();
        drop(first);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "1\n");
        drop(PidFile::write(&path).unwrap());
        assert!(!path.exists());
    }

    /// What a crash left behind is replaced. (That the file of a living process is not: `tests/it/drain.rs`.)
    #[test]
    fn a_dead_processs_file_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("edgeward.pid");
        // No process has this id: it is above the kernel's limit.
        std::fs::write(&path, "4194305\n").unwrap();
        drop(PidFile::write(&path).unwrap());
    }
}
