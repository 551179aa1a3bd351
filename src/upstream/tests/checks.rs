//! Active checks, over real sockets.

use std::sync::atomic::AtomicBool;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::upstream::health::Thresholds;

fn check_every(interval: Duration, path: Option<&str>) -> Option<CheckSettings> {
    Some(CheckSettings {
        path: path.map(str::to_owned),
        interval,
        timeout: SECOND,
        thresholds: Thresholds { healthy_after: 1, unhealthy_after: 2 },
    })
}

/// A server on a free port that answers every request with 200, or with 503 while `failing`. Sends back what it was asked.
async fn http_server(failing: Arc<AtomicBool>) -> (String, tokio::sync::mpsc::Receiver<String>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (asked, heads) = tokio::sync::mpsc::channel(1024);
    task::spawn("test server", async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = vec![0; 4096];
            let Ok(read) = stream.read(&mut head).await else { continue };
            let status = if failing.load(Ordering::Relaxed) { "503 Service Unavailable" } else { "200 OK" };
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
            if stream.write_all(answer.as_bytes()).await.is_ok() && read > 0 {
                asked.try_send(String::from_utf8_lossy(&head[..read]).into_owned()).ok();
            }
        }
    });
    (address, heads)
}

/// Checks find out that a server is unwell and that it is well again; with all servers down nothing is sent.
#[tokio::test]
async fn http_checks_take_servers_out_and_back() {
    let failing = Arc::new(AtomicBool::new(false));
    let (address, mut heads) = http_server(failing.clone()).await;
    let settings = Settings {
        check: check_every(Duration::from_millis(10), Some("/health?deep=1")),
        host: HostSent::Name(HeaderValue::from_static("users.example")),
        ..settings(&[&address])
    };
    let upstream = upstream(settings);
    assert_eq!(states(&upstream, clock::now()), ["warming"]);
    upstream.start();
    upstream.warm().await;
    assert_eq!(states(&upstream, clock::now()), ["up"]);
    let head = heads.recv().await.unwrap();
    assert!(head.starts_with("GET /health?deep=1 HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("Host: users.example\r\n") || head.contains("host: users.example\r\n"), "{head}");

    failing.store(true, Ordering::Relaxed);
    eventually("unhealthy", || states(&upstream, clock::now()) == ["unhealthy"]).await;
    assert_eq!(first(&upstream, clock::now()).unwrap_err().reason, Reason::NoServer);
    let status = upstream.status(clock::now());
    assert_eq!(status.servers[0].last_error.as_ref().unwrap().0, "status 503");
    assert!(!status.is_ready());

    failing.store(false, Ordering::Relaxed);
    eventually("healthy", || states(&upstream, clock::now()) == ["up"]).await;
}

/// Without a path a connection is enough; a server that is down at the start is known as such after one check.
#[tokio::test]
async fn tcp_checks_only_connect() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let open = listener.local_addr().unwrap().to_string();
    let closed = {
        let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        gone.local_addr().unwrap().to_string()
    };
    let check = check_every(60 * SECOND, None);
    let upstream = upstream(Settings { check, ..settings(&[&open, &closed]) });
    upstream.start();
    upstream.warm().await;
    assert_eq!(states(&upstream, clock::now()), ["up", "unhealthy"]);
}

/// Background work ends with its upstream, and holds nothing of it any longer.
#[tokio::test]
async fn checks_end_with_the_upstream() {
    let (address, _heads) = http_server(Arc::default()).await;
    let check = check_every(Duration::from_millis(5), Some("/"));
    let upstream = upstream(Settings { check, ..settings(&[&address]) });
    upstream.start();
    upstream.warm().await;
    let server = Arc::downgrade(&upstream.servers()[0]);
    drop(upstream);
    eventually("gone", || server.upgrade().is_none()).await;
}
