//! The end of a request: metrics and access log, exactly once, whatever ended it.

use http::{Method, Version};
use pingora::Error;

use crate::base::clock::Moment;
use crate::base::panics;
use crate::base::problem::Form;
use crate::base::reason::Reason;
use crate::ingress::connection::LastWord;
use crate::proxy::Context;
use crate::telemetry::access::Field;

/// Records a request that came to its end.
pub(in crate::proxy) fn record(ctx: &mut Context, error: Option<&Error>) {
    let end = Moment::now();
    ctx.end_attempt_at(None, end);
    let answered = answered(ctx);
    if ctx.status == 0 {
        ctx.status = ctx.failure.map_or(0, Reason::status);
    }
    write(ctx, error.is_none(), answered, end);
}

/// Records a request whose task was dropped: cut off at its deadline, abandoned with its connection, or panicked.
pub(in crate::proxy) fn dropped(ctx: &mut Context) {
    if ctx.recorded {
        return;
    }
    let is_broken = std::thread::panicking() || ctx.exchange.as_ref().is_some_and(|e| e.is_broken());
    let reason = match ctx.failure {
        _ if is_broken => Reason::Internal,
        Some(reason) => reason,
        None if ctx.identity_ended().is_some() => ctx.identity_ended().unwrap_or(Reason::ClientClosed),
        None if ctx.is_late() => Reason::DeadlineExceeded,
        None => Reason::ClientClosed,
    };
    ctx.failure = Some(reason);
    if is_broken {
        ctx.detail = Some(format!("panicked: {}", panics::said()));
        leave_word(ctx);
    }
    let answered = answered(ctx);
    if ctx.status == 0 {
        ctx.status = reason.status();
    }
    let end = Moment::now();
    ctx.end_attempt_at(None, end);
    write(ctx, false, answered, end);
}

/// What `ingress` tells the client of a request that a panic ends.
fn leave_word(ctx: &mut Context) {
    let Some(exchange) = &ctx.exchange else { return };
    if let Some(word) = exchange.last_word() {
        // The client was told already, by who knew less.
        ctx.request_id = word.request_id;
    }
    // Trailers are HTTP/2's.
    let over_http1 = ctx.head.version < Version::HTTP_2 && ctx.head.error_form == Form::Grpc;
    exchange.leave_word(LastWord {
        request_id: ctx.request_id.clone(),
        form: if over_http1 { Form::Json } else { ctx.head.error_form },
        is_head: ctx.head.method == Method::HEAD,
        hsts: ctx.hsts().cloned(),
        recorded: true,
    });
}

/// The status that the client was answered with; `None` if it was with none, or did not wait for the end.
fn answered(ctx: &Context) -> Option<u16> {
    Some(ctx.status).filter(|status| *status != 0 && ctx.failure != Some(Reason::ClientClosed))
}

fn write(ctx: &mut Context, completed: bool, answered: Option<u16>, end: Moment) {
    if std::mem::replace(&mut ctx.recorded, true) {
        return;
    }
    for met in &mut ctx.met {
        met.ended(answered);
    }
    let time = end.now.saturating_duration_since(ctx.began);
    ctx.route.metrics.finish(
        &ctx.head.method,
        ctx.status,
        time.as_secs_f64(),
        ctx.request_body_bytes,
        ctx.response_body_bytes,
    );
    if let Some(reason) = ctx.failure {
        ctx.metrics.request_rejected(reason);
    }
    let Some(mut record) = ctx.record.take() else { return };
    if !ctx.route.access_log {
        return;
    }
    let Some(log) = ctx.snapshot.log.access.as_ref() else { return };
    record.ended = end.wall;
    record.request_time = time;
    record.client = Some(ctx.client.address);
    record.version = Some(ctx.head.version);
    record.status = ctx.status;
    record.body_bytes_sent = ctx.response_body_bytes;
    record.bytes_sent = ctx.bytes_sent();
    record.completed = completed;
    record.request_id = Some(ctx.request_id.clone());
    record.trace = ctx.trace.take();
    record.reason = ctx.failure;
    record.set(Field::Route, ctx.route.name.as_bytes());
    if let Some(principal) = &ctx.principal {
        if let Some(subject) = principal.subject() {
            record.set(Field::User, subject);
        }
        if let Some(consumer) = &principal.consumer {
            record.set(Field::Consumer, &*consumer.name);
        }
        if record.shows(Field::AuthMethod) {
            record.set(Field::AuthMethod, principal.method());
        }
    }
    if let Some(planned) = &ctx.planned {
        record.set(Field::Plan, &**planned.plan().name());
    }
    if let Some(detail) = &ctx.detail {
        record.set(Field::Detail, detail);
    }
    if let Some(exchange) = &ctx.exchange {
        let connection = &exchange.connection;
        record.client_port = (ctx.client.address == connection.peer.ip()).then(|| connection.peer.port());
        record.server_port = Some(connection.local_port).filter(|port| *port != 0);
        record.connection = connection.serial;
        record.connection_requests = u32::try_from(exchange.serial).unwrap_or(u32::MAX);
        connection.note_tls(&mut record);
        record.peer = connection.socket_peer.socket();
        record.local = connection.local;
        record.proxy_header = connection.proxy_header.map(|header| (header.source, header.destination));
        record.request_length = exchange.head_bytes + ctx.request_body_bytes;
        if let Some(listener) = ctx.snapshot.listeners.get(usize::from(connection.listener)) {
            record.set(Field::Listener, &listener.name);
        }
    }
    log.submit(record);
}
