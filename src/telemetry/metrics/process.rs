//! The standard `process_*` metrics, read from /proc when asked for.

use std::fs;

/// What the kernel says about this process. Everything is `None` where /proc is missing.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub(super) struct Process {
    pub(super) cpu_seconds: Option<f64>,
    pub(super) resident_bytes: Option<u64>,
    pub(super) virtual_bytes: Option<u64>,
    pub(super) start_time_seconds: Option<f64>,
    pub(super) threads: Option<u64>,
    pub(super) open_fds: Option<u64>,
    pub(super) max_fds: Option<u64>,
}

impl Process {
    pub(super) fn read() -> Self {
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let boot = fs::read_to_string("/proc/stat").unwrap_or_default();
        Self {
            // One too many: the directory itself is open while it is read.
            open_fds: fs::read_dir("/proc/self/fd").ok().map(|fds| (fds.count() as u64).saturating_sub(1)),
            max_fds: rustix::process::getrlimit(rustix::process::Resource::Nofile).current,
            ..Self::parse(
                &stat,
                &boot,
                rustix::param::clock_ticks_per_second(),
                rustix::param::page_size() as u64,
            )
        }
    }

    /// From the text of /proc/self/stat (proc_pid_stat(5)) and /proc/stat (`btime`).
    fn parse(stat: &str, boot: &str, ticks_per_second: u64, page_bytes: u64) -> Self {
        // The second field is the name in parentheses, which may itself hold spaces and parentheses.
        let fields: Vec<&str> =
            stat.rsplit_once(')').map_or(Vec::new(), |(_, rest)| rest.split_ascii_whitespace().collect());
        // Numbered as in the manual page: the first one after the name is 3.
        let field = |number: usize| fields.get(number - 3).and_then(|text| text.parse::<u64>().ok());
        #[expect(clippy::cast_precision_loss, reason = "metrics are read as floats anyway")]
        let seconds = |ticks: u64| ticks as f64 / ticks_per_second.max(1) as f64;
        let boot_seconds = boot
            .lines()
            .find_map(|line| line.strip_prefix("btime "))
            .and_then(|text| text.trim().parse::<f64>().ok());
        Self {
            cpu_seconds: field(14).zip(field(15)).map(|(user, system)| seconds(user.saturating_add(system))),
            threads: field(20),
            start_time_seconds: field(22).zip(boot_seconds).map(|(ticks, boot)| boot + seconds(ticks)),
            virtual_bytes: field(23),
            resident_bytes: field(24).map(|pages| pages.saturating_mul(page_bytes)),
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_parentheses_shifts_nothing() {
        let stat = "4242 (edge (ward) x) S 1 4242 4242 0 -1 4194560 1234 0 5 0 150 50 0 0 20 0 9 0 7000 104857600 2560 18446744073709551615 1 1 0";
        let parsed = Process::parse(stat, "cpu 1 2 3\nbtime 1700000000\n", 100, 4096);
        assert_eq!(parsed.cpu_seconds, Some(2.0));
        assert_eq!(parsed.threads, Some(9));
        assert_eq!(parsed.start_time_seconds, Some(1_700_000_070.0));
        assert_eq!(parsed.virtual_bytes, Some(104_857_600));
        assert_eq!(parsed.resident_bytes, Some(10_485_760));
    }

    #[test]
    fn without_proc_nothing_is_claimed() {
        assert_eq!(Process::parse("", "", 100, 4096), Process::default());
        assert_eq!(Process::parse("1 (x", "btime x", 0, 0), Process::default());
    }

    #[test]
    fn this_process_has_numbers() {
        let process = Process::read();
        assert!(process.resident_bytes.is_some_and(|bytes| bytes > 1 << 20));
        assert!(process.start_time_seconds.is_some_and(|seconds| seconds > 1.5e9));
        assert!(process.open_fds.is_some_and(|fds| fds >= 3));
    }
}
