//! Opening what is below the root, and nothing else, whatever links say.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, openat, openat2, readlinkat};
use rustix::io::Errno;

use super::Refusal;

/// A directory that is the root of a site.
#[derive(Debug)]
pub(super) struct Root(OwnedFd);

/// What stands at a path.
#[derive(Debug)]
pub(super) enum Found {
    /// A regular file.
    File(Opened),
    /// A directory.
    Directory(OwnedFd),
}

/// An open file.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) file: File,
    pub(super) facts: Facts,
}

/// What is known of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) size: u64,
    /// When it was modified, since the epoch.
    pub(super) seconds: i64,
    pub(super) nanoseconds: u64,
    pub(super) inode: u64,
}

/// Why there is nothing to send.
#[derive(Debug)]
pub(super) enum Refused {
    /// Nothing is there, or nothing that is ever sent: a pipe, a device.
    Missing,
    /// It may not be read, or is not below the root.
    Forbidden(String),
    /// The disk failed.
    Failed(io::Error),
    /// Decided already.
    Told(Refusal),
}

/// A pipe or a device must not make the open wait (`NONBLOCK`), nor become our terminal.
const READ: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

/// Only to see what it is: nothing is opened that notices, or that could be read.
const LOOK: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

/// Times that the kernel is asked again when it could not be sure because something was being renamed.
const TRIES: usize = 8;

impl Root {
    /// Opens `directory`. The path to it may lead over links, as the operator wrote it.
    pub(super) fn open(directory: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self(openat(CWD, directory, flags, Mode::empty())?))
    }

    /// Opens what `relative` names; empty stands for the root itself.
    pub(super) fn open_below(&self, relative: &[u8]) -> Result<Found, Refused> {
        self.below(relative, READ)
    }

    /// The same only to see what stands there: the file is not to be read.
    pub(super) fn find_below(&self, relative: &[u8]) -> Result<Found, Refused> {
        self.below(relative, LOOK)
    }

    fn below(&self, relative: &[u8], flags: OFlags) -> Result<Found, Refused> {
        let relative = if relative.is_empty() { b".".as_slice() } else { relative };
        match self.open_beneath(relative, flags) {
            // The link may be absolute and yet lead to a place below the root; or this kernel, or a filter around us,
            // does not know the call.
            Err(Errno::XDEV | Errno::NOSYS | Errno::PERM | Errno::INVAL | Errno::TOOBIG) => {
                self.open_checked(relative)
            }
            opened => found(opened.map_err(refused)?),
        }
    }

    /// The kernel itself stays below the root.
    fn open_beneath(&self, relative: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let mut last = Errno::AGAIN;
        for _ in 0..TRIES {
            match openat2(&self.0, relative, flags, Mode::empty(), resolve) {
                Err(again @ (Errno::AGAIN | Errno::INTR)) => last = again,
                opened => return opened,
            }
        }
        Err(last)
    }

    /// Opens without looking at links, then asks where that led, before anything is read.
    pub(super) fn open_checked(&self, relative: &[u8]) -> Result<Found, Refused> {
        let place =
            openat(&self.0, relative, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).map_err(refused)?;
        let unknown = |_| Refused::Forbidden("its place cannot be told without /proc".to_owned());
        let real = real_path(place.as_fd()).map_err(unknown)?;
        let root = real_path(self.0.as_fd()).map_err(unknown)?;
        let inside = match real.strip_prefix(root.as_slice()) {
            Some(rest) => rest.is_empty() || rest.starts_with(b"/") || root == b"/",
            None => false,
        };
        if !inside {
            return Err(Refused::Forbidden("a link leads out of the root".to_owned()));
        }
        match FileType::from_raw_mode(fstat(&place).map_err(refused)?.st_mode) {
            FileType::RegularFile | FileType::Directory => {}
            _ => return Err(Refused::Missing),
        }
        found(openat(CWD, self_path(place.as_fd()), READ, Mode::empty()).map_err(refused)?)
    }
}

fn self_path(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

fn real_path(fd: BorrowedFd<'_>) -> Result<Vec<u8>, Errno> {
    readlinkat(CWD, self_path(fd), Vec::new()).map(|path| path.into_bytes())
}

fn found(fd: OwnedFd) -> Result<Found, Refused> {
    let stat = fstat(&fd).map_err(refused)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Ok(Found::File(Opened { facts: Facts::of(&stat), file: File::from(fd) })),
        FileType::Directory => Ok(Found::Directory(fd)),
        _ => Err(Refused::Missing),
    }
}

fn refused(error: Errno) -> Refused {
    match error {
        // A socket gives NXIO, a device without a driver NODEV.
        Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG | Errno::LOOP | Errno::NXIO | Errno::NODEV => {
            Refused::Missing
        }
        Errno::ACCESS | Errno::PERM => Refused::Forbidden("it may not be read".to_owned()),
        other => Refused::Failed(other.into()),
    }
}

impl Facts {
    #[expect(clippy::useless_conversion, reason = "the types of these differ between architectures")]
    pub(super) fn of(stat: &Stat) -> Self {
        Self {
            size: u64::try_from(stat.st_size).unwrap_or(0),
            seconds: i64::try_from(stat.st_mtime).unwrap_or(0),
            nanoseconds: u64::try_from(stat.st_mtime_nsec).unwrap_or(0),
            inode: u64::try_from(stat.st_ino).unwrap_or(0),
        }
    }
}

/// The last name of a path, for its type.
pub(super) fn file_name(relative: &[u8]) -> &Path {
    Path::new(std::ffi::OsStr::from_bytes(relative))
}
