//! What decoding carries along: where it is, what surrounds the file, and the problems found so far.

use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};

use super::foreign;
use super::path;
use super::pending::is_pending;
use super::shape::{Key, TablePlace};
use super::tree::{Entry, Kind, Node};
use crate::base::diagnostic::{Diagnostic, Diagnostics};
use crate::base::names::nearest;
use crate::base::origin::{Origin, Sources};

/// The world outside the files, injected so that tests need none.
#[derive(Clone, Copy)]
pub struct Surroundings<'a> {
    /// Looks up a variable of the environment.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// Reads a file, for secrets kept in one.
    pub read: &'a dyn Fn(&Path) -> io::Result<Vec<u8>>,
}

impl std::fmt::Debug for Surroundings<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Surroundings")
    }
}

/// Carried through all decoding: the place, the surroundings, the problems.
#[derive(Debug)]
pub struct Decoder<'a> {
    pub(super) surroundings: Surroundings<'a>,
    sources: &'a Sources,
    tables: &'a [TablePlace],
    out: &'a mut Diagnostics,
    /// As shown: `routes[2].auth`.
    path: String,
    /// The kind of table: `routes.auth`, `upstreams.*`.
    place: String,
    /// Files named so far.
    files: Vec<PathBuf>,
}

/// Where [`Decoder`] was before it went deeper.
#[derive(Debug)]
pub(super) struct Mark {
    path: usize,
    place: usize,
}

impl<'a> Decoder<'a> {
    /// Starts at the root. `tables` are all tables of the configuration, to say where a misplaced key belongs; may be empty.
    pub fn new(
        sources: &'a Sources,
        surroundings: Surroundings<'a>,
        tables: &'a [TablePlace],
        out: &'a mut Diagnostics,
    ) -> Self {
        Self {
            surroundings,
            sources,
            tables,
            out,
            path: String::new(),
            place: String::new(),
            files: Vec::new(),
        }
    }

    /// The configuration depends on the contents of `file`, too.
    pub(super) fn names_file(&mut self, file: &Path) {
        self.files.push(file.to_owned());
    }

    /// The files that were named, in the order met.
    pub fn into_files(self) -> Vec<PathBuf> {
        self.files
    }

    /// The configuration path of what is being decoded, such as `routes[2].upstream`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The files read, for excerpts and directories.
    pub fn sources(&self) -> &Sources {
        self.sources
    }

    /// Decodes under `key`: the path grows by it.
    pub fn key<R>(&mut self, key: &str, decode: impl FnOnce(&mut Self) -> R) -> R {
        let mark = self.mark();
        path::push_key(&mut self.path, key);
        path::push_key(&mut self.place, key);
        let result = decode(self);
        self.back(mark);
        result
    }

    /// Decodes an entry of a map: the path grows by its name, the kind of table by `*`.
    pub fn entry<R>(&mut self, name: &str, decode: impl FnOnce(&mut Self) -> R) -> R {
        let mark = self.mark();
        path::push_key(&mut self.path, name);
        if !self.place.is_empty() {
            self.place.push('.');
        }
        self.place.push('*');
        let result = decode(self);
        self.back(mark);
        result
    }

    /// Decodes an element of a list: the path grows by its number.
    pub fn index<R>(&mut self, index: usize, decode: impl FnOnce(&mut Self) -> R) -> R {
        let mark = self.mark();
        path::push_index(&mut self.path, index);
        let result = decode(self);
        self.back(mark);
        result
    }

    fn mark(&self) -> Mark {
        Mark { path: self.path.len(), place: self.place.len() }
    }

    fn back(&mut self, mark: Mark) {
        self.path.truncate(mark.path);
        self.place.truncate(mark.place);
    }

    /// Reports an error at `origin`, with the current path.
    pub fn error(
        &mut self,
        code: &'static str,
        origin: &Origin,
        message: impl Into<String>,
    ) -> &mut Diagnostic {
        self.out.error(code, origin, self.path.as_str(), message)
    }

    /// Reports an error about `key` of the table being decoded, at `origin`.
    pub fn key_error(
        &mut self,
        code: &'static str,
        origin: &Origin,
        key: &str,
        message: impl Into<String>,
    ) -> &mut Diagnostic {
        let mut path = self.path.clone();
        path::push_key(&mut path, key);
        self.out.error(code, origin, path, message)
    }

    /// Reports a warning at `origin`, with the current path.
    pub fn warning(
        &mut self,
        code: &'static str,
        origin: &Origin,
        message: impl Into<String>,
    ) -> &mut Diagnostic {
        self.out.warning(code, origin, self.path.as_str(), message)
    }

    /// Reports that `node` is of the wrong type: "expected {expected}, found an integer". Silent for what is broken already.
    ///
    /// Always `None`, so that a decoder can end with it.
    pub fn expected<T>(&mut self, node: &Node, expected: &str) -> Option<T> {
        self.expected_or(node, expected, None)
    }

    /// Like [`Decoder::expected`], with a hint.
    pub fn expected_or<T>(&mut self, node: &Node, expected: &str, hint: Option<String>) -> Option<T> {
        if node.kind != Kind::Broken {
            let message = format!("expected {expected}, found {}", node.what());
            let problem = self.error("wrong-type", &node.origin, message);
            problem.hint = hint;
        }
        None
    }

    /// Reports that the text of `node` is of the right type and yet wrong: `"5 sec" has the unit …`.
    ///
    /// `why` completes the sentence. Always `None`, so that a decoder can end with it.
    pub fn invalid<T>(&mut self, node: &Node, why: impl Display) -> Option<T> {
        let shown = match &node.kind {
            Kind::String { text, substituted: false } => super::quote(text),
            Kind::String { text, substituted: true } => format!("{} (from a variable)", super::quote(text)),
            Kind::Integer(value) => value.to_string(),
            Kind::Float(value) => value.to_string(),
            Kind::Boolean(value) => value.to_string(),
            Kind::Broken => return None,
            _ => node.what().to_owned(),
        };
        self.error("invalid-value", &node.origin, format!("{shown} {why}"));
        None
    }

    /// Reports that `written` is none of `known`, with the nearest of them or all of them as the hint.
    ///
    /// Always `None`, so that a decoder can end with it.
    pub fn none_of<T>(&mut self, node: &Node, written: &str, known: &[&str]) -> Option<T> {
        let all = || known.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ");
        let hint = match nearest(written, known.iter().copied()) {
            Some(name) => format!("did you mean \"{name}\"?"),
            None => format!("one of {}", all()),
        };
        self.error("invalid-value", &node.origin, format!("{} is not known here", super::quote(written)))
            .hint(hint);
        None
    }

    /// `path` as meant by the file it was written in: relative ones start at that file's directory.
    pub fn resolve(&self, origin: &Origin, path: &str) -> PathBuf {
        let path = Path::new(path);
        if let Origin::File { file, .. } = origin
            && path.is_relative()
            && let Some(directory) = self.sources.get(*file).and_then(|source| source.path.parent())
        {
            return directory.join(path);
        }
        path.to_owned()
    }

    /// Reports every entry of a table that none of `known` declares.
    pub(super) fn check_keys<'n>(
        &mut self,
        entries: impl Iterator<Item = (&'n String, &'n Entry)>,
        known: &'static [Key],
    ) {
        for (name, entry) in entries {
            if !known.iter().any(|key| key.name == name) {
                self.unknown_key(name, &entry.key, known);
            }
        }
    }

    fn unknown_key(&mut self, name: &str, origin: &Origin, known: &'static [Key]) {
        if is_pending(&self.place, name) {
            let message = format!("\"{name}\" is not available in this version");
            self.key_error("not-available", origin, name, message);
            return;
        }
        let here = foreign::same(name).filter(|same| known.iter().any(|key| key.name == *same));
        let here: Vec<String> = here.map(|same| format!("\"{same}\"")).collect();
        let hint = match nearest(name, known.iter().map(|key| key.name)) {
            _ if !here.is_empty() => Some(format!("did you mean {}?", here.join(" or "))),
            Some(near) => Some(format!("did you mean \"{near}\"?")),
            None => self
                .where_it_belongs(name)
                .or_else(|| foreign::directive(name).iter().find_map(|same| self.where_it_belongs(same))),
        };
        let message = format!("unknown key {}", super::quote(name));
        self.key_error("unknown-key", origin, name, message).hint = hint;
    }

    /// The table that does declare `name`: an enclosing one first, then the one that shares most of its path.
    fn where_it_belongs(&self, name: &str) -> Option<String> {
        let here: Vec<&str> = self.place.split('.').filter(|part| !part.is_empty()).collect();
        let shared = |table: &TablePlace| {
            let path = table.path.split('.').filter(|part| !part.is_empty());
            path.zip(&here).take_while(|(theirs, ours)| theirs == *ours).count()
        };
        let depth = |table: &TablePlace| table.path.split('.').filter(|part| !part.is_empty()).count();
        let best = self
            .tables
            .iter()
            .filter(|table| table.path != self.place && table.keys.iter().any(|key| key.name == name))
            .max_by_key(|table| {
                let (shared, depth) = (shared(table), depth(table));
                (shared == depth && shared > 0, shared, std::cmp::Reverse(depth))
            })?;
        Some(match best {
            TablePlace { path, .. } if path.is_empty() => {
                format!("\"{name}\" belongs at the top of the file, before the first table")
            }
            TablePlace { path, listed: true, .. } => format!("\"{name}\" belongs in [[{path}]]"),
            TablePlace { path, .. } => format!("\"{name}\" belongs in [{}]", path.replace('*', "NAME")),
        })
    }
}
