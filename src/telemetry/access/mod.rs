//! The access log: one record a request, formatted and written by a thread of its own.
//!
//! ```text
//! proxy: AccessLog::record → fields as they become known → AccessLog::submit
//!                                                                │ bounded queue; full: dropped and counted
//! writer thread:                          Format::write → batch → stdout, stderr or a file
//!                                         Format::write_document → the log bus, if there is one
//! ```

mod escape;
mod format;
mod json;
mod mask;
mod record;
mod sink;
mod stamp;
#[cfg(test)]
mod tests;
mod variable;

use std::path::PathBuf;
use std::sync::Arc;

use http::HeaderMap;

pub use self::escape::Escape;
pub(super) use self::escape::write_json_string;
pub use self::format::{COMBINED, Format, FormatError};
pub use self::record::{AccessRecord, Attempt, Field, TlsInfo};
pub use self::sink::{Queue, Writer};
pub use self::stamp::Stamps;
use super::bus::Bus;

/// Where lines go.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Output {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// The end of a file, created with mode 0640.
    File(PathBuf),
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stdout => f.write_str("stdout"),
            Self::Stderr => f.write_str("stderr"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

/// One configured access log: a format, an output and a bus, behind the process's queue.
///
/// Making one has no effect: nothing is opened before the first record, or [`AccessLog::open`].
#[derive(Debug)]
pub struct AccessLog {
    format: Format,
    output: Option<Output>,
    /// Takes each record as a document, too.
    bus: Option<Arc<Bus>>,
    queue: Arc<Queue>,
}

impl AccessLog {
    /// Lines of `format` on `output`, by way of `queue`.
    pub fn new(queue: Arc<Queue>, format: Format, output: Output) -> Arc<Self> {
        Self::with_bus(queue, format, Some(output), None)
    }

    /// Lines of `format` on `output`, where there is one, and documents for `bus`, where there is one.
    pub fn with_bus(
        queue: Arc<Queue>,
        format: Format,
        output: Option<Output>,
        bus: Option<Arc<Bus>>,
    ) -> Arc<Self> {
        let format = if bus.is_some() { format.with_document() } else { format };
        Arc::new(Self { format, output, bus, queue })
    }

    /// Where the lines go; `None` = nowhere.
    pub fn output(&self) -> Option<&Output> {
        self.output.as_ref()
    }

    /// Has the writer open the output now, so that what is wrong with it shows at start and not with the first request.
    pub fn open(&self) {
        if let Some(output) = &self.output {
            self.queue.open(output);
        }
    }

    /// An empty record for this log: it keeps those texts alone that the format shows.
    pub fn record(&self) -> Box<AccessRecord> {
        self.format.record()
    }

    /// Takes into `record` what the format shows of a request: its headers as received, before any are changed.
    pub fn collect_request(&self, record: &mut AccessRecord, headers: &HeaderMap) {
        self.format.collect_request(record, headers);
    }

    /// Takes into `record` what the format shows of an answer: its headers as sent.
    pub fn collect_response(&self, record: &mut AccessRecord, headers: &HeaderMap) {
        self.format.collect_response(record, headers);
    }

    /// Hands over a finished record. Never blocks: with the queue full the record is dropped and counted.
    pub fn submit(self: &Arc<Self>, record: Box<AccessRecord>) {
        self.queue.submit(Arc::clone(self), record);
    }
}
