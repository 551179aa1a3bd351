//! Services of the store: rows that become routes, upstreams and legs as if somebody had written them in a file.
//!
//! ```text
//! row ─► tree (each value knows its column) ─► ServiceRaw ─► a route's tree, upstreams' trees ─► [defaults] laid under
//!     ─► raw ─► compiled beside the files' own; what is wrong with a row leaves out that row, never anything else
//! ```

mod decode;
mod endpoint;
mod nodes;
mod report;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value as Json;

pub use report::{ByName, LeftOut, Problem, Report};

use super::route::RouteRaw;
use super::{Compiled, Loaded, Runtime};
use crate::base::decode::{Surroundings, enum_value, join_key, keys};
use crate::base::diagnostic::{Diagnostic, Severity};
use crate::base::origin::{At, Origin, Sources};
use crate::routing::{HostPattern, MethodSet, PathPattern};
use crate::store::{SERVICES_MAX, ServiceRow, Services};
use crate::upstream::config::UpstreamRaw;
use std::time::Duration;

/// Endpoints of one service: each is a call of every request.
const ENDPOINTS_MAX: usize = 32;
/// Longest name of a service, in bytes.
const NAME_BYTES_MAX: usize = 128;
/// How often a set of services is compiled again without those found to be broken. Each time all problems of the rest
/// show, as far as there is room for them; more often one row only hides another's.
const PASSES_MAX: usize = 32;

enum_value! {
    /// How an endpoint is asked.
    pub enum EndpointType {
        /// GET.
        HttpGet = "http-get",
        /// POST, with the client's body.
        HttpPost = "http-post",
        /// A message with the client's body, which is answered.
        Amqp = "amqp",
    }
}

keys! {
    /// One service.
    pub struct ServiceRaw {
        /// What it is called.
        name: required String,
        /// The public path: exact, with `{parameters}`, or a prefix.
        path: required PathPattern,
        /// Methods; none = GET where all endpoints are `http-get`, else POST.
        methods: MethodSet = MethodSet::EMPTY,
        /// Host names; none = those of `[defaults]`, else all.
        hosts: Vec<At<HostPattern>> = Vec::new(),
        /// What is asked; the answers are merged in this order.
        endpoints: required Vec<At<EndpointRaw>>,
        /// Roles, all of which the caller must hold; none = what `[defaults]` asks for.
        roles: Vec<At<String>> = Vec::new(),
        /// Whether it is served.
        enabled: bool = true,
    }
}

keys! {
    /// One endpoint of a service.
    pub struct EndpointRaw {
        /// How it is asked.
        r#type: required EndpointType,
        /// `http://host:port/path`, `https://…`, `upstream://NAME/path`; of `amqp` `BROKER/QUEUE`.
        url: required String,
        /// What it is called in reports; absent = `endpoint-1` and so on.
        name: optional String,
        /// Whether its failure is the answer's failure.
        required: bool = false,
        /// The member of the answer under which it stands; absent = its members are merged into the answer.
        group: optional String,
        /// How long it may take.
        timeout: optional Duration,
    }
}

/// A row of which nothing is known to be wrong yet.
#[derive(Debug, Clone)]
struct Row {
    name: Arc<str>,
    route: At<RouteRaw>,
    upstreams: Vec<(String, At<UpstreamRaw>)>,
}

/// A service as its JSON says it, brought into the form of its columns.
///
/// # Errors
/// All that is wrong with it by itself.
pub fn row_of(json: &Json, loaded: &Loaded, now: i64) -> Result<ServiceRow, Vec<Problem>> {
    let mut json = json.clone();
    if let Some(members) = json.as_object_mut() {
        READ_ONLY.iter().for_each(|member| drop(members.shift_remove(*member)));
    }
    decode::row_of(&json, loaded, now)
}

/// What a service is shown with: given back it means nothing.
const READ_ONLY: [&str; 6] = ["state", "created", "changed", "problems", "warnings", "applied"];

/// A service as JSON: what [`row_of`] takes. What somebody else has written into it as it stands.
pub fn json_of(row: &ServiceRow) -> Json {
    decode::json_of(row)
}

/// The text that tells two states of a service apart, for `ETag`.
pub fn fingerprint(row: &ServiceRow) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, json_of(row).to_string().as_bytes());
    digest.as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

impl Loaded {
    /// Whether services of the store are served.
    pub fn serves_services(&self) -> bool {
        self.raw.as_ref().and_then(|raw| raw.store.as_ref()).is_some_and(|store| *store.services)
    }

    /// Compiles the files with `services`. What is wrong with a service leaves it out, which [`Report`] tells; what is
    /// wrong with the files is in the diagnostics, as ever.
    pub fn compile_with(
        &self,
        services: &Services,
        surroundings: Surroundings<'_>,
        runtime: &Runtime,
    ) -> Compiled {
        let mut report = Report { number: Some(services.number), ..Report::default() };
        let mut rows = Vec::with_capacity(services.rows.len());
        for row in &services.rows {
            if !row.enabled {
                report.disabled.push(row.name.clone());
                continue;
            }
            match decode::read(row, self, surroundings) {
                Ok(row) => rows.push(row),
                Err(problems) => report.leave_out(&row.name, problems),
            }
        }
        if services.cut {
            let message = format!(
                "there are more than {SERVICES_MAX} services, or too large ones: the youngest are left out"
            );
            report.leave_out("*", vec![Problem::new("services-too-many", "", message)]);
        }
        let mut compiled = self.compile_rows(&mut rows, &mut report, runtime);
        report.applied = rows.iter().map(|row| row.name.to_string()).collect();
        if let Some(snapshot) = &mut compiled.snapshot {
            snapshot.services = Arc::new(report.clone());
        }
        compiled.services = report;
        compiled
    }

    /// Compiles until nothing is wrong with any of `rows` that are left.
    fn compile_rows(&self, rows: &mut Vec<Row>, report: &mut Report, runtime: &Runtime) -> Compiled {
        for _pass in 0..PASSES_MAX {
            let mut compiled = self.with(rows).compile(runtime);
            let of_rows = compiled.diagnostics.take(|item| service_of(&item.origin).is_some());
            let errors: Vec<_> = of_rows.iter().filter(|item| item.severity == Severity::Error).collect();
            if errors.is_empty() {
                if rows.is_empty() || compiled.snapshot.is_some() {
                    report.warn(&of_rows, &compiled.sources);
                    return compiled;
                }
                break;
            }
            let broken = broken(rows, &errors, &compiled.sources);
            rows.retain(|row| !broken.contains_key(&*row.name));
            broken.into_iter().for_each(|(name, problems)| report.leave_out(&name, problems));
        }
        // Something is wrong with the files, or with services in a way that no row is to blame for.
        let compiled = self.with(&[]).compile(runtime);
        if compiled.snapshot.is_some() {
            for row in rows.drain(..) {
                let message = "the services cannot be served together with the configuration";
                report.leave_out(&row.name, vec![Problem::new("services-refused", "", message.to_owned())]);
            }
        }
        compiled
    }

    /// The files with `rows` as further routes and upstreams.
    fn with(&self, rows: &[Row]) -> Self {
        let mut loaded = self.clone();
        loaded.diagnostics.make_room(rows.len());
        let Some(raw) = &mut loaded.raw else { return loaded };
        for row in rows {
            loaded.declared.routes.push(row.route.origin.clone());
            loaded.declared.has_target.push(true);
            raw.routes.value.push(row.route.clone());
            for (name, upstream) in &row.upstreams {
                if loaded.declared.upstreams.insert(name.clone()) {
                    raw.upstreams.value.insert(name.clone(), upstream.clone());
                }
            }
        }
        loaded
    }
}

/// Which of `rows` are broken, as `errors` tell of them, and how.
fn broken(rows: &[Row], errors: &[&Diagnostic], sources: &Sources) -> BTreeMap<String, Vec<Problem>> {
    let mut broken: BTreeMap<String, Vec<Problem>> = BTreeMap::new();
    let mut add = |name: &str, problem| broken.entry(name.to_owned()).or_default().push(problem);
    let (lost, own): (Vec<&Diagnostic>, Vec<&Diagnostic>) =
        errors.iter().copied().partition(|item| rival(item).is_some());
    for item in &own {
        add(service_of(&item.origin).unwrap_or_default(), Problem::of(item, sources));
    }
    // A server that several name is told of once, at the first of them.
    let of_upstreams: Vec<_> = own.iter().filter(|item| item.path.starts_with("upstreams.")).collect();
    for row in rows.iter().filter(|_| !of_upstreams.is_empty()) {
        for (name, upstream) in &row.upstreams {
            let path = join_key("upstreams", name);
            for item in of_upstreams.iter().filter(|item| item.path.starts_with(&path)) {
                if service_of(&item.origin) != Some(&*row.name) {
                    let item = Diagnostic { origin: upstream.origin.clone(), ..Diagnostic::clone(item) };
                    add(&row.name, Problem::of(&item, sources));
                }
            }
        }
    }
    // Whom another one leaves no request gets them, if that one is broken: the next pass tells.
    for item in lost {
        if rival(item).is_none_or(|rival| !broken.contains_key(rival)) {
            let name = service_of(&item.origin).unwrap_or_default();
            broken.entry(name.to_owned()).or_default().push(Problem::of(item, sources));
        }
    }
    broken
}

/// The other service, which takes all requests of this one, where that is the problem.
fn rival(item: &Diagnostic) -> Option<&str> {
    let (other, _) = item.related.as_ref()?;
    service_of(other).filter(|_| item.code == "unreachable-route")
}

/// The service whose row `origin` is in.
fn service_of(origin: &Origin) -> Option<&str> {
    match origin {
        Origin::Row { name, .. } => Some(name),
        _ => None,
    }
}

/// What a change of one service comes to: whether it would be served as it is, and all others with it.
#[derive(Debug)]
pub struct Verdict {
    /// What keeps it from being written.
    pub errors: Vec<Problem>,
    /// What is doubtful.
    pub warnings: Vec<Problem>,
}

/// Judges `row` in place of the one of its name among `services`, with the files `loaded`. Compiles beside any process.
///
/// # Errors
/// The files themselves are broken: nothing can be said.
pub fn judge(
    loaded: &Loaded,
    services: &Services,
    row: &ServiceRow,
    surroundings: Surroundings<'_>,
) -> Result<Verdict, String> {
    let before = loaded.compile_with(services, surroundings, &Runtime::for_questions());
    if before.snapshot.is_none() {
        return Err("the configuration has problems of its own: `edgeward check` shows them".to_owned());
    }
    let mut changed = services.clone();
    match changed.rows.iter_mut().find(|other| other.name == row.name) {
        Some(same) => *same = ServiceRow { created_at: same.created_at, ..row.clone() },
        None => changed.rows.push(row.clone()),
    }
    let is_disabled = !row.enabled;
    // One that is not served is judged as if it were: it may be switched on by anybody.
    changed.rows.iter_mut().filter(|other| other.name == row.name).for_each(|row| row.enabled = true);
    let mut report = loaded.compile_with(&changed, surroundings, &Runtime::for_questions()).services;
    let mut verdict =
        Verdict { errors: Vec::new(), warnings: report.warnings.remove(&row.name).unwrap_or_default() };
    for left in report.left_out {
        if left.name == row.name {
            verdict.errors.extend(left.problems);
        } else if !is_disabled && !before.services.left_out.iter().any(|known| known.name == left.name) {
            let message = format!("the service {:?} would no longer be served", left.name);
            verdict.errors.push(Problem::new("service-displaced", "path", message));
        }
    }
    if changed.rows.len() > SERVICES_MAX {
        let message = format!("there are {SERVICES_MAX} services already, which is the most");
        verdict.errors.push(Problem::new("services-too-many", "", message));
    }
    Ok(verdict)
}
