//! What is written under `[rate_limits.NAME]`, and what becomes of it.

use std::fmt::Write;
use std::time::Duration;

use http::{HeaderName, StatusCode};
use smallvec::SmallVec;

use super::cost::{Cost, CostRaw};
use super::{
    BucketRule, COUNT_MAX, Key, LONGER_WINDOWS_MAX, Modes, OnStoreFailure, Part, Rules, Settings, Skip,
    WindowRule,
};
use crate::base::decode::{Decoder, Kind, NetworkList, Node, Rate, Shape, Value, quote};
use crate::base::diagnostic::Diagnostics;
use crate::base::origin::{At, Origin};
use crate::keys;
use crate::policy::networks::Networks;
use crate::routing::Expression;
use crate::routing::expression::Stage;

keys! {
    /// How many requests pass, counted by what. One counter a name and value, shared by all routes that name it.
    pub struct RateLimitRaw {
        /// What requests are counted by: `"ip"`, `"subject"`, `"consumer"`, `"api_key"`, `"route"`, `"header:NAME"`,
        /// `"claim:NAME"`, `"global"`, `"account"` (of a login), or a list of these. What a request lacks counts by its address.
        key: required KeyRaw,
        /// How many in how long; all must hold. The shortest is a bucket that drains steadily, of the others no window ever
        /// holds more than its number.
        limits: Vec<At<Rate>> = Vec::new(),
        /// How many may pass at once after a rest, in the shortest window; absent = its own number.
        burst: optional u64,
        /// How many requests may be under way at once; absent = any number.
        concurrent: optional u32,
        /// What one request counts for: a number, or a CEL expression such as
        /// `"request.path.startsWith('/export') ? 10 : 1"`.
        cost: CostRaw = CostRaw::Number(1),
        /// How long a request may wait for its place in the shortest window before it is refused.
        queue: Duration = Duration::ZERO,
        /// How answers tell of it: `"draft"` (RateLimit, RateLimit-Policy), `"draft-7"`, `"draft-6"`, `"legacy"`
        /// (X-RateLimit-*), `"kong"`, `"none"`, or a list of these.
        headers: ModesRaw = ModesRaw(Modes { draft: true, draft_7: false, draft_6: false, legacy: false, kong: false }),
        /// What a refusal says; absent = the usual.
        message: optional String,
        /// The status of a refusal: 429, or 503 for a limit that all clients share.
        status: StatusCode = StatusCode::TOO_MANY_REQUESTS,
        /// Does not count requests that are answered with 400 and above.
        skip_failed: bool = false,
        /// Does not count requests that are answered below 400: for logins, where only failures count.
        skip_successful: bool = false,
        /// Addresses that are not counted: networks, or `"file:PATH"` with one a line.
        allow: Vec<At<NetworkList>> = Vec::new(),
        /// Consumers that are not counted.
        allow_consumers: Vec<At<String>> = Vec::new(),
        /// Leading bits of an IPv6 address that count: 32 to 64.
        ipv6_prefix: u8 = 56,
        /// Values that have counters of their own, about 50 bytes each; while all are in use further ones share one.
        max_keys: usize = 1_000_000,
        /// Where instances share it (`[cluster]`): what is done while Redis is away. `"local"`: each counts for itself;
        /// `"allow"`: everything passes; `"deny"`: nothing does (503).
        on_store_failure: OnStoreFailure = OnStoreFailure::Local,
    }
}

/// Longest `queue`: whoever waits holds a connection.
pub(super) const QUEUE_MAX: Duration = Duration::from_secs(10);

/// Most values that can have counters of their own.
const KEYS_MAX: usize = 100_000_000;

/// Values that share nothing even with the smallest `max_keys`.
const KEYS_MIN: usize = 16;

/// Longest text of a refusal, in bytes.
const MESSAGE_BYTES_MAX: usize = 1024;

impl RateLimitRaw {
    /// The settings; `None` where something is wrong that leaves no limit. `path` is the configuration path of the table,
    /// `origin` its place.
    pub fn compile(
        &self,
        name: &str,
        path: &str,
        origin: &Origin,
        generation: u64,
        out: &mut Diagnostics,
    ) -> Option<Settings> {
        if !name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\') {
            let message = "the name of a limit stands in headers: letters, digits, `-`, `_` and `.` only";
            out.error("invalid-value", origin, path, message);
        }
        let (bucket, windows) = self.windows(path, out);
        // A broken one was reported, and is no absent one.
        let is_absent = self.limits.origin == Origin::Default || !out.has_errors();
        if self.limits.is_empty() && self.concurrent.is_none() && is_absent {
            let problem = out.error("missing-key", origin, path, "the limit limits nothing");
            problem.hint("add `limits`, such as [\"100/min\"], or `concurrent`");
        }
        self.check_values(path, out);
        let cost = self.cost(bucket.map_or(COUNT_MAX, |bucket| bucket.burst), path, out);
        let holds = self.concurrent.is_some();
        let skip = Skip { failed: *self.skip_failed, successful: *self.skip_successful };
        if skip.failed && skip.successful {
            let message = "with `skip_failed` and `skip_successful` nothing counts";
            out.error(
                "conflicting-keys",
                &self.skip_successful.origin,
                format!("{path}.skip_successful"),
                message,
            )
            .related(&self.skip_failed.origin, "the other of the two");
        }
        let rules = Rules {
            generation,
            bucket,
            windows,
            concurrent: self.concurrent.as_ref().map(|at| at.value),
            counted_at_end: (skip.failed || skip.successful) && bucket.is_some(),
        };
        (bucket.is_some() || holds).then(|| Settings {
            name: name.into(),
            origin: origin.clone(),
            key: Key::new(self.key.0.iter().cloned(), *self.ipv6_prefix),
            rules,
            cost,
            skip,
            allow: Networks::new(self.allow.iter().flat_map(|list| list.iter().copied())),
            allow_consumers: self.allow_consumers.iter().map(|name| name.value.as_str().into()).collect(),
            modes: self.headers.0,
            message: self.message.as_ref().map(|message| message.value.as_str().into()),
            status: self.status.as_u16(),
            keys_max: self.max_keys.clamp(KEYS_MIN, KEYS_MAX),
            on_store_failure: *self.on_store_failure,
        })
    }

    /// What a request counts for, of which `most` can pass at once.
    fn cost(&self, most: u64, path: &str, out: &mut Diagnostics) -> Cost {
        let path = format!("{path}.cost");
        match &self.cost.value {
            CostRaw::Number(0) => {
                let message = "a request that counts for nothing is not limited";
                out.error("invalid-value", &self.cost.origin, path, message);
                Cost::Fixed(1)
            }
            CostRaw::Number(number) => Cost::Fixed(*number),
            CostRaw::Expression(written) => {
                // Of a login nobody is known at all, and before authentication nobody is yet.
                let knows_who =
                    !matches!(self.key.0.as_slice(), [Part::Ip]) && !self.key.0.contains(&Part::Account);
                match Expression::parse_number(written.text(), Stage::Counting { knows_who }, most) {
                    Ok(expression) => Cost::Worked(Box::new(expression)),
                    Err(mistake) => {
                        written.report(&self.cost.origin, &path, mistake, out);
                        Cost::Fixed(1)
                    }
                }
            }
        }
    }

    /// The shortest window and the others; what contradicts is reported.
    fn windows(&self, path: &str, out: &mut Diagnostics) -> (Option<BucketRule>, SmallVec<[WindowRule; 2]>) {
        let mut limits: Vec<(usize, &At<Rate>)> = self.limits.iter().enumerate().collect();
        limits.sort_by_key(|(_, limit)| limit.per);
        for pair in limits.windows(2) {
            let [(_, shorter), (at, longer)] = pair else { continue };
            let path = format!("{path}.limits[{at}]");
            if shorter.per == longer.per {
                out.error("invalid-value", &longer.origin, path, "two windows have the same length")
                    .related(&shorter.origin, "the other one");
            } else if longer.count <= shorter.count {
                let message = format!(
                    "{} allows no more than the shorter {}, which so never counts",
                    longer.render(),
                    shorter.render(),
                );
                out.error("invalid-value", &longer.origin, path, message)
                    .hint("a longer window allows more requests than a shorter one")
                    .related(&shorter.origin, "the shorter one");
            }
        }
        for (at, limit) in limits.iter().filter(|(_, limit)| limit.count > COUNT_MAX) {
            let message = format!("a window holds {COUNT_MAX} requests at most");
            out.error("invalid-value", &limit.origin, format!("{path}.limits[{at}]"), message);
        }
        if let Some((at, limit)) = limits.get(LONGER_WINDOWS_MAX + 1) {
            let message = format!("a limit has {} windows at most", LONGER_WINDOWS_MAX + 1);
            out.error("invalid-value", &limit.origin, format!("{path}.limits[{at}]"), message);
        }
        let Some((_, shortest)) = limits.first() else {
            for (key, at) in [
                ("burst", self.burst.as_ref().map(|at| &at.origin)),
                ("queue", (!self.queue.is_zero()).then_some(&self.queue.origin)),
                ("cost", (self.cost.origin != Origin::Default).then_some(&self.cost.origin)),
            ] {
                if let Some(origin) = at {
                    let message = format!("\"{key}\" does nothing without `limits`");
                    out.error("unused-key", origin, format!("{path}.{key}"), message);
                }
            }
            return (None, SmallVec::new());
        };
        let burst = self.burst.as_ref().map_or(shortest.count, |burst| burst.value);
        if let Some(written) = &self.burst {
            let path = format!("{path}.burst");
            let narrower = limits.get(1).filter(|(_, next)| next.count < burst);
            if burst == 0 {
                out.error("invalid-value", &written.origin, path, "a burst of 0 lets nothing pass");
            } else if burst > COUNT_MAX {
                let message = format!("a burst has {COUNT_MAX} requests at most");
                out.error("invalid-value", &written.origin, path, message);
            } else if let Some((_, next)) = narrower {
                let message = format!("the burst is larger than what {} lets pass", next.render());
                out.error("invalid-value", &written.origin, path, message)
                    .related(&next.origin, "this window");
            }
        }
        let count = shortest.count.clamp(1, COUNT_MAX);
        let bucket = BucketRule {
            count,
            per: nanos(shortest.per).max(1),
            burst: burst.clamp(1, COUNT_MAX),
            queue: nanos(self.queue.value.min(QUEUE_MAX)),
        };
        let longer = limits.iter().skip(1).take(LONGER_WINDOWS_MAX);
        let windows = longer.map(|(_, limit)| WindowRule {
            count: limit.count.clamp(1, COUNT_MAX),
            per: nanos(limit.per).max(1),
        });
        let windows = windows.collect();
        let fits = bucket.burst;
        if let CostRaw::Number(cost) = self.cost.value
            && cost > fits
        {
            let message = format!("a request that counts for {cost} never fits into a burst of {fits}");
            out.error("invalid-value", &self.cost.origin, format!("{path}.cost"), message);
        }
        (Some(bucket), windows)
    }

    fn check_values(&self, path: &str, out: &mut Diagnostics) {
        let mut wrong = |key: &str, origin: &Origin, message: String| {
            out.error("invalid-value", origin, format!("{path}.{key}"), message);
        };
        if let Some(concurrent) = self.concurrent.as_ref().filter(|at| at.value == 0) {
            wrong("concurrent", &concurrent.origin, "0 requests at once lets nothing pass".to_owned());
        }
        if *self.queue > QUEUE_MAX {
            let message = "nobody should wait for longer than 10s: that holds connections".to_owned();
            wrong("queue", &self.queue.origin, message);
        }
        if ![429, 503].contains(&self.status.as_u16()) {
            wrong("status", &self.status.origin, "a limit refuses with 429 or 503".to_owned());
        }
        if !(32..=64).contains(&*self.ipv6_prefix) {
            let message = "is not between 32 and 64: one customer has whole networks to himself";
            wrong("ipv6_prefix", &self.ipv6_prefix.origin, format!("{} {message}", *self.ipv6_prefix));
        }
        if !(KEYS_MIN..=KEYS_MAX).contains(&*self.max_keys) {
            let message = format!("{} is not between {KEYS_MIN} and {KEYS_MAX}", *self.max_keys);
            wrong("max_keys", &self.max_keys.origin, message);
        }
        if let Some(message) = self.message.as_ref().filter(|message| message.len() > MESSAGE_BYTES_MAX) {
            let text = format!("the message is longer than {MESSAGE_BYTES_MAX} bytes");
            wrong("message", &message.origin, text);
        }
        if let (Some(first), [Part::Ip]) = (self.allow_consumers.first(), self.key.0.as_slice()) {
            let message =
                "limits by address count before anybody is known: no consumer can be told".to_owned();
            wrong("allow_consumers", &first.origin, message);
        }
    }
}

pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// `key`, as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRaw(pub Vec<Part>);

const WORDS: [(&str, Part); 7] = [
    ("ip", Part::Ip),
    ("subject", Part::Subject),
    ("consumer", Part::Consumer),
    ("api_key", Part::ApiKey),
    ("route", Part::Route),
    ("account", Part::Account),
    ("global", Part::Global),
];

const KNOWN: &[&str] =
    &["ip", "subject", "consumer", "api_key", "route", "header:NAME", "claim:NAME", "global", "account"];

/// Parts of one key.
const PARTS_MAX: usize = 4;

impl KeyRaw {
    fn part(node: &Node, cx: &mut Decoder<'_>) -> Option<Part> {
        let Some(text) = node.as_str() else { return cx.expected(node, "a word such as \"ip\"") };
        if let Some((_, part)) = WORDS.iter().find(|(word, _)| *word == text) {
            return Some(part.clone());
        }
        if let Some(name) = text.strip_prefix("header:") {
            return match HeaderName::from_bytes(name.as_bytes()) {
                Ok(name) => Some(Part::Header(name)),
                Err(_) => cx.invalid(node, "names no header"),
            };
        }
        match text.strip_prefix("claim:") {
            Some("") => cx.invalid(node, "names no claim"),
            Some(name) => Some(Part::Claim(name.into())),
            None => cx.none_of(node, text, KNOWN),
        }
    }
}

impl Value for KeyRaw {
    fn shape() -> Shape {
        let pattern = "^(ip|subject|consumer|api_key|route|header:.+|claim:.+|global|account)$";
        let one = || Shape::Text { pattern: Some(pattern), examples: &["ip", "subject", "header:X-Tenant"] };
        Shape::OneOf(vec![one(), Shape::List(Box::new(one()))])
    }

    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        let Kind::Array(nodes) = &node.kind else { return Self::part(node, cx).map(|part| Self(vec![part])) };
        let mut parts = Vec::with_capacity(nodes.len());
        for (index, inner) in nodes.iter().enumerate() {
            let Some(part) = cx.index(index, |cx| Self::part(inner, cx)) else { continue };
            if parts.contains(&part) {
                cx.index(index, |cx| cx.invalid::<()>(inner, "stands here twice"));
            }
            parts.push(part);
        }
        if nodes.is_empty() || nodes.len() > PARTS_MAX {
            let message = format!("a key has 1 to {PARTS_MAX} parts");
            cx.error("invalid-value", &node.origin, message);
        }
        (!parts.is_empty()).then_some(Self(parts))
    }

    fn render(&self) -> String {
        match self.0.as_slice() {
            [part] => quote(&part.word()),
            parts => {
                format!("[{}]", parts.iter().map(|part| quote(&part.word())).collect::<Vec<_>>().join(", "))
            }
        }
    }
}

/// `headers`, as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModesRaw(pub Modes);

const MODES: &[&str] = &["draft", "draft-7", "draft-6", "legacy", "kong", "none"];

impl ModesRaw {
    fn add(modes: &mut Modes, node: &Node, cx: &mut Decoder<'_>) {
        let one = match node.as_str() {
            Some("draft") => Modes { draft: true, ..Modes::default() },
            Some("draft-7") => Modes { draft_7: true, ..Modes::default() },
            Some("draft-6") => Modes { draft_6: true, ..Modes::default() },
            Some("legacy") => Modes { legacy: true, ..Modes::default() },
            Some("kong") => Modes { kong: true, ..Modes::default() },
            Some("none") => Modes::default(),
            Some(other) => {
                cx.none_of::<()>(node, other, MODES);
                return;
            }
            None => {
                cx.expected::<()>(node, "a word such as \"draft\"");
                return;
            }
        };
        if modes.contradicts(one) {
            cx.invalid::<()>(node, "writes the same headers as an earlier one, in another form");
        }
        *modes = modes.union(one);
    }
}

impl Value for ModesRaw {
    fn shape() -> Shape {
        Shape::OneOf(vec![Shape::Word(MODES), Shape::List(Box::new(Shape::Word(MODES)))])
    }

    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        let mut modes = Modes::default();
        match &node.kind {
            Kind::Array(nodes) => {
                for (index, inner) in nodes.iter().enumerate() {
                    cx.index(index, |cx| Self::add(&mut modes, inner, cx));
                }
            }
            _ => Self::add(&mut modes, node, cx),
        }
        Some(Self(modes))
    }

    fn render(&self) -> String {
        let Modes { draft, draft_7, draft_6, legacy, kong } = self.0;
        let words = [
            (draft, "draft"),
            (draft_7, "draft-7"),
            (draft_6, "draft-6"),
            (legacy, "legacy"),
            (kong, "kong"),
        ];
        let words: Vec<_> = words.iter().filter(|(is, _)| *is).map(|(_, word)| *word).collect();
        match words.as_slice() {
            [] => quote("none"),
            [word] => quote(word),
            words => {
                let mut text = String::from("[");
                for (at, word) in words.iter().enumerate() {
                    // Writing to a string cannot fail.
                    write!(text, "{}{}", if at == 0 { "" } else { ", " }, quote(word)).unwrap_or_default();
                }
                text + "]"
            }
        }
    }
}
