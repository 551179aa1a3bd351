//! What a route writes under `request` and `response`, and what becomes of it.

use http::header::{self, HeaderName, HeaderValue};
use indexmap::IndexMap;

use super::query::{QueryEdits, QueryRule};
use super::{RequestRules, Rule, Rules, Value};
use crate::base::authority::is_authority;
use crate::base::decode::{Decoder, MapKey, Node, Shape, Size, quote, text_value};
use crate::base::diagnostic::Diagnostics;
use crate::base::origin::At;
use crate::keys;
use crate::policy::envelope::Envelope;
use crate::routing::config::Written;
use crate::routing::template::{Scope, Template};

keys! {
    /// What is changed in a request on its way to the upstream: `remove`, then `set`, then `add`.
    pub struct RequestRaw {
        /// Headers that get this value, in place of the client's. A value may refer to the request: `"{path.id}"`.
        set: RequestHeaders = RequestHeaders::new(),
        /// Headers sent beside those of the same name.
        add: AddedRequestHeaders = AddedRequestHeaders::new(),
        /// Headers that are not passed on.
        remove: Vec<At<RequestName>> = Vec::new(),
        /// The same for parameters of the query.
        query: QueryEditsRaw = QueryEditsRaw::default(),
    }
}

keys! {
    /// Parameters of the query: `remove`, then `set`; the others stay as they came.
    pub struct QueryEditsRaw {
        /// Parameters that get this value, in place of the client's.
        set: IndexMap<String, At<Written>> = IndexMap::new(),
        /// Parameters that are not passed on.
        remove: Vec<At<String>> = Vec::new(),
    }
}

keys! {
    /// What is changed in an answer on its way to the client, the gateway's own included: `remove`, then `set`, then `add`.
    pub struct ResponseRaw {
        /// Headers that get this value, in place of the server's.
        set: ResponseHeaders = ResponseHeaders::new(),
        /// Headers sent beside those of the same name.
        add: ResponseHeaders = ResponseHeaders::new(),
        /// Headers that the client does not get.
        remove: Vec<At<ResponseName>> = Vec::new(),
        /// JSON answers become `{status, data, timestamp, path}`; not the gateway's own errors, nor files.
        envelope: bool = false,
        /// Longest answer put into one: each is kept until it is whole. A longer one is 502.
        envelope_bytes: Size = Size(1 << 20),
    }
}

type RequestHeaders = IndexMap<SetRequestName, At<Written>>;
type AddedRequestHeaders = IndexMap<RequestName, At<Written>>;
type ResponseHeaders = IndexMap<ResponseName, At<Written>>;

impl RequestRaw {
    /// The rules; `None` if there are none. `path` is the configuration path of the table, `scope` what values may
    /// refer to.
    pub fn compile(&self, path: &str, scope: Scope<'_>, out: &mut Diagnostics) -> Option<RequestRules> {
        let mut rules = Rules::default();
        rules.0.extend(self.remove.iter().map(|name| Rule::Remove(name.0.clone())));
        rules.read(&self.set, &format!("{path}.set"), scope, out, |name, value| Rule::Set(name.0, value));
        rules.read(&self.add, &format!("{path}.add"), scope, out, |name, value| Rule::Add(name.0, value));
        let query = self.query.compile(&format!("{path}.query"), scope, out);
        (!rules.0.is_empty() || query.is_some()).then_some(RequestRules { headers: rules, query })
    }
}

impl ResponseRaw {
    /// The rules; `None` if there are none. As [`RequestRaw::compile`].
    pub fn compile(&self, path: &str, scope: Scope<'_>, out: &mut Diagnostics) -> Option<Rules> {
        let mut rules = Rules::default();
        rules.0.extend(self.remove.iter().map(|name| Rule::Remove(name.0.clone())));
        rules.read(&self.set, &format!("{path}.set"), scope, out, |name, value| Rule::Set(name.0, value));
        rules.read(&self.add, &format!("{path}.add"), scope, out, |name, value| Rule::Add(name.0, value));
        (!rules.0.is_empty()).then_some(rules)
    }
}

impl ResponseRaw {
    /// The envelope for JSON answers, if they get one.
    pub fn envelope(&self) -> Option<Envelope> {
        let bytes_max = usize::try_from(self.envelope_bytes.0).unwrap_or(usize::MAX);
        self.envelope.then_some(Envelope { bytes_max })
    }
}

impl Rules {
    fn read<N: MapKey + Clone>(
        &mut self,
        written: &IndexMap<N, At<Written>>,
        path: &str,
        scope: Scope<'_>,
        out: &mut Diagnostics,
        rule: impl Fn(N, Value) -> Rule,
    ) {
        for (name, text) in written {
            let path = format!("{path}.{}", name.as_key());
            if let Some(value) = value(name.as_key(), text, &path, scope, out) {
                self.0.push(rule(name.clone(), value));
            }
        }
    }
}

fn value(
    name: &str,
    written: &At<Written>,
    path: &str,
    scope: Scope<'_>,
    out: &mut Diagnostics,
) -> Option<Value> {
    written.warn_of_variables(&written.origin, path, out);
    let template = match Template::value(written.text(), scope) {
        Ok(template) => template,
        Err(mistake) => {
            written.report(&written.origin, path, mistake, out);
            return None;
        }
    };
    let Some(text) = template.constant() else { return Some(Value::Template(template)) };
    let text = text.trim_matches([' ', '\t']);
    if text.is_empty() {
        out.error("invalid-value", &written.origin, path, "the value is empty")
            .hint(format!("to leave the header out write remove = [{}]", quote(name)));
        return None;
    }
    if name == header::HOST.as_str() && !is_authority(text.as_bytes()) {
        out.error("invalid-value", &written.origin, path, format!("{} is not a host", quote(text)));
        return None;
    }
    // What it could not hold was refused above.
    HeaderValue::from_bytes(text.as_bytes()).ok().map(Value::Constant)
}

impl QueryEditsRaw {
    fn compile(&self, path: &str, scope: Scope<'_>, out: &mut Diagnostics) -> Option<QueryEdits> {
        let mut edits = QueryEdits::default();
        for (index, name) in self.remove.iter().enumerate() {
            if name.is_empty() {
                let path = format!("{path}.remove[{index}]");
                out.error("invalid-value", &name.origin, path, "a parameter has a name");
            }
            edits.remove.push(name.value.as_str().into());
        }
        for (name, written) in self.set.iter() {
            let path = format!("{path}.set.{name}");
            if name.is_empty() {
                out.error("invalid-value", &written.origin, path.as_str(), "a parameter has a name");
            }
            written.warn_of_variables(&written.origin, &path, out);
            match Template::value(written.text(), scope) {
                Ok(template) => edits.set.push(QueryRule { name: name.as_str().into(), value: template }),
                Err(mistake) => written.report(&written.origin, &path, mistake, out),
            }
        }
        (!edits.remove.is_empty() || !edits.set.is_empty()).then_some(edits)
    }
}

/// Headers that say how a message is framed or what holds for one connection: the gateway writes them itself, and who
/// could bring one back could have two readers see two messages (RFC 9110 section 7.6.1).
pub const OF_THE_HOP: &[&str] = &[
    "connection",
    "content-length",
    "expect",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

fn rule_name(text: &str) -> Result<HeaderName, String> {
    let name: HeaderName = text.parse().map_err(|_| "is not a header name".to_owned())?;
    if OF_THE_HOP.contains(&name.as_str()) {
        return Err("belongs to the connection: the gateway sets it itself".to_owned());
    }
    if name.as_str() == "x-request-id" {
        return Err("is the gateway's own: the same in the log, the request and the answer".to_owned());
    }
    Ok(name)
}

fn request_name(text: &str) -> Result<HeaderName, String> {
    match rule_name(text)? {
        name if name == header::HOST => {
            Err("is never added or removed, only set: a request has exactly one".to_owned())
        }
        name => Ok(name),
    }
}

impl RequestName {
    /// The name.
    pub fn name(&self) -> &HeaderName {
        &self.0
    }
}

macro_rules! names {
    ($($(#[doc = $doc:expr])* $name:ident = $read:path;)*) => {$(
        $(#[doc = $doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash)]
        pub struct $name(HeaderName);

        impl MapKey for $name {
            const ANY_CASE: bool = true;

            fn from_key(key: &str) -> Result<Self, String> {
                $read(key).map(Self)
            }

            fn as_key(&self) -> &str {
                self.0.as_str()
            }
        }

        impl crate::base::decode::Value for $name {
            fn shape() -> Shape {
                HeaderName::shape()
            }

            fn decode(node: &Node, cx: &mut Decoder<'_>) -> Option<Self> {
                text_value(node, cx, "a header name", Self::from_key)
            }

            fn render(&self) -> String {
                self.0.render()
            }
        }
    )*};
}

names! {
    /// A header that `request` may set: also `Host`.
    SetRequestName = rule_name;
    /// A header that `request` may add or remove.
    RequestName = request_name;
    /// A header that `response` may change.
    ResponseName = rule_name;
}
