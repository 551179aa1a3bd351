//! Section 6: each kind of frame.

use super::*;

#[tokio::test]
async fn kinds_of_frames() {
    run(cases).await;
}

const MOST: u32 = 0x7fff_ffff;

pub(super) fn cases() -> Vec<Case> {
    let broken = Expect::ConnectionError(&[PROTOCOL_ERROR]);
    let wrong_size = Expect::ConnectionError(&[FRAME_SIZE_ERROR]);
    let closed = Expect::StreamError(1, &[STREAM_CLOSED]);
    let more = long_fields(1);
    let unfinished = |flags: u8| frame(HEADERS, flags, 1, GET);
    let mut cases = vec![
        case("http2/6.1/1", "DATA on stream 0", last_data(0, b"test"), broken.clone()),
        case(
            "http2/6.1/2",
            "DATA on a half-closed stream",
            [headers(1, POST), last_data(1, b"test")].concat(),
            closed,
        ),
        case(
            "http2/6.1/3",
            "DATA with more padding than there is",
            [
                open(1, &post_with(&[("content-length", "4")])),
                frame(DATA, END_STREAM | PADDED, 1, b"\x06Test"),
            ]
            .concat(),
            broken.clone(),
        ),
        case(
            "http2/6.2/1",
            "HEADERS without end, then PRIORITY",
            [unfinished(0), priority(1, 0, 255), continuation(1, END_HEADERS, &more)].concat(),
            broken.clone(),
        ),
        case(
            "http2/6.2/2",
            "HEADERS without end, then HEADERS of another stream",
            [unfinished(0), headers(3, GET), continuation(1, END_HEADERS, &more)].concat(),
            broken.clone(),
        ),
        case("http2/6.2/3", "HEADERS on stream 0", headers(0, GET), broken.clone()),
        case(
            "http2/6.2/4",
            "HEADERS with more padding than there is",
            frame(
                HEADERS,
                END_HEADERS | END_STREAM | PADDED,
                1,
                &[&[u8::try_from(GET.len() + 2).unwrap()], GET].concat(),
            ),
            broken.clone(),
        ),
        case("http2/6.3/1", "PRIORITY on stream 0", priority(0, 0, 255), broken.clone()),
        case(
            "http2/6.3/2",
            "PRIORITY of four bytes",
            [headers(1, GET), frame(PRIORITY, 0, 1, b"\x80\0\0\x01")].concat(),
            Expect::StreamError(1, &[FRAME_SIZE_ERROR]),
        ),
        case("http2/6.4/1", "RST_STREAM on stream 0", reset(0, CANCEL), broken.clone()),
        case("http2/6.4/2", "RST_STREAM on an idle stream", reset(1, CANCEL), broken.clone()),
        case(
            "http2/6.4/3",
            "RST_STREAM of three bytes",
            [headers(1, GET), frame(RST_STREAM, 0, 1, &[0; 3])].concat(),
            wrong_size.clone(),
        ),
        case(
            "http2/6.5/1",
            "an acknowledgement with a payload",
            frame(SETTINGS, ACK, 0, &[0]),
            wrong_size.clone(),
        ),
        case(
            "http2/6.5/2",
            "SETTINGS on a stream",
            frame(SETTINGS, 0, 1, b"\0\x03\0\0\0\x64"),
            broken.clone(),
        ),
        case(
            "http2/6.5/3",
            "SETTINGS of three bytes",
            frame(SETTINGS, 0, 0, b"\0\x03\0"),
            wrong_size.clone(),
        ),
        case("http2/6.5.2/1", "ENABLE_PUSH of 2", settings(&[(ENABLE_PUSH, 2)]), broken.clone()),
        case(
            "http2/6.5.2/2",
            "INITIAL_WINDOW_SIZE of too much",
            settings(&[(INITIAL_WINDOW, MOST + 1)]),
            Expect::ConnectionError(&[FLOW_CONTROL_ERROR]),
        ),
        case(
            "http2/6.5.2/3",
            "MAX_FRAME_SIZE of too little",
            settings(&[(MAX_FRAME, 16_383)]),
            broken.clone(),
        ),
        case(
            "http2/6.5.2/4",
            "MAX_FRAME_SIZE of too much",
            settings(&[(MAX_FRAME, 1 << 24)]),
            broken.clone(),
        ),
        case(
            "http2/6.5.2/5",
            "a setting that nobody knows",
            [settings(&[(0xff, 1)]), ping(b"still on")].concat(),
            Expect::Pong(*b"still on"),
        ),
        steps(
            "http2/6.5.3/1",
            "a setting given twice: the last holds",
            vec![
                Step::Send(settings(&[(INITIAL_WINDOW, 100), (INITIAL_WINDOW, 1)])),
                Step::Expect(Expect::SettingsAck),
                Step::Send(headers(1, GET)),
                Step::Expect(Expect::Data(1, Some(1))),
            ],
        ),
        case(
            "http2/6.5.3/2",
            "SETTINGS are acknowledged",
            settings(&[(ENABLE_PUSH, 0)]),
            Expect::SettingsAck,
        ),
        case("http2/6.7/1", "PING is answered", ping(b"h2spec\0\0"), Expect::Pong(*b"h2spec\0\0")),
        case(
            "http2/6.7/2",
            "an answered PING is not",
            [frame(PING, ACK, 0, b"invalid\0"), ping(b"h2spec\0\0")].concat(),
            Expect::Pong(*b"h2spec\0\0"),
        ),
        case("http2/6.7/3", "PING on a stream", frame(PING, 0, 1, &[0; 8]), broken.clone()),
        case("http2/6.7/4", "PING of six bytes", frame(PING, 0, 0, &[0; 6]), wrong_size.clone()),
        case("http2/6.8/1", "GOAWAY on a stream", frame(GOAWAY, 0, 1, &[0; 8]), broken),
    ];
    cases.extend(windows());
    cases.extend(continuations());
    cases
}

fn windows() -> Vec<Case> {
    let broken = Expect::ConnectionError(&[PROTOCOL_ERROR]);
    let too_much = Expect::ConnectionError(&[FLOW_CONTROL_ERROR]);
    let window = |size: u32| Step::Send(settings(&[(INITIAL_WINDOW, size)]));
    let acknowledged = || Step::Expect(Expect::SettingsAck);
    vec![
        case("http2/6.9/1", "WINDOW_UPDATE of 0 on the connection", window_update(0, 0), broken),
        case(
            "http2/6.9/2",
            "WINDOW_UPDATE of 0 on a stream",
            [open(1, GET), window_update(1, 0)].concat(),
            Expect::StreamError(1, &[PROTOCOL_ERROR]),
        ),
        case(
            "http2/6.9/3",
            "WINDOW_UPDATE of three bytes",
            frame(WINDOW_UPDATE, 0, 0, b"\0\0\x01"),
            Expect::ConnectionError(&[FRAME_SIZE_ERROR]),
        ),
        steps(
            "http2/6.9.1/1",
            "a window of one byte is kept",
            vec![
                window(1),
                acknowledged(),
                Step::Send(headers(1, GET)),
                Step::Expect(Expect::Data(1, Some(1))),
            ],
        ),
        case(
            "http2/6.9.1/2",
            "the connection's window beyond its most",
            [window_update(0, MOST), window_update(0, MOST)].concat(),
            too_much,
        ),
        case(
            "http2/6.9.1/3",
            "a stream's window beyond its most",
            [open(1, GET), window_update(1, MOST), window_update(1, MOST)].concat(),
            Expect::Reset(1, FLOW_CONTROL_ERROR),
        ),
        steps(
            "http2/6.9.2/1",
            "a changed initial window changes open streams",
            vec![
                window(0),
                acknowledged(),
                Step::Send(headers(1, GET)),
                window(1),
                Step::Expect(Expect::Data(1, Some(1))),
            ],
        ),
        steps(
            "http2/6.9.2/2",
            "a window may be below 0",
            vec![
                window(3),
                acknowledged(),
                Step::Send(headers(1, GET)),
                Step::Expect(Expect::Data(1, Some(3))),
                window(2),
                acknowledged(),
                Step::Send(window_update(1, 2)),
                Step::Expect(Expect::Data(1, Some(1))),
            ],
        ),
        case(
            "http2/6.9.2/3",
            "an initial window beyond its most",
            settings(&[(INITIAL_WINDOW, MOST + 1)]),
            Expect::ConnectionError(&[FLOW_CONTROL_ERROR]),
        ),
    ]
}

fn continuations() -> Vec<Case> {
    let broken = Expect::ConnectionError(&[PROTOCOL_ERROR]);
    let more = long_fields(1);
    let piece = |stream: u32| continuation(stream, 0, &more);
    let last = |stream: u32| continuation(stream, END_HEADERS, &more);
    vec![
        case(
            "http2/6.10/1",
            "several of them",
            [frame(HEADERS, END_STREAM, 1, GET), piece(1), last(1)].concat(),
            Expect::Head(1),
        ),
        case(
            "http2/6.10/2",
            "one without end, then DATA",
            [frame(HEADERS, 0, 1, POST), piece(1), last_data(1, b"test")].concat(),
            broken.clone(),
        ),
        case(
            "http2/6.10/3",
            "on stream 0",
            [frame(HEADERS, END_STREAM, 1, GET), last(0)].concat(),
            broken.clone(),
        ),
        case("http2/6.10/4", "after HEADERS that end", [headers(1, GET), last(1)].concat(), broken.clone()),
        case(
            "http2/6.10/5",
            "after one that ends",
            [frame(HEADERS, END_STREAM, 1, GET), last(1), last(1)].concat(),
            broken.clone(),
        ),
        case(
            "http2/6.10/6",
            "after DATA",
            [frame(HEADERS, 0, 1, POST), last_data(1, b"test"), piece(1), last(0)].concat(),
            broken,
        ),
    ]
}
