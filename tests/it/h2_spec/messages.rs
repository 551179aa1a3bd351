//! Sections 7 and 8: error codes, and requests as HTTP has them.

use super::*;

#[tokio::test]
async fn requests() {
    run(cases).await;
}

pub(super) fn cases() -> Vec<Case> {
    let malformed = Expect::StreamError(1, &[PROTOCOL_ERROR]);
    let bad = |name, what, block: &[u8]| case(name, what, headers(1, block), malformed.clone());
    // Its parts: GET, http, "/" and the authority.
    let (method, scheme, path, host) = (&GET[..1], &GET[1..2], &GET[2..3], &GET[3..]);
    let length = |length: &'static str| open(1, &post_with(&[("content-length", length)]));
    vec![
        steps(
            "http2/7/1",
            "GOAWAY with an unknown code",
            vec![
                Step::Send([goaway(0, 0xff), ping(b"h2spec\0\0")].concat()),
                Step::Expect(Expect::Pong(*b"h2spec\0\0")),
                Step::Expect(Expect::Goodbye),
            ],
        ),
        case(
            "http2/7/2",
            "RST_STREAM with an unknown code",
            [open(1, POST), reset(1, 0xff), ping(b"h2spec\0\0")].concat(),
            Expect::Pong(*b"h2spec\0\0"),
        ),
        case(
            "http2/8.1/1",
            "trailers that do not end the stream",
            [open(1, POST), data(1, b"test"), open(1, &block(&[("x-test", "ok")]))].concat(),
            malformed.clone(),
        ),
        bad("http2/8.1.2/1", "a name in upper case", &get_with(&[("X-TEST", "ok")])),
        bad("http2/8.1.2.1/1", "an unknown pseudo-header", &get_with(&[(":test", "ok")])),
        bad("http2/8.1.2.1/2", "the pseudo-header of answers", &get_with(&[(":status", "200")])),
        case(
            "http2/8.1.2.1/3",
            "a pseudo-header in trailers",
            [open(1, POST), data(1, b"test"), open(1, &block(&[(":method", "POST")]))].concat(),
            malformed.clone(),
        ),
        bad(
            "http2/8.1.2.1/4",
            "pseudo-headers behind others",
            &[field("x-test", "ok"), GET.to_vec()].concat(),
        ),
        bad("http2/8.1.2.2/1", "a header of the connection", &get_with(&[("connection", "keep-alive")])),
        bad(
            "http2/8.1.2.2/2",
            "te with more than trailers",
            &get_with(&[("trailers", "test"), ("te", "trailers, deflate")]),
        ),
        bad("http2/8.1.2.3/1", "an empty path", &[method, scheme, &field(":path", ""), host].concat()),
        bad("http2/8.1.2.3/2", "no method", &[scheme, path, host].concat()),
        bad("http2/8.1.2.3/3", "no scheme", &[method, path, host].concat()),
        bad("http2/8.1.2.3/4", "no path", &[method, scheme, host].concat()),
        bad("http2/8.1.2.3/5", "two methods", &[GET, method].concat()),
        bad("http2/8.1.2.3/6", "two schemes", &[GET, scheme].concat()),
        bad("http2/8.1.2.3/7", "two paths", &[GET, path].concat()),
        case(
            "http2/8.1.2.6/1",
            "a body longer than its length",
            [length("1"), last_data(1, b"test")].concat(),
            malformed.clone(),
        ),
        case(
            "http2/8.1.2.6/2",
            "a body in pieces longer than its length",
            [length("1"), data(1, b"test"), last_data(1, b"test")].concat(),
            malformed.clone(),
        ),
        case(
            "http2/8.2/1",
            "a client's PUSH_PROMISE",
            [open(1, GET), frame(PUSH_PROMISE, END_HEADERS, 1, &[b"\0\0\0\x03".as_slice(), GET].concat())]
                .concat(),
            Expect::ConnectionError(&[PROTOCOL_ERROR]),
        ),
    ]
}
