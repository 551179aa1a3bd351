//! The process log: what the process says about itself, one line an event, on standard error.
//!
//! ```text
//! 2026-08-22T01:01:08.007Z WARN upstream=users server=10.0.0.1:80 failures=5 circuit opened
//! ```
//!
//! Time in UTC, level, the fields, the message; for code that is not ours (and for everything at `debug` and `trace`)
//! the module in brackets before the fields. Values that come from outside cannot forge a line or command a terminal:
//! control characters are escaped.
//!
//! The same lines go to the log bus as JSON, where there is one: see [`super::bus`].
//!
//! Events of `tracing` and records of the `log` crate (Pingora's) end up here alike. [`QUIET`] lists whose errors are
//! not shown as such.
//!
//! Requests write these lines themselves, so whoever reads standard error must not be able to hold them up: a pipe that
//! nobody empties loses lines, and their number is told when it takes some again.

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use jiff::tz::TimeZone;
use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber, span};

use super::access::Stamps;
use super::bus::{Bus, Fields, is_kept_from_the_bus};
use crate::base::clock;

/// Who says nothing at all: messages to and from brokers, bodies, headers and passwords among them, stand in what it logs.
/// What comes of them is told by `broker`.
const SILENT: &[&str] = &["lapin"];

/// Modules that report at `error` and `warn` what clients and servers do wrong: every aborted download, every refused
/// connection, every scanner at the TLS port. The access log and the metrics have all of that, with its reason and
/// request id, so here it is `debug`.
pub const QUIET: &[&str] = &[
    // Handshakes that failed, connects refused, requests broken, bodies cut off: one outcome or one attempt each.
    "pingora_core",
    // Health checks: what comes of them is logged by `upstream`.
    "pingora_load_balancing",
    // "Fail to proxy", "Error finish sending body to downstream".
    "pingora_proxy",
    // Errors of peers, on either side.
    "h2",
    "hyper",
    "rustls",
    // Names that do not resolve: a status of the upstream.
    "hickory_proto",
    "hickory_resolver",
];

/// The process log. Clones are the same log.
#[derive(Debug, Clone)]
pub struct ProcessLog(Arc<Shared>);

/// There can be one process log, and something else is installed as such.
#[derive(Debug, thiserror::Error)]
#[error("a process log is installed already")]
pub struct AlreadyInstalled;

impl ProcessLog {
    /// Makes standard error the log of the whole process, from `level` up. Colours only if it is a terminal and
    /// `NO_COLOR` is not set.
    ///
    /// # Errors
    /// If one is installed already; once per process.
    pub fn install(level: LevelFilter) -> Result<Self, AlreadyInstalled> {
        let colour =
            io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty());
        let this = Self::to(Box::new(StandardError::default()), level, colour);
        log::set_boxed_logger(Box::new(this.clone())).map_err(|_| AlreadyInstalled)?;
        tracing::subscriber::set_global_default(this.clone()).map_err(|_| AlreadyInstalled)?;
        this.set_level(level);
        Ok(this)
    }

    /// Logs from `level` up, from now on.
    pub fn set_level(&self, level: LevelFilter) {
        self.0.level.store(rank(level), Relaxed);
        log::set_max_level(match rank(level) {
            0 => log::LevelFilter::Off,
            1 => log::LevelFilter::Error,
            2 => log::LevelFilter::Warn,
            3 => log::LevelFilter::Info,
            4 => log::LevelFilter::Debug,
            _ => log::LevelFilter::Trace,
        });
        // Each place that logs remembers whether it is of interest.
        tracing_core::callsite::rebuild_interest_cache();
    }

    /// Has `bus` take each line, too, whenever it is open. One for the life of the process: the first.
    pub fn feed(&self, bus: Arc<Bus>) {
        self.0.bus.get_or_init(|| bus);
    }

    fn to(out: Box<dyn Write + Send>, level: LevelFilter, colour: bool) -> Self {
        let out = Mutex::new(Out { stamps: Stamps::new(TimeZone::UTC), to: out, lost: 0, torn: false });
        Self(Arc::new(Shared { level: AtomicU8::new(rank(level)), colour, out, bus: OnceLock::new() }))
    }

    fn shows(&self, target: &str, level: Level) -> bool {
        !SILENT.iter().any(|silent| is_within(target, silent))
            && rank(effective(target, level).into()) <= self.0.level.load(Relaxed)
    }

    /// Writes a line of that `level`, which is the effective one. Returns the time that it has.
    fn write(&self, target: &str, level: Level, fields: &str, message: &str) -> (SystemTime, String) {
        let mut line = String::with_capacity(64 + fields.len() + message.len());
        let (colour, plain) = if self.0.colour { (colour_of(level), "\u{1b}[0m") } else { ("", "") };
        line.extend([" ", colour, level.as_str(), plain]);
        if !is_ours(target) || level >= Level::DEBUG {
            line.extend([" [", target, "]"]);
        }
        line.push_str(fields);
        if !message.is_empty() {
            line.push(' ');
            push_escaped(message, &mut line);
        }
        line.push('\n');
        self.0.out.lock().write(&line)
    }

    /// The bus, if it takes a line of `target` and `level`.
    fn bus(&self, target: &str, level: Level) -> Option<&Arc<Bus>> {
        let bus = self.0.bus.get().filter(|bus| bus.is_open())?;
        (!is_kept_from_the_bus(target, level)).then_some(bus)
    }
}

#[derive(Debug)]
struct Shared {
    /// A [`rank`].
    level: AtomicU8,
    colour: bool,
    out: Mutex<Out>,
    bus: OnceLock<Arc<Bus>>,
}

struct Out {
    stamps: Stamps,
    to: Box<dyn Write + Send>,
    /// Lines that could not be written since the last one that was.
    lost: u64,
    /// The last write ended within a line.
    torn: bool,
}

impl Out {
    /// In one write, so that lines of several processes on one terminal stay whole.
    fn write(&mut self, line: &str) -> (SystemTime, String) {
        let at = clock::wall();
        let stamp = self.stamps.utc_millis(at);
        let mut text = String::with_capacity(stamp.len() + line.len());
        if self.torn {
            text.push('\n');
        }
        if self.lost > 0 {
            let lost = self.lost.to_string();
            text.extend([stamp.as_str(), " WARN lines=", &lost, " nobody took lines of this log: lost\n"]);
        }
        text.extend([stamp.as_str(), line]);
        match self.try_write(text.as_bytes()) {
            Ok(()) => (self.lost, self.torn) = (0, false),
            // There is nowhere left to say so, until it works again.
            Err(written) => {
                self.lost += 1;
                self.torn |= written > 0;
            }
        }
        (at, stamp)
    }

    /// On failure: how much was written.
    fn try_write(&mut self, text: &[u8]) -> Result<(), usize> {
        let mut written = 0;
        while let Some(rest) = text.get(written..).filter(|rest| !rest.is_empty()) {
            match self.to.write(rest) {
                Ok(0) => return Err(written),
                Ok(bytes) => written += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(written),
            }
        }
        Ok(())
    }
}

/// Standard error, which is waited for no longer than [`PATIENCE`], and not again until it takes something.
#[derive(Debug, Default)]
struct StandardError {
    hangs: bool,
}

/// How long a line may wait for a reader who is merely busy.
const PATIENCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
/// A pipe that takes anything takes as much without waiting (`PIPE_BUF` of Linux).
const PIECE: usize = 4096;

impl Write for StandardError {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Not over the handle of the library: it has a lock, which the access log may hold while it waits.
        let stderr = io::stderr();
        let stderr = stderr.as_fd();
        let mut asked = [PollFd::new(&stderr, PollFlags::OUT)];
        let limit = if self.hangs { Timespec::default() } else { PATIENCE };
        self.hangs = poll(&mut asked, Some(&limit))? == 0;
        if self.hangs {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(rustix::io::write(stderr, bytes.get(..PIECE).unwrap_or(bytes))?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for Out {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Out")
    }
}

impl Subscriber for ProcessLog {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.enabled(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && self.shows(metadata.target(), *metadata.level())
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        const RANKED: [LevelFilter; 5] =
            [LevelFilter::OFF, LevelFilter::ERROR, LevelFilter::WARN, LevelFilter::INFO, LevelFilter::DEBUG];
        Some(RANKED.get(usize::from(self.0.level.load(Relaxed))).copied().unwrap_or(LevelFilter::TRACE))
    }

    /// Spans are not kept: what belongs to an event stands in its fields.
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut words = Words::default();
        event.record(&mut words);
        let target = event.metadata().target();
        let level = effective(target, *event.metadata().level());
        let (at, stamp) = self.write(target, level, &words.fields, &words.message);
        if let Some(bus) = self.bus(target, level) {
            let mut fields = Fields::default();
            event.record(&mut fields);
            bus.offer([fields.message(at, &stamp, level, target, &words.message)]);
        }
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

impl log::Log for ProcessLog {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        self.shows(metadata.target(), level_of(metadata.level()))
    }

    fn log(&self, record: &log::Record<'_>) {
        if log::Log::enabled(self, record.metadata()) {
            let (target, message) = (record.target(), record.args().to_string());
            let level = effective(target, level_of(record.level()));
            let (at, stamp) = self.write(target, level, "", &message);
            if let Some(bus) = self.bus(target, level) {
                bus.offer([Fields::default().message(at, &stamp, level, target, &message)]);
            }
        }
    }

    fn flush(&self) {}
}

/// The level something counts as: see [`QUIET`]. What others report for debugging is a level further down, so that
/// `debug` shows what Edgeward does and not each frame of HTTP/2.
fn effective(target: &str, level: Level) -> Level {
    if is_ours(target) {
        level
    } else if level >= Level::DEBUG {
        Level::TRACE
    } else if QUIET.iter().any(|quiet| is_within(target, quiet)) {
        Level::DEBUG
    } else {
        level
    }
}

fn is_ours(target: &str) -> bool {
    is_within(target, "edgeward")
}

pub(super) fn is_within(target: &str, module: &str) -> bool {
    target.strip_prefix(module).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// 0 for off to 5 for trace.
fn rank(level: LevelFilter) -> u8 {
    match level.into_level() {
        None => 0,
        Some(Level::ERROR) => 1,
        Some(Level::WARN) => 2,
        Some(Level::INFO) => 3,
        Some(Level::DEBUG) => 4,
        Some(Level::TRACE) => 5,
    }
}

fn level_of(level: log::Level) -> Level {
    match level {
        log::Level::Error => Level::ERROR,
        log::Level::Warn => Level::WARN,
        log::Level::Info => Level::INFO,
        log::Level::Debug => Level::DEBUG,
        log::Level::Trace => Level::TRACE,
    }
}

fn colour_of(level: Level) -> &'static str {
    match level {
        Level::ERROR => "\u{1b}[31m",
        Level::WARN => "\u{1b}[33m",
        Level::INFO => "\u{1b}[32m",
        _ => "\u{1b}[2m",
    }
}

/// The fields of an event as ` key=value`, and its message.
#[derive(Default)]
struct Words {
    fields: String,
    message: String,
}

impl Words {
    fn push(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.message.push_str(value);
            return;
        }
        self.fields.extend([" ", field.name(), "="]);
        // Quoted where it would not be seen where the value ends.
        if value.is_empty() || value.contains([' ', '"', '=']) {
            self.fields.push('"');
            push_escaped(&value.replace('\\', "\\\\").replace('"', "\\\""), &mut self.fields);
            self.fields.push('"');
        } else {
            push_escaped(value, &mut self.fields);
        }
    }
}

impl Visit for Words {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.push(field, value);
    }

    /// With all its causes.
    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.push(field, &with_causes(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.push(field, &format!("{value:?}"));
    }
}

/// An error with all its causes.
pub(super) fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.extend([": ", &error.to_string()]);
        cause = error.source();
    }
    text
}

/// Control characters as `\n` or `\u{1b}`: a value from outside must not begin a line or command a terminal.
fn push_escaped(text: &str, line: &mut String) {
    for c in text.chars() {
        if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Lines {
        /// Without the times, which are checked to be some.
        fn take(&self) -> Vec<String> {
            let text = String::from_utf8(std::mem::take(&mut *self.0.lock())).unwrap();
            let untimed = text.lines().map(|line| {
                let (time, rest) = line.split_once(' ').unwrap();
                assert!(time.len() == 24 && time.ends_with('Z'), "{line}");
                rest.to_owned()
            });
            untimed.collect()
        }
    }

    fn logging(level: LevelFilter, colour: bool) -> (ProcessLog, Lines) {
        let lines = Lines::default();
        (ProcessLog::to(Box::new(lines.clone()), level, colour), lines)
    }

    /// What could not be written is told as soon as something can, and a line that was begun is ended.
    #[test]
    fn lost_lines_are_counted() {
        /// Takes so many bytes, and no more.
        struct Narrow(Lines, Arc<AtomicUsize>);
        impl Write for Narrow {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                let room = self.1.load(Relaxed).min(bytes.len());
                if room == 0 {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                self.1.fetch_sub(room, Relaxed);
                self.0.write(&bytes[..room])
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (lines, room) = (Lines::default(), Arc::new(AtomicUsize::new(1000)));
        let log = ProcessLog::to(Box::new(Narrow(lines.clone(), room.clone())), LevelFilter::INFO, false);
        tracing::subscriber::with_default(log, || {
            tracing::info!("one");
            room.store(0, Relaxed);
            tracing::info!("two");
            tracing::info!("three");
            room.store(1000, Relaxed);
            tracing::info!("four");
            // The time, and a word.
            room.store(29, Relaxed);
            tracing::info!("five");
            room.store(1000, Relaxed);
            tracing::info!("six");
        });
        let said = [
            "INFO one",
            "WARN lines=2 nobody took lines of this log: lost",
            "INFO four",
            "INFO",
            "WARN lines=1 nobody took lines of this log: lost",
            "INFO six",
        ];
        assert_eq!(lines.take(), said);
    }

    fn report(log: &ProcessLog, target: &str, level: log::Level, message: &str) {
        let mut builder = log::Record::builder();
        log::Log::log(log, &builder.target(target).level(level).args(format_args!("{message}")).build());
    }

    #[test]
    fn fields_stand_before_the_message() {
        let (log, lines) = logging(LevelFilter::INFO, false);
        tracing::subscriber::with_default(log, || {
            let error = io::Error::other("no such host");
            tracing::warn!(upstream = "users", server = %"10.0.0.1:80", failures = 5, "circuit opened");
            tracing::error!(error = &error as &dyn std::error::Error, file = ?"a b", "cannot {}", "start");
            tracing::info!(empty = "");
            tracing::debug!("not shown");
        });
        assert_eq!(
            lines.take(),
            [
                "WARN upstream=users server=10.0.0.1:80 failures=5 circuit opened",
                r#"ERROR error="no such host" file="\"a b\"" cannot start"#,
                r#"INFO empty="""#,
            ]
        );
    }

    /// A header that a client made up cannot begin a line of its own or colour the terminal.
    #[test]
    fn values_cannot_forge_lines() {
        let (log, lines) = logging(LevelFilter::INFO, false);
        tracing::subscriber::with_default(log, || {
            tracing::info!(host = "a\r\n2026 ERROR \u{1b}[31mfake", "asked for {}", "b\n\u{85}\u{2028}c");
        });
        assert_eq!(
            lines.take(),
            [r#"INFO host="a\r\n2026 ERROR \u{1b}[31mfake" asked for b\n\u{85}\u{2028}c"#]
        );
    }

    /// A client that hangs up is no error of ours, however Pingora puts it.
    #[test]
    fn noise_is_for_debugging() {
        let (log, lines) = logging(LevelFilter::INFO, false);
        for (target, level) in [
            ("pingora_proxy", log::Level::Error),
            ("h2::server", log::Level::Warn),
            // Whole messages.
            ("lapin::returned_messages", log::Level::Warn),
            ("pingora_core", log::Level::Error),
            ("pingora_proxylike", log::Level::Error),
            ("some::server", log::Level::Warn),
            ("other", log::Level::Info),
            ("other", log::Level::Debug),
        ] {
            report(&log, target, level, "said");
        }
        assert_eq!(
            lines.take(),
            ["ERROR [pingora_proxylike] said", "WARN [some::server] said", "INFO [other] said"]
        );

        let (log, lines) = logging(LevelFilter::DEBUG, false);
        report(&log, "pingora_proxy", log::Level::Error, "said");
        report(&log, "h2::codec", log::Level::Debug, "each frame");
        report(&log, "lapin::channel", log::Level::Error, "a message");
        report(&log, "edgeward::upstream", log::Level::Debug, "ours");
        assert_eq!(lines.take(), ["DEBUG [pingora_proxy] said", "DEBUG [edgeward::upstream] ours"]);
    }

    #[test]
    fn the_level_can_change_while_running() {
        let (log, lines) = logging(LevelFilter::WARN, false);
        tracing::subscriber::with_default(log.clone(), || {
            for level in [LevelFilter::WARN, LevelFilter::INFO, LevelFilter::OFF] {
                log.set_level(level);
                tracing::info!(?level, "now");
            }
        });
        assert_eq!(lines.take(), ["INFO level=LevelFilter::INFO now"]);
    }

    #[test]
    fn a_terminal_gets_colours() {
        let (log, lines) = logging(LevelFilter::INFO, true);
        report(&log, "edgeward", log::Level::Error, "said");
        assert_eq!(lines.take(), ["\u{1b}[31mERROR\u{1b}[0m said"]);
    }

    /// The bus has what standard error has, whole and with its types; never what publishing says of each message.
    #[test]
    fn lines_go_to_the_bus_as_documents() {
        use crate::telemetry::metrics::Metrics;
        let (log, lines) = logging(LevelFilter::TRACE, false);
        let bus = Bus::new(Metrics::new());
        log.feed(bus.clone());
        report(&log, "edgeward", log::Level::Error, "before it is open");
        bus.open(1 << 20);
        tracing::subscriber::with_default(log.clone(), || {
            let error = io::Error::other("no such host");
            let more = (Some(true), f64::NAN);
            tracing::warn!(
                host = "a\r\n\"b",
                failures = 5,
                ratio = 0.5,
                open = true,
                nan = more.1,
                "said {}",
                "\n"
            );
            tracing::info!(error = &error as &dyn std::error::Error, server = %"10.0.0.1:80");
            tracing::trace!("too much");
        });
        report(&log, "h2", log::Level::Error, "noise");
        for target in ["edgeward::broker", "edgeward::broker::lane"] {
            report(&log, target, log::Level::Debug, "published");
        }
        report(&log, "edgeward::broker", log::Level::Warn, "the broker is away");
        assert_eq!(lines.take().len(), 8);
        let documents: Vec<serde_json::Value> =
            bus.take(99).iter().map(|message| serde_json::from_slice(&message.body).unwrap()).collect();
        let shown: Vec<_> = documents
            .iter()
            .map(|it| {
                (
                    it["level"].as_str().unwrap(),
                    it["target"].as_str().unwrap(),
                    it["message"].as_str().unwrap(),
                )
            })
            .collect();
        let here = module_path!();
        assert_eq!(
            shown,
            [
                ("warn", here, "said \n"),
                ("info", here, ""),
                ("debug", "h2", "noise"),
                ("warn", "edgeward::broker", "the broker is away"),
            ]
        );
        let fields =
            serde_json::json!({ "host": "a\r\n\"b", "failures": 5, "ratio": 0.5, "open": true, "nan": null });
        assert_eq!(documents[0]["fields"], fields);
        assert_eq!(
            documents[1]["fields"],
            serde_json::json!({ "error": "no such host", "server": "10.0.0.1:80" })
        );
        assert_eq!(documents[0]["time"].as_str().unwrap().len(), 24);
    }
}
