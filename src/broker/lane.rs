//! One channel and the task that has it: publishes in order, watches what is confirmed and returned, hands replies out.
//!
//! What the library leaves to whoever uses it, and why all of a channel is one task's:
//! - Messages are numbered when they are published, and written afterwards: two tasks at once could swap them.
//! - With a returned message it is the next confirmation that says so, whosever that is; what was returned is told by its
//!   own correlation id.
//! - A confirmation that nobody waits for any more is kept for ever: the task waits for each.
//! - When the broker closes a channel, the library says so with a frame that overtakes the messages it still has for it. One
//!   of them behind it ends the whole connection (504, `expected 'channel.open'`). So the first message of a channel goes
//!   alone: that there is no such exchange, or that one may not publish there, costs no other channel.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use lapin::message::Delivery;
use lapin::options::{BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation, Connection, Consumer, ErrorKind};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::config::PENDING_MAX;
use super::failure::Failure;
use super::id::{Id, Ids};
use super::message::Reply;
use super::pending::Pending;
use crate::base::task::{self, AbortOnDrop};
use crate::base::{clock, fault, panics};
use crate::telemetry::metrics::BrokerMetrics;

/// What replies are sent to: the channel that asked, without a queue (direct reply-to, RabbitMQ).
const REPLY_TO: &str = "amq.rabbitmq.reply-to";
/// Between attempts to open a channel that is lost again at once.
const PAUSE: Duration = Duration::from_millis(100);
/// A channel that has lasted so long is opened again without a pause.
const LASTING: Duration = Duration::from_secs(1);
/// What a frame has beside the headers of a message: properties and lengths.
const FRAME_REST: usize = 2 * 1024;
/// Longest that others wait for the first message of a channel.
const ALONE_MAX: Duration = Duration::from_secs(1);
/// How long the library may take to tell messages of a channel that it is closed, and why. It does so at once.
const LAST_WORDS: Duration = Duration::from_millis(100);
/// Longest a message may wait in a queue: more is no number of milliseconds for RabbitMQ, which closes the channel over it.
const EXPIRATION_MAX: u128 = 0xffff_ffff;

/// Messages of one channel.
#[derive(Debug)]
pub(super) struct Lane {
    jobs: mpsc::Sender<Job>,
    pending: Arc<Pending>,
    _task: AbortOnDrop,
}

/// A message to be published.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) id: Id,
    pub(super) exchange: ShortString,
    pub(super) routing_key: ShortString,
    pub(super) properties: BasicProperties,
    /// Bytes of its headers.
    pub(super) header_bytes: usize,
    pub(super) body: Bytes,
    pub(super) deadline: Instant,
    pub(super) kind: Kind,
    /// Whether some queue must take it.
    pub(super) mandatory: bool,
    /// One of the places for messages under way: kept until the broker has said what became of it.
    pub(super) place: Arc<OwnedSemaphorePermit>,
}

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A reply.
    Ask,
    /// That the broker has taken it.
    Tell,
}

/// What lanes of one connection share.
#[derive(Debug, Clone)]
pub(super) struct Common {
    pub(super) connection: Arc<Connection>,
    pub(super) ids: Arc<Ids>,
    pub(super) metrics: Arc<BrokerMetrics>,
    pub(super) open_timeout: Duration,
}

/// An open channel, with the replies that come over it if it is for calls.
pub(super) struct Open {
    channel: Channel,
    replies: Option<Consumer>,
}

impl Lane {
    /// A lane over `open`, or over a channel that is yet to be opened. It ends with the connection, and tells `lost`; by a
    /// panic before, which it tells, too.
    pub(super) fn start(
        common: Common,
        open: Option<Open>,
        kind: Kind,
        lost: impl Fn(bool) + Send + 'static,
    ) -> Self {
        // Room for as many as there may be places: it is never full.
        let (jobs, queue) = mpsc::channel(usize::try_from(PENDING_MAX).unwrap_or(usize::MAX));
        let pending = Arc::new(Pending::default());
        let driver = Driver { common, kind, pending: pending.clone(), queue };
        let waiting = pending.clone();
        let task = task::spawn("amqp channel", async move {
            let ended = panics::contained(driver.run(open)).await;
            if let Err(said) = &ended {
                tracing::error!("the driver of an AMQP channel panicked: {said}");
                waiting.fail_all(Failure::Lost);
            }
            lost(ended.is_err());
        });
        Self { jobs, pending, _task: AbortOnDrop::new(task) }
    }

    /// Who waits for something of this channel.
    pub(super) fn pending(&self) -> &Arc<Pending> {
        &self.pending
    }

    /// Publishes `job`, for whose id somebody waits already.
    pub(super) fn send(&self, job: Job) {
        let id = job.id;
        if self.jobs.try_send(job).is_err() {
            self.pending.settle(&id, Err(Failure::Down));
        }
    }
}

impl Common {
    /// Opens a channel, for calls with replies to it.
    pub(super) async fn open(&self, kind: Kind) -> Result<Open, lapin::Error> {
        let opening = async {
            let channel = self.connection.create_channel().await?;
            channel.confirm_select(ConfirmSelectOptions::default()).await?;
            let replies = match kind {
                Kind::Tell => None,
                Kind::Ask => {
                    let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
                    let consumer = channel
                        .basic_consume(REPLY_TO.into(), "replies".into(), options, FieldTable::default())
                        .await?;
                    Some(consumer)
                }
            };
            Ok(Open { channel, replies })
        };
        match tokio::time::timeout(self.open_timeout, opening).await {
            Ok(opened) => opened,
            Err(_) => Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
        }
    }
}

struct Driver {
    common: Common,
    kind: Kind,
    pending: Arc<Pending>,
    queue: mpsc::Receiver<Job>,
}

/// Why a channel is served no longer.
enum Ended {
    /// It broke; a message that was not given to it any more is for the next one.
    Broke(Failure, Option<Box<Job>>),
    /// Nobody sends any more.
    Unused,
}

type UnderWay = FuturesUnordered<BoxFuture<'static, (Id, Kind, lapin::Result<Confirmation>)>>;

impl Driver {
    /// Serves one channel after the other, for as long as the connection lasts.
    async fn run(mut self, mut open: Option<Open>) {
        let mut first = None;
        loop {
            if open.is_none() && self.kind == Kind::Tell && first.is_none() {
                // Opened when it is used: an exchange that does not exist costs no more than who asks for it.
                let Some(job) = self.queue.recv().await else { return };
                first = Some(job);
            }
            fault::point("amqp channel", "");
            let began = clock::now();
            let opened = match open.take() {
                Some(open) => Ok(open),
                None => self.common.open(self.kind).await,
            };
            match opened {
                Ok(open) => match self.serve(open, first.take()).await {
                    Ended::Unused => return,
                    // Whoever waits here waits for the same exchange.
                    Ended::Broke(Failure::NoExchange, _) => self.pending.fail_all(Failure::NoExchange),
                    Ended::Broke(failure, job) => {
                        self.pending.fail_sent(failure);
                        first = job.map(|job| *job);
                    }
                },
                Err(error) => {
                    tracing::debug!(%error, "no channel to the broker");
                    self.pending.fail_all(Failure::Down);
                    first = None;
                }
            }
            if !self.common.connection.status().connected() {
                return self.end();
            }
            if self.kind == Kind::Ask && clock::now().saturating_duration_since(began) < LASTING {
                tokio::time::sleep(task::spread(PAUSE)).await;
            }
        }
    }

    /// The connection is lost: nobody waits for it.
    fn end(mut self) {
        self.queue.close();
        while self.queue.try_recv().is_ok() {}
        self.pending.fail_sent(Failure::Lost);
        self.pending.fail_all(Failure::Down);
    }

    /// Serves a channel until it ends. What is known of its messages by then is told.
    async fn serve(&mut self, open: Open, first: Option<Job>) -> Ended {
        let mut under_way = UnderWay::new();
        let ended = self.serve_messages(open, first, &mut under_way).await;
        let Ended::Broke(failure, job) = ended else { return ended };
        // That it is closed may be seen before why it is: a message that was under way has that.
        let known = match tokio::time::timeout(LAST_WORDS, under_way.next()).await {
            Ok(Some(done)) => self.settle(done, &mut under_way).err(),
            Ok(None) | Err(_) => None,
        };
        let failure = known.filter(|_| failure == Failure::Lost).unwrap_or(failure);
        Ended::Broke(failure, job)
    }

    async fn serve_messages(&mut self, open: Open, first: Option<Job>, under_way: &mut UnderWay) -> Ended {
        let Open { channel, mut replies } = open;
        if let Some(job) = first
            && let Err(ended) = self.publish(&channel, under_way, job)
        {
            return ended;
        }
        let mut tried = false;
        let mut patience = pin!(tokio::time::sleep(ALONE_MAX));
        loop {
            tokio::select! {
                reply = next(&mut replies) => match reply {
                    Some(Ok(reply)) => self.deliver(reply),
                    Some(Err(error)) => return Ended::Broke(failure_of(&error), None),
                    None => return Ended::Broke(Failure::Lost, None),
                },
                Some(done) = under_way.next(), if !under_way.is_empty() => {
                    if let Err(failure) = self.settle(done, under_way) {
                        return Ended::Broke(failure, None);
                    }
                    tried = true;
                }
                () = &mut patience, if !tried && !under_way.is_empty() => tried = true,
                job = self.queue.recv(), if tried || under_way.is_empty() => match job {
                    None => return Ended::Unused,
                    Some(job) => {
                        if let Err(ended) = self.publish(&channel, under_way, job) {
                            return ended;
                        }
                        if !tried {
                            patience.as_mut().reset((clock::now() + ALONE_MAX).into());
                        }
                    }
                },
            }
        }
    }

    /// Hands a reply to whoever waits for it.
    fn deliver(&self, reply: Delivery) {
        let id = reply.properties.correlation_id().as_ref().and_then(|id| Id::parse(id.as_str()));
        let word = match id {
            Some(id) if self.pending.settle(&id, Ok(Some(Reply { body: reply.data.into() }))) => "delivered",
            Some(id) if self.common.ids.is_own(&id) => "late",
            _ => "foreign",
        };
        self.common.metrics.reply(word);
    }

    /// Gives a message to the channel, unless nobody waits for it any more.
    fn publish(&self, channel: &Channel, under_way: &mut UnderWay, job: Job) -> Result<(), Ended> {
        let now = clock::now();
        if job.deadline <= now {
            return Ok(());
        }
        if !channel.status().connected() {
            // Nothing was sent.
            return Err(Ended::Broke(Failure::Lost, Some(Box::new(job))));
        }
        let frame_max =
            usize::try_from(self.common.connection.configuration().frame_max()).unwrap_or(usize::MAX);
        if job.header_bytes > frame_max.saturating_sub(FRAME_REST) {
            self.pending.settle(&job.id, Err(Failure::TooLarge));
            return Ok(());
        }
        if !self.pending.sending(&job.id) {
            return Ok(());
        }
        let Job { id, exchange, routing_key, properties, body, deadline, kind, mandatory, place, .. } = job;
        let properties = properties.with_correlation_id(id.to_string().into());
        let properties = match kind {
            Kind::Tell => properties.with_delivery_mode(PERSISTENT),
            Kind::Ask => {
                // Nobody waits for the answer afterwards, so nobody need make one.
                let left = deadline.saturating_duration_since(now).as_millis().clamp(1, EXPIRATION_MAX);
                properties
                    .with_delivery_mode(TRANSIENT)
                    .with_reply_to(REPLY_TO.into())
                    .with_expiration(left.to_string().into())
            }
        };
        let channel = channel.clone();
        let mut work = async move {
            let options = BasicPublishOptions { mandatory, ..BasicPublishOptions::default() };
            let published = channel.basic_publish(exchange, routing_key, options, &body, properties).await;
            drop(body);
            let confirmed = match published {
                Ok(confirm) => confirm.await,
                Err(error) => Err(error),
            };
            drop(place);
            (id, kind, confirmed)
        }
        .boxed();
        self.common.metrics.published();
        // Now, so that messages are numbered and written in one order.
        match (&mut work).now_or_never() {
            None => under_way.push(work),
            Some(done) => under_way.push(std::future::ready(done).boxed()),
        }
        Ok(())
    }

    /// What became of messages: `done`, and whatever else is known by now.
    fn settle(
        &self,
        done: (Id, Kind, lapin::Result<Confirmation>),
        under_way: &mut UnderWay,
    ) -> Result<(), Failure> {
        let mut all = vec![done];
        // The confirmation that tells of a returned message may be another's, and was made before that of the message
        // itself: it is here, too. Twice, as a set of futures may pause though there is more.
        for _ in 0..2 {
            while let Some(Some(more)) = under_way.next().now_or_never() {
                all.push(more);
            }
        }
        let mut broke = None;
        let mut told = Vec::with_capacity(all.len());
        for (id, kind, result) in all {
            let (outcome, returned) = match result {
                Ok(Confirmation::Ack(returned)) => (Ok(()), returned),
                Ok(Confirmation::Nack(returned)) => (Err(Failure::Rejected), returned),
                // The channel was asked for confirmations when it was opened.
                Ok(Confirmation::NotRequested) => (Err(Failure::Lost), None),
                Err(error) => {
                    // One that came after the channel had gone does not know why.
                    let failure = failure_of(&error);
                    broke = broke.filter(|_| failure == Failure::Lost).or(Some(failure));
                    continue;
                }
            };
            if let Some(returned) = returned {
                self.common.metrics.returned();
                let whose = returned.properties.correlation_id().as_ref();
                if let Some(whose) = whose.and_then(|id| Id::parse(id.as_str())) {
                    self.pending.settle(&whose, Err(Failure::NoQueue));
                }
            }
            told.push((id, kind, outcome));
        }
        for (id, kind, outcome) in told {
            match (outcome, kind) {
                (Err(failure), _) => drop(self.pending.settle(&id, Err(failure))),
                (Ok(()), Kind::Ask) => self.common.metrics.confirmed(),
                (Ok(()), Kind::Tell) => {
                    self.common.metrics.confirmed();
                    self.pending.settle(&id, Ok(None));
                }
            }
        }
        broke.map_or(Ok(()), Err)
    }
}

/// Kept on disk by a durable queue, or not.
const PERSISTENT: u8 = 2;
const TRANSIENT: u8 = 1;

async fn next(replies: &mut Option<Consumer>) -> Option<lapin::Result<Delivery>> {
    match replies {
        Some(replies) => replies.next().await,
        None => std::future::pending().await,
    }
}

/// What an error of a channel means for those who wait.
fn failure_of(error: &lapin::Error) -> Failure {
    match error.kind() {
        ErrorKind::ProtocolError(error) => match error.get_id() {
            // ACCESS_REFUSED and NOT_FOUND; PRECONDITION_FAILED is a message that is too large for it.
            403 | 406 => Failure::Refused,
            404 => Failure::NoExchange,
            _ => Failure::Lost,
        },
        _ => Failure::Lost,
    }
}
