//! `/api/v1/services`.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode, header};
use serde_json::{Value, json};

use super::Api;
use super::reply::{Answer, Refusal, json as reply};
use crate::base::service::Peer;
use crate::base::{clock, task};
use crate::config::services::{ByName, Problem, fingerprint, json_of, judge, row_of};
use crate::config::{self, Loaded};
use crate::store::{ServiceRow, Services, Store};

/// How often a service is judged anew because somebody else changed one meanwhile.
const TRIES_MAX: usize = 8;

/// What a change may find in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Nothing.
    Free,
    /// Anything, or only what the request's conditions say.
    Any,
}

impl Api {
    pub(super) async fn list(&self) -> Answer {
        let services = self.services(self.store()?).await?;
        let report = self.parts.current.load().services.clone();
        // Ten thousand of them take a while to be read and written: not here, where signals wait.
        let listed = task::blocking(move || {
            let states = report.by_name();
            let shown: Vec<Value> = services.rows.iter().map(|row| shown(row, &states)).collect();
            reply(StatusCode::OK, &json!({ "number": services.number, "services": shown }))
        });
        listed
            .await
            .map_err(|error| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "not_listed", error.to_string()))
    }

    pub(super) async fn show(&self, name: &str) -> Answer {
        let services = self.services(self.store()?).await?;
        let report = self.parts.current.load().services.clone();
        let row = find(&services, name).ok_or_else(|| missing(name))?;
        Ok(tagged(reply(StatusCode::OK, &shown(row, &report.by_name())), row))
    }

    pub(super) async fn add(&self, request: &Request<Bytes>) -> Answer {
        let json = body(request)?;
        self.put(json, Place::Free, request).await
    }

    pub(super) async fn replace(&self, name: &str, request: &Request<Bytes>) -> Answer {
        let mut json = body(request)?;
        if let Some(object) = json.as_object_mut() {
            let named = object.entry("name").or_insert_with(|| name.into());
            if named.as_str() != Some(name) {
                let detail = "the name in the body is not that of the path; a service cannot be renamed";
                return Err(Refusal::new(StatusCode::BAD_REQUEST, "name_differs", detail));
            }
        }
        self.put(json, Place::Any, request).await
    }

    /// What a change would come to; nothing is written.
    pub(super) async fn check(&self, request: &Request<Bytes>) -> Answer {
        let (store, loaded) = (self.store()?, self.loaded()?);
        let row = row_of(&body(request)?, &loaded, clock::unix_now()).map_err(Refusal::invalid)?;
        let services = self.services(store).await?;
        let warnings = self.judge(loaded, services, row.clone()).await?;
        Ok(reply(StatusCode::OK, &json!({ "name": row.name, "ok": true, "warnings": warnings })))
    }

    pub(super) async fn remove(&self, name: &str, request: &Request<Bytes>) -> Answer {
        let store = self.store()?;
        for _try in 0..TRIES_MAX {
            let services = self.services(store).await?;
            let row = find(&services, name).ok_or_else(|| missing(name))?;
            conditions(request, Some(row))?;
            match store.remove_service(name, Some(services.number)).await? {
                None => continue,
                Some(false) => return Err(missing(name)),
                Some(true) => {}
            }
            tracing::info!(peer = peer(request), service = name, "service removed by the API");
            self.catch_up(name).await;
            let mut response = Response::new(Bytes::new());
            *response.status_mut() = StatusCode::NO_CONTENT;
            return Ok(response);
        }
        Err(busy())
    }

    /// Judges and writes. What was judged beside services that have changed meanwhile is judged again.
    async fn put(&self, json: Value, place: Place, request: &Request<Bytes>) -> Answer {
        let store = self.store()?;
        for _try in 0..TRIES_MAX {
            let loaded = self.loaded()?;
            let row = row_of(&json, &loaded, clock::unix_now()).map_err(Refusal::invalid)?;
            let services = self.services(store).await?;
            let known = find(&services, &row.name);
            match place {
                Place::Free if known.is_some() => {
                    let detail = format!("there is a service {:?} already", row.name);
                    return Err(Refusal::new(StatusCode::CONFLICT, "service_exists", detail));
                }
                Place::Free => {}
                Place::Any => conditions(request, known)?,
            }
            let is_new = known.is_none();
            let number = services.number;
            let warnings = self.judge(loaded, services, row.clone()).await?;
            if !store.put_service(&row, number).await? {
                continue;
            }
            let what = if is_new { "added" } else { "replaced" };
            tracing::info!(peer = peer(request), service = row.name, "service {what} by the API");
            let applied = self.catch_up(&row.name).await;
            let report = self.parts.current.load().services.clone();
            let mut value = shown(&row, &report.by_name());
            if let Some(value) = value.as_object_mut() {
                value.insert("warnings".to_owned(), json!(warnings));
                value.insert("applied".to_owned(), applied.into());
            }
            let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
            let mut response = tagged(reply(status, &value), &row);
            let location = HeaderValue::from_str(&format!("/api/v1/services/{}", row.name));
            if let (true, Ok(location)) = (is_new, location) {
                response.headers_mut().insert(header::LOCATION, location);
            }
            return Ok(response);
        }
        Err(busy())
    }

    /// The warnings; errors refuse.
    async fn judge(
        &self,
        loaded: Arc<Loaded>,
        services: Services,
        row: ServiceRow,
    ) -> Result<Vec<Problem>, Refusal> {
        // Never closed. Those who wait are as many as connections may be, each for a fraction of a second.
        let _place = self.judged.acquire().await;
        let judged = task::blocking(move || judge(&loaded, &services, &row, config::surroundings())).await;
        let failed = |detail: String| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "not_judged", detail);
        let verdict = judged.map_err(|error| failed(error.to_string()))?.map_err(failed)?;
        if verdict.errors.is_empty() { Ok(verdict.warnings) } else { Err(Refusal::invalid(verdict.errors)) }
    }

    /// Whether this process serves what stands in the store by now. If not, it will: the follower tries again.
    async fn catch_up(&self, name: &str) -> bool {
        match (self.parts.catch_up)().await {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(service = name, error, "a change of the API is not served yet");
                false
            }
        }
    }

    /// All services, as they stand in the store.
    async fn services(&self, store: &Store) -> Result<Services, Refusal> {
        // Never closed. Each of those who wait has the time of its request.
        let _place = self.read.acquire().await;
        Ok(store.services().await?)
    }

    fn store(&self) -> Result<&Store, Refusal> {
        self.parts.store.as_ref().ok_or_else(|| {
            let detail =
                "services are not served: the configuration does not say `services = true` in [store]";
            Refusal::new(StatusCode::NOT_FOUND, "no_services", detail)
        })
    }

    fn loaded(&self) -> Result<Arc<Loaded>, Refusal> {
        (self.parts.loaded)().ok_or_else(|| {
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "not_ready", "the configuration is not known yet")
        })
    }
}

fn find<'s>(services: &'s Services, name: &str) -> Option<&'s ServiceRow> {
    services.rows.iter().find(|row| row.name == name)
}

fn missing(name: &str) -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, "no_such_service", format!("there is no service {name:?}"))
}

fn busy() -> Refusal {
    let detail = "others change services all the time: nothing was written";
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "busy", detail).header(header::RETRY_AFTER, "1")
}

fn peer(request: &Request<Bytes>) -> &str {
    request.extensions().get::<Peer>().map_or("unknown", |peer| peer.0.as_str())
}

/// The body, which is JSON and says so: a form of another page's could not.
fn body(request: &Request<Bytes>) -> Result<Value, Refusal> {
    let media =
        request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let media = media.split(';').next().unwrap_or("").trim();
    if !media.eq_ignore_ascii_case("application/json") {
        let refusal =
            Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "not_json", "the body must be application/json");
        return Err(refusal.header(header::ACCEPT, "application/json"));
    }
    serde_json::from_slice(request.body()).map_err(|error| {
        Refusal::new(StatusCode::BAD_REQUEST, "syntax", format!("the body is not JSON: {error}"))
    })
}

/// `If-Match` and `If-None-Match` of a change (RFC 9110 section 13.1), for clients that must not undo another's.
fn conditions(request: &Request<Bytes>, known: Option<&ServiceRow>) -> Result<(), Refusal> {
    let failed = |detail: &str| Refusal::new(StatusCode::PRECONDITION_FAILED, "changed_meanwhile", detail);
    let names = |header: HeaderName| {
        let values = request.headers().get_all(header).iter().filter_map(|value| value.to_str().ok());
        let tags: Vec<String> =
            values.flat_map(|value| value.split(',')).map(|tag| tag.trim().to_owned()).collect();
        Some(tags).filter(|tags| !tags.is_empty())
    };
    let matches = |tags: &[String]| {
        known.is_some_and(|row| {
            let own = tag(row);
            tags.iter().any(|tag| tag == "*" || *tag == own)
        })
    };
    if names(header::IF_MATCH).is_some_and(|tags| !matches(&tags)) {
        return Err(failed("the service is not what If-Match says"));
    }
    if names(header::IF_NONE_MATCH).is_some_and(|tags| matches(&tags)) {
        return Err(failed("there is what If-None-Match excludes"));
    }
    Ok(())
}

fn tag(row: &ServiceRow) -> String {
    format!("\"{}\"", fingerprint(row))
}

fn tagged(mut response: Response<Bytes>, row: &ServiceRow) -> Response<Bytes> {
    if let Ok(tag) = HeaderValue::from_str(&tag(row)) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

/// A service with what becomes of it.
fn shown(row: &ServiceRow, states: &ByName<'_>) -> Value {
    let problems = states.left_out.get(&*row.name).map(|left| &left.problems).filter(|_| row.enabled);
    let state = match problems {
        _ if !row.enabled => "disabled",
        Some(_) => "left_out",
        None if states.applied.contains(&*row.name) => "served",
        None => "pending",
    };
    let mut value = json_of(row);
    if let Some(value) = value.as_object_mut() {
        value.insert("state".to_owned(), state.into());
        if let Some(problems) = problems {
            value.insert("problems".to_owned(), json!(problems));
        }
    }
    value
}
