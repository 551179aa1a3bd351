//! `edgeward key …`.

use std::path::Path;
use std::time::Duration;

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use serde_json::json;

use super::args::{Key as Command, Lifetime};
use super::{Failure, PAGE, Session, columns, missing, moment, moment_json, on_store};
use crate::base::decode::quote;
use crate::identity::directory::hash_key;
use crate::store::{KeyRow, NewKey};

/// Carries `command` out.
pub(in crate::cli) fn run(config: Option<&Path>, command: Command, json: bool) -> u8 {
    on_store(config, json, async |session| work(session, command).await)
}

async fn work(session: &Session, command: Command) -> Result<String, Failure> {
    match command {
        Command::Create { consumer, expires, plan } => {
            check_consumer(session, &consumer).await?;
            plan.as_deref().map_or(Ok(()), |plan| session.check_plan(plan))?;
            let made = Made::new()?;
            let expires_at = expires.and_then(|lifetime| lifetime.end(session));
            session.store.add_key(&made.of(&consumer, expires_at, plan.as_deref()), session.now).await?;
            made.tell(session, &consumer, expires_at, None)
        }
        Command::List { consumer } => {
            let keys = all(session, consumer.as_deref()).await?;
            session.say(
                || keys.iter().map(|row| shown(row, session.now)).collect(),
                || {
                    let rows: Vec<_> = keys.iter().map(|row| line(row, session.now)).collect();
                    columns(&["KEY", "CONSUMER", "STATE", "EXPIRES", "LAST USED"], &rows)
                },
            )
        }
        Command::Revoke { id } => {
            let id = visible(&id);
            if !session.store.revoke_key(id, session.now).await? {
                return Err(no_key(session, id).await?);
            }
            session.say(|| json!({ "id": id, "revoked": true }), || format!("API key {id} revoked\n"))
        }
        Command::Plan { id, plan } => {
            let id = visible(&id);
            let plan = Some(plan.as_str()).filter(|plan| !plan.is_empty());
            plan.map_or(Ok(()), |plan| session.check_plan(plan))?;
            if !session.store.change_key_plan(id, plan).await? {
                return Err(no_key(session, id).await?);
            }
            session.say(
                || json!({ "id": id, "plan": plan }),
                || match plan {
                    Some(plan) => format!("API key {id} has plan {plan}\n"),
                    None => format!("API key {id} has the plan of its consumer\n"),
                },
            )
        }
        Command::Rotate { id, overlap, expires } => rotate(session, visible(&id), overlap, expires).await,
    }
}

impl Lifetime {
    /// When a key ends that is made now; `None`: never.
    fn end(self, session: &Session) -> Option<i64> {
        match self {
            Self::Never => None,
            Self::For(duration) => Some(session.after(duration)),
        }
    }
}

async fn rotate(
    session: &Session,
    id: &str,
    overlap: Duration,
    expires: Option<Lifetime>,
) -> Result<String, Failure> {
    let Some(old) = session.store.key(id).await? else { return Err(missing("API key", id)) };
    let made = Made::new()?;
    // As long-lived as the old one was, unless something else is asked for.
    let inherited = old.expires_at.map(|end| session.now.saturating_add(end.saturating_sub(old.created_at)));
    let expires_at = expires.map_or(inherited, |lifetime| lifetime.end(session));
    let ends = session.after(overlap);
    let new = made.of(&old.consumer, expires_at, old.plan.as_deref());
    if !session.store.replace_key(id, &new, ends, session.now).await? {
        return Err(no_key(session, id).await?);
    }
    made.tell(
        session,
        &old.consumer,
        expires_at,
        Some((id, old.expires_at.map_or(ends, |end| end.min(ends)))),
    )
}

/// Why the key called `id` could not be changed.
async fn no_key(session: &Session, id: &str) -> Result<Failure, Failure> {
    Ok(match session.store.key(id).await? {
        Some(row) if row.revoked_at.is_some() => Failure(format!("the API key {id} was revoked before")),
        Some(_) => Failure(format!("the API key {id} has expired")),
        None => missing("API key", id),
    })
}

/// Refuses a consumer that neither the store nor the configuration has.
pub(super) async fn check_consumer(session: &Session, name: &str) -> Result<(), Failure> {
    if session.is_configured(name) || session.store.consumer(name).await?.is_some() {
        return Ok(());
    }
    Err(Failure(format!(
        "there is no consumer {}\n  hint: `edgeward consumer add {name}` makes one",
        quote(name)
    )))
}

/// All keys, or those of one consumer.
pub(super) async fn all(session: &Session, consumer: Option<&str>) -> Result<Vec<KeyRow>, Failure> {
    let mut all = Vec::new();
    loop {
        let known = u32::try_from(all.len()).unwrap_or(u32::MAX);
        let some = session.store.keys(consumer, known, PAGE).await?;
        if some.is_empty() {
            return Ok(all);
        }
        all.extend(some);
    }
}

fn state(row: &KeyRow, now: i64) -> &'static str {
    match (row.revoked_at, row.expires_at) {
        (Some(_), _) => "revoked",
        (None, Some(end)) if end <= now => "expired",
        _ => "valid",
    }
}

/// A key for scripts.
pub(super) fn shown(row: &KeyRow, now: i64) -> serde_json::Value {
    json!({
        "id": row.id,
        "consumer": row.consumer,
        "plan": row.plan,
        "state": state(row, now),
        "created": moment(row.created_at),
        "expires": moment_json(row.expires_at),
        "revoked": moment_json(row.revoked_at),
        "last_used": moment_json(row.last_used),
    })
}

/// A key for people.
pub(super) fn line(row: &KeyRow, now: i64) -> Vec<String> {
    let never = |at: Option<i64>| at.map_or_else(|| "never".to_owned(), moment);
    vec![
        row.id.clone(),
        row.consumer.clone(),
        state(row, now).to_owned(),
        never(row.expires_at),
        never(row.last_used),
    ]
}

/// The visible beginning of what was typed: a whole key is known by it as well.
fn visible(typed: &str) -> &str {
    match typed.match_indices('_').nth(1) {
        Some((end, _)) if typed.starts_with("ew_") => typed.get(..end).unwrap_or(typed),
        _ => typed,
    }
}

/// A key that was made: `ew_`, 8 visible characters, `_`, and 32 that are secret, 160 random bits.
struct Made {
    id: String,
    whole: String,
    hash: [u8; 32],
}

impl Made {
    fn new() -> Result<Self, Failure> {
        let id = format!("ew_{}", random::<5>()?);
        let whole = format!("{id}_{}", random::<20>()?);
        let hash = hash_key(&whole);
        Ok(Self { id, whole, hash })
    }

    fn of<'a>(&'a self, consumer: &'a str, expires_at: Option<i64>, plan: Option<&'a str>) -> NewKey<'a> {
        NewKey { id: &self.id, consumer, hash: &self.hash, expires_at, plan }
    }

    fn tell(
        &self,
        session: &Session,
        consumer: &str,
        expires_at: Option<i64>,
        old: Option<(&str, i64)>,
    ) -> Result<String, Failure> {
        session.say(
            || {
                let mut value = json!({
                    "key": self.whole,
                    "id": self.id,
                    "consumer": consumer,
                    "expires": moment_json(expires_at),
                });
                if let (Some((id, end)), Some(value)) = (old, value.as_object_mut()) {
                    value.insert("replaces".to_owned(), json!({ "id": id, "expires": moment(end) }));
                }
                value
            },
            || {
                let end = expires_at.map_or_else(|| "never".to_owned(), moment);
                let old =
                    old.map_or_else(String::new, |(id, end)| format!("{id} holds until {}\n", moment(end)));
                format!("{}\n{old}shown this once; expires: {end}\n", self.whole)
            },
        )
    }
}

/// `BYTES` random bytes, five bits a character, without those that are taken for each other (i, l, o, u).
fn random<const BYTES: usize>() -> Result<String, Failure> {
    const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
    let mut bytes = [0; BYTES];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| Failure("the system gives no random numbers".to_owned()))?;
    let (mut text, mut bits, mut held) = (String::with_capacity(BYTES * 8 / 5), 0_u32, 0_u32);
    for byte in bytes {
        bits = bits << 8 | u32::from(byte);
        held += 8;
        while held >= 5 {
            held -= 5;
            let index = usize::try_from(bits >> held & 31).unwrap_or(0);
            text.extend(ALPHABET.get(index).map(|byte| char::from(*byte)));
        }
        bits &= (1 << held) - 1;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_long_unlike_each_other_and_known_by_their_beginning() {
        let keys: std::collections::BTreeSet<_> = (0..200).map(|_| Made::new().unwrap().whole).collect();
        assert_eq!(keys.len(), 200);
        for key in keys {
            assert_eq!(key.len(), 3 + 8 + 1 + 32, "{key}");
            assert_eq!(visible(&key), &key[..11]);
            assert_eq!(visible(visible(&key)), &key[..11]);
        }
        assert_eq!(visible("a_b_c"), "a_b_c");
    }
}
