//! The Admin API: `/api/v1/…`. JSON in and out, problems as RFC 9457 has them.
//!
//! Whoever has the token may change services, and so send requests anywhere that the gateway can reach. Without a token in
//! the configuration it only tells. Every change is logged with the address it came from.

mod guard;
mod openapi;
mod reply;
mod services;

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Method, Request, Response, StatusCode};
use tokio::sync::Semaphore;

use self::guard::Guard;
use self::reply::{Answer, Refusal, json};
use crate::config::Loaded;
use crate::config::snapshot::Current;
use crate::store::{self, Store};

/// Where it begins.
pub(super) const BASE: &str = "/api/";
/// Services judged at once: each compiles the configuration on a thread of its own.
const JUDGED_MAX: usize = 2;
/// Calls that read services from the store at once: who follows its changes has few places there, and keeps them.
const READ_MAX: usize = 1;

/// What the process lends the API.
pub struct Parts {
    /// The configuration in force.
    pub current: Arc<Current>,
    /// Where services are, if they are served.
    pub store: Option<Store>,
    /// The files of the configuration in force, where services stand beside them.
    pub loaded: Box<dyn Fn() -> Option<Arc<Loaded>> + Send + Sync>,
    /// Returns when what stands in the store is served.
    pub catch_up: Box<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>,
    /// Why services could not be read last.
    pub failure: Box<dyn Fn() -> Option<String> + Send + Sync>,
}

/// The Admin API of a process.
pub struct Api {
    parts: Parts,
    guard: Guard,
    judged: Semaphore,
    read: Semaphore,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Api")
    }
}

/// What can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Resource<'a> {
    Services,
    Service(&'a str),
    Check,
    Status,
    Document,
}

/// All there is: paths as the document has them, and their methods. HEAD is where GET is.
const ROUTES: &[(&str, &[&str])] = &[
    ("/api/v1/services", &["GET", "POST"]),
    ("/api/v1/services/check", &["POST"]),
    ("/api/v1/services/{name}", &["GET", "PUT", "DELETE"]),
    ("/api/v1/status", &["GET"]),
    ("/api/v1/openapi.json", &["GET"]),
];

impl Resource<'_> {
    /// What `path` asks for by `method`. `check` is a service as well, but for POST.
    fn at<'p>(path: &'p str, method: &Method) -> Option<Resource<'p>> {
        let rest = path.strip_prefix("/api/v1/")?;
        Some(match rest {
            "services" => Resource::Services,
            "services/check" if *method == Method::POST => Resource::Check,
            "status" => Resource::Status,
            "openapi.json" => Resource::Document,
            _ => {
                let name = rest.strip_prefix("services/")?;
                Some(name).filter(|name| !name.is_empty() && !name.contains('/')).map(Resource::Service)?
            }
        })
    }

    fn methods(self) -> &'static [&'static str] {
        let path = match self {
            Self::Services => "/api/v1/services",
            Self::Service(_) => "/api/v1/services/{name}",
            Self::Check => "/api/v1/services/check",
            Self::Status => "/api/v1/status",
            Self::Document => "/api/v1/openapi.json",
        };
        ROUTES.iter().find(|(known, _)| *known == path).map_or(&[], |(_, methods)| methods)
    }
}

impl Api {
    /// The API of a process of these parts.
    pub fn new(parts: Parts) -> Self {
        let (judged, read) = (Semaphore::new(JUDGED_MAX), Semaphore::new(READ_MAX));
        Self { parts, guard: Guard::default(), judged, read }
    }

    /// Whether the configuration calls the listener so.
    pub(super) fn is_called(&self, name: &str) -> bool {
        let snapshot = self.parts.current.load();
        snapshot.admin.as_ref().is_some_and(|admin| admin.names.contains(&name.to_ascii_lowercase()))
    }

    /// Answers a request below [`BASE`].
    pub(super) async fn answer(&self, request: &Request<Bytes>) -> Response<Bytes> {
        match self.try_answer(request).await {
            Ok(response) => response,
            Err(refusal) => refusal.response(),
        }
    }

    async fn try_answer(&self, request: &Request<Bytes>) -> Answer {
        let asks = matches!(*request.method(), Method::GET | Method::HEAD);
        {
            let snapshot = self.parts.current.load();
            let token = snapshot.admin.as_ref().and_then(|admin| admin.token.as_ref());
            self.guard.check(token, request.headers(), asks)?;
        }
        let Some(resource) = Resource::at(request.uri().path(), request.method()) else {
            return Err(Refusal::new(StatusCode::NOT_FOUND, "not_found", "there is nothing of this path"));
        };
        let methods = resource.methods();
        let method = if *request.method() == Method::HEAD { "GET" } else { request.method().as_str() };
        if !methods.contains(&method) {
            let allow = methods.join(", ");
            let refusal = Refusal::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                format!("there is {allow}"),
            );
            return Err(refusal.header(http::header::ALLOW, &allow));
        }
        match (resource, method) {
            (Resource::Status, _) => Ok(json(StatusCode::OK, &self.status())),
            (Resource::Document, _) => Ok(json(StatusCode::OK, &openapi::document())),
            (Resource::Services, "GET") => self.list().await,
            (Resource::Services, _) => self.add(request).await,
            (Resource::Check, _) => self.check(request).await,
            (Resource::Service(name), "GET") => self.show(name).await,
            (Resource::Service(name), "PUT") => self.replace(name, request).await,
            (Resource::Service(name), _) => self.remove(name, request).await,
        }
    }

    fn status(&self) -> serde_json::Value {
        let snapshot = self.parts.current.load();
        let report = &snapshot.services;
        let store = snapshot.store.as_ref().map(|store| match store.health() {
            store::Health::Unknown => serde_json::json!({ "state": "unknown" }),
            store::Health::Up => serde_json::json!({ "state": "up" }),
            store::Health::Down { error, .. } => serde_json::json!({ "state": "down", "error": error }),
        });
        serde_json::json!({
            "version": env!("CARGO_PKG_VERSION"),
            "generation": snapshot.generation,
            "routes": snapshot.routes.len(),
            "store": store,
            "services": self.parts.store.as_ref().map(|_| serde_json::json!({
                "number": report.number,
                "served": report.applied,
                "disabled": report.disabled,
                "left_out": report.left_out,
                "warnings": report.warnings,
                "failure": (self.parts.failure)(),
            })),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The document tells of what there is, and of nothing else.
    #[test]
    fn the_document_has_the_routes_that_exist() {
        let document = openapi::document();
        let mut told = BTreeSet::new();
        for (path, methods) in document["paths"].as_object().unwrap() {
            for method in methods.as_object().unwrap().keys().filter(|key| *key != "parameters") {
                told.insert((path.clone(), method.to_uppercase()));
            }
        }
        let there = ROUTES.iter().flat_map(|(path, methods)| {
            methods.iter().map(|method| ((*path).to_owned(), (*method).to_owned()))
        });
        assert_eq!(told, there.collect());
        for (path, method) in &told {
            let path = path.replace("{name}", "x");
            let resource = Resource::at(&path, &Method::from_bytes(method.as_bytes()).unwrap()).unwrap();
            assert!(resource.methods().contains(&method.as_str()), "{method} {path}");
        }
        let text = document.to_string();
        for reference in text.split("\"$ref\":\"#").skip(1) {
            let pointer = reference.split('"').next().unwrap();
            assert!(document.pointer(pointer).is_some(), "{pointer} is nowhere");
        }
    }

    #[test]
    fn a_service_may_be_called_check() {
        assert_eq!(Resource::at("/api/v1/services/check", &Method::POST), Some(Resource::Check));
        assert_eq!(Resource::at("/api/v1/services/check", &Method::GET), Some(Resource::Service("check")));
        for nothing in ["/api/v1/services/", "/api/v1/services/a/b", "/api/v2/status", "/api/v1/"] {
            assert_eq!(Resource::at(nothing, &Method::GET), None, "{nothing}");
        }
    }
}
