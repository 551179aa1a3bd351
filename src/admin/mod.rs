//! Control plane: what the admin listener answers. Plain `http` types; knows neither the proxy nor Pingora.

mod api;
mod health;

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};

pub use api::{Api, Parts};
pub use health::{Check, Health};

use crate::base::service::PlainService;
use crate::telemetry::metrics::Metrics;

/// The admin listener's answers: `/livez`, `/readyz`, `/metrics`, and the API below `/api/`.
#[derive(Debug)]
pub struct Admin {
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    api: Option<Api>,
}

impl Admin {
    /// Answers from the process's own state.
    pub fn new(health: Arc<Health>, metrics: Arc<Metrics>) -> Self {
        Self { health, metrics, api: None }
    }

    /// Answers calls of the API as well.
    pub fn with_api(self, api: Api) -> Self {
        Self { api: Some(api), ..self }
    }

    /// Whether the host that is asked is this one: its address, `localhost`, or a name of the configuration.
    fn is_asked(&self, request: &Request<Bytes>) -> bool {
        host_is_local(request, |name| self.api.as_ref().is_some_and(|api| api.is_called(name)))
    }

    fn answer(&self, request: &Request<Bytes>) -> Response<Bytes> {
        // A page of another origin that resolves its own name to loopback (DNS rebinding) carries that name in `Host`.
        if !self.is_asked(request) {
            return text(
                StatusCode::MISDIRECTED_REQUEST,
                "ask by IP address, as localhost, or by one of admin.names\n",
            );
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        let verbose = request
            .uri()
            .query()
            .is_some_and(|query| query.split('&').any(|part| part.starts_with("verbose")));
        match request.uri().path() {
            // Alive while it answers: it depends on nothing else (a dead backend must not restart the gateway).
            "/livez" => text(StatusCode::OK, "ok\n"),
            "/readyz" | "/health" => self.ready(verbose),
            "/metrics" => self.exposition(request),
            "/" => text(StatusCode::OK, "/livez\n/readyz\n/readyz?verbose\n/metrics\n/api/v1/openapi.json\n"),
            _ => text(StatusCode::NOT_FOUND, "there is /livez, /readyz?verbose and /metrics\n"),
        }
    }

    fn ready(&self, verbose: bool) -> Response<Bytes> {
        let (ready, report) = self.health.report();
        let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        if verbose {
            return text(status, report);
        }
        text(status, if ready { "ok\n" } else { "not ready\n" })
    }

    fn exposition(&self, request: &Request<Bytes>) -> Response<Bytes> {
        let accept =
            request.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("");
        let openmetrics = accept.contains("application/openmetrics-text");
        let content_type = if openmetrics {
            "application/openmetrics-text; version=1.0.0; charset=utf-8"
        } else {
            "text/plain; version=0.0.4; charset=utf-8"
        };
        let mut response = text(StatusCode::OK, self.metrics.render(openmetrics));
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        response
    }
}

impl PlainService for Admin {
    fn call(&self, request: Request<Bytes>) -> BoxFuture<'_, Response<Bytes>> {
        Box::pin(async move {
            match &self.api {
                Some(api) if request.uri().path().starts_with(api::BASE) && self.is_asked(&request) => {
                    api.answer(&request).await
                }
                _ => self.answer(&request),
            }
        })
    }
}

fn host_is_local(request: &Request<Bytes>, is_called: impl Fn(&str) -> bool) -> bool {
    let host = match request.uri().authority() {
        Some(authority) => authority.as_str(),
        None => match request.headers().get(header::HOST).map(HeaderValue::to_str) {
            Some(Ok(host)) => host,
            Some(Err(_)) => return false,
            // HTTP/1.0 probes send none; no browser does that.
            None => return true,
        },
    };
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(""),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok() || is_called(name)
}

fn text(status: StatusCode, body: impl Into<String>) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(uri: &str, host: Option<&str>) -> Request<Bytes> {
        let mut request = Request::new(Bytes::new());
        *request.uri_mut() = uri.parse().unwrap();
        if let Some(host) = host {
            request.headers_mut().insert(header::HOST, HeaderValue::from_str(host).unwrap());
        }
        request
    }

    fn admin(ready: bool) -> Admin {
        let check: Check = Box::new(move || (ready, "configuration".to_owned(), "generation 1".to_owned()));
        Admin::new(Arc::new(Health::new(vec![check])), Metrics::new())
    }

    /// A browser page that rebinds its name to 127.0.0.1 gets nothing.
    #[test]
    fn a_foreign_host_is_misdirected() {
        let admin = admin(true);
        assert_eq!(admin.answer(&get("/metrics", Some("evil.example:9901"))).status(), 421);
        for host in ["127.0.0.1:9901", "localhost:9901", "LOCALHOST", "[::1]:9901"] {
            assert_eq!(admin.answer(&get("/livez", Some(host))).status(), 200, "{host}");
        }
        assert_eq!(admin.answer(&get("/livez", None)).status(), 200);
    }

    #[test]
    fn readiness_follows_its_checks_and_liveness_does_not() {
        let admin = admin(false);
        assert_eq!(admin.answer(&get("/livez", None)).status(), 200);
        assert_eq!(admin.answer(&get("/readyz", None)).status(), 503);
        let verbose = admin.answer(&get("/readyz?verbose", None));
        assert_eq!(verbose.status(), 503);
        assert!(std::str::from_utf8(verbose.body()).unwrap().contains("[-] configuration: generation 1"));
    }
}
