//! What every server must take: the cases of h2spec's first part, which are no errors.

use super::*;

#[tokio::test]
async fn what_a_server_must_take() {
    run(cases).await;
}

pub(super) fn cases() -> Vec<Case> {
    let ping_word = *b"how goes";
    let quiet = |bytes: Vec<u8>| [bytes, ping(&ping_word)].concat();
    let pong = Expect::Pong(ping_word);
    let no_window = settings(&[(INITIAL_WINDOW, 0)]);
    let some = |block: &[u8]| headers(1, &[GET, block].concat());
    let huffman_agent = b"\x87\xb5\x05\xb1\x61\xcc\x5a\x93";
    let huffman_test = b"\x85\xf2\xb2\x4a\x84\xff";
    let huffman_value = b"\x84\x9c\x48\xac\xa4";
    let literal = |first: &[u8], name: &[u8], value: &[u8]| some(&[first, name, value].concat());
    let (agent, test, value) = (text("user-agent"), text("x-test"), text("h2spec"));
    vec![
        from_the_start(
            "generic/1/1",
            "a preface is answered with SETTINGS",
            &[PREFACE.to_vec(), settings(&[(INITIAL_WINDOW, 65_535)])].concat(),
            Expect::Settings,
        ),
        case("generic/2/1", "PRIORITY on an idle stream", quiet(priority(1, 0, 255)), pong.clone()),
        case(
            "generic/2/2",
            "WINDOW_UPDATE on a half-closed stream",
            [no_window.clone(), headers(1, GET), window_update(1, 1)].concat(),
            Expect::Data(1, Some(1)),
        ),
        case(
            "generic/2/3",
            "PRIORITY on a half-closed stream",
            [no_window, headers(1, GET), priority(1, 0, 255), window_update(1, 1)].concat(),
            Expect::Data(1, Some(1)),
        ),
        case(
            "generic/2/4",
            "RST_STREAM on a half-closed stream",
            quiet([headers(1, GET), reset(1, CANCEL)].concat()),
            pong.clone(),
        ),
        steps(
            "generic/2/5",
            "PRIORITY on a closed stream",
            vec![
                Step::Send(headers(1, GET)),
                Step::Expect(Expect::Answered(1)),
                Step::Send(quiet(priority(1, 0, 255))),
                Step::Expect(pong.clone()),
            ],
        ),
        case("generic/3.1/1", "DATA", [open(1, POST), last_data(1, b"test")].concat(), Expect::Head(1)),
        case(
            "generic/3.1/2",
            "DATA in several frames",
            [open(1, POST), data(1, b"test"), last_data(1, b"test")].concat(),
            Expect::Head(1),
        ),
        case(
            "generic/3.1/3",
            "DATA with padding",
            [open(1, POST), frame(DATA, END_STREAM | PADDED, 1, b"\x05test\0\0\0\0\0")].concat(),
            Expect::Head(1),
        ),
        case("generic/3.2/1", "HEADERS", headers(1, GET), Expect::Head(1)),
        case(
            "generic/3.2/2",
            "HEADERS with padding",
            frame(
                HEADERS,
                END_HEADERS | END_STREAM | PADDED,
                1,
                &[b"\x08".as_slice(), GET, &[0; 8]].concat(),
            ),
            Expect::Head(1),
        ),
        case(
            "generic/3.2/3",
            "HEADERS with a priority",
            frame(
                HEADERS,
                END_HEADERS | END_STREAM | WITH_PRIORITY,
                1,
                &[b"\0\0\0\0\xff".as_slice(), GET].concat(),
            ),
            Expect::Head(1),
        ),
        case(
            "generic/3.3/1",
            "the priority 1",
            [priority(1, 0, 0), headers(1, GET)].concat(),
            Expect::Head(1),
        ),
        case(
            "generic/3.3/2",
            "the priority 256",
            [priority(1, 0, 255), headers(1, GET)].concat(),
            Expect::Head(1),
        ),
        case(
            "generic/3.3/3",
            "a priority that depends on a stream",
            [priority(3, 1, 0), headers(1, GET)].concat(),
            Expect::Head(1),
        ),
        case(
            "generic/3.3/4",
            "an exclusive priority",
            [priority(1, 0x8000_0000, 0), headers(1, GET)].concat(),
            Expect::Head(1),
        ),
        case(
            "generic/3.3/5",
            "PRIORITY of an idle stream, then HEADERS of a lower one",
            [priority(3, 0, 255), headers(1, GET)].concat(),
            Expect::Head(1),
        ),
        case("generic/3.4/1", "RST_STREAM", quiet([open(1, GET), reset(1, CANCEL)].concat()), pong.clone()),
        case(
            "generic/3.5/1",
            "SETTINGS of every kind",
            settings(&[(1, 4096), (2, 1), (3, 100), (4, 65_535), (5, 16_384), (6, 100)]),
            Expect::SettingsAck,
        ),
        case("generic/3.7/1", "PING", ping(b"h2spec\0\0"), Expect::Pong(*b"h2spec\0\0")),
        steps(
            "generic/3.8/1",
            "GOAWAY",
            vec![Step::Send(quiet(goaway(0, 0))), Step::Expect(pong.clone()), Step::Expect(Expect::Goodbye)],
        ),
        case("generic/3.9/1", "WINDOW_UPDATE on the connection", quiet(window_update(0, 1)), pong),
        case(
            "generic/3.9/2",
            "WINDOW_UPDATE on a stream",
            [headers(1, GET), window_update(1, 1)].concat(),
            Expect::Head(1),
        ),
        case(
            "generic/3.10/1",
            "a header block in two pieces",
            [frame(HEADERS, END_STREAM, 1, &GET[..5]), continuation(1, END_HEADERS, &GET[5..])].concat(),
            Expect::Head(1),
        ),
        case(
            "generic/3.10/2",
            "a header block in three pieces",
            [
                frame(HEADERS, END_STREAM, 1, &GET[..5]),
                continuation(1, 0, &GET[5..10]),
                continuation(1, END_HEADERS, &GET[10..]),
            ]
            .concat(),
            Expect::Head(1),
        ),
        case("generic/4/1", "GET", headers(1, GET), Expect::Head(1)),
        case("generic/4/2", "HEAD", headers(1, &head_request()), Expect::Head(1)),
        case("generic/4/3", "POST", [open(1, POST), last_data(1, b"test")].concat(), Expect::Head(1)),
        case(
            "generic/4/4",
            "POST with trailers",
            [
                open(1, &post_with(&[("trailer", "x-test")])),
                data(1, b"test"),
                headers(1, &block(&[("x-test", "ok")])),
            ]
            .concat(),
            Expect::Head(1),
        ),
        case("generic/5/1", "an indexed field", some(&indexed(58)), Expect::Head(1)),
        case(
            "generic/5/2",
            "a kept literal, name from the table",
            literal(b"\x7a", &value, b""),
            Expect::Head(1),
        ),
        case(
            "generic/5/3",
            "a kept literal, Huffman",
            literal(b"\x40", huffman_agent, huffman_value),
            Expect::Head(1),
        ),
        case("generic/5/4", "a kept literal, new name", literal(b"\x40", &test, &value), Expect::Head(1)),
        case(
            "generic/5/5",
            "a kept literal, new name, Huffman",
            literal(b"\x40", huffman_test, huffman_value),
            Expect::Head(1),
        ),
        case(
            "generic/5/6",
            "a literal, name from the table",
            literal(b"\x0f\x2b", &value, b""),
            Expect::Head(1),
        ),
        case(
            "generic/5/7",
            "a literal, Huffman",
            literal(b"\0", huffman_agent, huffman_value),
            Expect::Head(1),
        ),
        case("generic/5/8", "a literal, new name", literal(b"\0", &agent, &value), Expect::Head(1)),
        case(
            "generic/5/9",
            "a literal, new name, Huffman",
            literal(b"\0", huffman_test, huffman_value),
            Expect::Head(1),
        ),
        case(
            "generic/5/10",
            "a literal never to be kept, name from the table",
            literal(b"\x1f\x2b", &value, b""),
            Expect::Head(1),
        ),
        case(
            "generic/5/11",
            "a literal never to be kept, Huffman",
            literal(b"\x10", huffman_agent, huffman_value),
            Expect::Head(1),
        ),
        case(
            "generic/5/12",
            "a literal never to be kept, new name",
            literal(b"\x10", &test, &value),
            Expect::Head(1),
        ),
        case(
            "generic/5/13",
            "a literal never to be kept, new name, Huffman",
            literal(b"\x10", huffman_test, huffman_value),
            Expect::Head(1),
        ),
        case(
            "generic/5/14",
            "a dynamic table of another size",
            headers(1, &[table_size(128), GET.to_vec()].concat()),
            Expect::Head(1),
        ),
        case(
            "generic/5/15",
            "a dynamic table of two other sizes",
            headers(1, &[table_size(128), table_size(4096), GET.to_vec()].concat()),
            Expect::Head(1),
        ),
    ]
}

fn head_request() -> Vec<u8> {
    [field(":method", "HEAD"), GET[1..].to_vec()].concat()
}
