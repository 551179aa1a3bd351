//! Servers of HTTP/2 that answer what they must not: nobody gets another one's answer, what clients get is valid, and half
//! of an answer is never a whole one.

use futures_util::StreamExt;

use super::payload::{Corpus, Way};
use super::{Bench, reply, send};
use crate::support::h2::*;
use crate::support::strict::Message;
use crate::support::{Authority, Http2Recorder, Recorder, Reply, http2_ok};

/// What has to come of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Must {
    /// It is right: this status, with its body.
    Pass(u16),
    /// The client gets a 502 in its place.
    Refused,
    /// Its head was right and its body is not: a 502, or less than was announced and the end of the connection.
    Broken,
    /// Whatever the gateway makes of it, that is a valid message and this client's.
    Anything,
}

/// An answer, made for a stream.
struct Case {
    name: String,
    frames: Box<dyn Fn(u32) -> Vec<u8> + Send + Sync>,
    /// The server closes behind it.
    closes: bool,
    /// It comes with the head of the request, whatever of its body is still to come.
    early: bool,
    must: Must,
}

const BODY: &[u8] = b"\"mine\"";

/// A head of these fields behind a status of 200, with which the stream does not end.
fn head(stream: u32, fields: &[(&str, &str)]) -> Vec<u8> {
    let mut all = vec![(":status", "200"), ("content-type", "application/json")];
    all.extend(fields);
    open(stream, &block(&all))
}

/// An answer with these fields and a body that fits.
fn with(stream: u32, fields: &[(&str, &str)]) -> Vec<u8> {
    [head(stream, fields), last_data(stream, BODY)].concat()
}

/// A block whose fields may be anything.
fn whole(stream: u32, fields: &[(&str, &str)]) -> Vec<u8> {
    [open(stream, &block(fields)), last_data(stream, BODY)].concat()
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |name: &str, must: Must, frames: Box<dyn Fn(u32) -> Vec<u8> + Send + Sync>| {
        cases.push(Case { name: name.to_owned(), frames, closes: false, early: false, must });
    };
    // What is right.
    for (name, must, frames) in [
        ("plain", Must::Pass(200), (|id| with(id, &[("content-length", "6")])) as fn(u32) -> Vec<u8>),
        ("no length", Must::Pass(200), |id| with(id, &[])),
        ("in pieces", Must::Pass(200), |id| {
            [head(id, &[("content-length", "6")]), data(id, b"\"mi"), data(id, b""), last_data(id, b"ne\"")]
                .concat()
        }),
        ("padded", Must::Pass(200), |id| {
            [head(id, &[]), frame(DATA, END_STREAM | PADDED, id, b"\x02\"mine\"\0\0")].concat()
        }),
        ("an empty last frame", Must::Pass(200), |id| {
            [head(id, &[]), data(id, BODY), last_data(id, b"")].concat()
        }),
        ("a head in pieces", Must::Pass(200), |id| {
            let fields = block(&[(":status", "200"), ("x", "y")]);
            let (one, two) = fields.split_at(5);
            [frame(HEADERS, 0, id, one), continuation(id, END_HEADERS, two), last_data(id, BODY)].concat()
        }),
        ("trailers", Must::Pass(200), |id| {
            [head(id, &[]), data(id, BODY), headers(id, &block(&[("x", "y")]))].concat()
        }),
        ("hints", Must::Pass(200), |id| {
            let hint = open(id, &block(&[(":status", "103"), ("link", "</x>")]));
            [hint.clone(), hint, with(id, &[])].concat()
        }),
        ("204", Must::Pass(204), |id| headers(id, &block(&[(":status", "204")]))),
        ("304 with a length", Must::Pass(304), |id| {
            headers(id, &block(&[(":status", "304"), ("content-length", "6")]))
        }),
        ("a frame of an unknown kind", Must::Pass(200), |id| {
            [frame(0x77, 0xff, id, b"x"), with(id, &[])].concat()
        }),
        ("a setting nobody knows", Must::Pass(200), |id| [settings(&[(0x77, 1)]), with(id, &[])].concat()),
        ("a reset behind it, of no error", Must::Pass(200), |id| [with(id, &[]), reset(id, 0)].concat()),
        ("GOAWAY that leaves it", Must::Pass(200), |id| [goaway(id, 0), with(id, &[])].concat()),
        ("GOAWAY within it", Must::Pass(200), |id| {
            [head(id, &[]), data(id, b"\"mi"), goaway(id, 0), last_data(id, b"ne\"")].concat()
        }),
    ] {
        add(name, must, Box::new(frames));
    }
    // Lengths that are none, or not that of the body.
    for (name, fields) in [
        ("a length of more", &[("content-length", "7")][..]),
        ("a length of less", &[("content-length", "5")]),
    ] {
        add(name, Must::Broken, Box::new(move |id| with(id, fields)));
        add(&format!("{name}, with trailers"), Must::Broken, {
            Box::new(move |id| {
                [head(id, fields), data(id, BODY), headers(id, &block(&[("x", "y")]))].concat()
            })
        });
    }
    // That is a whole answer before it contradicts itself.
    add("a length of nothing", Must::Anything, Box::new(|id| with(id, &[("content-length", "0")])));
    add("a length, and no body", Must::Broken, {
        Box::new(|id| headers(id, &block(&[(":status", "200"), ("content-length", "6")])))
    });
    for fields in [
        &[("content-length", "6"), ("content-length", "6")][..],
        &[("content-length", "6"), ("content-length", "7")],
        &[("content-length", "6, 6")],
        &[("content-length", "+6")],
        &[("content-length", "-6")],
        &[("content-length", "0x6")],
        &[("content-length", "")],
        &[("content-length", "x")],
        &[("content-length", "18446744073709551622")],
        // Fields that say something about a connection (RFC 9113 section 8.2.2).
        &[("connection", "close")],
        &[("connection", "x")],
        &[("keep-alive", "timeout=1")],
        &[("proxy-connection", "close")],
        &[("transfer-encoding", "chunked")],
        &[("transfer-encoding", "identity")],
        &[("upgrade", "h2c")],
        // Names and values that are none (section 8.2.1).
        &[("X-Upper", "y")],
        &[("Content-Length", "6")],
        &[("", "y")],
        &[("x y", "y")],
        &[("x:y", "y")],
        &[("x\r\ny", "y")],
        &[("x\0", "y")],
        &[("x", "a\r\nSet-Cookie: evil=1")],
        &[("x", "a\nb")],
        &[("x", "a\rb")],
        &[("x", "a\0b")],
        // Pseudo-header fields (section 8.3).
        &[(":status", "200")],
        &[(":path", "/")],
        &[(":x", "y")],
    ] {
        add(&format!("{fields:?}"), Must::Refused, Box::new(move |id| with(id, fields)));
    }
    for fields in
        [&[("x", " y")][..], &[("x", "y ")], &[("x", "\ty")], &[("x", "\u{7f}")], &[("te", "trailers")]]
    {
        add(&format!("{fields:?}"), Must::Anything, Box::new(move |id| with(id, fields)));
    }
    for fields in [
        &[("x", "y")][..],
        &[("x", "y"), (":status", "200")],
        &[(":status", "200"), (":status", "200")],
        &[(":status", "")],
        &[(":status", "20")],
        &[(":status", "2000")],
        &[(":status", "abc")],
        &[(":status", "+20")],
        &[(":status", "099")],
        &[(":status", "000")],
        &[(":status", "101")],
        &[(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "x")],
        &[(":Status", "200")],
        &[],
    ] {
        add(&format!("{fields:?} alone"), Must::Refused, Box::new(move |id| whole(id, fields)));
    }
    // The library leaves out what only a request may say, instead of refusing it (RFC 9113 section 8.3).
    let asks: &[(&str, &str)] = &[(":status", "200"), (":method", "GET")];
    add("a method in an answer", Must::Anything, Box::new(move |id| whole(id, asks)));
    // Trailers.
    for fields in [
        &[(":status", "200")][..],
        &[(":path", "/")],
        &[("x", "y"), (":status", "200")],
        &[("X-Upper", "y")],
        &[("connection", "close")],
        &[("transfer-encoding", "chunked")],
        &[("x", "a\r\nb: c")],
    ] {
        for length in [&[][..], &[("content-length", "6")]] {
            add(&format!("trailers {fields:?} {length:?}"), Must::Anything, {
                Box::new(move |id| [head(id, length), data(id, BODY), headers(id, &block(fields))].concat())
            });
        }
    }
    add("trailers that do not end it", Must::Broken, {
        Box::new(|id| {
            [head(id, &[]), data(id, b"\"mi"), open(id, &block(&[("x", "y")])), last_data(id, b"ne\"")]
                .concat()
        })
    });
    // What breaks off.
    for code in [0, CANCEL, REFUSED_STREAM, PROTOCOL_ERROR, 0xdead] {
        add(&format!("reset with {code}"), Must::Refused, Box::new(move |id| reset(id, code)));
        add(&format!("reset with {code} behind the head"), Must::Broken, {
            Box::new(move |id| [head(id, &[("content-length", "6")]), reset(id, code)].concat())
        });
        add(&format!("reset with {code} within the body"), Must::Broken, {
            Box::new(move |id| [head(id, &[]), data(id, b"\"mi"), reset(id, code)].concat())
        });
        add(&format!("reset with {code} within a body with a length"), Must::Broken, {
            Box::new(move |id| {
                [head(id, &[("content-length", "6")]), data(id, b"\"mi"), reset(id, code)].concat()
            })
        });
        add(&format!("reset with {code} behind a hint"), Must::Refused, {
            Box::new(move |id| [open(id, &block(&[(":status", "103")])), reset(id, code)].concat())
        });
    }
    // What breaks the rules of frames; the whole connection is over then.
    for (name, frames) in [
        ("DATA before the head", (|id| last_data(id, BODY)) as fn(u32) -> Vec<u8>),
        ("CONTINUATION of nothing", |id| continuation(id, END_HEADERS, &block(&[(":status", "200")]))),
        ("a frame within a block", |id| {
            [frame(HEADERS, 0, id, &block(&[(":status", "200")])), last_data(id, BODY)].concat()
        }),
        ("padding of more than there is", |id| frame(HEADERS, END_HEADERS | PADDED, id, b"\xff\x88")),
        ("a broken block", |id| open(id, b"\xff\xff\xff\xff\xff\xff")),
        ("an index in no table", |id| open(id, &indexed(70))),
        ("a push", |id| {
            let promise = [&2_u32.to_be_bytes()[..], GET].concat();
            [frame(PUSH_PROMISE, END_HEADERS, id, &promise), headers(2, b"\x88")].concat()
        }),
        ("an answer to nobody", |id| whole(id + 100, &[(":status", "200"), ("x", "evil")])),
        ("an answer on a stream of its own", |_| whole(2, &[(":status", "200"), ("x", "evil")])),
        ("DATA on no stream", |_| frame(DATA, END_STREAM, 0, BODY)),
        ("settings of half a setting", |_| frame(SETTINGS, 0, 0, b"abc")),
        ("too large a frame", |id| {
            // The largest that a length can say, and as much of it as nobody has allowed.
            [b"\xff\xff\xff\x01\x04".as_slice(), &id.to_be_bytes(), &[b'x'; 70_000]].concat()
        }),
        ("a window of nothing more", |_| window_update(0, 0)),
        ("a window beyond all", |_| window_update(0, 0x7fff_ffff)),
        ("HTTP/1.1", |_| b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n\"evil\"".to_vec()),
        ("a flood of CONTINUATION", |id| {
            let mut bytes = frame(HEADERS, 0, id, &block(&[(":status", "200")]));
            (0..2_000).for_each(|_| bytes.extend(continuation(id, 0, &field("x", &"y".repeat(100)))));
            bytes
        }),
        ("GOAWAY that leaves it out", |_| goaway(0, 0)),
        ("GOAWAY with an error", |_| goaway(0, PROTOCOL_ERROR)),
    ] {
        add(name, Must::Refused, Box::new(frames));
    }
    add("a flood of hints", Must::Anything, {
        Box::new(|id| [open(id, &block(&[(":status", "103")])).repeat(5_000), with(id, &[])].concat())
    });
    add(
        "hints without end",
        Must::Anything,
        Box::new(|id| open(id, &block(&[(":status", "103")])).repeat(20_000)),
    );
    add("a hint that ends it", Must::Refused, Box::new(|id| headers(id, &block(&[(":status", "103")]))));
    add("a hint with a body", Must::Refused, {
        Box::new(|id| {
            [open(id, &block(&[(":status", "103")])), data(id, b"\"evil\""), with(id, &[])].concat()
        })
    });
    add("a body longer than the frame behind it", Must::Anything, {
        Box::new(|id| [with(id, &[("content-length", "6")]), last_data(id, b"\"evil\"")].concat())
    });
    add(
        "a second answer",
        Must::Anything,
        Box::new(|id| [with(id, &[]), whole(id, &[(":status", "200"), ("x", "evil")])].concat()),
    );
    for status in ["204", "304"] {
        add(&format!("{status} with a body"), Must::Anything, {
            Box::new(move |id| {
                [open(id, &block(&[(":status", status)])), last_data(id, b"\"evil\"")].concat()
            })
        });
    }
    add("a large head", Must::Anything, {
        Box::new(|id| {
            let large = field("x", &"v".repeat(15_000));
            let mut bytes = frame(HEADERS, 0, id, &block(&[(":status", "200")]));
            (0..40).for_each(|_| bytes.extend(continuation(id, 0, &large)));
            [bytes, continuation(id, END_HEADERS, b""), last_data(id, BODY)].concat()
        })
    });
    // What ends with the connection; what leaves the gateway waiting would only cost time.
    for case in &mut cases {
        case.closes = matches!(case.must, Must::Refused | Must::Anything);
    }
    let mut closing = |name: &str, must: Must, frames: fn(u32) -> Vec<u8>| {
        cases.push(Case {
            name: name.to_owned(),
            frames: Box::new(frames),
            closes: true,
            early: false,
            must,
        });
    };
    closing("nothing, and the end", Must::Refused, |_| Vec::new());
    closing("half a frame, and the end", Must::Refused, |id| head(id, &[])[..12].to_vec());
    closing("a head, and the end", Must::Broken, |id| head(id, &[]));
    closing("half a body, and the end", Must::Broken, |id| [head(id, &[]), data(id, b"\"mi")].concat());
    closing("half of a length, and the end", Must::Broken, |id| {
        [head(id, &[("content-length", "6")]), data(id, b"\"mi")].concat()
    });
    closing("GOAWAY within the body, and the end", Must::Broken, |id| {
        [head(id, &[]), data(id, b"\"mi"), goaway(id, 0)].concat()
    });
    closing("all of it, and the end", Must::Pass(200), |id| with(id, &[("content-length", "6")]));
    cases
}

/// Which case a request asks for: that of its number, if it is one of the hostile ones.
fn case_of(request: &Message) -> Option<usize> {
    let mut parts = request.target.split('/').skip(2);
    let id: usize = parts.next()?.parse().ok()?;
    (parts.next()?.starts_with('0')).then_some(id % 1_000)
}

/// The gateway before a server that answers hostile requests by `cases`, and all others as it should.
async fn bench(cases: std::sync::Arc<Vec<Case>>) -> Bench {
    let authority = Authority::new();
    let clear = Recorder::start(None, reply).await;
    let tls = authority.server(&["app.internal"]).server_config(&[], None);
    let secure = Recorder::start(Some(tls), reply).await;
    let two =
        Http2Recorder::start(move |request, stream| match case_of(request).and_then(|at| cases.get(at)) {
            Some(case) => Reply { bytes: (case.frames)(stream), early: case.early, close: case.closes },
            None => http2_ok(stream, &request.method, &format!("{{\"t\":\"{}\"}}", request.target)),
        });
    Bench::with(authority, clear, secure, two.await, "[limits]\nbody_timeout = \"2s\"\n", "3s").await
}

/// Whatever a server of HTTP/2 answers, its client gets a valid answer that is its own, and so does everybody else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_a_server_of_http2_answers_reaches_only_who_asked() {
    let cases = std::sync::Arc::new(cases());
    assert!(cases.len() > 140 && cases.len() < 1_000, "{}", cases.len());
    let bench = bench(cases.clone()).await;
    let mut corpus = Corpus::new(Way::Http2, 10_000);
    for case in cases.iter() {
        let text = "GET <0> HTTP/1.1\r\nHost: x\r\n\r\nGET <1> HTTP/1.1\r\nHost: x\r\n\r\n";
        corpus.add(&case.name, text).wants = Some(2);
    }
    let mut faults = Vec::new();
    // One after the other: a connection to the server is many requests', and what breaks it would hide what one answer does.
    for (payload, case) in corpus.payloads.iter().zip(cases.iter()) {
        judge(&payload.marks, case, &send(&bench, payload, false).await, &mut faults);
    }
    // Whatever was left on a connection would be taken for one of these.
    let innocent = (0..100).map(|n| super::innocent(&bench, Way::Http2, 90_000 + n));
    futures_util::stream::iter(innocent).buffer_unordered(8).collect::<Vec<()>>().await;
    for connection in bench.two.connections() {
        if let Err(what) = connection.requests() {
            faults.push(format!("the server got what is no request: {what}"));
        }
    }
    eprintln!("answers over HTTP/2: {} cases, {} faults", cases.len(), faults.len());
    assert!(faults.is_empty(), "{} faults\n{}", faults.len(), faults[..faults.len().min(40)].join("\n"));
    bench.gw.stop().await;
}

fn judge(marks: &[String], case: &Case, got: &super::Got, faults: &mut Vec<String>) {
    let show = format!(
        "{:?} ({:?}): {:?}",
        case.name,
        case.must,
        String::from_utf8_lossy(&got.bytes[..got.bytes.len().min(700)])
    );
    let answers = match got.answers(&["GET", "GET"]) {
        Ok(answers) => answers,
        Err(what) => return faults.push(format!("{what}: {show}")),
    };
    let finals: Vec<&Message> = answers.whole.iter().filter(|answer| answer.status >= 200).collect();
    if String::from_utf8_lossy(&got.bytes).contains("evil") {
        faults.push(format!("what is nobody's came through: {show}"));
    }
    // Broken off: its head was passed on, and the connection ended before it was whole.
    let is_broken_off = finals.is_empty() && answers.cut.is_some() && got.ended;
    match (finals.first(), case.must) {
        (Some(first), Must::Pass(status)) => {
            let has_body = !matches!(status, 204 | 304);
            if first.status != status || (has_body && first.body != BODY) {
                faults.push(format!("not passed on as it is: {show}"));
            }
            if finals.len() != 2 {
                faults.push(format!("the next one was not answered: {show}"));
            }
        }
        (Some(first), Must::Refused | Must::Broken) if first.status != 502 => {
            faults.push(format!("passed on for whole: {show}"));
        }
        (None, Must::Refused | Must::Pass(_)) => faults.push(format!("no answer: {show}")),
        (None, _) if !is_broken_off => faults.push(format!("no answer: {show}")),
        _ => {}
    }
    if let Some(second) = finals.get(1)
        && !(second.status == 200 && String::from_utf8_lossy(&second.body).contains(&marks[1]))
        // Other streams of the connection that a fault has ended fail with it.
        && (second.status != 502 || matches!(case.must, Must::Pass(_)))
    {
        faults.push(format!("the next one got another answer: {show}"));
    }
}

/// An answer that comes before the whole request has: its client gets it, the rest of the body is no other request, and
/// the connection to the server serves others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_early_answer_over_http2_leaves_no_half_of_a_request() {
    let early = |name: &str, frames: fn(u32) -> Vec<u8>| Case {
        name: name.to_owned(),
        frames: Box::new(frames),
        closes: false,
        early: true,
        must: Must::Pass(200),
    };
    let cases = std::sync::Arc::new(vec![
        early("all of it", |id| with(id, &[("content-length", "6")])),
        early("and a reset of no error", |id| [with(id, &[("content-length", "6")]), reset(id, 0)].concat()),
        early("and a reset", |id| [with(id, &[("content-length", "6")]), reset(id, CANCEL)].concat()),
        early("and the end of all", |id| [with(id, &[("content-length", "6")]), goaway(id, 0)].concat()),
    ]);
    let bench = bench(cases.clone()).await;
    let mut faults = Vec::new();
    let mut corpus = Corpus::new(Way::Http2, 10_000);
    for case in cases.iter() {
        let hidden = "GET <E> HTTP/1.1\r\nHost: x\r\nX-Evil: 1\r\n\r\n";
        let length = 2 * super::payload::length(hidden);
        let text = format!(
            "POST <0> HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{hidden}{hidden}GET <1> HTTP/1.1\r\nHost: x\r\n\r\n"
        );
        let cut = super::payload::length(&text) - length;
        let payload = corpus.add(&case.name, text);
        (payload.cuts, payload.waits) = (vec![cut], true);
    }
    for (payload, case) in corpus.payloads.iter().zip(cases.iter()) {
        let got = send(&bench, payload, false).await;
        let show = format!("{:?}: {:?}", case.name, String::from_utf8_lossy(&got.bytes));
        match got.answers(&["POST", "GET"]) {
            Ok(answers) => {
                let finals: Vec<_> = answers.whole.iter().filter(|answer| answer.status >= 200).collect();
                match finals[..] {
                    [first] if first.status == 200 && first.body == BODY && got.ended => {}
                    [first, second]
                        if first.body == BODY
                            && String::from_utf8_lossy(&second.body).contains(&payload.marks[1]) => {}
                    _ => faults.push(show),
                }
            }
            Err(what) => faults.push(format!("{what}: {show}")),
        }
        super::innocent(&bench, Way::Http2, 90_000).await;
    }
    for connection in bench.two.connections() {
        match connection.requests() {
            Ok(found) => {
                let mut all = found.whole.iter().chain(&found.cut).chain(connection.broken());
                if all.any(|message| message.target.ends_with("/E")) {
                    faults.push(format!("what was hidden got through: {found:?}"));
                }
            }
            Err(what) => faults.push(format!("the server got what is no request: {what}")),
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    bench.gw.stop().await;
}
