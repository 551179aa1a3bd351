//! The access log: one record a request, formatted and written by a thread of its own.
//!
//! ```text
//! proxy: AccessLog::record → fields as they become known → AccessLog::submit
//!                                                                │ bounded queue; full: dropped and counted
//! writer thread:                          Format::write → batch → stdout, stderr or a file
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
pub use self::format::{COMBINED, Format, FormatError};
pub use self::record::{AccessRecord, Attempt, Field, TlsInfo};
pub use self::sink::{Queue, Writer};
pub use self::stamp::Stamps;

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

/// One configured access log: a format and an output, behind the process's queue.
///
/// Making one has no effect: nothing is opened before the first record, or [`AccessLog::open`].
#[derive(Debug)]
pub struct AccessLog {
    format: Format,
    output: Output,
    queue: Arc<Queue>,
}

impl AccessLog {
    /// Lines of `format` on `output`, by way of `queue`.
    pub fn new(queue: Arc<Queue>, format: Format, output: Output) -> Arc<Self> {
        Arc::new(Self { format, output, queue })
    }

    /// Where the lines go.
    pub fn output(&self) -> &Output {
        &self.output
    }

    /// Has the writer open the output now, so that what is wrong with it shows at start and not with the first request.
    pub fn open(&self) {
        self.queue.open(&self.output);
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
