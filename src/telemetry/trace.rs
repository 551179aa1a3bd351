//! W3C Trace Context: the `traceparent` header, and what is kept of a request's spans for export.

use std::fmt;
use std::time::{Duration, SystemTime};

use super::random;

/// Identifies a trace: 16 bytes, not all zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId([u8; 16]);

/// Identifies a span within a trace: 8 bytes, not all zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanId([u8; 8]);

/// Where a request stands in a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace, the caller's if it sent one.
    pub trace_id: TraceId,
    /// The caller's span; `None` where the trace begins here.
    pub parent: Option<SpanId>,
    /// The gateway's own span for the request.
    pub span: SpanId,
    /// [`SAMPLED`] and [`RANDOM`]; other bits have no meaning yet and are not passed on.
    pub flags: u8,
}

/// Flag: the caller records this trace.
pub const SAMPLED: u8 = 0b01;
/// Flag: the trace id is random in its last 7 bytes (Trace Context level 2).
pub const RANDOM: u8 = 0b10;

/// Length of a `traceparent` of version 00.
pub const TRACEPARENT_LEN: usize = 55;

impl TraceContext {
    /// Continues the caller's trace, or begins one if `traceparent` is absent or not valid (section 4.3: then
    /// `tracestate` must not be passed on either; see [`TraceContext::parent`]).
    ///
    /// `traceparent` is the value of the one header of that name; with several, pass `None`.
    pub fn accept(traceparent: Option<&[u8]>) -> Self {
        match traceparent.and_then(parse) {
            Some((trace_id, parent, flags)) => {
                Self { trace_id, parent: Some(parent), span: SpanId::random(), flags }
            }
            // Sampled: otherwise services behind us that follow their parent would never record anything.
            None => Self {
                trace_id: TraceId::random(),
                parent: None,
                span: SpanId::random(),
                flags: SAMPLED | RANDOM,
            },
        }
    }

    /// The `traceparent` to send with `span` as the parent: the span of the attempt it goes out with.
    pub fn traceparent(&self, span: SpanId) -> [u8; TRACEPARENT_LEN] {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        for (range, bytes) in
            [(3..35, &self.trace_id.0[..]), (36..52, &span.0[..]), (53..55, &[self.flags][..])]
        {
            if let Some(digits) = text.get_mut(range) {
                random::write_hex(bytes, digits);
            }
        }
        text
    }
}

/// Section 3.2: `version-trace_id-parent_id-flags`, lowercase hexadecimal, no all-zero id. A version after 00 is read
/// as 00 if what it adds begins with a dash (section 4.3); version ff is never valid.
fn parse(text: &[u8]) -> Option<(TraceId, SpanId, u8)> {
    let (head, rest) = text.split_at_checked(TRACEPARENT_LEN)?;
    let [version] = random::read_hex::<1>(head.get(..2)?)?;
    let dashes = [2, 35, 52].iter().all(|at| head.get(*at) == Some(&b'-'));
    let ends_well = match version {
        0 => rest.is_empty(),
        0xff => false,
        _ => rest.first().is_none_or(|byte| *byte == b'-'),
    };
    let trace_id = random::read_hex::<16>(head.get(3..35)?)?;
    let parent = random::read_hex::<8>(head.get(36..52)?)?;
    let [flags] = random::read_hex::<1>(head.get(53..55)?)?;
    let named = trace_id != [0; 16] && parent != [0; 8];
    (dashes && ends_well && named).then_some((TraceId(trace_id), SpanId(parent), flags & (SAMPLED | RANDOM)))
}

impl TraceId {
    fn random() -> Self {
        // One bit set, outside the 7 bytes that must be random: never all zero.
        let mut bytes = random::bits128();
        bytes[0] |= 1;
        Self(bytes)
    }

    /// As bytes, for exporters.
    pub fn bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// As 32 lowercase hexadecimal digits.
    pub fn hex(&self) -> [u8; 32] {
        let mut text = [0; 32];
        random::write_hex(&self.0, &mut text);
        text
    }
}

impl SpanId {
    /// A new one, random.
    pub fn random() -> Self {
        let mut bytes = random::bits64();
        bytes[0] |= 1;
        Self(bytes)
    }

    /// As bytes, for exporters.
    pub fn bytes(&self) -> &[u8; 8] {
        &self.0
    }

    /// As 16 lowercase hexadecimal digits.
    pub fn hex(&self) -> [u8; 16] {
        let mut text = [0; 16];
        random::write_hex(&self.0, &mut text);
        text
    }
}

/// One client span: an attempt at an upstream, as a trace shows it. Its other attributes (address, status, failure,
/// number of the attempt) stand in the attempt that holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpanRecord {
    /// The span; sent to the upstream as the parent.
    pub id: SpanId,
    /// When it began.
    pub started: SystemTime,
    /// How long it took; `None` while it lasts.
    pub duration: Option<Duration>,
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const VALID: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    /// The example of the specification: same trace, the caller's span as parent, our span sent on.
    #[test]
    fn a_trace_is_continued() {
        let context = TraceContext::accept(Some(VALID.as_bytes()));
        assert_eq!(context.trace_id.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(context.parent.unwrap().to_string(), "00f067aa0ba902b7");
        assert_eq!(context.flags, SAMPLED);
        assert_ne!(Some(context.span), context.parent);
        let sent = context.traceparent(context.span);
        let expected = format!("00-4bf92f3577b34da6a3ce929d0e0e4736-{}-01", context.span);
        assert_eq!(std::str::from_utf8(&sent), Ok(expected.as_str()));
    }

    #[test]
    fn what_is_not_valid_begins_a_new_trace() {
        for bad in [
            "",
            "00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01 ",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.what",
            "00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "0g-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            let context = TraceContext::accept(Some(bad.as_bytes()));
            assert_eq!(context.parent, None, "{bad:?}");
            assert_eq!(context.flags, SAMPLED | RANDOM);
        }
        assert_eq!(TraceContext::accept(None).parent, None);
    }

    #[test]
    fn later_versions_are_read_as_this_one_and_unknown_flags_end_here() {
        for later in [
            "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-f9",
            "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-f9-what-the-future-brings",
        ] {
            let context = TraceContext::accept(Some(later.as_bytes()));
            assert!(context.parent.is_some(), "{later}");
            assert!(context.traceparent(context.span).starts_with(b"00-4bf92f"));
            assert!(context.traceparent(context.span).ends_with(b"-01"));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
            let context = TraceContext::accept(Some(&bytes));
            prop_assert!(parse(&context.traceparent(context.span)).is_some());
        }

        /// One changed byte of a valid header is either still valid or begins a new trace, never half of one.
        #[test]
        fn what_is_sent_reads_back(at in 0..TRACEPARENT_LEN, byte in any::<u8>()) {
            let mut text = VALID.as_bytes().to_vec();
            text[at] = byte;
            let context = TraceContext::accept(Some(&text));
            let read = parse(&context.traceparent(context.span));
            prop_assert_eq!(read, Some((context.trace_id, context.span, context.flags)));
        }
    }
}
