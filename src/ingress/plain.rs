//! Serves a [`PlainService`] (the admin listener, the sample services) on the same connections as the gateway:
//! the same strict heads, deadlines and caps.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use pingora::apps::{HttpPersistentSettings, HttpServerApp, ReusedHttpStream};
use pingora::http::ResponseHeader;
use pingora::protocols::http::ServerSession;
use pingora::server::ShutdownWatch;

use super::connection;
use crate::base::fault;
use crate::base::service::{Peer, PlainService};

/// Largest request body a plain service gets.
pub const BODY_BYTES_MAX: usize = 1024 * 1024;

/// Time a request has, from its first byte to the last of its answer.
const TIME: Duration = Duration::from_secs(60);

/// A plain service as something that `ingress` can serve.
pub struct Plain(Arc<dyn PlainService>);

impl std::fmt::Debug for Plain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Plain")
    }
}

impl Plain {
    /// Wraps `service`.
    pub fn new(service: Arc<dyn PlainService>) -> Self {
        Self(service)
    }

    async fn exchange(&self, session: &mut ServerSession) -> pingora::Result<()> {
        let head = session.req_header();
        let is_head = head.method == http::Method::HEAD;
        let mut request = http::Request::new(Bytes::new());
        *request.method_mut() = head.method.clone();
        *request.uri_mut() = head.uri.clone();
        *request.headers_mut() = head.headers.clone();
        if let Some(exchange) = connection::exchange() {
            request.extensions_mut().insert(Peer(exchange.connection.peer.ip().to_string()));
        }
        fault::point("plain service", head.uri.path());
        let expects = head.headers.get(http::header::EXPECT).is_some();
        let response = match self.body(session, expects).await? {
            Some(body) => {
                *request.body_mut() = body;
                self.0.call(request).await
            }
            None => {
                let mut response = http::Response::new(Bytes::from_static(b"the body is too large\n"));
                *response.status_mut() = http::StatusCode::PAYLOAD_TOO_LARGE;
                response
            }
        };
        let (parts, body) = response.into_parts();
        let mut header = ResponseHeader::build(parts.status, Some(parts.headers.len() + 1))?;
        for (name, value) in &parts.headers {
            header.append_header(name.clone(), value.clone())?;
        }
        header.insert_header(http::header::CONTENT_LENGTH, body.len().to_string())?;
        let bodiless = is_head || body.is_empty();
        session.write_response_header(Box::new(header)).await?;
        session.write_response_body(if bodiless { Bytes::new() } else { body }, true).await
    }

    /// The whole body; `None` when it is too large.
    async fn body(
        &self,
        session: &mut ServerSession,
        expects_continue: bool,
    ) -> pingora::Result<Option<Bytes>> {
        if expects_continue {
            session.write_continue_response().await?;
        }
        let mut body = BytesMut::new();
        while let Some(part) = session.read_request_body().await? {
            if body.len() + part.len() > BODY_BYTES_MAX {
                return Ok(None);
            }
            body.extend_from_slice(&part);
        }
        Ok(Some(body.freeze()))
    }
}

#[async_trait]
impl HttpServerApp for Plain {
    async fn process_new_http(
        self: &Arc<Self>,
        mut session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        if !session.read_request().await.ok()? {
            return None;
        }
        if *shutdown.borrow() {
            session.set_keepalive(None);
        }
        if let Some(exchange) = connection::exchange() {
            exchange.cut_off_at(exchange.began.checked_add(TIME));
        }
        self.exchange(&mut session).await.ok()?;
        let settings = HttpPersistentSettings::for_session(&session);
        let reusable = session.finish().await.ok()??;
        Some(ReusedHttpStream::from_reusable_stream(reusable, settings))
    }
}
