//! Of what somebody wrote: configurations, shapes of answers, rows of services, another proxy's configuration.

use std::path::Path;
use std::sync::LazyLock;

use super::{cut, pieces};
use crate::base::decode::Surroundings;
use crate::config::{self, Loaded, Runtime};
use crate::import::nginx::{self, ImportError, Source};
use crate::store::{ServiceRow, Services};
use crate::subrequest::json::{self, Json};
use crate::subrequest::shape::{Formula, Shape};

/// A configuration either has errors or can be run; what is said about it is said every time, and can be shown.
pub fn configuration(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let env = |name: &str| (name == "PORT").then(|| "8080".to_owned());
    let read = |_: &Path| Err(std::io::ErrorKind::NotFound.into());
    let surroundings = Surroundings { env: &env, read: &read };
    let compile = || {
        let loaded = config::load_text(Path::new("/nowhere/edgeward.toml"), &text, surroundings);
        loaded.compile(&Runtime::detached())
    };
    let compiled = compile();
    assert_eq!(compiled.snapshot.is_none(), compiled.diagnostics.has_errors());
    let shown = config::render::text(&compiled.diagnostics, &compiled.sources, false);
    assert_eq!(shown.is_empty(), compiled.diagnostics.is_empty());
    let json = config::render::json(&compiled.diagnostics, &compiled.sources);
    let _: serde_json::Value = serde_json::from_str(&json).expect("the report is JSON");
    let again = compile();
    assert_eq!(config::render::text(&again.diagnostics, &again.sources, false), shown);
}

/// An expression that draws an answer, and the answers it draws from: refused with a place, or the answer is JSON, and
/// the same again.
pub fn shape(bytes: &[u8]) {
    let [text, first, second] = cut(bytes);
    let text = String::from_utf8_lossy(text);
    let formula = match Formula::compile(&text, &["first", "second"]) {
        Ok(formula) => formula,
        Err(mistake) => {
            assert!(text.get(mistake.at.clone()).is_some(), "it points into the text: {mistake:?}");
            return;
        }
    };
    let mut legs = json::Object::default();
    for (name, leg) in [("first", first), ("second", second)] {
        if let Ok(value) = json::parse(leg, 16) {
            legs.insert(name.into(), value);
        }
    }
    let legs = Json::Object(legs);
    let shape = Shape([("member".into(), formula)].into());
    let draw = || Json::Object(shape.draw(&legs).members).to_vec();
    let written = draw();
    json::parse(&written, json::DEPTH_MAX).expect("an answer is JSON");
    assert_eq!(draw(), written);
}

/// What services stand beside here: a configured route, and a provider so that roles can be asked for.
const FILES: &str = "[[listeners]]\nname = \"plain\"\naddress = \"127.0.0.1:0\"\n\
    [store]\nurl = \"sqlite:x.db\"\nservices = true\n\
    [upstreams.known]\nservers = [\"127.0.0.1:1\"]\n\
    [brokers.main]\nurl = \"amqp://127.0.0.1\"\n\
    [identity.providers.local]\nissuer = \"me\"\naudience = [\"shop\"]\nalgorithms = [\"HS256\"]\n\
    secret = { env = \"KEY\" }\n\
    [[routes]]\nname = \"admin\"\npath = \"/admin/*\"\nauth = { with = [\"jwt:local\"], roles = [\"admin\"] }\n\
    upstream = \"known\"\n";

fn surroundings() -> Surroundings<'static> {
    Surroundings {
        env: &|name| (name == "KEY").then(|| "0123456789abcdef0123456789abcdef".to_owned()),
        read: &|_| Err(std::io::ErrorKind::NotFound.into()),
    }
}

static LOADED: LazyLock<Loaded> =
    LazyLock::new(|| config::load_text(Path::new("/nowhere/edgeward.toml"), FILES, surroundings()));

/// Rows of services: each is served, switched off or left out with a reason; the files are served in any case, and the
/// route in them stays whose it is.
pub fn service_rows(bytes: &[u8]) {
    let (ends, bytes) = pieces(bytes);
    let mut at = 0;
    let mut texts = ends.into_iter().map(|end| {
        let text = String::from_utf8_lossy(&bytes[at..end]).into_owned();
        at = end;
        text
    });
    let mut next = || texts.next().unwrap_or_default();
    let first = ServiceRow {
        name: next(),
        path: next(),
        endpoints: next(),
        methods: next(),
        hosts: next(),
        roles: next(),
        enabled: true,
        ..ServiceRow::default()
    };
    // The same endpoints under a name and a path of its own: what is wrong with one row leaves out that one.
    let good = ServiceRow {
        name: "good".into(),
        path: "/good".into(),
        endpoints: "[{\"type\":\"http-get\",\"url\":\"http://127.0.0.1:2/x\"}]".into(),
        enabled: true,
        ..ServiceRow::default()
    };
    rows(vec![good, first]);
}

/// See [`service_rows`].
pub fn rows(rows: Vec<ServiceRow>) {
    let (count, enabled) = (rows.len(), rows.iter().filter(|row| row.enabled).count());
    let services = Services { number: 1, rows, cut: false };
    let compiled = LOADED.compile_with(&services, surroundings(), &Runtime::detached());
    let snapshot = compiled.snapshot.expect("rows keep nobody from serving the files");
    assert_eq!(&*snapshot.routes[0].name, "admin");
    let report = compiled.services;
    let left: std::collections::HashSet<&str> = report.left_out.iter().map(|left| &*left.name).collect();
    assert!(report.left_out.iter().all(|left| !left.problems.is_empty()), "with a reason");
    assert_eq!(report.disabled.len(), count - enabled);
    assert!(report.applied.len() + left.len() <= enabled);
    assert!(report.applied.len() + report.left_out.len() >= enabled, "nothing is lost in silence");
    let shown = report.left_out.iter().flat_map(|left| &left.problems).map(|problem| problem.line());
    for line in shown {
        assert!(!line.contains('\n'), "one line each: {line:?}");
    }
}

/// nginx' configuration: refused, or made into one that passes our own check.
pub fn nginx(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let imported = nginx::import(Source::Text(text, Path::new("/nowhere")), Some(Path::new("/nowhere")));
    match imported {
        Ok(imported) => drop(imported.report.table()),
        Err(ImportError::Parse(error)) => assert!(!error.to_string().is_empty()),
        Err(ImportError::Defect { problems, toml }) => panic!("{problems}\n{toml}"),
    }
}
