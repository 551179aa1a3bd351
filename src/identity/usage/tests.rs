//! Counting, and what is kept of it, against a store in a file.

use std::path::Path;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::base::clock;
use crate::store::{OwnerKind, Store, StoreUrl, UsageDelta};

const DAY: i64 = 86_400;
const NOON: i64 = 1_800_014_400 - 1_800_014_400 % DAY + DAY / 2;

fn quota(count: u64) -> Quota {
    Quota { count, every: Every::Day, unsaved_max: None }
}

fn of(owner: &str) -> AccountId {
    AccountId { plan: "standard".into(), owner: Owner::Known(OwnerKind::Consumer, owner.into()) }
}

/// How many of `requests` are counted to `owner` at `now`.
fn counted(ledger: &Ledger, owner: &str, quota: &Quota, now: i64, requests: u64) -> u64 {
    let account = ledger.account(of(owner));
    let count = |_: &u64| {
        let looked = account.look(quota, None, now);
        let counted = ledger.count(&account, quota, None, now);
        assert_eq!(looked, counted, "one thread: nothing comes between");
        counted.is_ok()
    };
    (0..requests).filter(count).count().try_into().unwrap()
}

#[test]
fn a_period_holds_its_number_and_the_next_begins_anew() {
    let ledger = Ledger::default();
    let quota = quota(3);
    assert_eq!(counted(&ledger, "mobile", &quota, NOON, 5), 3);
    assert_eq!(counted(&ledger, "web", &quota, NOON, 1), 1, "another owner");
    let account = ledger.account(of("mobile"));
    let Err(Full::Used(standing)) = account.look(&quota, None, NOON) else { panic!() };
    assert_eq!((standing.left, standing.span.left(NOON)), (0, DAY.unsigned_abs() / 2));
    // A raised quota counts on, a lowered one gives nothing back.
    assert_eq!(counted(&ledger, "mobile", &Quota { count: 5, ..quota }, NOON, 5), 2);
    assert_eq!(counted(&ledger, "mobile", &quota, NOON, 1), 0);
    assert_eq!(counted(&ledger, "mobile", &quota, NOON + DAY / 2 - 1, 1), 0);
    assert_eq!(counted(&ledger, "mobile", &quota, NOON + DAY / 2, 5), 3);
}

/// A clock that steps back, even to before the period, gives nobody anything; and each period its number once.
#[test]
fn a_clock_that_steps_back_gives_nothing() {
    let ledger = Ledger::default();
    assert_eq!(counted(&ledger, "mobile", &quota(3), NOON, 5), 3);
    for back in [1, DAY / 2 + 1, DAY, 400 * DAY, NOON * 2] {
        assert_eq!(counted(&ledger, "mobile", &quota(3), NOON - back, 5), 0, "{back} s back");
    }
    assert_eq!(counted(&ledger, "mobile", &quota(3), NOON + DAY, 2), 2);
    assert_eq!(counted(&ledger, "mobile", &quota(3), NOON, 5), 1, "of the next day's");
    assert_eq!(counted(&ledger, "mobile", &quota(3), NOON + DAY, 5), 0);
}

/// No more than so many are ever counted in memory alone.
#[test]
fn no_more_is_unsaved_than_may_be() {
    let ledger = Ledger::default();
    ledger.await_store();
    let quota = Quota { unsaved_max: Some(4), ..quota(100) };
    assert_eq!(counted(&ledger, "mobile", &quota, NOON, 9), 4);
    let account = ledger.account(of("mobile"));
    let Err(Full::Unsaved(standing)) = account.look(&quota, None, NOON) else { panic!() };
    assert_eq!(standing.left, 96);
    let [(span, 4)] = account.send()[..] else { panic!() };
    assert_eq!(counted(&ledger, "mobile", &quota, NOON, 9), 0, "it may not have arrived");
    account.sent(span, Some(4));
    assert_eq!(counted(&ledger, "mobile", &quota, NOON, 9), 4);
}

struct Shared(TempDir);

impl Shared {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> std::path::PathBuf {
        self.0.path().join("x.db")
    }

    /// One more process on the store.
    fn instance(&self) -> (Arc<Ledger>, Bookkeeper) {
        let ledger = Arc::new(Ledger::default());
        let store = Store::new(StoreUrl::Sqlite(self.path()));
        (ledger.clone(), Bookkeeper::new(store, ledger))
    }
}

/// The day that is today, wherever in it we are: rows of other days are not read.
fn today() -> i64 {
    clock::unix_now()
}

#[tokio::test]
async fn instances_add_up_and_successors_go_on() {
    let shared = Shared::new();
    let (now, quota) = (today(), quota(10));
    let ((one, keeps_one), (two, keeps_two)) = (shared.instance(), shared.instance());
    assert!(one.is_away() && one.has_store());
    keeps_one.sync().await.unwrap();
    keeps_two.sync().await.unwrap();
    assert!(!one.is_away());
    assert_eq!(counted(&one, "mobile", &quota, now, 4), 4);
    assert_eq!(counted(&two, "mobile", &quota, now, 3), 3);
    keeps_one.sync().await.unwrap();
    keeps_two.sync().await.unwrap();
    // The second has learnt of both, the first only when it asks again.
    assert_eq!(two.account(of("mobile")).used(Every::Day, now), 7);
    assert_eq!(one.account(of("mobile")).used(Every::Day, now), 4);
    keeps_one.sync().await.unwrap();
    assert_eq!(one.account(of("mobile")).used(Every::Day, now), 7);
    assert_eq!(counted(&one, "mobile", &quota, now, 9), 3);
    keeps_one.sync().await.unwrap();
    // Whoever comes later knows before the first request.
    let (later, keeps_later) = shared.instance();
    keeps_later.sync().await.unwrap();
    assert_eq!(counted(&later, "mobile", &quota, now, 9), 0);
    assert_eq!(counted(&later, "web", &quota, now, 9), 9);
}

/// Somebody who is counted elsewhere day after day, and comes here again in the end.
#[test]
fn what_others_count_is_learnt_day_after_day() {
    let ledger = Ledger::default();
    assert_eq!(counted(&ledger, "mobile", &quota(10), NOON, 1), 1);
    for day in 1..40 {
        let now = NOON + day * DAY;
        ledger.account(of("mobile")).learn(Every::Day.around(now, None), Some(10), now);
    }
    assert_eq!(counted(&ledger, "mobile", &quota(10), NOON + 39 * DAY, 5), 0);
}

/// What cannot be written is kept, counts, and is written once.
#[tokio::test]
async fn a_store_that_is_away_loses_nothing() {
    let shared = Shared::new();
    let now = today();
    let in_the_way = shared.0.path().join("run");
    std::fs::write(&in_the_way, "a file where a directory has to be").unwrap();
    let ledger = Arc::new(Ledger::default());
    let store = Store::new(StoreUrl::Sqlite(in_the_way.join("x.db")));
    let bookkeeper = Bookkeeper::new(store.clone(), ledger.clone());
    assert_eq!(counted(&ledger, "mobile", &quota(5), now, 2), 2);
    bookkeeper.sync().await.unwrap_err();
    assert!(ledger.is_away());
    assert_eq!(counted(&ledger, "mobile", &quota(5), now, 9), 3, "bounded all the same");
    std::fs::remove_file(&in_the_way).unwrap();
    let back = async {
        while bookkeeper.sync().await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), back).await.unwrap();
    assert!(!ledger.is_away());
    let rows = store.usage_of(OwnerKind::Consumer, "mobile", now).await.unwrap();
    let [row] = &rows[..] else { panic!("{rows:?}") };
    assert_eq!((row.used, &*row.plan), (Some(5), "standard"));
}

async fn edit(path: &Path, sql: &str) {
    use sqlx::{Connection, Executor};
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
    let mut connection = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
    connection.execute(sqlx::AssertSqlSafe(sql.to_owned())).await.unwrap();
    connection.close().await.unwrap();
}

/// No row that somebody edited by hand lets anybody pass, nor stops anything.
#[tokio::test]
async fn rows_edited_by_hand_give_nothing() {
    let now = today();
    for (edited, passes_here, passes_later) in [
        ("used = -1000", 0, 0),
        ("used = 9223372036854775807", 0, 0),
        ("used = 'lots'", 0, 0),
        ("used = x'00ff'", 0, 0),
        ("used = 1.5", 0, 0),
        // Less than is known: here it does not count, and another process knows no better. More counts at once.
        ("used = 0", 6, 9),
        ("used = 9", 0, 0),
        // Of another period, or nobody's: the row is not there any more, and comes back with what is counted next.
        ("begins = begins - 1", 6, 9),
        ("ends = 'never'", 6, 9),
        ("kind = 'nobody'", 6, 9),
        ("owner = 'somebody else'", 6, 9),
        ("owner = x'ff'", 6, 9),
    ] {
        let shared = Shared::new();
        let ((here, keeps_here), (later, keeps_later)) = (shared.instance(), shared.instance());
        keeps_here.sync().await.unwrap();
        assert_eq!(counted(&here, "mobile", &quota(10), now, 3), 3);
        keeps_here.sync().await.unwrap();
        edit(&shared.path(), &format!("UPDATE edgeward_usage SET {edited}")).await;
        // Written to once more, which reads it as well.
        let before = counted(&here, "mobile", &quota(10), now, 1);
        keeps_here.sync().await.unwrap();
        keeps_later.sync().await.unwrap();
        assert_eq!(before, 1, "{edited}");
        assert_eq!(counted(&here, "mobile", &quota(10), now, 20), passes_here, "{edited}");
        assert_eq!(counted(&later, "mobile", &quota(10), now, 20), passes_later, "{edited}");
    }
}

/// A store with more rows than are read at once.
#[tokio::test]
async fn all_rows_are_read() {
    let shared = Shared::new();
    let (ledger, bookkeeper) = shared.instance();
    let now = today();
    let store = Store::new(StoreUrl::Sqlite(shared.path()));
    let span = Every::Day.around(now, None);
    let names: Vec<String> = (0..6_000).map(|number| format!("c{number}")).collect();
    for names in names.chunks(BATCH) {
        let deltas: Vec<_> = names
            .iter()
            .map(|owner| UsageDelta {
                plan: "standard",
                kind: OwnerKind::Consumer,
                owner,
                begins: span.begins,
                ends: span.ends,
                more: 10,
            })
            .collect();
        store.add_usage(&deltas).await.unwrap();
    }
    bookkeeper.sync().await.unwrap();
    for name in &names {
        assert_eq!(counted(&ledger, name, &quota(11), now, 9), 1, "{name}");
    }
}

const BATCH: usize = 499;

/// What is over and written is forgotten; what is not, or is held, stays.
#[test]
fn memory_is_given_back() {
    let ledger = Ledger::default();
    let held = ledger.account(of("held"));
    let size = || ledger.shards.iter().map(|shard| shard.lock().len()).sum::<usize>();
    for number in 0..1_000 {
        counted(&ledger, &format!("c{number}"), &quota(1), NOON, 1);
    }
    (0..SHARDS).for_each(|_| ledger.tidy(NOON));
    assert_eq!(size(), 1_001);
    (0..SHARDS).for_each(|_| ledger.tidy(NOON + DAY));
    assert_eq!(size(), 1);
    assert!(Arc::ptr_eq(&held, &ledger.account(of("held"))));
    ledger.await_store();
    counted(&ledger, "unsaved", &quota(1), NOON, 1);
    ledger.queue.lock().clear();
    (0..SHARDS).for_each(|_| ledger.tidy(NOON + DAY));
    assert_eq!(size(), 2, "it was not written yet");
}

/// Addresses without end share an account from some point on.
#[test]
fn strangers_are_bounded() {
    let ledger = Ledger::default();
    let address =
        |n: usize| AccountId { plan: "standard".into(), owner: Owner::Address(n.to_string().into()) };
    let accounts: Vec<_> = (0..ADDRESSES_MAX + 10).map(|n| ledger.account(address(n))).collect();
    let [.., one, two] = &accounts[..] else { panic!() };
    assert!(Arc::ptr_eq(one, two));
    assert!(!Arc::ptr_eq(&accounts[0], two));
    // They keep nobody who is known from having one.
    assert!(!Arc::ptr_eq(&ledger.account(of("mobile")), two));
}

#[derive(Debug, Clone, Copy)]
enum Step {
    /// An instance gets so many requests.
    Requests(usize, u64),
    /// It takes what is to be written.
    Send(usize),
    /// The store takes it, or refuses it, or takes it and the answer is lost.
    Arrives(usize),
    Refused(usize),
    /// It hears what the store has.
    Hears(usize),
    /// It is killed, and another one begins with what the store has.
    Killed(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let which = 0..3_usize;
    prop_oneof![
        (which.clone(), 1..20_u64).prop_map(|(which, number)| Step::Requests(which, number)),
        which.clone().prop_map(Step::Send),
        which.clone().prop_map(Step::Arrives),
        which.clone().prop_map(Step::Refused),
        which.clone().prop_map(Step::Hears),
        which.prop_map(Step::Killed),
    ]
}

proptest! {
    /// However instances count, write, fail to write, hear of each other and are killed: the store comes to have what
    /// passed, less what killed ones had not written; and nobody passes who knows that the quota is used up.
    #[test]
    fn usage_merges(steps in proptest::collection::vec(step(), 1..80)) {
        let quota = quota(50);
        let new = || { let ledger = Ledger::default(); ledger.await_store(); ledger };
        let mut instances = [new(), new(), new()];
        let (mut total, mut passed, mut lost) = (0_u64, 0_u64, 0_u64);
        let mut in_flight: [Option<(Span, u64)>; 3] = [None; 3];
        for step in steps {
            match step {
                Step::Requests(at, number) => {
                    let account = instances[at].account(of("mobile"));
                    let before = account.used(Every::Day, NOON);
                    let here = counted(&instances[at], "mobile", &quota, NOON, number);
                    prop_assert_eq!(here, number.min(50_u64.saturating_sub(before)));
                    passed += here;
                }
                Step::Send(at) if in_flight[at].is_none() => {
                    in_flight[at] = instances[at].account(of("mobile")).send().first().copied();
                }
                Step::Arrives(at) => {
                    if let Some((span, more)) = in_flight[at].take() {
                        total += more;
                        instances[at].account(of("mobile")).sent(span, Some(total));
                    }
                }
                Step::Refused(at) => {
                    if in_flight[at].take().is_some() {
                        instances[at].account(of("mobile")).unsent();
                    }
                }
                Step::Hears(at) if in_flight[at].is_none() => {
                    let span = Every::Day.around(NOON, None);
                    instances[at].account(of("mobile")).learn(span, Some(total), NOON);
                }
                Step::Killed(at) => {
                    let account = instances[at].account(of("mobile"));
                    in_flight[at] = None;
                    account.unsent();
                    lost += account.send().iter().map(|(_, more)| more).sum::<u64>();
                    instances[at] = new();
                    instances[at].account(of("mobile")).learn(Every::Day.around(NOON, None), Some(total), NOON);
                }
                Step::Send(_) | Step::Hears(_) => {}
            }
        }
        for (at, sent) in in_flight.into_iter().enumerate() {
            if sent.is_some() {
                instances[at].account(of("mobile")).unsent();
            }
            total += instances[at].account(of("mobile")).send().iter().map(|(_, more)| more).sum::<u64>();
        }
        prop_assert_eq!(total, passed - lost);
    }
}
