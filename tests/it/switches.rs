//! Every switch of every feature, in all its positions, turned under traffic: nobody's request fails but for what the
//! switch is there to refuse, and each position does what it says. A switch that is declared and stands in no table here is
//! a failure of [`every_switch_is_tried`].

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use edgeward::base::decode::{Key, Presence, Shape, Value as _, doc_text, tables};
use edgeward::config::ConfigRaw;
use futures_util::future::LocalBoxFuture;
use serde_json::json;
use tokio::task::JoinSet;

use crate::support::*;

/// A switch: its line in the configuration ends with `# @tag`.
struct Row {
    /// Table and key, as they are declared; two of them where the second stands within the first.
    key: &'static str,
    tag: &'static str,
    /// What the line says in each position; the first is the one that the process starts with.
    lines: &'static [&'static str],
    /// Looks whether the position, by its place, does what it says.
    check: fn(&House, usize) -> LocalBoxFuture<'_, ()>,
}

/// A gateway under traffic, and what stands behind it.
struct House {
    gw: Gateway,
    app: Upstream,
    other: Upstream,
    clients: Option<(Authority, Authority)>,
    turns: AtomicUsize,
}

impl House {
    fn new(gw: Gateway, app: Upstream, other: Upstream) -> Self {
        Self { gw, app, other, clients: None, turns: AtomicUsize::new(0) }
    }

    /// Writes the lines, each by its tag, and orders what puts them into force.
    async fn turn(&self, lines: &[(&str, &str)], order: &str) {
        self.gw.rewrite("edgeward.toml", |text| {
            let turned = text.lines().map(|old| {
                let new = lines.iter().find(|(tag, _)| old.ends_with(&format!(" # @{tag}")));
                new.map_or_else(
                    || format!("{old}\n"),
                    |(tag, line)| {
                        let line = line.replace("{other}", &self.other.address().to_string());
                        format!("{line} # @{tag}\n")
                    },
                )
            });
            turned.collect()
        });
        let ran = self.gw.order(order).await;
        assert_eq!(ran.status, 0, "{lines:?}: {}{}", ran.stdout, ran.stderr);
    }

    /// Something that no other request had.
    fn once(&self) -> String {
        format!("once{}", self.turns.fetch_add(1, Relaxed))
    }

    /// Turns each switch from each position to the next and back to the first one, while `asked` are asked.
    async fn turn_all(&self, rows: &[Row], order: &str, asked: &[Asked]) {
        let traffic = Traffic::start(&self.gw, asked);
        for row in rows {
            // It is in the first position.
            (row.check)(self, 0).await;
            for at in (1..row.lines.len()).chain([0]) {
                self.turn(&[(row.tag, row.lines[at])], order).await;
                traffic.flows().await;
                (row.check)(self, at).await;
            }
        }
        traffic.end().await;
    }

    /// Turns all of them at once, there and back, while `asked` are asked: none of them has to do with another.
    async fn turn_together(&self, rows: &[Row], asked: &[Asked]) {
        let traffic = Traffic::start(&self.gw, asked);
        for at in [0, 1, 0] {
            let lines: Vec<_> = rows.iter().map(|row| (row.tag, row.lines[at])).collect();
            self.turn(&lines, "reload").await;
            traffic.flows().await;
            for row in rows {
                assert_eq!(row.lines.len(), 2, "{}", row.key);
                (row.check)(self, at).await;
            }
        }
        traffic.end().await;
    }
}

/// What is asked all the while, and what may be answered.
#[derive(Clone)]
struct Asked {
    path: &'static str,
    headers: Vec<(&'static str, String)>,
    statuses: &'static [u16],
}

fn asked(path: &'static str, statuses: &'static [u16]) -> Asked {
    Asked { path, headers: Vec::new(), statuses }
}

impl Asked {
    fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

struct Traffic {
    tasks: JoinSet<Vec<String>>,
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicUsize>,
}

impl Traffic {
    /// One client that connects each time, and one that keeps its connection.
    fn start(gw: &Gateway, asked: &[Asked]) -> Self {
        let (stop, rounds) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let mut tasks = JoinSet::new();
        for keeps in [false, true] {
            let (client, asked) = (gw.client_of("main"), asked.to_vec());
            let (stop, rounds) = (stop.clone(), rounds.clone());
            tasks.spawn(async move {
                let mut failures = Vec::new();
                let mut connection = client.connect().await;
                while !stop.load(Relaxed) {
                    for Asked { path, headers, statuses } in &asked {
                        let mut request = if keeps { connection.get(path) } else { client.get(path) };
                        for (name, value) in headers {
                            request = request.header(name, value);
                        }
                        match request.send().await {
                            Ok(answer) if statuses.contains(&answer.status) && answer.broken.is_none() => {
                                if keeps && answer.header("connection") == Some("close") {
                                    connection = client.connect().await;
                                }
                            }
                            other => {
                                failures.push(format!("{path}, kept: {keeps}: {other:?}"));
                                connection = client.connect().await;
                            }
                        }
                    }
                    rounds.fetch_add(1, Relaxed);
                }
                failures
            });
        }
        Self { tasks, stop, rounds }
    }

    /// Waits until all that is asked was answered once more.
    async fn flows(&self) {
        let before = self.rounds.load(Relaxed);
        eventually("traffic", async || (self.rounds.load(Relaxed) > before + 1).then_some(())).await;
    }

    async fn end(mut self) {
        self.stop.store(true, Relaxed);
        while let Some(failures) = self.tasks.join_next().await {
            let failures = failures.unwrap();
            assert!(failures.is_empty(), "{} failed, the first: {}", failures.len(), failures[0]);
        }
    }
}

const KEY: &str = "mobile-0123456789abcdef";

const CONFIG: &str = r#"
[server]
control_socket = "run/control.sock"
trusted_proxies = ["127.0.0.1"]
watch = false # @watch
[limits]
connections = 200
connections_per_address = 0 # @per_address
min_body_rate = "0" # @min_body_rate
upstream_idle = 100
body_timeout = "900ms"
[[listeners]]
name = "main"
address = "127.0.0.1:0"
[[listeners]]
name = "secure"
address = "127.0.0.1:0"
client_auth = { ca = "clients.pem", mode = "required" } # @client_auth
 # @hsts
[[listeners.certificates]]
cert = "site.pem"
key = "site-key.pem"
[[listeners]]
name = "redirecting"
address = "127.0.0.1:0"
redirect_https = 0 # @redirect_https
[log]
level = "info" # @level
[log.access]
output = "stdout" # @output
format = '$request_uri [$http_user_agent]'
escape = "default" # @escape
[identity]
keep_authorization = true # @keep_authorization
claims_encoding = "base64url" # @claims_encoding
[identity.api_key]
keep = false # @keep
[identity.providers.local]
issuer = "me" # @issuer
audience = ["shop"] # @audience
algorithms = ["HS256"]
secret = { file = "secret" }
[identity.providers.made]
issuer = "made"
audience = ["shop"]
algorithms = ["EdDSA"]
signing_key = "keys/made.pem"
generate = true # @generate
[consumers.mobile]
plan = "weekly"
since = "2026-01-28"
api_keys = ["mobile-0123456789abcdef"]
[plans.weekly]
quota = "1000000/week"
quota_from = "calendar" # @quota_from
headers = "draft" # @plan_headers
[rate_limits.failed]
key = "header:x-who"
limits = ["3/h"]
skip_failed = false # @skip_failed
[rate_limits.successful]
key = "header:x-who"
limits = ["3/h"]
skip_successful = false # @skip_successful
[rate_limits.told]
key = "ip"
limits = ["1000000/h"]
headers = "draft" # @limit_headers
[rate_limits.together]
key = "ip"
limits = ["1000000/h"]
 # @concurrent
[upstreams.app]
servers = ["{app}"]
[upstreams.protocol]
servers = ["{app}"]
http2 = false # @http2
[upstreams.introduced]
servers = ["{introduced}"]
proxy_protocol = false # @introduced
[upstreams.spare]
servers = [
    "{app}",
    { address = "{other}", backup = false }, # @backup
]
[upstreams.balanced]
servers = ["{app}", "{other}"]
balance = "round_robin" # @balance
[upstreams.flaky]
servers = ["{app}"]
[upstreams.flaky.retry]
on = ["503"]
backoff = "1ms"
budget = "100%"
non_idempotent = false # @non_idempotent
[upstreams.slow]
servers = ["{app}"]
timeouts = { read = "1s" }
[upstreams.full]
servers = ["{app}"]
max_requests = 0 # @max_requests
[upstreams.again]
servers = ["{app}"]
[upstreams.again.retry]
on = ["503"]
backoff = "1ms"
budget = "100%"
attempts = 1 # @attempts
[upstreams.broken]
servers = ["{lame}"]
retry = { attempts = 1 }
circuit_breaker = false # @circuit_breaker
[upstreams.gone]
servers = ["{dead}"]
retry = { attempts = 1 }
fallback = false # @fallback
[upstreams.ill]
servers = ["{ill}"]
health_check = false # @health_check
[upstreams.sealed]
servers = ["{sealed}"]
retry = { attempts = 1 }
tls = false # @tls
[[routes]]
path = "/echo"
upstream = "app"
[[routes]]
path = "/full/*"
upstream = "full"
[[routes]]
path = "/together/*"
upstream = "app"
rate_limits = ["together"]
[[routes]]
path = "/again"
upstream = "again"
[[routes]]
path = "/broken"
upstream = "broken"
[[routes]]
path = "/gone"
upstream = "gone"
[[routes]]
path = "/ill"
upstream = "ill"
[[routes]]
path = "/sealed"
upstream = "sealed"
[[routes]]
path = "/rewritten"
upstream = "app"
rewrite = false # @rewrite
[[routes]]
path = "/near"
respond = { text = "ok" }
ip = false # @ip
[[routes]]
path = "/read"
respond = { text = "ok" }
cors = false # @cors
[[routes]]
path = "/told/of"
upstream = "app"
request = false # @request
[[routes]]
path = "/queried"
upstream = "app"
[routes.request]
query = false # @query
[[routes]]
path = "/framed"
respond = { text = "ok" }
response = false # @response
[[routes]]
path = "/plain"
respond = { text = "ok" }
[[routes]]
path = "/touched"
respond = { text = "once" }
[[routes]]
path = "/claims"
upstream = "app"
auth = { with = ["jwt:local"] }
[[routes]]
path = "/keys"
upstream = "app"
auth = { with = ["api_key"] }
[[routes]]
path = "/http2"
upstream = "protocol"
[[routes]]
path = "/introduced"
upstream = "introduced"
[[routes]]
path = "/spare"
upstream = "spare"
[[routes]]
path = "/balanced/*"
upstream = "balanced"
[[routes]]
path = "/flaky"
upstream = "flaky"
[[routes]]
path = "/failed"
rate_limits = ["failed"]
respond = { status = 404 }
[[routes]]
path = "/successful"
rate_limits = ["successful"]
respond = { text = "ok" }
[[routes]]
path = "/told"
rate_limits = ["told"]
respond = { text = "ok" }
[[routes]]
path = "/stream"
upstream = "slow"
stream = false # @stream
[[routes]]
path = "/late"
upstream = "app"
timeout = "300ms" # @timeout
[[routes]]
path = "/logged"
respond = { text = "ok" }
access_log = true # @access_log
[[routes]]
path = "/guarded"
respond = { text = "ok" }
auth = { with = ["jwt:local"] } # @auth
[[routes]]
path = "/cors"
respond = { text = "ok" }
[routes.cors]
origins = ["https://app.example.com"]
credentials = false # @credentials
[[routes]]
path = "/enveloped"
upstream = "app"
[routes.response]
envelope = false # @envelope
[[routes]]
path = "/files/*"
rewrite = { prefix = "/files", to = "/" }
[routes.files]
root = "www"
listing = false # @listing
[[routes]]
path = "/aggregate"
[routes.aggregate]
on_failure = "partial" # @on_failure
report = "headers" # @report
[[routes.aggregate.legs]]
name = "good"
upstream = "app"
path = "/good"
[[routes.aggregate.legs]]
name = "bad"
upstream = "app"
path = "/bad"
group = "bad"
[[routes]]
path = "/needs"
[routes.aggregate]
[[routes.aggregate.legs]]
name = "good"
upstream = "app"
path = "/good"
[[routes.aggregate.legs]]
name = "bad"
upstream = "app"
path = "/bad"
group = "bad"
required = false # @required
[[routes]]
path = "/method"
[routes.aggregate]
[[routes.aggregate.legs]]
name = "echo"
upstream = "app"
path = "/echo"
group = "echo"
method = "GET" # @method
"#;

const WORDS: &[&str] = &["draft", "draft-7", "draft-6", "legacy", "kong", "none"];

/// In which form an answer tells of its limit.
fn form(answer: &Response) -> &'static str {
    let has = |name: &str| answer.headers.contains_key(name);
    match answer.header("ratelimit-policy") {
        Some(policy) if policy.starts_with('"') => "draft",
        Some(_) if has("ratelimit") => "draft-7",
        Some(_) => "draft-6",
        None if has("x-ratelimit-limit") => "legacy",
        None if has("ratelimit-limit") => "kong",
        None => "none",
    }
}

/// A token whose payload is not a multiple of three bytes long, so that base64 pads it.
fn token() -> String {
    let signed = (0..3).map(|length| {
        Signer::secret()
            .sign(json!({ "iss": "me", "aud": "shop", "sub": "alice", "x": "x".repeat(length), "exp": unix_now() + 3000 }))
    });
    let padded = |token: &String| !token.split('.').nth(1).unwrap().len().is_multiple_of(4);
    signed.into_iter().find(padded).unwrap()
}

/// A token that says something else in one place.
fn other_bearer(name: &str) -> String {
    let mut claims = json!({ "iss": "me", "aud": "shop", "sub": "alice", "exp": unix_now() + 3000 });
    claims[name] = json!("other");
    format!("Bearer {}", Signer::secret().sign(claims))
}

fn bearer() -> String {
    format!("Bearer {}", token())
}

/// What a reload can turn.
fn rows() -> Vec<Row> {
    vec![
        Row {
            key: "[server] watch",
            tag: "watch",
            lines: &["watch = false", "watch = true"],
            check: |house, at| {
                Box::pin(async move {
                    let text = house.touch().await;
                    let is_new = async || (house.gw.get_main("/touched").await.text() == text).then_some(());
                    if at == 1 {
                        eventually("the changed file to be in force", is_new).await;
                        return;
                    }
                    // A moment in which nothing happens.
                    let mut ticks = tokio::time::interval(Duration::from_millis(800));
                    ticks.tick().await;
                    ticks.tick().await;
                    assert!(is_new().await.is_none(), "nobody asked for it");
                    assert_eq!(house.gw.order("reload").await.status, 0);
                    assert!(is_new().await.is_some());
                })
            },
        },
        Row {
            key: "[listeners] client_auth + [listeners.client_auth] mode",
            tag: "client_auth",
            lines: &[
                "client_auth = { ca = \"clients.pem\", mode = \"required\" }",
                "client_auth = { ca = \"clients.pem\", mode = \"optional\" }",
                "",
            ],
            check: |house, at| {
                Box::pin(async move {
                    let (authority, clients) = house.clients.as_ref().unwrap();
                    let secure = |identity: Option<&Identity>| {
                        Client::new(house.gw.listener("secure"))
                            .tls(&authority.client_config(&[], identity), "localhost")
                    };
                    let known = clients.client("alice");
                    secure(Some(&known)).get("/plain").await.expect_status(200);
                    assert_eq!(secure(None).get("/plain").send().await.is_ok(), at > 0);
                    // Whoever is asked for none may be anybody.
                    let unknown = authority.client("mallory");
                    assert_eq!(secure(Some(&unknown)).get("/plain").send().await.is_ok(), at == 2);
                })
            },
        },
        Row {
            key: "[log] level",
            tag: "level",
            lines: &[
                "level = \"info\"",
                "level = \"off\"",
                "level = \"error\"",
                "level = \"warn\"",
                "level = \"debug\"",
                "level = \"trace\"",
            ],
            check: |house, at| {
                Box::pin(async move {
                    let count = |part: &str| house.gw.stderr().matches(part).count();
                    let (info, debug, trace) = (count(" INFO "), count(" DEBUG "), count(" TRACE "));
                    // A reload says so.
                    house.touch().await;
                    assert_eq!(house.gw.order("reload").await.status, 0);
                    if matches!(at, 0 | 4 | 5) {
                        eventually("the reload to be told", async || (count(" INFO ") > info).then_some(()))
                            .await;
                    } else {
                        assert_eq!(count(" INFO "), info);
                    }
                    // What is no TLS at all.
                    let mut stranger = RawClient::connect(house.gw.listener("secure")).await;
                    stranger.send("GET / HTTP/1.1\r\n\r\n").await;
                    stranger.rest().await;
                    house.gw.client_of("main").http2().get("/plain").await.expect_status(200);
                    match at {
                        4 => eventually("debugging", async || (count(" DEBUG ") > debug).then_some(())).await,
                        5 => eventually("tracing", async || (count(" TRACE ") > trace).then_some(())).await,
                        _ => {}
                    }
                })
            },
        },
        Row {
            key: "[log.access] output",
            tag: "output",
            lines: &[
                "output = \"stdout\"",
                "output = \"off\"",
                "output = \"stderr\"",
                "output = \"access.log\"",
            ],
            check: |house, at| {
                Box::pin(async move {
                    let path = format!("/plain?{}", house.once());
                    house.gw.get_main(&path).await.expect_status(200);
                    let file = house.gw.directory().join("access.log");
                    let places = || {
                        [
                            house.gw.access_log().join("\n"),
                            String::new(),
                            house.gw.stderr(),
                            std::fs::read_to_string(&file).unwrap_or_default(),
                        ]
                        .map(|text| text.contains(&path))
                    };
                    if at == 1 {
                        let metric = house.gw.metric("edgeward_config_reloads_total", &[]).await;
                        assert!(metric.is_some());
                    } else {
                        eventually("the line", async || places()[at].then_some(())).await;
                    }
                    let expected: Vec<bool> = (0..4).map(|place| place == at && at != 1).collect();
                    assert_eq!(places().to_vec(), expected);
                })
            },
        },
        Row {
            key: "[log.access] escape",
            tag: "escape",
            lines: &["escape = \"default\"", "escape = \"json\"", "escape = \"none\""],
            check: |house, at| {
                Box::pin(async move {
                    let path = format!("/plain?{}", house.once());
                    house.gw.get_main(&path).header("user-agent", "a\"b").await.expect_status(200);
                    let line = house.gw.logged(&format!("{path} ")).await;
                    assert!(line.ends_with([r"[a\x22b]", r#"[a\"b]"#, r#"[a"b]"#][at]), "{line}");
                })
            },
        },
        Row {
            key: "[identity] keep_authorization",
            tag: "keep_authorization",
            lines: &["keep_authorization = true", "keep_authorization = false"],
            check: |house, at| {
                Box::pin(async move {
                    let echo = house.gw.get_main("/claims").header("authorization", &bearer()).await.echo();
                    assert_eq!(echo.header("authorization").is_some(), at == 0);
                })
            },
        },
        Row {
            key: "[identity] claims_encoding",
            tag: "claims_encoding",
            lines: &["claims_encoding = \"base64url\"", "claims_encoding = \"base64\""],
            check: |house, at| {
                Box::pin(async move {
                    let echo = house.gw.get_main("/claims").header("authorization", &bearer()).await.echo();
                    let claims = echo.header("x-auth-claims").unwrap();
                    assert_eq!(URL_SAFE_NO_PAD.decode(&claims).is_ok(), at == 0, "{claims}");
                    assert_eq!(STANDARD.decode(&claims).is_ok(), at == 1, "{claims}");
                })
            },
        },
        Row {
            key: "[identity.api_key] keep",
            tag: "keep",
            lines: &["keep = false", "keep = true"],
            check: |house, at| {
                Box::pin(async move {
                    let echo = house.gw.get_main("/keys").header("x-api-key", KEY).await.echo();
                    assert_eq!(echo.header("x-api-key").is_some(), at == 1);
                })
            },
        },
        Row {
            key: "[identity.providers.*] issuer",
            tag: "issuer",
            lines: &["issuer = \"me\"", ""],
            check: |house, at| {
                Box::pin(async move {
                    let answer =
                        house.gw.get_main("/claims").header("authorization", &other_bearer("iss")).await;
                    answer.expect_status([401, 200][at]);
                })
            },
        },
        Row {
            key: "[identity.providers.*] audience",
            tag: "audience",
            lines: &["audience = [\"shop\"]", ""],
            check: |house, at| {
                Box::pin(async move {
                    let answer =
                        house.gw.get_main("/claims").header("authorization", &other_bearer("aud")).await;
                    answer.expect_status([401, 200][at]);
                })
            },
        },
        Row {
            key: "[identity.providers.*] generate",
            tag: "generate",
            lines: &["generate = true", "generate = false"],
            check: |house, at| {
                Box::pin(async move {
                    assert!(house.gw.directory().join("keys/made.pem").exists());
                    // Of a file that is not there: made, or missed.
                    let config = std::fs::read_to_string(house.gw.directory().join("edgeward.toml")).unwrap();
                    house.gw.rewrite("copy.toml", |_| config.replace("keys/made.pem", "keys/none.pem"));
                    let ran = house.gw.ran(&["check", "-c", "copy.toml"]).await;
                    assert_eq!(ran.status == 0, at == 0, "{}", ran.stderr);
                    assert!(at == 0 || ran.stderr.contains("none.pem"), "{}", ran.stderr);
                })
            },
        },
        Row {
            key: "[plans.*] quota_from",
            tag: "quota_from",
            lines: &["quota_from = \"calendar\"", "quota_from = \"anniversary\""],
            check: |house, at| {
                Box::pin(async move {
                    let answer = house.gw.get_main("/keys").header("x-api-key", KEY).await.expect_status(200);
                    let told = answer.header("ratelimit").unwrap();
                    let reset: i64 = told.rsplit_once(";t=").unwrap().1.parse().unwrap();
                    // Unix time began on a Thursday; weeks of the calendar begin on Mondays, the consumer's on Wednesdays.
                    let (now, week) = (unix_now(), 7 * 86_400);
                    let begins = [4, 6][at] * 86_400;
                    let expected = week - (now - begins).rem_euclid(week);
                    let apart = (expected - reset).rem_euclid(week);
                    assert!(apart.min(week - apart) < 60, "{told}, expected {expected}");
                })
            },
        },
        Row {
            key: "[plans.*] headers",
            tag: "plan_headers",
            lines: &[
                "headers = \"draft\"",
                "headers = \"draft-7\"",
                "headers = \"draft-6\"",
                "headers = \"legacy\"",
                "headers = \"kong\"",
                "headers = \"none\"",
            ],
            check: |house, at| {
                Box::pin(async move {
                    let answer = house.gw.get_main("/keys").header("x-api-key", KEY).await.expect_status(200);
                    assert_eq!(form(&answer), WORDS[at], "{:?}", answer.headers);
                })
            },
        },
        Row {
            key: "[rate_limits.*] headers",
            tag: "limit_headers",
            lines: &[
                "headers = \"draft\"",
                "headers = \"draft-7\"",
                "headers = \"draft-6\"",
                "headers = \"legacy\"",
                "headers = \"kong\"",
                "headers = \"none\"",
            ],
            check: |house, at| {
                Box::pin(async move {
                    let answer = house.gw.get_main("/told").await.expect_status(200);
                    assert_eq!(form(&answer), WORDS[at], "{:?}", answer.headers);
                })
            },
        },
        Row {
            key: "[rate_limits.*] skip_failed",
            tag: "skip_failed",
            lines: &["skip_failed = false", "skip_failed = true"],
            check: |house, at| {
                Box::pin(async move {
                    assert_eq!(house.meets("/failed", 429).await, at == 0);
                })
            },
        },
        Row {
            key: "[rate_limits.*] skip_successful",
            tag: "skip_successful",
            lines: &["skip_successful = false", "skip_successful = true"],
            check: |house, at| {
                Box::pin(async move {
                    assert_eq!(house.meets("/successful", 429).await, at == 0);
                })
            },
        },
        Row {
            key: "[upstreams.*] http2",
            tag: "http2",
            lines: &["http2 = false", "http2 = true"],
            check: |house, at| {
                Box::pin(async move {
                    let echo = house.gw.get_main("/http2").await.echo();
                    assert_eq!(echo.version(), ["HTTP/1.1", "HTTP/2.0"][at]);
                })
            },
        },
        Row {
            key: "[upstreams.*] proxy_protocol",
            tag: "introduced",
            lines: &["proxy_protocol = false", "proxy_protocol = true"],
            check: |house, at| {
                Box::pin(async move {
                    let answer = house.gw.get_main("/introduced").await.expect_status(200);
                    assert_eq!(answer.text(), ["plain", "intro"][at]);
                })
            },
        },
        Row {
            key: "[upstreams.*] balance",
            tag: "balance",
            lines: &["balance = \"round_robin\"", "balance = \"least_connections\""],
            check: |house, at| {
                Box::pin(async move {
                    // One of them has a request that does not end.
                    let gate = Gate::new();
                    for server in [&house.app, &house.other] {
                        server.on("/balanced/held", gate.then(Answer::text("held")));
                    }
                    let held = tokio::spawn(house.gw.get_main("/balanced/held").into_future());
                    gate.arrived(1).await;
                    let mut servers = BTreeSet::new();
                    for _ in 0..6 {
                        let answer = house.gw.get_main("/balanced/x").await.expect_status(200);
                        servers.insert(answer.header("x-server").unwrap().to_owned());
                    }
                    gate.open();
                    let holder = within("the held one", held).await.unwrap();
                    let holder = holder.header("x-server").unwrap().to_owned();
                    assert_eq!(servers.contains(&holder), at == 0, "{holder} holds, {servers:?} answer");
                })
            },
        },
        Row {
            key: "[upstreams.*.servers] backup",
            tag: "backup",
            lines: &[
                "    { address = \"{other}\", backup = false },",
                "    { address = \"{other}\", backup = true },",
            ],
            check: |house, at| {
                Box::pin(async move {
                    let mut servers = BTreeSet::new();
                    for _ in 0..20 {
                        let answer = house.gw.get_main("/spare").await.expect_status(200);
                        servers.insert(answer.header("x-server").unwrap().to_owned());
                    }
                    assert_eq!(servers.len(), 2 - at, "{servers:?}");
                    assert!(servers.contains("app"));
                })
            },
        },
        Row {
            key: "[upstreams.*.retry] non_idempotent",
            tag: "non_idempotent",
            lines: &["non_idempotent = false", "non_idempotent = true"],
            check: |house, at| {
                Box::pin(async move {
                    let answer = house.gw.client_of("main").request("POST", "/flaky").body("x").await;
                    answer.expect_status([503, 200][at]);
                })
            },
        },
        Row {
            key: "[routes] stream",
            tag: "stream",
            lines: &["stream = false", "stream = true"],
            check: |house, at| {
                Box::pin(async move {
                    house.gw.get_main("/stream").await.expect_status([504, 200][at]);
                })
            },
        },
        Row {
            key: "[routes] timeout",
            tag: "timeout",
            lines: &["timeout = \"300ms\"", "timeout = \"none\""],
            check: |house, at| {
                Box::pin(async move {
                    house.gw.get_main("/late").await.expect_status([504, 200][at]);
                })
            },
        },
        Row {
            key: "[routes] access_log",
            tag: "access_log",
            lines: &["access_log = true", "access_log = false"],
            check: |house, at| {
                Box::pin(async move {
                    let id = house.once();
                    for path in ["logged", "plain"] {
                        house.gw.get_main(&format!("/{path}?{id}")).await.expect_status(200);
                    }
                    house.gw.logged(&format!("/plain?{id}")).await;
                    let is_there =
                        house.gw.access_log().iter().any(|line| line.contains(&format!("/logged?{id}")));
                    assert_eq!(is_there, at == 0);
                })
            },
        },
        Row {
            key: "[routes] auth",
            tag: "auth",
            lines: &["auth = { with = [\"jwt:local\"] }", "auth = \"none\""],
            check: |house, at| {
                Box::pin(async move {
                    house.gw.get_main("/guarded").await.expect_status([401, 200][at]);
                })
            },
        },
        Row {
            key: "[routes.cors] credentials",
            tag: "credentials",
            lines: &["credentials = false", "credentials = true"],
            check: |house, at| {
                Box::pin(async move {
                    let answer = house.gw.get_main("/cors").header("origin", "https://app.example.com").await;
                    assert_eq!(answer.header("access-control-allow-credentials"), [None, Some("true")][at]);
                })
            },
        },
        Row {
            key: "[routes.response] envelope",
            tag: "envelope",
            lines: &["envelope = false", "envelope = true"],
            check: |house, at| {
                Box::pin(async move {
                    let answer = house.gw.get_main("/enveloped").await.expect_status(200).json();
                    assert_eq!(answer["data"]["method"] == "GET", at == 1, "{answer}");
                })
            },
        },
        Row {
            key: "[routes.files] listing",
            tag: "listing",
            lines: &["listing = false", "listing = true"],
            check: |house, at| {
                Box::pin(async move {
                    assert_eq!(house.gw.get_main("/files/").await.status == 200, at == 1);
                })
            },
        },
        Row {
            key: "[routes.aggregate] on_failure",
            tag: "on_failure",
            lines: &["on_failure = \"partial\"", "on_failure = \"fail\""],
            check: |house, at| {
                Box::pin(async move {
                    house.gw.get_main("/aggregate").await.expect_status([200, 502][at]);
                })
            },
        },
        Row {
            key: "[routes.aggregate] report",
            tag: "report",
            lines: &["report = \"headers\"", "report = \"body\"", "report = \"none\""],
            check: |house, at| {
                Box::pin(async move {
                    let answer = house.gw.get_main("/aggregate").await.expect_status(200);
                    assert_eq!(answer.headers.contains_key("server-timing"), at != 2, "{answer:?}");
                    assert_eq!(answer.json()["_legs"].is_object(), at == 1, "{answer:?}");
                })
            },
        },
        Row {
            key: "[routes.aggregate.legs] required",
            tag: "required",
            lines: &["required = false", "required = true"],
            check: |house, at| {
                Box::pin(async move {
                    house.gw.get_main("/needs").await.expect_status([200, 502][at]);
                })
            },
        },
        Row {
            key: "[routes.aggregate.legs] method",
            tag: "method",
            lines: &[
                "method = \"GET\"",
                "method = \"POST\"",
                "method = \"PUT\"",
                "method = \"PATCH\"",
                "method = \"DELETE\"",
            ],
            check: |house, at| {
                Box::pin(async move {
                    let answer = house.gw.get_main("/method").await.expect_status(200).json();
                    assert_eq!(answer["echo"]["method"], ["GET", "POST", "PUT", "PATCH", "DELETE"][at]);
                })
            },
        },
    ]
}

/// Features without a switch of their own, off and on: what is not there or has a number that says so.
fn rows_of_features() -> Vec<Row> {
    vec![
        Row {
            key: "[limits] connections_per_address",
            tag: "per_address",
            lines: &["connections_per_address = 0", "connections_per_address = 1"],
            check: |house, at| {
                Box::pin(async move {
                    // Of an address that nobody else here has; that of the traffic is a trusted proxy's.
                    let mut first = house.stranger().await;
                    assert!(first.gets("/plain").await);
                    assert_eq!(house.stranger().await.gets("/plain").await, at == 0);
                })
            },
        },
        Row {
            key: "[limits] min_body_rate",
            tag: "min_body_rate",
            lines: &["min_body_rate = \"0\"", "min_body_rate = \"10KiB/s\""],
            check: |house, at| {
                Box::pin(async move {
                    let mut raw = RawClient::connect(house.gw.listener("main")).await;
                    raw.send("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3000\r\n\r\n").await;
                    // Never silent for long: 2 KB/s, for longer than a body may owe.
                    let mut ticks = tokio::time::interval(Duration::from_millis(50));
                    for _ in 0..30 {
                        ticks.tick().await;
                        raw.try_send([b'x'; 100]).await;
                    }
                    raw.response_or_close().await.expect("an answer").expect_status([200, 408][at]);
                })
            },
        },
        Row {
            key: "[listeners] redirect_https",
            tag: "redirect_https",
            lines: &["redirect_https = 0", "redirect_https = 8443"],
            check: |house, at| {
                Box::pin(async move {
                    let answer = house.gw.client_of("redirecting").get("/plain").await;
                    assert_eq!(answer.status, [200, 308][at]);
                })
            },
        },
        Row {
            key: "[listeners] hsts",
            tag: "hsts",
            lines: &["", "hsts = \"1h\""],
            check: |house, at| {
                Box::pin(async move {
                    let (authority, clients) = house.clients.as_ref().unwrap();
                    let known = clients.client("alice");
                    let secure = Client::new(house.gw.listener("secure"))
                        .tls(&authority.client_config(&[], Some(&known)), "localhost");
                    let answer = secure.get("/plain").await.expect_status(200);
                    assert_eq!(answer.headers.contains_key("strict-transport-security"), at == 1);
                })
            },
        },
        Row {
            key: "[upstreams.*] max_requests",
            tag: "max_requests",
            lines: &["max_requests = 0", "max_requests = 1"],
            check: |house, at| {
                Box::pin(async move {
                    let beside = house.beside_one_held("/full").await;
                    assert_eq!(beside, [200, 503][at]);
                })
            },
        },
        Row {
            key: "[rate_limits.*] concurrent",
            tag: "concurrent",
            lines: &["", "concurrent = 1"],
            check: |house, at| {
                Box::pin(async move {
                    let beside = house.beside_one_held("/together").await;
                    assert_eq!(beside, [200, 429][at]);
                })
            },
        },
        Row {
            key: "[upstreams.*.retry] attempts",
            tag: "attempts",
            lines: &["attempts = 1", "attempts = 2"],
            check: |house, at| {
                Box::pin(async move {
                    house.gw.get_main("/again").await.expect_status([503, 200][at]);
                })
            },
        },
        Row {
            key: "[upstreams.*] circuit_breaker",
            tag: "circuit_breaker",
            lines: &["circuit_breaker = false", "circuit_breaker = { failures = 2, open_for = \"1h\" }"],
            check: |house, at| {
                Box::pin(async move {
                    let mut last = None;
                    for _ in 0..4 {
                        last = Some(house.gw.get_main("/broken").await.expect_status(503));
                    }
                    let is_open = last.unwrap().text().contains("upstream.circuit_open");
                    assert_eq!(is_open, at == 1);
                })
            },
        },
        Row {
            key: "[upstreams.*] fallback",
            tag: "fallback",
            lines: &["fallback = false", "fallback = { status = 200, text = \"spare\" }"],
            check: |house, at| {
                Box::pin(async move {
                    assert_eq!(house.gw.get_main("/gone").await.status == 200, at == 1);
                })
            },
        },
        Row {
            key: "[upstreams.*] health_check",
            tag: "health_check",
            lines: &[
                "health_check = false",
                "health_check = { path = \"/health\", interval = \"50ms\", unhealthy_after = 1 }",
            ],
            check: |house, at| {
                Box::pin(async move {
                    eventually("the check to count, or not", async || {
                        (house.gw.get_main("/ill").await.status == [200, 503][at]).then_some(())
                    })
                    .await;
                })
            },
        },
        Row {
            key: "[upstreams.*] tls",
            tag: "tls",
            lines: &["tls = false", "tls = { sni = \"app.internal\", ca = \"servers.pem\" }"],
            check: |house, at| {
                Box::pin(async move {
                    assert_eq!(house.gw.get_main("/sealed").await.status == 200, at == 1);
                })
            },
        },
        Row {
            key: "[routes] rewrite",
            tag: "rewrite",
            lines: &["rewrite = false", "rewrite = { path = \"/elsewhere\" }"],
            check: |house, at| {
                Box::pin(async move {
                    let echo = house.gw.get_main("/rewritten").await.echo();
                    assert_eq!(echo.target(), ["/rewritten", "/elsewhere"][at]);
                })
            },
        },
        Row {
            key: "[routes] ip",
            tag: "ip",
            lines: &["ip = false", "ip = { deny = [\"127.0.0.1\"] }"],
            check: |house, at| {
                Box::pin(async move {
                    house.gw.get_main("/near").await.expect_status([200, 403][at]);
                })
            },
        },
        Row {
            key: "[routes] cors",
            tag: "cors",
            lines: &["cors = false", "cors = { origins = [\"https://app.example.com\"] }"],
            check: |house, at| {
                Box::pin(async move {
                    let answer = house.gw.get_main("/read").header("origin", "https://app.example.com").await;
                    assert_eq!(answer.headers.contains_key("access-control-allow-origin"), at == 1);
                })
            },
        },
        Row {
            key: "[routes] request",
            tag: "request",
            lines: &["request = false", "request = { set = { X-Set = \"1\" } }"],
            check: |house, at| {
                Box::pin(async move {
                    let echo = house.gw.get_main("/told/of").await.echo();
                    assert_eq!(echo.header("x-set").is_some(), at == 1);
                })
            },
        },
        Row {
            key: "[routes.request] query",
            tag: "query",
            lines: &["query = false", "query = { set = { lang = \"de\" } }"],
            check: |house, at| {
                Box::pin(async move {
                    let echo = house.gw.get_main("/queried").await.echo();
                    assert_eq!(echo.target(), ["/queried", "/queried?lang=de"][at]);
                })
            },
        },
        Row {
            key: "[routes] response",
            tag: "response",
            lines: &["response = false", "response = { set = { X-Frame-Options = \"DENY\" } }"],
            check: |house, at| {
                Box::pin(async move {
                    let answer = house.gw.get_main("/framed").await.expect_status(200);
                    assert_eq!(answer.headers.contains_key("x-frame-options"), at == 1);
                })
            },
        },
    ]
}

impl House {
    /// Changes the file, so that the route `/touched` says what is returned as soon as that is in force.
    async fn touch(&self) -> String {
        let (before, next) = (self.gw.get_main("/touched").await.text(), self.once());
        self.gw
            .rewrite("edgeward.toml", |text| text.replace(&format!("\"{before}\""), &format!("\"{next}\"")));
        next
    }

    /// The status of a request below `path` while another one there does not end.
    async fn beside_one_held(&self, path: &str) -> u16 {
        let gate = Gate::new();
        self.app.on(&format!("{path}/held"), gate.then(Answer::text("held")));
        let held = tokio::spawn(self.gw.get_main(&format!("{path}/held")).into_future());
        gate.arrived(1).await;
        let beside = self.gw.get_main(&format!("{path}/x")).await.status;
        gate.open();
        within("the held one", held).await.unwrap().expect_status(200);
        beside
    }

    /// A connection from an address of its own.
    async fn stranger(&self) -> Stranger {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.3:0".parse().unwrap()).unwrap();
        Stranger(within("connect", socket.connect(self.gw.listener("main"))).await.unwrap())
    }

    /// Whether somebody new meets `status` within five requests.
    async fn meets(&self, path: &str, status: u16) -> bool {
        let who = self.once();
        for _ in 0..5 {
            if self.gw.get_main(path).header("x-who", &who).await.status == status {
                return true;
            }
        }
        false
    }
}

struct Stranger(tokio::net::TcpStream);

impl Stranger {
    /// Whether this is answered with 200; otherwise the connection was closed.
    async fn gets(&mut self, path: &str) -> bool {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};

        let text = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
        let _sent = within("send", self.0.write_all(text.as_bytes())).await;
        let mut head = [0; 12];
        let read = within("an answer or the end", self.0.read_exact(&mut head)).await;
        read.is_ok() && head == *b"HTTP/1.1 200"
    }
}

impl Gateway {
    fn client_of(&self, listener: &str) -> Client {
        Client::new(self.listener(listener))
    }

    fn get_main(&self, path: &str) -> RequestBuilder {
        self.client_of("main").get(path)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_a_reload() {
    let failed = Arc::new(std::sync::Mutex::new(BTreeSet::new()));
    // Each request fails at its first attempt.
    let flaky = || {
        let failed = failed.clone();
        Answer::with(move |seen| {
            let id = seen.header("x-request-id").unwrap().to_owned();
            Fixed::new(if failed.lock().unwrap().insert(id) { 503 } else { 200 }, "".into())
        })
    };
    let app = upstream()
        .named("app")
        .on("/flaky", flaky())
        .on("/again", flaky())
        .on("/stream", Answer::after(2000, Answer::text("late")))
        .on("/late", Answer::after(900, Answer::text("late")))
        .on("/good", Answer::json(json!({ "good": true })))
        .on("/bad", Answer::status(500))
        .start()
        .await;
    let other = upstream().named("other").start().await;
    let introduced = RawUpstream::script(|mut peer| async move {
        let mut text = "plain";
        while let Some(head) = peer.head().await {
            // The header of version 2 begins with an empty line.
            if head == "\r\n\r\n" {
                text = "intro";
                continue;
            }
            peer.write(format!("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{text}").as_bytes()).await;
        }
    })
    .await;
    let (authority, clients) = (Authority::new(), Authority::new());
    let lame = upstream().otherwise(Answer::status(503)).start().await;
    let ill = upstream().on("/health", Answer::status(500)).start().await;
    let sealed = upstream().tls(&authority.server(&["app.internal"])).start().await;
    let dead = DeadPort::new();
    let gw = gateway(CONFIG)
        .with("app", &app)
        .with("lame", &lame)
        .with("ill", &ill)
        .with("sealed", &sealed)
        .with("dead", &dead)
        .file("servers.pem", &authority.pem)
        .with("other", &other)
        .with("introduced", &introduced)
        .identity("site", &authority.server(&["localhost"]))
        .file("clients.pem", &clients.pem)
        .file("www/a.txt", "a")
        .file("secret", SECRET)
        .start()
        .await;
    let asks = [
        asked("/plain", &[200]),
        asked("/claims", &[200]).with("authorization", bearer()),
        asked("/keys", &[200]).with("x-api-key", KEY),
        asked("/http2", &[200]),
        asked("/introduced", &[200]),
        asked("/spare", &[200]),
        asked("/flaky", &[200]),
        asked("/failed", &[404, 429]),
        asked("/successful", &[200, 429]),
        asked("/told", &[200]),
        asked("/logged", &[200]),
        asked("/guarded", &[200]).with("authorization", bearer()),
        asked("/cors", &[200]).with("origin", "https://app.example.com"),
        asked("/enveloped", &[200]),
        asked("/files/a.txt", &[200]),
        asked("/aggregate", &[200, 502]),
        asked("/needs", &[200, 502]),
        asked("/method", &[200]),
    ];
    // Not what admits one at a time: that is asked by who counts.
    let asks_of_features = [
        asked("/plain", &[200]),
        asked("/echo", &[200]),
        asked("/again", &[200, 503]),
        asked("/gone", &[200, 502, 503]),
        asked("/ill", &[200, 503]),
        asked("/rewritten", &[200]),
        asked("/near", &[200, 403]),
        asked("/read", &[200]).with("origin", "https://app.example.com"),
        asked("/told/of", &[200]),
        asked("/queried", &[200]),
        asked("/framed", &[200]),
    ];
    let house = House { clients: Some((authority, clients)), ..House::new(gw, app, other) };
    house.turn_all(&rows(), "reload", &asks).await;
    house.turn_together(&rows_of_features(), &asks_of_features).await;
    house.gw.stop().await;
}

const KEPT: &str = r#"
[server]
control_socket = "run/control.sock"
trusted_proxies = ["127.0.0.0/8"]
grace_period = "5s"
[[listeners]]
name = "main"
address = "127.0.0.1:0"
http2 = true # @listener_http2
[[listeners]]
name = "introduced"
address = "127.0.0.1:0"
proxy_protocol = false # @listener_introduced
[store]
url = "sqlite:services.db"
services = false # @services
[[routes]]
path = "/plain"
respond = { text = "ok" }
"#;

/// What binds the process: an upgrade turns it.
fn rows_of_upgrades() -> Vec<Row> {
    vec![
        Row {
            key: "[listeners] http2",
            tag: "listener_http2",
            lines: &["http2 = true", "http2 = false"],
            check: |house, at| {
                Box::pin(async move {
                    let answer = house.gw.client_of("main").http2().get("/plain").send().await;
                    assert_eq!(answer.is_ok_and(|answer| answer.status == 200), at == 0);
                })
            },
        },
        Row {
            key: "[listeners] proxy_protocol",
            tag: "listener_introduced",
            lines: &["proxy_protocol = false", "proxy_protocol = true"],
            check: |house, at| {
                Box::pin(async move {
                    let introduced = house
                        .gw
                        .client_of("introduced")
                        .introduced_by("PROXY TCP4 192.0.2.1 192.0.2.2 1000 80\r\n");
                    let answer = introduced.get("/plain").send().await;
                    assert_eq!(answer.is_ok_and(|answer| answer.status == 200), at == 1);
                })
            },
        },
        Row {
            key: "[store] services",
            tag: "services",
            lines: &["services = false", "services = true"],
            check: |house, at| {
                Box::pin(async move {
                    eventually("the service to be there, or not", async || {
                        (house.gw.get_main("/service").await.status == [404, 200][at]).then_some(())
                    })
                    .await;
                })
            },
        },
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_an_upgrade() {
    use sqlx::Connection as _;

    let (app, other) = (upstream().start().await, upstream().start().await);
    let mut gw = gateway(KEPT).start().await;
    let url = format!("sqlite:{}", gw.directory().join("services.db").display());
    let row = format!(
        "INSERT INTO edgeward_services (name, path, endpoints) VALUES ('app', '/service', \
         '[{{\"type\":\"http-get\",\"url\":\"http://{}/x\"}}]');",
        app.address()
    );
    eventually("the store to be there", async || {
        let mut connection = sqlx::SqliteConnection::connect(&url).await.ok()?;
        sqlx::raw_sql(sqlx::AssertSqlSafe(row.clone())).execute(&mut connection).await.ok()?;
        connection.close().await.ok()
    })
    .await;
    // Its end is no accident from here on.
    gw.is_replaced();
    let house = House::new(gw, app, other);
    house.turn_all(&rows_of_upgrades(), "upgrade", &[asked("/plain", &[200])]).await;
}

const MESSAGES: &str = r#"
[server]
control_socket = "run/control.sock"
[[listeners]]
name = "main"
address = "127.0.0.1:0"
[brokers.main]
url = "{broker}"
[[routes]]
path = "/ask"
[routes.amqp]
broker = "main"
queue = "echo"
publish = false # @publish
[[routes]]
path = "/plain"
respond = { text = "ok" }
"#;

fn rows_of_messages() -> Vec<Row> {
    vec![Row {
        key: "[routes.amqp] publish",
        tag: "publish",
        lines: &["publish = false", "publish = true"],
        check: |house, at| {
            Box::pin(async move {
                let answer = house.gw.get_main("/ask").await.expect_status([200, 202][at]);
                assert_eq!(answer.text().contains("answered"), at == 0);
            })
        },
    }]
}

/// Turns what is about messages, over a broker that answers the queue `echo` with `{ "answered": true }`. Called by the test
/// that has one, as brokers take seconds to start.
pub async fn of_messages(broker: &RabbitMq) {
    let gw = gateway(MESSAGES).replacing("{broker}", &broker.url()).start().await;
    gw.metric_is("edgeward_broker_up", &["main"], 1.0).await;
    let house = House::new(gw, upstream().start().await, upstream().start().await);
    let asks = [asked("/plain", &[200]), asked("/ask", &[200, 202])];
    house.turn_all(&rows_of_messages(), "reload", &asks).await;
    house.gw.stop().await;
}

const ALONE: &str = r#"
[server]
control_socket = "run/control.sock"
[[listeners]]
name = "main"
address = "127.0.0.1:0"
[cluster]
redis = "redis://{dead}"
[store]
url = "postgres://nobody:none@{dead}/nothing"
[rate_limits.shared]
key = "header:x-who"
limits = ["3/h"]
on_store_failure = "local" # @limit
[plans.small]
quota = "3/month"
on_store_failure = "local" # @plan
[consumers.mobile]
plan = "small"
api_keys = ["mobile-0123456789abcdef"]
[[routes]]
path = "/limited"
rate_limits = ["shared"]
respond = { text = "ok" }
[[routes]]
path = "/keys"
respond = { text = "ok" }
auth = { with = ["api_key"] }
[[routes]]
path = "/plain"
respond = { text = "ok" }
"#;

/// The last of five answers, by position: counted here, not counted, not let through.
const LAST: [u16; 3] = [429, 200, 503];
const MODES: &[&str] =
    &["on_store_failure = \"local\"", "on_store_failure = \"allow\"", "on_store_failure = \"deny\""];

fn rows_without_others() -> Vec<Row> {
    vec![
        Row {
            key: "[rate_limits.*] on_store_failure",
            tag: "limit",
            lines: MODES,
            check: |house, at| {
                Box::pin(async move {
                    let who = house.once();
                    let mut last = 0;
                    for _ in 0..5 {
                        last = house.gw.get_main("/limited").header("x-who", &who).await.status;
                    }
                    assert_eq!(last, LAST[at]);
                })
            },
        },
        Row {
            key: "[plans.*] on_store_failure",
            tag: "plan",
            lines: MODES,
            check: |house, at| {
                Box::pin(async move {
                    let mut last = 0;
                    for _ in 0..5 {
                        last = house.gw.get_main("/keys").header("x-api-key", KEY).await.status;
                    }
                    assert_eq!(last, LAST[at]);
                })
            },
        },
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_and_store() {
    let dead = DeadPort::new();
    let gw = gateway(ALONE).with("dead", &dead).start().await;
    let house = House::new(gw, upstream().start().await, upstream().start().await);
    let asks = [
        asked("/plain", &[200]),
        asked("/limited", &[200, 429, 503]).with("x-who", "everybody"),
        asked("/keys", &[200, 429, 503]).with("x-api-key", KEY),
    ];
    house.turn_all(&rows_without_others(), "reload", &asks).await;
    house.gw.stop().await;
}

/// Switches that are turned by no test here, and why.
const ELSEWHERE: &[(&str, &str)] = &[
    (
        "[identity.login.cors] credentials",
        "the same table as that of routes, which is turned; login::limits_and_origins_are_those_of_logins has it",
    ),
    ("[identity.login] cors", "as above"),
    // Tables that are always there: absent, they have their defaults, and their keys are what is turned.
    ("[log] access", "`output` turns it off"),
    ("[identity] api_key", "only says where keys are looked for"),
    ("[identity.login] passwords", "only says what they cost"),
    ("[identity.login] failures", "only says how many"),
    ("[upstreams.*] timeouts", "there always are some"),
    ("[upstreams.*] retry", "`attempts = 1` turns it off"),
    // What a route is: exactly one has to be there, and turning one on is another route.
    ("[routes] redirect", "a target"),
    ("[routes] respond", "a target"),
    ("[routes] files", "a target"),
    ("[routes] aggregate", "a target"),
    ("[routes] amqp", "a target"),
    ("[routes.aggregate.legs] amqp", "a target"),
    ("[server] pid_file", "the name of a file: cli has it"),
    ("[server] control_socket", "orders come over it: cli has what there is without one"),
    // What is not there at first in tests with the server that it needs.
    ("[log] bus", "log_bus::a_missing_exchange_and_a_reload turns it off and on"),
    ("[identity] login", "its paths are routes, which come and go in reload; what they do is in login"),
    // Bound to the process or to what is short in all of it: on or off for everybody in the traffic.
    ("[limits] memory", "pressure turns it on and off, and counts who is refused"),
    ("[] admin", "a listener of its own, which no request of the traffic passes"),
    (
        "[admin] token",
        "services::without_a_token_the_api_only_tells has the API without one, all others there with it",
    ),
    ("[] store", "bound to the process, and most tests run without"),
    ("[] cluster", "bound to the process, and most tests run without"),
    // Bounds of plans, each with and without in plans.
    ("[plans.*] rate", "plans"),
    ("[plans.*] quota", "plans"),
    ("[plans.*] max_unsaved", "plans::the_error_may_be_bounded"),
];

/// The positions of a switch, as they are written; none for what is no switch.
fn positions(shape: &Shape) -> Vec<String> {
    match shape {
        Shape::Boolean => vec!["true".to_owned(), "false".to_owned()],
        Shape::Word(words) => words.iter().map(|word| format!("\"{word}\"")).collect(),
        Shape::OneOf(shapes) => shapes.iter().flat_map(positions).collect(),
        _ => Vec::new(),
    }
}

/// How a feature is switched off that has no switch of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Off {
    /// It is not there, or `false` stands for it.
    Absent,
    /// This number.
    Number(&'static str),
}

/// Whether a table stands here, or a word in place of one.
fn is_table(shape: &Shape) -> bool {
    match shape {
        Shape::Table(_) => true,
        Shape::OneOf(shapes) => {
            let is_word = |one: &Shape| matches!(one, Shape::Word(_) | Shape::Only(_) | Shape::Boolean);
            shapes.iter().any(is_table) && shapes.iter().all(|one| is_table(one) || is_word(one))
        }
        _ => false,
    }
}

/// Whether a key of the table at `path` is such a feature, as far as its declaration says it.
fn off(path: &str, key: &Key) -> Option<Off> {
    let doc = doc_text(key.doc).to_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| doc.contains(word));
    match key.presence {
        _ if says(&["0 = no limit", "0 = any number", "0 = none"]) => Some(Off::Number("0")),
        _ if says(&["1 = nothing is tried again"]) => Some(Off::Number("1")),
        // The tables of the whole are its chapters.
        Presence::Optional if !path.is_empty() && is_table(&(key.shape)()) => Some(Off::Absent),
        Presence::Optional
            if says(&["absent = no", "absent: no", "absent = any number", "absent = cleartext"]) =>
        {
            Some(Off::Absent)
        }
        // A duration that is there or not, of which no word says that.
        Presence::Optional if key.name == "hsts" => Some(Off::Absent),
        _ => None,
    }
}

impl Off {
    /// Whether this line of `key` has the feature off.
    fn is_in(self, key: &str, line: &str) -> bool {
        let value = line.trim().strip_prefix(key).map(|rest| rest.trim_start_matches([' ', '=']));
        match (self, value) {
            (Self::Absent, value) => matches!(value, None | Some("false" | "\"none\"")),
            (Self::Number(number), Some(value)) => value.trim_matches('"') == number,
            (Self::Number(_), None) => false,
        }
    }
}

/// What is switched by being there, or by a number, is found in the declarations.
#[test]
fn features_without_a_switch_are_known() {
    let mut found = BTreeSet::new();
    for place in tables(&ConfigRaw::shape()) {
        for key in place.keys.iter().filter(|key| off(&place.path, key).is_some()) {
            found.insert(format!("[{}] {}", place.path, key.name));
        }
    }
    for name in [
        "[limits] connections_per_address",
        "[limits] min_body_rate",
        "[limits] memory",
        "[listeners] client_auth",
        "[listeners] redirect_https",
        "[listeners] hsts",
        "[log] bus",
        "[] cluster",
        "[] store",
        "[] admin",
        "[identity] login",
        "[upstreams.*] tls",
        "[upstreams.*] max_requests",
        "[upstreams.*] health_check",
        "[upstreams.*] circuit_breaker",
        "[upstreams.*] fallback",
        "[upstreams.*.retry] attempts",
        "[rate_limits.*] concurrent",
        "[plans.*] quota",
        "[routes] cors",
        "[routes] ip",
        "[routes] auth",
    ] {
        assert!(found.contains(name), "{name} is not among {found:#?}");
    }
    assert!(
        Off::Absent.is_in("tls", "tls = false")
            && Off::Absent.is_in("tls", "")
            && !Off::Absent.is_in("tls", "tls = {}")
    );
    assert!(Off::Number("0").is_in("x", "x = \"0\"") && !Off::Number("0").is_in("x", "x = 10"));
}

#[test]
fn every_switch_is_tried() {
    let rows = [rows(), rows_of_features(), rows_of_upgrades(), rows_of_messages(), rows_without_others()];
    let rows: Vec<&Row> = rows.iter().flatten().collect();
    let (mut untried, mut all) = (Vec::new(), BTreeSet::new());
    for place in tables(&ConfigRaw::shape()) {
        // Their keys are those of routes and upstreams.
        if ["defaults", "upstream_defaults"].iter().any(|table| place.path.starts_with(table)) {
            continue;
        }
        for key in place.keys {
            let name = format!("[{}] {}", place.path, key.name);
            let row = rows.iter().find(|row| row.key.split(" + ").any(|key| key == name));
            let elsewhere = ELSEWHERE.iter().any(|(key, _)| *key == name);
            for position in positions(&(key.shape)()).iter().filter(|_| !elsewhere) {
                let written = |row: &&&Row| row.lines.iter().any(|line| line.contains(position.as_str()));
                if row.filter(written).is_none() {
                    untried.push(format!("{name} = {position}"));
                }
            }
            if let Some(off) = off(&place.path, key).filter(|_| !elsewhere) {
                let is_off = |line: &&str| off.is_in(key.name, line);
                let lines = row.map_or(&[][..], |row| row.lines);
                if !lines.iter().any(is_off) || lines.iter().all(is_off) {
                    untried.push(format!("{name}, on and off ({off:?})"));
                }
            }
            all.insert(name);
        }
    }
    assert!(untried.is_empty(), "no test turns {untried:#?}");
    let named = rows.iter().flat_map(|row| row.key.split(" + ")).chain(ELSEWHERE.iter().map(|(key, _)| *key));
    let gone: Vec<_> = named.filter(|key| !all.contains(*key)).collect();
    assert!(gone.is_empty(), "there is no key {gone:#?}");
    assert!(rows.iter().all(|row| row.lines.len() > 1));
}
