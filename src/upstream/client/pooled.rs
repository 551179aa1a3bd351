//! One exchange over a connection of Pingora's connector: TLS, HTTP/2, and servers that are told whose connection it is.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode, header};
use pingora::http::RequestHeader;
use pingora::protocols::http::client::HttpSession;
use pingora::upstreams::peer::{HttpPeer, Peer};
use pingora::{Error, ErrorType};

use super::{
    Broken, Client, DRAIN_BYTES_MAX, Ended, INTERIM_MAX, Missed, Outcome, Reply, Trial, changes_body,
    not_connected,
};

impl Trial<'_> {
    pub(super) async fn exchange_pooled(&mut self) -> Ended {
        let Some(attempt) = &self.attempt else { return Ended::Failed(Outcome::Abandoned) };
        let mut peer = attempt.peer();
        if attempt.introduces() {
            attempt.introduce(&mut peer, self.ask.introduction);
        }
        let client = self.upstream.live.client();
        let mut is_replaced = false;
        loop {
            let (session, reused) = match client.connector().get_http_session(&*peer).await {
                Ok(connected) => connected,
                Err(error) => return Ended::Failed(not_connected(&error)),
            };
            self.connected(reused);
            let talked = self.converse(session, &peer, client).await;
            match self.ended(talked, reused && !is_replaced) {
                Some(ended) => return ended,
                None => is_replaced = true,
            }
        }
    }

    async fn converse(
        &mut self,
        mut session: HttpSession,
        peer: &HttpPeer,
        client: &Client,
    ) -> Result<Reply, Broken> {
        if let Some(attempt) = &self.attempt {
            session.set_read_timeout(Some(attempt.timeouts().read));
            session.set_write_timeout(Some(attempt.timeouts().write));
        }
        self.send(&mut session, peer).await?;
        let status = read_head(&mut session).await?;
        self.answered(status.as_u16());
        let body = if status.is_success() {
            self.read(&mut session).await?
        } else {
            // Whatever comes of it.
            drop(tokio::time::timeout(self.drain_time(), drain(&mut session)).await);
            Bytes::new()
        };
        if session.response_done() {
            let idle = self.upstream.timeouts().idle;
            client.connector().release_http_session(session, peer, Some(idle)).await;
        }
        Ok(Reply { status: status.as_u16(), body })
    }

    async fn send(&mut self, session: &mut HttpSession, peer: &HttpPeer) -> Result<(), Broken> {
        let head = self.head(matches!(session, HttpSession::H2(_)), peer)?;
        let body = self.ask.body.clone().filter(|body| !body.is_empty());
        match session {
            HttpSession::H2(stream) => stream.write_request_header(Box::new(head), body.is_none())?,
            _ => session.write_request_header(Box::new(head)).await?,
        }
        if let Some(body) = body {
            session.write_request_body(body, true).await?;
        }
        session.finish_request_body().await?;
        self.is_sent = true;
        Ok(())
    }

    fn head(&self, is_http2: bool, peer: &HttpPeer) -> Result<RequestHeader, Box<Error>> {
        let ask = self.ask;
        let room = ask.headers.len_max() + 4;
        let mut head = RequestHeader::build(ask.method.clone(), ask.target.as_bytes(), Some(room))?;
        if is_http2 {
            let uri = http::Uri::builder()
                .scheme(if peer.tls() { "https" } else { "http" })
                .authority(self.host())
                .path_and_query(ask.target)
                .build();
            let uri =
                uri.map_err(|_| Error::explain(ErrorType::InvalidHTTPHeader, "no authority to send"))?;
            head.set_uri(uri);
        } else {
            head.insert_header(header::HOST, self.host())?;
        }
        for (name, value) in ask.headers.iter() {
            head.append_header(name.clone(), value.clone())?;
        }
        if let Some(trace) = ask.trace {
            head.insert_header("traceparent", &trace.traceparent(self.span)[..])?;
        }
        if let Some(length) = self.content_length() {
            head.insert_header(header::CONTENT_LENGTH, length)?;
        }
        Ok(head)
    }

    /// The body of an answer that is wanted, within its bounds.
    async fn read(&mut self, session: &mut HttpSession) -> Result<Bytes, Broken> {
        let headers = session.response_header().map(|head| &head.headers);
        if changes_body(headers.and_then(|headers| headers.get(header::CONTENT_ENCODING))) {
            return Err(Broken::Missed(Missed::Encoded));
        }
        if headers.and_then(announced).is_some_and(|length| length > self.ask.bytes_max as u64) {
            return Err(Broken::Missed(Missed::TooLarge));
        }
        let mut pieces: Option<Pieces> = None;
        while let Some(piece) = session.read_response_body().await? {
            let length = pieces.as_ref().map_or(0, Pieces::len) + piece.len();
            if length > self.ask.bytes_max || !(self.ask.room)(piece.len()) {
                return Err(Broken::Missed(Missed::TooLarge));
            }
            self.received += piece.len() as u64;
            pieces = Some(match pieces {
                None => Pieces::One(piece),
                Some(before) => before.and(&piece),
            });
        }
        Ok(pieces.map_or_else(Bytes::new, Pieces::whole))
    }
}

fn announced(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// A body as it comes: most come in one piece, which is not copied.
enum Pieces {
    One(Bytes),
    Many(BytesMut),
}

impl Pieces {
    fn len(&self) -> usize {
        match self {
            Self::One(piece) => piece.len(),
            Self::Many(pieces) => pieces.len(),
        }
    }

    fn and(self, piece: &[u8]) -> Self {
        let mut pieces = match self {
            Self::One(first) => BytesMut::from(&first[..]),
            Self::Many(pieces) => pieces,
        };
        pieces.extend_from_slice(piece);
        Self::Many(pieces)
    }

    fn whole(self) -> Bytes {
        match self {
            Self::One(piece) => piece,
            Self::Many(pieces) => pieces.freeze(),
        }
    }
}

/// The status of the answer, interim ones passed over.
async fn read_head(session: &mut HttpSession) -> Result<StatusCode, Broken> {
    for _ in 0..INTERIM_MAX {
        session.read_response_header().await?;
        let status = session.response_header().map(|head| head.status).ok_or(Broken::Nonsense)?;
        if status == StatusCode::SWITCHING_PROTOCOLS {
            // Nobody asked for it.
            return Err(Broken::Nonsense);
        }
        if !status.is_informational() {
            return Ok(status);
        }
    }
    Err(Broken::Nonsense)
}

/// Reads a short body to its end.
async fn drain(session: &mut HttpSession) {
    let mut left = DRAIN_BYTES_MAX;
    while let Ok(Some(piece)) = session.read_response_body().await {
        left = left.saturating_sub(piece.len());
        if left == 0 {
            return;
        }
    }
}
