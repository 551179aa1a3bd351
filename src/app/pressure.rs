//! Looks at what the process uses, and what it may: memory a few times a second, and whether descriptors are still short.
//! What is short is given back by connections that idle, longest first; requests are refused by `proxy` meanwhile.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::base::pressure::{self, Level};
use crate::base::units::format_size;
use crate::config::snapshot::Current;
use crate::ingress::connection::Connections;

/// How often memory is looked at. A gigabyte a second, which takes a core, goes a quarter of a gigabyte too far.
const EVERY: Duration = Duration::from_millis(250);
/// Idle connections that are closed at each look.
const ENDED_AT_ONCE: usize = 256;
/// Looks without a shortage of descriptors after which there is none.
const QUIET_LOOKS: u32 = 20;

/// Looks for as long as it is polled.
pub(super) async fn watch(current: Arc<Current>, connections: Arc<Connections>) {
    let of_cgroup = cgroup_limit();
    let (mut level, mut was_high) = (Level::default(), false);
    let (mut lacked, mut quiet, mut was_short) = (pressure::lacked(), 0, false);
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let limit = limit(current.load().limits.memory, of_cgroup);
        let used = limit.and_then(|_| resident()).unwrap_or(0);
        let is_high = level.is_high(used, limit);
        pressure::short_of_memory(is_high);
        if is_high != was_high {
            was_high = is_high;
            let (used, limit) = (format_size(used), format_size(limit.unwrap_or(0)));
            if is_high {
                tracing::warn!(used, limit, "memory is short: new requests are refused");
            } else {
                tracing::info!(used, limit, "memory is no longer short");
            }
        }

        let now_lacked = pressure::lacked();
        quiet = if now_lacked == lacked { quiet + 1 } else { 0 };
        lacked = now_lacked;
        let mut is_short = pressure::is_short_of_descriptors();
        if is_short && quiet >= QUIET_LOOKS {
            pressure::enough_descriptors();
            is_short = false;
        }
        if is_short != was_short {
            was_short = is_short;
            if is_short {
                tracing::warn!("file descriptors are short: new connections are refused");
            } else {
                tracing::info!("file descriptors are no longer short");
            }
        }
        if is_high || is_short && quiet == 0 {
            connections.end_idle(ENDED_AT_ONCE);
        }
    }
}

/// What `/readyz` says of it: whether there is enough of both, and in words.
pub(super) fn status() -> (bool, String) {
    match (pressure::is_short_of_memory(), pressure::is_short_of_descriptors()) {
        (false, false) => (true, "none".to_owned()),
        (true, false) => (false, "memory is short".to_owned()),
        (false, true) => (false, "file descriptors are short".to_owned()),
        (true, true) => (false, "memory and file descriptors are short".to_owned()),
    }
}

/// The limit in force: the configured one, where 0 is none; else nine tenths of what the process's cgroup may have.
fn limit(configured: Option<u64>, of_cgroup: Option<u64>) -> Option<u64> {
    match configured {
        Some(0) => None,
        Some(limit) => Some(limit),
        None => of_cgroup.map(|limit| limit - limit / 10),
    }
}

/// Resident bytes of this process: proc_pid_statm(5).
fn resident() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages.saturating_mul(rustix::param::page_size() as u64))
}

/// The most memory that the cgroup of this process, or one above it, may use; `None` without such a limit.
fn cgroup_limit() -> Option<u64> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    least(&groups, |path| std::fs::read_to_string(Path::new("/sys/fs/cgroup").join(path)).ok())
}

/// The same, from the text of /proc/self/cgroup, with what reads files below /sys/fs/cgroup: versions 2 and 1 of cgroups(7).
fn least(groups: &str, read: impl Fn(&str) -> Option<String>) -> Option<u64> {
    let mut least = None;
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':');
        let (_, controllers, Some(path)) = (parts.next(), parts.next().unwrap_or(""), parts.next()) else {
            continue;
        };
        let (prefix, file) = match controllers {
            "" => ("", "memory.max"),
            listed if listed.split(',').any(|one| one == "memory") => ("memory/", "memory.limit_in_bytes"),
            _ => continue,
        };
        let mut path = path.trim_matches('/');
        loop {
            let directory = if path.is_empty() { String::new() } else { format!("{path}/") };
            let limit = read(&format!("{prefix}{directory}{file}")).and_then(|text| text.trim().parse().ok());
            // Version 1 writes "no limit" as the largest number of pages there is.
            least = least.into_iter().chain(limit.filter(|limit: &u64| *limit < 1 << 60)).min();
            if path.is_empty() {
                break;
            }
            path = path.rsplit_once('/').map_or("", |(above, _)| above);
        }
    }
    least
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn the_limit_is_the_configured_one_or_a_part_of_the_cgroups() {
        assert_eq!(limit(Some(5), Some(100)), Some(5));
        assert_eq!((limit(Some(0), Some(100)), limit(None, None)), (None, None));
        assert_eq!(limit(None, Some(100)), Some(90));
        assert!(resident().is_some_and(|bytes| bytes > 1 << 20));
    }

    #[test]
    fn the_tightest_cgroup_counts() {
        let least = |groups: &str, files: &[(&str, &str)]| {
            let files: HashMap<_, _> = files.iter().copied().collect();
            least(groups, |path| files.get(path).map(|text| (*text).to_owned()))
        };
        let two = "0::/system.slice/edgeward.service\n";
        assert_eq!(least(two, &[("system.slice/edgeward.service/memory.max", "max\n")]), None);
        let files = [
            ("system.slice/edgeward.service/memory.max", "1000\n"),
            ("system.slice/memory.max", "800\n"),
            ("memory.max", "max\n"),
        ];
        assert_eq!(least(two, &files), Some(800));
        assert_eq!(
            least("0::/\n", &[("memory.max", "700\n")]),
            Some(700),
            "a container sees itself as the root"
        );
        let one = "5:cpu,memory:/docker/x\n3:pids:/docker/x\n";
        let files = [
            ("memory/docker/x/memory.limit_in_bytes", "500\n"),
            ("memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ];
        assert_eq!(least(one, &files), Some(500));
        assert_eq!(least("nonsense\n1:2\n", &[]), None);
    }
}
