//! Reads the main file and what it includes. Each file keeps its own text and positions.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use crate::base::decode::{
    Decoder, FILE_BYTES_MAX, Node, Surroundings, Value, parse, push_index, quote, substitute,
};
use crate::base::diagnostic::Diagnostics;
use crate::base::origin::{At, FileId, Origin, Sources};

/// Files one configuration may include. The largest known by teams has some hundred.
const INCLUDED_FILES_MAX: usize = 4096;

/// Bytes of all files together.
const ALL_BYTES_MAX: usize = 4 * FILE_BYTES_MAX;

/// The parsed files of one configuration, variables replaced.
#[derive(Debug)]
pub(super) struct Files {
    /// The root table of the main file.
    pub(super) main: Node,
    /// The root tables of included files: patterns in the order written, files of one by name.
    pub(super) included: Vec<Node>,
}

impl Files {
    /// All of them, the main one first.
    pub(super) fn roots(&self) -> impl Iterator<Item = &Node> {
        std::iter::once(&self.main).chain(&self.included)
    }

    /// Likewise, to be changed.
    pub(super) fn roots_mut(&mut self) -> impl Iterator<Item = &mut Node> {
        std::iter::once(&mut self.main).chain(&mut self.included)
    }
}

/// Reads the file at `path` alone. `None`, reported, if it cannot be read.
pub(super) fn read_main(
    path: &Path,
    surroundings: Surroundings<'_>,
    sources: &mut Sources,
    out: &mut Diagnostics,
) -> Option<(FileId, Node)> {
    match read_bounded(path) {
        Ok(text) => Some(add(path.to_owned(), text, surroundings, sources, out)),
        Err(error) => {
            let message = format!("cannot read {}: {error}", path.display());
            out.error("unreadable-file", &Origin::Default, "", message);
            None
        }
    }
}

/// Reads the file at `path` and all it includes. `None`, reported, if the main file cannot be read.
pub(super) fn read(
    path: &Path,
    surroundings: Surroundings<'_>,
    sources: &mut Sources,
    out: &mut Diagnostics,
) -> Option<Files> {
    let (file, main) = read_main(path, surroundings, sources, out)?;
    let mut reader =
        Reader { surroundings, sources, out, seen: HashSet::new(), included: Vec::new(), bytes: 0 };
    reader.seen.insert(identity(path));
    reader.bytes = reader.sources.get(file).map_or(0, |source| source.text.len());
    reader.include(&main, path.parent().unwrap_or(Path::new("")));
    let included = reader.included;
    Some(Files { main, included })
}

/// Parses `text` as the main file called `path`, which may include files.
pub(super) fn read_text(
    path: &Path,
    text: &str,
    surroundings: Surroundings<'_>,
    sources: &mut Sources,
    out: &mut Diagnostics,
) -> Files {
    let (_, main) = add(path.to_owned(), text.as_bytes().to_vec(), surroundings, sources, out);
    let mut reader =
        Reader { surroundings, sources, out, seen: HashSet::new(), included: Vec::new(), bytes: 0 };
    reader.include(&main, path.parent().unwrap_or(Path::new("")));
    let included = reader.included;
    Files { main, included }
}

struct Reader<'a> {
    surroundings: Surroundings<'a>,
    sources: &'a mut Sources,
    out: &'a mut Diagnostics,
    /// Files read already, by what they are on disk.
    seen: HashSet<PathBuf>,
    included: Vec<Node>,
    bytes: usize,
}

impl Reader<'_> {
    fn include(&mut self, main: &Node, directory: &Path) {
        let Some(node) = main.get("include") else { return };
        let mut cx = Decoder::new(self.sources, self.surroundings, &[], self.out);
        let patterns = cx.key("include", |cx| Vec::<At<String>>::decode(node, cx)).unwrap_or_default();
        for (index, pattern) in patterns.iter().enumerate() {
            let mut path = "include".to_owned();
            push_index(&mut path, index);
            self.include_pattern(pattern, &path, directory);
        }
    }

    fn include_pattern(&mut self, pattern: &At<String>, path: &str, directory: &Path) {
        if pattern.contains("**") {
            self.out
                .error("invalid-value", &pattern.origin, path, "\"**\" is not known here")
                .hint("one * matches within one name; list each directory: [\"a/*.toml\", \"a/b/*.toml\"]");
            return;
        }
        let is_pattern = pattern.contains(['*', '?']);
        let whole = directory.join(&pattern.value);
        if !is_pattern {
            // Read directly, so that the reason why it cannot be read is told.
            self.include_file(&whole, pattern, path, true);
            return;
        }
        match expand(&whole) {
            Err(error) => {
                let message = format!("cannot list the files of {}: {error}", quote(&pattern.value));
                self.out.error("unreadable-file", &pattern.origin, path, message);
            }
            Ok(found) if found.is_empty() => {
                let message = format!("no file matches {}", quote(&pattern.value));
                self.out.warning("include-empty", &pattern.origin, path, message);
            }
            Ok(found) => {
                for file in found {
                    self.include_file(&file, pattern, path, false);
                }
            }
        }
    }

    fn include_file(&mut self, file: &Path, pattern: &At<String>, path: &str, by_name: bool) {
        if !self.seen.insert(identity(file)) {
            // Patterns may overlap, and one may match the main file itself; a name given twice is a mistake.
            if by_name {
                let message = format!("{} is included already", file.display());
                self.out.warning("include-twice", &pattern.origin, path, message);
            }
            return;
        }
        if self.included.len() >= INCLUDED_FILES_MAX {
            let message = format!("more than {INCLUDED_FILES_MAX} files are included");
            self.out.error("include-too-many", &pattern.origin, path, message);
            return;
        }
        let text = match read_bounded(file) {
            Ok(text) => text,
            Err(error) => {
                let message = format!("cannot read {}: {error}", file.display());
                self.out.error("unreadable-file", &pattern.origin, path, message);
                return;
            }
        };
        self.bytes += text.len();
        if self.bytes > ALL_BYTES_MAX {
            let message = format!("all files together are larger than {} MiB", ALL_BYTES_MAX >> 20);
            self.out.error("file-too-large", &pattern.origin, path, message);
            return;
        }
        let (_, root) = add(file.to_owned(), text, self.surroundings, self.sources, self.out);
        self.included.push(root);
    }
}

/// Adds a file to `sources` and parses it.
fn add(
    path: PathBuf,
    bytes: Vec<u8>,
    surroundings: Surroundings<'_>,
    sources: &mut Sources,
    out: &mut Diagnostics,
) -> (FileId, Node) {
    let (text, broken_at) = match String::from_utf8(bytes) {
        Ok(text) => (text, None),
        Err(error) => {
            let at = error.utf8_error().valid_up_to();
            (String::from_utf8_lossy(error.as_bytes()).into_owned(), Some(at))
        }
    };
    let file = sources.add(path, text);
    let text = sources.get(file).map_or("", |source| source.text.as_str());
    if let Some(at) = broken_at {
        let place = Origin::file(file, at..at + char::REPLACEMENT_CHARACTER.len_utf8());
        out.error("syntax", &place, "", "this is not UTF-8").hint("save the file as UTF-8");
    }
    let mut root = parse(file, text, out);
    substitute(&mut root, surroundings.env, out);
    (file, root)
}

/// The content of a file, with one byte more than is allowed at most: the parser refuses that.
fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let about = file.metadata()?;
    if about.is_dir() {
        return Err(io::Error::from(io::ErrorKind::IsADirectory));
    }
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn identity(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

/// The files that `pattern` matches, by name. `*` and `?` match within one name, never a leading dot.
fn expand(pattern: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = vec![PathBuf::new()];
    for component in pattern.components() {
        let name = match component {
            Component::Normal(name) => name.to_string_lossy(),
            other => {
                found.iter_mut().for_each(|path| path.push(other));
                continue;
            }
        };
        if !name.contains(['*', '?']) {
            found.iter_mut().for_each(|path| path.push(name.as_ref()));
            continue;
        }
        let mut next = Vec::new();
        for directory in &found {
            for entry in matching_names(directory, &name)? {
                next.push(directory.join(entry));
            }
        }
        found = next;
    }
    found.retain(|path| path.is_file());
    Ok(found)
}

pub(super) fn matching_names(directory: &Path, pattern: &str) -> io::Result<Vec<String>> {
    let listed = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    let entries = match fs::read_dir(listed) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(error),
    };
    let mut names = Vec::new();
    for entry in entries {
        // A name that is not UTF-8 is none a pattern of ours can match.
        if let Ok(name) = entry?.file_name().into_string()
            && (!name.starts_with('.') || pattern.starts_with('.'))
            && matches(pattern, &name)
        {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Whether `name` matches `pattern`, where `*` is any run of characters and `?` any one. Time is bounded by the product of
/// the lengths: a mismatch goes back to the last `*` only.
fn matches(pattern: &str, name: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let name: Vec<char> = name.chars().collect();
    let (mut at, mut in_name) = (0, 0);
    // Where to go on after the last `*`, if what followed it did not match.
    let mut star: Option<(usize, usize)> = None;
    while in_name < name.len() {
        match (pattern.get(at), name.get(in_name)) {
            (Some('*'), _) => {
                at += 1;
                star = Some((at, in_name));
            }
            (Some('?'), Some(_)) => (at, in_name) = (at + 1, in_name + 1),
            (Some(wanted), Some(found)) if wanted == found => (at, in_name) = (at + 1, in_name + 1),
            _ => {
                let Some((after, from)) = star else { return false };
                star = Some((after, from + 1));
                (at, in_name) = (after, from + 1);
            }
        }
    }
    pattern.get(at..).unwrap_or(&[]).iter().all(|rest| *rest == '*')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nothing() -> Surroundings<'static> {
        Surroundings { env: &|_| None, read: &|_| Err(io::Error::from(io::ErrorKind::NotFound)) }
    }

    fn read_all(files: &[(&str, &str)]) -> (Vec<String>, Vec<(&'static str, String)>) {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let mut sources = Sources::default();
        let mut out = Diagnostics::default();
        read(&directory.path().join("main.toml"), nothing(), &mut sources, &mut out);
        let strip = |text: String| text.replace(&format!("{}/", directory.path().display()), "");
        let read = sources.iter().map(|(_, source)| strip(source.path.display().to_string())).collect();
        (read, out.iter().map(|item| (item.code, strip(item.message.clone()))).collect())
    }

    #[test]
    fn patterns_count_in_order_and_files_by_name() {
        let (read, problems) = read_all(&[
            ("main.toml", "include = [\"z/*.toml\", \"a.toml\", \"*/one.toml\", \"*.toml\"]"),
            ("a.toml", ""),
            ("b.toml", ""),
            ("z/two.toml", ""),
            ("z/one.toml", ""),
            ("z/.hidden.toml", ""),
            ("z/one.toml~", ""),
            ("y/one.toml", ""),
            ("z/dir.toml/x", ""),
        ]);
        assert_eq!(read, ["main.toml", "z/one.toml", "z/two.toml", "a.toml", "y/one.toml", "b.toml"]);
        assert!(problems.is_empty(), "{problems:?}");
    }

    #[test]
    fn a_missing_name_is_an_error_and_an_empty_pattern_a_warning() {
        let include =
            "include = [\"none.toml\", \"none/*.toml\", \"dir\", \"a.toml\", \"a.toml\", \"**/a.toml\", 7]";
        let (_, problems) = read_all(&[("main.toml", include), ("a.toml", ""), ("dir/x", "")]);
        assert_eq!(
            problems.iter().map(|(code, message)| (*code, message.as_str())).collect::<Vec<_>>(),
            [
                ("wrong-type", "expected a string, found an integer"),
                ("unreadable-file", "cannot read none.toml: No such file or directory (os error 2)"),
                ("include-empty", "no file matches \"none/*.toml\""),
                ("unreadable-file", "cannot read dir: is a directory"),
                ("include-twice", "a.toml is included already"),
                ("invalid-value", "\"**\" is not known here"),
            ]
        );
    }

    #[test]
    fn what_is_not_text_is_pointed_at() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("main.toml");
        fs::write(&path, b"a = 1\nb = \"\xff\"\nc = ").unwrap();
        let (mut sources, mut out) = (Sources::default(), Diagnostics::default());
        let files = read(&path, nothing(), &mut sources, &mut out).unwrap();
        assert!(files.main.get("a").is_some());
        let places: Vec<_> = out.iter().map(|item| sources.describe(&item.origin)).collect();
        assert!(places[0].ends_with("main.toml:2") && places[1].ends_with("main.toml:3"), "{places:?}");
        assert!(read(&directory.path().join("none"), nothing(), &mut sources, &mut out).is_none());
    }

    proptest! {
        #[test]
        fn wildcards_match_as_their_regex_does(pattern in "[ab*?]{0,8}", name in "[ab]{0,8}") {
            let regex = format!("^{}$", pattern.replace('*', ".*").replace('?', "."));
            prop_assert_eq!(matches(&pattern, &name), regex::Regex::new(&regex).unwrap().is_match(&name));
        }
    }
}
