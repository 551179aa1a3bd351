//! What a service manager is told, over `NOTIFY_SOCKET` (sd_notify(3)); without one, nothing.

use sd_notify::NotifyState;

/// This process serves.
pub(super) fn ready() {
    tell(&[NotifyState::Ready, NotifyState::MainPid(std::process::id())]);
}

/// This process ends.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// `pid` serves in place of this process.
pub(super) fn main_pid(pid: u32) {
    tell(&[NotifyState::MainPid(pid)]);
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "the service manager cannot be told");
    }
}
