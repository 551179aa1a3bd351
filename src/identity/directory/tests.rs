use serde_json::Map;

use super::*;
use crate::base::clock;
use crate::cluster::testing::{Server, cluster, eventually, run};
use crate::identity::sync::Follower;
use crate::store::{NewKey, RevocationRow, Store, StoreUrl};

const NOW: i64 = 1_800_000_000;

fn token(provider: &str, subject: Option<&str>, id: Option<&str>, issued_at: Option<i64>) -> Token {
    Token {
        provider: provider.into(),
        subject: subject.map(Into::into),
        id: id.map(Into::into),
        issued_at,
        expires_at: Some(NOW + 600),
        roles: Box::default(),
        scopes: Box::default(),
        claims: Map::new(),
        payload: Box::default(),
        forms: Default::default(),
    }
}

fn configured(name: &str, groups: &[&str], keys: &[&str], subjects: &[(&str, &str)]) -> ConfiguredConsumer {
    let groups = groups.iter().map(|group| Box::from(*group)).collect();
    ConfiguredConsumer {
        consumer: Arc::new(Consumer { name: name.into(), groups, ..Consumer::default() }),
        keys: keys.iter().map(|key| Secret::new((*key).to_owned())).collect(),
        subjects: subjects.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect(),
    }
}

fn refused(directory: &Directory, key: &str, now: i64) -> (Reason, String) {
    let refusal = directory.key(key, now).unwrap_err();
    (refusal.reason, refusal.detail)
}

#[test]
fn what_is_configured_is_known() {
    let directory = Directory::default();
    let mobile =
        configured("mobile", &["paid"], &["key-one-of-mobile", "key-two-of-mobile"], &[("local", "alice")]);
    directory.configure(Arc::new(Configured { consumers: vec![mobile] }));
    let key = directory.key("key-two-of-mobile", NOW).unwrap();
    assert_eq!((&*key.id, &*key.consumer.name), ("mobile#1", "mobile"));
    assert_eq!(directory.consumer_of("local", "alice"), directory.consumer("mobile"));
    assert_eq!(directory.consumer_of("other", "alice"), None);
    assert_eq!(refused(&directory, "key-three", NOW), (Reason::ApiKeyInvalid, "no such API key".to_owned()));
    // The next configuration is all there is.
    directory.configure(Arc::default());
    assert!(directory.key("key-two-of-mobile", NOW).is_err() && directory.consumer("mobile").is_none());
}

#[test]
fn a_token_is_revoked_by_its_id_or_with_its_subject() {
    let directory = Directory::default();
    let mut generation = directory.subscribe();
    let is_revoked =
        |provider, subject, id, issued_at| directory.is_revoked(&token(provider, subject, id, issued_at));
    assert!(!is_revoked("a", Some("alice"), Some("t1"), Some(NOW)));
    directory.revoke_token("a", "t1", NOW + 600);
    assert!(generation.has_changed().unwrap());
    generation.mark_unchanged();
    assert!(is_revoked("a", Some("alice"), Some("t1"), Some(NOW)));
    assert!(!is_revoked("a", Some("alice"), Some("t2"), Some(NOW)));
    assert!(!is_revoked("b", Some("alice"), Some("t1"), Some(NOW)), "another provider's");
    directory.revoke_token("", "t3", NOW + 600);
    assert!(is_revoked("a", None, Some("t3"), None) && is_revoked("b", None, Some("t3"), None));

    directory.revoke_subject("a", "alice", NOW, NOW + 600);
    assert!(generation.has_changed().unwrap());
    for (issued_at, revoked) in
        [(Some(NOW - 1), true), (Some(NOW), true), (Some(NOW + 1), false), (None, true)]
    {
        assert_eq!(is_revoked("a", Some("alice"), None, issued_at), revoked, "{issued_at:?}");
    }
    assert!(!is_revoked("b", Some("alice"), None, None) && !is_revoked("a", Some("bob"), None, None));
    // A subject is not an id.
    assert!(!is_revoked("a", Some("t1"), Some("alice"), Some(NOW)));
    directory.forget(NOW + 600 + KEPT_AFTER_END);
    assert!(is_revoked("a", None, Some("t1"), None));
    directory.forget(NOW + 601 + KEPT_AFTER_END);
    assert!(!is_revoked("a", None, Some("t1"), None) && directory.facts().revoked_tokens == 0);
}

struct Scene {
    _place: tempfile::TempDir,
    store: Store,
    directory: Arc<Directory>,
    follower: Arc<Follower>,
}

fn scene() -> Scene {
    let place = tempfile::tempdir().unwrap();
    let store = Store::new(StoreUrl::Sqlite(place.path().join("x.db")));
    let directory = Arc::new(Directory::default());
    let follower = Arc::new(Follower::new(store.clone(), directory.clone()));
    Scene { _place: place, store, directory, follower }
}

#[tokio::test]
async fn the_store_is_followed() {
    let Scene { store, directory, follower, _place } = scene();
    // Before the store was read nobody knows; afterwards everybody does.
    assert_eq!(refused(&directory, "ew_a_key", NOW).0, Reason::StoreUnavailable);
    follower.catch_up().await.unwrap();
    assert_eq!(refused(&directory, "ew_a_key", NOW).0, Reason::ApiKeyInvalid);

    store.add_consumer("mobile", &["paid".to_owned()], Some("standard"), NOW).await.unwrap();
    store.attach_subject("local", "alice", "mobile").await.unwrap();
    let hash = hash_key("ew_a_key");
    let new = NewKey { id: "ew_a", consumer: "mobile", hash: &hash, expires_at: Some(NOW + 60), plan: None };
    store.add_key(&new, NOW).await.unwrap();
    assert!(directory.key("ew_a_key", NOW).is_err());
    follower.catch_up().await.unwrap();
    let key = directory.key("ew_a_key", NOW).unwrap();
    assert_eq!((&*key.id, &*key.consumer.groups), ("ew_a", &["paid".into()][..]));
    assert_eq!(directory.consumer_of("local", "alice").unwrap().plan.as_deref(), Some("standard"));
    let expired = refused(&directory, "ew_a_key", NOW + 60);
    assert_eq!(expired, (Reason::ApiKeyInvalid, "the API key ew_a expired 0 s ago".to_owned()));

    // Its use is told to the store once, and not again before long.
    assert_eq!(directory.take_used(), [("ew_a".into(), NOW)]);
    directory.give_back_used(&[("ew_a".into(), NOW)]);
    directory.key("ew_a_key", NOW + 1).unwrap();
    follower.record_uses().await;
    assert_eq!(store.key("ew_a").await.unwrap().unwrap().last_used, Some(NOW));
    assert!(directory.take_used().is_empty());
    directory.key("ew_a_key", NOW + 31).unwrap();
    assert_eq!(directory.take_used(), [("ew_a".into(), NOW + 31)]);

    // Its end is brought forward, as rotating does.
    assert_eq!(directory.end_of(&key), Some(NOW + 60));
    let hash = hash_key("ew_b_key");
    let new = NewKey { id: "ew_b", consumer: "mobile", hash: &hash, expires_at: None, plan: None };
    assert!(store.replace_key("ew_a", &new, NOW + 20, NOW).await.unwrap());
    follower.catch_up().await.unwrap();
    assert_eq!(directory.end_of(&key), Some(NOW + 20));

    // Groups change for keys that are there.
    store.change_consumer("mobile", Some(&["free".to_owned()]), None).await.unwrap();
    follower.catch_up().await.unwrap();
    assert_eq!(&*directory.key("ew_a_key", NOW).unwrap().consumer.groups, &[Box::<str>::from("free")][..]);
    store.revoke_key("ew_a", NOW).await.unwrap();
    follower.catch_up().await.unwrap();
    assert_eq!(refused(&directory, "ew_a_key", NOW + 5).1, "the API key ew_a was revoked 5 s ago");
    assert_eq!(directory.end_of(&key), None);

    store.revoke_token("t1", "local", clock::unix_now() + 600).await.unwrap();
    assert!(store.remove_consumer("mobile", NOW, clock::unix_now() + 600).await.unwrap());
    follower.catch_up().await.unwrap();
    assert!(directory.is_revoked(&token("local", None, Some("t1"), Some(NOW))));
    assert!(directory.is_revoked(&token("local", Some("alice"), None, Some(NOW))));
    assert_eq!((directory.consumer("mobile"), directory.consumer_of("local", "alice")), (None, None));
}

#[tokio::test]
async fn the_configuration_stands_before_the_store() {
    let Scene { store, directory, follower, _place } = scene();
    let theirs = configured("mobile", &["configured"], &["a key of the file"], &[("local", "alice")]);
    directory.configure(Arc::new(Configured { consumers: vec![theirs] }));
    // Configured keys hold whether or not the store was read.
    assert!(directory.key("a key of the file", NOW).is_ok());
    store.add_consumer("mobile", &["stored".to_owned()], None, NOW).await.unwrap();
    store.add_consumer("web", &["stored".to_owned()], None, NOW).await.unwrap();
    store.attach_subject("local", "alice", "web").await.unwrap();
    let hash = hash_key("ew_a_key");
    store
        .add_key(&NewKey { id: "ew_a", consumer: "mobile", hash: &hash, expires_at: None, plan: None }, NOW)
        .await
        .unwrap();
    follower.catch_up().await.unwrap();
    for key in ["ew_a_key", "a key of the file"] {
        assert_eq!(&*directory.key(key, NOW).unwrap().consumer.groups, &[Box::<str>::from("configured")][..]);
    }
    assert_eq!(&*directory.consumer_of("local", "alice").unwrap().name, "mobile");
    assert_eq!(directory.facts().clashes, [Arc::<str>::from("mobile")]);
    // When it goes from the file, the store's appears.
    directory.configure(Arc::default());
    assert_eq!(&*directory.key("ew_a_key", NOW).unwrap().consumer.groups, &[Box::<str>::from("stored")][..]);
    assert_eq!(&*directory.consumer_of("local", "alice").unwrap().name, "web");
    // A key whose consumer nobody knows holds for nobody.
    let hash = hash_key("ew_b_key");
    store
        .add_key(&NewKey { id: "ew_b", consumer: "nobody", hash: &hash, expires_at: None, plan: None }, NOW)
        .await
        .unwrap();
    follower.catch_up().await.unwrap();
    assert_eq!(refused(&directory, "ew_b_key", NOW).1, "the consumer of the API key ew_b is not there");
}

/// The file was replaced by an older one while the process ran.
#[tokio::test]
async fn an_older_store_is_read_anew() {
    let Scene { store, directory, follower, _place } = scene();
    store.add_consumer("old", &[], None, NOW).await.unwrap();
    store.add_consumer("new", &[], None, NOW).await.unwrap();
    store.revoke_token("t1", "local", clock::unix_now() + 600).await.unwrap();
    follower.catch_up().await.unwrap();
    let older = Store::new(StoreUrl::Sqlite(_place.path().join("older.db")));
    older.add_consumer("old", &[], None, NOW).await.unwrap();
    let follower = follower.of_another_store(older).await;
    follower.catch_up().await.unwrap();
    assert!(directory.consumer("old").is_some() && directory.consumer("new").is_none());
    assert!(directory.is_revoked(&token("local", None, Some("t1"), None)), "what was revoked stays so");
}

/// What is revoked at one instance, or put into its store by a command, is revoked at the others.
#[test]
fn instances_hear_of_each_others_revocations() {
    let server = Server::start();
    run(async {
        let mut instances = Vec::new();
        for _ in 0..2 {
            let (directory, cluster) = (Arc::new(Directory::default()), cluster(server.settings()));
            directory.share(cluster.revocations().clone());
            let hearing = directory.clone();
            cluster.start(Arc::new(move |revocation| hearing.hear(revocation)));
            eventually("it hears", || cluster.revocations().is_heard()).await;
            instances.push((directory, cluster));
        }
        let [(one, _), (two, _)] = instances.as_slice() else { panic!("{} instances", instances.len()) };
        let until = clock::unix_now() + 600;
        let stolen = token("local", Some("alice"), Some("a"), Some(until));
        let (early, late) =
            (token("local", Some("bob"), None, Some(NOW)), token("local", Some("bob"), None, Some(NOW + 1)));
        let written = token("local", None, Some("w"), None);
        let mut changes = two.subscribe();
        one.revoke_token("local", "a", until);
        one.revoke_subject("local", "bob", NOW, until);
        assert!(one.is_revoked(&stolen) && one.is_revoked(&early) && !one.is_revoked(&late));
        eventually("the other knows", || two.is_revoked(&stolen) && two.is_revoked(&early)).await;
        assert!(!two.is_revoked(&late) && changes.has_changed().unwrap());
        changes.mark_unchanged();
        let row = |what, value: &str, changed| RevocationRow {
            what,
            provider: "local".to_owned(),
            value: value.to_owned(),
            issued_before: i64::MAX,
            kept_until: until,
            changed,
        };
        // Its store is its own: the other hears of it here alone.
        let revocations = vec![row(Revoked::Token, "w", 1), row(Revoked::Token, "a", 2)];
        two.apply(Changes { upto: 2, revocations, ..Changes::default() }, true, clock::unix_now());
        eventually("the first knows, too", || one.is_revoked(&written)).await;
        // And what everybody knows already is not told again.
        assert_eq!(server.ask::<usize>(&["XLEN", "test:revocations"]), 3);
    });
}

/// Keys and consumers that end in the store of one instance end at others, whose stores know nothing of that.
#[test]
fn keys_and_consumers_end_at_other_instances() {
    let server = Server::start();
    run(async {
        let now = clock::unix_now();
        let mut instances = Vec::new();
        for _ in 0..2 {
            let (scene, cluster) = (scene(), cluster(server.settings()));
            for consumer in ["partner", "other"] {
                scene.store.add_consumer(consumer, &[], None, now).await.unwrap();
            }
            for (id, consumer) in
                [("ew_a", "partner"), ("ew_b", "partner"), ("ew_c", "other"), ("ew_d", "other")]
            {
                let hash = hash_key(&format!("{id}_key"));
                let new = NewKey { id, consumer, hash: &hash, expires_at: None, plan: None };
                scene.store.add_key(&new, now).await.unwrap();
            }
            scene.follower.catch_up().await.unwrap();
            scene.directory.share(cluster.revocations().clone());
            let hearing = scene.directory.clone();
            cluster.start(Arc::new(move |revocation| hearing.hear(revocation)));
            eventually("it hears", || cluster.revocations().is_heard()).await;
            instances.push((scene, cluster));
        }
        let [(one, _), (two, _)] = instances.as_slice() else { panic!("{} instances", instances.len()) };
        let mut changes = two.directory.subscribe();
        let (held, going) =
            (two.directory.key("ew_b_key", now).unwrap(), two.directory.key("ew_c_key", now).unwrap());

        assert!(one.store.revoke_key("ew_a", now).await.unwrap());
        one.follower.catch_up().await.unwrap();
        eventually("the key is revoked", || two.directory.key("ew_a_key", now).is_err()).await;
        assert!(refused(&two.directory, "ew_a_key", now).1.contains("another instance says"));
        assert!(changes.has_changed().unwrap());

        // One that was replaced holds for its overlap.
        let hash = hash_key("ew_e_key");
        let new = NewKey { id: "ew_e", consumer: "partner", hash: &hash, expires_at: None, plan: None };
        assert!(one.store.replace_key("ew_b", &new, now + 20, now).await.unwrap());
        one.follower.catch_up().await.unwrap();
        eventually("its end is brought forward", || two.directory.end_of(&held) == Some(now + 20)).await;
        assert!(
            two.directory.key("ew_b_key", now + 19).is_ok()
                && two.directory.key("ew_b_key", now + 20).is_err()
        );

        changes.mark_unchanged();
        assert!(one.store.remove_consumer("other", now, now + 600).await.unwrap());
        one.follower.catch_up().await.unwrap();
        eventually("the consumer is gone", || two.directory.consumer("other").is_none()).await;
        eventually("and its keys", || two.directory.end_of(&going).is_none()).await;
        assert!(two.directory.key("ew_d_key", now).is_err() && changes.has_changed().unwrap());
        assert!(two.directory.consumer("partner").is_some());

        // Two keys of the removed consumer, and one each. Hearing of it is no reason to tell it.
        let told = || server.ask::<usize>(&["XLEN", "test:revocations"]);
        assert_eq!(told(), 5);
        assert!(two.store.revoke_key("ew_a", now + 5).await.unwrap());
        assert!(two.store.remove_consumer("other", now, now + 600).await.unwrap());
        two.follower.catch_up().await.unwrap();
        assert_eq!(told(), 5);

        // One that is added under its name, in the same second as well, is another.
        for scene in [one, two] {
            scene.store.add_consumer("other", &[], None, now).await.unwrap();
            scene.follower.catch_up().await.unwrap();
            assert!(scene.directory.consumer("other").is_some());
        }
    });
}
