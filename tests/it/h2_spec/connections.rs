//! Sections 3 and 4: prefaces, frames as such, and header blocks as such.

use super::*;

#[tokio::test]
async fn prefaces_and_frames() {
    run(cases).await;
}

pub(super) fn cases() -> Vec<Case> {
    let unknown = frame(0x16, 0, 0, &[0; 8]);
    let broken = Expect::ConnectionError(&[PROTOCOL_ERROR]);
    vec![
        from_the_start(
            "http2/3.5/1",
            "the server's first frame is SETTINGS",
            &[PREFACE.to_vec(), settings(&[(INITIAL_WINDOW, 65_535)])].concat(),
            Expect::Settings,
        ),
        from_the_start(
            "http2/3.5/2",
            "something else than a preface",
            b"INVALID CONNECTION PREFACE\r\n\r\n",
            Expect::Closed,
        ),
        case(
            "http2/4.1/1",
            "a frame of an unknown type",
            [unknown, ping(b"still on")].concat(),
            Expect::Pong(*b"still on"),
        ),
        case("http2/4.1/2", "a flag without a meaning", frame(PING, 0x16, 0, &[0; 8]), Expect::Pong([0; 8])),
        case(
            "http2/4.1/3",
            "the reserved bit",
            frame(PING, 0x16, 0x8000_0000, &[0; 8]),
            Expect::Pong([0; 8]),
        ),
        case(
            "http2/4.2/1",
            "DATA of 16,384 bytes",
            [open(1, POST), last_data(1, &[b'x'; 16_384])].concat(),
            Expect::Head(1),
        ),
        case(
            "http2/4.2/2",
            "DATA of a byte more",
            [open(1, POST), last_data(1, &[b'x'; 16_385])].concat(),
            Expect::StreamError(1, &[FRAME_SIZE_ERROR]),
        ),
        case(
            "http2/4.2/3",
            "HEADERS of more",
            headers(1, &[GET, &long_fields(5)].concat()),
            Expect::ConnectionError(&[FRAME_SIZE_ERROR]),
        ),
        case(
            "http2/4.3/1",
            "a header block that cannot be decoded",
            headers(1, b"\x40"),
            Expect::ConnectionError(&[COMPRESSION_ERROR]),
        ),
        case(
            "http2/4.3/2",
            "PRIORITY inside of a header block",
            [frame(HEADERS, 0, 1, GET), priority(1, 0, 255), continuation(1, END_HEADERS, &long_fields(1))]
                .concat(),
            broken.clone(),
        ),
        case(
            "http2/4.3/3",
            "HEADERS of another stream inside of a header block",
            [frame(HEADERS, 0, 1, GET), headers(3, GET), continuation(1, END_HEADERS, &long_fields(1))]
                .concat(),
            broken,
        ),
    ]
}
