//! The exposition as a strict reader sees it, and what a process that lives long does to it.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use http::Method;

use super::*;

/// A process in which everything was counted once shows it all, valid in both formats.
#[test]
fn both_formats_parse_strictly() {
    let (metrics, _held) = busy_process();
    let openmetrics = parse(&metrics.render(true), true);
    let text = parse(&metrics.render(false), false);

    // The same samples either way, but for what the process itself does in between.
    let ours = |page: &Page| {
        let samples = page.samples.iter().filter(|(series, _)| !series.starts_with("process_"));
        samples.map(|(series, value)| (series.clone(), *value)).collect::<BTreeMap<_, _>>()
    };
    assert_eq!(ours(&openmetrics), ours(&text));

    assert_eq!(openmetrics.kinds["edgeward_http_requests"], "counter");
    assert_eq!(text.kinds["edgeward_http_requests_total"], "counter");
    assert_eq!(openmetrics.kinds["edgeward_build"], "info");
    assert_eq!(text.kinds["edgeward_build_info"], "gauge");

    for (series, value) in [
        (r#"edgeward_http_requests_total{route="users",method="GET",code="200"}"#, 1.0),
        (r#"edgeward_http_requests_total{route="users",method="_OTHER",code="4xx"}"#, 1.0),
        (r#"edgeward_http_requests_total{route="users",method="POST",code="200"}"#, 0.0),
        (r#"edgeward_http_requests_in_flight{route="users"}"#, 1.0),
        (r#"edgeward_http_request_duration_seconds_sum{route="users",method="GET"}"#, 0.25),
        (r#"edgeward_http_request_duration_seconds_bucket{le="0.25",route="users",method="GET"}"#, 1.0),
        (r#"edgeward_http_request_size_bytes_sum{route="users"}"#, 1000.0),
        (r#"edgeward_http_response_size_bytes_count{route="users"}"#, 2.0),
        (r#"edgeward_http_requests_rejected_total{reason="request.malformed"}"#, 1.0),
        (r#"edgeward_http_requests_rejected_total{reason="request.header_timeout"}"#, 0.0),
        (r#"edgeward_upstream_requests_total{upstream="u",backend="10.0.0.1:80",code="503"}"#, 1.0),
        (r#"edgeward_upstream_failures_total{upstream="u",backend="10.0.0.1:80",reason="reset"}"#, 1.0),
        (r#"edgeward_upstream_retries_total{upstream="u",reason="connect"}"#, 1.0),
        (r#"edgeward_upstream_retries_total{upstream="u",reason="timeout"}"#, 0.0),
        (r#"edgeward_upstream_request_duration_seconds_count{upstream="u"}"#, 1.0),
        (r#"edgeward_upstream_connect_duration_seconds_count{upstream="u"}"#, 1.0),
        (r#"edgeward_upstream_backend_up{upstream="u",backend="10.0.0.1:80"}"#, 0.0),
        (r#"edgeward_circuit_breaker_state{upstream="u",backend="10.0.0.1:80"}"#, 2.0),
        (r#"edgeward_circuit_breaker_transitions_total{upstream="u",backend="10.0.0.1:80",to="open"}"#, 1.0),
        (r#"edgeward_connections_open{listener="public"}"#, 1.0),
        (r#"edgeward_connections_accepted_total{listener="public"}"#, 1.0),
        (r#"edgeward_connections_rejected_total{listener="public",reason="connections"}"#, 1.0),
        (r#"edgeward_tls_handshake_failures_total{listener="public",reason="timeout"}"#, 1.0),
        (r#"edgeward_http2_connection_errors_total{listener="public",code="ENHANCE_YOUR_CALM"}"#, 1.0),
        (r#"edgeward_jwks_refresh_total{issuer="idp",result="success"}"#, 1.0),
        (r#"edgeward_jwks_refresh_total{issuer="idp",result="timeout"}"#, 1.0),
        (r#"edgeward_jwks_refresh_total{issuer="idp",result="too_large"}"#, 0.0),
        (r#"edgeward_jwks_last_success_timestamp_seconds{issuer="idp"}"#, 1_700_000_000.0),
        ("edgeward_access_log_records_total", 5.0),
        ("edgeward_access_log_dropped_total", 7.0),
        ("edgeward_access_log_failed_total", 0.0),
        (r#"edgeward_config_reloads_total{result="success"}"#, 1.0),
        (r#"edgeward_config_reloads_total{result="failure"}"#, 1.0),
        ("edgeward_config_last_reload_successful", 0.0),
        ("edgeward_config_last_reload_success_timestamp_seconds", 1_700_000_000.0),
        (r#"edgeward_tls_certificate_not_after_timestamp_seconds{name="localhost"}"#, 1_800_000_000.0),
    ] {
        assert_eq!(text.samples.get(series), Some(&value), "{series}");
    }
    assert!(text.samples.contains_key("process_cpu_seconds_total"));
    for name in ["process_resident_memory_bytes", "process_start_time_seconds", "process_open_fds"] {
        assert!(text.samples[name] > 0.0, "{name}");
    }
}

/// The first scrape already has every series whose labels are known, so that a rate sees the first event.
#[test]
fn a_fresh_process_shows_its_known_series_at_zero() {
    let page = parse(&Metrics::new().render(false), false);
    for series in [
        r#"edgeward_config_reloads_total{result="failure"}"#,
        r#"edgeward_http_requests_rejected_total{reason="request.malformed"}"#,
        "edgeward_access_log_dropped_total",
    ] {
        assert_eq!(page.samples.get(series), Some(&0.0), "{series}");
    }
    assert!(page.kinds.contains_key("edgeward_http_requests_total"));
}

/// Route names are the operator's words: whatever is in them, the page stays readable.
#[test]
fn names_are_escaped() {
    let metrics = Metrics::new();
    let route = metrics.route("GET \"a\\b\"\n\u{e4}");
    let _in_flight = route.start();
    let page = parse(&metrics.render(true), true);
    let series = "edgeward_http_requests_in_flight{route=\"GET \\\"a\\\\b\\\"\\n\u{e4}\"}";
    assert_eq!(page.samples.get(series), Some(&1.0));
}

/// A reload that keeps a route keeps its counts; one that drops it drops its series once the last request is over.
#[test]
fn series_live_as_long_as_their_route() {
    let metrics = Metrics::new();
    let before_reload = metrics.route("users");
    before_reload.finish(&Method::GET, 200, 0.1, 0, 0);
    let after_reload = metrics.route("users");
    drop(before_reload);
    let series = r#"edgeward_http_requests_total{route="users",method="GET",code="200"}"#;
    assert_eq!(parse(&metrics.render(false), false).samples.get(series), Some(&1.0));

    let last_request = after_reload.start();
    drop(after_reload);
    assert_eq!(parse(&metrics.render(false), false).samples.get(series), Some(&1.0));
    drop(last_request);
    assert_eq!(parse(&metrics.render(false), false).samples.get(series), None);
}

/// A breaker that is told its state again has not changed; the first word about it is no change either.
#[test]
fn a_breaker_counts_changes_only() {
    let metrics = Metrics::new();
    let upstream = metrics.upstream("u");
    let server = upstream.server("a:1");
    for state in [BreakerState::Closed, BreakerState::Open, BreakerState::Open, BreakerState::HalfOpen] {
        server.breaker(state);
    }
    let page = parse(&metrics.render(false), false);
    let transitions = |to: &str| {
        page.samples[&format!(
            r#"edgeward_circuit_breaker_transitions_total{{upstream="u",backend="a:1",to="{to}"}}"#
        )]
    };
    assert_eq!((transitions("closed"), transitions("open"), transitions("half_open")), (0.0, 1.0, 1.0));
    assert_eq!(page.samples[r#"edgeward_circuit_breaker_state{upstream="u",backend="a:1"}"#], 1.0);
}

/// Requests on many threads lose no count.
#[test]
fn threads_count_together() {
    let metrics = Metrics::new();
    let route = metrics.route("users");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..1000 {
                    let in_flight = route.start();
                    in_flight.route().finish(&Method::PUT, 204, 0.001, 1, 1);
                }
            });
        }
    });
    let page = parse(&metrics.render(false), false);
    assert_eq!(
        page.samples[r#"edgeward_http_requests_total{route="users",method="PUT",code="204"}"#],
        4000.0
    );
    assert_eq!(page.samples[r#"edgeward_http_requests_in_flight{route="users"}"#], 0.0);
    assert_eq!(page.samples[r#"edgeward_http_request_size_bytes_sum{route="users"}"#], 4000.0);
}

type Held =
    (Arc<RouteMetrics>, Arc<UpstreamMetrics>, Arc<ServerMetrics>, InFlight, OpenConnection, Arc<JwksMetrics>);

fn busy_process() -> (Arc<Metrics>, Held) {
    let metrics = Metrics::new();
    metrics.configured(UNIX_EPOCH);
    metrics.reloaded(true, UNIX_EPOCH + Duration::from_secs(1_700_000_000));
    metrics.reloaded(false, UNIX_EPOCH + Duration::from_secs(1_700_000_001));
    metrics.set_certificates([("localhost".to_owned(), UNIX_EPOCH + Duration::from_secs(1_800_000_000))]);
    metrics.request_rejected(Reason::RequestMalformed);
    metrics.access_records_written(5);
    metrics.access_records_dropped(7);

    let route = metrics.route("users");
    route.expect(&Method::GET);
    route.expect(&Method::POST);
    let in_flight = route.start();
    route.finish(&Method::GET, 200, 0.25, 0, 500);
    route.finish(&Method::from_bytes(b"BREW").unwrap(), 418 + 1, 20.0, 1000, 1 << 30);

    let upstream = metrics.upstream("u");
    upstream.retry("connect");
    upstream.connect_seconds(0.001);
    upstream.request_seconds(0.2);
    let server = upstream.server("10.0.0.1:80");
    server.answered(503);
    server.failed("reset");
    server.up(false);
    server.breaker(BreakerState::Closed);
    server.breaker(BreakerState::Open);

    let listener = metrics.listener("public");
    listener.rejected("connections");
    listener.handshake_failed("timeout");
    listener.http2_error("ENHANCE_YOUR_CALM");
    let connection = listener.open();
    let keys = metrics.key_set("idp");
    keys.succeeded(UNIX_EPOCH + Duration::from_secs(1_700_000_000));
    keys.failed("timeout");
    (metrics, (route, upstream, server, in_flight, connection, keys))
}

#[derive(Default)]
struct Page {
    kinds: BTreeMap<String, String>,
    samples: BTreeMap<String, f64>,
}

/// Reads a page as its specification says and panics on the first thing that is not as it should be.
fn parse(text: &str, openmetrics: bool) -> Page {
    assert!(text.ends_with('\n'));
    let mut page = Page::default();
    let mut current = (String::new(), String::new());
    let mut helped = String::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if line == "# EOF" {
            assert!(
                openmetrics && lines.peek().is_none(),
                "an end mark in the middle, or in the text format"
            );
            check_histograms(&page);
            return page;
        }
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect("a help text");
            assert!(!help.is_empty() && !help.contains('\\'));
            name.clone_into(&mut helped);
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a type");
            let known: &[&str] = if openmetrics {
                &["counter", "gauge", "histogram", "info"]
            } else {
                &["counter", "gauge", "histogram"]
            };
            assert!(known.contains(&kind), "{line}");
            assert_eq!(helped, name, "HELP and TYPE stand together");
            assert!(!openmetrics || kind != "counter" || !name.ends_with("_total"), "{line}");
            assert!(openmetrics || kind != "counter" || name.ends_with("_total"), "{line}");
            assert!(page.kinds.insert(name.to_owned(), kind.to_owned()).is_none(), "{name} twice");
            current = (name.to_owned(), kind.to_owned());
        } else {
            let (series, value) = sample(line);
            let name = series.split('{').next().unwrap_or_default();
            let suffixes: &[&str] = match (current.1.as_str(), openmetrics) {
                ("counter", true) => &["_total"],
                ("info", true) => &["_info"],
                ("histogram", _) => &["_bucket", "_count", "_sum"],
                _ => &[""],
            };
            let suffix = name.strip_prefix(current.0.as_str()).expect("a sample of the family above");
            assert!(suffixes.contains(&suffix), "{line} under {current:?}");
            assert!(current.1 == "gauge" || value >= 0.0, "{line}");
            assert!(page.samples.insert(series, value).is_none(), "{line} twice");
        }
    }
    assert!(!openmetrics, "no end mark");
    check_histograms(&page);
    page
}

/// `name{label="value",...} number`, nothing more.
fn sample(line: &str) -> (String, f64) {
    let name_end = line.find(['{', ' ']).expect("a name");
    let word = |text: &str| {
        !text.starts_with(|c: char| c.is_ascii_digit())
            && !text.is_empty()
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    assert!(word(&line[..name_end]), "{line}");
    let mut at = name_end;
    if line[at..].starts_with('{') {
        let mut labels = HashSet::new();
        loop {
            at += 1;
            let equals = at + line[at..].find('=').expect("a label");
            assert!(word(&line[at..equals]), "{line}");
            assert!(labels.insert(&line[at..equals]), "{line}");
            assert!(line[equals + 1..].starts_with('"'), "{line}");
            at = equals + 2;
            loop {
                match line.as_bytes()[at] {
                    b'"' => break,
                    b'\\' => {
                        assert!(matches!(line.as_bytes()[at + 1], b'\\' | b'"' | b'n'), "{line}");
                        at += 2;
                    }
                    _ => at += 1,
                }
            }
            at += 1;
            match line.as_bytes()[at] {
                b',' => {}
                b'}' => break,
                _ => panic!("{line}"),
            }
        }
        at += 1;
    }
    let value = line[at..].strip_prefix(' ').expect("one space");
    assert!(value.bytes().all(|byte| byte.is_ascii_digit() || b"+-.einfNa".contains(&byte)), "{line}");
    (line[..at].to_owned(), value.parse().expect("a number"))
}

/// Buckets grow, end in `+Inf`, and that is the count.
fn check_histograms(page: &Page) {
    for name in page.kinds.iter().filter(|(_, kind)| *kind == "histogram").map(|(name, _)| name) {
        let mut by_labels: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
        let prefix = format!("{name}_bucket{{le=\"");
        for (series, count) in &page.samples {
            if let Some((bound, labels)) =
                series.strip_prefix(&prefix).and_then(|rest| rest.split_once("\","))
            {
                let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().unwrap() };
                by_labels.entry(labels.to_owned()).or_default().push((bound, *count));
            }
        }
        for (labels, mut buckets) in by_labels {
            buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
            assert!(buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1), "{name} {labels}");
            let last = buckets.last().unwrap();
            assert_eq!(last.0, f64::INFINITY);
            assert_eq!(page.samples.get(&format!("{name}_count{{{labels}")), Some(&last.1));
            assert!(page.samples.contains_key(&format!("{name}_sum{{{labels}")));
        }
    }
}
