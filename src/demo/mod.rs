//! The sample services that `edgeward demo` fronts, and its tour.
//!
//! A service is a plain function from request to answer plus a delay; how it is served is not its business. Each can
//! be made slow or failing, and can stop another one and start it again, so that what the gateway does about it can be seen:
//!
//! ```text
//! POST /_demo/slow?ms=3000              every answer takes that much longer
//! POST /_demo/fail?status=503           every answer is that status
//! POST /_demo/heal                      as before
//! POST /_demo/stop?service=products-1   that service is not there any more: who connects is refused
//! POST /_demo/start?service=products-1  it is there again
//! ```

mod mood;
mod records;
mod switches;
pub mod tour;

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::header::{ALLOW, CONTENT_TYPE, LOCATION};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::base::service::PlainService;
use mood::Mood;
pub use records::Kind;
pub use switches::Switches;

/// Records one service keeps. New ones beyond it are refused, so that a loop of POSTs cannot fill the memory.
pub const RECORDS_MAX: usize = 1000;

/// One sample service: users, products, orders or payments.
#[derive(Debug)]
pub struct Sample {
    kind: Kind,
    instance: String,
    records: Mutex<Vec<Value>>,
    mood: Mutex<Mood>,
    others: Switches,
}

impl Sample {
    /// A service with its first records. `instance` is sent with every answer as `x-served-by`, so that one can see
    /// which of several took a request.
    pub fn new(kind: Kind, instance: &str) -> Self {
        let records = Mutex::new(kind.first_records());
        let others = Switches::default();
        Self { kind, instance: instance.to_owned(), records, mood: Mutex::default(), others }
    }

    /// The same, among others that it can stop and start.
    pub fn among(mut self, others: Switches) -> Self {
        self.others = others;
        self
    }

    /// Answers a request at once; [`Sample::delay`] says how long to wait before. Not for orders to other services.
    pub fn respond(&self, request: &Parts, body: &Bytes) -> Response<Bytes> {
        self.signed(self.decide(request, body))
    }

    fn signed(&self, mut response: Response<Bytes>) -> Response<Bytes> {
        if let Ok(instance) = HeaderValue::from_str(&self.instance) {
            response.headers_mut().insert(HeaderName::from_static("x-served-by"), instance);
        }
        response
    }

    /// How long this request is to wait: none but for a service made slow, and never for what heals it.
    pub fn delay(&self, request: &Parts) -> Duration {
        if request.uri.path().starts_with(mood::PREFIX) { Duration::ZERO } else { self.mood.lock().delay() }
    }

    fn decide(&self, request: &Parts, body: &Bytes) -> Response<Bytes> {
        let (method, path) = (&request.method, request.uri.path());
        if let Some(command) = path.strip_prefix(mood::PREFIX) {
            return self.change_mood(method, command, request.uri.query().unwrap_or(""));
        }
        if let Some(status) = self.mood.lock().failure() {
            return answer(status, &json!({ "error": "made to fail", "service": self.instance }));
        }
        if path == "/health" {
            return answer(StatusCode::OK, &json!({ "status": "ok", "service": self.instance }));
        }
        let Some((version, rest)) = self.within_collection(path) else {
            return missing("path");
        };
        let segments: Vec<&str> = rest.split('/').filter(|segment| !segment.is_empty()).collect();
        match (method, segments.as_slice()) {
            (&Method::GET | &Method::HEAD, []) => self.list(version, None),
            (&Method::GET | &Method::HEAD, [id]) => self.find(version, id),
            (&Method::GET | &Method::HEAD, [field, id]) if self.kind.reference() == Some(*field) => {
                self.list(version, Some((field, id)))
            }
            (&Method::POST, []) if self.kind.takes_new_ones() => self.add(body),
            (_, []) if self.kind.takes_new_ones() => not_allowed("GET, HEAD, POST"),
            (_, [] | [_]) => not_allowed("GET, HEAD"),
            _ => missing("path"),
        }
    }

    /// `/v1/users/7` for users is version 1 and `/7`.
    fn within_collection<'a>(&self, path: &'a str) -> Option<(u8, &'a str)> {
        let (version, path) = match path.strip_prefix("/v1/") {
            Some(path) => (1, path),
            None => (2, path.strip_prefix("/v2/")?),
        };
        let rest = path.strip_prefix(self.kind.name())?;
        (rest.is_empty() || rest.starts_with('/')).then_some((version, rest))
    }

    fn list(&self, version: u8, only: Option<(&str, &str)>) -> Response<Bytes> {
        let records = self.records.lock();
        let chosen = records.iter().filter(|record| match only {
            None => true,
            Some((field, id)) => is(record.get(field), id),
        });
        let shown: Vec<Value> = chosen.map(|record| self.kind.show(record, version)).collect();
        answer(StatusCode::OK, &Value::Array(shown))
    }

    fn find(&self, version: u8, id: &str) -> Response<Bytes> {
        let records = self.records.lock();
        match records.iter().find(|record| is(record.get("id"), id)) {
            Some(record) => answer(StatusCode::OK, &self.kind.show(record, version)),
            None => missing(self.kind.name()),
        }
    }

    fn add(&self, body: &Bytes) -> Response<Bytes> {
        let Ok(Value::Object(mut record)) = serde_json::from_slice(body) else {
            return answer(StatusCode::BAD_REQUEST, &json!({ "error": "a JSON object is wanted" }));
        };
        let mut records = self.records.lock();
        if records.len() >= RECORDS_MAX {
            return answer(StatusCode::INSUFFICIENT_STORAGE, &json!({ "error": "there are enough of them" }));
        }
        // Records are never taken away, so their number is the last id.
        let id = records.len() + 1;
        record.shift_remove("id");
        let mut whole = serde_json::Map::new();
        whole.insert("id".to_owned(), json!(id));
        whole.extend(record);
        let whole = Value::Object(whole);
        let mut response = answer(StatusCode::CREATED, &whole);
        if let Ok(place) = HeaderValue::from_str(&format!("/v1/{}/{id}", self.kind.name())) {
            response.headers_mut().insert(LOCATION, place);
        }
        records.push(whole);
        response
    }

    /// Does `stop?service=` or `start?service=`; `None` for any other request.
    async fn order(&self, request: &Parts) -> Option<Response<Bytes>> {
        let on = match request.uri.path().strip_prefix(mood::PREFIX)? {
            "stop" => false,
            "start" => true,
            _ => return None,
        };
        if request.method != Method::POST {
            return Some(not_allowed("POST"));
        }
        let wanted = |pair: &str| pair.strip_prefix("service=").map(str::to_owned);
        let name = request.uri.query().unwrap_or("").split('&').find_map(wanted).unwrap_or_default();
        if name == self.instance {
            let wrong = "it cannot do that to itself: tell another one";
            return Some(answer(StatusCode::BAD_REQUEST, &json!({ "error": wrong })));
        }
        Some(match self.others.find(&name) {
            None => {
                let wrong = format!("{name:?} is none of {}", self.others.names());
                answer(StatusCode::BAD_REQUEST, &json!({ "error": wrong }))
            }
            Some(switch) => match switch.turn(on).await {
                Ok(()) => {
                    let now = if on { "running" } else { "stopped" };
                    answer(StatusCode::OK, &json!({ "service": name, "now": now }))
                }
                Err(why) => answer(StatusCode::INTERNAL_SERVER_ERROR, &json!({ "error": why })),
            },
        })
    }

    fn change_mood(&self, method: &Method, command: &str, query: &str) -> Response<Bytes> {
        if method != Method::POST {
            return not_allowed("POST");
        }
        match self.mood.lock().change(command, query) {
            Ok(now) => answer(StatusCode::OK, &json!({ "service": self.instance, "now": now })),
            Err(wrong) => answer(StatusCode::BAD_REQUEST, &json!({ "error": wrong })),
        }
    }
}

impl PlainService for Sample {
    fn call(&self, request: Request<Bytes>) -> BoxFuture<'_, Response<Bytes>> {
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            if let Some(response) = self.order(&parts).await {
                return self.signed(response);
            }
            let delay = self.delay(&parts);
            if !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            self.respond(&parts, &body)
        })
    }
}

/// Whether `value` is the number that a path says.
fn is(value: Option<&Value>, id: &str) -> bool {
    id.parse::<u64>().is_ok_and(|id| value.and_then(Value::as_u64) == Some(id))
}

fn answer(status: StatusCode, body: &Value) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(format!("{body}\n")));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn missing(what: &str) -> Response<Bytes> {
    answer(StatusCode::NOT_FOUND, &json!({ "error": format!("not found: {what}") }))
}

fn not_allowed(allow: &'static str) -> Response<Bytes> {
    let mut response = answer(StatusCode::METHOD_NOT_ALLOWED, &json!({ "error": "method not allowed" }));
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
    response
}

#[cfg(test)]
mod tests;
