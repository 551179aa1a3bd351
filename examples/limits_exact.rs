//! 64 clients at full speed against a rate limit, for `load-tests/limits-exact`: counts what passes, and compares it to the law.
//!
//! `limits_exact SECONDS RATE BURST SLACK OFFERED ADDRESS...`: in any time at most `BURST + RATE x time` pass, and `SLACK` where
//! batches are counted; and no fewer, within one and `SLACK`. `OFFERED` is how many are asked a second by all together, evenly; 0 is
//! as many as they can. Where all have been asked in time, `BURST + RATE x SECONDS` pass, within one and `SLACK`.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a load test ends where something is not as it must be, and prints; it is no part of the gateway"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

const CLIENTS: usize = 64;

/// Requests that all clients made, times in microseconds since the beginning.
#[derive(Default)]
struct Tally {
    passed: AtomicU64,
    refused: AtomicU64,
    /// When the first answer had come.
    first_answer: AtomicU64,
    /// When the latest request began.
    latest: AtomicU64,
    /// What went by while nobody asked, beyond the time in which a burst comes together.
    lost: AtomicU64,
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut number = || arguments.next().and_then(|text| text.parse::<u64>().ok()).expect("a number");
    let (seconds, rate, burst, slack, offered) = (number(), number(), number(), number(), number());
    let addresses: Vec<String> = arguments.collect();
    assert!(!addresses.is_empty(), "an address");
    let tally = Tally { first_answer: AtomicU64::new(u64::MAX), ..Tally::default() };
    let connections: Vec<_> = (0..CLIENTS)
        .map(|client| TcpStream::connect(addresses.get(client % addresses.len()).unwrap()).unwrap())
        .collect();
    let began = Instant::now();
    std::thread::scope(|scope| {
        for (client, connection) in connections.into_iter().enumerate() {
            let tally = &tally;
            let pace = (offered > 0).then_some(Pace { offered, client: client as u64 });
            scope.spawn(move || ask(connection, began, seconds, pace, burst * 1_000_000 / rate, tally));
        }
    });
    let took = micros(began);
    let law = |micros: u64| burst + micros * rate / 1_000_000;
    let (passed, refused) = (tally.passed.into_inner(), tally.refused.into_inner());
    let lost = tally.lost.into_inner() * rate / 1_000_000;
    let most = law(took) + slack;
    let least =
        law(tally.latest.into_inner() - tally.first_answer.into_inner()).saturating_sub(slack + lost + 1);
    let asked = passed + refused;
    println!("{passed} passed of {asked} in {took} us; by the law {least} to {most}");
    assert!(refused > 0, "the clients were too slow to meet the limit");
    assert!((least..=most).contains(&passed), "{passed} is not between {least} and {most}");
    if offered > 0 {
        let due = burst + rate * seconds;
        assert_eq!(asked, offered * seconds, "not all were asked");
        if took < seconds * 1_000_000 + LATE {
            assert!(passed.abs_diff(due) <= slack + 1, "{passed} passed, and {due} are due");
        } else {
            println!("the machine was too slow to ask all in time: held to the law alone");
        }
    }
}

/// Microseconds that the last answer may be late for the sum to be known.
const LATE: u64 = 5_000;

/// When one of the clients asks, of so many requests a second in all.
struct Pace {
    offered: u64,
    client: u64,
}

impl Pace {
    /// The moment of its request `turn`.
    fn moment(&self, turn: u64) -> Duration {
        Duration::from_micros((self.client + turn * CLIENTS as u64) * 1_000_000 / self.offered)
    }
}

fn micros(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_micros()).unwrap()
}

/// Asks until `seconds` are over. A silence of all clients that is longer than `silence` leaves permits unused.
fn ask(connection: TcpStream, began: Instant, seconds: u64, pace: Option<Pace>, silence: u64, tally: &Tally) {
    connection.set_nodelay(true).unwrap();
    connection.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut writer = connection.try_clone().unwrap();
    let mut reader = BufReader::new(connection);
    let mut body = Vec::new();
    let end = Duration::from_secs(seconds);
    for turn in 0.. {
        if let Some(moment) = pace.as_ref().map(|pace| pace.moment(turn)) {
            if moment >= end {
                break;
            }
            std::thread::sleep(moment.saturating_sub(began.elapsed()));
        } else if began.elapsed() >= end {
            break;
        }
        let now = micros(began);
        let before = tally.latest.fetch_max(now, Relaxed);
        if before > 0 {
            tally.lost.fetch_add(now.saturating_sub(before).saturating_sub(silence), Relaxed);
        }
        writer.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        match line.split(' ').nth(1) {
            Some("200") => tally.passed.fetch_add(1, Relaxed),
            Some("429") => tally.refused.fetch_add(1, Relaxed),
            _ => panic!("an answer that is neither 200 nor 429: {line:?}"),
        };
        let mut length = 0;
        loop {
            line.clear();
            reader.read_line(&mut line).unwrap();
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            if line == "\r\n" {
                break;
            }
        }
        body.resize(length, 0);
        reader.read_exact(&mut body).unwrap();
        tally.first_answer.fetch_min(micros(began), Relaxed);
    }
}
