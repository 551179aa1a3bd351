//! What an expression sees of a request: only what it refers to.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use cel::Value;
use cel::objects::{Key, Map};
use http::HeaderName;

use super::Failed;
use super::survey::{Root, Use};
use crate::routing::escape::{decode_query, decode_segment, query_pairs};
use crate::routing::predicate::{all_cookies, cookie_values, query_values};
use crate::routing::template::{CONSUMER_FIELDS, CertField, REQUEST_FIELDS, Values};

/// Values an expression may look at for one request.
const VALUES_MAX: usize = 1024;

/// What is left of that.
pub(super) struct Budget(usize);

impl Default for Budget {
    fn default() -> Self {
        Self(VALUES_MAX)
    }
}

impl Budget {
    fn take(&mut self) -> Result<(), Failed> {
        self.0 = self
            .0
            .checked_sub(1)
            .ok_or_else(|| Failed::new(format!("there are more than {VALUES_MAX} values to look at")))?;
        Ok(())
    }
}

/// The value of a source, with the fields that are asked for.
pub(super) fn of(used: &Use, values: &Values<'_>, budget: &mut Budget) -> Result<Value, Failed> {
    let mut made = Made { map: HashMap::new(), budget };
    let named = used.fields.as_deref();
    match used.root {
        Root::Path => {
            for (name, index) in named.unwrap_or_default().iter().zip(&used.captures) {
                if let Some(text) = values.captures.get(values.request.path, *index) {
                    made.text(name, &decode_segment(text))?;
                }
            }
        }
        Root::Query => match named {
            Some(names) => {
                for name in names {
                    if let Some(value) = query_values(values.request.query, name).next() {
                        made.text(name, &decode_query(value))?;
                    }
                }
            }
            None => {
                for (name, value) in query_pairs(values.request.query.unwrap_or_default()) {
                    // The first counts, as in templates.
                    made.text_once(&String::from_utf8_lossy(&decode_query(name)), &decode_query(value))?;
                }
            }
        },
        Root::Header => match named {
            Some(names) => {
                for name in names {
                    let known = HeaderName::from_bytes(name.as_bytes());
                    if let Some(value) = known.ok().and_then(|name| header(values, &name)) {
                        made.text(name, &value)?;
                    }
                }
            }
            None => {
                for name in values.request.headers.keys() {
                    if let Some(value) = header(values, name) {
                        made.text(name.as_str(), &value)?;
                    }
                }
            }
        },
        Root::Cookie => match named {
            Some(names) => {
                for name in names {
                    if let Some(value) = cookie_values(values.request.headers, name).next() {
                        made.text(name, value)?;
                    }
                }
            }
            None => {
                for (name, value) in all_cookies(values.request.headers) {
                    made.text_once(&String::from_utf8_lossy(name), value)?;
                }
            }
        },
        Root::Client => {
            if let Some(client) = values.client.filter(|_| wanted(named, "ip")) {
                made.text("ip", client.to_string().as_bytes())?;
            }
            if let Some(cert) = values.client_cert.filter(|_| wanted(named, "cert")) {
                let mut fields = Made { map: HashMap::new(), budget: &mut *made.budget };
                for (name, field) in
                    CertField::NAMES.iter().filter_map(|name| Some((name, CertField::named(name)?)))
                {
                    if let Some(value) = field.of(cert) {
                        fields.text(name, value.as_bytes())?;
                    }
                }
                let fields = fields.done();
                made.map.insert(key("cert"), fields);
            }
        }
        Root::Request => {
            for name in REQUEST_FIELDS.iter().filter(|name| wanted(named, name)) {
                if let Some(value) = values.of_request(name) {
                    made.text(name, &value)?;
                }
            }
        }
        Root::Jwt => {
            let Some(claims) = values.who.claims else { return Ok(Value::Null) };
            match named {
                Some(names) => {
                    for (name, claim) in names.iter().filter_map(|name| Some((name, claims.get(&**name)?))) {
                        let value = json(claim, made.budget)?;
                        made.map.insert(key(name), value);
                    }
                }
                None => {
                    for (name, claim) in claims {
                        let value = json(claim, made.budget)?;
                        made.map.insert(key(name), value);
                    }
                }
            }
        }
        Root::Consumer => {
            let Some(consumer) = values.who.consumer else { return Ok(Value::Null) };
            for name in CONSUMER_FIELDS.iter().filter(|name| wanted(named, name)) {
                match *name {
                    "name" => made.text(name, consumer.name.as_bytes())?,
                    "groups" => {
                        let mut groups = Vec::with_capacity(consumer.groups.len());
                        for group in consumer.groups {
                            made.budget.take()?;
                            groups.push(string(group.as_bytes()));
                        }
                        made.map.insert(key(name), Value::List(Arc::new(groups)));
                    }
                    _ => {
                        if let Some(plan) = consumer.plan {
                            made.text(name, plan.as_bytes())?;
                        }
                    }
                }
            }
        }
    }
    Ok(made.done())
}

fn wanted(named: Option<&[Box<str>]>, name: &str) -> bool {
    named.is_none_or(|named| named.iter().any(|wanted| **wanted == *name))
}

/// Several lines of one name are one list (RFC 9110 section 5.3).
fn header<'v>(values: &Values<'v>, name: &HeaderName) -> Option<Cow<'v, [u8]>> {
    let mut lines = values.request.headers.get_all(name).iter();
    let first = lines.next()?.as_bytes();
    let mut joined = Cow::Borrowed(first);
    for line in lines {
        let joined = joined.to_mut();
        joined.extend_from_slice(b", ");
        joined.extend_from_slice(line.as_bytes());
    }
    Some(joined)
}

struct Made<'b> {
    map: HashMap<Key, Value>,
    budget: &'b mut Budget,
}

impl Made<'_> {
    fn text(&mut self, name: &str, value: &[u8]) -> Result<(), Failed> {
        self.budget.take()?;
        self.map.insert(key(name), string(value));
        Ok(())
    }

    fn text_once(&mut self, name: &str, value: &[u8]) -> Result<(), Failed> {
        self.budget.take()?;
        self.map.entry(key(name)).or_insert_with(|| string(value));
        Ok(())
    }

    fn done(self) -> Value {
        Value::Map(Map { map: Arc::new(self.map) })
    }
}

fn key(name: &str) -> Key {
    Key::String(Arc::new(name.to_owned()))
}

/// Bytes that are no text have none of an operator's texts in them: what stands for them is in none of those either.
fn string(value: &[u8]) -> Value {
    Value::String(Arc::new(String::from_utf8_lossy(value).into_owned()))
}

/// As deep as the parser of tokens let it be.
fn json(value: &serde_json::Value, budget: &mut Budget) -> Result<Value, Failed> {
    budget.take()?;
    Ok(match value {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Bool(value) => Value::Bool(*value),
        serde_json::Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(value), _) => Value::Int(value),
            (None, Some(value)) => Value::UInt(value),
            (None, None) => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        serde_json::Value::String(text) => string(text.as_bytes()),
        serde_json::Value::Array(elements) => {
            let mut list = Vec::with_capacity(elements.len().min(VALUES_MAX));
            for element in elements {
                list.push(json(element, budget)?);
            }
            Value::List(Arc::new(list))
        }
        serde_json::Value::Object(members) => {
            let mut map = HashMap::with_capacity(members.len().min(VALUES_MAX));
            for (name, member) in members {
                map.insert(key(name), json(member, budget)?);
            }
            Value::Map(Map { map: Arc::new(map) })
        }
    })
}
