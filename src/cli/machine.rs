//! What only this machine can say of a configuration: not a part of compiling, which gives the same everywhere.

use std::path::{Path, PathBuf};

use crate::app::{descriptors, user};
use crate::base::origin::{At, Origin};
use crate::config::{Compiled, Loaded, Runtime};

/// Compiles `loaded`, and adds what this machine would not let a process do that was started here.
pub(super) fn compile(mut loaded: Loaded) -> Compiled {
    warn_of_descriptors(&mut loaded, descriptors::hard_limit());
    let (user, group) = loaded
        .raw
        .as_ref()
        .map(|raw| (raw.server.user.clone(), raw.server.group.clone()))
        .unwrap_or_default();
    warn_of_unknown(&mut loaded, user.as_ref(), group.as_ref());
    let mut compiled = loaded.compile(&Runtime::detached());
    if let Some(user) = user.filter(|_| rustix::process::geteuid().is_root()) {
        warn_of_unreadable(&mut compiled, &user, group.as_ref().map(|group| group.value.as_str()));
    }
    compiled
}

/// Warns when this machine would not let the process open as many files as `limits.connections` may need, where
/// somebody asks for so many: a start takes what there is otherwise. Not beside errors that were found on reading,
/// which come first.
fn warn_of_descriptors(loaded: &mut Loaded, limit: Option<u64>) {
    let (Some(limit), Some(raw)) = (limit, &loaded.raw) else { return };
    let (connections, idle) = (&raw.limits.connections, *raw.limits.upstream_idle);
    let wanted = descriptors::wanted(**connections, idle, raw.server.threads());
    if limit >= wanted || connections.origin == Origin::Default || loaded.diagnostics.has_errors() {
        return;
    }
    let message = format!(
        "{} connections may need {wanted} open files, of which {limit} are allowed here",
        **connections
    );
    let path = "limits.connections";
    loaded
        .diagnostics
        .warning("descriptor-limit", &connections.origin, path, message)
        .hint("raise the hard limit where the process is started: LimitNOFILE of systemd, `ulimit -Hn`");
}

/// Warns of a user or group that a start would ask the system for in vain.
fn warn_of_unknown(loaded: &mut Loaded, user: Option<&At<String>>, group: Option<&At<String>>) {
    let named = |at: Option<&At<String>>| at.map(|at| at.value.clone()).filter(|name| !name.is_empty());
    for (key, at, problem) in [
        ("server.user", user, user::unknown_account(named(user).as_deref(), None)),
        ("server.group", group, user::unknown_account(None, named(group).as_deref())),
    ] {
        if let (Some(at), Some(problem)) = (at, problem) {
            loaded
                .diagnostics
                .warning("unknown-account", &at.origin, key, problem)
                .hint("a start on this system would fail: create it there, or name another");
        }
    }
}

/// Warns of files that root can read and the user that the process becomes cannot: no reload would succeed.
fn warn_of_unreadable(compiled: &mut Compiled, user: &At<String>, group: Option<&str>) {
    let blocked: Vec<(PathBuf, &Path)> = compiled
        .files
        .iter()
        .filter_map(|file| Some((user::what_keeps_from(user, group, file)?, file.as_path())))
        .collect();
    for (culprit, file) in blocked {
        let message = format!("{} cannot be read by {}", file.display(), user.value);
        compiled
            .diagnostics
            .warning("unreadable-file", &user.origin, "server.user", message)
            .hint(user::let_read(user, group, &culprit));
    }
    compiled.diagnostics.sort();
}
