//! `server.watch`: a reload when a file of the configuration, or one that it names, has changed.
//!
//! Files are looked at, not subscribed to: a configuration is often replaced by renaming a directory or a link somewhere
//! above it, on file systems that tell nobody. A second's delay costs nothing; a look is one stat(2) a file.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, watch};

use super::lifecycle::{Command, Order};
use super::reload::Watched;
use crate::base::task;

/// How often files are looked at. A change is acted on when they were the same twice: not half way through a copy.
const INTERVAL: Duration = Duration::from_secs(1);

/// What tells a file's contents apart without reading them; `None` = not there.
type Look = Option<(u64, u64, u64, SystemTime)>;

/// How each file was when it counted last; `None` = it is not known, and counts as changed.
type Seen = HashMap<PathBuf, Option<Look>>;

/// Orders reloads for as long as it is polled, while the configuration of the moment wants them.
pub(super) async fn run(mut watched: watch::Receiver<Watched>, orders: mpsc::Sender<Order>) {
    let mut seen = Seen::new();
    loop {
        let Watched { wanted, files, read } = watched.borrow_and_update().clone();
        tokio::select! {
            changed = watched.changed() => if changed.is_err() { return },
            () = changes(&files, read, &mut seen), if wanted => {
                if orders.send(Order::unanswered(Command::Reload)).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Returns when `files` are not as they were `seen`, and have come to rest. They count as seen then, whatever comes of it:
/// a broken configuration is not reported every second, and a change made while it is read is another one.
async fn changes(files: &Arc<[PathBuf]>, read: SystemTime, seen: &mut Seen) {
    let mut before = look(files).await;
    let mut known = Seen::with_capacity(files.len());
    for (file, look) in files.iter().zip(&before) {
        // What is older than the last reading was seen by it, by whomever it was asked for.
        let was_read = look.is_none_or(|(.., modified)| modified < read);
        let last = if was_read { Some(*look) } else { seen.remove(file).flatten() };
        known.insert(file.clone(), last);
    }
    *seen = known;
    loop {
        tokio::time::sleep(INTERVAL).await;
        let now = look(files).await;
        let changed = files.iter().zip(&now).any(|(file, look)| seen.get(file) != Some(&Some(*look)));
        if changed && now == before {
            seen.extend(files.iter().cloned().zip(now.into_iter().map(Some)));
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
            Some((found.dev(), found.ino(), found.size(), found.modified().ok()?))
        };
        files.iter().map(one).collect()
    });
    looked.await.unwrap_or_default()
}
