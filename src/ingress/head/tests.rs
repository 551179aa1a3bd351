use proptest::prelude::*;

use super::*;
use crate::base::reason::Reason::{self, *};

const LIMIT: usize = 1024;

fn scan(head: &[u8]) -> Status {
    HeadScanner::new(LIMIT).scan(head)
}

/// Why `status` is a refusal.
fn reason(status: Status) -> Option<Reason> {
    match status {
        Status::Refused(rule) => Some(rule.reason()),
        Status::Partial | Status::Complete(_) => None,
    }
}

/// The verdict on `head` given in growing pieces that end at `cuts`.
fn scan_in_pieces(head: &[u8], cuts: &[usize], limit: usize) -> Status {
    let mut scanner = HeadScanner::new(limit);
    let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % (head.len() + 1)).collect();
    ends.sort_unstable();
    for end in ends {
        let status = scanner.scan(&head[..end]);
        if status != Status::Partial {
            return status;
        }
    }
    scanner.scan(head)
}

#[track_caller]
fn accept(text: &str) -> Head {
    match scan(text.as_bytes()) {
        Status::Complete(head) => head,
        other => panic!("{other:?} for {text:?}"),
    }
}

/// The head of a request with these field lines and a Host.
fn with(fields: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n")
}

#[test]
fn an_ordinary_request() {
    let text = "POST /a/b?c=d HTTP/1.1\r\nHost: Example.com:8080 \t\r\nContent-Length: 12\r\nUser-Agent: x\r\n\r\nhello";
    let head = accept(text);
    assert_eq!(head.len, text.len() - 5);
    assert_eq!(head.method.of(text.as_bytes()), b"POST");
    assert_eq!(head.target.of(text.as_bytes()), b"/a/b?c=d");
    assert_eq!(head.host.unwrap().of(text.as_bytes()), b"Example.com:8080");
    assert_eq!(head.body, Framing::Length(12));
    assert!(head.version_11 && head.keep_alive && !head.upgrade && !head.expect_continue);
}

/// Right, but not for everything behind, so it is spelled in the common way (RFC 9110 section 2.5, RFC 3986 section 3.2.3, RFC
/// 9112 section 2.2).
#[test]
fn what_is_unusual_is_spelled_as_usual() {
    for (text, host, spelled) in [
        ("GET / HTTP/1.2\r\nHost: a\r\n\r\n", "a", "GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("GET / HTTP/1.9\r\nHost: a\r\n\r\n", "a", "GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("\r\nGET / HTTP/1.0\r\nHost: a\r\n\r\n", "a", "\r\nGET / HTTP/1.0\r\nHost: a\r\n\r\n"),
        ("GET / HTTP/1.1\r\nHost: a:\r\n\r\n", "a", "GET / HTTP/1.1\r\nHost: a \r\n\r\n"),
        ("GET / HTTP/1.0\r\nHost:[::1]: \r\n\r\n", "[::1]", "GET / HTTP/1.0\r\nHost:[::1]  \r\n\r\n"),
        ("GET http://a/ HTTP/1.1\r\nHost: A:\r\n\r\n", "A", "GET http://a/ HTTP/1.1\r\nHost: A \r\n\r\n"),
        (
            "\r\n\r\n\r\nGET / HTTP/1.3\r\nHost: a:\r\n\r\n",
            "a",
            "\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a \r\n\r\n",
        ),
    ] {
        let head = accept(text);
        assert_eq!(head.method.of(text.as_bytes()), b"GET");
        let mut bytes = text.as_bytes().to_vec();
        head.respell(&mut bytes);
        assert_eq!(bytes.escape_ascii().to_string(), spelled.as_bytes().escape_ascii().to_string());
        assert_eq!(head.host.unwrap().of(&bytes), host.as_bytes());
        assert_eq!(head.len, text.len());
        // A buffer that is not the one scanned is left alone, or at least not written past.
        head.respell(&mut []);
    }
}

/// The same place may be written in two ways; what is passed on is what `Host` says.
#[test]
fn an_absolute_target_names_the_place_that_host_names() {
    for (target, host) in [
        ("http://a/x", "a"),
        ("http://Example.com/", "example.COM"),
        ("http://a:80/", "a"),
        ("HTTP://a", "a:80"),
        ("https://a/", "a:443"),
        ("http://[2001:DB8::1]:8080/", "[2001:db8::1]:8080"),
    ] {
        let text = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        assert_eq!(accept(&text).host.unwrap().of(text.as_bytes()), host.as_bytes(), "{target}");
    }
    for (target, host) in
        [("http://a/", "a."), ("http://a:443/", "a"), ("https://a/", "a:80"), ("http://a/", "b")]
    {
        let text = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        assert_eq!(scan(text.as_bytes()), Status::Refused(Rule::HostDiffers), "{target} {host}");
    }
}

/// A client that sent a line end too many after its last body is still understood.
#[test]
fn keep_alive_by_version_and_connection() {
    for (version, connection, kept) in [
        ("1.1", "", true),
        ("1.2", "", true),
        ("1.1", "Connection: close\r\n", false),
        ("1.1", "Connection: keep-alive\r\nconnection: , Close ,\r\n", false),
        ("1.0", "", false),
        ("1.0", "Connection: Keep-Alive\r\n", true),
        ("1.0", "Connection: keep-alive, close\r\n", false),
    ] {
        let text = format!("GET / HTTP/{version}\r\nHost: a\r\n{connection}\r\n");
        assert_eq!(accept(&text).keep_alive, kept, "{text:?}");
    }
}

#[test]
fn framing() {
    assert_eq!(accept(&with("")).body, Framing::None);
    assert_eq!(accept(&with("Content-Length: 0\r\n")).body, Framing::Length(0));
    assert_eq!(accept(&with("Content-Length:\t007 \r\n")).body, Framing::Length(7));
    let most = i64::MAX as u64;
    assert_eq!(accept(&with(&format!("content-length:{most}\r\n"))).body, Framing::Length(most));
    assert_eq!(accept(&with("Transfer-Encoding: Chunked\r\n")).body, Framing::Chunked);
}

#[test]
fn continue_is_expected_only_before_a_body() {
    let expects = |version: &str, fields: &str| {
        accept(&format!("POST / HTTP/{version}\r\nHost: a\r\nExpect: 100-Continue\r\n{fields}\r\n"))
            .expect_continue
    };
    assert!(expects("1.1", "Content-Length: 3\r\n"));
    assert!(expects("1.1", "Transfer-Encoding: chunked\r\n"));
    assert!(!expects("1.1", ""));
    assert!(!expects("1.1", "Content-Length: 0\r\n"));
    assert!(!expects("1.0", "Content-Length: 3\r\n"));
}

#[test]
fn websocket_handshake() {
    let good = "Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Version: 13\r\n\
                Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    assert!(accept(&with(good)).upgrade);
    for (from, to) in [
        ("Connection: keep-alive, Upgrade", "Connection: keep-alive"),
        ("Upgrade: WebSocket", "Upgrade: h2c"),
        ("Upgrade: WebSocket", "Upgrade: websocket, h2c"),
        ("Upgrade: WebSocket", "Upgrade: websocket\r\nUpgrade: websocket"),
        ("Version: 13", "Version: 12"),
        ("dGhlIHNhbXBsZSBub25jZQ==", "short"),
        ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZ!=="),
        ("Sec-WebSocket-Key", "X-Key"),
        ("Connection", "Content-Length: 3\r\nConnection"),
    ] {
        assert!(!accept(&with(&good.replacen(from, to, 1))).upgrade, "{to}");
    }
    assert!(!accept(&with(good).replace("GET", "POST")).upgrade);
    assert!(!accept(&with(good).replace("HTTP/1.1", "HTTP/1.0")).upgrade);
}

#[test]
fn targets_and_hosts() {
    for (text, host) in [
        ("GET http://a.example:81/x HTTP/1.1\r\nHost: a.example:81\r\n\r\n", Some("a.example:81")),
        ("GET HTTPS://a.example?q HTTP/1.1\r\nHost: a.example\r\n\r\n", Some("a.example")),
        ("GET http://a.example HTTP/1.0\r\n\r\n", Some("a.example")),
        ("GET / HTTP/1.0\r\n\r\n", None),
        ("OPTIONS * HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", Some("[::1]:80")),
        ("GET //x/../%2e/{a}|[b]?{\"a\"}=b?/ HTTP/1.1\r\nHost: a\r\n\r\n", None),
    ] {
        let text = text.replace("\"", "'");
        let head = accept(&text);
        if let Some(host) = host {
            assert_eq!(head.host.unwrap().of(text.as_bytes()), host.as_bytes());
        }
    }
    accept(&with("X: \u{e9}\t\"~ \u{80}\r\nEmpty:\r\n!#$%&'*+-.^_`|~: x\r\n"));
}

/// Limits are exact: the last byte that fits passes.
#[test]
fn limits_are_exact() {
    let text = with(&format!("X: {}\r\n", "x".repeat(200)));
    let fits = HeadScanner::new(text.len()).scan(text.as_bytes());
    assert!(matches!(fits, Status::Complete(_)));
    let longer = HeadScanner::new(text.len() - 1).scan(text.as_bytes());
    assert_eq!(reason(longer), Some(HeaderTooLarge));
    assert_eq!(reason(HeadScanner::new(LIMIT).scan(&[b'A'; LIMIT])), Some(UriTooLong));
    assert_eq!(HeadScanner::new(LIMIT).scan(&[b'A'; LIMIT - 1]), Status::Partial);
    let target = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(65_534));
    assert_eq!(reason(HeadScanner::new(1 << 20).scan(target.as_bytes())), Some(UriTooLong));
    let lines = |count| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X:\r\n".repeat(count - 1));
    assert!(matches!(scan(lines(HEADER_LINES_MAX).as_bytes()), Status::Complete(_)));
    assert_eq!(reason(scan(lines(HEADER_LINES_MAX + 1).as_bytes())), Some(HeaderTooLarge));
}

/// What a peer that does not speak HTTP/1 at all sends first is refused at its first impossible byte.
#[test]
fn other_protocols_are_refused_early() {
    assert_eq!(reason(scan(b"\x16\x03\x01\x02\x00\x01")), Some(RequestMalformed));
    assert_eq!(reason(scan(b"PRI * HTTP/2.0\r\n")), Some(RequestMalformed));
    assert_eq!(reason(scan(b"EHLO example.com\n")), Some(RequestMalformed));
    assert_eq!(reason(scan(b"SSH-2.0-x\r\n")), Some(RequestMalformed));
}

/// A byte at a time, 32 KiB of head are looked at once, not 32 Ki times.
#[test]
fn dripped_bytes_are_looked_at_once() {
    let text = with(&"X-Filler: 0123456789\r\n".repeat(40));
    let mut scanner = HeadScanner::new(LIMIT);
    for end in 0..text.len() {
        assert_eq!(scanner.scan(&text.as_bytes()[..end]), Status::Partial);
        assert!(scanner.looked + 1 >= end, "everything but a lone CR is behind");
    }
    assert!(matches!(scanner.scan(text.as_bytes()), Status::Complete(_)));
}

/// Each of these is read differently by some server, or by none.
#[test]
fn malformed_heads() {
    let lines: &[(&str, Reason)] = &[
        ("GET / HTTP/1.1\n", RequestMalformed),
        ("GET / HTTP/1.1\r", RequestMalformed),
        ("GET / HTTP/1.1 \r\n", RequestMalformed),
        ("GET /  HTTP/1.1\r\n", RequestMalformed),
        ("GET  / HTTP/1.1\r\n", RequestMalformed),
        ("GET\t/ HTTP/1.1\r\n", RequestMalformed),
        ("GET /\tHTTP/1.1\r\n", RequestMalformed),
        (" GET / HTTP/1.1\r\n", RequestMalformed),
        ("GET / a HTTP/1.1\r\n", RequestMalformed),
        ("GET /a\tb HTTP/1.1\r\n", RequestMalformed),
        ("GET / HTTP/1.a\r\n", RequestMalformed),
        ("GET / HTTP/2.0\r\n", RequestMalformed),
        ("GET / HTTP/2\r\n", RequestMalformed),
        ("GET / HTTP/0.9\r\n", RequestMalformed),
        ("GET / HTTP/1.\r\n", RequestMalformed),
        ("GET / HTTP/1.10\r\n", RequestMalformed),
        ("GET / HTTP/11\r\n", RequestMalformed),
        ("GET / http/1.1\r\n", RequestMalformed),
        ("GET / HTTPS/1.1\r\n", RequestMalformed),
        ("GET /\r\n", RequestMalformed),
        ("GET\r\n", RequestMalformed),
        ("/ HTTP/1.1\r\n", RequestMalformed),
        ("GET HTTP/1.1\r\n", RequestMalformed),
        ("GET  HTTP/1.1\r\n", RequestMalformed),
        (" HTTP/1.1\r\n", RequestMalformed),
        ("G(T / HTTP/1.1\r\n", RequestMalformed),
        ("G\u{c9}T / HTTP/1.1\r\n", RequestMalformed),
        ("GET: / HTTP/1.1\r\n", RequestMalformed),
        ("GET \u{e9} HTTP/1.1\r\n", RequestMalformed),
        ("GET /\u{e9} HTTP/1.1\r\n", RequestMalformed),
        ("GET /\0 HTTP/1.1\r\n", RequestMalformed),
        ("GET /\u{7f} HTTP/1.1\r\n", RequestMalformed),
        ("GET /a#b HTTP/1.1\r\n", RequestMalformed),
        ("GET /?a#b HTTP/1.1\r\n", RequestMalformed),
        ("GET /?a<b HTTP/1.1\r\n", RequestMalformed),
        ("GET /?\"a\" HTTP/1.1\r\n", RequestMalformed),
        ("GET /a\\b HTTP/1.1\r\n", BadPath),
        ("GET /a<b> HTTP/1.1\r\n", BadPath),
        ("GET /`a` HTTP/1.1\r\n", BadPath),
        ("GET a HTTP/1.1\r\n", RequestMalformed),
        ("GET a/b HTTP/1.1\r\n", RequestMalformed),
        ("GET ?a HTTP/1.1\r\n", RequestMalformed),
        ("GET * HTTP/1.1\r\n", RequestMalformed),
        ("OPTIONS ** HTTP/1.1\r\n", RequestMalformed),
        ("GET a:80 HTTP/1.1\r\n", RequestMalformed),
        ("GET ftp://a/ HTTP/1.1\r\n", RequestMalformed),
        ("GET http:/a HTTP/1.1\r\n", RequestMalformed),
        ("GET http:a HTTP/1.1\r\n", RequestMalformed),
        ("GET http:///x HTTP/1.1\r\n", BadHost),
        ("GET http://u@a/ HTTP/1.1\r\n", BadHost),
        ("GET http://u:p@a/ HTTP/1.1\r\n", BadHost),
        ("GET http://a\\b/ HTTP/1.1\r\n", BadHost),
        ("GET http://a#b HTTP/1.1\r\n", RequestMalformed),
        ("GET http://b/ HTTP/1.1\r\n", BadHost),
        ("GET http://a:81/ HTTP/1.1\r\n", BadHost),
        ("CONNECT a:443 HTTP/1.1\r\n", MethodUnsupported),
        ("CONNECT / HTTP/1.1\r\n", MethodUnsupported),
        ("ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFG / HTTP/1.1\r\n", MethodUnsupported),
        ("\r\n \r\nGET / HTTP/1.1\r\n", RequestMalformed),
        ("\nGET / HTTP/1.1\r\n", RequestMalformed),
        ("\rGET / HTTP/1.1\r\n", RequestMalformed),
    ];
    let fields: &[(&str, Reason)] = &[
        ("X: a\n", RequestMalformed),
        ("X: a\rb\r\n", RequestMalformed),
        ("X: a\r\r\n", RequestMalformed),
        ("X: a\0b\r\n", RequestMalformed),
        ("X: a\u{1}b\r\n", RequestMalformed),
        ("X: a\u{b}b\r\n", RequestMalformed),
        ("X: a\u{7f}b\r\n", RequestMalformed),
        ("X: a\r\n b\r\n", RequestMalformed),
        ("X: a\r\n\tb: c\r\n", RequestMalformed),
        (" X: a\r\n", RequestMalformed),
        ("X : a\r\n", RequestMalformed),
        ("X\t: a\r\n", RequestMalformed),
        ("X\r\n", RequestMalformed),
        (": a\r\n", RequestMalformed),
        ("X Y: a\r\n", RequestMalformed),
        ("X(: a\r\n", RequestMalformed),
        ("X\u{e9}: a\r\n", RequestMalformed),
        ("X\0: a\r\n", RequestMalformed),
        ("\"X\": a\r\n", RequestMalformed),
        ("Content-Length: \r\n", RequestMalformed),
        ("Content-Length: -1\r\n", RequestMalformed),
        ("Content-Length: +1\r\n", RequestMalformed),
        ("Content-Length: 1 2\r\n", RequestMalformed),
        ("Content-Length: 1,1\r\n", RequestMalformed),
        ("Content-Length: 1, 2\r\n", RequestMalformed),
        ("Content-Length: 0x1\r\n", RequestMalformed),
        ("Content-Length: 1.0\r\n", RequestMalformed),
        ("Content-Length: 1_0\r\n", RequestMalformed),
        ("Content-Length: \u{661}\r\n", RequestMalformed),
        ("Content-Length: 9223372036854775808\r\n", RequestMalformed),
        ("Content-Length: 18446744073709551617\r\n", RequestMalformed),
        ("Content-Length: 1\r\nContent-Length: 1\r\n", RequestMalformed),
        ("Content-Length: 1\r\nContent-Length: 2\r\n", RequestMalformed),
        ("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", RequestMalformed),
        ("Transfer-Encoding: chunked\r\ncontent-length: 0\r\n", RequestMalformed),
        ("Transfer-Encoding:\r\n", RequestMalformed),
        ("Transfer-Encoding: identity\r\n", RequestMalformed),
        ("Transfer-Encoding: gzip, chunked\r\n", RequestMalformed),
        ("Transfer-Encoding: chunked, chunked\r\n", RequestMalformed),
        ("Transfer-Encoding: chunked, identity\r\n", RequestMalformed),
        ("Transfer-Encoding: chunked;q=1\r\n", RequestMalformed),
        ("Transfer-Encoding: \"chunked\"\r\n", RequestMalformed),
        ("Transfer-Encoding: xchunked\r\n", RequestMalformed),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", RequestMalformed),
        ("Transfer-Encoding : chunked\r\n", RequestMalformed),
        ("Transfer-Encoding: \u{b}chunked\r\n", RequestMalformed),
        ("Host: a\r\n", BadHost),
        ("host: b\r\n", BadHost),
        ("Expect: 200-ok\r\n", ExpectationFailed),
        ("Expect:\r\n", ExpectationFailed),
        ("Expect: 100-continue, x\r\n", ExpectationFailed),
        ("Connection: Host\r\n", RequestMalformed),
        ("Connection: close, content-length\r\n", RequestMalformed),
        ("Connection: Transfer-Encoding\r\n", RequestMalformed),
        ("Connection: Authorization\r\n", RequestMalformed),
        ("Connection: cookie\r\n", RequestMalformed),
        ("Connection: X-Forwarded-For\r\n", RequestMalformed),
        ("Connection: X-Real-IP\r\n", RequestMalformed),
        ("Connection: forwarded\r\n", RequestMalformed),
        ("Connection: \"close\"\r\n", RequestMalformed),
        ("Connection: :authority\r\n", RequestMalformed),
        ("Connection: a b\r\n", RequestMalformed),
        ("Connection: a,b,c,d,e\r\nConnection: f,g,h,i,j\r\n", RequestMalformed),
    ];
    let hosts = [
        "", ":", "a b", "a,b", "u@a", "a/b", "a::", "a:80:", "a :", "a:b", "a:0", "a:99999", "[::1", "::1",
        "a..b", "http://a", "\u{e9}",
    ];
    for (line, expected) in lines {
        let text = format!("{line}Host: a\r\n\r\n");
        assert_eq!(reason(scan(text.as_bytes())), Some(*expected), "{text:?}");
    }
    for (lines, expected) in fields {
        let text = with(lines);
        assert_eq!(reason(scan(text.as_bytes())), Some(*expected), "{text:?}");
    }
    for host in hosts {
        let text = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
        assert_eq!(reason(scan(text.as_bytes())), Some(BadHost), "{text:?}");
    }
    assert_eq!(reason(scan(b"GET / HTTP/1.1\r\n\r\n")), Some(BadHost));
    assert_eq!(
        reason(scan(b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n")),
        Some(RequestMalformed)
    );
    assert!(lines.len() + fields.len() + hosts.len() >= 80);
}

/// Every rule is named by a head that breaks it, and by no two texts alike: the log must say which one it was.
#[test]
fn each_rule_has_its_text() {
    let long_target = format!("GET /{} HTTP/1.1\r\n", "x".repeat(65_534));
    let long_line = format!("GET /{}", "x".repeat(100_000));
    let long_head = with(&format!("X: {}\r\n", "x".repeat(100_000)));
    let many = with(&"X:\r\n".repeat(HEADER_LINES_MAX));
    let cases: &[(&str, Rule)] = &[
        ("GET / HTTP/1.1\n", Rule::BareLf),
        ("GET / HTTP/1.1\r\nX: a\rb\r\n", Rule::BareCr),
        ("GET /\0", Rule::Nul),
        ("GET /\u{7f}", Rule::ControlByte),
        ("GET / HTTP/2.0\r\n", Rule::Version),
        ("GET HTTP/1.1\r\n", Rule::RequestLineWords),
        ("G(T / HTTP/1.1\r\n", Rule::MethodToken),
        ("CONNECT a:1 HTTP/1.1\r\n", Rule::Connect),
        ("ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFG / HTTP/1.1\r\n", Rule::MethodLength),
        ("GET /\u{e9} HTTP/1.1\r\n", Rule::TargetBytes),
        (&long_target, Rule::TargetLength),
        ("GET a HTTP/1.1\r\n", Rule::TargetForm),
        ("GET http://u@a/ HTTP/1.1\r\n", Rule::TargetAuthority),
        ("GET /a\\b HTTP/1.1\r\n", Rule::PathByte),
        ("GET /?a#b HTTP/1.1\r\n", Rule::QueryByte),
        (&long_line, Rule::LineLength),
        (&long_head, Rule::HeadLength),
        (&many, Rule::FieldLines),
        (&with("X: a\r\n b\r\n"), Rule::Folded),
        (&with("X\r\n"), Rule::NoColon),
        (&with("X : a\r\n"), Rule::FieldName),
        ("GET / HTTP/1.1\r\n\r\n", Rule::HostMissing),
        (&with("Host: a\r\n"), Rule::HostRepeated),
        ("GET / HTTP/1.1\r\nHost: a b\r\n", Rule::HostInvalid),
        ("GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n", Rule::HostDiffers),
        (&with("Expect: x\r\n"), Rule::Expectation),
        (&with("Content-Length: 1\r\nContent-Length: 1\r\n"), Rule::LengthRepeated),
        (&with("Content-Length: +1\r\n"), Rule::LengthInvalid),
        (&with("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n"), Rule::LengthAndChunked),
        (&with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), Rule::CodingRepeated),
        (&with("Transfer-Encoding: gzip\r\n"), Rule::Coding),
        ("GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n", Rule::CodingIn10),
        ("TRACE / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n", Rule::TraceBody),
        (&with("Connection: a,b,c,d,e,f,g,h,i,j\r\n"), Rule::ConnectionOptions),
        (&with("Connection: a b\r\n"), Rule::ConnectionToken),
        (&with("Connection: host\r\n"), Rule::ConnectionProtected),
    ];
    for (text, rule) in cases {
        assert_eq!(HeadScanner::new(80_000).scan(text.as_bytes()), Status::Refused(*rule), "{}", rule.text());
    }
    let shown: Vec<Rule> = cases.iter().map(|(_, rule)| *rule).collect();
    // What HTTP/1 trims is a fault in HTTP/2 alone.
    let of_http1 = Rule::ALL.iter().filter(|rule| **rule != Rule::FieldSpace).copied().collect::<Vec<_>>();
    assert_eq!(shown, of_http1);
    let texts: std::collections::HashSet<&str> = Rule::ALL.iter().map(|rule| rule.text()).collect();
    assert_eq!(texts.len(), Rule::ALL.len());
}

/// Heads that are nearly right: pieces that matter, in any order and number.
fn nearly_a_head() -> impl Strategy<Value = Vec<u8>> {
    let line = prop::sample::select(vec![
        "GET / HTTP/1.1",
        "POST /a?b HTTP/1.0",
        "OPTIONS * HTTP/1.1",
        "GET http://a/ HTTP/1.1",
        "",
        "\r\nGET / HTTP/1.1",
    ]);
    let field = prop::sample::select(vec![
        "Host: a",
        "Host:b:80",
        "Content-Length: 5",
        "Content-Length: 0",
        "Transfer-Encoding: chunked",
        "X: y ",
        "Connection: close",
        "Connection: keep-alive, upgrade",
        "Upgrade: websocket",
        "Expect: 100-continue",
        "X-\u{e9}: a",
        "A:\t\u{e9}\t",
        " fold",
        "no colon",
        "",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ]);
    let end = prop::sample::select(vec!["\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\n", "\r"]);
    (line, prop::collection::vec((end, field), 0..8), any::<Option<(usize, u8)>>()).prop_map(
        |(line, fields, damage)| {
            let mut text = line.as_bytes().to_vec();
            for (end, field) in fields {
                text.extend(end.as_bytes());
                text.extend(field.as_bytes());
            }
            text.extend(b"\r\n\r\n");
            if let Some((at, byte)) = damage {
                let at = at % text.len();
                text[at] = byte;
            }
            text
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn splitting_changes_nothing(
        head in nearly_a_head(), cuts in prop::collection::vec(any::<usize>(), 0..10), limit in 1_usize..200,
    ) {
        prop_assert_eq!(scan_in_pieces(&head, &cuts, limit), scan_in_pieces(&head, &[], limit));
        prop_assert_eq!(scan_in_pieces(&head, &cuts, LIMIT), scan_in_pieces(&head, &[], LIMIT));
    }

    #[test]
    fn no_bytes_panic(head in prop::collection::vec(any::<u8>(), 0..300), cuts in prop::collection::vec(any::<usize>(), 0..5)) {
        prop_assert_eq!(scan_in_pieces(&head, &cuts, LIMIT), scan(&head));
    }

    /// `httparse`, which reads every accepted head next, sees the same request in it, and the `http` crate its target.
    #[test]
    fn httparse_agrees(head in nearly_a_head()) {
        if let Status::Complete(found) = scan(&head) {
            let mut fields = [httparse::EMPTY_HEADER; HEADER_LINES_MAX];
            let mut request = httparse::Request::new(&mut fields);
            prop_assert_eq!(request.parse(&head), Ok(httparse::Status::Complete(found.len)));
            prop_assert_eq!(request.method.map(str::as_bytes), Some(found.method.of(&head)));
            prop_assert_eq!(request.path.map(str::as_bytes), Some(found.target.of(&head)));
            prop_assert_eq!(request.version, Some(u8::from(found.version_11)));
            prop_assert!(request.path.unwrap().parse::<http::Uri>().is_ok());
            let value = |name: &str| request.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value);
            let length = value("content-length").map(|value| std::str::from_utf8(value).unwrap().parse().unwrap());
            match found.body {
                Framing::None => prop_assert!(length.is_none() && value("transfer-encoding").is_none()),
                Framing::Length(expected) => prop_assert_eq!(length, Some(expected)),
                Framing::Chunked => prop_assert!(length.is_none() && value("transfer-encoding").is_some()),
            }
            if let Some(host) = value("host") {
                prop_assert_eq!(found.host.map(|span| span.of(&head)), Some(host));
            }
        }
    }

    /// Every target that passes is one the `http` crate takes as it is.
    #[test]
    fn http_takes_every_target(target in "/[!-~]{0,20}") {
        let text = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        if let Status::Complete(_) = scan(text.as_bytes()) {
            let uri: http::Uri = target.parse().unwrap();
            prop_assert_eq!(uri.path_and_query().unwrap().as_str(), target.as_str());
        }
    }
}

/// What Pingora reads of a head: `None` if it refuses it, else whether there is a body.
fn pingora_reads(head: &[u8]) -> Option<bool> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (mut client, server) = tokio::io::duplex(4096);
        tokio::io::AsyncWriteExt::write_all(&mut client, head).await.unwrap();
        let mut session = pingora::protocols::http::ServerSession::new_http1(Box::new(server));
        session.read_request().await.ok()?.then(|| !session.is_body_empty())
    })
}

/// Pingora refuses without a hook, and so without a log line: every head that passes here must pass there.
#[test]
fn pingora_takes_every_accepted_target() {
    for target in [
        "/",
        "//",
        "//a",
        "//a/b",
        "///",
        "/a//b",
        "/http://a/",
        "/?http://b/",
        "/:80",
        "/a:b@c",
        "/@b",
        "*",
        "http://a",
        "http://a/",
        "http://a?x",
        "http://a//b",
        "HTTP://a/",
        "https://a/x?y=http://b/",
        "http://a/@b",
        "http://a/http://b/",
        "/a;b=c",
        "/%2f%2f",
        "/a?//b",
        "/a?@",
        "//@",
        "//:80/",
    ] {
        let method = if target == "*" { "OPTIONS" } else { "GET" };
        for version in ["1.0", "1.1"] {
            let text = format!("{method} {target} HTTP/{version}\r\nHost: a\r\n\r\n");
            if let Status::Complete(_) = scan(text.as_bytes()) {
                assert_eq!(pingora_reads(text.as_bytes()), Some(false), "{text:?}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Eight bytes at a time, or one by one: the same place.
    #[test]
    fn the_first_control_byte_is_found(bytes in prop::collection::vec(any::<u8>(), 0..40), from in 0_usize..40) {
        let naive = bytes.iter().enumerate().skip(from).find(|(_, byte)| is_control(**byte));
        prop_assert_eq!(find_control(&bytes, from), naive.map(|(at, _)| at));
        // Rare bytes are where such tricks go wrong.
        let rare = [b'a', b'\t', 0x1f, 0x7f, 0x80, 0x89, 0xff, b' '];
        let dense: Vec<u8> = bytes.iter().map(|byte| rare[usize::from(byte % 8)]).collect();
        let naive = dense.iter().enumerate().skip(from).find(|(_, byte)| is_control(**byte));
        prop_assert_eq!(find_control(&dense, from), naive.map(|(at, _)| at));
    }

    #[test]
    fn pingora_agrees(head in nearly_a_head()) {
        if let Status::Complete(found) = scan(&head) {
            let has_body = !matches!(found.body, Framing::None | Framing::Length(0));
            prop_assert_eq!(pingora_reads(&head), Some(has_body));
        }
    }

    #[test]
    fn pingora_takes_every_host(host in "[-A-Za-z0-9.:\\[\\]%_~!$&'()*+,;=@]{0,12}") {
        for target in [String::from("/"), format!("http://{host}/")] {
            let text = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
            if let Status::Complete(_) = scan(text.as_bytes()) {
                prop_assert_eq!(pingora_reads(text.as_bytes()), Some(false));
            }
        }
    }
}
