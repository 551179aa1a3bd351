//! HTTP/2 as RFC 9113 wants it of clients: after GOAWAY nothing new is sent on a connection, what it says was not looked
//! at is sent again on another, and everything else must be answered (section 6.8).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use h2::client::SendRequest;
use h2::{Error, Reason};
use http::Request;

use super::clients::{Run, check, drip, drips, longest};
use super::origin::{Sum, event, got};
use super::tally::{Count, Kind};
use super::wire::{PATIENCE, over};

/// Streams that a connection has open at most: one uploads, one listens to events, the others ask.
const STREAMS: usize = 6;
/// Longest time between two requests of a stream's place.
const PAUSE: Duration = Duration::from_millis(60);

#[derive(Debug, Clone)]
enum Job {
    Get,
    Post,
    Events(usize),
    Upload,
}

/// How a request ended that was not answered.
enum End {
    /// The gateway said that it did not look at it: it may be sent again.
    NotSeen,
    Lost(String),
}

/// One connection after the other.
pub async fn client(run: Arc<Run>, tls: bool) {
    let mut again: Vec<Job> = Vec::new();
    while !run.stopped() || !again.is_empty() {
        run.tally.add(Kind::Http2, Count::Connection);
        let sender = match connect(&run, tls).await {
            Ok(sender) => sender,
            Err(error) => {
                run.tally.fail(Kind::Http2, &format!("connecting {}: {error}", over(tls)));
                run.pause(Duration::from_millis(100)).await;
                continue;
            }
        };
        let places =
            (0..STREAMS).map(|place| one_after_the_other(&run, sender.clone(), place, again.pop(), tls));
        let mut left: Vec<Job> = join_all(places).await.into_iter().flatten().collect();
        again.append(&mut left);
    }
}

async fn connect(run: &Run, tls: bool) -> Result<SendRequest<Bytes>, String> {
    let stream = run.target.connect(tls, b"h2").await.map_err(|error| error.to_string())?;
    let handshake = tokio::time::timeout(PATIENCE, h2::client::handshake(stream)).await;
    let (sender, connection) =
        handshake.map_err(|_| "no handshake".to_owned())?.map_err(|error| error.to_string())?;
    // Ends with its last stream and sender. What goes wrong with it is told to each stream.
    tokio::spawn(async move { drop(connection.await) });
    Ok(sender)
}

/// Requests on one connection until it takes no more; what is to be sent again on the next one is returned.
async fn one_after_the_other(
    run: &Run,
    sender: SendRequest<Bytes>,
    place: usize,
    mut again: Option<Job>,
    tls: bool,
) -> Option<Job> {
    loop {
        let job = match again.take() {
            Some(job) => job,
            None => {
                run.pause(PAUSE.mul_f64(fastrand::f64())).await;
                if run.stopped() {
                    return None;
                }
                let job = next(run, place);
                run.tally.add(job.kind(), Count::Request);
                job
            }
        };
        let mut ready = match tokio::time::timeout(PATIENCE, sender.clone().ready()).await {
            Ok(Ok(ready)) => ready,
            Ok(Err(error)) => return not_taken(run, job, &error, tls),
            Err(_) => {
                run.tally.fail(job.kind(), &format!("HTTP/2 {}: no room for a stream", over(tls)));
                continue;
            }
        };
        let kind = job.kind();
        match tokio::time::timeout(longest(run), send(run, &mut ready, &job)).await {
            Ok(Ok(())) => run.tally.add(kind, Count::Answer),
            Ok(Err(End::NotSeen)) => {
                run.tally.add(kind, Count::SentAgain);
                return Some(job);
            }
            Ok(Err(End::Lost(error))) => {
                run.tally.fail(kind, &format!("{job:?} over HTTP/2 {}: {error}", over(tls)));
            }
            Err(_) => run.tally.fail(kind, &format!("{job:?} over HTTP/2 {}: no answer", over(tls))),
        }
    }
}

/// The connection takes no more. Nothing of `job` has been sent: it goes to the next one.
fn not_taken(run: &Run, job: Job, error: &Error, tls: bool) -> Option<Job> {
    let announced = error.is_go_away() && error.is_remote() && error.reason() == Some(Reason::NO_ERROR);
    let ended = error.get_io().is_some_and(|error| error.kind() != std::io::ErrorKind::ConnectionReset);
    if announced {
        run.tally.add(Kind::Http2, Count::Announced);
    } else if ended {
        run.tally.add(Kind::Http2, Count::ClosedIdle);
    } else {
        run.tally.fail(job.kind(), &format!("the HTTP/2 connection {}: {error}", over(tls)));
        return None;
    }
    Some(job)
}

fn next(run: &Run, place: usize) -> Job {
    match place {
        0 => Job::Upload,
        1 => Job::Events(fastrand::usize(1..=run.events_max)),
        _ if fastrand::bool() => Job::Get,
        _ => Job::Post,
    }
}

impl Job {
    fn kind(&self) -> Kind {
        match self {
            Self::Get | Self::Post => Kind::Http2,
            Self::Events(_) => Kind::Events,
            Self::Upload => Kind::Upload,
        }
    }
}

async fn send(run: &Run, sender: &mut SendRequest<Bytes>, job: &Job) -> Result<(), End> {
    let get = format!("/get/{}", run.number());
    let post = format!("post {}", run.number());
    let (method, path, mut expected) = match job {
        Job::Get => ("GET", get.clone(), got(&get)),
        Job::Post => ("POST", "/post".to_owned(), post.clone()),
        Job::Events(count) => ("GET", format!("/events/{count}"), (0..*count).map(event).collect()),
        Job::Upload => ("POST", "/upload".to_owned(), String::new()),
    };
    let request = Request::builder()
        .method(method)
        .uri(format!("http://localhost{path}"))
        .body(())
        .map_err(|error| End::Lost(error.to_string()))?;
    let (answer, mut body) = sender.send_request(request, method == "GET").map_err(not_sent)?;
    match job {
        // When the gateway takes no more of a body, its answer (or its reset) says why.
        Job::Post => drop(body.send_data(Bytes::from(post), true)),
        Job::Upload => {
            let mut sum = Sum::default();
            for piece in drips(run) {
                sum.add(&piece);
                if body.send_data(Bytes::from(piece), false).is_err() {
                    break;
                }
                drip().await;
            }
            drop(body.send_data(Bytes::new(), true));
            expected = sum.text();
        }
        Job::Get | Job::Events(_) => {}
    }
    let (head, mut stream) = answer.await.map_err(end)?.into_parts();
    let mut received = Vec::new();
    while let Some(piece) = stream.data().await {
        let piece = piece.map_err(lost)?;
        received.extend_from_slice(&piece);
        stream.flow_control().release_capacity(piece.len()).map_err(lost)?;
    }
    check(head.status.as_u16(), &received, &expected).map_err(End::Lost)
}

/// Nothing was sent: unless something broke, that is what a new connection is for.
fn not_sent(error: Error) -> End {
    match error.get_io() {
        Some(io) if io.kind() != std::io::ErrorKind::ConnectionReset => End::NotSeen,
        _ => end(error),
    }
}

/// Before an answer began: the gateway may have said that it did not look at the request.
fn end(error: Error) -> End {
    let goaway = error.is_go_away() && error.reason() == Some(Reason::NO_ERROR);
    let refused = error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM);
    if error.is_remote() && (goaway || refused) { End::NotSeen } else { lost(error) }
}

fn lost(error: Error) -> End {
    End::Lost(error.to_string())
}
