//! `edgeward check` and `edgeward schema`: what is wrong with a configuration, and what may stand in one.

use std::path::Path;

use super::args::ReportFormat;
use super::{OK, PROBLEMS, print, run};
use crate::app::descriptors;
use crate::base::out;
use crate::config::{self, Loaded, Runtime, render, schema};

/// Compiles like a start would, and prints every problem; nothing is bound, started or looked up.
pub(super) fn run(config: Option<&Path>, format: ReportFormat) -> u8 {
    let path = match run::find(config) {
        Ok(path) => path,
        Err(status) => return status,
    };
    run::install_provider();
    let mut loaded = config::load(&path, config::surroundings());
    warn_of_descriptors(&mut loaded, descriptors::hard_limit());
    let compiled = loaded.compile(&Runtime::detached());
    let found_errors = compiled.diagnostics.has_errors();
    let printed = match format {
        ReportFormat::Json => print(&render::json(&compiled.diagnostics, &compiled.sources)),
        ReportFormat::Text => {
            if !compiled.diagnostics.is_empty() {
                out::complain(&render::text(
                    &compiled.diagnostics,
                    &compiled.sources,
                    out::complaints_are_read(),
                ));
            }
            match &compiled.snapshot {
                Some(snapshot) => {
                    let counted = |count: usize, what: &str| {
                        format!("{count} {what}{}", if count == 1 { "" } else { "s" })
                    };
                    print(&format!(
                        "{}: ok, {}, {}\n",
                        path.display(),
                        counted(snapshot.routes.len(), "route"),
                        counted(snapshot.upstreams.len(), "upstream"),
                    ))
                }
                None => OK,
            }
        }
    };
    if found_errors { PROBLEMS } else { printed }
}

/// Warns when this machine would not let the process open as many files as `limits.connections` may need. Not a part of
/// compiling, which gives the same everywhere; and not beside errors that were found on reading, which come first.
fn warn_of_descriptors(loaded: &mut Loaded, limit: Option<u64>) {
    let (Some(limit), Some(raw)) = (limit, &loaded.raw) else { return };
    let (connections, idle) = (&raw.limits.connections, *raw.limits.upstream_idle);
    let wanted = descriptors::wanted(**connections, idle);
    if limit >= wanted || loaded.diagnostics.has_errors() {
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

/// Prints the JSON Schema of the configuration.
pub(super) fn schema() -> u8 {
    print(&schema::text())
}
