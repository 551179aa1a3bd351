//! From nginx' directives to Edgeward's tables.
//!
//! Every function here takes what it can say and notes what became of each directive. What keeps people out and cannot
//! be said closes the route: see [`access`].

mod access;
mod condition;
mod conditional;
mod content;
mod files;
mod headers;
mod known;
mod listen;
mod locations;
mod process;
mod proxy;
mod redirect;
mod rewrite;
mod route;
mod server;
mod upstream;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use indexmap::IndexMap;

use super::parse::Directive;
use super::scope::Scope;
use crate::import::report::{Report, Row, Verdict, Verdicts};
use known::Known;

/// What the translation reads and writes.
pub(super) struct Translator<'a> {
    /// Names of files by their number.
    names: &'a dyn Fn(u32) -> String,
    /// What relative certificates start at.
    directory: PathBuf,
    /// What other relative paths start at.
    prefix: PathBuf,
    verdicts: Verdicts,
    /// `map` blocks by the variable they give.
    maps: BTreeMap<String, &'a Directive>,
    /// `upstream` blocks by name.
    blocks: IndexMap<String, &'a Directive>,
    /// Upstreams as they are needed: by all that they say, with their names.
    upstreams: IndexMap<String, upstream::Written>,
    listeners: Vec<listen::Listener<'a>>,
    /// Names of routes, with how often each was asked for.
    route_names: BTreeMap<String, u32>,
    /// Longest time that a server may take, which a request must be given.
    longest_read: std::time::Duration,
    /// Shortest silence of a server that is put up with: a client's must be shorter.
    shortest_read: std::time::Duration,
    /// Why servers are closed as a whole, by their index.
    closed: BTreeMap<usize, String>,
    /// Servers whose clients must show a certificate on a listener where not all must.
    proving: Vec<usize>,
    /// Networks that are believed.
    trusted: Vec<String>,
    /// The same with the header, whether it is read or not.
    believed: process::Believed,
    /// What `client_max_body_size` says for everything.
    body_bytes: u64,
    /// How many locations have led to others on the way to the one at hand.
    redirections: usize,
}

/// What comes of it.
#[derive(Debug)]
pub(super) struct Translation {
    pub(super) toml: String,
    pub(super) report: Report,
}

/// Translates the main file's directives.
pub(super) fn translate<'a>(
    root: &'a [Directive],
    names: &'a dyn Fn(u32) -> String,
    directory: &Path,
    prefix: &Path,
) -> Translation {
    let mut this = Translator {
        names,
        directory: directory.to_owned(),
        prefix: prefix.to_owned(),
        verdicts: Verdicts::default(),
        maps: BTreeMap::new(),
        blocks: IndexMap::new(),
        upstreams: IndexMap::new(),
        listeners: Vec::new(),
        route_names: BTreeMap::new(),
        longest_read: std::time::Duration::ZERO,
        shortest_read: std::time::Duration::MAX,
        body_bytes: 0,
        redirections: 0,
        closed: BTreeMap::new(),
        proving: Vec::new(),
        trusted: Vec::new(),
        believed: process::Believed::default(),
    };
    let main = Scope::of(root);
    // A file with servers alone is what `http` includes.
    let mut blocks = main.own_named("http");
    let scope = blocks.next().map_or_else(|| main.clone(), |http| main.within(http.inner())).around_servers();
    for more in blocks {
        this.drop(more, "there is one block of it");
    }
    this.gather(&scope);
    this.body_bytes = this.body_size(&scope);
    this.trusted = this.trusted_networks(&scope);
    let servers = this.servers(&scope);
    let listeners = this.render_listeners();
    let upstreams = this.render_upstreams();
    let process = this.process(&main, &scope);
    this.sweep(root, None);
    let dropped: String = [root, scope.own()].into_iter().map(|level| this.dropped_in(level)).collect();
    let report = this.report(root);
    let toml = [
        process,
        dropped,
        listeners,
        upstreams,
        servers.iter().map(|server| this.render_server(server)).collect::<Vec<_>>().join("\n"),
    ]
    .into_iter()
    .filter(|part| !part.is_empty())
    .collect::<Vec<_>>()
    .join("\n");
    Translation { toml, report }
}

impl<'a> Translator<'a> {
    fn done(&mut self, directive: &Directive) {
        self.verdicts.note(directive.id, Verdict::Translated, "");
    }

    fn done_as(&mut self, directive: &Directive, note: impl Into<String>) {
        self.verdicts.note(directive.id, Verdict::Translated, note);
    }

    fn nearly(&mut self, directive: &Directive, note: impl Into<String>) {
        self.verdicts.note(directive.id, Verdict::Approximated, note);
    }

    fn drop(&mut self, directive: &Directive, note: impl Into<String>) {
        self.verdicts.note(directive.id, Verdict::Dropped, note);
    }

    /// `file:line` of a directive.
    fn place(&self, directive: &Directive) -> String {
        let name = (self.names)(directive.file);
        let short =
            Path::new(&name).file_name().map_or(name.clone(), |name| name.to_string_lossy().into_owned());
        format!("{short}:{}", directive.line)
    }

    /// Upstreams and maps by name.
    fn gather(&mut self, http: &Scope<'a>) {
        for block in http.own_named("upstream") {
            self.blocks.insert(block.arg(0).to_owned(), block);
        }
        for block in http.own_named("map") {
            if let Some(name) = block.arg(1).strip_prefix('$') {
                self.maps.insert(name.to_owned(), block);
            }
        }
    }

    /// Gives a verdict to every directive that has none yet.
    fn sweep(&mut self, directives: &'a [Directive], inside: Option<&Directive>) {
        let lost = inside.and_then(|block| match self.verdicts.of(block.id) {
            Some((Verdict::Dropped, _)) => Some("stands in a block that is dropped"),
            _ if block.name == "if" => Some("is not said under a condition"),
            _ => None,
        });
        for directive in directives {
            let name = directive.name.as_str();
            let known = known::known(name);
            if self.verdicts.of(directive.id).is_none() {
                match (known, lost) {
                    (Some(Known::Itself(note)), _) => self.done_as(directive, note),
                    // What is off is off here, too; but for what never is.
                    (Some(Known::Dropped(_)), _)
                        if directive.arg(0) == (if name == "merge_slashes" { "on" } else { "off" }) =>
                    {
                        self.done(directive);
                    }
                    (Some(Known::Dropped(why)), _) => self.drop(directive, why),
                    (Some(Known::Closes(_)), None) if directive.arg(0) == "off" => self.done(directive),
                    (Some(Known::Closes(why)), _) => self.drop(directive, why),
                    (Some(Known::Read), Some(why)) => self.drop(directive, why),
                    (Some(Known::Read), None) if name == "types" => {
                        self.nearly(directive, "of texts that are returned; files have Edgeward's own types");
                    }
                    (Some(Known::Read), None) => self.done(directive),
                    (Some(Known::Handler), None) => self.done(directive),
                    (Some(Known::Handler), Some(why)) => self.drop(directive, why),
                    (None, _) => self.drop(directive, "this importer does not know it"),
                }
            }
            let skipped = known::holds_entries(name) || matches!(known, Some(Known::Dropped(_)));
            if !skipped {
                self.sweep(directive.inner(), Some(directive));
            }
        }
    }

    fn report(&self, root: &[Directive]) -> Report {
        let mut report = Report::default();
        self.rows(root, &mut report.rows);
        report
    }

    fn rows(&self, directives: &[Directive], rows: &mut Vec<Row>) {
        for directive in directives {
            if let Some((verdict, note)) = self.verdicts.of(directive.id) {
                rows.push(Row {
                    file: (self.names)(directive.file),
                    line: directive.line,
                    text: directive.text(),
                    verdict,
                    note,
                });
            }
            if !known::holds_entries(&directive.name) {
                self.rows(directive.inner(), rows);
            }
        }
    }

    /// Comments about what is missing of a block.
    fn dropped_in(&self, block: &[Directive]) -> String {
        block
            .iter()
            .filter_map(|directive| match self.verdicts.of(directive.id) {
                Some((Verdict::Dropped, why)) => Some(crate::import::toml::comment(&format!(
                    "{}: {} is dropped: {why}",
                    self.place(directive),
                    directive.text()
                ))),
                _ => None,
            })
            .collect()
    }

    /// A path as nginx resolves it: from its prefix.
    fn under_prefix(&self, path: &str) -> String {
        self.prefix.join(path).display().to_string()
    }

    /// The path of a certificate: from the directory of the main file.
    fn under_directory(&self, path: &str) -> String {
        self.directory.join(path).display().to_string()
    }
}
