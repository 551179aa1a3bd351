//! Gets key sets of identity providers from the network.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, USER_AGENT};
use http::{Request, StatusCode};
use hyper::body::{Body, Incoming};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::{ClientConfig, RootCertStore};
use tokio::sync::OnceCell;

use crate::base::task;
use crate::identity::jwks::{Document, Fetch, FetchError, JwksUrl, SET_BYTES_MAX, max_age};

/// Longest a connection may take; what remains of the fetch's time is for the answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Fetches over HTTP, with the authorities that the system trusts. Follows no redirect: where keys come from is what the
/// configuration says, not what answers there.
#[derive(Debug, Default)]
pub struct Fetcher {
    /// Made by the first fetch: reading the system's authorities takes a while.
    client: OnceCell<Client<HttpsConnector<HttpConnector>, String>>,
}

impl Fetcher {
    /// One that has fetched nothing.
    pub fn new() -> Self {
        Self::default()
    }

    async fn client(&self) -> Result<&Client<HttpsConnector<HttpConnector>, String>, FetchError> {
        let make = || async {
            let config =
                task::blocking(tls).await.map_err(|error| FetchError::new("connect", error.to_string()))?;
            let mut http = HttpConnector::new();
            http.enforce_http(false);
            http.set_connect_timeout(Some(CONNECT_TIMEOUT));
            let https = HttpsConnectorBuilder::new()
                .with_tls_config(config)
                .https_or_http()
                .enable_http1()
                .wrap_connector(http);
            // Minutes pass between two fetches: no server should keep a connection open for that.
            Ok(Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(https))
        };
        self.client.get_or_try_init(make).await
    }
}

fn tls() -> ClientConfig {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    let (_, ignored) = roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        tracing::warn!(ignored, "this system trusts no authority: key sets cannot be fetched over https");
    }
    ClientConfig::builder().with_root_certificates(Arc::new(roots)).with_no_client_auth()
}

#[async_trait]
impl Fetch for Fetcher {
    async fn fetch(&self, url: &JwksUrl) -> Result<Document, FetchError> {
        let request = Request::get(url.uri().clone())
            .header(ACCEPT, "application/jwk-set+json, application/json")
            .header(USER_AGENT, concat!("edgeward/", env!("CARGO_PKG_VERSION")))
            .body(String::new())
            .map_err(|error| FetchError::new("invalid", error.to_string()))?;
        let answer = self.client().await?.request(request).await;
        let answer = answer.map_err(|error| FetchError::new("connect", causes(&error)))?;
        if answer.status() != StatusCode::OK {
            return Err(FetchError::new("status", format!("answered {}", answer.status().as_u16())));
        }
        let max_age = max_age(answer.headers());
        Ok(Document { body: collect(answer.into_body()).await?, max_age })
    }
}

async fn collect(mut body: Incoming) -> Result<Bytes, FetchError> {
    let mut whole = BytesMut::new();
    while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let frame = frame.map_err(|error| FetchError::new("connect", causes(&error)))?;
        if let Ok(data) = frame.into_data() {
            if whole.len() + data.len() > SET_BYTES_MAX {
                return Err(FetchError::new("too_large", "the answer is larger than 1 MiB"));
            }
            whole.extend_from_slice(&data);
        }
    }
    Ok(whole.freeze())
}

/// An error with what caused it: the outermost says only that something failed.
fn causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
