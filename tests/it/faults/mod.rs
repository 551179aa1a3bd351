//! What the gateway depends on, dead, slow and talking nonsense: `docs/failures.md` says what becomes of requests then, and
//! here it is seen. Real servers stand behind a [`Chaos`]; each begins dead, so that starting without them is seen, too.

mod brokers;
mod explained;
mod health;
mod logs;
mod matrix;
mod providers;
mod redis;
mod stores;
mod upstreams;

use std::time::{Duration, Instant};

use crate::support::*;

/// What is no protocol of any peer's.
const NONSENSE: &str = "SSH-2.0-OpenSSH_9.6\r\nwho is there?\r\n\r\n";

/// The answer, which must not take longer than ten times `bound`: a machine may be busy with other tests.
async fn within_ten(bound: Duration, request: RequestBuilder) -> Response {
    let began = Instant::now();
    let answer = request.await;
    let took = began.elapsed();
    assert!(took < bound * 10, "it took {took:?}, and may take {bound:?}: {answer:?}");
    answer
}

/// Waits until `/readyz?verbose` has a line with `part`; the process is ready in any case.
async fn reports(gw: &Gateway, part: &str) {
    eventually(&format!("{part:?} in the report"), async || {
        let report = gw.admin().get("/readyz?verbose").await.expect_status(200).text();
        report.contains(part).then_some(())
    })
    .await;
}

/// Waits until `path` answers with `status`.
async fn comes_to(gw: &Gateway, path: &str, status: u16) -> Response {
    eventually(&format!("{path} to answer {status}"), async || {
        let answer = gw.get(path).await;
        (answer.status == status).then_some(answer)
    })
    .await
}

/// What `docs/failures.md` names is there: tests, metrics, and the codes of errors.
#[test]
fn the_document_names_what_there_is() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("docs/failures.md")).unwrap();
    let quoted: Vec<&str> = text.split('`').skip(1).step_by(2).collect();
    let names: Vec<&str> = quoted.iter().copied().filter(|name| name.contains("::")).collect();
    assert!(names.len() > 40, "{names:?}");
    for name in names {
        let (module, test) = name.rsplit_once("::").unwrap();
        let path = module.replace("::", "/");
        let places = ["tests/it", "src"].map(|top| root.join(top).join(&path));
        let read = |end: &str| {
            let [one, two] = places.clone().map(|place| {
                std::fs::read_to_string(format!("{}{end}", place.display())).unwrap_or_default()
            });
            one + &two
        };
        let sources = read(".rs") + &read("/mod.rs");
        assert!(sources.contains(&format!("fn {test}()")), "there is no test {name}");
    }
    let metrics = text_below(&root.join("src/telemetry/metrics"));
    for name in quoted.iter().filter_map(|name| name.split('{').next()?.strip_prefix("edgeward_")) {
        // Counters get their ending where all are written.
        let name = name.strip_suffix("_total").unwrap_or(name);
        assert!(metrics.contains(&format!("edgeward_{name}")), "there is no metric edgeward_{name}");
    }
    let codes: Vec<&str> = edgeward::base::reason::Reason::ALL.iter().map(|reason| reason.code()).collect();
    let kinds = ["upstream", "broker", "limit", "auth", "store", "file", "aggregate"];
    for name in &quoted {
        let is_code = name.split_once('.').is_some_and(|(kind, _)| kinds.contains(&kind));
        assert!(!is_code || codes.contains(name), "there is no code {name}");
    }
}

/// All that stands in the files of a directory and those in it.
fn text_below(directory: &std::path::Path) -> String {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let text = entries.map(|path| match path.is_dir() {
        true => text_below(&path),
        false => std::fs::read_to_string(&path).unwrap(),
    });
    text.collect()
}
