//! Answers: the server's on their way back, and the gateway's own. One place writes every local answer.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{StatusCode, Version, header};
use pingora::http::ResponseHeader;
use pingora::protocols::http::HttpTask;
use pingora::{Error, ErrorType, Result};
use pingora_proxy::Session;

use super::connect::{self, Progress};
use super::dispatch::Answer;
use super::{envelope, forward};
use crate::base::problem::{Form, Problem};
use crate::base::reason::Reason;
use crate::base::{clock, fault};
use crate::config::snapshot::Target;
use crate::files::{self, Refusal, Site};
use crate::proxy::downstream::Downstream;
use crate::proxy::{Asked, Context, edit};
use crate::upstream::{Outcome, answer};

/// Interim answers to one request that are passed on. Servers send one or two.
const INTERIM_ANSWERS_MAX: u32 = 32;

/// The head of a server's answer: retried when its status says so and another server may do better.
pub(in crate::proxy) fn upstream_answered(
    progress: Progress,
    status_code: StatusCode,
    ctx: &mut Context,
) -> Result<()> {
    let status = status_code.as_u16();
    if let Some(exchange) = &ctx.exchange {
        exchange.server_spoke();
    }
    fault::point("answer", &*ctx.route.name);
    if status_code.is_informational() && status != 101 {
        ctx.interim_answers += 1;
        if ctx.interim_answers > INTERIM_ANSWERS_MAX {
            let mut error = Error::explain(ErrorType::InvalidHTTPHeader, "too many interim answers");
            error.as_up();
            return Err(error);
        }
        return Ok(());
    }
    if status == 101 && !ctx.is_upgrade() {
        // Passed on, it would have the client take what follows for another protocol.
        let mut error = Error::explain(ErrorType::InvalidHTTPHeader, "101 although nobody asked for it");
        error.as_up();
        return Err(error);
    }
    if let Some(attempt) = ctx.call.as_mut().and_then(|call| call.attempt.as_mut()) {
        attempt.finish(Outcome::Answered(status), clock::now());
    }
    let retryable = ctx.call.as_ref().is_some_and(|call| call.upstream.retry_policy().on.has_status(status));
    if retryable && connect::again_after_status(progress, ctx, status) {
        let mut error = Error::explain(ErrorType::HTTPStatus(status), "retried on another server");
        error.as_up();
        error.set_retry(true);
        ctx.retrying = true;
        return Err(error);
    }
    Ok(())
}

/// Refuses an answer that Pingora takes although it can be read in two ways, or cannot be passed on as it is. The library
/// of HTTP/2 refuses most of that by itself, but not a length that is said twice.
pub(in crate::proxy) fn check(session: &Session, response: &ResponseHeader) -> Result<()> {
    let checked = answer::check(response, &session.req_header().method);
    checked.and_then(|()| answer::check_switch(response)).map_err(|what| {
        let mut error = Error::explain(ErrorType::InvalidHTTPHeader, what);
        error.as_up();
        error
    })
}

/// The head of any proxied answer, as it goes to the client.
pub(in crate::proxy) fn edit(
    session: &mut Session,
    response: &mut ResponseHeader,
    ctx: &mut Context,
) -> Result<()> {
    if response.status.is_informational() && response.status != StatusCode::SWITCHING_PROTOCOLS {
        edit::interim(response);
        edit::frame(response, edit::AnswerFraming::NoContent)?;
        say_our_version(response);
        ctx.resume_pace();
        return Ok(());
    }
    if response.status == StatusCode::NO_CONTENT {
        edit::frame(response, edit::AnswerFraming::NoContent)?;
    }
    // Pingora asks nothing more about an answer whose head is its end.
    let is_empty =
        response.headers.get(header::CONTENT_LENGTH).is_some_and(|length| length.as_bytes() == b"0");
    ctx.wrapping = if is_empty { None } else { envelope::begin(response, ctx)?.map(Box::new) };
    if ctx.wrapping.is_some() && ctx.head.version == Version::HTTP_11 {
        edit::frame(response, edit::AnswerFraming::Chunks)?;
    }
    let is_stream = begins(response, ctx);
    if is_stream {
        session.set_read_timeout(Some(ctx.snapshot.limits.stream_idle));
    } else if ctx.is_upgrade() && !ctx.route.stream && response.status != StatusCode::SWITCHING_PROTOCOLS {
        session.set_read_timeout(Some(ctx.snapshot.limits.body_timeout));
        ctx.stays_http();
    }
    if ctx.head.version == Version::HTTP_10 {
        // It knows no chunks: what has no length ends with the connection.
        edit::unchunk(response);
        if !response.headers.contains_key(header::CONTENT_LENGTH) {
            session.set_keepalive(None);
        }
    }
    head(Asked::of(session.req_header()), response, ctx)?;
    say_our_version(response);
    if is_bodiless(ctx, response) {
        ended(session, ctx);
    }
    Ok(())
}

/// A message that is passed on has the version of who does it (RFC 9112 section 2.3).
fn say_our_version(response: &mut ResponseHeader) {
    if response.version < Version::HTTP_11 {
        response.set_version(Version::HTTP_11);
    }
}

/// Which pages of other origins may read the answer, if the route says that.
fn say_who_reads(asked: Asked<'_>, response: &mut ResponseHeader, ctx: &Context) -> Result<()> {
    let Some(cors) = &ctx.route.guard.cors else { return Ok(()) };
    let preflight = ctx.preflight && response.status == StatusCode::NO_CONTENT;
    edit::policies::cors(response, cors, asked.headers, preflight)
}

/// The server's answer begins to go to the client: what holds from now on. Whether it is a stream of events.
pub(in crate::proxy) fn begins(response: &ResponseHeader, ctx: &mut Context) -> bool {
    ctx.status = response.status.as_u16();
    ctx.failure = None;
    ctx.answer_began();
    ctx.resume_pace();
    let is_stream = is_stream(response);
    if is_stream {
        ctx.lift_pace();
    }
    if is_stream || ctx.is_silence_normal() {
        ctx.snapshot = ctx.snapshot.remnant();
    }
    is_stream
}

/// Makes the head of a server's answer the client's.
pub(in crate::proxy) fn head(
    asked: Asked<'_>,
    response: &mut ResponseHeader,
    ctx: &mut Context,
) -> Result<()> {
    edit::response(response, ctx.head.version, ctx.request_id.as_bytes())?;
    edit::policies::limits(response, &ctx.met, ctx.planned.as_ref())?;
    say_who_reads(asked, response, ctx)?;
    edit_by_rules(asked, response, ctx)?;
    if let Some(hsts) = ctx.hsts() {
        edit::strict_transport(response, hsts)?;
    }
    collect(ctx, response);
    Ok(())
}

/// What the route changes in any answer, its own included.
fn edit_by_rules(asked: Asked<'_>, response: &mut ResponseHeader, ctx: &mut Context) -> Result<()> {
    if ctx.route.response.is_none() {
        return Ok(());
    }
    let route = ctx.route.clone();
    route.response.as_ref().map_or(Ok(()), |rules| forward::edit_by_rules(asked, response, rules, ctx))
}

/// Whether what follows is a stream of events, whether or not the client said that it wants one.
fn is_stream(response: &ResponseHeader) -> bool {
    response.headers.get(header::CONTENT_TYPE).is_some_and(|value| {
        value.as_bytes().starts_with(b"text/event-stream")
            || value.as_bytes().starts_with(b"application/grpc")
    })
}

/// What the access log shows of the answer's head.
fn collect(ctx: &mut Context, response: &ResponseHeader) {
    if let (Some(record), Some(log)) = (ctx.record.as_mut(), &ctx.snapshot.log.access) {
        log.collect_response(record, &response.headers);
    }
}

/// One piece of an answer's body.
pub(in crate::proxy) fn body(
    session: &mut Session,
    body: &mut Option<Bytes>,
    end: bool,
    ctx: &mut Context,
) -> Result<()> {
    envelope::piece(Asked::of(session.req_header()), body, end, ctx)?;
    piece(body.as_ref().map_or(0, Bytes::len), ctx);
    if end {
        ended(session, ctx);
    }
    Ok(())
}

/// The trailers of an answer, which are its end. What was kept of it until then.
pub(in crate::proxy) async fn trailers(session: &mut Session, ctx: &mut Context) -> Result<Option<Bytes>> {
    let mut kept = None;
    if let Err(error) = envelope::piece(Asked::of(session.req_header()), &mut kept, true, ctx) {
        // Pingora passes over what fails here, and would end the answer as if it were whole.
        session.as_downstream_mut().shutdown().await;
        return Err(error);
    }
    piece(kept.as_ref().map_or(0, Bytes::len), ctx);
    ended(session, ctx);
    Ok(kept)
}

/// So many bytes of an answer's body are on their way to the client.
pub(in crate::proxy) fn piece(bytes: usize, ctx: &mut Context) {
    if ctx.response_body_bytes > 0 {
        fault::point("more of the answer", &*ctx.route.name);
    }
    ctx.response_body_bytes += bytes as u64;
    if let Some(exchange) = &ctx.exchange {
        exchange.server_spoke();
    }
}

/// The answer is complete. Pingora goes on to read the request to its end, while many a client waits for the end of
/// the connection instead, and would for as long as `limits.body_timeout`.
pub(in crate::proxy) fn ended(session: &mut Session, ctx: &mut Context) {
    let is_request_whole = session.was_upgraded() || session.is_body_done();
    answer_ended(is_request_whole, ctx);
}

/// The same, where it is known whether the request was received whole.
pub(in crate::proxy) fn answer_ended(is_request_whole: bool, ctx: &mut Context) {
    ctx.answer_ended = true;
    if let Some(exchange) = &ctx.exchange {
        exchange.watch_server(None);
    }
    if !is_request_whole {
        ctx.cut_off_within(BODY_AFTER_ANSWER);
    }
}

/// Time a client has for the rest of a request whose answer it has.
const BODY_AFTER_ANSWER: Duration = Duration::from_secs(2);

/// Whether no body follows this head.
fn is_bodiless(ctx: &Context, head: &ResponseHeader) -> bool {
    ctx.head.method == http::Method::HEAD
        || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
        || head.headers.get(header::CONTENT_LENGTH).is_some_and(|length| length.as_bytes() == b"0")
}

/// Answers with a problem document in the form the client asked for.
pub(in crate::proxy) async fn problem(
    client: &mut impl Downstream,
    ctx: &mut Context,
    problem: &Problem,
) -> Result<()> {
    ctx.failure = Some(problem.reason);
    let form = ctx.head.error_form;
    // Trailers are HTTP/2's; over HTTP/1 there is no gRPC, only something that says it is.
    let form = if form == Form::Grpc && ctx.head.version < Version::HTTP_2 { Form::Json } else { form };
    let status = if form == Form::Grpc { 200 } else { problem.status() };
    let body = problem.body(form, ctx.request_id.as_str());
    let mut header = ResponseHeader::build(status, Some(8))?;
    header.insert_header(header::CONTENT_TYPE, Problem::content_type(form))?;
    if form == Form::Grpc {
        header.insert_header("grpc-status", u16::from(problem.reason.grpc_status()))?;
        header.insert_header("grpc-message", grpc_message(problem.detail()).as_ref())?;
    } else {
        header.insert_header(header::CACHE_CONTROL, "no-store")?;
        for challenge in &problem.challenges {
            header.append_header(header::WWW_AUTHENTICATE, challenge.as_str())?;
        }
    }
    if let Some(seconds) = problem.retry_after_seconds() {
        header.insert_header(header::RETRY_AFTER, seconds)?;
    }
    if let Some(length) = &problem.complete_length {
        header.insert_header(header::CONTENT_RANGE, format!("bytes */{length}"))?;
    }
    if let Some(allow) = &problem.allow {
        header.insert_header(header::ALLOW, allow.as_ref())?;
    }
    for (name, value) in problem.parts.iter().flat_map(|parts| &parts.headers) {
        header.append_header(name.clone(), value.clone())?;
    }
    send(client, ctx, header, Bytes::from(body)).await?;
    ctx.status = problem.status();
    Ok(())
}

/// `text` as gRPC writes it in a header: what is not visible ASCII, and `%`, by its bytes in hexadecimal.
fn grpc_message(text: &str) -> Cow<'_, str> {
    let plain = |byte: u8| matches!(byte, b' '..=b'~') && byte != b'%';
    if text.bytes().all(plain) {
        return Cow::Borrowed(text);
    }
    let encode = |byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    Cow::Owned(text.bytes().map(encode).collect())
}

/// Answers with what the route says.
pub(in crate::proxy) async fn local(
    client: &mut impl Downstream,
    ctx: &mut Context,
    answer: Answer,
) -> Result<()> {
    match answer {
        Answer::Redirect { status, location } => {
            let mut header = ResponseHeader::build(status, Some(6))?;
            header.insert_header(header::LOCATION, location)?;
            send(client, ctx, header, Bytes::new()).await
        }
        Answer::Preflight => {
            let header = ResponseHeader::build(StatusCode::NO_CONTENT, Some(10))?;
            send(client, ctx, header, Bytes::new()).await
        }
        Answer::Fixed(answer) => {
            let mut header = ResponseHeader::build(answer.status(), Some(answer.headers().len() + 6))?;
            for (name, value) in answer.headers() {
                header.append_header(name.clone(), value.clone())?;
            }
            let body = envelope::local(&mut header, answer.body().clone(), client.asked(), ctx)?;
            send(client, ctx, header, body).await
        }
        Answer::Made(answer) => {
            let (parts, body) = answer.into_parts();
            let mut header = ResponseHeader::from(parts);
            let body = envelope::local(&mut header, body, client.asked(), ctx)?;
            send(client, ctx, header, body).await
        }
        Answer::File(site, request) => file(client, ctx, site, *request).await,
    }
}

/// Answers with a file: found and read within the request's time, then sent as fast as the client takes it.
async fn file(
    client: &mut impl Downstream,
    ctx: &mut Context,
    site: Arc<Site>,
    request: files::Request,
) -> Result<()> {
    let answer = match ctx.deadlines.first_byte {
        None => site.answer(request).await,
        Some(at) => {
            let left = at.saturating_duration_since(clock::now());
            match tokio::time::timeout(left, site.answer(request)).await {
                Ok(answer) => answer,
                Err(_) => Err(Problem::new(Reason::DeadlineExceeded).into()),
            }
        }
    };
    match answer {
        Ok(answer) => send_file(client, ctx, answer).await,
        Err(Refusal { problem: refusal, detail }) => {
            ctx.detail = detail;
            problem(client, ctx, &refusal).await
        }
    }
}

async fn send_file(client: &mut impl Downstream, ctx: &mut Context, answer: files::Answer) -> Result<()> {
    let files::Answer { head, length, mut body } = answer;
    let mut header = ResponseHeader::build(head.status(), Some(head.headers().len() + 6))?;
    for (name, value) in head.headers() {
        header.append_header(name.clone(), value.clone())?;
    }
    begin(client, ctx, &mut header, length)?;
    ctx.answer_began();
    let mut tasks = vec![HttpTask::Header(Box::new(header), body.left() == 0)];
    if body.left() > files::PIECE_BYTES as u64 {
        // A long download must not keep the configuration it began with.
        ctx.snapshot = ctx.snapshot.remnant();
        // By itself: what stands together with a header is copied, and the copy's room kept for the whole answer.
        client.write(std::mem::take(&mut tasks)).await?;
    }
    while let Some(piece) = next_piece(&mut body, ctx).await? {
        ctx.response_body_bytes += piece.len() as u64;
        tasks.push(HttpTask::Body(Some(piece), body.left() == 0));
        client.write(std::mem::take(&mut tasks)).await?;
    }
    if !tasks.is_empty() {
        client.write(tasks).await?;
    }
    Ok(())
}

/// The next piece of a file. When that cannot be read as it was announced the answer breaks off, which is how a client
/// learns that it has not got all of it.
async fn next_piece(body: &mut files::Body, ctx: &mut Context) -> Result<Option<Bytes>> {
    let read = tokio::time::timeout(ctx.snapshot.limits.body_timeout, body.next()).await;
    let error = match read {
        Ok(Ok(piece)) => return Ok(piece),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "the disk does not answer".to_owned(),
    };
    ctx.failure = Some(Reason::FileFailed);
    ctx.detail = Some(error);
    Error::e_explain(ErrorType::FileReadError, "while sending a file")
}

/// Writes a local answer and leaves the connection usable, unless a body is still on its way: reading that to its end
/// could take for ever, so such a connection is closed after the answer.
async fn send(
    client: &mut impl Downstream,
    ctx: &mut Context,
    mut header: ResponseHeader,
    body: Bytes,
) -> Result<()> {
    let bodiless = matches!(header.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let length = (!bodiless).then_some(body.len() as u64);
    begin(client, ctx, &mut header, length)?;
    let end = bodiless || body.is_empty() || ctx.head.method == http::Method::HEAD;
    // As tasks, as proxied answers are written: only so an HTTP/2 stream is ended by its header, which gRPC asks for
    // ("trailers-only"), and header and body leave an HTTP/1 connection together.
    let mut tasks = Vec::with_capacity(2);
    tasks.push(HttpTask::Header(Box::new(header), end));
    if !end {
        ctx.response_body_bytes += body.len() as u64;
        tasks.push(HttpTask::Body(Some(body), true));
    }
    client.write(tasks).await?;
    Ok(())
}

/// Completes the head of a local answer, whose body has `length` bytes.
fn begin(
    client: &mut impl Downstream,
    ctx: &mut Context,
    header: &mut ResponseHeader,
    length: Option<u64>,
) -> Result<()> {
    ctx.status = header.status.as_u16();
    let is_file = matches!(ctx.route.target, Target::Files(_));
    edit::local_response(header, ctx.request_id.as_bytes(), !is_file)?;
    edit::policies::limits(header, &ctx.met, ctx.planned.as_ref())?;
    say_who_reads(client.asked(), header, ctx)?;
    edit_by_rules(client.asked(), header, ctx)?;
    if let Some(hsts) = ctx.hsts() {
        edit::strict_transport(header, hsts)?;
    }
    if let Some(length) = length {
        header.insert_header(header::CONTENT_LENGTH, length)?;
    }
    collect(ctx, header);
    client.leave_body_behind(comes_anyhow(client.asked()));
    Ok(())
}

/// Whether the body is short and on its way anyhow: such a one is read after the answer, so that the connection survives.
/// Longer ones, those of unknown length, and those that the client holds back until it is asked, are not waited for: such
/// a connection is closed.
fn comes_anyhow(asked: Asked<'_>) -> bool {
    let headers = asked.headers;
    let length =
        headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let is_sent = !headers.contains_key(header::EXPECT) && !headers.contains_key(header::TRANSFER_ENCODING);
    is_sent && length.is_some_and(|length| length <= LEFT_BEHIND_BYTES_MAX)
}

/// Longest body read only to keep a connection: as much as a client has usually sent before it sees the answer.
const LEFT_BEHIND_BYTES_MAX: u64 = 64 * 1024;
