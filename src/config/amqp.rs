//! `[routes.amqp]`: a route that a queue answers, or whose requests go to an exchange.

use std::time::Duration;

use super::snapshot::{Amqp, Destination, RoutingKey};
use crate::base::decode::{Size, quote};
use crate::base::diagnostic::Diagnostics;
use crate::base::origin::{At, Origin};
use crate::broker::{Broker, Exchange, NAME_BYTES_MAX, Name, WAIT_MAX};
use crate::keys;
use crate::routing::PathPattern;
use crate::routing::config::Written;
use crate::routing::template::{Scope, Template};

keys! {
    /// Asks a queue of a message broker, or publishes.
    pub struct AmqpRaw {
        /// The broker.
        broker: required String,
        /// The queue that is asked; with `publish` the one where the message is left.
        queue: optional String,
        /// The exchange that the message goes to; needs `publish = true`.
        exchange: optional String,
        /// The routing key on the exchange, with `{path.id}` and the like: each value is one word of it.
        routing_key: optional Written,
        /// Nobody waits for an answer: 202 once the broker has taken the message.
        publish: bool = false,
        /// How long the answer, or the confirmation, may take; absent = as long as the route may take, at most 30s.
        timeout: optional Duration,
        /// Largest answer.
        reply_bytes: Size = Size(1 << 20),
    }
}

/// Finds the broker called so at this configuration path.
type FindBroker<'a> = dyn Fn(&At<String>, &str, &mut Diagnostics) -> Option<Broker> + 'a;

impl AmqpRaw {
    /// What answers; `None` beside errors. `path` is the configuration path of the table, `origin` where it stands.
    pub(super) fn compile(
        &self,
        path: &str,
        origin: &Origin,
        route: &PathPattern,
        broker: &FindBroker<'_>,
        out: &mut Diagnostics,
    ) -> Option<Amqp> {
        let broker = broker(&self.broker, &format!("{path}.broker"), out);
        let destination = self.destination(path, origin, route, out);
        if let Some(timeout) = self.timeout.as_ref().filter(|timeout| timeout.is_zero()) {
            out.error("invalid-value", &timeout.origin, format!("{path}.timeout"), "0 would allow nothing");
        }
        let reply = &self.reply_bytes;
        if reply.0 == 0 {
            out.error("invalid-value", &reply.origin, format!("{path}.reply_bytes"), "0 would allow nothing");
        } else if *self.publish && reply.origin != Origin::Default {
            let message = "\"reply_bytes\" does nothing beside \"publish\": there is no answer";
            out.error("unused-key", &reply.origin, format!("{path}.reply_bytes"), message);
        }
        Some(Amqp {
            broker: broker?,
            destination: destination?,
            timeout: self.timeout.as_ref().map_or(WAIT_MAX, |at| at.value),
            reply_bytes: usize::try_from(reply.0).unwrap_or(usize::MAX),
            captures: route.capture_names().map(Box::from).collect(),
        })
    }

    fn destination(
        &self,
        path: &str,
        origin: &Origin,
        route: &PathPattern,
        out: &mut Diagnostics,
    ) -> Option<Destination> {
        let key = self.routing_key.as_ref().map(|key| routing_key(key, route, path, out));
        match (&self.queue, &self.exchange) {
            (None, None) => {
                let message = "there is neither a queue to ask nor an exchange to publish to";
                out.error("missing-key", origin, path, message)
                    .hint("add `queue`; or `exchange`, `routing_key` and `publish = true`");
                None
            }
            (Some(queue), Some(exchange)) => {
                let message = "\"exchange\" does not go with \"queue\"";
                out.error("conflicting-keys", &exchange.origin, format!("{path}.exchange"), message)
                    .hint("a queue is reached by its name alone")
                    .related(&queue.origin, "the queue");
                None
            }
            (None, Some(exchange)) if !*self.publish => {
                let message = "nobody answers from an exchange: it needs \"publish\"";
                out.error("missing-key", &exchange.origin, format!("{path}.exchange"), message)
                    .hint("add `publish = true`; or name a `queue` to get an answer from it");
                None
            }
            (Some(queue), None) => {
                if let Some(key) = &self.routing_key {
                    let message = "\"routing_key\" does nothing beside \"queue\"";
                    out.error("unused-key", &key.origin, format!("{path}.routing_key"), message)
                        .hint("a queue is reached by its name alone");
                }
                let queue = name(queue, "queue", &format!("{path}.queue"), out)?;
                Some(if *self.publish { Destination::Leave(queue) } else { Destination::Ask(queue) })
            }
            (None, Some(exchange)) => {
                let exchange =
                    name(exchange, "exchange", &format!("{path}.exchange"), out).map(Exchange::new);
                let key = match key {
                    Some(key) => key,
                    // Exchanges that do not look at it take any.
                    None => Name::new("").map(RoutingKey::Fixed),
                };
                Some(Destination::Publish { exchange: exchange?, key: key? })
            }
        }
    }
}

fn routing_key(
    key: &At<Written>,
    route: &PathPattern,
    path: &str,
    out: &mut Diagnostics,
) -> Option<RoutingKey> {
    let path = format!("{path}.routing_key");
    key.warn_of_variables(&key.origin, &path, out);
    let template = match Template::value(key.text(), Scope { pattern: route, groups: None }) {
        Ok(template) => template,
        Err(mistake) => {
            key.report(&key.origin, &path, mistake, out);
            return None;
        }
    };
    let Some(constant) = template.constant() else { return Some(RoutingKey::Made(template)) };
    let fixed = Name::new(constant);
    if fixed.is_none() {
        let message = format!("a routing key has at most {NAME_BYTES_MAX} bytes and no control characters");
        out.error("invalid-value", &key.origin, path, message);
    }
    fixed.map(RoutingKey::Fixed)
}

/// The name of a queue or an exchange. Never a template: whoever asks would choose where the message goes.
fn name(text: &At<String>, kind: &str, path: &str, out: &mut Diagnostics) -> Option<Name> {
    match crate::broker::queue_name(text) {
        Ok(name) => Some(name),
        Err(why) => {
            out.error("invalid-value", &text.origin, path, format!("{} {why}", quote(text)))
                .hint(format!("write the name of the {kind} as it is"));
            None
        }
    }
}
