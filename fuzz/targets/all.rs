//! Every body in one program, so that only one is linked: `FUZZ_TARGET` says which. The words its inputs are made of are
//! written to the file `FUZZ_WORDS`, for libFuzzer's `-dict`.
#![no_main]

use std::fmt::Write;
use std::sync::OnceLock;

use edgeward::invariants::{BODIES, Body};

static BODY: OnceLock<&Body> = OnceLock::new();

libfuzzer_sys::fuzz_target!(init: choose(), |bytes: &[u8]| {
    (BODY.get().expect("one is chosen before anything runs").check)(bytes);
});

/// Runs before libFuzzer reads its options.
fn choose() {
    let name = std::env::var("FUZZ_TARGET").expect("FUZZ_TARGET names a body");
    let body = BODIES.iter().find(|body| body.name == name).unwrap_or_else(|| panic!("there is no body {name}"));
    if let Some(file) = std::env::var_os("FUZZ_WORDS") {
        std::fs::write(file, dictionary(body)).expect("the words can be written");
    }
    BODY.get_or_init(|| body);
}

/// As libFuzzer reads it: a word a line, in quotes. It takes none that is longer than 64 bytes.
fn dictionary(body: &Body) -> String {
    // It takes no empty file either.
    let mut lines = format!("# {}\n", body.name);
    // Every key there is stands in the reference file, once as it is written.
    let reference = if body.name == "configuration" { include_str!("../../conf/edgeward.toml") } else { "" };
    let keys = reference.lines().filter_map(|line| {
        let (line, _) = line.trim_start_matches('#').split_once("  ").unwrap_or((line, ""));
        (line.starts_with('[') || line.contains(" = ")).then(|| format!("{line}\n"))
    });
    let words = body.words.iter().map(|word| (*word).to_owned()).chain(keys);
    for word in words.filter(|word| (1..=64).contains(&word.len())) {
        lines.push('"');
        for byte in word.bytes() {
            match byte {
                b'"' | b'\\' => write!(lines, "\\{}", char::from(byte)),
                0x20..0x7f => write!(lines, "{}", char::from(byte)),
                _ => write!(lines, "\\x{byte:02X}"),
            }
            .expect("a text takes everything");
        }
        lines.push_str("\"\n");
    }
    lines
}
