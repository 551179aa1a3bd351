//! Static files as clients see them: whole, in parts, conditionally, compressed beforehand; and what is never sent.

use std::io::Write;
use std::os::unix::fs::symlink;
use std::time::{Duration, SystemTime};

use crate::support::*;

const SITE: &str = r#"
    [log.access]
    format = '$request_uri $status $body_bytes_sent $reason $request_completion'

    [[routes]]
    name = "site"
    path = "/*"
    files = { root = "www" }
"#;

const PAGE: &str = "<h1>Hello</h1>\n";
const TEXT: &str = "0123456789abcdefghijklmnopqrstuvwxyz";

fn site() -> GatewayBuilder {
    gateway(SITE)
        .file("www/index.html", PAGE)
        .file("www/a.txt", TEXT)
        .file("www/sub/index.html", "sub")
        .file("www/empty/.keep", "")
        .file("www/empty.txt", "")
        .file("www/feed.xml", "<a/>\n")
        .file("www/unknown.xyzzy", "?")
        .file("www/app.js", "let app = 1;")
        .file("www/.env", "SECRET=1")
        .file("www/.well-known/security.txt", "contact")
        .file("outside.txt", "outside")
}

#[tokio::test]
async fn a_file_comes_whole_with_what_caches_need() {
    let gw = site().start().await;
    for client in [gw.client(), gw.client().http2()] {
        let page = client.get("/").await.expect_status(200);
        assert_eq!(page.text(), PAGE);
        assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
        assert_eq!(page.header("content-length"), Some("15"));
        assert_eq!(page.header("accept-ranges"), Some("bytes"));
        let tag = page.header("etag").unwrap();
        assert!(tag.starts_with('"') && tag.ends_with('"'), "{tag}");
        assert!(page.header("last-modified").unwrap().ends_with(" GMT"));
        assert!(page.header("x-request-id").is_some());
        for absent in ["cache-control", "vary", "content-encoding", "transfer-encoding"] {
            assert_eq!(page.header(absent), None, "{absent}");
        }
        let head = client.request("HEAD", "/index.html").await.expect_status(200);
        assert_eq!(head.body.len(), 0);
        for same in ["content-type", "content-length", "etag", "last-modified"] {
            assert_eq!(head.header(same), page.header(same), "{same}");
        }
        for (path, content_type, length) in [
            ("/a.txt", "text/plain; charset=utf-8", 36),
            ("/app.js", "text/javascript; charset=utf-8", 12),
            ("/unknown.xyzzy", "application/octet-stream", 1),
            ("/empty.txt", "text/plain; charset=utf-8", 0),
            ("/feed.xml", "text/xml", 5),
            ("/.well-known/security.txt", "text/plain; charset=utf-8", 7),
        ] {
            let answer = client.get(path).await.expect_status(200);
            assert_eq!(
                (answer.header("content-type"), answer.body.len()),
                (Some(content_type), length),
                "{path}"
            );
        }
    }
    // One connection goes on and on, also for a client that sends ahead.
    let mut raw = gw.raw().await;
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n");
    raw.send([get("/a.txt"), get("/none"), get("/empty.txt"), get("/sub/")].concat()).await;
    for (status, length) in [(200, Some(36)), (404, None), (200, Some(0)), (200, Some(3))] {
        let answer = raw.response().await.expect_status(status);
        assert!(length.is_none_or(|length| length == answer.body.len()), "{answer:?}");
    }
    let mut old = gw.raw().await;
    old.send("GET /a.txt HTTP/1.0\r\n\r\n").await;
    let answer = old.response().await.expect_status(200);
    assert_eq!(
        (answer.header("content-length"), answer.text().as_str(), answer.chunked),
        (Some("36"), TEXT, false)
    );
    old.closed().await;
}

#[tokio::test]
async fn only_get_and_head_ask_for_files() {
    let gw = site().start().await;
    for client in [gw.client(), gw.client().http2()] {
        for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"] {
            let answer = client.request(method, "/a.txt").body("x").await;
            assert_eq!(answer.header("allow"), Some("GET, HEAD"));
            answer.expect_problem(405, "route.method_not_allowed");
        }
    }
}

#[tokio::test]
async fn parts_of_a_file() {
    let gw = site().start().await;
    for client in [gw.client(), gw.client().http2()] {
        let part = async |range: &str| client.get("/a.txt").header("range", range).await;
        for (range, content, place) in [
            ("bytes=0-9", "0123456789", "bytes 0-9/36"),
            ("bytes=30-", "uvwxyz", "bytes 30-35/36"),
            ("bytes=-2", "yz", "bytes 34-35/36"),
            ("bytes=35-99", "z", "bytes 35-35/36"),
        ] {
            let answer = part(range).await.expect_status(206);
            assert_eq!(
                (answer.text().as_str(), answer.header("content-range")),
                (content, Some(place)),
                "{range}"
            );
            assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
            assert!(answer.header("etag").is_some() && answer.header("last-modified").is_some());
        }
        for whole in ["bytes=5-3", "lines=1-2", "bytes=0-,0-", "nonsense"] {
            assert_eq!(part(whole).await.expect_status(200).text(), TEXT, "{whole}");
        }
        let none = part("bytes=36-").await;
        assert_eq!(none.header("content-range"), Some("bytes */36"));
        none.expect_problem(416, "file.range_not_satisfiable");
        let head = client.request("HEAD", "/a.txt").header("range", "bytes=0-0").await.expect_status(200);
        assert_eq!(head.header("content-length"), Some("36"));
        assert_eq!(
            client.get("/empty.txt").header("range", "bytes=0-").await.expect_status(200).body.len(),
            0
        );

        let several = part("bytes=0-1,-2,5-5").await.expect_status(206);
        let content_type = several.header("content-type").unwrap().to_owned();
        let boundary = content_type.strip_prefix("multipart/byteranges; boundary=").unwrap();
        assert_eq!(several.header("content-range"), None);
        assert_eq!(several.header("content-length"), Some(several.body.len().to_string().as_str()));
        let text = several.text();
        let parts: Vec<_> = text.split(&format!("\r\n--{boundary}")).collect();
        assert_eq!((parts[0], parts[4]), ("", "--\r\n"));
        for (part, place, content) in
            [(parts[1], "0-1", "01"), (parts[2], "34-35", "yz"), (parts[3], "5-5", "5")]
        {
            let expected = format!(
                "\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Range: bytes {place}/36\r\n\r\n{content}"
            );
            assert_eq!(part, expected);
        }
    }
    let ran = curl(&["-r", "10-12", &format!("http://{}/a.txt", gw.address())]).await;
    assert_eq!((ran.status, ran.stdout.as_str()), (0, "abc"));
}

#[tokio::test]
async fn a_client_that_has_it_does_not_get_it_again() {
    let gw = site().start().await;
    let file = std::fs::File::options().write(true).open(gw.directory().join("www/a.txt")).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(3600)).unwrap();
    for client in [gw.client(), gw.client().http2()] {
        let whole = client.get("/a.txt").await.expect_status(200);
        let (tag, date) = (whole.header("etag").unwrap(), whole.header("last-modified").unwrap());
        let connection = client.connect().await;
        for (name, value) in [("if-none-match", tag), ("if-modified-since", date)] {
            for method in ["GET", "HEAD"] {
                let answer =
                    connection.request(method, "/a.txt").header(name, value).await.expect_status(304);
                assert_eq!((answer.body.len(), answer.header("etag")), (0, Some(tag)));
                assert_eq!((answer.header("content-type"), answer.header("content-length")), (None, None));
            }
        }
        let failed = connection.get("/a.txt").header("if-match", "\"other\"").await;
        failed.expect_problem(412, "file.precondition_failed");
        connection.get("/a.txt").header("if-match", tag).await.expect_status(200);
        for (condition, status) in
            [(tag, 206), (date, 206), ("\"other\"", 200), ("Thu, 01 Jan 1970 00:00:00 GMT", 200)]
        {
            let answer =
                connection.get("/a.txt").header("range", "bytes=0-1").header("if-range", condition).await;
            assert_eq!(
                answer.expect_status(status).body.len(),
                if status == 206 { 2 } else { 36 },
                "{condition}"
            );
        }
        // A change that keeps size and time is one all the same.
        let directory = gw.directory().join("www");
        std::fs::write(directory.join("new"), TEXT.to_uppercase()).unwrap();
        let new = std::fs::File::options().write(true).open(directory.join("new")).unwrap();
        new.set_modified(std::fs::metadata(directory.join("a.txt")).unwrap().modified().unwrap()).unwrap();
        std::fs::rename(directory.join("new"), directory.join("a.txt")).unwrap();
        let changed = connection.get("/a.txt").header("if-none-match", tag).await.expect_status(200);
        assert_eq!(changed.text(), TEXT.to_uppercase());
        std::fs::write(directory.join("a.txt"), TEXT).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(3600)).unwrap();
        std::fs::File::options()
            .write(true)
            .open(directory.join("a.txt"))
            .unwrap()
            .set_modified(SystemTime::now() - Duration::from_secs(3600))
            .unwrap();
    }
}

#[tokio::test]
async fn variants_compressed_beforehand_are_chosen_by_weight() {
    let gw = site()
        .file("www/app.js.br", "brotli!")
        .file("www/app.js.gz", "gzip")
        .file("www/a.txt.gz", "stale")
        .start()
        .await;
    let old = std::fs::File::options().write(true).open(gw.directory().join("www/a.txt.gz")).unwrap();
    old.set_modified(SystemTime::now() - Duration::from_secs(3600)).unwrap();
    for client in [gw.client(), gw.client().http2()] {
        let get = async |path: &str, accept: &str| client.get(path).header("accept-encoding", accept).await;
        let mut tags = std::collections::BTreeSet::new();
        for (accept, coding, content) in [
            ("gzip, deflate, br, zstd", Some("br"), "brotli!"),
            ("gzip", Some("gzip"), "gzip"),
            ("br;q=0.1, gzip;q=0.2", Some("gzip"), "gzip"),
            ("br;q=0, zstd", None, "let app = 1;"),
            ("identity", None, "let app = 1;"),
        ] {
            let answer = get("/app.js", accept).await.expect_status(200);
            assert_eq!(
                (answer.header("content-encoding"), answer.text().as_str()),
                (coding, content),
                "{accept}"
            );
            assert_eq!(answer.header("vary"), Some("Accept-Encoding"));
            assert_eq!(answer.header("content-type"), Some("text/javascript; charset=utf-8"));
            tags.insert(answer.header("etag").unwrap().to_owned());
        }
        assert_eq!(tags.len(), 3, "each variant has its own tag: {tags:?}");
        let bare = client.get("/app.js").await.expect_status(200);
        assert_eq!((bare.header("content-encoding"), bare.header("vary")), (None, Some("Accept-Encoding")));
        let tag = get("/app.js", "br").await.header("etag").unwrap().to_owned();
        let known = client.get("/app.js").header("accept-encoding", "br").header("if-none-match", &tag).await;
        assert_eq!(known.expect_status(304).header("vary"), Some("Accept-Encoding"));
        client.get("/app.js").header("if-none-match", &tag).await.expect_status(200);
        let part = client.get("/app.js").header("accept-encoding", "br").header("range", "bytes=0-2").await;
        assert_eq!((part.text().as_str(), part.header("content-range")), ("bro", Some("bytes 0-2/7")));
        // Older than the file: made of another state of it.
        assert_eq!(get("/a.txt", "gzip").await.expect_status(200).text(), TEXT);
        // By its own name it is a file like any other.
        let own = get("/app.js.gz", "gzip").await.expect_status(200);
        assert_eq!(
            (own.header("content-encoding"), own.header("content-type")),
            (None, Some("application/gzip"))
        );
    }
}

#[tokio::test]
async fn directories_have_a_slash_and_an_index() {
    let config = r#"
        [[routes]]
        path = "/*"
        files = { root = "www", index = ["index.htm", "index.html"] }
        [[routes]]
        path = "/static/*"
        rewrite = { prefix = "/static", to = "/" }
        files = { root = "www" }
        [[routes]]
        path = "/one"
        rewrite = { path = "/sub" }
        files = { root = "www" }
        [[routes]]
        path = "/bare/*"
        rewrite = { path = "/sub" }
        files = { root = "www" }
        [[routes]]
        path = "/none/*"
        rewrite = { prefix = "/none", to = "/" }
        files = { root = "www", index = [] }
    "#;
    let gw = gateway(config)
        .file("www/index.html", PAGE)
        .file("www/sub/index.html", "sub")
        .file("www/both/index.htm", "first")
        .file("www/both/index.html", "second")
        .file("www/empty/x.txt", "x")
        .file("www/c:d/index.html", "colon")
        .start()
        .await;
    for client in [gw.client(), gw.client().http2()] {
        for (path, location) in [
            ("/sub", "/sub/"),
            ("/sub?a=b&c=%20%22", "/sub/?a=b&c=%20%22"),
            ("//sub", "/sub/"),
            ("/c:d", "/c:d/"),
            ("/static/sub", "/static/sub/"),
            ("/static", "/static/"),
            ("/bare", "/bare/"),
        ] {
            let answer = client.get(path).await.expect_status(301);
            assert_eq!((answer.header("location"), answer.body.len()), (Some(location), 0), "{path}");
        }
        for (path, content) in [
            ("/sub/", "sub"),
            ("/static/", PAGE),
            ("/static/sub/", "sub"),
            ("/both/", "first"),
            ("/c:d/", "colon"),
            // A route for this path alone cannot be asked for with a slash.
            ("/one", "sub"),
            // A rewrite that takes the slash away does not redirect for ever.
            ("/bare/", "sub"),
            ("/bare/x/", "sub"),
        ] {
            assert_eq!(client.get(path).await.expect_status(200).text(), content, "{path}");
        }
        for path in ["/empty/", "/none/", "/none/sub/"] {
            client.get(path).await.expect_problem(403, "file.forbidden");
        }
        for path in ["/index.html/", "/nowhere", "/nowhere/", "/sub/x/y"] {
            client.get(path).await.expect_problem(404, "file.not_found");
        }
    }
}

#[tokio::test]
async fn a_single_page_app_answers_every_path() {
    let config =
        "[[routes]]\npath = \"/*\"\nfiles = { root = \"www\", fallback = \"app/index.html\", index = [] }\n";
    let gw = gateway(config).file("www/app/index.html", PAGE).file("www/a.txt", TEXT).start().await;
    for client in [gw.client(), gw.client().http2()] {
        for path in ["/", "/users/7", "/users/a%2Fb", "/.git/config", "/app/", "/a.txt/x"] {
            let answer = client.get(path).await.expect_status(200);
            assert_eq!(
                (answer.text().as_str(), answer.header("content-type")),
                (PAGE, Some("text/html; charset=utf-8")),
                "{path}"
            );
        }
        assert_eq!(client.get("/a.txt").await.text(), TEXT);
        client.get("/app").await.expect_status(301);
        let tag = client.get("/x").await.header("etag").unwrap().to_owned();
        client.get("/y").header("if-none-match", &tag).await.expect_status(304);
        assert_eq!(client.get("/y").header("range", "bytes=0-3").await.expect_status(206).text(), "<h1>");
    }
    std::fs::remove_file(gw.directory().join("www/app/index.html")).unwrap();
    gw.get("/users/7").await.expect_problem(404, "file.not_found");
}

#[tokio::test]
async fn a_directory_can_be_listed() {
    let config = "[[routes]]\npath = \"/pub/*\"\nrewrite = { prefix = \"/pub\", to = \"/\" }\nfiles = { root = \"www\", listing = true }\n";
    let gw = gateway(config)
        .file("www/a b.txt", TEXT)
        .file("www/<b>/x", "1")
        .file("www/indexed/index.html", PAGE)
        .file("www/.hidden", "1")
        .start()
        .await;
    for client in [gw.client(), gw.client().http2()] {
        let page = client.get("/pub/").header("accept", "*/*").await.expect_status(200);
        assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
        assert_eq!(page.header("vary"), Some("Accept"));
        let text = page.text();
        assert!(
            text.contains("Index of /pub/")
                && text.contains("href=\"./a%20b.txt\"")
                && text.contains("&lt;b&gt;/"),
            "{text}"
        );
        assert!(!text.contains("hidden") && !text.contains("<b>"), "{text}");
        assert!(client.get("/pub/%3Cb%3E/").await.text().contains("href=\"../\""));
        let json = client.get("/pub/").header("accept", "application/json, text/html;q=0.9").await;
        assert_eq!(json.header("content-type"), Some("application/json"));
        let entries = json.json();
        let names: Vec<_> =
            entries.as_array().unwrap().iter().map(|entry| entry["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["<b>", "indexed", "a b.txt"]);
        assert_eq!(entries[2]["size"], 36);
        let head = client.request("HEAD", "/pub/").await.expect_status(200);
        assert_eq!(
            (head.body.len(), head.header("content-length")),
            (0, Some(text.len().to_string().as_str()))
        );
        assert_eq!(client.get("/pub/indexed/").await.text(), PAGE);
        client.get("/pub/%3Cb%3E").await.expect_status(301);
    }
}

/// However it is spelt, encoded or linked: no byte from outside the root.
#[tokio::test]
async fn nothing_leaves_the_root() {
    let gw = site().start().await;
    let directory = gw.directory();
    let www = directory.join("www");
    symlink("../outside.txt", www.join("link")).unwrap();
    symlink(directory.join("outside.txt"), www.join("absolute")).unwrap();
    symlink("..", www.join("up")).unwrap();
    symlink("/etc", www.join("etc")).unwrap();
    symlink("a.txt", www.join("inside")).unwrap();
    symlink(www.join("sub"), www.join("inside-directory")).unwrap();
    std::fs::write(www.join("back\\slash"), "1").unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, www.join("fifo"), rustix::fs::Mode::RUSR).unwrap();
    let socket = std::os::unix::net::UnixListener::bind(www.join("socket")).unwrap();
    for target in [
        "/../outside.txt",
        "/%2e%2e/outside.txt",
        "/..%2foutside.txt",
        "/%2e%2e%2foutside.txt",
        "/sub/..%2f..%2foutside.txt",
        "/..%5coutside.txt",
        "/..\\outside.txt",
        "/%2foutside.txt",
        "//etc/passwd",
        "/%2fetc%2fpasswd",
        "/sub%2findex.html",
        "/a.txt%00",
        "/a.txt%00.html",
        "/%252e%252e/outside.txt",
        "/%c0%ae%c0%ae/outside.txt",
        "/.env",
        "/%2eenv",
        "/sub/../.env",
        "/empty/.keep",
        "/back%5cslash",
        "/fifo",
        "/socket",
        "/link",
        "/absolute",
        "/up/outside.txt",
        "/up/",
        "/etc/passwd",
        "/etc/",
        "/up/edgeward.toml",
    ] {
        let mut raw = gw.raw().await;
        raw.send(format!("GET {target} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")).await;
        let answer = raw.response().await;
        assert!([400, 403, 404].contains(&answer.status), "{target}: {} {}", answer.status, answer.text());
        assert!(!answer.text().contains("outside") && !answer.text().contains("root:"), "{target}");
    }
    for (path, status, code) in [
        ("/link", 403, "file.forbidden"),
        ("/absolute", 403, "file.forbidden"),
        ("/fifo", 404, "file.not_found"),
        ("/socket", 404, "file.not_found"),
        ("/sub%2Findex.html", 404, "file.not_found"),
        ("/.env", 404, "file.not_found"),
    ] {
        for client in [gw.client(), gw.client().http2()] {
            let answer = client.get(path).await.expect_problem(status, code);
            assert!(!answer.text().contains("www"), "the inside story: {}", answer.text());
        }
    }
    assert_eq!(gw.get("/inside").await.expect_status(200).text(), TEXT);
    assert_eq!(gw.get("/inside-directory/").await.expect_status(200).text(), "sub");
    drop(socket);
}

/// A deployment turns a link; a root that is mounted later is there from then on.
#[tokio::test]
async fn the_root_is_looked_up_for_each_request() {
    let gw = gateway("[[routes]]\npath = \"/*\"\nfiles = { root = \"current\" }\n")
        .file("one/index.html", "one")
        .file("two/index.html", "two")
        .start()
        .await;
    assert!(gw.stderr().contains("there is no directory"), "{}", gw.stderr());
    gw.get("/").await.expect_problem(404, "file.not_found");
    for release in ["one", "two"] {
        let directory = gw.directory();
        symlink(release, directory.join("new")).unwrap();
        std::fs::rename(directory.join("new"), directory.join("current")).unwrap();
        assert_eq!(gw.get("/").await.expect_status(200).text(), release);
    }
}

#[tokio::test]
async fn rules_logs_and_metrics_hold_for_files_too() {
    let gw = site()
        .and("response = { set = { \"Cache-Control\" = \"max-age=60\", \"X-Path\" = \"{path.rest}\" } }\n");
    let gw = gw.start().await;
    let found = gw.get("/a.txt").header("range", "bytes=0-9").await.expect_status(206);
    assert_eq!((found.header("cache-control"), found.header("x-path")), (Some("max-age=60"), Some("a.txt")));
    assert_eq!(gw.get("/none").await.header("cache-control"), Some("max-age=60"));
    assert_eq!(gw.logged("/a.txt").await, "/a.txt 206 10 - OK");
    let line = gw.logged("/none").await;
    assert!(line.starts_with("/none 404 ") && line.ends_with(" file.not_found OK"), "{line}");
    gw.metric_is("edgeward_http_requests_total", &["route=\"site\"", "code=\"206\""], 1.0).await;
    gw.metric_is("edgeward_http_requests_total", &["route=\"site\"", "code=\"404\""], 1.0).await;
    let arguments = ["explain", "GET", "http://h/sub/a%20b.txt"];
    let ran = site().command(&arguments).await;
    assert!(
        ran.stdout.contains("file        ") && ran.stdout.contains("www/sub/a b.txt\n"),
        "{}{}",
        ran.stdout,
        ran.stderr
    );
}

const MIB: u64 = 1024 * 1024;

/// A file of this size that takes no room on the disk.
fn big(gw: &Gateway, name: &str, size: u64) -> std::fs::File {
    let mut file = std::fs::File::create(gw.directory().join("www").join(name)).unwrap();
    file.write_all(b"begin").unwrap();
    file.set_len(size).unwrap();
    file
}

/// 200 MiB to one client, and 200 clients that take nothing: what is in memory is one piece for each.
#[tokio::test]
async fn large_files_and_slow_readers_cost_one_piece_each() {
    let gw = site().start().await;
    big(&gw, "big.bin", 200 * MIB);
    for client in [gw.client(), gw.client().http2()] {
        // Warm: buffers and threads of the first.
        assert_eq!(
            client.get("/big.bin").header("range", "bytes=0-9999999").stream().await.unwrap().count().await,
            10_000_000
        );
        let before = gw.resident_bytes();
        let whole = client.get("/big.bin").stream().await.unwrap();
        assert_eq!(whole.headers["content-length"], (200 * MIB).to_string());
        assert_eq!(whole.count().await, 200 * MIB);
        let grown = gw.resident_bytes().saturating_sub(before);
        assert!(grown < 16 * MIB, "{} MiB more after it", grown / MIB);
    }
    let mut slow = Vec::new();
    // The threads that read are there after the first of them.
    let mut before = 0;
    for count in [80, 200] {
        before = gw.resident_bytes();
        while slow.len() < count {
            let mut raw = gw.raw().await;
            raw.send("GET /big.bin HTTP/1.1\r\nHost: h\r\n\r\n").await;
            slow.push(raw);
        }
        gw.metric_is("edgeward_http_requests_in_flight", &["route=\"site\""], count as f64).await;
    }
    // They hold up nobody, and cost little.
    assert_eq!(gw.get("/a.txt").await.expect_status(200).text(), TEXT);
    let each = gw.resident_bytes().saturating_sub(before) / 120;
    // A piece, and what an allocator and a connection make of it: about 130 KiB, give or take when one looks.
    assert!(each < 400 * 1024, "{} KiB for each slow reader", each / 1024);
    drop(slow);
    gw.metric_is("edgeward_http_requests_in_flight", &["route=\"site\""], 0.0).await;
}

/// A file that becomes shorter on the way: broken off, never filled up, never taken for whole.
#[tokio::test]
async fn a_file_that_shrinks_breaks_the_answer_off() {
    let gw = site().start().await;
    for (name, client) in [("one.bin", gw.client()), ("two.bin", gw.client().http2())] {
        let file = big(&gw, name, 100 * MIB);
        let mut answer = client.get(&format!("/{name}")).stream().await.unwrap();
        assert!(answer.next().await.unwrap().starts_with(b"begin"));
        file.set_len(5).unwrap();
        let broken = loop {
            match answer.try_next().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("{name} looks whole"),
                Err(error) => break error,
            }
        };
        let line = gw.logged(&format!("/{name} ")).await;
        assert!(line.contains(" 200 ") && line.ends_with(" file.failed "), "{line} ({broken})");
    }
    gw.get("/a.txt").await.expect_status(200);
}

/// The route's time holds for a download as well; without one only a client that takes nothing is ended.
#[tokio::test]
async fn a_download_ends_with_its_time() {
    let gw = site()
        .and("timeout = \"500ms\"\n[limits]\nbody_timeout = \"700ms\"\n[upstream_defaults.timeouts]\nread = \"1s\"\n")
        .and("[[routes]]\nname = \"slow\"\npath = \"/slow/*\"\nrewrite = { prefix = \"/slow\", to = \"/\" }\nfiles = { root = \"www\" }\n")
        .start()
        .await;
    big(&gw, "big.bin", 100 * MIB);
    for path in ["/big.bin", "/slow/big.bin"] {
        let mut raw = gw.raw().await;
        raw.send(format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n")).await;
        // Nothing is read until the gateway has given up.
        let line = gw.logged(path).await;
        assert!(line.starts_with(&format!("{path} 200 ")), "{line}");
        assert!((raw.rest().await.len() as u64) < 100 * MIB);
    }
}
