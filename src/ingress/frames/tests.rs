use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::base::clock;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A frame as it is sent.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, length @ ..] = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length, [kind, flags].as_slice(), &stream.to_be_bytes(), payload].concat()
}

fn headers(stream: u32) -> Vec<u8> {
    frame(1, END_HEADERS | END_STREAM, stream, b"\x82")
}

/// A field that trailers may have.
const TRAILER: &[u8] = b"\0\x01x\x01y";

fn trailers(stream: u32) -> Vec<u8> {
    frame(1, END_HEADERS | END_STREAM, stream, TRAILER)
}

fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(3, 0, stream, &code.to_be_bytes())
}

fn goaway(last: u32, code: u32) -> Vec<u8> {
    frame(7, 0, 0, &[last.to_be_bytes(), code.to_be_bytes()].concat())
}

/// A watch whose client has sent its preface.
fn watch() -> Watch {
    let mut watch = Watch::new(clock::now());
    watch.received(PREFACE, clock::now);
    watch
}

/// A moment that never passes: nothing is paid back by time.
fn stopped() -> impl Fn() -> Instant + Copy {
    let now = clock::now();
    move || now
}

fn ended(watch: &mut Watch) -> Vec<Ended> {
    std::iter::from_fn(|| watch.glance().ended).collect()
}

/// The three ways a stream can go: handed over, answered by the library, reset by it.
#[test]
fn what_the_library_ends_by_itself_is_told_once() {
    let mut watch = watch();
    watch.received(&[headers(1), headers(3), headers(5)].concat(), clock::now);
    assert_eq!(watch.undecided(), 3);
    watch.handed_over(3);
    watch.sent(&[frame(1, END_HEADERS | END_STREAM, 5, b"x"), reset(5, 1), reset(1, 1)].concat(), clock::now);
    watch.sent(&[frame(1, END_HEADERS, 3, b"x"), reset(3, 2)].concat(), clock::now);
    let expected = [Ended { stream: 5, by: EndedBy::Answer }, Ended { stream: 1, by: EndedBy::Reset(1) }];
    assert_eq!(ended(&mut watch), expected);
    assert_eq!(watch.undecided(), 0);
}

/// A stream that was reset in the same turn as it was read is still told by whom it is handed to.
#[test]
fn what_is_handed_over_late_is_not_told_twice() {
    let mut watch = watch();
    watch.received(&headers(1), clock::now);
    watch.sent(&reset(1, 1), clock::now);
    watch.handed_over(1);
    assert_eq!(ended(&mut watch), []);
}

#[test]
fn trailers_open_nothing() {
    let mut watch = watch();
    watch.received(&[frame(1, END_HEADERS, 1, b"\x82"), trailers(1)].concat(), clock::now);
    assert_eq!(watch.undecided(), 1);
}

/// After a goodbye the client sends what was not looked at to somebody else: it is not refused.
#[test]
fn streams_after_a_goodbye_are_not_refused() {
    let mut watch = watch();
    watch.received(&[headers(1), headers(3)].concat(), clock::now);
    watch.sent(&goaway(0x7fff_ffff, 0), clock::now);
    assert_eq!(watch.undecided(), 2);
    watch.sent(&goaway(1, 0), clock::now);
    watch.received(&headers(5), clock::now);
    assert_eq!(watch.undecided(), 1);
    watch.sent(&goaway(1, 9), clock::now);
    assert_eq!(watch.error, Some(9));
}

#[test]
fn a_header_block_is_open_until_its_last_piece() {
    let mut watch = watch();
    watch.received(&frame(1, 0, 1, b"\x82"), clock::now);
    assert_eq!(watch.glance().block, Some(1));
    watch.received(&frame(9, 0, 1, b""), clock::now);
    assert_eq!(watch.glance().block, Some(1));
    watch.received(&frame(9, END_HEADERS, 1, b""), clock::now);
    assert_eq!(watch.glance().block, None);
}

/// Frames of one kind without end are a flood after a thousand, and not before.
#[test]
fn floods_are_told_from_traffic() {
    let floods: [(&str, Vec<u8>); 9] = [
        ("PING", frame(6, 0, 0, &[0; 8])),
        ("SETTINGS", frame(4, 1, 0, &[])),
        ("PRIORITY", frame(2, 0, 1, &[0; 5])),
        ("WINDOW_UPDATE", frame(8, 0, 0, &[0, 0, 0, 1])),
        ("DATA", frame(0, 0, 1, &[])),
        ("DATA", frame(0, END_STREAM, 1, &[])),
        ("HEADERS", frame(1, END_HEADERS | END_STREAM, 0, b"\x82")),
        ("CONTINUATION", frame(9, 0, 1, &[])),
        ("unknown", frame(77, 0, 0, &[])),
    ];
    for (name, bytes) in floods {
        let (mut watch, now) = (watch(), stopped());
        watch.received(&bytes.repeat(1000), now);
        assert!(!watch.is_flooded(), "{name}");
        watch.received(&bytes, now);
        assert!(watch.is_flooded(), "{name}");
        assert_eq!(watch.most_received(), name);
    }
}

/// Rapid reset (CVE-2023-44487) and its reverse, where the client has us reset (CVE-2025-8671).
#[test]
fn resets_are_a_flood_whoever_sends_them() {
    let (mut watch, now) = (watch(), stopped());
    for stream in (1..1100).step_by(2) {
        watch.received(&[headers(stream), reset(stream, 8)].concat(), now);
    }
    assert!(watch.is_flooded());
    let (mut watch, now) = (self::watch(), stopped());
    for stream in (1..1100).step_by(2) {
        watch.received(&headers(stream), now);
        watch.handed_over(stream);
        watch.sent(&reset(stream, 1), now);
    }
    assert!(watch.is_flooded());
}

fn settings(values: &[(u16, u32)]) -> Vec<u8> {
    let value = |(id, value): &(u16, u32)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat();
    frame(4, 0, 0, &values.iter().flat_map(value).collect::<Vec<_>>())
}

/// Each rule has the error that RFC 9113 names for it, and what is allowed is allowed.
#[test]
fn broken_rules_have_their_own_errors() {
    let (get, post) = (headers(1), frame(1, END_HEADERS, 1, b"\x83"));
    let after = |first: &[u8], then: Vec<u8>| [first, &then].concat();
    let padded = |kind: u8, payload: &[u8]| frame(kind, END_HEADERS | 8, 1, payload);
    let (protocol, flow, closed, size) = (Some(1), Some(3), Some(5), Some(6));
    for (what, bytes, expected) in [
        ("a frame too large", frame(77, 0, 0, &[0; 16_385]), size),
        ("DATA on stream 0", frame(0, 0, 0, b"x"), protocol),
        ("DATA without its padding's length", after(&post, padded(0, b"")), size),
        ("DATA of padding", after(&post, padded(0, b"\x01\0")), None),
        ("DATA of more padding", after(&post, padded(0, b"\x02\0")), protocol),
        ("DATA of an idle stream", frame(0, 0, 1, b"x"), protocol),
        ("DATA of an even stream", frame(0, 0, 2, b"x"), protocol),
        ("DATA behind the end", after(&get, frame(0, 0, 1, b"x")), closed),
        ("DATA behind a reset", after(&after(&post, reset(1, 8)), frame(0, 0, 1, b"x")), closed),
        ("DATA of a stream passed over", after(&headers(5), frame(0, 0, 3, b"x")), closed),
        ("HEADERS on stream 0", headers(0), protocol),
        ("HEADERS of an even stream", headers(2), protocol),
        ("HEADERS of a stream passed over", after(&headers(5), headers(3)), protocol),
        ("HEADERS behind the end", after(&get, headers(1)), closed),
        ("HEADERS behind the end, later", after(&after(&get, headers(3)), headers(1)), closed),
        ("trailers", after(&post, trailers(1)), None),
        ("trailers with a pseudo-header", after(&post, headers(1)), Some(PROTOCOL_ERROR)),
        ("HEADERS of padding", padded(1, b"\x01\0"), None),
        ("HEADERS of more padding", padded(1, b"\x02\0"), protocol),
        ("HEADERS without their priority", frame(1, END_HEADERS | 0x20, 1, b"\0\0\0\0"), size),
        ("PRIORITY on stream 0", frame(2, 0, 0, &[0; 5]), protocol),
        ("PRIORITY of any other", frame(2, 0, 9, &[0; 5]), None),
        ("PRIORITY of four bytes", frame(2, 0, 1, &[0; 4]), size),
        ("RST_STREAM on stream 0", reset(0, 8), protocol),
        ("RST_STREAM of an idle stream", reset(1, 8), protocol),
        ("RST_STREAM of three bytes", after(&get, frame(3, 0, 1, &[0; 3])), size),
        ("RST_STREAM behind the end", after(&get, reset(1, 8)), None),
        ("RST_STREAM, twice", after(&after(&post, reset(1, 8)), reset(1, 8)), None),
        ("SETTINGS on a stream", frame(4, 0, 1, &[]), protocol),
        ("SETTINGS of seven bytes", frame(4, 0, 0, &[0; 7]), size),
        ("an acknowledgement of something", frame(4, 1, 0, &[0; 6]), size),
        ("an acknowledgement of nothing", frame(4, 1, 0, &[]), protocol),
        ("settings", settings(&[(2, 1), (4, 0x7fff_ffff), (5, 16_384), (8, 0), (9, 9)]), None),
        ("ENABLE_PUSH of 2", settings(&[(1, 0), (2, 2)]), protocol),
        ("ENABLE_CONNECT_PROTOCOL of 2", settings(&[(8, 2)]), protocol),
        ("a window too large", settings(&[(4, 0x8000_0000), (1, 0)]), flow),
        ("frames too small", settings(&[(5, 16_383)]), protocol),
        ("frames too large", settings(&[(5, 1 << 24)]), protocol),
        ("PUSH_PROMISE", after(&post, frame(5, END_HEADERS, 1, b"\0\0\0\x02\x82")), protocol),
        ("PING on a stream", frame(6, 0, 1, &[0; 8]), protocol),
        ("PING of seven bytes", frame(6, 0, 0, &[0; 7]), size),
        ("GOAWAY on a stream", frame(7, 0, 1, &[0; 8]), protocol),
        ("GOAWAY of seven bytes", frame(7, 0, 0, &[0; 7]), size),
        ("GOAWAY with a word", frame(7, 0, 0, &[0; 30]), None),
        ("a window by nothing", frame(8, 0, 0, &[0; 4]), protocol),
        ("a window by three bytes", frame(8, 0, 0, &[0; 3]), size),
        ("a window of an idle stream", frame(8, 0, 1, &[0, 0, 0, 1]), protocol),
        ("a window behind the end", after(&get, frame(8, 0, 1, &[0, 0, 0, 1])), None),
        ("CONTINUATION of nothing", after(&get, frame(9, END_HEADERS, 1, b"")), protocol),
        ("CONTINUATION of another", after(&frame(1, 0, 1, b"\x82"), frame(9, 0, 3, b"")), protocol),
        ("CONTINUATION", after(&frame(1, 0, 1, b"\x82"), frame(9, END_HEADERS, 1, b"")), None),
        (
            "an unknown frame inside of a block",
            after(&frame(1, 0, 1, b"\x82"), frame(77, 0, 1, b"")),
            protocol,
        ),
        (
            "PING inside of trailers",
            after(&after(&post, frame(1, 1, 1, b"")), frame(6, 0, 0, &[0; 8])),
            protocol,
        ),
    ] {
        let mut watch = watch();
        assert_eq!(watch.received(&settings(&[]), clock::now).passed, 9);
        let seen = watch.received(&bytes, clock::now);
        assert_eq!(watch.glance().broken, expected, "{what}");
        assert_eq!(seen.passed < bytes.len(), expected.is_some(), "{what}");
    }
    let mut watch = watch();
    watch.received(&frame(6, 0, 0, &[0; 8]), clock::now);
    assert_eq!(watch.glance().broken, protocol, "no SETTINGS at first");
}

/// What a client sends on a stream that we reset may have crossed our word.
#[test]
fn frames_that_cross_a_reset_are_no_errors() {
    let mut watch = watch();
    watch.received(&settings(&[]), clock::now);
    let opened = |stream| frame(1, END_HEADERS, stream, b"\x83");
    for stream in (1..2001).step_by(2) {
        watch.received(&opened(stream), clock::now);
        watch.sent(&reset(stream, 5), clock::now);
        let trailers = [frame(1, END_STREAM, stream, TRAILER), frame(9, END_HEADERS, stream, b"")].concat();
        watch.received(&[frame(0, 0, stream, b"x"), trailers].concat(), clock::now);
    }
    // Long ago: of the first of them nothing is remembered.
    watch.received(&frame(0, 0, 1, b"x"), clock::now);
    assert_eq!(watch.glance().broken, None);
}

/// The library's general error is made more precise where a block cannot be decoded, in whatever pieces that came.
#[test]
fn blocks_that_cannot_be_decoded_have_an_error_of_their_own() {
    let broken = |block: &[u8]| frame(1, END_HEADERS | END_STREAM, 1, block);
    let padded = frame(1, END_HEADERS | END_STREAM | 0x28, 1, b"\x02\0\0\0\0\x10\x82\x80\0\0");
    let pieces = [frame(1, END_STREAM, 1, b"\x82\x40"), frame(9, END_HEADERS, 1, b"")].concat();
    let first = [broken(b"\x80"), headers(3)].concat();
    for (what, bytes, expected) in [
        ("index 0", broken(b"\x82\x80"), true),
        ("a name in upper case", broken(b"\x82\0\x01X\x01a"), false),
        ("a field of a table that has none", broken(b"\x82\xbe"), true),
        ("nothing wrong", headers(1), false),
        ("behind padding and a priority", padded, true),
        ("in pieces", pieces, true),
        ("before another", first, true),
        ("no block", frame(6, 0, 0, &[0; 8]), false),
    ] {
        for cut in 0..bytes.len() {
            let mut watch = watch();
            watch.received(&settings(&[]), clock::now);
            watch.received(&bytes[..cut], clock::now);
            watch.received(&bytes[cut..], clock::now);
            // Where the block was whole before, the library took it.
            let is_known = what != "before another" || cut < 10;
            let goodbye = [frame(4, 1, 0, &[]), goaway(0, 1)].concat();
            assert_eq!(watch.is_vague(&goodbye), expected && is_known, "{what}, {cut}");
            assert!(!watch.is_vague(&goaway(0, 0)) && !watch.is_vague(&frame(0, 0, 1, b"\x01")));
            // Written byte by byte it is found, too.
            let (last, before) = goodbye.split_last().unwrap();
            before.iter().for_each(|byte| watch.sent(&[*byte], clock::now));
            assert_eq!(watch.is_vague(&[*last]), expected && is_known, "{what}, {cut}");
        }
    }
}

/// A goodbye is taken from the library, in whatever pieces it comes.
#[test]
fn goodbyes_are_hidden() {
    let frames = FrameWatch::new(clock::now());
    let mut bytes = [PREFACE.to_vec(), settings(&[]), goaway(0, 0), frame(6, 0, 0, &[0; 8])].concat();
    let came = bytes.clone();
    assert_eq!(frames.received(&mut bytes, clock::now), came.len());
    assert_eq!((frames.glance().goodbyes, frames.is_over()), (1, false));
    let differs: Vec<usize> = (0..came.len()).filter(|at| came[*at] != bytes[*at]).collect();
    assert_eq!(differs, [24 + 9 + 3]);
    assert_eq!(bytes[24 + 9 + 3], 0xf7);
    let one = goaway(0, 0);
    let hidden = [&one[..3], &[0xf7], &one[4..]].concat();
    for cut in 0..one.len() {
        let (mut head, mut rest) = (one[..cut].to_vec(), one[cut..].to_vec());
        assert_eq!(frames.received(&mut head, clock::now) + frames.received(&mut rest, clock::now), 17);
        assert_eq!([head, rest].concat(), hidden, "{cut}");
    }
    assert_eq!(frames.glance().goodbyes, 18);
}

/// What a busy client does: requests answered, downloads with their window updates, probes, uploads, cancelled requests.
#[test]
fn busy_clients_are_left_alone() {
    let (mut watch, now) = (watch(), stopped());
    for stream in (1..20_000).step_by(2) {
        watch.received(&headers(stream), now);
        watch.handed_over(stream);
        watch.sent(&frame(1, END_HEADERS, stream, b"x"), now);
        watch.sent(&frame(0, END_STREAM, stream, &[0; 100]), now);
        watch.received(&[frame(8, 0, stream, &[0, 1, 0, 0]), frame(8, 0, 0, &[0, 0, 0, 2])].concat(), now);
        watch.received(&[frame(6, 0, 0, &[0; 8]), reset(stream, 8)].concat(), now);
    }
    assert!(!watch.is_flooded());
    watch.received(&frame(0, 0, 1, b"x").repeat(10_000), now);
    assert!(!watch.is_flooded());
    // Uploads, each with an empty end.
    for stream in (20_001..40_000).step_by(2) {
        watch.received(&frame(1, END_HEADERS, stream, b"\x82"), now);
        watch.received(&[frame(0, 0, stream, &[0; 100]), frame(0, END_STREAM, stream, &[])].concat(), now);
        watch.handed_over(stream);
        watch.sent(&frame(1, END_HEADERS | END_STREAM, stream, b"x"), now);
    }
    assert!(!watch.is_flooded() && watch.bodies.is_empty());
}

/// A byte now and then pays for no flood, nor does what belongs to no body.
#[test]
fn small_pieces_pay_for_nothing() {
    let ping = frame(6, 0, 0, &[0; 8]);
    for (paying, is_flood) in
        [(frame(0, 0, 1, b"x"), true), (frame(0, 0, 3, &[0; 100]), true), (frame(0, 0, 1, &[0; 100]), false)]
    {
        let (mut watch, now) = (watch(), stopped());
        watch.received(&frame(1, END_HEADERS, 1, b"\x82"), now);
        watch.received(&[ping.clone(), paying].concat().repeat(1100), now);
        assert_eq!(watch.is_flooded(), is_flood);
    }
}

/// A window that opens byte by byte is not paid for by the bytes that come through it; one that opens by messages is.
#[test]
fn windows_of_a_byte_do_not_pay_for_themselves() {
    for (by, is_flood) in [(1, true), (13, true), (14, false), (1 << 16, false)] {
        let (mut watch, now) = (watch(), stopped());
        watch.received(&headers(1), now);
        watch.handed_over(1);
        for _ in 0..1100 {
            watch.received(&frame(8, 0, 1, &u32::to_be_bytes(by)), now);
            watch.sent(&frame(0, 0, 1, b"x"), now);
        }
        assert_eq!(watch.is_flooded(), is_flood, "{by}");
    }
}

/// DATA that is all padding is empty, whatever its length.
#[test]
fn padding_is_nothing() {
    for (payload, is_flood) in [([&[255][..], &[0; 255]].concat(), true), (vec![b'x'; 256], false)] {
        let (mut watch, now) = (watch(), stopped());
        watch.received(&frame(1, END_HEADERS, 1, b"\x82"), now);
        let flags = if is_flood { 8 } else { 0 };
        watch.received(&frame(0, flags, 1, &payload).repeat(1100), now);
        assert_eq!(watch.is_flooded(), is_flood);
    }
}

/// Settings cost more than other frames, and many at once are many.
#[test]
fn settings_are_counted_by_their_length() {
    for (bytes, fit) in [(0, 250), (60, 250), (16_380, 7)] {
        let (mut watch, now) = (watch(), stopped());
        let settings = frame(4, 0, 0, &vec![0; bytes]);
        watch.received(&settings.repeat(fit), now);
        assert!(!watch.is_flooded(), "{bytes}");
        watch.received(&settings, now);
        assert!(watch.is_flooded(), "{bytes}");
    }
}

/// Fields that no request has count, wherever reads end.
#[test]
fn crowded_blocks_are_a_flood() {
    for (fields, fit, is_flood) in
        [(500, 200, false), (1500, 10, false), (1500, 20, true), (8000, 1, false), (8000, 4, true)]
    {
        for read in [1000, 5000, 16_384] {
            let (mut watch, now) = (watch(), stopped());
            let blocks: Vec<u8> = (0..fit)
                .flat_map(|at| frame(1, END_HEADERS | END_STREAM, 2 * at + 1, &vec![0xbe; fields]))
                .collect();
            blocks.chunks(read).for_each(|bytes| drop(watch.received(bytes, now)));
            watch.received(&frame(6, 0, 0, &[0; 8]), now);
            assert_eq!(watch.is_flooded(), is_flood, "{fit} of {fields}, read by {read}");
        }
    }
}

/// The table may change its size twice before a block (RFC 7541 section 4.2), and in no request for ever.
#[test]
fn changes_of_the_table_are_told_from_fields() {
    let two: &[u8] = b"\x3f\xe1\x1f\x3f\xe1\x1f\x82\x86\x84";
    let priority: &[u8] = b"\0\0\0\0\x10";
    for (what, flags, block, is_flood) in [
        ("none", 0, b"\x82\x86\x84".to_vec(), false),
        ("two", 0, two.to_vec(), false),
        ("two behind padding", 0x8, [b"\0", two].concat(), false),
        ("two behind padding and a priority", 0x28, [b"\0", priority, two].concat(), false),
        ("three", 0, b"\x20\x20\x20\x82".to_vec(), true),
        ("three of three bytes", 0, b"\x3f\xe1\x1f".repeat(3), true),
        ("two of five bytes", 0, b"\x3f\xe1\xff\xff\x01".repeat(2), true),
        ("many behind padding and a priority", 0x28, [b"\0", priority, &[0x20; 1000]].concat(), true),
    ] {
        let (mut watch, now) = (watch(), stopped());
        for stream in (1..100).step_by(2) {
            watch.received(&frame(1, flags | END_HEADERS | END_STREAM, stream, &block), now);
            watch.handed_over(stream);
            watch.sent(&frame(1, END_HEADERS, stream, b"x"), now);
            watch.sent(&frame(0, END_STREAM, stream, &[0; 100]), now);
        }
        assert_eq!(watch.is_flooded(), is_flood, "{what}");
    }
}

/// Whoever has streams reset for errors is at an end, however well it asks in between (CVE-2025-8671).
#[test]
fn provoked_resets_are_a_flood_between_answers() {
    for (code, is_flood) in [(1, true), (3, true), (5, true), (0, false), (2, false), (8, false)] {
        let (mut watch, now) = (watch(), stopped());
        for stream in (1..1000).step_by(2) {
            watch.received(&frame(1, END_HEADERS, stream, b"\x82"), now);
            watch.handed_over(stream);
            watch.sent(&frame(1, END_HEADERS, stream, b"x"), now);
            watch.sent(&frame(0, END_STREAM, stream, &[0; 100]), now);
            watch.sent(&reset(stream, code), now);
        }
        assert_eq!(watch.is_flooded(), is_flood, "{code}");
    }
}

/// Whoever asks, takes the beginning of the answer, and gives up, is at an end; whoever takes some whole is not.
#[test]
fn answers_that_are_given_up_are_a_flood() {
    for (whole_of, is_flood) in [(0, true), (4, true), (2, false)] {
        let (mut watch, now) = (watch(), stopped());
        for stream in (1..3000).step_by(2) {
            watch.received(&headers(stream), now);
            watch.handed_over(stream);
            watch.sent(&frame(1, END_HEADERS, stream, b"x"), now);
            let is_whole = whole_of > 0 && stream / 2 % whole_of == 0;
            let flags = if is_whole { END_STREAM } else { 0 };
            watch.sent(&frame(0, flags, stream, &[0; 100]), now);
            watch.received(&reset(stream, 8), now);
        }
        assert_eq!(watch.is_flooded(), is_flood, "one of {whole_of}");
        assert!(watch.answers.is_empty());
    }
}

/// Two hundred probes a second are anybody's right, for ever.
#[test]
fn time_pays_back() {
    let mut watch = watch();
    let began = clock::now();
    let ping = frame(6, 0, 0, &[0; 8]);
    for second in 0..100 {
        watch.received(&ping.repeat(190), || began + Duration::from_secs(second));
    }
    assert!(!watch.is_flooded());
}

/// Whatever a client sends without waiting, what is kept of it is bounded.
#[test]
fn undecided_streams_are_bounded() {
    let mut watch = watch();
    for stream in (1..100_000).step_by(2) {
        watch.received(&headers(stream), clock::now);
    }
    assert_eq!(watch.undecided(), UNDECIDED_MAX);
    for stream in (1..100_000).step_by(2) {
        watch.handed_over(stream);
    }
    assert!(watch.undecided.capacity() <= UNDECIDED_COMMON);
}

/// The frames of `bytes`, given in pieces that end at `cuts`.
fn read(before: u32, bytes: &[u8], cuts: &[usize]) -> Vec<Frame> {
    let mut reader = FrameReader::new(before);
    let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).chain([bytes.len()]).collect();
    ends.sort_unstable();
    let (mut at, mut seen) = (0, Vec::new());
    for end in ends {
        reader.feed(&bytes[at..end], |piece, _| {
            if let Piece::Frame(frame, _) = piece {
                seen.push(frame);
            }
        });
        at = end;
    }
    seen
}

fn any_frame() -> impl Strategy<Value = (u8, u8, u32, Vec<u8>)> {
    let payload =
        prop_oneof![prop::collection::vec(any::<u8>(), 0..12), prop::collection::vec(any::<u8>(), 0..300),];
    (0_u8..12, any::<u8>(), any::<u32>(), payload)
}

proptest! {
    /// Every frame is found, with its code, wherever the pieces end.
    #[test]
    fn any_split_gives_the_same_frames(
        frames in prop::collection::vec(any_frame(), 0..8),
        cuts in prop::collection::vec(any::<usize>(), 0..12),
        preface in any::<bool>(),
    ) {
        let mut bytes = if preface { PREFACE.to_vec() } else { Vec::new() };
        for (kind, flags, stream, payload) in &frames {
            bytes.extend(frame(*kind, *flags, *stream, payload));
        }
        let seen = read(if preface { 24 } else { 0 }, &bytes, &cuts);
        prop_assert_eq!(seen.len(), frames.len());
        for (seen, (kind, flags, stream, payload)) in seen.iter().zip(&frames) {
            prop_assert_eq!(seen.kind as u8, (*kind).min(10));
            prop_assert_eq!((seen.flags, seen.stream), (*flags, stream & 0x7fff_ffff));
            prop_assert_eq!(seen.length as usize, payload.len());
            let word = |at: usize| payload.get(at..at + 4).map(|word| u32::from_be_bytes(word.try_into().unwrap()));
            let code = match kind {
                3 if payload.len() == 4 => word(0),
                7 if payload.len() >= 8 => word(4),
                _ => None,
            };
            prop_assert_eq!(seen.code, code);
        }
    }

    #[test]
    fn any_bytes_in_any_pieces_are_one_thing(
        inbound in prop::collection::vec(any::<u8>(), 0..600),
        outbound in prop::collection::vec(any::<u8>(), 0..600),
        cuts in prop::collection::vec(any::<usize>(), 0..8),
    ) {
        crate::invariants::watch(&inbound, &outbound, &cuts);
    }
}
