//! What is in a directory, as a page or as JSON in the form of nginx' `autoindex_format json`.

use std::fmt::Write;
use std::os::fd::OwnedFd;

use http::header::{self, HeaderMap};
use rustix::fs::Dir;
use serde_json::json;

use super::answer::date;
use super::open::{Facts, Found, Refused, Root};
use super::path::{FilePath, is_served};
use crate::base::quality::weights;
use crate::routing::escape::push_segment;

/// Entries shown: a directory may hold more than anybody wants to read, or we to keep.
const ENTRIES_MAX: usize = 1_000;

/// A directory, sorted: directories first, then files, each by name.
#[derive(Debug)]
pub(super) struct Listing {
    entries: Vec<Entry>,
    /// There are more.
    cut: bool,
    is_root: bool,
}

#[derive(Debug)]
struct Entry {
    name: Vec<u8>,
    /// `None` for a directory.
    size: Option<u64>,
    modified: i64,
}

/// Reads `directory`, which is at `path`. What would not be served is not shown: hidden files, pipes, links that lead out.
pub(super) fn read(root: &Root, path: &FilePath, directory: &OwnedFd) -> Result<Listing, Refused> {
    let mut entries = Vec::new();
    let mut cut = false;
    let failed = |error: rustix::io::Errno| Refused::Failed(error.into());
    for entry in Dir::read_from(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_bytes();
        if !is_served(name) {
            continue;
        }
        if entries.len() == ENTRIES_MAX {
            cut = true;
            break;
        }
        let (size, facts) = match root.find_below(&path.join(name)) {
            Ok(Found::File(file)) => (Some(file.facts.size), file.facts),
            Ok(Found::Directory(fd)) => match rustix::fs::fstat(&fd) {
                Ok(stat) => (None, Facts::of(&stat)),
                Err(_) => continue,
            },
            Err(_) => continue,
        };
        entries.push(Entry { name: name.to_vec(), size, modified: facts.seconds });
    }
    entries.sort_by(|one, two| (one.size.is_some(), &one.name).cmp(&(two.size.is_some(), &two.name)));
    Ok(Listing { entries, cut, is_root: path.relative.is_empty() })
}

/// Whether a client asks for JSON by name, and likes it no less than a page.
pub(super) fn prefers_json(headers: &HeaderMap) -> bool {
    let best = |names: &[&str]| {
        let items = weights(headers.get_all(header::ACCEPT).iter());
        items
            .filter(|(item, _)| names.iter().any(|name| item.eq_ignore_ascii_case(name)))
            .map(|(_, weight)| weight)
            .max()
            .unwrap_or(0)
    };
    let json = best(&["application/json"]);
    json > 0 && json >= best(&["text/html", "application/xhtml+xml"])
}

impl Listing {
    pub(super) fn json(&self) -> String {
        let entry = |entry: &Entry| {
            let name = String::from_utf8_lossy(&entry.name);
            let modified = date(entry.modified).unwrap_or_default();
            match entry.size {
                Some(size) => json!({ "name": name, "type": "file", "mtime": modified, "size": size }),
                None => json!({ "name": name, "type": "directory", "mtime": modified }),
            }
        };
        serde_json::Value::from_iter(self.entries.iter().map(entry)).to_string()
    }

    /// `path` is the client's, encoded.
    pub(super) fn html(&self, path: &str) -> String {
        let title = escaped(path);
        let mut page = format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Index of {title}</title></head>\n\
             <body><h1>Index of {title}</h1>\n<table>\n"
        );
        if !self.is_root {
            page.push_str("<tr><td><a href=\"../\">../</a></td></tr>\n");
        }
        for entry in &self.entries {
            let slash = if entry.size.is_none() { "/" } else { "" };
            // Begun with a dot, so that a name with a colon is not taken for a scheme.
            let mut link = "./".to_owned();
            push_segment(&mut link, &entry.name);
            let name = escaped(&String::from_utf8_lossy(&entry.name));
            let size = entry.size.map(|size| size.to_string()).unwrap_or_default();
            let modified = date(entry.modified).unwrap_or_default();
            // Writing to a String cannot fail.
            writeln!(
                page,
                "<tr><td><a href=\"{}{slash}\">{name}{slash}</a></td><td>{modified}</td><td align=\"right\">{size}</td></tr>",
                escaped(&link)
            )
            .unwrap_or_default();
        }
        page.push_str("</table>\n");
        if self.cut {
            writeln!(page, "<p>Only the first {ENTRIES_MAX} entries found are shown.</p>")
                .unwrap_or_default();
        }
        page.push_str("</body></html>\n");
        page
    }
}

/// `text` where it can be neither tag nor attribute.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}
