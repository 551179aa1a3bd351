//! What is sent and what comes back, and where it goes.

use std::fmt;
use std::time::Instant;

use bytes::Bytes;
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};

use super::exchange::Exchange;
use super::failure::Failure;

/// Longest name in AMQP, a routing key among them.
pub const NAME_BYTES_MAX: usize = 255;
/// Most bytes of a message's headers: they go in one frame, of which brokers take 128 KiB by default.
const HEADER_BYTES_MAX: usize = 64 * 1024;

/// The name of a queue, an exchange, or a routing key: short enough for AMQP.
#[derive(Clone, PartialEq, Eq)]
pub struct Name(ShortString);

impl Name {
    /// `text`, unless it is longer than [`NAME_BYTES_MAX`] or holds a control character.
    pub fn new(text: impl Into<String>) -> Option<Self> {
        let name = ShortString::try_new(text).ok()?;
        (!name.as_str().chars().any(char::is_control)).then_some(Self(name))
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    pub(super) fn short(&self) -> ShortString {
        self.0.clone()
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// The name of a queue or an exchange, as configurations have it.
///
/// # Errors
/// Why `text` is none, as the end of a sentence that begins with it.
pub fn queue_name(text: &str) -> Result<Name, String> {
    if text.contains(['{', '}']) {
        return Err("is no template: a request must not choose where its message goes".to_owned());
    }
    let name = Name::new(text).filter(|_| !text.is_empty());
    name.ok_or_else(|| format!("is not a name of 1 to {NAME_BYTES_MAX} bytes without control characters"))
}

/// Where a message is published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The exchange; `None` = the default one, whose routing keys are the names of queues.
    pub exchange: Option<Exchange>,
    /// The routing key.
    pub routing_key: Name,
}

/// A message.
#[derive(Debug, Clone, Default)]
pub struct Message {
    /// Its body.
    pub body: Bytes,
    /// Of what type that is, such as `application/json`.
    pub content_type: Option<&'static str>,
    /// What it says beside.
    pub headers: Headers,
    /// Set for news.
    pub news: Option<News>,
    /// When nobody waits for it any more; `None` = [`super::WAIT_MAX`] from now.
    pub deadline: Option<Instant>,
}

impl Message {
    /// A message of JSON.
    pub fn json(body: impl Into<Bytes>) -> Self {
        Self { body: body.into(), content_type: Some("application/json"), ..Self::default() }
    }
}

/// What is published for whoever wants to hear it: if nobody does, that is no failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct News {
    /// What it is about: the message's type.
    pub kind: &'static str,
    /// When it happened, in seconds since 1970.
    pub at: u64,
}

/// The headers of a message, bounded.
#[derive(Debug, Clone, Default)]
pub struct Headers {
    table: FieldTable,
    bytes: usize,
}

impl Headers {
    /// Sets `name` to `value`.
    ///
    /// # Errors
    /// [`Failure::TooLarge`] if the name is, or all of them together.
    pub fn set(&mut self, name: &str, value: &[u8]) -> Result<(), Failure> {
        let name = ShortString::try_new(name).map_err(|_| Failure::TooLarge)?;
        // Lengths and type are written, too.
        self.bytes += name.as_str().len() + value.len() + 6;
        if self.bytes > HEADER_BYTES_MAX {
            return Err(Failure::TooLarge);
        }
        self.table.insert(name, AMQPValue::LongString(LongString::from(value.to_vec())));
        Ok(())
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn into_table(self) -> FieldTable {
        self.table
    }
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Its body.
    pub body: Bytes,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_and_visible() {
        assert_eq!(Name::new("tickets").unwrap().as_str(), "tickets");
        assert!(Name::new("x".repeat(255)).is_some());
        assert!(Name::new("x".repeat(256)).is_none());
        assert!(Name::new("a\nb").is_none());
    }

    #[test]
    fn headers_are_bounded() {
        let mut headers = Headers::default();
        assert_eq!(headers.set(&"n".repeat(256), b""), Err(Failure::TooLarge));
        assert_eq!(headers.set("a", &[0; 60_000]), Ok(()));
        assert_eq!(headers.set("b", &[0; 60_000]), Err(Failure::TooLarge));
    }
}
