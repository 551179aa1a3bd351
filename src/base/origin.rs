//! Where a configured value was written.

use std::ops::{Deref, Range};
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;

use super::veil;

/// Where a configured value was written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Origin {
    /// Nowhere: the built-in default.
    #[default]
    Default,
    /// In a file: which one, and the bytes of it.
    File {
        /// Which file.
        file: FileId,
        /// Byte range in its text.
        span: Range<usize>,
    },
    /// On the command line, under this name.
    CommandLine(&'static str),
    /// In the database: the service of this name, and where in its row, such as `endpoints[0].url`; empty is all of it.
    Row {
        /// The service.
        name: Arc<str>,
        /// The place in its row.
        column: Arc<str>,
    },
}

impl Origin {
    /// A span of a file.
    pub fn file(file: FileId, span: Range<usize>) -> Self {
        Self::File { file, span }
    }
}

/// Index of a file in [`Sources`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(pub u16);

/// The files of one configuration, each with its own text and positions: never concatenated.
#[derive(Debug, Default, Clone)]
pub struct Sources {
    files: Vec<Arc<Source>>,
}

/// One configuration file.
#[derive(Debug)]
pub struct Source {
    /// As shown in messages: the path as given or as found.
    pub path: PathBuf,
    /// Its whole text.
    pub text: String,
    line_starts: Vec<usize>,
    /// What no excerpt shows.
    hidden: Mutex<Vec<Range<usize>>>,
}

impl Sources {
    /// Adds a file and returns its index.
    pub fn add(&mut self, path: PathBuf, text: String) -> FileId {
        let line_starts =
            std::iter::once(0).chain(memchr::memchr_iter(b'\n', text.as_bytes()).map(|at| at + 1)).collect();
        let hidden = Mutex::new(veil::secrets(&text));
        self.files.push(Arc::new(Source { path, text, line_starts, hidden }));
        FileId(u16::try_from(self.files.len() - 1).unwrap_or(u16::MAX))
    }

    /// The file under this index.
    pub fn get(&self, file: FileId) -> Option<&Source> {
        self.files.get(usize::from(file.0)).map(AsRef::as_ref)
    }

    /// All files, in the order they were read.
    pub fn iter(&self) -> impl Iterator<Item = (FileId, &Source)> {
        (0_u16..).map(FileId).zip(self.files.iter().map(AsRef::as_ref))
    }

    /// What stands at `origin`, quotes included; empty if it is not in a file.
    pub fn written(&self, origin: &Origin) -> &str {
        match origin {
            Origin::File { file, span } => {
                self.get(*file).and_then(|source| source.text.get(span.clone())).unwrap_or_default()
            }
            _ => "",
        }
    }

    /// What stands at `origin` is a secret: no excerpt shows it, whatever that is about.
    pub fn hide(&self, origin: &Origin) {
        let Origin::File { file, span } = origin else { return };
        let Some(source) = self.get(*file) else { return };
        let mut hidden = source.hidden.lock();
        if !hidden.contains(span) {
            hidden.push(span.clone());
        }
    }

    /// `path:line` of `origin`, or what it is if it is not in a file.
    pub fn describe(&self, origin: &Origin) -> String {
        match origin {
            Origin::Default => "default".to_owned(),
            Origin::CommandLine(flag) => format!("command line {flag}"),
            Origin::Row { name, column } if column.is_empty() => format!("service {name:?}"),
            Origin::Row { name, column } => format!("service {name:?}, {column}"),
            Origin::File { file, span } => match self.get(*file) {
                Some(source) => format!("{}:{}", source.path.display(), source.position(span.start).line),
                None => "?".to_owned(),
            },
        }
    }
}

/// A place in a text, both counted from 1; the column in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

impl Source {
    /// The position of byte `offset` (clamped to the text).
    pub fn position(&self, offset: usize) -> Position {
        let offset = offset.min(self.text.len());
        let line = self.line_starts.partition_point(|start| *start <= offset).max(1);
        let start = self.line_starts.get(line - 1).copied().unwrap_or(0);
        let column = self.text.get(start..offset).map_or(offset - start, |before| before.chars().count()) + 1;
        Position { line, column }
    }

    /// What is hidden of `line` (from 1), as bytes of [`Source::line`], in their order and apart from each other.
    pub fn hidden(&self, line: usize) -> Vec<Range<usize>> {
        let start = line.checked_sub(1).and_then(|index| self.line_starts.get(index)).copied().unwrap_or(0);
        let end = start + self.line(line).len();
        let hidden = self.hidden.lock();
        let here = hidden.iter().filter(|span| span.start < end && start < span.end);
        let mut spans: Vec<_> =
            here.map(|span| span.start.max(start) - start..span.end.min(end) - start).collect();
        spans.sort_by_key(|span| span.start);
        spans.into_iter().fold(Vec::new(), |mut apart: Vec<Range<usize>>, span| {
            match apart.last_mut().filter(|last| span.start <= last.end) {
                Some(last) => last.end = last.end.max(span.end),
                None => apart.push(span),
            }
            apart
        })
    }

    /// The text of `line` (from 1) without its line end; empty past the end.
    pub fn line(&self, line: usize) -> &str {
        let Some(start) = line.checked_sub(1).and_then(|index| self.line_starts.get(index)).copied() else {
            return "";
        };
        let end = self.line_starts.get(line).map_or(self.text.len(), |next| next - 1);
        self.text.get(start..end).unwrap_or("").trim_end_matches('\r')
    }
}

/// A configured value with where it was written.
#[derive(Debug, Clone, Default)]
pub struct At<T> {
    /// The value.
    pub value: T,
    /// Where it was written; [`Origin::Default`] when it was not.
    pub origin: Origin,
}

impl<T> At<T> {
    /// A value and its place.
    pub fn new(value: T, origin: Origin) -> Self {
        Self { value, origin }
    }

    /// A value that nobody wrote.
    pub fn default_value(value: T) -> Self {
        Self { value, origin: Origin::Default }
    }
}

impl<T> Deref for At<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}
