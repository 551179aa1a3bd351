//! From an open file and what is asked of it to the head and body of the answer.

use std::time::SystemTime;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{HeaderMap, Response, StatusCode};

use super::body::Body;
use super::coding::{CODINGS, choose};
use super::condition::{Validators, Verdict};
use super::listing::{self, Listing};
use super::open::{Found, Opened, Root, file_name};
use super::range::{self, Part};
use super::{Refusal, Request, WHOLE};
use crate::base::problem::Problem;
use crate::base::reason::Reason;
use crate::routing::escape::push_escaped;

/// An answer, to be sent as it is.
#[derive(Debug)]
pub struct Answer {
    /// Status and headers, without the length.
    pub head: Response<()>,
    /// What `Content-Length` says; a HEAD has it, too, and a 304 has none.
    pub length: Option<u64>,
    /// What follows; empty for HEAD and 304.
    pub body: Body,
}

/// A representation: the file as it is, or a variant of it that was compressed beforehand.
struct Chosen {
    opened: Opened,
    /// Empty = as it is.
    coding: &'static str,
    /// There are several, and the request decides.
    varies: bool,
}

/// The answer for the file at `relative`.
pub(super) fn of_file(
    root: &Root,
    relative: &[u8],
    file: Opened,
    request: &Request,
) -> Result<Answer, Refusal> {
    let Chosen { opened, coding, varies } = variant(root, relative, file, &request.headers);
    let validators = Validators::new(&opened.facts, coding);
    let size = opened.facts.size;
    let mut head = Response::new(());
    let headers = head.headers_mut();
    headers.insert(header::ETAG, validators.etag.clone());
    if let Some(modified) = validators.last_modified(request.now) {
        headers.insert(header::LAST_MODIFIED, modified);
    }
    if varies {
        headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    }
    match validators.check(&request.headers, request.now) {
        Verdict::Send => {}
        Verdict::Failed => return Err(Problem::new(Reason::PreconditionFailed).into()),
        Verdict::NotModified => {
            *head.status_mut() = StatusCode::NOT_MODIFIED;
            return Ok(Answer { head, length: None, body: Body::default() });
        }
    }
    let content_type = content_type(relative);
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if !coding.is_empty() {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding));
    }
    let mut body = Body::of(opened.file);
    match asked(request, &validators, size, coding) {
        Part::Whole => {
            *head.status_mut() = WHOLE;
            head.headers_mut().insert(header::CONTENT_TYPE, content_type);
            body.push_range(0..size);
        }
        Part::Nothing => {
            let mut problem = Problem::new(Reason::RangeNotSatisfiable);
            problem.complete_length = Some(Box::new(size));
            return Err(problem.into());
        }
        Part::Ranges(ranges) => {
            *head.status_mut() = StatusCode::PARTIAL_CONTENT;
            match ranges.as_slice() {
                [one] => {
                    let range = format!("bytes {}-{}/{size}", one.start, one.end - 1);
                    insert(head.headers_mut(), header::CONTENT_RANGE, &range);
                    head.headers_mut().insert(header::CONTENT_TYPE, content_type);
                    body.push_range(one.clone());
                }
                several => {
                    let boundary = format!("{:032x}", fastrand::u128(..));
                    for range in several {
                        let (first, last) = (range.start, range.end - 1);
                        let mut part = format!("\r\n--{boundary}\r\nContent-Type: ").into_bytes();
                        part.extend_from_slice(content_type.as_bytes());
                        let place = format!("\r\nContent-Range: bytes {first}-{last}/{size}\r\n\r\n");
                        part.extend_from_slice(place.as_bytes());
                        body.push_text(part);
                        body.push_range(range.clone());
                    }
                    body.push_text(format!("\r\n--{boundary}--\r\n"));
                    let content_type = format!("multipart/byteranges; boundary={boundary}");
                    insert(head.headers_mut(), header::CONTENT_TYPE, &content_type);
                }
            }
        }
    }
    Ok(finished(head, body, request))
}

/// Which part is asked for. Only GET has parts (RFC 9110 section 14.2); several of something compressed have no form
/// that says what is compressed.
fn asked(request: &Request, validators: &Validators, size: u64, coding: &str) -> Part {
    let mut lines = request.headers.get_all(header::RANGE).iter();
    let (Some(range), None) = (lines.next(), lines.next()) else { return Part::Whole };
    if request.head || !validators.is_range_due(&request.headers, request.now) {
        return Part::Whole;
    }
    match range::read(range.as_bytes(), size) {
        Part::Ranges(several) if several.len() > 1 && !coding.is_empty() => Part::Whole,
        part => part,
    }
}

/// The variant of `file` to send. One that is older than the file was made of another state of it, and does not count.
fn variant(root: &Root, relative: &[u8], file: Opened, headers: &HeaderMap) -> Chosen {
    let mut codings = Vec::new();
    let mut variants = Vec::new();
    for coding in CODINGS {
        if let Ok(Found::File(variant)) = root.open_below(&[relative, coding.ending.as_bytes()].concat())
            && variant.facts.seconds >= file.facts.seconds
        {
            codings.push(coding);
            variants.push((coding.name, variant));
        }
    }
    let varies = !codings.is_empty();
    let (coding, opened) = match choose(headers, &codings) {
        Some(place) if place < variants.len() => variants.swap_remove(place),
        _ => ("", file),
    };
    Chosen { opened, coding, varies }
}

/// The type that the name's ending stands for. A text is UTF-8, unless it is XML: that says its encoding itself, and would
/// be overruled (RFC 7303 section 3.2).
fn content_type(relative: &[u8]) -> HeaderValue {
    const UNKNOWN: &str = "application/octet-stream";
    let guessed = mime_guess::from_path(file_name(relative)).first_raw().unwrap_or(UNKNOWN);
    if guessed.starts_with("text/") && guessed != "text/xml" {
        let text = format!("{guessed}; charset=utf-8");
        return HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(UNKNOWN));
    }
    HeaderValue::from_static(guessed)
}

/// The answer for a directory that was asked for like a file: its address, with the client's query.
pub(super) fn to_directory((path, query): &(String, Option<String>)) -> Answer {
    let mut location = format!("{path}/");
    if let Some(query) = query {
        location.push('?');
        for byte in query.bytes() {
            if byte.is_ascii_graphic() {
                location.push(char::from(byte));
            } else {
                push_escaped(&mut location, byte);
            }
        }
    }
    let mut head = Response::new(());
    *head.status_mut() = StatusCode::MOVED_PERMANENTLY;
    insert(head.headers_mut(), header::LOCATION, &location);
    Answer { head, length: Some(0), body: Body::default() }
}

/// The answer that lists a directory.
pub(super) fn of_listing(listing: &Listing, path: &str, request: &Request) -> Answer {
    let json = listing::prefers_json(&request.headers);
    let (content_type, text) = if json {
        ("application/json", listing.json())
    } else {
        ("text/html; charset=utf-8", listing.html(path))
    };
    let mut head = Response::new(());
    head.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    head.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept"));
    finished(head, Body::text(Bytes::from(text)), request)
}

fn finished(head: Response<()>, mut body: Body, request: &Request) -> Answer {
    let length = Some(body.left());
    if request.head {
        body.clear();
    }
    Answer { head, length, body }
}

/// Of texts that were made here, of what headers can hold.
fn insert(headers: &mut HeaderMap, name: header::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// A date as HTTP writes it; none if it cannot.
pub(super) fn date(seconds: i64) -> Option<String> {
    const SECONDS_MAX: u64 = 253_402_300_799;
    let seconds = u64::try_from(seconds).ok().filter(|seconds| *seconds <= SECONDS_MAX)?;
    Some(httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds)))
}
