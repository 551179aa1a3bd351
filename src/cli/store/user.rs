//! `edgeward user …`.

use std::path::Path;

use serde_json::json;

use super::args::User as Command;
use super::{Failure, PAGE, Session, columns, missing, on_store, password};
use crate::cli::fail;
use crate::identity::password::hash;
use crate::store::{User, UserChange};

/// Carries `command` out.
pub(in crate::cli) fn run(config: Option<&Path>, command: Command, json: bool) -> u8 {
    // Asked for before anything is connected.
    let password = match &command {
        Command::Add { name, password: from, .. } | Command::Passwd { name, password: from } => {
            match password::read(name, from.password_stdin) {
                Ok(password) => Some(password),
                Err(why) => return fail(&why),
            }
        }
        _ => None,
    };
    on_store(config, json, async |session| work(session, command, password).await)
}

async fn work(session: &Session, command: Command, password: Option<String>) -> Result<String, Failure> {
    let hashed = match password.map(|password| hash(&password, session.password_cost())).transpose() {
        Ok(hashed) => hashed.unwrap_or_default(),
        Err(error) => return Err(Failure(error.to_string())),
    };
    let (name, change) = match command {
        Command::Add { name, roles, .. } => {
            let user = User { name, password: hashed, roles, disabled: false };
            session.store.add_user(&user, session.now).await?;
            return session.say(|| shown(&user), || format!("user {} added\n", user.name));
        }
        Command::List => return list(session).await,
        Command::Passwd { name, .. } => (name, UserChange::Password(hashed)),
        Command::Roles { name, roles } => (name, UserChange::Roles(roles.0)),
        Command::Disable { name } => (name, UserChange::Disabled(true)),
        Command::Enable { name } => (name, UserChange::Disabled(false)),
        Command::Remove { name } => (name, UserChange::Removed),
    };
    if !session.store.change_user(&name, &change, session.issued(), session.now).await? {
        return Err(missing("user", &name));
    }
    let user = session.store.user(&name).await?;
    let ended = "refresh tokens and access tokens issued up to now are revoked";
    session.say(
        || user.as_ref().map_or_else(|| json!({ "name": name, "removed": true }), shown),
        || match &change {
            UserChange::Password(_) => format!("password of {name} changed: {ended}\n"),
            UserChange::Roles(roles) if roles.is_empty() => format!("{name} has no roles now\n"),
            UserChange::Roles(roles) => format!("roles of {name} are now {}\n", roles.join(",")),
            UserChange::Disabled(true) => format!("{name} may not log in any more: {ended}\n"),
            UserChange::Disabled(false) => format!("{name} may log in again\n"),
            UserChange::Removed => format!("user {name} removed: {ended}\n"),
        },
    )
}

async fn list(session: &Session) -> Result<String, Failure> {
    let mut all: Vec<User> = Vec::new();
    loop {
        let after = all.last().map(|user| user.name.clone()).unwrap_or_default();
        let some = session.store.users(&after, PAGE).await?;
        if some.is_empty() {
            break;
        }
        all.extend(some);
    }
    let row = |user: &User| {
        let state = if user.disabled { "disabled" } else { "" };
        vec![user.name.clone(), user.roles.join(","), state.to_owned()]
    };
    session.say(
        || all.iter().map(shown).collect(),
        || columns(&["NAME", "ROLES", ""], &all.iter().map(row).collect::<Vec<_>>()),
    )
}

fn shown(user: &User) -> serde_json::Value {
    json!({ "name": user.name, "roles": user.roles, "disabled": user.disabled })
}
