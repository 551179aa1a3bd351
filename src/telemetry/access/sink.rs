//! The queue between requests and the writer thread, and the thread.
//!
//! Requests never wait: [`Queue::submit`] is one attempt to push. The writer wakes at most once per
//! [`GATHER`] and writes what has come together, so a busy gateway makes few system calls and an idle one none.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::mem;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

use bytes::Bytes;
use jiff::tz::TimeZone;
use parking_lot::Mutex;

use super::record::AccessRecord;
use super::stamp::Stamps;
use super::{AccessLog, Output};
use crate::base::{clock, fault, panics};
use crate::telemetry::bus::{self, Bus, Message};
use crate::telemetry::metrics::Metrics;

/// Records that may wait. At a hundred thousand requests a second the writer may stall for a sixth of a second before
/// records are dropped.
pub(super) const QUEUE_RECORDS_MAX: usize = 16 * 1024;

/// Bytes of records that may wait: with heads of ordinary size never reached before [`QUEUE_RECORDS_MAX`]; with heads
/// blown up on purpose this is what bounds memory.
const QUEUE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// How long the writer lets records come together before it writes them.
const GATHER: Duration = Duration::from_millis(20);

/// Bytes of lines written at once.
const BATCH_BYTES: usize = 64 * 1024;

/// Documents that go to the bus at once.
const BATCH_DOCUMENTS: usize = 256;

/// How long an output that failed is left alone.
const RETRY: Duration = Duration::from_secs(1);

/// How often dropped records are mentioned in the process log.
const DROPS_MENTIONED: Duration = Duration::from_secs(60);

/// The writer looks by itself this often, should it ever have missed being woken.
const BACKSTOP: Duration = Duration::from_secs(5);

/// The queue between requests and the writer: one per process. Making it has no effect; [`Writer::start`] serves it.
#[derive(Debug)]
pub struct Queue {
    sender: SyncSender<Entry>,
    receiver: Mutex<Option<Receiver<Entry>>>,
    waiting_bytes: AtomicUsize,
    /// Whether the writer waits for its next record without a time limit.
    idle: AtomicBool,
    writer: OnceLock<Thread>,
    orders: Mutex<Orders>,
    /// Dropped since the writer last looked; the metrics have them already.
    dropped: AtomicU64,
    metrics: Arc<Metrics>,
}

type Entry = (Arc<AccessLog>, Box<AccessRecord>);

/// What the writer is asked to do besides writing.
#[derive(Debug, Default)]
struct Orders {
    open: Vec<Output>,
    reopen: bool,
    flushed: Vec<SyncSender<()>>,
    stop: bool,
}

impl Queue {
    /// An empty queue; what is dropped is counted in `metrics`.
    pub fn new(metrics: Arc<Metrics>) -> Arc<Self> {
        let (sender, receiver) = sync_channel(QUEUE_RECORDS_MAX);
        Arc::new(Self {
            sender,
            receiver: Mutex::new(Some(receiver)),
            waiting_bytes: AtomicUsize::new(0),
            idle: AtomicBool::new(false),
            writer: OnceLock::new(),
            orders: Mutex::default(),
            dropped: AtomicU64::new(0),
            metrics,
        })
    }

    pub(super) fn submit(&self, log: Arc<AccessLog>, record: Box<AccessRecord>) {
        let bytes = record.bytes();
        let waiting = self.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
        if waiting > QUEUE_BYTES_MAX || self.sender.try_send((log, record)).is_err() {
            self.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.dropped.fetch_add(1, Ordering::Relaxed);
            self.metrics.access_records_dropped(1);
            return;
        }
        // Either the writer, before it goes idle, sees the record just sent, or we see that it is idle.
        fence(Ordering::SeqCst);
        if self.idle.load(Ordering::Relaxed) && self.idle.swap(false, Ordering::Relaxed) {
            self.wake();
        }
    }

    pub(super) fn open(&self, output: &Output) {
        self.order(|orders| {
            if !orders.open.contains(output) {
                orders.open.push(output.clone());
            }
        });
    }

    /// Has the writer close its files and open anew those that are still written to.
    pub fn reopen(&self) {
        self.order(|orders| orders.reopen = true);
    }

    fn order(&self, change: impl FnOnce(&mut Orders)) {
        change(&mut self.orders.lock());
        self.wake();
    }

    fn wake(&self) {
        if let Some(writer) = self.writer.get() {
            writer.unpark();
        }
    }
}

/// The writer thread.
#[derive(Debug)]
pub struct Writer {
    queue: Arc<Queue>,
    thread: JoinHandle<()>,
}

impl Writer {
    /// Starts the thread that serves `queue`.
    ///
    /// # Errors
    /// If the system has no thread to give, or `queue` has a writer already.
    pub fn start(queue: &Arc<Queue>) -> io::Result<Self> {
        let receiver = queue
            .receiver
            .lock()
            .take()
            .ok_or_else(|| io::Error::other("the access log has a writer already"))?;
        let thread = thread::Builder::new().name("access-log".to_owned()).spawn({
            let queue = Arc::clone(queue);
            move || {
                let (outputs, documents) = (Vec::new(), Documents::default());
                let stamps = Stamps::new(TimeZone::system());
                let mut writer = Loop { queue, receiver, outputs, documents, stamps };
                // A panic costs the records that were being written, and the outputs are opened anew.
                while let Err(said) = panics::caught(|| writer.run()) {
                    writer.start_over(&said);
                }
            }
        })?;
        if queue.writer.set(thread.thread().clone()).is_err() {
            return Err(io::Error::other("the access log has a writer already"));
        }
        // It may have gone idle before it could be woken.
        thread.thread().unpark();
        Ok(Self { queue: Arc::clone(queue), thread })
    }

    /// Closes files and opens them anew: after they were moved away (USR1).
    pub fn reopen(&self) {
        self.queue.reopen();
    }

    /// Waits until everything submitted so far is written, at most `bound`. Returns whether it is. Blocks.
    pub fn flush(&self, bound: Duration) -> bool {
        let (done, flushed) = sync_channel(1);
        self.queue.order(|orders| orders.flushed.push(done));
        flushed.recv_timeout(bound).is_ok()
    }

    /// Writes what waits and ends the thread, within `bound`. Returns whether everything was written. Blocks. Records
    /// submitted from now on may be dropped.
    pub fn stop(self, bound: Duration) -> bool {
        let (done, stopped) = sync_channel(1);
        self.queue.order(|orders| {
            orders.flushed.push(done);
            orders.stop = true;
        });
        // A thread that hangs in a write is left behind rather than waited for.
        stopped.recv_timeout(bound).is_ok() && self.thread.join().is_ok()
    }
}

struct Loop {
    queue: Arc<Queue>,
    receiver: Receiver<Entry>,
    /// A few: looked through.
    outputs: Vec<Destination>,
    documents: Documents,
    stamps: Stamps,
}

impl Loop {
    /// Whatever was half done is forgotten.
    fn start_over(&mut self, said: &str) {
        tracing::error!("the writer of the access log panicked: {said}");
        self.outputs.clear();
        self.documents = Documents::default();
        // Should it panic at every record, it does not keep a core busy with that.
        thread::park_timeout(GATHER);
    }

    fn run(&mut self) {
        let mut mention_drops_at = clock::now();
        loop {
            let orders = mem::take(&mut *self.queue.orders.lock());
            for output in orders.open {
                let index = place(&mut self.outputs, &output);
                if let Some(destination) = self.outputs.get_mut(index) {
                    destination.open(clock::now());
                }
            }
            let wrote = self.drain(None);
            fault::point("access log", "");
            if orders.reopen {
                self.reopen();
            }
            for done in &orders.flushed {
                // Whoever asked may have stopped waiting.
                let _told = done.try_send(());
            }
            if orders.stop {
                return;
            }
            if clock::now() >= mention_drops_at {
                let dropped = self.queue.dropped.swap(0, Ordering::Relaxed);
                if dropped > 0 {
                    tracing::warn!(records = dropped, "access records dropped: the output is too slow");
                    mention_drops_at = clock::now() + DROPS_MENTIONED;
                }
            }
            if wrote {
                thread::park_timeout(GATHER);
            } else {
                self.wait();
            }
        }
    }

    /// Waits for the next record or order.
    fn wait(&mut self) {
        self.queue.idle.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        match self.receiver.try_recv() {
            Ok(entry) => {
                self.drain(Some(entry));
            }
            // An order given since is followed by an unpark, which makes this return at once.
            Err(_) => {
                thread::park_timeout(BACKSTOP);
                // If a record woke us, others are likely to follow it; an order is not kept waiting.
                if !self.queue.idle.load(Ordering::Relaxed) {
                    thread::park_timeout(GATHER);
                }
            }
        }
        self.queue.idle.store(false, Ordering::Relaxed);
    }

    /// Writes all that waits. Returns whether there was anything.
    ///
    /// Stops after as many records as the queue holds: under load there are always new ones, and orders wait.
    fn drain(&mut self, first: Option<Entry>) -> bool {
        let Self { queue, receiver, outputs, documents, stamps } = self;
        let mut records = 0;
        let mut last: Option<(Arc<AccessLog>, usize)> = None;
        let waiting = std::iter::from_fn(|| receiver.try_recv().ok());
        for (log, record) in first.into_iter().chain(waiting).take(QUEUE_RECORDS_MAX) {
            queue.waiting_bytes.fetch_sub(record.bytes(), Ordering::Relaxed);
            records += 1;
            documents.add(&log, &record, stamps);
            let Some(output) = &log.output else { continue };
            // Nearly always the log of the record before: paths are slow to compare.
            let index = match &last {
                Some((before, index)) if Arc::ptr_eq(before, &log) => *index,
                _ => {
                    let index = place(outputs, output);
                    last = Some((log.clone(), index));
                    index
                }
            };
            let Some(destination) = outputs.get_mut(index) else { continue };
            log.format.write(&record, stamps, &mut destination.batch);
            destination.ends.push(destination.batch.len());
            if destination.batch.len() >= BATCH_BYTES {
                destination.write(&queue.metrics, clock::now());
            }
        }
        documents.offer();
        if records > 0 {
            let now = clock::now();
            outputs.iter_mut().for_each(|destination| destination.write(&queue.metrics, now));
        }
        records > 0
    }

    /// Files not written to since the last time belong to an earlier configuration: they are only closed.
    fn reopen(&mut self) {
        self.outputs.retain_mut(|destination| mem::take(&mut destination.used));
        for destination in &mut self.outputs {
            destination.file = None;
            destination.retry_at = None;
            destination.torn = false;
            destination.open(clock::now());
        }
    }
}

/// What is on its way to the bus.
#[derive(Debug, Default)]
struct Documents {
    /// The bus of those that wait: one per process.
    bus: Option<Arc<Bus>>,
    waiting: Vec<Message>,
    scratch: Vec<u8>,
}

impl Documents {
    /// Adds the document of `record`, if its log has a bus that takes any.
    fn add(&mut self, log: &AccessLog, record: &AccessRecord, stamps: &mut Stamps) {
        let Some(bus) = log.bus.as_ref().filter(|bus| bus.is_open()) else { return };
        if self.bus.as_ref().is_none_or(|known| !Arc::ptr_eq(known, bus)) {
            self.offer();
            self.bus = Some(bus.clone());
        }
        self.scratch.clear();
        log.format.write_document(record, stamps, &mut self.scratch);
        let body = Bytes::copy_from_slice(&self.scratch);
        self.waiting.push(Message { kind: bus::Kind::Access, at: record.ended, body });
        if self.waiting.len() >= BATCH_DOCUMENTS {
            self.offer();
        }
    }

    fn offer(&mut self) {
        if let (Some(bus), false) = (&self.bus, self.waiting.is_empty()) {
            bus.offer(self.waiting.drain(..));
        }
    }
}

/// The index of the destination for `output`, made if there is none.
fn place(outputs: &mut Vec<Destination>, output: &Output) -> usize {
    outputs.iter().position(|destination| destination.output == *output).unwrap_or_else(|| {
        outputs.push(Destination::new(output));
        outputs.len() - 1
    })
}

/// One output with the lines on their way to it.
#[derive(Debug)]
struct Destination {
    output: Output,
    file: Option<File>,
    batch: Vec<u8>,
    /// Where each line of the batch ends.
    ends: Vec<usize>,
    used: bool,
    /// Set while the output fails: when to try again.
    retry_at: Option<Instant>,
    /// Records lost since it failed.
    lost: u64,
    /// The last write ended within a line.
    torn: bool,
}

impl Destination {
    fn new(output: &Output) -> Self {
        Self {
            output: output.clone(),
            file: None,
            batch: Vec::with_capacity(BATCH_BYTES + BATCH_BYTES / 4),
            ends: Vec::new(),
            used: true,
            retry_at: None,
            lost: 0,
            torn: false,
        }
    }

    /// Opens the file, if it is one and is not open.
    fn open(&mut self, now: Instant) {
        let Output::File(path) = &self.output else { return };
        if self.file.is_some() || self.retry_at.is_some_and(|at| now < at) {
            return;
        }
        match OpenOptions::new().append(true).create(true).mode(0o640).open(path) {
            // Trouble is over only once a line was written.
            Ok(file) => self.file = Some(file),
            Err(error) => self.failed(now, &error),
        }
    }

    /// Writes the batch; whatever cannot be written is lost and counted.
    fn write(&mut self, metrics: &Metrics, now: Instant) {
        let records = self.ends.len() as u64;
        if records == 0 {
            return;
        }
        self.used = true;
        let written = match self.try_write(now) {
            Ok(()) => {
                if self.retry_at.take().is_some() || self.lost > 0 {
                    let lost = mem::take(&mut self.lost);
                    tracing::warn!(output = %self.output, lost, "the access log is written again");
                }
                records
            }
            Err((bytes, error)) => {
                let whole = self.ends.partition_point(|end| *end <= bytes) as u64;
                self.torn |= bytes > 0 && !self.ends.contains(&bytes);
                self.lost += records - whole;
                metrics.access_records_failed(records - whole);
                if let Some(error) = error {
                    self.failed(now, &error);
                }
                whole
            }
        };
        metrics.access_records_written(written);
        self.batch.clear();
        self.ends.clear();
    }

    /// On failure: how much of the batch was written, and the error, unless it is known already.
    fn try_write(&mut self, now: Instant) -> Result<(), (usize, Option<io::Error>)> {
        if self.retry_at.is_some_and(|at| now < at) {
            return Err((0, None));
        }
        self.open(now);
        let mut stdout;
        let mut stderr;
        let to: &mut dyn Write = match (&self.output, &mut self.file) {
            (Output::Stdout, _) => {
                stdout = io::stdout().lock();
                &mut stdout
            }
            (Output::Stderr, _) => {
                stderr = io::stderr().lock();
                &mut stderr
            }
            (Output::File(_), Some(file)) => file,
            (Output::File(_), None) => return Err((0, None)),
        };
        if self.torn {
            to.write_all(b"\n").map_err(|error| (0, Some(error)))?;
            self.torn = false;
        }
        let mut written = 0;
        while let Some(rest) = self.batch.get(written..).filter(|rest| !rest.is_empty()) {
            match to.write(rest) {
                Ok(0) => return Err((written, Some(io::ErrorKind::WriteZero.into()))),
                Ok(bytes) => written += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err((written, Some(error))),
            }
        }
        to.flush().map_err(|error| (written, Some(error)))
    }

    /// Says so once per trouble, and leaves the output alone for a while.
    fn failed(&mut self, now: Instant, error: &io::Error) {
        if self.retry_at.is_none() {
            tracing::error!(output = %self.output, %error, "cannot write the access log; trying on");
        }
        self.retry_at = Some(now + RETRY);
        // A file that was removed together with its directory must be looked for anew.
        self.file = None;
    }
}
