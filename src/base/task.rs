//! Spawning: every task of the process starts here, so that it is named in the log when it panics, and counted.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::FutureExt;
use tokio::task::JoinHandle;

static RUNNING: AtomicUsize = AtomicUsize::new(0);

/// How many tasks started here have not ended.
pub fn running() -> usize {
    RUNNING.load(Ordering::Relaxed)
}

/// Spawns `work` on the current runtime. A panic in it ends only it, and is logged under `name`.
pub fn spawn<F>(name: &'static str, work: F) -> JoinHandle<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    RUNNING.fetch_add(1, Ordering::Relaxed);
    let guard = Running { name };
    #[expect(clippy::disallowed_methods, reason = "the one place")]
    tokio::spawn(async move {
        let _guard = guard;
        work.await;
    })
}

/// Runs `work` in the current task. A panic in it ends only it (then there is `None`), and is logged under `name`.
pub async fn contained<T>(name: &'static str, work: impl Future<Output = T>) -> Option<T> {
    let ended = AssertUnwindSafe(work).catch_unwind().await;
    if ended.is_err() {
        tracing::error!(task = name, "task panicked");
    }
    ended.ok()
}

/// Runs `work`, which blocks, on a thread where that keeps nobody waiting.
pub fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    tokio::task::spawn_blocking(work)
}

/// Spawns `work` on another runtime than the current one; otherwise as [`spawn`].
pub fn spawn_on<F>(runtime: &tokio::runtime::Handle, name: &'static str, work: F) -> JoinHandle<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    let _entered = runtime.enter();
    spawn(name, work)
}

/// Aborts its task when dropped: for tasks that belong to a value.
#[derive(Debug)]
pub struct AbortOnDrop(JoinHandle<()>);

impl AbortOnDrop {
    /// Ties `handle` to the returned value.
    pub fn new(handle: JoinHandle<()>) -> Self {
        Self(handle)
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Running {
    name: &'static str,
}

impl Drop for Running {
    fn drop(&mut self) {
        RUNNING.fetch_sub(1, Ordering::Relaxed);
        if std::thread::panicking() {
            tracing::error!(task = self.name, "task panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_contained() {
        assert_eq!(contained("test", async { 1 }).await, Some(1));
        let broken = async {
            tokio::task::yield_now().await;
            panic!("on purpose")
        };
        assert_eq!(contained::<()>("test", broken).await, None);
    }
}
