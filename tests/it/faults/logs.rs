//! Whoever reads the logs closes the pipe, or sleeps: lines are lost, and counted; requests, reloads and the end of the
//! process do not wait for him.

use rustix::process::Signal;

use super::*;

const CONFIG: &str = "[[routes]]\npath = \"/*\"\nrespond = { text = \"ok\" }\n";

async fn reload(gw: &Gateway) {
    let before = gw.metric("edgeward_config_reloads_total", &["success"]).await.unwrap();
    gw.rewrite("edgeward.toml", |text| text + "# another\n");
    gw.signal(Signal::HUP);
    gw.metric_is("edgeward_config_reloads_total", &["success"], before + 1.0).await;
}

async fn ends_soon(gw: Gateway) {
    let began = Instant::now();
    gw.stop().await;
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
}

#[tokio::test]
async fn standard_output_that_is_closed() {
    let gw = gateway(CONFIG).reader(Reader::Leaves).start().await;
    for _ in 0..50 {
        gw.get("/").await.expect_status(200);
    }
    // The first one may have come before the end.
    let lost = async || gw.metric("edgeward_access_log_failed_total", &[]).await.filter(|lost| *lost >= 49.0);
    eventually("the lines to be lost", lost).await;
    assert_eq!(gw.stderr().matches("cannot write the access log").count(), 1, "{}", gw.stderr());
    reload(&gw).await;
    ends_soon(gw).await;
}

#[tokio::test]
async fn standard_output_that_nobody_reads() {
    let gw = gateway(CONFIG).reader(Reader::Sleeps).start().await;
    let client = gw.client().connect().await;
    let path = format!("/{}", "x".repeat(4000));
    // Several times what a pipe holds.
    for _ in 0..100 {
        within_ten(Duration::from_secs(1), client.get(&path)).await.expect_status(200);
    }
    reload(&gw).await;
    within_ten(Duration::from_secs(1), client.get("/")).await.expect_status(200);
    ends_soon(gw).await;
}

/// Lines of the process log are written by whoever has something to say: requests, too.
#[tokio::test]
async fn standard_error_that_nobody_reads() {
    let config = format!("[log]\nlevel = \"trace\"\n[log.access]\noutput = \"off\"\n{CONFIG}");
    let gw = gateway(&config).nobody_reads_complaints().start().await;
    let began = Instant::now();
    for _ in 0..300 {
        gw.get("/").await.expect_status(200);
    }
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    reload(&gw).await;
    ends_soon(gw).await;
}

/// Both logs in one pipe: the thread that writes the one hangs, and the other does not wait for it.
#[tokio::test]
async fn both_in_one_pipe_that_nobody_reads() {
    let config = format!("[log]\nlevel = \"debug\"\n[log.access]\noutput = \"stderr\"\n{CONFIG}");
    let gw = gateway(&config).nobody_reads_complaints().start().await;
    let path = format!("/{}", "x".repeat(4000));
    for _ in 0..100 {
        within_ten(Duration::from_secs(1), gw.get(&path)).await.expect_status(200);
    }
    reload(&gw).await;
    ends_soon(gw).await;
}
