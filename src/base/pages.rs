//! How large the pages are that the kernel backs our memory with.
//!
//! Huge pages (2 MiB) make what is used all the time cheaper to reach: some hundredths of what a request costs. But with
//! them every byte that was allocated is there, if only one next to it was touched, and with thousands of connections most
//! never are: buffers of the HTTP/2 library alone are 28 KiB a connection.

use std::sync::atomic::{AtomicBool, Ordering};

static SMALL: AtomicBool = AtomicBool::new(false);

/// Has memory that is touched first from now on come in small pages alone, or not any more. What was touched before
/// stays as it is. Nothing happens on systems that do not have the choice.
pub fn prefer_small(small: bool) {
    if SMALL.load(Ordering::Relaxed) != small && SMALL.swap(small, Ordering::Relaxed) != small {
        // Without it more memory is used, and nothing else changes.
        let _refused = rustix::thread::disable_transparent_huge_pages(small);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_is_told() {
        let Ok(before) = rustix::thread::transparent_huge_pages_are_disabled() else { return };
        prefer_small(true);
        assert!(rustix::thread::transparent_huge_pages_are_disabled().unwrap());
        prefer_small(false);
        assert!(!rustix::thread::transparent_huge_pages_are_disabled().unwrap());
        prefer_small(before);
    }
}
