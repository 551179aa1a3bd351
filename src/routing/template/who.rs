//! What templates and expressions may say of who a request is from, once that is known.

use std::borrow::Cow;

use serde_json::{Map, Value};

/// Who a request is from; of nobody yet, or of nobody at all, everything is missing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Who<'a> {
    /// The claims of its token.
    pub claims: Option<&'a Map<String, Value>>,
    /// Its consumer.
    pub consumer: Option<ConsumerView<'a>>,
}

/// A consumer as templates and expressions see it.
#[derive(Debug, Clone, Copy)]
pub struct ConsumerView<'a> {
    /// Its name.
    pub name: &'a str,
    /// What it belongs to.
    pub groups: &'a [Box<str>],
    /// Its plan.
    pub plan: Option<&'a str>,
}

/// Fields of `consumer`.
pub(in crate::routing) const CONSUMER_FIELDS: [&str; 3] = ["name", "groups", "plan"];

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ConsumerField {
    Name,
    Groups,
    Plan,
}

impl ConsumerField {
    pub(super) fn named(name: &str) -> Option<Self> {
        let mut fields = [Self::Name, Self::Groups, Self::Plan].into_iter().zip(CONSUMER_FIELDS);
        fields.find(|(_, known)| *known == name).map(|(field, _)| field)
    }

    pub(super) fn name(self) -> &'static str {
        CONSUMER_FIELDS.get(self as usize).copied().unwrap_or_default()
    }

    /// Its value; groups are separated by commas.
    pub(super) fn of<'a>(self, consumer: &ConsumerView<'a>) -> Option<Cow<'a, str>> {
        match self {
            Self::Name => Some(consumer.name.into()),
            Self::Groups => match consumer.groups {
                [] => None,
                [one] => Some((**one).into()),
                several => Some(several.join(",").into()),
            },
            Self::Plan => consumer.plan.map(Cow::from),
        }
    }
}
