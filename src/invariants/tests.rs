use std::path::Path;

use proptest::prelude::*;

use super::words::*;
use super::*;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Bytes put together from `words` and noise, behind bytes that say how to cut them.
fn made_of(words: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    let word = prop::sample::select(words).prop_map(|word| word.as_bytes().to_vec());
    let noise = prop::collection::vec(any::<u8>(), 1..4);
    let part = prop_oneof![9 => word, 1 => noise];
    let cuts = prop::collection::vec(any::<u8>(), 0..8);
    (cuts, prop::collection::vec(part, 0..24)).prop_map(|(cuts, parts)| {
        let count = u8::try_from(cuts.len()).unwrap();
        [vec![count], cuts, parts.concat()].concat()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn of_templates(bytes in made_of(TEMPLATES)) {
        template(&bytes);
    }

    #[test]
    fn of_cookies(bytes in made_of(COOKIES)) {
        cookies(&bytes);
    }

    #[test]
    fn of_trace_contexts(bytes in made_of(TRACES)) {
        trace_context(pieces(&bytes).1);
    }

    #[test]
    fn of_logins(bytes in made_of(LOGINS)) {
        login_body(pieces(&bytes).1);
    }

    #[test]
    fn of_requests_for_files(bytes in made_of(RANGES)) {
        file_request(pieces(&bytes).1);
    }

    #[test]
    fn of_proxy_headers(bytes in made_of(PROXIES)) {
        proxy_header(pieces(&bytes).1);
    }

    #[test]
    fn of_brokers(bytes in made_of(BROKERS)) {
        broker(&bytes);
    }

    #[test]
    fn of_shapes(bytes in made_of(SHAPES)) {
        shape(&bytes);
    }

    #[test]
    fn of_heads(bytes in made_of(HEAD)) {
        head(&bytes);
    }

    #[test]
    fn of_chunked_bodies(bytes in made_of(CHUNKS)) {
        chunked(&bytes);
    }

    #[test]
    fn of_framing(bytes in made_of(MESSAGE)) {
        framing(pieces(&bytes).1);
    }

    #[test]
    fn of_requests_over_http2(bytes in made_of(STREAM)) {
        stream(pieces(&bytes).1);
    }

    #[test]
    fn of_http2_frames(bytes in prop::collection::vec(any::<u8>(), 0..800)) {
        frames(&bytes);
    }

    #[test]
    fn of_http2_frames_in_order(bytes in made_of(FRAMES)) {
        frames(&bytes);
    }

    #[test]
    fn of_paths_and_routes(bytes in made_of(PATHS)) {
        route(pieces(&bytes).1);
    }

    #[test]
    fn of_the_access_log(bytes in made_of(LOG)) {
        access_log(&bytes);
    }

    #[test]
    fn of_tokens(bytes in made_of(TOKEN)) {
        token(&bytes);
    }

    #[test]
    fn of_key_sets(bytes in made_of(KEYS)) {
        key_set(&bytes);
    }

    #[test]
    fn of_merged_answers(bytes in made_of(JSON)) {
        merged(&bytes);
    }

    #[test]
    fn of_requests_of_legs(bytes in made_of(VALUES)) {
        leg_request(&bytes);
    }

    #[test]
    fn of_forwarding_headers(bytes in made_of(NODES)) {
        forwarded(&bytes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn of_configurations(bytes in made_of(TOML)) {
        configuration(pieces(&bytes).1);
    }

    #[test]
    fn of_expressions(bytes in made_of(EXPRESSIONS)) {
        expression(&bytes);
    }

    #[test]
    fn of_rows_of_services(bytes in made_of(ROWS)) {
        service_rows(&bytes);
    }

    #[test]
    fn of_nginx_configurations(bytes in made_of(NGINX)) {
        nginx(pieces(&bytes).1);
    }
}

/// A certificate, whole and with one byte of it changed.
#[test]
fn of_client_certificates() {
    let seed = root().join("fuzz/seeds/client_certificate/usual");
    let good = std::fs::read(seed).unwrap();
    assert!(crate::base::client_cert::ClientCert::read(&good).is_some());
    for at in 0..good.len() {
        for flip in [1, 0x20, 0x80, 0xff] {
            let mut damaged = good.clone();
            damaged[at] ^= flip;
            client_certificate(&damaged);
        }
    }
}

/// Every checked-in seed of the fuzzers holds, and so do the configurations that come with the program.
#[test]
fn of_the_seeds() {
    let seeds = BODIES.iter().map(|body| (format!("fuzz/seeds/{}", body.name), body.check));
    for (name, check) in seeds.chain([("conf".to_owned(), configuration as fn(&[u8]))]) {
        let files = std::fs::read_dir(root().join(&name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        let files: Vec<_> = files.map(|file| file.unwrap().path()).filter(|path| path.is_file()).collect();
        assert!(!files.is_empty(), "{name} is empty");
        for file in files {
            let bytes = std::fs::read(&file).unwrap();
            let held = std::panic::catch_unwind(|| check(&bytes));
            assert!(held.is_ok(), "{}: {}", file.display(), bytes.escape_ascii());
        }
    }
}

/// Each body has a target of its own, as cargo-fuzz wants them, and a line in the table of `fuzz/README.md`.
#[test]
fn have_targets() {
    let read = |name: &str| std::fs::read_to_string(root().join("fuzz").join(name)).unwrap();
    let (manifest, table) = (read("Cargo.toml"), read("README.md"));
    for Body { name, .. } in BODIES {
        assert!(manifest.contains(&format!("\nname = \"{name}\"\n")), "{name}");
        assert!(table.contains(&format!("\n| `{name}` | ")), "{name}");
        let target = format!(
            "//! See `edgeward::invariants::{name}`.\n#![no_main]\n\n\
             libfuzzer_sys::fuzz_target!(|bytes: &[u8]| edgeward::invariants::{name}(bytes));\n"
        );
        assert_eq!(read(&format!("targets/{name}.rs")), target);
    }
    let targets = std::fs::read_dir(root().join("fuzz/targets")).unwrap().count();
    assert_eq!(targets, BODIES.len() + 1, "and one has them all");
}
