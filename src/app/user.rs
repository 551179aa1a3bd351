//! Dropping privileges: once the sockets are bound, and before any other thread exists.

use std::io;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Group, Uid, User, getgrouplist, initgroups, setgid, setuid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, configure_capability_in_ambient_set, set_capabilities,
    set_keep_capabilities,
};

/// Whom the process becomes: looked up once, also to give away what it must be able to change later.
#[derive(Debug)]
pub(super) struct Account {
    name: Option<String>,
    user: Option<Uid>,
    group: Option<Gid>,
}

impl Account {
    /// The account of `user` and `group`, else the user's own group.
    ///
    /// # Errors
    /// The names are not known to the system.
    pub(super) fn find(user: Option<&str>, group: Option<&str>) -> io::Result<Self> {
        let user =
            user.map(|name| User::from_name(name)?.ok_or_else(|| unknown("user", name))).transpose()?;
        let group =
            group.map(|name| Group::from_name(name)?.ok_or_else(|| unknown("group", name))).transpose()?;
        Ok(Self {
            group: group.map(|group| group.gid).or(user.as_ref().map(|user| user.gid)),
            name: user.as_ref().map(|user| user.name.clone()),
            user: user.map(|user| user.uid),
        })
    }

    /// Whether `uid` is the account's.
    pub(super) fn is(&self, uid: u32) -> bool {
        self.user.is_some_and(|user| user.as_raw() == uid)
    }

    /// Gives `path` to the account: what root made, the account must be able to replace.
    pub(super) fn own(&self, path: &Path) -> io::Result<()> {
        if !Uid::effective().is_root() || (self.user.is_none() && self.group.is_none()) {
            return Ok(());
        }
        chown(path, self.user.map(Uid::as_raw), self.group.map(Gid::as_raw))
    }

    /// Becomes the account, for good. What is kept of root is the right to bind ports below 1024 (`CAP_NET_BIND_SERVICE`),
    /// also for the processes that replace this one.
    ///
    /// # Errors
    /// This process is not root, and not the account either.
    pub(super) fn become_it(&self) -> io::Result<()> {
        // A process that replaces another one is what that one became.
        let is_user = self.user.is_none_or(|user| Uid::current() == user && Uid::effective() == user);
        let is_group = self.group.is_none_or(|group| Gid::current() == group && Gid::effective() == group);
        if is_user && is_group {
            return Ok(());
        }
        if let (Some(name), Some(gid)) = (&self.name, self.group) {
            initgroups(&std::ffi::CString::new(name.as_str()).map_err(io::Error::other)?, gid)?;
        }
        // The group first: afterwards it could not be changed any more.
        if let Some(gid) = self.group {
            setgid(gid)?;
        }
        let Some(user) = self.user else { return Ok(()) };
        set_keep_capabilities(true)?;
        setuid(user)?;
        if user.is_root() {
            return Ok(());
        }
        keep_binding()?;
        // What was given up must not come back; a system where it does is not one to go on with.
        if setuid(Uid::from_raw(0)).is_ok() {
            return Err(io::Error::other("root could be regained after dropping to the user"));
        }
        Ok(())
    }
}

/// Of all capabilities only the one to bind low ports, inherited by children. A container may not have it to give: then
/// a later process binds no new low port, and those there are go on being handed over.
fn keep_binding() -> io::Result<()> {
    let only = |set| CapabilitySets { effective: set, permitted: set, inheritable: set };
    let kept = CapabilitySet::NET_BIND_SERVICE;
    if set_capabilities(None, only(kept)).is_err() {
        set_capabilities(None, only(CapabilitySet::empty()))?;
        return Ok(());
    }
    configure_capability_in_ambient_set(kept, true).unwrap_or_else(|error| {
        tracing::debug!(%error, "a process that replaces this one cannot bind new ports below 1024");
    });
    Ok(())
}

/// Gives `path`, which root made, to `user` and `group`, as [`Account::own`] does; where neither is named, to whoever owns
/// the directory it is in.
///
/// # Errors
/// The names are not known to the system, or the file system says no.
pub fn give(user: Option<&str>, group: Option<&str>, path: &Path) -> io::Result<()> {
    if !Uid::effective().is_root() {
        return Ok(());
    }
    if user.is_some() || group.is_some() {
        return Account::find(user, group)?.own(path);
    }
    let above = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let owner = std::fs::metadata(above)?;
    chown(path, Some(owner.uid()), Some(owner.gid()))
}

/// Why a process cannot become `user` and `group` on this system: one of them is not there.
pub fn unknown_account(user: Option<&str>, group: Option<&str>) -> Option<String> {
    Account::find(user, group).err().map(|error| error.to_string())
}

/// The file, or the directory on the way to it, whose mode keeps `user` from reading `file`, by owner, group and mode
/// alone. `None` where nothing does, where the file is not there, or the user is not.
pub fn what_keeps_from(user: &str, group: Option<&str>, file: &Path) -> Option<PathBuf> {
    let account = Account::find(Some(user), group).ok()?;
    let (uid, gid) = (account.user?, account.group?);
    let name = std::ffi::CString::new(user).ok()?;
    let mut groups = getgrouplist(&name, gid).ok()?;
    groups.push(gid);
    let may = |path: &Path, bit: u32| {
        let Ok(found) = std::fs::metadata(path) else { return true };
        let shift = if found.uid() == uid.as_raw() {
            6
        } else if groups.iter().any(|group| group.as_raw() == found.gid()) {
            3
        } else {
            0
        };
        uid.is_root() || found.mode() >> shift & bit != 0
    };
    let file = file.canonicalize().ok()?;
    let mut above: Vec<&Path> = file.ancestors().skip(1).collect();
    above.reverse();
    let closed = above.into_iter().find(|directory| !may(directory, SEARCH));
    closed.or_else(|| (!may(&file, READ)).then_some(&*file)).map(Path::to_owned)
}

/// How `user`, or `group`, is let read `path`, which [`what_keeps_from`] names.
pub fn let_read(user: &str, group: Option<&str>, path: &Path) -> String {
    let mode = if path.is_dir() { "g+rx" } else { "640" };
    let own = || Some(Group::from_gid(User::from_name(user).ok()??.gid).ok()??.name);
    let group = group.map(str::to_owned).or_else(own).unwrap_or_else(|| user.to_owned());
    let path = path.display();
    format!("chgrp {group} {path} && chmod {mode} {path}")
}

/// The bit of a mode that lets a file be read.
const READ: u32 = 4;
/// The bit of a mode that lets a directory be passed through.
const SEARCH: u32 = 1;

fn unknown(what: &str, name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("there is no {what} \"{name}\" on this system"))
}
