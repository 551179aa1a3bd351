//! The access log: one line for every request, also for those that were refused, malformed or abandoned.

use regex::Regex;
use rustix::process::Signal;

use crate::support::*;

#[tokio::test]
async fn combined_is_nginxs_line_exactly() {
    let app = upstream().on("/x", Answer::text("hello")).start().await;
    let gw = in_front_of(&app, "").start().await;
    gw.get("/x?a=b").header("user-agent", "it/1 \"q\" \\").header("referer", "http://r/\u{e9}").await;
    let line = gw.logged("/x").await;
    let pattern = concat!(
        r#"^127\.0\.0\.1 - - \[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\] "#,
        r#""GET /x\?a=b HTTP/1\.1" 200 5 "http://r/\\xC3\\xA9" "it/1 \\x22q\\x22 \\x5C"$"#,
    );
    assert!(Regex::new(pattern).unwrap().is_match(&line), "{line}");
    gw.client().http2().get("/two").await.expect_status(200);
    let line = gw.logged("/two").await;
    assert!(line.contains("\"GET /two HTTP/2.0\" 200 "), "{line}");
    assert!(line.ends_with("\"-\" \"-\""), "{line}");
    let mut raw = gw.raw().await;
    raw.send("GET /user HTTP/1.1\r\nHost: localhost\r\nAuthorization: Basic YWxpY2U6c2VjcmV0\r\n\r\n").await;
    raw.response().await;
    let line = gw.logged("/user").await;
    assert!(line.starts_with("127.0.0.1 - alice ["), "{line}");
    assert!(!line.contains("secret"), "{line}");
}

#[tokio::test]
async fn every_request_has_one_line() {
    let dead = DeadPort::new();
    let gw = gateway(
        r#"
        [upstreams.dead]
        servers = ["{dead}"]
        [[routes]]
        path = "/dead"
        upstream = "dead"
        [[routes]]
        path = "/here"
        respond = { status = 200, text = "ok" }
        [[routes]]
        path = "/quiet"
        access_log = false
        respond = { status = 200, text = "ok" }
        "#,
    )
    .with("dead", &dead)
    .start()
    .await;
    gw.get("/quiet").await.expect_status(200);
    gw.get("/here").await.expect_status(200);
    gw.get("/nowhere").await.expect_status(404);
    gw.get("/dead").await.expect_status(502);
    let mut raw = gw.raw().await;
    raw.send("GET /broken HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n").await;
    raw.response().await.expect_status(400);
    let mut raw = gw.raw().await;
    raw.send("NONSENSE\r\n\r\n").await;
    raw.response().await.expect_status(400);
    eventually("five lines", async || (gw.access_log().len() >= 5).then_some(())).await;
    let lines = gw.access_log();
    assert_eq!(lines.len(), 5, "{lines:#?}");
    for (part, status) in
        [("/here", 200), ("/nowhere", 404), ("/dead", 502), ("/broken", 400), ("NONSENSE", 400)]
    {
        let line =
            lines.iter().find(|line| line.contains(part)).unwrap_or_else(|| panic!("{part}: {lines:#?}"));
        assert!(line.contains(&format!("\" {status} ")), "{line}");
    }
}

#[tokio::test]
async fn json_is_an_object_a_line() {
    let app = upstream().start().await;
    let gw = in_front_of(&app, "").and("[log.access]\nformat = \"json\"\n").start().await;
    let answer = gw.get("/j\u{22}?q=%22").header("user-agent", "a\"b\\c\u{e9}").send().await;
    let answer = match answer {
        Ok(answer) => answer,
        Err(_) => gw.get("/j?q=%22").header("user-agent", "a\"b\\c\u{e9}").await,
    };
    let line = gw.logged("/j").await;
    let record: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
    assert_eq!(record["status"], answer.status);
    let text = record.to_string();
    assert!(text.contains(answer.header("x-request-id").unwrap()), "{text}");
    assert!(text.contains(&app.address().to_string()), "{text}");
}

#[tokio::test]
async fn a_format_of_nginx_variables() {
    let app = upstream().on("/v", Answer::text("12345").header("x-answer", "yes")).start().await;
    let names = [
        "remote_addr",
        "request_method",
        "request_uri",
        "uri",
        "args",
        "arg_a",
        "http_x_mine",
        "cookie_c",
        "host",
        "scheme",
        "https",
        "server_protocol",
        "status",
        "body_bytes_sent",
        "sent_http_x_answer",
        "request_id",
        "upstream_addr",
        "upstream_status",
        "request_time",
        "bytes_sent",
        "upstream_response_time",
        "content_length",
        "server_port",
        "request_length",
        "connection_requests",
        "http_absent",
        "upstream_connect_time",
        "upstream_header_time",
        "time_iso8601",
        "msec",
        "remote_port",
        "connection",
        "pipe",
    ];
    let format: Vec<_> = names.iter().map(|name| format!("{name}=${name}")).collect();
    let gw =
        in_front_of(&app, "").and(&format!("[log.access]\nformat = '{}'\n", format.join("|"))).start().await;
    let answer = gw
        .get("/v?a=1&b=2")
        .host("Api.Example.com:80")
        .header("x-mine", "m")
        .header("cookie", "c=d; e=f")
        .await
        .expect_status(200);
    let line = gw.logged("/v").await;
    let value = |name: &str| {
        let found = line.split('|').find_map(|part| part.strip_prefix(&format!("{name}=")));
        found.unwrap_or_else(|| panic!("{name} in {line}")).to_owned()
    };
    let port = gw.address().port().to_string();
    let server = app.address().to_string();
    for (name, expected) in [
        ("remote_addr", "127.0.0.1"),
        ("request_method", "GET"),
        ("request_uri", "/v?a=1&b=2"),
        ("uri", "/v"),
        ("args", "a=1&b=2"),
        ("arg_a", "1"),
        ("http_x_mine", "m"),
        ("cookie_c", "d"),
        ("host", "api.example.com"),
        ("scheme", "http"),
        ("https", ""),
        ("server_protocol", "HTTP/1.1"),
        ("status", "200"),
        ("body_bytes_sent", "5"),
        ("sent_http_x_answer", "yes"),
        ("request_id", answer.header("x-request-id").unwrap()),
        ("upstream_addr", &server),
        ("upstream_status", "200"),
        ("server_port", &port),
        ("connection_requests", "1"),
        ("http_absent", "-"),
        ("content_length", "-"),
        ("pipe", "."),
    ] {
        assert!(value(name) == expected || (expected.is_empty() && value(name) == "-"), "{name}: {line}");
    }
    let millis = Regex::new(r"^\d+\.\d{3}$").unwrap();
    for seconds in
        ["request_time", "upstream_response_time", "upstream_connect_time", "upstream_header_time", "msec"]
    {
        assert!(millis.is_match(&value(seconds)), "{seconds}: {line}");
    }
    assert!(value("bytes_sent").parse::<u64>().unwrap() > 50, "{line}");
    assert!(value("request_length").parse::<u64>().unwrap() > 50, "{line}");
    assert!(
        Regex::new(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d$")
            .unwrap()
            .is_match(&value("time_iso8601"))
    );
}

#[tokio::test]
async fn a_file_is_reopened_on_usr1() {
    let app = upstream().start().await;
    let gw = in_front_of(&app, "")
        .and("[log.access]\noutput = \"access.log\"\nformat = '$request_uri'\n")
        .start()
        .await;
    let (log, rotated) = (gw.directory().join("access.log"), gw.directory().join("access.log.1"));
    let read = |path: &std::path::Path| std::fs::read_to_string(path).unwrap_or_default();
    gw.get("/before").await.expect_status(200);
    eventually("a line", async || read(&log).contains("/before").then_some(())).await;
    std::fs::rename(&log, &rotated).unwrap();
    gw.get("/between").await.expect_status(200);
    eventually("a line in the moved file", async || read(&rotated).contains("/between").then_some(())).await;
    gw.signal(Signal::USR1);
    eventually("the file to be opened again", async || log.exists().then_some(())).await;
    gw.get("/after").await.expect_status(200);
    eventually("a line", async || read(&log).contains("/after").then_some(())).await;
    assert!(!read(&log).contains("/between"));
    assert!(gw.access_log().is_empty(), "nothing on standard output: {:?}", gw.access_log());
}

#[tokio::test]
async fn the_log_can_be_off_or_on_stderr() {
    let gw =
        gateway("[log.access]\noutput = \"off\"\n[[routes]]\npath = \"/x\"\nrespond = { status = 200 }\n")
            .start()
            .await;
    gw.get("/x").await.expect_status(200);
    let gw2 =
        gateway("[log.access]\noutput = \"stderr\"\n[[routes]]\npath = \"/x\"\nrespond = { status = 200 }\n")
            .start()
            .await;
    gw2.get("/x").await.expect_status(200);
    eventually("a line on stderr", async || gw2.stderr().contains("\"GET /x HTTP/1.1\" 200").then_some(()))
        .await;
    assert!(gw.access_log().is_empty() && gw2.access_log().is_empty());
}

/// Lines are whole and none is lost while the queue holds; what is lost is counted.
#[tokio::test]
async fn no_line_is_torn() {
    let gw = gateway("[[routes]]\npath = \"/*\"\nrespond = { status = 200 }\n").start().await;
    let tasks: Vec<_> = (0..8)
        .map(|task| {
            let client = gw.client();
            tokio::spawn(async move {
                let connection = client.connect().await;
                for n in 0..50 {
                    connection.get(&format!("/t{task}-{n}.")).await.expect_status(200);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    eventually("400 lines", async || (gw.access_log().len() == 400).then_some(())).await;
    let lines = gw.access_log();
    for task in 0..8 {
        for n in 0..50 {
            let needle = format!("\"GET /t{task}-{n}. HTTP/1.1\" 200 0 ");
            assert_eq!(lines.iter().filter(|line| line.contains(&needle)).count(), 1, "{needle}");
        }
    }
}

#[tokio::test]
async fn the_last_lines_are_written_before_the_process_ends() {
    let mut gw = gateway(
        "[log.access]\noutput = \"access.log\"\n[[routes]]\npath = \"/*\"\nrespond = { status = 200 }\n",
    )
    .start()
    .await;
    for n in 0..20 {
        gw.get(&format!("/{n}.")).await.expect_status(200);
    }
    gw.signal(Signal::TERM);
    assert!(gw.exit().await.success());
    let log = std::fs::read_to_string(gw.directory().join("access.log")).unwrap();
    assert_eq!(log.lines().count(), 20, "{log}");
}

/// A full disk: requests are served, records are counted as lost, and one line says so however long it lasts.
#[tokio::test]
async fn a_full_disk_is_one_line_and_nobodys_request() {
    let gw = gateway("[limits]\nconnections = 100\n[log.access]\noutput = \"/dev/full\"\n[[routes]]\npath = \"/*\"\nrespond = {}\n")
        .start()
        .await;
    // Longer than the pause after which it is tried again.
    let mut ticks = tokio::time::interval(std::time::Duration::from_millis(250));
    let mut asked = 0;
    for _ in 0..10 {
        ticks.tick().await;
        gw.get("/").await.expect_status(200);
        asked += 1;
    }
    gw.metric_is("edgeward_access_log_failed_total", &[], f64::from(asked)).await;
    let said = gw.stderr();
    assert_eq!(said.matches("cannot write the access log").count(), 1, "{said}");
    assert!(said.contains("/dev/full") && said.lines().count() == 1, "{said}");
    gw.stop().await;
}

/// Likewise a file that cannot be made. Once it can, the log is taken up again, and what was lost is said.
#[tokio::test]
async fn a_log_that_cannot_be_opened_is_one_line_until_it_can() {
    let gw = gateway("[limits]\nconnections = 100\n[log.access]\noutput = \"logs/access.log\"\n[[routes]]\npath = \"/*\"\nrespond = {}\n")
        .file("logs", "a file where a directory should be")
        .start()
        .await;
    for lost in 1..=3 {
        gw.get("/lost").await.expect_status(200);
        gw.metric_is("edgeward_access_log_failed_total", &[], f64::from(lost)).await;
    }
    assert_eq!(gw.stderr().matches("cannot write the access log").count(), 1, "{}", gw.stderr());
    let logs = gw.directory().join("logs");
    std::fs::remove_file(&logs).unwrap();
    std::fs::create_dir(&logs).unwrap();
    let log = eventually("a line in the log", async || {
        gw.get("/kept").await.expect_status(200);
        std::fs::read_to_string(logs.join("access.log")).ok().filter(|log| !log.is_empty())
    })
    .await;
    assert!(log.starts_with("127.0.0.1 - - [") && !log.contains("/lost"), "{log}");
    let again = async || gw.stderr().contains("the access log is written again").then_some(());
    eventually("word of it", again).await;
    assert_eq!(gw.stderr().lines().count(), 2, "{}", gw.stderr());
}
