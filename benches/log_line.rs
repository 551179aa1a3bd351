//! What telemetry costs a request: filling and handing over a record, counting it; and what a line costs the writer.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use edgeward::telemetry::access::{
    AccessLog, AccessRecord, Escape, Field, Format, Output, Queue, Stamps, Writer,
};
use edgeward::telemetry::metrics::{Metrics, RouteMetrics};
use edgeward::telemetry::request_id::RequestId;
use edgeward::telemetry::trace::TraceContext;
use http::{HeaderMap, HeaderValue, Method, Version, header};
use jiff::tz::TimeZone;

fn browser_headers() -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        (header::HOST, "api.example.com"),
        (header::USER_AGENT, "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
        (header::ACCEPT, "application/json, text/plain, */*"),
        (header::ACCEPT_LANGUAGE, "en-US,en;q=0.5"),
        (header::ACCEPT_ENCODING, "gzip, deflate, br, zstd"),
        (header::REFERER, "https://app.example.com/orders?page=2"),
        (header::COOKIE, "session=0f8fad5b-d9cb-469f-a165-70867728950e; theme=dark"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers
}

/// What the proxy does with a record between the first byte of a request and the last of its answer.
fn fill(format: impl Fn(&mut AccessRecord), id: RequestId, trace: TraceContext) -> Box<AccessRecord> {
    let mut record = AccessRecord::new();
    record.client = Some([192, 0, 2, 60].into());
    record.client_port = Some(54321);
    record.version = Some(Version::HTTP_11);
    record.set(Field::Method, "GET");
    record.set(Field::Target, "/api/users/42?fields=name,email&lang=en");
    record.set(Field::Host, "api.example.com");
    record.set(Field::Path, "/api/users/42");
    record.set(Field::Listener, "public");
    record.set(Field::Route, "users");
    record.set(Field::Upstream, "users");
    format(&mut record);
    let attempt = record.begin_attempt("10.0.0.1:3001", trace.span, UNIX_EPOCH);
    attempt.status = Some(200);
    attempt.connect = Some(Duration::ZERO);
    attempt.header = Some(Duration::from_micros(812));
    attempt.span.duration = Some(Duration::from_micros(905));
    record.request_id = Some(id);
    record.trace = Some(trace);
    record.ended = UNIX_EPOCH + Duration::from_millis(1_787_360_468_007);
    record.request_time = Duration::from_micros(1001);
    record.status = 200;
    record.body_bytes_sent = 1234;
    record.bytes_sent = 1500;
    record.completed = true;
    record
}

fn lines(c: &mut Criterion) {
    let headers = browser_headers();
    let mut group = c.benchmark_group("log_line");
    for name in ["combined", "json"] {
        let Ok(format) = Format::compile(name, Escape::Default) else { continue };
        let trace = TraceContext::accept(None);
        let record = fill(|record| format.collect_request(record, &headers), RequestId::random(), trace);
        let mut stamps = Stamps::new(TimeZone::UTC);
        let mut out = Vec::new();
        group.bench_function(name, |b| {
            b.iter(|| {
                out.clear();
                format.write(black_box(&record), &mut stamps, &mut out);
                black_box(out.len())
            });
        });
    }
    group.finish();
}

fn request_path(c: &mut Criterion) {
    let headers = browser_headers();
    let mut group = c.benchmark_group("request_path");

    group.bench_function("request_id", |b| b.iter(RequestId::random));
    group.bench_function("trace_context", |b| {
        b.iter(|| {
            let trace = TraceContext::accept(black_box(Some(
                b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            )));
            trace.traceparent(trace.span)
        });
    });

    let metrics = Metrics::new();
    let queue = Queue::new(Arc::clone(&metrics));
    if let (Ok(format), Ok(writer)) = (Format::compile("combined", Escape::Default), Writer::start(&queue)) {
        let log = AccessLog::new(queue, format, Output::File("/dev/null".into()));
        let trace = TraceContext::accept(None);
        group.bench_function("record_filled", |b| {
            b.iter(|| fill(|record| log.collect_request(record, &headers), RequestId::random(), trace));
        });
        group.bench_function("record_submitted", |b| {
            b.iter_batched(
                || fill(|record| log.collect_request(record, &headers), RequestId::random(), trace),
                |record| log.submit(record),
                BatchSize::NumIterations(1000),
            );
        });
        writer.stop(Duration::from_secs(10));
    }

    let route = metrics.route("users");
    group.bench_function("metrics_finish", |b| b.iter(|| count(&route)));
    let many: Vec<_> = (0..10_000).map(|n| metrics.route(&format!("route-{n}"))).collect();
    let mut next = many.iter().cycle();
    group.bench_function("metrics_finish_10000_routes", |b| {
        b.iter(|| next.next().into_iter().for_each(count));
    });
    group.finish();

    c.bench_function("metrics_render_10000_routes", |b| b.iter(|| metrics.render(black_box(false)).len()));
}

fn count(route: &Arc<RouteMetrics>) {
    let in_flight = route.start();
    in_flight.route().finish(black_box(&Method::GET), black_box(200), black_box(0.0123), 0, black_box(1234));
}

criterion_group!(benches, lines, request_path);
criterion_main!(benches);
