//! Plans over real sockets: quotas that outlive processes, add up over instances, and close what nobody defined.

use std::path::Path;

use edgeward::store::{NewKey, OwnerKind, Store, StoreUrl};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::*;

const KEY: &str = "mobile-0123456789abcdef";

/// A consumer with ten requests a month.
const SMALL: &str = r#"
[server]
control_socket = "run/control.sock"

[plans.small]
quota = "10/month"

[consumers.mobile]
plan = "small"
api_keys = ["mobile-0123456789abcdef"]

[defaults]
auth = { with = ["api_key"] }

[[routes]]
name = "all"
path = "/*"
respond = { text = "ok" }
"#;

fn on(store: &str) -> GatewayBuilder {
    gateway(SMALL).and(&format!("[store]\nurl = \"{store}\"\n"))
}

/// A file that no gateway's end takes along.
fn file() -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", directory.path().join("edgeward.db").display());
    (directory, url)
}

async fn ask(gw: &Gateway, key: &str) -> Response {
    gw.get("/").header("x-api-key", key).await
}

/// How many of so many requests pass; the others are told that the quota is used up.
async fn passing(gw: &Gateway, key: &str, requests: usize) -> usize {
    let mut passed = 0;
    for _ in 0..requests {
        match ask(gw, key).await {
            answer if answer.status == 200 => passed += 1,
            answer => drop(answer.expect_problem(429, "limit.quota_exceeded")),
        }
    }
    passed
}

async fn command(directory: &Path, line: &str) -> Ran {
    let words: Vec<String> = line.split(' ').map(|word| word.replace('\'', "")).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    crate::support::run(crate::support::command(directory, &words)).await
}

/// What `consumer usage` says. The process has then written what it counted, and read what others have.
async fn usage(gw: &Gateway, consumer: &str) -> Value {
    let ran = command(&gw.directory(), &format!("consumer usage {consumer} --json -c edgeward.toml")).await;
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    serde_json::from_str(&ran.stdout).unwrap()
}

async fn stored(store: &Store) -> Option<u64> {
    let rows = store.usage_of(OwnerKind::Consumer, "mobile", unix_now()).await;
    rows.ok()?.first()?.used
}

#[tokio::test]
async fn a_quota_is_told_and_outlives_reloads_and_processes() {
    let (_place, store) = file();
    let gw = on(&store).start().await;
    let first = ask(&gw, KEY).await.expect_status(200);
    let policy = first.header("ratelimit-policy").unwrap().to_owned();
    assert!(policy.starts_with("\"plan small/month\";q=10;w=2"), "{policy}");
    let told = first.header("ratelimit").unwrap();
    assert!(told.starts_with("\"plan small/month\";r=9;t="), "{told}");
    assert_eq!(passing(&gw, KEY, 3).await, 3);
    gw.metric_is("edgeward_plan_requests_total", &["plan=\"small\"", "passed"], 4.0).await;
    // A reload that changes something else, and one that changes the plan.
    gw.rewrite("edgeward.toml", |text| text.replace("text = \"ok\"", "text = \"fine\""));
    assert_eq!(gw.order("reload").await.status, 0);
    assert_eq!(passing(&gw, KEY, 1).await, 1);
    gw.rewrite("edgeward.toml", |text| text.replace("10/month", "8/month"));
    assert_eq!(gw.order("reload").await.status, 0);
    assert!(ask(&gw, KEY).await.header("ratelimit").unwrap().contains(";r=2;"));
    gw.stop().await;

    let gw = on(&store).start().await;
    assert_eq!(passing(&gw, KEY, 9).await, 4, "six were used before");
    let refused = ask(&gw, KEY).await.expect_problem(429, "limit.quota_exceeded");
    let told = usage(&gw, "mobile").await;
    assert_eq!(
        [&told["plan"], &told["period"], &told["used"], &told["quota"], &told["remaining"]],
        [&json!("small"), &json!("month"), &json!(10), &json!(10), &json!(0)]
    );
    let resets: jiff::Timestamp = told["resets"].as_str().unwrap().parse().unwrap();
    let left = resets.duration_since(jiff::Timestamp::now()).as_secs();
    let retry_after: i64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((left..left + 10).contains(&retry_after), "{left} {retry_after}");
    assert_eq!(refused.json()["violated-policies"], json!(["plan small/month"]));
    assert!(refused.header("ratelimit").unwrap().starts_with("\"plan small/month\";r=0;t="));
    gw.metric_is("edgeward_plan_requests_total", &["plan=\"small\"", "quota_exceeded"], 6.0).await;
    let shown = command(&gw.directory(), "consumer usage mobile -c edgeward.toml").await.stdout;
    let mut lines = shown.lines();
    assert_eq!(
        lines.next().unwrap().split_whitespace().collect::<Vec<_>>(),
        ["PLAN", "PERIOD", "USED", "QUOTA", "REMAINING", "RESETS", "KEY"]
    );
    assert!(lines.next().unwrap().starts_with("small  month   10    10     0          "), "{shown}");
}

/// What a killed process had written is known to the next one; what came within the last second may not be.
#[tokio::test]
async fn a_kill_costs_at_most_what_was_not_written() {
    let (place, url) = file();
    let store = Store::new(StoreUrl::Sqlite(place.path().join("edgeward.db")));
    let mut gw = on(&url).start().await;
    assert_eq!(passing(&gw, KEY, 6).await, 6);
    eventually("the usage to be written by itself", async || (stored(&store).await == Some(6)).then_some(()))
        .await;
    assert_eq!(passing(&gw, KEY, 2).await, 2);
    gw.signal(Signal::KILL);
    gw.exit().await;
    let gw = on(&url).start().await;
    let passed = passing(&gw, KEY, 9).await;
    assert!((2..=4).contains(&passed), "{passed}: two of ten are left, and two were not written");
}

/// No more than so many are lost, whatever happens: what is not written is not let through.
#[tokio::test]
async fn the_error_may_be_bounded() {
    let (place, url) = file();
    let store = Store::new(StoreUrl::Sqlite(place.path().join("edgeward.db")));
    let mut gw =
        on(&url).replacing("quota = \"10/month\"", "quota = \"1000/month\"\nmax_unsaved = 3").start().await;
    let (mut passed, mut unsaved) = (0, 0);
    while unsaved == 0 || passed < 12 {
        let answer = ask(&gw, KEY).await;
        match answer.status {
            200 => passed += 1,
            _ => {
                assert_eq!(answer.expect_problem(503, "limit.unavailable").header("retry-after"), Some("1"));
                unsaved += 1;
            }
        }
        assert!(passed < 500, "with the clients of this test three are not written before the next comes");
    }
    gw.signal(Signal::KILL);
    gw.exit().await;
    let kept = stored(&store).await.unwrap();
    assert!((passed - 3..=passed).contains(&kept), "{kept} of {passed}");
}

async fn two_instances_add_up(url: &str) {
    let (one, two) = (on(url).start().await, on(url).start().await);
    assert_eq!(passing(&one, KEY, 6).await, 6);
    assert_eq!(usage(&one, "mobile").await["used"], 6);
    assert_eq!(usage(&two, "mobile").await["remaining"], 4);
    assert_eq!(passing(&two, KEY, 9).await, 4);
    // Nobody has to ask: each follows by itself.
    eventually("the first to know", async || (ask(&one, KEY).await.status == 429).then_some(())).await;
    let used = usage(&one, "mobile").await["used"].as_u64().unwrap();
    assert!((10..=14).contains(&used), "{used}: what came within a second at the other");
}

#[tokio::test]
async fn two_instances_on_one_file_add_up() {
    let (_place, url) = file();
    two_instances_add_up(&url).await;
}

#[tokio::test]
async fn two_instances_on_postgresql_add_up_and_go_on_without_it() {
    let mut server = tokio::task::spawn_blocking(Postgres::start).await.unwrap();
    two_instances_add_up(&server.database()).await;

    // While the store is away each counts for itself, and writes it later; where the plan says so, nothing passes.
    let url = server.database();
    let gw = on(&url).start().await;
    let strict = on(&url)
        .replacing("quota = \"10/month\"", "quota = \"10/month\"\non_store_failure = \"deny\"")
        .start()
        .await;
    assert_eq!(passing(&gw, KEY, 2).await, 2);
    assert_eq!(usage(&gw, "mobile").await["used"], 2);
    let mut server = tokio::task::spawn_blocking(move || {
        server.stop();
        server
    })
    .await
    .unwrap();
    eventually("the other to notice", async || (ask(&strict, KEY).await.status == 503).then_some(())).await;
    ask(&strict, KEY).await.expect_problem(503, "limit.unavailable");
    assert_eq!(passing(&gw, KEY, 20).await, 8, "eight were left as far as it knows");
    let _server = tokio::task::spawn_blocking(move || {
        server.go();
        server
    })
    .await
    .unwrap();
    eventually("all to be written", async || {
        let used = usage(&gw, "mobile").await["used"].as_u64().unwrap();
        (used >= 10).then_some(())
    })
    .await;
    eventually("the other to be back", async || (ask(&strict, KEY).await.status == 429).then_some(())).await;
}

/// A new process takes over with nothing forgotten.
#[tokio::test]
async fn an_upgrade_forgets_nothing() {
    let (_place, url) = file();
    let mut gw = on(&url).linked().start().await;
    assert_eq!(passing(&gw, KEY, 7).await, 7);
    let ran = gw.order("upgrade").await;
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    assert!(gw.exit().await.success());
    eventually("the new process to know", async || (usage(&gw, "mobile").await["used"] == 7).then_some(()))
        .await;
    // The new process has read it, as it has just answered that command.
    assert_eq!(passing(&gw, KEY, 9).await, 3);
    assert_eq!(gw.order("quit").await.status, 0);
}

/// Keys may have plans of their own; a plan that only a row names is closed.
#[tokio::test]
async fn keys_have_plans_and_unknown_ones_are_closed() {
    let (place, url) = file();
    let gw = on(&url)
        .and("[plans.trial]\nrate = \"1/h\"\nburst = 2\nquota = \"5/day\"\nquota_from = \"anniversary\"\n")
        .start()
        .await;
    let here = gw.directory();
    let run = async |line: &str| command(&here, &format!("{line} -c edgeward.toml")).await;
    let made = run("key create --consumer mobile --plan trial --json").await;
    let made: Value = serde_json::from_str(&made.stdout).unwrap();
    let (key, id) = (made["key"].as_str().unwrap(), made["id"].as_str().unwrap());
    for _ in 0..2 {
        let answer = ask(&gw, key).await.expect_status(200);
        let policy = answer.header("ratelimit-policy").unwrap();
        assert_eq!(policy, "\"plan trial\";q=1;w=3600, \"plan trial/day\";q=5;w=86400");
    }
    let refused = ask(&gw, key).await.expect_problem(429, "limit.exceeded");
    assert_eq!(refused.json()["violated-policies"], json!(["plan trial"]));
    gw.metric_is("edgeward_plan_requests_total", &["plan=\"trial\"", "limited"], 1.0).await;
    let told = usage(&gw, "mobile").await;
    assert_eq!((&told["used"], &told["quota"]), (&json!(0), &json!(10)));
    let of_key = &told["keys"][0];
    assert_eq!(
        [&of_key["key"], &of_key["plan"], &of_key["used"], &of_key["remaining"]],
        [&json!(id), &json!("trial"), &json!(2), &json!(3)]
    );
    // Its day is not the calendar's, but begins with the second in which it was made.
    assert!(of_key["begins"].as_str().unwrap() > told["begins"].as_str().unwrap());
    for (wrong, why) in [
        ("key create --consumer mobile --plan trail", "did you mean \"trial\"?"),
        ("consumer add web --plan gold", "there is no plan \"gold\" in the configuration"),
        ("consumer usage nobody", "there is no consumer \"nobody\""),
    ] {
        let ran = run(wrong).await;
        assert!(ran.status == 1 && ran.stderr.contains(why), "{wrong}: {}", ran.stderr);
    }
    // Back to its consumer's.
    assert_eq!(run(&format!("key plan {id} ''")).await.status, 0);
    eventually("the key to be counted with its consumer", async || {
        let policy = ask(&gw, key).await.header("ratelimit-policy").map(str::to_owned);
        policy.filter(|policy| policy.contains("small/month"))
    })
    .await;

    // Somebody else writes rows of a later configuration, or of another one.
    let store = Store::new(StoreUrl::Sqlite(place.path().join("edgeward.db")));
    store.add_consumer("partner", &[], Some("gone"), 1_700_000_000).await.unwrap();
    let hash = edgeward::identity::directory::hash_key("partner-0123456789abcdef");
    let row = NewKey { id: "ew_p", consumer: "partner", hash: &hash, expires_at: None, plan: None };
    store.add_key(&row, 1_700_000_000).await.unwrap();
    eventually("the key to be known", async || {
        (ask(&gw, "partner-0123456789abcdef").await.status != 401).then_some(())
    })
    .await;
    ask(&gw, "partner-0123456789abcdef").await.expect_problem(403, "limit.plan_unknown");
    eventually("the log to say so", async || {
        gw.stderr().contains("partner has a plan that the configuration does not define").then_some(())
    })
    .await;
    gw.rewrite("edgeward.toml", |text| format!("{text}\n[plans.gone]\nquota = \"1/day\"\n"));
    assert_eq!(gw.order("reload").await.status, 0);
    assert_eq!(passing(&gw, "partner-0123456789abcdef", 5).await, 1);
}

/// `check` says what is not kept, and `explain` whose plan it is.
#[tokio::test]
async fn plans_are_checked_and_explained() {
    let ran = gateway(SMALL).command(&["check", "-c", "edgeward.toml"]).await;
    assert_eq!(ran.status, 0, "{}", ran.complaints());
    let said = format!("{}{}", ran.stdout, ran.stderr);
    assert!(said.contains("quota-not-kept") && said.contains("counts in memory only"), "{said}");
    let words = ["explain", "-c", "edgeward.toml", "-H", "x-api-key: mobile-0123456789abcdef", "GET", "/"];
    let ran = gateway(SMALL).command(&words).await;
    assert_eq!(ran.status, 0, "{}", ran.complaints());
    let line = ran.stdout.lines().find(|line| line.trim_start().starts_with("plan ")).unwrap();
    assert!(line.contains("small: 10 a month  (edgeward.toml:"), "{line}");
}

/// `explain` asks the running process what is left of the rate and the quota, and counts nothing by that.
#[tokio::test]
async fn explain_says_what_is_left_of_a_quota() {
    let config = SMALL.replace("quota = ", "rate = \"5/h\"\nquota = ");
    let gw = gateway(&config).start().await;
    for _ in 0..3 {
        ask(&gw, KEY).await.expect_status(200);
    }
    for _ in 0..2 {
        let told = gw.ran(&["explain", "-H", &format!("x-api-key: {KEY}"), "GET", "http://localhost/"]).await;
        assert!(told.stdout.contains("left: 2 of 5 (5/h; all in "), "{}", told.stdout);
        assert!(told.stdout.contains("left: 7 of 10 a month (anew in "), "{}", told.stdout);
    }
    // Of somebody who has no plan nothing is left to be told.
    let told = gw.ran(&["explain", "GET", "http://localhost/"]).await;
    assert!(!told.stdout.contains("left: "), "{}", told.stdout);
}

/// The plan stands in the access log.
#[tokio::test]
async fn the_log_names_the_plan() {
    let gw = gateway(SMALL).and("[log.access]\nformat = \"json\"\n").start().await;
    ask(&gw, KEY).await.expect_status(200);
    let line: Value = serde_json::from_str(&gw.logged("\"plan\":\"small\"").await).unwrap();
    assert_eq!((&line["plan"], &line["consumer"]), (&json!("small"), &json!("mobile")));
}
