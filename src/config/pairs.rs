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
                let (cert_file, key_file) = (cert.with(&part), key.with(&part));
                if key_file.is_file() {
                    found.push(pair(cert_file, key_file));
                } else if !key.fits(&cert_file) {
                    // Not the key of another certificate, as where `*.pem` is paired with `*-key.pem`.
                    let message =
                        format!("{} is left out: there is no {}", cert_file.display(), key_file.display());
                    out.warning("no-key", &raw.cert.origin, path, message);
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

    /// Whether this pattern could stand for `file`.
    fn fits(&self, file: &Path) -> bool {
        let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let part = name.strip_prefix(&self.before).and_then(|rest| rest.strip_suffix(&self.after));
        part.is_some() && file.parent() == Some(self.directory.as_path())
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
            (vec!["a.pem a-key.pem".into(), "c.pem c-key.pem".into()], 1),
            "of b.pem, which has no key, the operator is told"
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
