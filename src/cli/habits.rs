//! nginx's own options, in its words: what scripts and fingers know.

use std::path::{Path, PathBuf};

use super::{DEFAULT_CONFIGS, OK, PROBLEMS, USAGE, machine, print, run, version};
use crate::base::out;
use crate::config::{self, render};

/// `-v` and `-V`: to standard error, as nginx does.
pub(super) fn version(long: bool) -> u8 {
    let mut text = format!("edgeward version: edgeward/{}\n", env!("CARGO_PKG_VERSION"));
    if long {
        text.push_str(
            &version::text(true)
                .split_once('\n')
                .map_or("", |(_, rest)| rest)
                .replace("target:", "built for"),
        );
    }
    out::complain(&text);
    OK
}

/// `-t` and `-T`: whether the configuration would do, in the words people grep for.
pub(super) fn test(config: Option<&Path>, dump: bool, quiet: bool) -> u8 {
    let path = match run::find(config) {
        Ok(path) => path,
        Err(_) => return PROBLEMS,
    };
    run::install_provider();
    let compiled = machine::compile(config::load(&path, config::surroundings()));
    if compiled.diagnostics.has_errors() || !(quiet || compiled.diagnostics.is_empty()) {
        out::complain(&render::text(&compiled.diagnostics, &compiled.sources, out::complaints_are_read()));
    }
    let shown = std::path::absolute(&path).unwrap_or(path);
    if compiled.snapshot.is_none() {
        out::complain(&format!("edgeward: configuration file {} test failed\n", shown.display()));
        return PROBLEMS;
    }
    if !quiet {
        out::complain(&format!(
            "edgeward: the configuration file {shown} syntax is ok\n\
             edgeward: configuration file {shown} test is successful\n",
            shown = shown.display(),
        ));
    }
    if !dump {
        return OK;
    }
    let mut text = String::new();
    for (_, source) in compiled.sources.iter() {
        text.push_str(&format!("# configuration file {}:\n{}\n", source.path.display(), source.text));
    }
    print(&text)
}

/// `-p`: the configuration within `prefix`, as nginx finds it.
pub(super) fn within(prefix: &Path, config: Option<&Path>) -> PathBuf {
    let named = |file: &Path| prefix.join(file);
    let first = || {
        let all = DEFAULT_CONFIGS.iter().map(|file| named(Path::new(file)));
        all.clone().find(|file| file.exists()).or_else(|| all.into_iter().next()).unwrap_or_default()
    };
    config.map_or_else(first, named)
}

/// `init` with `-c` or `-p`: refused, with what to type instead.
pub(super) fn init(directory: &Path, config: Option<&Path>, prefix: Option<&Path>) -> Option<u8> {
    let given = if config.is_some() { "-c" } else { "-p" };
    let meant = prefix.or_else(|| config?.parent().filter(|parent| !parent.as_os_str().is_empty()));
    if config.is_none() && prefix.is_none() {
        return None;
    }
    let meant = if directory == Path::new(".") { meant.unwrap_or(directory) } else { directory };
    out::complain(&format!(
        "edgeward: init takes a directory, not {given}: it writes DIR/edgeward.toml\n  hint: edgeward init {}\n",
        meant.display()
    ));
    Some(USAGE)
}

/// Directives people give on the command line, and what says the same here.
const DIRECTIVES: &[(&str, &str)] = &[
    ("daemon", "edgeward always runs in the foreground: leave it out"),
    ("master_process", "there is one process: leave it out"),
    ("worker_processes", "set `threads` under [server]"),
    ("worker_connections", "set `connections` under [limits]"),
    ("pid", "set `pid_file` under [server]"),
    ("user", "set `user` under [server]"),
    ("error_log", "the process log goes to standard error; set `level` under [log]"),
    ("env", "the environment is always there: write ${NAME} in a value"),
];

/// `-g`: refused, with the key to set instead.
pub(super) fn directives(given: &str) -> u8 {
    out::complain("edgeward: -g is not offered: settings stand in the configuration file\n");
    for directive in given.split(';').map(str::trim).filter(|directive| !directive.is_empty()) {
        let name = directive.split_whitespace().next().unwrap_or_default();
        let known = DIRECTIVES.iter().find(|(known, _)| *known == name);
        let hint = known.map_or("`edgeward import nginx` translates configuration files", |(_, hint)| hint);
        out::complain(&format!("  {directive}: {hint}\n"));
    }
    USAGE
}
