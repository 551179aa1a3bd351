//! Lines as nginx writes them, and a log that is written under all conditions.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, Version};
use jiff::tz::TimeZone;
use proptest::prelude::*;

use super::*;
use crate::base::reason::Reason;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::request_id::RequestId;
use crate::telemetry::trace::{SpanId, TraceContext};

/// 22 August 2026, 01:01:08.007 UTC.
fn ended() -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(1_787_360_468_007)
}

/// A request as nginx' own documentation would have it, proxied at the second attempt.
fn record() -> AccessRecord {
    let mut record = *AccessRecord::new();
    fill(&mut record);
    record
}

fn fill(record: &mut AccessRecord) {
    record.ended = ended();
    record.request_time = Duration::from_micros(12_999);
    record.client = Some("192.0.2.60".parse().unwrap());
    record.client_port = Some(54321);
    record.peer = Some("10.0.0.9:443".parse().unwrap());
    record.local = Some("10.0.0.2:8443".parse().unwrap());
    record.server_port = Some(8443);
    record.connection = 17;
    record.connection_requests = 3;
    record.tls = Some(TlsInfo::new(0x0303, 0xc02f));
    record.version = Some(Version::HTTP_11);
    record.request_length = 345;
    record.status = 200;
    record.body_bytes_sent = 1234;
    record.bytes_sent = 1500;
    record.completed = true;
    record.request_id = RequestId::foreign(b"0123456789abcdef0123456789abcdef");
    record.trace =
        Some(TraceContext::accept(Some(b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")));
    record.set(Field::Method, Method::GET.as_str());
    record.set(Field::Target, "/a/../b?x=1&y=2");
    record.set(Field::Path, "/b");
    record.set(Field::Host, "api.example.com");
    record.set(Field::Route, "users");
    record.set(Field::Upstream, "users");
    record.set(Field::Listener, "public");
    let first = record.begin_attempt("10.0.0.1:80", SpanId::random(), ended());
    first.failure = Some("connect");
    first.span.duration = Some(Duration::from_millis(1));
    let second = record.begin_attempt("10.0.0.2:80", SpanId::random(), ended());
    second.status = Some(200);
    second.connect = Some(Duration::ZERO);
    second.header = Some(Duration::from_millis(9));
    second.span.duration = Some(Duration::from_millis(10));
    second.bytes_sent = 300;
    second.bytes_received = 1600;
    second.response_length = 1234;
}

fn headers(headers: &[(&'static str, &str)]) -> HeaderMap {
    let headers = headers.iter().map(|(name, value)| {
        (HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).unwrap())
    });
    headers.collect()
}

fn line_of(format: &str, escape: Escape, record: &AccessRecord) -> String {
    let format = Format::compile(format, escape).unwrap();
    let mut out = Vec::new();
    format.write(record, &mut Stamps::new(TimeZone::UTC), &mut out);
    assert_eq!(out.pop(), Some(b'\n'));
    String::from_utf8_lossy(&out).into_owned()
}

/// The line of `format` for a request with `request` headers, answered with `response` headers.
fn line_with(format: &str, escape: Escape, request: &HeaderMap, response: &HeaderMap) -> String {
    let format = Format::compile(format, escape).unwrap();
    let mut record = record();
    format.collect_request(&mut record, request);
    format.collect_response(&mut record, response);
    let mut out = Vec::new();
    format.write(&record, &mut Stamps::new(TimeZone::UTC), &mut out);
    assert_eq!(out.pop(), Some(b'\n'));
    String::from_utf8_lossy(&out).into_owned()
}

#[test]
fn combined_is_nginx_line() {
    let request = headers(&[
        ("referer", "https://example.com/start"),
        ("user-agent", "Mozilla/5.0 (X11; \"Linux\") \\ \u{e4}\t"),
        ("authorization", "Basic YWxpY2U6c2VjcmV0"),
    ]);
    assert_eq!(
        line_with("combined", Escape::None, &request, &HeaderMap::new()),
        concat!(
            r#"192.0.2.60 - alice [22/Aug/2026:01:01:08 +0000] "GET /a/../b?x=1&y=2 HTTP/1.1" 200 1234 "#,
            r#""https://example.com/start" "Mozilla/5.0 (X11; \x22Linux\x22) \x5C \xC3\xA4\x09""#
        )
    );
}

/// What nginx writes for `\x16\x03\x01` sent to a plain port: nothing but the line is known.
#[test]
fn a_request_that_was_not_understood_has_a_line() {
    let mut record = *AccessRecord::new();
    record.ended = ended();
    record.client = Some("2001:db8::1".parse().unwrap());
    record.status = 400;
    record.body_bytes_sent = 157;
    record.set(Field::RequestLine, b"\x16\x03\x01\x00");
    assert_eq!(
        line_of("combined", Escape::Default, &record),
        r#"2001:db8::1 - - [22/Aug/2026:01:01:08 +0000] "\x16\x03\x01\x00" 400 157 "-" "-""#
    );
    let mut silent = record.clone();
    silent.status = 0;
    silent.client = None;
    silent.set(Field::RequestLine, "");
    assert_eq!(
        line_of("$remote_addr $status \"$request\" $uri", Escape::Default, &silent),
        r#"unix: 000 "" -"#
    );
}

#[test]
fn each_variable_is_as_nginx_writes_it() {
    let request = headers(&[
        ("host", "API.example.com:8443"),
        ("cookie", "a=1; session=x y"),
        ("cookie", "Theme = dark"),
        ("x-tag", "one"),
        ("x-tag", "two"),
        ("content-type", "application/json"),
        ("content-length", "2"),
        ("x-forwarded-for", "203.0.113.9"),
    ]);
    let response = headers(&[("content-type", "text/plain"), ("x-tag", "sent")]);
    for (variable, value) in [
        ("$remote_addr:$remote_port", "192.0.2.60:54321"),
        ("$realip_remote_addr:$realip_remote_port", "10.0.0.9:443"),
        ("$remote_user", "-"),
        ("$host $http_host $server_name", "api.example.com API.example.com:8443 api.example.com"),
        ("$server_addr:$server_port", "10.0.0.2:8443"),
        ("$server_protocol $scheme $https", "HTTP/1.1 https on"),
        ("$request_method $request_uri $uri", "GET /a/../b?x=1&y=2 /b"),
        ("$uri$is_args$args", "/b?x=1&y=2"),
        ("$arg_x,$arg_Y,$arg_z", "1,2,-"),
        ("$cookie_session,$cookie_theme,$cookie_b", "x y,dark,-"),
        ("$http_cookie", "a=1; session=x y; Theme = dark"),
        ("$http_x_tag,$sent_http_x_tag,$http_nothing", "one, two,sent,-"),
        ("$content_type $content_length $sent_http_content_type", "application/json 2 text/plain"),
        ("$request_id", "0123456789abcdef0123456789abcdef"),
        ("$request_length $request_time", "345 0.012"),
        ("$status $bytes_sent $body_bytes_sent $request_completion", "200 1500 1234 OK"),
        ("$msec", "1787360468.007"),
        ("[$time_local] [$time_iso8601]", "[22/Aug/2026:01:01:08 +0000] [2026-08-22T01:01:08+00:00]"),
        ("$connection $connection_requests $pipe", "17 3 ."),
        ("$upstream_addr", "10.0.0.1:80, 10.0.0.2:80"),
        ("$upstream_status", "502, 200"),
        ("$upstream_connect_time/$upstream_header_time", "-, 0.000/-, 0.009"),
        ("$upstream_response_time", "0.001, 0.010"),
        ("$upstream_response_length", "0, 1234"),
        ("$upstream_bytes_received/$upstream_bytes_sent", "0, 1600/0, 300"),
        ("$upstream_cache_status", "-"),
        ("$ssl_protocol $ssl_cipher $ssl_client_s_dn", "TLSv1.2 ECDHE-RSA-AES128-GCM-SHA256 -"),
        ("$ssl_client_verify $ssl_client_serial $ssl_client_fingerprint $ssl_client_i_dn", "NONE - - -"),
        ("$proxy_add_x_forwarded_for", "203.0.113.9, 192.0.2.60"),
        ("$route_name $upstream_name $listener_name", "users users public"),
        ("$reason $error_detail", "- -"),
        ("$trace_id", "4bf92f3577b34da6a3ce929d0e0e4736"),
        ("${status}0 $Status\u{e4}", "2000 200\u{e4}"),
    ] {
        assert_eq!(line_with(variable, Escape::Default, &request, &response), value, "{variable}");
    }
}

/// On a plain connection, without attempts, without a query: what is empty and what is `-`.
#[test]
fn absent_and_empty_are_told_apart() {
    let mut record = AccessRecord::default();
    record.set(Field::Target, "/x?");
    let format = "<$https> <$is_args> <$args> <$remote_port> <$upstream_addr> <$host> <$request_completion>";
    assert_eq!(line_of(format, Escape::Default, &record), "<> <> <-> <> <-> <-> <>");
    assert_eq!(line_of(format, Escape::Json, &record), "<> <> <> <> <> <> <>");
    let format = Format::compile("<$http_referer> <$http_user_agent>", Escape::Default).unwrap();
    format.collect_request(&mut record, &headers(&[("user-agent", "")]));
    let mut out = Vec::new();
    format.write(&record, &mut Stamps::new(TimeZone::UTC), &mut out);
    assert_eq!(out, b"<-> <>\n");
}

#[test]
fn another_upstream_stands_after_a_colon() {
    let mut record = record();
    let third = record.begin_attempt("10.9.0.1:80", SpanId::random(), ended());
    third.another_upstream = true;
    third.failure = Some("timeout");
    assert_eq!(
        line_of("$upstream_addr|$upstream_status", Escape::Default, &record),
        "10.0.0.1:80, 10.0.0.2:80 : 10.9.0.1:80|502, 200 : 504"
    );
}

#[test]
fn an_http2_request_line_is_put_together() {
    let mut record = record();
    record.version = Some(Version::HTTP_2);
    assert_eq!(line_of("$request", Escape::Default, &record), "GET /a/../b?x=1&y=2 HTTP/2.0");
    record.set(Field::Target, "http://h/a?b\"");
    assert_eq!(
        line_of("$request|$request_uri", Escape::Default, &record),
        r"GET http://h/a?b\x22 HTTP/2.0|/a?b\x22"
    );
}

/// Tokens in a query are secrets of a client: no format shows them.
#[test]
fn secrets_in_a_query_are_masked_everywhere() {
    let mut record = record();
    record.set(Field::Target, "/cb?access_token=s3cret&x=1");
    let request = headers(&[("referer", "https://e/?token=s3cret")]);
    for (text, expected) in [
        ("$request", "GET /cb?access_token=***&x=1 HTTP/1.1"),
        ("$request_uri $args", "/cb?access_token=***&x=1 access_token=***&x=1"),
        ("$arg_access_token $arg_x", "*** 1"),
        ("$http_referer", "https://e/?token=***"),
    ] {
        let format = Format::compile(text, Escape::Default).unwrap();
        let mut record = record.clone();
        format.collect_request(&mut record, &request);
        let mut out = Vec::new();
        format.write(&record, &mut Stamps::new(TimeZone::UTC), &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), format!("{expected}\n"));
    }
    let format = Format::compile("json", Escape::Default).unwrap();
    format.collect_request(&mut record, &request);
    let mut out = Vec::new();
    format.write(&record, &mut Stamps::new(TimeZone::UTC), &mut out);
    assert!(!String::from_utf8(out).unwrap().contains("s3cret"));
}

#[test]
fn nginx_json_escaping_makes_json_of_a_text_format() {
    let mut record = record();
    record.set(Field::Target, "/\"\\\n\u{1}");
    let line = line_of(r#"{"uri":"$request_uri","user":"$remote_user"}"#, Escape::Json, &record);
    assert_eq!(line, r#"{"uri":"/\"\\\n\u0001","user":""}"#);
}

#[test]
fn json_has_all_fields_always() {
    let mut record = record();
    record.reason = Some(Reason::UpstreamTimeout);
    record.set(Field::Detail, "read timed out after 30s");
    let full: serde_json::Value = serde_json::from_str(&line_of("json", Escape::None, &record)).unwrap();
    let empty: serde_json::Value =
        serde_json::from_str(&line_of("json", Escape::None, &AccessRecord::default())).unwrap();
    let keys = |value: &serde_json::Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&full), keys(&empty));

    assert_eq!(full["time"], "2026-08-22T01:01:08.007Z");
    assert_eq!(full["client"], "192.0.2.60");
    assert_eq!(full["uri"], "/a/../b?x=1&y=2");
    assert_eq!(full["status"], 200);
    assert_eq!(full["request_time"], 0.012_999);
    assert_eq!(full["attempts"][0]["failure"], "connect");
    assert_eq!(full["attempts"][0]["status"], 502);
    assert_eq!(full["attempts"][0]["header_time"], serde_json::Value::Null);
    assert_eq!(full["attempts"][1]["response_time"], 0.01);
    assert_eq!(full["reason"], "upstream.timeout");
    assert_eq!(full["detail"], "read timed out after 30s");
    assert_eq!(full["completed"], true);
    assert_eq!(empty["reason"], serde_json::Value::Null);
    assert_eq!(empty["attempts"], serde_json::json!([]));

    let documented = include_str!("../../../docs/access-log.md");
    for key in keys(&full) {
        assert!(documented.contains(&format!("| `{key}` |")), "{key} is not documented");
    }
}

/// A record that keeps only what its format shows makes the same line as one that keeps everything.
#[test]
fn a_record_keeps_all_that_its_format_shows() {
    // Span ids differ from record to record.
    let id = regex::Regex::new(r"\b[0-9a-f]{16}\b").unwrap();
    let spans = |line: String| id.replace_all(&line, "").into_owned();
    let more = ["remote_user", "arg_x", "http_referer", "sent_http_via", "cookie_a"];
    let names = super::variable::VARIABLES.iter().map(|(name, _)| *name).chain(more);
    for name in names.map(|name| format!("${name}")).chain(["combined".to_owned(), "json".to_owned()]) {
        let format = Format::compile(&name, Escape::Default).unwrap();
        for refused in [false, true] {
            let line = |mut record: Box<AccessRecord>| {
                fill(&mut record);
                for (field, text) in [
                    (Field::ServerName, "*.example.com"),
                    (Field::User, "somebody"),
                    (Field::Detail, "a story"),
                    (Field::ClientDn, "CN=a"),
                    (Field::ClientIssuer, "CN=b"),
                    (Field::ClientSerial, "01AB"),
                    (Field::ClientFingerprint, "00ff"),
                ] {
                    record.set(field, text);
                }
                if refused {
                    record.set(Field::RequestLine, "GET /");
                }
                let mut line = Vec::new();
                format.write(&record, &mut Stamps::new(TimeZone::UTC), &mut line);
                String::from_utf8(line).unwrap()
            };
            assert_eq!(spans(line(format.record())), spans(line(AccessRecord::new())), "{name}");
        }
    }
}

/// The documentation and the table of variables name the same ones.
#[test]
fn every_variable_is_documented() {
    let documented = include_str!("../../../docs/access-log.md");
    for (name, _) in super::variable::VARIABLES {
        assert!(documented.contains(&format!("`${name}`")), "${name} is not documented");
    }
}

#[test]
fn mistakes_in_a_format_are_all_pointed_at() {
    let mistakes = |text: &str| {
        let errors = Format::compile(text, Escape::Default).unwrap_err();
        let shown = errors.into_iter().map(|error| (text[error.at].to_owned(), error.message, error.hint));
        shown.collect::<Vec<_>>()
    };
    let found = |at: &str, message: &str, hint: Option<&str>| {
        (at.to_owned(), message.to_owned(), hint.map(str::to_owned))
    };
    assert_eq!(
        mistakes("$remote_adr - ${banana_split} $ $"),
        [
            found(
                "$remote_adr",
                "has the unknown variable `$remote_adr`",
                Some("did you mean \"$remote_addr\"?")
            ),
            found("${banana_split}", "has the unknown variable `$banana_split`", None),
            found("$", "has a `$` that begins no variable", None),
            found("$", "has a `$` that begins no variable", None),
        ]
    );
    assert_eq!(
        mistakes("combind"),
        [found(
            "combind",
            "is neither `combined` nor `json` and has no variable",
            Some("did you mean \"combined\"?")
        )]
    );
    assert_eq!(mistakes("a ${status")[0].0, "${status");
    assert_eq!(mistakes("${a-b}")[0].1, "has a `$` that begins no variable");
    assert_eq!(mistakes("$http_ $arg_ $cookie_ $sent_http_").len(), 4);
    assert_eq!(mistakes("")[0].1, "is neither `combined` nor `json` and has no variable");
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..30)
}

proptest! {
    /// Whatever bytes stand in whatever field: no format panics, JSON parses, a text format is one line.
    #[test]
    fn no_bytes_break_a_line(
        texts in prop::collection::vec(bytes(), 12),
        header in bytes(),
        numbers in any::<(u64, u16, u32, u64)>(),
        times in any::<(u64, u32)>(),
        attempts in prop::collection::vec((bytes(), any::<Option<u16>>(), any::<Option<u32>>()), 0..3),
    ) {
        let mut record = *AccessRecord::new();
        record.ended = UNIX_EPOCH.checked_add(Duration::from_millis(numbers.0)).unwrap_or(UNIX_EPOCH);
        record.request_time = Duration::from_nanos(times.0);
        record.status = numbers.1;
        record.connection_requests = numbers.2;
        record.bytes_sent = numbers.3;
        let fields = [
            Field::Method, Field::Target, Field::RequestLine, Field::Host, Field::ServerName, Field::Path,
            Field::User, Field::Route, Field::Upstream, Field::Listener, Field::Detail, Field::ClientDn,
        ];
        for (field, text) in fields.iter().zip(&texts) {
            if text.len() % 5 > 0 {
                record.set(*field, text);
            }
        }
        for (address, status, millis) in &attempts {
            let address = String::from_utf8_lossy(address).into_owned();
            let attempt = record.begin_attempt(&address, SpanId::random(), UNIX_EPOCH);
            attempt.status = *status;
            attempt.header = millis.map(|millis| Duration::from_millis(millis.into()));
        }
        let mut request = HeaderMap::new();
        if let Ok(value) = HeaderValue::from_bytes(&header) {
            for name in ["referer", "user-agent", "cookie", "authorization", "x-forwarded-for"] {
                request.append(HeaderName::from_static(name), value.clone());
            }
        }
        let all: String = super::variable::VARIABLES.iter().map(|(name, _)| format!("${name} ")).collect();
        let all = format!("{all}$arg_a $cookie_a $http_referer $http_user_agent $remote_user $proxy_add_x_forwarded_for");
        let mut stamps = Stamps::new(TimeZone::UTC);
        for (text, escape) in
            [("json", Escape::None), (&all, Escape::Default), (&all, Escape::Json), (&all, Escape::None), ("combined", Escape::Default)]
        {
            let format = Format::compile(text, escape).unwrap();
            let mut record = record.clone();
            format.collect_request(&mut record, &request);
            let mut out = Vec::new();
            format.write(&record, &mut stamps, &mut out);
            prop_assert_eq!(out.pop(), Some(b'\n'));
            if text == "json" {
                let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
                prop_assert!(value.is_object());
            }
            if escape != Escape::None || text == "json" {
                prop_assert!(!out.contains(&b'\n'));
            }
        }
    }

    #[test]
    fn no_format_text_panics(text in "[$a-z_{} \\\\\u{e4}]{0,40}") {
        if let Ok(format) = Format::compile(&text, Escape::Default) {
            format.write(&AccessRecord::default(), &mut Stamps::new(TimeZone::UTC), &mut Vec::new());
        }
    }
}

const SOON: Duration = Duration::from_secs(10);

struct Logging {
    metrics: Arc<Metrics>,
    queue: Arc<Queue>,
    writer: Writer,
}

impl Logging {
    fn start() -> Self {
        let metrics = Metrics::new();
        let queue = Queue::new(Arc::clone(&metrics));
        let writer = Writer::start(&queue).unwrap();
        Self { metrics, queue, writer }
    }

    fn log_to(&self, path: &Path) -> Arc<AccessLog> {
        let format = Format::compile("$uri", Escape::Default).unwrap();
        AccessLog::new(Arc::clone(&self.queue), format, Output::File(path.to_owned()))
    }

    fn counted(&self, what: &str) -> u64 {
        let page = self.metrics.render(false);
        let name = format!("edgeward_access_log_{what}_total ");
        page.lines().find_map(|line| line.strip_prefix(&name)).unwrap().parse().unwrap()
    }
}

fn submit(log: &Arc<AccessLog>, path: &str) {
    let mut record = AccessRecord::new();
    record.set(Field::Path, path);
    log.submit(record);
}

#[test]
fn lines_are_appended_and_the_file_is_not_for_everyone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("access.log");
    let logging = Logging::start();
    let log = logging.log_to(&path);
    for _ in 0..2 {
        submit(&log, "/a");
        submit(&log, "/b");
        assert!(logging.writer.flush(SOON));
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), "/a\n/b\n/a\n/b\n");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o137, 0);
    assert_eq!(logging.counted("records"), 4);
}

/// logrotate: move the file away, USR1, and the next line is in a new one.
#[test]
fn a_moved_file_is_left_on_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("access.log");
    let moved = dir.path().join("access.log.1");
    let logging = Logging::start();
    let log = logging.log_to(&path);
    submit(&log, "/before");
    assert!(logging.writer.flush(SOON));
    fs::rename(&path, &moved).unwrap();
    submit(&log, "/still-the-old-one");
    logging.writer.reopen();
    assert!(logging.writer.flush(SOON));
    assert_eq!(fs::read_to_string(&path).unwrap(), "", "opened at once, not with the next request");
    submit(&log, "/after");
    assert!(logging.writer.stop(SOON));
    assert_eq!(fs::read_to_string(&moved).unwrap(), "/before\n/still-the-old-one\n");
    assert_eq!(fs::read_to_string(&path).unwrap(), "/after\n");
}

/// A missing directory costs the records written meanwhile, never a request; once it is there the log goes on.
#[test]
fn a_missing_directory_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("logs/access.log");
    let logging = Logging::start();
    let log = logging.log_to(&path);
    log.open();
    submit(&log, "/lost");
    assert!(logging.writer.flush(SOON));
    assert_eq!((logging.counted("failed"), logging.counted("records")), (1, 0));
    fs::create_dir(path.parent().unwrap()).unwrap();
    logging.writer.reopen();
    assert!(logging.writer.flush(SOON));
    submit(&log, "/kept");
    assert!(logging.writer.stop(SOON));
    assert_eq!(fs::read_to_string(&path).unwrap(), "/kept\n");
}

#[test]
fn a_full_disk_is_counted() {
    let logging = Logging::start();
    let log = logging.log_to(Path::new("/dev/full"));
    for _ in 0..10 {
        submit(&log, "/a");
    }
    assert!(logging.writer.flush(SOON));
    assert_eq!((logging.counted("failed"), logging.counted("records")), (10, 0));
}

/// With nobody writing, the queue takes its bound and the rest is counted; nobody waits.
#[test]
fn a_full_queue_drops_and_counts() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("access.log");
    let metrics = Metrics::new();
    let queue = Queue::new(Arc::clone(&metrics));
    let format = Format::compile("$uri", Escape::Default).unwrap();
    let log = AccessLog::new(Arc::clone(&queue), format, Output::File(path.clone()));
    for _ in 0..super::sink::QUEUE_RECORDS_MAX + 5 {
        submit(&log, "/a");
    }
    let logging = Logging { writer: Writer::start(&queue).unwrap(), metrics, queue };
    assert!(logging.writer.flush(SOON));
    assert_eq!(logging.counted("dropped"), 5);
    assert_eq!(logging.counted("records"), super::sink::QUEUE_RECORDS_MAX as u64);
    submit(&log, "/b");
    assert!(logging.writer.flush(SOON));
    assert!(fs::read_to_string(&path).unwrap().ends_with("/a\n/b\n"));
}

/// Heads blown up on purpose fill the memory allowed for waiting records long before their number is reached.
#[test]
fn waiting_records_are_bounded_in_bytes() {
    let metrics = Metrics::new();
    let queue = Queue::new(Arc::clone(&metrics));
    let format = Format::compile("$status", Escape::Default).unwrap();
    let log = AccessLog::new(Arc::clone(&queue), format, Output::File("/dev/null".into()));
    let path = "x".repeat(100_000);
    for _ in 0..1000 {
        submit(&log, &path);
    }
    let logging = Logging { writer: Writer::start(&queue).unwrap(), metrics, queue };
    assert!(logging.writer.flush(SOON));
    let written = logging.counted("records");
    assert!((300..700).contains(&written), "{written}");
    assert_eq!(written + logging.counted("dropped"), 1000);
}

/// Everything submitted before the end is written, from however many threads.
#[test]
fn stopping_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("access.log");
    let logging = Logging::start();
    let log = logging.log_to(&path);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..1000).for_each(|_| submit(&log, "/a")));
        }
    });
    assert!(logging.writer.stop(SOON));
    assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 4000);
}

#[test]
fn a_queue_has_one_writer() {
    let logging = Logging::start();
    assert!(Writer::start(&logging.queue).is_err());
}

/// Whatever the lines show, and whether there are any: the bus has each record whole, with its secrets hidden.
#[test]
fn the_bus_has_documents_beside_the_lines() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("access.log");
    let logging = Logging::start();
    let bus = Bus::new(logging.metrics.clone());
    let log = |format: &str, output: Option<Output>| {
        let format = Format::compile(format, Escape::Default).unwrap().hiding(Some("mine"));
        AccessLog::with_bus(logging.queue.clone(), format, output, Some(bus.clone()))
    };
    let submit = |log: &Arc<AccessLog>, target: &str| {
        let mut record = log.record();
        fill(&mut record);
        record.set(Field::Target, target);
        let request =
            headers(&[("referer", "https://e/?token=s3cret"), ("user-agent", "it/1"), ("x-own", "y")]);
        log.collect_request(&mut record, &request);
        log.submit(record);
    };
    let with_lines = log("$http_x_own $uri", Some(Output::File(path.clone())));
    submit(&with_lines, "/closed");
    assert!(logging.writer.flush(SOON));
    bus.open(1 << 20);
    submit(&with_lines, "/a?mine=s3cret&x=1");
    submit(&log("combined", None), "/b");
    submit(&log("json", None), "/c");
    submit(&logging.log_to(&path), "/not for the bus");
    assert!(logging.writer.flush(SOON));
    assert_eq!(fs::read_to_string(&path).unwrap(), "y /b\ny /b\n/b\n", "the path is as it was filled");
    let taken = bus.take(9);
    let documents: Vec<serde_json::Value> =
        taken.iter().map(|message| serde_json::from_slice(&message.body).unwrap()).collect();
    let shown = |key: &str| documents.iter().map(|it| it[key].clone()).collect::<Vec<_>>();
    assert_eq!(shown("uri"), ["/a?mine=***&x=1", "/b", "/c"]);
    assert_eq!(shown("referer"), ["https://e/?token=***"; 3]);
    assert_eq!(shown("user_agent"), ["it/1"; 3]);
    assert_eq!(shown("route"), ["users"; 3]);
    assert!(
        taken
            .iter()
            .all(|message| message.kind == crate::telemetry::bus::Kind::Access && message.at == ended())
    );
    let keys = |value: &serde_json::Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let line: serde_json::Value = serde_json::from_str(&line_of("json", Escape::None, &record())).unwrap();
    assert_eq!(keys(&documents[0]), keys(&line), "the document of the format `json`");
}
