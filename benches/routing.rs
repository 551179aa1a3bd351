//! What it costs to find a route among 10, 1,000 and 10,000: it should cost the same.
//!
//! `cargo bench --bench routing`. After the measurements it prints each cost as a multiple of the one among 10.
#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a benchmark ends when its own data is wrong, and prints"
)]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group};
use edgeward::base::clock;
use edgeward::routing::{MethodSet, Outcome, PathPattern, RequestView, RouteId, RouteSpec, Table, path};
use http::{HeaderMap, Method};

const SIZES: [usize; 3] = [10, 1_000, 10_000];
/// Requests taken in turn: more than one, so that no size profits from asking the same thing again.
const REQUESTS: usize = 64;

/// A third exact paths, a third templates, a third prefixes, under as many services as a gateway of that size has. All
/// names have the same length, so that only the number of routes differs.
fn table(size: usize) -> Table {
    let specs = (0..size).map(|number| {
        let path = match number % 3 {
            0 => format!("/api/v1/service-{number:05}/items"),
            1 => format!("/api/v1/service-{number:05}/items/{{id}}"),
            _ => format!("/api/v1/service-{number:05}/*"),
        };
        let pattern = PathPattern::parse(&path).expect("a pattern");
        let id = RouteId(u32::try_from(number).expect("few routes"));
        RouteSpec { methods: Some(MethodSet::named("GET").expect("a method")), ..RouteSpec::new(id, pattern) }
    });
    Table::build(specs.collect())
}

/// Paths of one kind, spread over the table.
fn paths(kind: &str, size: usize) -> Vec<String> {
    let remainder = match kind {
        "exact" => 0,
        "template" => 1,
        _ => 2,
    };
    let numbers: Vec<_> = (0..size).filter(|number| number % 3 == remainder).collect();
    (0..REQUESTS)
        .map(|turn| {
            let number = numbers.get(turn * 7919 % numbers.len()).expect("within");
            match kind {
                "exact" => format!("/api/v1/service-{number:05}/items"),
                "template" => format!("/api/v1/service-{number:05}/items/4711"),
                "prefix" => format!("/api/v1/service-{number:05}/a/b/c"),
                _ => format!("/api/v2/service-{number:05}/items"),
            }
        })
        .collect()
}

/// What a request costs: its path brought into its form, and its route found.
fn serve(table: &Table, raw: &str, headers: &HeaderMap) -> Outcome {
    let path = path::normalise(raw.as_bytes()).expect("a path");
    let view = RequestView {
        listener: 0,
        host: "api.example.com",
        path: &path,
        query: None,
        method: &Method::GET,
        headers,
    };
    table.find(&view)
}

fn matching(criterion: &mut Criterion) {
    let headers = HeaderMap::new();
    for kind in ["exact", "template", "prefix", "miss"] {
        let mut group = criterion.benchmark_group(format!("route/{kind}"));
        for size in SIZES {
            let (table, paths) = (table(size), paths(kind, size));
            let mut turn = paths.iter().cycle();
            group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
                bencher.iter(|| turn.next().map(|path| black_box(serve(&table, black_box(path), &headers))));
            });
        }
        group.finish();
    }
}

fn building(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("table");
    group.sample_size(10);
    group.bench_function("build/10000", |bencher| bencher.iter(|| black_box(table(10_000))));
    let table = table(10_000);
    group.bench_function("shadowed/10000", |bencher| bencher.iter(|| black_box(table.shadowed())));
    group.finish();
}

/// Nanoseconds a request, the least of several rounds: what disturbs only ever adds.
fn nanoseconds(kind: &str, size: usize) -> f64 {
    const ROUNDS: u32 = 30;
    const TIMES: u32 = 200;
    let (table, paths, headers) = (table(size), paths(kind, size), HeaderMap::new());
    for path in &paths {
        assert_eq!(matches!(serve(&table, path, &headers), Outcome::Found { .. }), kind != "miss", "{path}");
    }
    let round = |_| {
        let start = clock::now();
        for _ in 0..TIMES {
            for path in &paths {
                black_box(serve(&table, black_box(path), &headers));
            }
        }
        (clock::now() - start).as_secs_f64() * 1e9 / f64::from(TIMES) / REQUESTS as f64
    };
    (0..ROUNDS).map(round).fold(f64::INFINITY, f64::min)
}

criterion_group!(benches, matching, building);

fn main() {
    benches();
    for kind in ["exact", "template", "prefix", "miss"] {
        let [few, more, most] = SIZES.map(|size| nanoseconds(kind, size));
        println!(
            "{kind:>8}: {few:.0} ns among 10 routes; among 1,000 times {:.2}, among 10,000 times {:.2}",
            more / few,
            most / few,
        );
    }
    Criterion::default().configure_from_args().final_summary();
}
