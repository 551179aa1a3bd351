//! Certificates of clients: who gets in, what routes ask for, what services and logs learn, and what stands for them.

use crate::support::*;
use rcgen::{DnType, SanType};

const ROUTES: &str = "[[routes]]\nname = \"open\"\npath = \"/*\"\nrespond = { text = \"open\" }\n\
     [[routes]]\nname = \"admins\"\npath = \"/admin\"\nauth = { with = [\"mtls\"] }\nrespond = { text = \"in\" }\n\
     [[routes]]\nname = \"either\"\npath = \"/either\"\nauth = { with = [\"mtls\", \"none\"] }\nrespond = { text = \"in\" }\n";

/// A listener `main` for `localhost` that asks clients for certificates of `clients`.
fn asking(config: &str, server: &Authority, clients: &Authority, mode: &str) -> GatewayBuilder {
    gateway(config)
        .identity("site", &server.server(&["localhost"]))
        .file("clients.pem", &clients.pem)
        .listener("main", "127.0.0.1:0")
        .and(&format!("client_auth = {{ ca = \"clients.pem\", mode = \"{mode}\" }}"))
        .and("[[listeners.certificates]]\ncert = \"site.pem\"\nkey = \"site-key.pem\"")
}

#[tokio::test]
async fn optional_lets_everybody_in_and_routes_decide() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let gw = asking(ROUTES, &authority, &authority, "optional").start().await;
    let client = |identity: Option<&Identity>| {
        Client::new(gw.address()).tls(&authority.client_config(&[], identity), "localhost")
    };
    let alice = authority.client("alice");
    for http2 in [false, true] {
        let via = |client: Client| if http2 { client.http2() } else { client };
        let known = via(client(Some(&alice)));
        let anonymous = via(client(None));
        for (path, for_anonymous) in [("/", 200), ("/either", 200), ("/admin", 401)] {
            known.get(path).await.expect_status(200);
            anonymous.get(path).await.expect_status(for_anonymous);
        }
        let refused = anonymous.get("/admin").await.expect_problem(401, "auth.certificate_required");
        assert_eq!(refused.header("www-authenticate"), None);
        // What does not verify is no certificate, and not the same as none either: TLS refuses it.
        assert!(never_answered(&via(client(Some(&stranger.client("alice"))))).await);
    }
    gw.metric_is("edgeward_http_requests_rejected_total", &["auth.certificate_required"], 4.0).await;
}

/// With TLS 1.3 the client believes to be connected before the server has looked at its certificate.
async fn never_answered(client: &Client) -> bool {
    match client.try_connect().await {
        Err(_) => true,
        Ok(connection) => connection.get("/").send().await.is_err(),
    }
}

#[tokio::test]
async fn required_lets_nobody_else_in() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let gw = asking(ROUTES, &authority, &authority, "required").start().await;
    let client = |identity: Option<&Identity>| {
        Client::new(gw.address()).tls(&authority.client_config(&[], identity), "localhost")
    };
    client(Some(&authority.client("alice"))).get("/admin").await.expect_status(200);
    let expired = authority.issue_with(|params| params.not_after = rcgen::date_time_ymd(2020, 1, 1));
    let for_servers = authority.server(&["alice"]);
    for refused in [None, Some(&stranger.client("alice")), Some(&expired), Some(&for_servers)] {
        assert!(never_answered(&client(refused)).await);
    }
    gw.metric_is("edgeward_tls_handshake_failures_total", &["client_certificate"], 4.0).await;
}

/// A route is reached over whatever listener serves it; where nobody was asked, nobody is known.
#[tokio::test]
async fn a_listener_that_does_not_ask_knows_nobody() {
    let authority = Authority::new();
    let gw = asking(ROUTES, &authority, &authority, "optional")
        .listener("plain", "127.0.0.1:0")
        .tls_listener("open", &["site"])
        .start()
        .await;
    let with = authority.client_config(&[], Some(&authority.client("alice")));
    let plain = Client::new(gw.listener("plain"));
    let open = Client::new(gw.listener("open")).tls(&with, "localhost");
    for client in [plain, open] {
        client.get("/admin").await.expect_problem(401, "auth.certificate_required");
        client.get("/either").await.expect_status(200);
    }
    Client::new(gw.listener("main")).tls(&with, "localhost").get("/admin").await.expect_status(200);
}

/// `[defaults]` hold for what matches no route, too: a stranger does not learn what there is.
#[tokio::test]
async fn defaults_ask_everybody() {
    let authority = Authority::new();
    let routes = "[defaults]\nauth = { with = [\"mtls\"] }\n\
         [[routes]]\npath = \"/in\"\nrespond = {}\n\
         [[routes]]\npath = \"/open\"\nauth = \"none\"\nrespond = {}\n";
    let gw = asking(routes, &authority, &authority, "optional").start().await;
    let stranger = Client::new(gw.address()).tls(&authority.client_config(&[], None), "localhost");
    for (path, status) in [("/in", 401), ("/open", 200), ("/nothing", 401)] {
        stranger.get(path).await.expect_status(status);
    }
    let alice = authority.client_config(&[], Some(&authority.client("alice")));
    let alice = Client::new(gw.address()).tls(&alice, "localhost");
    for (path, status) in [("/in", 200), ("/open", 200), ("/nothing", 404)] {
        alice.get(path).await.expect_status(status);
    }
}

/// The subject as OpenSSL, and so nginx, writes it.
#[tokio::test]
async fn services_and_logs_learn_who_it_was() {
    let authority = Authority::new();
    let app = upstream().start().await;
    let format = "\n[log.access]\nformat = '$ssl_client_verify|$ssl_client_s_dn|$ssl_client_i_dn|$ssl_client_serial|$ssl_client_fingerprint|$uri'\n";
    let routes = format!(
        "[upstreams.app]\nservers = [\"{{app}}\"]\n{format}[[routes]]\npath = \"/*\"\nupstream = \"app\"\n\
         [[routes]]\npath = \"/me/*\"\nupstream = \"app\"\nrewrite = {{ path = \"/users/{{client.cert.email}}/{{client.cert.serial}}\" }}\n"
    );
    let gw = asking(&routes, &authority, &authority, "optional").with("app", &app).start().await;
    let identity = authority.issue_with(|params| {
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, value) in [
            (DnType::CountryName, "DE"),
            (DnType::OrganizationName, "Acme, \"Inc\" + Söhne"),
            (DnType::CustomDnType(vec![0, 9, 2342, 19200300, 100, 1, 1]), "alice #1"),
            (DnType::CustomDnType(vec![1, 3, 6, 1, 4, 1, 99999, 1]), "x"),
            (DnType::CommonName, " alice=a;b\\<c> "),
        ] {
            params.distinguished_name.push(kind, value);
        }
        params.subject_alt_names.push(SanType::Rfc822Name("alice@example.com".try_into().unwrap()));
        params.serial_number = Some(vec![0x0f, 0xab].into());
    });
    let directory = tempfile::tempdir().unwrap();
    identity.write(directory.path(), "alice");
    let openssl = async |arguments: &[&str]| {
        let mut command = std::process::Command::new("openssl");
        command.current_dir(directory.path()).args([
            "x509",
            "-noout",
            "-in",
            "alice.pem",
            "-nameopt",
            "rfc2253",
        ]);
        let ran = run({
            command.args(arguments);
            command
        })
        .await;
        assert_eq!(ran.status, 0, "{}", ran.stderr);
        ran.stdout.trim_end().split_once('=').unwrap().1.to_owned()
    };
    let (subject, issuer) = (openssl(&["-subject"]).await, openssl(&["-issuer"]).await);
    let sha1 = openssl(&["-fingerprint", "-sha1"]).await.replace(':', "").to_lowercase();

    let alice = authority.client_config(&[], Some(&identity));
    for http2 in [false, true] {
        let client = Client::new(gw.address()).tls(&alice, "localhost");
        let client = if http2 { client.http2() } else { client };
        let echo = client.get("/").header("X-Auth-Subject", "CN=root").header("Connection", "x-auth-subject");
        let echo = if http2 { client.get("/").header("x-auth-subject", "CN=root") } else { echo };
        assert_eq!(echo.await.echo().header("x-auth-subject").as_deref(), Some(subject.as_str()));
        assert_eq!(client.get("/me/x").await.echo().target(), "/users/alice@example.com/0FAB");
    }
    assert_eq!(
        gw.logged("|/").await,
        format!("SUCCESS|{}|{issuer}|0FAB|{sha1}|/", subject.replace('\\', "\\x5C").replace('"', "\\x22"))
    );

    // Nobody is nobody, whatever he says; and a path that needs to know him is not there for him.
    let anonymous = Client::new(gw.address()).tls(&authority.client_config(&[], None), "localhost");
    let echo = anonymous.get("/anonymous").header("X-Auth-Subject", "CN=root").await.echo();
    assert_eq!(echo.headers("x-auth-subject"), Vec::<String>::new());
    assert_eq!(gw.logged("|/anonymous").await, "NONE|-|-|-|-|/anonymous");
    anonymous.get("/me/x").await.expect_status(400);
}

#[tokio::test]
async fn the_header_of_identity_is_configured() {
    let authority = Authority::new();
    let app = upstream().start().await;
    let alice = authority.client_config(&[], Some(&authority.client("alice")));
    for (setting, theirs, ours) in
        [("X-User", vec!["CN=root"], Some("CN=alice")), ("", vec!["CN=root"], None)]
    {
        let routes = format!(
            "[identity]\nsubject_header = \"{setting}\"\n[upstreams.app]\nservers = [\"{{app}}\"]\n\
             [[routes]]\npath = \"/*\"\nupstream = \"app\"\n"
        );
        let gw = asking(&routes, &authority, &authority, "optional").with("app", &app).start().await;
        let client = Client::new(gw.address()).tls(&alice, "localhost");
        let request = client.get("/").header("X-User", "root").header("X-Auth-Subject", "CN=root");
        let echo = request.await.echo();
        assert_eq!(echo.headers("x-auth-subject"), theirs);
        assert_eq!(echo.header("x-user").as_deref(), ours.or(Some("root")));
    }
    // Also where nobody asks for certificates: a service must be able to believe the header.
    let gw = in_front_of(&app, "").start().await;
    let echo = gw.get("/").header("X-Auth-Subject", "CN=root").await.echo();
    assert_eq!(echo.headers("x-auth-subject"), Vec::<String>::new());
}

/// Asks for `/admin` with openssl, which shows what it shook hands about.
async fn openssl(gw: &Gateway, arguments: &str) -> String {
    let mut command = std::process::Command::new("sh");
    command.current_dir(gw.directory()).arg("-c").arg(format!(
        "printf 'GET /admin HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n' | openssl s_client \
         -ign_eof -connect {} -servername localhost -CAfile ca.pem {arguments}",
        gw.address()
    ));
    run(command).await.stdout
}

/// With openssl, a client that would resume: there is nothing to resume, so who it is counts each time.
#[tokio::test]
async fn every_visit_shows_a_certificate() {
    let authority = Authority::new();
    let gw = asking(ROUTES, &authority, &authority, "optional").start().await;
    let directory = gw.directory();
    authority.client("alice").write(&directory, "alice");
    authority.write(&directory, "ca.pem");
    for version in ["-tls1_2", "-tls1_3"] {
        for tickets in ["", "-no_ticket"] {
            let visit =
                async |arguments: &str| openssl(&gw, &format!("{version} {tickets} {arguments}")).await;
            let out = visit("-sess_out nobody.session").await;
            assert!(out.contains("\nNew, ") && out.contains("HTTP/1.1 401"), "{out}");
            // Of TLS 1.3 there is nothing to keep.
            let kept = directory.join("nobody.session").exists();
            let session = if kept { "-sess_in nobody.session" } else { "" };
            let out = visit(&format!("-cert alice.pem -key alice-key.pem {session}")).await;
            assert!(out.contains("\nNew, ") && out.contains("HTTP/1.1 200"), "{out}");
            std::fs::remove_file(directory.join("nobody.session")).unwrap_or_default();
        }
    }
}

/// A certificate that expires ends the connection it was shown on.
#[tokio::test]
async fn an_expired_certificate_is_good_for_no_more() {
    let authority = Authority::new();
    let gw = asking(ROUTES, &authority, &authority, "optional").start().await;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let until = std::time::Duration::from_secs(now.as_secs() + 3);
    let alice = authority.issue_with(|params| params.not_after = rcgen::date_time_ymd(1970, 1, 1) + until);
    let trust = authority.client_config(&[], Some(&alice));
    let one = Client::new(gw.address()).tls(&trust, "localhost").connect().await;
    let two = Client::new(gw.address()).tls(&trust, "localhost").http2().connect().await;
    for connection in [one, two] {
        let refused = eventually("it to expire", async || {
            let answer = connection.get("/admin").await;
            (answer.status != 200).then_some(answer)
        });
        refused.await.expect_problem(421, "request.misdirected");
        within("the end of the connection", connection.closed()).await;
    }
}

#[tokio::test]
async fn a_host_of_another_certificate_is_misdirected() {
    let authority = Authority::new();
    let routes = "[[routes]]\npath = \"/*\"\nrespond = { text = \"ok\" }\n";
    let gw = gateway(routes)
        .identity("first", &authority.server(&["first.example", "127.0.0.1"]))
        .identity("other", &authority.server(&["other.example"]))
        .identity("both", &authority.server(&["one.example", "two.example", "*.wild.example"]))
        .tls_listener("main", &["first", "other", "both"])
        .start()
        .await;
    let trust = authority.client_config(&[], None);
    for (made_for, host, status) in [
        ("first.example", "first.example", 200),
        ("first.example", "FIRST.example.:8443", 200),
        ("first.example", "other.example", 421),
        ("first.example", "one.example", 421),
        // Nobody's name gets the first certificate.
        ("first.example", "unknown.example", 200),
        ("other.example", "unknown.example", 421),
        ("other.example", "first.example", 421),
        ("one.example", "two.example", 200),
        ("one.example", "a.wild.example", 200),
        ("a.wild.example", "b.wild.example", 200),
        ("one.example", "other.example", 421),
        // No name is sent with an address.
        ("127.0.0.1", "127.0.0.1", 200),
        ("127.0.0.1", "first.example", 200),
        ("127.0.0.1", "other.example", 421),
    ] {
        let client = Client::new(gw.address()).tls(&trust, made_for);
        for client in [client.clone(), client.http2()] {
            let answer = client.get("/").host(host).await;
            assert_eq!(answer.status, status, "{host} on a connection for {made_for}");
            if status == 421 {
                answer.expect_problem(421, "request.misdirected");
            }
        }
    }
    // The connection is as good as before for what it was made for.
    let connection = Client::new(gw.address()).tls(&trust, "first.example").http2().connect().await;
    connection.get("/").host("other.example").await.expect_status(421);
    connection.get("/").host("first.example").await.expect_status(200);
}

#[tokio::test]
async fn one_certificate_serves_all_names() {
    let authority = Authority::new();
    let routes = "[[routes]]\npath = \"/*\"\nrespond = { text = \"ok\" }\n";
    let gw = gateway(routes)
        .identity("site", &authority.server(&["localhost"]))
        .tls_listener("main", &["site"])
        .listener("plain", "127.0.0.1:0")
        .start()
        .await;
    let client = Client::new(gw.listener("main")).tls(&authority.client_config(&[], None), "localhost");
    for host in ["localhost", "www.example.com", "192.0.2.1", "[::1]:443"] {
        client.get("/").host(host).await.expect_status(200);
        Client::new(gw.listener("plain")).get("/").host(host).await.expect_status(200);
    }
}

#[tokio::test]
async fn explain_shows_what_is_asked() {
    let authority = Authority::new();
    let config = asking(ROUTES, &authority, &authority, "optional");
    let out = config.command(&["explain", "-c", "edgeward.toml", "GET", "https://localhost/admin"]).await;
    assert_eq!(out.status, 0, "{}", out.stderr);
    assert!(out.stdout.contains("auth        auth.with = [\"mtls\"]  (edgeward.toml:"), "{}", out.stdout);
}

/// Certificates, authorities and modes change by a reload; what did not change goes on.
#[tokio::test]
async fn a_reload_changes_what_is_asked_and_shown() {
    const EXPIRY: &str = "edgeward_tls_certificate_not_after_timestamp_seconds";
    let (authority, other) = (Authority::new(), Authority::new());
    let site = |year| {
        authority.issue_with(|params| {
            params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
            params.subject_alt_names = vec![SanType::DnsName("localhost".try_into().unwrap())];
            params.not_after = rcgen::date_time_ymd(year, 1, 1);
        })
    };
    let first = site(2050);
    let gw = gateway(&format!("[server]\ncontrol_socket = \"run/control.sock\"\n{ROUTES}"))
        .identity("site", &first)
        .file("clients.pem", &authority.pem)
        .listener("main", "127.0.0.1:0")
        .and("client_auth = { ca = \"clients.pem\", mode = \"optional\" }")
        .and("[[listeners.certificates]]\ncert = \"site.pem\"\nkey = \"site-key.pem\"")
        .start()
        .await;
    let directory = gw.directory();
    let (alice, bob) = (authority.client("alice"), other.client("bob"));
    alice.write(&directory, "alice");
    authority.write(&directory, "ca.pem");
    let client = |identity: &Identity| {
        Client::new(gw.address()).tls(&authority.client_config(&[], Some(identity)), "localhost")
    };
    gw.metric_is(EXPIRY, &["site.pem"], 2_524_608_000.0).await;

    gw.rewrite("edgeward.toml", |text| text.replace("\"open\" }", "\"opened\" }"));
    assert_eq!(gw.order("reload").await.stdout.lines().next(), Some("altered route open"));

    // A renewed certificate: open connections stay, and new ones get it.
    let open = client(&alice).connect().await;
    open.get("/admin").await.expect_status(200);
    site(2060).write(&directory, "site");
    assert_eq!(gw.order("reload").await.stdout.lines().next(), Some("altered listener main"));
    gw.metric_is(EXPIRY, &[], 2_840_140_800.0).await;
    open.get("/admin").await.expect_status(200);
    let anew = openssl(&gw, "-tls1_3 -cert alice.pem -key alice-key.pem").await;
    assert!(anew.contains("\nNew, ") && anew.contains("HTTP/1.1 200"), "{anew}");

    // What cannot be used changes nothing.
    gw.rewrite("clients.pem", |_| alice.key_pem.clone());
    let refused = gw.order("reload").await;
    assert!(
        refused.status == 1 && refused.stderr.contains("clients.pem has no certificate in it"),
        "{refused:?}"
    );
    open.get("/admin").await.expect_status(200);
    client(&alice).get("/admin").await.expect_status(200);

    // Other authorities: who came by the old ones is asked to come again, and does not get in.
    gw.rewrite("clients.pem", |_| other.pem.clone());
    assert_eq!(gw.order("reload").await.stdout.lines().next(), Some("altered listener main"));
    open.get("/admin").await.expect_problem(421, "request.misdirected");
    open.closed().await;
    assert!(never_answered(&client(&alice)).await);
    client(&bob).get("/admin").await.expect_status(200);

    // Whether there is TLS at all was settled with the socket.
    gw.rewrite("edgeward.toml", |text| {
        let lines = text.lines().filter(|line| {
            !["auth", "client_auth", "[[listeners.certificates]]", "cert", "key"]
                .iter()
                .any(|key| line.starts_with(key))
        });
        lines.collect::<Vec<_>>().join("\n")
    });
    let refused = gw.order("reload").await;
    assert!(refused.status == 1 && refused.stderr.contains("upgrade"), "{refused:?}");
    client(&bob).get("/admin").await.expect_status(200);
}
