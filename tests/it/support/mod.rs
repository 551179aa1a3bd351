//! What the scenarios are made of: servers to stand behind the gateway, the gateway itself, and clients.
#![allow(dead_code, unused_imports, reason = "a vocabulary: not every scenario uses every word")]

mod amqp;
mod answer;
mod chaos;
mod client;
mod echo;
mod gateway;
mod grpc;
#[path = "../../../examples/h2_floods/bytes.rs"]
pub mod h2;
mod hpack;
pub mod postgres;
mod rabbitmq;
mod raw;
mod recorder;
mod recorder_h2;
mod redis;
mod requests;
#[path = "../../../src/invariants/strict.rs"]
pub mod strict;
mod tls;
mod tokens;
mod upstream;

mod selftest;

use std::time::Duration;

pub use amqp::{Amqp, Letter, Letters, Served, Told};
pub use answer::{Answer, Feed, Fixed, Gate, zeros};
pub use chaos::{Accept, Chaos, End, Faults, Garbage, Way};
pub use client::{Ran, RawClient, RawResponse, curl, run};
pub use echo::Echoed;
pub use gateway::{Addressed, Gateway, GatewayBuilder, Reader, command, gateway, in_front_of};
pub use grpc::{frame, messages};
pub use postgres::Postgres;
pub use rabbitmq::RabbitMq;
pub use raw::{DeadPort, RawUpstream, Unreachable};
pub use recorder::{Recorded, Recorder, Reply};
pub use recorder_h2::{Http2Recorder, http2_ok};
pub use redis::Redis;
pub use requests::{Client, Connection, RequestBuilder, Response, Streaming};
pub use tls::{Authority, Identity, TlsRelay, trusting};
pub use tokens::{SECRET, Signer, key_set, unix_now};
pub use upstream::{Seen, Upstream, UpstreamBuilder, upstream};

/// Longest any step of a scenario may take. Only a broken gateway or a stuck machine ever waits this long.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until `probe` gives a value; panics with `what` when it never does.
pub async fn eventually<T>(what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let attempt = async {
        loop {
            if let Some(value) = probe().await {
                return value;
            }
            // Not in place of a condition: this is the interval at which the condition is looked at.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    within(what, attempt).await
}

/// Runs `work` for at most [`PATIENCE`]; panics with `what` after it.
pub async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(value) => value,
        Err(_) => panic!("waited {PATIENCE:?} in vain: {what}"),
    }
}
