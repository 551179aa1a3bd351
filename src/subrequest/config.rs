//! `[routes.aggregate]` as written. Compiled in [`super::compile`].

use std::time::Duration;

use http::{HeaderName, Method};
use indexmap::IndexMap;

use crate::base::decode::{Decoder, Kind, Node, Shape, Size, Value, quote, render_table};
use crate::base::origin::At;
use crate::policy::transform::RequestName;
use crate::routing::config::Written;
use crate::{enum_value, keys};

keys! {
    /// One answer put together from those of several services.
    pub struct AggregateRaw {
        /// For all legs together; what has arrived by then is used. Absent = as long as the route may take.
        timeout: optional Duration,
        /// `partial`: legs that are not required may be missing; `fail`: any failed leg fails the request.
        on_failure: OnFailure = OnFailure::Partial,
        /// What the client learns of the legs: `headers` = `Server-Timing`; `body` = a member `_legs` as well; `none`.
        report: Report = Report::Headers,
        /// The header that says whether all of the answer is there; it is always sent.
        completed_header: HeaderName = HeaderName::from_static("x-edgeward-completed"),
        /// Most calls for one request, those of `for_each` included.
        max_calls: u16 = 128,
        /// Largest answer of one call.
        leg_bytes: Size = Size(1 << 20),
        /// Most bytes of all answers together.
        total_bytes: Size = Size(4 << 20),
        /// Deepest nesting of an answer, at most 128.
        depth: u16 = 64,
        /// The calls, in the order in which their answers are merged.
        legs: Vec<At<LegRaw>> = Vec::new(),
        /// The answer's members as JMESPath over the legs by name; absent = the legs' answers merged.
        shape: IndexMap<String, At<Written>> = IndexMap::new(),
    }
}

keys! {
    /// One call, and what becomes of its answer.
    pub struct LegRaw {
        /// What others call it.
        name: required String,
        /// The upstream that is asked.
        upstream: optional String,
        /// The queue of a message broker that is asked, in place of an upstream.
        amqp: optional LegAmqpRaw,
        /// The method.
        method: LegMethod = LegMethod::Get,
        /// The path, with `{path.id}`, `{order.userId}` and the like: a reference to another leg makes this one wait for it.
        path: optional Written,
        /// Parameters of the query; one whose value is missing is left out.
        query: IndexMap<String, At<Written>> = IndexMap::new(),
        /// Headers; one whose value is missing is left out.
        headers: IndexMap<RequestName, At<Written>> = IndexMap::new(),
        /// Headers of the client's that are passed on. Nothing else of it is.
        forward_headers: Vec<At<RequestName>> = Vec::new(),
        /// `"request"` = the client's body, or a value to be sent as JSON; `"{x}"` alone keeps the type of `x`. Absent beside
        /// `amqp`: the parameters of path and query, `{ "path": {}, "query": {} }`.
        body: optional BodyRaw,
        /// How long it may take.
        timeout: optional Duration,
        /// Whether its failure is the answer's failure.
        required: bool = false,
        /// An array in another leg's answer: one call for each element, which is `item` here.
        for_each: optional String,
        /// Calls of `for_each` under way at once.
        concurrency: u16 = 8,
        /// Most calls of `for_each`; with more elements the leg fails.
        max_elements: u16 = 64,
        /// The part of the answer that is read, such as `data.user`.
        target: optional String,
        /// What of that is kept: paths such as `id`, `address.zip`, `items.*.id`.
        allow: Vec<At<String>> = Vec::new(),
        /// What of that is left out.
        deny: Vec<At<String>> = Vec::new(),
        /// Members that get another name.
        rename: IndexMap<String, At<String>> = IndexMap::new(),
        /// The member of the answer under which it stands; absent = its members are merged into the answer.
        group: optional String,
        /// What stands in its place when it failed.
        fallback: optional serde_json::Value,
    }
}

keys! {
    /// A queue that is asked.
    pub struct LegAmqpRaw {
        /// The broker.
        broker: required String,
        /// The queue.
        queue: required String,
        /// How long the answer may take; the same as the leg's own `timeout`.
        timeout: optional Duration,
    }
}

enum_value! {
    /// What a failed leg means for the whole.
    pub enum OnFailure {
        /// Legs that are not required may be missing.
        Partial = "partial",
        /// Any failed leg fails the request.
        Fail = "fail",
    }
}

enum_value! {
    /// What a client learns of the legs.
    pub enum Report {
        /// `Server-Timing`.
        Headers = "headers",
        /// That, and the member `_legs`.
        Body = "body",
        /// Only whether all is there.
        None = "none",
    }
}

enum_value! {
    /// The method of a leg: one that has an answer with content.
    pub enum LegMethod {
        /// GET.
        Get = "GET",
        /// POST.
        Post = "POST",
        /// PUT.
        Put = "PUT",
        /// PATCH.
        Patch = "PATCH",
        /// DELETE.
        Delete = "DELETE",
    }
}

impl LegMethod {
    /// As HTTP has it.
    pub fn method(self) -> Method {
        match self {
            Self::Get => Method::GET,
            Self::Post => Method::POST,
            Self::Put => Method::PUT,
            Self::Patch => Method::PATCH,
            Self::Delete => Method::DELETE,
        }
    }
}

/// `body` of a leg.
#[derive(Debug, Clone)]
pub enum BodyRaw {
    /// `"request"`: what the client sent.
    Client,
    /// A value whose texts are templates.
    Json(BodyNode),
}

/// A value to be sent as JSON.
#[derive(Debug, Clone)]
pub enum BodyNode {
    /// A text, which may refer to something.
    Text(At<Written>),
    /// A number, a boolean, a date.
    Fixed(serde_json::Value),
    /// A list.
    List(Vec<BodyNode>),
    /// A table, in the order written.
    Table(Vec<(String, BodyNode)>),
}

impl Value for BodyRaw {
    fn shape() -> Shape {
        serde_json::Value::shape()
    }

    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        if node.as_str() == Some("request") {
            return Some(Self::Client);
        }
        BodyNode::decode(node, cx).map(Self::Json)
    }

    fn render(&self) -> String {
        match self {
            Self::Client => quote("request"),
            Self::Json(node) => node.render(),
        }
    }
}

impl BodyNode {
    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        Some(match &node.kind {
            Kind::String { .. } => Self::Text(At::new(Written::decode(node, cx)?, node.origin.clone())),
            Kind::Array(nodes) => {
                let list = nodes.iter().enumerate();
                let list = list.map(|(index, node)| cx.index(index, |cx| Self::decode(node, cx)));
                Self::List(list.collect::<Option<_>>()?)
            }
            Kind::Table(table) => {
                let members = table.iter().map(|(name, entry)| {
                    let value = cx.entry(name, |cx| Self::decode(&entry.node, cx))?;
                    Some((name.clone(), value))
                });
                Self::Table(members.collect::<Option<_>>()?)
            }
            Kind::Integer(_) | Kind::Float(_) | Kind::Boolean(_) | Kind::Datetime(_) => {
                Self::Fixed(node.to_json())
            }
            Kind::Broken => return None,
        })
    }

    fn render(&self) -> String {
        match self {
            Self::Text(text) => text.render(),
            Self::Fixed(value) => value.to_string(),
            Self::List(list) => {
                format!("[{}]", list.iter().map(Self::render).collect::<Vec<_>>().join(", "))
            }
            Self::Table(members) => {
                let members: Vec<_> =
                    members.iter().map(|(name, value)| (quote(name), Some(value.render()))).collect();
                let members: Vec<_> =
                    members.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
                render_table(&members)
            }
        }
    }
}
