//! What it costs to read and compile a configuration of 10, 1,000 and 10,000 routes: a reload, or a start.
//!
//! `cargo bench --bench config`.
#![expect(clippy::panic, reason = "a benchmark ends when its own data is wrong")]

use std::fmt::Write;
use std::hint::black_box;
use std::path::Path;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use edgeward::config::{Runtime, load_text, render, surroundings};

const SIZES: [usize; 3] = [10, 1_000, 10_000];

/// Routes as a gateway of that size has them: a hundred to an upstream, hosts, methods, predicates, rewrites, defaults.
fn text(routes: usize) -> String {
    let mut text = String::from(
        "[[listeners]]\nname = \"plain\"\naddress = \"127.0.0.1:0\"\n\
         [defaults]\ntimeout = \"5s\"\nip = { deny = [\"192.0.2.0/24\"] }\n",
    );
    let mut add = |piece: std::fmt::Arguments<'_>| {
        if text.write_fmt(piece).is_err() {
            panic!("a String takes any text");
        }
    };
    for upstream in 0..routes.div_ceil(100) {
        add(format_args!("[upstreams.u{upstream}]\nservers = [\"127.0.0.1:3001\", \"127.0.0.1:3002\"]\n"));
    }
    for route in 0..routes {
        let (upstream, host) = (route / 100, route % 7);
        add(format_args!(
            "[[routes]]\nhosts = [\"h{host}.example.com\"]\nupstream = \"u{upstream}\"\nmethods = [\"GET\", \"POST\"]\n"
        ));
        match route % 3 {
            0 => add(format_args!("path = \"/service-{route}/items\"\n")),
            1 => add(format_args!(
                "path = \"/service-{route}/items/{{id}}\"\nheaders = {{ x-version = \"2\" }}\n"
            )),
            _ => add(format_args!(
                "path = \"/service-{route}/*\"\nrewrite = {{ prefix = \"/service-{route}\", to = \"/\" }}\n"
            )),
        }
    }
    text
}

fn compile(c: &mut Criterion) {
    let mut group = c.benchmark_group("compile");
    group.sample_size(10);
    for size in SIZES {
        let text = text(size);
        group.bench_with_input(BenchmarkId::from_parameter(size), &text, |b, text| {
            b.iter(|| {
                let loaded = load_text(Path::new("main.toml"), black_box(text), surroundings());
                let compiled = loaded.compile(&Runtime::detached());
                if compiled.snapshot.is_none() {
                    panic!("{}", render::text(&compiled.diagnostics, &compiled.sources, false));
                }
                compiled
            });
        });
    }
    group.finish();
}

criterion_group!(benches, compile);
criterion_main!(benches);
