//! The files of a configuration: read from disk as they are included, or taken from what `nginx -T` printed.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use super::parse::ParseError;

/// Largest file.
const FILE_BYTES_MAX: u64 = 8 << 20;
/// Largest sum of all files.
const TOTAL_BYTES_MAX: usize = 64 << 20;
/// Most files, each counted as often as it is included.
const FILES_MAX: usize = 2048;
/// Most entries of a directory that a pattern is held against.
const ENTRIES_MAX: usize = 65_536;

/// What `nginx -T` writes before each file.
const MARKER: &str = "# configuration file ";

/// All files read so far, by number; the main one is 0.
#[derive(Debug)]
pub(super) struct Files {
    read: Vec<(String, String)>,
    /// What relative includes and certificates start at: the directory of the main file.
    directory: PathBuf,
    /// The files of a dump; then none is read from disk.
    dump: Option<BTreeMap<PathBuf, String>>,
    total: usize,
}

impl Files {
    /// The main file at `path`, which may be what `nginx -T` printed.
    pub(super) fn open(path: &Path) -> Result<Self, ParseError> {
        let name = path.display().to_string();
        let text = read(path).map_err(|message| ParseError { file: name.clone(), line: 0, message })?;
        let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        Ok(Self::of(&name, text, absolute.parent().unwrap_or(Path::new("/"))))
    }

    /// A main file that stands nowhere; what it includes is looked for in `directory`.
    pub(super) fn of(name: &str, text: String, directory: &Path) -> Self {
        let total = text.len();
        if let Some((main, dump)) = split_dump(&text) {
            let directory = Path::new(&main).parent().unwrap_or(Path::new("/")).to_owned();
            let text = dump.get(Path::new(&main)).cloned().unwrap_or_default();
            return Self { read: vec![(main, text)], directory, dump: Some(dump), total };
        }
        Self { read: vec![(name.to_owned(), text)], directory: directory.to_owned(), dump: None, total }
    }

    #[cfg(test)]
    pub(super) fn of_text(name: &str, text: &str) -> Self {
        Self::of(name, text.to_owned(), Path::new("/nonexistent"))
    }

    pub(super) fn name(&self, file: u32) -> &str {
        self.read.get(file as usize).map_or("?", |(name, _)| name.as_str())
    }

    pub(super) fn text(&self, file: u32) -> String {
        self.read.get(file as usize).map(|(_, text)| text.clone()).unwrap_or_default()
    }

    /// What relative paths of includes and certificates start at.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The numbers of the files that `pattern` stands for, by name. A name without wildcards must exist.
    pub(super) fn include(&mut self, pattern: &str) -> Result<Vec<u32>, String> {
        let pattern = self.directory.join(pattern);
        let wild = pattern.as_os_str().to_string_lossy().contains(['*', '?', '[']);
        let paths = match &self.dump {
            Some(dump) if wild => dump.keys().filter(|path| fits_path(&pattern, path)).cloned().collect(),
            None if wild => glob(&pattern)?,
            _ => vec![pattern],
        };
        let mut numbers = Vec::with_capacity(paths.len());
        for path in paths {
            let text = match &self.dump {
                Some(dump) => dump
                    .get(&path)
                    .cloned()
                    .ok_or_else(|| format!("{} is not in what nginx -T printed", path.display()))?,
                None => read(&path).map_err(|why| format!("{}: {why}", path.display()))?,
            };
            self.total += text.len();
            if self.read.len() >= FILES_MAX || self.total > TOTAL_BYTES_MAX {
                return Err(format!(
                    "more than {FILES_MAX} files or {} MiB are included",
                    TOTAL_BYTES_MAX >> 20
                ));
            }
            numbers.push(u32::try_from(self.read.len()).unwrap_or(u32::MAX));
            self.read.push((path.display().to_string(), text));
        }
        Ok(numbers)
    }
}

fn read(path: &Path) -> Result<String, String> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(|error| error.to_string())?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("is larger than {} MiB", FILE_BYTES_MAX >> 20));
    }
    // Comments in another encoding are common, and no reason to refuse.
    Ok(String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}

/// The name of the main file, and all files by name, if `text` is what `nginx -T` prints.
fn split_dump(text: &str) -> Option<(String, BTreeMap<PathBuf, String>)> {
    let name_of = |line: &str| line.strip_prefix(MARKER)?.trim_end().strip_suffix(':').map(str::to_owned);
    let mut lines = text.lines().skip_while(|line| line.starts_with("nginx: ") || line.trim().is_empty());
    let main = name_of(lines.next()?)?;
    let mut files = BTreeMap::new();
    let (mut name, mut contents) = (main.clone(), String::new());
    for line in lines {
        if let Some(next) = name_of(line) {
            files.insert(PathBuf::from(std::mem::replace(&mut name, next)), std::mem::take(&mut contents));
        } else {
            contents.push_str(line);
            contents.push('\n');
        }
    }
    files.insert(PathBuf::from(name), contents);
    Some((main, files))
}

/// The files that `pattern`, an absolute path, stands for, by name.
fn glob(pattern: &Path) -> Result<Vec<PathBuf>, String> {
    let mut found = vec![PathBuf::new()];
    for component in pattern.components() {
        let text = component.as_os_str().to_string_lossy();
        if !matches!(component, Component::Normal(_)) || !text.contains(['*', '?', '[']) {
            found.iter_mut().for_each(|path| path.push(component));
            continue;
        }
        let mut next = Vec::new();
        for directory in found {
            let Ok(entries) = std::fs::read_dir(&directory) else { continue };
            for entry in entries.take(ENTRIES_MAX).flatten() {
                if fits(&text, &entry.file_name().to_string_lossy()) {
                    next.push(entry.path());
                }
            }
        }
        next.sort();
        found = next;
        if found.len() > FILES_MAX {
            return Err(format!("{} stands for more than {FILES_MAX} files", pattern.display()));
        }
    }
    found.retain(|path| path.is_file());
    Ok(found)
}

fn fits_path(pattern: &Path, path: &Path) -> bool {
    let text = |component: Component<'_>| component.as_os_str().to_string_lossy().into_owned();
    let (pattern, path): (Vec<_>, Vec<_>) =
        (pattern.components().map(text).collect(), path.components().map(text).collect());
    pattern.len() == path.len() && pattern.iter().zip(&path).all(|(pattern, name)| fits(pattern, name))
}

/// Whether `name` fits `pattern` with `*`, `?` and `[...]`, as a shell has it: a dot at the start must be written.
fn fits(pattern: &str, name: &str) -> bool {
    if name.starts_with('.') && !pattern.starts_with('.') {
        return false;
    }
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    fits_chars(&pattern, &name)
}

/// Goes back to the last `*` only, so that no pattern takes longer than its length times the name's.
fn fits_chars(pattern: &[char], name: &[char]) -> bool {
    let (mut left, mut rest) = (pattern, name);
    let mut star: Option<(&[char], &[char])> = None;
    loop {
        match (left, rest) {
            ([], []) => return true,
            (['*', after @ ..], _) => {
                star = Some((after, rest));
                left = after;
                continue;
            }
            ([one, after @ ..], [next, behind @ ..]) => {
                if let Some(after) = match one {
                    '?' => Some(after),
                    '[' => class(after, *next),
                    one => (one == next).then_some(after),
                } {
                    (left, rest) = (after, behind);
                    continue;
                }
            }
            _ => {}
        }
        match star {
            Some((after, [_, behind @ ..])) => {
                star = Some((after, behind));
                (left, rest) = (after, behind);
            }
            _ => return false,
        }
    }
}

/// What follows a class such as `[a-z]` (its `[` is gone), if `next` is in it.
fn class(pattern: &[char], next: char) -> Option<&[char]> {
    let (negated, mut left) = match pattern {
        ['!' | '^', after @ ..] => (true, after),
        _ => (false, pattern),
    };
    let (mut inside, mut first) = (false, true);
    loop {
        match left {
            [']', after @ ..] if !first => return (inside != negated).then_some(after),
            [low, '-', high, after @ ..] if *high != ']' => {
                inside |= (*low..=*high).contains(&next);
                left = after;
            }
            [one, after @ ..] => {
                inside |= *one == next;
                left = after;
            }
            [] => return None,
        }
        first = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_names_as_in_a_shell() {
        for (pattern, name, expected) in [
            ("*.conf", "a.conf", true),
            ("*.conf", ".conf", false),
            ("*", ".hidden", false),
            (".*", ".hidden", true),
            ("a?c", "abc", true),
            ("[a-c]x", "bx", true),
            ("[!a-c]x", "bx", false),
            ("a*b*c", "a1b2b3c", true),
            ("a*b*c", "a1b2b3", false),
        ] {
            assert_eq!(fits(pattern, name), expected, "{pattern} {name}");
        }
        assert!(!fits(&"*a".repeat(40), &"a".repeat(39)), "and it does not take for ever");
    }

    #[test]
    fn includes_are_found_beside_the_main_file_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path();
        std::fs::create_dir(place.join("sites")).unwrap();
        for name in ["b.conf", "a.conf", ".c.conf", "d.txt"] {
            std::fs::write(place.join("sites").join(name), format!("# {name}")).unwrap();
        }
        std::fs::write(place.join("nginx.conf"), "").unwrap();
        let mut files = Files::open(&place.join("nginx.conf")).unwrap();
        let found = files.include("sites/*.conf").unwrap();
        let names: Vec<_> = found.iter().map(|file| files.text(*file)).collect();
        assert_eq!(names, ["# a.conf", "# b.conf"]);
        assert_eq!(files.include("none/*.conf"), Ok(Vec::new()));
        assert!(files.include("none.conf").unwrap_err().contains("No such file"));
    }

    #[test]
    fn a_dump_brings_its_own_files() {
        let dump = "nginx: the configuration file /etc/nginx/nginx.conf syntax is ok\n\
                    # configuration file /etc/nginx/nginx.conf:\ninclude conf.d/*.conf;\n\n\
                    # configuration file /etc/nginx/conf.d/a.conf:\na;\n";
        let mut files = Files::of("-", dump.to_owned(), Path::new("/nonexistent"));
        assert_eq!(files.name(0), "/etc/nginx/nginx.conf");
        let found = files.include("conf.d/*.conf").unwrap();
        assert_eq!(
            found.iter().map(|file| files.name(*file)).collect::<Vec<_>>(),
            ["/etc/nginx/conf.d/a.conf"]
        );
        assert!(files.include("mime.types").unwrap_err().contains("is not in what nginx -T printed"));
    }
}
