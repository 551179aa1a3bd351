use std::net::SocketAddr;

use tokio::io::AsyncWrite as _;
use tokio::net::UnixStream;

use super::*;
use crate::ingress::connection::{Connections, Peer};
use crate::ingress::ends::Ends;
use crate::telemetry::metrics::Metrics;

/// A stream and the client's end of it.
fn pair() -> (EdgeStream, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let metrics = Metrics::new();
    let open = Arc::new(Connections::default()).admit(10, &metrics.listener("test")).unwrap();
    let peer = Peer::Tcp(SocketAddr::from(([127, 0, 0, 1], 4711)));
    let transport = Transport::Unix(ours);
    let connection = Connection::new(0, 80, Ends::direct(peer, &transport), None, open);
    (EdgeStream::new(transport, connection, Duration::from_secs(5)), theirs)
}

fn limits() -> HeadLimits {
    HeadLimits {
        header_bytes: 4096,
        header_timeout: Duration::from_secs(5),
        idle_timeout: Duration::from_secs(5),
        preface: false,
    }
}

async fn head(stream: &mut EdgeStream) -> Next {
    stream.next_head(&limits(), std::future::pending()).await
}

/// Reads as long as something is there at once.
async fn read_now(stream: &mut EdgeStream) -> Vec<u8> {
    let mut out = Vec::new();
    let mut buf = [0; 64];
    while let Ok(Ok(count @ 1..)) =
        tokio::time::timeout(Duration::from_millis(50), tokio::io::AsyncReadExt::read(stream, &mut buf)).await
    {
        out.extend_from_slice(&buf[..count]);
    }
    out
}

/// Two requests in one segment: the first is handed out alone, the second waits for its turn.
#[tokio::test]
async fn a_message_ends_where_its_framing_says() {
    let (mut stream, mut client) = pair();
    let first = b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello";
    let second = b"GET /b HTTP/1.1\r\nHost: h\r\n\r\n";
    client.write_all(&[first.as_slice(), second].concat()).await.unwrap();
    assert!(matches!(head(&mut stream).await, Next::Head(..)));
    assert_eq!(read_now(&mut stream).await, first);
    assert!(matches!(head(&mut stream).await, Next::Head(..)));
    assert_eq!(read_now(&mut stream).await, second);
}

#[tokio::test]
async fn a_chunked_body_is_handed_out_as_it_came_and_not_a_byte_more() {
    let (mut stream, mut client) = pair();
    let first = b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    client.write_all(&[first.as_slice(), b"GET /b HT"].concat()).await.unwrap();
    assert!(matches!(head(&mut stream).await, Next::Head(..)));
    assert_eq!(read_now(&mut stream).await, first);
    client.write_all(b"TP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
    assert!(matches!(head(&mut stream).await, Next::Head(..)));
}

/// The proxy listens for the client's leaving while it waits for the server.
#[tokio::test]
async fn a_client_that_leaves_after_its_request_is_noticed() {
    let (mut stream, mut client) = pair();
    client.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
    assert!(matches!(head(&mut stream).await, Next::Head(..)));
    assert!(!read_now(&mut stream).await.is_empty());
    drop(client);
    let mut buf = [0; 8];
    assert_eq!(tokio::io::AsyncReadExt::read(&mut stream, &mut buf).await.unwrap(), 0);
}

#[tokio::test]
async fn a_broken_chunk_is_an_error_and_told() {
    let (mut stream, mut client) = pair();
    client
        .write_all(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")
        .await
        .unwrap();
    assert!(matches!(head(&mut stream).await, Next::Head(..)));
    let exchange = Arc::new(Exchange::new(stream.connection.clone(), clock::now(), 0, false));
    stream.serve(exchange.clone());
    let mut buf = [0; 256];
    assert!(tokio::io::AsyncReadExt::read(&mut stream, &mut buf).await.unwrap() > 0);
    assert!(tokio::io::AsyncReadExt::read(&mut stream, &mut buf).await.is_err());
    assert!(exchange.body_malformed.load(Ordering::Relaxed));
}

/// A deadline ends a read that waits, and nothing else.
#[tokio::test]
async fn a_read_ends_at_the_cut_off() {
    let (mut stream, mut client) = pair();
    client.write_all(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n").await.unwrap();
    assert!(matches!(head(&mut stream).await, Next::Head(..)));
    let exchange = Arc::new(Exchange::new(stream.connection.clone(), clock::now(), 0, false));
    exchange.cut_off_at(Some(clock::now() + Duration::from_millis(30)));
    stream.serve(exchange);
    let mut buf = [0; 256];
    assert!(tokio::io::AsyncReadExt::read(&mut stream, &mut buf).await.unwrap() > 0);
    let error = tokio::io::AsyncReadExt::read(&mut stream, &mut buf).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
}

#[tokio::test]
async fn a_slow_head_and_a_silent_client_end_on_time() {
    let (mut stream, mut client) = pair();
    client.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    let short = HeadLimits { header_timeout: Duration::from_millis(30), ..limits() };
    let refused = stream.next_head(&short, std::future::pending()).await;
    assert!(matches!(refused, Next::Refused { reason: Reason::HeaderTimeout, .. }));

    let (mut stream, _client) = pair();
    let short = HeadLimits { idle_timeout: Duration::from_millis(30), ..limits() };
    assert!(matches!(stream.next_head(&short, std::future::pending()).await, Next::Closed));
}

/// The preface is told from a request at the first byte that differs, however short the request.
#[tokio::test]
async fn the_preface_is_told_from_a_short_request() {
    let limits = HeadLimits { preface: true, ..limits() };
    let (mut stream, mut client) = pair();
    client.write_all(b"P").await.unwrap();
    let sending = async {
        tokio::task::yield_now().await;
        client.write_all(b"UT / HTTP/1.0\r\n\r\n").await.unwrap();
    };
    let (next, ()) = tokio::join!(stream.next_head(&limits, std::future::pending()), sending);
    assert!(matches!(next, Next::Head(..)));

    let (mut stream, mut client) = pair();
    client.write_all(PREFACE).await.unwrap();
    assert!(matches!(stream.next_head(&limits, std::future::pending()).await, Next::Http2));
    assert_eq!(stream.pending_input(), PREFACE);
}

/// Small writes leave together; a head does not wait for its body longer than the proxy waits itself.
#[tokio::test]
async fn writes_are_gathered_and_leave_when_the_proxy_waits() {
    let (mut stream, mut client) = pair();
    stream.write_all(b"head").await.unwrap();
    let mut buf = [0; 16];
    let silent = tokio::time::timeout(Duration::from_millis(30), client.read(&mut buf)).await;
    assert!(silent.is_err(), "nothing leaves before a flush or a wait");
    let mut waiting = [0; 8];
    let read = tokio::io::AsyncReadExt::read(&mut stream, &mut waiting);
    assert!(tokio::time::timeout(Duration::from_millis(30), read).await.is_err());
    assert_eq!(client.read(&mut buf).await.unwrap(), 4);
}

/// What is flushed on a connection of HTTP/2 leaves when all that came was read: together with what follows.
#[tokio::test]
async fn flushes_of_http2_are_put_off_until_it_waits() {
    let (mut stream, mut client) = pair();
    stream.set_raw(Arc::new(FrameWatch::new(clock::now())));
    for _ in 0..3 {
        stream.write_all(b"frame").await.unwrap();
        stream.flush().await.unwrap();
    }
    let mut buf = [0; 64];
    let silent = tokio::time::timeout(Duration::from_millis(30), client.read(&mut buf)).await;
    assert!(silent.is_err(), "nothing leaves before it waits");
    let mut waiting = [0; 8];
    let read = tokio::io::AsyncReadExt::read(&mut stream, &mut waiting);
    assert!(tokio::time::timeout(Duration::from_millis(30), read).await.is_err());
    assert_eq!(client.read(&mut buf).await.unwrap(), 15);
    // But who puts off what cannot be written asks again for ever.
    std::future::poll_fn(|cx| {
        while Pin::new(&mut stream).poll_write(cx, &[0; 1_000]).is_ready() {}
        assert!(Pin::new(&mut stream).poll_flush(cx).is_pending());
        Poll::Ready(())
    })
    .await;
}

/// Unread input at the end would reset the connection and take the answer with it.
#[tokio::test]
async fn an_answer_survives_an_unread_body() {
    let (mut stream, mut client) = pair();
    client.write_all(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n").await.unwrap();
    assert!(matches!(head(&mut stream).await, Next::Head(..)));
    stream.write_all(b"HTTP/1.1 413 no\r\n\r\n").await.unwrap();
    drop(stream);
    client.write_all(&[b'x'; 100_000]).await.unwrap();
    AsyncWriteExt::shutdown(&mut client).await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "HTTP/1.1 413 no\r\n\r\n");
}

/// A client that is always a request ahead must not have the buffer grow with every request.
#[tokio::test]
async fn what_was_handed_out_is_forgotten_although_more_waits() {
    let (mut stream, mut client) = pair();
    let request = [b"GET /".as_slice(), &[b'x'; 1000], b" HTTP/1.1\r\nHost: h\r\n\r\n"].concat();
    client.write_all(&request.repeat(2)).await.unwrap();
    for _ in 0..500 {
        client.write_all(&request).await.unwrap();
        assert!(matches!(head(&mut stream).await, Next::Head(..)));
        let mut buf = vec![0; request.len()];
        stream.read_exact(&mut buf).await.unwrap();
        // As the proxy does while it waits for the server: reads what comes ahead.
        std::future::poll_fn(|cx| {
            assert!(Pin::new(&mut stream).poll_read(cx, &mut ReadBuf::new(&mut [0; 1])).is_pending());
            if stream.pending_input().len() < 2 * request.len() { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
    }
    assert!(stream.input.capacity() < 64 * 1024, "{}", stream.input.capacity());
}

/// Not all of Pingora's writes have a time-out of their own.
#[tokio::test]
async fn a_client_that_never_reads_is_given_up() {
    let (mut stream, _client) = pair();
    stream.write_timeout = Duration::from_millis(30);
    let error = loop {
        if let Err(error) = stream.write_all(&[b'x'; 100_000]).await {
            break error;
        }
        if let Err(error) = stream.flush().await {
            break error;
        }
    };
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
}

/// It may take its time, as long as it takes something.
#[tokio::test]
async fn a_client_that_reads_slowly_is_served() {
    let (mut stream, mut client) = pair();
    stream.write_timeout = Duration::from_millis(400);
    let reading = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(40));
        let mut buf = vec![0; 50_000];
        let mut total = 0;
        while total < 1_000_000 {
            ticks.tick().await;
            total += client.read(&mut buf).await.unwrap();
        }
    };
    let writing = async { stream.write_all(&[b'x'; 1_000_000]).await.unwrap() };
    tokio::join!(reading, writing);
}

/// A client that takes nothing does not get more time than the request has.
#[tokio::test]
async fn a_write_ends_at_the_cut_off() {
    let (mut stream, _client) = pair();
    let exchange = Arc::new(Exchange::new(stream.connection.clone(), clock::now(), 0, false));
    exchange.cut_off_at(Some(clock::now() + Duration::from_millis(30)));
    stream.serve(exchange);
    let error = loop {
        if let Err(error) = stream.write_all(&[b'x'; 100_000]).await {
            break error;
        }
    };
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
}

/// The next request does not begin before the whole of this one was handed out.
#[tokio::test]
async fn a_message_is_done_when_its_last_byte_was_handed_out() {
    for body in ["Content-Length: 5\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n"] {
        let (mut stream, mut client) = pair();
        let message = format!("POST /a HTTP/1.1\r\nHost: h\r\n{body}");
        client.write_all(format!("{message}GET /b").as_bytes()).await.unwrap();
        assert!(matches!(head(&mut stream).await, Next::Head(..)));
        let mut buf = vec![0; message.len() - 1];
        stream.read_exact(&mut buf).await.unwrap();
        assert!(!stream.is_message_done(), "{body}");
        stream.read_exact(&mut [0]).await.unwrap();
        assert!(stream.is_message_done(), "{body}");
    }
}

/// A connection of HTTP/2 whose client said what comes first.
async fn http2() -> (EdgeStream, UnixStream, Arc<FrameWatch>) {
    let (mut stream, mut client) = pair();
    let frames = Arc::new(FrameWatch::new(clock::now()));
    stream.set_raw(frames.clone());
    client.write_all(&[PREFACE, b"\0\0\0\x04\0\0\0\0\0"].concat()).await.unwrap();
    stream.read_exact(&mut [0; 33]).await.unwrap();
    (stream, client, frames)
}

const PING: &[u8] = b"\0\0\x08\x06\0\0\0\0\0eight...";

/// Nothing of a frame that breaks the rules is taken for the end, whatever comes before it.
#[tokio::test]
async fn a_frame_that_breaks_the_rules_is_not_handed_out() {
    for before in [PING, b""] {
        let (mut stream, mut client, frames) = http2().await;
        let broken = b"\0\0\x08\x06\0\0\0\0\x03eight...";
        client.write_all(&[before, broken, PING].concat()).await.unwrap();
        let came = read_now(&mut stream).await;
        assert_eq!(came, [before, &broken[..8]].concat());
        assert!(frames.is_over());
        assert_eq!(frames.glance().broken, Some(1));
        // And the next pieces are not even read.
        assert!(read_now(&mut stream).await.is_empty());
    }
    let (mut stream, mut client, frames) = http2().await;
    client.write_all(b"\0\0\x08\x06\0\0\0\0").await.unwrap();
    assert_eq!(read_now(&mut stream).await.len(), 8);
    client.write_all(b"\x03").await.unwrap();
    assert!(read_now(&mut stream).await.is_empty());
    assert!(frames.is_over());
}

/// The library's general error is made more precise on its way out, however much is written with it.
#[tokio::test]
async fn a_block_that_cannot_be_decoded_is_told_as_such() {
    for length in [0_u16, 10_000] {
        let (mut stream, mut client, _frames) = http2().await;
        client.write_all(b"\0\0\x01\x01\x05\0\0\0\x01\x80").await.unwrap();
        assert_eq!(read_now(&mut stream).await.len(), 10);
        let [high, low] = length.to_be_bytes();
        let data = [&[0, high, low, 0, 0, 0, 0, 0, 1], vec![1; length.into()].as_slice()].concat();
        let goaway = b"\0\0\x08\x07\0\0\0\0\0\0\0\0\x01\0\0\0\x01";
        let written = [&data, &data, goaway.as_slice()].concat();
        stream.write_all(&written).await.unwrap();
        AsyncWriteExt::shutdown(&mut stream).await.unwrap();
        let mut came = Vec::new();
        client.read_to_end(&mut came).await.unwrap();
        let (last, before) = came.split_last().unwrap();
        assert_eq!((before, *last), (&written[..written.len() - 1], 9));
    }
}
