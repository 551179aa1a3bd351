//! `[consumers.*]`: the consumers that the configuration names.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use indexmap::{IndexMap, IndexSet};

use super::consumer::Consumer;
use super::directory::{Configured, ConfiguredConsumer, hash_key};
use crate::base::decode::{Decoder, Node, Secret, Shape, Value, join_key, quote, text_value};
use crate::base::diagnostic::Diagnostics;
use crate::base::names::nearest;
use crate::base::origin::{At, Origin};
use crate::keys;

/// In place of a provider: the subject is that of client certificates. No provider has the name.
pub const CERTIFICATES: &str = "mtls";
/// Shortest API key: shorter ones can be guessed, one request after the other.
const KEY_BYTES_MIN: usize = 16;
/// Longest API key: it has to fit into a head beside all else.
const KEY_BYTES_MAX: usize = 1024;

keys! {
    /// A party that uses services: an app, a partner, a team.
    pub struct ConsumerRaw {
        /// What it belongs to; counts as its roles.
        groups: Vec<At<GroupName>> = Vec::new(),
        /// The plan that bounds its use; absent: what the route says.
        plan: optional String,
        /// When it became a consumer, such as `"2026-01-31"`: quotas from an anniversary begin their periods with it.
        since: optional Moment,
        /// The keys it shows, each 16 to 1024 visible characters.
        api_keys: Vec<At<Secret>> = Vec::new(),
        /// Whose tokens are its: `PROVIDER:sub`; or whose certificates: `mtls:SUBJECT`.
        subjects: Vec<At<Subject>> = Vec::new(),
    }
}

/// The name of a group or role: it stands in lists that are separated by commas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupName(pub String);

impl GroupName {
    /// Reads `text`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if text.trim() != text || text.is_empty() {
            return Err("is empty, or begins or ends with a space");
        }
        if text.contains(',') || text.chars().any(char::is_control) {
            return Err("holds a comma or a control character: services read it in a list");
        }
        Ok(Self(text.to_owned()))
    }
}

impl Value for GroupName {
    fn shape() -> Shape {
        Shape::Text { pattern: None, examples: &["paid"] }
    }

    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        let Some(text) = node.as_str() else { return cx.expected(node, "the name of a group") };
        match Self::parse(text) {
            Ok(name) => Some(name),
            Err(why) => cx.invalid(node, why),
        }
    }

    fn render(&self) -> String {
        quote(&self.0)
    }
}

/// A moment in Unix seconds, written as a date (its first second in UTC) or as in RFC 3339.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment(pub i64);

impl Value for Moment {
    fn shape() -> Shape {
        Shape::Text { pattern: None, examples: &["2026-01-31", "2026-01-31T12:00:00Z"] }
    }

    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        text_value(node, cx, "a date such as \"2026-01-31\"", |text| {
            let date = || text.parse::<jiff::civil::Date>().ok()?.to_zoned(jiff::tz::TimeZone::UTC).ok();
            let moment = text.parse::<jiff::Timestamp>().ok().or_else(|| Some(date()?.timestamp()));
            moment.map(|moment| Self(moment.as_second())).ok_or("is no date such as \"2026-01-31\"")
        })
    }

    fn render(&self) -> String {
        quote(&jiff::Timestamp::from_second(self.0).map(|at| at.to_string()).unwrap_or_default())
    }
}

/// The subject of a provider's tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// The provider, or [`CERTIFICATES`].
    pub provider: String,
    /// `sub`; of a certificate what services are told it is.
    pub subject: String,
}

impl Subject {
    /// Reads `PROVIDER:sub`; the subject may hold colons of its own.
    pub fn parse(text: &str) -> Option<Self> {
        let (provider, subject) = text.split_once(':')?;
        let of = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Some(Self { provider: of(provider)?, subject: of(subject)? })
    }
}

impl Value for Subject {
    fn shape() -> Shape {
        Shape::Text { pattern: None, examples: &["local:alice"] }
    }

    fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
        text_value(node, cx, "PROVIDER:sub, such as \"local:alice\"", |text| {
            Self::parse(text).ok_or("has no PROVIDER: before the subject, as \"local:alice\" has")
        })
    }

    fn render(&self) -> String {
        quote(&format!("{}:{}", self.provider, self.subject))
    }
}

/// What all consumers of a configuration come to. `providers` are the names of those there are.
pub fn compile(
    raw: &IndexMap<String, At<ConsumerRaw>>,
    providers: &IndexSet<String>,
    out: &mut Diagnostics,
) -> Configured {
    let (mut keys, mut subjects) = (HashMap::new(), HashMap::new());
    let mut consumers = Vec::with_capacity(raw.len());
    for (name, consumer) in raw {
        let path = join_key("consumers", name);
        for (index, key) in consumer.api_keys.iter().enumerate() {
            let path = format!("{path}.api_keys[{index}]");
            check_key(key, &path, out);
            if let Some(first) = keys.insert(hash_key(key.expose()), &key.origin) {
                let message = "this key was given before: nobody could say whose it is";
                out.error("duplicate-api-key", &key.origin, path, message).related(first, "given here");
            }
        }
        for (index, subject) in consumer.subjects.iter().enumerate() {
            let path = format!("{path}.subjects[{index}]");
            check_provider(&subject.provider, providers, &subject.origin, &path, out);
            let whole = (&subject.provider, &subject.subject);
            if let Some(first) = subjects.insert(whole, &subject.origin) {
                let message = format!("the subject {} is somebody's already", subject.render());
                out.error("duplicate-subject", &subject.origin, path, message).related(first, "given here");
            }
        }
        consumers.push(ConfiguredConsumer {
            consumer: Arc::new(Consumer {
                name: name.as_str().into(),
                groups: consumer.groups.iter().map(|group| group.0.as_str().into()).collect(),
                plan: consumer.plan.as_ref().map(|plan| plan.as_str().into()),
                since: consumer.since.as_ref().map(|since| since.value.0),
                ..Consumer::default()
            }),
            keys: consumer.api_keys.iter().map(|key| key.value.clone()).collect(),
            subjects: consumer
                .subjects
                .iter()
                .map(|subject| (subject.provider.clone(), subject.subject.clone()))
                .collect(),
        });
    }
    Configured { consumers }
}

fn check_key(key: &At<Secret>, path: &str, out: &mut Diagnostics) {
    let text = key.expose();
    if text.bytes().any(|byte| !byte.is_ascii_graphic()) {
        let message = "the key holds something other than visible ASCII characters: no header can carry it";
        out.error("invalid-value", &key.origin, path, message);
    } else if text.len() < KEY_BYTES_MIN {
        let message =
            format!("the key has {} characters: fewer than {KEY_BYTES_MIN} can be guessed", text.len());
        out.error("weak-api-key", &key.origin, path, message)
            .hint("such as what `openssl rand -hex 20` prints");
    } else if text.len() > KEY_BYTES_MAX {
        let message = format!("the key has {} characters, of which {KEY_BYTES_MAX} are too many", text.len());
        out.error("invalid-value", &key.origin, path, message);
    }
}

fn check_provider(name: &str, known: &IndexSet<String>, origin: &Origin, path: &str, out: &mut Diagnostics) {
    if name == CERTIFICATES || known.contains(name) {
        return;
    }
    let problem = out.error("undefined", origin, path, format!("there is no provider {}", quote(name)));
    match nearest(name, known.iter().map(String::as_str)) {
        Some(near) => problem.hint(format!("did you mean {}?", quote(near))),
        None => problem.hint(format!("define it: [identity.providers.{name}]")),
    };
}

impl ConfiguredConsumer {
    /// Tells its keys from others, for comparison with the next configuration.
    pub fn content(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.keys.iter().for_each(|key| key.expose().hash(&mut hasher));
        hasher.finish()
    }
}
