//! Faults on purpose, so that tests of the whole binary can see what becomes of them.
//!
//! `EDGEWARD_FAULT=panic:request=/boom,panic:dns` has the process panic at the point `request` whenever what it is about
//! holds `/boom`, and once at the point `dns`. Only builds with debug assertions know this variable; in others, all
//! that is released among them, a point is nothing.

/// A point at which a test can have the process fail; `about` is what is worked on.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn point(_name: &str, _about: impl AsRef<[u8]>) {}

/// A point at which a test can have the process fail; `about` is what is worked on.
///
/// # Panics
/// If `EDGEWARD_FAULT` asks for that.
#[cfg(debug_assertions)]
#[track_caller]
pub fn point(name: &str, about: impl AsRef<[u8]>) {
    let faults = armed::FAULTS.get_or_init(armed::read);
    if !faults.is_empty() && armed::strikes(faults, name, about.as_ref()) {
        #[expect(clippy::panic, reason = "a test asked for it")]
        {
            panic!("a fault at {name:?}, on purpose");
        }
    }
}

#[cfg(debug_assertions)]
mod armed {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicBool, Ordering};

    pub(super) static FAULTS: OnceLock<Vec<Fault>> = OnceLock::new();

    #[derive(Debug)]
    pub(super) struct Fault {
        point: String,
        /// What the work must be about; any, but only once, if there is none.
        about: Option<String>,
        struck: AtomicBool,
    }

    pub(super) fn read() -> Vec<Fault> {
        parse(&std::env::var("EDGEWARD_FAULT").unwrap_or_default())
    }

    pub(super) fn parse(text: &str) -> Vec<Fault> {
        let faults = text.split(',').filter_map(|fault| fault.trim().strip_prefix("panic:"));
        let fault = |fault: &str| {
            let (point, about) = fault.split_once('=').unzip();
            let point = point.unwrap_or(fault).to_owned();
            Fault { point, about: about.map(str::to_owned), struck: AtomicBool::new(false) }
        };
        faults.map(fault).collect()
    }

    pub(super) fn strikes(faults: &[Fault], name: &str, about: &[u8]) -> bool {
        faults.iter().filter(|fault| fault.point == name).any(|fault| match &fault.about {
            Some(text) => memchr::memmem::find(about, text.as_bytes()).is_some(),
            None => !fault.struck.swap(true, Ordering::Relaxed),
        })
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn faults_strike_where_and_as_often_as_they_are_asked_for() {
            let faults = parse("panic:request=/boom, panic:dns,nonsense");
            assert!(strikes(&faults, "request", b"/a/boom") && strikes(&faults, "request", b"/boom/b"));
            assert!(!strikes(&faults, "request", b"/a") && !strikes(&faults, "leg", b"/boom"));
            assert!(strikes(&faults, "dns", b"") && !strikes(&faults, "dns", b""));
            assert!(parse("").is_empty());
        }
    }
}
