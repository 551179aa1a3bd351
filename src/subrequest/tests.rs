//! Plans as they are written and what comes of them, with services that answer as a test says.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method};
use parking_lot::Mutex;
use proptest::prelude::*;
use tokio::sync::{Barrier, Notify};

use super::json::{Json, parse};
use super::run::{Run, State};
use super::{
    AggregateRaw, Answer, Caller, ClientBody, Failure, Inputs, LegCall, Plan, Surroundings, merge, report,
};
use crate::base::clock;
use crate::base::decode::decode_str;
use crate::base::diagnostic::Diagnostics;
use crate::base::origin::{At, Origin};
use crate::base::reason::Reason;
use crate::routing::template::Values;
use crate::routing::{PathPattern, RequestView};
use crate::telemetry::metrics::Metrics;
use crate::upstream::config::UpstreamRaw;
use crate::upstream::resolver::System;
use crate::upstream::{Live, Upstream};

const ROUTE: &str = "/api/{id}/*";

fn upstream(name: &str) -> Arc<Upstream> {
    let (raw, mut out) = decode_str::<UpstreamRaw>("servers = [\"127.0.0.1:1\"]");
    let settings = raw.unwrap().compile(name, "upstreams.x", &Origin::Default, &mut out).unwrap();
    Upstream::new(settings, &Live::new(Metrics::new(), Arc::new(System)), clock::now())
}

fn compile(text: &str) -> (Option<Plan>, Diagnostics) {
    let (raw, mut out) = decode_str::<AggregateRaw>(text);
    let pattern = PathPattern::parse(ROUTE).unwrap();
    let metrics = Metrics::new();
    let around = Surroundings {
        pattern: &pattern,
        upstream: &|name: &At<String>, _, _| Some(upstream(name)),
        broker: &|_, _, _| None,
        metrics: &|leg| metrics.leg("route", leg),
    };
    let plan = raw.and_then(|raw| raw.compile("routes[0].aggregate", &Origin::Default, &around, &mut out));
    (plan, out)
}

fn plan(text: &str) -> Plan {
    let (plan, out) = compile(text);
    assert!(!out.has_errors(), "{out:?}");
    plan.unwrap()
}

/// Messages of errors and warnings.
fn problems(text: &str) -> Vec<String> {
    compile(text).1.iter().map(|item| item.message.clone()).collect()
}

/// Services by the path they are asked for.
#[derive(Default)]
struct Services {
    answers: HashMap<String, (u16, String)>,
    /// Paths that never answer.
    hang: Vec<&'static str>,
    asked: Mutex<Vec<String>>,
    /// All calls meet here before any is answered.
    barrier: Option<Barrier>,
    delay: Duration,
    dropped: Arc<AtomicUsize>,
    at_once: AtomicUsize,
    most_at_once: AtomicUsize,
    reached: Notify,
}

impl Services {
    fn new(answers: &[(&str, &str)]) -> Self {
        let answers = answers.iter().map(|(path, body)| {
            let (status, body) = match body.split_once(' ') {
                Some((status, body)) if status.len() == 3 => (status.parse().unwrap(), body),
                _ => (200, *body),
            };
            ((*path).to_owned(), (status, body.to_owned()))
        });
        Self { answers: answers.collect(), ..Self::default() }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().clone()
    }
}

struct Dropped(Arc<AtomicUsize>, bool);

impl Drop for Dropped {
    fn drop(&mut self) {
        if !self.1 {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl Caller for Services {
    async fn call(&self, call: LegCall<'_>) -> Result<Answer, Failure> {
        let made = call.made;
        let body = made.body.as_deref().map(|body| format!(" {}", String::from_utf8_lossy(body)));
        let headers: String =
            made.headers.iter().map(|(name, value)| format!(" {name}: {value:?}")).collect();
        let asked = format!("{} {}{headers}{}", made.method, made.target, body.unwrap_or_default());
        self.asked.lock().push(asked);
        call.attempts.fetch_add(1, Ordering::SeqCst);
        let mut guard = Dropped(self.dropped.clone(), false);
        let now = self.at_once.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_at_once.fetch_max(now, Ordering::SeqCst);
        if let Some(barrier) = &self.barrier {
            barrier.wait().await;
        }
        let path = made.target.split('?').next().unwrap();
        if self.hang.contains(&path) {
            self.reached.notify_one();
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(self.delay).await;
        self.at_once.fetch_sub(1, Ordering::SeqCst);
        guard.1 = true;
        match self.answers.get(path) {
            Some((status, body)) if call.room.take(body.len()) => {
                Ok(Answer { status: *status, body: Bytes::copy_from_slice(body.as_bytes()) })
            }
            Some(_) => Err(Failure::TooLarge),
            None => Err(Failure::Upstream { reason: Reason::ConnectFailed, retry_after: None }),
        }
    }
}

/// A request for `/api/7/rest`.
fn with_inputs<R>(query: &str, header: &[u8], body: Option<&str>, look: impl FnOnce(Inputs<'_>) -> R) -> R {
    let mut headers = HeaderMap::new();
    headers.insert("x-h", HeaderValue::from_bytes(header).unwrap());
    headers.insert("accept-language", HeaderValue::from_static("de"));
    let request = RequestView {
        listener: 0,
        host: "shop.example",
        path: "/api/7/rest",
        query: Some(query).filter(|query| !query.is_empty()),
        method: &Method::GET,
        headers: &headers,
    };
    let captures = PathPattern::parse(ROUTE).unwrap().captures(request.path).unwrap();
    let values = Values {
        request: &request,
        captures: &captures,
        scheme: "https",
        id: "r1",
        client: None,
        client_cert: None,
        who: Default::default(),
    };
    let body = body.map(|text| ClientBody {
        bytes: Bytes::copy_from_slice(text.as_bytes()),
        json: parse(text.as_bytes(), 32).unwrap(),
    });
    look(Inputs { values: &values, body: body.as_ref(), hidden_parameter: None })
}

fn block<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(work)
}

fn run_with(plan: &Plan, services: &Services, query: &str, body: Option<&str>) -> Run {
    with_inputs(query, b"h", body, |inputs| {
        block(async {
            let work = super::run(plan, inputs, services, clock::now(), None);
            tokio::time::timeout(Duration::from_secs(30), work).await.expect("a run ends")
        })
    })
}

fn run(plan: &Plan, services: &Services) -> Run {
    run_with(plan, services, "", None)
}

/// The answer as text, and whether it is whole.
fn answer(plan: &Plan, mut run: Run) -> (String, bool) {
    assert!(merge::refusal(plan, &run).is_none(), "{run:?}");
    let document = merge::compose(plan, &mut run.legs);
    (String::from_utf8(Json::Object(document.members).to_vec()).unwrap(), document.completed)
}

const ORDER_DETAILS: &str = r#"
[[legs]]
name = "order"
upstream = "orders"
path = "/orders/{path.id}"
required = true
[[legs]]
name = "customer"
upstream = "users"
path = "/users/{order.userId}"
query = { lang = "{query.lang}", v = "{order.version}" }
forward_headers = ["Accept-Language"]
target = "data"
allow = ["id", "email"]
rename = { email = "mail" }
group = "customer"
[[legs]]
name = "product"
for_each = "order.items"
upstream = "products"
path = "/products/{item.productId}"
concurrency = 2
[[legs]]
name = "stock"
upstream = "products"
method = "POST"
path = "/stock"
body = { ids = "{order.ids}", text = "for {path.id}", fixed = [1, true] }
group = "inventory"
fallback = { inStock = false }
"#;

fn order_details() -> Services {
    Services::new(&[
        (
            "/orders/7",
            r#"{"id":7,"userId":"u/1","version":1.10,"ids":[1,2,1],"items":[{"productId":1,"n":2},{"productId":2},{"productId":1}]}"#,
        ),
        ("/users/u%2F1", r#"{"data":{"id":"u/1","email":"a@x","secret":1},"more":true}"#),
        ("/products/1", r#"{"name":"Cup"}"#),
        ("/products/2", r#"{"name":"Pot","price":12345678901234567890.10}"#),
        ("/stock", r#"{"inStock":true}"#),
    ])
}

#[test]
fn the_example_of_the_documentation() {
    let (plan, services) = (plan(ORDER_DETAILS), order_details());
    let run = run_with(&plan, &services, "lang=d%26e", None);
    let timing = report::server_timing(&plan, &run.legs);
    assert!(
        timing.starts_with("order;dur=")
            && timing.contains("customer;dur=")
            && timing.ends_with("desc=\"200\"")
    );
    let (shown, completed) = answer(&plan, run);
    assert!(completed);
    assert_eq!(
        shown,
        r#"{"id":7,"userId":"u/1","version":1.10,"ids":[1,2,1],"items":[{"productId":1,"n":2,"product":{"name":"Cup"}},{"productId":2,"product":{"name":"Pot","price":12345678901234567890.10}},{"productId":1,"product":{"name":"Cup"}}],"customer":{"id":"u/1","mail":"a@x"},"inventory":{"inStock":true}}"#
    );
    let mut asked = services.asked();
    asked.sort();
    assert_eq!(
        asked,
        [
            "GET /orders/7",
            "GET /products/1",
            "GET /products/2",
            "GET /users/u%2F1?lang=d%26e&v=1.10 accept-language: \"de\"",
            "POST /stock {\"ids\":[1,2,1],\"text\":\"for 7\",\"fixed\":[1,true]}",
        ]
    );
}

#[test]
fn what_fails_is_told() {
    let plan = plan(ORDER_DETAILS);
    let mut services = order_details();
    services.answers.insert("/users/u%2F1".into(), (503, String::new()));
    services.answers.insert("/stock".into(), (200, "<html>".into()));
    services.answers.remove("/products/2");
    let mut run = run(&plan, &services);
    assert_eq!(run.legs[1].state, State::Failed(Failure::Status(503)));
    assert!(matches!(run.legs[2].state, State::Partly(Failure::Upstream { .. })));
    let legs = report::body(&plan, &run.legs, &[]).to_vec();
    let told: serde_json::Value = serde_json::from_slice(&legs).unwrap();
    assert_eq!(told["customer"]["reason"], "leg.status");
    assert_eq!(told["customer"]["status"], 503);
    assert_eq!(told["stock"]["reason"], "leg.not_json");
    assert_eq!(told["product"]["missing"], serde_json::json!([1]));
    assert_eq!(told["product"]["calls"], 2);
    assert_eq!(told["order"]["completed"], true);
    let document = merge::compose(&plan, &mut run.legs);
    let shown = String::from_utf8(Json::Object(document.members).to_vec()).unwrap();
    assert!(!document.completed);
    assert!(shown.contains(r#"{"productId":2,"product":null}"#), "{shown}");
    assert!(shown.ends_with(r#""inventory":{"inStock":false}}"#) && !shown.contains("customer"), "{shown}");
}

#[test]
fn a_failed_required_leg_ends_all_others_and_is_named() {
    let plan =
        plan(&format!("{ORDER_DETAILS}\n[[legs]]\nname = \"slow\"\nupstream = \"x\"\npath = \"/slow\"\n"));
    for (status, reason, sent) in [
        (404, Reason::LegRefused, Some(404)),
        (401, Reason::LegFailed, None),
        (403, Reason::LegFailed, None),
        (302, Reason::LegFailed, None),
        (500, Reason::LegFailed, None),
    ] {
        let mut services = order_details();
        services.hang = vec!["/slow"];
        services.answers.insert("/orders/7".into(), (status, "{}".into()));
        let run = run(&plan, &services);
        let refusal = merge::refusal(&plan, &run).unwrap();
        assert_eq!((refusal.reason, refusal.status), (reason, sent), "{status}");
        assert_eq!(refusal.leg.unwrap(), ("order".into(), "leg.status"));
        assert_eq!(services.dropped.load(Ordering::SeqCst), 1, "the slow one was let go");
        assert_eq!(run.legs[4].state, State::Failed(Failure::Cancelled));
    }
}

#[test]
fn nothing_waits_but_for_its_inputs() {
    let legs: String = (0..10)
        .map(|leg| {
            format!("[[legs]]\nname = \"l{leg}\"\nupstream = \"x\"\npath = \"/{leg}\"\ngroup = \"g{leg}\"\n")
        })
        .collect();
    let plan = plan(&legs);
    let paths: Vec<String> = (0..10).map(|leg| format!("/{leg}")).collect();
    let answers: Vec<(&str, &str)> = paths.iter().map(|path| (path.as_str(), "{}")).collect();
    // None is answered before all have been asked.
    let services = Services { barrier: Some(Barrier::new(10)), ..Services::new(&answers) };
    assert!(answer(&plan, run(&plan, &services)).1);
}

#[test]
fn elements_are_asked_for_within_their_concurrency_and_bound() {
    let text = |more: &str| {
        format!(
            "[[legs]]\nname = \"list\"\nupstream = \"x\"\npath = \"/list\"\n[[legs]]\nname = \"part\"\nupstream = \"x\"\nfor_each = \"list.items\"\npath = \"/p/{{item.id}}\"\n{more}"
        )
    };
    let items: Vec<String> = (0..20).map(|id| format!("{{\"id\":{id}}}")).collect();
    let mut services = Services::new(&[("/list", &format!("{{\"items\":[{}]}}", items.join(",")))]);
    for id in 0..20 {
        services.answers.insert(format!("/p/{id}"), (200, format!("{id}")));
    }
    services.delay = Duration::from_millis(1);
    let few = plan(&text("concurrency = 3"));
    let (shown, completed) = answer(&few, run(&few, &services));
    assert!(completed && shown.contains(r#"{"id":19,"part":19}"#), "{shown}");
    assert_eq!(services.most_at_once.load(Ordering::SeqCst), 3);
    let too_many = plan(&text("max_elements = 19"));
    let run = run(&too_many, &services);
    assert_eq!(run.legs[1].state, State::Failed(Failure::TooManyCalls));
    // A plan as a whole has a bound, too: one call for the list, and nineteen are left.
    let bounded = plan(&format!("max_calls = 20\n{}", text("")));
    assert_eq!(super::tests::run(&bounded, &services).legs[1].state, State::Failed(Failure::TooManyCalls));
}

/// A list that is too long is found out before requests are built for all of it, and so is what would be too much to send.
#[test]
fn no_more_is_built_for_elements_than_may_be_sent() {
    let items: Vec<String> = (0..200).map(|id| format!("{{\"id\":{id}}}")).collect();
    let services = Services::new(&[("/list", &format!("{{\"items\":[{}]}}", items.join(",")))]);
    let with = |calls| {
        let plan = plan(&format!(
            "leg_bytes = \"8KiB\"\ntotal_bytes = \"8KiB\"\nmax_calls = 300\n[[legs]]\nname = \"list\"\nupstream = \"x\"\npath = \"/list\"\n[[legs]]\nname = \"part\"\nupstream = \"x\"\nmethod = \"POST\"\nfor_each = \"list.items\"\npath = \"/p\"\nbody = {{ id = \"{{item.id}}\", text = \"{}\" }}\nmax_elements = {calls}\n",
            "x".repeat(200)
        ));
        run(&plan, &services).legs[1].state
    };
    // All two hundred would be too large: so many are not built.
    assert_eq!(with(5), State::Failed(Failure::TooManyCalls));
    assert_eq!(with(200), State::Failed(Failure::RequestTooLarge));
    assert_eq!(services.asked(), ["GET /list", "GET /list"]);
}

/// The element that failed is to blame, not those that were let go of for it.
#[test]
fn a_failed_element_is_to_blame_for_those_let_go_of() {
    let plan = plan(
        "[[legs]]\nname = \"list\"\nupstream = \"x\"\npath = \"/list\"\n[[legs]]\nname = \"part\"\nupstream = \"x\"\nfor_each = \"list.items\"\npath = \"/p/{item.id}\"\nrequired = true\n",
    );
    let mut services = Services::new(&[("/list", r#"{"items":[{"id":1},{"id":2}]}"#), ("/p/2", "409 {}")]);
    services.hang = vec!["/p/1"];
    let run = run(&plan, &services);
    assert_eq!(run.legs[1].state, State::Failed(Failure::Status(409)));
    let refusal = merge::refusal(&plan, &run).unwrap();
    assert_eq!((refusal.reason, refusal.status), (Reason::LegRefused, Some(409)));
}

#[test]
fn elements_of_elements() {
    let plan = plan(
        r#"
        [[legs]]
        name = "list"
        upstream = "x"
        path = "/list"
        [[legs]]
        name = "part"
        upstream = "x"
        for_each = "list.items"
        path = "/p/{item.id}"
        [[legs]]
        name = "maker"
        upstream = "x"
        for_each = "part"
        path = "/m/{item.maker}"
        "#,
    );
    let services = Services::new(&[
        ("/list", r#"{"items":[{"id":1},{"id":2},{}]}"#),
        ("/p/1", r#"{"maker":"a"}"#),
        ("/p/2", r#"{"maker":"b"}"#),
        ("/m/a", r#"{"name":"A"}"#),
        ("/m/b", r#"{"name":"B"}"#),
    ]);
    let run = run(&plan, &services);
    // One element has nothing to ask with.
    assert!(matches!(run.legs[1].state, State::Skipped(Failure::InputMissing { .. })));
    // Its answer is null, which can hold no other.
    assert_eq!(run.legs[2].state, State::Failed(Failure::NeedsGroup));
    let services = Services {
        answers: HashMap::from_iter(services.answers.into_iter().map(|(path, answer)| match path.as_str() {
            "/list" => (path, (200, r#"{"items":[{"id":1},{"id":2}]}"#.to_owned())),
            _ => (path, answer),
        })),
        ..Services::default()
    };
    let (shown, completed) = answer(&plan, super::tests::run(&plan, &services));
    assert!(completed);
    assert_eq!(
        shown,
        r#"{"items":[{"id":1,"part":{"maker":{"name":"A"}}},{"id":2,"part":{"maker":{"name":"B"}}}]}"#
    );
}

#[test]
fn the_deadline_is_one_for_all() {
    let text = "timeout = \"30ms\"\n[[legs]]\nname = \"fast\"\nupstream = \"x\"\npath = \"/fast\"\n[[legs]]\nname = \"slow\"\nupstream = \"x\"\npath = \"/slow\"\ngroup = \"slow\"\n[[legs]]\nname = \"after\"\nupstream = \"x\"\npath = \"/x/{slow.id}\"\ngroup = \"after\"\n";
    let plan_of_two = plan(text);
    let mut services = Services::new(&[("/fast", r#"{"a":1}"#)]);
    services.hang = vec!["/slow"];
    let run_of_two = run(&plan_of_two, &services);
    assert_eq!((run_of_two.legs[1].state, run_of_two.legs[1].attempts), (State::Failed(Failure::Timeout), 1));
    assert_eq!(answer(&plan_of_two, run_of_two), (r#"{"a":1}"#.to_owned(), false));
    let needed = plan(&text.replace("path = \"/slow\"", "path = \"/slow\"\nrequired = true"));
    let refusal = merge::refusal(&needed, &run(&needed, &services)).unwrap();
    assert_eq!((refusal.reason, refusal.leg.unwrap().1), (Reason::LegTimeout, "leg.timeout"));
    services.hang = vec!["/slow", "/fast"];
    let refusal = merge::refusal(&plan_of_two, &run(&plan_of_two, &services)).unwrap();
    assert_eq!(refusal.reason, Reason::AllLegsTimedOut);
    // A leg's own time is shorter.
    let own = plan(
        &text
            .replace("timeout = \"30ms\"", "")
            .replace("path = \"/slow\"", "path = \"/slow\"\ntimeout = \"5ms\""),
    );
    services.hang = vec!["/slow"];
    let run = run(&own, &services);
    assert_eq!(run.legs[1].state, State::Failed(Failure::Timeout));
    assert_eq!(run.legs[2].state, State::Skipped(Failure::InputMissing { of_client: false }));
}

#[test]
fn what_has_arrived_of_the_elements_by_then_is_used() {
    let plan = plan(
        "timeout = \"40ms\"\n[[legs]]\nname = \"list\"\nupstream = \"x\"\npath = \"/list\"\n[[legs]]\nname = \"part\"\nupstream = \"x\"\nfor_each = \"list.items\"\npath = \"/p/{item.id}\"\n",
    );
    let mut services = Services::new(&[("/list", r#"{"items":[{"id":1},{"id":2}]}"#), ("/p/1", "1")]);
    services.hang = vec!["/p/2"];
    let run = run(&plan, &services);
    assert_eq!((run.legs[1].state, run.legs[1].attempts), (State::Partly(Failure::Timeout), 2));
    assert_eq!(run.legs[1].elements.as_ref().unwrap().missing, [1]);
    assert_eq!(answer(&plan, run).0, r#"{"items":[{"id":1,"part":1},{"id":2,"part":null}]}"#);
}

#[test]
fn dropping_a_run_drops_its_calls() {
    let plan = plan(ORDER_DETAILS);
    let mut services = order_details();
    services.hang = vec!["/stock", "/products/2"];
    with_inputs("", b"h", None, |inputs| {
        block(async {
            let work = super::run(&plan, inputs, &services, clock::now(), None);
            tokio::select! {
                _ = work => panic!("it cannot end"),
                () = async { services.reached.notified().await; services.reached.notified().await } => {}
            }
        });
    });
    let dropped = services.dropped.load(Ordering::SeqCst);
    assert!(dropped >= 2 && dropped == services.at_once.load(Ordering::SeqCst), "all that were under way");
}

#[test]
fn on_failure_fail_needs_all() {
    let text = "on_failure = \"fail\"\n[[legs]]\nname = \"a\"\nupstream = \"x\"\npath = \"/a\"\n[[legs]]\nname = \"b\"\nupstream = \"x\"\npath = \"/b/{query.b}\"\ngroup = \"b\"\n";
    let plan = plan(text);
    let services = Services::new(&[("/a", "{}")]);
    let skipped = run(&plan, &services);
    assert!(merge::refusal(&plan, &skipped).is_none(), "what was not asked has not failed");
    let failed = run_with(&plan, &services, "b=1", None);
    assert_eq!(merge::refusal(&plan, &failed).unwrap().leg.unwrap().0, std::sync::Arc::<str>::from("b"));
}

#[test]
fn no_answer_at_all() {
    let plan_of = |more: &str| {
        plan(&format!("[[legs]]\nname = \"a\"\nupstream = \"x\"\npath = \"/a/{{query.a}}\"\n{more}"))
    };
    let services = Services::new(&[]);
    let plan = plan_of("");
    let refusal = |run: &Run| merge::refusal(&plan, run).unwrap().reason;
    assert_eq!(refusal(&run(&plan, &services)), Reason::InputMissing);
    assert_eq!(refusal(&run_with(&plan, &services, "a=1", None)), Reason::NoLegAnswered);
    assert!(services.asked().len() == 1);
    let required = plan_of("required = true");
    let refused = merge::refusal(&required, &run(&required, &services)).unwrap();
    assert_eq!((refused.reason, refused.leg.unwrap().1), (Reason::InputMissing, "leg.input_missing"));
    // What stands in is nobody's answer, unless somebody else has one.
    let covered = plan_of("fallback = { a = 0 }");
    let refused = merge::refusal(&covered, &run_with(&covered, &services, "a=1", None)).unwrap();
    assert_eq!(refused.reason, Reason::NoLegAnswered);
    let beside = plan_of("fallback = { a = 0 }\n[[legs]]\nname = \"b\"\nupstream = \"x\"\npath = \"/b\"\n");
    let services = Services::new(&[("/b", r#"{"b":1}"#)]);
    assert_eq!(
        answer(&beside, run_with(&beside, &services, "a=1", None)),
        (r#"{"a":0,"b":1}"#.to_owned(), false)
    );
}

#[test]
fn answers_that_cannot_be_used() {
    let plan = |more: &str| {
        super::tests::plan(&format!(
            "leg_bytes = \"1KB\"\ntotal_bytes = \"100B\"\ndepth = 3\n[[legs]]\nname = \"a\"\nupstream = \"x\"\npath = \"/a\"\n{more}"
        ))
    };
    let state = |plan: &Plan, body: &str| run(plan, &Services::new(&[("/a", body)])).legs[0].state;
    let plain = plan("");
    assert_eq!(state(&plain, "[1]"), State::Failed(Failure::NeedsGroup));
    assert_eq!(state(&plain, "7"), State::Failed(Failure::NeedsGroup));
    assert_eq!(state(&plain, "null"), State::Done);
    assert_eq!(state(&plain, "204 "), State::Done);
    assert_eq!(state(&plain, "200 "), State::Failed(Failure::Unreadable(super::json::Fault::Syntax)));
    assert_eq!(state(&plain, "[[[[]]]]").failure().unwrap().code(), "leg.too_deep");
    assert_eq!(state(&plain, r#"{"a":1,"a":2}"#).failure().unwrap().code(), "leg.duplicate_key");
    assert_eq!(state(&plain, &format!("\"{}\"", "x".repeat(100))).failure().unwrap().code(), "leg.too_large");
    assert_eq!(state(&plan("group = \"g\""), "[1]"), State::Done);
    assert_eq!(state(&plan("target = \"data\""), "{}"), State::Failed(Failure::NoTarget));
    assert_eq!(state(&plan("target = \"data\""), r#"{"data":[1]}"#), State::Failed(Failure::NeedsGroup));
}

#[test]
fn a_body_of_the_clients() {
    let plan = plan(
        r#"
        [[legs]]
        name = "a"
        upstream = "x"
        method = "POST"
        path = "/a"
        body = "request"
        [[legs]]
        name = "b"
        upstream = "x"
        method = "PUT"
        path = "/b/{body.user.id}"
        headers = { X-Note = "{body.note}", X-Line = "{body.line}" }
        body = { all = "{body}", id = "{body.user.id}", text = "n{body.user.id}" }
        group = "b"
        [[legs]]
        name = "c"
        upstream = "x"
        path = "/c/{body.nothing}"
        group = "c"
        "#,
    );
    assert!(plan.wants_body);
    let services = Services::new(&[("/a", "{}"), ("/b/1.50", "{}")]);
    let body = "{ \"user\":{\"id\":1.50}, \"note\":\"x\", \"line\":\"a\\r\\nb: c\" }";
    let run = run_with(&plan, &services, "", Some(body));
    assert!(matches!(run.legs[2].state, State::Skipped(_)));
    let mut asked = services.asked();
    asked.sort();
    assert_eq!(
        asked,
        [
            format!("POST /a {body}"),
            "PUT /b/1.50 x-note: \"x\" {\"all\":{\"user\":{\"id\":1.50},\"note\":\"x\",\"line\":\"a\\r\\nb: c\"},\"id\":1.50,\"text\":\"n1.50\"}".to_owned(),
        ]
    );
}

#[test]
fn a_shape_draws_the_answer() {
    let text = format!(
        "{ORDER_DETAILS}\n[shape]\nz = \"order.id\"\nmail = \"customer.mail\"\nnames = \"order.items[].product.name\"\nfirst = \"product[0].name\"\nbad = \"sum(customer)\"\n"
    );
    let plan = plan(&text);
    let services = order_details();
    let mut run = run(&plan, &services);
    let document = merge::compose(&plan, &mut run.legs);
    assert_eq!(
        String::from_utf8(Json::Object(document.members).to_vec()).unwrap(),
        r#"{"z":7,"mail":"a@x","names":["Cup","Pot","Cup"],"first":"Cup","bad":null}"#
    );
    assert!(!document.completed);
    assert_eq!(document.failed_shapes, [Box::<str>::from("bad")]);
}

#[test]
fn mistakes_are_found_before_anything_runs() {
    let leg = |name: &str, path: &str| {
        format!("[[legs]]\nname = \"{name}\"\nupstream = \"x\"\npath = \"{path}\"\ngroup = \"{name}\"\n")
    };
    for (text, expected) in [
        (String::new(), "has no legs"),
        (leg("query", "/a"), "cannot be called \"query\""),
        (leg("item", "/a"), "cannot be called \"item\""),
        (leg("1a", "/a"), "is not the name of a leg"),
        (
            leg("a", "/a") + &leg("a", "/b").replace("group = \"a\"", "group = \"b\""),
            "two legs are called \"a\"",
        ),
        (
            leg("a", "/{b.x}") + &leg("b", "/{c.x}") + &leg("c", "/{a.x}"),
            "wait for each other and none would ever be asked: a → b → c → a",
        ),
        (leg("a", "/{a.x}"), "cannot refer to its own answer"),
        (leg("order", "/a") + &leg("b", "/{ordr.x}"), "`ordr` is neither a leg nor a source"),
        (leg("a", "/{item.x}"), "no `item` without `for_each`"),
        (leg("a", "/{path.idd}"), "declares no `idd`"),
        (leg("a", "/x?y=1"), "has no query"),
        (leg("a", "/{b..x}") + &leg("b", "/b"), "is not a path"),
        (leg("a", "/a") + "allow = [\"id\"]\n" + &leg("b", "/{a.user.id}"), "`a.user.id` never has a value"),
        (leg("a", "/a") + "deny = [\"user\"]\n" + &leg("b", "/{a.user.id}"), "never has a value"),
        (
            leg("a", "/a") + "rename = { user = \"person\" }\n" + &leg("b", "/{a.user.id}"),
            "never has a value",
        ),
        (leg("a", "/a") + "for_each = \"b.items\"\n", "no leg is called \"b\""),
        (leg("a", "/a") + "for_each = \"a\"\n", "through its own answer"),
        (leg("a", "/a") + "body = { x = 1 }\n", "a GET has no body"),
        (
            leg("a", "/a") + "required = true\nfallback = {}\n",
            "\"fallback\" does nothing beside \"required\"",
        ),
        (leg("a", "/a") + "concurrency = 2\n", "does nothing without \"for_each\""),
        (leg("a", "/a") + "allow = [\"x\"]\ndeny = [\"y\"]\n", "\"deny\" does not go with \"allow\""),
        (leg("a", "/a") + "forward_headers = [\"Accept-Encoding\"]\n", "is set by the gateway itself"),
        (leg("a", "/a") + "timeout = \"0\"\n", "0 would allow nothing"),
        ("depth = 200\n".to_owned() + &leg("a", "/a"), "200 is not between 1 and 128"),
        (leg("a", "/a") + "[shape]\nx = \"b.c\"\n", "no leg is called `b`"),
        (leg("a", "/a") + "[shape]\nx = \"a[\"\n", "is not JMESPath"),
        (
            "completed_header = \"Content-Length\"\n".to_owned() + &leg("a", "/a"),
            "is a header of HTTP itself",
        ),
        (leg("a", "/a").replace("group = \"a\"", "fallback = [1]"), "cannot be merged"),
        (
            leg("a", "/a") + &leg("b", "/b").replace("group = \"b\"", "group = \"a\""),
            "two legs stand under \"a\"",
        ),
        (
            leg("a", "/a").replace("group = \"a\"", "") + &leg("b", "/b").replace("group = \"b\"", ""),
            "may bring the same members",
        ),
        (
            leg("a", "/a").replace("group = \"a\"", "allow = [\"id\", \"x.y\"]")
                + &leg("b", "/b").replace("group = \"b\"", "allow = [\"x\"]"),
            "bring \"x\"",
        ),
    ] {
        let found = problems(&text);
        assert!(found.iter().any(|message| message.contains(expected)), "{text}\n{found:?}");
        assert_eq!(found.len(), 1, "{text}\n{found:?}");
    }
}

#[test]
fn what_is_renamed_is_found_under_its_new_name() {
    let leg = |path: &str, more: &str| {
        format!(
            "[[legs]]\nname = \"b\"\nupstream = \"x\"\npath = \"{path}\"\ngroup = \"b\"\n[[legs]]\nname = \"a\"\nupstream = \"x\"\npath = \"/a\"\n{more}"
        )
    };
    for more in [
        "rename = { user = \"person\" }",
        "allow = [\"user\"]\nrename = { user = \"person\" }",
        "allow = [\"user.id\"]\nrename = { user = \"person\" }",
        "deny = [\"user.name\"]\nrename = { user = \"person\" }",
    ] {
        assert!(
            problems(&leg("/{a.person.id}", more)).is_empty(),
            "{more}: {:?}",
            problems(&leg("/{a.person.id}", more))
        );
    }
    assert!(problems(&leg("/{a.items.0.id}", "allow = [\"items.*.id\"]")).is_empty());
    assert_eq!(problems(&leg("/{a.items.0.name}", "allow = [\"items.*.id\"]")).len(), 1);
}

proptest! {
    /// Whatever a client sends, it adds no segment, no parameter and no line to what a leg is asked, and JSON stays JSON.
    #[test]
    fn values_stay_where_they_land(value in any::<String>(), bytes in proptest::collection::vec(1_u8..=255, 0..20)) {
        let plan = plan(
            "[[legs]]\nname = \"a\"\nupstream = \"x\"\nmethod = \"POST\"\npath = \"/s/{query.v}/{body.v}/e\"\nquery = { a = \"{body.v}\", b = \"{query.v}\", c = \"{header.x-h}\" }\nheaders = { X-V = \"{body.v}\" }\nbody = { v = \"{body.v}\", t = \"a{query.v}b\" }\n",
        );
        let mut encoded = String::new();
        crate::routing::escape::push_query(&mut encoded, value.as_bytes());
        let body = Json::Object([("v".into(), Json::string(&value))].into_iter().collect()).to_vec();
        let header: Vec<u8> = bytes.into_iter().filter(|byte| *byte >= 32 && *byte != 127).collect();
        let services = Services::new(&[]);
        with_inputs(&format!("v={encoded}"), &header, Some(std::str::from_utf8(&body).unwrap()), |inputs| {
            block(super::run(&plan, inputs, &services, clock::now(), None))
        });
        let Some(asked) = services.asked().pop() else { return Ok(()) };
        let (target, rest) = asked.strip_prefix("POST ").unwrap().split_once(' ').unwrap();
        let (path, query) = target.split_once('?').unwrap();
        prop_assert!(target.bytes().all(|byte| byte.is_ascii_graphic()), "{}", target);
        prop_assert_eq!(path.split('/').count(), 5, "{}", path);
        prop_assert!(path.starts_with("/s/") && path.ends_with("/e") && !path.split('/').any(|part| part == ".." || part == "."));
        prop_assert_eq!(query.split('&').count(), 3);
        prop_assert_eq!(query.matches('=').count(), 3);
        prop_assert!(!rest.contains(['\r', '\n', '\0']));
        let json: serde_json::Value = serde_json::from_str(&rest[rest.find("{\"v\"").unwrap()..]).unwrap();
        prop_assert_eq!(json["v"].as_str().unwrap(), value.as_str());
        prop_assert_eq!(json["t"].as_str().unwrap(), format!("a{value}b"));
    }
}

/// What a message says of a request that has no body.
#[test]
fn parameters_of_path_and_query_as_json() {
    let names: Vec<Box<str>> = vec!["id".into(), "rest".into()];
    let told = |query: &str, hidden: Option<&str>| {
        with_inputs(query, b"h", None, |inputs| {
            let told = super::input::parameters(inputs.values, &names, hidden)?;
            Some(String::from_utf8(told).unwrap())
        })
    };
    let path = r#"{"path":{"id":"7","rest":"rest"},"query":"#;
    assert_eq!(told("", None), Some(format!("{path}{{}}}}")));
    assert_eq!(
        told("b=1&a=%22%7D&b=2&b=&c", None),
        Some(format!(r#"{path}{{"b":["1","2",""],"a":"\"}}","c":""}}}}"#))
    );
    assert_eq!(told("key=s3cret&a=1", Some("key")), Some(format!(r#"{path}{{"a":"1"}}}}"#)));
    // What is no text cannot be said in JSON.
    assert_eq!((told("a=%ff", None), told("%ff=a", None)), (None, None));
}

proptest::proptest! {
    /// Whatever a query holds, what is said of it is JSON with the names that templates find in it.
    #[test]
    fn parameters_are_json_whatever_the_query(query in "[a-c=&%0-9+\"{}\\\\]{0,40}") {
        with_inputs(&query, b"h", None, |inputs| {
            let told = super::input::parameters(inputs.values, &["id".into()], None);
            if let Some(told) = told {
                let parsed = parse(&told, 8);
                proptest::prop_assert!(parsed.is_ok(), "{:?}", String::from_utf8(told));
            }
            Ok(())
        })?;
    }
}
