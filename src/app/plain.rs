//! Plain services beside the gateway, on the control plane: the admin listener, and the samples of the demo, which are
//! stopped and started while the process runs.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::lifecycle::QUIT_LINGER;
use crate::base::origin::Origin;
use crate::base::service::{PlainService, Turn};
use crate::base::task;
use crate::config::snapshot::{BindAddress, Limits, Listener};
use crate::ingress::connection::Connections;
use crate::ingress::listen::{BindError, Bound};
use crate::ingress::plain::Plain;
use crate::ingress::{self, Edge, Rules};
use crate::telemetry::metrics::Metrics;

/// Connections of each service: kept apart from those of the gateway.
const CONNECTIONS_MAX: usize = 512;
/// How long a service that is stopped may take for what it answers at the moment.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// Serves the admin listener until another process has the socket or this one ends: `/readyz` must answer while it
/// drains.
pub(super) fn serve_admin(
    bound: Bound,
    admin: Arc<dyn PlainService>,
    metrics: &Arc<Metrics>,
    draining: &watch::Receiver<bool>,
    handed_over: &watch::Receiver<bool>,
) {
    let connections = Arc::new(Connections::default());
    connections.linger_for(QUIT_LINGER);
    drop(spawn(bound, edge("admin", admin, metrics, connections, draining.clone()), handed_over.clone()));
}

/// A sample: a plain service that can be stopped and started.
pub(super) struct Sample {
    name: String,
    /// With the port, also where the configuration left that to the system.
    address: SocketAddr,
    bound: Bound,
    service: Arc<dyn PlainService>,
    turns: mpsc::Receiver<Turn>,
}

impl std::fmt::Debug for Sample {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sample").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Sample {
    pub(super) fn bind(
        name: &str,
        address: SocketAddr,
        service: Arc<dyn PlainService>,
        turns: mpsc::Receiver<Turn>,
    ) -> Result<Self, BindError> {
        let bound = Bound::bind(&BindAddress::Tcp(address))?;
        let address = SocketAddr::new(address.ip(), bound.port());
        Ok(Self { name: name.to_owned(), address, bound, service, turns })
    }

    /// As printed at start.
    pub(super) fn describe(&self) -> String {
        format!("sample {} http://{}\n", self.name, self.address)
    }

    /// Serves it whenever it is on, to the end of the process. Stopped, it has no socket, as a service that is not there:
    /// who connects is refused.
    pub(super) async fn run(self, metrics: Arc<Metrics>) {
        let Self { name, address, bound, service, mut turns } = self;
        let serve = |bound| Serving::begin(bound, &name, service.clone(), &metrics);
        let mut serving = Some(serve(bound));
        while let Some(turn) = turns.recv().await {
            let done = match (turn.on, serving.take()) {
                (true, None) => Bound::bind(&BindAddress::Tcp(address)).map(|bound| Some(serve(bound))),
                (false, Some(now)) => {
                    now.end().await;
                    Ok(None)
                }
                (_, unchanged) => Ok(unchanged),
            };
            let told = match done {
                Ok(now) => {
                    serving = now;
                    Ok(())
                }
                Err(error) => Err(error.to_string()),
            };
            // Whoever asked may have left.
            turn.done.send(told).unwrap_or_default();
        }
        // Nobody can stop it any more.
        if let Some(Serving { accepting, stop: _kept, .. }) = serving {
            drop(accepting.await);
        }
    }
}

/// A service that is served.
struct Serving {
    accepting: JoinHandle<()>,
    connections: Arc<Connections>,
    stop: watch::Sender<bool>,
}

impl Serving {
    fn begin(bound: Bound, name: &str, service: Arc<dyn PlainService>, metrics: &Arc<Metrics>) -> Self {
        let (stop, stopped) = watch::channel(false);
        let connections = Arc::new(Connections::default());
        let edge = edge(name, service, metrics, connections.clone(), stopped.clone());
        Self { accepting: spawn(bound, edge, stopped), connections, stop }
    }

    /// Closes its socket and its idle connections at once, the others after their answer.
    async fn end(self) {
        self.stop.send_replace(true);
        drop(self.accepting.await);
        // The answer may take longer; then it is given all the same.
        drop(tokio::time::timeout(STOP_TIMEOUT, self.connections.all_closed()).await);
    }
}

fn edge(
    name: &str,
    service: Arc<dyn PlainService>,
    metrics: &Arc<Metrics>,
    connections: Arc<Connections>,
    draining: watch::Receiver<bool>,
) -> Arc<Edge<Plain>> {
    let listener = Arc::new(Listener {
        name: name.to_owned(),
        address: BindAddress::Tcp(SocketAddr::from(([0, 0, 0, 0], 0))),
        origin: Origin::Default,
        http2: false,
        proxy_protocol: false,
        tls: None,
        certificates: Vec::new(),
        redirect_https: None,
        metrics: metrics.listener(name),
    });
    Arc::new(Edge {
        app: Arc::new(Plain::new(service)),
        direct: None,
        rules: Rules::Fixed(listener, limits()),
        metrics: metrics.clone(),
        threads: Arc::default(),
        connections,
        draining,
    })
}

fn spawn(bound: Bound, edge: Arc<Edge<Plain>>, stop: watch::Receiver<bool>) -> JoinHandle<()> {
    task::spawn("plain listener", async move {
        if let Err(error) = ingress::serve(edge, 0, bound, stop).await {
            tracing::error!(%error, "plain listener ended");
        }
    })
}

fn limits() -> Limits {
    Limits {
        connections: CONNECTIONS_MAX,
        connections_per_address: 0,
        header_bytes: 16 * 1024,
        header_timeout: Duration::from_secs(10),
        idle_timeout: Duration::from_secs(75),
        body_timeout: Duration::from_secs(20),
        min_body_rate: 1024,
        request_timeout: Duration::from_secs(60),
        stream_idle: Duration::from_secs(60),
        upstream_idle: 0,
        memory: None,
    }
}
