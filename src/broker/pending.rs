//! Who waits for what: calls by their correlation id, each for one answer.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::failure::Failure;
use super::id::Id;
use super::message::Reply;

/// What a call comes to: a reply, or nothing but that the message was taken.
pub(super) type Outcome = Result<Option<Reply>, Failure>;

/// The calls that wait. As large as there are places ([`super::Broker`] gives them out).
#[derive(Debug, Default)]
pub(super) struct Pending {
    calls: Mutex<HashMap<Id, Call, foldhash::fast::RandomState>>,
}

#[derive(Debug)]
struct Call {
    waiting: oneshot::Sender<Outcome>,
    /// Whether its message was given to the broker.
    sent: bool,
}

impl Pending {
    /// Waits for what comes under `id`, which was never used before.
    pub(super) fn wait(self: &Arc<Self>, id: Id) -> Waiting {
        let (waiting, outcome) = oneshot::channel();
        self.calls.lock().insert(id, Call { waiting, sent: false });
        Waiting { table: self.clone(), id, outcome }
    }

    /// The message of `id` goes to the broker now. Whether somebody still waits for it.
    pub(super) fn sending(&self, id: &Id) -> bool {
        let mut calls = self.calls.lock();
        let call = calls.get_mut(id);
        call.map(|call| call.sent = true).is_some()
    }

    /// Gives whoever waits for `id` its outcome, once. Whether there was anybody.
    pub(super) fn settle(&self, id: &Id, outcome: Outcome) -> bool {
        let call = self.calls.lock().remove(id);
        call.is_some_and(|call| call.waiting.send(outcome).is_ok())
    }

    /// Nobody gets an answer any more to what was given to the broker.
    pub(super) fn fail_sent(&self, failure: Failure) {
        self.fail(failure, |call| call.sent);
    }

    /// Nobody gets an answer any more.
    pub(super) fn fail_all(&self, failure: Failure) {
        self.fail(failure, |_| true);
    }

    fn fail(&self, failure: Failure, which: impl Fn(&Call) -> bool) {
        for (_, call) in self.calls.lock().extract_if(|_, call| which(call)) {
            // It may have gone meanwhile.
            drop(call.waiting.send(Err(failure)));
        }
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.calls.lock().len()
    }
}

/// A call that waits. Dropped, it waits no more: what comes for it is late.
#[derive(Debug)]
pub(super) struct Waiting {
    table: Arc<Pending>,
    id: Id,
    outcome: oneshot::Receiver<Outcome>,
}

impl Waiting {
    /// Its outcome.
    pub(super) async fn outcome(&mut self) -> Outcome {
        // Nobody is left to give one only where the process ends.
        (&mut self.outcome).await.unwrap_or(Err(Failure::Lost))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.table.calls.lock().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use proptest::prelude::*;

    use super::*;
    use crate::broker::id::Ids;

    fn reply(text: &str) -> Outcome {
        Ok(Some(Reply { body: text.to_owned().into() }))
    }

    #[test]
    fn each_gets_its_own_and_only_once() {
        let (ids, table) = (Ids::new().unwrap(), Arc::new(Pending::default()));
        let (one, two) = (ids.next(), ids.next());
        let (mut first, mut second) = (table.wait(one), table.wait(two));
        assert!(table.settle(&two, reply("two")));
        assert!(!table.settle(&two, reply("again")), "a duplicate finds nobody");
        assert!(table.settle(&one, reply("one")));
        assert_eq!(first.outcome().now_or_never().unwrap(), reply("one"));
        assert_eq!(second.outcome().now_or_never().unwrap(), reply("two"));
        assert!(!table.settle(&ids.next(), reply("nobody's")));
        assert_eq!(table.len(), 0);
    }

    #[test]
    fn who_goes_leaves_nothing_behind() {
        let (ids, table) = (Ids::new().unwrap(), Arc::new(Pending::default()));
        let id = ids.next();
        drop(table.wait(id));
        assert_eq!(table.len(), 0);
        assert!(!table.sending(&id));
        assert!(!table.settle(&id, reply("late")));
    }

    #[test]
    fn what_was_sent_fails_first() {
        let (ids, table) = (Ids::new().unwrap(), Arc::new(Pending::default()));
        let mut waiting: Vec<Waiting> = (0..10).map(|_| table.wait(ids.next())).collect();
        for call in &waiting[..7] {
            assert!(table.sending(&call.id));
        }
        table.fail_sent(Failure::Lost);
        assert_eq!(table.len(), 3);
        table.fail_all(Failure::Down);
        assert_eq!(table.len(), 0);
        for (at, call) in waiting.iter_mut().enumerate() {
            let failure = if at < 7 { Failure::Lost } else { Failure::Down };
            assert_eq!(call.outcome().now_or_never().unwrap(), Err(failure));
        }
    }

    proptest! {
        /// Calls come, go, and are answered in any order, some twice, some late: nobody ever gets another's answer, and
        /// the table holds those who wait and no more.
        #[test]
        fn no_answer_goes_to_another(steps in prop::collection::vec((0..3u8, any::<prop::sample::Index>()), 1..200)) {
            let (ids, table) = (Ids::new().unwrap(), Arc::new(Pending::default()));
            let mut known: Vec<(Id, Option<Waiting>, bool)> = Vec::new();
            for (what, which) in steps {
                match what {
                    0 => {
                        let id = ids.next();
                        known.push((id, Some(table.wait(id)), false));
                    }
                    1 if !known.is_empty() => {
                        let at = which.index(known.len());
                        let (id, waiting, answered) = &mut known[at];
                        let expected = waiting.is_some() && !*answered;
                        prop_assert_eq!(table.settle(id, reply(&id.to_string())), expected);
                        *answered = true;
                    }
                    2 if !known.is_empty() => {
                        let at = which.index(known.len());
                        known[at].1 = None;
                    }
                    _ => {}
                }
                let waiting = known.iter().filter(|(_, waiting, answered)| waiting.is_some() && !answered).count();
                prop_assert_eq!(table.len(), waiting);
            }
            for (id, waiting, answered) in &mut known {
                if let (Some(waiting), true) = (waiting, *answered) {
                    prop_assert_eq!(waiting.outcome().now_or_never().unwrap(), reply(&id.to_string()));
                }
            }
        }
    }
}
