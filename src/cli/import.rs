//! `edgeward import`: other gateways' configurations as TOML.

use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::path::Path;

use super::{OK, PROBLEMS, fail, print, run};
use crate::base::out;
use crate::import::nginx::{Source, import};
use crate::import::report::Verdict;

/// Most that is read of standard input: as much as of all files together.
const INPUT_BYTES_MAX: u64 = 64 << 20;

/// Translates nginx' configuration; `output` absent = standard output.
pub(super) fn nginx(file: &Path, output: Option<&Path>, prefix: Option<&Path>, strict: bool) -> u8 {
    run::install_provider();
    let imported = if file == Path::new("-") {
        let mut text = String::new();
        if let Err(error) = io::stdin().lock().take(INPUT_BYTES_MAX + 1).read_to_string(&mut text) {
            return fail(&format!("cannot read standard input: {error}"));
        }
        if text.len() as u64 > INPUT_BYTES_MAX {
            return fail(&format!("standard input is larger than {} MiB", INPUT_BYTES_MAX >> 20));
        }
        import(Source::Text(text, Path::new(".")), prefix)
    } else {
        import(Source::File(file), prefix)
    };
    let imported = match imported {
        Ok(imported) => imported,
        Err(error) => return fail(&error.to_string()),
    };
    // A table of something that is nowhere would be read as if it were.
    let written = match output {
        None => print(&imported.toml),
        Some(path) => match write_new(path, &imported.toml) {
            Ok(()) => OK,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return fail(&format!("{} exists already; it was left as it is", path.display()));
            }
            Err(error) => return fail(&format!("cannot write {}: {error}", path.display())),
        },
    };
    out::complain(&imported.report.table());
    if !imported.warnings.is_empty() {
        out::complain(&format!("on this machine:\n{}", imported.warnings));
    }
    let dropped = imported.report.count(Verdict::Dropped) > 0;
    if written == OK && strict && dropped { PROBLEMS } else { written }
}

/// Fails rather than overwrite, and leaves no half of a file.
fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    file.write_all(text.as_bytes()).inspect_err(|_| {
        // What is left of it is told by the error.
        drop(std::fs::remove_file(path));
    })
}
