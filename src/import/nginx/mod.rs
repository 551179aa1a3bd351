//! nginx' configuration, translated.
//!
//! ```text
//! files (or what `nginx -T` prints) ─► lex ─► parse (includes, lines kept) ─► scope (inheritance) ─► translate ─► TOML, report
//! ```

mod files;
mod lex;
mod parse;
mod pattern;
mod scope;
mod translate;
mod units;
mod vars;

use std::path::{Path, PathBuf};

pub use parse::ParseError;

use super::report::Report;
use crate::base::diagnostic::Severity;
use crate::config::{self, Runtime, render};
use files::Files;

/// A translated configuration.
#[derive(Debug)]
pub struct Imported {
    /// Edgeward's configuration.
    pub toml: String,
    /// What became of each directive.
    pub report: Report,
    /// What [`check`] found that this machine alone is to blame for, such as certificates that are elsewhere.
    pub warnings: String,
}

/// Why nothing can be handed out.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The configuration cannot be read.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// What was made does not pass `edgeward check`.
    #[error(
        "what was made of it does not pass `edgeward check`, which is a defect of the importer:\n{problems}"
    )]
    Defect {
        /// The problems, for people.
        problems: String,
        /// What was made.
        toml: String,
    },
}

/// Where a configuration comes from.
#[derive(Debug)]
pub enum Source<'a> {
    /// A file, which may be what `nginx -T` printed.
    File(&'a Path),
    /// A text, likewise; what it includes is looked for in the directory.
    Text(String, &'a Path),
}

/// Translates a configuration. `prefix` is what nginx was built with or is told by `-p`: relative paths but those of
/// certificates and includes start there; `None` for the directory of the main file.
///
/// Reads the files that are named, and certificates of them to check what was made.
///
/// # Errors
/// If a file cannot be read or is not in nginx' syntax. That what was made does not pass the check is a defect, and an
/// error, too.
pub fn import(source: Source<'_>, prefix: Option<&Path>) -> Result<Imported, ImportError> {
    let mut files = match source {
        Source::File(path) => Files::open(path)?,
        Source::Text(text, directory) => Files::of("-", text, directory),
    };
    let root = parse::parse(&mut files)?;
    let directory = files.directory().to_owned();
    let prefix: PathBuf = prefix.map_or_else(|| directory.clone(), Path::to_owned);
    // Included files are called as the main one calls them.
    let names = |file: u32| {
        let name = Path::new(files.name(file));
        name.strip_prefix(&directory).unwrap_or(name).display().to_string()
    };
    let translation = translate::translate(&root, &names, &directory, &prefix);
    let warnings = check(&translation.toml)?;
    Ok(Imported { toml: translation.toml, report: translation.report, warnings })
}

/// Whether a problem is about a file of this machine, not about what was written.
fn is_about_files(code: &str) -> bool {
    code.starts_with("tls-")
        || matches!(code, "not-a-directory" | "unusable-certificate" | "unreadable-file" | "no-certificates")
}

/// Compiles what was made, as `edgeward check` would.
fn check(toml: &str) -> Result<String, ImportError> {
    let path = Path::new("/edgeward.toml");
    let compiled = config::load_text(path, toml, config::surroundings()).compile(&Runtime::detached());
    let (mut warnings, mut defect) = (String::new(), false);
    for problem in compiled.diagnostics.iter() {
        if is_about_files(problem.code) {
            warnings.push_str(&format!("{}: {}\n", problem.path, problem.message));
        } else {
            defect |= problem.severity == Severity::Error;
        }
    }
    if defect {
        let problems = render::text(&compiled.diagnostics, &compiled.sources, false);
        return Err(ImportError::Defect { problems, toml: toml.to_owned() });
    }
    Ok(warnings)
}

#[cfg(test)]
mod tests;
