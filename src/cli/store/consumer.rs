//! `edgeward consumer …`.

use std::path::Path;

use serde_json::{Value, json};

use super::args::Consumer as Command;
use super::{Failure, PAGE, Session, columns, key, missing, on_store, usage};
use crate::base::decode::quote;
use crate::identity::consumers::Subject;
use crate::store::{ConsumerRow, KEPT_OF_ALL};

/// Carries `command` out.
pub(in crate::cli) fn run(config: Option<&Path>, command: Command, json: bool) -> u8 {
    on_store(config, json, async |session| work(session, command).await)
}

async fn work(session: &Session, command: Command) -> Result<String, Failure> {
    let store = &session.store;
    match command {
        Command::Add { name, groups, plan, subjects } => {
            if session.is_configured(&name) {
                return Err(Failure(format!(
                    "the configuration has a consumer {} already: [consumers.{name}]",
                    quote(&name)
                )));
            }
            for Subject { provider, .. } in &subjects {
                session.check_subject_of(provider)?;
            }
            if let Some(plan) = &plan {
                session.check_plan(plan)?;
            }
            store.add_consumer(&name, &groups, plan.as_deref(), session.now).await?;
            for Subject { provider, subject } in &subjects {
                store.attach_subject(provider, subject, &name).await?;
            }
            session.say(
                || json!({ "name": name, "groups": groups, "plan": plan }),
                || format!("consumer {name} added\n"),
            )
        }
        Command::Show { name } => show(session, &name).await,
        Command::List => list(session).await,
        Command::Usage { name } => usage::usage(session, &name).await,
        Command::Remove { name } => {
            let found = store.remove_consumer(&name, session.now, session.after(KEPT_OF_ALL)).await?;
            if session.is_configured(&name) {
                return Err(Failure(format!(
                    "the consumer {} stands in the configuration, as [consumers.{name}]: take it out there and reload{}",
                    quote(&name),
                    if found { "\n  note: what the store had of it was removed" } else { "" }
                )));
            }
            if !found {
                return Err(missing("consumer", &name));
            }
            session.say(
                || json!({ "name": name, "removed": true }),
                || format!("consumer {name} removed, its keys and the tokens of its subjects revoked\n"),
            )
        }
        Command::Groups { name, groups } => {
            if !store.change_consumer(&name, Some(&groups.0), None).await? {
                return Err(absent(session, &name));
            }
            session.say(
                || json!({ "name": name, "groups": groups.0 }),
                || match groups.0.as_slice() {
                    [] => format!("consumer {name} is in no group now\n"),
                    names => format!("groups of the consumer {name} are now {}\n", names.join(",")),
                },
            )
        }
        Command::Plan { name, plan } => {
            let plan = Some(plan.as_str()).filter(|plan| !plan.is_empty());
            plan.map_or(Ok(()), |plan| session.check_plan(plan))?;
            if !store.change_consumer(&name, None, Some(plan)).await? {
                return Err(absent(session, &name));
            }
            session.say(
                || json!({ "name": name, "plan": plan }),
                || match plan {
                    Some(plan) => format!("plan of the consumer {name} is now {plan}\n"),
                    None => format!("consumer {name} has no plan of its own now\n"),
                },
            )
        }
        Command::Attach { name, subject: Subject { provider, subject } } => {
            session.check_subject_of(&provider)?;
            key::check_consumer(session, &name).await?;
            store.attach_subject(&provider, &subject, &name).await?;
            session.say(
                || json!({ "name": name, "provider": provider, "subject": subject }),
                || format!("{provider}:{subject} is the consumer {name}'s now\n"),
            )
        }
        Command::Detach { name, subject: Subject { provider, subject } } => {
            if !store.detach_subject(&provider, &subject, &name).await? {
                return Err(Failure(format!("{provider}:{subject} is not {}'s", quote(&name))));
            }
            session.say(
                || json!({ "name": name, "provider": provider, "subject": subject, "detached": true }),
                || format!("{provider}:{subject} is nobody's now\n"),
            )
        }
    }
}

/// What can be changed in the store alone is not there.
fn absent(session: &Session, name: &str) -> Failure {
    if session.is_configured(name) {
        return Failure(format!(
            "the consumer {} stands in the configuration: change [consumers.{name}] there and reload",
            quote(name)
        ));
    }
    missing("consumer", name)
}

/// A consumer, wherever it stands.
struct Described {
    name: String,
    groups: Vec<String>,
    plan: Option<String>,
    from: &'static str,
}

impl Described {
    fn json(&self) -> Value {
        json!({ "name": self.name, "groups": self.groups, "plan": self.plan, "from": self.from })
    }
}

async fn show(session: &Session, name: &str) -> Result<String, Failure> {
    let stored = session.store.consumer(name).await?.map(of_store);
    let consumer = of_configuration(session, name).or(stored).ok_or_else(|| missing("consumer", name))?;
    let stored = session.store.subjects_of(name).await?;
    let stored = stored.into_iter().map(|row| format!("{}:{}", row.provider, row.subject));
    let subjects: Vec<String> = stored.chain(configured_subjects(session, name)).collect();
    let keys = key::all(session, Some(name)).await?;
    session.say(
        || {
            let mut value = consumer.json();
            if let Some(value) = value.as_object_mut() {
                value.insert("subjects".to_owned(), json!(subjects));
                value
                    .insert("keys".to_owned(), keys.iter().map(|row| key::shown(row, session.now)).collect());
            }
            value
        },
        || {
            let mut shown = format!(
                "name      {name}\ngroups    {}\nplan      {}\nfrom      {}\n",
                consumer.groups.join(","),
                consumer.plan.as_deref().unwrap_or("-"),
                consumer.from,
            );
            for subject in &subjects {
                shown.push_str(&format!("subject   {subject}\n"));
            }
            for row in &keys {
                shown.push_str(&format!("key       {}\n", key::line(row, session.now).join("  ").trim_end()));
            }
            shown
        },
    )
}

async fn list(session: &Session) -> Result<String, Failure> {
    let mut stored: Vec<ConsumerRow> = Vec::new();
    loop {
        let after = stored.last().map(|row| row.name.clone()).unwrap_or_default();
        let some = session.store.consumers(&after, PAGE).await?;
        if some.is_empty() {
            break;
        }
        stored.extend(some);
    }
    let configured = session.loaded.raw.iter().flat_map(|raw| raw.consumers.keys());
    let configured = configured.filter_map(|name| of_configuration(session, name));
    let others = stored.into_iter().filter(|row| !session.is_configured(&row.name)).map(of_store);
    let all: Vec<Described> = configured.chain(others).collect();
    let row = |one: &Described| {
        let plan = one.plan.clone().unwrap_or_default();
        vec![one.name.clone(), one.groups.join(","), plan, one.from.to_owned()]
    };
    session.say(
        || all.iter().map(Described::json).collect(),
        || columns(&["NAME", "GROUPS", "PLAN", "FROM"], &all.iter().map(row).collect::<Vec<_>>()),
    )
}

/// The consumer called `name` of the configuration, which counts before one of the store.
fn of_configuration(session: &Session, name: &str) -> Option<Described> {
    let consumer = session.loaded.raw.as_ref()?.consumers.get(name)?;
    Some(Described {
        name: name.to_owned(),
        groups: consumer.groups.iter().map(|group| group.0.clone()).collect(),
        plan: consumer.plan.as_ref().map(|plan| plan.value.clone()),
        from: "configuration",
    })
}

fn of_store(row: ConsumerRow) -> Described {
    Described { name: row.name, groups: row.groups, plan: row.plan, from: "store" }
}

fn configured_subjects(session: &Session, name: &str) -> Vec<String> {
    let consumer = session.loaded.raw.as_ref().and_then(|raw| raw.consumers.get(name));
    let subjects = consumer.into_iter().flat_map(|consumer| consumer.subjects.iter());
    subjects.map(|subject| format!("{}:{}", subject.provider, subject.subject)).collect()
}
