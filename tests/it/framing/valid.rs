//! Requests that are right, however unusual: all of them have to get through.

use super::payload::{Corpus, HIDDEN, NEXT, Way, chunked, length};

/// All of them, numbered from `from`.
pub fn all(way: Way, from: usize) -> Corpus {
    let mut corpus = Corpus::new(way, from);
    bodiless(&mut corpus);
    targets(&mut corpus);
    fields(&mut corpus);
    bodies(&mut corpus, way);
    several(&mut corpus);
    corpus
}

fn bodiless(corpus: &mut Corpus) {
    for method in
        ["GET", "DELETE", "PATCH", "PROPFIND", "M-SEARCH", "QUERY", "get", "X!#$%&'*+-.^_`|~9", "PRI"]
    {
        // Legs have a method of their own, whatever is asked.
        let text = format!("{method} <0> HTTP/1.1\r\nHost: x\r\n\r\n");
        corpus.right(&format!("method {method}"), text, "");
    }
    corpus.right("HEAD", "HEAD <0> HTTP/1.1\r\nHost: x\r\n\r\n", "").methods = vec!["HEAD"];
    corpus.right("OPTIONS", "OPTIONS <0> HTTP/1.1\r\nHost: x\r\n\r\n", "");
    corpus.right("TRACE", "TRACE <0> HTTP/1.1\r\nHost: x\r\n\r\n", "");
    corpus.right("an empty line before it", "\r\nGET <0> HTTP/1.1\r\nHost: x\r\n\r\n", "");
    corpus.right("empty lines before it", "\r\n\r\n\r\nGET <0> HTTP/1.1\r\nHost: x\r\n\r\n", "");
    corpus.right("a version to come", "GET <0> HTTP/1.2\r\nHost: x\r\n\r\n", "");
    corpus.right(
        "a version to come, with a body",
        "POST <0> HTTP/1.9\r\nHost: x:\r\nContent-Length: 5\r\n\r\nhello",
        "hello",
    );
    corpus.right("absolute form, a Host without a port", "GET http://x<0> HTTP/1.1\r\nHost: x:\r\n\r\n", "");
    corpus.right("HTTP/1.0", "GET <0> HTTP/1.0\r\nHost: x\r\n\r\n", "");
    corpus.right("HTTP/1.0 without Host", "GET <0> HTTP/1.0\r\n\r\n", "");
    corpus.right("HTTP/1.0 kept", "GET <0> HTTP/1.0\r\nHost: x\r\nConnection: keep-alive\r\n\r\n", "");
    corpus.right(
        "HTTP/1.0 with an expectation",
        "POST <0> HTTP/1.0\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nok",
        "ok",
    );
    corpus.right("close", "GET <0> HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "");
}

fn targets(corpus: &mut Corpus) {
    for (name, target) in [
        ("absolute form", "http://x<0>"),
        ("absolute form of https", "https://x<0>"),
        ("absolute form in capitals", "HTTP://x<0>"),
        ("a query", "<0>?a=b&c=d"),
        ("an empty query", "<0>?"),
        ("question marks in a query", "<0>?a?b=c?"),
        ("slashes in a query", "<0>?/../a//b"),
        ("a URL in a query", "<0>?u=http://y/z"),
        ("sub-delims in a query", "<0>?!$&'()*+,;=:@-._~"),
        ("an escaped query", "<0>?%00%0d%0a%FF%20"),
        ("brackets in a query", "<0>?a[]=1&a[b]=2"),
        ("what browsers leave in a query", "<0>?a={b|c}^`\\d"),
        ("dot segments", "/x/..<0>"),
        ("a dot segment", "/.<0>"),
        ("an escaped dot segment", "/%2e<0>"),
        ("two slashes", "/<0>"),
    ] {
        corpus.right(name, format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n"), "");
    }
    for host in [
        "x:80",
        "x.example.",
        "xn--bcher-kva.example",
        "127.0.0.1",
        "[::1]",
        "[::1]:8080",
        "x:",
        "[::1]: ",
        "X_y-1.example",
        "1",
    ] {
        corpus.right(&format!("Host: {host}"), format!("GET <0> HTTP/1.1\r\nHost: {host}\r\n\r\n"), "");
    }
}

fn fields(corpus: &mut Corpus) {
    for (name, line) in [
        ("no space before the value", "X:y"),
        ("tabs around the value", "X:\ty\t"),
        ("many spaces around the value", "X:    y    "),
        ("an empty value", "X:"),
        ("a value of spaces", "X:   "),
        ("a name of all that a token has", "!#$%&'*+-.^_`|~09azAZ: y"),
        ("a value of high bytes", "X: \u{e9}\u{20ac}"),
        ("a value of all that is visible", "X: !\"#$%&'()*+,-./09:;<=>?@AZ[\\]^_`az{|}~"),
        ("a colon in a value", "X: y: z"),
        ("the same field twice", "X: 1\r\nX: 2"),
        ("cookies in two lines", "Cookie: a=1\r\nCookie: b=2"),
        ("names in capitals", "ACCEPT: */*"),
        ("a list with empty elements", "Connection: , keep-alive,,"),
        ("Connection names a field", "Connection: X-Mine\r\nX-Mine: 1"),
        ("Connection names what is not there", "Connection: x-nothing"),
        ("TE", "TE: trailers, deflate;q=0.5\r\nConnection: TE"),
        ("Keep-Alive", "Keep-Alive: timeout=5\r\nConnection: keep-alive"),
        ("Proxy-Connection", "Proxy-Connection: keep-alive"),
        (
            "an upgrade that is not spoken",
            "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__",
        ),
        ("an upgrade without Connection", "Upgrade: websocket"),
        ("an expectation without a body", "Expect: 100-continue"),
        ("an expectation in capitals", "Expect: 100-Continue"),
        ("Max-Forwards", "Max-Forwards: 0"),
        ("a date of old", "If-Modified-Since: Sunday, 06-Nov-94 08:49:37 GMT"),
        ("a range", "Range: bytes=0-0,-1"),
        ("no body, said", "Content-Length: 0"),
        ("Content-Encoding", "Content-Encoding: chunked"),
        ("a field that is nearly one", "Content_Length: 7\r\nTransfer_Encoding: chunked"),
        ("another field that is nearly one", "X-Transfer-Encoding: chunked"),
    ] {
        corpus.right(name, format!("GET <0> HTTP/1.1\r\nHost: x\r\n{line}\r\n\r\n"), "");
    }
    let many: String = (0..90).map(|n| format!("X-{n}: {n}\r\n")).collect();
    corpus.right("ninety fields", format!("GET <0> HTTP/1.1\r\nHost: x\r\n{many}\r\n"), "");
    let long = "v".repeat(12_000);
    corpus.right("a long value", format!("GET <0> HTTP/1.1\r\nHost: x\r\nX: {long}\r\n\r\n"), "");
    corpus.right("a long query", format!("GET <0>?{long} HTTP/1.1\r\nHost: x\r\n\r\n"), "");
    corpus.right("Host comes last", "GET <0> HTTP/1.1\r\nA: b\r\nhost: x\r\n\r\n", "");
}

fn bodies(corpus: &mut Corpus, way: Way) {
    for method in ["GET", "DELETE", "OPTIONS", "POST", "PUT", "REPORT"] {
        let text = format!("{method} <0> HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello");
        corpus.right(&format!("{method} with a body"), text, "hello");
        let text = format!(
            "{method} <0> HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
        );
        corpus.right(&format!("{method} with chunks"), text, "hello");
    }
    let head = "HEAD <0> HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nok";
    corpus.right("HEAD with a body", head, "ok").methods = vec!["HEAD"];
    for (name, field) in [
        ("a length with leading zeros", "Content-Length: 0005"),
        ("a length between tabs", "Content-Length:\t5\t"),
        ("a length, its name in capitals", "CONTENT-LENGTH: 5"),
        ("an expectation, and the body at once", "Expect: 100-continue\r\nContent-Length: 5"),
    ] {
        corpus.right(name, format!("POST <0> HTTP/1.1\r\nHost: x\r\n{field}\r\n\r\nhello"), "hello");
    }
    for (name, coding) in [
        ("chunked in capitals", "Transfer-Encoding: CHUNKED"),
        ("chunked without a space", "transfer-encoding:chunked"),
        ("chunked between tabs", "Transfer-Encoding:\tchunked\t"),
    ] {
        corpus.right(
            name,
            format!("POST <0> HTTP/1.1\r\nHost: x\r\n{coding}\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
            "hello",
        );
    }
    for (name, chunks) in [
        ("no chunks", "0\r\n\r\n"),
        ("a chunk a byte", "1\r\nh\r\n1\r\ne\r\n1\r\nl\r\n1\r\nl\r\n1\r\no\r\n0\r\n\r\n"),
        ("leading zeros in a size", "0005\r\nhello\r\n000\r\n\r\n"),
        ("an extension", "5;x=y\r\nhello\r\n0;z\r\n\r\n"),
        ("a quoted extension", "5;x=\"a;b \\\" c\"\r\nhello\r\n0\r\n\r\n"),
        ("an extension behind bad whitespace", "5 ; x = y\r\nhello\r\n0\r\n\r\n"),
        ("trailers", "5\r\nhello\r\n0\r\nA: b\r\nC:\r\n\r\n"),
        ("digits in capitals", "5\r\nhello\r\n0A\r\n0123456789\r\n0\r\n\r\n"),
    ] {
        let body = match name {
            "no chunks" => "",
            "digits in capitals" => "hello0123456789",
            _ => "hello",
        };
        corpus.right(
            name,
            format!("POST <0> HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"),
            body,
        );
    }
    let hidden = chunked(HIDDEN);
    corpus.right(
        "a request in chunks",
        format!("POST <0> HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{hidden}"),
        HIDDEN,
    );
    let head = format!("POST <0> HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", length(HIDDEN));
    corpus.right("a request as a body", format!("{head}{HIDDEN}"), HIDDEN);
    if way != Way::Leg {
        let large = "0123456789abcdef".repeat(12_000);
        let head = format!("POST <0> HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", large.len());
        corpus.right("a large body", format!("{head}{large}"), &large);
    }
}

fn several(corpus: &mut Corpus) {
    let get = "GET <0> HTTP/1.1\r\nHost: x\r\n\r\n";
    corpus.right("two at once", format!("{get}{NEXT}"), "");
    corpus.right("two at once with an empty line between", format!("{get}\r\n{NEXT}"), "");
    let head = "HEAD <0> HTTP/1.1\r\nHost: x\r\n\r\n";
    corpus.right("HEAD, then GET", format!("{head}{NEXT}"), "").methods = vec!["HEAD"];
    let post = "POST <0> HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello";
    corpus.right("a body, then another request", format!("{post}{NEXT}"), "hello");
    corpus.right("a body, an empty line, then another request", format!("{post}\r\n{NEXT}"), "hello");
    corpus.right("a body, empty lines, then another request", format!("{post}\r\n\r\n{NEXT}"), "hello");
    let chunks =
        "POST <0> HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nA: b\r\n\r\n";
    corpus.right("chunks, then another request", format!("{chunks}{NEXT}"), "hello");
    let third = "GET <2> HTTP/1.1\r\nHost: x\r\n\r\n";
    corpus.right("three at once", format!("{chunks}{NEXT}{third}"), "hello");
}
