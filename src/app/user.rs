//! Dropping privileges: once the sockets are bound, and before any other thread exists.

use std::io;

use nix::unistd::{Gid, Group, Uid, User, initgroups, setgid, setuid};

/// Becomes `user` (and `group`, else the user's own), for good.
///
/// # Errors
/// The names are not known to the system, or this process is not root.
pub(super) fn become_user(user: Option<&str>, group: Option<&str>) -> io::Result<()> {
    let user = user.map(|name| User::from_name(name)?.ok_or_else(|| unknown("user", name))).transpose()?;
    let group =
        group.map(|name| Group::from_name(name)?.ok_or_else(|| unknown("group", name))).transpose()?;
    let gid: Option<Gid> = group.map(|group| group.gid).or(user.as_ref().map(|user| user.gid));
    if let (Some(user), Some(gid)) = (&user, gid) {
        let name = std::ffi::CString::new(user.name.as_str()).map_err(io::Error::other)?;
        initgroups(&name, gid)?;
    }
    // The group first: afterwards it could not be changed any more.
    if let Some(gid) = gid {
        setgid(gid)?;
    }
    if let Some(user) = user {
        setuid(user.uid)?;
        // What was given up must not come back; a system where it does is not one to go on with.
        if !user.uid.is_root() && setuid(Uid::from_raw(0)).is_ok() {
            return Err(io::Error::other("root could be regained after dropping to the user"));
        }
    }
    Ok(())
}

fn unknown(what: &str, name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("there is no {what} \"{name}\" on this system"))
}
