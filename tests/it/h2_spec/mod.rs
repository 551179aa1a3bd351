//! HTTP/2 as its specifications have it (RFC 9113, RFC 7541): the 147 things that h2spec looks at in strict mode, in words
//! of our own, over cleartext (prior knowledge) and TLS.
//!
//! Each case is a connection of its own: bytes that are sent, and what has to come of them. It is stricter than h2spec,
//! which takes any closed connection for an error well told: here a connection error must say GOAWAY with its code before it
//! closes, and whatever does not end the connection must leave it alive (it answers a PING). The code is the one that RFC 9113
//! names for that error; h2spec takes some others as well.

mod connections;
mod frames;
mod general;
mod header_blocks;
mod messages;
mod streams;

use std::fmt;
use std::time::Duration;

use crate::support::h2::*;
use crate::support::{Authority, RawClient, in_front_of, upstream};

/// How many cases there are: those of h2spec 2.6 with `--strict`.
const CASES: usize = 147;
/// How long an answer may take. The machine may be busy; nothing waits for so long but a failure.
const LONG: Duration = Duration::from_secs(10);

/// One thing that the specifications demand.
struct Case {
    /// The section that demands it, and which of its cases it is; sections of RFC 7540's numbers, as h2spec's.
    name: &'static str,
    what: &'static str,
    steps: Vec<Step>,
}

enum Step {
    Send(Vec<u8>),
    /// Waits for this to come.
    Expect(Expect),
}

#[derive(Debug, Clone)]
enum Expect {
    /// The server's preface.
    Settings,
    SettingsAck,
    /// PING is answered with this.
    Pong([u8; 8]),
    /// The head of an answer on this stream.
    Head(u32),
    /// DATA on this stream; of this length, if one is given.
    Data(u32, Option<usize>),
    /// The answer on this stream is complete.
    Answered(u32),
    /// RST_STREAM on this stream with one of these codes, and the connection lives; or the connection ends with one of them,
    /// which a receiver is free to do (RFC 9113 section 5.4).
    StreamError(u32, &'static [u32]),
    /// RST_STREAM on this stream with this code, and nothing less.
    Reset(u32, u32),
    /// GOAWAY with one of these codes, then the end of the connection.
    ConnectionError(&'static [u32]),
    /// GOAWAY without an error, then the end of the connection.
    Goodbye,
    /// The end of the connection, and nothing but frames before it.
    Closed,
}

/// A frame that came: kind, flags, stream and payload.
struct Came(u8, u8, u32, Vec<u8>);

impl fmt::Debug for Came {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let start = &self.3[..self.3.len().min(16)];
        write!(f, "(kind {}, flags {}, stream {}, {} bytes {start:?})", self.0, self.1, self.2, self.3.len())
    }
}

/// A case on a connection that has exchanged settings.
fn case(name: &'static str, what: &'static str, bytes: Vec<u8>, expect: Expect) -> Case {
    steps(name, what, vec![Step::Send(bytes), Step::Expect(expect)])
}

fn steps(name: &'static str, what: &'static str, more: Vec<Step>) -> Case {
    let mut steps = vec![
        Step::Send([PREFACE.to_vec(), settings(&[(INITIAL_WINDOW, 65_535)])].concat()),
        Step::Expect(Expect::Settings),
        Step::Expect(Expect::SettingsAck),
        Step::Send(frame(SETTINGS, ACK, 0, &[])),
    ];
    steps.extend(more);
    Case { name, what, steps }
}

/// A case of which not even the preface is taken for granted.
fn from_the_start(name: &'static str, what: &'static str, bytes: &[u8], expect: Expect) -> Case {
    Case { name, what, steps: vec![Step::Send(bytes.to_vec()), Step::Expect(expect)] }
}

/// A value as h2spec's dummy headers have them.
fn long() -> String {
    "x".repeat(4000)
}

/// A block of `count` such headers.
fn long_fields(count: usize) -> Vec<u8> {
    (0..count).flat_map(|at| field(&format!("x-dummy{at}"), &long())).collect()
}

/// Runs `cases` over both transports and reports all that fail.
async fn run(cases: fn() -> Vec<Case>) {
    let authority = Authority::new();
    let app = upstream().start().await;
    let gw = in_front_of(&app, "")
        .identity("site", &authority.server(&["localhost"]))
        .listener("plain", "127.0.0.1:0")
        .tls_listener("main", &["site"])
        .start()
        .await;
    let tls = authority.client_config(&[b"h2"], None);
    let mut failed = Vec::new();
    for transport in ["cleartext", "TLS"] {
        for case in cases() {
            let mut raw = match transport {
                "TLS" => RawClient::connect_tls(gw.listener("main"), tls.clone()).await,
                _ => RawClient::connect(gw.listener("plain")).await,
            };
            if let Err(why) = case.run(&mut raw).await {
                failed.push(format!("{} over {transport}: {}: {why}", case.name, case.what));
            }
        }
    }
    assert!(failed.is_empty(), "{} of {} failed\n{}", failed.len(), 2 * cases().len(), failed.join("\n"));
}

/// None is lost.
#[test]
fn all_cases_are_there() {
    let all = [
        general::cases(),
        connections::cases(),
        streams::cases(),
        frames::cases(),
        messages::cases(),
        header_blocks::cases(),
    ]
    .into_iter()
    .flatten()
    .map(|case| case.name);
    let mut names: Vec<_> = all.collect();
    assert_eq!(names.len(), CASES);
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), CASES, "a name is given twice");
}

impl Case {
    async fn run(&self, raw: &mut RawClient) -> Result<(), String> {
        for step in &self.steps {
            match step {
                // It may be cut off: what came of it shows.
                Step::Send(bytes) => _ = raw.try_send(bytes).await,
                Step::Expect(expect) => expect.wait(raw).await?,
            }
        }
        let ends =
            matches!(self.steps.last(), Some(Step::Expect(Expect::ConnectionError(_) | Expect::Closed)));
        let Some(Step::Expect(last)) = self.steps.last() else { return Ok(()) };
        if ends || matches!(last, Expect::Settings) || raw.is_over() {
            return Ok(());
        }
        // What is no error of the connection leaves it alive.
        raw.try_send(ping(b"are you?")).await;
        Expect::Pong(*b"are you?").wait(raw).await.map_err(|why| format!("afterwards {why}"))
    }
}

impl Expect {
    async fn wait(&self, raw: &mut RawClient) -> Result<(), String> {
        if matches!(self, Self::Closed) {
            let Ok(rest) = tokio::time::timeout(LONG, raw.rest()).await else {
                return Err("the connection stays open".to_owned());
            };
            if raw.is_broken() {
                return Err("the connection is reset".to_owned());
            }
            return are_frames(&rest).then_some(()).ok_or_else(|| {
                format!("something else than frames came: {:?}", String::from_utf8_lossy(&rest))
            });
        }
        let mut seen = Vec::new();
        loop {
            let Ok(came) = tokio::time::timeout(LONG, raw.frame()).await else {
                return Err(format!("{self:?} did not come, but {seen:?}"));
            };
            let Some((kind, flags, stream, payload)) = came else {
                return Err(format!("{self:?} did not come, but the end after {seen:?}"));
            };
            let came = Came(kind, flags, stream, payload);
            let is_it = self.is(&came);
            seen.push(came);
            match is_it {
                Some(true) if kind == GOAWAY => {
                    let rest = tokio::time::timeout(LONG, raw.rest()).await;
                    // A reset would overtake the word for some clients.
                    return match rest {
                        Ok(_) if raw.is_broken() => Err("a reset follows GOAWAY".to_owned()),
                        Ok(_) => Ok(()),
                        Err(_) => Err("GOAWAY does not close".to_owned()),
                    };
                }
                Some(true) => return Ok(()),
                Some(false) => return Err(format!("{self:?} did not come, but {seen:?}")),
                None => {}
            }
        }
    }

    /// Whether `came` is what is waited for; `None` if it is neither that nor against it.
    fn is(&self, Came(kind, flags, stream, payload): &Came) -> Option<bool> {
        let word =
            |at: usize| payload.get(at..at + 4).map(|word| u32::from_be_bytes(word.try_into().unwrap()));
        match self {
            Self::Settings => return Some((*kind, flags & ACK, *stream) == (SETTINGS, 0, 0)),
            Self::SettingsAck if *kind == SETTINGS && flags & ACK != 0 => return Some(payload.is_empty()),
            Self::Pong(expected) if *kind == PING => {
                return Some(flags & ACK != 0 && payload == expected);
            }
            Self::Head(on) if *kind == HEADERS => return Some(stream == on),
            Self::Data(on, length) if *kind == DATA => {
                return Some(stream == on && length.is_none_or(|length| length == payload.len()));
            }
            Self::Answered(on) if stream == on && flags & END_STREAM != 0 && *kind <= HEADERS => {
                return Some(true);
            }
            Self::StreamError(on, codes) if *kind == RST_STREAM => {
                return Some(stream == on && codes.contains(&word(0)?));
            }
            Self::StreamError(_, codes) | Self::ConnectionError(codes) if *kind == GOAWAY => {
                return Some(codes.contains(&word(4)?));
            }
            Self::Goodbye if *kind == GOAWAY => return Some(word(4)? == 0),
            Self::Reset(on, code) if *kind == RST_STREAM => {
                return Some(stream == on && word(0) == Some(*code));
            }
            _ => {}
        }
        // Nothing else is to end the connection.
        (*kind == GOAWAY).then_some(false)
    }
}

/// Whether `bytes` are frames, the last of them whole.
fn are_frames(mut bytes: &[u8]) -> bool {
    while let [a, b, c, _, _, _, _, _, _, rest @ ..] = bytes {
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        let Some(rest) = rest.get(length..) else { return false };
        bytes = rest;
    }
    bytes.is_empty()
}
