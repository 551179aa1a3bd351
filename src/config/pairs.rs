//! Certificates named by pattern: `cert = "certs/*.pem"`, `key = "certs/*-key.pem"`.

use std::path::{Path, PathBuf};

use super::files::matching_names;
use super::process::{CertificateFiles, CertificateRaw};
use crate::base::diagnostic::Diagnostics;
use crate::base::origin::At;

/// The certificate files that `raw` names: one pair, or as many as its patterns match.
pub(super) fn files(raw: &CertificateRaw, path: &str, out: &mut Diagnostics) -> Vec<CertificateFiles> {
    let pair = |cert: PathBuf, key: PathBuf| CertificateFiles {
        cert: At::new(cert, raw.cert.origin.clone()),
        key: At::new(key, raw.key.origin.clone()),
    };
    match (Pattern::of(&raw.cert), Pattern::of(&raw.key)) {
        (Ok(None), Ok(None)) => vec![pair(raw.cert.value.0.clone(), raw.key.value.0.clone())],
        (Ok(Some(cert)), Ok(Some(key))) => {
            let mut found = Vec::new();
            for part in cert.parts() {
                let key = key.with(&part);
                // Without a key it is something else: often the pattern for certificates also matches the keys.
                if key.is_file() {
                    found.push(pair(cert.with(&part), key));
                }
            }
            if found.is_empty() {
                out.error("no-certificates", &raw.cert.origin, path, "no certificate with its key matches")
                    .related(&raw.key.origin, "for the same `*` there must be a key");
            }
            found
        }
        (Ok(_), Ok(_)) => {
            out.error("invalid-value", &raw.cert.origin, path, "both file names must have a `*`, or none")
                .related(&raw.key.origin, "the key");
            Vec::new()
        }
        (cert, _) => {
            let origin = if cert.is_err() { &raw.cert.origin } else { &raw.key.origin };
            out.error("invalid-value", origin, path, "one `*` may stand here, in the name of the file");
            Vec::new()
        }
    }
}

/// A file name with one `*`.
struct Pattern {
    directory: PathBuf,
    before: String,
    after: String,
}

struct TooManyStars;

impl Pattern {
    fn of(path: &Path) -> Result<Option<Self>, TooManyStars> {
        let Some(text) = path.to_str().filter(|text| text.contains('*')) else { return Ok(None) };
        let (directory, name) = text.rsplit_once('/').unwrap_or((".", text));
        match name.split_once('*') {
            Some((before, after)) if !after.contains('*') && !directory.contains('*') => Ok(Some(Self {
                directory: directory.into(),
                before: before.to_owned(),
                after: after.to_owned(),
            })),
            _ => Err(TooManyStars),
        }
    }

    /// What the `*` matches, by name.
    fn parts(&self) -> Vec<String> {
        let names = matching_names(&self.directory, "*").unwrap_or_default();
        let part =
            |name: String| Some(name.strip_prefix(&self.before)?.strip_suffix(&self.after)?.to_owned());
        names.into_iter().filter_map(part).collect()
    }

    fn with(&self, part: &str) -> PathBuf {
        self.directory.join(format!("{}{part}{}", self.before, self.after))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::decode::ConfigPath;

    fn found(cert: &str, key: &str) -> (Vec<String>, usize) {
        let directory = tempfile::tempdir().unwrap();
        for name in ["a.pem", "a-key.pem", "b.pem", "c.pem", "c-key.pem", ".d.pem"] {
            std::fs::write(directory.path().join(name), "").unwrap();
        }
        let at = |name: &str| At::default_value(ConfigPath(directory.path().join(name)));
        let mut out = Diagnostics::default();
        let files = files(&CertificateRaw { cert: at(cert), key: at(key) }, "x", &mut out);
        let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
        (files.iter().map(|pair| format!("{} {}", name(&pair.cert), name(&pair.key))).collect(), out.len())
    }

    #[test]
    fn files_are_paired_by_what_the_star_matches() {
        assert_eq!(
            found("*.pem", "*-key.pem"),
            (vec!["a.pem a-key.pem".into(), "c.pem c-key.pem".into()], 0)
        );
        assert_eq!(
            found("none.pem", "x.pem"),
            (vec!["none.pem x.pem".into()], 0),
            "read where they are loaded"
        );
        assert_eq!(found("*.crt", "*.key"), (vec![], 1));
        assert_eq!(found("*.pem", "a.pem"), (vec![], 1));
        assert_eq!(found("*.*", "*.pem"), (vec![], 1));
    }
}
