//! `[log.bus]`: what it names, and that all of it can be used.

use indexmap::IndexMap;

use super::Compiler;
use crate::base::decode::{Value, quote};
use crate::base::diagnostic::Diagnostics;
use crate::base::origin::At;
use crate::broker::bus::{LogBus, WINDOW};
use crate::broker::{Broker, Exchange, NAME_BYTES_MAX, Name, Place};

/// What the connection of the bus is called among the brokers.
const NAME: &str = "log.bus";
/// Less holds no second of a gateway that does anything; more is not a buffer but a store.
const BUFFER_MIN: u64 = 64 << 10;
const BUFFER_MAX: u64 = 4 << 30;

impl Compiler<'_> {
    /// The log bus: over a connection of its own to one of `brokers`.
    pub(super) fn bus(self, brokers: &IndexMap<String, Broker>, out: &mut Diagnostics) -> Option<LogBus> {
        let raw = self.raw.log.bus.as_ref()?;
        let broker = self.broker(&raw.broker, "log.bus.broker", brokers, out);
        let mut name = |text: &At<String>, key: &str| {
            let name = Name::new(text.value.clone());
            if name.is_none() {
                let message = format!(
                    "{} is longer than {NAME_BYTES_MAX} bytes or holds a control character",
                    quote(text)
                );
                out.error("invalid-value", &text.origin, format!("log.bus.{key}"), message);
            }
            name
        };
        let exchange = name(&raw.exchange, "exchange")
            .map(|name| (!name.as_str().is_empty()).then(|| Exchange::new(name)));
        let routing_key = name(&raw.routing_key, "routing_key");
        let buffer = raw.buffer.value.0;
        if !(BUFFER_MIN..=BUFFER_MAX).contains(&buffer) {
            let message = format!("{} is not between \"64KiB\" and \"4GiB\"", raw.buffer.value.render());
            out.error("invalid-value", &raw.buffer.origin, "log.bus.buffer", message);
        }
        let place = Place { exchange: exchange?, routing_key: routing_key? };
        match self.runtime.brokers.beside(&broker?, NAME, WINDOW, &self.runtime.metrics) {
            Ok(broker) => {
                Some(LogBus { broker, place, buffer: usize::try_from(buffer).unwrap_or(usize::MAX) })
            }
            Err(why) => {
                out.error("invalid-value", &raw.origin, "log.bus", why);
                None
            }
        }
    }
}
