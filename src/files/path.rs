//! From the path of a request to a path below the root. Nothing in it can lead anywhere else.

use crate::routing::escape::decode_segment;

/// What a request's path names below the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FilePath {
    /// Without a slash at either end; empty for the root itself.
    pub(crate) relative: Vec<u8>,
    /// It ended with a slash: it names a directory.
    pub(crate) directory: bool,
}

impl FilePath {
    /// The file that `path` names, which is in its one form; `None` if it can name none: a decoded segment that holds a
    /// slash, a backslash or a control character, is made of dots, or is hidden.
    ///
    /// Names that begin with a dot are hidden, as they hold what nobody means to publish (`.git`, `.env`), all but
    /// `.well-known` (RFC 8615).
    pub(crate) fn below_root(path: &str) -> Option<Self> {
        let rest = path.strip_prefix('/')?;
        let (rest, directory) = match rest.strip_suffix('/') {
            Some(rest) => (rest, true),
            None => (rest, rest.is_empty()),
        };
        let mut relative = Vec::with_capacity(rest.len());
        for segment in rest.split('/').filter(|_| !rest.is_empty()) {
            let name = decode_segment(segment);
            if !is_served(&name) {
                return None;
            }
            if !relative.is_empty() {
                relative.push(b'/');
            }
            relative.extend_from_slice(&name);
        }
        Some(Self { relative, directory })
    }

    /// The path of `name` in this directory.
    pub(crate) fn join(&self, name: &[u8]) -> Vec<u8> {
        if self.relative.is_empty() {
            name.to_vec()
        } else {
            [&self.relative, b"/".as_slice(), name].concat()
        }
    }
}

/// Whether a file or directory of this name is ever served or listed.
pub(crate) fn is_served(name: &[u8]) -> bool {
    let hidden = name.starts_with(b".") && name != b".well-known";
    let strange = |byte: &u8| matches!(byte, b'/' | b'\\') || byte.is_ascii_control();
    !name.is_empty() && !hidden && !name.iter().any(strange)
}

/// Whether `path`, written by the operator, stays below the root: a hidden file is the operator's own choice.
pub(crate) fn is_below(path: &str) -> bool {
    path.split('/').all(|name| !matches!(name, "" | "." | "..") && !name.contains(['\\', '\0']))
}
