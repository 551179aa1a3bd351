//! What the gateway itself looks at in the head of a request.

use http::{HeaderMap, HeaderValue};

use super::names::{is_forwarding, is_identity};

/// The fields of a request's head that the gateway itself looks at, each by its first line, found in one pass: over a
/// head of ordinary length that costs as much as looking up two or three of them.
#[derive(Debug, Clone, Copy, Default)]
pub struct Received<'h> {
    /// `Accept`.
    pub accept: Option<&'h HeaderValue>,
    /// `Content-Length`.
    pub content_length: Option<&'h HeaderValue>,
    /// `Content-Type`.
    pub content_type: Option<&'h HeaderValue>,
    /// `Host`.
    pub host: Option<&'h HeaderValue>,
    /// `X-Request-Id`.
    pub request_id: Option<&'h HeaderValue>,
    /// `TE`.
    pub te: Option<&'h HeaderValue>,
    /// `traceparent`.
    pub traceparent: Option<&'h HeaderValue>,
    /// What else there is.
    pub marks: Marks,
}

/// Which kinds of fields there are.
#[derive(Debug, Clone, Copy, Default)]
pub struct Marks {
    /// `Upgrade`.
    pub upgrade: bool,
    /// What is for this hop alone.
    pub hop: bool,
    /// What says where the request comes from: `Forwarded`, `X-Forwarded-*`, `X-Real-IP`.
    pub forwarding: bool,
    /// What is kept for the gateway to say who the request is from, such as `X-Auth-Roles`.
    pub identity: bool,
    /// `traceparent` or `tracestate`.
    pub trace: bool,
    /// More than one `traceparent`.
    pub several_traces: bool,
    /// `X-Request-Id`.
    pub request_id: bool,
    /// `Host`.
    pub host: bool,
    /// `Expect`: the client may hold its body back until it is asked for it.
    pub expect: bool,
    /// A length or a coding that is right, but not in the one form that every server reads.
    pub framing: bool,
}

impl<'h> Received<'h> {
    /// Looks through `headers`.
    pub fn read(headers: &'h HeaderMap) -> Self {
        let mut received = Self::default();
        let marks = &mut received.marks;
        for (name, value) in headers {
            let field = match name.as_str() {
                "accept" => &mut received.accept,
                "content-length" => {
                    marks.framing |= value.len() > 1 && value.as_bytes().starts_with(b"0");
                    &mut received.content_length
                }
                "transfer-encoding" => {
                    marks.framing |= value.as_bytes() != b"chunked";
                    continue;
                }
                "content-type" => &mut received.content_type,
                "host" => {
                    marks.host = true;
                    &mut received.host
                }
                "te" => {
                    marks.hop = true;
                    &mut received.te
                }
                "x-request-id" => {
                    marks.request_id = true;
                    &mut received.request_id
                }
                "traceparent" => {
                    marks.several_traces |= received.traceparent.is_some();
                    marks.trace = true;
                    &mut received.traceparent
                }
                name => {
                    marks.note(name);
                    continue;
                }
            };
            field.get_or_insert(value);
        }
        received
    }
}

impl Marks {
    fn note(&mut self, name: &str) {
        match name {
            "upgrade" => (self.upgrade, self.hop) = (true, true),
            "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "http2-settings"
            | "trailer" => self.hop = true,
            "tracestate" => self.trace = true,
            "expect" => self.expect = true,
            name if name.starts_with('x') || name.starts_with('f') => {
                self.forwarding |= is_forwarding(name);
                self.identity |= is_identity(name);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn the_first_line_of_each_field_counts() {
        let headers = headers(&[("accept", "a"), ("host", "h"), ("accept", "b"), ("x-other", "c")]);
        let received = Received::read(&headers);
        assert_eq!(received.accept.unwrap(), "a");
        assert_eq!(received.host.unwrap(), "h");
        let Marks { upgrade, hop, forwarding, identity, trace, several_traces, request_id, host, .. } =
            received.marks;
        assert!(
            host && ![upgrade, hop, forwarding, identity, trace, several_traces, request_id].contains(&true)
        );
        let Marks { expect, framing, .. } = received.marks;
        assert!(!expect && !framing);
    }

    #[test]
    fn what_has_to_be_looked_after_is_marked() {
        let marks = |name: &'static str| Received::read(&headers(&[(name, "x")])).marks;
        for name in ["connection", "te", "trailer", "upgrade", "keep-alive", "proxy-authorization"] {
            assert!(marks(name).hop, "{name}");
        }
        for name in [
            "forwarded",
            "x-real-ip",
            "x-forwarded-for",
            "x-forwarded-prefix",
            "x_real-ip",
            "x_forwarded_for",
        ] {
            assert!(marks(name).forwarding, "{name}");
        }
        for name in ["x-auth-roles", "x_auth_claims", "x-consumer"] {
            assert!(marks(name).identity && !marks(name).forwarding, "{name}");
        }
        assert!(marks("transfer-encoding").framing && !marks("content-length").framing);
        for (line, is_odd) in [
            (("transfer-encoding", "chunked"), false),
            (("transfer-encoding", "Chunked"), true),
            (("content-length", "0"), false),
            (("content-length", "05"), true),
        ] {
            assert_eq!(Received::read(&headers(&[line])).marks.framing, is_odd, "{line:?}");
        }
        assert!(marks("upgrade").upgrade && marks("tracestate").trace && marks("x-request-id").request_id);
        assert!(!marks("traceparent").several_traces);
        let twice = headers(&[("traceparent", "a"), ("traceparent", "b")]);
        assert!(Received::read(&twice).marks.several_traces);
    }
}
