//! From TOML files to the immutable snapshot that requests run on.
//!
//! ```text
//! files ─► parse (spans kept) ─► variables ─► merge (defaults, includes) ─► raw (typed, with origins) ─► compile
//!                every step reports to Diagnostics and goes on; render shows them all
//! ```

mod amqp;
mod compile;
mod declared;
pub mod diff;
mod files;
pub mod identity;
pub mod log;
pub mod login;
mod merge;
#[cfg(test)]
mod mountains;
mod numbers;
mod pairs;
pub mod process;
pub mod raw;
pub mod render;
pub mod route;
pub mod schema;
pub mod services;
pub mod settings;
pub mod snapshot;
pub mod tls;

#[cfg(test)]
mod golden;
#[cfg(test)]
mod reference;

use std::io::{self, Read};
use std::path::{Path, PathBuf};

pub use compile::{Compiled, Runtime};
pub use raw::ConfigRaw;

use crate::base::decode::{Decoder, Surroundings, Value, tables};
use crate::base::diagnostic::Diagnostics;
use crate::base::origin::Sources;
use declared::Declared;
use files::Files;
use merge::Under;
use process::ServerRaw;

/// A configuration that was read: what it says, and all that is wrong with it so far.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// Its files.
    pub sources: Sources,
    /// Problems found while reading and decoding.
    pub diagnostics: Diagnostics,
    /// What could be decoded; present also beside errors, so that compiling finds the rest of them.
    pub raw: Option<ConfigRaw>,
    /// Every file it depends on, and the directories in which files are looked for.
    files: Vec<PathBuf>,
    declared: Declared,
    /// What lies under routes that stand in no file.
    under: Under,
}

/// Reads the configuration at `path` with all it includes.
///
/// Opens files and looks up variables, nothing else. Never fails: what is wrong is in [`Loaded::diagnostics`].
pub fn load(path: &Path, surroundings: Surroundings<'_>) -> Loaded {
    let (mut sources, mut diagnostics) = (Sources::default(), Diagnostics::default());
    let files = files::read(path, surroundings, &mut sources, &mut diagnostics);
    finish(files, surroundings, sources, diagnostics)
}

/// Reads only `[server]` of the configuration at `path`: where its process is reached. `None` if the table is not there or
/// cannot be read; then the problems may say why.
pub fn load_server(path: &Path, surroundings: Surroundings<'_>) -> (Option<ServerRaw>, Sources, Diagnostics) {
    let (mut sources, mut diagnostics) = (Sources::default(), Diagnostics::default());
    let main = files::read_main(path, surroundings, &mut sources, &mut diagnostics);
    let mut cx = Decoder::new(&sources, surroundings, &[], &mut diagnostics);
    let server = main.as_ref().and_then(|(_, root)| root.get("server"));
    let server = server.and_then(|node| cx.key("server", |cx| ServerRaw::decode(node, cx)));
    (server, sources, diagnostics)
}

/// Like [`load`], of a `text` that stands in no file; relative paths in it start at the directory of `path`.
pub fn load_text(path: &Path, text: &str, surroundings: Surroundings<'_>) -> Loaded {
    let (mut sources, mut diagnostics) = (Sources::default(), Diagnostics::default());
    let files = files::read_text(path, text, surroundings, &mut sources, &mut diagnostics);
    finish(Some(files), surroundings, sources, diagnostics)
}

fn finish(
    files: Option<Files>,
    surroundings: Surroundings<'_>,
    sources: Sources,
    mut diagnostics: Diagnostics,
) -> Loaded {
    let places = tables(&ConfigRaw::shape());
    let mut cx = Decoder::new(&sources, surroundings, &places, &mut diagnostics);
    let merged = files.map(|mut files| {
        numbers::hold(&mut files, &mut cx);
        merge::merge(files, &mut cx)
    });
    let (root, under) = merged.unzip();
    let raw = root.as_ref().and_then(|root| ConfigRaw::decode(root, &mut cx));
    let mut files = cx.into_files();
    let declared = root.as_ref().map(Declared::of).unwrap_or_default();
    if let Some(raw) = &raw {
        files.retain(|file| !raw.server.is_own(file));
        // Of a pattern the directory counts, which changes when a file comes or goes; the files are found when compiled.
        let patterns = files.extract_if(.., |file| file.to_string_lossy().contains('*'));
        let directories: Vec<_> = patterns.filter_map(|file| file.parent().map(Path::to_owned)).collect();
        // Others are what a route serves, not what it is made from.
        files.retain(|file| !file.is_dir());
        files.extend(directories);
        files.extend(included_directories(raw, &sources));
    }
    files.extend(sources.iter().map(|(_, source)| source.path.clone()));
    Loaded { sources, diagnostics, raw, files, declared, under: under.unwrap_or_default() }
}

/// Where a file may come that `include` is to read.
fn included_directories(raw: &ConfigRaw, sources: &Sources) -> Vec<PathBuf> {
    let main = sources.iter().next().and_then(|(_, source)| source.path.parent()).unwrap_or(Path::new(""));
    let patterns = raw.include.iter().filter(|pattern| pattern.contains(['*', '?']));
    let directories = patterns.filter_map(|pattern| main.join(&pattern.value).parent().map(Path::to_owned));
    directories
        .map(|directory| if directory == Path::new("") { PathBuf::from(".") } else { directory })
        .collect()
}

/// The environment of this process, and its files.
pub fn surroundings() -> Surroundings<'static> {
    Surroundings { env: &|name| std::env::var(name).ok(), read: &read_named_file }
}

/// Most that is read of a file that a value names: a byte more than the largest of them may have, a list of networks, so
/// that none is cut short unnoticed.
const NAMED_FILE_BYTES_MAX: u64 = (16 << 20) + 1;

fn read_named_file(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(NAMED_FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}
