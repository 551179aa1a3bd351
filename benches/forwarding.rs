//! What the edits of one forwarded request and its answer cost: `cargo bench --bench forwarding`.
#![expect(clippy::unwrap_used, reason = "a panic ends the benchmark")]

use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use edgeward::base::peer::PeerValues;
use edgeward::ingress::head::{HeadScanner, Status};
use edgeward::policy::trusted::TrustedProxies;
use edgeward::proxy::client::Client;
use edgeward::proxy::edit::{self, Credentials, Forwarding, Identity, Way};
use edgeward::proxy::received::Received;
use http::Version;
use pingora::http::{RequestHeader, ResponseHeader};

/// What a browser sends.
const REQUEST: &[(&str, &str)] = &[
    ("Host", "shop.example"),
    ("User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"),
    ("Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
    ("Accept-Language", "en-US,en;q=0.5"),
    ("Accept-Encoding", "gzip, deflate, br, zstd"),
    ("Referer", "https://shop.example/catalogue?page=3"),
    ("Cookie", "session=0123456789abcdef0123456789abcdef; theme=dark"),
    ("Sec-Fetch-Dest", "document"),
    ("Sec-Fetch-Mode", "navigate"),
    ("Sec-Fetch-Site", "same-origin"),
];

const ANSWER: &[(&str, &str)] = &[
    ("Server", "nginx"),
    ("Date", "Sat, 01 Aug 2026 00:00:00 GMT"),
    ("Content-Type", "application/json"),
    ("Content-Length", "512"),
    ("Connection", "keep-alive"),
    ("Cache-Control", "no-store"),
];

const ID: &[u8] = b"0123456789abcdef0123456789abcdef";

fn request(more: &[(&'static str, &'static str)]) -> RequestHeader {
    let mut head = RequestHeader::build("GET", b"/catalogue/items?page=4", None).unwrap();
    head.set_version(Version::HTTP_11);
    for (name, value) in REQUEST.iter().chain(more) {
        head.append_header(*name, *value).unwrap();
    }
    head
}

fn forwarding(c: &mut Criterion) {
    let trusted = TrustedProxies::new(["10.0.0.0/8".parse().unwrap()]);
    let cases = [
        ("direct", "192.0.2.7", request(&[])),
        (
            "proxied",
            "10.0.0.1",
            request(&[("X-Forwarded-For", "198.51.100.1, 10.0.0.2"), ("X-Forwarded-Proto", "https")]),
        ),
    ];
    let names = [Some(http::HeaderName::from_static("x-auth-subject"))];
    for (name, peer, head) in cases {
        let peer = PeerValues::new(peer.parse().unwrap(), 8443, true);
        c.bench_function(&format!("client/{name}"), |b| {
            b.iter(|| Client::find(black_box(&head.headers), peer.ip, peer.https, &trusted));
        });
        let client = Client::find(&head.headers, peer.ip, peer.https, &trusted);
        let marks = Received::read(&head.headers).marks;
        c.bench_function(&format!("received/{name}"), |b| {
            b.iter(|| Received::read(black_box(&head.headers)).marks);
        });
        let identity = Identity { names: &names, values: &[None] };
        let credentials = Credentials { authorization: false, header: None, cookie: None };
        let version = Version::HTTP_11;
        let forwarding = Forwarding {
            peer: &peer,
            client: &client,
            version,
            ends_with_head: false,
            request_id: ID,
            trace_valid: true,
            marks,
            identity,
            credentials,
            reads_answer: false,
        };
        let way = Way {
            version,
            upgrade: false,
            host: None,
            server: "10.0.0.9:81",
            takes_trailers: false,
            marks,
            identity,
        };
        c.bench_function(&format!("request/{name}"), |b| {
            let run = |mut head: RequestHeader| {
                edit::request(&mut head, &forwarding).unwrap();
                edit::attempt(&mut head, &way).unwrap();
                head
            };
            b.iter_batched(|| head.clone(), run, BatchSize::SmallInput);
        });
    }
    let mut answer = ResponseHeader::build(200, None).unwrap();
    for (name, value) in ANSWER {
        answer.append_header(*name, *value).unwrap();
    }
    c.bench_function("response", |b| {
        let run = |mut head: ResponseHeader| {
            edit::response(&mut head, Version::HTTP_11, ID).unwrap();
            head
        };
        b.iter_batched(|| answer.clone(), run, BatchSize::SmallInput);
    });
}

fn scanning(c: &mut Criterion) {
    let mut text = b"GET /catalogue/items?page=4 HTTP/1.1\r\n".to_vec();
    for (name, value) in REQUEST {
        text.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    text.extend_from_slice(b"\r\n");
    assert!(matches!(HeadScanner::new(32 << 10).scan(&text), Status::Complete(_)));
    c.bench_function("scan/head", |b| b.iter(|| HeadScanner::new(32 << 10).scan(black_box(&text))));
}

criterion_group!(benches, forwarding, scanning);
criterion_main!(benches);
