//! The scripted servers and the clients, tried on each other: a scenario that fails must not be their fault.

use std::future::IntoFuture;

use bytes::Bytes;
use http::HeaderMap;
use serde_json::json;

use super::*;

#[tokio::test]
async fn echo_tells_what_arrived() {
    let server = upstream().named("one").start().await;
    let answer = Client::new(server.address())
        .request("POST", "/a/b?c=d")
        .host("api.example.com")
        .header("x-twice", "1")
        .header("x-twice", "2")
        .body("hello")
        .await;
    let echo = answer.echo();
    assert_eq!((echo.method(), echo.target(), echo.server()), ("POST", "/a/b?c=d", "one"));
    assert_eq!(echo.headers("X-Twice"), ["1", "2"]);
    assert_eq!((echo.body(), echo.body_len()), ("hello", 5));
    assert_eq!(echo.host(), "api.example.com");
    assert_eq!(server.last().header("host"), Some("api.example.com"));
}

#[tokio::test]
async fn both_protocols_with_and_without_tls() {
    let authority = Authority::new();
    let plain = upstream().start().await;
    let secure = upstream().tls(&authority.server(&["localhost"])).start().await;
    let trust = authority.client_config(&[], None);
    let client = Client::new(plain.address());
    assert_eq!(client.get("/").await.echo().version(), "HTTP/1.1");
    assert_eq!(client.http2().get("/").await.echo().version(), "HTTP/2.0");
    let client = Client::new(secure.address()).tls(&trust, "localhost");
    assert_eq!(client.get("/").await.echo().version(), "HTTP/1.1");
    assert_eq!(client.http2().get("/").await.echo().version(), "HTTP/2.0");
    assert!(Client::new(secure.address()).tls(&trust, "example.com").try_connect().await.is_err());
}

#[tokio::test]
async fn connections_are_counted_and_reused() {
    let server = upstream().start().await;
    let connection = Client::new(server.address()).connect().await;
    connection.get("/1").await.expect_status(200);
    connection.get("/2").await.expect_status(200);
    assert_eq!((server.connections(), server.requests(), server.open_connections()), (1, 2, 1));
    drop(connection);
    eventually("the connection to close", async || (server.open_connections() == 0).then_some(())).await;
}

#[tokio::test]
async fn every_way_of_failing() {
    let server = upstream()
        .on("/close", Answer::Close)
        .on("/reset", Answer::Reset)
        .on("/short", Answer::Truncated(100, Bytes::from_static(b"half")))
        .on("/chunk", Answer::TruncatedChunked(Bytes::from_static(b"half")))
        .start()
        .await;
    let client = Client::new(server.address());
    assert!(client.get("/close").send().await.is_err());
    let reset = client.get("/reset").send().await.unwrap_err();
    assert!(format!("{reset:?}").contains("ConnectionReset"), "{reset:?}");
    let mut raw = RawClient::connect(server.address()).await;
    raw.send("GET /short HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(raw.rest().await.ends_with(b"\r\n\r\nhalf"));
    for path in ["/short", "/chunk"] {
        let short = client.get(path).send().await.unwrap();
        assert_eq!((short.status, short.text().as_str()), (200, "half"));
        assert!(short.broken.is_some());
    }
}

#[tokio::test]
async fn gates_hold_and_release() {
    let gate = Gate::new();
    let server = upstream().otherwise(gate.then(Answer::text("through"))).start().await;
    let request = tokio::spawn(Client::new(server.address()).get("/").into_future());
    gate.arrived(1).await;
    assert!(!request.is_finished());
    gate.open();
    assert_eq!(request.await.unwrap().text(), "through");
}

#[tokio::test]
async fn a_stopped_server_refuses_and_comes_back_on_its_port() {
    let mut server = upstream().start().await;
    let address = server.address();
    let client = Client::new(address);
    let kept = client.connect().await;
    kept.get("/").await.expect_status(200);
    server.stop().await;
    kept.closed().await;
    assert!(client.try_connect().await.is_err());
    server.restart().await;
    assert_eq!(server.address(), address);
    client.get("/").await.expect_status(200);
}

#[tokio::test]
async fn dead_ports_refuse_and_unreachable_ones_hang() {
    let dead = DeadPort::new();
    let error = tokio::net::TcpStream::connect(dead.address()).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    let unreachable = Unreachable::new();
    let connect = tokio::net::TcpStream::connect(unreachable.address());
    let waited = tokio::time::timeout(Duration::from_millis(300), connect).await;
    assert!(waited.is_err(), "{waited:?}");
}

#[tokio::test]
async fn streams_and_trailers() {
    let (feed, answer) = Feed::new("text/event-stream");
    let trailers = HeaderMap::from_iter([("x-sum".parse().unwrap(), "42".parse().unwrap())]);
    let server = upstream()
        .on("/events", answer)
        .on("/sum", Answer::Trailers(Fixed::new(200, Bytes::from_static(b"data")), trailers))
        .on("/big", Answer::Zeros(64 << 20))
        .on("/back", Answer::EchoBody)
        .start()
        .await;
    let client = Client::new(server.address());
    let mut events = client.get("/events").stream().await.unwrap();
    feed.send("data: 1\n\n").await;
    assert_eq!(events.next().await.unwrap(), "data: 1\n\n");
    drop(feed);
    assert_eq!(events.next().await, None);
    let sum = client.clone().http2().get("/sum").await;
    assert_eq!(sum.trailers.unwrap()["x-sum"], "42");
    assert_eq!(client.get("/big").stream().await.unwrap().count().await, 64 << 20);
    let back = client.request("POST", "/back").any_body(zeros(1 << 20)).stream().await.unwrap();
    assert_eq!(back.count().await, 1 << 20);
}

#[tokio::test]
async fn grpc_unary_streaming_and_failing() {
    let server = upstream().otherwise(Answer::Grpc).start().await;
    let connection = Client::new(server.address()).http2().connect().await;
    for (path, expected) in [("Unary", 1), ("Stream", 3), ("Chat", 1)] {
        let request = connection.request("POST", &format!("/echo.Echo/{path}"));
        let answer = request.header("content-type", "application/grpc").body(frame(b"hello")).await;
        assert_eq!(messages(answer.body.clone()), vec![Bytes::from_static(b"hello"); expected]);
        assert_eq!(answer.trailers.unwrap()["grpc-status"], "0");
    }
    let failing = connection.request("POST", "/echo.Echo/Fail").header("content-type", "application/grpc");
    assert_eq!(failing.await.header("grpc-status"), Some("5"));
}

#[tokio::test]
async fn websockets_echo() {
    use futures_util::{SinkExt, StreamExt};
    let server = upstream().otherwise(Answer::WebSocket).start().await;
    let stream = tokio::net::TcpStream::connect(server.address()).await.unwrap();
    let (mut socket, _) = tokio_tungstenite::client_async("ws://localhost/ws", stream).await.unwrap();
    socket.send("hello".into()).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap().into_text().unwrap(), "hello");
    socket.close(None).await.unwrap();
}

#[tokio::test]
async fn raw_servers_record_bytes_and_raw_clients_read_strictly() {
    let reply = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-T: 1\r\n\r\n";
    let server = RawUpstream::answering(reply).await;
    let mut client = RawClient::connect(server.address()).await;
    for _ in 0..2 {
        let answer = client.get("/x").await.expect_status(200);
        assert_eq!((answer.text().as_str(), answer.chunked), ("abc", true));
        assert_eq!(answer.trailers, [("X-T".to_owned(), "1".to_owned())]);
    }
    assert_eq!(server.received_text(), "GET /x HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(2));
    let once = RawUpstream::answering_once("HTTP/1.1 204 No Content\r\n\r\n").await;
    let mut client = RawClient::connect(once.address()).await;
    client.get("/").await.expect_status(204);
    client.closed().await;
}

#[tokio::test]
async fn answers_in_sequence_and_made_from_the_request() {
    let server = upstream()
        .on("/turns", Answer::sequence([Answer::status(500), Answer::status(503), Answer::text("ok")]))
        .on("/made", Answer::with(|seen| Fixed::new(200, seen.method.to_string().into())))
        .on("/unread", Answer::Unread(Box::new(Answer::json(json!({"a": 1})))))
        .start()
        .await;
    let client = Client::new(server.address());
    for status in [500, 503, 200, 200] {
        client.get("/turns").await.expect_status(status);
    }
    assert_eq!(client.request("PATCH", "/made").await.text(), "PATCH");
    assert_eq!(client.get("/unread").await.json()["a"], 1);
    let out = curl(&[&format!("http://{}/made", server.address())]).await;
    assert_eq!((out.status, out.stdout.as_str()), (0, "GET"));
}

#[tokio::test]
async fn brokers_answer_are_heard_and_come_back_with_what_is_durable() {
    let mut broker = RabbitMq::start_with_queue("kept").await;
    let amqp = Amqp::connect(&broker.url()).await;
    let service = Amqp::connect(&broker.url()).await;
    let twice = |letter: &Letter| {
        vec![
            Told::json(&json!({ "asked": letter.text() })).header("x-turn", "1"),
            Told::bytes("2").correlation("other"),
        ]
    };
    let _served = service.serve("rpc", twice).await;
    amqp.queue("answers").await;
    let mut answers = amqp.take("answers").await;
    let question =
        || lapin::BasicProperties::default().with_reply_to("answers".into()).with_correlation_id("1".into());
    amqp.publish("", "rpc", b"hello", question()).await;
    let first = answers.next().await;
    assert_eq!((first.json(), first.correlation()), (json!({ "asked": "hello" }), Some("1")));
    assert_eq!(
        (first.content_type(), first.header("x-turn").as_deref()),
        (Some("application/json"), Some("1"))
    );
    let second = answers.next().await;
    assert_eq!(
        (second.text().as_str(), second.correlation(), second.content_type()),
        ("2", Some("other"), None)
    );

    amqp.exchange("news").await;
    let mut heard = amqp.listen("news", "city.*").await;
    amqp.publish("news", "country.x", b"no", Default::default()).await;
    amqp.publish("news", "city.y", b"yes", Default::default()).await;
    let letter = heard.next().await;
    assert_eq!((letter.routing_key.as_str(), letter.text().as_str()), ("city.y", "yes"));

    let persistent = lapin::BasicProperties::default().with_delivery_mode(2);
    amqp.publish("", "kept", b"still here", persistent).await;
    let (port, url) = (broker.address(), broker.url());
    broker.kill();
    assert!(heard.try_next().await.is_none(), "the connection broke");
    assert!(tokio::net::TcpStream::connect(port).await.is_err());
    broker.again().await;
    let amqp = Amqp::connect(&url).await;
    assert_eq!(amqp.take("kept").await.next().await.text(), "still here");
}

#[tokio::test]
async fn brokers_of_tests_stand_beside_each_other_and_leave_nothing_behind() {
    let mut one = RabbitMq::start().await;
    let other = RabbitMq::start().await;
    for broker in [&one, &other] {
        Amqp::connect(&broker.url()).await.queue("q").await;
    }
    assert!(one.ctl(&["list_queues", "-q"]).contains('q'), "rabbitmqctl reaches it");
    one.freeze();
    let url = one.url();
    let connect = lapin::Connection::connect(&url, lapin::ConnectionProperties::default());
    assert!(tokio::time::timeout(Duration::from_millis(300), connect).await.is_err(), "it answers nothing");
    one.thaw();
    let amqp = Amqp::connect(&one.url()).await;
    let mut letters = amqp.listen("amq.topic", "#").await;
    one.stop();
    assert!(within("the farewell", letters.try_next()).await.is_none());
    let homes = [one.home(), other.home()];
    drop((one, other));
    for home in homes {
        assert!(!home.exists());
        assert!(rabbitmq::running_in(&home).is_empty(), "nobody runs in {home:?}");
    }
}
