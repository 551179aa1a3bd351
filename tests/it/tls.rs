//! TLS towards clients and towards services, and the certificates that cannot be used.

use rustls::version::{TLS12, TLS13};

use crate::support::*;

const ROUTES: &str = "[[routes]]\npath = \"/*\"\nrespond = { status = 200, text = \"ok\" }\n";

#[tokio::test]
async fn the_certificate_is_chosen_by_its_own_names() {
    let authority = Authority::new();
    let gw = gateway(ROUTES)
        .identity("first", &authority.server(&["first.example"]))
        .identity("wild", &authority.server(&["*.example.com"]))
        .identity("exact", &authority.server(&["api.example.com", "other.example"]))
        .tls_listener("main", &["first", "wild", "exact"])
        .start()
        .await;
    let trust = authority.client_config(&[], None);
    for name in ["first.example", "www.example.com", "api.example.com", "other.example"] {
        let client = Client::new(gw.address()).tls(&trust, name);
        assert_eq!(client.get("/").host(name).await.expect_status(200).text(), "ok", "{name}");
    }
    // Nobody's name: the first is the default, and a strict client does not take it.
    assert!(Client::new(gw.address()).tls(&trust, "unknown.example").try_connect().await.is_err());
    let address = gw.address();
    let out = curl(&["-k", "-w", "%{http_code}", &format!("https://{address}/")]).await;
    assert_eq!(out.stdout, "ok200", "without SNI the first certificate is used: {}", out.stderr);
}

#[tokio::test]
async fn both_versions_and_both_protocols() {
    let authority = Authority::new();
    let gw = gateway(ROUTES)
        .identity("site", &authority.server(&["localhost"]))
        .tls_listener("main", &["site"])
        .start()
        .await;
    assert!(gw.url("main").starts_with("https://"));
    for version in [&TLS12, &TLS13] {
        let trust = authority.client_config_of(version);
        let client = Client::new(gw.address()).tls(&trust, "localhost");
        assert_eq!(client.get("/").await.expect_status(200).version, http::Version::HTTP_11);
        let h2 = client.http2().get("/").await.expect_status(200);
        assert_eq!(h2.version, http::Version::HTTP_2);
    }
    for old in ["1.0", "1.1"] {
        let url = format!("https://{}/", gw.address());
        let out = curl(&["-k", "--tls-max", old, "--ciphers", "DEFAULT@SECLEVEL=0", &url]).await;
        assert_ne!(out.status, 0, "TLS {old} was accepted");
    }
    gw.stop().await;
}

#[tokio::test]
async fn the_service_learns_that_it_was_https() {
    let authority = Authority::new();
    let app = upstream().start().await;
    let gw = in_front_of(&app, "")
        .identity("site", &authority.server(&["localhost"]))
        .tls_listener("main", &["site"])
        .start()
        .await;
    let client = Client::new(gw.address()).tls(&authority.client_config(&[], None), "localhost");
    let echo = client.get("/").await.echo();
    assert_eq!(echo.header("x-forwarded-proto").as_deref(), Some("https"));
    let echo = client.http2().get("/").await.echo();
    assert_eq!(echo.header("x-forwarded-proto").as_deref(), Some("https"));
    assert_eq!(echo.header("x-forwarded-port"), Some(gw.address().port().to_string()));
}

#[tokio::test]
async fn cleartext_on_a_tls_port_and_silence_harm_nobody() {
    let authority = Authority::new();
    let gw = gateway(ROUTES)
        .and("[limits]\nheader_timeout = \"500ms\"\n")
        .identity("site", &authority.server(&["localhost"]))
        .tls_listener("main", &["site"])
        .start()
        .await;
    let mut raw = gw.raw().await;
    raw.send("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    raw.rest().await;
    let mut silent = gw.raw().await;
    silent.rest().await;
    let mut half = gw.raw().await;
    half.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03").await;
    half.rest().await;
    let client = Client::new(gw.address()).tls(&authority.client_config(&[], None), "localhost");
    client.get("/").await.expect_status(200);
}

/// Bad certificates and keys are mistakes of the configuration: named, at their place, and nothing panics.
#[tokio::test]
async fn unusable_certificates_are_configuration_errors() {
    let authority = Authority::new();
    let good = authority.server(&["localhost"]);
    let other = authority.server(&["localhost"]);
    let cases = [
        ("a missing file", None, None),
        ("not PEM", Some("hello".to_owned()), Some(good.key_pem.clone())),
        ("an empty file", Some(String::new()), Some(good.key_pem.clone())),
        ("a key in place of the certificate", Some(good.key_pem.clone()), Some(good.key_pem.clone())),
        ("a certificate in place of the key", Some(good.cert_pem.clone()), Some(good.cert_pem.clone())),
        ("another's key", Some(good.cert_pem.clone()), Some(other.key_pem.clone())),
        ("a damaged certificate", Some(good.cert_pem.replacen("MII", "MIJ", 1)), Some(good.key_pem.clone())),
    ];
    for (what, cert, key) in cases {
        let mut builder = gateway(ROUTES).tls_listener("main", &["site"]);
        if let Some(cert) = cert {
            builder = builder.file("site.pem", &cert);
        }
        if let Some(key) = key {
            builder = builder.file("site-key.pem", &key);
        }
        let refused = builder.refused().await;
        assert_eq!(refused.status, 1, "{what}: {}", refused.stderr);
        assert!(refused.stderr.contains("edgeward.toml:"), "{what}: {}", refused.stderr);
        assert!(refused.stderr.contains("site"), "{what}: {}", refused.stderr);
        let secret = good.key_pem.lines().nth(1).unwrap();
        assert!(!refused.stderr.contains(secret), "{what}: the key is shown: {}", refused.stderr);
    }
}

#[tokio::test]
async fn services_behind_tls() {
    let authority = Authority::new();
    let app = upstream().tls(&authority.server(&["app.internal"])).start().await;
    let settings = "tls = { sni = \"app.internal\", ca = \"ca.pem\" }";
    let gw = in_front_of(&app, settings).file("ca.pem", &authority.pem).start().await;
    assert_eq!(gw.get("/x").await.echo().version(), "HTTP/1.1");
    drop(gw);
    let gw =
        in_front_of(&app, &format!("{settings}\nhttp2 = true")).file("ca.pem", &authority.pem).start().await;
    assert_eq!(gw.get("/x").await.echo().version(), "HTTP/2.0");
}

/// A service that cannot prove who it is gets nothing, and the client learns only that.
#[tokio::test]
async fn a_service_with_a_wrong_certificate_is_502() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let app = upstream().tls(&authority.server(&["app.internal"])).start().await;
    for (sni, ca) in [("app.internal", &stranger), ("other.internal", &authority)] {
        let settings = format!("retry = {{ attempts = 1 }}\ntls = {{ sni = \"{sni}\", ca = \"ca.pem\" }}");
        let gw = in_front_of(&app, &settings).file("ca.pem", &ca.pem).start().await;
        let answer = gw.get("/").await.expect_problem(502, "upstream.tls_failed");
        assert!(
            !answer.text().contains("internal") && !answer.text().contains("certificate"),
            "{}",
            answer.text()
        );
    }
    let plain = upstream().start().await;
    let settings = "retry = { attempts = 1 }\ntls = { sni = \"localhost\", ca = \"ca.pem\" }";
    let gw = in_front_of(&plain, settings).file("ca.pem", &authority.pem).start().await;
    gw.get("/").await.expect_problem(502, "upstream.tls_failed");
    assert_eq!((app.requests(), plain.requests()), (0, 0));
}

#[tokio::test]
async fn the_gateway_shows_its_certificate_to_services_that_want_it() {
    let authority = Authority::new();
    let app = upstream().mutual_tls(&authority.server(&["app.internal"]), &authority).start().await;
    let identity = authority.client("gateway");
    let settings = "tls = { sni = \"app.internal\", ca = \"ca.pem\", client_cert = \"gw.pem\", client_key = \"gw-key.pem\" }";
    let gw =
        in_front_of(&app, settings).file("ca.pem", &authority.pem).identity("gw", &identity).start().await;
    gw.get("/").await.expect_status(200);
    let without = "retry = { attempts = 1 }\ntls = { sni = \"app.internal\", ca = \"ca.pem\" }";
    let gw = in_front_of(&app, without).file("ca.pem", &authority.pem).start().await;
    assert_eq!(gw.get("/").await.status, 502);
}

/// The access log says what was wrong, for whoever may read it.
#[tokio::test]
async fn the_log_says_why_a_service_was_not_believed() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let good = upstream().tls(&authority.server(&["app.internal"])).start().await;
    let expired = authority.issue_with(|params| {
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
        params.subject_alt_names = vec![rcgen::SanType::DnsName("app.internal".try_into().unwrap())];
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    });
    let expired = upstream().tls(&expired).start().await;
    for (app, ca, sni, why) in [
        (&good, &authority, "other.internal", "not valid for name"),
        (&good, &stranger, "app.internal", "invalid peer certificate"),
        (&expired, &authority, "app.internal", "expired"),
    ] {
        let settings = format!(
            "retry = {{ attempts = 1 }}\ntls = {{ sni = \"{sni}\", ca = \"ca.pem\" }}\n\
             [log.access]\nformat = '$status $reason $error_detail'"
        );
        let gw = in_front_of(app, &settings).file("ca.pem", &ca.pem).start().await;
        gw.get("/").await.expect_problem(502, "upstream.tls_failed");
        let line = gw.logged("502 upstream.tls_failed ").await;
        assert!(line.contains(why), "{why}: {line}");
        assert_eq!(app.requests(), 0);
    }
}

/// Two upstreams at one address: each connection belongs to the one whose rules it was made by.
#[tokio::test]
async fn connections_are_not_shared_between_policies() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let app =
        upstream().mutual_tls(&authority.server(&["app.internal", "app.alias"]), &authority).start().await;
    let routes = |name: &str| format!("[[routes]]\npath = \"/{name}\"\nupstream = \"{name}\"\n");
    let upstream = |name: &str, tls: &str| {
        format!(
            "[upstreams.{name}]\nservers = [\"{{app}}\"]\nretry = {{ attempts = 1 }}\ntls = {{ {tls} }}\n{}",
            routes(name)
        )
    };
    let shown = "client_cert = \"gw.pem\", client_key = \"gw-key.pem\"";
    let config = [
        upstream("good", &format!("sni = \"app.internal\", ca = \"ca.pem\", {shown}")),
        upstream("same", &format!("sni = \"app.internal\", ca = \"ca.pem\", {shown}")),
        upstream("alias", &format!("sni = \"app.alias\", ca = \"ca.pem\", {shown}")),
        upstream("nobody", "sni = \"app.internal\", ca = \"ca.pem\""),
        upstream("distrustful", &format!("sni = \"app.internal\", ca = \"stranger.pem\", {shown}")),
    ]
    .concat();
    let gw = gateway(&config)
        .with("app", &app)
        .file("ca.pem", &authority.pem)
        .file("stranger.pem", &stranger.pem)
        .identity("gw", &authority.client("gateway"))
        // Each has connections of its own.
        .and("[server]\nthreads = 1\n")
        .start()
        .await;
    gw.get("/good").await.expect_status(200);
    gw.get("/good").await.expect_status(200);
    assert_eq!(app.connections(), 1, "kept");
    gw.get("/same").await.expect_status(200);
    assert_eq!(app.connections(), 1, "the same rules: the same connection");
    gw.get("/alias").await.expect_status(200);
    assert_eq!(app.connections(), 2);
    assert_eq!(gw.get("/nobody").await.status, 502);
    gw.get("/distrustful").await.expect_problem(502, "upstream.tls_failed");
    assert_eq!(app.requests(), 4, "nothing went out on a connection of another");
    gw.get("/good").await.expect_status(200);
    assert_eq!(app.requests(), 5);
}

/// What the repository brings along for the first minute, as curl and a strict client see it.
#[tokio::test]
async fn the_development_certificate_works() {
    let certs = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("certs");
    let read = |name: &str| std::fs::read_to_string(certs.join(name)).unwrap();
    let gw = gateway(ROUTES)
        .file("site.pem", &read("localhost.pem"))
        .file("site-key.pem", &read("localhost-key.pem"))
        .tls_listener("main", &["site"])
        .start()
        .await;
    let trust = trusting(&certs.join("ca.pem"), &[]);
    for name in ["localhost", "127.0.0.1"] {
        Client::new(gw.address()).tls(&trust, name).get("/").await.expect_status(200);
    }
    let (port, ca) = (gw.address().port(), certs.join("ca.pem").display().to_string());
    let url = format!("https://localhost:{port}/");
    let out = curl(&["--cacert", &ca, "-w", " HTTP/%{http_version}", &url]).await;
    assert_eq!((out.status, out.stdout.as_str()), (0, "ok HTTP/2"), "{}", out.stderr);
}
