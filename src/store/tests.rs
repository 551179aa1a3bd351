//! One suite for both databases.

use std::path::Path;
use std::sync::atomic::AtomicUsize;

use super::schema::{STEPS, Step, migrate_postgres, migrate_sqlite, step_of_tests};
use super::*;

#[path = "../../tests/it/support/postgres.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    clippy::disallowed_methods,
    clippy::let_underscore_must_use,
    reason = "shared with the scenarios of tests/it"
)]
mod postgres;

const NOW: i64 = 1_800_000_000;

fn user_called(name: &str) -> User {
    let (roles, password) = (vec!["admin".to_owned(), "a,b \"c\"".to_owned()], "$argon2id$x".to_owned());
    User { name: name.to_owned(), password, roles, disabled: false }
}

fn hash(byte: u8) -> [u8; 32] {
    [byte; 32]
}

async fn users(store: &Store) {
    let alice = user_called("alice");
    assert_eq!(store.user("alice").await.unwrap(), None);
    store.add_user(&alice, NOW).await.unwrap();
    assert_eq!(store.user("alice").await.unwrap(), Some(alice.clone()));
    let again = store.add_user(&alice, NOW).await.unwrap_err();
    assert_eq!(again, StoreError::Conflict("there is a user alice already".to_owned()));
    assert_eq!(store.health(), Health::Up);
    // An upgrade of the hash does not undo a change.
    assert!(!store.replace_password("alice", "other", "new").await.unwrap());
    assert!(store.replace_password("alice", "$argon2id$x", "new").await.unwrap());
    for (change, expected) in [
        (UserChange::Password("p2".to_owned()), User { password: "p2".to_owned(), ..alice.clone() }),
        (UserChange::Roles(vec![]), User { password: "p2".to_owned(), roles: vec![], ..alice.clone() }),
        (
            UserChange::Disabled(true),
            User { password: "p2".to_owned(), roles: vec![], disabled: true, ..alice.clone() },
        ),
    ] {
        assert!(store.change_user("alice", &change, None, NOW).await.unwrap());
        assert_eq!(store.user("alice").await.unwrap(), Some(expected));
        assert!(!store.change_user("nobody", &change, None, NOW).await.unwrap());
    }
    for name in ["dora", "bob", "Äpfel", "o'neil; --"] {
        store.add_user(&user_called(name), NOW).await.unwrap();
    }
    let mut names = Vec::new();
    while let Ok(some) = store.users(names.last().map_or("", String::as_str), 2).await
        && !some.is_empty()
    {
        assert!(some.len() <= 2);
        names.extend(some.into_iter().map(|user| user.name));
    }
    names.sort();
    assert_eq!(names, ["alice", "bob", "dora", "o'neil; --", "Äpfel"]);
    assert!(store.change_user("bob", &UserChange::Removed, None, NOW).await.unwrap());
    assert_eq!(store.user("bob").await.unwrap(), None);
}

async fn refresh_tokens(store: &Store) {
    let rotate =
        async |old, new, now| store.rotate("local", &hash(old), &hash(new), now + 100, now).await.unwrap();
    store.begin_family("f1", "alice", "local", &hash(1), NOW + 100, NOW).await.unwrap();
    assert_eq!(rotate(9, 2, NOW).await, Rotation::Unknown);
    let elsewhere = store.rotate("other", &hash(1), &hash(2), NOW + 100, NOW).await.unwrap();
    assert_eq!(elsewhere, Rotation::Unknown, "it belongs to another provider");
    let rotated = Rotation::Rotated { user: "alice".to_owned(), family: "f1".to_owned() };
    assert_eq!(rotate(1, 2, NOW).await, rotated);
    assert_eq!(rotate(2, 3, NOW + 99).await, rotated);
    // A used one comes again: neither of the thief's and the owner's holds any more.
    let reused = |ends| Rotation::Reused { user: "alice".to_owned(), ends };
    assert_eq!(rotate(1, 4, NOW + 99).await, reused(true));
    assert_eq!(rotate(1, 4, NOW + 99).await, reused(false), "once is enough");
    assert_eq!(rotate(3, 5, NOW + 99).await, Rotation::Expired);
    assert_eq!(rotate(5, 6, NOW).await, Rotation::Unknown, "what was not rotated is not known");

    store.begin_family("f2", "alice", "local", &hash(11), NOW + 100, NOW).await.unwrap();
    assert_eq!(rotate(11, 12, NOW + 100).await, Rotation::Expired);
    store.begin_family("f3", "alice", "local", &hash(21), NOW + 100, NOW).await.unwrap();
    store.end_family_of(&hash(21), NOW).await.unwrap();
    store.end_family_of(&hash(99), NOW).await.unwrap();
    assert_eq!(rotate(21, 22, NOW).await, Rotation::Expired, "it was logged out");

    store.begin_family("f5", "alice", "local", &hash(25), NOW + 100, NOW).await.unwrap();
    store.end_family("f5", NOW).await.unwrap();
    store.end_family("f9", NOW).await.unwrap();
    assert_eq!(rotate(25, 26, NOW).await, Rotation::Expired, "it was ended by its name");

    // Of many at once one gets the next; for the others it was reuse.
    store.begin_family("f4", "alice", "local", &hash(31), NOW + 100, NOW).await.unwrap();
    let all = (40..48).map(|new| rotate(31, new, NOW));
    let outcomes = futures_util::future::join_all(all).await;
    let rotated = outcomes.iter().filter(|outcome| matches!(outcome, Rotation::Rotated { .. })).count();
    assert!(rotated == 1 && outcomes.contains(&reused(true)), "{outcomes:?}");
    for new in 40..48 {
        assert!(
            !matches!(rotate(new, 60 + new, NOW).await, Rotation::Rotated { .. }),
            "the family has ended"
        );
    }

    // A password, the right to log in, and the user end their families; roles do not.
    store.add_user(&user_called("alice"), NOW).await.unwrap();
    for (token, change, holds) in [
        (51, UserChange::Roles(vec![]), true),
        (53, UserChange::Disabled(false), true),
        (55, UserChange::Password("new".to_owned()), false),
        (57, UserChange::Disabled(true), false),
        (59, UserChange::Removed, false),
    ] {
        store
            .begin_family(&format!("g{token}"), "alice", "local", &hash(token), NOW + 100, NOW)
            .await
            .unwrap();
        assert!(store.change_user("alice", &change, None, NOW).await.unwrap());
        let outcome = rotate(token, token + 1, NOW).await;
        assert_eq!(matches!(outcome, Rotation::Rotated { .. }), holds, "{change:?}: {outcome:?}");
    }
    let two_days = 2 * 24 * 3600;
    assert!(store.forget(NOW + two_days).await.unwrap() > 0);
    assert_eq!(rotate(1, 2, NOW).await, Rotation::Unknown, "what has ended is forgotten");
}

/// All changes after `since`, as a reader would take them.
async fn all_changes(store: &Store, mut since: i64) -> changes::Changes {
    let last = store.last_change().await.unwrap();
    let mut all = changes::Changes { upto: last, ..changes::Changes::default() };
    while since < last {
        let some = store.changes(since, last).await.unwrap();
        assert!(some.upto > since && some.upto <= last);
        since = some.upto;
        all.revocations.extend(some.revocations.into_iter().filter(|row| row.changed <= since));
        all.consumers.extend(some.consumers);
        all.subjects.extend(some.subjects);
        all.keys.extend(some.keys);
    }
    all
}

async fn consumers_and_keys(store: &Store) {
    let groups = vec!["paid".to_owned(), "eu".to_owned()];
    store.add_consumer("mobile", &groups, Some("standard"), NOW).await.unwrap();
    assert!(matches!(store.add_consumer("mobile", &[], None, NOW).await, Err(StoreError::Conflict(_))));
    let mobile = store.consumer("mobile").await.unwrap().unwrap();
    assert_eq!((mobile.groups, mobile.plan.as_deref()), (groups, Some("standard")));
    assert!(store.change_consumer("mobile", Some(&["free".to_owned()]), Some(None)).await.unwrap());
    assert!(!store.change_consumer("nobody", Some(&[]), None).await.unwrap());
    let mobile = store.consumer("mobile").await.unwrap().unwrap();
    assert_eq!((mobile.groups, mobile.plan), (vec!["free".to_owned()], None));

    store.attach_subject("local", "alice", "mobile").await.unwrap();
    store.attach_subject("local", "alice", "mobile").await.unwrap();
    let other = store.attach_subject("local", "alice", "web").await.unwrap_err();
    assert_eq!(other, StoreError::Conflict("local:alice is another consumer's".to_owned()));
    assert!(!store.detach_subject("local", "alice", "web").await.unwrap());
    assert!(store.detach_subject("local", "alice", "mobile").await.unwrap());
    store.attach_subject("local", "alice", "web").await.unwrap();
    store.attach_subject("local", "carol", "mobile").await.unwrap();
    assert_eq!(store.subjects_of("mobile").await.unwrap().len(), 1);

    let since = store.last_change().await.unwrap();
    let key = |id, consumer, hash, expires_at| NewKey { id, consumer, hash, expires_at, plan: None };
    let (h1, h2, h3) = (hash(1), hash(2), hash(3));
    store.add_key(&key("ew_1", "mobile", &h1, None), NOW).await.unwrap();
    let twice = store.add_key(&key("ew_2", "mobile", &h1, None), NOW).await;
    assert!(matches!(twice, Err(StoreError::Conflict(_))), "{twice:?}");
    assert!(
        store.replace_key("ew_1", &key("ew_2", "mobile", &h2, Some(NOW + 900)), NOW + 60, NOW).await.unwrap()
    );
    assert_eq!(store.key("ew_1").await.unwrap().unwrap().expires_at, Some(NOW + 60));
    let gone =
        store.replace_key("ew_1", &key("ew_3", "mobile", &h3, None), NOW + 90, NOW + 61).await.unwrap();
    assert!(!gone && store.key("ew_3").await.unwrap().is_none(), "an expired key is not replaced");
    assert!(store.revoke_key("ew_1", NOW).await.unwrap() && !store.revoke_key("ew_1", NOW).await.unwrap());
    assert_eq!(store.keys(Some("mobile"), 0, 10).await.unwrap().len(), 2);
    assert_eq!(store.keys(None, 1, 10).await.unwrap().len(), 1);
    assert!(store.keys(Some("web"), 0, 10).await.unwrap().is_empty());

    // Use is recorded, forward only, and is no change.
    let last = store.last_change().await.unwrap();
    store.keys_used(&[("ew_2".into(), NOW + 5), ("ew_9".into(), NOW)]).await.unwrap();
    store.keys_used(&[("ew_2".into(), NOW + 4)]).await.unwrap();
    assert_eq!(store.key("ew_2").await.unwrap().unwrap().last_used, Some(NOW + 5));
    assert_eq!(store.last_change().await.unwrap(), last);

    // A plan of its own is a change; one that was revoked gets none.
    assert!(store.change_key_plan("ew_2", Some("gold")).await.unwrap());
    assert!(!store.change_key_plan("ew_1", Some("gold")).await.unwrap());
    assert_eq!(store.key("ew_2").await.unwrap().unwrap().plan.as_deref(), Some("gold"));
    assert_eq!(store.key("ew_1").await.unwrap().unwrap().plan, None);

    let changed = all_changes(store, since).await;
    let ids: Vec<_> = changed.keys.iter().map(|row| (row.id.as_str(), row.revoked_at)).collect();
    assert_eq!(ids, [("ew_1", Some(NOW)), ("ew_2", None)]);
    assert!(changed.consumers.is_empty() && changed.subjects.is_empty());

    // A consumer that goes takes along all it could show.
    store.add_key(&key("ew_4", "mobile", &hash(4), None), NOW).await.unwrap();
    store.attach_subject("local", "dave", "mobile").await.unwrap();
    store.revoke_subject("local", "dave", NOW - 5, NOW + 900).await.unwrap();
    // What was revoked beyond this moment stays revoked.
    store.attach_subject("local", "erin", "mobile").await.unwrap();
    store.revoke_subject("local", "erin", NOW + 5, NOW + 100).await.unwrap();
    let since = store.last_change().await.unwrap();
    assert!(store.remove_consumer("mobile", NOW, NOW + 500).await.unwrap());
    assert!(!store.remove_consumer("mobile", NOW, NOW + 500).await.unwrap());
    assert_eq!(store.consumer("mobile").await.unwrap(), None);
    let changed = all_changes(store, since).await;
    assert!(changed.consumers.iter().all(|row| row.removed && row.name == "mobile"));
    let numbers: Vec<_> = changed.keys.iter().map(|row| (row.id.as_str(), row.revoked_at)).collect();
    assert_eq!(numbers, [("ew_2", Some(NOW)), ("ew_4", Some(NOW))]);
    assert_eq!(
        changed.subjects.iter().map(|row| row.consumer.clone()).collect::<Vec<_>>(),
        [None, None, None]
    );
    let revoked: Vec<_> = changed
        .revocations
        .iter()
        .map(|row| (row.what, row.value.as_str(), row.issued_before, row.kept_until))
        .collect();
    let subject = |value, before, kept_until| (Revoked::Subject, value, before, kept_until);
    let expected = [
        subject("carol", NOW, NOW + 500),
        subject("dave", NOW, NOW + 900),
        subject("erin", NOW + 5, NOW + 500),
    ];
    assert_eq!(revoked, expected);
    assert_eq!(changed.upto, since + 5, "both kinds share their numbers; the second attempt took one");
    // Its name may be given again, without what it had.
    store.add_consumer("mobile", &[], None, NOW).await.unwrap();
    let holding = store.keys(Some("mobile"), 0, 10).await.unwrap();
    assert!(holding.iter().all(|key| key.revoked_at.is_some()));
    let names: Vec<_> = store.consumers("", 10).await.unwrap().into_iter().map(|row| row.name).collect();
    assert_eq!(names, ["mobile"]);
}

async fn revocations(store: &Store) {
    store.revoke_token("t1", "local", NOW + 10).await.unwrap();
    store.revoke_subject("", "alice", NOW, NOW + 10).await.unwrap();
    // It never revokes less than before.
    store.revoke_subject("", "alice", NOW - 5, NOW + 20).await.unwrap();
    let all = all_changes(store, 0).await.revocations;
    let row = |what, provider: &str, value: &str, issued_before, kept_until, changed| RevocationRow {
        what,
        provider: provider.to_owned(),
        value: value.to_owned(),
        issued_before,
        kept_until,
        changed,
    };
    assert_eq!(
        all,
        [
            row(Revoked::Token, "local", "t1", i64::MAX, NOW + 10, 1),
            row(Revoked::Subject, "", "alice", NOW, NOW + 20, 3),
        ]
    );
    let tokens = Some(Issued { provider: "local", kept_until: NOW + 30 });
    store.add_user(&user_called("bob"), NOW).await.unwrap();
    assert!(store.change_user("bob", &UserChange::Roles(vec![]), tokens, NOW).await.unwrap());
    assert!(store.change_user("bob", &UserChange::Disabled(false), tokens, NOW).await.unwrap());
    assert!(!store.change_user("nobody", &UserChange::Removed, tokens, NOW).await.unwrap());
    let new: Vec<_> = all_changes(store, 3).await.revocations;
    assert_eq!(new.len(), 1, "{new:?}");
    assert_eq!((new[0].value.as_str(), new[0].issued_before), ("bob", NOW));
    // A day after the end.
    assert_eq!(store.forget(NOW + 30).await.unwrap(), 0);
    assert_eq!(store.forget(NOW + 24 * 3600 + 15).await.unwrap(), 1);
}

/// Writers at once: each change gets a number of its own, and a reader that goes by them misses none.
async fn readers_miss_nothing(store: &Store) {
    let write = async |writer: u32| {
        for number in 0..15 {
            store.revoke_token(&format!("{writer}-{number}"), "local", NOW).await.unwrap();
        }
    };
    let read = async {
        let (mut since, mut seen) = (0, std::collections::BTreeSet::new());
        while seen.len() < 60 {
            let changed = all_changes(store, since).await;
            since = changed.upto;
            seen.extend(changed.revocations.into_iter().map(|row| row.value));
        }
    };
    let all = async { tokio::join!(read, write(1), write(2), write(3), write(4)) };
    tokio::time::timeout(Duration::from_secs(60), all).await.expect("the reader sees all of them");
    assert_eq!(store.last_change().await.unwrap(), 60);
}

/// More than a page, and the order of numbers across kinds.
async fn pages(store: &Store) {
    on_raw(
        store,
        "INSERT INTO edgeward_revocations (kind, provider, value, issued_before, kept_until, changed) \
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 12000) \
        SELECT 'token', 'local', CAST(i AS TEXT), 0, 4000000000, i FROM n",
    )
    .await;
    on_raw(store, "UPDATE edgeward_state SET value = 12000").await;
    store.add_consumer("late", &[], None, NOW).await.unwrap();
    let all = all_changes(store, 0).await;
    assert_eq!((all.revocations.len(), all.consumers.len(), all.upto), (12_000, 1, 12_001));
}

async fn on_raw(store: &Store, sql: &'static str) {
    match store.0.pools.get().unwrap() {
        Pools::Sqlite(pool) => drop(sqlx::query(sql).execute(pool).await.unwrap()),
        Pools::Postgres(pool) => drop(sqlx::query(sql).execute(pool).await.unwrap()),
    }
}

/// Whoever watches hears of another process's change.
async fn watchers_hear(store: &Store, other: &Store) {
    let mut watch = store.watch();
    watch.next().await;
    let before = store.last_change().await.unwrap();
    other.revoke_token("x", "local", NOW).await.unwrap();
    let began = clock::now();
    while store.last_change().await.unwrap() == before {
        watch.next().await;
    }
    assert!(clock::now() - began < Duration::from_secs(1));
}

/// Every part on a store of its own.
async fn suite(mut fresh: impl FnMut() -> StoreUrl) {
    let store = async |url: StoreUrl| {
        let store = Store::new(url);
        store.connect().await.unwrap();
        store
    };
    Box::pin(users(&store(fresh()).await)).await;
    Box::pin(refresh_tokens(&store(fresh()).await)).await;
    Box::pin(consumers_and_keys(&store(fresh()).await)).await;
    Box::pin(revocations(&store(fresh()).await)).await;
    Box::pin(readers_miss_nothing(&store(fresh()).await)).await;
    Box::pin(pages(&store(fresh()).await)).await;
    Box::pin(usage(&store(fresh()).await)).await;
    let url = fresh();
    Box::pin(services(&store(url.clone()).await, &store(url).await)).await;
    let url = fresh();
    Box::pin(watchers_hear(&store(url.clone()).await, &store(url).await)).await;
    Box::pin(migrations(fresh())).await;
}

/// Runs SQL that is not the store's own.
async fn behind_its_back(store: &Store, sql: &'static str) {
    match store.0.pools.get().unwrap() {
        Pools::Sqlite(pool) => drop(sqlx::raw_sql(sql).execute(pool).await.unwrap()),
        Pools::Postgres(pool) => drop(sqlx::raw_sql(sql).execute(pool).await.unwrap()),
    }
}

async fn services(store: &Store, other: &Store) {
    let row = |name: &str, created_at| ServiceRow {
        name: name.to_owned(),
        path: format!("/{name}"),
        methods: "[]".to_owned(),
        hosts: "[]".to_owned(),
        endpoints: "[{}]".to_owned(),
        roles: "[\"a\"]".to_owned(),
        enabled: true,
        created_at,
        changed_at: created_at,
    };
    let names = async |store: &Store| -> Vec<String> {
        store.services().await.unwrap().rows.into_iter().map(|row| row.name).collect()
    };
    let none = store.services().await.unwrap();
    assert!(none.rows.is_empty() && none.number == store.services_number().await.unwrap());
    assert!(store.put_service(&row("b", 2), none.number).await.unwrap());
    assert!(!store.put_service(&row("c", 3), none.number).await.unwrap(), "others have changed meanwhile");
    let one = other.services().await.unwrap();
    assert_eq!((one.rows.as_slice(), one.number > none.number), (&[row("b", 2)][..], true));
    assert!(other.put_service(&row("a", 3), one.number).await.unwrap());
    assert_eq!(names(store).await, ["b", "a"], "the oldest first");
    // One in place of another keeps its age.
    let changed = ServiceRow { path: "/x".to_owned(), enabled: false, changed_at: 9, ..row("a", 8) };
    let number = store.services_number().await.unwrap();
    assert!(store.put_service(&changed, number).await.unwrap());
    assert_eq!(store.services().await.unwrap().rows[1], ServiceRow { created_at: 3, ..changed });

    // Whoever writes is noticed, at once where the database calls out.
    let mut watch = other.watch_services();
    let mut known = other.services_number().await.unwrap();
    for sql in [
        "INSERT INTO edgeward_services (name, path, endpoints) VALUES ('z', '/z', 'x')",
        "UPDATE edgeward_services SET roles = '[]' WHERE name = 'z'",
        "DELETE FROM edgeward_services WHERE name = 'b'",
    ] {
        behind_its_back(store, sql).await;
        let hear = async {
            loop {
                watch.next().await;
                let number = other.services_number().await.unwrap();
                if number != known {
                    return number;
                }
            }
        };
        known = tokio::time::timeout(Duration::from_secs(20), hear).await.unwrap();
    }
    if let Pools::Postgres(_) = store.0.pools.get().unwrap() {
        // A table of the writer's own is not taken for the counter, with the rights of whoever made the trigger.
        behind_its_back(
            store,
            "CREATE TEMP TABLE edgeward_state (name TEXT, value BIGINT); \
            UPDATE edgeward_services SET roles = '[\"b\"]' WHERE name = 'z'; DROP TABLE pg_temp.edgeward_state",
        )
        .await;
        let before = std::mem::replace(&mut known, other.services_number().await.unwrap());
        assert!(known > before);
    }
    let all = store.services().await.unwrap();
    assert_eq!(all.rows.iter().map(|row| row.name.as_str()).collect::<Vec<_>>(), ["a", "z"]);
    let youngest = &all.rows[1];
    assert!(youngest.enabled && youngest.created_at > NOW - 1_000_000_000 && youngest.methods == "[]");
    assert_eq!(store.remove_service("z", Some(known - 1)).await.unwrap(), None);
    assert_eq!(store.remove_service("z", Some(known)).await.unwrap(), Some(true));
    assert_eq!(store.remove_service("z", None).await.unwrap(), Some(false));

    // However large and however many: what is read has a bound.
    behind_its_back(
        store,
        "INSERT INTO edgeward_services (name, path, endpoints) WITH RECURSIVE n(i) AS \
         (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10005) SELECT 's' || i, '/s', '[]' FROM n",
    )
    .await;
    let many = store.services().await.unwrap();
    assert_eq!((many.rows.len(), many.cut), (SERVICES_MAX, true));
}

async fn usage(store: &Store) {
    let delta = |owner: &'static str, more| UsageDelta {
        plan: "standard",
        kind: OwnerKind::Consumer,
        owner,
        begins: NOW - 10,
        ends: NOW + 10,
        more,
    };
    let key = UsageDelta { kind: OwnerKind::Key, ..delta("mobile", 1) };
    let since = store.last_usage().await.unwrap();
    let first = store.add_usage(&[delta("mobile", 5), delta("o'neil; --", 2), key]).await.unwrap();
    assert_eq!(first, [Some(5), Some(2), Some(1)]);
    assert_eq!(store.add_usage(&[delta("mobile", 3)]).await.unwrap(), [Some(8)]);
    // Instances at once add up, and none waits for another's rows.
    let names = ["a", "b", "c", "d"];
    let batches = (0..8).map(|turn| {
        let mut deltas: Vec<_> = names.iter().map(|name| delta(name, 1)).collect();
        deltas.rotate_left(turn % 4);
        async move { store.add_usage(&deltas).await.unwrap() }
    });
    // No more at once than there are places.
    let batches: Vec<_> = batches.collect();
    for some in batches.into_iter().map(Box::pin).collect::<Vec<_>>().chunks_mut(4) {
        futures_util::future::join_all(some.iter_mut()).await;
    }
    let last = store.last_usage().await.unwrap();
    let page = store.usage_since(since, last, NOW).await.unwrap();
    assert!(page.is_all && page.upto == last && page.unreadable == 0);
    let used = |kind, owner: &str| {
        let row = page.rows.iter().find(|row| row.kind == kind && row.owner == owner).unwrap();
        (row.used, row.begins, row.ends)
    };
    assert_eq!(used(OwnerKind::Consumer, "mobile"), (Some(8), NOW - 10, NOW + 10));
    assert_eq!(used(OwnerKind::Key, "mobile"), (Some(1), NOW - 10, NOW + 10));
    assert_eq!(used(OwnerKind::Consumer, "d"), (Some(8), NOW - 10, NOW + 10));
    assert!(store.usage_since(last, last, NOW).await.unwrap().rows.is_empty());
    assert!(store.usage_since(since, last, NOW + 10).await.unwrap().rows.is_empty(), "the period is over");
    let of = async |now| store.usage_of(OwnerKind::Consumer, "mobile", now).await.unwrap().len();
    assert_eq!((of(NOW - 11).await, of(NOW).await, of(NOW + 10).await), (0, 1, 0));
    // It is kept for a while after its end, and then it goes.
    store.forget(NOW + 30 * 86_400).await.unwrap();
    assert_eq!(of(NOW).await, 1);
    store.forget(NOW + 200 * 86_400).await.unwrap();
    assert_eq!(of(NOW).await, 0);
}

/// An older store becomes a newer one while many begin at once; an older version works on a newer one.
async fn migrations(url: StoreUrl) {
    const LATER: [Step; 2] = [
        step_of_tests(
            1_000,
            "CREATE TABLE edgeward_later (data {bytes}, n BIGINT NOT NULL); INSERT INTO edgeward_later (n) VALUES (1)",
        ),
        step_of_tests(1_001, "ALTER TABLE edgeward_users ADD COLUMN later TEXT NOT NULL DEFAULT 'x'"),
    ];
    let old = Store::new(url.clone());
    old.add_user(&user_called("alice"), NOW).await.unwrap();
    let newer = [STEPS, &LATER].concat();
    let all = (0..6).map(|_| migrate(&url, &newer));
    for migrated in futures_util::future::join_all(all).await {
        migrated.unwrap();
    }
    // Once each, and the older version goes on, also one that starts now.
    let count = "SELECT COUNT(*) FROM edgeward_later";
    let rows: i64 = match old.0.pools.get().unwrap() {
        Pools::Sqlite(pool) => sqlx::query_scalar(count).fetch_one(pool).await.unwrap(),
        Pools::Postgres(pool) => sqlx::query_scalar(count).fetch_one(pool).await.unwrap(),
    };
    assert_eq!(rows, 1);
    let another = Store::new(url.clone());
    another.add_user(&user_called("bob"), NOW).await.unwrap();
    assert_eq!(old.user("bob").await.unwrap(), Some(user_called("bob")));
    assert_eq!(another.user("alice").await.unwrap(), Some(user_called("alice")));
    // A step that fails leaves nothing of itself, and says so.
    let broken = [
        newer,
        vec![step_of_tests(
            1_002,
            "CREATE TABLE edgeward_half (n BIGINT); CREATE TABLE edgeward_half (n BIGINT)",
        )],
    ]
    .concat();
    assert!(migrate(&url, &broken).await.is_err());
    let half = [
        broken[..broken.len() - 1].to_vec(),
        vec![step_of_tests(1_002, "CREATE TABLE edgeward_half (n BIGINT)")],
    ]
    .concat();
    migrate(&url, &half).await.unwrap();
}

async fn migrate(url: &StoreUrl, steps: &[Step]) -> Result<(), sqlx::Error> {
    match url {
        StoreUrl::Sqlite(path) => migrate_sqlite(&mut connect::tests::sqlite(path).await, steps).await,
        StoreUrl::Postgres(url) => {
            migrate_postgres(&mut connect::tests::postgres(url.expose()).await, steps).await
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_suite_holds_on_sqlite() {
    let directory = tempfile::tempdir().unwrap();
    let mut number = 0;
    suite(|| {
        number += 1;
        StoreUrl::Sqlite(directory.path().join(format!("{number}/x.db")))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_suite_holds_on_postgresql() {
    let server = postgres::Postgres::start();
    suite(|| StoreUrl::parse(&server.database(), |_| panic!("it is no file")).unwrap()).await;
}

#[tokio::test]
async fn the_file_is_its_owners_alone() {
    use std::os::unix::fs::MetadataExt;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("run/x.db");
    let store = Store::new(StoreUrl::Sqlite(path.clone()));
    store.add_user(&user_called("alice"), NOW).await.unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().mode() & 0o777;
    for entry in std::fs::read_dir(directory.path().join("run")).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
    assert_eq!(mode(&directory.path().join("run")), 0o700);
}

/// What cannot be reached costs one call its time, and is used as soon as it is there.
#[tokio::test]
async fn a_store_that_is_down_is_tried_again() {
    let directory = tempfile::tempdir().unwrap();
    let in_the_way = directory.path().join("run");
    std::fs::write(&in_the_way, "a file where a directory has to be").unwrap();
    let store = Store::new(StoreUrl::Sqlite(in_the_way.join("x.db")));
    assert_eq!(store.health(), Health::Unknown);
    let StoreError::Unavailable(first) = store.user("alice").await.unwrap_err() else { panic!() };
    assert!(first.contains("x.db cannot be used"), "{first}");
    let Health::Down { since, .. } = store.health() else { panic!() };
    std::fs::remove_file(&in_the_way).unwrap();
    // Within the pause nobody tries.
    assert_eq!(store.user("alice").await.unwrap_err(), StoreError::Unavailable(first));
    let back = async {
        while store.user("alice").await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), back).await.unwrap();
    assert_eq!(store.health(), Health::Up);
    assert!(clock::now() - since >= PAUSE * 3 / 4);
}

/// Passes on what `client` and the database say, and, while `stuck` is so, nothing that the database says once it is asked
/// for the schema: an answer whose length was damaged on its way leaves the driver waiting like that.
async fn relay(client: tokio::net::TcpStream, database: std::net::SocketAddr, stuck: Arc<AtomicBool>) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let server = tokio::net::TcpStream::connect(database).await.unwrap();
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.into_split(), server.into_split());
    let is_asked = Arc::new(AtomicBool::new(false));
    let asked = is_asked.clone();
    let up = async move {
        let mut piece = [0; 4096];
        while let Ok(count @ 1..) = from_client.read(&mut piece).await {
            if String::from_utf8_lossy(&piece[..count]).contains("FROM edgeward_schema") {
                asked.store(stuck.load(Ordering::SeqCst), Ordering::SeqCst);
            }
            to_server.write_all(&piece[..count]).await.unwrap();
        }
    };
    let down = async move {
        let mut piece = [0; 4096];
        while let Ok(count @ 1..) = from_server.read(&mut piece).await {
            if !is_asked.load(Ordering::SeqCst) && to_client.write_all(&piece[..count]).await.is_err() {
                break;
            }
        }
    };
    tokio::join!(up, down);
}

/// What is stuck while the schema is looked at is given up like any call, not like a change of the schema.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_never_ends_holds_nothing_up_for_long() {
    let server = postgres::Postgres::start();
    let database = server.database();
    let url = |text: &str| StoreUrl::parse(text, |_| panic!("it is no file")).unwrap();
    Store::new(url(&database)).add_user(&user_called("alice"), NOW).await.unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let behind = server.address();
    let stuck = Arc::new(AtomicBool::new(true));
    let is_stuck = stuck.clone();
    let relays = task::spawn("relay", async move {
        while let Ok((client, _)) = listener.accept().await {
            drop(task::spawn("relay", relay(client, behind, is_stuck.clone())));
        }
    });
    let store = Store::new(url(&database.replace(&behind.to_string(), &address.to_string())));
    let StoreError::Unavailable(why) = store.user("alice").await.unwrap_err() else { panic!() };
    assert_eq!(why, "nothing within 2 s");
    stuck.store(false, Ordering::SeqCst);
    let back = async {
        while store.user("alice").await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), back).await.unwrap();
    relays.abort();
}

/// However many calls of requests wait, whoever follows changes finds a place and a connection.
#[tokio::test]
async fn changes_are_followed_when_requests_have_all_places() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::new(StoreUrl::Sqlite(directory.path().join("edgeward.db")));
    store.connect().await.unwrap();
    let held = AtomicUsize::new(0);
    let blocked = (0..CALLS_MAX).map(|_| {
        store.call(async {
            on!(store, pool => {
                let connection = pool.acquire().await?;
                held.fetch_add(1, Ordering::Relaxed);
                std::future::pending::<()>().await;
                drop(connection);
            });
            Ok(())
        })
    });
    let following = async {
        while held.load(Ordering::Relaxed) < (CONNECTIONS_MAX - CONNECTIONS_APART) as usize {
            tokio::task::yield_now().await;
        }
        assert!(matches!(store.user("alice").await, Err(StoreError::Unavailable(_))));
        store.last_change().await.unwrap();
        store.changes(0, 1).await.unwrap();
    };
    tokio::select! {
        done = futures_util::future::join_all(blocked) => panic!("{done:?}"),
        () = following => {}
    }
}

/// A server that says what no PostgreSQL says: a message that is shorter than its own length makes the driver panic.
#[tokio::test]
async fn what_makes_the_driver_panic_is_a_store_that_is_down() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(task::spawn("server", async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut said = [0; 1024];
            // No TLS here; and then nonsense.
            for answer in [&b"N"[..], b"Z\0\0\0\x01I"] {
                if client.read(&mut said).await.is_ok() {
                    drop(client.write_all(answer).await);
                }
            }
        }
    }));
    let url = format!("postgres://edge@{address}/edge");
    let store = Store::new(StoreUrl::parse(&url, |_| unreachable!("it is no file")).unwrap());
    for _ in 0..3 {
        let failure = store.user("alice").await.unwrap_err();
        assert!(matches!(failure, StoreError::Unavailable(_)), "{failure:?}");
    }
    assert!(matches!(store.health(), Health::Down { .. }));
}
