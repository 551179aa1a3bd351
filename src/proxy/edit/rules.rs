//! A route's own rules for headers: `request` and `response`. After everything else that is edited, so that nothing that
//! belongs to a hop comes back and what the operator writes has the last word.

use http::header::{HeaderMap, HeaderName, HeaderValue};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::{ErrorType, OrErr, Result};

use crate::policy::transform::{Action, Rules};
use crate::routing::template::Values;

/// A head whose fields rules change, by Pingora's own methods: they keep its spelling of names, if there is one, in step.
pub trait Head {
    /// Takes all fields of a name away.
    fn remove(&mut self, name: &HeaderName);
    /// Puts one field in place of all of its name.
    fn set(&mut self, name: &HeaderName, value: HeaderValue) -> Result<()>;
    /// Adds a field.
    fn add(&mut self, name: &HeaderName, value: HeaderValue) -> Result<()>;
}

macro_rules! heads {
    ($($head:ty)*) => {$(
        impl Head for $head {
            fn remove(&mut self, name: &HeaderName) {
                self.remove_header(name);
            }

            fn set(&mut self, name: &HeaderName, value: HeaderValue) -> Result<()> {
                self.insert_header(name.clone(), value)
            }

            fn add(&mut self, name: &HeaderName, value: HeaderValue) -> Result<()> {
                self.append_header(name.clone(), value).map(drop)
            }
        }
    )*};
}

heads!(RequestHeader ResponseHeader);

impl Head for HeaderMap {
    fn remove(&mut self, name: &HeaderName) {
        HeaderMap::remove(self, name);
    }

    fn set(&mut self, name: &HeaderName, value: HeaderValue) -> Result<()> {
        self.try_insert(name.clone(), value)
            .map(drop)
            .or_err(ErrorType::InvalidHTTPHeader, "too many headers")
    }

    fn add(&mut self, name: &HeaderName, value: HeaderValue) -> Result<()> {
        self.try_append(name.clone(), value)
            .map(drop)
            .or_err(ErrorType::InvalidHTTPHeader, "too many headers")
    }
}

/// Does what `rules` say. Gives the story for the log if the request made a value that no header can hold.
///
/// # Errors
/// If there are more fields than a head holds.
pub fn apply(head: &mut impl Head, rules: &Rules, values: Option<&Values<'_>>) -> Result<Option<String>> {
    let mut unusable = None;
    for step in rules.steps(values) {
        if step.unusable && unusable.is_none() {
            unusable = Some(format!("the value for {} cannot stand in a header: it is not sent", step.name));
        }
        match step.action {
            Action::Remove => head.remove(step.name),
            Action::Set(value) => head.set(step.name, value)?,
            Action::Add(value) => head.add(step.name, value)?,
            Action::Keep => {}
        }
    }
    Ok(unusable)
}
