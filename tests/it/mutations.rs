//! Inputs that somebody got wrong, given to a gateway that serves: no request is the worse for them, what was good last is
//! served on, and each is told once. Ten thousand of them in all. (`src/invariants/mutations.rs` has as many without a process.)

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
async fn a_thousand_configurations_under_traffic() {
    let app = upstream().otherwise(Answer::text("steady")).start().await;
    let gw = gateway(STEADY).with("app", &app).listener("main", "127.0.0.1:0").start().await;
    let good = std::fs::read(gw.directory().join("edgeward.toml")).unwrap();
    let traffic = Traffic::start(&gw, None);
    let (mut reloads, mut taken) = (0.0, 0.0);
    for seed in 0..1000 {
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
    assert!(taken > 70.0 && refused > 500.0, "{taken} taken, {refused} refused");
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

/// Each provider is answered with something else than a key set, a hundred after every reload; one is answered well, and its
/// tokens stay good.
#[tokio::test]
async fn four_thousand_key_sets_under_traffic() {
    let signer = Signer::rsa("good");
    let good = key_set(&[&signer]).to_string();
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
        let url = format!("http://{}{path}", idp.address());
        format!(
            "[identity.providers.{name}]\nissuer = \"https://{name}.example/\"\naudience = [\"shop\"]\n\
             algorithms = [\"RS256\"]\njwks_url = \"{url}\"\n"
        )
    };
    let config = format!("{STEADY}auth = {{ with = [\"jwt:good\"] }}\n{}", provider("good", "/good"));
    let gw = gateway(&config).with("app", &app).listener("main", "127.0.0.1:0").start().await;
    gw.metric_is("edgeward_jwks_refresh_total", &["\"good\"", "success"], 1.0).await;
    let token = signer.bearer(json!({ "iss": "https://good.example/", "aud": "shop", "sub": "alice" }));
    let traffic = Traffic::start(&gw, Some(token));
    let file = gw.directory().join("edgeward.toml");
    let mut text = std::fs::read_to_string(&file).unwrap();
    let good_length = text.len();
    let mut refused = Vec::new();
    for round in 0..40_u64 {
        let seeds = 100 * round..100 * (round + 1);
        text.truncate(good_length);
        text.extend(seeds.clone().map(|seed| provider(&format!("p{seed}"), &format!("/mutated/{seed}"))));
        let draft = file.with_extension("toml.draft");
        std::fs::write(&draft, &text).unwrap();
        std::fs::rename(&draft, &file).unwrap();
        gw.signal(Signal::HUP);
        let mut page = String::new();
        let all_fetched = async || {
            page = gw.metrics().await;
            seeds.clone().all(|seed| !results_of(&page, seed).is_empty()).then_some(())
        };
        eventually(&format!("the key sets of round {round} to have been looked at"), all_fetched).await;
        let is_refused = |seed: &u64| {
            let results = results_of(&page, *seed);
            results.iter().any(|result| ["invalid", "too_large"].contains(result))
        };
        refused.extend(seeds.filter(is_refused));
    }
    traffic.end().await;
    assert!(refused.len() > 2000, "{} were refused", refused.len());
    let told = async || {
        let mut told = std::collections::HashMap::new();
        for line in gw.stderr().lines().filter(|line| line.contains("keys not fetched")) {
            let provider =
                line.split_once("provider=p").and_then(|(_, rest)| rest.split(' ').next()?.parse().ok());
            *told.entry(provider.unwrap_or(u64::MAX)).or_insert(0) += 1;
        }
        let is_told = |seed| told.get(seed) == Some(&1);
        (told.len() == refused.len() && refused.iter().all(is_told)).then_some(())
    };
    eventually("one line for each that was refused", told).await;
    gw.stop().await;
}

/// What came of the fetches of a provider's keys, by the page of metrics.
fn results_of(page: &str, seed: u64) -> Vec<&str> {
    let label = format!("issuer=\"p{seed}\"");
    let fetches = page.lines().filter(|line| {
        line.starts_with("edgeward_jwks_refresh_total") && line.contains(&label) && !line.ends_with(" 0")
    });
    fetches.filter_map(|line| line.split_once("result=\"")?.1.split('"').next()).collect()
}

fn broken_set(good: &str, seed: u64) -> Vec<u8> {
    match seed {
        0 => vec![b' '; 2 << 20],
        1 => format!("{{\"keys\":[{}]}}", vec!["{}"; 100_000].join(",")).into_bytes(),
        _ => Mutator::new(seed).json(good),
    }
}

/// Rows written behind the gateway's back, 200 at a time: each that is broken is left out by itself, and told once, or counted
/// behind those that are told.
#[tokio::test]
async fn five_thousand_rows_under_traffic() {
    let app = upstream().otherwise(Answer::text("steady")).start().await;
    let store = "[store]\nurl = \"sqlite:run/edgeward.db\"\nservices = true\n";
    let gw = gateway(&format!("{store}{STEADY}")).with("app", &app).start().await;
    let traffic = Traffic::start(&gw, None);
    let url = format!("sqlite:{}", gw.directory().join("run/edgeward.db").display());
    let mut connection = sqlx::SqliteConnection::connect(&url).await.unwrap();
    let endpoints = format!(r#"[{{"type":"http-get","url":"http://{}/x","group":"g"}}]"#, app.address());
    let (mut left_out, mut served) = (0.0, 0.0);
    for batch in 0..25_u64 {
        let mut mutator = Mutator::new(batch);
        let mut transaction = connection.begin().await.unwrap();
        sqlx::query("DELETE FROM edgeward_services").execute(&mut *transaction).await.unwrap();
        // No two batches have the same size, so that it shows which is served.
        let rows = 188 + batch;
        for number in 0..rows {
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
        }
        transaction.commit().await.unwrap();
        let settled = async || {
            let sum = gw.metric("edgeward_services", &[]).await?;
            (sum == rows as f64).then_some(())
        };
        eventually(&format!("batch {batch} to be judged"), settled).await;
        left_out += gw.metric("edgeward_services", &["left_out"]).await.unwrap();
        served += gw.metric("edgeward_services", &["served"]).await.unwrap();
    }
    traffic.end().await;
    assert!(left_out > 1500.0 && served > 750.0, "{left_out} left out, {served} served");
    let told = async || {
        let stderr = gw.stderr();
        let lines = stderr.lines().filter(|line| line.contains("service left out")).count() as f64;
        // Of so many at once some are told by their number.
        let more = stderr.lines().filter_map(|line| line.strip_suffix(" more services left out"));
        let more: f64 = more.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum();
        (lines + more == left_out).then_some(())
    };
    eventually("one line for each that is left out", told).await;
    gw.stop().await;
}
