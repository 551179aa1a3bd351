//! What a client can send without end, over HTTP/2, to keep a server busy. Measured by `load-tests/h2-floods`, and ended in
//! the tests.

use super::bytes::*;

/// Client writes within which each must be ended.
pub const WRITES: u32 = 2000;
/// A path whose answer is larger than any window.
pub const LARGE: &str = "/large";

/// One flood.
pub struct Flood {
    pub name: &'static str,
    /// Sent once, behind the preface and the first SETTINGS.
    pub before: Vec<u8>,
    /// The write of this number, from 0.
    pub write: fn(u32) -> Vec<u8>,
    /// The error that the server may give as its end.
    pub ends: &'static [u32],
    /// It asks a service for large answers on all streams that it may have: no gateway can know that it will take none.
    #[allow(dead_code, reason = "the tests have no clock")]
    pub asks_much: bool,
}

/// The stream that the write of this number opens.
fn stream(at: u32) -> u32 {
    2 * at + 1
}

const CALM: &[u32] = &[ENHANCE_YOUR_CALM];
/// Where the specification names another error, or the library's bound on a connection's errors comes first.
const BROKEN: &[u32] = &[ENHANCE_YOUR_CALM, PROTOCOL_ERROR, STREAM_CLOSED, FRAME_SIZE_ERROR];
const MOST: u32 = 0x7fff_ffff;

fn flood(name: &'static str, write: fn(u32) -> Vec<u8>) -> Flood {
    after(name, Vec::new(), write)
}

fn after(name: &'static str, before: Vec<u8>, write: fn(u32) -> Vec<u8>) -> Flood {
    Flood { name, before, write, ends: CALM, asks_much: false }
}

fn broken(name: &'static str, write: fn(u32) -> Vec<u8>) -> Flood {
    Flood { ends: BROKEN, ..flood(name, write) }
}

/// A GET of what is larger than any window.
pub fn get_large() -> Vec<u8> {
    [b"\x82\x86\x41\x09localhost".to_vec(), b"\x04".to_vec(), text(LARGE)].concat()
}

/// All of them.
#[allow(clippy::too_many_lines, reason = "a list")]
pub fn all() -> Vec<Flood> {
    let opened = open(1, POST);
    vec![
        flood("rapid reset", |at| [headers(stream(at), GET), reset(stream(at), CANCEL)].concat()),
        flood("reset of half a request", |at| [open(stream(at), POST), reset(stream(at), CANCEL)].concat()),
        broken("made-you-reset: window of 0", |at| {
            [open(stream(at), POST), window_update(stream(at), 0)].concat()
        }),
        flood("made-you-reset: window too large", |at| {
            [open(stream(at), POST), window_update(stream(at), MOST)].concat()
        }),
        flood("made-you-reset: DATA beyond its length", |at| {
            [open(stream(at), &post_with(&[("content-length", "1")])), last_data(stream(at), &[b'x'; 100])]
                .concat()
        }),
        broken("made-you-reset: trailers without end", |at| {
            [open(stream(at), POST), open(stream(at), &field("x", "y"))].concat()
        }),
        flood("made-you-reset: HEADERS on itself", |at| {
            let priority = [&stream(at).to_be_bytes()[..], &[1]].concat();
            frame(HEADERS, END_HEADERS | END_STREAM | WITH_PRIORITY, stream(at), &[&priority, GET].concat())
        }),
        broken("made-you-reset: PRIORITY of a wrong length", |at| {
            [open(stream(at), POST), frame(PRIORITY, 0, stream(at), &[0; 4])].concat()
        }),
        flood("made-you-reset: PRIORITY on itself", |at| priority(stream(at), stream(at), 1)),
        broken("made-you-reset: DATA on a half-closed stream", |at| {
            [headers(stream(at), GET), last_data(stream(at), b"x")].concat()
        }),
        broken("made-you-reset: HEADERS on a half-closed stream", |at| {
            [headers(stream(at), GET), headers(stream(at), GET)].concat()
        }),
        after("CONTINUATION without end", frame(HEADERS, END_STREAM, 1, GET), |_| {
            continuation(1, 0, &field("x", "y"))
        }),
        after("CONTINUATION, empty", frame(HEADERS, END_STREAM, 1, GET), |_| continuation(1, 0, &[])),
        flood("PING", |_| ping(&[0; 8])),
        flood("PING, answered", |_| frame(PING, ACK, 0, &[0; 8])),
        flood("SETTINGS", |_| settings(&[])),
        flood("SETTINGS of 2,700 values", |_| settings(&[(0xff, 1); 2700])),
        after(
            "SETTINGS that move 100 windows",
            (0..100).flat_map(|at| open(stream(at), POST)).collect(),
            |at| settings(&[(INITIAL_WINDOW, at % 2 * 1000)]),
        ),
        broken("SETTINGS, acknowledged", |_| frame(SETTINGS, ACK, 0, &[])),
        flood("PRIORITY", |_| priority(1, 0, 1)),
        after("DATA, empty", opened.clone(), |_| data(1, &[])),
        after("DATA, all padding", opened, |_| frame(DATA, PADDED, 1, &[&[255][..], &[0; 255]].concat())),
        Flood {
            asks_much: true,
            ..after("windows of nothing", settings(&[(INITIAL_WINDOW, 0)]), |at| {
                headers(stream(at), &get_large())
            })
        },
        after(
            "windows of a byte",
            [settings(&[(INITIAL_WINDOW, 0)]), headers(1, &get_large())].concat(),
            |_| window_update(1, 1),
        ),
        flood("WINDOW_UPDATE", |_| window_update(0, 1)),
        Flood { ends: &[FLOW_CONTROL_ERROR], ..flood("WINDOW_UPDATE too large", |_| window_update(0, MOST)) },
        broken("RST_STREAM of idle streams", |at| reset(stream(at), CANCEL)),
        flood("unknown frames", |_| frame(77, 0, 0, &[])),
        flood("unknown frames of 16 KiB", |_| frame(77, 0, 0, &[0; 16_384])),
        after("header bomb: a large field 8,000 times", headers(1, &large_field()), |at| {
            headers(stream(at + 1), &[GET, &[0xbe; 8000]].concat())
        }),
        after("header bomb: a small field 1,500 times", headers(1, &small_field()), |at| {
            headers(stream(at + 1), &[GET, &[0xbe; 1500]].concat())
        }),
        flood("changes of the table's size", |at| headers(stream(at), &[&[0x20; 16_000], GET].concat())),
        after("GOAWAY", open(1, POST), |_| goaway(0, 0)),
        flood("GOAWAY without a request", |_| goaway(0, 0)),
    ]
}

/// As much effort of a client's for nothing bad: an upload in as many pieces, behind which it says goodbye.
#[allow(dead_code, reason = "the tests have no use for it")]
pub fn harmless() -> Flood {
    let length = (WRITES * 100).to_string();
    after("harmless", open(1, &post_with(&[("content-length", length.as_str())])), |at| {
        if at + 1 < WRITES {
            data(1, &[b'x'; 100])
        } else {
            [last_data(1, &[b'x'; 100]), goaway(0, 0)].concat()
        }
    })
}

/// A request that leaves a field of nearly 4 KiB in the table.
fn large_field() -> Vec<u8> {
    [GET.to_vec(), kept_field("x", &"y".repeat(4000))].concat()
}

/// The same with one as small as can be.
fn small_field() -> Vec<u8> {
    [GET.to_vec(), kept_field("x", "")].concat()
}
