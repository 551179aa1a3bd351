//! What requests are counted by.

use std::hash::Hasher;
use std::net::IpAddr;
use std::time::Instant;

use http::{HeaderMap, HeaderName};
use serde_json::Value;
use siphasher::sip::SipHasher13;
use smallvec::SmallVec;

use super::basis;
use super::cost::Work;
use crate::base::client_cert::ClientCert;
use crate::identity::principal::{Principal, Proof};

/// What a limit may know of a request.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The client, after trusted proxies.
    pub client: IpAddr,
    /// The route's name.
    pub route: &'a str,
    /// The head's fields.
    pub headers: Option<&'a HeaderMap>,
    /// Who the request is from, once that is proved.
    pub principal: Option<&'a Principal>,
    /// The account that a login tries, in the form in which accounts are compared.
    pub account: Option<&'a str>,
    /// Works out what it costs, where an expression says that.
    pub work: Option<Work<'a>>,
    /// By when it must have gone on: it waits for no place that comes later.
    pub deadline: Option<Instant>,
}

impl Facts<'static> {
    /// Facts of which only the address is known.
    pub fn of(client: IpAddr) -> Self {
        Self { client, route: "", headers: None, principal: None, account: None, work: None, deadline: None }
    }
}

/// One thing that requests are counted by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// The address.
    Ip,
    /// Who it is from: a token's subject, with the provider that vouches for it, or whoever else was proved.
    Subject,
    /// The consumer.
    Consumer,
    /// The API key.
    ApiKey,
    /// The route.
    Route,
    /// A header, by its first line.
    Header(HeaderName),
    /// A claim of the token: a literal name, or a dotted path.
    Claim(Box<str>),
    /// The account that a login tries.
    Account,
    /// Nothing: all requests together.
    Global,
}

/// What requests are counted by: each combination of values has counters of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    parts: SmallVec<[Part; 2]>,
    /// Leading bits of an IPv6 address that count.
    ipv6_prefix: u8,
}

/// Stands for a key's values: a hash under a secret that only this process knows, so that nobody can make two that collide.
/// That two of a million do by accident is less likely than one in thirty million; they would share a counter.
/// Never the default, which stands for none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct KeyHash(pub(super) u64);

impl Key {
    /// A key of these parts. Of an IPv6 address the first `ipv6_prefix` bits count: one customer has at least 64 of the
    /// others to himself.
    pub fn new(parts: impl IntoIterator<Item = Part>, ipv6_prefix: u8) -> Self {
        Self { parts: parts.into_iter().collect(), ipv6_prefix: ipv6_prefix.min(128) }
    }

    /// Whether nothing but the address counts: it is known before anybody has proved who he is.
    pub fn is_address_alone(&self) -> bool {
        *self.parts == [Part::Ip]
    }

    /// Whether `part` counts.
    pub fn has(&self, part: &Part) -> bool {
        self.parts.contains(part)
    }

    /// What it is, in one word for each kind: counters go on only under a key of the same kind.
    pub fn kind(&self) -> String {
        format!("{}/{}", self.words(), self.ipv6_prefix)
    }

    /// Its parts, as they are written.
    pub fn words(&self) -> String {
        let words: Vec<String> = self.parts.iter().map(Part::word).collect();
        words.join(" + ")
    }

    /// The values of a request, in words that give away no secret: what clients send is told by its name alone.
    pub fn told(&self, facts: &Facts<'_>) -> String {
        let mut bytes = Bytes::new();
        let words = self.parts.iter().map(|part| {
            let is_there = self.push(part, facts, &mut bytes);
            let principal = facts.principal;
            let shown = match part {
                Part::Ip => Some(facts.client.to_string()),
                Part::Subject => {
                    principal.and_then(|principal| Some(format!("subject {}", principal.subject()?)))
                }
                Part::Consumer => {
                    let consumer = principal.and_then(|principal| principal.consumer.as_ref());
                    consumer.map(|consumer| format!("consumer {}", consumer.name))
                }
                Part::ApiKey => match principal.map(|principal| &principal.proof) {
                    Some(Proof::ApiKey(key)) => Some(format!("API key {}", key.id)),
                    _ => None,
                },
                Part::Route => Some(format!("route {}", facts.route)),
                Part::Global => Some("all".to_owned()),
                Part::Header(_) | Part::Claim(_) | Part::Account => None,
            };
            match shown {
                Some(shown) if is_there => shown,
                _ if is_there => format!("its {}", part.word()),
                _ => format!("{}, having no {}", facts.client, part.word()),
            }
        });
        words.collect::<Vec<_>>().join(" + ")
    }

    /// The values of a request. What it has not got counts by its address: never by nothing, and never together with
    /// all others that have not got it.
    pub fn of(&self, facts: &Facts<'_>) -> KeyHash {
        let mut hasher = hasher();
        self.put(facts, &mut hasher);
        finished(&hasher)
    }

    /// The same as bytes: alike on all instances.
    pub(super) fn values(&self, facts: &Facts<'_>) -> Bytes {
        let mut bytes = Bytes::new();
        self.put(facts, &mut bytes);
        bytes
    }

    fn put(&self, facts: &Facts<'_>, to: &mut impl Values) {
        for part in &self.parts {
            if !self.push(part, facts, to) {
                self.push(&Part::Ip, facts, to);
            }
        }
    }

    /// Adds the value of `part` to `to`, in a form that no other values give; says whether there is one.
    fn push(&self, part: &Part, facts: &Facts<'_>, to: &mut impl Values) -> bool {
        let mut add = |tag: u8, values: &[&[u8]]| {
            to.add(&[tag]);
            for value in values {
                to.add(&value.len().to_le_bytes());
                to.add(value);
            }
            true
        };
        match part {
            Part::Ip => match facts.client.to_canonical() {
                IpAddr::V4(ip) => add(b'4', &[&ip.octets()]),
                IpAddr::V6(ip) => {
                    let cut = 128_u32.saturating_sub(self.ipv6_prefix.into());
                    let network = u128::from(ip).checked_shr(cut).unwrap_or(0);
                    add(b'6', &[&network.to_le_bytes()])
                }
            },
            Part::Subject => match facts.principal.map(|principal| &principal.proof) {
                Some(Proof::Token(token)) => match token.subject.as_deref() {
                    Some(subject) => add(b's', &[token.provider.as_bytes(), subject.as_bytes()]),
                    None => false,
                },
                Some(Proof::ApiKey(key)) => add(b'c', &[key.consumer.name.as_bytes()]),
                Some(Proof::Certificate(certificate)) => match ClientCert::principal(certificate) {
                    Some(name) => add(b't', &[name.as_bytes()]),
                    None => false,
                },
                None => false,
            },
            Part::Consumer => match facts.principal.and_then(|principal| principal.consumer.as_ref()) {
                Some(consumer) => add(b'c', &[consumer.name.as_bytes()]),
                None => false,
            },
            Part::ApiKey => match facts.principal.map(|principal| &principal.proof) {
                Some(Proof::ApiKey(key)) => add(b'k', &[key.consumer.name.as_bytes(), key.id.as_bytes()]),
                _ => false,
            },
            Part::Route => add(b'r', &[facts.route.as_bytes()]),
            Part::Header(name) => match facts.headers.and_then(|headers| headers.get(name)) {
                Some(value) if !value.is_empty() => add(b'h', &[value.as_bytes()]),
                _ => false,
            },
            Part::Claim(name) => match facts.principal.and_then(|principal| claim(principal, name)) {
                Some(Value::String(text)) => add(b'"', &[text.as_bytes()]),
                Some(Value::Null) | None => false,
                Some(other) => add(b'j', &[other.to_string().as_bytes()]),
            },
            Part::Account => match facts.account {
                Some(account) if !account.is_empty() => add(b'a', &[account.as_bytes()]),
                _ => false,
            },
            Part::Global => add(b'g', &[]),
        }
    }
}

/// Holds the values of nearly every key without being allocated.
pub(super) type Bytes = SmallVec<[u8; 128]>;

/// Where the values of a key go, one after the other.
trait Values {
    fn add(&mut self, bytes: &[u8]);
}

impl Values for Bytes {
    fn add(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

impl Values for SipHasher13 {
    fn add(&mut self, bytes: &[u8]) {
        self.write(bytes);
    }
}

impl Part {
    /// As it is written.
    pub fn word(&self) -> String {
        match self {
            Self::Ip => "ip".to_owned(),
            Self::Subject => "subject".to_owned(),
            Self::Consumer => "consumer".to_owned(),
            Self::ApiKey => "api_key".to_owned(),
            Self::Route => "route".to_owned(),
            Self::Header(name) => format!("header:{name}"),
            Self::Claim(name) => format!("claim:{name}"),
            Self::Account => "account".to_owned(),
            Self::Global => "global".to_owned(),
        }
    }
}

/// The claim called `name`, else the one at the dotted path.
fn claim<'a>(principal: &'a Principal, name: &str) -> Option<&'a Value> {
    let claims = principal.claims()?;
    if let Some(value) = claims.get(name) {
        return Some(value);
    }
    let mut steps = name.split('.');
    let first = claims.get(steps.next()?)?;
    steps.try_fold(first, |value, step| value.get(step))
}

/// SipHash under a secret: see [`KeyHash`].
pub(super) fn hash(bytes: &[u8]) -> KeyHash {
    let mut hasher = hasher();
    hasher.write(bytes);
    finished(&hasher)
}

fn hasher() -> SipHasher13 {
    let [one, other] = basis::get().secret;
    SipHasher13::new_with_keys(one, other)
}

fn finished(hasher: &SipHasher13) -> KeyHash {
    // Never that of no key, nor that of what keys share.
    KeyHash(hasher.finish().max(2))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::identity::consumer::{ApiKey, Consumer};
    use crate::identity::token::Token;

    fn facts(client: &str) -> Facts<'static> {
        Facts { route: "r", ..Facts::of(client.parse().unwrap()) }
    }

    fn token(provider: &str, subject: &str) -> Principal {
        let claims = json!({ "tenant": "acme", "org": { "id": 7 }, "https://e/x": "y", "none": null });
        let token = Token {
            provider: provider.into(),
            subject: Some(subject.into()),
            id: None,
            issued_at: None,
            expires_at: None,
            roles: Box::default(),
            scopes: Box::default(),
            claims: claims.as_object().unwrap().clone(),
            payload: Box::default(),
            forms: Default::default(),
        };
        Principal { proof: Proof::Token(Arc::new(token)), consumer: None, until: None }
    }

    #[test]
    fn ipv6_counts_by_its_network() {
        let key = Key::new([Part::Ip], 56);
        let of = |client| key.of(&facts(client));
        assert_eq!(of("2001:db8:0:ff00::1"), of("2001:db8:0:ffff:1:2:3:4"));
        assert_ne!(of("2001:db8:0:ff00::1"), of("2001:db8:0:fe00::1"));
        assert_eq!(of("192.0.2.1"), of("::ffff:192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        assert_eq!(of("192.0.2.1"), hash(&key.values(&facts("192.0.2.1"))));
        let narrow = Key::new([Part::Ip], 64);
        assert_ne!(narrow.of(&facts("2001:db8:0:ff00::1")), narrow.of(&facts("2001:db8:0:ff01::1")));
    }

    /// A request that lacks what it is to be counted by shares no counter with others that lack it, and is counted.
    #[test]
    fn what_is_missing_counts_by_the_address() {
        let header: HeaderName = "x-tenant".parse().unwrap();
        for part in [
            Part::Subject,
            Part::Consumer,
            Part::ApiKey,
            Part::Header(header.clone()),
            Part::Claim("x".into()),
            Part::Account,
        ] {
            let key = Key::new([part.clone(), Part::Route], 56);
            let (one, two) = (key.of(&facts("192.0.2.1")), key.of(&facts("192.0.2.2")));
            assert_ne!(one, two, "{part:?}");
            assert_eq!(one, Key::new([Part::Ip, Part::Route], 56).of(&facts("192.0.2.1")));
        }
        let mut headers = HeaderMap::new();
        headers.insert(header.clone(), http::HeaderValue::from_static(""));
        let key = Key::new([Part::Header(header)], 56);
        let empty = Facts { headers: Some(&headers), ..facts("192.0.2.1") };
        assert_eq!(key.of(&empty), key.of(&facts("192.0.2.1")));
    }

    #[test]
    fn subjects_of_two_providers_are_two() {
        let key = Key::new([Part::Subject], 56);
        let (one, two) = (token("local", "alice"), token("other", "alice"));
        let of = |principal| key.of(&Facts { principal: Some(principal), ..facts("192.0.2.1") });
        assert_ne!(of(&one), of(&two));
        // Wherever it comes from.
        assert_eq!(of(&one), key.of(&Facts { principal: Some(&one), ..facts("192.0.2.2") }));
        // Neither can a provider's name and a subject be shifted into each other.
        let (shifted, back) = (token("a", "bc"), token("ab", "c"));
        assert_ne!(of(&shifted), of(&back));
        let consumer =
            Arc::new(Consumer { name: "mobile".into(), groups: Box::default(), ..Consumer::default() });
        let api_key = ApiKey { id: "k1".into(), consumer: consumer.clone(), ..ApiKey::default() };
        let other = ApiKey { id: "k2".into(), consumer: consumer.clone(), ..ApiKey::default() };
        let by = |key: ApiKey| {
            let consumer = Some(consumer.clone());
            Principal { proof: Proof::ApiKey(Arc::new(key)), consumer, until: None }
        };
        let (one, two) = (by(api_key), by(other));
        assert_eq!(of(&one), of(&two));
        let key = Key::new([Part::ApiKey], 56);
        let of = |principal| key.of(&Facts { principal: Some(principal), ..facts("192.0.2.1") });
        assert_ne!(of(&one), of(&two));
    }

    #[test]
    fn claims_by_name_or_path() {
        let principal = token("local", "alice");
        let of = |name: &str| {
            let facts = Facts { principal: Some(&principal), ..facts("192.0.2.1") };
            Key::new([Part::Claim(name.into())], 56).of(&facts)
        };
        let missing = Key::new([Part::Ip], 56).of(&facts("192.0.2.1"));
        for name in ["tenant", "org.id", "https://e/x", "org"] {
            assert_ne!(of(name), missing, "{name}");
        }
        for name in ["none", "org.name", "org.id.x", ""] {
            assert_eq!(of(name), missing, "{name}");
        }
    }
}
