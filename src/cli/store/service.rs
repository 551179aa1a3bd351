//! `edgeward service …`.

use std::io::Read;
use std::path::Path;

use serde_json::{Value, json};

use super::args::{Endpoint, Service as Command, ServiceForm};
use super::{Failure, Session, columns, missing, moment, on_store, print};
use crate::base::decode::quote;
use crate::config::services::{Problem, Report, Verdict, json_of, judge, row_of};
use crate::config::{self, Runtime};
use crate::store::{ServiceRow, Services};

/// Largest description read from standard input.
const INPUT_BYTES_MAX: u64 = 1 << 20;
/// How often a service is judged anew because somebody else changed one meanwhile.
const TRIES_MAX: usize = 8;

/// Carries `command` out.
pub(in crate::cli) fn run(config: Option<&Path>, command: Command, json: bool) -> u8 {
    on_store(config, json, async |session| work(session, command).await)
}

async fn work(session: &Session, command: Command) -> Result<String, Failure> {
    match command {
        Command::Add { form, replace } => {
            let row = row(session, &form)?;
            put(session, |_| Ok(row.clone()), replace).await
        }
        Command::Enable { name } => switch(session, &name, true).await,
        Command::Disable { name } => switch(session, &name, false).await,
        Command::Show { name } => show(session, &name).await,
        Command::List => list(session).await,
        Command::Remove { name } => {
            if session.store.remove_service(&name, None).await? != Some(true) {
                return Err(missing("service", &name));
            }
            session.say(|| json!({ "name": name, "removed": true }), || format!("service {name} removed\n"))
        }
        Command::Check { form: None } => check_all(session).await,
        Command::Check { form: Some(form) } => {
            let row = row(session, &form)?;
            let verdict = verdict(session, &session.store.services().await?, &row)?;
            refuse(&row.name, &verdict.errors)?;
            let shown = warnings(&verdict);
            session.say(
                || json!({ "name": row.name, "ok": true, "warnings": verdict.warnings }),
                || format!("{shown}service {}: ok\n", quote(&row.name)),
            )
        }
    }
}

/// The service that the arguments, or what stands on standard input, describe.
fn row(session: &Session, form: &ServiceForm) -> Result<ServiceRow, Failure> {
    let json = match (&form.name, &form.path) {
        (Some(name), Some(path)) if name != "-" => json!({
            "name": name,
            "path": path,
            "methods": form.methods,
            "hosts": form.hosts,
            "endpoints": form.endpoints.iter().map(Endpoint::json).collect::<Vec<_>>(),
            "roles": form.roles,
            "enabled": !form.disabled,
        }),
        (Some(name), None) if name == "-" => read_input()?,
        _ => {
            return Err(Failure(
                "a service has a name, --path and at least one --endpoint; or write \"-\" and give its JSON on standard input"
                    .to_owned(),
            ));
        }
    };
    row_of(&json, &session.loaded, session.now).map_err(|problems| failure(name_in(&json), &problems))
}

fn name_in(json: &Value) -> &str {
    json.get("name").and_then(Value::as_str).unwrap_or_default()
}

fn read_input() -> Result<Value, Failure> {
    let mut text = String::new();
    std::io::stdin()
        .take(INPUT_BYTES_MAX + 1)
        .read_to_string(&mut text)
        .map_err(|error| Failure(format!("cannot read standard input: {error}")))?;
    if text.len() as u64 > INPUT_BYTES_MAX {
        return Err(Failure(format!("the service is larger than {} MiB", INPUT_BYTES_MAX >> 20)));
    }
    serde_json::from_str(&text).map_err(|error| Failure(format!("standard input is not JSON: {error}")))
}

/// Judges and writes what `make` makes of all services. What was made and judged of those that have changed meanwhile is
/// so again.
async fn put(
    session: &Session,
    make: impl Fn(&Services) -> Result<ServiceRow, Failure>,
    replace: bool,
) -> Result<String, Failure> {
    for _try in 0..TRIES_MAX {
        let services = session.store.services().await?;
        let row = make(&services)?;
        let known = services.rows.iter().find(|other| other.name == row.name);
        if known.is_some() && !replace {
            return Err(Failure(format!(
                "there is a service {} already\n  hint: --replace puts this one in its place",
                quote(&row.name)
            )));
        }
        let verdict = verdict(session, &services, &row)?;
        refuse(&row.name, &verdict.errors)?;
        if session.store.put_service(&row, services.number).await? {
            let shown = warnings(&verdict);
            let notes = if session.loaded.serves_services() {
                String::new()
            } else {
                "note: it is not served: the configuration does not say `services = true` in [store]\n"
                    .to_owned()
            };
            return session.say(
                || {
                    let mut value = json_of(&row);
                    if let Some(value) = value.as_object_mut() {
                        value.insert("warnings".to_owned(), json!(verdict.warnings));
                    }
                    value
                },
                || shown + &notes,
            );
        }
    }
    Err(busy())
}

fn busy() -> Failure {
    Failure("others change services all the time: nothing was written".to_owned())
}

async fn switch(session: &Session, name: &str, enabled: bool) -> Result<String, Failure> {
    // Whatever else is changed in it meanwhile stays.
    let switched = |services: &Services| {
        let known = services.rows.iter().find(|row| row.name == name);
        let known = known.ok_or_else(|| missing("service", name))?;
        Ok(ServiceRow { enabled, changed_at: session.now, ..known.clone() })
    };
    if enabled {
        return put(session, switched, true).await;
    }
    for _try in 0..TRIES_MAX {
        let services = session.store.services().await?;
        let row = switched(&services)?;
        // What is wrong with it must not keep anybody from switching it off.
        if session.store.put_service(&row, services.number).await? {
            return session.say(|| json_of(&row), || format!("service {name} is served no longer\n"));
        }
    }
    Err(busy())
}

fn verdict(session: &Session, services: &Services, row: &ServiceRow) -> Result<Verdict, Failure> {
    judge(&session.loaded, services, row, config::surroundings()).map_err(Failure)
}

fn refuse(name: &str, problems: &[Problem]) -> Result<(), Failure> {
    if problems.is_empty() { Ok(()) } else { Err(failure(name, problems)) }
}

fn failure(name: &str, problems: &[Problem]) -> Failure {
    let lines: String = problems.iter().map(|problem| problem.text("error")).collect();
    Failure(format!("the service {} cannot be served:\n{}", quote(name), lines.trim_end()))
}

fn warnings(verdict: &Verdict) -> String {
    verdict.warnings.iter().map(|problem| problem.text("warning")).collect()
}

fn report(session: &Session, services: &Services) -> Result<Report, Failure> {
    let compiled = session.loaded.compile_with(services, config::surroundings(), &Runtime::for_questions());
    if compiled.snapshot.is_none() {
        return Err(Failure(
            "the configuration has problems of its own: `edgeward check` shows them".to_owned(),
        ));
    }
    Ok(compiled.services)
}

/// What becomes of a service, in a word.
fn state(row: &ServiceRow, report: &Report) -> &'static str {
    match report.problems_of(&row.name) {
        _ if !row.enabled => "disabled",
        Some(_) => "left out",
        None => "served",
    }
}

async fn list(session: &Session) -> Result<String, Failure> {
    let services = session.store.services().await?;
    let report = report(session, &services)?;
    let line = |row: &ServiceRow| {
        let json = json_of(row);
        let texts = |key: &str| -> String {
            let list = json.get(key).and_then(Value::as_array).into_iter().flatten();
            list.filter_map(Value::as_str).collect::<Vec<_>>().join(",")
        };
        let endpoints = json.get("endpoints").and_then(Value::as_array).map_or(0, Vec::len);
        let state = state(row, &report).to_owned();
        [row.name.clone(), row.path.clone(), texts("methods"), texts("roles"), endpoints.to_string(), state]
            .map(|cell| cell.chars().map(|c| if c.is_control() { ' ' } else { c }).collect())
            .to_vec()
    };
    session.say(
        || services.rows.iter().map(|row| shown(row, &report)).collect(),
        || {
            let head = ["NAME", "PATH", "METHODS", "ROLES", "ENDPOINTS", "STATE"];
            columns(&head, &services.rows.iter().map(line).collect::<Vec<_>>())
        },
    )
}

fn shown(row: &ServiceRow, report: &Report) -> Value {
    let mut value = json_of(row);
    if let Some(value) = value.as_object_mut() {
        value.insert("state".to_owned(), state(row, report).into());
        value.insert("created".to_owned(), moment(row.created_at).into());
        value.insert("changed".to_owned(), moment(row.changed_at).into());
        if let Some(problems) = report.problems_of(&row.name) {
            value.insert("problems".to_owned(), json!(problems));
        }
    }
    value
}

async fn show(session: &Session, name: &str) -> Result<String, Failure> {
    let services = session.store.services().await?;
    let row = services.rows.iter().find(|row| row.name == name).ok_or_else(|| missing("service", name))?;
    let report = report(session, &services)?;
    // For people as well: it is what `service add -` takes.
    Ok(format!("{:#}\n", shown(row, &report)))
}

async fn check_all(session: &Session) -> Result<String, Failure> {
    let services = session.store.services().await?;
    let report = report(session, &services)?;
    if session.json {
        let value = json!({
            "served": report.applied,
            "disabled": report.disabled,
            "left_out": report.left_out,
            "warnings": report.warnings,
        });
        let text = format!("{value:#}\n");
        if report.left_out.is_empty() {
            return Ok(text);
        }
        print(&text);
        return Err(Failure(format!("services: {}", report.summary())));
    }
    let mut text = String::new();
    for (name, problems) in &report.warnings {
        text.push_str(&format!("service {}:\n", quote(name)));
        problems.iter().for_each(|problem| text.push_str(&problem.text("warning")));
    }
    if report.left_out.is_empty() {
        text.push_str(&format!("services: {}\n", report.summary()));
        return Ok(text);
    }
    text.push_str(&format!("services: {}\n", report.summary()));
    for left in &report.left_out {
        text.push_str(&format!("service {}:\n", quote(&left.name)));
        left.problems.iter().for_each(|problem| text.push_str(&problem.text("error")));
    }
    Err(Failure(text.trim_end().to_owned()))
}
