//! Errors: from Pingora's cause to our reason, in one table; and the answer, if one can still be given.

use pingora::{Error, ErrorSource, ErrorType};
use pingora_proxy::{FailToProxy, Session};

use super::connect::Progress;
use super::{connect, respond};
use crate::base::clock;
use crate::base::problem::Problem;
use crate::base::reason::Reason;
use crate::ingress::connection::Exchange;
use crate::proxy::Context;
use crate::proxy::phases::dispatch::Answer;
use crate::upstream::Outcome;
use crate::upstream::retry::is_idempotent;

/// An attempt that had a connection failed. Ends it and decides whether another follows.
pub(in crate::proxy) fn while_proxying(
    progress: Progress,
    ctx: &mut Context,
    mut error: Box<Error>,
    client_reused: bool,
) -> Box<Error> {
    if std::mem::take(&mut ctx.retrying) {
        // Decided where the status was seen; the next attempt is picked.
        error.set_retry(true);
        return error;
    }
    if ctx.exchange.as_ref().is_some_and(|exchange| exchange.take_silence()) {
        // The client's connection kept watch over the server (see `connect::peer`), and this is how it tells.
        error = Error::explain(ErrorType::ReadTimedout, "while the server's answer was waited for");
        error.as_up();
    }
    if *error.esource() != ErrorSource::Upstream || is_silent_tunnel(progress, &error) {
        // The client left, was too slow, or sent what may not pass: nothing to hold against the server. But when the
        // request's time was over before the answer began, its side was cut off because the server was silent.
        let late = ctx.status == 0 && ctx.is_late();
        let body_sent = ctx.call.as_ref().is_some_and(|call| call.body_sent);
        if late {
            ctx.failure = Some(Reason::DeadlineExceeded);
            ctx.detail = Some(error.to_string().trim().to_owned());
        }
        ctx.end_attempt(late.then_some(Outcome::Timeout { body_sent }), clock::now());
        error.set_retry(false);
        return error;
    }
    let fresh = !progress.answer_started && progress.replayable && is_idempotent(&ctx.head.method);
    if client_reused && fresh && is_reset(&error) && ctx.replace_stale() {
        // A kept connection that the server had closed meanwhile: its right, and no failure.
        error.set_retry(true);
        return error;
    }
    ctx.detail = Some(error.to_string().trim().to_owned());
    let body_sent = ctx.call.as_ref().is_some_and(|call| call.body_sent);
    let outcome = match error.etype() {
        ErrorType::ReadTimedout => Outcome::Timeout { body_sent },
        // There was something to send, so it is the server that did not take it.
        ErrorType::WriteTimedout => Outcome::Timeout { body_sent: true },
        ErrorType::InvalidHTTPHeader | ErrorType::H1Error | ErrorType::InvalidH2 | ErrorType::H2Downgrade => {
            Outcome::BadResponse
        }
        _ => Outcome::Reset,
    };
    let retry = connect::next(progress, ctx, outcome);
    if !retry && outcome == (Outcome::Timeout { body_sent: false }) && !ctx.is_late() {
        // While the body was still coming, the silence was the client's.
        ctx.failure = Some(Reason::BodyTimeout);
    }
    error.set_retry(retry);
    error
}

/// A tunnel in which nobody said anything for `limits.stream_idle`; which side noticed first is chance.
fn is_silent_tunnel(progress: Progress, error: &Error) -> bool {
    progress.tunnel && *error.etype() == ErrorType::ReadTimedout
}

fn is_reset(error: &Error) -> bool {
    matches!(
        error.etype(),
        ErrorType::ConnectionClosed | ErrorType::ReadError | ErrorType::WriteError | ErrorType::H2Error
    )
}

/// Answers for a request that Pingora could not serve; only notes it when the answer has begun or nobody listens.
pub(in crate::proxy) async fn answer(session: &mut Session, ctx: &mut Context, error: &Error) -> FailToProxy {
    let Some(reason) = settle(Progress::of(session), ctx, error) else {
        return FailToProxy { error_code: ctx.status, can_reuse_downstream: false };
    };
    let fallback = connect::fallback_answer(ctx);
    // Unless the whole request was read, where the client's message stopped is not known.
    let whole = session.is_body_done() && !ctx.is_upgrade() && session.get_keepalive().is_some();
    if !whole {
        session.set_keepalive(None);
    }
    let sent = match fallback {
        Some(fallback) => respond::local(session, ctx, Answer::Fixed(fallback)).await,
        None => respond::problem(session, ctx, &Problem::new(reason)).await,
    };
    match (sent, &ctx.exchange) {
        // Its stream was reset for that: nobody reads the answer, and that is not the client's leaving.
        (Err(_), Some(exchange)) if exchange.is_body_malformed() => {}
        (Err(_), _) => ctx.failure = Some(Reason::ClientClosed),
        (Ok(()), Some(exchange)) if whole => exchange.keep(),
        _ => {}
    }
    FailToProxy { error_code: ctx.status, can_reuse_downstream: false }
}

/// Settles what the record says of a request that `error` ended; and for which reason it is to be answered, if it is.
pub(in crate::proxy) fn settle(progress: Progress, ctx: &mut Context, error: &Error) -> Option<Reason> {
    ctx.end_attempt(None, clock::now());
    if let Some(reason) = ctx.identity_ended() {
        ctx.failure = Some(reason);
        ctx.detail = Some("the tunnel ended: it is no longer proved whose it is".to_owned());
        return None;
    }
    if is_silent_tunnel(progress, error) {
        ctx.detail = Some("silent for limits.stream_idle".to_owned());
        return None;
    }
    let of_client = *error.esource() == ErrorSource::Downstream;
    let cannot_write = of_client && matches!(error.etype(), ErrorType::WriteError | ErrorType::WriteTimedout);
    if ctx.answer_ended && of_client && !cannot_write {
        // The client has its answer. That it did not send all of a request that was answered is its right.
        ctx.detail = Some("answered before the request was complete".to_owned());
        return None;
    }
    let reason = reason_of(ctx, error);
    if ctx.detail.is_none() {
        ctx.detail = Some(error.to_string().trim().to_owned());
    }
    ctx.failure = Some(reason);
    if progress.answer_started || cannot_write || reason == Reason::ClientClosed {
        if ctx.status == 0 {
            ctx.status = reason.status();
        }
        return None;
    }
    Some(reason)
}

/// The one table from Pingora's errors to reasons, for what was not named where it happened.
fn reason_of(ctx: &Context, error: &Error) -> Reason {
    if let Some(reason) = ctx.failure {
        return reason;
    }
    let told = |what: fn(&Exchange) -> bool| ctx.exchange.as_ref().is_some_and(|exchange| what(exchange));
    let malformed = told(Exchange::is_body_malformed);
    match (error.esource(), error.etype()) {
        (ErrorSource::Downstream, _) if malformed => Reason::RequestMalformed,
        (ErrorSource::Downstream, _) if told(Exchange::is_body_too_slow) => Reason::BodyTooSlow,
        (ErrorSource::Downstream, _) if told(Exchange::is_reader_too_slow) => Reason::ClientTooSlow,
        (ErrorSource::Downstream, _) if ctx.is_late() => Reason::DeadlineExceeded,
        (ErrorSource::Downstream, ErrorType::ReadTimedout) => Reason::BodyTimeout,
        (ErrorSource::Downstream, ErrorType::InvalidHTTPHeader) => Reason::RequestMalformed,
        (ErrorSource::Downstream, _) => Reason::ClientClosed,
        (ErrorSource::Upstream, _) => Reason::UpstreamReset,
        _ => Reason::Internal,
    }
}
