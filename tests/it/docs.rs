//! The documents are true: every block of the tour is run, and the small configuration of the README starts.
//!
//! A `toml` block that begins with `# file: NAME` is written to that file. In a `console` block, lines that begin with
//! `$ ` are run by a shell, in order, and what follows is what they print, where `…` stands for anything. `edgeward`
//! on its own is left running in the background until the block that stops it (`^C`). Ports are exchanged for free
//! ones on the way in and back on the way out.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::support::*;

/// A fenced block: its language and its lines.
fn blocks(text: &str) -> Vec<(String, String)> {
    let mut blocks = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some(language) = line.strip_prefix("```") else { continue };
        let body: Vec<_> = lines.by_ref().take_while(|line| *line != "```").collect();
        blocks.push((language.to_owned(), body.join("\n") + "\n"));
    }
    blocks
}

/// The ports a document speaks of, and the free ones in their place.
struct Ports(BTreeMap<u16, (u16, DeadPort)>);

impl Ports {
    fn of(text: &str) -> Self {
        let pattern =
            regex::Regex::new(r"\b(?:127\.0\.0\.1|0\.0\.0\.0|localhost|\[::1\]):(\d{4,5})\b").unwrap();
        let mut ports = BTreeMap::new();
        for found in pattern.captures_iter(text) {
            let port = found[1].parse().unwrap();
            ports.entry(port).or_insert_with(|| {
                let held = DeadPort::new();
                (held.address().port(), held)
            });
        }
        Self(ports)
    }

    fn there(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, (port, (free, _))| {
            text.replace(&format!(":{port}"), &format!(":{free}"))
        })
    }

    fn back(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, (port, (free, _))| {
            text.replace(&format!(":{free}"), &format!(":{port}"))
        })
    }
}

/// Whether `got` is `expected`, where `…` stands for anything, also for several lines.
fn matches(expected: &str, got: &str) -> bool {
    let parts: Vec<_> = expected.trim_end().split('…').map(regex::escape).collect();
    let pattern = format!("(?s)^{}$", parts.join(".*"));
    // What a document shows as a line of its own ends without the spaces a program may print.
    let got: Vec<_> = got.trim_end().lines().map(str::trim_end).collect();
    regex::Regex::new(&pattern).unwrap().is_match(&got.join("\n"))
}

#[test]
fn an_ellipsis_stands_for_anything() {
    assert!(matches("a\nb\n", "a\nb"));
    assert!(matches("a…\n", "abc\ndef\n"));
    assert!(matches("a … c", "a b c"));
    assert!(!matches("a", "ab") && !matches("…a", "ab"));
}

/// A shell session in a directory of its own.
struct Session {
    directory: tempfile::TempDir,
    ports: Ports,
    running: Vec<Child>,
}

impl Session {
    fn new(text: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let bin = directory.path().join(".bin");
        std::fs::create_dir(&bin).unwrap();
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_edgeward"), bin.join("edgeward")).unwrap();
        Self { directory, ports: Ports::of(text), running: Vec::new() }
    }

    fn shell(&self, command: &str) -> Command {
        let path =
            format!("{}:{}", self.directory.path().join(".bin").display(), std::env::var("PATH").unwrap());
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(self.ports.there(command));
        shell.current_dir(self.directory.path()).env("PATH", path).env("NO_COLOR", "1").stdin(Stdio::null());
        shell
    }

    fn write(&self, name: &str, contents: &str) {
        let path = self.directory.path().join(name);
        std::fs::write(path, self.ports.there(contents)).unwrap();
    }

    /// Also in files that a command has written.
    fn exchange_ports(&self) {
        for entry in std::fs::read_dir(self.directory.path()).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "toml") {
                let text = std::fs::read_to_string(&path).unwrap();
                std::fs::write(&path, self.ports.there(&text)).unwrap();
            }
        }
    }

    async fn console(&mut self, block: &str) {
        let mut lines = block.lines().peekable();
        while let Some(line) = lines.next() {
            if line == "^C" {
                self.stop().await;
                continue;
            }
            let mut command =
                line.strip_prefix("$ ").unwrap_or_else(|| panic!("no command: {line}")).to_owned();
            while command.ends_with('\\') {
                command.push('\n');
                command.push_str(lines.next().unwrap());
            }
            let mut expected = String::new();
            while let Some(line) = lines.next_if(|line| !line.starts_with("$ ") && *line != "^C") {
                expected.push_str(line);
                expected.push('\n');
            }
            self.exchange_ports();
            let got = if starts_a_gateway(&command) {
                self.start(&command).await
            } else {
                let ran = run(self.shell(&command)).await;
                self.ports.back(&format!("{}{}", ran.stdout, ran.complaints()))
            };
            assert!(matches(&expected, &got), "$ {command}\n--- expected\n{expected}--- got\n{got}");
        }
    }

    /// Leaves the command running and gives what it printed up to `ready`.
    async fn start(&mut self, command: &str) -> String {
        let log = self.directory.path().join(format!(".log{}", self.running.len()));
        let file = std::fs::File::create(&log).unwrap();
        let mut shell = self.shell(&format!("exec {command}"));
        // Warnings are about the machine: its limits, its names.
        let warnings = std::fs::File::create(log.with_extension("err")).unwrap();
        shell.stdout(file).stderr(warnings);
        let mut child = shell.spawn().unwrap();
        let printed = eventually("ready", async || {
            let text = std::fs::read_to_string(&log).unwrap();
            let ended = child.try_wait().unwrap();
            assert!(ended.is_none(), "$ {command}\nended: {ended:?}\n{text}");
            text.find("ready\n").map(|at| text[..at + "ready\n".len()].to_owned())
        })
        .await;
        self.running.push(child);
        self.ports.back(&printed)
    }

    /// What Ctrl-C does to the gateway started last.
    async fn stop(&mut self) {
        let mut child = self.running.pop().expect("something to stop");
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        let ended = eventually("the gateway to stop", async || child.try_wait().unwrap()).await;
        assert!(ended.success(), "{ended}");
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        for child in &mut self.running {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn starts_a_gateway(command: &str) -> bool {
    let mut words = command.split_whitespace();
    words.next() == Some("edgeward") && matches!(words.next(), None | Some("-c" | "run"))
}

fn document(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

#[tokio::test]
async fn every_block_of_the_tour_does_what_it_says() {
    every_block("docs/tour.md", 10).await;
}

#[tokio::test]
async fn every_block_about_tls_does_what_it_says() {
    every_block("docs/tls.md", 7).await;
}

/// Runs the document `name`, which has more than `least` blocks.
async fn every_block(name: &str, least: usize) {
    let text = document(name);
    let mut session = Session::new(&text);
    let blocks = blocks(&text);
    assert!(blocks.len() > least, "where is {name}?");
    for (language, block) in blocks {
        match language.as_str() {
            "toml" => {
                let (first, contents) = block.split_once('\n').unwrap();
                let name = first.strip_prefix("# file: ");
                session.write(name.expect("a block of TOML says which file it is"), contents);
            }
            "console" => session.console(&block).await,
            other => panic!("a block of {other:?} is not run: {block}"),
        }
    }
    assert!(session.running.is_empty(), "{name} leaves something running");
}

#[tokio::test]
async fn the_configuration_in_the_readme_starts() {
    let text = document("README.md");
    let mut session = Session::new(&text);
    let (_, config) =
        blocks(&text).into_iter().find(|(language, _)| language == "toml").expect("a configuration");
    session.write("edgeward.toml", &config);
    session.console("$ edgeward check\n…\n$ edgeward\n…ready\n^C\n").await;
}

/// Both commands of the first screen exist, and nothing has to be installed by hand before them.
#[test]
fn the_first_screen_names_the_two_commands() {
    let text = document("README.md");
    let first_screen: Vec<_> = text.lines().take(25).collect();
    for command in ["cargo run --release -- demo", "./test"] {
        assert!(first_screen.contains(&command), "{command}");
    }
    let links = regex::Regex::new(r"\]\(([^):]+)\)").unwrap();
    for link in links.captures_iter(&text) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(&link[1]);
        assert!(path.exists(), "{} is not there", &link[1]);
    }
}

#[tokio::test]
async fn the_session_of_the_operations_page_is_true() {
    let text = document("docs/operations.md");
    let mut session = Session::new(&text);
    let run: Vec<_> = blocks(&text)
        .into_iter()
        .filter(|(language, _)| ["toml", "console"].contains(&language.as_str()))
        .collect();
    assert_eq!(run.len(), 2, "{run:?}");
    for (language, block) in run {
        match language.as_str() {
            "toml" => session.write("edgeward.toml", block.strip_prefix("# file: edgeward.toml\n").unwrap()),
            _ => session.console(&block).await,
        }
    }
    // The process that was started has handed over and left; its successor was told to stop.
    let mut first = session.running.pop().unwrap();
    let ended = eventually("the first process to end", async || first.try_wait().unwrap()).await;
    assert!(ended.success(), "{ended}");
    let socket = session.directory.path().join("run/control.sock");
    eventually("its successor to end", async || (!socket.exists()).then_some(())).await;
}

/// What an operator is told to type exists.
#[tokio::test]
async fn the_commands_of_the_operations_page_exist() {
    let text = document("docs/operations.md");
    let commands = regex::Regex::new(r"\bedgeward ([a-z]+) -c\b").unwrap();
    let words: std::collections::BTreeSet<_> =
        commands.captures_iter(&text).map(|found| found[1].to_owned()).collect();
    assert!(words.len() >= 8, "{words:?}");
    for word in words {
        let ran = run(command(Path::new("."), &[&word, "--help"])).await;
        assert_eq!(ran.status, 0, "edgeward {word}: {}", ran.stderr);
    }
}

#[tokio::test]
async fn every_block_about_logins_does_what_it_says() {
    every_block("docs/login.md", 4).await;
}
