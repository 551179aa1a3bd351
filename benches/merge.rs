//! What the JSON of an aggregate costs beside its calls: three answers of 1 KiB read, filtered, merged, shaped and
//! written. `cargo bench --bench merge`.
#![expect(clippy::unwrap_used, reason = "a panic ends the benchmark")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use edgeward::subrequest::json::{Json, Object, parse};
use edgeward::subrequest::read::{Filter, Reading, path};
use edgeward::subrequest::shape::{Formula, Shape};

/// About 1 KiB, as services answer: an object with a list of objects.
fn answer(name: &str) -> Vec<u8> {
    let items: Vec<String> = (0..12)
        .map(|number| {
            format!("{{\"id\":{number},\"name\":\"{name} number {number}\",\"price\":{number}.90,\"tags\":[\"a\",\"b\"]}}")
        })
        .collect();
    format!("{{\"id\":\"{name}-4711\",\"total\":12345678901234567890.10,\"items\":[{}]}}", items.join(","))
        .into_bytes()
}

fn merge(c: &mut Criterion) {
    let answers = [answer("order"), answer("customer"), answer("stock")];
    let bytes: usize = answers.iter().map(Vec::len).sum();
    let mut group = c.benchmark_group("merge");
    group.throughput(Throughput::Bytes(bytes as u64));
    group.bench_function("read three answers", |b| {
        b.iter(|| answers.iter().map(|answer| parse(black_box(answer), 64).unwrap()).collect::<Vec<_>>());
    });
    group.bench_function("read, merge and write three answers", |b| {
        b.iter(|| {
            let mut members = Object::default();
            for (group, answer) in ["a", "b", "c"].into_iter().zip(&answers) {
                members.insert(group.into(), parse(black_box(answer), 64).unwrap());
            }
            Json::Object(members).to_vec()
        });
    });
    let reading = Reading {
        target: path("items").unwrap(),
        filter: Some(Filter::Allow([path("*.id").unwrap(), path("*.name").unwrap()].into())),
        rename: [(path("*.name").unwrap(), "title".into())].into(),
    };
    group.bench_function("target, allow and rename one answer", |b| {
        b.iter(|| reading.apply(parse(black_box(&answers[0]), 64).unwrap()).unwrap().to_vec());
    });
    let names = ["order", "customer", "stock"];
    let formulas = [
        ("id", "order.id"),
        ("who", "customer.{id: id, first: items[0].name}"),
        ("items", "order.items[].{id: id, name: name, price: price}"),
    ];
    let formulas = formulas.map(|(name, text)| (name.into(), Formula::compile(text, &names).unwrap()));
    let shape = Shape(formulas.into());
    let legs =
        names.into_iter().zip(&answers).map(|(name, answer)| (name.into(), parse(answer, 64).unwrap()));
    let legs = Json::Object(legs.collect());
    group.bench_function("shape three answers", |b| {
        b.iter(|| Json::Object(shape.draw(black_box(&legs)).members).to_vec());
    });
    group.finish();
}

criterion_group!(benches, merge);
criterion_main!(benches);
