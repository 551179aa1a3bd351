//! What a route's legs are when it is compiled: a graph without cycles, every name resolved.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use super::config::{OnFailure, Report};
use super::input::RequestTemplate;
use super::json::Json;
use super::read::{Path, Reading};
use super::shape::Shape;
use crate::base::decode::quote;
use crate::broker::{Broker, Name};
use crate::telemetry::metrics::LegMetrics;
use crate::upstream::Upstream;

/// Everything that is known of an aggregate before a request comes.
#[derive(Debug)]
pub struct Plan {
    /// The legs, in the order written, which is the order of merging.
    pub legs: Box<[Leg]>,
    /// Their places, each after all that it waits for.
    pub order: Box<[usize]>,
    /// For all of them together.
    pub timeout: Option<Duration>,
    /// What a failed one means for the whole.
    pub on_failure: OnFailure,
    /// What the client learns of them.
    pub report: Report,
    /// Says whether all of the answer is there.
    pub completed_header: HeaderName,
    /// How the answer is drawn; `None` = merged.
    pub shape: Option<Shape>,
    /// Bounds.
    pub bounds: Bounds,
    /// Whether the client's body has to be JSON.
    pub wants_body: bool,
}

/// What one request may cost at most.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Calls.
    pub calls: usize,
    /// Bytes of one answer.
    pub leg_bytes: usize,
    /// Bytes of all answers.
    pub total_bytes: usize,
    /// Nesting of an answer.
    pub depth: usize,
}

/// One leg.
#[derive(Debug)]
pub struct Leg {
    /// What others call it.
    pub name: Arc<str>,
    /// Who is asked.
    pub service: Service,
    /// What is asked.
    pub request: RequestTemplate,
    /// Whose answers it needs.
    pub waits_on: Box<[usize]>,
    /// Set if it is a call for each element of an array.
    pub for_each: Option<ForEach>,
    /// What of the answer counts.
    pub reading: Reading,
    /// Whether its failure is the answer's.
    pub required: bool,
    /// Where it stands in the answer.
    pub group: Option<Box<str>>,
    /// What stands in its place when it failed.
    pub fallback: Option<Json>,
    /// How long it may take.
    pub timeout: Option<Duration>,
    /// What is counted of it.
    pub metrics: Arc<LegMetrics>,
}

/// Who a leg asks.
#[derive(Debug)]
pub enum Service {
    /// The servers of an upstream, over HTTP.
    Upstream(Arc<Upstream>),
    /// A queue of a message broker.
    Queue {
        /// The broker.
        broker: Broker,
        /// The queue.
        queue: Name,
    },
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Upstream(upstream) => f.write_str(upstream.name()),
            Self::Queue { broker, queue } => {
                write!(f, "queue {} of broker {}", quote(queue.as_str()), broker.name())
            }
        }
    }
}

/// A call for each element of an array.
#[derive(Debug)]
pub struct ForEach {
    /// The leg in whose answer the array is.
    pub source: usize,
    /// Where in it.
    pub path: Path,
    /// Calls under way at once, at least 1.
    pub concurrency: usize,
    /// Most calls.
    pub calls: usize,
}

impl Plan {
    /// Whether elements get the answers of `leg` under its name.
    pub fn puts_on_elements(&self, leg: &Leg) -> bool {
        leg.for_each.is_some() && (leg.group.is_none() || self.shape.is_some())
    }
}
