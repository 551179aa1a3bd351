//! gRPC passes through, unary and streaming, and errors of the gateway are gRPC's own.

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::support::*;

fn call(connection: &Connection, path: &str) -> RequestBuilder {
    connection.request("POST", path).header("content-type", "application/grpc").header("te", "trailers")
}

async fn through(app: &impl Addressed) -> (Gateway, Connection) {
    let gw = in_front_of(app, "http2 = true").start().await;
    let connection = gw.client().http2().connect().await;
    (gw, connection)
}

#[tokio::test]
async fn unary_and_server_streaming() {
    let app = upstream().otherwise(Answer::Grpc).start().await;
    let (_gw, connection) = through(&app).await;
    for (method, copies) in [("Unary", 1), ("Stream", 3)] {
        let answer = call(&connection, &format!("/echo.Echo/{method}")).body(frame(b"hello")).await;
        let answer = answer.expect_status(200);
        assert_eq!(answer.header("content-type"), Some("application/grpc"));
        assert_eq!(messages(answer.body.clone()), vec![Bytes::from_static(b"hello"); copies]);
        assert_eq!(answer.trailers.expect("trailers")["grpc-status"], "0", "{method}");
    }
    let seen = app.last();
    assert_eq!((seen.header("te"), seen.version), (Some("trailers"), http::Version::HTTP_2));
}

#[tokio::test]
async fn both_sides_stream() {
    let app = upstream().otherwise(Answer::Grpc).start().await;
    let (_gw, connection) = through(&app).await;
    let (sender, pieces) = mpsc::channel(1);
    sender.send(Ok(frame(b"one"))).await.unwrap();
    let mut chat = call(&connection, "/echo.Echo/Chat").streaming_body(pieces).stream().await.unwrap();
    assert_eq!(chat.next().await.unwrap(), frame(b"one"));
    sender.send(Ok(frame(b"two"))).await.unwrap();
    assert_eq!(chat.next().await.unwrap(), frame(b"two"));
    drop(sender);
    assert_eq!(chat.next().await, None);
}

#[tokio::test]
async fn a_status_without_a_message_passes() {
    let app = upstream().otherwise(Answer::Grpc).start().await;
    let (_gw, connection) = through(&app).await;
    let answer = call(&connection, "/echo.Echo/Fail").body(frame(b"x")).await.expect_status(200);
    let status =
        answer.headers.get("grpc-status").or(answer.trailers.as_ref().and_then(|t| t.get("grpc-status")));
    assert_eq!(status.expect("a status"), "5");
}

/// A gRPC client cannot read problem documents: HTTP 200, and the error where it looks for it.
#[tokio::test]
async fn errors_of_the_gateway_are_grpc_errors() {
    let dead = DeadPort::new();
    let gw = gateway(
        r#"
        [upstreams.app]
        servers = ["{app}"]
        http2 = true
        [[routes]]
        path = "/echo.Echo/*"
        upstream = "app"
        [[routes]]
        path = "/denied.D/*"
        upstream = "app"
        ip = { deny = ["127.0.0.1"] }
        "#,
    )
    .with("app", &dead)
    .start()
    .await;
    let connection = gw.client().http2().connect().await;
    for (path, status) in [("/echo.Echo/Unary", "14"), ("/none.None/X", "12"), ("/denied.D/X", "7")] {
        let answer = call(&connection, path).body(frame(b"x")).await.expect_status(200);
        assert_eq!(answer.header("content-type"), Some("application/grpc"), "{path}");
        assert_eq!(answer.header("grpc-status"), Some(status), "{path}");
        assert!(answer.header("grpc-message").is_some_and(|message| !message.is_empty()), "{path}");
        assert!(answer.body.is_empty(), "{path}");
    }
}

#[tokio::test]
async fn a_late_service_is_deadline_exceeded() {
    let app = upstream().otherwise(Answer::Hang).start().await;
    let gw = in_front_of(&app, "http2 = true").and("timeout = \"300ms\"\n").start().await;
    let connection = gw.client().http2().connect().await;
    let answer = call(&connection, "/echo.Echo/Unary").body(frame(b"x")).await.expect_status(200);
    assert_eq!(answer.header("grpc-status"), Some("4"));
}

/// Silence between messages is not an error of a stream.
#[tokio::test]
async fn a_quiet_stream_outlives_read_timeouts() {
    let app = upstream().otherwise(Answer::Grpc).start().await;
    let gw = in_front_of(&app, "http2 = true\ntimeouts = { read = \"300ms\" }")
        .and("[limits]\nbody_timeout = \"200ms\"\nrequest_timeout = \"300ms\"\n")
        .start()
        .await;
    let connection = gw.client().http2().connect().await;
    let (sender, pieces) = mpsc::channel(1);
    sender.send(Ok(frame(b"one"))).await.unwrap();
    let mut chat = call(&connection, "/echo.Echo/Chat").streaming_body(pieces).stream().await.unwrap();
    assert_eq!(chat.next().await.unwrap(), frame(b"one"));
    let mut ticks = tokio::time::interval(std::time::Duration::from_millis(700));
    ticks.tick().await;
    ticks.tick().await;
    sender.send(Ok(frame(b"two"))).await.unwrap();
    assert_eq!(chat.next().await.unwrap(), frame(b"two"));
}
