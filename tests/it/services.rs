//! Services of the store: rows that are served as routes while the gateway runs, by commands, by the Admin API, and
//! written behind everybody's back.

use std::io::Write;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use serde_json::{Value, json};
use sqlx::Connection as _;

use crate::support::postgres::{Postgres, psql};
use crate::support::*;

const SQLITE: &str = "[store]\nurl = \"sqlite:run/edgeward.db\"\nservices = true\n";
const LOCAL: &str = "[identity.providers.local]\nissuer = \"https://edge.example.com/\"\naudience = [\"shop\"]\n\
    algorithms = [\"HS256\"]\nsecret = \"0123456789abcdef0123456789abcdef\"\n";
const CONTROL: &str = "[server]\ncontrol_socket = \"run/control.sock\"\n";
const GUARDED: &str = "[[routes]]\nname = \"guarded\"\npath = \"/admin/*\"\n\
    auth = { with = [\"jwt:local\"], roles = [\"admin\"] }\nrespond = { text = \"admin\" }\n\
    [[routes]]\nname = \"front\"\npath = \"/*\"\nrespond = { text = \"front\" }\n";
const TOKEN: &str = "0123456789abcdef-token";
const ADMIN: &str =
    "[admin]\naddress = \"127.0.0.1:0\"\ntoken = { env = \"ADMIN_TOKEN\" }\nnames = [\"edge.internal\"]\n";

/// Runs the command in `directory` with what it reads.
async fn told(directory: &Path, arguments: &[&str], input: &str) -> Ran {
    let mut command = command(directory, arguments);
    command.env("ADMIN_TOKEN", TOKEN);
    let (input, shown) = (input.to_owned(), arguments.join(" "));
    let work = tokio::task::spawn_blocking(move || {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap()
    });
    let output = within(&shown, work).await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let status = output.status.code().unwrap_or(-1);
    Ran { status, stdout: text(&output.stdout), stderr: text(&output.stderr) }
}

async fn done(directory: &Path, arguments: &[&str]) -> String {
    let ran = told(directory, arguments, "").await;
    assert_eq!((ran.status, ran.stderr.as_str()), (0, ""), "{arguments:?}: {}", ran.stdout);
    ran.stdout
}

async fn refused(directory: &Path, arguments: &[&str], part: &str) {
    let ran = told(directory, arguments, "").await;
    assert_eq!(ran.status, 1, "{arguments:?}: {}", ran.stdout);
    assert!(ran.stderr.contains(part) && !ran.stderr.contains("panicked"), "{arguments:?}: {}", ran.stderr);
}

fn url(kind: &str, server: &Upstream, path: &str) -> String {
    format!("{kind}=http://{}{path}", server.address())
}

/// A server that says of every request what it is and what was asked.
async fn telling(name: &'static str) -> Upstream {
    let answer = Answer::with(move |seen| {
        let body = json!({ name: 1, "path": seen.uri.to_string(), "method": seen.method.as_str() });
        Fixed::new(200, body.to_string().into()).with("content-type", "application/json")
    });
    upstream().otherwise(answer).start().await
}

/// Writes rows as anybody could.
async fn written(directory: &Path, sql: &str) {
    let url = format!("sqlite:{}", directory.join("run/edgeward.db").display());
    let mut connection = sqlx::SqliteConnection::connect(&url).await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned())).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

fn row(name: &str, path: &str, endpoint: &str) -> String {
    format!(
        "INSERT INTO edgeward_services (name, path, endpoints) VALUES ('{name}', '{path}', \
         '[{{\"type\":\"http-get\",\"url\":\"{endpoint}\"}}]');"
    )
}

/// Waits until the path answers with the status.
async fn answers(gw: &Gateway, path: &str, status: u16) -> Response {
    let probe = async || {
        let response = gw.get(path).await;
        (response.status == status).then_some(response)
    };
    eventually(&format!("{path} to answer {status}"), probe).await
}

/// Waits until the path is a service's, where `/*` says `front`.
async fn is_served(gw: &Gateway, path: &str) -> Response {
    let probe = async || {
        let response = gw.get(path).await;
        (response.text() != "front").then_some(response)
    };
    eventually(&format!("{path} to be served"), probe).await.expect_status(200)
}

async fn verbose(gw: &Gateway) -> String {
    gw.admin().get("/readyz?verbose").await.text()
}

#[tokio::test]
async fn a_service_that_is_added_is_served_without_a_restart() {
    let (users, orders) = (telling("users").await, telling("orders").await);
    let gw = gateway(&format!("{CONTROL}{SQLITE}{LOCAL}{GUARDED}")).start().await;
    let here = gw.directory();
    assert_eq!(gw.get("/users").await.text(), "front");
    let began = Instant::now();
    // With a control socket it is served when the command returns.
    done(
        &here,
        &[
            "service",
            "add",
            "users",
            "--path",
            "/users",
            "--endpoint",
            &url("http-get", &users, "/api/users"),
        ],
    )
    .await;
    let answer = gw.get("/users?x=1").await.expect_status(200).json();
    assert_eq!(answer, json!({ "users": 1, "path": "/api/users?x=1", "method": "GET" }));
    assert!(began.elapsed() < PATIENCE);
    assert_eq!(gw.request("POST", "/users").await.text(), "front", "the service is for GET");

    // Many endpoints, one answer, in their order; one that fails is left out, and that is told.
    done(
        &here,
        &[
            "service",
            "add",
            "both",
            "--path",
            "/both/{id}",
            "--roles",
            "user,auditor",
            "--endpoint",
            &url("http-get", &users, "/u/{path.id}"),
            "--endpoint",
            &url("http-get", &orders, "/o?of={path.id}"),
        ],
    )
    .await;
    gw.get("/both/7").await.expect_status(401);
    let token = async |roles: &str| {
        let token = done(&here, &["token", "issue", "--subject", "alice", "--roles", roles]).await;
        format!("Bearer {}", token.trim())
    };
    gw.get("/both/7").header("authorization", &token("user").await).await.expect_status(403);
    let both = token("user,auditor").await;
    let whole = gw.get("/both/a%2Fb").header("authorization", &both).await.expect_status(200).json();
    assert_eq!((&whole["users"], &whole["orders"], &whole["method"]), (&json!(1), &json!(1), &json!("GET")));
    assert!(whole["path"].as_str().unwrap().starts_with("/o?of=a"), "the later one counts: {whole}");
    assert_eq!(users.last().uri.to_string(), "/u/a%2Fb", "a value never adds a segment");
    users.otherwise(Answer::status(500));
    let part = gw.get("/both/7").header("authorization", &both).await.expect_status(200);
    assert_eq!(part.header("x-edgeward-completed"), Some("false"));
    assert_eq!(part.json(), json!({ "path": "/o?of=7", "method": "GET", "orders": 1 }));

    // The client's body goes along.
    done(
        &here,
        &[
            "service",
            "add",
            "place",
            "--path",
            "/place",
            "--endpoint",
            &url("http-post", &orders, "/new"),
            "--endpoint",
            &url("http-get", &orders, "/list"),
        ],
    )
    .await;
    let placed =
        gw.request("POST", "/place").header("content-type", "application/json").body("{\"a\":1}").await;
    placed.expect_status(200);
    let seen = orders.seen_at("/new").pop().unwrap();
    assert_eq!((seen.method.as_str(), &seen.body[..]), ("POST", &b"{\"a\":1}"[..]));

    let listed = done(&here, &["service", "list"]).await;
    let states: Vec<_> = listed.lines().skip(1).map(|line| line.rsplit(' ').next().unwrap()).collect();
    assert_eq!(states, ["served"; 3], "{listed}");
    done(&here, &["service", "disable", "users"]).await;
    assert_eq!(gw.get("/users").await.text(), "front");
    done(&here, &["service", "enable", "users"]).await;
    gw.get("/users").await.expect_status(500);
    done(&here, &["service", "remove", "users"]).await;
    assert_eq!(gw.get("/users").await.text(), "front");
    refused(&here, &["service", "remove", "users"], "there is no service \"users\"").await;

    // What is shown can be given back.
    let shown = done(&here, &["service", "show", "both"]).await;
    let again = told(&here, &["service", "add", "-", "--replace"], &shown).await;
    assert_eq!((again.status, again.stderr.as_str()), (0, ""), "{}", again.stdout);
    let checked = told(&here, &["service", "check", "-"], &shown.replace("http-get", "http-gte")).await;
    assert!(
        checked.status == 1 && checked.stderr.contains("did you mean \"http-get\"?"),
        "{}",
        checked.stderr
    );

    // The next process has them from its first request on, and so has a reload.
    assert_eq!(gw.order("reload").await.status, 0);
    gw.get("/both/7").await.expect_status(401);
    let mut gw = gw;
    let upgraded = gw.order("upgrade").await;
    assert_eq!(upgraded.status, 0, "{}", upgraded.stderr);
    assert!(gw.exit().await.success());
    gw.get("/both/7").await.expect_status(401);
}

#[tokio::test]
async fn a_service_neither_opens_nor_hides_what_is_configured() {
    let config = format!(
        "{SQLITE}{LOCAL}{GUARDED}[[routes]]\nname = \"exact\"\npath = \"/exact\"\nrespond = {{ text = \"exact\" }}\n"
    );
    let gw = gateway(&config).start().await;
    let here = gw.directory();
    let add = async |name: &str, path: &str, more: &[&str], part: &str| {
        let mut arguments = vec!["service", "add", name, "--path", path];
        arguments.extend(more);
        if !more.contains(&"--endpoint") {
            arguments.extend(["--endpoint", "http-get=http://127.0.0.1:9/x"]);
        }
        refused(&here, &arguments, part).await;
    };
    add("a", "/admin/x", &[], "service-opens-route").await;
    add("a", "/admin/x", &["--roles", "user"], "does not ask for the role \"admin\"").await;
    add("a", "/{any}/x", &[], "service-opens-route").await;
    add("a", "/admin/*", &["--roles", "admin"], "the route \"guarded\" of the configuration has this path")
        .await;
    add("a", "/exact", &[], "service-conflict").await;
    add("a", "/*", &[], "service-conflict").await;
    add("a", "~^/x", &[], "the path of a service is not a regex").await;
    add("a", "x", &[], "does not start with `/`").await;
    add("a b", "/x", &[], "a name has letters").await;
    add("a", "/x", &["--methods", "G T"], "methods[0]").await;
    add("a", "/x", &["--endpoint", "http-get=http://u:p@127.0.0.1/x"], "credentials cannot stand in the URL")
        .await;
    add("a", "/x", &["--endpoint", "http-get=upstream://usres/x"], "the upstream \"usres\" is not defined")
        .await;
    add("a", "/x", &["--endpoint", "http-get=http://127.0.0.1:9/{path.id}"], "endpoints[0].url").await;
    add("a", "/x", &["--endpoint", "amqp=amqp://guest:guest@h/q"], "write BROKER/QUEUE").await;
    assert_eq!(done(&here, &["service", "list", "--json"]).await.trim(), "[]", "nothing was written");
    // What asks for as much may be more specific; it is told.
    let warned = done(
        &here,
        &[
            "service",
            "check",
            "a",
            "--path",
            "/admin/x",
            "--roles",
            "admin",
            "--endpoint",
            "http-get=http://127.0.0.1:9/x",
        ],
    )
    .await;
    assert!(warned.contains("warning[service-over-route]") && warned.contains("ok"), "{warned}");
    done(&here, &["service", "add", "b", "--path", "/b", "--endpoint", "http-get=http://127.0.0.1:9/x"])
        .await;
    add("c", "/b", &[], "no request can take this service").await;
    refused(
        &here,
        &["service", "add", "b", "--path", "/c", "--endpoint", "http-get=http://127.0.0.1:9/x"],
        "there is a service \"b\" already",
    )
    .await;
    // Roles that nobody could hold.
    let nobody = tempfile::tempdir().unwrap();
    std::fs::write(nobody.path().join("edgeward.toml"), SQLITE).unwrap();
    refused(
        nobody.path(),
        &[
            "service",
            "add",
            "a",
            "--path",
            "/a",
            "--roles",
            "x",
            "--endpoint",
            "http-get=http://127.0.0.1:9/x",
        ],
        "no provider of tokens",
    )
    .await;
}

/// Whoever may write services must not get what is meant for somebody else: a password, a token with the same role.
#[tokio::test]
async fn a_service_takes_no_password_and_no_other_token() {
    let other = LOCAL.replace("local]", "other]").replace("edge.example.com", "other.example.com");
    let login = "[identity.login]\nprovider = \"local\"\n";
    let config = format!("{SQLITE}{LOCAL}{other}{login}{GUARDED}");
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("edgeward.toml"), config).unwrap();
    let check = |path: &str, more: Value| {
        let mut service = json!({ "name": "a", "path": path, "endpoints": [{ "type": "http-post", "url": "http://127.0.0.1:9/x" }] });
        service.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let (directory, text) = (directory.path().to_owned(), service.to_string());
        async move { told(&directory, &["service", "check", "-"], &text).await }
    };
    for (path, more) in [
        ("/login", json!({})),
        ("/login", json!({ "hosts": ["shop.example.com"] })),
        ("/login", json!({ "hosts": ["*.example.com"], "methods": ["POST", "PUT"], "roles": ["user"] })),
        ("/logout", json!({ "methods": ["POST", "GET"], "hosts": ["shop.example.com"] })),
    ] {
        let ran = check(path, more).await;
        assert!(ran.status == 1 && ran.stderr.contains("path-taken"), "{path}: {}{}", ran.stdout, ran.stderr);
    }
    for (path, more) in [("/login/x", json!({})), ("/login", json!({ "methods": ["PUT"] }))] {
        let ran = check(path, more).await;
        assert_eq!((ran.status, ran.stderr.as_str()), (0, ""), "{path}");
    }
    // The route wants tokens of one provider; a service takes those of any.
    let ran = check("/admin/x", json!({ "roles": ["admin"] })).await;
    assert!(ran.status == 1 && ran.stderr.contains("takes proofs that the route does not"), "{}", ran.stderr);
}

/// What is wrong with one service takes no other one with it.
#[tokio::test]
async fn a_broken_service_neither_holds_a_path_nor_hides_another() {
    let users = telling("users").await;
    let server = format!("http://{}/x", users.address());
    let gw = gateway(SQLITE).start().await;
    let here = gw.directory();
    // A name of a server that is too long for one of an upstream: what is told of it once is wrong with all.
    let long = format!("http://{0}.{0}.{0}.{1}/x", "a".repeat(63), "b".repeat(61));
    let mut rows = row("a", "/users", "upstream://nobody/x")
        + &row("b", "/users", &server)
        + &row("c", "/users", &server);
    (0..200).for_each(|n| rows.push_str(&row(&format!("long{n}"), &format!("/long/{n}"), &long)));
    written(&here, &format!("BEGIN;{rows}COMMIT;")).await;
    assert_eq!(answers(&gw, "/users", 200).await.json()["users"], 1);
    let status = gw.admin().get("/api/v1/status").await.expect_status(200).json();
    assert_eq!(status["services"]["served"], json!(["b"]));
    assert_eq!(status["services"]["left_out"].as_array().unwrap().len(), 202);

    // `explain` knows what the process knows.
    let explained = done(&here, &["explain", "GET", "http://x/users"]).await;
    assert!(explained.contains("service:b  (service \"b\")"), "{explained}");
    assert!(explained.contains("services: 1 served, 202 left out"), "{explained}");
    let nothing = told(&here, &["explain", "GET", "http://x/long/1"], "").await;
    assert!(nothing.status == 1 && nothing.stdout.contains("404 route.not_found"), "{}", nothing.stdout);
}

/// Messages and requests in one answer, where the services and the broker are real.
#[tokio::test]
async fn brokers_answer_endpoints_of_services() {
    let rabbit = RabbitMq::start().await;
    let service = Amqp::connect(&rabbit.url()).await;
    let answer = |letter: &Letter| {
        vec![Told::json(&json!({ "asked": letter.json(), "method": letter.header("request.method") }))]
    };
    let served = service.serve("tickets", answer).await;
    let users = telling("users").await;
    let broker = format!("[brokers.main]\nurl = \"{}\"\n", rabbit.url());
    let gw = gateway(&format!("{CONTROL}{SQLITE}{broker}")).start().await;
    gw.metric_is("edgeward_broker_up", &["broker=\"main\""], 1.0).await;
    let here = gw.directory();
    let add = async |name: &str, path: &str, endpoints: &[&str]| {
        let mut arguments = vec!["service", "add", name, "--path", path];
        for endpoint in endpoints {
            arguments.push("--endpoint");
            arguments.push(endpoint);
        }
        if name == "both" {
            arguments.extend(["--methods", "GET"]);
        }
        done(&here, &arguments).await;
    };
    let get = url("http-get", &users, "/u/{path.id}");
    add("both", "/both/{id}", &[&get, "amqp=main/tickets"]).await;
    let both = gw.get("/both/7?lang=de").await.expect_status(200);
    assert_eq!(both.header("x-edgeward-completed"), Some("true"));
    let told_of = both.json();
    assert_eq!((&told_of["users"], &told_of["path"]), (&json!(1), &json!("/u/7")), "{told_of}");
    assert_eq!(told_of["asked"], json!({ "path": { "id": "7" }, "query": { "lang": "de" } }));

    // By itself a queue has the message as the client sent it.
    add("ask", "/ask", &["amqp=main/tickets"]).await;
    let asked =
        gw.request("POST", "/ask").header("content-type", "application/json").body("{\"a\":1.0}").await;
    let asked = asked.expect_status(200).json();
    assert_eq!((&asked["asked"], &asked["method"]), (&json!({ "a": 1.0 }), &json!("POST")));
    // A broker that nobody configured is none, whatever a row says.
    refused(
        &here,
        &["service", "add", "x", "--path", "/x", "--endpoint", "amqp=others/q"],
        "the broker \"others\"",
    )
    .await;

    // Nobody takes messages any more: the others answer, and it is said.
    drop(served);
    service.delete_queue("tickets").await;
    let part = gw.get("/both/7").await.expect_status(200);
    assert_eq!(part.header("x-edgeward-completed"), Some("false"));
    assert_eq!(part.json(), json!({ "users": 1, "path": "/u/7", "method": "GET" }));
    gw.request("POST", "/ask").header("content-type", "application/json").body("{}").await.expect_status(503);
}

/// Whoever can reach the database can write into it, anything at all.
#[tokio::test]
async fn a_bad_row_is_left_out_while_the_others_serve() {
    let users = telling("users").await;
    let server = format!("http://{}", users.address());
    let gw = gateway(&format!("{SQLITE}{LOCAL}{GUARDED}")).start().await;
    let here = gw.directory();
    written(&here, &row("good", "/good", &format!("{server}/x"))).await;
    is_served(&gw, "/good").await;
    assert_eq!(gw.get("/good").await.json()["users"], 1);
    let bad = [
        "INSERT INTO edgeward_services (name, path, endpoints) VALUES ('text', '/t', 'nonsense');".to_owned(),
        "INSERT INTO edgeward_services (name, path, endpoints) VALUES ('null', '/n', 'null');".to_owned(),
        "INSERT INTO edgeward_services (name, path, endpoints, roles) VALUES ('blob', x'ff00fe', x'c328', 7);".to_owned(),
        "INSERT INTO edgeward_services (name, path, endpoints) VALUES ('', '', '');".to_owned(),
        "INSERT INTO edgeward_services (name, path, endpoints, created_at) VALUES ('huge', '/h', hex(zeroblob(5000000)), 'x');".to_owned(),
        row("opens", "/admin/x", &server),
        row("shadows", "/good", &server),
        row("line\nbreak", "/l", &server),
        row("undefined", "/u", "upstream://nobody/x"),
    ];
    written(&here, &bad.join("\n")).await;
    written(&here, &row("last", "/last", &server)).await;
    is_served(&gw, "/last").await;
    let says = async || verbose(&gw).await.contains("services: 2 served, 9 left out").then_some(());
    eventually("the bad ones to be told", says).await;
    assert_eq!(gw.get("/good").await.expect_status(200).json()["users"], 1);
    gw.get("/admin/x").await.expect_status(401);
    gw.admin().get("/readyz").await.expect_status(200);
    gw.metric_is("edgeward_services", &["state=\"left_out\""], 9.0).await;
    gw.metric_is("edgeward_services", &["state=\"served\""], 2.0).await;
    let log = gw.stderr();
    assert_eq!(log.matches("service left out").count(), 9, "each is told once: {log}");
    let status = gw.admin().get("/api/v1/status").await.expect_status(200).json();
    assert_eq!(status["services"]["served"], json!(["good", "last"]));
    let text = &status["services"]["left_out"][0];
    assert!(text["problems"][0]["code"].is_string(), "{status}");
    let checked = told(&here, &["service", "check", "--json"], "").await;
    assert!(checked.status == 1 && checked.stdout.contains("shadows"), "{}", checked.stderr);
    // Repaired, it is served.
    written(&here, &format!("UPDATE edgeward_services SET endpoints = '[{{\"type\":\"http-get\",\"url\":\"{server}\"}}]' WHERE name = 'text';")).await;
    is_served(&gw, "/t").await;
    written(&here, "DELETE FROM edgeward_services WHERE name IN ('good', 'last');").await;
    eventually("the older one to be gone", async || (gw.get("/last").await.text() == "front").then_some(()))
        .await;
    // What wanted the path of another has it now.
    is_served(&gw, "/good").await;
}

#[tokio::test]
async fn a_database_that_dies_takes_no_service_with_it() {
    let users = telling("users").await;
    let server = format!("http://{}/x", users.address());
    let mut postgres = Postgres::start();
    let database = postgres.database();
    let config = format!("[store]\nurl = \"{database}\"\nservices = true\n");
    let (one, two) = tokio::join!(gateway(&config).start(), gateway(&config).start());
    done(
        &one.directory(),
        &["service", "add", "users", "--path", "/users", "--endpoint", &format!("http-get={server}")],
    )
    .await;
    for gw in [&one, &two] {
        answers(gw, "/users", 200).await;
    }
    // Behind everybody's back: PostgreSQL calls out.
    psql(&database, &row("other", "/other", &server)).unwrap();
    for gw in [&one, &two] {
        answers(gw, "/other", 200).await;
    }
    let (stop, failed, asked) =
        (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let traffic = {
        let (stop, failed, asked, client) = (stop.clone(), failed.clone(), asked.clone(), one.client());
        tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let response = client.get("/users").send().await;
                asked.fetch_add(1, Ordering::Relaxed);
                if response.is_ok_and(|response| response.status == 200) {
                    continue;
                }
                failed.fetch_add(1, Ordering::Relaxed);
            }
        })
    };
    postgres.stop();
    let says = async || {
        verbose(&one).await.contains("2 served; as they were: the store does not answer").then_some(())
    };
    eventually("the store to be missed", says).await;
    one.admin().get("/readyz").await.expect_status(200);
    let before = asked.load(Ordering::Relaxed);
    eventually("traffic to go on", async || (asked.load(Ordering::Relaxed) > before + 50).then_some(()))
        .await;
    // What starts without it serves what the files say, and is not ready.
    let late = gateway(&format!("{config}[[routes]]\npath = \"/file\"\nrespond = {{ text = \"file\" }}\n"))
        .start()
        .await;
    assert_eq!(late.get("/file").await.text(), "file");
    late.get("/users").await.expect_status(404);
    late.admin().get("/readyz").await.expect_status(503);
    assert!(verbose(&late).await.contains("[-] services: never read"), "{}", verbose(&late).await);
    postgres.go();
    answers(&late, "/users", 200).await;
    eventually("it to be ready", async || (late.admin().get("/readyz").await.status == 200).then_some(()))
        .await;
    psql(&database, "DELETE FROM edgeward_services WHERE name = 'other'").unwrap();
    for gw in [&one, &two, &late] {
        answers(gw, "/other", 404).await;
    }
    stop.store(true, Ordering::Relaxed);
    traffic.await.unwrap();
    assert_eq!(failed.load(Ordering::Relaxed), 0, "of {}", asked.load(Ordering::Relaxed));
}

/// A call of the API.
async fn call(gw: &Gateway, method: &str, path: &str, body: Option<Value>) -> Response {
    let mut request = gw.admin().request(method, path).header("authorization", &format!("Bearer {TOKEN}"));
    if let Some(body) = body {
        request = request.header("content-type", "application/json").body(body.to_string());
    }
    request.await
}

#[tokio::test]
async fn services_are_managed_by_the_admin_api() {
    let users = telling("users").await;
    let gw = gateway(&format!("{SQLITE}{LOCAL}{GUARDED}{ADMIN}")).env("ADMIN_TOKEN", TOKEN).start().await;
    let url = format!("http://{}/x", users.address());
    let service = |name: &str, path: &str| json!({ "name": name, "path": path, "endpoints": [{ "type": "http-get", "url": url }] });

    // Who has no token, or a wrong one, learns nothing.
    let missing = gw.admin().get("/api/v1/services").await.expect_status(401);
    assert_eq!(missing.header("www-authenticate"), Some("Bearer realm=\"edgeward\""));
    assert_eq!(missing.header("content-type"), Some("application/problem+json"));
    let wrong =
        gw.admin().get("/api/v1/services").header("authorization", "Bearer x").await.expect_status(401);
    assert!(wrong.header("www-authenticate").unwrap().contains("invalid_token"));
    gw.admin().get("/livez").await.expect_status(200);
    // Nor does a page that calls this listener by a name of its own.
    let foreign = gw
        .admin()
        .get("/api/v1/services")
        .host("evil.example")
        .header("authorization", &format!("Bearer {TOKEN}"));
    foreign.await.expect_status(421);
    let named = gw
        .admin()
        .get("/api/v1/services")
        .host("edge.internal:9901")
        .header("authorization", &format!("Bearer {TOKEN}"));
    named.await.expect_status(200);

    let added =
        call(&gw, "POST", "/api/v1/services", Some(service("users", "/users"))).await.expect_status(201);
    assert_eq!(added.header("location"), Some("/api/v1/services/users"));
    assert_eq!((&added.json()["state"], &added.json()["applied"]), (&json!("served"), &json!(true)));
    let tag = added.header("etag").unwrap().to_owned();
    gw.get("/users").await.expect_status(200);
    let again =
        call(&gw, "POST", "/api/v1/services", Some(service("users", "/users"))).await.expect_status(409);
    assert_eq!(again.json()["code"], "service_exists");
    let shown = call(&gw, "GET", "/api/v1/services/users", None).await.expect_status(200);
    assert_eq!((shown.header("etag"), &shown.json()["path"]), (Some(tag.as_str()), &json!("/users")));
    assert_eq!(
        call(&gw, "GET", "/api/v1/services", None).await.json()["services"].as_array().unwrap().len(),
        1
    );

    // What is wrong is told as `check` tells it, and nothing is written.
    let bad = json!({ "name": "bad", "path": "/admin/x", "endpoints": [{ "type": "http-gte", "url": url, "x": 1 }] });
    let bad = call(&gw, "POST", "/api/v1/services", Some(bad)).await.expect_status(422).json();
    let columns: Vec<_> = bad["problems"]
        .as_array()
        .unwrap()
        .iter()
        .map(|problem| problem["column"].as_str().unwrap())
        .collect();
    assert_eq!(columns, ["endpoints[0].x", "endpoints[0].type"], "{bad}");
    assert_eq!(bad["problems"][1]["hint"], "did you mean \"http-get\"?");
    let opens = call(&gw, "POST", "/api/v1/services/check", Some(service("opens", "/admin/x")))
        .await
        .expect_status(422);
    assert_eq!(opens.json()["problems"][0]["code"], "service-opens-route");
    call(&gw, "POST", "/api/v1/services/check", Some(service("fine", "/fine"))).await.expect_status(200);
    call(&gw, "GET", "/api/v1/services/fine", None).await.expect_status(404);
    for (body, media, status) in [
        ("{", "application/json", 400),
        ("{}", "text/plain", 415),
        ("[]", "application/json", 422),
        ("null", "application/json", 422),
    ] {
        let request = gw
            .admin()
            .request("POST", "/api/v1/services")
            .header("authorization", &format!("Bearer {TOKEN}"));
        request.header("content-type", media).body(body).await.expect_status(status);
    }
    let large =
        gw.admin().request("POST", "/api/v1/services").header("authorization", &format!("Bearer {TOKEN}"));
    large.header("content-type", "application/json").body(vec![b' '; 1_100_000]).await.expect_status(413);

    // Of two who change it at once one hears of the other.
    let change = async |tag: &str, path: &str| {
        let request = gw
            .admin()
            .request("PUT", "/api/v1/services/users")
            .header("authorization", &format!("Bearer {TOKEN}"));
        let request = request.header("content-type", "application/json").header("if-match", tag);
        request.body(service("users", path).to_string()).await
    };
    let changed = change(&tag, "/people").await.expect_status(200);
    assert_eq!(change(&tag, "/persons").await.expect_status(412).json()["code"], "changed_meanwhile");
    gw.get("/people").await.expect_status(200);
    assert_eq!(gw.get("/users").await.text(), "front");
    // What was got can be put.
    let got = call(&gw, "GET", "/api/v1/services/users", None).await.json();
    let put = call(&gw, "PUT", "/api/v1/services/users", Some(got)).await.expect_status(200);
    assert_eq!(put.header("etag"), changed.header("etag"));
    call(&gw, "PUT", "/api/v1/services/users", Some(service("other", "/o"))).await.expect_status(400);

    let status = call(&gw, "GET", "/api/v1/status", None).await.expect_status(200).json();
    assert_eq!((&status["services"]["served"], &status["store"]["state"]), (&json!(["users"]), &json!("up")));
    let document = call(&gw, "GET", "/api/v1/openapi.json", None).await.expect_status(200).json();
    assert_eq!(document["openapi"], "3.1.0");
    let patched = call(&gw, "PATCH", "/api/v1/services/users", None).await.expect_status(405);
    assert_eq!(patched.header("allow"), Some("GET, PUT, DELETE"));
    call(&gw, "DELETE", "/api/v1/services/users", None).await.expect_status(204);
    call(&gw, "DELETE", "/api/v1/services/users", None).await.expect_status(404);
    assert_eq!(gw.get("/people").await.text(), "front");
    let log = gw.stderr();
    assert!(
        log.contains("service added by the API")
            && log.contains("service removed by the API")
            && log.contains("peer=127.0.0.1 "),
        "{log}"
    );
    assert!(!log.contains(TOKEN));

    // As anybody would call it.
    let admin = format!("http://{}/api/v1/services/curl", gw.admin().address());
    let body = service("curl", "/curl").to_string();
    let ran = curl(&[
        "-sS",
        "-X",
        "PUT",
        &admin,
        "-H",
        &format!("Authorization: Bearer {TOKEN}"),
        "-H",
        "Content-Type: application/json",
        "-d",
        &body,
    ])
    .await;
    assert!(ran.stdout.contains("\"state\":\"served\""), "{} {}", ran.stdout, ran.stderr);
    gw.get("/curl").await.expect_status(200);
}

#[tokio::test]
async fn without_a_token_the_api_only_tells() {
    let gw = gateway(SQLITE).start().await;
    gw.admin().get("/api/v1/services").await.expect_status(200);
    let body = json!({ "name": "a", "path": "/a", "endpoints": [] }).to_string();
    let refused =
        gw.admin().request("POST", "/api/v1/services").header("content-type", "application/json").body(body);
    assert_eq!(refused.await.expect_status(403).json()["code"], "read_only");
    let without = gateway("").start().await;
    assert_eq!(
        without.admin().get("/api/v1/services").await.expect_status(404).json()["code"],
        "no_services"
    );
    let exposed = gateway("[admin]\naddress = \"0.0.0.0:0\"\n").refused().await;
    assert!(exposed.stderr.contains("admin-exposed"), "{}", exposed.stderr);
}

/// A thousand services, and then ten thousand rows of garbage among them, under traffic.
#[tokio::test]
async fn a_thousand_services_and_a_storm_of_garbage() {
    let users = upstream().otherwise(Answer::after(3, Answer::text("ok"))).start().await;
    let server = format!("http://{}/x", users.address());
    let gw = gateway(SQLITE).start().await;
    let here = gw.directory();
    let rows: String = (0..1000).map(|n| row(&format!("s{n}"), &format!("/s/{n}"), &server)).collect();
    written(&here, &format!("BEGIN;{rows}COMMIT;")).await;
    let began = Instant::now();
    answers(&gw, "/s/999", 200).await;
    eprintln!("1,000 services were served after {:?}", began.elapsed());
    gw.metric_is("edgeward_services", &["state=\"served\""], 1000.0).await;

    let (stop, failed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let traffic = {
        let (stop, failed, client) = (stop.clone(), failed.clone(), gw.client());
        tokio::spawn(async move {
            let mut asked = 0;
            while !stop.load(Ordering::Relaxed) {
                let response = client.get("/s/1").send().await;
                asked += 1;
                if !response.is_ok_and(|response| response.status == 200) {
                    failed.fetch_add(1, Ordering::Relaxed);
                }
            }
            asked
        })
    };
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = move |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    };
    let mut mutated = |text: &str| {
        let with: Vec<char> = "{}[]\",:/\\?*~%#@ ä0x.'".chars().collect();
        let mut text: Vec<char> = text.chars().collect();
        for _times in 0..next(3) {
            let at = usize::try_from(next(text.len() as u64)).unwrap();
            text[at] = with[usize::try_from(next(with.len() as u64)).unwrap()];
        }
        text.into_iter().collect::<String>().replace('\'', "''")
    };
    for _batch in 0..10 {
        let mut sql = "BEGIN; DELETE FROM edgeward_services WHERE name NOT GLOB 's[0-9]*';".to_owned();
        for n in 0..1000 {
            let path = mutated(&format!("/v/{{id}}/{n}"));
            let endpoints =
                "[{\"type\":\"http-get\",\"url\":\"http://127.0.0.1:9/x/{path.id}?q={query.q}\"}]";
            let (endpoints, roles) = (mutated(endpoints), mutated("[]"));
            sql.push_str(&format!(
                "INSERT INTO edgeward_services (name, path, endpoints, roles) VALUES ('m{n}', '{path}', '{endpoints}', '{roles}');"
            ));
        }
        sql.push_str("COMMIT;");
        let before = gw.admin().get("/api/v1/status").await.json()["services"]["number"].clone();
        written(&here, &sql).await;
        let told = async || {
            let status = gw.admin().get("/api/v1/status").await.json();
            let of = |key: &str| status["services"][key].as_array().map_or(0, Vec::len);
            let is_new = status["services"]["number"] != before;
            (is_new && of("served") + of("left_out") == 2000 && of("served") >= 1000).then_some(())
        };
        eventually("the batch to be judged", told).await;
    }
    stop.store(true, Ordering::Relaxed);
    let asked: usize = traffic.await.unwrap();
    assert_eq!(failed.load(Ordering::Relaxed), 0, "of {asked}");
    assert!(!gw.stderr().contains("panicked"), "{}", gw.stderr());
}
