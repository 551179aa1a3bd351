//! The pid file: written once the sockets are bound, removed at the end if it is still ours.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// A pid file: prepared, then written.
#[derive(Debug)]
pub(super) struct PidFile {
    path: PathBuf,
    content: String,
    way: Way,
}

/// How the file is written.
#[derive(Debug)]
enum Way {
    /// By renaming this neighbour: a reader never sees half a number.
    Rename(PathBuf),
    /// In place, where the directory may not be changed: root gave the file away, but not what it is in.
    InPlace(File),
    /// It is written.
    Done,
}

impl PidFile {
    /// Makes sure that this process's id can be written to `path`, without writing it. `replaces` is the process that
    /// this one replaces, whose id may stand there.
    ///
    /// # Errors
    /// The file system says no, or the file names another process of this program that is alive.
    pub(super) fn prepare(path: &Path, replaces: Option<u32>) -> io::Result<Self> {
        if let Some(pid) = std::fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<u32>().ok())
            && pid != std::process::id()
            && Some(pid) != replaces
            && is_of_this_program(pid)
        {
            let message = format!("process {pid} is running with it");
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
        }
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            std::fs::create_dir_all(parent)?;
        }
        let content = format!("{}\n", std::process::id());
        let way = match draft(path, &content) {
            Ok(draft) => Way::Rename(draft),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && path.exists() => {
                Way::InPlace(File::options().write(true).open(path)?)
            }
            Err(error) => return Err(error),
        };
        Ok(Self { path: path.to_owned(), content, way })
    }

    /// Writes it; from now on it is removed with this value. What could go wrong has been tried.
    ///
    /// # Errors
    /// The file system says no after all.
    pub(super) fn put(&mut self) -> io::Result<()> {
        match std::mem::replace(&mut self.way, Way::Done) {
            Way::Rename(draft) => std::fs::rename(draft, &self.path),
            Way::InPlace(mut file) => file.set_len(0).and_then(|()| file.write_all(self.content.as_bytes())),
            Way::Done => Ok(()),
        }
    }

    /// Writes the id of the process that was to be replaced, and goes on.
    pub(super) fn give_back(&self, pid: u32) -> io::Result<()> {
        draft(&self.path, &format!("{pid}\n")).and_then(|draft| std::fs::rename(draft, &self.path))
    }
}

/// A neighbour of `path` with `content`. It must be new: as root nothing is written through somebody's link.
fn draft(path: &Path, content: &str) -> io::Result<PathBuf> {
    let draft = path.with_extension(format!("pid.{}", std::process::id()));
    match std::fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    File::options().write(true).create_new(true).open(&draft)?.write_all(content.as_bytes())?;
    Ok(draft)
}

/// Whether `pid` is alive and runs what this process runs: ids are used again, and a crash leaves its file behind.
fn is_of_this_program(pid: u32) -> bool {
    let name = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/comm")).ok();
    name(pid).is_some_and(|other| Some(other) == name(std::process::id()))
}

impl Drop for PidFile {
    fn drop(&mut self) {
        let removed = match &self.way {
            Way::Rename(draft) => std::fs::remove_file(draft),
            Way::InPlace(_) => Ok(()),
            // A successor may have written its own by now.
            Way::Done if std::fs::read_to_string(&self.path).is_ok_and(|found| found == self.content) => {
                std::fs::remove_file(&self.path)
            }
            Way::Done => Ok(()),
        };
        if let Err(error) = removed {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the pid file");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(path: &Path, replaces: Option<u32>) -> PidFile {
        let mut file = PidFile::prepare(path, replaces).unwrap();
        file.put().unwrap();
        file
    }

    #[test]
    fn a_successors_file_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/edgeward.pid");
        let first = written(&path, None);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
        std::fs::write(&path, "1\n").unwrap();
        drop(first);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "1\n");
        drop(written(&path, None));
        assert!(!path.exists());
    }

    /// What a crash left behind is replaced. (That the file of a living process is not: `tests/it/drain.rs`.)
    #[test]
    fn a_dead_processs_file_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("edgeward.pid");
        // No process has this id: it is above the kernel's limit.
        std::fs::write(&path, "4194305\n").unwrap();
        drop(written(&path, None));
    }

    /// A process that fails to replace another one leaves that one's file as it was, and nothing beside it.
    #[test]
    fn what_was_only_prepared_leaves_no_trace() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("edgeward.pid");
        std::fs::write(&path, "1\n").unwrap();
        drop(PidFile::prepare(&path, Some(1)).unwrap());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "1\n");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
