//! The client, as answers of the gateway's own are written to it, whoever drives the connection.

use http::HeaderMap;
use pingora::Result;
use pingora::protocols::http::HttpTask;
use pingora_proxy::Session;

use super::asked::Asked;

/// A client that waits for an answer.
pub(in crate::proxy) trait Downstream: Send {
    /// What it asked for.
    fn asked(&self) -> Asked<'_>;

    /// The answer is about to be written although the request's body may not have been read. With `wait` the rest of it
    /// is read after the answer and the connection kept; otherwise such a connection is closed.
    fn leave_body_behind(&mut self, wait: bool);

    /// Writes parts of the answer. The last one says that it is.
    fn write(&mut self, parts: Vec<HttpTask>) -> impl Future<Output = Result<()>> + Send;
}

impl Downstream for Session {
    fn asked(&self) -> Asked<'_> {
        Asked::of(self.req_header())
    }

    fn leave_body_behind(&mut self, wait: bool) {
        if wait {
            self.as_downstream_mut().set_close_on_response_before_downstream_finish(false);
        }
    }

    async fn write(&mut self, parts: Vec<HttpTask>) -> Result<()> {
        self.as_downstream_mut().response_duplex_vec(parts).await.map(drop)
    }
}

/// Titles the name of a field as HTTP/1 writes it, which some old clients and servers insist on.
pub(in crate::proxy) fn write_fields(headers: &HeaderMap, out: &mut Vec<u8>) {
    for (name, value) in headers {
        write_field(name.as_str().as_bytes(), value.as_bytes(), out);
    }
}

/// One field line; `name` in lower case.
pub(in crate::proxy) fn write_field(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.reserve(name.len() + value.len() + 4);
    let mut starts = true;
    out.extend(name.iter().map(|byte| {
        let titled = if starts { byte.to_ascii_uppercase() } else { *byte };
        starts = *byte == b'-';
        titled
    }));
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}
