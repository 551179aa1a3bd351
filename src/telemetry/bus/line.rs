//! A line of the process log as a document.

use std::fmt;
use std::time::SystemTime;

use bytes::Bytes;
use tracing::Level;
use tracing::field::{Field, Visit};

use super::{Kind, Message};
use crate::telemetry::access::write_json_string;
use crate::telemetry::log::{is_within, with_causes};

/// Where a message goes through on its way to the broker: what these say for debugging is said once for each message, and
/// would become the next one.
const ON_THE_WAY: &[&str] = &["edgeward::broker", "amq_protocol", "amq_protocol_tcp", "async_rs"];

/// Whether a line of the process log is not for the bus. What publishing itself says at `debug` would feed it forever; so
/// might anything at `trace`, where libraries tell of each byte that moves.
pub(in crate::telemetry) fn is_kept_from_the_bus(target: &str, level: Level) -> bool {
    level == Level::TRACE
        || (level == Level::DEBUG && ON_THE_WAY.iter().any(|module| is_within(target, module)))
}

/// The fields of an event, but for its message, as members of a JSON object.
#[derive(Debug, Default)]
pub(in crate::telemetry) struct Fields {
    json: Vec<u8>,
}

impl Fields {
    fn push(&mut self, field: &Field, value: impl FnOnce(&mut Vec<u8>)) {
        if field.name() == "message" {
            return;
        }
        if !self.json.is_empty() {
            self.json.push(b',');
        }
        write_json_string(field.name().as_bytes(), &mut self.json);
        self.json.push(b':');
        value(&mut self.json);
    }

    fn literal(&mut self, field: &Field, value: impl fmt::Display) {
        self.push(field, |json| json.extend_from_slice(value.to_string().as_bytes()));
    }

    fn text(&mut self, field: &Field, value: &str) {
        self.push(field, |json| write_json_string(value.as_bytes(), json));
    }

    /// The message of a line with these fields. `stamp` is `at` in RFC 3339.
    pub(in crate::telemetry) fn message(
        &self,
        at: SystemTime,
        stamp: &str,
        level: Level,
        target: &str,
        text: &str,
    ) -> Message {
        let level = match level {
            Level::ERROR => "error",
            Level::WARN => "warn",
            Level::INFO => "info",
            Level::DEBUG => "debug",
            Level::TRACE => "trace",
        };
        let mut json = Vec::with_capacity(96 + target.len() + text.len() + self.json.len());
        json.push(b'{');
        for (key, value) in [("time", stamp), ("level", level), ("target", target), ("message", text)] {
            write_json_string(key.as_bytes(), &mut json);
            json.push(b':');
            write_json_string(value.as_bytes(), &mut json);
            json.push(b',');
        }
        json.extend_from_slice(b"\"fields\":{");
        json.extend_from_slice(&self.json);
        json.extend_from_slice(b"}}");
        Message { kind: Kind::Log, at, body: Bytes::from(json) }
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        if value.is_finite() {
            self.literal(field, value);
        } else {
            self.literal(field, "null");
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.literal(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.literal(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.literal(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.text(field, &with_causes(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.text(field, &format!("{value:?}"));
    }
}
