//! The commands that work on the store: `user`, `consumer`, `key`, `token`, `service`.
//!
//! They talk to the store themselves, and then have the running process look at it, if there is one: what they change
//! holds for its next request. Without a control socket it looks by itself within a second.

pub(super) mod args;
mod consumer;
mod key;
mod password;
mod service;
mod token;
mod usage;
mod user;

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::{fail, print, run};
use crate::app::{control, user as account};
use crate::base::decode::quote;
use crate::base::diagnostic::Diagnostics;
use crate::base::origin::At;
use crate::base::{clock, out};
use crate::config::{self, Loaded, render};
use crate::identity::consumers::CERTIFICATES;
use crate::identity::password::Cost;
use crate::store::{Issued, KEPT_OF_ALL, Store, StoreError, StoreUrl};

pub(super) use consumer::run as consumer;
pub(super) use key::run as key;
pub(super) use service::run as service;
pub(super) use token::run as token;
pub(super) use user::run as user;

/// Rows asked for at once.
const PAGE: u32 = 500;

/// What a command works with.
struct Session {
    store: Store,
    /// What the configuration says, be there errors in it or not.
    loaded: Loaded,
    json: bool,
    now: i64,
}

/// Why a command failed, to be printed.
#[derive(Debug)]
struct Failure(String);

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self(error.to_string())
    }
}

impl From<String> for Failure {
    fn from(text: String) -> Self {
        Self(text)
    }
}

/// Does `work` on the store of the configuration at `config`, and prints what comes of it.
fn on_store<W>(config: Option<&Path>, json: bool, work: W) -> u8
where
    W: AsyncFnOnce(&Session) -> Result<String, Failure>,
{
    let path = match run::find(config) {
        Ok(path) => path,
        Err(status) => return status,
    };
    run::install_provider();
    let loaded = config::load(&path, config::surroundings());
    // Errors elsewhere must not keep anybody from revoking a key.
    let Some(url) =
        loaded.raw.as_ref().and_then(|raw| raw.store.as_ref()).map(|store| store.url.value.clone())
    else {
        if loaded.diagnostics.has_errors() {
            // One of them may be what keeps the store from being seen.
            out::complain(&render::text(&loaded.diagnostics, &loaded.sources, out::complaints_are_read()));
        }
        return fail(&format!(
            "{} has no [store]\n  hint: add [store] with url = \"sqlite:run/edgeward.db\", and start the gateway anew",
            path.display()
        ));
    };
    let session = Session { store: Store::new(url), loaded, json, now: clock::unix_now() };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("cannot start: {error}")),
    };
    let done = runtime.block_on(async {
        if let Err(error) = session.hand_over_file() {
            return Err(Failure(error));
        }
        session.store.connect().await?;
        work(&session).await
    });
    session.tell();
    report(done)
}

impl Session {
    /// Makes the file of the store if there is none. What root makes belongs to the user of the process from then on.
    fn hand_over_file(&self) -> Result<(), String> {
        let StoreUrl::Sqlite(path) = self.store.url() else { return Ok(()) };
        let cannot = |error| format!("the store {} cannot be made: {error}", path.display());
        let made = self.store.make_file().map_err(cannot)?;
        let Some(raw) = &self.loaded.raw else { return Ok(()) };
        let named = |at: &Option<At<String>>| at.as_ref().map(|at| at.value.clone());
        let (user, group) = (named(&raw.server.user), named(&raw.server.group));
        made.iter()
            .try_for_each(|path| account::give(user.as_deref(), group.as_deref(), path))
            .map_err(cannot)
    }

    /// Has the running process look at the store. Without one, or without a control socket, there is nobody to tell.
    fn tell(&self) {
        if let Some(socket) = self.control_socket() {
            control::synchronise(&socket);
        }
    }

    fn control_socket(&self) -> Option<PathBuf> {
        self.loaded.raw.as_ref()?.server.control_socket.as_ref().map(|at| at.value.0.clone())
    }

    /// Whether the configuration names the consumer.
    fn is_configured(&self, consumer: &str) -> bool {
        self.loaded.raw.as_ref().is_some_and(|raw| raw.consumers.contains_key(consumer))
    }

    /// Refuses what no subject can be of: neither a provider of the configuration nor certificates.
    fn check_subject_of(&self, name: &str) -> Result<(), Failure> {
        if name == CERTIFICATES { Ok(()) } else { self.check_provider(name) }
    }

    /// Refuses a provider that the configuration does not have: a typing error would revoke nothing.
    fn check_provider(&self, name: &str) -> Result<(), Failure> {
        let Some(raw) = &self.loaded.raw else { return Ok(()) };
        if raw.identity.providers.contains_key(name) {
            return Ok(());
        }
        let known = raw.identity.providers.keys().map(String::as_str);
        let near = crate::base::names::nearest(name, known);
        let hint = near.map(|near| format!("\n  hint: did you mean {}?", quote(near))).unwrap_or_default();
        Err(Failure(format!("there is no provider {} in the configuration{hint}", quote(name))))
    }

    /// Refuses a plan that the configuration does not have: whoever had it would be refused.
    fn check_plan(&self, name: &str) -> Result<(), Failure> {
        let Some(raw) = &self.loaded.raw else { return Ok(()) };
        if raw.plans.contains_key(name) {
            return Ok(());
        }
        let near = crate::base::names::nearest(name, raw.plans.keys().map(String::as_str));
        let hint = match near {
            Some(near) => format!("did you mean {}?", quote(near)),
            None => format!("define it first: [plans.{name}]"),
        };
        Err(Failure(format!("there is no plan {} in the configuration\n  hint: {hint}", quote(name))))
    }

    /// The access tokens of users: what the provider of logins issues.
    fn issued(&self) -> Option<Issued<'_>> {
        let identity = &self.loaded.raw.as_ref()?.identity;
        let mut signing = identity.providers.iter().filter(|(_, provider)| provider.signing_key.is_some());
        let provider = match &identity.login {
            Some(login) => &login.provider.value,
            None => signing.next()?.0,
        };
        Some(Issued { provider, kept_until: self.after(KEPT_OF_ALL) })
    }

    /// What hashing a password costs.
    fn password_cost(&self) -> Cost {
        let login = self.loaded.raw.as_ref().and_then(|raw| raw.identity.login.as_ref());
        // What is wrong with it shows when it is used.
        login.map_or_else(Cost::default, |login| login.passwords.cost("", &mut Diagnostics::default()))
    }

    /// `value` for scripts, or `text` for people: what was done.
    fn say(&self, value: impl FnOnce() -> Value, text: impl FnOnce() -> String) -> Result<String, Failure> {
        Ok(if self.json { format!("{:#}\n", value()) } else { text() })
    }

    /// When something ends that lasts `lifetime` from now.
    fn after(&self, lifetime: Duration) -> i64 {
        self.now.saturating_add(i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX))
    }
}

/// A moment for people and scripts alike.
fn moment(at: i64) -> String {
    jiff::Timestamp::from_second(at).map_or_else(|_| "never".to_owned(), |at| at.to_string())
}

/// The same, or null.
fn moment_json(at: Option<i64>) -> Value {
    at.map(moment).into()
}

/// Columns, as wide as their widest cell.
fn columns(head: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = head.iter().map(|cell| cell.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded = cells.zip(&widths).map(|(cell, width)| format!("{cell:<width$}", width = *width));
        format!("{}\n", padded.collect::<Vec<_>>().join("  ").trim_end())
    };
    let mut text = line(&mut head.iter().copied());
    for row in rows {
        text.push_str(&line(&mut row.iter().map(String::as_str)));
    }
    text
}

/// There is nothing of the name.
fn missing(what: &str, name: &str) -> Failure {
    Failure(format!("there is no {what} {}", quote(name)))
}

/// What a command prints, and its status.
fn report(done: Result<String, Failure>) -> u8 {
    match done {
        Ok(text) => print(&text),
        Err(Failure(text)) => fail(&text),
    }
}
