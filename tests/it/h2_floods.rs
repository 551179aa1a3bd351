//! Floods of HTTP/2: each is ended within 2,000 writes, with a word, and nobody else notices. What they cost is measured by
//! `load-tests/h2-floods`.

#[path = "../../examples/h2_floods/floods.rs"]
mod floods;

use std::time::Duration;

use crate::support::h2 as bytes;
use crate::support::{Answer, Gateway, RawClient, in_front_of, upstream};
use bytes::*;
use floods::{Flood, LARGE, WRITES};

/// Bytes that are sent at once.
const PIECE_BYTES: usize = 64 * 1024;

/// The code that the connection was ended with.
async fn ended_with(gw: &Gateway, flood: &Flood) -> u32 {
    let mut raw = gw.raw().await;
    raw.send([PREFACE, &settings(&[]), &flood.before].concat()).await;
    let mut piece = Vec::new();
    for at in 0..WRITES {
        piece.extend((flood.write)(at));
        if piece.len() < PIECE_BYTES && at + 1 < WRITES {
            continue;
        }
        // Nobody reads what comes back meanwhile. What is left when the connection is over is not sent.
        let sent = tokio::time::timeout(Duration::from_secs(10), raw.try_send(&piece)).await;
        if sent != Ok(true) {
            break;
        }
        piece.clear();
    }
    let mut code = None;
    while let Some((kind, _, _, payload)) = raw.frame_or_end().await {
        if kind == GOAWAY {
            let told = u32::from_be_bytes(payload[4..8].try_into().unwrap());
            code = code.filter(|code| *code != 0).or(Some(told));
        }
    }
    code.unwrap_or_else(|| panic!("{}: no GOAWAY", flood.name))
}

#[tokio::test]
async fn each_is_ended_within_two_thousand_writes() {
    let app = upstream().on(LARGE, Answer::Zeros(1 << 30)).start().await;
    let gw = in_front_of(&app, "").start().await;
    let mut innocent = gw.raw().await;
    innocent.get("/fine").await.expect_status(200);
    let before = gw.resident_bytes();
    let mut wrong = Vec::new();
    for flood in floods::all() {
        let code = ended_with(&gw, &flood).await;
        if !flood.ends.contains(&code) {
            wrong.push(format!("{} ended with {code}", flood.name));
        }
        innocent.get("/fine").await.expect_status(200);
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let ended = floods::all().len() as f64;
    gw.metric_is("edgeward_http2_connection_errors_total", &[], ended).await;
    let grown = gw.resident_bytes().saturating_sub(before);
    assert!(grown < 100 << 20, "{} MiB", grown >> 20);
    // Nothing of them is left.
    gw.metric_is("edgeward_http_requests_in_flight", &[], 0.0).await;
}

/// What a client does that never acknowledges our SETTINGS, which is slow but no flood: it is served like any other.
#[tokio::test]
async fn settings_that_are_never_acknowledged_hold_nothing_up() {
    let app = upstream().start().await;
    let gw = in_front_of(&app, "").start().await;
    let mut raw = gw.raw().await;
    raw.send([PREFACE, &settings(&[])].concat()).await;
    for at in 0..100 {
        raw.send(headers(2 * at + 1, GET)).await;
        loop {
            let (kind, flags, stream, _) = raw.frame().await.expect("an answer");
            assert_ne!(kind, GOAWAY);
            if stream == 2 * at + 1 && flags & END_STREAM != 0 {
                break;
            }
        }
    }
    assert_eq!(app.requests(), 100);
}

/// Requests that are given up before their turn comes cost their servers nothing, and are in the log like others.
#[tokio::test]
async fn requests_that_are_given_up_at_once_reach_no_server() {
    let app = upstream().start().await;
    let gw = in_front_of(&app, "").start().await;
    let mut raw = gw.raw().await;
    let given_up = (0..100).flat_map(|at| [headers(2 * at + 1, GET), reset(2 * at + 1, CANCEL)].concat());
    raw.send([PREFACE, &settings(&[])].concat().into_iter().chain(given_up).collect::<Vec<u8>>()).await;
    gw.metric_is("edgeward_http_requests_total", &["code=\"499\""], 100.0).await;
    // All came together, or nearly.
    assert!(app.connections() < 20, "{}", app.connections());
    raw.send(headers(201, GET)).await;
    loop {
        let (kind, flags, stream, _) = raw.frame().await.expect("an answer");
        assert_ne!(kind, GOAWAY);
        if stream == 201 && flags & END_STREAM != 0 {
            break;
        }
    }
}

/// A client that opens all that it may is served in turns, and all of it.
#[tokio::test]
async fn many_requests_at_once_are_answered_like_few() {
    let app = upstream().start().await;
    let gw = in_front_of(&app, "").start().await;
    let mut raw = gw.raw().await;
    raw.send([PREFACE, &settings(&[])].concat()).await;
    for round in 0..5 {
        raw.send(window_update(0, 1 << 20)).await;
        let streams = (0..128).map(|at| 2 * (128 * round + at) + 1);
        raw.send(streams.flat_map(|stream| headers(stream, GET)).collect::<Vec<u8>>()).await;
        let mut answered = 0;
        while answered < 128 {
            let (kind, flags, stream, _) = raw.frame().await.expect("an answer");
            assert!(kind != GOAWAY && kind != RST_STREAM, "{kind} on {stream}");
            answered += usize::from(flags & END_STREAM != 0 && matches!(kind, HEADERS | DATA));
        }
    }
    assert_eq!(app.requests(), 5 * 128);
}

/// A client that has many uploads refused at once is no flood for what of them was under way by then.
#[tokio::test]
async fn uploads_that_are_refused_together_end_no_connection() {
    let app = upstream().start().await;
    let refused =
        "[[routes]]\nname = \"refused\"\npath = \"/\"\nmethods = [\"POST\"]\nrespond = { status = 401 }\n";
    let gw = in_front_of(&app, refused).start().await;
    let mut raw = gw.raw().await;
    let streams = || (0..128).map(|at| 2 * at + 1);
    raw.send([PREFACE, &settings(&[])].concat()).await;
    raw.send(streams().flat_map(|stream| open(stream, POST)).collect::<Vec<u8>>()).await;
    let mut resets = 0;
    while resets < 128 {
        let (kind, _, _, payload) = raw.frame().await.expect("an answer");
        assert_ne!(kind, GOAWAY);
        if kind == RST_STREAM {
            assert_eq!(payload, [0; 4], "NO_ERROR");
            resets += 1;
        }
    }
    raw.send(streams().flat_map(|stream| data(stream, b"x").repeat(3)).collect::<Vec<u8>>()).await;
    raw.send(headers(257, GET)).await;
    loop {
        let (kind, flags, stream, _) = raw.frame().await.expect("an answer");
        assert!(kind != GOAWAY && kind != RST_STREAM, "{kind} on {stream}");
        if stream == 257 && flags & END_STREAM != 0 {
            break;
        }
    }
}

/// The connection that was ended is read from no further: its client hears why, and who else asks is served.
#[tokio::test]
async fn a_flood_does_not_hold_up_the_answers_of_others() {
    let app = upstream().start().await;
    let gw = in_front_of(&app, "").start().await;
    let mut floods: Vec<RawClient> = Vec::new();
    for _ in 0..20 {
        let mut raw = gw.raw().await;
        raw.send([PREFACE, &settings(&[])].concat()).await;
        raw.try_send(ping(&[0; 8]).repeat(20_000)).await;
        floods.push(raw);
    }
    for _ in 0..20 {
        gw.get("/fine").await.expect_status(200);
    }
    let ended = floods.len() as f64;
    gw.metric_is("edgeward_http2_connection_errors_total", &["code=\"ENHANCE_YOUR_CALM\""], ended).await;
}
