//! Section 5: the states of streams, their numbers, errors, extensions.

use super::*;

#[tokio::test]
async fn states_of_streams() {
    run(cases).await;
}

/// Streams that the server offers at once.
const OFFERED: u32 = 128;

pub(super) fn cases() -> Vec<Case> {
    let broken = Expect::ConnectionError(&[PROTOCOL_ERROR]);
    let closed = Expect::StreamError(1, &[STREAM_CLOSED]);
    let after_answer = |name, what, bytes: Vec<u8>, expect| {
        let first = [Step::Send(headers(1, GET)), Step::Expect(Expect::Answered(1))];
        steps(name, what, first.into_iter().chain([Step::Send(bytes), Step::Expect(expect)]).collect())
    };
    let after_reset = |name, what, bytes: Vec<u8>, expect| {
        case(name, what, [open(1, GET), reset(1, CANCEL), bytes].concat(), expect)
    };
    let misplaced_ping = frame(PING, 0, 3, &[0; 8]);
    let unknown = frame(0x16, 0, 0, &[0; 8]);
    vec![
        case("http2/5.1/1", "idle: DATA", last_data(1, b"test"), broken.clone()),
        case("http2/5.1/2", "idle: RST_STREAM", reset(1, CANCEL), broken.clone()),
        case("http2/5.1/3", "idle: WINDOW_UPDATE", window_update(1, 100), broken.clone()),
        case("http2/5.1/4", "idle: CONTINUATION", continuation(1, END_HEADERS, GET), broken.clone()),
        case(
            "http2/5.1/5",
            "half-closed: DATA",
            [headers(1, GET), last_data(1, b"test")].concat(),
            closed.clone(),
        ),
        case(
            "http2/5.1/6",
            "half-closed: HEADERS",
            [headers(1, GET), headers(1, GET)].concat(),
            closed.clone(),
        ),
        case(
            "http2/5.1/7",
            "half-closed: CONTINUATION",
            [headers(1, GET), continuation(1, END_HEADERS, GET)].concat(),
            broken.clone(),
        ),
        after_reset("http2/5.1/8", "reset: DATA", last_data(1, b"test"), closed.clone()),
        after_reset("http2/5.1/9", "reset: HEADERS", headers(1, GET), closed.clone()),
        after_reset(
            "http2/5.1/10",
            "reset: CONTINUATION",
            continuation(1, END_HEADERS, &long_fields(1)),
            broken.clone(),
        ),
        after_answer("http2/5.1/11", "closed: DATA", last_data(1, b"test"), closed),
        after_answer(
            "http2/5.1/12",
            "closed: HEADERS",
            headers(1, GET),
            Expect::ConnectionError(&[STREAM_CLOSED]),
        ),
        after_answer(
            "http2/5.1/13",
            "closed: CONTINUATION",
            continuation(1, END_HEADERS, &long_fields(1)),
            broken.clone(),
        ),
        case("http2/5.1.1/1", "a stream of an even number", headers(2, GET), broken.clone()),
        case(
            "http2/5.1.1/2",
            "a stream of a lower number than the last",
            [headers(5, GET), headers(3, GET)].concat(),
            broken.clone(),
        ),
        case(
            "http2/5.1.2/1",
            "a stream more than is offered",
            (0..=OFFERED).fold(settings(&[(INITIAL_WINDOW, 0)]), |bytes, at| {
                [bytes, headers(2 * at + 1, GET)].concat()
            }),
            Expect::StreamError(2 * OFFERED + 1, &[PROTOCOL_ERROR, REFUSED_STREAM]),
        ),
        case(
            "http2/5.3.1/1",
            "HEADERS of a stream that depends on itself",
            frame(
                HEADERS,
                END_HEADERS | END_STREAM | WITH_PRIORITY,
                1,
                &[b"\0\0\0\x01\xff".as_slice(), GET].concat(),
            ),
            Expect::StreamError(1, &[PROTOCOL_ERROR]),
        ),
        case(
            "http2/5.3.1/2",
            "PRIORITY of a stream that depends on itself",
            priority(1, 1, 255),
            Expect::StreamError(1, &[PROTOCOL_ERROR]),
        ),
        case("http2/5.4.1/1", "an error closes the connection", misplaced_ping.clone(), Expect::Closed),
        case("http2/5.4.1/2", "GOAWAY comes first", misplaced_ping, broken.clone()),
        case(
            "http2/5.5/1",
            "a frame of an extension",
            [unknown.clone(), ping(b"still on")].concat(),
            Expect::Pong(*b"still on"),
        ),
        case(
            "http2/5.5/2",
            "a frame of an extension inside of a header block",
            [frame(HEADERS, END_STREAM, 1, GET), unknown].concat(),
            broken,
        ),
    ]
}
