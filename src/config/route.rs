//! `[[routes]]` as written. Compiled in [`super::compile`], where the names it refers to are known.

use std::time::Duration;

use http::StatusCode;

use super::amqp::AmqpRaw;
use crate::base::decode::{Decoder, Node, Shape, Size, Value, quote};
use crate::base::origin::At;
use crate::base::respond::RespondRaw;
use crate::files::FilesRaw;
use crate::keys;
use crate::policy::auth::AuthRaw;
use crate::policy::cors::CorsRaw;
use crate::policy::ip::IpRaw;
use crate::policy::transform::{RequestRaw, ResponseRaw};
use crate::routing::config::{CookiesRaw, HeadersRaw, QueryRaw, RewriteRaw, Written};
use crate::routing::{HostPattern, MethodSet, PathPattern};
use crate::subrequest::AggregateRaw;

keys! {
    /// Which requests are answered, by what, and under which conditions.
    pub struct RouteRaw {
        /// For logs, metrics and `explain`; absent = made of methods, first host, path and listeners.
        name: optional String,
        /// Host names: exact, or `*.example.com` for one label or more; absent = all.
        hosts: Vec<At<HostPattern>> = Vec::new(),
        /// Names of listeners; absent = all.
        listeners: Vec<At<String>> = Vec::new(),
        /// Exact `/a/b`, template `/a/{id}`, prefix `/a/*` (also matches `/a`), or regex `~^/a/[0-9]+$`.
        path: required PathPattern,
        /// Methods; GET includes HEAD; absent = all.
        methods: MethodSet = MethodSet::EMPTY,
        /// Headers: an exact value, `~regex`, `true` = present, `false` = absent; any of repeated values suffices.
        headers: HeadersRaw = HeadersRaw::new(),
        /// Query parameters, like `headers`.
        query: QueryRaw = QueryRaw::new(),
        /// Cookies, like `headers`.
        cookies: CookiesRaw = CookiesRaw::new(),
        /// A CEL expression that must hold, over `path query header cookie client request`; one that fails answers 400.
        when: optional Written,
        /// Higher is asked first, within one class of hosts.
        priority: i32 = 0,
        /// The upstream that answers.
        upstream: optional String,
        /// Answers with another address.
        redirect: optional RedirectRaw,
        /// Answers by itself.
        respond: optional RespondRaw,
        /// Answers with files below a directory.
        files: optional FilesRaw,
        /// Answers with what several services answer, put together.
        aggregate: optional AggregateRaw,
        /// Answers with what a queue of a message broker answers, or publishes.
        amqp: optional AmqpRaw,
        /// How the path is rewritten on the way to the upstream, or to a file.
        rewrite: optional RewriteRaw,
        /// To the last byte of the answer; `"none"` = no deadline; absent = `limits.request_timeout` to the first byte.
        timeout: optional TimeoutRaw,
        /// A long poll or download without a deadline, only `limits.stream_idle`.
        stream: bool = false,
        /// Largest request body; absent = `limits.body_bytes`.
        body_bytes: optional Size,
        /// Whether requests are logged.
        access_log: bool = true,
        /// Which client addresses may come in.
        ip: optional IpRaw,
        /// Names of limits, all of which must have room; counted in this order, those by address first.
        rate_limits: Vec<At<String>> = Vec::new(),
        /// Which pages of other origins may read answers, and send what; absent = what the server says.
        cors: optional CorsRaw,
        /// Who may come in, and how that is proved; absent or `"none"` = everybody.
        auth: optional AuthRaw,
        /// What is changed in the request on its way to the upstream.
        request: optional RequestRaw,
        /// What is changed in the answer on its way to the client.
        response: optional ResponseRaw,
    }
}

/// Keys of a route that `[defaults]` may hold.
pub(super) const ROUTE_DEFAULTS: &[&str] = &[
    "hosts",
    "listeners",
    "timeout",
    "body_bytes",
    "ip",
    "cors",
    "rate_limits",
    "auth",
    "request",
    "response",
    "access_log",
];

/// Keys of a route of which it has exactly one.
pub(super) const TARGETS: &[&str] = &["upstream", "redirect", "respond", "files", "aggregate", "amqp"];

/// How long a route may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeoutRaw {
    /// To the last byte of the answer.
    Whole(Duration),
    /// `"none"`.
    Unlimited,
}

impl Value for TimeoutRaw {
    fn shape() -> Shape {
        Shape::OneOf(vec![Duration::shape(), Shape::Word(&["none"])])
    }

    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        if node.as_str() == Some("none") {
            return Some(Self::Unlimited);
        }
        match Duration::decode(node, cx)? {
            Duration::ZERO => {
                cx.error("invalid-value", &node.origin, "a timeout of 0 would end every request at once")
                    .hint("write \"none\" for no deadline");
                None
            }
            timeout => Some(Self::Whole(timeout)),
        }
    }

    fn render(&self) -> String {
        match self {
            Self::Whole(timeout) => timeout.render(),
            Self::Unlimited => quote("none"),
        }
    }
}

keys! {
    /// Another address for the client.
    pub struct RedirectRaw {
        /// A path or a URL, with `{path.id}` and the like. The request's query goes along unless there is a `?` in it.
        to: required Written,
        /// 301, 302, 303, 307 or 308.
        status: StatusCode = StatusCode::PERMANENT_REDIRECT,
    }
}
