//! The clients of a run, and those that speak HTTP/1.1.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::http1::{Http1, Idle};
use super::origin::{EVENT_EVERY, Sum, event, got};
use super::tally::{Count, Kind, Tally};
use super::wire::{PATIENCE, Target, over};
use super::{http2, websocket};

/// Longest time between two GETs of a connection.
const GET_PAUSE: Duration = Duration::from_millis(30);
/// Longest time between two new connections of a client.
const FRESH_PAUSE: Duration = Duration::from_millis(40);
/// How long a WebSocket lives that does not live for the whole run, give or take a half.
const SOCKET_LIVES: Duration = Duration::from_secs(3);
/// Pieces of an upload: this much, this often.
const DRIP_BYTES: usize = 2048;
const DRIP_EVERY: Duration = Duration::from_millis(100);
/// A WebSocket may end this much before the grace period of its process is over as we measure it...
const GRACE_SLACK: Duration = Duration::from_millis(300);
/// ...and a process that leaves may take connections for this long after it was told to.
const LEAVING: Duration = Duration::from_secs(5);

/// How many clients of each kind; half of each over TLS.
#[derive(Debug, Clone, Copy)]
pub struct Crowd {
    pub get: usize,
    pub idle_post: usize,
    pub fresh: usize,
    pub http2: usize,
    pub events: usize,
    pub uploads: usize,
    pub websockets: usize,
    /// HTTP/2 by prior knowledge; else all of it over TLS.
    pub http2_in_cleartext: bool,
}

/// How slow clients are, and how long they may be that.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// How long a process that leaves serves what it has.
    pub grace_period: Duration,
    /// How long an upload drips, and an event stream lasts at most. Two of them fit into `grace_period`: one that began
    /// before the process was told to leave, and one that the client then begins on the same connection, which could not
    /// be told to close in an answer that had begun.
    pub slow: Duration,
    /// Longest time that a connection idles before a POST: shorter than a process that leaves keeps idle connections,
    /// which is half of its `grace_period`. After that it closes them, and a client that sends in the same instant
    /// loses its request, whatever closes the connection.
    pub post_idle: Duration,
}

/// What all clients of a run share.
#[derive(Debug)]
pub struct Run {
    pub target: Target,
    pub tally: Tally,
    /// Longest time that a connection idles before its next POST.
    pub post_idle: Duration,
    /// How long an upload drips.
    pub upload_takes: Duration,
    /// Most events of an event stream.
    pub events_max: usize,
    grace_period: Duration,
    serial: AtomicU64,
    stop: watch::Sender<bool>,
}

impl Run {
    pub fn new(target: Target, times: Times) -> Self {
        Self {
            target,
            tally: Tally::new(),
            post_idle: times.post_idle,
            upload_takes: times.slow,
            events_max: (times.slow.as_millis() / EVENT_EVERY.as_millis()).max(1) as usize,
            grace_period: times.grace_period,
            serial: AtomicU64::new(0),
            stop: watch::Sender::new(false),
        }
    }

    /// Clients finish what they are at.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    pub fn stopped(&self) -> bool {
        *self.stop.borrow()
    }

    /// Waits that long, or until the run is to end.
    pub async fn pause(&self, time: Duration) {
        let mut stop = self.stop.subscribe();
        // Either is fine.
        let _ = tokio::time::timeout(time, stop.wait_for(|stop| *stop)).await;
    }

    /// Whether something opened at `opened` may belong to a process whose grace period is over.
    pub fn grace_is_over(&self, opened: Instant) -> bool {
        let now = Instant::now();
        self.tally.any_left(|told| opened < told + LEAVING && told + self.grace_period < now + GRACE_SLACK)
    }

    /// A number that no other request has.
    pub fn number(&self) -> u64 {
        self.serial.fetch_add(1, Ordering::Relaxed)
    }
}

/// Starts everybody.
pub fn start(run: &Arc<Run>, crowd: Crowd) -> JoinSet<()> {
    let mut all = JoinSet::new();
    let halves = |count: usize| (0..count).map(|index| (run.clone(), index % 2 == 1));
    for (run, tls) in halves(crowd.get) {
        all.spawn(kept(run, Kind::Get, tls, GET_PAUSE));
    }
    for (run, tls) in halves(crowd.idle_post) {
        let idle = run.post_idle;
        all.spawn(kept(run, Kind::IdlePost, tls, idle));
    }
    for (run, tls) in halves(crowd.fresh) {
        all.spawn(fresh(run, tls));
    }
    for (run, tls) in halves(crowd.http2) {
        all.spawn(http2::client(run, tls || !crowd.http2_in_cleartext));
    }
    for (run, tls) in halves(crowd.events) {
        all.spawn(kept(run, Kind::Events, tls, GET_PAUSE));
    }
    for (run, tls) in halves(crowd.uploads) {
        all.spawn(kept(run, Kind::Upload, tls, GET_PAUSE));
    }
    for (index, (run, tls)) in halves(crowd.websockets).enumerate() {
        let lives = (index % 4 >= 2).then_some(SOCKET_LIVES);
        all.spawn(websocket::client(run, tls, lives));
    }
    all
}

/// A client that keeps its connection: what it does before the next request is what can go wrong.
async fn kept(run: Arc<Run>, kind: Kind, tls: bool, idle_max: Duration) {
    while !run.stopped() {
        let Some(mut connection) = open(&run, kind, tls).await else { continue };
        loop {
            let idle = idle_max.mul_f64(fastrand::f64());
            match connection.idle(idle).await {
                Idle::Open => {}
                Idle::Closed => {
                    run.tally.add(kind, Count::ClosedIdle);
                    break;
                }
                Idle::Broken(why) => {
                    run.tally.fail(kind, &format!("{}: {why}", over(tls)));
                    break;
                }
            }
            if run.stopped() {
                return;
            }
            let began = Instant::now();
            match exchange(&run, kind, &mut connection).await {
                Ok(true) => break,
                Ok(false) => {}
                Err(error) => {
                    let (nth, took) = (connection.answers + 1, began.elapsed().as_secs_f64());
                    let what = format!("request {nth} of its connection {}, after {idle:?} idle", over(tls));
                    run.tally.fail(kind, &format!("{what}: {error} ({took:.3} s after it was sent)"));
                    break;
                }
            }
        }
    }
}

/// One request a connection.
async fn fresh(run: Arc<Run>, tls: bool) {
    while !run.stopped() {
        if let Some(mut connection) = open(&run, Kind::Fresh, tls).await
            && let Err(error) = exchange(&run, Kind::Fresh, &mut connection).await
        {
            run.tally.fail(Kind::Fresh, &format!("the first request {}: {error}", over(tls)));
        }
        run.pause(FRESH_PAUSE.mul_f64(fastrand::f64())).await;
    }
}

async fn open(run: &Run, kind: Kind, tls: bool) -> Option<Http1> {
    run.tally.add(kind, Count::Connection);
    match run.target.connect(tls, b"http/1.1").await {
        Ok(stream) => Some(Http1::new(stream)),
        Err(error) => {
            run.tally.fail(kind, &format!("connecting {}: {error}", over(tls)));
            run.pause(Duration::from_millis(100)).await;
            None
        }
    }
}

/// One request and its answer; whether the connection ends with it.
async fn exchange(run: &Run, kind: Kind, connection: &mut Http1) -> Result<bool, String> {
    run.tally.add(kind, Count::Request);
    let (answer, expected) = match kind {
        Kind::IdlePost => {
            let body = format!("post {}", run.number());
            (connection.request("POST", "/post", body.as_bytes()).await?, body)
        }
        Kind::Events => {
            let count = fastrand::usize(1..=run.events_max);
            let answer = connection.request("GET", &format!("/events/{count}"), b"").await?;
            (answer, (0..count).map(event).collect())
        }
        Kind::Upload => upload(run, connection).await?,
        _ => {
            let path = format!("/get/{}", run.number());
            (connection.request("GET", &path, b"").await?, got(&path))
        }
    };
    check(answer.status, &answer.body, &expected)?;
    run.tally.add(kind, Count::Answer);
    if answer.last {
        run.tally.add(kind, Count::Announced);
    }
    Ok(answer.last)
}

async fn upload(run: &Run, connection: &mut Http1) -> Result<(super::http1::Answer, String), String> {
    let mut sum = Sum::default();
    let head = "POST /upload HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
    connection.send(head.as_bytes()).await?;
    for piece in drips(run) {
        sum.add(&piece);
        let mut chunk = format!("{:x}\r\n", piece.len()).into_bytes();
        chunk.extend_from_slice(&piece);
        chunk.extend_from_slice(b"\r\n");
        connection.send(&chunk).await?;
        tokio::time::sleep(DRIP_EVERY).await;
    }
    connection.send(b"0\r\n\r\n").await?;
    Ok((connection.answer().await?, sum.text()))
}

/// The pieces of an upload; the next is due [`DRIP_EVERY`] after the one before.
pub fn drips(run: &Run) -> impl Iterator<Item = Vec<u8>> + use<> {
    let count = run.upload_takes.as_millis() / DRIP_EVERY.as_millis();
    (0..count.max(1))
        .map(|_| std::iter::repeat_with(fastrand::alphanumeric).take(DRIP_BYTES).map(|c| c as u8).collect())
}

/// Waits for the next piece of an upload to be due.
pub async fn drip() {
    tokio::time::sleep(DRIP_EVERY).await;
}

/// An answer is one only if it is 200 and says what it has to.
pub fn check(status: u16, body: &[u8], expected: &str) -> Result<(), String> {
    if status == 200 && body == expected.as_bytes() {
        return Ok(());
    }
    let body = String::from_utf8_lossy(body);
    let shown: String = body.chars().take(300).collect();
    Err(format!("status {status}, {} bytes in place of {}: {shown}", body.len(), expected.len()))
}

/// Longest that one request may take, its own slowness included.
pub fn longest(run: &Run) -> Duration {
    PATIENCE + run.upload_takes
}
