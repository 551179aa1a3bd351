//! Framing: whatever comes in, what a server gets is strictly valid and exactly one message a request; and what a server
//! answers reaches only who asked.
//!
//! Nobody here says what has to become of a payload, but for those that are right. A recorder keeps every byte that the
//! gateway sends, and `strict` judges them.

mod answers;
mod answers_http2;
mod corpus;
mod http2;
mod payload;
mod valid;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use self::payload::{Payload, Way};
use crate::support::strict::{self, Message};
use crate::support::*;

/// Connections at once.
const AT_ONCE: usize = 48;
/// How long nothing has to come for a payload that may lack something to be taken as waiting. If that is too short, the
/// client leaves a little early, which is allowed, too.
const QUIET: Duration = Duration::from_millis(200);

/// The answer to a request: its own target, in JSON, as legs have to answer.
fn reply(request: &Message) -> Reply {
    let target: String = request.target.chars().filter(|char| !matches!(char, '"' | '\\')).collect();
    Reply::ok(&format!("{{\"t\":\"{target}\"}}"))
}

/// A gateway with all ways, and what stands behind them.
struct Bench {
    gw: Gateway,
    clear: Recorder,
    secure: Recorder,
    two: Http2Recorder,
    tls: Arc<rustls::ClientConfig>,
}

impl Bench {
    async fn start(script: impl Fn(&Message) -> Reply + Clone + Send + Sync + 'static) -> Self {
        Self::patient(script, "[limits]\n", "30s").await
    }

    /// With servers that may be silent for so long, and `limits` that go with it.
    async fn patient(
        script: impl Fn(&Message) -> Reply + Clone + Send + Sync + 'static,
        limits: &str,
        silence: &str,
    ) -> Self {
        let authority = Authority::new();
        let clear = Recorder::start(None, script.clone()).await;
        let tls = authority.server(&["app.internal"]).server_config(&[], None);
        let secure = Recorder::start(Some(tls), script.clone()).await;
        // What it answers over HTTP/2 says what the others do.
        let two = Http2Recorder::start(move |request, stream| {
            let text = String::from_utf8_lossy(&script(request).bytes).into_owned();
            http2_ok(stream, &request.method, text.split_once("\r\n\r\n").map_or("", |(_, body)| body))
        });
        Self::with(authority, clear, secure, two.await, limits, silence).await
    }

    async fn with(
        authority: Authority,
        clear: Recorder,
        secure: Recorder,
        two: Http2Recorder,
        limits: &str,
        silence: &str,
    ) -> Self {
        let leg = "[[routes.aggregate.legs]]\nname = \"l\"\nupstream = \"clear\"\ngroup = \"l\"\n";
        let gw = gateway(&format!(
            "[upstreams.clear]\nservers = [\"{{clear}}\"]\nretry = {{ attempts = 1 }}\ntimeouts = {{ read = \"{silence}\" }}\n\
             [upstreams.secure]\nservers = [\"{{secure}}\"]\nretry = {{ attempts = 1 }}\ntimeouts = {{ read = \"{silence}\" }}\n\
             tls = {{ sni = \"app.internal\", ca = \"ca.pem\" }}\n\
             [upstreams.two]\nservers = [\"{{two}}\"]\nhttp2 = true\nretry = {{ attempts = 1 }}\n\
             timeouts = {{ read = \"{silence}\" }}\n\
             [[routes]]\nname = \"direct\"\npath = \"/d/*\"\nupstream = \"clear\"\n\
             [[routes]]\nname = \"pingora\"\npath = \"/t/*\"\nupstream = \"secure\"\n\
             [[routes]]\nname = \"http2\"\npath = \"/h/*\"\nupstream = \"two\"\n\
             [[routes]]\nname = \"leg\"\npath = \"/a/{{id}}/{{k}}\"\n[routes.aggregate]\n{leg}path = \"/a/{{path.id}}/{{path.k}}\"\n\
             {limits}header_bytes = \"32KiB\"\nheader_timeout = \"60s\"\n[log.access]\noutput = \"off\"\n"
        ))
        .with("clear", &clear)
        .with("secure", &secure)
        .with("two", &two)
        .file("ca.pem", &authority.pem)
        .identity("site", &authority.server(&["localhost"]))
        .listener("main", "127.0.0.1:0")
        .tls_listener("safe", &["site"])
        .start()
        .await;
        Self { gw, clear, secure, two, tls: authority.client_config(&[b"http/1.1"], None) }
    }

    /// A connection to the gateway.
    async fn connect(&self, safe: bool) -> Box<dyn Socket> {
        let address = self.gw.listener(if safe { "safe" } else { "main" });
        let stream = within("connect", TcpStream::connect(address)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        if !safe {
            return Box::new(stream);
        }
        let connector = tokio_rustls::TlsConnector::from(self.tls.clone());
        let name = "localhost".try_into().unwrap();
        Box::new(within("a handshake", connector.connect(name, stream)).await.unwrap())
    }

    /// Everything that was recorded, once nothing is under way.
    async fn recorded(&self) -> Vec<Recorded> {
        let all = || [self.clear.connections(), self.secure.connections(), self.two.connections()].concat();
        // Connections that are kept are idle; those that are not have ended.
        eventually("the recorders to be at rest", async || {
            let is_at_rest = |recorded: &Recorded| {
                recorded.ended || recorded.requests().map_or(true, |found| found.cut.is_none())
            };
            all().iter().all(is_at_rest).then_some(())
        })
        .await;
        all()
    }
}

trait Socket: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Socket for T {}

/// What a client got.
#[derive(Debug, Default)]
struct Got {
    bytes: Vec<u8>,
    /// The gateway ended the connection, before the client did.
    ended: bool,
    /// After a refusal that left the connection open: the client asked again, and this is what it got for its mark.
    asked_again: Option<Result<(), String>>,
}

impl Got {
    fn answers(&self, methods: &[&str]) -> Result<strict::Messages, String> {
        strict::answers(&self.bytes, methods, self.ended)
    }

    /// The last answer, if it is one by which the gateway refuses a request for what it is made of: another status is an
    /// answer to a request that was understood.
    fn refusal(&self, methods: &[&str]) -> Option<Message> {
        let last = self.answers(methods).ok()?.whole.pop()?;
        REFUSALS.contains(&last.status).then_some(last)
    }
}

/// Statuses of requests that were not understood, or not read to their end.
const REFUSALS: [u16; 9] = [400, 408, 411, 413, 414, 417, 431, 501, 505];
/// The refusals by which it is known where the request ended: all of it was read by the rules, and only what it says is of
/// no use. Any other has to end the connection (RFC 9112 sections 6.3 and 9.6).
const UNDERSTOOD: &[&str] = &["request.bad_path"];

/// Whether a refusal leaves no doubt of where its request ended.
fn is_understood(refusal: &Message) -> bool {
    let body: Option<serde_json::Value> = serde_json::from_slice(&refusal.body).ok();
    let code = body.as_ref().and_then(|body| body["code"].as_str());
    code.is_some_and(|code| UNDERSTOOD.contains(&code)) && refusal.text("connection") != "close"
}

/// The methods of `payload`'s requests, with as many as one can hold.
fn methods(payload: &Payload) -> Vec<&'static str> {
    payload.methods.iter().copied().chain(std::iter::repeat("GET")).take(8).collect()
}

/// One connection of a client's.
struct Talk {
    socket: Box<dyn Socket>,
    got: Got,
    methods: Vec<&'static str>,
}

impl Talk {
    /// Reads until there are so many answers, the connection ends, or nothing comes for `patience`.
    async fn read(&mut self, wanted: usize, patience: Duration) {
        let mut buffer = vec![0; 16 * 1024];
        loop {
            // What is no answer is waited for like one.
            let finals = self.finals().map_or(0, |finals| finals.len());
            if self.got.ended || finals >= wanted {
                return;
            }
            match tokio::time::timeout(patience, self.socket.read(&mut buffer)).await {
                Ok(Ok(count @ 1..)) => self.got.bytes.extend_from_slice(&buffer[..count]),
                Ok(_) => self.got.ended = true,
                Err(_) => return,
            }
        }
    }
}

impl Talk {
    /// Asks for something else on a connection that was left open.
    async fn ask_again(&mut self, payload: &Payload) {
        let mark = payload.again.clone();
        let text = format!("GET {mark} HTTP/1.1\r\nHost: x\r\n\r\n");
        let (before, length) = (self.finals().map_or(0, |finals| finals.len()), self.got.bytes.len());
        let _sent = within("send", self.socket.write_all(text.as_bytes())).await;
        let _sent = self.socket.flush().await;
        self.read(before + 1, PATIENCE).await;
        let answer = self.finals().map(|finals| finals.into_iter().nth(before));
        let is_mine = |answer: &Message| {
            answer.status == 200 && String::from_utf8_lossy(&answer.body).contains(mark.as_str())
        };
        self.got.asked_again = Some(match answer {
            Ok(Some(answer)) if is_mine(&answer) => Ok(()),
            other => Err(format!("{other:?}")),
        });
        // It is none of the payload's answers.
        self.got.bytes.truncate(length);
    }

    /// The answers so far that are not interim ones.
    fn finals(&self) -> Result<Vec<Message>, String> {
        let found = self.got.answers(&self.methods)?;
        Ok(found.whole.into_iter().filter(|answer| answer.status >= 200).collect())
    }
}

/// Sends `payload` and reads what comes.
async fn send(bench: &Bench, payload: &Payload, safe: bool) -> Got {
    let socket = bench.connect(safe).await;
    let mut talk = Talk { socket, got: Got::default(), methods: methods(payload) };
    let mut from = 0;
    let mut pace = tokio::time::interval(Duration::from_millis(2));
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    pace.tick().await;
    for cut in payload.cuts.iter().copied().chain([payload.bytes.len()]) {
        if from > 0 && payload.waits {
            talk.read(1, QUIET).await;
        } else if from > 0 {
            // So that the pieces arrive by themselves. Nothing depends on it.
            pace.tick().await;
        }
        // It may have been refused before all of it is sent.
        let _sent = within("send", talk.socket.write_all(&payload.bytes[from..cut])).await;
        let _sent = talk.socket.flush().await;
        from = cut;
    }
    if payload.ends {
        let _left = talk.socket.shutdown().await;
    }
    match payload.wants {
        Some(wanted) => talk.read(wanted, PATIENCE).await,
        None => talk.read(usize::MAX, QUIET).await,
    }
    if !payload.ends
        && let Some(refusal) = talk.got.refusal(&talk.methods)
    {
        if is_understood(&refusal) {
            talk.ask_again(payload).await;
        } else {
            // The gateway has to end it, although nobody here has said that nothing more will come.
            talk.read(usize::MAX, PATIENCE).await;
        }
    }
    if !talk.got.ended {
        let _left = talk.socket.shutdown().await;
        // What still comes must fit as well. That it ends then says nothing.
        talk.read(usize::MAX, PATIENCE).await;
        talk.got.ended = false;
    }
    talk.got
}

/// What became of all payloads.
#[derive(Debug, Default)]
struct Tally {
    sent: usize,
    forwarded: usize,
    refused: usize,
    neither: usize,
    /// Of the refused: the gateway ended the connection, or it stayed and the next request was answered.
    ended: usize,
    kept: usize,
    valid: usize,
    valid_refused: Vec<String>,
    faults: Vec<String>,
}

/// Sends all of them, and judges what comes of them on both sides.
async fn run(bench: &Bench, payloads: &[Payload], safe: bool) -> Tally {
    let sending = futures_util::stream::iter(payloads).map(|payload| send(bench, payload, safe));
    let got: Vec<Got> = sending.buffered(AT_ONCE).collect().await;
    let mut tally = Tally { sent: payloads.len(), ..Tally::default() };
    let seen = seen(&bench.recorded().await, &mut tally.faults);
    for (payload, got) in payloads.iter().zip(&got) {
        judge(payload, got, &seen, &mut tally);
    }
    tally
}

/// The whole requests that servers got, by their marks. What else they got is a fault.
fn seen(recorded: &[Recorded], faults: &mut Vec<String>) -> HashMap<String, Vec<Message>> {
    let mut seen: HashMap<String, Vec<Message>> = HashMap::new();
    for connection in recorded {
        let found = match connection.requests() {
            Ok(found) => found,
            Err(what) => {
                faults.push(format!("a server got what is no request: {what}"));
                continue;
            }
        };
        let cut = found.cut.as_ref().filter(|message| message.is_head_whole);
        for message in found.whole.iter().chain(cut).chain(connection.broken()) {
            let mark = mark_of(&message.target);
            if mark.ends_with("/E")
                || message.fields.iter().any(|(name, _)| name.eq_ignore_ascii_case("x-evil"))
            {
                faults.push(format!("what was hidden got through: {message:?}"));
            }
        }
        for message in found.whole {
            seen.entry(mark_of(&message.target).to_owned()).or_default().push(message);
        }
    }
    for (mark, messages) in &seen {
        // The innocent may ask for the same more than once.
        if messages.len() > 1 && !mark.ends_with("/I") {
            faults.push(format!("{mark} was forwarded {} times", messages.len()));
        }
    }
    seen
}

/// What a target begins with: as long as every mark is.
fn mark_of(target: &str) -> &str {
    target.get(.."/d/00000/0".len()).unwrap_or(target)
}

fn judge(payload: &Payload, got: &Got, seen: &HashMap<String, Vec<Message>>, tally: &mut Tally) {
    let show = || {
        format!(
            "{} {:?}",
            payload.name,
            String::from_utf8_lossy(&payload.bytes[..payload.bytes.len().min(300)])
        )
    };
    let answers = match got.answers(&methods(payload)) {
        Ok(found) => found,
        Err(what) => {
            tally.faults.push(format!("the client of {} got what is no answer: {what}", show()));
            return;
        }
    };
    let finals: Vec<&Message> = answers.whole.iter().filter(|answer| answer.status >= 200).collect();
    let forwarded: Vec<&Message> = payload.marks.iter().filter_map(|mark| seen.get(mark)).flatten().collect();
    // An answer is that to its own request, in the order of the requests.
    let mut marks = payload.marks.iter();
    for answer in finals.iter().filter(|answer| answer.status == 200 && !answer.body.is_empty()) {
        let text = String::from_utf8_lossy(&answer.body);
        // Where dot segments are resolved the last one may be another.
        let is_mine = |mark: &String| text.contains(mark.trim_end_matches(|char| char != '/'));
        if !marks.any(is_mine) {
            tally.faults.push(format!("{} got another one's answer: {text}", show()));
        }
    }
    if let Some(refusal) =
        got.refusal(&methods(payload)).filter(|_| !payload.ends && got.asked_again.is_none())
    {
        tally.ended += usize::from(got.ended);
        if !got.ended {
            tally.faults.push(format!(
                "{} was refused ({}), and the connection not closed",
                show(),
                refusal.status
            ));
        }
        if refusal.text("connection") != "close" {
            tally.faults.push(format!("{} was refused, and nothing said that the connection closes", show()));
        }
        // Each that was forwarded has an answer of its own before that: nothing behind the refused one was. Legs are asked
        // before the body that their request came with is read.
        let before = finals.len() - usize::from(payload.way != Way::Leg);
        if forwarded.len() > before {
            tally.faults.push(format!("what is behind the refused one of {} was forwarded", show()));
        }
    }
    match &got.asked_again {
        Some(Ok(())) => tally.kept += 1,
        Some(Err(what)) => tally.faults.push(format!("{} was refused, and then: {what}", show())),
        None => {}
    }
    match &payload.valid {
        Some(body) => {
            tally.valid += 1;
            let fine = finals.iter().filter(|answer| answer.status == 200).count();
            let is_whole = forwarded.len() == payload.marks.len()
                && forwarded
                    .first()
                    .is_some_and(|message| message.body == *body || message.target.starts_with("/a/"));
            // A leg is asked before a body that it has no use for: if that goes by chunks and is not all there when the answer
            // is, the answer says that it is the last on its connection.
            let is_last = payload.way == Way::Leg
                && payload.bytes.windows(8).any(|word| word.eq_ignore_ascii_case(b"chunked\r"))
                && finals.last().is_some_and(|answer| answer.text("connection") == "close")
                && (1..payload.marks.len()).contains(&fine)
                && forwarded.len() == fine;
            if !is_last && (fine != payload.marks.len() || !is_whole) {
                let statuses: Vec<u16> = finals.iter().map(|answer| answer.status).collect();
                tally.valid_refused.push(format!("{}: {statuses:?}, {} forwarded", show(), forwarded.len()));
            }
        }
        None if !forwarded.is_empty() => tally.forwarded += 1,
        None if finals.iter().any(|answer| answer.status >= 400) => tally.refused += 1,
        None => tally.neither += 1,
    }
}

fn report(what: &str, tally: &Tally) {
    eprintln!(
        "{what}: {} sent, {} forwarded clean, {} refused, {} neither, {} ended, {} kept, {} valid of which {} were refused, {} faults",
        tally.sent,
        tally.forwarded,
        tally.refused,
        tally.neither,
        tally.ended,
        tally.kept,
        tally.valid,
        tally.valid_refused.len(),
        tally.faults.len(),
    );
}

#[track_caller]
fn expect_clean(what: &str, tally: &Tally) {
    report(what, tally);
    let shown: Vec<_> = tally.faults.iter().take(40).collect();
    assert!(
        tally.faults.is_empty(),
        "{what}: {} faults\n{}",
        tally.faults.len(),
        shown.iter().map(|fault| format!("- {fault}\n")).collect::<String>()
    );
}

/// A request of somebody else's gets its own answer.
async fn innocent(bench: &Bench, way: Way, id: usize) {
    let mark = payload::mark(way, id, 'I');
    let answer = Client::new(bench.gw.listener("main")).get(&mark).await.expect_status(200);
    assert!(answer.text().contains(&mark), "{mark}: {}", answer.text());
}

/// Sends the whole corpus on one way, and judges what comes of it.
async fn send_all(way: Way, safe: bool) {
    let bench = Bench::start(reply).await;
    let payloads = corpus::all(way, 10_000).payloads;
    assert!(payloads.len() > 1_500);
    let tally = run(&bench, &payloads, safe).await;
    expect_clean(&format!("{way:?}"), &tally);
    assert!(tally.forwarded > 150 && tally.refused > 1_300, "{tally:?}");
    assert!(tally.ended > 1_300 && tally.kept > 8, "{tally:?}");
    innocent(&bench, way, 99_999).await;
    bench.gw.stop().await;
}

/// Whatever comes in, what goes out is right: by the gateway's own forwarder.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_comes_in_what_goes_out_is_right() {
    send_all(Way::Direct, false).await;
}

/// The same where Pingora forwards.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_comes_in_what_pingora_sends_is_right() {
    send_all(Way::Pingora, false).await;
}

/// The same for what legs are asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_comes_in_what_legs_are_asked_is_right() {
    send_all(Way::Leg, false).await;
}

/// The same for servers of HTTP/2, where what is sent is judged by its frames and fields.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_comes_in_what_goes_out_over_http2_is_right() {
    send_all(Way::Http2, false).await;
}

/// The same over TLS, where heads come in records.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_comes_in_over_tls() {
    send_all(Way::Direct, true).await;
}

/// What is right is not refused, however unusual.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unusual_requests_that_are_right_get_through() {
    let bench = Bench::start(reply).await;
    for (at, way) in Way::ALL.into_iter().enumerate() {
        let payloads = valid::all(way, 60_000 + 1_000 * at).payloads;
        assert!(payloads.len() >= 60);
        let tally = run(&bench, &payloads, false).await;
        expect_clean(&format!("valid {way:?}"), &tally);
        assert!(tally.valid_refused.is_empty(), "{way:?}:\n{}", tally.valid_refused.join("\n"));
    }
    bench.gw.stop().await;
}

/// What asks about the whole server goes to whoever has its root, as it came.
#[tokio::test]
async fn a_question_about_the_whole_server_is_passed_on() {
    let app = Recorder::echoing().await;
    let gw = in_front_of(&app, "").start().await;
    for target in ["*", "/"] {
        let mut raw = gw.raw().await;
        raw.send(format!("OPTIONS {target} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
        assert_eq!(raw.response().await.expect_status(200).text(), target);
    }
    let mut raw = gw.raw().await;
    raw.send("GET * HTTP/1.1\r\nHost: x\r\n\r\n").await;
    raw.response().await.expect_problem(400, "request.malformed");
    let seen = app.connections()[0].requests().unwrap().whole;
    assert_eq!(seen.iter().map(|request| request.target.as_str()).collect::<Vec<_>>(), ["*", "/"]);
}
