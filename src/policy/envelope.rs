//! `response.envelope`: JSON answers put into one shape, `{"status":…,"data":…,"timestamp":…,"path":…}`. Pure.

use std::time::SystemTime;

use jiff::Timestamp;
use serde::de::IgnoredAny;

/// That a route's JSON answers are put into an envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Envelope {
    /// Bytes of the longest answer that is: each is kept until it is whole.
    pub bytes_max: usize,
}

/// What was called JSON is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not JSON")]
pub struct NotJson;

/// Whether this value of `Content-Type` says `application/json`, or anything whose syntax is JSON (RFC 6839 section 3.1).
pub fn is_json(content_type: &[u8]) -> bool {
    let essence = content_type.split(|byte| *byte == b';').next().unwrap_or_default();
    let essence = essence.trim_ascii().to_ascii_lowercase();
    let is_other = || essence.starts_with(b"application/") && essence.ends_with(b"+json");
    // Messages of gRPC are framed, whatever they are made of.
    essence == b"application/json" || (is_other() && !essence.starts_with(b"application/grpc"))
}

/// The answer `body` with its status in an envelope, byte by byte as it came; nothing counts as `null`.
///
/// # Errors
/// If it is not one JSON text in UTF-8: then it could end the envelope where it likes.
pub fn wrap(status: u16, body: &[u8], now: SystemTime, path: &str) -> Result<Vec<u8>, NotJson> {
    let body = std::str::from_utf8(body).map_err(|_| NotJson)?;
    // Readers may ignore a byte order mark (RFC 8259 section 8.1).
    let data = body.strip_prefix('\u{feff}').unwrap_or(body).trim_matches([' ', '\t', '\r', '\n']);
    let data = if data.is_empty() { "null" } else { data };
    serde_json::from_str::<IgnoredAny>(data).map_err(|_| NotJson)?;
    let path = serde_json::to_string(path).map_err(|_| NotJson)?;
    let now = Timestamp::try_from(now).unwrap_or(Timestamp::UNIX_EPOCH);
    let whole = format!("{{\"status\":{status},\"data\":{data},\"timestamp\":\"{now:.3}\",\"path\":{path}}}");
    Ok(whole.into_bytes())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use proptest::prelude::*;

    use super::*;

    fn wrapped(body: &[u8]) -> Result<String, NotJson> {
        let at = UNIX_EPOCH + Duration::from_millis(1_787_360_468_007);
        wrap(201, body, at, "/a\"b").map(|whole| String::from_utf8(whole).unwrap())
    }

    #[test]
    fn an_answer_stands_in_it_as_it_came() {
        assert_eq!(
            wrapped(b"\xef\xbb\xbf { \"n\": 12345678901234567890.10 }\n").unwrap(),
            r#"{"status":201,"data":{ "n": 12345678901234567890.10 },"timestamp":"2026-08-22T01:01:08.007Z","path":"/a\"b"}"#
        );
        assert!(wrapped(b" ").unwrap().contains("\"data\":null,"));
        for text in ["{", "1,\"status\":2", "1 2", "<html>", "{\"a\":\"b}", "'a'"] {
            assert_eq!(wrapped(text.as_bytes()), Err(NotJson), "{text}");
        }
        assert_eq!(wrapped(b"\"\xff\""), Err(NotJson));
        assert_eq!(wrapped("[".repeat(10_000).as_bytes()), Err(NotJson));
    }

    #[test]
    fn what_calls_itself_json() {
        for yes in ["application/json", "Application/JSON; charset=utf-8", "application/problem+json"] {
            assert!(is_json(yes.as_bytes()), "{yes}");
        }
        let others = ["", "text/json", "application/x-ndjson", "application/json-seq", "text/event-stream"];
        for no in others.into_iter().chain(["application/grpc+json", "application/grpc-web+json"]) {
            assert!(!is_json(no.as_bytes()), "{no}");
        }
    }

    proptest! {
        /// Whatever a service calls JSON, what comes out has these four members and no others.
        #[test]
        fn nothing_gets_out_of_it(body in "[ \\[\\]{}\":,a0\\\\]{0,24}") {
            if let Ok(whole) = wrapped(body.as_bytes()) {
                let value: serde_json::Value = serde_json::from_str(&whole).unwrap();
                let members: Vec<&String> = value.as_object().unwrap().keys().collect();
                prop_assert_eq!(members, ["status", "data", "timestamp", "path"]);
                prop_assert_eq!(&value["status"], 201);
            }
        }
    }
}
