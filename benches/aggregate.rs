//! What an aggregate costs beside its services and its sockets: requests of legs made, answers that are there at once taken,
//! read, merged and written. `cargo bench --bench aggregate`.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a panic ends the benchmark")]

use std::future::ready;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use edgeward::base::clock;
use edgeward::config::snapshot::Target;
use edgeward::config::{Runtime, load_text, render, surroundings};
use edgeward::routing::{PathPattern, RequestView, Values};
use edgeward::subrequest::json::Json;
use edgeward::subrequest::{Answer, Caller, Failure, Inputs, LegCall, Plan, merge, run};
use http::{HeaderMap, Method};

const ROUTE: &str = "/api/orders/{id}";

/// A plan of so many legs; each waits for the one before it if `is_chain`.
fn plan(legs: usize, is_chain: bool) -> Arc<Plan> {
    let mut text = format!(
        "[[listeners]]\nname = \"plain\"\naddress = \"127.0.0.1:0\"\n[upstreams.x]\nservers = [\"127.0.0.1:3001\"]\n\
         [[routes]]\npath = \"{ROUTE}\"\n[routes.aggregate]\n"
    );
    for leg in 0..legs {
        let input =
            if is_chain && leg > 0 { format!("{{leg{}.id}}", leg - 1) } else { "{path.id}".to_owned() };
        text.push_str(&format!(
            "[[routes.aggregate.legs]]\nname = \"leg{leg}\"\ngroup = \"leg{leg}\"\nupstream = \"x\"\npath = \"/v1/{input}\"\n\
             query = {{ lang = \"{{query.lang}}\" }}\n"
        ));
    }
    let compiled = load_text(Path::new("main.toml"), &text, surroundings()).compile(&Runtime::detached());
    let Some(snapshot) = compiled.snapshot else {
        panic!("{}", render::text(&compiled.diagnostics, &compiled.sources, false));
    };
    let mut plans = snapshot.routes.iter().filter_map(|route| match &route.target {
        Target::Aggregate(plan) => Some(plan.clone()),
        _ => None,
    });
    plans.next().unwrap()
}

/// Services that answer at once, with 1 KiB.
struct AtOnce(Bytes);

impl Caller for AtOnce {
    fn call(&self, _: LegCall<'_>) -> impl Future<Output = Result<Answer, Failure>> + Send {
        ready(Ok(Answer { status: 200, body: self.0.clone() }))
    }
}

fn aggregate(c: &mut Criterion) {
    let text = "lorem ipsum ".repeat(80);
    let services = AtOnce(format!("{{\"id\":4711,\"total\":1234.50,\"text\":\"{text}\"}}").into());
    let headers = HeaderMap::new();
    let request = RequestView {
        listener: 0,
        host: "shop.example.com",
        path: "/api/orders/4711",
        query: Some("lang=de"),
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
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let mut group = c.benchmark_group("aggregate");
    for (shape, is_chain) in [("legs", false), ("chain", true)] {
        for legs in [1, 3, 10] {
            let plan = plan(legs, is_chain);
            group.bench_function(BenchmarkId::new(shape, legs), |b| {
                b.iter(|| {
                    let inputs = Inputs { values: &values, body: None, hidden_parameter: None };
                    let mut done = runtime.block_on(run(&plan, inputs, &services, clock::now(), None));
                    let document = merge::compose(&plan, &mut done.legs);
                    assert!(document.completed);
                    Json::Object(document.members).to_vec()
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, aggregate);
criterion_main!(benches);
