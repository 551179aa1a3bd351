//! Hearing: the set at first, then the stream.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, Value};

use super::{Channel, Heard, KEPT_AFTER_END, Revocation};
use crate::base::clock;
use crate::base::task::Backoff;

/// How long Redis keeps a question for new entries open. After it, it is seen whether the stream is still the same.
const BLOCK: Duration = Duration::from_millis(1000);
/// Longest wait for any answer, the time above included.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// Entries read at once.
const PAGE: usize = 1000;
/// Between attempts.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// The place of an entry in the stream: milliseconds and a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
struct Place(u64, u64);

impl Place {
    fn read(text: &[u8]) -> Option<Self> {
        let (millis, number) = std::str::from_utf8(text).ok()?.split_once('-')?;
        Some(Self(millis.parse().ok()?, number.parse().ok()?))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.0, self.1)
    }
}

/// Why it cannot be followed.
type Problem = String;

impl Channel {
    /// Hears the others, for as long as the process lives.
    pub(in crate::cluster) async fn hear(self: Arc<Self>, heard: Heard) {
        let mut place = None;
        let mut pauses = Backoff::new(PAUSE_MIN, PAUSE_MAX);
        loop {
            let before = place;
            let ended = self.follow(&heard, &mut place).await;
            self.is_heard.send_replace(false);
            if let Err(problem) = ended {
                tracing::debug!(redis = %self.redis.url(), %problem, "revocations are not followed");
            }
            if place != before {
                pauses.reset();
            }
            tokio::time::sleep(pauses.pause()).await;
        }
    }

    /// Follows over one connection, until that ends. `place` is where in the stream everything was heard.
    async fn follow(&self, heard: &Heard, place: &mut Option<Place>) -> Result<(), Problem> {
        let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        let mut connection = self.redis.open(config).await?;
        let mut at = self.catch_up(&mut connection, heard, *place).await?;
        *place = Some(at);
        self.is_heard.send_replace(true);
        loop {
            let mut read = redis::cmd("XREAD");
            read.arg("COUNT").arg(PAGE).arg("BLOCK").arg(u64::try_from(BLOCK.as_millis()).unwrap_or(1000));
            read.arg("STREAMS").arg(&self.stream).arg(at.to_string());
            let entries = entries_of_first_stream(ask(&mut connection, &read).await?);
            if entries.is_empty() {
                // Nothing new; or another stream, that of a Redis that lost its data.
                at = self.catch_up(&mut connection, heard, Some(at)).await?;
            }
            for entry in entries {
                at = at.max(self.entry(entry, heard)?);
            }
            *place = Some(at);
        }
    }

    /// Where to go on, having heard everything up to `place`: there, if the stream still reaches back to it. Otherwise
    /// the set is read.
    async fn catch_up(
        &self,
        connection: &mut MultiplexedConnection,
        heard: &Heard,
        place: Option<Place>,
    ) -> Result<Place, Problem> {
        let first = self.end_of_stream(connection, "XRANGE", ["-", "+"]).await?;
        let last = self.end_of_stream(connection, "XREVRANGE", ["+", "-"]).await?;
        let is_kept = |place: &Place| match (first, last) {
            (Some(first), Some(last)) => first <= *place && *place <= last,
            _ => *place == Place::default(),
        };
        if let Some(place) = place.filter(is_kept) {
            return Ok(place);
        }
        let is_lost = place.is_some_and(|place| place > last.unwrap_or_default());
        if is_lost {
            tracing::warn!(redis = %self.redis.url(), "Redis has lost the revocations it was told; it is told again");
            self.tell_again();
        }
        // What is told from here on is in the stream after `last`.
        self.read_set(connection, heard).await?;
        Ok(last.unwrap_or_default())
    }

    async fn end_of_stream(
        &self,
        connection: &mut MultiplexedConnection,
        command: &str,
        range: [&str; 2],
    ) -> Result<Option<Place>, Problem> {
        let mut read = redis::cmd(command);
        read.arg(&self.stream).arg(&range).arg("COUNT").arg(1);
        match list(ask(connection, &read).await?).into_iter().next() {
            Some(entry) => {
                place_of(&entry).map(Some).ok_or_else(|| "an entry of the stream has no place".to_owned())
            }
            None => Ok(None),
        }
    }

    /// Hears everything that still matters.
    async fn read_set(&self, connection: &mut MultiplexedConnection, heard: &Heard) -> Result<(), Problem> {
        let now = clock::unix_now();
        let mut cursor = "0".to_owned();
        loop {
            let mut scan = redis::cmd("ZSCAN");
            scan.arg(&self.set).arg(&cursor).arg("COUNT").arg(PAGE);
            let mut parts = list(ask(connection, &scan).await?).into_iter();
            let (Some(next), Some(members)) = (parts.next(), parts.next()) else {
                return Err("the set of revocations cannot be read".to_owned());
            };
            let members = list(members);
            for pair in members.chunks(2) {
                if let [text, until] = pair {
                    self.say(bytes(text), number(until), now, heard);
                }
            }
            cursor = bytes(&next).map(|text| String::from_utf8_lossy(text).into_owned()).unwrap_or_default();
            if cursor.is_empty() || cursor == "0" {
                break;
            }
        }
        self.readings.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Hears one entry of the stream; says where it stands.
    fn entry(&self, entry: Value, heard: &Heard) -> Result<Place, Problem> {
        let place = place_of(&entry).ok_or_else(|| "an entry of the stream has no place".to_owned())?;
        let fields = list(entry).into_iter().nth(1).map(list).unwrap_or_default();
        let field = |name: &[u8]| {
            fields
                .chunks(2)
                .find(|pair| pair.first().and_then(bytes) == Some(name))
                .and_then(|pair| pair.get(1))
        };
        let (text, until) = (field(b"r").and_then(bytes), field(b"until").and_then(number));
        self.say(text, until, clock::unix_now(), heard);
        Ok(place)
    }

    fn say(&self, text: Option<&[u8]>, until: Option<i64>, now: i64, heard: &Heard) {
        let revocation = match (text, until) {
            (Some(text), Some(until)) => Revocation::read(text, until),
            _ => None,
        };
        match revocation {
            Some(revocation) if revocation.until().saturating_add(KEPT_AFTER_END) < now => {}
            Some(revocation) => {
                self.redis.metrics().revocations_heard(1);
                heard(&revocation);
            }
            None => self.unreadable(clock::now()),
        }
    }
}

async fn ask(connection: &mut MultiplexedConnection, command: &Cmd) -> Result<Value, Problem> {
    match tokio::time::timeout(ANSWER_TIMEOUT, connection.send_packed_command(command)).await {
        Ok(Ok(Value::ServerError(error))) => Err(error.to_string()),
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("no answer in time".to_owned()),
    }
}

/// The entries that XREAD has of the one stream it was asked for.
fn entries_of_first_stream(value: Value) -> Vec<Value> {
    let stream = list(value).into_iter().next();
    stream.and_then(|stream| list(stream).into_iter().nth(1)).map(list).unwrap_or_default()
}

fn list(value: Value) -> Vec<Value> {
    match value {
        Value::Array(values) => values,
        _ => Vec::new(),
    }
}

fn bytes(value: &Value) -> Option<&[u8]> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        Value::SimpleString(text) => Some(text.as_bytes()),
        _ => None,
    }
}

/// A whole number, also as a score is written.
fn number(value: &Value) -> Option<i64> {
    if let Value::Int(number) = value {
        return Some(*number);
    }
    let text = std::str::from_utf8(bytes(value)?).ok()?;
    if let Ok(number) = text.parse() {
        return Some(number);
    }
    let number: f64 = text.parse().ok().filter(|number: &f64| !number.is_nan())?;
    #[expect(clippy::cast_possible_truncation, reason = "a float cast saturates")]
    Some(number as i64)
}

fn place_of(entry: &Value) -> Option<Place> {
    match entry {
        Value::Array(parts) => Place::read(bytes(parts.first()?)?),
        _ => None,
    }
}
