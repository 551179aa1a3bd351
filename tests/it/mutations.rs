//! Inputs that somebody got wrong, given to a gateway that serves: no request is the worse for them, what was good last is
//! served on, and each is told once. (`src/invariants/mutations.rs` has ten thousand of them, without a process.)

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rustix::process::Signal;
use serde_json::json;
use sqlx::Connection as _;

use crate::support::*;

#[path = "../../src/invariants/mutate.rs"]
#[expect(unreachable_pub, reason = "shared with the library's own tests")]
mod mutate;
use mutate::Mutator;

/// Requests one after the other on connections that stay open, until told to stop: all have to be answered as ever.
struct Traffic {
    done: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    clients: Vec<tokio::task::JoinHandle<()>>,
}

impl Traffic {
    fn start(gw: &Gateway, token: Option<String>) -> Self {
        let (done, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let clients = (0..2).map(|_| {
            let (client, token) = (gw.client(), token.clone());
            let (done, answered) = (done.clone(), answered.clone());
            tokio::spawn(async move {
                let kept = client.connect().await;
                let mut pauses = tokio::time::interval(std::time::Duration::from_millis(2));
                while !done.load(Ordering::Relaxed) {
                    // One on a connection that stays, one on a new one.
                    for request in [kept.get("/steady"), client.get("/steady")] {
                        let request = match &token {
                            Some(token) => request.header("authorization", token),
                            None => request,
                        };
                        assert_eq!(request.await.expect_status(200).text(), "steady");
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                    // So that the others on this machine get their share.
                    pauses.tick().await;
                }
            })
        });
        let clients = clients.collect();
        Self { done, answered, clients }
    }

    async fn end(self) {
        let went_on = async || (self.answered.load(Ordering::Relaxed) > 100).then_some(());
        eventually("traffic", went_on).await;
        self.done.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.await.expect("no request failed");
        }
    }
}

/// What the mutations are of: none of it can take the steady route's requests.
const VARIABLE: &str = r#"
[upstreams.users]
servers = ["127.0.0.1:3001", { address = "127.0.0.1:3011", weight = 2, backup = true }]
balance = "least_connections"
[upstreams.users.retry]
attempts = 3
backoff = "25ms"
[upstreams.users.circuit_breaker]
failures = 5
open_for = "10s"

[[routes]]
name = "users"
hosts = ["api.example.com"]
path = "/users/{id}"
methods = ["GET", "POST"]
upstream = "users"
rewrite = { path = "/v1/{path.id}" }
timeout = "5s"
when = 'query.x == "1"'

[[routes]]
name = "old"
hosts = ["*.example.com"]
path = "/old/*"
headers = { x-version = "~^2" }
redirect = { to = "https://www.example.com/new/{path.rest}" }

[[routes]]
name = "both"
hosts = ["api.example.com"]
path = "/both"
[routes.aggregate]
[[routes.aggregate.legs]]
name = "one"
upstream = "users"
path = "/one"
[[routes.aggregate.legs]]
name = "two"
upstream = "users"
path = "/two/{one.id}"
group = "two"
"#;

const STEADY: &str = "[server]\ncontrol_socket = \"run/control.sock\"\n[upstreams.steady]\nservers = [\"{app}\"]\n\
    [[routes]]\nname = \"steady\"\npath = \"/steady\"\nhosts = []\ntimeout = \"20s\"\npriority = 1000000\nupstream = \"steady\"\n";

#[tokio::test]
async fn three_hundred_configurations_under_traffic() {
    let app = upstream().otherwise(Answer::text("steady")).start().await;
    let gw = gateway(STEADY).with("app", &app).listener("main", "127.0.0.1:0").start().await;
    let good = std::fs::read(gw.directory().join("edgeward.toml")).unwrap();
    let traffic = Traffic::start(&gw, None);
    let (mut reloads, mut taken) = (0.0, 0.0);
    for seed in 0..300 {
        let text = [&good[..], &Mutator::new(seed).toml(VARIABLE)].concat();
        let draft = gw.directory().join("edgeward.toml.draft");
        std::fs::write(&draft, text).unwrap();
        std::fs::rename(&draft, gw.directory().join("edgeward.toml")).unwrap();
        gw.signal(Signal::HUP);
        reloads += 1.0;
        let mut page = String::new();
        let counted = async || {
            page = gw.metrics().await;
            let count = |result: &str| {
                let line = format!("edgeward_config_reloads_total{{result=\"{result}\"}} ");
                page.lines().find_map(|known| known.strip_prefix(&line)?.parse::<f64>().ok()).unwrap_or(0.0)
            };
            taken = count("success");
            (taken + count("failure") == reloads).then_some(())
        };
        eventually(&format!("reload {seed} to be counted once"), counted).await;
    }
    traffic.end().await;
    let refused = reloads - taken;
    assert!(taken > 20.0 && refused > 150.0, "{taken} taken, {refused} refused");
    // One line each.
    let told = async || {
        let stderr = gw.stderr();
        let lines = |words: &str| stderr.lines().filter(|line| line.contains(words)).count() as f64;
        (lines("configuration not reloaded") == refused && lines("configuration reloaded") == taken)
            .then_some(())
    };
    eventually("one line for each", told).await;
    gw.stop().await;
}

/// Each provider is answered with something else than a key set; one was answered well before, and its tokens stay good.
#[tokio::test]
async fn a_hundred_broken_key_sets_under_traffic() {
    let signer = Signer::rsa("good");
    let good = key_set(&[&signer]).to_string();
    let good_body = good.clone();
    let idp = Answer::with(move |seen| {
        let body = match seen.uri.path().strip_prefix("/mutated/").and_then(|seed| seed.parse().ok()) {
            Some(seed) => broken_set(&good, seed),
            None => good.clone().into_bytes(),
        };
        Fixed::new(200, body.into()).with("content-type", "application/json")
    });
    let idp = upstream().otherwise(idp).start().await;
    let app = upstream().otherwise(Answer::text("steady")).start().await;
    let provider = |name: &str, path: &str| {
        format!(
            "[identity.providers.{name}]\nissuer = \"https://{name}.example/\"\naudience = [\"shop\"]\n\
             algorithms = [\"RS256\"]\njwks_url = \"http://{{idp}}{path}\"\n"
        )
    };
    let count = 100;
    let mut config = format!("{STEADY}auth = {{ with = [\"jwt:good\"] }}\n{}", provider("good", "/good"));
    for seed in 0..count {
        config.push_str(&provider(&format!("p{seed}"), &format!("/mutated/{seed}")));
    }
    let gw = gateway(&config).with("app", &app).with("idp", &idp).start().await;
    gw.metric_is("edgeward_jwks_refresh_total", &["\"good\"", "success"], 1.0).await;
    let token = signer.bearer(json!({ "iss": "https://good.example/", "aud": "shop", "sub": "alice" }));
    let traffic = Traffic::start(&gw, Some(token));
    let mut page = String::new();
    let all_fetched = async || {
        page = gw.metrics().await;
        let fetched = |seed: &u64| {
            let label = format!("\"p{seed}\"");
            let of_it =
                |line: &&str| line.starts_with("edgeward_jwks_refresh_total") && line.contains(&label);
            page.lines().filter(of_it).any(|line| !line.ends_with(" 0"))
        };
        (0..count).all(|seed| fetched(&seed)).then_some(())
    };
    eventually("every key set to have been looked at", all_fetched).await;
    traffic.end().await;
    let stderr = gw.stderr();
    let mut refused = 0;
    for seed in 0..count {
        let label = format!("\"p{seed}\"");
        let of_word = |word: &str| {
            let line = page.lines().find(|line| {
                line.starts_with("edgeward_jwks_refresh_total")
                    && line.contains(&label)
                    && line.contains(word)
            });
            line.is_some_and(|line| !line.ends_with(" 0"))
        };
        if of_word("invalid") || of_word("too_large") {
            refused += 1;
            let told = stderr.lines().filter(|line| {
                line.contains("keys not fetched") && line.contains(&format!("provider=p{seed} "))
            });
            assert_eq!(told.count(), 1, "one line of p{seed}");
        }
    }
    assert!(refused > count / 2, "{refused} were refused");
    assert_eq!(good_body, key_set(&[&signer]).to_string());
    gw.stop().await;
}

fn broken_set(good: &str, seed: u64) -> Vec<u8> {
    match seed {
        0 => vec![b' '; 2 << 20],
        1 => format!("{{\"keys\":[{}]}}", vec!["{}"; 100_000].join(",")).into_bytes(),
        _ => Mutator::new(seed).json(good),
    }
}

/// Rows written behind the gateway's back, ten at a time: each that is broken is left out by itself, and told once.
#[tokio::test]
async fn two_hundred_rows_under_traffic() {
    let app = upstream().otherwise(Answer::text("steady")).start().await;
    let store = "[store]\nurl = \"sqlite:run/edgeward.db\"\nservices = true\n";
    let gw = gateway(&format!("{store}{STEADY}")).with("app", &app).start().await;
    let traffic = Traffic::start(&gw, None);
    let url = format!("sqlite:{}", gw.directory().join("run/edgeward.db").display());
    let mut connection = sqlx::SqliteConnection::connect(&url).await.unwrap();
    let endpoints = format!(r#"[{{"type":"http-get","url":"http://{}/x","group":"g"}}]"#, app.address());
    let mut written = 0;
    for batch in 0..20_u64 {
        let mut mutator = Mutator::new(batch);
        let mut transaction = connection.begin().await.unwrap();
        for number in 0..10 {
            let mut column = |good: &str| {
                let broken = *mutator.one_of(&[true, false, false]);
                if broken { mutator.json(good) } else { good.as_bytes().to_vec() }
            };
            let path = column(&format!("/rows/{batch}-{number}"));
            let columns =
                [path, column(&endpoints), column("[\"GET\"]"), column("[\"a.example\"]"), column("[]")];
            let insert = "INSERT INTO edgeward_services (name, path, endpoints, methods, hosts, roles) \
                VALUES ($1, CAST($2 AS TEXT), CAST($3 AS TEXT), CAST($4 AS TEXT), CAST($5 AS TEXT), CAST($6 AS TEXT))";
            let mut query = sqlx::query(insert).bind(format!("row-{batch}-{number}"));
            for column in &columns {
                query = query.bind(&column[..]);
            }
            query.execute(&mut *transaction).await.unwrap();
            written += 1;
        }
        transaction.commit().await.unwrap();
        let settled = async || {
            let sum = gw.metric("edgeward_services", &[]).await?;
            (sum == f64::from(written)).then_some(())
        };
        eventually(&format!("batch {batch} to be judged"), settled).await;
    }
    traffic.end().await;
    let left_out = gw.metric("edgeward_services", &["left_out"]).await.unwrap();
    let served = gw.metric("edgeward_services", &["served"]).await.unwrap();
    assert!(left_out > 60.0 && served > 30.0, "{left_out} left out, {served} served");
    let told = async || {
        let stderr = gw.stderr();
        let lines = stderr.lines().filter(|line| line.contains("service left out"));
        (lines.count() as f64 == left_out).then_some(())
    };
    eventually("one line for each that is left out", told).await;
    gw.stop().await;
}
