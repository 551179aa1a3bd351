//! Servers that answer what they must not: nobody gets another one's answer, and what clients get is valid.

use futures_util::StreamExt;

use super::payload::{Corpus, HIDDEN, Way, length};
use super::{AT_ONCE, Bench, reply, seen, send};
use crate::support::strict::Message;
use crate::support::*;

const EVIL: &str = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n\"evil\"";
/// What begins many of them.
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n";

/// An answer, and what it has to be for the client.
#[derive(Debug, Clone)]
struct Case {
    name: String,
    reply: Reply,
    /// It is right after all: this status, whichever way it goes.
    right: Option<u16>,
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |name: &str, bytes: String, right: Option<u16>| {
        cases.push(Case { name: name.to_owned(), reply: Reply::exactly(bytes), right });
    };
    let body = "\"mine\"";
    // Lengths and codings.
    for fields in [
        "Content-Length: 6\r\nContent-Length: 6",
        "Content-Length: 6\r\nContent-Length: 7",
        "Content-Length: 6, 6",
        "Content-Length: 6,7",
        "Content-Length: +6",
        "Content-Length: -6",
        "Content-Length: 0x6",
        "Content-Length: 6 6",
        "Content-Length: 6;",
        "Content-Length:",
        "Content-Length: x",
        "Content-Length: 6.0",
        "Content-Length: 99999999999999999999",
        "Content-Length: 18446744073709551622",
        "Content-Length: 6\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 6",
        "Transfer-Encoding: identity\r\nContent-Length: 6",
        "Transfer-Encoding: gzip",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: identity, chunked",
        "Transfer-Encoding:",
        "Transfer-Encoding: \"chunked\"",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding:\r\n chunked",
        "Content-Length: 6\r\n Content-Length: 7",
        "Content-Length\0: 6",
        "Content-Length: 6\0",
        "Content-Length: 6\x0b",
        "Content_Length: 6",
        "Content-Length: 6\rX: y",
    ] {
        add(fields, format!("{OK}{fields}\r\n\r\n{body}"), None);
        add(fields, format!("{OK}{fields}\r\n\r\n{body}{EVIL}"), None);
        add(fields, format!("{OK}{fields}\r\n\r\n6\r\n{body}\r\n0\r\n\r\n{EVIL}"), None);
    }
    add(
        "chunks in 1.0",
        format!("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\n{body}\r\n0\r\n\r\n{EVIL}"),
        None,
    );
    // Chunks.
    for chunks in [
        "+6\r\n\"mine\"\r\n0\r\n\r\n",
        "-6\r\n\"mine\"\r\n0\r\n\r\n",
        "0x6\r\n\"mine\"\r\n0\r\n\r\n",
        "6 \r\n\"mine\"\r\n0\r\n\r\n",
        " 6\r\n\"mine\"\r\n0\r\n\r\n",
        "6\n\"mine\"\n0\n\n",
        "6\r\n\"mine\"XX0\r\n\r\n",
        "6\r\n\"mine\"\r\n0\r\n",
        "6\r\n\"mine\"\r\n",
        "7\r\n\"mine\"\r\n0\r\n\r\n",
        "5\r\n\"mine\"\r\n0\r\n\r\n",
        "g\r\n",
        "\r\n",
        "fffffffffffffffff\r\n\"mine\"",
        "ffffffffffffffff\r\n\"mine\"",
        "6;x=\"\n\"\r\n\"mine\"\r\n0\r\n\r\n",
        "6;\0\r\n\"mine\"\r\n0\r\n\r\n",
        "6\r\n\"mine\"\r\n0\r\n folded\r\n\r\n",
        "6\r\n\"mine\"\r\n0\r\nA : b\r\n\r\n",
        "6\r\n\"mine\"\r\n0\r\nA: \0\r\n\r\n",
        "6\r\n\"mine\"\r\n0\r\nA: b\nEvil: 1\r\n\r\n",
    ] {
        add(chunks, format!("{OK}Transfer-Encoding: chunked\r\n\r\n{chunks}"), None);
        add(chunks, format!("{OK}Transfer-Encoding: chunked\r\n\r\n{chunks}{EVIL}"), None);
    }
    for (name, chunks) in [
        ("an extension", "6;x=y\r\n\"mine\"\r\n0;z\r\n\r\n"),
        ("leading zeros", "0006\r\n\"mine\"\r\n00\r\n\r\n"),
        ("trailers", "6\r\n\"mine\"\r\n0\r\nContent-Length: 9\r\nTransfer-Encoding: x\r\nX: y\r\n\r\n"),
    ] {
        add(name, format!("{OK}Transfer-Encoding: chunked\r\nTrailer: X\r\n\r\n{chunks}"), Some(200));
    }
    // Bytes behind the answer.
    let fine = format!("{OK}Content-Length: 6\r\n\r\n{body}");
    for behind in [
        EVIL,
        "\r\n",
        "\0",
        "x",
        "HTTP/1.1 ",
        "\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n\"evil\"",
        "HTTP/1.1 100 Continue\r\n\r\n",
    ] {
        add(&format!("{behind:?} behind"), format!("{fine}{behind}"), Some(200));
        add(
            &format!("{behind:?} behind chunks"),
            format!("{OK}Transfer-Encoding: chunked\r\n\r\n6\r\n{body}\r\n0\r\n\r\n{behind}"),
            Some(200),
        );
        add(&format!("{behind:?} behind nothing"), format!("{OK}Content-Length: 0\r\n\r\n{behind}"), None);
        for status in ["204 No Content", "304 Not Modified"] {
            add(&format!("{behind:?} behind {status}"), format!("HTTP/1.1 {status}\r\n\r\n{behind}"), None);
            add(
                &format!("{behind:?} behind {status} with a length"),
                format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{behind}", behind.len()),
                None,
            );
            add(
                &format!("{behind:?} behind {status} with chunks"),
                format!(
                    "HTTP/1.1 {status}\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{behind}\r\n0\r\n\r\n",
                    behind.len()
                ),
                None,
            );
        }
        add(
            &format!("{behind:?} behind 205"),
            format!("HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n{behind}"),
            None,
        );
    }
    // Interim answers.
    let hint = "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n";
    add("hints", format!("{hint}{hint}{fine}"), Some(200));
    add("100 although nobody asked", format!("HTTP/1.1 100 Continue\r\n\r\n{fine}"), Some(200));
    add("a flood of them", format!("{}{fine}", hint.repeat(2_000)), None);
    add("a flood without end", hint.repeat(20_000), None);
    add("one with a length", format!("HTTP/1.1 103 X\r\nContent-Length: 6\r\n\r\n\"evil\"{fine}"), None);
    add(
        "one with chunks",
        format!("HTTP/1.1 103 X\r\nTransfer-Encoding: chunked\r\n\r\n6\r\n\"evil\"\r\n0\r\n\r\n{fine}"),
        None,
    );
    add("one of 1.0", format!("HTTP/1.0 100 Continue\r\n\r\n{fine}"), None);
    add(
        "one that closes",
        format!(
            "HTTP/1.1 103 X\r\nConnection: close, x\r\nX: y\r\nUpgrade: z\r\nKeep-Alive: 1\r\n\r\n{fine}"
        ),
        None,
    );
    add("only one", hint.into(), None);
    add(
        "101",
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n{EVIL}"
        ),
        None,
    );
    add(
        "101 of another protocol",
        format!("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n{EVIL}"),
        None,
    );
    add("101 without fields", format!("HTTP/1.1 101 X\r\n\r\n{fine}"), None);
    add("102", format!("HTTP/1.1 102 Processing\r\n\r\n{fine}"), Some(200));
    add("199", format!("HTTP/1.1 199 X\r\n\r\n{fine}"), None);
    // Status lines.
    for line in [
        "HTTP/1.1 200",
        "HTTP/1.1  200 OK",
        "HTTP/1.1 20 OK",
        "HTTP/1.1 2000 OK",
        "HTTP/1.1 2x0 OK",
        "HTTP/1.1 +20 OK",
        "HTTP/1.1 -20 OK",
        "HTTP/1.1 000 OK",
        "HTTP/1.1 099 OK",
        "HTTP/1.1 600 X",
        "HTTP/1.1 999 X",
        "HTTP/2 200 OK",
        "HTTP/2.0 200 OK",
        "HTTP/1.2 200 OK",
        "HTTP/0.9 200 OK",
        "HTTP/3.0 200 OK",
        "HTTP/1.10 200 OK",
        "HTTP/11 200 OK",
        "http/1.1 200 OK",
        "ICY 200 OK",
        "HTTP/1.1200 OK",
        "HTTP/1.1\t200\tOK",
        " HTTP/1.1 200 OK",
        "\r\nHTTP/1.1 200 OK",
        "\nHTTP/1.1 200 OK",
        "HTTP/1.1 200OK",
        "HTTP/1.1 200 O\0K",
        "HTTP/1.1 200 O\rK",
        "HTTP/1.1 200 O\x1bK",
        "HTTP/1.1 200 \u{e9}",
        "HTTP/1.1 200 \tOK",
        "HTTP/1.1",
        "200 OK",
        "evil",
        "GET / HTTP/1.1",
        "",
    ] {
        add(
            line,
            format!("{line}\r\nContent-Type: application/json\r\nContent-Length: 6\r\n\r\n{body}"),
            None,
        );
    }
    add(
        "a long phrase",
        format!("HTTP/1.1 200 {}\r\nContent-Length: 6\r\n\r\n{body}", "p".repeat(20_000)),
        None,
    );
    // Fields.
    for line in [
        "X: a\nY: b",
        "X: a\rY: b",
        "X: a\0b",
        "X: \x7f",
        "X: \x1b[31m",
        "X : a",
        "X\t: a",
        " X: a",
        "X: a\r\n folded",
        "X: a\r\n\tfolded",
        "X: a\r\n ",
        "no colon",
        ": a",
        "X Y: a",
        "X(: a",
        "X\0: a",
        "\u{e9}: a",
        "X: \u{e9}",
        "X:",
        "X: a\r",
        "Set-Cookie: a=b\rSet-Cookie: evil=1",
        "Location: /\r\r\nX: y",
        "Connection: close",
        "Connection: content-length",
        "Connection: transfer-encoding",
        "Connection: set-cookie, date, content-type",
        "Connection: keep-alive\r\nKeep-Alive: timeout=0",
        "Connection: \0",
        "Connection: upgrade\r\nUpgrade: h2c",
        "Proxy-Connection: close",
        "Proxy-Authenticate: Basic",
        "TE: trailers",
        "Trailer: Content-Length",
        "Upgrade: h2c",
        "HTTP/1.1 200 OK",
        "Content-Type: a\r\nContent-Type: b",
        "X-Request-Id: evil",
        "Via: 1.1 x\r\nVia: 1.0 y",
        "Date: evil",
        "Transfer_Encoding: chunked",
    ] {
        add(line, format!("{OK}{line}\r\nContent-Length: 6\r\n\r\n{body}"), None);
        add(line, format!("{OK}{line}\r\nTransfer-Encoding: chunked\r\n\r\n6\r\n{body}\r\n0\r\n\r\n"), None);
    }
    let line = "X: y\r\n";
    add("many fields", format!("{OK}{}Content-Length: 6\r\n\r\n{body}", line.repeat(10_000)), None);
    add("a long field", format!("{OK}X: {}\r\nContent-Length: 6\r\n\r\n{body}", "v".repeat(300_000)), None);
    add("a head without end", format!("{OK}{}", line.repeat(100_000)), None);
    add("a line without end", format!("HTTP/1.1 200 {}", "p".repeat(500_000)), None);
    add(
        "LF alone",
        "HTTP/1.1 200 OK\nContent-Type: application/json\nContent-Length: 6\n\n\"mine\"".into(),
        None,
    );
    add("CR alone", "HTTP/1.1 200 OK\rContent-Length: 6\r\r\"mine\"".into(), None);
    add("split by a value", format!("{OK}Location: /a\r\nContent-Length: 0\r\n\r\n{EVIL}"), None);
    add("split by a value, with LF", format!("{OK}Location: /a\nContent-Length: 0\n\n{EVIL}"), None);
    add(
        "426",
        "HTTP/1.1 426 Upgrade Required\r\nUpgrade: h2c\r\nConnection: Upgrade\r\nContent-Length: 0\r\n\r\n"
            .into(),
        None,
    );
    // Those behind which the server closes.
    let mut closing: Vec<Case> = [
        ("nothing", String::new(), None),
        ("half a head", OK.to_owned(), None),
        ("half a body", format!("{OK}Content-Length: 60\r\n\r\n{body}"), None),
        ("half a chunk", format!("{OK}Transfer-Encoding: chunked\r\n\r\n60\r\n{body}"), None),
        ("no last chunk", format!("{OK}Transfer-Encoding: chunked\r\n\r\n6\r\n{body}\r\n"), None),
        ("no length", format!("{OK}\r\n{body}"), Some(200)),
        ("no length, in 1.0", format!("HTTP/1.0 200 OK\r\n\r\n{body}"), Some(200)),
        ("no length, kept", format!("{OK}Connection: keep-alive\r\n\r\n{body}"), Some(200)),
        (
            "a length, and the end",
            format!("{OK}Connection: close\r\nContent-Length: 6\r\n\r\n{body}"),
            Some(200),
        ),
        (
            "a length, and more",
            format!("{OK}Connection: close\r\nContent-Length: 6\r\n\r\n{body}{EVIL}"),
            Some(200),
        ),
        ("two answers", format!("{fine}{EVIL}"), Some(200)),
    ]
    .into_iter()
    .map(|(name, bytes, right)| Case { name: name.to_owned(), reply: Reply::exactly(bytes).closing(), right })
    .collect();
    cases.append(&mut closing);
    // What leaves the gateway waiting would only cost time: the server ends those, too.
    for case in &mut cases {
        case.reply.close |= case.right.is_none();
    }
    // Most of them once more, on a connection that stays.
    let open: Vec<Case> = cases
        .iter()
        .filter(|case| case.reply.close && case.reply.bytes.windows(4).any(|end| end == b"evil"))
        .map(|case| Case {
            name: format!("{}, kept open", case.name),
            reply: Reply { close: false, ..case.reply.clone() },
            right: None,
        })
        .collect();
    cases.extend(open);
    cases
}

/// Which case a request asks for: that of its number, if it is one of the hostile ones.
fn case_of(request: &Message) -> Option<usize> {
    let mut parts = request.target.split('/').skip(2);
    let id: usize = parts.next()?.parse().ok()?;
    // Legs have their methods by themselves.
    (parts.next()?.starts_with('0')).then_some(id % 1_000)
}

/// Whatever a server answers, its client gets a valid answer that is its own, and so does everybody else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_a_server_answers_reaches_only_who_asked() {
    let cases = cases();
    assert!(cases.len() < 1_000);
    let scripted = cases.clone();
    let script = move |request: &Message| match case_of(request).and_then(|at| scripted.get(at)) {
        Some(case) => case.reply.clone(),
        None => reply(request),
    };
    // Some leave it waiting for more.
    let bench = Bench::patient(script, "[limits]\nbody_timeout = \"3s\"\n", "4s").await;
    let mut faults = Vec::new();
    let (mut asked, mut refused, mut passed) = (0, 0, 0);
    let corpora = Way::HTTP1.into_iter().zip(1..).map(|(way, at)| {
        let mut corpus = Corpus::new(way, 10_000 * at);
        for case in &cases {
            let text = "GET <0> HTTP/1.1\r\nHost: x\r\n\r\nGET <1> HTTP/1.1\r\nHost: x\r\n\r\n";
            corpus.add(&case.name, text).wants = Some(2);
        }
        (way, corpus.payloads)
    });
    let corpora: Vec<_> = corpora.collect();
    let payloads = corpora.iter().flat_map(|(_, payloads)| payloads);
    // More than elsewhere at once: some wait for a server that is silent.
    let sending = futures_util::stream::iter(payloads).map(|payload| send(&bench, payload, false));
    let all_got: Vec<_> = sending.buffered(6 * AT_ONCE).collect().await;
    for ((way, payloads), got) in corpora.iter().zip(all_got.chunks(cases.len())) {
        let way = *way;
        for ((payload, got), case) in payloads.iter().zip(got).zip(&cases) {
            asked += 1;
            let show = format!(
                "{way:?} {:?} {:?}",
                case.name,
                String::from_utf8_lossy(&got.bytes[..got.bytes.len().min(900)])
            );
            let answers = match got.answers(&["GET", "GET"]) {
                Ok(answers) => answers,
                Err(what) => {
                    faults.push(format!("{what}: {show}"));
                    continue;
                }
            };
            let finals: Vec<&Message> = answers.whole.iter().filter(|answer| answer.status >= 200).collect();
            let Some(first) = finals.first() else {
                // Broken off, as the server did.
                if answers.cut.is_none() {
                    faults.push(format!("no answer: {show}"));
                }
                continue;
            };
            if first.status >= 500 {
                refused += 1
            } else {
                passed += 1
            }
            if case.right.is_some_and(|status| status != first.status) {
                faults.push(format!("refused although it is right: {show}"));
            }
            // In an answer that ends with its connection all that comes is its body.
            let is_rest_body = first.chunked || first.body.len() > 6;
            if String::from_utf8_lossy(&first.body).contains("evil") && !is_rest_body {
                faults.push(format!("somebody else's body: {show}"));
            }
            if let Some(second) = finals.get(1)
                && !(second.status == 200
                    && String::from_utf8_lossy(&second.body).contains(&payload.marks[1]))
            {
                faults.push(format!("the next one got another answer: {show}"));
            }
        }
        // Whatever was left on a connection to a server would be taken for one of these.
        let innocent = (0..100).map(|n| super::innocent(&bench, way, 90_000 + n));
        futures_util::stream::iter(innocent).buffer_unordered(8).collect::<Vec<()>>().await;
    }
    seen(&bench.recorded().await, &mut faults);
    // What a kept connection ends without an answer to is asked once more on a new one (RFC 9112 section 9.3.1).
    faults.retain(|fault| !fault.ends_with("was forwarded 2 times"));
    eprintln!("answers: {asked} asked for, {passed} passed on, {refused} refused, {} faults", faults.len());
    assert!(faults.is_empty(), "{} faults\n{}", faults.len(), faults[..faults.len().min(40)].join("\n"));
    bench.gw.stop().await;
}

/// The answer to HEAD has no body, whatever follows it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_answer_to_head_ends_with_its_head() {
    let replies: Vec<String> = [
        "Content-Length: 6\r\n\r\n\"evil\"",
        "Transfer-Encoding: chunked\r\n\r\n6\r\n\"evil\"\r\n0\r\n\r\n",
        "\r\n\"evil\"",
        "Content-Length: 6\r\n\r\n",
        "Content-Length: 0\r\n\r\n",
        "\r\n",
    ]
    .iter()
    .map(|rest| format!("HTTP/1.1 200 OK\r\n{rest}"))
    .chain([
        format!("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n{EVIL}"),
        format!("HTTP/1.1 200 OK\r\n\r\n{EVIL}"),
    ])
    .collect();
    let scripted = replies.clone();
    let script = move |request: &Message| match case_of(request)
        .filter(|_| request.method == "HEAD")
        .and_then(|at| scripted.get(at))
    {
        Some(bytes) => Reply::exactly(bytes.clone()),
        None => reply(request),
    };
    let bench = Bench::start(script).await;
    let mut faults = Vec::new();
    for (at, way) in [Way::Direct, Way::Pingora].into_iter().enumerate() {
        let mut corpus = Corpus::new(way, 10_000 * (at + 1));
        for bytes in &replies {
            let payload =
                corpus.add(bytes, "HEAD <0> HTTP/1.1\r\nHost: x\r\n\r\nGET <1> HTTP/1.1\r\nHost: x\r\n\r\n");
            (payload.wants, payload.methods) = (Some(2), vec!["HEAD"]);
        }
        for payload in &corpus.payloads {
            let got = send(&bench, payload, false).await;
            let show = format!("{way:?} {:?} {:?}", payload.name, String::from_utf8_lossy(&got.bytes));
            match got.answers(&["HEAD", "GET"]) {
                Ok(answers) if answers.whole.len() == 2 => {
                    if !String::from_utf8_lossy(&answers.whole[1].body).contains(&payload.marks[1]) {
                        faults.push(show);
                    }
                }
                other => faults.push(format!("{other:?}: {show}")),
            }
            super::innocent(&bench, way, 90_000).await;
        }
    }
    seen(&bench.recorded().await, &mut faults);
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    bench.gw.stop().await;
}

/// A server that answers before it has the whole request is not sent another one behind half of it; nor is the rest of a
/// request that was answered taken for the client's next one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_early_answer_leaves_no_half_of_a_request() {
    let replies: Vec<Reply> = [
        "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n\"mine\"",
        "HTTP/1.1 413 Content Too Large\r\nContent-Length: 6\r\n\r\n\"mine\"",
        "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\n\"mine\"\r\n0\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n\"mine\"",
        "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n\"mine\"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n\"evil\"",
    ]
    .iter()
    .flat_map(|bytes| [Reply::exactly(*bytes).early(), Reply::exactly(*bytes).early().closing()])
    .collect();
    let scripted = replies.clone();
    let script = move |request: &Message| match case_of(request)
        .filter(|_| request.method == "POST")
        .and_then(|at| scripted.get(at / 8))
    {
        Some(reply) => reply.clone(),
        None => reply(request),
    };
    let bench = Bench::start(script).await;
    let mut faults = Vec::new();
    for (at, way) in [Way::Direct, Way::Pingora].into_iter().enumerate() {
        let mut corpus = Corpus::new(way, 10_000 * (at + 1));
        let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", length(text));
        for reply in &replies {
            for ends in [false, true] {
                for expects in ["", "Expect: 100-continue\r\n"] {
                    let text = format!(
                        "POST <0> HTTP/1.1\r\nHost: x\r\n{expects}Content-Length: {}\r\n\r\n{HIDDEN}{HIDDEN}",
                        2 * length(HIDDEN)
                    );
                    let cut = length(&text) - length(HIDDEN);
                    let payload = corpus.add(format!("a length {expects}{ends} {reply:?}"), text);
                    (payload.cuts, payload.waits, payload.ends) = (vec![cut], true, ends);
                    let text = format!(
                        "POST <0> HTTP/1.1\r\nHost: x\r\n{expects}Transfer-Encoding: chunked\r\n\r\n{}{}0\r\n\r\n",
                        chunk(HIDDEN),
                        chunk(HIDDEN)
                    );
                    let cut = length(&text) - length(HIDDEN);
                    let payload = corpus.add(format!("chunks {expects}{ends} {reply:?}"), text);
                    (payload.cuts, payload.waits, payload.ends) = (vec![cut], true, ends);
                }
            }
        }
        let sending = futures_util::stream::iter(&corpus.payloads).map(|payload| async {
            let got = send(&bench, payload, false).await;
            super::innocent(&bench, way, 90_000 + payload.marks[0].len()).await;
            got
        });
        let got: Vec<_> = sending.buffered(AT_ONCE).collect().await;
        for (payload, got) in corpus.payloads.iter().zip(&got) {
            let show = format!("{way:?} {:?} {:?}", payload.name, String::from_utf8_lossy(&got.bytes));
            match got.answers(&["POST"; 2]) {
                Ok(answers) => {
                    let finals = answers.whole.iter().filter(|answer| answer.status >= 200).count();
                    // Who leaves before the answer has come gets none.
                    if finals != 1 && answers.cut.is_none() && !payload.ends {
                        faults.push(format!("{finals} answers: {show}"));
                    }
                }
                Err(what) => faults.push(format!("{what}: {show}")),
            }
        }
        let innocent = (0..40).map(|n| super::innocent(&bench, way, 91_000 + n));
        futures_util::stream::iter(innocent).buffer_unordered(8).collect::<Vec<()>>().await;
    }
    for connection in bench.recorded().await {
        // A body that has the head of another request in it would be half of one and half of another.
        for message in connection.requests().map(|found| found.whole).unwrap_or_default() {
            let text = String::from_utf8_lossy(&message.body).into_owned();
            if message.method == "POST" && (text.matches("GET ").count() != 2 || text.contains("X-Forwarded"))
            {
                faults.push(format!("a mixed body: {text:?}"));
            }
        }
    }
    seen(&bench.recorded().await, &mut faults);
    assert!(faults.is_empty(), "{} faults\n{}", faults.len(), faults[..faults.len().min(30)].join("\n"));
    bench.gw.stop().await;
}
