//! Panics: how many there were, what the last one said, and how one ends no more than what it happens in.
//!
//! A panic is a defect, of ours or of a library. It must cost one request, one leg or one round of a background task, be
//! counted and be told, and never take the process along. Whoever runs such a piece of work runs it [`contained`] or
//! [`caught`], so that the stack unwinds to there: guards give back what they hold, and a lock is free again (no lock of
//! ours is poisoned: they are `parking_lot`'s).

use std::cell::RefCell;
use std::future::Future;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::FutureExt;

static COUNT: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// What the last one on this thread said, and where.
    static SAID: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Counts panics from now on, in the whole process. What the standard library prints of each stays as it is.
pub fn watch() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let print = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            COUNT.fetch_add(1, Ordering::Relaxed);
            // A thread that is ending has nobody left to ask.
            let keep = SAID.try_with(|said| said.try_borrow_mut().map(|mut said| *said = describe(panic)));
            drop(keep);
            print(panic);
        }));
    });
}

/// How many there were since [`watch`].
pub fn count() -> u64 {
    COUNT.load(Ordering::Relaxed)
}

/// What the last one on this thread said: while it unwinds, or right after it was caught.
pub fn said() -> String {
    let said = SAID.try_with(|said| said.try_borrow().map(|said| said.clone()).unwrap_or_default());
    said.ok().filter(|said| !said.is_empty()).unwrap_or_else(|| "it says nothing".to_owned())
}

/// Runs `work` to its end, or to a panic in it: then what that said.
pub fn contained<F: Future>(work: F) -> impl Future<Output = Result<F::Output, String>> {
    // What it leaves half done belongs to it alone, or is put right by guards.
    AssertUnwindSafe(work).catch_unwind().map(|ended| ended.map_err(|_| said()))
}

/// The same for what does not wait.
pub fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|_| said())
}

fn describe(panic: &PanicHookInfo<'_>) -> String {
    let text = panic.payload_as_str().unwrap_or("something that is no text");
    match panic.location() {
        Some(place) => format!("{text} ({}:{})", place.file(), place.line()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_contained_ends_alone() {
        watch();
        let before = count();
        let broken = contained(async { assert!(before > u64::MAX / 2, "on purpose {}", 1) });
        let said = broken.await.unwrap_err();
        assert!(said.starts_with("on purpose 1 (") && said.contains("panics.rs:"), "{said}");
        assert_eq!(contained(async { 2 }).await, Ok(2));
        let said = caught(|| Vec::<u8>::new()[0]).unwrap_err();
        assert!(said.starts_with("index out of bounds: the len is 0 but the index is 0 ("), "{said}");
        assert_eq!(caught(|| 3), Ok(3));
        assert!(count() >= before + 2);
    }

    /// Guards see that the stack unwinds, and may ask why.
    #[test]
    fn guards_learn_why() {
        struct Guard<'a>(&'a RefCell<String>);
        impl Drop for Guard<'_> {
            fn drop(&mut self) {
                assert!(std::thread::panicking());
                *self.0.borrow_mut() = said();
            }
        }
        watch();
        let learnt = RefCell::new(String::new());
        let broken = caught(|| {
            let _guard = Guard(&learnt);
            panic!("for guards");
        });
        assert!(broken.is_err() && learnt.borrow().starts_with("for guards"));
    }
}
