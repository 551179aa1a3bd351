//! `server.watch`: a reload when a file of the configuration, or one that it names, has changed.
//!
//! Files are looked at, not subscribed to: a configuration is often replaced by renaming a directory or a link somewhere
//! above it, on file systems that tell nobody. A second's delay costs nothing; a look is one stat(2) a file.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::lifecycle::{Command, Order};
use crate::base::task;
use crate::config::snapshot::Current;

/// How often files are looked at. A change is acted on when they were the same twice: not half way through a copy.
const INTERVAL: Duration = Duration::from_secs(1);

/// What tells a file's contents apart without reading them; `None` = not there.
type Look = Option<(u64, u64, u64, i64, i64)>;

/// Orders reloads for as long as it is polled, while the configuration of the moment wants them. `generation` changes
/// with each configuration.
pub(super) async fn run(
    current: Arc<Current>,
    mut generation: watch::Receiver<u64>,
    orders: mpsc::Sender<Order>,
) {
    let mut seen = HashMap::new();
    loop {
        generation.borrow_and_update();
        let snapshot = current.load();
        let (wanted, files) = (snapshot.server.watch, snapshot.files.clone());
        drop(snapshot);
        tokio::select! {
            changed = generation.changed() => if changed.is_err() { return },
            () = changes(&files, &mut seen), if wanted => {
                if orders.send(Order::unanswered(Command::Reload)).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Returns when `files` are not as they were `seen`, and have come to rest. They count as seen then, whatever comes of it:
/// a broken configuration is not reported every second, and a change made while it is read is another one.
async fn changes(files: &Arc<[PathBuf]>, seen: &mut HashMap<PathBuf, Look>) {
    seen.retain(|file, _| files.contains(file));
    let mut before = look(files).await;
    for (file, look) in files.iter().zip(&before) {
        seen.entry(file.clone()).or_insert(*look);
    }
    loop {
        tokio::time::sleep(INTERVAL).await;
        let now = look(files).await;
        let changed = files.iter().zip(&now).any(|(file, look)| seen.get(file) != Some(look));
        if changed && now == before {
            seen.extend(files.iter().cloned().zip(now));
            return;
        }
        before = now;
    }
}

async fn look(files: &Arc<[PathBuf]>) -> Vec<Look> {
    let files = files.clone();
    let looked = task::blocking(move || {
        let one = |file: &PathBuf| {
            let found = std::fs::metadata(file).ok()?;
            Some((found.dev(), found.ino(), found.size(), found.mtime(), found.mtime_nsec()))
        };
        files.iter().map(one).collect()
    });
    looked.await.unwrap_or_default()
}
