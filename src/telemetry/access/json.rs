//! The built-in `json` format: one object per line, always the same fields. `docs/access-log.md` describes them.

use std::net::IpAddr;
use std::time::Duration;

use super::escape::write_json_string;
use super::mask::Mask;
use super::record::{AccessRecord, Attempt, Field};
use super::stamp::{self, Stamps};
use super::variable::{attempt_status, origin_form, protocol, write_ip};

/// `,"name":`, made when compiled.
macro_rules! key {
    ($name:literal) => {
        concat!(",\"", $name, "\":").as_bytes()
    };
}

/// Where in the record the headers lie that it shows.
#[derive(Debug)]
pub(super) struct Slots {
    pub(super) user: usize,
    pub(super) referer: usize,
    pub(super) user_agent: usize,
}

pub(super) fn write(
    record: &AccessRecord,
    slots: &Slots,
    mask: &Mask,
    stamps: &mut Stamps,
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(br#"{"time":""#);
    out.extend_from_slice(stamps.utc(record.ended).as_bytes());
    fraction(out, stamp::split(record.ended).1, 3);
    out.extend_from_slice(b"Z\"");

    text(out, key!("request_id"), record.request_id.as_ref().map(|id| id.as_bytes()));
    text(
        out,
        key!("trace_id"),
        record.trace.map(|trace| trace.trace_id.hex()).as_ref().map(<[u8; 32]>::as_slice),
    );
    text(out, key!("span_id"), record.trace.map(|trace| trace.span.hex()).as_ref().map(<[u8; 16]>::as_slice));

    address(out, key!("client"), record.client);
    number(out, key!("client_port"), record.client_port);
    address(out, key!("peer"), record.peer.map(|peer| peer.ip()));
    field(out, record, key!("listener"), Field::Listener);
    number(out, key!("connection"), Some(record.connection));
    number(out, key!("connection_requests"), Some(record.connection_requests));
    text(out, key!("scheme"), Some(if record.tls.is_some() { b"https" } else { b"http" }));
    text(out, key!("tls_protocol"), record.tls.map(|tls| tls.protocol.as_bytes()));
    text(out, key!("tls_cipher"), record.tls.map(|tls| tls.cipher.as_bytes()));

    field(out, record, key!("method"), Field::Method);
    field(out, record, key!("host"), Field::Host);
    text(out, key!("uri"), record.get(Field::Target).map(origin_form).map(|url| mask.url(url)).as_deref());
    text(out, key!("protocol"), record.version.map(protocol));
    text(out, key!("referer"), record.slot(slots.referer).map(|url| mask.url(url)).as_deref());
    text(out, key!("user_agent"), record.slot(slots.user_agent));
    text(out, key!("user"), record.get(Field::User).or(record.slot(slots.user)));
    field(out, record, key!("consumer"), Field::Consumer);
    field(out, record, key!("plan"), Field::Plan);
    field(out, record, key!("auth"), Field::AuthMethod);

    number(out, key!("status"), Some(record.status));
    number(out, key!("request_length"), Some(record.request_length));
    number(out, key!("bytes_sent"), Some(record.bytes_sent));
    number(out, key!("body_bytes_sent"), Some(record.body_bytes_sent));
    seconds(out, key!("request_time"), Some(record.request_time));
    literal(out, key!("completed"), if record.completed { b"true" } else { b"false" });

    field(out, record, key!("route"), Field::Route);
    field(out, record, key!("upstream"), Field::Upstream);
    attempts(record, out);
    text(out, key!("cache_status"), record.cache_status.map(str::as_bytes));
    text(out, key!("reason"), record.reason.map(|reason| reason.code().as_bytes()));
    field(out, record, key!("detail"), Field::Detail);
    field(out, record, key!("tls_client_subject"), Field::ClientDn);
    field(out, record, key!("tls_client_serial"), Field::ClientSerial);
    out.push(b'}');
}

fn attempts(record: &AccessRecord, out: &mut Vec<u8>) {
    out.extend_from_slice(key!("attempts"));
    out.push(b'[');
    for (index, attempt) in record.attempts().iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        let Attempt { span, failure, connect, header, bytes_sent, bytes_received, .. } = attempt;
        out.extend_from_slice(br#"{"address":"#);
        write_json_string(record.address(attempt), out);
        number(out, key!("status"), attempt_status(attempt));
        text(out, key!("failure"), failure.map(str::as_bytes));
        seconds(out, key!("connect_time"), *connect);
        seconds(out, key!("header_time"), *header);
        seconds(out, key!("response_time"), span.duration);
        number(out, key!("bytes_sent"), Some(*bytes_sent));
        number(out, key!("bytes_received"), Some(*bytes_received));
        text(out, key!("span_id"), Some(&span.id.hex()));
        out.push(b'}');
    }
    out.push(b']');
}

fn literal(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    out.extend_from_slice(key);
    out.extend_from_slice(value);
}

fn text(out: &mut Vec<u8>, key: &[u8], value: Option<&[u8]>) {
    out.extend_from_slice(key);
    match value {
        Some(value) => write_json_string(value, out),
        None => out.extend_from_slice(b"null"),
    }
}

fn field(out: &mut Vec<u8>, record: &AccessRecord, key: &[u8], field: Field) {
    text(out, key, record.get(field));
}

fn number(out: &mut Vec<u8>, key: &[u8], value: Option<impl itoa::Integer>) {
    out.extend_from_slice(key);
    match value {
        Some(value) => out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes()),
        None => out.extend_from_slice(b"null"),
    }
}

fn address(out: &mut Vec<u8>, key: &[u8], value: Option<IpAddr>) {
    out.extend_from_slice(key);
    match value {
        Some(address) => {
            out.push(b'"');
            write_ip(address, out);
            out.push(b'"');
        }
        None => out.extend_from_slice(b"null"),
    }
}

/// Seconds with microseconds.
fn seconds(out: &mut Vec<u8>, key: &[u8], value: Option<Duration>) {
    out.extend_from_slice(key);
    match value {
        Some(duration) => {
            out.extend_from_slice(itoa::Buffer::new().format(duration.as_secs()).as_bytes());
            fraction(out, duration.subsec_micros(), 6);
        }
        None => out.extend_from_slice(b"null"),
    }
}

/// `.` and `digits` digits.
fn fraction(out: &mut Vec<u8>, value: u32, digits: usize) {
    let mut buffer = itoa::Buffer::new();
    let text = buffer.format(value);
    out.push(b'.');
    out.extend(std::iter::repeat_n(b'0', digits.saturating_sub(text.len())));
    out.extend_from_slice(text.as_bytes());
}
