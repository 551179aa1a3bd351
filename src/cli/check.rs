//! `edgeward check` and `edgeward schema`: what is wrong with a configuration, and what may stand in one.

use std::path::Path;

use super::args::ReportFormat;
use super::{OK, PROBLEMS, machine, print, run};
use crate::base::out;
use crate::config::{self, render, schema};

/// Compiles like a start would, and prints every problem; nothing is bound, started or looked up.
pub(super) fn run(config: Option<&Path>, format: ReportFormat) -> u8 {
    let path = match run::find(config) {
        Ok(path) => path,
        Err(status) => return status,
    };
    run::install_provider();
    let compiled = machine::compile(config::load(&path, config::surroundings()));
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

/// Prints the JSON Schema of the configuration.
pub(super) fn schema() -> u8 {
    print(&schema::text())
}
