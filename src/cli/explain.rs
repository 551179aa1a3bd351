//! `edgeward explain METHOD URL`: which route takes a request, why the others did not, what becomes of it. Answers from
//! the same table that requests are routed by.

mod depends;
mod policies;

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};

use self::depends::depends;
use self::policies::policies;
use super::{PROBLEMS, USAGE, print, run};
use crate::base::clock::Moment;
use crate::base::decode::quote;
use crate::base::names;
use crate::base::out;
use crate::base::reason::Reason;
use crate::config::services::Report;
use crate::config::snapshot::{Destination, Listener, Route, RoutingKey, Snapshot, Target};
use crate::config::{self, Loaded, Runtime, render};
use crate::files::{self, Site};
use crate::identity::directory::Directory;
use crate::identity::principal::Principal;
use crate::identity::sync::Follower;
use crate::policy::auth::{Auth, Denied, Identified, Shown};
use crate::policy::cors;
use crate::policy::plan::{Gate, Plan};
use crate::policy::rate_limit::{Facts, Work};
use crate::policy::transform::{Action, Rules, Step};
use crate::routing::explain::{Candidate, Difference, Verdict};
use crate::routing::template::{Values, Who};
use crate::routing::{Around, Expression, Outcome, RequestView, host, path};
use crate::store::{Services, Store, StoreError, StoreUrl};

/// Explains `method url` with `headers` (`Name: value` each) from `client` against the configuration.
pub(super) fn run(
    config: Option<&Path>,
    headers: &[String],
    client: Option<IpAddr>,
    method: &str,
    url: &str,
) -> u8 {
    let request = match Request::parse(method, url, headers) {
        Ok(request) => Request { client, ..request },
        Err(message) => {
            out::complain(&format!("edgeward: {message}\n"));
            return USAGE;
        }
    };
    let file = match run::find(config) {
        Ok(file) => file,
        Err(status) => return status,
    };
    run::install_provider();
    let loaded = config::load(&file, config::surroundings());
    let secured = loaded.raw.iter().flat_map(|raw| raw.listeners.iter());
    let secured = secured.filter(|listener| !listener.certificates.is_empty());
    let secured: Vec<String> = secured.map(|listener| listener.name.value.clone()).collect();
    let runtime = Runtime::for_questions();
    let services = services(&loaded);
    let compiled = match &services {
        Some(Ok(services)) => loaded.compile_with(services, config::surroundings(), &runtime),
        _ => loaded.compile(&runtime),
    };
    let Some(snapshot) = compiled.snapshot else {
        out::complain(&render::text(&compiled.diagnostics, &compiled.sources, out::complaints_are_read()));
        return PROBLEMS;
    };
    if snapshot.listeners.iter().any(|listener| listener.tls.is_none() && secured.contains(&listener.name)) {
        // Whoever has not got them may ask all the same; that they are missing is worth saying.
        out::complain(&render::text(&compiled.diagnostics, &compiled.sources, out::complaints_are_read()));
    }
    let directory = runtime.identity.directory();
    directory.configure(snapshot.consumers.clone());
    if snapshot.store.is_some() {
        directory.await_store();
    }
    let unasked = match (&snapshot.store, &services) {
        (None, _) => None,
        // It need not be waited for once more.
        (Some(_), Some(Err(why))) => Some(why.clone()),
        (Some(store), _) => learn(store.url(), directory).err(),
    };
    match explain(&snapshot, &request, &secured, unasked.as_deref()) {
        Ok((text, taken)) => {
            let status = print(&(text + &left_out(services.as_ref(), &compiled.services)));
            // Nothing takes it: said, and told by the status too, so that a script can ask.
            if taken { status } else { status.max(PROBLEMS) }
        }
        Err(message) => {
            out::complain(&format!("edgeward: {message}\n"));
            PROBLEMS
        }
    }
}

/// Longest wait for the store.
const STORE_TIMEOUT: Duration = Duration::from_secs(3);

/// The services of the store, where they are served; or why they are not known.
fn services(loaded: &Loaded) -> Option<Result<Services, String>> {
    let store = loaded.raw.as_ref()?.store.as_ref().filter(|_| loaded.serves_services())?;
    Some(ask(&store.url, async |store: Store| store.services().await))
}

/// Has `directory` know what the store at `url` knows: keys, consumers, revocations.
fn learn(url: &StoreUrl, directory: &Arc<Directory>) -> Result<(), String> {
    ask(url, async |store: Store| Follower::new(store, directory.clone()).catch_up().await)
}

/// Asks the store at `url`. Makes nothing and changes nothing there.
fn ask<T>(url: &StoreUrl, question: impl AsyncFnOnce(Store) -> Result<T, StoreError>) -> Result<T, String> {
    if let StoreUrl::Sqlite(path) = url
        && !path.exists()
    {
        return Err(format!("{} is not there", path.display()));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let store = Store::reading(url.clone());
    let asked = async { tokio::time::timeout(STORE_TIMEOUT, question(store)).await };
    match runtime.block_on(asked) {
        Ok(Ok(told)) => Ok(told),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {} s", STORE_TIMEOUT.as_secs())),
    }
}

/// What has to be said of services that no route here stands for.
fn left_out(services: Option<&Result<Services, String>>, report: &Report) -> String {
    match services {
        Some(Err(why)) => format!("\nthe services of the store are not known: {why}\n"),
        Some(Ok(_)) if !report.left_out.is_empty() => {
            format!("\nservices: {}; `edgeward service check` says why\n", report.summary())
        }
        _ => String::new(),
    }
}

/// A request as typed.
struct Request {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    client: Option<IpAddr>,
}

impl Request {
    fn parse(method: &str, url: &str, lines: &[String]) -> Result<Self, String> {
        let method =
            Method::from_bytes(method.as_bytes()).map_err(|_| format!("\"{method}\" is not a method"))?;
        let uri: Uri = url.parse().map_err(|error| format!("\"{url}\" is not a URL: {error}"))?;
        let mut headers = HeaderMap::new();
        for line in lines {
            let wrong = || format!("\"{line}\" is not a header: write -H 'Name: value'");
            let (name, value) = line.split_once(':').ok_or_else(wrong)?;
            let name = HeaderName::from_bytes(name.trim().as_bytes()).map_err(|_| wrong())?;
            let value = HeaderValue::from_str(value.trim()).map_err(|_| wrong())?;
            headers.append(name, value);
        }
        Ok(Self { method, uri, headers, client: None })
    }

    fn host(&self) -> &[u8] {
        match (self.uri.authority(), self.headers.get(http::header::HOST)) {
            (_, Some(host)) => host.as_bytes(),
            (Some(authority), None) => authority.as_str().as_bytes(),
            (None, None) => b"",
        }
    }

    /// The listener it would come in on: by scheme and port, as far as they say. `secured` are those with TLS.
    fn listener<'s>(&self, snapshot: &'s Snapshot, secured: &[String]) -> Option<(u16, &'s Arc<Listener>)> {
        use crate::config::snapshot::BindAddress;
        let tls = self.uri.scheme_str().map(|scheme| scheme == "https");
        let port = self.uri.port_u16();
        let has_port = |listener: &Listener| match listener.address {
            BindAddress::Tcp(address) => Some(address.port()) == port,
            BindAddress::Unix(_) => false,
        };
        let numbered = || (0_u16..).zip(&snapshot.listeners);
        let by_scheme = |listener: &Listener| tls.is_none_or(|tls| secured.contains(&listener.name) == tls);
        numbered()
            .find(|(_, listener)| has_port(listener) && by_scheme(listener))
            .or_else(|| numbered().find(|(_, listener)| by_scheme(listener)))
            .or_else(|| numbered().next())
    }
}

/// The whole explanation, and whether a route takes the request; an error for one that is refused before any route is
/// looked for.
fn explain(
    snapshot: &Snapshot,
    request: &Request,
    secured: &[String],
    unasked: Option<&str>,
) -> Result<(String, bool), String> {
    let name = match request.host() {
        b"" => "".into(),
        raw => host::normalise(raw).map_err(|error| format!("400 request.bad_host: the host {error}"))?.name,
    };
    let path = path::normalise(request.uri.path().as_bytes())
        .map_err(|error| format!("400 request.bad_path: the path {error}"))?;
    let listener = request.listener(snapshot, secured);
    let view = RequestView {
        listener: listener.map_or(0, |(index, _)| index),
        host: &name,
        path: &path,
        query: request.uri.query().filter(|query| !query.is_empty()),
        method: &request.method,
        headers: &request.headers,
    };
    let mut text = format!("{} {}\n", request.method, request.uri);
    line(&mut text, "host", if name.is_empty() { "-" } else { &name });
    line(&mut text, "path", &path);
    if let Some((_, listener)) = listener {
        line(&mut text, "listener", &listener.name);
    }
    text.push('\n');
    let announced = cors::announced(view.method, view.headers);
    let scheme = request.uri.scheme_str().unwrap_or("http");
    let around = Around { scheme, id: REQUEST_ID, client: request.client, client_cert: None };
    let outcome = snapshot.table.find_for(&view, &around, announced.as_ref());
    let named = matches!(&outcome, Outcome::Found { route, .. } if snapshot.route(*route).names_listeners);
    let elsewhere = listener.filter(|_| !named).and_then(|(_, listener)| listener.https_location(&view));
    if let Some(location) = elsewhere {
        line(&mut text, "answer", &format!("308 to {location} (redirect_https)"));
        return Ok((text, true));
    }
    let mut found = false;
    match outcome {
        Outcome::Found { route, captures } => {
            let route = snapshot.route(route);
            line(
                &mut text,
                "route",
                &format!("{}  ({})", route.name, snapshot.sources.describe(&route.origin)),
            );
            for name in spec_captures(snapshot, route, &captures, &path) {
                line(&mut text, "", &name);
            }
            let nobody = Values {
                request: &view,
                captures: &captures,
                scheme,
                id: REQUEST_ID,
                client: request.client,
                client_cert: None,
                who: Who::default(),
            };
            let judged = route.guard.auth.as_ref().map(|auth| judge(auth, &nobody, unasked));
            let principal = judged.as_ref().and_then(|judged| judged.principal.as_ref());
            let values = Values { who: principal.map(Principal::view).unwrap_or_default(), ..nobody };
            found = !matches!(&route.target, Target::Files(_) if !files::has_method(view.method));
            match route.guard.cors {
                Some(_) if announced.is_some() => line(&mut text, "answer", "204 to the preflight (cors)"),
                _ => target(&mut text, route, &values),
            }
            if let Some(judged) = &judged {
                line(&mut text, "auth", &judged.story);
            }
            if let (Some(gate), Some(_)) = (&route.guard.plan, &judged) {
                line(&mut text, "plan", &plan(snapshot, gate, principal));
            }
            let work = |expression: &Expression| expression.number(&values);
            let facts = Facts {
                route: &route.name,
                headers: Some(&request.headers),
                principal,
                work: Some(Work(&work)),
                ..Facts::of(request.client.unwrap_or(SOMEBODY))
            };
            policies(&mut text, snapshot, route, &facts);
            let plan = route.guard.plan.as_ref().and_then(|gate| gate.plan_of(principal).ok().flatten());
            depends(&mut text, snapshot, route, plan.map(Arc::as_ref));
        }
        Outcome::Undecided { route, failed, .. } => {
            let route = snapshot.route(route);
            let place = snapshot.sources.describe(&route.origin);
            line(&mut text, "route", &format!("{}  ({place})", route.name));
            line(
                &mut text,
                "answer",
                &format!("400 route.expression_failed: `when` cannot be evaluated: {failed}"),
            );
        }
        Outcome::MethodNotAllowed { allow } => {
            line(&mut text, "answer", &format!("405 route.method_not_allowed, Allow: {allow}"));
        }
        Outcome::NotFound => {
            line(&mut text, "answer", "404 route.not_found");
            line(&mut text, "", &nearest_route(snapshot, &path));
        }
    }
    let asked = announced.as_ref().unwrap_or(view.method);
    others(&mut text, snapshot, &snapshot.table.explain(&RequestView { method: asked, ..view }, &around));
    Ok((text, found))
}

/// What `auth` comes to.
struct Judged {
    story: String,
    principal: Option<Principal>,
}

/// Asks `auth` as a request would. Here, where nobody else reads it, the whole reason is told; `unasked` is why the store was
/// not asked.
fn judge(auth: &Auth, values: &Values<'_>, unasked: Option<&str>) -> Judged {
    let (headers, query) = (values.request.headers, values.request.query);
    let shown = Shown { headers, query, certificate: None, at: Moment::now(), has_waited: true };
    let refused = |denied: Box<Denied>| {
        let Denied { problem, detail, .. } = *denied;
        let reason = problem.reason;
        let more = match (reason, unasked) {
            (Reason::KeysUnavailable, _) => " (the running process fetches them)".to_owned(),
            (Reason::StoreUnavailable, Some(why)) => format!(" ({why})"),
            _ => String::new(),
        };
        format!("{} {}: {detail}{more}", reason.status(), reason.code())
    };
    let principal = match auth.identify(&shown) {
        Identified::Known(principal) => Some(principal),
        Identified::Nobody => None,
        Identified::Refused(denied) => return Judged { story: refused(denied), principal: None },
        Identified::Wait(wait) => return Judged { story: wait.refusal().detail, principal: None },
    };
    let who = principal.as_ref().map(Principal::view).unwrap_or_default();
    let enough = auth.authorize(principal.as_ref(), |when| when.holds(&Values { who, ..*values }));
    let story = match (enough, &principal) {
        (Err(denied), _) => refused(denied),
        (Ok(()), None) => "passes, from nobody".to_owned(),
        (Ok(()), Some(principal)) => {
            let subject = principal.subject().unwrap_or("nobody in particular");
            let roles: Vec<_> = principal.roles().collect();
            let unknown = |why| format!("; consumers and revocations of the store are not known: {why}");
            let more = unasked.map(unknown).unwrap_or_default();
            format!("passes as {subject} ({}), roles: {}{more}", principal.method(), roles.join(", "))
        }
    };
    Judged { story, principal }
}

/// Stands for the client, where none is named.
const SOMEBODY: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Stands for the request's own.
const REQUEST_ID: &str = "0123456789abcdef0123456789abcdef";

/// One aligned line: a word, then what it is.
fn line(text: &mut String, word: &str, value: &str) {
    // Writing to a String cannot fail.
    writeln!(text, "  {word:<12}{value}").unwrap_or_default();
}

/// Whose path is nearly `path`; or that there is none.
fn nearest_route(snapshot: &Snapshot, path: &str) -> String {
    let patterns = snapshot.routes.iter().filter_map(|route| snapshot.table.pattern(route.id));
    let patterns: Vec<_> = patterns.map(|pattern| (filled(pattern.as_str(), path), pattern)).collect();
    let nearest = names::nearest(path, patterns.iter().map(|(filled, _)| filled.as_str()));
    let nearest = nearest.and_then(|near| patterns.iter().find(|(filled, _)| filled == near));
    match nearest.filter(|(_, pattern)| !pattern.matches(path)) {
        Some((_, near)) => format!("the nearest path of a route is {}", near.as_str()),
        None if snapshot.table.holds_path(path) => "a route has the path, and asks for more".to_owned(),
        None => format!("no path of the {} routes fits", snapshot.routes.len()),
    }
}

/// `pattern` with what `path` has in the places of its parameters, so that only the rest of it counts.
fn filled(pattern: &str, path: &str) -> String {
    let mut given = path.split('/');
    let mut filled = Vec::new();
    for segment in pattern.split('/') {
        match given.next() {
            Some(first) if segment == "*" => {
                filled.push(first);
                filled.extend(given.by_ref());
            }
            Some(given) if segment.starts_with('{') => filled.push(given),
            _ => filled.push(segment),
        }
    }
    filled.join("/")
}

fn spec_captures(
    snapshot: &Snapshot,
    route: &Route,
    captures: &crate::routing::Captures,
    path: &str,
) -> Vec<String> {
    let Some(pattern) = snapshot.table.pattern(route.id) else { return Vec::new() };
    let named = pattern.capture_names().enumerate();
    named
        .filter_map(|(index, name)| Some(format!("{{path.{name}}} = {}", captures.get(path, index)?)))
        .collect()
}

fn target(text: &mut String, route: &Route, values: &Values<'_>) {
    let rewritten = match &route.rewrite {
        Some(rewrite) => match rewrite.apply(values) {
            Ok(path) => path.into_owned(),
            Err(error) => return line(text, "answer", &format!("400 request.bad_path: {error}")),
        },
        None => values.request.path.to_owned(),
    };
    let edits = route.request.as_ref().and_then(|rules| rules.query.as_ref());
    let query = match edits {
        Some(edits) => edits.apply(values.request.query, values),
        None => values.request.query.unwrap_or_default().to_owned(),
    };
    let query = if query.is_empty() { query } else { format!("?{query}") };
    match &route.target {
        Target::Upstream(upstream) => {
            line(text, "upstream", upstream.name());
            line(text, "asked for", &format!("{rewritten}{query}"));
            if let Some(rules) = &route.request {
                headers(text, "request", &rules.headers, values);
            }
        }
        Target::Redirect(redirect) => match redirect.to.expand_location(values) {
            Ok(location) => line(text, "answer", &format!("{} to {location}", redirect.status.as_u16())),
            Err(error) => line(text, "answer", &format!("400 request.bad_path: {error}")),
        },
        Target::Respond(answer) => {
            line(text, "answer", &format!("{}, {} bytes", answer.status().as_u16(), answer.body().len()));
        }
        Target::Files(_) if !files::has_method(values.request.method) => {
            line(text, "answer", &format!("405 route.method_not_allowed, Allow: {}", files::METHODS));
        }
        Target::Files(site) => line(text, "file", &file(site, &rewritten)),
        Target::Login(target) => line(text, "answer", &target.login.describe(target.step)),
        Target::Aggregate(plan) => {
            for leg in &plan.legs {
                let needed = if leg.required { ", required" } else { "" };
                line(text, "leg", &format!("{} from {}{needed}", leg.name, leg.service));
            }
        }
        Target::Amqp(amqp) => {
            let broker = amqp.broker.name();
            match &amqp.destination {
                Destination::Ask(queue) => {
                    line(text, "asks", &format!("queue {} of broker {broker}", quote(queue.as_str())));
                }
                Destination::Leave(queue) => {
                    line(
                        text,
                        "publishes",
                        &format!("to queue {} of broker {broker}", quote(queue.as_str())),
                    );
                }
                Destination::Publish { exchange, key } => {
                    let key = match key {
                        RoutingKey::Fixed(key) => Some(key.as_str().to_owned()),
                        RoutingKey::Made(template) => template.expand_words(values),
                    };
                    let key =
                        key.map_or_else(|| "none: 400 aggregate.input_missing".to_owned(), |key| quote(&key));
                    let exchange = quote(exchange.name().as_str());
                    line(
                        text,
                        "publishes",
                        &format!("to exchange {exchange} of broker {broker}, routing key {key}"),
                    );
                }
            }
        }
        Target::Nothing => line(text, "answer", "404 route.not_found"),
    }
    if let Some(rules) = &route.response {
        headers(text, "response", rules, values);
    }
}

/// The plan that bounds `principal`, and where it is written.
fn plan(snapshot: &Snapshot, gate: &Gate, principal: Option<&Principal>) -> String {
    match gate.plan_of(principal) {
        Ok(Some(plan)) => described(snapshot, plan),
        Ok(None) => "none".to_owned(),
        Err(name) => {
            let reason = Reason::PlanUnknown;
            format!("{} {}: the plan \"{name}\" is not defined", reason.status(), reason.code())
        }
    }
}

fn described(snapshot: &Snapshot, plan: &Plan) -> String {
    let place = snapshot.sources.describe(plan.origin());
    format!("{}: {}  ({place})", plan.name(), plan.describe())
}

/// The file that `path` names, and what is sent if it is not there.
fn file(site: &Site, path: &str) -> String {
    match (site.file(path), site.fallback()) {
        (Some(file), Some(fallback)) => format!("{}, else {}", file.display(), fallback.display()),
        (Some(file), None) => file.display().to_string(),
        (None, Some(fallback)) => format!("{}: none can have this name", fallback.display()),
        (None, None) => "none can have this name".to_owned(),
    }
}

/// What the rules of a route come to for this request.
fn headers(text: &mut String, word: &str, rules: &Rules, values: &Values<'_>) {
    for Step { name, action, unusable } in rules.steps(Some(values)) {
        let shown = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let done = match action {
            _ if unusable => format!("{name} is not sent: its value cannot stand in a header"),
            Action::Set(value) => format!("{name}: {}", shown(&value)),
            Action::Add(value) => format!("{name}: {} (one more)", shown(&value)),
            Action::Remove => format!("{name} is removed"),
            Action::Keep => continue,
        };
        line(text, word, &done);
    }
}

fn others(text: &mut String, snapshot: &Snapshot, candidates: &[Candidate]) {
    let lost: Vec<_> = candidates.iter().filter(|candidate| candidate.verdict != Verdict::Wins).collect();
    if lost.is_empty() {
        return;
    }
    text.push_str("\nwhy not the others\n");
    for candidate in lost {
        let route = snapshot.route(candidate.route);
        let name = |id| snapshot.route(id).name.clone();
        let why = match &candidate.verdict {
            Verdict::Wins => continue,
            Verdict::HostDiffers => "asks for another host".to_owned(),
            Verdict::ListenerDiffers => "asks for another listener".to_owned(),
            Verdict::PathDiffers => "asks for another path".to_owned(),
            Verdict::HeaderDiffers(difference) => differs("header", difference),
            Verdict::QueryDiffers(difference) => differs("parameter", difference),
            Verdict::CookieDiffers(difference) => differs("cookie", difference),
            Verdict::ExpressionFalse => "its `when` does not hold".to_owned(),
            Verdict::ExpressionFailed { story } => format!("its `when` cannot be evaluated: {story}"),
            Verdict::MethodDiffers { allowed } => format!("asks for another method: {allowed}"),
            Verdict::LessSpecific { than, because } => format!("matches, but {} {because}", name(*than)),
            Verdict::LaterInFile { than } => format!("matches, but {} stands before it", name(*than)),
        };
        let place = snapshot.sources.describe(&route.origin);
        writeln!(text, "  {}  {why}  ({place})", route.name).unwrap_or_default();
    }
}

fn differs(what: &str, difference: &Difference) -> String {
    let Difference { name, wanted, found } = difference;
    let found = found.as_ref().map_or_else(|| "is missing".to_owned(), |found| format!("is \"{found}\""));
    format!("{what} {name} {found}, asked for: {wanted}")
}
