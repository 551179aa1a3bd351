//! Pairs of files from two names, in each of which one `*` may stand for what a pair has in common.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use super::pair::{Fault, Side, why_unreadable};

/// Pairs taken from one directory. Every key is held in memory, and every handshake searches among the names.
pub(super) const PAIRS_MAX: usize = 10_000;

/// What two names stand for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Expanded {
    /// Certificate and key files, by what `*` took.
    pub(super) pairs: Vec<(PathBuf, PathBuf)>,
    /// Certificate files without a key file.
    pub(super) without_key: Vec<PathBuf>,
}

/// Expands `cert` and `key`: as they are without `*`, else every file that `cert` takes for which `key` takes the same.
pub(super) fn expand(cert: &Path, key: &Path) -> Result<Expanded, Fault> {
    let (cert_pattern, key_pattern) = (Pattern::of(cert, Side::Cert)?, Pattern::of(key, Side::Key)?);
    let (cert_pattern, key_pattern) = match (cert_pattern, key_pattern) {
        (None, None) => {
            return Ok(Expanded { pairs: vec![(cert.to_owned(), key.to_owned())], without_key: Vec::new() });
        }
        (Some(cert), Some(key)) => (cert, key),
        (Some(_), None) => return Err(one_sided(Side::Key)),
        (None, Some(_)) => return Err(one_sided(Side::Cert)),
    };
    let keys = key_pattern.matches(Side::Key)?;
    let mut expanded = Expanded::default();
    for part in cert_pattern.matches(Side::Cert)? {
        let file = cert_pattern.with(&part);
        if keys.binary_search(&part).is_ok() {
            expanded.pairs.push((file, key_pattern.with(&part)));
        } else if key_pattern.part_of(&file).is_none() {
            // Not the key of another certificate, as `a-key.pem` is where `*.pem` and `*-key.pem` are paired.
            expanded.without_key.push(file);
        }
    }
    if expanded.pairs.is_empty() {
        let message = format!("no two files fit {} and {}", cert.display(), key.display());
        return Err(Fault::new(Side::Cert, "tls-no-pairs", message)
            .hint("`*` must take the same in both names, as in \"*.pem\" and \"*-key.pem\""));
    }
    if expanded.pairs.len() > PAIRS_MAX {
        let message = format!("{} stands for more than {PAIRS_MAX} certificates", cert.display());
        return Err(Fault::new(Side::Cert, "tls-too-many", message));
    }
    Ok(expanded)
}

fn one_sided(without: Side) -> Fault {
    Fault::new(without, "tls-pattern", "has no `*`, but the other file name has one".to_owned())
        .hint("write one `*` in both file names, or in none")
}

/// A path whose file name holds one `*`.
struct Pattern<'p> {
    directory: &'p Path,
    before: &'p str,
    after: &'p str,
}

impl<'p> Pattern<'p> {
    /// The pattern that `path` is; `None` if it is a plain path.
    fn of(path: &'p Path, side: Side) -> Result<Option<Self>, Fault> {
        let stars = path.as_os_str().as_encoded_bytes().iter().filter(|byte| **byte == b'*').count();
        if stars == 0 {
            return Ok(None);
        }
        let name = path.file_name().and_then(OsStr::to_str);
        let (Some((before, after)), 1) = (name.and_then(|name| name.split_once('*')), stars) else {
            let message = format!("{} has a `*` that is not the only one in the file name", path.display());
            return Err(Fault::new(side, "tls-pattern", message).hint("directories are named, not matched"));
        };
        let directory =
            path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Ok(Some(Self { directory, before, after }))
    }

    /// What `*` takes in each file of the directory that fits, sorted.
    fn matches(&self, side: Side) -> Result<Vec<String>, Fault> {
        let unreadable = |error: std::io::Error| {
            let message = format!(
                "the directory {} cannot be read: {}",
                self.directory.display(),
                why_unreadable(&error)
            );
            Fault::new(side, "tls-unreadable", message)
        };
        let mut parts = Vec::new();
        for entry in fs::read_dir(self.directory).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            parts.extend(entry.file_name().to_str().and_then(|name| self.part(name)).map(str::to_owned));
        }
        parts.sort_unstable();
        Ok(parts)
    }

    /// What `*` takes in `name`, if it fits.
    fn part<'n>(&self, name: &'n str) -> Option<&'n str> {
        name.strip_prefix(self.before)?.strip_suffix(self.after).filter(|part| !part.is_empty())
    }

    /// What `*` takes in `file`, if it fits and lies in the directory.
    fn part_of<'f>(&self, file: &'f Path) -> Option<&'f str> {
        let name = file.file_name()?.to_str()?;
        (file.parent() == Some(self.directory)).then(|| self.part(name))?
    }

    fn with(&self, part: &str) -> PathBuf {
        self.directory.join(format!("{}{part}{}", self.before, self.after))
    }
}
