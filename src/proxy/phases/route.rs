//! Which route: host and path in their one form, then the table.

use std::borrow::Cow;

use http::{HeaderMap, HeaderValue, Method};

use crate::base::problem::Problem;
use crate::base::reason::Reason;
use crate::identity::principal::Principal;
use crate::policy::cors;
use crate::proxy::received::Received;
use crate::proxy::{Asked, Context};
use crate::routing::template::Values;
use crate::routing::{Around, Outcome, RequestView, host, path};
use crate::telemetry::access::Field;

/// Header fields of one request. HTTP/1 heads were held to fewer before; HTTP/2 has only a limit in bytes, and sends
/// each cookie as a field of its own.
const HEADER_FIELDS_MAX: usize = 256;

/// What routing and templates see of a request: its head, read once.
pub(in crate::proxy) struct View<'s> {
    listener: u16,
    /// In its one form; empty where none is named.
    pub(in crate::proxy) host: Cow<'s, str>,
    /// In its one form; owned where that differs from what was sent.
    pub(in crate::proxy) path: Cow<'s, str>,
    /// Without `?`; absent when there is none, or an empty one.
    pub(in crate::proxy) query: Option<&'s str>,
    /// Whether the target came in origin form (RFC 9112 section 3.2.1).
    pub(in crate::proxy) origin_form: bool,
    method: &'s Method,
    headers: &'s HeaderMap,
}

impl<'s> View<'s> {
    /// Reads `head`, or says what is wrong with it.
    pub(in crate::proxy) fn read(
        head: Asked<'s>,
        received: &Received<'s>,
        listener: u16,
    ) -> Result<Self, Problem> {
        if *head.method == Method::CONNECT {
            return Err(Problem::new(Reason::MethodUnsupported));
        }
        if head.headers.len() > HEADER_FIELDS_MAX {
            return Err(Problem::new(Reason::HeaderTooLarge));
        }
        let host = match host_of(head, received) {
            Some(raw) => host::normalise(raw).map_err(|_| Problem::new(Reason::BadHost))?.name,
            // HTTP/1.0 may come without; only routes without hosts match it.
            None => Cow::Borrowed(""),
        };
        let target = head.target;
        let (raw_path, query) = split_target(target);
        let path = path::normalise(raw_path).map_err(|_| Problem::new(Reason::BadPath))?;
        if path == "*" && *head.method != Method::OPTIONS {
            return Err(Problem::new(Reason::BadPath));
        }
        let query = std::str::from_utf8(query).map_err(|_| Problem::new(Reason::BadPath))?;
        Ok(Self {
            listener,
            host,
            path,
            query: (!query.is_empty()).then_some(query),
            origin_form: target.starts_with(b"/"),
            method: head.method,
            headers: head.headers,
        })
    }

    pub(in crate::proxy) fn headers(&self) -> &HeaderMap {
        self.headers
    }

    pub(in crate::proxy) fn request(&self) -> RequestView<'_> {
        RequestView {
            listener: self.listener,
            host: &self.host,
            // What asks about the whole server (RFC 9112 section 3.2.4) is for whoever has its root.
            path: if self.path == "*" { "/" } else { &self.path },
            query: self.query,
            method: self.method,
            headers: self.headers,
        }
    }

    /// Calls `expand` with what templates of this request may refer to.
    /// (Who it is from is known once [`super::guard`] has let it pass.)
    pub(in crate::proxy) fn with_values<R>(&self, ctx: &Context, expand: impl FnOnce(&Values<'_>) -> R) -> R {
        expand(&self.values(ctx, &self.request()))
    }

    /// What templates of this request may refer to; `request` is [`View::request`].
    pub(in crate::proxy) fn values<'v>(&self, ctx: &'v Context, request: &'v RequestView<'v>) -> Values<'v> {
        Values {
            request,
            captures: &ctx.captures,
            scheme: if ctx.client.https { "https" } else { "http" },
            id: ctx.request_id.as_str(),
            client: Some(ctx.client.address),
            client_cert: ctx.client_cert(),
            who: ctx.principal.as_ref().map(Principal::view).unwrap_or_default(),
        }
    }
}

/// Keeps for the log what is asked for, in its one form.
pub(in crate::proxy) fn note(view: &View<'_>, ctx: &mut Context) {
    if let Some(record) = ctx.record.as_mut() {
        record.set(Field::Path, view.path.as_bytes());
        record.set(Field::Host, view.host.as_bytes());
    }
}

/// Finds the route and enters it.
pub(in crate::proxy) fn find(view: &View<'_>, ctx: &mut Context) -> Result<(), Problem> {
    // A browser's question beforehand takes the route of what it asks about.
    let announced = cors::announced(view.method, view.headers);
    ctx.preflight = announced.is_some();
    let around = Around {
        scheme: if ctx.client.https { "https" } else { "http" },
        id: ctx.request_id.as_str(),
        client: Some(ctx.client.address),
        client_cert: ctx.client_cert(),
    };
    match ctx.snapshot.table.find_for(&view.request(), &around, announced.as_ref()) {
        Outcome::Found { route, captures } => {
            let route = ctx.snapshot.route(route).clone();
            ctx.enter_route(route, captures);
            Ok(())
        }
        Outcome::MethodNotAllowed { allow } => {
            let mut problem = Problem::new(Reason::MethodNotAllowed);
            problem.allow = Some(Cow::Owned(allow.to_string()));
            Err(problem)
        }
        Outcome::Undecided { route, captures, failed } => {
            // Its policies hold for it: who may not come in is told that, not what is wrong with the request.
            let route = ctx.snapshot.route(route).clone();
            ctx.detail = Some(format!("`when` of the route cannot be evaluated: {failed}"));
            ctx.enter_route(route, captures);
            Err(Problem::new(Reason::ExpressionFailed))
        }
        Outcome::NotFound => Err(Problem::new(Reason::RouteNotFound)),
    }
}

/// The host the request names: the authority of HTTP/2, else `Host`.
pub(in crate::proxy) fn host_of<'h>(head: Asked<'h>, received: &Received<'h>) -> Option<&'h [u8]> {
    match head.authority {
        Some(authority) => Some(authority.as_bytes()),
        None => received.host.map(HeaderValue::as_bytes),
    }
}

/// Path and query of a target in origin or absolute form.
fn split_target(target: &[u8]) -> (&[u8], &[u8]) {
    let scheme = if target.starts_with(b"/") { None } else { memchr::memmem::find(target, b"://") };
    let target = match scheme {
        // Absolute form (RFC 9112 section 3.2.2).
        Some(at) => {
            let rest = target.get(at + 3..).unwrap_or_default();
            let start = memchr::memchr2(b'/', b'?', rest);
            start.and_then(|start| rest.get(start..)).unwrap_or(b"/")
        }
        None => target,
    };
    match memchr::memchr(b'?', target) {
        Some(0) => (b"/", target.get(1..).unwrap_or_default()),
        Some(at) => (target.get(..at).unwrap_or_default(), target.get(at + 1..).unwrap_or_default()),
        None => (target, b""),
    }
}

#[cfg(test)]
mod tests {
    use super::split_target;

    #[test]
    fn targets_split_into_path_and_query() {
        for (target, path, query) in [
            ("/a?b=1", "/a", "b=1"),
            ("/a", "/a", ""),
            ("/a?b?c", "/a", "b?c"),
            ("http://h/a?b", "/a", "b"),
            ("http://h", "/", ""),
            ("http://h?q", "/", "q"),
            ("/x?u=http://h/a", "/x", "u=http://h/a"),
            ("*", "*", ""),
        ] {
            let split = split_target(target.as_bytes());
            assert_eq!(split, (path.as_bytes(), query.as_bytes()), "{target}");
        }
    }
}
